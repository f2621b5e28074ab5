#include "traces/safetensors.h"

#include "configs/base/memory.h"
#include "traces/mapped_file.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <zlib.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "arrays are read as they lie in the file");

#define LENGTH_BYTES       8
#define HEADER_LIMIT_BYTES ((uint64_t)16 << 20)
#define DATA_ALIGNMENT     64 /* of the first array, so that other tools can map it as it is */
#define COPY_BYTES         65536
#define METADATA_KEY       "__metadata__"

typedef struct dtype_row {
    const char *name;
    size_t item_bytes;
} dtype_row;

static const dtype_row dtypes[] = {
    {"U8", 1},  {"U16", 2}, {"U32", 4}, {"U64", 8}, {"I8", 1},   {"I16", 2},  {"I32", 4},
    {"I64", 8}, {"F16", 2}, {"F32", 4}, {"F64", 8}, {"BF16", 2}, {"BOOL", 1},
};

struct moe_safetensors {
    moe_where at;
    json_t *header;
    json_t *metadata; /* borrowed from the header, or an empty object of our own */
    moe_tensor *tensors;
    size_t count;
};

/* What the parsing functions share. */
typedef struct parse {
    moe_safetensors *file;
    const uint8_t *data; /* the first byte after the header */
    uint64_t data_bytes;
    moe_diag *diag;
} parse;

static const dtype_row *dtype_find(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    }
    return NULL;
}

uint32_t moe_crc32(uint32_t crc, const void *bytes, uint64_t length)
{
    return (uint32_t)crc32_z(crc, bytes, length);
}

static int file_destroy(moe_safetensors *file)
{
    json_decref(file->header);
    json_decref(file->metadata);
    return 0;
}

/* --- one tensor ----------------------------------------------------------------------------- */

static bool parse_dtype(parse *p, moe_tensor *tensor, const json_t *entry)
{
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    const dtype_row *row = text == NULL ? NULL : dtype_find(text);
    if (row == NULL) {
        moe_diag_error(
            p->diag, p->file->at,
            "array \"%.60s\" has dtype \"%.20s\"; expected one such as U8, U16, U32, F32",
            tensor->name, text == NULL ? "(none)" : text);
        return false;
    }
    tensor->dtype = row->name;
    tensor->item_bytes = row->item_bytes;
    return true;
}

/* Fills shape and the size that it demands. */
static bool parse_shape(parse *p, moe_tensor *tensor, const json_t *entry)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > MOE_TENSOR_RANK_MAX) {
        moe_diag_error(
            p->diag, p->file->at,
            "array \"%.60s\" has no usable shape; expected a list of at most %d integers",
            tensor->name, MOE_TENSOR_RANK_MAX);
        return false;
    }
    tensor->rank = json_array_size(shape);
    tensor->size_bytes = tensor->item_bytes;
    for (size_t i = 0; i < tensor->rank; i++) {
        const json_t *value = json_array_get(shape, i);
        tensor->shape[i] = json_is_integer(value) ? (int64_t)json_integer_value(value) : -1;
        if (tensor->shape[i] < 0 ||
            __builtin_mul_overflow(tensor->size_bytes, tensor->shape[i], &tensor->size_bytes)) {
            moe_diag_error(p->diag, p->file->at,
                           "dimension %zu of array \"%.60s\" is negative, no integer, or so large "
                           "that the size overflows",
                           i, tensor->name);
            return false;
        }
    }
    return true;
}

static bool parse_offsets(parse *p, moe_tensor *tensor, const json_t *entry)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0);
    const json_t *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last)) {
        moe_diag_error(p->diag, p->file->at,
                       "array \"%.60s\" has no data_offsets; expected [begin, end]", tensor->name);
        return false;
    }
    const int64_t begin = json_integer_value(first);
    const int64_t end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > p->data_bytes) {
        moe_diag_error(p->diag, p->file->at,
                       "array \"%.60s\" lies at [%" PRId64 ", %" PRId64
                       "], but the file has %" PRIu64 " bytes of data; it is truncated or damaged",
                       tensor->name, begin, end, p->data_bytes);
        return false;
    }
    if ((uint64_t)(end - begin) != tensor->size_bytes) {
        moe_diag_error(p->diag, p->file->at,
                       "array \"%.60s\" has %" PRId64
                       " bytes; its shape and dtype %s need %" PRIu64,
                       tensor->name, end - begin, tensor->dtype, tensor->size_bytes);
        return false;
    }
    tensor->bytes = p->data + begin;
    return true;
}

static bool parse_tensor(parse *p, const char *name, const json_t *entry)
{
    moe_tensor *tensor = &p->file->tensors[p->file->count];
    tensor->name = name;
    if (!json_is_object(entry)) {
        moe_diag_error(p->diag, p->file->at,
                       "the header's entry \"%.60s\" is no object with dtype, shape, data_offsets",
                       name);
        return false;
    }
    if (!parse_dtype(p, tensor, entry) || !parse_shape(p, tensor, entry) ||
        !parse_offsets(p, tensor, entry))
        return false;
    p->file->count++;
    return true;
}

/* --- the header ----------------------------------------------------------------------------- */

static bool parse_metadata(parse *p, json_t *metadata)
{
    const char *key;
    json_t *value;
    if (metadata == NULL)
        return true;
    if (!json_is_object(metadata)) {
        moe_diag_error(p->diag, p->file->at, METADATA_KEY " is no object of texts");
        return false;
    }
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value)) {
            moe_diag_error(p->diag, p->file->at,
                           "\"%.60s\" in " METADATA_KEY " is no text; all values there must be",
                           key);
            return false;
        }
    }
    json_decref(p->file->metadata);
    p->file->metadata = json_incref(metadata);
    return true;
}

static int tensor_order(const void *a, const void *b)
{
    const moe_tensor *left = a;
    const moe_tensor *right = b;
    if (left->bytes != right->bytes)
        return left->bytes < right->bytes ? -1 : 1;
    return (left->size_bytes > right->size_bytes) - (left->size_bytes < right->size_bytes);
}

/* Sorted by offset, every array must begin where the one before it ended. */
static bool check_tiling(parse *p)
{
    moe_safetensors *file = p->file;
    const uint8_t *end = p->data;
    if (file->count > 0)
        qsort(file->tensors, file->count, sizeof *file->tensors, tensor_order);
    for (size_t i = 0; i < file->count; i++) {
        const moe_tensor *tensor = &file->tensors[i];
        if (tensor->bytes != end) {
            moe_diag_error(
                p->diag, file->at, "array \"%.60s\" begins at byte %td; expected %td: %s",
                tensor->name, tensor->bytes - p->data, end - p->data,
                tensor->bytes < end ? "it overlaps the one before it" : "there is a gap");
            return false;
        }
        end += tensor->size_bytes;
    }
    if (end != p->data + p->data_bytes) {
        moe_diag_error(p->diag, file->at,
                       "%" PRIu64 " bytes of data, but the arrays fill only the first %td",
                       p->data_bytes, end - p->data);
        return false;
    }
    return true;
}

static bool parse_entries(parse *p)
{
    const char *name;
    json_t *entry;
    if (!json_is_object(p->file->header)) {
        moe_diag_error(p->diag, p->file->at, "the header is no JSON object");
        return false;
    }
    p->file->tensors =
        moe_need(talloc_zero_array(p->file, moe_tensor, json_object_size(p->file->header) + 1));
    if (p->file->tensors == NULL) {
        moe_diag_error(p->diag, p->file->at, "out of memory for %zu arrays",
                       json_object_size(p->file->header));
        return false;
    }
    json_object_foreach(p->file->header, name, entry)
    {
        const bool is_metadata = strcmp(name, METADATA_KEY) == 0;
        if (is_metadata ? !parse_metadata(p, entry) : !parse_tensor(p, name, entry))
            return false;
    }
    return check_tiling(p);
}

/* The header's length, or 0 after a printed error. */
static uint64_t header_length(const uint8_t *bytes, size_t length, moe_where at, moe_diag *diag)
{
    uint64_t header = 0;
    if (length < LENGTH_BYTES) {
        moe_diag_error(diag, at, "%zu bytes are too few for a safetensors file", length);
        return 0;
    }
    memcpy(&header, bytes, LENGTH_BYTES);
    if (header == 0 || header > HEADER_LIMIT_BYTES) {
        moe_diag_error(diag, at,
                       "not a safetensors file: the first 8 bytes say that the header has %" PRIu64
                       " bytes; expected 1 to %" PRIu64,
                       header, HEADER_LIMIT_BYTES);
        return 0;
    }
    if (header > length - LENGTH_BYTES) {
        moe_diag_error(diag, at,
                       "the header should have %" PRIu64 " bytes, but the file ends after %zu",
                       header, length - LENGTH_BYTES);
        return 0;
    }
    return header;
}

static json_t *header_load(const uint8_t *bytes, uint64_t length, moe_where at, moe_diag *diag)
{
    json_error_t error;
    json_t *header = json_loadb((const char *)bytes, length, JSON_REJECT_DUPLICATES, &error);
    if (header == NULL)
        moe_diag_error(diag, at, "the header is no JSON: %s at its byte %d", error.text,
                       error.position);
    return header;
}

moe_safetensors *moe_safetensors_parse(void *owner, const uint8_t *bytes, size_t length,
                                       moe_where at, moe_diag *diag)
{
    const uint64_t header = header_length(bytes, length, at, diag);
    if (header == 0)
        return NULL;
    json_t *json = header_load(bytes + LENGTH_BYTES, header, at, diag);
    if (json == NULL)
        return NULL;
    moe_safetensors *file = moe_need(talloc_zero(owner, moe_safetensors));
    file->at = at;
    file->header = json;
    file->metadata = json_object();
    talloc_set_destructor(file, file_destroy);
    parse p = {file, bytes + LENGTH_BYTES + header, length - LENGTH_BYTES - header, diag};
    if (parse_entries(&p))
        return file;
    talloc_free(file);
    return NULL;
}

moe_safetensors *moe_safetensors_open(void *owner, const char *path, moe_where named_at,
                                      moe_diag *diag)
{
    moe_mapped_file *mapped = moe_mapped_file_open(NULL, path, named_at, diag);
    if (mapped == NULL)
        return NULL;
    moe_safetensors *file =
        moe_safetensors_parse(owner, mapped->bytes, mapped->length, mapped->at, diag);
    if (file == NULL)
        talloc_free(mapped);
    else
        talloc_steal(file, mapped);
    return file;
}

const moe_tensor *moe_safetensors_tensor(const moe_safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    }
    return NULL;
}

size_t moe_safetensors_tensor_count(const moe_safetensors *file)
{
    return file->count;
}

const moe_tensor *moe_safetensors_tensor_at(const moe_safetensors *file, size_t index)
{
    return &file->tensors[index];
}

const json_t *moe_safetensors_metadata(const moe_safetensors *file)
{
    return file->metadata;
}

moe_where moe_safetensors_where(const moe_safetensors *file)
{
    return file->at;
}

/* --- writing -------------------------------------------------------------------------------- */

static uint64_t source_bytes(const moe_tensor_source *tensor)
{
    uint64_t size = tensor->item_bytes;
    for (size_t i = 0; i < tensor->rank; i++)
        size *= (uint64_t)tensor->shape[i];
    return size;
}

static json_t *entry_json(const moe_tensor_source *tensor, uint64_t begin)
{
    json_t *shape = json_array();
    for (size_t i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensor->dtype, "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + source_bytes(tensor)));
}

static json_t *metadata_json(const json_t *metadata, const moe_tensor_source *tensors, size_t count)
{
    json_t *texts = json_copy((json_t *)metadata);
    for (size_t i = 0; i < count; i++) {
        char key[64];
        snprintf(key, sizeof key, "crc32.%s", tensors[i].name);
        json_object_set_new(texts, key, json_sprintf("%08" PRIx32, tensors[i].crc));
    }
    return texts;
}

/* The header as text, to be freed. Its length does not depend on the CRCs. */
static char *header_text(const json_t *metadata, const moe_tensor_source *tensors, size_t count)
{
    uint64_t begin = 0;
    json_t *header = json_object();
    json_object_set_new(header, METADATA_KEY, metadata_json(metadata, tensors, count));
    for (size_t i = 0; i < count; i++) {
        json_object_set_new(header, tensors[i].name, entry_json(&tensors[i], begin));
        begin += source_bytes(&tensors[i]);
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

/* Length, JSON, and blanks up to the alignment of the data. */
static bool write_header(FILE *stream, const json_t *metadata, const moe_tensor_source *tensors,
                         size_t count)
{
    char *text = header_text(metadata, tensors, count);
    if (text == NULL)
        return false;
    const uint64_t used = LENGTH_BYTES + strlen(text);
    const uint64_t padding = (DATA_ALIGNMENT - used % DATA_ALIGNMENT) % DATA_ALIGNMENT;
    const uint64_t length = strlen(text) + padding;
    fwrite(&length, LENGTH_BYTES, 1, stream);
    fprintf(stream, "%s%*s", text, (int)padding, "");
    free(text);
    return true;
}

static bool write_data(FILE *stream, moe_tensor_source *tensor)
{
    uint8_t buffer[COPY_BYTES];
    tensor->crc = 0;
    for (uint64_t left = source_bytes(tensor); left > 0;) {
        const size_t length = left < sizeof buffer ? (size_t)left : sizeof buffer;
        if (!tensor->read(tensor->state, buffer, length))
            return false;
        tensor->crc = moe_crc32(tensor->crc, buffer, length);
        fwrite(buffer, 1, length, stream);
        left -= length;
    }
    return true;
}

bool moe_safetensors_write(FILE *stream, const json_t *metadata, moe_tensor_source *tensors,
                           size_t count)
{
    if (!write_header(stream, metadata, tensors, count))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!write_data(stream, &tensors[i]))
            return false;
    }
    /* The CRCs are known only now: the header is written again over itself. */
    rewind(stream);
    const bool done = write_header(stream, metadata, tensors, count);
    fseeko(stream, 0, SEEK_END);
    return done;
}
