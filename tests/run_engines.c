/* `analytic` against `fluid` on recorded traces: equal where no two communications overlap, the
 * difference printed where they do, and the same order of policies wherever they differ by more
 * than 5 %. */
#include "tests/simulation.h"

#include <math.h>
#include <string.h>

/* A program in which no two collectives are ever under way together: gradients are not worth
 * syncing (one layer's bucket drains at once on a network of its own speed) and nothing is
 * materialized. */
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
            assert_true(fabs(a - f) <= 0.02 * f);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines_agree_without_overlap),
        cmocka_unit_test(test_engines_rank_policies_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
