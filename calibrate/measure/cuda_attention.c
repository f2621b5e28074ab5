/* Attention scores without projections: batched cuBLAS GEMMs and a softmax kernel, a block of queries at a time.
 *
 *   forward   S = Q K^T / sqrt(d), P = softmax(S), O = P V
 *   backward  S and P again, dP = dO V^T, dV += P^T dO, dS = P (dP - sum(P dP)) / sqrt(d), dQ = dS K, dK += dS^T Q
 *
 * The scores go through memory, so this is what a model without a fused kernel pays, not FlashAttention
 * (Dao et al. 2022), which is faster by a factor of a few; the machine line says so. Causal blocks skip the keys
 * beyond them. dK and dV are summed in fp32. Stored [sequence][kv head][query head of it][token][d]; K and V without
 * the third. */
#include "calibrate/measure/cuda_internal.h"

#include <math.h>
#include <stdlib.h>

enum { Q, K, V, O, DO_, DQ, DK, DV, P, DP };
static const int64_t score_bytes = (int64_t)1 << 29; /* of one block of scores */
enum { MOST_QUERIES = 1024, FEWEST_QUERIES = 64, MOST_CHECKED = 2048 };

typedef struct shape {
    int element;
    int64_t batch; /* sequences * kv heads: matrices of one batched GEMM */
    int64_t group; /* query heads of a kv head */
    int64_t tokens, width, block;
    bool causal;
    float scale;
} shape;

static shape shape_of(const moecal_point *point)
{
    shape made = {.element = (int)point->dtype,
                  .batch = point->sequences * point->kv_heads,
                  .group = point->heads / point->kv_heads,
                  .tokens = point->sequence,
                  .width = point->head_dim,
                  .causal = point->causal,
                  .scale = 1 / sqrtf((float)point->head_dim)};
    int64_t row_bytes = made.batch * made.tokens * (int64_t)moecal_element_bytes(made.element);
    made.block = score_bytes / row_bytes / FEWEST_QUERIES * FEWEST_QUERIES;
    made.block = made.block < MOST_QUERIES ? made.block : MOST_QUERIES;
    made.block = made.block > FEWEST_QUERIES ? made.block : FEWEST_QUERIES;
    made.block = made.block < made.tokens ? made.block : made.tokens;
    return made;
}

/* Queries [row, row + rows) of query head `head` of every kv head, against keys [0, keys). */
typedef struct tile {
    int64_t head, row, rows, keys;
} tile;

static tile tile_at(const shape *of, int64_t head, int64_t row)
{
    int64_t rows = of->tokens - row < of->block ? of->tokens - row : of->block;
    return (tile){head, row, rows, of->causal ? row + rows : of->tokens};
}

/* --- GEMMs of a tile -------------------------------------------------------------------------- */

static int64_t query_stride(const shape *of)
{
    return of->group * of->tokens * of->width;
}

static int64_t key_stride(const shape *of)
{
    return of->tokens * of->width;
}

static void *query_at(const moecal_device *device, const shape *of, int operand, const tile *at,
                      int64_t repetition)
{
    moecal_view all =
        moecal_rows_of(moecal_operand_at(device, operand, repetition), of->element, of->width);
    return (void *)moecal_from(all, at->head * of->tokens + at->row, 0).data;
}

/* scores[rows][keys] = queries keys^T: S from Q and K, dP from dO and V. */
static int issue_scores(moecal_cuda *cuda, moecal_device *device, const shape *of, const tile *at,
                        const void *queries, const void *keys, void *scores)
{
    moecal_matmul matmul = {.element = of->element,
                            .out_element = of->element,
                            .transposed_b = true,
                            .m = at->rows,
                            .n = at->keys,
                            .k = of->width,
                            .batch = of->batch,
                            .stride_a = query_stride(of),
                            .stride_b = key_stride(of),
                            .stride_c = at->rows * at->keys,
                            .alpha = 1};
    return moecal_matmul_issue(cuda, device, &matmul, queries, keys, scores);
}

/* out[rows][d] = scores keys: O from P and V, dQ from dS and K. */
static int issue_outputs(moecal_cuda *cuda, moecal_device *device, const shape *of, const tile *at,
                         const void *scores, const void *keys, void *out)
{
    moecal_matmul matmul = {.element = of->element,
                            .out_element = of->element,
                            .m = at->rows,
                            .n = of->width,
                            .k = at->keys,
                            .batch = of->batch,
                            .stride_a = at->rows * at->keys,
                            .stride_b = key_stride(of),
                            .stride_c = query_stride(of),
                            .alpha = 1};
    return moecal_matmul_issue(cuda, device, &matmul, scores, keys, out);
}

/* sum[keys][d] += scores^T queries: dV from P and dO, dK from dS and Q. */
static int issue_sums(moecal_cuda *cuda, moecal_device *device, const shape *of, const tile *at,
                      const void *scores, const void *queries, void *sum)
{
    moecal_matmul matmul = {.element = of->element,
                            .out_element = MOECAL_ELEMENT_FP32,
                            .transposed_a = true,
                            .m = at->keys,
                            .n = of->width,
                            .k = at->rows,
                            .batch = of->batch,
                            .stride_a = at->rows * at->keys,
                            .stride_b = query_stride(of),
                            .stride_c = key_stride(of),
                            .alpha = 1,
                            .beta = 1};
    return moecal_matmul_issue(cuda, device, &matmul, scores, queries, sum);
}

static int issue_probabilities(moecal_cuda *cuda, moecal_device *device, const shape *of,
                               const tile *at, int64_t repetition)
{
    void *p = moecal_operand_at(device, P, repetition);
    MOECAL_DO(issue_scores(cuda, device, of, at, query_at(device, of, Q, at, repetition),
                           moecal_operand_at(device, K, repetition), p));
    MOECAL_CUDA(moecal_kernel_softmax(of->element, p, of->batch, at->rows, at->keys, at->row,
                                      of->causal, of->scale, device->stream[0]));
    return 0;
}

static int issue_forward(moecal_cuda *cuda, moecal_device *device, const shape *of, const tile *at,
                         int64_t repetition)
{
    MOECAL_DO(issue_probabilities(cuda, device, of, at, repetition));
    return issue_outputs(cuda, device, of, at, moecal_operand_at(device, P, repetition),
                         moecal_operand_at(device, V, repetition),
                         query_at(device, of, O, at, repetition));
}

static int issue_backward(moecal_cuda *cuda, moecal_device *device, const shape *of, const tile *at,
                          int64_t repetition)
{
    void *p = moecal_operand_at(device, P, repetition),
         *dp = moecal_operand_at(device, DP, repetition);
    void *slope = query_at(device, of, DO_, at, repetition);
    MOECAL_DO(issue_probabilities(cuda, device, of, at, repetition));
    MOECAL_DO(
        issue_scores(cuda, device, of, at, slope, moecal_operand_at(device, V, repetition), dp));
    MOECAL_DO(
        issue_sums(cuda, device, of, at, p, slope, moecal_operand_at(device, DV, repetition)));
    MOECAL_CUDA(moecal_kernel_softmax_back(of->element, p, dp, of->batch * at->rows, at->keys,
                                           of->scale, device->stream[0]));
    MOECAL_DO(issue_outputs(cuda, device, of, at, dp, moecal_operand_at(device, K, repetition),
                            query_at(device, of, DQ, at, repetition)));
    return issue_sums(cuda, device, of, at, dp, query_at(device, of, Q, at, repetition),
                      moecal_operand_at(device, DK, repetition));
}

static int clear_sums(moecal_cuda *cuda, moecal_device *device, int64_t repetition)
{
    static const int sums[] = {DK, DV};
    for (int i = 0; i < 2; i++)
        MOECAL_CUDA(cudaMemsetAsync(moecal_operand_at(device, sums[i], repetition), 0,
                                    (size_t)device->operand[sums[i]].count * sizeof(float),
                                    device->stream[0]));
    return 0;
}

static int issue(moecal_cuda *cuda, const moecal_point *point, int lane, int64_t repetition)
{
    shape of = shape_of(point);
    moecal_device *device = &cuda->device[0];
    bool backward = point->phase == MOECAL_BACKWARD;
    (void)lane;
    if (cuda->active == 0)
        return 0;
    MOECAL_CUDA(cudaSetDevice(device->ordinal));
    if (backward)
        MOECAL_DO(clear_sums(cuda, device, repetition));
    for (int64_t head = 0; head < of.group; head++)
        for (int64_t row = 0; row < of.tokens; row += of.block) {
            tile at = tile_at(&of, head, row);
            MOECAL_DO(
                (backward ? issue_backward : issue_forward)(cuda, device, &of, &at, repetition));
        }
    return 0;
}

static int prepare(moecal_cuda *cuda, const moecal_point *point)
{
    shape of = shape_of(point);
    moecal_device *device = &cuda->device[0];
    bool backward = point->phase == MOECAL_BACKWARD;
    int64_t keys = of.batch * key_stride(&of), queries = keys * of.group,
            tiles = of.group * ((of.tokens + of.block - 1) / of.block);
    cuda->launches = (int)fmin(1e6, (double)tiles * (backward ? 7 : 3));
    if (cuda->active == 0)
        return 0;
    moecal_operand_set(device, Q, of.element, queries, 1);
    moecal_operand_set(device, K, of.element, keys, 1);
    moecal_operand_set(device, V, of.element, keys, 1);
    moecal_operand_set(device, P, of.element, of.batch * of.block * of.tokens, 0);
    moecal_operand_set(device, backward ? DQ : O, of.element, queries, 0);
    if (backward) {
        moecal_operand_set(device, DO_, of.element, queries, 1);
        moecal_operand_set(device, DK, MOECAL_ELEMENT_FP32, keys, 0);
        moecal_operand_set(device, DV, MOECAL_ELEMENT_FP32, keys, 0);
        moecal_operand_set(device, DP, of.element, of.batch * of.block * of.tokens, 0);
    }
    return moecal_operands_make(cuda, device, 4096);
}

/* --- check: the last kv head of the last sequence, in double --------------------------------------- */

/* Rows of scores in double, and the matrices they come from. */
typedef struct reference {
    moecal_view q, k, v, d_out; /* from the first row on */
    double *p, *dp, *out;       /* [rows][tokens] twice; [tokens or rows][d] */
    int64_t first, rows;
} reference;

static moecal_view view_of(const moecal_device *device, const shape *of, int operand, int64_t row)
{
    moecal_view all = moecal_rows_of(moecal_operand_at(device, operand, 0),
                                     device->operand[operand].element, of->width);
    return moecal_from(all, row, 0);
}

/* Of query head `head`: rows [first, first + rows). */
static int look_at(moecal_cuda *cuda, moecal_device *device, const shape *of, int64_t head,
                   int64_t first, int64_t rows, bool backward, reference *made)
{
    int64_t query = ((of->batch - 1) * of->group + head) * of->tokens + first;
    int64_t key = (of->batch - 1) * of->tokens, most = of->tokens > rows ? of->tokens : rows;
    *made = (reference){.first = first, .rows = rows};
    made->q = view_of(device, of, Q, query);
    made->k = view_of(device, of, K, key);
    made->v = view_of(device, of, V, key);
    made->d_out = backward ? view_of(device, of, DO_, query) : made->q;
    made->p = moecal_take(cuda, device, (size_t)(rows * of->tokens) * sizeof(double));
    made->dp = moecal_take(cuda, device, (size_t)(rows * of->tokens) * sizeof(double));
    made->out = moecal_take(cuda, device, (size_t)(most * of->width) * sizeof(double));
    return !made->p || !made->dp || !made->out;
}

static int reference_probabilities(moecal_cuda *cuda, moecal_device *device, const shape *of,
                                   const reference *in, bool backward)
{
    cudaStream_t stream = device->stream[0];
    MOECAL_CUDA(moecal_kernel_reference_gemm(in->q, moecal_transposed(in->k), in->p, in->rows,
                                             of->tokens, of->width, 1, stream));
    MOECAL_CUDA(moecal_kernel_reference_softmax(in->p, in->rows, of->tokens, in->first, of->causal,
                                                (double)of->scale, stream));
    if (!backward)
        return 0;
    MOECAL_CUDA(moecal_kernel_reference_gemm(in->d_out, moecal_transposed(in->v), in->dp, in->rows,
                                             of->tokens, of->width, 1, stream));
    MOECAL_CUDA(moecal_kernel_reference_softmax_back(in->p, in->dp, in->rows, of->tokens,
                                                     (double)of->scale, stream));
    return 0;
}

/* O or dQ of the looked-at rows. */
static int compare_queries(moecal_cuda *cuda, moecal_device *device, const shape *of, int64_t head,
                           const reference *in, bool backward, double *error)
{
    int64_t query = ((of->batch - 1) * of->group + head) * of->tokens + in->first;
    moecal_view scores = moecal_rows_of(backward ? in->dp : in->p, MOECAL_ELEMENT_FP64, of->tokens);
    MOECAL_CUDA(moecal_kernel_reference_gemm(scores, backward ? in->k : in->v, in->out, in->rows,
                                             of->width, of->tokens, 1, device->stream[0]));
    return moecal_compare(cuda, device, of->element,
                          view_of(device, of, backward ? DQ : O, query).data, in->out,
                          in->rows * of->width, error);
}

static int check_rows(moecal_cuda *cuda, moecal_device *device, const shape *of, int64_t head,
                      int64_t first, int64_t rows, bool backward, double *error)
{
    int mark = device->taken_count;
    reference in;
    MOECAL_DO(look_at(cuda, device, of, head, first, rows, backward, &in));
    MOECAL_DO(reference_probabilities(cuda, device, of, &in, backward));
    MOECAL_DO(compare_queries(cuda, device, of, head, &in, backward, error));
    moecal_give_back(device, mark);
    return 0;
}

/* dK or dV of one kv head, which all its queries add to; with one query head a kv head alone. */
static int check_sums(moecal_cuda *cuda, moecal_device *device, const shape *of, double *error)
{
    int64_t key = (of->batch - 1) * of->tokens, mark = device->taken_count, tokens = of->tokens;
    reference in;
    MOECAL_DO(look_at(cuda, device, of, 0, 0, tokens, true, &in));
    MOECAL_DO(reference_probabilities(cuda, device, of, &in, true));
    for (int second = 0; second < 2; second++) {
        moecal_view scores = moecal_rows_of(second ? in.dp : in.p, MOECAL_ELEMENT_FP64, tokens);
        MOECAL_CUDA(moecal_kernel_reference_gemm(moecal_transposed(scores),
                                                 second ? in.q : in.d_out, in.out, tokens,
                                                 of->width, tokens, 1, device->stream[0]));
        MOECAL_DO(moecal_compare(cuda, device, MOECAL_ELEMENT_FP32,
                                 view_of(device, of, second ? DK : DV, key).data, in.out,
                                 tokens * of->width, error));
    }
    moecal_give_back(device, (int)mark);
    return 0;
}

static int check(moecal_cuda *cuda, const moecal_point *point, moecal_check *found)
{
    shape of = shape_of(point);
    moecal_device *device = &cuda->device[0];
    bool backward = point->phase == MOECAL_BACKWARD;
    int64_t rows = of.tokens < 4 ? of.tokens : 4;
    found->limit = 3 * moecal_rounding_limit(of.element);
    MOECAL_CUDA(cudaSetDevice(device->ordinal));
    MOECAL_DO(check_rows(cuda, device, &of, 0, 0, rows, backward, &found->error));
    MOECAL_DO(check_rows(cuda, device, &of, of.group - 1, of.tokens - rows, rows, backward,
                         &found->error));
    if (backward && of.group == 1 && of.tokens <= MOST_CHECKED)
        MOECAL_DO(check_sums(cuda, device, &of, &found->error));
    return 0;
}

const moecal_operation moecal_operation_attention = {
    .prepare = prepare, .issue = issue, .check = check};
