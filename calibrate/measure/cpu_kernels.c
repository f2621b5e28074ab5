#include "calibrate/measure/cpu_kernels.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

/* Loops over values are compiled for several widths of vectors; the best is chosen when the program
 * starts. The sanitizers' start-up does not bear that. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(MOEPLAN_SANITIZED)
#define VECTORS __attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#else
#define VECTORS __attribute__((noinline))
#endif

static void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                 const float *a, int64_t a_stride, const float *b, int64_t b_stride, float beta,
                 float *c, int64_t c_stride)
{
    cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                transpose_b ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, alpha,
                a, (blasint)a_stride, b, (blasint)b_stride, beta, c, (blasint)c_stride);
}

void moecal_cpu_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                     const float *a, const float *b, float *c)
{
    gemm(transpose_a, transpose_b, m, n, k, 1, a, transpose_a ? m : k, b, transpose_b ? k : n, 0, c,
         n);
}

/* --- activations ------------------------------------------------------------------------------ */

/* e^x to about 2e-7, relative: 2^n times a polynomial of degree 6 in the rest (Taylor, |rest| <= ln 2
 * / 2). No branches and no calls, so that loops become vectors. */
static inline float exp_fast(float x)
{
    const float log2e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    x = x > 87 ? 87 : x < -87 ? -87 : x;
    float shifted = x * log2e + 12582912.0f; /* 1.5 * 2^23: rounds to the nearest integer */
    float n = shifted - 12582912.0f;
    float r = x - n * ln2_high - n * ln2_low;
    float p =
        1 +
        r * (1 + r * (0.5f + r * (0.166666667f + r * (0.0416666667f +
                                                      r * (0.00833333333f + r * 0.00138888889f)))));
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

static inline float sigmoid(float x)
{
    return 1 / (1 + exp_fast(-x));
}

/* tanh form: x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)). */
static const float gelu_scale = 1.595769122f, gelu_cube = 0.044715f;

VECTORS static void gelu(int64_t count, const float *restrict x, float *restrict y)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = x[i] * sigmoid(gelu_scale * (x[i] + gelu_cube * x[i] * x[i] * x[i]));
}

/* d: in, the gradient of y; out, that of x. */
VECTORS static void gelu_gradient(int64_t count, const float *restrict x, float *restrict d)
{
    for (int64_t i = 0; i < count; i++) {
        float square = x[i] * x[i];
        float s = sigmoid(gelu_scale * x[i] * (1 + gelu_cube * square));
        float inner = gelu_scale * (1 + 3 * gelu_cube * square);
        d[i] *= s + x[i] * s * (1 - s) * inner;
    }
}

VECTORS static void silu_product(int64_t count, const float *restrict gate,
                                 const float *restrict up, float *restrict y)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

/* dup: in, the gradient of y. */
VECTORS static void silu_product_gradient(int64_t count, const float *restrict gate,
                                          const float *restrict up, float *restrict dup,
                                          float *restrict dgate)
{
    for (int64_t i = 0; i < count; i++) {
        float s = sigmoid(gate[i]), dy = dup[i];
        dup[i] = dy * gate[i] * s;
        dgate[i] = dy * up[i] * s * (1 + gate[i] * (1 - s));
    }
}

/* --- experts ---------------------------------------------------------------------------------- */

void moecal_cpu_expert_forward(int64_t rows, int64_t hidden, int64_t ffn, const float *x,
                               const moecal_cpu_weights *weights, const moecal_cpu_kept *kept,
                               float *y)
{
    if (rows == 0)
        return;
    moecal_cpu_gemm(false, false, rows, ffn, hidden, x, weights->up, kept->up);
    if (weights->gate) {
        moecal_cpu_gemm(false, false, rows, ffn, hidden, x, weights->gate, kept->gate);
        silu_product(rows * ffn, kept->gate, kept->up, kept->inner);
    } else {
        gelu(rows * ffn, kept->up, kept->inner);
    }
    moecal_cpu_gemm(false, false, rows, hidden, ffn, kept->inner, weights->down, y);
}

void moecal_cpu_expert_input_gradient(int64_t rows, int64_t hidden, int64_t ffn, const float *dy,
                                      const moecal_cpu_weights *weights,
                                      const moecal_cpu_kept *kept, float *dx)
{
    if (rows == 0)
        return;
    moecal_cpu_gemm(false, true, rows, ffn, hidden, dy, weights->down, kept->dup);
    if (weights->gate)
        silu_product_gradient(rows * ffn, kept->gate, kept->up, kept->dup, kept->dgate);
    else
        gelu_gradient(rows * ffn, kept->up, kept->dup);
    moecal_cpu_gemm(false, true, rows, hidden, ffn, kept->dup, weights->up, dx);
    if (weights->gate)
        gemm(false, true, rows, hidden, ffn, 1, kept->dgate, ffn, weights->gate, ffn, 1, dx,
             hidden);
}

/* An expert without rows has a gradient of zero. */
void moecal_cpu_expert_weight_gradient(int64_t rows, int64_t hidden, int64_t ffn, const float *x,
                                       const float *dy, const moecal_cpu_kept *kept,
                                       const moecal_cpu_weights *gradients)
{
    if (rows == 0) {
        size_t bytes = (size_t)(hidden * ffn) * sizeof(float);
        memset(gradients->up, 0, bytes);
        memset(gradients->down, 0, bytes);
        if (gradients->gate)
            memset(gradients->gate, 0, bytes);
        return;
    }
    moecal_cpu_gemm(true, false, ffn, hidden, rows, kept->inner, dy, gradients->down);
    moecal_cpu_gemm(true, false, hidden, ffn, rows, x, kept->dup, gradients->up);
    if (gradients->gate)
        moecal_cpu_gemm(true, false, hidden, ffn, rows, x, kept->dgate, gradients->gate);
}

/* --- rows ------------------------------------------------------------------------------------- */

void moecal_cpu_gather(int64_t count, int64_t hidden, const int32_t *index, const float *from,
                       float *to)
{
    for (int64_t i = 0; i < count; i++)
        memcpy(to + i * hidden, from + (int64_t)index[i] * hidden, (size_t)hidden * sizeof *to);
}

VECTORS static void add_scaled(int64_t count, float weight, const float *restrict x,
                               float *restrict y)
{
    for (int64_t i = 0; i < count; i++)
        y[i] += weight * x[i];
}

VECTORS static void set_scaled(int64_t count, float weight, const float *restrict x,
                               float *restrict y)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = weight * x[i];
}

void moecal_cpu_gather_sum(int64_t tokens, int64_t hidden, const int32_t *first,
                           const int32_t *slot, float weight, const float *from, float *to)
{
    for (int64_t token = 0; token < tokens; token++, to += hidden) {
        if (first[token] == first[token + 1])
            memset(to, 0, (size_t)hidden * sizeof *to);
        for (int32_t i = first[token]; i < first[token + 1]; i++)
            (i == first[token] ? set_scaled : add_scaled)(hidden, weight,
                                                          from + (int64_t)slot[i] * hidden, to);
    }
}

void moecal_cpu_add(int64_t count, const float *x, float *y)
{
    add_scaled(count, 1, x, y);
}

/* --- gate ------------------------------------------------------------------------------------- */

VECTORS static float largest_of(int64_t count, const float *restrict x)
{
    float largest = x[0];
    for (int64_t i = 1; i < count; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

/* exp(x - largest), in place. */
VECTORS static void exponentials(int64_t count, float largest, float *restrict x)
{
    for (int64_t i = 0; i < count; i++)
        x[i] = exp_fast(x[i] - largest);
}

/* In several strands, which the compiler may not make of a plain sum. */
VECTORS static float sum_of(int64_t count, const float *restrict x)
{
    float strands[16] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        for (int j = 0; j < 16; j++)
            strands[j] += x[i + j];
    for (; i < count; i++)
        sum += x[i];
    for (int j = 0; j < 16; j++)
        sum += strands[j];
    return sum;
}

VECTORS static float dot(int64_t count, const float *restrict x, const float *restrict y)
{
    float strands[16] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        for (int j = 0; j < 16; j++)
            strands[j] += x[i + j] * y[i + j];
    for (; i < count; i++)
        sum += x[i] * y[i];
    for (int j = 0; j < 16; j++)
        sum += strands[j];
    return sum;
}

VECTORS static void scale_by(int64_t count, float factor, float *restrict x)
{
    for (int64_t i = 0; i < count; i++)
        x[i] *= factor;
}

static float softmax(int64_t count, float *x)
{
    exponentials(count, largest_of(count, x), x);
    float sum = sum_of(count, x);
    scale_by(count, 1 / sum, x);
    return sum;
}

/* Insertion into the best so far. */
static void top_of_row(int64_t experts, int64_t top_k, const float *scores, int32_t *chosen)
{
    int64_t have = 0;
    for (int32_t expert = 0; expert < experts; expert++) {
        int64_t place = have;
        while (place > 0 && scores[chosen[place - 1]] < scores[expert])
            place--;
        if (place == top_k)
            continue;
        have += have < top_k;
        for (int64_t i = have - 1; i > place; i--)
            chosen[i] = chosen[i - 1];
        chosen[place] = expert;
    }
}

void moecal_cpu_gate(int64_t tokens, int64_t hidden, int64_t experts, int64_t top_k, const float *x,
                     const float *weights, float *scores, int32_t *chosen)
{
    moecal_cpu_gemm(false, false, tokens, experts, hidden, x, weights, scores);
    for (int64_t token = 0; token < tokens; token++) {
        softmax(experts, scores + token * experts);
        top_of_row(experts, top_k, scores + token * experts, chosen + token * top_k);
    }
}

/* --- attention -------------------------------------------------------------------------------- */

/* One block of queries of one head, and the keys it sees. */
typedef struct block {
    int64_t head, kv_head; /* offsets of values within a row */
    int64_t first, count;  /* queries, from the start of the sequence */
    int64_t keys;
    int64_t row;           /* of the sequence's first token */
    int64_t probabilities; /* offset */
} block;

static block block_at(const moecal_cpu_attention *shape, int64_t sequence, int64_t head,
                      int64_t first)
{
    int64_t s = shape->sequence, left = s - first;
    int64_t count = left < MOECAL_ATTENTION_BLOCK ? left : MOECAL_ATTENTION_BLOCK;
    return (block){.head = head * shape->head_dim,
                   .kv_head = head / (shape->heads / shape->kv_heads) * shape->head_dim,
                   .first = first,
                   .count = count,
                   .keys = shape->causal ? first + count : s,
                   .row = sequence * s,
                   .probabilities = ((sequence * shape->heads + head) * s + first) * s};
}

/* Probabilities of one query; what a causal one may not see is 0. */
static void softmax_row(const block *at, bool causal, int64_t query, float *row)
{
    int64_t seen = causal ? at->first + query + 1 : at->keys;
    softmax(seen, row);
    if (seen < at->keys)
        memset(row + seen, 0, (size_t)(at->keys - seen) * sizeof *row);
}

static void forward_block(const moecal_cpu_attention *shape, const block *at, const float *q,
                          const float *k, const float *v, float *probabilities, float *output)
{
    int64_t stride = shape->stride, s = shape->sequence, e = shape->head_dim,
            width = shape->heads * e;
    float *rows = probabilities + at->probabilities;
    gemm(false, true, at->count, at->keys, e, 1 / sqrtf((float)e),
         q + (at->row + at->first) * stride + at->head, stride, k + at->row * stride + at->kv_head,
         stride, 0, rows, s);
    for (int64_t query = 0; query < at->count; query++)
        softmax_row(at, shape->causal, query, rows + query * s);
    gemm(false, false, at->count, e, at->keys, 1, rows, s, v + at->row * stride + at->kv_head,
         stride, 0, output + (at->row + at->first) * width + at->head, width);
}

void moecal_cpu_attention_forward(const moecal_cpu_attention *shape, const float *q, const float *k,
                                  const float *v, float *probabilities, float *output)
{
    for (int64_t sequence = 0; sequence < shape->sequences; sequence++)
        for (int64_t head = 0; head < shape->heads; head++)
            for (int64_t first = 0; first < shape->sequence; first += MOECAL_ATTENTION_BLOCK) {
                block at = block_at(shape, sequence, head, first);
                forward_block(shape, &at, q, k, v, probabilities, output);
            }
}

/* scratch: probability * (its gradient - the row's mean gradient), the scale included. */
VECTORS static void score_gradient(int64_t count, float mean, float scale,
                                   const float *restrict probabilities, float *restrict gradient)
{
    for (int64_t i = 0; i < count; i++)
        gradient[i] = probabilities[i] * (gradient[i] - mean) * scale;
}

typedef struct gradients {
    float *dq, *dk, *dv;
} gradients;

static void backward_block(const moecal_cpu_attention *shape, const block *at, const float *q,
                           const float *k, const float *v, const float *probabilities,
                           const float *output, const float *doutput, float *scratch,
                           const gradients *to)
{
    int64_t stride = shape->stride, s = shape->sequence, e = shape->head_dim,
            width = shape->heads * e;
    int64_t queries = (at->row + at->first) * stride + at->head;
    int64_t keys = at->row * stride + at->kv_head;
    int64_t outputs = (at->row + at->first) * width + at->head;
    const float *rows = probabilities + at->probabilities;
    gemm(true, false, at->keys, e, at->count, 1, rows, s, doutput + outputs, width, 1,
         to->dv + keys, stride);
    gemm(false, true, at->count, at->keys, e, 1, doutput + outputs, width, v + keys, stride, 0,
         scratch, s);
    for (int64_t query = 0; query < at->count; query++) {
        float mean = dot(e, output + outputs + query * width, doutput + outputs + query * width);
        score_gradient(at->keys, mean, 1 / sqrtf((float)e), rows + query * s, scratch + query * s);
    }
    gemm(false, false, at->count, e, at->keys, 1, scratch, s, k + keys, stride, 0, to->dq + queries,
         stride);
    gemm(true, false, at->keys, e, at->count, 1, scratch, s, q + queries, stride, 1, to->dk + keys,
         stride);
}

static void clear_rows(int64_t rows, int64_t width, int64_t stride, float *values)
{
    for (int64_t row = 0; row < rows; row++)
        memset(values + row * stride, 0, (size_t)width * sizeof *values);
}

void moecal_cpu_attention_backward(const moecal_cpu_attention *shape, const float *q,
                                   const float *k, const float *v, const float *probabilities,
                                   const float *output, const float *doutput, float *scratch,
                                   float *dq, float *dk, float *dv)
{
    const gradients to = {dq, dk, dv};
    int64_t tokens = shape->sequences * shape->sequence;
    clear_rows(tokens, shape->kv_heads * shape->head_dim, shape->stride, dk);
    clear_rows(tokens, shape->kv_heads * shape->head_dim, shape->stride, dv);
    for (int64_t sequence = 0; sequence < shape->sequences; sequence++)
        for (int64_t head = 0; head < shape->heads; head++)
            for (int64_t first = 0; first < shape->sequence; first += MOECAL_ATTENTION_BLOCK) {
                block at = block_at(shape, sequence, head, first);
                backward_block(shape, &at, q, k, v, probabilities, output, doutput, scratch, &to);
            }
}

/* --- the rest --------------------------------------------------------------------------------- */

VECTORS static void scale_rows(int64_t count, float factor, const float *restrict x,
                               const float *restrict scale, float *restrict y)
{
    for (int64_t i = 0; i < count; i++)
        y[i] = x[i] * factor * scale[i];
}

void moecal_cpu_norm(int64_t tokens, int64_t hidden, const float *x, const float *scale, float *y)
{
    for (int64_t token = 0; token < tokens; token++, x += hidden, y += hidden) {
        float mean = dot(hidden, x, x) / (float)hidden;
        scale_rows(hidden, 1 / sqrtf(mean + 1e-6f), x, scale, y);
    }
}

VECTORS static void adam(int64_t count, float rate, float epsilon, const float *restrict gradient,
                         float *restrict master, float *restrict momentum, float *restrict variance,
                         float *restrict parameter)
{
    for (int64_t i = 0; i < count; i++) {
        float g = gradient[i];
        float m = 0.9f * momentum[i] + 0.1f * g;
        float v = 0.999f * variance[i] + 0.001f * g * g;
        float updated = master[i] - rate * m / (sqrtf(v) + epsilon);
        momentum[i] = m;
        variance[i] = v;
        master[i] = updated;
        parameter[i] = updated;
    }
}

/* The corrections of the first steps are folded into rate and epsilon. */
void moecal_cpu_adam_update(int64_t count, const moecal_cpu_adam *state, int step)
{
    double first = 1 - pow(0.9, step), second = sqrt(1 - pow(0.999, step));
    adam(count, (float)(1e-4 * second / first), (float)(1e-8 * second), state->gradient,
         state->master, state->momentum, state->variance, state->parameter);
}

double moecal_cpu_head(int64_t tokens, int64_t hidden, int64_t vocabulary, const float *x,
                       const float *weights, const int32_t *target, float *logits)
{
    double loss = 0;
    moecal_cpu_gemm(false, false, tokens, vocabulary, hidden, x, weights, logits);
    for (int64_t token = 0; token < tokens; token++, logits += vocabulary) {
        softmax(vocabulary, logits);
        loss -= log(fmax(logits[target[token]], 1e-30));
        logits[target[token]] -= 1;
        scale_by(vocabulary, 1 / (float)tokens, logits);
    }
    return loss / (double)tokens;
}
