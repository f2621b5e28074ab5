/* Plain expert parallelism: experts in equal contiguous blocks, every token goes to its expert's
 * owner. */
#include "policies/policy.h"

#include <talloc.h>

typedef struct ep_tunables {
    bool gather_loads;
} ep_tunables;

static const moe_field ep_fields[] = {
    {.key = "gather_loads",
     .type = MOE_FIELD_BOOL,
     .default_text = "true",
     .offset = offsetof(ep_tunables, gather_loads),
     .sentence = "Whether an all-gather of the expert loads precedes every dispatch, as dropless "
                 "systems need it to size their buffers; false models a fixed capacity."},
    {.key = NULL},
};

static const moe_table ep_table = {
    .noun = "policy ep",
    .sentence = "Plain expert parallelism.",
    .size = sizeof(ep_tunables),
    .fields = ep_fields,
};

static void *ep_create(void *owner, const moe_problem *problem, const void *tunables,
                       moe_schedule *schedule, moe_placement *initial, const moe_config *config,
                       moe_diag *diag)
{
    const ep_tunables *own = tunables;
    if (problem->network->experts % problem->layout.ep != 0) {
        moe_where where = {0};
        if (config != NULL && own != NULL)
            where = moe_config_where(config, own);
        moe_diag_error(diag, where,
                       "%lld experts do not divide evenly among the %d devices of an EP group; "
                       "expected parallel.ep to divide the experts of a layer",
                       (long long)problem->network->experts, problem->layout.ep);
        return NULL;
    }
    *schedule = (moe_schedule){.gathers_loads = own == NULL || own->gather_loads};
    moe_placement_even(initial, &problem->layout);
    return talloc_zero(owner, char); /* stateless, but NULL would mean failure */
}

static void ep_before_iteration(void *state, const moe_problem *problem, int64_t iteration,
                                const moe_history *history, moe_decision *decision)
{
    (void)state;
    (void)problem;
    (void)iteration;
    (void)history;
    decision->moves = NULL;
    decision->move_count = 0;
    decision->planning_s = 0;
}

static void ep_dispatch(void *state, const moe_problem *problem, const moe_gate *gate,
                        const moe_placement *placement, const uint64_t *copies, moe_route *route)
{
    (void)state;
    (void)copies;
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
        "of the slowest device in three phases. No token is dropped or padded.\n",
    .tunables = &ep_table,
    .create = ep_create,
    .before_iteration = ep_before_iteration,
    .after_gate = NULL,
    .dispatch = ep_dispatch,
};
