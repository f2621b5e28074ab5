#include "reports/validation/validation_errors.h"

#include "configs/base/memory.h"
#include "reports/validation/validation_private.h"
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics.h>
#include <math.h>
#include <talloc.h>

/* Of the comparisons that have an error. */
typedef struct columns {
    double *predicted;
    double *measured;
    double *magnitude; /* |error| */
    size_t count;
} columns;

static columns make_columns(size_t count)
{
    double *values = moe_need(talloc_array(NULL, double, 3 * count + 1));
    return (columns){
        .predicted = values, .measured = values + count, .magnitude = values + 2 * count};
}

static void take(moe_validation_group *group, columns *all, const moe_comparison *comparison)
{
    if (!moe_comparison_has_error(comparison)) {
        group->unusable++;
        return;
    }
    const double error = moe_comparison_error(comparison);
    all->predicted[all->count] = comparison->predicted;
    all->measured[all->count] = comparison->measured;
    all->magnitude[all->count++] = fabs(error);
    group->bias += error;
    group->mape += fabs(error);
    if (group->worst_what == NULL || fabs(error) > fabs(group->worst)) {
        group->worst = error;
        group->worst_what = comparison->what;
    }
}

/* NaN below three points and where one of the two does not vary. */
static double correlation(const double *a, const double *b, size_t count)
{
    if (count < 3)
        return NAN;
    const double value = gsl_stats_correlation(a, 1, b, 1, count);
    return isfinite(value) ? value : NAN;
}

/* Ranks of values, those of equal ones averaged. */
static void rank(const double *values, double *ranks, size_t *order, size_t count)
{
    gsl_sort_index(order, values, 1, count);
    for (size_t first = 0; first < count;) {
        size_t end = first + 1;
        while (end < count && values[order[end]] == values[order[first]])
            end++;
        for (size_t i = first; i < end; i++)
            ranks[order[i]] = 0.5 * (double)(first + end - 1);
        first = end;
    }
}

static double rank_correlation(const columns *all)
{
    const size_t count = all->count;
    double *ranks = moe_need(talloc_array(NULL, double, 2 * count + 1));
    size_t *order = moe_need(talloc_array(ranks, size_t, count + 1));
    rank(all->predicted, ranks, order, count);
    rank(all->measured, ranks + count, order, count);
    const double value = correlation(ranks, ranks + count, count);
    talloc_free(ranks);
    return value;
}

void moe_validation_sum_up(moe_validation_group *group, const moe_comparison *const *members,
                           size_t count)
{
    columns all = make_columns(count);
    for (size_t i = 0; i < count; i++)
        take(group, &all, members[i]);
    group->count = all.count;
    group->pearson = correlation(all.predicted, all.measured, all.count);
    group->rank = rank_correlation(&all);
    if (all.count > 0) {
        group->mape /= (double)all.count;
        group->bias /= (double)all.count;
        gsl_sort(all.magnitude, 1, all.count);
        group->median = gsl_stats_median_from_sorted_data(all.magnitude, 1, all.count);
    }
    talloc_free(all.predicted);
}
