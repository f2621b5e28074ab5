/* What one core computes of a training step, in fp32: the kernels that the CPU program's points time
 * and of which its --step is made, so that what is measured is what is run.
 *
 * Matrices are row-major: X [rows][columns]. Products are OpenBLAS's sgemm, one thread. Nothing here
 * allocates; no argument may overlap another unless it says so.
 *
 *   expert    plain: Y = gelu(X U) D      gated: Y = (silu(X G) * (X U)) D
 *             U, G [hidden][ffn], D [ffn][hidden]; gelu in its tanh form (Hendrycks and Gimpel 2016,
 *             arXiv 1606.08415), silu(x) = x sigmoid(x) (Shazeer 2020, arXiv 2002.05202)
 *   gate      softmax of X W, then the top k of each row
 *   attention softmax(Q K^T / sqrt(head_dim)) V per sequence and head; causal ones are computed in blocks of
 *             MOECAL_ATTENTION_BLOCK queries, each with the keys up to its end
 *   norm      x / sqrt(mean(x^2) + 1e-6) * scale (Zhang and Sennrich 2019, arXiv 1910.07467)
 *   adam      Kingma and Ba 2014 (arXiv 1412.6980), with a master copy beside the parameter */
#ifndef MOE_CALIBRATE_MEASURE_CPU_KERNELS_H
#define MOE_CALIBRATE_MEASURE_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOECAL_ATTENTION_BLOCK = 64 };

/* C [m][n] = op(A) op(B), where op transposes if asked to: A is then stored [k][m], B [n][k]. */
void moecal_cpu_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                     const float *a, const float *b, float *c);

/* One expert, or its gradients. `gate` NULL: plain. */
typedef struct moecal_cpu_weights {
    float *up, *gate, *down;
} moecal_cpu_weights;

/* What the forward pass leaves for the backward pass, [rows][ffn] each; `gate` and `dgate`: gated ones alone. */
typedef struct moecal_cpu_kept {
    float *up, *gate; /* before the activation */
    float *inner;     /* what `down` multiplies */
    float *dup,
        *dgate; /* gradients of `up` and `gate`: written by the input gradient, read by the weights' */
} moecal_cpu_kept;

void moecal_cpu_expert_forward(int64_t rows, int64_t hidden, int64_t ffn, const float *x,
                               const moecal_cpu_weights *weights, const moecal_cpu_kept *kept,
                               float *y);
void moecal_cpu_expert_input_gradient(int64_t rows, int64_t hidden, int64_t ffn, const float *dy,
                                      const moecal_cpu_weights *weights,
                                      const moecal_cpu_kept *kept, float *dx);
void moecal_cpu_expert_weight_gradient(int64_t rows, int64_t hidden, int64_t ffn, const float *x,
                                       const float *dy, const moecal_cpu_kept *kept,
                                       const moecal_cpu_weights *gradients);

/* to[i] = from[index[i]], rows of `hidden` values. */
void moecal_cpu_gather(int64_t count, int64_t hidden, const int32_t *index, const float *from,
                       float *to);
/* to[t] = sum of weight * from[slot[i]] over first[t] <= i < first[t + 1]. */
void moecal_cpu_gather_sum(int64_t tokens, int64_t hidden, const int32_t *first,
                           const int32_t *slot, float weight, const float *from, float *to);

/* scores [tokens][experts] become probabilities; chosen [tokens][top_k], best first. */
void moecal_cpu_gate(int64_t tokens, int64_t hidden, int64_t experts, int64_t top_k, const float *x,
                     const float *weights, float *scores, int32_t *chosen);

/* Rows of q, k, v and their gradients lie `stride` values apart: head h of token t at t * stride + h *
 * head_dim. Query head h uses key head h / (heads / kv_heads). */
typedef struct moecal_cpu_attention {
    int64_t sequences, sequence, heads, kv_heads, head_dim;
    bool causal;
    int64_t stride; /* of q, k, v; the output's is heads * head_dim */
} moecal_cpu_attention;

/* probabilities [sequences][heads][sequence][sequence], kept for the backward pass. */
void moecal_cpu_attention_forward(const moecal_cpu_attention *shape, const float *q, const float *k,
                                  const float *v, float *probabilities, float *output);
/* scratch [MOECAL_ATTENTION_BLOCK][sequence]. dq, dk and dv are overwritten. */
void moecal_cpu_attention_backward(const moecal_cpu_attention *shape, const float *q,
                                   const float *k, const float *v, const float *probabilities,
                                   const float *output, const float *doutput, float *scratch,
                                   float *dq, float *dk, float *dv);

void moecal_cpu_norm(int64_t tokens, int64_t hidden, const float *x, const float *scale, float *y);

typedef struct moecal_cpu_adam {
    float *parameter;
    const float *gradient;
    float *master, *momentum, *variance;
} moecal_cpu_adam;

void moecal_cpu_adam_update(int64_t count, const moecal_cpu_adam *state, int step);

/* Logits [tokens][vocabulary] = X W, W [hidden][vocabulary]; cross entropy with `target`; the logits
 * become their gradient. Returns the mean loss. */
double moecal_cpu_head(int64_t tokens, int64_t hidden, int64_t vocabulary, const float *x,
                       const float *weights, const int32_t *target, float *logits);

/* y += x. */
void moecal_cpu_add(int64_t count, const float *x, float *y);

#endif
