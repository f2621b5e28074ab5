#include "calibrate/measure/cuda_kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

namespace
{

using bf16 = __nv_bfloat16;
using fp16 = __half;
using fp8 = __nv_fp8_e4m3;

constexpr int threads = 256;
constexpr unsigned everyone = 0xffffffffu;

/* --- launching -------------------------------------------------------------------------------- */

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, cudaStream_t stream,
                   Arguments... arguments)
{
    if (blocks <= 0)
        return cudaSuccess;
    kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(arguments...);
    return cudaGetLastError();
}

/* For kernels whose threads walk over all elements. */
int64_t blocks_for(int64_t count)
{
    int64_t blocks = (count + threads - 1) / threads;
    return blocks < 65536 ? blocks : 65536;
}

/* Calls function(a value of the type). */
template <typename Function> cudaError_t by_type(int dtype, Function function)
{
    switch (dtype) {
    case MOECAL_ELEMENT_FP32:
        return function(0.0f);
    case MOECAL_ELEMENT_BF16:
        return function(bf16());
    case MOECAL_ELEMENT_FP16:
        return function(fp16());
    default:
        return cudaErrorInvalidValue;
    }
}

/* --- values ----------------------------------------------------------------------------------- */

__device__ float widen(float value)
{
    return value;
}
__device__ float widen(bf16 value)
{
    return __bfloat162float(value);
}
__device__ float widen(fp16 value)
{
    return __half2float(value);
}
__device__ float widen(fp8 value)
{
    return static_cast<float>(value);
}

__device__ void narrow(float value, float *out)
{
    *out = value;
}
__device__ void narrow(float value, bf16 *out)
{
    *out = __float2bfloat16(value);
}
__device__ void narrow(float value, fp16 *out)
{
    *out = __float2half(value);
}
__device__ void narrow(float value, fp8 *out)
{
    *out = fp8(value);
}

/* Several neighbours, moved by one instruction. */
template <typename T, int Width> struct alignas(sizeof(T) * Width) pack {
    T value[Width];
};

/* 16 B of the wider type where rows allow it. */
template <typename T> constexpr int wide = 16 / static_cast<int>(sizeof(T));

__device__ int64_t first_index()
{
    return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ int64_t index_step()
{
    return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

struct add {
    __device__ float operator()(float a, float b) const
    {
        return a + b;
    }
};
struct larger {
    __device__ float operator()(float a, float b) const
    {
        return a > b ? a : b;
    }
};

/* Over a whole block; every thread gets the result. */
template <typename Combine> __device__ float reduce(float value, Combine combine)
{
    __shared__ float part[threads / 32];
    for (int distance = 16; distance > 0; distance /= 2)
        value = combine(value, __shfl_xor_sync(everyone, value, distance));
    __syncthreads(); /* the last use of `part` is over */
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = value;
    __syncthreads();
    value = part[0];
    for (int i = 1; i < threads / 32; i++)
        value = combine(value, part[i]);
    return value;
}

/* --- filling ---------------------------------------------------------------------------------- */

__device__ float normal(uint64_t seed, int64_t index)
{
    uint64_t bits = moecal_hash(seed, static_cast<uint64_t>(index));
    int sum = static_cast<int>(bits & 0xffff) + static_cast<int>(bits >> 16 & 0xffff) +
              static_cast<int>(bits >> 32 & 0xffff) + static_cast<int>(bits >> 48 & 0xffff);
    return static_cast<float>(sum - 131070) *
           (1.7320508f / 65536.0f); /* variance 4/12 of 65536^2 */
}

template <typename T> __global__ void fill(T *data, int64_t count, uint64_t seed, float scale)
{
    for (int64_t i = first_index(); i < count; i += index_step()) {
        float value = normal(seed, i) * scale;
        narrow(scale < 0 ? fabsf(value) : value, data + i);
    }
}

__device__ unsigned char byte_of(uint64_t seed, uint64_t offset)
{
    return static_cast<unsigned char>(moecal_hash(seed, offset / 8) >> 8 * (offset % 8));
}

__global__ void fill_bytes(unsigned char *data, int64_t bytes, uint64_t seed)
{
    for (int64_t i = first_index(); i < bytes; i += index_step())
        data[i] = byte_of(seed, static_cast<uint64_t>(i));
}

template <typename T>
__global__ void fill_addends(T *data, int64_t count, int64_t first, int rank, int ranks)
{
    for (int64_t i = first_index(); i < count; i += index_step())
        narrow(static_cast<float>(moecal_addend(rank, ranks, static_cast<uint64_t>(first + i))),
               data + i);
}

/* i -> i * odd + odd mod 2^bits, repeated until it falls into range: a permutation (cycle walking). */
__global__ void fill_permutation(int32_t *source, int64_t rows, int64_t top_k, int64_t mask)
{
    for (int64_t i = first_index(); i < rows; i += index_step()) {
        uint64_t row = static_cast<uint64_t>(i);
        do
            row =
                (row * 0x5851f42d4c957f2dULL + 0x14057b7ef767814fULL) & static_cast<uint64_t>(mask);
        while (row >= static_cast<uint64_t>(rows));
        source[i] = static_cast<int32_t>(static_cast<int64_t>(row) / top_k);
    }
}

/* --- measured --------------------------------------------------------------------------------- */

__global__ void nothing()
{
}

__global__ void wait_for(const volatile unsigned *gate, unsigned ticket)
{
    long long start = clock64();
    while (static_cast<int>(*gate - ticket) < 0 && clock64() - start < 20000000)
        ;
}

template <typename T>
__global__ void permute(const T *in, const int32_t *source, T *out, int64_t rows, int64_t width)
{
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const T *from = in + source[row] * width;
        T *to = out + row * width;
        for (int64_t i = threadIdx.x; i < width; i += threads)
            to[i] = from[i];
    }
}

/* The best of a warp's candidates: larger first, then smaller index. */
__device__ void best_of_warp(float *value, int *index)
{
    for (int distance = 16; distance > 0; distance /= 2) {
        float other = __shfl_xor_sync(everyone, *value, distance);
        int other_index = __shfl_xor_sync(everyone, *index, distance);
        if (other > *value || (other == *value && other_index < *index)) {
            *value = other;
            *index = other_index;
        }
    }
}

/* Sum over a warp of exp(score - largest). */
__device__ float warp_sum(const float *score, int64_t experts, float largest)
{
    float sum = 0;
    for (int64_t i = threadIdx.x % 32; i < experts; i += 32)
        sum += __expf(score[i] - largest);
    for (int distance = 16; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(everyone, sum, distance);
    return sum;
}

/* A warp a token. Each round takes the best of what comes after the last one taken. */
__global__ void top_k_of(const float *scores, float *weights, int32_t *chosen, int64_t tokens,
                         int64_t experts, int64_t top_k)
{
    int64_t token = first_index() / 32;
    if (token >= tokens)
        return;
    const float *score = scores + token * experts;
    float last = INFINITY, largest = 0, sum = 1;
    int last_index = -1;
    for (int64_t round = 0; round < top_k; round++) {
        float value = -INFINITY;
        int index = 0x7fffffff;
        for (int64_t i = threadIdx.x % 32; i < experts; i += 32) {
            bool after = score[i] < last || (score[i] == last && i > last_index);
            if (after && score[i] > value) {
                value = score[i];
                index = static_cast<int>(i);
            }
        }
        best_of_warp(&value, &index);
        last = value;
        last_index = index;
        if (round == 0) {
            largest = value;
            sum = warp_sum(score, experts, largest);
        }
        if (threadIdx.x % 32 == 0) {
            weights[token * top_k + round] = __expf(value - largest) / sum;
            chosen[token * top_k + round] = index;
        }
    }
}

__device__ float gelu(float a)
{
    return 0.5f * a * (1 + erff(a * 0.70710678f));
}

__device__ float gelu_slope(float a)
{
    return 0.5f * (1 + erff(a * 0.70710678f)) + a * 0.39894228f * __expf(-0.5f * a * a);
}

__device__ float sigmoid(float a)
{
    return 1 / (1 + __expf(-a));
}

__device__ float silu_slope(float a)
{
    float s = sigmoid(a);
    return s * (1 + a * (1 - s));
}

template <typename A, typename H, int Width>
__global__ void activate(int gated, const A *a, H *h, int64_t rows, int64_t ffn)
{
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const A *gate = a + row * (gated ? 2 * ffn : ffn);
        for (int64_t i = threadIdx.x * Width; i < ffn; i += threads * Width) {
            auto in = *reinterpret_cast<const pack<A, Width> *>(gate + i);
            auto up = in;
            pack<H, Width> out;
            if (gated)
                up = *reinterpret_cast<const pack<A, Width> *>(gate + ffn + i);
            for (int j = 0; j < Width; j++) {
                float x = widen(in.value[j]);
                narrow(gated ? x * sigmoid(x) * widen(up.value[j]) : gelu(x), out.value + j);
            }
            *reinterpret_cast<pack<H, Width> *>(h + row * ffn + i) = out;
        }
    }
}

template <typename A, typename D, int Width>
__global__ void activate_back(int gated, const A *a, const A *dh, D *da, int64_t rows, int64_t ffn)
{
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        int64_t start = row * (gated ? 2 * ffn : ffn);
        for (int64_t i = threadIdx.x * Width; i < ffn; i += threads * Width) {
            auto in = *reinterpret_cast<const pack<A, Width> *>(a + start + i);
            auto slope = *reinterpret_cast<const pack<A, Width> *>(dh + row * ffn + i);
            auto up = in;
            pack<D, Width> d_gate, d_up;
            if (gated)
                up = *reinterpret_cast<const pack<A, Width> *>(a + start + ffn + i);
            for (int j = 0; j < Width; j++) {
                float x = widen(in.value[j]), d = widen(slope.value[j]);
                narrow(gated ? d * widen(up.value[j]) * silu_slope(x) : d * gelu_slope(x),
                       d_gate.value + j);
                narrow(d * x * sigmoid(x), d_up.value + j);
            }
            *reinterpret_cast<pack<D, Width> *>(da + start + i) = d_gate;
            if (gated)
                *reinterpret_cast<pack<D, Width> *>(da + start + ffn + i) = d_up;
        }
    }
}

template <typename T, int Width>
__global__ void norm(const T *in, const T *weight, T *out, int64_t tokens, int64_t hidden)
{
    for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
        const T *row = in + token * hidden;
        float sum = 0;
        for (int64_t i = threadIdx.x * Width; i < hidden; i += threads * Width) {
            auto x = *reinterpret_cast<const pack<T, Width> *>(row + i);
            for (int j = 0; j < Width; j++)
                sum += widen(x.value[j]) * widen(x.value[j]);
        }
        float scale = rsqrtf(reduce(sum, add()) / static_cast<float>(hidden) + 1e-6f);
        for (int64_t i = threadIdx.x * Width; i < hidden; i += threads * Width) {
            auto x = *reinterpret_cast<const pack<T, Width> *>(row + i);
            auto w = *reinterpret_cast<const pack<T, Width> *>(weight + i);
            for (int j = 0; j < Width; j++)
                narrow(widen(x.value[j]) * scale * widen(w.value[j]), x.value + j);
            *reinterpret_cast<pack<T, Width> *>(out + token * hidden + i) = x;
        }
    }
}

/* AdamW (Loshchilov, Hutter 2019), step 1 of rate 1e-3, betas 0.9 and 0.95, decay 0.1: bias corrections 10
 * and 20. */
template <typename T>
__global__ void adam(const T *gradient, float *master, float *first, float *second, T *parameter,
                     int64_t count)
{
    for (int64_t i = first_index(); i < count; i += index_step()) {
        float g = widen(gradient[i]);
        float m = 0.9f * first[i] + 0.1f * g;
        float v = 0.95f * second[i] + 0.05f * g * g;
        float p = master[i];
        p -= 1e-3f * (m * 10 / (sqrtf(v * 20) + 1e-8f) + 0.1f * p);
        first[i] = m;
        second[i] = v;
        master[i] = p;
        narrow(p, parameter + i);
    }
}

template <typename T>
__global__ void softmax(T *scores, int64_t total, int64_t rows, int64_t columns, int64_t first_row,
                        int causal, float scale)
{
    for (int64_t line = blockIdx.x; line < total; line += gridDim.x) {
        T *score = scores + line * columns;
        int64_t end = causal ? first_row + line % rows + 1 : columns;
        end = end < columns ? end : columns;
        float largest = -INFINITY, sum = 0;
        for (int64_t i = threadIdx.x; i < end; i += threads)
            largest = fmaxf(largest, widen(score[i]) * scale);
        largest = reduce(largest, larger());
        for (int64_t i = threadIdx.x; i < end; i += threads)
            sum += __expf(widen(score[i]) * scale - largest);
        sum = reduce(sum, add());
        for (int64_t i = threadIdx.x; i < columns; i += threads)
            narrow(i < end ? __expf(widen(score[i]) * scale - largest) / sum : 0.0f, score + i);
    }
}

template <typename T>
__global__ void softmax_back(const T *p, T *dp, int64_t rows, int64_t columns, float scale)
{
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const T *probability = p + row * columns;
        T *slope = dp + row * columns;
        float sum = 0;
        for (int64_t i = threadIdx.x; i < columns; i += threads)
            sum += widen(probability[i]) * widen(slope[i]);
        sum = reduce(sum, add());
        for (int64_t i = threadIdx.x; i < columns; i += threads)
            narrow(widen(probability[i]) * (widen(slope[i]) - sum) * scale, slope + i);
    }
}

/* One pass: each thread keeps its largest logit and the sum relative to it. */
template <typename T>
__global__ void cross_entropy(const T *logits, float *loss, int64_t rows, int64_t vocabulary,
                              int64_t first_row)
{
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const T *logit = logits + row * vocabulary;
        float largest = -INFINITY, sum = 0;
        for (int64_t i = threadIdx.x; i < vocabulary; i += threads) {
            float value = widen(logit[i]);
            if (value > largest) {
                sum = sum * __expf(largest - value);
                largest = value;
            }
            sum += __expf(value - largest);
        }
        float most = reduce(largest, larger());
        sum = reduce(largest > -INFINITY ? sum * __expf(largest - most) : 0.0f, add());
        if (threadIdx.x == 0)
            loss[row] = logf(sum) + most - widen(logit[moecal_label(first_row + row, vocabulary)]);
    }
}

/* --- checks ----------------------------------------------------------------------------------- */

__device__ double element(const void *data, int dtype, int64_t index)
{
    switch (dtype) {
    case MOECAL_ELEMENT_FP32:
        return static_cast<const float *>(data)[index];
    case MOECAL_ELEMENT_BF16:
        return widen(static_cast<const bf16 *>(data)[index]);
    case MOECAL_ELEMENT_FP16:
        return widen(static_cast<const fp16 *>(data)[index]);
    case MOECAL_ELEMENT_FP8:
        return widen(static_cast<const fp8 *>(data)[index]);
    default:
        return static_cast<const double *>(data)[index];
    }
}

__device__ double at(moecal_view view, int64_t row, int64_t column)
{
    return element(view.data, view.dtype, row * view.row_stride + column * view.column_stride);
}

__global__ void reference_gemm(moecal_view a, moecal_view b, double *c, int64_t m, int64_t n,
                               int64_t k, double alpha)
{
    for (int64_t i = first_index(); i < m * n; i += index_step()) {
        double sum = 0;
        for (int64_t j = 0; j < k; j++)
            sum += at(a, i / n, j) * at(b, j, i % n);
        c[i] = alpha * sum;
    }
}

__device__ double reference_sigmoid(double a)
{
    return 1 / (1 + exp(-a));
}

__global__ void reference_activate(int gated, const double *a, double *h, int64_t rows, int64_t ffn)
{
    for (int64_t i = first_index(); i < rows * ffn; i += index_step()) {
        const double *gate = a + i / ffn * (gated ? 2 * ffn : ffn) + i % ffn;
        h[i] = gated ? *gate * reference_sigmoid(*gate) * gate[ffn]
                     : 0.5 * *gate * (1 + erf(*gate / sqrt(2.0)));
    }
}

__global__ void reference_activate_back(int gated, moecal_view a, const double *dh, double *da,
                                        int64_t rows, int64_t ffn)
{
    for (int64_t i = first_index(); i < rows * ffn; i += index_step()) {
        int64_t row = i / ffn, column = i % ffn;
        double x = at(a, row, column), d = dh[i], s = reference_sigmoid(x);
        if (gated) {
            da[row * 2 * ffn + column] = d * at(a, row, ffn + column) * s * (1 + x * (1 - s));
            da[row * 2 * ffn + ffn + column] = d * x * s;
        } else {
            da[i] = d * (0.5 * (1 + erf(x / sqrt(2.0))) + x * 0.3989422804014327 * exp(-x * x / 2));
        }
    }
}

__global__ void reference_softmax(double *scores, int64_t rows, int64_t columns, int64_t first_row,
                                  int causal, double scale)
{
    for (int64_t row = first_index(); row < rows; row += index_step()) {
        double *score = scores + row * columns, largest = -INFINITY, sum = 0;
        int64_t end = causal && first_row + row + 1 < columns ? first_row + row + 1 : columns;
        for (int64_t i = 0; i < end; i++)
            largest = fmax(largest, score[i] * scale);
        for (int64_t i = 0; i < end; i++)
            sum += exp(score[i] * scale - largest);
        for (int64_t i = 0; i < columns; i++)
            score[i] = i < end ? exp(score[i] * scale - largest) / sum : 0;
    }
}

__global__ void reference_softmax_back(const double *p, double *dp, int64_t rows, int64_t columns,
                                       double scale)
{
    for (int64_t row = first_index(); row < rows; row += index_step()) {
        double sum = 0;
        for (int64_t i = 0; i < columns; i++)
            sum += p[row * columns + i] * dp[row * columns + i];
        for (int64_t i = row * columns; i < (row + 1) * columns; i++)
            dp[i] = p[i] * (dp[i] - sum) * scale;
    }
}

__global__ void to_double(const void *data, int dtype, double *out, int64_t count)
{
    for (int64_t i = first_index(); i < count; i += index_step())
        out[i] = element(data, dtype, i);
}

__global__ void compare_bytes(const unsigned char *data, int64_t bytes, uint64_t seed,
                              int64_t first, unsigned long long *wrong)
{
    unsigned long long found = 0;
    for (int64_t i = first_index(); i < bytes; i += index_step())
        found += data[i] != byte_of(seed, static_cast<uint64_t>(first + i));
    if (found)
        atomicAdd(wrong, found);
}

__global__ void compare_sums(int dtype, const void *data, int64_t count, int64_t step,
                             int64_t first, const int *members, int member_count, int ranks,
                             unsigned long long *wrong)
{
    for (int64_t i = first_index() * step; i < count; i += index_step() * step) {
        int sum = 0;
        for (int member = 0; member < member_count; member++)
            sum += moecal_addend(members ? members[member] : member, ranks,
                                 static_cast<uint64_t>(first + i));
        if (element(data, dtype, i) != sum)
            atomicAdd(wrong, 1ULL);
    }
}

__global__ void compare_rows(const unsigned char *in, const int32_t *source,
                             const unsigned char *out, int64_t rows, int64_t row_bytes,
                             unsigned long long *wrong)
{
    for (int64_t i = first_index(); i < rows * row_bytes; i += index_step())
        if (out[i] != in[source[i / row_bytes] * row_bytes + i % row_bytes])
            atomicAdd(wrong, 1ULL);
}

} // namespace

/* --- filling ---------------------------------------------------------------------------------- */

cudaError_t moecal_kernel_fill(int dtype, void *data, int64_t count, uint64_t seed, float scale,
                               cudaStream_t stream)
{
    if (dtype == MOECAL_ELEMENT_FP8)
        return launch(fill<fp8>, blocks_for(count), stream, static_cast<fp8 *>(data), count, seed,
                      scale);
    return by_type(dtype, [&](auto type) {
        using T = decltype(type);
        return launch(fill<T>, blocks_for(count), stream, static_cast<T *>(data), count, seed,
                      scale);
    });
}

cudaError_t moecal_kernel_fill_bytes(void *data, size_t bytes, uint64_t seed, cudaStream_t stream)
{
    int64_t count = static_cast<int64_t>(bytes);
    return launch(fill_bytes, blocks_for(count), stream, static_cast<unsigned char *>(data), count,
                  seed);
}

cudaError_t moecal_kernel_fill_addends(int dtype, void *data, int64_t count, int64_t first,
                                       int rank, int ranks, cudaStream_t stream)
{
    return by_type(dtype, [&](auto type) {
        using T = decltype(type);
        return launch(fill_addends<T>, blocks_for(count), stream, static_cast<T *>(data), count,
                      first, rank, ranks);
    });
}

cudaError_t moecal_kernel_fill_permutation(int32_t *source, int64_t tokens, int64_t top_k,
                                           cudaStream_t stream)
{
    int64_t rows = tokens * top_k, size = 1;
    while (size < rows)
        size *= 2;
    return launch(fill_permutation, blocks_for(rows), stream, source, rows, top_k, size - 1);
}

/* --- measured --------------------------------------------------------------------------------- */

cudaError_t moecal_kernel_empty(cudaStream_t stream)
{
    nothing<<<1, 1, 0, stream>>>();
    return cudaGetLastError();
}

cudaError_t moecal_kernel_gate(const unsigned *gate, unsigned ticket, cudaStream_t stream)
{
    wait_for<<<1, 1, 0, stream>>>(gate, ticket);
    return cudaGetLastError();
}

cudaError_t moecal_kernel_permute(int dtype, const void *in, const int32_t *source, void *out,
                                  int64_t rows, int64_t hidden, cudaStream_t stream)
{
    int64_t row_bytes = hidden * (dtype == MOECAL_ELEMENT_FP32  ? 4
                                  : dtype == MOECAL_ELEMENT_FP8 ? 1
                                                                : 2);
    if (row_bytes % 16 == 0)
        return launch(permute<uint4>, rows, stream, static_cast<const uint4 *>(in), source,
                      static_cast<uint4 *>(out), rows, row_bytes / 16);
    return launch(permute<unsigned char>, rows, stream, static_cast<const unsigned char *>(in),
                  source, static_cast<unsigned char *>(out), rows, row_bytes);
}

cudaError_t moecal_kernel_top_k(const float *scores, float *weights, int32_t *chosen,
                                int64_t tokens, int64_t experts, int64_t top_k, cudaStream_t stream)
{
    int64_t a_block = threads / 32;
    return launch(top_k_of, (tokens + a_block - 1) / a_block, stream, scores, weights, chosen,
                  tokens, experts, top_k);
}

template <typename A, typename H>
static cudaError_t launch_activate(int gated, const void *a, void *h, int64_t rows, int64_t ffn,
                                   cudaStream_t stream)
{
    constexpr int width = wide<A>;
    auto kernel = ffn % width == 0 ? activate<A, H, width> : activate<A, H, 1>;
    return launch(kernel, rows, stream, gated, static_cast<const A *>(a), static_cast<H *>(h), rows,
                  ffn);
}

cudaError_t moecal_kernel_activate(int dtype, int gated, const void *a, void *h, int64_t rows,
                                   int64_t ffn, cudaStream_t stream)
{
    if (dtype == MOECAL_ELEMENT_FP8)
        return launch_activate<bf16, fp8>(gated, a, h, rows, ffn, stream);
    return by_type(dtype, [&](auto type) {
        using T = decltype(type);
        return launch_activate<T, T>(gated, a, h, rows, ffn, stream);
    });
}

template <typename A, typename D>
static cudaError_t launch_activate_back(int gated, const void *a, const void *dh, void *da,
                                        int64_t rows, int64_t ffn, cudaStream_t stream)
{
    constexpr int width = wide<A>;
    auto kernel = ffn % width == 0 ? activate_back<A, D, width> : activate_back<A, D, 1>;
    return launch(kernel, rows, stream, gated, static_cast<const A *>(a),
                  static_cast<const A *>(dh), static_cast<D *>(da), rows, ffn);
}

cudaError_t moecal_kernel_activate_back(int dtype, int gated, const void *a, const void *dh,
                                        void *da, int64_t rows, int64_t ffn, cudaStream_t stream)
{
    if (dtype == MOECAL_ELEMENT_FP8)
        return launch_activate_back<bf16, fp8>(gated, a, dh, da, rows, ffn, stream);
    return by_type(dtype, [&](auto type) {
        using T = decltype(type);
        return launch_activate_back<T, T>(gated, a, dh, da, rows, ffn, stream);
    });
}

cudaError_t moecal_kernel_norm(int dtype, const void *in, const void *weight, void *out,
                               int64_t tokens, int64_t hidden, cudaStream_t stream)
{
    return by_type(dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int width = wide<T>;
        auto kernel = hidden % width == 0 ? norm<T, width> : norm<T, 1>;
        return launch(kernel, tokens, stream, static_cast<const T *>(in),
                      static_cast<const T *>(weight), static_cast<T *>(out), tokens, hidden);
    });
}

cudaError_t moecal_kernel_adam(int dtype, const void *gradient, float *master, float *first,
                               float *second, void *parameter, int64_t count, cudaStream_t stream)
{
    return by_type(dtype, [&](auto type) {
        using T = decltype(type);
        return launch(adam<T>, blocks_for(count), stream, static_cast<const T *>(gradient), master,
                      first, second, static_cast<T *>(parameter), count);
    });
}

cudaError_t moecal_kernel_softmax(int dtype, void *scores, int64_t batch, int64_t rows,
                                  int64_t columns, int64_t first_row, int causal, float scale,
                                  cudaStream_t stream)
{
    return by_type(dtype, [&](auto type) {
        using T = decltype(type);
        return launch(softmax<T>, batch * rows, stream, static_cast<T *>(scores), batch * rows,
                      rows, columns, first_row, causal, scale);
    });
}

cudaError_t moecal_kernel_softmax_back(int dtype, const void *p, void *dp, int64_t rows,
                                       int64_t columns, float scale, cudaStream_t stream)
{
    return by_type(dtype, [&](auto type) {
        using T = decltype(type);
        return launch(softmax_back<T>, rows, stream, static_cast<const T *>(p),
                      static_cast<T *>(dp), rows, columns, scale);
    });
}

cudaError_t moecal_kernel_cross_entropy(int dtype, const void *logits, float *loss, int64_t rows,
                                        int64_t vocabulary, int64_t first_row, cudaStream_t stream)
{
    return by_type(dtype, [&](auto type) {
        using T = decltype(type);
        return launch(cross_entropy<T>, rows, stream, static_cast<const T *>(logits), loss, rows,
                      vocabulary, first_row);
    });
}

/* --- checks ----------------------------------------------------------------------------------- */

cudaError_t moecal_kernel_reference_gemm(moecal_view a, moecal_view b, double *c, int64_t m,
                                         int64_t n, int64_t k, double alpha, cudaStream_t stream)
{
    return launch(reference_gemm, blocks_for(m * n), stream, a, b, c, m, n, k, alpha);
}

cudaError_t moecal_kernel_reference_activate(int gated, const double *a, double *h, int64_t rows,
                                             int64_t ffn, cudaStream_t stream)
{
    return launch(reference_activate, blocks_for(rows * ffn), stream, gated, a, h, rows, ffn);
}

cudaError_t moecal_kernel_reference_activate_back(int gated, moecal_view a, const double *dh,
                                                  double *da, int64_t rows, int64_t ffn,
                                                  cudaStream_t stream)
{
    return launch(reference_activate_back, blocks_for(rows * ffn), stream, gated, a, dh, da, rows,
                  ffn);
}

cudaError_t moecal_kernel_reference_softmax(double *scores, int64_t rows, int64_t columns,
                                            int64_t first_row, int causal, double scale,
                                            cudaStream_t stream)
{
    return launch(reference_softmax, blocks_for(rows), stream, scores, rows, columns, first_row,
                  causal, scale);
}

cudaError_t moecal_kernel_reference_softmax_back(const double *p, double *dp, int64_t rows,
                                                 int64_t columns, double scale, cudaStream_t stream)
{
    return launch(reference_softmax_back, blocks_for(rows), stream, p, dp, rows, columns, scale);
}

cudaError_t moecal_kernel_to_double(int dtype, const void *data, double *out, int64_t count,
                                    cudaStream_t stream)
{
    return launch(to_double, blocks_for(count), stream, data, dtype, out, count);
}

cudaError_t moecal_kernel_compare_bytes(const void *data, size_t bytes, uint64_t seed, size_t first,
                                        unsigned long long *wrong, cudaStream_t stream)
{
    int64_t count = static_cast<int64_t>(bytes);
    return launch(compare_bytes, blocks_for(count), stream,
                  static_cast<const unsigned char *>(data), count, seed,
                  static_cast<int64_t>(first), wrong);
}

cudaError_t moecal_kernel_compare_sums(int dtype, const void *data, int64_t count, int64_t step,
                                       int64_t first, const int *members, int member_count,
                                       int ranks, unsigned long long *wrong, cudaStream_t stream)
{
    return launch(compare_sums, blocks_for((count + step - 1) / step), stream, dtype, data, count,
                  step, first, members, member_count, ranks, wrong);
}

cudaError_t moecal_kernel_compare_rows(int element_bytes, const void *in, const int32_t *source,
                                       const void *out, int64_t rows, int64_t hidden,
                                       unsigned long long *wrong, cudaStream_t stream)
{
    int64_t row_bytes = hidden * element_bytes;
    return launch(compare_rows, blocks_for(rows * row_bytes), stream,
                  static_cast<const unsigned char *>(in), source,
                  static_cast<const unsigned char *>(out), rows, row_bytes, wrong);
}
