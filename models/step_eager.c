/* Experts one after another (moe_step_options.expert_by_expert). */
#include "models/dense_cost.h"
#include "models/step_builder.h"

/* Bytes that kernels beside the GEMMs move, per row and phase; `up`: width of what the first matrix (gated: the
 * first two) makes. */
static void pass_bytes(const moe_network *network, double bytes[static 3])
{
    const double hidden = (double)network->hidden, ffn = (double)network->ffn;
    const double up = (network->gated ? 2 : 1) * ffn, value = moe_network_activation_bytes(network);
    const double biased = network->bias ? up + hidden : 0;
    bytes[MOE_FORWARD] = (2 * biased + up + ffn + 2 * hidden) * value;
    bytes[MOE_INPUT_GRADIENT] = (2 * up + ffn + 2 * hidden) * value;
    bytes[MOE_WEIGHT_GRADIENT] = biased * value;
}

void moe_step_eager_experts(const moe_step_builder *builder, const double *rows, int count,
                            double seconds[static 3])
{
    const moe_network *network = builder->network;
    const bool trains = !moe_step_serves(builder->options);
    double bytes[3];
    pass_bytes(network, bytes);
    for (int e = 0; e < count; e++) {
        const moe_dense_seconds gemms =
            moe_dense_ffn(builder->costs, network, network->ffn, rows[e], trains);
        seconds[MOE_FORWARD] +=
            gemms.forward_s + moe_cost_memory_s(builder->costs, rows[e] * bytes[MOE_FORWARD]);
        if (trains) {
            seconds[MOE_INPUT_GRADIENT] +=
                gemms.backward_s / 2 +
                moe_cost_memory_s(builder->costs, rows[e] * bytes[MOE_INPUT_GRADIENT]);
            seconds[MOE_WEIGHT_GRADIENT] +=
                gemms.backward_s / 2 +
                moe_cost_memory_s(builder->costs,
                                  rows[e] * bytes[MOE_WEIGHT_GRADIENT] +
                                      3 * moe_network_expert_gradient_bytes(network));
        }
    }
}
