/* SmartMoE's online part: experts change places every so many iterations; nothing is replicated. */
#include "policies/placement/smartmoe.h"

#include "policies/policy.h"

#include "configs/base/memory.h"
#include <talloc.h>

typedef enum smartmoe_state_moved {
    SMARTMOE_WITH_OPTIMIZER,
    SMARTMOE_PARAMETERS
} smartmoe_state_moved;
static const char *const moved_names[] = {"with_optimizer", "parameters", NULL};

typedef struct smartmoe_tunables {
    int64_t interval;
    int64_t window;
    int moves; /* smartmoe_state_moved */
    double planning_s;
} smartmoe_tunables;

typedef struct smartmoe_state {
    const smartmoe_tunables *tunables;
} smartmoe_state;

static const moe_field smartmoe_fields[] = {
    {.key = "interval",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "10",
     .offset = offsetof(smartmoe_tunables, interval),
     .low = 1,
     .high = 1e12,
     .sentence = "Iterations from one exchange to the next (the paper's f)."},
    {.key = "window",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "2",
     .offset = offsetof(smartmoe_tunables, window),
     .low = 1,
     .high = MOE_HISTORY_DEPTH,
     .sentence = "Iterations before an exchange whose loads are averaged (the released code: the "
                 "last two)."},
    {.key = "moves",
     .type = MOE_FIELD_CHOICE,
     .default_text = "with_optimizer",
     .choices = moved_names,
     .offset = offsetof(smartmoe_tunables, moves),
     .sentence =
         "What travels of an expert in training: parameters and optimizer state (as Hecate "
         "describes it), or "
         "parameters alone (as the released code does, which leaves the moments of Adam behind)."},
    {.key = "planning",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "1 ms",
     .offset = offsetof(smartmoe_tunables, planning_s),
     .high = 3600,
     .sentence = "Host time of a search over all layers (the paper: below 1 ms)."},
    {.key = NULL},
};

static const moe_table smartmoe_table = {
    .noun = "policy smartmoe",
    .sentence = "Greedy exchange of experts.",
    .size = sizeof(smartmoe_tunables),
    .fields = smartmoe_fields,
};

static void *smartmoe_create(void *owner, const moe_problem *problem, const void *tunables,
                             moe_schedule *schedule, moe_placement *initial,
                             const moe_config *config, moe_diag *diag)
{
    if (!moe_policy_divides_experts(problem, tunables, config, diag))
        return NULL;
    smartmoe_state *state = moe_need(talloc_zero(owner, smartmoe_state));
    state->tunables = tunables;
    *schedule = (moe_schedule){.gathers_loads = true};
    moe_placement_even(initial, &problem->layout);
    return state;
}

static double bytes_of_expert(const smartmoe_state *state, const moe_problem *problem)
{
    const moe_network *network = problem->network;
    double bytes = moe_network_expert_bytes(network);
    if (state->tunables->moves == SMARTMOE_PARAMETERS || moe_step_serves(&problem->options))
        return bytes;
    return bytes + moe_network_expert_parameters(network) * network->optimizer_bytes_per_parameter;
}

typedef struct exchange {
    const smartmoe_state *state;
    const moe_problem *problem;
    const moe_history *history;
    moe_decision *decision;
    moe_transfer *moves;
    double bytes;
} exchange;

static void exchange_layer(exchange *x, int layer, int group)
{
    moe_placement *placement = x->decision->placement;
    moe_arena *arena = x->decision->arena;
    int first = group * x->problem->layout.ep;
    int *owner = moe_placement_owner(placement, layer, group, 0);
    double *loads = moe_arena_array(arena, double, (size_t)placement->experts);
    int *device_of = moe_arena_array(arena, int, (size_t)placement->experts);
    if (!moe_history_mean(x->history, (int)x->state->tunables->window, layer, group, loads))
        return;
    for (int e = 0; e < placement->experts; e++)
        device_of[e] = owner[e] - first;
    if (!moe_smartmoe_map(arena, loads, placement->experts, x->problem->layout.ep, device_of))
        return;
    for (int e = 0; e < placement->experts; e++) {
        int target = first + device_of[e];
        if (target == owner[e])
            continue;
        x->moves[x->decision->move_count++] = (moe_transfer){owner[e], target, x->bytes};
        owner[e] = target;
    }
}

static void smartmoe_before_iteration(void *own, const moe_problem *problem, int64_t iteration,
                                      const moe_history *history, moe_decision *decision)
{
    const smartmoe_state *state = own;
    const moe_placement *placement = decision->placement;
    moe_decision_clear(decision);
    if (iteration % state->tunables->interval != 0 || moe_history_length(history) == 0)
        return;
    size_t most =
        (size_t)placement->layers * (size_t)placement->groups * (size_t)placement->experts;
    exchange x = {state,
                  problem,
                  history,
                  decision,
                  moe_arena_array(decision->arena, moe_transfer, most),
                  bytes_of_expert(state, problem)};
    for (int layer = 0; layer < placement->layers; layer++) {
        for (int group = 0; group < placement->groups; group++)
            exchange_layer(&x, layer, group);
    }
    decision->moves = x.moves;
    decision->planning_s = state->tunables->planning_s;
    moe_placement_reset_copies(decision->placement);
}

static void smartmoe_dispatch(void *own, const moe_problem *problem, const moe_gate *gate,
                              const moe_placement *placement, const uint64_t *copies,
                              moe_route *route)
{
    (void)own;
    (void)copies;
    moe_dispatch_to_owner(problem, gate, placement, route);
}

const moe_policy moe_policy_smartmoe = {
    .name = "smartmoe",
    .sentence = "SmartMoE's online part: every so many iterations experts change places so that "
                "the fullest device "
                "has less to do; nothing is replicated.",
    .source = "SmartMoE (Zhai et al., USENIX ATC 2023), section 5, and its artifact",
    .notes = "Every `interval` iterations, per layer and EP group: experts by falling mean load of "
             "the last `window` "
             "iterations, each to the least loaded device with a free slot, staying where it is "
             "among equals; taken only "
             "if the fullest device has less than before. An expert hotter than a device's mean "
             "load is a floor that "
             "no exchange removes.\n"
             "Charged: the search (planning) and the exchange, point to point, before the step, "
             "nothing hidden; "
             "`moves` says whether the optimizer state travels too. The first exchange can come in "
             "the first iteration, "
             "if the trace's window begins later. The offline part (which mix of parallelisms) is "
             "not modelled; the "
             "paper gets most of its gain there.\n",
    .tunables = &smartmoe_table,
    .create = smartmoe_create,
    .before_iteration = smartmoe_before_iteration,
    .dispatch = smartmoe_dispatch,
};
