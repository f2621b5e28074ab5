/* How assignments split over copies: the rule, the arithmetic of remainders, conservation. */
#include "tests/policy_fixture.h"

static double pair(const moe_route *route, int source, int device)
{
    return route->pairs[source * route->devices + device];
}

static double row(const moe_route *route, int device, int expert)
{
    return route->rows[device * route->experts + expert];
}

/* [experts][words] without members. */
static uint64_t *no_copies(fixture *f)
{
    return moe_arena_array(f->arena, uint64_t,
                           (size_t)(f->placement->experts * f->placement->words));
}

static uint64_t *set_of(fixture *f, uint64_t *copies, int expert)
{
    return copies + expert * f->placement->words;
}

/* --- device sets ---------------------------------------------------------------------------- */

static void sets_are_walked_across_words(void **unused)
{
    (void)unused;
    uint64_t set[3] = {0};
    const int members[] = {0, 63, 64, 130, 191};
    for (size_t i = 0; i < 5; i++)
        moe_set_add(set, members[i]);
    int from = 0;
    for (size_t i = 0; i < 5; i++) {
        int next = moe_set_next(set, from, 192);
        assert_int_equal(next, members[i]);
        from = next + 1;
    }
    assert_int_equal(moe_set_next(set, 65, 130), 130); /* the end, not the member at it */
    assert_int_equal(moe_set_next(set, 192, 192), 192);
    assert_int_equal(moe_set_count_between(set, 0, 192), 5);
    assert_int_equal(moe_set_count_between(set, 63, 65), 2);
    assert_int_equal(moe_set_count_between(set, 64, 130), 1);
    assert_int_equal(moe_set_count_between(set, 1, 63), 0);
}

/* --- by topology ---------------------------------------------------------------------------- */

/* 2 hosts of 3; expert 0 has copies on 0, 1 (host 0) and 4 (host 1). */
static void tokens_stay_as_near_as_they_can(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 3, 6, 1, 2);
    uint64_t *copies = no_copies(f);
    moe_set_add(set_of(f, copies, 0), 0);
    moe_set_add(set_of(f, copies, 0), 1);
    moe_set_add(set_of(f, copies, 0), 4);
    moe_set_add(set_of(f, copies, 1), 5);
    for (int s = 0; s < 6; s++)
        *fixture_count(f, s, 0) = 10;
    *fixture_count(f, 2, 1) = 7;
    moe_gate gate = fixture_gate(f, 0, 0);
    moe_route route = fixture_route(f);
    moe_dispatch_by_topology(&f->problem, &gate, copies, &route);

    assert_true(pair(&route, 0, 0) == 10); /* own copy: all of it */
    assert_true(pair(&route, 1, 1) == 10);
    assert_true(pair(&route, 4, 4) == 10);
    assert_true(pair(&route, 2, 0) == 5); /* two copies on its host */
    assert_true(pair(&route, 2, 1) == 5);
    assert_true(pair(&route, 2, 4) == 0);
    assert_true(pair(&route, 3, 4) == 10); /* one copy on its host */
    assert_true(pair(&route, 5, 4) == 10);
    assert_true(pair(&route, 2, 5) == 7); /* none on its host */
    assert_true(row(&route, 4, 0) == 30);
    assert_true(row(&route, 0, 0) == 15);
    assert_true(row(&route, 5, 1) == 7);
    fixture_close(f);
}

/* 3 copies, none on the source's host: 11 = 4 + 4 + 3; who gets 3 turns with source and expert. */
static void remainders_rotate(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 3, 6, 1, 3);
    uint64_t *copies = no_copies(f);
    for (int e = 0; e < 3; e++) {
        for (int d = 3; d < 6; d++)
            moe_set_add(set_of(f, copies, e), d);
        *fixture_count(f, 0, e) = 11;
    }
    *fixture_count(f, 1, 0) = 11;
    moe_gate gate = fixture_gate(f, 0, 0);
    moe_route route = fixture_route(f);
    moe_dispatch_by_topology(&f->problem, &gate, copies, &route);
    const double expected[3][3] = {{7, 8, 7}, {3, 4, 4}, {4, 3, 4}};
    for (int e = 0; e < 3; e++) {
        for (int d = 0; d < 3; d++)
            assert_true(row(&route, 3 + d, e) == expected[e][d]);
    }
    assert_true(pair(&route, 0, 3) == 11 && pair(&route, 0, 4) == 11 && pair(&route, 0, 5) == 11);
    fixture_close(f);
}

static void fewer_tokens_than_copies(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 3, 6, 1, 1);
    uint64_t *copies = no_copies(f);
    for (int d = 3; d < 6; d++)
        moe_set_add(copies, d);
    *fixture_count(f, 2, 0) = 2; /* place 2 % 3 first: copies 2 and 0 */
    moe_gate gate = fixture_gate(f, 0, 0);
    moe_route route = fixture_route(f);
    moe_dispatch_by_topology(&f->problem, &gate, copies, &route);
    assert_true(pair(&route, 2, 5) == 1 && pair(&route, 2, 3) == 1 && pair(&route, 2, 4) == 0);
    fixture_close(f);
}

/* Groups of 3 on hosts of 2: device 2 may use 0 (its group), not 3 (its host, another group). */
static void groups_do_not_mix(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(3, 2, 3, 1, 1);
    uint64_t *copies = no_copies(f);
    moe_set_add(copies, 0);
    moe_set_add(copies, 3);
    for (int s = 0; s < 6; s++)
        *fixture_count(f, s, 0) = (uint32_t)(s + 1);
    moe_gate gate = fixture_gate(f, 0, 0);
    moe_route route = fixture_route(f);
    moe_dispatch_by_topology(&f->problem, &gate, copies, &route);
    assert_true(row(&route, 0, 0) == 1 + 2 + 3);
    assert_true(row(&route, 3, 0) == 4 + 5 + 6);
    assert_true(pair(&route, 2, 0) == 3 && pair(&route, 2, 3) == 0);
    fixture_close(f);
}

/* --- to the owner --------------------------------------------------------------------------- */

static void owners_get_all_of_their_group(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 2, 2, 4);
    moe_placement_even(f->placement, &f->problem.layout);
    *moe_placement_owner(f->placement, 1, 1, 0) = 3;
    for (int s = 0; s < 4; s++) {
        for (int e = 0; e < 4; e++)
            *fixture_count(f, s, e) = (uint32_t)(10 * s + e);
    }
    moe_gate gate = fixture_gate(f, 0, 1);
    moe_route route = fixture_route(f);
    moe_dispatch_to_owner(&f->problem, &gate, f->placement, &route);
    assert_true(pair(&route, 0, 0) == 0 + 1 && pair(&route, 0, 1) == 2 + 3);
    assert_true(pair(&route, 2, 2) == 21 && pair(&route, 2, 3) == 20 + 22 + 23);
    assert_true(row(&route, 3, 0) == 20 + 30 && row(&route, 2, 0) == 0);
    assert_true(row(&route, 1, 3) == 3 + 13);
    fixture_close(f);
}

/* --- properties ----------------------------------------------------------------------------- */

typedef struct world {
    int hosts, per_host, ep, experts;
} world;

static const world worlds[] = {{1, 4, 4, 8},  {4, 2, 8, 16},  {4, 2, 4, 16}, {3, 4, 6, 12},
                               {5, 3, 15, 7}, {9, 8, 72, 24}, {1, 1, 1, 3},  {8, 16, 64, 64}};

/* Random sets, at least one member in every group. */
static uint64_t *random_copies(fixture *f, gsl_rng *random)
{
    uint64_t *copies = no_copies(f);
    const moe_layout *layout = &f->problem.layout;
    for (int e = 0; e < f->placement->experts; e++) {
        double share = gsl_rng_uniform(random) * gsl_rng_uniform(random);
        for (int g = 0; g < layout->groups; g++) {
            int owner =
                g * layout->ep + (int)gsl_rng_uniform_int(random, (unsigned long)layout->ep);
            moe_set_add(set_of(f, copies, e), owner);
        }
        for (int d = 0; d < layout->devices; d++) {
            if (gsl_rng_uniform(random) < share)
                moe_set_add(set_of(f, copies, e), d);
        }
    }
    return copies;
}

/* Distance class of a device from a source: 0 own, 1 host, 2 group; 3: not allowed. */
static int distance(const fixture *f, int source, int device)
{
    if (moe_layout_group(&f->problem.layout, source) !=
        moe_layout_group(&f->problem.layout, device))
        return 3;
    if (source == device)
        return 0;
    return moe_cluster_host(f->problem.cluster, source) ==
                   moe_cluster_host(f->problem.cluster, device)
               ? 1
               : 2;
}

/* One source and expert dispatched alone shows where each assignment went. */
static void check_one(fixture *f, const uint64_t *set, int expert, int source,
                      const moe_route *route)
{
    int devices = f->problem.layout.devices;
    int nearest = 3;
    int eligible = 0;
    for (int d = 0; d < devices; d++) {
        if (moe_set_has(set, d) && distance(f, source, d) < nearest)
            nearest = distance(f, source, d);
    }
    for (int d = 0; d < devices; d++) {
        /* Without a copy on its own host every copy of the group is as good. */
        bool good = moe_set_has(set, d) && distance(f, source, d) == nearest;
        eligible += good;
        if (!good)
            assert_true(pair(route, source, d) == 0);
    }
    double count = *fixture_count(f, source, expert);
    double sum = 0;
    for (int d = 0; d < devices; d++) {
        double given = pair(route, source, d);
        sum += given;
        assert_true(given == floor(given));
        if (moe_set_has(set, d) && distance(f, source, d) == nearest)
            assert_true(fabs(given - count / eligible) < 1);
    }
    assert_true(sum == count);
}

static void each_source_follows_the_rule(void **unused)
{
    (void)unused;
    for (size_t w = 0; w < sizeof worlds / sizeof *worlds; w++) {
        const world *at = &worlds[w];
        fixture *f = fixture_open(at->hosts, at->per_host, at->ep, 1, at->experts);
        gsl_rng *random = moe_random_create(7, "test copies", w);
        uint64_t *copies = random_copies(f, random);
        moe_gate gate = fixture_gate(f, 0, 0);
        for (int trial = 0; trial < 40; trial++) {
            int expert = (int)gsl_rng_uniform_int(random, (unsigned long)at->experts);
            int source = (int)gsl_rng_uniform_int(random, (unsigned long)f->problem.layout.devices);
            *fixture_count(f, source, expert) = (uint32_t)gsl_rng_uniform_int(random, 500);
            moe_route route = fixture_route(f);
            moe_dispatch_by_topology(&f->problem, &gate, copies, &route);
            check_one(f, set_of(f, copies, expert), expert, source, &route);
            *fixture_count(f, source, expert) = 0;
        }
        gsl_rng_free(random);
        fixture_close(f);
    }
}

static void check_conservation(fixture *f, const moe_route *route, const uint64_t *copies)
{
    for (int s = 0; s < route->devices; s++) {
        double sent = 0;
        double counted = 0;
        for (int d = 0; d < route->devices; d++)
            sent += pair(route, s, d);
        for (int e = 0; e < route->experts; e++)
            counted += *fixture_count(f, s, e);
        assert_true(sent == counted);
    }
    for (int d = 0; d < route->devices; d++) {
        double received = 0;
        double computed = 0;
        for (int s = 0; s < route->devices; s++)
            received += pair(route, s, d);
        for (int e = 0; e < route->experts; e++) {
            computed += row(route, d, e);
            if (copies != NULL && !moe_set_has(copies + e * f->placement->words, d))
                assert_true(row(route, d, e) == 0);
        }
        assert_true(received == computed);
    }
    for (int e = 0; e < route->experts; e++) {
        double computed = 0;
        double counted = 0;
        for (int d = 0; d < route->devices; d++) {
            computed += row(route, d, e);
            counted += *fixture_count(f, d, e);
        }
        assert_true(computed == counted);
    }
}

static void nothing_is_lost(void **unused)
{
    (void)unused;
    for (size_t w = 0; w < sizeof worlds / sizeof *worlds; w++) {
        const world *at = &worlds[w];
        fixture *f = fixture_open(at->hosts, at->per_host, at->ep, 1, at->experts);
        gsl_rng *random = moe_random_create(8, "test copies", w);
        moe_placement_even(f->placement, &f->problem.layout);
        for (uint64_t trial = 0; trial < 5; trial++) {
            fixture_random_counts(f, w, trial);
            uint64_t *copies = random_copies(f, random);
            moe_gate gate = fixture_gate(f, 0, 0);
            moe_route route = fixture_route(f);
            moe_dispatch_by_topology(&f->problem, &gate, copies, &route);
            check_conservation(f, &route, copies);
            moe_route owners = fixture_route(f);
            moe_dispatch_to_owner(&f->problem, &gate, f->placement, &owners);
            check_conservation(f, &owners, NULL);
        }
        gsl_rng_free(random);
        fixture_close(f);
    }
}

/* With owners alone the two ways are one. */
static void owners_alone_make_them_equal(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(4, 4, 8, 1, 16);
    moe_placement_even(f->placement, &f->problem.layout);
    fixture_random_counts(f, 3, 0);
    moe_gate gate = fixture_gate(f, 0, 0);
    moe_route near = fixture_route(f);
    moe_route owners = fixture_route(f);
    moe_dispatch_by_topology(&f->problem, &gate, moe_placement_copies(f->placement, 0, 0), &near);
    moe_dispatch_to_owner(&f->problem, &gate, f->placement, &owners);
    assert_memory_equal(near.pairs, owners.pairs, sizeof(double) * 16 * 16);
    assert_memory_equal(near.rows, owners.rows, sizeof(double) * 16 * 16);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_are_walked_across_words),
        cmocka_unit_test(tokens_stay_as_near_as_they_can),
        cmocka_unit_test(remainders_rotate),
        cmocka_unit_test(fewer_tokens_than_copies),
        cmocka_unit_test(groups_do_not_mix),
        cmocka_unit_test(owners_get_all_of_their_group),
        cmocka_unit_test(each_source_follows_the_rule),
        cmocka_unit_test(nothing_is_lost),
        cmocka_unit_test(owners_alone_make_them_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
