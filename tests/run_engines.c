/* `analytic` against `fluid` on recorded traces: equal where no two communications overlap, the
 * difference printed where they do, and the same order of policies wherever they differ by more
 * than 5 %. */
#include "sim/sensitivity.h"
#include "tests/simulation.h"

#include <math.h>
#include <string.h>

/* Programs in which no two collectives are ever under way together: equal but for rounding. */
static void test_engines_agree_without_overlap(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_binding *binding;
    overrides all = {0};
    set(owner, &all, "trace.window=[500, 520]");
    set(owner, &all, "policies=[{name: ep}, {name: fssdp}]");
    /* One layer and no vocabulary: the only background collectives, materialization and the dense
     * gradient, start after the last exchange has ended or end before the first begins. */
    set(owner, &all, "model.layers=1");
    set(owner, &all, "model.vocabulary=0");
    const moe_run *analytic = simulate(owner, &all, "analytic", 2, &binding);
    const moe_run *fluid = simulate(owner, &all, "fluid", 2, &binding);
    for (int p = 0; p < 2; p++)
        for (int64_t i = 0; i < analytic->iterations; i++) {
            double a = analytic->policies[p].result.series[i].step_s;
            double f = fluid->policies[p].result.series[i].step_s;
            assert_true(fabs(a - f) <= 1e-9 * f);
        }
    print_message("no overlap: EP %.6f and %.6f ms, FSSDP %.6f and %.6f ms (analytic, fluid)\n",
                  1e3 * mean_step_s(analytic, 0), 1e3 * mean_step_s(fluid, 0),
                  1e3 * mean_step_s(analytic, 1), 1e3 * mean_step_s(fluid, 1));
    talloc_free(owner);
}

static void compare_orders(const moe_run *analytic, const moe_run *fluid)
{
    for (int a = 0; a < fluid->policy_count; a++)
        for (int b = 0; b < a; b++) {
            double by_fluid = mean_step_s(fluid, a) / mean_step_s(fluid, b);
            double by_analytic = mean_step_s(analytic, a) / mean_step_s(analytic, b);
            if (fabs(by_fluid - 1) > 0.05)
                assert_true((by_fluid > 1) == (by_analytic > 1));
        }
}

static void test_engines_rank_policies_alike(void **state)
{
    static const struct {
        const char *trace;
        int experts, hosts;
    } cases[] = {{"gpt-moe-64e-top2-raw", 64, 4},
                 {"gpt-moe-16e-top2-raw", 16, 2},
                 {"gpt-moe-16e-top2-aux", 16, 2}};
    (void)state;
    print_message("%-24s %-10s %12s %12s %8s\n", "trace", "policy", "analytic ms", "fluid ms",
                  "differ");
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        void *owner = talloc_new(NULL);
        moe_binding *binding;
        overrides all = {0};
        set(owner, &all, "trace.file=%s/%s.safetensors", SAMPLES, cases[c].trace);
        set(owner, &all, "trace.window=[595, 605]");
        set(owner, &all, "model.experts=%d", cases[c].experts);
        set(owner, &all, "cluster.hosts=%d", cases[c].hosts);
        set(owner, &all, "parallel.ep=%d", 8 * cases[c].hosts);
        const moe_run *analytic = simulate(owner, &all, "analytic", 2, &binding);
        const moe_run *fluid = simulate(owner, &all, "fluid", 2, &binding);
        for (int p = 0; p < fluid->policy_count; p++)
            print_message("%-24s %-10s %12.4f %12.4f %7.3f%%\n", cases[c].trace,
                          fluid->policies[p].result.name, 1e3 * mean_step_s(analytic, p),
                          1e3 * mean_step_s(fluid, p),
                          100 * (mean_step_s(fluid, p) / mean_step_s(analytic, p) - 1));
        compare_orders(analytic, fluid);
        talloc_free(owner);
    }
}

/* The sampled steps are the run's own where the rule is the run's, and the answer depends little on it. */
static void test_sharing_rules_matter_little(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, stderr);
    const int chosen[] = {0, 1, 2};
    const moe_run_options options = {.jobs = 2};
    moe_binding *binding;
    moe_status status;
    overrides all = {0};
    set(owner, &all, "trace.window=[500, 510]");
    const moe_run *run = simulate(owner, &all, "fluid", 2, &binding);
    const moe_sensitivity *found =
        moe_sharing_sensitivity(owner, binding, run, chosen, 3, &options, &status, diag);
    assert_int_equal(status, MOE_OK);
    assert_non_null(found);
    assert_int_equal(found->steps, 4);
    assert_int_equal(found->rule_count, 1);
    assert_int_equal(found->rules[0], MOE_SHARE_PER_FLOW);
    for (int p = 0; p < 3; p++) {
        print_message("per flow instead of per collective: %s %+.3f %%\n",
                      run->policies[p].result.name, 100 * found->difference[p]);
        assert_true(found->difference[p] != 0);
        assert_true(fabs(found->difference[p]) < 0.05);
    }
    assert_true(fabs(moe_sensitivity_most(found)) >= fabs(found->difference[1]));
    set(owner, &all, "port_sharing=weighted"); /* with equal weights: per collective */
    run = simulate(owner, &all, "fluid", 2, &binding);
    found = moe_sharing_sensitivity(owner, binding, run, chosen, 3, &options, &status, diag);
    assert_int_equal(found->rule_count, 2);
    assert_true(fabs(found->difference[0]) < 1e-9 && fabs(found->difference[1]) > 0);
    simulate(owner, &all, "analytic", 2, &binding);
    assert_null(moe_sharing_sensitivity(owner, binding, run, chosen, 3, &options, &status, diag));
    assert_int_equal(status, MOE_OK);
    talloc_free(owner);
}

static const char *const jitter =
    "stragglers=[{what: compute, distribution: lognormal, spread: 0.1, correlation: operation}, "
    "{what: nic, distribution: gamma, spread: 0.2, correlation: host}]";

static const moe_run *simulate_jitter(void *owner, const char *engine, int seed, int jobs)
{
    moe_binding *binding;
    overrides all = {0};
    set(owner, &all, "trace.window=[500, 566]"); /* two chunks */
    set(owner, &all, "model.layers=2");
    set(owner, &all, "seed=%d", seed);
    set(owner, &all, "%s", jitter);
    return simulate(owner, &all, engine, jobs, &binding);
}

static void test_jitter_is_reproducible(void **state)
{
    (void)state;
    for (int i = 0; moe_engines[i]; i++) {
        void *owner = talloc_new(NULL);
        const moe_run *one = simulate_jitter(owner, moe_engines[i]->name, 1, 1);
        const moe_run *two = simulate_jitter(owner, moe_engines[i]->name, 1, 2);
        const moe_run *other = simulate_jitter(owner, moe_engines[i]->name, 2, 2);
        for (int p = 0; p < one->policy_count; p++) {
            const moe_step_result *a = one->policies[p].result.series;
            const moe_step_result *b = two->policies[p].result.series;
            assert_memory_equal(a, b, (size_t)one->iterations * sizeof *a);
            assert_true(a[0].step_s != other->policies[p].result.series[0].step_s);
        }
        talloc_free(owner);
    }
}

/* What a slow device adds to the waiting is hardware's, and the rest what there is without it. */
static void test_waiting_by_cause(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_binding *binding;
    overrides all = {0};
    set(owner, &all, "trace.window=[500, 505]");
    const moe_run *nominal = simulate(owner, &all, "analytic", 2, &binding);
    set(owner, &all, "stragglers=[{what: compute, devices: [5], factor: 0.25}]");
    const moe_run *slow = simulate(owner, &all, "analytic", 2, &binding);
    for (int p = 0; p < slow->policy_count; p++) {
        for (int64_t i = 0; i < slow->iterations; i++) {
            const moe_step_result *with = &slow->policies[p].result.series[i];
            const moe_step_result *without = &nominal->policies[p].result.series[i];
            assert_true(with->step_s > without->step_s);
            assert_true(with->hardware_wait_s > 0);
            assert_true(without->hardware_wait_s == 0 && !without->stragglers);
            assert_true(fabs(with->exposed_s[MOE_WAIT] - with->hardware_wait_s -
                             without->exposed_s[MOE_WAIT]) < 1e-12);
        }
    }
    talloc_free(owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines_agree_without_overlap),
        cmocka_unit_test(test_engines_rank_policies_alike),
        cmocka_unit_test(test_sharing_rules_matter_little),
        cmocka_unit_test(test_jitter_is_reproducible),
        cmocka_unit_test(test_waiting_by_cause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
