/* Paths and their latencies. A dense all-to-all on 1,024 devices asks for a million. */
#include "models/cluster_mesh.h"
#include "models/cluster_private.h"

#include <assert.h>

typedef struct path_walk {
    const moe_cluster *cluster;
    int *ports;
    int count;
} path_walk;

/* Leaves out kinds that the cluster does not have. */
static inline void cross(path_walk *walk, moe_port_kind kind, int unit)
{
    int first = walk->cluster->first_port[kind];
    if (first >= 0)
        walk->ports[walk->count++] = first + unit;
}

/* ---- within a domain ------------------------------------------------------------------------- */

static void cross_pcie(path_walk *walk, int source, int target)
{
    const moe_place *from = &walk->cluster->places[source];
    const moe_place *to = &walk->cluster->places[target];
    cross(walk, MOE_PORT_INTRA_OUT, from->device);
    if (from->pcie_switch != to->pcie_switch) {
        cross(walk, MOE_PORT_SWITCH_UP, from->pcie_switch);
        cross(walk, MOE_PORT_BRIDGE, from->host);
        cross(walk, MOE_PORT_SWITCH_DOWN, to->pcie_switch);
    }
    cross(walk, MOE_PORT_INTRA_IN, to->device);
}

static void cross_mesh(path_walk *walk, int source, int target)
{
    const moe_mesh *mesh = walk->cluster->mesh;
    int from = walk->cluster->places[source].local;
    int to = walk->cluster->places[target].local;
    int first = walk->cluster->places[source].host * MOE_MESH_PORTS;
    int via = mesh->via[from][to];
    if (via >= 0) {
        cross(walk, MOE_PORT_LINK, first + mesh->port[from][via]);
        from = via;
    }
    cross(walk, MOE_PORT_LINK, first + mesh->port[from][to]);
}

static void cross_domain(path_walk *walk, int source, int target)
{
    if (source == target)
        return;
    switch ((moe_intra_kind)walk->cluster->spec->intra.kind) {
    case MOE_INTRA_NVLINK:
    case MOE_INTRA_NVSWITCH:
        cross(walk, MOE_PORT_INTRA_OUT, walk->cluster->places[source].device);
        cross(walk, MOE_PORT_INTRA_IN, walk->cluster->places[target].device);
        return;
    case MOE_INTRA_PCIE:
        cross_pcie(walk, source, target);
        return;
    case MOE_INTRA_CUBE_MESH:
        cross_mesh(walk, source, target);
        return;
    }
}

static double domain_latency_s(const moe_cluster *cluster, int source, int target)
{
    double hop_s = cluster->spec->intra.latency_s;
    if (source == target)
        return 0;
    if (!cluster->mesh)
        return hop_s;
    int via = cluster->mesh->via[cluster->places[source].local][cluster->places[target].local];
    return via >= 0 ? 2 * hop_s : hop_s;
}

/* ---- between domains ------------------------------------------------------------------------- */

static void cross_switches(path_walk *walk, const moe_place *from, const moe_place *to)
{
    if (from->leaf == to->leaf)
        return;
    cross(walk, MOE_PORT_LEAF_UP, from->leaf);
    if (from->spine != to->spine) {
        cross(walk, MOE_PORT_SPINE_UP, from->spine);
        cross(walk, MOE_PORT_SPINE_DOWN, to->spine);
    }
    cross(walk, MOE_PORT_LEAF_DOWN, to->leaf);
}

static void cross_network(path_walk *walk, int source, int target)
{
    const moe_cluster *cluster = walk->cluster;
    const moe_place *from = &cluster->places[source];
    const moe_place *to = &cluster->places[target];
    bool pcie = cluster->spec->intra.kind == MOE_INTRA_PCIE;
    if (pcie)
        cross(walk, MOE_PORT_INTRA_OUT, from->device);
    if (cluster->nic_at_root)
        cross(walk, MOE_PORT_SWITCH_UP, from->pcie_switch);
    cross(walk, MOE_PORT_NIC_OUT, from->nic);
    cross_switches(walk, from, to);
    cross(walk, MOE_PORT_NIC_IN, to->nic);
    if (cluster->nic_at_root)
        cross(walk, MOE_PORT_SWITCH_DOWN, to->pcie_switch);
    if (pcie)
        cross(walk, MOE_PORT_INTRA_IN, to->device);
}

static double network_latency_s(const moe_cluster *cluster, int source, int target)
{
    const moe_cluster_spec *spec = cluster->spec;
    const moe_place *from = &cluster->places[source];
    const moe_place *to = &cluster->places[target];
    double latency_s = spec->nic.latency_s;
    if (from->leaf != to->leaf)
        latency_s += spec->fabric.latency_s;
    if (from->spine != to->spine)
        latency_s += spec->fabric.latency_s;
    return latency_s;
}

/* ---- whole paths ----------------------------------------------------------------------------- */

int moe_cluster_relay(const moe_cluster *cluster, int source, int target)
{
    const moe_place *from = &cluster->places[source];
    const moe_place *to = &cluster->places[target];
    if (from->domain == to->domain || from->rail == to->rail)
        return -1;
    switch ((moe_path_rule)cluster->spec->fabric.path) {
    case MOE_PATH_DIRECT:
        break;
    case MOE_PATH_PXN:
        return moe_cluster_rank_at(cluster, from->host, to->local);
    case MOE_PATH_RAIL_THEN_NVLINK:
        return moe_cluster_rank_at(cluster, to->host, from->local);
    }
    return -1;
}

/* The two devices between which the network is crossed; `target` itself where there is no relay. */
typedef struct network_span {
    int first;
    int last;
} network_span;

static network_span span_of(const moe_cluster *cluster, int source, int target)
{
    int relay = moe_cluster_relay(cluster, source, target);
    if (relay < 0)
        return (network_span){source, target};
    return cluster->spec->fabric.path == MOE_PATH_PXN ? (network_span){relay, target}
                                                      : (network_span){source, relay};
}

int moe_cluster_path(const moe_cluster *cluster, int source, int target,
                     int ports[static MOE_PATH_PORTS])
{
    assert(source >= 0 && source < cluster->devices && target >= 0 && target < cluster->devices);
    path_walk walk = {cluster, ports, 0};
    if (cluster->places[source].domain == cluster->places[target].domain) {
        cross_domain(&walk, source, target);
        return walk.count;
    }
    network_span span = span_of(cluster, source, target);
    cross_domain(&walk, source, span.first);
    cross_network(&walk, span.first, span.last);
    cross_domain(&walk, span.last, target);
    return walk.count;
}

double moe_cluster_latency_s(const moe_cluster *cluster, int source, int target)
{
    if (cluster->places[source].domain == cluster->places[target].domain)
        return domain_latency_s(cluster, source, target);
    network_span span = span_of(cluster, source, target);
    return domain_latency_s(cluster, source, span.first) +
           network_latency_s(cluster, span.first, span.last) +
           domain_latency_s(cluster, span.last, target);
}
