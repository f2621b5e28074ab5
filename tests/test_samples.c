/* Samples: what a sound file becomes, and one file (or line) for every way it can be hostile. */
#include "calibrate/fit/samples.h"
#include "tests/bad_files.h"

#include <math.h>
#include <talloc.h>

#define BAD_FOLDER MOE_TEST_SOURCE_DIR "/tests/bad/samples"

static const char machine_line[] =
    "{\"record\": \"machine\", \"format\": \"moecal-samples\", \"version\": 1, \"machine\": "
    "\"1f0c5a2b\", "
    "\"hosts\": 1, \"ranks\": 4, \"devices_per_host\": 4, \"device\": {\"name\": \"D\", "
    "\"peak_flop_per_s\": 1e14, \"memory_bytes\": 8e10, \"memory_bytes_per_s\": 2e12}}\n";
static const char gemm_line[] =
    "{\"record\": \"sample\", \"id\": \"g\", \"kind\": \"gemm\", \"machine\": \"1f0c5a2b\", "
    "\"dtype\": \"bf16\", \"m\": 64, \"n\": 128, \"k\": 256, \"times_s\": [2e-6]}\n";

/* ---- sound ----------------------------------------------------------------------------------- */

static void test_reads_all(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    const moe_samples *samples =
        moe_samples_read(owner, BAD_FOLDER "/sound.jsonl", moe_diag_create(owner, stderr));
    assert_non_null(samples);
    assert_int_equal(samples->count, 4);
    assert_string_equal(samples->machine.digest, "1f0c5a2b");
    assert_string_equal(samples->machine.device, "D");
    assert_true(samples->machine.link_bytes_per_s == 3e11 && samples->machine.nominal);
    assert_int_equal(samples->machine.origin, MOE_MEASURED);
    const moe_sample *gemm = &samples->items[0], *experts = &samples->items[1];
    assert_true(gemm->m == 64 && gemm->n == 128 && gemm->k == 256);
    assert_true(gemm->seconds == 2e-6 && gemm->repetitions == 3);
    assert_true(fabs(gemm->spread - 0.05) < 1e-12); /* quartiles 1.95 and 2.05 us */
    assert_int_equal(experts->experts, 3);
    assert_true(experts->rows[0] == 3 && experts->rows[1] == 0 && experts->rows[2] == 5);
    const moe_sample_exchange *exchange = &samples->items[2].first,
                              *chunks = &samples->items[3].first;
    assert_int_equal(exchange->collective, MOE_ALL_TO_ALL);
    assert_true(exchange->most_bytes == 9); /* the last column: 3 + 3 + 3 */
    assert_true(exchange->matrix[4 + 2] == 2);
    assert_int_equal(chunks->chunks, 2);
    assert_int_equal(chunks->chunk_list[1].owner, 3);
    assert_true(chunks->chunk_list[0].want[0] == 6 && chunks->bytes == 2048);
    talloc_free(owner);
}

/* Bytes touched and FLOPs that later fits rely on, by hand. */
static void test_derived_amounts(void **state)
{
    (void)state;
    static const struct {
        const char *keys;
        double bytes, flop;
    } rows[] = {
        {"\"kind\": \"permute\", \"tokens\": 10, \"hidden\": 32, \"top_k\": 3",
         2.0 * 10 * 3 * 32 * 2, 0},
        {"\"kind\": \"norm\", \"tokens\": 10, \"hidden\": 32", 2.0 * 10 * 32 * 2, 0},
        {"\"kind\": \"adam\", \"parameters\": 1000", 1000.0 * 28, 0},
        {"\"kind\": \"gate\", \"tokens\": 10, \"hidden\": 32, \"experts\": 8, \"top_k\": 2",
         (10.0 * 32 + 32 * 8 + 10 * 8) * 2, 0},
        {"\"kind\": \"attention\", \"phase\": \"forward\", \"sequences\": 2, \"sequence\": 64, "
         "\"heads\": 4, "
         "\"kv_heads\": 2, \"head_dim\": 16, \"causal\": true",
         128.0 * (8 + 4) * 16 * 2, 128.0 * 2 * 32 * (2 * 4 * 16)},
        {"\"kind\": \"attention\", \"phase\": \"backward\", \"sequences\": 2, \"sequence\": 64, "
         "\"heads\": 4, "
         "\"kv_heads\": 2, \"head_dim\": 16, \"causal\": false",
         2 * 128.0 * (8 + 4) * 16 * 2, 2 * 128.0 * 2 * 64 * (2 * 4 * 16)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        void *owner = talloc_new(NULL);
        char *text =
            talloc_asprintf(owner,
                            "%s{\"record\": \"sample\", \"id\": \"x\", \"machine\": \"1f0c5a2b\", "
                            "\"dtype\": \"bf16\", \"times_s\": [1e-5], %s}\n",
                            machine_line, rows[i].keys);
        const moe_samples *samples =
            moe_samples_parse(owner, "text", text, strlen(text), moe_diag_create(owner, stderr));
        assert_non_null(samples);
        assert_true(samples->items[0].bytes == rows[i].bytes);
        assert_true(samples->items[0].flop == rows[i].flop);
        talloc_free(owner);
    }
}

/* ---- texts in memory ------------------------------------------------------------------------- */

typedef struct outcome {
    bool read;
    int errors;
    size_t count, warnings;
    char *said;
} outcome;

static outcome parse(const char *text, size_t length)
{
    void *owner = talloc_new(NULL);
    size_t said_length;
    outcome result = {0};
    FILE *stream = open_memstream(&result.said, &said_length);
    moe_diag *diag = moe_diag_create(owner, stream);
    const moe_samples *samples = moe_samples_parse(owner, "text", text, length, diag);
    result.read = samples != NULL;
    result.errors = moe_diag_error_count(diag);
    result.count = samples ? samples->count : 0;
    result.warnings = samples ? samples->warnings : 0;
    talloc_free(owner);
    fclose(stream);
    /* Refused with a word, or accepted without. */
    assert_true(result.read == (result.errors == 0));
    return result;
}

static void expect_refusal(const char *text, size_t length, const char *part)
{
    outcome result = parse(text, length);
    assert_false(result.read);
    program_contains(result.said, part);
    free(result.said);
}

static void test_truncated_last_line_is_a_warning(void **state)
{
    (void)state;
    char *text = NULL;
    assert_true(asprintf(&text, "%s%s%s", machine_line, gemm_line, gemm_line) > 0);
    size_t whole = strlen(text);
    for (size_t cut = whole - strlen(gemm_line) + 1; cut < whole - 1; cut += 7) {
        outcome result = parse(text, cut);
        assert_true(result.read);
        assert_int_equal(result.count, 1);
        assert_int_equal(result.warnings, 1);
        program_contains(result.said, "warning");
        free(result.said);
    }
    outcome result = parse(text, whole - 1); /* only the line end is missing */
    assert_int_equal(result.count, 2);
    assert_int_equal(result.warnings, 0);
    free(result.said);
    free(text);
}

static void test_resumed_and_repeated(void **state)
{
    (void)state;
    char *text = NULL;
    assert_true(
        asprintf(&text, "%s%s\r\n\n%s%s", machine_line, gemm_line, machine_line, gemm_line) > 0);
    outcome result = parse(text, strlen(text));
    assert_int_equal(result.count, 2); /* a point twice: both are kept */
    free(result.said);
    free(text);
}

static void test_wrong_results_are_left_out(void **state)
{
    (void)state;
    char *text = NULL;
    assert_true(asprintf(&text, "%s%.*s, \"check\": {\"error\": 0.5, \"limit\": 0.01}}\n%s",
                         machine_line, (int)strlen(gemm_line) - 2, gemm_line, gemm_line) > 0);
    outcome result = parse(text, strlen(text));
    assert_int_equal(result.count, 1);
    assert_int_equal(result.warnings, 1);
    program_contains(result.said, "wrong by 0.5");
    free(result.said);
    free(text);
}

static void test_long_line(void **state)
{
    (void)state;
    size_t head = strlen(machine_line), long_line = 2 << 20;
    char *text = malloc(head + long_line + 2);
    memcpy(text, machine_line, head);
    memset(text + head, ' ', long_line);
    text[head] = '{';
    text[head + long_line] = '\n';
    expect_refusal(text, head + long_line + 1, "a line of 2097152 bytes; expected at most 1048576");
    free(text);
}

static void test_deep_json(void **state)
{
    (void)state;
    size_t head = strlen(machine_line), depth = 500000;
    char *text = malloc(head + depth + 2);
    memcpy(text, machine_line, head);
    memset(text + head, '[', depth);
    text[head + depth] = '\n';
    expect_refusal(text, head + depth + 1, "parsing depth");
    free(text);
}

static void test_huge_rows(void **state)
{
    (void)state;
    size_t size = 0;
    char *text = NULL;
    FILE *stream = open_memstream(&text, &size);
    fprintf(stream,
            "%s{\"record\": \"sample\", \"id\": \"e\", \"kind\": \"experts\", \"machine\": "
            "\"1f0c5a2b\", "
            "\"dtype\": \"bf16\", \"phase\": \"forward\", \"hidden\": 8, \"ffn\": 8, \"times_s\": "
            "[1e-5], "
            "\"rows\": [1",
            machine_line);
    for (int i = 1; i < 65537; i++)
        fputs(",1", stream);
    fputs("]}\n", stream);
    fclose(stream);
    expect_refusal(text, size, "\"rows\" has 65537 values; expected 1 to 65536");
    free(text);
}

/* Every error is told, not only the first. */
static void test_all_errors(void **state)
{
    (void)state;
    char *text = NULL;
    assert_true(
        asprintf(&text, "%s{}\n3\n%s", machine_line,
                 "{\"record\": \"sample\", \"kind\": \"gemm\", \"machine\": \"1f0c5a2b\", \"id\": "
                 "\"x\", \"dtype\": \"bf16\", \"m\": 0, \"n\": 0, \"k\": 5, \"times_s\": [1]}\n") >
        0);
    outcome result = parse(text, strlen(text));
    assert_int_equal(result.errors, 4);
    free(result.said);
    free(text);
}

/* ---- files ----------------------------------------------------------------------------------- */

static bool is_refused(void *owner, const char *path, moe_diag *diag)
{
    return moe_samples_read(owner, path, diag) == NULL;
}

static void test_bad_files(void **state)
{
    (void)state;
    bad_files_check(BAD_FOLDER, ".jsonl", is_refused, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_all),
        cmocka_unit_test(test_derived_amounts),
        cmocka_unit_test(test_truncated_last_line_is_a_warning),
        cmocka_unit_test(test_resumed_and_repeated),
        cmocka_unit_test(test_wrong_results_are_left_out),
        cmocka_unit_test(test_long_line),
        cmocka_unit_test(test_deep_json),
        cmocka_unit_test(test_huge_rows),
        cmocka_unit_test(test_all_errors),
        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
