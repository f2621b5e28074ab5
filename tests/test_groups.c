/* Process groups: which ranks share a host, and what that does to every port. By hand on 2 hosts of 4
 * devices in EP groups of 4. */
#include "models/cluster_ranks.h"
#include "sim/scenario.h"
#include "tests/policy_fixture.h"

#include <stdio.h>

enum { DEVICES = 8, PER_HOST = 4, EP = 4 };

static void check_near(double value, double expected, double slack)
{
    if (!(fabs(value - expected) <= slack))
        fail_msg("%.17g, expected %.17g", value, expected);
}

static fixture *open_ordered(moe_rank_order order)
{
    fixture *f = fixture_open(2, PER_HOST, EP, 1, EP);
    moe_cluster_seat_in_order((moe_cluster *)f->problem.cluster, order, EP);
    return f;
}

static double port_bytes(const fixture *f, const moe_traffic *traffic, moe_port_kind kind, int unit)
{
    int port = f->problem.cluster->first_port[kind] + unit;
    for (int k = 0; k < traffic->port_count; k++) {
        if (traffic->ports[k] == port)
            return traffic->bytes[k];
    }
    return 0;
}

static void check_seats(const moe_cluster *cluster, const int *devices)
{
    for (int rank = 0; rank < cluster->devices; rank++) {
        assert_int_equal(cluster->places[rank].device, devices[rank]);
        assert_int_equal(cluster->rank_on[devices[rank]], rank);
        assert_int_equal(moe_cluster_host(cluster, rank), devices[rank] / PER_HOST);
        assert_int_equal(
            moe_cluster_rank_at(cluster, devices[rank] / PER_HOST, devices[rank] % PER_HOST), rank);
    }
}

static void orders_seat_every_rank(void **unused)
{
    (void)unused;
    static const int seats[][DEVICES] = {
        [MOE_RANKS_EP_FIRST] = {0, 1, 2, 3, 4, 5, 6, 7},
        [MOE_RANKS_EP_LAST] = {0, 2, 4, 6, 1, 3, 5, 7},
        [MOE_RANKS_HOSTS_ROUND_ROBIN] = {0, 4, 1, 5, 2, 6, 3, 7},
    };
    fixture *f = open_ordered(MOE_RANKS_EP_LAST);
    moe_cluster *cluster = (moe_cluster *)f->problem.cluster;
    for (int order = 0; moe_rank_order_names[order] != NULL; order++) {
        moe_cluster_seat_in_order(cluster, (moe_rank_order)order, EP); /* whatever came before */
        check_seats(cluster, seats[order]);
    }
    moe_cluster_seat_in_order(cluster, MOE_RANKS_EP_LAST,
                              DEVICES); /* one group: nothing to stride */
    check_seats(cluster, seats[MOE_RANKS_EP_FIRST]);
    fixture_close(f);
}

static void groups_are_listed_host_by_host(void **unused)
{
    (void)unused;
    fixture *f = open_ordered(MOE_RANKS_HOSTS_ROUND_ROBIN);
    const moe_cluster *cluster = f->problem.cluster;
    int ranks[EP];
    moe_cluster_by_host(cluster, EP, EP, ranks);
    const int expected[EP] = {4, 6, 5, 7}; /* devices 2, 3 and 6, 7 */
    assert_memory_equal(ranks, expected, sizeof ranks);
    assert_int_equal(moe_cluster_host_end(cluster, ranks, EP, 0), 2);
    assert_int_equal(moe_cluster_host_end(cluster, ranks, EP, 2), EP);
    fixture_close(f);
}

/* --- bytes of every port ------------------------------------------------------------------------ */

/* Every rank sends 100 bytes to every other of its group. */
static const moe_traffic *exchange(fixture *f)
{
    double *bytes = moe_arena_array(f->arena, double, DEVICES *DEVICES);
    for (int s = 0; s < DEVICES; s++)
        for (int d = s / EP * EP; d < s / EP * EP + EP; d++)
            bytes[s * DEVICES + d] = 100;
    return moe_traffic_all_to_all(f->arena, &f->costs, bytes, false);
}

/* Ranks i and 4 + i reduce 1000 bytes: a ring of two, each sending 1000 to the other. */
static const moe_traffic *gradients(fixture *f)
{
    static const int groups[DEVICES] = {0, 4, 1, 5, 2, 6, 3, 7};
    return moe_traffic_ring(f->arena, &f->costs, MOE_ALL_REDUCE, groups, EP, 2, 1000);
}

typedef struct port_case {
    moe_rank_order order;
    double dispatch_intra; /* out of every device, and into it */
    double dispatch_nic;   /* out of every host, and into it */
    double gradient_intra;
    double gradient_nic;
} port_case;

static void check_ports(fixture *f, const moe_traffic *traffic, double intra, double nic)
{
    for (int device = 0; device < DEVICES; device++) {
        check_near(port_bytes(f, traffic, MOE_PORT_INTRA_OUT, device), intra, 1e-9);
        check_near(port_bytes(f, traffic, MOE_PORT_INTRA_IN, device), intra, 1e-9);
    }
    for (int host = 0; host < 2; host++) {
        check_near(port_bytes(f, traffic, MOE_PORT_NIC_OUT, host), nic, 1e-9);
        check_near(port_bytes(f, traffic, MOE_PORT_NIC_IN, host), nic, 1e-9);
    }
}

/* ep_first: 3 partners on the host, gradients across: 4 devices x 1000 out of a NIC. Both others: a
 * group has 2 ranks on each host, so 1 partner beside and 2 across (4 x 2 x 100), and gradients stay:
 * round robin puts ranks i and 4 + i on devices 4 (i % 2) + i / 2 and two further on. */
static void orders_choose_what_crosses(void **unused)
{
    (void)unused;
    static const port_case cases[] = {
        {MOE_RANKS_EP_FIRST, 300, 0, 0, 4000},
        {MOE_RANKS_EP_LAST, 100, 800, 1000, 0},
        {MOE_RANKS_HOSTS_ROUND_ROBIN, 100, 800, 1000, 0},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        fixture *f = open_ordered(cases[c].order);
        check_ports(f, exchange(f), cases[c].dispatch_intra, cases[c].dispatch_nic);
        check_ports(f, gradients(f), cases[c].gradient_intra, cases[c].gradient_nic);
        fixture_close(f);
    }
}

/* Ranks 1 and 4 change places: each group has 3 ranks on one host and 1 on the other. */
static void a_list_seats_ranks_anywhere(void **unused)
{
    (void)unused;
    static const int devices[DEVICES] = {0, 4, 2, 3, 1, 5, 6, 7};
    fixture *f = open_ordered(MOE_RANKS_EP_FIRST);
    moe_cluster_seat((moe_cluster *)f->problem.cluster, devices);
    const moe_traffic *traffic = exchange(f);
    check_near(port_bytes(f, traffic, MOE_PORT_INTRA_OUT, 0), 200, 1e-9);
    check_near(port_bytes(f, traffic, MOE_PORT_INTRA_OUT, 1), 0, 1e-9); /* rank 4, alone */
    check_near(port_bytes(f, traffic, MOE_PORT_INTRA_OUT, 4), 0, 1e-9); /* rank 1, alone */
    check_near(port_bytes(f, traffic, MOE_PORT_INTRA_OUT, 7), 200, 1e-9);
    check_near(port_bytes(f, traffic, MOE_PORT_NIC_OUT, 0), 600, 1e-9);
    check_near(port_bytes(f, traffic, MOE_PORT_NIC_IN, 1), 600, 1e-9);
    fixture_close(f);
}

/* --- copies ------------------------------------------------------------------------------------- */

/* Striding groups: ranks 0 and 1 share host 0, ranks 2 and 3 host 1. */
static void dispatch_prefers_the_host_of_the_rank(void **unused)
{
    (void)unused;
    fixture *f = open_ordered(MOE_RANKS_EP_LAST);
    uint64_t *copies = moe_arena_array(f->arena, uint64_t, EP);
    moe_set_add(copies, 1);
    moe_set_add(copies, 2);
    f->counts[0 * EP] = 10; /* rank 0: rank 1 is beside */
    f->counts[3 * EP] = 6;  /* rank 3: rank 2 is */
    moe_gate gate = {0, 0, 0, f->counts};
    double *pairs = moe_arena_array(f->arena, double, DEVICES *DEVICES);
    double *rows = moe_arena_array(f->arena, double, DEVICES *EP);
    moe_route route = {.devices = DEVICES, .experts = EP, .pairs = pairs, .rows = rows};
    moe_dispatch_by_topology(&f->problem, &gate, copies, &route);
    check_near(pairs[0 * DEVICES + 1], 10, 0);
    check_near(pairs[3 * DEVICES + 2], 6, 0);
    fixture_close(f);
}

/* A chain enters each host once: 8 MB over one NIC although ranks of hosts alternate. */
static void a_chain_enters_each_host_once(void **unused)
{
    (void)unused;
    fixture *f = open_ordered(MOE_RANKS_HOSTS_ROUND_ROBIN);
    uint64_t all = 0xff;
    moe_chunk chunk = {0, &all};
    const moe_traffic *traffic =
        moe_traffic_chunks(f->arena, &f->costs, MOE_BROADCAST, &chunk, 1, 8e6, MOE_CHUNK_CHAIN);
    check_near(port_bytes(f, traffic, MOE_PORT_NIC_OUT, 0), 8e6, 1e-6);
    check_near(port_bytes(f, traffic, MOE_PORT_NIC_OUT, 1), 0, 1e-6);
    fixture_close(f);
}

/* A token for a host enters it once: at the place of its source, among what its group has there. */
static void forwarding_enters_at_a_rank_of_the_group(void **unused)
{
    (void)unused;
    fixture *f = open_ordered(MOE_RANKS_EP_LAST);
    double *bytes = moe_arena_array(f->arena, double, DEVICES *DEVICES);
    double *host_bytes = moe_arena_array(f->arena, double, DEVICES * 2);
    bytes[0 * DEVICES + 2] = 100; /* rank 0, device 0 to rank 2, device 4 */
    bytes[0 * DEVICES + 3] = 100; /* and to rank 3, device 6: by device 4 */
    host_bytes[0 * 2 + 1] = 150;
    const moe_traffic *traffic =
        moe_traffic_forwarded(f->arena, &f->costs, bytes, host_bytes, EP, false);
    check_near(port_bytes(f, traffic, MOE_PORT_NIC_OUT, 0), 150, 1e-9);
    check_near(port_bytes(f, traffic, MOE_PORT_INTRA_OUT, 4), 100, 1e-9);
    check_near(port_bytes(f, traffic, MOE_PORT_INTRA_IN, 6), 100, 1e-9);
    fixture_close(f);
}

/* --- law 7: names of ranks mean nothing ---------------------------------------------------------- */

static void check_equal(const moe_traffic *a, const moe_traffic *b)
{
    assert_int_equal(a->port_count, b->port_count);
    check_near(a->alpha_s, b->alpha_s, 1e-15);
    for (int k = 0; k < a->port_count; k++) {
        assert_int_equal(a->ports[k], b->ports[k]);
        assert_int_equal(a->flows[k], b->flows[k]);
        check_near(a->bytes[k], b->bytes[k], 1e-9 * a->bytes[k]);
        check_near(a->work[k], b->work[k], 1e-9 * a->work[k]);
    }
}

/* What rank r of `seated` does, device devices[r] of `plain` does. */
typedef struct relabelled {
    fixture *plain;
    fixture *seated;
    int devices[DEVICES];
} relabelled;

static relabelled relabel(uint64_t seed)
{
    relabelled both = {.plain = fixture_open(2, PER_HOST, DEVICES, 1, EP),
                       .seated = fixture_open(2, PER_HOST, DEVICES, 1, EP)};
    for (int r = 0; r < DEVICES; r++)
        both.devices[r] = r;
    gsl_rng *random = moe_random_create(seed, "relabel", 0);
    for (int r = DEVICES - 1; r > 0; r--) {
        int other = (int)gsl_rng_uniform_int(random, (unsigned long)r + 1);
        int device = both.devices[r];
        both.devices[r] = both.devices[other];
        both.devices[other] = device;
    }
    gsl_rng_free(random);
    moe_cluster_seat((moe_cluster *)both.seated->problem.cluster, both.devices);
    return both;
}

static void close_both(relabelled *both)
{
    fixture_close(both->plain);
    fixture_close(both->seated);
}

static void relabelled_exchanges_are_equal(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        relabelled both = relabel(seed);
        double bytes[DEVICES * DEVICES] = {0};
        double moved[DEVICES * DEVICES] = {0};
        double hosts[DEVICES * 2] = {0};
        double moved_hosts[DEVICES * 2] = {0};
        for (int s = 0; s < DEVICES; s++) {
            for (int d = 0; d < DEVICES; d++) {
                double sent = (double)(1 + (s * 37 + d * 11 + (int)seed) % 17);
                bytes[s * DEVICES + d] = sent;
                moved[both.devices[s] * DEVICES + both.devices[d]] = sent;
                hosts[s * 2 + both.devices[d] / PER_HOST] += sent;
                moved_hosts[both.devices[s] * 2 + both.devices[d] / PER_HOST] += sent;
            }
        }
        moe_arena *arena = both.plain->arena;
        check_equal(moe_traffic_all_to_all(arena, &both.seated->costs, bytes, false),
                    moe_traffic_all_to_all(arena, &both.plain->costs, moved, false));
        check_equal(
            moe_traffic_forwarded(arena, &both.seated->costs, bytes, hosts, DEVICES, true),
            moe_traffic_forwarded(arena, &both.plain->costs, moved, moved_hosts, DEVICES, true));
        close_both(&both);
    }
}

static void relabelled_collectives_are_equal(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        relabelled both = relabel(seed);
        int groups[DEVICES];
        for (int r = 0; r < DEVICES; r++)
            groups[r] = r;
        moe_arena *arena = both.plain->arena;
        for (int size = 2; size <= DEVICES; size *= 2) {
            for (int way = MOE_REDUCE_RING; way <= MOE_REDUCE_IN_NETWORK; way++)
                check_equal(
                    moe_traffic_all_reduce(arena, &both.seated->costs, (moe_reduce_algorithm)way,
                                           groups, DEVICES / size, size, 1000),
                    moe_traffic_all_reduce(arena, &both.plain->costs, (moe_reduce_algorithm)way,
                                           both.devices, DEVICES / size, size, 1000));
        }
        close_both(&both);
    }
}

static void relabelled_chunks_are_equal(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        relabelled both = relabel(seed);
        moe_arena *arena = both.plain->arena;
        uint64_t want = seed * 37 % 255 + 1;
        uint64_t moved = 0;
        for (int r = 0; r < DEVICES; r++) {
            if (moe_set_has(&want, r))
                moe_set_add(&moved, both.devices[r]);
        }
        int owner = (int)(seed % DEVICES);
        moe_chunk chunks[2] = {{owner, &want}, {(owner + 3) % DEVICES, &want}};
        moe_chunk moved_chunks[2] = {{both.devices[chunks[0].owner], &moved},
                                     {both.devices[chunks[1].owner], &moved}};
        for (int way = MOE_CHUNK_CHAIN; way <= MOE_CHUNK_WORLD; way++)
            check_equal(moe_traffic_chunks(arena, &both.seated->costs, MOE_BROADCAST, chunks, 2,
                                           8e6, (moe_chunk_algorithm)way),
                        moe_traffic_chunks(arena, &both.plain->costs, MOE_BROADCAST, moved_chunks,
                                           2, 8e6, (moe_chunk_algorithm)way));
        close_both(&both);
    }
}

/* Paths with rails, PXN and NICs of devices: the relay is a rank, its ports are its device's. */
static void relabelled_paths_are_equal(void **unused)
{
    (void)unused;
    relabelled both = relabel(5);
    moe_cluster_spec spec = both.plain->spec;
    spec.nic.sharing = MOE_NIC_PER_DEVICE;
    spec.fabric = (moe_fabric_spec){.hosts_per_leaf = 1,
                                    .oversubscription = 2,
                                    .kind = MOE_FABRIC_RAIL_OPTIMISED,
                                    .path = MOE_PATH_PXN};
    moe_cluster *plain = moe_cluster_create(both.plain, &spec, NULL, both.plain->diag);
    moe_cluster *seated = moe_cluster_create(both.plain, &spec, NULL, both.plain->diag);
    moe_cluster_seat(seated, both.devices);
    for (int s = 0; s < DEVICES; s++) {
        for (int d = 0; d < DEVICES; d++) {
            int ports[MOE_PATH_PORTS];
            int expected[MOE_PATH_PORTS];
            int count = moe_cluster_path(seated, s, d, ports);
            assert_int_equal(count,
                             moe_cluster_path(plain, both.devices[s], both.devices[d], expected));
            assert_memory_equal(ports, expected, (size_t)count * sizeof *ports);
            int relay = moe_cluster_relay(seated, s, d);
            int device = moe_cluster_relay(plain, both.devices[s], both.devices[d]);
            assert_int_equal(relay < 0 ? -1 : both.devices[relay], device);
        }
    }
    close_both(&both);
}

/* --- scenarios ---------------------------------------------------------------------------------- */

/* The quickstart on 4 x 8 devices with a `parallel` of its own. */
static moe_binding *bind(void *owner, const char *parallel, FILE *errors)
{
    const char *overrides[] = {talloc_asprintf(owner, "parallel=%s", parallel),
                               "trace.window=[500, 501]"};
    moe_diag *diag = moe_diag_create(owner, errors);
    return moe_binding_create(owner, MOE_TEST_SOURCE_DIR "/configs/scenarios/quickstart.yaml",
                              overrides, 2, NULL, diag);
}

static void scenarios_say_who_sits_where(void **unused)
{
    (void)unused;
    void *owner = talloc_new(NULL);
    const moe_binding *binding = bind(owner, "{ep: 8, expert_dp: 4, order: ep_last}", stderr);
    assert_non_null(binding);
    assert_int_equal(binding->layout.groups, 4);
    assert_int_equal(binding->cluster->places[9].device, 5); /* position 1 of group 1 */
    assert_string_equal(moe_binding_order(binding), "ep_last");
    binding = bind(owner, "{expert_dp: 2}", stderr);
    assert_non_null(binding);
    assert_int_equal(binding->layout.ep, 16);
    assert_string_equal(moe_binding_order(binding), "ep_first");
    binding = bind(owner, "{order: ep_last}", stderr); /* one group */
    assert_non_null(binding);
    for (int r = 0; r < 32; r++)
        assert_int_equal(binding->cluster->places[r].device, r);
    talloc_free(owner);
}

static const struct {
    const char *parallel;
    const char *message;
} refusals[] = {
    {"{ep: 5}", "error: ep is 5, expected a divisor of the cluster's 32 devices (4 hosts x 8)"},
    {"{expert_dp: 5}",
     "error: expert_dp is 5, expected a divisor of the cluster's 32 devices (4 hosts x 8)"},
    {"{ep: 8, expert_dp: 3}", "error: expert_dp is 3, expected 4: the cluster's 32 devices are so "
                              "many EP groups of 8"},
    {"{ep: 8, dp: 4}", "error: dp is 4, expected 32, one source rank on every device"},
    {"{order: ep_middle}", "ep_middle"},
    {"{order: ep_last, ranks: [0, 1]}",
     "error: ranks and order ep_last both say where ranks sit, expected one"},
    {"{ranks: [0, 1]}", "error: ranks has 2 devices, expected the cluster's 32"},
    {"{ranks: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, "
     "23, 24, 25, 26, 27, 28, 29, 30, 3]}",
     "error: ranks puts rank 31 on device 3, expected each of 0 to 31 once"},
    {"{ranks: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, "
     "23, 24, 25, 26, 27, 28, 29, 30, 32]}",
     "error: ranks puts rank 31 on device 32, expected each of 0 to 31 once"},
};

static void bad_groups_are_refused(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        void *owner = talloc_new(NULL);
        char *text = NULL;
        size_t size = 0;
        FILE *errors = open_memstream(&text, &size);
        assert_null(bind(owner, refusals[i].parallel, errors));
        fclose(errors);
        if (strstr(text, refusals[i].message) == NULL)
            fail_msg("%s: got \"%s\", expected \"%s\"", refusals[i].parallel, text,
                     refusals[i].message);
        free(text);
        talloc_free(owner);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_seat_every_rank),
        cmocka_unit_test(groups_are_listed_host_by_host),
        cmocka_unit_test(orders_choose_what_crosses),
        cmocka_unit_test(a_list_seats_ranks_anywhere),
        cmocka_unit_test(dispatch_prefers_the_host_of_the_rank),
        cmocka_unit_test(a_chain_enters_each_host_once),
        cmocka_unit_test(forwarding_enters_at_a_rank_of_the_group),
        cmocka_unit_test(relabelled_exchanges_are_equal),
        cmocka_unit_test(relabelled_collectives_are_equal),
        cmocka_unit_test(relabelled_chunks_are_equal),
        cmocka_unit_test(relabelled_paths_are_equal),
        cmocka_unit_test(scenarios_say_who_sits_where),
        cmocka_unit_test(bad_groups_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
