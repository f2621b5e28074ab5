/* Traces: what the writer writes the reader reads, in one file or in shards; defective files are
 * refused with the message that lies beside them; the `trace` command. */
#include "tests/trace_fixture.h"
#include "traces/safetensors.h"
#include <dirent.h>

#define BAD_FOLDER MOE_TEST_SOURCE_DIR "/tests/bad/traces"

static const moe_trace_shape toy_shape = {7, 2, 3, 4, 5};

static moe_trace_info toy_info(int64_t top_k)
{
    return (moe_trace_info){
        .shape = toy_shape, .window = 1, .top_k = top_k, .synthetic = true, .origin = "a test"};
}

/* Every dispatch of `trace` is that of the arrays it was written from. */
static void assert_same_counts(const moe_trace *trace, const uint32_t *counts,
                               const uint32_t *tokens)
{
    const moe_trace_shape *shape = &moe_trace_get_info(trace)->shape;
    const size_t sources = (size_t)shape->sources;
    const size_t cells = sources * (size_t)shape->experts;
    uint32_t *found = malloc(cells * sizeof *found);
    uint32_t *found_tokens = malloc(sources * sizeof *found_tokens);
    for (int64_t t = 0; t < shape->iterations; t++) {
        for (int64_t m = 0; m < shape->micro_batches; m++) {
            for (int64_t l = 0; l < shape->layers; l++) {
                moe_trace_read(trace, t, m, l, found, found_tokens);
                assert_memory_equal(found, counts, cells * sizeof *found);
                assert_memory_equal(found_tokens, tokens, sources * sizeof *found_tokens);
                counts += cells;
                tokens += sources;
            }
        }
    }
    free(found);
    free(found_tokens);
}

static uint32_t *equal_tokens(trace_fixture *fixture, const moe_trace_shape *shape, uint32_t tokens)
{
    const size_t rows = shape_rows(shape);
    uint32_t *array = talloc_array(fixture->owner, uint32_t, rows);
    for (size_t i = 0; i < rows; i++)
        array[i] = tokens;
    return array;
}

/* --- round trips ---------------------------------------------------------------------------- */

static void test_round_trip(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    moe_trace_info info = toy_info(2);
    json_t *provenance = json_pack("{s:s, s:[i, i]}", "note", "a \"quoted\" \u00fc", "list", 4, 5);
    info.provenance = provenance;
    const uint32_t *counts = fixture_counts(&fixture, &toy_shape, 18, 1);
    const moe_trace *trace = fixture_trace(&fixture, &info, counts, NULL);
    const moe_trace_info *found = moe_trace_get_info(trace);
    assert_memory_equal(&found->shape, &toy_shape, sizeof toy_shape);
    assert_int_equal(found->aggregation, MOE_AGGREGATION_DISPATCH);
    assert_int_equal(found->top_k, 2);
    assert_true(found->synthetic);
    assert_false(found->tokens_recorded);
    assert_string_equal(found->origin, "a test");
    assert_true(json_equal(found->provenance, provenance));
    assert_same_counts(trace, counts, equal_tokens(&fixture, &toy_shape, 9));
    assert_int_equal(moe_trace_check(trace, fixture.diag), MOE_OK);
    json_decref(provenance);
    fixture_close(&fixture);
}

/* The narrowest type that holds the largest count is taken, and the limits of each are exact. */
static void test_integer_types(void **state)
{
    (void)state;
    static const struct {
        uint32_t largest;
        const char *dtype;
    } rows[] = {{255, "U8"}, {256, "U16"}, {65535, "U16"}, {65536, "U32"}, {4000000000U, "U32"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trace_fixture fixture = fixture_open();
        const moe_trace_info info = toy_info(1);
        uint32_t *counts = fixture_counts(&fixture, &toy_shape, 0, 1);
        uint32_t *tokens = equal_tokens(&fixture, &toy_shape, 0);
        counts[123] = tokens[123 / 5] = rows[i].largest;
        const moe_trace *trace = fixture_trace(&fixture, &info, counts, tokens);
        assert_same_counts(trace, counts, tokens);
        assert_int_equal(moe_trace_check(trace, fixture.diag), MOE_OK);
        char *path = program_path("toy.safetensors");
        const moe_safetensors *file =
            moe_safetensors_open(fixture.owner, path, (moe_where){0}, fixture.diag);
        assert_string_equal(moe_safetensors_tensor(file, "counts")->dtype, rows[i].dtype);
        free(path);
        fixture_close(&fixture);
    }
}

static void test_recorded_tokens(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = toy_info(0);
    const uint32_t *counts = fixture_counts(&fixture, &toy_shape, 18, 2);
    uint32_t *tokens = equal_tokens(&fixture, &toy_shape, 11);
    tokens[5] = 300; /* wider than the counts */
    const moe_trace *trace = fixture_trace(&fixture, &info, counts, tokens);
    assert_true(moe_trace_get_info(trace)->tokens_recorded);
    assert_same_counts(trace, counts, tokens);
    assert_int_equal(moe_trace_check(trace, fixture.diag), MOE_OK);
    fixture_close(&fixture);
}

static void test_window_aggregation(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    moe_trace_info info = toy_info(2);
    info.shape.micro_batches = 1;
    info.aggregation = MOE_AGGREGATION_WINDOW;
    info.window = 16;
    const uint32_t *counts = fixture_counts(&fixture, &info.shape, 18, 3);
    const moe_trace *trace = fixture_trace(&fixture, &info, counts, NULL);
    assert_int_equal(moe_trace_get_info(trace)->aggregation, MOE_AGGREGATION_WINDOW);
    assert_int_equal(moe_trace_get_info(trace)->window, 16);
    fixture_close(&fixture);
}

/* However a trace is cut, it reads the same and has the same digest. */
static void test_shards(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 7, 100};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        trace_fixture fixture = fixture_open();
        const moe_trace_info info = toy_info(0);
        const uint32_t *counts = fixture_counts(&fixture, &toy_shape, 18, 4);
        const uint32_t *tokens = equal_tokens(&fixture, &toy_shape, 9);
        const moe_trace *whole = fixture_trace(&fixture, &info, counts, tokens);
        fixture_write(&fixture, "cut.safetensors", &info, counts, tokens, sizes[i]);
        const moe_trace *cut = fixture_reopen(&fixture, "cut.safetensors.index.json");
        assert_non_null(cut);
        assert_memory_equal(&moe_trace_get_info(cut)->shape, &toy_shape, sizeof toy_shape);
        assert_string_equal(moe_trace_get_info(cut)->digest, moe_trace_get_info(whole)->digest);
        assert_same_counts(cut, counts, tokens);
        assert_int_equal(moe_trace_check(cut, fixture.diag), MOE_OK);
        fixture_close(&fixture);
    }
}

/* A shard of another run with the same shape is found without reading the data. */
static void test_exchanged_shard(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = toy_info(2);
    char *other = program_path("other-00002-of-00003.safetensors");
    char *mine = program_path("mine-00002-of-00003.safetensors");
    fixture_write(&fixture, "mine.safetensors", &info, fixture_counts(&fixture, &toy_shape, 18, 5),
                  NULL, 3);
    fixture_write(&fixture, "other.safetensors", &info, fixture_counts(&fixture, &toy_shape, 18, 6),
                  NULL, 3);
    assert_non_null(fixture_reopen(&fixture, "mine.safetensors.index.json"));
    assert_int_equal(rename(other, mine), 0);
    assert_null(fixture_reopen(&fixture, "mine.safetensors.index.json"));
    program_contains(fixture_messages(&fixture), "belongs to another trace");
    free(other);
    free(mine);
    fixture_close(&fixture);
}

static int files_named(const char *prefix)
{
    int found = 0;
    DIR *folder = opendir(program_folder);
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder))
        found += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(folder);
    return found;
}

/* A writer that is not committed, or lacks iterations, leaves nothing behind. */
static void test_incomplete_writing(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = toy_info(2);
    const uint32_t *counts = fixture_counts(&fixture, &toy_shape, 18, 7);
    char *path = program_path("partial.safetensors");
    for (int commits = 0; commits < 2; commits++) {
        moe_trace_writer *writer =
            moe_trace_writer_open(fixture.owner, path, &info, false, 0, fixture_diag(&fixture));
        assert_int_equal(moe_trace_writer_append(writer, counts, NULL, fixture.diag), MOE_OK);
        if (commits == 1)
            assert_int_equal(moe_trace_writer_commit(writer, fixture.diag), MOE_INTERNAL);
        else
            talloc_free(writer);
        assert_int_equal(files_named("partial"), 0);
        assert_int_equal(files_named(".moeplan"), 0);
    }
    program_contains(fixture_messages(&fixture), "only 1 of 7 iterations");
    free(path);
    fixture_close(&fixture);
}

static void test_refused_shapes(void **state)
{
    (void)state;
    static const moe_trace_shape shapes[] = {
        {0, 1, 1, 1, 1},       {1, 1, 1, 0, 1},          {1, -1, 1, 1, 1},
        {1, 1, 1, 1, 1 << 21}, {1, 1, 1, 1 << 16, 1024}, {1, 1 << 10, 1 << 10, 1 << 10, 1 << 10},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        trace_fixture fixture = fixture_open();
        char *path = program_path("refused.safetensors");
        const moe_trace_info info = {.shape = shapes[i], .top_k = 1};
        assert_null(
            moe_trace_writer_open(fixture.owner, path, &info, false, 0, fixture_diag(&fixture)));
        assert_int_equal(moe_diag_error_count(fixture.diag), 1);
        free(path);
        fixture_close(&fixture);
    }
}

/* --- defective files ------------------------------------------------------------------------ */

/* Opens and checks `name` in the current folder; the first message without the path. */
static char *first_message(trace_fixture *fixture, const char *name)
{
    const moe_trace *trace =
        moe_trace_open(fixture->owner, name, (moe_where){0}, fixture_diag(fixture));
    if (trace != NULL)
        moe_trace_check(trace, fixture->diag);
    char *line = strdup(fixture_messages(fixture));
    char *end = strchr(line, '\n');
    const size_t prefix = strlen(name) + 2;
    if (end == NULL)
        fail_msg("%s is not refused", name);
    *end = '\0';
    if (strncmp(line, name, strlen(name)) == 0)
        memmove(line, line + prefix, strlen(line + prefix) + 1);
    return line;
}

static void check_bad_file(const char *stem)
{
    static const char *const suffixes[] = {".safetensors", ".safetensors.index.json"};
    char name[300];
    char expected_name[300];
    trace_fixture fixture = fixture_open();
    snprintf(name, sizeof name, "%s%s", stem, suffixes[strncmp(stem, "index_", 6) == 0]);
    snprintf(expected_name, sizeof expected_name, "%s.expected", stem);
    char *expected = program_read(expected_name);
    char *found = first_message(&fixture, name);
    expected[strcspn(expected, "\n")] = '\0';
    if (strcmp(found, expected) != 0)
        fail_msg("%s\nfound:    %s\nexpected: %s", name, found, expected);
    free(expected);
    free(found);
    fixture_close(&fixture);
}

static void test_bad_files(void **state)
{
    (void)state;
    int checked = 0;
    assert_int_equal(chdir(BAD_FOLDER), 0);
    DIR *folder = opendir(".");
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char stem[256];
        snprintf(stem, sizeof stem, "%s", entry->d_name);
        char *dot = strstr(stem, ".expected");
        if (dot == NULL)
            continue;
        *dot = '\0';
        check_bad_file(stem);
        checked++;
    }
    closedir(folder);
    assert_true(checked >= 40);
    assert_int_equal(chdir(MOE_TEST_SOURCE_DIR), 0);
}

/* The sound file that the defective ones are made from: a test of the tests. */
static void test_sound_neighbour(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    const moe_trace *trace = moe_trace_open(fixture.owner, BAD_FOLDER "/shard.safetensors",
                                            (moe_where){0}, fixture_diag(&fixture));
    assert_non_null(trace);
    assert_int_equal(moe_trace_check(trace, fixture.diag), MOE_OK);
    fixture_close(&fixture);
}

/* Many bad places are counted, not all printed. */
static void test_many_bad_places(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = toy_info(3);
    const uint32_t *counts = fixture_counts(&fixture, &toy_shape, 17, 8);
    const moe_trace *trace = fixture_trace(&fixture, &info, counts, NULL);
    assert_int_equal(moe_trace_check(trace, fixture.diag), MOE_BAD_INPUT);
    assert_int_equal(moe_diag_error_count(fixture.diag), 10);
    program_contains(fixture_messages(&fixture), "and 158 more places"); /* 7 x 2 x 3 x 4 - 10 */
    fixture_close(&fixture);
}

/* --- the command ---------------------------------------------------------------------------- */

static void test_command_info(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = toy_info(2);
    fixture_trace(&fixture, &info, fixture_counts(&fixture, &toy_shape, 18, 9), NULL);
    char *path = program_path("toy.safetensors");
    program_result result = EXPECT(0, "trace", "info", path);
    program_contains(result.out, "7 iterations, 2 micro-batches, 3 layers, 4 sources, 5 experts");
    program_contains(result.out, "synthetic    yes");
    assert_string_equal(result.err, "");
    program_free(&result);
    result = EXPECT(0, "trace", "info", path, "--json");
    json_t *value = program_json(result.out);
    const json_t *shape = json_object_get(value, "shape");
    assert_int_equal(json_integer_value(json_object_get(shape, "experts")), 5);
    json_decref(value);
    program_free(&result);
    free(path);
    fixture_close(&fixture);
}

static void test_command_convert(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = toy_info(2);
    fixture_trace(&fixture, &info, fixture_counts(&fixture, &toy_shape, 18, 9), NULL);
    char *from = program_path("toy.safetensors");
    char *cut = program_path("again.safetensors");
    char *index = program_path("again.safetensors.index.json");
    char *joined = program_path("joined.safetensors");
    program_result result = EXPECT(0, "trace", "convert", from, cut, "--shard-iterations", "3");
    program_free(&result);
    result = EXPECT(0, "trace", "convert", index, joined);
    program_free(&result);
    result = EXPECT(0, "trace", "check", joined, "--json");
    json_t *value = program_json(result.out);
    assert_true(json_is_true(json_object_get(value, "sound")));
    json_decref(value);
    program_free(&result);
    const moe_trace *first = fixture_reopen(&fixture, "toy.safetensors");
    const moe_trace *last = fixture_reopen(&fixture, "joined.safetensors");
    assert_string_equal(moe_trace_get_info(first)->digest, moe_trace_get_info(last)->digest);
    free(from);
    free(cut);
    free(index);
    free(joined);
    fixture_close(&fixture);
}

static void test_command_errors(void **state)
{
    (void)state;
    char *output = program_path("never.safetensors");
    program_result result = EXPECT(1, "trace", "convert", "/etc/passwd", output);
    program_contains(result.err, "npy reads");
    program_contains(result.err, "native reads");
    program_free(&result);
    result = EXPECT(1, "trace", "check", BAD_FOLDER "/wrong_crc.safetensors", "--json");
    json_t *value = program_json(result.out);
    assert_true(json_is_false(json_object_get(value, "sound")));
    json_decref(value);
    program_free(&result);
    result = EXPECT(1, "trace", "convert", BAD_FOLDER "/wrong_crc.safetensors", output);
    assert_int_equal(access(output, F_OK), -1);
    program_free(&result);
    result = EXPECT(64, "trace", "inof");
    program_contains(result.err, "did you mean \"info\"");
    program_free(&result);
    result = EXPECT(64, "trace", "info");
    program_free(&result);
    result = EXPECT(64, "trace", "convert", "a", "b.safetensors", "-s", "-3");
    program_free(&result);
    result = EXPECT(64, "trace", "convert", BAD_FOLDER "/shard.safetensors", "b.bin");
    program_contains(result.err, ".safetensors");
    program_free(&result);
    free(output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_integer_types),
        cmocka_unit_test(test_recorded_tokens),
        cmocka_unit_test(test_window_aggregation),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_exchanged_shard),
        cmocka_unit_test(test_incomplete_writing),
        cmocka_unit_test(test_refused_shapes),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_sound_neighbour),
        cmocka_unit_test(test_many_bad_places),
        cmocka_unit_test(test_command_info),
        cmocka_unit_test(test_command_convert),
        cmocka_unit_test(test_command_errors),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
