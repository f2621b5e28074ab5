#include "models/cluster.h"

#include "configs/base/memory.h"
#include <assert.h>
#include <math.h>
#include <talloc.h>

enum { MAX_DEVICES = 65536, PORT_KINDS = MOE_PORT_LEAF_DOWN + 1 };

static const char *const intra_kinds[] = {"nvlink", "nvswitch", "pcie", NULL};
static const char *const nic_sharings[] = {"per_host", "per_device", NULL};

static const moe_field device_fields[] = {
    {.key = "name",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(moe_device_spec, name),
     .sentence =
         "Name of the device model; a profile made for another one is used with a warning."},
    {.key = "peak",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_FLOP_PER_S,
     .required = true,
     .offset = offsetof(moe_device_spec, peak_flop_per_s),
     .low = 1e6,
     .high = 1e20,
     .sentence = "Dense matrix rate of one device at the training dtype (bf16 or fp16, without "
                 "sparsity) from its data sheet, in FLOP/s; higher is better."},
    {.key = "memory",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BYTES,
     .required = true,
     .offset = offsetof(moe_device_spec, memory_bytes),
     .low = 1e3,
     .high = 1e18,
     .sentence =
         "Memory of one device in bytes, of which the driver keeps some; higher is better."},
    {.key = "memory_bandwidth",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BANDWIDTH,
     .required = true,
     .offset = offsetof(moe_device_spec, memory_bytes_per_s),
     .low = 1e3,
     .high = 1e18,
     .sentence = "Bandwidth of one device's memory in bytes/s, reads and writes together as data "
                 "sheets count it; higher is better."},
    {.key = "sms",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .offset = offsetof(moe_device_spec, sms),
     .low = 0,
     .high = 100000,
     .sentence =
         "Streaming multiprocessors of one device; 0: unknown, which no result depends on."},
    {0},
};

static const moe_table device_table = {
    .noun = "device",
    .sentence = "One accelerator, as its data sheet describes it.",
    .size = sizeof(moe_device_spec),
    .fields = device_fields,
};

static const moe_field intra_fields[] = {
    {.key = "kind",
     .type = MOE_FIELD_CHOICE,
     .default_text = "nvlink",
     .offset = offsetof(moe_intra_spec, kind),
     .choices = intra_kinds,
     .sentence =
         "What joins the devices of one host; over pcie, traffic to other hosts crosses the "
         "device's PCIe link too."},
    {.key = "bandwidth",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BANDWIDTH,
     .offset = offsetof(moe_intra_spec, bandwidth_bytes_per_s),
     .low = 0,
     .high = 1e18,
     .sentence =
         "Rate of one device's link end in bytes/s per direction (half of what vendors print "
         "as bidirectional), needed where a host has several devices; higher is better."},
    {.key = "bridge",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BANDWIDTH,
     .default_text = "0",
     .offset = offsetof(moe_intra_spec, bridge_bytes_per_s),
     .low = 0,
     .high = 1e18,
     .sentence = "PCIe only: rate in bytes/s per direction of the host bridge that all transfers "
                 "within a host share; 0: none; higher is better."},
    {.key = "latency",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "1 us",
     .offset = offsetof(moe_intra_spec, latency_s),
     .low = 0,
     .high = 10,
     .sentence =
         "Time of one hop between two devices of a host beyond size / rate, in seconds; lower "
         "is better (0.95 us a hop fits NCCL on 2, 4 and 8 A100 over NVSwitch)."},
    {0},
};

static const moe_table intra_table = {
    .noun = "intra-host link",
    .sentence = "What joins the devices of one host.",
    .size = sizeof(moe_intra_spec),
    .fields = intra_fields,
};

static const moe_field nic_fields[] = {
    {.key = "sharing",
     .type = MOE_FIELD_CHOICE,
     .default_text = "per_host",
     .offset = offsetof(moe_nic_spec, sharing),
     .choices = nic_sharings,
     .sentence = "Whether `bandwidth` is that of the whole host, shared by its devices, or of one "
                 "device's own NIC."},
    {.key = "bandwidth",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BANDWIDTH,
     .offset = offsetof(moe_nic_spec, bandwidth_bytes_per_s),
     .low = 0,
     .high = 1e18,
     .sentence = "Line rate into the fabric in bytes/s per direction, of a host or of a device as "
                 "`sharing` says, needed where there are several hosts; higher is better."},
    {.key = "latency",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "2.8 us",
     .offset = offsetof(moe_nic_spec, latency_s),
     .low = 0,
     .high = 10,
     .sentence =
         "Time of one hop between two hosts of a leaf beyond size / rate, in seconds; lower "
         "is better (InfiniBand 2.8 us, RoCE 3.6 us: DeepSeek, arXiv 2505.09343, Table 5)."},
    {0},
};

static const moe_table nic_table = {
    .noun = "NIC",
    .sentence = "How hosts reach the fabric.",
    .size = sizeof(moe_nic_spec),
    .fields = nic_fields,
};

static const moe_field fabric_fields[] = {
    {.key = "hosts_per_leaf",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "0",
     .offset = offsetof(moe_fabric_spec, hosts_per_leaf),
     .low = 0,
     .high = MAX_DEVICES,
     .sentence = "Hosts below one leaf switch; 0: one leaf holds all."},
    {.key = "oversubscription",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_NUMBER,
     .default_text = "1",
     .offset = offsetof(moe_fabric_spec, oversubscription),
     .low = 1,
     .high = 1000,
     .sentence = "NIC rates below a leaf over the leaf's rate to the others, per direction; 1 is "
                 "non-blocking, lower is better."},
    {.key = "latency",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "0.9 us",
     .offset = offsetof(moe_fabric_spec, latency_s),
     .low = 0,
     .high = 10,
     .sentence =
         "Time added to a hop that leaves its leaf, in seconds; lower is better (InfiniBand "
         "0.9 us, RoCE 2.0 us: DeepSeek, arXiv 2505.09343, Table 5)."},
    {0},
};

static const moe_table fabric_table = {
    .noun = "fabric",
    .sentence = "What joins the hosts.",
    .size = sizeof(moe_fabric_spec),
    .fields = fabric_fields,
};

static const moe_field cluster_fields[] = {
    {.key = "name",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(moe_cluster_spec, name),
     .sentence = "Name of the cluster in reports."},
    {.key = "source",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(moe_cluster_spec, source),
     .sentence = "Where the numbers come from; copied into every result."},
    {.key = "hosts",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(moe_cluster_spec, hosts),
     .low = 1,
     .high = MAX_DEVICES,
     .sentence = "Number of hosts; at most 65,536 devices in all."},
    {.key = "devices_per_host",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(moe_cluster_spec, devices_per_host),
     .low = 1,
     .high = MAX_DEVICES,
     .sentence = "Devices in each host; device d sits in host d / devices_per_host."},
    {.key = "device",
     .type = MOE_FIELD_MAP,
     .required = true,
     .offset = offsetof(moe_cluster_spec, device),
     .table = &device_table,
     .sentence = "The accelerator, the same everywhere."},
    {.key = "intra",
     .type = MOE_FIELD_MAP,
     .offset = offsetof(moe_cluster_spec, intra),
     .table = &intra_table,
     .sentence = "What joins the devices of one host; needed where a host has several."},
    {.key = "nic",
     .type = MOE_FIELD_MAP,
     .offset = offsetof(moe_cluster_spec, nic),
     .table = &nic_table,
     .sentence = "How a host reaches the fabric; needed where there are several hosts."},
    {.key = "fabric",
     .type = MOE_FIELD_MAP,
     .offset = offsetof(moe_cluster_spec, fabric),
     .table = &fabric_table,
     .sentence = "What joins the hosts; one non-blocking switch unless said otherwise."},
    {0},
};

const moe_table moe_cluster_table = {
    .noun = "cluster",
    .sentence = "Hosts of equal devices and what joins them.",
    .size = sizeof(moe_cluster_spec),
    .fields = cluster_fields,
};

/* ---- checks ---------------------------------------------------------------------------------- */

static moe_where where_of(const moe_config *config, const void *member)
{
    return config ? moe_config_where(config, member) : (moe_where){0};
}

static bool check_size(const moe_cluster_spec *spec, const moe_config *config, moe_diag *diag)
{
    if (spec->hosts < 1 || spec->devices_per_host < 1) {
        moe_diag_error(diag, where_of(config, &spec->hosts),
                       "%lld hosts of %lld devices; expected at least one of each",
                       (long long)spec->hosts, (long long)spec->devices_per_host);
        return false;
    }
    /* Divided, not multiplied: a specification that no table has checked may hold any number. */
    if (spec->devices_per_host > MAX_DEVICES ||
        spec->hosts > MAX_DEVICES / spec->devices_per_host) {
        moe_diag_error(diag, where_of(config, &spec->hosts),
                       "%lld hosts of %lld devices; a cluster has at most 65,536 devices",
                       (long long)spec->hosts, (long long)spec->devices_per_host);
        return false;
    }
    return true;
}

static void check_rate(const moe_config *config, const double *rate, const char *what,
                       const char *reason, moe_diag *diag)
{
    if (isfinite(*rate) && *rate > 0)
        return;
    moe_diag_error(diag, where_of(config, rate),
                   "%s is missing or zero; expected a rate above 0 because %s", what, reason);
}

static bool has_intra_ports(const moe_cluster_spec *spec)
{
    bool crossed_by_nic_traffic = spec->intra.kind == MOE_INTRA_PCIE && spec->hosts > 1;
    return spec->devices_per_host > 1 || crossed_by_nic_traffic;
}

static void check_rates(const moe_cluster_spec *spec, const moe_config *config, moe_diag *diag)
{
    const moe_device_spec *device = &spec->device;
    check_rate(config, &device->peak_flop_per_s, "device.peak", "devices compute", diag);
    check_rate(config, &device->memory_bytes_per_s, "device.memory_bandwidth",
               "devices read their memory", diag);
    if (has_intra_ports(spec))
        check_rate(config, &spec->intra.bandwidth_bytes_per_s, "intra.bandwidth",
                   spec->devices_per_host > 1 ? "a host has several devices"
                                              : "traffic to other hosts crosses PCIe",
                   diag);
    if (spec->hosts > 1)
        check_rate(config, &spec->nic.bandwidth_bytes_per_s, "nic.bandwidth",
                   "there are several hosts", diag);
    if (spec->intra.bridge_bytes_per_s > 0 && spec->intra.kind != MOE_INTRA_PCIE)
        moe_diag_error(diag, where_of(config, &spec->intra.bridge_bytes_per_s),
                       "intra.bridge goes with intra.kind pcie, but the kind is %s",
                       intra_kinds[spec->intra.kind]);
}

static void check_fabric(const moe_cluster_spec *spec, const moe_config *config, moe_diag *diag)
{
    const moe_fabric_spec *fabric = &spec->fabric;
    if (fabric->hosts_per_leaf < 0 ||
        (fabric->hosts_per_leaf > 0 && spec->hosts % fabric->hosts_per_leaf != 0))
        moe_diag_error(
            diag, where_of(config, &fabric->hosts_per_leaf),
            "fabric.hosts_per_leaf is %lld; expected a divisor of the %lld hosts, or 0 for "
            "one leaf",
            (long long)fabric->hosts_per_leaf, (long long)spec->hosts);
    if (!(fabric->oversubscription >= 1) || isinf(fabric->oversubscription))
        moe_diag_error(diag, where_of(config, &fabric->oversubscription),
                       "fabric.oversubscription is %g; expected at least 1 (non-blocking)",
                       fabric->oversubscription);
}

/* ---- ports ----------------------------------------------------------------------------------- */

/* How many ports of a kind there are, 0 where it is absent, and the rate of each. */
static int port_units(const moe_cluster *cluster, moe_port_kind kind, double *rate)
{
    const moe_cluster_spec *spec = cluster->spec;
    double nic_rate = spec->nic.bandwidth_bytes_per_s;
    switch (kind) {
    case MOE_PORT_INTRA_OUT:
    case MOE_PORT_INTRA_IN:
        *rate = spec->intra.bandwidth_bytes_per_s;
        return has_intra_ports(spec) ? cluster->devices : 0;
    case MOE_PORT_BRIDGE:
        *rate = spec->intra.bridge_bytes_per_s;
        return *rate > 0 && cluster->devices_per_host > 1 ? cluster->hosts : 0;
    case MOE_PORT_NIC_OUT:
    case MOE_PORT_NIC_IN:
        *rate = nic_rate;
        return cluster->nics;
    case MOE_PORT_LEAF_UP:
    case MOE_PORT_LEAF_DOWN:
        *rate = nic_rate * (cluster->nics / cluster->leaves) / spec->fabric.oversubscription;
        return cluster->leaves > 1 && spec->fabric.oversubscription > 1 ? cluster->leaves : 0;
    }
    assert(!"a port kind without units");
    return 0;
}

static void add_ports(moe_cluster *cluster, moe_port_kind kind)
{
    double rate = 0;
    int units = port_units(cluster, kind, &rate);
    cluster->first_port[kind] = units > 0 ? cluster->port_count : -1;
    for (int unit = 0; unit < units; unit++)
        cluster->ports[cluster->port_count++] =
            (moe_port){.kind = kind, .unit = unit, .rate_bytes_per_s = rate};
}

static void build_ports(moe_cluster *cluster)
{
    double rate;
    int total = 0;
    for (int kind = 0; kind < PORT_KINDS; kind++)
        total += port_units(cluster, kind, &rate);
    cluster->ports = moe_need(talloc_array(cluster, moe_port, total));
    cluster->first_port = moe_need(talloc_array(cluster, int, PORT_KINDS));
    for (int kind = 0; kind < PORT_KINDS; kind++)
        add_ports(cluster, kind);
}

moe_cluster *moe_cluster_create(void *owner, const moe_cluster_spec *spec, const moe_config *config,
                                moe_diag *diag)
{
    int errors = moe_diag_error_count(diag);
    if (!check_size(spec, config, diag))
        return NULL;
    check_rates(spec, config, diag);
    check_fabric(spec, config, diag);
    if (moe_diag_error_count(diag) > errors)
        return NULL;

    moe_cluster *cluster = moe_need(talloc_zero(owner, moe_cluster));
    cluster->spec = spec;
    cluster->hosts = (int)spec->hosts;
    cluster->devices_per_host = (int)spec->devices_per_host;
    cluster->devices = cluster->hosts * cluster->devices_per_host;
    cluster->leaves =
        spec->fabric.hosts_per_leaf > 0 ? (int)(spec->hosts / spec->fabric.hosts_per_leaf) : 1;
    bool own_nics = spec->nic.sharing == MOE_NIC_PER_DEVICE;
    if (cluster->hosts > 1)
        cluster->nics = own_nics ? cluster->devices : cluster->hosts;
    build_ports(cluster);
    return cluster;
}

/* ---- paths ----------------------------------------------------------------------------------- */

/* Leaves out kinds that the cluster does not have. */
static int step(const moe_cluster *cluster, moe_port_kind kind, int unit, int *ports, int count)
{
    if (cluster->first_port[kind] < 0)
        return count;
    ports[count] = cluster->first_port[kind] + unit;
    return count + 1;
}

static int path_within_host(const moe_cluster *cluster, int source, int target, int *ports)
{
    int count = step(cluster, MOE_PORT_INTRA_OUT, source, ports, 0);
    count = step(cluster, MOE_PORT_BRIDGE, moe_cluster_host(cluster, source), ports, count);
    return step(cluster, MOE_PORT_INTRA_IN, target, ports, count);
}

static int nic_of(const moe_cluster *cluster, int device)
{
    bool own = cluster->spec->nic.sharing == MOE_NIC_PER_DEVICE;
    return own ? device : moe_cluster_host(cluster, device);
}

static int leaf_of(const moe_cluster *cluster, int device)
{
    return moe_cluster_host(cluster, device) / (cluster->hosts / cluster->leaves);
}

static int path_between_hosts(const moe_cluster *cluster, int source, int target, int *ports)
{
    bool pcie = cluster->spec->intra.kind == MOE_INTRA_PCIE;
    int source_leaf = leaf_of(cluster, source);
    int target_leaf = leaf_of(cluster, target);
    int count = 0;
    if (pcie)
        count = step(cluster, MOE_PORT_INTRA_OUT, source, ports, count);
    count = step(cluster, MOE_PORT_NIC_OUT, nic_of(cluster, source), ports, count);
    if (source_leaf != target_leaf) {
        count = step(cluster, MOE_PORT_LEAF_UP, source_leaf, ports, count);
        count = step(cluster, MOE_PORT_LEAF_DOWN, target_leaf, ports, count);
    }
    count = step(cluster, MOE_PORT_NIC_IN, nic_of(cluster, target), ports, count);
    if (pcie)
        count = step(cluster, MOE_PORT_INTRA_IN, target, ports, count);
    return count;
}

static bool same_host(const moe_cluster *cluster, int a, int b)
{
    return moe_cluster_host(cluster, a) == moe_cluster_host(cluster, b);
}

int moe_cluster_path(const moe_cluster *cluster, int source, int target,
                     int ports[static MOE_PATH_PORTS])
{
    assert(source >= 0 && source < cluster->devices && target >= 0 && target < cluster->devices);
    if (source == target)
        return 0;
    return same_host(cluster, source, target) ? path_within_host(cluster, source, target, ports)
                                              : path_between_hosts(cluster, source, target, ports);
}

double moe_cluster_latency_s(const moe_cluster *cluster, int source, int target)
{
    const moe_cluster_spec *spec = cluster->spec;
    if (source == target)
        return 0;
    if (same_host(cluster, source, target))
        return spec->intra.latency_s;
    bool leaves = leaf_of(cluster, source) != leaf_of(cluster, target);
    return spec->nic.latency_s + (leaves ? spec->fabric.latency_s : 0);
}
