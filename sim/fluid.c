/* The fluid engine: collectives that load a port together share it.
 *
 *   alone    A collective that has a port to itself drains it at S + alpha + work / rate, or where the
 *            integral of the port's speed says: a date, not a simulation (without sharing the engine
 *            agrees with `analytic` to the bit).
 *   shared   As soon as a second one loads a port that is not yet drained, what is left of the
 *            first and all of the second become SimGrid executions on that port. Each gets
 *            rate * weight / sum of weights (moe_sharing_weight).
 *
 * A device in a collective watches one port, the one expected to drain last; once that has, it looks
 * for another that has not, else leaves. So ports that nobody watches need no event: "drained" is a
 * comparison of dates, made when somebody asks. Everything else is sim/execution.h. */
#include "sim/execution.h"

#include "configs/base/memory.h"

#include <math.h>
#include <string.h>
#include <talloc.h>

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

/* Where an operation's part of the arrays below begins. */
typedef struct place {
    int first_load;
    int first_word;
} place;

typedef struct moe_fluid {
    moe_execution base;
    place *places; /* [op_count] */
    load *loads;
    uint64_t *open; /* per collective, of its loaded ports: not known to be drained */
    size_t place_capacity, load_capacity, open_capacity;
    int *
        next_watcher; /* [device][stream]: the next device, in the same collective, that watches the
                          same port */
    port *ports;      /* [port of the cluster] */
    double *drain_s;  /* [port of the cluster]: scratch */
    int *last;        /* [device]: scratch */
} moe_fluid;

static moe_fluid *fluid_of(moe_execution *execution)
{
    return (moe_fluid *)execution;
}

/* --- ports: R3 -------------------------------------------------------------------------------- */

static const moe_op *op_of(const moe_fluid *fluid, int id)
{
    return &fluid->base.program->ops[id];
}

/* Its index in traffic->ports. */
static int port_number(const moe_fluid *fluid, const load *l)
{
    return (int)(l - fluid->loads) - fluid->places[l->op].first_load;
}

static double rate(const moe_fluid *fluid, const load *l)
{
    const moe_traffic *traffic = op_of(fluid, l->op)->traffic;
    return fluid->base.cluster->ports[traffic->ports[port_number(fluid, l)]].rate_bytes_per_s;
}

static bool drained(const moe_fluid *fluid, const load *l)
{
    return l->state == DRAINED || (l->state == ALONE && l->drained_s <= fluid->base.now_s);
}

static void share(moe_fluid *fluid, load *l, int port_id, double work)
{
    const moe_traffic *traffic = op_of(fluid, l->op)->traffic;
    port *p = &fluid->ports[port_id];
    l->state = SHARED;
    l->drained_s = fluid->base.now_s + work * (2 + p->shared++) / rate(fluid, l);
    const double weight = moe_sharing_weight(&fluid->base.sharing, traffic->kind,
                                             traffic->flows[port_number(fluid, l)]);
    moe_execution_load(&fluid->base, port_id, work, weight, (int)(l - fluid->loads));
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
        share(fluid, other, port_id,
              moe_speed_done(fluid->base.program->speed,
                             moe_speed_port(fluid->base.cluster, port_id), fluid->base.now_s,
                             other->drained_s) *
                  rate(fluid, other));
    share(fluid, l, port_id, work);
}

/* --- who waits for which port: R4 ------------------------------------------------------------- */

static int *next_watcher(const moe_fluid *fluid, int id, int device)
{
    return &fluid->next_watcher[(size_t)device * MOE_STREAMS + (size_t)op_of(fluid, id)->stream];
}

static void watch(moe_fluid *fluid, int id, int device, int k)
{
    load *l = &fluid->loads[fluid->places[id].first_load + k];
    *next_watcher(fluid, id, device) = l->first_watcher;
    l->first_watcher = device;
    if (l->state == ALONE && !l->announced) {
        l->announced = true;
        moe_execution_push(&fluid->base, l->drained_s, MOE_EVENT_DRAIN, id, k);
    }
}

/* Of the collective's open ports, within `row` if that is given, the one expected to drain last; -1
 * when none is open. Closes those that have drained unannounced. */
static int last_open(moe_fluid *fluid, int id, const uint64_t *row)
{
    const load *loads = fluid->loads + fluid->places[id].first_load;
    uint64_t *open = fluid->open + fluid->places[id].first_word;
    int last = -1;
    for (int word = 0; word < op_of(fluid, id)->traffic->words; word++) {
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
    const moe_traffic *traffic = op_of(fluid, id)->traffic;
    int device = l->first_watcher;
    l->state = DRAINED;
    l->first_watcher = -1;
    const int hot = device < 0 ? -1 : last_open(fluid, id, NULL);
    while (device >= 0) {
        const int next = *next_watcher(fluid, id, device);
        const uint64_t *row = traffic->touches + (size_t)device * (size_t)traffic->words;
        int k = hot;
        if (hot >= 0 && !(row[hot / 64] >> (hot % 64) & 1))
            k = last_open(fluid, id, row);
        if (k < 0)
            moe_execution_leave(&fluid->base, id, device);
        else
            watch(fluid, id, device, k);
        device = next;
    }
}

static void load_ports(moe_fluid *fluid, int id)
{
    const moe_traffic *traffic = op_of(fluid, id)->traffic;
    const moe_speed *speed = fluid->base.program->speed;
    const double now_s = fluid->base.now_s;
    load *loads = fluid->loads + fluid->places[id].first_load;
    uint64_t *open = fluid->open + fluid->places[id].first_word;
    memset(open, 0, (size_t)traffic->words * sizeof *open);
    for (int k = 0; k < traffic->port_count; k++) {
        const int unit = moe_speed_port(fluid->base.cluster, traffic->ports[k]);
        const double rate_k = fluid->base.cluster->ports[traffic->ports[k]].rate_bytes_per_s;
        const double work = moe_speed_work(speed, id, unit, traffic->work[k]);
        const double drained_s = moe_speed_finish(speed, unit, now_s, work / rate_k);
        loads[k] = (load){.op = id, .first_watcher = -1, .drained_s = drained_s};
        if (!drained(fluid, &loads[k])) {
            open[k / 64] |= UINT64_C(1) << (k % 64);
            load_port(fluid, &loads[k], traffic->ports[k], work);
        }
        fluid->drain_s[k] = loads[k].drained_s;
    }
}

/* --- hooks ------------------------------------------------------------------------------------ */

/* S + alpha: the collective loads its ports; every participant watches one, or leaves. */
static void fluid_flow(moe_execution *execution, int id)
{
    moe_fluid *fluid = fluid_of(execution);
    const moe_traffic *traffic = op_of(fluid, id)->traffic;
    load_ports(fluid, id);
    moe_engine_last_ports(traffic, fluid->drain_s, fluid->last);
    for (int device = 0; device < execution->cluster->devices; device++) {
        const int last = fluid->last[device];
        if (!traffic->takes_part[device])
            continue;
        if (last < 0 || fluid->drain_s[last] <= execution->now_s)
            moe_execution_leave(execution, id, device);
        else
            watch(fluid, id, device, last);
    }
}

/* A port that a collective has to itself is drained, unless it had to share since. */
static void fluid_event(moe_execution *execution, const moe_event *e)
{
    moe_fluid *fluid = fluid_of(execution);
    load *l = &fluid->loads[fluid->places[e->op].first_load + e->unit];
    if (l->state == ALONE)
        port_drained(fluid, l);
}

static void fluid_drained(moe_execution *execution, int token)
{
    moe_fluid *fluid = fluid_of(execution);
    load *l = &fluid->loads[token];
    fluid->ports[op_of(fluid, l->op)->traffic->ports[port_number(fluid, l)]].shared--;
    port_drained(fluid, l);
}

static void fluid_prepare(moe_execution *execution)
{
    moe_fluid *fluid = fluid_of(execution);
    const moe_program *program = execution->program;
    size_t loads = 0, words = 0;
    fluid->places = moe_execution_grown(execution, fluid->places, &fluid->place_capacity,
                                        (size_t)program->op_count, sizeof *fluid->places);
    for (int id = 0; id < program->op_count; id++) {
        const moe_traffic *traffic = program->ops[id].traffic;
        fluid->places[id] = (place){(int)loads, (int)words};
        loads += traffic ? (size_t)traffic->port_count : 0;
        words += traffic ? (size_t)traffic->words : 0;
    }
    fluid->loads = moe_execution_grown(execution, fluid->loads, &fluid->load_capacity, loads,
                                       sizeof *fluid->loads);
    fluid->open = moe_execution_grown(execution, fluid->open, &fluid->open_capacity, words,
                                      sizeof *fluid->open);
    for (int i = 0; i < execution->cluster->port_count; i++)
        fluid->ports[i] = (port){.alone = -1};
}

/* --- the engine ------------------------------------------------------------------------------- */

static void *fluid_open(void *owner, const moe_cluster *cluster, const moe_sharing *sharing,
                        moe_diag *diag)
{
    static const moe_execution_hooks hooks = {"fluid", fluid_prepare, fluid_flow, fluid_event,
                                              fluid_drained};
    const size_t devices = (size_t)cluster->devices;
    const size_t ports = (size_t)cluster->port_count;
    moe_fluid *fluid = moe_need(talloc_zero(owner, moe_fluid));
    fluid->next_watcher = moe_need(talloc_array(fluid, int, devices *MOE_STREAMS));
    fluid->ports = moe_need(talloc_array(fluid, port, ports));
    fluid->drain_s = moe_need(talloc_array(fluid, double, ports));
    fluid->last = moe_need(talloc_array(fluid, int, devices));
    const moe_simgrid_platform platform = {.model = MOE_SIMGRID_PORTS};
    if (!moe_execution_open(&fluid->base, cluster, sharing, &hooks, platform, diag))
        TALLOC_FREE(fluid);
    return fluid;
}

static moe_status fluid_execute(void *state, const moe_program *program, moe_timeline *timeline,
                                moe_diag *diag)
{
    return moe_execution_run(state, program, timeline, diag);
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
