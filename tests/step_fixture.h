/* What the tests of steps and their memory share: an invented cluster and network with round
 * numbers, seeded random routing over a placement with copies, and the program built from it.
 *
 *   device 1 TFLOP/s, 1 TB/s; 100 GB/s within a host, 10 GB/s per host between hosts; hidden 1000,
 * ffn 2000, bf16: a token is 2 kB, an expert 4 M parameters = 8 MB, 8 MFLOP per row and phase. */
#ifndef MOE_TESTS_STEP_FIXTURE_H
#define MOE_TESTS_STEP_FIXTURE_H

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
#include "models/timeline.h"
#include "policies/policy.h"

typedef struct step_fixture {
    moe_arena *arena;
    moe_cluster_spec spec;
    moe_cluster *cluster;
    moe_network network;
    moe_profile profile;
    moe_curve_usage usage;
    moe_costs costs;
    moe_layout layout;
    moe_placement *placement;
    moe_step_options options;
    moe_schedule schedule;
    moe_memory_options memory;
    moe_routed_layer *routed; /* [micro_batches][layers] */
    moe_step step;
    double calibrated_share; /* of devices and experts: copies added after the gate */
} step_fixture;

static inline void step_fixture_profile(moe_profile *profile)
{
    static double at = 1;
    static double full = 1;
    *profile = (moe_profile){.name = "round", .slowdown = 1.5, .sm_share = 0.25};
    profile->dense = (moe_compute_curve){.flop_efficiency = 0.5,
                                         .memory_efficiency = 1e6, /* never binds */
                                         .norm = 2.7,
                                         .tile_rows = 1,
                                         .origin = MOE_ASSUMED};
    profile->experts[MOE_FORWARD] = profile->dense;
    profile->memory = profile->dense;
    profile->memory.memory_efficiency = 0.5;
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++) {
        profile->collectives[kind].intra = (moe_points){&at, &full, 1};
        profile->collectives[kind].inter = (moe_points){&at, &full, 1};
    }
}

static inline void step_fixture_shapes(step_fixture *f, int hosts, int per_host)
{
    f->spec = (moe_cluster_spec){.name = "round", .hosts = hosts, .devices_per_host = per_host};
    f->spec.device = (moe_device_spec){"round", 1e12, 64e9, 1e12, 100};
    f->spec.intra = (moe_intra_spec){.kind = MOE_INTRA_NVSWITCH, .bandwidth_bytes_per_s = 100e9};
    f->spec.nic = (moe_nic_spec){.bandwidth_bytes_per_s = 10e9}; /* per host */
    f->spec.fabric = (moe_fabric_spec){.oversubscription = 1};
    f->network = (moe_network){.name = "small",
                               .layers = 2,
                               .hidden = 1000,
                               .ffn = 2000,
                               .experts = 4,
                               .top_k = 1,
                               .gate_groups = 1,
                               .top_groups = 1,
                               .heads = 10,
                               .sequence = 100,
                               .tied_embeddings = true,
                               .parameter_dtype = MOE_BF16,
                               .gradient_dtype = MOE_BF16,
                               .optimizer_bytes_per_parameter = 12};
}

/* EP groups of `ep` devices, even placement, nothing materialized, nothing routed yet. */
static inline step_fixture *step_fixture_open(int hosts, int per_host, int ep, int layers,
                                              int experts)
{
    step_fixture *f = talloc_zero(NULL, step_fixture);
    assert_non_null(f);
    f->arena = moe_arena_create(f);
    step_fixture_shapes(f, hosts, per_host);
    step_fixture_profile(&f->profile);
    f->network.layers = layers;
    f->network.experts = experts;
    f->cluster = moe_cluster_create(f, &f->spec, NULL, moe_diag_create(f, NULL));
    assert_non_null(f->cluster);
    f->costs = (moe_costs){&f->profile, f->cluster, &f->usage};
    f->layout = (moe_layout){hosts * per_host, ep, hosts * per_host / ep};
    f->options = (moe_step_options){.micro_batches = 1, .tokens = 100, .interference = true};
    f->schedule = (moe_schedule){.gathers_loads = true};
    f->placement = moe_placement_create(f, &f->layout, layers, experts);
    moe_placement_even(f->placement, &f->layout);
    return f;
}

static inline void step_fixture_close(step_fixture *f)
{
    talloc_free(f);
}

/* Each expert of each layer gets copies on about `share` of the devices. */
static inline void step_fixture_replicate(step_fixture *f, gsl_rng *random, double share)
{
    for (int layer = 0; layer < f->placement->layers; layer++) {
        for (int expert = 0; expert < f->placement->experts; expert++) {
            for (int device = 0; device < f->layout.devices; device++) {
                if (gsl_rng_uniform(random) < share) {
                    moe_set_add(moe_placement_copies(f->placement, layer, expert), device);
                }
            }
        }
    }
}

/* A device of the source's group that has a copy: its own, or drawn. */
static inline int step_fixture_holder(const step_fixture *f, gsl_rng *random,
                                      const uint64_t *copies, int source)
{
    int first = moe_layout_group(&f->layout, source) * f->layout.ep;
    int drawn = source;
    while (!moe_set_has(copies, drawn)) {
        drawn = first + (int)gsl_rng_uniform_int(random, (unsigned long)f->layout.ep);
    }
    return drawn;
}

/* Skewed: low experts are hot; some sources have nothing for some experts. */
static inline double step_fixture_count(gsl_rng *random, int expert)
{
    return (double)gsl_rng_uniform_int(random, 40) / (1 + expert) +
           (double)gsl_rng_uniform_int(random, 3);
}

/* The layer's copies and what a calibration adds to them. */
static inline const uint64_t *step_fixture_calibrate(step_fixture *f, gsl_rng *random, int layer)
{
    const uint64_t *before = moe_placement_copies(f->placement, layer, 0);
    size_t words = (size_t)f->placement->words;
    size_t size = (size_t)f->placement->experts * words;
    uint64_t *copies = moe_arena_array(f->arena, uint64_t, size);
    memcpy(copies, before, size * sizeof *copies);
    for (int expert = 0; expert < f->placement->experts; expert++) {
        for (int device = 0; device < f->layout.devices; device++) {
            if (gsl_rng_uniform(random) < f->calibrated_share) {
                moe_set_add(copies + (size_t)expert * words, device);
            }
        }
    }
    return copies;
}

static inline void step_fixture_dispatch(step_fixture *f, gsl_rng *random, const uint64_t *copies,
                                         moe_routed_layer *routed)
{
    size_t devices = (size_t)f->layout.devices;
    size_t experts = (size_t)f->placement->experts;
    moe_route route = {.devices = f->layout.devices,
                       .experts = f->placement->experts,
                       .pairs = moe_arena_array(f->arena, double, devices *devices),
                       .rows = moe_arena_array(f->arena, double, devices *experts)};
    for (int source = 0; source < route.devices; source++) {
        for (int expert = 0; expert < route.experts; expert++) {
            const uint64_t *held = copies + (size_t)expert * (size_t)f->placement->words;
            moe_route_add(&route, source, expert, step_fixture_holder(f, random, held, source),
                          floor(step_fixture_count(random, expert)));
        }
    }
    routed->pairs = route.pairs;
    routed->rows = route.rows;
}

static inline void step_fixture_route_layer(step_fixture *f, gsl_rng *random, int layer,
                                            moe_routed_layer *routed)
{
    const uint64_t *before = moe_placement_copies(f->placement, layer, 0);
    const uint64_t *copies = step_fixture_calibrate(f, random, layer);
    step_fixture_dispatch(f, random, copies, routed);
    routed->materialized_count = moe_layer_chunks(f->arena, &f->layout, f->placement, layer, before,
                                                  NULL, &routed->materialized);
    routed->calibrated_count = moe_layer_chunks(f->arena, &f->layout, f->placement, layer, copies,
                                                before, &routed->calibrated);
}

/* Routes every micro-batch and layer over the placement as it stands. */
static inline void step_fixture_route(step_fixture *f, gsl_rng *random)
{
    size_t count = (size_t)f->options.micro_batches * (size_t)f->placement->layers;
    f->routed = moe_arena_array(f->arena, moe_routed_layer, count);
    for (size_t i = 0; i < count; i++) {
        step_fixture_route_layer(f, random, (int)(i % (size_t)f->placement->layers), &f->routed[i]);
    }
    f->step.routed = f->routed;
}

static inline const moe_program *step_fixture_build(step_fixture *f)
{
    return moe_step_build(f->arena, &f->costs, &f->network, &f->layout, f->placement, &f->options,
                          &f->schedule, &f->step);
}

static inline moe_memory step_fixture_memory(const step_fixture *f, int device)
{
    return moe_step_memory(f->cluster, &f->network, &f->layout, f->placement, &f->options,
                           &f->schedule, &f->memory, &f->step, device);
}

static inline void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-12 * fmax(fabs(value), fabs(expected)))) {
        fail_msg("%.17g instead of %.17g", value, expected);
    }
}

#endif
