/* Mapping a trace to a scenario: each rule against an example worked out by hand, and what must
 * hold of all of them (totals are kept, order of reading does not matter) on seeded random shapes.
 */
#include "tests/trace_fixture.h"
#include "traces/counts.h"
#include "traces/mapping.h"
#include <gsl/gsl_randist.h>
#include <math.h>

static const moe_trace_use plain = {.smoothing = 0.5, .repeat = 1};

/* What the scenario needs to use a trace as it is. */
static moe_routing_target same_target(const moe_trace_info *info)
{
    return (moe_routing_target){(int)info->shape.layers, (int)info->shape.sources,
                                (int)info->shape.experts, (int)info->top_k,
                                (int)info->shape.micro_batches};
}

static moe_routing *bind(trace_fixture *fixture, const moe_trace *trace, const moe_trace_use *use,
                         const moe_routing_target *target)
{
    moe_routing *routing =
        moe_routing_create(fixture->owner, trace, use, target, 42, NULL, fixture_diag(fixture));
    if (routing == NULL)
        fail_msg("not bound: %s", fixture_messages(fixture));
    return routing;
}

static void assert_counts(const uint32_t *found, const uint32_t *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (found[i] != expected[i])
            fail_msg("count %zu is %u; expected %u", i, found[i], expected[i]);
    }
}

/* --- counts --------------------------------------------------------------------------------- */

static void test_rounding_by_hand(void **state)
{
    (void)state;
    static const struct {
        uint32_t counts[4];
        uint32_t total;
        uint32_t expected[4];
    } rows[] = {
        {{5, 3, 2, 0}, 8, {4, 2, 2, 0}},  /* 4, 2.4, 1.6 */
        {{1, 1, 1, 1}, 6, {2, 2, 1, 1}},  /* 1.5 each: lower index first */
        {{0, 1, 1, 1}, 1, {0, 1, 0, 0}},  /* a third each */
        {{3, 0, 2, 2}, 2, {1, 0, 1, 0}},  /* 0.86, 0, 0.57, 0.57: the tie goes to the lower */
        {{7, 2, 4, 1}, 14, {7, 2, 4, 1}}, /* as it is */
        {{9, 1, 0, 0}, 5, {5, 0, 0, 0}},  /* 4.5 and 0.5: the lower */
        {{1, 2, 3, 4}, 1000, {100, 200, 300, 400}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t counts[4];
        int32_t remainders[4];
        memcpy(counts, rows[i].counts, sizeof counts);
        moe_counts_scale(counts, 4, (uint32_t)moe_counts_sum(counts, 4), rows[i].total, remainders);
        assert_counts(counts, rows[i].expected, 4);
    }
}

/* The textbook's way: round down, then raise the largest remainder, one by one. */
static void naive_scale(uint32_t *counts, size_t n, uint64_t sum, uint64_t total)
{
    uint64_t remainders[64];
    uint64_t left = total;
    for (size_t i = 0; i < n; i++) {
        remainders[i] = counts[i] * total % sum;
        counts[i] = (uint32_t)(counts[i] * total / sum);
        left -= counts[i];
    }
    for (; left > 0; left--) {
        size_t largest = 0;
        for (size_t i = 1; i < n; i++)
            largest = remainders[i] > remainders[largest] ? i : largest;
        counts[largest]++;
        remainders[largest] = 0;
    }
}

static void test_rounding_against_the_textbook(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(11, "rounding", 0);
    for (int round = 0; round < 3000; round++) {
        uint32_t counts[64] = {0}, expected[64] = {0};
        int32_t remainders[64];
        const size_t n = 1 + gsl_rng_uniform_int(random, 64);
        /* Small counts make ties; large ones come close to what 31 bits hold. */
        const uint32_t most = round % 3 == 0 ? 4 : round % 3 == 1 ? 300 : 33000000;
        for (size_t i = 0; i < n; i++)
            counts[i] = expected[i] = (uint32_t)gsl_rng_uniform_int(random, most);
        counts[n / 2] = ++expected[n / 2];
        const uint64_t sum = moe_counts_sum(counts, n);
        const uint32_t total = (uint32_t)gsl_rng_uniform_int(random, round % 2 ? 9000 : INT32_MAX);
        moe_counts_scale(counts, n, (uint32_t)sum, total, remainders);
        naive_scale(expected, n, sum, total);
        assert_counts(counts, expected, n);
        assert_int_equal(moe_counts_sum(counts, n), total);
    }
    gsl_rng_free(random);
}

/* Observed against expected frequencies. With df degrees of freedom chi-square has mean df and
 * variance 2 df; six standard deviations are passed by chance less than once in a million seeds,
 * and the seed is fixed. */
static void assert_chi_square(const double *observed, const double *expected, size_t n, double df)
{
    double chi = 0;
    for (size_t i = 0; i < n; i++)
        chi += (observed[i] - expected[i]) * (observed[i] - expected[i]) / expected[i];
    if (chi > df + 6 * sqrt(2 * df))
        fail_msg("chi-square %g with %g degrees of freedom", chi, df);
}

static void test_hypergeometric_is_exact(void **state)
{
    (void)state;
    static const unsigned cases[][3] = {{5, 7, 4}, {3, 20, 15}, {30, 40, 35}, {2, 2, 3}};
    enum { DRAWS = 40000 };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const unsigned white = cases[c][0], black = cases[c][1], draws = cases[c][2];
        double observed[64] = {0}, expected[64];
        gsl_rng *random = moe_random_create(12, "hypergeometric", c);
        for (int i = 0; i < DRAWS; i++)
            observed[moe_draw_hypergeometric(random, white, black, draws)]++;
        size_t used = 0;
        /* Values expected less than five times are left out: chi-square is no limit there. */
        for (unsigned x = 0; x <= white; x++) {
            const double p = gsl_ran_hypergeometric_pdf(x, white, black, draws);
            assert_true(p > 0 || observed[x] == 0);
            if (p * DRAWS < 5)
                continue;
            observed[used] = observed[x];
            expected[used++] = p * DRAWS;
        }
        assert_chi_square(observed, expected, used, (double)used - 1);
        gsl_rng_free(random);
    }
}

/* Large numbers, where a sum of logarithms of factorials loses digits: mean and variance. */
static void test_hypergeometric_of_millions(void **state)
{
    (void)state;
    enum { DRAWS = 4000 };
    const double white = 3e6, all = 1e7, draws = 4e6;
    const double mean = draws * white / all;
    const double variance = mean * (1 - white / all) * (all - draws) / (all - 1);
    double sum = 0, squares = 0;
    gsl_rng *random = moe_random_create(13, "hypergeometric", 0);
    for (int i = 0; i < DRAWS; i++) {
        const double x = moe_draw_hypergeometric(random, 3000000, 7000000, 4000000) - mean;
        sum += x;
        squares += x * x;
    }
    /* Standard errors of a mean and of a variance over DRAWS nearly normal values; five of each. */
    assert_true(fabs(sum / DRAWS) < 5 * sqrt(variance / DRAWS));
    assert_true(fabs(squares / DRAWS - variance) < 5 * variance * sqrt(2.0 / DRAWS));
    gsl_rng_free(random);
}

/* --- each rule by hand ---------------------------------------------------------------------- */

static const uint32_t four_sources[] = {
    /* layer 0 */ 4, 0, 2, /**/ 1, 3, 2, /**/ 0, 0, 6, /**/ 5, 1, 0,
    /* layer 1 */ 1, 1, 4, /**/ 6, 0, 0, /**/ 2, 2, 2, /**/ 0, 5, 1,
};
static const moe_trace_info four_info = {.shape = {1, 1, 2, 4, 3}, .top_k = 2};

static void test_fold(void **state)
{
    (void)state;
    static const uint32_t expected[] = {5, 3, 4, 5, 1, 6};
    static const uint32_t expected_tokens[] = {6, 6};
    uint32_t counts[6], tokens[2];
    trace_fixture fixture = fixture_open();
    moe_trace_use use = plain;
    moe_routing_target target = same_target(&four_info);
    use.sources = MOE_SOURCES_FOLD;
    target.sources = 2;
    const moe_trace *trace = fixture_trace(&fixture, &four_info, four_sources, NULL);
    moe_routing *routing = bind(&fixture, trace, &use, &target);
    moe_routing_read(routing, 0, 0, 0, counts, tokens);
    assert_counts(counts, expected, 6);
    assert_counts(tokens, expected_tokens, 2);
    assert_false(moe_routing_is_marked(routing)); /* moved, not changed */
    fixture_close(&fixture);
}

static void test_tile(void **state)
{
    (void)state;
    uint32_t counts[12 * 3], tokens[12];
    trace_fixture fixture = fixture_open();
    moe_trace_use use = plain;
    moe_routing_target target = same_target(&four_info);
    use.sources = MOE_SOURCES_TILE;
    target.sources = 12;
    const moe_trace *trace = fixture_trace(&fixture, &four_info, four_sources, NULL);
    moe_routing *routing = bind(&fixture, trace, &use, &target);
    moe_routing_read(routing, 0, 0, 1, counts, tokens);
    for (size_t s = 0; s < 12; s++) {
        assert_counts(counts + s * 3, four_sources + 12 + s / 3 * 3, 3);
        assert_int_equal(tokens[s], 3);
    }
    fixture_close(&fixture);
}

static void test_window_and_repeat(void **state)
{
    (void)state;
    static double bounds[] = {2, 5};
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = {.shape = {9, 1, 2, 3, 4}, .top_k = 2};
    const moe_routing_target target = same_target(&info);
    uint32_t found[12], expected[12];
    moe_trace_use use = plain;
    use.window = (moe_reals){bounds, 2};
    use.repeat = 3;
    const moe_trace *trace =
        fixture_trace(&fixture, &info, fixture_counts(&fixture, &info.shape, 10, 1), NULL);
    moe_routing *routing = bind(&fixture, trace, &use, &target);
    assert_int_equal(moe_routing_iterations(routing), 9);
    for (int64_t i = 0; i < 9; i++) {
        assert_int_equal(moe_routing_recorded_iteration(routing, i), 2 + i % 3);
        moe_routing_read(routing, i, 0, 1, found, NULL);
        moe_trace_read(trace, 2 + i % 3, 0, 1, expected, NULL);
        assert_counts(found, expected, 12);
    }
    fixture_close(&fixture);
}

/* Each recorded source has a different number of assignments to each expert, so that the
 * relabelling can be read off the counts: permutation[e] is where expert e went. */
static void find_permutation(const uint32_t *from, const uint32_t *to, size_t experts,
                             size_t *permutation)
{
    for (size_t e = 0; e < experts; e++) {
        size_t found = 0;
        while (found < experts && to[found] != from[e])
            found++;
        assert_true(found < experts); /* nothing lost: it is a permutation */
        permutation[e] = found;
    }
}

static void test_cycle(void **state)
{
    (void)state;
    enum { E = 10 };
    uint32_t recorded[2 * 2 * E], found[8][2 * E];
    size_t permutations[8][E], other[E];
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = {.shape = {1, 1, 2, 2, E}, .top_k = 1};
    moe_routing_target target = same_target(&info);
    moe_trace_use use = plain;
    for (uint32_t i = 0; i < 2 * 2 * E; i++)
        recorded[i] = 3 + 7 * i;
    use.layers = MOE_LAYERS_CYCLE;
    target.layers = 7;
    const moe_trace *trace = fixture_trace(&fixture, &info, recorded, NULL);
    moe_routing *routing = bind(&fixture, trace, &use, &target);
    for (int l = 0; l < 7; l++) {
        const uint32_t *from = recorded + (size_t)(l % 2) * 2 * E;
        moe_routing_read(routing, 0, 0, l, found[l], NULL);
        find_permutation(from, found[l], E, permutations[l]);
        find_permutation(from + E, found[l] + E, E, other);
        assert_memory_equal(permutations[l], other,
                            sizeof other); /* of the experts, not of cells */
    }
    assert_counts(found[0], recorded, 2 * E); /* the first pass is as recorded */
    assert_counts(found[1], recorded + 2 * E, 2 * E);
    assert_memory_equal(permutations[2], permutations[3],
                        sizeof other); /* one pass, one relabelling */
    assert_memory_not_equal(permutations[2], permutations[0], sizeof other);
    assert_memory_not_equal(permutations[4], permutations[2], sizeof other);
    assert_memory_not_equal(permutations[6], permutations[4], sizeof other);
    assert_false(moe_routing_is_marked(routing));
    fixture_close(&fixture);
}

static void test_scale_by_hand(void **state)
{
    (void)state;
    static const uint32_t recorded[] = {5, 3, 2, /**/ 0, 6, 4};
    static const uint32_t expected[] = {4, 2, 2, /**/ 0, 5, 3}; /* 4.8 and 3.2 of 8 */
    uint32_t counts[6], tokens[2];
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = {.shape = {1, 1, 1, 2, 3}, .top_k = 2};
    const moe_routing_target target = same_target(&info);
    moe_trace_use use = plain;
    use.tokens_per_source = 4;
    const moe_trace *trace = fixture_trace(&fixture, &info, recorded, NULL);
    moe_routing *routing = bind(&fixture, trace, &use, &target);
    moe_routing_read(routing, 0, 0, 0, counts, tokens);
    assert_counts(counts, expected, 6);
    assert_int_equal(tokens[0], 4);
    assert_true(moe_routing_is_marked(routing));
    use.tokens_per_source = 5; /* what was recorded */
    routing = bind(&fixture, trace, &use, &target);
    moe_routing_read(routing, 0, 0, 0, counts, tokens);
    assert_counts(counts, recorded, 6);
    assert_false(moe_routing_is_marked(routing));
    fixture_close(&fixture);
}

/* Where top_k varies, a source keeps its own assignments per token: 12 / 8 and 4 / 8 here. Source 2
 * went to null experts only; source 3 had no tokens and takes the shares of the others. */
static void test_scale_varying_top_k(void **state)
{
    (void)state;
    static const uint32_t recorded[] = {9, 3, 0, /**/ 1, 1, 2, /**/ 0, 0, 0, /**/ 0, 0, 0};
    static const uint32_t recorded_tokens[] = {8, 8, 8, 0};
    /* 30: 22.5 and 7.5, the tie to the lower; 10: 2.5, 2.5, 5; 0; 20 * 16 / 24 = 13.3, so 13 in the
     * shares 10, 4, 2 of 16: 8.1, 3.25, 1.6 */
    static const uint32_t expected[] = {23, 7, 0, /**/ 3, 2, 5, /**/ 0, 0, 0, /**/ 8, 3, 2};
    uint32_t counts[12], tokens[4];
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = {.shape = {1, 1, 1, 4, 3}, .top_k = 0};
    const moe_routing_target target = same_target(&info);
    moe_trace_use use = plain;
    use.tokens_per_source = 20;
    const moe_trace *trace = fixture_trace(&fixture, &info, recorded, recorded_tokens);
    moe_routing *routing = bind(&fixture, trace, &use, &target);
    moe_routing_read(routing, 0, 0, 0, counts, tokens);
    assert_counts(counts, expected, 12);
    for (size_t s = 0; s < 4; s++)
        assert_int_equal(tokens[s], 20);

    /* A model has some top_k; such a trace goes with any, says so, and keeps its own counts. */
    moe_routing_target model = target;
    model.top_k = 3;
    routing = bind(&fixture, trace, &use, &model);
    moe_routing_read(routing, 0, 0, 0, counts, NULL);
    assert_counts(counts, expected, 12);
    json_t *rules = moe_routing_rules(routing);
    const char *first = json_string_value(json_array_get(rules, 0));
    assert_non_null(strstr(first, "the model's 3 is not used"));
    json_decref(rules);
    fixture_close(&fixture);
}

/* --- split ---------------------------------------------------------------------------------- */

static void test_split_keeps_every_expert(void **state)
{
    (void)state;
    enum { E = 6, S = 3, M = 4 };
    trace_fixture fixture = fixture_open();
    moe_trace_info info = {.shape = {3, 1, 2, S, E}, .top_k = 2};
    moe_routing_target target = same_target(&info);
    moe_trace_use use = plain;
    info.aggregation = MOE_AGGREGATION_ITERATION;
    use.micro_batches = MOE_BATCHES_SPLIT;
    target.micro_batches = M;
    const moe_trace *trace =
        fixture_trace(&fixture, &info, fixture_counts(&fixture, &info.shape, 2 * 30, 2), NULL);
    moe_routing *routing = bind(&fixture, trace, &use, &target);
    assert_true(moe_routing_is_marked(routing));
    for (int64_t t = 0; t < 3; t++) {
        uint32_t sum[S * E] = {0}, counts[S * E], tokens[S], recorded[S * E];
        for (int m = 0; m < M; m++) {
            moe_routing_read(routing, t, m, 1, counts, tokens);
            for (size_t i = 0; i < S * E; i++)
                sum[i] += counts[i];
            for (size_t s = 0; s < S; s++) { /* 30 tokens: 7, 8, 7, 8 */
                assert_int_equal(tokens[s], m % 2 == 0 ? 7 : 8);
                assert_int_equal(moe_counts_sum(counts + s * E, E), 2 * tokens[s]);
            }
        }
        moe_trace_read(trace, t, 0, 1, recorded, NULL);
        assert_counts(sum, recorded, S * E);
    }
    fixture_close(&fixture);
}

/* A cell over 8 passes for a scenario with 2 micro-batches: each is one pass, not four. */
static void test_split_of_a_window(void **state)
{
    (void)state;
    uint32_t counts[5], tokens[1];
    trace_fixture fixture = fixture_open();
    moe_trace_info info = {.shape = {2, 1, 1, 1, 5}, .top_k = 2, .window = 8};
    moe_routing_target target = same_target(&info);
    moe_trace_use use = plain;
    info.aggregation = MOE_AGGREGATION_WINDOW;
    use.micro_batches = MOE_BATCHES_SPLIT;
    target.micro_batches = 2;
    const moe_trace *trace =
        fixture_trace(&fixture, &info, fixture_counts(&fixture, &info.shape, 2 * 80, 3), NULL);
    moe_routing *routing = bind(&fixture, trace, &use, &target);
    for (int m = 0; m < 2; m++) {
        moe_routing_read(routing, 1, m, 0, counts, tokens);
        assert_int_equal(tokens[0], 10);
        assert_int_equal(moe_counts_sum(counts, 5), 20);
    }
    fixture_close(&fixture);
}

/* --- what always holds ---------------------------------------------------------------------- */

/* A random trace with a random use and target that the rules can map. */
typedef struct random_case {
    moe_trace_info info;
    moe_trace_use use;
    moe_routing_target target;
    uint32_t tokens; /* recorded, of a source */
} random_case;

static int below(gsl_rng *random, unsigned long limit)
{
    return (int)gsl_rng_uniform_int(random, limit);
}

static random_case make_case(uint64_t index)
{
    gsl_rng *random = moe_random_create(14, "mapping case", index);
    random_case c = {.use = plain};
    const int factor = 1 + below(random, 4);
    c.info.shape = (moe_trace_shape){2 + below(random, 4), 1, 1 + below(random, 3),
                                     factor * (1 + below(random, 4)), 3 + below(random, 14)};
    c.info.top_k = 1 + below(random, 3);
    c.tokens = 20 + (uint32_t)below(random, 400);
    c.target = same_target(&c.info);
    c.use.sources = below(random, 3);
    if (c.use.sources == MOE_SOURCES_FOLD)
        c.target.sources /= factor;
    if (c.use.sources == MOE_SOURCES_TILE)
        c.target.sources *= factor;
    c.use.layers = MOE_LAYERS_CYCLE;
    c.target.layers = 1 + below(random, 7);
    c.use.micro_batches = below(random, 2);
    c.target.micro_batches = c.use.micro_batches == MOE_BATCHES_SPLIT ? 1 + below(random, 4) : 1;
    c.use.scale = below(random, 2);
    c.use.tokens_per_source = below(random, 2) * below(random, 3000);
    c.use.repeat = 1 + below(random, 3);
    gsl_rng_free(random);
    return c;
}

static const moe_trace *case_trace(trace_fixture *fixture, const random_case *c, uint64_t seed)
{
    const uint32_t assignments = c->tokens * (uint32_t)c->info.top_k;
    return fixture_trace(fixture, &c->info,
                         fixture_counts(fixture, &c->info.shape, assignments, seed), NULL);
}

/* Tokens that all micro-batches together must have of one source. */
static uint64_t expected_tokens(const random_case *c)
{
    const uint64_t batches = (uint64_t)c->target.micro_batches;
    if (c->use.tokens_per_source > 0)
        return (uint64_t)c->use.tokens_per_source * batches;
    return c->tokens * (uint64_t)(c->use.sources == MOE_SOURCES_FOLD
                                      ? (int)c->info.shape.sources / c->target.sources
                                      : 1);
}

static void check_totals(const random_case *c, moe_routing *routing, int64_t iteration, int layer)
{
    const size_t sources = (size_t)c->target.sources;
    const size_t experts = (size_t)c->target.experts;
    uint32_t *counts = malloc(sources * experts * sizeof *counts);
    uint32_t *tokens = malloc(sources * sizeof *tokens);
    uint64_t sum = 0;
    for (int m = 0; m < c->target.micro_batches; m++) {
        moe_routing_read(routing, iteration, m, layer, counts, tokens);
        for (size_t s = 0; s < sources; s++) {
            assert_int_equal(moe_counts_sum(counts + s * experts, experts),
                             tokens[s] * (uint64_t)c->info.top_k);
            sum += tokens[s];
        }
    }
    assert_int_equal(sum, expected_tokens(c) * sources);
    free(counts);
    free(tokens);
}

static void test_totals_are_kept(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 120; i++) {
        trace_fixture fixture = fixture_open();
        const random_case c = make_case(i);
        moe_routing *routing = bind(&fixture, case_trace(&fixture, &c, i), &c.use, &c.target);
        for (int64_t t = 0; t < moe_routing_iterations(routing); t++) {
            for (int l = 0; l < c.target.layers; l++)
                check_totals(&c, routing, t, l);
        }
        fixture_close(&fixture);
    }
}

/* Reads every dispatch of `routing`, the first half of the indexes forward, the second backward. */
static uint32_t *read_all(trace_fixture *fixture, const random_case *c, moe_routing *routing,
                          bool backward)
{
    const size_t cells = (size_t)c->target.sources * (size_t)c->target.experts;
    const size_t count = (size_t)moe_routing_iterations(routing) * (size_t)c->target.micro_batches *
                         (size_t)c->target.layers;
    uint32_t *all = talloc_array(fixture->owner, uint32_t, cells * count);
    for (size_t step = 0; step < count; step++) {
        const size_t i = backward ? count - 1 - step : step;
        const int layer = (int)(i % (size_t)c->target.layers);
        const size_t rest = i / (size_t)c->target.layers;
        moe_routing_read(routing, (int64_t)(rest / (size_t)c->target.micro_batches),
                         (int)(rest % (size_t)c->target.micro_batches), layer, all + i * cells,
                         NULL);
    }
    return all;
}

static void test_order_of_reading(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 40; i++) {
        trace_fixture fixture = fixture_open();
        const random_case c = make_case(i);
        const moe_trace *trace = case_trace(&fixture, &c, i);
        moe_routing *one = bind(&fixture, trace, &c.use, &c.target);
        moe_routing *two = bind(&fixture, trace, &c.use, &c.target);
        const uint32_t *forward = read_all(&fixture, &c, one, false);
        const uint32_t *backward = read_all(&fixture, &c, two, true);
        assert_memory_equal(forward, backward, talloc_get_size(forward));
        assert_memory_equal(forward, read_all(&fixture, &c, one, true), talloc_get_size(forward));
        fixture_close(&fixture);
    }
}

/* --- resampling ----------------------------------------------------------------------------- */

static void test_resample_follows_the_shares(void **state)
{
    (void)state;
    enum { E = 8, REPEAT = 2000, TOKENS = 37 };
    static const uint32_t recorded[E] = {40, 0, 12, 3, 25, 1, 0, 19};
    double observed[E] = {0}, expected[E];
    uint32_t counts[E], first[E];
    int repeated = 0;
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = {.shape = {1, 1, 1, 1, E}, .top_k = 2};
    const moe_routing_target target = same_target(&info);
    moe_trace_use use = plain;
    use.scale = MOE_SCALE_RESAMPLE;
    use.tokens_per_source = TOKENS;
    use.repeat = REPEAT;
    moe_routing *routing =
        bind(&fixture, fixture_trace(&fixture, &info, recorded, NULL), &use, &target);
    moe_routing_read(routing, 0, 0, 0, first, NULL);
    for (int64_t t = 0; t < REPEAT; t++) {
        moe_routing_read(routing, t, 0, 0, counts, NULL);
        for (size_t e = 0; e < E; e++)
            observed[e] += counts[e];
        repeated += memcmp(counts, first, sizeof first) == 0;
    }
    for (size_t e = 0; e < E; e++)
        expected[e] = (recorded[e] + 0.5) / (100 + 0.5 * E) * 2 * TOKENS * REPEAT;
    assert_chi_square(observed, expected, E, E - 1);
    assert_true(repeated < REPEAT / 100); /* every dispatch has its own draw */
    assert_true(moe_routing_is_marked(routing));
    fixture_close(&fixture);
}

/* Without smoothing an expert that recorded nothing gets nothing. */
static void test_resample_without_smoothing(void **state)
{
    (void)state;
    static const uint32_t recorded[] = {0, 30, 0, 10, 0};
    uint32_t counts[5];
    trace_fixture fixture = fixture_open();
    const moe_trace_info info = {.shape = {1, 1, 1, 1, 5}, .top_k = 2};
    const moe_routing_target target = same_target(&info);
    moe_trace_use use = plain;
    use.scale = MOE_SCALE_RESAMPLE;
    use.smoothing = 0;
    use.repeat = 300;
    moe_routing *routing =
        bind(&fixture, fixture_trace(&fixture, &info, recorded, NULL), &use, &target);
    for (int64_t t = 0; t < 300; t++) {
        moe_routing_read(routing, t, 0, 0, counts, NULL);
        assert_int_equal(counts[0] + counts[2] + counts[4], 0);
        assert_int_equal(counts[1] + counts[3], 40);
    }
    fixture_close(&fixture);
}

/* Copies of one recorded source draw apart; plain copies are equal. */
static void test_tiled_copies_draw_apart(void **state)
{
    (void)state;
    uint32_t counts[8 * 3];
    trace_fixture fixture = fixture_open();
    moe_trace_use use = plain;
    moe_routing_target target = same_target(&four_info);
    use.sources = MOE_SOURCES_TILE;
    use.tokens_per_source = 1000;
    target.sources = 8;
    const moe_trace *trace = fixture_trace(&fixture, &four_info, four_sources, NULL);
    moe_routing_read(bind(&fixture, trace, &use, &target), 0, 0, 0, counts, NULL);
    assert_memory_equal(counts, counts + 3, 3 * sizeof *counts);
    use.scale = MOE_SCALE_RESAMPLE;
    moe_routing_read(bind(&fixture, trace, &use, &target), 0, 0, 0, counts, NULL);
    assert_memory_not_equal(counts, counts + 3, 3 * sizeof *counts);
    fixture_close(&fixture);
}

/* --- errors --------------------------------------------------------------------------------- */

typedef struct misuse {
    const char *message;
    void (*change)(moe_trace_use *use, moe_routing_target *target);
} misuse;

static double window_values[2];

static void set_window(moe_trace_use *use, double first, double last)
{
    window_values[0] = first;
    window_values[1] = last;
    use->window = (moe_reals){window_values, 2};
}

#define CHANGE(name, ...)                                                                          \
    static void name(moe_trace_use *use, moe_routing_target *target)                               \
    {                                                                                              \
        (void)use;                                                                                 \
        (void)target;                                                                              \
        __VA_ARGS__;                                                                               \
    }

CHANGE(fewer_sources, target->sources = 2)
CHANGE(more_sources, target->sources = 8)
CHANGE(odd_sources, target->sources = 3)
CHANGE(odd_fold, target->sources = 3; use->sources = MOE_SOURCES_FOLD)
CHANGE(fold_of_fewer, target->sources = 8; use->sources = MOE_SOURCES_FOLD)
CHANGE(tile_of_more, target->sources = 2; use->sources = MOE_SOURCES_TILE)
CHANGE(more_layers, target->layers = 6)
CHANGE(more_experts, target->experts = 6)
CHANGE(other_top_k, target->top_k = 1)
CHANGE(more_batches, target->micro_batches = 2)
CHANGE(window_beyond, set_window(use, 0, 2))
CHANGE(window_empty, set_window(use, 1, 1))
CHANGE(window_backward, set_window(use, 1, 0))
CHANGE(window_fraction, set_window(use, 0, 0.5))
CHANGE(window_of_one, set_window(use, 0, 1); use->window.count = 1)
CHANGE(no_repeat, use->repeat = 0)
CHANGE(endless_repeat, use->repeat = INT64_MAX / 2)
CHANGE(many_tokens, use->tokens_per_source = INT32_MAX / 2 + 1)

static const misuse misuses[] = {
    {"4 source ranks, the scenario 2, and the rule is exact; `sources: fold`", fewer_sources},
    {"4 source ranks, the scenario 8, and the rule is exact; `sources: tile`", more_sources},
    {"no rule maps them: fold and tile", odd_sources},
    {"the rule is fold; no rule maps them", odd_fold},
    {"the rule is fold; `sources: tile`", fold_of_fewer},
    {"the rule is tile; `sources: fold`", tile_of_more},
    {"2 MoE layers, the model 6, and the rule is exact; `layers: cycle`", more_layers},
    {"3 experts, the model has 6; no rule maps experts", more_experts},
    {"top_k 2, the model 1", other_top_k},
    {"1 micro-batches, the scenario 2, and the rule is exact; `micro_batches: split`",
     more_batches},
    {"0 <= first < last <= 1", window_beyond},
    {"0 <= first < last <= 1", window_empty},
    {"0 <= first < last <= 1", window_backward},
    {"0 <= first < last <= 1", window_fraction},
    {"0 <= first < last <= 1", window_of_one},
    {"cannot be repeated 0 times", no_repeat},
    {"cannot be repeated", endless_repeat},
    {"less than 2^31 assignments", many_tokens},
};

static void test_misuse(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof misuses / sizeof *misuses; i++) {
        trace_fixture fixture = fixture_open();
        moe_trace_use use = plain;
        moe_routing_target target = same_target(&four_info);
        const moe_trace *trace = fixture_trace(&fixture, &four_info, four_sources, NULL);
        misuses[i].change(&use, &target);
        assert_null(moe_routing_create(fixture.owner, trace, &use, &target, 1, NULL, fixture.diag));
        assert_int_equal(moe_diag_error_count(fixture.diag), 1);
        program_contains(fixture_messages(&fixture), misuses[i].message);
        fixture_close(&fixture);
    }
}

/* Counts coarser than a dispatch are never used as if they were dispatches. */
static void test_coarse_counts_are_refused(void **state)
{
    (void)state;
    for (int a = MOE_AGGREGATION_ITERATION; a <= MOE_AGGREGATION_WINDOW; a++) {
        trace_fixture fixture = fixture_open();
        moe_trace_info info = four_info;
        const moe_routing_target target = same_target(&info);
        info.aggregation = (moe_aggregation)a;
        info.window = 4;
        const moe_trace *trace = fixture_trace(&fixture, &info, four_sources, NULL);
        assert_null(
            moe_routing_create(fixture.owner, trace, &plain, &target, 1, NULL, fixture.diag));
        program_contains(fixture_messages(&fixture),
                         "not over one dispatch; `micro_batches: split`");
        fixture_close(&fixture);
    }
}

/* A file whose numbers contradict its top_k is found when it is bound, not while it is used. */
static void test_unsound_trace(void **state)
{
    (void)state;
    uint32_t counts[sizeof four_sources / sizeof *four_sources];
    trace_fixture fixture = fixture_open();
    const moe_routing_target target = same_target(&four_info);
    memcpy(counts, four_sources, sizeof counts);
    counts[12 + 3 + 1] = 1; /* layer 1, source 1: 7 assignments of top-2 */
    const moe_trace *trace = fixture_trace(&fixture, &four_info, counts, NULL);
    assert_null(moe_routing_create(fixture.owner, trace, &plain, &target, 1, NULL, fixture.diag));
    program_contains(fixture_messages(&fixture), "iteration 0, layer 1, source 1");
    fixture_close(&fixture);
}

/* --- the configuration ---------------------------------------------------------------------- */

static void test_errors_point_into_the_file(void **state)
{
    (void)state;
    static const char text[] = "file: toy.safetensors\n"
                               "layers: cycle\n"
                               "sources: tile\n";
    trace_fixture fixture = fixture_open();
    moe_routing_target target = same_target(&four_info);
    char *name = program_path("use.yaml");
    const moe_trace *trace = fixture_trace(&fixture, &four_info, four_sources, NULL);
    moe_config *config = moe_config_load_text(fixture.owner, name, text, strlen(text),
                                              &moe_trace_use_table, NULL, 0, fixture.diag);
    assert_non_null(config);
    const moe_trace_use *use = moe_config_root(config);
    target.sources = 2;
    assert_null(moe_routing_create(fixture.owner, trace, use, &target, 1, config, fixture.diag));
    program_contains(fixture_messages(&fixture),
                     "use.yaml:3:10: error: the trace has 4 source ranks");
    free(name);
    fixture_close(&fixture);
}

static void test_defaults(void **state)
{
    (void)state;
    static const char text[] = "{file: toy.safetensors, window: [3, 8]}";
    trace_fixture fixture = fixture_open();
    moe_config *config =
        moe_config_load_text(fixture.owner, "x.yaml", text, strlen(text), &moe_trace_use_table,
                             NULL, 0, fixture_diag(&fixture));
    assert_non_null(config);
    const moe_trace_use *use = moe_config_root(config);
    assert_int_equal(use->window.count, 2);
    assert_true(use->window.values[1] == 8);
    assert_int_equal(use->sources, MOE_SOURCES_EXACT);
    assert_int_equal(use->layers, MOE_LAYERS_EXACT);
    assert_int_equal(use->micro_batches, MOE_BATCHES_EXACT);
    assert_int_equal(use->scale, MOE_SCALE_PLAIN);
    assert_int_equal(use->tokens_per_source, 0);
    assert_int_equal(use->repeat, 1);
    assert_true(use->smoothing == 0.5);
    fixture_close(&fixture);
}

static void test_rules_are_told(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    moe_trace_use use = plain;
    moe_routing_target target = same_target(&four_info);
    const moe_trace *trace = fixture_trace(&fixture, &four_info, four_sources, NULL);
    json_t *rules = moe_routing_rules(bind(&fixture, trace, &use, &target));
    assert_int_equal(json_array_size(rules), 0); /* as it is: no rule */
    json_decref(rules);
    use.sources = MOE_SOURCES_FOLD;
    use.layers = MOE_LAYERS_CYCLE;
    use.tokens_per_source = 100;
    target.sources = 2;
    target.layers = 5;
    rules = moe_routing_rules(bind(&fixture, trace, &use, &target));
    assert_int_equal(json_array_size(rules), 4);
    assert_string_equal(json_string_value(json_array_get(rules, 0)),
                        "sources: 4 recorded, every 2 added to one of 2");
    program_contains(json_string_value(json_array_get(rules, 1)),
                     "layers: 2 recorded, cycled to 5");
    json_decref(rules);
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding_by_hand),
        cmocka_unit_test(test_rounding_against_the_textbook),
        cmocka_unit_test(test_hypergeometric_is_exact),
        cmocka_unit_test(test_hypergeometric_of_millions),
        cmocka_unit_test(test_fold),
        cmocka_unit_test(test_tile),
        cmocka_unit_test(test_window_and_repeat),
        cmocka_unit_test(test_cycle),
        cmocka_unit_test(test_scale_by_hand),
        cmocka_unit_test(test_scale_varying_top_k),
        cmocka_unit_test(test_split_keeps_every_expert),
        cmocka_unit_test(test_split_of_a_window),
        cmocka_unit_test(test_totals_are_kept),
        cmocka_unit_test(test_order_of_reading),
        cmocka_unit_test(test_resample_follows_the_shares),
        cmocka_unit_test(test_resample_without_smoothing),
        cmocka_unit_test(test_tiled_copies_draw_apart),
        cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_coarse_counts_are_refused),
        cmocka_unit_test(test_unsound_trace),
        cmocka_unit_test(test_errors_point_into_the_file),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_rules_are_told),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
