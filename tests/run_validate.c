/* `moeplan validate` as a user calls it: without data, with the published data where it is at hand, and wrongly. */
#include "tests/program.h"

#include <math.h>

static const json_t *suite_of(const json_t *all, const char *name)
{
    size_t index;
    json_t *suite;
    json_array_foreach(json_object_get(all, "suites"), index, suite)
    {
        if (strcmp(json_string_value(json_object_get(suite, "name")), name) == 0)
            return suite;
    }
    fail_msg("no suite \"%s\" in the JSON", name);
    return NULL;
}

static const json_t *group_of(const json_t *suite, const char *name)
{
    size_t index;
    json_t *group;
    json_array_foreach(json_object_get(suite, "groups"), index, group)
    {
        if (strcmp(json_string_value(json_object_get(group, "name")), name) == 0)
            return group;
    }
    fail_msg("no group \"%s\"", name);
    return NULL;
}

static void test_without_data(void **state)
{
    (void)state;
    program_result result = EXPECT(0, "validate", "smartmoe", "--data", "/nowhere");
    program_contains(result.out, "skipped: its data is not there: /nowhere/traces/smartmoe/");
    assert_string_equal(result.err, "");
    program_free(&result);
    result = EXPECT(0, "validate", "smartmoe", "--json", "--data", "/nowhere");
    json_t *json = program_json(result.out);
    const json_t *suite = suite_of(json, "smartmoe");
    assert_true(json_is_string(json_object_get(suite, "skipped")));
    assert_int_equal(json_array_size(json_object_get(suite, "comparisons")), 0);
    json_decref(json);
    program_free(&result);
    /* the environment names the folder where the command line does not */
    setenv("MOEPLAN_VALIDATION_DATA", "/elsewhere", 1);
    result = EXPECT(0, "validate", "smartmoe");
    program_contains(result.out, "/elsewhere/traces");
    program_free(&result);
    unsetenv("MOEPLAN_VALIDATION_DATA");
}

static void test_wrong_use(void **state)
{
    (void)state;
    program_result result = EXPECT(64, "validate", "smartmoo");
    program_contains(result.err, "did you mean \"smartmoe\"?");
    program_free(&result);
    result = EXPECT(64, "validate", "--ranks", "0");
    program_free(&result);
    result = EXPECT(64, "validate", "--ranks", "two");
    program_free(&result);
    result = EXPECT(0, "validate", "--list");
    program_contains(result.out, "smartmoe");
    program_free(&result);
    result = EXPECT(0, "validate", "--list", "--json");
    json_t *json = program_json(result.out);
    assert_true(json_is_array(json));
    json_decref(json);
    program_free(&result);
}

/* A folder with the suite's files, each spoilt: refused, by name. */
static void test_hostile_data(void **state)
{
    (void)state;
    char *trace = program_path("traces"), *line = NULL;
    assert_true(asprintf(&line, "mkdir -p %s/smartmoe", trace) > 0);
    assert_int_equal(system(line), 0);
    char *file = program_path("traces/smartmoe/smartmoe_trace.npz");
    program_write(file, "PK\003\004 this is no archive");
    program_result result = EXPECT(1, "validate", "smartmoe", "--data", program_folder);
    program_contains(result.err, "smartmoe_trace.npz: error: no ZIP archive, or cut at its end");
    program_free(&result);
    free(file);
    free(line);
    free(trace);
}

/* Where the published data is: the environment's folder, else the one beside the sources. */
static const char *data_folder(void)
{
    static const char beside[] = MOE_TEST_SOURCE_DIR "/../shared/data";
    const char *named = getenv("MOEPLAN_VALIDATION_DATA");
    const char *folder = named != NULL && *named != '\0' ? named : beside;
    char path[4096];
    snprintf(path, sizeof path, "%s/traces/smartmoe/smartmoe_trace.npz", folder);
    return access(path, R_OK) == 0 ? folder : NULL;
}

/* Every seventh of the 49 iterations of Fig. 11, 24 layers each; every 25th of Fig. 13's 300 samples. */
static void test_smartmoe(void **state)
{
    (void)state;
    const char *data = data_folder();
    if (data == NULL) {
        print_message("skipped: the data of SmartMoE's artifact is not there\n");
        skip();
    }
    char *out = program_path("out");
    program_result result =
        EXPECT(0, "validate", "smartmoe", "--quick", "--json", "--data", data, "--out", out);
    json_t *json = program_json(result.out);
    const json_t *suite = suite_of(json, "smartmoe");
    const json_t *group = group_of(suite, "Fig. 11: nothing fitted");
    assert_int_equal(json_integer_value(json_object_get(group, "count")), 7 * 24);
    assert_int_equal(json_integer_value(json_object_get(group, "unusable")), 0);
    /* which points and which machine they are is known when the artifact's own estimate comes out exactly */
    const json_t *figures = json_object_get(suite, "figures");
    const json_t *estimate =
        json_object_get(figures, "Fig. 11: SmartMoE's estimate recomputed for hidden 2048, "
                                 "A100, 8 ranks: largest relative difference");
    assert_true(json_is_number(estimate) && json_number_value(estimate) < 1e-12);
    /* the routing must explain the times, whatever the rates are */
    assert_true(json_number_value(json_object_get(group, "pearson")) > 0.95);
    json_decref(json);
    program_free(&result);
    char *markdown = program_path("out/smartmoe.md"), *text = program_read(markdown);
    program_contains(text, "# smartmoe:");
    free(text);
    free(markdown);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_data),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_hostile_data),
        cmocka_unit_test(test_smartmoe),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
