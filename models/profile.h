/* A profile: what operations cost on one kind of device and fabric, as curves with their origin.
 *
 *   dense GEMM m x n x k      with a grid of measured ones:  t = sol / u(m, n, k)
 *                             sol = max( 2 m n k / peak, (m k + k n + m n) value_bytes / memory bandwidth )
 *                             u: utilisation, linear in (log m, log n, log k, log u); beyond the grid u is
 *                             continued by the ratio of the roofline below (counted as outside)
 *   GEMM-like work, no grid   t = start + norm_p( FLOP / (e_flop * peak), bytes / (e_mem * memory bandwidth) )
 *   attention scores          the same form with a curve of its own (absent: the dense curve)
 *   experts of one device     t = start + start_per_expert * active
 *                                 + norm_p( sum_e FLOP(ceil(rows_e / tile) * tile) / (e_flop(rows_e) * peak),
 *                                           sum_{e: rows_e > 0} (weight bytes + rows_e * row bytes)
 *                                           / (e_mem * memory bandwidth) )
 *                             a function of the vector of rows, not of its sum; forward, input
 *                             gradient and weight gradient each with their own FLOPs, bytes and curve,
 *                             and forward in a step that serves with another (whichever has no curve of
 *                             its own takes the forward one)
 *   memory-bound work         t = start + bytes / (e_mem(bytes) * memory bandwidth)
 *                             permute, norms, optimizer
 *   collective alone          t = alpha + max over ports of load / (rate * efficiency(size))
 *        alpha = base(kind) + hops * latency: `base` grows with log2(ranks); see moe_cost_alpha_s
 *        efficiency(kind, level, bytes per rank) in (0, 1]: a curve, linear in (log bytes, log
 *        efficiency), constant beyond its ends; a single point is a constant for all sizes. Within a
 *        host, curves for other numbers of ranks may stand beside it (`groups`): the one whose number
 *        is nearest in ratio is taken
 *
 *   e_flop(rows), e_mem(bytes): a constant, or a curve, log-log as above
 *   norm_p(a, b) = (a^p + b^p)^(1/p), p = 2.7: fits grouped and dense GEMM better than max (p = inf)
 *   or sum (p = 1): own fit on AIConfigurator's public GEMM tables (H100, p = 2.7: mean error 7.8 %).
 *
 * Interference (labelled defaults until measured): collectives that run beside computation take
 * `sm_share` of the SMs (20 of 132: DeepSeek-V3's trace, H800) and are `slowdown` times slower
 * (1.3 to 1.8 in the same trace, DeepEP alone against inside the step). How two collectives share a
 * port is `port_sharing`.
 *
 * Every curve has an origin (measured, imported, derived, assumed), a valid range, the samples it was
 * made from with their predictions, a residual, a leave-one-out error, and counts how often it was
 * evaluated, and how often outside its range (legal; reported). */
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

/* What the experts do; each may have a curve of its own. Serving runs forward too, but by other kernels (fused
 * with permutation and activation), which training does not have. */
typedef enum moe_phase {
    MOE_FORWARD,
    MOE_INPUT_GRADIENT,
    MOE_WEIGHT_GRADIENT,
    MOE_SERVING,
    MOE_PHASES
} moe_phase;
extern const char *const moe_phase_names[]; /* "forward", ...; NULL-terminated */
/* Their curves: "experts", "experts_input_gradient", ..., "experts_serving"; [MOE_PHASES]. */
extern const char *const moe_expert_curve_names[];

/* The curves whose use is counted. */
typedef enum moe_curve_id {
    MOE_CURVE_DENSE, /* the grid too */
    MOE_CURVE_ATTENTION,
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

/* What a curve was made from. `samples` has one row a point, the last two columns measured and
 * predicted seconds; the columns before them: see each curve. */
typedef struct moe_evidence {
    double residual;      /* mean |predicted / measured - 1| of the samples; 0 where there are none */
    double leave_one_out; /* the same, each predicted by a curve made without it; 0: not known */
    double worst;         /* largest |predicted / measured - 1| */
    const char *machine;  /* what it was measured on; NULL: see the profile's source */
    moe_rows samples;
} moe_evidence;

typedef struct moe_compute_curve {
    double start_s;           /* of one kernel group */
    double start_per_expert_s; /* of each expert with rows; experts only */
    double flop_efficiency;   /* of the device's peak; 0 in a gradient or attention curve: not there */
    double memory_efficiency; /* of its memory bandwidth */
    moe_points efficiency;    /* experts: rows of an expert -> e_flop; memory: bytes -> e_mem; replaces
                               * the constant where it has points */
    double norm;              /* p */
    int64_t tile_rows;        /* rows of an expert are rounded up to this; experts only */
    double low_rows, high_rows; /* valid range, rows per kernel; 0: no limit. Points of `efficiency` have
                                 * their own: the first to the last */
    int origin;               /* moe_origin */
    moe_evidence evidence;    /* experts: hidden, ffn, matrices, active experts, rows, largest rows;
                               * memory: bytes; attention: FLOP, bytes; dense: m, n, k */
} moe_compute_curve;

/* Measured GEMMs on a full grid. */
typedef struct moe_gemm_grid {
    moe_reals m, n, k;       /* ascending; none: there is no grid */
    moe_reals utilisation;   /* [m][n][k], in (0, 1.5]: above 1 where caches beat memory bandwidth */
    double value_bytes;      /* of one matrix element */
    int origin;              /* moe_origin */
    moe_evidence evidence;   /* m, n, k */
} moe_gemm_grid;

/* Efficiency of intra-host ports for a collective of `ranks` ranks. */
typedef struct moe_collective_group {
    int64_t ranks;
    moe_points intra;
} moe_collective_group;

typedef struct moe_collective_curve {
    double start_s;         /* base of alpha */
    double start_per_rank_s; /* added per log2(ranks) */
    double start_per_chunk_s; /* added per chunk of a grouped collective (spAG, spRS) */
    int64_t ranks;    /* that `intra` was made with; 0: not said */
    moe_points intra; /* bytes per rank -> efficiency of the intra-host port; sorted by bytes */
    moe_list groups;  /* of moe_collective_group: the same for other numbers of ranks */
    moe_points inter; /* bytes per rank -> efficiency of NIC and leaf ports */
    int origin;       /* moe_origin of `start`, `intra` and `groups` */
    int inter_origin; /* moe_origin of `inter`: few have both from one measurement */
    int algorithm;    /* moe_reduce_algorithm; of the all-reduce alone */
    moe_evidence evidence; /* ranks, hosts, bytes */
} moe_collective_curve;

/* Copies between memories; nothing in a training step uses them. */
typedef struct moe_copy_curve {
    double start_s;
    double bytes_per_s; /* 0: not known */
    int origin;
    moe_evidence evidence; /* bytes */
} moe_copy_curve;

typedef enum moe_copy_kind {
    MOE_COPY_HOST_TO_DEVICE,
    MOE_COPY_DEVICE_TO_HOST,
    MOE_COPY_STORAGE_READ,
    MOE_COPY_STORAGE_WRITE,
    MOE_COPY_KINDS
} moe_copy_kind;
extern const char *const moe_copy_names[]; /* "host_to_device", ...; NULL-terminated */

/* How collectives that load a port at the same time divide its rate. */
typedef enum moe_sharing_rule {
    MOE_SHARE_PER_COLLECTIVE, /* equal parts (default) */
    MOE_SHARE_PER_FLOW,       /* in proportion to the transfers each has on the port */
    MOE_SHARE_WEIGHTED,       /* in proportion to the weights of their kinds */
} moe_sharing_rule;
extern const char *const moe_sharing_names[]; /* "per_collective", ...; NULL-terminated */

typedef struct moe_profile {
    const char *name;
    const char *source;
    const char *licence; /* of what it was derived from; NULL: ours */
    const char *device; /* what it was made for; compared with the cluster's device, warning on mismatch */
    moe_gemm_grid gemm;      /* optional */
    moe_compute_curve dense;
    moe_compute_curve attention; /* scores; optional */
    moe_compute_curve experts[MOE_PHASES]; /* by moe_phase; all but the forward one are optional */
    moe_compute_curve memory;
    double launch_s; /* host time of one kernel launch */
    double graph_launch_s; /* host time of one launch of a captured graph; 0: as one kernel */
    double host_sync_s; /* host waits for a device-to-host copy of counts */
    double sm_share; /* of all SMs, taken by a collective beside computation */
    double slowdown; /* >= 1, of that collective */
    int port_sharing; /* moe_sharing_rule: per_collective or per_flow */
    int interference_origin;
    int launch_origin;
    moe_collective_curve collectives[MOE_COLLECTIVE_KINDS];
    moe_copy_curve copies[MOE_COPY_KINDS]; /* optional */
} moe_profile;

/* YAML; times, bytes and rates carry their unit ("3.5e-06 s", "1048576 B", "4.5e+11 B/s"); within
 * `samples` all are plain numbers in base units:
 *
 *   name, source, licence, device
 *   gemm         m, n, k, utilisation (lists), value_bytes, origin, EVIDENCE
 *   dense        start, flop_efficiency, memory_efficiency, norm, low_rows, high_rows, origin, EVIDENCE
 *   attention    as dense
 *   experts      start, start_per_expert, flop_efficiency, efficiency [[rows, fraction], ...],
 *                memory_efficiency, norm, tile_rows, low_rows, high_rows, origin, EVIDENCE
 *   experts_input_gradient, experts_weight_gradient, experts_serving    as experts
 *   memory       start, memory_efficiency, efficiency [[bytes, fraction], ...], origin, EVIDENCE
 *   launch       kernel, graph, sync, origin
 *   interference sm_share, slowdown, port_sharing, origin
 *   collectives  by kind: start, start_per_rank, start_per_chunk, ranks, intra [[bytes, fraction], ...],
 *                groups [{ranks, intra}], inter, algorithm, origin, inter_origin, EVIDENCE
 *   copies       by kind: start, rate, origin, EVIDENCE
 *   EVIDENCE     residual, leave_one_out, worst, machine, samples [[..., measured_s, predicted_s], ...]
 *
 * "Data sheet x efficiency" is this table with one efficiency point per collective, origin: assumed. */
extern const moe_table moe_profile_table;

moe_status moe_profile_check(const moe_profile *profile, const moe_cluster *cluster,
                             const moe_config *config, moe_diag *diag);

/* A profile bound to a device, with its counters: what cost functions take. */
typedef struct moe_costs {
    const moe_profile *profile;
    const moe_cluster *cluster;
    moe_curve_usage *usage; /* borrowed; never NULL */
} moe_costs;

/* C[m][n] = A[m][k] B[k][n], `count` times. */
typedef struct moe_gemm {
    double m, n, k;
    double count;
} moe_gemm;

/* All return seconds. `rows` (tokens) only serves the range check. */
double moe_cost_dense_s(const moe_costs *costs, double flop, double bytes, double rows);
/* `count` equal GEMMs, one after another. With a grid from it, else as moe_cost_dense_s of their FLOPs and bytes. */
double moe_cost_gemm_s(const moe_costs *costs, const moe_gemm *gemm);
bool moe_cost_has_grid(const moe_costs *costs);
/* Attention scores (softmax(QK)V); `rows` as above. */
double moe_cost_attention_s(const moe_costs *costs, double flop, double bytes, double rows);
double moe_cost_memory_s(const moe_costs *costs, double bytes);

/* Host time of `kernels` launches, of one launch of a graph, and of waiting for counts. */
double moe_cost_launch_s(const moe_costs *costs, int kernels);
double moe_cost_graph_launch_s(const moe_costs *costs);
double moe_cost_host_sync_s(const moe_costs *costs);
/* By how much a collective beside computation is slower, >= 1. */
double moe_cost_slowdown(const moe_costs *costs);

/* What of an expert the cost law needs. */
typedef struct moe_expert_shape {
    moe_phase phase;        /* whose curve */
    int64_t matrices;       /* kernels: 2, gated 3 */
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
/* Efficiency of a port of `port_kind` for a collective of so many bytes per rank. `ranks`: of a collective
 * that stays within hosts, which takes the curve made with the nearest number of ranks; 0, for one that
 * leaves them, which takes `intra` (how many ranks share a host's ports in it no curve says). */
double moe_cost_efficiency(const moe_costs *costs, moe_collective_kind kind, moe_port_kind port_kind,
                           double bytes_per_rank, int ranks);

/* Whether a port belongs to the fabric within a host (or NVLink domain), as against between hosts. */
bool moe_port_is_intra(moe_port_kind kind);

/* Whether the experts have a curve for this phase alone. */
static inline bool moe_profile_has_phase(const moe_profile *profile, moe_phase phase)
{
    const moe_compute_curve *curve = &profile->experts[phase];
    return curve->flop_efficiency > 0 || curve->efficiency.count > 0;
}

/* The curve of a phase: its own, or, where it has none, the forward one. */
static inline const moe_compute_curve *moe_profile_experts(const moe_profile *profile, moe_phase phase)
{
    return &profile->experts[moe_profile_has_phase(profile, phase) ? phase : MOE_FORWARD];
}

static inline bool moe_profile_has_attention(const moe_profile *profile)
{
    return profile->attention.flop_efficiency > 0;
}

static inline bool moe_profile_has(const moe_profile *profile, moe_collective_kind kind)
{
    const moe_collective_curve *curve = &profile->collectives[kind];
    return curve->intra.count + curve->inter.count > 0;
}

/* {"experts": {"origin": "assumed", "residual": 0, "leave_one_out": 0, "evaluated": n, "outside_range": n}, ...},
 * for every curve (low latency and attention only where the profile has them); "machine" where it is
 * known; collectives also have "inter_origin". Of the dense work: the grid's, where there is one. Of the
 * experts: the forward curve's; the other phases stand in "phases": {"input_gradient": {"origin", "residual",
 * "leave_one_out"}, "weight_gradient": "as forward", "serving": ...}. New reference. */
json_t *moe_profile_provenance(const moe_profile *profile, const moe_curve_usage *usage);

#endif
