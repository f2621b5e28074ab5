/* `moeplan profile suite|show|compare`, run as a user would; what suites hold is read by `moecal`'s own
 * reader. */
#include "tests/program.h"
#include "tests/trace_fixture.h"

#include "calibrate/measure/suite.h"
#include <math.h>

#define TINY MOE_TEST_SOURCE_DIR "/tests/golden/profile_tiny.yaml"

/* Widths that no two keys share. */
static const char model_text[] =
    "name: toy\nlayers: 2\nhidden: 64\nffn: 96\ngated: true\nexperts: 4\n"
    "top_k: 1\nheads: 4\nattention: gqa\nkv_heads: 2\nsequence: 256\nvocabulary: 1000\n";

static void assert_silent(const char *text)
{
    assert_string_equal(text, "");
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* A file of the test's folder; freed by the caller. */
static char *write_text(const char *name, const char *text)
{
    char *path = program_path(name);
    program_write(path, text);
    return path;
}

/* Two sources, four experts: loads 10, 4, 2, 0. */
static char *write_trace(void)
{
    static const uint32_t counts[] = {6, 1, 1, 0, 4, 3, 1, 0};
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = {
        .shape = {.iterations = 1, .micro_batches = 1, .layers = 1, .sources = 2, .experts = 4},
        .aggregation = MOE_AGGREGATION_DISPATCH,
        .window = 1,
        .top_k = 1,
        .origin = "a test"};
    fixture_write(&fixture, "toy.safetensors", &info, counts, NULL, 0);
    fixture_close(&fixture);
    return program_path("toy.safetensors");
}

/* --- suite ---------------------------------------------------------------------------------------- */

static json_t *points_of(const char *path, json_t **suite)
{
    char *text = program_read(path);
    *suite = program_json(text);
    free(text);
    return json_object_get(*suite, "points");
}

static bool has_numbers(const json_t *list, const int *numbers, size_t count)
{
    if (json_array_size(list) != count)
        return false;
    for (size_t i = 0; i < count; i++)
        if (json_integer_value(json_array_get(list, i)) != numbers[i])
            return false;
    return true;
}

/* Points of a kind whose list under `key` is that, or all of the kind where `key` is NULL. */
static int count_points(const json_t *points, const char *kind, const char *key, const int *numbers,
                        size_t count)
{
    int found = 0;
    size_t index;
    const json_t *point;
    json_array_foreach(points, index, point)
    {
        if (strcmp(json_string_value(json_object_get(point, "kind")), kind) == 0)
            found += !key || has_numbers(json_object_get(point, key), numbers, count);
    }
    return found;
}

static bool has_gemm(const json_t *points, int m, int n, int k)
{
    size_t index;
    const json_t *point;
    json_array_foreach(points, index, point)
    {
        if (strcmp(json_string_value(json_object_get(point, "kind")), "gemm") == 0 &&
            json_integer_value(json_object_get(point, "m")) == m &&
            json_integer_value(json_object_get(point, "n")) == n &&
            json_integer_value(json_object_get(point, "k")) == k)
            return true;
    }
    return false;
}

/* Queries, keys and values: 64 + 2 * 32 = 128 wide; the gate 4, steps of 8 above it; 8 tokens deep. Full. */
static void test_suite_grid(void **state)
{
    (void)state;
    static const int widths[] = {4, 32, 64, 128}, depths[] = {4, 8, 32, 64, 128};
    char *model = write_text("toy.yaml", model_text), *path = program_path("grid.json");
    program_result result = EXPECT(0, "profile", "suite", model, "--tokens", "8", "--ranks", "2",
                                   "--rows", "64", "-o", path);
    json_t *suite, *points = points_of(path, &suite);
    for (int n = 0; n < 4; n++)
        for (int k = 0; k < 5; k++)
            for (int m = 1; m <= 64; m *= 2)
                assert_true(has_gemm(points, m, widths[n], depths[k]));
    assert_int_equal(count_points(points, "gemm", NULL, NULL, 0), 7 * 4 * 5);
    program_contains(result.out, "gemm             140 points");
    assert_silent(result.err);
    json_decref(suite);
    program_free(&result);
    /* fewer rows first, then widths; the ends stay */
    result = EXPECT(0, "profile", "suite", model, "--tokens", "8", "--ranks", "2", "--rows",
                    "131072", "--points", "100", "-o", path);
    points = points_of(path, &suite);
    assert_true(count_points(points, "gemm", NULL, NULL, 0) <= 100);
    assert_true(has_gemm(points, 1, 4, 4) && has_gemm(points, 131072, 128, 128));
    json_decref(suite);
    program_free(&result);
    free(model);
    free(path);
}

static void test_suite_recorded(void **state)
{
    (void)state;
    static const int hot[] = {10, 4}, cold[] = {2, 0};
    char *model = write_text("toy.yaml", model_text), *trace = write_trace();
    char *path = program_path("recorded.json");
    program_result result = EXPECT(0, "profile", "suite", trace, model, "--tokens", "8", "--ranks",
                                   "2", "--rows", "1024", "-o", path);
    json_t *suite, *points = points_of(path, &suite);
    /* 8 tokens on each of two devices are the 16 that were recorded: as they are, in three phases */
    assert_int_equal(count_points(points, "experts", "rows", hot, 2), 3);
    assert_int_equal(count_points(points, "experts", "rows", cold, 2), 3);
    /* the mean rank sends 8 tokens of 64 values of 2 bytes: 7 of 16 recorded ones times 16 to the first */
    const json_t *point, *matrix = NULL;
    size_t index;
    json_array_foreach(points, index, point)
    {
        if (json_object_get(point, "matrix") &&
            json_integer_value(json_object_get(point, "bytes")) == 8 * 64 * 2 && !matrix &&
            json_integer_value(
                json_array_get(json_array_get(json_object_get(point, "matrix"), 0), 0)) == 7 * 128)
            matrix = json_object_get(point, "matrix");
    }
    assert_non_null(matrix);
    const int row[] = {7 * 128, 128};
    assert_true(has_numbers(json_array_get(matrix, 0), row, 2));
    assert_true(has_numbers(json_array_get(matrix, 1), row, 2));
    json_decref(suite);
    program_free(&result);
    free(model);
    free(trace);
    free(path);
}

/* `moecal` takes every point, and no two are the same. */
static void test_suite_is_sound(void **state)
{
    (void)state;
    static const char *const dtypes[] = {"bf16", "fp8", "fp32"};
    char *path = program_path("suite.json"), *again = program_path("again.json");
    for (int i = 0; i < 3; i++) {
        program_result result =
            EXPECT(0, "profile", "suite", "gpt_moe_s", "deepseek_v3",
                   MOE_TEST_SOURCE_DIR "/traces/samples/gpt-moe-64e-top2-raw.safetensors",
                   "--dtype", dtypes[i], "--points", "300", "-o", path);
        json_t *suite, *points = points_of(path, &suite);
        moecal_suite *read = moecal_suite_read(path, stderr);
        assert_non_null(read);
        assert_int_equal(read->count, json_array_size(points));
        assert_true(count_points(points, "experts", NULL, NULL, 0) > 100);
        for (int kind = 0; kind < MOECAL_KINDS; kind++)
            assert_true(count_points(points, moecal_kind_names[kind], NULL, NULL, 0) > 0);
        moecal_suite_free(read);
        json_decref(suite);
        program_free(&result);
    }
    program_result checked = EXPECT(0, "check", path);
    program_contains(checked.out, "sound suite:");
    program_result result =
        EXPECT(0, "profile", "suite", "gpt_moe_s", "deepseek_v3",
               MOE_TEST_SOURCE_DIR "/traces/samples/gpt-moe-64e-top2-raw.safetensors", "--dtype",
               "fp32", "--points", "300", "-o", again);
    char *first = program_read(path), *second = program_read(again);
    assert_string_equal(first, second);
    free(first);
    free(second);
    program_free(&checked);
    program_free(&result);
    free(path);
    free(again);
}

/* Without -o: the suite alone on standard output. One rank has no collectives. */
static void test_suite_of_one(void **state)
{
    (void)state;
    char *model = write_text("toy.yaml", model_text);
    program_result result = EXPECT(0, "profile", "suite", model, "--ranks", "1", "--ungrouped",
                                   "--rows", "64", "--points", "16");
    json_t *suite = program_json(result.out);
    const json_t *points = json_object_get(suite, "points");
    assert_string_equal(json_string_value(json_object_get(suite, "name")), "toy");
    assert_int_equal(count_points(points, "collective", NULL, NULL, 0), 0);
    assert_int_equal(count_points(points, "sharing", NULL, NULL, 0), 0);
    assert_true(count_points(points, "experts", NULL, NULL, 0) > 0);
    assert_null(strstr(result.out, "\"grouped\": true"));
    program_contains(result.out, "\"grouped\": false");
    program_contains(result.err, "no collectives: --ranks is 1");
    json_decref(suite);
    program_free(&result);
    free(model);
}

static void refuse_suite(int status, const char *message, const char *first, const char *second)
{
    char *path = program_path("refused.json");
    program_result result = EXPECT(status, "profile", "suite", "-o", path, first, second);
    program_contains(result.err, message);
    assert_silent(result.out);
    assert_false(exists(path));
    program_free(&result);
    free(path);
}

static void test_suite_refusals(void **state)
{
    (void)state;
    char *trace = write_trace(), *model = write_text("toy.yaml", model_text);
    char *empty = write_text("empty.yaml", ""), *none = write_text("none.safetensors", "x");
    char *many = write_text("many.yaml",
                            "hidden: 8\nffn: 8\nexperts: 4\ntop_k: 9\nlayers: 1\nsequence: 8\n");
    refuse_suite(1, "trace 1 routes to 4 experts; the models have 64 (GPT-MoE-S)", "gpt_moe_s",
                 trace);
    refuse_suite(1, "no model given", trace, NULL);
    refuse_suite(1, "empty.yaml", empty, NULL);
    refuse_suite(1, "none.safetensors", model, none);
    refuse_suite(1, "top_k", many, NULL);
    refuse_suite(1, "hosts", MOE_TEST_SOURCE_DIR "/configs/clusters/p5_8xh100.yaml", NULL);
    refuse_suite(1, "did you mean \"mixtral_8x7b\"", "mixtral_8x7", NULL);
    refuse_suite(1, "no/such.yaml", "no/such.yaml", NULL);
    refuse_suite(64, "--dtype is \"int4\"", model, "--dtype=int4");
    refuse_suite(64, "--tokens is \"0\"", model, "--tokens=0");
    refuse_suite(64, "--ranks is \"2x\"", model, "--ranks=2x");
    refuse_suite(64, "--points is \"1\"", model, "--points=1");
    refuse_suite(64, "--memory", model, "--memory=12 parsec");
    refuse_suite(64, "--fssdp-chunks is \"\"", model, "--fssdp-chunks=1,,2");
    refuse_suite(64, "expected models", NULL, NULL);
    free(trace);
    free(model);
    free(empty);
    free(none);
    free(many);
}

/* What is checked of a suite that somebody else wrote. */
static void test_check_of_suites(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{\"format\": \"moecal-suite\", \"version\": 1, \"points\": []}", "0 points"},
        {"{\"format\": \"moecal-suite\", \"version\": 2, \"points\": [{}]}", "expected 1"},
        {"{\"format\": \"moecal-suite\", \"version\": 1, \"points\": [{\"kind\": \"gem\"}]}",
         "point 0: its \"kind\""},
        {"{\"format\": \"moecal-suite\", \"version\": 1, \"points\": [{\"kind\": \"gemm\", \"m\": "
         "1, "
         "\"n\": -2, \"k\": 1}]}",
         "point 0 (gemm): \"n\""},
        {"{\"format\": \"moecal-suite\", \"version\": 1, \"points\": [{\"kind\": \"collective\", "
         "\"collective\": \"all_to_all\"}]}",
         "\"bytes\" is missing"},
        {"{\"format\": \"moecal-suite\", \"version\": 1, \"points\": [", "bad.json:1:"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *path = write_text("bad.json", bad[i][0]);
        program_result result = EXPECT(1, "check", path);
        program_contains(result.err, bad[i][1]);
        program_free(&result);
        free(path);
    }
}

/* --- show ----------------------------------------------------------------------------------------- */

static void compare_golden(const char *golden, const char *printed)
{
    char *path = NULL;
    assert_true(asprintf(&path, MOE_TEST_SOURCE_DIR "/tests/golden/%s", golden) > 0);
    char *expected = program_read(path);
    if (strcmp(expected, printed) != 0)
        fail_msg("tests/golden/%s is not what is printed:\n%s", golden, printed);
    free(expected);
    free(path);
}

static void test_show(void **state)
{
    (void)state;
    program_result result = EXPECT(0, "profile", "show", TINY);
    compare_golden("profile_tiny.txt", result.out);
    assert_silent(result.err);
    program_free(&result);
    result = EXPECT(0, "profile", "show", TINY, "--curve", "all_to_all");
    compare_golden("profile_tiny_all_to_all.txt", result.out);
    assert_silent(result.err);
    program_free(&result);
}

static void test_show_json(void **state)
{
    (void)state;
    program_result result = EXPECT(0, "profile", "show", TINY, "--curve", "all_to_all", "--json");
    json_t *whole = program_json(result.out);
    const json_t *curve = json_array_get(json_object_get(whole, "curves"), 0);
    const json_t *values = json_object_get(curve, "values");
    assert_int_equal(json_array_size(values), 6);
    assert_true(json_real_value(json_array_get(json_array_get(values, 4), 3)) == 1.7e-5);
    assert_string_equal(json_string_value(json_object_get(curve, "inter_origin")), "assumed");
    assert_true(json_real_value(json_object_get(curve, "worst")) == 0.111);
    assert_string_equal(json_string_value(json_object_get(whole, "licence")), "CC0-1.0");
    json_decref(whole);
    program_free(&result);
}

static void test_show_refusals(void **state)
{
    (void)state;
    program_result result = EXPECT(1, "profile", "show", TINY, "--curve", "all_two_all");
    program_contains(result.err, "did you mean \"all_to_all\"?");
    program_free(&result);
    result = EXPECT(1, "profile", "show", "a100_4");
    program_contains(result.err, "did you mean \"a100_40\"?");
    program_free(&result);
    result = EXPECT(1, "profile", "show", MOE_TEST_SOURCE_DIR "/configs/clusters/p5_8xh100.yaml");
    program_contains(result.err, "p5_8xh100.yaml");
    program_free(&result);
    result = EXPECT(64, "profile", "show", TINY, "--svg", "picture.png");
    program_contains(result.err, "ends in .svg");
    program_free(&result);
    result = EXPECT(64, "profile", "show", TINY, "--svg", "a.svg", "--out", "b");
    program_free(&result);
    result = EXPECT(1, "profile", "show", TINY, "--curve", "launch", "--svg", "/tmp/never.svg");
    program_contains(result.err, "nothing to draw");
    program_free(&result);
    result = EXPECT(64, "profile", "shew", TINY);
    program_contains(result.err, "did you mean \"show\"?");
    program_free(&result);
}

static bool has_gnuplot(void)
{
    return system("gnuplot --version >/dev/null 2>&1") == 0;
}

static void test_draw(void **state)
{
    (void)state;
    if (!has_gnuplot()) {
        print_message("gnuplot is not installed\n");
        skip();
    }
    char *svg = program_path("it's.svg"), *folder = program_path("each");
    char *each = program_path("each/all_to_all.svg");
    program_result result = EXPECT(0, "profile", "show", TINY, "--svg", svg);
    char *text = program_read(svg);
    program_contains(text, "<svg");
    program_contains(text, "all_to_all of tiny");
    program_contains(text, "node `1`"); /* nothing in a name is run */
    assert_silent(result.err);
    program_free(&result);
    result = EXPECT(0, "profile", "show", TINY, "--out", folder);
    assert_true(exists(each));
    free(text);
    program_free(&result);
    free(svg);
    free(folder);
    free(each);
}

/* Script and numbers stay, and the error says what to do with them. */
static void test_draw_without_gnuplot(void **state)
{
    (void)state;
    char *svg = program_path("none.svg"), *script = program_path("none.gp");
    char *data = program_path("none.dat"), *path = strdup(getenv("PATH"));
    assert_int_equal(setenv("PATH", program_folder, 1), 0);
    program_result result =
        EXPECT(70, "profile", "show", TINY, "--curve", "all_to_all", "--svg", svg);
    assert_int_equal(setenv("PATH", path, 1), 0);
    program_contains(result.err, "cannot run gnuplot");
    program_contains(result.err, "`gnuplot none.gp` in their folder");
    assert_false(exists(svg));
    char *numbers = program_read(data), *commands = program_read(script);
    program_contains(numbers, "1048576 1.7e-05 1.65e-05\n");
    program_contains(commands, "set output 'none.svg'");
    free(numbers);
    free(commands);
    program_free(&result);
    free(svg);
    free(script);
    free(data);
    free(path);
}

/* --- compare -------------------------------------------------------------------------------------- */

static const json_t *row_of(const json_t *whole, const char *curve)
{
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(whole, "curves"), index, row)
    {
        if (strcmp(json_string_value(json_object_get(row, "curve")), curve) == 0)
            return row;
    }
    fail_msg("no row %s", curve);
    return NULL;
}

static void test_compare_with_itself(void **state)
{
    (void)state;
    program_result result = EXPECT(0, "profile", "compare", TINY, TINY, "--json");
    json_t *whole = program_json(result.out);
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(whole, "curves"), index, row)
    {
        assert_true(json_real_value(json_object_get(row, "ratio_least")) == 1);
        assert_true(json_real_value(json_object_get(row, "ratio_most")) == 1);
        assert_string_equal(json_string_value(json_object_get(row, "faster")), "equal");
    }
    assert_true(index > 12);
    json_decref(whole);
    program_free(&result);
    result = EXPECT(0, "profile", "compare", TINY, TINY);
    program_contains(result.out, "B (tiny) is faster in 0, slower in 0, equal within 5 %");
    program_free(&result);
}

/* The fixture with a slower host and faster copies. */
static char *write_other(void)
{
    static const char *const changes[][2] = {{"kernel: 6 us", "kernel: 12us"},
                                             {"rate: 25 GB/s", "rate: 50 GB/s"},
                                             {"start: 10 us", "start:  5 us"}};
    char *text = program_read(TINY);
    for (int i = 0; i < 3; i++) {
        char *at = strstr(text, changes[i][0]);
        assert_non_null(at);
        assert_int_equal(strlen(changes[i][0]), strlen(changes[i][1]));
        memcpy(at, changes[i][1], strlen(changes[i][1]));
    }
    char *path = write_text("other.yaml", text);
    free(text);
    return path;
}

static void test_compare(void **state)
{
    (void)state;
    char *other = write_other();
    program_result result =
        EXPECT(0, "profile", "compare", TINY, other, "--cluster", "p5_8xh100", "--json");
    json_t *whole = program_json(result.out);
    const json_t *launch = row_of(whole, "launch of a kernel");
    const json_t *copy = row_of(whole, "host_to_device");
    assert_true(json_real_value(json_object_get(launch, "ratio_median")) == 2);
    assert_string_equal(json_string_value(json_object_get(launch, "faster")), "A");
    assert_true(fabs(json_real_value(json_object_get(copy, "ratio_most")) - 0.5) < 1e-12);
    assert_true(fabs(json_real_value(json_object_get(copy, "ratio_least")) - 0.5) < 1e-12);
    assert_string_equal(json_string_value(json_object_get(row_of(whole, "all_to_all"), "faster")),
                        "equal");
    row_of(whole, "all_to_all across");
    row_of(whole, "experts");
    row_of(whole, "gemm");
    json_decref(whole);
    program_free(&result);
    free(other);
}

static void test_compare_refusals(void **state)
{
    (void)state;
    char *text = program_read(TINY);
    memcpy(strstr(text, "H100-80"), "Z100-80", 7);
    char *other = write_text("unknown.yaml", text);
    program_result result = EXPECT(1, "profile", "compare", TINY, other);
    program_contains(result.err, "no cluster preset has its device \"Z100-80\"");
    assert_silent(result.out);
    program_free(&result);
    result = EXPECT(0, "profile", "compare", TINY, other, "--cluster", "p5_8xh100");
    program_contains(result.err, "was made for device \"Z100-80\"");
    program_free(&result);
    result = EXPECT(1, "profile", "compare", TINY, TINY, "--cluster", "p5_8xh10");
    program_contains(result.err, "did you mean \"p5_8xh100\"?");
    program_free(&result);
    result = EXPECT(64, "profile", "compare", TINY);
    program_contains(result.err, "expected two profiles");
    program_free(&result);
    result = EXPECT(64, "profile", "compare", TINY, TINY, TINY);
    program_free(&result);
    free(text);
    free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suite_grid),
        cmocka_unit_test(test_suite_recorded),
        cmocka_unit_test(test_suite_is_sound),
        cmocka_unit_test(test_suite_of_one),
        cmocka_unit_test(test_suite_refusals),
        cmocka_unit_test(test_check_of_suites),
        cmocka_unit_test(test_show),
        cmocka_unit_test(test_show_json),
        cmocka_unit_test(test_show_refusals),
        cmocka_unit_test(test_draw),
        cmocka_unit_test(test_draw_without_gnuplot),
        cmocka_unit_test(test_compare_with_itself),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_compare_refusals),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
