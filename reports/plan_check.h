/* Whether a plan can be run: judged by code that made none (law 9). */
#ifndef MOE_REPORTS_PLAN_CHECK_H
#define MOE_REPORTS_PLAN_CHECK_H

#include "sim/run.h"

/* What a plan asks of the scenario's fullest device. */
typedef struct moe_plan_fit {
    bool fits;
    double peak_bytes;
    double capacity_bytes;
    int device;
    int64_t step;
    const char *advice; /* what would have to change; NULL when it fits */
} moe_plan_fit;

/* Runs the plan over the scenario's window with the analytic engine, every law checked: the policy and tunables
 * are the plan's (fssdp's where it names none). MOE_OK with *fit filled, whether it fits or not; else
 * printed. */
moe_status moe_plan_try(void *owner, const moe_plan *plan, const char *scenario,
                        const char *const *overrides, size_t override_count, moe_plan_fit *fit,
                        moe_diag *diag);

#endif
