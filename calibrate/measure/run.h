/* Measures the points of a suite one after another and writes a sample of each. */
#ifndef MOE_CALIBRATE_MEASURE_RUN_H
#define MOE_CALIBRATE_MEASURE_RUN_H

#include "calibrate/measure/backend.h"
#include "calibrate/measure/estimate.h"
#include "calibrate/measure/samples.h"
#include "calibrate/measure/suite.h"
#include <signal.h>

/* Spread (interquartile range over median) at which a point's times are steady. */
#define MOECAL_STEADY 0.01

typedef struct moecal_run {
    const moecal_backend *backend;
    void *state;
    moecal_world world;
    moecal_samples *samples; /* NULL but on the process of rank 0 */
    moecal_stop_rule rule;
    moecal_rates rates;                   /* the first guess of what a point takes */
    const volatile sig_atomic_t *stopped; /* set by a signal: the point under way is the last */
} moecal_run;

typedef struct moecal_tally {
    int measured, had, refused, failed;
    bool stopped;
    bool broken; /* samples cannot be written */
} moecal_tally;

/* All processes call it with the same suite. Progress goes to stderr. */
moecal_tally moecal_run_suite(const moecal_run *run, const moecal_suite *suite);

#endif
