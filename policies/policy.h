/* Placement policies: one file exporting one const struct, listed in one table (policy.c).
 *
 * The run loop calls, for every iteration: `before_iteration` (history in, placement and moves out), then for
 * every micro-batch and layer `after_gate` (exact counts in; calibration) and `dispatch` (how a source's
 * assignments split over the copies). The prediction never sees the iteration it predicts. All calls are
 * deterministic functions of state and arguments: a worker replays `before_iteration` from the start
 * of the run to its own chunk. */
#ifndef MOE_POLICIES_POLICY_H
#define MOE_POLICIES_POLICY_H

#include "configs/config.h"
#include "policies/problem.h"

/* What `before_iteration` decides. `placement` comes in as the last iteration left it. */
typedef struct moe_decision {
    moe_placement *placement;
    const moe_transfer *moves; /* in `arena` */
    size_t move_count;
    double planning_s; /* host time on the critical path before the step */
    moe_arena *arena;
} moe_decision;

/* The placement stays as it is, at no cost. */
static inline void moe_decision_clear(moe_decision *decision)
{
    decision->moves = NULL;
    decision->move_count = 0;
    decision->planning_s = 0;
}

/* One dispatch, as the gate produced it. */
typedef struct moe_gate {
    int64_t iteration;
    int micro_batch;
    int layer;
    const uint32_t *counts; /* [sources = devices][experts] assignments */
} moe_gate;

/* Assignments of one source and expert that go to one device. */
typedef struct moe_route_part {
    int source;
    int expert;
    int device;
    double count;
} moe_route_part;

/* All of a dispatch, in the order they were added; grows in the arena. */
typedef struct moe_route_parts {
    moe_arena *arena;
    moe_route_part *items;
    size_t count;
    size_t capacity;
} moe_route_parts;

/* Where `dispatch` adds (the caller zeroes it). assignments must sum to the gate's counts. */
typedef struct moe_route {
    int devices;
    int experts;
    double *pairs; /* [devices][devices] */
    double *rows;  /* [devices][experts] */
    moe_route_parts *parts; /* NULL: not kept (policies/once.h needs them) */
} moe_route;

void moe_route_keep(moe_route_parts *parts, moe_route_part part);

static inline void moe_route_add(moe_route *route, int source, int expert, int device, double count)
{
    route->pairs[(size_t) source * (size_t) route->devices + (size_t) device] += count;
    route->rows[(size_t) device * (size_t) route->experts + (size_t) expert] += count;
    if (route->parts != NULL)
        moe_route_keep(route->parts, (moe_route_part) {source, expert, device, count});
}

typedef struct moe_policy {
    const char *name;
    const char *sentence; /* what it does */
    const char *source;   /* paper or code it follows */
    const char *notes;    /* for `explain`: mechanism, ambiguities and how they were decided */
    const moe_table *tunables; /* keys beside `name` and `policy` in a scenario's `policies:` */
    /* State owned by `owner`; sets *schedule and the initial placement. `tunables` is bound and borrowed;
     * `config` locates errors (may be NULL). NULL after printed errors. */
    void *(*create)(void *owner, const moe_problem *problem, const void *tunables,
                    moe_schedule *schedule, moe_placement *initial, const moe_config *config,
                    moe_diag *diag);
    void (*before_iteration)(void *state, const moe_problem *problem, int64_t iteration,
                             const moe_history *history, moe_decision *decision);
    /* May add copies of the layer: sets bits in extra[experts][words] (zeroed) and *planning_s. NULL: never. */
    void (*after_gate)(void *state, const moe_problem *problem, const moe_gate *gate,
                       const moe_placement *placement, moe_arena *arena, uint64_t *extra,
                       double *planning_s);
    /* `copies`: [experts][words] usable copies of the layer, calibration included. */
    void (*dispatch)(void *state, const moe_problem *problem, const moe_gate *gate,
                     const moe_placement *placement, const uint64_t *copies, moe_route *route);
    /* One line on what `create` computed rather than was told ("t = 2 ..."), owned by `owner`; NULL or
     * absent where there is nothing to say. */
    char *(*describe)(void *owner, const void *state, const moe_problem *problem);
} moe_policy;

extern const moe_policy moe_policy_ep;
extern const moe_policy moe_policy_fssdp;
extern const moe_policy moe_policy_fastermoe;
extern const moe_policy moe_policy_smartmoe;
extern const moe_policy moe_policy_eplb;
extern const moe_policy *const moe_policies[]; /* NULL-terminated */

const moe_policy *moe_policy_find(const char *name);
/* For configs' moe_variant: the tunables of the policy named `value`. */
const moe_table *moe_policy_select(const char *value, const char *const **known, size_t *known_count);

/* For policies that give every device as many experts: false after a printed error. `tunables` and `config` as
 * `create` has them; either may be NULL. */
bool moe_policy_divides_experts(const moe_problem *problem, const void *tunables,
                                const moe_config *config, moe_diag *diag);

/* Device sets within [from, end): the smallest member not below `from` (`end`: none), and how many. */
int moe_set_next(const uint64_t *set, int from, int end);
int moe_set_count_between(const uint64_t *set, int from, int end);

/* Shared ways to dispatch (dispatch.c). */

/* Every assignment to the owner in the source's group. */
void moe_dispatch_to_owner(const moe_problem *problem, const moe_gate *gate,
                           const moe_placement *placement, moe_route *route);
/* Hecate 4.4: stay local if the source holds a copy; else the copies of its host, else all copies (of
 * its group); among the eligible split evenly, remainders rotating with source and expert. */
void moe_dispatch_by_topology(const moe_problem *problem, const moe_gate *gate, const uint64_t *copies,
                              moe_route *route);

/* Every source's assignments of an expert, split evenly over all copies of its group. */
void moe_dispatch_evenly(const moe_problem *problem, const moe_gate *gate, const uint64_t *copies,
                         moe_route *route);

/* Chunks of one layer from copies beyond the owners, one per (group, expert): in `arena`; the count is
 * returned. `copies` [experts][words]; `except` (same shape, may be NULL): copies already there. */
int moe_layer_chunks(moe_arena *arena, const moe_layout *layout, const moe_placement *placement, int layer,
                     const uint64_t *copies, const uint64_t *except, const moe_chunk **chunks);

#endif
