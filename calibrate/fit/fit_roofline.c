/* The roofline: t = start + norm_p(FLOP / (e_flop peak), bytes / (e_mem bandwidth)), on log t.
 *
 * p is one of a few values, 2.7 unless another one lowers the mean error by more than a tenth: it is
 * the least certain of the four. Of few points only as many parameters are fitted as they carry. */
#include "calibrate/fit/fit_private.h"
#include "calibrate/fit/robust.h"
#include "configs/base/memory.h"
#include <math.h>
#include <string.h>
#include <talloc.h>

static const double norms[] = {2.7, 1, 1.5, 4, 16};
enum { NORMS = sizeof norms / sizeof *norms, POINTS_FOR_NORM = 12, POINTS_MOST = 4096 };

/* Logarithms of e_flop, e_mem and start: of two points the last is not fitted, of one the last two. */
enum { FLOP, MEMORY, START, PARAMETERS };

typedef struct roofline {
    const moe_roofline_point *points;
    size_t count;
    const moe_device_spec *device;
    double norm;
    double begin[PARAMETERS];
    double most_start_s;
    moe_fit_bench *bench;
} roofline;

static void set_curve(const double *parameters, double norm, moe_compute_curve *curve)
{
    curve->start_s = exp(parameters[START]);
    curve->flop_efficiency = exp(parameters[FLOP]);
    curve->memory_efficiency = exp(parameters[MEMORY]);
    curve->norm = norm;
}

static double predict_s(moe_fit_bench *bench, const moe_roofline_point *point)
{
    return moe_cost_dense_s(&bench->costs, point->flop, point->bytes, point->rows);
}

static int fitted_of(const roofline *of)
{
    return of->count < PARAMETERS ? (int)of->count : PARAMETERS;
}

static double residual(const void *context, const double *parameters, size_t i)
{
    const roofline *of = context;
    double all[PARAMETERS];
    memcpy(all, of->begin, sizeof all);
    memcpy(all, parameters, (size_t)fitted_of(of) * sizeof *all);
    set_curve(all, of->norm, &of->bench->profile.dense);
    return log(predict_s(of->bench, &of->points[i]) / of->points[i].seconds);
}

static double most_start_s(const moe_roofline_point *points, size_t count)
{
    double *seconds = moe_need(talloc_array(NULL, double, count));
    for (size_t i = 0; i < count; i++)
        seconds[i] = points[i].seconds;
    double most = moe_fit_low_decile(seconds, count);
    talloc_free(seconds);
    return most;
}

/* Least seconds, and the best rates that were seen: where the fit begins. */
static void begin(roofline *of)
{
    double least = INFINITY, flop = 1e-6, memory = 1e-6;
    of->most_start_s = most_start_s(of->points, of->count);
    for (size_t i = 0; i < of->count; i++) {
        const moe_roofline_point *point = &of->points[i];
        least = fmin(least, point->seconds);
        flop = fmax(flop, point->flop / point->seconds / of->device->peak_flop_per_s);
        memory = fmax(memory, point->bytes / point->seconds / of->device->memory_bytes_per_s);
    }
    of->begin[FLOP] = log(fmin(flop, 1));
    of->begin[MEMORY] = log(fmin(fmax(memory, 0.3), 1));
    of->begin[START] = of->count < PARAMETERS ? log(1e-9) : log(least / 2);
}

static moe_least_squares problem_of(const roofline *of)
{
    return (moe_least_squares){.points = of->count,
                               .parameters = fitted_of(of),
                               .low = {log(1e-6), log(1e-6), log(1e-9)},
                               .high = {0, 0, log(of->most_start_s)},
                               .residual = residual,
                               .context = of,
                               .left_out = of->count};
}

static void fit_norm(roofline *of, double *parameters)
{
    double best = INFINITY, chosen = norms[0];
    for (int i = 0; i < NORMS && (i == 0 || of->count >= POINTS_FOR_NORM); i++) {
        double tried[PARAMETERS];
        moe_least_squares problem = problem_of(of);
        memcpy(tried, of->begin, sizeof tried);
        of->norm = norms[i];
        double error = moe_fit_least_squares(&problem, tried);
        if (i == 0 || error < (chosen == norms[0] ? 0.9 : 1) * best) {
            best = error;
            chosen = norms[i];
            memcpy(parameters, tried, sizeof tried);
        }
    }
    of->norm = chosen;
}

/* Each fit starts where the whole one ended. */
static double leave_one_out(const roofline *of, const double *whole)
{
    moe_left_out left = {0};
    moe_least_squares problem = problem_of(of);
    size_t folds = moe_fit_folds(of->count);
    if (of->count <= PARAMETERS)
        return 0;
    for (size_t fold = 0; fold < folds; fold++) {
        double parameters[PARAMETERS];
        memcpy(parameters, whole, sizeof parameters);
        problem.left_out = fold;
        problem.left_out_step = folds < of->count ? folds : 0;
        moe_fit_least_squares(&problem, parameters);
        for (size_t i = fold; i < of->count; i++) {
            if (moe_fit_is_left_out(&problem, i))
                moe_left_out_add(&left, of->points[i].seconds,
                                 of->points[i].seconds * exp(residual(of, parameters, i)));
        }
    }
    return moe_left_out_mean(&left);
}

/* Every so many points where there are more than serve a fit of four numbers. */
static size_t thinned(const moe_roofline_point *points, size_t count, moe_roofline_point *kept)
{
    size_t step = (count + POINTS_MOST - 1) / POINTS_MOST, left = 0;
    for (size_t i = 0; i < count; i += step)
        kept[left++] = points[i];
    return left;
}

bool moe_fit_roofline_points(const moe_roofline_point *points, size_t count,
                             const moe_device_spec *device, moe_compute_curve *curve,
                             double *left_out)
{
    double parameters[PARAMETERS];
    if (count == 0)
        return false;
    moe_roofline_point *kept = moe_need(talloc_array(NULL, moe_roofline_point, count));
    moe_fit_bench *bench = moe_need(talloc(kept, moe_fit_bench));
    roofline of = {.points = kept,
                   .count = thinned(points, count, kept),
                   .device = device,
                   .norm = norms[0],
                   .bench = bench};
    moe_fit_bench_open(bench, device);
    begin(&of);
    fit_norm(&of, parameters);
    set_curve(parameters, of.norm, curve);
    *left_out = leave_one_out(&of, parameters);
    talloc_free(kept);
    return true;
}

/* ---- GEMMs ----------------------------------------------------------------------------------- */

static bool is_gemm(const moe_sample *sample, const void *context)
{
    (void)context;
    return sample->kind == MOE_SAMPLE_GEMM || sample->kind == MOE_SAMPLE_HEAD;
}

static bool is_attention(const moe_sample *sample, const void *context)
{
    (void)context;
    return sample->kind == MOE_SAMPLE_ATTENTION;
}

static moe_roofline_point gemm_point(const moe_sample *sample, double value_bytes)
{
    double m = sample->m, n = sample->n, k = sample->k;
    return (moe_roofline_point){2 * m * n * k, (m * k + k * n + m * n) * value_bytes,
                                sample->seconds, m};
}

static void set_range(const moe_roofline_point *points, size_t count, moe_compute_curve *curve)
{
    curve->low_rows = INFINITY;
    for (size_t i = 0; i < count; i++) {
        curve->low_rows = fmin(curve->low_rows, points[i].rows);
        curve->high_rows = fmax(curve->high_rows, points[i].rows);
    }
}

static void keep_evidence(void *owner, const moe_selection *chosen,
                          const moe_roofline_point *points, const moe_device_spec *device,
                          bool attention, moe_compute_curve *curve)
{
    moe_fit_bench bench;
    moe_evidence_builder builder =
        moe_evidence_open(owner, &curve->evidence, attention ? 2 : 3, chosen->count);
    moe_fit_bench_open(&bench, device);
    bench.profile.dense = *curve;
    for (size_t i = 0; i < chosen->count; i++) {
        const moe_sample *sample = chosen->items[i];
        const double shape[] = {sample->m, sample->n, sample->k};
        const double work[] = {points[i].flop, points[i].bytes};
        moe_evidence_add(&builder, attention ? work : shape, points[i].seconds,
                         predict_s(&bench, &points[i]));
    }
    moe_evidence_close(&builder);
}

static bool fit_curve(void *owner, const moe_samples *samples, const moe_device_spec *device,
                      double value_bytes, bool attention, moe_compute_curve *curve)
{
    void *scratch = moe_need(talloc_new(NULL));
    double left_out;
    moe_selection chosen =
        moe_fit_select(scratch, samples, attention ? is_attention : is_gemm, NULL);
    moe_roofline_point *points = moe_need(talloc_array(scratch, moe_roofline_point, chosen.count));
    for (size_t i = 0; i < chosen.count; i++) {
        const moe_sample *sample = chosen.items[i];
        points[i] = attention ? (moe_roofline_point){sample->flop, sample->bytes, sample->seconds,
                                                     sample->m}
                              : gemm_point(sample, value_bytes);
    }
    moe_compute_curve fitted = {.origin = samples->machine.origin};
    bool any = moe_fit_roofline_points(points, chosen.count, device, &fitted, &left_out);
    if (any) {
        set_range(points, chosen.count, &fitted);
        keep_evidence(owner, &chosen, points, device, attention, &fitted);
        fitted.evidence.leave_one_out = left_out;
        fitted.evidence.machine = samples->machine.description;
        *curve = fitted;
    }
    talloc_free(scratch);
    return any;
}

bool moe_fit_roofline(void *owner, const moe_samples *samples, const moe_device_spec *device,
                      double value_bytes, moe_compute_curve *curve)
{
    return fit_curve(owner, samples, device, value_bytes, false, curve);
}

bool moe_fit_attention(void *owner, const moe_samples *samples, const moe_device_spec *device,
                       moe_compute_curve *curve)
{
    return fit_curve(owner, samples, device, 0, true, curve);
}
