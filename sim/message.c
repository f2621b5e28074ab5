/* The message engine: every transfer is a flow of SimGrid's network model, from S + alpha on.
 *
 *   flow     A communication over the ports of its path, as links without latency (alpha holds it). Its
 *            size is bytes / efficiency. A link serves every flow at its one rate; so where a path
 *            crosses ports of different efficiency, inside and outside of a host or NVLink domain (PCIe,
 *            rails), each part is a flow of its own: every port carries exactly what it does in `fluid`,
 *            but one part does not slow the other down.
 *   sharing  Max-min fair, weighted: a flow weighs what its collective does on the path's port with most
 *            of the collective's transfers (moe_sharing_weight), divided by their number. So a
 *            collective alone is plainly max-min fair where its transfers spread evenly.
 *   R4       A device leaves when its own transfers, sent and received, have ended. One that gets relayed
 *            data (it touches ports that none of its own transfers crosses) also waits for flows all of
 *            whose ports it touches: it cannot have what has not come that far.
 *
 * What a port carries that is no transfer's (switches that add) is a flow of that port alone.
 *
 * Flows of one collective over the same ports are one communication with the sum of their weights until
 * the smallest of them ends, then of the others, and so on: exactly what max-min fairness gives them.
 * Everything else is sim/execution.h. */
#include "sim/execution.h"

#include "configs/base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* SimGrid's platform grows with the square of the devices, its work with the square of that. */
enum { MOST_DEVICES = 512 };

/* Of a way: its ports within hosts and NVLink domains, and those outside. */
enum { PARTS = 2 };

typedef struct flow {
    int path;
    int source; /* -1: no transfer, but what a port carries besides */
    int target;
    double work; /* effective bytes */
} flow;

/* Flows of one collective over one path, by ascending work; its index is SimGrid's token. */
typedef struct bundle {
    int op;
    int next; /* flows[next .. end) have not ended */
    int end;
    double weight; /* of one flow */
    double done;   /* effective bytes that each has sent */
} bundle;

typedef struct moe_message {
    moe_execution base;
    /* Every part of a way between two devices, then every port alone; different ones only. */
    int path_count;
    int *first; /* [path_count + 1]: path p has ports[first[p] .. first[p + 1]) */
    int *ports;
    int *path_of; /* [source][target][part], then [port]; -1 where there is none */

    int *first_flow; /* [op_count + 1]: of `flows`, and of `bundles` (never more than flows) */
    flow *flows;
    bundle *bundles;
    int *open;     /* [op][device]: flows that the device waits for */
    bool *relayed; /* [op][device]: it gets relayed data */
    size_t first_capacity, flow_capacity, bundle_capacity, open_capacity, relayed_capacity;

    int *number;    /* [port]: in traffic->ports of the collective at hand, or -1 */
    double *factor; /* [port]: effective bytes per byte of the collective at hand */
    double *left;   /* [port]: bytes of it that no transfer accounts for */
    uint64_t *own;  /* [words of a row of touches]: ports of a device's own transfers */
} moe_message;

static moe_message *message_of(moe_execution *execution)
{
    return (moe_message *)execution;
}

static const moe_traffic *traffic_of(const moe_message *message, int id)
{
    return message->base.program->ops[id].traffic;
}

/* --- the collective's ports ------------------------------------------------------------------- */

static void number_ports(moe_message *message, int id)
{
    const moe_traffic *traffic = traffic_of(message, id);
    const moe_execution *base = &message->base;
    for (int p = 0; p < message->base.cluster->port_count; p++)
        message->number[p] = -1;
    for (int k = 0; k < traffic->port_count; k++) {
        const int p = traffic->ports[k];
        message->number[p] = k;
        const double factor = traffic->bytes[k] > 0 ? traffic->work[k] / traffic->bytes[k] : 1;
        message->factor[p] =
            moe_speed_work(base->program->speed, id, moe_speed_port(base->cluster, p), factor);
        message->left[p] = traffic->bytes[k];
    }
}

static double path_factor(const moe_message *message, int path)
{
    double most = 0;
    for (int i = message->first[path]; i < message->first[path + 1]; i++)
        most = fmax(most, message->factor[message->ports[i]]);
    return most;
}

static double path_weight(const moe_message *message, const moe_traffic *traffic, int path)
{
    int flows = 1;
    for (int i = message->first[path]; i < message->first[path + 1]; i++) {
        const int there = traffic->flows[message->number[message->ports[i]]];
        flows = there > flows ? there : flows;
    }
    return moe_sharing_weight(&message->base.sharing, traffic->kind, flows) / flows;
}

/* --- who waits for which flow: R4 ------------------------------------------------------------- */

static bool touches_path(const moe_message *message, const moe_traffic *traffic, int device,
                         int path)
{
    const uint64_t *row = traffic->touches + (size_t)device * (size_t)traffic->words;
    for (int i = message->first[path]; i < message->first[path + 1]; i++) {
        const int k = message->number[message->ports[i]];
        if (!(row[k / 64] >> (k % 64) & 1))
            return false;
    }
    return true;
}

static size_t at(const moe_message *message, int id, int device)
{
    return (size_t)id * (size_t)message->base.cluster->devices + (size_t)device;
}

static bool waits_for(const moe_message *message, int id, int device, const flow *f)
{
    const moe_traffic *traffic = traffic_of(message, id);
    if (!traffic->takes_part[device])
        return false;
    if (device == f->source || device == f->target)
        return true;
    return (message->relayed[at(message, id, device)] || f->source < 0) &&
           touches_path(message, traffic, device, f->path);
}

/* Whoever waits for the flow does so for one flow more (+1) or less (-1); then, with nothing left to
 * wait for, it leaves. */
static void count_flow(moe_message *message, int id, const flow *f, int change)
{
    const moe_traffic *traffic = traffic_of(message, id);
    for (int device = 0; device < traffic->devices; device++) {
        if (!waits_for(message, id, device, f))
            continue;
        int *open = &message->open[at(message, id, device)];
        *open += change;
        if (*open == 0)
            moe_execution_leave(&message->base, id, device);
    }
}

static void mark_own(moe_message *message, const flow *f)
{
    for (int i = message->first[f->path]; i < message->first[f->path + 1]; i++) {
        const int k = message->number[message->ports[i]];
        message->own[k / 64] |= UINT64_C(1) << (k % 64);
    }
}

/* Flows come by path, not by device: each device looks through all of them, like those that wait. */
static void find_relayed(moe_message *message, int id, const flow *begin, const flow *end)
{
    const moe_traffic *traffic = traffic_of(message, id);
    const size_t words = (size_t)traffic->words;
    for (int device = 0; device < traffic->devices; device++) {
        const uint64_t *row = traffic->touches + (size_t)device * words;
        bool relayed = false;
        memset(message->own, 0, words * sizeof *message->own);
        for (const flow *f = begin; f < end; f++)
            if (f->source == device || f->target == device)
                mark_own(message, f);
        for (size_t word = 0; word < words; word++)
            relayed = relayed || (row[word] & ~message->own[word]);
        message->relayed[at(message, id, device)] = relayed;
    }
}

/* --- flows: R3 -------------------------------------------------------------------------------- */

static flow *add_part(moe_message *message, const moe_transfer *transfer, int path, flow *end)
{
    if (path < 0)
        return end;
    for (int i = message->first[path]; i < message->first[path + 1]; i++)
        message->left[message->ports[i]] -= transfer->bytes;
    *end = (flow){path, transfer->source, transfer->target,
                  transfer->bytes * path_factor(message, path)};
    return end + 1;
}

static flow *add_transfers(moe_message *message, const moe_traffic *traffic, flow *end)
{
    const size_t devices = (size_t)traffic->devices;
    for (size_t t = 0; t < traffic->transfer_count; t++) {
        const moe_transfer *transfer = &traffic->transfers[t];
        const size_t pair = (size_t)transfer->source * devices + (size_t)transfer->target;
        for (int part = 0; part < PARTS; part++)
            end = add_part(message, transfer, message->path_of[pair * PARTS + (size_t)part], end);
    }
    return end;
}

static flow *add_loads_without_transfer(const moe_message *message, const moe_traffic *traffic,
                                        flow *end)
{
    static const double rounding = 1e-9;
    const size_t devices = (size_t)traffic->devices;
    for (int k = 0; k < traffic->port_count; k++) {
        const int p = traffic->ports[k];
        if (message->left[p] > rounding * traffic->bytes[k])
            *end++ = (flow){message->path_of[devices * devices * PARTS + (size_t)p], -1, -1,
                            message->left[p] * message->factor[p]};
    }
    return end;
}

static int compare_flows(const void *a, const void *b)
{
    const flow *x = a;
    const flow *y = b;
    if (x->path != y->path)
        return x->path < y->path ? -1 : 1;
    if (x->work != y->work)
        return x->work < y->work ? -1 : 1;
    if (x->source != y->source) /* so that the order does not depend on qsort */
        return x->source < y->source ? -1 : 1;
    return (x->target > y->target) - (x->target < y->target);
}

/* What the bundle's flows have yet to send until the next of them ends. */
static void load_bundle(moe_message *message, bundle *b)
{
    const double each = message->flows[b->next].work - b->done;
    const int flows = b->end - b->next;
    const int path = message->flows[b->next].path;
    moe_execution_load(&message->base, path, flows * each, flows * b->weight,
                       (int)(b - message->bundles));
}

static void bundle_flows(moe_message *message, int id, int begin, int end)
{
    const flow *flows = message->flows;
    bundle *b = message->bundles + message->first_flow[id];
    for (int i = begin; i < end; b++) {
        *b = (bundle){.op = id, .next = i};
        while (i < end && flows[i].path == flows[b->next].path)
            i++;
        b->end = i;
        b->weight = path_weight(message, traffic_of(message, id), flows[b->next].path);
        load_bundle(message, b);
    }
}

/* --- hooks ------------------------------------------------------------------------------------ */

/* Who waits for what; who waits for nothing leaves at once. */
static void count_flows(moe_message *message, int id, int begin, int end)
{
    const moe_traffic *traffic = traffic_of(message, id);
    find_relayed(message, id, message->flows + begin, message->flows + end);
    for (int device = 0; device < traffic->devices; device++)
        message->open[at(message, id, device)] = 0;
    for (int i = begin; i < end; i++)
        count_flow(message, id, &message->flows[i], +1);
    for (int device = 0; device < traffic->devices; device++)
        if (traffic->takes_part[device] && message->open[at(message, id, device)] == 0)
            moe_execution_leave(&message->base, id, device);
}

static void message_flow(moe_execution *execution, int id)
{
    moe_message *message = message_of(execution);
    const moe_traffic *traffic = traffic_of(message, id);
    const int begin = message->first_flow[id];
    number_ports(message, id);
    flow *last = add_transfers(message, traffic, message->flows + begin);
    last = add_loads_without_transfer(message, traffic, last);
    const int end = (int)(last - message->flows);
    qsort(message->flows + begin, (size_t)(end - begin), sizeof(flow), compare_flows);
    count_flows(message, id, begin, end);
    bundle_flows(message, id, begin, end);
}

static void message_event(moe_execution *execution, const moe_event *event)
{
    (void)execution; /* it makes no events of its own */
    (void)event;
}

static void message_drained(moe_execution *execution, int token)
{
    moe_message *message = message_of(execution);
    bundle *b = &message->bundles[token];
    const flow *flows = message->flows;
    number_ports(message, b->op);
    b->done = flows[b->next].work;
    while (b->next < b->end && flows[b->next].work <= b->done)
        count_flow(message, b->op, &flows[b->next++], -1);
    if (b->next < b->end)
        load_bundle(message, b);
}

static void message_prepare(moe_execution *execution)
{
    moe_message *message = message_of(execution);
    const moe_program *program = execution->program;
    const size_t op_count = (size_t)program->op_count;
    size_t flows = 0;
    message->first_flow =
        moe_execution_grown(execution, message->first_flow, &message->first_capacity, op_count + 1,
                            sizeof *message->first_flow);
    for (int id = 0; id < program->op_count; id++) {
        const moe_traffic *traffic = program->ops[id].traffic;
        message->first_flow[id] = (int)flows;
        flows += traffic ? PARTS * traffic->transfer_count + (size_t)traffic->port_count : 0;
    }
    message->flows = moe_execution_grown(execution, message->flows, &message->flow_capacity, flows,
                                         sizeof *message->flows);
    message->bundles = moe_execution_grown(execution, message->bundles, &message->bundle_capacity,
                                           flows, sizeof *message->bundles);
    message->open = moe_execution_grown(execution, message->open, &message->open_capacity,
                                        op_count * (size_t)program->devices, sizeof *message->open);
    message->relayed =
        moe_execution_grown(execution, message->relayed, &message->relayed_capacity,
                            op_count * (size_t)program->devices, sizeof *message->relayed);
}

/* --- the ways that flows can take ------------------------------------------------------------- */

/* A way, and whose it is: its index in `path_of`. */
typedef struct way {
    int ports[MOE_PATH_PORTS];
    int count;
    int user;
} way;

static int compare_ways(const void *a, const void *b)
{
    const way *x = a;
    const way *y = b;
    if (x->count != y->count)
        return x->count < y->count ? -1 : 1;
    for (int i = 0; i < x->count; i++)
        if (x->ports[i] != y->ports[i])
            return x->ports[i] < y->ports[i] ? -1 : 1;
    return (x->user > y->user) - (x->user < y->user);
}

static int compare_ports(const void *a, const void *b)
{
    const int x = *(const int *)a;
    const int y = *(const int *)b;
    return (x > y) - (x < y);
}

static int part_of(moe_port_kind kind)
{
    switch (kind) {
    case MOE_PORT_NIC_OUT:
    case MOE_PORT_NIC_IN:
    case MOE_PORT_LEAF_UP:
    case MOE_PORT_LEAF_DOWN:
    case MOE_PORT_SPINE_UP:
    case MOE_PORT_SPINE_DOWN:
        return 1;
    default:
        return 0;
    }
}

/* Adds the parts of the way from one device to another. */
static way *split_way(const moe_cluster *cluster, int source, int target, way *end)
{
    int ports[MOE_PATH_PORTS];
    const int count = moe_cluster_path(cluster, source, target, ports);
    qsort(ports, (size_t)count, sizeof *ports, compare_ports);
    for (int part = 0; part < PARTS; part++) {
        *end = (way){.user = (source * cluster->devices + target) * PARTS + part};
        for (int i = 0; i < count; i++)
            if (part_of(cluster->ports[ports[i]].kind) == part)
                end->ports[end->count++] = ports[i];
        end += end->count > 0;
    }
    return end;
}

static size_t list_ways(const moe_cluster *cluster, way *ways)
{
    way *end = ways;
    for (int i = 0; i < cluster->devices; i++)
        for (int j = 0; j < cluster->devices; j++)
            end = split_way(cluster, i, j, end);
    const int pairs = cluster->devices * cluster->devices;
    for (int p = 0; p < cluster->port_count; p++)
        *end++ = (way){.ports = {p}, .count = 1, .user = pairs * PARTS + p};
    qsort(ways, (size_t)(end - ways), sizeof *ways, compare_ways);
    return (size_t)(end - ways);
}

static bool same_ports(const way *a, const way *b)
{
    return a->count == b->count &&
           memcmp(a->ports, b->ports, (size_t)a->count * sizeof *a->ports) == 0;
}

static void find_paths(moe_message *message, const moe_cluster *cluster)
{
    const size_t pairs = (size_t)cluster->devices * (size_t)cluster->devices;
    const size_t users = pairs * PARTS + (size_t)cluster->port_count;
    way *ways = moe_need(talloc_array(message, way, users + 1)); /* the last is only tried */
    const size_t count = list_ways(cluster, ways);
    message->path_of = moe_need(talloc_array(message, int, users));
    memset(message->path_of, -1, users * sizeof *message->path_of);
    message->first = moe_need(talloc_array(message, int, count + 1));
    message->ports = moe_need(talloc_array(message, int, count *MOE_PATH_PORTS));
    int used = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || !same_ports(&ways[i], &ways[i - 1])) {
            message->first[message->path_count++] = used;
            for (int k = 0; k < ways[i].count; k++)
                message->ports[used++] = ways[i].ports[k];
        }
        message->path_of[ways[i].user] = message->path_count - 1;
    }
    message->first[message->path_count] = used;
    talloc_free(ways);
}

/* --- the engine ------------------------------------------------------------------------------- */

static void *message_open(void *owner, const moe_cluster *cluster, const moe_sharing *sharing,
                          moe_diag *diag)
{
    static const moe_execution_hooks hooks = {"message", message_prepare, message_flow,
                                              message_event, message_drained};
    const size_t ports = (size_t)cluster->port_count;
    if (cluster->devices > MOST_DEVICES) {
        moe_diag_error(diag, (moe_where){0},
                       "the message engine takes at most %d devices, the cluster has %d (fluid and "
                       "analytic take them)",
                       MOST_DEVICES, cluster->devices);
        return NULL;
    }
    moe_message *message = moe_need(talloc_zero(owner, moe_message));
    message->number = moe_need(talloc_array(message, int, ports));
    message->factor = moe_need(talloc_array(message, double, ports));
    message->left = moe_need(talloc_array(message, double, ports));
    message->own = moe_need(talloc_array(message, uint64_t, ports / 64 + 1));
    find_paths(message, cluster);
    const moe_simgrid_platform platform = {.model = MOE_SIMGRID_PATHS,
                                           .path_count = message->path_count,
                                           .first = message->first,
                                           .ports = message->ports};
    if (!moe_execution_open(&message->base, cluster, sharing, &hooks, platform, diag))
        TALLOC_FREE(message);
    return message;
}

static moe_status message_execute(void *state, const moe_program *program, moe_timeline *timeline,
                                  moe_diag *diag)
{
    return moe_execution_run(state, program, timeline, diag);
}

static void message_close(void *state)
{
    talloc_free(state);
}

const moe_engine moe_engine_message = {
    .name = "message",
    .sentence = "every transfer is a flow over the ports of its path (SimGrid); the reference for "
                "fluid, on small clusters",
    .network_model = "flows shared max-min over ports (SimGrid network model CM02, correction "
                     "factors and cross-traffic off, no latency)",
    .open = message_open,
    .execute = message_execute,
    .close = message_close,
};
