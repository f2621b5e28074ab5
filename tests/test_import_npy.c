/* Importing counts.npy with meta.json: the array's format, what meta.json must say, and that a
 * recording which contradicts itself is refused. */
#include "tests/trace_fixture.h"
#include "traces/importer.h"
#include "traces/npy.h"

/* A .npy file of version 1 or 2 in memory: `dictionary` as NumPy would write it, then the data. */
static uint8_t *make_npy(void *owner, int version, const char *dictionary, const void *data,
                         size_t data_bytes, size_t *length)
{
    const size_t prefix = version == 1 ? 10 : 12;
    const uint32_t header = (uint32_t)strlen(dictionary);
    *length = prefix + header + data_bytes;
    uint8_t *bytes = talloc_zero_array(owner, uint8_t, *length);
    memcpy(bytes, "\x93NUMPY", 6);
    bytes[6] = (uint8_t)version;
    memcpy(bytes + 8, &header, prefix - 8);
    memcpy(bytes + prefix, dictionary, header);
    memcpy(bytes + prefix + header, data, data_bytes);
    return bytes;
}

static bool parse(trace_fixture *fixture, const uint8_t *bytes, size_t length, moe_npy *array)
{
    return moe_npy_parse(bytes, length, array, (moe_where){0}, fixture_diag(fixture));
}

#define DICTIONARY(descr, order, shape)                                                            \
    "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }"

static const uint16_t words[6] = {1, 2, 300, 4, 65535, 6};

static void test_versions(void **state)
{
    (void)state;
    for (int version = 1; version <= 3; version++) {
        trace_fixture fixture = fixture_open();
        size_t length;
        moe_npy array;
        uint32_t values[4];
        const uint8_t *bytes =
            make_npy(fixture.owner, version, DICTIONARY("<u2", "False", "(2, 3)"), words,
                     sizeof words, &length);
        assert_true(parse(&fixture, bytes, length, &array));
        assert_int_equal(array.rank, 2);
        assert_int_equal(array.shape[0], 2);
        assert_int_equal(array.shape[1], 3);
        moe_npy_read(&array, 2, 4, values);
        assert_int_equal(values[0], 300);
        assert_int_equal(values[2], 65535);
        fixture_close(&fixture);
    }
}

static void test_headers(void **state)
{
    (void)state;
    static const struct {
        const char *dictionary;
        size_t data_bytes;
        bool fine;
    } rows[] = {
        {DICTIONARY("<u2", "False", "(6,)") "   \n", 12, true},
        {"{\"shape\": (3,2,), \"descr\": \"<u2\", \"fortran_order\": False}", 12, true},
        {DICTIONARY("|u1", "False", "(3, 4)"), 12, true},
        {DICTIONARY("<u4", "False", "(3,)"), 12, true},
        {DICTIONARY("<u2", "False", "(7,)"), 12, false},
        {DICTIONARY("<u2", "False", "(5,)"), 12, false},
        {DICTIONARY(">u2", "False", "(6,)"), 12, false},
        {DICTIONARY("<i2", "False", "(6,)"), 12, false},
        {DICTIONARY("<f4", "False", "(3,)"), 12, false},
        {DICTIONARY("|O", "False", "(6,)"), 12, false}, /* pickled objects */
        {DICTIONARY("<u2", "True", "(2, 3)"), 12, false},
        {DICTIONARY("<u2", "False", "(2, -3)"), 12, false},
        {DICTIONARY("<u2", "False", "(6,) + (1,)"), 12, false},
        {DICTIONARY("<u2", "False", "(4294967296, 4294967296, 4294967296)"), 12, false},
        {DICTIONARY("<u2", "False", "(99999999999999999999,)"), 12, false},
        {DICTIONARY("<u2", "False", "(1,1,1,1,1,1,1,1,6)"), 12, false},
        {"{'descr': '<u2', 'shape': (6,)}", 12, false},
        {"{'descr': '<u2', 'descr': '<u2', 'fortran_order': False, 'shape': (6,)}", 12, false},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (6,), 'more': 1}", 12, false},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (6,)", 12, false},
        {"", 12, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trace_fixture fixture = fixture_open();
        size_t length;
        moe_npy array;
        const uint8_t *bytes =
            make_npy(fixture.owner, 1, rows[i].dictionary, words, rows[i].data_bytes, &length);
        if (parse(&fixture, bytes, length, &array) != rows[i].fine)
            fail_msg("%s: %s", rows[i].dictionary, fixture_messages(&fixture));
        assert_int_equal(moe_diag_error_count(fixture_diag(&fixture)), rows[i].fine ? 0 : 1);
        fixture_close(&fixture);
    }
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    size_t length;
    moe_npy array;
    const uint8_t *bytes = make_npy(fixture.owner, 2, DICTIONARY("<u2", "False", "(2, 3)"), words,
                                    sizeof words, &length);
    for (size_t cut = 0; cut < length; cut++) {
        uint8_t *copy = malloc(cut + 1);
        memcpy(copy, bytes, cut);
        assert_false(parse(&fixture, copy, cut, &array));
        free(copy);
    }
    fixture_close(&fixture);
}

/* --- importing ------------------------------------------------------------------------------ */

/* [2 iterations][1 layer][2 sources][3 experts]; every source has 3 tokens of top-2. */
static const uint16_t recorded[12] = {3, 2, 1, 1, 3, 2, 2, 3, 1, 0, 3, 3};

static void write_bytes(const char *name, const void *bytes, size_t length)
{
    char *path = program_path(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    free(path);
}

static void write_recording(trace_fixture *fixture, const uint16_t *counts, const char *meta)
{
    size_t length;
    const uint8_t *bytes = make_npy(fixture->owner, 1, DICTIONARY("<u2", "False", "(2, 1, 2, 3)"),
                                    counts, sizeof recorded, &length);
    char *path = program_path("meta.json");
    write_bytes("counts.npy", bytes, length);
    program_write(path, meta);
    free(path);
}

/* Imports the test's folder into imported.safetensors. */
static moe_status import(trace_fixture *fixture)
{
    char *output = program_path("imported.safetensors");
    remove(output);
    const moe_status status =
        moe_importer_npy.import(program_folder, output, 0, fixture_diag(fixture));
    assert_int_equal(status == MOE_OK, access(output, F_OK) == 0); /* whole or nothing */
    free(output);
    return status;
}

static void test_constant_top_k(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    uint32_t counts[6];
    uint32_t tokens[2];
    write_recording(&fixture, recorded,
                    "{\"model\": \"toy\", \"top_k\": 2, \"tokens_per_rank\": 3, \"seed\": 7,"
                    " \"wall_seconds\": 3.5, \"framework\": \"none\\nat all\"}");
    assert_true(moe_importer_npy.recognise(program_folder));
    assert_int_equal(import(&fixture), MOE_OK);
    const moe_trace *trace = fixture_reopen(&fixture, "imported.safetensors");
    const moe_trace_info *info = moe_trace_get_info(trace);
    assert_int_equal(info->top_k, 2);
    assert_false(info->tokens_recorded);
    assert_false(info->synthetic);
    assert_string_equal(info->origin, "toy; none at all");
    assert_int_equal(json_integer_value(json_object_get(info->provenance, "seed")), 7);
    assert_null(json_object_get(info->provenance, "wall_seconds"));
    moe_trace_read(trace, 1, 0, 0, counts, tokens);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(counts[i], recorded[6 + i]);
    assert_int_equal(tokens[0], 3);
    assert_int_equal(tokens[1], 3);
    assert_int_equal(moe_trace_check(trace, fixture.diag), MOE_OK);
    fixture_close(&fixture);
}

/* With null experts the assignments of a token vary, whatever top_k says. */
static void test_null_experts(void **state)
{
    (void)state;
    static const uint16_t sparse[12] = {3, 2, 1, 0, 0, 0, 2, 0, 1, 0, 1, 0};
    trace_fixture fixture = fixture_open();
    uint32_t counts[6];
    uint32_t tokens[2];
    write_recording(&fixture, sparse,
                    "{\"top_k\": 2, \"tokens_per_rank\": 5, \"null_experts\": 4}");
    assert_int_equal(import(&fixture), MOE_OK);
    const moe_trace *trace = fixture_reopen(&fixture, "imported.safetensors");
    const moe_trace_info *info = moe_trace_get_info(trace);
    assert_int_equal(info->top_k, 0);
    assert_true(info->tokens_recorded);
    assert_non_null(json_object_get(info->provenance, "null_experts_note"));
    moe_trace_read(trace, 0, 0, 0, counts, tokens);
    assert_int_equal(tokens[1], 5);
    assert_int_equal(counts[3] + counts[4] + counts[5], 0);
    assert_int_equal(moe_trace_check(trace, fixture.diag), MOE_OK);
    fixture_close(&fixture);
}

static void test_contradictions(void **state)
{
    (void)state;
    static const uint16_t dropped[12] = {3, 2, 1, 1, 3, 1, 2, 3, 1, 0, 3, 3};
    static const struct {
        const uint16_t *counts;
        const char *meta;
        const char *message;
    } rows[] = {
        {dropped, "{\"top_k\": 2, \"tokens_per_rank\": 3}", "source 1: 5 assignments; expected 6"},
        {dropped, "{\"top_k\": 2}", "source 1: 5 assignments; expected a multiple of 2"},
        {recorded, "{\"top_k\": 2, \"tokens_per_rank\": 4}", "6 assignments; expected 8"},
        {recorded, "{\"top_k\": 0, \"tokens_per_rank\": 1}", "expected at most 3"},
        {recorded, "{\"tokens_per_rank\": 3}", "no key \"top_k\""},
        {recorded, "{\"top_k\": 0}", "\"tokens_per_rank\" must be given"},
        {recorded, "{\"top_k\": -2}", "\"top_k\" is no integer"},
        {recorded, "{\"top_k\": 2.5}", "\"top_k\" is no integer"},
        {recorded, "{\"top_k\": 2, \"aggregation\": \"lunch\"}", "\"aggregation\" is \"lunch\""},
        {recorded, "{\"top_k\": 2, \"top_k\": 2}", "duplicate"},
        {recorded, "[2]", "no JSON object"},
        {recorded, "{\"top_k\": ", "no JSON"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trace_fixture fixture = fixture_open();
        write_recording(&fixture, rows[i].counts, rows[i].meta);
        assert_int_equal(import(&fixture), MOE_BAD_INPUT);
        program_contains(fixture_messages(&fixture), rows[i].message);
        fixture_close(&fixture);
    }
}

static void test_missing_meta(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    char *path = program_path("meta.json");
    write_recording(&fixture, recorded, "{}");
    remove(path);
    assert_int_equal(import(&fixture), MOE_BAD_INPUT);
    program_contains(fixture_messages(&fixture), "meta.json");
    free(path);
    fixture_close(&fixture);
}

static void test_recognise(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    char *counts = program_path("counts.npy");
    char *meta = program_path("meta.json");
    write_recording(&fixture, recorded, "{}");
    assert_true(moe_importer_npy.recognise(counts));
    assert_false(moe_importer_npy.recognise(meta));
    assert_false(moe_importer_npy.recognise("/nowhere"));
    assert_false(moe_importer_native.recognise(counts));
    free(counts);
    free(meta);
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_constant_top_k),
        cmocka_unit_test(test_null_experts),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_missing_meta),
        cmocka_unit_test(test_recognise),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
