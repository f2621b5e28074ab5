/* Arithmetic on the counts of one source: how many assignments go to each of n experts. Every
 * function keeps the total it is asked for exactly. Sums and totals are below 2^31 (the caller sees
 * to it), so that products fit 64 bits.
 *
 * Ignored: a token goes to an expert at most once. A recorded expert has at most `tokens`
 * assignments; rounding keeps that, a draw may exceed it where the counts are close to it. */
#ifndef MOE_TRACES_COUNTS_H
#define MOE_TRACES_COUNTS_H

#include <gsl/gsl_rng.h>
#include <stddef.h>
#include <stdint.h>

uint64_t moe_counts_sum(const uint32_t *counts, size_t n);

/* In place: counts * total / sum, rounded by largest remainders (Hamilton's method): first every
 * quotient down, then the largest remainders up by one, at equal remainders the lower index first.
 * `sum` is that of the counts, above 0; `remainders` is scratch for n. Linear in n times log2(sum),
 * no sort. */
void moe_counts_scale(uint32_t *counts, size_t n, uint32_t sum, uint32_t total,
                      int32_t *remainders);

/* In place: a multinomial draw of `total` with probabilities (counts + smoothing) / (sum + n
 * smoothing), as a chain of binomials. Not all weights may be 0. */
void moe_counts_resample(uint32_t *counts, size_t n, double smoothing, uint32_t total,
                         const gsl_rng *random);

/* Moves a multivariate hypergeometric draw (without replacement) of `total` out of `pool` into
 * `drawn`; pool_sum >= total is the pool's sum before. */
void moe_counts_take(uint32_t *pool, size_t n, uint32_t pool_sum, uint32_t total, uint32_t *drawn,
                     const gsl_rng *random);

/* How many of `draws` balls are white, drawn without replacement from `white` and `black` ones. By
 * inversion outward from the mode: exact, in steps of the standard deviation, where GSL's generator
 * takes one step a draw. */
uint32_t moe_draw_hypergeometric(const gsl_rng *random, uint32_t white, uint32_t black,
                                 uint32_t draws);

#endif
