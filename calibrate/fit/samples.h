/* Samples in memory: what `moecal` measured (calibrate/SAMPLES.md), or an importer read.
 *
 * Files are hostile: lines of at most 1 MiB, at most 4,000,000 samples, every number finite and in
 * range; all errors of a file are printed with line and column. A truncated last line (a killed run)
 * is a warning; anything else that is not sound refuses the file: samples of several machines, times
 * of zero or NaN, unknown kinds or records, missing keys. The same point twice is legal where the
 * medians differ by less than a factor of 2 (both are kept), else an error. A sample whose result
 * was wrong (`check.error` above its limit) is left out with a warning. */
#ifndef MOE_CALIBRATE_FIT_SAMPLES_H
#define MOE_CALIBRATE_FIT_SAMPLES_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include "models/collective.h"

typedef enum moe_sample_kind {
    MOE_SAMPLE_GEMM,
    MOE_SAMPLE_EXPERTS,
    MOE_SAMPLE_PERMUTE,
    MOE_SAMPLE_GATE,
    MOE_SAMPLE_ATTENTION,
    MOE_SAMPLE_NORM,
    MOE_SAMPLE_ADAM,
    MOE_SAMPLE_HEAD,
    MOE_SAMPLE_COLLECTIVE,
    MOE_SAMPLE_INTERFERENCE,
    MOE_SAMPLE_SHARING,
    MOE_SAMPLE_LAUNCH,
    MOE_SAMPLE_COPY,
    MOE_SAMPLE_KINDS
} moe_sample_kind;
extern const char *const moe_sample_kind_names[]; /* NULL-terminated */
extern const char
    *const moe_sample_dtype_names[]; /* "fp32", "bf16", "fp16", "fp8"; NULL-terminated */

typedef enum moe_launch_mode {
    MOE_LAUNCHED_STREAM,
    MOE_LAUNCHED_GRAPH,
    MOE_LAUNCHED_SYNC
} moe_launch_mode;

/* What one collective moves. */
typedef struct moe_sample_exchange {
    moe_collective_kind collective;
    double bytes;         /* per rank, as nccl-tests counts */
    const double *matrix; /* [ranks][ranks] bytes, row = sender; all-to-all-v, NULL: uniform */
    double
        most_bytes; /* largest row or column sum of `matrix`, its diagonal left out; 0: uniform */
    const moe_chunk
        *chunk_list;    /* [chunks] broadcast, reduce; NULL: one chunk from rank 0 to all */
    int chunks;         /* 0 is one */
    double chunk_bytes; /* of each chunk; `bytes` is that of all together */
} moe_sample_exchange;

typedef struct moe_sample {
    moe_sample_kind kind;
    int line;          /* in the file, for messages; 0: none */
    const char *dtype; /* "bf16", ...; static text */
    int ranks, hosts;
    double seconds; /* median of the repetitions */
    double spread;  /* (third - first quartile) / median; 0 with one repetition */
    int repetitions;
    bool throttled;
    double m, n, k;  /* GEMM; HEAD: tokens, vocabulary, hidden */
    moe_phase phase; /* EXPERTS; ATTENTION: FORWARD, or INPUT_GRADIENT for backward */
    double hidden, ffn;
    bool gated;
    const double *rows; /* [experts] EXPERTS */
    int experts;
    double flop;  /* ATTENTION: as models/network.h counts scores; backward twice that */
    double bytes; /* memory touched (PERMUTE, GATE, NORM, ADAM, ATTENTION); COPY: moved */
    moe_sample_exchange first;  /* COLLECTIVE, INTERFERENCE, SHARING */
    moe_sample_exchange second; /* SHARING */
    double first_alone_s,
        second_alone_s;       /* SHARING; INTERFERENCE: the collective, the computation */
    double first_s, second_s; /* medians, both under way */
    double sm_share;          /* INTERFERENCE: what the collective may take; 0: not limited */
    moe_launch_mode mode;
    double kernels;
    moe_copy_kind copy;
    bool pinned;
} moe_sample;

/* Nominal rates that efficiencies are fractions of. */
typedef struct moe_sample_machine {
    const char *digest;
    const char *description; /* one line: device, ranks, software, time */
    const char *device;
    int ranks, hosts, devices_per_host;
    double peak_flop_per_s, memory_bytes, memory_bytes_per_s;
    int sms;
    double link_bytes_per_s, link_latency_s; /* per device and direction, within a host */
    double nic_bytes_per_s, nic_latency_s;
    bool nic_per_device;
    bool nominal; /* data-sheet rates, not the best that was seen */
    int origin;   /* moe_origin of curves made from these samples */
} moe_sample_machine;

typedef struct moe_samples {
    moe_sample_machine machine;
    moe_sample *items; /* owned, as all they point to, by the samples (talloc) */
    size_t count;
    size_t warnings;
} moe_samples;

/* Owned by `owner`; NULL after printed errors. */
moe_samples *moe_samples_read(void *owner, const char *path, moe_diag *diag);
/* The same of a text in memory. */
moe_samples *moe_samples_parse(void *owner, const char *name, const char *text, size_t length,
                               moe_diag *diag);

/* The name as static text; NULL: none of moe_sample_dtype_names. */
const char *moe_sample_dtype(const char *text);
/* Bytes of a value; published tables name int8 too, and fp8 with block scales ("fp8_block"), which are not counted. */
double moe_sample_dtype_bytes(const char *dtype);

/* For importers: an empty set; an appended copy of `sample` (its rows, matrix and chunks are copied). */
moe_samples *moe_samples_create(void *owner);
void moe_samples_add(moe_samples *samples, const moe_sample *sample);

#endif
