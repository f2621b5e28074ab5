/* The members of a group in the order that its collectives pass them. Private to models/.
 *
 * A *run* is what of the group lives in one NVLink domain; runs follow each other in order of device
 * ids. A collective splits its bytes over *channels*, each with an order of its own in every run:
 *
 *   by NIC      (rings) one channel per NIC that the fullest run can use; channel c enters a run at
 *               the first member of its c-th NIC and leaves it at the member before that one
 *   by device   (trees, in-network reduction) one channel per member of the fullest run, each with
 *               another member at its head
 *
 * With rails, every other run is passed backwards, so that a ring leaves a run on the rail on which
 * it enters the next (NCCL_CROSS_NIC=2 does the same); an odd number of runs changes rails once. On
 * whole hybrid cube meshes there are six times as many channels, along its six rings. */
#ifndef MOE_MODELS_COLLECTIVE_WALK_H
#define MOE_MODELS_COLLECTIVE_WALK_H

#include "models/traffic.h"

typedef struct moe_group_run {
    int first; /* in `members` and in `order` */
    int count;
    int nics; /* that its members use; 1 where there are none */
} moe_group_run;

/* Scratch of one group at a time. */
typedef struct moe_group_walk {
    const moe_cluster *cluster;
    bool by_device;
    int size;
    int *members; /* [size] by device: those of one domain are neighbours */
    moe_group_run *runs;
    int run_count;
    int channels;
    int *order; /* [size] of one channel */
} moe_group_walk;

moe_group_walk moe_group_walk_create(moe_arena *arena, const moe_cluster *cluster, int size,
                                     bool by_device);

/* Sets members, runs and channels. */
void moe_group_walk_take(moe_group_walk *walk, const int *group);

/* Sets `order` to that of a channel. */
void moe_group_walk_order(moe_group_walk *walk, int channel);

/* Of the hop between two places of `order`. */
static inline double moe_group_walk_latency_s(const moe_group_walk *walk, int from, int to)
{
    return moe_cluster_latency_s(walk->cluster, walk->order[from], walk->order[to]);
}

/* Every byte passes every rank, so nobody has all before the slowest port of its group is done. */
void moe_group_share_touches(moe_arena *arena, const moe_traffic_draft *draft, const int *groups,
                             int group_count, int group_size);

#endif
