/* Hecate's Algorithm 2: homes for the experts of all layers at once. Hot experts get replicas
 * anyway, so the cold ones choose first, hottest of them first, each on the least loaded host and
 * device. */
#include "models/cluster_ranks.h"
#include "policies/placement/fssdp.h"

#include <stdlib.h>
#include <string.h>

typedef struct plan {
    const moe_fssdp_sharding *sharding;
    moe_ranked **ranking; /* [layers] */
    int top;                  /* t, at most all experts */
    int *by_host;             /* [devices] */
    int *free_slots;          /* [devices], over all layers */
    double *load;             /* [devices]: of the layer, or of all layers so far */
    int *owner;               /* [layers][experts]; -1: not placed yet */
} plan;

/* Devices by_host[from .. end) added up; `free_slots` 0: nothing can go there. */
typedef struct spot {
    int from;
    int end;
    double load;
    int free_slots;
} spot;

static spot spot_of(const plan *p, int from, int end)
{
    spot s = {.from = from, .end = end};
    for (int i = from; i < end; i++) {
        s.load += p->load[p->by_host[i]];
        s.free_slots += p->free_slots[p->by_host[i]];
    }
    return s;
}

static void keep_better(spot *best, const spot *candidate)
{
    if (candidate->free_slots == 0)
        return;
    bool better = best->free_slots == 0 || candidate->load < best->load ||
                  (candidate->load == best->load && candidate->free_slots < best->free_slots);
    if (better)
        *best = *candidate;
}

static int least_loaded(const plan *p)
{
    const moe_fssdp_sharding *sharding = p->sharding;
    spot host = {0};
    for (int from = 0; from < sharding->devices;) {
        int end = moe_cluster_host_end(sharding->cluster, p->by_host, sharding->devices, from);
        spot candidate = spot_of(p, from, end);
        keep_better(&host, &candidate);
        from = end;
    }
    spot device = {0};
    for (int i = host.from; i < host.end; i++) {
        spot candidate = spot_of(p, i, i + 1);
        keep_better(&device, &candidate);
    }
    return p->by_host[device.from];
}

static void give(plan *p, int layer, int expert, int device)
{
    p->owner[(size_t)layer * (size_t)p->sharding->experts + (size_t)expert] = device;
    p->free_slots[device]--;
}

static void place_cold(plan *p, int layer)
{
    const moe_fssdp_sharding *s = p->sharding;
    if (s->inner_load == MOE_FSSDP_LAYER_LOAD)
        memset(p->load, 0, (size_t)s->devices * sizeof *p->load);
    for (int i = p->top; i < s->experts; i++) {
        int device = least_loaded(p);
        give(p, layer, p->ranking[layer][i].expert, device);
        p->load[device] += p->ranking[layer][i].load;
    }
}

static int freest(const plan *p)
{
    int best = 0;
    for (int d = 1; d < p->sharding->devices; d++) {
        if (p->free_slots[d] > p->free_slots[best])
            best = d;
    }
    return best;
}

/* The paper puts them "arbitrarily": where they are, if there is room, so that less has to move. */
static void keep_hot(plan *p, const int *before)
{
    const moe_fssdp_sharding *s = p->sharding;
    for (int l = 0; l < s->layers; l++) {
        for (int i = 0; i < p->top; i++) {
            int expert = p->ranking[l][i].expert;
            int home = before[(size_t)l * (size_t)s->experts + (size_t)expert];
            if (p->free_slots[home] > 0)
                give(p, l, expert, home);
        }
    }
}

static void place_leftover(plan *p)
{
    const moe_fssdp_sharding *s = p->sharding;
    for (int l = 0; l < s->layers; l++) {
        for (int i = 0; i < p->top; i++) {
            int expert = p->ranking[l][i].expert;
            if (p->owner[(size_t)l * (size_t)s->experts + (size_t)expert] < 0)
                give(p, l, expert, freest(p));
        }
    }
}

/* Layers by their hottest cold expert, heaviest first. */
static moe_ranked *layer_order(moe_arena *arena, const plan *p)
{
    const moe_fssdp_sharding *s = p->sharding;
    double *loads = moe_arena_array(arena, double, (size_t)s->layers);
    for (int l = 0; l < s->layers; l++)
        loads[l] = p->top < s->experts ? p->ranking[l][p->top].load : 0;
    return moe_rank_by_load(arena, loads, s->layers);
}

static plan plan_begin(moe_arena *arena, const moe_fssdp_sharding *s)
{
    size_t all = (size_t)s->layers * (size_t)s->experts;
    plan p = {
        .sharding = s,
        .ranking = moe_arena_array(arena, moe_ranked *, (size_t)s->layers),
        .top = s->overlap < s->experts ? s->overlap : s->experts,
        .by_host = moe_arena_array(arena, int, (size_t)s->devices),
        .free_slots = moe_arena_array(arena, int, (size_t)s->devices),
        .load = moe_arena_array(arena, double, (size_t)s->devices),
        .owner = moe_arena_array(arena, int, all),
    };
    moe_cluster_by_host(s->cluster, 0, s->devices, p.by_host);
    for (int l = 0; l < s->layers; l++)
        p.ranking[l] =
            moe_rank_by_load(arena, s->loads + (size_t)l * (size_t)s->experts, s->experts);
    for (int d = 0; d < s->devices; d++)
        p.free_slots[d] = (int)(all / (size_t)s->devices);
    for (size_t i = 0; i < all; i++)
        p.owner[i] = -1;
    return p;
}

bool moe_fssdp_shard(moe_arena *arena, const moe_fssdp_sharding *sharding, int *owner)
{
    plan p = plan_begin(arena, sharding);
    const moe_ranked *order = layer_order(arena, &p);
    for (int i = 0; i < sharding->layers; i++)
        place_cold(&p, order[i].expert);
    if (sharding->leftover == MOE_FSSDP_KEEP)
        keep_hot(&p, owner);
    place_leftover(&p);
    size_t bytes = (size_t)sharding->layers * (size_t)sharding->experts * sizeof *owner;
    bool changed = memcmp(owner, p.owner, bytes) != 0;
    memcpy(owner, p.owner, bytes);
    return changed;
}
