/* Timelines: what is exposed, what is critical, and the laws, on cases by hand and random programs.
 *
 * The programs are executed here, by a plain reading of rules R1-R5 without SM sharing, so that the
 * test needs no engine. */
#include "models/timeline.h"

#include "configs/base/random.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
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
    moe_program_builder *builder;
    moe_timeline *timeline;
} fixture;

/* Rate 100 bytes/s within a host, 10 between; latency and alpha 0.5 s everywhere but where noted.
 */
static fixture *open_fixture(int hosts, int devices_per_host)
{
    fixture *f = talloc_zero(NULL, fixture);
    f->spec = (moe_cluster_spec){
        .name = "invented",
        .hosts = hosts,
        .devices_per_host = devices_per_host,
        .device = {"invented", 1e12, 1e9, 1e11, 100},
        .intra = {.kind = MOE_INTRA_NVLINK, .bandwidth_bytes_per_s = 100, .latency_s = 0.5},
        .nic = {.sharing = MOE_NIC_PER_HOST, .bandwidth_bytes_per_s = 10, .latency_s = 0.5},
        .fabric = {.oversubscription = 1},
    };
    f->cluster = moe_cluster_create(f, &f->spec, NULL, moe_diag_create(f, stderr));
    assert_non_null(f->cluster);
    f->costs = (moe_costs){&f->profile, f->cluster, &f->usage};
    f->arena = moe_arena_create(f);
    f->builder = moe_program_begin(f->arena, f->cluster);
    f->timeline = moe_timeline_create(f, f->cluster->devices);
    return f;
}

static int add_timed(fixture *f, moe_stream stream, moe_part part, const double *seconds,
                     const int *waits, int count)
{
    size_t devices = (size_t)f->cluster->devices;
    double *own = moe_arena_array(f->arena, double, devices);
    memcpy(own, seconds, devices * sizeof *own);
    moe_op_kind kind = stream == MOE_STREAM_COMPUTE ? MOE_OP_COMPUTE
                       : stream == MOE_STREAM_HOST  ? MOE_OP_HOST
                                                    : MOE_OP_COPY;
    moe_op op = {"timed", kind, part, stream, -1, -1, own, NULL, 1, 0, 0, 0};
    return moe_program_add(f->builder, &op, waits, count);
}

static int add_collective(fixture *f, moe_stream stream, moe_part part, const moe_traffic *traffic,
                          double slowdown, const int *waits, int count)
{
    moe_op op = {"meets", MOE_OP_COLLECTIVE, part,     stream, -1, -1,
                 NULL,    traffic,           slowdown, 0,      0,  0};
    return moe_program_add(f->builder, &op, waits, count);
}

static moe_traffic *move(fixture *f, int source, int target, double bytes)
{
    moe_transfer *transfer = moe_arena_array(f->arena, moe_transfer, 1);
    *transfer = (moe_transfer){source, target, bytes};
    return moe_traffic_moves(f->arena, &f->costs, transfer, 1);
}

/* --- a plain executor ------------------------------------------------------------------------- */

static double ready_s(const moe_program *program, const moe_timeline *timeline, int id, int device)
{
    const moe_op *op = &program->ops[id];
    double ready = 0;
    for (int before = 0; before < id; before++) {
        bool waited = program->ops[before].stream == op->stream;
        for (int w = 0; w < op->wait_count; w++) {
            waited = waited || program->waits[op->first_wait + w] == before;
        }
        if (waited) {
            ready = fmax(ready, timeline->end_s[moe_timeline_at(timeline, before, device)]);
        }
    }
    return ready;
}

static double drained_s(const moe_cluster *cluster, const moe_traffic *traffic, int device)
{
    double drained = 0;
    for (int k = 0; k < traffic->port_count; k++) {
        if (traffic->touches[device * traffic->words + k / 64] >> (k % 64) & 1) {
            double rate = cluster->ports[traffic->ports[k]].rate_bytes_per_s;
            drained = fmax(drained, traffic->work[k] / rate);
        }
    }
    return traffic->alpha_s + drained;
}

static void execute_collective(const moe_program *program, moe_timeline *timeline, int id)
{
    const moe_op *op = &program->ops[id];
    const moe_traffic *traffic = op->traffic;
    double meeting = 0;
    for (int d = 0; d < program->devices; d++) {
        if (traffic != NULL && traffic->takes_part[d]) {
            meeting = fmax(meeting, ready_s(program, timeline, id, d));
        }
    }
    for (int d = 0; d < program->devices; d++) {
        size_t at = moe_timeline_at(timeline, id, d);
        if (traffic != NULL && traffic->takes_part[d]) {
            timeline->start_s[at] = meeting;
            timeline->end_s[at] = meeting + op->slowdown * drained_s(program->cluster, traffic, d);
        } else {
            timeline->start_s[at] = timeline->end_s[at] = ready_s(program, timeline, id, d);
        }
    }
}

static moe_program *execute(fixture *f)
{
    moe_program *program = moe_program_end(f->builder);
    assert_null(moe_program_check(program));
    moe_timeline *timeline = f->timeline;
    moe_timeline_reserve(timeline, program->op_count);
    timeline->step_s = 0;
    for (int id = 0; id < program->op_count; id++) {
        const moe_op *op = &program->ops[id];
        if (op->kind == MOE_OP_COLLECTIVE) {
            execute_collective(program, timeline, id);
        }
        for (int d = 0; d < program->devices; d++) {
            size_t at = moe_timeline_at(timeline, id, d);
            if (op->kind != MOE_OP_COLLECTIVE) {
                timeline->start_s[at] = ready_s(program, timeline, id, d);
                timeline->end_s[at] = timeline->start_s[at] + op->duration_s[d];
            }
            timeline->step_s = fmax(timeline->step_s, timeline->end_s[at]);
        }
    }
    return program;
}

/* --- by hand ---------------------------------------------------------------------------------- */

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-12 * fmax(1, fabs(expected)))) {
        fail_msg("found %.17g, expected %.17g", found, expected);
    }
}

static void assert_parts(const double *parts, const double *expected)
{
    for (int p = 0; p < MOE_PARTS; p++) {
        if (!(fabs(parts[p] - expected[p]) <= 1e-12)) {
            fail_msg("%s: found %.17g, expected %.17g", moe_part_names[p], parts[p], expected[p]);
        }
    }
}

/* Device 0 computes 3 s and device 1 1 s; both exchange 0.5 + 700/100 s; device 1 computes 2 s
 * more, device 0 0.25 s. */
static void straggler_by_hand(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 2);
    int first = add_timed(f, MOE_STREAM_COMPUTE, MOE_DENSE, (double[]){3, 1}, NULL, 0);
    int meet =
        add_collective(f, MOE_STREAM_EXCHANGE, MOE_DISPATCH, move(f, 1, 0, 700), 1, &first, 1);
    add_timed(f, MOE_STREAM_COMPUTE, MOE_EXPERT, (double[]){0.25, 2}, &meet, 1);
    moe_program *program = execute(f);
    assert_near(f->timeline->start_s[moe_timeline_at(f->timeline, meet, 1)], 3);
    assert_near(f->timeline->step_s, 12.5);
    double parts[MOE_PARTS];
    moe_timeline_exposed(program, f->timeline, parts);
    assert_parts(parts, (double[MOE_PARTS]){[MOE_DENSE] = 2,
                                            [MOE_DISPATCH] = 7.5,
                                            [MOE_EXPERT] = 1.125,
                                            [MOE_WAIT] = (1.75 + 2) / 2});
    moe_timeline_critical_path(program, f->timeline, parts);
    assert_parts(parts,
                 (double[MOE_PARTS]){[MOE_DENSE] = 3, [MOE_DISPATCH] = 7.5, [MOE_EXPERT] = 2});
    assert_null(moe_timeline_check(program, f->timeline, 1e-12));
    assert_null(moe_timeline_check_sharing(program, f->timeline, 1e-12));
    talloc_free(f);
}

/* The last participant of a collective need not be on the device where the step ends, and a device
 * that takes no part is passed on the way. */
static void critical_path_crosses_devices(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 3);
    int plan = add_timed(f, MOE_STREAM_HOST, MOE_HOST, (double[]){0, 4, 0}, NULL, 0);
    int first = add_timed(f, MOE_STREAM_COMPUTE, MOE_DENSE, (double[]){5, 2, 1}, &plan, 1);
    int a = add_collective(f, MOE_STREAM_SPARSE, MOE_MATERIALIZE, move(f, 1, 0, 100), 2, &first, 1);
    int b = add_collective(f, MOE_STREAM_EXCHANGE, MOE_COMBINE, move(f, 0, 2, 200), 1, &a, 1);
    add_timed(f, MOE_STREAM_COMPUTE, MOE_OPTIMIZER, (double[]){1, 1, 3}, &b, 1);
    moe_program *program = execute(f);
    /* host 4 and dense 2 on device 1; 1 to 0: 2 x (0.5 + 1); 0 to 2: 0.5 + 2; optimizer 3 on 2 */
    assert_near(f->timeline->step_s, 6 + 3 + 2.5 + 3);
    double parts[MOE_PARTS];
    moe_timeline_critical_path(program, f->timeline, parts);
    assert_parts(parts, (double[MOE_PARTS]){[MOE_HOST] = 4,
                                            [MOE_DENSE] = 2,
                                            [MOE_MATERIALIZE] = 3,
                                            [MOE_COMBINE] = 2.5,
                                            [MOE_OPTIMIZER] = 3});
    assert_null(moe_timeline_check(program, f->timeline, 1e-12));
    talloc_free(f);
}

/* One device, everything under way at once, one stream ending after the other. */
static void precedence_by_hand(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 2);
    static const moe_part parts_of[MOE_STREAMS] = {
        MOE_HOST, MOE_DENSE, MOE_DISPATCH, MOE_MATERIALIZE, MOE_GRADIENT_SYNC, MOE_REARRANGE};
    for (int s = 0; s < MOE_STREAMS; s++) {
        if (s == MOE_STREAM_EXCHANGE || s == MOE_STREAM_SPARSE || s == MOE_STREAM_GRADIENT) {
            add_collective(f, (moe_stream)s, parts_of[s], move(f, 0, 1, 1), 1, NULL, 0);
        } else {
            add_timed(f, (moe_stream)s, parts_of[s], (double[]){0, 0}, NULL, 0);
        }
    }
    moe_program *program = moe_program_end(f->builder);
    moe_timeline_reserve(f->timeline, program->op_count);
    /* order of streams: host, compute, exchange, sparse, gradient, copy */
    static const double starts[] = {0, 10, 5, 4, 3, 2};
    static const double ends[] = {23, 11.5, 13, 14.25, 16, 20};
    for (int id = 0; id < MOE_STREAMS; id++) {
        f->timeline->start_s[moe_timeline_at(f->timeline, id, 0)] = starts[id];
        f->timeline->end_s[moe_timeline_at(f->timeline, id, 0)] = ends[id];
        f->timeline->start_s[moe_timeline_at(f->timeline, id, 1)] = 24;
        f->timeline->end_s[moe_timeline_at(f->timeline, id, 1)] = 24;
    }
    f->timeline->step_s = 24;
    double parts[MOE_PARTS];
    moe_timeline_exposed(program, f->timeline, parts);
    double expected[MOE_PARTS] = {[MOE_DENSE] = 1.5,
                                  [MOE_DISPATCH] = 5 + 1.5,
                                  [MOE_MATERIALIZE] = 1 + 1.25,
                                  [MOE_GRADIENT_SYNC] = 1 + 1.75,
                                  [MOE_REARRANGE] = 1 + 4,
                                  [MOE_HOST] = 2 + 3,
                                  [MOE_WAIT] = 1 + 24};
    for (int p = 0; p < MOE_PARTS; p++) {
        expected[p] /= 2;
    }
    assert_parts(parts, expected);
    talloc_free(f);
}

static void empty_program_takes_no_time(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 2);
    moe_program *program = execute(f);
    double parts[MOE_PARTS];
    const double nothing[MOE_PARTS] = {0};
    moe_timeline_exposed(program, f->timeline, parts);
    assert_parts(parts, nothing);
    moe_timeline_critical_path(program, f->timeline, parts);
    assert_parts(parts, nothing);
    assert_null(moe_timeline_check(program, f->timeline, 1e-12));
    f->timeline->step_s = 1;
    assert_non_null(moe_timeline_check(program, f->timeline, 1e-12));
    talloc_free(f);
}

/* --- laws broken once each -------------------------------------------------------------------- */

static void expect_broken(const moe_program *program, const moe_timeline *timeline,
                          const char *expected)
{
    const char *found = moe_timeline_check(program, timeline, 1e-9);
    if (found == NULL || strstr(found, expected) == NULL) {
        fail_msg("expected \"%s\", found \"%s\"", expected, found ? found : "fine");
    }
}

/* compute, exchange between 0 and 1, copy after it, another copy; device 2 takes no part */
static moe_program *lawful(fixture *f)
{
    int first = add_timed(f, MOE_STREAM_COMPUTE, MOE_DENSE, (double[]){3, 1, 2}, NULL, 0);
    int meet =
        add_collective(f, MOE_STREAM_EXCHANGE, MOE_DISPATCH, move(f, 1, 0, 700), 1, &first, 1);
    add_timed(f, MOE_STREAM_COPY, MOE_REARRANGE, (double[]){1, 2, 3}, &meet, 1);
    add_timed(f, MOE_STREAM_COPY, MOE_REARRANGE, (double[]){1, 2, 3}, NULL, 0);
    moe_program *program = execute(f);
    assert_null(moe_timeline_check(program, f->timeline, 1e-12));
    return program;
}

static void check_names_every_broken_law(void **state)
{
    (void)state;
    static const struct {
        int id, device;
        double start_by, end_by;
        const char *message;
    } defects[] = {
        {0, 1, -0.5, 0, "runs from"},        {0, 2, 3, 0, "runs from"},
        {1, 0, NAN, 0, "runs from"},         {2, 2, -0.5, -0.5, "it waits for"},
        {3, 1, -0.5, -0.5, "on its stream"}, {0, 0, 0, -0.5, "of work"},
        {3, 2, 0.5, 0, "of work"},           {1, 2, 0, 0.5, "takes no part"},
        {1, 1, 0.25, 0, "at 3 s before"},
    };
    for (size_t i = 0; i < sizeof defects / sizeof *defects; i++) {
        fixture *f = open_fixture(1, 3);
        moe_program *program = lawful(f);
        size_t at = moe_timeline_at(f->timeline, defects[i].id, defects[i].device);
        f->timeline->start_s[at] += defects[i].start_by;
        f->timeline->end_s[at] += defects[i].end_by;
        expect_broken(program, f->timeline, defects[i].message);
        talloc_free(f);
    }
}

static void check_watches_ports_and_the_step(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 3);
    moe_program *program = lawful(f);
    for (int d = 0; d < 2; d++) { /* both leave before 700 bytes at 100 bytes/s are through */
        f->timeline->end_s[moe_timeline_at(f->timeline, 1, d)] -= 0.01;
    }
    expect_broken(program, f->timeline, "had port");
    for (int d = 0; d < 2; d++) {
        f->timeline->end_s[moe_timeline_at(f->timeline, 1, d)] += 0.01;
    }
    f->timeline->step_s += 0.5;
    expect_broken(program, f->timeline, "last instance ends");
    moe_timeline *small = moe_timeline_create(f, 3);
    moe_timeline_reserve(small, 3);
    expect_broken(program, small, "holds 3 operations");
    talloc_free(f);
}

/* Two collectives on one port: each had it long enough, both together did not. */
static void sharing_is_a_law_of_its_own(void **state)
{
    (void)state;
    fixture *f = open_fixture(1, 2);
    int a = add_collective(f, MOE_STREAM_EXCHANGE, MOE_DISPATCH, move(f, 0, 1, 300), 1, NULL, 0);
    int b = add_collective(f, MOE_STREAM_SPARSE, MOE_MATERIALIZE, move(f, 0, 1, 500), 1, NULL, 0);
    moe_program *program = execute(f);
    assert_null(moe_timeline_check(program, f->timeline, 1e-12));
    assert_non_null(moe_timeline_check_sharing(program, f->timeline, 1e-12));
    /* shared fairly: the first is done after 6 s, the second after 8 */
    for (int d = 0; d < 2; d++) {
        f->timeline->end_s[moe_timeline_at(f->timeline, a, d)] = 0.5 + 6;
        f->timeline->end_s[moe_timeline_at(f->timeline, b, d)] = 0.5 + 8;
    }
    f->timeline->step_s = 8.5;
    assert_null(moe_timeline_check(program, f->timeline, 1e-12));
    assert_null(moe_timeline_check_sharing(program, f->timeline, 1e-12));
    /* one after the other, with a gap: the gap does not count */
    for (int d = 0; d < 2; d++) {
        f->timeline->end_s[moe_timeline_at(f->timeline, a, d)] = 0.5 + 3;
        f->timeline->start_s[moe_timeline_at(f->timeline, b, d)] = 10;
        f->timeline->end_s[moe_timeline_at(f->timeline, b, d)] = 10.5 + 5;
    }
    f->timeline->step_s = 15.5;
    assert_null(moe_timeline_check_sharing(program, f->timeline, 1e-12));
    f->timeline->end_s[moe_timeline_at(f->timeline, b, 0)] = 10.5 + 4.9;
    f->timeline->end_s[moe_timeline_at(f->timeline, b, 1)] = 10.5 + 4.9;
    assert_non_null(moe_timeline_check_sharing(program, f->timeline, 1e-12));
    talloc_free(f);
}

/* --- random programs -------------------------------------------------------------------------- */

static const moe_traffic *draw_traffic(fixture *f, gsl_rng *random)
{
    size_t devices = (size_t)f->cluster->devices;
    double density = gsl_rng_uniform(random) - 0.2; /* one in five: nothing crosses */
    double *matrix = moe_arena_array(f->arena, double, devices *devices);
    for (size_t i = 0; i < devices * devices; i++) {
        double bytes = 1 + (double)gsl_rng_uniform_int(random, 300);
        matrix[i] = gsl_rng_uniform(random) < density ? bytes : 0;
    }
    return moe_traffic_all_to_all(f->arena, &f->costs, matrix, false);
}

static int draw_waits(gsl_rng *random, int id, int waits[static 4])
{
    int count = (int)gsl_rng_uniform_int(random, 4);
    for (int w = 0; w < count; w++) {
        unsigned long back = gsl_rng_uniform_int(random, 12);
        waits[w] = id - 1 - (int)back; /* below 0: none */
    }
    return count;
}

static void draw_op(fixture *f, gsl_rng *random, int id)
{
    int waits[4];
    int count = draw_waits(random, id, waits);
    moe_stream stream = (moe_stream)gsl_rng_uniform_int(random, MOE_STREAMS);
    static const moe_part timed[] = {MOE_DENSE, MOE_EXPERT, MOE_OPTIMIZER, MOE_HOST};
    static const moe_part met[] = {MOE_DISPATCH, MOE_COMBINE, MOE_MATERIALIZE, MOE_GRADIENT_SYNC};
    unsigned long part = gsl_rng_uniform_int(random, 4);
    if (stream == MOE_STREAM_EXCHANGE || stream == MOE_STREAM_SPARSE ||
        stream == MOE_STREAM_GRADIENT) {
        double slowdown = 1 + gsl_rng_uniform(random);
        add_collective(f, stream, met[part], draw_traffic(f, random), slowdown, waits, count);
        return;
    }
    double seconds[8];
    for (int d = 0; d < f->cluster->devices; d++) {
        double drawn = 100 * gsl_rng_uniform(random);
        seconds[d] = gsl_rng_uniform_int(random, 5) == 0 ? 0 : drawn;
    }
    add_timed(f, stream, timed[part], seconds, waits, count);
}

static int compare_double(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

/* What is exposed on `device` at time `t`, by asking every operation. */
static moe_part exposed_at(const moe_program *program, const moe_timeline *timeline, int device,
                           double t)
{
    static const int rank[MOE_STREAMS] = {
        [MOE_STREAM_COMPUTE] = 0,  [MOE_STREAM_EXCHANGE] = 1, [MOE_STREAM_SPARSE] = 2,
        [MOE_STREAM_GRADIENT] = 3, [MOE_STREAM_COPY] = 4,     [MOE_STREAM_HOST] = 5};
    int best = MOE_STREAMS;
    moe_part part = MOE_WAIT;
    for (int id = 0; id < program->op_count; id++) {
        size_t at = moe_timeline_at(timeline, id, device);
        const moe_op *op = &program->ops[id];
        if (timeline->start_s[at] <= t && t < timeline->end_s[at] && rank[op->stream] < best) {
            best = rank[op->stream];
            part = op->part;
        }
    }
    return part;
}

static void exposed_slowly(fixture *f, const moe_program *program, double parts[static MOE_PARTS])
{
    const moe_timeline *timeline = f->timeline;
    size_t most = 2 * (size_t)program->op_count + 1;
    double *edges = moe_arena_array(f->arena, double, most);
    memset(parts, 0, MOE_PARTS * sizeof *parts);
    for (int d = 0; d < program->devices; d++) {
        size_t count = 0;
        edges[count++] = 0;
        for (int id = 0; id < program->op_count; id++) {
            edges[count++] = timeline->start_s[moe_timeline_at(timeline, id, d)];
            edges[count++] = timeline->end_s[moe_timeline_at(timeline, id, d)];
        }
        qsort(edges, count, sizeof *edges, compare_double);
        for (size_t e = 0; e < count; e++) {
            double until = e + 1 < count ? edges[e + 1] : timeline->step_s;
            double middle = 0.5 * (edges[e] + until);
            parts[exposed_at(program, timeline, d, middle)] +=
                (until - edges[e]) / program->devices;
        }
    }
}

static double sum_of(const double *parts)
{
    double sum = 0;
    for (int p = 0; p < MOE_PARTS; p++) {
        assert_true(parts[p] >= 0);
        sum += parts[p];
    }
    return sum;
}

static void random_programs_keep_the_laws(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(11, "test_timeline", 0);
    double waited = 0;
    for (int round = 0; round < 150; round++) {
        int hosts = 1 + (int)gsl_rng_uniform_int(random, 3);
        fixture *f = open_fixture(hosts, 2);
        int count = 1 + (int)gsl_rng_uniform_int(random, 80);
        for (int id = 0; id < count; id++) {
            draw_op(f, random, id);
        }
        moe_program *program = execute(f);
        assert_null(moe_timeline_check(program, f->timeline, 1e-12));
        double parts[MOE_PARTS];
        double slow[MOE_PARTS];
        moe_timeline_exposed(program, f->timeline, parts);
        exposed_slowly(f, program, slow);
        for (int p = 0; p < MOE_PARTS; p++) {
            assert_true(fabs(parts[p] - slow[p]) <= 1e-12 * f->timeline->step_s);
        }
        waited += parts[MOE_WAIT];
        assert_true(fabs(sum_of(parts) - f->timeline->step_s) <= 1e-12 * f->timeline->step_s);
        moe_timeline_critical_path(program, f->timeline, parts);
        assert_true(fabs(sum_of(parts) - f->timeline->step_s) <= 1e-12 * f->timeline->step_s);
        assert_true(parts[MOE_WAIT] == 0);
        talloc_free(f);
    }
    assert_true(waited > 0); /* the programs were not all dense */
    gsl_rng_free(random);
}

static void stretch(const moe_program *program, moe_part part, double factor)
{
    for (int id = 0; id < program->op_count; id++) {
        double *seconds = (double *)program->ops[id].duration_s; /* ours, in the arena */
        for (int d = 0; program->ops[id].part == part && d < program->devices; d++) {
            seconds[d] *= factor;
        }
    }
}

/* A chain of instances that explains the step stays one when some of it takes longer, so a part
 * that takes half as long again costs at least half its critical time; another chain may cost more.
 */
static void critical_time_is_what_stretching_costs(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(11, "test_timeline stretch", 0);
    int critical = 0;
    for (int round = 0; round < 60; round++) {
        fixture *f = open_fixture(2, 2);
        for (int id = 0; id < 40; id++) {
            draw_op(f, random, id);
        }
        moe_program *program = execute(f);
        double before_s = f->timeline->step_s;
        double parts[MOE_PARTS];
        moe_timeline_critical_path(program, f->timeline, parts);
        stretch(program, MOE_EXPERT, 1.5);
        execute(f);
        assert_true(f->timeline->step_s >= before_s + 0.5 * parts[MOE_EXPERT] - 1e-9 * before_s);
        critical += parts[MOE_EXPERT] > 0;
        talloc_free(f);
    }
    assert_true(critical > 30);
    gsl_rng_free(random);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(straggler_by_hand),
        cmocka_unit_test(critical_path_crosses_devices),
        cmocka_unit_test(precedence_by_hand),
        cmocka_unit_test(empty_program_takes_no_time),
        cmocka_unit_test(check_names_every_broken_law),
        cmocka_unit_test(check_watches_ports_and_the_step),
        cmocka_unit_test(sharing_is_a_law_of_its_own),
        cmocka_unit_test(random_programs_keep_the_laws),
        cmocka_unit_test(critical_time_is_what_stretching_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
