/* Order statistics of raw times, and when enough of them have been taken. */
#ifndef MOE_CALIBRATE_MEASURE_STATISTICS_H
#define MOE_CALIBRATE_MEASURE_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>

/* Quantile 0 <= q <= 1 with linear interpolation between order statistics (Hyndman and Fan 1996,
 * type 7). 0 without values; `values` stays as it is. */
double moecal_quantile(const double *values, size_t count, double q);
double moecal_median(const double *values, size_t count);
/* (third - first quartile) / median: 0 with fewer than two values. */
double moecal_spread(const double *values, size_t count);

enum { MOECAL_LEAST_REPETITIONS = 5, MOECAL_SETTLED_REPETITIONS = 15 };

/* When a point is done. Repetitions are timed in batches that grow with what has been seen. */
typedef struct moecal_stop_rule {
    double budget_s; /* of a point, set-up and check apart */
    double spread;   /* small enough: with MOECAL_SETTLED_REPETITIONS, no more are taken */
    int most;        /* repetitions */
} moecal_stop_rule;

/* How many repetitions to time next; 0: enough. */
int moecal_next_batch(const moecal_stop_rule *rule, const double *times_s, size_t count,
                      double elapsed_s);

#endif
