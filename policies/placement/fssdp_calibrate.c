/* Calibration: after the gate, on the true loads, what is missing is copied if that pays. */
#include "policies/placement/fssdp.h"

#include <math.h>
#include <string.h>

static const double *true_loads(const moe_problem *problem, const moe_gate *gate, int group,
                                moe_arena *arena)
{
    int experts = moe_fssdp_experts(problem);
    int first = group * problem->layout.ep;
    double *loads = moe_arena_array(arena, double, (size_t)experts);
    for (int source = first; source < first + problem->layout.ep; source++) {
        const uint32_t *counts = gate->counts + (size_t)source * (size_t)experts;
        for (int e = 0; e < experts; e++)
            loads[e] += counts[e];
    }
    return loads;
}

/* Predicted seconds of the layer if `copies` were there. */
static double layer_s(moe_fssdp *state, const moe_problem *problem, const moe_gate *gate,
                      const moe_placement *placement, const uint64_t *copies, moe_arena *arena)
{
    size_t devices = (size_t)placement->devices;
    size_t pairs = devices * devices;
    size_t rows = devices * (size_t)placement->experts;
    moe_route route = {
        .devices = placement->devices,
        .experts = placement->experts,
        .pairs = moe_arena_array(arena, double, pairs),
        .rows = moe_arena_array(arena, double, rows),
    };
    moe_fssdp_dispatch_layer(state, problem, gate, placement, copies, &route);
    moe_routed_layer routed = {.pairs = route.pairs, .rows = route.rows};
    return moe_problem_layer_s(problem, arena, &routed);
}

static double chunks_s(const moe_fssdp *state, const moe_problem *problem,
                       const moe_placement *placement, int layer, const uint64_t *copies,
                       const uint64_t *except, moe_arena *arena)
{
    const moe_chunk *chunks;
    int count =
        moe_layer_chunks(arena, &problem->layout, placement, layer, copies, except, &chunks);
    return moe_problem_chunks_s(problem, arena, &state->schedule, chunks, count);
}

static double materialized_s(moe_fssdp *state, const moe_problem *problem, const moe_gate *gate,
                             const moe_placement *placement, moe_arena *arena)
{
    int l = gate->layer;
    if (state->chunks_iteration[l] != gate->iteration) {
        state->chunks_s[l] = chunks_s(state, problem, placement, l,
                                      moe_placement_copies(placement, l, 0), NULL, arena);
        state->chunks_iteration[l] = gate->iteration;
    }
    return state->chunks_s[l];
}

/* What `extra_s` more of spAG makes the backward pass wait: attention backward, twice the forward,
 * hides the spRS (a spAG reversed) and, under re-materialization, another spAG. */
static double exposed_backward_s(const moe_fssdp *state, const moe_problem *problem,
                                 double already_s, double extra_s)
{
    double times = (state->schedule.rematerialize ? 2 : 1) * moe_fssdp_slowdown(problem);
    double hidden_s = 2 * state->attention_s;
    double before_s = fmax(0, times * already_s - hidden_s);
    return fmax(0, times * (already_s + extra_s) - hidden_s) - before_s;
}

/* Whether the layer ends earlier with `wanted` than with what the placement has. */
static bool worthwhile(moe_fssdp *state, const moe_problem *problem, const moe_gate *gate,
                       const moe_placement *placement, const uint64_t *wanted, moe_arena *arena)
{
    const uint64_t *there = moe_placement_copies(placement, gate->layer, 0);
    double without_s = layer_s(state, problem, gate, placement, there, arena);
    double extra_s = chunks_s(state, problem, placement, gate->layer, wanted, there, arena);
    if (extra_s >= without_s) /* spares the dearer half of the comparison */
        return false;
    double already_s = materialized_s(state, problem, gate, placement, arena);
    double with_s = layer_s(state, problem, gate, placement, wanted, arena);
    return with_s + extra_s + exposed_backward_s(state, problem, already_s, extra_s) < without_s;
}

/* Algorithm 1 on the true loads, in every group: the copies there should be. */
static uint64_t *wanted_copies(const moe_fssdp *state, const moe_problem *problem,
                               const moe_gate *gate, const moe_placement *placement, size_t size,
                               moe_arena *arena)
{
    uint64_t *wanted = moe_arena_array(arena, uint64_t, size);
    memcpy(wanted, moe_placement_copies(placement, gate->layer, 0), size * sizeof *wanted);
    for (int g = 0; g < placement->groups; g++) {
        moe_fssdp_layer request = moe_fssdp_group(state, problem, placement, gate->layer, g, arena);
        request.loads = true_loads(problem, gate, g, arena);
        if (state->tunables->calibrate_degree > 0)
            request.overlap = (int)state->tunables->calibrate_degree;
        moe_fssdp_materialize(arena, &request, wanted);
    }
    return wanted;
}

void moe_fssdp_calibrate(void *state, const moe_problem *problem, const moe_gate *gate,
                         const moe_placement *placement, moe_arena *arena, uint64_t *extra,
                         double *planning_s)
{
    moe_fssdp *own = state;
    if (!own->tunables->calibrate)
        return;
    *planning_s += own->tunables->calibrate_planning_s;
    size_t size = (size_t)placement->experts * (size_t)placement->words;
    const uint64_t *there = moe_placement_copies(placement, gate->layer, 0);
    uint64_t *wanted = wanted_copies(own, problem, gate, placement, size, arena);
    if (memcmp(wanted, there, size * sizeof *wanted) == 0)
        return;
    if (!worthwhile(own, problem, gate, placement, wanted, arena))
        return;
    for (size_t i = 0; i < size; i++)
        extra[i] = wanted[i] & ~there[i];
}
