/* Per-token recordings: which experts each token chose, and so which were chosen together.
 *
 * The container is described in trace.h (`token_experts`, `token_probs`). What needs ids refuses
 * traces of counts: moe_trace_info.slots is 0 there.
 *
 * moe_trace_count_distinct is exact: the tokens that have at least one expert in a place. It is
 * what models/distinct.h estimates where there are counts only; tests/run_distinct.c compares. */
#ifndef MOE_TRACES_TOKEN_IDS_H
#define MOE_TRACES_TOKEN_IDS_H

#include "traces/trace.h"

/* Requests [request, request_end), of each positions [position, position_end). */
typedef struct moe_token_range {
    int64_t request;
    int64_t request_end;
    int64_t position;
    int64_t position_end;
} moe_token_range;

/* One token: experts[slots], ids from shape.experts on are null experts; probabilities[slots] may be
 * NULL, and are zeros where none were recorded. */
void moe_trace_read_token(const moe_trace *trace, int64_t request, int64_t position, int64_t layer,
                          uint32_t *experts, float *probabilities);

/* counts[experts] += assignments of the range's tokens. */
void moe_trace_count_range(const moe_trace *trace, int64_t layer, const moe_token_range *range,
                           double *counts);

/* tokens[places] = tokens of the range with an expert e for which place_of[e] is the place; negative:
 * nowhere. */
void moe_trace_count_distinct(const moe_trace *trace, int64_t layer, const moe_token_range *range,
                              const int *place_of, int places, double *tokens);

/* The arrays of a recording, [requests][positions][layers][slots], little endian. */
typedef struct moe_token_arrays {
    const uint8_t *experts;
    size_t expert_bytes;          /* of one id: 1 or 2 */
    const uint8_t *probabilities; /* float, or NULL */
} moe_token_arrays;

/* Writes a per-token recording, whole or nothing. Read of `info`: shape (iterations: positions, sources:
 * requests), slots, null_experts, top_k, synthetic, aggregation, origin, provenance. */
moe_status moe_trace_write_tokens(const char *path, const moe_trace_info *info,
                                  const moe_token_arrays *arrays, moe_diag *diag);

#endif
