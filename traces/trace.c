#include "traces/trace.h"

#include "configs/base/input.h"
#include "configs/base/memory.h"
#include "traces/trace_internal.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <zlib.h>

#define INDEX_LIMIT_BYTES ((size_t)16 << 20)
#define COUNTS_RANK       5
#define TOKENS_RANK       4

const char *const moe_aggregation_names[] = {"dispatch", "iteration", "window", NULL};

int64_t moe_trace_dispatch_cells(const moe_trace_shape *shape)
{
    return shape->sources * shape->experts;
}

bool moe_text_ends_with(const char *text, const char *suffix)
{
    const size_t length = strlen(text);
    const size_t tail = strlen(suffix);
    return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

static int trace_destroy(moe_trace *trace)
{
    json_decref(trace->provenance);
    return 0;
}

/* --- metadata ------------------------------------------------------------------------------- */

/* The functions below print what is wrong, at trace->at. */
typedef struct opening {
    moe_trace *trace;
    moe_diag *diag;
} opening;

static const char *metadata_text(const opening *o, const json_t *metadata, const char *key)
{
    const char *text = json_string_value(json_object_get(metadata, key));
    if (text == NULL)
        moe_diag_error(o->diag, o->trace->at, "the metadata has no text \"%s\"", key);
    return text;
}

static bool metadata_integer(const opening *o, const json_t *metadata, const char *key, int64_t low,
                             int64_t *value)
{
    const char *text = metadata_text(o, metadata, key);
    char *end = NULL;
    if (text == NULL)
        return false;
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || *value < low || *value > INT32_MAX) {
        moe_diag_error(o->diag, o->trace->at,
                       "%s is \"%.40s\"; expected an integer of at least %" PRId64, key, text, low);
        return false;
    }
    return true;
}

/* The index of the metadata's `key` in a NULL-terminated list, or -1. */
static int metadata_choice(const opening *o, const json_t *metadata, const char *key,
                           const char *const *choices, const char *expected)
{
    const char *text = metadata_text(o, metadata, key);
    if (text == NULL)
        return -1;
    for (int i = 0; choices[i] != NULL; i++) {
        if (strcmp(choices[i], text) == 0)
            return i;
    }
    moe_diag_error(o->diag, o->trace->at, "%s is \"%.40s\"; expected %s", key, text, expected);
    return -1;
}

static bool load_provenance(const opening *o, const json_t *metadata)
{
    json_error_t error;
    const char *text = metadata_text(o, metadata, "provenance");
    if (text == NULL)
        return false;
    json_t *provenance = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(provenance)) {
        moe_diag_error(o->diag, o->trace->at, "provenance is no JSON object");
        json_decref(provenance);
        return false;
    }
    o->trace->provenance = provenance;
    o->trace->info.provenance = provenance;
    return true;
}

static bool load_digest(const opening *o, const json_t *metadata)
{
    const bool has_ids = json_object_get(metadata, "crc32.token_experts") != NULL;
    const char *key = has_ids ? "crc32.token_experts" : "crc32.counts";
    const char *text = metadata_text(o, metadata, key);
    if (text == NULL)
        return false;
    if (strlen(text) != 8 || strspn(text, "0123456789abcdef") != 8) {
        moe_diag_error(o->diag, o->trace->at, "%s is \"%.20s\"; expected 8 hex digits", key, text);
        return false;
    }
    memcpy(o->trace->info.digest, text, sizeof o->trace->info.digest);
    return true;
}

static bool load_window(const opening *o, const json_t *metadata)
{
    o->trace->info.window = 1;
    return o->trace->info.aggregation != MOE_AGGREGATION_WINDOW ||
           metadata_integer(o, metadata, "window", 1, &o->trace->info.window);
}

static bool load_metadata(const opening *o, const json_t *metadata)
{
    static const char *const formats[] = {MOE_TRACE_FORMAT, NULL};
    static const char *const truths[] = {"false", "true", NULL};
    moe_trace_info *info = &o->trace->info;
    if (metadata_choice(o, metadata, "format", formats, "\"" MOE_TRACE_FORMAT "\"") < 0)
        return false;
    const int aggregation = metadata_choice(o, metadata, "aggregation", moe_aggregation_names,
                                            "dispatch, iteration or window");
    const int synthetic = metadata_choice(o, metadata, "synthetic", truths, "true or false");
    const char *origin = metadata_text(o, metadata, "origin");
    if (aggregation < 0 || synthetic < 0 || origin == NULL)
        return false;
    info->aggregation = (moe_aggregation)aggregation;
    info->synthetic = synthetic == 1;
    info->origin = moe_need(talloc_strdup(o->trace, origin));
    return metadata_integer(o, metadata, "top_k", 0, &info->top_k) && load_window(o, metadata) &&
           load_provenance(o, metadata) && load_digest(o, metadata);
}

/* --- shape ---------------------------------------------------------------------------------- */

static bool dimension_check(const char *name, int64_t value, int bits, moe_where at, moe_diag *diag)
{
    if (value >= 1 && value <= (int64_t)1 << bits)
        return true;
    moe_diag_error(diag, at, "the trace has %" PRId64 " %s; expected 1 to 2^%d", value, name, bits);
    return false;
}

bool moe_trace_shape_check(const moe_trace_shape *shape, moe_where at, moe_diag *diag)
{
    const int bits = MOE_TRACE_DIMENSION_MAX_BITS;
    if (!dimension_check("iterations", shape->iterations, MOE_TRACE_ITERATIONS_MAX_BITS, at,
                         diag) ||
        !dimension_check("micro-batches", shape->micro_batches, bits, at, diag) ||
        !dimension_check("layers", shape->layers, bits, at, diag) ||
        !dimension_check("sources", shape->sources, bits, at, diag) ||
        !dimension_check("experts", shape->experts, bits, at, diag))
        return false;
    if (moe_trace_dispatch_cells(shape) > MOE_TRACE_DISPATCH_CELLS_MAX) {
        moe_diag_error(diag, at,
                       "a dispatch of %" PRId64 " sources x %" PRId64 " experts; at most %d counts "
                       "fit",
                       shape->sources, shape->experts, MOE_TRACE_DISPATCH_CELLS_MAX);
        return false;
    }
    return true;
}

static bool is_count_dtype(const char *dtype)
{
    return strcmp(dtype, "U8") == 0 || strcmp(dtype, "U16") == 0 || strcmp(dtype, "U32") == 0;
}

static bool check_counts(const opening *o, const moe_shard *shard)
{
    const moe_tensor *counts = shard->counts;
    const moe_where at = moe_safetensors_where(shard->file);
    if (counts == NULL) {
        moe_diag_error(o->diag, at,
                       "no array \"counts\"; expected a trace that `moeplan trace "
                       "convert` wrote");
        return false;
    }
    if (counts->rank != COUNTS_RANK || !is_count_dtype(counts->dtype)) {
        moe_diag_error(
            o->diag, at,
            "counts is %s with %zu dimensions; expected U8, U16 or U32 with 5: iteration, "
            "micro-batch, layer, source, expert",
            counts->dtype, counts->rank);
        return false;
    }
    return true;
}

/* Tokens, where present, have the shape of counts without its last dimension. */
static bool check_tokens(const opening *o, const moe_shard *shard)
{
    const moe_tensor *tokens = shard->tokens;
    const size_t compared = TOKENS_RANK * sizeof tokens->shape[0];
    if (tokens == NULL)
        return true;
    if (tokens->rank == TOKENS_RANK && is_count_dtype(tokens->dtype) &&
        memcmp(tokens->shape, shard->counts->shape, compared) == 0)
        return true;
    moe_diag_error(
        o->diag, moe_safetensors_where(shard->file),
        "tokens is %s with %zu dimensions; expected U8, U16 or U32 in the shape of counts "
        "without the experts",
        tokens->dtype, tokens->rank);
    return false;
}

static moe_trace_shape shard_shape(const moe_shard *shard)
{
    const int64_t *shape = shard->counts->shape;
    return (moe_trace_shape){shape[0], shape[1], shape[2], shape[3], shape[4]};
}

/* Finds the arrays of an opened file and checks their shapes. */
static bool load_shard(const opening *o, moe_shard *shard)
{
    shard->counts = moe_safetensors_tensor(shard->file, "counts");
    shard->tokens = moe_safetensors_tensor(shard->file, "tokens");
    if (!check_counts(o, shard) || !check_tokens(o, shard))
        return false;
    const moe_trace_shape shape = shard_shape(shard);
    shard->iterations = shape.iterations;
    return moe_trace_shape_check(&shape, moe_safetensors_where(shard->file), o->diag);
}

/* Relations between the metadata and the arrays. */
static bool check_relations(const opening *o)
{
    const moe_trace_info *info = &o->trace->info;
    if (info->top_k > info->shape.experts) {
        moe_diag_error(o->diag, o->trace->at, "top_k is %" PRId64 " of only %" PRId64 " experts",
                       info->top_k, info->shape.experts);
        return false;
    }
    if (info->top_k == 0 && !info->tokens_recorded) {
        moe_diag_error(
            o->diag, o->trace->at,
            "top_k is 0 (it varies), so the number of tokens cannot be derived; expected "
            "an array \"tokens\"");
        return false;
    }
    if (info->aggregation != MOE_AGGREGATION_DISPATCH && info->shape.micro_batches != 1) {
        moe_diag_error(o->diag, o->trace->at,
                       "%" PRId64 " micro-batches in a trace that sums over each %s; expected 1",
                       info->shape.micro_batches, moe_aggregation_names[info->aggregation]);
        return false;
    }
    return true;
}

/* --- one file ------------------------------------------------------------------------------- */

static moe_shard *shards_create(moe_trace *trace, size_t count)
{
    trace->shard_count = count;
    trace->shards = moe_need(talloc_zero_array(trace, moe_shard, (unsigned)count));
    return trace->shards;
}

static bool open_token_ids(const opening *o, moe_shard *shard, const json_t *metadata)
{
    shard->token_experts = moe_safetensors_tensor(shard->file, "token_experts");
    shard->token_probs = moe_safetensors_tensor(shard->file, "token_probs");
    if (moe_safetensors_tensor(shard->file, "counts") != NULL) {
        moe_diag_error(o->diag, o->trace->at,
                       "both \"counts\" and \"token_experts\"; expected one of them");
        return false;
    }
    if (!moe_token_ids_load(&o->trace->info, shard, metadata, o->diag))
        return false;
    shard->iterations = o->trace->info.shape.iterations;
    return check_relations(o);
}

static bool open_single(const opening *o, const char *path, moe_where named_at)
{
    moe_trace *trace = o->trace;
    moe_shard *shard = shards_create(trace, 1);
    shard->file = moe_safetensors_open(trace, path, named_at, o->diag);
    if (shard->file == NULL)
        return false;
    trace->at = moe_safetensors_where(shard->file);
    const json_t *metadata = moe_safetensors_metadata(shard->file);
    if (!load_metadata(o, metadata))
        return false;
    if (moe_safetensors_tensor(shard->file, "token_experts") != NULL)
        return open_token_ids(o, shard, metadata);
    if (!load_shard(o, shard))
        return false;
    trace->info.shape = shard_shape(shard);
    trace->info.tokens_recorded = shard->tokens != NULL;
    return check_relations(o);
}

/* --- shards --------------------------------------------------------------------------------- */

/* A shard lies in the folder of its index or below: an index from elsewhere must not make us read
 * arbitrary files. */
static bool is_safe_name(const char *name)
{
    if (name == NULL || name[0] == '\0' || name[0] == '/')
        return false;
    for (const char *part = name; part != NULL; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
            return false;
    }
    return true;
}

/* Whether a shard has the layers, sources, ... of the first one. */
static bool check_siblings(const opening *o, const moe_shard *shard)
{
    const moe_shard *model = &o->trace->shards[0];
    const size_t compared = (COUNTS_RANK - 1) * sizeof shard->counts->shape[0];
    if (memcmp(shard->counts->shape + 1, model->counts->shape + 1, compared) == 0 &&
        strcmp(shard->counts->dtype, model->counts->dtype) == 0 &&
        (shard->tokens == NULL) == (model->tokens == NULL))
        return true;
    moe_diag_error(
        o->diag, moe_safetensors_where(shard->file),
        "this shard has other micro-batches, layers, sources, experts or array types than "
        "the first shard of its index");
    return false;
}

/* The parts of the metadata that give the counts their meaning. */
static bool check_shard_metadata(const opening *o, const moe_shard *shard, const json_t *metadata)
{
    static const char *const keys[] = {"format", "aggregation", "window", "top_k", "synthetic"};
    const json_t *own = moe_safetensors_metadata(shard->file);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *found = json_object_get(own, keys[i]);
        const json_t *expected = json_object_get(metadata, keys[i]);
        if (found == expected || json_equal(found, expected)) /* both may be absent */
            continue;
        const char *text = json_string_value(found);
        moe_diag_error(o->diag, moe_safetensors_where(shard->file),
                       "%s is \"%.40s\", not what the index says", keys[i],
                       text == NULL ? "(none)" : text);
        return false;
    }
    return true;
}

/* Reads the row of a shard in the index; `file_name` is resolved against the index's path. */
static bool read_row(const opening *o, const json_t *row, moe_shard *shard, const char **file_name)
{
    const json_t *first = json_object_get(row, "first_iteration");
    const json_t *iterations = json_object_get(row, "iterations");
    *file_name = json_string_value(json_object_get(row, "file"));
    if (!is_safe_name(*file_name)) {
        moe_diag_error(o->diag, o->trace->at,
                       "shard file \"%.80s\"; expected a path below the folder of the index",
                       *file_name == NULL ? "(none)" : *file_name);
        return false;
    }
    shard->first = json_is_integer(first) ? (int64_t)json_integer_value(first) : -1;
    shard->iterations = json_is_integer(iterations) ? (int64_t)json_integer_value(iterations) : -1;
    if (shard->first != o->trace->info.shape.iterations || shard->iterations < 1) {
        moe_diag_error(o->diag, o->trace->at,
                       "shard \"%.80s\" holds %" PRId64 " iterations from %" PRId64
                       "; expected at least 1 from %" PRId64,
                       *file_name, shard->iterations, shard->first,
                       o->trace->info.shape.iterations);
        return false;
    }
    return true;
}

static bool open_shard(const opening *o, const char *index, const json_t *row, moe_shard *shard)
{
    const char *name = NULL;
    if (!read_row(o, row, shard, &name))
        return false;
    const int64_t stated = shard->iterations;
    char *path = moe_input_resolve(o->trace, index, name);
    shard->file = moe_safetensors_open(o->trace, path, o->trace->at, o->diag);
    talloc_free(path);
    if (shard->file == NULL || !load_shard(o, shard) || !check_siblings(o, shard))
        return false;
    if (shard->iterations != stated) {
        moe_diag_error(o->diag, moe_safetensors_where(shard->file),
                       "this shard has %" PRId64 " iterations; its index says %" PRId64,
                       shard->iterations, stated);
        return false;
    }
    o->trace->info.shape.iterations += stated; /* at most 512 times 2^40 */
    return true;
}

/* The index's CRC of all counts must be what its shards' CRCs combine to: a shard of another run
 * with the same shape is found without reading the data. */
static bool check_combined_digest(const opening *o)
{
    uLong combined = 0;
    char hex[9];
    for (size_t i = 0; i < o->trace->shard_count; i++) {
        const moe_shard *shard = &o->trace->shards[i];
        const char *text = json_string_value(
            json_object_get(moe_safetensors_metadata(shard->file), "crc32.counts"));
        combined = crc32_combine(combined, text == NULL ? 0 : strtoul(text, NULL, 16),
                                 (z_off_t)shard->counts->size_bytes);
    }
    snprintf(hex, sizeof hex, "%08lx", combined & 0xffffffffUL);
    if (strcmp(hex, o->trace->info.digest) == 0)
        return true;
    moe_diag_error(
        o->diag, o->trace->at,
        "crc32.counts is %s, but those of the shards combine to %s; a shard is missing or "
        "belongs to another trace",
        o->trace->info.digest, hex);
    return false;
}

static bool load_index(const opening *o, const char *path, const json_t *index)
{
    moe_trace *trace = o->trace;
    const json_t *metadata = json_object_get(index, "metadata");
    const json_t *rows = json_object_get(index, "shards");
    const size_t count = json_array_size(rows);
    if (!json_is_object(metadata) || count == 0 || count > MOE_TRACE_SHARDS_MAX) {
        moe_diag_error(
            o->diag, trace->at,
            "expected a shard index: an object \"metadata\" and a list of 1 to %d \"shards\"",
            MOE_TRACE_SHARDS_MAX);
        return false;
    }
    shards_create(trace, count);
    if (!load_metadata(o, metadata))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!open_shard(o, path, json_array_get(rows, i), &trace->shards[i]) ||
            !check_shard_metadata(o, &trace->shards[i], metadata))
            return false;
    }
    const int64_t iterations = trace->info.shape.iterations;
    trace->info.shape = shard_shape(&trace->shards[0]);
    trace->info.shape.iterations = iterations;
    trace->info.tokens_recorded = trace->shards[0].tokens != NULL;
    return moe_trace_shape_check(&trace->info.shape, trace->at, o->diag) &&
           check_combined_digest(o) && check_relations(o);
}

static bool open_index(const opening *o, const char *path, moe_where named_at)
{
    size_t length = 0;
    json_error_t error;
    char *text = moe_input_read(o->trace, path, INDEX_LIMIT_BYTES, &length, named_at, o->diag);
    if (text == NULL)
        return false;
    o->trace->at.source = moe_diag_source(o->diag, path, NULL, 0);
    json_t *index = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    bool done = false;
    if (index == NULL)
        moe_diag_error(o->diag, o->trace->at, "no JSON: %s at line %d, column %d", error.text,
                       error.line, error.column);
    else
        done = load_index(o, path, index);
    json_decref(index);
    talloc_free(text);
    return done;
}

moe_trace *moe_trace_open(void *owner, const char *path, moe_where named_at, moe_diag *diag)
{
    moe_trace *trace = moe_need(talloc_zero(owner, moe_trace));
    talloc_set_destructor(trace, trace_destroy);
    const opening o = {trace, diag};
    const bool done = moe_text_ends_with(path, ".json") ? open_index(&o, path, named_at)
                                                        : open_single(&o, path, named_at);
    if (done)
        return trace;
    talloc_free(trace);
    return NULL;
}

const moe_trace_info *moe_trace_get_info(const moe_trace *trace)
{
    return &trace->info;
}

/* --- reading -------------------------------------------------------------------------------- */

static const moe_shard *find_shard(const moe_trace *trace, int64_t iteration)
{
    size_t low = 0;
    size_t high = trace->shard_count - 1;
    while (low < high) {
        const size_t middle = (low + high + 1) / 2;
        if (trace->shards[middle].first <= iteration)
            low = middle;
        else
            high = middle - 1;
    }
    return &trace->shards[low];
}

static void widen_u16(const uint8_t *bytes, size_t count, uint32_t *values)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t value;
        memcpy(&value, bytes + i * sizeof value, sizeof value);
        values[i] = value;
    }
}

void moe_tensor_read_u32(const moe_tensor *tensor, int64_t first, size_t count, uint32_t *values)
{
    const uint8_t *bytes = tensor->bytes + (size_t)first * tensor->item_bytes;
    if (tensor->item_bytes == sizeof(uint32_t)) {
        memcpy(values, bytes, count * sizeof *values);
    } else if (tensor->item_bytes == sizeof(uint16_t)) {
        widen_u16(bytes, count, values);
    } else {
        for (size_t i = 0; i < count; i++)
            values[i] = bytes[i];
    }
}

/* Tokens of a trace that did not record them. */
static void derive_tokens(const moe_trace_info *info, const uint32_t *counts, uint32_t *tokens)
{
    const size_t experts = (size_t)info->shape.experts;
    for (size_t s = 0; s < (size_t)info->shape.sources; s++) {
        uint64_t sum = 0;
        for (size_t e = 0; e < experts; e++)
            sum += counts[s * experts + e];
        tokens[s] = (uint32_t)(sum / (uint64_t)info->top_k);
    }
}

void moe_trace_read(const moe_trace *trace, int64_t iteration, int64_t micro_batch, int64_t layer,
                    uint32_t *counts, uint32_t *tokens)
{
    const moe_trace_shape *shape = &trace->info.shape;
    assert(iteration >= 0 && iteration < shape->iterations);
    assert(micro_batch >= 0 && micro_batch < shape->micro_batches);
    assert(layer >= 0 && layer < shape->layers);
    if (trace->info.slots > 0) {
        moe_token_ids_read(trace, iteration, layer, counts, tokens);
        return;
    }
    const moe_shard *shard = find_shard(trace, iteration);
    const int64_t dispatch =
        ((iteration - shard->first) * shape->micro_batches + micro_batch) * shape->layers + layer;
    const int64_t cells = moe_trace_dispatch_cells(shape);
    moe_tensor_read_u32(shard->counts, dispatch * cells, (size_t)cells, counts);
    if (tokens == NULL)
        return;
    if (shard->tokens != NULL)
        moe_tensor_read_u32(shard->tokens, dispatch * shape->sources, (size_t)shape->sources,
                            tokens);
    else
        derive_tokens(&trace->info, counts, tokens);
}
