#include "models/traffic.h"

#include <math.h>

/* What the transfers put on every port of the cluster. */
typedef struct port_sums {
    double *bytes; /* [cluster->port_count] */
    int *flows;
} port_sums;

static port_sums sum_ports(moe_arena *arena, const moe_cluster *cluster, moe_traffic *traffic)
{
    port_sums sums = {moe_arena_array(arena, double, (size_t)cluster->port_count),
                      moe_arena_array(arena, int, (size_t)cluster->port_count)};
    for (size_t t = 0; t < traffic->transfer_count; t++) {
        const moe_transfer *transfer = &traffic->transfers[t];
        int path[MOE_PATH_PORTS];
        int hops = moe_cluster_path(cluster, transfer->source, transfer->target, path);
        for (int h = 0; h < hops; h++) {
            sums.bytes[path[h]] += transfer->bytes;
            sums.flows[path[h]]++;
        }
        bool inside = moe_cluster_host(cluster, transfer->source) ==
                      moe_cluster_host(cluster, transfer->target);
        *(inside ? &traffic->intra_host_bytes : &traffic->inter_host_bytes) += transfer->bytes;
    }
    return sums;
}

static void find_participants(moe_arena *arena, moe_traffic *traffic)
{
    bool *takes_part = moe_arena_array(arena, bool, (size_t)traffic->devices);
    for (size_t t = 0; t < traffic->transfer_count; t++) {
        takes_part[traffic->transfers[t].source] = true;
        takes_part[traffic->transfers[t].target] = true;
    }
    for (int d = 0; d < traffic->devices; d++) {
        traffic->participants += takes_part[d];
    }
    traffic->takes_part = takes_part;
}

/* Numbers the loaded ports; returns the map from a port to its number. */
static const int *number_ports(moe_arena *arena, const moe_cluster *cluster, const int *flows,
                               int *count)
{
    int *loaded = moe_arena_array(arena, int, (size_t)cluster->port_count);
    *count = 0;
    for (int p = 0; p < cluster->port_count; p++) {
        loaded[p] = flows[p] > 0 ? (*count)++ : -1;
    }
    return loaded;
}

/* Efficiency depends on the kind of port alone, so each kind is evaluated (and counted) once. */
static double port_efficiency(const moe_costs *costs, const moe_traffic_terms *terms,
                              moe_port_kind kind, int ranks, double known[])
{
    if (isnan(known[kind])) {
        known[kind] = moe_cost_efficiency(costs, terms->kind, kind, terms->bytes_per_rank, ranks);
    }
    return known[kind];
}

/* 0 where a port between hosts is loaded. */
static int ranks_within_hosts(const moe_cluster *cluster, const int *flows, int ranks)
{
    for (int p = 0; p < cluster->port_count; p++) {
        if (flows[p] > 0 && !moe_port_is_intra(cluster->ports[p].kind)) {
            return 0;
        }
    }
    return ranks;
}

static void fill_ports(moe_arena *arena, const moe_costs *costs, const moe_traffic_terms *terms,
                       port_sums sums, int ranks, moe_traffic *traffic)
{
    size_t count = (size_t)traffic->port_count;
    int *ports = moe_arena_array(arena, int, count);
    int *flows = moe_arena_array(arena, int, count);
    double *bytes = moe_arena_array(arena, double, count);
    double *work = moe_arena_array(arena, double, count);
    const moe_port *all = costs->cluster->ports;
    int within = ranks_within_hosts(costs->cluster, sums.flows, ranks);
    double known[MOE_PORT_KINDS];
    for (int kind = 0; kind < MOE_PORT_KINDS; kind++) {
        known[kind] = NAN;
    }
    int k = 0;
    for (int p = 0; p < costs->cluster->port_count; p++) {
        if (sums.flows[p] == 0) {
            continue;
        }
        ports[k] = p;
        flows[k] = sums.flows[p];
        bytes[k] = sums.bytes[p];
        work[k] = bytes[k] / port_efficiency(costs, terms, all[p].kind, within, known);
        k++;
    }
    traffic->ports = ports;
    traffic->flows = flows;
    traffic->bytes = bytes;
    traffic->work = work;
}

void moe_traffic_mark(const moe_traffic_draft *draft, const moe_transfer *transfer, uint64_t *row)
{
    int path[MOE_PATH_PORTS];
    int hops = moe_cluster_path(draft->cluster, transfer->source, transfer->target, path);
    for (int h = 0; h < hops; h++) {
        int k = draft->loaded[path[h]];
        row[k / 64] |= UINT64_C(1) << (k % 64);
    }
}

static void mark_own_transfers(const moe_traffic_draft *draft)
{
    int path[MOE_PATH_PORTS];
    for (size_t t = 0; t < draft->traffic->transfer_count; t++) {
        const moe_transfer *transfer = &draft->traffic->transfers[t];
        uint64_t *source = moe_traffic_row(draft, transfer->source);
        uint64_t *target = moe_traffic_row(draft, transfer->target);
        int hops = moe_cluster_path(draft->cluster, transfer->source, transfer->target, path);
        for (int h = 0; h < hops; h++) {
            int k = draft->loaded[path[h]];
            source[k / 64] |= UINT64_C(1) << (k % 64);
            target[k / 64] |= UINT64_C(1) << (k % 64);
        }
    }
}

moe_traffic_draft moe_traffic_assemble(moe_arena *arena, const moe_costs *costs,
                                       const moe_traffic_terms *terms,
                                       const moe_transfer *transfers, size_t count)
{
    const moe_cluster *cluster = costs->cluster;
    if (count == 0) {
        return (moe_traffic_draft){.cluster = cluster};
    }
    moe_traffic *traffic = moe_arena_array(arena, moe_traffic, 1);
    traffic->kind = terms->kind;
    traffic->devices = cluster->devices;
    traffic->transfers = transfers;
    traffic->transfer_count = count;
    find_participants(arena, traffic);
    port_sums sums = sum_ports(arena, cluster, traffic);
    const int *loaded = number_ports(arena, cluster, sums.flows, &traffic->port_count);
    int ranks = terms->ranks > 0 ? terms->ranks : traffic->participants;
    fill_ports(arena, costs, terms, sums, ranks, traffic);
    traffic->alpha_s = moe_cost_alpha_s(costs, terms->kind, ranks, terms->chunks, terms->latency_s);
    traffic->words = (traffic->port_count + 63) / 64;
    size_t cells = (size_t)traffic->devices * (size_t)traffic->words;
    uint64_t *touches = moe_arena_array(arena, uint64_t, cells);
    traffic->touches = touches;
    moe_traffic_draft draft = {cluster, traffic, touches, loaded};
    mark_own_transfers(&draft);
    return draft;
}

double moe_traffic_alone_s(const moe_traffic *traffic, const moe_cluster *cluster)
{
    double slowest = 0;
    for (int k = 0; k < traffic->port_count; k++) {
        double rate = cluster->ports[traffic->ports[k]].rate_bytes_per_s;
        slowest = fmax(slowest, traffic->work[k] / rate);
    }
    return traffic->alpha_s + slowest;
}
