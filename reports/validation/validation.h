/* The frame around validation suites: runs one, sums up its errors, says the verdicts, writes them.
 *
 *   error_i = predicted_i / measured_i - 1
 *   MAPE    = mean |error_i|      bias = mean error_i      worst: the error_i with the largest |error_i|
 *   median  = of |error_i| (mean of the middle two where their number is even)
 *   Pearson = correlation of predicted and measured; rank: the same of their ranks (Spearman), ties sharing
 *             the mean of the ranks they span. Not said (NaN) below three points or without spread.
 *
 * A comparison whose measured value is not positive, or that has a value that is not finite, has no relative
 * error: it is counted apart and printed, never silently dropped. A goal whose group has no comparison with an
 * error is missed. */
#ifndef MOE_REPORTS_VALIDATION_VALIDATION_H
#define MOE_REPORTS_VALIDATION_VALIDATION_H

#include "reports/validation/suite.h"
#include <stddef.h>
#include <stdio.h>

typedef struct moe_validation_group {
    const char *name;
    size_t count;    /* comparisons with an error */
    size_t unusable; /* and without */
    double mape;
    double median;
    double worst; /* signed */
    const char *worst_what;
    double bias;
    double pearson; /* or NaN */
    double rank;    /* or NaN */
} moe_validation_group;

typedef struct moe_validation_verdict {
    moe_validation_goal goal;
    double value; /* NaN where the group has none */
    bool reached;
} moe_validation_verdict;

/* Runs the suite and sums up. NULL after a printed error, with *status set. */
moe_validation_outcome *moe_validation_run(void *owner, const moe_validation_suite *suite,
                                           const moe_validation_options *options,
                                           moe_status *status, moe_diag *diag);

/* In the order of their first comparison; owned by the outcome. */
const moe_validation_group *moe_validation_groups(const moe_validation_outcome *outcome,
                                                  size_t *count);
/* In the order of the goals. */
const moe_validation_verdict *moe_validation_verdicts(const moe_validation_outcome *outcome,
                                                      size_t *count);

/* What a terminal shows. */
void moe_validation_text(const moe_validation_outcome *outcome, FILE *stream);
/* The same as Markdown; `picture`: file name of its plot, or NULL. */
void moe_validation_markdown(const moe_validation_outcome *outcome, const char *picture,
                             FILE *stream);
/* Everything, all comparisons included. New reference. */
json_t *moe_validation_json(const moe_validation_outcome *outcome);

/* NAME.md, NAME.json, NAME.svg and what the plot is made from (NAME.gnuplot, NAME.tsv), each whole or not at
 * all; of a skipped suite nothing. Without gnuplot a warning instead of the plot. */
moe_status moe_validation_write(const moe_validation_outcome *outcome, const char *folder,
                                moe_diag *diag);

#endif
