/* The step builder: whole programs by hand on two devices, what must precede what, and laws over
 * every combination of options with random routing. */
#include "tests/step_fixture.h"

#include "sim/engine.h"

static const char dispatch_name[] = "dispatch";

/* --- looking at programs ---------------------------------------------------------------------- */

static bool is_named(const moe_op *op, const char *name)
{
    return strcmp(op->name, name) == 0;
}

/* The operation of that name, layer and micro-batch; -1: none. Fails where there are two. */
static int find(const moe_program *program, const char *name, int layer, int micro_batch)
{
    int found = -1;
    for (int id = 0; id < program->op_count; id++) {
        const moe_op *op = &program->ops[id];
        if (is_named(op, name) && op->layer == layer && op->micro_batch == micro_batch) {
            assert_int_equal(found, -1);
            found = id;
        }
    }
    return found;
}

static int need(const moe_program *program, const char *name, int layer, int micro_batch)
{
    int found = find(program, name, layer, micro_batch);
    if (found < 0) {
        fail_msg("no \"%s\" of layer %d, micro-batch %d", name, layer, micro_batch);
    }
    return found;
}

static int count_named(const moe_program *program, const char *name)
{
    int count = 0;
    for (int id = 0; id < program->op_count; id++) {
        count += is_named(&program->ops[id], name);
    }
    return count;
}

static int before_on_stream(const moe_program *program, int id)
{
    int before = id - 1;
    while (before >= 0 && program->ops[before].stream != program->ops[id].stream) {
        before--;
    }
    return before;
}

/* Whether `later` starts only when `earlier` has ended, by waits and streams. */
static bool follows(const moe_program *program, int later, int earlier)
{
    if (later <= earlier) {
        return later == earlier;
    }
    const moe_op *op = &program->ops[later];
    for (int w = 0; w < op->wait_count; w++) {
        if (follows(program, program->waits[op->first_wait + w], earlier)) {
            return true;
        }
    }
    return follows(program, before_on_stream(program, later), earlier);
}

static bool waits_directly(const moe_program *program, int later, int earlier)
{
    const moe_op *op = &program->ops[later];
    for (int w = 0; w < op->wait_count; w++) {
        if (program->waits[op->first_wait + w] == earlier) {
            return true;
        }
    }
    return false;
}

static double bytes_of(const moe_op *op)
{
    return op->traffic->intra_host_bytes + op->traffic->inter_host_bytes;
}

/* Duration on a device, or how long the collective takes alone. */
static double seconds_of(const moe_program *program, int id, int device)
{
    const moe_op *op = &program->ops[id];
    return op->duration_s != NULL ? op->duration_s[device]
                                  : moe_traffic_alone_s(op->traffic, program->cluster);
}

static void assert_names(const moe_program *program, const char *const *names)
{
    int id = 0;
    for (; names[id] != NULL && id < program->op_count; id++) {
        if (!is_named(&program->ops[id], names[id])) {
            fail_msg("operation %d is \"%s\" instead of \"%s\"", id, program->ops[id].name,
                     names[id]);
        }
    }
    assert_null(names[id]);
    assert_int_equal(id, program->op_count);
}

static moe_timeline *execute(step_fixture *f, const moe_program *program)
{
    moe_diag *diag = moe_diag_create(f, NULL);
    moe_timeline *timeline = moe_timeline_create(f, program->devices);
    void *engine = moe_engine_analytic.open(f, f->cluster, MOE_SHARE_PER_COLLECTIVE, diag);
    assert_int_equal(moe_engine_analytic.execute(engine, program, timeline, diag), MOE_OK);
    moe_engine_analytic.close(engine);
    return timeline;
}

static void assert_sound(const moe_program *program)
{
    const char *wrong = moe_program_check(program);
    if (wrong != NULL) {
        fail_msg("%s", wrong);
    }
}

/* --- two devices, two layers, by hand --------------------------------------------------------- */

/* Layer 0: 30 of device 0's tokens and 50 of device 1's go to the other; layer 1: 10 and 40. */
static const double pairs_by_hand[2][4] = {{70, 30, 50, 50}, {90, 10, 40, 60}};
static const double rows_by_hand[2][8] = {{100, 20, 0, 0, 0, 0, 45, 35},
                                          {0, 130, 0, 0, 0, 0, 70, 0}};

/* Experts 0 and 1 live on device 0, experts 2 and 3 on device 1. */
static step_fixture *by_hand(void)
{
    step_fixture *f = step_fixture_open(1, 2, 2, 2, 4);
    f->profile.launch_s = 1e-6;
    f->profile.host_sync_s = 20e-6;
    f->routed = moe_arena_array(f->arena, moe_routed_layer, 2);
    for (int layer = 0; layer < 2; layer++) {
        f->routed[layer].pairs = pairs_by_hand[layer];
        f->routed[layer].rows = rows_by_hand[layer];
    }
    f->step.routed = f->routed;
    return f;
}

/* Expert 0 of both layers also on device 1. */
static void materialize_by_hand(step_fixture *f)
{
    for (int layer = 0; layer < 2; layer++) {
        moe_set_add(moe_placement_copies(f->placement, layer, 0), 1);
        f->routed[layer].materialized_count = moe_layer_chunks(
            f->arena, &f->layout, f->placement, layer, moe_placement_copies(f->placement, layer, 0),
            NULL, &f->routed[layer].materialized);
        assert_int_equal(f->routed[layer].materialized_count, 1);
    }
}

static const char *const ep_by_hand[] = {"launch",
                                         "attention forward",
                                         "gather loads",
                                         "plan",
                                         "launch",
                                         "permute",
                                         "dispatch",
                                         "launch",
                                         "experts forward",
                                         "launch",
                                         "combine",
                                         "unpermute",
                                         "attention forward",
                                         "gather loads",
                                         "plan",
                                         "launch",
                                         "permute",
                                         "dispatch",
                                         "launch",
                                         "experts forward",
                                         "launch",
                                         "combine",
                                         "unpermute",
                                         "launch",
                                         "unpermute backward",
                                         "combine backward",
                                         "experts backward",
                                         "dispatch backward",
                                         "permute backward",
                                         "attention backward",
                                         "dense gradients",
                                         "launch",
                                         "unpermute backward",
                                         "combine backward",
                                         "experts backward",
                                         "dispatch backward",
                                         "permute backward",
                                         "attention backward",
                                         "dense gradients",
                                         "launch",
                                         "optimizer",
                                         NULL};

static void test_ep_by_hand(void **state)
{
    (void)state;
    step_fixture *f = by_hand();
    const moe_program *program = step_fixture_build(f);
    assert_sound(program);
    assert_names(program, ep_by_hand);
    step_fixture_close(f);
}

/* 8 d^2 + 4 s d + 2 d E FLOPs a token and 8 MFLOP a row at 0.5 TFLOP/s; 2 kB a token at 100 GB/s,
 * or, read and written, at 0.5 TB/s. */
static const double attention_s = 100 * (8e6 + 4e5 + 8e3) / 0.5e12;
static const double row_s = 16e-6;
static const double permute_s = 100 * 2 * 2e3 / 0.5e12;
static const double loads_s = 16 / 100e9; /* half of 2 ranks * 4 experts * 4 bytes */
static const double gradient_s = (4e6 + 4e3) * 2 / 100e9; /* ring of two: 2 * 1/2 of the bytes */
static const double optimizer_s = (2 * 4.004e6 + 16e6) * 28 / 0.5e12;

static void test_costs_by_hand(void **state)
{
    (void)state;
    step_fixture *f = by_hand();
    const moe_program *program = step_fixture_build(f);
    static const double dispatch_s[2] = {50 * 2e3 / 100e9, 40 * 2e3 / 100e9};
    static const double rows[2][2] = {{120, 80}, {130, 70}};
    for (int layer = 0; layer < 2; layer++) {
        for (int d = 0; d < 2; d++) {
            double experts_s = rows[layer][d] * row_s;
            assert_near(seconds_of(program, need(program, "attention forward", layer, 0), d),
                        attention_s);
            assert_near(seconds_of(program, need(program, "attention backward", layer, 0), d),
                        2 * attention_s);
            assert_near(seconds_of(program, need(program, "experts forward", layer, 0), d),
                        experts_s);
            assert_near(seconds_of(program, need(program, "experts backward", layer, 0), d),
                        2 * experts_s);
            assert_near(seconds_of(program, need(program, "permute", layer, 0), d), permute_s);
        }
        assert_near(seconds_of(program, need(program, dispatch_name, layer, 0), 0),
                    dispatch_s[layer]);
        assert_near(seconds_of(program, need(program, "gather loads", layer, 0), 0), loads_s);
        assert_near(seconds_of(program, need(program, "plan", layer, 0), 1), 20e-6);
        assert_near(seconds_of(program, need(program, "dense gradients", layer, 0), 0), gradient_s);
    }
    assert_near(seconds_of(program, need(program, "optimizer", -1, -1), 0), optimizer_s);
    step_fixture_close(f);
}

/* Device 0 is the slower in both layers, so both meet it at every combine and dispatch backward.
 * After a synchronisation three launches come before permute, three more, meanwhile, before the
 * experts. */
static void test_time_by_hand(void **state)
{
    (void)state;
    step_fixture *f = by_hand();
    f->options.interference = false;
    double start_s = 11e-6; /* launches of attention and of the gathering */
    double host_s =
        20e-6 + 6e-6; /* waiting and launches; permute and dispatch fit into the last three */
    double forward_s = 2 * (attention_s + loads_s + host_s + permute_s) + 250 * row_s + 1.8e-6;
    double backward_s = 2 * (2 * attention_s + 2 * permute_s) + 2 * (250 * row_s + 1.8e-6);
    moe_timeline *timeline = execute(f, step_fixture_build(f));
    assert_near(timeline->step_s, start_s + forward_s + backward_s + gradient_s + optimizer_s);
    step_fixture_close(f);
}

/* Layer 1's gradients travel beside layer 0's backward pass, 1.5 times as long, and take a quarter
 * of the SMs, but for the microsecond of "combine backward"; layer 0's have nothing to run beside.
 */
static void test_interference_by_hand(void **state)
{
    (void)state;
    step_fixture *f = by_hand();
    f->options.interference = false;
    double alone_s = execute(f, step_fixture_build(f))->step_s;
    f->options.interference = true;
    const moe_program *program = step_fixture_build(f);
    assert_true(program->ops[need(program, "dense gradients", 1, 0)].sm_share == 0.25);
    assert_true(program->ops[need(program, "dense gradients", 1, 0)].slowdown == 1.5);
    assert_true(program->ops[need(program, "dense gradients", 0, 0)].sm_share == 0);
    assert_true(program->ops[need(program, "dense gradients", 0, 0)].slowdown == 1);
    double beside_s = 1.5 * gradient_s - 50 * 2e3 / 100e9;
    assert_near(execute(f, program)->step_s, alone_s + 0.25 * beside_s);
    step_fixture_close(f);
}

static const char *const attention_by_hand[] = {"launch",
                                                "materialize",
                                                "attention forward",
                                                "gather loads",
                                                "plan",
                                                "launch",
                                                "permute",
                                                "dispatch",
                                                "launch",
                                                "experts forward",
                                                "launch",
                                                "combine",
                                                "unpermute",
                                                "materialize",
                                                "attention forward",
                                                "gather loads",
                                                "plan",
                                                "launch",
                                                "permute",
                                                "dispatch",
                                                "launch",
                                                "experts forward",
                                                "launch",
                                                "combine",
                                                "unpermute",
                                                "launch",
                                                "unpermute backward",
                                                "combine backward",
                                                "experts backward",
                                                "dispatch backward",
                                                "reduce",
                                                "re-materialize",
                                                "permute backward",
                                                "attention backward",
                                                "dense gradients",
                                                "launch",
                                                "unpermute backward",
                                                "combine backward",
                                                "experts backward",
                                                "dispatch backward",
                                                "reduce",
                                                "permute backward",
                                                "attention backward",
                                                "dense gradients",
                                                "launch",
                                                "optimizer",
                                                NULL};

static const char *const layer_by_hand[] = {"launch",
                                            "materialize",
                                            "materialize",
                                            "attention forward",
                                            "gather loads",
                                            "plan",
                                            "launch",
                                            "permute",
                                            "dispatch",
                                            "launch",
                                            "experts forward",
                                            "launch",
                                            "combine",
                                            "unpermute",
                                            "attention forward",
                                            "gather loads",
                                            "plan",
                                            "launch",
                                            "permute",
                                            "dispatch",
                                            "launch",
                                            "experts forward",
                                            "launch",
                                            "combine",
                                            "unpermute",
                                            "launch",
                                            "re-materialize",
                                            "unpermute backward",
                                            "combine backward",
                                            "experts backward",
                                            "reduce",
                                            "dispatch backward",
                                            "permute backward",
                                            "attention backward",
                                            "dense gradients",
                                            "launch",
                                            "unpermute backward",
                                            "combine backward",
                                            "experts backward",
                                            "reduce",
                                            "dispatch backward",
                                            "permute backward",
                                            "attention backward",
                                            "dense gradients",
                                            "launch",
                                            "optimizer",
                                            NULL};

static void test_fssdp_by_hand(void **state)
{
    (void)state;
    step_fixture *f = by_hand();
    materialize_by_hand(f);
    f->schedule.rematerialize = true;
    const moe_program *program = step_fixture_build(f);
    assert_sound(program);
    assert_names(program, attention_by_hand);
    f->schedule.hide_under = MOE_HIDE_LAYER;
    program = step_fixture_build(f);
    assert_sound(program);
    assert_names(program, layer_by_hand);
    /* launches: 10 kernels of attention, the gathering of loads, and both materializations */
    assert_near(program->ops[0].duration_s[1], 13e-6);
    step_fixture_close(f);
}

/* --- what precedes what ----------------------------------------------------------------------- */

/* Four devices on two hosts, four layers, copies in every layer. */
static step_fixture *replicated(gsl_rng *random, int micro_batches)
{
    step_fixture *f = step_fixture_open(2, 2, 4, 4, 8);
    f->options.micro_batches = micro_batches;
    step_fixture_replicate(f, random, 0.3);
    step_fixture_route(f, random);
    return f;
}

static void test_hidden_under_attention(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "attention", 0);
    step_fixture *f = replicated(random, 2);
    f->schedule.rematerialize = true;
    const moe_program *p = step_fixture_build(f);
    for (int m = 0; m < 2; m++) {
        for (int l = 0; l < 4; l++) {
            int materialize = need(p, "materialize", l, m);
            int reduce = need(p, "reduce", l, m);
            assert_true(waits_directly(p, need(p, dispatch_name, l, m), materialize));
            assert_true(waits_directly(p, reduce, need(p, "dispatch backward", l, m)));
            if (l > 0) {
                int again = need(p, "re-materialize", l - 1, m);
                assert_true(waits_directly(p, materialize, need(p, "unpermute", l - 1, m)));
                assert_true(waits_directly(p, again, need(p, "dispatch backward", l, m)));
                assert_true(waits_directly(p, need(p, "combine backward", l - 1, m), again));
                assert_true(waits_directly(p, need(p, "combine backward", l - 1, m), reduce));
            }
        }
    }
    assert_true(waits_directly(p, need(p, dispatch_name, 0, 1), need(p, "reduce", 0, 0)));
    assert_true(waits_directly(p, need(p, "optimizer", -1, -1), need(p, "reduce", 0, 1)));
    step_fixture_close(f);
    gsl_rng_free(random);
}

static void test_hidden_under_layer(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "layer", 0);
    step_fixture *f = replicated(random, 1);
    f->schedule.rematerialize = true;
    f->schedule.hide_under = MOE_HIDE_LAYER;
    const moe_program *p = step_fixture_build(f);
    for (int l = 0; l < 4; l++) {
        int materialize = need(p, "materialize", l, 0);
        int reduce = need(p, "reduce", l, 0);
        assert_false(follows(p, need(p, dispatch_name, l, 0), materialize));
        assert_true(waits_directly(p, need(p, "experts forward", l, 0), materialize));
        assert_true(waits_directly(p, reduce, need(p, "experts backward", l, 0)));
        assert_false(follows(p, reduce, need(p, "dispatch backward", l, 0)));
        /* earlier ones are awaited all the same, by what queues behind them */
        assert_true(l > 1 || !follows(p, need(p, "attention backward", 0, 0), reduce));
        assert_true(follows(p, need(p, "optimizer", -1, -1), reduce));
        if (l >= 2) {
            assert_true(follows(p, materialize, need(p, "unpermute", l - 2, 0)));
            assert_false(follows(p, materialize, need(p, "attention forward", l - 1, 0)));
        }
        if (l < 3) {
            int again = need(p, "re-materialize", l, 0);
            assert_true(waits_directly(p, need(p, "experts backward", l, 0), again));
            assert_false(follows(p, again, need(p, "combine backward", l + 1, 0)));
        }
    }
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* Full recomputation needs the parameters earlier than the backward pass proper. */
static void test_recomputation(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "recompute", 0);
    step_fixture *f = replicated(random, 1);
    f->schedule.rematerialize = true;
    f->options.recompute = MOE_RECOMPUTE_FULL;
    const moe_program *p = step_fixture_build(f);
    for (int l = 0; l < 4; l++) {
        const moe_op *again = &p->ops[need(p, "dispatch recompute", l, 0)];
        assert_ptr_equal(again->traffic, p->ops[need(p, dispatch_name, l, 0)].traffic);
        if (l < 3) {
            assert_true(waits_directly(p, need(p, "dispatch recompute", l, 0),
                                       need(p, "re-materialize", l, 0)));
        }
    }
    assert_int_equal(count_named(p, "gather loads"), 4); /* the routing is kept */
    assert_int_equal(count_named(p, "plan"), 4);
    f->schedule.hide_under = MOE_HIDE_LAYER;
    p = step_fixture_build(f);
    assert_false(follows(p, need(p, "dispatch recompute", 2, 0), need(p, "re-materialize", 2, 0)));
    assert_true(
        waits_directly(p, need(p, "experts recompute", 2, 0), need(p, "re-materialize", 2, 0)));
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* Exposed: after the gate, before the dispatch, and nothing is taken from what runs beside it. */
static void test_calibration(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "calibrate", 0);
    step_fixture *f = step_fixture_open(2, 2, 4, 2, 8);
    f->calibrated_share = 0.4;
    step_fixture_route(f, random);
    f->routed[1].planning_s = 3e-6;
    f->profile.host_sync_s = 7e-6;
    const moe_program *p = step_fixture_build(f);
    int calibrate = need(p, "calibrate", 1, 0);
    assert_true(p->ops[calibrate].slowdown == 1 && p->ops[calibrate].sm_share == 0);
    assert_true(follows(p, calibrate, need(p, "plan", 1, 0)));
    assert_true(waits_directly(p, need(p, dispatch_name, 1, 0), calibrate));
    assert_near(p->ops[need(p, "plan", 1, 0)].duration_s[3], 10e-6);
    assert_near(p->ops[need(p, "plan", 0, 0)].duration_s[3], 7e-6);
    assert_non_null(p->ops[need(p, "reduce", 1, 0)].traffic);
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* Moves come first, after their planning, and everything but launches follows them. */
static void test_rearrangement(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "moves", 0);
    step_fixture *f = replicated(random, 1);
    static const moe_transfer moves[] = {{0, 3, 56e6}, {3, 0, 56e6}};
    f->step.moves = moves;
    f->step.move_count = 2;
    f->step.planning_s = 4e-3;
    const moe_program *p = step_fixture_build(f);
    assert_true(is_named(&p->ops[0], "plan") && is_named(&p->ops[1], "rearrange"));
    assert_near(p->ops[0].duration_s[2], 4e-3);
    assert_true(p->ops[1].part == MOE_REARRANGE && p->ops[1].stream == MOE_STREAM_EXCHANGE);
    assert_true(waits_directly(p, 1, 0));
    assert_near(bytes_of(&p->ops[1]), 112e6);
    for (int id = 2; id < p->op_count; id++) {
        bool launch = is_named(&p->ops[id], "launch");
        assert_true(launch || follows(p, id, 1));
        assert_true(!launch || follows(p, id, 0));
    }
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* --- nothing materialized --------------------------------------------------------------------- */

static bool same_traffic(const moe_traffic *a, const moe_traffic *b)
{
    if (a == NULL || b == NULL) {
        return a == b;
    }
    size_t ports = (size_t)a->port_count;
    return a->kind == b->kind && a->alpha_s == b->alpha_s && a->port_count == b->port_count &&
           memcmp(a->ports, b->ports, ports * sizeof *a->ports) == 0 &&
           memcmp(a->work, b->work, ports * sizeof *a->work) == 0;
}

static bool same_op(const moe_program *p, const moe_program *q, int id)
{
    const moe_op *a = &p->ops[id];
    const moe_op *b = &q->ops[id];
    size_t devices = (size_t)p->devices;
    return is_named(a, b->name) && a->kind == b->kind && a->part == b->part &&
           a->stream == b->stream && a->layer == b->layer && a->micro_batch == b->micro_batch &&
           a->slowdown == b->slowdown && a->sm_share == b->sm_share &&
           a->wait_count == b->wait_count &&
           memcmp(p->waits + a->first_wait, q->waits + b->first_wait,
                  (size_t)a->wait_count * sizeof *p->waits) == 0 &&
           same_traffic(a->traffic, b->traffic) &&
           (a->duration_s == NULL) == (b->duration_s == NULL) &&
           (a->duration_s == NULL ||
            memcmp(a->duration_s, b->duration_s, devices * sizeof *a->duration_s) == 0);
}

/* Law 4, to the bit: any schedule without copies is EP's program. */
static void test_idle_schedules_are_ep(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "idle", 0);
    step_fixture *f = step_fixture_open(2, 2, 2, 3, 6);
    f->options.micro_batches = 2;
    f->network.vocabulary = 50;
    step_fixture_route(f, random);
    const moe_program *ep = step_fixture_build(f);
    for (int bits = 1; bits < 32; bits++) {
        f->schedule.hide_under = bits & 1 ? MOE_HIDE_LAYER : MOE_HIDE_ATTENTION;
        f->schedule.rematerialize = bits & 2;
        f->schedule.accumulate = bits & 4 ? MOE_REDUCE_HOLD : MOE_REDUCE_EACH;
        f->schedule.gather = bits & 8 ? MOE_GATHER_PER_MICRO_BATCH : MOE_GATHER_PER_STEP;
        f->schedule.algorithm = bits & 16 ? MOE_CHUNK_WORLD : MOE_CHUNK_CHAIN;
        const moe_program *idle = step_fixture_build(f);
        assert_int_equal(idle->op_count, ep->op_count);
        for (int id = 0; id < ep->op_count; id++) {
            assert_true(idle->ops[id].stream != MOE_STREAM_SPARSE);
            assert_true(same_op(idle, ep, id));
        }
    }
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* A single device: nothing crosses, so the step is one stream of computation. */
static void test_one_device(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "one", 0);
    step_fixture *f = step_fixture_open(1, 1, 1, 2, 4);
    f->options.optimizer_sharding = MOE_OPTIMIZER_ZERO1;
    step_fixture_route(f, random);
    const moe_program *p = step_fixture_build(f);
    double sum_s = 11 * f->profile.launch_s;
    for (int id = 0; id < p->op_count; id++) {
        assert_true(p->ops[id].kind != MOE_OP_COLLECTIVE);
        sum_s += p->ops[id].kind == MOE_OP_COMPUTE ? p->ops[id].duration_s[0] : 0;
    }
    assert_sound(p);
    assert_near(execute(f, p)->step_s, sum_s);
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* --- every combination of options ------------------------------------------------------------- */

static double wanted_copies(const moe_chunk *chunks, int count, int words)
{
    double copies = 0;
    for (int c = 0; c < count; c++) {
        copies += moe_set_count(chunks[c].want, words);
    }
    return copies;
}

/* What sparse collectives of a step are expected to be, from options and chunks. */
typedef struct sparse_counts {
    int materialize, calibrate, rematerialize, reduce;
} sparse_counts;

static sparse_counts expected_counts(const step_fixture *f)
{
    sparse_counts counts = {0};
    int micro_batches = f->options.micro_batches;
    bool holds = f->schedule.accumulate == MOE_REDUCE_HOLD && micro_batches > 1;
    bool per_step = f->schedule.gather == MOE_GATHER_PER_STEP && !f->schedule.rematerialize;
    for (int l = 0; l < f->placement->layers; l++) {
        bool any = false;
        for (int m = 0; m < micro_batches; m++) {
            const moe_routed_layer *routed = &f->routed[m * f->placement->layers + l];
            bool here = routed->materialized_count + routed->calibrated_count > 0;
            any = any || here;
            counts.materialize += routed->materialized_count > 0 && (m == 0 || !per_step);
            counts.calibrate += routed->calibrated_count > 0;
            counts.rematerialize +=
                here && f->schedule.rematerialize && l < f->placement->layers - 1;
            counts.reduce += here && !holds;
        }
        counts.reduce += any && holds;
    }
    return counts;
}

static void check_counts(const step_fixture *f, const moe_program *p)
{
    sparse_counts expected = expected_counts(f);
    int layers = f->placement->layers;
    bool words = f->network.vocabulary > 0;
    bool untied = words && !f->network.tied_embeddings;
    assert_int_equal(count_named(p, "materialize"), expected.materialize);
    assert_int_equal(count_named(p, "calibrate"), expected.calibrate);
    assert_int_equal(count_named(p, "re-materialize"), expected.rematerialize);
    assert_int_equal(count_named(p, "reduce"), expected.reduce);
    assert_int_equal(count_named(p, "plan"), f->options.micro_batches * layers);
    assert_int_equal(count_named(p, "dense gradients"), layers);
    assert_int_equal(count_named(p, "expert gradients"), f->layout.groups > 1 ? layers : 0);
    assert_int_equal(count_named(p, "head"), words ? f->options.micro_batches : 0);
    assert_int_equal(count_named(p, "embedding gradients"), words);
    assert_int_equal(count_named(p, "head gradients"), untied);
    assert_int_equal(count_named(p, "gather parameters"),
                     f->options.optimizer_sharding == MOE_OPTIMIZER_ZERO1);
}

static double crossing_bytes(const step_fixture *f, const moe_routed_layer *routed)
{
    double tokens = 0;
    for (int source = 0; source < f->layout.devices; source++) {
        for (int device = 0; device < f->layout.devices; device++) {
            tokens += source == device ? 0 : routed->pairs[source * f->layout.devices + device];
        }
    }
    return tokens * moe_network_token_bytes(&f->network);
}

/* Each transfer carries what its pair of devices exchanges; on the way back from holder to source.
 */
static void check_pairs(const step_fixture *f, const moe_op *op, const moe_routed_layer *routed,
                        bool to_source)
{
    for (size_t t = 0; t < op->traffic->transfer_count; t++) {
        const moe_transfer *transfer = &op->traffic->transfers[t];
        int source = to_source ? transfer->target : transfer->source;
        int holder = to_source ? transfer->source : transfer->target;
        double tokens = routed->pairs[source * f->layout.devices + holder];
        assert_near(transfer->bytes, tokens * moe_network_token_bytes(&f->network));
    }
}

/* What is dispatched comes back, and both again backward. */
static void check_exchanges(const step_fixture *f, const moe_program *p)
{
    static const char *const names[] = {dispatch_name, "combine", "combine backward",
                                        "dispatch backward"};
    int layers = f->placement->layers;
    for (int i = 0; i < layers * f->options.micro_batches; i++) {
        const moe_routed_layer *routed = &f->routed[i];
        for (int n = 0; n < 4; n++) {
            int id = find(p, names[n], i % layers, i / layers);
            assert_near(id < 0 ? 0 : bytes_of(&p->ops[id]), crossing_bytes(f, routed));
            if (id >= 0) {
                check_pairs(f, &p->ops[id], routed, n % 2 == 1);
            }
        }
    }
}

static double sum_rows(const step_fixture *f, int device)
{
    double rows = 0;
    for (int i = 0; i < f->placement->layers * f->options.micro_batches; i++) {
        for (int e = 0; e < f->placement->experts; e++) {
            rows += f->routed[i].rows[device * f->placement->experts + e];
        }
    }
    return rows;
}

/* Forward, input gradient, weight gradient, and forward again where it is recomputed. */
static void check_expert_time(const step_fixture *f, const moe_program *p)
{
    double passes = f->options.recompute == MOE_RECOMPUTE_NONE ? 3 : 4;
    for (int d = 0; d < f->layout.devices; d++) {
        double seconds = 0;
        for (int id = 0; id < p->op_count; id++) {
            seconds += p->ops[id].part == MOE_EXPERT ? p->ops[id].duration_s[d] : 0;
        }
        double expected = passes * sum_rows(f, d) * row_s;
        assert_true(fabs(seconds - expected) <= 1e-9 * expected);
    }
}

/* Along a chain every copy receives a chunk once, and sends its gradient once. */
static void check_chunk_bytes(const step_fixture *f, const moe_program *p)
{
    for (int id = 0; id < p->op_count; id++) {
        const moe_op *op = &p->ops[id];
        if (op->stream != MOE_STREAM_SPARSE || f->options.micro_batches > 1) {
            continue;
        }
        const moe_routed_layer *routed = &f->routed[op->layer];
        int words = f->placement->words;
        double before = wanted_copies(routed->materialized, routed->materialized_count, words);
        double after = wanted_copies(routed->calibrated, routed->calibrated_count, words);
        double copies = is_named(op, "materialize") ? before
                        : is_named(op, "calibrate") ? after
                                                    : before + after;
        assert_near(bytes_of(op), copies * 8e6);
    }
}

static void check_everything(step_fixture *f)
{
    const moe_program *program = step_fixture_build(f);
    assert_sound(program);
    check_counts(f, program);
    check_exchanges(f, program);
    check_expert_time(f, program);
    check_chunk_bytes(f, program);
    moe_timeline *timeline = execute(f, program);
    const char *wrong = moe_timeline_check(program, timeline, 1e-9);
    if (wrong != NULL) {
        fail_msg("%s", wrong);
    }
    talloc_free(timeline);
}

/* `bits` names one combination of the two-valued options. */
static void set_options(step_fixture *f, int bits)
{
    f->options.optimizer_sharding = bits & 1 ? MOE_OPTIMIZER_ZERO1 : MOE_OPTIMIZER_REPLICATED;
    f->options.interference = bits & 2;
    f->schedule.hide_under = bits & 4 ? MOE_HIDE_LAYER : MOE_HIDE_ATTENTION;
    f->schedule.rematerialize = bits & 8;
    f->schedule.accumulate = bits & 16 ? MOE_REDUCE_HOLD : MOE_REDUCE_EACH;
    f->schedule.gather = bits & 32 ? MOE_GATHER_PER_MICRO_BATCH : MOE_GATHER_PER_STEP;
    f->network.vocabulary = bits & 64 ? 70 : 0;
    f->network.tied_embeddings = bits & 128;
}

static void check_all_options(gsl_rng *random, int ep, int micro_batches, double share)
{
    step_fixture *f = step_fixture_open(2, 2, ep, 3, 6);
    f->profile.launch_s = 2e-6;
    f->profile.host_sync_s = 9e-6;
    f->options.micro_batches = micro_batches;
    f->calibrated_share = share / 2;
    for (int bits = 0; bits < 256; bits++) {
        moe_arena_reset(f->arena);
        moe_placement_reset_copies(f->placement);
        step_fixture_replicate(f, random, share);
        step_fixture_route(f, random);
        set_options(f, bits);
        f->options.recompute = bits % 3;
        check_everything(f);
    }
    step_fixture_close(f);
}

static void test_every_combination(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(7, "options", 0);
    for (int ep = 1; ep <= 4; ep *= 2) {
        for (int micro_batches = 1; micro_batches <= 3; micro_batches += 2) {
            check_all_options(random, ep, micro_batches, 0.08);
            check_all_options(random, ep, micro_batches, 0.6);
        }
    }
    gsl_rng_free(random);
}

/* --- gradients and micro-batches -------------------------------------------------------------- */

static double sum_bytes(const moe_program *p, const char *name)
{
    double bytes = 0;
    for (int id = 0; id < p->op_count; id++) {
        bytes += is_named(&p->ops[id], name) ? bytes_of(&p->ops[id]) : 0;
    }
    return bytes;
}

/* The same copies in three micro-batches: held, their gradients travel once, and the last alone. */
static void test_accumulation(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "accumulate", 0);
    step_fixture *f = replicated(random, 3);
    const moe_program *each = step_fixture_build(f);
    f->schedule.accumulate = MOE_REDUCE_HOLD;
    const moe_program *held = step_fixture_build(f);
    assert_near(sum_bytes(each, "reduce"), 3 * sum_bytes(held, "reduce"));
    assert_int_equal(find(held, "reduce", 3, 0), -1);
    assert_int_equal(find(held, "reduce", 3, 1), -1);
    assert_true(need(held, "reduce", 3, 2) > 0);
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* Chunks of owner 0. Layer 0: {1, 1} {2} {2, 2}, in all 1, 1, 2, 2. Layer 1: {2, 1} {1, 1} {1}:
 * 2, 1, 1. */
static void test_held_chunks_are_a_union(void **state)
{
    (void)state;
    static const uint64_t on_1 = 1U << 1;
    static const uint64_t on_2 = 1U << 2;
    static const moe_chunk first[] = {{0, &on_1}, {0, &on_1}};
    static const moe_chunk other[] = {{0, &on_2}, {0, &on_1}};
    static const moe_chunk twice[] = {{0, &on_2}, {0, &on_2}};
    static const moe_chunk *const calibrated[3][2] = {
        {first, other}, {other, first}, {twice, first}};
    static const int counts[3][2] = {{2, 2}, {1, 2}, {2, 1}};
    gsl_rng *random = moe_random_create(1, "union", 0);
    step_fixture *f = step_fixture_open(1, 4, 4, 2, 8);
    f->options.micro_batches = 3;
    f->schedule.accumulate = MOE_REDUCE_HOLD;
    step_fixture_route(f, random);
    for (int m = 0; m < 3; m++) {
        for (int layer = 0; layer < 2; layer++) {
            f->routed[2 * m + layer].calibrated = calibrated[m][layer];
            f->routed[2 * m + layer].calibrated_count = counts[m][layer];
        }
    }
    const moe_program *p = step_fixture_build(f);
    assert_near(bytes_of(&p->ops[need(p, "reduce", 0, 2)]), 4 * 8e6);
    assert_near(bytes_of(&p->ops[need(p, "reduce", 1, 2)]), 3 * 8e6);
    assert_int_equal(count_named(p, "reduce"), 2);
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* Groups {0, 1} and {2, 3} of three experts: devices 0 and 2 own two, so all rings carry two. */
static void test_expert_gradients(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "expert-dp", 0);
    step_fixture *f = step_fixture_open(1, 4, 2, 2, 3);
    f->options.micro_batches = 2;
    f->network.gradient_dtype = MOE_FP32;
    step_fixture_replicate(f, random, 0.5);
    step_fixture_route(f, random);
    const moe_program *p = step_fixture_build(f);
    for (int l = 0; l < 2; l++) {
        int id = need(p, "expert gradients", l, 1);
        const moe_traffic *traffic = p->ops[id].traffic;
        assert_int_equal(traffic->kind, MOE_ALL_REDUCE);
        assert_near(bytes_of(&p->ops[id]), 2 * 2 * (2 * 16e6)); /* 2 rings * 2 edges * 2 experts */
        for (size_t t = 0; t < traffic->transfer_count; t++) {
            assert_int_equal(abs(traffic->transfers[t].source - traffic->transfers[t].target), 2);
        }
        assert_true(follows(p, id, need(p, "reduce", l, 1)));
        assert_true(follows(p, need(p, "optimizer", -1, -1), id));
        assert_false(follows(p, need(p, "attention backward", 0, 1), id));
    }
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* Reduce-scatter and, at the end, all-gather move half an all-reduce each; a quarter of the state.
 */
static void test_zero1(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "zero", 0);
    step_fixture *f = step_fixture_open(2, 2, 4, 2, 4);
    f->network.vocabulary = 300;
    step_fixture_route(f, random);
    const moe_program *whole = step_fixture_build(f);
    f->options.optimizer_sharding = MOE_OPTIMIZER_ZERO1;
    const moe_program *sharded = step_fixture_build(f);
    static const char *const names[] = {"dense gradients", "embedding gradients"};
    double gradients = 0;
    for (int n = 0; n < 2; n++) {
        gradients += sum_bytes(sharded, names[n]);
        assert_near(sum_bytes(whole, names[n]), 2 * sum_bytes(sharded, names[n]));
    }
    assert_near(sum_bytes(sharded, "gather parameters"), gradients);
    double dense = moe_network_dense_parameters(&f->network);
    int last = sharded->op_count - 1;
    assert_true(is_named(&sharded->ops[last], "gather parameters"));
    assert_true(sharded->ops[last].sm_share == 0 && sharded->ops[last].slowdown == 1);
    assert_near(whole->ops[need(whole, "optimizer", -1, -1)].duration_s[1],
                (dense + 2 * 4e6) * 28 / 0.5e12);
    assert_near(sharded->ops[need(sharded, "optimizer", -1, -1)].duration_s[1],
                (dense / 4 + 2 * 4e6) * 28 / 0.5e12);
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* The head: three times its forward FLOPs. Untied, its gradients travel at once. */
static void test_head(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "head", 0);
    step_fixture *f = step_fixture_open(1, 2, 2, 2, 4);
    f->network.vocabulary = 500;
    f->network.tied_embeddings = false;
    step_fixture_route(f, random);
    const moe_program *p = step_fixture_build(f);
    assert_near(p->ops[need(p, "head", -1, 0)].duration_s[0], 3 * 100 * 2e3 * 500 / 0.5e12);
    assert_near(sum_bytes(p, "head gradients"), 2 * 500 * 1e3 * 2);
    assert_near(sum_bytes(p, "embedding gradients"), 2 * 500 * 1e3 * 2);
    assert_true(waits_directly(p, need(p, "head gradients", -1, 0), need(p, "head", -1, 0)));
    assert_true(p->ops[need(p, "head gradients", -1, 0)].sm_share == 0.25);
    assert_true(p->ops[need(p, "dense gradients", 0, 0)].sm_share == 0.25);
    assert_true(p->ops[need(p, "embedding gradients", -1, 0)].sm_share == 0);
    assert_near(p->ops[need(p, "embedding forward", -1, 0)].duration_s[0], 2 * 100 * 2e3 / 0.5e12);
    assert_near(p->ops[need(p, "embedding backward", -1, 0)].duration_s[0],
                100 * 1e3 * (2 + 2 * 2) / 0.5e12);
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* Where memory alone binds: weights of 500 x 1000 read twice, their fp32 gradient written, logits
 * five times. */
static void test_head_memory(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(1, "head", 1);
    step_fixture *f = step_fixture_open(1, 2, 2, 2, 4);
    f->network.vocabulary = 500;
    f->network.gradient_dtype = MOE_FP32;
    f->profile.dense.memory_efficiency = 0.5;
    f->profile.dense.flop_efficiency = 1e9;
    step_fixture_route(f, random);
    const moe_program *p = step_fixture_build(f);
    double bytes = 5e5 * (2 * 2 + 4) + 5 * 100 * 500 * 2;
    assert_near(p->ops[need(p, "head", -1, 0)].duration_s[0], bytes / 0.5e12);
    step_fixture_close(f);
    gsl_rng_free(random);
}

/* One launch in each layer's backward pass: 2 * (10 + 3) kernels, 3 of permutes, 2 exchanges, the
 * dense gradients, and as options have it. */
static void test_backward_launches(void **state)
{
    (void)state;
    step_fixture *f = by_hand();
    const moe_program *p = step_fixture_build(f);
    assert_near(p->ops[p->op_count - 2].duration_s[0], 2e-6);
    assert_near(p->ops[need(p, "unpermute backward", 1, 0) - 1].duration_s[0], 32e-6);
    materialize_by_hand(f);
    p = step_fixture_build(f);
    assert_near(p->ops[need(p, "unpermute backward", 1, 0) - 1].duration_s[0], 33e-6);
    f->schedule.rematerialize = true;
    f->options.recompute = MOE_RECOMPUTE_EXPERTS;
    p = step_fixture_build(f);
    assert_near(p->ops[need(p, "unpermute backward", 1, 0) - 1].duration_s[0], 37e-6);
    assert_near(p->ops[need(p, "unpermute backward", 0, 0) - 1].duration_s[0], 36e-6);
    f->network.vocabulary = 100;
    f->options.recompute = MOE_RECOMPUTE_FULL;
    p = step_fixture_build(f);
    assert_near(p->ops[need(p, "attention recompute", 1, 0) - 1].duration_s[0], 52e-6);
    assert_near(p->ops[need(p, "attention recompute", 0, 0) - 1].duration_s[0], 52e-6);
    step_fixture_close(f);
}

/* A gated expert has half as many FLOPs and bytes again; fp32 gradients are written in the last
 * phase. */
static void test_expert_shape(void **state)
{
    (void)state;
    step_fixture *f = step_fixture_open(1, 1, 1, 1, 1);
    f->network.gradient_dtype = MOE_FP32;
    moe_expert_shape plain = moe_step_expert_shape(&f->network, MOE_FORWARD);
    assert_true(plain.flop_per_row == 8e6 && plain.weight_bytes == 8e6 && plain.row_bytes == 12e3);
    assert_true(moe_step_expert_shape(&f->network, MOE_INPUT_GRADIENT).weight_bytes == 8e6);
    assert_true(moe_step_expert_shape(&f->network, MOE_WEIGHT_GRADIENT).weight_bytes == 16e6);
    f->network.gated = true;
    f->network.bias = true;
    moe_expert_shape gated = moe_step_expert_shape(&f->network, MOE_FORWARD);
    assert_true(gated.flop_per_row == 12e6 && gated.row_bytes == 18e3);
    assert_true(gated.weight_bytes == moe_network_expert_bytes(&f->network));
    step_fixture_close(f);
}

/* Without the gathering of loads the host does not wait, unless a policy plans. */
static void test_without_gathering(void **state)
{
    (void)state;
    step_fixture *f = by_hand();
    f->schedule.gathers_loads = false;
    f->routed[1].planning_s = 5e-6;
    const moe_program *p = step_fixture_build(f);
    assert_int_equal(count_named(p, "gather loads"), 0);
    assert_int_equal(find(p, "plan", 0, 0), -1);
    assert_near(p->ops[need(p, "plan", 1, 0)].duration_s[0], 5e-6);
    assert_true(waits_directly(p, need(p, "plan", 1, 0), need(p, "attention forward", 1, 0)));
    step_fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ep_by_hand),
        cmocka_unit_test(test_costs_by_hand),
        cmocka_unit_test(test_time_by_hand),
        cmocka_unit_test(test_interference_by_hand),
        cmocka_unit_test(test_fssdp_by_hand),
        cmocka_unit_test(test_hidden_under_attention),
        cmocka_unit_test(test_hidden_under_layer),
        cmocka_unit_test(test_recomputation),
        cmocka_unit_test(test_calibration),
        cmocka_unit_test(test_rearrangement),
        cmocka_unit_test(test_idle_schedules_are_ep),
        cmocka_unit_test(test_one_device),
        cmocka_unit_test(test_every_combination),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_held_chunks_are_a_union),
        cmocka_unit_test(test_expert_gradients),
        cmocka_unit_test(test_zero1),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_head_memory),
        cmocka_unit_test(test_backward_launches),
        cmocka_unit_test(test_expert_shape),
        cmocka_unit_test(test_without_gathering),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
