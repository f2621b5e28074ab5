#include "models/cluster_private.h"

#include "configs/base/memory.h"
#include "models/cluster_mesh.h"
#include <assert.h>
#include <talloc.h>

const char *const moe_port_kind_names[] = {
    "intra_out", "intra_in",  "bridge",      "nic_out",  "nic_in",     "leaf_up", "leaf_down",
    "link",      "switch_up", "switch_down", "spine_up", "spine_down", NULL};

/* ---- ports ----------------------------------------------------------------------------------- */

static int switches(const moe_cluster *cluster)
{
    int64_t below = cluster->spec->intra.switch_devices;
    return below > 0 ? cluster->devices / (int)below : 0;
}

/* How many ports of a kind there are; 0 where it is absent. */
static int port_units(const moe_cluster *cluster, moe_port_kind kind)
{
    const moe_cluster_spec *spec = cluster->spec;
    switch (kind) {
    case MOE_PORT_INTRA_OUT:
    case MOE_PORT_INTRA_IN:
        return moe_spec_has_intra(spec) && !cluster->mesh ? cluster->devices : 0;
    case MOE_PORT_LINK:
        return cluster->mesh ? cluster->hosts * MOE_MESH_PORTS : 0;
    case MOE_PORT_BRIDGE:
        return spec->intra.bridge_bytes_per_s > 0 && cluster->devices_per_host > 1 ? cluster->hosts
                                                                                   : 0;
    case MOE_PORT_SWITCH_UP:
    case MOE_PORT_SWITCH_DOWN:
        return switches(cluster);
    case MOE_PORT_NIC_OUT:
    case MOE_PORT_NIC_IN:
        return cluster->nics;
    case MOE_PORT_LEAF_UP:
    case MOE_PORT_LEAF_DOWN:
        return cluster->nics > 0 && cluster->leaves > 1 && spec->fabric.oversubscription > 1
                   ? cluster->leaves
                   : 0;
    case MOE_PORT_SPINE_UP:
    case MOE_PORT_SPINE_DOWN:
        return cluster->nics > 0 && cluster->spines > 1 && spec->fabric.spine_oversubscription > 1
                   ? cluster->spines
                   : 0;
    case MOE_PORT_KINDS:
        break;
    }
    assert(!"a port kind without units");
    return 0;
}

static double nic_rate(const moe_cluster *cluster)
{
    const moe_nic_spec *nic = &cluster->spec->nic;
    return nic->sharing == MOE_NIC_PER_DEVICE ? nic->bandwidth_bytes_per_s
                                              : nic->bandwidth_bytes_per_s / cluster->nics_per_host;
}

static double uplink_rate(const moe_cluster *cluster)
{
    const moe_intra_spec *intra = &cluster->spec->intra;
    return intra->uplink_bytes_per_s > 0 ? intra->uplink_bytes_per_s : intra->bandwidth_bytes_per_s;
}

static double port_rate(const moe_cluster *cluster, moe_port_kind kind, int unit)
{
    const moe_cluster_spec *spec = cluster->spec;
    switch (kind) {
    case MOE_PORT_INTRA_OUT:
    case MOE_PORT_INTRA_IN:
        return spec->intra.bandwidth_bytes_per_s;
    case MOE_PORT_LINK:
        return spec->intra.bandwidth_bytes_per_s * cluster->mesh->links[unit % MOE_MESH_PORTS] /
               MOE_MESH_LINKS_PER_DEVICE;
    case MOE_PORT_BRIDGE:
        return spec->intra.bridge_bytes_per_s;
    case MOE_PORT_SWITCH_UP:
    case MOE_PORT_SWITCH_DOWN:
        return uplink_rate(cluster);
    case MOE_PORT_NIC_OUT:
    case MOE_PORT_NIC_IN:
        return nic_rate(cluster);
    case MOE_PORT_LEAF_UP:
    case MOE_PORT_LEAF_DOWN:
        return nic_rate(cluster) * (cluster->nics / cluster->leaves) /
               spec->fabric.oversubscription;
    case MOE_PORT_SPINE_UP:
    case MOE_PORT_SPINE_DOWN:
        return nic_rate(cluster) * (cluster->nics / cluster->spines) /
               spec->fabric.oversubscription / spec->fabric.spine_oversubscription;
    case MOE_PORT_KINDS:
        break;
    }
    assert(!"a port kind without a rate");
    return 0;
}

static void add_ports(moe_cluster *cluster, moe_port_kind kind)
{
    int units = port_units(cluster, kind);
    cluster->first_port[kind] = units > 0 ? cluster->port_count : -1;
    for (int unit = 0; unit < units; unit++)
        cluster->ports[cluster->port_count++] = (moe_port){
            .kind = kind, .unit = unit, .rate_bytes_per_s = port_rate(cluster, kind, unit)};
}

static void build_ports(moe_cluster *cluster)
{
    int total = 0;
    for (int kind = 0; kind < MOE_PORT_KINDS; kind++)
        total += port_units(cluster, (moe_port_kind)kind);
    cluster->ports = moe_need(talloc_array(cluster, moe_port, total));
    cluster->first_port = moe_need(talloc_array(cluster, int, MOE_PORT_KINDS));
    for (int kind = 0; kind < MOE_PORT_KINDS; kind++)
        add_ports(cluster, (moe_port_kind)kind);
}

/* ---- places ---------------------------------------------------------------------------------- */

static int hosts_per(int64_t given, int hosts)
{
    return given > 0 ? (int)given : hosts;
}

static moe_place place_of(const moe_cluster *cluster, int device)
{
    const moe_cluster_spec *spec = cluster->spec;
    int host = device / cluster->devices_per_host;
    int local = device % cluster->devices_per_host;
    int below = (int)moe_count_or_one(spec->intra.switch_devices);
    int nic = local * cluster->nics_per_host / cluster->devices_per_host;
    int rail = cluster->rails > 1 ? nic : 0;
    int pod = host / hosts_per(spec->fabric.hosts_per_pod, cluster->hosts);
    bool apart = spec->fabric.kind == MOE_FABRIC_RAIL_ONLY;
    return (moe_place){
        .device = device,
        .host = host,
        .domain = host / cluster->domain_hosts,
        .local = local,
        .pcie_switch = device / below,
        .nic = host * cluster->nics_per_host + nic,
        .rail = rail,
        .leaf =
            host / hosts_per(spec->fabric.hosts_per_leaf, cluster->hosts) * cluster->rails + rail,
        .spine = apart ? pod * cluster->rails + rail : pod,
    };
}

static void build_places(moe_cluster *cluster)
{
    cluster->places = moe_need(talloc_array(cluster, moe_place, cluster->devices));
    cluster->rank_on = moe_need(talloc_array(cluster, int, cluster->devices));
    for (int device = 0; device < cluster->devices; device++) {
        cluster->places[device] = place_of(cluster, device);
        cluster->rank_on[device] = device;
    }
    const moe_place *last = &cluster->places[cluster->devices - 1];
    cluster->leaves = last->leaf + 1;
    cluster->spines = last->spine + 1;
}

/* A NIC hangs below a PCIe switch if all that it serves does. */
static bool nic_is_at_root(const moe_cluster *cluster)
{
    int64_t below = cluster->spec->intra.switch_devices;
    return cluster->nics > 0 && below > 0 &&
           below % (cluster->devices_per_host / cluster->nics_per_host) != 0;
}

static void count_units(moe_cluster *cluster)
{
    const moe_cluster_spec *spec = cluster->spec;
    cluster->hosts = (int)spec->hosts;
    cluster->devices_per_host = (int)spec->devices_per_host;
    cluster->devices = cluster->hosts * cluster->devices_per_host;
    cluster->domain_hosts = (int)moe_count_or_one(spec->intra.domain_hosts);
    cluster->domains = cluster->hosts / cluster->domain_hosts;
    cluster->nics_per_host = cluster->domains > 1 ? (int)moe_spec_nics_per_host(spec) : 0;
    cluster->nics = cluster->hosts * cluster->nics_per_host;
    cluster->rails = moe_spec_has_rails(spec) && cluster->nics > 0 ? cluster->nics_per_host : 1;
}

moe_cluster *moe_cluster_create(void *owner, const moe_cluster_spec *spec, const moe_config *config,
                                moe_diag *diag)
{
    if (moe_cluster_check(spec, config, diag) != MOE_OK)
        return NULL;
    moe_cluster *cluster = moe_need(talloc_zero(owner, moe_cluster));
    cluster->spec = spec;
    count_units(cluster);
    if (spec->intra.kind == MOE_INTRA_CUBE_MESH)
        cluster->mesh = moe_mesh_create(cluster);
    cluster->nic_at_root = nic_is_at_root(cluster);
    build_places(cluster);
    cluster->latency_by_host = !cluster->mesh && cluster->rails == 1;
    build_ports(cluster);
    return cluster;
}
