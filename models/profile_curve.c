#include "models/profile_curve.h"

#include <math.h>

/* Index of the first value above the first that is >= x: x lies between it and its predecessor. */
static size_t right_of(const double *x, size_t count, double at)
{
    size_t low = 1, high = count - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (x[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

double moe_curve_value(const moe_points *points, double x, bool *outside)
{
    const size_t last = points->count - 1;
    *outside = points->count == 0;
    if (points->count < 2)
        return points->count ? points->y[0] : 1;
    *outside = !(x >= points->x[0] && x <= points->x[last]);
    if (!(x > points->x[0]))
        return points->y[0];
    if (x >= points->x[last])
        return points->y[last];
    const size_t right = right_of(points->x, points->count, x), left = right - 1;
    const double share = log(x / points->x[left]) / log(points->x[right] / points->x[left]);
    return points->y[left] * pow(points->y[right] / points->y[left], share);
}

/* --- the grid --------------------------------------------------------------------------------- */

static double clamp(const moe_reals *axis, double x)
{
    return fmin(fmax(x, axis->values[0]), axis->values[axis->count - 1]);
}

moe_gemm moe_gemm_grid_nearest(const moe_gemm_grid *grid, const moe_gemm *gemm)
{
    return (moe_gemm){clamp(&grid->m, gemm->m), clamp(&grid->n, gemm->n), clamp(&grid->k, gemm->k),
                      gemm->count};
}

/* Two neighbours on an axis and the weight of the second; the same one twice on an axis of one. */
typedef struct neighbours {
    size_t index[2];
    double share;
} neighbours;

static neighbours find_neighbours(const moe_reals *axis, double x)
{
    if (axis->count == 1)
        return (neighbours){{0, 0}, 0};
    const size_t right = right_of(axis->values, axis->count, x);
    const double *values = axis->values;
    return (neighbours){{right - 1, right},
                        log(x / values[right - 1]) / log(values[right] / values[right - 1])};
}

double moe_gemm_grid_utilisation(const moe_gemm_grid *grid, const moe_gemm *within)
{
    const neighbours m = find_neighbours(&grid->m, within->m);
    const neighbours n = find_neighbours(&grid->n, within->n);
    const neighbours k = find_neighbours(&grid->k, within->k);
    double sum = 0;
    for (int corner = 0; corner < 8; corner++) {
        const int i = corner & 1, j = corner >> 1 & 1, l = corner >> 2 & 1;
        const double weight =
            (i ? m.share : 1 - m.share) * (j ? n.share : 1 - n.share) * (l ? k.share : 1 - k.share);
        const size_t cell = (m.index[i] * grid->n.count + n.index[j]) * grid->k.count + k.index[l];
        if (weight > 0)
            sum += weight * log(grid->utilisation.values[cell]);
    }
    return exp(sum);
}
