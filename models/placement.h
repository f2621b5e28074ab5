/* Who holds what: process groups, and for every (layer, expert) its owner and its usable copies.
 *
 * Devices are numbered by rank here; models/cluster_ranks.h says which ranks share a host.
 *
 * Layout. `ep` consecutive devices form an EP group; groups = devices / ep. A source's tokens are
 * dispatched within its own group only, so every group has an owner of every expert; the groups' owners
 * of one expert form its expert-DP group and reduce their gradients among themselves.
 *
 * Placement. owner: the shard owner (parameters, gradients, optimizer state) of an expert in a group.
 * copies: bit set of devices with a usable copy of the parameters during the step, owners included; what
 * is beyond the owners is materialized for the step (SparseAllGather) and holds no optimizer state. */
#ifndef MOE_MODELS_PLACEMENT_H
#define MOE_MODELS_PLACEMENT_H

#include "models/cluster.h"
#include "models/network.h"

typedef struct moe_layout {
    int devices;
    int ep;     /* devices of an EP group */
    int groups; /* devices / ep */
} moe_layout;

static inline int moe_layout_group(const moe_layout *layout, int device)
{
    return device / layout->ep;
}

typedef struct moe_placement {
    int layers;
    int experts;
    int groups;
    int devices;
    int words;        /* 64-bit words of a device set */
    int *owner;       /* [layer][group][expert] */
    uint64_t *copies; /* [layer][expert][words] */
} moe_placement;

/* Owned by `owner`; no owners yet (-1), no copies. */
moe_placement *moe_placement_create(void *owner, const moe_layout *layout, int layers, int experts);
void moe_placement_copy(moe_placement *to, const moe_placement *from); /* equal shapes */
bool moe_placement_equal(const moe_placement *a, const moe_placement *b);

/* Contiguous blocks: expert e of every layer and group lives on the group's device
 * floor(e * ep / experts). Copies are the owners. */
void moe_placement_even(moe_placement *placement, const moe_layout *layout);

static inline int *moe_placement_owner(const moe_placement *placement, int layer, int group, int expert)
{
    return &placement->owner[((size_t) layer * (size_t) placement->groups + (size_t) group) *
                                 (size_t) placement->experts +
                             (size_t) expert];
}
static inline uint64_t *moe_placement_copies(const moe_placement *placement, int layer, int expert)
{
    return &placement->copies[((size_t) layer * (size_t) placement->experts + (size_t) expert) *
                              (size_t) placement->words];
}

/* Sets every layer's copies to its owners alone. */
void moe_placement_reset_copies(moe_placement *placement);

/* Law 9, by code that made no placement: every expert has exactly one owner in every group, inside that
 * group and among the copies; no device outside the cluster; at most `slot_limit` experts owned by a
 * device over all layers (0: no limit). NULL, or a description (static buffer) of the first violation. */
const char *moe_placement_check(const moe_placement *placement, const moe_layout *layout,
                                int slot_limit);

/* Small device-set helpers. */
static inline bool moe_set_has(const uint64_t *set, int device)
{
    return (set[device / 64] >> (device % 64)) & 1;
}
static inline void moe_set_add(uint64_t *set, int device)
{
    set[device / 64] |= (uint64_t) 1 << (device % 64);
}
int moe_set_count(const uint64_t *set, int words);

#endif
