/* The device code of the CUDA backend, behind C functions that enqueue on a stream.
 *
 * Three families: what is measured (permute, gate, softmax, norm, Adam, cross-entropy, activations;
 * plain, memory-bound kernels of our own, as a training framework without fused libraries has them),
 * what fills buffers (a counter-based hash, so that host and device know every value), and slow
 * references in double precision for the checks. Every function returns cudaGetLastError(). Sizes in
 * elements; `dtype` says what the pointers hold. */
#ifndef MOE_CALIBRATE_MEASURE_CUDA_KERNELS_H
#define MOE_CALIBRATE_MEASURE_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* As moecal_dtype, and two more that only buffers have. */
enum {
    MOECAL_ELEMENT_FP32,
    MOECAL_ELEMENT_BF16,
    MOECAL_ELEMENT_FP16,
    MOECAL_ELEMENT_FP8,
    MOECAL_ELEMENT_FP64,
    MOECAL_ELEMENT_BYTE
};

#ifdef __CUDACC__
#define MOECAL_EVERYWHERE __host__ __device__
#else
#define MOECAL_EVERYWHERE
#endif

/* Finaliser of SplitMix64 (Steele, Lea, Flood 2014): the value of element `index` of stream `seed`. */
static inline MOECAL_EVERYWHERE uint64_t moecal_hash(uint64_t seed, uint64_t index)
{
    uint64_t z = seed * 0xd1342543de82ef95ULL + (index + 1) * 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* What rank `rank` of `ranks` adds to element `index` of a reduction: whole numbers whose sum over all ranks
 * is at most 256, so that bf16 and fp16 hold it exactly in any order of summation. */
static inline MOECAL_EVERYWHERE int moecal_addend(int rank, int ranks, uint64_t index)
{
    int every = (ranks + 255) / 256;
    uint64_t bits = moecal_hash(1, index);
    if (ranks <= 32)
        return (int)(moecal_hash(bits, (uint64_t)rank) & 7);
    if (every == 1)
        return (int)(moecal_hash(bits, (uint64_t)rank) & 1);
    return (rank + (int)(bits & 0xffff)) % every == 0;
}

/* The label of a token, for the cross-entropy. */
static inline MOECAL_EVERYWHERE int64_t moecal_label(int64_t token, int64_t vocabulary)
{
    return (int64_t)(moecal_hash(2, (uint64_t)token) % (uint64_t)vocabulary);
}

/* --- filling ---------------------------------------------------------------------------------- */

/* About normal, of standard deviation |scale| (the sum of four uniforms); absolute values where it is < 0. */
cudaError_t moecal_kernel_fill(int dtype, void *data, int64_t count, uint64_t seed, float scale,
                               cudaStream_t stream);
cudaError_t moecal_kernel_fill_bytes(void *data, size_t bytes, uint64_t seed, cudaStream_t stream);
/* moecal_addend of this rank, element i: index `first + i`. */
cudaError_t moecal_kernel_fill_addends(int dtype, void *data, int64_t count, int64_t first,
                                       int rank, int ranks, cudaStream_t stream);
/* source[i] = the token whose row comes i-th in a pseudo-random order of tokens * top_k copies. */
cudaError_t moecal_kernel_fill_permutation(int32_t *source, int64_t tokens, int64_t top_k,
                                           cudaStream_t stream);

/* --- measured --------------------------------------------------------------------------------- */

cudaError_t moecal_kernel_empty(cudaStream_t stream);
/* Keeps a stream until *gate >= ticket (mapped host memory), or about 10 ms have passed. */
cudaError_t moecal_kernel_gate(const unsigned *gate, unsigned ticket, cudaStream_t stream);
/* out[i] = in[source[i]], rows of `hidden` elements. */
cudaError_t moecal_kernel_permute(int dtype, const void *in, const int32_t *source, void *out,
                                  int64_t rows, int64_t hidden, cudaStream_t stream);
/* Softmax over fp32 scores [tokens][experts]; the top_k largest probabilities and their experts, largest
 * first, equal ones by expert. */
cudaError_t moecal_kernel_top_k(const float *scores, float *weights, int32_t *chosen,
                                int64_t tokens, int64_t experts, int64_t top_k,
                                cudaStream_t stream);
/* h = gelu(a), or silu(a[0..ffn)) * a[ffn..2 ffn); a: [rows][ffn or 2 ffn] of `dtype` (fp8: bf16), h of `dtype`. */
cudaError_t moecal_kernel_activate(int dtype, int gated, const void *a, void *h, int64_t rows,
                                   int64_t ffn, cudaStream_t stream);
/* da from a and dh. Types as above: fp8 only for da. */
cudaError_t moecal_kernel_activate_back(int dtype, int gated, const void *a, const void *dh,
                                        void *da, int64_t rows, int64_t ffn, cudaStream_t stream);
/* RMS norm with weights. */
cudaError_t moecal_kernel_norm(int dtype, const void *in, const void *weight, void *out,
                               int64_t tokens, int64_t hidden, cudaStream_t stream);
/* One AdamW step: fp32 master parameter and two moments, parameter of `dtype` written. */
cudaError_t moecal_kernel_adam(int dtype, const void *gradient, float *master, float *first,
                               float *second, void *parameter, int64_t count, cudaStream_t stream);
/* In place: scores [batch][rows][columns], query row r stands at first_row + r; causal: columns beyond it
 * get 0. */
cudaError_t moecal_kernel_softmax(int dtype, void *scores, int64_t batch, int64_t rows,
                                  int64_t columns, int64_t first_row, int causal, float scale,
                                  cudaStream_t stream);
/* d_scores = p * (dp - sum(p dp)) * scale, in place of dp. */
cudaError_t moecal_kernel_softmax_back(int dtype, const void *p, void *dp, int64_t rows,
                                       int64_t columns, float scale, cudaStream_t stream);
/* loss[r] = log-sum-exp of logits [rows][vocabulary] less the one of label(first_row + r). */
cudaError_t moecal_kernel_cross_entropy(int dtype, const void *logits, float *loss, int64_t rows,
                                        int64_t vocabulary, int64_t first_row, cudaStream_t stream);

/* --- checks ----------------------------------------------------------------------------------- */

/* A matrix of any storage: element (i, j) at i * row_stride + j * column_stride. */
typedef struct moecal_view {
    const void *data;
    int dtype;
    int64_t row_stride, column_stride;
} moecal_view;

/* c[m][n] = alpha * a[m][k] b[k][n], all sums in double. */
cudaError_t moecal_kernel_reference_gemm(moecal_view a, moecal_view b, double *c, int64_t m,
                                         int64_t n, int64_t k, double alpha, cudaStream_t stream);
/* As moecal_kernel_activate and _back, in double. */
cudaError_t moecal_kernel_reference_activate(int gated, const double *a, double *h, int64_t rows,
                                             int64_t ffn, cudaStream_t stream);
cudaError_t moecal_kernel_reference_activate_back(int gated, moecal_view a, const double *dh,
                                                  double *da, int64_t rows, int64_t ffn,
                                                  cudaStream_t stream);
/* Rows of scaled scores to probabilities, in place; causal as above. */
cudaError_t moecal_kernel_reference_softmax(double *scores, int64_t rows, int64_t columns,
                                            int64_t first_row, int causal, double scale,
                                            cudaStream_t stream);
/* As moecal_kernel_softmax_back. */
cudaError_t moecal_kernel_reference_softmax_back(const double *p, double *dp, int64_t rows,
                                                 int64_t columns, double scale,
                                                 cudaStream_t stream);
cudaError_t moecal_kernel_to_double(int dtype, const void *data, double *out, int64_t count,
                                    cudaStream_t stream);
/* Adds to *wrong the bytes of data[0..bytes) that are not those of stream `seed` from `first` on. */
cudaError_t moecal_kernel_compare_bytes(const void *data, size_t bytes, uint64_t seed, size_t first,
                                        unsigned long long *wrong, cudaStream_t stream);
/* Adds to *wrong the elements i (every `step`-th) that are not the sum of the addends, at index first + i of
 * `ranks`, of the `members` (device memory; NULL: 0 .. member_count - 1). */
cudaError_t moecal_kernel_compare_sums(int dtype, const void *data, int64_t count, int64_t step,
                                       int64_t first, const int *members, int member_count,
                                       int ranks, unsigned long long *wrong, cudaStream_t stream);
/* Adds to *wrong the elements of out[rows][hidden] that are not in[source[row]]. */
cudaError_t moecal_kernel_compare_rows(int element_bytes, const void *in, const int32_t *source,
                                       const void *out, int64_t rows, int64_t hidden,
                                       unsigned long long *wrong, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
