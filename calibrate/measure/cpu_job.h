/* Private to cpu_*.c: the state of the CPU backend, and one point made ready to run.
 *
 * Inputs lie in a pool of random values that nothing writes to: value i of rank r is
 * moecal_cpu_random(r, i), so that every rank can tell what another one sent. Results lie in a second
 * pool. A job takes a stretch of both, its set; repetitions go through as many sets as fit, so that
 * they come from memory and not from a cache that the last one filled. The pools have
 * MOECAL_CPU_POOL_BYTES together, whatever a (virtual) machine says of its last cache: more than that
 * belongs to somebody else most of the time. A larger point gets what it needs. */
#ifndef MOE_CALIBRATE_MEASURE_CPU_JOB_H
#define MOE_CALIBRATE_MEASURE_CPU_JOB_H

#include "calibrate/measure/backend.h"
#include <mpi.h>

#ifdef MOEPLAN_SANITIZED
enum { MOECAL_CPU_POOL_BYTES = 96 << 20 }; /* nothing is measured with a sanitizer's help */
#else
enum { MOECAL_CPU_POOL_BYTES = 256 << 20 };
#endif
enum { MOECAL_CPU_MOST_SETS = 4096 };

typedef struct moecal_cpu_pool {
    float *values;
    int64_t count;
} moecal_cpu_pool;

typedef struct moecal_cpu_job moecal_cpu_job;

typedef struct moecal_cpu {
    MPI_Comm comm; /* all ranks */
    moecal_world world;
    bool serialized; /* MPI may be called by another thread than the first */
    moecal_cpu_pool inputs, results;
    moecal_cpu_job *job;
    char processor[256];
} moecal_cpu;

/* Times of one repetition on this rank. */
typedef void moecal_cpu_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time);

struct moecal_cpu_job {
    moecal_cpu *cpu;
    const moecal_point *point;
    int64_t input_values, result_values; /* of a set */
    int64_t sets, next;
    moecal_cpu_once *once;
    /* After `once` on set 0: the largest deviation, relative to the largest element. */
    double (*error)(moecal_cpu_job *job);
    double limit;
    void (*free)(moecal_cpu_job *job); /* of `details`; may be NULL */
    void *details;
};

/* Set up `job` for its point: sizes and functions. Memory comes after that; `fill`, where there is
 * one, runs for every set. Non-zero with a message in `error`. */
int moecal_cpu_compute_set_up(moecal_cpu_job *job);
void moecal_cpu_compute_fill(moecal_cpu_job *job);
int moecal_cpu_exchange_set_up(moecal_cpu_job *job, char *error, size_t error_size);
int moecal_cpu_machinery_set_up(moecal_cpu_job *job, char *error, size_t error_size);

/* Inputs and results of a set. */
const float *moecal_cpu_inputs(const moecal_cpu_job *job, int64_t set);
float *moecal_cpu_results(const moecal_cpu_job *job, int64_t set);

/* In (-1, 1), never 0. */
float moecal_cpu_random(int rank, int64_t index);
/* How many a rank may still take of the host's memory. */
int64_t moecal_cpu_free_values(const moecal_world *world);
/* At least so many values, random or untouched; 0 where there is no memory. */
int moecal_cpu_pool_reserve(moecal_cpu_pool *pool, int64_t count, int random_rank);

double moecal_cpu_now_s(void);
/* The time of a repetition from `start_s` until now. */
moecal_time moecal_cpu_since(double start_s);

/* Deviations seen so far. */
typedef struct moecal_cpu_deviation {
    double worst, largest;
} moecal_cpu_deviation;
void moecal_cpu_compare(moecal_cpu_deviation *seen, double got, double expected);
double moecal_cpu_relative(const moecal_cpu_deviation *seen);

/* The machine line's keys. New reference. */
json_t *moecal_cpu_describe(void *state);

int moecal_cpu_step(void *state, const char *input, const char *output);

#endif
