/* Shape, parameters and bytes of a network. */
#include "models/network_shape.h"

#include <math.h>

/* --- layers ----------------------------------------------------------------------------------- */

int64_t moe_network_moe_layers(const moe_network *network)
{
    return network->layers - network->dense_layers;
}

bool moe_network_is_dense(const moe_network *network, int64_t layer)
{
    return layer < network->dense_layers;
}

bool moe_network_has_window(const moe_network *network, int64_t layer)
{
    int64_t every = network->full_attention_every;
    bool full = every > 0 && (layer + 1) % every == 0;
    return network->sliding_window > 0 && !full;
}

int64_t moe_network_shared_width(const moe_network *network)
{
    return network->shared_experts * (network->shared_ffn ? network->shared_ffn : network->ffn);
}

/* --- attention -------------------------------------------------------------------------------- */

static double head_dim(const moe_network *network)
{
    return network->head_dim ? (double)network->head_dim
                             : (double)network->hidden / (double)network->heads;
}

static moe_attention_widths mla_widths(const moe_network *network)
{
    double heads = (double)network->heads;
    double rope = (double)network->qk_rope_head_dim;
    double query_key = heads * ((double)network->qk_nope_head_dim + rope);
    double value = heads * (double)network->v_head_dim;
    return (moe_attention_widths){
        .query = query_key,
        .key = query_key,
        .value = value,
        .output = value,
        .query_latent = (double)network->q_lora_rank,
        .kv_latent = (double)network->kv_lora_rank + rope,
    };
}

moe_attention_widths moe_network_attention_widths(const moe_network *network)
{
    if (network->attention == MOE_ATTENTION_MLA)
        return mla_widths(network);
    double query = (double)network->hidden;
    double key = query;
    if (network->heads > 0) {
        int64_t kv_heads = network->kv_heads ? network->kv_heads : network->heads;
        query = (double)network->heads * head_dim(network);
        key = (double)kv_heads * head_dim(network);
    }
    return (moe_attention_widths){.query = query, .key = key, .value = key, .output = query};
}

double moe_network_projection_weights(const moe_network *network)
{
    double d = (double)network->hidden;
    moe_attention_widths widths = moe_network_attention_widths(network);
    double output = widths.output * d;
    if (network->attention != MOE_ATTENTION_MLA)
        return d * (widths.query + widths.key + widths.value) + output;
    double latent = widths.query_latent;
    double query = latent > 0 ? (d + widths.query) * latent : d * widths.query;
    double unrotated = (double)network->heads * (double)network->qk_nope_head_dim;
    double expansion = (double)network->kv_lora_rank * (unrotated + widths.value);
    return query + d * widths.kv_latent + expansion + output;
}

static double attention_biases(const moe_network *network, const moe_attention_widths *widths)
{
    double biases = network->attention_sinks ? (double)network->heads : 0;
    if (network->attention_bias != MOE_ATTENTION_BIAS_NONE)
        biases += widths->query + widths->key + widths->value;
    if (network->attention_bias == MOE_ATTENTION_BIAS_QKVO)
        biases += (double)network->hidden;
    return biases;
}

static double attention_norms(const moe_network *network, const moe_attention_widths *widths)
{
    if (network->attention == MOE_ATTENTION_MLA)
        return network->norm == MOE_NORM_NONE
                   ? 0
                   : widths->query_latent + (double)network->kv_lora_rank;
    switch ((moe_qk_norm)network->qk_norm) {
    case MOE_QK_NORM_HEAD:
        return 2 * head_dim(network);
    case MOE_QK_NORM_FULL:
        return widths->query + widths->key;
    case MOE_QK_NORM_NONE:
        break;
    }
    return 0;
}

double moe_network_attention_parameters(const moe_network *network)
{
    moe_attention_widths widths = moe_network_attention_widths(network);
    return moe_network_projection_weights(network) + attention_biases(network, &widths) +
           attention_norms(network, &widths);
}

/* --- feed-forward networks -------------------------------------------------------------------- */

double moe_network_ffn_weights(const moe_network *network, int64_t width)
{
    return moe_network_ffn_matrices(network) * (double)network->hidden * (double)width;
}

double moe_network_ffn_parameters(const moe_network *network, int64_t width)
{
    double inner = (moe_network_ffn_matrices(network) - 1) * (double)width;
    double biases = network->bias && width > 0 ? inner + (double)network->hidden : 0;
    return moe_network_ffn_weights(network, width) + biases;
}

double moe_network_expert_parameters(const moe_network *network)
{
    return moe_network_ffn_parameters(network, network->ffn);
}

double moe_network_gate_parameters(const moe_network *network)
{
    double experts = (double)network->experts;
    return (double)network->hidden * experts + (network->gate_bias ? experts : 0);
}

/* --- sums ------------------------------------------------------------------------------------- */

static double norm_parameters(const moe_network *network)
{
    double vectors = network->norm == MOE_NORM_LAYER ? 2 : network->norm == MOE_NORM_RMS ? 1 : 0;
    return vectors * (double)network->hidden;
}

double moe_network_layer_parameters(const moe_network *network, int64_t layer)
{
    double attention = moe_network_attention_parameters(network) + 2 * norm_parameters(network);
    if (moe_network_is_dense(network, layer))
        return attention + moe_network_ffn_parameters(network, network->dense_ffn);
    return attention + moe_network_gate_parameters(network) +
           moe_network_ffn_parameters(network, moe_network_shared_width(network));
}

double moe_network_embedding_parameters(const moe_network *network)
{
    double tables = network->tied_embeddings ? 1 : 2;
    return tables * (double)network->vocabulary * (double)network->hidden;
}

/* All layers of a kind are alike. */
static double block_parameters(const moe_network *network)
{
    double dense = (double)network->dense_layers;
    double moe = (double)moe_network_moe_layers(network);
    double last = moe_network_layer_parameters(network, network->layers - 1);
    double first = dense > 0 ? moe_network_layer_parameters(network, 0) : 0;
    return dense * first + moe * last + norm_parameters(network);
}

double moe_network_dense_parameters(const moe_network *network)
{
    return block_parameters(network) + moe_network_embedding_parameters(network);
}

static double parameters_with(const moe_network *network, int64_t experts)
{
    double routed = (double)experts * moe_network_expert_parameters(network);
    return (double)moe_network_moe_layers(network) * routed + moe_network_dense_parameters(network);
}

double moe_network_total_parameters(const moe_network *network)
{
    return parameters_with(network, network->experts);
}

double moe_network_active_parameters(const moe_network *network)
{
    return parameters_with(network, network->top_k);
}

double moe_network_parameters(const moe_network *network)
{
    double experts = (double)network->experts * moe_network_expert_parameters(network);
    return (double)moe_network_moe_layers(network) * experts +
           (double)network->layers * moe_network_attention_parameters(network);
}

/* --- bytes ------------------------------------------------------------------------------------ */

double moe_dtype_bytes(int dtype)
{
    switch ((moe_dtype)dtype) {
    case MOE_FP32:
        return 4;
    case MOE_BF16:
    case MOE_FP16:
        return 2;
    case MOE_FP8:
        return 1;
    case MOE_MXFP4:
        return 4.25 / 8; /* and a scale of 8 bits for every 32 values */
    }
    return 4; /* not reached: the table knows no other */
}

static double bytes_or_parameters(const moe_network *network, int dtype)
{
    return moe_dtype_bytes(dtype ? dtype - 1 : network->parameter_dtype);
}

double moe_network_activation_bytes(const moe_network *network)
{
    return bytes_or_parameters(network, network->activation_dtype);
}

double moe_network_expert_bytes(const moe_network *network)
{
    return moe_network_expert_parameters(network) *
           bytes_or_parameters(network, network->expert_dtype);
}

double moe_network_expert_gradient_bytes(const moe_network *network)
{
    return moe_network_expert_parameters(network) * moe_dtype_bytes(network->gradient_dtype);
}

double moe_network_dense_bytes(const moe_network *network)
{
    return block_parameters(network) * moe_dtype_bytes(network->parameter_dtype) +
           moe_network_embedding_parameters(network) * moe_network_activation_bytes(network);
}

double moe_network_token_bytes(const moe_network *network)
{
    return (double)network->hidden * moe_network_activation_bytes(network);
}

double moe_network_kv_token_bytes(const moe_network *network)
{
    moe_attention_widths widths = moe_network_attention_widths(network);
    double values =
        network->attention == MOE_ATTENTION_MLA ? widths.kv_latent : widths.key + widths.value;
    return values * moe_network_activation_bytes(network);
}

double moe_network_kv_bytes(const moe_network *network, double context)
{
    double tokens = 0;
    for (int64_t layer = 0; layer < network->layers; layer++)
        tokens += moe_network_has_window(network, layer)
                      ? fmin(context, (double)network->sliding_window)
                      : context;
    return tokens * moe_network_kv_token_bytes(network);
}
