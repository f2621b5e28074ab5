/* How good the estimate of distinct tokens is (models/distinct.h), on recordings that know.
 *
 * Each recording's 64 requests of 256 tokens are 8 sources of 2,048 tokens. Its experts lie in equal
 * blocks on 2 to 16 places (devices, or hosts). For every source and place: the tokens with an expert
 * there, counted; the estimate from the source's counts; and two that a simulator might use
 * instead: the assignments, and experts drawn independently of one another.
 *
 * Errors are relative: `mean` weights a place by its tokens; `largest` is that of the worst place
 * with at least 5 % of the source's tokens. */
#include "tests/program.h"

#include "configs/base/diag.h"
#include "models/distinct.h"
#include "traces/token_ids.h"
#include <math.h>
#include <talloc.h>

enum { SOURCES = 8, EXPERTS_MAX = 64, PLACES_MAX = 32 };

typedef enum method { ESTIMATE, INDEPENDENT, ASSIGNMENTS, METHODS } method;

typedef struct recording {
    const char *name;
    double mean_bound; /* of the estimate, over all layers and numbers of places */
} recording;

/* The bounds: what was measured when the estimator was written (3.4, 3.3 and 4.9 %) and a third. What
 * is left is what the model does not know (distinct.h): experts attract or avoid each other, a
 * source's tokens are not alike, and where k varies, some tokens use many experts and others none.
 */
static const recording recordings[] = {
    {"gpt-moe-16e-top2-aux-tokens", 0.046},
    {"deepseek-moe-64e-top6-tokens", 0.044},
    {"adamoe-16e-16null-tokens", 0.066},
};

/* In sum over all places: where one gets too many, another gets too few. Measured: 0.5 and 32 %. */
static const double total_bound = 0.02;
static const double largest_bound = 0.4;

typedef struct tally {
    double exact;
    double sent[METHODS];
    double off[METHODS]; /* absolute errors, added up */
    double largest;      /* of the estimate */
} tally;

static void tally_add(tally *into, const tally *from)
{
    into->exact += from->exact;
    into->largest = fmax(into->largest, from->largest);
    for (int m = 0; m < METHODS; m++) {
        into->sent[m] += from->sent[m];
        into->off[m] += from->off[m];
    }
}

typedef struct measuring {
    const moe_trace *trace;
    const moe_trace_info *info;
    moe_distinct *methods[2]; /* ESTIMATE, INDEPENDENT */
    double counts[EXPERTS_MAX];
} measuring;

static void measure_place(const measuring *at, int first, int end, double exact, double tokens,
                          tally *sums)
{
    moe_distinct_part parts[EXPERTS_MAX];
    double found[METHODS] = {0};
    int count = 0;
    for (int e = first; e < end; e++) {
        found[ASSIGNMENTS] += at->counts[e];
        if (at->counts[e] > 0)
            parts[count++] = (moe_distinct_part){e, at->counts[e]};
    }
    for (int m = ESTIMATE; m <= INDEPENDENT; m++)
        found[m] = moe_distinct_tokens(at->methods[m], parts, count);
    sums->exact += exact;
    for (int m = 0; m < METHODS; m++) {
        sums->sent[m] += found[m];
        sums->off[m] += fabs(found[m] - exact);
    }
    if (exact >= 0.05 * tokens)
        sums->largest = fmax(sums->largest, fabs(found[ESTIMATE] / exact - 1));
}

static void measure_source(measuring *at, int64_t layer, int source, int places, tally *sums)
{
    const int experts = (int)at->info->shape.experts;
    const int64_t each = at->info->shape.sources / SOURCES;
    const moe_token_range range = {source * each, (source + 1) * each, 0,
                                   at->info->shape.iterations};
    const double tokens = (double)(each * at->info->shape.iterations);
    int place_of[EXPERTS_MAX];
    double exact[PLACES_MAX];
    for (int e = 0; e < experts; e++) {
        at->counts[e] = 0;
        place_of[e] = e * places / experts;
    }
    moe_trace_count_range(at->trace, layer, &range, at->counts);
    moe_trace_count_distinct(at->trace, layer, &range, place_of, places, exact);
    for (int m = ESTIMATE; m <= INDEPENDENT; m++)
        moe_distinct_fit(at->methods[m], at->counts, tokens);
    for (int p = 0; p < places; p++)
        measure_place(at, p * experts / places, (p + 1) * experts / places, exact[p], tokens, sums);
}

static void print_row(const char *layer, const char *places, const tally *sums)
{
    printf("  %5s %6s  %8.3f %8.3f  %7.2f %%  %7.2f %% %10.2f %% %11.2f %%\n", layer, places,
           sums->sent[ASSIGNMENTS] / sums->exact, sums->sent[ESTIMATE] / sums->exact,
           100 * sums->off[ESTIMATE] / sums->exact, 100 * sums->largest,
           100 * sums->off[INDEPENDENT] / sums->exact, 100 * sums->off[ASSIGNMENTS] / sums->exact);
}

static void measure_layers(measuring *at, int places, tally *all)
{
    char layer_text[16], places_text[16];
    snprintf(places_text, sizeof places_text, "%d", places);
    for (int64_t layer = 0; layer < at->info->shape.layers; layer++) {
        tally sums = {0};
        for (int s = 0; s < SOURCES; s++)
            measure_source(at, layer, s, places, &sums);
        snprintf(layer_text, sizeof layer_text, "%d", (int)layer);
        print_row(layer_text, places_text, &sums);
        tally_add(all, &sums);
    }
}

static tally measure(const recording *of)
{
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, stderr);
    char *path =
        talloc_asprintf(owner, MOE_TEST_SOURCE_DIR "/traces/samples/%s.safetensors", of->name);
    const moe_trace *trace = moe_trace_open(owner, path, (moe_where){0}, diag);
    assert_non_null(trace);
    assert_int_equal(moe_trace_check(trace, diag), MOE_OK);
    measuring at = {.trace = trace, .info = moe_trace_get_info(trace)};
    const int experts = (int)at.info->shape.experts;
    moe_distinct_gate gate = {experts, (int)at.info->top_k, 1, 1};
    tally all = {0};
    at.methods[ESTIMATE] = moe_distinct_create(owner, &gate);
    gate.top_k = 0;
    at.methods[INDEPENDENT] = moe_distinct_create(owner, &gate);
    printf("\n%s: top-%s of %d\n  layer places  assign/   estimate/ error:                error of "
           "   error of\n                 exact    exact     mean       largest    independent "
           "assignments\n",
           of->name, at.info->top_k > 0 ? "k" : "k varying", experts);
    for (int places = 2; places <= 16 && places <= experts / 2; places *= 2)
        measure_layers(&at, places, &all);
    print_row("all", "all", &all);
    talloc_free(owner);
    return all;
}

static void the_estimate_is_close(void **unused)
{
    (void)unused;
    double means[METHODS] = {0};
    for (size_t i = 0; i < sizeof recordings / sizeof *recordings; i++) {
        const tally all = measure(&recordings[i]);
        assert_true(all.off[ESTIMATE] / all.exact < recordings[i].mean_bound);
        assert_true(fabs(all.sent[ESTIMATE] / all.exact - 1) < total_bound);
        assert_true(all.largest < largest_bound);
        /* Where k varies the estimate is the independent draw. */
        assert_true(all.off[ESTIMATE] <= all.off[INDEPENDENT]);
        assert_true(all.off[ESTIMATE] < all.off[ASSIGNMENTS] / 2);
        for (int m = 0; m < METHODS; m++)
            means[m] += all.off[m] / all.exact;
    }
    assert_true(means[ESTIMATE] < 0.75 * means[INDEPENDENT]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_estimate_is_close)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
