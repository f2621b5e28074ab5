/* A line on a terminal that says how far a long run is; silent elsewhere and for the first two
 * seconds. */
#ifndef MOE_REPORTS_PROGRESS_H
#define MOE_REPORTS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

typedef struct moe_progress {
    struct timespec started;
    bool shown;
} moe_progress;

void moe_progress_start(moe_progress *progress);
/* `context` is a moe_progress; counts are steps. */
void moe_progress_show(void *context, int64_t done, int64_t total);
void moe_progress_end(moe_progress *progress);

#endif
