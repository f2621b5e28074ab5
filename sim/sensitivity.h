/* How much an answer depends on the rule by which collectives share ports (a matter of
 * channels and queue pairs, not known beforehand): a few steps of every policy, evenly spaced over the
 * run, executed again under the other rules. What a policy decides does not depend on the rule. */
#ifndef MOE_SIM_SENSITIVITY_H
#define MOE_SIM_SENSITIVITY_H

#include "sim/run.h"

enum { MOE_SENSITIVITY_STEPS = 4 };

typedef struct moe_sensitivity {
    int steps; /* of each policy, executed again */
    int rule_count;
    moe_sharing_rule rules[2]; /* the others; weighted only where that is the scenario's own */
    int policy_count;
    double *difference; /* [policy][rule]: of the mean time of those steps, relative to the run's */
} moe_sensitivity;

/* `run` is what moe_run_scenario gave for the same arguments. Owned by `owner`. NULL with *status MOE_OK where
 * the engine shares nothing (analytic); NULL with another status after a printed error. */
moe_sensitivity *moe_sharing_sensitivity(void *owner, const moe_binding *binding,
                                         const moe_run *run, const int *chosen, int count,
                                         const moe_run_options *options, moe_status *status,
                                         moe_diag *diag);

/* The largest difference by magnitude, with its sign. */
double moe_sensitivity_most(const moe_sensitivity *sensitivity);

#endif
