/* What the files of the noun "trace" share: not for other nouns. */
#ifndef MOE_TRACES_TRACE_INTERNAL_H
#define MOE_TRACES_TRACE_INTERNAL_H

#include "traces/safetensors.h"
#include "traces/trace.h"

#define MOE_TRACE_FORMAT       "moeplan-trace-1"
#define MOE_TRACE_INDEX_SUFFIX ".safetensors.index.json"
#define MOE_TRACE_FILE_SUFFIX  ".safetensors"

enum {
    MOE_TRACE_ITERATIONS_MAX_BITS = 40,
    MOE_TRACE_DIMENSION_MAX_BITS = 20,
    /* The counts of one dispatch, and of one iteration being written, are held in memory. */
    MOE_TRACE_DISPATCH_CELLS_MAX = 1 << 25,
    MOE_TRACE_ITERATION_CELLS_MAX = 1 << 26,
    MOE_TRACE_SHARDS_MAX = 512,
    MOE_TOKEN_SLOTS_MAX = 256,
};

/* A run of iterations that lies in one file. */
typedef struct moe_shard {
    moe_safetensors *file;
    const moe_tensor *counts;
    const moe_tensor *tokens;        /* NULL: derived from top_k */
    const moe_tensor *token_experts; /* instead of the two above, in a per-token recording */
    const moe_tensor *token_probs;   /* or NULL */
    int64_t first;
    int64_t iterations;
} moe_shard;

struct moe_trace {
    moe_trace_info info;
    moe_where at;
    json_t *provenance;
    moe_shard *shards;
    size_t shard_count;
};

/* NULL-terminated, in the order of moe_aggregation. */
extern const char *const moe_aggregation_names[];

/* Items [first, first + count) of an array of unsigned integers. */
void moe_tensor_read_u32(const moe_tensor *tensor, int64_t first, size_t count, uint32_t *values);
/* What every container says of its trace; a new reference. */
json_t *moe_trace_create_metadata(const moe_trace_info *info);

/* Per-token recordings (token_ids.c). Whether its arrays and its metadata suit one another; fills the
 * shape and what else `info` holds. Prints what is wrong. */
bool moe_token_ids_load(moe_trace_info *info, const moe_shard *shard, const json_t *metadata,
                        moe_diag *diag);
/* moe_trace_read of such a trace. */
void moe_token_ids_read(const moe_trace *trace, int64_t position, int64_t layer, uint32_t *counts,
                        uint32_t *tokens);
/* What is wrong with the experts of one token, or NULL. */
const char *moe_token_ids_why_unsound(const moe_trace_info *info, const uint32_t *ids);
/* Prints tokens whose experts are out of range or assigned twice. */
void moe_token_ids_check(const moe_trace *trace, moe_diag *diag);

int64_t moe_trace_dispatch_cells(const moe_trace_shape *shape);
bool moe_text_ends_with(const char *text, const char *suffix);
/* Prints what is wrong with a shape, if anything. */
bool moe_trace_shape_check(const moe_trace_shape *shape, moe_where at, moe_diag *diag);
/* Whether a source's assignments can belong to its tokens: top_k each, or where that varies at most
 * one for each expert (and possibly none: null experts are not counted). */
bool moe_trace_is_sound(const moe_trace_info *info, uint64_t assignments, uint64_t tokens);

#endif
