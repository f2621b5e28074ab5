/* Seconds of what a device computes outside the routed experts: attention with its gate, dense FFNs and
 * shared experts, the LM head.
 *
 * A profile that knows neither a grid of GEMMs nor a curve for attention prices each part as one group of
 * kernels: dense cost of all its FLOPs and all bytes that it touches (models/network.h); the backward pass
 * is two forward passes. One that does, prices each part by what it consists of:
 *
 *   GEMMs              with a grid, one by one (models/network_gemm.h): backward, both gradients in
 *                      their own shapes; without, the dense cost of their FLOPs and bytes, backward of
 *                      twice as many
 *   attention scores   attention cost of their FLOPs and of reading queries, keys and values and writing
 *                      the output; backward of twice as many
 *   LM head            three GEMMs, and the loss: logits read and overwritten by their gradient
 *
 * What it ignores: biases, norms and activations between GEMMs; that the backward pass of fused attention
 * makes its scores once more (2.5 forward passes instead of 2). */
#ifndef MOE_MODELS_DENSE_COST_H
#define MOE_MODELS_DENSE_COST_H

#include "models/network.h"
#include "models/profile.h"
#include "models/serving.h"

typedef struct moe_dense_seconds {
    double forward_s;
    double backward_s;
} moe_dense_seconds;

/* Whether the profile prices parts by what they consist of. */
bool moe_dense_is_itemised(const moe_costs *costs);

/* Of a training step, on `tokens` tokens. */
moe_dense_seconds moe_dense_attention(const moe_costs *costs, const moe_network *network,
                                      int64_t layer, double tokens);
/* The same of an MoE layer, on average over them: those with a window cost less than those without. */
moe_dense_seconds moe_dense_attention_mean(const moe_costs *costs, const moe_network *network,
                                           double tokens);
/* 0 for width 0; `trains`: else backward is not asked for, 0. */
moe_dense_seconds moe_dense_ffn(const moe_costs *costs, const moe_network *network, int64_t width,
                                double tokens, bool trains);
/* Forward, loss and backward at once. */
double moe_dense_head_s(const moe_costs *costs, const moe_network *network, double tokens);

/* Of a step that serves. */
double moe_dense_prefill_s(const moe_costs *costs, const moe_network *network, int64_t layer,
                           const moe_serving_batch *batch);
double moe_dense_decode_s(const moe_costs *costs, const moe_network *network, int64_t layer,
                          const moe_serving_batch *batch);
double moe_dense_serving_head_s(const moe_costs *costs, const moe_network *network,
                                double sequences);

#endif
