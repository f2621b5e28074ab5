#include "traces/npy.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char magic[] = "\x93NUMPY";

enum {
    MAGIC_BYTES = 6,
    VERSION_BYTES = 2,
    HEADER_LIMIT_BYTES = 1 << 16,
};

/* A cursor over the header's Python literal; parsing stops at the first surprise. */
typedef struct literal {
    const char *at;
    const char *end;
    bool floats; /* the array is one of 32-bit floats, not of unsigned integers */
} literal;

static void skip_blanks(literal *text)
{
    while (text->at < text->end && (*text->at == ' ' || *text->at == '\n' || *text->at == '\t'))
        text->at++;
}

/* Takes `token` if it comes next. */
static bool take(literal *text, const char *token)
{
    const size_t length = strlen(token);
    skip_blanks(text);
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, token, length) != 0)
        return false;
    text->at += length;
    return true;
}

static bool next_is(literal *text, char c)
{
    skip_blanks(text);
    return text->at < text->end && *text->at == c;
}

/* A quoted text without escapes, copied into `into`. */
static bool take_text(literal *text, char *into, size_t size)
{
    skip_blanks(text);
    if (text->at == text->end || (*text->at != '\'' && *text->at != '"'))
        return false;
    const char quote = *text->at++;
    const char *close = memchr(text->at, quote, (size_t)(text->end - text->at));
    if (close == NULL || (size_t)(close - text->at) >= size)
        return false;
    memcpy(into, text->at, (size_t)(close - text->at));
    into[close - text->at] = '\0';
    text->at = close + 1;
    return true;
}

static bool take_integer(literal *text, int64_t *value)
{
    skip_blanks(text);
    const char *start = text->at;
    *value = 0;
    for (; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++) {
        if (__builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, *text->at - '0', value))
            return false;
    }
    return text->at > start;
}

static bool take_shape(literal *text, moe_npy *array)
{
    if (!take(text, "("))
        return false;
    while (!take(text, ")")) {
        if (array->rank == MOE_NPY_RANK_MAX || !take_integer(text, &array->shape[array->rank]))
            return false;
        array->rank++;
        if (!take(text, ",") && !next_is(text, ')'))
            return false;
    }
    return true;
}

static bool take_descr(literal *text, moe_npy *array)
{
    static const struct {
        const char *name;
        size_t item_bytes;
        bool is_float;
    } types[] = {{"|u1", 1, false},
                 {"<u1", 1, false},
                 {"<u2", 2, false},
                 {"<u4", 4, false},
                 {"<f4", 4, true}};
    char name[16];
    if (!take_text(text, name, sizeof name))
        return false;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) == 0 && types[i].is_float == text->floats)
            array->item_bytes = types[i].item_bytes;
    }
    return array->item_bytes != 0;
}

/* One "key: value" of the dictionary; *what names the offender for the message. */
static bool take_entry(literal *text, moe_npy *array, unsigned *seen, const char **what)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    char key[32];
    unsigned index = 0;
    *what = "its header";
    if (!take_text(text, key, sizeof key) || !take(text, ":"))
        return false;
    while (index < 3 && strcmp(keys[index], key) != 0)
        index++;
    if (index == 3 || (*seen & 1U << index) != 0)
        return false;
    *seen |= 1U << index;
    *what = keys[index];
    if (index == 0)
        return take_descr(text, array);
    return index == 1 ? take(text, "False") : take_shape(text, array);
}

static bool take_dictionary(literal *text, moe_npy *array, const char **what)
{
    unsigned seen = 0;
    *what = "its header";
    if (!take(text, "{"))
        return false;
    while (!take(text, "}")) {
        if (!take_entry(text, array, &seen, what))
            return false;
        *what = "its header";
        if (!take(text, ",") && !next_is(text, '}'))
            return false;
    }
    skip_blanks(text);
    return seen == 7 && text->at == text->end;
}

bool moe_npy_is_magic(const uint8_t *bytes, size_t length)
{
    return length >= MAGIC_BYTES && memcmp(bytes, magic, MAGIC_BYTES) == 0;
}

/* Offset and length of the dictionary; false when the file is too short or of another format. */
static bool find_header(const uint8_t *bytes, size_t length, size_t *offset, size_t *header)
{
    const size_t version_at = MAGIC_BYTES;
    if (!moe_npy_is_magic(bytes, length) || length < version_at + VERSION_BYTES + sizeof(uint32_t))
        return false;
    const uint8_t major = bytes[version_at];
    if (major < 1 || major > 3 || bytes[version_at + 1] != 0)
        return false;
    const size_t width = major == 1 ? sizeof(uint16_t) : sizeof(uint32_t);
    uint32_t stated = 0;
    memcpy(&stated, bytes + version_at + VERSION_BYTES, width);
    *offset = version_at + VERSION_BYTES + width;
    *header = stated;
    return stated <= HEADER_LIMIT_BYTES && stated <= length - *offset;
}

static bool compute_size(moe_npy *array)
{
    array->size_bytes = array->item_bytes;
    for (size_t i = 0; i < array->rank; i++) {
        if (__builtin_mul_overflow(array->size_bytes, array->shape[i], &array->size_bytes)) {
            array->size_bytes = UINT64_MAX;
            return false;
        }
    }
    return true;
}

static bool parse(const uint8_t *bytes, size_t length, bool floats, moe_npy *array, moe_where at,
                  moe_diag *diag)
{
    size_t offset = 0;
    size_t header = 0;
    const char *what = NULL;
    *array = (moe_npy){0};
    if (!find_header(bytes, length, &offset, &header)) {
        moe_diag_error(diag, at, "no NumPy array of format 1.0, 2.0 or 3.0, or cut in its header");
        return false;
    }
    literal text = {(const char *)bytes + offset, (const char *)bytes + offset + header, floats};
    if (!take_dictionary(&text, array, &what)) {
        moe_diag_error(diag, at,
                       "cannot use %s of this NumPy array; expected {'descr': %s, "
                       "'fortran_order': False, 'shape': (...)}",
                       what, floats ? "'<f4'" : "'<u2' (or |u1, <u4)");
        return false;
    }
    if (!compute_size(array) || array->size_bytes != length - offset - header) {
        moe_diag_error(diag, at,
                       "the array's shape needs %" PRIu64 " bytes, but %zu follow the header",
                       array->size_bytes, length - offset - header);
        return false;
    }
    array->bytes = bytes + offset + header;
    return true;
}

bool moe_npy_parse(const uint8_t *bytes, size_t length, moe_npy *array, moe_where at,
                   moe_diag *diag)
{
    return parse(bytes, length, false, array, at, diag);
}

bool moe_npy_parse_floats(const uint8_t *bytes, size_t length, moe_npy *array, moe_where at,
                          moe_diag *diag)
{
    return parse(bytes, length, true, array, at, diag);
}

void moe_npy_read(const moe_npy *array, int64_t first, size_t count, uint32_t *values)
{
    const uint8_t *from = array->bytes + (size_t)first * array->item_bytes;
    memset(values, 0, count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        memcpy(&values[i], from + i * array->item_bytes, array->item_bytes);
}
