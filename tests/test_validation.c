/* The frame of `moeplan validate`: a suite of the test's own, registered through the public contract, with errors
 * that can be worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "reports/validation/smartmoe.h"
#include "reports/validation/validation.h"

static void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-12 * fmax(1, fabs(expected))))
        fail_msg("%.17g instead of %.17g", value, expected);
}

/* ---- a suite --------------------------------------------------------------------------------- */

/* Errors +10 %, -20 %, +5 %, 0; and two that have none. */
static void compare_mixed(moe_validation_outcome *outcome)
{
    moe_validation_compare(outcome, "panel: mixed", "a", 110, 100);
    moe_validation_compare(outcome, "panel: mixed", "b | c", 160, 200);
    moe_validation_compare(outcome, "panel: mixed", "measured nothing", 1, 0);
    moe_validation_compare(outcome, "panel: mixed", "d", 315, 300);
    moe_validation_compare(outcome, "panel: mixed", "predicted nothing", NAN, 1);
    moe_validation_compare(outcome, "panel: mixed", "e", 37, 37);
}

/* Twice what was measured, in the same order but for ties: 1, 3, 3, 8. */
static void compare_doubled(moe_validation_outcome *outcome)
{
    const double measured[] = {1, 3, 3, 8};
    for (int i = 0; i < 4; i++)
        moe_validation_compare(outcome, "doubled", "x", 2 * measured[i], measured[i]);
}

static moe_status run_known(moe_validation_outcome *outcome, const moe_validation_options *options,
                            moe_diag *diag)
{
    (void)diag;
    compare_mixed(outcome);
    if (!options->quick)
        compare_doubled(outcome);
    moe_validation_goal_add(outcome, (moe_validation_goal){"panel: mixed", 0.08751, false, "just"});
    moe_validation_goal_add(outcome, (moe_validation_goal){"panel: mixed", 0.07, true, NULL});
    moe_validation_goal_add(outcome, (moe_validation_goal){"doubled", 0.99, false, "too strict"});
    moe_validation_goal_add(outcome, (moe_validation_goal){"of nobody", 1, false, NULL});
    moe_validation_fitted(outcome, "one constant, %d", 17);
    moe_validation_note(outcome, "a note");
    moe_validation_figure(outcome, "a figure", 2.5);
    return MOE_OK;
}

static moe_status run_skipped(moe_validation_outcome *outcome,
                              const moe_validation_options *options, moe_diag *diag)
{
    (void)diag;
    return moe_validation_file(outcome, options, "no/such/file.csv") == NULL ? MOE_OK
                                                                             : MOE_INTERNAL;
}

static moe_status run_failing(moe_validation_outcome *outcome,
                              const moe_validation_options *options, moe_diag *diag)
{
    (void)outcome;
    (void)options;
    moe_diag_error(diag, (moe_where){0}, "a broken table");
    return MOE_BAD_INPUT;
}

static const moe_validation_suite known = {"known", "by hand", "the test", "ms", run_known};
static const moe_validation_suite skipped = {"absent", "nothing", "nowhere", "s", run_skipped};
static const moe_validation_suite failing = {"failing", "nothing", "nowhere", "s", run_failing};

static moe_validation_outcome *run(void *owner, const moe_validation_suite *suite, bool quick)
{
    moe_status status;
    const moe_validation_options options = {.data = "/nowhere", .quick = quick};
    moe_validation_outcome *outcome =
        moe_validation_run(owner, suite, &options, &status, moe_diag_create(owner, stderr));
    assert_int_equal(status, MOE_OK);
    assert_non_null(outcome);
    return outcome;
}

/* ---- sums ------------------------------------------------------------------------------------ */

static void test_errors(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    size_t count;
    const moe_validation_group *groups = moe_validation_groups(run(owner, &known, false), &count);
    assert_int_equal(count, 2);
    assert_string_equal(groups[0].name, "panel: mixed");
    assert_int_equal(groups[0].count, 4);
    assert_int_equal(groups[0].unusable, 2);
    assert_near(groups[0].mape, (0.10 + 0.20 + 0.05 + 0) / 4);
    assert_near(groups[0].median, (0.05 + 0.10) / 2);
    assert_near(groups[0].worst, -0.20);
    assert_string_equal(groups[0].worst_what, "b | c");
    assert_near(groups[0].bias, (0.10 - 0.20 + 0.05 + 0) / 4);
    assert_near(groups[1].mape, 1);
    assert_near(groups[1].pearson, 1);
    assert_near(groups[1].rank, 1);
    talloc_free(owner);
}

/* Ranks 1 2 3 4 5 against 5 6 7 8 7 -> 1, 2, 3.5, 5, 3.5 by Spearman with ties: worked out by hand. */
static moe_status run_ranks(moe_validation_outcome *outcome, const moe_validation_options *options,
                            moe_diag *diag)
{
    (void)options;
    (void)diag;
    const double measured[] = {1, 2, 3, 4, 5}, predicted[] = {5, 6, 7, 80, 7};
    for (int i = 0; i < 5; i++)
        moe_validation_compare(outcome, "ranks", "x", predicted[i], measured[i]);
    moe_validation_compare(outcome, "two", "x", 1, 2);
    moe_validation_compare(outcome, "two", "x", 2, 1);
    for (int i = 0; i < 4; i++)
        moe_validation_compare(outcome, "flat", "x", 3, 1 + i);
    return MOE_OK;
}

static void test_correlations(void **state)
{
    (void)state;
    static const moe_validation_suite suite = {"ranks", "by hand", "the test", "ms", run_ranks};
    void *owner = talloc_new(NULL);
    size_t count;
    const moe_validation_group *groups = moe_validation_groups(run(owner, &suite, false), &count);
    assert_int_equal(count, 3);
    /* deviations of ranks: -2 -1 0 1 2 and -2 -1 0.5 2 0.5: 8 / sqrt(10 * 9.5) */
    assert_near(groups[0].rank, 8 / sqrt(10 * 9.5));
    assert_true(isnan(groups[1].pearson) &&
                isnan(groups[1].rank)); /* of two points nothing is said */
    assert_true(isnan(groups[2].pearson) && isnan(groups[2].rank)); /* nor without spread */
    talloc_free(owner);
}

static void test_verdicts(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    size_t count;
    const moe_validation_verdict *verdicts =
        moe_validation_verdicts(run(owner, &known, true), &count);
    assert_int_equal(count, 4);
    assert_true(verdicts[0].reached); /* 8.75 % of at most 8.751 % */
    assert_near(verdicts[1].value, 0.075);
    assert_false(verdicts[1].reached);
    assert_true(isnan(verdicts[2].value)); /* --quick: no comparisons */
    assert_false(verdicts[2].reached);
    assert_false(verdicts[3].reached);
    talloc_free(owner);
}

/* ---- what is said ---------------------------------------------------------------------------- */

static char *print(const moe_validation_outcome *outcome, bool markdown)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    if (markdown)
        moe_validation_markdown(outcome, "known.svg", stream);
    else
        moe_validation_text(outcome, stream);
    fclose(stream);
    return text;
}

static void expect(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("expected \"%s\" in:\n%s", part, text);
}

static void test_text(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    char *text = print(run(owner, &known, false), false);
    expect(text, "known: by hand");
    expect(text, "panel: mixed: goal reached: mean error 8.8 %, at most 8.8 % wanted (just)");
    expect(text, "panel: mixed: goal missed: median error 7.5 %, at most 7.0 % wanted");
    expect(text, "of nobody: goal missed: mean error unknown (no comparisons)");
    expect(text, "2 without a relative error");
    expect(text, "one constant, 17");
    expect(text, "a figure: 2.5");
    free(text);
    text = print(run(owner, &known, false), true);
    expect(text, "| panel: mixed | 4 | 8.8 % | 7.5 % | -20.0 % | -1.2 % |");
    expect(text, "b \\| c"); /* or a column would be added */
    expect(text, "(known.svg)");
    free(text);
    text = print(run(owner, &skipped, false), false);
    expect(text, "skipped: its data is not there: /nowhere/no/such/file.csv");
    free(text);
    talloc_free(owner);
}

static void test_json(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    json_t *json = moe_validation_json(run(owner, &known, false));
    assert_non_null(json);
    assert_true(json_is_null(json_object_get(json, "skipped")));
    assert_int_equal(json_array_size(json_object_get(json, "comparisons")), 10);
    assert_int_equal(json_array_size(json_object_get(json, "groups")), 2);
    assert_int_equal(json_array_size(json_object_get(json, "goals")), 4);
    const json_t *group = json_array_get(json_object_get(json, "groups"), 0);
    assert_near(json_number_value(json_object_get(group, "mape")), 0.0875);
    const json_t *nan = json_array_get(json_object_get(json, "comparisons"), 4);
    assert_true(json_is_null(json_object_get(nan, "predicted"))); /* JSON has no NaN */
    json_decref(json);
    json = moe_validation_json(run(owner, &skipped, false));
    assert_true(json_is_string(json_object_get(json, "skipped")));
    assert_int_equal(json_array_size(json_object_get(json, "comparisons")), 0);
    json_decref(json);
    talloc_free(owner);
}

static void test_failure(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_status status;
    const moe_validation_options options = {.data = "/nowhere"};
    assert_null(
        moe_validation_run(owner, &failing, &options, &status, moe_diag_create(owner, NULL)));
    assert_int_equal(status, MOE_BAD_INPUT);
    talloc_free(owner);
}

/* ---- files ----------------------------------------------------------------------------------- */

static bool exists(const char *folder, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    if (file != NULL)
        fclose(file);
    return file != NULL;
}

static void test_files(void **state)
{
    (void)state;
    static const char *const names[] = {"known.md", "known.json", "known.tsv", "known.gnuplot"};
    char folder[] = "/tmp/moeplan-test-XXXXXX", line[128];
    void *owner = talloc_new(NULL);
    assert_non_null(mkdtemp(folder));
    moe_diag *diag = moe_diag_create(owner, NULL);
    assert_int_equal(moe_validation_write(run(owner, &known, false), folder, diag), MOE_OK);
    assert_int_equal(moe_validation_write(run(owner, &skipped, false), folder, diag), MOE_OK);
    assert_int_equal(moe_diag_error_count(diag), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_true(exists(folder, names[i]));
    assert_false(exists(folder, "absent.md"));
    if (system("gnuplot --version >/dev/null 2>&1") == 0)
        assert_true(exists(folder, "known.svg"));
    snprintf(line, sizeof line, "rm -r %s", folder);
    assert_int_equal(system(line), 0);
    /* a file where the folder should be */
    assert_int_not_equal(moe_validation_write(run(owner, &known, false), "/dev/null", diag),
                         MOE_OK);
    talloc_free(owner);
}

/* ---- the factors of `smartmoe` --------------------------------------------------------------- */

/* Known factors come back, from those points alone that may be used. */
static void test_factors(void **state)
{
    (void)state;
    enum { COUNT = 40 };
    smartmoe_seconds seconds[COUNT];
    double measured_s[COUNT];
    bool used[COUNT];
    for (int i = 0; i < COUNT; i++) {
        seconds[i] = (smartmoe_seconds){.experts = 0.02 + 0.001 * (i * 7 % 11),
                                        .exchange = 0.003 + 0.0004 * (i * 5 % 13)};
        used[i] = i % 2 == 0;
        measured_s[i] =
            used[i] ? 1.3 * seconds[i].experts + 0.6 * seconds[i].exchange + 0.011 : 1e6;
    }
    const smartmoe_factors factors = smartmoe_fit(seconds, measured_s, used, COUNT);
    assert_true(fabs(factors.experts - 1.3) <
                1e-9); /* normal equations of a well-posed 20 x 3 system */
    assert_true(fabs(factors.exchange - 0.6) < 1e-9);
    assert_true(fabs(factors.constant_s - 0.011) < 1e-11);
    assert_true(fabs(smartmoe_apply(&factors, &seconds[2]) - measured_s[2]) < 1e-11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),   cmocka_unit_test(test_correlations),
        cmocka_unit_test(test_verdicts), cmocka_unit_test(test_text),
        cmocka_unit_test(test_json),     cmocka_unit_test(test_failure),
        cmocka_unit_test(test_files),    cmocka_unit_test(test_factors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
