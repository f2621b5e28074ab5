#include "calibrate/fit/import.h"

#include "calibrate/fit/fit.h"
#include "configs/base/memory.h"
#include <string.h>
#include <talloc.h>

/* Where the samples of each curve came from: one line each, NULL where there are none. */
typedef struct origins {
    char *gemm;
    char *experts;
    char *collectives[MOE_COLLECTIVE_KINDS];
} origins;

static void append(void *owner, char **list, const char *text)
{
    if (*list == NULL)
        *list = moe_need(talloc_strdup(owner, text));
    else if (strstr(*list, text) == NULL)
        *list = moe_need(talloc_asprintf_append(*list, "; %s", text));
}

/* Says of the samples from `first` on that they came from this file. */
static void note_origins(void *owner, origins *of, const moe_samples *samples, size_t first,
                         const char *text)
{
    bool gemm = false, experts = false, collectives[MOE_COLLECTIVE_KINDS] = {false};
    for (size_t i = first; i < samples->count; i++) {
        const moe_sample *sample = &samples->items[i];
        gemm = gemm || sample->kind == MOE_SAMPLE_GEMM;
        experts = experts || sample->kind == MOE_SAMPLE_EXPERTS;
        if (sample->kind == MOE_SAMPLE_COLLECTIVE)
            collectives[sample->first.collective] = true;
    }
    if (gemm)
        append(owner, &of->gemm, text);
    if (experts)
        append(owner, &of->experts, text);
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++) {
        if (collectives[kind])
            append(owner, &of->collectives[kind], text);
    }
}

static char *describe_file(void *owner, const char *path, const moe_import_options *options,
                           const moe_import_tally *tally, const moe_sample_importer *importer)
{
    const char *base = strrchr(path, '/') == NULL ? path : strrchr(path, '/') + 1;
    return moe_need(talloc_asprintf(
        owner, "%s%s%s%s%s%s%s", base, options->device == NULL ? "" : ", ",
        options->device == NULL ? "" : options->device, tally->versions == NULL ? "" : ", version ",
        tally->versions == NULL ? "" : tally->versions, importer->source == NULL ? "" : ": ",
        importer->source == NULL ? "" : importer->source));
}

static bool read_files(void *owner, const moe_import_job *job, moe_samples *samples, origins *of,
                       char **sources, moe_import_tally *tally, moe_diag *diag)
{
    bool fine = true;
    for (size_t i = 0; i < job->path_count; i++) {
        const size_t first = samples->count;
        tally->versions = NULL;
        const moe_sample_importer *importer =
            moe_import_file(samples, job->paths[i], &job->options, tally, diag);
        fine = fine && importer != NULL;
        if (importer == NULL || samples->count == first)
            continue;
        char *text = describe_file(owner, job->paths[i], &job->options, tally, importer);
        note_origins(owner, of, samples, first, text);
        append(owner, sources, importer->source == NULL ? text : importer->source);
    }
    return fine;
}

/* What the curves were measured with; the profile's device alone would say less. */
static void label(moe_evidence *evidence, int origin, const char *text)
{
    if (text != NULL && origin == MOE_IMPORTED)
        evidence->machine = text;
}

static void label_curves(moe_profile *profile, const origins *of)
{
    label(&profile->gemm.evidence, profile->gemm.origin, of->gemm);
    label(&profile->dense.evidence, profile->dense.origin, of->gemm);
    label(&profile->experts[MOE_SERVING].evidence, profile->experts[MOE_SERVING].origin,
          of->experts);
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++)
        label(&profile->collectives[kind].evidence, profile->collectives[kind].origin,
              of->collectives[kind]);
}

/* Nobody publishes experts as training computes them, nor their gradients: sums of measured GEMMs. */
static void derive_training(moe_imported *done, const moe_device_spec *device)
{
    moe_profile *profile = done->profile;
    for (int phase = MOE_FORWARD; phase <= MOE_WEIGHT_GRADIENT; phase++)
        moe_fit_experts_from_grid(done, profile, device, (moe_phase)phase,
                                  &profile->experts[phase]);
}

/* Nobody publishes these within a host: as all-gather and reduce-scatter, which move as much by the same ports. */
static void derive_collectives(moe_profile *profile)
{
    static const moe_collective_kind pairs[][2] = {{MOE_BROADCAST, MOE_ALL_GATHER},
                                                   {MOE_SEND_RECV, MOE_ALL_GATHER},
                                                   {MOE_REDUCE, MOE_REDUCE_SCATTER}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        moe_collective_curve *to = &profile->collectives[pairs[i][0]];
        const moe_collective_curve *from = &profile->collectives[pairs[i][1]];
        if (from->origin != MOE_IMPORTED || to->origin == MOE_IMPORTED)
            continue;
        to->start_s = from->start_s;
        to->start_per_rank_s = from->start_per_rank_s;
        to->ranks = from->ranks;
        to->intra = from->intra;
        to->groups = from->groups;
        to->origin = MOE_DERIVED;
        to->evidence = (moe_evidence){.residual = 0};
    }
}

static const char *make_comment(void *owner, const moe_import_job *job, const moe_imported *done)
{
    const moe_cluster_spec *spec = job->cluster->spec;
    char *text = moe_need(talloc_asprintf(
        owner,
        "Made by `moeplan profile import`; do not edit.\n"
        "Rates that efficiencies refer to: cluster %s (%s).\n"
        "%zu points went into the curves, %zu more were kept back to test them.\n"
        "experts_serving is of a fused layer, permutation and activation included. Experts and "
        "gradients of training are derived: sums of the GEMM grid, one expert after another.\n"
        "Broadcast and send/recv within a host are derived from all-gather, reduce from "
        "reduce-scatter.\n"
        "Curves without samples were taken from %s.\n",
        spec->name, spec->device.name, done->parts.kept->count, done->parts.held_out->count,
        job->fill == NULL ? "data-sheet constants (assumed)" : job->fill->name));
    for (size_t i = 0; i < done->tally->count; i++)
        text = moe_need(talloc_asprintf_append(text, "%sleft out: %zu %s\n", i == 0 ? "\n" : "",
                                               done->tally->reasons[i].count,
                                               done->tally->reasons[i].text));
    return text;
}

static const char *fill_source(void *owner, char *sources, const moe_profile *fill)
{
    return fill == NULL || fill->source == NULL
               ? sources
               : moe_need(talloc_asprintf(owner, "%s; the rest: %s", sources, fill->source));
}

enum { SMALLEST_SIDE = 256, POINTS_OF_ROOFLINE = 64 };

/* A grid's corners (n or k of 32) would draw the roofline to shapes that no model has; where there is a grid, the
 * roofline continues it and is fitted to the other points alone. */
static void refit_roofline(void *owner, const moe_import_job *job, const moe_samples *kept,
                           moe_profile *profile)
{
    moe_samples *usual = moe_samples_create(owner);
    usual->machine = kept->machine;
    for (size_t i = 0; i < kept->count; i++) {
        const moe_sample *sample = &kept->items[i];
        if (sample->kind == MOE_SAMPLE_GEMM && sample->n >= SMALLEST_SIDE &&
            sample->k >= SMALLEST_SIDE)
            moe_samples_add(usual, sample);
    }
    if (profile->gemm.m.count > 0 && usual->count >= POINTS_OF_ROOFLINE)
        moe_fit_roofline(owner, usual, &job->cluster->spec->device, profile->gemm.value_bytes,
                         &profile->dense);
    talloc_free(usual);
}

/* int8 is a word of NCCL's tables, and none of computation. */
static const char *wanted_dtype(const moe_import_job *job)
{
    const char *dtype = job->options.dtype;
    return dtype == NULL || strcmp(dtype, "int8") == 0 ? NULL : dtype;
}

moe_imported *moe_import_run(void *owner, const moe_import_job *job, moe_diag *diag)
{
    moe_imported *done = moe_need(talloc_zero(owner, moe_imported));
    origins *of = moe_need(talloc_zero(done, origins));
    char *sources = NULL;
    moe_samples *all = moe_samples_create(done);
    done->tally = moe_import_tally_create(done);
    if (!read_files(done, job, all, of, &sources, done->tally, diag))
        return NULL;
    if (sources == NULL) {
        moe_diag_error(diag, (moe_where){0}, "no row of these files is of the wanted kind");
        return NULL;
    }
    moe_import_machine(all, job->cluster->spec, sources);
    moe_samples *plausible = moe_import_plausible(done, all, job->cluster->spec, done->tally, diag);
    done->parts = moe_import_divide(done, plausible); /* `all` owns what they say of the machine */
    talloc_free(plausible);
    const moe_fit_options options = {
        .name = job->name,
        .source = fill_source(done, sources, job->fill),
        .dtype = wanted_dtype(job),
        .cluster = job->cluster,
        .fill = job->fill,
    };
    done->profile = moe_fit_profile(done, done->parts.kept, &options, diag);
    if (done->profile == NULL)
        return NULL;
    refit_roofline(done, job, done->parts.kept, done->profile);
    derive_training(done, &job->cluster->spec->device);
    derive_collectives(done->profile);
    label_curves(done->profile, of);
    if (strstr(sources, "Apache-2.0") != NULL)
        done->profile->licence = "Apache-2.0 (ai-dynamo/aiconfigurator), of the measured points";
    done->comment = make_comment(done, job, done);
    return done;
}
