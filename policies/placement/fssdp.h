/* Private to FSSDP: its tunables and its two algorithms, apart so that tests reach them.
 *
 * Source: Hecate, "Fully Sharded Sparse Data Parallelism" (arXiv 2502.02581, 2025), sections 3 and
 * 4. What it leaves open is a tunable (fssdp_table.c). */
#ifndef MOE_POLICIES_PLACEMENT_FSSDP_H
#define MOE_POLICIES_PLACEMENT_FSSDP_H

#include "policies/policy.h"
#include "policies/ranking.h"

typedef enum moe_fssdp_bandwidth {
    MOE_FSSDP_LINE_RATE_HOST,
    MOE_FSSDP_LINE_RATE_DEVICE,
    MOE_FSSDP_BY_PROFILE,
} moe_fssdp_bandwidth;
typedef enum moe_fssdp_slots_count {
    MOE_FSSDP_BEYOND_SHARD,
    MOE_FSSDP_WITH_SHARD
} moe_fssdp_slots_count;
typedef enum moe_fssdp_top_set { MOE_FSSDP_TOP_BOTH, MOE_FSSDP_TOP_FIRST } moe_fssdp_top_set;
typedef enum moe_fssdp_replicas { MOE_FSSDP_PROPORTIONAL, MOE_FSSDP_EQUAL } moe_fssdp_replicas;
typedef enum moe_fssdp_initial { MOE_FSSDP_EVEN, MOE_FSSDP_PLANNED } moe_fssdp_initial;
typedef enum moe_fssdp_inner_load {
    MOE_FSSDP_LAYER_LOAD,
    MOE_FSSDP_TOTAL_LOAD
} moe_fssdp_inner_load;
typedef enum moe_fssdp_leftover { MOE_FSSDP_KEEP, MOE_FSSDP_FREEST } moe_fssdp_leftover;
typedef enum moe_fssdp_dispatch { MOE_FSSDP_TOPOLOGY, MOE_FSSDP_OWNER } moe_fssdp_dispatch;

typedef struct moe_fssdp_tunables {
    bool materialize;
    int64_t window;
    int64_t overlap_degree; /* t; 0: computed */
    int overlap_bandwidth;  /* moe_fssdp_bandwidth */
    int64_t slots;          /* m; 0: from memory */
    int slots_count;        /* moe_fssdp_slots_count */
    int top_set;            /* moe_fssdp_top_set */
    int replicas;           /* moe_fssdp_replicas */
    bool calibrate;
    int64_t calibrate_degree; /* 0: t */
    double calibrate_planning_s;
    double planning_s;
    bool planning_exposed;
    bool heterogeneous_sharding;
    int64_t reshard_interval; /* 0: never */
    double reshard_planning_s;
    int reshard_initial; /* moe_fssdp_initial */
    int inner_load;      /* moe_fssdp_inner_load */
    int leftover;        /* moe_fssdp_leftover */
    int dispatch;        /* moe_fssdp_dispatch */
    int hide_under;      /* moe_hide */
    bool rematerialize;
    int accumulate; /* moe_accumulate */
    int gather;     /* moe_gather */
    int algorithm;  /* moe_chunk_algorithm */
    bool gather_loads;
} moe_fssdp_tunables;

extern const moe_table moe_fssdp_table;
extern const char moe_fssdp_notes[]; /* what `explain` says */

/* --- state --------------------------------------------------------------------------------- */

typedef struct moe_fssdp {
    const moe_fssdp_tunables *tunables;
    moe_schedule schedule;
    double attention_s; /* what hides a layer's materialization */
    int overlap;        /* t */
    int slots;          /* m, counted as tunables->slots_count says */
    double peak_bytes;  /* highest memory measured so far, nothing materialized */
    /* Seconds of a layer's materialization, kept from one micro-batch to the next. */
    int64_t *chunks_iteration; /* [layers] the iteration it was computed for; -1: none */
    double *chunks_s;          /* [layers] */
} moe_fssdp;

static inline int moe_fssdp_experts(const moe_problem *problem)
{
    return (int)problem->network->experts;
}

static inline int moe_fssdp_layers(const moe_problem *problem)
{
    return (int)moe_network_moe_layers(problem->network);
}

/* How much longer a collective takes beside computation. */
static inline double moe_fssdp_slowdown(const moe_problem *problem)
{
    return problem->options.interference ? problem->costs->profile->slowdown : 1;
}

/* --- fssdp_limits.c: time and memory ------------------------------------------------------- */

int moe_fssdp_overlap_degree(const moe_problem *problem, const moe_fssdp_tunables *tunables,
                             const moe_schedule *schedule, double attention_s);

/* Rows a device computed of the last iteration, the copies it had then taking equal parts. */
typedef struct moe_fssdp_rows {
    double mean; /* over layers, of the device with most in all: what its activations take */
    double most; /* of any device in any layer: what buffers must hold */
} moe_fssdp_rows;

moe_fssdp_rows moe_fssdp_measured_rows(const moe_problem *problem, const moe_history *history,
                                       const moe_placement *placement, moe_arena *arena);
void moe_fssdp_update_slots(moe_fssdp *state, const moe_problem *problem, moe_fssdp_rows rows);

/* --- fssdp.c, fssdp_calibrate.c: two of the policy's functions ------------------------------- */

void moe_fssdp_dispatch_layer(void *state, const moe_problem *problem, const moe_gate *gate,
                              const moe_placement *placement, const uint64_t *copies,
                              moe_route *route);
void moe_fssdp_calibrate(void *state, const moe_problem *problem, const moe_gate *gate,
                         const moe_placement *placement, moe_arena *arena, uint64_t *extra,
                         double *planning_s);

/* --- Algorithm 1: sparse materialization --------------------------------------------------- */

/* One layer in one EP group. */
typedef struct moe_fssdp_layer {
    const moe_cluster *cluster;
    int first; /* ranks [first, first + devices) are the group */
    int devices;
    int experts;
    int words;
    const double *loads; /* [experts], predicted or true */
    int overlap;         /* t */
    int top_set;
    int replicas;
    int *free_slots; /* [devices]: copies each may still take; counted down */
} moe_fssdp_layer;

/* The request for one group without loads: slots are what its devices have left, given what
 * `placement` says they hold (fssdp_limits.c). In `arena`. */
moe_fssdp_layer moe_fssdp_group(const moe_fssdp *state, const moe_problem *problem,
                                const moe_placement *placement, int layer, int group,
                                moe_arena *arena);

/* Adds copies[experts][words]; `copies` holds the owners, and for a calibration what is there
 * already. */
void moe_fssdp_materialize(moe_arena *arena, const moe_fssdp_layer *layer, uint64_t *copies);

/* Splits `slots` over count experts in proportion to load: whole numbers, at least 1 while there
 * are slots, hottest first, at most `most`. Rounded to nearest by a common divisor (Webster's
 * method): one slot more never takes a replica from anybody. `ranking`: heaviest first. */
void moe_fssdp_assign_slots(const moe_ranked *ranking, int count, int slots, int most,
                            int replicas, int *assigned);

/* --- Algorithm 2: heterogeneous sharding --------------------------------------------------- */

typedef struct moe_fssdp_sharding {
    const moe_cluster *cluster;
    int devices; /* of one group; devices 0 .. devices - 1 stand for every group's */
    int layers;
    int experts;
    int overlap; /* t */
    int inner_load;
    int leftover;
    const double *loads; /* [layers][experts] */
} moe_fssdp_sharding;

/* owner[layers][experts], numbered within the group: today's come in, the plan's go out. layers *
 * experts must divide by devices. True: something changed. */
bool moe_fssdp_shard(moe_arena *arena, const moe_fssdp_sharding *sharding, int *owner);

#endif
