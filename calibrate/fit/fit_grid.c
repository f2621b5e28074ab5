/* The grid of measured GEMMs: utilisation of m x n x k, where enough of such a grid was measured.
 *
 * Axes are all values that occur, less those least measured, until six of ten cells are (three of ten
 * at every value) and there are no more than 16,384 (of values equally well measured, the one nearest to its
 * neighbour goes first). Outliers along m are tamed. A cell that was not measured gets the roofline's utilisation times the mean ratio of measured ones to
 * it, weighted by 1 / squared distance in log m, log n, log k.
 *
 * Leave-one-out: every m but the first and the last is predicted, for all n and k, by the grid without it. */
#include "calibrate/fit/fit_private.h"
#include "calibrate/fit/robust.h"
#include "configs/base/memory.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { AXES = 3, CELLS_MOST = 16384, CELLS_LEAST = 4, AXIS_MOST = 256, HOLES_CELLS_MOST = 512 };
static const double least_filled = 0.6, most_utilisation = 1.5, least_utilisation = 1e-9;

typedef struct axis {
    double *values; /* ascending */
    size_t *cells;  /* alive ones at each value */
    size_t count;
} axis;

typedef struct cell {
    double at[AXES];
    double seconds;
    size_t index[AXES];
    bool alive;
} cell;

typedef struct builder {
    const moe_device_spec *device;
    double value_bytes;
    cell *cells; /* by m, n, k */
    size_t count, alive;
    axis axes[AXES];
} builder;

/* ---- cells ----------------------------------------------------------------------------------- */

static bool is_wanted(const moe_sample *sample, const void *context)
{
    (void)context;
    return sample->kind == MOE_SAMPLE_GEMM;
}

static int by_place(const void *left, const void *right)
{
    const cell *a = left, *b = right;
    for (int i = 0; i < AXES; i++) {
        if (a->at[i] != b->at[i])
            return a->at[i] < b->at[i] ? -1 : 1;
    }
    return (a->seconds > b->seconds) - (a->seconds < b->seconds);
}

static bool same_place(const cell *a, const cell *b)
{
    return memcmp(a->at, b->at, sizeof a->at) == 0;
}

/* One cell a shape: the median of its samples. */
static void gather(builder *grid, const moe_selection *chosen)
{
    for (size_t i = 0; i < chosen->count; i++) {
        const moe_sample *sample = chosen->items[i];
        grid->cells[i] = (cell){
            .at = {sample->m, sample->n, sample->k}, .seconds = sample->seconds, .alive = true};
    }
    qsort(grid->cells, chosen->count, sizeof *grid->cells, by_place);
    for (size_t first = 0, i = 1; i <= chosen->count; i++) {
        if (i < chosen->count && same_place(&grid->cells[i], &grid->cells[first]))
            continue;
        grid->cells[grid->count++] = grid->cells[first + (i - first - 1) / 2];
        first = i;
    }
    grid->alive = grid->count;
}

/* ---- axes ------------------------------------------------------------------------------------ */

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void make_axis(builder *grid, int which)
{
    axis *of = &grid->axes[which];
    of->values = moe_need(talloc_array(grid->cells, double, grid->count));
    of->cells = moe_need(talloc_zero_array(grid->cells, size_t, grid->count));
    for (size_t i = 0; i < grid->count; i++)
        of->values[i] = grid->cells[i].at[which];
    qsort(of->values, grid->count, sizeof *of->values, by_value);
    for (size_t i = 0; i < grid->count; i++) {
        if (of->count == 0 || of->values[i] > of->values[of->count - 1])
            of->values[of->count++] = of->values[i];
    }
}

static size_t find_index(const axis *of, double value)
{
    const double *found = bsearch(&value, of->values, of->count, sizeof value, by_value);
    return found == NULL ? of->count : (size_t)(found - of->values);
}

/* After an axis changed: who is alive, where, and how many at each value. */
static void recount(builder *grid)
{
    grid->alive = 0;
    for (int which = 0; which < AXES; which++)
        memset(grid->axes[which].cells, 0, grid->axes[which].count * sizeof(size_t));
    for (size_t i = 0; i < grid->count; i++) {
        cell *of = &grid->cells[i];
        for (int which = 0; of->alive && which < AXES; which++) {
            of->index[which] = find_index(&grid->axes[which], of->at[which]);
            of->alive = of->index[which] < grid->axes[which].count;
        }
        for (int which = 0; of->alive && which < AXES; which++)
            grid->axes[which].cells[of->index[which]]++;
        grid->alive += of->alive;
    }
}

static double volume(const builder *grid)
{
    return (double)grid->axes[0].count * (double)grid->axes[1].count * (double)grid->axes[2].count;
}

/* Distance to the nearer neighbour. */
static double gap_of(const axis *of, size_t i)
{
    double gap = INFINITY;
    if (i > 0)
        gap = log(of->values[i] / of->values[i - 1]);
    if (i + 1 < of->count)
        gap = fmin(gap, log(of->values[i + 1] / of->values[i]));
    return gap;
}

typedef struct victim {
    int which;
    size_t index;
    double filled, gap;
} victim;

static victim find_victim(const builder *grid)
{
    victim worst = {.which = -1, .filled = INFINITY};
    for (int which = 0; which < AXES; which++) {
        const axis *of = &grid->axes[which];
        for (size_t i = 0; of->count > 1 && i < of->count; i++) {
            double filled = (double)of->cells[i] / (volume(grid) / (double)of->count);
            double gap = gap_of(of, i);
            if (filled < worst.filled || (filled == worst.filled && gap < worst.gap))
                worst = (victim){which, i, filled, gap};
        }
    }
    return worst;
}

static void drop(axis *of, size_t index)
{
    memmove(of->values + index, of->values + index + 1,
            (of->count - index - 1) * sizeof *of->values);
    of->count--;
}

/* Values with few cells, many at once, where an axis is absurdly long. */
static void shorten(builder *grid, int which)
{
    axis *of = &grid->axes[which];
    while (of->count > AXIS_MOST) {
        size_t least = SIZE_MAX, kept = 0, before = of->count;
        for (size_t i = 0; i < of->count; i++)
            least = of->cells[i] < least ? of->cells[i] : least;
        for (size_t i = 0; i < of->count; i++) {
            bool goes = of->cells[i] == least && before - (i - kept) > AXIS_MOST / 2;
            if (!goes)
                of->values[kept++] = of->values[i];
        }
        of->count = kept;
        recount(grid);
    }
}

static bool choose_axes(builder *grid)
{
    for (int which = 0; which < AXES; which++)
        make_axis(grid, which);
    recount(grid);
    for (int which = 0; which < AXES; which++)
        shorten(grid, which);
    for (;;) {
        victim worst = find_victim(grid);
        if ((double)grid->alive >= least_filled * volume(grid) && volume(grid) <= CELLS_MOST &&
            !(worst.filled < least_filled / 2))
            break;
        if (worst.which < 0)
            return false;
        drop(&grid->axes[worst.which], worst.index);
        recount(grid);
    }
    return grid->alive >= CELLS_LEAST && grid->axes[0].count > 1;
}

/* ---- utilisation ----------------------------------------------------------------------------- */

static double sol_s(const builder *grid, const double *at)
{
    double m = at[0], n = at[1], k = at[2];
    return fmax(2 * m * n * k / grid->device->peak_flop_per_s,
                (m * k + k * n + m * n) * grid->value_bytes / grid->device->memory_bytes_per_s);
}

static size_t offset_of(const builder *grid, const size_t *index)
{
    return (index[0] * grid->axes[1].count + index[1]) * grid->axes[2].count + index[2];
}

static double bounded(double utilisation)
{
    return fmin(fmax(utilisation, least_utilisation), most_utilisation);
}

/* Times along m at one n and k. */
static void tame_column(builder *grid, const size_t *members, size_t count, double *scratch)
{
    for (size_t i = 0; i < count; i++) {
        scratch[i] = grid->cells[members[i]].at[0];
        scratch[count + i] = grid->cells[members[i]].seconds;
    }
    moe_fit_tame(scratch, scratch + count, count);
    for (size_t i = 0; i < count; i++)
        grid->cells[members[i]].seconds = scratch[count + i];
}

static void tame(builder *grid)
{
    size_t columns = grid->axes[1].count * grid->axes[2].count, depth = grid->axes[0].count;
    size_t *members = moe_need(talloc_array(NULL, size_t, columns * depth));
    size_t *counts = moe_need(talloc_zero_array(members, size_t, columns));
    double *scratch = moe_need(talloc_array(members, double, 2 * depth));
    for (size_t i = 0; i < grid->count; i++) {
        const cell *of = &grid->cells[i];
        size_t column = of->index[1] * grid->axes[2].count + of->index[2];
        if (of->alive)
            members[column * depth + counts[column]++] = i;
    }
    for (size_t column = 0; column < columns; column++)
        tame_column(grid, members + column * depth, counts[column], scratch);
    talloc_free(members);
}

static moe_compute_curve fit_dense(const builder *grid)
{
    moe_compute_curve curve = {
        .start_s = 0, .flop_efficiency = 1, .memory_efficiency = 1, .norm = 2.7};
    moe_roofline_point *points = moe_need(talloc_array(NULL, moe_roofline_point, grid->count));
    double ignored;
    for (size_t i = 0; i < grid->count; i++) {
        double m = grid->cells[i].at[0], n = grid->cells[i].at[1], k = grid->cells[i].at[2];
        points[i] = (moe_roofline_point){2 * m * n * k, (m * k + k * n + m * n) * grid->value_bytes,
                                         grid->cells[i].seconds, m};
    }
    moe_fit_roofline_points(points, grid->count, grid->device, &curve, &ignored);
    talloc_free(points);
    return curve;
}

static double roofline_utilisation(const builder *grid, const moe_compute_curve *dense,
                                   const double *at)
{
    moe_fit_bench bench;
    moe_fit_bench_open(&bench, grid->device);
    bench.profile.dense = *dense;
    double m = at[0], n = at[1], k = at[2];
    return sol_s(grid, at) / moe_cost_dense_s(&bench.costs, 2 * m * n * k,
                                              (m * k + k * n + m * n) * grid->value_bytes, m);
}

/* ratios: of every measured cell, in the order of `cells`. */
static double filled_ratio(const builder *grid, const double *at, const double *ratios, size_t step)
{
    double sum = 0, weights = 0;
    for (size_t i = 0; i < grid->count; i += step) {
        const cell *of = &grid->cells[i];
        double distance = 0.01;
        for (int which = 0; which < AXES; which++)
            distance += pow(log(of->at[which] / at[which]), 2);
        sum += log(ratios[i]) / distance;
        weights += 1 / distance;
    }
    return exp(sum / weights);
}

static void fill_holes(const builder *grid, const moe_compute_curve *dense, double *utilisation)
{
    double *ratios = moe_need(talloc_array(NULL, double, grid->count));
    size_t step = (grid->count + HOLES_CELLS_MOST - 1) / HOLES_CELLS_MOST, index[AXES];
    for (size_t i = 0; i < grid->count; i++) {
        const cell *of = &grid->cells[i];
        ratios[i] = sol_s(grid, of->at) / of->seconds / roofline_utilisation(grid, dense, of->at);
    }
    for (index[0] = 0; index[0] < grid->axes[0].count; index[0]++) {
        for (index[1] = 0; index[1] < grid->axes[1].count; index[1]++) {
            for (index[2] = 0; index[2] < grid->axes[2].count; index[2]++) {
                const double at[AXES] = {grid->axes[0].values[index[0]],
                                         grid->axes[1].values[index[1]],
                                         grid->axes[2].values[index[2]]};
                double *value = &utilisation[offset_of(grid, index)];
                if (*value == 0)
                    *value = bounded(roofline_utilisation(grid, dense, at) *
                                     filled_ratio(grid, at, ratios, step));
            }
        }
    }
    talloc_free(ratios);
}

static moe_reals own_values(void *owner, const axis *of)
{
    return (moe_reals){moe_need(talloc_memdup(owner, of->values, of->count * sizeof(double))),
                       of->count};
}

static void set_grid(void *owner, const builder *from, const moe_compute_curve *dense,
                     moe_gemm_grid *grid)
{
    size_t cells = (size_t)volume(from);
    grid->m = own_values(owner, &from->axes[0]);
    grid->n = own_values(owner, &from->axes[1]);
    grid->k = own_values(owner, &from->axes[2]);
    grid->value_bytes = from->value_bytes;
    grid->utilisation = (moe_reals){moe_need(talloc_zero_array(owner, double, cells)), cells};
    for (size_t i = 0; i < from->count; i++) {
        const cell *of = &from->cells[i];
        if (of->alive)
            grid->utilisation.values[offset_of(from, of->index)] =
                bounded(sol_s(from, of->at) / of->seconds);
    }
    if (from->alive < cells)
        fill_holes(from, dense, grid->utilisation.values);
}

/* ---- evidence -------------------------------------------------------------------------------- */

static double predict_s(const moe_fit_bench *bench, const double *at)
{
    return moe_cost_gemm_s(&bench->costs, &(moe_gemm){at[0], at[1], at[2], 1});
}

/* The grid without its plane `skipped`; arrays are owned by `scratch`. */
static moe_gemm_grid without(void *scratch, const moe_gemm_grid *grid, size_t skipped)
{
    size_t plane = grid->n.count * grid->k.count, kept = 0;
    moe_gemm_grid less = *grid;
    less.m.values = moe_need(talloc_array(scratch, double, grid->m.count));
    less.utilisation.values = moe_need(talloc_array(scratch, double, grid->utilisation.count));
    for (size_t i = 0; i < grid->m.count; i++) {
        if (i == skipped)
            continue;
        less.m.values[kept] = grid->m.values[i];
        memcpy(less.utilisation.values + kept++ * plane, grid->utilisation.values + i * plane,
               plane * sizeof(double));
    }
    less.m.count = kept;
    less.utilisation.count = kept * plane;
    return less;
}

static double leave_one_out(const builder *from, const moe_gemm_grid *grid, moe_fit_bench *bench)
{
    moe_left_out left = {0};
    for (size_t skipped = 1; skipped + 1 < grid->m.count; skipped++) {
        void *scratch = moe_need(talloc_new(NULL));
        bench->profile.gemm = without(scratch, grid, skipped);
        for (size_t i = 0; i < from->count; i++) {
            const cell *of = &from->cells[i];
            if (of->alive && of->index[0] == skipped)
                moe_left_out_add(&left, of->seconds, predict_s(bench, of->at));
        }
        talloc_free(scratch);
    }
    return moe_left_out_mean(&left);
}

static bool is_within(const moe_gemm_grid *grid, const moe_sample *sample)
{
    return sample->m >= grid->m.values[0] && sample->m <= grid->m.values[grid->m.count - 1] &&
           sample->n >= grid->n.values[0] && sample->n <= grid->n.values[grid->n.count - 1] &&
           sample->k >= grid->k.values[0] && sample->k <= grid->k.values[grid->k.count - 1];
}

static void keep_evidence(void *owner, const builder *from, const moe_selection *chosen,
                          const moe_compute_curve *dense, moe_gemm_grid *grid)
{
    moe_fit_bench bench;
    size_t within = 0;
    moe_fit_bench_open(&bench, from->device);
    bench.profile.dense = *dense;
    bench.profile.gemm = *grid;
    for (size_t i = 0; i < chosen->count; i++)
        within += is_within(grid, chosen->items[i]);
    moe_evidence_builder kept = moe_evidence_open(owner, &grid->evidence, AXES, within);
    for (size_t i = 0; i < chosen->count; i++) {
        const moe_sample *sample = chosen->items[i];
        const double at[AXES] = {sample->m, sample->n, sample->k};
        if (is_within(grid, sample))
            moe_evidence_add(&kept, at, sample->seconds, predict_s(&bench, at));
    }
    moe_evidence_close(&kept);
    grid->evidence.leave_one_out = leave_one_out(from, grid, &bench);
}

bool moe_fit_grid(void *owner, const moe_samples *samples, const moe_device_spec *device,
                  double value_bytes, moe_gemm_grid *grid)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_selection chosen = moe_fit_select(scratch, samples, is_wanted, NULL);
    builder from = {.device = device,
                    .value_bytes = value_bytes,
                    .cells = moe_need(talloc_array(scratch, cell, chosen.count))};
    gather(&from, &chosen);
    bool enough = from.count >= CELLS_LEAST && choose_axes(&from);
    if (enough) {
        *grid = (moe_gemm_grid){.origin = samples->machine.origin};
        tame(&from);
        const moe_compute_curve dense = fit_dense(&from);
        set_grid(owner, &from, &dense, grid);
        keep_evidence(owner, &from, &chosen, &dense, grid);
        grid->evidence.machine = samples->machine.description;
    }
    talloc_free(scratch);
    return enough;
}
