#include "calibrate/measure/estimate.h"

#include <math.h>

const moecal_rates moecal_rates_cpu = {5e10, 8e9, 3e9, 2e-6};
const moecal_rates moecal_rates_cuda = {4e14, 2e12, 1e11, 2e-5};

static const double storage_bytes_per_s = 1e9;
static const double call_s = 3e-6; /* a launch */

double moecal_estimate_repetition_s(const moecal_point *point, const moecal_rates *rates)
{
    double bytes = moecal_point_bytes(point);
    double compute_s = moecal_point_flop(point) / rates->flop_per_s;
    switch (point->kind) {
    case MOECAL_COLLECTIVE:
    case MOECAL_SHARING:
        return rates->start_s + bytes / rates->link_bytes_per_s;
    case MOECAL_INTERFERENCE:
        return rates->start_s + fmax(compute_s, bytes / rates->link_bytes_per_s);
    case MOECAL_LAUNCH:
        return (double)point->kernels * call_s;
    case MOECAL_COPY:
        return rates->start_s +
               bytes / (point->direction >= 2 ? storage_bytes_per_s : rates->memory_bytes_per_s);
    default:
        return rates->start_s + fmax(compute_s, bytes / rates->memory_bytes_per_s);
    }
}

/* Filling the buffers and checking cost about as much as some repetitions and reading the inputs
 * ten times. A settled point uses half of its budget, say; a slow one its least repetitions. */
double moecal_estimate_point_s(const moecal_point *point, const moecal_rates *rates,
                               const moecal_stop_rule *rule)
{
    double repetition_s = moecal_estimate_repetition_s(point, rates);
    double set_up_s = 0.02 + 2 * repetition_s + 10 * moecal_point_bytes(point) / 8e9;
    double least = rule->most < MOECAL_LEAST_REPETITIONS ? rule->most : MOECAL_LEAST_REPETITIONS;
    double timed_s = fmin(rule->most * repetition_s, rule->budget_s / 2);
    double pairs = point->kind == MOECAL_INTERFERENCE || point->kind == MOECAL_SHARING ? 1.5 : 1;
    return set_up_s + pairs * fmax(least * repetition_s, timed_s);
}
