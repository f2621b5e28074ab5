/* Robust statistics and fits that are not about any one curve. Private to calibrate/fit.
 *
 * Spread is the median absolute deviation times 1.4826: the standard deviation of normal errors that
 * outliers do not reach (Rousseeuw and Croux, JASA 88 (1993)). */
#ifndef MOE_CALIBRATE_FIT_ROBUST_H
#define MOE_CALIBRATE_FIT_ROBUST_H

#include <stdbool.h>
#include <stddef.h>

/* Of count >= 1 values, which are sorted. */
double moe_fit_median(double *values, size_t count);
/* (third - first quartile) / median of values sorted by moe_fit_median. */
double moe_fit_quartile_spread(const double *sorted, size_t count);
/* What a tenth of the values is below: as small as a start may be expected, one point that was too quick aside.
 * `values` stay as they are. */
double moe_fit_low_decile(const double *values, size_t count);
/* 1.4826 * median |value|; `values` stay as they are. */
double moe_fit_deviation(const double *values, size_t count);

/* --- least squares ---------------------------------------------------------------------------------
 *
 * Minimises the sum of w_i r_i(p)^2, where r_i = log(predicted / measured) and p are the parameters,
 * each mirrored back between its bounds. Levenberg-Marquardt (GSL), Huber weights (k = 1.345
 * deviations), beyond 4 deviations a further (4 deviations / |r|)^2, repeated until they settle. */

enum { MOE_FIT_PARAMETERS_MOST = 16 };

typedef struct moe_least_squares {
    size_t points;
    int parameters;
    double low[MOE_FIT_PARAMETERS_MOST], high[MOE_FIT_PARAMETERS_MOST];
    /* Log of predicted over measured, of one point. */
    double (*residual)(const void *context, const double *parameters, size_t point);
    const void *context;
    size_t left_out;      /* first point that is not used; points: none */
    size_t left_out_step; /* and every one so many further on; 0: only that one */
} moe_least_squares;

/* From `start` in parameters[] to the minimum; returns the mean |r|, by which different laws can be compared (weights
 * differ from fit to fit), INFINITY where it failed (parameters are those of the start). */
double moe_fit_least_squares(const moe_least_squares *problem, double *parameters);

/* Points left out in turn: every one where there are at most this many, else every 64th together. */
enum { MOE_FIT_FOLDS_ALL = 256, MOE_FIT_FOLDS = 64 };
size_t moe_fit_folds(size_t points);
static inline bool moe_fit_is_left_out(const moe_least_squares *problem, size_t point)
{
    if (problem->left_out >= problem->points || point < problem->left_out)
        return false;
    return problem->left_out_step == 0 ? point == problem->left_out
                                       : (point - problem->left_out) % problem->left_out_step == 0;
}

/* --- outliers of a table ----------------------------------------------------------------------------
 *
 * x ascending, y > 0. A point is judged by what its neighbours say of it, in logarithms: between them, on from
 * the two before it, back from the two behind it (slopes kept to 0 ... 1.2); the nearest of the three counts, so that
 * a step (a protocol switch) is none, and neither is a bend from a plateau into a slope. One further off than
 * 4 deviations of all points and than 20 % is drawn to that, to (limit / distance)^3 of its distance; at an end,
 * where neighbours stand on one side only, the limit is twice as far. */
void moe_fit_tame(const double *x, double *y, size_t count);

/* --- straight pieces --------------------------------------------------------------------------------
 *
 * t(x) = start + slope x on each of several stretches, whose number and breaks minimise
 * BIC = n log(mean squared relative error + 0.01^2) + (3 pieces - 1) log n, each by weighted least squares (GSL)
 * on at least two points. */
enum { MOE_FIT_PIECES_MOST = 4 };

typedef struct moe_fit_piece {
    double first_x; /* of its points */
    double start, slope;
} moe_fit_piece;

/* x ascending. Returns the number of pieces; 0 for fewer than two points. */
int moe_fit_pieces(const double *x, const double *t, size_t count,
                   moe_fit_piece pieces[static MOE_FIT_PIECES_MOST]);
double moe_fit_pieces_at(const moe_fit_piece *pieces, int count, double x);

/* Robust t = start + slope x, both >= 0, in relative error. False for no points. */
bool moe_fit_line(const double *x, const double *t, size_t count, double *start, double *slope);

#endif
