/* One step of the LAER artifact's baseline through the step program and an engine.
 *
 * FSDP there is their own runtime with a placement that stands: rank r holds the experts of position r mod 4,
 * so every host has each expert twice, and an assignment goes to one of the two in its own host, half to each.
 * The all-to-all stays inside hosts. Taken from the artifact's scripts: 128 sequences of 8,192 tokens in two
 * micro-batches, so 16,384 tokens of a rank in each; bf16; everything recomputed; experts one after another,
 * each with dense GEMMs of its own (cuBLAS), which the profile's table of GEMMs prices:
 *
 *   forward(rows) = GEMM(rows, 2 f, d) + activation + GEMM(rows, d, f) + concatenation
 *
 * as the curve e(rows) = FLOP / (peak * seconds) of an expert; its gradients likewise.
 *
 * What a profiler there books, per rank:
 *   expert seconds      twice those of forward and recompute; backward is not measured but taken to be as much
 *   all-to-all seconds  from the rank's own arrival until it is done, waiting included, of every exchange of
 *                       tokens but the first layer's combines and the last layer's dispatches (they run under
 *                       another name) */
#ifndef MOE_REPORTS_VALIDATION_LAER_STEP_H
#define MOE_REPORTS_VALIDATION_LAER_STEP_H

#include "models/profile.h"
#include "reports/validation/laer_data.h"

/* How their 4 x 8 A100 are described. */
typedef enum moe_laer_network {
    MOE_LAER_DATA_SHEET, /* NVSwitch 300 GB/s and the profile's efficiencies, 800 Gb/s a host */
    MOE_LAER_MEASURED,   /* their own network_config.json: 216.269 and 88.9539 GB/s, efficiency 1 */
} moe_laer_network;

typedef struct moe_laer_machine {
    moe_cluster_spec spec;
    moe_profile profile;
} moe_laer_machine;

/* A machine with `profile` (of an A100-80), owned by `owner`. */
moe_laer_machine *moe_laer_machine_create(void *owner, const moe_profile *profile,
                                          moe_laer_network network);

typedef struct moe_laer_prediction {
    double all_to_all_s[MOE_LAER_RANKS]; /* as their profiler books it */
    double expert_s[MOE_LAER_RANKS];
    double transfer_s; /* of the all-to-all seconds, what remains with all ranks there at once */
    double step_s;
} moe_laer_prediction;

/* A step from the two entries that begin at `entry`. */
moe_status moe_laer_predict(const moe_laer_machine *machine, const moe_laer_model *model,
                            const moe_laer_case *of, int entry, moe_laer_prediction *prediction,
                            moe_diag *diag);

/* Expert seconds alone, as their profiler books them, with the profile's own law for experts where
 * `by_profile`. */
moe_status moe_laer_experts(const moe_laer_machine *machine, const moe_laer_model *model,
                            const moe_laer_case *of, int entry, bool by_profile,
                            double expert_s[MOE_LAER_RANKS], moe_diag *diag);

#endif
