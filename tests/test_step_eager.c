/* A layer alone, as a benchmark of it runs: without attention and optimizer; its experts one after another; its tokens
 * exchanged place by place. Expected seconds are worked out from the fixture's round numbers. */
#include "tests/step_fixture.h"

#include "sim/engine.h"

enum { DEVICES = 2, EXPERTS = 4 };

static const double flop_per_s = 5e11,
                    bytes_per_s = 5e11; /* the fixture's device at half its peak */

/* Rows of experts 0 and 1 on device 0, of expert 2 on device 1; 1,000 tokens cross each way. */
static step_fixture *open_layer(void)
{
    step_fixture *f = step_fixture_open(1, DEVICES, DEVICES, 1, EXPERTS);
    static const double rows[DEVICES * EXPERTS] = {3000, 1000, 0, 0, 0, 0, 2000, 0};
    static const double pairs[DEVICES * DEVICES] = {3000, 1000, 1000, 1000};
    f->options.experts_alone = true;
    f->options.expert_by_expert = true;
    f->routed = moe_arena_array(f->arena, moe_routed_layer, 1);
    f->routed[0] = (moe_routed_layer){.pairs = pairs, .rows = rows};
    f->step.routed = f->routed;
    return f;
}

static const moe_op *find(const moe_program *program, const char *name, int *count)
{
    const moe_op *found = NULL;
    *count = 0;
    for (int i = 0; i < program->op_count; i++) {
        if (strcmp(program->ops[i].name, name) == 0) {
            found = &program->ops[i];
            ++*count;
        }
    }
    return found;
}

static double step_s(const step_fixture *f, const moe_program *program)
{
    moe_diag *diag = moe_diag_create((void *)f->arena, stderr);
    void *engine = moe_engine_analytic.open(NULL, f->cluster, NULL, diag);
    moe_timeline *timeline = moe_timeline_create(f->arena, DEVICES);
    assert_int_equal(moe_engine_analytic.execute(engine, program, timeline, diag), MOE_OK);
    moe_engine_analytic.close(engine);
    assert_null(moe_timeline_check(program, timeline, 1e-9));
    return timeline->step_s;
}

static void test_layer_alone(void **state)
{
    (void)state;
    static const char *const absent[] = {"attention forward", "attention backward",
                                         "dense gradients",   "optimizer",
                                         "embedding forward", "head"};
    static const char *const present[] = {"dispatch",         "experts forward",
                                          "combine",          "combine backward",
                                          "experts backward", "dispatch backward"};
    step_fixture *f = open_layer();
    const moe_program *program = step_fixture_build(f);
    int count;
    assert_null(moe_program_check(program));
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        assert_null(find(program, absent[i], &count));
    for (size_t i = 0; i < sizeof present / sizeof *present; i++)
        assert_non_null(find(program, present[i], &count));
    f->options.experts_alone = false; /* and it is that option that left them out */
    program = step_fixture_build(f);
    assert_non_null(find(program, "attention forward", &count));
    assert_non_null(find(program, "optimizer", &count));
    step_fixture_close(f);
}

/* 8 MFLOP a row and phase; v = 2 bytes, d = 1000, u = f = 2000, no biases; gradients of an expert 8 MB. */
static double forward_s(double rows)
{
    return rows * (8e6 / flop_per_s + 2 * (2000 + 2000 + 2 * 1000) / bytes_per_s);
}

static double backward_s(double rows, int experts)
{
    return rows * (16e6 / flop_per_s + 2 * (2 * 2000 + 2000 + 2 * 1000) / bytes_per_s) +
           experts * 3 * 8e6 / bytes_per_s;
}

/* Up to the bytes of the GEMMs, a millionth of their FLOPs' time in a 2.7-norm. */
static void assert_seconds(double value, double expected)
{
    assert_true(fabs(value / expected - 1) < 1e-9);
}

static void test_experts_one_by_one(void **state)
{
    (void)state;
    step_fixture *f = open_layer();
    const moe_program *program = step_fixture_build(f);
    int count;
    const moe_op *forward = find(program, "experts forward", &count);
    assert_seconds(forward->duration_s[0], forward_s(3000) + forward_s(1000));
    assert_seconds(forward->duration_s[1], forward_s(2000));
    const moe_op *backward = find(program, "experts backward", &count);
    assert_seconds(backward->duration_s[0], backward_s(4000, 2));
    assert_seconds(backward->duration_s[1], backward_s(2000, 1));
    step_fixture_close(f);
}

/* Biases: written before the GEMM adds to them, read, and summed up: 3 (u + d) v bytes a row in all. */
static void test_biases(void **state)
{
    (void)state;
    step_fixture *f = open_layer();
    int count;
    const moe_op *plain = find(step_fixture_build(f), "experts forward", &count);
    f->network.bias = true;
    const moe_op *biased = find(step_fixture_build(f), "experts forward", &count);
    assert_seconds(biased->duration_s[1] - plain->duration_s[1],
                   2000 * 2 * 3000 * 2.0 / bytes_per_s);
    step_fixture_close(f);
}

/* A thousand tokens each way at once take as long as one way; place by place twice as long, and there are four
 * exchanges. A place that nobody sends to costs nothing. */
static void test_places(void **state)
{
    (void)state;
    static const double places[3 * DEVICES * DEVICES] = {
        3000, 1000, 0,    0, /* place 0: 0 sends to 1 */
        0,    0,    0,    0, /* place 1: nobody */
        0,    0,    1000, 1000 /* place 2: 1 sends to 0 */};
    step_fixture *f = open_layer();
    int count;
    const moe_program *program = step_fixture_build(f);
    const double at_once_s = step_s(f, program);
    f->routed[0].slot_pairs = places;
    f->routed[0].slots = 3;
    program = step_fixture_build(f);
    assert_null(moe_program_check(program));
    find(program, "dispatch", &count);
    assert_int_equal(count, 2);
    find(program, "dispatch backward", &count);
    assert_int_equal(count, 2);
    assert_seconds(step_s(f, program) - at_once_s, 4 * 1000 * 2e3 / 100e9);
    step_fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_alone),
        cmocka_unit_test(test_experts_one_by_one),
        cmocka_unit_test(test_biases),
        cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
