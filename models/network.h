/* The MoE model ("network"): its shape, and from it parameters, FLOPs and bytes.
 *
 * A transformer of `layers` identical blocks: attention (4 d^2 weights), then an MoE FFN of `experts`
 * experts, top-k per token. An expert has two matrices (d x f, f x d) or, gated, three, and optionally
 * biases (Hecate's 3d per expert with f = 2d: f + d). Counting rules, per token and direction:
 *
 *   matrix FLOPs          2 per weight forward; input gradient 2, weight gradient 2
 *   attention scores      forward 4 * s_eff * d (QK^T and AV), s_eff = sequence/2 if causal, else sequence
 *   attention projections 8 d^2 forward
 *   gate                  2 d E forward
 *   LM head               2 d V forward; embedding lookups cost memory traffic only
 *   parameters            layers * (4 d^2 + d E [gate, if counted] + E * expert)  + embeddings
 *
 * Sources: FLOP counting as in Korthikanti et al. 2022 (arXiv 2205.05198) appendix; Hecate (arXiv
 * 2502.02581) Table 1 counts L * (E * (4 d^2 + 3 d) + 4 d^2), without gate, norms and embeddings.
 *
 * What it ignores here: dense first layers, shared experts, GQA/MLA (a later issue adds them). */
#ifndef MOE_MODELS_NETWORK_H
#define MOE_MODELS_NETWORK_H

#include "configs/config.h"

typedef enum moe_dtype { MOE_FP32, MOE_BF16, MOE_FP16, MOE_FP8 } moe_dtype;

typedef struct moe_network {
    const char *name;
    const char *source;
    int64_t layers;
    int64_t hidden;      /* d */
    int64_t ffn;         /* f, of one expert */
    bool gated;          /* three matrices instead of two */
    bool bias;           /* experts carry biases */
    int64_t experts;     /* E, of one layer */
    int64_t top_k;
    int64_t gate_groups; /* experts are in that many groups ... */
    int64_t top_groups;  /* ... of which a token may use so many; 1 and 1: no limit */
    int64_t heads;
    bool causal;
    int64_t sequence;    /* tokens of one sequence */
    int64_t vocabulary;  /* 0: embedding, head and loss are left out */
    bool tied_embeddings;
    int parameter_dtype; /* moe_dtype: weights and activations on the wire and in memory */
    int gradient_dtype;
    double optimizer_bytes_per_parameter; /* 12: fp32 master copy, momentum, variance */
} moe_network;

extern const moe_table moe_network_table; /* keys as the members; optimizer_bytes_per_parameter is a number */

/* Relations between keys (top_k <= experts, hidden % heads, ...). MOE_BAD_INPUT after printed errors. */
moe_status moe_network_check(const moe_network *network, const moe_config *config, moe_diag *diag);

double moe_dtype_bytes(int dtype);

/* Parameters (counts, not bytes). */
double moe_network_expert_parameters(const moe_network *network);
double moe_network_attention_parameters(const moe_network *network);  /* 4 d^2, one layer */
double moe_network_gate_parameters(const moe_network *network);       /* d E, one layer */
double moe_network_embedding_parameters(const moe_network *network);  /* both tables, all */
double moe_network_parameters(const moe_network *network); /* Table 1's: no gate, no embeddings */
/* Everything that is not an expert: replicated on every device. */
double moe_network_dense_parameters(const moe_network *network);

/* Bytes. */
double moe_network_expert_bytes(const moe_network *network);  /* one expert's parameters */
double moe_network_expert_gradient_bytes(const moe_network *network);
double moe_network_token_bytes(const moe_network *network);   /* one token on the wire: d * dtype */

/* FLOPs of `tokens` tokens through the dense part of one layer (attention and gate), forward. */
double moe_network_dense_flop(const moe_network *network, double tokens);
/* Bytes of device memory that part touches (weights once, activations in and out). */
double moe_network_dense_memory_bytes(const moe_network *network, double tokens);
double moe_network_head_flop(const moe_network *network, double tokens); /* LM head, forward */

#endif
