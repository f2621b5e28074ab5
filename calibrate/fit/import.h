/* Published measurements as samples: one file an importer, one const struct each, one table.
 *
 *   nccl-tests          text output of all_reduce_perf and the others; size in bytes, out-of-place us
 *   aiconfigurator      CSV tables of ai-dynamo/aiconfigurator: nccl (message_size in ELEMENTS, latency
 *                       in ms), gemm (latency_us, or latency in ms), moe (likewise: a fused layer,
 *                       permutation and activation included, so phase serving; its counts are known for
 *                       `balanced` alone)
 *   deepep              DeepEP low latency and normal (us), CSV: combine, in bf16
 *
 * Recognised by content. Rows of other devices, dtypes, versions and kernels than the ones that are asked
 * for, and impossible ones (time 0, faster than the peak), are left out and counted.
 *
 * Rows per expert of `balanced`: token t of N, slot i of k goes to expert floor(t s) + i * stride mod E,
 * stride = ceil(E / k), s = 1, with fewer tokens than `stride` stride / N (the collector's rule). Under
 * expert parallelism it is not published which tokens a device computes, and times say that it is not 1 / ep of
 * them (A100, SGLang: DeepSeek-V3's layer takes 150 ms with ep = 2, 4 and 8 alike): left out.
 *
 * Bytes per rank of DeepEP, so that a uniform all-to-all of them moves what DeepEP does:
 *   low latency   tokens * top_k * hidden * 2: a copy of the token for every expert
 *   normal        tokens * hidden * 2 * P * G: a token crosses once to each of G hosts (one host: ranks)
 *                 that it visits; P = 1 - C(E - E/G, k) / C(E, k), k experts drawn alike */
#ifndef MOE_CALIBRATE_FIT_IMPORT_H
#define MOE_CALIBRATE_FIT_IMPORT_H

#include "calibrate/fit/samples.h"
#include <stdio.h>

typedef struct moe_import_options {
    const char *device;  /* as the table names it ("h100_sxm"); NULL: the only one there is */
    const char *dtype;   /* NULL: half, bf16 or fp16 */
    const char *version; /* of the library that was measured; NULL, or in no row: the newest of each
                          * number of ranks or hosts */
} moe_import_options;

/* What was left out, by reason, in order of appearance. Texts and list are owned by it (talloc). */
typedef struct moe_import_reason {
    const char *text;
    size_t count;
} moe_import_reason;

typedef struct moe_import_tally {
    moe_import_reason *reasons;
    size_t count;
    char *versions; /* that were taken, by name, separated by ", "; NULL: none is named */
} moe_import_tally;

moe_import_tally *moe_import_tally_create(void *owner);
__attribute__((format(printf, 3, 4))) void
moe_import_left_out(moe_import_tally *tally, size_t count, const char *format, ...);

typedef struct moe_sample_importer {
    const char *name;
    const char *sentence;
    const char *source; /* who publishes it, and its licence; NULL: the user's own */
    /* Whether the first bytes of a file are of this kind. */
    bool (*recognises)(const char *text, size_t length);
    /* Adds to `samples`; errors with line and column. */
    moe_status (*read)(moe_samples *samples, const moe_source *source,
                       const moe_import_options *options, moe_import_tally *tally, moe_diag *diag);
} moe_sample_importer;

extern const moe_sample_importer moe_nccl_tests_importer;
extern const moe_sample_importer moe_aiconfigurator_importer;
extern const moe_sample_importer moe_deepep_importer;
extern const moe_sample_importer *const moe_sample_importers[]; /* NULL-terminated */

/* Reads a file with the importer that recognises it; that importer, or NULL after printed errors. */
const moe_sample_importer *moe_import_file(moe_samples *samples, const char *path,
                                           const moe_import_options *options,
                                           moe_import_tally *tally, moe_diag *diag);

/* The same of a text in memory; `name` stands in messages. */
const moe_sample_importer *moe_import_text(moe_samples *samples, const char *name, const char *text,
                                           size_t length, const moe_import_options *options,
                                           moe_import_tally *tally, moe_diag *diag);

/* The machine of imported samples: one host of the cluster, its data sheet. */
void moe_import_machine(moe_samples *samples, const moe_cluster_spec *cluster,
                        const char *description);

/* What no device of this cluster can have done: a GEMM above 1.1 * peak (2-byte types) is left out; so are
 * the collectives of a host whose largest all-reduce reaches less than a tenth of the port (it fell back
 * to a path that is not this fabric). A warning where a collective runs at 1.5 times the port's rate or
 * more, or where the smallest takes over 2 ms: bytes and elements, or ms and us, are mixed up. */
moe_samples *moe_import_plausible(void *owner, const moe_samples *samples,
                                  const moe_cluster_spec *cluster, moe_import_tally *tally,
                                  moe_diag *diag);

/* Large tables are divided: a profile is made from one part and tested on the other.
 *
 *   GEMM      up to 5,000 points: all are kept. Else those on a grid: m powers of two, three quarters
 *             of those from 256 on, and the row after each from 16 on (the first of the next tile); n and k powers
 *             of two and the two largest; of these, values that leave holes in the grid are dropped
 *   EXPERTS   the shapes at even places of their order by (hidden, ffn, experts): whole shapes are kept back, and
 *             of the others all that were cut by tensor or expert parallelism
 *   others    all are kept */
typedef struct moe_import_parts {
    moe_samples *kept;
    moe_samples *held_out;
} moe_import_parts;
moe_import_parts moe_import_divide(void *owner, const moe_samples *samples);

/* Seconds by a profile: GEMM, EXPERTS, and COLLECTIVE within one host; -1 for other kinds. */
double moe_import_predict_s(const moe_costs *costs, const moe_sample *sample);

/* --- the whole way ------------------------------------------------------------------------------------ */

typedef struct moe_import_job {
    const char *const *paths;
    size_t path_count;
    moe_import_options options;
    const moe_cluster *cluster;
    const moe_profile *fill; /* as moe_fit_options; may be NULL */
    const char *name;        /* of the profile */
} moe_import_job;

typedef struct moe_imported {
    moe_import_parts parts;
    moe_import_tally *tally;
    moe_profile *
        profile; /* of parts.kept; experts and gradients of training are derived: sums of its GEMMs */
    const char *comment; /* for the profile's file */
} moe_imported;

/* Reads, divides and fits; all owned by `owner`. NULL after printed errors. */
moe_imported *moe_import_run(void *owner, const moe_import_job *job, moe_diag *diag);

/* Samples as calibrate/SAMPLES.md has them; numbers in full, so that a fit to the file is the fit to them. */
void moe_samples_write(const moe_samples *samples, FILE *stream);

#endif
