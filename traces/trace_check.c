/* Everything about a trace that only reading all of it can tell. */
#include "traces/trace_internal.h"

#include "configs/base/memory.h"
#include <inttypes.h>
#include <string.h>
#include <talloc.h>

enum { PRINTED_PLACES_MAX = 10 };

typedef struct checking {
    const moe_trace *trace;
    moe_diag *diag;
    uint32_t *counts;
    uint32_t *tokens;
    uint64_t all_tokens;
    int64_t bad_places;
} checking;

static void check_crc(const checking *c, const moe_safetensors *file, const moe_tensor *tensor)
{
    char key[96];
    char found[9];
    snprintf(key, sizeof key, "crc32.%.80s", tensor->name);
    const char *stated = json_string_value(json_object_get(moe_safetensors_metadata(file), key));
    snprintf(found, sizeof found, "%08" PRIx32, moe_crc32(0, tensor->bytes, tensor->size_bytes));
    if (stated == NULL)
        moe_diag_error(c->diag, moe_safetensors_where(file), "the metadata has no \"%s\"", key);
    else if (strcmp(stated, found) != 0)
        moe_diag_error(c->diag, moe_safetensors_where(file),
                       "the CRC-32 of %.80s is %s; %s says %.20s: the file is damaged",
                       tensor->name, found, key, stated);
}

static void check_crcs(const checking *c)
{
    for (size_t i = 0; i < c->trace->shard_count; i++) {
        const moe_safetensors *file = c->trace->shards[i].file;
        for (size_t j = 0; j < moe_safetensors_tensor_count(file); j++)
            check_crc(c, file, moe_safetensors_tensor_at(file, j));
    }
}

bool moe_trace_is_sound(const moe_trace_info *info, uint64_t assignments, uint64_t tokens)
{
    if (assignments > UINT32_MAX)
        return false;
    if (info->top_k > 0)
        return assignments == tokens * (uint64_t)info->top_k;
    return assignments <= tokens * (uint64_t)info->shape.experts;
}

static void report_place(checking *c, int64_t iteration, int64_t micro_batch, int64_t layer,
                         int64_t source, uint64_t assignments)
{
    const moe_trace_info *info = &c->trace->info;
    if (++c->bad_places > PRINTED_PLACES_MAX)
        return;
    moe_diag_error(c->diag, c->trace->at,
                   "iteration %" PRId64 ", micro-batch %" PRId64 ", layer %" PRId64
                   ", source %" PRId64 ": %" PRIu64 " assignments cannot belong to %" PRIu32
                   " tokens with top_k %" PRId64 "%s",
                   iteration, micro_batch, layer, source, assignments, c->tokens[source],
                   info->top_k, info->top_k > 0 ? "" : " (varies)");
}

static void check_dispatch(checking *c, int64_t iteration, int64_t micro_batch, int64_t layer)
{
    const moe_trace_info *info = &c->trace->info;
    const size_t experts = (size_t)info->shape.experts;
    moe_trace_read(c->trace, iteration, micro_batch, layer, c->counts, c->tokens);
    for (size_t s = 0; s < (size_t)info->shape.sources; s++) {
        uint64_t assignments = 0;
        for (size_t e = 0; e < experts; e++)
            assignments += c->counts[s * experts + e];
        c->all_tokens += c->tokens[s];
        if (!moe_trace_is_sound(info, assignments, c->tokens[s]))
            report_place(c, iteration, micro_batch, layer, (int64_t)s, assignments);
    }
}

static void check_dispatches(checking *c)
{
    const moe_trace_shape *shape = &c->trace->info.shape;
    for (int64_t t = 0; t < shape->iterations; t++) {
        for (int64_t m = 0; m < shape->micro_batches; m++) {
            for (int64_t l = 0; l < shape->layers; l++)
                check_dispatch(c, t, m, l);
        }
    }
    if (c->bad_places > PRINTED_PLACES_MAX)
        moe_diag_note(c->diag, c->trace->at, "and %" PRId64 " more places like these",
                      c->bad_places - PRINTED_PLACES_MAX);
    if (c->all_tokens == 0)
        moe_diag_error(c->diag, c->trace->at, "the trace has no tokens at all");
}

moe_status moe_trace_check(const moe_trace *trace, moe_diag *diag)
{
    const int errors = moe_diag_error_count(diag);
    const moe_trace_shape *shape = &trace->info.shape;
    void *owner = moe_need(talloc_new(NULL));
    checking c = {.trace = trace, .diag = diag};
    c.counts = moe_need(talloc_array(owner, uint32_t, (size_t)moe_trace_dispatch_cells(shape)));
    c.tokens = moe_need(talloc_array(owner, uint32_t, (size_t)shape->sources));
    check_crcs(&c);
    if (trace->info.slots > 0)
        moe_token_ids_check(trace, diag);
    check_dispatches(&c);
    talloc_free(owner);
    return moe_diag_error_count(diag) == errors ? MOE_OK : MOE_BAD_INPUT;
}
