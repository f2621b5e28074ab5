/* Private to reports/validation/validation*.c: what an outcome holds. */
#ifndef MOE_REPORTS_VALIDATION_VALIDATION_PRIVATE_H
#define MOE_REPORTS_VALIDATION_VALIDATION_PRIVATE_H

#include "reports/validation/validation.h"

/* Texts, in the order in which the suite said them. */
typedef struct moe_validation_texts {
    const char **items;
    size_t count;
} moe_validation_texts;

typedef struct moe_validation_number {
    const char *name;
    double value;
} moe_validation_number;

struct moe_validation_outcome { /* owns everything below */
    const moe_validation_suite *suite;
    const char *skipped; /* the reason, or NULL */
    moe_comparison *comparisons;
    size_t comparison_count;
    moe_validation_group *groups;
    size_t group_count;
    moe_validation_verdict *verdicts;
    size_t verdict_count;
    moe_validation_texts fitted;
    moe_validation_texts notes;
    moe_validation_number *figures;
    size_t figure_count;
};

static inline bool moe_comparison_has_error(const moe_comparison *comparison)
{
    return comparison->measured > 0 && __builtin_isfinite(comparison->measured) &&
           __builtin_isfinite(comparison->predicted);
}

static inline double moe_comparison_error(const moe_comparison *comparison)
{
    return comparison->predicted / comparison->measured - 1;
}

/* validation_plot.c: the picture, its script and its data. */
moe_status moe_validation_plot(const moe_validation_outcome *outcome, const char *folder,
                               bool *drawn, moe_diag *diag);

#endif
