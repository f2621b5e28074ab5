/* Counters of one step: imbalance of experts, and the load of NICs and hosts. */
#include "reports/timeline_events.h"

#include "configs/base/memory.h"
#include "models/cluster_mesh.h"
#include <math.h>
#include <stdlib.h>
#include <talloc.h>

/* --- imbalance ----------------------------------------------------------------------------------- */

static void put_imbalance(const moe_timeline_step *step, int op)
{
    const moe_op *of = &step->program->ops[op];
    double sum = 0, most = 0, begins_s = INFINITY;
    for (int d = 0; d < step->program->devices; d++) {
        sum += of->duration_s[d];
        most = fmax(most, of->duration_s[d]);
        begins_s = fmin(begins_s, step->timeline->start_s[moe_timeline_at(step->timeline, op, d)]);
    }
    if (sum <= 0)
        return;
    moe_timeline_put_event(step->stream, "C", "expert imbalance", step->pid, 0,
                           moe_timeline_tick(step, begins_s));
    fprintf(step->stream, ",\"args\":{\"max/mean\":%.6g}}", most * step->program->devices / sum);
}

/* --- load ---------------------------------------------------------------------------------------- */

/* Tracks: the NICs, then every host's links in all, then its NICs in all. */
typedef struct load_change {
    int track;
    bool inward;
    int64_t tick;
    double rate; /* GB/s; a collective's end takes away what its beginning brought */
} load_change;

typedef struct load_changes {
    load_change *items;
    size_t count;
    size_t capacity;
} load_changes;

typedef struct interval {
    double start_s;
    double end_s;
} interval;

static interval interval_of(const moe_timeline_step *step, int op)
{
    const moe_traffic *traffic = step->program->ops[op].traffic;
    interval under_way = {INFINITY, 0};
    for (int d = 0; d < step->program->devices; d++) {
        size_t at = moe_timeline_at(step->timeline, op, d);
        if (!traffic->takes_part[d])
            continue;
        under_way.start_s = fmin(under_way.start_s, step->timeline->start_s[at]);
        under_way.end_s = fmax(under_way.end_s, step->timeline->end_s[at]);
    }
    return under_way;
}

static void add_change(load_changes *changes, load_change change)
{
    if (changes->count == changes->capacity) {
        changes->capacity = changes->capacity > 0 ? 2 * changes->capacity : 1024;
        changes->items =
            moe_need(realloc(changes->items, changes->capacity * sizeof *changes->items));
    }
    changes->items[changes->count++] = change;
}

static void add_load(const moe_timeline_step *step, load_changes *changes, load_change change,
                     interval under_way)
{
    change.tick = moe_timeline_tick(step, under_way.start_s);
    add_change(changes, change);
    change.tick = moe_timeline_tick(step, under_way.end_s);
    change.rate = -change.rate;
    add_change(changes, change);
}

static void add_nic(const moe_timeline_step *step, load_changes *changes, load_change change,
                    int nic, interval under_way)
{
    const moe_cluster *cluster = step->program->cluster;
    change.track = nic;
    add_load(step, changes, change, under_way);
    if (cluster->nics_per_host < 2)
        return;
    change.track = cluster->nics + cluster->hosts + nic / cluster->nics_per_host;
    add_load(step, changes, change, under_way);
}

static void add_link(const moe_timeline_step *step, load_changes *changes, load_change change,
                     int host, interval under_way)
{
    change.track = step->program->cluster->nics + host;
    add_load(step, changes, change, under_way);
}

static void add_port(const moe_timeline_step *step, load_changes *changes, const moe_port *port,
                     double rate, interval under_way)
{
    const int devices_per_host = step->program->cluster->devices_per_host;
    const load_change out = {.rate = rate}, in = {.inward = true, .rate = rate};
    switch (port->kind) {
    case MOE_PORT_NIC_OUT:
        add_nic(step, changes, out, port->unit, under_way);
        break;
    case MOE_PORT_NIC_IN:
        add_nic(step, changes, in, port->unit, under_way);
        break;
    case MOE_PORT_INTRA_OUT:
        add_link(step, changes, out, port->unit / devices_per_host, under_way);
        break;
    case MOE_PORT_INTRA_IN:
        add_link(step, changes, in, port->unit / devices_per_host, under_way);
        break;
    case MOE_PORT_LINK: /* of a mesh: out of one device and into another */
        add_link(step, changes, out, port->unit / MOE_MESH_PORTS, under_way);
        add_link(step, changes, in, port->unit / MOE_MESH_PORTS, under_way);
        break;
    default:
        break; /* what several hosts or devices share is no host's own */
    }
}

static load_changes gather_changes(const moe_timeline_step *step)
{
    load_changes changes = {0};
    for (int op = 0; op < step->program->op_count; op++) {
        const moe_traffic *traffic = step->program->ops[op].traffic;
        if (traffic == NULL)
            continue;
        interval under_way = interval_of(step, op);
        double seconds = under_way.end_s - under_way.start_s;
        for (int k = 0; k < traffic->port_count && seconds > 0; k++)
            add_port(step, &changes, &step->program->cluster->ports[traffic->ports[k]],
                     traffic->bytes[k] / seconds / 1e9, under_way);
    }
    return changes;
}

static int compare_changes(const void *left, const void *right)
{
    const load_change *a = left, *b = right;
    if (a->track != b->track)
        return a->track < b->track ? -1 : 1;
    if (a->tick != b->tick)
        return a->tick < b->tick ? -1 : 1;
    if (a->inward != b->inward)
        return a->inward ? 1 : -1;
    return (a->rate > b->rate) - (a->rate < b->rate); /* the same sum whatever qsort does */
}

/* Under way in one direction of a track. */
typedef struct load {
    int collectives;
    double rate;
} load;

static void apply(load *loads, const load_change *change)
{
    load *of = &loads[change->inward];
    of->collectives += change->rate > 0 ? 1 : -1;
    of->rate += change->rate;
    if (of->collectives == 0 || of->rate < 0) /* what rounding leaves is no load */
        of->rate = 0;
}

static void put_load(const moe_timeline_step *step, int track, int64_t tick, const load loads[2])
{
    const moe_cluster *cluster = step->program->cluster;
    char name[64];
    if (track < cluster->nics)
        snprintf(name, sizeof name, "NIC %d GB/s", track);
    else if (track < cluster->nics + cluster->hosts)
        snprintf(name, sizeof name, "host %d links GB/s", track - cluster->nics);
    else
        snprintf(name, sizeof name, "host %d NICs GB/s", track - cluster->nics - cluster->hosts);
    moe_timeline_put_event(step->stream, "C", name, step->pid, 0, tick);
    fprintf(step->stream, ",\"args\":{\"out\":%.6g,\"in\":%.6g}}", loads[0].rate, loads[1].rate);
}

static void put_loads(const moe_timeline_step *step)
{
    load_changes changes = gather_changes(step);
    load loads[2] = {{0}};
    if (changes.count > 0)
        qsort(changes.items, changes.count, sizeof *changes.items, compare_changes);
    for (size_t i = 0; i < changes.count; i++) {
        const load_change *change = &changes.items[i];
        bool last = i + 1 == changes.count || change[1].track != change->track;
        apply(loads, change);
        if (last || change[1].tick != change->tick)
            put_load(step, change->track, change->tick, loads);
        if (last)
            loads[0] = loads[1] = (load){0};
    }
    free(changes.items);
}

void moe_timeline_put_counters(const moe_timeline_step *step)
{
    for (int op = 0; op < step->program->op_count; op++) {
        const moe_op *of = &step->program->ops[op];
        if (of->kind == MOE_OP_COMPUTE && of->part == MOE_EXPERT)
            put_imbalance(step, op);
    }
    put_loads(step);
}
