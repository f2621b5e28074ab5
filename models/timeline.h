/* A timeline: when every instance of a program started and ended, and what follows from it.
 *
 *   exposed time   on one device at one instant, in this order of precedence: the compute stream's
 *                  operation; else a collective under way on the device (exchange, then sparse, then
 *                  gradient stream); else a copy; else the host; else nothing: `wait`. Over all
 *                  parts it sums to the step time on every device.
 *   critical path  from the instance that ends last back through what each start waited for (a
 *                  collective: its last participant); the time between the end of one and the end of the next
 *                  belongs to the later one. Sums to the step time.
 *   laws           no two instances overlap on one stream; nothing starts before what it waits for or
 *                  is done in less than its work; participants meet; who takes no part takes no time; on
 *                  each port work / rate of a collective <= the time it had the port (from S + alpha until
 *                  its last participant that touches the port leaves). Engines that share ports also
 *                  keep: sum of work / rate <= the time during which the port had any collective. */
#ifndef MOE_MODELS_TIMELINE_H
#define MOE_MODELS_TIMELINE_H

#include "models/program.h"

typedef struct moe_timeline {
    int devices;
    int op_capacity;
    double *start_s; /* [op][device] */
    double *end_s;   /* [op][device]; a collective on a non-participant: start == end */
    double step_s;   /* the last end */
} moe_timeline;

/* Owned by `owner`; grows as needed. */
moe_timeline *moe_timeline_create(void *owner, int devices);
void moe_timeline_reserve(moe_timeline *timeline, int op_count);

static inline size_t moe_timeline_at(const moe_timeline *timeline, int op, int device)
{
    return (size_t) op * (size_t) timeline->devices + (size_t) device;
}

/* Mean over devices of exposed time per part. parts[MOE_PARTS]. */
void moe_timeline_exposed(const moe_program *program, const moe_timeline *timeline,
                          double parts[static MOE_PARTS]);
/* Time per part along the critical path; parts[MOE_WAIT] is 0. */
void moe_timeline_critical_path(const moe_program *program, const moe_timeline *timeline,
                                double parts[static MOE_PARTS]);
/* The path itself, from its last instance back to its first: each owns the time from the end of the one
 * before it until its own end. */
typedef void (*moe_critical_visit)(void *context, int op, int device, double from_s, double until_s);
void moe_timeline_critical_walk(const moe_program *program, const moe_timeline *timeline,
                                moe_critical_visit visit, void *context);
/* NULL, or a description (static buffer) of the first law broken. `relative` e.g. 1e-9. */
const char *moe_timeline_check(const moe_program *program, const moe_timeline *timeline,
                               double relative);
/* The law of sharing alone (see above); `analytic` breaks it where collectives overlap on a port. */
const char *moe_timeline_check_sharing(const moe_program *program, const moe_timeline *timeline,
                                       double relative);

#endif
