/* All-reduce by ring, trees and in the network, against sums by hand and closed forms; rings on
 * rails, meshes and NVLink domains.
 *
 * Rates are invented and every efficiency is 1: 300 bytes/s for a device's link, 50 for a NIC. */
#include "models/collective.h"

#include "models/cluster_mesh.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <talloc.h>

#include <cmocka.h>

#define INTRA_S 1e-6
#define NIC_S   5e-6

static double curve_x[] = {1};
static double curve_full[] = {1};

typedef struct fixture {
    moe_cluster_spec spec;
    moe_cluster *cluster;
    moe_profile profile;
    moe_curve_usage usage;
    moe_costs costs;
    moe_arena *arena;
    moe_diag *diag;
    int *everyone;
} fixture;

static fixture *open_fixture(int hosts, int devices_per_host)
{
    fixture *f = talloc_zero(NULL, fixture);
    f->spec = (moe_cluster_spec){
        .hosts = hosts,
        .devices_per_host = devices_per_host,
        .device = {"invented", 1e12, 1e9, 1e11, 100},
        .intra = {.kind = MOE_INTRA_NVSWITCH, .bandwidth_bytes_per_s = 300, .latency_s = INTRA_S},
        .nic = {.sharing = MOE_NIC_PER_DEVICE, .bandwidth_bytes_per_s = 50, .latency_s = NIC_S},
        .fabric = {.oversubscription = 1},
    };
    for (int k = 0; k < MOE_COLLECTIVE_KINDS; k++) {
        f->profile.collectives[k].intra = (moe_points){curve_x, curve_full, 1};
        f->profile.collectives[k].inter = (moe_points){curve_x, curve_full, 1};
    }
    f->diag = moe_diag_create(f, stderr);
    f->arena = moe_arena_create(f);
    return f;
}

static void with_cluster(fixture *f)
{
    f->cluster = moe_cluster_create(f, &f->spec, NULL, f->diag);
    assert_non_null(f->cluster);
    f->costs = (moe_costs){&f->profile, f->cluster, &f->usage};
    f->everyone = talloc_array(f, int, f->cluster->devices);
    for (int d = 0; d < f->cluster->devices; d++)
        f->everyone[d] = d;
}

static moe_traffic *reduce_all(fixture *f, moe_reduce_algorithm algorithm, double bytes)
{
    return moe_traffic_all_reduce(f->arena, &f->costs, algorithm, f->everyone, 1,
                                  f->cluster->devices, bytes);
}

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-12 * fmax(fabs(expected), 1e-9)))
        fail_msg("found %.17g, expected %.17g", found, expected);
}

static double bytes_on(const fixture *f, const moe_traffic *traffic, moe_port_kind kind, int unit)
{
    assert_true(f->cluster->first_port[kind] >= 0);
    int port = f->cluster->first_port[kind] + unit;
    for (int k = 0; k < traffic->port_count; k++)
        if (traffic->ports[k] == port)
            return traffic->bytes[k];
    return 0;
}

static double sum_on(const fixture *f, const moe_traffic *traffic, moe_port_kind kind)
{
    double sum = 0;
    for (int k = 0; k < traffic->port_count; k++)
        if (f->cluster->ports[traffic->ports[k]].kind == kind)
            sum += traffic->bytes[k];
    return sum;
}

/* ---- one host ----------------------------------------------------------------------------------
 */

/* 800 bytes on eight devices: 7/4 of them by ring or chain, 9/8 through a switch that adds. */
static void loads_within_a_host(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 8);
    f->spec.intra.reduction = true;
    with_cluster(f);
    static const double expected[] = {1400, 1400, 900};
    static const double hops[] = {14, 14, 2};
    for (int a = MOE_REDUCE_RING; a <= MOE_REDUCE_IN_NETWORK; a++) {
        moe_traffic *traffic = reduce_all(f, (moe_reduce_algorithm)a, 800);
        for (int d = 0; d < 8; d++) {
            assert_near(bytes_on(f, traffic, MOE_PORT_INTRA_OUT, d), expected[a]);
            assert_near(bytes_on(f, traffic, MOE_PORT_INTRA_IN, d), expected[a]);
        }
        assert_near(traffic->alpha_s, hops[a] * INTRA_S);
        assert_near(moe_traffic_alone_s(traffic, f->cluster), traffic->alpha_s + expected[a] / 300);
    }
    talloc_free(f);
}

/* What measurements say: an all-reduce of DGX H100 reaches 480 GB/s busbw over links of 450 GB/s
 * (NVIDIA/dgxc-benchmarking), which no ring can, and in-network reduction can up to 700. */
static void in_network_explains_h100(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 8);
    f->spec.intra.bandwidth_bytes_per_s = 450e9;
    f->spec.intra.latency_s = 0;
    f->spec.intra.reduction = true;
    with_cluster(f);
    double bytes = 17179869184.0;
    double ring_s = moe_traffic_alone_s(reduce_all(f, MOE_REDUCE_RING, bytes), f->cluster);
    double sum_s = moe_traffic_alone_s(reduce_all(f, MOE_REDUCE_IN_NETWORK, bytes), f->cluster);
    assert_near(1.75 * bytes / ring_s, 450e9);
    assert_near(1.75 * bytes / sum_s, 700e9);
    talloc_free(f);
}

/* Without switches that add, "in network" is a ring within hosts. */
static void no_adding_switch_is_a_ring(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 8);
    with_cluster(f);
    moe_traffic *traffic = reduce_all(f, MOE_REDUCE_IN_NETWORK, 800);
    assert_near(bytes_on(f, traffic, MOE_PORT_INTRA_OUT, 3), 1400);
    assert_near(traffic->alpha_s, 14 * INTRA_S);
    talloc_free(f);
}

/* Six rings in a whole mesh: every link carries its share, three quarters more than S / 6. */
static void ring_uses_all_links_of_a_mesh(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 8);
    f->spec.intra.kind = MOE_INTRA_CUBE_MESH;
    with_cluster(f);
    moe_traffic *traffic = reduce_all(f, MOE_REDUCE_RING, 600);
    assert_int_equal(traffic->port_count, MOE_MESH_PORTS);
    for (int p = 0; p < MOE_MESH_PORTS; p++)
        assert_near(bytes_on(f, traffic, MOE_PORT_LINK, p),
                    f->cluster->mesh->links[p] * 1.75 * 600 / 6);
    assert_near(moe_traffic_alone_s(traffic, f->cluster), traffic->alpha_s + 1.75 * 600 / 300);
    assert_near(traffic->alpha_s, 14 * INTRA_S); /* no relays */
    talloc_free(f);
}

/* ---- several hosts -----------------------------------------------------------------------------
 */

/* On two hosts of eight a ring puts 15/8 S through a host's NICs each way, trees S. */
static void trees_on_two_hosts(void **state)
{
    (void)state;
    fixture *f = open_fixture(2, 8);
    with_cluster(f);
    moe_traffic *ring = reduce_all(f, MOE_REDUCE_RING, 1600);
    moe_traffic *tree = reduce_all(f, MOE_REDUCE_TREE, 1600);
    for (int d = 0; d < 16; d++) {
        assert_near(bytes_on(f, ring, MOE_PORT_NIC_OUT, d), 1600 * 1.875 / 8);
        assert_near(bytes_on(f, tree, MOE_PORT_NIC_OUT, d), 1600 / 8.0);
        assert_near(bytes_on(f, tree, MOE_PORT_NIC_IN, d), 1600 / 8.0);
        assert_near(bytes_on(f, tree, MOE_PORT_INTRA_OUT, d), 1600 * 1.75);
    }
    assert_near(tree->alpha_s, 2 * (7 * INTRA_S + NIC_S));
    assert_near(ring->alpha_s, 2 * (13 * INTRA_S + 2 * NIC_S));
    talloc_free(f);
}

/* Two trees of n hosts move 2 (n-1) S in all; no host more than twice S, none less than half of it. */
static void trees_are_balanced(void **state)
{
    (void)state;
    for (int hosts = 2; hosts <= 33; hosts++) {
        fixture *f = open_fixture(hosts, 1);
        with_cluster(f);
        moe_traffic *traffic = reduce_all(f, MOE_REDUCE_TREE, 100);
        double all = 0;
        for (int h = 0; h < hosts; h++) {
            double out = bytes_on(f, traffic, MOE_PORT_NIC_OUT, h);
            assert_near(out, bytes_on(f, traffic, MOE_PORT_NIC_IN, h));
            assert_true(out <= 200 + 1e-9);
            assert_true(out >= 50 - 1e-9);
            all += out;
        }
        assert_near(all, 2 * (hosts - 1) * 100);
        assert_true(traffic->alpha_s <= 2 * NIC_S * (ceil(log2(hosts)) + 1) + 1e-12);
        talloc_free(f);
    }
}

/* Everyone waits for everything of its group, and for nothing of another. */
static void groups_wait_for_themselves(void **state)
{
    (void)state;
    fixture *f = open_fixture(4, 2);
    with_cluster(f);
    static const int groups[] = {0, 1, 2, 3, 4, 5, 6, 7};
    moe_traffic *traffic =
        moe_traffic_all_reduce(f->arena, &f->costs, MOE_REDUCE_TREE, groups, 2, 4, 100);
    for (int k = 0; k < traffic->port_count; k++) {
        const moe_port *port = &f->cluster->ports[traffic->ports[k]];
        for (int d = 0; d < 8; d++) {
            bool touched = traffic->touches[d * traffic->words + k / 64] >> (k % 64) & 1;
            assert_int_equal(touched, port->unit / 4 == d / 4);
        }
    }
    assert_null(moe_traffic_all_reduce(f->arena, &f->costs, MOE_REDUCE_TREE, groups, 8, 1, 100));
    assert_null(moe_traffic_all_reduce(f->arena, &f->costs, MOE_REDUCE_TREE, groups, 2, 4, 0));
    talloc_free(f);
}

/* SHARP: every host sends its bytes once and gets them once; a leaf passes one copy up and down. */
static void fabric_adds_per_leaf(void **state)
{
    (void)state;
    fixture *f = open_fixture(6, 4);
    f->spec.intra.reduction = true;
    f->spec.fabric = (moe_fabric_spec){
        .hosts_per_leaf = 3, .oversubscription = 2, .latency_s = 2e-6, .reduction = true};
    with_cluster(f);
    moe_traffic *traffic = reduce_all(f, MOE_REDUCE_IN_NETWORK, 400);
    for (int d = 0; d < 24; d++) {
        assert_near(bytes_on(f, traffic, MOE_PORT_NIC_OUT, d), 100); /* four NICs a host */
        assert_near(bytes_on(f, traffic, MOE_PORT_NIC_IN, d), 100);
        assert_near(bytes_on(f, traffic, MOE_PORT_INTRA_OUT, d), 400 * 5 / 4);
    }
    for (int leaf = 0; leaf < 2; leaf++) {
        assert_near(bytes_on(f, traffic, MOE_PORT_LEAF_UP, leaf), 400);
        assert_near(bytes_on(f, traffic, MOE_PORT_LEAF_DOWN, leaf), 400);
    }
    assert_near(traffic->alpha_s, 2 * INTRA_S + 2 * (NIC_S + 2e-6));
    f->spec.fabric.reduction = false; /* NVLS within, trees between */
    traffic = reduce_all(f, MOE_REDUCE_IN_NETWORK, 400);
    assert_near(sum_on(f, traffic, MOE_PORT_NIC_OUT), 2 * 5 * 400);
    assert_near(bytes_on(f, traffic, MOE_PORT_INTRA_OUT, 0), 400 * 5 / 4);
    talloc_free(f);
}

/* ---- rails and domains -------------------------------------------------------------------------
 */

/* Rings leave a host on the rail on which they enter the next: nothing goes up to the spine. Of an
 * odd number of hosts, one hop of each channel does. */
static void rings_stay_on_their_rails(void **state)
{
    (void)state;
    for (int hosts = 2; hosts <= 5; hosts++) {
        fixture *f = open_fixture(hosts, 4);
        f->spec.fabric =
            (moe_fabric_spec){.kind = MOE_FABRIC_RAIL_OPTIMISED, .oversubscription = 2};
        with_cluster(f);
        moe_traffic *traffic = reduce_all(f, MOE_REDUCE_RING, 400);
        double edge = 2.0 * (4 * hosts - 1) / (4 * hosts) * 400 / 4;
        assert_near(sum_on(f, traffic, MOE_PORT_LEAF_UP), hosts % 2 == 0 ? 0 : 4 * edge);
        for (int d = 0; d < 4 * hosts; d++)
            assert_near(bytes_on(f, traffic, MOE_PORT_NIC_OUT, d), edge);
        traffic = reduce_all(f, MOE_REDUCE_TREE, 400);
        assert_near(sum_on(f, traffic, MOE_PORT_LEAF_UP), 0);
        talloc_free(f);
    }
}

/* Two domains of three hosts are two stations of a ring, with twelve NICs each. */
static void rings_cross_domains_once(void **state)
{
    (void)state;
    fixture *f = open_fixture(6, 4);
    f->spec.intra.domain_hosts = 3;
    with_cluster(f);
    moe_traffic *traffic = reduce_all(f, MOE_REDUCE_RING, 1200);
    double all = 2 * 23.0 / 24 * 1200;
    for (int d = 0; d < 24; d++) {
        assert_near(bytes_on(f, traffic, MOE_PORT_NIC_OUT, d), all / 12);
        assert_near(bytes_on(f, traffic, MOE_PORT_INTRA_OUT, d), all * 11 / 12);
    }
    /* a chain of a chunk that everyone wants enters the other domain once, from a host in the middle */
    uint64_t want = 0xffffff;
    const moe_chunk chunk = {4, &want};
    traffic =
        moe_traffic_chunks(f->arena, &f->costs, MOE_BROADCAST, &chunk, 1, 100, MOE_CHUNK_CHAIN);
    assert_near(sum_on(f, traffic, MOE_PORT_NIC_OUT), 100);
    assert_near(sum_on(f, traffic, MOE_PORT_INTRA_OUT), 22 * 100);
    talloc_free(f);
}

/* Four NICs for eight devices: four channels, each by a NIC of its own. */
static void shared_nics_are_all_used(void **state)
{
    (void)state;
    fixture *f = open_fixture(2, 8);
    f->spec.nic = (moe_nic_spec){.per_host_count = 4, .bandwidth_bytes_per_s = 200};
    with_cluster(f);
    moe_traffic *traffic = reduce_all(f, MOE_REDUCE_RING, 1600);
    for (int n = 0; n < 8; n++) {
        assert_near(bytes_on(f, traffic, MOE_PORT_NIC_OUT, n), 1600 * 1.875 / 4);
        assert_near(bytes_on(f, traffic, MOE_PORT_NIC_IN, n), 1600 * 1.875 / 4);
    }
    traffic = reduce_all(f, MOE_REDUCE_TREE, 1600);
    for (int n = 0; n < 8; n++)
        assert_near(bytes_on(f, traffic, MOE_PORT_NIC_OUT, n), 400);
    talloc_free(f);
}

/* Latency of an all-to-all where it depends on more than the hosts. */
static void all_to_all_sees_relays(void **state)
{
    (void)state;
    fixture *f = open_fixture(2, 4);
    f->spec.fabric = (moe_fabric_spec){
        .kind = MOE_FABRIC_RAIL_ONLY, .oversubscription = 1, .path = MOE_PATH_PXN};
    with_cluster(f);
    double bytes[64] = {0};
    bytes[0 * 8 + 4] = 10; /* the same rail */
    moe_traffic *traffic = moe_traffic_all_to_all(f->arena, &f->costs, bytes, false);
    assert_near(traffic->alpha_s, NIC_S);
    bytes[0 * 8 + 6] = 10; /* by way of 2 */
    traffic = moe_traffic_all_to_all(f->arena, &f->costs, bytes, false);
    assert_near(traffic->alpha_s, NIC_S + INTRA_S);
    assert_near(bytes_on(f, traffic, MOE_PORT_NIC_OUT, 2), 10);
    assert_near(traffic->inter_host_bytes, 20); /* each transfer counted once */
    talloc_free(f);
}

/* ---- the profile's choice ----------------------------------------------------------------------
 */

static void profile_names_the_algorithm(void **state)
{
    (void)state;
    fixture *f = open_fixture(2, 8);
    with_cluster(f);
    f->profile.collectives[MOE_ALL_REDUCE].algorithm = MOE_REDUCE_TREE;
    moe_traffic *traffic =
        moe_traffic_group(f->arena, &f->costs, MOE_ALL_REDUCE, f->everyone, 1, 16, 1600);
    assert_near(bytes_on(f, traffic, MOE_PORT_NIC_OUT, 0), 200);
    traffic = moe_traffic_group(f->arena, &f->costs, MOE_ALL_GATHER, f->everyone, 1, 16, 1600);
    assert_near(bytes_on(f, traffic, MOE_PORT_NIC_OUT, 0), 1600 * 0.9375 / 8); /* a ring still */
    talloc_free(f);
}

/* A switch that cannot add is refused where the profile asks it to. */
static void in_network_needs_switches_that_add(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 8);
    with_cluster(f);
    for (int part = 0; part < 3; part++) {
        moe_compute_curve *curve = (moe_compute_curve *[]){&f->profile.dense, f->profile.experts,
                                                           &f->profile.memory}[part];
        *curve = (moe_compute_curve){
            .flop_efficiency = 1, .memory_efficiency = 1, .norm = 2, .tile_rows = 1};
    }
    f->profile.slowdown = 1;
    f->profile.collectives[MOE_ALL_REDUCE].algorithm = MOE_REDUCE_IN_NETWORK;
    moe_diag *diag = moe_diag_create(f, NULL);
    assert_int_equal(moe_profile_check(&f->profile, f->cluster, NULL, diag), MOE_BAD_INPUT);
    assert_int_equal(moe_diag_error_count(diag), 1);
    f->spec.intra.reduction = true;
    assert_int_equal(moe_profile_check(&f->profile, f->cluster, NULL, diag), MOE_OK);
    f->spec.intra.reduction = false;
    f->spec.fabric.reduction = true;
    assert_int_equal(moe_profile_check(&f->profile, f->cluster, NULL, diag), MOE_OK);
    assert_int_equal(moe_profile_check(&f->profile, NULL, NULL, diag), MOE_OK);
    talloc_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_within_a_host),
        cmocka_unit_test(in_network_explains_h100),
        cmocka_unit_test(no_adding_switch_is_a_ring),
        cmocka_unit_test(ring_uses_all_links_of_a_mesh),
        cmocka_unit_test(trees_on_two_hosts),
        cmocka_unit_test(trees_are_balanced),
        cmocka_unit_test(groups_wait_for_themselves),
        cmocka_unit_test(fabric_adds_per_leaf),
        cmocka_unit_test(rings_stay_on_their_rails),
        cmocka_unit_test(rings_cross_domains_once),
        cmocka_unit_test(shared_nics_are_all_used),
        cmocka_unit_test(all_to_all_sees_relays),
        cmocka_unit_test(profile_names_the_algorithm),
        cmocka_unit_test(in_network_needs_switches_that_add),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
