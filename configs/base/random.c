#include "configs/base/random.h"
#include "configs/base/memory.h"
#include "configs/base/status.h"
#include <gsl/gsl_errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Words of mt19937's state, which GSL stores first and in unsigned longs (rng/mt.c). */
enum { STATE_WORDS = 624 };

/* The output function of SplitMix64 (Steele, Lea, Flood 2014: Fast splittable pseudorandom number
 * generators): a bijection in which every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t step(uint64_t state, uint64_t input)
{
    return mix((state ^ input) + UINT64_C(0x9e3779b97f4a7c15));
}

static uint64_t hash(uint64_t seed, const char *purpose, uint64_t index)
{
    uint64_t state = step(0, seed);
    for (const char *at = purpose; *at != '\0'; at++) {
        state = step(state, (unsigned char)*at);
    }
    state = step(state, 0x100); /* no byte: the end of the purpose */
    return step(state, index);
}

void moe_random_reseed(gsl_rng *random, uint64_t seed, const char *purpose, uint64_t index)
{
    uint64_t state = hash(seed, purpose, index);
    gsl_rng_set(random, (unsigned long)(state & 0xffffffff));
    /* gsl_rng_set takes 32 bits: among 10,000 streams two would coincide with 1 % probability. The
     * other bits of the hash are folded into the state itself. */
    unsigned long *words = gsl_rng_state(random);
    if (random->type == gsl_rng_mt19937 && gsl_rng_size(random) >= STATE_WORDS * sizeof *words) {
        for (int i = 0; i < STATE_WORDS; i++) {
            state = step(state, (uint64_t)i);
            words[i] ^= (unsigned long)(state & 0xffffffff);
        }
    }
}

gsl_rng *moe_random_create(uint64_t seed, const char *purpose, uint64_t index)
{
    gsl_rng *random = moe_need(gsl_rng_alloc(gsl_rng_mt19937));
    moe_random_reseed(random, seed, purpose, index);
    return random;
}

static void on_gsl_error(const char *reason, const char *file, int line, int code)
{
    fprintf(stderr, "moeplan: error: GSL: %s (%s:%d, code %d)\n", reason, file, line, code);
    exit(MOE_INTERNAL);
}

void moe_random_install_gsl_handler(void)
{
    gsl_set_error_handler(on_gsl_error);
}
