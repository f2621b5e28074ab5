/* `fluid` against its reference, `message`, on recorded traces with every policy, on 8 to 64 devices:
 *
 *   alone   collectives of a step by themselves                                    within 2 %
 *   two     an exchange beside what runs in the background before it               both done within 2 %
 *   step    the whole step                                                         within 3 %
 *
 * All differences are printed. What they come from:
 *
 *   alone   max-min fairness among a collective's own flows may leave a port idle that others still
 *           need. On recorded routing one hot port has work all along, so nothing is lost. Where two
 *           kinds of ports are nearly as hot, as in a chain of broadcasts over a PCIe bridge, 10 % are:
 *           message lets hops of one pipeline run apart, fluid does not. Bounded by 12 % there, the step by 5 %.
 *   one     when the first of two is done is a matter of how a port is shared, not of right or wrong: a
 *           flow has one weight for all ports of its path, a collective one part of each port. Printed.
 *   step    devices leave an exchange with their own transfers in message, with their ports in fluid: so
 *           background collectives begin, and meet exchanges, at other times. */
#include "tests/simulation.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const double most_alone = 0.02;
static const double most_over_bridge = 0.12; /* alone, and two */
static const double most_two = 0.02;
static const double most_step = 0.03;
static const double most_step_over_bridge = 0.05;

enum { MAX_PROGRAMS = 64, ALONE = 12, TWO = 6 };

/* When a program's first two collectives were done, and the step. */
typedef struct dates {
    double done_s[2];
    double step_s;
} dates;

/* --- a list of programs, executed by both engines --------------------------------------------- */

typedef struct batch {
    moe_sharing sharing;
    int count;
    moe_program programs[MAX_PROGRAMS];
    moe_op ops[MAX_PROGRAMS][2];
    dates *fluid; /* shared with children */
    dates *message;
} batch;

static double last_end(const moe_program *program, const moe_timeline *timeline, int op)
{
    double last_s = 0;
    for (int device = 0; device < program->devices; device++)
        last_s = fmax(last_s, timeline->end_s[moe_timeline_at(timeline, op, device)]);
    return last_s;
}

static void execute_all(const batch *all, const moe_engine *engine, dates *results)
{
    moe_diag *diag = moe_diag_create(NULL, stderr);
    const moe_program *programs = all->programs;
    moe_timeline *timeline = moe_timeline_create(NULL, programs[0].devices);
    void *state = engine->open(NULL, programs[0].cluster, &all->sharing, diag);
    for (int i = 0; i < all->count; i++) {
        if (!state || engine->execute(state, &programs[i], timeline, diag) != MOE_OK)
            _exit(1);
        for (int op = 0; op < 2 && op < programs[i].op_count; op++)
            results[i].done_s[op] = last_end(&programs[i], timeline, op);
        results[i].step_s = timeline->step_s;
    }
    _exit(0);
}

static dates *in_child(const batch *all, const moe_engine *engine)
{
    dates *results = mmap(NULL, sizeof(dates[MAX_PROGRAMS]), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(results != MAP_FAILED);
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        execute_all(all, engine, results);
    int status = 0;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return results;
}

/* One or two collectives that begin at time 0, undisturbed by computation. */
static void add_program(batch *all, const moe_program *step, const moe_op *first,
                        const moe_op *second)
{
    const moe_op *given[] = {first, second};
    if (all->count == MAX_PROGRAMS)
        return;
    moe_op *ops = all->ops[all->count];
    int count = 0;
    for (; count < 2 && given[count]; count++) {
        ops[count] = *given[count];
        ops[count].slowdown = 1;
        ops[count].sm_share = 0;
        ops[count].wait_count = 0;
        ops[count].stream = count == 0 ? MOE_STREAM_EXCHANGE : MOE_STREAM_SPARSE;
    }
    all->programs[all->count++] = (moe_program){
        .devices = step->devices, .op_count = count, .ops = ops, .cluster = step->cluster};
}

/* --- the worst of a step ---------------------------------------------------------------------- */

typedef struct figures {
    double alone, two, first,
        step; /* largest difference of fluid from message, relative, with its sign */
    int alone_count, two_count;
} figures;

static void take_worse(double *worst, double fluid_s, double message_s)
{
    const double difference = message_s > 0 ? fluid_s / message_s - 1 : 0;
    if (fabs(difference) > fabs(*worst))
        *worst = difference;
}

static bool carries(const moe_op *op)
{
    return op->kind == MOE_OP_COLLECTIVE && op->traffic != NULL;
}

/* Evenly spread over the step. */
static void add_alone(batch *all, const moe_program *step)
{
    int count = 0, seen = 0, added = 0;
    for (int id = 0; id < step->op_count; id++)
        count += carries(&step->ops[id]);
    for (int id = 0; id < step->op_count; id++) {
        if (!carries(&step->ops[id]))
            continue;
        if (seen++ * ALONE >= added * count && added < ALONE) {
            add_program(all, step, &step->ops[id], NULL);
            added++;
        }
    }
}

/* A background collective and the exchange that follows it in the program. */
static void add_pairs(batch *all, const moe_program *step)
{
    const moe_op *background = NULL;
    int added = 0;
    for (int id = 0; id < step->op_count && added < TWO; id++) {
        const moe_op *op = &step->ops[id];
        if (carries(op) && op->stream != MOE_STREAM_EXCHANGE)
            background = op;
        if (!carries(op) || op->stream != MOE_STREAM_EXCHANGE || !background)
            continue;
        add_program(all, step, op, background);
        background = NULL;
        added++;
    }
}

static void compare(batch *all, figures *f)
{
    dates *fluid = in_child(all, &moe_engine_fluid);
    dates *message = in_child(all, &moe_engine_message);
    for (int i = 0; i < all->count; i++) {
        const int ops = all->programs[i].op_count;
        if (ops == 1) {
            take_worse(&f->alone, fluid[i].step_s, message[i].step_s);
            f->alone_count++;
        } else if (ops == 2) {
            const int first = message[i].done_s[0] > message[i].done_s[1];
            take_worse(&f->two, fluid[i].step_s, message[i].step_s);
            take_worse(&f->first, fluid[i].done_s[first], message[i].done_s[first]);
            f->two_count++;
        } else {
            take_worse(&f->step, fluid[i].step_s, message[i].step_s);
        }
    }
    munmap(fluid, sizeof(dates[MAX_PROGRAMS]));
    munmap(message, sizeof(dates[MAX_PROGRAMS]));
}

typedef struct observer {
    moe_sharing sharing;
    figures figures;
} observer;

static void observe(void *context, int policy, int64_t iteration, const moe_program *program,
                    const moe_timeline *timeline)
{
    (void)policy;
    (void)iteration;
    (void)timeline;
    observer *o = context;
    batch *all = talloc_zero(NULL, batch);
    all->sharing = o->sharing;
    add_alone(all, program);
    add_pairs(all, program);
    all->programs[all->count++] = *program;
    compare(all, &o->figures);
    talloc_free(all);
}

/* --- the cases -------------------------------------------------------------------------------- */

typedef struct place {
    const char *trace;
    int experts;
    int top_k;
    int hosts; /* of eight devices */
    const char *cluster;
    const char *sharing;
} place;

static void assert_within(const char *what, const place *p, const char *policy, double difference,
                          double most)
{
    if (!(fabs(difference) <= most))
        fail_msg("%s, %s on %d hosts, %s: fluid differs from message by %.2f %%, more than %.0f %%",
                 p->trace, policy, p->hosts, what, 100 * difference, 100 * most);
}

static void compare_policy(const moe_binding *binding, const place *p, int policy, moe_diag *diag)
{
    enum { ITERATION = 2 };
    const moe_policy_use *uses = binding->scenario->policies.items;
    observer o = {.sharing = moe_binding_sharing(binding)};
    const moe_run_options options = {.observe = observe, .observe_context = &o};
    moe_step_result result;
    moe_curve_usage usage = {0};
    assert_int_equal(
        moe_run_chunk(binding, policy, ITERATION, ITERATION + 1, &options, &result, &usage, diag),
        MOE_OK);
    const figures *f = &o.figures;
    print_message("%-30s %-18s %-14s %3d  %-10s %2d %+7.2f%%  %2d %+7.2f%%  %+8.1f%%  %+8.2f%%\n",
                  p->trace, p->cluster, p->sharing, binding->cluster->devices, uses[policy].name,
                  f->alone_count, 100 * f->alone, f->two_count, 100 * f->two, 100 * f->first,
                  100 * f->step);
    const bool bridge = binding->scenario->cluster.intra.bridge_bytes_per_s > 0;
    assert_within("alone", p, uses[policy].name, f->alone, bridge ? most_over_bridge : most_alone);
    assert_within("two", p, uses[policy].name, f->two, bridge ? most_over_bridge : most_two);
    assert_within("step", p, uses[policy].name, f->step,
                  bridge ? most_step_over_bridge : most_step);
}

static const moe_binding *bind_place(void *owner, const place *p, moe_diag *diag)
{
    overrides all = {0};
    set(owner, &all, "cluster=%s/configs/clusters/%s.yaml", MOE_TEST_SOURCE_DIR, p->cluster);
    set(owner, &all, "cluster.hosts=%d", p->hosts);
    set(owner, &all, "trace.file=%s/%s.safetensors", SAMPLES, p->trace);
    set(owner, &all, "trace.window=[100, 105]");
    set(owner, &all, "trace.sources=%s", p->hosts > 4 ? "tile" : "fold");
    set(owner, &all, "model.experts=%d", p->experts);
    set(owner, &all, "model.top_k=%d", p->top_k);
    set(owner, &all, "model.layers=4");
    set(owner, &all, "parallel.ep=%d", 8 * p->hosts < p->experts ? 8 * p->hosts : p->experts);
    set(owner, &all, "port_sharing=%s", p->sharing);
    set(owner, &all, "port_weights.broadcast=3");
    return moe_binding_create(owner, QUICKSTART, all.items, all.count, "analytic", diag);
}

static void compare_place(const place *p)
{
    void *owner = talloc_new(NULL);
    moe_diag *diag =
        moe_diag_create(owner, NULL); /* the profile is not of every cluster's device */
    const moe_binding *binding = bind_place(owner, p, diag);
    assert_non_null(binding);
    for (int i = 0; i < (int)binding->scenario->policies.count; i++)
        compare_policy(binding, p, i, diag);
    talloc_free(owner);
}

/* clang-format off */
static const place places[] = {
    {"gpt-moe-16e-top2-raw", 16, 2, 1, "p4d_4x8_a100", "per_collective"},
    {"gpt-moe-16e-top2-aux", 16, 2, 2, "p4d_4x8_a100", "per_collective"},
    {"gpt-moe-16e-topp04", 16, 2, 2, "p4d_4x8_a100", "per_flow"},
    {"adamoe-16e-16null-top4", 16, 2, 4, "p4d_4x8_a100", "per_collective"},
    {"gpt-moe-64e-top2-raw", 64, 2, 4, "p4d_4x8_a100", "per_collective"},
    {"gpt-moe-64e-top2-raw", 64, 2, 4, "p4d_4x8_a100", "per_flow"},
    {"gpt-moe-64e-top2-raw", 64, 2, 4, "p4d_4x8_a100", "weighted"},
    {"deepseek-moe-64e-top6-auxfree", 64, 6, 4, "p4d_4x8_a100", "per_collective"},
    {"deepseek-moe-64e-top6-auxfree", 64, 6, 4, "p5_8xh100", "per_collective"},
    {"deepseek-moe-64e-top6-auxfree", 64, 6, 4, "hgx_h200", "per_collective"},
    {"gpt-moe-64e-top2-raw", 64, 2, 2, "l40s_pcie", "per_collective"},
    {"deepseek-moe-64e-top6-auxfree", 64, 6, 4, "l40s_pcie", "per_collective"},
    {"gpt-moe-64e-top2-raw", 64, 2, 4, "p3dn_4x8_v100_mesh", "per_collective"},
    {"gpt-moe-64e-top2-raw", 64, 2, 8, "p4d_4x8_a100", "per_collective"},
    {"deepseek-moe-64e-top6-auxfree", 64, 6, 8, "p5_8xh100", "per_collective"},
};
/* clang-format on */

static void test_recorded_traces(void **state)
{
    (void)state;
    print_message("the worst of fluid / message - 1 over so many cases\n");
    print_message("%-30s %-18s %-14s %3s  %-10s %11s  %11s  %9s  %9s\n", "trace", "cluster",
                  "sharing", "dev", "policy", "alone", "two, both", "one", "step");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
#ifdef MOEPLAN_SANITIZED
        if (places[i].hosts > 4) {
            print_message("%s on %d hosts: left out of this build, which is too slow for it\n",
                          places[i].trace, places[i].hosts);
            continue;
        }
#endif
        compare_place(&places[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded_traces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
