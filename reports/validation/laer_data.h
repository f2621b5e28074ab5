/* The LAER artifact's measurements of Mixtral-8x7B on four hosts of eight A100-80 (PKU-DAIR/Hetu-Galvatron,
 * branch laer-moe, Apache-2.0): token counts, breakdown by profiler, seconds of whole steps.
 *
 *   token.csv      rank, method, model_name, layer, iter, token_num: rows that a rank computed
 *   breakdown.csv  rank, model_name, method, alltoall_time, expert_time, total_time: seconds of one step
 *   e2e_8x7b.csv   dataset, method, model_name, aux_loss, avg_time_ms: mean of 50 steps
 *
 * Two entries (`iter`) of token.csv are the two micro-batches of one step: under FSDP, whose placement stands,
 * neighbours (2 i, 2 i + 1) differ less than (2 i + 1, 2 i + 2), which an update lies between. */
#ifndef MOE_REPORTS_VALIDATION_LAER_DATA_H
#define MOE_REPORTS_VALIDATION_LAER_DATA_H

#include "configs/base/diag.h"
#include "configs/base/status.h"

#include <stdbool.h>

enum { MOE_LAER_RANKS = 32, MOE_LAER_MODELS = 2, MOE_LAER_METHODS = 3, MOE_LAER_MICRO_BATCHES = 2 };

typedef enum moe_laer_method { MOE_LAER_FSDP, MOE_LAER_FLEX, MOE_LAER_LAER } moe_laer_method;
extern const char *const moe_laer_method_names[]; /* "FSDP", ...; NULL-terminated */

/* What was run: the artifact's configuration files and scripts (scripts_ae/breakdown.sh, train.sh). */
typedef struct moe_laer_model {
    const char *name;
    int layers;
    int experts, top_k;
    int slots; /* experts that a rank holds */
    int ffn;
} moe_laer_model;
extern const moe_laer_model moe_laer_models[MOE_LAER_MODELS];

/* One method of one model. */
typedef struct moe_laer_case {
    int entries;  /* recorded dispatches of each layer */
    double *rows; /* [entries][layers][MOE_LAER_RANKS] */
    double all_to_all_s[MOE_LAER_RANKS];
    double expert_s[MOE_LAER_RANKS];
    double step_s[MOE_LAER_RANKS];
    double mean_step_s; /* of 50 steps without a profiler: wikitext, no auxiliary loss */
} moe_laer_case;

typedef struct moe_laer_data {
    moe_laer_case cases[MOE_LAER_MODELS][MOE_LAER_METHODS];
} moe_laer_data;

/* Reads the three files of `folder` and checks that every rank, layer and entry is there once. Owned by
 * `owner`; NULL after printed errors. */
moe_laer_data *moe_laer_read(void *owner, const char *folder, moe_diag *diag);

/* Whether the folder has them. */
bool moe_laer_exists(const char *folder);

static inline const double *moe_laer_rows(const moe_laer_case *of, const moe_laer_model *model,
                                          int entry, int layer)
{
    return of->rows + ((size_t)entry * (size_t)model->layers + (size_t)layer) * MOE_LAER_RANKS;
}

double moe_laer_mean(const double values[static MOE_LAER_RANKS]);

#endif
