#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the headers above first. */
#include "configs/base/random.h"
#include "configs/base/status.h"
#include <cmocka.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_statistics.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long first(uint64_t seed, const char *purpose, uint64_t index)
{
    gsl_rng *random = moe_random_create(seed, purpose, index);
    const unsigned long value = gsl_rng_get(random);
    gsl_rng_free(random);
    return value;
}

static void same_three_same_stream(void **state)
{
    (void)state;
    gsl_rng *a = moe_random_create(17, "routing", 3), *b = moe_random_create(1, "x", 0);
    for (int i = 0; i < 1000; i++) {
        gsl_rng_get(b);
    }
    moe_random_reseed(b, 17, "routing", 3);
    for (int i = 0; i < 2000; i++) {
        const unsigned long value = gsl_rng_get(a);
        assert_true(value <= 0xffffffffUL);
        assert_true(value == gsl_rng_get(b));
    }
    gsl_rng_free(a);
    gsl_rng_free(b);
}

static void any_difference_another_stream(void **state)
{
    (void)state;
    const unsigned long value = first(17, "routing", 3);
    assert_true(value != first(18, "routing", 3));
    assert_true(value != first(17, "routinh", 3));
    assert_true(value != first(17, "routing", 4));
    assert_true(value != first(3, "routing", 17));
    assert_true(value != first(17 + (UINT64_C(1) << 32), "routing", 3));
    assert_true(first(1, "a", 'b') != first(1, "ab", 0));
}

static int compare(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* With 32 bits of seed, 20,000 streams would hold equal ones (4 % of the time a pair): 64 bits of
 * each stream's beginning must differ. */
static void many_streams_are_distinct(void **state)
{
    (void)state;
    enum { STREAMS = 20000 };
    uint64_t *starts = malloc(STREAMS * sizeof *starts);
    gsl_rng *random = moe_random_create(0, "", 0);
    assert_non_null(starts);
    for (uint64_t i = 0; i < STREAMS; i++) {
        moe_random_reseed(random, 5, "step", i);
        starts[i] = (uint64_t)gsl_rng_get(random) << 32;
        starts[i] |= gsl_rng_get(random);
    }
    qsort(starts, STREAMS, sizeof *starts, compare);
    for (int i = 1; i < STREAMS; i++) {
        assert_true(starts[i - 1] != starts[i]);
    }
    gsl_rng_free(random);
    free(starts);
}

/* The first draw of successive indices is as uniform as a stream: mean 1/2, variance 1/12. */
static void streams_are_uniform_across_indices(void **state)
{
    (void)state;
    enum { DRAWS = 20000 };
    static double draws[DRAWS];
    gsl_rng *random = moe_random_create(0, "", 0);
    for (uint64_t i = 0; i < DRAWS; i++) {
        moe_random_reseed(random, 2024, "uniform", i);
        draws[i] = gsl_rng_uniform(random);
    }
    gsl_rng_free(random);
    assert_true(fabs(gsl_stats_mean(draws, 1, DRAWS) - 0.5) < 5 * sqrt(1.0 / 12 / DRAWS));
    assert_true(fabs(gsl_stats_variance(draws, 1, DRAWS) - 1.0 / 12) < 0.002);
    assert_true(fabs(gsl_stats_lag1_autocorrelation(draws, 1, DRAWS)) < 5 / sqrt(DRAWS));
}

static void gsl_errors_end_the_program(void **state)
{
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) {
            _exit(1);
        }
        moe_random_install_gsl_handler();
        gsl_error("a test", __FILE__, __LINE__, GSL_EDOM);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), MOE_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_three_same_stream),
        cmocka_unit_test(any_difference_another_stream),
        cmocka_unit_test(many_streams_are_distinct),
        cmocka_unit_test(streams_are_uniform_across_indices),
        cmocka_unit_test(gsl_errors_end_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
