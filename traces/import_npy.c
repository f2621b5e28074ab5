/* What the recorder of traces/samples and many a PyTorch script leave behind: counts.npy beside a
 * meta.json. Keys of meta.json that are read:
 *
 *   top_k            assignments of a token; 0 where it varies (required)
 *   tokens_per_rank  tokens of a source in an iteration; required where the assignments of a source
 *                    vary (top_k 0, or null_experts), else checked
 *   null_experts     experts that compute nothing and are not in counts (default 0)
 *   aggregation, window, synthetic, origin        as in trace.h (dispatch, 1, false, see below)
 *   model, recorded_by, framework, script         make up the origin where it is not given
 *
 * All keys go to the provenance, except those that tell about a machine rather than about routing.
 */
#include "traces/importer.h"

#include "configs/base/input.h"
#include "configs/base/memory.h"
#include "traces/mapped_file.h"
#include "traces/npy.h"
#include "traces/safetensors.h"
#include "traces/trace_internal.h"
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <talloc.h>

#define META_LIMIT_BYTES ((size_t)1 << 20)
#define COUNTS_NAME      "counts.npy"
#define META_NAME        "meta.json"

enum { COUNTS_RANK = 4 };

typedef struct import {
    void *owner;
    moe_diag *diag;
    const char *counts_path;
    moe_mapped_file *file;
    moe_npy counts;
    json_t *meta;
    moe_where meta_at;
    moe_trace_info info;
    int64_t tokens_per_rank; /* 0: not known */
} import;

static bool is_folder(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* counts.npy of a folder; a file's own path otherwise. */
static char *find_counts(void *owner, const char *path)
{
    return is_folder(path) ? moe_need(talloc_asprintf(owner, "%s/" COUNTS_NAME, path))
                           : moe_need(talloc_strdup(owner, path));
}

static bool npy_recognise(const char *path)
{
    uint8_t start[8] = {0};
    char *counts = find_counts(NULL, path);
    FILE *file = is_folder(counts) ? NULL : fopen(counts, "rbe");
    size_t length = 0;
    if (file != NULL) {
        length = fread(start, 1, sizeof start, file);
        fclose(file);
    }
    talloc_free(counts);
    return moe_npy_is_magic(start, length);
}

/* --- meta.json ------------------------------------------------------------------------------ */

static bool load_meta(import *i)
{
    size_t length = 0;
    json_error_t error;
    char *path = moe_input_resolve(i->owner, i->counts_path, META_NAME);
    char *text = moe_input_read(i->owner, path, META_LIMIT_BYTES, &length, (moe_where){0}, i->diag);
    if (text == NULL)
        return false;
    i->meta_at.source = moe_diag_source(i->diag, path, text, length);
    i->meta = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(i->meta))
        return true;
    if (i->meta == NULL)
        moe_diag_error(i->diag, (moe_where){i->meta_at.source, error.line, error.column},
                       "no JSON: %s", error.text);
    else
        moe_diag_error(i->diag, i->meta_at, "no JSON object");
    return false;
}

/* An optional integer of meta.json in [low, 2^31); false after a printed error. */
static bool meta_integer(const import *i, const char *key, int64_t low, int64_t fallback,
                         int64_t *value)
{
    const json_t *found = json_object_get(i->meta, key);
    *value = fallback;
    if (found == NULL || json_is_null(found))
        return true;
    *value = json_is_integer(found) ? (int64_t)json_integer_value(found) : -1;
    if (*value >= low && *value <= INT32_MAX)
        return true;
    moe_diag_error(i->diag, i->meta_at, "\"%s\" is no integer of at least %" PRId64, key, low);
    return false;
}

static const char *meta_text(const import *i, const char *key)
{
    return json_string_value(json_object_get(i->meta, key));
}

static bool read_aggregation(import *i)
{
    const char *text = meta_text(i, "aggregation");
    for (int a = 0; moe_aggregation_names[a] != NULL; a++) {
        if (text == NULL || strcmp(moe_aggregation_names[a], text) == 0) {
            i->info.aggregation = (moe_aggregation)a;
            return true;
        }
    }
    moe_diag_error(i->diag, i->meta_at,
                   "\"aggregation\" is \"%.40s\"; expected dispatch, iteration or window", text);
    return false;
}

/* How many assignments a token has, and whether that has to be said token by token. */
static bool read_gate(import *i)
{
    int64_t null_experts = 0;
    if (!meta_integer(i, "top_k", 0, -1, &i->info.top_k) ||
        !meta_integer(i, "null_experts", 0, 0, &null_experts) ||
        !meta_integer(i, "tokens_per_rank", 1, 0, &i->tokens_per_rank))
        return false;
    if (i->info.top_k < 0) {
        moe_diag_error(i->diag, i->meta_at,
                       "no key \"top_k\"; expected the assignments of a token, "
                       "or 0 where they vary");
        return false;
    }
    if (null_experts > 0)
        i->info.top_k = 0;
    if (i->info.top_k == 0 && i->tokens_per_rank == 0) {
        moe_diag_error(i->diag, i->meta_at,
                       "the assignments of a token vary, so \"tokens_per_rank\" must be given");
        return false;
    }
    return true;
}

/* One line out of what the recorder said about itself. */
static const char *compose_origin(const import *i)
{
    static const char *const keys[] = {"model", "recorded_by", "framework", "script"};
    const char *given = meta_text(i, "origin");
    char *line = moe_need(talloc_strdup(i->owner, given == NULL ? "" : given));
    for (size_t k = 0; given == NULL && k < sizeof keys / sizeof *keys; k++) {
        const char *text = meta_text(i, keys[k]);
        if (text != NULL)
            line = moe_need(talloc_asprintf_append(line, "%s%s", *line == '\0' ? "" : "; ", text));
    }
    for (char *c = line; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ')
            *c = ' ';
    }
    return *line == '\0' ? "unknown" : line;
}

static void set_provenance(import *i)
{
    static const char *const dropped[] = {"wall_seconds", "machine", "host", "hostname", "user"};
    for (size_t k = 0; k < sizeof dropped / sizeof *dropped; k++)
        json_object_del(i->meta, dropped[k]);
    json_object_set_new(
        i->meta, "imported_from",
        json_pack("{s:s, s:i, s:o}", "format", "npy", "item_bytes", (int)i->counts.item_bytes,
                  "crc32",
                  json_sprintf("%08" PRIx32, moe_crc32(0, i->counts.bytes, i->counts.size_bytes))));
    if (json_integer_value(json_object_get(i->meta, "null_experts")) > 0)
        json_object_set_new(
            i->meta, "null_experts_note",
            json_string("counts hold true experts only; assignments to null experts "
                        "are left out, so a token may have none"));
    i->info.provenance = i->meta;
}

static bool read_meta(import *i)
{
    if (!load_meta(i) || !read_aggregation(i) || !read_gate(i) ||
        !meta_integer(i, "window", 1, 1, &i->info.window))
        return false;
    i->info.synthetic = json_is_true(json_object_get(i->meta, "synthetic"));
    i->info.origin = compose_origin(i);
    set_provenance(i);
    return true;
}

/* --- counts.npy ----------------------------------------------------------------------------- */

static bool open_counts(import *i)
{
    i->file = moe_mapped_file_open(i->owner, i->counts_path, (moe_where){0}, i->diag);
    if (i->file == NULL ||
        !moe_npy_parse(i->file->bytes, i->file->length, &i->counts, i->file->at, i->diag))
        return false;
    const int64_t *shape = i->counts.shape;
    if (i->counts.rank != COUNTS_RANK) {
        moe_diag_error(i->diag, i->file->at,
                       "%zu dimensions; expected 4: iteration, layer, source, expert",
                       i->counts.rank);
        return false;
    }
    i->info.shape = (moe_trace_shape){shape[0], 1, shape[1], shape[2], shape[3]};
    return moe_trace_shape_check(&i->info.shape, i->file->at, i->diag);
}

/* With a constant top_k every source must have what its tokens demand: a recording after capacity
 * dropping would silently change every cost. */
static bool is_expected(const import *i, uint64_t assignments)
{
    if (i->tokens_per_rank == 0)
        return assignments % (uint64_t)i->info.top_k == 0;
    return moe_trace_is_sound(&i->info, assignments, (uint64_t)i->tokens_per_rank);
}

static bool check_source(const import *i, int64_t iteration, int64_t row, uint64_t assignments)
{
    if (is_expected(i, assignments))
        return true;
    const int64_t each = i->info.top_k > 0 ? i->info.top_k : i->info.shape.experts;
    moe_diag_error(i->diag, i->file->at,
                   "iteration %" PRId64 ", layer %" PRId64 ", source %" PRId64 ": %" PRIu64
                   " assignments; expected %s%" PRId64 ": %" PRId64
                   " for each token, nothing dropped",
                   iteration, row / i->info.shape.sources, row % i->info.shape.sources, assignments,
                   i->tokens_per_rank == 0 ? "a multiple of "
                   : i->info.top_k > 0     ? ""
                                           : "at most ",
                   i->tokens_per_rank == 0 ? each : each * i->tokens_per_rank, each);
    return false;
}

static bool check_iteration(const import *i, int64_t iteration, const uint32_t *counts)
{
    const int64_t experts = i->info.shape.experts;
    const int64_t rows = i->info.shape.layers * i->info.shape.sources;
    for (int64_t row = 0; row < rows; row++) {
        uint64_t sum = 0;
        for (int64_t e = 0; e < experts; e++)
            sum += counts[row * experts + e];
        if (!check_source(i, iteration, row, sum))
            return false;
    }
    return true;
}

/* The tokens of one iteration, or NULL where top_k tells them. */
static uint32_t *create_tokens(const import *i)
{
    if (i->info.top_k > 0)
        return NULL;
    const size_t rows = (size_t)(i->info.shape.layers * i->info.shape.sources);
    uint32_t *tokens = moe_need(talloc_array(i->owner, uint32_t, rows));
    for (size_t row = 0; row < rows; row++)
        tokens[row] = (uint32_t)i->tokens_per_rank;
    return tokens;
}

static moe_status copy_counts(import *i, moe_trace_writer *writer)
{
    const moe_trace_shape *shape = &i->info.shape;
    const int64_t cells = shape->layers * moe_trace_dispatch_cells(shape);
    uint32_t *counts = moe_need(talloc_array(i->owner, uint32_t, (size_t)cells));
    const uint32_t *tokens = create_tokens(i);
    for (int64_t t = 0; t < shape->iterations; t++) {
        moe_npy_read(&i->counts, t * cells, (size_t)cells, counts);
        if (!check_iteration(i, t, counts))
            return MOE_BAD_INPUT;
        const moe_status status = moe_trace_writer_append(writer, counts, tokens, i->diag);
        if (status != MOE_OK)
            return status;
    }
    return moe_trace_writer_commit(writer, i->diag);
}

static moe_status npy_import(const char *path, const char *output, int64_t shard_iterations,
                             moe_diag *diag)
{
    moe_status status = MOE_BAD_INPUT;
import i = {.owner = moe_need(talloc_new(NULL)), .diag = diag };
    i.counts_path = find_counts(i.owner, path);
    if (open_counts(&i) && read_meta(&i)) {
        moe_trace_writer *writer = moe_trace_writer_open(i.owner, output, &i.info,
                                                         i.info.top_k == 0, shard_iterations, diag);
        status = writer == NULL ? MOE_INTERNAL : copy_counts(&i, writer);
    }
    json_decref(i.meta);
    talloc_free(i.owner);
    return status;
}

const moe_importer moe_importer_npy = {
    .name = "npy",
    .sentence =
        "a folder with counts.npy, uint8, uint16 or uint32 [iteration][layer][source][expert], "
        "and meta.json with top_k and tokens_per_rank; or the path of that counts.npy",
    .recognise = npy_recognise,
    .import = npy_import,
};
