#include "reports/cluster_show.h"

#include "configs/base/memory.h"
#include "models/cluster_mesh.h"
#include <math.h>
#include <talloc.h>

enum {
    RATE_DEVICES = 8192, /* above, exchanges of all pairs take too long to add up */
    WAYS = 16,
    UNIT_TEXT = 48
};

/* ---- the tree -------------------------------------------------------------------------------- */

static const char *in_unit(double value, moe_dimension dimension, char text[static UNIT_TEXT])
{
    moe_units_format_short(value, dimension, text);
    return text;
}

__attribute__((format(printf, 5, 6))) static void
print_level(FILE *stream, int depth, bool last, const char *name, const char *format, ...)
{
    char title[64];
    snprintf(title, sizeof title, "%*s%s%s", depth > 1 ? 4 * (depth - 1) : 0, "",
             depth == 0 ? ""
             : last     ? "`-- "
                        : "|-- ",
             name);
    fprintf(stream, "%-36s ", title);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stream, format, arguments);
    va_end(arguments);
    fputc('\n', stream);
}

/* "non-blocking" or "2.5 : 1, 400 GB/s each way". */
static const char *uplinks(const moe_cluster *cluster, moe_port_kind kind, double oversubscription,
                           char text[static 2 * UNIT_TEXT])
{
    char rate[UNIT_TEXT];
    int first = cluster->first_port[kind];
    if (first < 0)
        return "non-blocking";
    in_unit(cluster->ports[first].rate_bytes_per_s, MOE_BANDWIDTH, rate);
    snprintf(text, 2 * UNIT_TEXT, "%g : 1, %s each way", oversubscription, rate);
    return text;
}

static int show_fabric(const moe_cluster *cluster, FILE *stream)
{
    const moe_fabric_spec *fabric = &cluster->spec->fabric;
    char text[2 * UNIT_TEXT], latency[UNIT_TEXT];
    bool rails = fabric->kind != MOE_FABRIC_LEAF_SPINE;
    int depth = 0;
    print_level(stream, depth++, true, "fabric", "%s%s%s%s", moe_fabric_kind_names[fabric->kind],
                rails ? ", between rails: " : "", rails ? moe_path_rule_names[fabric->path] : "",
                fabric->reduction ? "; switches add up" : "");
    if (cluster->spines > 1)
        print_level(stream, depth++, true, "pod", "%d; spines %s; + %s to another", cluster->spines,
                    uplinks(cluster, MOE_PORT_SPINE_UP, fabric->spine_oversubscription, text),
                    in_unit(fabric->latency_s, MOE_SECONDS, latency));
    const char *leaf = rails ? "rail leaf" : "leaf";
    int below = cluster->nics / cluster->leaves;
    if (cluster->leaves == 1)
        print_level(stream, depth++, true, leaf, "1, of %d NICs", below);
    else
        print_level(stream, depth++, true, leaf, "%d, of %d NICs each; uplinks %s; + %s to another",
                    cluster->leaves, below,
                    uplinks(cluster, MOE_PORT_LEAF_UP, fabric->oversubscription, text),
                    in_unit(fabric->latency_s, MOE_SECONDS, latency));
    return depth;
}

static void show_nic(const moe_cluster *cluster, FILE *stream, int depth)
{
    char rate[UNIT_TEXT], latency[UNIT_TEXT];
    int out = cluster->first_port[MOE_PORT_NIC_OUT];
    in_unit(cluster->ports[out].rate_bytes_per_s, MOE_BANDWIDTH, rate);
    in_unit(cluster->spec->nic.latency_s, MOE_SECONDS, latency);
    print_level(stream, depth, false, "NIC", "%d per host, for %d device%s each; %s each way, %s",
                cluster->nics_per_host, cluster->devices_per_host / cluster->nics_per_host,
                cluster->devices_per_host > cluster->nics_per_host ? "s" : "", rate, latency);
}

static int show_pcie(const moe_cluster *cluster, FILE *stream, int depth)
{
    const moe_intra_spec *intra = &cluster->spec->intra;
    char rate[UNIT_TEXT];
    if (intra->bridge_bytes_per_s > 0)
        print_level(stream, depth, false, "bridge", "1 per host; %s each way",
                    in_unit(intra->bridge_bytes_per_s, MOE_BANDWIDTH, rate));
    if (intra->switch_devices == 0)
        return depth;
    int up = cluster->first_port[MOE_PORT_SWITCH_UP];
    print_level(stream, depth, true, "PCIe switch", "%d per host; uplink %s each way%s",
                cluster->devices_per_host / (int)intra->switch_devices,
                in_unit(cluster->ports[up].rate_bytes_per_s, MOE_BANDWIDTH, rate),
                cluster->nics == 0     ? ""
                : cluster->nic_at_root ? "; NICs beside it"
                                       : "; NICs below it");
    return depth + 1;
}

static void show_device(const moe_cluster *cluster, FILE *stream, int depth)
{
    const moe_cluster_spec *spec = cluster->spec;
    char peak[UNIT_TEXT], memory[UNIT_TEXT], memory_rate[UNIT_TEXT];
    in_unit(spec->device.peak_flop_per_s, MOE_FLOP_PER_S, peak);
    moe_units_format(spec->device.memory_bytes, MOE_BYTES, memory);
    in_unit(spec->device.memory_bytes_per_s, MOE_BANDWIDTH, memory_rate);
    print_level(stream, depth, true, "device", "%d per %s; %s: %s, %s at %s",
                spec->intra.switch_devices > 0 ? (int)spec->intra.switch_devices
                                               : cluster->devices_per_host,
                spec->intra.switch_devices > 0 ? "switch" : "host",
                spec->device.name ? spec->device.name : "unnamed", peak, memory, memory_rate);
    if (cluster->first_port[MOE_PORT_INTRA_OUT] < 0 && !cluster->mesh)
        return;
    char rate[UNIT_TEXT], latency[UNIT_TEXT];
    print_level(stream, depth + 1, true, moe_intra_kind_names[spec->intra.kind],
                "%s each way per device%s, %s%s",
                in_unit(spec->intra.bandwidth_bytes_per_s, MOE_BANDWIDTH, rate),
                cluster->mesh ? " over six links" : "",
                in_unit(spec->intra.latency_s, MOE_SECONDS, latency),
                spec->intra.reduction ? "; switches add up" : "");
}

static void show_tree(const moe_cluster *cluster, FILE *stream)
{
    int depth = cluster->nics > 0 ? show_fabric(cluster, stream) : 0;
    if (cluster->domain_hosts > 1)
        print_level(stream, depth++, true, "NVLink domain", "%d, of %d hosts each",
                    cluster->domains, cluster->domain_hosts);
    print_level(stream, depth++, true, "host", "%d", cluster->hosts);
    if (cluster->nics > 0)
        show_nic(cluster, stream, depth);
    depth = show_pcie(cluster, stream, depth);
    show_device(cluster, stream, depth);
}

/* ---- the ways between devices ---------------------------------------------------------------- */

typedef struct known_way {
    int target;
    int ports[MOE_PATH_PORTS];
    int count;
    double latency_s;
} known_way;

static bool same_way(const moe_cluster *cluster, const known_way *a, const known_way *b)
{
    if (a->count != b->count || a->latency_s != b->latency_s)
        return false;
    for (int i = 0; i < a->count; i++) {
        const moe_port *left = &cluster->ports[a->ports[i]];
        const moe_port *right = &cluster->ports[b->ports[i]];
        if (left->kind != right->kind || left->rate_bytes_per_s != right->rate_bytes_per_s)
            return false;
    }
    return true;
}

static double narrowest(const moe_cluster *cluster, const known_way *way)
{
    double rate = INFINITY;
    for (int i = 0; i < way->count; i++)
        rate = fmin(rate, cluster->ports[way->ports[i]].rate_bytes_per_s);
    return rate;
}

static void show_port(const moe_cluster *cluster, const moe_port *port, FILE *stream)
{
    const char *kind = moe_port_kind_names[port->kind];
    int link = port->unit % MOE_MESH_PORTS;
    int first = port->unit / MOE_MESH_PORTS * MOE_MESH_DEVICES;
    if (port->kind == MOE_PORT_LINK)
        fprintf(stream, " %s%d>%d", kind, first + cluster->mesh->from[link],
                first + cluster->mesh->to[link]);
    else
        fprintf(stream, " %s%d", kind, port->unit);
}

static void show_way(const moe_cluster *cluster, const known_way *way, FILE *stream)
{
    char rate[UNIT_TEXT], latency[UNIT_TEXT];
    fprintf(stream, "  to %5d  %10s  %8s ", way->target,
            in_unit(narrowest(cluster, way), MOE_BANDWIDTH, rate),
            in_unit(way->latency_s, MOE_SECONDS, latency));
    for (int i = 0; i < way->count; i++)
        show_port(cluster, &cluster->ports[way->ports[i]], stream);
    int relay = moe_cluster_relay(cluster, 0, way->target);
    if (relay >= 0)
        fprintf(stream, " (by way of %d)", relay);
    fputc('\n', stream);
}

/* One line per kind of way, to the first device that it leads to. */
static void show_ways(const moe_cluster *cluster, FILE *stream)
{
    known_way seen[WAYS];
    int count = 0;
    fputs("\nways from device 0, their narrowest port and latency\n", stream);
    for (int target = 1; target < cluster->devices && count < WAYS; target++) {
        known_way *way = &seen[count];
        way->target = target;
        way->count = moe_cluster_path(cluster, 0, target, way->ports);
        way->latency_s = moe_cluster_latency_s(cluster, 0, target);
        int known = 0;
        while (known < count && !same_way(cluster, &seen[known], way))
            known++;
        if (known < count)
            continue;
        show_way(cluster, way, stream);
        count++;
    }
}

/* ---- figures --------------------------------------------------------------------------------- */

/* Devices [first, end). */
typedef struct span {
    int first;
    int end;
} span;

typedef struct exchange {
    double bytes_per_s; /* of all pairs together, at full rates and without latency */
    moe_port_kind slowest;
} exchange;

static void load_pairs(const moe_cluster *cluster, span from, span to, double *loads, double *pairs)
{
    for (int source = from.first; source < from.end; source++) {
        for (int target = to.first; target < to.end; target++) {
            int ports[MOE_PATH_PORTS];
            int count = moe_cluster_path(cluster, source, target, ports);
            for (int i = 0; i < count; i++)
                loads[ports[i]]++;
            *pairs += source != target;
        }
    }
}

/* Every device of one span sends as much to every one of the other: until the slowest port is done.
 */
static exchange exchange_rate(const moe_cluster *cluster, span from, span to)
{
    double *loads = moe_need(talloc_zero_array(NULL, double, cluster->port_count));
    double pairs = 0;
    double slowest_s = 0;
    exchange found = {0};
    load_pairs(cluster, from, to, loads, &pairs);
    for (int p = 0; p < cluster->port_count; p++) {
        double seconds = loads[p] / cluster->ports[p].rate_bytes_per_s;
        if (seconds <= slowest_s)
            continue;
        slowest_s = seconds;
        found.slowest = cluster->ports[p].kind;
    }
    found.bytes_per_s = pairs / slowest_s;
    talloc_free(loads);
    return found;
}

static void show_figure(FILE *stream, const char *label, double value, moe_dimension dimension)
{
    char text[UNIT_TEXT];
    fprintf(stream, "  %-44s %s\n", label, in_unit(value, dimension, text));
}

static void show_exchange(const moe_cluster *cluster, FILE *stream, const char *label, span from,
                          span to, double share)
{
    char text[UNIT_TEXT];
    exchange found = exchange_rate(cluster, from, to);
    fprintf(stream, "  %-44s %s, limited by %s\n", label,
            in_unit(found.bytes_per_s / share, MOE_BANDWIDTH, text),
            moe_port_kind_names[found.slowest]);
}

static double sum_rates(const moe_cluster *cluster, moe_port_kind kind)
{
    double sum = 0;
    for (int p = 0; p < cluster->port_count; p++)
        sum += cluster->ports[p].kind == kind ? cluster->ports[p].rate_bytes_per_s : 0;
    return sum;
}

static void show_totals(const moe_cluster *cluster, FILE *stream)
{
    const moe_device_spec *device = &cluster->spec->device;
    double devices = cluster->devices;
    fprintf(stream, "\ntotals, every bandwidth per direction\n  %-44s %d\n", "devices",
            cluster->devices);
    show_figure(stream, "matrix rate", devices * device->peak_flop_per_s, MOE_FLOP_PER_S);
    show_figure(stream, "memory", devices * device->memory_bytes, MOE_BYTES);
    show_figure(stream, "memory bandwidth", devices * device->memory_bytes_per_s, MOE_BANDWIDTH);
    double links = sum_rates(cluster, cluster->mesh ? MOE_PORT_LINK : MOE_PORT_INTRA_OUT);
    if (links > 0)
        show_figure(stream, "links of devices", links, MOE_BANDWIDTH);
    if (cluster->nics > 0)
        show_figure(stream, "NICs", sum_rates(cluster, MOE_PORT_NIC_OUT), MOE_BANDWIDTH);
}

static void show_derived(const moe_cluster *cluster, FILE *stream)
{
    int devices = cluster->devices;
    int domain = cluster->domain_hosts * cluster->devices_per_host;
    span all = {0, devices};
    fputs("\nderived, at full rates and without latency\n", stream);
    if (devices > RATE_DEVICES) {
        fprintf(stream, "  not computed above %d devices\n", RATE_DEVICES);
        return;
    }
    show_exchange(cluster, stream, "bisection bandwidth, half to half", (span){0, devices / 2},
                  (span){devices / 2, devices}, 1);
    show_exchange(cluster, stream, "all-to-all of all, per device (busbw)", all, all, devices);
    if (cluster->domains > 1 && domain > 1)
        show_exchange(cluster, stream,
                      cluster->domain_hosts > 1 ? "all-to-all in one domain, per device (busbw)"
                                                : "all-to-all in one host, per device (busbw)",
                      (span){0, domain}, (span){0, domain}, domain);
    if (cluster->nics > 0)
        show_figure(stream, "NIC bandwidth per device",
                    sum_rates(cluster, MOE_PORT_NIC_OUT) / devices, MOE_BANDWIDTH);
}

void moe_cluster_show(const moe_cluster *cluster, FILE *stream)
{
    const moe_cluster_spec *spec = cluster->spec;
    fprintf(stream, "%s: %d hosts x %d devices\n", spec->name ? spec->name : "unnamed cluster",
            cluster->hosts, cluster->devices_per_host);
    if (spec->source)
        fprintf(stream, "source: %s\n", spec->source);
    fputc('\n', stream);
    show_tree(cluster, stream);
    if (cluster->devices > 1)
        show_ways(cluster, stream);
    show_totals(cluster, stream);
    if (cluster->devices > 1)
        show_derived(cluster, stream);
}
