/* SmartMoE's exchange: the mapping against everything that can be tried, and the policy around it. */
#include "tests/policy_fixture.h"

#include "policies/placement/smartmoe.h"

static double fullest(const double *loads, const int *device_of, int experts, int devices)
{
    double sums[8] = {0};
    double most = 0;
    for (int e = 0; e < experts; e++)
        sums[device_of[e]] += loads[e];
    for (int d = 0; d < devices; d++)
        most = fmax(most, sums[d]);
    return most;
}

/* The best of all even mappings. */
static double best_of_all(const double *loads, int *device_of, int *room, int expert, int experts,
                          int devices)
{
    if (expert == experts)
        return fullest(loads, device_of, experts, devices);
    double best = INFINITY;
    for (int d = 0; d < devices; d++) {
        if (room[d] == 0)
            continue;
        room[d]--;
        device_of[expert] = d;
        best = fmin(best, best_of_all(loads, device_of, room, expert + 1, experts, devices));
        room[d]++;
    }
    return best;
}

/* Greedy is no optimum, but never below it, never worse than before, and here within a third of it: by falling load,
 * the bound of list scheduling is 4/3 - 1 / (3 devices). */
static void against_every_mapping(void **unused)
{
    (void)unused;
    moe_arena *arena = moe_arena_create(NULL);
    gsl_rng *random = moe_random_create(3, "smartmoe", 0);
    int changed = 0;
    for (int round = 0; round < 60; round++) {
        enum { EXPERTS = 8, DEVICES = 4 };
        double loads[EXPERTS];
        int today[EXPERTS], mapped[EXPERTS], tried[EXPERTS], taken[DEVICES] = {0};
        int room[DEVICES] = {2, 2, 2, 2};
        for (int e = 0; e < EXPERTS; e++) {
            loads[e] = 100 * pow(gsl_rng_uniform(random), 2);
            today[e] = e / 2;
            mapped[e] = today[e];
        }
        bool moved = moe_smartmoe_map(arena, loads, EXPERTS, DEVICES, mapped);
        double before = fullest(loads, today, EXPERTS, DEVICES);
        double after = fullest(loads, mapped, EXPERTS, DEVICES);
        double best = best_of_all(loads, tried, room, 0, EXPERTS, DEVICES);
        assert_true(moved ? after < before : memcmp(mapped, today, sizeof today) == 0);
        assert_true(after >= best);
        for (int e = 0; e < EXPERTS; e++)
            taken[mapped[e]]++;
        for (int d = 0; d < DEVICES; d++)
            assert_int_equal(taken[d], 2);
        if (moved)
            assert_true(after <= best * (4.0 / 3) + 1e-9);
        changed += moved;
    }
    assert_true(changed > 30);
    gsl_rng_free(random);
    talloc_free(arena);
}

static void equal_loads_stay(void **unused)
{
    (void)unused;
    moe_arena *arena = moe_arena_create(NULL);
    const double loads[8] = {5, 5, 5, 5, 5, 5, 5, 5};
    int device_of[8] = {3, 0, 1, 2, 0, 3, 2, 1};
    const int before[8] = {3, 0, 1, 2, 0, 3, 2, 1};
    assert_false(moe_smartmoe_map(arena, loads, 8, 4, device_of));
    assert_memory_equal(device_of, before, sizeof before);
    talloc_free(arena);
}

/* Two hot experts on one device part; what moves is priced with or without optimizer state. */
static void exchanges_when_due(const char *tunables, double bytes)
{
    fixture *f = fixture_open(2, 2, 4, 1, 8);
    assert_non_null(fixture_create(f, &moe_policy_smartmoe, tunables));
    const double loads[8] = {400, 400, 10, 10, 10, 10, 10, 10};
    moe_history_push(f->history, loads);
    assert_int_equal(fixture_before(f, 4).move_count, 0); /* not due */
    moe_decision decision = fixture_before(f, 5);
    assert_null(moe_placement_check(f->placement, &f->problem.layout, 2));
    assert_true(*moe_placement_owner(f->placement, 0, 0, 0) !=
                *moe_placement_owner(f->placement, 0, 0, 1));
    assert_true(decision.move_count >= 2);
    assert_true(decision.planning_s == 1e-3);
    for (size_t i = 0; i < decision.move_count; i++)
        assert_true(decision.moves[i].bytes == bytes);
    assert_int_equal(fixture_before(f, 10).move_count, 0); /* as good as it gets */
    fixture_close(f);
}

static void what_moves(void **unused)
{
    (void)unused;
    exchanges_when_due("interval: 5", 4e6 * (2 + 12)); /* bf16 and 12 B of state a parameter */
    exchanges_when_due("{interval: 5, moves: parameters}", 4e6 * 2);
}

static void without_a_past_nothing_moves(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 8);
    assert_non_null(fixture_create(f, &moe_policy_smartmoe, "interval: 1"));
    moe_decision decision = fixture_before(f, 0);
    assert_int_equal(decision.move_count, 0);
    assert_true(decision.planning_s == 0);
    fixture_close(f);
}

static void uneven_experts_are_refused(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 6);
    assert_null(fixture_create(f, &moe_policy_smartmoe, "interval: 1"));
    assert_int_equal(moe_diag_error_count(f->diag), 1);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_every_mapping),
        cmocka_unit_test(equal_loads_stay),
        cmocka_unit_test(what_moves),
        cmocka_unit_test(without_a_past_nothing_moves),
        cmocka_unit_test(uneven_experts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
