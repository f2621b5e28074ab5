/* What `moeplan trace info` says of a trace.
 *
 *   imbalance         of a dispatch: hottest expert's assignments / mean over experts
 *   drift             total variation between the expert shares of iterations t and t + 1
 *   prediction error  total variation between the mean share of iterations t-5..t-1 and the share
 *                     of t; beside it the error of "the last value" and of "uniform"
 *   source spread     mean total variation between a source's shares and the global ones
 *
 * Total variation = half the sum of absolute differences, between 0 and 1. An iteration's shares
 * sum over its micro-batches and sources. The three prediction errors cover the same iterations,
 * from the sixth on. */
#ifndef MOE_TRACES_STATISTICS_H
#define MOE_TRACES_STATISTICS_H

#include "traces/trace.h"
#include <stdio.h>

typedef struct moe_trace_statistics {
    int64_t layers;
    int thirds;        /* 3: early, middle, late (fewer iterations: 1) */
    double *imbalance; /* [layers][3] mean of hottest / mean over the iterations of a third */
    double *drift;     /* [layers] mean */
    double *error_mean5, *error_last, *error_uniform; /* [layers] mean */
    double source_spread;
    double assignments; /* of one dispatch, mean */
    double tokens;      /* of one source and dispatch, mean */
} moe_trace_statistics;

/* Owned by `owner`. Reads the whole trace once; `progress` (may be NULL) is
 * called after every iteration. What cannot be measured (too few iterations, no tokens) is NaN. */
moe_trace_statistics *moe_trace_measure(void *owner, const moe_trace *trace,
                                        void (*progress)(void *state, int64_t done, int64_t total),
                                        void *state);
void moe_trace_print_info(const moe_trace *trace, const moe_trace_statistics *statistics,
                          FILE *stream);
json_t *moe_trace_info_json(const moe_trace *trace, const moe_trace_statistics *statistics);

#endif
