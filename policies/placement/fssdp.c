/* FSSDP: what is decided when; its two algorithms stand in files of their own. */
#include "policies/placement/fssdp.h"

#include "configs/base/memory.h"

#include <string.h>
#include <talloc.h>

/* --- creation ------------------------------------------------------------------------------- */

static moe_schedule schedule_of(const moe_fssdp_tunables *tunables)
{
    return (moe_schedule){
        .hide_under = (moe_hide)tunables->hide_under,
        .rematerialize = tunables->rematerialize,
        .accumulate = (moe_accumulate)tunables->accumulate,
        .gather = (moe_gather)tunables->gather,
        .algorithm = (moe_chunk_algorithm)tunables->algorithm,
        .gathers_loads = tunables->gather_loads,
    };
}

static bool divides(const moe_problem *problem, const moe_fssdp_tunables *tunables,
                    const moe_config *config, moe_diag *diag)
{
    long long experts = (long long)problem->network->experts;
    long long layers = (long long)moe_network_moe_layers(problem->network);
    bool planned = tunables->heterogeneous_sharding;
    if ((planned ? layers * experts : experts) % problem->layout.ep == 0)
        return true;
    moe_where where = {0};
    if (config != NULL)
        where = moe_config_where(config, &tunables->heterogeneous_sharding);
    if (planned)
        moe_diag_error(diag, where,
                       "%lld layers of %lld experts do not give each of the %d devices of an EP "
                       "group equally many; expected parallel.ep to divide layers * experts",
                       layers, experts, problem->layout.ep);
    else
        moe_diag_error(diag, where,
                       "even sharding of %lld experts over the %d devices of an EP group leaves a "
                       "rest; expected parallel.ep to divide the experts of a layer, or "
                       "heterogeneous_sharding",
                       experts, problem->layout.ep);
    return false;
}

/* Where blocks do not come out even: dealt like cards over all layers, so that totals are equal. */
static void deal(moe_placement *placement, const moe_layout *layout)
{
    for (int l = 0; l < placement->layers; l++) {
        for (int g = 0; g < placement->groups; g++) {
            for (int e = 0; e < placement->experts; e++)
                *moe_placement_owner(placement, l, g, e) =
                    g * layout->ep + (l * placement->experts + e) % layout->ep;
        }
    }
    moe_placement_reset_copies(placement);
}

static void *fssdp_create(void *owner, const moe_problem *problem, const void *tunables,
                          moe_schedule *schedule, moe_placement *initial, const moe_config *config,
                          moe_diag *diag)
{
    const moe_fssdp_tunables *own = tunables;
    if (!divides(problem, own, config, diag))
        return NULL;
    moe_fssdp *state = moe_need(talloc_zero(owner, moe_fssdp));
    unsigned layers = (unsigned)moe_fssdp_layers(problem);
    state->tunables = own;
    state->schedule = schedule_of(own);
    state->attention_s = moe_problem_attention_s(problem);
    state->overlap = moe_fssdp_overlap_degree(problem, own, &state->schedule, state->attention_s);
    state->slots = (int)own->slots;
    double balanced = problem->options.tokens * (double)problem->network->top_k;
    moe_fssdp_update_slots(state, problem, (moe_fssdp_rows){balanced, balanced});
    state->chunks_s = moe_need(talloc_zero_array(state, double, layers));
    state->chunks_iteration = moe_need(talloc_array(state, int64_t, layers));
    for (unsigned l = 0; l < layers; l++)
        state->chunks_iteration[l] = -1;
    if (problem->network->experts % problem->layout.ep == 0)
        moe_placement_even(initial, &problem->layout);
    else
        deal(initial, &problem->layout);
    *schedule = state->schedule;
    return state;
}

/* --- before an iteration: re-sharding --------------------------------------------------------- */

/* [layers][experts], the groups added up: they share one plan, so that an expert's owners keep the
 * same number in every group and its gradients one ring. False: no history. */
static bool planning_loads(const moe_problem *problem, const moe_history *history, int window,
                           moe_arena *arena, double *loads)
{
    int experts = moe_fssdp_experts(problem);
    double *mean = moe_arena_array(arena, double, (size_t)experts);
    for (int l = 0; l < moe_fssdp_layers(problem); l++) {
        for (int g = 0; g < problem->layout.groups; g++) {
            if (!moe_history_mean(history, window, l, g, mean))
                return false;
            for (int e = 0; e < experts; e++)
                loads[(size_t)l * (size_t)experts + (size_t)e] += mean[e];
        }
    }
    return true;
}

static double shard_bytes(const moe_network *network)
{
    return moe_network_expert_bytes(network) +
           moe_network_expert_parameters(network) * network->optimizer_bytes_per_parameter;
}

/* Adopts owner[layers][experts] in every group; moves[] takes what has to travel. Their number. */
static size_t adopt(const moe_problem *problem, moe_placement *placement, const int *owner,
                    moe_transfer *moves)
{
    const moe_layout *layout = &problem->layout;
    double bytes = shard_bytes(problem->network);
    size_t count = 0;
    for (int l = 0; l < placement->layers; l++) {
        for (int g = 0; g < placement->groups; g++) {
            int *now = moe_placement_owner(placement, l, g, 0);
            for (int e = 0; e < placement->experts; e++) {
                int next =
                    g * layout->ep + owner[(size_t)l * (size_t)placement->experts + (size_t)e];
                if (now[e] != next)
                    moves[count++] = (moe_transfer){now[e], next, bytes};
                now[e] = next;
            }
        }
    }
    return count;
}

/* Today's owners as the first group has them. */
static int *owners_of(const moe_placement *placement, moe_arena *arena)
{
    size_t experts = (size_t)placement->experts;
    int *owner = moe_arena_array(arena, int, (size_t)placement->layers *experts);
    for (int l = 0; l < placement->layers; l++)
        memcpy(owner + (size_t)l * experts, moe_placement_owner(placement, l, 0, 0),
               experts * sizeof *owner);
    return owner;
}

static void reshard(const moe_fssdp *state, const moe_problem *problem, const moe_history *history,
                    bool charged, moe_decision *decision)
{
    const moe_fssdp_tunables *tunables = state->tunables;
    moe_placement *placement = decision->placement;
    size_t all = (size_t)placement->layers * (size_t)placement->experts;
    double *loads = moe_arena_array(decision->arena, double, all);
    if (!planning_loads(problem, history, (int)tunables->window, decision->arena, loads))
        return;
    int *owner = owners_of(placement, decision->arena);
    moe_fssdp_sharding sharding = {
        .cluster = problem->cluster,
        .devices = problem->layout.ep,
        .layers = placement->layers,
        .experts = placement->experts,
        .overlap = state->overlap,
        .inner_load = tunables->inner_load,
        .leftover = tunables->leftover,
        .loads = loads,
    };
    if (charged)
        decision->planning_s += tunables->reshard_planning_s;
    if (!moe_fssdp_shard(decision->arena, &sharding, owner))
        return;
    moe_transfer *moves =
        moe_arena_array(decision->arena, moe_transfer, all * (size_t)placement->groups);
    size_t count = adopt(problem, placement, owner, moves);
    if (charged) {
        decision->moves = moves;
        decision->move_count = count;
    }
}

static void reshard_if_due(const moe_fssdp *state, const moe_problem *problem, int64_t iteration,
                           const moe_history *history, moe_decision *decision)
{
    const moe_fssdp_tunables *tunables = state->tunables;
    if (!tunables->heterogeneous_sharding)
        return;
    if (iteration == 0) {
        if (tunables->reshard_initial == MOE_FSSDP_PLANNED)
            reshard(state, problem, history, false, decision);
    } else if (tunables->reshard_interval > 0 && iteration % tunables->reshard_interval == 0) {
        reshard(state, problem, history, true, decision);
    }
}

/* --- before an iteration: materialization -------------------------------------------------- */

/* Without history nothing ranks the experts: only if all of them are to be copied does it matter
 * not. */
static bool predict(const moe_fssdp *state, const moe_history *history, int layer, int group,
                    int experts, double *mean)
{
    if (moe_history_mean(history, (int)state->tunables->window, layer, group, mean))
        return true;
    return state->overlap >= experts;
}

static void materialize_predicted(const moe_fssdp *state, const moe_problem *problem,
                                  const moe_history *history, moe_decision *decision)
{
    moe_placement *placement = decision->placement;
    double *mean = moe_arena_array(decision->arena, double, (size_t)placement->experts);
    for (int l = 0; l < placement->layers; l++) {
        for (int g = 0; g < placement->groups; g++) {
            if (!predict(state, history, l, g, placement->experts, mean))
                continue;
            moe_fssdp_layer request =
                moe_fssdp_group(state, problem, placement, l, g, decision->arena);
            request.loads = mean;
            moe_fssdp_materialize(decision->arena, &request, moe_placement_copies(placement, l, 0));
        }
    }
}

static void fssdp_before_iteration(void *state, const moe_problem *problem, int64_t iteration,
                                   const moe_history *history, moe_decision *decision)
{
    moe_fssdp *own = state;
    moe_decision_clear(decision);
    /* Before anything changes: the placement still is that of the iteration to be measured. The run's first has
     * none before it; what a history from before the run cost in memory is not known. */
    if (iteration > 0 && moe_history_length(history) > 0)
        moe_fssdp_update_slots(
            own, problem,
            moe_fssdp_measured_rows(problem, history, decision->placement, decision->arena));
    reshard_if_due(own, problem, iteration, history, decision);
    moe_placement_reset_copies(decision->placement);
    if (!own->tunables->materialize)
        return;
    if (own->tunables->planning_exposed)
        decision->planning_s += own->tunables->planning_s * decision->placement->layers;
    materialize_predicted(own, problem, history, decision);
}

/* --- dispatch ------------------------------------------------------------------------------- */

void moe_fssdp_dispatch_layer(void *state, const moe_problem *problem, const moe_gate *gate,
                              const moe_placement *placement, const uint64_t *copies,
                              moe_route *route)
{
    const moe_fssdp *own = state;
    if (own->tunables->dispatch == MOE_FSSDP_OWNER)
        moe_dispatch_to_owner(problem, gate, placement, route);
    else
        moe_dispatch_by_topology(problem, gate, copies, route);
}

/* --- in words --------------------------------------------------------------------------------- */

static char *fssdp_describe(void *owner, const void *state, const moe_problem *problem)
{
    const moe_fssdp *own = state;
    int experts = moe_fssdp_experts(problem);
    if (!own->tunables->materialize)
        return talloc_strdup(owner, "materializes nothing before the gate");
    return talloc_asprintf(
        owner,
        "copies the t = %d hottest of %d experts (%s; attention forward %.0f us); "
        "memory for m = %d copies a device and layer",
        own->overlap, experts, own->tunables->overlap_degree > 0 ? "given" : "computed",
        1e6 * own->attention_s, own->slots);
}

const moe_policy moe_policy_fssdp = {
    .name = "fssdp",
    .sentence = "Fully sharded sparse data parallelism: every expert is sharded once, and hot "
                "experts are copied for one iteration to wherever their tokens are.",
    .source = "Hecate (arXiv 2502.02581, 2025), sections 3 and 4, algorithms 1 and 2; its revision "
              "of 2026 is called Themis",
    .notes = moe_fssdp_notes,
    .tunables = &moe_fssdp_table,
    .create = fssdp_create,
    .before_iteration = fssdp_before_iteration,
    .after_gate = moe_fssdp_calibrate,
    .dispatch = moe_fssdp_dispatch_layer,
    .describe = fssdp_describe,
};
