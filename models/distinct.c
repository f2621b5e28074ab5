/* Weights are factors (1 + w_e z) of polynomials in z, cut after z^k. Experts of a group multiply
 * to the group's polynomial A; groups multiply as (1 + y (A - 1)), so that y counts groups in use.
 * The chain of factors is kept from the front (`prefix`, `before`) and, as what each coefficient is
 * worth for the answer, from the back (`worth`, `after`): a place then costs the factors between
 * its first and last expert, and the same two give the probability of every expert. */
#include "models/distinct.h"

#include "configs/base/memory.h"
#include <assert.h>
#include <math.h>
#include <string.h>
#include <talloc.h>

enum { PASSES_MAX = 60, LONGEST_STEP = 2 };

/* Far below what a count of one token in a million says, far above what would vanish in a sum. */
static const double least_probability = 1e-9;
static const double most_probability = 1 - 1e-6;
static const double residual_sought = 2e-4;

struct moe_distinct {
    int experts;
    int size; /* of one group */
    int groups;
    int top_groups;
    int degree; /* top_k; 0: varies */
    double tokens;
    double residual;
    double *counts;       /* [experts] */
    double *p;            /* [experts] sought */
    double *drawn;        /* [experts] of the present weights */
    double *w;            /* [experts] */
    double *step;         /* [experts] last change of log w */
    double *drawn_before; /* [experts] by the weights before that */
    double *prefix;       /* [groups][size + 1][degree + 1] */
    double *worth;        /* the same */
    double *before;       /* [groups + 1][top_groups + 1][degree + 1] */
    double *after;        /* the same */
    double *row;          /* [degree + 1] scratch */
    double *state;        /* [top_groups + 1][degree + 1] scratch */
};

static double *create_numbers(moe_distinct *owner, int a, int b, int c)
{
    size_t count = (size_t)a * (size_t)b * (size_t)c;
    return moe_need(talloc_zero_array(owner, double, (unsigned)count));
}

moe_distinct *moe_distinct_create(void *owner, const moe_distinct_gate *gate)
{
    moe_distinct *d = moe_need(talloc_zero(owner, moe_distinct));
    bool limited = gate->top_groups < gate->groups;
    assert(gate->experts % gate->groups == 0 && gate->top_k <= gate->experts);
    d->experts = gate->experts;
    d->groups = limited ? gate->groups : 1;
    d->size = gate->experts / d->groups;
    d->top_groups = limited ? gate->top_groups : 1;
    d->degree = gate->top_k;
    d->counts = create_numbers(d, d->experts, 1, 1);
    d->p = create_numbers(d, d->experts, 1, 1);
    d->drawn = create_numbers(d, d->experts, 1, 1);
    d->w = create_numbers(d, d->experts, 1, 1);
    d->step = create_numbers(d, d->experts, 1, 1);
    d->drawn_before = create_numbers(d, d->experts, 1, 1);
    d->prefix = create_numbers(d, d->groups, d->size + 1, d->degree + 1);
    d->worth = create_numbers(d, d->groups, d->size + 1, d->degree + 1);
    d->before = create_numbers(d, d->groups + 1, d->top_groups + 1, d->degree + 1);
    d->after = create_numbers(d, d->groups + 1, d->top_groups + 1, d->degree + 1);
    d->row = create_numbers(d, d->degree + 1, 1, 1);
    d->state = create_numbers(d, d->top_groups + 1, d->degree + 1, 1);
    return d;
}

/* --- polynomials ------------------------------------------------------------------------------ */

/* After the first `index` experts of a group. */
static double *row_of(const moe_distinct *d, double *rows, int group, int index)
{
    return rows + ((size_t)group * (size_t)(d->size + 1) + (size_t)index) * (size_t)(d->degree + 1);
}

static size_t state_size(const moe_distinct *d)
{
    return (size_t)(d->top_groups + 1) * (size_t)(d->degree + 1);
}

static double *state_of(const moe_distinct *d, double *states, int group)
{
    return states + (size_t)group * state_size(d);
}

static void multiply(double *row, int degree, double weight)
{
    for (int j = degree; j > 0; j--) {
        row[j] += weight * row[j - 1];
    }
}

static double dot(const double *a, const double *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* state *= 1 + y (A - 1); in place, because every term comes from one group fewer. */
static void add_group(const moe_distinct *d, double *state, const double *a)
{
    int width = d->degree + 1;
    for (int m = d->top_groups; m > 0; m--) {
        double *to = state + m * width;
        const double *from = to - width;
        for (int j = d->degree; j > 0; j--) {
            for (int i = 1; i <= j; i++) {
                to[j] += a[i] * from[j - i];
            }
        }
    }
}

/* --- one pass --------------------------------------------------------------------------------- */

static void pass_forward(moe_distinct *d)
{
    double *state = state_of(d, d->before, 0);
    memset(state, 0, state_size(d) * sizeof *state);
    state[0] = 1;
    for (int g = 0; g < d->groups; g++) {
        double *row = row_of(d, d->prefix, g, 0);
        memset(row, 0, (size_t)(d->degree + 1) * sizeof *row);
        row[0] = 1;
        for (int i = 0; i < d->size; i++) {
            double *next = row_of(d, d->prefix, g, i + 1);
            double weight = d->w[g * d->size + i];
            next[0] = row[0];
            for (int j = 1; j <= d->degree; j++) {
                next[j] = row[j] + weight * row[j - 1];
            }
            row = next;
        }
        double *after = state_of(d, d->before, g + 1);
        memcpy(after, state, state_size(d) * sizeof *state);
        add_group(d, after, row);
        state = after;
    }
}

/* Tokens draw `least` experts, or one more with probability `more`, from as many groups as they may.
 * A coefficient is worth 1 / the sum of all sets of its size: what it adds up is a probability. */
static void open_back(moe_distinct *d, int least, double more)
{
    const double *sums = state_of(d, d->before, d->groups);
    double *worth = state_of(d, d->after, d->groups);
    memset(worth, 0, state_size(d) * sizeof *worth);
    for (int j = least; j <= least + 1 && j <= d->degree; j++) {
        int m = j < d->top_groups ? j : d->top_groups;
        double sum = sums[m * (d->degree + 1) + j];
        if (sum > 0) {
            worth[m * (d->degree + 1) + j] = (j == least ? 1 - more : more) / sum;
        }
    }
}

/* What the coefficients of a group's polynomial are worth, the other groups being as they are. */
static void weigh_group(const moe_distinct *d, int group, double *row)
{
    int width = d->degree + 1;
    const double *state = state_of(d, d->before, group);
    const double *after = state_of(d, d->after, group + 1);
    memset(row, 0, (size_t)width * sizeof *row);
    row[0] = dot(state, after, state_size(d));
    for (int m = 0; m < d->top_groups; m++) {
        for (int i = 1; i < width; i++) {
            row[i] += dot(state + m * width, after + (m + 1) * width + i, (size_t)(width - i));
        }
    }
}

/* The same one group earlier: the transpose of add_group. */
static void add_group_back(const moe_distinct *d, double *worth, const double *after,
                           const double *a)
{
    int width = d->degree + 1;
    memcpy(worth, after, state_size(d) * sizeof *worth);
    for (int m = 0; m < d->top_groups; m++) {
        for (int j = 0; j < d->degree; j++) {
            worth[m * width + j] +=
                dot(a + 1, after + (m + 1) * width + j + 1, (size_t)(d->degree - j));
        }
    }
}

/* From the last expert to the first: what coefficients are worth, and how probable each expert is.
 */
static void pass_group_back(moe_distinct *d, int group)
{
    double *worth = row_of(d, d->worth, group, d->size);
    weigh_group(d, group, worth);
    for (int i = d->size - 1; i >= 0; i--) {
        int expert = group * d->size + i;
        const double *front = row_of(d, d->prefix, group, i);
        double *earlier = row_of(d, d->worth, group, i);
        d->drawn[expert] = d->w[expert] * dot(front, worth + 1, (size_t)d->degree);
        for (int j = 0; j < d->degree; j++) {
            earlier[j] = worth[j] + d->w[expert] * worth[j + 1];
        }
        earlier[d->degree] = worth[d->degree];
        worth = earlier;
    }
}

static void pass_back(moe_distinct *d, int least, double more)
{
    open_back(d, least, more);
    for (int g = d->groups - 1; g >= 0; g--) {
        pass_group_back(d, g);
        add_group_back(d, state_of(d, d->after, g), state_of(d, d->after, g + 1),
                       row_of(d, d->prefix, g, d->size));
    }
}

/* --- fitting ---------------------------------------------------------------------------------- */

static double clip(double value, double low, double high)
{
    return fmin(fmax(value, low), high);
}

/* Sets p and the weights of independent draws with these p, a good start (Hajek 1964). The mean
 * number of experts. */
static double open_fit(moe_distinct *d)
{
    double sum = 0;
    for (int e = 0; e < d->experts; e++) {
        d->p[e] = clip(d->counts[e] / d->tokens, least_probability, most_probability);
        d->w[e] = d->p[e] / (1 - d->p[e]);
        sum += d->p[e];
    }
    return sum;
}

static double find_residual(const moe_distinct *d)
{
    double largest = 0;
    for (int e = 0; e < d->experts; e++) {
        largest = fmax(largest, fabs(d->drawn[e] - d->p[e]));
    }
    return largest;
}

/* How long the next step should be, in units of the one below: 1 / the curvature along the last step
 * (Barzilai and Borwein 1988), for the covariances that its model leaves out. */
static double step_length(const moe_distinct *d)
{
    double modelled = 0;
    double found = 0;
    for (int e = 0; e < d->experts; e++) {
        double variance = d->drawn[e] * (1 - d->drawn[e]);
        modelled += variance * d->step[e] * d->step[e];
        found += d->step[e] * (d->drawn[e] - d->drawn_before[e]);
    }
    return found > 0 ? clip(modelled / found, 0.1, 10) : 1;
}

/* One step of Newton's method on the logarithms of weights (log Z - p log w is convex, its gradient
 * drawn - p), with the covariances of a large draw: v_e is the variance of e, -v_e v_f / sum v goes
 * for two experts. A common factor of all weights changes nothing. */
static void improve(moe_distinct *d, bool first)
{
    double length = first ? 1 : step_length(d);
    double all = 0;
    for (int e = 0; e < d->experts; e++) {
        d->drawn[e] = clip(d->drawn[e], 1e-3 * least_probability, 1 - 1e-9);
        all += d->drawn[e] * (1 - d->drawn[e]);
    }
    for (int e = 0; e < d->experts; e++) {
        double ratio = d->p[e] * (1 - d->drawn[e]) / (d->drawn[e] * (1 - d->p[e]));
        double share = d->drawn[e] * (1 - d->drawn[e]) / all;
        d->step[e] = length * clip((1 - share) * log(ratio), -LONGEST_STEP, LONGEST_STEP);
        d->w[e] *= exp(d->step[e]);
        d->drawn_before[e] = d->drawn[e];
    }
}

void moe_distinct_fit(moe_distinct *d, const double *counts, double tokens)
{
    double sum = 0;
    for (int e = 0; e < d->experts; e++) {
        d->counts[e] = counts[e];
        sum += counts[e];
    }
    d->residual = 0;
    d->tokens = sum > 0 ? fmax(tokens, sum / (d->degree > 0 ? d->degree : d->experts)) : 0;
    if (!(sum > 0))
        return;
    double mean = open_fit(d);
    if (d->degree == 0)
        return;
    int least = fabs(mean - d->degree) < 1e-3 ? d->degree : (int)floor(mean);
    double more = least < d->degree ? mean - least : 0;
    for (int pass = 0;; pass++) {
        pass_forward(d);
        pass_back(d, least, more);
        d->residual = find_residual(d);
        if (d->residual <= residual_sought || pass == PASSES_MAX)
            return;
        improve(d, pass == 0);
    }
}

double moe_distinct_residual(const moe_distinct *d)
{
    return d->residual;
}

/* --- asking ----------------------------------------------------------------------------------- */

/* The parts of one place, taken in order. */
typedef struct walk {
    const moe_distinct_part *next;
    const moe_distinct_part *end;
} walk;

/* Multiplies the factors of experts [first, end) to a row, those of parts thinned. */
static void multiply_thinned(const moe_distinct *d, walk *parts, int first, int end, double *row)
{
    for (int e = first; e < end; e++) {
        double weight = d->w[e];
        if (parts->next < parts->end && parts->next->expert == e) {
            weight *= clip(1 - parts->next->count / d->counts[e], 0, 1);
            parts->next++;
        }
        multiply(row, d->degree, weight);
    }
}

static double none_in_group(moe_distinct *d, walk *parts, int group)
{
    int base = group * d->size;
    int first = parts->next->expert;
    int end = parts->end[-1].expert + 1;
    size_t width = (size_t)d->degree + 1;
    memcpy(d->row, row_of(d, d->prefix, group, first - base), width * sizeof *d->row);
    multiply_thinned(d, parts, first, end, d->row);
    return dot(d->row, row_of(d, d->worth, group, end - base), width);
}

static double none_in_groups(moe_distinct *d, walk *parts, int first, int last)
{
    size_t width = (size_t)d->degree + 1;
    memcpy(d->state, state_of(d, d->before, first), state_size(d) * sizeof *d->state);
    for (int g = first; g <= last; g++) {
        int end = (g + 1) * d->size;
        int from = end; /* the first expert of the group that is thinned */
        if (parts->next < parts->end && parts->next->expert < end)
            from = parts->next->expert;
        memcpy(d->row, row_of(d, d->prefix, g, from - g * d->size), width * sizeof *d->row);
        multiply_thinned(d, parts, from, end, d->row);
        add_group(d, d->state, d->row);
    }
    return dot(d->state, state_of(d, d->after, last + 1), state_size(d));
}

static double none_of_independent(const moe_distinct *d, const walk *parts)
{
    double none = 1;
    for (const moe_distinct_part *part = parts->next; part < parts->end; part++) {
        none *= 1 - d->p[part->expert] * clip(part->count / d->counts[part->expert], 0, 1);
    }
    return none;
}

static double probability_of_none(moe_distinct *d, const moe_distinct_part *parts, int count)
{
    walk all = {parts, parts + count};
    int first = parts[0].expert / d->size;
    int last = parts[count - 1].expert / d->size;
    if (d->degree == 0)
        return none_of_independent(d, &all);
    return first == last ? none_in_group(d, &all, first) : none_in_groups(d, &all, first, last);
}

double moe_distinct_tokens(moe_distinct *d, const moe_distinct_part *parts, int count)
{
    double sum = 0;
    double largest = 0;
    for (int i = 0; i < count; i++) {
        sum += parts[i].count;
        largest = fmax(largest, parts[i].count);
    }
    if (count <= 1 || !(sum > 0))
        return fmin(sum, d->tokens);
    double tokens = d->tokens * (1 - probability_of_none(d, parts, count));
    return fmin(clip(tokens, largest, sum), d->tokens);
}
