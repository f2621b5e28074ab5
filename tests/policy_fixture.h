/* What the tests of policies share: an invented cluster with round numbers, a small network, and a
 * profile in which alone bytes over rates and FLOPs over peak take time.
 *
 *   device 1 TFLOP/s; 100 GB/s within a host, 10 GB/s per host between hosts; hidden 1000, ffn
 * 2000, bf16: a token is 2 kB, an expert 4 M parameters = 8 MB, 8 MFLOP per row and phase. One row
 * takes 8 us forward; one token 0.2 us between hosts and 0.02 us within; one expert 0.8 ms. */
#ifndef MOE_TESTS_POLICY_FIXTURE_H
#define MOE_TESTS_POLICY_FIXTURE_H

/* cmocka wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "configs/base/random.h"
#include "policies/placement/fssdp.h"

typedef struct fixture {
    void *memory;
    moe_diag *diag;
    moe_arena *arena;
    moe_cluster_spec spec;
    moe_network network;
    moe_profile profile;
    moe_curve_usage usage;
    moe_costs costs;
    moe_problem problem;
    moe_history *history;
    moe_placement *placement;
    moe_schedule schedule;
    const moe_policy *policy;
    void *state;
    uint32_t *counts; /* [devices][experts] */
} fixture;

static inline void fixture_profile(moe_profile *profile)
{
    static double at = 1;
    static double full = 1;
    *profile = (moe_profile){.name = "round", .slowdown = 1.5, .sm_share = 0.1};
    /* Memory never binds: its efficiency stands for a bandwidth without limit. */
    profile->dense = (moe_compute_curve){.flop_efficiency = 1,
                                         .memory_efficiency = 1e12,
                                         .norm = 2.7,
                                         .tile_rows = 1,
                                         .origin = MOE_ASSUMED};
    profile->experts[MOE_FORWARD] = profile->dense;
    profile->memory = profile->dense;
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++) {
        profile->collectives[kind].intra = (moe_points){&at, &full, 1};
        profile->collectives[kind].inter = (moe_points){&at, &full, 1};
    }
}

static inline void fixture_shapes(fixture *f, int hosts, int per_host, int layers, int experts)
{
    f->spec = (moe_cluster_spec){.name = "round", .hosts = hosts, .devices_per_host = per_host};
    f->spec.device = (moe_device_spec){"round", 1e12, 64e9, 1e12, 100};
    f->spec.intra = (moe_intra_spec){.kind = MOE_INTRA_NVSWITCH, .bandwidth_bytes_per_s = 100e9};
    f->spec.nic = (moe_nic_spec){.bandwidth_bytes_per_s = 10e9}; /* per host */
    f->spec.fabric = (moe_fabric_spec){.oversubscription = 1};
    f->network = (moe_network){.name = "small",
                               .layers = layers,
                               .hidden = 1000,
                               .ffn = 2000,
                               .experts = experts,
                               .top_k = 1,
                               .gate_groups = 1,
                               .top_groups = 1,
                               .heads = 10,
                               .sequence = 100,
                               .parameter_dtype = MOE_BF16,
                               .gradient_dtype = MOE_BF16,
                               .optimizer_bytes_per_parameter = 12};
}

static inline fixture *fixture_open(int hosts, int per_host, int ep, int layers, int experts)
{
    fixture *f = talloc_zero(NULL, fixture);
    assert_non_null(f);
    f->memory = f;
    f->diag = moe_diag_create(f, NULL);
    f->arena = moe_arena_create(f);
    fixture_shapes(f, hosts, per_host, layers, experts);
    fixture_profile(&f->profile);
    moe_cluster *cluster = moe_cluster_create(f, &f->spec, NULL, f->diag);
    assert_non_null(cluster);
    f->costs = (moe_costs){&f->profile, cluster, &f->usage};
    int devices = hosts * per_host;
    f->problem = (moe_problem){.cluster = cluster,
                               .network = &f->network,
                               .costs = &f->costs,
                               .layout = {devices, ep, devices / ep},
                               .options = {.micro_batches = 1, .tokens = 100},
                               .seed = 1};
    f->history = moe_history_create(f, layers, devices / ep, experts);
    f->placement = moe_placement_create(f, &f->problem.layout, layers, experts);
    f->counts = talloc_zero_array(f, uint32_t, (unsigned)(devices * experts));
    return f;
}

static inline void fixture_close(fixture *f)
{
    talloc_free(f);
}

/* Tunables of `policy` as YAML; defaults for what `text` leaves out. */
static inline const void *fixture_tunables(fixture *f, const moe_policy *policy, const char *text)
{
    moe_config *config = moe_config_load_text(f, "test.yaml", text, strlen(text), policy->tunables,
                                              NULL, 0, f->diag);
    assert_non_null(config);
    return moe_config_root(config);
}

/* The policy's state, or NULL where it refuses; f->placement becomes the initial one. */
static inline void *fixture_create(fixture *f, const moe_policy *policy, const char *text)
{
    f->policy = policy;
    f->state = policy->create(f, &f->problem, fixture_tunables(f, policy, text), &f->schedule,
                              f->placement, NULL, f->diag);
    return f->state;
}

static inline moe_decision fixture_before(fixture *f, int64_t iteration)
{
    moe_decision decision = {.placement = f->placement, .arena = f->arena};
    f->policy->before_iteration(f->state, &f->problem, iteration, f->history, &decision);
    return decision;
}

static inline moe_gate fixture_gate(const fixture *f, int64_t iteration, int layer)
{
    return (moe_gate){.iteration = iteration, .layer = layer, .counts = f->counts};
}

static inline moe_route fixture_route(fixture *f)
{
    size_t devices = (size_t)f->problem.layout.devices;
    size_t experts = (size_t)f->network.experts;
    size_t pairs = devices * devices;
    size_t rows = devices * experts;
    return (moe_route){.devices = (int)devices,
                       .experts = (int)experts,
                       .pairs = moe_arena_array(f->arena, double, pairs),
                       .rows = moe_arena_array(f->arena, double, rows)};
}

/* Extra copies that calibration decides on: [experts][words]. */
static inline uint64_t *fixture_calibrate(fixture *f, const moe_gate *gate, double *planning_s)
{
    size_t size = (size_t)f->placement->experts * (size_t)f->placement->words;
    uint64_t *extra = moe_arena_array(f->arena, uint64_t, size);
    *planning_s = 0;
    if (f->policy->after_gate != NULL)
        f->policy->after_gate(f->state, &f->problem, gate, f->placement, f->arena, extra,
                              planning_s);
    return extra;
}

static inline moe_route fixture_dispatch(fixture *f, const moe_gate *gate, const uint64_t *copies)
{
    moe_route route = fixture_route(f);
    f->policy->dispatch(f->state, &f->problem, gate, f->placement, copies, &route);
    return route;
}

static inline uint32_t *fixture_count(fixture *f, int source, int expert)
{
    return &f->counts[source * (int)f->network.experts + expert];
}

/* Skewed, different for every index: most experts get little, a few much, many counts are 0. */
static inline void fixture_random_counts(fixture *f, uint64_t seed, uint64_t index)
{
    gsl_rng *random = moe_random_create(seed, "test counts", index);
    int experts = (int)f->network.experts;
    for (int e = 0; e < experts; e++) {
        double heat = pow(gsl_rng_uniform(random), 4) * 1000;
        for (int s = 0; s < f->problem.layout.devices; s++)
            *fixture_count(f, s, e) = (uint32_t)(gsl_rng_uniform(random) * heat);
    }
    gsl_rng_free(random);
}

/* Today's counts become history, the same in every layer but rotated by it. */
static inline void fixture_push_counts(fixture *f)
{
    int experts = (int)f->network.experts;
    const moe_layout *layout = &f->problem.layout;
    size_t size = (size_t)f->network.layers * (size_t)layout->groups * (size_t)experts;
    double *loads = talloc_zero_array(f, double, (unsigned)size);
    for (int l = 0; l < (int)f->network.layers; l++) {
        for (int s = 0; s < layout->devices; s++) {
            for (int e = 0; e < experts; e++)
                loads[(l * layout->groups + moe_layout_group(layout, s)) * experts +
                      (e + l) % experts] += *fixture_count(f, s, e);
        }
    }
    moe_history_push(f->history, loads);
    talloc_free(loads);
}

/* loads[experts] become history of every layer and group. */
static inline void fixture_push(fixture *f, const double *loads)
{
    size_t experts = (size_t)f->network.experts;
    size_t rows = (size_t)f->network.layers * (size_t)f->problem.layout.groups;
    double *all = talloc_array(f, double, (unsigned)(rows * experts));
    for (size_t i = 0; i < rows; i++)
        memcpy(all + i * experts, loads, experts * sizeof *all);
    moe_history_push(f->history, all);
    talloc_free(all);
}

#endif
