/* Making a plan: a policy decides once, after the first part of the trace window; the rest of the window,
 * which it has not seen, judges. */
#ifndef MOE_REPORTS_PLAN_MAKE_H
#define MOE_REPORTS_PLAN_MAKE_H

#include "sim/run.h"

typedef struct moe_plan_request {
    int policy;            /* index in the scenario */
    double train_fraction; /* of the window's iterations: what the plan is made from; in (0, 1) */
    moe_run_options options;
} moe_plan_request;

/* The placement is what the policy decides on for the first iteration after the part it is made from. Then
 * three contestants run over the rest: the baseline (the scenario's `ep`; without one its first policy), the policy
 * itself, deciding anew in every iteration, and the plan, fixed. Names are the binding's, which has to outlive it. NULL after a printed error with
 * *status set; MOE_INFEASIBLE, printed, where the plan does not fit into memory there. */
moe_plan *moe_plan_make(void *owner, const moe_binding *binding, const moe_plan_request *request,
                        moe_status *status, moe_diag *diag);

#endif
