#include "calibrate/fit/suite_check.h"

#include "calibrate/fit/samples.h"
#include "configs/base/input.h"
#include <string.h>
#include <talloc.h>

enum { SUITE_BYTES_MAX = 64 << 20, SUITE_POINTS_MAX = 100000, HEAD_BYTES = 256, KEYS_MAX = 6 };

/* Keys of a kind that have no default. */
typedef struct needed {
    const char *integers[KEYS_MAX];
    const char *texts[KEYS_MAX];
    const char *arrays[KEYS_MAX];
    const char *objects[KEYS_MAX];
} needed;

static const needed keys[MOE_SAMPLE_KINDS] = {
    [MOE_SAMPLE_GEMM] = {.integers = {"m", "n", "k"}},
    [MOE_SAMPLE_EXPERTS] = {.integers = {"hidden", "ffn"}, .texts = {"phase"}, .arrays = {"rows"}},
    [MOE_SAMPLE_PERMUTE] = {.integers = {"tokens", "hidden", "top_k"}},
    [MOE_SAMPLE_GATE] = {.integers = {"tokens", "hidden", "experts", "top_k"}},
    [MOE_SAMPLE_ATTENTION] = {.integers = {"sequences", "sequence", "heads", "head_dim"}},
    [MOE_SAMPLE_NORM] = {.integers = {"tokens", "hidden"}},
    [MOE_SAMPLE_ADAM] = {.integers = {"parameters"}},
    [MOE_SAMPLE_HEAD] = {.integers = {"tokens", "hidden", "vocabulary"}},
    [MOE_SAMPLE_COLLECTIVE] = {.texts = {"collective"}},
    [MOE_SAMPLE_INTERFERENCE] = {.objects = {"compute", "collective"}},
    [MOE_SAMPLE_SHARING] = {.objects = {"first", "second"}},
    [MOE_SAMPLE_LAUNCH] = {.integers = {"kernels"}, .texts = {"mode"}},
    [MOE_SAMPLE_COPY] = {.integers = {"bytes"}, .texts = {"direction"}},
};

typedef struct checker {
    moe_where where;
    moe_diag *diag;
    size_t point;
    const char *kind;
} checker;

bool moe_suite_recognises(const char *text, size_t length)
{
    size_t head = length < HEAD_BYTES ? length : HEAD_BYTES;
    return memmem(text, head, "\"moecal-suite\"", strlen("\"moecal-suite\"")) != NULL;
}

/* --- points ----------------------------------------------------------------------------------- */

static void refuse(const checker *in, const char *key, const char *expected)
{
    moe_diag_error(in->diag, in->where, "point %zu (%s): \"%s\" is missing or wrong; expected %s",
                   in->point, in->kind, key, expected);
}

static void check_keys(const checker *in, const json_t *point, const needed *of)
{
    for (int i = 0; i < KEYS_MAX && of->integers[i]; i++)
        if (json_integer_value(json_object_get(point, of->integers[i])) < 1)
            refuse(in, of->integers[i], "an integer of at least 1");
    for (int i = 0; i < KEYS_MAX && of->texts[i]; i++)
        if (!json_is_string(json_object_get(point, of->texts[i])))
            refuse(in, of->texts[i], "a name");
    for (int i = 0; i < KEYS_MAX && of->arrays[i]; i++)
        if (json_array_size(json_object_get(point, of->arrays[i])) == 0)
            refuse(in, of->arrays[i], "a list with at least one number");
    for (int i = 0; i < KEYS_MAX && of->objects[i]; i++)
        if (!json_is_object(json_object_get(point, of->objects[i])))
            refuse(in, of->objects[i], "an object");
}

/* Bytes, or what they follow from. */
static void check_exchange(const checker *in, const json_t *exchange)
{
    if (!json_is_array(json_object_get(exchange, "matrix")) &&
        !json_is_array(json_object_get(exchange, "chunks")) &&
        json_integer_value(json_object_get(exchange, "bytes")) < 1)
        refuse(in, "bytes", "an integer of at least 1, or a matrix, or chunks");
}

static int kind_of(const json_t *point)
{
    const char *name = json_string_value(json_object_get(point, "kind"));
    for (int kind = 0; name && kind < MOE_SAMPLE_KINDS; kind++)
        if (strcmp(name, moe_sample_kind_names[kind]) == 0)
            return kind;
    return -1;
}

static void count_point(json_t *counts, const char *kind)
{
    json_int_t before = json_integer_value(json_object_get(counts, kind));
    json_object_set_new(counts, kind, json_integer(before + 1));
}

static void check_point(checker *in, const json_t *point, json_t *counts)
{
    int kind = kind_of(point);
    if (kind < 0) {
        moe_diag_error(in->diag, in->where,
                       "point %zu: its \"kind\" is missing or unknown; expected gemm, experts, ...",
                       in->point);
        return;
    }
    in->kind = moe_sample_kind_names[kind];
    check_keys(in, point, &keys[kind]);
    if (kind == MOE_SAMPLE_COLLECTIVE)
        check_exchange(in, point);
    count_point(counts, in->kind);
}

/* --- the file --------------------------------------------------------------------------------- */

static bool check_head(const checker *in, const json_t *suite)
{
    const char *format = json_string_value(json_object_get(suite, "format"));
    size_t points = json_array_size(json_object_get(suite, "points"));
    if (!format || strcmp(format, "moecal-suite") != 0)
        moe_diag_error(in->diag, in->where, "no suite; expected \"format\": \"moecal-suite\"");
    else if (json_integer_value(json_object_get(suite, "version")) != 1)
        moe_diag_error(in->diag, in->where, "a version of suites that is not known; expected 1");
    else if (points == 0 || points > SUITE_POINTS_MAX)
        moe_diag_error(in->diag, in->where, "%zu points; expected 1 to %d", points,
                       SUITE_POINTS_MAX);
    else
        return true;
    return false;
}

static json_t *check_points(checker *in, const json_t *suite)
{
    json_t *counts = json_object();
    const json_t *point;
    int errors = moe_diag_error_count(in->diag);
    json_array_foreach(json_object_get(suite, "points"), in->point, point)
        check_point(in, point, counts);
    if (moe_diag_error_count(in->diag) == errors)
        return counts;
    json_decref(counts);
    return NULL;
}

json_t *moe_suite_check(const char *path, moe_diag *diag)
{
    size_t length;
    json_error_t error;
    char *text = moe_input_read(diag, path, SUITE_BYTES_MAX, &length, (moe_where){0}, diag);
    if (!text)
        return NULL;
    checker in = {.where = {moe_diag_source(diag, path, NULL, 0), 0, 0}, .diag = diag};
    json_t *suite = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    json_t *counts = NULL;
    if (!suite)
        moe_diag_error(diag,
                       (moe_where){moe_diag_source(diag, path, text, length), error.line,
                                   error.column > 0 ? error.column : 1},
                       "%s; expected a suite as JSON", error.text);
    else if (check_head(&in, suite))
        counts = check_points(&in, suite);
    json_decref(suite);
    talloc_free(text);
    return counts;
}
