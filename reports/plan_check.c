#include "reports/plan_check.h"

#include "configs/base/memory.h"

#include <stdlib.h>
#include <talloc.h>

/* The one policy of the trial, as --set has it: JSON is YAML. */
static char *override_of(void *owner, const moe_plan *plan)
{
    char *absolute = realpath(plan->path, NULL);
    json_t *use =
        plan->policy.tunables != NULL ? json_deep_copy(plan->policy.tunables) : json_object();
    json_object_set_new(use, "name", json_string("plan"));
    json_object_set_new(use, "policy",
                        json_string(plan->policy.policy ? plan->policy.policy : "fssdp"));
    json_object_set_new(use, "plan", json_string(absolute ? absolute : plan->path));
    char *text = json_dumps(use, 0);
    char *override = moe_need(talloc_asprintf(owner, "policies=[%s]", text));
    free(text);
    free(absolute);
    json_decref(use);
    return override;
}

static void take_fit(const moe_result *result, moe_plan_fit *fit)
{
    const moe_step_result *step = &result->series[moe_result_peak_step(result)];
    *fit = (moe_plan_fit){.fits = moe_result_fits(result),
                          .peak_bytes = step->memory.peak,
                          .capacity_bytes = step->memory.capacity,
                          .device = step->memory_device,
                          .step = moe_result_peak_step(result),
                          .advice = result->memory_advice};
}

moe_status moe_plan_try(void *owner, const moe_plan *plan, const char *scenario,
                        const char *const *overrides, size_t override_count, moe_plan_fit *fit,
                        moe_diag *diag)
{
    const char **all = moe_need(talloc_array(owner, const char *, (unsigned)override_count + 1));
    for (size_t i = 0; i < override_count; i++)
        all[i] = overrides[i];
    all[override_count] = override_of(owner, plan);
    moe_binding *binding =
        moe_binding_create(owner, scenario, all, override_count + 1, "analytic", diag);
    if (binding == NULL)
        return MOE_BAD_INPUT;
    const moe_run_options options = {.check_laws = true};
    const int only = 0;
    moe_status status;
    moe_run *run = moe_run_scenario(owner, binding, &only, 1, &options, &status, diag);
    if (run != NULL)
        take_fit(&run->policies[0].result, fit);
    return status;
}
