#include "policies/once.h"

#include <math.h>
#include <string.h>

moe_distinct *moe_once_estimator(void *owner, const moe_network *network, bool top_k_varies)
{
    const moe_distinct_gate gate = {
        .experts = (int)network->experts,
        .top_k = top_k_varies ? 0 : (int)network->top_k,
        .groups = (int)network->gate_groups,
        .top_groups = (int)network->top_groups,
    };
    return moe_distinct_create(owner, &gate);
}

/* --- parts of a route ------------------------------------------------------------------------- */

void moe_route_keep(moe_route_parts *parts, moe_route_part part)
{
    if (parts->count == parts->capacity) {
        size_t capacity = parts->capacity > 0 ? 2 * parts->capacity : 4096;
        moe_route_part *items = moe_arena_array(parts->arena, moe_route_part, capacity);
        if (parts->count > 0)
            memcpy(items, parts->items, parts->count * sizeof *items);
        parts->items = items;
        parts->capacity = capacity;
    }
    parts->items[parts->count++] = part;
}

/* Parts by source and place: a rank, or a host. */
typedef struct places {
    moe_arena *arena;
    int count;                  /* places of a source */
    const moe_cluster *by_host; /* NULL: by rank */
    size_t *first;              /* [sources * count + 1] in `parts` */
    moe_distinct_part *parts;   /* experts of a place ascending, each once ... */
    int *used;                  /* [sources * count] ... so many of those that were dealt there */
} places;

static size_t place_of(const places *of, const moe_route_part *part)
{
    int place = of->by_host ? moe_cluster_host(of->by_host, part->device) : part->device;
    return (size_t)part->source * (size_t)of->count + (size_t)place;
}

/* Policies mostly add experts in order already. */
static void put_in_order(moe_distinct_part *parts, int *count, moe_distinct_part part)
{
    int at = *count;
    while (at > 0 && parts[at - 1].expert > part.expert) {
        at--;
    }
    if (at > 0 && parts[at - 1].expert == part.expert) {
        parts[at - 1].count += part.count;
        return;
    }
    memmove(parts + at + 1, parts + at, (size_t)(*count - at) * sizeof *parts);
    parts[at] = part;
    (*count)++;
}

static void deal(places *of, const moe_route_parts *parts, int sources)
{
    size_t all = (size_t)sources * (size_t)of->count;
    of->first = moe_arena_array(of->arena, size_t, all + 1);
    of->used = moe_arena_array(of->arena, int, all);
    of->parts = moe_arena_array(of->arena, moe_distinct_part, parts->count);
    for (size_t i = 0; i < parts->count; i++) {
        of->first[place_of(of, &parts->items[i]) + 1]++;
    }
    for (size_t p = 0; p < all; p++) {
        of->first[p + 1] += of->first[p];
    }
    for (size_t i = 0; i < parts->count; i++) {
        const moe_route_part *part = &parts->items[i];
        size_t place = place_of(of, part);
        put_in_order(of->parts + of->first[place], &of->used[place],
                     (moe_distinct_part){part->expert, part->count});
    }
}

static places deal_places(moe_arena *arena, const moe_problem *problem,
                          const moe_route_parts *parts, bool by_host)
{
    int devices = problem->layout.devices;
    places of = {.arena = arena, .count = by_host ? problem->cluster->hosts : devices};
    of.by_host = by_host ? problem->cluster : NULL;
    deal(&of, parts, devices);
    return of;
}

/* --- counting --------------------------------------------------------------------------------- */

static void fit_source(moe_arena *arena, moe_distinct *distinct, const moe_gate *gate,
                       const uint32_t *tokens, int experts, int source)
{
    double *counts = moe_arena_array(arena, double, (size_t)experts);
    for (int e = 0; e < experts; e++) {
        counts[e] = gate->counts[(size_t)source * (size_t)experts + (size_t)e];
    }
    moe_distinct_fit(distinct, counts, tokens[source]);
}

static void count_source(const places *of, moe_distinct *distinct, int source, double *tokens)
{
    size_t base = (size_t)source * (size_t)of->count;
    for (size_t p = base; p < base + (size_t)of->count; p++) {
        tokens[p] = moe_distinct_tokens(distinct, of->parts + of->first[p], of->used[p]);
    }
}

/* Of what one source sends to the ranks on a host. */
typedef struct host_bounds {
    double most;
    double sum;
} host_bounds;

static host_bounds bounds_of(const moe_cluster *cluster, const double *devices, int host)
{
    host_bounds bounds = {0};
    for (int local = 0; local < cluster->devices_per_host; local++) {
        double tokens = devices[moe_cluster_rank_at(cluster, host, local)];
        bounds.sum += tokens;
        bounds.most = fmax(bounds.most, tokens);
    }
    return bounds;
}

/* A host gets no fewer tokens than any of its devices and no more than all of them. The estimates
 * know that but for the tolerance of the fit and for places of a single expert, which are exact. */
static void suit_hosts(const moe_cluster *cluster, const double *devices, double *hosts)
{
    for (int h = 0; h < cluster->hosts; h++) {
        host_bounds bounds = bounds_of(cluster, devices, h);
        hosts[h] = fmin(fmax(hosts[h], bounds.most), bounds.sum);
    }
}

moe_once_tokens moe_once_count(moe_arena *arena, const moe_problem *problem, moe_distinct *distinct,
                               const moe_gate *gate, const uint32_t *tokens, const moe_route *route,
                               moe_once once_per)
{
    size_t sources = (size_t)problem->layout.devices;
    bool by_host = once_per == MOE_ONCE_PER_HOST;
    places devices = deal_places(arena, problem, route->parts, false);
    places hosts = {0};
    double *to_devices = moe_arena_array(arena, double, sources *sources);
    double *to_hosts = NULL;
    if (by_host) {
        hosts = deal_places(arena, problem, route->parts, true);
        to_hosts = moe_arena_array(arena, double, sources *(size_t)hosts.count);
    }
    for (int s = 0; s < problem->layout.devices; s++) {
        fit_source(arena, distinct, gate, tokens, route->experts, s);
        count_source(&devices, distinct, s, to_devices);
        if (!by_host)
            continue;
        count_source(&hosts, distinct, s, to_hosts);
        suit_hosts(problem->cluster, to_devices + (size_t)s * sources,
                   to_hosts + (size_t)s * (size_t)hosts.count);
    }
    return (moe_once_tokens){to_devices, to_hosts};
}

/* --- checking --------------------------------------------------------------------------------- */

static bool is_between(double value, double low, double high)
{
    double slack = 1e-9 * (1 + high);
    return value >= low - slack && value <= high + slack;
}

static bool hosts_are_sound(const moe_cluster *cluster, const double *devices, const double *hosts)
{
    for (int h = 0; h < cluster->hosts; h++) {
        host_bounds bounds = bounds_of(cluster, devices, h);
        if (!is_between(hosts[h], bounds.most, bounds.sum))
            return false;
    }
    return true;
}

const char *moe_once_check(const moe_problem *problem, const double *pairs, const double *devices,
                           const double *hosts)
{
    size_t sources = (size_t)problem->layout.devices;
    size_t count = sources * sources;
    double experts = (double)problem->network->experts;
    for (size_t p = 0; p < count; p++) {
        if (!is_between(devices[p], pairs[p] / experts, pairs[p]))
            return "law 1: tokens sent once are more than their assignments, or too few for them";
    }
    for (size_t s = 0; hosts != NULL && s < sources; s++) {
        if (!hosts_are_sound(problem->cluster, devices + s * sources,
                             hosts + s * (size_t)problem->cluster->hosts))
            return "law 3: tokens into a host do not suit those forwarded there";
    }
    return NULL;
}
