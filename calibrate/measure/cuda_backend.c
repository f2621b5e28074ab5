/* The backend: what is the same for all kinds of points. One repetition looks so on every device:
 *
 *   gate: keeps the stream until everything of the repetition is enqueued, so that the host's launches do not
 *         count (skipped where there are hundreds: the queue would fill)
 *   collectives: a small all-reduce, so that the ranks go on together
 *   start event, the work, an event after each lane
 *
 * and its time is that of the slowest device, by the events' clock. */
#include "calibrate/measure/cuda_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_GATED = 256 };
static const double sample_every_s = 0.05, give_up_s = 600;

double moecal_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* --- errors ----------------------------------------------------------------------------------- */

/* After one of these nothing works on the device any more. */
static bool is_lost(cudaError_t status)
{
    switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

/* The first cause is kept: what follows it is its consequence. */
int moecal_cuda_say(moecal_cuda *cuda, const char *file, int line, const char *call,
                    const char *text)
{
    const char *name = strrchr(file, '/');
    if (!cuda->error[0])
        snprintf(cuda->error, sizeof cuda->error, "%s:%d: %.*s: %s", name ? name + 1 : file, line,
                 (int)strcspn(call, "("), call, text);
    cudaError_t pending = cudaGetLastError(); /* forgets one that can be forgotten */
    if (is_lost(pending))
        moecal_cuda_die(cuda, cudaGetErrorString(pending));
    return 1;
}

_Noreturn void moecal_cuda_die(const moecal_cuda *cuda, const char *what)
{
    fprintf(stderr, "\nmoecal: process %d: cannot go on: %s%s%s\n", cuda->world.rank, what,
            cuda->error[0] ? ": " : "", cuda->error);
    fflush(NULL);
    _exit(70); /* no destructors: the CUDA runtime's might wait for the lost device */
}

static void complain(const moecal_cuda *cuda)
{
    if (strcmp(cuda->error, "another process failed") != 0)
        fprintf(stderr, "\nmoecal: process %d: %s\n", cuda->world.rank, cuda->error);
}

/* --- waiting ---------------------------------------------------------------------------------- */

static void look_at_conditions(moecal_cuda *cuda)
{
    double now_s = moecal_now_s();
    if (!cuda->nvml || cuda->active == 0 || now_s - cuda->sampled_s < sample_every_s)
        return;
    moecal_conditions seen = moecal_nvml_conditions(cuda->nvml, cuda->active);
    moecal_conditions *worst = &cuda->worst;
    cuda->sampled_s = moecal_now_s();
    if (seen.clock_hz > 0 && (worst->clock_hz == 0 || seen.clock_hz < worst->clock_hz))
        worst->clock_hz = seen.clock_hz;
    worst->power_w = fmax(worst->power_w, seen.power_w);
    worst->temperature_c = fmax(worst->temperature_c, seen.temperature_c); /* of NaN: the other */
    worst->throttled |= seen.throttled;
}

static void watch_comms(const moecal_cuda *cuda, const ncclComm_t *comm)
{
    for (int i = 0; i < cuda->device_count; i++) {
        ncclResult_t state = ncclSuccess;
        if (comm[i] && ncclCommGetAsyncError(comm[i], &state) == ncclSuccess &&
            state != ncclSuccess && state != ncclInProgress)
            moecal_cuda_die(cuda, moecal_nccl_text(state));
    }
}

/* Errors are told by the communicator they happened on, which is never the whole world's. */
static void watch_nccl(const moecal_cuda *cuda)
{
    watch_comms(cuda, cuda->comm);
    for (const moecal_communicator *at = cuda->communicators; at; at = at->next)
        watch_comms(cuda, at->comm);
}

/* A collective whose peer is gone never ends: it is given up, not waited for. */
static int wait_event(moecal_cuda *cuda, cudaEvent_t event)
{
    double start_s = moecal_now_s(), watched_s = start_s;
    cudaError_t status;
    while ((status = cudaEventQuery(event)) == cudaErrorNotReady) {
        double now_s = moecal_now_s();
        if (now_s - watched_s > 1) {
            watch_nccl(cuda);
            watched_s = now_s;
        }
        if (now_s - start_s > give_up_s)
            moecal_cuda_die(cuda, "a repetition did not end in 600 s");
    }
    MOECAL_CUDA(status);
    return 0;
}

/* --- one repetition --------------------------------------------------------------------------- */

static bool lane_runs(const moecal_cuda *cuda, int alone, int lane)
{
    return lane < cuda->lanes && (alone == 0 || alone == lane + 1);
}

/* Where a repetition begins: with one lane its own stream. */
static int first_stream(const moecal_cuda *cuda)
{
    return cuda->lanes == 1 ? 0 : MOECAL_GATE_STREAM;
}

static int close_gates(moecal_cuda *cuda)
{
    cuda->ticket++;
    for (int i = 0; i < cuda->active; i++) {
        moecal_device *device = &cuda->device[i];
        if (cuda->launches > MOST_GATED)
            continue;
        MOECAL_CUDA(cudaSetDevice(device->ordinal));
        MOECAL_CUDA(
            moecal_kernel_gate(device->gate, cuda->ticket, device->stream[first_stream(cuda)]));
    }
    return 0;
}

static void open_gates(moecal_cuda *cuda)
{
    for (int i = 0; i < cuda->device_count; i++)
        __atomic_store_n(cuda->device[i].gate, cuda->ticket, __ATOMIC_RELEASE);
}

static int align_ranks(moecal_cuda *cuda)
{
    for (int lane = 0; lane < MOECAL_LANES; lane++)
        if (cuda->lane[lane].exchange)
            return moecal_lane_align(cuda, lane, first_stream(cuda));
    return 0;
}

static int mark_starts(moecal_cuda *cuda, int alone)
{
    for (int i = 0; i < cuda->active; i++) {
        moecal_device *device = &cuda->device[i];
        MOECAL_CUDA(cudaSetDevice(device->ordinal));
        MOECAL_CUDA(cudaEventRecord(device->start, device->stream[first_stream(cuda)]));
        for (int lane = 0; cuda->lanes > 1 && lane < cuda->lanes; lane++)
            if (lane_runs(cuda, alone, lane))
                MOECAL_CUDA(cudaStreamWaitEvent(device->stream[lane], device->start, 0));
    }
    return 0;
}

static int mark_stops(moecal_cuda *cuda, int lane)
{
    for (int i = 0; i < cuda->active; i++) {
        moecal_device *device = &cuda->device[i];
        MOECAL_CUDA(cudaSetDevice(device->ordinal));
        MOECAL_CUDA(cudaEventRecord(device->stop[lane], device->stream[lane]));
    }
    return 0;
}

/* The last lane first: a collective's few blocks are there when the GEMM's many come, as in training, where it
 * was issued earlier. */
static int enqueue(moecal_cuda *cuda, const moecal_point *point, int alone)
{
    MOECAL_DO(close_gates(cuda));
    MOECAL_DO(align_ranks(cuda));
    MOECAL_DO(mark_starts(cuda, alone));
    for (int lane = cuda->lanes - 1; lane >= 0; lane--)
        if (lane_runs(cuda, alone, lane)) {
            MOECAL_DO(cuda->operation->issue(cuda, point, lane, cuda->repetitions));
            MOECAL_DO(mark_stops(cuda, lane));
        }
    return 0;
}

static int finish(moecal_cuda *cuda, int alone, double *lane_s)
{
    for (int lane = 0; lane < MOECAL_LANES; lane++)
        for (int i = 0; lane_runs(cuda, alone, lane) && i < cuda->active; i++) {
            float milliseconds = 0;
            MOECAL_DO(wait_event(cuda, cuda->device[i].stop[lane]));
            MOECAL_CUDA(cudaEventElapsedTime(&milliseconds, cuda->device[i].start,
                                             cuda->device[i].stop[lane]));
            lane_s[lane] = fmax(lane_s[lane], 1e-3 * (double)milliseconds);
        }
    return 0;
}

static int repeat_once(moecal_cuda *cuda, const moecal_point *point, int alone, double *lane_s)
{
    int failed;
    lane_s[0] = lane_s[1] = 0;
    if (cuda->active == 0) /* of another process */
        return 0;
    if (cuda->operation->time) {
        failed = cuda->operation->time(cuda, point, &lane_s[0]);
    } else {
        failed = enqueue(cuda, point, alone);
        open_gates(cuda);
        failed = failed || finish(cuda, alone, lane_s);
    }
    cuda->repetitions++;
    look_at_conditions(cuda);
    return failed;
}

/* --- the interface ---------------------------------------------------------------------------- */

static const moecal_operation *const operations[MOECAL_KINDS] = {
    [MOECAL_GEMM] = &moecal_operation_gemm,
    [MOECAL_EXPERTS] = &moecal_operation_experts,
    [MOECAL_PERMUTE] = &moecal_operation_permute,
    [MOECAL_GATE] = &moecal_operation_gate,
    [MOECAL_ATTENTION] = &moecal_operation_attention,
    [MOECAL_NORM] = &moecal_operation_norm,
    [MOECAL_ADAM] = &moecal_operation_adam,
    [MOECAL_HEAD] = &moecal_operation_head,
    [MOECAL_COLLECTIVE] = &moecal_operation_collective,
    [MOECAL_INTERFERENCE] = &moecal_operation_interference,
    [MOECAL_SHARING] = &moecal_operation_sharing,
    [MOECAL_LAUNCH] = &moecal_operation_launch,
    [MOECAL_COPY] = &moecal_operation_copy,
};

static void *backend_open(char *error, size_t error_size)
{
    return moecal_cuda_open(error, error_size);
}

static moecal_world backend_world(const void *state)
{
    return ((const moecal_cuda *)state)->world;
}

static json_t *backend_describe(void *state)
{
    return moecal_cuda_describe(state);
}

static const char *fp8_refuses(const moecal_cuda *cuda, const moecal_point *point)
{
    int64_t g = point->gated ? 2 : 1;
    if (cuda->device[0].capability < 89)
        return "fp8 needs compute capability 8.9";
    if (point->kind == MOECAL_EXPERTS && point->grouped)
        return "cuBLAS has no grouped fp8 GEMM";
    if (point->kind == MOECAL_EXPERTS &&
        (point->hidden % 16 || g * point->ffn % 16 || point->ffn % 16))
        return "fp8 needs widths that are multiples of 16";
    if (point->kind != MOECAL_EXPERTS && (point->gemm.n % 16 || point->gemm.k % 16))
        return "fp8 needs n and k that are multiples of 16";
    return NULL;
}

/* cuBLAS wants the parts of a grouped GEMM to begin at multiples of 16 bytes. */
static const char *grouped_refuses(const moecal_point *point)
{
    bool grouped = point->kind == MOECAL_EXPERTS && point->grouped && point->dtype != MOECAL_FP32;
    return grouped && (point->hidden % 8 || point->ffn % 8)
               ? "a grouped GEMM needs widths that are multiples of 8"
               : NULL;
}

static const char *size_refuses(const moecal_point *point)
{
    const int64_t sizes[] = {point->gemm.m,  point->gemm.n, point->gemm.k,     point->hidden,
                             2 * point->ffn, point->tokens, point->vocabulary, point->sequence};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] > INT32_MAX)
            return "cuBLAS takes dimensions up to 2^31 - 1";
    if (point->tokens * (point->top_k > 0 ? point->top_k : 1) > INT32_MAX)
        return "more than 2^31 - 1 rows";
    return moecal_point_bytes(point) > 0x1p40 ? "more than 2^40 bytes" : NULL;
}

/* Which formats a kind is measured in. */
static const char *dtype_refuses(const moecal_cuda *cuda, const moecal_point *point)
{
    bool plain = point->kind == MOECAL_COLLECTIVE || point->kind == MOECAL_SHARING ||
                 point->kind == MOECAL_PERMUTE || point->kind == MOECAL_LAUNCH ||
                 point->kind == MOECAL_COPY;
    if (point->dtype == MOECAL_BF16 && !plain && cuda->device[0].capability < 80)
        return "bf16 needs compute capability 8.0";
    if (point->dtype != MOECAL_FP8 || plain)
        return NULL;
    if (point->kind != MOECAL_GEMM && point->kind != MOECAL_EXPERTS &&
        point->kind != MOECAL_INTERFERENCE)
        return "fp8 is measured for GEMMs and experts alone";
    return fp8_refuses(cuda, point);
}

static const char *backend_refuses(const void *state, const moecal_point *point)
{
    const moecal_cuda *cuda = state;
    int ranks = moecal_ranks_of(cuda, point);
    const char *reason = size_refuses(point);
    reason = reason ? reason : dtype_refuses(cuda, point);
    reason = reason ? reason : grouped_refuses(point);
    if (!reason && moecal_point_is_collective(point))
        reason = moecal_exchange_refuses(&point->first, point->dtype, ranks);
    if (!reason && moecal_point_is_collective(point) && ranks > cuda->world.ranks)
        reason = "more ranks than there are devices";
    if (!reason && point->kind == MOECAL_SHARING)
        reason = moecal_exchange_refuses(&point->second, point->dtype, ranks);
    return reason;
}

/* How many of our devices take part: the first ranks of the world; of computations the first device alone. */
static int active_devices(const moecal_cuda *cuda, const moecal_point *point)
{
    int active = 0, ranks = moecal_point_is_collective(point) ? moecal_ranks_of(cuda, point) : 1;
    while (active < cuda->device_count && cuda->device[active].rank < ranks)
        active++;
    return active;
}

static void backend_release(void *state, const moecal_point *point)
{
    moecal_cuda *cuda = state;
    (void)point;
    for (int i = 0; i < cuda->device_count; i++) {
        moecal_device *device = &cuda->device[i];
        cudaSetDevice(device->ordinal);
        cudaError_t status = cudaDeviceSynchronize();
        if (status != cudaSuccess)
            moecal_cuda_die(cuda, cudaGetErrorString(status));
        moecal_give_back(device, 0);
        moecal_plans_free(device);
        memset(device->operand, 0, sizeof device->operand);
    }
    if (cuda->operation->release)
        cuda->operation->release(cuda);
    moecal_lanes_release(cuda);
    cuda->error[0] = '\0';
}

static int backend_prepare(void *state, const moecal_point *point, char *error, size_t error_size)
{
    moecal_cuda *cuda = state;
    cuda->operation = operations[point->kind];
    cuda->active = active_devices(cuda, point);
    cuda->lanes = 1;
    cuda->launches = 1;
    cuda->points++;
    cuda->repetitions = 0;
    cuda->worst = (moecal_conditions){.temperature_c = NAN};
    cuda->sampled_s = 0;
    if (!moecal_cuda_agree(cuda, cuda->operation->prepare(cuda, point)))
        return 0;
    snprintf(error, error_size, "%s", cuda->error);
    if (cuda->world.rank != 0)
        complain(cuda);
    backend_release(cuda, point);
    return 1;
}

/* Repetition 0, its result looked at, and as if it had not been. */
static int run_and_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    double lane_s[MOECAL_LANES];
    cuda->repetitions = 0;
    MOECAL_DO(repeat_once(cuda, point, 0, lane_s));
    return cuda->active > 0 ? cuda->operation->check(cuda, point, check) : 0;
}

static moecal_check backend_check(void *state, const moecal_point *point)
{
    moecal_cuda *cuda = state;
    moecal_check check = {0};
    int failed = run_and_check(cuda, point, &check);
    if (failed)
        complain(cuda);
    double worst[2] = {failed ? INFINITY : check.error, check.limit};
    moecal_cuda_max(cuda, worst, 2);
    return (moecal_check){worst[0], worst[1]};
}

/* times[i] from the lanes' seconds. */
static moecal_time time_of(const moecal_cuda *cuda, int alone, const double *lane_s)
{
    double total_s = fmax(lane_s[0], lane_s[1]);
    if (cuda->lanes == 1 || alone)
        return (moecal_time){.total_s = total_s};
    return (moecal_time){total_s, lane_s[0], lane_s[1]};
}

static void backend_run(void *state, const moecal_point *point, int alone, int count,
                        moecal_time *times)
{
    moecal_cuda *cuda = state;
    int failed = cuda->error[0] != '\0', had_failed = failed;
    double *values = calloc(3 * (size_t)count + 1, sizeof *values);
    if (!values)
        abort();
    for (int i = 0; i < count && !failed; i++) {
        double lane_s[MOECAL_LANES];
        failed = repeat_once(cuda, point, alone, lane_s);
        moecal_time taken = time_of(cuda, alone, lane_s);
        memcpy(values + 3 * (size_t)i, (double[]){taken.total_s, taken.first_s, taken.second_s},
               3 * sizeof *values);
    }
    if (failed && !had_failed)
        complain(cuda);
    values[3 * (size_t)count] = failed;
    moecal_cuda_max(cuda, values, 3 * count + 1);
    failed = values[3 * (size_t)count] != 0;
    if (failed && !cuda->error[0])
        snprintf(cuda->error, sizeof cuda->error, "another process failed");
    for (int i = 0; i < count; i++)
        times[i] = failed ? (moecal_time){NAN, NAN, NAN}
                          : (moecal_time){values[3 * i], values[3 * i + 1], values[3 * i + 2]};
    free(values);
}

/* The worst of all processes. */
static moecal_conditions backend_conditions(void *state)
{
    moecal_cuda *cuda = state;
    moecal_conditions *seen = &cuda->worst;
    cuda->sampled_s = seen->clock_hz > 0 ? cuda->sampled_s : 0;
    look_at_conditions(cuda);
    double values[4] = {seen->clock_hz > 0 ? -seen->clock_hz : -INFINITY, seen->power_w,
                        isnan(seen->temperature_c) ? -INFINITY : seen->temperature_c,
                        seen->throttled};
    moecal_cuda_max(cuda, values, 4);
    return (moecal_conditions){isfinite(values[0]) ? -values[0] : 0, values[1],
                               isfinite(values[2]) ? values[2] : NAN, values[3] != 0};
}

static void backend_share(void *state, double *values, int count)
{
    moecal_cuda *cuda = state;
    if (cuda->peers && moecal_rendezvous_share(cuda->peers, values, (size_t)count * sizeof *values))
        moecal_cuda_die(cuda, moecal_rendezvous_error(cuda->peers));
}

static void backend_close(void *state)
{
    moecal_cuda_close(state);
}

const moecal_backend moecal_backend_chosen = {
    .name = "cuda",
    .open = backend_open,
    .world = backend_world,
    .describe = backend_describe,
    .refuses = backend_refuses,
    .prepare = backend_prepare,
    .check = backend_check,
    .run = backend_run,
    .conditions = backend_conditions,
    .release = backend_release,
    .share = backend_share,
    .close = backend_close,
};
