/* Grouped broadcasts and reduces: SparseAllGather (spAG) and SparseReduceScatter (spRS).
 *
 * The devices of a chunk stand in one order, its owner first. Position i receives from (or,
 * reduced, sends to) the position that its algorithm names; transfer i - 1 of the chunk is that of
 * position i. */
#include "models/traffic.h"

#include <math.h>
#include <string.h>

const char *const moe_chunk_algorithm_names[] = {"chain", "star", "tree", "world", NULL};

/* The transfers of one chunk within those of all. */
typedef struct chunk_span {
    size_t first;
    int count;
} chunk_span;

typedef struct chunk_set {
    const moe_cluster *cluster;
    moe_chunk_algorithm algorithm;
    bool reduce;
    double chunk_bytes;
    moe_transfer *transfers;
    size_t count;
    chunk_span *spans; /* of the chunks that travel */
    int span_count;
    double latency_s; /* of the deepest chain */
    int *order;       /* [devices], scratch */
    int *rotation;    /* [devices], scratch */
    double *depth_s;  /* [devices], scratch: latency from the owner */
} chunk_set;

static bool wants(const moe_chunk *chunk, int device)
{
    return device != chunk->owner && (chunk->want[device / 64] >> (device % 64) & 1) != 0;
}

static int count_wanting(const moe_cluster *cluster, const moe_chunk *chunk)
{
    int count = 0;
    for (int d = 0; d < cluster->devices; d++) {
        count += wants(chunk, d);
    }
    return count;
}

static int receivers(const moe_cluster *cluster, const moe_chunk *chunk,
                     moe_chunk_algorithm algorithm)
{
    int count = count_wanting(cluster, chunk);
    return count > 0 && algorithm == MOE_CHUNK_WORLD ? cluster->devices - 1 : count;
}

static int parent_of(moe_chunk_algorithm algorithm, int position)
{
    switch (algorithm) {
    case MOE_CHUNK_STAR:
        return 0;
    case MOE_CHUNK_TREE:
        return (position - 1) / 2;
    case MOE_CHUNK_CHAIN:
    case MOE_CHUNK_WORLD:
        break;
    }
    return position - 1;
}

/* Rotates items[count] left by `by`. */
static void rotate(int *items, int count, int by, int *scratch)
{
    memcpy(scratch, items, (size_t)count * sizeof *items);
    for (int i = 0; i < count; i++) {
        items[i] = scratch[(i + by) % count];
    }
}

/* Appends the receivers in one host; a chunk enters its k-th foreign host by another device than
 * its neighbour in the list does, which spreads them over per-device NICs. */
static int append_host(chunk_set *set, const moe_chunk *chunk, int host, int n)
{
    const moe_place *owner = &set->cluster->places[chunk->owner];
    bool everyone = set->algorithm == MOE_CHUNK_WORLD;
    int first = n;
    int before_owner = 0;
    for (int local = 0; local < set->cluster->devices_per_host; local++) {
        int d = moe_cluster_rank_at(set->cluster, host, local);
        if (everyone ? d != chunk->owner : wants(chunk, d)) {
            set->order[n++] = d;
            before_owner += local < owner->local;
        }
    }
    int count = n - first;
    if (count > 1) {
        int by = host == owner->host ? before_owner % count : set->span_count % count;
        rotate(set->order + first, count, by, set->rotation);
    }
    return n;
}

/* Domain by domain from `home` on, and within each from the place of `home` in its own. */
static int host_at(const moe_cluster *cluster, int home, int position)
{
    int per_domain = cluster->domain_hosts;
    int domain = (home / per_domain + position / per_domain) % cluster->domains;
    return domain * per_domain + (home % per_domain + position % per_domain) % per_domain;
}

/* Owner, the rest of its host, then host by host: a chain crosses each host boundary once, and each
 * boundary of NVLink domains once. */
static int order_devices(chunk_set *set, const moe_chunk *chunk)
{
    int home = moe_cluster_host(set->cluster, chunk->owner);
    int n = 0;
    set->order[n++] = chunk->owner;
    for (int h = 0; h < set->cluster->hosts; h++) {
        n = append_host(set, chunk, host_at(set->cluster, home, h), n);
    }
    return n;
}

static void add_chunk(chunk_set *set, const moe_chunk *chunk)
{
    int n = order_devices(set, chunk);
    set->spans[set->span_count++] = (chunk_span){set->count, n - 1};
    set->depth_s[0] = 0;
    for (int i = 1; i < n; i++) {
        int parent = parent_of(set->algorithm, i);
        int near = set->order[parent];
        int far = set->order[i];
        set->transfers[set->count++] =
            (moe_transfer){set->reduce ? far : near, set->reduce ? near : far, set->chunk_bytes};
        set->depth_s[i] = set->depth_s[parent] + moe_cluster_latency_s(set->cluster, near, far);
        set->latency_s = fmax(set->latency_s, set->depth_s[i]);
    }
}

/* A receiver waits for every hop between the owner and itself. */
static void relay_broadcast(const chunk_set *set, const moe_traffic_draft *draft, chunk_span span,
                            uint64_t *rows)
{
    int words = draft->traffic->words;
    memset(rows, 0, (size_t)words * sizeof *rows);
    for (int i = 1; i <= span.count; i++) {
        const moe_transfer *transfer = &set->transfers[span.first + (size_t)i - 1];
        uint64_t *row = rows + (size_t)i * (size_t)words;
        size_t parent = (size_t)parent_of(set->algorithm, i);
        memcpy(row, rows + parent * (size_t)words, (size_t)words * sizeof *rows);
        moe_traffic_mark(draft, transfer, row);
        moe_traffic_merge(moe_traffic_row(draft, transfer->target), row, words);
    }
}

/* A sender waits for every hop of what it adds its own to; parents stand before their children. */
static void relay_reduce(const chunk_set *set, const moe_traffic_draft *draft, chunk_span span,
                         uint64_t *rows)
{
    int words = draft->traffic->words;
    memset(rows, 0, ((size_t)span.count + 1) * (size_t)words * sizeof *rows);
    for (int i = span.count; i >= 1; i--) {
        const moe_transfer *transfer = &set->transfers[span.first + (size_t)i - 1];
        uint64_t *row = rows + (size_t)i * (size_t)words;
        size_t parent = (size_t)parent_of(set->algorithm, i);
        moe_traffic_merge(moe_traffic_row(draft, transfer->source), row, words);
        moe_traffic_mark(draft, transfer, row);
        moe_traffic_merge(rows + parent * (size_t)words, row, words);
    }
    int owner = set->transfers[span.first].target;
    moe_traffic_merge(moe_traffic_row(draft, owner), rows, words);
}

static void relay_touches(moe_arena *arena, const chunk_set *set, const moe_traffic_draft *draft)
{
    if (set->algorithm == MOE_CHUNK_STAR) {
        return; /* nobody relays */
    }
    size_t words = (size_t)draft->traffic->words;
    uint64_t *rows = moe_arena_array(arena, uint64_t, (size_t)set->cluster->devices * words);
    for (int s = 0; s < set->span_count; s++) {
        (set->reduce ? relay_reduce : relay_broadcast)(set, draft, set->spans[s], rows);
    }
}

static chunk_set chunk_set_create(moe_arena *arena, const moe_cluster *cluster,
                                  const moe_chunk *chunks, int chunk_count,
                                  moe_chunk_algorithm algorithm)
{
    size_t transfers = 0;
    for (int c = 0; c < chunk_count; c++) {
        transfers += (size_t)receivers(cluster, &chunks[c], algorithm);
    }
    if (transfers == 0) {
        return (chunk_set){.cluster = cluster};
    }
    size_t devices = (size_t)cluster->devices;
    return (chunk_set){.cluster = cluster,
                       .algorithm = algorithm,
                       .transfers = moe_arena_array(arena, moe_transfer, transfers),
                       .spans = moe_arena_array(arena, chunk_span, (size_t)chunk_count),
                       .order = moe_arena_array(arena, int, devices),
                       .rotation = moe_arena_array(arena, int, devices),
                       .depth_s = moe_arena_array(arena, double, devices)};
}

moe_traffic *moe_traffic_chunks(moe_arena *arena, const moe_costs *costs, moe_collective_kind kind,
                                const moe_chunk *chunks, int chunk_count, double chunk_bytes,
                                moe_chunk_algorithm algorithm)
{
    const moe_cluster *cluster = costs->cluster;
    chunk_set set = chunk_set_create(arena, cluster, chunks, chunk_count, algorithm);
    if (set.transfers == NULL || !(chunk_bytes > 0)) {
        return NULL;
    }
    set.reduce = kind == MOE_REDUCE;
    set.chunk_bytes = chunk_bytes;
    for (int c = 0; c < chunk_count; c++) {
        if (receivers(cluster, &chunks[c], algorithm) > 0) {
            add_chunk(&set, &chunks[c]);
        }
    }
    moe_traffic_terms terms = {.kind = kind,
                               .bytes_per_rank = set.span_count * chunk_bytes,
                               .chunks = set.span_count,
                               .latency_s = set.latency_s};
    moe_traffic_draft draft = moe_traffic_assemble(arena, costs, &terms, set.transfers, set.count);
    relay_touches(arena, &set, &draft);
    return draft.traffic;
}
