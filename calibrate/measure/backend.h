/* What measures: one struct of functions for CUDA (cuBLAS, NCCL), one for the CPU (OpenBLAS, MPI).
 *
 * The driver (moecal.c) decides what is run, how often, and writes samples; a backend sets a point
 * up with fresh random inputs larger than the last-level cache together, checks its result against
 * double precision, and times repetitions. Every rank calls the same functions in the same order;
 * all but `world` are collective calls. A process may drive several ranks (several GPUs of a host):
 * then it says so in `world` and reports the slowest of its own. */
#ifndef MOE_CALIBRATE_MEASURE_BACKEND_H
#define MOE_CALIBRATE_MEASURE_BACKEND_H

#include "calibrate/measure/point.h"

typedef struct moecal_world {
    int rank; /* of this process: 0 writes */
    int processes;
    int ranks; /* devices of all processes */
    int hosts;
    int devices_per_host;
} moecal_world;

/* Absent readings are 0 (clock, power) or NaN (temperature). */
typedef struct moecal_conditions {
    double clock_hz;
    double power_w;
    double temperature_c;
    bool throttled;
} moecal_conditions;

typedef struct moecal_check {
    double error; /* largest deviation from double precision, relative to the largest element */
    double limit;
} moecal_check;

/* Raw seconds of one repetition, of the slowest rank. For INTERFERENCE and SHARING: until both are done,
 * the first (computation) and the second (collective); otherwise only `total_s`. */
typedef struct moecal_time {
    double total_s, first_s, second_s;
} moecal_time;

typedef struct moecal_backend {
    const char *name; /* "cuda", "cpu" */
    /* Finds devices and peers. NULL with a message of one line in `error` ("no CUDA driver: ..."). */
    void *(*open)(char *error, size_t error_size);
    moecal_world (*world)(const void *state);
    /* The machine line's `hosts`, `ranks`, `device`, `link`, `nic`, `software`. New reference; rank 0 only,
     * else NULL. May measure what no data sheet tells. */
    json_t *(*describe)(void *state);
    /* NULL where it can run the point, else why not ("fp8 needs compute capability 8.9"); static text. */
    const char *(*refuses)(const void *state, const moecal_point *point);
    /* Allocates and fills. Non-zero after a message in `error` (out of memory, ...), on all ranks if on one. */
    int (*prepare)(void *state, const moecal_point *point, char *error, size_t error_size);
    /* Runs once and compares. Agreed among ranks: the worst. INFINITY in `error` where the point could not be
     * run at all (the backend has said why on standard error): the point is left out, the run goes on. */
    moecal_check (*check)(void *state, const moecal_point *point);
    /* `count` repetitions, each timed on its own; times[count] are the same on all ranks. For INTERFERENCE and
     * SHARING `alone` 1 or 2 times only the first or second part (into total_s). NaN in all of them where the
     * point failed (said on standard error): it is left out. */
    void (*run)(void *state, const moecal_point *point, int alone, int count, moecal_time *times);
    moecal_conditions (*conditions)(void *state);
    void (*release)(void *state, const moecal_point *point);
    /* From rank 0 to all: decisions of the driver (number of repetitions, stop). */
    void (*share)(void *state, double *values, int count);
    void (*close)(void *state);
    /* Runs a whole training step (calibrate/SAMPLES.md) and writes its times; an exit code. NULL: it cannot. */
    int (*step)(void *state, const char *input, const char *output);
} moecal_backend;

extern const moecal_backend moecal_backend_chosen; /* the one this program was linked with */

#endif
