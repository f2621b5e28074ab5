#include "calibrate/fit/robust.h"

#include "configs/base/memory.h"
#include <gsl/gsl_fit.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double moe_fit_median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
    return gsl_stats_median_from_sorted_data(values, 1, count);
}

double moe_fit_quartile_spread(const double *sorted, size_t count)
{
    double first = gsl_stats_quantile_from_sorted_data(sorted, 1, count, 0.25);
    double third = gsl_stats_quantile_from_sorted_data(sorted, 1, count, 0.75);
    double median = gsl_stats_median_from_sorted_data(sorted, 1, count);
    return median > 0 ? (third - first) / median : 0;
}

double moe_fit_low_decile(const double *values, size_t count)
{
    double *sorted = moe_need(talloc_array(NULL, double, count));
    memcpy(sorted, values, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_value);
    double decile = sorted[count / 10];
    talloc_free(sorted);
    return decile;
}

double moe_fit_deviation(const double *values, size_t count)
{
    double *sizes = moe_need(talloc_array(NULL, double, count));
    for (size_t i = 0; i < count; i++)
        sizes[i] = fabs(values[i]);
    double deviation = count > 0 ? 1.4826 * moe_fit_median(sizes, count) : 0;
    talloc_free(sizes);
    return deviation;
}

/* ---- least squares --------------------------------------------------------------------------- */

enum { ROUNDS = 8, STEPS = 60 };
static const double huber = 1.345, far = 4;

typedef struct solver {
    const moe_least_squares *problem;
    const size_t *used; /* points that are not left out */
    size_t used_count;
} solver;

/* Beyond a bound is mirrored: clamping would leave no slope there, and a parameter that once reached it stuck. */
static double mirrored(const moe_least_squares *problem, int i, double value)
{
    double low = problem->low[i], width = problem->high[i] - low;
    if (!(width > 0))
        return low;
    double beyond = fabs(fmod(value - low, 2 * width));
    return low + (beyond > width ? 2 * width - beyond : beyond);
}

static double residual_at(const solver *s, const double *parameters, size_t i)
{
    double r = s->problem->residual(s->problem->context, parameters, s->used[i]);
    return isfinite(r) ? r : 1e3;
}

static int evaluate(const gsl_vector *x, void *context, gsl_vector *f)
{
    const solver *s = context;
    double parameters[MOE_FIT_PARAMETERS_MOST];
    for (int i = 0; i < s->problem->parameters; i++)
        parameters[i] = mirrored(s->problem, i, gsl_vector_get(x, (size_t)i));
    for (size_t i = 0; i < s->used_count; i++)
        gsl_vector_set(f, i, residual_at(s, parameters, i));
    return GSL_SUCCESS;
}

/* Returns the largest change of a weight. */
static double reweigh(const solver *s, const double *parameters, double *weights, double *scratch)
{
    double change = 0;
    for (size_t i = 0; i < s->used_count; i++)
        scratch[i] = residual_at(s, parameters, i);
    double deviation = fmax(moe_fit_deviation(scratch, s->used_count), 1e-4);
    for (size_t i = 0; i < s->used_count; i++) {
        double size = fabs(scratch[i]) / deviation;
        double weight = size <= huber ? 1 : huber / size;
        if (size > far)
            weight *= (far / size) * (far / size);
        change = fmax(change, fabs(weight - weights[i]));
        weights[i] = weight;
    }
    return change;
}

/* One weighted fit from `parameters` on; false where GSL gives up. */
static bool minimise(const solver *s, const double *weights, double *parameters)
{
    size_t p = (size_t)s->problem->parameters;
    gsl_multifit_nlinear_parameters how = gsl_multifit_nlinear_default_parameters();
    gsl_multifit_nlinear_fdf system = {
        .f = evaluate, .n = s->used_count, .p = p, .params = (void *)(uintptr_t)s};
    gsl_multifit_nlinear_workspace *work =
        gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &how, s->used_count, p);
    gsl_vector_const_view start = gsl_vector_const_view_array(parameters, p);
    gsl_vector_const_view w = gsl_vector_const_view_array(weights, s->used_count);
    int info;
    if (work == NULL)
        moe_out_of_memory();
    int status = gsl_multifit_nlinear_winit(&start.vector, &w.vector, &system, work);
    if (status == GSL_SUCCESS)
        status = gsl_multifit_nlinear_driver(STEPS, 1e-6, 1e-6, 0, NULL, NULL, &info, work);
    /* Out of steps, or no step that helps: where it stands is good. */
    bool fine = status == GSL_SUCCESS || status == GSL_EMAXITER || status == GSL_ENOPROG;
    for (size_t i = 0; fine && i < p; i++)
        parameters[i] = mirrored(s->problem, (int)i, gsl_vector_get(work->x, i));
    gsl_multifit_nlinear_free(work);
    return fine;
}

static double mean_size(const solver *s, const double *parameters)
{
    double sum = 0;
    for (size_t i = 0; i < s->used_count; i++)
        sum += fabs(residual_at(s, parameters, i));
    return sum / (double)s->used_count;
}

static double solve(const solver *s, double *parameters)
{
    double start[MOE_FIT_PARAMETERS_MOST];
    size_t bytes = (size_t)s->problem->parameters * sizeof *start;
    double *weights = moe_need(talloc_array(NULL, double, 2 * s->used_count));
    double *scratch = weights + s->used_count, result = INFINITY;
    memcpy(start, parameters, bytes);
    for (size_t i = 0; i < s->used_count; i++)
        weights[i] = 1;
    bool fine = true;
    for (int round = 0; fine && round < ROUNDS; round++) {
        fine = minimise(s, weights, parameters);
        if (fine && reweigh(s, parameters, weights, scratch) < 0.01)
            break;
    }
    if (fine)
        result = mean_size(s, parameters);
    else
        memcpy(parameters, start, bytes);
    talloc_free(weights);
    return result;
}

double moe_fit_least_squares(const moe_least_squares *problem, double *parameters)
{
    size_t *used = moe_need(talloc_array(NULL, size_t, problem->points));
    solver s = {.problem = problem, .used = used};
    gsl_error_handler_t *before = gsl_set_error_handler_off();
    for (size_t i = 0; i < problem->points; i++) {
        if (!moe_fit_is_left_out(problem, i))
            used[s.used_count++] = i;
    }
    for (int i = 0; i < problem->parameters; i++)
        parameters[i] = mirrored(problem, i, parameters[i]);
    double result = s.used_count >= (size_t)problem->parameters ? solve(&s, parameters) : INFINITY;
    gsl_set_error_handler(before);
    talloc_free(used);
    return result;
}

size_t moe_fit_folds(size_t points)
{
    return points <= MOE_FIT_FOLDS_ALL ? points : MOE_FIT_FOLDS;
}

/* ---- outliers of a table --------------------------------------------------------------------- */

typedef struct table {
    const double *x; /* logarithms */
    const double *y;
    bool *marked;
    size_t count;
} table;

/* The next point beyond `i` that is not marked, in steps of -1 or 1; count: none. */
static size_t next_of(const table *of, size_t i, int step)
{
    while (step < 0 ? i > 0 : i + 1 < of->count) {
        i = step < 0 ? i - 1 : i + 1;
        if (!of->marked[i])
            return i;
    }
    return of->count;
}

static double line_through(const table *of, size_t a, size_t b, double x, double low, double high)
{
    double slope = (of->y[b] - of->y[a]) / (of->x[b] - of->x[a]);
    return of->y[a] + fmin(fmax(slope, low), high) * (x - of->x[a]);
}

/* Keeps of two distances the one that is nearer to zero. */
static double nearer(double best, double distance)
{
    return fabs(distance) < fabs(best) ? distance : best;
}

/* What the two before a point (or behind it) say of it; NAN where there are no two. */
static double outer_guess(const table *of, size_t i, int step)
{
    size_t near = next_of(of, i, step), far_off = near < of->count ? next_of(of, near, step) : near;
    return far_off < of->count ? line_through(of, near, far_off, of->x[i], 0, 1.2) : NAN;
}

/* How far the point is above what its neighbours say, in parts of `limit` (twice that at an end, where they only
 * say it from one side); 0 where none says anything, and where the curve bends upwards between them (from a
 * plateau into a slope) and the point is within that bend. */
static double distance_of(const table *of, size_t i, double limit)
{
    size_t none = of->count, left = next_of(of, i, -1), right = next_of(of, i, 1);
    double before = outer_guess(of, i, -1), behind = outer_guess(of, i, 1), best = INFINITY;
    bool inside = left < none && right < none;
    if (inside) {
        double between = line_through(of, left, right, of->x[i], -INFINITY, INFINITY);
        if (of->y[i] <= between && of->y[i] >= before && of->y[i] >= behind)
            return 0;
        best = of->y[i] - between;
    }
    if (!isnan(before))
        best = nearer(best, of->y[i] - before);
    if (!isnan(behind))
        best = nearer(best, of->y[i] - behind);
    return isfinite(best) ? best / (inside ? limit : 2 * limit) : 0;
}

static double limit_of(const table *of, double *scratch)
{
    for (size_t i = 0; i < of->count; i++)
        scratch[i] = distance_of(of, i, 1);
    return fmax(far * moe_fit_deviation(scratch, of->count), log(1.2));
}

/* The worst first, as it misleads its neighbours; then those are given another chance. */
static void mark_outliers(const table *of, double limit)
{
    for (size_t marked = 0; marked < of->count / 3; marked++) {
        size_t worst = of->count;
        double most = 1;
        for (size_t i = 0; i < of->count; i++) {
            double distance = of->marked[i] ? 0 : fabs(distance_of(of, i, limit));
            if (distance > most) {
                most = distance;
                worst = i;
            }
        }
        if (worst == of->count)
            break;
        of->marked[worst] = true;
    }
    for (size_t i = 0; i < of->count; i++) {
        if (of->marked[i] && fabs(distance_of(of, i, limit)) <= 1)
            of->marked[i] = false;
    }
}

void moe_fit_tame(const double *x, double *y, size_t count)
{
    if (count < 4)
        return;
    double *logs = moe_need(talloc_array(NULL, double, 3 * count));
    bool *marked = moe_need(talloc_zero_array(logs, bool, count));
    table of = {logs, logs + count, marked, count};
    for (size_t i = 0; i < count; i++) {
        logs[i] = log(x[i]);
        logs[count + i] = log(y[i]);
    }
    double limit = limit_of(&of, logs + 2 * count);
    mark_outliers(&of, limit);
    for (size_t i = 0; i < count; i++) {
        double distance = marked[i] ? distance_of(&of, i, limit) : 0;
        bool end = next_of(&of, i, -1) == count || next_of(&of, i, 1) == count;
        if (fabs(distance) > 1)
            y[i] *= exp(distance * (end ? 2 : 1) * limit * (pow(fabs(distance), -3) - 1));
    }
    talloc_free(logs);
}

/* ---- straight pieces ------------------------------------------------------------------------- */

/* Weighted by 1 / t^2: errors count relative to what was measured. Neither start nor slope below zero. */
static double fit_stretch(const double *x, const double *t, const double *weights, size_t count,
                          moe_fit_piece *piece)
{
    double c00, c01, c11, square = 0;
    piece->first_x = x[0];
    gsl_fit_wlinear(x, 1, weights, 1, t, 1, count, &piece->start, &piece->slope, &c00, &c01, &c11,
                    &square);
    if (piece->slope < 0) {
        piece->slope = 0;
        piece->start = gsl_stats_wmean(weights, 1, t, 1, count);
    } else if (piece->start < 0) {
        gsl_fit_wmul(x, 1, weights, 1, t, 1, count, &piece->slope, &c11, &square);
        piece->start = 0;
    }
    square = 0;
    for (size_t i = 0; i < count; i++) {
        double error = (piece->start + piece->slope * x[i]) / t[i] - 1;
        square += error * error;
    }
    return square;
}

typedef struct pieces_search {
    const double *x, *t;
    double *weights; /* scratch, as `best` and `from` */
    size_t count;
    double *best; /* [pieces][count + 1] least sum of squares of the first points */
    size_t *from; /* [pieces][count + 1] first point of the last piece */
} pieces_search;

static double stretch(const pieces_search *s, size_t first, size_t end, moe_fit_piece *piece)
{
    return fit_stretch(s->x + first, s->t + first, s->weights + first, end - first, piece);
}

static void extend(const pieces_search *s, int piece, size_t end)
{
    size_t width = s->count + 1;
    moe_fit_piece ignored;
    s->best[(size_t)piece * width + end] = INFINITY;
    for (size_t first = 2 * (size_t)piece; first + 2 <= end; first++) {
        double before =
            piece == 0 ? (first == 0 ? 0 : INFINITY) : s->best[(size_t)(piece - 1) * width + first];
        double sum = isfinite(before) ? before + stretch(s, first, end, &ignored) : INFINITY;
        if (sum < s->best[(size_t)piece * width + end]) {
            s->best[(size_t)piece * width + end] = sum;
            s->from[(size_t)piece * width + end] = first;
        }
    }
}

static int choose_number(const pieces_search *s)
{
    double n = (double)s->count, least = INFINITY;
    int chosen = 0;
    for (int pieces = 1; pieces <= MOE_FIT_PIECES_MOST && 2 * (size_t)pieces <= s->count;
         pieces++) {
        double square = s->best[(size_t)(pieces - 1) * (s->count + 1) + s->count] / n;
        double criterion = n * log(square + 1e-4) + (3 * pieces - 1) * log(n);
        if (criterion < least) {
            least = criterion;
            chosen = pieces;
        }
    }
    return chosen;
}

int moe_fit_pieces(const double *x, const double *t, size_t count,
                   moe_fit_piece pieces[static MOE_FIT_PIECES_MOST])
{
    if (count < 2)
        return 0;
    size_t cells = MOE_FIT_PIECES_MOST * (count + 1);
    pieces_search s = {x, t, moe_need(talloc_array(NULL, double, count)), count, NULL, NULL};
    s.best = moe_need(talloc_array(s.weights, double, cells));
    s.from = moe_need(talloc_zero_array(s.weights, size_t, cells));
    for (size_t i = 0; i < count; i++)
        s.weights[i] = 1 / (t[i] * t[i]);
    for (int piece = 0; piece < MOE_FIT_PIECES_MOST; piece++) {
        for (size_t end = 0; end <= count; end++)
            extend(&s, piece, end);
    }
    int chosen = choose_number(&s);
    for (size_t piece = (size_t)chosen, end = count; piece-- > 0;) {
        size_t first = s.from[piece * (count + 1) + end];
        stretch(&s, first, end, &pieces[piece]);
        end = first;
    }
    talloc_free(s.weights);
    return chosen;
}

double moe_fit_pieces_at(const moe_fit_piece *pieces, int count, double x)
{
    int at = 0;
    while (at + 1 < count && x >= pieces[at + 1].first_x)
        at++;
    return pieces[at].start + pieces[at].slope * x;
}

bool moe_fit_line(const double *x, const double *t, size_t count, double *start, double *slope)
{
    if (count == 0)
        return false;
    double *weights = moe_need(talloc_array(NULL, double, 2 * count)), *errors = weights + count;
    moe_fit_piece line = {0};
    for (size_t i = 0; i < count; i++)
        weights[i] = 1 / (t[i] * t[i]);
    for (int round = 0; round < 20; round++) {
        fit_stretch(x, t, weights, count, &line);
        for (size_t i = 0; i < count; i++)
            errors[i] = (line.start + line.slope * x[i]) / t[i] - 1;
        double deviation = fmax(moe_fit_deviation(errors, count), 1e-6);
        for (size_t i = 0; i < count; i++) {
            double size = fabs(errors[i]) / deviation;
            double weight = size <= huber ? 1 : huber / size;
            weights[i] = weight * (size > far ? pow(far / size, 2) : 1) / (t[i] * t[i]);
        }
    }
    *start = line.start;
    *slope = line.slope;
    talloc_free(weights);
    return true;
}
