/* The arithmetic of validation.h. */
#ifndef MOE_REPORTS_VALIDATION_VALIDATION_ERRORS_H
#define MOE_REPORTS_VALIDATION_VALIDATION_ERRORS_H

#include "reports/validation/validation.h"

/* Fills all but the name. */
void moe_validation_sum_up(moe_validation_group *group, const moe_comparison *const *members,
                           size_t count);

#endif
