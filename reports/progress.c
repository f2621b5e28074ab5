#include "reports/progress.h"

#include <stdio.h>
#include <unistd.h>

enum { SILENT_S = 2 };

static double elapsed_s(const moe_progress *progress)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - progress->started.tv_sec) +
           1e-9 * (double)(now.tv_nsec - progress->started.tv_nsec);
}

void moe_progress_start(moe_progress *progress)
{
    progress->shown = false;
    clock_gettime(CLOCK_MONOTONIC, &progress->started);
}

void moe_progress_show(void *context, int64_t done, int64_t total)
{
    moe_progress *progress = context;
    double elapsed = elapsed_s(progress);
    if (elapsed < SILENT_S || !isatty(STDERR_FILENO) || total == 0)
        return;
    double left = done > 0 ? elapsed * (double)(total - done) / (double)done : 0;
    fprintf(stderr, "\rsimulated %lld of %lld steps, %.0f s left \033[K", (long long)done,
            (long long)total, left);
    fflush(stderr);
    progress->shown = true;
}

void moe_progress_end(moe_progress *progress)
{
    if (progress->shown)
        fputs("\r\033[K", stderr);
}
