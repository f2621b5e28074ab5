/* What FSSDP gains over EP, by third of each recorded run, against the imbalance measured there: it
 * must rise with the imbalance, with and without interference. Printed, because the figures are the
 * point. */
#include "tests/simulation.h"

#include <math.h>
#include <string.h>

typedef struct point {
    const char *trace;
    int first;
    double imbalance; /* fullest device / mean, under EP */
    double gain;      /* EP's mean step time / FSSDP's */
} point;

static const struct {
    const char *trace;
    int experts, top_k, hosts;
} runs[] = {{"gpt-moe-64e-top2-raw", 64, 2, 4},
            {"deepseek-moe-64e-top6-auxfree", 64, 6, 4},
            {"gpt-moe-16e-top2-raw", 16, 2, 2},
            {"gpt-moe-16e-top2-aux", 16, 2, 2}};
enum { RUNS = sizeof runs / sizeof *runs, THIRDS = 3 };

static point measure(int run, int third, bool interference)
{
    void *owner = talloc_new(NULL);
    moe_binding *binding;
    overrides all = {0};
    point found = {.trace = runs[run].trace, .first = 100 + third * 233};
    set(owner, &all, "trace.file=%s/%s.safetensors", SAMPLES, runs[run].trace);
    set(owner, &all, "trace.window=[%d, %d]", found.first, found.first + 16);
    set(owner, &all, "model.experts=%d", runs[run].experts);
    set(owner, &all, "model.top_k=%d", runs[run].top_k);
    set(owner, &all, "cluster.hosts=%d", runs[run].hosts);
    set(owner, &all, "parallel.ep=%d", 8 * runs[run].hosts);
    set(owner, &all, "trace.tokens_per_source=4096");
    set(owner, &all, "interference=%s", interference ? "true" : "false");
    set(owner, &all, "policies=[{name: ep}, {name: fssdp, reshard_initial: planned}]");
    const moe_run *result = simulate(owner, &all, "fluid", 2, &binding);
    found.imbalance =
        moe_result_mean(&result->policies[0].result, offsetof(moe_step_result, device_imbalance));
    found.gain = mean_step_s(result, 0) / mean_step_s(result, 1);
    talloc_free(owner);
    return found;
}

/* Kendall's tau over points that can be compared (same cluster size). */
static double concordance(const point *points, int count, int stride)
{
    int agree = 0, pairs = 0;
    for (int a = 0; a < count; a++)
        for (int b = 0; b < a; b++) {
            if (runs[a / stride].hosts != runs[b / stride].hosts)
                continue;
            double by =
                (points[a].imbalance - points[b].imbalance) * (points[a].gain - points[b].gain);
            agree += by > 0 ? 1 : -1;
            pairs++;
        }
    return (double)agree / pairs;
}

static void print_gains(bool interference)
{
    point points[RUNS * THIRDS];
    print_message("%s interference\n%-32s %10s %12s %8s\n", interference ? "with" : "without",
                  "trace", "iteration", "device max/mean", "gain");
    for (int r = 0; r < RUNS; r++)
        for (int t = 0; t < THIRDS; t++) {
            points[r * THIRDS + t] = measure(r, t, interference);
            const point *p = &points[r * THIRDS + t];
            print_message("%-32s %10d %12.2f %7.2fx\n", p->trace, p->first, p->imbalance, p->gain);
        }
    double tau = concordance(points, RUNS * THIRDS, THIRDS);
    print_message("rank agreement of gain and imbalance (Kendall's tau): %.2f\n", tau);
    /* Three pairs in four must agree: gains of nearly equal imbalance depend on where the hot experts lie. */
    assert_true(tau > 0.5);
}

static void test_gain_rises_with_imbalance(void **state)
{
    (void)state;
    print_gains(true);
}

static void test_gain_rises_without_interference(void **state)
{
    (void)state;
    print_gains(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gain_rises_with_imbalance),
        cmocka_unit_test(test_gain_rises_without_interference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
