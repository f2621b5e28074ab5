/* What a step that serves computes beside experts: FLOPs and device memory touched, by what the cache holds.
 *
 *   prefill   `sequences` prompts of q = tokens / sequences tokens, c tokens of each already cached. A new
 *             token attends to c + q / 2 others on average (causal; c + q otherwise), in a layer with a window
 *             of w to no more than w:
 *                 c >= w: w;   c + q <= w: c + q / 2;   else ((w - c) (c + w) / 2 + (c + q - w) w) / q
 *             One kernel group, as in training, plus the cache that is read. MLA expands the cached latents
 *             again (2 r h (n + v) FLOPs a token, r: kv_lora_rank, h heads, n: qk_nope_head_dim, v: v_head_dim):
 *             what vLLM and SGLang do for chunks of a prompt. With nothing cached this is training's forward pass.
 *   decode    one token of each sequence attends to c tokens, its own included. Two kernel groups: projections
 *             and gate, bound by weights; and attention, bound by the cache: every sequence reads its own.
 *             MLA is absorbed (DeepSeek-V2, arXiv 2405.04434, section 2.1.2): W^UK goes into the query, W^UV
 *             into the output, so scores and values are taken on the latents, 2 c h ((r + p) + r) FLOPs
 *             (p: qk_rope_head_dim); the projections' FLOPs stay the same.
 *
 * Ignored: what paging and splitting of long sequences cost, prefixes that sequences share, queries of a group
 * that read the same keys twice. */
#ifndef MOE_MODELS_SERVING_H
#define MOE_MODELS_SERVING_H

#include "models/network.h"

typedef struct moe_serving_batch {
    double sequences;
    double tokens;  /* new ones, of all sequences */
    double context; /* of one sequence: cached before a prefill; attended to by a decode */
} moe_serving_batch;

typedef struct moe_serving_work {
    double flop;
    double bytes;
} moe_serving_work;

/* Tokens that a new token attends to, on average. */
double moe_prefill_attended(const moe_network *network, int64_t layer,
                            const moe_serving_batch *batch);
/* Cached tokens that a prefill reads, of all sequences. */
double moe_prefill_cached(const moe_network *network, int64_t layer,
                          const moe_serving_batch *batch);
double moe_decode_attended(const moe_network *network, int64_t layer, double context);

/* Attention and, of an MoE layer, its gate. */
moe_serving_work moe_prefill_work(const moe_network *network, int64_t layer,
                                    const moe_serving_batch *batch);
moe_serving_work moe_decode_projection_work(const moe_network *network, int64_t layer,
                                              const moe_serving_batch *batch);
moe_serving_work moe_decode_attention_work(const moe_network *network, int64_t layer,
                                             const moe_serving_batch *batch);

/* LM head and choice of the next token of every sequence: weights once, logits written and read. */
moe_serving_work moe_serving_head_work(const moe_network *network, double sequences);

#endif
