#include "policies/policy.h"

#include <string.h>

/* A new policy: its file, its line in policy.h, its row here. */
const moe_policy *const moe_policies[] = {&moe_policy_ep, &moe_policy_fssdp, &moe_policy_fastermoe,
                                        &moe_policy_smartmoe, &moe_policy_eplb, NULL};

/* For messages about unknown names: the same order. */
static const char *const policy_names[] = {"ep", "fssdp", "fastermoe", "smartmoe", "eplb"};

const moe_policy *moe_policy_find(const char *name)
{
    for (size_t i = 0; moe_policies[i] != NULL; i++) {
        if (strcmp(moe_policies[i]->name, name) == 0)
            return moe_policies[i];
    }
    return NULL;
}

const moe_table *moe_policy_select(const char *value, const char *const **known,
                                   size_t *known_count)
{
    const moe_policy *policy = moe_policy_find(value);
    if (known != NULL)
        *known = policy_names;
    if (known_count != NULL)
        *known_count = sizeof policy_names / sizeof *policy_names;
    return policy == NULL ? NULL : policy->tunables;
}

bool moe_policy_divides_experts(const moe_problem *problem, const void *tunables,
                                const moe_config *config, moe_diag *diag)
{
    if (problem->network->experts % problem->layout.ep == 0)
        return true;
    moe_where where = {0};
    if (config != NULL && tunables != NULL)
        where = moe_config_where(config, tunables);
    moe_diag_error(diag, where,
                   "%lld experts do not divide evenly among the %d devices of an EP group; "
                   "expected parallel.ep to divide the experts of a layer",
                   (long long)problem->network->experts, problem->layout.ep);
    return false;
}
