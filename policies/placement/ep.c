/* Plain expert parallelism: experts in equal contiguous blocks, every token goes to its expert's
 * owner. */
#include "policies/placement/ep.h"

#include <talloc.h>

typedef struct ep_tunables {
    bool gather_loads;
    int64_t redundant_experts;
} ep_tunables;

typedef struct ep_state {
    int redundant; /* copies of a layer in a group */
    bool placed;
} ep_state;

static const moe_field ep_fields[] = {
    {.key = "gather_loads",
     .type = MOE_FIELD_BOOL,
     .default_text = "true",
     .offset = offsetof(ep_tunables, gather_loads),
     .sentence = "Whether an all-gather of the expert loads precedes every dispatch, as dropless "
                 "systems need it to size their buffers; false models a fixed capacity."},
    {.key = "redundant_experts",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "0",
     .offset = offsetof(ep_tunables, redundant_experts),
     .high = 65536,
     .sentence = "Serving: at most so many copies beyond one per expert, of every layer and EP group, that stay on "
                 "their devices; placed once, by the loads seen before."},
    {.key = NULL},
};

static const moe_table ep_table = {
    .noun = "policy ep",
    .sentence = "Plain expert parallelism.",
    .size = sizeof(ep_tunables),
    .fields = ep_fields,
};

/* Copies in training would have to reduce gradients: that is FSSDP's business. */
static bool check_redundant(const moe_problem *problem, const ep_tunables *own,
                            const moe_config *config, moe_diag *diag)
{
    const int64_t *redundant = &own->redundant_experts;
    moe_where where = config != NULL ? moe_config_where(config, redundant) : (moe_where){0};
    int64_t most = problem->network->experts * (problem->layout.ep - 1);
    if (*redundant > 0 && !moe_step_serves(&problem->options)) {
        moe_diag_error(diag, where,
                       "redundant_experts is %lld in a training step; expected 0: copies that stay "
                       "are for prefill and decode (fssdp copies experts in training)",
                       (long long)*redundant);
        return false;
    }
    if (*redundant > most) {
        moe_diag_error(diag, where,
                       "redundant_experts is %lld, expected at most %lld: a copy of each of the "
                       "%lld experts on every other device of an EP group",
                       (long long)*redundant, (long long)most, (long long)problem->network->experts);
        return false;
    }
    return true;
}

static void *ep_create(void *owner, const moe_problem *problem, const void *tunables,
                       moe_schedule *schedule, moe_placement *initial, const moe_config *config,
                       moe_diag *diag)
{
    const ep_tunables *own = tunables;
    if (!moe_policy_divides_experts(problem, own, config, diag))
        return NULL;
    if (own != NULL && !check_redundant(problem, own, config, diag))
        return NULL;
    ep_state *state = talloc_zero(owner, ep_state);
    state->redundant = own != NULL ? (int)own->redundant_experts : 0;
    *schedule = (moe_schedule){.gathers_loads = own == NULL || own->gather_loads,
                               .persistent_copies = state->redundant > 0};
    moe_placement_even(initial, &problem->layout);
    return state;
}

static void ep_before_iteration(void *state, const moe_problem *problem, int64_t iteration,
                                const moe_history *history, moe_decision *decision)
{
    ep_state *own = state;
    moe_decision_clear(decision);
    if (own->placed || own->redundant == 0 || moe_history_length(history) == 0)
        return;
    own->placed = true;
    const moe_ep_copies copies = {problem, history, decision->placement, decision->arena,
                                  own->redundant};
    moe_transfer *moves = moe_ep_place_copies(&copies, &decision->move_count);
    if (iteration > 0)
        decision->moves = moves;
    else
        decision->move_count = 0; /* loaded with the parameters */
}

static void ep_dispatch(void *state, const moe_problem *problem, const moe_gate *gate,
                        const moe_placement *placement, const uint64_t *copies, moe_route *route)
{
    const ep_state *own = state;
    if (own->redundant > 0) {
        moe_dispatch_evenly(problem, gate, copies, route);
        return;
    }
    moe_dispatch_to_owner(problem, gate, placement, route);
}

const moe_policy moe_policy_ep = {
    .name = "ep",
    .sentence = "Expert parallelism: every expert lives on one device of its EP group and all its "
                "tokens travel there.",
    .source = "GShard (Lepikhin et al. 2020, arXiv 2006.16668); dropless exchange as in FastMoE "
              "(He et al. 2021, arXiv 2103.13262)",
    .notes =
        "Placement: contiguous blocks of experts / ep experts per device, the same in every layer "
        "and in every EP group; it never changes. parallel.ep may be smaller than the world: "
        "tokens then stay within their group, and the groups' copies of an expert reduce their "
        "gradients among themselves.\n"
        "Charged per layer and micro-batch: the all-gather of loads and the host's wait for it "
        "(gather_loads), dispatch and combine forward, both again backward, and the experts "
        "of the slowest device in three phases. No token is dropped or padded. A step that serves "
        "goes forward alone, and with low latency nothing is gathered or waited for.\n"
        "redundant_experts (serving): once, as soon as there are loads to go by (their mean over "
        "the iterations seen before; at the start if the trace's window begins later, else after "
        "the first iteration, and then their parameters travel), the expert with most load per "
        "copy gets one more, on the device of the group with least load that has none of it and "
        "room (an equal part of the copies, rounded up, of every layer) and does not become the "
        "fullest by it, until all are placed or none helps. "
        "Every source's assignments of an expert split evenly over its copies. They count as "
        "parameters and nothing is materialized. EPLB's own packing is not modelled here.\n",
    .tunables = &ep_table,
    .create = ep_create,
    .before_iteration = ep_before_iteration,
    .after_gate = NULL,
    .dispatch = ep_dispatch,
};
