/* FLOPs of a network, the memory that its parts touch, and what training keeps of a token. */
#include "models/network_shape.h"

#include <math.h>

/* --- FLOPs ------------------------------------------------------------------------------------ */

double moe_network_projection_flop(const moe_network *network, double tokens)
{
    return tokens * (2 * moe_network_projection_weights(network));
}

/* While the window fills, a causal token attends to half of it on average. */
double moe_network_attended(const moe_network *network, int64_t layer)
{
    double sequence = (double)network->sequence;
    double window = sequence;
    if (moe_network_has_window(network, layer))
        window = fmin(window, (double)network->sliding_window);
    return network->causal ? window * (1 - 0.5 * (window / sequence)) : window;
}

double moe_network_score_flop(const moe_network *network, double tokens, double attended)
{
    moe_attention_widths widths = moe_network_attention_widths(network);
    return tokens * (2 * attended * (widths.query + widths.output));
}

static double gate_flop(const moe_network *network)
{
    return 2 * (double)network->hidden * (double)network->experts;
}

double moe_network_attention_flop(const moe_network *network, int64_t layer, double tokens,
                                  double attended)
{
    double gate = moe_network_is_dense(network, layer) ? 0 : gate_flop(network);
    return tokens * (moe_network_projection_flop(network, 1) +
                     moe_network_score_flop(network, 1, attended) + gate);
}

double moe_network_layer_flop(const moe_network *network, int64_t layer, double tokens)
{
    return moe_network_attention_flop(network, layer, tokens, moe_network_attended(network, layer));
}

double moe_network_dense_flop(const moe_network *network, double tokens)
{
    if (network->sliding_window == 0)
        return moe_network_layer_flop(network, network->layers - 1, tokens);
    double flop = 0;
    for (int64_t layer = network->dense_layers; layer < network->layers; layer++)
        flop += moe_network_layer_flop(network, layer, tokens);
    return flop / (double)moe_network_moe_layers(network);
}

double moe_network_ffn_flop(const moe_network *network, int64_t width, double tokens)
{
    return tokens * (2 * moe_network_ffn_weights(network, width));
}

double moe_network_head_flop(const moe_network *network, double tokens)
{
    return 2 * tokens * (double)network->hidden * (double)network->vocabulary;
}

double moe_network_forward_flop(const moe_network *network, double tokens)
{
    int64_t used = moe_network_shared_width(network) + network->top_k * network->ffn;
    double flop = moe_network_head_flop(network, tokens);
    for (int64_t layer = 0; layer < network->layers; layer++) {
        bool dense = moe_network_is_dense(network, layer);
        flop += moe_network_layer_flop(network, layer, tokens) +
                moe_network_ffn_flop(network, dense ? network->dense_ffn : used, tokens);
    }
    return flop;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Elements of a token: the QKV projections read it and write Q, K and V, by way of MLA's latents;
 * attention, whose scores stay on chip (as FlashAttention does), reads those and writes its output;
 * the output projection reads that and writes a token; the gate reads one and writes E. */
double moe_network_layer_memory_bytes(const moe_network *network, int64_t layer, double tokens)
{
    double d = (double)network->hidden;
    moe_attention_widths widths = moe_network_attention_widths(network);
    double inside = widths.query + widths.key + widths.value + widths.output;
    double latents = widths.query_latent + widths.kv_latent;
    double weights = moe_network_attention_parameters(network);
    double activations = 2 * d + 2 * inside + 2 * latents;
    if (!moe_network_is_dense(network, layer)) {
        weights += moe_network_gate_parameters(network);
        activations += d + (double)network->experts;
    }
    return weights * moe_dtype_bytes(network->parameter_dtype) +
           tokens * activations * moe_network_activation_bytes(network);
}

double moe_network_dense_memory_bytes(const moe_network *network, double tokens)
{
    return moe_network_layer_memory_bytes(network, network->layers - 1, tokens);
}

/* Each matrix reads its input and writes its output. */
double moe_network_ffn_memory_bytes(const moe_network *network, int64_t width, double tokens)
{
    double values =
        moe_network_ffn_matrices(network) * ((double)network->hidden + (double)width) * tokens;
    return moe_network_ffn_parameters(network, width) * moe_dtype_bytes(network->parameter_dtype) +
           values * moe_network_activation_bytes(network);
}

/* --- kept for the backward pass --------------------------------------------------------------- */

double moe_network_attention_values(const moe_network *network)
{
    moe_attention_widths widths = moe_network_attention_widths(network);
    return 4 * (double)network->hidden + widths.query + widths.key + widths.value + widths.output +
           widths.query_latent + widths.kv_latent;
}

double moe_network_ffn_values(const moe_network *network, int64_t width)
{
    return moe_network_ffn_matrices(network) * (double)width;
}
