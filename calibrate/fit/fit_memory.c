/* Memory-bound work: start + bytes / (e(bytes) bandwidth).
 *
 * The start is what a robust straight line leaves at no bytes, at most 0.97 of the shortest time and never so much
 * that a point would beat the bandwidth; e is then a point a size (their median where kernels differ). Not monotone:
 * caches make small work faster. Gates are left out: their cost is a GEMM's. */
#include "calibrate/fit/fit_private.h"
#include "calibrate/fit/robust.h"
#include "configs/base/memory.h"
#include <math.h>
#include <talloc.h>

static bool is_wanted(const moe_sample *sample, const void *context)
{
    (void)context;
    return sample->kind == MOE_SAMPLE_PERMUTE || sample->kind == MOE_SAMPLE_NORM ||
           sample->kind == MOE_SAMPLE_ADAM;
}

typedef struct table {
    double *x, *y; /* scratch, [samples] */
    size_t count;
} table;

/* All samples but those left out; a point a size, outliers tamed. */
static table gather(void *scratch, const moe_selection *chosen, const bool *left_out)
{
    table of = {moe_need(talloc_array(scratch, double, chosen->count)),
                moe_need(talloc_array(scratch, double, chosen->count)), 0};
    for (size_t i = 0; i < chosen->count; i++) {
        if (left_out != NULL && left_out[i])
            continue;
        of.x[of.count] = chosen->items[i]->bytes;
        of.y[of.count++] = chosen->items[i]->seconds;
    }
    of.count = moe_fit_merge(of.x, of.y, of.count);
    moe_fit_tame(of.x, of.y, of.count);
    return of;
}

static void fit_curve(void *owner, const table *of, const moe_device_spec *device,
                      moe_compute_curve *curve)
{
    double start = 0, slope = 0, last = 1;
    moe_fit_line(of->x, of->y, of->count, &start, &slope);
    for (size_t i = 0; i < of->count; i++)
        start =
            fmin(start, fmin(0.97 * of->y[i], of->y[i] - of->x[i] / device->memory_bytes_per_s));
    curve->start_s = fmax(start, 0);
    curve->efficiency = (moe_points){.x = moe_need(talloc_array(owner, double, of->count)),
                                     .y = moe_need(talloc_array(owner, double, of->count)),
                                     .count = of->count};
    for (size_t i = 0; i < of->count; i++) {
        double rate = of->x[i] / (of->y[i] - curve->start_s);
        curve->efficiency.x[i] = of->x[i];
        curve->efficiency.y[i] = fmin(fmax(rate / device->memory_bytes_per_s, 1e-6), 1);
        last = curve->efficiency.y[i];
    }
    curve->memory_efficiency = last; /* that of the largest: what a reader of one number wants */
    curve->low_rows = of->x[0];
    curve->high_rows = of->x[of->count - 1];
}

static double predict_s(const moe_device_spec *device, const moe_compute_curve *curve, double bytes)
{
    moe_fit_bench bench;
    moe_fit_bench_open(&bench, device);
    bench.profile.memory = *curve;
    return moe_cost_memory_s(&bench.costs, bytes);
}

/* A size with its repetitions and other kernels, or a fold. */
static double leave_one_out(const moe_selection *chosen, const moe_device_spec *device)
{
    moe_left_out left = {0};
    size_t folds = moe_fit_folds(chosen->count);
    for (size_t fold = 0; fold < folds; fold++) {
        void *scratch = moe_need(talloc_new(NULL));
        bool *left_out = moe_need(talloc_array(scratch, bool, chosen->count));
        moe_compute_curve curve = {0};
        for (size_t i = 0; i < chosen->count; i++)
            left_out[i] = folds < chosen->count
                              ? i % folds == fold
                              : chosen->items[i]->bytes == chosen->items[fold]->bytes;
        table of = gather(scratch, chosen, left_out);
        if (of.count > 0)
            fit_curve(scratch, &of, device, &curve);
        for (size_t i = 0; of.count > 0 && i < chosen->count; i++) {
            if (folds < chosen->count ? left_out[i] : i == fold)
                moe_left_out_add(&left, chosen->items[i]->seconds,
                                 predict_s(device, &curve, chosen->items[i]->bytes));
        }
        talloc_free(scratch);
    }
    return moe_left_out_mean(&left);
}

bool moe_fit_memory(void *owner, const moe_samples *samples, const moe_device_spec *device,
                    moe_compute_curve *curve)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_selection chosen = moe_fit_select(scratch, samples, is_wanted, NULL);
    table of = gather(scratch, &chosen, NULL);
    if (of.count > 0) {
        *curve = (moe_compute_curve){.origin = samples->machine.origin};
        fit_curve(owner, &of, device, curve);
        moe_evidence_builder builder = moe_evidence_open(owner, &curve->evidence, 1, chosen.count);
        for (size_t i = 0; i < chosen.count; i++)
            moe_evidence_add(&builder, &chosen.items[i]->bytes, chosen.items[i]->seconds,
                             predict_s(device, curve, chosen.items[i]->bytes));
        moe_evidence_close(&builder);
        curve->evidence.leave_one_out = leave_one_out(&chosen, device);
        curve->evidence.machine = samples->machine.description;
    }
    talloc_free(scratch);
    return of.count > 0;
}
