/* The analytic engine: one pass over the program in its order, every rule R1-R5 of models/program.h
 * where it is applied. Two collectives never notice each other.
 *
 *   R1      start = max(end of the stream's last instance, ends of what the instance waits for)
 *   R2      a computation ends where the integral of its pace, times the device's speed, from its start
 *           on is its duration
 *   R3, R4  S = max over participants of their readiness; port k is drained at
 *           S + alpha + work[k] / rate[k]; a device's T = max over the ports it touches; it leaves
 *           at S + slowdown * (T - S)
 *
 * The pace needs the collectives that run beside a computation: they stand before it in the program
 * (the builder's rule), so they have been timed. On one stream they follow one another in time, and
 * so do the computations that look at them: a cursor per (device, computing stream, collectives'
 * stream) passes each collective once. */
#include "sim/engine.h"

#include "configs/base/memory.h"

#include <math.h>
#include <string.h>
#include <talloc.h>

typedef struct moe_analytic {
    const moe_cluster *cluster;
    int devices;
    double *clock_s; /* [streams][devices]: when the stream's last instance ended */
    double *ready_s; /* [devices]: of the operation at hand */
    double *drain_s; /* [ports of the cluster]: of the collective at hand */
    int *last;       /* [devices]: its last port (moe_engine_last_ports) */
    /* By stream: the collectives with sm_share > 0 timed so far, in program order. */
    int *sharers[MOE_STREAMS];
    int sharer_count[MOE_STREAMS];
    int sharer_capacity;
    int *cursor; /* [devices][computing stream][stream]: the first sharer that may not have ended */
} moe_analytic;

/* One execution: what the functions below share. */
typedef struct run {
    moe_analytic *state;
    const moe_program *program;
    moe_timeline *timeline;
} run;

static void *analytic_open(void *owner, const moe_cluster *cluster, const moe_sharing *sharing,
                           moe_diag *diag)
{
    (void)sharing;
    (void)diag;
    const size_t devices = (size_t)cluster->devices;
    const size_t streams = MOE_STREAMS * devices;
    const size_t cursors = MOE_STREAMS * streams;
    moe_analytic *state = moe_need(talloc_zero(owner, moe_analytic));
    state->cluster = cluster;
    state->devices = cluster->devices;
    state->clock_s = moe_need(talloc_array(state, double, streams));
    state->ready_s = moe_need(talloc_array(state, double, devices));
    state->drain_s = moe_need(talloc_array(state, double, (size_t)cluster->port_count));
    state->last = moe_need(talloc_array(state, int, devices));
    state->cursor = moe_need(talloc_array(state, int, cursors));
    return state;
}

static void analytic_close(void *state)
{
    talloc_free(state);
}

/* R5: an idle cluster at time 0. */
static void rewind_to_zero(moe_analytic *state, int op_count)
{
    const size_t devices = (size_t)state->devices;
    memset(state->clock_s, 0, devices * MOE_STREAMS * sizeof *state->clock_s);
    memset(state->cursor, 0, devices * MOE_STREAMS * MOE_STREAMS * sizeof *state->cursor);
    memset(state->sharer_count, 0, sizeof state->sharer_count);
    if (op_count <= state->sharer_capacity)
        return;
    state->sharer_capacity = op_count;
    for (int stream = 0; stream < MOE_STREAMS; stream++)
        state->sharers[stream] =
            moe_need(talloc_realloc(state, state->sharers[stream], int, (size_t)op_count));
}

/* R1: when each device is ready for `op`. */
static void find_readiness(const run *r, const moe_op *op)
{
    const int devices = r->state->devices;
    double *ready_s = r->state->ready_s;
    memcpy(ready_s, r->state->clock_s + (size_t)op->stream * (size_t)devices,
           (size_t)devices * sizeof *ready_s);
    for (int i = op->first_wait; i < op->first_wait + op->wait_count; i++) {
        const double *end_s =
            r->timeline->end_s + moe_timeline_at(r->timeline, r->program->waits[i], 0);
        for (int device = 0; device < devices; device++)
            ready_s[device] = end_s[device] > ready_s[device] ? end_s[device] : ready_s[device];
    }
}

/* R2: the pace at `now` and, in *until, the date up to which it holds: the next start or end of a
 * collective under way on the device. */
static double pace_at(const run *r, int device, int *cursors, double now, double *until)
{
    const moe_analytic *state = r->state;
    double taken = 0;
    *until = INFINITY;
    for (int stream = 0; stream < MOE_STREAMS; stream++) {
        const int *sharers = state->sharers[stream];
        int *cursor = &cursors[stream];
        for (; *cursor < state->sharer_count[stream]; (*cursor)++) {
            const size_t at = moe_timeline_at(r->timeline, sharers[*cursor], device);
            if (r->timeline->end_s[at] <= now)
                continue; /* over, or not on this device */
            const bool under_way = r->timeline->start_s[at] <= now;
            taken += under_way ? r->program->ops[sharers[*cursor]].sm_share : 0;
            *until = fmin(*until, under_way ? r->timeline->end_s[at] : r->timeline->start_s[at]);
            break;
        }
    }
    return 1 - fmin(taken, 0.9);
}

/* R2: when `work` seconds of computation that start at `now` are done. */
static double computed_by(const run *r, int stream, int device, double now, double work)
{
    int *cursors = r->state->cursor + (size_t)(device * MOE_STREAMS + stream) * MOE_STREAMS;
    const moe_speed *speed = r->program->speed;
    for (;;) {
        double until;
        const double pace = pace_at(r, device, cursors, now, &until);
        const double end = moe_speed_finish(speed, device, now, work / pace);
        if (end <= until)
            return end;
        work = fmax(0, work - pace * moe_speed_done(speed, device, now, until));
        now = until;
    }
}

/* R2: paced only where a collective may run beside it. */
static void time_work(const run *r, int id, double *start_s, double *end_s)
{
    const moe_analytic *state = r->state;
    const moe_op *op = &r->program->ops[id];
    const moe_speed *speed = op->kind == MOE_OP_COMPUTE ? r->program->speed : NULL;
    bool paced = false;
    for (int stream = 0; stream < MOE_STREAMS; stream++)
        paced = paced || (op->kind == MOE_OP_COMPUTE && state->sharer_count[stream] > 0);
    for (int device = 0; device < state->devices; device++) {
        const double work_s = moe_speed_work(speed, id, device, op->duration_s[device]);
        const double ready_s = state->ready_s[device];
        start_s[device] = ready_s;
        end_s[device] = paced ? computed_by(r, op->stream, device, ready_s, work_s)
                              : moe_speed_finish(speed, device, ready_s, work_s);
    }
}

/* R3 */
static void drain_ports(const run *r, int id, double flowing)
{
    const moe_cluster *cluster = r->state->cluster;
    const moe_traffic *traffic = r->program->ops[id].traffic;
    const moe_speed *speed = r->program->speed;
    for (int k = 0; k < traffic->port_count; k++) {
        const int port = traffic->ports[k];
        const int unit = moe_speed_port(cluster, port);
        const double alone_s = traffic->work[k] / cluster->ports[port].rate_bytes_per_s;
        r->state->drain_s[k] =
            moe_speed_finish(speed, unit, flowing, moe_speed_work(speed, id, unit, alone_s));
    }
}

/* R3: S, the last participant's readiness. */
static double collective_start(const moe_analytic *state, const moe_traffic *traffic)
{
    double start = 0;
    for (int device = 0; device < state->devices; device++)
        if (traffic->takes_part[device])
            start = fmax(start, state->ready_s[device]);
    return start;
}

static void time_collective(const run *r, int id, double *start_s, double *end_s)
{
    const moe_analytic *state = r->state;
    const moe_op *op = &r->program->ops[id];
    const moe_traffic *traffic = op->traffic;
    const double start = collective_start(state, traffic);
    const double flowing = start + traffic->alpha_s;
    drain_ports(r, id, flowing);
    moe_engine_last_ports(traffic, state->drain_s, state->last);
    for (int device = 0; device < state->devices; device++) {
        if (!traffic->takes_part[device]) { /* R3: passes */
            start_s[device] = end_s[device] = state->ready_s[device];
            continue;
        }
        const double done = state->last[device] < 0 ? flowing : state->drain_s[state->last[device]];
        start_s[device] = start; /* R4 */
        end_s[device] = op->slowdown > 1 ? start + op->slowdown * (done - start) : done;
    }
}

static void pass_everywhere(const run *r, double *start_s, double *end_s)
{
    const size_t bytes = (size_t)r->state->devices * sizeof *start_s;
    memcpy(start_s, r->state->ready_s, bytes);
    memcpy(end_s, r->state->ready_s, bytes);
}

static void time_op(const run *r, int id)
{
    moe_analytic *state = r->state;
    const moe_op *op = &r->program->ops[id];
    double *start_s = r->timeline->start_s + moe_timeline_at(r->timeline, id, 0);
    double *end_s = r->timeline->end_s + moe_timeline_at(r->timeline, id, 0);
    find_readiness(r, op);
    if (op->kind != MOE_OP_COLLECTIVE)
        time_work(r, id, start_s, end_s);
    else if (op->traffic)
        time_collective(r, id, start_s, end_s);
    else
        pass_everywhere(r, start_s, end_s);
    if (op->kind == MOE_OP_COLLECTIVE && op->traffic && op->sm_share > 0)
        state->sharers[op->stream][state->sharer_count[op->stream]++] = id;
    memcpy(state->clock_s + (size_t)op->stream * (size_t)state->devices, end_s,
           (size_t)state->devices * sizeof *end_s);
}

static moe_status analytic_execute(void *opened, const moe_program *program, moe_timeline *timeline,
                                   moe_diag *diag)
{
    (void)diag;
    moe_analytic *state = opened;
    const run r = {state, program, timeline};
    moe_timeline_reserve(timeline, program->op_count);
    rewind_to_zero(state, program->op_count);
    for (int id = 0; id < program->op_count; id++)
        time_op(&r, id);
    timeline->step_s = 0; /* R5: the last end; streams end with their last instance */
    for (int i = 0; i < MOE_STREAMS * state->devices; i++)
        timeline->step_s = fmax(timeline->step_s, state->clock_s[i]);
    return MOE_OK;
}

const moe_engine moe_engine_analytic = {
    .name = "analytic",
    .sentence =
        "one pass in program order; collectives under way together do not notice each other",
    .network_model = "max-plus over ports, no sharing",
    .open = analytic_open,
    .execute = analytic_execute,
    .close = analytic_close,
};
