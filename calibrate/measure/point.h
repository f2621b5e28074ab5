/* One point to measure, and its JSON (calibrate/SAMPLES.md says what the keys mean).
 *
 * Everything a backend needs to run a point is here; a point owns its arrays. Files are hostile:
 * sizes are checked before memory is taken (at most MOECAL_MAX_EXPERTS experts, MOECAL_MAX_RANKS
 * ranks, buffers of at most 2^40 bytes). */
#ifndef MOE_CALIBRATE_MEASURE_POINT_H
#define MOE_CALIBRATE_MEASURE_POINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOECAL_MAX_EXPERTS = 65536, MOECAL_MAX_RANKS = 1024, MOECAL_MAX_CHUNKS = 65536 };

typedef enum moecal_kind {
    MOECAL_GEMM,
    MOECAL_EXPERTS,
    MOECAL_PERMUTE,
    MOECAL_GATE,
    MOECAL_ATTENTION,
    MOECAL_NORM,
    MOECAL_ADAM,
    MOECAL_HEAD,
    MOECAL_COLLECTIVE,
    MOECAL_INTERFERENCE,
    MOECAL_SHARING,
    MOECAL_LAUNCH,
    MOECAL_COPY,
    MOECAL_KINDS
} moecal_kind;
extern const char *const moecal_kind_names[]; /* "gemm", ...; NULL-terminated */

typedef enum moecal_dtype {
    MOECAL_FP32,
    MOECAL_BF16,
    MOECAL_FP16,
    MOECAL_FP8,
    MOECAL_DTYPES
} moecal_dtype;
extern const char *const moecal_dtype_names[];
double moecal_dtype_bytes(moecal_dtype dtype);

typedef enum moecal_phase {
    MOECAL_FORWARD,
    MOECAL_INPUT_GRADIENT,
    MOECAL_WEIGHT_GRADIENT,
    MOECAL_BACKWARD
} moecal_phase;
extern const char
    *const moecal_phase_names[]; /* "forward", "input_gradient", "weight_gradient", "backward" */

typedef enum moecal_collective {
    MOECAL_ALL_TO_ALL,
    MOECAL_ALL_GATHER,
    MOECAL_REDUCE_SCATTER,
    MOECAL_ALL_REDUCE,
    MOECAL_BROADCAST,
    MOECAL_REDUCE,
    MOECAL_SEND_RECV,
    MOECAL_COLLECTIVES
} moecal_collective;
extern const char *const moecal_collective_names[];
extern const char *const moecal_mode_names[];      /* LAUNCH: "stream", "graph", "sync" */
extern const char *const moecal_direction_names[]; /* COPY: "host_to_device", ... */

typedef struct moecal_gemm {
    int64_t m, n, k;
} moecal_gemm;

typedef struct moecal_chunk {
    int owner;
    int want_count;
    int *want;
} moecal_chunk;

typedef struct moecal_exchange {
    moecal_collective collective;
    int64_t bytes;   /* per rank, as nccl-tests counts */
    int64_t *matrix; /* [ranks][ranks] bytes, or NULL: uniform */
    int matrix_ranks;
    moecal_chunk *chunks; /* broadcast, reduce; or NULL: one chunk of `bytes` from rank 0 to all */
    int chunk_count;
    int64_t chunk_bytes;
} moecal_exchange;

typedef struct moecal_point {
    moecal_kind kind;
    moecal_dtype dtype;
    int ranks; /* 0: all (collectives), 1 (everything else) */
    char id[160];
    moecal_gemm gemm;   /* GEMM; INTERFERENCE's computation */
    moecal_phase phase; /* EXPERTS, ATTENTION */
    int64_t hidden, ffn;
    bool gated, grouped;
    int64_t *rows;            /* [experts] EXPERTS */
    int experts;              /* EXPERTS, GATE */
    const char *distribution; /* static text */
    int64_t tokens, top_k, vocabulary, parameters;
    int64_t sequences, sequence, heads, kv_heads, head_dim;
    bool causal;
    moecal_exchange first;  /* COLLECTIVE, INTERFERENCE, SHARING */
    moecal_exchange second; /* SHARING */
    double sm_share;        /* INTERFERENCE; 0: not limited */
    int mode;               /* LAUNCH: 0 stream, 1 graph, 2 sync */
    int64_t kernels;
    int direction; /* COPY: 0 host_to_device, 1 device_to_host, 2 storage_read, 3 storage_write */
    bool pinned;
    int64_t bytes; /* COPY */
} moecal_point;

/* NULL, and a message of one line in `error`, where the object is no sound point. */
moecal_point *moecal_point_parse(const json_t *object, char *error, size_t error_size);
/* Its keys, `id` and `kind` among them. New reference. */
json_t *moecal_point_json(const moecal_point *point);
void moecal_point_free(moecal_point *point);
/* Recomputes `id` from the parameters: equal ones give equal ids; lists (rows, matrices, chunks) are in it as
 * a digest of 64 bits. */
void moecal_point_name(moecal_point *point);
/* COLLECTIVE, INTERFERENCE and SHARING: several ranks take part. */
bool moecal_point_is_collective(const moecal_point *point);
/* How many ranks it needs. */
int moecal_point_least_ranks(const moecal_point *point);
/* Largest row and column sum of a matrix over the mean of all. */
void moecal_exchange_hottest(const moecal_exchange *exchange, double *sender, double *receiver);

/* Work of one repetition: what an estimate of its time, and of the buffers it needs, starts from. */
double moecal_point_flop(const moecal_point *point);
double moecal_point_bytes(const moecal_point *point);

#endif
