/* Random streams: one independent generator per (seed, purpose, index), so that a result depends on
 * neither the order in which streams are used nor the number of workers. GSL's mt19937, seeded by a
 * SplitMix64 hash of the three. */
#ifndef MOE_CONFIGS_BASE_RANDOM_H
#define MOE_CONFIGS_BASE_RANDOM_H

#include <gsl/gsl_rng.h>
#include <stdint.h>

/* Freed with gsl_rng_free; never NULL (GSL's error handler is ours: it ends the program). */
gsl_rng *moe_random_create(uint64_t seed, const char *purpose, uint64_t index);

/* Re-seeds an existing generator: the same stream as a created one, without an allocation. */
void moe_random_reseed(gsl_rng *random, uint64_t seed, const char *purpose, uint64_t index);

/* Installs a GSL error handler that prints the reason and exits 70; first thing in main. */
void moe_random_install_gsl_handler(void);

#endif
