/* The estimator of distinct tokens: closed forms, enumeration of all draws on small cases, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <talloc.h>

#include "configs/base/random.h"
#include "models/distinct.h"

enum { EXPERTS_MAX = 256, PLACES_MAX = 64 };

/* C(n, k) as a real. */
static double choose(int n, int k)
{
    return exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1));
}

/* Tokens sent to `places` equal places of consecutive experts, from uniform counts. */
static double sent_of_uniform(const moe_distinct_gate *gate, int places, double tokens)
{
    moe_distinct *distinct = moe_distinct_create(NULL, gate);
    double counts[EXPERTS_MAX];
    int each = gate->experts / places;
    double sum = 0;
    for (int e = 0; e < gate->experts; e++)
        counts[e] = tokens * gate->top_k / gate->experts;
    moe_distinct_fit(distinct, counts, tokens);
    assert_true(moe_distinct_residual(distinct) < 1e-9);
    for (int p = 0; p < places; p++) {
        moe_distinct_part parts[EXPERTS_MAX];
        for (int i = 0; i < each; i++)
            parts[i] = (moe_distinct_part){p * each + i, counts[p * each + i]};
        sum += moe_distinct_tokens(distinct, parts, each);
    }
    talloc_free(distinct);
    return sum;
}

/* --- the golden case: top-8 of 256 experts over 8 hosts --------------------------------------- */

/* A host has none of 8 experts drawn from 256 with probability C(224, 8) / C(256, 8). With the gate
 * limited to 4 groups of the size of a host, a token goes to exactly 4 hosts. */
static void eight_of_256_over_8_hosts(void **unused)
{
    (void)unused;
    const moe_distinct_gate free_gate = {256, 8, 8, 8};
    const moe_distinct_gate limited = {256, 8, 8, 4};
    double hosts = 8 * (1 - choose(224, 8) / choose(256, 8));
    double tokens = 4096;
    assert_true(fabs(sent_of_uniform(&free_gate, 8, tokens) / (tokens * hosts) - 1) < 1e-9);
    assert_true(fabs(8 / hosts - 1.51) < 0.005);
    assert_true(fabs(sent_of_uniform(&limited, 8, tokens) / (tokens * 4) - 1) < 1e-9);
}

/* Within the limit: a device of a host in use has 4 of its 32 experts. All sets of 8 from exactly
 * 4 groups are alike, so by inclusion and exclusion over groups left empty, with n experts in each
 * whole group and m in those of the device's group that lie elsewhere:
 *   sets(m) = sum over groups left empty. */
static double sets_using_all(int groups, int size, int own, int k)
{
    double sum = 0;
    for (int empty = 0; empty < groups; empty++) { /* of the other groups; own may be empty, too */
        int rest = (groups - 1 - empty) * size;
        double ways = choose(groups - 1, empty) * (empty % 2 == 0 ? 1 : -1);
        sum += rest + own >= k ? ways * choose(rest + own, k) : 0;
        sum -= rest >= k ? ways * choose(rest, k) : 0;
    }
    return sum;
}

static void devices_of_limited_groups(void **unused)
{
    (void)unused;
    const moe_distinct_gate limited = {256, 8, 8, 4};
    double all = sets_using_all(4, 32, 32, 8);
    double none =
        sets_using_all(4, 32, 28, 8); /* the group is in use, none of its 4 experts here */
    double devices = 64 * 0.5 * (1 - none / all);
    assert_true(fabs(sent_of_uniform(&limited, 64, 1000) / (1000 * devices) - 1) < 1e-9);
}

/* --- enumeration ------------------------------------------------------------------------------ */

typedef struct small_case {
    moe_distinct_gate gate;
    double weights[12];
} small_case;

static const small_case small_cases[] = {
    {{6, 2, 1, 1}, {1, 1, 1, 1, 1, 1}},
    {{6, 3, 1, 1}, {5, 1, 0.2, 1, 0.01, 2}},
    {{8, 1, 1, 1}, {5, 1, 0.2, 1, 0.01, 2, 30, 1}},
    {{6, 5, 1, 1}, {5, 1, 0.2, 1, 0.3, 2}},
    {{12, 4, 4, 2}, {1, 2, 3, 1, 0.5, 4, 2, 2, 1, 1, 0.2, 7}},
    {{12, 3, 3, 1}, {1, 2, 3, 1, 0.5, 4, 2, 2, 1, 1, 0.2, 7}},
    {{12, 6, 6, 5}, {1, 2, 3, 1, 0.5, 4, 2, 2, 1, 1, 0.2, 7}},
    {{8, 2, 4, 3}, {1, 2, 3, 1, 0.5, 4, 2, 2}}, /* the limit is above top_k */
};

static bool is_drawable(const moe_distinct_gate *gate, unsigned set)
{
    int size = gate->experts / gate->groups;
    int wanted = gate->top_groups < gate->top_k ? gate->top_groups : gate->top_k;
    int groups = 0;
    for (int g = 0; g < gate->groups; g++)
        groups += (set >> (g * size) & ((1U << size) - 1)) != 0;
    return __builtin_popcount(set) == gate->top_k &&
           (gate->top_groups >= gate->groups || groups == wanted);
}

/* Probability of a set, not normalised. */
static double weight_of(const small_case *of, unsigned set)
{
    double product = is_drawable(&of->gate, set) ? 1 : 0;
    for (int e = 0; e < of->gate.experts; e++)
        product *= set >> e & 1 ? of->weights[e] : 1;
    return product;
}

/* Whether expert e goes to the place: with probability shares[e]. */
static double probability_of_place(const small_case *of, const double *shares, double *p)
{
    double all = 0;
    double none = 0;
    for (int e = 0; e < of->gate.experts; e++)
        p[e] = 0;
    for (unsigned set = 0; set < 1U << of->gate.experts; set++) {
        double weight = weight_of(of, set);
        double elsewhere = 1;
        all += weight;
        for (int e = 0; e < of->gate.experts; e++) {
            elsewhere *= set >> e & 1 ? 1 - shares[e] : 1;
            p[e] += set >> e & 1 ? weight : 0;
        }
        none += weight * elsewhere;
    }
    for (int e = 0; e < of->gate.experts; e++)
        p[e] /= all;
    return 1 - none / all;
}

/* The estimator sees the p alone, finds the weights again, and so the probability. */
static void check_small(const small_case *of, const double *shares)
{
    moe_distinct *distinct = moe_distinct_create(NULL, &of->gate);
    moe_distinct_part parts[12];
    double counts[12];
    double tokens = 1000;
    int count = 0;
    double expected = probability_of_place(of, shares, counts);
    for (int e = 0; e < of->gate.experts; e++) {
        counts[e] *= tokens;
        if (shares[e] > 0)
            parts[count++] = (moe_distinct_part){e, counts[e] * shares[e]};
    }
    moe_distinct_fit(distinct, counts, tokens);
    assert_true(moe_distinct_residual(distinct) <= 2e-4);
    assert_true(fabs(moe_distinct_tokens(distinct, parts, count) / tokens - expected) < 2e-3);
    talloc_free(distinct);
}

static void draws_agree_with_enumeration(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof small_cases / sizeof *small_cases; i++) {
        gsl_rng *random = moe_random_create(11, "test distinct", i);
        for (int trial = 0; trial < 40; trial++) {
            double shares[12];
            for (int e = 0; e < 12; e++) {
                double u = gsl_rng_uniform(random);
                shares[e] = u < 0.4 ? 0 : u < 0.7 ? 1 : gsl_rng_uniform(random);
            }
            check_small(&small_cases[i], shares);
        }
        gsl_rng_free(random);
    }
}

/* --- counts as they come ---------------------------------------------------------------------- */

static double ask(moe_distinct *distinct, const double *counts, int first, int end)
{
    moe_distinct_part parts[EXPERTS_MAX];
    for (int e = first; e < end; e++)
        parts[e - first] = (moe_distinct_part){e, counts[e]};
    return moe_distinct_tokens(distinct, parts, end - first);
}

/* Random skewed counts of tokens that each have top_k different experts. */
static void draw_counts(gsl_rng *random, const moe_distinct_gate *gate, int tokens, double *counts)
{
    double appeal[EXPERTS_MAX];
    for (int e = 0; e < gate->experts; e++) {
        appeal[e] = pow(gsl_rng_uniform(random), 4);
        counts[e] = 0;
    }
    for (int t = 0; t < tokens; t++) {
        bool taken[EXPERTS_MAX] = {false};
        for (int k = 0; k < gate->top_k;) {
            int e = (int)gsl_rng_uniform_int(random, (unsigned long)gate->experts);
            if (taken[e] || gsl_rng_uniform(random) > appeal[e] + 1e-3)
                continue;
            taken[e] = true;
            counts[e]++;
            k++;
        }
    }
}

static void check_bounds(moe_distinct *distinct, const double *counts, int experts, int each,
                         double tokens)
{
    for (int first = 0; first < experts; first += each) {
        double sum = 0;
        double most = 0;
        for (int e = first; e < first + each; e++) {
            sum += counts[e];
            most = fmax(most, counts[e]);
        }
        double sent = ask(distinct, counts, first, first + each);
        assert_true(sent >= most && sent <= sum && sent <= tokens);
    }
    assert_true(fabs(ask(distinct, counts, 0, experts) / tokens - 1) < 1e-9);
}

static void estimates_stay_within_bounds(void **unused)
{
    (void)unused;
    static const moe_distinct_gate gates[] = {{64, 2, 1, 1}, {64, 6, 1, 1},  {64, 6, 8, 3},
                                              {16, 1, 1, 1}, {16, 16, 1, 1}, {256, 8, 8, 4}};
    for (size_t g = 0; g < sizeof gates / sizeof *gates; g++) {
        moe_distinct *distinct = moe_distinct_create(NULL, &gates[g]);
        gsl_rng *random = moe_random_create(12, "test distinct", g);
        for (int trial = 0; trial < 5; trial++) {
            double counts[EXPERTS_MAX];
            int tokens = 1 + (int)gsl_rng_uniform_int(random, 400);
            draw_counts(random, &gates[g], tokens, counts);
            moe_distinct_fit(distinct, counts, tokens);
            for (int each = 1; each <= gates[g].experts; each *= 4)
                check_bounds(distinct, counts, gates[g].experts, each, tokens);
        }
        gsl_rng_free(random);
        talloc_free(distinct);
    }
}

/* A trace whose k varies: 1 - prod (1 - p). */
static void varying_k_is_independent(void **unused)
{
    (void)unused;
    const moe_distinct_gate gate = {4, 0, 1, 1};
    const double counts[4] = {50, 20, 0, 10};
    moe_distinct *distinct = moe_distinct_create(NULL, &gate);
    moe_distinct_fit(distinct, counts, 100);
    assert_true(fabs(ask(distinct, counts, 0, 2) - 100 * (1 - 0.5 * 0.8)) < 1e-3);
    const moe_distinct_part split[2] = {{0, 25}, {3, 10}};
    assert_true(fabs(moe_distinct_tokens(distinct, split, 2) - 100 * (1 - 0.75 * 0.9)) < 1e-3);
    talloc_free(distinct);
}

/* Resampled counts may exceed the tokens of a source; a source may have none at all. */
static void odd_counts_are_survived(void **unused)
{
    (void)unused;
    const moe_distinct_gate gate = {8, 2, 4, 2};
    const double none[8] = {0};
    const double above[8] = {130, 0, 0, 30, 0, 0, 0, 40};
    const double alone[8] = {0, 0, 200, 0, 0, 0, 0, 0};
    moe_distinct *distinct = moe_distinct_create(NULL, &gate);
    moe_distinct_fit(distinct, none, 0);
    assert_true(ask(distinct, none, 0, 8) == 0);
    moe_distinct_fit(distinct, above, 100);
    assert_true(ask(distinct, above, 0, 1) == 100);
    assert_true(ask(distinct, above, 0, 4) <= 100);
    assert_true(ask(distinct, above, 4, 8) == 40);
    moe_distinct_fit(distinct, alone, 100);
    assert_true(ask(distinct, alone, 0, 8) == 100);
    talloc_free(distinct);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_of_256_over_8_hosts),
        cmocka_unit_test(devices_of_limited_groups),
        cmocka_unit_test(draws_agree_with_enumeration),
        cmocka_unit_test(estimates_stay_within_bounds),
        cmocka_unit_test(varying_k_is_independent),
        cmocka_unit_test(odd_counts_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
