/* A bump allocator for what lives exactly one simulated step: no frees inside, one reset at its
 * end. Memory is kept across resets, so a loop stops allocating after its first, largest step. */
#ifndef MOE_CONFIGS_BASE_ARENA_H
#define MOE_CONFIGS_BASE_ARENA_H

#include <stddef.h>

typedef struct moe_arena moe_arena;

moe_arena *moe_arena_create(void *owner);
/* Zeroed, 64-byte aligned, valid until the next reset; `count * size` is checked; ends the program
 * with exit code 70 and a message when memory is out, so callers need no error path. */
void *moe_arena_alloc(moe_arena *arena, size_t count, size_t size);
void moe_arena_reset(moe_arena *arena);
size_t moe_arena_peak_bytes(const moe_arena *arena);

#define moe_arena_array(arena, type, count)                                                        \
    ((type *)moe_arena_alloc((arena), (count), sizeof(type)))

#endif
