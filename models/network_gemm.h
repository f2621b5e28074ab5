/* The matrix products of a network outside its routed experts: what a grid of measured GEMMs prices.
 *
 *   attention mha, gqa   t x (q + k + v) x d        queries, keys and values at once, as Megatron and vLLM do
 *                        t x d x o                  q, k, v, o: widths over all heads, d: hidden
 *             mla        t x s x d, t x q x s       or t x q x d where queries are not compressed
 *                        t x (r + p) x d, t x h (n + v) x r, t x d x h v      letters: models/network.h
 *   gate                 t x E x d
 *   FFN of width f       t x f x d (gated 2 f: gate and up at once), t x d x f
 *   LM head              t x V x d
 *
 * for t tokens, forward, written m x n x k. Their FLOPs, 2 m n k, add up to those of models/network.h.
 * With Y[m][n] = X[m][k] W[k][n] the gradients are products of as many FLOPs and other shapes:
 *
 *   of inputs    dX[m][k] = dY[m][n] W'[n][k]: m x k x n
 *   of weights   dW[k][n] = X'[k][m] dY[m][n]: k x n x m
 *
 * Decoding with absorbed MLA multiplies by the parts of W^UK and W^UV head by head; those are priced as
 * the t x h (n + v) x r they are in training: the same FLOPs and weights. */
#ifndef MOE_MODELS_NETWORK_GEMM_H
#define MOE_MODELS_NETWORK_GEMM_H

#include "models/network.h"
#include "models/profile.h"

enum { MOE_GEMMS = 6 }; /* of one part of a layer, at most: MLA and gate */

typedef struct moe_gemm_list {
    moe_gemm items[MOE_GEMMS];
    int count;
} moe_gemm_list;

/* Attention's projections and, of an MoE layer, its gate. */
moe_gemm_list moe_network_layer_gemms(const moe_network *network, int64_t layer, double tokens);
/* An FFN of `width`, as of a dense layer or of shared experts. Empty for width 0. */
moe_gemm_list moe_network_ffn_gemms(const moe_network *network, int64_t width, double tokens);
moe_gemm moe_network_head_gemm(const moe_network *network, double tokens);
/* MLA's expansion of `tokens` cached tokens to keys and values; count 0 for other attention. */
moe_gemm moe_network_expansion_gemm(const moe_network *network, double tokens);

/* The product that a phase makes of a forward one. */
moe_gemm moe_gemm_in_phase(const moe_gemm *forward, moe_phase phase);

/* FLOPs of all. */
double moe_gemm_list_flop(const moe_gemm_list *list);

#endif
