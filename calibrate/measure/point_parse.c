/* A point from JSON, which may be anybody's: everything is checked, sizes before memory is taken. */
#include "calibrate/measure/point.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t most = (int64_t)1 << 31;       /* rows, widths, tokens */
static const int64_t most_bytes = (int64_t)1 << 40; /* of a buffer */

/* The first error is kept; after it, every getter answers 0. */
typedef struct reader {
    const char *inside; /* "collective.", "" */
    char *error;
    size_t error_size;
    bool failed;
} reader;

__attribute__((format(printf, 2, 3))) static void fail(reader *in, const char *format, ...)
{
    va_list arguments;
    if (in->failed)
        return;
    in->failed = true;
    va_start(arguments, format);
    vsnprintf(in->error, in->error_size, format, arguments);
    va_end(arguments);
}

static const char *type_name(const json_t *value)
{
    static const char *const names[] = {"an object", "an array",   "a string",   "an integer",
                                        "a real",    "true/false", "true/false", "null"};
    return value ? names[json_typeof(value)] : "missing";
}

static int64_t checked_integer(reader *in, const json_t *value, const char *key, int64_t low,
                               int64_t high)
{
    if (!json_is_integer(value)) {
        fail(in, "\"%s%s\" is %s, expected an integer", in->inside, key, type_name(value));
        return 0;
    }
    json_int_t number = json_integer_value(value);
    if (number < low || number > high) {
        fail(in, "\"%s%s\" is %" JSON_INTEGER_FORMAT ", expected %" PRId64 " to %" PRId64,
             in->inside, key, number, low, high);
        return 0;
    }
    return number;
}

static int64_t get_integer(reader *in, const json_t *object, const char *key, int64_t low,
                           int64_t high)
{
    return checked_integer(in, json_object_get(object, key), key, low, high);
}

static int64_t get_optional(reader *in, const json_t *object, const char *key, int64_t low,
                            int64_t high, int64_t otherwise)
{
    return json_object_get(object, key) ? get_integer(in, object, key, low, high) : otherwise;
}

static bool get_bool(reader *in, const json_t *object, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(object, key);
    if (value && !json_is_boolean(value))
        fail(in, "\"%s%s\" is %s, expected true or false", in->inside, key, type_name(value));
    return value ? json_is_true(value) : otherwise;
}

/* "a, b or c" */
static void list_names(const char *const *names, char *text, size_t size)
{
    size_t length = 0;
    text[0] = '\0';
    for (int i = 0; names[i] && length < size; i++) {
        const char *between = i == 0 ? "" : names[i + 1] ? ", " : " or ";
        length += (size_t)snprintf(text + length, size - length, "%s%s", between, names[i]);
    }
}

/* Index in `names`; `otherwise` where the key is absent, unless that is -1. */
static int get_name(reader *in, const json_t *object, const char *key, const char *const *names,
                    int otherwise)
{
    const json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    char expected[256];
    if (!value && otherwise >= 0)
        return otherwise;
    for (int i = 0; text && names[i]; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    list_names(names, expected, sizeof expected);
    if (text)
        fail(in, "\"%s%s\" is \"%.40s\", expected %s", in->inside, key, text, expected);
    else
        fail(in, "\"%s%s\" is %s, expected %s", in->inside, key, type_name(value), expected);
    return 0;
}

/* Its size, 1 to `high`; 0 after an error. */
static size_t array_size(reader *in, const json_t *value, const char *key, size_t high)
{
    size_t size = json_array_size(value);
    if (!json_is_array(value))
        fail(in, "\"%s%s\" is %s, expected an array", in->inside, key, type_name(value));
    else if (size < 1 || size > high)
        fail(in, "\"%s%s\" has %zu elements, expected 1 to %zu", in->inside, key, size, high);
    return in->failed ? 0 : size;
}

static void *take(reader *in, size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        fail(in, "out of memory");
    return memory;
}

/* --- exchanges -------------------------------------------------------------------------------- */

static void parse_row(reader *in, const json_t *row, int64_t *target, size_t ranks)
{
    if (array_size(in, row, "matrix", MOECAL_MAX_RANKS) != ranks) {
        fail(in, "\"%smatrix\" is not square: a row has %zu elements, expected %zu", in->inside,
             json_array_size(row), ranks);
        return;
    }
    for (size_t i = 0; i < ranks; i++)
        target[i] = checked_integer(in, json_array_get(row, i), "matrix", 0, most_bytes);
}

static void parse_matrix(reader *in, const json_t *object, moecal_exchange *exchange)
{
    const json_t *matrix = json_object_get(object, "matrix");
    size_t ranks = array_size(in, matrix, "matrix", MOECAL_MAX_RANKS);
    int64_t total = 0;
    exchange->matrix = take(in, ranks * ranks, sizeof *exchange->matrix);
    if (in->failed)
        return;
    exchange->matrix_ranks = (int)ranks;
    for (size_t i = 0; i < ranks && !in->failed; i++)
        parse_row(in, json_array_get(matrix, i), exchange->matrix + i * ranks, ranks);
    for (size_t i = 0; i < ranks * ranks; i++)
        total += exchange->matrix[i]; /* at most 2^60 */
    if (!in->failed && total == 0)
        fail(in, "\"%smatrix\" holds nothing but zeros", in->inside);
    if (exchange->bytes == 0)
        exchange->bytes = (total + (int64_t)ranks - 1) / (int64_t)ranks;
}

static void parse_chunk(reader *in, const json_t *object, moecal_chunk *chunk)
{
    const json_t *want = json_object_get(object, "want");
    if (!json_is_object(object)) {
        fail(in, "a chunk is %s, expected an object", type_name(object));
        return;
    }
    chunk->owner = (int)get_integer(in, object, "owner", 0, MOECAL_MAX_RANKS - 1);
    size_t count = array_size(in, want, "want", MOECAL_MAX_RANKS);
    chunk->want = take(in, count, sizeof *chunk->want);
    for (size_t i = 0; i < count && !in->failed; i++) {
        chunk->want[i] =
            (int)checked_integer(in, json_array_get(want, i), "want", 0, MOECAL_MAX_RANKS - 1);
        if (!in->failed && chunk->want[i] == chunk->owner)
            fail(in, "\"%swant\" names the owner, %d, who has the chunk", in->inside, chunk->owner);
        for (size_t j = 0; j < i; j++)
            if (!in->failed && chunk->want[j] == chunk->want[i])
                fail(in, "\"%swant\" names %d twice", in->inside, chunk->want[i]);
        chunk->want_count = (int)i + 1;
    }
}

static void parse_chunks(reader *in, const json_t *object, moecal_exchange *exchange)
{
    const json_t *chunks = json_object_get(object, "chunks");
    size_t count = array_size(in, chunks, "chunks", MOECAL_MAX_CHUNKS);
    exchange->chunk_bytes = get_integer(in, object, "chunk_bytes", 1, most_bytes);
    exchange->chunks = take(in, count, sizeof *exchange->chunks);
    for (size_t i = 0; i < count && !in->failed; i++) {
        parse_chunk(in, json_array_get(chunks, i), &exchange->chunks[i]);
        exchange->chunk_count = (int)i + 1;
    }
    if (!in->failed && exchange->chunk_bytes > most_bytes / (int64_t)count)
        fail(in, "%zu chunks of %" PRId64 " bytes are more than %" PRId64 " bytes", count,
             exchange->chunk_bytes, most_bytes);
    if (!in->failed && exchange->bytes == 0)
        exchange->bytes = exchange->chunk_bytes * (int64_t)count;
}

static void parse_exchange(reader *in, const json_t *object, moecal_exchange *exchange)
{
    bool matrix = json_object_get(object, "matrix"), chunks = json_object_get(object, "chunks");
    int collective = get_name(in, object, "collective", moecal_collective_names, -1);
    exchange->collective = (moecal_collective)collective;
    if (matrix && collective != MOECAL_ALL_TO_ALL)
        fail(in, "\"%smatrix\" belongs to all_to_all alone", in->inside);
    if (chunks && collective != MOECAL_BROADCAST && collective != MOECAL_REDUCE)
        fail(in, "\"%schunks\" belong to broadcast and reduce alone", in->inside);
    if (matrix || chunks)
        exchange->bytes = get_optional(in, object, "bytes", 1, most_bytes, 0);
    else
        exchange->bytes = get_integer(in, object, "bytes", 1, most_bytes);
    if (matrix && !in->failed)
        parse_matrix(in, object, exchange);
    if (chunks && !in->failed)
        parse_chunks(in, object, exchange);
}

static void parse_exchange_of(reader *in, const json_t *object, const char *key,
                              moecal_exchange *exchange)
{
    static const char *const names[] = {"collective", "first", "second"};
    static const char *const prefixes[] = {"collective.", "first.", "second."};
    const json_t *inner = json_object_get(object, key);
    if (!json_is_object(inner)) {
        fail(in, "\"%s\" is %s, expected an object", key, type_name(inner));
        return;
    }
    for (int i = 0; i < 3; i++)
        if (strcmp(key, names[i]) == 0)
            in->inside = prefixes[i];
    parse_exchange(in, inner, exchange);
    in->inside = "";
}

static int highest_rank(const moecal_exchange *exchange)
{
    int highest = exchange->matrix ? exchange->matrix_ranks - 1 : 0;
    for (int i = 0; i < exchange->chunk_count; i++) {
        const moecal_chunk *chunk = &exchange->chunks[i];
        highest = chunk->owner > highest ? chunk->owner : highest;
        for (int j = 0; j < chunk->want_count; j++)
            highest = chunk->want[j] > highest ? chunk->want[j] : highest;
    }
    return highest;
}

/* A matrix says how many ranks take part; chunks name some of them. */
static void check_ranks(reader *in, moecal_point *point, const moecal_exchange *exchange)
{
    if (exchange->matrix) {
        if (point->ranks == 0)
            point->ranks = exchange->matrix_ranks;
        if (point->ranks != exchange->matrix_ranks)
            fail(in, "a matrix of %d ranks, but \"ranks\" are %d", exchange->matrix_ranks,
                 point->ranks);
    }
    if (point->ranks > 0 && highest_rank(exchange) >= point->ranks)
        fail(in, "rank %d in \"chunks\", but \"ranks\" are %d", highest_rank(exchange),
             point->ranks);
}

int moecal_point_least_ranks(const moecal_point *point)
{
    if (!moecal_point_is_collective(point))
        return 1;
    int first = highest_rank(&point->first) + 1, second = highest_rank(&point->second) + 1;
    int least = first > second ? first : second;
    least = point->ranks > least ? point->ranks : least;
    return least > 2 ? least : 2;
}

/* --- computation ------------------------------------------------------------------------------ */

static void parse_gemm(reader *in, const json_t *object, moecal_gemm *gemm)
{
    gemm->m = get_integer(in, object, "m", 1, most);
    gemm->n = get_integer(in, object, "n", 1, most);
    gemm->k = get_integer(in, object, "k", 1, most);
}

static void parse_experts(reader *in, const json_t *object, moecal_point *point)
{
    static const char *const distributions[] = {"uniform", "recorded", "power_law", NULL};
    const json_t *rows = json_object_get(object, "rows");
    int64_t total = 0;
    point->phase = (moecal_phase)get_name(in, object, "phase", moecal_phase_names, -1);
    if (point->phase == MOECAL_BACKWARD)
        fail(in, "\"phase\" is \"backward\", expected forward, input_gradient or weight_gradient");
    point->hidden = get_integer(in, object, "hidden", 1, most);
    point->ffn = get_integer(in, object, "ffn", 1, most);
    point->gated = get_bool(in, object, "gated", false);
    point->grouped = get_bool(in, object, "grouped", true);
    point->distribution = distributions[get_name(in, object, "distribution", distributions, 1)];
    size_t count = array_size(in, rows, "rows", MOECAL_MAX_EXPERTS);
    point->rows = take(in, count, sizeof *point->rows);
    for (size_t i = 0; i < count && !in->failed; i++)
        total += point->rows[i] = checked_integer(in, json_array_get(rows, i), "rows", 0, most);
    point->experts = (int)count;
    if (!in->failed && total == 0)
        fail(in, "\"rows\" hold nothing but zeros");
}

static void parse_attention(reader *in, const json_t *object, moecal_point *point)
{
    point->phase = (moecal_phase)get_name(in, object, "phase", moecal_phase_names, MOECAL_FORWARD);
    if (point->phase != MOECAL_FORWARD && point->phase != MOECAL_BACKWARD)
        fail(in, "\"phase\" is \"%s\", expected forward or backward",
             moecal_phase_names[point->phase]);
    point->sequences = get_integer(in, object, "sequences", 1, most);
    point->sequence = get_integer(in, object, "sequence", 1, most);
    point->heads = get_integer(in, object, "heads", 1, 65536);
    point->kv_heads = get_optional(in, object, "kv_heads", 1, 65536, point->heads);
    point->head_dim = get_integer(in, object, "head_dim", 1, 65536);
    point->causal = get_bool(in, object, "causal", true);
    if (!in->failed && point->heads % point->kv_heads != 0)
        fail(in, "\"heads\" are %" PRId64 ", expected a multiple of \"kv_heads\", %" PRId64,
             point->heads, point->kv_heads);
}

static void parse_tokens(reader *in, const json_t *object, moecal_point *point)
{
    point->tokens = get_integer(in, object, "tokens", 1, most);
    point->hidden = get_integer(in, object, "hidden", 1, most);
    if (point->kind == MOECAL_GATE)
        point->experts = (int)get_integer(in, object, "experts", 1, MOECAL_MAX_EXPERTS);
    if (point->kind == MOECAL_GATE || point->kind == MOECAL_PERMUTE)
        point->top_k = get_integer(in, object, "top_k", 1, MOECAL_MAX_EXPERTS);
    if (point->kind == MOECAL_HEAD)
        point->vocabulary = get_integer(in, object, "vocabulary", 1, most);
    if (!in->failed && point->kind == MOECAL_GATE && point->top_k > point->experts)
        fail(in, "\"top_k\" is %" PRId64 ", expected at most \"experts\", %d", point->top_k,
             point->experts);
}

static void parse_interference(reader *in, const json_t *object, moecal_point *point)
{
    const json_t *compute = json_object_get(object, "compute"),
                 *share = json_object_get(object, "sm_share");
    if (!json_is_object(compute)) {
        fail(in, "\"compute\" is %s, expected an object", type_name(compute));
        return;
    }
    in->inside = "compute.";
    parse_gemm(in, compute, &point->gemm);
    point->dtype = (moecal_dtype)get_name(in, compute, "dtype", moecal_dtype_names, point->dtype);
    in->inside = "";
    parse_exchange_of(in, object, "collective", &point->first);
    point->sm_share = json_number_value(share);
    if (share && !(json_is_number(share) && point->sm_share > 0 && point->sm_share <= 1))
        fail(in, "\"sm_share\" is not a number above 0 and up to 1");
}

static void parse_launch(reader *in, const json_t *object, moecal_point *point)
{
    point->mode = get_name(in, object, "mode", moecal_mode_names, -1);
    point->kernels = get_integer(in, object, "kernels", 1, 1000000);
}

static void parse_copy(reader *in, const json_t *object, moecal_point *point)
{
    static const char *const memories[] = {"pageable", "pinned", NULL};
    point->direction = get_name(in, object, "direction", moecal_direction_names, -1);
    point->pinned = get_name(in, object, "memory", memories, 0) == 1;
    point->bytes = get_integer(in, object, "bytes", 1, most_bytes);
}

/* --- the point -------------------------------------------------------------------------------- */

static void parse_kind(reader *in, const json_t *object, moecal_point *point)
{
    switch (point->kind) {
    case MOECAL_GEMM:
        parse_gemm(in, object, &point->gemm);
        break;
    case MOECAL_EXPERTS:
        parse_experts(in, object, point);
        break;
    case MOECAL_ATTENTION:
        parse_attention(in, object, point);
        break;
    case MOECAL_ADAM:
        point->parameters = get_integer(in, object, "parameters", 1, most_bytes / 32);
        break;
    case MOECAL_COLLECTIVE:
        parse_exchange(in, object, &point->first);
        break;
    case MOECAL_INTERFERENCE:
        parse_interference(in, object, point);
        break;
    case MOECAL_SHARING:
        parse_exchange_of(in, object, "first", &point->first);
        if (!in->failed)
            parse_exchange_of(in, object, "second", &point->second);
        break;
    case MOECAL_LAUNCH:
        parse_launch(in, object, point);
        break;
    case MOECAL_COPY:
        parse_copy(in, object, point);
        break;
    default:
        parse_tokens(in, object, point);
    }
}

static void parse_point(reader *in, const json_t *object, moecal_point *point)
{
    point->kind = (moecal_kind)get_name(in, object, "kind", moecal_kind_names, -1);
    point->dtype = (moecal_dtype)get_name(in, object, "dtype", moecal_dtype_names, MOECAL_FP32);
    if (in->failed)
        return;
    parse_kind(in, object, point);
    if (moecal_point_is_collective(point)) {
        point->ranks = (int)get_optional(in, object, "ranks", 2, MOECAL_MAX_RANKS, 0);
        check_ranks(in, point, &point->first);
        check_ranks(in, point, &point->second);
    }
    if (!in->failed && moecal_point_bytes(point) > (double)most_bytes)
        fail(in, "it would touch %.3g bytes, expected at most %.3g", moecal_point_bytes(point),
             (double)most_bytes);
}

moecal_point *moecal_point_parse(const json_t *object, char *error, size_t error_size)
{
    reader in = {.inside = "", .error = error, .error_size = error_size};
    if (!json_is_object(object)) {
        fail(&in, "a point is %s, expected an object", type_name(object));
        return NULL;
    }
    moecal_point *point = calloc(1, sizeof *point);
    if (!point) {
        fail(&in, "out of memory");
        return NULL;
    }
    parse_point(&in, object, point);
    if (in.failed) {
        moecal_point_free(point);
        return NULL;
    }
    moecal_point_name(point);
    return point;
}
