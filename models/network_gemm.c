#include "models/network_gemm.h"

#include "models/network_shape.h"

static void add(moe_gemm_list *list, double m, double n, double k)
{
    list->items[list->count++] = (moe_gemm){m, n, k, 1};
}

moe_gemm moe_network_expansion_gemm(const moe_network *network, double tokens)
{
    if (network->attention != MOE_ATTENTION_MLA)
        return (moe_gemm){0};
    double each = (double)(network->qk_nope_head_dim + network->v_head_dim);
    return (moe_gemm){tokens, (double)network->heads * each, (double)network->kv_lora_rank, 1};
}

static void add_mla(const moe_network *network, double tokens, moe_gemm_list *list)
{
    const moe_attention_widths widths = moe_network_attention_widths(network);
    const double d = (double)network->hidden;
    if (widths.query_latent > 0) {
        add(list, tokens, widths.query_latent, d);
        add(list, tokens, widths.query, widths.query_latent);
    } else {
        add(list, tokens, widths.query, d);
    }
    add(list, tokens, widths.kv_latent, d);
    list->items[list->count++] = moe_network_expansion_gemm(network, tokens);
    add(list, tokens, d, widths.output);
}

moe_gemm_list moe_network_layer_gemms(const moe_network *network, int64_t layer, double tokens)
{
    const moe_attention_widths widths = moe_network_attention_widths(network);
    const double d = (double)network->hidden;
    moe_gemm_list list = {.count = 0};
    if (network->attention == MOE_ATTENTION_MLA) {
        add_mla(network, tokens, &list);
    } else {
        add(&list, tokens, widths.query + widths.key + widths.value, d);
        add(&list, tokens, d, widths.output);
    }
    if (!moe_network_is_dense(network, layer))
        add(&list, tokens, (double)network->experts, d);
    return list;
}

moe_gemm_list moe_network_ffn_gemms(const moe_network *network, int64_t width, double tokens)
{
    const double d = (double)network->hidden;
    moe_gemm_list list = {.count = 0};
    if (width > 0) {
        add(&list, tokens, (moe_network_ffn_matrices(network) - 1) * (double)width, d);
        add(&list, tokens, d, (double)width);
    }
    return list;
}

moe_gemm moe_network_head_gemm(const moe_network *network, double tokens)
{
    return (moe_gemm){tokens, (double)network->vocabulary, (double)network->hidden, 1};
}

moe_gemm moe_gemm_in_phase(const moe_gemm *forward, moe_phase phase)
{
    const moe_gemm gemm = *forward;
    switch (phase) {
    case MOE_INPUT_GRADIENT:
        return (moe_gemm){gemm.m, gemm.k, gemm.n, gemm.count};
    case MOE_WEIGHT_GRADIENT:
        return (moe_gemm){gemm.k, gemm.n, gemm.m, gemm.count};
    default:
        break;
    }
    return gemm;
}

double moe_gemm_list_flop(const moe_gemm_list *list)
{
    double flop = 0;
    for (int i = 0; i < list->count; i++) {
        const moe_gemm *gemm = &list->items[i];
        flop += gemm->count * 2 * gemm->m * gemm->n * gemm->k;
    }
    return flop;
}
