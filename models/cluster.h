/* A cluster: hosts of devices, what joins them, and the ports that traffic loads.
 *
 * What it models. Devices have dense ids; device d sits in host d / devices_per_host. Each direction
 * of each link end is a *port* with a rate in bytes/s:
 *
 *   INTRA_OUT, INTRA_IN   per device: its NVLink / NVSwitch (or PCIe) end
 *   BRIDGE                per host, PCIe only and optional: the bridge all intra-host traffic shares
 *   NIC_OUT, NIC_IN       per NIC: one shared by the host's devices, or one per device
 *   LEAF_UP, LEAF_DOWN    per leaf switch, where the fabric is oversubscribed: the sum of its hosts'
 *                         NIC rates divided by the oversubscription
 *
 * A transfer between two devices loads the ports of its path, in both directions of the wire
 * separately (every bandwidth is per direction):
 *
 *   same host      INTRA_OUT(src) [BRIDGE(host)] INTRA_IN(dst)
 *   other host     [PCIe: INTRA_OUT(src)] NIC_OUT(src) [other leaf: LEAF_UP LEAF_DOWN] NIC_IN(dst) [PCIe: INTRA_IN(dst)]
 *
 * Its latency is the sum of the latencies on the way: intra_latency within a host; nic_latency plus,
 * between leaves, fabric latency otherwise.
 *
 * What it ignores: topology inside an NVLink mesh (a device's links are one port), routing choices
 * and ECMP collisions in the fabric, NUMA. */
#ifndef MOE_MODELS_CLUSTER_H
#define MOE_MODELS_CLUSTER_H

#include "configs/config.h"

typedef enum moe_intra_kind { MOE_INTRA_NVLINK, MOE_INTRA_NVSWITCH, MOE_INTRA_PCIE } moe_intra_kind;
typedef enum moe_nic_sharing { MOE_NIC_PER_HOST, MOE_NIC_PER_DEVICE } moe_nic_sharing;

/* As written in YAML; `moe_cluster_table` describes every key. */
typedef struct moe_device_spec {
    const char *name;
    double peak_flop_per_s;    /* dense matrix rate at the training dtype (bf16 or fp16) */
    double memory_bytes;       /* of one device */
    double memory_bytes_per_s; /* HBM bandwidth */
    int64_t sms;               /* streaming multiprocessors */
} moe_device_spec;

typedef struct moe_intra_spec {
    int kind; /* moe_intra_kind */
    double bandwidth_bytes_per_s; /* of one device, per direction */
    double bridge_bytes_per_s;    /* PCIe: shared per host and direction; 0: none */
    double latency_s;
} moe_intra_spec;

typedef struct moe_nic_spec {
    int sharing; /* moe_nic_sharing: does `bandwidth` belong to a host or to a device */
    double bandwidth_bytes_per_s;
    double latency_s;
} moe_nic_spec;

typedef struct moe_fabric_spec {
    int64_t hosts_per_leaf;  /* 0: one leaf holds all */
    double oversubscription; /* 1: non-blocking */
    double latency_s;        /* added between leaves */
} moe_fabric_spec;

typedef struct moe_cluster_spec {
    const char *name;
    const char *source; /* where the numbers come from */
    int64_t hosts;
    int64_t devices_per_host;
    moe_device_spec device;
    moe_intra_spec intra;
    moe_nic_spec nic;
    moe_fabric_spec fabric;
} moe_cluster_spec;

extern const moe_table moe_cluster_table; /* of moe_cluster_spec; YAML keys: name, source, hosts,
    devices_per_host, device {name, peak, memory, memory_bandwidth, sms}, intra {kind, bandwidth,
    bridge, latency}, nic {sharing, bandwidth, latency}, fabric {hosts_per_leaf, oversubscription,
    latency} */

typedef enum moe_port_kind {
    MOE_PORT_INTRA_OUT,
    MOE_PORT_INTRA_IN,
    MOE_PORT_BRIDGE,
    MOE_PORT_NIC_OUT,
    MOE_PORT_NIC_IN,
    MOE_PORT_LEAF_UP,
    MOE_PORT_LEAF_DOWN,
} moe_port_kind;

typedef struct moe_port {
    moe_port_kind kind;
    int unit; /* device, host, NIC or leaf number, by kind */
    double rate_bytes_per_s;
} moe_port;

typedef struct moe_cluster {
    const moe_cluster_spec *spec;
    int devices;
    int hosts;
    int devices_per_host;
    int nics;   /* in all */
    int leaves;
    int port_count;
    moe_port *ports; /* [port_count] */
    int *first_port; /* by moe_port_kind: index of unit 0's port, or -1 where the kind is absent */
} moe_cluster;

enum { MOE_PATH_PORTS = 6 }; /* at most that many ports on a path */

/* Owned by `owner`; `spec` is borrowed and must outlive it. NULL after printed errors (more than
 * 65,536 devices, hosts not divisible by hosts_per_leaf, a missing rate). `config` may be NULL. */
moe_cluster *moe_cluster_create(void *owner, const moe_cluster_spec *spec, const moe_config *config,
                                moe_diag *diag);

static inline int moe_cluster_host(const moe_cluster *cluster, int device)
{
    return device / cluster->devices_per_host;
}

/* Fills `ports` (indices into cluster->ports) and returns their number; 0 when source == target. */
int moe_cluster_path(const moe_cluster *cluster, int source, int target,
                     int ports[static MOE_PATH_PORTS]);

double moe_cluster_latency_s(const moe_cluster *cluster, int source, int target);

#endif
