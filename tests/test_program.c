/* Programs: the builder keeps what it is given, and the check names every promise that is broken.
 */
#include "models/program.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <talloc.h>

#include <cmocka.h>

typedef struct fixture {
    moe_cluster_spec spec;
    moe_cluster *cluster;
    moe_profile profile;
    moe_curve_usage usage;
    moe_costs costs;
    moe_arena *arena;
    double seconds[2]; /* durations of every operation but collectives */
} fixture;

static int open_fixture(void **state)
{
    fixture *f = talloc_zero(NULL, fixture);
    f->spec = (moe_cluster_spec){
        .name = "invented",
        .hosts = 1,
        .devices_per_host = 2,
        .device = {"invented", 1e12, 1e9, 1e11, 100},
        .intra = {.kind = MOE_INTRA_NVLINK, .bandwidth_bytes_per_s = 300, .latency_s = 1e-6},
        .nic = {.bandwidth_bytes_per_s = 50},
        .fabric = {.oversubscription = 1},
    };
    f->cluster = moe_cluster_create(f, &f->spec, NULL, moe_diag_create(f, stderr));
    assert_non_null(f->cluster);
    f->costs = (moe_costs){&f->profile, f->cluster, &f->usage};
    f->arena = moe_arena_create(f);
    f->seconds[0] = 3;
    f->seconds[1] = 5;
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    talloc_free(*state);
    return 0;
}

static moe_op compute(const fixture *f)
{
    return (moe_op){.name = "compute",
                    .kind = MOE_OP_COMPUTE,
                    .part = MOE_DENSE,
                    .stream = MOE_STREAM_COMPUTE,
                    .layer = -1,
                    .micro_batch = -1,
                    .duration_s = f->seconds};
}

static moe_op collective(const moe_traffic *traffic, double sm_share)
{
    return (moe_op){.name = "collective",
                    .kind = MOE_OP_COLLECTIVE,
                    .part = MOE_DISPATCH,
                    .stream = MOE_STREAM_EXCHANGE,
                    .traffic = traffic,
                    .slowdown = 1.25,
                    .sm_share = sm_share};
}

static moe_traffic *traffic_of(fixture *f)
{
    static const double matrix[] = {0, 600, 200, 0};
    return moe_traffic_all_to_all(f->arena, &f->costs, matrix, false);
}

/* compute, then collective, then compute that waits for it */
static moe_program *three_ops(fixture *f)
{
    moe_program_builder *builder = moe_program_begin(f->arena, f->cluster);
    moe_op op = compute(f);
    int first = moe_program_add(builder, &op, NULL, 0);
    op = collective(traffic_of(f), 0.15);
    int second = moe_program_add(builder, &op, &first, 1);
    op = compute(f);
    moe_program_add(builder, &op, &second, 1);
    return moe_program_end(builder);
}

static void parts_have_their_names(void **state)
{
    (void)state;
    assert_string_equal(moe_part_names[MOE_DENSE], "dense");
    assert_string_equal(moe_part_names[MOE_REDUCE_PART], "reduce");
    assert_string_equal(moe_part_names[MOE_GRADIENT_SYNC], "gradient_sync");
    assert_string_equal(moe_part_names[MOE_WAIT], "wait");
    assert_null(moe_part_names[MOE_PARTS]);
}

static void builder_keeps_operations_and_waits(void **state)
{
    fixture *f = *state;
    moe_program_builder *builder = moe_program_begin(f->arena, f->cluster);
    enum { COUNT = 3000 }; /* grows several times */
    for (int id = 0; id < COUNT; id++) {
        moe_op op = compute(f);
        op.layer = 7 * id;
        op.first_wait = -99; /* ignored */
        int waits[] = {id - 1, -1, id / 2 < id ? id / 2 : -1};
        assert_int_equal(moe_program_add(builder, &op, waits, id % 4), id);
    }
    moe_program *program = moe_program_end(builder);
    assert_int_equal(program->op_count, COUNT);
    assert_int_equal(program->devices, 2);
    assert_ptr_equal(program->cluster, f->cluster);
    assert_null(moe_program_check(program));
    for (int id = 0; id < COUNT; id++) {
        const moe_op *op = &program->ops[id];
        const int expected[] = {0, 1, 1, 2};
        assert_int_equal(op->layer, 7 * id);
        assert_int_equal(op->wait_count, expected[id % 4]);
        for (int w = 0; w < op->wait_count; w++) {
            assert_int_equal(program->waits[op->first_wait + w], w == 0 ? id - 1 : id / 2);
        }
    }
}

static void empty_program_is_sound(void **state)
{
    fixture *f = *state;
    moe_program *program = moe_program_end(moe_program_begin(f->arena, f->cluster));
    assert_int_equal(program->op_count, 0);
    assert_null(moe_program_check(program));
}

/* --- every promise broken once ---------------------------------------------------------------- */

/* A program that may be written to, and its traffic. */
typedef struct victim {
    moe_program *program;
    moe_op *ops;
    int *waits;
    moe_traffic *traffic;
    double seconds[2];
    int ports[4];
    double work[4];
    bool takes_part[2];
    uint64_t touches[2];
} victim;

static void no_name(victim *v)
{
    v->ops[0].name = NULL;
}

static void unknown_stream(victim *v)
{
    v->ops[2].stream = MOE_STREAMS;
}

static void part_is_wait(victim *v)
{
    v->ops[1].part = MOE_WAIT;
}

static void waits_for_itself(victim *v)
{
    v->waits[1] = 2;
}

static void waits_beyond_the_list(victim *v)
{
    v->ops[2].wait_count = 2;
}

static void no_duration(victim *v)
{
    v->ops[2].duration_s = NULL;
}

static void negative_duration(victim *v)
{
    v->seconds[1] = -1e-9;
}

static void endless_duration(victim *v)
{
    v->seconds[0] = INFINITY;
}

static void collective_with_duration(victim *v)
{
    v->ops[1].duration_s = v->seconds;
}

static void speedup(victim *v)
{
    v->ops[1].slowdown = 0.99;
}

static void all_sms(victim *v)
{
    v->ops[1].sm_share = 0.91;
}

static void other_devices(victim *v)
{
    v->traffic->devices = 3;
}

static void endless_alpha(victim *v)
{
    v->traffic->alpha_s = NAN;
}

static void missing_port(victim *v)
{
    v->ports[3] = v->program->cluster->port_count;
}

static void repeated_port(victim *v)
{
    v->ports[2] = v->ports[1];
}

static void negative_work(victim *v)
{
    v->work[0] = -1;
}

static void untouched_port(victim *v)
{
    v->touches[0] &= ~UINT64_C(4);
    v->touches[1] &= ~UINT64_C(4);
}

/* The rest of its ports are then touched by the other one. */
static void miscounted_participants(victim *v)
{
    v->takes_part[0] = false;
}

static void runs_beside_earlier_compute(victim *v)
{
    v->ops[1].wait_count = 0;
}

static const struct {
    void (*breaks)(victim *v);
    const char *message;
} defects[] = {
    {no_name, "has no name"},
    {unknown_stream, "unknown kind or stream"},
    {part_is_wait, "unknown part, or is a wait"},
    {waits_for_itself, "not before it"},
    {waits_beyond_the_list, "outside the program's"},
    {no_duration, "needs durations"},
    {negative_duration, "negative or not finite"},
    {endless_duration, "negative or not finite"},
    {collective_with_duration, "collective has durations"},
    {speedup, "slowdown is below 1"},
    {all_sms, "outside [0, 0.9]"},
    {other_devices, "another number of devices"},
    {endless_alpha, "alpha is negative"},
    {missing_port, "do not exist"},
    {repeated_port, "not ascending"},
    {negative_work, "load is negative"},
    {untouched_port, "no participant touches"},
    {miscounted_participants, "number of participants"},
    {runs_beside_earlier_compute, "can run beside"},
};

static void make_victim(fixture *f, victim *v)
{
    moe_program *program = three_ops(f);
    *v = (victim){.program = program, .seconds = {3, 5}};
    v->ops = moe_arena_array(f->arena, moe_op, 3);
    v->waits = moe_arena_array(f->arena, int, 2);
    v->traffic = moe_arena_array(f->arena, moe_traffic, 1);
    memcpy(v->ops, program->ops, 3 * sizeof *v->ops);
    memcpy(v->waits, program->waits, 2 * sizeof *v->waits);
    *v->traffic = *program->ops[1].traffic;
    assert_int_equal(v->traffic->port_count, 4);
    memcpy(v->ports, v->traffic->ports, sizeof v->ports);
    memcpy(v->work, v->traffic->work, sizeof v->work);
    memcpy(v->takes_part, v->traffic->takes_part, sizeof v->takes_part);
    memcpy(v->touches, v->traffic->touches, sizeof v->touches);
    v->traffic->ports = v->ports;
    v->traffic->work = v->work;
    v->traffic->takes_part = v->takes_part;
    v->traffic->touches = v->touches;
    v->ops[0].duration_s = v->ops[2].duration_s = v->seconds;
    v->ops[1].traffic = v->traffic;
    program->ops = v->ops;
    program->waits = v->waits;
}

static void check_names_every_defect(void **state)
{
    fixture *f = *state;
    for (size_t i = 0; i < sizeof defects / sizeof *defects; i++) {
        victim v;
        make_victim(f, &v);
        assert_null(moe_program_check(v.program));
        defects[i].breaks(&v);
        const char *found = moe_program_check(v.program);
        if (found == NULL || strstr(found, defects[i].message) == NULL) {
            fail_msg("expected \"%s\", found \"%s\"", defects[i].message, found ? found : "fine");
        }
    }
}

/* Who takes no SMs, or takes no time, may stand anywhere. */
static void issue_order_binds_only_those_that_take_sms(void **state)
{
    fixture *f = *state;
    victim v;
    make_victim(f, &v);
    runs_beside_earlier_compute(&v);
    v.ops[1].sm_share = 0;
    assert_null(moe_program_check(v.program));
    v.ops[1].sm_share = 0.2;
    assert_non_null(moe_program_check(v.program));
    v.ops[1].traffic = NULL;
    assert_null(moe_program_check(v.program));
}

/* compute A; host B waits for A; collective C waits for B: C comes after A by way of B. */
static void issue_order_follows_waits_through_other_streams(void **state)
{
    fixture *f = *state;
    moe_program_builder *builder = moe_program_begin(f->arena, f->cluster);
    moe_op op = compute(f);
    int a = moe_program_add(builder, &op, NULL, 0);
    op.kind = MOE_OP_HOST;
    op.stream = MOE_STREAM_HOST;
    int b = moe_program_add(builder, &op, &a, 1);
    moe_op exchange = collective(traffic_of(f), 0.2);
    moe_program_add(builder, &exchange, &b, 1);
    assert_null(moe_program_check(moe_program_end(builder)));
    exchange.stream = MOE_STREAM_SPARSE; /* issued after a computation that it does not wait for */
    op = compute(f);
    moe_program_add(builder, &op, NULL, 0);
    moe_program_add(builder, &exchange, &b, 1);
    assert_non_null(moe_program_check(moe_program_end(builder)));
}

/* compute A; collective waits for A; the next on its stream comes after A, too. */
static void issue_order_follows_streams(void **state)
{
    fixture *f = *state;
    moe_program_builder *builder = moe_program_begin(f->arena, f->cluster);
    moe_op op = compute(f);
    int a = moe_program_add(builder, &op, NULL, 0);
    moe_op exchange = collective(traffic_of(f), 0.2);
    moe_program_add(builder, &exchange, &a, 1);
    moe_program_add(builder, &exchange, NULL, 0);
    assert_null(moe_program_check(moe_program_end(builder)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_have_their_names),
        cmocka_unit_test_setup_teardown(builder_keeps_operations_and_waits, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(empty_program_is_sound, open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(check_names_every_defect, open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(issue_order_binds_only_those_that_take_sms, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(issue_order_follows_waits_through_other_streams,
                                        open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(issue_order_follows_streams, open_fixture, close_fixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
