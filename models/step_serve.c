/* Steps that serve: what they compute otherwise than the forward pass of training. */
#include "models/dense_cost.h"
#include "models/step_builder.h"

const char *const moe_step_kind_names[] = {"train", "prefill", "decode", NULL};

double moe_step_serving_attention_s(const moe_costs *costs, const moe_network *network,
                                    const moe_step_options *options, int64_t number)
{
    const moe_serving_batch batch = {options->sequences, options->tokens, options->context};
    return options->kind == MOE_STEP_PREFILL ? moe_dense_prefill_s(costs, network, number, &batch)
                                             : moe_dense_decode_s(costs, network, number, &batch);
}

void moe_step_serving_head(moe_step_builder *builder)
{
    double seconds = moe_dense_serving_head_s(builder->costs, builder->network,
                                              builder->options->sequences);
    moe_step_compute(builder, "head", MOE_DENSE, moe_step_uniform(builder, seconds));
}
