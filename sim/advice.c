#include "sim/advice.h"

#include <math.h>
#include <talloc.h>

#define GIB (1024.0 * 1024 * 1024)

/* What does not shrink with the batch. */
static double fixed_bytes(const moe_memory *memory, const moe_binding *binding)
{
    return memory->parameters + memory->gradients + memory->optimizer + memory->materialized +
           memory->reserved + binding->scenario->memory.library_bytes;
}

static char *append_tokens(char *text, const moe_memory *memory, const moe_binding *binding)
{
    double fixed = fixed_bytes(memory, binding);
    double scalable = memory->peak - fixed;
    double tokens = floor(binding->options.tokens * (memory->capacity - fixed) / scalable);
    if (scalable <= 0 || tokens < 1)
        return talloc_asprintf_append(
            text,
            "; fewer tokens would not suffice: %.0f %% of the device is taken whatever the batch",
            100 * fixed / memory->capacity);
    return talloc_asprintf_append(
        text, "; would fit with at most %.0f tokens a source and micro-batch (now %.0f)", tokens,
        binding->options.tokens);
}

static char *append_alternatives(char *text, const moe_memory *memory, const moe_binding *binding)
{
    if (memory->materialized >= memory->peak - memory->capacity)
        text = talloc_strdup_append(text,
                                    ", or with fewer materialized experts (slots, rematerialize)");
    if (!moe_step_serves(&binding->options) && binding->options.recompute == MOE_RECOMPUTE_NONE)
        text = talloc_strdup_append(text, ", or perhaps with batch.recompute: experts");
    return talloc_asprintf_append(text, ", or on a device with %.2f GiB", memory->peak / GIB);
}

const char *moe_memory_advice(void *owner, const moe_binding *binding, const moe_result *result)
{
    if (moe_result_fits(result))
        return NULL;
    int64_t step = moe_result_peak_step(result);
    const moe_step_result *worst = &result->series[step];
    char *text =
        talloc_asprintf(owner, "%s does not fit: device %d needs %.2f of %.2f GiB in step %lld",
                        result->name, worst->memory_device, worst->memory.peak / GIB,
                        worst->memory.capacity / GIB, (long long)step);
    text = append_tokens(text, &worst->memory, binding);
    return append_alternatives(text, &worst->memory, binding);
}
