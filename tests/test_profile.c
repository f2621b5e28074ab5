/* Profiles: every cost law against its formula, curves and their counters, refusals, and the
 * presets against the published measurements they were made from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "models/collective.h"
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

static void assert_near(double actual, double expected, double tolerance)
{
    if (!(fabs(actual - expected) <= tolerance * fabs(expected)))
        fail_msg("%.17g is not %.17g", actual, expected);
}

static void assert_close(double actual, double expected)
{
    assert_near(actual, expected, 1e-12);
}

/* ---- a profile and a cluster with invented numbers
 * ----------------------------------------------- */

static const moe_cluster_spec invented_spec = {
    .hosts = 3,
    .devices_per_host = 5,
    .device = {.name = "D", .peak_flop_per_s = 2e14, .memory_bytes_per_s = 1.6e12},
    .intra = {.bandwidth_bytes_per_s = 3e11},
    .nic = {.bandwidth_bytes_per_s = 5e10},
    .fabric = {.oversubscription = 1},
};

static double intra_x[] = {1000, 10000, 1000000};
static double intra_y[] = {0.2, 0.6, 0.9};
static double inter_x[] = {4096};
static double inter_y[] = {0.7};

static const moe_collective_curve invented_curve = {
    .start_s = 7e-6,
    .start_per_rank_s = 1.5e-6,
    .start_per_chunk_s = 3e-6,
    .intra = {.x = intra_x, .y = intra_y, .count = 3},
    .inter = {.x = inter_x, .y = inter_y, .count = 1},
    .evidence = {.residual = 0.125},
    .origin = MOE_IMPORTED,
    .inter_origin = MOE_DERIVED,
};

typedef struct costs_fixture {
    moe_profile profile;
    moe_cluster *cluster;
    moe_curve_usage usage;
    moe_costs costs;
    moe_diag *diag;
} costs_fixture;

static int open_costs(void **state)
{
    costs_fixture *f = talloc_zero(NULL, costs_fixture);
    f->diag = moe_diag_create(f, stderr);
    f->cluster = moe_cluster_create(f, &invented_spec, NULL, f->diag);
    f->profile = (moe_profile){
        .device = "D",
        .dense = {.start_s = 4e-6,
                  .flop_efficiency = 0.8,
                  .memory_efficiency = 0.75,
                  .norm = 2.7,
                  .low_rows = 16,
                  .high_rows = 4096,
                  .origin = MOE_MEASURED},
        .experts[MOE_FORWARD] = {.start_s = 20e-6,
                    .flop_efficiency = 0.6,
                    .memory_efficiency = 0.9,
                    .norm = 3,
                    .tile_rows = 128,
                    .low_rows = 100,
                    .high_rows = 1000,
                    .evidence = {.residual = 0.25}},
        .memory = {.start_s = 2e-6, .memory_efficiency = 0.5},
        .launch_s = 6e-6,
        .host_sync_s = 15e-6,
        .sm_share = 0.15,
        .slowdown = 1.4,
        .launch_origin = MOE_ASSUMED,
    };
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++)
        f->profile.collectives[kind] = invented_curve;
    f->costs = (moe_costs){.profile = &f->profile, .cluster = f->cluster, .usage = &f->usage};
    *state = f;
    return f->cluster ? 0 : 1;
}

static int close_costs(void **state)
{
    talloc_free(*state);
    return 0;
}

/* ---- computation
 * --------------------------------------------------------------------------------- */

static void test_dense(void **state)
{
    costs_fixture *f = *state;
    double a = 3.2e9 / (0.8 * 2e14);   /* 20 us */
    double b = 18e6 / (0.75 * 1.6e12); /* 15 us */
    assert_close(moe_cost_dense_s(&f->costs, 3.2e9, 18e6, 64),
                 4e-6 + pow(pow(a, 2.7) + pow(b, 2.7), 1 / 2.7));
    assert_close(moe_cost_dense_s(&f->costs, 3.2e9, 0, 64), 4e-6 + a);
    assert_close(moe_cost_dense_s(&f->costs, 0, 18e6, 64), 4e-6 + b);
    assert_close(moe_cost_dense_s(&f->costs, 0, 0, 64), 4e-6);
}

static void test_norm_limits(void **state)
{
    costs_fixture *f = *state;
    f->profile.dense.norm = 1;
    assert_close(moe_cost_dense_s(&f->costs, 3.2e9, 18e6, 64), 4e-6 + 20e-6 + 15e-6);
    f->profile.dense.norm = 2;
    assert_close(moe_cost_dense_s(&f->costs, 3.2e9, 18e6, 64), 4e-6 + 25e-6);
    f->profile.dense.norm = 1000; /* the longer one, and no power overflows or vanishes */
    assert_close(moe_cost_dense_s(&f->costs, 3.2e9, 18e6, 64), 4e-6 + 20e-6);
    assert_close(moe_cost_dense_s(&f->costs, 3.2e9, 24e6, 64), 4e-6 + 20e-6 * pow(2, 1e-3));
    f->profile.dense.norm = 2.7;
    assert_true(isfinite(moe_cost_dense_s(&f->costs, 1e300, 1e-300, 64)));
}

static void test_memory(void **state)
{
    costs_fixture *f = *state;
    assert_close(moe_cost_memory_s(&f->costs, 24e6), 2e-6 + 30e-6);
    assert_int_equal(f->usage.evaluated[MOE_CURVE_MEMORY], 1);
    assert_int_equal(f->usage.outside[MOE_CURVE_MEMORY], 0);
}

static double experts_by_formula(double rounded_rows, double rows, double active)
{
    double a = rounded_rows * 5e7 / (0.6 * 2e14);
    double b = (active * 3e6 + rows * 4096) / (0.9 * 1.6e12);
    return 20e-6 + cbrt(a * a * a + b * b * b);
}

static const moe_expert_shape shape = {.flop_per_row = 5e7, .weight_bytes = 3e6, .row_bytes = 4096};

static double experts(const costs_fixture *f, double r0, double r1, double r2)
{
    const double rows[] = {r0, r1, r2};
    return moe_cost_experts_s(&f->costs, &shape, rows, 3);
}

/* A function of the vector of rows: every expert is rounded up by itself, idle ones cost nothing.
 */
static void test_experts(void **state)
{
    costs_fixture *f = *state;
    assert_close(experts(f, 300, 17, 90), experts_by_formula(384 + 128 + 128, 407, 3));
    assert_close(experts(f, 300, 0, 107), experts_by_formula(384 + 128, 407, 2));
    assert_close(experts(f, 407, 0, 0), experts_by_formula(512, 407, 1));
    assert_close(experts(f, 0, 300.25, 17), experts_by_formula(512, 317.25, 2));
    assert_true(experts(f, 300, 17, 90) > experts(f, 407, 0, 0));
}

static void test_tile_step(void **state)
{
    costs_fixture *f = *state;
    assert_close(experts(f, 128, 0, 0), experts_by_formula(128, 128, 1));
    assert_close(experts(f, 129, 0, 0), experts_by_formula(256, 129, 1));
    assert_close(experts(f, 256, 0, 0), experts_by_formula(256, 256, 1));
    f->profile.experts[MOE_FORWARD].tile_rows = 1;
    assert_close(experts(f, 129, 0, 0), experts_by_formula(129, 129, 1));
}

static void test_idle_experts(void **state)
{
    costs_fixture *f = *state;
    assert_true(experts(f, 0, 0, 0) == 0);
    assert_true(moe_cost_experts_s(&f->costs, &shape, NULL, 0) == 0);
    assert_int_equal(f->usage.evaluated[MOE_CURVE_EXPERTS], 0);
}

/* --- curves and grids instead of constants --- */

static double grid_m[] = {16, 256};
static double grid_n[] = {64, 1024, 4096};
static double grid_k[] = {128, 2048};
static double grid_u[] = {0.01, 0.02, 0.03, 0.05, 0.04, 0.2, 0.1, 0.25, 0.3, 0.6, 0.5, 0.9};

static void give_grid(moe_profile *profile)
{
    profile->gemm = (moe_gemm_grid){.m = {grid_m, 2},
                                    .n = {grid_n, 3},
                                    .k = {grid_k, 2},
                                    .utilisation = {grid_u, 12},
                                    .value_bytes = 2,
                                    .origin = MOE_IMPORTED,
                                    .evidence = {.residual = 0.04, .machine = "a machine"}};
}

static double sol(double m, double n, double k)
{
    return fmax(2 * m * n * k / 2e14, 2 * (m * k + k * n + m * n) / 1.6e12);
}

static double gemm(const costs_fixture *f, double m, double n, double k)
{
    return moe_cost_gemm_s(&f->costs, &(moe_gemm){m, n, k, 1});
}

static void test_grid_points_come_back(void **state)
{
    costs_fixture *f = *state;
    give_grid(&f->profile);
    assert_true(moe_cost_has_grid(&f->costs));
    for (int cell = 0; cell < 12; cell++) {
        double m = grid_m[cell / 6], n = grid_n[cell / 2 % 3], k = grid_k[cell % 2];
        assert_close(gemm(f, m, n, k), sol(m, n, k) / grid_u[cell]);
    }
    assert_int_equal(f->usage.evaluated[MOE_CURVE_DENSE], 12);
    assert_int_equal(f->usage.outside[MOE_CURVE_DENSE], 0);
    assert_close(moe_cost_gemm_s(&f->costs, &(moe_gemm){16, 64, 128, 5}), 5 * gemm(f, 16, 64, 128));
}

/* Halfway in the logarithm of every axis: the geometric mean of the eight corners. */
static void test_grid_between_points(void **state)
{
    costs_fixture *f = *state;
    give_grid(&f->profile);
    assert_close(gemm(f, 64, 1024, 128), sol(64, 1024, 128) / sqrt(0.03 * 0.3));
    double product = 1;
    for (int cell = 0; cell < 12; cell++)
        product *= cell / 2 % 3 < 2 ? grid_u[cell] : 1;
    assert_close(gemm(f, 64, 256, 512), sol(64, 256, 512) / pow(product, 1.0 / 8));
    assert_int_equal(f->usage.outside[MOE_CURVE_DENSE], 0);
}

/* Beyond the edge the roofline says by how much more work takes longer. */
static void test_beyond_the_grid(void **state)
{
    costs_fixture *f = *state;
    give_grid(&f->profile);
    double edge = sol(256, 4096, 2048) / 0.9;
    double roofline[2];
    for (int i = 0; i < 2; i++) {
        double m = i ? 8192 : 256;
        double a = 2 * m * 4096 * 2048 / (0.8 * 2e14);
        double b = 2 * (m * 2048 + 2048 * 4096 + m * 4096) / (0.75 * 1.6e12);
        roofline[i] = 4e-6 + pow(pow(a, 2.7) + pow(b, 2.7), 1 / 2.7);
    }
    assert_close(gemm(f, 8192, 4096, 2048), edge * roofline[1] / roofline[0]);
    assert_int_equal(f->usage.outside[MOE_CURVE_DENSE], 1);
    assert_true(gemm(f, 1, 1, 1) > 0);
    assert_int_equal(f->usage.outside[MOE_CURVE_DENSE], 2);
    f->profile.gemm = (moe_gemm_grid){.value_bytes = 2}; /* no grid: the roofline itself */
    assert_false(moe_cost_has_grid(&f->costs));
    assert_close(gemm(f, 256, 4096, 2048), roofline[0]);
}

static void test_attention_curve(void **state)
{
    costs_fixture *f = *state;
    assert_true(moe_cost_attention_s(&f->costs, 3.2e9, 18e6, 64) ==
                moe_cost_dense_s(&f->costs, 3.2e9, 18e6, 64));
    assert_int_equal(f->usage.evaluated[MOE_CURVE_ATTENTION], 0);
    f->profile.attention = (moe_compute_curve){
        .start_s = 9e-6, .flop_efficiency = 0.4, .memory_efficiency = 0.5, .norm = 1, .high_rows = 9};
    assert_close(moe_cost_attention_s(&f->costs, 3.2e9, 16e6, 10), 9e-6 + 40e-6 + 20e-6);
    assert_int_equal(f->usage.evaluated[MOE_CURVE_ATTENTION], 1);
    assert_int_equal(f->usage.outside[MOE_CURVE_ATTENTION], 1);
}

static double rows_x[] = {16, 256, 4096};
static double rows_y[] = {0.1, 0.4, 0.7};

/* Each expert's rows at their own efficiency, in whole tiles; every active one starts. */
static void test_experts_with_efficiency_by_rows(void **state)
{
    costs_fixture *f = *state;
    moe_compute_curve *curve = &f->profile.experts[MOE_FORWARD];
    curve->efficiency = (moe_points){rows_x, rows_y, 3};
    curve->start_per_expert_s = 2e-6;
    /* 64 rows, a tile of 128: halfway from 16 to 256; 256 rows, two tiles */
    double a = (128 / 0.2 + 256 / 0.4) * 5e7 / 2e14;
    double b = (2 * 3e6 + 320 * 4096.0) / (0.9 * 1.6e12);
    assert_close(experts(f, 64, 0, 256), 20e-6 + 2 * 2e-6 + cbrt(a * a * a + b * b * b));
    assert_int_equal(f->usage.outside[MOE_CURVE_EXPERTS], 0);
    experts(f, 15, 200, 0);
    assert_int_equal(f->usage.outside[MOE_CURVE_EXPERTS], 1);
}

static void test_gradients_have_curves_of_their_own(void **state)
{
    costs_fixture *f = *state;
    const double rows[] = {200, 300};
    double seconds[3];
    f->profile.experts[MOE_WEIGHT_GRADIENT] = (moe_compute_curve){.start_s = 5e-6,
                                                                  .flop_efficiency = 0.25,
                                                                  .memory_efficiency = 1e6,
                                                                  .norm = 2,
                                                                  .tile_rows = 1};
    for (int phase = 0; phase < 3; phase++) {
        moe_expert_shape of_phase = shape;
        of_phase.phase = (moe_phase)phase;
        seconds[phase] = moe_cost_experts_s(&f->costs, &of_phase, rows, 2);
    }
    assert_close(seconds[MOE_FORWARD], experts_by_formula(256 + 384, 500, 2));
    assert_true(seconds[MOE_INPUT_GRADIENT] == seconds[MOE_FORWARD]);
    assert_near(seconds[MOE_WEIGHT_GRADIENT], 5e-6 + 500 * 5e7 / (0.25 * 2e14), 1e-9);
}

static void test_memory_curve(void **state)
{
    costs_fixture *f = *state;
    static double x[] = {1e6, 1e8}, y[] = {0.2, 0.8};
    f->profile.memory.efficiency = (moe_points){x, y, 2};
    assert_close(moe_cost_memory_s(&f->costs, 1e7), 2e-6 + 1e7 / (0.4 * 1.6e12));
    assert_close(moe_cost_memory_s(&f->costs, 1e8), 2e-6 + 1e8 / (0.8 * 1.6e12));
    assert_int_equal(f->usage.outside[MOE_CURVE_MEMORY], 0);
    assert_close(moe_cost_memory_s(&f->costs, 1e9), 2e-6 + 1e9 / (0.8 * 1.6e12));
    assert_close(moe_cost_memory_s(&f->costs, 0), 2e-6);
    assert_int_equal(f->usage.outside[MOE_CURVE_MEMORY], 1);
}

static void test_row_ranges(void **state)
{
    costs_fixture *f = *state;
    experts(f, 60, 39, 0); /* 99: below */
    experts(f, 60, 40, 0); /* at the ends: inside */
    experts(f, 60, 940, 0);
    experts(f, 60, 941, 0); /* 1001: above */
    assert_int_equal(f->usage.evaluated[MOE_CURVE_EXPERTS], 4);
    assert_int_equal(f->usage.outside[MOE_CURVE_EXPERTS], 2);
    moe_cost_dense_s(&f->costs, 1e9, 1e6, 15);
    moe_cost_dense_s(&f->costs, 1e9, 1e6, 4096);
    moe_cost_dense_s(&f->costs, 1e9, 1e6, 5000);
    f->profile.dense.high_rows = 0; /* no limit */
    moe_cost_dense_s(&f->costs, 1e9, 1e6, 5000);
    assert_int_equal(f->usage.evaluated[MOE_CURVE_DENSE], 4);
    assert_int_equal(f->usage.outside[MOE_CURVE_DENSE], 2);
}

static void test_host_and_interference(void **state)
{
    costs_fixture *f = *state;
    assert_close(moe_cost_launch_s(&f->costs, 7), 42e-6);
    assert_close(moe_cost_host_sync_s(&f->costs), 15e-6);
    assert_close(moe_cost_graph_launch_s(&f->costs), 6e-6); /* as one kernel */
    f->profile.graph_launch_s = 11e-6;
    assert_close(moe_cost_graph_launch_s(&f->costs), 11e-6);
    assert_close(moe_cost_slowdown(&f->costs), 1.4);
    assert_int_equal(f->usage.evaluated[MOE_CURVE_LAUNCH], 4);
    assert_int_equal(f->usage.evaluated[MOE_CURVE_INTERFERENCE], 1);
}

/* ---- collectives
 * --------------------------------------------------------------------------------- */

static void test_alpha(void **state)
{
    costs_fixture *f = *state;
    assert_close(moe_cost_alpha_s(&f->costs, MOE_ALL_TO_ALL, 8, 0, 2.5e-6), 7e-6 + 4.5e-6 + 2.5e-6);
    assert_close(moe_cost_alpha_s(&f->costs, MOE_REDUCE, 12, 6, 11e-6),
                 7e-6 + 1.5e-6 * log2(12) + 18e-6 + 11e-6);
    assert_close(moe_cost_alpha_s(&f->costs, MOE_BROADCAST, 1, 2, 0), 7e-6 + 6e-6);
}

static double efficiency(const costs_fixture *f, moe_port_kind port, double bytes)
{
    return moe_cost_efficiency(&f->costs, MOE_ALL_GATHER, port, bytes, 0);
}

static void test_efficiency_between_points(void **state)
{
    costs_fixture *f = *state;
    assert_close(efficiency(f, MOE_PORT_INTRA_OUT, 1000), 0.2);
    assert_close(efficiency(f, MOE_PORT_INTRA_IN, 10000), 0.6);
    assert_close(efficiency(f, MOE_PORT_BRIDGE, 1000000), 0.9);
    assert_close(efficiency(f, MOE_PORT_INTRA_OUT, sqrt(1000.0 * 10000)), sqrt(0.2 * 0.6));
    assert_close(efficiency(f, MOE_PORT_INTRA_OUT, 100000), sqrt(0.6 * 0.9));
    assert_close(efficiency(f, MOE_PORT_INTRA_OUT, 40000),
                 0.6 * pow(1.5, log(4) / log(100)));
    assert_int_equal(f->usage.outside[MOE_CURVE_COLLECTIVE + MOE_ALL_GATHER], 0);
}

static void test_efficiency_is_clamped_and_counted(void **state)
{
    costs_fixture *f = *state;
    const int curve = MOE_CURVE_COLLECTIVE + MOE_ALL_GATHER;
    assert_close(efficiency(f, MOE_PORT_INTRA_OUT, 999), 0.2);
    assert_close(efficiency(f, MOE_PORT_INTRA_OUT, 1e9), 0.9);
    assert_close(efficiency(f, MOE_PORT_INTRA_OUT, 0), 0.2);
    assert_close(efficiency(f, MOE_PORT_INTRA_OUT, 20000),
                 0.6 * pow(1.5, log(2) / log(100)));
    assert_int_equal(f->usage.evaluated[curve], 4);
    assert_int_equal(f->usage.outside[curve], 3);
    assert_int_equal(f->usage.evaluated[MOE_CURVE_COLLECTIVE + MOE_ALL_REDUCE], 0);
}

/* One point is "data sheet x efficiency": a constant, valid everywhere. */
static void test_single_point(void **state)
{
    costs_fixture *f = *state;
    static const moe_port_kind kinds[] = {MOE_PORT_NIC_OUT, MOE_PORT_NIC_IN, MOE_PORT_LEAF_UP,
                                          MOE_PORT_LEAF_DOWN};
    for (int i = 0; i < 4; i++)
        assert_close(efficiency(f, kinds[i], 100 * pow(1000, i)), 0.7);
    assert_int_equal(f->usage.evaluated[MOE_CURVE_COLLECTIVE + MOE_ALL_GATHER], 4);
    assert_int_equal(f->usage.outside[MOE_CURVE_COLLECTIVE + MOE_ALL_GATHER], 0);
    f->profile.collectives[MOE_ALL_GATHER].inter.count = 0;
    assert_close(efficiency(f, MOE_PORT_NIC_OUT, 5000), 1);
    assert_int_equal(f->usage.outside[MOE_CURVE_COLLECTIVE + MOE_ALL_GATHER], 1);
}

/* Within a host the curve made with the nearest number of ranks, in ratio. */
static void test_groups(void **state)
{
    costs_fixture *f = *state;
    static double x[] = {1000}, two[] = {0.11}, eight[] = {0.88};
    moe_collective_group groups[] = {{2, {x, two, 1}}, {8, {x, eight, 1}}};
    moe_collective_curve *curve = &f->profile.collectives[MOE_ALL_GATHER];
    curve->ranks = 4;
    curve->groups = (moe_list){groups, 2};
    static const struct {
        int ranks;
        double efficiency;
    } cases[] = {{2, 0.11}, {3, 0.2}, {4, 0.2}, {5, 0.2}, {6, 0.88}, {64, 0.88}, {0, 0.2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_close(moe_cost_efficiency(&f->costs, MOE_ALL_GATHER, MOE_PORT_INTRA_OUT, 1000,
                                         cases[i].ranks),
                     cases[i].efficiency);
    assert_close(moe_cost_efficiency(&f->costs, MOE_ALL_GATHER, MOE_PORT_NIC_IN, 1000, 2), 0.7);
}

/* ---- provenance
 * ---------------------------------------------------------------------------------- */

static const char *text_of(const json_t *provenance, const char *curve, const char *key)
{
    return json_string_value(json_object_get(json_object_get(provenance, curve), key));
}

static void test_provenance(void **state)
{
    costs_fixture *f = *state;
    experts(f, 60, 39, 0);
    experts(f, 60, 400, 0);
    json_t *provenance = moe_profile_provenance(&f->profile, &f->usage);
    assert_int_equal(json_object_size(provenance), MOE_CURVE_COUNT - 1); /* no attention */
    const json_t *entry = json_object_get(provenance, "experts");
    assert_int_equal(json_integer_value(json_object_get(entry, "evaluated")), 2);
    assert_int_equal(json_integer_value(json_object_get(entry, "outside_range")), 1);
    assert_close(json_real_value(json_object_get(entry, "residual")), 0.25);
    assert_string_equal(text_of(provenance, "dense", "origin"), "measured");
    assert_string_equal(text_of(provenance, "launch", "origin"), "assumed");
    assert_string_equal(text_of(provenance, "send_recv", "origin"), "imported");
    assert_string_equal(text_of(provenance, "send_recv", "inter_origin"), "derived");
    assert_close(
        json_real_value(json_object_get(json_object_get(provenance, "reduce"), "residual")), 0.125);
    assert_null(json_object_get(json_object_get(provenance, "dense"), "machine"));
    json_decref(provenance);
    f->profile.attention.flop_efficiency = 0.5;
    f->profile.attention.evidence.leave_one_out = 0.0625;
    f->profile.experts[MOE_INPUT_GRADIENT] = f->profile.experts[MOE_FORWARD];
    give_grid(&f->profile);
    provenance = moe_profile_provenance(&f->profile, &f->usage);
    assert_int_equal(json_object_size(provenance), MOE_CURVE_COUNT);
    assert_string_equal(text_of(provenance, "dense", "origin"), "imported");
    assert_string_equal(text_of(provenance, "dense", "machine"), "a machine");
    entry = json_object_get(provenance, "attention");
    assert_close(json_real_value(json_object_get(entry, "leave_one_out")), 0.0625);
    entry = json_object_get(json_object_get(provenance, "experts"), "phases");
    assert_string_equal(text_of(entry, "input_gradient", "origin"), "measured");
    assert_string_equal(json_string_value(json_object_get(entry, "weight_gradient")), "as forward");
    json_decref(provenance);
    assert_string_equal(moe_curve_name(MOE_CURVE_INTERFERENCE), "interference");
    assert_string_equal(moe_curve_name(MOE_CURVE_COLLECTIVE), "all_to_all");
}

/* ---- checks
 * -------------------------------------------------------------------------------------- */

static void assert_refused(costs_fixture *f, int errors)
{
    moe_diag *diag = moe_diag_create(f, NULL);
    moe_status status = moe_profile_check(&f->profile, f->cluster, NULL, diag);
    assert_int_equal(status, errors ? MOE_BAD_INPUT : MOE_OK);
    assert_int_equal(moe_diag_error_count(diag), errors);
}

/* What a file cannot contain is refused where no file was read. */
static void test_check_without_file(void **state)
{
    costs_fixture *f = *state;
    assert_refused(f, 0);
    f->profile.dense.flop_efficiency = 1.5;
    f->profile.memory.memory_efficiency = NAN;
    f->profile.experts[MOE_FORWARD].norm = 0.5;
    f->profile.experts[MOE_FORWARD].tile_rows = 0;
    f->profile.slowdown = 0.9;
    f->profile.sm_share = 1;
    assert_refused(f, 6);
}

static void test_points_are_needed_where_used(void **state)
{
    costs_fixture *f = *state;
    f->profile.collectives[MOE_REDUCE].intra.count = 0;
    f->profile.collectives[MOE_SEND_RECV].inter.count = 0;
    assert_refused(f, 2);
    moe_cluster one_host = *f->cluster;
    one_host.hosts = 1;
    f->cluster = &one_host;
    assert_refused(f, 1);
    moe_cluster one_device = one_host;
    one_device.devices_per_host = 1;
    f->cluster = &one_device;
    assert_refused(f, 0);
    f->cluster = NULL;
    assert_refused(f, 2);
}

typedef struct read_profile {
    char *said;
    size_t said_length;
    FILE *stream;
    moe_diag *diag;
    const moe_profile *profile; /* NULL if it could not be read */
    moe_status status;
} read_profile;

/* `f` stays where it is: the stream keeps the address of its text. */
static void listen(read_profile *f)
{
    *f = (read_profile){.status = MOE_BAD_INPUT};
    f->stream = open_memstream(&f->said, &f->said_length);
    f->diag = moe_diag_create(NULL, f->stream);
}

static void bind(read_profile *f, moe_config *config, const moe_cluster *cluster)
{
    if (config) {
        f->profile = moe_config_root(config);
        f->status = moe_profile_check(f->profile, cluster, config, f->diag);
    }
    fflush(f->stream);
}

static void open_file(read_profile *f, const char *path, const moe_cluster *cluster)
{
    listen(f);
    bind(f, moe_config_load(f->diag, path, &moe_profile_table, NULL, 0, f->diag), cluster);
}

static void open_text(read_profile *f, const char *text, const moe_cluster *cluster)
{
    listen(f);
    bind(f,
         moe_config_load_text(f->diag, "test.yaml", text, strlen(text), &moe_profile_table, NULL, 0,
                              f->diag),
         cluster);
}

static void close_file(read_profile *f)
{
    talloc_free(f->diag);
    fclose(f->stream);
    free(f->said);
}

static void assert_said(const read_profile *f, const char *message)
{
    if (!strstr(f->said, message))
        fail_msg("expected \"%s\" in:\n%s", message, f->said);
}

#define POINT "{intra: [[1 MiB, 0.8]], inter: [[1 MiB, 0.9]]}"
#define OTHER_SIX                                                                                  \
    "  all_gather: " POINT "\n  reduce_scatter: " POINT "\n  all_reduce: " POINT                   \
    "\n  broadcast: " POINT "\n  reduce: " POINT "\n  send_recv: " POINT "\n"
#define COLLECTIVES(all_to_all) "collectives:\n  all_to_all: " all_to_all "\n" OTHER_SIX

/* The smallest profile: one efficiency per collective and level, everything else assumed. */
static void test_data_sheet_times_efficiency(void **state)
{
    costs_fixture *f = *state;
    read_profile read;
    open_text(&read, "device: D\n" COLLECTIVES(POINT), f->cluster);
    assert_int_equal(read.status, MOE_OK);
    assert_string_equal(read.said, "");
    const moe_profile *profile = read.profile;
    assert_close(profile->dense.start_s, 3.5e-6);
    assert_close(profile->dense.norm, 2.7);
    assert_close(profile->experts[MOE_FORWARD].flop_efficiency, 0.6);
    assert_int_equal(profile->experts[MOE_FORWARD].tile_rows, 128);
    assert_close(profile->memory.memory_efficiency, 0.8);
    assert_close(profile->launch_s, 6e-6);
    assert_close(profile->host_sync_s, 15e-6);
    assert_close(profile->sm_share, 20.0 / 132);
    assert_close(profile->slowdown, 1.5);
    assert_int_equal(profile->dense.origin, MOE_ASSUMED);
    assert_int_equal(profile->launch_origin, MOE_ASSUMED);
    assert_int_equal(profile->interference_origin, MOE_ASSUMED);
    assert_int_equal(profile->collectives[MOE_SEND_RECV].inter_origin, MOE_ASSUMED);
    assert_close(profile->collectives[MOE_ALL_TO_ALL].intra.x[0], 1 << 20);
    assert_close(profile->collectives[MOE_ALL_TO_ALL].inter.y[0], 0.9);
    close_file(&read);
}

static void test_every_key_reaches_its_member(void **state)
{
    costs_fixture *f = *state;
    read_profile read;
    open_text(
        &read,
        "name: n\nsource: s\ndevice: D\n"
        "dense: {start: 4 us, flop_efficiency: 0.7, memory_efficiency: 65 %, norm: 3, low_rows: 2, "
        "high_rows: 99, residual: 0.1, origin: measured}\n"
        "experts: {start: 30 us, flop_efficiency: 0.5, memory_efficiency: 0.9, norm: 2, tile_rows: "
        "64, low_rows: 3, high_rows: 98, residual: 0.2, origin: derived}\n"
        "memory: {start: 1 us, memory_efficiency: 0.6, residual: 0.3, origin: imported}\n"
        "launch: {kernel: 7 us, sync: 16 us, origin: measured}\n"
        "interference: {sm_share: 1/8, slowdown: 1.3, origin: derived}\n" COLLECTIVES(
            "{start: 9 us, start_per_rank: 2 us, start_per_chunk: 4 us, intra: [[1 KiB, 0.1], [2 "
            "KiB, 0.2]], inter: [[3 KiB, 0.3]], residual: 0.4, origin: measured, inter_origin: "
            "imported}"),
        f->cluster);
    assert_int_equal(read.status, MOE_OK);
    const moe_profile *p = read.profile;
    const double actual[] = {p->dense.start_s,
                             p->dense.flop_efficiency,
                             p->dense.memory_efficiency,
                             p->dense.norm,
                             p->dense.low_rows,
                             p->dense.high_rows,
                             p->dense.evidence.residual,
                             p->dense.origin,
                             p->experts[MOE_FORWARD].start_s,
                             p->experts[MOE_FORWARD].flop_efficiency,
                             p->experts[MOE_FORWARD].memory_efficiency,
                             p->experts[MOE_FORWARD].norm,
                             (double)p->experts[MOE_FORWARD].tile_rows,
                             p->experts[MOE_FORWARD].low_rows,
                             p->experts[MOE_FORWARD].high_rows,
                             p->experts[MOE_FORWARD].evidence.residual,
                             p->experts[MOE_FORWARD].origin,
                             p->memory.start_s,
                             p->memory.memory_efficiency,
                             p->memory.evidence.residual,
                             p->memory.origin,
                             p->launch_s,
                             p->host_sync_s,
                             p->launch_origin,
                             p->sm_share,
                             p->slowdown,
                             p->interference_origin};
    const double expected[] = {
        4e-6,         0.7,   0.65,         3,     2,   99,         0.1,
        MOE_MEASURED, 30e-6, 0.5,          0.9,   2,   64,         3,
        98,           0.2,   MOE_DERIVED,  1e-6,  0.6, 0.3,        MOE_IMPORTED,
        7e-6,         16e-6, MOE_MEASURED, 0.125, 1.3, MOE_DERIVED};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_close(actual[i], expected[i]);
    const moe_collective_curve *c = &p->collectives[MOE_ALL_TO_ALL];
    assert_close(c->start_s + c->start_per_rank_s * 1e3 + c->start_per_chunk_s * 1e6, 4.002009);
    assert_int_equal(c->intra.count, 2);
    assert_close(c->intra.y[1], 0.2);
    assert_close(c->inter.x[0], 3072);
    assert_close(c->evidence.residual, 0.4);
    assert_int_equal(c->origin, MOE_MEASURED);
    assert_int_equal(c->inter_origin, MOE_IMPORTED);
    close_file(&read);
}

/* Keys of the parts that are optional, and evidence. */
static void test_optional_parts(void **state)
{
    costs_fixture *f = *state;
    read_profile read;
    open_text(
        &read,
        "licence: CC0\n"
        "gemm: {m: [1, 2], n: [64], k: [32, 64, 128], utilisation: [0.1, 0.2, 0.3, 0.4, 0.5, 1.2], "
        "value_bytes: 1, origin: measured, leave_one_out: 0.07, worst: 0.5, machine: here,\n"
        "  samples: [[1, 64, 32, 1e-5, 1.1e-5], [2, 64, 32, 1.5e-5, 1.4e-5]]}\n"
        "attention: {start: 9 us, flop_efficiency: 0.3, samples: [[1e9, 1e6, 2e-5, 2e-5]]}\n"
        "experts: {start_per_expert: 2 us, efficiency: [[16, 0.1], [256, 0.5]], samples: [[512, "
        "1024, 3, 2, 300, 200, 1e-4, 1.2e-4]]}\n"
        "experts_weight_gradient: {efficiency: [[16, 0.2]], origin: derived}\n"
        "memory: {efficiency: [[1 MiB, 0.2], [64 MiB, 0.8]], samples: [[1e6, 1e-5, 1e-5]]}\n"
        "launch: {graph: 12 us}\n"
        "interference: {port_sharing: per_flow}\n"
        "copies: {host_to_device: {start: 10 us, rate: 25 GB/s, origin: measured, samples: [[1e6, "
        "5e-5, 5e-5]]}}\n" COLLECTIVES(
            "{ranks: 8, groups: [{ranks: 2, intra: [[1 KiB, 0.4]]}, {ranks: 4, intra: [[1 KiB, "
            "0.5]]}], intra: [[1 MiB, 0.8]], inter: [[1 MiB, 0.9]], samples: [[8, 1, 1e6, 1e-4, "
            "1e-4]]}"),
        f->cluster);
    assert_string_equal(read.said, "");
    assert_int_equal(read.status, MOE_OK);
    const moe_profile *p = read.profile;
    assert_string_equal(p->licence, "CC0");
    assert_int_equal(p->gemm.utilisation.count, 6);
    assert_close(p->gemm.k.values[2], 128);
    assert_close(p->gemm.value_bytes, 1);
    assert_int_equal(p->gemm.origin, MOE_MEASURED);
    assert_close(p->gemm.evidence.leave_one_out, 0.07);
    assert_close(p->gemm.evidence.worst, 0.5);
    assert_string_equal(p->gemm.evidence.machine, "here");
    assert_int_equal(p->gemm.evidence.samples.width, 5);
    assert_close(p->gemm.evidence.samples.values[9], 1.4e-5);
    assert_close(p->attention.start_s, 9e-6);
    assert_true(moe_profile_has_attention(p));
    assert_close(p->experts[MOE_FORWARD].start_per_expert_s, 2e-6);
    assert_close(p->experts[MOE_FORWARD].efficiency.x[1], 256);
    assert_false(moe_profile_has_phase(p, MOE_INPUT_GRADIENT));
    assert_ptr_equal(moe_profile_experts(p, MOE_INPUT_GRADIENT), &p->experts[MOE_FORWARD]);
    assert_ptr_equal(moe_profile_experts(p, MOE_WEIGHT_GRADIENT), &p->experts[MOE_WEIGHT_GRADIENT]);
    assert_int_equal(p->experts[MOE_WEIGHT_GRADIENT].origin, MOE_DERIVED);
    assert_close(p->memory.efficiency.x[0], 1 << 20);
    assert_close(p->graph_launch_s, 12e-6);
    assert_int_equal(p->port_sharing, MOE_SHARE_PER_FLOW);
    assert_close(p->copies[MOE_COPY_HOST_TO_DEVICE].bytes_per_s, 25e9);
    assert_int_equal(p->copies[MOE_COPY_STORAGE_READ].origin, MOE_ASSUMED);
    const moe_collective_curve *c = &p->collectives[MOE_ALL_TO_ALL];
    const moe_collective_group *groups = c->groups.items;
    assert_int_equal(c->ranks, 8);
    assert_int_equal(c->groups.count, 2);
    assert_int_equal(groups[1].ranks, 4);
    assert_close(groups[1].intra.y[0], 0.5);
    close_file(&read);
}

typedef struct bad_case {
    const char *text;
    const char *message;
} bad_case;

static const bad_case bad_cases[] = {
    {COLLECTIVES("{intra: [[1 MiB, 0.8]]}"),
     ":2:15: error: collectives.all_to_all.inter has no points; expected at least one, such as"},
    {COLLECTIVES("{intra: [[2 KiB, 0.3], [1 KiB, 0.4]], inter: [[1 KiB, 0.5]]}"),
     ":2:39: error: collectives.all_to_all.intra: a point at 1024 bytes after one at 2048; "
     "expected"},
    {COLLECTIVES("{intra: [[2 KiB, 0.3], [2 KiB, 0.4]], inter: [[1 KiB, 0.5]]}"),
     "expected ascending sizes"},
    {COLLECTIVES("{intra: [[0, 0.3]], inter: [[1 KiB, 0.5]]}"), "expected a size above 0"},
    {COLLECTIVES("{intra: [[1 KiB, 1.25]], inter: [[1 KiB, 0.5]]}"), ":2:"},
    {COLLECTIVES("{intra: [[1 KiB, 0]], inter: [[1 KiB, 0.5]]}"), ":2:"},
    {"dense: {low_rows: 50, high_rows: 40}\n" COLLECTIVES(POINT),
     ":1:34: error: dense.high_rows is 40; expected at least low_rows, which is 50"},
    {"experts: {flop_efficiency: 1.5}\n" COLLECTIVES(POINT), "flop_efficiency"},
    {"interference: {slowdown: 0.5}\n" COLLECTIVES(POINT), "slowdown"},
    {"experts: {origin: guessed}\n" COLLECTIVES(POINT), "assumed"},
    {"gemm: {m: [1, 2], n: [64], k: [32], utilisation: [0.5]}\n" COLLECTIVES(POINT),
     ":1:50: error: gemm.utilisation has 1 numbers; expected 2 * 1 * 1, one for every m, n and k"},
    {"gemm: {m: [1, 2], n: [64], k: [32]}\n" COLLECTIVES(POINT),
     "gemm.utilisation has 0 numbers; expected 2 * 1 * 1"},
    {"gemm: {utilisation: [0.5]}\n" COLLECTIVES(POINT), "has 1 numbers; expected 0 * 0 * 0"},
    {"gemm: {m: [2, 2], n: [64], k: [32], utilisation: [0.5, 0.5]}\n" COLLECTIVES(POINT),
     ":1:15: error: gemm.m: 2 after 2; expected ascending widths"},
    {"gemm: {m: [2], n: [64], k: [32, 8], utilisation: [0.5, 0.5]}\n" COLLECTIVES(POINT),
     ":1:33: error: gemm.k: 8 after 32; expected ascending widths"},
    {"gemm: {m: [2], n: [64], k: [32], utilisation: [1.6]}\n" COLLECTIVES(POINT), ":1:48: error:"},
    {"gemm: {m: [2], n: [64], k: [32], utilisation: [0]}\n" COLLECTIVES(POINT), ":1:48: error:"},
    {"gemm: {samples: [[1, 2, 3, 1e-5]]}\n" COLLECTIVES(POINT),
     ":1:17: error: gemm.samples has rows of 4 numbers; expected 5, the last two measured and "
     "predicted seconds"},
    {"memory: {samples: [[1, 0, 1e-5]]}\n" COLLECTIVES(POINT),
     ":1:24: error: memory.samples: 0 s measured; expected a time above 0"},
    {"dense: {samples: [[1, 1, 1, 1, 0]]}\n" COLLECTIVES(POINT),
     ":1:32: error: dense.samples: 0 s predicted; expected a time above 0"},
    {"copies: {storage_read: {samples: [[1, 1]]}}\n" COLLECTIVES(POINT),
     "copies.storage_read.samples has rows of 2 numbers; expected 3"},
    {"experts: {efficiency: [[64, 0.5], [16, 0.2]]}\n" COLLECTIVES(POINT),
     ":1:36: error: experts.efficiency: a point at 16 rows after one at 64; expected ascending "
     "sizes"},
    {"experts_input_gradient: {efficiency: [[0, 0.5]]}\n" COLLECTIVES(POINT),
     "experts_input_gradient.efficiency: a point at 0 rows; expected a size above 0"},
    {"memory: {efficiency: [[2 KiB, 0.5], [1 KiB, 0.2]]}\n" COLLECTIVES(POINT),
     "memory.efficiency: a point at 1024 bytes after one at 2048"},
    {"attention: {flop_efficiency: 1.5}\n" COLLECTIVES(POINT), "flop_efficiency"},
    {"interference: {port_sharing: weighted}\n" COLLECTIVES(POINT), "port_sharing"},
    {COLLECTIVES("{groups: [{ranks: 2, intra: [[1 KiB, 0.4]]}], intra: [[1 MiB, 0.8]], inter: "
                 "[[1 MiB, 0.9]]}"),
     ":2:15: error: collectives.all_to_all.ranks is 0 beside groups; expected the number that "
     "`intra` was made with, at least 2"},
    {COLLECTIVES("{ranks: 8, groups: [{ranks: 2, intra: [[1 KiB, 0.4]]}, {ranks: 8, intra: [[1 "
                 "KiB, 0.4]]}], intra: [[1 MiB, 0.8]], inter: [[1 MiB, 0.9]]}"),
     ":2:78: error: collectives.all_to_all.groups: 8 ranks once more; expected each number once"},
    {COLLECTIVES("{ranks: 8, groups: [{ranks: 2, intra: []}], intra: [[1 MiB, 0.8]], inter: [[1 "
                 "MiB, 0.9]]}"),
     "collectives.all_to_all.groups has no points"},
    {COLLECTIVES("{ranks: 8, groups: [{ranks: 1, intra: [[1 KiB, 0.4]]}], intra: [[1 MiB, 0.8]], "
                 "inter: [[1 MiB, 0.9]]}"),
     "\"1\" for \"ranks\" is out of range"},
};

static void test_refusals(void **state)
{
    costs_fixture *f = *state;
    for (size_t i = 0; i < sizeof bad_cases / sizeof bad_cases[0]; i++) {
        read_profile read;
        open_text(&read, bad_cases[i].text, f->cluster);
        assert_int_equal(read.status, MOE_BAD_INPUT);
        assert_said(&read, bad_cases[i].message);
        close_file(&read);
    }
}

static void test_other_device_is_a_warning(void **state)
{
    costs_fixture *f = *state;
    read_profile read;
    open_text(&read, "device: X100\n" COLLECTIVES(POINT), f->cluster);
    assert_int_equal(read.status, MOE_OK);
    assert_said(
        &read,
        ":1:9: warning: the profile was made for device \"X100\", but the cluster has \"D\"");
    assert_int_equal(moe_diag_error_count(read.diag), 0);
    close_file(&read);
}

/* ---- presets against what they were made from
 * ------------------------------------------------------ */

static moe_cluster *preset_cluster(moe_diag *diag, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, MOE_TEST_SOURCE_DIR "/configs/clusters/%s.yaml", name);
    moe_config *config = moe_config_load(diag, path, &moe_cluster_table, NULL, 0, diag);
    assert_non_null(config);
    moe_cluster *cluster = moe_cluster_create(diag, moe_config_root(config), config, diag);
    assert_non_null(cluster);
    return cluster;
}

static void test_presets_are_sound(void **state)
{
    costs_fixture *f = *state;
    static const char *const pairs[][2] = {
        {"a100_80", "dgx_a100_superpod"}, {"h100", "p5_8xh100"},          {"h200", "hgx_h200"},
        {"a100_40", "p4d_4x8_a100"},      {"v100_32", "p3dn_4x8_v100"},
    };
    for (int i = 0; i < 5; i++) {
        char path[256];
        snprintf(path, sizeof path, MOE_TEST_SOURCE_DIR "/calibrate/profiles/%s.yaml", pairs[i][0]);
        read_profile read;
        open_file(&read, path, preset_cluster(f->diag, pairs[i][1]));
        assert_string_equal(read.said, ""); /* no warning either: the devices' names agree */
        assert_int_equal(read.status, MOE_OK);
        assert_non_null(read.profile->source);
        assert_int_equal(read.profile->experts[MOE_FORWARD].origin, MOE_DERIVED);
        close_file(&read);
    }
}

/* Eight A100 over NVSwitch, NCCL 2.27.3, half: AIConfigurator @095f58a51c4c (Apache-2.0), in us. */
typedef struct measured {
    moe_collective_kind kind;
    double bytes;
    double time_us;
    double tolerance;
} measured;

static const measured table[] = {
    {MOE_ALL_TO_ALL, 1 << 20, 25.81, 1e-3},
    {MOE_ALL_TO_ALL, 16 << 20, 114.3, 1e-3},
    {MOE_ALL_TO_ALL, 512 << 20, 2313.5, 1e-3},
    {MOE_ALL_TO_ALL, 64 << 10, 14.22, 0.1}, /* below the points */
    {MOE_ALL_GATHER, 1 << 20, 26.79, 1e-3},
    {MOE_ALL_GATHER, 64 << 20, 351.6, 1e-3},
    {MOE_ALL_GATHER, 4096, 14.65, 0.05},
    {MOE_REDUCE_SCATTER, 128 << 10, 18.16, 1e-3},
    {MOE_REDUCE_SCATTER, 16 << 20, 123.4, 1e-3},
    {MOE_ALL_REDUCE, 4 << 20, 77.31, 1e-3},
    {MOE_ALL_REDUCE, 512 << 20, 4225.9, 1e-3},
    {MOE_ALL_REDUCE, 2048, 21.53, 0.05},
};

enum { RANKS = 8 };

/* The uniform collective on the eight devices of the preset's second host. */
static moe_traffic *traffic_of(moe_arena *arena, const moe_costs *costs, const measured *m)
{
    if (m->kind != MOE_ALL_TO_ALL) {
        const int group[RANKS] = {8, 9, 10, 11, 12, 13, 14, 15};
        return moe_traffic_ring(arena, costs, m->kind, group, 1, RANKS, m->bytes);
    }
    int devices = costs->cluster->devices;
    double *bytes = moe_arena_array(arena, double, (size_t)devices *(size_t)devices);
    for (int source = 8; source < 16; source++)
        for (int target = 8; target < 16; target++)
            bytes[source * devices + target] = m->bytes / RANKS;
    return moe_traffic_all_to_all(arena, costs, bytes, false);
}

static void test_a100_reproduces_its_source(void **state)
{
    costs_fixture *f = *state;
    moe_cluster *cluster = preset_cluster(f->diag, "p4d_4x8_a100");
    read_profile read;
    open_file(&read, MOE_TEST_SOURCE_DIR "/calibrate/profiles/a100_40.yaml", cluster);
    assert_int_equal(read.status, MOE_OK);
    const moe_costs costs = {.profile = read.profile, .cluster = cluster, .usage = &f->usage};
    moe_arena *arena = moe_arena_create(f);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const moe_traffic *traffic = traffic_of(arena, &costs, &table[i]);
        assert_non_null(traffic);
        double time_us = moe_traffic_alone_s(traffic, cluster) * 1e6;
        assert_near(time_us, table[i].time_us, table[i].tolerance);
    }
    close_file(&read);
}

/* The floor of an all-reduce over two hosts of p4de, whose ring has 26 hops within and four between
 * them: aws-samples/awsome-distributed-training @7217859f67bc, nccl-tests README, 128 bytes. */
static void test_a100_floor_between_hosts(void **state)
{
    costs_fixture *f = *state;
    moe_cluster *cluster = preset_cluster(f->diag, "p4d_4x8_a100");
    read_profile read;
    open_file(&read, MOE_TEST_SOURCE_DIR "/calibrate/profiles/a100_40.yaml", cluster);
    const moe_costs costs = {.profile = read.profile, .cluster = cluster, .usage = &f->usage};
    int group[16];
    for (int i = 0; i < 16; i++)
        group[i] = 16 + i;
    moe_arena *arena = moe_arena_create(f);
    const moe_traffic *traffic = moe_traffic_ring(arena, &costs, MOE_ALL_REDUCE, group, 1, 16, 128);
    assert_near(moe_traffic_alone_s(traffic, cluster), 161.2e-6, 0.005);
    close_file(&read);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_costs, close_costs)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_dense),
        TEST(test_norm_limits),
        TEST(test_memory),
        TEST(test_memory_curve),
        TEST(test_grid_points_come_back),
        TEST(test_grid_between_points),
        TEST(test_beyond_the_grid),
        TEST(test_attention_curve),
        TEST(test_experts_with_efficiency_by_rows),
        TEST(test_gradients_have_curves_of_their_own),
        TEST(test_experts),
        TEST(test_tile_step),
        TEST(test_idle_experts),
        TEST(test_row_ranges),
        TEST(test_host_and_interference),
        TEST(test_alpha),
        TEST(test_efficiency_between_points),
        TEST(test_efficiency_is_clamped_and_counted),
        TEST(test_single_point),
        TEST(test_groups),
        TEST(test_provenance),
        TEST(test_check_without_file),
        TEST(test_points_are_needed_where_used),
        TEST(test_data_sheet_times_efficiency),
        TEST(test_every_key_reaches_its_member),
        TEST(test_optional_parts),
        TEST(test_refusals),
        TEST(test_other_device_is_a_warning),
        TEST(test_presets_are_sound),
        TEST(test_a100_reproduces_its_source),
        TEST(test_a100_floor_between_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
