/* Validation: predictions against published (or just taken) measurements, one file a suite.
 *
 * A suite says what it compares, where the measured values come from, which constants were fitted on which of
 * them, and predicts; the frame computes errors, prints a verdict, writes JSON, Markdown and one plot. A suite
 * whose data is not there is skipped, with the reason: that is no failure. Errors are printed as they are,
 * good or bad; no suite passes or fails beyond "goal reached" or "goal missed".
 *
 *   relative error of a comparison   predicted / measured - 1
 *   MAPE                             mean over a group of |predicted / measured - 1|
 *
 * A suite is one file that exports one const struct, with a line in suites.c. The part of a group's name
 * before its first ": " names the panel of the plot it is drawn in ("Fig. 11: nothing fitted"). */
#ifndef MOE_REPORTS_VALIDATION_SUITE_H
#define MOE_REPORTS_VALIDATION_SUITE_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include <jansson.h>
#include <stdbool.h>

/* One predicted and measured value. Texts are owned by the outcome. */
typedef struct moe_comparison {
    const char *group; /* "layer 6, static": errors are summed up per group */
    const char *what;  /* "iteration 101, layer 3" */
    double predicted;
    double measured;
} moe_comparison;

/* A group's goal: "fig11, nothing fitted": MAPE at most 0.09. */
typedef struct moe_validation_goal {
    const char *group;
    double limit; /* of the MAPE, or of the median where `median` */
    bool median;
    const char *because; /* where the goal comes from */
} moe_validation_goal;

typedef struct moe_validation_outcome moe_validation_outcome;

typedef struct moe_validation_options {
    const char *data;   /* folder with calib/, measured/, traces/ */
    const char *folder; /* where to write, or NULL */
    bool quick;         /* fewer points, for tests */
    int ranks;          /* loop: 0 is the number of cores */
} moe_validation_options;

typedef struct moe_validation_suite {
    const char *name;     /* as in `moeplan validate NAME` */
    const char *sentence; /* what is compared with what */
    const char *source;   /* of the measured values, with licence */
    const char *unit;     /* of the values: "ms" */
    /* Adds comparisons, goals, notes. MOE_OK also where it skips (moe_validation_skip says why). */
    moe_status (*run)(moe_validation_outcome *outcome, const moe_validation_options *options,
                      moe_diag *diag);
} moe_validation_suite;

extern const moe_validation_suite *const moe_validation_suites[]; /* NULL-terminated */

/* --- what suites call --------------------------------------------------------------------------------- */

void moe_validation_compare(moe_validation_outcome *outcome, const char *group, const char *what,
                            double predicted, double measured);
void moe_validation_goal_add(moe_validation_outcome *outcome, moe_validation_goal goal);
/* A constant that was fitted: what, its value, on which data. */
__attribute__((format(printf, 2, 3))) void moe_validation_fitted(moe_validation_outcome *outcome,
                                                                 const char *format, ...);
/* What a reader has to know. */
__attribute__((format(printf, 2, 3))) void moe_validation_note(moe_validation_outcome *outcome,
                                                               const char *format, ...);
/* A figure that is no comparison (a count, a ratio): goes to text and JSON. */
void moe_validation_figure(moe_validation_outcome *outcome, const char *name, double value);
__attribute__((format(printf, 2, 3))) void moe_validation_skip(moe_validation_outcome *outcome,
                                                               const char *format, ...);
/* The reason; NULL: not skipped. */
const char *moe_validation_skipped(const moe_validation_outcome *outcome);
/* The path of a file of the data folder ("measured/laer/token.csv"), owned by the outcome; NULL where it
 * cannot be read: then the suite has been skipped, with that reason. */
const char *moe_validation_file(moe_validation_outcome *outcome,
                                const moe_validation_options *options, const char *name);

#endif
