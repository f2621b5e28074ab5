/* Steps that serve: hand-computed tiny models, the forward half of training where both coincide,
 * and what must be monotone. */
#include "tests/step_fixture.h"

#include "models/serving.h"
#include "sim/engine.h"

/* --- attention -------------------------------------------------------------------------------- */

static const moe_network windowed = {.layers = 2,
                                     .hidden = 8,
                                     .heads = 2,
                                     .head_dim = 4,
                                     .sliding_window = 10,
                                     .full_attention_every = 2,
                                     .causal = true,
                                     .sequence = 100,
                                     .parameter_dtype = MOE_BF16};

static void test_attended(void **state)
{
    (void)state;
    /* Layer 0 has the window of 10, layer 1 has none. */
    moe_serving_batch batch = {.sequences = 2, .tokens = 12, .context = 0}; /* prompts of 6 */
    assert_near(moe_prefill_attended(&windowed, 0, &batch), 3);
    batch.context = 4; /* 4 to 10: just fills it */
    assert_near(moe_prefill_attended(&windowed, 0, &batch), 7);
    batch.context = 7; /* half way up, from 7 to 10, then 10: (3 * 8.5 + 3 * 10) / 6 */
    assert_near(moe_prefill_attended(&windowed, 0, &batch), 9.25);
    batch.context = 20;
    assert_near(moe_prefill_attended(&windowed, 0, &batch), 10);
    assert_near(moe_prefill_attended(&windowed, 1, &batch), 23);
    assert_near(moe_decode_attended(&windowed, 0, 20), 10);
    assert_near(moe_decode_attended(&windowed, 1, 20), 20);
}

/* A prompt as long as training's sequence, nothing cached: the same. */
static void test_whole_prompts_are_training(void **state)
{
    (void)state;
    const moe_serving_batch batch = {.sequences = 3, .tokens = 300, .context = 0};
    for (int layer = 0; layer < 2; layer++) {
        assert_near(moe_prefill_attended(&windowed, layer, &batch),
                    moe_network_attended(&windowed, layer));
        moe_serving_work work = moe_prefill_work(&windowed, layer, &batch);
        assert_near(work.flop, moe_network_layer_flop(&windowed, layer, 300));
        assert_near(work.bytes, moe_network_layer_memory_bytes(&windowed, layer, 300));
    }
}

/* Keys and values of 8 elements of two bytes each: 32 bytes a token; scores 2 * 20 * (8 + 8). */
static void test_decode_by_hand(void **state)
{
    (void)state;
    const moe_serving_batch batch = {.sequences = 5, .tokens = 5, .context = 20};
    moe_serving_work work = moe_decode_attention_work(&windowed, 1, &batch);
    assert_near(work.flop, 5 * 2 * 20 * 16.0);
    assert_near(work.bytes, 5 * 20 * 32.0);
    work = moe_decode_projection_work(&windowed, 1, &batch);
    assert_near(work.flop, 5 * (4 * 2 * 64.0)); /* Q, K, V, O; no gate: there are no experts */
}

/* DeepSeek-V2-Lite's attention, absorbed: 16 heads, r = 512, p = 64, n = v = 128. */
static void test_absorbed_mla_by_hand(void **state)
{
    (void)state;
    const moe_network network = {.layers = 1,
                                 .hidden = 2048,
                                 .attention = MOE_ATTENTION_MLA,
                                 .heads = 16,
                                 .kv_lora_rank = 512,
                                 .qk_nope_head_dim = 128,
                                 .qk_rope_head_dim = 64,
                                 .v_head_dim = 128,
                                 .causal = true,
                                 .sequence = 4096,
                                 .parameter_dtype = MOE_BF16};
    const moe_serving_batch batch = {.sequences = 1, .tokens = 1, .context = 1000};
    moe_serving_work work = moe_decode_attention_work(&network, 0, &batch);
    assert_near(work.flop, 1000.0 * 2 * 16 * (576 + 512));
    assert_near(work.bytes, 1000 * 576 * 2.0);
    work = moe_decode_projection_work(&network, 0, &batch);
    double weights = 2048 * 16 * 192.0 + 2048 * 576.0 + 512 * 16 * 256.0 + 16 * 128 * 2048.0;
    assert_near(work.flop, 2 * weights);
    /* Prefill expands what is cached: 2 * 512 * 16 * 256 FLOPs a token. */
    const moe_serving_batch none = {.sequences = 1, .tokens = 1, .context = 0};
    double more = moe_prefill_work(&network, 0, &batch).flop -
                  moe_prefill_work(&network, 0, &none).flop -
                  moe_network_score_flop(&network, 1, 1000);
    assert_true(fabs(more - 1000 * 2 * 512 * 16 * 256.0) < 1e-9 * more);
}

/* --- programs --------------------------------------------------------------------------------- */

static step_fixture *open_serving(int kind, int layers, unsigned seed)
{
    step_fixture *f = step_fixture_open(2, 2, 4, layers, 8);
    gsl_rng *random = moe_random_create(seed, "serving", 0);
    f->network.vocabulary = 1000;
    f->network.causal = true;
    f->options.kind = kind;
    f->options.sequences = kind == MOE_STEP_DECODE ? f->options.tokens : 1;
    f->options.context = kind == MOE_STEP_DECODE ? 100 : 0;
    step_fixture_replicate(f, random, 0.2);
    step_fixture_route(f, random);
    gsl_rng_free(random);
    return f;
}

static double execute_s(step_fixture *f)
{
    const moe_program *program = step_fixture_build(f);
    const moe_sharing sharing = {.rule = MOE_SHARE_PER_COLLECTIVE};
    moe_diag *diag = moe_diag_create(f, NULL);
    moe_timeline *timeline = moe_timeline_create(f, program->devices);
    void *engine = moe_engine_analytic.open(f, f->cluster, &sharing, diag);
    assert_null(moe_program_check(program));
    assert_int_equal(moe_engine_analytic.execute(engine, program, timeline, diag), MOE_OK);
    moe_engine_analytic.close(engine);
    assert_null(moe_timeline_check(program, timeline, 1e-9));
    return timeline->step_s;
}

static int count_named(const moe_program *program, const char *name)
{
    int count = 0;
    for (int id = 0; id < program->op_count; id++)
        count += strcmp(program->ops[id].name, name) == 0;
    return count;
}

static void assert_same_op(const step_fixture *f, const moe_op *a, const moe_op *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->layer, b->layer);
    assert_int_equal(a->traffic == NULL, b->traffic == NULL);
    for (int d = 0; a->duration_s != NULL && d < f->layout.devices; d++)
        assert_near(a->duration_s[d], b->duration_s[d]);
    if (a->traffic != NULL)
        assert_near(moe_traffic_alone_s(a->traffic, f->cluster),
                    moe_traffic_alone_s(b->traffic, f->cluster));
}

/* Operation for operation, up to training's head; there serving has its own, and then nothing. */
static void test_prefill_is_the_forward_half_of_training(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 8; seed++) {
        step_fixture *f = open_serving(MOE_STEP_PREFILL, 3, seed);
        f->profile.launch_s = 0; /* heads differ in kernels */
        const moe_program *prefill = step_fixture_build(f);
        f->options.kind = MOE_STEP_TRAIN;
        const moe_program *train = step_fixture_build(f);
        int last = prefill->op_count - 1;
        for (int id = 0; id < last; id++)
            assert_same_op(f, &prefill->ops[id], &train->ops[id]);
        assert_string_equal(prefill->ops[last].name, "head");
        assert_string_equal(train->ops[last].name, "head");
        step_fixture_close(f);
    }
}

static void test_low_latency_has_no_host_in_between(void **state)
{
    (void)state;
    step_fixture *f = open_serving(MOE_STEP_DECODE, 3, 1);
    f->options.low_latency = true;
    f->options.graphs = true;
    const moe_program *program = step_fixture_build(f);
    assert_int_equal(count_named(program, "launch"), 1);
    assert_int_equal(count_named(program, "plan"), 0);
    assert_int_equal(count_named(program, "gather loads"), 0);
    assert_int_equal(count_named(program, "permute"), 0);
    assert_int_equal(count_named(program, "experts forward"), 3);
    f->options.low_latency = false; /* a graph ends where the host waits */
    program = step_fixture_build(f);
    assert_int_equal(count_named(program, "plan"), 3);
    assert_int_equal(count_named(program, "launch"), 1 + 3);
    f->options.micro_batches = 2;
    step_fixture_close(f);
}

/* The profile's curve for low latency where there is one; else that of any all-to-all. */
static void test_low_latency_curve(void **state)
{
    (void)state;
    step_fixture *f = open_serving(MOE_STEP_DECODE, 1, 2);
    moe_collective_curve *curve = &f->profile.collectives[MOE_ALL_TO_ALL_LOW_LATENCY];
    f->options.low_latency = true;
    double full_s = execute_s(f);
    curve->start_s = 1; /* once for dispatch, once for combine */
    assert_near(execute_s(f), full_s + 2);
    curve->intra.count = curve->inter.count = 0;
    assert_near(execute_s(f), full_s);
    assert_true(f->usage.evaluated[MOE_CURVE_COLLECTIVE + MOE_ALL_TO_ALL] > 0);
    step_fixture_close(f);
}

/* One device, one layer: by hand. 64 sequences; a device of 1 TFLOP/s at 0.5 and memory that never
 * binds but for permutation, which low latency does without. */
static void test_one_device_by_hand(void **state)
{
    (void)state;
    step_fixture *f = step_fixture_open(1, 1, 1, 1, 4);
    double rows[4] = {10, 0, 30, 24};
    double pairs[1] = {64};
    const moe_routed_layer routed = {.pairs = pairs, .rows = rows};
    f->options = (moe_step_options){.micro_batches = 1,
                                    .tokens = 64,
                                    .kind = MOE_STEP_DECODE,
                                    .sequences = 64,
                                    .context = 500,
                                    .low_latency = true,
                                    .graphs = true};
    f->step.routed = &routed;
    double projections = 64 * 2 * 4e6 + 64 * 2 * 1e3 * 4;
    double scores = 64 * 2 * 500 * 2e3;
    double experts = 64 * 8e6;
    double expected = (projections + scores + experts) / 0.5e12;
    assert_true(fabs(execute_s(f) - expected) < 1e-6 * expected);
    /* With memory that binds, experts take their weights: three of four, 8 MB each. */
    f->profile.experts[MOE_FORWARD].flop_efficiency = 1e6;
    f->profile.experts[MOE_FORWARD].memory_efficiency = 0.5;
    expected = (projections + scores) / 0.5e12 + (3 * 8e6 + 64 * 2 * 3e3 * 2) / 0.5e12;
    assert_true(fabs(execute_s(f) - expected) < 1e-6 * expected);
    step_fixture_close(f);
}

static void test_monotone_in_context_and_batch(void **state)
{
    (void)state;
    step_fixture *f = open_serving(MOE_STEP_DECODE, 2, 3);
    f->profile.dense.memory_efficiency = 0.5;
    double before_s = 0;
    for (double context = 1; context < 1e6; context *= 10) {
        f->options.context = context;
        double step_s = execute_s(f);
        assert_true(step_s > before_s);
        before_s = step_s;
    }
    for (double batch = 200; batch < 1e4; batch *= 2) {
        f->options.tokens = f->options.sequences = batch;
        double step_s = execute_s(f);
        assert_true(step_s > before_s);
        before_s = step_s;
    }
    step_fixture_close(f);
}

/* Law 6: twice the rates of everything, no latencies: half the time. */
static void test_twice_the_rates_is_half_the_time(void **state)
{
    (void)state;
    for (int kind = MOE_STEP_PREFILL; kind <= MOE_STEP_DECODE; kind++) {
        step_fixture *f = open_serving(kind, 2, 4);
        double once_s = execute_s(f);
        f->spec.device.peak_flop_per_s *= 2;
        f->spec.device.memory_bytes_per_s *= 2;
        f->spec.intra.bandwidth_bytes_per_s *= 2;
        f->spec.nic.bandwidth_bytes_per_s *= 2;
        f->cluster = moe_cluster_create(f, &f->spec, NULL, moe_diag_create(f, NULL));
        f->costs.cluster = f->cluster;
        assert_true(fabs(2 * execute_s(f) - once_s) < 1e-9 * once_s);
        step_fixture_close(f);
    }
}

/* --- memory ----------------------------------------------------------------------------------- */

static void test_memory(void **state)
{
    (void)state;
    step_fixture *f = step_fixture_open(1, 1, 1, 1, 4);
    double rows[4] = {10, 0, 30, 24};
    double pairs[1] = {64};
    const moe_routed_layer routed = {.pairs = pairs, .rows = rows};
    f->step.routed = &routed;
    f->options = (moe_step_options){
        .micro_batches = 1, .tokens = 64, .kind = MOE_STEP_DECODE, .sequences = 64, .context = 500};
    moe_memory memory = step_fixture_memory(f, 0);
    assert_near(memory.kv_cache, 64 * 500 * 2e3 * 2); /* keys and values of 1,000, two bytes each */
    assert_near(memory.gradients, 0);
    assert_near(memory.optimizer, 0);
    assert_near(memory.parameters,
                moe_network_dense_bytes(&f->network) + 4 * moe_network_expert_bytes(&f->network));
    assert_near(memory.activations, (64 * 8e3 + 64 * 6e3) * 2); /* attention, experts */
    f->options.kind = MOE_STEP_PREFILL;                         /* one prompt of 64 after 500 */
    f->options.sequences = 1;
    assert_near(step_fixture_memory(f, 0).kv_cache, 564 * 2e3 * 2);
    f->options.kind = MOE_STEP_TRAIN;
    assert_near(step_fixture_memory(f, 0).kv_cache, 0);
    step_fixture_close(f);
}

static void test_persistent_copies_are_parameters(void **state)
{
    (void)state;
    step_fixture *f = open_serving(MOE_STEP_DECODE, 1, 5);
    f->schedule.persistent_copies = true;
    int held = 0;
    for (int expert = 0; expert < 8; expert++)
        held += moe_set_has(moe_placement_copies(f->placement, 0, expert), 3);
    assert_near(step_fixture_memory(f, 3).parameters,
                moe_network_dense_bytes(&f->network) +
                    held * moe_network_expert_bytes(&f->network));
    step_fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attended),
        cmocka_unit_test(test_whole_prompts_are_training),
        cmocka_unit_test(test_decode_by_hand),
        cmocka_unit_test(test_absorbed_mla_by_hand),
        cmocka_unit_test(test_prefill_is_the_forward_half_of_training),
        cmocka_unit_test(test_low_latency_has_no_host_in_between),
        cmocka_unit_test(test_low_latency_curve),
        cmocka_unit_test(test_one_device_by_hand),
        cmocka_unit_test(test_monotone_in_context_and_batch),
        cmocka_unit_test(test_twice_the_rates_is_half_the_time),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_persistent_copies_are_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
