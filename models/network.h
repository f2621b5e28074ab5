/* The MoE model ("network"): its shape, and from it parameters, FLOPs and bytes.
 *
 * A transformer of `layers` blocks, each with attention and a feed-forward network (FFN). The first
 * `dense_layers` have one FFN of width `dense_ffn`; the others ("MoE layers") have a gate,
 * `experts` routed experts of width `ffn`, top-k per token, and, where there are `shared_experts`,
 * one more FFN that computes every token. Weights, with d = hidden, h = heads, k = kv_heads,
 * e = head_dim, r and s = kv_lora_rank and q_lora_rank, n, p and v = qk_nope_head_dim,
 * qk_rope_head_dim and v_head_dim:
 *
 *   FFN of width f    2 d f, gated 3 d f; with `bias` a vector per matrix: + f (gated 2 f) + d
 *   shared experts    one FFN of width shared_experts * shared_ffn: they are computed as one
 *   gate              d E; with `gate_bias` + E (a bias, or the correction that balances load)
 *   attention mha     4 d h e; h e is d unless head_dim is given
 *             gqa     d (h + 2 k) e + h e d
 *             mla     d s + s h (n + p), or d h (n + p) if s = 0; d (r + p) + r h (n + v); h v d
 *   biases, sinks     attention_bias qkv: (h + 2 k) e, qkvo: + d; attention_sinks: h
 *   norms             two a layer and one at the end, each of d (rms) or 2 d (layer) parameters;
 *                     qk_norm head: 2 e, full: (h + k) e; mla: s + r
 *   embedding, head   V d each, once where tied
 *
 * FLOPs forward, per token: 2 per weight of every matrix that it passes; attention scores
 * 2 c (q + o), where q and o are the widths of queries and of attention's output over all heads,
 * and c the tokens attended to: sequence / 2 if causal, else sequence; within a window w,
 * w - w^2 / (2 sequence) if causal, else w. MLA makes keys and values anew from the latent
 * (training, prefill). LM head 2 d V; embedding lookups cost memory traffic only.
 *
 * Sources: FLOP counting as in Korthikanti et al. 2022 (arXiv 2205.05198), appendix; GQA: Ainslie
 * et al. 2023 (arXiv 2305.13245); MLA: DeepSeek-V2 (arXiv 2405.04434), section 2.1; shared experts:
 * DeepSeekMoE (arXiv 2401.06066), section 3.2; sinks and windows: gpt-oss model card (arXiv
 * 2508.10925), section 2. Hecate (arXiv 2502.02581) Table 1 counts L * (E * (4 d^2 + 3 d) + 4 d^2),
 * without gate, norms and embeddings. tests/test_network.c compares totals with the checkpoints'.
 *
 * What it ignores: multi-token-prediction modules; scales of block-wise formats, but for MXFP4's;
 * that narrow formats compute faster; FLOPs of norms, biases, softmax and rotary embedding;
 * decoding MLA from the latent itself, whose scores cost otherwise. */
#ifndef MOE_MODELS_NETWORK_H
#define MOE_MODELS_NETWORK_H

#include "configs/config.h"

typedef enum moe_dtype { MOE_FP32, MOE_BF16, MOE_FP16, MOE_FP8, MOE_MXFP4 } moe_dtype;

typedef enum moe_attention {
    MOE_ATTENTION_MHA,
    MOE_ATTENTION_GQA,
    MOE_ATTENTION_MLA
} moe_attention;
typedef enum moe_attention_bias {
    MOE_ATTENTION_BIAS_NONE,
    MOE_ATTENTION_BIAS_QKV,
    MOE_ATTENTION_BIAS_QKVO
} moe_attention_bias;
typedef enum moe_qk_norm { MOE_QK_NORM_NONE, MOE_QK_NORM_HEAD, MOE_QK_NORM_FULL } moe_qk_norm;
typedef enum moe_norm { MOE_NORM_NONE, MOE_NORM_RMS, MOE_NORM_LAYER } moe_norm;

/* With 0 in all members that have a default, a plain network of identical MoE layers. */
typedef struct moe_network {
    const char *name;
    const char *source;
    int64_t layers;
    int64_t dense_layers; /* the first ones */
    int64_t hidden;       /* d */
    int64_t ffn;          /* f, of one expert */
    int64_t dense_ffn;    /* of a dense layer */
    bool gated;           /* three matrices instead of two */
    bool bias;            /* experts and dense FFNs carry biases */
    int64_t experts;      /* E, routed, of one layer */
    int64_t top_k;
    int64_t gate_groups; /* experts are in that many groups ... */
    int64_t top_groups;  /* ... of which a token may use so many; 1 and 1: no limit */
    bool gate_bias;
    int64_t shared_experts;
    int64_t shared_ffn; /* of one; 0: as ffn */
    int attention;      /* moe_attention */
    int64_t heads;      /* 0: not given, attention is d wide */
    int64_t kv_heads;   /* 0: as heads */
    int64_t head_dim;   /* 0: hidden / heads */
    int qk_norm;        /* moe_qk_norm */
    int attention_bias; /* moe_attention_bias */
    bool attention_sinks;
    int64_t q_lora_rank; /* 0: queries are not compressed */
    int64_t kv_lora_rank;
    int64_t qk_nope_head_dim;
    int64_t qk_rope_head_dim;
    int64_t v_head_dim;
    int64_t sliding_window;       /* tokens; 0: none */
    int64_t full_attention_every; /* n: the n-th, 2 n-th, ... layer has no window; 0: all have it */
    bool causal;
    int64_t sequence;   /* tokens of one sequence */
    int norm;           /* moe_norm */
    int64_t vocabulary; /* 0: embedding, head and loss are left out */
    bool tied_embeddings;
    int parameter_dtype;  /* moe_dtype: weights, and what the next two leave to it */
    int expert_dtype;     /* 0: as parameter_dtype, else moe_dtype + 1: weights of routed experts */
    int activation_dtype; /* likewise: activations, tokens on the wire, embedding and LM head */
    int gradient_dtype;
    double optimizer_bytes_per_parameter; /* 12: fp32 master copy, momentum, variance */
} moe_network;

/* Keys as the members; optimizer_bytes_per_parameter is a number. */
extern const moe_table moe_network_table;

/* Relations between keys (top_k <= experts, hidden % heads, ...). MOE_BAD_INPUT after printed
 * errors. */
moe_status moe_network_check(const moe_network *network, const moe_config *config, moe_diag *diag);

/* Layers are counted from 0, dense ones first. Placements and traces have MoE layers alone. */
int64_t moe_network_moe_layers(const moe_network *network);
bool moe_network_is_dense(const moe_network *network, int64_t layer);
bool moe_network_has_window(const moe_network *network, int64_t layer);
/* Width of a layer's shared experts as one FFN; 0: there are none. */
int64_t moe_network_shared_width(const moe_network *network);

double moe_dtype_bytes(int dtype);
double moe_network_activation_bytes(const moe_network *network); /* of one value */

/* --- parameters (counts, not bytes) ----------------------------------------------------------- */

double moe_network_ffn_parameters(const moe_network *network, int64_t width);
double moe_network_expert_parameters(const moe_network *network);    /* one routed expert */
double moe_network_attention_parameters(const moe_network *network); /* one layer */
double moe_network_gate_parameters(const moe_network *network);      /* one layer */
double moe_network_embedding_parameters(const moe_network *network); /* both tables, all */
/* All of a layer but its routed experts: what its gradient synchronisation sends. */
double moe_network_layer_parameters(const moe_network *network, int64_t layer);
/* Everything that is not a routed expert: replicated on every device. */
double moe_network_dense_parameters(const moe_network *network);
double moe_network_total_parameters(const moe_network *network); /* everything */
/* All but the experts that a token is not sent to. Both embedding tables are counted; some vendors
 * leave out the first, of which a token reads one row. */
double moe_network_active_parameters(const moe_network *network);
/* Table 1's: attention and routed experts alone. */
double moe_network_parameters(const moe_network *network);

/* --- bytes ------------------------------------------------------------------------------------ */

double moe_network_expert_bytes(const moe_network *network); /* one expert's parameters */
double moe_network_expert_gradient_bytes(const moe_network *network);
double moe_network_dense_bytes(const moe_network *network); /* of the dense parameters */
double moe_network_token_bytes(const moe_network *network); /* one token on the wire: d * dtype */
/* Cached keys and values of one token in one layer: 2 k e values, MLA r + p. */
double moe_network_kv_token_bytes(const moe_network *network);
/* Those of `context` tokens in all layers; a layer with a window keeps no more than that. */
double moe_network_kv_bytes(const moe_network *network, double context);

/* --- FLOPs, forward --------------------------------------------------------------------------- */

double moe_network_projection_flop(const moe_network *network, double tokens); /* attention's */
/* Tokens that a token of `layer` attends to, on average over a sequence. */
double moe_network_attended(const moe_network *network, int64_t layer);
/* Scores of `tokens` tokens that attend to `attended` tokens each. */
double moe_network_score_flop(const moe_network *network, double tokens, double attended);
/* Attention of a layer and, of an MoE layer, its gate; `tokens` tokens that attend to `attended` each. */
double moe_network_attention_flop(const moe_network *network, int64_t layer, double tokens,
                                  double attended);
/* The same in a sequence of training. */
double moe_network_layer_flop(const moe_network *network, int64_t layer, double tokens);
/* The same of an MoE layer, on average over them. */
double moe_network_dense_flop(const moe_network *network, double tokens);
double moe_network_ffn_flop(const moe_network *network, int64_t width, double tokens);
double moe_network_head_flop(const moe_network *network, double tokens); /* LM head */
/* A whole pass, routed experts and LM head included. */
double moe_network_forward_flop(const moe_network *network, double tokens);

/* --- device memory touched: weights once, activations in and out ------------------------------ */

double moe_network_layer_memory_bytes(const moe_network *network, int64_t layer, double tokens);
double moe_network_dense_memory_bytes(const moe_network *network, double tokens); /* MoE layer */
double moe_network_ffn_memory_bytes(const moe_network *network, int64_t width, double tokens);

/* --- values of a token that training keeps for the backward pass ------------------------------ */

/* Inputs and outputs of two norms, Q, K, V, MLA's latents, outputs of attention and projection:
 * with MHA 8 d. */
double moe_network_attention_values(const moe_network *network);
/* Around the activation of an FFN. */
double moe_network_ffn_values(const moe_network *network, int64_t width);

/* What follows from the shape, for people: "#   label   value" a line. */
void moe_network_print_derived(const moe_network *network, FILE *stream);

#endif
