#include "configs/base/arena.h"
#include "configs/base/memory.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)   ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)0)
#endif

enum { ALIGNMENT = 64, FIRST_BLOCK_BYTES = 64 * 1024 };

/* Its bytes follow it, at the next multiple of ALIGNMENT. */
typedef struct block {
    struct block *before;
    size_t capacity;
    size_t used;
} block;

struct moe_arena {
    block *current; /* the newest; earlier ones are full */
    size_t used, peak;
};

static char *bytes_of(block *b)
{
    return (char *)b + ALIGNMENT;
}

static void free_blocks(moe_arena *arena)
{
    while (arena->current) {
        block *before = arena->current->before;
        ASAN_UNPOISON_MEMORY_REGION(bytes_of(arena->current), arena->current->capacity);
        free(arena->current);
        arena->current = before;
    }
}

static int destroy(moe_arena *arena)
{
    free_blocks(arena);
    return 0;
}

moe_arena *moe_arena_create(void *owner)
{
    moe_arena *arena = moe_need(talloc_zero(owner, moe_arena));
    talloc_set_destructor(arena, destroy);
    return arena;
}

static void add_block(moe_arena *arena, size_t capacity)
{
    block *b = moe_need(aligned_alloc(ALIGNMENT, ALIGNMENT + capacity));
    *b = (block){.before = arena->current, .capacity = capacity};
    ASAN_POISON_MEMORY_REGION(bytes_of(b), capacity);
    arena->current = b;
}

/* Makes room for `bytes`, doubling so that a step takes few blocks. */
static void grow(moe_arena *arena, size_t bytes)
{
    const size_t last = arena->current ? arena->current->capacity : FIRST_BLOCK_BYTES / 2;
    const size_t doubled = last <= SIZE_MAX / 8 ? last * 2 : last;
    add_block(arena, doubled > bytes ? doubled : bytes);
}

void *moe_arena_alloc(moe_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 4) {
        moe_out_of_memory();
    }
    const size_t rounded = bytes == 0 ? ALIGNMENT : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (!arena->current || arena->current->capacity - arena->current->used < rounded) {
        grow(arena, rounded);
    }
    char *memory = bytes_of(arena->current) + arena->current->used;
    arena->current->used += rounded;
    arena->used += rounded;
    arena->peak = arena->used > arena->peak ? arena->used : arena->peak;
    ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
    return memset(memory, 0, bytes);
}

void moe_arena_reset(moe_arena *arena)
{
    if (arena->current && arena->current->before) { /* one block that holds the next step whole */
        const size_t capacity = arena->peak;
        free_blocks(arena);
        add_block(arena, capacity);
    }
    if (arena->current) {
        ASAN_POISON_MEMORY_REGION(bytes_of(arena->current), arena->current->capacity);
        arena->current->used = 0;
    }
    arena->used = 0;
}

size_t moe_arena_peak_bytes(const moe_arena *arena)
{
    return arena->peak;
}
