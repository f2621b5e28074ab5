/* The YAML of a cluster. */
#include "models/cluster_private.h"

const char *const moe_intra_kind_names[] = {"nvlink", "nvswitch", "pcie", "hybrid_cube_mesh", NULL};
const char *const moe_fabric_kind_names[] = {"leaf_spine", "rail_optimised", "rail_only", NULL};
const char *const moe_path_rule_names[] = {"direct", "pxn", "rail_then_nvlink", NULL};
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
     .choices = moe_intra_kind_names,
     .sentence =
         "What joins the devices of one host; over pcie, traffic to other hosts crosses the "
         "device's PCIe link too; hybrid_cube_mesh is that of eight V100 (DGX-1V, p3dn), where "
         "devices that are no neighbours relay over one that is a neighbour of both."},
    {.key = "bandwidth",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BANDWIDTH,
     .offset = offsetof(moe_intra_spec, bandwidth_bytes_per_s),
     .low = 0,
     .high = 1e18,
     .sentence =
         "Rate of one device's link end in bytes/s per direction (half of what vendors print "
         "as bidirectional), all links of a hybrid_cube_mesh device together, needed where a host "
         "has several devices; higher is better."},
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
    {.key = "domain_hosts",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "1",
     .offset = offsetof(moe_intra_spec, domain_hosts),
     .low = 1,
     .high = MOE_MAX_DEVICES,
     .sentence = "Hosts that one NVLink domain spans, as the 18 trays of a GB200 NVL72 rack; must "
                 "divide the hosts."},
    {.key = "switch_devices",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "0",
     .offset = offsetof(moe_intra_spec, switch_devices),
     .low = 0,
     .high = MOE_MAX_DEVICES,
     .sentence = "PCIe only: devices below one PCIe switch, whose transfers among themselves "
                 "do not reach the bridge; 0: every device is at the bridge itself."},
    {.key = "uplink",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BANDWIDTH,
     .default_text = "0",
     .offset = offsetof(moe_intra_spec, uplink_bytes_per_s),
     .low = 0,
     .high = 1e18,
     .sentence = "PCIe switches only: rate in bytes/s per direction between a switch and the "
                 "bridge; 0: as one device's link, which is usual; higher is better."},
    {.key = "reduction",
     .type = MOE_FIELD_BOOL,
     .default_text = "false",
     .offset = offsetof(moe_intra_spec, reduction),
     .sentence = "NVSwitch only: whether the switch adds up and multicasts (NVLink SHARP, from "
                 "Hopper on), for an all-reduce whose algorithm is in_network."},
    {0},
};

static const moe_table intra_table = {
    .noun = "intra-host link",
    .sentence = "What joins the devices of one host, and hosts within an NVLink domain.",
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
    {.key = "per_host_count",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "1",
     .offset = offsetof(moe_nic_spec, per_host_count),
     .low = 1,
     .high = MOE_MAX_DEVICES,
     .sentence = "Sharing per_host only: NICs of a host, which divide `bandwidth` and the devices "
                 "evenly; place p in a host uses NIC p * count / devices, and no other."},
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
     .high = MOE_MAX_DEVICES,
     .sentence = "Hosts below one leaf switch, or with rails below one set of rail leaves; 0: all "
                 "hosts."},
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
         "Time added to a hop that leaves its leaf, and again where it leaves its pod, in "
         "seconds; lower is better (InfiniBand 0.9 us, RoCE 2.0 us: DeepSeek, arXiv 2505.09343, "
         "Table 5)."},
    {.key = "kind",
     .type = MOE_FIELD_CHOICE,
     .default_text = "leaf_spine",
     .offset = offsetof(moe_fabric_spec, kind),
     .choices = moe_fabric_kind_names,
     .sentence = "leaf_spine: all NICs of a host below one leaf; rail_optimised: NIC k of every "
                 "host below rail leaf k, spines join all leaves; rail_only: no way between rails "
                 "but NVLink."},
    {.key = "path",
     .type = MOE_FIELD_CHOICE,
     .default_text = "direct",
     .offset = offsetof(moe_fabric_spec, path),
     .choices = moe_path_rule_names,
     .sentence =
         "How traffic changes rails: direct over the spine; pxn over NVLink in the source's "
         "host, to the device whose NIC is on the target's rail; rail_then_nvlink over "
         "NVLink in the target's host."},
    {.key = "hosts_per_pod",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "0",
     .offset = offsetof(moe_fabric_spec, hosts_per_pod),
     .low = 0,
     .high = MOE_MAX_DEVICES,
     .sentence = "Hosts whose leaves share spines, a third level of switches joining such pods; 0: "
                 "one pod holds all."},
    {.key = "spine_oversubscription",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_NUMBER,
     .default_text = "1",
     .offset = offsetof(moe_fabric_spec, spine_oversubscription),
     .low = 1,
     .high = 1000,
     .sentence = "Rates of a pod's leaf uplinks over the pod's rate to the others, per direction; "
                 "1 is non-blocking, lower is better."},
    {.key = "reduction",
     .type = MOE_FIELD_BOOL,
     .default_text = "false",
     .offset = offsetof(moe_fabric_spec, reduction),
     .sentence = "Whether switches add up and multicast (SHARP), for an all-reduce whose algorithm "
                 "is in_network."},
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
     .high = MOE_MAX_DEVICES,
     .sentence = "Number of hosts; at most 65,536 devices in all."},
    {.key = "devices_per_host",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(moe_cluster_spec, devices_per_host),
     .low = 1,
     .high = MOE_MAX_DEVICES,
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
