/* All-reduce by trees and in the network.
 *
 * Both treat a group as runs (what lives in one domain), each with a head per channel. Within a run
 * a tree's bytes go up and down a chain that ends in the head; in-network reduction sends them to
 * the switch and back, or round a ring where the switch cannot add. Between runs the heads form two
 * binary trees, each with half of the bytes, or send to switches that add. */
#include "models/collective_walk.h"

#include <math.h>

typedef struct reduction {
    moe_group_walk walk;
    bool in_network;
    bool adds_within;  /* NVSwitch (NVLS) */
    bool adds_between; /* the fabric (SHARP) */
    double bytes;      /* of one channel */
    moe_transfer *transfers;
    size_t count;
    double *depth_s; /* [runs], scratch: latency from a tree's root */
    double latency_s;
} reduction;

static void add(reduction *reduce, int from, int to, double bytes)
{
    const int *order = reduce->walk.order;
    reduce->transfers[reduce->count++] = (moe_transfer){order[from], order[to], bytes};
}

/* ---- within a run ---------------------------------------------------------------------------- */

/* Up to the head and back down: one way only, so twice its latency. */
static double add_chain(reduction *reduce, const moe_group_run *run)
{
    double latency_s = 0;
    for (int i = run->first; i + 1 < run->first + run->count; i++) {
        add(reduce, i + 1, i, reduce->bytes);
        add(reduce, i, i + 1, reduce->bytes);
        latency_s += moe_group_walk_latency_s(&reduce->walk, i, i + 1);
    }
    return 2 * latency_s;
}

/* A switch that adds takes S (n+1)/n from every device and gives as much back: n-th parts are read
 * from all and returned reduced, then stored once and multicast. A ring whose edges carry that much
 * loads the same ports alike, which is how it is written down. */
static double add_circle(reduction *reduce, const moe_group_run *run)
{
    double n = run->count;
    double share = reduce->adds_within ? (n + 1) / n : 2 * (n - 1) / n;
    double hop_s = 0;
    for (int i = 0; i < run->count; i++) {
        int from = run->first + i;
        int to = run->first + (i + 1) % run->count;
        add(reduce, from, to, share * reduce->bytes);
        hop_s = fmax(hop_s, moe_group_walk_latency_s(&reduce->walk, from, to));
    }
    return reduce->adds_within ? 2 * hop_s : 2 * (n - 1) * hop_s;
}

/* The longest of all runs. */
static double add_runs(reduction *reduce)
{
    double latency_s = 0;
    for (int r = 0; r < reduce->walk.run_count; r++) {
        const moe_group_run *run = &reduce->walk.runs[r];
        if (run->count > 1)
            latency_s = fmax(latency_s,
                             reduce->in_network ? add_circle(reduce, run) : add_chain(reduce, run));
    }
    return latency_s;
}

/* ---- between runs ---------------------------------------------------------------------------- */

/* Position p > 0 of a binary tree in which odd positions are leaves: clear the lowest set bit and
 * set the next one, or only clear it where that position does not exist. Position 0 is the root. */
static int parent_position(int position, int count)
{
    int bit = position & -position;
    int up = (position ^ bit) | (bit << 1);
    return up < count ? up : position ^ bit;
}

/* The second tree turns the runs round (even numbers) or on by one (odd), so that leaves of one are
 * inner nodes of the other: Sanders, Speck and Traeff, Parallel Computing 35 (2009), which NCCL
 * follows since 2.4. */
static int run_at(int tree, int position, int count)
{
    if (tree == 0)
        return position;
    return count % 2 == 0 ? count - 1 - position : (position + 1) % count;
}

static double add_tree(reduction *reduce, int tree)
{
    const moe_group_walk *walk = &reduce->walk;
    double latency_s = 0;
    reduce->depth_s[0] = 0;
    /* Parents first: a parent's lowest set bit is higher, or the parent's position is lower. */
    for (int bit = 1 << 16; bit > 0; bit >>= 1) {
        for (int p = bit; p < walk->run_count; p += 2 * bit) {
            int up = parent_position(p, walk->run_count);
            int child = walk->runs[run_at(tree, p, walk->run_count)].first;
            int parent = walk->runs[run_at(tree, up, walk->run_count)].first;
            add(reduce, child, parent, reduce->bytes / 2);
            add(reduce, parent, child, reduce->bytes / 2);
            reduce->depth_s[p] =
                reduce->depth_s[up] + moe_group_walk_latency_s(walk, child, parent);
            latency_s = fmax(latency_s, reduce->depth_s[p]);
        }
    }
    return 2 * latency_s;
}

/* Every head sends its bytes once and receives them once; of a leaf's heads, one copy goes up and
 * one comes down. A ring in order of hosts loads NICs, leaves and pods alike. */
static double add_fabric_sum(reduction *reduce)
{
    const moe_group_walk *walk = &reduce->walk;
    double latency_s = 0;
    for (int r = 0; r < walk->run_count; r++) {
        int from = walk->runs[r].first;
        int to = walk->runs[(r + 1) % walk->run_count].first;
        add(reduce, from, to, reduce->bytes);
        latency_s = fmax(latency_s, moe_group_walk_latency_s(walk, from, to));
    }
    return 2 * latency_s;
}

static double add_heads(reduction *reduce)
{
    if (reduce->walk.run_count == 1)
        return 0;
    if (reduce->in_network && reduce->adds_between)
        return add_fabric_sum(reduce);
    return fmax(add_tree(reduce, 0), add_tree(reduce, 1));
}

/* ---- all-reduce ------------------------------------------------------------------------------ */

/* At most two transfers per member within its run, and four per run between them. */
static size_t capacity_of(reduction *reduce, const int *groups, int group_count)
{
    size_t capacity = 0;
    for (int g = 0; g < group_count; g++) {
        moe_group_walk_take(&reduce->walk, groups + (size_t)g * (size_t)reduce->walk.size);
        capacity += (size_t)reduce->walk.channels *
                    (2 * (size_t)reduce->walk.size + 4 * (size_t)reduce->walk.run_count);
    }
    return capacity;
}

static void add_group(reduction *reduce, const int *group, double bytes)
{
    moe_group_walk *walk = &reduce->walk;
    moe_group_walk_take(walk, group);
    reduce->bytes = bytes / walk->channels;
    for (int c = 0; c < walk->channels; c++) {
        moe_group_walk_order(walk, c);
        reduce->latency_s = fmax(reduce->latency_s, add_runs(reduce) + add_heads(reduce));
    }
}

static moe_traffic *reduce_by_heads(moe_arena *arena, const moe_costs *costs, bool in_network,
                                    const int *groups, int group_count, int group_size,
                                    double bytes)
{
    const moe_cluster *cluster = costs->cluster;
    reduction reduce = {
        .walk = moe_group_walk_create(arena, cluster, group_size, true),
        .in_network = in_network,
        .adds_within = cluster->spec->intra.reduction,
        .adds_between = cluster->spec->fabric.reduction,
        .depth_s = moe_arena_array(arena, double, (size_t)group_size),
    };
    reduce.transfers =
        moe_arena_array(arena, moe_transfer, capacity_of(&reduce, groups, group_count));
    for (int g = 0; g < group_count; g++)
        add_group(&reduce, groups + (size_t)g * (size_t)group_size, bytes);
    moe_traffic_terms terms = {.kind = MOE_ALL_REDUCE,
                               .bytes_per_rank = bytes,
                               .ranks = group_size,
                               .latency_s = reduce.latency_s};
    moe_traffic_draft draft =
        moe_traffic_assemble(arena, costs, &terms, reduce.transfers, reduce.count);
    moe_group_share_touches(arena, &draft, groups, group_count, group_size);
    return draft.traffic;
}

moe_traffic *moe_traffic_all_reduce(moe_arena *arena, const moe_costs *costs,
                                    moe_reduce_algorithm algorithm, const int *groups,
                                    int group_count, int group_size, double bytes)
{
    if (group_size < 2 || group_count < 1 || !(bytes > 0))
        return NULL;
    if (algorithm == MOE_REDUCE_RING)
        return moe_traffic_ring(arena, costs, MOE_ALL_REDUCE, groups, group_count, group_size,
                                bytes);
    return reduce_by_heads(arena, costs, algorithm == MOE_REDUCE_IN_NETWORK, groups, group_count,
                           group_size, bytes);
}

moe_traffic *moe_traffic_group(moe_arena *arena, const moe_costs *costs, moe_collective_kind kind,
                               const int *groups, int group_count, int group_size, double bytes)
{
    int algorithm = costs->profile->collectives[MOE_ALL_REDUCE].algorithm;
    if (kind != MOE_ALL_REDUCE)
        return moe_traffic_ring(arena, costs, kind, groups, group_count, group_size, bytes);
    return moe_traffic_all_reduce(arena, costs, (moe_reduce_algorithm)algorithm, groups,
                                  group_count, group_size, bytes);
}
