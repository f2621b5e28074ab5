/* A profile: what operations cost on one kind of device and fabric, as curves with their origin.
 *
 *   GEMM-like dense work      t = start + norm_p( FLOP / (e_flop * peak), bytes / (e_mem * memory bandwidth) )
 *   experts of one device     t = start + norm_p( sum_e FLOP(ceil(rows_e / tile) * tile) / (e_flop * peak),
 *                                                 sum_{e: rows_e > 0} (weight bytes + rows_e * row bytes)
 *                                                 / (e_mem * memory bandwidth) )
 *                             a function of the vector of rows, not of its sum; forward, input
 *                             gradient and weight gradient each with their own FLOPs and bytes
 *   memory-bound work         t = start + bytes / (e_mem * memory bandwidth)      permute, norms, optimizer
 *   collective alone          t = alpha + max over ports of load / (rate * efficiency(size))
 *        alpha = base(kind) + hops * latency: `base` grows with log2(ranks); see moe_cost_alpha_s
 *        efficiency(kind, level, bytes per rank) in (0, 1]: a curve, linear in log(bytes),
 *        constant beyond its ends; a single point is a constant for all sizes
 *
 *   norm_p(a, b) = (a^p + b^p)^(1/p), p = 2.7: fits grouped and dense GEMM better than max (p = inf)
 *   or sum (p = 1): own fit on AIConfigurator's public GEMM tables (H100, p = 2.7: mean error 7.8 %).
 *
 * Interference (labelled defaults until measured): collectives that run beside computation take
 * `sm_share` of the SMs (20 of 132: DeepSeek-V3's trace, H800) and are `slowdown` times slower
 * (1.3 to 1.8 in the same trace, DeepEP alone against inside the step).
 *
 * Every curve has an origin (measured, imported, derived, assumed), a valid range, a residual, and
 * counts how often it was evaluated, and how often outside its range (legal; reported). */
#ifndef MOE_MODELS_PROFILE_H
#define MOE_MODELS_PROFILE_H

#include "configs/config.h"
#include "models/cluster.h"

typedef enum moe_origin { MOE_MEASURED, MOE_IMPORTED, MOE_DERIVED, MOE_ASSUMED } moe_origin;
extern const char *const moe_origin_names[]; /* "measured", ...; NULL-terminated */

typedef enum moe_collective_kind {
    MOE_ALL_TO_ALL,
    MOE_ALL_GATHER,
    MOE_REDUCE_SCATTER,
    MOE_ALL_REDUCE,
    MOE_BROADCAST, /* also the grouped broadcasts of a SparseAllGather */
    MOE_REDUCE,    /* also the grouped reduces of a SparseReduceScatter */
    MOE_SEND_RECV,
    MOE_ALL_TO_ALL_LOW_LATENCY, /* dispatch and combine of small batches; optional */
    MOE_COLLECTIVE_KINDS
} moe_collective_kind;
extern const char *const moe_collective_names[]; /* "all_to_all", ...; NULL-terminated */

/* How an all-reduce is done; which bytes that puts on which ports: models/collective.h. */
typedef enum moe_reduce_algorithm {
    MOE_REDUCE_RING,
    MOE_REDUCE_TREE,
    MOE_REDUCE_IN_NETWORK,
} moe_reduce_algorithm;
extern const char *const moe_reduce_algorithm_names[]; /* "ring", ...; NULL-terminated */

typedef enum moe_phase { MOE_FORWARD, MOE_INPUT_GRADIENT, MOE_WEIGHT_GRADIENT } moe_phase;

/* The curves whose use is counted. */
typedef enum moe_curve_id {
    MOE_CURVE_DENSE,
    MOE_CURVE_EXPERTS,
    MOE_CURVE_MEMORY,
    MOE_CURVE_LAUNCH,
    MOE_CURVE_INTERFERENCE,
    MOE_CURVE_COLLECTIVE, /* + moe_collective_kind */
    MOE_CURVE_COUNT = MOE_CURVE_COLLECTIVE + MOE_COLLECTIVE_KINDS
} moe_curve_id;
const char *moe_curve_name(int curve);

/* Plain counters, so that a forked worker can hand them back through shared memory. */
typedef struct moe_curve_usage {
    uint64_t evaluated[MOE_CURVE_COUNT];
    uint64_t outside[MOE_CURVE_COUNT];
} moe_curve_usage;

typedef struct moe_compute_curve {
    double start_s;           /* of one kernel group */
    double flop_efficiency;   /* of the device's peak */
    double memory_efficiency; /* of its memory bandwidth */
    double norm;              /* p */
    int64_t tile_rows;        /* rows of an expert are rounded up to this; experts only */
    double low_rows, high_rows; /* valid range, rows per kernel */
    double residual;          /* mean absolute relative error of the fit; 0 where assumed */
    int origin;               /* moe_origin */
} moe_compute_curve;

typedef struct moe_collective_curve {
    double start_s;         /* base of alpha */
    double start_per_rank_s; /* added per log2(ranks) */
    double start_per_chunk_s; /* added per chunk of a grouped collective (spAG, spRS) */
    moe_points intra; /* bytes per rank -> efficiency of the intra-host port; sorted by bytes */
    moe_points inter; /* bytes per rank -> efficiency of NIC and leaf ports */
    double residual;
    int origin;       /* moe_origin of `start` and `intra` */
    int inter_origin; /* moe_origin of `inter`: few have both from one measurement */
    int algorithm;    /* moe_reduce_algorithm; of the all-reduce alone */
} moe_collective_curve;

typedef struct moe_profile {
    const char *name;
    const char *source;
    const char *device; /* what it was made for; compared with the cluster's device, warning on mismatch */
    moe_compute_curve dense;
    moe_compute_curve experts;
    moe_compute_curve memory;
    double launch_s; /* host time of one kernel launch */
    double host_sync_s; /* host waits for a device-to-host copy of counts */
    double sm_share; /* of all SMs, taken by a collective beside computation */
    double slowdown; /* >= 1, of that collective */
    int interference_origin;
    int launch_origin;
    moe_collective_curve collectives[MOE_COLLECTIVE_KINDS];
} moe_profile;

extern const moe_table moe_profile_table; /* YAML: name, source, device, dense {...}, experts {...},
    memory {...}, launch {kernel, sync, origin}, interference {sm_share, slowdown, origin},
    collectives {all_to_all {...}, all_gather {...}, ...}. "data sheet x efficiency" is this table with
    one efficiency point per collective and origin: assumed. */

moe_status moe_profile_check(const moe_profile *profile, const moe_cluster *cluster,
                             const moe_config *config, moe_diag *diag);

/* A profile bound to a device, with its counters: what cost functions take. */
typedef struct moe_costs {
    const moe_profile *profile;
    const moe_cluster *cluster;
    moe_curve_usage *usage; /* borrowed; never NULL */
} moe_costs;

/* All return seconds. `rows` (tokens) only serves the range check. */
double moe_cost_dense_s(const moe_costs *costs, double flop, double bytes, double rows);
double moe_cost_memory_s(const moe_costs *costs, double bytes);

/* Host time of `kernels` launches, and of waiting for counts. */
double moe_cost_launch_s(const moe_costs *costs, int kernels);
double moe_cost_host_sync_s(const moe_costs *costs);
/* By how much a collective beside computation is slower, >= 1. */
double moe_cost_slowdown(const moe_costs *costs);

/* What of an expert the cost law needs. */
typedef struct moe_expert_shape {
    double flop_per_row;    /* of one phase */
    double weight_bytes;    /* read (forward, input gradient) or written (weight gradient) per active expert */
    double row_bytes;       /* activations in and out per row */
} moe_expert_shape;

/* rows[count]: rows of each resident expert; zero rows cost nothing, all zero is 0 s. */
double moe_cost_experts_s(const moe_costs *costs, const moe_expert_shape *shape, const double *rows,
                          int count);

/* alpha of a collective over `ranks` ranks with `chunks` chunks and `latency_s` of wire on its longest
 * chain of dependent hops. */
double moe_cost_alpha_s(const moe_costs *costs, moe_collective_kind kind, int ranks, int chunks,
                        double latency_s);
/* MOE_ALL_TO_ALL_LOW_LATENCY, or, where the profile has no points for it, MOE_ALL_TO_ALL. */
moe_collective_kind moe_cost_low_latency_kind(const moe_costs *costs);
/* Efficiency of a port of `port_kind` for a collective with so many bytes per rank. */
double moe_cost_efficiency(const moe_costs *costs, moe_collective_kind kind, moe_port_kind port_kind,
                           double bytes_per_rank);

static inline bool moe_profile_has(const moe_profile *profile, moe_collective_kind kind)
{
    const moe_collective_curve *curve = &profile->collectives[kind];
    return curve->intra.count + curve->inter.count > 0;
}

/* {"experts": {"origin": "assumed", "residual": 0, "evaluated": n, "outside_range": n}, ...}, for
 * every curve (low latency only where it has points); collectives also have "inter_origin". New reference. */
json_t *moe_profile_provenance(const moe_profile *profile, const moe_curve_usage *usage);

#endif
