#include "policies/policy.h"

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

/* What can serve a source: `count` copies on devices [from, end). */
typedef struct eligible {
    const uint64_t *set;
    int from;
    int end;
    int count;
} eligible;

static eligible eligible_between(const uint64_t *set, int from, int end)
{
    return (eligible){set, from, end, moe_set_count_between(set, from, end)};
}

/* Equal whole shares. The remainder goes one each to the copies that follow a place which turns
 * with source and expert, so that the first copies of a set are not everybody's favourites. */
static void split_evenly(moe_route *route, const eligible *to, int source, int expert,
                         uint32_t count)
{
    uint32_t copies = (uint32_t)to->count;
    uint32_t share = count / copies;
    uint32_t remainder = count % copies;
    uint32_t place = copies - ((uint32_t)source + (uint32_t)expert) % copies;
    for (int d = moe_set_next(to->set, to->from, to->end); d < to->end;
         d = moe_set_next(to->set, d + 1, to->end)) {
        uint32_t given = share + (place % copies < remainder ? 1 : 0);
        if (given > 0)
            moe_route_add(route, source, expert, d, given);
        place++;
    }
}

/* The sources [from, end) share a host and a group; `group` are all copies of their group. */
static void dispatch_host(moe_route *route, const moe_gate *gate, int expert, const eligible *group,
                          int from, int end)
{
    eligible host = eligible_between(group->set, from, end);
    const eligible *nearest = host.count > 0 ? &host : group;
    for (int source = from; source < end; source++) {
        uint32_t count = counts_of(gate, route->experts, source)[expert];
        if (count == 0)
            continue;
        if (moe_set_has(group->set, source))
            moe_route_add(route, source, expert, source, count);
        else
            split_evenly(route, nearest, source, expert, count);
    }
}

static void dispatch_group(const moe_problem *problem, const moe_gate *gate, const uint64_t *set,
                           int expert, int first, moe_route *route)
{
    int last = first + problem->layout.ep;
    int per_host = problem->cluster->devices_per_host;
    eligible group = eligible_between(set, first, last);
    for (int from = first; from < last;) {
        int end = (from / per_host + 1) * per_host;
        if (end > last)
            end = last;
        dispatch_host(route, gate, expert, &group, from, end);
        from = end;
    }
}

void moe_dispatch_by_topology(const moe_problem *problem, const moe_gate *gate,
                              const uint64_t *copies, moe_route *route)
{
    size_t words = ((size_t)problem->layout.devices + 63) / 64;
    for (int e = 0; e < route->experts; e++) {
        for (int first = 0; first < problem->layout.devices; first += problem->layout.ep)
            dispatch_group(problem, gate, copies + (size_t)e * words, e, first, route);
    }
}
