/* Permutation, gate, norm, Adam, LM head: kernels of our own and plain GEMMs, on one device. */
#include "calibrate/measure/cuda_internal.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

static moecal_device *only(moecal_cuda *cuda)
{
    return &cuda->device[0];
}

/* Allocates what has been set. */
static int make(moecal_cuda *cuda)
{
    return moecal_operands_make(cuda, only(cuda), INT_MAX);
}

static void *at(moecal_cuda *cuda, int index, int64_t repetition)
{
    return moecal_operand_at(only(cuda), index, repetition);
}

/* --- permutation ------------------------------------------------------------------------------ */

enum { PERMUTE_IN, PERMUTE_OUT };

static int permute_prepare(moecal_cuda *cuda, const moecal_point *point)
{
    moecal_device *device = only(cuda);
    int64_t rows = point->tokens * point->top_k;
    if (cuda->active == 0)
        return 0;
    moecal_operand_set(device, PERMUTE_IN, (int)point->dtype, point->tokens * point->hidden, 1);
    moecal_operand_set(device, PERMUTE_OUT, (int)point->dtype, rows * point->hidden, 0);
    MOECAL_DO(make(cuda));
    cuda->work = moecal_take(cuda, device, (size_t)rows * sizeof(int32_t));
    if (!cuda->work)
        return 1;
    MOECAL_CUDA(
        moecal_kernel_fill_permutation(cuda->work, point->tokens, point->top_k, device->stream[0]));
    return 0;
}

static int permute_issue(moecal_cuda *cuda, const moecal_point *point, int lane, int64_t repetition)
{
    moecal_device *device = only(cuda);
    if (cuda->active == 0)
        return 0;
    MOECAL_CUDA(moecal_kernel_permute((int)point->dtype, at(cuda, PERMUTE_IN, repetition),
                                      cuda->work, at(cuda, PERMUTE_OUT, repetition),
                                      point->tokens * point->top_k, point->hidden,
                                      device->stream[lane]));
    return 0;
}

static int permute_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    moecal_device *device = only(cuda);
    unsigned long long wrong = 0;
    cudaStream_t stream = device->stream[0];
    MOECAL_CUDA(cudaMemsetAsync(device->wrong, 0, sizeof wrong, stream));
    MOECAL_CUDA(moecal_kernel_compare_rows((int)moecal_element_bytes((int)point->dtype),
                                           at(cuda, PERMUTE_IN, 0), cuda->work,
                                           at(cuda, PERMUTE_OUT, 0), point->tokens * point->top_k,
                                           point->hidden, device->wrong, stream));
    MOECAL_CUDA(
        cudaMemcpyAsync(&wrong, device->wrong, sizeof wrong, cudaMemcpyDeviceToHost, stream));
    MOECAL_CUDA(cudaStreamSynchronize(stream));
    check->error = wrong > 0;
    return 0;
}

static void forget_work(moecal_cuda *cuda)
{
    cuda->work = NULL; /* device memory, given back with the rest */
}

const moecal_operation moecal_operation_permute = {.prepare = permute_prepare,
                                                   .issue = permute_issue,
                                                   .check = permute_check,
                                                   .release = forget_work};

/* --- gate ------------------------------------------------------------------------------------- */

enum { GATE_IN, GATE_WEIGHT, GATE_SCORE, GATE_SHARE, GATE_CHOSEN };

static moecal_matmul gate_matmul(const moecal_point *point)
{
    return (moecal_matmul){.element = (int)point->dtype,
                           .out_element = MOECAL_ELEMENT_FP32,
                           .m = point->tokens,
                           .n = point->experts,
                           .k = point->hidden,
                           .alpha = 1 / sqrtf((float)point->hidden)};
}

static int gate_prepare(moecal_cuda *cuda, const moecal_point *point)
{
    moecal_device *device = only(cuda);
    int64_t tokens = point->tokens;
    cuda->launches = 2;
    if (cuda->active == 0)
        return 0;
    moecal_operand_set(device, GATE_IN, (int)point->dtype, tokens * point->hidden, 1);
    moecal_operand_set(device, GATE_WEIGHT, (int)point->dtype, point->hidden * point->experts, 1);
    moecal_operand_set(device, GATE_SCORE, MOECAL_ELEMENT_FP32, tokens * point->experts, 0);
    moecal_operand_set(device, GATE_SHARE, MOECAL_ELEMENT_FP32, tokens * point->top_k, 0);
    moecal_operand_set(device, GATE_CHOSEN, MOECAL_ELEMENT_FP32, tokens * point->top_k, 0);
    return make(cuda);
}

static int gate_issue(moecal_cuda *cuda, const moecal_point *point, int lane, int64_t repetition)
{
    moecal_matmul matmul = gate_matmul(point);
    float *score = at(cuda, GATE_SCORE, repetition);
    if (cuda->active == 0)
        return 0;
    MOECAL_DO(moecal_matmul_issue(cuda, only(cuda), &matmul, at(cuda, GATE_IN, repetition),
                                  at(cuda, GATE_WEIGHT, repetition), score));
    MOECAL_CUDA(moecal_kernel_top_k(score, at(cuda, GATE_SHARE, repetition),
                                    at(cuda, GATE_CHOSEN, repetition), point->tokens,
                                    point->experts, point->top_k, only(cuda)->stream[lane]));
    return 0;
}

static int larger_first(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a < b) - (a > b);
}

/* Scores of a token to its largest probabilities, in place. */
static void choose(double *score, int64_t experts)
{
    double sum = 0;
    qsort(score, (size_t)experts, sizeof *score, larger_first);
    double largest = score[0];
    for (int64_t i = 0; i < experts; i++)
        sum += exp(score[i] - largest);
    for (int64_t i = 0; i < experts; i++)
        score[i] = exp(score[i] - largest) / sum;
}

/* Chosen probabilities against those of double-precision scores; not the experts' numbers, for near ties may go
 * either way. */
static int check_token(moecal_cuda *cuda, const moecal_point *point, int64_t token, double *values,
                       double *error)
{
    moecal_device *device = only(cuda);
    int mark = device->taken_count;
    int64_t experts = point->experts;
    double *want = moecal_take(cuda, device, (size_t)experts * sizeof *want);
    moecal_view in = moecal_rows_of(at(cuda, GATE_IN, 0), (int)point->dtype, point->hidden),
                weight = moecal_rows_of(at(cuda, GATE_WEIGHT, 0), (int)point->dtype, experts);
    if (!want)
        return 1;
    MOECAL_CUDA(moecal_kernel_reference_gemm(moecal_from(in, token, 0), weight, want, 1, experts,
                                             point->hidden, (double)gate_matmul(point).alpha,
                                             device->stream[0]));
    MOECAL_DO(moecal_download(cuda, device, MOECAL_ELEMENT_FP64, want, experts, values));
    choose(values, experts);
    MOECAL_CUDA(cudaMemcpy(want, values, (size_t)experts * sizeof *want, cudaMemcpyHostToDevice));
    MOECAL_DO(moecal_compare(cuda, device, MOECAL_ELEMENT_FP32,
                             (float *)at(cuda, GATE_SHARE, 0) + token * point->top_k, want,
                             point->top_k, error));
    moecal_give_back(device, mark);
    return 0;
}

static int gate_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    double *values = malloc((size_t)point->experts * sizeof *values);
    int failed = !values;
    int64_t step = point->tokens > 8 ? point->tokens / 8 : 1;
    check->limit = moecal_rounding_limit((int)point->dtype);
    for (int64_t token = 0; token < point->tokens && !failed; token += step)
        failed = check_token(cuda, point, token, values, &check->error);
    free(values);
    return failed;
}

const moecal_operation moecal_operation_gate = {
    .prepare = gate_prepare, .issue = gate_issue, .check = gate_check};

/* --- norm ------------------------------------------------------------------------------------- */

enum { NORM_IN, NORM_WEIGHT, NORM_OUT };

static int norm_prepare(moecal_cuda *cuda, const moecal_point *point)
{
    moecal_device *device = only(cuda);
    if (cuda->active == 0)
        return 0;
    moecal_operand_set(device, NORM_IN, (int)point->dtype, point->tokens * point->hidden, 1);
    moecal_operand_set(device, NORM_WEIGHT, (int)point->dtype, point->hidden, 1);
    moecal_operand_set(device, NORM_OUT, (int)point->dtype, point->tokens * point->hidden, 0);
    return make(cuda);
}

static int norm_issue(moecal_cuda *cuda, const moecal_point *point, int lane, int64_t repetition)
{
    if (cuda->active == 0)
        return 0;
    MOECAL_CUDA(moecal_kernel_norm(
        (int)point->dtype, at(cuda, NORM_IN, repetition), at(cuda, NORM_WEIGHT, repetition),
        at(cuda, NORM_OUT, repetition), point->tokens, point->hidden, only(cuda)->stream[lane]));
    return 0;
}

static double off_by(double got, double want, double largest)
{
    double off = fabs(got - want) / (largest > 0 ? largest : 1);
    return isnan(off) ? INFINITY : off;
}

/* values: three rows: in, weight, out. */
static double norm_error(const double *values, int64_t hidden)
{
    const double *in = values, *weight = in + hidden, *out = weight + hidden;
    double squares = 0, largest = 0, error = 0;
    for (int64_t i = 0; i < hidden; i++)
        squares += in[i] * in[i];
    double scale = 1 / sqrt(squares / (double)hidden + 1e-6);
    for (int64_t i = 0; i < hidden; i++)
        largest = fmax(largest, fabs(in[i] * scale * weight[i]));
    for (int64_t i = 0; i < hidden; i++)
        error = fmax(error, off_by(out[i], in[i] * scale * weight[i], largest));
    return error;
}

static int norm_token(moecal_cuda *cuda, const moecal_point *point, int64_t token, double *values,
                      double *error)
{
    static const int operands[] = {NORM_IN, NORM_WEIGHT, NORM_OUT};
    int64_t hidden = point->hidden;
    for (int i = 0; i < 3; i++) {
        moecal_view rows = moecal_rows_of(at(cuda, operands[i], 0), (int)point->dtype, hidden);
        MOECAL_DO(moecal_download(cuda, only(cuda), (int)point->dtype,
                                  moecal_from(rows, i == 1 ? 0 : token, 0).data, hidden,
                                  values + i * hidden));
    }
    *error = fmax(*error, norm_error(values, hidden));
    return 0;
}

static int norm_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    double *values = malloc(3 * (size_t)point->hidden * sizeof *values);
    int failed = !values;
    check->limit = moecal_rounding_limit((int)point->dtype);
    failed = failed || norm_token(cuda, point, 0, values, &check->error) ||
             norm_token(cuda, point, point->tokens - 1, values, &check->error);
    free(values);
    return failed;
}

const moecal_operation moecal_operation_norm = {
    .prepare = norm_prepare, .issue = norm_issue, .check = norm_check};

/* --- Adam ------------------------------------------------------------------------------------- */

enum { ADAM_GRADIENT, ADAM_MASTER, ADAM_FIRST, ADAM_SECOND, ADAM_PARAMETER, ADAM_OPERANDS };
enum { ADAM_CHECKED = 1024 };

typedef struct adam_work {
    double before[ADAM_OPERANDS][ADAM_CHECKED]; /* the last elements, updated in place */
} adam_work;

static int64_t adam_checked(const moecal_point *point)
{
    return point->parameters < ADAM_CHECKED ? point->parameters : ADAM_CHECKED;
}

static int adam_look(moecal_cuda *cuda, const moecal_point *point, double (*values)[ADAM_CHECKED])
{
    int64_t count = adam_checked(point);
    for (int i = 0; i < ADAM_OPERANDS; i++) {
        int element = only(cuda)->operand[i].element;
        moecal_view all = moecal_rows_of(at(cuda, i, 0), element, 1);
        MOECAL_DO(moecal_download(cuda, only(cuda), element,
                                  moecal_from(all, point->parameters - count, 0).data, count,
                                  values[i]));
    }
    return 0;
}

static int adam_prepare(moecal_cuda *cuda, const moecal_point *point)
{
    moecal_device *device = only(cuda);
    adam_work *work = calloc(1, sizeof *work);
    cuda->work = work;
    if (!work)
        return moecal_cuda_say(cuda, __FILE__, __LINE__, "calloc", "out of memory");
    if (cuda->active == 0)
        return 0;
    moecal_operand_set(device, ADAM_GRADIENT, (int)point->dtype, point->parameters, 1);
    moecal_operand_set(device, ADAM_MASTER, MOECAL_ELEMENT_FP32, point->parameters, 1);
    moecal_operand_set(device, ADAM_FIRST, MOECAL_ELEMENT_FP32, point->parameters, 0.1f);
    moecal_operand_set(device, ADAM_SECOND, MOECAL_ELEMENT_FP32, point->parameters, -0.01f);
    moecal_operand_set(device, ADAM_PARAMETER, (int)point->dtype, point->parameters, 0);
    MOECAL_DO(make(cuda));
    return adam_look(cuda, point, work->before);
}

static int adam_issue(moecal_cuda *cuda, const moecal_point *point, int lane, int64_t repetition)
{
    if (cuda->active == 0)
        return 0;
    MOECAL_CUDA(moecal_kernel_adam(
        (int)point->dtype, at(cuda, ADAM_GRADIENT, repetition), at(cuda, ADAM_MASTER, repetition),
        at(cuda, ADAM_FIRST, repetition), at(cuda, ADAM_SECOND, repetition),
        at(cuda, ADAM_PARAMETER, repetition), point->parameters, only(cuda)->stream[lane]));
    return 0;
}

/* The update of the kernel's comment, one element. */
static double adam_expected(const adam_work *work, int64_t i)
{
    double gradient = work->before[ADAM_GRADIENT][i], master = work->before[ADAM_MASTER][i];
    double first = 0.9 * work->before[ADAM_FIRST][i] + 0.1 * gradient;
    double second = 0.95 * work->before[ADAM_SECOND][i] + 0.05 * gradient * gradient;
    return master - 1e-3 * (first / 0.1 / (sqrt(second / 0.05) + 1e-8) + 0.1 * master);
}

static int adam_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    const adam_work *work = cuda->work;
    adam_work *after = calloc(1, sizeof *after);
    double largest = 0;
    int failed = !after || adam_look(cuda, point, after->before);
    check->limit = moecal_rounding_limit((int)point->dtype);
    for (int64_t i = 0; i < adam_checked(point); i++)
        largest = fmax(largest, fabs(adam_expected(work, i)));
    for (int64_t i = 0; i < adam_checked(point) && !failed; i++) {
        double want = adam_expected(work, i);
        check->error = fmax(check->error, off_by(after->before[ADAM_PARAMETER][i], want, largest));
        check->error = fmax(check->error, off_by(after->before[ADAM_MASTER][i], want, largest));
    }
    free(after);
    return failed;
}

static void adam_release(moecal_cuda *cuda)
{
    free(cuda->work);
    cuda->work = NULL;
}

const moecal_operation moecal_operation_adam = {
    .prepare = adam_prepare, .issue = adam_issue, .check = adam_check, .release = adam_release};

/* --- LM head ---------------------------------------------------------------------------------- */

enum { HEAD_IN, HEAD_WEIGHT, HEAD_LOSS, HEAD_LOGITS };
static const int64_t head_bytes =
    (int64_t)2 << 30; /* of logits at a time, as training loops over micro batches */

static int64_t head_rows(const moecal_point *point)
{
    int64_t rows =
        head_bytes / point->vocabulary / (int64_t)moecal_element_bytes((int)point->dtype);
    rows = rows > 0 ? rows : 1;
    return rows < point->tokens ? rows : point->tokens;
}

static moecal_matmul head_matmul(const moecal_point *point, int64_t rows)
{
    return (moecal_matmul){.element = (int)point->dtype,
                           .out_element = (int)point->dtype,
                           .m = rows,
                           .n = point->vocabulary,
                           .k = point->hidden,
                           .alpha = 1 / sqrtf((float)point->hidden)};
}

static int head_prepare(moecal_cuda *cuda, const moecal_point *point)
{
    moecal_device *device = only(cuda);
    int64_t rows = head_rows(point);
    cuda->launches = (int)(2 * ((point->tokens + rows - 1) / rows));
    if (cuda->active == 0)
        return 0;
    moecal_operand_set(device, HEAD_IN, (int)point->dtype, point->tokens * point->hidden, 1);
    moecal_operand_set(device, HEAD_WEIGHT, (int)point->dtype, point->hidden * point->vocabulary,
                       1);
    moecal_operand_set(device, HEAD_LOSS, MOECAL_ELEMENT_FP32, point->tokens, 0);
    moecal_operand_set(device, HEAD_LOGITS, (int)point->dtype, rows * point->vocabulary, 0);
    return make(cuda);
}

static int head_issue(moecal_cuda *cuda, const moecal_point *point, int lane, int64_t repetition)
{
    int64_t rows = head_rows(point);
    float *loss = at(cuda, HEAD_LOSS, repetition);
    void *logits = at(cuda, HEAD_LOGITS, repetition);
    for (int64_t row = 0; cuda->active > 0 && row < point->tokens; row += rows) {
        int64_t count = point->tokens - row < rows ? point->tokens - row : rows;
        moecal_matmul matmul = head_matmul(point, count);
        moecal_view in =
            moecal_rows_of(at(cuda, HEAD_IN, repetition), (int)point->dtype, point->hidden);
        MOECAL_DO(moecal_matmul_issue(cuda, only(cuda), &matmul, moecal_from(in, row, 0).data,
                                      at(cuda, HEAD_WEIGHT, repetition), logits));
        MOECAL_CUDA(moecal_kernel_cross_entropy((int)point->dtype, logits, loss + row, count,
                                                point->vocabulary, row, only(cuda)->stream[lane]));
    }
    return 0;
}

static double loss_of(const double *logits, int64_t vocabulary, int64_t token)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < vocabulary; i++)
        largest = fmax(largest, logits[i]);
    for (int64_t i = 0; i < vocabulary; i++)
        sum += exp(logits[i] - largest);
    return log(sum) + largest - logits[moecal_label(token, vocabulary)];
}

static int head_token(moecal_cuda *cuda, const moecal_point *point, int64_t token, double *logits,
                      double *error)
{
    moecal_device *device = only(cuda);
    int mark = device->taken_count;
    double got = 0, *want = moecal_take(cuda, device, (size_t)point->vocabulary * sizeof *want);
    moecal_view in = moecal_rows_of(at(cuda, HEAD_IN, 0), (int)point->dtype, point->hidden),
                weight =
                    moecal_rows_of(at(cuda, HEAD_WEIGHT, 0), (int)point->dtype, point->vocabulary);
    if (!want)
        return 1;
    MOECAL_CUDA(moecal_kernel_reference_gemm(
        moecal_from(in, token, 0), weight, want, 1, point->vocabulary, point->hidden,
        (double)head_matmul(point, 1).alpha, device->stream[0]));
    MOECAL_DO(moecal_download(cuda, device, MOECAL_ELEMENT_FP64, want, point->vocabulary, logits));
    MOECAL_DO(moecal_download(cuda, device, MOECAL_ELEMENT_FP32,
                              (float *)at(cuda, HEAD_LOSS, 0) + token, 1, &got));
    double loss = loss_of(logits, point->vocabulary, token);
    *error = fmax(*error, off_by(got, loss, fmax(loss, 1)));
    moecal_give_back(device, mark);
    return 0;
}

static int head_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    double *logits = malloc((size_t)point->vocabulary * sizeof *logits);
    int failed = !logits;
    check->limit = moecal_rounding_limit((int)point->dtype);
    failed = failed || head_token(cuda, point, 0, logits, &check->error) ||
             head_token(cuda, point, point->tokens - 1, logits, &check->error);
    free(logits);
    return failed;
}

const moecal_operation moecal_operation_head = {
    .prepare = head_prepare, .issue = head_issue, .check = head_check};
