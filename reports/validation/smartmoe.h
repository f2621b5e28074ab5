/* Private to smartmoe*.c: one layer of SmartMoE's artifact (Zhai et al., USENIX ATC 2023), replayed.
 *
 * What was measured: one FMoE layer of FastMoE, forward and backward, fp16, experts of two matrices and twice the
 * hidden width, top-2 of 32 experts, 8 x 1,024 tokens a rank; the routing is micro-batch 0 of the public trace,
 * scaled from 2,048 to 8,192 tokens; the value is what rank 0 saw, the least of four rounds, in whole ms.
 *
 * How it is predicted: the project's own step program of one layer (moe_step_options.experts_alone), run by the
 * analytic engine, with what FastMoE does in its own way: experts one after another (expert_by_expert), dispatch
 * and combine one group of sends and receives per place of an expert on its device (slot_pairs), and a host loop
 * over every assignment before the dispatch. */
#ifndef MOE_REPORTS_VALIDATION_SMARTMOE_H
#define MOE_REPORTS_VALIDATION_SMARTMOE_H

#include "configs/base/arena.h"
#include "models/step.h"
#include "models/timeline.h"
#include "reports/validation/suite.h"
#include "traces/npz.h"

enum {
    SMARTMOE_ITERATIONS = 501, /* recorded: 1, 11, ..., 5001 */
    SMARTMOE_LAYERS = 24,
    SMARTMOE_MICRO_BATCHES = 4,
    SMARTMOE_RANKS = 16,
    SMARTMOE_EXPERTS = 32,
    SMARTMOE_SCALE = 4, /* 8,192 tokens a rank were measured, 2,048 recorded */
    SMARTMOE_TOKENS = 8192,
};

/* A number of iteration i of the recording. */
static inline int smartmoe_iteration(int i)
{
    return 1 + 10 * i;
}

/* --- smartmoe_data.c: what was published -------------------------------------------------------------- */

typedef struct smartmoe_series {
    const double *values;
    int count;
} smartmoe_series;

/* The recording; NULL after a printed error. */
const moe_npy *smartmoe_read_trace(void *owner, const char *path, moe_diag *diag);
/* counts[ranks][SMARTMOE_EXPERTS] of micro-batch 0, as recorded. */
void smartmoe_counts(const moe_npy *trace, int iteration, int layer, int ranks, double *counts);
/* A list of a JSON object in the last line of a log; count 0 after a printed error. */
smartmoe_series smartmoe_read_series(void *owner, const char *path, const char *key,
                                     moe_diag *diag);
/* One number a line. */
smartmoe_series smartmoe_read_column(void *owner, const char *path, moe_diag *diag);

/* --- smartmoe_model.c: the prediction ------------------------------------------------------------------ */

/* What may have run the benchmark. */
typedef struct smartmoe_machine {
    const char *name;
    const char *profile; /* preset */
    moe_cluster_spec cluster;
    int64_t hidden;
    double
        intra_efficiency; /* of all-to-all within a host, instead of the profile's curve; 0: the curve */
} smartmoe_machine;

/* Where experts are: the device of each, and which of the device's it is. */
typedef struct smartmoe_mapping {
    int device[SMARTMOE_EXPERTS];
    int slot[SMARTMOE_EXPERTS];
} smartmoe_mapping;

/* Contiguous blocks. */
smartmoe_mapping smartmoe_start(int devices);

typedef struct smartmoe_model smartmoe_model;

/* NULL after a printed error. */
smartmoe_model *smartmoe_model_open(void *owner, const smartmoe_machine *machine, moe_diag *diag);
int smartmoe_model_devices(const smartmoe_model *model);

typedef struct smartmoe_seconds {
    double total;    /* until rank 0 is done */
    double experts;  /* of the critical path */
    double exchange; /* of the critical path: collectives */
} smartmoe_seconds;

/* counts[devices][SMARTMOE_EXPERTS] as recorded. */
moe_status smartmoe_predict(smartmoe_model *model, const double *counts,
                            const smartmoe_mapping *mapping, smartmoe_seconds *seconds,
                            moe_diag *diag);

/* --- smartmoe_fit.c: factors --------------------------------------------------------------------------- */

/* measured = experts * factor[0] + exchange * factor[1] + factor[2]; least squares of relative errors. */
typedef struct smartmoe_factors {
    double experts;
    double exchange;
    double constant_s;
} smartmoe_factors;

/* On those of `count` with used[i]; at least three. */
smartmoe_factors smartmoe_fit(const smartmoe_seconds *seconds, const double *measured_s,
                              const bool *used, int count);
double smartmoe_apply(const smartmoe_factors *factors, const smartmoe_seconds *seconds);

/* --- smartmoe_fig13.c, smartmoe_fig11.c ------------------------------------------------------------------ */

/* *constant_s: what is neither experts nor exchange, fitted on the static runs of the machine that the artifact's
 * script names. */
moe_status smartmoe_fig13(moe_validation_outcome *outcome, const moe_validation_options *options,
                          const moe_npy *trace, double *constant_s, moe_diag *diag);
/* `constant_s`: of Fig. 13. */
moe_status smartmoe_fig11(moe_validation_outcome *outcome, const moe_validation_options *options,
                          const moe_npy *trace, double constant_s, moe_diag *diag);

#endif
