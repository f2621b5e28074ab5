/* Collectives against sums done by hand and closed forms: bytes, work, alpha and who waits for
 * what.
 *
 * Links are invented, with rates that keep numbers readable. Every kind of collective shares one
 * curve of efficiency: 0.25 at 100 bytes a rank, 1 at 10,000 within a host (0.5 at 1,000, halfway
 * in both logarithms), and half of that between hosts. */
#include "models/collective.h"

#include "configs/base/random.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <talloc.h>

#include <cmocka.h>

#define INTRA_S 1e-6
#define NIC_S   5e-6
#define LEAF_S  2e-6

static double curve_x[] = {100, 10000};
static double curve_intra[] = {0.25, 1};
static double curve_inter[] = {0.125, 0.5};

typedef struct fixture {
    moe_cluster_spec spec;
    moe_cluster *cluster;
    moe_profile profile;
    moe_curve_usage usage;
    moe_costs costs;
    moe_arena *arena;
    moe_diag *diag;
} fixture;

/* Owned by talloc's null context until `close_fixture`. */
static fixture *open_fixture(int hosts, int devices_per_host, int intra, int nic)
{
    fixture *f = talloc_zero(NULL, fixture);
    f->spec = (moe_cluster_spec){
        .name = "invented",
        .hosts = hosts,
        .devices_per_host = devices_per_host,
        .device = {"invented", 1e12, 1e9, 1e11, 100},
        .intra = {.kind = intra, .bandwidth_bytes_per_s = 300, .latency_s = INTRA_S},
        .nic = {.sharing = nic, .bandwidth_bytes_per_s = 50, .latency_s = NIC_S},
        .fabric = {.hosts_per_leaf = 0, .oversubscription = 1, .latency_s = LEAF_S},
    };
    for (int k = 0; k < MOE_COLLECTIVE_KINDS; k++) {
        f->profile.collectives[k] = (moe_collective_curve){
            .start_s = 1e-5,
            .start_per_rank_s = 1e-7,
            .start_per_chunk_s = 1e-8,
            .intra = {curve_x, curve_intra, 2},
            .inter = {curve_x, curve_inter, 2},
        };
    }
    f->diag = moe_diag_create(f, stderr);
    f->arena = moe_arena_create(f);
    return f;
}

static fixture *with_cluster(fixture *f)
{
    f->cluster = moe_cluster_create(f, &f->spec, NULL, f->diag);
    assert_non_null(f->cluster);
    f->costs = (moe_costs){&f->profile, f->cluster, &f->usage};
    return f;
}

static fixture *open_plain(int hosts, int devices_per_host, int nic)
{
    return with_cluster(open_fixture(hosts, devices_per_host, MOE_INTRA_NVSWITCH, nic));
}

static int port_of(const fixture *f, moe_port_kind kind, int unit)
{
    assert_true(f->cluster->first_port[kind] >= 0);
    return f->cluster->first_port[kind] + unit;
}

/* The port's place among the loaded ones, or -1. */
static int loaded_at(const fixture *f, const moe_traffic *traffic, moe_port_kind kind, int unit)
{
    int port = port_of(f, kind, unit);
    for (int k = 0; k < traffic->port_count; k++) {
        if (traffic->ports[k] == port) {
            return k;
        }
    }
    return -1;
}

static double bytes_on(const fixture *f, const moe_traffic *traffic, moe_port_kind kind, int unit)
{
    int k = loaded_at(f, traffic, kind, unit);
    return k < 0 ? 0 : traffic->bytes[k];
}

static bool touches(const fixture *f, const moe_traffic *traffic, int device, moe_port_kind kind,
                    int unit)
{
    int k = loaded_at(f, traffic, kind, unit);
    assert_true(k >= 0);
    return traffic->touches[device * traffic->words + k / 64] >> (k % 64) & 1;
}

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-12 * fmax(fabs(expected), 1e-9))) {
        fail_msg("found %.17g, expected %.17g", found, expected);
    }
}

#define assert_bytes(kind, unit, expected)                                                         \
    assert_near(bytes_on(f, traffic, MOE_PORT_##kind, (unit)), (expected))

static void assert_transfers(const moe_traffic *traffic, const int (*pairs)[2], size_t count,
                             double bytes)
{
    assert_non_null(traffic);
    assert_int_equal(traffic->transfer_count, count);
    for (size_t t = 0; t < count; t++) {
        assert_int_equal(traffic->transfers[t].source, pairs[t][0]);
        assert_int_equal(traffic->transfers[t].target, pairs[t][1]);
        assert_near(traffic->transfers[t].bytes, bytes);
    }
}

/* --- all-to-all ------------------------------------------------------------------------------- */

static void two_devices_by_hand(void **state)
{
    (void)state;
    fixture *f = open_plain(1, 2, MOE_NIC_PER_HOST);
    const double matrix[] = {100, 700, /* kept, sent */ 300, 900};
    moe_traffic *traffic = moe_traffic_all_to_all(f->arena, &f->costs, matrix, false);
    assert_int_equal(traffic->port_count, 4);
    assert_bytes(INTRA_OUT, 0, 700);
    assert_bytes(INTRA_IN, 1, 700);
    assert_bytes(INTRA_OUT, 1, 300);
    assert_bytes(INTRA_IN, 0, 300);
    /* rows of 800 and 1,200 bytes: 1,000 a rank, half the rate */
    assert_near(traffic->work[loaded_at(f, traffic, MOE_PORT_INTRA_OUT, 0)], 1400);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 + INTRA_S);
    assert_near(moe_traffic_alone_s(traffic, f->cluster), traffic->alpha_s + 1400.0 / 300);
    assert_near(traffic->intra_host_bytes, 1000);
    assert_near(traffic->inter_host_bytes, 0);
    assert_int_equal(traffic->participants, 2);
    assert_int_equal(traffic->transfer_count, 2);
    /* one efficiency for each of the two kinds of port */
    assert_int_equal(f->usage.evaluated[MOE_CURVE_COLLECTIVE + MOE_ALL_TO_ALL], 2);
    talloc_free(f);
}

static double *random_matrix(fixture *f, uint64_t index, double density)
{
    size_t devices = (size_t)f->cluster->devices;
    double *matrix = moe_arena_array(f->arena, double, devices *devices);
    gsl_rng *random = moe_random_create(7, "test_collective", index);
    for (size_t i = 0; i < devices * devices; i++) {
        double bytes = 1 + (double)gsl_rng_uniform_int(random, 997);
        matrix[i] = gsl_rng_uniform(random) < density ? bytes : 0;
    }
    gsl_rng_free(random);
    return matrix;
}

typedef enum side { SENT, RECEIVED } side;
typedef enum reach { WITHIN, BEYOND, ALL } reach;

/* Sum of the matrix over pairs whose `end` lies in units of `per_unit` devices = `unit`, and
 * whose other end lies within (beyond) the same `group` of devices. */
static double pair_sum(const fixture *f, const double *matrix, side end, int per_unit, int unit,
                       reach where, int group)
{
    double sum = 0;
    int devices = f->cluster->devices;
    for (int i = 0; i < devices; i++) {
        for (int j = 0; j < devices; j++) {
            bool within = i / group == j / group;
            bool ours = (end == SENT ? i : j) / per_unit == unit;
            if (i != j && ours && (where == ALL || within == (where == WITHIN))) {
                sum += matrix[i * devices + j];
            }
        }
    }
    return sum;
}

static void uneven_exchange_with_nic_per_host(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_HOST);
    const double *m = random_matrix(f, 1, 0.8);
    moe_traffic *traffic = moe_traffic_all_to_all(f->arena, &f->costs, m, false);
    for (int d = 0; d < 6; d++) {
        assert_bytes(INTRA_OUT, d, pair_sum(f, m, SENT, 1, d, WITHIN, 3));
        assert_bytes(INTRA_IN, d, pair_sum(f, m, RECEIVED, 1, d, WITHIN, 3));
    }
    for (int h = 0; h < 2; h++) {
        assert_bytes(NIC_OUT, h, pair_sum(f, m, SENT, 3, h, BEYOND, 3));
        assert_bytes(NIC_IN, h, pair_sum(f, m, RECEIVED, 3, h, BEYOND, 3));
    }
    assert_near(traffic->intra_host_bytes, pair_sum(f, m, SENT, 6, 0, WITHIN, 3));
    assert_near(traffic->inter_host_bytes, pair_sum(f, m, SENT, 6, 0, BEYOND, 3));
    talloc_free(f);
}

static void uneven_exchange_with_nic_per_device(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_DEVICE);
    const double *m = random_matrix(f, 2, 0.8);
    moe_traffic *traffic = moe_traffic_all_to_all(f->arena, &f->costs, m, false);
    for (int d = 0; d < 6; d++) {
        assert_bytes(INTRA_OUT, d, pair_sum(f, m, SENT, 1, d, WITHIN, 3));
        assert_bytes(NIC_OUT, d, pair_sum(f, m, SENT, 1, d, BEYOND, 3));
        assert_bytes(NIC_IN, d, pair_sum(f, m, RECEIVED, 1, d, BEYOND, 3));
    }
    talloc_free(f);
}

static void uneven_exchange_over_pcie(void **state)
{
    (void)state;
    fixture *f = open_fixture(2, 3, MOE_INTRA_PCIE, MOE_NIC_PER_HOST);
    f->spec.intra.bridge_bytes_per_s = 400;
    with_cluster(f);
    const double *m = random_matrix(f, 3, 0.8);
    moe_traffic *traffic = moe_traffic_all_to_all(f->arena, &f->costs, m, false);
    for (int d = 0; d < 6; d++) {
        assert_bytes(INTRA_OUT, d, pair_sum(f, m, SENT, 1, d, ALL, 3));
        assert_bytes(INTRA_IN, d, pair_sum(f, m, RECEIVED, 1, d, ALL, 3));
    }
    assert_bytes(BRIDGE, 0, pair_sum(f, m, SENT, 3, 0, WITHIN, 3));
    assert_bytes(BRIDGE, 1, pair_sum(f, m, SENT, 3, 1, WITHIN, 3));
    talloc_free(f);
}

static void uneven_exchange_between_leaves(void **state)
{
    (void)state;
    fixture *f = open_fixture(4, 2, MOE_INTRA_NVLINK, MOE_NIC_PER_HOST);
    f->spec.fabric.hosts_per_leaf = 2;
    f->spec.fabric.oversubscription = 4;
    with_cluster(f);
    const double *m = random_matrix(f, 4, 0.8);
    moe_traffic *traffic = moe_traffic_all_to_all(f->arena, &f->costs, m, false);
    for (int leaf = 0; leaf < 2; leaf++) {
        assert_bytes(LEAF_UP, leaf, pair_sum(f, m, SENT, 4, leaf, BEYOND, 4));
        assert_bytes(LEAF_DOWN, leaf, pair_sum(f, m, RECEIVED, 4, leaf, BEYOND, 4));
    }
    assert_near(traffic->alpha_s, 1e-5 + 3e-7 + NIC_S + LEAF_S);
    const double few[64] = {[1] = 5, [7] = 5}; /* from 0 to its neighbour and to the other leaf */
    traffic = moe_traffic_all_to_all(f->arena, &f->costs, few, false);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(3) + NIC_S + LEAF_S);
    talloc_free(f);
}

static void transposed_is_the_transpose(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_DEVICE);
    const double *m = random_matrix(f, 5, 0.5);
    double *turned = moe_arena_array(f->arena, double, 36);
    for (int i = 0; i < 36; i++) {
        turned[i % 6 * 6 + i / 6] = m[i];
    }
    moe_traffic *a = moe_traffic_all_to_all(f->arena, &f->costs, m, true);
    moe_traffic *b = moe_traffic_all_to_all(f->arena, &f->costs, turned, false);
    assert_int_equal(a->port_count, b->port_count);
    assert_memory_equal(a->ports, b->ports, (size_t)a->port_count * sizeof(int));
    assert_memory_equal(a->flows, b->flows, (size_t)a->port_count * sizeof(int));
    assert_memory_equal(a->touches, b->touches, 6 * sizeof(uint64_t));
    assert_near(a->alpha_s, b->alpha_s);
    for (int k = 0; k < a->port_count; k++) {
        assert_near(a->bytes[k], b->bytes[k]);
        assert_near(a->work[k], b->work[k]);
    }
    talloc_free(f);
}

static void uniform_exchange_is_the_closed_form(void **state)
{
    (void)state;
    fixture *f = open_plain(4, 2, MOE_NIC_PER_HOST);
    double m[64];
    for (int i = 0; i < 64; i++) {
        m[i] = 125; /* 1,000 bytes a rank */
    }
    moe_traffic *traffic = moe_traffic_all_to_all(f->arena, &f->costs, m, false);
    /* a NIC carries 2 devices x 6 peers x 125 bytes at 50 bytes/s, efficiency 0.25 */
    assert_near(moe_traffic_alone_s(traffic, f->cluster),
                1e-5 + 3e-7 + NIC_S + 2 * 6 * 125 / 0.25 / 50);
    for (int k = 0; k < traffic->port_count; k++) {
        bool nic = f->cluster->ports[traffic->ports[k]].kind >= MOE_PORT_NIC_OUT;
        assert_int_equal(traffic->flows[k], nic ? 12 : 1);
    }
    talloc_free(f);
}

/* Everyone who exchanges with a hot device waits for its port; those who do not are free. */
static void hot_devices_hold_up_their_partners(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_DEVICE);
    double sender[36] = {0};
    for (int j = 1; j < 5; j++) {
        sender[j] = 100.0 * j;
    }
    moe_traffic *traffic = moe_traffic_all_to_all(f->arena, &f->costs, sender, false);
    assert_bytes(INTRA_OUT, 0, 300);
    assert_bytes(NIC_OUT, 0, 700);
    assert_bytes(NIC_IN, 4, 400);
    assert_int_equal(traffic->participants, 5);
    assert_false(traffic->takes_part[5]);
    assert_true(touches(f, traffic, 3, MOE_PORT_NIC_OUT, 0));
    assert_true(touches(f, traffic, 4, MOE_PORT_NIC_OUT, 0));
    assert_false(touches(f, traffic, 3, MOE_PORT_NIC_IN, 4));
    assert_false(touches(f, traffic, 2, MOE_PORT_NIC_OUT, 0));
    assert_int_equal(traffic->touches[5], 0);
    /* 1,000 bytes over 5 that take part */
    assert_near(traffic->work[loaded_at(f, traffic, MOE_PORT_NIC_OUT, 0)],
                700 / moe_cost_efficiency(&f->costs, MOE_ALL_TO_ALL, MOE_PORT_NIC_OUT, 200, 0));
    assert_near(moe_traffic_alone_s(traffic, f->cluster),
                traffic->alpha_s + traffic->work[loaded_at(f, traffic, MOE_PORT_NIC_OUT, 0)] / 50);

    traffic = moe_traffic_all_to_all(f->arena, &f->costs, sender, true);
    assert_bytes(INTRA_IN, 0, 300);
    assert_bytes(NIC_IN, 0, 700);
    assert_bytes(NIC_OUT, 4, 400);
    assert_true(touches(f, traffic, 4, MOE_PORT_NIC_IN, 0));
    assert_false(touches(f, traffic, 4, MOE_PORT_INTRA_IN, 0));
    talloc_free(f);
}

static void nothing_to_send_is_no_traffic(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 1, MOE_NIC_PER_HOST);
    const double kept[] = {5, 0, 0, 7};
    const moe_transfer still[] = {{0, 0, 10}, {0, 1, 0}};
    const int group[] = {0, 1};
    const uint64_t own = 1;
    const uint64_t both = 3;
    const moe_chunk home = {0, &own};
    const moe_chunk away = {0, &both};
    moe_arena *arena = f->arena;
    assert_null(moe_traffic_all_to_all(arena, &f->costs, kept, false));
    assert_null(moe_traffic_moves(arena, &f->costs, still, 2));
    assert_null(moe_traffic_moves(arena, &f->costs, NULL, 0));
    assert_null(moe_traffic_ring(arena, &f->costs, MOE_ALL_REDUCE, group, 2, 1, 100));
    assert_null(moe_traffic_ring(arena, &f->costs, MOE_ALL_REDUCE, group, 1, 2, 0));
    for (int a = MOE_CHUNK_CHAIN; a <= MOE_CHUNK_WORLD; a++) {
        moe_chunk_algorithm algorithm = (moe_chunk_algorithm)a;
        assert_null(moe_traffic_chunks(arena, &f->costs, MOE_BROADCAST, &home, 1, 9, algorithm));
        assert_null(moe_traffic_chunks(arena, &f->costs, MOE_BROADCAST, &away, 1, 0, algorithm));
        assert_null(moe_traffic_chunks(arena, &f->costs, MOE_BROADCAST, NULL, 0, 9, algorithm));
        assert_non_null(
            moe_traffic_chunks(arena, &f->costs, MOE_BROADCAST, &away, 1, 9, algorithm));
    }
    talloc_free(f);
}

static void moves_are_point_to_point(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 2, MOE_NIC_PER_HOST);
    const moe_transfer moves[] = {{0, 2, 600},  {0, 1, 400}, {3, 3, 1e9},
                                  {1, 2, 1000}, {0, 2, 300}, {0, 2, 200}};
    moe_traffic *traffic = moe_traffic_moves(f->arena, &f->costs, moves, 6);
    assert_bytes(NIC_OUT, 0, 2100);
    assert_bytes(NIC_IN, 1, 2100);
    assert_bytes(INTRA_OUT, 0, 400);
    assert_int_equal(traffic->transfer_count, 5);
    assert_int_equal(traffic->participants, 3);
    assert_int_equal(traffic->flows[loaded_at(f, traffic, MOE_PORT_NIC_IN, 1)], 4);
    /* two senders: 1,250 bytes each */
    assert_near(traffic->work[loaded_at(f, traffic, MOE_PORT_INTRA_OUT, 0)],
                400 / moe_cost_efficiency(&f->costs, MOE_SEND_RECV, MOE_PORT_INTRA_OUT, 1250, 2));
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(3) + NIC_S);
    talloc_free(f);
}

/* --- rings ------------------------------------------------------------------------------------ */

static void ring_within_a_host(void **state)
{
    (void)state;
    fixture *f = open_plain(1, 4, MOE_NIC_PER_DEVICE);
    const int group[] = {0, 1, 3};
    moe_traffic *traffic = moe_traffic_ring(f->arena, &f->costs, MOE_ALL_REDUCE, group, 1, 3, 1000);
    const int pairs[][2] = {{0, 1}, {1, 3}, {3, 0}};
    assert_transfers(traffic, pairs, 3, 2.0 * 2 / 3 * 1000);
    assert_bytes(INTRA_OUT, 3, 2.0 * 2 / 3 * 1000);
    assert_near(traffic->intra_host_bytes, 2 * 2 * 1000.0);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(3) + 2 * 2 * INTRA_S);
    assert_near(moe_traffic_alone_s(traffic, f->cluster),
                traffic->alpha_s + 2.0 * 2 / 3 * 1000 / 0.5 / 300);
    assert_int_equal(traffic->participants, 3);
    assert_false(traffic->takes_part[2]);

    traffic = moe_traffic_ring(f->arena, &f->costs, MOE_ALL_GATHER, group, 1, 3, 1000);
    assert_transfers(traffic, pairs, 3, 2.0 / 3 * 1000);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(3) + 2 * INTRA_S);
    talloc_free(f);
}

/* Efficiency by number of ranks: of a collective that stays within a host. */
static void groups_count_within_a_host(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 4, MOE_NIC_PER_DEVICE);
    static double pair[] = {0.8, 0.8};
    moe_collective_group two = {2, {curve_x, pair, 2}};
    moe_collective_curve *curve = &f->profile.collectives[MOE_ALL_GATHER];
    curve->ranks = 4;
    curve->groups = (moe_list){&two, 1};
    const int order[] = {0, 1, 2, 3}, across[] = {0, 4};
    moe_traffic *traffic =
        moe_traffic_ring(f->arena, &f->costs, MOE_ALL_GATHER, order, 2, 2, 1000);
    assert_near(moe_traffic_alone_s(traffic, f->cluster),
                traffic->alpha_s + 500 / 0.8 / 300); /* two groups of two */
    traffic = moe_traffic_ring(f->arena, &f->costs, MOE_ALL_GATHER, order, 1, 4, 1000);
    assert_near(moe_traffic_alone_s(traffic, f->cluster), traffic->alpha_s + 750 / 0.5 / 300);
    traffic = moe_traffic_ring(f->arena, &f->costs, MOE_ALL_GATHER, across, 1, 2, 1000);
    assert_near(moe_traffic_alone_s(traffic, f->cluster), traffic->alpha_s + 500 / 0.25 / 50);
    talloc_free(f);
}

/* Three NICs a host: three channels, of which each device leaves the host in one. */
static void ring_uses_every_nic(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_DEVICE);
    const int group[] = {4, 0, 3, 1, 5, 2}; /* order does not matter */
    moe_traffic *traffic =
        moe_traffic_ring(f->arena, &f->costs, MOE_REDUCE_SCATTER, group, 1, 6, 1000);
    double edge = 5.0 / 6 * 1000;
    for (int d = 0; d < 6; d++) {
        assert_bytes(NIC_OUT, d, edge / 3);
        assert_bytes(NIC_IN, d, edge / 3);
        assert_bytes(INTRA_OUT, d, edge * 2 / 3);
        assert_bytes(INTRA_IN, d, edge * 2 / 3);
    }
    assert_near(traffic->intra_host_bytes + traffic->inter_host_bytes, 5 * 1000.0);
    /* five hops of the six: two between hosts, three of the four within */
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(6) + 2 * NIC_S + 3 * INTRA_S);
    talloc_free(f);
}

static void ring_crosses_each_host_once_with_one_nic(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_HOST);
    const int group[] = {0, 1, 2, 3, 4, 5};
    moe_traffic *traffic = moe_traffic_ring(f->arena, &f->costs, MOE_ALL_REDUCE, group, 1, 6, 600);
    const int pairs[][2] = {{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}, {5, 0}};
    assert_transfers(traffic, pairs, 6, 1000);
    assert_bytes(NIC_OUT, 0, 1000);
    assert_bytes(NIC_IN, 0, 1000);
    assert_bytes(INTRA_OUT, 1, 1000);
    assert_bytes(INTRA_OUT, 2, 0);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(6) + 2 * (2 * NIC_S + 3 * INTRA_S));
    for (int d = 0; d < 6; d++) { /* an all-reduce needs everyone */
        assert_true(touches(f, traffic, d, MOE_PORT_NIC_OUT, 1));
        assert_true(touches(f, traffic, d, MOE_PORT_INTRA_OUT, 4));
    }
    talloc_free(f);
}

/* Three ranks in one host, one in the other, whose NIC carries all three channels. */
static void ring_over_uneven_hosts(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_DEVICE);
    const int group[] = {0, 1, 2, 4};
    moe_traffic *traffic = moe_traffic_ring(f->arena, &f->costs, MOE_ALL_REDUCE, group, 1, 4, 400);
    double edge = 2.0 * 3 / 4 * 400;
    assert_bytes(NIC_OUT, 4, edge);
    assert_bytes(NIC_IN, 4, edge);
    for (int d = 0; d < 3; d++) {
        assert_bytes(NIC_OUT, d, edge / 3);
        assert_bytes(NIC_IN, d, edge / 3);
        assert_bytes(INTRA_OUT, d, edge * 2 / 3);
    }
    assert_int_equal(traffic->transfer_count, 12);
    assert_near(traffic->intra_host_bytes + traffic->inter_host_bytes, 2 * 3 * 400.0);
    talloc_free(f);
}

static void rings_at_the_same_time_add_up_and_stay_apart(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_HOST);
    const int groups[] = {0, 3, 1, 4, 2, 5};
    moe_traffic *traffic =
        moe_traffic_ring(f->arena, &f->costs, MOE_ALL_GATHER, groups, 3, 2, 1000);
    assert_bytes(NIC_OUT, 0, 3 * 500);
    assert_bytes(NIC_IN, 1, 3 * 500);
    assert_int_equal(traffic->participants, 6);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 + NIC_S); /* of two ranks, not of six */
    assert_near(traffic->work[0], 1500 / 0.25);

    const int hosts[] = {0, 1, 2, 3, 4, 5};
    traffic = moe_traffic_ring(f->arena, &f->costs, MOE_ALL_REDUCE, hosts, 2, 3, 1000);
    assert_near(traffic->inter_host_bytes, 0);
    assert_true(touches(f, traffic, 0, MOE_PORT_INTRA_OUT, 1)); /* of its group, not its own path */
    assert_false(touches(f, traffic, 0, MOE_PORT_INTRA_OUT, 3));
    assert_true(touches(f, traffic, 4, MOE_PORT_INTRA_OUT, 5));
    assert_false(touches(f, traffic, 4, MOE_PORT_INTRA_OUT, 2));
    talloc_free(f);
}

/* --- chunks ----------------------------------------------------------------------------------- */

static moe_traffic *one_chunk(fixture *f, moe_collective_kind kind, moe_chunk_algorithm algorithm)
{
    static const uint64_t want = 0x37; /* 0 1 2, 4 5 */
    moe_chunk *chunk = moe_arena_array(f->arena, moe_chunk, 1);
    *chunk = (moe_chunk){1, &want};
    return moe_traffic_chunks(f->arena, &f->costs, kind, chunk, 1, 1000, algorithm);
}

static void chain_by_hand(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_DEVICE);
    moe_traffic *traffic = one_chunk(f, MOE_BROADCAST, MOE_CHUNK_CHAIN);
    const int pairs[][2] = {{1, 2}, {2, 0}, {0, 4}, {4, 5}};
    assert_transfers(traffic, pairs, 4, 1000);
    assert_bytes(INTRA_OUT, 1, 1000);
    assert_bytes(NIC_OUT, 0, 1000);
    assert_bytes(NIC_IN, 4, 1000);
    assert_bytes(NIC_IN, 5, 0);
    assert_near(traffic->intra_host_bytes, 3000);
    assert_near(traffic->inter_host_bytes, 1000);
    assert_int_equal(traffic->participants, 5);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(5) + 1e-8 + 3 * INTRA_S + NIC_S);
    assert_near(moe_traffic_alone_s(traffic, f->cluster), traffic->alpha_s + 1000 / 0.25 / 50);
    /* 5 is last: the data came over every hop; 2 is first and only waits for 1, 0 and itself */
    assert_int_equal(__builtin_popcountll(traffic->touches[5]), traffic->port_count);
    assert_false(touches(f, traffic, 2, MOE_PORT_NIC_OUT, 0));
    assert_true(touches(f, traffic, 2, MOE_PORT_INTRA_IN, 0));
    assert_false(touches(f, traffic, 1, MOE_PORT_INTRA_IN, 0));
    talloc_free(f);
}

static void star_tree_and_world_by_hand(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_HOST);
    const int star[][2] = {{1, 2}, {1, 0}, {1, 4}, {1, 5}};
    moe_traffic *traffic = one_chunk(f, MOE_BROADCAST, MOE_CHUNK_STAR);
    assert_transfers(traffic, star, 4, 1000);
    assert_bytes(NIC_OUT, 0, 2000);
    assert_bytes(INTRA_OUT, 1, 2000);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(5) + 1e-8 + NIC_S);
    assert_false(touches(f, traffic, 2, MOE_PORT_NIC_OUT, 0));

    const int tree[][2] = {{1, 2}, {1, 0}, {2, 4}, {2, 5}};
    traffic = one_chunk(f, MOE_BROADCAST, MOE_CHUNK_TREE);
    assert_transfers(traffic, tree, 4, 1000);
    assert_bytes(INTRA_OUT, 1, 2000);
    assert_bytes(INTRA_OUT, 2, 0);
    assert_bytes(NIC_OUT, 0, 2000);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(5) + 1e-8 + INTRA_S + NIC_S);
    assert_true(touches(f, traffic, 4, MOE_PORT_INTRA_IN, 2)); /* relayed by 2 */
    assert_false(touches(f, traffic, 4, MOE_PORT_INTRA_IN, 0));

    const int world[][2] = {{1, 2}, {2, 0}, {0, 3}, {3, 4}, {4, 5}};
    traffic = one_chunk(f, MOE_BROADCAST, MOE_CHUNK_WORLD);
    assert_transfers(traffic, world, 5, 1000);
    assert_bytes(NIC_OUT, 0, 1000);
    assert_int_equal(traffic->participants, 6);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(6) + 1e-8 + 4 * INTRA_S + NIC_S);
    talloc_free(f);
}

static void reduce_reverses_the_broadcast(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_DEVICE);
    moe_traffic *traffic = one_chunk(f, MOE_REDUCE, MOE_CHUNK_CHAIN);
    const int pairs[][2] = {{2, 1}, {0, 2}, {4, 0}, {5, 4}};
    assert_transfers(traffic, pairs, 4, 1000);
    assert_bytes(INTRA_IN, 1, 1000);
    assert_bytes(NIC_IN, 0, 1000);
    assert_bytes(NIC_OUT, 4, 1000);
    assert_bytes(NIC_OUT, 0, 0);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * log2(5) + 1e-8 + 3 * INTRA_S + NIC_S);
    /* the owner waits for all; 5 only sends; 2 adds to what came from 4 and 5 */
    assert_int_equal(__builtin_popcountll(traffic->touches[1]), traffic->port_count);
    assert_int_equal(__builtin_popcountll(traffic->touches[5]), 2);
    assert_true(touches(f, traffic, 2, MOE_PORT_NIC_IN, 0));
    assert_false(touches(f, traffic, 4, MOE_PORT_INTRA_IN, 1));
    talloc_free(f);
}

static void chunks_enter_by_turns(void **state)
{
    (void)state;
    fixture *f = open_plain(2, 3, MOE_NIC_PER_DEVICE);
    const uint64_t none = 1;
    const uint64_t others = 0x38;
    const moe_chunk chunks[] = {{0, &others}, {0, &none}, {0, &others}};
    moe_traffic *traffic =
        moe_traffic_chunks(f->arena, &f->costs, MOE_BROADCAST, chunks, 3, 500, MOE_CHUNK_CHAIN);
    const int pairs[][2] = {{0, 3}, {3, 4}, {4, 5}, {0, 4}, {4, 5}, {5, 3}};
    assert_transfers(traffic, pairs, 6, 500);
    assert_bytes(NIC_OUT, 0, 1000);
    assert_bytes(NIC_IN, 3, 500);
    assert_bytes(NIC_IN, 4, 500);
    /* two chunks travel: 1,000 bytes in all */
    assert_near(traffic->work[loaded_at(f, traffic, MOE_PORT_NIC_OUT, 0)], 1000 / 0.25);
    assert_near(traffic->alpha_s, 1e-5 + 1e-7 * 2 + 2e-8 + 2 * INTRA_S + NIC_S);
    talloc_free(f);
}

/* From the owner's host on, so that owners in different hosts load different links first. */
static void chain_goes_round_the_hosts(void **state)
{
    (void)state;
    fixture *f = open_plain(3, 2, MOE_NIC_PER_HOST);
    const uint64_t all = 0x3f;
    const moe_chunk chunk = {3, &all};
    moe_traffic *traffic =
        moe_traffic_chunks(f->arena, &f->costs, MOE_BROADCAST, &chunk, 1, 500, MOE_CHUNK_CHAIN);
    const int pairs[][2] = {{3, 2}, {2, 4}, {4, 5}, {5, 0}, {0, 1}};
    assert_transfers(traffic, pairs, 5, 500);
    talloc_free(f);
}

/* --- laws on random chunks -------------------------------------------------------------------- */

typedef struct random_chunks {
    moe_chunk chunks[9];
    uint64_t want[9];
} random_chunks;

static void draw_chunks(random_chunks *drawn, gsl_rng *random, int count, int devices)
{
    for (int c = 0; c < count; c++) {
        unsigned long below = (1UL << devices) - 1;
        drawn->want[c] = gsl_rng_get(random) & gsl_rng_get(random) & below;
        drawn->chunks[c] =
            (moe_chunk){(int)gsl_rng_uniform_int(random, (unsigned long)devices), &drawn->want[c]};
    }
}

/* Each device receives, once, every chunk that it wants and does not own. */
static void assert_replicated(const moe_traffic *traffic, const random_chunks *drawn, int count,
                              int devices)
{
    for (int d = 0; d < devices; d++) {
        double wanted = 0;
        for (int c = 0; c < count; c++) {
            wanted += drawn->chunks[c].owner != d && (drawn->want[c] >> d & 1) != 0 ? 10 : 0;
        }
        double received = 0;
        for (size_t t = 0; traffic != NULL && t < traffic->transfer_count; t++) {
            received += traffic->transfers[t].target == d ? traffic->transfers[t].bytes : 0;
        }
        assert_near(received, wanted);
    }
}

static void assert_mirrored(const moe_traffic *a, const moe_traffic *b)
{
    assert_int_equal(a->transfer_count, b->transfer_count);
    for (size_t t = 0; t < a->transfer_count; t++) {
        assert_int_equal(a->transfers[t].source, b->transfers[t].target);
        assert_int_equal(a->transfers[t].target, b->transfers[t].source);
    }
    assert_near(a->intra_host_bytes, b->intra_host_bytes);
    assert_near(a->inter_host_bytes, b->inter_host_bytes);
}

/* What a receiver must touch, found by walking from it up to the owner. */
static uint64_t walk_up(const fixture *f, const moe_traffic *traffic, int device)
{
    uint64_t bits = 0;
    for (size_t t = traffic->transfer_count; t-- > 0;) {
        const moe_transfer *transfer = &traffic->transfers[t];
        if (transfer->target != device) {
            continue;
        }
        int path[MOE_PATH_PORTS];
        int hops = moe_cluster_path(f->cluster, transfer->source, transfer->target, path);
        for (int k = 0; k < traffic->port_count; k++) {
            for (int h = 0; h < hops; h++) {
                bits |= traffic->ports[k] == path[h] ? UINT64_C(1) << k : 0;
            }
        }
        device = transfer->source;
    }
    return bits;
}

static void assert_relayed(const fixture *f, const moe_traffic *traffic)
{
    for (int d = 0; d < f->cluster->devices; d++) {
        uint64_t expected = walk_up(f, traffic, d);
        for (size_t t = 0; t < traffic->transfer_count; t++) { /* and what it sends on itself */
            if (traffic->transfers[t].source == d) {
                int path[MOE_PATH_PORTS];
                int hops = moe_cluster_path(f->cluster, d, traffic->transfers[t].target, path);
                for (int k = 0; k < traffic->port_count; k++) {
                    for (int h = 0; h < hops; h++) {
                        expected |= traffic->ports[k] == path[h] ? UINT64_C(1) << k : 0;
                    }
                }
            }
        }
        assert_int_equal(traffic->touches[d], expected);
    }
}

/* One chunk into a host at most once. */
static void assert_hosts_entered_once(const fixture *f, const moe_traffic *traffic)
{
    int entered[4] = {0};
    for (size_t t = 0; t < traffic->transfer_count; t++) {
        int from = moe_cluster_host(f->cluster, traffic->transfers[t].source);
        int to = moe_cluster_host(f->cluster, traffic->transfers[t].target);
        if (from != to) {
            assert_int_equal(entered[to]++, 0);
        }
    }
}

static void random_chunks_keep_the_laws(void **state)
{
    (void)state;
    fixture *f = open_plain(4, 3, MOE_NIC_PER_DEVICE);
    gsl_rng *random = moe_random_create(7, "test_collective chunks", 0);
    int travelled = 0;
    for (int round = 0; round < 300; round++) {
        moe_arena_reset(f->arena);
        random_chunks drawn;
        int count = 1 + (int)gsl_rng_uniform_int(random, 9);
        moe_chunk_algorithm algorithm = (moe_chunk_algorithm)gsl_rng_uniform_int(random, 3);
        draw_chunks(&drawn, random, count, 12);
        moe_traffic *spag = moe_traffic_chunks(f->arena, &f->costs, MOE_BROADCAST, drawn.chunks,
                                               count, 10, algorithm);
        moe_traffic *sprs =
            moe_traffic_chunks(f->arena, &f->costs, MOE_REDUCE, drawn.chunks, count, 10, algorithm);
        assert_replicated(spag, &drawn, count, 12);
        moe_traffic *one =
            moe_traffic_chunks(f->arena, &f->costs, MOE_BROADCAST, drawn.chunks, 1, 10, algorithm);
        if (spag != NULL) {
            assert_mirrored(spag, sprs);
            travelled++;
        }
        if (one != NULL) {
            assert_relayed(f, one);
        }
        if (one != NULL && algorithm == MOE_CHUNK_CHAIN) {
            assert_hosts_entered_once(f, one);
        }
    }
    assert_true(travelled > 250);
    gsl_rng_free(random);
    talloc_free(f);
}

/* More ports than fit into one word of touches: 40 devices with a NIC each have 160. */
static void touches_of_many_words(void **state)
{
    (void)state;
    fixture *f = open_plain(10, 4, MOE_NIC_PER_DEVICE);
    const double *m = random_matrix(f, 6, 0.3);
    moe_traffic *traffic = moe_traffic_all_to_all(f->arena, &f->costs, m, false);
    assert_int_equal(traffic->words, (traffic->port_count + 63) / 64);
    assert_true(traffic->words >= 2);
    for (int d = 0; d < 40; d++) {
        for (int peer = 0; peer < 40; peer++) {
            if (peer == d || loaded_at(f, traffic, MOE_PORT_NIC_IN, peer) < 0) {
                continue;
            }
            bool to_peer = m[d * 40 + peer] > 0 && d / 4 != peer / 4;
            assert_int_equal(touches(f, traffic, d, MOE_PORT_NIC_IN, peer), to_peer);
        }
    }
    talloc_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_devices_by_hand),
        cmocka_unit_test(uneven_exchange_with_nic_per_host),
        cmocka_unit_test(uneven_exchange_with_nic_per_device),
        cmocka_unit_test(uneven_exchange_over_pcie),
        cmocka_unit_test(uneven_exchange_between_leaves),
        cmocka_unit_test(transposed_is_the_transpose),
        cmocka_unit_test(uniform_exchange_is_the_closed_form),
        cmocka_unit_test(hot_devices_hold_up_their_partners),
        cmocka_unit_test(nothing_to_send_is_no_traffic),
        cmocka_unit_test(moves_are_point_to_point),
        cmocka_unit_test(ring_within_a_host),
        cmocka_unit_test(groups_count_within_a_host),
        cmocka_unit_test(ring_uses_every_nic),
        cmocka_unit_test(ring_crosses_each_host_once_with_one_nic),
        cmocka_unit_test(ring_over_uneven_hosts),
        cmocka_unit_test(rings_at_the_same_time_add_up_and_stay_apart),
        cmocka_unit_test(chain_by_hand),
        cmocka_unit_test(star_tree_and_world_by_hand),
        cmocka_unit_test(reduce_reverses_the_broadcast),
        cmocka_unit_test(chunks_enter_by_turns),
        cmocka_unit_test(chain_goes_round_the_hosts),
        cmocka_unit_test(random_chunks_keep_the_laws),
        cmocka_unit_test(touches_of_many_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
