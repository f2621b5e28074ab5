/* Greedy: the expert with most load per copy, to the device with least load. */
#include "policies/placement/ep.h"

#include <math.h>

/* One layer in one group; devices are numbered within it. */
typedef struct layer_copies {
    const moe_ep_copies *of;
    int layer;
    int group;
    int room;       /* copies that a device takes of a layer */
    double *loads;  /* [experts] */
    int *count;     /* [experts] copies, the owner's included */
    double *device; /* [ep] load, each copy having an equal part of its expert's */
    double most;    /* of any device */
    int *taken;     /* [ep] */
} layer_copies;

static bool holds(const layer_copies *c, int expert, int device)
{
    const uint64_t *set = moe_placement_copies(c->of->placement, c->layer, expert);
    return moe_set_has(set, c->group * c->of->problem->layout.ep + device);
}

/* Loads of devices follow from the copies as they are. */
static void load_devices(layer_copies *c)
{
    c->most = 0;
    for (int d = 0; d < c->of->problem->layout.ep; d++) {
        c->device[d] = 0;
        for (int e = 0; e < c->of->placement->experts; e++)
            c->device[d] += holds(c, e, d) ? c->loads[e] / c->count[e] : 0;
        c->most = fmax(c->most, c->device[d]);
    }
}

/* The least loaded that has room and no copy, and does not become the fullest by one; -1: none.
 * The first of equals. */
static int find_device(const layer_copies *c, int expert)
{
    double part = c->loads[expert] / (c->count[expert] + 1);
    int best = -1;
    for (int d = 0; d < c->of->problem->layout.ep; d++) {
        if (c->taken[d] < c->room && !holds(c, expert, d) && c->device[d] + part < c->most &&
            (best < 0 || c->device[d] < c->device[best]))
            best = d;
    }
    return best;
}

static bool is_hotter(const layer_copies *c, int expert, int than)
{
    return than < 0 || c->loads[expert] / c->count[expert] > c->loads[than] / c->count[than];
}

/* False where no device takes any. */
static bool add_copy(const layer_copies *c, moe_transfer *move)
{
    int expert = -1;
    int device = -1;
    for (int e = 0; e < c->of->placement->experts; e++) {
        if (is_hotter(c, e, expert)) {
            int place = find_device(c, e);
            device = place >= 0 ? place : device;
            expert = place >= 0 ? e : expert;
        }
    }
    if (expert < 0)
        return false;
    int target = c->group * c->of->problem->layout.ep + device;
    moe_set_add(moe_placement_copies(c->of->placement, c->layer, expert), target);
    c->count[expert]++;
    c->taken[device]++;
    *move =
        (moe_transfer){.source = *moe_placement_owner(c->of->placement, c->layer, c->group, expert),
                       .target = target,
                       .bytes = moe_network_expert_bytes(c->of->problem->network)};
    return true;
}

static size_t place_layer(layer_copies *c, moe_transfer *moves)
{
    const moe_placement *placement = c->of->placement;
    size_t count = 0;
    moe_history_mean(c->of->history, MOE_HISTORY_DEPTH, c->layer, c->group, c->loads);
    for (int e = 0; e < placement->experts; e++)
        c->count[e] = 1;
    for (int d = 0; d < c->of->problem->layout.ep; d++)
        c->taken[d] = 0;
    for (int n = 0; n < c->of->redundant; n++) {
        load_devices(c);
        if (!add_copy(c, &moves[count]))
            break;
        count++;
    }
    return count;
}

moe_transfer *moe_ep_place_copies(const moe_ep_copies *copies, size_t *move_count)
{
    const moe_placement *placement = copies->placement;
    const size_t ep = (size_t)copies->problem->layout.ep;
    const size_t experts = (size_t)placement->experts;
    size_t layers = (size_t)placement->layers * (size_t)placement->groups;
    moe_transfer *moves =
        moe_arena_array(copies->arena, moe_transfer, layers * (size_t)copies->redundant);
    layer_copies c = {.of = copies,
                      .room = (copies->redundant + (int)ep - 1) / (int)ep,
                      .loads = moe_arena_array(copies->arena, double, experts),
                      .count = moe_arena_array(copies->arena, int, experts),
                      .device = moe_arena_array(copies->arena, double, ep),
                      .taken = moe_arena_array(copies->arena, int, ep)};
    *move_count = 0;
    for (c.layer = 0; c.layer < placement->layers; c.layer++)
        for (c.group = 0; c.group < placement->groups; c.group++)
            *move_count += place_layer(&c, moves + *move_count);
    return moves;
}
