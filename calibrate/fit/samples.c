#include "calibrate/fit/samples.h"

#include "configs/base/memory.h"
#include <string.h>
#include <talloc.h>

const char *const moe_sample_kind_names[] = {
    "gemm", "experts",    "permute",      "gate",    "attention", "norm", "adam",
    "head", "collective", "interference", "sharing", "launch",    "copy", NULL};

const char *const moe_sample_dtype_names[] = {"fp32", "bf16", "fp16", "fp8", NULL};

const char *moe_sample_dtype(const char *text)
{
    for (const char *const *name = moe_sample_dtype_names; *name != NULL; name++) {
        if (strcmp(*name, text) == 0)
            return *name;
    }
    return NULL;
}

double moe_sample_dtype_bytes(const char *dtype)
{
    bool byte = strncmp(dtype, "fp8", strlen("fp8")) == 0 || strcmp(dtype, "int8") == 0;
    return strcmp(dtype, "fp32") == 0 ? 4 : byte ? 1 : 2;
}

moe_samples *moe_samples_create(void *owner)
{
    return moe_need(talloc_zero(owner, moe_samples));
}

static const void *copied(void *owner, const void *items, size_t bytes)
{
    return items != NULL && bytes > 0 ? moe_need(talloc_memdup(owner, items, bytes)) : NULL;
}

/* Rows of bits stand in one block, so that a sample with many chunks costs two pieces of memory. */
static const moe_chunk *copied_chunks(void *owner, const moe_sample_exchange *exchange, int ranks)
{
    size_t count = (size_t)exchange->chunks, words = ((size_t)ranks + 63) / 64;
    if (exchange->chunk_list == NULL || count == 0)
        return NULL;
    moe_chunk *chunks = moe_need(talloc_array(owner, moe_chunk, count));
    uint64_t *bits = moe_need(talloc_array(chunks, uint64_t, count * words));
    for (size_t c = 0; c < count; c++) {
        memcpy(bits + c * words, exchange->chunk_list[c].want, words * sizeof *bits);
        chunks[c] = (moe_chunk){exchange->chunk_list[c].owner, bits + c * words};
    }
    return chunks;
}

static void own_exchange(void *owner, moe_sample_exchange *exchange, int ranks)
{
    size_t cells = (size_t)ranks * (size_t)ranks;
    exchange->matrix = copied(owner, exchange->matrix, cells * sizeof *exchange->matrix);
    exchange->chunk_list = copied_chunks(owner, exchange, ranks);
}

void moe_samples_add(moe_samples *samples, const moe_sample *sample)
{
    size_t capacity = talloc_array_length(samples->items);
    if (samples->count == capacity)
        samples->items = moe_need(
            talloc_realloc(samples, samples->items, moe_sample, capacity ? 2 * capacity : 64));
    moe_sample *added = &samples->items[samples->count++];
    *added = *sample;
    added->rows = copied(samples, sample->rows, (size_t)sample->experts * sizeof *sample->rows);
    own_exchange(samples, &added->first, sample->ranks);
    own_exchange(samples, &added->second, sample->ranks);
}
