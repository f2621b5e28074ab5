/* The `serving:` key of a scenario: what a rank serves in a step of prefill or decode, and how. */
#ifndef MOE_SIM_SERVING_H
#define MOE_SIM_SERVING_H

#include "configs/config.h"
#include "models/step.h"

typedef enum moe_serving_exchange {
    MOE_EXCHANGE_BY_STEP,
    MOE_EXCHANGE_NORMAL,
    MOE_EXCHANGE_LOW_LATENCY
} moe_serving_exchange;
typedef enum moe_serving_launch {
    MOE_LAUNCH_BY_STEP,
    MOE_LAUNCH_KERNELS,
    MOE_LAUNCH_GRAPH
} moe_serving_launch;

typedef struct moe_serving {
    int64_t batch;   /* sequences of a rank; 0: decode: the trace's tokens of a source, prefill: 1 */
    int64_t context; /* tokens; 0: decode: the model's sequence, prefill: nothing is cached */
    int exchange;    /* moe_serving_exchange */
    int launch;      /* moe_serving_launch */
} moe_serving;

extern const moe_table moe_serving_table;

typedef struct moe_scenario moe_scenario;

/* Relations between step, serving, batch, dispatch and trace. Of a decode whose trace leaves its tokens open
 * and whose batch does not, trace.tokens_per_source becomes the batch: before the trace is mapped. */
void moe_serving_check(moe_scenario *scenario, const moe_config *config, moe_diag *diag);

/* options->kind and what belongs to it; options->tokens is there already. */
void moe_serving_options(const moe_scenario *scenario, moe_step_options *options);

#endif
