#include "calibrate/measure/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double quantile_sorted(const double *sorted, size_t count, double q)
{
    double position = q * (double)(count - 1);
    size_t below = (size_t)position;
    double rest = position - (double)below;
    return below + 1 < count ? sorted[below] + rest * (sorted[below + 1] - sorted[below])
                             : sorted[below];
}

static double *sorted_copy(const double *values, size_t count)
{
    double *sorted = malloc(count * sizeof *sorted);
    if (!sorted)
        abort();
    memcpy(sorted, values, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare);
    return sorted;
}

double moecal_quantile(const double *values, size_t count, double q)
{
    if (count == 0)
        return 0;
    double *sorted = sorted_copy(values, count);
    double value = quantile_sorted(sorted, count, q);
    free(sorted);
    return value;
}

double moecal_median(const double *values, size_t count)
{
    return moecal_quantile(values, count, 0.5);
}

double moecal_spread(const double *values, size_t count)
{
    if (count < 2)
        return 0;
    double *sorted = sorted_copy(values, count);
    double median = quantile_sorted(sorted, count, 0.5);
    double range = quantile_sorted(sorted, count, 0.75) - quantile_sorted(sorted, count, 0.25);
    free(sorted);
    return median > 0 ? range / median : 0;
}

/* A tenth of what is left of the budget, so that the spread is looked at now and then. */
static int batch_within(double left_s, double median_s)
{
    double repetitions = median_s > 0 ? left_s / 10 / median_s : 1;
    return repetitions < 1 ? 1 : repetitions > 50 ? 50 : (int)repetitions;
}

int moecal_next_batch(const moecal_stop_rule *rule, const double *times_s, size_t count,
                      double elapsed_s)
{
    int left = rule->most - (int)count;
    int least = rule->most < MOECAL_LEAST_REPETITIONS ? rule->most : MOECAL_LEAST_REPETITIONS;
    if (left <= 0)
        return 0;
    if ((int)count < least)
        return elapsed_s > rule->budget_s || count == 0 ? 1 : least - (int)count;
    if (elapsed_s >= rule->budget_s)
        return 0;
    if (count >= MOECAL_SETTLED_REPETITIONS && moecal_spread(times_s, count) <= rule->spread)
        return 0;
    int batch = batch_within(rule->budget_s - elapsed_s, moecal_median(times_s, count));
    return batch < left ? batch : left;
}
