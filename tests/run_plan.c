/* `moeplan plan` as a user calls it, on a short window of the quickstart: a plan is made, checked,
 * compared, run as given, and refused where it does not suit. */
#include "tests/program.h"

#include <math.h>

#define QUICKSTART MOE_TEST_SOURCE_DIR "/configs/scenarios/quickstart.yaml"
#define WINDOW     "--set", "trace.window=[500, 512]"
#define ANALYTIC   "--engine", "analytic"
/* Homes planned on the first iterations, and the mean of many as the prediction. */
#define SHARDED "--set", "policies.1.reshard_interval=8", "--set", "policies.1.window=8"

enum { HELD_OUT = 4 };

static char *make_plan(const char *name)
{
    char *path = program_path(name);
    program_result made = EXPECT(0, "plan", QUICKSTART, "--policy", "fssdp", "-o", path, WINDOW,
                                 SHARDED, "--train-fraction", "8/12");
    program_contains(made.out, "made from iterations 500 to 507");
    program_contains(made.out, "judged on 508 to 511, which it has not seen");
    print_message("%s", made.out);
    program_free(&made);
    return path;
}

static json_t *json_of(program_result *result)
{
    json_t *json = program_json(result->out);
    program_free(result);
    return json;
}

static double real_at(const json_t *json, const char *outer, const char *inner)
{
    const json_t *value = json_object_get(json_object_get(json, outer), inner);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static double mean_step(const json_t *result, size_t policy)
{
    return real_at(json_array_get(json_object_get(result, "policies"), policy), "step_time_s",
                   "mean");
}

/* --- making --------------------------------------------------------------------------------------- */

static void test_make_and_check(void **state)
{
    (void)state;
    char *path = make_plan("plan.json");
    program_result result = EXPECT(0, "plan", "check", path, QUICKSTART, WINDOW);
    program_contains(result.out,
                     "sound plan: 12 layers x 64 experts on 32 devices in groups of 32");
    program_contains(result.out, "  fits ");
    program_free(&result);
    result = EXPECT(0, "check", path);
    program_contains(result.out, "sound plan");
    program_free(&result);
    result = EXPECT(0, "plan", "diff", path, path, "--json");
    json_t *difference = json_of(&result);
    assert_int_equal(json_integer_value(json_object_get(difference, "experts_moved")), 0);
    assert_int_equal(json_array_size(json_object_get(difference, "copies")), 0);
    json_decref(difference);
    free(path);
}

/* Law 10, and no clock in the file. */
static void test_same_bytes_again(void **state)
{
    (void)state;
    program_result a = EXPECT(0, "plan", QUICKSTART, "--policy", "fssdp", WINDOW, "-j", "1");
    program_result b = EXPECT(0, "plan", QUICKSTART, "--policy", "fssdp", WINDOW, "-j", "3");
    assert_string_equal(a.out, b.out);
    program_free(&a);
    program_free(&b);
}

/* The prediction is what simulating with the plan gives on the same iterations. */
static void test_prediction_is_a_simulation(void **state)
{
    (void)state;
    char *path = make_plan("plan.json");
    char *text = program_read(path), *set_plan = NULL;
    json_t *plan = program_json(text);
    const json_t *prediction = json_object_get(plan, "prediction");
    assert_true(asprintf(&set_plan, "policies.1.plan=%s", path) > 0);
    program_result run = EXPECT(0, "simulate", QUICKSTART, "--json", "--set", set_plan, "--set",
                                "trace.window=[508, 512]", "--policy", "ep", "--policy", "fssdp");
    json_t *result = json_of(&run);
    double ep = real_at(prediction, "step_time_s", "baseline");
    double planned = real_at(prediction, "step_time_s", "plan");
    assert_true(fabs(mean_step(result, 0) / ep - 1) < 1e-9);
    assert_true(fabs(mean_step(result, 1) / planned - 1) < 1e-9);
    double gain = json_number_value(json_object_get(prediction, "gain"));
    assert_true(fabs(gain * planned / ep - 1) < 1e-12);
    assert_true(gain > 1);
    print_message("gain on %d iterations that the plan was not made from: %.2fx\n", HELD_OUT, gain);
    /* A plan is an input like any other. */
    const json_t *inputs = json_object_get(json_object_get(result, "provenance"), "inputs");
    assert_true(json_is_string(json_object_get(inputs, path)));
    json_decref(result);
    json_decref(plan);
    free(set_plan);
    free(text);
    free(path);
}

/* EP's own plan, run as given, is EP: same owners, no copies, tokens to the owners. */
static void test_plan_of_ep_is_ep(void **state)
{
    (void)state;
    char *path = program_path("ep.json"), *set_plan = NULL;
    program_result made =
        EXPECT(0, "plan", QUICKSTART, "--policy", "ep", "-o", path, WINDOW, ANALYTIC, "--json");
    json_t *prediction = json_of(&made);
    assert_true(json_number_value(json_object_get(prediction, "gain")) == 1);
    assert_true(asprintf(&set_plan, "policies.1={name: planned, policy: ep, plan: %s}", path) > 0);
    program_result run = EXPECT(0, "simulate", QUICKSTART, "--json", WINDOW, "--set", set_plan,
                                "--policy", "ep", "--policy", "planned", "--check-laws");
    json_t *result = json_of(&run);
    assert_true(mean_step(result, 0) == mean_step(result, 1));
    json_decref(result);
    json_decref(prediction);
    free(set_plan);
    free(path);
}

/* The seats travel with the plan: it runs where ranks sit as they did. */
static void test_seats_travel(void **state)
{
    (void)state;
    char *path = program_path("seats.json");
    program_result run = EXPECT(0, "plan", QUICKSTART, "--policy", "fssdp", "-o", path, WINDOW,
                                ANALYTIC, "--set", "parallel={ep: 16, order: ep_last}");
    program_free(&run);
    run = EXPECT(0, "plan", "check", path, QUICKSTART, WINDOW, "--set",
                 "parallel={ep: 16, order: ep_last}");
    program_free(&run);
    run = EXPECT(1, "plan", "check", path, QUICKSTART, WINDOW, "--set", "parallel={ep: 16}");
    program_contains(run.err, "seats rank 1 on device 2");
    program_free(&run);
    free(path);
}

/* --- what is refused ------------------------------------------------------------------------------- */

static void expect_refusal(const char *setting, const char *more, const char *why)
{
    program_result run = EXPECT(1, "simulate", QUICKSTART, WINDOW, "--set", setting, "--set", more);
    program_contains(run.err, setting); /* where it was written */
    program_contains(run.err, why);
    program_free(&run);
}

static void test_refused_where_it_does_not_suit(void **state)
{
    (void)state;
    char *path = make_plan("plan.json"), *set_plan = NULL;
    assert_true(asprintf(&set_plan, "policies.0.plan=%s", path) > 0);
    expect_refusal(set_plan, "model.layers=8", "is for 12 MoE layers, expected the scenario's 8");
    expect_refusal(set_plan, "parallel.ep=16",
                   "32 devices an EP group, expected the scenario's 16");
    expect_refusal(set_plan, "parallel.order=hosts_round_robin",
                   "seats rank 1 on device 1, expected the scenario's 8 (parallel.order)");
    expect_refusal("policies.0.plan=/no/such/plan.json", "seed=1", "No such file");
    program_result run = EXPECT(1, "plan", QUICKSTART, "--policy", "ep", WINDOW, "--set", set_plan);
    program_contains(run.err, "runs with a plan already");
    program_free(&run);
    run = EXPECT(1, "plan", "check", path, QUICKSTART, WINDOW, "--set", "cluster.hosts=2", "--set",
                 "parallel.ep=16");
    program_contains(run.err, "is for 32 devices, expected the scenario's 16");
    program_free(&run);
    free(set_plan);
    free(path);
}

static void test_corrupted_plan(void **state)
{
    (void)state;
    char *path = make_plan("plan.json"), *set_plan = NULL;
    char *text = program_read(path);
    char *owners = strstr(text, "\"owners\": [[");
    assert_non_null(owners);
    char *first = owners + strlen("\"owners\": [[");
    char *corrupted = NULL;
    assert_true(asprintf(&corrupted, "%.*s-1%s", (int)(first - text), text,
                         first + strspn(first, "0123456789")) > 0);
    program_write(path, corrupted);
    free(corrupted);
    program_result run = EXPECT(1, "plan", "check", path);
    program_contains(run.err, "layers[0].owners[0][0]");
    program_contains(run.out, "not sound");
    program_free(&run);
    assert_true(asprintf(&set_plan, "policies.0.plan=%s", path) > 0);
    expect_refusal(set_plan, "seed=1", "the plan is named here");
    free(set_plan);
    free(text);
    free(path);
}

static void test_memory(void **state)
{
    (void)state;
    char *path = make_plan("plan.json");
    program_result run = EXPECT(2, "plan", "check", path, QUICKSTART, WINDOW, "--set",
                                "cluster.device.memory=8 GiB");
    program_contains(run.out, "does NOT fit");
    program_free(&run);
    run = EXPECT(2, "plan", QUICKSTART, "--policy", "fssdp", WINDOW, ANALYTIC, "--set",
                 "cluster.device.memory=8 GiB");
    program_contains(run.err, "the plan does not fit into memory");
    program_free(&run);
    free(path);
}

static void test_usage(void **state)
{
    (void)state;
    program_result run = EXPECT(64, "plan", QUICKSTART);
    program_contains(run.err, "--policy NAME");
    program_free(&run);
    static const char *const fractions[] = {"0", "1", "100 %", "-0.5", "half", ""};
    for (size_t i = 0; i < sizeof fractions / sizeof *fractions; i++) {
        run = EXPECT(64, "plan", QUICKSTART, "--policy", "ep", "--train-fraction", fractions[i]);
        program_free(&run);
    }
    run = EXPECT(64, "plan", "diff", "a.json");
    program_free(&run);
    run = EXPECT(64, "plan", "check");
    program_free(&run);
    run = EXPECT(1, "plan", QUICKSTART, "--policy", "fssdp", "--set", "trace.window=[500, 501]");
    program_contains(run.err, "a window of one iteration");
    program_free(&run);
    run = EXPECT(1, "plan", QUICKSTART, "--policy", "fssdp", WINDOW, "--set", "trace.repeat=2");
    program_contains(run.err, "expected 1");
    program_free(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_make_and_check),
        cmocka_unit_test(test_same_bytes_again),
        cmocka_unit_test(test_prediction_is_a_simulation),
        cmocka_unit_test(test_plan_of_ep_is_ep),
        cmocka_unit_test(test_seats_travel),
        cmocka_unit_test(test_refused_where_it_does_not_suit),
        cmocka_unit_test(test_corrupted_plan),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_usage),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
