#include "models/timeline.h"

#include "configs/base/memory.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* --- storage ---------------------------------------------------------------------------------- */

/* talloc refuses blocks of 256 MiB and more, which 4,096 devices with 8,192 operations reach. */
static double *resize(double *values, size_t count)
{
    if (count > SIZE_MAX / sizeof *values) {
        moe_out_of_memory();
    }
    return moe_need(realloc(values, count * sizeof *values));
}

static int release(moe_timeline *timeline)
{
    free(timeline->start_s);
    free(timeline->end_s);
    return 0;
}

moe_timeline *moe_timeline_create(void *owner, int devices)
{
    moe_timeline *timeline = moe_need(talloc_zero(owner, moe_timeline));
    timeline->devices = devices;
    talloc_set_destructor(timeline, release);
    return timeline;
}

void moe_timeline_reserve(moe_timeline *timeline, int op_count)
{
    if (op_count <= timeline->op_capacity) {
        return;
    }
    size_t cells = (size_t)op_count * (size_t)timeline->devices;
    timeline->start_s = resize(timeline->start_s, cells);
    timeline->end_s = resize(timeline->end_s, cells);
    timeline->op_capacity = op_count;
}

/* --- streams ---------------------------------------------------------------------------------- */

/* Each stream's operations, in order; the same on all devices. -1 ends a list. */
typedef struct stream_lists {
    int first[MOE_STREAMS];
    int *next;     /* [op_count] */
    int *previous; /* [op_count] */
} stream_lists;

static stream_lists stream_lists_create(const moe_program *program)
{
    size_t count = (size_t)program->op_count + 1;
    stream_lists lists = {.next = moe_need(malloc(count * sizeof(int))),
                          .previous = moe_need(malloc(count * sizeof(int)))};
    int last[MOE_STREAMS];
    for (int s = 0; s < MOE_STREAMS; s++) {
        lists.first[s] = last[s] = -1;
    }
    for (int id = 0; id < program->op_count; id++) {
        moe_stream stream = program->ops[id].stream;
        *(last[stream] < 0 ? &lists.first[stream] : &lists.next[last[stream]]) = id;
        lists.previous[id] = last[stream];
        lists.next[id] = -1;
        last[stream] = id;
    }
    return lists;
}

static void stream_lists_release(stream_lists *lists)
{
    free(lists->next);
    free(lists->previous);
}

/* --- exposed time ----------------------------------------------------------------------------- */

static const moe_stream precedence[MOE_STREAMS] = {MOE_STREAM_COMPUTE, MOE_STREAM_EXCHANGE,
                                                   MOE_STREAM_SPARSE,  MOE_STREAM_GRADIENT,
                                                   MOE_STREAM_COPY,    MOE_STREAM_HOST};

/* The first operation from `id` on that has not ended by `now`. */
static int skip_ended(const moe_timeline *timeline, const stream_lists *lists, int id, int device,
                      double now)
{
    while (id >= 0 && !(timeline->end_s[moe_timeline_at(timeline, id, device)] > now)) {
        id = lists->next[id];
    }
    return id;
}

/* Goes from boundary to boundary with one finger on each stream. */
static void add_exposed(const moe_program *program, const moe_timeline *timeline,
                        const stream_lists *lists, int device, double parts[static MOE_PARTS])
{
    int finger[MOE_STREAMS];
    memcpy(finger, lists->first, sizeof finger);
    double now = 0;
    while (now < timeline->step_s) {
        moe_part part = MOE_WAIT;
        double until = timeline->step_s;
        for (int p = 0; p < MOE_STREAMS && part == MOE_WAIT; p++) {
            int *id = &finger[precedence[p]];
            *id = skip_ended(timeline, lists, *id, device, now);
            if (*id < 0) {
                continue;
            }
            size_t at = moe_timeline_at(timeline, *id, device);
            bool under_way = timeline->start_s[at] <= now;
            until = fmin(until, under_way ? timeline->end_s[at] : timeline->start_s[at]);
            part = under_way ? program->ops[*id].part : MOE_WAIT;
        }
        parts[part] += until - now;
        now = until;
    }
}

void moe_timeline_exposed(const moe_program *program, const moe_timeline *timeline,
                          double parts[static MOE_PARTS])
{
    memset(parts, 0, MOE_PARTS * sizeof *parts);
    stream_lists lists = stream_lists_create(program);
    for (int d = 0; d < program->devices; d++) {
        add_exposed(program, timeline, &lists, d, parts);
    }
    for (int part = 0; part < MOE_PARTS; part++) {
        parts[part] /= program->devices;
    }
    stream_lists_release(&lists);
}

/* --- critical path ---------------------------------------------------------------------------- */

/* What an instance waited for longest on its own device (R1): id < 0 for nothing. */
typedef struct cause {
    int id;
    double end_s;
} cause;

static cause latest_cause(const moe_program *program, const moe_timeline *timeline,
                          const stream_lists *lists, int id, int device)
{
    const moe_op *op = &program->ops[id];
    cause latest = {-1, 0};
    for (int w = -1; w < op->wait_count; w++) {
        int before = w < 0 ? lists->previous[id] : program->waits[op->first_wait + w];
        if (before < 0) {
            continue;
        }
        double end_s = timeline->end_s[moe_timeline_at(timeline, before, device)];
        if (latest.id < 0 || end_s > latest.end_s) {
            latest = (cause){before, end_s};
        }
    }
    return latest;
}

static bool takes_part(const moe_op *op, int device)
{
    return op->kind == MOE_OP_COLLECTIVE && op->traffic != NULL && op->traffic->takes_part[device];
}

/* Moves `device` to the participant that a collective started for, and returns its cause. */
static cause last_participant(const moe_program *program, const moe_timeline *timeline,
                              const stream_lists *lists, int id, int *device)
{
    const moe_traffic *traffic = program->ops[id].traffic;
    cause last = {-1, -1};
    for (int d = 0; d < program->devices; d++) {
        if (!traffic->takes_part[d]) {
            continue;
        }
        cause own = latest_cause(program, timeline, lists, id, d);
        if (own.end_s > last.end_s) {
            last = own;
            *device = d;
        }
    }
    return last;
}

/* The instance that ends last; of equals the first. Returns its operation, -1 where there is none.
 */
static int find_last(const moe_program *program, const moe_timeline *timeline, int *device)
{
    int last = -1;
    double end_s = -1;
    for (int id = 0; id < program->op_count; id++) {
        for (int d = 0; d < program->devices; d++) {
            double own = timeline->end_s[moe_timeline_at(timeline, id, d)];
            if (own > end_s) {
                last = id;
                *device = d;
                end_s = own;
            }
        }
    }
    return last;
}

void moe_timeline_critical_walk(const moe_program *program, const moe_timeline *timeline,
                                moe_critical_visit visit, void *context)
{
    stream_lists lists = stream_lists_create(program);
    int device = 0;
    int id = find_last(program, timeline, &device);
    while (id >= 0) {
        const int own_id = id, own_device = device;
        double end_s = timeline->end_s[moe_timeline_at(timeline, id, device)];
        cause before = takes_part(&program->ops[id], device)
                           ? last_participant(program, timeline, &lists, id, &device)
                           : latest_cause(program, timeline, &lists, id, device);
        visit(context, own_id, own_device, before.end_s, end_s);
        id = before.id;
    }
    stream_lists_release(&lists);
}

typedef struct critical_sum {
    const moe_program *program;
    double *parts;
} critical_sum;

static void add_critical(void *context, int op, int device, double from_s, double until_s)
{
    const critical_sum *sum = context;
    (void)device;
    sum->parts[sum->program->ops[op].part] += until_s - from_s;
}

void moe_timeline_critical_path(const moe_program *program, const moe_timeline *timeline,
                                double parts[static MOE_PARTS])
{
    critical_sum sum = {program, parts};
    memset(parts, 0, MOE_PARTS * sizeof *parts);
    moe_timeline_critical_walk(program, timeline, add_critical, &sum);
}
