/* Jobs in forked child processes, at most so many at a time.
 *
 * A child's results go to memory it shares with the parent (allocated before the fork); it leaves by _exit,
 * so nothing of the parent's is flushed or freed twice, and an abort inside a library becomes an error
 * message here. Children die with the parent. No OpenMP region may run before the fork. */
#ifndef MOE_SIM_WORKERS_H
#define MOE_SIM_WORKERS_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include <stddef.h>

/* Zeroed memory shared with children, unmapped when `owner` is freed; NULL when there is none left. */
void *moe_workers_shared(void *owner, size_t bytes);

typedef struct moe_workers_plan {
    int job_count;
    int parallel;
    moe_status (*job)(void *context, int job);    /* in the child */
    const char *(*describe)(void *context, int job); /* for messages: "policy ep, steps 0 to 63" */
    void (*poll)(void *context);                  /* in the parent, about ten times a second; may be NULL */
    void *context;
} moe_workers_plan;

/* The first failing job's status (a child killed by a signal: MOE_INTERNAL, printed); the rest is then
 * stopped. MOE_OK when all jobs are done. */
moe_status moe_workers_run(const moe_workers_plan *plan, moe_diag *diag);

#endif
