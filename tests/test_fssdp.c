/* FSSDP: both algorithms worked by hand, calibration, re-sharding, and the laws. */
#include "tests/policy_fixture.h"

/* --- algorithm 1 ---------------------------------------------------------------------------- */

static void slots_follow_load(void **unused)
{
    (void)unused;
    const struct {
        double loads[3];
        int slots, most, replicas;
        int expected[3];
    } cases[] = {
        {{50, 30, 20}, 10, 10, MOE_FSSDP_PROPORTIONAL, {5, 3, 2}},
        {{45, 35, 20}, 7, 7, MOE_FSSDP_PROPORTIONAL, {3, 3, 1}}, /* 3.15, 2.45, 1.4 */
        {{100, 1, 1}, 5, 3, MOE_FSSDP_PROPORTIONAL, {3, 1, 1}},  /* capped, and at least one */
        {{100, 1, 1}, 5, 3, MOE_FSSDP_EQUAL, {2, 2, 1}},
        {{9, 5, 4}, 2, 3, MOE_FSSDP_PROPORTIONAL, {1, 1, 0}}, /* fewer slots than experts */
        {{0, 0, 0}, 5, 4, MOE_FSSDP_PROPORTIONAL, {2, 2, 1}},
        {{7, 6, 5}, 100, 3, MOE_FSSDP_PROPORTIONAL, {3, 3, 3}},
        {{7, 6, 5}, 4, 0, MOE_FSSDP_PROPORTIONAL, {0, 0, 0}},
        {{7, 6, 5}, 0, 3, MOE_FSSDP_PROPORTIONAL, {0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        moe_ranked ranking[3];
        int assigned[3] = {-1, -1, -1};
        for (int e = 0; e < 3; e++)
            ranking[e] = (moe_ranked){cases[i].loads[e], e};
        moe_fssdp_assign_slots(ranking, 3, cases[i].slots, cases[i].most, cases[i].replicas,
                               assigned);
        assert_memory_equal(assigned, cases[i].expected, sizeof assigned);
    }
}

static void ranking_is_total(void **unused)
{
    (void)unused;
    moe_arena *arena = moe_arena_create(NULL);
    const double loads[] = {3, 7, 3, 9, 7};
    const moe_ranked *ranking = moe_rank_by_load(arena, loads, 5);
    const int expected[] = {3, 1, 4, 0, 2};
    for (int i = 0; i < 5; i++)
        assert_int_equal(ranking[i].expert, expected[i]);
    talloc_free(arena);
}

/* 2 hosts x 2, four experts, expert e at home on device e. */
static moe_fssdp_layer four(const fixture *f, const double *loads, int overlap, int *free_slots)
{
    return (moe_fssdp_layer){.cluster = f->problem.cluster,
                             .devices = 4,
                             .experts = 4,
                             .words = 1,
                             .loads = loads,
                             .overlap = overlap,
                             .free_slots = free_slots};
}

static void enough_slots_take_the_top_everywhere(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    const double loads[] = {10, 40, 20, 30};
    int free_slots[] = {2, 2, 2, 2};
    uint64_t copies[] = {1, 2, 4, 8};
    moe_fssdp_layer layer = four(f, loads, 2, free_slots);
    moe_fssdp_materialize(f->arena, &layer, copies);
    const uint64_t expected[] = {1, 0xf, 4, 0xf};
    const int left[] = {0, 1, 0, 1};
    assert_memory_equal(copies, expected, sizeof copies);
    assert_memory_equal(free_slots, left, sizeof left);
    fixture_close(f);
}

/* t = 3 > m = 1: of 4 slots the loads 60, 25, 10 give 2, 1, 1. Expert 0 (home: device 0) goes to
 * host 1, which lacks it: device 2; then to the host with more free slots, host 0: device 1. Expert
 * 1 (home: 1) to host 1, where device 3 is free. Expert 2 (home: 2) to host 0, device 0. */
static void scarce_slots_go_by_load(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    const double loads[] = {60, 25, 10, 5};
    int free_slots[] = {1, 1, 1, 1};
    uint64_t copies[] = {1, 2, 4, 8};
    moe_fssdp_layer layer = four(f, loads, 3, free_slots);
    moe_fssdp_materialize(f->arena, &layer, copies);
    const uint64_t expected[] = {0x7, 0xa, 0x5, 0x8};
    const int left[4] = {0};
    assert_memory_equal(copies, expected, sizeof copies);
    assert_memory_equal(free_slots, left, sizeof left);
    fixture_close(f);
}

/* The same where every expert competes: one slot each, always on the other host. */
static void scarce_slots_may_go_beyond_the_top(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    const double loads[] = {60, 25, 10, 5};
    int free_slots[] = {1, 1, 1, 1};
    uint64_t copies[] = {1, 2, 4, 8};
    moe_fssdp_layer layer = four(f, loads, 3, free_slots);
    layer.top_set = MOE_FSSDP_TOP_FIRST;
    moe_fssdp_materialize(f->arena, &layer, copies);
    const uint64_t expected[] = {0x5, 0xa, 0x5, 0xa};
    assert_memory_equal(copies, expected, sizeof copies);
    fixture_close(f);
}

/* t = 3 > m = 2: of 8 slots the loads 1000, 50, 40 would give nearly all to expert 0, but three
 * copies beside its owner are all that it can use: 3, 3, 2. */
static void nobody_gets_more_slots_than_devices(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    const double loads[] = {1000, 50, 40, 5};
    int free_slots[] = {2, 2, 2, 2};
    uint64_t copies[] = {1, 2, 4, 8};
    moe_fssdp_layer layer = four(f, loads, 3, free_slots);
    moe_fssdp_materialize(f->arena, &layer, copies);
    const uint64_t expected[] = {0xf, 0xf, 0x7, 0x8};
    assert_memory_equal(copies, expected, sizeof copies);
    fixture_close(f);
}

/* Expert 0 is on device 1 already, whose slot that took. Of three free slots and that one, loads 40
 * and 38 get two each: one more for expert 0, on host 1 (device 2), and two for expert 1, on 3 and
 * 0. */
static void copies_already_there_count(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    const double loads[] = {40, 38, 10, 5};
    int free_slots[] = {1, 0, 1, 1};
    uint64_t copies[] = {3, 2, 4, 8};
    moe_fssdp_layer layer = four(f, loads, 2, free_slots);
    moe_fssdp_materialize(f->arena, &layer, copies);
    const uint64_t expected[] = {0x7, 0xb, 0x4, 0x8};
    assert_memory_equal(copies, expected, sizeof copies);
    fixture_close(f);
}

/* m := min(m, t): with t = 1, a device with room for 3 still takes one copy only. */
static void no_more_slots_than_the_overlap_degree(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    const double loads[] = {60, 25, 10, 5};
    int free_slots[] = {3, 3, 0, 0};
    uint64_t copies[] = {1, 2, 4, 8};
    moe_fssdp_layer layer = four(f, loads, 1, free_slots);
    layer.top_set = MOE_FSSDP_TOP_FIRST;
    moe_fssdp_materialize(f->arena, &layer, copies);
    const uint64_t expected[] = {0x3, 0x3, 0x4, 0x8};
    assert_memory_equal(copies, expected, sizeof copies);
    fixture_close(f);
}

/* --- algorithm 2 ---------------------------------------------------------------------------- */

/* 2 layers x 4 experts on 2 hosts x 2, t = 1, two slots a device. Hot: expert 0 of layer 0, expert
 * 1 of layer 1. Layer 1 is first, for its hottest cold expert has 9 against 8: layer 1: 9 -> device
 * 0; 5 -> host 1, device 2; 3 -> host 1 (5 < 9), device 3 layer 0: 8 -> tie, host 1 has fewer free
 * slots, device 2 before 3; 6 -> host 0, device 0 has fewer free slots than 1; 4 -> host 0 (6 < 8),
 * device 1 Slots are left on 1 and 3. Expert 1 of layer 1 stays on 1; expert 0 of layer 0 finds 0
 * full: 3. */
static const double sharding_loads[2][4] = {{100, 8, 6, 4}, {5, 90, 9, 3}};

static moe_fssdp_sharding two_layers(const fixture *f)
{
    return (moe_fssdp_sharding){.cluster = f->problem.cluster,
                                .devices = 4,
                                .layers = 2,
                                .experts = 4,
                                .overlap = 1,
                                .loads = &sharding_loads[0][0]};
}

static void check_sharding(const moe_fssdp_sharding *sharding, const int *expected)
{
    moe_arena *arena = moe_arena_create(NULL);
    int owner[8] = {0, 1, 2, 3, 0, 1, 2, 3};
    assert_true(moe_fssdp_shard(arena, sharding, owner));
    assert_memory_equal(owner, expected, sizeof owner);
    talloc_free(arena);
}

static void cold_experts_choose_first(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 2, 4);
    moe_fssdp_sharding sharding = two_layers(f);
    check_sharding(&sharding, (const int[8]){3, 2, 0, 1, 2, 1, 0, 3});
    fixture_close(f);
}

static void hot_experts_may_fill_the_freest(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 2, 4);
    moe_fssdp_sharding sharding = two_layers(f);
    sharding.leftover = MOE_FSSDP_FREEST;
    check_sharding(&sharding, (const int[8]){1, 2, 0, 1, 2, 3, 0, 3});
    fixture_close(f);
}

/* Loads add up over layers: layer 0 starts from 9 0 | 5 3. 8 -> host 1 (8 < 9), device 3; 6 -> host
 * 0, device 1; 4 -> host 0 (15 < 16), device 1. Slots are left on 0 and 2. */
static void loads_may_add_up_over_layers(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 2, 4);
    moe_fssdp_sharding sharding = two_layers(f);
    sharding.inner_load = MOE_FSSDP_TOTAL_LOAD;
    check_sharding(&sharding, (const int[8]){0, 3, 1, 1, 2, 2, 0, 3});
    fixture_close(f);
}

static void the_same_loads_change_nothing(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 2, 4);
    moe_fssdp_sharding sharding = two_layers(f);
    int owner[8] = {0, 1, 2, 3, 0, 1, 2, 3};
    assert_true(moe_fssdp_shard(f->arena, &sharding, owner));
    assert_false(moe_fssdp_shard(f->arena, &sharding, owner));
    fixture_close(f);
}

/* --- creation ------------------------------------------------------------------------------- */

static void tunables_become_the_schedule(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    assert_non_null(fixture_create(f, &moe_policy_fssdp, "{overlap_degree: 1, slots: 1}"));
    const moe_schedule paper = {.gathers_loads = true};
    assert_int_equal(f->schedule.hide_under, MOE_HIDE_ATTENTION);
    assert_int_equal(f->schedule.accumulate, MOE_REDUCE_EACH);
    assert_int_equal(f->schedule.gather, MOE_GATHER_PER_STEP);
    assert_int_equal(f->schedule.algorithm, MOE_CHUNK_CHAIN);
    assert_int_equal(f->schedule.gathers_loads, paper.gathers_loads);
    assert_false(f->schedule.rematerialize);
    assert_non_null(fixture_create(f, &moe_policy_fssdp,
                                   "{hide_under: layer, rematerialize: true, accumulate: hold, "
                                   "gather: per_micro_batch, algorithm: tree, slots: 1, "
                                   "gather_loads: false}"));
    assert_int_equal(f->schedule.hide_under, MOE_HIDE_LAYER);
    assert_int_equal(f->schedule.accumulate, MOE_REDUCE_HOLD);
    assert_int_equal(f->schedule.gather, MOE_GATHER_PER_MICRO_BATCH);
    assert_int_equal(f->schedule.algorithm, MOE_CHUNK_TREE);
    assert_false(f->schedule.gathers_loads);
    assert_true(f->schedule.rematerialize);
    fixture_close(f);
}

static void shards_must_come_out_even(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 6);
    assert_null(fixture_create(f, &moe_policy_fssdp, "slots: 1"));
    assert_int_equal(moe_diag_error_count(f->diag), 1);
    fixture_close(f);
    f = fixture_open(2, 2, 4, 2, 6);
    assert_null(fixture_create(f, &moe_policy_fssdp, "heterogeneous_sharding: false"));
    assert_int_equal(moe_diag_error_count(f->diag), 1);
    assert_non_null(fixture_create(f, &moe_policy_fssdp, "slots: 1")); /* 12 = 4 * 3 */
    assert_null(moe_placement_check(f->placement, &f->problem.layout, 3));
    fixture_close(f);
}

/* How many experts of layer 0 are on every device. */
static int everywhere(const fixture *f)
{
    int count = 0;
    for (int e = 0; e < f->placement->experts; e++) {
        const uint64_t *set = moe_placement_copies(f->placement, 0, e);
        count += moe_set_count(set, f->placement->words) == f->problem.layout.devices;
    }
    return count;
}

static int copies_beyond_owners(const fixture *f)
{
    int count = 0;
    for (int l = 0; l < f->placement->layers; l++) {
        for (int e = 0; e < f->placement->experts; e++)
            count += moe_set_count(moe_placement_copies(f->placement, l, e), f->placement->words) -
                     f->placement->groups;
    }
    return count;
}

/* The overlap degree, seen from outside: with slots for all, t experts are everywhere. */
static int overlap_seen(fixture *f, const char *text)
{
    const double loads[16] = {9, 2, 3, 4, 5, 6, 7, 8, 1, 10, 16, 12, 13, 14, 15, 11};
    assert_non_null(fixture_create(f, &moe_policy_fssdp, text));
    fixture_push(f, loads);
    fixture_before(f, 1);
    return everywhere(f);
}

/* 500 tokens attend for 8.432 MFLOP * 500 / 1 TFLOP/s = 4.216 ms; an expert crosses in 0.8 ms. */
static void overlap_degree_is_what_attention_hides(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 16);
    f->problem.options.tokens = 500;
    /* Homes alternate between hosts: t experts take ceil(t / 2) * 0.8 ms on each NIC. */
    const char *by_profile = "{slots: 16, overlap_bandwidth: profile}";
    assert_int_equal(overlap_seen(f, by_profile), 10);
    assert_int_equal(overlap_seen(f, "slots: 16"), 5);
    assert_int_equal(overlap_seen(f, "{slots: 16, overlap_bandwidth: line_rate_device}"), 2);
    assert_int_equal(overlap_seen(f, "{slots: 16, overlap_degree: 7}"), 7);
    assert_int_equal(overlap_seen(f, "{slots: 16, overlap_degree: 70}"), 16);
    f->problem.options.interference = true; /* ceil(t / 2) * 1.2 ms */
    assert_int_equal(overlap_seen(f, by_profile), 6);
    assert_int_equal(overlap_seen(f, "slots: 16"), 5);
    f->problem.options.tokens = 0.1;
    assert_int_equal(overlap_seen(f, by_profile), 0);
    assert_int_equal(overlap_seen(f, "slots: 16"), 0);
    fixture_close(f);
    f = fixture_open(1, 4, 4, 1, 16);
    f->problem.options.tokens = 500; /* 100 GB/s within the host: 52 experts */
    assert_int_equal(overlap_seen(f, "{slots: 16, overlap_bandwidth: line_rate_host}"), 16);
    fixture_close(f);
}

/* Memory for `slots` copies of each layer beside 100 rows in each layer. */
static void give_memory(fixture *f, double rows, double slots)
{
    double owned = (double)(f->network.layers * f->network.experts) / f->problem.layout.ep;
    moe_schedule schedule = {0};
    f->spec.device.memory_bytes = 0;
    moe_memory peak = moe_memory_estimate(f->problem.cluster, &f->network, &f->problem.layout,
                                          &f->problem.options, &f->problem.memory, owned, rows);
    f->spec.device.memory_bytes = peak.peak + slots * moe_memory_slot_bytes(&f->network, &schedule);
}

static void slots_are_what_memory_leaves(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 8);
    const double even[8] = {51, 50, 51, 50, 51, 50, 51, 50};
    const double hot[8] = {9000, 50, 50, 50, 50, 50, 50, 50};
    give_memory(f, 101, 2.5);
    assert_non_null(fixture_create(f, &moe_policy_fssdp, "{overlap_degree: 4}"));
    fixture_push(f, even);
    fixture_before(f, 1);
    assert_int_equal(copies_beyond_owners(f), 4 * 2); /* two on each of four devices */
    fixture_push(f, hot); /* device 0 would need 9050 rows: nothing is left */
    fixture_before(f, 2);
    assert_int_equal(copies_beyond_owners(f), 0);
    fixture_push(f, even); /* a peak once measured stays */
    fixture_before(f, 3);
    assert_int_equal(copies_beyond_owners(f), 0);
    fixture_close(f);
}

/* Two micro-batches; layer 0 is hot, layer 1 is not. Device 0 gets 475,000 rows, then 50,000:
 * activations of their mean, buffers for the first. */
static void peaks_are_of_one_micro_batch(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 2, 8);
    const double loads[16] = {9e5, 5e4, 5e4, 5e4, 5e4, 5e4, 5e4, 5e4,
                              5e4, 5e4, 5e4, 5e4, 5e4, 5e4, 5e4, 5e4};
    f->problem.options.micro_batches = 2;
    give_memory(f, 475e3, 0);
    double with_all_hot = f->spec.device.memory_bytes;
    give_memory(f, 262.5e3, 2.5);
    moe_memory hot = moe_memory_estimate(f->problem.cluster, &f->network, &f->problem.layout,
                                         &f->problem.options, &f->problem.memory, 4, 475e3);
    moe_memory mean = moe_memory_estimate(f->problem.cluster, &f->network, &f->problem.layout,
                                          &f->problem.options, &f->problem.memory, 4, 262.5e3);
    f->spec.device.memory_bytes += hot.buffers - mean.buffers;
    assert_true(hot.buffers > mean.buffers && f->spec.device.memory_bytes < with_all_hot);
    assert_non_null(fixture_create(f, &moe_policy_fssdp, "{overlap_degree: 4}"));
    moe_history_push(f->history, loads);
    fixture_before(f, 1);
    assert_int_equal(copies_beyond_owners(f), 2 * 4 * 2); /* two on each device, in both layers */
    fixture_close(f);
}

/* The same memory, counted with the two own experts of each device: 4 slots, 2 of them taken. */
static void slots_may_include_the_shard(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 8);
    const double even[8] = {51, 50, 51, 50, 51, 50, 51, 50};
    give_memory(f, 101, 2.5);
    assert_non_null(
        fixture_create(f, &moe_policy_fssdp, "{overlap_degree: 4, slots_count: with_shard}"));
    fixture_push(f, even);
    fixture_before(f, 1);
    assert_int_equal(copies_beyond_owners(f), 4 * 2);
    assert_non_null(fixture_create(f, &moe_policy_fssdp,
                                   "{overlap_degree: 4, slots: 3, slots_count: with_shard}"));
    fixture_before(f, 1);
    assert_int_equal(copies_beyond_owners(f), 4 * 1);
    fixture_close(f);
}

/* --- prediction ----------------------------------------------------------------------------- */

static void the_last_iterations_predict(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 2, 4);
    assert_non_null(
        fixture_create(f, &moe_policy_fssdp, "{window: 2, overlap_degree: 1, slots: 1}"));
    fixture_before(f, 0);
    assert_int_equal(copies_beyond_owners(f), 0); /* nothing is known yet */
    fixture_push(f, (const double[]){1000, 0, 0, 0});
    fixture_push(f, (const double[]){0, 30, 0, 0});
    fixture_push(f, (const double[]){0, 0, 20, 0});
    fixture_before(f, 3); /* 0, 15, 10, 0 */
    for (int l = 0; l < 2; l++) {
        const uint64_t *copies = moe_placement_copies(f->placement, l, 0);
        assert_memory_equal(copies, ((const uint64_t[]){1, 0xf, 4, 8}), 4 * sizeof *copies);
    }
    fixture_close(f);
}

static void planning_is_charged_when_exposed(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 3, 4);
    assert_non_null(fixture_create(f, &moe_policy_fssdp, "{planning: 10 us, slots: 1}"));
    assert_true(fixture_before(f, 0).planning_s == 0);
    assert_non_null(fixture_create(f, &moe_policy_fssdp,
                                   "{planning: 10 us, planning_exposed: true, slots: 1}"));
    assert_true(fabs(fixture_before(f, 0).planning_s - 30e-6) < 1e-15);
    fixture_close(f);
}

/* --- calibration ---------------------------------------------------------------------------- */

/* One expert, `tokens` from each of four sources, at home on device 0; nothing predicted.
 * Without a copy: 4 * 2 tokens * 0.2 us + 3 * 4 tokens * 8 us; with it everywhere 3 * tokens * 8
 * us, and 0.8 ms of spAG. Worth it from 11 tokens on, if the backward pass hides the spRS. */
static bool calibrates(uint32_t tokens, double attention_tokens, bool interference,
                       const char *text)
{
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    f->problem.options.tokens = attention_tokens;
    f->problem.options.interference = interference;
    assert_non_null(fixture_create(f, &moe_policy_fssdp, text));
    fixture_before(f, 0);
    for (int s = 0; s < 4; s++)
        *fixture_count(f, s, 0) = tokens;
    moe_gate gate = fixture_gate(f, 0, 0);
    double planning_s;
    const uint64_t *extra = fixture_calibrate(f, &gate, &planning_s);
    assert_true(planning_s == 20e-6);
    assert_true(extra[0] == 0xe || extra[0] == 0);
    assert_true(extra[1] == 0 && extra[2] == 0 && extra[3] == 0);
    bool accepted = extra[0] != 0;
    fixture_close(f);
    return accepted;
}

static void calibration_pays_or_is_refused(void **unused)
{
    (void)unused;
    const char *plain = "{overlap_degree: 1, slots: 1}";
    const char *dropped = "{overlap_degree: 1, slots: 1, rematerialize: true}";
    assert_true(calibrates(100000, 100, false, plain));
    assert_true(calibrates(12, 100, false, plain));  /* 883 us saved, 800 us spent */
    assert_false(calibrates(10, 100, false, plain)); /* 736 us saved */
    /* Attention backward of 10 tokens hides 0.168 ms of the spRS, the rest adds to the 800 us. */
    assert_false(calibrates(12, 10, false, plain));
    assert_true(calibrates(30, 10, false, plain));
    /* 60 tokens hide 1.008 ms: 0.8 of spRS fit; 1.2 under interference, or 1.6 with a second spAG,
     * do not. */
    assert_true(calibrates(12, 60, false, plain));
    assert_false(calibrates(12, 60, true, plain));
    assert_false(calibrates(12, 60, false, dropped));
}

static void calibration_can_be_switched_off(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    assert_non_null(
        fixture_create(f, &moe_policy_fssdp, "{overlap_degree: 1, slots: 1, calibrate: false}"));
    fixture_before(f, 0);
    *fixture_count(f, 3, 0) = 100000;
    moe_gate gate = fixture_gate(f, 0, 0);
    double planning_s;
    const uint64_t *extra = fixture_calibrate(f, &gate, &planning_s);
    assert_true(planning_s == 0 && extra[0] == 0);
    fixture_close(f);
}

/* Expert 1 was expected and holds the one slot of devices 0, 2 and 3; expert 0 is hot now. Device
 * 1, at home with expert 1, has its slot left. */
static void calibration_takes_the_slots_that_are_left(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    assert_non_null(fixture_create(f, &moe_policy_fssdp, "{overlap_degree: 1, slots: 1}"));
    fixture_push(f, (const double[]){0, 50, 0, 0});
    fixture_before(f, 1);
    for (int s = 0; s < 4; s++)
        *fixture_count(f, s, 0) = 100000;
    moe_gate gate = fixture_gate(f, 1, 0);
    double planning_s;
    const uint64_t *extra = fixture_calibrate(f, &gate, &planning_s);
    assert_int_equal(extra[0], 0x2);
    fixture_close(f);
}

/* Expert 1 was expected and is everywhere, in the iteration before nothing was. Its spRS fills 0.8
 * of the 1.009 ms that attention of 60 tokens hides: what paid without it no longer does. */
static void calibration_knows_what_travels_already(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 4);
    f->problem.options.tokens = 60;
    assert_non_null(fixture_create(f, &moe_policy_fssdp, "{overlap_degree: 1, slots: 2}"));
    for (int s = 0; s < 4; s++)
        *fixture_count(f, s, 0) = 12;
    for (int64_t iteration = 0; iteration < 2; iteration++) {
        fixture_before(f, iteration);
        moe_gate gate = fixture_gate(f, iteration, 0);
        double planning_s;
        const uint64_t *extra = fixture_calibrate(f, &gate, &planning_s);
        assert_int_equal(extra[0], iteration == 0 ? 0xe : 0);
        fixture_push(f, (const double[]){0, 50, 0, 0});
    }
    fixture_close(f);
}

/* Two hot experts, t = 1: a calibration of degree 2 copies both. */
static void calibration_may_reach_further(void **unused)
{
    (void)unused;
    const char *texts[] = {"{overlap_degree: 1, slots: 2}",
                           "{overlap_degree: 1, slots: 2, calibrate_degree: 2}"};
    for (int i = 0; i < 2; i++) {
        fixture *f = fixture_open(2, 2, 4, 1, 4);
        assert_non_null(fixture_create(f, &moe_policy_fssdp, texts[i]));
        fixture_before(f, 0);
        for (int s = 0; s < 4; s++) {
            *fixture_count(f, s, 0) = 100000;
            *fixture_count(f, s, 3) = 60000;
        }
        moe_gate gate = fixture_gate(f, 0, 0);
        double planning_s;
        const uint64_t *extra = fixture_calibrate(f, &gate, &planning_s);
        assert_int_equal(extra[0], 0xe);
        assert_int_equal(extra[3], i == 0 ? 0 : 0x7);
        fixture_close(f);
    }
}

/* --- re-sharding ---------------------------------------------------------------------------- */

static const double uneven[8] = {500, 40, 30, 20, 10, 9, 8, 7};

static int owner_moves(const moe_placement *before, const moe_placement *after)
{
    int count = 0;
    int all = before->layers * before->groups * before->experts;
    for (int i = 0; i < all; i++)
        count += before->owner[i] != after->owner[i];
    return count;
}

static void homes_move_when_the_plan_changes(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 2, 2, 8);
    assert_non_null(fixture_create(
        f, &moe_policy_fssdp,
        "{reshard_interval: 3, reshard_planning: 2 ms, overlap_degree: 1, slots: 1}"));
    moe_placement *before = moe_placement_create(f, &f->problem.layout, 2, 8);
    moe_placement_copy(before, f->placement);
    moe_decision none = fixture_before(f, 0);
    assert_true(none.move_count == 0 && none.planning_s == 0);
    fixture_push(f, uneven);
    none = fixture_before(f, 2);
    assert_int_equal(owner_moves(before, f->placement), 0);
    assert_true(none.planning_s == 0);

    moe_decision planned = fixture_before(f, 3);
    assert_true(planned.planning_s == 2e-3);
    assert_true(planned.move_count > 0);
    assert_int_equal(planned.move_count, owner_moves(before, f->placement));
    assert_null(moe_placement_check(f->placement, &f->problem.layout, 8));
    for (size_t i = 0; i < planned.move_count; i++) {
        const moe_transfer *move = &planned.moves[i];
        assert_true(move->source != move->target && move->bytes == 4e6 * (2 + 12));
        assert_int_equal(move->source / 2, move->target / 2); /* within their group */
    }
    for (int i = 0; i < 16; i++) /* the second group mirrors the first */
        assert_int_equal(f->placement->owner[i % 8 + i / 8 * 16] + 2,
                         f->placement->owner[i % 8 + i / 8 * 16 + 8]);

    moe_decision same = fixture_before(f, 6);
    assert_true(same.move_count == 0 && same.planning_s == 2e-3);
    fixture_close(f);
}

/* The groups' loads added up make their common plan. */
static void groups_share_a_plan(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 2, 1, 4);
    const double loads[2][4] = {{90, 1, 2, 3}, {5, 10, 40, 20}};
    const double sum[4] = {95, 11, 42, 23};
    moe_fssdp_sharding sharding = {.cluster = f->problem.cluster,
                                   .devices = 2,
                                   .layers = 1,
                                   .experts = 4,
                                   .overlap = 1,
                                   .loads = sum};
    int expected[4] = {0, 0, 1, 1};
    assert_true(moe_fssdp_shard(f->arena, &sharding, expected));
    assert_non_null(
        fixture_create(f, &moe_policy_fssdp, "{overlap_degree: 1, slots: 1, reshard_interval: 1}"));
    moe_history_push(f->history, &loads[0][0]);
    fixture_before(f, 1);
    for (int e = 0; e < 4; e++) {
        assert_int_equal(*moe_placement_owner(f->placement, 0, 0, e), expected[e]);
        assert_int_equal(*moe_placement_owner(f->placement, 0, 1, e), expected[e] + 2);
    }
    fixture_close(f);
}

static void homes_may_stay_for_good(void **unused)
{
    (void)unused;
    const char *texts[] = {"{heterogeneous_sharding: false, reshard_interval: 3, slots: 1}",
                           "{reshard_interval: 0, slots: 1}"};
    for (int i = 0; i < 2; i++) {
        fixture *f = fixture_open(2, 2, 2, 2, 8);
        assert_non_null(fixture_create(f, &moe_policy_fssdp, texts[i]));
        moe_placement *before = moe_placement_create(f, &f->problem.layout, 2, 8);
        moe_placement_copy(before, f->placement);
        fixture_push(f, uneven);
        moe_decision decision = fixture_before(f, 3);
        assert_true(decision.planning_s == 0 && decision.move_count == 0);
        assert_int_equal(owner_moves(before, f->placement), 0);
        fixture_close(f);
    }
}

static void homes_may_be_planned_before_the_run(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 2, 8);
    assert_non_null(fixture_create(f, &moe_policy_fssdp,
                                   "{reshard_initial: planned, overlap_degree: 1, slots: 1}"));
    moe_placement *before = moe_placement_create(f, &f->problem.layout, 2, 8);
    moe_placement_copy(before, f->placement);
    fixture_push(f, uneven);
    moe_decision decision = fixture_before(f, 0);
    assert_true(decision.planning_s == 0 && decision.move_count == 0);
    assert_true(owner_moves(before, f->placement) > 0);
    fixture_close(f);
}

/* --- laws ----------------------------------------------------------------------------------- */

typedef struct world {
    int hosts, per_host, ep, layers, experts;
} world;

static const world worlds[] = {{2, 2, 4, 3, 8},  {4, 2, 8, 2, 16}, {4, 2, 4, 2, 16},
                               {3, 4, 6, 3, 12}, {2, 8, 4, 2, 4},  {9, 8, 72, 2, 72},
                               {1, 4, 4, 2, 8},  {2, 6, 6, 2, 9}};
enum { WORLDS = sizeof worlds / sizeof *worlds };

static fixture *open_world(const world *w)
{
    return fixture_open(w->hosts, w->per_host, w->ep, w->layers, w->experts);
}

static size_t route_pairs(const moe_route *route)
{
    return (size_t)(route->devices * route->devices) * sizeof(double);
}

static size_t route_rows(const moe_route *route)
{
    return (size_t)(route->devices * route->experts) * sizeof(double);
}

/* One iteration of one layer of both, on the same counts. */
static void check_equal_iteration(fixture *ep, fixture *sharded, int64_t iteration)
{
    moe_decision plain = fixture_before(ep, iteration);
    moe_decision decision = fixture_before(sharded, iteration);
    assert_int_equal(plain.move_count, decision.move_count);
    assert_true(plain.planning_s == decision.planning_s);
    assert_true(moe_placement_equal(ep->placement, sharded->placement));
    for (int l = 0; l < ep->placement->layers; l++) {
        moe_gate gate = fixture_gate(sharded, iteration, l);
        double planning_s;
        const uint64_t *extra = fixture_calibrate(sharded, &gate, &planning_s);
        const uint64_t *copies = moe_placement_copies(sharded->placement, l, 0);
        assert_true(planning_s == 0);
        for (int i = 0; i < sharded->placement->experts * sharded->placement->words; i++)
            assert_true(extra[i] == 0);
        moe_route of_ep = fixture_dispatch(ep, &gate, copies);
        moe_route of_sharded = fixture_dispatch(sharded, &gate, copies);
        assert_memory_equal(of_ep.pairs, of_sharded.pairs, route_pairs(&of_ep));
        assert_memory_equal(of_ep.rows, of_sharded.rows, route_rows(&of_ep));
        const moe_chunk *chunks;
        assert_int_equal(moe_layer_chunks(sharded->arena, &sharded->problem.layout,
                                          sharded->placement, l, copies, NULL, &chunks),
                         0);
    }
}

/* Law 4, first half. */
static void nothing_materialized_is_ep(void **unused)
{
    (void)unused;
    const char *texts[] = {
        "{materialize: false, heterogeneous_sharding: false, calibrate: false, planning: 0}",
        "{materialize: false, heterogeneous_sharding: false, calibrate: false, dispatch: owner}"};
    for (size_t i = 0; i < 2 * (WORLDS - 1); i++) { /* the last world is not even */
        fixture *ep = open_world(&worlds[i / 2]);
        fixture *sharded = open_world(&worlds[i / 2]);
        assert_non_null(fixture_create(ep, &moe_policy_ep, "{}"));
        assert_non_null(fixture_create(sharded, &moe_policy_fssdp, texts[i % 2]));
        assert_int_equal(ep->schedule.gathers_loads, sharded->schedule.gathers_loads);
        for (int64_t iteration = 98; iteration < 103; iteration++) {
            fixture_random_counts(sharded, 11, (uint64_t)iteration);
            check_equal_iteration(ep, sharded, iteration);
            fixture_push_counts(sharded);
        }
        fixture_close(ep);
        fixture_close(sharded);
    }
}

/* Law 4, second half. */
static void everything_materialized_stays_at_home(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < WORLDS; i++) {
        fixture *f = open_world(&worlds[i]);
        char text[80];
        snprintf(text, sizeof text, "{overlap_degree: %d, slots: %d, reshard_interval: 1}",
                 worlds[i].experts, worlds[i].experts);
        assert_non_null(fixture_create(f, &moe_policy_fssdp, text));
        for (int64_t iteration = 0; iteration < 3; iteration++) {
            fixture_random_counts(f, 12, (uint64_t)iteration);
            fixture_before(f, iteration);
            moe_gate gate = fixture_gate(f, iteration, 1);
            moe_route route = fixture_dispatch(f, &gate, moe_placement_copies(f->placement, 1, 0));
            double kept = 0;
            for (int s = 0; s < route.devices; s++) {
                for (int d = 0; d < route.devices; d++) {
                    assert_true(s == d || route.pairs[s * route.devices + d] == 0);
                    kept += route.pairs[s * route.devices + d];
                }
            }
            assert_true(kept > 0);
            fixture_push_counts(f);
        }
        fixture_close(f);
    }
}

static int held_beyond_owned(const fixture *f, int layer, int device, const uint64_t *extra)
{
    int held = 0;
    int group = moe_layout_group(&f->problem.layout, device);
    for (int e = 0; e < f->placement->experts; e++) {
        held += moe_set_has(moe_placement_copies(f->placement, layer, e), device);
        held += moe_set_has(extra + e * f->placement->words, device);
        held -= *moe_placement_owner(f->placement, layer, group, e) == device;
    }
    return held;
}

/* A host that has an expert twice does not get it while another, with room, lacks it. */
static void check_spread(const fixture *f, int layer, int slots)
{
    const uint64_t none[128 * 2] = {0};
    const moe_layout *layout = &f->problem.layout;
    int per_host = f->problem.cluster->devices_per_host;
    if (layout->ep % per_host != 0 || layout->groups != 1)
        return; /* hosts of one group only are simple to name */
    for (int e = 0; e < f->placement->experts; e++) {
        const uint64_t *set = moe_placement_copies(f->placement, layer, e);
        bool twice = false;
        bool room_elsewhere = false;
        for (int h = 0; h < f->problem.cluster->hosts; h++) {
            int held = moe_set_count_between(set, h * per_host, (h + 1) * per_host);
            twice |= held > 1;
            for (int d = h * per_host; held == 0 && d < (h + 1) * per_host; d++)
                room_elsewhere |= held_beyond_owned(f, layer, d, none) < slots;
        }
        assert_false(twice && room_elsewhere);
    }
}

static void check_layer(fixture *f, int64_t iteration, int layer, int slots, double *accepted)
{
    moe_gate gate = fixture_gate(f, iteration, layer);
    double planning_s;
    uint64_t *extra = fixture_calibrate(f, &gate, &planning_s);
    for (int d = 0; d < f->problem.layout.devices; d++)
        assert_true(held_beyond_owned(f, layer, d, extra) <= slots);
    uint64_t *copies = moe_placement_copies(f->placement, layer, 0);
    for (int i = 0; i < f->placement->experts * f->placement->words; i++) {
        assert_true((extra[i] & copies[i]) == 0);
        *accepted += extra[i] != 0;
        extra[i] |= copies[i];
    }
    moe_route route = fixture_dispatch(f, &gate, extra);
    double routed = 0;
    double counted = 0;
    for (int i = 0; i < route.devices * route.experts; i++) {
        routed += route.rows[i];
        counted += f->counts[i];
    }
    assert_true(routed == counted);
}

/* Law 9 and the limits of slots, over random runs with re-plans and calibration. */
static void random_runs_keep_every_limit(void **unused)
{
    (void)unused;
    double accepted = 0;
    double copied = 0;
    double moved = 0;
    for (size_t i = 0; i < 3 * WORLDS; i++) {
        const world *w = &worlds[i / 3];
        fixture *f = open_world(w);
        int slots = 1 + (int)i % 3;
        char text[120];
        snprintf(text, sizeof text,
                 "{overlap_degree: %d, slots: %d, reshard_interval: 4, window: 3, top_set: %s}",
                 2 + (int)i % 2, slots, i % 2 ? "both" : "first");
        assert_non_null(fixture_create(f, &moe_policy_fssdp, text));
        for (int64_t iteration = 0; iteration < 9; iteration++) {
            fixture_random_counts(f, 13, (uint64_t)(iteration / 2 + 100 * (int)i));
            moved += (double)fixture_before(f, iteration).move_count;
            copied += copies_beyond_owners(f);
            assert_null(moe_placement_check(f->placement, &f->problem.layout,
                                            w->layers * w->experts / w->ep));
            for (int l = 0; l < w->layers; l++) {
                check_spread(f, l, slots);
                check_layer(f, iteration, l, slots, &accepted);
            }
            fixture_push_counts(f);
        }
        fixture_close(f);
    }
    assert_true(accepted > 0 && copied > 0 && moved > 0); /* the runs did exercise them */
}

/* Law 10: a worker that starts in the middle and never saw a gate decides the same. */
static void replaying_gives_the_same_decisions(void **unused)
{
    (void)unused;
    const char *text = "{overlap_degree: 2, slots: 2, reshard_interval: 5}";
    fixture *f = fixture_open(2, 2, 4, 2, 8);
    fixture *replayed = fixture_open(2, 2, 4, 2, 8);
    assert_non_null(fixture_create(f, &moe_policy_fssdp, text));
    assert_non_null(fixture_create(replayed, &moe_policy_fssdp, text));
    for (int64_t iteration = 0; iteration < 17; iteration++) {
        fixture_random_counts(f, 14, (uint64_t)iteration);
        fixture_random_counts(replayed, 14, (uint64_t)iteration);
        moe_decision first = fixture_before(f, iteration);
        moe_decision second = fixture_before(replayed, iteration);
        assert_true(moe_placement_equal(f->placement, replayed->placement));
        assert_int_equal(first.move_count, second.move_count);
        for (size_t m = 0; m < first.move_count; m++)
            assert_memory_equal(&first.moves[m], &second.moves[m], sizeof *first.moves);
        double planning_s;
        moe_gate gate = fixture_gate(f, iteration, 0);
        fixture_calibrate(f, &gate, &planning_s);
        fixture_push_counts(f);
        fixture_push_counts(replayed);
    }
    moe_gate gate = fixture_gate(f, 16, 1);
    double planning_s;
    const uint64_t *once = fixture_calibrate(f, &gate, &planning_s);
    const uint64_t *twice = fixture_calibrate(replayed, &gate, &planning_s);
    assert_memory_equal(once, twice, 8 * sizeof *once);
    fixture_close(f);
    fixture_close(replayed);
}

static double fullest(const moe_route *route)
{
    double most = 0;
    for (int d = 0; d < route->devices; d++) {
        double rows = 0;
        for (int e = 0; e < route->experts; e++)
            rows += route->rows[d * route->experts + e];
        most = fmax(most, rows);
    }
    return most;
}

/* Law 5: uniform counts leave no device fewer rows than EP's fullest; what is saved is what stays
 * local. */
static void uniform_routing_gains_nothing_but_locality(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 4, 1, 8);
    assert_non_null(
        fixture_create(f, &moe_policy_fssdp, "{overlap_degree: 3, slots: 3, calibrate: false}"));
    for (int s = 0; s < 4; s++) {
        for (int e = 0; e < 8; e++)
            *fixture_count(f, s, e) = 50;
    }
    fixture_push_counts(f);
    fixture_before(f, 1);
    assert_int_equal(everywhere(f), 3);
    moe_gate gate = fixture_gate(f, 1, 0);
    moe_route route = fixture_dispatch(f, &gate, moe_placement_copies(f->placement, 0, 0));
    assert_true(fullest(&route) >= 2 * 4 * 50);
    double local = 0;
    for (int d = 0; d < 4; d++)
        local += route.pairs[d * 5];
    assert_true(local == 4 * 3 * 50 + 5 * 50); /* three experts everywhere, five at home */
    fixture_close(f);
}

/* Groups predict for themselves: the first is hot on expert 0, the second on expert 3. */
static void groups_copy_what_is_hot_for_them(void **unused)
{
    (void)unused;
    fixture *f = fixture_open(2, 2, 2, 1, 4);
    assert_non_null(fixture_create(f, &moe_policy_fssdp, "{overlap_degree: 1, slots: 1}"));
    moe_history_push(f->history, (const double[]){90, 1, 1, 1, 1, 1, 1, 90});
    fixture_before(f, 1);
    const uint64_t *copies = moe_placement_copies(f->placement, 0, 0);
    assert_memory_equal(copies, ((const uint64_t[]){0x7, 0x5, 0xa, 0xe}), 4 * sizeof *copies);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_follow_load),
        cmocka_unit_test(ranking_is_total),
        cmocka_unit_test(enough_slots_take_the_top_everywhere),
        cmocka_unit_test(scarce_slots_go_by_load),
        cmocka_unit_test(scarce_slots_may_go_beyond_the_top),
        cmocka_unit_test(nobody_gets_more_slots_than_devices),
        cmocka_unit_test(copies_already_there_count),
        cmocka_unit_test(no_more_slots_than_the_overlap_degree),
        cmocka_unit_test(cold_experts_choose_first),
        cmocka_unit_test(hot_experts_may_fill_the_freest),
        cmocka_unit_test(loads_may_add_up_over_layers),
        cmocka_unit_test(the_same_loads_change_nothing),
        cmocka_unit_test(tunables_become_the_schedule),
        cmocka_unit_test(shards_must_come_out_even),
        cmocka_unit_test(overlap_degree_is_what_attention_hides),
        cmocka_unit_test(slots_are_what_memory_leaves),
        cmocka_unit_test(peaks_are_of_one_micro_batch),
        cmocka_unit_test(slots_may_include_the_shard),
        cmocka_unit_test(the_last_iterations_predict),
        cmocka_unit_test(planning_is_charged_when_exposed),
        cmocka_unit_test(calibration_pays_or_is_refused),
        cmocka_unit_test(calibration_can_be_switched_off),
        cmocka_unit_test(calibration_takes_the_slots_that_are_left),
        cmocka_unit_test(calibration_knows_what_travels_already),
        cmocka_unit_test(calibration_may_reach_further),
        cmocka_unit_test(homes_move_when_the_plan_changes),
        cmocka_unit_test(groups_share_a_plan),
        cmocka_unit_test(homes_may_stay_for_good),
        cmocka_unit_test(homes_may_be_planned_before_the_run),
        cmocka_unit_test(nothing_materialized_is_ep),
        cmocka_unit_test(everything_materialized_stays_at_home),
        cmocka_unit_test(random_runs_keep_every_limit),
        cmocka_unit_test(replaying_gives_the_same_decisions),
        cmocka_unit_test(uniform_routing_gains_nothing_but_locality),
        cmocka_unit_test(groups_copy_what_is_hot_for_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
