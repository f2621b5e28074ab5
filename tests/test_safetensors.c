/* The container: what is written is read back; whatever is broken is refused, never a crash. */
#include "tests/trace_fixture.h"
#include "traces/safetensors.h"

/* Bytes to be written as an array, handed out in order. */
typedef struct supply {
    const uint8_t *bytes;
    size_t left;
} supply;

static bool supply_read(void *state, uint8_t *bytes, size_t length)
{
    supply *from = state;
    if (length > from->left)
        return false;
    memcpy(bytes, from->bytes, length);
    from->bytes += length;
    from->left -= length;
    return true;
}

static const uint8_t small_bytes[6] = {2, 3, 5, 7, 11, 250};
static const uint16_t wide_words[3] = {258, 4097, 65500};

/* A whole file with two arrays, in memory owned by `owner`. */
static uint8_t *make_file(void *owner, size_t *length)
{
    supply small = {small_bytes, sizeof small_bytes};
    supply wide = {(const uint8_t *)wide_words, sizeof wide_words};
    moe_tensor_source sources[] = {
        {.name = "small", .dtype = "U8", .item_bytes = 1, .rank = 2, .shape = {2, 3}},
        {.name = "wide", .dtype = "U16", .item_bytes = 2, .rank = 1, .shape = {3}},
    };
    json_t *metadata = json_pack("{s:s}", "who", "me");
    FILE *stream = tmpfile();
    sources[0].read = sources[1].read = supply_read;
    sources[0].state = &small;
    sources[1].state = &wide;
    assert_true(moe_safetensors_write(stream, metadata, sources, 2));
    json_decref(metadata);
    *length = (size_t)ftello(stream);
    uint8_t *bytes = talloc_array(owner, uint8_t, *length);
    rewind(stream);
    assert_int_equal(fread(bytes, 1, *length, stream), *length);
    fclose(stream);
    return bytes;
}

static moe_safetensors *parse(trace_fixture *fixture, const uint8_t *bytes, size_t length)
{
    return moe_safetensors_parse(fixture->owner, bytes, length, (moe_where){0},
                                 fixture_diag(fixture));
}

static void test_round_trip(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    size_t length;
    const uint8_t *bytes = make_file(fixture.owner, &length);
    moe_safetensors *file = parse(&fixture, bytes, length);
    assert_non_null(file);
    assert_int_equal(moe_safetensors_tensor_count(file), 2);
    const moe_tensor *small = moe_safetensors_tensor(file, "small");
    const moe_tensor *wide = moe_safetensors_tensor(file, "wide");
    assert_int_equal(small->rank, 2);
    assert_int_equal(small->shape[0], 2);
    assert_int_equal(small->shape[1], 3);
    assert_memory_equal(small->bytes, small_bytes, sizeof small_bytes);
    assert_string_equal(wide->dtype, "U16");
    assert_memory_equal(wide->bytes, wide_words, sizeof wide_words);
    assert_null(moe_safetensors_tensor(file, "absent"));
    const json_t *metadata = moe_safetensors_metadata(file);
    assert_string_equal(json_string_value(json_object_get(metadata, "who")), "me");
    fixture_close(&fixture);
}

/* The header's length and blanks put the first array at a multiple of 64, as other tools like it.
 */
static void test_alignment(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    size_t length;
    uint64_t header;
    const uint8_t *bytes = make_file(fixture.owner, &length);
    memcpy(&header, bytes, sizeof header);
    assert_int_equal((header + 8) % 64, 0);
    assert_int_equal(length, 8 + header + sizeof small_bytes + sizeof wide_words);
    fixture_close(&fixture);
}

/* 0xcbf43926 is the check value of CRC-32/ISO-HDLC in every catalogue of CRCs. */
static void test_crc(void **state)
{
    (void)state;
    char text[9];
    trace_fixture fixture = fixture_open();
    size_t length;
    assert_int_equal(moe_crc32(0, "123456789", 9), 0xcbf43926);
    assert_int_equal(moe_crc32(moe_crc32(0, "1234", 4), "56789", 5), 0xcbf43926);
    const uint8_t *bytes = make_file(fixture.owner, &length);
    const json_t *metadata = moe_safetensors_metadata(parse(&fixture, bytes, length));
    snprintf(text, sizeof text, "%08x", moe_crc32(0, small_bytes, sizeof small_bytes));
    assert_string_equal(json_string_value(json_object_get(metadata, "crc32.small")), text);
    snprintf(text, sizeof text, "%08x", moe_crc32(0, wide_words, sizeof wide_words));
    assert_string_equal(json_string_value(json_object_get(metadata, "crc32.wide")), text);
    fixture_close(&fixture);
}

/* A copy whose end is the end of its memory, so that the sanitizer sees every byte read beyond it.
 */
static uint8_t *exact_copy(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = malloc(length > 0 ? length : 1);
    memcpy(copy, bytes, length);
    return copy;
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    size_t length;
    const uint8_t *bytes = make_file(fixture.owner, &length);
    for (size_t cut = 0; cut < length; cut++) {
        uint8_t *copy = exact_copy(bytes, cut);
        assert_null(parse(&fixture, copy, cut));
        free(copy);
    }
    assert_int_equal(moe_diag_error_count(fixture.diag), length);
    fixture_close(&fixture);
}

/* Any one byte changed to any of several values: refused, or arrays that lie inside the file. */
static void test_every_flipped_byte_is_safe(void **state)
{
    (void)state;
    static const uint8_t values[] = {0, '0', '9', '-', '"', '{', '[', ',', 0x80, 0xff};
    trace_fixture fixture = fixture_open();
    size_t length;
    size_t refused = 0;
    uint8_t *bytes = make_file(fixture.owner, &length);
    for (size_t i = 0; i < length; i++) {
        for (size_t v = 0; v < sizeof values; v++) {
            const uint8_t kept = bytes[i];
            bytes[i] = values[v];
            moe_safetensors *file = parse(&fixture, bytes, length);
            refused += file == NULL;
            for (size_t t = 0; file != NULL && t < moe_safetensors_tensor_count(file); t++) {
                const moe_tensor *tensor = moe_safetensors_tensor_at(file, t);
                assert_true(tensor->bytes >= bytes);
                assert_true(tensor->bytes + tensor->size_bytes <= bytes + length);
            }
            talloc_free(file);
            bytes[i] = kept;
        }
    }
    assert_true(refused > length); /* most of the header is vital */
    fixture_close(&fixture);
}

/* A header alone, given as text, followed by `data` zero bytes. */
static moe_safetensors *parse_text(trace_fixture *fixture, const char *header, size_t data)
{
    const uint64_t length = strlen(header);
    uint8_t *bytes = talloc_zero_array(fixture->owner, uint8_t, 8 + length + data);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    return parse(fixture, bytes, 8 + length + data);
}

#define ENTRY(dtype, shape, offsets)                                                               \
    "{\"a\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}}"

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *message; /* NULL: fine */
    } rows[] = {
        {ENTRY("U8", "2,3", "0,6"), 6, NULL},
        {ENTRY("F64", "", "0,8"), 8, NULL}, /* a scalar */
        {ENTRY("U8", "0,3", "0,0"), 0, NULL},
        {"{}", 0, NULL},
        {"{}", 1, "fill only the first 0"},
        {ENTRY("U16", "2,3", "0,6"), 6, "need 12"},
        {ENTRY("U8", "2,3", "0,6"), 5, "truncated"},
        {ENTRY("U8", "2,3", "6,0"), 6, "truncated or damaged"},
        {ENTRY("U8", "2,3", "-6,0"), 6, "truncated or damaged"},
        {ENTRY("U8", "2,3", "0"), 6, "expected [begin, end]"},
        {ENTRY("U8", "2,3", "0,6.0"), 6, "expected [begin, end]"},
        {ENTRY("U8", "4294967296,4294967296", "0,0"), 0, "overflows"},
        {ENTRY("U64", "2305843009213693952", "0,0"), 0, "overflows"},
        {ENTRY("U8", "9223372036854775808", "0,0"), 0, "no JSON"},
        {ENTRY("U8", "1,1,1,1,1,1,1,1,6", "0,6"), 6, "at most 8"},
        {ENTRY("U9", "6", "0,6"), 6, "dtype \"U9\""},
        {"{\"a\":7}", 0, "no object"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trace_fixture fixture = fixture_open();
        const moe_safetensors *file = parse_text(&fixture, rows[i].header, rows[i].data);
        assert_int_equal(file == NULL, rows[i].message != NULL);
        if (file == NULL)
            program_contains(fixture_messages(&fixture), rows[i].message);
        fixture_close(&fixture);
    }
}

static void test_paths_that_are_no_files(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *message;
    } rows[] = {
        {"/", "a folder"},
        {"/dev/zero", "no regular file"},
        {"/nowhere/at/all", "No such file"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trace_fixture fixture = fixture_open();
        assert_null(moe_safetensors_open(fixture.owner, rows[i].path, (moe_where){0},
                                         fixture_diag(&fixture)));
        program_contains(fixture_messages(&fixture), rows[i].message);
        program_contains(fixture_messages(&fixture), rows[i].path);
        fixture_close(&fixture);
    }
}

/* A source that runs dry is an error, not a short file. */
static void test_short_source(void **state)
{
    (void)state;
    supply small = {small_bytes, 5};
    moe_tensor_source source = {
        .name = "a", .dtype = "U8", .item_bytes = 1, .rank = 1, .shape = {6}};
    json_t *metadata = json_object();
    FILE *stream = tmpfile();
    source.read = supply_read;
    source.state = &small;
    assert_false(moe_safetensors_write(stream, metadata, &source, 1));
    fclose(stream);
    json_decref(metadata);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_every_flipped_byte_is_safe),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_paths_that_are_no_files),
        cmocka_unit_test(test_short_source),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
