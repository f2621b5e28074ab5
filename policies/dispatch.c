#include "policies/policy.h"

#include "configs/base/memory.h"
#include "models/cluster_ranks.h"
#include <talloc.h>

static const uint32_t *counts_of(const moe_gate *gate, int experts, int source)
{
    return gate->counts + (size_t)source * (size_t)experts;
}

void moe_dispatch_to_owner(const moe_problem *problem, const moe_gate *gate,
                           const moe_placement *placement, moe_route *route)
{
    const moe_layout *layout = &problem->layout;
    for (int source = 0; source < layout->devices; source++) {
        const uint32_t *counts = counts_of(gate, route->experts, source);
        const int *owner =
            moe_placement_owner(placement, gate->layer, moe_layout_group(layout, source), 0);
        for (int e = 0; e < route->experts; e++) {
            if (counts[e] > 0)
                moe_route_add(route, source, e, owner[e], counts[e]);
        }
    }
}

int moe_set_next(const uint64_t *set, int from, int end)
{
    while (from < end) {
        uint64_t rest = set[from / 64] >> (from % 64);
        if (rest != 0) {
            int member = from + __builtin_ctzll(rest);
            return member < end ? member : end;
        }
        from = (from / 64 + 1) * 64;
    }
    return end;
}

int moe_set_count_between(const uint64_t *set, int from, int end)
{
    int count = 0;
    for (int d = moe_set_next(set, from, end); d < end; d = moe_set_next(set, d + 1, end))
        count++;
    return count;
}

typedef struct rank_list {
    const int *ranks;
    int count;
} rank_list;

/* An EP group, host by host; `holders` have copies of the expert at hand, in the same order. */
typedef struct group_view {
    const moe_cluster *cluster;
    const int *ranks;
    int count;
    int *holders;
    int holder_count;
} group_view;

/* Equal whole shares. The remainder goes one each to the copies that follow a place which turns
 * with source and expert, so that the first copies of a set are not everybody's favourites. */
static void split_evenly(moe_route *route, const rank_list *to, int source, int expert,
                         uint32_t count)
{
    uint32_t copies = (uint32_t)to->count;
    uint32_t share = count / copies;
    uint32_t remainder = count % copies;
    uint32_t place = copies - ((uint32_t)source + (uint32_t)expert) % copies;
    for (int i = 0; i < to->count; i++) {
        uint32_t given = share + (place % copies < remainder ? 1 : 0);
        if (given > 0)
            moe_route_add(route, source, expert, to->ranks[i], given);
        place++;
    }
}

static void find_holders(group_view *group, const uint64_t *set)
{
    group->holder_count = 0;
    for (int i = 0; i < group->count; i++) {
        if (moe_set_has(set, group->ranks[i]))
            group->holders[group->holder_count++] = group->ranks[i];
    }
}

/* The holders on the host of a rank, from the `from`-th on; holders of hosts before it are behind
 * that one. */
static rank_list holders_beside(const group_view *group, int rank, int from)
{
    int end = from;
    while (end < group->holder_count && moe_cluster_host(group->cluster, group->holders[end]) ==
                                            moe_cluster_host(group->cluster, rank))
        end++;
    return (rank_list){group->holders + from, end - from};
}

/* The sources share a host and a group; `nearest` can serve those without a copy of their own. */
static void dispatch_host(moe_route *route, const moe_gate *gate, int expert, const uint64_t *set,
                          rank_list nearest, rank_list sources)
{
    for (int i = 0; i < sources.count; i++) {
        int source = sources.ranks[i];
        uint32_t count = counts_of(gate, route->experts, source)[expert];
        if (count == 0)
            continue;
        if (moe_set_has(set, source))
            moe_route_add(route, source, expert, source, count);
        else
            split_evenly(route, &nearest, source, expert, count);
    }
}

static void dispatch_expert(group_view *group, const moe_gate *gate, const uint64_t *set,
                            int expert, moe_route *route)
{
    int passed = 0; /* holders on hosts that are done */
    find_holders(group, set);
    for (int from = 0; from < group->count;) {
        int end = moe_cluster_host_end(group->cluster, group->ranks, group->count, from);
        rank_list host = holders_beside(group, group->ranks[from], passed);
        rank_list all = {group->holders, group->holder_count};
        rank_list sources = {group->ranks + from, end - from};
        dispatch_host(route, gate, expert, set, host.count > 0 ? host : all, sources);
        passed += host.count;
        from = end;
    }
}

typedef void (*expert_rule)(group_view *group, const moe_gate *gate, const uint64_t *set,
                            int expert, moe_route *route);

static void for_groups(const moe_problem *problem, const moe_gate *gate, const uint64_t *copies,
                       moe_route *route, expert_rule rule)
{
    const moe_layout *layout = &problem->layout;
    size_t words = ((size_t)layout->devices + 63) / 64;
    int *ranks = moe_need(talloc_array(NULL, int, 2 * layout->ep));
    group_view group = {
        .cluster = problem->cluster,
        .ranks = ranks,
        .count = layout->ep,
        .holders = ranks + layout->ep,
    };
    for (int first = 0; first < layout->devices; first += layout->ep) {
        moe_cluster_by_host(problem->cluster, first, layout->ep, ranks);
        for (int e = 0; e < route->experts; e++)
            rule(&group, gate, copies + (size_t)e * words, e, route);
    }
    talloc_free(ranks);
}

void moe_dispatch_by_topology(const moe_problem *problem, const moe_gate *gate,
                              const uint64_t *copies, moe_route *route)
{
    for_groups(problem, gate, copies, route, dispatch_expert);
}

static void spread_expert(group_view *group, const moe_gate *gate, const uint64_t *set, int expert,
                          moe_route *route)
{
    find_holders(group, set);
    const rank_list all = {group->holders, group->holder_count};
    for (int i = 0; i < group->count; i++) {
        int source = group->ranks[i];
        split_evenly(route, &all, source, expert,
                     counts_of(gate, route->experts, source)[expert]);
    }
}

void moe_dispatch_evenly(const moe_problem *problem, const moe_gate *gate, const uint64_t *copies,
                         moe_route *route)
{
    for_groups(problem, gate, copies, route, spread_expert);
}
