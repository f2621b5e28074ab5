#include "models/profile.h"

#include <math.h>

static void tally(const moe_costs *costs, int curve, bool outside)
{
    costs->usage->evaluated[curve]++;
    if (outside)
        costs->usage->outside[curve]++;
}

static bool rows_outside(const moe_compute_curve *curve, double rows)
{
    return rows < curve->low_rows || (curve->high_rows > 0 && rows > curve->high_rows);
}

/* (a^p + b^p)^(1/p) for a, b >= 0, scaled by the longer one so that no power overflows. */
static double norm(double a, double b, double p)
{
    double longer = fmax(a, b);
    double shorter = fmin(a, b);
    if (shorter <= 0)
        return longer;
    return longer * pow(1 + pow(shorter / longer, p), 1 / p);
}

/* ---- computation ----------------------------------------------------------------------------- */

static double gemm_s(const moe_costs *costs, const moe_compute_curve *curve, double flop,
                     double bytes)
{
    const moe_device_spec *device = &costs->cluster->spec->device;
    double arithmetic_s = flop / (curve->flop_efficiency * device->peak_flop_per_s);
    double memory_s = bytes / (curve->memory_efficiency * device->memory_bytes_per_s);
    return curve->start_s + norm(arithmetic_s, memory_s, curve->norm);
}

double moe_cost_dense_s(const moe_costs *costs, double flop, double bytes, double rows)
{
    const moe_compute_curve *curve = &costs->profile->dense;
    tally(costs, MOE_CURVE_DENSE, rows_outside(curve, rows));
    return gemm_s(costs, curve, flop, bytes);
}

double moe_cost_memory_s(const moe_costs *costs, double bytes)
{
    const moe_compute_curve *curve = &costs->profile->memory;
    double rate = curve->memory_efficiency * costs->cluster->spec->device.memory_bytes_per_s;
    tally(costs, MOE_CURVE_MEMORY, false);
    return curve->start_s + bytes / rate;
}

double moe_cost_experts_s(const moe_costs *costs, const moe_expert_shape *shape, const double *rows,
                          int count)
{
    const moe_compute_curve *curve = &costs->profile->experts;
    double tile = (double)curve->tile_rows;
    double total = 0;
    double computed = 0;
    double bytes = 0;
    for (int i = 0; i < count; i++) {
        if (rows[i] <= 0)
            continue;
        total += rows[i];
        computed += ceil(rows[i] / tile) * tile;
        bytes += shape->weight_bytes + rows[i] * shape->row_bytes;
    }
    if (total <= 0)
        return 0;
    tally(costs, MOE_CURVE_EXPERTS, rows_outside(curve, total));
    return gemm_s(costs, curve, computed * shape->flop_per_row, bytes);
}

/* ---- the host, and computation beside collectives ---------------------------------------------
 */

double moe_cost_launch_s(const moe_costs *costs, int kernels)
{
    tally(costs, MOE_CURVE_LAUNCH, false);
    return kernels * costs->profile->launch_s;
}

double moe_cost_host_sync_s(const moe_costs *costs)
{
    tally(costs, MOE_CURVE_LAUNCH, false);
    return costs->profile->host_sync_s;
}

double moe_cost_slowdown(const moe_costs *costs)
{
    tally(costs, MOE_CURVE_INTERFERENCE, false);
    return costs->profile->slowdown;
}

/* ---- collectives ----------------------------------------------------------------------------- */

double moe_cost_alpha_s(const moe_costs *costs, moe_collective_kind kind, int ranks, int chunks,
                        double latency_s)
{
    const moe_collective_curve *curve = &costs->profile->collectives[kind];
    double doublings = ranks > 1 ? log2(ranks) : 0;
    return curve->start_s + curve->start_per_rank_s * doublings +
           curve->start_per_chunk_s * chunks + latency_s;
}

/* Linear in log(x), constant beyond the ends. A single point is a constant that has no outside; no
 * point at all (moe_profile_check refuses it where it matters) counts as full rate, outside. */
static double interpolate(const moe_points *points, double x, bool *outside)
{
    size_t last = points->count - 1;
    *outside = points->count == 0;
    if (points->count < 2)
        return points->count ? points->y[0] : 1;
    *outside = !(x >= points->x[0] && x <= points->x[last]);
    if (!(x > points->x[0]))
        return points->y[0];
    if (x >= points->x[last])
        return points->y[last];
    size_t right = 1;
    while (points->x[right] < x)
        right++;
    size_t left = right - 1;
    double share = log(x / points->x[left]) / log(points->x[right] / points->x[left]);
    return points->y[left] + share * (points->y[right] - points->y[left]);
}

static bool is_intra(moe_port_kind kind)
{
    switch (kind) {
    case MOE_PORT_INTRA_OUT:
    case MOE_PORT_INTRA_IN:
    case MOE_PORT_BRIDGE:
    case MOE_PORT_LINK:
    case MOE_PORT_SWITCH_UP:
    case MOE_PORT_SWITCH_DOWN:
        return true;
    default:
        return false;
    }
}

moe_collective_kind moe_cost_low_latency_kind(const moe_costs *costs)
{
    return moe_profile_has(costs->profile, MOE_ALL_TO_ALL_LOW_LATENCY) ? MOE_ALL_TO_ALL_LOW_LATENCY
                                                                        : MOE_ALL_TO_ALL;
}

double moe_cost_efficiency(const moe_costs *costs, moe_collective_kind kind,
                           moe_port_kind port_kind, double bytes_per_rank)
{
    const moe_collective_curve *curve = &costs->profile->collectives[kind];
    bool outside;
    double efficiency =
        interpolate(is_intra(port_kind) ? &curve->intra : &curve->inter, bytes_per_rank, &outside);
    tally(costs, MOE_CURVE_COLLECTIVE + (int)kind, outside);
    return efficiency;
}
