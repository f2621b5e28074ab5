/* What an inference run leaves behind token by token: experts.npy beside a meta.json, and probs.npy
 * where it was recorded. Keys of meta.json that are read:
 *
 *   experts          true experts of a layer (required)
 *   null_experts     experts that compute nothing; their ids follow the true ones (default 0)
 *   synthetic, origin, model, recorded_by, kind    as in import_npy.c
 *
 * All keys go to the provenance, except those that tell about a machine rather than about routing,
 * and `files`, which describes a folder that is not there any more. Other arrays of the folder (all
 * router scores, token ids of the text, ...) are not read. */
#include "traces/importer.h"

#include "configs/base/input.h"
#include "configs/base/memory.h"
#include "traces/mapped_file.h"
#include "traces/npy.h"
#include "traces/safetensors.h"
#include "traces/token_ids.h"
#include "traces/trace_internal.h"
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <talloc.h>

#define META_LIMIT_BYTES ((size_t)1 << 20)
#define EXPERTS_NAME     "experts.npy"
#define PROBS_NAME       "probs.npy"
#define META_NAME        "meta.json"

enum { IDS_RANK = 4 };

typedef struct import {
    void *owner;
    moe_diag *diag;
    const char *folder;
    moe_npy experts;
    moe_npy probs; /* bytes NULL: none */
    moe_where experts_at;
    json_t *meta;
    moe_where meta_at;
    moe_trace_info info;
} import;

static char *file_of(void *owner, const char *folder, const char *name)
{
    return moe_need(talloc_asprintf(owner, "%s/%s", folder, name));
}

static bool is_file(const char *folder, const char *name)
{
    struct stat status;
    char *path = file_of(NULL, folder, name);
    const bool found = stat(path, &status) == 0 && S_ISREG(status.st_mode);
    talloc_free(path);
    return found;
}

static bool recognise(const char *path)
{
    return is_file(path, EXPERTS_NAME) && !is_file(path, "counts.npy");
}

/* --- meta.json ------------------------------------------------------------------------------ */

static bool load_meta(import *i)
{
    size_t length = 0;
    json_error_t error;
    char *path = file_of(i->owner, i->folder, META_NAME);
    char *text = moe_input_read(i->owner, path, META_LIMIT_BYTES, &length, (moe_where){0}, i->diag);
    if (text == NULL)
        return false;
    i->meta_at.source = moe_diag_source(i->diag, path, text, length);
    i->meta = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(i->meta))
        return true;
    moe_diag_error(i->diag, i->meta_at, "no JSON object%s%s", i->meta == NULL ? ": " : "",
                   i->meta == NULL ? error.text : "");
    return false;
}

static bool meta_integer(const import *i, const char *key, int64_t low, int64_t *value)
{
    const json_t *found = json_object_get(i->meta, key);
    *value = low == 0 && found == NULL ? 0 : -1;
    if (json_is_integer(found))
        *value = (int64_t)json_integer_value(found);
    if (*value >= low && *value <= UINT16_MAX)
        return true;
    moe_diag_error(i->diag, i->meta_at, "\"%s\" is missing or no integer from %" PRId64 " to %d",
                   key, low, UINT16_MAX);
    return false;
}

static const char *compose_origin(const import *i)
{
    static const char *const keys[] = {"model", "recorded_by", "kind"};
    const char *given = json_string_value(json_object_get(i->meta, "origin"));
    char *line = moe_need(talloc_strdup(i->owner, given == NULL ? "" : given));
    for (size_t k = 0; given == NULL && k < sizeof keys / sizeof *keys; k++) {
        const char *text = json_string_value(json_object_get(i->meta, keys[k]));
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
    static const char *const dropped[] = {"wall_seconds", "machine", "host",
                                          "hostname",     "user",    "files"};
    const uint32_t crc = moe_crc32(0, i->experts.bytes, i->experts.size_bytes);
    for (size_t k = 0; k < sizeof dropped / sizeof *dropped; k++)
        json_object_del(i->meta, dropped[k]);
    json_object_set_new(i->meta, "imported_from",
                        json_pack("{s:s, s:i, s:o}", "format", "npy", "item_bytes",
                                  (int)i->experts.item_bytes, "crc32",
                                  json_sprintf("%08" PRIx32, crc)));
    i->info.provenance = i->meta;
}

static bool read_meta(import *i)
{
    if (!load_meta(i) || !meta_integer(i, "experts", 1, &i->info.shape.experts) ||
        !meta_integer(i, "null_experts", 0, &i->info.null_experts))
        return false;
    i->info.aggregation = MOE_AGGREGATION_DISPATCH;
    i->info.window = 1;
    i->info.top_k = i->info.null_experts > 0 ? 0 : i->info.slots;
    i->info.synthetic = json_is_true(json_object_get(i->meta, "synthetic"));
    i->info.origin = compose_origin(i);
    set_provenance(i);
    return true;
}

/* --- the arrays ----------------------------------------------------------------------------- */

static bool open_experts(import *i)
{
    const char *path = file_of(i->owner, i->folder, EXPERTS_NAME);
    const moe_mapped_file *file = moe_mapped_file_open(i->owner, path, (moe_where){0}, i->diag);
    if (file == NULL || !moe_npy_parse(file->bytes, file->length, &i->experts, file->at, i->diag))
        return false;
    i->experts_at = file->at;
    const int64_t *shape = i->experts.shape;
    if (i->experts.rank != IDS_RANK || i->experts.item_bytes > 2) {
        moe_diag_error(i->diag, file->at,
                       "%zu dimensions of %zu-byte ids; expected 4 (request, position, layer, "
                       "slot) of at most 2 bytes",
                       i->experts.rank, i->experts.item_bytes);
        return false;
    }
    i->info.shape = (moe_trace_shape){shape[1], 1, shape[2], shape[0], 0};
    i->info.slots = shape[3];
    return true;
}

static bool open_probs(import *i)
{
    if (!is_file(i->folder, PROBS_NAME))
        return true;
    const char *path = file_of(i->owner, i->folder, PROBS_NAME);
    const moe_mapped_file *file = moe_mapped_file_open(i->owner, path, (moe_where){0}, i->diag);
    if (file == NULL ||
        !moe_npy_parse_floats(file->bytes, file->length, &i->probs, file->at, i->diag))
        return false;
    if (i->probs.rank == IDS_RANK &&
        memcmp(i->probs.shape, i->experts.shape, IDS_RANK * sizeof *i->probs.shape) == 0)
        return true;
    moe_diag_error(i->diag, file->at, "another shape than " EXPERTS_NAME " beside it");
    return false;
}

static bool check_tokens(const import *i)
{
    const size_t slots = (size_t)i->info.slots;
    const int64_t items = (int64_t)(i->experts.size_bytes / i->experts.item_bytes);
    uint32_t *ids = moe_need(talloc_array(i->owner, uint32_t, slots));
    for (int64_t first = 0; first < items; first += (int64_t)slots) {
        moe_npy_read(&i->experts, first, slots, ids);
        const char *why = moe_token_ids_why_unsound(&i->info, ids);
        if (why == NULL)
            continue;
        const int64_t row = first / (int64_t)slots;
        const int64_t token = row / i->info.shape.layers;
        moe_diag_error(i->diag, i->experts_at,
                       "request %" PRId64 ", position %" PRId64 ", layer %" PRId64 ": %s",
                       token / i->info.shape.iterations, token % i->info.shape.iterations,
                       row % i->info.shape.layers, why);
        return false;
    }
    return true;
}

static bool check_shape(const import *i)
{
    const int64_t all = i->info.shape.experts + i->info.null_experts;
    if (!moe_trace_shape_check(&i->info.shape, i->experts_at, i->diag))
        return false;
    if (i->info.slots >= 1 && i->info.slots <= all && i->info.slots <= MOE_TOKEN_SLOTS_MAX)
        return true;
    moe_diag_error(i->diag, i->experts_at,
                   "%" PRId64 " slots of a token; expected 1 to %d, and at most the %" PRId64
                   " experts",
                   i->info.slots, MOE_TOKEN_SLOTS_MAX, all);
    return false;
}

static moe_status write_trace(const import *i, const char *output)
{
    const moe_token_arrays arrays = {i->experts.bytes, i->experts.item_bytes, i->probs.bytes};
    if (!check_shape(i) || !check_tokens(i))
        return MOE_BAD_INPUT;
    return moe_trace_write_tokens(output, &i->info, &arrays, i->diag);
}

static moe_status import_tokens(const char *path, const char *output, int64_t shard_iterations,
                                moe_diag *diag)
{
    moe_status status = MOE_BAD_INPUT;
import i = {.owner = moe_need(talloc_new(NULL)), .diag = diag, .folder = path };
    if (shard_iterations > 0)
        moe_diag_error(diag, (moe_where){0},
                       "a per-token recording is one file; it cannot be sharded");
    else if (open_experts(&i) && open_probs(&i) && read_meta(&i))
        status = write_trace(&i, output);
    json_decref(i.meta);
    talloc_free(i.owner);
    return status;
}

const moe_importer moe_importer_npy_tokens = {
    .name = "npy-tokens",
    .sentence = "a folder with experts.npy, uint8 or uint16 [request][position][layer][slot], "
                "meta.json with experts (and null_experts), and possibly probs.npy, float32 of the "
                "same shape",
    .recognise = recognise,
    .import = import_tokens,
};
