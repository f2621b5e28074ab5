#include "models/profile_curve.h"

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

double moe_cost_attention_s(const moe_costs *costs, double flop, double bytes, double rows)
{
    const moe_compute_curve *curve = &costs->profile->attention;
    if (!moe_profile_has_attention(costs->profile))
        return moe_cost_dense_s(costs, flop, bytes, rows);
    tally(costs, MOE_CURVE_ATTENTION, rows_outside(curve, rows));
    return gemm_s(costs, curve, flop, bytes);
}

bool moe_cost_has_grid(const moe_costs *costs)
{
    return moe_gemm_grid_exists(&costs->profile->gemm);
}

static double gemm_flop(const moe_gemm *gemm)
{
    return 2 * gemm->m * gemm->n * gemm->k;
}

static double gemm_bytes(const moe_gemm *gemm, double value_bytes)
{
    return (gemm->m * gemm->k + gemm->k * gemm->n + gemm->m * gemm->n) * value_bytes;
}

/* The shortest time that the data sheet allows. */
static double gemm_sol_s(const moe_costs *costs, const moe_gemm *gemm)
{
    const moe_device_spec *device = &costs->cluster->spec->device;
    return fmax(gemm_flop(gemm) / device->peak_flop_per_s,
                gemm_bytes(gemm, costs->profile->gemm.value_bytes) / device->memory_bytes_per_s);
}

static double gemm_roofline_s(const moe_costs *costs, const moe_gemm *gemm)
{
    return gemm_s(costs, &costs->profile->dense, gemm_flop(gemm),
                  gemm_bytes(gemm, costs->profile->gemm.value_bytes));
}

double moe_cost_gemm_s(const moe_costs *costs, const moe_gemm *gemm)
{
    const moe_gemm_grid *grid = &costs->profile->gemm;
    if (!moe_gemm_grid_exists(grid)) {
        tally(costs, MOE_CURVE_DENSE, rows_outside(&costs->profile->dense, gemm->m));
        return gemm->count * gemm_roofline_s(costs, gemm);
    }
    const moe_gemm within = moe_gemm_grid_nearest(grid, gemm);
    const bool outside = within.m != gemm->m || within.n != gemm->n || within.k != gemm->k;
    double seconds = gemm_sol_s(costs, &within) / moe_gemm_grid_utilisation(grid, &within);
    if (outside)
        seconds *= gemm_roofline_s(costs, gemm) / gemm_roofline_s(costs, &within);
    tally(costs, MOE_CURVE_DENSE, outside);
    return gemm->count * seconds;
}

double moe_cost_memory_s(const moe_costs *costs, double bytes)
{
    const moe_compute_curve *curve = &costs->profile->memory;
    bool outside = false;
    double efficiency = curve->memory_efficiency;
    if (curve->efficiency.count > 0 && bytes > 0)
        efficiency = moe_curve_value(&curve->efficiency, bytes, &outside);
    tally(costs, MOE_CURVE_MEMORY, outside);
    return curve->start_s + bytes / (efficiency * costs->cluster->spec->device.memory_bytes_per_s);
}

/* What the experts of a device compute and touch. */
typedef struct expert_work {
    double total;   /* rows */
    double rounded; /* rows in whole tiles; with a curve of efficiency, each divided by its own */
    double bytes;
    int active;
    bool outside;
} expert_work;

static expert_work sum_experts(const moe_compute_curve *curve, const moe_expert_shape *shape,
                               const double *rows, int count)
{
    expert_work work = {0};
    const double tile = (double)curve->tile_rows;
    double rounded = 0, of_rows = -1; /* neighbours are often alike: a curve is dear to look up */
    for (int i = 0; i < count; i++) {
        if (rows[i] <= 0)
            continue;
        if (rows[i] != of_rows) {
            of_rows = rows[i];
            rounded = ceil(of_rows / tile) * tile;
            if (curve->efficiency.count > 0) {
                bool outside;
                rounded /= moe_curve_value(&curve->efficiency, of_rows, &outside);
                work.outside |= outside;
            }
        }
        work.total += rows[i];
        work.rounded += rounded;
        work.bytes += shape->weight_bytes + rows[i] * shape->row_bytes;
        work.active++;
    }
    return work;
}

double moe_cost_experts_s(const moe_costs *costs, const moe_expert_shape *shape, const double *rows,
                          int count)
{
    const moe_compute_curve *curve = moe_profile_experts(costs->profile, shape->phase);
    const moe_device_spec *device = &costs->cluster->spec->device;
    const expert_work work = sum_experts(curve, shape, rows, count);
    if (work.total <= 0)
        return 0;
    tally(costs, MOE_CURVE_EXPERTS, work.outside || rows_outside(curve, work.total));
    double efficiency = curve->efficiency.count > 0 ? 1 : curve->flop_efficiency;
    double arithmetic_s =
        work.rounded * shape->flop_per_row / (efficiency * device->peak_flop_per_s);
    double memory_s = work.bytes / (curve->memory_efficiency * device->memory_bytes_per_s);
    return curve->start_s + curve->start_per_expert_s * work.active +
           norm(arithmetic_s, memory_s, curve->norm);
}

/* ---- the host, and computation beside collectives ---------------------------------------------
 */

double moe_cost_launch_s(const moe_costs *costs, int kernels)
{
    tally(costs, MOE_CURVE_LAUNCH, false);
    return kernels * costs->profile->launch_s;
}

double moe_cost_graph_launch_s(const moe_costs *costs)
{
    const moe_profile *profile = costs->profile;
    tally(costs, MOE_CURVE_LAUNCH, false);
    return profile->graph_launch_s > 0 ? profile->graph_launch_s : profile->launch_s;
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

bool moe_port_is_intra(moe_port_kind kind)
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

/* The curve within a host whose number of ranks is nearest in ratio; the first of two as near. */
static const moe_points *intra_points(const moe_collective_curve *curve, int ranks)
{
    const moe_collective_group *groups = curve->groups.items;
    const moe_points *nearest = &curve->intra;
    if (ranks < 1 || curve->groups.count == 0)
        return nearest;
    double distance = fabs(log((double)curve->ranks / ranks));
    for (size_t i = 0; i < curve->groups.count; i++) {
        const double other = fabs(log((double)groups[i].ranks / ranks));
        if (other < distance) {
            distance = other;
            nearest = &groups[i].intra;
        }
    }
    return nearest;
}

double moe_cost_efficiency(const moe_costs *costs, moe_collective_kind kind,
                           moe_port_kind port_kind, double bytes_per_rank, int ranks)
{
    const moe_collective_curve *curve = &costs->profile->collectives[kind];
    bool outside;
    double efficiency =
        moe_curve_value(moe_port_is_intra(port_kind) ? intra_points(curve, ranks) : &curve->inter,
                        bytes_per_rank, &outside);
    tally(costs, MOE_CURVE_COLLECTIVE + (int)kind, outside);
    return efficiency;
}
