/* A cluster: devices in hosts, hosts in NVLink domains, and the network between domains.
 *
 * What it models. Levels: device < host < NVLink domain < leaf (or rail) < spine < core. Devices have
 * dense ids; device d sits in host d / devices_per_host, at place d % devices_per_host of it. Each
 * direction of each link end is a *port* with a rate in bytes/s:
 *
 *   INTRA_OUT, INTRA_IN     per device: its NVLink / NVSwitch (or PCIe) end
 *   BRIDGE                  per host, PCIe only and optional: what joins its PCIe switches
 *   NIC_OUT, NIC_IN         per NIC: one or several shared by the host's devices, or one per device
 *   LEAF_UP, LEAF_DOWN      per leaf switch, where the fabric is oversubscribed: the sum of the NIC
 *                           rates below it divided by the oversubscription
 *   LINK                    per ordered pair of neighbours of a hybrid cube mesh (no INTRA ports then)
 *   SWITCH_UP, SWITCH_DOWN  per PCIe switch: between the switch and the bridge
 *   SPINE_UP, SPINE_DOWN    per pod, where spines are oversubscribed: leaf uplinks of the pod divided
 *                           by spine_oversubscription (rail_only: per pod and rail)
 *
 * A transfer between two devices loads the ports of its path, each once, in both directions of the
 * wire separately (every bandwidth is per direction). NEAR and NET are the two kinds of path:
 *
 *   NEAR, same domain   nvlink, nvswitch     INTRA_OUT(src) INTRA_IN(dst)
 *                       pcie, other switch   INTRA_OUT(src) [SWITCH_UP] [BRIDGE] [SWITCH_DOWN] INTRA_IN(dst)
 *                       pcie, same switch    INTRA_OUT(src) INTRA_IN(dst)
 *                       hybrid cube mesh     LINK, or LINK LINK through the neighbour of both that has
 *                                            the most links (lowest number): what NCCL >= 2.12 does (NVB)
 *   NET, other domain   [pcie: INTRA_OUT(src) [SWITCH_UP]] NIC_OUT(src)
 *                       [other leaf: LEAF_UP [other pod: SPINE_UP SPINE_DOWN] LEAF_DOWN]
 *                       NIC_IN(dst) [pcie: [SWITCH_DOWN] INTRA_IN(dst)]
 *
 * NIC k of a host serves devices_per_host / NICs neighbouring devices. leaf_spine puts all NICs of a
 * host below one leaf. rail_optimised and rail_only put NIC k of hosts_per_leaf hosts below rail leaf
 * k; rail_only joins leaves of one rail only. Between rails the path rule decides:
 *
 *   direct            NET(src, dst): over the spine
 *   pxn               NEAR(src, r) NET(r, dst): r, in the source's host, stands where dst does in its own
 *   rail_then_nvlink  NET(src, r) NEAR(r, dst): r, in the target's host, stands where src does in its own
 *
 * so bytes in transit through r load its links too. A PCIe NIC that serves the devices of one switch
 * hangs below it; another hangs at the root, and its traffic crosses the switch's uplink.
 *
 * Latency is the sum of the latencies on the way: NEAR costs intra.latency (a relayed pair of a hybrid
 * cube mesh twice that); NET costs nic.latency, plus fabric.latency if it leaves its leaf, plus it
 * again if it leaves its pod.
 *
 * Sources: rails, PXN: NVIDIA, "Doubling all2all performance with NCCL 2.12" (2022); rail-only: Wang
 * et al., arXiv 2307.12169; cube mesh: `nvidia-smi topo -m` of DGX-1V and p3.16xlarge.
 *
 * What it ignores: planes inside NVSwitch, routing choices and ECMP collisions in the fabric, NUMA. */
#ifndef MOE_MODELS_CLUSTER_H
#define MOE_MODELS_CLUSTER_H

#include "configs/config.h"
#include <stdbool.h>

typedef enum moe_intra_kind {
    MOE_INTRA_NVLINK,
    MOE_INTRA_NVSWITCH,
    MOE_INTRA_PCIE,
    MOE_INTRA_CUBE_MESH,
} moe_intra_kind;
typedef enum moe_nic_sharing { MOE_NIC_PER_HOST, MOE_NIC_PER_DEVICE } moe_nic_sharing;
typedef enum moe_fabric_kind {
    MOE_FABRIC_LEAF_SPINE,
    MOE_FABRIC_RAIL_OPTIMISED,
    MOE_FABRIC_RAIL_ONLY,
} moe_fabric_kind;
typedef enum moe_path_rule {
    MOE_PATH_DIRECT,
    MOE_PATH_PXN,
    MOE_PATH_RAIL_THEN_NVLINK,
} moe_path_rule;

/* As written in YAML; NULL-terminated. */
extern const char *const moe_intra_kind_names[];
extern const char *const moe_fabric_kind_names[];
extern const char *const moe_path_rule_names[];

/* As written in YAML; `moe_cluster_table` describes every key. */
typedef struct moe_device_spec {
    const char *name;
    double peak_flop_per_s;    /* dense matrix rate at the training dtype (bf16 or fp16) */
    double memory_bytes;       /* of one device */
    double memory_bytes_per_s; /* HBM bandwidth */
    int64_t sms;               /* streaming multiprocessors */
} moe_device_spec;

typedef struct moe_intra_spec {
    int kind;                     /* moe_intra_kind */
    double bandwidth_bytes_per_s; /* of one device, per direction */
    double bridge_bytes_per_s;    /* PCIe: shared per host and direction; 0: none */
    double latency_s;
    int64_t domain_hosts;      /* hosts that one NVLink domain spans; 0 is 1 */
    int64_t switch_devices;    /* PCIe: devices below one switch; 0: no switches */
    double uplink_bytes_per_s; /* PCIe: of a switch, per direction; 0: as one device's link */
    bool reduction;            /* NVSwitch adds up (NVLS) */
} moe_intra_spec;

typedef struct moe_nic_spec {
    int sharing; /* moe_nic_sharing: does `bandwidth` belong to a host or to a device */
    double bandwidth_bytes_per_s; /* of a host: all its NICs together */
    double latency_s;
    int64_t per_host_count; /* NICs that a host's devices share; 0 is 1 */
} moe_nic_spec;

typedef struct moe_fabric_spec {
    int64_t hosts_per_leaf;        /* 0: one leaf holds all */
    double oversubscription;       /* 1: non-blocking */
    double latency_s;              /* added between leaves, and again between pods */
    int kind;                      /* moe_fabric_kind */
    int path;                      /* moe_path_rule */
    int64_t hosts_per_pod;         /* whose leaves share spines; 0: one pod holds all */
    double spine_oversubscription; /* 1: non-blocking; 0 is 1 */
    bool reduction;                /* switches add up (SHARP) */
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

extern const moe_table moe_cluster_table; /* of moe_cluster_spec */

typedef enum moe_port_kind {
    MOE_PORT_INTRA_OUT,
    MOE_PORT_INTRA_IN,
    MOE_PORT_BRIDGE,
    MOE_PORT_NIC_OUT,
    MOE_PORT_NIC_IN,
    MOE_PORT_LEAF_UP,
    MOE_PORT_LEAF_DOWN,
    MOE_PORT_LINK,
    MOE_PORT_SWITCH_UP,
    MOE_PORT_SWITCH_DOWN,
    MOE_PORT_SPINE_UP,
    MOE_PORT_SPINE_DOWN,
    MOE_PORT_KINDS
} moe_port_kind;
extern const char *const moe_port_kind_names[]; /* "intra_out", ...; NULL-terminated */

typedef struct moe_port {
    moe_port_kind kind;
    int unit; /* device, host, NIC or leaf number, by kind */
    double rate_bytes_per_s;
} moe_port;

/* What the device of a rank hangs from; numbers count over the whole cluster. */
typedef struct moe_place {
    int device;
    int host;
    int domain;
    int local;       /* place within its host */
    int pcie_switch; /* its own number where there are none: nothing is shared */
    int nic;
    int rail;  /* 0 in a leaf_spine fabric */
    int leaf;  /* of its NIC */
    int spine; /* the pod of its NIC, by rail where rails are apart */
} moe_place;

typedef struct moe_mesh moe_mesh; /* models/cluster_mesh.h */

typedef struct moe_cluster {
    const moe_cluster_spec *spec;
    int devices;
    int hosts;
    int devices_per_host;
    int domain_hosts;
    int domains;
    int nics_per_host; /* 0 where one domain holds all: nothing leaves it */
    int nics;          /* in all */
    int rails;         /* 1 in a leaf_spine fabric */
    int leaves;
    int spines; /* units of SPINE_UP */
    int port_count;
    moe_port *ports; /* [port_count] */
    int *first_port; /* by moe_port_kind: index of unit 0's port, or -1 where the kind is absent */
    moe_place *places;    /* [devices] of each rank: models/cluster_ranks.h says where it sits */
    int *rank_on;         /* [devices] */
    const moe_mesh *mesh; /* of every host; NULL where it is no hybrid cube mesh */
    bool nic_at_root;     /* PCIe: the way to a NIC crosses the switch's uplink */
    bool
        latency_by_host; /* latency depends on the hosts of a pair only (and on their being one device) */
} moe_cluster;

enum { MOE_PATH_PORTS = 10 }; /* at most that many ports on a path */

/* Owned by `owner`; `spec` is borrowed and must outlive it. NULL after printed errors (more than
 * 65,536 devices, counts that do not divide, a missing rate, a path rule the fabric has no way for).
 * `config` may be NULL. */
moe_cluster *moe_cluster_create(void *owner, const moe_cluster_spec *spec, const moe_config *config,
                                moe_diag *diag);

/* From here on, numbers are ranks. Rank r sits on device r until somebody seats it elsewhere
 * (models/cluster_ranks.h). */

static inline int moe_cluster_host(const moe_cluster *cluster, int rank)
{
    return cluster->places[rank].host;
}

/* Ranks of one NVLink domain reach each other without the network. */
static inline int moe_cluster_domain(const moe_cluster *cluster, int rank)
{
    return cluster->places[rank].domain;
}

/* Who sits at a place of a host. */
static inline int moe_cluster_rank_at(const moe_cluster *cluster, int host, int local)
{
    return cluster->rank_on[host * cluster->devices_per_host + local];
}

/* Fills `ports` (indices into cluster->ports) and returns their number; 0 when source == target. No
 * port appears twice. */
int moe_cluster_path(const moe_cluster *cluster, int source, int target,
                     int ports[static MOE_PATH_PORTS]);

double moe_cluster_latency_s(const moe_cluster *cluster, int source, int target);

/* The rank on whose device a transfer between rails goes through, or -1. */
int moe_cluster_relay(const moe_cluster *cluster, int source, int target);

#endif
