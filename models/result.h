/* The result of simulating one policy over a run of steps, and its JSON form.
 *
 * Gathered step by step; workers' parts merge in order, so that a result does not depend on their number. */
#ifndef MOE_MODELS_RESULT_H
#define MOE_MODELS_RESULT_H

#include "models/program.h"
#include "models/step.h"

/* What one step contributes: plain data, so that a forked worker hands it back through shared memory. */
typedef struct moe_step_result {
    double step_s;
    double exposed_s[MOE_PARTS];  /* mean over devices; sums to step_s */
    double critical_s[MOE_PARTS]; /* along the critical path; sums to step_s */
    double expert_imbalance; /* mean over dispatches of hottest expert / mean expert (assignments) */
    double device_imbalance; /* mean over dispatches of fullest device / mean device (rows computed) */
    double intra_host_bytes; /* every device's sends in the step, added up */
    double inter_host_bytes;
    double local_share;      /* assignments that did not leave their device */
    double crossing_assignments; /* between devices or, once per host, between hosts; tokens are sent once: */
    double crossing_tokens;      /* the tokens sent for them; both 0 where every assignment is sent */
    double materialized;     /* mean over layers and devices of copies beyond owned experts */
    double moved_bytes;      /* re-sharding */
    double calibrations;     /* layers in which a calibration was accepted */
    double tokens;           /* of the whole step */
    double bound_s;          /* training: what no policy can beat (policies/bound.h); else 0 */
    double hardware_wait_s;  /* of exposed_s[MOE_WAIT], what stragglers add; the rest is due to routing */
    int stragglers;          /* 1: the scenario has some */
    moe_memory memory;       /* of the fullest device */
    int memory_device;
    int valid;               /* 1 when filled */
} moe_step_result;

typedef struct moe_result {
    const char *name;
    int64_t steps;
    const moe_step_result *series; /* [steps], borrowed */
    const char *memory_advice;     /* what would have to change when it does not fit; or NULL */
} moe_result;

typedef struct moe_summary {
    double mean, p50, p95, max;
} moe_summary;

/* Quantiles by linear interpolation of the sorted values (GSL's gsl_stats_quantile_from_sorted_data). */
moe_summary moe_result_step_time(const moe_result *result);
double moe_result_tokens_per_s(const moe_result *result);
/* Assignments that cross for each token sent; 1 where every assignment is sent, or nothing crosses. */
double moe_result_saved_factor(const moe_result *result);
bool moe_result_fits(const moe_result *result);
/* The step whose fullest device is fullest of all. */
int64_t moe_result_peak_step(const moe_result *result);
/* Means over steps; parts[MOE_PARTS]. */
void moe_result_exposed(const moe_result *result, double parts[static MOE_PARTS]);
void moe_result_critical(const moe_result *result, double parts[static MOE_PARTS]);
double moe_result_mean(const moe_result *result, size_t member_offset); /* of a double member of moe_step_result */

/* One element of "policies": name, step_time_s, speedup (over `first`), tokens_per_s, breakdown_s,
 * critical_path_s, imbalance, memory_bytes (of the step and device in memory_peak_at), fits, bytes_moved
 * (mean per step), placement {local_share, materialized_mean, ...}; wait_s {routing, hardware} where there are
 * stragglers, bound_s in training. New reference. */
json_t *moe_result_json(const moe_result *result, const moe_result *first);

#endif
