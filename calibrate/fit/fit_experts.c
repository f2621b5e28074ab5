/* Experts of one device: the law of models/profile.h, fitted on log t.
 *
 *   t = start + start_per_expert active
 *         + norm_p( sum FLOP(ceil(rows / tile) tile) / (e(rows) peak), sum (weights + rows row bytes) / (e_mem BW) )
 *
 * e(rows) goes through knots, evenly spread in log rows over what was measured, each at least the one before it:
 * their logarithms are a last one less squares. As many knots as the samples carry (one for every three different
 * sizes, at most six). The tile is the one of six that leaves the least mean error. Of fewer than four samples
 * only e is fitted; the other numbers stay at grouped GEMM's (e_mem 0.85, tile 128; no start). */
#include "calibrate/fit/fit_private.h"
#include "calibrate/fit/robust.h"
#include "configs/base/memory.h"
#include "models/step.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { KNOTS_MOST = 6, SAMPLES_FOR_ALL = 4, SAMPLES_PER_KNOT = 3 };

/* Logarithm of the last knot, roots of the steps below it, logarithms of e_mem and both starts. */
enum { LAST = 0, MEMORY_AFTER, START_AFTER, START_EACH_AFTER };
static const int64_t tiles[] = {1, 16, 32, 64, 128, 256};
enum { TILES = sizeof tiles / sizeof *tiles };
static const double norm_p = 2.7;

typedef struct experts {
    const moe_selection *chosen;
    moe_expert_shape *shapes; /* [count] */
    const moe_device_spec *device;
    moe_phase phase;
    int knots;
    double knot_rows[KNOTS_MOST];
    bool all; /* the starts and e_mem are fitted too */
    double most_start_s;
    int64_t tile;
    moe_fit_bench *bench;
    double knot_efficiency[KNOTS_MOST]; /* scratch */
} experts;

static int parameters_of(const experts *of)
{
    return of->knots + (of->all ? 3 : 0);
}

/* ---- the law --------------------------------------------------------------------------------- */

static void set_curve(experts *of, const double *parameters)
{
    moe_compute_curve *curve = &of->bench->profile.experts[MOE_FORWARD];
    double logarithm = parameters[LAST];
    for (int k = of->knots - 1; k >= 0; k--) {
        of->knot_efficiency[k] = fmax(exp(logarithm), 1e-6);
        if (k > 0)
            logarithm -= parameters[k] * parameters[k];
    }
    const double *more = parameters + of->knots;
    curve->efficiency = (moe_points){of->knot_rows, of->knot_efficiency, (size_t)of->knots};
    curve->flop_efficiency = of->knot_efficiency[of->knots - 1];
    curve->memory_efficiency = of->all ? exp(more[MEMORY_AFTER - 1]) : 0.85;
    curve->start_s = of->all ? exp(more[START_AFTER - 1]) : 0;
    curve->start_per_expert_s = of->all ? exp(more[START_EACH_AFTER - 1]) : 0;
    curve->norm = norm_p;
    curve->tile_rows = of->tile;
}

static double predict_s(const experts *of, size_t i)
{
    const moe_sample *sample = of->chosen->items[i];
    moe_expert_shape shape = of->shapes[i];
    shape.phase = MOE_FORWARD; /* where the bench has its curve */
    return moe_cost_experts_s(&of->bench->costs, &shape, sample->rows, sample->experts);
}

static double residual(const void *context, const double *parameters, size_t i)
{
    experts *of = (experts *)(uintptr_t)context; /* its bench is where costs are looked up */
    set_curve(of, parameters);
    return log(predict_s(of, i) / of->chosen->items[i]->seconds);
}

/* ---- knots ----------------------------------------------------------------------------------- */

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Rows of active experts, ascending, each once. */
static size_t distinct_rows(const moe_selection *chosen, double **values)
{
    size_t all = 0, count = 0, distinct = 0;
    for (size_t i = 0; i < chosen->count; i++)
        all += (size_t)chosen->items[i]->experts;
    double *rows = moe_need(talloc_array(NULL, double, all));
    for (size_t i = 0; i < chosen->count; i++) {
        for (int e = 0; e < chosen->items[i]->experts; e++) {
            rows[count] = chosen->items[i]->rows[e];
            count += rows[count] > 0;
        }
    }
    qsort(rows, count, sizeof *rows, by_value);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || rows[i] > rows[distinct - 1])
            rows[distinct++] = rows[i];
    }
    *values = rows;
    return distinct;
}

static double most_start_s(const moe_selection *chosen)
{
    double *seconds = moe_need(talloc_array(NULL, double, chosen->count));
    for (size_t i = 0; i < chosen->count; i++)
        seconds[i] = chosen->items[i]->seconds;
    double most = moe_fit_low_decile(seconds, chosen->count);
    talloc_free(seconds);
    return most;
}

static void place_knots(experts *of)
{
    size_t count = of->chosen->count;
    double *rows;
    size_t distinct = distinct_rows(of->chosen, &rows);
    size_t knots = (distinct < count ? distinct : count) / SAMPLES_PER_KNOT;
    double low = rows[0], high = rows[distinct - 1];
    of->knots = knots < 1 ? 1 : knots > KNOTS_MOST ? KNOTS_MOST : (int)knots;
    if (high <= low)
        of->knots = 1;
    for (int k = 0; k < of->knots; k++)
        of->knot_rows[k] =
            of->knots == 1 ? high : low * pow(high / low, (double)k / (of->knots - 1));
    talloc_free(rows);
}

/* ---- fitting --------------------------------------------------------------------------------- */

static moe_least_squares problem_of(const experts *of)
{
    moe_least_squares problem = {.points = of->chosen->count,
                                 .parameters = parameters_of(of),
                                 .residual = residual,
                                 .context = of,
                                 .left_out = of->chosen->count};
    problem.low[LAST] = log(1e-6);
    for (int k = 1; k < of->knots; k++)
        problem.high[k] = 3; /* a factor of e^-9 from knot to knot */
    for (int i = of->knots; i < problem.parameters; i++) {
        bool memory = i - of->knots == MEMORY_AFTER - 1;
        problem.low[i] = memory ? log(1e-3) : log(1e-10);
        problem.high[i] = memory ? 0 : log(of->most_start_s);
    }
    return problem;
}

static double best_rate(const experts *of)
{
    double best = 1e-6;
    for (size_t i = 0; i < of->chosen->count; i++) {
        const moe_sample *sample = of->chosen->items[i];
        double flop = 0;
        for (int e = 0; e < sample->experts; e++)
            flop += sample->rows[e] * of->shapes[i].flop_per_row;
        best = fmax(best, flop / sample->seconds / of->device->peak_flop_per_s);
    }
    return fmin(best, 1);
}

static void begin(const experts *of, const moe_least_squares *problem, double *parameters)
{
    parameters[LAST] = log(best_rate(of));
    for (int k = 1; k < of->knots; k++)
        parameters[k] = 0.3;
    if (!of->all)
        return;
    double *more = parameters + of->knots;
    more[MEMORY_AFTER - 1] = log(0.8);
    more[START_AFTER - 1] = problem->high[of->knots + START_AFTER - 1] - log(3);
    more[START_EACH_AFTER - 1] = more[START_AFTER - 1] - log(30);
}

static double fit_tiles(experts *of, double *parameters)
{
    double best = INFINITY;
    int64_t chosen = 128;
    for (int t = TILES - 1; t >= 0; t--) {
        double tried[MOE_FIT_PARAMETERS_MOST] = {0};
        moe_least_squares problem = problem_of(of);
        of->tile = of->all ? tiles[t] : 128;
        begin(of, &problem, tried);
        double error = moe_fit_least_squares(&problem, tried);
        /* Fewer tile steps need a reason. */
        if (t == TILES - 1 || error < 0.99 * best) {
            best = error;
            chosen = of->tile;
            memcpy(parameters, tried, sizeof tried);
        }
        if (!of->all)
            break;
    }
    of->tile = chosen;
    return best;
}

static double leave_one_out(const experts *of, const double *whole)
{
    moe_left_out left = {0};
    moe_least_squares problem = problem_of(of);
    size_t count = of->chosen->count, folds = count > 64 ? MOE_FIT_FOLDS : count;
    if (count <= (size_t)problem.parameters)
        return 0;
    for (size_t fold = 0; fold < folds; fold++) {
        double parameters[MOE_FIT_PARAMETERS_MOST];
        memcpy(parameters, whole, sizeof parameters);
        problem.left_out = fold;
        problem.left_out_step = folds < count ? folds : 0;
        moe_fit_least_squares(&problem, parameters);
        for (size_t i = fold; i < count; i++) {
            if (moe_fit_is_left_out(&problem, i)) {
                double seconds = of->chosen->items[i]->seconds;
                moe_left_out_add(&left, seconds, seconds * exp(residual(of, parameters, i)));
            }
        }
    }
    return moe_left_out_mean(&left);
}

/* ---- the curve ------------------------------------------------------------------------------- */

static bool is_wanted(const moe_sample *sample, const void *context)
{
    return sample->kind == MOE_SAMPLE_EXPERTS && sample->phase == *(const moe_phase *)context;
}

static int dtype_of(double value_bytes)
{
    return value_bytes >= 4 ? MOE_FP32 : value_bytes >= 2 ? MOE_BF16 : MOE_FP8;
}

moe_expert_shape moe_fit_expert_shape(const moe_sample *sample, double value_bytes)
{
    const moe_network network = {.hidden = (int64_t)sample->hidden,
                                 .ffn = (int64_t)sample->ffn,
                                 .gated = sample->gated,
                                 .experts = 1,
                                 .parameter_dtype = dtype_of(value_bytes),
                                 .gradient_dtype = dtype_of(value_bytes)};
    return moe_step_expert_shape(&network, sample->phase);
}

typedef struct totals {
    double rows, largest, active;
} totals;

static totals add_up(const moe_sample *sample)
{
    totals of = {0};
    for (int e = 0; e < sample->experts; e++) {
        of.rows += sample->rows[e];
        of.largest = fmax(of.largest, sample->rows[e]);
        of.active += sample->rows[e] > 0;
    }
    return of;
}

static void keep_evidence(void *owner, const experts *of, moe_compute_curve *curve)
{
    size_t count = of->chosen->count;
    moe_evidence_builder builder = moe_evidence_open(owner, &curve->evidence, 6, count);
    curve->low_rows = INFINITY;
    for (size_t i = 0; i < count; i++) {
        const moe_sample *sample = of->chosen->items[i];
        totals sums = add_up(sample);
        const double columns[] = {sample->hidden, sample->ffn, sample->gated ? 3 : 2,
                                  sums.active,    sums.rows,   sums.largest};
        moe_evidence_add(&builder, columns, sample->seconds, predict_s(of, i));
        curve->low_rows = fmin(curve->low_rows, sums.rows);
        curve->high_rows = fmax(curve->high_rows, sums.rows);
    }
    moe_evidence_close(&builder);
}

static void fit_curve(void *owner, experts *of, moe_compute_curve *curve)
{
    double parameters[MOE_FIT_PARAMETERS_MOST] = {0};
    fit_tiles(of, parameters);
    set_curve(of, parameters);
    *curve = of->bench->profile.experts[MOE_FORWARD];
    size_t bytes = (size_t)of->knots * sizeof(double);
    curve->efficiency.x = moe_need(talloc_memdup(owner, of->knot_rows, bytes));
    curve->efficiency.y = moe_need(talloc_memdup(owner, of->knot_efficiency, bytes));
    keep_evidence(owner, of, curve);
    curve->evidence.leave_one_out = leave_one_out(of, parameters);
}

bool moe_fit_experts(void *owner, const moe_samples *samples, moe_phase phase,
                     const moe_device_spec *device, double value_bytes, moe_compute_curve *curve)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_selection chosen = moe_fit_select(scratch, samples, is_wanted, &phase);
    if (chosen.count > 0) {
        experts *of = moe_need(talloc_zero(scratch, experts));
        *of = (experts){.chosen = &chosen,
                        .shapes = moe_need(talloc_array(scratch, moe_expert_shape, chosen.count)),
                        .device = device,
                        .phase = phase,
                        .all = chosen.count >= SAMPLES_FOR_ALL,
                        .bench = moe_need(talloc(scratch, moe_fit_bench))};
        moe_fit_bench_open(of->bench, device);
        for (size_t i = 0; i < chosen.count; i++)
            of->shapes[i] = moe_fit_expert_shape(chosen.items[i], value_bytes);
        of->most_start_s = most_start_s(&chosen);
        place_knots(of);
        fit_curve(owner, of, curve);
        curve->origin = samples->machine.origin;
        curve->evidence.machine = samples->machine.description;
    }
    talloc_free(scratch);
    return chosen.count > 0;
}
