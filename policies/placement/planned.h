/* A plan as given: owners and copies are the plan's in every iteration, and nothing is decided anew.
 *
 * Not in the table of policies, because no scenario names it: a policy whose entry has a `plan` keeps its
 * schedule (what hides under what, re-materialization, ...) and hands its decisions over to this one.
 * Copies are gathered and their gradients reduced in every step as FSSDP's are. */
#ifndef MOE_POLICIES_PLACEMENT_PLANNED_H
#define MOE_POLICIES_PLACEMENT_PLANNED_H

#include "models/plan.h"
#include "policies/policy.h"

/* Has no `create`: see below. */
extern const moe_policy moe_policy_planned;

/* Its state; `plan` is borrowed. */
void *moe_planned_create(void *owner, const moe_plan *plan);

#endif
