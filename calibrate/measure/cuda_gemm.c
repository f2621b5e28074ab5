/* Matrix products: cublasGemmEx for fp32 (without TF32), bf16 and fp16; cublasLt for fp8 (e4m3, bf16 out,
 * fast accumulation as Transformer Engine's forward pass has it). cuBLAS stores by columns: a row-major
 * C = A B is its C^T = B^T A^T. */
#include "calibrate/measure/cuda_internal.h"

#include <limits.h>
#include <stdlib.h>

enum { IN_A, IN_B, OUT_C };
enum { WORKSPACE_BYTES = 64 << 20 };

double moecal_rounding_limit(int element)
{
    static const double limits[] = {[MOECAL_ELEMENT_FP32] = 1e-4,
                                    [MOECAL_ELEMENT_BF16] = 0.01,
                                    [MOECAL_ELEMENT_FP16] = 0.005,
                                    [MOECAL_ELEMENT_FP8] = 0.05};
    return limits[element];
}

static cudaDataType_t data_type(int element)
{
    static const cudaDataType_t types[] = {[MOECAL_ELEMENT_FP32] = CUDA_R_32F,
                                           [MOECAL_ELEMENT_BF16] = CUDA_R_16BF,
                                           [MOECAL_ELEMENT_FP16] = CUDA_R_16F,
                                           [MOECAL_ELEMENT_FP8] = CUDA_R_8F_E4M3};
    return types[element];
}

/* --- fp8 -------------------------------------------------------------------------------------- */

static void free_plan(moecal_plan *plan)
{
    if (plan->a)
        cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->b)
        cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->c)
        cublasLtMatrixLayoutDestroy(plan->c);
    if (plan->operation)
        cublasLtMatmulDescDestroy(plan->operation);
    free(plan);
}

void moecal_plans_free(moecal_device *device)
{
    while (device->plans) {
        moecal_plan *next = device->plans->next;
        free_plan(device->plans);
        device->plans = next;
    }
}

static int choose_algorithm(moecal_cuda *cuda, moecal_device *device, moecal_plan *plan,
                            cublasLtMatmulPreference_t preference)
{
    size_t workspace = WORKSPACE_BYTES;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    MOECAL_BLAS(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    MOECAL_BLAS(cublasLtMatmulAlgoGetHeuristic(device->lt, plan->operation, plan->a, plan->b,
                                               plan->c, plan->c, preference, 1, &found, &count));
    if (count == 0)
        return moecal_cuda_say(cuda, __FILE__, __LINE__, "cublasLtMatmulAlgoGetHeuristic",
                               "no fp8 kernel for this shape");
    plan->algorithm = found.algo;
    return 0;
}

/* The first matrix of cuBLAS is our b, stored [n][k] and said to be transposed ("TN", the only fp8 format before
 * compute capability 10). */
static int describe_plan(moecal_cuda *cuda, moecal_plan *plan)
{
    cublasOperation_t transposed = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    int8_t fast = 1;
    uint64_t m = (uint64_t)plan->m, n = (uint64_t)plan->n, k = (uint64_t)plan->k;
    MOECAL_BLAS(cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    MOECAL_BLAS(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                               &transposed, sizeof transposed));
    MOECAL_BLAS(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, &plain,
                                               sizeof plain));
    MOECAL_BLAS(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM,
                                               &fast, sizeof fast));
    MOECAL_BLAS(cublasLtMatrixLayoutCreate(&plan->a, CUDA_R_8F_E4M3, k, n, plan->k));
    MOECAL_BLAS(cublasLtMatrixLayoutCreate(&plan->b, CUDA_R_8F_E4M3, k, m, plan->k));
    MOECAL_BLAS(cublasLtMatrixLayoutCreate(&plan->c, CUDA_R_16BF, n, m, plan->n));
    return 0;
}

static int fill_plan(moecal_cuda *cuda, moecal_device *device, moecal_plan *plan)
{
    cublasLtMatmulPreference_t preference;
    MOECAL_DO(describe_plan(cuda, plan));
    MOECAL_BLAS(cublasLtMatmulPreferenceCreate(&preference));
    int failed = choose_algorithm(cuda, device, plan, preference);
    cublasLtMatmulPreferenceDestroy(preference);
    return failed;
}

static moecal_plan *plan_for(moecal_cuda *cuda, moecal_device *device, const moecal_matmul *matmul)
{
    moecal_plan *plan = device->plans;
    while (plan && (plan->m != matmul->m || plan->n != matmul->n || plan->k != matmul->k))
        plan = plan->next;
    if (plan)
        return plan;
    plan = calloc(1, sizeof *plan);
    if (!plan)
        abort();
    plan->m = matmul->m;
    plan->n = matmul->n;
    plan->k = matmul->k;
    if (fill_plan(cuda, device, plan)) {
        free_plan(plan);
        return NULL;
    }
    plan->next = device->plans;
    return device->plans = plan;
}

static int issue_fp8(moecal_cuda *cuda, moecal_device *device, const moecal_matmul *matmul,
                     const void *a, const void *b, void *c)
{
    const moecal_plan *plan = plan_for(cuda, device, matmul);
    if (!plan)
        return 1;
    MOECAL_BLAS(cublasLtMatmul(device->lt, plan->operation, &matmul->alpha, b, plan->a, a, plan->b,
                               &matmul->beta, c, plan->c, c, plan->c, &plan->algorithm,
                               device->workspace, WORKSPACE_BYTES, device->stream[0]));
    return 0;
}

/* --- the others ------------------------------------------------------------------------------- */

static cublasOperation_t transpose(bool transposed)
{
    return transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
}

/* Kept at TF32's exclusion: CUBLAS_COMPUTE_32F uses it only where the math mode or a FAST type says so. */
int moecal_matmul_issue(moecal_cuda *cuda, moecal_device *device, const moecal_matmul *matmul,
                        const void *a, const void *b, void *c)
{
    int m = (int)matmul->m, n = (int)matmul->n, k = (int)matmul->k;
    int lda = matmul->transposed_a ? m : k, ldb = matmul->transposed_b ? k : n;
    cudaDataType_t in = data_type(matmul->element), out = data_type(matmul->out_element);
    cublasOperation_t op_a = transpose(matmul->transposed_a),
                      op_b = transpose(matmul->transposed_b);
    if (matmul->element == MOECAL_ELEMENT_FP8)
        return issue_fp8(cuda, device, matmul, a, b, c);
    if (matmul->batch > 1)
        MOECAL_BLAS(cublasGemmStridedBatchedEx(
            device->blas, op_b, op_a, n, m, k, &matmul->alpha, b, in, ldb, matmul->stride_b, a, in,
            lda, matmul->stride_a, &matmul->beta, c, out, n, matmul->stride_c, (int)matmul->batch,
            CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    else
        MOECAL_BLAS(cublasGemmEx(device->blas, op_b, op_a, n, m, k, &matmul->alpha, b, in, ldb, a,
                                 in, lda, &matmul->beta, c, out, n, CUBLAS_COMPUTE_32F,
                                 CUBLAS_GEMM_DEFAULT));
    return 0;
}

/* --- check ------------------------------------------------------------------------------------ */

/* Rows of the block at (row, column), one after another. */
static int compare_block(moecal_cuda *cuda, moecal_device *device, const moecal_matmul *matmul,
                         moecal_view a, moecal_view b, const void *c, int64_t row, int64_t column,
                         int64_t rows, int64_t columns, double *error)
{
    int mark = device->taken_count;
    moecal_view out = moecal_rows_of(c, matmul->out_element, matmul->n);
    double *want = moecal_take(cuda, device, (size_t)(rows * columns) * sizeof *want);
    if (!want)
        return 1;
    MOECAL_CUDA(moecal_kernel_reference_gemm(moecal_from(a, row, 0), moecal_from(b, 0, column),
                                             want, rows, columns, matmul->k, (double)matmul->alpha,
                                             device->stream[0]));
    for (int64_t i = 0; i < rows; i++)
        MOECAL_DO(moecal_compare(cuda, device, matmul->out_element,
                                 moecal_from(out, row + i, column).data, want + i * columns,
                                 columns, error));
    moecal_give_back(device, mark);
    return 0;
}

int moecal_matmul_compare(moecal_cuda *cuda, moecal_device *device, const moecal_matmul *matmul,
                          const void *a, const void *b, const void *c, double *error)
{
    int64_t m = matmul->m, n = matmul->n, k = matmul->k, rows = m < 2 ? m : 2;
    int64_t columns = ((int64_t)1 << 28) / k + 1;
    moecal_view left = moecal_rows_of(a, matmul->element, matmul->transposed_a ? m : k);
    moecal_view right = moecal_rows_of(b, matmul->element, matmul->transposed_b ? k : n);
    left = matmul->transposed_a ? moecal_transposed(left) : left;
    right = matmul->transposed_b ? moecal_transposed(right) : right;
    columns = columns < n ? columns : n;
    MOECAL_DO(compare_block(cuda, device, matmul, left, right, c, 0, 0, rows, columns, error));
    return compare_block(cuda, device, matmul, left, right, c, m - rows, n - columns, rows, columns,
                         error);
}

/* --- the kind --------------------------------------------------------------------------------- */

static moecal_matmul matmul_of(const moecal_point *point)
{
    bool fp8 = point->dtype == MOECAL_FP8;
    return (moecal_matmul){.element = (int)point->dtype,
                           .out_element = fp8 ? MOECAL_ELEMENT_BF16 : (int)point->dtype,
                           .transposed_b = fp8,
                           .m = point->gemm.m,
                           .n = point->gemm.n,
                           .k = point->gemm.k,
                           .alpha = 1.0f / 64};
}

void moecal_gemm_operands(moecal_device *device, const moecal_point *point)
{
    moecal_matmul matmul = matmul_of(point);
    moecal_operand_set(device, IN_A, matmul.element, matmul.m * matmul.k, 1);
    moecal_operand_set(device, IN_B, matmul.element, matmul.k * matmul.n, 1);
    moecal_operand_set(device, OUT_C, matmul.out_element, matmul.m * matmul.n, 0);
}

int moecal_gemm_issue(moecal_cuda *cuda, const moecal_point *point, int64_t repetition)
{
    moecal_matmul matmul = matmul_of(point);
    for (int i = 0; i < cuda->active; i++) {
        moecal_device *device = &cuda->device[i];
        MOECAL_CUDA(cudaSetDevice(device->ordinal));
        MOECAL_DO(moecal_matmul_issue(cuda, device, &matmul,
                                      moecal_operand_at(device, IN_A, repetition),
                                      moecal_operand_at(device, IN_B, repetition),
                                      moecal_operand_at(device, OUT_C, repetition)));
    }
    return 0;
}

int moecal_gemm_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    moecal_matmul matmul = matmul_of(point);
    check->limit = moecal_rounding_limit(matmul.element);
    for (int i = 0; i < cuda->active; i++) {
        moecal_device *device = &cuda->device[i];
        MOECAL_CUDA(cudaSetDevice(device->ordinal));
        MOECAL_DO(moecal_matmul_compare(cuda, device, &matmul, moecal_operand_at(device, IN_A, 0),
                                        moecal_operand_at(device, IN_B, 0),
                                        moecal_operand_at(device, OUT_C, 0), &check->error));
    }
    return 0;
}

static int prepare(moecal_cuda *cuda, const moecal_point *point)
{
    for (int i = 0; i < cuda->active; i++) {
        moecal_gemm_operands(&cuda->device[i], point);
        MOECAL_DO(moecal_operands_make(cuda, &cuda->device[i], INT_MAX));
    }
    return 0;
}

static int issue(moecal_cuda *cuda, const moecal_point *point, int lane, int64_t repetition)
{
    (void)lane;
    return moecal_gemm_issue(cuda, point, repetition);
}

const moecal_operation moecal_operation_gemm = {
    .prepare = prepare, .issue = issue, .check = moecal_gemm_check};
