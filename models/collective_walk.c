#include "models/collective_walk.h"

#include "models/cluster_mesh.h"
#include "models/cluster_ranks.h"
#include <string.h>

moe_group_walk moe_group_walk_create(moe_arena *arena, const moe_cluster *cluster, int size,
                                     bool by_device)
{
    return (moe_group_walk){.cluster = cluster,
                            .by_device = by_device,
                            .size = size,
                            .members = moe_arena_array(arena, int, (size_t)size),
                            .runs = moe_arena_array(arena, moe_group_run, (size_t)size),
                            .order = moe_arena_array(arena, int, (size_t)size)};
}

/* ---- runs and channels ----------------------------------------------------------------------- */

static int nic_of(const moe_group_walk *walk, int member)
{
    return walk->cluster->places[walk->members[member]].nic;
}

static void find_runs(moe_group_walk *walk)
{
    walk->run_count = 0;
    int last_domain = -1;
    for (int i = 0; i < walk->size; i++) {
        int domain = moe_cluster_domain(walk->cluster, walk->members[i]);
        if (domain != last_domain) {
            walk->runs[walk->run_count++] = (moe_group_run){.first = i};
            last_domain = domain;
        }
        moe_group_run *run = &walk->runs[walk->run_count - 1];
        run->nics += run->count == 0 || nic_of(walk, i) != nic_of(walk, i - 1);
        run->count++;
    }
}

static bool is_whole_mesh(const moe_group_walk *walk, const moe_group_run *run)
{
    return walk->cluster->mesh && run->count == MOE_MESH_DEVICES;
}

/* Within one run nothing leaves by a NIC, and one channel does all that several would. */
static int count_channels(const moe_group_walk *walk)
{
    int channels = 1;
    bool meshes = true;
    for (int r = 0; r < walk->run_count; r++) {
        const moe_group_run *run = &walk->runs[r];
        int ways = walk->by_device ? run->count : walk->run_count > 1 ? run->nics : 1;
        channels = ways > channels ? ways : channels;
        meshes = meshes && is_whole_mesh(walk, run);
    }
    return meshes ? channels * MOE_MESH_RINGS : channels;
}

void moe_group_walk_take(moe_group_walk *walk, const int *group)
{
    memcpy(walk->members, group, (size_t)walk->size * sizeof *group);
    moe_cluster_sort(walk->cluster, walk->members, walk->size);
    find_runs(walk);
    walk->channels = count_channels(walk);
}

/* ---- the order of a channel ------------------------------------------------------------------ */

/* The place in the run of the first member that uses the run's `wanted`-th NIC. */
static int first_on_nic(const moe_group_walk *walk, const moe_group_run *run, int wanted)
{
    int seen = 0;
    for (int i = 1; i < run->count; i++) {
        seen += nic_of(walk, run->first + i) != nic_of(walk, run->first + i - 1);
        if (seen == wanted)
            return wanted == 0 ? 0 : i;
    }
    return 0;
}

static int start_of(const moe_group_walk *walk, const moe_group_run *run, int channel)
{
    return walk->by_device ? channel % run->count : first_on_nic(walk, run, channel % run->nics);
}

static void order_in_sequence(moe_group_walk *walk, const moe_group_run *run, int start,
                              bool backwards)
{
    for (int i = 0; i < run->count; i++) {
        int at = backwards ? start - 1 - i + run->count : start + i;
        walk->order[run->first + i] = walk->members[run->first + at % run->count];
    }
}

static void order_along_mesh(moe_group_walk *walk, const moe_group_run *run, int start, int ring)
{
    int local = start;
    for (int i = 0; i < run->count; i++) {
        walk->order[run->first + i] = walk->members[run->first + local];
        local = moe_mesh_next(ring, local);
    }
}

void moe_group_walk_order(moe_group_walk *walk, int channel)
{
    bool turns = walk->cluster->rails > 1 && !walk->by_device;
    for (int r = 0; r < walk->run_count; r++) {
        const moe_group_run *run = &walk->runs[r];
        if (is_whole_mesh(walk, run))
            order_along_mesh(walk, run, start_of(walk, run, channel / MOE_MESH_RINGS),
                             channel % MOE_MESH_RINGS);
        else
            order_in_sequence(walk, run, start_of(walk, run, channel), turns && r % 2 == 1);
    }
}

void moe_group_share_touches(moe_arena *arena, const moe_traffic_draft *draft, const int *groups,
                             int group_count, int group_size)
{
    int words = draft->traffic->words;
    size_t row_bytes = (size_t)words * sizeof(uint64_t);
    uint64_t *all = moe_arena_array(arena, uint64_t, (size_t)words);
    for (int g = 0; g < group_count; g++) {
        const int *group = groups + (size_t)g * (size_t)group_size;
        memset(all, 0, row_bytes);
        for (int i = 0; i < group_size; i++)
            moe_traffic_merge(all, moe_traffic_row(draft, group[i]), words);
        for (int i = 0; i < group_size; i++)
            memcpy(moe_traffic_row(draft, group[i]), all, row_bytes);
    }
}
