/* The hybrid cube mesh of eight V100 (DGX-1V, AWS p3.16xlarge and p3dn.24xlarge).
 *
 * What it models. Six NVLinks per device, to four neighbours: two of them by one link, two by two
 * links. Devices 0 to 3 and 4 to 7 are all joined; every device has one partner in the other four.
 * Devices that are no neighbours reach each other through one that is a neighbour of both.
 *
 * The links are three interwoven rings ("three interwoven rings of single NVLink connections":
 * NVIDIA, DGX-1 with Tesla V100 white paper), which collectives follow in both directions.
 *
 * Source: `nvidia-smi topo -m` of such machines, the same in every published one; which three rings
 * is our own decomposition (one of thirteen).
 *
 * What it ignores: PCIe as a second way between devices, which is slower than relaying. */
#ifndef MOE_MODELS_CLUSTER_MESH_H
#define MOE_MODELS_CLUSTER_MESH_H

enum {
    MOE_MESH_DEVICES = 8,
    MOE_MESH_LINKS_PER_DEVICE = 6,
    MOE_MESH_PORTS = 32, /* ordered pairs of neighbours */
    MOE_MESH_RINGS = 6,  /* three rings, two directions */
};

struct moe_mesh {
    int port[MOE_MESH_DEVICES][MOE_MESH_DEVICES]; /* 0 to MOE_MESH_PORTS - 1; -1: no neighbours */
    int via[MOE_MESH_DEVICES][MOE_MESH_DEVICES];  /* relays between those; -1 between neighbours */
    int links[MOE_MESH_PORTS];                    /* NVLinks side by side */
    int from[MOE_MESH_PORTS];
    int to[MOE_MESH_PORTS];
};

struct moe_mesh *moe_mesh_create(void *owner);

/* The device after `device` on a ring. */
int moe_mesh_next(int ring, int device);

#endif
