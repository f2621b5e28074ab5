/* Rings: the members of a group in order of hosts, each sending to the next. */
#include "models/traffic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One run of a group's members that live in one host. */
typedef struct host_run {
    int first; /* in the sorted members */
    int count;
} host_run;

/* Scratch of one group at a time. */
typedef struct ring_walk {
    const moe_cluster *cluster;
    int size;
    int *members; /* [size], ascending: devices of one host are neighbours */
    host_run *runs;
    int run_count;
    int *order; /* [size] of one channel */
} ring_walk;

static int compare_int(const void *a, const void *b)
{
    int left = *(const int *)a;
    int right = *(const int *)b;
    return (left > right) - (left < right);
}

static ring_walk ring_create(moe_arena *arena, const moe_cluster *cluster, int size)
{
    return (ring_walk){.cluster = cluster,
                       .size = size,
                       .members = moe_arena_array(arena, int, (size_t)size),
                       .runs = moe_arena_array(arena, host_run, (size_t)size),
                       .order = moe_arena_array(arena, int, (size_t)size)};
}

static void ring_take_group(ring_walk *ring, const int *group)
{
    memcpy(ring->members, group, (size_t)ring->size * sizeof *group);
    qsort(ring->members, (size_t)ring->size, sizeof *ring->members, compare_int);
    ring->run_count = 0;
    int last_host = -1;
    for (int i = 0; i < ring->size; i++) {
        int host = moe_cluster_host(ring->cluster, ring->members[i]);
        if (host != last_host) {
            ring->runs[ring->run_count++] = (host_run){.first = i};
            last_host = host;
        }
        ring->runs[ring->run_count - 1].count++;
    }
}

/* One channel per NIC that the group can use in its fullest host; inside a host one does all. */
static int ring_channels(const ring_walk *ring)
{
    if (ring->run_count == 1 || ring->cluster->spec->nic.sharing == MOE_NIC_PER_HOST) {
        return 1;
    }
    int channels = 1;
    for (int r = 0; r < ring->run_count; r++) {
        channels = ring->runs[r].count > channels ? ring->runs[r].count : channels;
    }
    return channels;
}

/* Each channel starts one device further on in every host, so it also leaves by another NIC. */
static void ring_order_channel(ring_walk *ring, int channel)
{
    int n = 0;
    for (int r = 0; r < ring->run_count; r++) {
        host_run run = ring->runs[r];
        for (int i = 0; i < run.count; i++) {
            ring->order[n++] = ring->members[run.first + (channel + i) % run.count];
        }
    }
}

/* The most that size - 1 consecutive hops take: the whole way round less the quickest hop. */
static double ring_latency_s(const ring_walk *ring)
{
    double sum = 0;
    double least = INFINITY;
    for (int i = 0; i < ring->size; i++) {
        int next = ring->order[(i + 1) % ring->size];
        double hop = moe_cluster_latency_s(ring->cluster, ring->order[i], next);
        sum += hop;
        least = fmin(least, hop);
    }
    return sum - least;
}

static size_t ring_add_channel(const ring_walk *ring, double edge_bytes, moe_transfer *transfers)
{
    for (int i = 0; i < ring->size; i++) {
        int next = ring->order[(i + 1) % ring->size];
        transfers[i] = (moe_transfer){ring->order[i], next, edge_bytes};
    }
    return (size_t)ring->size;
}

static size_t count_transfers(ring_walk *ring, const int *groups, int group_count)
{
    size_t count = 0;
    for (int g = 0; g < group_count; g++) {
        ring_take_group(ring, groups + (size_t)g * (size_t)ring->size);
        count += (size_t)ring_channels(ring) * (size_t)ring->size;
    }
    return count;
}

/* Every byte passes every rank of the ring, so nobody has all before the slowest edge is done. */
static void share_touches(moe_arena *arena, const moe_traffic_draft *draft, const int *groups,
                          int group_count, int group_size)
{
    int words = draft->traffic->words;
    size_t row_bytes = (size_t)words * sizeof(uint64_t);
    uint64_t *all = moe_arena_array(arena, uint64_t, (size_t)words);
    for (int g = 0; g < group_count; g++) {
        const int *group = groups + (size_t)g * (size_t)group_size;
        memset(all, 0, row_bytes);
        for (int i = 0; i < group_size; i++) {
            moe_traffic_merge(all, moe_traffic_row(draft, group[i]), words);
        }
        for (int i = 0; i < group_size; i++) {
            memcpy(moe_traffic_row(draft, group[i]), all, row_bytes);
        }
    }
}

moe_traffic *moe_traffic_ring(moe_arena *arena, const moe_costs *costs, moe_collective_kind kind,
                              const int *groups, int group_count, int group_size, double bytes)
{
    if (group_size < 2 || group_count < 1 || !(bytes > 0)) {
        return NULL;
    }
    double passes = kind == MOE_ALL_REDUCE ? 2 : 1;
    double edge_bytes = passes * (group_size - 1) / group_size * bytes;
    double latency_s = 0;
    ring_walk ring = ring_create(arena, costs->cluster, group_size);
    size_t capacity = count_transfers(&ring, groups, group_count);
    moe_transfer *transfers = moe_arena_array(arena, moe_transfer, capacity);
    size_t count = 0;
    for (int g = 0; g < group_count; g++) {
        ring_take_group(&ring, groups + (size_t)g * (size_t)group_size);
        int channels = ring_channels(&ring);
        for (int c = 0; c < channels; c++) {
            ring_order_channel(&ring, c);
            latency_s = fmax(latency_s, passes * ring_latency_s(&ring));
            count += ring_add_channel(&ring, edge_bytes / channels, transfers + count);
        }
    }
    moe_traffic_terms terms = {
        .kind = kind, .bytes_per_rank = bytes, .ranks = group_size, .latency_s = latency_s};
    moe_traffic_draft draft = moe_traffic_assemble(arena, costs, &terms, transfers, count);
    share_touches(arena, &draft, groups, group_count, group_size);
    return draft.traffic;
}
