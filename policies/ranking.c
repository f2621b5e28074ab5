#include "policies/ranking.h"

#include <stdlib.h>

static int by_load(const void *left, const void *right)
{
    const moe_ranked *a = left;
    const moe_ranked *b = right;
    if (a->load != b->load)
        return a->load > b->load ? -1 : 1;
    return a->expert - b->expert;
}

moe_ranked *moe_rank_by_load(moe_arena *arena, const double *loads, int count)
{
    moe_ranked *ranking = moe_arena_array(arena, moe_ranked, (size_t)count);
    for (int i = 0; i < count; i++)
        ranking[i] = (moe_ranked){loads[i], i};
    qsort(ranking, (size_t)count, sizeof *ranking, by_load);
    return ranking;
}
