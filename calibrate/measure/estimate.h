/* How long a point should take, before anything is known of the machine: for --dry-run, and for the
 * first guess of the time that is left. */
#ifndef MOE_CALIBRATE_MEASURE_ESTIMATE_H
#define MOE_CALIBRATE_MEASURE_ESTIMATE_H

#include "calibrate/measure/point.h"
#include "calibrate/measure/statistics.h"

/* Round figures of a device: one core and shared memory, or a data-centre GPU. */
typedef struct moecal_rates {
    double flop_per_s;
    double memory_bytes_per_s;
    double link_bytes_per_s;
    double start_s; /* of a kernel or a collective */
} moecal_rates;
extern const moecal_rates moecal_rates_cpu, moecal_rates_cuda;

/* One repetition. */
double moecal_estimate_repetition_s(const moecal_point *point, const moecal_rates *rates);
/* The whole point: set-up, check, warm-up and repetitions. */
double moecal_estimate_point_s(const moecal_point *point, const moecal_rates *rates,
                               const moecal_stop_rule *rule);

#endif
