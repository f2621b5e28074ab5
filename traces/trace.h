/* A routing trace: how many assignments each source rank sent to each expert, dispatch by dispatch,
 * as a real run recorded them.
 *
 *     counts[iteration][micro_batch][layer][source][expert]     assignments (token copies)
 *     tokens[iteration][micro_batch][layer][source]             distinct tokens behind them
 *
 * Tokens that chose only null experts are among the tokens, but have no assignment.
 *
 * Container: safetensors (an 8-byte little-endian header length, a JSON header, flat little-endian
 * arrays), one file, or numbered shards named by an index file (<name>.safetensors.index.json).
 * Arrays are mmap-ed, so a trace may be larger than memory. Tensors: `counts` (U8, U16 or U32;
 * 5-D), and optionally `tokens` (4-D; absent: assignments / top_k, which must divide).
 * `__metadata__` (strings):
 *
 *     format      "moeplan-trace-1"
 *     aggregation "dispatch" | "iteration" | "window"      what one cell sums over
 *     window      number of passes in a cell, for "window"
 *     top_k       assignments of a token; "0" where it varies
 *     synthetic   "true" | "false"       not recorded from a trained model
 *     origin      one line: model, who recorded it, how
 *     provenance  a JSON object: everything else known about the run
 *     crc32.NAME  CRC-32 of the tensor NAME, 8 hex digits
 *
 * Per-token recordings have, instead of counts, what each token was assigned (one file, no shards):
 *
 *     token_experts  U8 or U16 [request][position][layer][slot]   expert ids, as the gate ranked them;
 *                    ids from `experts` on are null experts
 *     token_probs    F32, the same shape: combine weights (optional)
 *
 * and in the metadata `experts` and `null_experts`; top_k is the number of slots, or "0" with null
 * experts. They read like counts: an iteration is a position, a source a request, each with one
 * token (the requests of a batch decoded in lock step). Which experts were chosen together:
 * token_ids.h.
 *
 * A dispatch happens per micro-batch and the sum of maxima exceeds the maximum of sums, so a trace
 * whose aggregation is not "dispatch" is never used as if it were: see mapping.h. */
#ifndef MOE_TRACES_TRACE_H
#define MOE_TRACES_TRACE_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum moe_aggregation {
    MOE_AGGREGATION_DISPATCH,
    MOE_AGGREGATION_ITERATION,
    MOE_AGGREGATION_WINDOW,
} moe_aggregation;

typedef struct moe_trace_shape {
    int64_t iterations;
    int64_t micro_batches;
    int64_t layers;
    int64_t sources;
    int64_t experts;
} moe_trace_shape;

typedef struct moe_trace_info {
    moe_trace_shape shape;
    moe_aggregation aggregation;
    int64_t window; /* passes a cell sums over; 1 unless aggregation is WINDOW */
    int64_t top_k;  /* 0: varies from token to token */
    bool synthetic;
    bool tokens_recorded; /* distinct tokens are in the file, not derived from top_k */
    int64_t slots;        /* of a token, in a per-token recording; 0: counts */
    int64_t null_experts; /* per-token recordings only */
    bool probabilities;   /* the same: token_probs is there */
    const char *origin;
    const json_t *provenance; /* borrowed; an object, possibly empty */
    char digest[9];           /* CRC-32 of counts, or of token_experts */
} moe_trace_info;

typedef struct moe_trace moe_trace;

/* Opens a file or a shard index and checks header, sizes and offsets (not the CRC: that reads all;
 * see moe_trace_check). NULL after a printed error. `named_at`: where the path was written, or {0}.
 */
moe_trace *moe_trace_open(void *owner, const char *path, moe_where named_at, moe_diag *diag);

const moe_trace_info *moe_trace_get_info(const moe_trace *trace);

/* Reads everything: CRC of every array, every source's assignments against its tokens (tokens *
 * top_k; where that varies at most tokens * experts), tokens > 0 somewhere. Prints what it finds.
 */
moe_status moe_trace_check(const moe_trace *trace, moe_diag *diag);

/* One dispatch: fills counts[sources][experts] and, if not NULL, tokens[sources]. Indices must be
 * in range (asserted). */
void moe_trace_read(const moe_trace *trace, int64_t iteration, int64_t micro_batch, int64_t layer,
                    uint32_t *counts, uint32_t *tokens);

/* Writing, iteration by iteration, whole or nothing, in the narrowest integer type that fits. The
 * shape in `info` is final; `tokens_recorded`, `digest` and what per-token
 * recordings have are not read. `with_tokens` false:
 * `tokens` is NULL in every append. shard_iterations 0: one file; else "x.safetensors" (or its
 * index) becomes x-00001-of-0000N.safetensors, ... and x.safetensors.index.json. */
typedef struct moe_trace_writer moe_trace_writer;
moe_trace_writer *moe_trace_writer_open(void *owner, const char *path, const moe_trace_info *info,
                                        bool with_tokens, int64_t shard_iterations, moe_diag *diag);
/* counts[micro_batches][layers][sources][experts], tokens[micro_batches][layers][sources]. */
moe_status moe_trace_writer_append(moe_trace_writer *writer, const uint32_t *counts,
                                   const uint32_t *tokens, moe_diag *diag);
/* Frees the writer, whatever it returns. */
moe_status moe_trace_writer_commit(moe_trace_writer *writer, moe_diag *diag);

#endif
