/* All-to-all and point-to-point moves: every pair with bytes is one transfer. */
#include "models/traffic.h"

#include <math.h>

/* Transfers as they are found, with what the size and alpha of a pairwise collective need. */
typedef struct pair_list {
    const moe_cluster *cluster;
    moe_transfer *items;
    size_t count;
    double latency_s; /* the largest of one transfer */
} pair_list;

static void add_pair(pair_list *list, int source, int target, double bytes)
{
    list->items[list->count++] = (moe_transfer){source, target, bytes};
}

static void note_latency(pair_list *list, int source, int target)
{
    list->latency_s = fmax(list->latency_s, moe_cluster_latency_s(list->cluster, source, target));
}

static size_t count_pairs(const double *bytes, int devices)
{
    size_t count = 0;
    for (int i = 0; i < devices; i++) {
        const double *row = bytes + (size_t)i * (size_t)devices;
        for (int j = 0; j < devices; j++) {
            count += j != i && row[j] > 0;
        }
    }
    return count;
}

/* Reads the matrix in the order it lies in memory, whichever side the rows are. */
static void add_row(pair_list *list, const double *row, int i, bool transposed)
{
    int devices = list->cluster->devices;
    int last_host = -1; /* where latency depends on the two hosts only, one look at each will do */
    for (int j = 0; j < devices; j++) {
        if (j == i || !(row[j] > 0)) {
            continue;
        }
        int source = transposed ? j : i;
        int target = transposed ? i : j;
        add_pair(list, source, target, row[j]);
        int host = moe_cluster_host(list->cluster, j);
        if (host != last_host || !list->cluster->latency_by_host) {
            note_latency(list, source, target);
            last_host = host;
        }
    }
}

/* The mean over those that take part of what each holds, its own share (the diagonal) included. */
static double mean_row_bytes(moe_arena *arena, const double *bytes, const pair_list *list)
{
    size_t devices = (size_t)list->cluster->devices;
    bool *takes_part = moe_arena_array(arena, bool, devices);
    double sum = 0;
    for (size_t t = 0; t < list->count; t++) {
        takes_part[list->items[t].source] = true;
        takes_part[list->items[t].target] = true;
        sum += list->items[t].bytes;
    }
    size_t ranks = 0;
    for (size_t d = 0; d < devices; d++) {
        if (takes_part[d]) {
            ranks++;
            sum += bytes[d * devices + d];
        }
    }
    return ranks > 0 ? sum / (double)ranks : 0;
}

static moe_traffic *exchange(moe_arena *arena, const moe_costs *costs, moe_collective_kind kind,
                             const double *bytes, bool transposed)
{
    int devices = costs->cluster->devices;
    size_t count = count_pairs(bytes, devices);
    if (count == 0) {
        return NULL;
    }
    pair_list list = {.cluster = costs->cluster,
                      .items = moe_arena_array(arena, moe_transfer, count)};
    for (int i = 0; i < devices; i++) {
        add_row(&list, bytes + (size_t)i * (size_t)devices, i, transposed);
    }
    moe_traffic_terms terms = {.kind = kind,
                               .bytes_per_rank = mean_row_bytes(arena, bytes, &list),
                               .latency_s = list.latency_s};
    return moe_traffic_assemble(arena, costs, &terms, list.items, list.count).traffic;
}

moe_traffic *moe_traffic_all_to_all(moe_arena *arena, const moe_costs *costs, const double *bytes,
                                    bool transposed)
{
    return exchange(arena, costs, MOE_ALL_TO_ALL, bytes, transposed);
}

moe_traffic *moe_traffic_low_latency(moe_arena *arena, const moe_costs *costs, const double *bytes,
                                     bool transposed)
{
    return exchange(arena, costs, moe_cost_low_latency_kind(costs), bytes, transposed);
}

static double mean_sent_bytes(moe_arena *arena, const pair_list *list)
{
    bool *sends = moe_arena_array(arena, bool, (size_t)list->cluster->devices);
    double sum = 0;
    int senders = 0;
    for (size_t t = 0; t < list->count; t++) {
        sum += list->items[t].bytes;
        senders += !sends[list->items[t].source];
        sends[list->items[t].source] = true;
    }
    return senders > 0 ? sum / senders : 0;
}

moe_traffic *moe_traffic_moves(moe_arena *arena, const moe_costs *costs, const moe_transfer *moves,
                               size_t count)
{
    if (count == 0) {
        return NULL;
    }
    pair_list list = {.cluster = costs->cluster,
                      .items = moe_arena_array(arena, moe_transfer, count)};
    for (size_t m = 0; m < count; m++) {
        if (moves[m].source != moves[m].target && moves[m].bytes > 0) {
            add_pair(&list, moves[m].source, moves[m].target, moves[m].bytes);
            note_latency(&list, moves[m].source, moves[m].target);
        }
    }
    moe_traffic_terms terms = {.kind = MOE_SEND_RECV,
                               .bytes_per_rank = mean_sent_bytes(arena, &list),
                               .latency_s = list.latency_s};
    return moe_traffic_assemble(arena, costs, &terms, list.items, list.count).traffic;
}
