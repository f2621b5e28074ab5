/* Private to EP: persistent copies of hot experts. */
#ifndef MOE_POLICIES_PLACEMENT_EP_H
#define MOE_POLICIES_PLACEMENT_EP_H

#include "policies/policy.h"

typedef struct moe_ep_copies {
    const moe_problem *problem;
    const moe_history *history; /* not empty */
    moe_placement *placement;   /* owners alone come in; copies go out */
    moe_arena *arena;
    int redundant; /* copies beyond the owner's, of a layer and group */
} moe_ep_copies;

/* The transfers, in the arena, that bring the copies from their owners. */
moe_transfer *moe_ep_place_copies(const moe_ep_copies *copies, size_t *move_count);

#endif
