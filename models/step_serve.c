/* Steps that serve: what they compute otherwise than the forward pass of training. */
#include "models/serving.h"
#include "models/step_builder.h"

const char *const moe_step_kind_names[] = {"train", "prefill", "decode", NULL};

static double work_s(const moe_costs *costs, moe_serving_work work, double rows)
{
    return moe_cost_dense_s(costs, work.flop, work.bytes, rows);
}

double moe_step_serving_attention_s(const moe_costs *costs, const moe_network *network,
                                    const moe_step_options *options, int64_t number)
{
    const moe_serving_batch batch = {options->sequences, options->tokens, options->context};
    if (options->kind == MOE_STEP_PREFILL) {
        return work_s(costs, moe_prefill_work(network, number, &batch), options->tokens);
    }
    return work_s(costs, moe_decode_projection_work(network, number, &batch), options->tokens) +
           work_s(costs, moe_decode_attention_work(network, number, &batch), options->tokens);
}

void moe_step_serving_head(moe_step_builder *builder)
{
    double sequences = builder->options->sequences;
    double seconds =
        work_s(builder->costs, moe_serving_head_work(builder->network, sequences), sequences);
    moe_step_compute(builder, "head", MOE_DENSE, moe_step_uniform(builder, seconds));
}
