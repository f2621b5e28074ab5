#include "traces/counts.h"

#include <gsl/gsl_randist.h>
#include <gsl/gsl_sf_gamma.h>
#include <math.h>
#include <string.h>

uint64_t moe_counts_sum(const uint32_t *counts, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += counts[i];
    return sum;
}

/* --- rounding ------------------------------------------------------------------------------- */

/* Quotients in place of the counts, their remainders beside; returns how many units are left over.
 */
static uint32_t divide(uint32_t *counts, size_t n, uint32_t sum, uint32_t total,
                       int32_t *remainders)
{
    const double ratio = (double)total / sum;
    uint32_t left = total;
    for (size_t i = 0; i < n; i++) {
        /* The estimate is off by at most one; multiplying beats dividing by five to one. */
        int64_t quotient = (int32_t)(counts[i] * ratio);
        int64_t remainder = (int64_t)counts[i] * total - quotient * sum;
        const int64_t correction = (remainder >= sum) - (remainder < 0);
        quotient += correction;
        remainder -= correction * sum;
        counts[i] = (uint32_t)quotient;
        remainders[i] = (int32_t)remainder;
        left -= (uint32_t)quotient;
    }
    return left;
}

static size_t count_at_least(const int32_t *values, size_t n, int32_t threshold)
{
    int32_t found = 0; /* n is far below 2^31; as narrow as the values, so that it vectorizes */
    for (size_t i = 0; i < n; i++)
        found += values[i] >= threshold;
    return (size_t)found;
}

/* The largest threshold that at least `wanted` values reach; *above: how many exceed it. */
static int32_t find_threshold(const int32_t *values, size_t n, size_t wanted, int32_t limit,
                              size_t *above)
{
    int32_t low = 0;
    int32_t high = limit; /* no value reaches it */
    *above = 0;
    while (high - low > 1) {
        const int32_t middle = low + (high - low) / 2;
        const size_t found = count_at_least(values, n, middle);
        if (found >= wanted) {
            low = middle;
        } else {
            high = middle;
            *above = found;
        }
    }
    return low;
}

void moe_counts_scale(uint32_t *counts, size_t n, uint32_t sum, uint32_t total, int32_t *remainders)
{
    if (sum == total)
        return;
    const uint32_t left = divide(counts, n, sum, total, remainders);
    if (left == 0)
        return;
    size_t above;
    const int32_t threshold = find_threshold(remainders, n, left, (int32_t)sum, &above);
    size_t ties = left - above;
    for (size_t i = 0; i < n; i++) {
        const size_t tie = remainders[i] == threshold && ties > 0;
        ties -= tie;
        counts[i] += (remainders[i] > threshold) + (uint32_t)tie;
    }
}

/* --- draws ---------------------------------------------------------------------------------- */

void moe_counts_resample(uint32_t *counts, size_t n, double smoothing, uint32_t total,
                         const gsl_rng *random)
{
    double weight_left = (double)moe_counts_sum(counts, n) + smoothing * (double)n;
    for (size_t i = 0; i + 1 < n; i++) {
        const double weight = counts[i] + smoothing;
        /* Rounding must not make a probability of the last positive weight. */
        const double share = weight >= weight_left ? 1.0 : weight / weight_left;
        counts[i] = total == 0 || weight == 0.0 ? 0 : gsl_ran_binomial(random, share, total);
        total -= counts[i];
        weight_left -= weight;
    }
    counts[n - 1] = total;
}

static double log_choose(double n, double k)
{
    return gsl_sf_lngamma(n + 1) - gsl_sf_lngamma(k + 1) - gsl_sf_lngamma(n - k + 1);
}

uint32_t moe_draw_hypergeometric(const gsl_rng *random, uint32_t white, uint32_t black,
                                 uint32_t draws)
{
    const double w = white, b = black, d = draws;
    const double lowest = d > b ? d - b : 0;
    const double highest = d < w ? d : w;
    if (lowest == highest)
        return (uint32_t)lowest;
    const double mode = floor((d + 1) * (w + 1) / (w + b + 2));
    double up = mode, down = mode;
    double p_up = exp(log_choose(w, mode) + log_choose(b, d - mode) - log_choose(w + b, d));
    double p_down = p_up;
    double u = gsl_rng_uniform(random) - p_up;
    if (u < 0)
        return (uint32_t)mode;
    /* p(x + 1) / p(x) = (w - x) (d - x) / ((x + 1) (b - d + x + 1)), and its inverse downward. */
    while (up < highest || down > lowest) {
        if (up < highest) {
            p_up *= (w - up) * (d - up) / ((up + 1) * (b - d + up + 1));
            up++;
            if ((u -= p_up) < 0)
                return (uint32_t)up;
        }
        if (down > lowest) {
            p_down *= down * (b - d + down) / ((w - down + 1) * (d - down + 1));
            down--;
            if ((u -= p_down) < 0)
                return (uint32_t)down;
        }
    }
    return (uint32_t)mode; /* u was within rounding of 1 */
}

void moe_counts_take(uint32_t *pool, size_t n, uint32_t pool_sum, uint32_t total, uint32_t *drawn,
                     const gsl_rng *random)
{
    for (size_t i = 0; i < n; i++) {
        pool_sum -= pool[i];
        drawn[i] = moe_draw_hypergeometric(random, pool[i], pool_sum, total);
        pool[i] -= drawn[i];
        total -= drawn[i];
    }
}
