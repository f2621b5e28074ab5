#include "traces/token_ids.h"

#include "configs/base/memory.h"
#include "configs/base/output.h"
#include "traces/trace_internal.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { IDS_RANK = 4, PRINTED_TOKENS_MAX = 10 };

/* --- opening -------------------------------------------------------------------------------- */

static bool load_integer(const json_t *metadata, const char *key, int64_t low, int64_t *value,
                         moe_where at, moe_diag *diag)
{
    const char *text = json_string_value(json_object_get(metadata, key));
    char *end = NULL;
    *value = text == NULL ? -1 : strtoll(text, &end, 10);
    if (text != NULL && end != text && *end == '\0' && *value >= low && *value <= UINT16_MAX + 1)
        return true;
    moe_diag_error(diag, at, "%s is \"%.40s\"; expected an integer of at least %" PRId64, key,
                   text == NULL ? "(none)" : text, low);
    return false;
}

static bool check_arrays(const moe_shard *shard, moe_where at, moe_diag *diag)
{
    const moe_tensor *ids = shard->token_experts;
    const moe_tensor *probs = shard->token_probs;
    if (ids->rank != IDS_RANK ||
        (strcmp(ids->dtype, "U8") != 0 && strcmp(ids->dtype, "U16") != 0) || ids->shape[3] < 1 ||
        ids->shape[3] > MOE_TOKEN_SLOTS_MAX) {
        moe_diag_error(diag, at,
                       "token_experts is %s with %zu dimensions; expected U8 or U16 with 4: "
                       "request, position, layer, slot (1 to %d)",
                       ids->dtype, ids->rank, MOE_TOKEN_SLOTS_MAX);
        return false;
    }
    if (probs == NULL || (probs->rank == IDS_RANK && strcmp(probs->dtype, "F32") == 0 &&
                          memcmp(probs->shape, ids->shape, IDS_RANK * sizeof *ids->shape) == 0))
        return true;
    moe_diag_error(diag, at,
                   "token_probs is %s with %zu dimensions; expected F32 in the shape of "
                   "token_experts",
                   probs->dtype, probs->rank);
    return false;
}

bool moe_token_ids_load(moe_trace_info *info, const moe_shard *shard, const json_t *metadata,
                        moe_diag *diag)
{
    const moe_where at = moe_safetensors_where(shard->file);
    const int64_t *shape = shard->token_experts->shape;
    int64_t experts = 0;
    if (!check_arrays(shard, at, diag) ||
        !load_integer(metadata, "experts", 1, &experts, at, diag) ||
        !load_integer(metadata, "null_experts", 0, &info->null_experts, at, diag))
        return false;
    info->shape = (moe_trace_shape){shape[1], 1, shape[2], shape[0], experts};
    info->slots = shape[3];
    info->probabilities = shard->token_probs != NULL;
    info->tokens_recorded = true;
    if (info->top_k == (info->null_experts > 0 ? 0 : info->slots) &&
        info->slots <= experts + info->null_experts)
        return moe_trace_shape_check(&info->shape, at, diag);
    moe_diag_error(diag, at,
                   "top_k is %" PRId64 " with %" PRId64 " slots of %" PRId64 " experts and %" PRId64
                   " null experts; expected the slots, or 0 with null experts",
                   info->top_k, info->slots, experts, info->null_experts);
    return false;
}

/* --- reading -------------------------------------------------------------------------------- */

static int64_t token_index(const moe_trace *trace, int64_t request, int64_t position, int64_t layer)
{
    const moe_trace_shape *shape = &trace->info.shape;
    assert(trace->info.slots > 0 && layer >= 0 && layer < shape->layers);
    assert(request >= 0 && request < shape->sources);
    assert(position >= 0 && position < shape->iterations);
    return ((request * shape->iterations + position) * shape->layers + layer) * trace->info.slots;
}

static void read_ids(const moe_trace *trace, int64_t request, int64_t position, int64_t layer,
                     uint32_t *experts)
{
    moe_tensor_read_u32(trace->shards[0].token_experts,
                        token_index(trace, request, position, layer), (size_t)trace->info.slots,
                        experts);
}

void moe_trace_read_token(const moe_trace *trace, int64_t request, int64_t position, int64_t layer,
                          uint32_t *experts, float *probabilities)
{
    const moe_tensor *probs = trace->shards[0].token_probs;
    const size_t bytes = (size_t)trace->info.slots * sizeof *probabilities;
    const size_t first = (size_t)token_index(trace, request, position, layer);
    read_ids(trace, request, position, layer, experts);
    if (probabilities != NULL && probs != NULL)
        memcpy(probabilities, probs->bytes + first * sizeof *probabilities, bytes);
    else if (probabilities != NULL)
        memset(probabilities, 0, bytes);
}

void moe_token_ids_read(const moe_trace *trace, int64_t position, int64_t layer, uint32_t *counts,
                        uint32_t *tokens)
{
    const moe_trace_shape *shape = &trace->info.shape;
    uint32_t ids[MOE_TOKEN_SLOTS_MAX];
    memset(counts, 0, (size_t)moe_trace_dispatch_cells(shape) * sizeof *counts);
    for (int64_t r = 0; r < shape->sources; r++) {
        read_ids(trace, r, position, layer, ids);
        for (int64_t k = 0; k < trace->info.slots; k++) {
            if (ids[k] < shape->experts)
                counts[r * shape->experts + ids[k]]++;
        }
        if (tokens != NULL)
            tokens[r] = 1;
    }
}

void moe_trace_count_range(const moe_trace *trace, int64_t layer, const moe_token_range *range,
                           double *counts)
{
    uint32_t ids[MOE_TOKEN_SLOTS_MAX];
    for (int64_t r = range->request; r < range->request_end; r++) {
        for (int64_t t = range->position; t < range->position_end; t++) {
            read_ids(trace, r, t, layer, ids);
            for (int64_t k = 0; k < trace->info.slots; k++) {
                if (ids[k] < trace->info.shape.experts)
                    counts[ids[k]]++;
            }
        }
    }
}

/* tokens[p] += 1 for each place p of one token; last[p] == mark: it was counted there already. */
static void count_places(const moe_trace *trace, const uint32_t *ids, const int *place_of,
                         int64_t mark, int64_t *last, double *tokens)
{
    for (int64_t k = 0; k < trace->info.slots; k++) {
        const int place = ids[k] < trace->info.shape.experts ? place_of[ids[k]] : -1;
        if (place >= 0 && last[place] != mark) {
            last[place] = mark;
            tokens[place]++;
        }
    }
}

void moe_trace_count_distinct(const moe_trace *trace, int64_t layer, const moe_token_range *range,
                              const int *place_of, int places, double *tokens)
{
    uint32_t ids[MOE_TOKEN_SLOTS_MAX];
    int64_t *last = moe_need(talloc_zero_array(NULL, int64_t, (unsigned)places));
    int64_t mark = 0;
    memset(tokens, 0, (size_t)places * sizeof *tokens);
    for (int64_t r = range->request; r < range->request_end; r++) {
        for (int64_t t = range->position; t < range->position_end; t++) {
            read_ids(trace, r, t, layer, ids);
            count_places(trace, ids, place_of, ++mark, last, tokens);
        }
    }
    talloc_free(last);
}

/* --- checking ------------------------------------------------------------------------------- */

const char *moe_token_ids_why_unsound(const moe_trace_info *info, const uint32_t *ids)
{
    for (int64_t k = 0; k < info->slots; k++) {
        if (ids[k] >= info->shape.experts + info->null_experts)
            return "an id beyond all experts";
        for (int64_t j = 0; j < k; j++) {
            if (ids[j] == ids[k])
                return "the same expert twice";
        }
    }
    return NULL;
}

static int64_t check_request(const moe_trace *trace, int64_t request, int64_t bad, moe_diag *diag)
{
    const moe_trace_shape *shape = &trace->info.shape;
    uint32_t ids[MOE_TOKEN_SLOTS_MAX];
    for (int64_t i = 0; i < shape->iterations * shape->layers; i++) {
        read_ids(trace, request, i / shape->layers, i % shape->layers, ids);
        const char *why = moe_token_ids_why_unsound(&trace->info, ids);
        if (why != NULL && ++bad <= PRINTED_TOKENS_MAX)
            moe_diag_error(diag, trace->at,
                           "request %" PRId64 ", position %" PRId64 ", layer %" PRId64 ": %s",
                           request, i / shape->layers, i % shape->layers, why);
    }
    return bad;
}

void moe_token_ids_check(const moe_trace *trace, moe_diag *diag)
{
    int64_t bad = 0;
    for (int64_t r = 0; r < trace->info.shape.sources; r++)
        bad = check_request(trace, r, bad, diag);
    if (bad > PRINTED_TOKENS_MAX)
        moe_diag_note(diag, trace->at, "and %" PRId64 " more tokens like these",
                      bad - PRINTED_TOKENS_MAX);
}

/* --- writing -------------------------------------------------------------------------------- */

static bool copy_bytes(void *state, uint8_t *bytes, size_t length)
{
    const uint8_t **from = state;
    memcpy(bytes, *from, length);
    *from += length;
    return true;
}

moe_status moe_trace_write_tokens(const char *path, const moe_trace_info *info,
                                  const moe_token_arrays *arrays, moe_diag *diag)
{
    const moe_trace_shape *shape = &info->shape;
    const uint8_t *from[2] = {arrays->experts, arrays->probabilities};
    moe_tensor_source tensors[2] = {
        {.name = "token_experts",
         .dtype = arrays->expert_bytes == 1 ? "U8" : "U16",
         .item_bytes = arrays->expert_bytes,
         .rank = IDS_RANK,
         .shape = {shape->sources, shape->iterations, shape->layers, info->slots},
         .read = copy_bytes,
         .state = &from[0]},
    };
    tensors[1] = tensors[0];
    tensors[1].name = "token_probs";
    tensors[1].dtype = "F32";
    tensors[1].item_bytes = sizeof(float);
    tensors[1].state = &from[1];
    moe_output *output = moe_output_open(NULL, path, diag);
    if (output == NULL)
        return MOE_INTERNAL;
    json_t *metadata = moe_trace_create_metadata(info);
    json_object_set_new(metadata, "experts", json_sprintf("%" PRId64, shape->experts));
    json_object_set_new(metadata, "null_experts", json_sprintf("%" PRId64, info->null_experts));
    const bool done = moe_safetensors_write(moe_output_stream(output), metadata, tensors,
                                            arrays->probabilities == NULL ? 1 : 2);
    json_decref(metadata);
    if (done)
        return moe_output_commit(output, diag);
    moe_diag_error(diag, (moe_where){0}, "\"%s\" cannot be written", path);
    moe_output_abort(output);
    return MOE_INTERNAL;
}
