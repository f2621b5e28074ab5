/* Which device each rank sits on. Everything above the cluster numbers by *rank*: EP group g is ranks
 * [g * ep, (g + 1) * ep), whatever hosts they share. Ports stay those of devices.
 *
 *   ep_first            rank r on device r: an EP group fills hosts one after another
 *   ep_last             the ranks at one position of every EP group (an expert-DP group) on
 *                       neighbouring devices, so EP groups stride over hosts
 *   hosts_round_robin   consecutive ranks on different hosts */
#ifndef MOE_MODELS_CLUSTER_RANKS_H
#define MOE_MODELS_CLUSTER_RANKS_H

#include "models/cluster.h"

typedef enum moe_rank_order {
    MOE_RANKS_EP_FIRST,
    MOE_RANKS_EP_LAST,
    MOE_RANKS_HOSTS_ROUND_ROBIN,
} moe_rank_order;

extern const char *const moe_rank_order_names[]; /* as written in YAML; NULL-terminated */

/* Seats rank r on device devices[r], a permutation of all devices. */
void moe_cluster_seat(moe_cluster *cluster, const int *devices);

/* Seats all ranks in an order; `ep` divides the devices. */
void moe_cluster_seat_in_order(moe_cluster *cluster, moe_rank_order order, int ep);

/* Sorts by device: ranks of one host (and of one NVLink domain) become neighbours. */
void moe_cluster_sort(const moe_cluster *cluster, int *ranks, int count);

/* Fills ranks[count] with [first, first + count), host by host, in order of places within each. */
void moe_cluster_by_host(const moe_cluster *cluster, int first, int count, int *ranks);

/* The end of the neighbours of ranks[from] that share its host. */
int moe_cluster_host_end(const moe_cluster *cluster, const int *ranks, int count, int from);

#endif
