/* moeplan profile fit SAMPLES.jsonl -o PROFILE.yaml */
#include "calibrate/fit/curve_view.h"
#include "calibrate/fit/fit.h"
#include "calibrate/fit/profile_command.h"
#include "calibrate/fit/profile_file.h"
#include "calibrate/fit/profile_write.h"
#include "configs/base/memory.h"
#include <argp.h>
#include <stdlib.h>
#include <talloc.h>

enum { KEY_CLUSTER = 256, KEY_CLUSTER_OUT, KEY_NAME, KEY_DTYPE, KEY_FILL, KEY_JSON };

typedef struct fit_arguments {
    void *owner;
    moe_diag *diag;
    const char *samples;
    const char *output;
    const char *cluster;
    const char *cluster_output;
    const char *fill;
    bool json;
    moe_fit_options options;
} fit_arguments;

typedef struct fit_result {
    const moe_samples *samples;
    const moe_cluster_spec *cluster;
    const moe_profile *profile;
} fit_result;

/* ---- what it says ---------------------------------------------------------------------------- */

static json_t *row_json(const moe_curve_view *view)
{
    char origin[64];
    moe_curve_view_origin(view, origin);
    static const char *const measures[] = {"rows", "bytes", ""};
    json_t *row = json_pack("{s:s, s:s, s:s, s:f, s:f, s:I}", "curve", view->name, "origin", origin,
                            "measure", measures[view->measure], "low", view->low, "high",
                            view->high, "points", (json_int_t)moe_curve_view_points(view));
    if (view->evidence != NULL && view->evidence->samples.count > 0)
        json_object_update_new(row,
                               json_pack("{s:I, s:f, s:f, s:f}", "samples",
                                         (json_int_t)view->evidence->samples.count, "residual",
                                         view->evidence->residual, "worst", view->evidence->worst,
                                         "leave_one_out", view->evidence->leave_one_out));
    return row;
}

static void print_json(const fit_result *result, const moe_curve_view *views, int count)
{
    json_t *curves = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(curves, row_json(&views[i]));
    json_t *json =
        json_pack("{s:s, s:s, s:s*, s:I, s:o}", "profile", result->profile->name, "machine",
                  result->samples->machine.description, "device", result->profile->device,
                  "samples", (json_int_t)result->samples->count, "curves", curves);
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    putchar('\n');
    json_decref(json);
}

static const char *range_text(const moe_curve_view *view, char text[static 120])
{
    char low[48], high[48];
    if (view->measure == MOE_MEASURE_NONE || !(view->high > 0))
        return "";
    if (view->measure == MOE_MEASURE_ROWS) {
        snprintf(text, 120, "%.0f to %.0f rows", view->low, view->high);
        return text;
    }
    moe_units_format_short(view->low, MOE_BYTES, low);
    moe_units_format_short(view->high, MOE_BYTES, high);
    snprintf(text, 120, "%s to %s", low, high);
    return text;
}

static void print_row(const moe_curve_view *view)
{
    char range[120], origin[64];
    moe_curve_view_origin(view, origin);
    const moe_evidence *evidence = view->evidence;
    if (evidence != NULL && evidence->samples.count > 0) {
        char left_out[16] = "-";
        if (evidence->leave_one_out > 0)
            snprintf(left_out, sizeof left_out, "%.1f %%", 100 * evidence->leave_one_out);
        printf("%-24s %7zu %7.1f %% %7.1f %% %9s  %-24s %s\n", view->name, evidence->samples.count,
               100 * evidence->residual, 100 * evidence->worst, left_out, range_text(view, range),
               origin);
    } else {
        printf("%-24s %7s %9s %9s %9s  %-24s %s\n", view->name, "-", "-", "-", "-",
               range_text(view, range), origin);
    }
}

static void print_table(const fit_arguments *given, const fit_result *result,
                        const moe_curve_view *views, int count)
{
    printf("%s: %zu samples of %s\n", given->samples, result->samples->count,
           result->samples->machine.description);
    printf("%-24s %7s %9s %9s %9s  %-24s %s\n", "curve", "samples", "mean", "worst", "left out",
           "range", "origin");
    for (int i = 0; i < count; i++)
        print_row(&views[i]);
    if (given->output != NULL)
        printf("profile: %s\n", given->output);
    if (given->cluster_output != NULL)
        printf("cluster: %s\n", given->cluster_output);
}

static void print_result(const fit_arguments *given, const fit_result *result)
{
    moe_curve_view views[MOE_CURVE_VIEWS_MAX];
    int count = moe_curve_views(result->profile, views);
    if (given->json)
        print_json(result, views, count);
    else
        print_table(given, result, views, count);
}

/* ---- what it writes -------------------------------------------------------------------------- */

static char *comment_of(const fit_arguments *given, const fit_result *result, const char *what)
{
    return moe_need(talloc_asprintf(
        given->owner,
        "%s: made by `moeplan profile fit` (moeplan %s) from %zu samples.\n%s\nMachine %s. Do not "
        "edit: "
        "measure and fit again.",
        what, MOEPLAN_VERSION, result->samples->count, result->samples->machine.description,
        result->samples->machine.digest ? result->samples->machine.digest : ""));
}

static moe_status write_profile(const fit_arguments *given, const fit_result *result)
{
    if (given->output == NULL)
        return MOE_OK;
    moe_output *output = moe_output_open(given->owner, given->output, given->diag);
    if (output == NULL)
        return MOE_INTERNAL;
    moe_profile_write(result->profile, comment_of(given, result, "Profile"),
                      moe_output_stream(output));
    return moe_output_commit(output, given->diag);
}

static moe_status write_cluster(const fit_arguments *given, const fit_result *result)
{
    if (given->cluster_output == NULL)
        return MOE_OK;
    moe_output *output = moe_output_open(given->owner, given->cluster_output, given->diag);
    if (output == NULL)
        return MOE_INTERNAL;
    moe_cluster_write(result->cluster, comment_of(given, result, "Cluster"),
                      moe_output_stream(output));
    return moe_output_commit(output, given->diag);
}

/* ---- what it reads --------------------------------------------------------------------------- */

static bool read_files(fit_arguments *given)
{
    if (given->cluster != NULL) {
        const moe_cluster_spec *spec =
            moe_profile_load_root(given->owner, given->cluster, &moe_cluster_table, given->diag);
        if (spec != NULL)
            given->options.cluster = moe_cluster_create(given->owner, spec, NULL, given->diag);
    }
    if (given->fill != NULL)
        given->options.fill =
            moe_profile_load_root(given->owner, given->fill, &moe_profile_table, given->diag);
    return (given->cluster == NULL || given->options.cluster != NULL) &&
           (given->fill == NULL || given->options.fill != NULL);
}

static moe_status run(fit_arguments *given)
{
    bool read = read_files(given);
    moe_samples *samples = moe_samples_read(given->owner, given->samples, given->diag);
    if (!read || samples == NULL)
        return MOE_BAD_INPUT;
    const char *dtype = given->options.dtype ? given->options.dtype : moe_fit_dtype(samples);
    if (given->options.cluster == NULL)
        moe_fit_adjust_machine(samples, dtype, given->diag);
    fit_result result = {.samples = samples};
    result.cluster = given->options.cluster ? given->options.cluster->spec
                                            : moe_fit_cluster(given->owner, &samples->machine);
    result.profile = moe_fit_profile(given->owner, samples, &given->options, given->diag);
    if (result.profile == NULL ||
        moe_profile_check(result.profile, NULL, NULL, given->diag) != MOE_OK)
        return MOE_BAD_INPUT;
    moe_status status = write_profile(given, &result);
    if (status == MOE_OK)
        status = write_cluster(given, &result);
    if (status == MOE_OK)
        print_result(given, &result);
    return status;
}

/* ---- the command line ------------------------------------------------------------------------ */

static const struct argp_option options[] = {
    {"output", 'o', "FILE", 0, "Write the profile there (YAML)", 0},
    {"cluster", KEY_CLUSTER, "FILE|PRESET", 0,
     "Rates that efficiencies are fractions of, instead of the machine's own description", 0},
    {"cluster-out", KEY_CLUSTER_OUT, "FILE", 0,
     "Write the measured machine as a cluster, with the rates that the profile refers to", 0},
    {"name", KEY_NAME, "NAME", 0, "Name of the profile (default: the device's)", 0},
    {"dtype", KEY_DTYPE, "DTYPE", 0,
     "Use samples of fp32, bf16, fp16 or fp8 (default: what most GEMM samples are)", 0},
    {"fill", KEY_FILL, "FILE|PRESET", 0,
     "Take curves without samples from there, instead of data sheet x usual efficiencies (assumed)",
     0},
    {"json", KEY_JSON, 0, 0, "Curves and their errors as one JSON object instead of a table", 0},
    {0}};

static void parse_dtype(fit_arguments *given, char *text, struct argp_state *state)
{
    given->options.dtype = moe_sample_dtype(text);
    if (given->options.dtype == NULL)
        argp_error(state, "--dtype %s: expected fp32, bf16, fp16 or fp8", text);
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    fit_arguments *given = state->input;
    switch (key) {
    case 'o':
        given->output = text;
        return 0;
    case KEY_CLUSTER:
        given->cluster = text;
        return 0;
    case KEY_CLUSTER_OUT:
        given->cluster_output = text;
        return 0;
    case KEY_NAME:
        given->options.name = text;
        return 0;
    case KEY_DTYPE:
        parse_dtype(given, text, state);
        return 0;
    case KEY_FILL:
        given->fill = text;
        return 0;
    case KEY_JSON:
        given->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (given->samples != NULL)
            argp_error(state, "unexpected argument \"%s\"", text);
        given->samples = text;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "expected a file of samples, as `moecal` writes them");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "SAMPLES.jsonl",
    .doc = "Makes a profile of what `moecal` measured: a table or a law for every kind of "
           "operation, with "
           "its points, residuals and leave-one-out error. Prints one line a curve: samples kept, "
           "mean and "
           "worst error, mean error of samples predicted by a curve made without them, range, "
           "origin.\v"
           "Exit status: 0 fine, 1 unsound samples, 64 usage, 70 internal.",
};

int moe_profile_fit_command(int argc, char **argv)
{
    fit_arguments given = {.owner = moe_need(talloc_new(NULL))};
    given.diag = moe_diag_create(given.owner, stderr);
    moe_status status = MOE_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &given) == 0)
        status = run(&given);
    talloc_free(given.owner);
    return status;
}
