/* The exchange of tokens in which a token crosses to a host once: collective.h, "forwarded". */
#include "models/traffic.h"

#include <math.h>

typedef struct forwarding {
    const moe_cluster *cluster;
    const double *bytes;      /* [devices][devices] */
    const double *host_bytes; /* [devices][hosts] */
    int group_size;
    bool transposed;
    double *sums; /* [devices][devices] on the way to holders */
} forwarding;

/* The first rank of a group from a place of a host on; -1: there is none. */
static int next_beside(const forwarding *f, int group, int host, int *local)
{
    for (; *local < f->cluster->devices_per_host; (*local)++) {
        int rank = moe_cluster_rank_at(f->cluster, host, *local);
        if (rank / f->group_size == group)
            return rank;
    }
    return -1;
}

static int count_beside(const forwarding *f, int group, int host)
{
    int count = 0;
    for (int local = 0; next_beside(f, group, host, &local) >= 0; local++)
        count++;
    return count;
}

/* Where tokens of `source` enter the host of `device`: at the device with the source's place on its
 * host, or, where the source's group holds but a part of the host, by turns within that part. */
static int entry_of(const forwarding *f, int source, int device)
{
    int group = device / f->group_size;
    int host = moe_cluster_host(f->cluster, device);
    int turn = f->cluster->places[source].local % count_beside(f, group, host);
    int local = 0;
    int rank = next_beside(f, group, host, &local);
    for (; turn > 0; turn--) {
        local++;
        rank = next_beside(f, group, host, &local);
    }
    return rank;
}

static bool is_beside(const forwarding *f, int source, int device)
{
    return moe_cluster_host(f->cluster, source) == moe_cluster_host(f->cluster, device);
}

static double *sum_between(const forwarding *f, int from, int to)
{
    return f->sums + (size_t)from * (size_t)f->cluster->devices + (size_t)to;
}

/* Across from `source`, once for each host; the group of `source` may share a host with others. */
static void add_crossings(const forwarding *f, int source)
{
    for (int host = 0; host < f->cluster->hosts; host++) {
        int local = 0;
        int device = next_beside(f, source / f->group_size, host, &local);
        if (device < 0 || is_beside(f, source, device)) {
            continue;
        }
        *sum_between(f, source, entry_of(f, source, device)) +=
            f->host_bytes[(size_t)source * (size_t)f->cluster->hosts + (size_t)host];
    }
}

/* The last hop to each device: from the source itself on its own host, else from the entry. */
static void add_last_hops(const forwarding *f, int source)
{
    const double *row = f->bytes + (size_t)source * (size_t)f->cluster->devices;
    for (int d = 0; d < f->cluster->devices; d++) {
        int from = is_beside(f, source, d) ? source : entry_of(f, source, d);
        if (row[d] > 0 && from != d) {
            *sum_between(f, from, d) += row[d];
        }
    }
}

static void list_transfers(const forwarding *f, moe_transfer *transfers, double *latency_s)
{
    int devices = f->cluster->devices;
    double inside_s = 0;
    double across_s = 0;
    size_t count = 0;
    for (int i = 0; i < devices; i++) {
        for (int j = 0; j < devices; j++) {
            double bytes = *sum_between(f, i, j);
            if (i == j || !(bytes > 0)) {
                continue;
            }
            transfers[count++] =
                (moe_transfer){f->transposed ? j : i, f->transposed ? i : j, bytes};
            double *most_s = is_beside(f, i, j) ? &inside_s : &across_s;
            *most_s = fmax(*most_s, moe_cluster_latency_s(f->cluster, i, j));
        }
    }
    *latency_s = inside_s + across_s;
}

static size_t count_transfers(const forwarding *f)
{
    size_t devices = (size_t)f->cluster->devices;
    size_t count = 0;
    for (size_t i = 0; i < devices * devices; i++) {
        count += i % (devices + 1) != 0 && f->sums[i] > 0;
    }
    return count;
}

/* What the sources hold before it starts, per device that takes part. */
static double mean_held_bytes(const forwarding *f, int participants)
{
    int devices = f->cluster->devices;
    double sum = 0;
    for (int s = 0; s < devices; s++) {
        for (int d = 0; d < devices; d++) {
            sum += is_beside(f, s, d) ? f->bytes[(size_t)s * (size_t)devices + (size_t)d] : 0;
        }
        for (int h = 0; h < f->cluster->hosts; h++) {
            bool own = h == moe_cluster_host(f->cluster, s);
            sum += own ? 0 : f->host_bytes[(size_t)s * (size_t)f->cluster->hosts + (size_t)h];
        }
    }
    return participants > 0 ? sum / participants : 0;
}

/* The end of a relayed pair waits for the first of its two hops as for one of its own. */
static void mark_relayed(const forwarding *f, const moe_traffic_draft *draft)
{
    int devices = f->cluster->devices;
    for (int s = 0; s < devices; s++) {
        for (int d = 0; d < devices; d++) {
            if (is_beside(f, s, d) || !(f->bytes[(size_t)s * (size_t)devices + (size_t)d] > 0)) {
                continue;
            }
            int entry = entry_of(f, s, d);
            moe_transfer hop = {s, entry, 0};
            if (f->transposed)
                hop = (moe_transfer){d, entry, 0};
            if (entry != d)
                moe_traffic_mark(draft, &hop, moe_traffic_row(draft, f->transposed ? s : d));
        }
    }
}

static int count_participants(moe_arena *arena, const moe_transfer *transfers, size_t count,
                              int devices)
{
    bool *takes_part = moe_arena_array(arena, bool, (size_t)devices);
    int participants = 0;
    for (size_t t = 0; t < count; t++) {
        takes_part[transfers[t].source] = true;
        takes_part[transfers[t].target] = true;
    }
    for (int d = 0; d < devices; d++) {
        participants += takes_part[d];
    }
    return participants;
}

moe_traffic *moe_traffic_forwarded(moe_arena *arena, const moe_costs *costs, const double *bytes,
                                   const double *host_bytes, int group_size, bool transposed)
{
    size_t devices = (size_t)costs->cluster->devices;
    forwarding f = {costs->cluster, bytes,      host_bytes,
                    group_size,     transposed, moe_arena_array(arena, double, devices *devices)};
    for (int source = 0; source < costs->cluster->devices; source++) {
        add_crossings(&f, source);
        add_last_hops(&f, source);
    }
    size_t count = count_transfers(&f);
    if (count == 0) {
        return NULL;
    }
    moe_transfer *transfers = moe_arena_array(arena, moe_transfer, count);
    moe_traffic_terms terms = {.kind = MOE_ALL_TO_ALL};
    list_transfers(&f, transfers, &terms.latency_s);
    int ranks = count_participants(arena, transfers, count, costs->cluster->devices);
    terms.bytes_per_rank = mean_held_bytes(&f, ranks);
    moe_traffic_draft draft = moe_traffic_assemble(arena, costs, &terms, transfers, count);
    mark_relayed(&f, &draft);
    return draft.traffic;
}
