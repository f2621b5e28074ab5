/* What the files of the CUDA backend share; included by nobody else.
 *
 * One process drives `device_count` devices from one thread: all devices of its host when it runs
 * there alone, else one. World ranks count devices host by host. A point is an `operation`: it says
 * which buffers it needs (operands, rotated over `slots` copies so that together they exceed the L2
 * cache twice), enqueues one repetition on a stream, and compares one with double precision.
 *
 * Functions return 0, or 1 after the first cause is in `cuda->error`. */
#ifndef MOE_CALIBRATE_MEASURE_CUDA_INTERNAL_H
#define MOE_CALIBRATE_MEASURE_CUDA_INTERNAL_H

#include "calibrate/measure/backend.h"
#include "calibrate/measure/cuda_kernels.h"
#include "calibrate/measure/cuda_nvml.h"
#include "calibrate/measure/rendezvous.h"

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

enum {
    MOECAL_OPERANDS = 12,
    MOECAL_TAKEN = 96,
    MOECAL_LANES = 2, /* what runs at once: INTERFERENCE and SHARING have two */
    MOECAL_GATE_STREAM = 2,
    MOECAL_STREAMS = 3
};

/* One buffer of a point, in `slots` copies. */
typedef struct moecal_operand {
    int element;   /* MOECAL_ELEMENT_... */
    int64_t count; /* elements of one copy; 0: unused */
    float
        scale; /* filled with about normal values of this deviation (< 0: absolute ones); 0: not filled */
    char *base;
    size_t stride; /* bytes from copy to copy */
} moecal_operand;

/* An fp8 GEMM of cublasLt: descriptors and the algorithm its heuristic chose. */
typedef struct moecal_plan {
    int64_t m, n, k;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
    struct moecal_plan *next;
} moecal_plan;

typedef struct moecal_device {
    int ordinal, rank;   /* of this process, of the world */
    int sms, capability; /* 10 * major + minor */
    size_t l2_bytes, memory_bytes;
    cudaStream_t stream[MOECAL_STREAMS];
    cudaEvent_t start, stop[MOECAL_LANES];
    unsigned *gate; /* host memory that the device sees */
    cublasHandle_t blas;
    cublasLtHandle_t lt;
    void *workspace;
    unsigned long long *wrong; /* counter of the comparing kernels */
    /* of the point under way */
    moecal_operand operand[MOECAL_OPERANDS];
    int64_t slots;
    void *taken[MOECAL_TAKEN];
    int taken_count;
    moecal_plan *plans;
} moecal_device;

/* NCCL's communicators of the local devices for one set of ranks; NULL where a device is not in it. Kept until
 * the end: making one takes up to a second. */
typedef struct moecal_communicator {
    int *members; /* world ranks, ascending */
    int member_count;
    int most_ctas; /* 0: NCCL's choice */
    int instance;  /* two of the same ranks, for SHARING */
    ncclComm_t *comm;
    struct moecal_communicator *next;
} moecal_communicator;

/* A collective of the point under way. */
typedef struct moecal_lane {
    const moecal_exchange *exchange; /* NULL: none */
    moecal_communicator *all;
    moecal_communicator **of_chunk; /* [chunk_count]; NULL where nobody but the owner wants it */
    int element, in, out;           /* element type of reductions; operands */
} moecal_lane;

typedef struct moecal_cuda moecal_cuda;

typedef struct moecal_operation {
    int (*prepare)(moecal_cuda *cuda, const moecal_point *point);
    /* Enqueues one repetition of a lane on stream[lane] of the active devices. */
    int (*issue)(moecal_cuda *cuda, const moecal_point *point, int lane, int64_t repetition);
    /* After repetition 0 has run: largest relative error of the active devices, and its limit. */
    int (*check)(moecal_cuda *cuda, const moecal_point *point, moecal_check *check);
    /* NULL: timed by events. Else seconds of one repetition, by the clock of the host. */
    int (*time)(moecal_cuda *cuda, const moecal_point *point, double *seconds);
    void (*release)(moecal_cuda *cuda); /* or NULL */
} moecal_operation;

extern const moecal_operation moecal_operation_gemm, moecal_operation_experts,
    moecal_operation_permute, moecal_operation_gate, moecal_operation_attention,
    moecal_operation_norm, moecal_operation_adam, moecal_operation_head,
    moecal_operation_collective, moecal_operation_interference, moecal_operation_sharing,
    moecal_operation_launch, moecal_operation_copy;

struct moecal_cuda {
    moecal_rendezvous *peers; /* NULL: one process */
    moecal_world world;
    char (*host_names)[64]; /* [world.hosts] */
    moecal_device *device;
    int device_count;
    ncclComm_t *comm; /* of the whole world, [device_count] */
    moecal_communicator *communicators;
    moecal_nvml *nvml; /* NULL: not to be had */
    char error[512];
    /* of the point under way */
    const moecal_operation *operation;
    int active;   /* the first so many local devices take part */
    int launches; /* kernels of a repetition, about */
    int64_t points, repetitions;
    unsigned ticket;
    moecal_lane lane[MOECAL_LANES];
    int lanes;
    void *work; /* of the operation */
    moecal_conditions worst;
    double sampled_s; /* when the conditions were last looked at */
};

/* --- errors: the macros leave the function with 1; a variable `cuda` is in scope ------------------ */

int moecal_cuda_say(moecal_cuda *cuda, const char *file, int line, const char *call,
                    const char *text);
#define MOECAL_CUDA(call)                                                                          \
    do {                                                                                           \
        cudaError_t status_ = (call);                                                              \
        if (status_ != cudaSuccess)                                                                \
            return moecal_cuda_say(cuda, __FILE__, __LINE__, #call, cudaGetErrorString(status_));  \
    } while (0)
#define MOECAL_BLAS(call)                                                                          \
    do {                                                                                           \
        cublasStatus_t status_ = (call);                                                           \
        if (status_ != CUBLAS_STATUS_SUCCESS)                                                      \
            return moecal_cuda_say(cuda, __FILE__, __LINE__, #call,                                \
                                   cublasGetStatusString(status_));                                \
    } while (0)
#define MOECAL_NCCL(call)                                                                          \
    do {                                                                                           \
        ncclResult_t status_ = (call);                                                             \
        if (status_ != ncclSuccess)                                                                \
            return moecal_cuda_say(cuda, __FILE__, __LINE__, #call, moecal_nccl_text(status_));    \
    } while (0)
#define MOECAL_DO(call)                                                                            \
    do {                                                                                           \
        if (call)                                                                                  \
            return 1;                                                                              \
    } while (0)
const char *moecal_nccl_text(ncclResult_t status);
/* The run cannot go on (a device is lost, a peer is gone): says why and ends the process. */
_Noreturn void moecal_cuda_die(const moecal_cuda *cuda, const char *what);
double moecal_now_s(void);

/* --- the world (cuda_world.c) ------------------------------------------------------------------- */

moecal_cuda *moecal_cuda_open(char *error, size_t error_size);
void moecal_cuda_close(moecal_cuda *cuda);
/* Non-zero everywhere where it is non-zero anywhere. */
int moecal_cuda_agree(moecal_cuda *cuda, int failed);
/* Largest of all processes, element by element. */
void moecal_cuda_max(moecal_cuda *cuda, double *values, int count);
/* Called by all processes in the same order; NULL after an error. */
moecal_communicator *moecal_communicator_get(moecal_cuda *cuda, const int *members, int count,
                                             int most_ctas, int instance);

/* --- memory (cuda_memory.c) --------------------------------------------------------------------- */

size_t moecal_element_bytes(int element);
/* Device memory until moecal_give_back. NULL after an error. */
void *moecal_take(moecal_cuda *cuda, moecal_device *device, size_t bytes);
void moecal_give_back(moecal_device *device, int down_to);
void moecal_operand_set(moecal_device *device, int index, int element, int64_t count, float scale);
/* Allocates and fills the operands of a device, at most so many slots. */
int moecal_operands_make(moecal_cuda *cuda, moecal_device *device, int64_t most_slots);
void *moecal_operand_at(const moecal_device *device, int index, int64_t repetition);
/* As doubles on the host; waits for stream 0. */
int moecal_download(moecal_cuda *cuda, moecal_device *device, int element, const void *data,
                    int64_t count, double *host);
moecal_view moecal_rows_of(const void *data, int element, int64_t columns); /* row-major */
moecal_view moecal_transposed(moecal_view view);
moecal_view moecal_from(moecal_view view, int64_t row, int64_t column); /* starting there */
/* Raises *error to the largest |got - want| over the largest |want|; NaN counts as infinite. `got`: device
 * values of `element`, `want`: device doubles. */
int moecal_compare(moecal_cuda *cuda, moecal_device *device, int element, const void *got,
                   const double *want, int64_t count, double *error);

/* --- GEMM (cuda_gemm.c) --------------------------------------------------------------------------- */

/* Row-major c[m][n] = alpha op(a)[m][k] op(b)[k][n] + beta c, no padding; transposed ones are stored [k][m] and
 * [n][k]. fp8 knows only a as it is and b transposed. `batch` > 1: matrices `stride_...` elements apart. */
typedef struct moecal_matmul {
    int element, out_element;
    bool transposed_a, transposed_b;
    int64_t m, n, k, batch, stride_a, stride_b, stride_c;
    float alpha, beta;
} moecal_matmul;

int moecal_matmul_issue(moecal_cuda *cuda, moecal_device *device, const moecal_matmul *matmul,
                        const void *a, const void *b, void *c);
void moecal_plans_free(moecal_device *device);
/* Compares two corners of c with double precision. */
int moecal_matmul_compare(moecal_cuda *cuda, moecal_device *device, const moecal_matmul *matmul,
                          const void *a, const void *b, const void *c, double *error);
/* Of a result that was rounded to the type once. */
double moecal_rounding_limit(int element);
void moecal_gemm_operands(moecal_device *device, const moecal_point *point);
int moecal_gemm_issue(moecal_cuda *cuda, const moecal_point *point, int64_t repetition);
int moecal_gemm_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check);

/* --- collectives (cuda_exchange.c) ----------------------------------------------------------------- */

int moecal_ranks_of(const moecal_cuda *cuda, const moecal_point *point);
/* NULL, or why a collective cannot be run on so many ranks. */
const char *moecal_exchange_refuses(const moecal_exchange *exchange, moecal_dtype dtype, int ranks);
/* Chooses communicators and sets the operands in and out of all active devices. */
int moecal_lane_prepare(moecal_cuda *cuda, const moecal_point *point, int lane,
                        const moecal_exchange *exchange, int most_ctas);
int moecal_lane_fill(moecal_cuda *cuda, int lane);
int moecal_lane_issue(moecal_cuda *cuda, int lane, int64_t repetition);
int moecal_lane_check(moecal_cuda *cuda, int lane, moecal_check *check);
/* Ranks go on together: an all-reduce of 4 B on the given stream. */
int moecal_lane_align(moecal_cuda *cuda, int lane, int stream);
void moecal_lanes_release(moecal_cuda *cuda);

/* --- the machine (cuda_describe.c) ------------------------------------------------------------------ */

json_t *moecal_cuda_describe(moecal_cuda *cuda);

#endif
