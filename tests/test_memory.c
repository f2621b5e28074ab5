/* Memory of a device: Hecate's arithmetic, what each option keeps, and that the hot device is
 * fullest. */
#include "tests/step_fixture.h"

/* --- Hecate, Figure 13 ------------------------------------------------------------------------ */

enum { LAYERS = 12, DEVICES = 16, EXPERTS = 256, OWNED = EXPERTS / DEVICES };

/* Copies of each layer on the observed device, beyond the 16 experts it owns. Research 1.10: 4.73
 * times a device's parameters are materialized over 12 layers, 1.18 times the mean in the fullest.
 * A device's parameters are 16 experts, and attention and gate: with d = 1000, f = 2000, 4 d^2 +
 * 256 d = 1.064 experts (of 2 d f) a layer, 17.064 in all; so 4.73 * 17.064 = 80.71 copies a layer,
 * 968.6 over all; the fullest layer has 1.18 * 80.71 = 95. */
static const int copies_of_layer[LAYERS] = {81, 77, 80, 95, 78, 79, 82, 80, 76, 81, 79, 81};

/* Device 0 gets experts that others own. */
static void materialize_counts(step_fixture *f)
{
    for (int layer = 0; layer < LAYERS; layer++) {
        for (int i = 0; i < copies_of_layer[layer]; i++) {
            moe_set_add(moe_placement_copies(f->placement, layer, OWNED + i), 0);
        }
    }
}

static double state_bytes(const moe_memory *memory)
{
    return memory->parameters + memory->gradients + memory->optimizer + memory->materialized;
}

static double share_over_ep(const step_fixture *f)
{
    moe_memory memory = step_fixture_memory(f, 0);
    double ep = memory.parameters + memory.gradients + memory.optimizer;
    return state_bytes(&memory) / ep - 1;
}

static step_fixture *hecate(void)
{
    gsl_rng *random = moe_random_create(1, "hecate", 0);
    step_fixture *f = step_fixture_open(2, 8, DEVICES, LAYERS, EXPERTS);
    materialize_counts(f);
    step_fixture_route(f, random);
    gsl_rng_free(random);
    return f;
}

/* 16 bytes a parameter: 2 + 2 + 12. Copies of parameters: 4.73 * 2 / 16 = 59.1 %; gradients of the
 * fullest layer: 1.18 * 4.73 / 12 * 2 / 16 = 5.8 %. Together 64.9 %; re-materialized twice 5.8 %
 * = 11.6 %. */
static void test_hecates_arithmetic(void **state)
{
    (void)state;
    step_fixture *f = hecate();
    int sum = 0;
    for (int layer = 0; layer < LAYERS; layer++) {
        sum += copies_of_layer[layer];
    }
    double own = OWNED + (4e6 + EXPERTS * 1e3) / 4e6;
    assert_true(fabs(sum / (LAYERS * own) - 4.73) < 0.005);
    assert_true(fabs(95.0 * LAYERS / sum - 1.18) < 0.005);
    double window = 95 / (LAYERS * own) / 8;
    assert_true(fabs(share_over_ep(f) - (sum / (LAYERS * own) / 8 + window)) < 1e-12);
    assert_true(fabs(share_over_ep(f) - 0.649) < 0.001);
    f->schedule.rematerialize = true;
    assert_true(fabs(share_over_ep(f) - 2 * window) < 1e-12);
    assert_true(fabs(share_over_ep(f) - 0.116) < 0.001);
    step_fixture_close(f);
}

/* A window of two layers (95 and 80 in a row), and gradients of all layers where they are held. */
static void test_what_copies_cost(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(2, "hecate", 0);
    step_fixture *f = hecate();
    assert_near(step_fixture_memory(f, 0).materialized, (969 + 95) * 8e6);
    f->schedule.hide_under = MOE_HIDE_LAYER;
    assert_near(step_fixture_memory(f, 0).materialized, (969 + 175) * 8e6);
    f->schedule.rematerialize = true;
    assert_near(step_fixture_memory(f, 0).materialized, (175 + 175) * 8e6);
    f->schedule.accumulate = MOE_REDUCE_HOLD;
    assert_near(step_fixture_memory(f, 0).materialized, (175 + 175) * 8e6);
    f->options.micro_batches = 2;
    step_fixture_route(f, random);
    assert_near(step_fixture_memory(f, 0).materialized, (175 + 969) * 8e6);
    assert_true(step_fixture_memory(f, 1).materialized == 0);
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* Calibrated copies count in their own micro-batch; held gradients of all of them stay. */
static void test_calibrated_copies(void **state)
{
    (void)state;
    static const uint64_t on_3 = 1U << 3;
    static const moe_chunk chunks[] = {{0, &on_3}, {1, &on_3}, {3, &on_3}};
    gsl_rng *random = moe_random_create(3, "calibrated", 0);
    step_fixture *f = step_fixture_open(1, 4, 4, 2, 8);
    f->options.micro_batches = 2;
    step_fixture_route(f, random);
    f->routed[0].calibrated = f->routed[1].calibrated = f->routed[3].calibrated = chunks;
    f->routed[0].calibrated_count = 2;
    f->routed[1].calibrated_count = 3; /* the third is its own */
    f->routed[3].calibrated_count = 1;
    assert_near(step_fixture_memory(f, 3).materialized, (4 + 2) * 8e6);
    f->schedule.accumulate = MOE_REDUCE_HOLD;
    assert_near(step_fixture_memory(f, 3).materialized, (4 + 5) * 8e6);
    step_fixture_close(f);
    gsl_rng_free(random);
}

static void test_slot_bytes(void **state)
{
    (void)state;
    step_fixture *f = step_fixture_open(1, 2, 2, 12, 4);
    f->network.gradient_dtype = MOE_FP32;
    assert_near(moe_memory_slot_bytes(&f->network, &f->schedule), 12 * 8e6 + 16e6);
    f->schedule.rematerialize = true;
    assert_near(moe_memory_slot_bytes(&f->network, &f->schedule), 8e6 + 16e6);
    f->schedule.hide_under = MOE_HIDE_LAYER;
    assert_near(moe_memory_slot_bytes(&f->network, &f->schedule), 2 * (8e6 + 16e6));
    f->schedule.accumulate = MOE_REDUCE_HOLD;
    assert_near(moe_memory_slot_bytes(&f->network, &f->schedule), 2 * 8e6 + 12 * 16e6);
    f->network.layers = 1;
    assert_near(moe_memory_slot_bytes(&f->network, &f->schedule), 8e6 + 16e6);
    step_fixture_close(f);
}

/* One more expert in every layer costs what a slot is said to cost. */
static void test_slot_bytes_are_what_a_copy_costs(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(5, "slot", 0);
    for (int bits = 0; bits < 4; bits++) {
        step_fixture *f = step_fixture_open(1, 2, 2, 5, 4);
        f->schedule.rematerialize = bits & 1;
        f->schedule.hide_under = bits & 2 ? MOE_HIDE_LAYER : MOE_HIDE_ATTENTION;
        for (int layer = 0; layer < 5; layer++) {
            moe_set_add(moe_placement_copies(f->placement, layer, 3), 0);
        }
        step_fixture_route(f, random);
        assert_near(step_fixture_memory(f, 0).materialized,
                    moe_memory_slot_bytes(&f->network, &f->schedule));
        step_fixture_close(f);
    }
    gsl_rng_free(random);
}

/* --- state ------------------------------------------------------------------------------------ */

/* Heterogeneous: device 2 of group 1 owns one expert more in layer 0 than under even sharding. */
static void test_state(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(4, "state", 0);
    step_fixture *f = step_fixture_open(1, 4, 2, 2, 6);
    *moe_placement_owner(f->placement, 0, 1, 5) = 2;
    moe_placement_reset_copies(f->placement);
    step_fixture_route(f, random);
    f->network.vocabulary = 1000;
    f->network.gradient_dtype = MOE_FP32;
    double dense = 2 * (4e6 + 6e3) + 1e6;
    moe_memory memory = step_fixture_memory(f, 2);
    assert_near(memory.parameters, 2 * (dense + 7 * 4e6));
    assert_near(memory.gradients, 4 * (dense + 7 * 4e6));
    assert_near(memory.optimizer, 12 * (dense + 7 * 4e6));
    assert_near(step_fixture_memory(f, 3).parameters, 2 * (dense + 5 * 4e6));
    f->options.optimizer_sharding = MOE_OPTIMIZER_ZERO1;
    memory = step_fixture_memory(f, 2);
    assert_near(memory.optimizer, 12 * (dense / 4 + 7 * 4e6));
    assert_near(memory.gradients, 4 * (dense + 7 * 4e6));
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* --- activations and buffers ------------------------------------------------------------------ */

/* Two devices, two layers: device 0 receives 130 rows, then 120; device 1 70, then 80; 100 sent. */
static const double pairs_of_layer[2][4] = {{90, 10, 40, 60}, {70, 30, 50, 50}};
static const double rows_of_layer[2][8] = {{0, 130, 0, 0, 0, 0, 70, 0},
                                           {100, 20, 0, 0, 0, 0, 45, 35}};

static step_fixture *two_devices(int micro_batches)
{
    step_fixture *f = step_fixture_open(1, 2, 2, 2, 4);
    f->options.micro_batches = micro_batches;
    f->routed = moe_arena_array(f->arena, moe_routed_layer, 2 * (size_t)micro_batches);
    for (int i = 0; i < 2 * micro_batches; i++) {
        f->routed[i].pairs = pairs_of_layer[i % 2];
        f->routed[i].rows = rows_of_layer[i % 2];
    }
    f->step.routed = f->routed;
    return f;
}

/* d = 1000, f = 2000, 2 bytes a value, 100 tokens. */
static void test_activations(void **state)
{
    (void)state;
    step_fixture *f = two_devices(1);
    double attention = 8 * 100 * 1e3 * 2;
    assert_near(step_fixture_memory(f, 0).activations, 2 * attention + 250 * 6e3 * 2);
    assert_near(step_fixture_memory(f, 1).activations, 2 * attention + 150 * 6e3 * 2);
    f->options.recompute = MOE_RECOMPUTE_EXPERTS;
    assert_near(step_fixture_memory(f, 0).activations,
                2 * attention + 250 * 2e3 * 2 + 130 * 4e3 * 2);
    f->options.recompute = MOE_RECOMPUTE_FULL;
    assert_near(step_fixture_memory(f, 0).activations,
                2 * 100 * 1e3 * 2 + attention + 130 * 6e3 * 2);
    f->network.vocabulary = 50000; /* 6 bytes a logit: more than the layer being recomputed */
    assert_near(step_fixture_memory(f, 0).activations, 2 * 100 * 1e3 * 2 + 100 * 5e4 * 6);
    f->options.recompute = MOE_RECOMPUTE_NONE;
    f->network.gated = true;
    assert_near(step_fixture_memory(f, 1).activations,
                2 * attention + 150 * 8e3 * 2 + 100 * 5e4 * 6);
    step_fixture_close(f);
}

/* Of micro-batches that follow one another the fullest counts, not their sum. */
static void test_micro_batches(void **state)
{
    (void)state;
    step_fixture *f = two_devices(3);
    double one = step_fixture_memory(f, 0).activations;
    f->options.micro_batches = 1;
    assert_near(one, step_fixture_memory(f, 0).activations);
    f->options.micro_batches = 3;
    f->routed[3].rows = rows_of_layer[0]; /* 130 instead of 120 */
    assert_near(step_fixture_memory(f, 0).activations, one + 10 * 6e3 * 2);
    step_fixture_close(f);
}

static void test_buffers_and_peak(void **state)
{
    (void)state;
    step_fixture *f = two_devices(1);
    f->memory = (moe_memory_options){.library_bytes = 3e9, .reserved_fraction = 0.05};
    f->routed[0].materialized_count = 0;
    moe_memory memory = step_fixture_memory(f, 0);
    assert_near(memory.buffers, 3e9 + (100 + 130) * 2e3);
    assert_near(step_fixture_memory(f, 1).buffers, 3e9 + (100 + 80) * 2e3);
    assert_near(memory.reserved, 0.05 * 64e9);
    assert_near(memory.capacity, 64e9);
    assert_near(memory.peak,
                state_bytes(&memory) + memory.activations + memory.buffers + memory.reserved);
    step_fixture_close(f);
}

/* All of them choose expert 5, which device 2 owns. */
static void test_hot_device_is_fullest(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(6, "hot", 0);
    step_fixture *f = step_fixture_open(2, 2, 4, 3, 8);
    step_fixture_route(f, random);
    double *pairs = moe_arena_array(f->arena, double, 16);
    double *rows = moe_arena_array(f->arena, double, 32);
    for (int source = 0; source < 4; source++) {
        pairs[4 * source + 2] = 250;
    }
    rows[8 * 2 + 5] = 1000;
    f->routed[1].pairs = pairs;
    f->routed[1].rows = rows;
    double hot = step_fixture_memory(f, 2).peak;
    for (int device = 0; device < 4; device++) {
        assert_true(device == 2 || step_fixture_memory(f, device).peak < hot);
    }
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* --- the estimate ----------------------------------------------------------------------------- */

/* Where every layer is like the estimate's, the estimate is the memory of the step. */
static void test_estimate(void **state)
{
    (void)state;
    step_fixture *f = two_devices(1);
    f->routed[1] = f->routed[0];
    f->network.vocabulary = 70;
    f->memory = (moe_memory_options){.library_bytes = 1e9, .reserved_fraction = 0.1};
    for (int recompute = MOE_RECOMPUTE_NONE; recompute <= MOE_RECOMPUTE_FULL; recompute++) {
        f->options.recompute = recompute;
        f->options.optimizer_sharding = recompute % 2;
        moe_memory step = step_fixture_memory(f, 0);
        moe_memory estimate = moe_memory_estimate(f->cluster, &f->network, &f->layout, &f->options,
                                                  &f->memory, 4, 130);
        assert_memory_equal(&step, &estimate, sizeof step);
    }
    step_fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hecates_arithmetic),
        cmocka_unit_test(test_what_copies_cost),
        cmocka_unit_test(test_calibrated_copies),
        cmocka_unit_test(test_slot_bytes),
        cmocka_unit_test(test_slot_bytes_are_what_a_copy_costs),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_micro_batches),
        cmocka_unit_test(test_buffers_and_peak),
        cmocka_unit_test(test_hot_device_is_fullest),
        cmocka_unit_test(test_estimate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
