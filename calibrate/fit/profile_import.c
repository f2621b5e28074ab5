/* moeplan profile import FILE...: published measurements become a profile. */
#include "calibrate/fit/import.h"

#include "calibrate/fit/profile_command.h"
#include "calibrate/fit/profile_file.h"
#include "calibrate/fit/profile_write.h"
#include "configs/base/memory.h"
#include "configs/base/output.h"
#include "configs/preset.h"
#include <argp.h>
#include <math.h>
#include <talloc.h>

enum { KEY_DEVICE = 256, KEY_DTYPE, KEY_VERSION, KEY_CLUSTER, KEY_FILL, KEY_NAME, KEY_SAMPLES };

typedef struct import_arguments {
    const char **paths;
    size_t path_count;
    moe_import_options options;
    const char *cluster, *fill, *name, *samples, *output;
    moe_diag *diag; /* owns all */
} import_arguments;

static const struct argp_option option_table[] = {
    {"device", KEY_DEVICE, "NAME", 0, "whose rows to take, as the table names it (h100_sxm)", 0},
    {"dtype", KEY_DTYPE, "NAME", 0, "bf16, fp16, fp8, fp8_block, int8 (default: bf16 and fp16)", 0},
    {"version", KEY_VERSION, "V", 0,
     "of the measured library, where a table has several (default: the newest)", 0},
    {"cluster", KEY_CLUSTER, "FILE|PRESET", 0,
     "whose rates and latencies the efficiencies refer to", 0},
    {"fill", KEY_FILL, "FILE|PRESET", 0, "profile that curves without measurements are taken from",
     0},
    {"name", KEY_NAME, "NAME", 0, "of the new profile (default: the device's)", 0},
    {"samples", KEY_SAMPLES, "FILE", 0, "write the samples there too (JSON lines)", 0},
    {"output", 'o', "FILE", 0, "the new profile, written whole or not at all", 0},
    {0},
};

static void add_path(import_arguments *given, const char *path)
{
    given->paths = moe_need(
        talloc_realloc(given->diag, given->paths, const char *, (unsigned)given->path_count + 1));
    given->paths[given->path_count++] = path;
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    import_arguments *given = state->input;
    switch (key) {
    case KEY_DEVICE:
        given->options.device = value;
        break;
    case KEY_DTYPE:
        given->options.dtype = value;
        break;
    case KEY_VERSION:
        given->options.version = value;
        break;
    case KEY_CLUSTER:
        given->cluster = value;
        break;
    case KEY_FILL:
        given->fill = value;
        break;
    case KEY_NAME:
        given->name = value;
        break;
    case KEY_SAMPLES:
        given->samples = value;
        break;
    case 'o':
        given->output = value;
        break;
    case ARGP_KEY_ARG:
        add_path(given, value);
        break;
    case ARGP_KEY_END:
        if (given->path_count == 0)
            argp_error(state, "expected files: output of nccl-tests, or tables as CSV");
        if (given->cluster == NULL)
            argp_error(state, "expected --cluster FILE or PRESET (`moeplan list clusters`): "
                              "efficiencies are fractions of its rates");
        if (given->output == NULL)
            argp_error(state, "expected -o FILE");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp parser = {
    .options = option_table,
    .parser = parse_option,
    .args_doc = "FILE...",
    .doc = "Fits a profile to published measurements: the output of nccl-tests, tables nccl, gemm "
           "and moe of AIConfigurator, tables of DeepEP. Each file is told by its content. Prints "
           "what was left out and how well the curves meet the points that were kept back.",
};

/* --- what is printed ---------------------------------------------------------------------------------- */

static void print_evidence(const char *name, int origin, const moe_evidence *evidence)
{
    if (origin != MOE_IMPORTED)
        return;
    printf("  %-24s residual %5.1f %%  leave-one-out %5.1f %%  worst %6.1f %%\n", name,
           100 * evidence->residual, 100 * evidence->leave_one_out, 100 * evidence->worst);
}

static void print_curves(const moe_profile *profile)
{
    if (profile->gemm.m.count > 0)
        printf("  %-24s %zu x %zu x %zu points\n", "gemm grid", profile->gemm.m.count,
               profile->gemm.n.count, profile->gemm.k.count);
    print_evidence("dense (roofline)", profile->dense.origin, &profile->dense.evidence);
    for (int phase = MOE_FORWARD; phase < MOE_PHASES; phase++)
        print_evidence(moe_expert_curve_names[phase], profile->experts[phase].origin,
                       &profile->experts[phase].evidence);
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++)
        print_evidence(moe_collective_names[kind], profile->collectives[kind].origin,
                       &profile->collectives[kind].evidence);
}

static void print_held_out(const moe_imported *done, const moe_cluster *cluster)
{
    moe_curve_usage usage = {{0}, {0}};
    const moe_costs costs = {done->profile, cluster, &usage};
    for (int kind = MOE_SAMPLE_GEMM; kind <= MOE_SAMPLE_EXPERTS; kind++) {
        size_t count = 0;
        double sum = 0;
        for (size_t i = 0; i < done->parts.held_out->count; i++) {
            const moe_sample *sample = &done->parts.held_out->items[i];
            if ((int)sample->kind != kind)
                continue;
            count++;
            sum += fabs(moe_import_predict_s(&costs, sample) / sample->seconds - 1);
        }
        if (count > 0)
            printf("  kept back: %zu points of %s, mean error %.1f %%\n", count,
                   moe_sample_kind_names[kind], 100 * sum / (double)count);
    }
}

static void print_tally(const moe_import_tally *tally)
{
    for (size_t i = 0; i < tally->count; i++)
        printf("  left out: %zu %s\n", tally->reasons[i].count, tally->reasons[i].text);
}

/* --- the command -------------------------------------------------------------------------------------- */

static const moe_cluster *load_cluster(const import_arguments *given)
{
    const char *path =
        moe_preset_find(given->diag, MOE_CLUSTER_PRESETS, "clusters", given->cluster, given->diag);
    moe_config *config =
        path ? moe_config_load(given->diag, path, &moe_cluster_table, NULL, 0, given->diag) : NULL;
    return config == NULL
               ? NULL
               : moe_cluster_create(given->diag, moe_config_root(config), config, given->diag);
}

static moe_status write_samples(const import_arguments *given, const moe_imported *done)
{
    if (given->samples == NULL)
        return MOE_OK;
    moe_output *output = moe_output_open(given->diag, given->samples, given->diag);
    if (output == NULL)
        return MOE_INTERNAL;
    moe_samples_write(done->parts.kept, moe_output_stream(output));
    return moe_output_commit(output, given->diag);
}

static moe_status write_profile(const import_arguments *given, const moe_imported *done)
{
    moe_output *output = moe_output_open(given->diag, given->output, given->diag);
    if (output == NULL)
        return MOE_INTERNAL;
    moe_profile_write(done->profile, done->comment, moe_output_stream(output));
    return moe_output_commit(output, given->diag);
}

static moe_status run(const import_arguments *given)
{
    const moe_cluster *cluster = load_cluster(given);
    if (cluster == NULL)
        return MOE_BAD_INPUT;
    const moe_profile *fill = NULL;
    if (given->fill != NULL)
        fill = moe_profile_load_root(given->diag, given->fill, &moe_profile_table, given->diag);
    if (given->fill != NULL && fill == NULL)
        return MOE_BAD_INPUT;
    const moe_import_job job = {
        .paths = given->paths,
        .path_count = given->path_count,
        .options = given->options,
        .cluster = cluster,
        .fill = fill,
        .name = given->name == NULL ? cluster->spec->device.name : given->name,
    };
    const moe_imported *done = moe_import_run(given->diag, &job, given->diag);
    if (done == NULL || moe_diag_error_count(given->diag) > 0)
        return MOE_BAD_INPUT;
    moe_status status = write_samples(given, done);
    if (status == MOE_OK)
        status = write_profile(given, done);
    if (status != MOE_OK)
        return status;
    printf("%s: %zu points\n", given->output, done->parts.kept->count);
    print_curves(done->profile);
    print_held_out(done, cluster);
    print_tally(done->tally);
    return MOE_OK;
}

int moe_profile_import_command(int argc, char **argv)
{
    import_arguments given = {.diag = moe_diag_create(NULL, stderr)};
    int status = MOE_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &given) == 0)
        status = run(&given);
    talloc_free(given.diag);
    return status;
}
