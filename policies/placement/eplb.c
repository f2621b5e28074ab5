/* DeepSeek's EPLB in serving: replicas of hot experts in extra slots, placed anew every so many iterations. */
#include "policies/placement/eplb_balance.h"
#include "policies/policy.h"

#include "configs/base/memory.h"
#include "models/cluster_ranks.h"
#include <string.h>
#include <talloc.h>

typedef struct eplb_tunables {
    int64_t redundant_experts;
    int64_t groups;
    bool hierarchical;
    int64_t window;
    int64_t interval;
    double planning_s;
} eplb_tunables;

typedef struct eplb_state {
    const eplb_tunables *tunables;
    moe_eplb_shape shape; /* of one EP group */
    int layers;
    int groups;     /* EP groups */
    int *expert_of; /* [layers][groups][slots] */
    bool placed;    /* by loads */
    int *first;     /* [experts + 2] scratch: slots of each expert */
    int *slot_of;   /* [slots] scratch */
} eplb_state;

static const moe_field eplb_fields[] = {
    {.key = "redundant_experts",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "0",
     .offset = offsetof(eplb_tunables, redundant_experts),
     .high = 65536,
     .sentence = "Slots of a layer and EP group beyond one per expert; with the experts they must "
                 "divide evenly "
                 "among the devices."},
    {.key = "groups",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "0",
     .offset = offsetof(eplb_tunables, groups),
     .high = 65536,
     .sentence = "Expert groups that are kept together on a host where they divide evenly among "
                 "the hosts; 0: the "
                 "model's gate_groups."},
    {.key = "hierarchical",
     .type = MOE_FIELD_BOOL,
     .default_text = "true",
     .offset = offsetof(eplb_tunables, hierarchical),
     .sentence =
         "Whether groups are packed onto hosts first; false: one pool of slots over all devices."},
    {.key = "window",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "64",
     .offset = offsetof(eplb_tunables, window),
     .low = 1,
     .high = MOE_HISTORY_DEPTH,
     .sentence = "Iterations whose loads are averaged, the last ones."},
    {.key = "interval",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "0",
     .offset = offsetof(eplb_tunables, interval),
     .high = 1e12,
     .sentence = "Iterations from one placement to the next (vLLM 3000, SGLang 1000); 0: once."},
    {.key = "planning",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "20.5 ms",
     .offset = offsetof(eplb_tunables, planning_s),
     .high = 3600,
     .sentence =
         "Host time of a placement per layer, on the critical path; the default is the published "
         "program's (1.19 s for 58 layers of 256 experts on 32 devices)."},
    {.key = NULL},
};

static const moe_table eplb_table = {
    .noun = "policy eplb",
    .sentence = "Redundant experts, packed by load.",
    .size = sizeof(eplb_tunables),
    .fields = eplb_fields,
};

static int *slots_of(const eplb_state *state, int layer, int group)
{
    return state->expert_of +
           ((size_t)layer * (size_t)state->groups + (size_t)group) * (size_t)state->shape.slots;
}

/* --- creating --------------------------------------------------------------------------------- */

/* Hosts of the first EP group; the others are like it. */
static int hosts_of_group(const moe_problem *problem)
{
    int hosts = 0;
    int last = -1;
    for (int rank = 0; rank < problem->layout.ep; rank++) {
        int host = moe_cluster_host(problem->cluster, rank);
        hosts += host != last;
        last = host;
    }
    return hosts;
}

static moe_eplb_shape shape_of(const moe_problem *problem, const eplb_tunables *own)
{
    int64_t groups = own->groups > 0 ? own->groups : problem->network->gate_groups;
    return (moe_eplb_shape){
        .experts = (int)problem->network->experts,
        .slots = (int)(problem->network->experts + own->redundant_experts),
        .groups = own->hierarchical && groups > 0 ? (int)groups : 1,
        .nodes = own->hierarchical ? hosts_of_group(problem) : 1,
        .devices = problem->layout.ep,
    };
}

static bool check(const moe_problem *problem, const eplb_tunables *own, const moe_config *config,
                  moe_diag *diag)
{
    moe_where where =
        config != NULL ? moe_config_where(config, &own->redundant_experts) : (moe_where){0};
    moe_eplb_shape shape = shape_of(problem, own);
    const char *wrong = moe_eplb_refuses(&shape);
    if (!moe_step_serves(&problem->options)) {
        moe_diag_error(diag, where,
                       "eplb in a training step, whose replicas would have to reduce gradients; "
                       "expected step: prefill or decode");
        return false;
    }
    if (wrong != NULL)
        moe_diag_error(diag, where,
                       "%s: %d experts in %d groups, %d slots, %d devices on %d hosts; expected "
                       "experts + redundant_experts to be a multiple of the devices",
                       wrong, shape.experts, shape.groups, shape.slots, shape.devices, shape.nodes);
    return wrong == NULL;
}

/* Before any load is known: experts in order, then the first ones again. */
static void fill_in_order(eplb_state *state)
{
    for (int layer = 0; layer < state->layers; layer++) {
        for (int group = 0; group < state->groups; group++) {
            int *slots = slots_of(state, layer, group);
            for (int slot = 0; slot < state->shape.slots; slot++)
                slots[slot] = slot % state->shape.experts;
        }
    }
}

/* An owner is the device of the first slot. */
static void write_layer(const eplb_state *state, int layer, int group, moe_placement *placement)
{
    const int *slots = slots_of(state, layer, group);
    int per_device = state->shape.slots / state->shape.devices;
    int *owner = moe_placement_owner(placement, layer, group, 0);
    for (int e = 0; e < state->shape.experts; e++)
        owner[e] = -1;
    for (int slot = 0; slot < state->shape.slots; slot++) {
        int device = group * state->shape.devices + slot / per_device;
        moe_set_add(moe_placement_copies(placement, layer, slots[slot]), device);
        if (owner[slots[slot]] < 0)
            owner[slots[slot]] = device;
    }
}

static void write_placement(const eplb_state *state, moe_placement *placement)
{
    size_t words =
        (size_t)placement->layers * (size_t)placement->experts * (size_t)placement->words;
    memset(placement->copies, 0, words * sizeof *placement->copies);
    for (int layer = 0; layer < state->layers; layer++) {
        for (int group = 0; group < state->groups; group++)
            write_layer(state, layer, group, placement);
    }
}

static void *eplb_create(void *owner, const moe_problem *problem, const void *tunables,
                         moe_schedule *schedule, moe_placement *initial, const moe_config *config,
                         moe_diag *diag)
{
    if (!check(problem, tunables, config, diag))
        return NULL;
    eplb_state *state = moe_need(talloc_zero(owner, eplb_state));
    state->tunables = tunables;
    state->shape = shape_of(problem, tunables);
    state->layers = initial->layers;
    state->groups = initial->groups;
    size_t slots = (size_t)state->layers * (size_t)state->groups * (size_t)state->shape.slots;
    state->expert_of = moe_need(talloc_zero_array(state, int, slots));
    state->first = moe_need(talloc_zero_array(state, int, (size_t)state->shape.experts + 2));
    state->slot_of = moe_need(talloc_zero_array(state, int, (size_t)state->shape.slots));
    *schedule = (moe_schedule){.gathers_loads = true, .persistent_copies = true};
    fill_in_order(state);
    write_placement(state, initial);
    return state;
}

/* --- placing anew ----------------------------------------------------------------------------- */

static bool is_due(const eplb_state *state, int64_t iteration, const moe_history *history)
{
    if (moe_history_length(history) == 0)
        return false;
    int64_t interval = state->tunables->interval;
    return !state->placed || (interval > 0 && iteration % interval == 0);
}

static void balance_layer(const eplb_state *state, int layer, int group, const moe_history *history,
                          moe_arena *arena)
{
    int experts = state->shape.experts;
    double *mean = moe_arena_array(arena, double, (size_t)experts);
    float *weight = moe_arena_array(arena, float, (size_t)experts);
    moe_history_mean(history, (int)state->tunables->window, layer, group, mean);
    for (int e = 0; e < experts; e++)
        weight[e] = (float)mean[e];
    moe_eplb_balance(arena, &state->shape, weight, slots_of(state, layer, group), NULL, NULL);
}

typedef struct move_list {
    moe_transfer *items;
    size_t count;
} move_list;

/* From the device that owned the expert to each that has it now and had it not. */
static void list_moves(const moe_problem *problem, const moe_placement *before,
                       const moe_placement *after, int layer, int expert, move_list *moves)
{
    const uint64_t *had = moe_placement_copies(before, layer, expert);
    const uint64_t *has = moe_placement_copies(after, layer, expert);
    for (int d = moe_set_next(has, 0, after->devices); d < after->devices;
         d = moe_set_next(has, d + 1, after->devices)) {
        int group = moe_layout_group(&problem->layout, d);
        if (!moe_set_has(had, d))
            moves->items[moves->count++] =
                (moe_transfer){.source = *moe_placement_owner(before, layer, group, expert),
                               .target = d,
                               .bytes = moe_network_expert_bytes(problem->network)};
    }
}

static move_list all_moves(const eplb_state *state, const moe_problem *problem,
                           const moe_placement *before, const moe_placement *after,
                           moe_arena *arena)
{
    size_t most = (size_t)state->layers * (size_t)state->groups * (size_t)state->shape.slots;
    move_list moves = {.items = moe_arena_array(arena, moe_transfer, most)};
    for (int layer = 0; layer < state->layers; layer++) {
        for (int e = 0; e < state->shape.experts; e++)
            list_moves(problem, before, after, layer, e, &moves);
    }
    return moves;
}

/* Loaded with the parameters where the first placement comes before the first iteration. */
static void eplb_before_iteration(void *own, const moe_problem *problem, int64_t iteration,
                                  const moe_history *history, moe_decision *decision)
{
    eplb_state *state = own;
    moe_decision_clear(decision);
    if (!is_due(state, iteration, history))
        return;
    state->placed = true;
    for (int layer = 0; layer < state->layers; layer++) {
        for (int group = 0; group < state->groups; group++)
            balance_layer(state, layer, group, history, decision->arena);
    }
    moe_placement *before =
        moe_placement_create(NULL, &problem->layout, state->layers, state->shape.experts);
    moe_placement_copy(before, decision->placement);
    write_placement(state, decision->placement);
    if (iteration > 0) {
        move_list moves = all_moves(state, problem, before, decision->placement, decision->arena);
        decision->moves = moves.items;
        decision->move_count = moves.count;
        decision->planning_s = state->tunables->planning_s * state->layers;
    }
    talloc_free(before);
}

/* --- dispatching ------------------------------------------------------------------------------ */

/* Slots of expert e: slot_of[first[e] .. first[e + 1]), ascending. */
static void index_slots(eplb_state *state, const int *expert_of)
{
    int experts = state->shape.experts;
    memset(state->first, 0, ((size_t)experts + 2) * sizeof *state->first);
    for (int slot = 0; slot < state->shape.slots; slot++)
        state->first[expert_of[slot] + 2]++;
    for (int e = 0; e < experts; e++)
        state->first[e + 2] += state->first[e + 1];
    for (int slot = 0; slot < state->shape.slots; slot++)
        state->slot_of[state->first[expert_of[slot] + 1]++] = slot;
}

/* Equal whole shares of the replicas; the remainder starts at a replica that turns with the source. */
static void split(const eplb_state *state, int group, int source, int expert, uint32_t count,
                  moe_route *route)
{
    int from = state->first[expert];
    uint32_t replicas = (uint32_t)(state->first[expert + 1] - from);
    uint32_t share = count / replicas;
    uint32_t rest = count % replicas;
    uint32_t start = (uint32_t)source % replicas;
    int per_device = state->shape.slots / state->shape.devices;
    for (uint32_t i = 0; i < replicas; i++) {
        uint32_t given = share + ((i + replicas - start) % replicas < rest ? 1 : 0);
        int device = group * state->shape.devices + state->slot_of[from + (int)i] / per_device;
        if (given > 0)
            moe_route_add(route, source, expert, device, given);
    }
}

static void eplb_dispatch(void *own, const moe_problem *problem, const moe_gate *gate,
                          const moe_placement *placement, const uint64_t *copies, moe_route *route)
{
    eplb_state *state = own;
    (void)placement;
    (void)copies;
    for (int group = 0; group < state->groups; group++) {
        index_slots(state, slots_of(state, gate->layer, group));
        for (int place = 0; place < problem->layout.ep; place++) {
            int source = group * problem->layout.ep + place;
            const uint32_t *counts = gate->counts + (size_t)source * (size_t)route->experts;
            for (int e = 0; e < route->experts; e++) {
                if (counts[e] > 0)
                    split(state, group, source, e, counts[e], route);
            }
        }
    }
}

static char *eplb_describe(void *owner, const void *own, const moe_problem *problem)
{
    const eplb_state *state = own;
    (void)problem;
    bool packed = state->shape.groups % state->shape.nodes == 0 && state->shape.nodes > 1;
    return moe_need(
        talloc_asprintf(owner, "%d slots for %d experts on %d devices, %s", state->shape.slots,
                        state->shape.experts, state->shape.devices,
                        packed ? "groups packed onto hosts" : "one pool over all devices"));
}

const moe_policy moe_policy_eplb = {
    .name = "eplb",
    .sentence = "DeepSeek's Expert Parallelism Load Balancer: replicas of hot experts in extra "
                "slots, all slots "
                "packed onto devices by load.",
    .source =
        "deepseek-ai/EPLB @d52c72d (MIT), eplb.py; DeepSeek-V3 (arXiv 2412.19437), section 3.4",
    .notes = "For steps that serve. Until loads are known (at the start, if the trace's window "
             "begins later, else after "
             "the first iteration) slots hold the experts in order and then the first ones again. "
             "Then, once or every "
             "`interval` iterations, every layer is placed afresh from the mean loads of `window` "
             "iterations: "
             "hierarchically where the expert groups divide evenly among the hosts of an EP group, "
             "else globally. Decisions "
             "are made in 32-bit floats, as the published program makes them.\n"
             "Charged: the program's host time (planning), and the parameters of every expert that "
             "a device did not "
             "hold before, from its former owner; a placement made before the first iteration is "
             "loaded with the "
             "parameters. A source's assignments of an expert split evenly over its replicas, two "
             "on one device "
             "counting twice; a device keeps one copy of such an expert.\n",
    .tunables = &eplb_table,
    .create = eplb_create,
    .before_iteration = eplb_before_iteration,
    .dispatch = eplb_dispatch,
    .describe = eplb_describe,
};
