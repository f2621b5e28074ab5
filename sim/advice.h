/* What would have to change when a step does not fit into device memory. */
#ifndef MOE_SIM_ADVICE_H
#define MOE_SIM_ADVICE_H

#include "models/result.h"
#include "sim/scenario.h"

/* NULL when the result fits; else one sentence owned by `owner`: how much is missing, where, and
 * the changes that would each suffice by the same accounting: fewer tokens (activations and staging
 * scale with them), nothing materialized, experts recomputed, a device with more memory. */
const char *moe_memory_advice(void *owner, const moe_binding *binding, const moe_result *result);

#endif
