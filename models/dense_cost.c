#include "models/dense_cost.h"

#include "models/network_gemm.h"
#include "models/network_shape.h"

bool moe_dense_is_itemised(const moe_costs *costs)
{
    return moe_cost_has_grid(costs) || moe_profile_has_attention(costs->profile);
}

static double phase_s(const moe_costs *costs, const moe_gemm_list *list, moe_phase phase)
{
    double seconds = 0;
    for (int i = 0; i < list->count; i++) {
        const moe_gemm gemm = moe_gemm_in_phase(&list->items[i], phase);
        seconds += moe_cost_gemm_s(costs, &gemm);
    }
    return seconds;
}

static moe_dense_seconds on_grid(const moe_costs *costs, const moe_gemm_list *list, bool trains)
{
    moe_dense_seconds seconds = {.forward_s = phase_s(costs, list, MOE_FORWARD)};
    if (trains)
        seconds.backward_s =
            phase_s(costs, list, MOE_INPUT_GRADIENT) + phase_s(costs, list, MOE_WEIGHT_GRADIENT);
    return seconds;
}

/* The backward pass is two forward passes: gradients of inputs and of weights. */
static moe_dense_seconds at_once(const moe_costs *costs, double flop, double bytes, double tokens,
                                 bool trains)
{
    moe_dense_seconds seconds = {.forward_s = moe_cost_dense_s(costs, flop, bytes, tokens)};
    if (trains)
        seconds.backward_s = moe_cost_dense_s(costs, 2 * flop, 2 * bytes, tokens);
    return seconds;
}

/* Queries, keys and values read, the output written. */
static double score_bytes(const moe_network *network, double tokens)
{
    const moe_attention_widths widths = moe_network_attention_widths(network);
    const double values = widths.query + widths.key + widths.value + widths.output;
    return tokens * values * moe_network_activation_bytes(network);
}

/* --- training --------------------------------------------------------------------------------- */

moe_dense_seconds moe_dense_attention(const moe_costs *costs, const moe_network *network,
                                      int64_t layer, double tokens)
{
    const double flop = moe_network_layer_flop(network, layer, tokens);
    const double bytes = moe_network_layer_memory_bytes(network, layer, tokens);
    if (!moe_dense_is_itemised(costs))
        return at_once(costs, flop, bytes, tokens, true);
    const double attended = moe_network_attended(network, layer);
    const double scores = moe_network_score_flop(network, tokens, attended);
    const double read = score_bytes(network, tokens);
    const moe_gemm_list gemms = moe_network_layer_gemms(network, layer, tokens);
    moe_dense_seconds seconds = moe_cost_has_grid(costs)
                                    ? on_grid(costs, &gemms, true)
                                    : at_once(costs, flop - scores, bytes - read, tokens, true);
    seconds.forward_s += moe_cost_attention_s(costs, scores, read, tokens);
    seconds.backward_s += moe_cost_attention_s(costs, 2 * scores, 2 * read, tokens);
    return seconds;
}

moe_dense_seconds moe_dense_attention_mean(const moe_costs *costs, const moe_network *network,
                                           double tokens)
{
    moe_dense_seconds of_kind[2], sum = {0};
    bool known[2] = {false, false};
    for (int64_t layer = network->dense_layers; layer < network->layers; layer++) {
        const bool window = moe_network_has_window(network, layer);
        if (!known[window])
            of_kind[window] = moe_dense_attention(costs, network, layer, tokens);
        known[window] = true;
        sum.forward_s += of_kind[window].forward_s;
        sum.backward_s += of_kind[window].backward_s;
    }
    const double layers = (double)moe_network_moe_layers(network);
    return (moe_dense_seconds){sum.forward_s / layers, sum.backward_s / layers};
}

moe_dense_seconds moe_dense_ffn(const moe_costs *costs, const moe_network *network, int64_t width,
                                double tokens, bool trains)
{
    if (width == 0)
        return (moe_dense_seconds){0};
    if (!moe_cost_has_grid(costs))
        return at_once(costs, moe_network_ffn_flop(network, width, tokens),
                       moe_network_ffn_memory_bytes(network, width, tokens), tokens, trains);
    const moe_gemm_list gemms = moe_network_ffn_gemms(network, width, tokens);
    return on_grid(costs, &gemms, trains);
}

/* The head's weights are read forward and backward, their gradient written; the logits are written,
 * read by the loss, overwritten by their gradient, and that is read twice. */
static double head_bytes(const moe_network *network, double tokens)
{
    const double vocabulary = (double)network->vocabulary;
    const double value_bytes = moe_network_activation_bytes(network);
    const double weights = vocabulary * (double)network->hidden;
    return weights * (2 * value_bytes + moe_dtype_bytes(network->gradient_dtype)) +
           5 * tokens * vocabulary * value_bytes;
}

double moe_dense_head_s(const moe_costs *costs, const moe_network *network, double tokens)
{
    if (!moe_cost_has_grid(costs))
        return moe_cost_dense_s(costs, 3 * moe_network_head_flop(network, tokens),
                                head_bytes(network, tokens), tokens);
    const moe_gemm_list head = {{moe_network_head_gemm(network, tokens)}, 1};
    const moe_dense_seconds gemms = on_grid(costs, &head, true);
    const double logits = tokens * (double)network->vocabulary;
    return gemms.forward_s + gemms.backward_s +
           moe_cost_memory_s(costs, 2 * logits * moe_network_activation_bytes(network));
}

/* --- serving ---------------------------------------------------------------------------------- */

static double work_s(const moe_costs *costs, moe_serving_work work, double rows)
{
    return moe_cost_dense_s(costs, work.flop, work.bytes, rows);
}

/* Projections, gate and what MLA expands of the cache. */
static double prefill_gemms_s(const moe_costs *costs, const moe_network *network, int64_t layer,
                              double tokens, double cached)
{
    const moe_gemm_list gemms = moe_network_layer_gemms(network, layer, tokens);
    const moe_gemm expansion = moe_network_expansion_gemm(network, cached);
    double seconds = phase_s(costs, &gemms, MOE_FORWARD);
    if (expansion.count > 0 && cached > 0)
        seconds += moe_cost_gemm_s(costs, &expansion);
    return seconds;
}

double moe_dense_prefill_s(const moe_costs *costs, const moe_network *network, int64_t layer,
                           const moe_serving_batch *batch)
{
    const double tokens = batch->tokens;
    moe_serving_work work = moe_prefill_work(network, layer, batch);
    if (!moe_dense_is_itemised(costs))
        return work_s(costs, work, tokens);
    const double cached = moe_prefill_cached(network, layer, batch);
    const double scores =
        moe_network_score_flop(network, tokens, moe_prefill_attended(network, layer, batch));
    const double read = score_bytes(network, tokens) + cached * moe_network_kv_token_bytes(network);
    work.flop -= scores;
    work.bytes -= read;
    return (moe_cost_has_grid(costs) ? prefill_gemms_s(costs, network, layer, tokens, cached)
                                     : work_s(costs, work, tokens)) +
           moe_cost_attention_s(costs, scores, read, tokens);
}

double moe_dense_decode_s(const moe_costs *costs, const moe_network *network, int64_t layer,
                          const moe_serving_batch *batch)
{
    const moe_gemm_list gemms = moe_network_layer_gemms(network, layer, batch->tokens);
    const moe_serving_work attention = moe_decode_attention_work(network, layer, batch);
    const double projections_s =
        moe_cost_has_grid(costs)
            ? phase_s(costs, &gemms, MOE_FORWARD)
            : work_s(costs, moe_decode_projection_work(network, layer, batch), batch->tokens);
    return projections_s +
           moe_cost_attention_s(costs, attention.flop, attention.bytes, batch->tokens);
}

double moe_dense_serving_head_s(const moe_costs *costs, const moe_network *network,
                                double sequences)
{
    if (!moe_cost_has_grid(costs))
        return work_s(costs, moe_serving_head_work(network, sequences), sequences);
    const moe_gemm gemm = moe_network_head_gemm(network, sequences);
    const double logits = sequences * (double)network->vocabulary;
    return moe_cost_gemm_s(costs, &gemm) +
           moe_cost_memory_s(costs, logits * moe_network_activation_bytes(network));
}
