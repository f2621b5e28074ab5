/* Private to models/profile*.c: curves through measured points. */
#ifndef MOE_MODELS_PROFILE_CURVE_H
#define MOE_MODELS_PROFILE_CURVE_H

#include "models/profile.h"

/* y at x, linear in (log x, log y) between the points around it, constant beyond the ends. A single
 * point is a constant that has no outside; no point at all is 1, outside. */
double moe_curve_value(const moe_points *points, double x, bool *outside);

static inline bool moe_gemm_grid_exists(const moe_gemm_grid *grid)
{
    return grid->utilisation.count > 0;
}

/* The shape within the grid that is nearest to `gemm`: the same, or on the grid's edge. */
moe_gemm moe_gemm_grid_nearest(const moe_gemm_grid *grid, const moe_gemm *gemm);

/* Utilisation of a shape within the grid: exp of what is linear in log m, log n and log k between
 * the logs of the eight points around it. */
double moe_gemm_grid_utilisation(const moe_gemm_grid *grid, const moe_gemm *within);

#endif
