/* The conservation laws over whole simulations, both engines: small seeded random cases, the
 * presets and recorded traces. Laws 1, 2, 3 and 9 are checked inside every step (`check_laws`); 4,
 * 5, 8 and 10 here; 6 and 7, which fix the program, in test_engines.c. */
#include "policies/bound.h"
#include "reports/report.h"
#include "tests/simulation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const engines[] = {"analytic", "fluid"};

static void assert_sums(const moe_run *run)
{
    for (int p = 0; p < run->policy_count; p++)
        for (int64_t i = 0; i < run->iterations; i++) {
            const moe_step_result *step = &run->policies[p].result.series[i];
            double exposed = 0, critical = 0;
            for (int part = 0; part < MOE_PARTS; part++) {
                exposed += step->exposed_s[part];
                critical += step->critical_s[part];
            }
            assert_true(fabs(exposed - step->step_s) <= 1e-9 * step->step_s);
            assert_true(fabs(critical - step->step_s) <= 1e-9 * step->step_s);
            assert_true(critical > 0 && step->critical_s[MOE_WAIT] == 0);
        }
}

/* Law 4: FSSDP with nothing materialized, even sharding, no calibration and free planning is EP, to
 * the bit. */
static void test_idle_fssdp_is_ep(void **state)
{
    (void)state;
    for (size_t e = 0; e < 2; e++) {
        void *owner = talloc_new(NULL);
        moe_binding *binding;
        overrides all = {0};
        set(owner, &all, "trace.window=[598, 603]");
        set(owner, &all,
            "policies=[{name: ep}, {name: idle, policy: fssdp, materialize: false, "
            "calibrate: false, heterogeneous_sharding: false, planning: 0 s}]");
        const moe_run *run = simulate(owner, &all, engines[e], 2, &binding);
        for (int64_t i = 0; i < run->iterations; i++)
            assert_memory_equal(&run->policies[0].result.series[i],
                                &run->policies[1].result.series[i],
                                offsetof(moe_step_result, memory));
        talloc_free(owner);
    }
}

/* Law 4, other end: with everything materialized no assignment leaves its device. */
static void test_everything_materialized_stays_local(void **state)
{
    (void)state;
    for (size_t e = 0; e < 2; e++) {
        void *owner = talloc_new(NULL);
        moe_binding *binding;
        overrides all = {0};
        set(owner, &all, "trace.window=[500, 502]");
        set(owner, &all,
            "policies=[{name: ep}, {name: all, policy: fssdp, overlap_degree: 64, "
            "slots: 64, heterogeneous_sharding: false}]");
        const moe_run *run = simulate(owner, &all, engines[e], 2, &binding);
        for (int64_t i = 0; i < run->iterations; i++) {
            assert_true(run->policies[0].result.series[i].local_share < 0.1);
            assert_true(run->policies[1].result.series[i].local_share == 1.0);
            /* 64 experts of a layer on 32 devices: 62 beyond a device's own two. */
            assert_true(run->policies[1].result.series[i].materialized == 62.0);
        }
        talloc_free(owner);
    }
}

/* Law 10: the same bytes for any number of workers. */
static void test_jobs_do_not_change_results(void **state)
{
    (void)state;
    char *texts[2];
    void *owner = talloc_new(NULL);
    for (int j = 0; j < 2; j++) {
        moe_binding *binding;
        overrides all = {0};
        set(owner, &all, "trace.window=[430, 500]"); /* two chunks */
        set(owner, &all, "model.layers=4");
        const moe_run *run = simulate(owner, &all, "fluid", j == 0 ? 1 : 3, &binding);
        json_t *json = moe_report_json(binding, run);
        texts[j] = json_dumps(json, JSON_REAL_PRECISION(17));
        json_decref(json);
    }
    assert_string_equal(texts[0], texts[1]);
    free(texts[0]);
    free(texts[1]);
    talloc_free(owner);
}

/* A profile that has all that is optional: GEMMs one by one, efficiency by rows, gradients of their own. */
static void give_measured_profile(void *owner, overrides *all)
{
    set(owner, all, "profile.gemm={m: [16, 4096], n: [64, 16384], k: [64, 8192], utilisation: [0.01, "
                    "0.1, 0.1, 0.3, 0.1, 0.5, 0.5, 1.2]}");
    set(owner, all, "profile.attention={flop_efficiency: 0.3}");
    set(owner, all, "profile.experts.start_per_expert=2 us");
    set(owner, all, "profile.experts.efficiency=[[1, 0.01], [64, 0.3], [4096, 0.6]]");
    set(owner, all, "profile.experts_weight_gradient={flop_efficiency: 0.4}");
    set(owner, all, "profile.memory.efficiency=[[1 MiB, 0.2], [64 MiB, 0.8]]");
    set(owner, all, "profile.collectives.all_gather.ranks=8");
    set(owner, all, "profile.collectives.all_gather.groups=[{ranks: 2, intra: [[1 MiB, 0.5]]}]");
}

/* Law 8: no step of any policy is below the bound of balanced, local work; the gap is printed. */
static void assert_above_bound(const moe_binding *binding, const moe_run *run, const char *engine)
{
    moe_curve_usage usage = {0};
    const moe_costs costs = {&binding->scenario->profile, binding->cluster, &usage};
    const moe_problem problem = moe_binding_problem(binding, &costs);
    double assignments = (double)run->policies[0].result.series[0].tokens *
                         (double)binding->scenario->model.top_k *
                         (double)moe_network_moe_layers(&binding->scenario->model);
    double bound = moe_bound_step_s(&problem, assignments);
    assert_true(bound > 0);
    for (int p = 0; p < run->policy_count; p++) {
        for (int64_t i = 0; i < run->iterations; i++)
            assert_true(run->policies[p].result.series[i].step_s >= bound);
        print_message("bound %.3f ms, %s, %s: %.2f times it\n", 1e3 * bound, engine,
                      run->policies[p].result.name, mean_step_s(run, p) / bound);
    }
}

static void test_no_policy_beats_the_bound(void **state)
{
    static const char *const changes[] = {
        "seed=1",                        /* the quickstart */
        "seed=1",                        /* every second with all that a profile can measure */
        "trace.tokens_per_source=32768", /* where computation weighs more */
        "cluster.nic.bandwidth=40 Tb/s", /* ... and where exchanges cost little */
        "policies.1.overlap_degree=64",  /* nothing leaves its device */
        "policies.1.overlap_degree=64",
    };
    (void)state;
    for (size_t c = 0; c < sizeof changes / sizeof *changes; c++)
        for (size_t e = 0; e < 2; e++) {
            void *owner = talloc_new(NULL);
            moe_binding *binding;
            overrides all = {0};
            set(owner, &all, "trace.window=[598, 602]");
            set(owner, &all,
                "policies=[{name: ep}, {name: fssdp}, {name: fssdp-rm, policy: fssdp, "
                "rematerialize: true}, {name: fastermoe}, {name: smartmoe, interval: 2}]");
            set(owner, &all, "%s", changes[c]);
            if (c % 2 == 1)
                give_measured_profile(owner, &all);
            const moe_run *run = simulate(owner, &all, engines[e], 2, &binding);
            assert_above_bound(binding, run, engines[e]);
            talloc_free(owner);
        }
}

/* --- exactly uniform routing --------------------------------------------------------------------
 */

/* Every source sends `each` assignments to every expert. */
static char *write_uniform_trace(void *owner, int sources, int layers, int experts, uint32_t each)
{
    char *path = talloc_asprintf(owner, "/tmp/moeplan-uniform-%d.safetensors", (int)getpid());
    moe_diag *diag = moe_diag_create(owner, stderr);
    json_t *provenance = json_object();
    moe_trace_info info = {.shape = {12, 1, layers, sources, experts},
                           .aggregation = MOE_AGGREGATION_DISPATCH,
                           .window = 1,
                           .top_k = 2,
                           .synthetic = true,
                           .origin = "exactly uniform, made by a test",
                           .provenance = provenance};
    moe_trace_writer *writer = moe_trace_writer_open(owner, path, &info, false, 0, diag);
    assert_non_null(writer);
    size_t cells = (size_t)(layers * sources * experts);
    uint32_t *counts = talloc_array(owner, uint32_t, cells);
    for (size_t i = 0; i < cells; i++)
        counts[i] = each;
    for (int i = 0; i < 12; i++)
        assert_int_equal(moe_trace_writer_append(writer, counts, NULL, diag), MOE_OK);
    assert_int_equal(moe_trace_writer_commit(writer, diag), MOE_OK);
    json_decref(provenance);
    return path;
}

/* Where nobody is hotter there is nothing to exchange or to shadow; what deciding takes is the difference. */
static void assert_uniform_changes_nothing(const moe_result *other, const moe_result *ep)
{
    double parts[2][MOE_PARTS];
    moe_result_exposed(other, parts[0]);
    moe_result_exposed(ep, parts[1]);
    assert_true(fabs(parts[0][MOE_EXPERT] / parts[1][MOE_EXPERT] - 1) < 1e-12);
    assert_true(parts[0][MOE_MATERIALIZE] == 0 && parts[0][MOE_REDUCE_PART] == 0);
    assert_true(moe_result_mean(other, offsetof(moe_step_result, moved_bytes)) == 0);
    assert_true(moe_result_step_time(other).mean > moe_result_step_time(ep).mean);
}

/* Law 5: on exactly uniform routing no policy computes experts faster than EP; what FSSDP sends
 * less is the share of assignments that stay on their device. */
static void test_uniform_routing_leaves_only_locality(void **state)
{
    (void)state;
    for (size_t e = 0; e < 2; e++) {
        void *owner = talloc_new(NULL);
        moe_binding *binding;
        overrides all = {0};
        char *trace = write_uniform_trace(owner, 32, 12, 64, 256);
        set(owner, &all, "trace={file: %s, window: [6, 10]}", trace);
        set(owner, &all, "policies=[{name: ep}, {name: fssdp, heterogeneous_sharding: false}]");
        const moe_run *run = simulate(owner, &all, engines[e], 2, &binding);
        const moe_result *ep = &run->policies[0].result, *fssdp = &run->policies[1].result;
        double parts[2][MOE_PARTS];
        moe_result_exposed(ep, parts[0]);
        moe_result_exposed(fssdp, parts[1]);
        double local = moe_result_mean(fssdp, offsetof(moe_step_result, local_share));
        double ep_local = moe_result_mean(ep, offsetof(moe_step_result, local_share));
        print_message(
            "uniform, %s: EP %.3f ms, FSSDP %.3f ms; experts %.3f and %.3f ms; staying on their "
            "device %.4f and %.4f\n",
            engines[e], 1e3 * moe_result_step_time(ep).mean, 1e3 * moe_result_step_time(fssdp).mean,
            1e3 * parts[0][MOE_EXPERT], 1e3 * parts[1][MOE_EXPERT], ep_local, local);
        assert_true(parts[1][MOE_EXPERT] >= parts[0][MOE_EXPERT] * (1 - 1e-12));
        assert_true(fabs(ep_local - 1.0 / 32) < 1e-12);
        /* t experts are everywhere, so their share stays, and of the rest what EP keeps: one in 32. */
        double copies = moe_result_mean(fssdp, offsetof(moe_step_result, materialized));
        double everywhere = copies * 32 / 31 / 64;
        assert_true(everywhere > 0);
        assert_true(fabs(local - (everywhere + (1 - everywhere) / 32)) < 1e-9);
        unlink(trace);
        talloc_free(owner);
    }
}

/* Without interference: else when gradients travel beside the experts decides what these take. */
static void test_uniform_routing_gives_nothing_to_exchange(void **state)
{
    (void)state;
    for (size_t e = 0; e < 2; e++) {
        void *owner = talloc_new(NULL);
        moe_binding *binding;
        overrides all = {0};
        char *trace = write_uniform_trace(owner, 32, 12, 64, 256);
        set(owner, &all, "trace={file: %s, window: [6, 10]}", trace);
        set(owner, &all, "interference=false");
        set(owner, &all, "policies=[{name: ep}, {name: fastermoe, rule: released}, "
            "{name: smartmoe, interval: 1}]");
        const moe_run *run = simulate(owner, &all, engines[e], 2, &binding);
        for (int p = 1; p < run->policy_count; p++)
            assert_uniform_changes_nothing(&run->policies[p].result, &run->policies[0].result);
        unlink(trace);
        talloc_free(owner);
    }
}

/* --- seeded random small cases ------------------------------------------------------------------
 */

static unsigned long random_state;

static int draw(int low, int high)
{
    random_state = random_state * 6364136223846793005UL + 1442695040888963407UL;
    return low + (int)((random_state >> 33) % (unsigned long)(high - low + 1));
}

static const char *pick(const char *a, const char *b)
{
    return draw(0, 1) ? a : b;
}

static char *write_random_trace(void *owner, int micro_batches, int layers, int sources,
                                int experts)
{
    char *path = talloc_asprintf(owner, "/tmp/moeplan-random-%d.safetensors", (int)getpid());
    moe_diag *diag = moe_diag_create(owner, stderr);
    json_t *provenance = json_object();
    moe_trace_info info = {.shape = {8, micro_batches, layers, sources, experts},
                           .aggregation = MOE_AGGREGATION_DISPATCH,
                           .window = 1,
                           .top_k = 1,
                           .synthetic = true,
                           .origin = "random, made by a test",
                           .provenance = provenance};
    moe_trace_writer *writer = moe_trace_writer_open(owner, path, &info, false, 0, diag);
    assert_non_null(writer);
    size_t cells = (size_t)(micro_batches * layers * sources * experts);
    uint32_t *counts = talloc_array(owner, uint32_t, cells);
    for (int i = 0; i < 8; i++) {
        for (size_t c = 0; c < cells; c++) /* a few hot cells, many cold ones, some empty */
            counts[c] = (uint32_t)(draw(0, 9) == 0 ? draw(300, 4000) : draw(0, 90));
        assert_int_equal(moe_trace_writer_append(writer, counts, NULL, diag), MOE_OK);
    }
    assert_int_equal(moe_trace_writer_commit(writer, diag), MOE_OK);
    json_decref(provenance);
    return path;
}

typedef struct random_case {
    int hosts, per_host, groups, experts, layers, micro_batches;
} random_case;

static random_case draw_case(void)
{
    random_case drawn = {.hosts = draw(1, 3), .per_host = draw(2, 4), .layers = draw(1, 3)};
    drawn.micro_batches = draw(1, 2);
    drawn.groups = draw(0, 1) && drawn.hosts > 1 ? drawn.hosts : 1;
    int ep = drawn.hosts * drawn.per_host / drawn.groups;
    drawn.experts = ep * draw(1, 3);
    return drawn;
}

static void describe_case(void *owner, const random_case *drawn, overrides *all)
{
    set(owner, all, "cluster.hosts=%d", drawn->hosts);
    set(owner, all, "cluster.devices_per_host=%d", drawn->per_host);
    set(owner, all, "cluster.nic.sharing=%s", pick("per_host", "per_device"));
    set(owner, all, "parallel.ep=%d", drawn->hosts * drawn->per_host / drawn->groups);
    set(owner, all, "model.layers=%d", drawn->layers);
    set(owner, all, "model.experts=%d", drawn->experts);
    set(owner, all, "model.top_k=1");
    set(owner, all, "batch.micro_batches=%d", drawn->micro_batches);
    set(owner, all, "batch.recompute=%s", draw(0, 2) ? pick("none", "experts") : "full");
    set(owner, all, "batch.optimizer=%s", pick("replicated", "zero1"));
    set(owner, all, "port_sharing=%s", pick("per_collective", "per_flow"));
    set(owner, all, "interference=%s", pick("true", "false"));
    set(owner, all,
        "policies=[{name: ep}, {name: fssdp, rematerialize: %s, hide_under: %s, accumulate: %s, "
        "gather: %s, algorithm: %s, reshard_interval: 3, slots: %d}]",
        pick("true", "false"), pick("attention", "layer"), pick("reduce_each", "hold"),
        pick("per_step", "per_micro_batch"),
        draw(0, 1) ? pick("chain", "star") : pick("tree", "world"), draw(0, 4));
}

static void test_random_cases_keep_the_laws(void **state)
{
    (void)state;
    enum { CASES = 24 };
    for (int c = 0; c < CASES; c++) {
        void *owner = talloc_new(NULL);
        moe_binding *binding;
        random_state = 77000UL + (unsigned long)c;
        random_case drawn = draw_case();
        overrides all = {0};
        char *trace = write_random_trace(owner, drawn.micro_batches, drawn.layers,
                                         drawn.hosts * drawn.per_host, drawn.experts);
        describe_case(owner, &drawn, &all);
        if (c % 3 == 0)
            give_measured_profile(owner, &all);
        set(owner, &all, "trace={file: %s, window: [2, 7]}", trace);
        const moe_run *analytic = simulate(owner, &all, "analytic", 2, &binding);
        const moe_run *fluid = simulate(owner, &all, "fluid", 2, &binding);
        assert_sums(analytic);
        assert_sums(fluid);
        /* Sharing only ever delays a drain, and a delay only ever delays what waits for it. With interference
         * there is one anomaly: a collective that starts later may leave alone a computation that it
         * took SMs from, which then ends earlier by at most that share of its time. */
        double least =
            binding->scenario->interference ? 1 - binding->scenario->profile.sm_share : 1 - 1e-9;
        for (int p = 0; p < 2; p++)
            for (int64_t i = 0; i < fluid->iterations; i++)
                assert_true(fluid->policies[p].result.series[i].step_s >=
                            analytic->policies[p].result.series[i].step_s * least);
        unlink(trace);
        talloc_free(owner);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_fssdp_is_ep),
        cmocka_unit_test(test_everything_materialized_stays_local),
        cmocka_unit_test(test_jobs_do_not_change_results),
        cmocka_unit_test(test_no_policy_beats_the_bound),
        cmocka_unit_test(test_uniform_routing_leaves_only_locality),
        cmocka_unit_test(test_uniform_routing_gives_nothing_to_exchange),
        cmocka_unit_test(test_random_cases_keep_the_laws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
