/* Steps of networks whose layers differ: dense first layers, shared experts, windows. */
#include "tests/step_fixture.h"

#include "sim/engine.h"

enum { DENSE = 2 };

/* --- looking at programs ---------------------------------------------------------------------- */

static int need(const moe_program *program, const char *name, int layer)
{
    for (int id = 0; id < program->op_count; id++) {
        const moe_op *op = &program->ops[id];
        if (strcmp(op->name, name) == 0 && op->layer == layer) {
            return id;
        }
    }
    fail_msg("no \"%s\" of layer %d", name, layer);
    return -1;
}

static int count_named(const moe_program *program, const char *name)
{
    int count = 0;
    for (int id = 0; id < program->op_count; id++) {
        count += strcmp(program->ops[id].name, name) == 0;
    }
    return count;
}

static double seconds_of(const moe_program *program, const char *name, int layer)
{
    return program->ops[need(program, name, layer)].duration_s[0];
}

static double bytes_of(const moe_program *program, const char *name, int layer)
{
    const moe_traffic *traffic = program->ops[need(program, name, layer)].traffic;
    return traffic->intra_host_bytes + traffic->inter_host_bytes;
}

static double start_of(const moe_timeline *timeline, int op, int device)
{
    return timeline->start_s[op * timeline->devices + device];
}

static double end_of(const moe_timeline *timeline, int op, int device)
{
    return timeline->end_s[op * timeline->devices + device];
}

static moe_timeline *execute(step_fixture *f, const moe_program *program)
{
    moe_diag *diag = moe_diag_create(f, NULL);
    moe_timeline *timeline = moe_timeline_create(f, program->devices);
    void *engine = moe_engine_analytic.open(f, f->cluster, MOE_SHARE_PER_COLLECTIVE, diag);
    assert_null(moe_program_check(program));
    assert_int_equal(moe_engine_analytic.execute(engine, program, timeline, diag), MOE_OK);
    moe_engine_analytic.close(engine);
    return timeline;
}

/* --- the fixture ------------------------------------------------------------------------------ */

/* Two dense layers of width 3000, then two with a shared expert of width 500, on two devices. */
static step_fixture *mixed_layers(double copies)
{
    gsl_rng *random = moe_random_create(1, "mixed layers", 0);
    step_fixture *f = step_fixture_open(1, 2, 2, 2, 4);
    f->profile.launch_s = 1e-6;
    f->network.layers = DENSE + 2;
    f->network.dense_layers = DENSE;
    f->network.dense_ffn = 3000;
    f->network.shared_experts = 1;
    f->network.shared_ffn = 500;
    f->network.vocabulary = 100;
    step_fixture_replicate(f, random, copies);
    step_fixture_route(f, random);
    gsl_rng_free(random);
    return f;
}

/* --- what is there, and what it costs --------------------------------------------------------- */

static void test_dense_layers(void **state)
{
    (void)state;
    step_fixture *f = mixed_layers(0);
    const moe_program *p = step_fixture_build(f);
    double attention_s = 100 * (8e6 + 4e5) / 0.5e12;
    for (int layer = 0; layer < DENSE; layer++) {
        assert_near(seconds_of(p, "attention forward", layer), attention_s);
        assert_near(seconds_of(p, "attention backward", layer), 2 * attention_s);
        assert_near(seconds_of(p, "dense forward", layer), 100 * 4 * 3e6 / 0.5e12);
        assert_near(seconds_of(p, "dense backward", layer), 100 * 8 * 3e6 / 0.5e12);
        assert_near(bytes_of(p, "dense gradients", layer), 2 * 2 * (4e6 + 6e6));
    }
    for (int layer = DENSE; layer < DENSE + 2; layer++) {
        assert_near(seconds_of(p, "attention forward", layer), attention_s + 100 * 8e3 / 0.5e12);
        assert_near(bytes_of(p, "dense gradients", layer), 2 * 2 * (4e6 + 4e3 + 1e6));
        assert_true(need(p, "dispatch", layer) > need(p, "dense forward", DENSE - 1));
    }
    assert_int_equal(count_named(p, "dense forward"), DENSE);
    assert_int_equal(count_named(p, "attention forward"), DENSE + 2);
    assert_int_equal(count_named(p, "dispatch"), 2);
    step_fixture_close(f);
}

/* All parameters that are not in experts are reduced once. */
static void test_gradients_are_whole(void **state)
{
    (void)state;
    step_fixture *f = mixed_layers(0);
    const moe_program *p = step_fixture_build(f);
    double bytes = bytes_of(p, "embedding gradients", -1);
    for (int layer = 0; layer < DENSE + 2; layer++) {
        bytes += bytes_of(p, "dense gradients", layer);
    }
    assert_near(bytes, 2 * 2 * moe_network_dense_parameters(&f->network));
    step_fixture_close(f);
}

/* The shared expert starts with the dispatch, and the routed ones after both. */
static void test_shared_experts_beside_exchange(void **state)
{
    (void)state;
    static const char *const names[][3] = {
        {"dispatch", "shared experts forward", "experts forward"},
        {"combine backward", "shared experts backward", "experts backward"},
        {"dispatch recompute", "shared experts recompute", "experts recompute"}};
    step_fixture *f = mixed_layers(0);
    f->options.recompute = MOE_RECOMPUTE_FULL;
    f->options.interference = false;
    f->profile.launch_s = 0;
    const moe_program *p = step_fixture_build(f);
    const moe_timeline *timeline = execute(f, p);
    for (int i = 0; i < 3; i++) {
        int exchange = need(p, names[i][0], DENSE);
        int shared = need(p, names[i][1], DENSE);
        int experts = need(p, names[i][2], DENSE);
        assert_int_equal(p->ops[shared].part, MOE_DENSE);
        for (int d = 0; d < 2; d++) {
            assert_true(start_of(timeline, shared, d) <= start_of(timeline, exchange, d));
            double both = fmax(end_of(timeline, shared, d), end_of(timeline, exchange, d));
            assert_near(start_of(timeline, experts, d), both);
        }
    }
    double once = 100 * 2 * 2e3 * 500 / 0.5e12;
    assert_near(seconds_of(p, "shared experts forward", DENSE), once);
    assert_near(seconds_of(p, "shared experts recompute", DENSE), once);
    assert_near(seconds_of(p, "shared experts backward", DENSE), 2 * once);
    assert_int_equal(count_named(p, "dense recompute"), DENSE);
    step_fixture_close(f);
}

/* Under attention the first materialization waits for the dense layers; a layer ahead, for all of
 * them but the last. */
static void test_first_materialization(void **state)
{
    (void)state;
    step_fixture *f = mixed_layers(0.5);
    f->options.interference = false;
    f->profile.launch_s = 0;
    static const int awaited[] = {[MOE_HIDE_ATTENTION] = DENSE - 1, [MOE_HIDE_LAYER] = DENSE - 2};
    for (int hide = MOE_HIDE_ATTENTION; hide <= MOE_HIDE_LAYER; hide++) {
        f->schedule.hide_under = (moe_hide)hide;
        const moe_program *p = step_fixture_build(f);
        const moe_timeline *timeline = execute(f, p);
        int materialize = need(p, "materialize", DENSE);
        assert_near(start_of(timeline, materialize, 0),
                    end_of(timeline, need(p, "dense forward", awaited[hide]), 0));
        assert_int_equal(count_named(p, "materialize"), 2);
    }
    step_fixture_close(f);
}

/* Layers 0 and 2 see 10 tokens, layers 1 and 3 half of 100. */
static void test_windows(void **state)
{
    (void)state;
    step_fixture *f = mixed_layers(0);
    f->network.sliding_window = 10;
    f->network.full_attention_every = 2;
    f->network.causal = true;
    const moe_program *p = step_fixture_build(f);
    for (int layer = 0; layer < DENSE + 2; layer++) {
        double attended = layer % 2 ? 50 : 9.5;
        double gate = layer < DENSE ? 0 : 8e3;
        assert_near(seconds_of(p, "attention forward", layer),
                    100 * (8e6 + 4e3 * attended + gate) / 0.5e12);
    }
    step_fixture_close(f);
}

/* --- memory ----------------------------------------------------------------------------------- */

static double rows_of(const step_fixture *f, int layer, int device)
{
    double rows = 0;
    for (int e = 0; e < f->placement->experts; e++) {
        rows += f->routed[layer].rows[device * f->placement->experts + e];
    }
    return rows;
}

static void test_activations(void **state)
{
    (void)state;
    step_fixture *f = mixed_layers(0);
    f->network.vocabulary = 0;
    double rows = rows_of(f, 0, 0) + rows_of(f, 1, 0);
    double most = fmax(rows_of(f, 0, 0), rows_of(f, 1, 0));
    double tokens = 4 * 8e3 + 2 * (2 * 500) + 2 * (2 * 3e3);
    assert_near(step_fixture_memory(f, 0).activations, 2 * (100 * tokens + 6e3 * rows));
    f->options.recompute = MOE_RECOMPUTE_FULL;
    double layer = fmax(100 * 2 * 500 + 6e3 * most, 100 * 2 * 3e3);
    assert_near(step_fixture_memory(f, 0).activations, 2 * (100 * 4e3 + 100 * 8e3 + layer));
    step_fixture_close(f);
}

/* fp8 weights, MXFP4 experts, bf16 activations. */
static void test_number_formats(void **state)
{
    (void)state;
    step_fixture *f = mixed_layers(0);
    f->network.parameter_dtype = MOE_FP8;
    f->network.expert_dtype = MOE_MXFP4 + 1;
    f->network.activation_dtype = MOE_BF16 + 1;
    double embedding = 100 * 1e3;
    double dense = moe_network_dense_parameters(&f->network);
    moe_memory memory = step_fixture_memory(f, 0);
    assert_near(memory.parameters, dense + embedding + 4 * 4e6 * 17 / 32);
    assert_near(memory.gradients, 2 * (dense + 4 * 4e6));
    const moe_program *p = step_fixture_build(f);
    assert_near(seconds_of(p, "optimizer", -1),
                ((dense + 4 * 4e6) * 26 + memory.parameters) / 0.5e12);
    moe_expert_shape shape = moe_step_expert_shape(&f->network, MOE_FORWARD);
    assert_near(shape.weight_bytes, 4e6 * 17 / 32);
    assert_near(shape.row_bytes, 2 * (1e3 + 2e3) * 2);
    step_fixture_close(f);
}

/* --- all together ----------------------------------------------------------------------------- */

/* Every schedule and recomputation runs, and a step without dense layers and shared experts is
 * shorter. */
static void test_every_schedule(void **state)
{
    (void)state;
    for (int i = 0; i < 24; i++) {
        step_fixture *f = mixed_layers(0.4);
        f->schedule.hide_under = (moe_hide)(i % 2);
        f->schedule.rematerialize = i / 2 % 2;
        f->options.optimizer_sharding = i / 4 % 2;
        f->options.recompute = i / 8;
        f->network.vocabulary = i % 3 ? 100 : 0;
        double mixed_s = execute(f, step_fixture_build(f))->step_s;
        f->network.layers = 2;
        f->network.dense_layers = 0;
        f->network.shared_experts = 0;
        assert_true(execute(f, step_fixture_build(f))->step_s < mixed_s);
        step_fixture_close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_layers),
        cmocka_unit_test(test_gradients_are_whole),
        cmocka_unit_test(test_shared_experts_beside_exchange),
        cmocka_unit_test(test_first_materialization),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_number_formats),
        cmocka_unit_test(test_every_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
