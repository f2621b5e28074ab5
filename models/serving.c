#include "models/serving.h"

#include "models/network_shape.h"
#include <math.h>

static double window_of(const moe_network *network, int64_t layer)
{
    return moe_network_has_window(network, layer) ? (double)network->sliding_window : INFINITY;
}

/* --- prefill ---------------------------------------------------------------------------------- */

double moe_prefill_attended(const moe_network *network, int64_t layer,
                            const moe_serving_batch *batch)
{
    double window = window_of(network, layer);
    double cached = batch->context;
    double prompt = batch->tokens / batch->sequences;
    if (cached >= window)
        return window;
    if (!network->causal)
        return fmin(window, cached + prompt);
    if (cached + prompt <= window)
        return cached + 0.5 * prompt;
    double filling = window - cached;
    return (filling * (cached + 0.5 * filling) + (prompt - filling) * window) / prompt;
}

/* What MLA does once more for a cached token: its keys and values, from the latents. */
static double expansion_flop(const moe_network *network)
{
    if (network->attention != MOE_ATTENTION_MLA)
        return 0;
    double unrotated = (double)network->heads * (double)network->qk_nope_head_dim;
    double value = (double)network->heads * (double)network->v_head_dim;
    return 2 * (double)network->kv_lora_rank * (unrotated + value);
}

double moe_prefill_cached(const moe_network *network, int64_t layer,
                          const moe_serving_batch *batch)
{
    return batch->sequences * fmin(batch->context, window_of(network, layer));
}

moe_serving_work moe_prefill_work(const moe_network *network, int64_t layer,
                                  const moe_serving_batch *batch)
{
    double read = moe_prefill_cached(network, layer, batch);
    double attended = moe_prefill_attended(network, layer, batch);
    return (moe_serving_work){
        .flop = moe_network_attention_flop(network, layer, batch->tokens, attended) +
                read * expansion_flop(network),
        .bytes = moe_network_layer_memory_bytes(network, layer, batch->tokens) +
                 read * moe_network_kv_token_bytes(network),
    };
}

/* --- decode ----------------------------------------------------------------------------------- */

double moe_decode_attended(const moe_network *network, int64_t layer, double context)
{
    return fmin(context, window_of(network, layer));
}

/* Elements of a token that absorbed MLA writes and reads more than what training does: queries and
 * outputs as latents instead of keys and values. */
static double absorbed_values(const moe_network *network)
{
    moe_attention_widths widths = moe_network_attention_widths(network);
    if (network->attention != MOE_ATTENTION_MLA)
        return 0;
    double latents = 2 * (double)network->heads * (double)network->kv_lora_rank;
    return 2 * (latents - widths.key - widths.value);
}

moe_serving_work moe_decode_projection_work(const moe_network *network, int64_t layer,
                                            const moe_serving_batch *batch)
{
    double more = absorbed_values(network) * moe_network_activation_bytes(network);
    return (moe_serving_work){
        .flop = moe_network_attention_flop(network, layer, batch->tokens, 0),
        .bytes =
            moe_network_layer_memory_bytes(network, layer, batch->tokens) + batch->tokens * more,
    };
}

/* On the latents every head scores r + p elements of a token in the cache and adds up r of them. */
static double absorbed_score_flop(const moe_network *network)
{
    double latent = (double)network->kv_lora_rank;
    double rope = (double)network->qk_rope_head_dim;
    return 2 * (double)network->heads * (2 * latent + rope);
}

moe_serving_work moe_decode_attention_work(const moe_network *network, int64_t layer,
                                           const moe_serving_batch *batch)
{
    double attended = moe_decode_attended(network, layer, batch->context);
    double flop = network->attention == MOE_ATTENTION_MLA
                      ? batch->tokens * attended * absorbed_score_flop(network)
                      : moe_network_score_flop(network, batch->tokens, attended);
    return (moe_serving_work){
        .flop = flop,
        .bytes = batch->sequences * attended * moe_network_kv_token_bytes(network),
    };
}

/* --- head ------------------------------------------------------------------------------------- */

moe_serving_work moe_serving_head_work(const moe_network *network, double sequences)
{
    double hidden = (double)network->hidden;
    double vocabulary = (double)network->vocabulary;
    double values = vocabulary * hidden + sequences * (hidden + 2 * vocabulary);
    return (moe_serving_work){.flop = moe_network_head_flop(network, sequences),
                              .bytes = values * moe_network_activation_bytes(network)};
}
