/* Hecate's Algorithm 1: which experts are copied where, given loads, t and free slots. */
#include "models/cluster_ranks.h"
#include "policies/placement/fssdp.h"

#include <string.h>

/* --- replicas by load ----------------------------------------------------------------------- */

/* Whether an expert of load a with `has_a` replicas should have its next one before the other. */
static bool needs_more(double a, int has_a, double b, int has_b)
{
    double left = a * (2.0 * has_b + 1);
    double right = b * (2.0 * has_a + 1);
    return left != right ? left > right : has_a < has_b;
}

static int neediest(const moe_ranked *ranking, int count, int most, bool equal,
                    const int *assigned)
{
    int best = -1;
    for (int i = 0; i < count; i++) {
        if (assigned[i] >= most)
            continue;
        double load = equal ? 1 : ranking[i].load;
        double best_load = equal || best < 0 ? 1 : ranking[best].load;
        if (best < 0 || needs_more(load, assigned[i], best_load, assigned[best]))
            best = i;
    }
    return best;
}

void moe_fssdp_assign_slots(const moe_ranked *ranking, int count, int slots, int most,
                            int replicas, int *assigned)
{
    for (int i = 0; i < count; i++) {
        assigned[i] = slots > 0 && most > 0 ? 1 : 0;
        slots -= assigned[i];
    }
    while (slots > 0) {
        int best = neediest(ranking, count, most, replicas == MOE_FSSDP_EQUAL, assigned);
        if (best < 0)
            return;
        assigned[best]++;
        slots--;
    }
}

/* --- first branch: memory does not bind ------------------------------------------------------- */

static uint64_t *set_of(const moe_fssdp_layer *layer, uint64_t *copies, int expert)
{
    return copies + (size_t)expert * (size_t)layer->words;
}

/* Whether every device has room for the experts of top[count] that it lacks. */
static bool fits_everywhere(const moe_fssdp_layer *layer, const moe_ranked *top, int count,
                            uint64_t *copies)
{
    for (int d = 0; d < layer->devices; d++) {
        int lacking = 0;
        for (int i = 0; i < count; i++)
            lacking += !moe_set_has(set_of(layer, copies, top[i].expert), layer->first + d);
        if (lacking > layer->free_slots[d])
            return false;
    }
    return true;
}

static void put(const moe_fssdp_layer *layer, uint64_t *set, int d)
{
    moe_set_add(set, layer->first + d);
    layer->free_slots[d]--;
}

static void put_everywhere(const moe_fssdp_layer *layer, uint64_t *set)
{
    for (int d = 0; d < layer->devices; d++) {
        if (!moe_set_has(set, layer->first + d))
            put(layer, set, d);
    }
}

/* --- second branch: slots are scarce ---------------------------------------------------------- */

/* The devices of the group on one host, as one expert sees them. */
typedef struct host_view {
    int held; /* copies of the expert */
    int free_slots;
    int device; /* the one with most free slots among those that lack it; -1: none has any */
} host_view;

static host_view view_host(const moe_fssdp_layer *layer, const uint64_t *set, const int *ranks,
                           int count)
{
    host_view view = {.device = -1};
    for (int i = 0; i < count; i++) {
        int d = ranks[i] - layer->first;
        int room = layer->free_slots[d];
        view.free_slots += room > 0 ? room : 0;
        if (moe_set_has(set, ranks[i]))
            view.held++;
        else if (room > 0 && (view.device < 0 || room > layer->free_slots[view.device]))
            view.device = d;
    }
    return view;
}

static bool better_host(const host_view *a, const host_view *b)
{
    if ((a->held > 0) != (b->held > 0))
        return a->held == 0;
    return a->free_slots > b->free_slots;
}

/* One more copy: a host that lacks the expert before one that has it, then the host with more free
 * slots, then the device with more. False: no place. */
static bool place_one(const moe_fssdp_layer *layer, const int *by_host, uint64_t *set)
{
    host_view best = {.device = -1};
    for (int from = 0; from < layer->devices;) {
        int end = moe_cluster_host_end(layer->cluster, by_host, layer->devices, from);
        host_view view = view_host(layer, set, by_host + from, end - from);
        if (view.device >= 0 && (best.device < 0 || better_host(&view, &best)))
            best = view;
        from = end;
    }
    if (best.device < 0)
        return false;
    put(layer, set, best.device);
    return true;
}

/* Slots to share out: free ones, m := min(m, t) a device, and what the candidates already hold. */
static int slots_in_all(const moe_fssdp_layer *layer, const int *held, int candidates)
{
    int slots = 0;
    for (int d = 0; d < layer->devices; d++) {
        if (layer->free_slots[d] > layer->overlap)
            layer->free_slots[d] = layer->overlap;
        slots += layer->free_slots[d] > 0 ? layer->free_slots[d] : 0;
    }
    if (slots == 0)
        return 0;
    for (int i = 0; i < candidates; i++)
        slots += held[i];
    return slots;
}

static void spread(moe_arena *arena, const moe_fssdp_layer *layer, const moe_ranked *ranking,
                   int candidates, uint64_t *copies)
{
    int *held = moe_arena_array(arena, int, (size_t)candidates); /* beyond the owner */
    int *replicas = moe_arena_array(arena, int, (size_t)candidates);
    int *by_host = moe_arena_array(arena, int, (size_t)layer->devices);
    int last = layer->first + layer->devices;
    for (int i = 0; i < candidates; i++) {
        const uint64_t *set = set_of(layer, copies, ranking[i].expert);
        held[i] = moe_set_count_between(set, layer->first, last) - 1;
    }
    int slots = slots_in_all(layer, held, candidates);
    if (slots == 0)
        return;
    moe_fssdp_assign_slots(ranking, candidates, slots, layer->devices - 1, layer->replicas,
                           replicas);
    moe_cluster_by_host(layer->cluster, layer->first, layer->devices, by_host);
    for (int i = 0; i < candidates; i++) {
        uint64_t *set = set_of(layer, copies, ranking[i].expert);
        for (int n = held[i]; n < replicas[i]; n++) {
            if (!place_one(layer, by_host, set))
                break;
        }
    }
}

void moe_fssdp_materialize(moe_arena *arena, const moe_fssdp_layer *layer, uint64_t *copies)
{
    int top = layer->overlap < layer->experts ? layer->overlap : layer->experts;
    if (top <= 0)
        return;
    moe_ranked *ranking = moe_rank_by_load(arena, layer->loads, layer->experts);
    if (fits_everywhere(layer, ranking, top, copies)) {
        for (int i = 0; i < top; i++)
            put_everywhere(layer, set_of(layer, copies, ranking[i].expert));
        return;
    }
    int candidates = layer->top_set == MOE_FSSDP_TOP_FIRST ? layer->experts : top;
    spread(arena, layer, ranking, candidates, copies);
}
