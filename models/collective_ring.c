/* Rings: the members of a group in order of domains, each sending to the next. */
#include "models/collective_walk.h"

#include <math.h>

/* The most that size - 1 consecutive hops take: the whole way round less the quickest hop. */
static double ring_latency_s(const moe_group_walk *walk)
{
    double sum = 0;
    double least = INFINITY;
    for (int i = 0; i < walk->size; i++) {
        double hop = moe_group_walk_latency_s(walk, i, (i + 1) % walk->size);
        sum += hop;
        least = fmin(least, hop);
    }
    return sum - least;
}

static size_t ring_add_channel(const moe_group_walk *walk, double edge_bytes,
                               moe_transfer *transfers)
{
    for (int i = 0; i < walk->size; i++) {
        int next = walk->order[(i + 1) % walk->size];
        transfers[i] = (moe_transfer){walk->order[i], next, edge_bytes};
    }
    return (size_t)walk->size;
}

static size_t count_transfers(moe_group_walk *walk, const int *groups, int group_count)
{
    size_t count = 0;
    for (int g = 0; g < group_count; g++) {
        moe_group_walk_take(walk, groups + (size_t)g * (size_t)walk->size);
        count += (size_t)walk->channels * (size_t)walk->size;
    }
    return count;
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
    moe_group_walk walk = moe_group_walk_create(arena, costs->cluster, group_size, false);
    size_t capacity = count_transfers(&walk, groups, group_count);
    moe_transfer *transfers = moe_arena_array(arena, moe_transfer, capacity);
    size_t count = 0;
    for (int g = 0; g < group_count; g++) {
        moe_group_walk_take(&walk, groups + (size_t)g * (size_t)group_size);
        for (int c = 0; c < walk.channels; c++) {
            moe_group_walk_order(&walk, c);
            latency_s = fmax(latency_s, passes * ring_latency_s(&walk));
            count += ring_add_channel(&walk, edge_bytes / walk.channels, transfers + count);
        }
    }
    moe_traffic_terms terms = {
        .kind = kind, .bytes_per_rank = bytes, .ranks = group_size, .latency_s = latency_s};
    moe_traffic_draft draft = moe_traffic_assemble(arena, costs, &terms, transfers, count);
    moe_group_share_touches(arena, &draft, groups, group_count, group_size);
    return draft.traffic;
}
