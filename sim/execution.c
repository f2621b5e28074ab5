#include "sim/execution.h"

#include "configs/base/memory.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

typedef struct instance {
    int op;
    int device;
} instance;

/* A computation, copy, host operation or collective that is under way on (device, stream). */
typedef struct slot {
    int op;         /* -1: none */
    double end_s;   /* as known now: only the event with this time counts */
    double left_s;  /* R2: work left at `since_s` */
    double since_s; /* when the pace last changed */
} slot;

/* R2: what collectives take of a device's SMs. */
typedef struct takers {
    int count;
    double taken;
} takers;

/* Per operation of the program at hand. */
typedef struct op_state {
    int needs;           /* dependencies of each instance */
    int first_successor; /* successors[first .. first of the next op) */
    int arrived;         /* participants that are ready */
    double start_s;      /* S */
} op_state;

void *moe_execution_grown(moe_execution *execution, void *array, size_t *capacity, size_t count,
                          size_t size)
{
    if (count <= *capacity)
        return array;
    *capacity = count + count / 2;
    return moe_need(talloc_realloc_size(execution, array, *capacity * size));
}

static slot *slot_of(const moe_execution *execution, int device, moe_stream stream)
{
    return &execution->slots[(size_t)device * MOE_STREAMS + (size_t)stream];
}

static size_t at(const moe_execution *execution, int op, int device)
{
    return (size_t)op * (size_t)execution->cluster->devices + (size_t)device;
}

/* --- the heap of events, by (time, order) ----------------------------------------------------- */

static bool before(const moe_event *a, const moe_event *b)
{
    return a->time_s < b->time_s || (a->time_s == b->time_s && a->order < b->order);
}

void moe_execution_push(moe_execution *execution, double time_s, moe_event_kind kind, int op,
                        int unit)
{
    execution->heap = moe_execution_grown(execution, execution->heap, &execution->heap_capacity,
                                          execution->heap_count + 1, sizeof(moe_event));
    const moe_event added = {time_s, execution->next_order++, kind, op, unit};
    moe_event *heap = execution->heap;
    size_t hole = execution->heap_count++;
    for (; hole > 0 && before(&added, &heap[(hole - 1) / 2]); hole = (hole - 1) / 2)
        heap[hole] = heap[(hole - 1) / 2];
    heap[hole] = added;
}

static moe_event pop(moe_execution *execution)
{
    moe_event *heap = execution->heap;
    const moe_event first = heap[0];
    const moe_event moved = heap[--execution->heap_count];
    const size_t count = execution->heap_count;
    size_t hole = 0;
    for (size_t child = 1; child < count; child = 2 * hole + 1) {
        if (child + 1 < count && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &moved))
            break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = moved;
    return first;
}

/* --- instances: R1, R2 ------------------------------------------------------------------------ */

static void finish(moe_execution *execution, int op, int device)
{
    execution->timeline->end_s[at(execution, op, device)] = execution->now_s;
    execution->finished =
        moe_execution_grown(execution, execution->finished, &execution->finished_capacity,
                            execution->finished_count + 1, sizeof(instance));
    execution->finished[execution->finished_count++] = (instance){op, device};
}

static void end_at(moe_execution *execution, int op, int device, double end_s)
{
    slot *s = slot_of(execution, device, execution->program->ops[op].stream);
    s->op = op;
    s->end_s = end_s;
    moe_execution_push(execution, end_s, MOE_EVENT_END, op, device);
}

static double pace(const takers *t)
{
    return 1 - fmin(t->taken, 0.9);
}

/* R2: when the work left on the slot is done, at the pace of now and the device's speed. */
static double work_end(const moe_execution *execution, const moe_op *op, int device, const slot *s)
{
    if (op->kind != MOE_OP_COMPUTE)
        return execution->now_s + s->left_s;
    return moe_speed_finish(execution->program->speed, device, execution->now_s,
                            s->left_s / pace(&execution->takers[device]));
}

static void start_work(moe_execution *execution, int id, int device)
{
    const moe_op *op = &execution->program->ops[id];
    const moe_speed *speed = op->kind == MOE_OP_COMPUTE ? execution->program->speed : NULL;
    const double work_s = moe_speed_work(speed, id, device, op->duration_s[device]);
    execution->timeline->start_s[at(execution, id, device)] = execution->now_s;
    if (work_s <= 0) {
        finish(execution, id, device);
        return;
    }
    slot *s = slot_of(execution, device, op->stream);
    s->left_s = work_s;
    s->since_s = execution->now_s;
    end_at(execution, id, device, work_end(execution, op, device, s));
}

/* R2: a collective with sm_share comes to a device (+1) or leaves it (-1). */
static void change_pace(moe_execution *execution, int device, double sm_share, int change)
{
    takers *t = &execution->takers[device];
    const double old_pace = pace(t);
    t->count += change;
    t->taken = t->count > 0 ? t->taken + change * sm_share : 0; /* no rounding is left behind */
    for (int stream = 0; stream < MOE_STREAMS; stream++) {
        slot *s = slot_of(execution, device, stream);
        if (s->op < 0 || execution->program->ops[s->op].kind != MOE_OP_COMPUTE)
            continue;
        const double passed_s =
            moe_speed_done(execution->program->speed, device, s->since_s, execution->now_s);
        s->left_s = fmax(0, s->left_s - old_pace * passed_s);
        s->since_s = execution->now_s;
        end_at(execution, s->op, device,
               work_end(execution, &execution->program->ops[s->op], device, s));
    }
}

static void start_collective(moe_execution *execution, int id)
{
    const moe_op *op = &execution->program->ops[id];
    execution->ops[id].start_s = execution->now_s;
    for (int device = 0; device < execution->cluster->devices; device++) {
        if (!op->traffic->takes_part[device])
            continue;
        execution->timeline->start_s[at(execution, id, device)] = execution->now_s;
        slot *s = slot_of(execution, device, op->stream);
        s->op = id;
        s->end_s = INFINITY;
        if (op->sm_share > 0)
            change_pace(execution, device, op->sm_share, +1);
    }
    moe_execution_push(execution, execution->now_s + op->traffic->alpha_s, MOE_EVENT_FLOW, id, 0);
}

/* The instance has all it waits for. */
static void ready(moe_execution *execution, int id, int device)
{
    const moe_op *op = &execution->program->ops[id];
    if (op->kind != MOE_OP_COLLECTIVE) {
        start_work(execution, id, device);
    } else if (!op->traffic || !op->traffic->takes_part[device]) { /* R3: passes */
        execution->timeline->start_s[at(execution, id, device)] = execution->now_s;
        finish(execution, id, device);
    } else if (++execution->ops[id].arrived == op->traffic->participants) {
        start_collective(execution, id);
    }
}

/* Tells successors, on the same device, of every instance that has ended by now. */
static void settle(moe_execution *execution)
{
    while (execution->finished_count > 0) {
        const instance done = execution->finished[--execution->finished_count];
        const op_state *op = &execution->ops[done.op];
        execution->ended++;
        for (int i = op[0].first_successor; i < op[1].first_successor; i++)
            if (--execution->missing[at(execution, execution->successors[i], done.device)] == 0)
                ready(execution, execution->successors[i], done.device);
    }
}

static void instance_end(moe_execution *execution, const moe_event *e)
{
    const moe_op *op = &execution->program->ops[e->op];
    slot *s = slot_of(execution, e->unit, op->stream);
    if (s->op != e->op || s->end_s != e->time_s)
        return; /* the pace has changed since, and with it the end */
    s->op = -1;
    if (op->kind == MOE_OP_COLLECTIVE && op->sm_share > 0)
        change_pace(execution, e->unit, op->sm_share, -1);
    finish(execution, e->op, e->unit);
}

void moe_execution_leave(moe_execution *execution, int id, int device)
{
    const moe_op *op = &execution->program->ops[id];
    const double now_s = execution->now_s;
    const double start_s = execution->ops[id].start_s;
    const double end_s = op->slowdown > 1 ? start_s + op->slowdown * (now_s - start_s) : now_s;
    if (end_s > now_s) {
        end_at(execution, id, device, end_s);
        return;
    }
    slot_of(execution, device, op->stream)->end_s = now_s;
    instance_end(execution, &(moe_event){now_s, 0, MOE_EVENT_END, id, device});
}

/* --- the two clocks --------------------------------------------------------------------------- */

void moe_execution_load(moe_execution *execution, int place, double amount, double weight,
                        int token)
{
    if (execution->loads++ == 0) {
        execution->origin_s = execution->interface->now(execution->simgrid) - execution->now_s;
        execution->armed_s = INFINITY;
    }
    execution->interface->load(execution->simgrid, place, amount, weight, token);
}

/* Gives SimGrid's port the speed of now, and announces its next change. */
static void set_port_speed(moe_execution *execution, int port)
{
    double until_s;
    const int unit = moe_speed_port(execution->cluster, port);
    const double speed = moe_speed_at(execution->program->speed, unit, execution->now_s, &until_s);
    execution->interface->set_speed(execution->simgrid, port, speed);
    if (until_s < INFINITY)
        moe_execution_push(execution, until_s, MOE_EVENT_SPEED, -1, port);
}

static void handle(moe_execution *execution, const moe_event *e)
{
    execution->now_s = fmax(execution->now_s, e->time_s);
    if (e->kind == MOE_EVENT_END)
        instance_end(execution, e);
    else if (e->kind == MOE_EVENT_FLOW)
        execution->hooks->flow(execution, e->op);
    else if (e->kind == MOE_EVENT_SPEED)
        set_port_speed(execution, e->unit);
    else
        execution->hooks->event(execution, e);
    settle(execution);
}

/* Handles what is due at SimGrid's date, and sets the alarm for what comes next. */
static void catch_up(moe_execution *execution, double date_s)
{
    while (execution->loads > 0 && execution->heap_count > 0 &&
           execution->origin_s + execution->heap[0].time_s <= date_s) {
        const moe_event e = pop(execution);
        handle(execution, &e);
    }
    if (execution->loads == 0 || execution->heap_count == 0)
        return;
    const double next_s = execution->origin_s + execution->heap[0].time_s;
    if (next_s < execution->armed_s) {
        execution->armed_s = next_s;
        execution->interface->alarm_at(execution->simgrid, execution->armed_s);
    }
}

/* SimGrid's callbacks. An alarm that outlives the loads it was set beside finds nothing due. */
static void on_alarm(void *context, double date_s)
{
    moe_execution *execution = context;
    if (date_s >= execution->armed_s)
        execution->armed_s = INFINITY;
    catch_up(execution, date_s);
}

static void on_drained(void *context, int token, double date_s)
{
    moe_execution *execution = context;
    execution->now_s = fmax(execution->now_s, date_s - execution->origin_s);
    execution->loads--;
    execution->hooks->drained(execution, token);
    settle(execution);
    catch_up(execution, date_s);
}

/* Runs until no event is left; false if SimGrid stopped early. */
static bool run_to_the_end(moe_execution *execution)
{
    const size_t instances =
        (size_t)execution->program->op_count * (size_t)execution->cluster->devices;
    while (execution->ended < instances && (execution->heap_count > 0 || execution->loads > 0)) {
        while (execution->loads == 0 && execution->heap_count > 0) {
            const moe_event e = pop(execution);
            handle(execution, &e);
        }
        if (execution->loads == 0)
            continue;
        catch_up(execution, execution->interface->now(execution->simgrid));
        if (execution->interface->run(execution->simgrid) != 0)
            return false;
    }
    return true;
}

/* --- the step --------------------------------------------------------------------------------- */

/* Fills ops[].needs and counts successors. */
static void count_edges(moe_execution *execution, const int *before_on_stream)
{
    const moe_program *program = execution->program;
    memset(execution->ops, 0, (size_t)(program->op_count + 1) * sizeof *execution->ops);
    for (int id = 0; id < program->op_count; id++) {
        const moe_op *op = &program->ops[id];
        execution->ops[id].needs = op->wait_count + (before_on_stream[id] >= 0);
        for (int i = op->first_wait; i < op->first_wait + op->wait_count; i++)
            execution->ops[program->waits[i]].first_successor++;
        if (before_on_stream[id] >= 0)
            execution->ops[before_on_stream[id]].first_successor++;
    }
}

static void find_before_on_stream(const moe_program *program, int *before_on_stream)
{
    int last[MOE_STREAMS];
    memset(last, -1, sizeof last);
    for (int id = 0; id < program->op_count; id++) {
        before_on_stream[id] = last[program->ops[id].stream];
        last[program->ops[id].stream] = id;
    }
}

/* Turns the counts of successors into ends of ranges, then fills each backwards: what was its end
 * becomes its first. */
static void list_successors(moe_execution *execution, const int *before_on_stream)
{
    const moe_program *program = execution->program;
    op_state *ops = execution->ops;
    int end = 0;
    for (int id = 0; id <= program->op_count; id++)
        ops[id].first_successor = end += ops[id].first_successor;
    execution->successors =
        moe_execution_grown(execution, execution->successors, &execution->successor_capacity,
                            (size_t)end, sizeof *execution->successors);
    for (int id = program->op_count - 1; id >= 0; id--) {
        const moe_op *op = &program->ops[id];
        for (int i = op->first_wait; i < op->first_wait + op->wait_count; i++)
            execution->successors[--ops[program->waits[i]].first_successor] = id;
        if (before_on_stream[id] >= 0)
            execution->successors[--ops[before_on_stream[id]].first_successor] = id;
    }
}

static void link_instances(moe_execution *execution)
{
    const moe_program *program = execution->program;
    const size_t op_count = (size_t)program->op_count;
    const size_t instances = op_count * (size_t)execution->cluster->devices;
    execution->ops = moe_execution_grown(execution, execution->ops, &execution->op_capacity,
                                         op_count + 1, sizeof *execution->ops);
    execution->missing =
        moe_execution_grown(execution, execution->missing, &execution->missing_capacity,
                            instances + op_count, sizeof *execution->missing);
    int *before_on_stream = execution->missing + instances; /* scratch */
    find_before_on_stream(program, before_on_stream);
    count_edges(execution, before_on_stream);
    list_successors(execution, before_on_stream);
    for (int id = 0; id < program->op_count; id++)
        for (int device = 0; device < execution->cluster->devices; device++)
            execution->missing[at(execution, id, device)] = execution->ops[id].needs;
}

/* Ports keep the speed they had at the end of the step before. */
static void set_port_speeds(moe_execution *execution)
{
    const moe_cluster *cluster = execution->cluster;
    const moe_speed *speed = execution->program->speed;
    if (!speed && !execution->ports_changed)
        return;
    execution->ports_changed = speed != NULL;
    for (int port = 0; port < cluster->port_count; port++)
        set_port_speed(execution, port);
}

/* R5: an idle cluster at time 0, and nothing of the program done. */
static void prepare(moe_execution *execution)
{
    link_instances(execution);
    for (int i = 0; i < execution->cluster->devices * MOE_STREAMS; i++)
        execution->slots[i].op = -1;
    memset(execution->takers, 0, (size_t)execution->cluster->devices * sizeof *execution->takers);
    execution->heap_count = execution->finished_count = execution->ended = 0;
    execution->next_order = 0;
    execution->now_s = 0;
    execution->loads = 0;
    execution->armed_s = INFINITY;
    set_port_speeds(execution);
    execution->hooks->prepare(execution);
}

static void start_roots(moe_execution *execution)
{
    for (int id = 0; id < execution->program->op_count; id++) {
        if (execution->ops[id].needs > 0)
            continue;
        for (int device = 0; device < execution->cluster->devices; device++)
            ready(execution, id, device);
    }
    settle(execution);
}

moe_status moe_execution_run(moe_execution *execution, const moe_program *program,
                             moe_timeline *timeline, moe_diag *diag)
{
    execution->program = program;
    execution->timeline = timeline;
    moe_timeline_reserve(timeline, program->op_count);
    prepare(execution);
    start_roots(execution);
    const size_t instances = (size_t)program->op_count * (size_t)execution->cluster->devices;
    if (!run_to_the_end(execution) || execution->ended != instances) {
        moe_diag_error(diag, (moe_where){0},
                       "the %s engine stopped at %g s with %zu of %zu instances done",
                       execution->hooks->engine, execution->now_s, execution->ended, instances);
        return MOE_INTERNAL;
    }
    timeline->step_s = 0;
    for (size_t i = 0; i < instances; i++)
        if (timeline->end_s[i] > timeline->step_s)
            timeline->step_s = timeline->end_s[i];
    return MOE_OK;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Loads the module; stays loaded, since SimGrid cannot be taken down and set up again. */
static const moe_simgrid_interface *load_simgrid(moe_diag *diag)
{
    const char *path = getenv("MOEPLAN_SIMGRID");
    if (!path || !*path)
        path = MOEPLAN_SIMGRID_MODULE;
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    moe_simgrid_entry entry = NULL;
    if (module)
        *(void **)&entry = dlsym(module, MOE_SIMGRID_ENTRY);
    if (entry)
        return entry();
    moe_diag_error(diag, (moe_where){0},
                   "cannot load the SimGrid module \"%s\" (environment variable MOEPLAN_SIMGRID "
                   "names another): %s",
                   path, dlerror());
    return NULL;
}

static bool open_simgrid(moe_execution *execution, moe_simgrid_platform platform, moe_diag *diag)
{
    const moe_cluster *cluster = execution->cluster;
    execution->interface = load_simgrid(diag);
    if (!execution->interface)
        return false;
    double *rates = moe_need(talloc_array(execution, double, (size_t)cluster->port_count));
    for (int i = 0; i < cluster->port_count; i++)
        rates[i] = cluster->ports[i].rate_bytes_per_s;
    platform.port_count = cluster->port_count;
    platform.rates_bytes_per_s = rates;
    const moe_simgrid_callbacks callbacks = {.drained = on_drained, .alarm = on_alarm};
    execution->simgrid = execution->interface->open(&platform, callbacks, execution);
    talloc_free(rates);
    if (!execution->simgrid)
        moe_diag_error(diag, (moe_where){0},
                       "the %s engine was opened where one had been in the same process; SimGrid "
                       "allows one",
                       execution->hooks->engine);
    return execution->simgrid != NULL;
}

bool moe_execution_open(moe_execution *execution, const moe_cluster *cluster,
                        const moe_sharing *sharing, const moe_execution_hooks *hooks,
                        moe_simgrid_platform platform, moe_diag *diag)
{
    const size_t devices = (size_t)cluster->devices;
    execution->hooks = hooks;
    execution->cluster = cluster;
    execution->sharing = sharing ? *sharing : (moe_sharing){0};
    execution->slots = moe_need(talloc_zero_array(execution, slot, devices * MOE_STREAMS));
    execution->takers = moe_need(talloc_array(execution, takers, devices));
    return open_simgrid(execution, platform, diag);
}
