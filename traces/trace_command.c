#include "traces/trace_command.h"

#include "configs/base/diag.h"
#include "configs/base/memory.h"
#include "configs/base/status.h"
#include "traces/importer.h"
#include "traces/statistics.h"
#include "traces/trace.h"
#include "traces/trace_internal.h"
#include <argp.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <time.h>
#include <unistd.h>

enum { PATHS_MAX = 2, PROGRESS_AFTER_S = 2 };

/* A parsed command line, and what all subcommands share. */
typedef struct arguments {
    int wanted; /* paths this subcommand takes */
    int given;
    const char *paths[PATHS_MAX];
    bool json;
    int64_t shard_iterations;
    moe_diag *diag;
} arguments;

typedef struct subcommand {
    const char *name;
    int paths;
    const char *arguments_text;
    const char *sentence;
    const struct argp_option *options;
    moe_status (*run)(const arguments *given);
} subcommand;

/* --- progress ------------------------------------------------------------------------------- */

typedef struct progress {
    time_t started;
    time_t printed;
} progress;

static void progress_show(void *state, int64_t done, int64_t total)
{
    progress *shown = state;
    const time_t now = time(NULL);
    if (!isatty(STDERR_FILENO) || now - shown->started < PROGRESS_AFTER_S)
        return;
    if (now != shown->printed)
        fprintf(stderr, "\r%3" PRId64 " %% of %" PRId64 " iterations", done * 100 / total, total);
    if (done == total)
        fprintf(stderr, "\r\033[K");
    shown->printed = now;
}

/* --- the subcommands ------------------------------------------------------------------------ */

static void print_json(json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    fputc('\n', stdout);
    json_decref(value);
}

static moe_status run_info(const arguments *given)
{
    progress shown = {.started = time(NULL)};
    void *owner = moe_need(talloc_new(NULL));
    const moe_trace *trace = moe_trace_open(owner, given->paths[0], (moe_where){0}, given->diag);
    if (trace != NULL) {
        const moe_trace_statistics *statistics =
            moe_trace_measure(owner, trace, progress_show, &shown);
        if (given->json)
            print_json(moe_trace_info_json(trace, statistics));
        else
            moe_trace_print_info(trace, statistics, stdout);
    }
    talloc_free(owner);
    return trace == NULL ? MOE_BAD_INPUT : MOE_OK;
}

static moe_status run_check(const arguments *given)
{
    void *owner = moe_need(talloc_new(NULL));
    const moe_trace *trace = moe_trace_open(owner, given->paths[0], (moe_where){0}, given->diag);
    const moe_status status = trace == NULL ? MOE_BAD_INPUT : moe_trace_check(trace, given->diag);
    if (given->json)
        print_json(json_pack("{s:s, s:b, s:i}", "file", given->paths[0], "sound", status == MOE_OK,
                             "errors", moe_diag_error_count(given->diag)));
    else if (status == MOE_OK)
        printf("%s: sound\n", given->paths[0]);
    talloc_free(owner);
    return status;
}

static const moe_importer *find_importer(const char *path)
{
    for (size_t i = 0; moe_importers[i] != NULL; i++) {
        if (moe_importers[i]->recognise(path))
            return moe_importers[i];
    }
    return NULL;
}

static void report_unknown(const arguments *given)
{
    moe_diag_error(given->diag, (moe_where){0},
                   "\"%s\" is no recording that an importer recognises", given->paths[0]);
    for (size_t i = 0; moe_importers[i] != NULL; i++)
        moe_diag_note(given->diag, (moe_where){0}, "%s reads %s", moe_importers[i]->name,
                      moe_importers[i]->sentence);
}

static moe_status run_convert(const arguments *given)
{
    const char *input = given->paths[0];
    const char *output = given->paths[1];
    const bool is_index = moe_text_ends_with(output, MOE_TRACE_INDEX_SUFFIX);
    if (!moe_text_ends_with(output, MOE_TRACE_FILE_SUFFIX) &&
        !(is_index && given->shard_iterations > 0)) {
        moe_diag_error(
            given->diag, (moe_where){0},
            "output \"%s\"; expected a name that ends in %s (with --shard-iterations also %s)",
            output, MOE_TRACE_FILE_SUFFIX, MOE_TRACE_INDEX_SUFFIX);
        return MOE_USAGE;
    }
    const moe_importer *importer = find_importer(input);
    if (importer == NULL) {
        report_unknown(given);
        return MOE_BAD_INPUT;
    }
    return importer->import(input, output, given->shard_iterations, given->diag);
}

/* --- command lines -------------------------------------------------------------------------- */

static const struct argp_option json_options[] = {
    {"json", 'j', NULL, 0, "Print one JSON value instead of text", 0},
    {NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
    {0},
};

static const struct argp_option convert_options[] = {
    {"shard-iterations", 's', "N", 0, "Write shards of N iterations and an index", 0},
    {NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
    {0},
};

static const subcommand subcommands[] = {
    {"info", 1, "FILE",
     "Says what is in a trace: shape, origin, imbalance of experts, drift, and how well the past "
     "predicts it.",
     json_options, run_info},
    {"convert", 2, "INPUT OUTPUT.safetensors",
     "Turns a recording into a native trace. INPUT is a folder with counts.npy (or, token by "
     "token, experts.npy) and meta.json, or a native trace to be written anew.",
     convert_options, run_convert},
    {"check", 1, "FILE",
     "Reads all of a trace and says whether it is sound: CRCs, and each source's assignments "
     "against "
     "its tokens.",
     json_options, run_check},
};

static error_t parse_argument(arguments *into, char *text, struct argp_state *state)
{
    if (into->given >= into->wanted)
        argp_error(state, "unexpected argument \"%s\"", text);
    into->paths[into->given++] = text;
    return 0;
}

static void parse_shard_iterations(arguments *into, const char *text, struct argp_state *state)
{
    char *end;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || value < 1 || value > INT32_MAX)
        argp_error(state, "--shard-iterations is \"%s\"; expected an integer of at least 1", text);
    into->shard_iterations = value;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    arguments *into = state->input;
    switch (key) {
    case 'j':
        into->json = true;
        return 0;
    case 'h':
        argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
        return 0;
    case 's':
        parse_shard_iterations(into, text, state);
        return 0;
    case ARGP_KEY_ARG:
        return parse_argument(into, text, state);
    case ARGP_KEY_END:
        if (into->given < into->wanted)
            argp_error(state, "%s", into->given == 0 ? "no file given" : "no output given");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int run(const subcommand *chosen, int argc, char **argv)
{
    void *owner = moe_need(talloc_new(NULL));
    char **own_argv = moe_need(talloc_memdup(owner, argv, ((size_t)argc + 1) * sizeof *argv));
    arguments given = {.wanted = chosen->paths, .diag = moe_diag_create(owner, stderr)};
    const struct argp parser = {
        chosen->options, parse_option, chosen->arguments_text, chosen->sentence, NULL, NULL, NULL};
    own_argv[0] = moe_need(talloc_asprintf(owner, "moeplan trace %s", chosen->name));
    argp_parse(&parser, argc, own_argv, 0, NULL, &given);
    const moe_status status = chosen->run(&given);
    talloc_free(owner);
    return status;
}

static void print_usage(FILE *stream)
{
    fprintf(stream, "Usage: moeplan trace COMMAND ...\n\n");
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++)
        fprintf(stream, "  moeplan trace %s %s\n      %s\n", subcommands[i].name,
                subcommands[i].arguments_text, subcommands[i].sentence);
    fprintf(stream, "\n`moeplan trace COMMAND --help` lists the options.\n");
}

static int report_unknown_command(const char *name)
{
    const char *names[sizeof subcommands / sizeof *subcommands];
    const size_t count = sizeof subcommands / sizeof *subcommands;
    for (size_t i = 0; i < count; i++)
        names[i] = subcommands[i].name;
    const char *closest = moe_closest(name, names, count);
    fprintf(stderr, "moeplan: error: no command \"trace %s\"%s%s%s\n", name,
            closest == NULL ? "" : "; did you mean \"", closest == NULL ? "" : closest,
            closest == NULL ? "" : "\"?");
    print_usage(stderr);
    return MOE_USAGE;
}

int moe_trace_command(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return MOE_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return MOE_OK;
    }
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0)
            return run(&subcommands[i], argc - 1, argv + 1);
    }
    return report_unknown_command(argv[1]);
}
