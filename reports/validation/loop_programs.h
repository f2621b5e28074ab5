/* Other programs that the loop runs: where they are, how many ranks make sense, and running one.
 *
 * A child's output goes to a log; its threads are one (OPENBLAS_NUM_THREADS, OMP_NUM_THREADS); it dies with us
 * (SIGINT, SIGTERM). */
#ifndef MOE_REPORTS_VALIDATION_LOOP_PROGRAMS_H
#define MOE_REPORTS_VALIDATION_LOOP_PROGRAMS_H

#include "configs/base/diag.h"
#include "configs/base/status.h"

/* A program beside ours or in PATH; NULL: there is none. Owned by `owner`. */
char *moe_loop_program(void *owner, const char *name);

/* Physical cores that we may run on, at least 1. */
int moe_loop_cores(void);

/* Seconds of cores that programs other than this one and its children took until now: differences of two calls
 * mean something. Children count once they have ended. */
double moe_loop_others_s(void);

typedef struct moe_loop_launcher {
    const char *mpirun;
    const char *moecal;
    int ranks;
    const char *log; /* appended to */
} moe_loop_launcher;

/* `mpirun -n RANKS moecal-cpu ARGUMENTS...` (NULL-terminated). An error names the log and quotes its end. */
moe_status moe_loop_run(const moe_loop_launcher *launcher, const char *const *arguments,
                        moe_diag *diag);

#endif
