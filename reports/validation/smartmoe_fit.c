#include "reports/validation/smartmoe.h"

#include <gsl/gsl_multifit.h>

smartmoe_factors smartmoe_fit(const smartmoe_seconds *seconds, const double *measured_s,
                              const bool *used, int count)
{
    size_t rows = 0;
    for (int i = 0; i < count; i++)
        rows += used[i];
    gsl_matrix *x = gsl_matrix_alloc(rows, 3);
    gsl_vector *y = gsl_vector_alloc(rows), *factors = gsl_vector_alloc(3);
    gsl_matrix *covariance = gsl_matrix_alloc(3, 3);
    gsl_multifit_linear_workspace *work = gsl_multifit_linear_alloc(rows, 3);
    for (int i = 0, row = 0; i < count; i++) {
        if (!used[i])
            continue;
        gsl_matrix_set(x, (size_t)row, 0, seconds[i].experts / measured_s[i]);
        gsl_matrix_set(x, (size_t)row, 1, seconds[i].exchange / measured_s[i]);
        gsl_matrix_set(x, (size_t)row, 2, 1 / measured_s[i]);
        gsl_vector_set(y, (size_t)row++, 1);
    }
    double squares;
    gsl_multifit_linear(x, y, factors, covariance, &squares, work);
    const smartmoe_factors fitted = {gsl_vector_get(factors, 0), gsl_vector_get(factors, 1),
                                     gsl_vector_get(factors, 2)};
    gsl_multifit_linear_free(work);
    gsl_matrix_free(covariance);
    gsl_vector_free(factors);
    gsl_vector_free(y);
    gsl_matrix_free(x);
    return fitted;
}

double smartmoe_apply(const smartmoe_factors *factors, const smartmoe_seconds *seconds)
{
    return factors->experts * seconds->experts + factors->exchange * seconds->exchange +
           factors->constant_s;
}
