#include "calibrate/fit/import.h"

#include "configs/base/memory.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

static const double peak_margin = 1.1;    /* of the data sheet's peak: clocks may be above it */
static const double fallback_share = 0.1; /* of a port's rate, at the largest all-reduce */
static const double rate_margin = 1.5;    /* switches that add (NVLS) reach 1.1 */
static const double slowest_small_s = 2e-3;

void moe_import_machine(moe_samples *samples, const moe_cluster_spec *cluster,
                        const char *description)
{
    const moe_device_spec *device = &cluster->device;
    const double nic_rate = cluster->nic.bandwidth_bytes_per_s;
    samples->machine = (moe_sample_machine){
        .digest = "00000000",
        .description = moe_need(talloc_strdup(samples, description)),
        .device = moe_need(talloc_strdup(samples, device->name)),
        .ranks = (int)cluster->devices_per_host,
        .hosts = 1,
        .devices_per_host = (int)cluster->devices_per_host,
        .peak_flop_per_s = device->peak_flop_per_s,
        .memory_bytes = device->memory_bytes,
        .memory_bytes_per_s = device->memory_bytes_per_s,
        .sms = (int)device->sms,
        .link_bytes_per_s = cluster->intra.bandwidth_bytes_per_s,
        .link_latency_s = cluster->intra.latency_s,
        .nic_bytes_per_s = nic_rate,
        .nic_latency_s = cluster->nic.latency_s,
        .nic_per_device = cluster->nic.sharing == MOE_NIC_PER_DEVICE,
        .nominal = true,
        .origin = MOE_IMPORTED,
    };
}

/* --- what cannot be ----------------------------------------------------------------------------------- */

static bool is_local(const moe_sample *sample)
{
    return sample->kind == MOE_SAMPLE_COLLECTIVE && sample->hosts == 1;
}

/* Bus bandwidth as nccl-tests defines it. */
static double bus_rate(const moe_sample *sample)
{
    const double ranks = sample->ranks;
    double factor = (ranks - 1) / ranks;
    switch (sample->first.collective) {
    case MOE_ALL_REDUCE:
        factor *= 2;
        break;
    case MOE_BROADCAST:
    case MOE_REDUCE:
    case MOE_SEND_RECV:
        factor = 1;
        break;
    default:
        break;
    }
    return factor * sample->first.bytes / sample->seconds;
}

/* Whether all that a host does stays below a tenth of its port. */
static bool fell_back(const moe_samples *samples, double rate)
{
    double best = 0;
    bool any = false;
    for (size_t i = 0; i < samples->count; i++) {
        const moe_sample *sample = &samples->items[i];
        if (!is_local(sample) || sample->first.collective != MOE_ALL_REDUCE ||
            sample->first.bytes < 64e6)
            continue;
        any = true;
        best = fmax(best, bus_rate(sample));
    }
    return any && best < fallback_share * rate;
}

static bool is_impossible(const moe_sample *sample, const moe_device_spec *device)
{
    const double flop = 2 * sample->m * sample->n * sample->k;
    const bool wide = strcmp(sample->dtype, "bf16") == 0 || strcmp(sample->dtype, "fp16") == 0;
    return sample->kind == MOE_SAMPLE_GEMM && wide &&
           flop / sample->seconds > peak_margin * device->peak_flop_per_s;
}

/* Units that are mixed up show in rates no port has, and in small messages that take milliseconds. */
static void warn_of_units(const moe_samples *samples, double rate, moe_diag *diag)
{
    size_t fast = 0, slow = 0, small = 0;
    for (size_t i = 0; i < samples->count; i++) {
        const moe_sample *sample = &samples->items[i];
        if (!is_local(sample))
            continue;
        fast += bus_rate(sample) > rate_margin * rate;
        small += sample->first.bytes <= 65536;
        slow += sample->first.bytes <= 65536 && sample->seconds > slowest_small_s;
    }
    if (fast > 0)
        moe_diag_warning(diag, (moe_where){0},
                         "%zu collectives move more than %g times what a port can (%.0f GB/s): "
                         "were sizes in elements read as bytes, or ms as us?",
                         fast, rate_margin, rate / 1e9);
    if (2 * slow > small)
        moe_diag_warning(diag, (moe_where){0},
                         "%zu of %zu collectives of at most 64 KiB take over %g ms: are times in "
                         "us read as ms?",
                         slow, small, slowest_small_s * 1e3);
}

static moe_samples *empty_like(void *owner, const moe_samples *samples)
{
    moe_samples *copy = moe_samples_create(owner);
    copy->machine = samples->machine;
    return copy;
}

moe_samples *moe_import_plausible(void *owner, const moe_samples *samples,
                                  const moe_cluster_spec *cluster, moe_import_tally *tally,
                                  moe_diag *diag)
{
    const double rate = cluster->intra.bandwidth_bytes_per_s;
    const bool slow = fell_back(samples, rate);
    size_t impossible = 0, fallen = 0;
    moe_samples *kept = empty_like(owner, samples);
    warn_of_units(samples, rate, diag);
    for (size_t i = 0; i < samples->count; i++) {
        const moe_sample *sample = &samples->items[i];
        if (is_impossible(sample, &cluster->device))
            impossible++;
        else if (slow && is_local(sample))
            fallen++;
        else
            moe_samples_add(kept, sample);
    }
    moe_import_left_out(tally, impossible, "GEMM faster than %g times the device's peak",
                        peak_margin);
    moe_import_left_out(tally, fallen,
                        "collectives of a host that fell back to a slow path (all-reduce below a "
                        "tenth of %.0f GB/s)",
                        rate / 1e9);
    return kept;
}

/* --- what is kept back -------------------------------------------------------------------------------- */

enum { SIDES = 3, GRID_WHOLE = 5000 };

/* One axis of the grid: values of m, n or k. */
typedef struct grid_axis {
    double *values;
    size_t count;
} grid_axis;

static double side(const moe_sample *sample, int axis)
{
    return axis == 0 ? sample->m : axis == 1 ? sample->n : sample->k;
}

static int order_doubles(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Ascending values that occur; owned by `owner`. */
static grid_axis find_axis(void *owner, const moe_samples *samples, int axis)
{
    grid_axis found = {moe_need(talloc_array(owner, double, (unsigned)samples->count + 1)), 0};
    size_t all = 0;
    for (size_t i = 0; i < samples->count; i++) {
        if (samples->items[i].kind == MOE_SAMPLE_GEMM)
            found.values[all++] = side(&samples->items[i], axis);
    }
    qsort(found.values, all, sizeof *found.values, order_doubles);
    for (size_t i = 0; i < all; i++) {
        if (found.count == 0 || found.values[i] > found.values[found.count - 1])
            found.values[found.count++] = found.values[i];
    }
    return found;
}

static bool is_power_of_two(double value)
{
    int exponent;
    return frexp(value, &exponent) == 0.5;
}

static bool is_row_step(double m)
{
    return is_power_of_two(m) || (m >= 192 && is_power_of_two(m / 3));
}

static bool axis_keeps(int axis, const grid_axis *all, size_t i)
{
    const double value = all->values[i];
    if (axis == 0)
        return is_row_step(value) || (value > 16 && is_row_step(value - 1));
    return is_power_of_two(value) || i + 2 >= all->count;
}

/* Index of `value` among the values, or -1. */
static int axis_find(const grid_axis *axis, double value)
{
    const double *at =
        bsearch(&value, axis->values, axis->count, sizeof *axis->values, order_doubles);
    return at == NULL ? -1 : (int)(at - axis->values);
}

static bool on_grid(const grid_axis axes[SIDES], const moe_sample *sample, int at[SIDES])
{
    for (int a = 0; a < SIDES; a++) {
        at[a] = axis_find(&axes[a], side(sample, a));
        if (at[a] < 0)
            return false;
    }
    return true;
}

/* Number of points that the grid lacks; missing[a][i] of them at value i of axis a. */
static size_t count_missing(const moe_samples *samples, const grid_axis axes[SIDES],
                            double *missing[SIDES])
{
    const size_t n = axes[1].count, k = axes[2].count, all = axes[0].count * n * k;
    bool *seen = moe_need(talloc_zero_array(NULL, bool, (unsigned)all + 1));
    size_t lacking = 0;
    int at[SIDES];
    for (size_t i = 0; i < samples->count; i++) {
        if (samples->items[i].kind == MOE_SAMPLE_GEMM && on_grid(axes, &samples->items[i], at))
            seen[((size_t)at[0] * n + (size_t)at[1]) * k + (size_t)at[2]] = true;
    }
    for (int a = 0; a < SIDES; a++)
        memset(missing[a], 0, axes[a].count * sizeof *missing[a]);
    for (size_t i = 0; i < all; i++) {
        if (seen[i])
            continue;
        lacking++;
        missing[0][i / (n * k)]++;
        missing[1][i / k % n]++;
        missing[2][i % k]++;
    }
    talloc_free(seen);
    return lacking;
}

/* The value whose slice lacks the largest part; of equals the last of the last axis. */
static void drop_worst(grid_axis axes[SIDES], double *missing[SIDES])
{
    const double points = (double)axes[0].count * (double)axes[1].count * (double)axes[2].count;
    int worst_axis = 0;
    size_t worst = 0;
    double part = -1;
    for (int a = 0; a < SIDES; a++) {
        for (size_t i = 0; i < axes[a].count; i++) {
            const double slice = missing[a][i] * (double)axes[a].count / points;
            if (slice < part)
                continue;
            part = slice;
            worst_axis = a;
            worst = i;
        }
    }
    grid_axis *axis = &axes[worst_axis];
    memmove(axis->values + worst, axis->values + worst + 1,
            (axis->count - worst - 1) * sizeof *axis->values);
    axis->count--;
}

/* The grid that is kept; all three axes empty: there are too few points to choose from. */
static void choose_grid(void *owner, const moe_samples *samples, size_t gemms,
                        grid_axis axes[SIDES])
{
    double *missing[SIDES];
    for (int a = 0; a < SIDES; a++) {
        const grid_axis all = find_axis(owner, samples, a);
        axes[a] = (grid_axis){moe_need(talloc_array(owner, double, (unsigned)all.count + 1)), 0};
        for (size_t i = 0; i < all.count && gemms > GRID_WHOLE; i++) {
            if (axis_keeps(a, &all, i))
                axes[a].values[axes[a].count++] = all.values[i];
        }
        missing[a] = moe_need(talloc_array(owner, double, (unsigned)axes[a].count + 1));
    }
    /* A hostile table may have a million values a side: no grid of them is ever full. */
    while (axes[0].count * axes[1].count * axes[2].count > 64 * samples->count + 64)
        axes[0].count /= 2;
    while (axes[0].count > 0 && axes[1].count > 0 && axes[2].count > 0 &&
           count_missing(samples, axes, missing) > 0)
        drop_worst(axes, missing);
}

/* --- experts ------------------------------------------------------------------------------------------ */

static int order_shapes(const void *left, const void *right)
{
    const moe_sample *a = *(const moe_sample *const *)left, *b = *(const moe_sample *const *)right;
    if (a->hidden != b->hidden)
        return a->hidden < b->hidden ? -1 : 1;
    if (a->ffn != b->ffn)
        return a->ffn < b->ffn ? -1 : 1;
    return (a->experts > b->experts) - (a->experts < b->experts);
}

static bool is_whole(const moe_sample *sample)
{
    return sample->kind == MOE_SAMPLE_EXPERTS && sample->m <= 1;
}

/* One sample of each uncut shape, in order; returns their number. */
static size_t list_shapes(const moe_samples *samples, const moe_sample **shapes)
{
    size_t all = 0, count = 0;
    for (size_t i = 0; i < samples->count; i++) {
        if (is_whole(&samples->items[i]))
            shapes[all++] = &samples->items[i];
    }
    qsort(shapes, all, sizeof *shapes, order_shapes);
    for (size_t i = 0; i < all; i++) {
        if (count == 0 || order_shapes(&shapes[i], &shapes[count - 1]) != 0)
            shapes[count++] = shapes[i];
    }
    return count;
}

static bool keeps_shape(const moe_sample *sample, const moe_sample *const *shapes, size_t count)
{
    if (!is_whole(sample))
        return false;
    const moe_sample *const *at = bsearch(&sample, shapes, count, sizeof *shapes, order_shapes);
    return at != NULL && (at - shapes) % 2 == 0;
}

moe_import_parts moe_import_divide(void *owner, const moe_samples *samples)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_import_parts parts = {empty_like(owner, samples), empty_like(owner, samples)};
    const moe_sample **shapes =
        moe_need(talloc_array(scratch, const moe_sample *, (unsigned)samples->count + 1));
    const size_t shape_count = list_shapes(samples, shapes);
    size_t gemms = 0;
    for (size_t i = 0; i < samples->count; i++)
        gemms += samples->items[i].kind == MOE_SAMPLE_GEMM;
    grid_axis axes[SIDES];
    choose_grid(scratch, samples, gemms, axes);
    const bool grid = axes[0].count > 1 && axes[1].count > 1 && axes[2].count > 1;
    int at[SIDES];
    for (size_t i = 0; i < samples->count; i++) {
        const moe_sample *sample = &samples->items[i];
        bool kept = true;
        if (sample->kind == MOE_SAMPLE_GEMM && gemms > GRID_WHOLE)
            kept = grid && on_grid(axes, sample, at);
        else if (sample->kind == MOE_SAMPLE_EXPERTS && shape_count > 1)
            kept = keeps_shape(sample, shapes, shape_count);
        moe_samples_add(kept ? parts.kept : parts.held_out, sample);
    }
    talloc_free(scratch);
    return parts;
}
