/* Plans in memory: what they hold, and how two differ. The file form is plan_json.c. */
#include "models/plan.h"

#include "configs/base/memory.h"
#include <string.h>
#include <talloc.h>

static int release(moe_plan *plan)
{
    if (plan->root == NULL) {
        json_decref(plan->policy.tunables);
        json_decref(plan->inputs);
    }
    json_decref(plan->root);
    return 0;
}

moe_plan *moe_plan_create(void *owner)
{
    moe_plan *plan = moe_need(talloc_zero(owner, moe_plan));
    talloc_set_destructor(plan, release);
    return plan;
}

/* --- copies ----------------------------------------------------------------------------------- */

static bool owns(const moe_placement *placement, int layer, int expert, int device)
{
    int group = device / (placement->devices / placement->groups);
    return *moe_placement_owner(placement, layer, group, expert) == device;
}

static bool has_copy(const moe_placement *placement, int layer, int expert, int device)
{
    return moe_set_has(moe_placement_copies(placement, layer, expert), device) &&
           !owns(placement, layer, expert, device);
}

int64_t moe_plan_copies(const moe_plan *plan)
{
    const moe_placement *placement = plan->placement;
    int64_t copies = 0;
    for (int l = 0; l < placement->layers; l++)
        for (int e = 0; e < placement->experts; e++)
            copies += moe_set_count(moe_placement_copies(placement, l, e), placement->words) -
                      placement->groups;
    return copies;
}

/* --- differences ------------------------------------------------------------------------------ */

bool moe_plan_comparable(const moe_plan *a, const moe_plan *b, moe_diag *diag)
{
    const struct {
        const char *noun;
        int64_t a, b;
    } shapes[] = {{"layers", a->model.layers, b->model.layers},
                  {"experts a layer", a->model.experts, b->model.experts},
                  {"devices", a->layout.devices, b->layout.devices},
                  {"devices an EP group", a->layout.ep, b->layout.ep}};
    bool equal = true;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (shapes[i].a == shapes[i].b)
            continue;
        moe_diag_error(diag, (moe_where){0},
                       "%s has %lld %s, %s has %lld; expected plans for the same experts and "
                       "devices",
                       a->path, (long long)shapes[i].a, shapes[i].noun, b->path,
                       (long long)shapes[i].b);
        equal = false;
    }
    for (int r = 0; equal && r < a->layout.devices; r++) {
        if (moe_plan_seat(a, r) == moe_plan_seat(b, r))
            continue;
        moe_diag_error(diag, (moe_where){0},
                       "%s seats rank %d on device %d, %s on device %d; expected the same seats",
                       a->path, r, moe_plan_seat(a, r), b->path, moe_plan_seat(b, r));
        equal = false;
    }
    return equal;
}

static void add_moves(const moe_placement *a, const moe_placement *b, int layer, json_t *moves)
{
    for (int g = 0; g < a->groups; g++) {
        for (int e = 0; e < a->experts; e++) {
            int from = *moe_placement_owner(a, layer, g, e);
            int to = *moe_placement_owner(b, layer, g, e);
            if (from != to)
                json_array_append_new(moves,
                                      json_pack("{s:i, s:i, s:i, s:i, s:i}", "layer", layer,
                                                "group", g, "expert", e, "from", from, "to", to));
        }
    }
}

/* Devices with a copy in `with` and none in `without`. */
static json_t *only_in(const moe_placement *with, const moe_placement *without, int layer,
                       int expert)
{
    json_t *devices = json_array();
    for (int d = 0; d < with->devices; d++) {
        if (has_copy(with, layer, expert, d) && !has_copy(without, layer, expert, d))
            json_array_append_new(devices, json_integer(d));
    }
    return devices;
}

typedef struct copy_changes {
    json_t *list;
    size_t added;
    size_t removed;
} copy_changes;

static void add_copies(const moe_placement *a, const moe_placement *b, int layer,
                       copy_changes *changes)
{
    for (int e = 0; e < a->experts; e++) {
        json_t *added = only_in(b, a, layer, e);
        json_t *removed = only_in(a, b, layer, e);
        size_t more = json_array_size(added), fewer = json_array_size(removed);
        json_t *change = json_pack("{s:i, s:i, s:o, s:o}", "layer", layer, "expert", e, "added",
                                   added, "removed", removed);
        changes->added += more;
        changes->removed += fewer;
        if (more + fewer > 0)
            json_array_append(changes->list, change);
        json_decref(change);
    }
}

json_t *moe_plan_difference(const moe_plan *a, const moe_plan *b)
{
    json_t *moves = json_array();
    copy_changes copies = {.list = json_array()};
    for (int l = 0; l < a->placement->layers; l++) {
        add_moves(a->placement, b->placement, l, moves);
        add_copies(a->placement, b->placement, l, &copies);
    }
    size_t moved = json_array_size(moves);
    return json_pack("{s:I, s:f, s:I, s:I, s:I, s:I, s:o, s:o}", "experts_moved", (json_int_t)moved,
                     "bytes_to_move", (double)moved * b->model.shard_bytes, "copies_added",
                     (json_int_t)copies.added, "copies_removed", (json_int_t)copies.removed,
                     "copies_before", (json_int_t)moe_plan_copies(a), "copies_after",
                     (json_int_t)moe_plan_copies(b), "moves", moves, "copies", copies.list);
}
