#include "policies/placement/planned.h"

#include "configs/base/memory.h"
#include <talloc.h>

typedef struct planned {
    const moe_plan *plan;
} planned;

void *moe_planned_create(void *owner, const moe_plan *plan)
{
    planned *state = moe_need(talloc(owner, planned));
    state->plan = plan;
    return state;
}

static void planned_before_iteration(void *state, const moe_problem *problem, int64_t iteration,
                                     const moe_history *history, moe_decision *decision)
{
    const planned *own = state;
    (void)problem;
    (void)iteration;
    (void)history;
    decision->moves = NULL;
    decision->move_count = 0;
    decision->planning_s = 0;
    moe_placement_copy(decision->placement, own->plan->placement);
}

static void planned_dispatch(void *state, const moe_problem *problem, const moe_gate *gate,
                             const moe_placement *placement, const uint64_t *copies,
                             moe_route *route)
{
    (void)state;
    (void)placement;
    moe_dispatch_by_topology(problem, gate, copies, route);
}

static char *planned_describe(void *owner, const void *state, const moe_problem *problem)
{
    const planned *own = state;
    (void)problem;
    return moe_need(
        talloc_asprintf(owner,
                        "runs the plan of %s as given: %.1f copies a device and layer "
                        "beside the owners, nothing decided anew",
                        own->plan->path ? own->plan->path : "this run",
                        (double)moe_plan_copies(own->plan) /
                            (double)(own->plan->layout.devices * own->plan->model.layers)));
}

const moe_policy moe_policy_planned = {
    .name = "planned",
    .sentence = "A plan as given.",
    .before_iteration = planned_before_iteration,
    .dispatch = planned_dispatch,
    .describe = planned_describe,
};
