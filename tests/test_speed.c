/* Speeds of stragglers: pieces and their integrals, who is concerned, what is drawn. */
#include "models/speed.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include <cmocka.h>

static const double MS = 1e-3;

typedef struct world {
    moe_cluster_spec spec;
    moe_cluster *cluster;
    moe_straggler items[8];
    moe_list list;
} world;

static world *world_create(moe_intra_kind intra, moe_nic_sharing sharing)
{
    world *w = talloc_zero(NULL, world);
    w->spec = (moe_cluster_spec){
        .hosts = 2,
        .devices_per_host = 8,
        .device = {.peak_flop_per_s = 1e12, .memory_bytes = 1e9, .memory_bytes_per_s = 1e12},
        .intra = {.kind = intra, .bandwidth_bytes_per_s = 100e9},
        .nic = {.sharing = sharing, .bandwidth_bytes_per_s = 10e9},
        .fabric = {.oversubscription = 1},
    };
    if (intra == MOE_INTRA_PCIE)
        w->spec.intra.bridge_bytes_per_s = 50e9;
    w->cluster = moe_cluster_create(w, &w->spec, NULL, moe_diag_create(w, stderr));
    assert_non_null(w->cluster);
    w->list.items = w->items;
    return w;
}

static moe_straggler *add(world *w, moe_straggler_what what, double factor)
{
    moe_straggler *s = &w->items[w->list.count++];
    *s = (moe_straggler){
        .what = what, .factor = factor, .probability = 1, .correlation = MOE_DRAW_PER_DEVICE};
    return s;
}

static moe_reals numbers(world *w, int count, const int *values)
{
    double *copy = talloc_array(w, double, (unsigned)count);
    for (int i = 0; i < count; i++)
        copy[i] = values[i];
    return (moe_reals){copy, (size_t)count};
}
#define NUMBERS(w, ...)                                                                            \
    numbers(w, sizeof((int[]){__VA_ARGS__}) / sizeof(int), (const int[]){__VA_ARGS__})

static moe_speed *drawn(world *w, uint64_t seed, int64_t step, int op_count)
{
    moe_speed *speed = moe_speed_create(w, w->cluster, &w->list, seed);
    moe_speed_draw(speed, step, op_count);
    return speed;
}

static double factor_of(const moe_speed *speed, int unit)
{
    double until_s;
    return moe_speed_at(speed, unit, 0, &until_s);
}

static int port_of(const world *w, moe_port_kind kind, int unit)
{
    assert_true(w->cluster->first_port[kind] >= 0);
    return moe_speed_port(w->cluster, w->cluster->first_port[kind] + unit);
}

static void assert_near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-12 * fmax(fabs(a), fabs(b))))
        fail_msg("%.17g is not %.17g", a, b);
}

/* --- pieces ----------------------------------------------------------------------------------- */

/* Half speed from 2 to 6 ms, a tenth from 4 to 8 ms: 1, 0.5, 0.05, 0.1, 1. */
static void test_pieces(void **state)
{
    (void)state;
    static const double factors[] = {1, 0.5, 0.05, 0.1, 1};
    static const double until_ms[] = {2, 4, 6, 8, INFINITY};
    world *w = world_create(MOE_INTRA_NVSWITCH, MOE_NIC_PER_HOST);
    moe_straggler *s = add(w, MOE_SLOW_COMPUTE, 0.5);
    s->from_s = 2 * MS;
    s->for_s = 4 * MS;
    s = add(w, MOE_SLOW_COMPUTE, 0.1);
    s->from_s = 4 * MS;
    s->for_s = 4 * MS;
    const moe_speed *speed = drawn(w, 1, 0, 0);
    for (int i = 0; i < 5; i++) {
        double until_s;
        assert_near(moe_speed_at(speed, 3, (2 * i + 0.5) * MS, &until_s), factors[i]);
        if (isinf(until_ms[i]))
            assert_true(isinf(until_s));
        else
            assert_near(until_s, until_ms[i] * MS);
    }
    assert_near(moe_speed_done(speed, 3, 1 * MS, 9 * MS), (1 + 1 + 0.1 + 0.2 + 1) * MS);
    assert_near(moe_speed_finish(speed, 3, 1 * MS, 3.3 * MS), 9 * MS);
    assert_near(moe_speed_finish(speed, 3, 1 * MS, 1.5 * MS), 3 * MS);
    assert_true(moe_speed_is_nominal(speed, port_of(w, MOE_PORT_NIC_OUT, 0)));
    talloc_free(w);
}

/* Where work ends is where that much of it is done. */
static void test_finish_inverts_done(void **state)
{
    (void)state;
    world *w = world_create(MOE_INTRA_NVSWITCH, MOE_NIC_PER_HOST);
    for (int i = 0; i < 8; i++) {
        moe_straggler *s = add(w, MOE_SLOW_COMPUTE, 0.3 + 0.4 * (i % 5));
        s->from_s = 0.7 * i * MS;
        s->for_s = (1 + i % 3) * MS;
    }
    const moe_speed *speed = drawn(w, 1, 0, 0);
    for (int i = 0; i < 40; i++) {
        const double start_s = 0.217 * i * MS;
        for (int k = 0; k < 40; k++) {
            const double work_s = 0.131 * k * MS;
            const double end_s = moe_speed_finish(speed, 0, start_s, work_s);
            assert_true(fabs(moe_speed_done(speed, 0, start_s, end_s) - work_s) < 1e-15);
        }
    }
    talloc_free(w);
}

static void test_no_speed_is_nominal(void **state)
{
    (void)state;
    world *w = world_create(MOE_INTRA_NVSWITCH, MOE_NIC_PER_HOST);
    double until_s;
    assert_null(moe_speed_create(w, w->cluster, &w->list, 1));
    moe_speed_draw(NULL, 0, 10);
    assert_true(moe_speed_is_nominal(NULL, 5));
    assert_true(moe_speed_at(NULL, 5, 1, &until_s) == 1 && isinf(until_s));
    assert_true(moe_speed_finish(NULL, 5, 0.25, 0.5) == 0.75);
    assert_true(moe_speed_done(NULL, 5, 0.25, 0.75) == 0.5);
    assert_true(moe_speed_work(NULL, 1, 5, 0.3) == 0.3);
    talloc_free(w);
}

/* --- who is concerned ------------------------------------------------------------------------- */

static void test_devices_and_hosts(void **state)
{
    (void)state;
    world *w = world_create(MOE_INTRA_PCIE, MOE_NIC_PER_DEVICE);
    add(w, MOE_SLOW_COMPUTE, 0.5)->devices = NUMBERS(w, 3, 12);
    add(w, MOE_SLOW_INTRA, 0.25)->hosts = NUMBERS(w, 1);
    add(w, MOE_SLOW_NIC, 0.125)->devices = NUMBERS(w, 2);
    const moe_speed *speed = drawn(w, 1, 0, 0);
    for (int device = 0; device < 16; device++) {
        assert_near(factor_of(speed, device), device == 3 || device == 12 ? 0.5 : 1);
        assert_near(factor_of(speed, port_of(w, MOE_PORT_INTRA_OUT, device)),
                    device >= 8 ? 0.25 : 1);
        assert_near(factor_of(speed, port_of(w, MOE_PORT_NIC_OUT, device)),
                    device == 2 ? 0.125 : 1);
        assert_near(factor_of(speed, port_of(w, MOE_PORT_NIC_IN, device)), device == 2 ? 0.125 : 1);
    }
    assert_near(factor_of(speed, port_of(w, MOE_PORT_BRIDGE, 0)), 1);
    assert_near(factor_of(speed, port_of(w, MOE_PORT_BRIDGE, 1)), 0.25);
    talloc_free(w);
}

/* A device's NIC is its host's; a link of a mesh is that of both its ends. */
static void test_what_is_shared(void **state)
{
    (void)state;
    world *w = world_create(MOE_INTRA_CUBE_MESH, MOE_NIC_PER_HOST);
    add(w, MOE_SLOW_NIC, 0.5)->devices = NUMBERS(w, 11);
    add(w, MOE_SLOW_INTRA, 0.25)->devices = NUMBERS(w, 0);
    const moe_speed *speed = drawn(w, 1, 0, 0);
    assert_near(factor_of(speed, port_of(w, MOE_PORT_NIC_OUT, 0)), 1);
    assert_near(factor_of(speed, port_of(w, MOE_PORT_NIC_OUT, 1)), 0.5);
    int slow = 0;
    for (int link = 0; link < 64; link++)
        slow += factor_of(speed, port_of(w, MOE_PORT_LINK, link)) == 0.25;
    assert_int_equal(slow, 8); /* to and from four neighbours */
    talloc_free(w);
}

static void test_steps(void **state)
{
    (void)state;
    world *w = world_create(MOE_INTRA_NVSWITCH, MOE_NIC_PER_HOST);
    moe_straggler *s = add(w, MOE_SLOW_COMPUTE, 0.5);
    s->first_step = 3;
    s->steps = 2;
    moe_speed *speed = moe_speed_create(w, w->cluster, &w->list, 1);
    for (int step = 0; step < 8; step++) {
        moe_speed_draw(speed, step, 0);
        assert_near(factor_of(speed, 7), step == 3 || step == 4 ? 0.5 : 1);
    }
    talloc_free(w);
}

/* --- what is drawn ---------------------------------------------------------------------------- */

typedef struct moments {
    double mean, deviation;
} moments;

/* Of the time that unit work takes, over devices and steps. */
static moments sample(world *w)
{
    enum { STEPS = 4000, DEVICES = 16 };
    moe_speed *speed = moe_speed_create(w, w->cluster, &w->list, 7);
    double sum = 0, squares = 0;
    for (int step = 0; step < STEPS; step++) {
        moe_speed_draw(speed, step, 1);
        for (int device = 0; device < DEVICES; device++) {
            const double took = moe_speed_work(speed, 0, device, 1) / factor_of(speed, device);
            sum += took;
            squares += took * took;
        }
    }
    const double count = (double)STEPS * DEVICES, mean = sum / count;
    return (moments){mean, sqrt(squares / count - mean * mean)};
}

static void test_distributions(void **state)
{
    (void)state;
    static const moe_jitter jitters[] = {MOE_JITTER_NORMAL, MOE_JITTER_LOGNORMAL, MOE_JITTER_GAMMA};
    static const moe_correlation correlations[] = {MOE_DRAW_PER_DEVICE, MOE_DRAW_PER_OPERATION};
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 2; k++) {
            world *w = world_create(MOE_INTRA_NVSWITCH, MOE_NIC_PER_HOST);
            moe_straggler *s = add(w, MOE_SLOW_COMPUTE, 0.5);
            s->distribution = jitters[i];
            s->spread = 0.2;
            s->correlation = correlations[k];
            const moments m = sample(w);
            assert_true(fabs(m.mean - 2) < 0.01);
            assert_true(fabs(m.deviation - 0.4) < 0.01);
            talloc_free(w);
        }
    }
}

static void test_probability(void **state)
{
    (void)state;
    world *w = world_create(MOE_INTRA_NVSWITCH, MOE_NIC_PER_HOST);
    add(w, MOE_SLOW_COMPUTE, 0.5)->probability = 0.25; /* 1 or 2: mean 1.25 */
    const moments m = sample(w);
    assert_true(fabs(m.mean - 1.25) < 0.01);
    assert_true(fabs(m.deviation - sqrt(0.25 * 0.75)) < 0.01);
    talloc_free(w);
}

static moe_straggler *add_jitter(world *w, moe_correlation correlation)
{
    moe_straggler *s = add(w, MOE_SLOW_COMPUTE, 1);
    s->distribution = MOE_JITTER_LOGNORMAL;
    s->spread = 0.3;
    s->correlation = correlation;
    return s;
}

static void test_correlation(void **state)
{
    (void)state;
    world *w = world_create(MOE_INTRA_NVSWITCH, MOE_NIC_PER_HOST);
    moe_straggler *s = add_jitter(w, MOE_DRAW_PER_HOST);
    const moe_speed *speed = drawn(w, 1, 5, 2);
    assert_true(factor_of(speed, 0) == factor_of(speed, 7));
    assert_true(factor_of(speed, 8) == factor_of(speed, 15));
    assert_true(factor_of(speed, 0) != factor_of(speed, 8));
    s->correlation = MOE_DRAW_PER_DEVICE;
    speed = drawn(w, 1, 5, 2);
    assert_true(factor_of(speed, 0) != factor_of(speed, 1));
    assert_true(moe_speed_work(speed, 0, 0, 1) == 1);
    s->correlation = MOE_DRAW_PER_OPERATION;
    speed = drawn(w, 1, 5, 2);
    assert_true(factor_of(speed, 0) == 1);
    assert_true(moe_speed_work(speed, 0, 0, 1) != moe_speed_work(speed, 1, 0, 1));
    assert_true(moe_speed_work(speed, 0, 0, 1) != moe_speed_work(speed, 0, 1, 1));
    talloc_free(w);
}

/* By seed and step; neither by what was drawn before nor by who else is concerned. */
static void test_draws_are_reproducible(void **state)
{
    (void)state;
    world *w = world_create(MOE_INTRA_NVSWITCH, MOE_NIC_PER_HOST);
    moe_straggler *s = add_jitter(w, MOE_DRAW_PER_DEVICE);
    const double first = factor_of(drawn(w, 1, 5, 0), 4);
    moe_speed *speed = drawn(w, 1, 2, 0);
    moe_speed_draw(speed, 5, 100);
    assert_true(factor_of(speed, 4) == first);
    assert_true(factor_of(drawn(w, 2, 5, 0), 4) != first);
    assert_true(factor_of(drawn(w, 1, 6, 0), 4) != first);
    s->devices = NUMBERS(w, 4);
    speed = drawn(w, 1, 5, 0);
    assert_true(factor_of(speed, 4) == first);
    assert_true(factor_of(speed, 3) == 1);
    talloc_free(w);
}

/* --- as written ------------------------------------------------------------------------------- */

typedef struct holder {
    moe_list stragglers;
} holder;

static const moe_field holder_fields[] = {{.key = "stragglers",
                                           .type = MOE_FIELD_LIST,
                                           .table = &moe_straggler_table,
                                           .offset = offsetof(holder, stragglers),
                                           .sentence = "Stragglers."},
                                          {.key = NULL}};
static const moe_table holder_table = {.noun = "holder",
                                       .sentence = "Holds stragglers.",
                                       .size = sizeof(holder),
                                       .fields = holder_fields};

/* The errors of loading and checking, in `text`. */
static int errors_of(const world *w, const char *yaml, char **text)
{
    void *owner = talloc_new(w);
    size_t length = 0;
    FILE *stream = open_memstream(text, &length);
    moe_diag *diag = moe_diag_create(owner, stream);
    const moe_config *config =
        moe_config_load_text(owner, "test.yaml", yaml, strlen(yaml), &holder_table, NULL, 0, diag);
    if (config) {
        const holder *h = moe_config_root(config);
        moe_stragglers_check(&h->stragglers, w->cluster, config, diag);
    }
    const int errors = moe_diag_error_count(diag);
    fclose(stream);
    talloc_free(owner);
    return errors;
}

static void test_as_written(void **state)
{
    (void)state;
    static const struct {
        const char *yaml;
        const char *says; /* NULL: nothing is wrong */
    } cases[] = {
        {"stragglers: [{what: compute, devices: [3], factor: 0.5, from: 1 ms, for: 2 ms}]", NULL},
        {"stragglers: [{what: nic, hosts: [0, 1], probability: 10 %, first_step: 3, steps: 1}]",
         NULL},
        {"stragglers: [{what: intra, distribution: gamma, spread: 0.1, correlation: operation}]",
         NULL},
        {"stragglers: [{what: compute, devices: [16]}]", "there is no device 16, expected 0 to 15"},
        {"stragglers: [{what: compute, hosts: [2]}]", "there is no host 2"},
        {"stragglers: [{what: compute, distribution: normal}]",
         "distribution is normal and spread 0"},
        {"stragglers: [{what: compute, spread: 0.1}]", "distribution is none and spread 0.1"},
        {"stragglers: [{what: compute, from: 1 ms, correlation: operation}]", "expected no `from`"},
        {"stragglers: [{what: compute, factor: 0}]", "out of range"},
        {"stragglers: [{factor: 0.5}]", "what"},
    };
    world *w = world_create(MOE_INTRA_NVSWITCH, MOE_NIC_PER_HOST);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = NULL;
        const int errors = errors_of(w, cases[i].yaml, &text);
        if (errors != (cases[i].says != NULL) || (cases[i].says && !strstr(text, cases[i].says)))
            fail_msg("%s\ngives %d errors:\n%s", cases[i].yaml, errors, text);
        free(text);
    }
    talloc_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_finish_inverts_done),
        cmocka_unit_test(test_no_speed_is_nominal),
        cmocka_unit_test(test_devices_and_hosts),
        cmocka_unit_test(test_what_is_shared),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_probability),
        cmocka_unit_test(test_correlation),
        cmocka_unit_test(test_draws_are_reproducible),
        cmocka_unit_test(test_as_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
