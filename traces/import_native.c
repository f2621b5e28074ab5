/* A native trace, checked and written anew: to re-shard it, to join shards, to renew its CRCs. */
#include "traces/importer.h"

#include "configs/base/memory.h"
#include "traces/token_ids.h"
#include "traces/trace_internal.h"
#include <string.h>
#include <talloc.h>

/* By content where that is cheap: a plausible header length, then a JSON object. */
static bool native_recognise(const char *path)
{
    uint8_t start[9] = {0};
    uint64_t length = 0;
    if (moe_text_ends_with(path, MOE_TRACE_INDEX_SUFFIX))
        return true;
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return moe_text_ends_with(path, MOE_TRACE_FILE_SUFFIX);
    const size_t got = fread(start, 1, sizeof start, file);
    fclose(file);
    memcpy(&length, start, sizeof length);
    return moe_text_ends_with(path, MOE_TRACE_FILE_SUFFIX) ||
           (got == sizeof start && length < UINT32_MAX && start[8] == '{');
}

/* The dispatches of one iteration, in the order of the container. */
static void read_iteration(const moe_trace *trace, int64_t iteration, uint32_t *counts,
                           uint32_t *tokens)
{
    const moe_trace_shape *shape = &moe_trace_get_info(trace)->shape;
    for (int64_t m = 0; m < shape->micro_batches; m++) {
        for (int64_t l = 0; l < shape->layers; l++) {
            moe_trace_read(trace, iteration, m, l, counts, tokens);
            counts += moe_trace_dispatch_cells(shape);
            if (tokens != NULL)
                tokens += shape->sources;
        }
    }
}

static moe_status copy(void *owner, const moe_trace *trace, moe_trace_writer *writer,
                       moe_diag *diag)
{
    const moe_trace_info *info = moe_trace_get_info(trace);
    const int64_t rows = info->shape.micro_batches * info->shape.layers * info->shape.sources;
    uint32_t *counts =
        moe_need(talloc_array(owner, uint32_t, (size_t)(rows * info->shape.experts)));
    uint32_t *tokens =
        info->tokens_recorded ? moe_need(talloc_array(owner, uint32_t, (size_t)rows)) : NULL;
    for (int64_t t = 0; t < info->shape.iterations; t++) {
        read_iteration(trace, t, counts, tokens);
        const moe_status status = moe_trace_writer_append(writer, counts, tokens, diag);
        if (status != MOE_OK)
            return status;
    }
    return moe_trace_writer_commit(writer, diag);
}

static moe_status copy_ids(const moe_trace *trace, const char *output, int64_t shard_iterations,
                           moe_diag *diag)
{
    const moe_shard *shard = &trace->shards[0];
    const moe_token_arrays arrays = {shard->token_experts->bytes, shard->token_experts->item_bytes,
                                     shard->token_probs == NULL ? NULL : shard->token_probs->bytes};
    if (shard_iterations == 0)
        return moe_trace_write_tokens(output, &trace->info, &arrays, diag);
    moe_diag_error(diag, trace->at, "a per-token recording is one file; it cannot be sharded");
    return MOE_BAD_INPUT;
}

static moe_status copy_counts(void *owner, const moe_trace *trace, const char *output,
                              int64_t shard_iterations, moe_diag *diag)
{
    const moe_trace_info *info = moe_trace_get_info(trace);
    moe_trace_writer *writer =
        moe_trace_writer_open(owner, output, info, info->tokens_recorded, shard_iterations, diag);
    return writer == NULL ? MOE_INTERNAL : copy(owner, trace, writer, diag);
}

static moe_status native_import(const char *path, const char *output, int64_t shard_iterations,
                                moe_diag *diag)
{
    void *owner = moe_need(talloc_new(NULL));
    moe_status status = MOE_BAD_INPUT;
    const moe_trace *trace = moe_trace_open(owner, path, (moe_where){0}, diag);
    if (trace != NULL && moe_trace_check(trace, diag) == MOE_OK) {
        status = moe_trace_get_info(trace)->slots > 0
                     ? copy_ids(trace, output, shard_iterations, diag)
                     : copy_counts(owner, trace, output, shard_iterations, diag);
    }
    talloc_free(owner);
    return status;
}

const moe_importer moe_importer_native = {
    .name = "native",
    .sentence = "a trace of this program (NAME.safetensors, or NAME.safetensors.index.json for "
                "shards), checked and written anew",
    .recognise = native_recognise,
    .import = native_import,
};
