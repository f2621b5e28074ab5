/* What collectives and computation cost each other, how collectives share ports, launches and copies.
 *
 *   slowdown       of the part of a collective that ran beside the computation: overlap / (alone - what ran after it)
 *   SM share       1 - (alone - what ran after it) / overlap, of the computation, where the collective may take
 *                  what it likes; both medians, as models/profile.h has them
 *   turns          where both together take 0.9 of one after the other, or more (median): slowdown 1, SM share 0.9
 *   port sharing   two collectives a and b of work A and B on one port with weights f and g: the first is done after
 *                  min(A / f, B / g) (f + g), both after A + B; equal weights (per_collective) or flows
 *                  (per_flow), whichever is nearer to what was measured (mean |log|); ties: per_collective
 *   launch         slope over the number of kernels of stream launches; medians of graph launches and waits */
#include "calibrate/fit/fit_private.h"
#include "calibrate/fit/robust.h"
#include "configs/base/memory.h"
#include <math.h>
#include <talloc.h>

static bool is_kind(const moe_sample *sample, const void *context)
{
    return sample->kind == *(const moe_sample_kind *)context;
}

static moe_selection select_kind(void *owner, const moe_samples *samples, moe_sample_kind kind)
{
    return moe_fit_select(owner, samples, is_kind, &kind);
}

/* ---- interference ---------------------------------------------------------------------------- */

/* How much of what takes `alone_s` by itself got done per second of the overlap. */
static double pace(double alone_s, double together_s, double overlap_s)
{
    return (alone_s - (together_s - overlap_s)) / overlap_s;
}

/* Samples that limit the collective's SMs count only where there are no others. */
static bool counts(const moe_selection *chosen, size_t i)
{
    bool unlimited = false;
    for (size_t j = 0; j < chosen->count; j++)
        unlimited |= chosen->items[j]->sm_share == 0;
    return !unlimited || chosen->items[i]->sm_share == 0;
}

/* Of what both take one after the other. */
static double share_of_turns(const moe_sample *sample)
{
    return sample->seconds / (sample->first_alone_s + sample->second_alone_s);
}

/* Above this nothing is gained by running both at once: whoever comes first is served first, as on a core that
 * computes and copies. The paces above then depend on who that was. Computation stands still (as nearly as a
 * profile can say it) for a collective at full speed: both are done when they would be in turns. */
static const double turns = 0.9;

bool moe_fit_interference(const moe_samples *samples, moe_profile *profile)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_selection chosen = select_kind(scratch, samples, MOE_SAMPLE_INTERFERENCE);
    double *slowdowns = moe_need(talloc_array(scratch, double, chosen.count));
    double *shares = moe_need(talloc_array(scratch, double, chosen.count));
    double *in_turns = moe_need(talloc_array(scratch, double, chosen.count));
    size_t count = 0;
    for (size_t i = 0; i < chosen.count; i++) {
        const moe_sample *sample = chosen.items[i];
        double overlap_s = fmin(sample->first_s, sample->second_s);
        if (!counts(&chosen, i))
            continue;
        double collective = pace(sample->first_alone_s, sample->first_s, overlap_s);
        in_turns[count] = share_of_turns(sample);
        slowdowns[count] = collective > 0.01 ? 1 / collective : 100;
        shares[count++] = 1 - pace(sample->second_alone_s, sample->second_s, overlap_s);
    }
    if (count > 0) {
        const bool alternate = moe_fit_median(in_turns, count) >= turns;
        profile->slowdown = alternate ? 1 : fmin(fmax(moe_fit_median(slowdowns, count), 1), 100);
        profile->sm_share = alternate ? 0.9 : fmin(fmax(moe_fit_median(shares, count), 0), 0.9);
        profile->interference_origin = samples->machine.origin;
    }
    talloc_free(scratch);
    return count > 0;
}

/* ---- sharing --------------------------------------------------------------------------------- */

static double sharing_error(const moe_sample *sample, double f, double g)
{
    double a = sample->first_alone_s, b = sample->second_alone_s, both = a + b;
    bool first = a / f <= b / g;
    double early = (first ? a / f : b / g) * (f + g);
    return fabs(log((first ? early : both) / sample->first_s)) +
           fabs(log((first ? both : early) / sample->second_s));
}

bool moe_fit_sharing(const moe_samples *samples, const moe_cluster_spec *cluster,
                     moe_profile *profile)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_selection chosen = select_kind(scratch, samples, MOE_SAMPLE_SHARING);
    moe_exchange_pricer *pricer = moe_exchange_pricer_create(scratch, cluster);
    double equal = 0, by_flow = 0;
    for (size_t i = 0; i < chosen.count; i++) {
        const moe_sample *sample = chosen.items[i];
        moe_exchange_work first, second;
        equal += sharing_error(sample, 1, 1);
        bool known =
            moe_exchange_price(pricer, &sample->first, sample->ranks, sample->hosts, &first) &&
            moe_exchange_price(pricer, &sample->second, sample->ranks, sample->hosts, &second);
        by_flow +=
            known ? sharing_error(sample, first.flows, second.flows) : sharing_error(sample, 1, 1);
    }
    if (chosen.count > 0)
        profile->port_sharing =
            by_flow < equal * (1 - 1e-9) ? MOE_SHARE_PER_FLOW : MOE_SHARE_PER_COLLECTIVE;
    talloc_free(scratch);
    return chosen.count > 0;
}

/* ---- launches -------------------------------------------------------------------------------- */

/* Times and kernels of one mode. */
static size_t take_mode(const moe_selection *chosen, moe_launch_mode mode, double *kernels,
                        double *seconds)
{
    size_t count = 0;
    for (size_t i = 0; i < chosen->count; i++) {
        if (chosen->items[i]->mode == mode) {
            kernels[count] = chosen->items[i]->kernels;
            seconds[count++] = chosen->items[i]->seconds;
        }
    }
    return count;
}

static double per_kernel_s(const double *kernels, double *seconds, size_t count)
{
    double start, slope;
    bool varied = false;
    for (size_t i = 1; i < count; i++)
        varied |= kernels[i] != kernels[0];
    if (varied && moe_fit_line(kernels, seconds, count, &start, &slope) && slope > 0)
        return slope;
    for (size_t i = 0; i < count; i++)
        seconds[i] /= kernels[i];
    return moe_fit_median(seconds, count);
}

bool moe_fit_launch(const moe_samples *samples, moe_profile *profile)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_selection chosen = select_kind(scratch, samples, MOE_SAMPLE_LAUNCH);
    double *kernels = moe_need(talloc_array(scratch, double, chosen.count));
    double *seconds = moe_need(talloc_array(scratch, double, chosen.count));
    size_t count = take_mode(&chosen, MOE_LAUNCHED_STREAM, kernels, seconds);
    if (count > 0)
        profile->launch_s = fmin(per_kernel_s(kernels, seconds, count), 1);
    count = take_mode(&chosen, MOE_LAUNCHED_GRAPH, kernels, seconds);
    if (count > 0)
        profile->graph_launch_s = fmin(moe_fit_median(seconds, count), 1);
    count = take_mode(&chosen, MOE_LAUNCHED_SYNC, kernels, seconds);
    for (size_t i = 0; i < count; i++)
        seconds[i] /= kernels[i];
    if (count > 0)
        profile->host_sync_s = fmin(moe_fit_median(seconds, count), 1);
    if (chosen.count > 0)
        profile->launch_origin = samples->machine.origin;
    talloc_free(scratch);
    return chosen.count > 0;
}

/* ---- copies ---------------------------------------------------------------------------------- */

static bool is_copy(const moe_sample *sample, const void *context)
{
    return sample->kind == MOE_SAMPLE_COPY && sample->copy == *(const moe_copy_kind *)context;
}

/* Pinned memory where it was measured, else what was. */
static size_t take_copies(moe_selection *chosen, double *bytes, double *seconds)
{
    bool pinned = false;
    size_t count = 0;
    for (size_t i = 0; i < chosen->count; i++)
        pinned |= chosen->items[i]->pinned;
    for (size_t i = 0; i < chosen->count; i++) {
        if (chosen->items[i]->pinned != pinned)
            continue;
        bytes[count] = chosen->items[i]->bytes;
        seconds[count++] = chosen->items[i]->seconds;
    }
    return count;
}

static double copy_s(const moe_copy_curve *curve, double bytes)
{
    return curve->start_s + bytes / curve->bytes_per_s;
}

static void fit_copies(const double *bytes, const double *seconds, size_t count,
                       moe_copy_curve *curve)
{
    double slope = 0;
    moe_fit_line(bytes, seconds, count, &curve->start_s, &slope);
    curve->bytes_per_s = slope > 0 ? fmin(1 / slope, 1e18) : 1e18;
}

static double copies_left_out(const double *bytes, const double *seconds, size_t count)
{
    moe_left_out left = {0};
    size_t folds = moe_fit_folds(count);
    double *kept = moe_need(talloc_array(NULL, double, 2 * count));
    for (size_t fold = 0; count > 2 && fold < folds; fold++) {
        moe_copy_curve curve;
        size_t used = 0;
        for (size_t i = 0; i < count; i++) {
            kept[used] = bytes[i];
            kept[count + used] = seconds[i];
            used += i % folds != fold;
        }
        fit_copies(kept, kept + count, used, &curve);
        for (size_t i = fold; i < count; i += folds)
            moe_left_out_add(&left, seconds[i], copy_s(&curve, bytes[i]));
    }
    talloc_free(kept);
    return moe_left_out_mean(&left);
}

bool moe_fit_copy(void *owner, const moe_samples *samples, moe_copy_kind kind,
                  moe_copy_curve *curve)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_selection chosen = moe_fit_select(scratch, samples, is_copy, &kind);
    double *bytes = moe_need(talloc_array(scratch, double, chosen.count));
    double *seconds = moe_need(talloc_array(scratch, double, chosen.count));
    size_t count = take_copies(&chosen, bytes, seconds);
    if (count > 0) {
        *curve = (moe_copy_curve){.origin = samples->machine.origin};
        fit_copies(bytes, seconds, count, curve);
        moe_evidence_builder builder = moe_evidence_open(owner, &curve->evidence, 1, count);
        for (size_t i = 0; i < count; i++)
            moe_evidence_add(&builder, &bytes[i], seconds[i], copy_s(curve, bytes[i]));
        moe_evidence_close(&builder);
        curve->evidence.leave_one_out = copies_left_out(bytes, seconds, count);
        curve->evidence.machine = samples->machine.description;
    }
    talloc_free(scratch);
    return count > 0;
}
