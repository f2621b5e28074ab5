/* moeplan timeline summarize FILE: a written timeline, looked at without a browser. */
#include "reports/commands.h"
#include "reports/timeline_summarize.h"

#include "configs/base/memory.h"
#include <argp.h>
#include <stdbool.h>
#include <string.h>
#include <talloc.h>

typedef struct timeline_arguments {
    const char *path;
    bool json;
} timeline_arguments;

static const struct argp_option options[] = {
    {"json", 'j', NULL, 0, "One JSON object instead of text", 0}, {0}};

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    timeline_arguments *arguments = state->input;
    switch (key) {
    case 'j':
        arguments->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (arguments->path != NULL)
            argp_error(state, "a second file \"%s\", expected one", text);
        arguments->path = text;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no file, expected one of `moeplan simulate --timeline`");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options,
    parse_option,
    "FILE",
    "Names the largest parts of the critical path of every policy in a timeline that `moeplan "
    "simulate --timeline FILE` wrote: operation, layer, device, stream, time a step and share.",
    NULL,
    NULL,
    NULL};

static moe_status summarize(const timeline_arguments *arguments)
{
    void *owner = moe_need(talloc_new(NULL));
    json_t *summary = moe_timeline_summarize(arguments->path, moe_diag_create(owner, stderr));
    if (summary != NULL && arguments->json) {
        json_dumpf(summary, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
        fputc('\n', stdout);
    } else if (summary != NULL) {
        moe_timeline_print_summary(summary, stdout);
    }
    moe_status status = summary != NULL ? MOE_OK : MOE_BAD_INPUT;
    json_decref(summary);
    talloc_free(owner);
    return status;
}

static void print_usage(FILE *stream)
{
    fputs(
        "Usage: moeplan timeline summarize FILE [--json]\n\n"
        "  moeplan timeline summarize FILE\n"
        "      Names the largest parts of the critical path of every policy in a timeline.\n\n"
        "`moeplan simulate SCENARIO.yaml --timeline FILE` writes one; ui.perfetto.dev shows it.\n",
        stream);
}

int moe_timeline_command(int argc, char **argv)
{
    timeline_arguments arguments = {0};
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_usage(stdout);
        return MOE_OK;
    }
    if (argc < 2 || strcmp(argv[1], "summarize") != 0) {
        if (argc >= 2)
            fprintf(stderr, "moeplan: error: no command \"timeline %s\"; expected summarize\n",
                    argv[1]);
        print_usage(stderr);
        return MOE_USAGE;
    }
    argv[1] = (char *)"moeplan timeline summarize";
    argp_err_exit_status = MOE_USAGE;
    argp_parse(&parser, argc - 1, argv + 1, 0, NULL, &arguments);
    return summarize(&arguments);
}
