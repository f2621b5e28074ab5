/* `validate loop`: its case and its readers, and, where MPI and moecal-cpu are, the whole path once. How well the
 * simulation meets the machine is not for a test to say: somebody else may be computing. */
#include "tests/program.h"

#include "reports/validation/loop_predict.h"
#include "reports/validation/loop_programs.h"

#include <math.h>
#include <talloc.h>

/* --- the case ----------------------------------------------------------------------------------- */

static size_t count_kind(const json_t *suite, const char *kind)
{
    size_t index, count = 0;
    json_t *point;
    json_array_foreach(json_object_get(suite, "points"), index, point) count +=
        strcmp(json_string_value(json_object_get(point, "kind")), kind) == 0;
    return count;
}

/* Every source sends top_k times its tokens; recorded instances are skewed, the last is not. */
static void test_instances(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    for (int ranks = 2; ranks <= 16; ranks *= 2) {
        const moe_loop_case *of =
            moe_loop_case_create(owner, ranks, true, moe_diag_create(owner, stderr));
        assert_non_null(of);
        const uint32_t *counts = of->counts;
        for (int i = 0; i < of->instances; i++) {
            uint32_t most = 0;
            for (int cell = 0; cell < of->layers * ranks; cell++) {
                uint32_t sum = 0;
                for (int expert = 0; expert < MOE_LOOP_EXPERTS; expert++, counts++) {
                    sum += *counts;
                    most = *counts > most ? *counts : most;
                }
                assert_int_equal(sum, of->tokens * of->top_k);
            }
            const uint32_t mean = (uint32_t)(of->tokens * of->top_k / MOE_LOOP_EXPERTS);
            if (i + 1 < of->instances)
                assert_true(most > 3 * mean / 2);
            else
                assert_int_equal(most, mean);
        }
    }
    talloc_free(owner);
}

/* No point of the suite has the rows of an instance's rank. */
static void test_instances_are_held_out(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    const moe_loop_case *of = moe_loop_case_create(owner, 2, true, moe_diag_create(owner, stderr));
    json_t *suite = moe_loop_suite(of);
    assert_true(count_kind(suite, "gemm") > 8 && count_kind(suite, "collective") > 8);
    assert_true(count_kind(suite, "attention") > 1 && count_kind(suite, "adam") > 2);
    assert_int_equal(count_kind(suite, "experts") % 3, 0);
    size_t index, expert;
    json_t *point, *rows;
    json_array_foreach(json_object_get(suite, "points"), index, point)
    {
        const json_t *list = json_object_get(point, "rows");
        if (!list)
            continue;
        for (int i = 0; i + 1 < of->instances; i++)
            for (int layer = 0; layer < of->layers; layer++) {
                const uint32_t *counts =
                    of->counts +
                    ((size_t)i * (size_t)of->layers + (size_t)layer) * 2 * MOE_LOOP_EXPERTS;
                bool same = true;
                json_array_foreach(list, expert, rows) same =
                    same &&
                    json_integer_value(rows) == counts[expert] + counts[MOE_LOOP_EXPERTS + expert];
                assert_false(same);
            }
    }
    json_decref(suite);
    talloc_free(owner);
}

/* --- what moecal-cpu writes --------------------------------------------------------------------- */

static moe_loop_case small_case(void)
{
    return (moe_loop_case){.instances = 1, .repetitions = 3, .names = {"one"}};
}

static moe_status read_result(const char *text, moe_loop_times *times)
{
    void *owner = talloc_new(NULL);
    const moe_loop_case of = small_case();
    char *path = program_path("result.json");
    program_write(path, text);
    *times = (moe_loop_times){0};
    const moe_status status = moe_loop_read(&of, path, times, moe_diag_create(owner, NULL));
    free(path);
    talloc_free(owner);
    return status;
}

#define RESULT(name, seconds, attention)                                                           \
    "{\"instances\": [{\"name\": \"" name "\", \"seconds\": " seconds                              \
    ", \"parts_s\": {\"attention\": " attention                                                    \
    ", \"gate\": 1, \"permute\": 2, \"dispatch\": 3, \"experts\": 4, \"combine\": 5, "             \
    "\"head\": 6, \"gradients\": 7, \"optimizer\": 8, \"wait\": 9}}]}"

static void test_results(void **state)
{
    (void)state;
    moe_loop_times times;
    assert_int_equal(read_result(RESULT("one", "[7, 2, 3]", "0.5"), &times), MOE_OK);
    assert_true(times.step_s == 3);
    assert_true(times.parts_s[MOE_LOOP_ATTENTION] == 1.5);
    assert_true(times.parts_s[MOE_LOOP_EXCHANGE] == 8);
    assert_true(times.parts_s[MOE_LOOP_WAIT] == 9);
    assert_int_equal(read_result(RESULT("two", "[7, 2, 3]", "0.5"), &times), MOE_BAD_INPUT);
    assert_int_equal(read_result(RESULT("one", "[7, 2]", "0.5"), &times), MOE_BAD_INPUT);
    assert_int_equal(read_result(RESULT("one", "[7, 0, 3]", "0.5"), &times), MOE_BAD_INPUT);
    assert_int_equal(read_result(RESULT("one", "[7, 2, 3]", "\"x\""), &times), MOE_BAD_INPUT);
    assert_int_equal(read_result("{\"instances\": []}", &times), MOE_BAD_INPUT);
    assert_int_equal(read_result("{\"instances\": [", &times), MOE_BAD_INPUT);
}

/* --- programs ----------------------------------------------------------------------------------- */

/* A launcher that fails is reported with what it said. */
static void test_failing_child(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    char *text = NULL, *script = program_path("mpirun"), *log = program_path("log");
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    moe_diag *diag = moe_diag_create(owner, stream);
    program_write(script, "#!/bin/sh\necho \"$4 would not start\"\nexit 3\n");
    assert_int_equal(chmod(script, 0700), 0);
    const moe_loop_launcher launcher = {script, "moecal-cpu", 2, log};
    assert_int_equal(moe_loop_run(&launcher, (const char *const[]){"--suite", NULL}, diag),
                     MOE_INTERNAL);
    talloc_free(owner);
    fclose(stream);
    program_contains(text, "exit code 3");
    program_contains(text, "--suite would not start");
    free(text);
    free(script);
    free(log);
    assert_true(moe_loop_cores() >= 1);
    assert_null(moe_loop_program(NULL, "no-such-program-anywhere"));
}

static void test_without_programs(void **state)
{
    (void)state;
    char *path = strdup(getenv("PATH") ? getenv("PATH") : "");
    setenv("PATH", program_folder, 1);
    program_result result = EXPECT(0, "validate", "loop", "--quick");
    setenv("PATH", path, 1);
    free(path);
    program_contains(result.out, "skipped");
    program_free(&result);
}

/* --- the whole path ------------------------------------------------------------------------------ */

static void check_comparisons(const json_t *suite)
{
    size_t index;
    json_t *comparison;
    const json_t *all = json_object_get(suite, "comparisons");
    assert_int_equal(json_array_size(all), 4 * (2 + MOE_LOOP_PARTS));
    json_array_foreach(all, index, comparison)
    {
        const double predicted = json_number_value(json_object_get(comparison, "predicted"));
        const double measured = json_number_value(json_object_get(comparison, "measured"));
        assert_true(json_is_number(json_object_get(comparison, "predicted")));
        assert_true(isfinite(predicted) && predicted >= 0);
        assert_true(isfinite(measured) && measured > 0);
    }
}

/* Loose, and only where nobody else computes. */
static void check_errors(const json_t *suite)
{
    const json_t *figures = json_object_get(suite, "figures");
    const double others =
        fmax(json_number_value(json_object_get(
                 figures, "cores that other programs took while parts were measured")),
             json_number_value(
                 json_object_get(figures, "cores that other programs took while the step ran")));
    const json_t *goal = json_array_get(json_object_get(suite, "goals"), 0);
    const double median = json_number_value(json_object_get(goal, "value"));
    print_message("median error of the step %.1f %%, other programs %.2f cores\n", 100 * median,
                  others);
    assert_true(isfinite(median));
    if (others < 0.1)
        assert_true(median < 0.6);
}

static void test_whole_path(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    const bool there = moe_loop_program(owner, "mpirun") != NULL;
    talloc_free(owner);
    char *folder = program_path("out");
    program_result result =
        EXPECT(0, "validate", "loop", "--quick", "--ranks", "2", "--json", "--out", folder);
    json_t *all = program_json(result.out);
    const json_t *suite = json_array_get(json_object_get(all, "suites"), 0);
    const char *skipped = json_string_value(json_object_get(suite, "skipped"));
    if (skipped)
        print_message("skipped: %s\n", skipped);
    const bool ran = !skipped;
    if (ran) {
        static const char *const files[] = {"samples.jsonl", "profile.yaml", "cluster.yaml",
                                            "scenario.yaml", "step.json",    "result.json"};
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
            char *name = NULL;
            assert_true(asprintf(&name, "%s/loop/%s", folder, files[i]) > 0);
            assert_int_equal(access(name, R_OK), 0);
            free(name);
        }
        check_comparisons(suite);
        check_errors(suite);
    }
    json_decref(all);
    program_free(&result);
    free(folder);
    assert_true(ran ? there : true);
    if (!ran)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_instances),
        cmocka_unit_test(test_instances_are_held_out),
        cmocka_unit_test_setup_teardown(test_results, program_setup, program_teardown),
        cmocka_unit_test_setup_teardown(test_failing_child, program_setup, program_teardown),
        cmocka_unit_test_setup_teardown(test_without_programs, program_setup, program_teardown),
        cmocka_unit_test_setup_teardown(test_whole_path, program_setup, program_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
