/* The experts of one device: two batches of GEMMs over their rows, with an activation between them.
 *
 *   forward          a = x W1, h = act(a), y = h W2
 *   input gradient   dh = dy W2^T, da = act'(a) dh, dx = da W1^T
 *   weight gradient  dW1 = x^T da, dW2 = h^T dy
 *
 * Gated experts have gate and up projection in one W1 of twice the width. One grouped GEMM a batch, or one GEMM an
 * expert that has rows. In fp8 both factors of a GEMM are stored with the summed dimension last, as cuBLAS wants
 * them (training frameworks keep a transposed copy for the same reason), and rows are rounded up to 16 where they
 * are summed over. */
#include "calibrate/measure/cuda_internal.h"

#include <math.h>
#include <stdlib.h>

/* A: rows before the experts; B: rows behind; W1, W2: weights. */
enum { X, W1, W2, A, H, Y, DH, DA, DW1, DW2, DX, DY };
enum { MOST_SLOTS = 16, BATCHES = 2 };

/* The GEMMs of all experts: out = left right, both or one of them cut by expert. */
typedef struct batch {
    int left, right, out; /* operands */
    bool sums_rows;       /* weight gradient: k is the rows */
    bool transposed_a, transposed_b;
    int64_t wide_m, wide_n, wide_k; /* but for the one that is the rows */
    float alpha;
} batch;

/* Arguments of a grouped call; pointers of slot s from [s * count] on. */
typedef struct group {
    int count;
    cublasOperation_t *op_a, *op_b;
    int *m, *n, *k, *lda, *ldb, *ldc, *size;
    float *alpha, *beta;
    const void **a, **b; /* device memory */
    void **c;
} group;

typedef struct experts_work {
    int64_t *rows, *start; /* of each expert; rows rounded up where fp8 sums over them */
    int64_t total;
    batch batch[BATCHES];
    bool activates; /* between the batches */
    group group[BATCHES];
} experts_work;

/* --- shape ------------------------------------------------------------------------------------ */

static int64_t gate_width(const moecal_point *point)
{
    return point->gated ? 2 * point->ffn : point->ffn;
}

static int result_type(const moecal_point *point)
{
    return point->dtype == MOECAL_FP8 ? MOECAL_ELEMENT_BF16 : (int)point->dtype;
}

static void count_rows(experts_work *work, const moecal_point *point)
{
    int64_t multiple =
        point->dtype == MOECAL_FP8 && point->phase == MOECAL_WEIGHT_GRADIENT ? 16 : 1;
    for (int i = 0; i < point->experts; i++) {
        work->rows[i] = (point->rows[i] + multiple - 1) / multiple * multiple;
        work->start[i] = work->total;
        work->total += work->rows[i];
    }
}

/* So that random products keep the size of their factors. */
static float damping(int64_t k)
{
    return (float)(1 / sqrt((double)k));
}

static batch over_rows(const moecal_point *point, int left, int right, int out, bool transposed,
                       int64_t n, int64_t k)
{
    return (batch){.left = left,
                   .right = right,
                   .out = out,
                   .wide_n = n,
                   .wide_k = k,
                   .transposed_b = transposed || point->dtype == MOECAL_FP8,
                   .alpha = damping(k)};
}

static batch summing_rows(const moecal_point *point, int left, int right, int out, int64_t m,
                          int64_t n)
{
    bool fp8 = point->dtype == MOECAL_FP8;
    return (batch){.left = left,
                   .right = right,
                   .out = out,
                   .sums_rows = true,
                   .wide_m = m,
                   .wide_n = n,
                   .transposed_a = !fp8,
                   .transposed_b = fp8,
                   .alpha = 1.0f / 16};
}

static void choose_batches(experts_work *work, const moecal_point *point)
{
    int64_t hidden = point->hidden, ffn = point->ffn, gate = gate_width(point);
    switch (point->phase) {
    case MOECAL_INPUT_GRADIENT:
        work->batch[0] = over_rows(point, DY, W2, DH, true, ffn, hidden);
        work->batch[1] = over_rows(point, DA, W1, DX, true, hidden, gate);
        break;
    case MOECAL_WEIGHT_GRADIENT:
        work->batch[0] = summing_rows(point, X, DA, DW1, hidden, gate);
        work->batch[1] = summing_rows(point, H, DY, DW2, ffn, hidden);
        break;
    default:
        work->batch[0] = over_rows(point, X, W1, A, false, gate, hidden);
        work->batch[1] = over_rows(point, H, W2, Y, false, hidden, ffn);
    }
    work->activates = point->phase != MOECAL_WEIGHT_GRADIENT;
}

static void set_operands(moecal_device *device, const experts_work *work, const moecal_point *point)
{
    int in = (int)point->dtype, out = result_type(point);
    int64_t hidden = point->hidden, ffn = point->ffn, gate = gate_width(point), rows = work->total,
            experts = point->experts;
    bool forward = point->phase == MOECAL_FORWARD, inputs = point->phase == MOECAL_INPUT_GRADIENT,
         weights = point->phase == MOECAL_WEIGHT_GRADIENT;
    if (forward || weights) {
        moecal_operand_set(device, X, in, rows * hidden, 1);
        moecal_operand_set(device, H, in, rows * ffn, weights ? 1 : 0);
    }
    if (forward || inputs) {
        moecal_operand_set(device, W1, in, experts * hidden * gate, 1);
        moecal_operand_set(device, W2, in, experts * hidden * ffn, 1);
        moecal_operand_set(device, A, out, rows * gate, inputs ? 1 : 0);
    }
    if (inputs || weights) {
        moecal_operand_set(device, DY, in, rows * hidden, 1);
        moecal_operand_set(device, DA, in, rows * gate, weights ? 1 : 0);
    }
    if (forward)
        moecal_operand_set(device, Y, out, rows * hidden, 0);
    if (inputs) {
        moecal_operand_set(device, DH, out, rows * ffn, 0);
        moecal_operand_set(device, DX, out, rows * hidden, 0);
    }
    if (weights) {
        moecal_operand_set(device, DW1, out, experts * hidden * gate, 0);
        moecal_operand_set(device, DW2, out, experts * hidden * ffn, 0);
    }
}

/* --- one expert's GEMM ------------------------------------------------------------------------ */

static moecal_matmul matmul_of(const experts_work *work, const batch *of, const moecal_point *point,
                               int expert)
{
    int64_t rows = work->rows[expert];
    return (moecal_matmul){.element = (int)point->dtype,
                           .out_element = result_type(point),
                           .transposed_a = of->transposed_a,
                           .transposed_b = of->transposed_b,
                           .m = of->sums_rows ? of->wide_m : rows,
                           .n = of->wide_n,
                           .k = of->sums_rows ? rows : of->wide_k,
                           .alpha = of->alpha};
}

static char *elements_on(void *base, int element, int64_t offset)
{
    return (char *)base + offset * (int64_t)moecal_element_bytes(element);
}

typedef struct factors {
    void *a, *b, *c;
} factors;

/* Where an expert's parts of the operands begin. */
static factors factors_of(const moecal_device *device, const experts_work *work, const batch *of,
                          const moecal_point *point, int expert, int64_t repetition)
{
    int64_t start = work->start[expert], one = expert;
    int64_t a = start * (of->sums_rows ? of->wide_m : of->wide_k);
    int64_t b = of->sums_rows ? start * of->wide_n : one * of->wide_n * of->wide_k;
    int64_t c = of->sums_rows ? one * of->wide_m * of->wide_n : start * of->wide_n;
    return (factors){
        elements_on(moecal_operand_at(device, of->left, repetition), (int)point->dtype, a),
        elements_on(moecal_operand_at(device, of->right, repetition), (int)point->dtype, b),
        elements_on(moecal_operand_at(device, of->out, repetition), result_type(point), c)};
}

static int issue_single(moecal_cuda *cuda, moecal_device *device, const moecal_point *point,
                        const batch *of, int64_t repetition)
{
    const experts_work *work = cuda->work;
    for (int expert = 0; expert < point->experts; expert++) {
        if (work->rows[expert] == 0)
            continue;
        moecal_matmul matmul = matmul_of(work, of, point, expert);
        factors at = factors_of(device, work, of, point, expert, repetition);
        MOECAL_DO(moecal_matmul_issue(cuda, device, &matmul, at.a, at.b, at.c));
    }
    return 0;
}

/* --- grouped ---------------------------------------------------------------------------------- */

static void *take_host(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        abort();
    return memory;
}

static void take_group(group *made, int experts)
{
    size_t count = (size_t)experts;
    int **const integers[] = {&made->m,   &made->n,   &made->k,   &made->lda,
                              &made->ldb, &made->ldc, &made->size};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        *integers[i] = take_host(count, sizeof(int));
    made->op_a = take_host(count, sizeof *made->op_a);
    made->op_b = take_host(count, sizeof *made->op_b);
    made->alpha = take_host(count, sizeof *made->alpha);
    made->beta = take_host(count, sizeof *made->beta);
}

static void free_group(group *freed)
{
    int *const integers[] = {freed->m,   freed->n,   freed->k,   freed->lda,
                             freed->ldb, freed->ldc, freed->size};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        free(integers[i]);
    free(freed->op_a);
    free(freed->op_b);
    free(freed->alpha);
    free(freed->beta);
}

/* One group an expert. By columns, so the factors change places. */
static void add_to_group(group *made, const moecal_matmul *matmul)
{
    int i = made->count++, m = (int)matmul->m, n = (int)matmul->n, k = (int)matmul->k;
    made->op_a[i] = matmul->transposed_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    made->op_b[i] = matmul->transposed_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    made->m[i] = n;
    made->n[i] = m;
    made->k[i] = k;
    made->lda[i] = matmul->transposed_b ? k : n;
    made->ldb[i] = matmul->transposed_a ? m : k;
    made->ldc[i] = n;
    made->size[i] = 1;
    made->alpha[i] = matmul->alpha;
}

/* Pointers of every slot, [a of slot 0, slot 1, ..., b ..., c ...], brought to the device. */
static int place_pointers(moecal_cuda *cuda, moecal_device *device, const moecal_point *point,
                          const batch *of, group *made)
{
    const experts_work *work = cuda->work;
    size_t all = (size_t)device->slots * (size_t)made->count, i = 0;
    const void **host = take_host(3 * all, sizeof *host);
    for (int64_t slot = 0; slot < device->slots; slot++)
        for (int expert = 0; expert < point->experts; expert++) {
            if (work->rows[expert] == 0)
                continue;
            factors at = factors_of(device, work, of, point, expert, slot);
            host[i] = at.b;
            host[all + i] = at.a;
            host[2 * all + i++] = at.c;
        }
    const void **there = moecal_take(cuda, device, 3 * all * sizeof *there);
    cudaError_t status = cudaErrorMemoryAllocation;
    if (there)
        status = cudaMemcpy(there, host, 3 * all * sizeof *there, cudaMemcpyHostToDevice);
    free(host);
    MOECAL_CUDA(status);
    made->a = there;
    made->b = there + all;
    made->c = (void **)(there + 2 * all);
    return 0;
}

static int make_group(moecal_cuda *cuda, moecal_device *device, const moecal_point *point,
                      int which)
{
    experts_work *work = cuda->work;
    group *made = &work->group[which];
    take_group(made, point->experts);
    for (int expert = 0; expert < point->experts; expert++)
        if (work->rows[expert] > 0) {
            moecal_matmul matmul = matmul_of(work, &work->batch[which], point, expert);
            add_to_group(made, &matmul);
        }
    return place_pointers(cuda, device, point, &work->batch[which], made);
}

static int issue_grouped(moecal_cuda *cuda, moecal_device *device, const moecal_point *point,
                         const group *of, int64_t repetition)
{
    cudaDataType_t type = point->dtype == MOECAL_FP32   ? CUDA_R_32F
                          : point->dtype == MOECAL_BF16 ? CUDA_R_16BF
                                                        : CUDA_R_16F;
    int64_t first = repetition % device->slots * of->count;
    MOECAL_BLAS(cublasGemmGroupedBatchedEx(device->blas, of->op_a, of->op_b, of->m, of->n, of->k,
                                           of->alpha, of->a + first, type, of->lda, of->b + first,
                                           type, of->ldb, of->beta, of->c + first, type, of->ldc,
                                           of->count, of->size, CUBLAS_COMPUTE_32F));
    return 0;
}

/* --- the operation ---------------------------------------------------------------------------- */

static int issue_batch(moecal_cuda *cuda, moecal_device *device, const moecal_point *point,
                       int which, int64_t repetition)
{
    const experts_work *work = cuda->work;
    if (point->grouped)
        return issue_grouped(cuda, device, point, &work->group[which], repetition);
    return issue_single(cuda, device, point, &work->batch[which], repetition);
}

static int issue_activation(moecal_cuda *cuda, moecal_device *device, const moecal_point *point,
                            int64_t repetition)
{
    const experts_work *work = cuda->work;
    void *a = moecal_operand_at(device, A, repetition);
    if (point->phase == MOECAL_FORWARD)
        MOECAL_CUDA(moecal_kernel_activate((int)point->dtype, point->gated, a,
                                           moecal_operand_at(device, H, repetition), work->total,
                                           point->ffn, device->stream[0]));
    else
        MOECAL_CUDA(moecal_kernel_activate_back(
            (int)point->dtype, point->gated, a, moecal_operand_at(device, DH, repetition),
            moecal_operand_at(device, DA, repetition), work->total, point->ffn, device->stream[0]));
    return 0;
}

static int issue(moecal_cuda *cuda, const moecal_point *point, int lane, int64_t repetition)
{
    const experts_work *work = cuda->work;
    moecal_device *device = &cuda->device[0];
    (void)lane;
    if (cuda->active == 0)
        return 0;
    MOECAL_CUDA(cudaSetDevice(device->ordinal));
    MOECAL_DO(issue_batch(cuda, device, point, 0, repetition));
    if (work->activates)
        MOECAL_DO(issue_activation(cuda, device, point, repetition));
    return issue_batch(cuda, device, point, 1, repetition);
}

static int prepare(moecal_cuda *cuda, const moecal_point *point)
{
    moecal_device *device = &cuda->device[0];
    experts_work *work = take_host(1, sizeof *work);
    cuda->work = work;
    work->rows = take_host((size_t)point->experts, sizeof *work->rows);
    work->start = take_host((size_t)point->experts, sizeof *work->start);
    count_rows(work, point);
    choose_batches(work, point);
    cuda->launches = point->grouped ? 5 : 2 * point->experts + 1;
    if (cuda->active == 0)
        return 0;
    set_operands(device, work, point);
    MOECAL_DO(moecal_operands_make(cuda, device, MOST_SLOTS));
    for (int which = 0; point->grouped && which < BATCHES; which++)
        MOECAL_DO(make_group(cuda, device, point, which));
    return 0;
}

static void release(moecal_cuda *cuda)
{
    experts_work *work = cuda->work;
    if (!work)
        return;
    for (int which = 0; which < BATCHES; which++)
        free_group(&work->group[which]);
    free(work->rows);
    free(work->start);
    free(work);
    cuda->work = NULL;
}

/* --- check ------------------------------------------------------------------------------------ */

/* Some rows of one expert. */
typedef struct patch {
    int expert;
    int64_t first, rows; /* of all rows */
} patch;

static double *product(moecal_cuda *cuda, moecal_device *device, const moecal_point *point,
                       const batch *of, moecal_view left, const patch *at)
{
    const experts_work *work = cuda->work;
    factors from = factors_of(device, work, of, point, at->expert, 0);
    moecal_view right =
        moecal_rows_of(from.b, (int)point->dtype, of->transposed_b ? of->wide_k : of->wide_n);
    double *out = moecal_take(cuda, device, (size_t)(at->rows * of->wide_n) * sizeof *out);
    right = of->transposed_b ? moecal_transposed(right) : right;
    if (out && moecal_kernel_reference_gemm(left, right, out, at->rows, of->wide_n, of->wide_k,
                                            (double)of->alpha, device->stream[0]) != cudaSuccess)
        return NULL;
    return out;
}

static int activate_patch(moecal_cuda *cuda, moecal_device *device, const moecal_point *point,
                          const patch *at, const double *before, double *after)
{
    int64_t gate = gate_width(point);
    moecal_view a = moecal_rows_of(moecal_operand_at(device, A, 0), result_type(point), gate);
    if (point->phase == MOECAL_FORWARD)
        MOECAL_CUDA(moecal_kernel_reference_activate(point->gated, before, after, at->rows,
                                                     point->ffn, device->stream[0]));
    else
        MOECAL_CUDA(moecal_kernel_reference_activate_back(
            point->gated, moecal_from(a, at->first, 0), before, after, at->rows, point->ffn,
            device->stream[0]));
    return 0;
}

/* The whole way of a few rows through both GEMMs in double. */
static int check_patch(moecal_cuda *cuda, moecal_device *device, const moecal_point *point,
                       const patch *at, double *error)
{
    const experts_work *work = cuda->work;
    const batch *first = &work->batch[0], *second = &work->batch[1];
    int mark = device->taken_count;
    moecal_view in =
        moecal_rows_of(moecal_operand_at(device, first->left, 0), (int)point->dtype, first->wide_k);
    moecal_view out = moecal_rows_of(moecal_operand_at(device, second->out, 0), result_type(point),
                                     second->wide_n);
    double *before = product(cuda, device, point, first, moecal_from(in, at->first, 0), at);
    double *after = moecal_take(cuda, device, (size_t)(at->rows * second->wide_k) * sizeof *after);
    if (!before || !after)
        return 1;
    MOECAL_DO(activate_patch(cuda, device, point, at, before, after));
    double *want = product(cuda, device, point, second,
                           moecal_rows_of(after, MOECAL_ELEMENT_FP64, second->wide_k), at);
    if (!want)
        return 1;
    MOECAL_DO(moecal_compare(cuda, device, result_type(point), moecal_from(out, at->first, 0).data,
                             want, at->rows * second->wide_n, error));
    moecal_give_back(device, mark);
    return 0;
}

static int check_expert(moecal_cuda *cuda, moecal_device *device, const moecal_point *point,
                        int expert, double *error)
{
    const experts_work *work = cuda->work;
    int64_t rows = work->rows[expert] < 2 ? work->rows[expert] : 2;
    patch at = {expert, work->start[expert] + work->rows[expert] - rows, rows};
    if (work->activates)
        return check_patch(cuda, device, point, &at, error);
    for (int which = 0; which < BATCHES; which++) {
        moecal_matmul matmul = matmul_of(work, &work->batch[which], point, expert);
        factors from = factors_of(device, work, &work->batch[which], point, expert, 0);
        MOECAL_DO(moecal_matmul_compare(cuda, device, &matmul, from.a, from.b, from.c, error));
    }
    return 0;
}

/* The experts of most and of fewest rows, and the last one that has any. */
static int check(moecal_cuda *cuda, const moecal_point *point, moecal_check *found)
{
    const experts_work *work = cuda->work;
    int most = -1, fewest = -1, last = -1;
    for (int i = 0; i < point->experts; i++) {
        if (work->rows[i] == 0)
            continue;
        most = most < 0 || work->rows[i] > work->rows[most] ? i : most;
        fewest = fewest < 0 || work->rows[i] < work->rows[fewest] ? i : fewest;
        last = i;
    }
    /* Rounded once more, between the GEMMs. */
    found->limit = (point->dtype == MOECAL_FP8 ? 2 : 3) * moecal_rounding_limit((int)point->dtype);
    MOECAL_CUDA(cudaSetDevice(cuda->device[0].ordinal));
    MOECAL_DO(check_expert(cuda, &cuda->device[0], point, most, &found->error));
    MOECAL_DO(check_expert(cuda, &cuda->device[0], point, fewest, &found->error));
    return check_expert(cuda, &cuda->device[0], point, last, &found->error);
}

const moecal_operation moecal_operation_experts = {
    .prepare = prepare, .issue = issue, .check = check, .release = release};
