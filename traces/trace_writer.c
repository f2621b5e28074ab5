/* Appended iterations are spooled as 32-bit integers to anonymous files beside the target: which
 * integer type is wide enough, and how many shards there are, is known only at the end. */
#include "traces/trace_internal.h"

#include "configs/base/memory.h"
#include "configs/base/output.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <unistd.h>
#include <zlib.h>

typedef struct spool {
    FILE *file; /* NULL: this array is not written */
    uint32_t largest;
} spool;

struct moe_trace_writer {
    const char *path;
    moe_trace_info info;
    json_t *metadata;
    int64_t shard_iterations;
    int64_t appended;
    spool counts;
    spool tokens;
};

static int writer_destroy(moe_trace_writer *writer)
{
    json_decref(writer->metadata);
    if (writer->counts.file != NULL)
        fclose(writer->counts.file);
    if (writer->tokens.file != NULL)
        fclose(writer->tokens.file);
    return 0;
}

/* --- opening -------------------------------------------------------------------------------- */

/* A file without a name, so that nothing is left behind however the program ends. */
static bool spool_open(spool *into, const char *path, moe_diag *diag)
{
    const char *slash = strrchr(path, '/');
    const int folder = slash == NULL ? 0 : (int)(slash - path + 1);
    char *name = moe_need(talloc_asprintf(NULL, "%.*s.moeplan-spool-XXXXXX", folder, path));
    const int fd = mkostemp(name, O_CLOEXEC);
    const int reason = errno;
    if (fd >= 0) {
        unlink(name);
        into->file = fdopen(fd, "w+b");
    } else {
        moe_diag_error(diag, (moe_where){0}, "cannot write beside \"%s\": %s", path,
                       strerror(reason));
    }
    talloc_free(name);
    return into->file != NULL;
}

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, json_string(text));
}

json_t *moe_trace_create_metadata(const moe_trace_info *info)
{
    json_t *metadata = json_object();
    char *provenance = info->provenance == NULL
                           ? NULL
                           : json_dumps(info->provenance, JSON_COMPACT | JSON_REAL_PRECISION(15));
    set_text(metadata, "format", MOE_TRACE_FORMAT);
    set_text(metadata, "aggregation", moe_aggregation_names[info->aggregation]);
    if (info->aggregation == MOE_AGGREGATION_WINDOW)
        json_object_set_new(metadata, "window", json_sprintf("%" PRId64, info->window));
    json_object_set_new(metadata, "top_k", json_sprintf("%" PRId64, info->top_k));
    set_text(metadata, "synthetic", info->synthetic ? "true" : "false");
    set_text(metadata, "origin", info->origin == NULL ? "unknown" : info->origin);
    set_text(metadata, "provenance", provenance == NULL ? "{}" : provenance);
    free(provenance);
    return metadata;
}

static bool check_arguments(const moe_trace_info *info, int64_t shard_iterations, moe_diag *diag)
{
    const moe_trace_shape *shape = &info->shape;
    int64_t cells;
    if (!moe_trace_shape_check(shape, (moe_where){0}, diag))
        return false;
    if (__builtin_mul_overflow(moe_trace_dispatch_cells(shape),
                               shape->micro_batches * shape->layers, &cells) ||
        cells > MOE_TRACE_ITERATION_CELLS_MAX) {
        moe_diag_error(diag, (moe_where){0},
                       "an iteration with more than %d counts cannot be written",
                       MOE_TRACE_ITERATION_CELLS_MAX);
        return false;
    }
    if (shard_iterations > 0 &&
        (shape->iterations - 1) / shard_iterations >= MOE_TRACE_SHARDS_MAX) {
        moe_diag_error(diag, (moe_where){0},
                       "%" PRId64 " iterations make more than %d shards of %" PRId64
                       "; use larger shards",
                       shape->iterations, MOE_TRACE_SHARDS_MAX, shard_iterations);
        return false;
    }
    return true;
}

moe_trace_writer *moe_trace_writer_open(void *owner, const char *path, const moe_trace_info *info,
                                        bool with_tokens, int64_t shard_iterations, moe_diag *diag)
{
    if (!check_arguments(info, shard_iterations, diag))
        return NULL;
    moe_trace_writer *writer = moe_need(talloc_zero(owner, moe_trace_writer));
    talloc_set_destructor(writer, writer_destroy);
    writer->path = moe_need(talloc_strdup(writer, path));
    writer->info = *info;
    writer->metadata = moe_trace_create_metadata(info);
    writer->shard_iterations = shard_iterations;
    if (spool_open(&writer->counts, path, diag) &&
        (!with_tokens || spool_open(&writer->tokens, path, diag)))
        return writer;
    talloc_free(writer);
    return NULL;
}

/* --- appending ------------------------------------------------------------------------------ */

static void spool_append(spool *into, const uint32_t *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        into->largest = values[i] > into->largest ? values[i] : into->largest;
    fwrite(values, sizeof *values, count, into->file);
}

moe_status moe_trace_writer_append(moe_trace_writer *writer, const uint32_t *counts,
                                   const uint32_t *tokens, moe_diag *diag)
{
    const moe_trace_shape *shape = &writer->info.shape;
    const int64_t rows = shape->micro_batches * shape->layers * shape->sources;
    if (writer->appended >= shape->iterations ||
        (tokens == NULL) != (writer->tokens.file == NULL)) {
        moe_diag_error(diag, (moe_where){0},
                       "\"%s\": iteration %" PRId64 " of %" PRId64 " cannot be appended",
                       writer->path, writer->appended, shape->iterations);
        return MOE_INTERNAL;
    }
    spool_append(&writer->counts, counts, (size_t)(rows * shape->experts));
    if (tokens != NULL)
        spool_append(&writer->tokens, tokens, (size_t)rows);
    writer->appended++;
    if (ferror(writer->counts.file) || (tokens != NULL && ferror(writer->tokens.file))) {
        moe_diag_error(diag, (moe_where){0}, "cannot write beside \"%s\": %s", writer->path,
                       strerror(errno));
        return MOE_INTERNAL;
    }
    return MOE_OK;
}

/* --- committing ----------------------------------------------------------------------------- */

static const char *dtype_for(uint32_t largest, size_t *item_bytes)
{
    *item_bytes = largest <= UINT8_MAX ? 1 : largest <= UINT16_MAX ? 2 : 4;
    return largest <= UINT8_MAX ? "U8" : largest <= UINT16_MAX ? "U16" : "U32";
}

/* A spool being read back as integers of `item_bytes`. */
typedef struct narrowing {
    FILE *file;
    size_t item_bytes;
} narrowing;

/* The low bytes of each value: the machine is little endian (safetensors.c asserts it). */
static bool narrow_read(void *state, uint8_t *bytes, size_t length)
{
    const narrowing *from = state;
    uint32_t values[1024];
    for (size_t left = length / from->item_bytes; left > 0;) {
        const size_t count = left < 1024 ? left : 1024;
        if (fread(values, sizeof *values, count, from->file) != count)
            return false;
        for (size_t i = 0; i < count; i++, bytes += from->item_bytes)
            memcpy(bytes, &values[i], from->item_bytes);
        left -= count;
    }
    return true;
}

static moe_tensor_source describe(const moe_trace_writer *writer, const char *name, size_t rank,
                                  int64_t iterations, narrowing *from)
{
    const moe_trace_shape *shape = &writer->info.shape;
    const spool *values = rank == 5 ? &writer->counts : &writer->tokens;
    moe_tensor_source tensor = {
        .name = name,
        .rank = rank,
        .shape = {iterations, shape->micro_batches, shape->layers, shape->sources, shape->experts},
        .read = narrow_read,
        .state = from,
    };
    tensor.dtype = dtype_for(values->largest, &tensor.item_bytes);
    *from = (narrowing){values->file, tensor.item_bytes};
    return tensor;
}

/* Writes the next `iterations` of the spools. *crc: of the counts, continued over files. */
static bool write_arrays(moe_trace_writer *writer, FILE *stream, int64_t iterations, uLong *crc)
{
    narrowing from[2];
    moe_tensor_source tensors[2] = {describe(writer, "counts", 5, iterations, &from[0])};
    const size_t count = writer->tokens.file == NULL ? 1 : 2;
    if (count == 2)
        tensors[1] = describe(writer, "tokens", 4, iterations, &from[1]);
    if (!moe_safetensors_write(stream, writer->metadata, tensors, count))
        return false;
    const moe_trace_shape *shape = &writer->info.shape;
    const int64_t items = iterations * shape->micro_batches * shape->layers * shape->sources *
                          shape->experts * (int64_t)tensors[0].item_bytes;
    *crc = crc32_combine(*crc, tensors[0].crc, items);
    return true;
}

/* One output of a commit that becomes visible only after all of them are written. */
static moe_output *write_file(moe_trace_writer *writer, void *owner, const char *path,
                              int64_t iterations, uLong *crc, moe_diag *diag)
{
    moe_output *output = moe_output_open(owner, path, diag);
    if (output == NULL || write_arrays(writer, moe_output_stream(output), iterations, crc))
        return output;
    moe_diag_error(diag, (moe_where){0}, "cannot read back what was spooled for \"%s\"", path);
    moe_output_abort(output);
    return NULL;
}

/* "x" of "x.safetensors" and of "x.safetensors.index.json". */
static char *path_stem(void *owner, const char *path)
{
    static const char *const suffixes[] = {MOE_TRACE_INDEX_SUFFIX, MOE_TRACE_FILE_SUFFIX};
    for (size_t i = 0; i < 2; i++) {
        if (moe_text_ends_with(path, suffixes[i]))
            return moe_need(talloc_strndup(owner, path, strlen(path) - strlen(suffixes[i])));
    }
    return moe_need(talloc_strdup(owner, path));
}

static moe_status write_index(const moe_trace_writer *writer, void *owner, const char *stem,
                              json_t *rows, uLong crc, moe_diag *diag)
{
    char *path = moe_need(talloc_asprintf(owner, "%s" MOE_TRACE_INDEX_SUFFIX, stem));
    moe_output *output = moe_output_open(owner, path, diag);
    if (output == NULL)
        return MOE_INTERNAL;
    json_t *metadata = json_copy(writer->metadata);
    json_object_set_new(metadata, "crc32.counts", json_sprintf("%08lx", crc & 0xffffffffUL));
    json_t *index = json_pack("{s:o, s:O}", "metadata", metadata, "shards", rows);
    json_dumpf(index, moe_output_stream(output), JSON_INDENT(2));
    fputc('\n', moe_output_stream(output));
    json_decref(index);
    return moe_output_commit(output, diag);
}

/* The shards first, so that an index never names a file that is not there. */
static moe_status commit_all(moe_output **outputs, size_t count, moe_diag *diag)
{
    for (size_t i = 0; i < count; i++) {
        const moe_status status = moe_output_commit(outputs[i], diag);
        if (status != MOE_OK)
            return status; /* the others are aborted with their owner */
    }
    return MOE_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static moe_status write_shards(moe_trace_writer *writer, void *owner, json_t *rows, moe_diag *diag)
{
    const int64_t size = writer->shard_iterations;
    const int64_t all = writer->info.shape.iterations;
    const size_t count = (size_t)((all + size - 1) / size);
    moe_output **outputs = moe_need(talloc_zero_array(owner, moe_output *, (unsigned)count));
    char *stem = path_stem(owner, writer->path);
    uLong crc = 0;
    for (size_t i = 0; i < count; i++) {
        const int64_t first = (int64_t)i * size;
        const int64_t iterations = all - first < size ? all - first : size;
        char *path = moe_need(
            talloc_asprintf(owner, "%s-%05zu-of-%05zu" MOE_TRACE_FILE_SUFFIX, stem, i + 1, count));
        outputs[i] = write_file(writer, owner, path, iterations, &crc, diag);
        if (outputs[i] == NULL)
            return MOE_INTERNAL;
        json_array_append_new(rows, json_pack("{s:s, s:I, s:I}", "file", base_name(path),
                                              "first_iteration", (json_int_t)first, "iterations",
                                              (json_int_t)iterations));
    }
    const moe_status status = commit_all(outputs, count, diag);
    return status == MOE_OK ? write_index(writer, owner, stem, rows, crc, diag) : status;
}

static moe_status write_single(moe_trace_writer *writer, void *owner, moe_diag *diag)
{
    uLong crc = 0;
    moe_output *output =
        write_file(writer, owner, writer->path, writer->info.shape.iterations, &crc, diag);
    return output == NULL ? MOE_INTERNAL : moe_output_commit(output, diag);
}

/* rewind() forgets errors, so the last bytes are flushed before it. */
static bool spool_rewind(spool *values)
{
    if (values->file == NULL)
        return true;
    const bool done = fflush(values->file) == 0;
    rewind(values->file);
    return done;
}

moe_status moe_trace_writer_commit(moe_trace_writer *writer, moe_diag *diag)
{
    if (writer->appended != writer->info.shape.iterations || !spool_rewind(&writer->counts) ||
        !spool_rewind(&writer->tokens)) {
        moe_diag_error(diag, (moe_where){0},
                       "\"%s\": only %" PRId64 " of %" PRId64 " iterations could be spooled",
                       writer->path, writer->appended, writer->info.shape.iterations);
        talloc_free(writer);
        return MOE_INTERNAL;
    }
    void *owner = moe_need(talloc_new(NULL));
    json_t *rows = json_array();
    const moe_status status = writer->shard_iterations > 0 ? write_shards(writer, owner, rows, diag)
                                                           : write_single(writer, owner, diag);
    json_decref(rows);
    talloc_free(owner);
    talloc_free(writer);
    return status;
}
