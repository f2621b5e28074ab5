/* The laws of a timeline, checked without knowing which engine made it. */
#include "models/timeline.h"

#include "configs/base/memory.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef struct checker {
    const moe_program *program;
    const moe_timeline *timeline;
    double tolerance_s;
    double *drained_s; /* [ports of the cluster], scratch: when a collective's k-th port was done at
                          last */
} checker;

__attribute__((format(printf, 1, 2))) static const char *broken(const char *format, ...)
{
    static char message[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return message;
}

static double start_of(const checker *check, int id, int device)
{
    return check->timeline->start_s[moe_timeline_at(check->timeline, id, device)];
}

static double end_of(const checker *check, int id, int device)
{
    return check->timeline->end_s[moe_timeline_at(check->timeline, id, device)];
}

static const char *check_span(const checker *check, int id, int device)
{
    double start_s = start_of(check, id, device);
    double end_s = end_of(check, id, device);
    if (!(start_s >= 0 && end_s >= start_s && isfinite(end_s))) {
        return broken("operation %d (%s) on device %d runs from %.17g to %.17g s", id,
                      check->program->ops[id].name, device, start_s, end_s);
    }
    return NULL;
}

/* Neither the stream's operation before it nor one it waits for may end after its start. */
static const char *check_order(const checker *check, int id, int before, int device, bool stream)
{
    double start_s = start_of(check, id, device);
    double end_s = end_of(check, before, device);
    if (start_s >= end_s - check->tolerance_s) {
        return NULL;
    }
    return broken("operation %d (%s) on device %d starts at %.17g s, before operation %d (%s) %s "
                  "ends at %.17g s",
                  id, check->program->ops[id].name, device, start_s, before,
                  check->program->ops[before].name, stream ? "on its stream" : "that it waits for",
                  end_s);
}

static const char *check_starts(const checker *check, int id, int before_on_stream)
{
    const moe_op *op = &check->program->ops[id];
    const char *wrong = NULL;
    for (int d = 0; wrong == NULL && d < check->program->devices; d++) {
        wrong = check_span(check, id, d);
        if (wrong == NULL && before_on_stream >= 0) {
            wrong = check_order(check, id, before_on_stream, d, true);
        }
        for (int w = 0; wrong == NULL && w < op->wait_count; w++) {
            wrong = check_order(check, id, check->program->waits[op->first_wait + w], d, false);
        }
    }
    return wrong;
}

static const char *check_durations(const checker *check, int id)
{
    const moe_op *op = &check->program->ops[id];
    for (int d = 0; d < check->program->devices; d++) {
        /* Copies and the host know no stragglers. */
        const moe_speed *speed = op->kind == MOE_OP_COMPUTE ? check->program->speed : NULL;
        double done_s = moe_speed_done(speed, d, start_of(check, id, d), end_of(check, id, d));
        double work_s = moe_speed_work(speed, id, d, op->duration_s[d]);
        if (done_s < work_s - check->tolerance_s) {
            return broken("operation %d (%s) on device %d takes %.17g s for %.17g s of work", id,
                          op->name, d, done_s, work_s);
        }
    }
    return NULL;
}

/* Participants start together; who takes no part takes no time. */
static const char *check_meeting(const checker *check, int id)
{
    const moe_op *op = &check->program->ops[id];
    double meeting_s = NAN;
    for (int d = 0; d < check->program->devices; d++) {
        double start_s = start_of(check, id, d);
        bool takes_part = op->traffic != NULL && op->traffic->takes_part[d];
        if (!takes_part) {
            if (end_of(check, id, d) != start_s) {
                return broken("operation %d (%s) takes time on device %d, which takes no part", id,
                              op->name, d);
            }
            continue;
        }
        meeting_s = isnan(meeting_s) ? start_s : meeting_s;
        if (fabs(start_s - meeting_s) > check->tolerance_s) {
            return broken("operation %d (%s) starts at %.17g s on device %d and at %.17g s before",
                          id, op->name, start_s, d, meeting_s);
        }
    }
    return NULL;
}

/* When the last participant that touches a port left, for each loaded port; returns S + alpha. */
static double find_drained(const checker *check, int id)
{
    const moe_traffic *traffic = check->program->ops[id].traffic;
    double meeting_s = 0;
    for (int k = 0; k < traffic->port_count; k++) {
        check->drained_s[k] = 0;
    }
    for (int d = 0; d < traffic->devices; d++) {
        if (!traffic->takes_part[d]) {
            continue;
        }
        double end_s = end_of(check, id, d);
        meeting_s = start_of(check, id, d);
        const uint64_t *row = traffic->touches + (size_t)d * (size_t)traffic->words;
        for (int w = 0; w < traffic->words; w++) {
            for (uint64_t left = row[w]; left != 0; left &= left - 1) {
                double *drained_s = &check->drained_s[64 * w + __builtin_ctzll(left)];
                *drained_s = fmax(*drained_s, end_s);
            }
        }
    }
    return meeting_s + traffic->alpha_s;
}

/* Times at nominal speed that a port has between two dates, and that operation `id` needs of its k-th. */
static double given_s(const checker *check, int port, double from_s, double to_s)
{
    const moe_program *program = check->program;
    return moe_speed_done(program->speed, moe_speed_port(program->cluster, port), from_s, to_s);
}

static double needed_s(const checker *check, int id, int k)
{
    const moe_program *program = check->program;
    const moe_traffic *traffic = program->ops[id].traffic;
    const int port = traffic->ports[k];
    return moe_speed_work(program->speed, id, moe_speed_port(program->cluster, port),
                          traffic->work[k] / program->cluster->ports[port].rate_bytes_per_s);
}

/* However a port is shared, it gives one collective no more than its rate. */
static const char *check_ports(const checker *check, int id)
{
    const moe_traffic *traffic = check->program->ops[id].traffic;
    if (traffic == NULL) {
        return NULL;
    }
    double begin_s = find_drained(check, id);
    for (int k = 0; k < traffic->port_count; k++) {
        double had_s = given_s(check, traffic->ports[k], begin_s, check->drained_s[k]);
        if (had_s < needed_s(check, id, k) - check->tolerance_s) {
            return broken("operation %d (%s) had port %d for %.17g s, but needs %.17g s", id,
                          check->program->ops[id].name, traffic->ports[k], had_s,
                          needed_s(check, id, k));
        }
    }
    return NULL;
}

static const char *check_op(const checker *check, int id, int before_on_stream)
{
    const char *wrong = check_starts(check, id, before_on_stream);
    if (wrong != NULL) {
        return wrong;
    }
    if (check->program->ops[id].kind != MOE_OP_COLLECTIVE) {
        return check_durations(check, id);
    }
    wrong = check_meeting(check, id);
    return wrong != NULL ? wrong : check_ports(check, id);
}

static const char *check_all(const checker *check)
{
    int last[MOE_STREAMS];
    for (int s = 0; s < MOE_STREAMS; s++) {
        last[s] = -1;
    }
    double step_s = 0;
    for (int id = 0; id < check->program->op_count; id++) {
        moe_stream stream = check->program->ops[id].stream;
        const char *wrong = check_op(check, id, last[stream]);
        if (wrong != NULL) {
            return wrong;
        }
        last[stream] = id;
        for (int d = 0; d < check->program->devices; d++) {
            step_s = fmax(step_s, end_of(check, id, d));
        }
    }
    if (!(fabs(step_s - check->timeline->step_s) <= check->tolerance_s)) {
        return broken("the step takes %.17g s, but its last instance ends at %.17g s",
                      check->timeline->step_s, step_s);
    }
    return NULL;
}

static checker checker_create(const moe_program *program, const moe_timeline *timeline,
                              double relative)
{
    return (checker){
        .program = program,
        .timeline = timeline,
        .tolerance_s = relative * timeline->step_s,
        .drained_s = moe_need(calloc((size_t)program->cluster->port_count + 1, sizeof(double)))};
}

const char *moe_timeline_check(const moe_program *program, const moe_timeline *timeline,
                               double relative)
{
    if (timeline->devices != program->devices || timeline->op_capacity < program->op_count) {
        return broken("the timeline holds %d operations on %d devices, the program has %d on %d",
                      timeline->op_capacity, timeline->devices, program->op_count,
                      program->devices);
    }
    checker check = checker_create(program, timeline, relative);
    const char *wrong = check_all(&check);
    free(check.drained_s);
    return wrong;
}

/* --- ports that are really shared ------------------------------------------------------------- */

typedef struct port_use {
    int id;
    double begin_s; /* S + alpha */
} port_use;

/* Of one port, over all collectives so far in order of their begin. */
typedef struct port_log {
    double busy_s;   /* measure of the union of the times it was in use */
    double until_s;  /* end of that union */
    double needed_s; /* sum of work / rate */
} port_log;

static int compare_begin(const void *a, const void *b)
{
    const port_use *left = a;
    const port_use *right = b;
    int by_time = (left->begin_s > right->begin_s) - (left->begin_s < right->begin_s);
    return by_time != 0 ? by_time : (left->id > right->id) - (left->id < right->id);
}

static int list_uses(const checker *check, port_use *uses)
{
    int count = 0;
    for (int id = 0; id < check->program->op_count; id++) {
        const moe_op *op = &check->program->ops[id];
        if (op->kind == MOE_OP_COLLECTIVE && op->traffic != NULL) {
            uses[count++] = (port_use){id, find_drained(check, id)};
        }
    }
    qsort(uses, (size_t)count, sizeof *uses, compare_begin);
    return count;
}

static void log_use(const checker *check, port_use use, port_log *logs)
{
    const moe_traffic *traffic = check->program->ops[use.id].traffic;
    find_drained(check, use.id);
    for (int k = 0; k < traffic->port_count; k++) {
        port_log *log = &logs[traffic->ports[k]];
        double from_s = fmax(log->until_s, use.begin_s);
        if (check->drained_s[k] > from_s) {
            log->busy_s += given_s(check, traffic->ports[k], from_s, check->drained_s[k]);
        }
        log->until_s = fmax(log->until_s, check->drained_s[k]);
        log->needed_s += needed_s(check, use.id, k);
    }
}

static const char *check_logs(const checker *check, port_use *uses, port_log *logs)
{
    int count = list_uses(check, uses);
    for (int u = 0; u < count; u++) {
        log_use(check, uses[u], logs);
    }
    for (int p = 0; p < check->program->cluster->port_count; p++) {
        if (logs[p].busy_s < logs[p].needed_s - check->tolerance_s) {
            return broken("port %d was in use for %.17g s, but its collectives need %.17g s", p,
                          logs[p].busy_s, logs[p].needed_s);
        }
    }
    return NULL;
}

const char *moe_timeline_check_sharing(const moe_program *program, const moe_timeline *timeline,
                                       double relative)
{
    checker check = checker_create(program, timeline, relative);
    port_use *uses = moe_need(calloc((size_t)program->op_count + 1, sizeof *uses));
    port_log *logs = moe_need(calloc((size_t)program->cluster->port_count + 1, sizeof *logs));
    const char *wrong = check_logs(&check, uses, logs);
    free(check.drained_s);
    free(uses);
    free(logs);
    return wrong;
}
