/* The fluid engine: the rules R1-R5 of models/program.h as events in time order, and collectives
 * that load a port together share it.
 *
 *   alone    A collective that has a port to itself drains it at S + alpha + work / rate: a date,
 *            not a simulation (without sharing the engine agrees with `analytic` to the bit).
 *   shared   As soon as a second one loads a port that is not yet drained, what is left of the
 *            first and all of the second become SimGrid executions on that port. Each gets
 *            rate * weight / sum of weights; its weight is 1, or the number of transfers it has on
 *            the port.
 *
 * Two clocks. Times here are those of the step. SimGrid's clock only moves while something is
 * shared; `origin_s` maps one to the other, and is set anew when sharing begins. While nothing is
 * shared the engine takes its events from its own heap without waking SimGrid; while something is,
 * an alarm stands for the earliest of them and SimGrid calls back.
 *
 * An instance counts what it still waits for, the instance before it on its stream included, and is
 * started by whoever ends last. A device in a collective watches one port, the one expected to
 * drain last; once that has, it looks for another that has not, else leaves. So ports that nobody
 * watches need no event: "drained" is a comparison of dates, made when somebody asks. */
#include "sim/engine.h"

#include "configs/base/memory.h"
#include "sim/simgrid_adapter.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

typedef enum event_kind {
    INSTANCE_END, /* unit: device */
    FLOW,         /* alpha is over: the collective loads its ports */
    PORT_DRAINED, /* unit: index in traffic->ports */
} event_kind;

typedef struct event {
    double time_s;
    unsigned order; /* equal times: as they were made */
    event_kind kind;
    int op;
    int unit;
} event;

typedef struct instance {
    int op;
    int device;
} instance;

/* A computation, copy, host operation or collective that is under way on (device, stream). */
typedef struct slot {
    int op;           /* -1: none */
    double end_s;     /* as known now: only the event with this time counts */
    double left_s;    /* R2: work left at `since_s` */
    double since_s;   /* when the pace last changed */
    int next_watcher; /* the next device, in the same collective, that watches the same port */
} slot;

/* R2: what collectives take of a device's SMs. */
typedef struct takers {
    int count;
    double taken;
} takers;

typedef enum load_state { ALONE, SHARED, DRAINED } load_state;

/* What one collective puts on one port; its index is SimGrid's token. */
typedef struct load {
    load_state state;
    bool announced; /* ALONE: an event for `drained_s` is in the heap */
    int op;
    int first_watcher; /* device, or -1 */
    double drained_s;  /* ALONE: when; SHARED: a guess, made when sharing began */
} load;

typedef struct port {
    int alone;  /* the load that has it to itself, or had it last; -1 */
    int shared; /* loads of it in SimGrid */
} port;

/* Per operation of the program at hand. */
typedef struct op_state {
    int needs;           /* dependencies of each instance */
    int first_successor; /* successors[first .. first of the next op) */
    int first_load;
    int first_word; /* in `open` */
    int arrived;    /* participants that are ready */
    double start_s; /* S */
} op_state;

typedef struct moe_fluid {
    const moe_cluster *cluster;
    moe_sharing sharing;
    const moe_simgrid_interface *interface;
    moe_simgrid *simgrid;

    const moe_program *program; /* of the step at hand, as all below */
    moe_timeline *timeline;
    double now_s;
    double origin_s; /* SimGrid's date of time 0; holds while `shared` > 0 */
    double armed_s;  /* SimGrid's date of the earliest pending alarm */
    int shared;      /* loads in SimGrid */
    size_t ended;    /* instances */

    op_state *ops; /* [op_count + 1] */
    int *successors;
    int *missing; /* [op][device]: what the instance still waits for */
    load *loads;
    uint64_t *open; /* per collective, of its loaded ports: not known to be drained */
    size_t op_capacity, successor_capacity, missing_capacity, load_capacity, open_capacity;

    slot *slots;     /* [device][stream] */
    takers *takers;  /* [device] */
    port *ports;     /* [port of the cluster] */
    double *drain_s; /* [port of the cluster]: scratch */
    int *last;       /* [device]: scratch */

    event *heap;
    size_t heap_count, heap_capacity;
    unsigned next_order;
    instance *finished; /* ended now; successors not yet told */
    size_t finished_count, finished_capacity;
} moe_fluid;

static void *grown(moe_fluid *fluid, void *array, size_t *capacity, size_t count, size_t size)
{
    if (count <= *capacity)
        return array;
    *capacity = count + count / 2;
    return moe_need(talloc_realloc_size(fluid, array, *capacity * size));
}

static slot *slot_of(const moe_fluid *fluid, int device, moe_stream stream)
{
    return &fluid->slots[(size_t)device * MOE_STREAMS + (size_t)stream];
}

static size_t at(const moe_fluid *fluid, int op, int device)
{
    return (size_t)op * (size_t)fluid->cluster->devices + (size_t)device;
}

/* --- the heap of events, by (time, order) ----------------------------------------------------- */

static bool before(const event *a, const event *b)
{
    return a->time_s < b->time_s || (a->time_s == b->time_s && a->order < b->order);
}

static void push(moe_fluid *fluid, double time_s, event_kind kind, int op, int unit)
{
    fluid->heap =
        grown(fluid, fluid->heap, &fluid->heap_capacity, fluid->heap_count + 1, sizeof(event));
    const event added = {time_s, fluid->next_order++, kind, op, unit};
    event *heap = fluid->heap;
    size_t hole = fluid->heap_count++;
    for (; hole > 0 && before(&added, &heap[(hole - 1) / 2]); hole = (hole - 1) / 2)
        heap[hole] = heap[(hole - 1) / 2];
    heap[hole] = added;
}

static event pop(moe_fluid *fluid)
{
    event *heap = fluid->heap;
    const event first = heap[0];
    const event moved = heap[--fluid->heap_count];
    const size_t count = fluid->heap_count;
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

static void finish(moe_fluid *fluid, int op, int device)
{
    fluid->timeline->end_s[at(fluid, op, device)] = fluid->now_s;
    fluid->finished = grown(fluid, fluid->finished, &fluid->finished_capacity,
                            fluid->finished_count + 1, sizeof(instance));
    fluid->finished[fluid->finished_count++] = (instance){op, device};
}

static void end_at(moe_fluid *fluid, int op, int device, double end_s)
{
    slot *s = slot_of(fluid, device, fluid->program->ops[op].stream);
    s->op = op;
    s->end_s = end_s;
    push(fluid, end_s, INSTANCE_END, op, device);
}

static double pace(const takers *t)
{
    return 1 - fmin(t->taken, 0.9);
}

static void start_work(moe_fluid *fluid, int id, int device)
{
    const moe_op *op = &fluid->program->ops[id];
    const double work_s = op->duration_s[device];
    fluid->timeline->start_s[at(fluid, id, device)] = fluid->now_s;
    if (work_s <= 0) {
        finish(fluid, id, device);
        return;
    }
    slot *s = slot_of(fluid, device, op->stream);
    s->left_s = work_s;
    s->since_s = fluid->now_s;
    const bool paced = op->kind == MOE_OP_COMPUTE;
    end_at(fluid, id, device,
           fluid->now_s + (paced ? work_s / pace(&fluid->takers[device]) : work_s));
}

/* R2: a collective with sm_share comes to a device (+1) or leaves it (-1). */
static void change_pace(moe_fluid *fluid, int device, double sm_share, int change)
{
    takers *t = &fluid->takers[device];
    const double old_pace = pace(t);
    t->count += change;
    t->taken = t->count > 0 ? t->taken + change * sm_share : 0; /* no rounding is left behind */
    for (int stream = 0; stream < MOE_STREAMS; stream++) {
        slot *s = slot_of(fluid, device, stream);
        if (s->op < 0 || fluid->program->ops[s->op].kind != MOE_OP_COMPUTE)
            continue;
        s->left_s = fmax(0, s->left_s - old_pace * (fluid->now_s - s->since_s));
        s->since_s = fluid->now_s;
        end_at(fluid, s->op, device, fluid->now_s + s->left_s / pace(t));
    }
}

static void start_collective(moe_fluid *fluid, int id);

/* The instance has all it waits for. */
static void ready(moe_fluid *fluid, int id, int device)
{
    const moe_op *op = &fluid->program->ops[id];
    if (op->kind != MOE_OP_COLLECTIVE) {
        start_work(fluid, id, device);
    } else if (!op->traffic || !op->traffic->takes_part[device]) { /* R3: passes */
        fluid->timeline->start_s[at(fluid, id, device)] = fluid->now_s;
        finish(fluid, id, device);
    } else if (++fluid->ops[id].arrived == op->traffic->participants) {
        start_collective(fluid, id);
    }
}

/* Tells successors, on the same device, of every instance that has ended by now. */
static void settle(moe_fluid *fluid)
{
    while (fluid->finished_count > 0) {
        const instance done = fluid->finished[--fluid->finished_count];
        const op_state *op = &fluid->ops[done.op];
        fluid->ended++;
        for (int i = op[0].first_successor; i < op[1].first_successor; i++)
            if (--fluid->missing[at(fluid, fluid->successors[i], done.device)] == 0)
                ready(fluid, fluid->successors[i], done.device);
    }
}

static void instance_end(moe_fluid *fluid, const event *e)
{
    const moe_op *op = &fluid->program->ops[e->op];
    slot *s = slot_of(fluid, e->unit, op->stream);
    if (s->op != e->op || s->end_s != e->time_s)
        return; /* the pace has changed since, and with it the end */
    s->op = -1;
    if (op->kind == MOE_OP_COLLECTIVE && op->sm_share > 0)
        change_pace(fluid, e->unit, op->sm_share, -1);
    finish(fluid, e->op, e->unit);
}

/* --- ports: R3 -------------------------------------------------------------------------------- */

/* Its index in traffic->ports. */
static int port_number(const moe_fluid *fluid, const load *l)
{
    return (int)(l - fluid->loads) - fluid->ops[l->op].first_load;
}

static double rate(const moe_fluid *fluid, const load *l)
{
    const moe_traffic *traffic = fluid->program->ops[l->op].traffic;
    return fluid->cluster->ports[traffic->ports[port_number(fluid, l)]].rate_bytes_per_s;
}

static bool drained(const moe_fluid *fluid, const load *l)
{
    return l->state == DRAINED || (l->state == ALONE && l->drained_s <= fluid->now_s);
}

static double weight(const moe_fluid *fluid, const load *l)
{
    if (fluid->sharing == MOE_SHARE_PER_COLLECTIVE)
        return 1;
    return fluid->program->ops[l->op].traffic->flows[port_number(fluid, l)];
}

static void share(moe_fluid *fluid, load *l, int port_id, double work)
{
    port *p = &fluid->ports[port_id];
    if (fluid->shared++ == 0) {
        fluid->origin_s = fluid->interface->now(fluid->simgrid) - fluid->now_s;
        fluid->armed_s = INFINITY;
    }
    l->state = SHARED;
    l->drained_s = fluid->now_s + work * (2 + p->shared++) / rate(fluid, l);
    fluid->interface->load(fluid->simgrid, port_id, work, weight(fluid, l),
                           (int)(l - fluid->loads));
}

static void load_port(moe_fluid *fluid, load *l, int port_id, double work)
{
    port *p = &fluid->ports[port_id];
    load *other = p->alone >= 0 ? &fluid->loads[p->alone] : NULL;
    const bool occupied = other && other->state == ALONE && !drained(fluid, other);
    if (p->shared == 0 && !occupied) {
        p->alone = (int)(l - fluid->loads);
        return;
    }
    if (occupied)
        share(fluid, other, port_id, (other->drained_s - fluid->now_s) * rate(fluid, other));
    share(fluid, l, port_id, work);
}

/* --- collectives: R3, R4 ---------------------------------------------------------------------- */

static void start_collective(moe_fluid *fluid, int id)
{
    const moe_op *op = &fluid->program->ops[id];
    fluid->ops[id].start_s = fluid->now_s;
    for (int device = 0; device < fluid->cluster->devices; device++) {
        if (!op->traffic->takes_part[device])
            continue;
        fluid->timeline->start_s[at(fluid, id, device)] = fluid->now_s;
        slot *s = slot_of(fluid, device, op->stream);
        s->op = id;
        s->end_s = INFINITY;
        if (op->sm_share > 0)
            change_pace(fluid, device, op->sm_share, +1);
    }
    push(fluid, fluid->now_s + op->traffic->alpha_s, FLOW, id, 0);
}

/* R4: the device's ports are done now. */
static void leave(moe_fluid *fluid, int id, int device)
{
    const moe_op *op = &fluid->program->ops[id];
    const double start_s = fluid->ops[id].start_s;
    const double end_s =
        op->slowdown > 1 ? start_s + op->slowdown * (fluid->now_s - start_s) : fluid->now_s;
    if (end_s > fluid->now_s) {
        end_at(fluid, id, device, end_s);
        return;
    }
    slot_of(fluid, device, op->stream)->end_s = fluid->now_s;
    instance_end(fluid, &(event){fluid->now_s, 0, INSTANCE_END, id, device});
}

static void watch(moe_fluid *fluid, int id, int device, int k)
{
    load *l = &fluid->loads[fluid->ops[id].first_load + k];
    slot_of(fluid, device, fluid->program->ops[id].stream)->next_watcher = l->first_watcher;
    l->first_watcher = device;
    if (l->state == ALONE && !l->announced) {
        l->announced = true;
        push(fluid, l->drained_s, PORT_DRAINED, id, k);
    }
}

/* Of the collective's open ports, within `row` if that is given, the one expected to drain last; -1
 * when none is open. Closes those that have drained unannounced. */
static int last_open(moe_fluid *fluid, int id, const uint64_t *row)
{
    const load *loads = fluid->loads + fluid->ops[id].first_load;
    uint64_t *open = fluid->open + fluid->ops[id].first_word;
    int last = -1;
    for (int word = 0; word < fluid->program->ops[id].traffic->words; word++) {
        const uint64_t wanted = row ? row[word] : ~UINT64_C(0);
        for (uint64_t bits = open[word] & wanted; bits; bits &= bits - 1) {
            const int bit = __builtin_ctzll(bits);
            const int k = 64 * word + bit;
            if (drained(fluid, &loads[k]))
                open[word] &= ~(UINT64_C(1) << bit);
            else if (last < 0 || loads[k].drained_s > loads[last].drained_s)
                last = k;
        }
    }
    return last;
}

/* Its watchers look for another port: most often the last of all is one of theirs. */
static void port_drained(moe_fluid *fluid, load *l)
{
    const int id = l->op;
    const moe_traffic *traffic = fluid->program->ops[id].traffic;
    int device = l->first_watcher;
    l->state = DRAINED;
    l->first_watcher = -1;
    const int hot = device < 0 ? -1 : last_open(fluid, id, NULL);
    while (device >= 0) {
        const int next = slot_of(fluid, device, fluid->program->ops[id].stream)->next_watcher;
        const uint64_t *row = traffic->touches + (size_t)device * (size_t)traffic->words;
        int k = hot;
        if (hot >= 0 && !(row[hot / 64] >> (hot % 64) & 1))
            k = last_open(fluid, id, row);
        if (k < 0)
            leave(fluid, id, device);
        else
            watch(fluid, id, device, k);
        device = next;
    }
}

static void load_ports(moe_fluid *fluid, int id)
{
    const moe_traffic *traffic = fluid->program->ops[id].traffic;
    load *loads = fluid->loads + fluid->ops[id].first_load;
    uint64_t *open = fluid->open + fluid->ops[id].first_word;
    memset(open, 0, (size_t)traffic->words * sizeof *open);
    for (int k = 0; k < traffic->port_count; k++) {
        const double rate_k = fluid->cluster->ports[traffic->ports[k]].rate_bytes_per_s;
        const double drained_s = fluid->now_s + traffic->work[k] / rate_k;
        loads[k] = (load){.op = id, .first_watcher = -1, .drained_s = drained_s};
        if (!drained(fluid, &loads[k])) {
            open[k / 64] |= UINT64_C(1) << (k % 64);
            load_port(fluid, &loads[k], traffic->ports[k], traffic->work[k]);
        }
        fluid->drain_s[k] = loads[k].drained_s;
    }
}

/* S + alpha: the collective loads its ports; every participant watches one, or leaves. */
static void flow(moe_fluid *fluid, int id)
{
    const moe_traffic *traffic = fluid->program->ops[id].traffic;
    load_ports(fluid, id);
    moe_engine_last_ports(traffic, fluid->drain_s, fluid->last);
    for (int device = 0; device < fluid->cluster->devices; device++) {
        const int last = fluid->last[device];
        if (!traffic->takes_part[device])
            continue;
        if (last < 0 || fluid->drain_s[last] <= fluid->now_s)
            leave(fluid, id, device);
        else
            watch(fluid, id, device, last);
    }
}

/* --- the step --------------------------------------------------------------------------------- */

static void handle(moe_fluid *fluid, const event *e)
{
    fluid->now_s = fmax(fluid->now_s, e->time_s);
    if (e->kind == INSTANCE_END) {
        instance_end(fluid, e);
    } else if (e->kind == FLOW) {
        flow(fluid, e->op);
    } else {
        load *l = &fluid->loads[fluid->ops[e->op].first_load + e->unit];
        if (l->state == ALONE)
            port_drained(fluid, l);
    }
    settle(fluid);
}

/* Handles what is due at SimGrid's date, and sets the alarm for what comes next. */
static void catch_up(moe_fluid *fluid, double date_s)
{
    while (fluid->shared > 0 && fluid->heap_count > 0 &&
           fluid->origin_s + fluid->heap[0].time_s <= date_s) {
        const event e = pop(fluid);
        handle(fluid, &e);
    }
    if (fluid->shared == 0 || fluid->heap_count == 0)
        return;
    const double next_s = fluid->origin_s + fluid->heap[0].time_s;
    if (next_s < fluid->armed_s) {
        fluid->armed_s = next_s;
        fluid->interface->alarm_at(fluid->simgrid, fluid->armed_s);
    }
}

/* SimGrid's callbacks. An alarm that outlives the sharing it was set in finds nothing due. */
static void on_alarm(void *context, double date_s)
{
    moe_fluid *fluid = context;
    if (date_s >= fluid->armed_s)
        fluid->armed_s = INFINITY;
    catch_up(fluid, date_s);
}

static void on_drained(void *context, int token, double date_s)
{
    moe_fluid *fluid = context;
    load *l = &fluid->loads[token];
    const moe_traffic *traffic = fluid->program->ops[l->op].traffic;
    fluid->now_s = fmax(fluid->now_s, date_s - fluid->origin_s);
    fluid->shared--;
    fluid->ports[traffic->ports[port_number(fluid, l)]].shared--;
    port_drained(fluid, l);
    settle(fluid);
    catch_up(fluid, date_s);
}

/* Fills ops[].needs and counts successors. */
static void count_edges(moe_fluid *fluid, const int *before_on_stream)
{
    const moe_program *program = fluid->program;
    memset(fluid->ops, 0, (size_t)(program->op_count + 1) * sizeof *fluid->ops);
    for (int id = 0; id < program->op_count; id++) {
        const moe_op *op = &program->ops[id];
        fluid->ops[id].needs = op->wait_count + (before_on_stream[id] >= 0);
        for (int i = op->first_wait; i < op->first_wait + op->wait_count; i++)
            fluid->ops[program->waits[i]].first_successor++;
        if (before_on_stream[id] >= 0)
            fluid->ops[before_on_stream[id]].first_successor++;
    }
}

static void lay_out_loads(moe_fluid *fluid)
{
    size_t loads = 0, words = 0;
    for (int id = 0; id < fluid->program->op_count; id++) {
        const moe_traffic *traffic = fluid->program->ops[id].traffic;
        fluid->ops[id].first_load = (int)loads;
        fluid->ops[id].first_word = (int)words;
        loads += traffic ? (size_t)traffic->port_count : 0;
        words += traffic ? (size_t)traffic->words : 0;
    }
    fluid->loads = grown(fluid, fluid->loads, &fluid->load_capacity, loads, sizeof *fluid->loads);
    fluid->open = grown(fluid, fluid->open, &fluid->open_capacity, words, sizeof *fluid->open);
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
static void list_successors(moe_fluid *fluid, const int *before_on_stream)
{
    const moe_program *program = fluid->program;
    int end = 0;
    for (int id = 0; id <= program->op_count; id++)
        fluid->ops[id].first_successor = end += fluid->ops[id].first_successor;
    fluid->successors = grown(fluid, fluid->successors, &fluid->successor_capacity, (size_t)end,
                              sizeof *fluid->successors);
    for (int id = program->op_count - 1; id >= 0; id--) {
        const moe_op *op = &program->ops[id];
        for (int i = op->first_wait; i < op->first_wait + op->wait_count; i++)
            fluid->successors[--fluid->ops[program->waits[i]].first_successor] = id;
        if (before_on_stream[id] >= 0)
            fluid->successors[--fluid->ops[before_on_stream[id]].first_successor] = id;
    }
}

static void reset_devices_and_ports(moe_fluid *fluid)
{
    for (int i = 0; i < fluid->cluster->devices * MOE_STREAMS; i++)
        fluid->slots[i].op = -1;
    memset(fluid->takers, 0, (size_t)fluid->cluster->devices * sizeof *fluid->takers);
    for (int i = 0; i < fluid->cluster->port_count; i++)
        fluid->ports[i] = (port){.alone = -1};
}

/* R5: an idle cluster at time 0, and nothing of the program done. */
static void prepare(moe_fluid *fluid)
{
    const moe_program *program = fluid->program;
    const size_t op_count = (size_t)program->op_count;
    const size_t instances = op_count * (size_t)fluid->cluster->devices;
    fluid->ops = grown(fluid, fluid->ops, &fluid->op_capacity, op_count + 1, sizeof *fluid->ops);
    fluid->missing = grown(fluid, fluid->missing, &fluid->missing_capacity, instances + op_count,
                           sizeof *fluid->missing);
    int *before_on_stream = fluid->missing + instances; /* scratch */
    find_before_on_stream(program, before_on_stream);
    count_edges(fluid, before_on_stream);
    lay_out_loads(fluid);
    list_successors(fluid, before_on_stream);
    for (int id = 0; id < program->op_count; id++)
        for (int device = 0; device < fluid->cluster->devices; device++)
            fluid->missing[at(fluid, id, device)] = fluid->ops[id].needs;
    reset_devices_and_ports(fluid);
    fluid->heap_count = fluid->finished_count = fluid->ended = 0;
    fluid->next_order = 0;
    fluid->now_s = 0;
    fluid->shared = 0;
    fluid->armed_s = INFINITY;
}

static void start_roots(moe_fluid *fluid)
{
    for (int id = 0; id < fluid->program->op_count; id++) {
        if (fluid->ops[id].needs > 0)
            continue;
        for (int device = 0; device < fluid->cluster->devices; device++)
            ready(fluid, id, device);
    }
    settle(fluid);
}

/* Runs until no event is left; false if SimGrid stopped early. */
static bool run_to_the_end(moe_fluid *fluid)
{
    while (fluid->heap_count > 0 || fluid->shared > 0) {
        while (fluid->shared == 0 && fluid->heap_count > 0) {
            const event e = pop(fluid);
            handle(fluid, &e);
        }
        if (fluid->shared == 0)
            continue;
        catch_up(fluid, fluid->interface->now(fluid->simgrid));
        if (fluid->interface->run(fluid->simgrid) != 0)
            return false;
    }
    return true;
}

static moe_status fluid_execute(void *opened, const moe_program *program, moe_timeline *timeline,
                                moe_diag *diag)
{
    moe_fluid *fluid = opened;
    fluid->program = program;
    fluid->timeline = timeline;
    moe_timeline_reserve(timeline, program->op_count);
    prepare(fluid);
    start_roots(fluid);
    const size_t instances = (size_t)program->op_count * (size_t)fluid->cluster->devices;
    if (!run_to_the_end(fluid) || fluid->ended != instances) {
        moe_diag_error(diag, (moe_where){0},
                       "the fluid engine stopped at %g s with %zu of %zu instances done",
                       fluid->now_s, fluid->ended, instances);
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

static bool open_simgrid(moe_fluid *fluid, moe_diag *diag)
{
    const moe_cluster *cluster = fluid->cluster;
    fluid->interface = load_simgrid(diag);
    if (!fluid->interface)
        return false;
    double *rates = moe_need(talloc_array(fluid, double, (size_t)cluster->port_count));
    for (int i = 0; i < cluster->port_count; i++)
        rates[i] = cluster->ports[i].rate_bytes_per_s;
    const moe_simgrid_callbacks callbacks = {.drained = on_drained, .alarm = on_alarm};
    fluid->simgrid = fluid->interface->open(cluster->port_count, rates, callbacks, fluid);
    talloc_free(rates);
    if (!fluid->simgrid)
        moe_diag_error(diag, (moe_where){0},
                       "the fluid engine was opened twice in one process; SimGrid allows one");
    return fluid->simgrid != NULL;
}

static void *fluid_open(void *owner, const moe_cluster *cluster, moe_sharing sharing,
                        moe_diag *diag)
{
    const size_t devices = (size_t)cluster->devices;
    const size_t ports = (size_t)cluster->port_count;
    moe_fluid *fluid = moe_need(talloc_zero(owner, moe_fluid));
    fluid->cluster = cluster;
    fluid->sharing = sharing;
    fluid->slots = moe_need(talloc_zero_array(fluid, slot, devices * MOE_STREAMS));
    fluid->takers = moe_need(talloc_array(fluid, takers, devices));
    fluid->ports = moe_need(talloc_array(fluid, port, ports));
    fluid->drain_s = moe_need(talloc_array(fluid, double, ports));
    fluid->last = moe_need(talloc_array(fluid, int, devices));
    if (!open_simgrid(fluid, diag))
        TALLOC_FREE(fluid);
    return fluid;
}

static void fluid_close(void *state)
{
    talloc_free(state);
}

const moe_engine moe_engine_fluid = {
    .name = "fluid",
    .sentence = "events in time order; collectives that load a port together share it (SimGrid)",
    .network_model = "ports shared max-min (SimGrid CPU model Cas01)",
    .open = fluid_open,
    .execute = fluid_execute,
    .close = fluid_close,
};
