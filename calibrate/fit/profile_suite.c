/* moeplan profile suite MODEL... TRACE... [-o suite.json]: what `moecal` shall measure. */
#include "calibrate/fit/profile_command.h"
#include "calibrate/fit/suite_make.h"

#include "configs/base/memory.h"
#include "configs/base/output.h"
#include "configs/base/status.h"
#include "configs/preset.h"
#include "traces/importer.h"
#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* A sample repeats its matrix, in one line of at most 1 MiB (calibrate/SAMPLES.md): 256^2 numbers fit. */
enum { RANKS_MAX = 256, CHUNKS_MAX = 65536, POINTS_MIN = 16 };

typedef struct suite_arguments {
    const char *names[2 * MOE_SUITE_SOURCES_MAX]; /* as given */
    int name_count;
    const char *output; /* NULL: standard output */
    double limit_bytes;
    moe_suite_options options;
    moe_suite_input input;
    char *title;
    moe_diag *diag; /* owns all */
} suite_arguments;

/* --- models and traces ---------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), tail = strlen(suffix);
    return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

static bool is_trace(const char *name)
{
    return ends_with(name, ".safetensors") || ends_with(name, ".safetensors.index.json") ||
           moe_importer_native.recognise(name);
}

static void add_title(suite_arguments *given, const char *name)
{
    given->title = moe_need(talloc_asprintf_append(
        given->title ? given->title : moe_need(talloc_strdup(given->diag, "")), "%s%s",
        given->input.model_count > 1 ? ", " : "", name ? name : "a model"));
}

static bool add_model(suite_arguments *given, const char *name)
{
    const char *path = moe_preset_find(given->diag, MOE_MODEL_PRESETS, "models", name, given->diag);
    moe_config *config =
        path ? moe_config_load(given->diag, path, &moe_network_table, NULL, 0, given->diag) : NULL;
    if (!config || moe_network_check(moe_config_root(config), config, given->diag) != MOE_OK)
        return false;
    const moe_network *model = moe_config_root(config);
    given->input.models[given->input.model_count++] = model;
    add_title(given, model->name);
    return true;
}

static bool add_trace(suite_arguments *given, const char *name)
{
    const moe_trace *trace = moe_trace_open(given->diag, name, (moe_where){0}, given->diag);
    if (!trace)
        return false;
    if (moe_trace_get_info(trace)->aggregation != MOE_AGGREGATION_DISPATCH)
        moe_diag_warning(given->diag, (moe_where){0},
                         "%s sums over several dispatches: single ones are more skewed", name);
    given->input.traces[given->input.trace_count++] = trace;
    return true;
}

static bool refuse_recording(suite_arguments *given, const char *name)
{
    moe_diag_error(
        given->diag, (moe_where){0},
        "\"%s\" is a recording; expected a trace, which `moeplan trace convert` makes of it", name);
    return false;
}

static bool add_name(suite_arguments *given, const char *name)
{
    if (is_trace(name))
        return add_trace(given, name);
    for (const moe_importer *const *importer = moe_importers; *importer; importer++)
        if ((*importer)->recognise(name))
            return refuse_recording(given, name);
    return add_model(given, name);
}

/* A trace of no model's experts has nothing to say. */
static bool check_trace(suite_arguments *given, int trace)
{
    const moe_suite_input *input = &given->input;
    long long experts = (long long)moe_trace_get_info(input->traces[trace])->shape.experts;
    char *models = moe_need(talloc_strdup(given->diag, ""));
    for (int i = 0; i < input->model_count; i++) {
        if (moe_suite_matches(input->models[i], input->traces[trace]))
            return true;
        models = moe_need(talloc_asprintf_append(
            models, "%s%lld (%s)", i ? ", " : "", (long long)input->models[i]->experts,
            input->models[i]->name ? input->models[i]->name : "a model"));
    }
    moe_diag_error(given->diag, (moe_where){0},
                   "trace %d routes to %lld experts; the models have %s", trace + 1, experts,
                   models);
    return false;
}

static bool read_input(suite_arguments *given)
{
    bool sound = true;
    for (int i = 0; i < given->name_count; i++)
        sound = add_name(given, given->names[i]) && sound;
    if (sound && given->input.model_count == 0) {
        moe_diag_error(given->diag, (moe_where){0},
                       "no model given; expected one whose shapes are to be measured "
                       "(`moeplan list models`)");
        return false;
    }
    for (int i = 0; sound && i < given->input.trace_count; i++)
        sound = check_trace(given, i);
    return sound;
}

/* --- the suite ------------------------------------------------------------------------------------ */

static void add_routed(moe_suite_points *suite, const suite_arguments *given,
                       const moe_network *model)
{
    const moe_suite_options *options = &given->options;
    for (int i = 0; i < given->input.trace_count; i++) {
        const moe_trace *trace = given->input.traces[i];
        if (!moe_suite_matches(model, trace))
            continue;
        moe_suite_add_recorded(suite, model, trace, options);
        if (options->ranks > 1)
            moe_suite_add_recorded_exchanges(suite, model, trace, options);
    }
}

static moe_suite_points *make_suite(const suite_arguments *given)
{
    moe_suite_points *suite = moe_suite_points_create(given->diag, given->limit_bytes);
    const moe_suite_options *options = &given->options;
    moe_suite_add_gemms(suite, &given->input, options);
    if (options->ranks > 1)
        moe_suite_add_collectives(suite, options);
    for (int i = 0; i < given->input.model_count; i++) {
        const moe_network *model = given->input.models[i];
        moe_suite_add_parts(suite, model, options);
        moe_suite_add_experts(suite, model, options);
        moe_suite_add_exchanges(suite, model, options);
        add_routed(suite, given, model);
    }
    moe_suite_add_host(suite);
    return suite;
}

/* --- what is said about it -------------------------------------------------------------------------- */

static void print_row(const char *name, const moe_suite_tally *tally, FILE *stream)
{
    char bytes[48], flop[48];
    moe_units_format_short(tally->bytes, MOE_BYTES, bytes);
    moe_units_format_short(tally->flop, MOE_FLOP, flop);
    fprintf(stream, "  %-13s %6zu points  %10s  %12s\n", name, tally->points, bytes, flop);
}

static void print_summary(const suite_arguments *given, const moe_suite_points *suite, FILE *stream)
{
    moe_suite_tally all = {0};
    char largest[48], limit[48];
    fprintf(stream, "%s: bytes and FLOPs of one repetition of every point\n",
            given->output ? given->output : "suite");
    for (int kind = 0; kind < MOE_SAMPLE_KINDS; kind++) {
        const moe_suite_tally *tally = &suite->tallies[kind];
        all.points += tally->points;
        all.bytes += tally->bytes;
        all.flop += tally->flop;
        if (tally->points > 0)
            print_row(moe_sample_kind_names[kind], tally, stream);
    }
    print_row("all", &all, stream);
    moe_units_format_short(suite->largest_bytes, MOE_BYTES, largest);
    moe_units_format_short(suite->limit_bytes, MOE_BYTES, limit);
    fprintf(stream, "  the largest point takes %s of device memory; ", largest);
    fprintf(stream, "%zu left out: over %s (--memory) or %lld rows (--rows)\n", suite->left_out,
            limit, (long long)given->options.most_rows);
    if (given->options.ranks < 2)
        fprintf(stream, "  no collectives: --ranks is 1\n");
}

static moe_status write_suite(const suite_arguments *given, const moe_suite_points *suite)
{
    if (!given->output) {
        moe_suite_points_write(suite, given->title, stdout);
        print_summary(given, suite, stderr);
        return MOE_OK;
    }
    moe_output *output = moe_output_open(given->diag, given->output, given->diag);
    if (!output)
        return MOE_INTERNAL;
    moe_suite_points_write(suite, given->title, moe_output_stream(output));
    moe_status status = moe_output_commit(output, given->diag);
    if (status == MOE_OK)
        print_summary(given, suite, stdout);
    return status;
}

/* --- the command line ----------------------------------------------------------------------------- */

enum {
    KEY_TOKENS = 256,
    KEY_RANKS,
    KEY_DTYPE,
    KEY_POINTS,
    KEY_CHUNKS,
    KEY_ROWS,
    KEY_MEMORY,
    KEY_UNGROUPED
};

static const struct argp_option options[] = {
    {"output", 'o', "FILE", 0, "Write there, whole or not at all, instead of to standard output",
     0},
    {"tokens", KEY_TOKENS, "N", 0, "Tokens of one device in one dispatch (default: 4096)", 0},
    {"ranks", KEY_RANKS, "N", 0, "Ranks of collectives, at most 256 (default: 8; 1: none)", 0},
    {"dtype", KEY_DTYPE, "TYPE", 0, "fp32, bf16 (default), fp16 or fp8: of matrix products", 0},
    {"points", KEY_POINTS, "N", 0, "At most so many GEMMs on the grid (default: 2000)", 0},
    {"rows", KEY_ROWS, "N", 0, "At most so many rows in one kernel (default: 131072)", 0},
    {"memory", KEY_MEMORY, "BYTES", 0,
     "Leave out points that take more (default: \"32 GiB\"; they stay below what a device has)", 0},
    {"ungrouped", KEY_UNGROUPED, NULL, 0,
     "Experts by one matrix product each, not by grouped ones, which a CPU (moecal-cpu) has not",
     0},
    {"fssdp-chunks", KEY_CHUNKS, "N[,N...]", 0,
     "Experts that one grouped broadcast or reduce moves (default: 1,2,4,8,16)", 0},
    {NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
    {0},
};

static int64_t parse_integer(const char *option, const char *text, int64_t low, int64_t high,
                             struct argp_state *state)
{
    char *end;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || value < low || value > high)
        argp_error(state, "%s is \"%s\"; expected an integer from %lld to %lld", option, text,
                   (long long)low, (long long)high);
    return value;
}

static void parse_dtype(suite_arguments *given, const char *text, struct argp_state *state)
{
    given->options.dtype = moe_sample_dtype(text);
    if (!given->options.dtype)
        argp_error(state, "--dtype is \"%s\"; expected fp32, bf16, fp16 or fp8", text);
    else
        given->options.value_bytes = moe_sample_dtype_bytes(text);
}

static void parse_memory(suite_arguments *given, const char *text, struct argp_state *state)
{
    moe_units_error error;
    if (!moe_units_parse(text, strlen(text), MOE_BYTES, &given->limit_bytes, &error))
        argp_error(state, "--memory: %s", error.message);
    else if (given->limit_bytes < 1 << 20)
        argp_error(state, "--memory is \"%s\"; expected at least 1 MiB", text);
}

static void parse_chunks(suite_arguments *given, const char *text, struct argp_state *state)
{
    moe_suite_options *into = &given->options;
    char *copy = moe_need(talloc_strdup(given->diag, text)), *rest = copy, *part;
    into->chunk_count_count = 0;
    while ((part = strsep(&rest, ",")) != NULL) {
        if (into->chunk_count_count == MOE_SUITE_CHUNK_COUNTS_MAX)
            argp_error(state, "--fssdp-chunks has more than %d numbers",
                       MOE_SUITE_CHUNK_COUNTS_MAX);
        into->chunk_counts[into->chunk_count_count++] =
            (int)parse_integer("--fssdp-chunks", part, 1, CHUNKS_MAX, state);
    }
}

static error_t parse_argument(suite_arguments *given, char *text, struct argp_state *state)
{
    if (given->name_count == MOE_SUITE_SOURCES_MAX)
        argp_error(state, "more than %d models and traces", MOE_SUITE_SOURCES_MAX);
    given->names[given->name_count++] = text;
    return 0;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    suite_arguments *given = state->input;
    switch (key) {
    case 'o':
        given->output = text;
        return 0;
    case 'h':
        argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
        return 0;
    case KEY_TOKENS:
        given->options.tokens = parse_integer("--tokens", text, 1, 1 << 20, state);
        return 0;
    case KEY_RANKS:
        given->options.ranks = (int)parse_integer("--ranks", text, 1, RANKS_MAX, state);
        return 0;
    case KEY_DTYPE:
        parse_dtype(given, text, state);
        return 0;
    case KEY_POINTS:
        given->options.points = (int)parse_integer("--points", text, POINTS_MIN, 90000, state);
        return 0;
    case KEY_ROWS:
        given->options.most_rows = parse_integer("--rows", text, 1, 1 << 24, state);
        return 0;
    case KEY_MEMORY:
        parse_memory(given, text, state);
        return 0;
    case KEY_UNGROUPED:
        given->options.ungrouped = true;
        return 0;
    case KEY_CHUNKS:
        parse_chunks(given, text, state);
        return 0;
    case ARGP_KEY_ARG:
        return parse_argument(given, text, state);
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "expected models (`moeplan list models`, or YAML files) and traces");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "MODEL... TRACE...",
    .doc =
        "Writes what `moecal --suite FILE` measures: the GEMMs, attention and other parts of these "
        "models in forward and backward pass, their experts with uniform, power-law and recorded "
        "rows, the collectives of their steps with recorded matrices, interference, sharing, "
        "launches and copies. MODEL: a preset or a YAML file; TRACE: .safetensors.",
};

int moe_profile_suite_command(int argc, char **argv)
{
    suite_arguments given = {.limit_bytes = 32.0 * (1 << 30),
                             .options = {.dtype = "bf16",
                                         .value_bytes = 2,
                                         .ranks = 8,
                                         .tokens = 4096,
                                         .most_rows = 131072,
                                         .points = 2000,
                                         .chunk_counts = {1, 2, 4, 8, 16},
                                         .chunk_count_count = 5},
                             .diag = moe_diag_create(NULL, stderr)};
    moe_status status = MOE_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &given) == 0)
        status = read_input(&given) ? write_suite(&given, make_suite(&given)) : MOE_BAD_INPUT;
    talloc_free(given.diag);
    return status;
}
