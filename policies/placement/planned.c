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
    moe_decision_clear(decision);
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
    const moe_plan *plan = ((const planned *)state)->plan;
    const moe_plan_prediction *seen = &plan->prediction;
    (void)problem;
    char *text = moe_need(talloc_asprintf(
        owner,
        "runs %s as given: %.1f copies a device and layer beside the owners, nothing decided anew",
        plan->path != NULL ? plan->path : "its plan",
        (double)moe_plan_copies(plan) / (double)(plan->layout.devices * plan->model.layers)));
    if (seen->engine != NULL)
        text = moe_need(talloc_asprintf_append(
            text, "; made from iterations %lld to %lld, which are no test of it",
            (long long)seen->made_from.first, (long long)seen->made_from.last - 1));
    return text;
}

const moe_policy moe_policy_planned = {
    .name = "planned",
    .sentence = "A plan as given.",
    .before_iteration = planned_before_iteration,
    .dispatch = planned_dispatch,
    .describe = planned_describe,
};
