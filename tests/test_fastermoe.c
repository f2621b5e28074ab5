/* FasterMoE's shadowing: decisions recomputed from the paper's formula, and what they lead to. */
#include "tests/policy_fixture.h"

/* On the fixture: 8 MFLOP a row and phase at 0.9 TFLOP/s, three phases; 2 kB a row, four exchanges, and 8 MB an
 * expert, broadcast and reduced, at 10 GB/s per host of two devices. */
static const double row_compute_s = 3 * 8e6 / 0.9e12;
static const double row_exchange_s = 4 * 2000 / 5e9;
static const double shadow_s = 2 * 8e6 / 5e9;

enum { DEVICES = 4, EXPERTS = 8 };

static fixture *shadowing(const char *tunables)
{
    fixture *f = fixture_open(2, 2, DEVICES, 1, EXPERTS);
    assert_non_null(fixture_create(f, &moe_policy_fastermoe, tunables));
    return f;
}

/* Of the devices' rows when the experts of `shadowed` are computed where their tokens are. */
static double most_rows(fixture *f, const bool *shadowed)
{
    double rows[DEVICES] = {0};
    double most = 0;
    for (int s = 0; s < DEVICES; s++)
        for (int e = 0; e < EXPERTS; e++)
            rows[shadowed[e] ? s : e / 2] += *fixture_count(f, s, e);
    for (int d = 0; d < DEVICES; d++)
        most = fmax(most, rows[d]);
    return most;
}

static int hottest_without(fixture *f, const bool *shadowed)
{
    int best = -1;
    double best_load = -1;
    for (int e = 0; e < EXPERTS; e++) {
        double load = 0;
        for (int s = 0; s < DEVICES; s++)
            load += *fixture_count(f, s, e);
        if (!shadowed[e] && load > best_load) {
            best = e;
            best_load = load;
        }
    }
    return best;
}

static void expect(fixture *f, bool *shadowed)
{
    memset(shadowed, 0, EXPERTS * sizeof *shadowed);
    double best_s = most_rows(f, shadowed) * (row_compute_s + row_exchange_s);
    for (int r = 1; r <= EXPERTS; r++) {
        int e = hottest_without(f, shadowed);
        shadowed[e] = true;
        double next_s = most_rows(f, shadowed) * row_compute_s + r * shadow_s;
        if (next_s >= best_s) {
            shadowed[e] = false;
            return;
        }
        best_s = next_s;
    }
}

static void decisions_are_the_papers(void **unused)
{
    (void)unused;
    fixture *f = shadowing("{}");
    int some = 0, none = 0;
    for (uint64_t round = 0; round < 100; round++) {
        bool shadowed[EXPERTS];
        double planning_s;
        fixture_random_counts(f, 11, round);
        for (int i = 0; i < DEVICES * EXPERTS; i++)
            f->counts[i] /= round % 2 ? 1 : 200; /* too few rows for a shadow to pay */
        moe_gate gate = fixture_gate(f, 0, 0);
        const uint64_t *extra = fixture_calibrate(f, &gate, &planning_s);
        expect(f, shadowed);
        bool any = false;
        for (int e = 0; e < EXPERTS; e++) {
            for (int d = 0; d < DEVICES; d++)
                assert_int_equal(moe_set_has(&extra[e], d), shadowed[e] && d != e / 2);
            any |= shadowed[e];
        }
        assert_true(planning_s > 0);
        some += any;
        none += !any;
        moe_arena_reset(f->arena);
    }
    print_message("shadows in %d of 100, none in %d\n", some, none);
    assert_true(some >= 20);
    assert_true(none >= 20);
    fixture_close(f);
}

static void tokens_of_a_shadow_stay(void **unused)
{
    (void)unused;
    fixture *f = shadowing("{}");
    double planning_s;
    for (int s = 0; s < DEVICES; s++)
        for (int e = 0; e < EXPERTS; e++)
            *fixture_count(f, s, e) = e == 5 ? 3000 : 10;
    moe_gate gate = fixture_gate(f, 0, 0);
    uint64_t *copies = fixture_calibrate(f, &gate, &planning_s);
    for (int e = 0; e < EXPERTS; e++)
        copies[e] |= *moe_placement_copies(f->placement, 0, e);
    assert_int_equal(moe_set_count(&copies[5], 1), DEVICES);
    moe_route route = fixture_dispatch(f, &gate, copies);
    for (int d = 0; d < DEVICES; d++)
        assert_true(route.rows[d * EXPERTS + 5] == 3000);
    fixture_close(f);
}

/* The released rule never asks where tokens are, and charges no reduction. */
static void the_released_rule(void **unused)
{
    (void)unused;
    fixture *f = shadowing("rule: released");
    double planning_s;
    for (int s = 0; s < DEVICES; s++)
        for (int e = 0; e < EXPERTS; e++)
            *fixture_count(f, s, e) = e == 0 ? 1000 : 100;
    moe_gate gate = fixture_gate(f, 0, 0);
    const uint64_t *extra = fixture_calibrate(f, &gate, &planning_s);
    /* 4000 rows against 400 rows and a broadcast; the second would save nothing. */
    assert_true(4000 * (row_compute_s + row_exchange_s) >
                400 * (row_compute_s + row_exchange_s) + shadow_s / 2);
    assert_int_equal(moe_set_count(&extra[0], 1), DEVICES - 1);
    for (int e = 1; e < EXPERTS; e++)
        assert_int_equal(moe_set_count(&extra[e], 1), 0);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions_are_the_papers),
        cmocka_unit_test(tokens_of_a_shadow_stay),
        cmocka_unit_test(the_released_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
