/* moeplan cluster show|export FILE|PRESET: a cluster in text, or as a SimGrid platform. */
#include "reports/cluster_show.h"
#include "reports/commands.h"

#include "configs/base/memory.h"
#include "configs/base/output.h"
#include "configs/preset.h"
#include "models/cluster_platform.h"
#include <argp.h>
#include <string.h>
#include <talloc.h>
#include <unistd.h>

typedef struct cluster_arguments {
    const char *name;
    const char *output; /* NULL: standard output */
    const char **overrides;
    size_t override_count;
    moe_diag *diag; /* owns all */
} cluster_arguments;

typedef struct cluster_verb {
    const char *name;
    const char *full_name; /* what usage messages call it */
    const struct argp *parser;
    moe_status (*run)(const cluster_arguments *given, const moe_cluster *cluster);
} cluster_verb;

/* ---- the cluster ----------------------------------------------------------------------------- */

static const moe_cluster *load_cluster(const cluster_arguments *given)
{
    const char *path =
        moe_preset_find(given->diag, MOE_CLUSTER_PRESETS, "clusters", given->name, given->diag);
    if (!path)
        return NULL;
    moe_config *config = moe_config_load(given->diag, path, &moe_cluster_table, given->overrides,
                                         given->override_count, given->diag);
    return config ? moe_cluster_create(given->diag, moe_config_root(config), config, given->diag)
                  : NULL;
}

/* ---- verbs ----------------------------------------------------------------------------------- */

static moe_status show(const cluster_arguments *given, const moe_cluster *cluster)
{
    (void)given;
    moe_cluster_show(cluster, stdout);
    return MOE_OK;
}

static moe_status export(const cluster_arguments *given, const moe_cluster *cluster)
{
    if (!given->output)
        return moe_cluster_write_platform(cluster, stdout, given->diag);
    moe_output *output = moe_output_open(given->diag, given->output, given->diag);
    if (!output)
        return MOE_BAD_INPUT;
    moe_status status = moe_cluster_write_platform(cluster, moe_output_stream(output), given->diag);
    if (status == MOE_OK)
        return moe_output_commit(output, given->diag);
    moe_output_abort(output);
    return status;
}

/* ---- the command line ------------------------------------------------------------------------ */

static void add_override(cluster_arguments *given, const char *text)
{
    size_t count = given->override_count + 1;
    given->overrides = moe_need(talloc_realloc(given->diag, given->overrides, const char *, count));
    given->overrides[given->override_count++] = text;
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    cluster_arguments *given = state->input;
    if (key == 's')
        add_override(given, value);
    else if (key == 'o')
        given->output = value;
    else if (key == ARGP_KEY_ARG && !given->name)
        given->name = value;
    else if (key == ARGP_KEY_NO_ARGS)
        argp_error(state, "expected a cluster: a file or a preset (`moeplan list clusters`)");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

#define SET_OPTION                                                                                 \
    {                                                                                              \
        "set", 's', "KEY=VALUE", 0,                                                                \
            "change a value, such as hosts=8 or nic.bandwidth=\"100 Gb/s\"", 0                     \
    }

static const struct argp_option show_options[] = {SET_OPTION, {0}};
static const struct argp show_parser = {
    .options = show_options,
    .parser = parse_option,
    .args_doc = "FILE|PRESET",
    .doc = "Draws a cluster as a tree, with the ways between its devices, totals and the figures "
           "that follow from them, such as its bisection bandwidth.",
};

static const struct argp_option export_options[] = {
    {"output", 'o', "FILE", 0, "write there, whole or not at all, instead of to standard output",
     0},
    SET_OPTION,
    {0}};
static const struct argp export_parser = {
    .options = export_options,
    .parser = parse_option,
    .args_doc = "FILE|PRESET",
    .doc = "Writes a cluster as a SimGrid platform (XML, DTD 4.1): devices are hosts, directions "
           "of link ends are links. Up to 512 devices every pair has its route; beyond, a fabric "
           "without rails becomes a zone per NVLink domain.",
};

static const cluster_verb verbs[] = {
    {"show", "moeplan cluster show", &show_parser, show},
    {"export", "moeplan cluster export", &export_parser, export},
};
enum { VERBS = sizeof verbs / sizeof *verbs };

static int run_verb(const cluster_verb *verb, int argc, char **argv)
{
    cluster_arguments given = {.diag = moe_diag_create(NULL, stderr)};
    argv[0] = (char *)verb->full_name;
    int status = MOE_USAGE;
    if (argp_parse(verb->parser, argc, argv, 0, NULL, &given) == 0) {
        const moe_cluster *cluster = load_cluster(&given);
        status = cluster ? verb->run(&given, cluster) : MOE_BAD_INPUT;
    }
    talloc_free(given.diag);
    return status;
}

int moe_cluster_command(int argc, char **argv)
{
    const char *wanted = argc > 1 ? argv[1] : "";
    for (int i = 0; i < VERBS; i++)
        if (strcmp(wanted, verbs[i].name) == 0)
            return run_verb(&verbs[i], argc - 1, argv + 1);
    bool help = strcmp(wanted, "--help") == 0 || strcmp(wanted, "-h") == 0;
    fputs("Usage: moeplan cluster show FILE|PRESET     draw it as a tree in text\n"
          "       moeplan cluster export FILE|PRESET   write it as a SimGrid platform\n",
          help ? stdout : stderr);
    return help ? MOE_OK : MOE_USAGE;
}
