/* What policies stand on: history, predictions, the table, chunks; and EP, the simplest of them. */
#include "tests/policy_fixture.h"

static void near(double value, double expected)
{
    if (fabs(value - expected) > 1e-12 * fmax(1, fabs(expected)))
        fail_msg("%.17g is not %.17g", value, expected);
}

/* --- history -------------------------------------------------------------------------------- */

/* loads[l][g][e] = base + 100 l + 10 g + e. */
static void push_marked(moe_history *history, double base)
{
    double loads[2][2][3];
    for (int l = 0; l < 2; l++) {
        for (int g = 0; g < 2; g++) {
            for (int e = 0; e < 3; e++)
                loads[l][g][e] = base + 100 * l + 10 * g + e;
        }
    }
    moe_history_push(history, &loads[0][0][0]);
}

static void history_is_newest_first(void **unused)
{
    (void)unused;
    moe_history *history = moe_history_create(NULL, 2, 2, 3);
    assert_int_equal(moe_history_length(history), 0);
    push_marked(history, 1000);
    push_marked(history, 2000);
    assert_int_equal(moe_history_length(history), 2);
    near(moe_history_loads(history, 1, 0, 0)[0], 2000);
    near(moe_history_loads(history, 2, 1, 1)[2], 1112);
    near(moe_history_loads(history, 1, 1, 0)[1], 2101);
    talloc_free(history);
}

static void history_means_over_what_there_is(void **unused)
{
    (void)unused;
    moe_history *history = moe_history_create(NULL, 2, 2, 3);
    double mean[3] = {-1, -1, -1};
    assert_false(moe_history_mean(history, 5, 0, 0, mean));
    assert_true(mean[0] == -1);
    push_marked(history, 1000);
    push_marked(history, 4000);
    assert_true(moe_history_mean(history, 5, 1, 1, mean));
    near(mean[2], 2500 + 112);
    assert_true(moe_history_mean(history, 1, 1, 1, mean));
    near(mean[2], 4000 + 112);
    talloc_free(history);
}

static void history_forgets_the_oldest(void **unused)
{
    (void)unused;
    moe_history *history = moe_history_create(NULL, 2, 2, 3);
    for (int i = 1; i <= 2 * MOE_HISTORY_DEPTH + 3; i++)
        push_marked(history, 1000 * i);
    int newest = 2 * MOE_HISTORY_DEPTH + 3;
    assert_int_equal(moe_history_length(history), MOE_HISTORY_DEPTH);
    near(moe_history_loads(history, 1, 0, 1)[0], 1000 * newest + 10);
    near(moe_history_loads(history, MOE_HISTORY_DEPTH, 0, 1)[0],
         1000 * (newest - MOE_HISTORY_DEPTH + 1) + 10);
    double mean[3];
    assert_true(moe_history_mean(history, 1000, 0, 0, mean));
    near(mean[0], 1000 * (newest - (MOE_HISTORY_DEPTH - 1) / 2.0));
    talloc_free(history);
}

/* --- predictions ---------------------------------------------------------------------------- */

static moe_routed_layer routed(const moe_route *route)
{
    return (moe_routed_layer){.pairs = route->pairs, .rows = route->rows};
}

/* 2 hosts x 1: 1000 tokens from 0 to 1, 2 MB at 10 GB/s are 0.2 ms, four times; 1000 rows of 8
 * MFLOP at 1 TFLOP/s are 8 ms, three times. Device 0's 600 rows do not count. */
static void layers_are_four_exchanges_and_three_phases(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 1, 2, 1, 2);
    moe_route route = fixture_route(f);
    moe_route_add(&route, 0, 1, 1, 1000);
    moe_route_add(&route, 0, 0, 0, 600);
    moe_routed_layer layer = routed(&route);
    near(moe_problem_layer_s(&f->problem, f->arena, &layer), 4 * 0.2e-3 + 3 * 8e-3);
    f->problem.options.recompute = MOE_RECOMPUTE_EXPERTS;
    near(moe_problem_layer_s(&f->problem, f->arena, &layer), 4 * 0.2e-3 + 4 * 8e-3);
    f->problem.options.recompute = MOE_RECOMPUTE_FULL;
    near(moe_problem_layer_s(&f->problem, f->arena, &layer), 6 * 0.2e-3 + 4 * 8e-3);
    fixture_close(f);
}

/* Where memory binds, phases differ: the weight gradient writes fp32. */
static void phases_have_their_own_shapes(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(1, 1, 1, 1, 1);
    f->network.gradient_dtype = MOE_FP32;
    f->profile.experts[MOE_FORWARD].memory_efficiency = 1e-3;
    moe_route route = fixture_route(f);
    moe_route_add(&route, 0, 0, 0, 10);
    double expected = 0;
    double each[3];
    for (int phase = 0; phase < 3; phase++) {
        moe_expert_shape shape = moe_step_expert_shape(&f->network, (moe_phase)phase);
        each[phase] = moe_cost_experts_s(&f->costs, &shape, route.rows, 1);
        expected += each[phase];
    }
    assert_true(each[MOE_WEIGHT_GRADIENT] > 1.5 * each[MOE_FORWARD]);
    moe_routed_layer layer = routed(&route);
    near(moe_problem_layer_s(&f->problem, f->arena, &layer), expected);
    fixture_close(f);
}

/* One host sends 3000 tokens out and takes 1000: out and in differ, and each counts twice. */
static void exchanges_go_both_ways(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(3, 1, 3, 1, 3);
    moe_route route = fixture_route(f);
    moe_route_add(&route, 0, 1, 1, 2000);
    moe_route_add(&route, 0, 2, 2, 1000);
    moe_route_add(&route, 1, 0, 0, 500);
    moe_routed_layer layer = routed(&route);
    double without = moe_problem_layer_s(&f->problem, f->arena, &layer);
    near(without, 4 * 0.6e-3 + 3 * 16e-3);
    fixture_close(f);
}

static void tokens_that_stay_cost_no_exchange(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 1, 2, 1, 2);
    moe_route route = fixture_route(f);
    near(moe_problem_layer_s(&f->problem, f->arena,
                             &(moe_routed_layer){.pairs = route.pairs, .rows = route.rows}),
         0);
    moe_route_add(&route, 1, 0, 1, 100);
    moe_routed_layer layer = routed(&route);
    near(moe_problem_layer_s(&f->problem, f->arena, &layer), 3 * 0.8e-3);
    fixture_close(f);
}

/* Chain: both devices of host 1 get the expert over one crossing between hosts; star: two. */
static void chunks_take_their_slowest_port(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    uint64_t want = 0xf;
    moe_chunk chunk = {0, &want};
    moe_schedule schedule = {.algorithm = MOE_CHUNK_CHAIN};
    near(moe_problem_chunks_s(&f->problem, f->arena, &schedule, &chunk, 1), 0.8e-3);
    schedule.algorithm = MOE_CHUNK_STAR;
    near(moe_problem_chunks_s(&f->problem, f->arena, &schedule, &chunk, 1), 1.6e-3);
    near(moe_problem_chunks_s(&f->problem, f->arena, &schedule, &chunk, 0), 0);
    fixture_close(f);
}

/* 100 tokens: 8 d^2 + 4 s d + 2 d E FLOPs each at 1 TFLOP/s. */
static void attention_hides(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(1, 2, 2, 1, 4);
    double flop = moe_network_dense_flop(&f->network, 100);
    assert_true(flop > 8e6 * 100);
    near(moe_problem_attention_s(&f->problem), flop / 1e12);
    fixture_close(f);
}

static void guesses_are_not_counted(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    moe_route route = fixture_route(f);
    moe_route_add(&route, 0, 3, 3, 10);
    moe_routed_layer layer = routed(&route);
    uint64_t want = 0xf;
    moe_chunk chunk = {0, &want};
    assert_true(moe_problem_layer_s(&f->problem, f->arena, &layer) > 0);
    assert_true(moe_problem_chunks_s(&f->problem, f->arena, &f->schedule, &chunk, 1) > 0);
    assert_true(moe_problem_attention_s(&f->problem) > 0);
    const moe_curve_usage none = {0};
    assert_memory_equal(&f->usage, &none, sizeof none);
    fixture_close(f);
}

/* --- the table ------------------------------------------------------------------------------ */

static void every_policy_is_found_and_described(void **unused)
{
    (void)unused;
    const char *const *known = NULL;
    size_t count = 0;
    assert_null(moe_policy_select("none such", &known, &count));
    assert_null(moe_policy_find("none such"));
    size_t listed = 0;
    for (; moe_policies[listed] != NULL; listed++) {
        const moe_policy *policy = moe_policies[listed];
        assert_true(listed < count);
        assert_string_equal(known[listed], policy->name);
        assert_ptr_equal(moe_policy_find(policy->name), policy);
        assert_ptr_equal(moe_policy_select(policy->name, NULL, NULL), policy->tunables);
        assert_non_null(policy->sentence);
        assert_non_null(policy->source);
        assert_true(strlen(policy->notes) > 200);
        for (const moe_field *field = policy->tunables->fields; field->key != NULL; field++) {
            assert_non_null(field->sentence);
            assert_non_null(field->default_text);
        }
    }
    assert_int_equal(listed, count);
}

typedef struct entry {
    const char *name;
    const char *policy;
    void *tunables;
} entry;

typedef struct entries {
    moe_list policies;
} entries;

/* As a scenario lists policies. */
static const moe_field entry_fields[] = {
    {.key = "name",
     .type = MOE_FIELD_TEXT,
     .required = true,
     .offset = offsetof(entry, name),
     .sentence = "Name."},
    {.key = "policy",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(entry, policy),
     .sentence = "Policy."},
    {.key = NULL},
};
static const moe_variant entry_variant = {"policy", "name", offsetof(entry, tunables),
                                          moe_policy_select};
static const moe_table entry_table = {.noun = "policy",
                                      .sentence = "A policy.",
                                      .size = sizeof(entry),
                                      .fields = entry_fields,
                                      .variant = &entry_variant};
static const moe_field entries_fields[] = {
    {.key = "policies",
     .type = MOE_FIELD_LIST,
     .required = true,
     .offset = offsetof(entries, policies),
     .table = &entry_table,
     .sentence = "Policies."},
    {.key = NULL},
};
static const moe_table entries_table = {.noun = "entries",
                                        .sentence = "Policies to compare.",
                                        .size = sizeof(entries),
                                        .fields = entries_fields};

static const entries *load_entries(void *owner, const char *text, moe_diag *diag)
{
    moe_config *config =
        moe_config_load_text(owner, "test.yaml", text, strlen(text), &entries_table, NULL, 0, diag);
    return config == NULL ? NULL : moe_config_root(config);
}

static void scenarios_choose_policies_and_tunables(void **unused)
{
    (void)unused;
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, NULL);
    const entries *bound =
        load_entries(owner,
                     "policies:\n"
                     "  - {name: ep}\n"
                     "  - {name: fssdp}\n"
                     "  - {name: fssdp-rm, policy: fssdp, rematerialize: true}\n",
                     diag);
    assert_non_null(bound);
    assert_int_equal(bound->policies.count, 3);
    const entry *list = bound->policies.items;
    const moe_fssdp_tunables *plain = list[1].tunables;
    const moe_fssdp_tunables *dropped = list[2].tunables;
    assert_false(plain->rematerialize);
    assert_true(dropped->rematerialize);
    moe_fssdp_tunables expected = *plain;
    expected.rematerialize = true;
    assert_memory_equal(&expected, dropped, sizeof expected);
    assert_null(load_entries(owner, "policies:\n  - {name: ep, rematerialize: true}\n", diag));
    assert_null(load_entries(owner, "policies:\n  - {name: mine, policy: fsdp}\n", diag));
    talloc_free(owner);
}

/* --- chunks --------------------------------------------------------------------------------- */

/* 2 groups of 2: expert 0 everywhere, expert 1 at its owners, expert 2 extra in the second group
 * only. */
static void chunks_want_what_is_not_there(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 2, 2, 4);
    const moe_layout *layout = &f->problem.layout;
    moe_placement_even(f->placement, layout); /* owners: 0, 1 on devices 0, 2; 2, 3 on 1, 3 */
    uint64_t copies[4] = {0xf, 0x5, 0xe, 0xa};
    const moe_chunk *chunks = NULL;
    int count = moe_layer_chunks(f->arena, layout, f->placement, 1, copies, NULL, &chunks);
    assert_int_equal(count, 3);
    const struct {
        int owner;
        uint64_t want;
    } expected[] = {{0, 0x2}, {2, 0x8}, {3, 0x4}};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(chunks[i].owner, expected[i].owner);
        assert_int_equal(chunks[i].want[0], expected[i].want);
    }
    const uint64_t there[4] = {0x2, 0, 0, 0};
    count = moe_layer_chunks(f->arena, layout, f->placement, 1, copies, there, &chunks);
    assert_int_equal(count, 2);
    assert_int_equal(chunks[0].owner, 2);
    assert_int_equal(chunks[1].want[0], 0x4);
    fixture_close(f);
}

static void owners_alone_need_no_chunks(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(9, 8, 36, 2, 72);
    moe_placement_even(f->placement, &f->problem.layout);
    const moe_chunk *chunks;
    const uint64_t *copies = moe_placement_copies(f->placement, 1, 0);
    assert_int_equal(
        moe_layer_chunks(f->arena, &f->problem.layout, f->placement, 1, copies, NULL, &chunks), 0);
    fixture_close(f);
}

/* --- EP ------------------------------------------------------------------------------------- */

static void ep_is_even_and_stays(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 4, 4, 3, 8);
    assert_non_null(fixture_create(f, &moe_policy_ep, "{}"));
    assert_true(f->schedule.gathers_loads);
    moe_placement *even = moe_placement_create(f, &f->problem.layout, 3, 8);
    moe_placement_even(even, &f->problem.layout);
    for (int i = 0; i < 3; i++) {
        moe_decision decision = {
            .placement = f->placement, .arena = f->arena, .planning_s = 1, .move_count = 1};
        moe_policy_ep.before_iteration(f->state, &f->problem, i, f->history, &decision);
        assert_true(moe_placement_equal(f->placement, even));
        assert_int_equal(decision.move_count, 0);
        assert_true(decision.planning_s == 0);
        fixture_random_counts(f, 1, (uint64_t)i);
        fixture_push_counts(f);
    }
    assert_null(moe_placement_check(f->placement, &f->problem.layout, 3 * 8 / 4));
    fixture_close(f);
}

static void ep_sends_everything_to_owners(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 2, 1, 4);
    assert_non_null(fixture_create(f, &moe_policy_ep, "{}"));
    for (int s = 0; s < 4; s++) {
        for (int e = 0; e < 4; e++)
            *fixture_count(f, s, e) = (uint32_t)(10 * s + e + 1);
    }
    moe_gate gate = fixture_gate(f, 0, 0);
    uint64_t everywhere[4] = {0xf, 0xf, 0xf, 0xf}; /* EP uses none of them */
    moe_route route = fixture_dispatch(f, &gate, everywhere);
    assert_true(route.pairs[2 * 4 + 2] == 21 + 22);
    assert_true(route.rows[3 * 4 + 2] == 23 + 33);
    assert_true(route.rows[2 * 4 + 2] == 0);
    fixture_close(f);
}

static void ep_needs_experts_that_divide(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 2, 6);
    assert_null(fixture_create(f, &moe_policy_ep, "{}"));
    assert_int_equal(moe_diag_error_count(f->diag), 1);
    f->problem.layout = (moe_layout){4, 2, 2};
    f->placement = moe_placement_create(f, &f->problem.layout, 2, 6);
    assert_non_null(fixture_create(f, &moe_policy_ep, "gather_loads: false"));
    assert_false(f->schedule.gathers_loads);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(history_is_newest_first),
        cmocka_unit_test(history_means_over_what_there_is),
        cmocka_unit_test(history_forgets_the_oldest),
        cmocka_unit_test(layers_are_four_exchanges_and_three_phases),
        cmocka_unit_test(phases_have_their_own_shapes),
        cmocka_unit_test(exchanges_go_both_ways),
        cmocka_unit_test(tokens_that_stay_cost_no_exchange),
        cmocka_unit_test(chunks_take_their_slowest_port),
        cmocka_unit_test(attention_hides),
        cmocka_unit_test(guesses_are_not_counted),
        cmocka_unit_test(every_policy_is_found_and_described),
        cmocka_unit_test(scenarios_choose_policies_and_tunables),
        cmocka_unit_test(chunks_want_what_is_not_there),
        cmocka_unit_test(owners_alone_need_no_chunks),
        cmocka_unit_test(ep_is_even_and_stays),
        cmocka_unit_test(ep_sends_everything_to_owners),
        cmocka_unit_test(ep_needs_experts_that_divide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
