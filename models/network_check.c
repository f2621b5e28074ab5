/* Relations between the keys of a network. */
#include "models/network.h"

/* What a check needs to say where the fault stands. */
typedef struct network_check {
    const moe_network *network;
    const moe_config *config; /* or NULL: no place */
    moe_diag *diag;
} network_check;

static moe_where where_of(const network_check *check, const void *member)
{
    return check->config ? moe_config_where(check->config, member) : (moe_where){0};
}

/* --- experts ---------------------------------------------------------------------------------- */

static void check_groups(const network_check *check)
{
    const moe_network *network = check->network;
    long long experts = network->experts;
    long long groups = network->gate_groups;
    if (groups < 1 || experts % groups != 0) {
        moe_diag_error(check->diag, where_of(check, &network->gate_groups),
                       "gate_groups is %lld; expected a divisor of the %lld experts", groups,
                       experts);
        return;
    }
    if (network->top_groups > groups)
        moe_diag_error(check->diag, where_of(check, &network->top_groups),
                       "top_groups is %lld; expected at most the %lld gate_groups",
                       (long long)network->top_groups, groups);
    else if (network->top_k > network->top_groups * (experts / groups))
        moe_diag_error(check->diag, where_of(check, &network->top_k),
                       "top_k is %lld, but %lld of %lld groups hold only %lld experts",
                       (long long)network->top_k, (long long)network->top_groups, groups,
                       network->top_groups * (experts / groups));
}

static void check_experts(const network_check *check)
{
    const moe_network *network = check->network;
    if (network->top_k > network->experts)
        moe_diag_error(check->diag, where_of(check, &network->top_k),
                       "top_k is %lld; expected at most the %lld experts",
                       (long long)network->top_k, (long long)network->experts);
    else
        check_groups(check);
}

static void check_dense_layers(const network_check *check)
{
    const moe_network *network = check->network;
    if (network->dense_layers >= network->layers)
        moe_diag_error(check->diag, where_of(check, &network->dense_layers),
                       "dense_layers is %lld; expected fewer than the %lld layers, so that some "
                       "have experts",
                       (long long)network->dense_layers, (long long)network->layers);
    if (network->dense_layers > 0 && network->dense_ffn == 0)
        moe_diag_error(check->diag, where_of(check, &network->dense_layers),
                       "dense_layers is %lld without dense_ffn; expected the width of their "
                       "feed-forward networks",
                       (long long)network->dense_layers);
}

/* --- attention -------------------------------------------------------------------------------- */

static void need_heads(const network_check *check, const void *member, const char *key)
{
    if (check->network->heads == 0)
        moe_diag_error(check->diag, where_of(check, member), "%s needs heads; expected heads: N",
                       key);
}

/* A key that only other kinds of attention have. */
static void refuse(const network_check *check, const void *member, bool given, const char *key,
                   const char *kinds)
{
    if (given)
        moe_diag_error(check->diag, where_of(check, member), "%s is for attention: %s only", key,
                       kinds);
}

static void check_heads(const network_check *check)
{
    const moe_network *network = check->network;
    if (network->heads > 0 && network->head_dim == 0 && network->hidden % network->heads != 0)
        moe_diag_error(check->diag, where_of(check, &network->heads),
                       "heads is %lld; expected a divisor of hidden, which is %lld",
                       (long long)network->heads, (long long)network->hidden);
    if (network->head_dim > 0)
        need_heads(check, &network->head_dim, "head_dim");
    if (network->qk_norm == MOE_QK_NORM_HEAD)
        need_heads(check, &network->qk_norm, "qk_norm: head");
    if (network->attention_sinks)
        need_heads(check, &network->attention_sinks, "attention_sinks");
}

static void refuse_latents(const network_check *check)
{
    const moe_network *network = check->network;
    refuse(check, &network->q_lora_rank, network->q_lora_rank > 0, "q_lora_rank", "mla");
    refuse(check, &network->kv_lora_rank, network->kv_lora_rank > 0, "kv_lora_rank", "mla");
    refuse(check, &network->qk_nope_head_dim, network->qk_nope_head_dim > 0, "qk_nope_head_dim",
           "mla");
    refuse(check, &network->qk_rope_head_dim, network->qk_rope_head_dim > 0, "qk_rope_head_dim",
           "mla");
    refuse(check, &network->v_head_dim, network->v_head_dim > 0, "v_head_dim", "mla");
}

static void check_mha(const network_check *check)
{
    check_heads(check);
    refuse_latents(check);
    const moe_network *network = check->network;
    refuse(check, &network->kv_heads, network->kv_heads > 0, "kv_heads", "gqa");
}

static void check_gqa(const network_check *check)
{
    check_heads(check);
    refuse_latents(check);
    const moe_network *network = check->network;
    if (network->kv_heads == 0 || network->heads % network->kv_heads != 0)
        moe_diag_error(check->diag,
                       where_of(check, network->kv_heads ? (const void *)&network->kv_heads
                                                         : (const void *)&network->attention),
                       "kv_heads is %lld; expected a divisor of the %lld heads",
                       (long long)network->kv_heads, (long long)network->heads);
    else
        need_heads(check, &network->kv_heads, "kv_heads");
}

static void need_width(const network_check *check, int64_t value, const char *key)
{
    if (value == 0)
        moe_diag_error(check->diag, where_of(check, &check->network->attention),
                       "attention: mla needs %s; expected %s: N", key, key);
}

static void check_mla(const network_check *check)
{
    const moe_network *network = check->network;
    need_width(check, network->heads, "heads");
    need_width(check, network->kv_lora_rank, "kv_lora_rank");
    need_width(check, network->qk_nope_head_dim + network->qk_rope_head_dim, "qk_nope_head_dim");
    need_width(check, network->v_head_dim, "v_head_dim");
    refuse(check, &network->kv_heads, network->kv_heads > 0, "kv_heads", "gqa");
    refuse(check, &network->head_dim, network->head_dim > 0, "head_dim", "mha or gqa");
    refuse(check, &network->qk_norm, network->qk_norm != MOE_QK_NORM_NONE, "qk_norm", "mha or gqa");
    refuse(check, &network->attention_bias, network->attention_bias != MOE_ATTENTION_BIAS_NONE,
           "attention_bias", "mha or gqa");
}

static void check_attention(const network_check *check)
{
    const moe_network *network = check->network;
    switch ((moe_attention)network->attention) {
    case MOE_ATTENTION_MHA:
        check_mha(check);
        break;
    case MOE_ATTENTION_GQA:
        check_gqa(check);
        break;
    case MOE_ATTENTION_MLA:
        check_mla(check);
        break;
    }
    if (network->full_attention_every > 0 && network->sliding_window == 0)
        moe_diag_error(check->diag, where_of(check, &network->full_attention_every),
                       "full_attention_every is %lld, but there is no sliding_window to lift; "
                       "expected sliding_window: N",
                       (long long)network->full_attention_every);
}

moe_status moe_network_check(const moe_network *network, const moe_config *config, moe_diag *diag)
{
    const network_check check = {network, config, diag};
    int errors = moe_diag_error_count(diag);
    check_experts(&check);
    check_dense_layers(&check);
    check_attention(&check);
    return moe_diag_error_count(diag) > errors ? MOE_BAD_INPUT : MOE_OK;
}
