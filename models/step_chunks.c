/* Which chunks a sparse collective of a micro-batch's layer moves. A chunk carries no name: chunks
 * of the same owner that the same devices want are interchangeable, and are told apart by their
 * number. */
#include "models/step_builder.h"

#include <string.h>

static const moe_routed_layer *routed_layer(const moe_step_builder *builder, int micro_batch,
                                            int layer)
{
    return &builder->step->routed[(size_t)micro_batch * (size_t)builder->layers + (size_t)layer];
}

static int chunk_count(const moe_step_builder *builder, int micro_batch, int layer)
{
    const moe_routed_layer *routed = routed_layer(builder, micro_batch, layer);
    return routed->materialized_count + routed->calibrated_count;
}

static const moe_chunk *chunk_at(const moe_routed_layer *routed, int i)
{
    return i < routed->materialized_count ? &routed->materialized[i]
                                          : &routed->calibrated[i - routed->materialized_count];
}

moe_chunk_list moe_step_gathered_chunks(moe_step_builder *builder, int layer)
{
    const moe_routed_layer *routed = routed_layer(builder, builder->micro_batch, layer);
    if (routed->calibrated_count == 0) {
        return (moe_chunk_list){routed->materialized, routed->materialized_count};
    }
    int count = routed->materialized_count + routed->calibrated_count;
    moe_chunk *items = moe_arena_array(builder->arena, moe_chunk, (size_t)count);
    for (int i = 0; i < count; i++) {
        items[i] = *chunk_at(routed, i);
    }
    return (moe_chunk_list){items, count};
}

/* --- the union over micro-batches ------------------------------------------------------------- */

typedef struct chunk_union {
    moe_chunk *items;
    int *taken; /* [count] the last micro-batch, from 1, that has this chunk */
    int count;
    int words;
} chunk_union;

static bool is_same(const chunk_union *all, int i, const moe_chunk *chunk)
{
    return all->items[i].owner == chunk->owner &&
           memcmp(all->items[i].want, chunk->want, (size_t)all->words * sizeof *chunk->want) == 0;
}

/* Micro-batches mostly have the same chunks in the same order, so the place `hint` is tried first.
 */
static void join_chunk(chunk_union *all, const moe_chunk *chunk, int hint, int micro_batch)
{
    int place = all->count;
    if (hint < all->count && all->taken[hint] < micro_batch && is_same(all, hint, chunk)) {
        place = hint;
    }
    for (int i = 0; place == all->count && i < all->count; i++) {
        if (all->taken[i] < micro_batch && is_same(all, i, chunk)) {
            place = i;
        }
    }
    if (place == all->count) {
        all->items[all->count++] = *chunk;
    }
    all->taken[place] = micro_batch;
}

static moe_chunk_list chunks_of_all(moe_step_builder *builder, int layer)
{
    int micro_batches = builder->options->micro_batches;
    size_t most = 0;
    for (int m = 0; m < micro_batches; m++) {
        most += (size_t)chunk_count(builder, m, layer);
    }
    chunk_union all = {.items = moe_arena_array(builder->arena, moe_chunk, most),
                       .taken = moe_arena_array(builder->arena, int, most),
                       .words = builder->placement->words};
    for (int m = 0; m < micro_batches; m++) {
        const moe_routed_layer *routed = routed_layer(builder, m, layer);
        for (int i = 0; i < chunk_count(builder, m, layer); i++) {
            join_chunk(&all, chunk_at(routed, i), i, m + 1);
        }
    }
    return (moe_chunk_list){all.items, all.count};
}

moe_chunk_list moe_step_reduced_chunks(moe_step_builder *builder, int layer)
{
    bool holds = builder->schedule->accumulate == MOE_REDUCE_HOLD;
    if (!holds || builder->options->micro_batches == 1) {
        return moe_step_gathered_chunks(builder, layer);
    }
    return moe_step_is_last_micro_batch(builder) ? chunks_of_all(builder, layer)
                                                 : (moe_chunk_list){0};
}
