#include "models/placement.h"

#include "configs/base/memory.h"
#include <stdarg.h>
#include <string.h>
#include <talloc.h>

static size_t owner_count(const moe_placement *placement)
{
    return (size_t)placement->layers * (size_t)placement->groups * (size_t)placement->experts;
}

static size_t copy_words(const moe_placement *placement)
{
    return (size_t)placement->layers * (size_t)placement->experts * (size_t)placement->words;
}

moe_placement *moe_placement_create(void *owner, const moe_layout *layout, int layers, int experts)
{
    moe_placement *placement = moe_need(talloc(owner, moe_placement));
    *placement = (moe_placement){.layers = layers,
                                 .experts = experts,
                                 .groups = layout->groups,
                                 .devices = layout->devices,
                                 .words = (layout->devices + 63) / 64};
    size_t owners = owner_count(placement);
    placement->owner = moe_need(talloc_array(placement, int, owners));
    for (size_t i = 0; i < owners; i++) {
        placement->owner[i] = -1;
    }
    placement->copies = moe_need(talloc_zero_array(placement, uint64_t, copy_words(placement)));
    return placement;
}

void moe_placement_copy(moe_placement *to, const moe_placement *from)
{
    memcpy(to->owner, from->owner, owner_count(from) * sizeof *from->owner);
    memcpy(to->copies, from->copies, copy_words(from) * sizeof *from->copies);
}

bool moe_placement_equal(const moe_placement *a, const moe_placement *b)
{
    return a->layers == b->layers && a->experts == b->experts && a->groups == b->groups &&
           a->devices == b->devices &&
           memcmp(a->owner, b->owner, owner_count(a) * sizeof *a->owner) == 0 &&
           memcmp(a->copies, b->copies, copy_words(a) * sizeof *a->copies) == 0;
}

void moe_placement_even(moe_placement *placement, const moe_layout *layout)
{
    for (int layer = 0; layer < placement->layers; layer++) {
        for (int group = 0; group < placement->groups; group++) {
            for (int expert = 0; expert < placement->experts; expert++) {
                int position = (int)((int64_t)expert * layout->ep / placement->experts);
                *moe_placement_owner(placement, layer, group, expert) =
                    group * layout->ep + position;
            }
        }
    }
    moe_placement_reset_copies(placement);
}

void moe_placement_reset_copies(moe_placement *placement)
{
    memset(placement->copies, 0, copy_words(placement) * sizeof *placement->copies);
    for (int layer = 0; layer < placement->layers; layer++) {
        for (int group = 0; group < placement->groups; group++) {
            for (int expert = 0; expert < placement->experts; expert++) {
                int owner = *moe_placement_owner(placement, layer, group, expert);
                if (owner >= 0) {
                    moe_set_add(moe_placement_copies(placement, layer, expert), owner);
                }
            }
        }
    }
}

int moe_set_count(const uint64_t *set, int words)
{
    int count = 0;
    for (int w = 0; w < words; w++) {
        count += __builtin_popcountll(set[w]);
    }
    return count;
}

/* --- checking --------------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2))) static const char *violation(const char *format, ...)
{
    static char text[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return text;
}

static const char *check_shape(const moe_placement *placement, const moe_layout *layout)
{
    if (layout->ep < 1 || layout->groups < 1 || layout->ep * layout->groups != layout->devices) {
        return violation("a layout of %d devices is not %d groups of %d", layout->devices,
                         layout->groups, layout->ep);
    }
    if (placement->devices != layout->devices || placement->groups != layout->groups ||
        placement->words * 64 < layout->devices) {
        return violation("the placement is for %d devices in %d groups, the layout has %d in %d",
                         placement->devices, placement->groups, layout->devices, layout->groups);
    }
    return NULL;
}

static const char *check_owner(const moe_placement *placement, const moe_layout *layout, int layer,
                               int group, int expert)
{
    int owner = *moe_placement_owner(placement, layer, group, expert);
    if (owner < 0 || owner >= layout->devices) {
        return violation("layer %d, expert %d has no owner in group %d (%d)", layer, expert, group,
                         owner);
    }
    if (moe_layout_group(layout, owner) != group) {
        return violation("layer %d, expert %d: the owner of group %d is device %d of group %d",
                         layer, expert, group, owner, moe_layout_group(layout, owner));
    }
    if (!moe_set_has(moe_placement_copies(placement, layer, expert), owner)) {
        return violation("layer %d, expert %d: the owner, device %d, is not among the copies",
                         layer, expert, owner);
    }
    return NULL;
}

static const char *check_copies(const moe_placement *placement, int layer, int expert)
{
    const uint64_t *copies = moe_placement_copies(placement, layer, expert);
    for (int device = placement->devices; device < placement->words * 64; device++) {
        if (moe_set_has(copies, device)) {
            return violation("layer %d, expert %d has a copy on device %d of %d", layer, expert,
                             device, placement->devices);
        }
    }
    return NULL;
}

static const char *check_expert(const moe_placement *placement, const moe_layout *layout, int layer,
                                int expert)
{
    const char *wrong = check_copies(placement, layer, expert);
    for (int group = 0; wrong == NULL && group < placement->groups; group++) {
        wrong = check_owner(placement, layout, layer, group, expert);
    }
    return wrong;
}

static const char *check_slots(const moe_placement *placement, int slot_limit)
{
    int *owned = moe_need(talloc_zero_array(NULL, int, (size_t)placement->devices));
    size_t owners = owner_count(placement);
    for (size_t i = 0; i < owners; i++) {
        owned[placement->owner[i]]++;
    }
    const char *wrong = NULL;
    for (int device = 0; wrong == NULL && device < placement->devices; device++) {
        if (owned[device] > slot_limit) {
            wrong = violation("device %d owns %d experts, its slots are %d", device, owned[device],
                              slot_limit);
        }
    }
    talloc_free(owned);
    return wrong;
}

const char *moe_placement_check(const moe_placement *placement, const moe_layout *layout,
                                int slot_limit)
{
    const char *wrong = check_shape(placement, layout);
    for (int layer = 0; wrong == NULL && layer < placement->layers; layer++) {
        for (int expert = 0; wrong == NULL && expert < placement->experts; expert++) {
            wrong = check_expert(placement, layout, layer, expert);
        }
    }
    return wrong == NULL && slot_limit > 0 ? check_slots(placement, slot_limit) : wrong;
}
