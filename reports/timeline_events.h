/* Private to the writer of timeline files: events of one step. */
#ifndef MOE_REPORTS_TIMELINE_EVENTS_H
#define MOE_REPORTS_TIMELINE_EVENTS_H

#include "models/timeline.h"
#include <stdio.h>

/* One step of one policy, on its way into the file. */
typedef struct moe_timeline_step {
    FILE *stream;
    const moe_program *program;
    const moe_timeline *timeline;
    double offset_s; /* when the step begins */
    int64_t pid;     /* of the policy as a whole; its devices follow */
    int64_t flow;    /* the number of its first flow */
} moe_timeline_step;

extern const char *const moe_timeline_stream_names[]; /* by moe_stream; NULL-terminated */

/* Whole nanoseconds on the time axis of the file. */
int64_t moe_timeline_tick(const moe_timeline_step *step, double seconds);
/* As microseconds, exactly. */
void moe_timeline_put_time(FILE *stream, const char *key, int64_t ticks);
/* Begins an event; the caller writes further members and the closing brace. */
void moe_timeline_put_event(FILE *stream, const char *phase, const char *name, int64_t pid, int tid,
                            int64_t ticks);

void moe_timeline_put_operations(const moe_timeline_step *step);
void moe_timeline_put_flows(const moe_timeline_step *step);
void moe_timeline_put_counters(const moe_timeline_step *step);

#endif
