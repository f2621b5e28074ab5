#include "policies/policy.h"

/* Members of `copies` in [from, end), neither the owner nor in `except`; false: none. */
static bool wanted(uint64_t *want, const uint64_t *copies, const uint64_t *except, int owner,
                   int from, int end)
{
    bool any = false;
    for (int d = moe_set_next(copies, from, end); d < end; d = moe_set_next(copies, d + 1, end)) {
        if (d == owner || (except != NULL && moe_set_has(except, d)))
            continue;
        moe_set_add(want, d);
        any = true;
    }
    return any;
}

int moe_layer_chunks(moe_arena *arena, const moe_layout *layout, const moe_placement *placement,
                     int layer, const uint64_t *copies, const uint64_t *except,
                     const moe_chunk **chunks)
{
    size_t words = (size_t)placement->words;
    size_t most = (size_t)placement->groups * (size_t)placement->experts;
    moe_chunk *list = moe_arena_array(arena, moe_chunk, most);
    uint64_t *want = moe_arena_array(arena, uint64_t, words);
    int count = 0;
    for (int g = 0; g < placement->groups; g++) {
        for (int e = 0; e < placement->experts; e++) {
            int owner = *moe_placement_owner(placement, layer, g, e);
            const uint64_t *left_out = except == NULL ? NULL : except + (size_t)e * words;
            if (!wanted(want, copies + (size_t)e * words, left_out, owner, g * layout->ep,
                        (g + 1) * layout->ep))
                continue;
            list[count++] = (moe_chunk){owner, want};
            want = moe_arena_array(arena, uint64_t, words);
        }
    }
    *chunks = list;
    return count;
}
