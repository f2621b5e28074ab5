/* Tokens sent once: from parts of a route to tokens of each device and host, and the exchange that
 * forwards them inside hosts, against sums by hand. */
#include "tests/policy_fixture.h"

#include "models/timeline.h"
#include "policies/once.h"

static moe_route route_with_parts(fixture *f, moe_route_parts *parts)
{
    moe_route route = fixture_route(f);
    *parts = (moe_route_parts){.arena = f->arena};
    route.parts = parts;
    return route;
}

static moe_once_tokens count_tokens(fixture *f, const moe_route *route, const uint32_t *tokens,
                                    moe_once once_per)
{
    moe_gate gate = fixture_gate(f, 0, 0);
    moe_distinct *distinct = moe_once_estimator(f, &f->network, false);
    return moe_once_count(f->arena, &f->problem, distinct, &gate, tokens, route, once_per);
}

static double at(const double *rows, int columns, int row, int column)
{
    return rows[row * columns + column];
}

/* --- counting --------------------------------------------------------------------------------- */

/* 2 hosts of 2, 4 experts, top-2 with equal counts: a place with n of the 4 experts is missed by
 * C(4 - n, 2) of the 6 pairs. Source 0: expert 0 at device 0, 1 at 1, 2 at 2 and 3 in halves. */
static void tokens_are_counted_by_hand(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    const uint32_t tokens[4] = {600, 0, 600, 0};
    moe_route_parts parts;
    moe_route route = route_with_parts(f, &parts);
    f->network.top_k = 2;
    for (int e = 0; e < 4; e++) {
        *fixture_count(f, 0, e) = 300;
        *fixture_count(f, 2, e) = 300;
        moe_route_add(&route, 2, e, 0, 300);
    }
    moe_route_add(&route, 0, 3, 3, 150); /* not in order of experts */
    moe_route_add(&route, 0, 3, 2, 150);
    for (int e = 2; e >= 0; e--)
        moe_route_add(&route, 0, e, e, 300);
    moe_once_tokens once = count_tokens(f, &route, tokens, MOE_ONCE_PER_HOST);
    assert_true(at(once.devices, 4, 0, 0) == 300 && at(once.devices, 4, 0, 1) == 300);
    assert_true(at(once.devices, 4, 0, 3) == 150);
    /* Device 2: pairs without 2 and 3: 1; with 3 and not with 2: 2, half of their tokens elsewhere. */
    assert_true(fabs(at(once.devices, 4, 0, 2) - 600 * (1 - (1 + 0.5 * 2) / 6)) < 0.5);
    assert_true(fabs(at(once.hosts, 2, 0, 0) - 500) < 0.5);
    assert_true(fabs(at(once.hosts, 2, 0, 1) - 500) < 0.5);
    assert_true(fabs(at(once.devices, 4, 2, 0) - 600) < 1e-6); /* all of them at one device */
    assert_true(at(once.devices, 4, 1, 0) == 0 && at(once.hosts, 2, 1, 0) == 0);
    assert_null(moe_once_check(&f->problem, route.pairs, once.devices, once.hosts));
    once = count_tokens(f, &route, tokens, MOE_ONCE_PER_DEVICE);
    assert_null(once.hosts);
    fixture_close(f);
}

/* The golden case over a whole route: top-8 of 256 over 8 hosts of 8, alike for every source. */
static double saved_on_256_experts(int top_groups)
{
    fixture *f = fixture_open(8, 8, 64, 1, 256);
    uint32_t tokens[64];
    double assignments = 0;
    double sent = 0;
    moe_route_parts parts;
    moe_route route = route_with_parts(f, &parts);
    f->network.top_k = 8;
    f->network.gate_groups = 8;
    f->network.top_groups = top_groups;
    moe_placement_even(f->placement, &f->problem.layout);
    for (int s = 0; s < 64; s++) {
        tokens[s] = 1024;
        for (int e = 0; e < 256; e++)
            *fixture_count(f, s, e) = 32;
    }
    moe_gate gate = fixture_gate(f, 0, 0);
    moe_dispatch_to_owner(&f->problem, &gate, f->placement, &route);
    moe_once_tokens once = count_tokens(f, &route, tokens, MOE_ONCE_PER_HOST);
    for (int s = 0; s < 64; s++) {
        for (int h = 0; h < 8; h++)
            sent += h != s / 8 ? at(once.hosts, 8, s, h) : 0;
        for (int d = 0; d < 64; d++)
            assignments += d / 8 != s / 8 ? at(route.pairs, 64, s, d) : 0;
    }
    assert_null(moe_once_check(&f->problem, route.pairs, once.devices, once.hosts));
    fixture_close(f);
    return assignments / sent;
}

static void hosts_of_deepseek_v3(void **unused)
{
    (void)unused;
    double missed = 1;
    for (int i = 0; i < 8; i++)
        missed *= (224.0 - i) / (256.0 - i);
    assert_true(fabs(saved_on_256_experts(8) - 1 / (1 - missed)) < 1e-6);
    assert_true(fabs(saved_on_256_experts(8) - 1.51) < 0.005);
    assert_true(fabs(saved_on_256_experts(4) - 2) < 1e-6);
}

typedef struct world {
    int hosts, per_host, ep, experts, top_k;
} world;

static const world worlds[] = {
    {4, 2, 8, 16, 2}, {4, 2, 4, 16, 4}, {3, 4, 6, 12, 3}, {1, 4, 4, 8, 2}, {2, 8, 16, 64, 6}};

/* Owners alone, and copies drawn at random. */
static void random_route(fixture *f, gsl_rng *random, moe_route *route)
{
    moe_gate gate = fixture_gate(f, 0, 0);
    moe_placement_even(f->placement, &f->problem.layout);
    for (int e = 0; e < f->placement->experts; e++) {
        for (int d = 0; d < f->problem.layout.devices; d++) {
            if (gsl_rng_uniform(random) < 0.2)
                moe_set_add(moe_placement_copies(f->placement, 0, e), d);
        }
    }
    moe_dispatch_by_topology(&f->problem, &gate, moe_placement_copies(f->placement, 0, 0), route);
}

/* Tokens such that no expert has more than one assignment of each. */
static void derive_tokens(fixture *f, uint32_t *tokens)
{
    for (int s = 0; s < f->problem.layout.devices; s++) {
        uint32_t sum = 0;
        uint32_t most = 0;
        for (int e = 0; e < f->placement->experts; e++) {
            uint32_t count = *fixture_count(f, s, e);
            sum += count;
            most = count > most ? count : most;
        }
        uint32_t tokens_of_sum = sum / (uint32_t)f->network.top_k + 1;
        tokens[s] = tokens_of_sum > most ? tokens_of_sum : most;
    }
}

static void counts_stay_between_their_bounds(void **unused)
{
    (void)unused;
    for (size_t w = 0; w < sizeof worlds / sizeof *worlds; w++) {
        const world *of = &worlds[w];
        fixture *f = fixture_open(of->hosts, of->per_host, of->ep, 1, of->experts);
        gsl_rng *random = moe_random_create(9, "test once", w);
        f->network.top_k = of->top_k;
        for (uint64_t trial = 0; trial < 5; trial++) {
            uint32_t tokens[16];
            moe_route_parts parts;
            moe_route route = route_with_parts(f, &parts);
            fixture_random_counts(f, w, trial);
            derive_tokens(f, tokens);
            random_route(f, random, &route);
            moe_once_tokens once = count_tokens(f, &route, tokens, MOE_ONCE_PER_HOST);
            assert_null(moe_once_check(&f->problem, route.pairs, once.devices, once.hosts));
        }
        gsl_rng_free(random);
        fixture_close(f);
    }
}

static void checks_find_what_is_broken(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(1, 2, 2, 1, 4);
    const double pairs[4] = {8, 8, 8, 8};
    const double sound[4] = {4, 5, 6, 7}, too_many[4] = {4, 9, 6, 7}, too_few[4] = {1, 5, 6, 7};
    const double hosts[2] = {6, 8}, host_low[2] = {4.5, 8}, host_high[2] = {6, 14};
    assert_null(moe_once_check(&f->problem, pairs, sound, hosts));
    assert_non_null(moe_once_check(&f->problem, pairs, too_many, NULL));
    assert_non_null(moe_once_check(&f->problem, pairs, too_few, NULL));
    assert_non_null(moe_once_check(&f->problem, pairs, sound, host_low));
    assert_non_null(moe_once_check(&f->problem, pairs, sound, host_high));
    fixture_close(f);
}

/* --- the exchange ----------------------------------------------------------------------------- */

static double moved(const moe_traffic *traffic, int source, int target)
{
    double bytes = 0;
    for (size_t t = 0; t < traffic->transfer_count; t++) {
        const moe_transfer *transfer = &traffic->transfers[t];
        bytes += transfer->source == source && transfer->target == target ? transfer->bytes : 0;
    }
    return bytes;
}

/* Whether every port on the path from a to b is one that `device` waits for. */
static bool waits_for(const fixture *f, const moe_traffic *traffic, int device, int a, int b)
{
    int path[MOE_PATH_PORTS];
    int hops = moe_cluster_path(f->problem.cluster, a, b, path);
    for (int h = 0; h < hops; h++) {
        int k = 0;
        while (k < traffic->port_count && traffic->ports[k] != path[h])
            k++;
        const uint64_t *row = traffic->touches + device * traffic->words;
        if (k == traffic->port_count || !(row[k / 64] >> (k % 64) & 1))
            return false;
    }
    return true;
}

/* 2 hosts of 3. Device 1 sends 10 to 0; over to host 1, 30 in all: 25 for 3, 12 for 4, 7 for 5. They
 * enter at 4. Device 2 sends 4 to 5, entering there. */
static const double hand_bytes[36] = {[6 + 0] = 10, [6 + 1] = 99, [6 + 3] = 25,
                                      [6 + 4] = 12, [6 + 5] = 7,  [12 + 5] = 4};
static const double hand_hosts[12] = {[2 + 0] = 103, [2 + 1] = 30, [4 + 1] = 4};

static void tokens_are_forwarded_inside_hosts(void **unused)
{
    (void)unused;
    for (int back = 0; back <= 1; back++) {
        fixture *f = fixture_open(2, 3, 6, 1, 6);
        const moe_traffic *traffic =
            moe_traffic_forwarded(f->arena, &f->costs, hand_bytes, hand_hosts, 6, back);
        const int hops[5][2] = {{1, 0}, {1, 4}, {4, 3}, {4, 5}, {2, 5}};
        const double bytes[5] = {10, 30, 25, 7, 4};
        assert_int_equal(traffic->transfer_count, 5);
        for (int i = 0; i < 5; i++)
            assert_true(moved(traffic, hops[i][back], hops[i][1 - back]) == bytes[i]);
        assert_true(traffic->inter_host_bytes == 34);
        assert_true(traffic->intra_host_bytes == 10 + 25 + 7);
        if (back) {
            assert_true(waits_for(f, traffic, 1, 3, 4)); /* for what 4 adds up */
            assert_false(waits_for(f, traffic, 2, 3, 4));
        } else {
            assert_true(waits_for(f, traffic, 3, 1, 4)); /* through 4 it came */
            assert_false(waits_for(f, traffic, 0, 1, 4));
        }
        fixture_close(f);
    }
}

/* Groups of 4 on hosts of 3: 0 to 3 and 4 to 7. Of host 1 the first group has device 3 alone, which
 * is where everything enters; of host 2 the second has 6 and 7, entered by turns. */
static void entries_stay_within_the_group(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(4, 3, 12, 1, 12);
    double bytes[144] = {[2 * 12 + 3] = 5, [4 * 12 + 6] = 7, [4 * 12 + 7] = 7, [5 * 12 + 6] = 9};
    double hosts[48] = {[2 * 4 + 1] = 5, [4 * 4 + 2] = 11, [5 * 4 + 2] = 9};
    const moe_traffic *traffic = moe_traffic_forwarded(f->arena, &f->costs, bytes, hosts, 4, false);
    assert_true(moved(traffic, 2, 3) == 5);  /* place 2 of 1 there */
    assert_true(moved(traffic, 4, 7) == 11); /* place 1 of 2 */
    assert_true(moved(traffic, 7, 6) == 7);
    assert_true(moved(traffic, 5, 6) == 9); /* place 2 of 2 */
    assert_int_equal(traffic->transfer_count, 4);
    fixture_close(f);
}

/* Where every token goes to one device of a host, and to the one where it enters, nothing is left
 * to forward and the two exchanges are one. */
static void without_forwarding_it_is_pairwise(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(3, 2, 6, 1, 6);
    double bytes[36] = {0};
    double hosts[18] = {0};
    for (int s = 0; s < 6; s++) {
        for (int h = 0; h < 3; h++) {
            bytes[s * 6 + 2 * h + s % 2] = 100 + 10 * s + h;
            hosts[s * 3 + h] = bytes[s * 6 + 2 * h + s % 2];
        }
    }
    for (int back = 0; back <= 1; back++) {
        const moe_traffic *once = moe_traffic_forwarded(f->arena, &f->costs, bytes, hosts, 6, back);
        const moe_traffic *pairwise = moe_traffic_all_to_all(f->arena, &f->costs, bytes, back);
        size_t count = (size_t)pairwise->port_count;
        assert_int_equal(once->port_count, pairwise->port_count);
        assert_memory_equal(once->work, pairwise->work, count * sizeof *once->work);
        assert_memory_equal(once->touches, pairwise->touches,
                            (size_t)(6 * once->words) * sizeof *once->touches);
        assert_int_equal(once->participants, pairwise->participants);
    }
    assert_null(moe_traffic_forwarded(f->arena, &f->costs, (double[36]){[0] = 5, [7] = 5},
                                      (double[18]){[0] = 5, [3] = 5}, 6, false));
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_counted_by_hand),
        cmocka_unit_test(hosts_of_deepseek_v3),
        cmocka_unit_test(counts_stay_between_their_bounds),
        cmocka_unit_test(checks_find_what_is_broken),
        cmocka_unit_test(tokens_are_forwarded_inside_hosts),
        cmocka_unit_test(entries_stay_within_the_group),
        cmocka_unit_test(without_forwarding_it_is_pairwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
