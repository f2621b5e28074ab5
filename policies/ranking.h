/* Experts (or anything numbered that has a load) by load, heaviest first; equal loads by number. */
#ifndef MOE_POLICIES_RANKING_H
#define MOE_POLICIES_RANKING_H

#include "configs/base/arena.h"

typedef struct moe_ranked {
    double load;
    int expert; /* its number */
} moe_ranked;

/* [count], in `arena`. */
moe_ranked *moe_rank_by_load(moe_arena *arena, const double *loads, int count);

#endif
