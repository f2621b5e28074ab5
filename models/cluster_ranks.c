#include "models/cluster_ranks.h"

#include "configs/base/memory.h"
#include <assert.h>
#include <stdlib.h>
#include <talloc.h>

const char *const moe_rank_order_names[] = {"ep_first", "ep_last", "hosts_round_robin", NULL};

void moe_cluster_seat(moe_cluster *cluster, const int *devices)
{
    moe_place *by_device = moe_need(talloc_array(NULL, moe_place, cluster->devices));
    for (int rank = 0; rank < cluster->devices; rank++)
        by_device[cluster->places[rank].device] = cluster->places[rank];
    for (int rank = 0; rank < cluster->devices; rank++) {
        assert(devices[rank] >= 0 && devices[rank] < cluster->devices);
        cluster->places[rank] = by_device[devices[rank]];
        cluster->rank_on[devices[rank]] = rank;
    }
    talloc_free(by_device);
}

static int device_in_order(const moe_cluster *cluster, moe_rank_order order, int ep, int rank)
{
    switch (order) {
    case MOE_RANKS_EP_FIRST:
        break;
    case MOE_RANKS_EP_LAST:
        return rank % ep * (cluster->devices / ep) + rank / ep;
    case MOE_RANKS_HOSTS_ROUND_ROBIN:
        return rank % cluster->hosts * cluster->devices_per_host + rank / cluster->hosts;
    }
    return rank;
}

void moe_cluster_seat_in_order(moe_cluster *cluster, moe_rank_order order, int ep)
{
    int *devices = moe_need(talloc_array(NULL, int, cluster->devices));
    for (int rank = 0; rank < cluster->devices; rank++)
        devices[rank] = device_in_order(cluster, order, ep, rank);
    moe_cluster_seat(cluster, devices);
    talloc_free(devices);
}

static int compare_devices(const void *left, const void *right)
{
    const int *a = left;
    const int *b = right;
    return (*a > *b) - (*a < *b);
}

void moe_cluster_sort(const moe_cluster *cluster, int *ranks, int count)
{
    for (int i = 0; i < count; i++)
        ranks[i] = cluster->places[ranks[i]].device;
    qsort(ranks, (size_t)count, sizeof *ranks, compare_devices);
    for (int i = 0; i < count; i++)
        ranks[i] = cluster->rank_on[ranks[i]];
}

void moe_cluster_by_host(const moe_cluster *cluster, int first, int count, int *ranks)
{
    for (int i = 0; i < count; i++)
        ranks[i] = first + i;
    moe_cluster_sort(cluster, ranks, count);
}

int moe_cluster_host_end(const moe_cluster *cluster, const int *ranks, int count, int from)
{
    int end = from + 1;
    while (end < count &&
           moe_cluster_host(cluster, ranks[end]) == moe_cluster_host(cluster, ranks[from]))
        end++;
    return end;
}
