/* From samples to a whole profile: which samples, which rates, what is filled in. */
#include "calibrate/fit/curve_view.h"
#include "calibrate/fit/data_sheet.h"
#include "calibrate/fit/fit_private.h"
#include "configs/base/memory.h"
#include <math.h>
#include <string.h>
#include <talloc.h>

typedef struct assembly {
    void *owner;
    const moe_samples *samples; /* of one dtype, throttled ones left out */
    const moe_cluster_spec *cluster;
    double value_bytes;
    moe_profile *profile;
    moe_diag *diag;
    int fitted; /* curves */
} assembly;

/* ---- which samples --------------------------------------------------------------------------- */

static const char *const dtypes[] = {"bf16", "fp16", "fp32", "fp8"};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

const char *moe_fit_dtype(const moe_samples *samples)
{
    const char *best = NULL;
    size_t most = 0;
    for (int d = 0; d < DTYPES; d++) {
        size_t gemms = 0, others = 0;
        for (size_t i = 0; i < samples->count; i++) {
            bool same = strcmp(samples->items[i].dtype, dtypes[d]) == 0;
            gemms += same && samples->items[i].kind == MOE_SAMPLE_GEMM;
            others += same;
        }
        size_t score = gemms * (samples->count + 1) + others; /* others decide between equals */
        if (score > most) {
            most = score;
            best = dtypes[d];
        }
    }
    return best;
}

static bool is_of_dtype(const moe_sample *sample, const char *dtype)
{
    bool any = sample->kind == MOE_SAMPLE_COLLECTIVE || sample->kind == MOE_SAMPLE_INTERFERENCE ||
               sample->kind == MOE_SAMPLE_SHARING || sample->kind == MOE_SAMPLE_LAUNCH ||
               sample->kind == MOE_SAMPLE_COPY;
    return any || dtype == NULL || strcmp(sample->dtype, dtype) == 0;
}

/* Throttled samples count only where a kind has no others. */
static moe_samples *choose_samples(void *owner, const moe_samples *all, const char *dtype,
                                   moe_diag *diag)
{
    size_t cool[MOE_SAMPLE_KINDS] = {0}, dropped = 0;
    moe_samples *chosen = moe_samples_create(owner);
    chosen->machine = all->machine;
    chosen->items = moe_need(talloc_array(chosen, moe_sample, all->count));
    for (size_t i = 0; i < all->count; i++)
        cool[all->items[i].kind] += is_of_dtype(&all->items[i], dtype) && !all->items[i].throttled;
    for (size_t i = 0; i < all->count; i++) {
        const moe_sample *sample = &all->items[i];
        if (!is_of_dtype(sample, dtype))
            continue;
        if (sample->throttled && cool[sample->kind] > 0)
            dropped++;
        else
            chosen->items[chosen->count++] = *sample;
    }
    if (dropped > 0)
        moe_diag_warning(
            diag, (moe_where){0},
            "%zu samples were measured while the clock was throttled; they are left out", dropped);
    return chosen;
}

/* ---- warnings -------------------------------------------------------------------------------- */

static void warn_of_cap(const assembly *of, const char *curve, const char *rate, double efficiency,
                        double worst)
{
    if (efficiency > 1 - 1e-9 && worst > 0.01)
        moe_diag_warning(
            of->diag, (moe_where){0},
            "%s: samples beat the nominal %s; the efficiency is capped at 1 (worst residual "
            "%.3g %%); a cluster with the rates as they are (--cluster) fits better",
            curve, rate, 100 * worst);
}

static double highest(const moe_points *points)
{
    double most = 0;
    for (size_t i = 0; i < points->count; i++)
        most = fmax(most, points->y[i]);
    return most;
}

static void warn_of_compute(const assembly *of, const char *name, const moe_compute_curve *curve)
{
    double flop = curve->efficiency.count > 0 && curve != &of->profile->memory
                      ? highest(&curve->efficiency)
                      : curve->flop_efficiency;
    double memory =
        curve == &of->profile->memory ? highest(&curve->efficiency) : curve->memory_efficiency;
    if (curve != &of->profile->memory)
        warn_of_cap(of, name, "FLOP/s", flop, curve->evidence.worst);
    else
        warn_of_cap(of, name, "memory bandwidth", memory, curve->evidence.worst);
}

static bool is_capped_at(const moe_points *points, double bytes)
{
    for (size_t i = 0; i < points->count; i++) {
        if (points->y[i] >= 1 && fabs(points->x[i] / bytes - 1) < 1e-9)
            return true;
    }
    return false;
}

/* Samples that were quicker than their size's efficiency of 1 allows. */
static void warn_of_links(const assembly *of, const char *name, const moe_collective_curve *curve)
{
    const moe_rows *samples = &curve->evidence.samples;
    double worst = 0;
    for (size_t i = 0; i < samples->count; i++) {
        const double *row = samples->values + i * samples->width;
        double bytes = row[2], measured_s = row[3], predicted_s = row[4];
        if (is_capped_at(row[1] > 1 ? &curve->inter : &curve->intra, bytes))
            worst = fmax(worst, predicted_s / measured_s - 1);
    }
    warn_of_cap(of, name, "rate of links", 1, worst);
}

/* ---- computation ----------------------------------------------------------------------------- */

static void fit_dense(assembly *of)
{
    moe_profile *profile = of->profile;
    const moe_device_spec *device = &of->cluster->device;
    if (!moe_fit_roofline(of->owner, of->samples, device, of->value_bytes, &profile->dense))
        return;
    of->fitted++;
    warn_of_compute(of, "dense", &profile->dense);
    /* What another device's grid says no longer goes with this roofline. */
    profile->gemm = (moe_gemm_grid){.value_bytes = of->value_bytes, .origin = MOE_ASSUMED};
    of->fitted += moe_fit_grid(of->owner, of->samples, device, of->value_bytes, &profile->gemm);
    profile->attention.flop_efficiency = 0;
    profile->attention.evidence = (moe_evidence){0};
}

static void fit_experts(assembly *of)
{
    for (int phase = MOE_FORWARD; phase < MOE_PHASES; phase++) {
        moe_compute_curve *curve = &of->profile->experts[phase];
        if (moe_fit_experts(of->owner, of->samples, (moe_phase)phase, &of->cluster->device,
                            of->value_bytes, curve)) {
            of->fitted++;
            warn_of_compute(of, moe_expert_curve_names[phase], curve);
        } else if (phase != MOE_FORWARD &&
                   of->profile->experts[0].origin == of->samples->machine.origin) {
            /* The device's own forward curve stands in, not another device's gradient. */
            curve->flop_efficiency = 0;
            curve->efficiency.count = 0;
            curve->evidence = (moe_evidence){0};
        }
    }
}

static void fit_computation(assembly *of)
{
    moe_profile *profile = of->profile;
    fit_dense(of);
    of->fitted +=
        moe_fit_attention(of->owner, of->samples, &of->cluster->device, &profile->attention);
    fit_experts(of);
    if (moe_fit_memory(of->owner, of->samples, &of->cluster->device, &profile->memory)) {
        of->fitted++;
        warn_of_compute(of, "memory", &profile->memory);
    }
}

/* ---- collectives ----------------------------------------------------------------------------- */

static bool has_grouped(const assembly *of, int kind)
{
    for (size_t i = 0; i < of->samples->count; i++) {
        const moe_sample *sample = &of->samples->items[i];
        if (sample->kind == MOE_SAMPLE_COLLECTIVE && (int)sample->first.collective == kind &&
            sample->first.chunks > 1)
            return true;
    }
    return false;
}

static void fit_collective(assembly *of, int kind)
{
    moe_collective_curve *curve = &of->profile->collectives[kind], before = *curve;
    if (!moe_fit_collective(of->owner, of->samples, (moe_collective_kind)kind, of->cluster, curve))
        return;
    of->fitted++;
    /* What a further chunk costs was not measured: as before, within the start of one. */
    if ((kind == MOE_BROADCAST || kind == MOE_REDUCE) && !has_grouped(of, kind)) {
        curve->start_per_chunk_s = fmin(before.start_per_chunk_s, curve->start_s);
        curve->start_s -= curve->start_per_chunk_s;
    }
    if (curve->intra.count == 0) {
        curve->intra = before.intra;
        curve->groups = before.groups;
        curve->ranks = before.ranks;
        curve->origin = before.origin;
    }
    if (curve->inter.count == 0) {
        curve->inter = before.inter;
        curve->inter_origin = before.inter_origin;
    }
    warn_of_links(of, moe_collective_names[kind], curve);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static moe_profile *begin(void *owner, const moe_fit_options *options,
                          const moe_cluster_spec *cluster)
{
    moe_profile *profile = moe_data_sheet_profile(owner, cluster);
    if (options->fill != NULL)
        *profile = *options->fill;
    return profile;
}

static const char *own(moe_profile *profile, const char *text)
{
    return text != NULL ? moe_need(talloc_strdup(profile, text)) : NULL;
}

static void name_profile(moe_profile *profile, const moe_samples *samples,
                         const moe_fit_options *options, const moe_cluster_spec *cluster,
                         const char *dtype)
{
    profile->name = own(profile, options->name ? options->name : cluster->device.name);
    profile->device = own(profile, cluster->device.name);
    profile->licence = NULL;
    if (options->source != NULL)
        profile->source = own(profile, options->source);
    else
        profile->source =
            moe_need(talloc_asprintf(profile, "%s%s%s", samples->machine.description,
                                     dtype != NULL ? ", " : "", dtype != NULL ? dtype : ""));
}

/* A device of the cluster, but not the one that was measured. */
static void warn_of_other_device(const moe_samples *samples, const moe_fit_options *options,
                                 moe_diag *diag)
{
    const char *name = options->cluster ? options->cluster->spec->device.name : NULL;
    if (name != NULL && samples->machine.device != NULL &&
        strcmp(name, samples->machine.device) != 0)
        moe_diag_warning(
            diag, (moe_where){0},
            "measured on \"%s\"; the cluster's device is \"%s\", whose name the profile gets",
            samples->machine.device, name);
}

moe_profile *moe_fit_profile(void *owner, const moe_samples *samples,
                             const moe_fit_options *options, moe_diag *diag)
{
    void *scratch = moe_need(talloc_new(NULL));
    const char *dtype = options->dtype != NULL ? options->dtype : moe_fit_dtype(samples);
    const moe_cluster_spec *cluster = options->cluster != NULL
                                          ? options->cluster->spec
                                          : moe_fit_cluster(scratch, &samples->machine);
    moe_profile *profile = begin(owner, options, cluster);
    assembly of = {.owner = profile,
                   .samples = choose_samples(scratch, samples, dtype, diag),
                   .cluster = cluster,
                   .value_bytes = moe_sample_dtype_bytes(dtype != NULL ? dtype : "bf16"),
                   .profile = profile,
                   .diag = diag};
    warn_of_other_device(samples, options, diag);
    fit_computation(&of);
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++)
        fit_collective(&of, kind);
    of.fitted += moe_fit_interference(of.samples, profile);
    of.fitted += moe_fit_sharing(of.samples, cluster, profile);
    of.fitted += moe_fit_launch(of.samples, profile);
    for (int kind = 0; kind < MOE_COPY_KINDS; kind++)
        of.fitted += moe_fit_copy(profile, of.samples, (moe_copy_kind)kind, &profile->copies[kind]);
    name_profile(profile, samples, options, cluster, dtype);
    if (of.fitted == 0) {
        moe_diag_error(diag, (moe_where){0},
                       "nothing to fit: none of %zu samples is of %s and makes a curve",
                       samples->count, dtype != NULL ? dtype : "a known kind");
        TALLOC_FREE(profile);
    }
    talloc_free(scratch);
    return profile;
}
