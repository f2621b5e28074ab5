/* What was measured comes back: isolated uniform collectives take what the points of their profile were
 * made from, in every engine, on the points and between them, within a host and across hosts.
 *
 * The measured seconds are invented, with a bump as protocol switches make; efficiencies are made from
 * them by inverting, by hand, the loads that models/collective.h states. Between two points the seconds
 * expected are those of the efficiency that is linear in both logarithms. analytic is exact; the others
 * simulate flows, for which 1 % is allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/engine.h"
#include "sim/workers.h"
#include <cmocka.h>
#include <math.h>
#include <talloc.h>

enum { POINTS = 6, SIZES = 2 * POINTS - 1, KINDS = 4, ENGINES = 3 };

static const double start_s = 7e-6, start_per_rank_s = 1e-6;
static const double intra_latency_s = 1e-6, nic_latency_s = 9e-6;
static const double intra_rate = 3e11, nic_rate = 5e10;

static const moe_collective_kind kinds[KINDS] = {MOE_ALL_TO_ALL, MOE_ALL_GATHER, MOE_REDUCE_SCATTER,
                                                 MOE_ALL_REDUCE};
static const moe_engine *const engines[ENGINES] = {&moe_engine_analytic, &moe_engine_fluid,
                                                   &moe_engine_message};

/* Which devices, and which of their ports bind. */
typedef struct place {
    const char *name;
    int hosts, per_host;
    int sharing; /* moe_nic_sharing */
    double rate; /* of the port that binds */
    double
        share; /* of what a rank exchanges with others in an all-to-all, bytes on that port; in ranks */
    int nic_hops; /* of one turn of a ring, beside hops within hosts */
    int intra_hops;
} place;

/* An all-to-all over 8 ranks puts S / 8 on a port for every pair of ranks that it carries. */
static const place places[] = {
    {"within a host of 8", 1, 8, MOE_NIC_PER_DEVICE, 3e11, 7, 0, 7},
    {"8 hosts of 1", 8, 1, MOE_NIC_PER_DEVICE, 5e10, 7, 7, 0},
    {"2 hosts of 4 with one NIC", 2, 4, MOE_NIC_PER_HOST, 5e10, 4 * 4, 2, 5},
};

enum { RANKS = 8 };

/* Bytes on the port that binds, for S = 1. */
static double load_of(const place *p, moe_collective_kind kind)
{
    if (kind == MOE_ALL_TO_ALL)
        return p->share / RANKS;
    return (kind == MOE_ALL_REDUCE ? 2.0 : 1.0) * (RANKS - 1) / RANKS;
}

static double alpha_of(const place *p, moe_collective_kind kind)
{
    const double turn_s = p->nic_hops * nic_latency_s + p->intra_hops * intra_latency_s;
    const double hop_s = p->hosts > 1 ? nic_latency_s : intra_latency_s;
    const double latency_s = kind == MOE_ALL_TO_ALL   ? hop_s
                             : kind == MOE_ALL_REDUCE ? 2 * turn_s
                                                      : turn_s;
    return start_s + 3 * start_per_rank_s + latency_s; /* log2(8) = 3 */
}

/* Invented: 64 KiB times 8 a point, 25 % to 85 % of the rate, the fourth below the third. */
static double point_bytes(int i)
{
    return 65536 * pow(8, i);
}

static double measured_s(const place *p, moe_collective_kind kind, int i)
{
    static const double reached[POINTS] = {0.25, 0.4, 0.62, 0.5, 0.77, 0.85};
    const double jitter = 1 + 0.01 * (double)kind;
    return alpha_of(p, kind) + load_of(p, kind) * point_bytes(i) / p->rate / reached[i] * jitter;
}

typedef struct subject {
    moe_cluster_spec spec;
    moe_cluster *cluster;
    moe_profile profile;
    double x[POINTS];
    double y[MOE_COLLECTIVE_KINDS][POINTS];
    double high[POINTS]; /* of ports that must not bind */
    moe_curve_usage usage;
    moe_costs costs;
    moe_arena *arena;
    int count;
    moe_program *programs[KINDS * SIZES];
    double expected_s[KINDS * SIZES];
    moe_diag *diag;
    double *results; /* [ENGINES][KINDS * SIZES], shared */
} subject;

static void make_profile(subject *s, const place *p)
{
    for (int i = 0; i < POINTS; i++) {
        s->x[i] = point_bytes(i);
        s->high[i] = 1;
    }
    for (int k = 0; k < KINDS; k++) {
        const moe_collective_kind kind = kinds[k];
        moe_collective_curve *curve = &s->profile.collectives[kind];
        for (int i = 0; i < POINTS; i++)
            s->y[kind][i] =
                load_of(p, kind) * s->x[i] / p->rate / (measured_s(p, kind, i) - alpha_of(p, kind));
        const moe_points binding = {s->x, s->y[kind], POINTS};
        const moe_points idle = {s->x, s->high, POINTS};
        *curve = (moe_collective_curve){.start_s = start_s,
                                        .start_per_rank_s = start_per_rank_s,
                                        .intra = p->hosts > 1 ? idle : binding,
                                        .inter = p->hosts > 1 ? binding : idle};
    }
}

static moe_traffic *traffic_of(subject *s, moe_collective_kind kind, double bytes)
{
    static const int all[RANKS] = {0, 1, 2, 3, 4, 5, 6, 7};
    if (kind != MOE_ALL_TO_ALL)
        return moe_traffic_group(s->arena, &s->costs, kind, all, 1, RANKS, bytes);
    double *pairs = moe_arena_array(s->arena, double, RANKS *RANKS);
    for (int pair = 0; pair < RANKS * RANKS; pair++)
        pairs[pair] = bytes / RANKS;
    return moe_traffic_all_to_all(s->arena, &s->costs, pairs, false);
}

/* Even sizes are points; odd ones lie between, a third of the way in the logarithm. */
static double size_of(int i)
{
    return point_bytes(i / 2) * (i % 2 ? 2 : 1);
}

static double expected_s(const place *p, moe_collective_kind kind, int i)
{
    const double left_s = measured_s(p, kind, i / 2);
    if (i % 2 == 0)
        return left_s;
    const double alpha_s = alpha_of(p, kind), load = load_of(p, kind) / p->rate;
    const double left = load * point_bytes(i / 2) / (left_s - alpha_s);
    const double right = load * point_bytes(i / 2 + 1) / (measured_s(p, kind, i / 2 + 1) - alpha_s);
    return alpha_s + load * size_of(i) / (pow(left, 2.0 / 3) * pow(right, 1.0 / 3));
}

static void add_program(subject *s, const place *p, moe_collective_kind kind, int size)
{
    moe_program_builder *builder = moe_program_begin(s->arena, s->cluster);
    const moe_op op = {.name = "alone",
                       .kind = MOE_OP_COLLECTIVE,
                       .part = MOE_DISPATCH,
                       .stream = MOE_STREAM_EXCHANGE,
                       .layer = -1,
                       .micro_batch = -1,
                       .traffic = traffic_of(s, kind, size_of(size)),
                       .slowdown = 1};
    moe_program_add(builder, &op, NULL, 0);
    s->expected_s[s->count] = expected_s(p, kind, size);
    s->programs[s->count++] = moe_program_end(builder);
}

static moe_status execute(void *context, int job)
{
    subject *s = context;
    const moe_engine *engine = engines[job];
    moe_timeline *timeline = moe_timeline_create(s, s->cluster->devices);
    void *state = engine->open(s, s->cluster, NULL, s->diag);
    moe_status status = state ? MOE_OK : MOE_INTERNAL;
    for (int i = 0; i < s->count && status == MOE_OK; i++) {
        status = engine->execute(state, s->programs[i], timeline, s->diag);
        s->results[job * KINDS * SIZES + i] = timeline->step_s;
    }
    return status;
}

static const char *describe(void *context, int job)
{
    (void)context;
    return engines[job]->name;
}

static subject *open_subject(const place *p)
{
    subject *s = talloc_zero(NULL, subject);
    s->spec = (moe_cluster_spec){
        .hosts = p->hosts,
        .devices_per_host = p->per_host,
        .device = {"invented", 1e14, 1e12, 1e11, 100},
        .intra = {.kind = MOE_INTRA_NVSWITCH,
                  .bandwidth_bytes_per_s = intra_rate,
                  .latency_s = intra_latency_s},
        .nic = {.sharing = p->sharing,
                .bandwidth_bytes_per_s = nic_rate,
                .latency_s = nic_latency_s},
        .fabric = {.oversubscription = 1},
    };
    s->diag = moe_diag_create(s, stderr);
    s->cluster = moe_cluster_create(s, &s->spec, NULL, s->diag);
    assert_non_null(s->cluster);
    s->arena = moe_arena_create(s);
    make_profile(s, p);
    s->costs = (moe_costs){&s->profile, s->cluster, &s->usage};
    s->results = moe_workers_shared(s, sizeof(double[ENGINES * KINDS * SIZES]));
    assert_non_null(s->results);
    return s;
}

static void check_place(const place *p)
{
    subject *s = open_subject(p);
    for (int k = 0; k < KINDS; k++)
        for (int size = 0; size < SIZES; size++)
            add_program(s, p, kinds[k], size);
    const moe_workers_plan plan = {
        .job_count = ENGINES, .parallel = 1, .job = execute, .describe = describe, .context = s};
    assert_int_equal(moe_workers_run(&plan, s->diag), MOE_OK);
    for (int e = 0; e < ENGINES; e++) {
        double worst = 0;
        for (int i = 0; i < s->count; i++) {
            const double found_s = s->results[e * KINDS * SIZES + i];
            const double error = fabs(found_s / s->expected_s[i] - 1);
            if (!(error <= (e == 0 ? 1e-9 : 0.01)))
                fail_msg("%s, %s, %s of %g bytes: %g s; the profile was made from %g s", p->name,
                         engines[e]->name, moe_collective_names[kinds[i / SIZES]],
                         size_of(i % SIZES), found_s, s->expected_s[i]);
            worst = fmax(worst, error);
        }
        print_message("%-26s %-9s largest error %.2g\n", p->name, engines[e]->name, worst);
    }
    for (int k = 0; k < KINDS; k++)
        assert_int_equal(s->usage.outside[MOE_CURVE_COLLECTIVE + kinds[k]], 0);
    talloc_free(s);
}

static void test_points_come_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        check_place(&places[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_points_come_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
