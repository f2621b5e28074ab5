/* EPLB: the published program's decisions, and the policy around them. */
#include "tests/policy_fixture.h"

#include "policies/placement/eplb_balance.h"

#include <jansson.h>

/* --- the algorithm ---------------------------------------------------------------------------- */

/* The example of the published program's README: two layers, 12 experts in 4 groups, 16 slots on two nodes of
 * four devices; what it prints. */
static const float readme_weight[2][12] = {
    {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86},
    {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27},
};
static const int readme_slots[2][16] = {
    {5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1},
    {7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1},
};
static const moe_eplb_shape readme_shape = {12, 16, 4, 2, 8};

static void the_readme_of_eplb(void **unused)
{
    (void)unused;
    moe_arena *arena = moe_arena_create(NULL);
    for (int layer = 0; layer < 2; layer++) {
        int slots[16], count[12];
        moe_eplb_balance(arena, &readme_shape, readme_weight[layer], slots, NULL, count);
        assert_memory_equal(slots, readme_slots[layer], sizeof slots);
        for (int e = 0; e < 12; e++) {
            int held = 0;
            for (int s = 0; s < 16; s++)
                held += slots[s] == e;
            assert_int_equal(held, count[e]);
        }
    }
    talloc_free(arena);
}

static void what_does_not_divide_is_refused(void **unused)
{
    (void)unused;
    static const struct {
        moe_eplb_shape shape;
        const char *part;
    } cases[] = {
        {{12, 16, 5, 1, 8}, "groups"}, {{12, 15, 4, 2, 8}, "slots"}, {{12, 8, 4, 2, 8}, "fewer"},
        {{12, 14, 4, 2, 7}, "nodes"},  {{0, 8, 1, 1, 8}, "nothing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *wrong = moe_eplb_refuses(&cases[i].shape);
        assert_non_null(wrong);
        assert_non_null(strstr(wrong, cases[i].part));
    }
    assert_null(moe_eplb_refuses(&readme_shape));
    /* Three nodes do not divide four groups: one pool, whatever they do to eight devices. */
    assert_null(moe_eplb_refuses(&(moe_eplb_shape){12, 16, 4, 3, 8}));
}

/* With one group and node, the most loaded device is at most one replica above the mean: each device takes the
 * same number, greedily. What is checked is what any packing has to give: coverage, room, replicas by load. */
static void any_weights_give_a_sound_placement(void **unused)
{
    (void)unused;
    moe_arena *arena = moe_arena_create(NULL);
    gsl_rng *random = moe_random_create(7, "eplb", 0);
    for (int round = 0; round < 200; round++) {
        const moe_eplb_shape shape = {16, 24, round % 2 ? 4 : 1, round % 2 ? 2 : 1, 8};
        float weight[16];
        int slots[24], replica[24], count[16];
        for (int e = 0; e < 16; e++)
            weight[e] = (float)floor(1000 * pow(gsl_rng_uniform(random), 3));
        moe_eplb_balance(arena, &shape, weight, slots, replica, count);
        int total = 0;
        for (int e = 0; e < 16; e++) {
            assert_true(count[e] >= 1);
            total += count[e];
        }
        assert_int_equal(total, 24);
        for (int a = 0; a < 16; a++) {
            for (int b = 0; b < 16 && shape.nodes == 1; b++) {
                /* Nobody with two replicas would have been better served by giving one away. */
                if (count[a] > 1)
                    assert_true(weight[a] / (float)(count[a] - 1) >= weight[b] / (float)count[b]);
            }
        }
        for (int s = 0; s < 24; s++)
            assert_in_range(replica[s], 0, count[slots[s]] - 1);
    }
    gsl_rng_free(random);
    talloc_free(arena);
}

/* --- other vectors of the same program, where they are at hand --------------------------------- */

static int number(const json_t *object, const char *key)
{
    return (int)json_integer_value(json_object_get(object, key));
}

static void compare_layer(moe_arena *arena, const json_t *one, const moe_eplb_shape *shape,
                          size_t layer)
{
    const json_t *weights = json_array_get(json_object_get(one, "weight"), layer);
    const json_t *expected = json_array_get(json_object_get(one, "phy2log"), layer);
    const json_t *counts = json_array_get(json_object_get(one, "logcnt"), layer);
    float weight[64];
    int slots[128], count[64];
    assert_true(shape->experts <= 64 && shape->slots <= 128);
    for (int e = 0; e < shape->experts; e++)
        weight[e] = (float)json_number_value(json_array_get(weights, (size_t)e));
    moe_eplb_balance(arena, shape, weight, slots, NULL, count);
    for (int s = 0; s < shape->slots; s++)
        assert_int_equal(slots[s], json_integer_value(json_array_get(expected, (size_t)s)));
    for (int e = 0; e < shape->experts; e++)
        assert_int_equal(count[e], json_integer_value(json_array_get(counts, (size_t)e)));
}

static void vectors_of_the_published_program(void **unused)
{
    (void)unused;
    json_t *all =
        json_load_file(MOE_TEST_SOURCE_DIR "/../shared/data/golden/eplb_small_cases.json", 0, NULL);
    if (all == NULL) {
        print_message("no eplb_small_cases.json beside the project\n");
        skip();
    }
    moe_arena *arena = moe_arena_create(NULL);
    size_t index;
    const json_t *one;
    json_array_foreach(json_object_get(all, "cases"), index, one)
    {
        const moe_eplb_shape shape = {
            (int)json_array_size(json_array_get(json_object_get(one, "weight"), 0)),
            number(one, "num_replicas"), number(one, "num_groups"), number(one, "num_nodes"),
            number(one, "num_gpus")};
        assert_null(moe_eplb_refuses(&shape));
        for (size_t layer = 0; layer < json_array_size(json_object_get(one, "weight")); layer++)
            compare_layer(arena, one, &shape, layer);
    }
    assert_true(index >= 6);
    talloc_free(arena);
    json_decref(all);
}

/* --- the policy ------------------------------------------------------------------------------- */

static fixture *serving(int layers, int experts)
{
    fixture *f = fixture_open(2, 2, 4, layers, experts);
    f->problem.options.kind = MOE_STEP_PREFILL;
    f->problem.options.sequences = 1;
    return f;
}

static void training_and_odd_slots_are_refused(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 8);
    assert_null(fixture_create(f, &moe_policy_eplb, "redundant_experts: 4"));
    fixture_close(f);
    f = serving(1, 8);
    assert_null(fixture_create(f, &moe_policy_eplb, "redundant_experts: 3"));
    assert_int_equal(moe_diag_error_count(f->diag), 1);
    fixture_close(f);
}

/* The hot expert of four times the mean gets three of the four extra slots; the device loads even out and every
 * assignment is dispatched. */
static void a_hot_expert_is_spread(void **unused)
{
    (void)unused;
    fixture *f = serving(1, 8);
    assert_non_null(fixture_create(f, &moe_policy_eplb, "{redundant_experts: 4, interval: 1}"));
    const double loads[8] = {400, 100, 100, 100, 100, 100, 100, 100};
    moe_history_push(f->history, loads);
    moe_decision decision = fixture_before(f, 1);
    assert_null(moe_placement_check(f->placement, &f->problem.layout, 0));
    assert_true(moe_set_count(moe_placement_copies(f->placement, 0, 0), f->placement->words) >= 3);
    assert_true(decision.move_count > 0);
    assert_true(decision.planning_s > 0);
    for (size_t i = 0; i < decision.move_count; i++)
        assert_true(decision.moves[i].source != decision.moves[i].target &&
                    decision.moves[i].bytes == moe_network_expert_bytes(&f->network));
    for (int source = 0; source < 4; source++)
        for (int e = 0; e < 8; e++)
            *fixture_count(f, source, e) = (uint32_t)loads[e] / 4;
    moe_gate gate = fixture_gate(f, 1, 0);
    moe_route route = fixture_dispatch(f, &gate, moe_placement_copies(f->placement, 0, 0));
    double total = 0;
    double most = 0;
    for (int d = 0; d < 4; d++) {
        double device = 0;
        for (int e = 0; e < 8; e++) {
            device += route.rows[d * 8 + e];
            if (route.rows[d * 8 + e] > 0)
                assert_true(moe_set_has(moe_placement_copies(f->placement, 0, e), d));
        }
        total += device;
        most = fmax(most, device);
    }
    assert_true(total == 1100);
    assert_true(most < 1.2 * 1100 / 4);
    /* The same loads again: nothing changes, nothing travels. */
    assert_int_equal(fixture_before(f, 2).move_count, 0);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_readme_of_eplb),
        cmocka_unit_test(what_does_not_divide_is_refused),
        cmocka_unit_test(any_weights_give_a_sound_placement),
        cmocka_unit_test(vectors_of_the_published_program),
        cmocka_unit_test(training_and_odd_slots_are_refused),
        cmocka_unit_test(a_hot_expert_is_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
