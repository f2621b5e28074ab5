/* The run: every policy of a scenario over every iteration of its trace window.
 *
 *   per iteration   policy -> placement and moves; per dispatch: counts -> (calibration) ->
 * dispatch -> routed layer; routed layers -> step program -> engine -> timeline -> step result
 *
 * Work is cut into chunks of 64 iterations, whatever the number of workers, each in a child process
 * of its own from clock 0 (SimGrid takes one engine a process); the child replays the policy's
 * decisions from the start of the run to its chunk. So results depend on neither -j nor on the
 * machine (law 10). */
#ifndef MOE_SIM_RUN_H
#define MOE_SIM_RUN_H

#include "models/result.h"
#include "sim/scenario.h"

enum { MOE_CHUNK_ITERATIONS = 64 };

typedef struct moe_run_options {
    int jobs;        /* worker processes; 0: one per processor */
    int64_t first; /* iterations [first, last) of the run; those before are replayed, not simulated */
    int64_t last;  /* 0: to the end */
    bool check_laws; /* conservation, overlap, ports, placements after every step: MOE_INTERNAL if
                        broken */
    void (*progress)(void *context, int64_t done, int64_t total); /* may be NULL; in steps */
    void *progress_context;
    /* In the process that simulates, after every step; both are valid during the call only. May be
     * NULL. */
    void (*observe)(void *context, int policy, int64_t iteration, const moe_program *program,
                    const moe_timeline *timeline);
    void *observe_context;
} moe_run_options;

/* What a run brings back for one policy. */
typedef struct moe_run_policy {
    moe_result result;
    moe_curve_usage usage;
    const char *description; /* what the policy computed for itself; or NULL */
} moe_run_policy;

typedef struct moe_run {
    int policy_count;
    moe_run_policy *policies;
    int64_t iterations;
    const struct moe_sensitivity *sensitivity; /* sim/sensitivity.h, by whoever measured it; or NULL */
} moe_run;

/* Runs the policies at indices chosen[count] of the scenario. Owned by `owner`; NULL after a
 * printed error with *status set. */
moe_run *moe_run_scenario(void *owner, const moe_binding *binding, const int *chosen, int count,
                          const moe_run_options *options, moe_status *status, moe_diag *diag);

/* The placement that a policy decides on for `iteration` of the run, having seen those before it. Owned by
 * `owner`; NULL after a printed error. */
moe_placement *moe_run_decide(void *owner, const moe_binding *binding, int policy, int64_t iteration,
                              moe_diag *diag);

/* One policy over iterations [first, last) in this process: what a worker does, and what tests
 * call. results[last - first]. */
moe_status moe_run_chunk(const moe_binding *binding, int policy, int64_t first, int64_t last,
                         const moe_run_options *options, moe_step_result *results,
                         moe_curve_usage *usage, moe_diag *diag);

/* The same for single iterations, in ascending order, with another sharing of ports. */
moe_status moe_run_sample(const moe_binding *binding, int policy, const int64_t *iterations,
                          int count, const moe_sharing *sharing, const moe_run_options *options,
                          moe_step_result *results, moe_diag *diag);

#endif
