/* What bounds FSSDP: the overlap degree t, which time sets, and the slots m, which memory sets. */
#include "models/cluster_ranks.h"
#include "policies/placement/fssdp.h"

#include <math.h>
#include <string.h>
#include <talloc.h>

/* --- overlap degree ------------------------------------------------------------------------- */

/* Homes of `count` experts of which nobody knows them yet: hosts by turns and the devices of each by
 * turns, so that the experts 0 .. t - 1 lie as evenly as they can. */
static void find_homes(const moe_problem *problem, moe_arena *arena, int group, int count,
                       int *homes)
{
    int ep = problem->layout.ep;
    int *ranks = moe_arena_array(arena, int, (size_t)ep);
    int *first = moe_arena_array(arena, int, (size_t)ep + 1); /* of each host, in `ranks` */
    int hosts = 0;
    moe_cluster_by_host(problem->cluster, group * ep, ep, ranks);
    while (first[hosts] < ep) {
        first[hosts + 1] = moe_cluster_host_end(problem->cluster, ranks, ep, first[hosts]);
        hosts++;
    }
    for (int i = 0; i < count; i++) {
        int from = first[i % hosts];
        homes[i] = ranks[from + i / hosts % (first[i % hosts + 1] - from)];
    }
}

/* Seconds until `count` experts of every group are on all devices of their groups. */
static double everywhere_s(const moe_problem *problem, moe_arena *arena,
                           const moe_schedule *schedule, int count)
{
    const moe_layout *layout = &problem->layout;
    size_t words = ((size_t)layout->devices + 63) / 64;
    moe_chunk *chunks = moe_arena_array(arena, moe_chunk, (size_t)(layout->groups * count));
    int *homes = moe_arena_array(arena, int, (size_t)count);
    for (int g = 0; g < layout->groups; g++) {
        uint64_t *all = moe_arena_array(arena, uint64_t, words);
        for (int d = 0; d < layout->ep; d++)
            moe_set_add(all, g * layout->ep + d);
        find_homes(problem, arena, g, count, homes);
        for (int i = 0; i < count; i++)
            chunks[g * count + i] = (moe_chunk){homes[i], all};
    }
    return moe_problem_chunks_s(problem, arena, schedule, chunks, layout->groups * count);
}

/* The largest t whose spAG ends within attention; seconds grow with t, so bisection finds it. */
static int overlap_by_profile(const moe_problem *problem, const moe_schedule *schedule,
                              double attention_s)
{
    int fits = 0;
    int exceeds = moe_fssdp_experts(problem) + 1;
    moe_arena *arena = moe_arena_create(NULL);
    while (exceeds - fits > 1) {
        int middle = (fits + exceeds) / 2;
        double spag_s =
            moe_fssdp_slowdown(problem) * everywhere_s(problem, arena, schedule, middle);
        if (spag_s <= attention_s)
            fits = middle;
        else
            exceeds = middle;
        moe_arena_reset(arena);
    }
    talloc_free(arena);
    return fits;
}

int moe_fssdp_overlap_degree(const moe_problem *problem, const moe_fssdp_tunables *tunables,
                             const moe_schedule *schedule, double attention_s)
{
    int experts = moe_fssdp_experts(problem);
    if (tunables->overlap_degree > 0)
        return tunables->overlap_degree < experts ? (int)tunables->overlap_degree : experts;
    if (tunables->overlap_bandwidth == MOE_FSSDP_BY_PROFILE)
        return overlap_by_profile(problem, schedule, attention_s);
    double rate = moe_problem_line_rate(problem, tunables->overlap_bandwidth == MOE_FSSDP_LINE_RATE_HOST);
    double t = floor(attention_s * rate / moe_network_expert_bytes(problem->network));
    return t < experts ? (int)t : experts;
}

/* --- slots ---------------------------------------------------------------------------------- */

/* An expert's copies in a group take its rows in equal parts. */
static void add_expert_rows(const uint64_t *copies, int first, int last, double load, double *rows)
{
    int count = moe_set_count_between(copies, first, last);
    for (int d = moe_set_next(copies, first, last); d < last; d = moe_set_next(copies, d + 1, last))
        rows[d] += load / count;
}

static void add_layer_rows(const moe_problem *problem, const moe_history *history,
                           const moe_placement *placement, int layer, double *rows)
{
    int ep = problem->layout.ep;
    for (int g = 0; g < problem->layout.groups; g++) {
        const double *loads = moe_history_loads(history, 1, layer, g);
        for (int e = 0; e < placement->experts; e++)
            add_expert_rows(moe_placement_copies(placement, layer, e), g * ep, (g + 1) * ep,
                            loads[e] / problem->options.micro_batches, rows);
    }
}

moe_fssdp_rows moe_fssdp_measured_rows(const moe_problem *problem, const moe_history *history,
                                       const moe_placement *placement, moe_arena *arena)
{
    size_t devices = (size_t)problem->layout.devices;
    double *rows = moe_arena_array(arena, double, devices);
    double *total = moe_arena_array(arena, double, devices);
    moe_fssdp_rows peak = {0};
    for (int l = 0; l < placement->layers; l++) {
        memset(rows, 0, devices * sizeof *rows);
        add_layer_rows(problem, history, placement, l, rows);
        for (size_t d = 0; d < devices; d++) {
            total[d] += rows[d];
            peak.most = fmax(peak.most, rows[d]);
            peak.mean = fmax(peak.mean, total[d] / placement->layers);
        }
    }
    return peak;
}

static double peak_bytes(const moe_problem *problem, moe_fssdp_rows rows)
{
    double owned = (double)moe_network_moe_layers(problem->network) *
                   (double)problem->network->experts / problem->layout.ep;
    moe_memory typical = moe_memory_estimate(problem->cluster, problem->network, &problem->layout,
                                             &problem->options, &problem->memory, owned, rows.mean);
    moe_memory hottest = moe_memory_estimate(problem->cluster, problem->network, &problem->layout,
                                             &problem->options, &problem->memory, owned, rows.most);
    return typical.peak - typical.buffers + hottest.buffers;
}

static double slot_bytes(const moe_fssdp *state, const moe_problem *problem)
{
    return moe_step_serves(&problem->options)
               ? moe_memory_serving_slot_bytes(problem->network, &state->schedule)
               : moe_memory_slot_bytes(problem->network, &state->schedule);
}

/* m from what the highest peak so far leaves: experts of every layer that fit beside it. */
void moe_fssdp_update_slots(moe_fssdp *state, const moe_problem *problem, moe_fssdp_rows rows)
{
    if (state->tunables->slots > 0)
        return;
    state->peak_bytes = fmax(state->peak_bytes, peak_bytes(problem, rows));
    double left = problem->cluster->spec->device.memory_bytes - state->peak_bytes;
    double slots = floor(left / slot_bytes(state, problem));
    int experts = moe_fssdp_experts(problem);
    state->slots = slots < 0 ? 0 : slots < experts ? (int)slots : experts;
    if (state->tunables->slots_count == MOE_FSSDP_WITH_SHARD)
        state->slots += experts / problem->layout.ep;
}

/* Slots that are left on the devices of a group, given what they hold of the layer. */
static int *free_slots(const moe_fssdp *state, const moe_placement *placement, int layer, int group,
                       const moe_layout *layout, moe_arena *arena)
{
    int *slots = moe_arena_array(arena, int, (size_t)layout->ep);
    int first = group * layout->ep;
    int last = first + layout->ep;
    bool beyond = state->tunables->slots_count == MOE_FSSDP_BEYOND_SHARD;
    for (int d = 0; d < layout->ep; d++)
        slots[d] = state->slots;
    for (int e = 0; e < placement->experts; e++) {
        const uint64_t *set = moe_placement_copies(placement, layer, e);
        int owner = *moe_placement_owner(placement, layer, group, e);
        for (int d = moe_set_next(set, first, last); d < last; d = moe_set_next(set, d + 1, last))
            slots[d - first] -= !(beyond && d == owner);
    }
    return slots;
}

moe_fssdp_layer moe_fssdp_group(const moe_fssdp *state, const moe_problem *problem,
                                const moe_placement *placement, int layer, int group,
                                moe_arena *arena)
{
    const moe_layout *layout = &problem->layout;
    return (moe_fssdp_layer){
        .cluster = problem->cluster,
        .first = group * layout->ep,
        .devices = layout->ep,
        .experts = placement->experts,
        .words = placement->words,
        .overlap = state->overlap,
        .top_set = state->tunables->top_set,
        .replicas = state->tunables->replicas,
        .free_slots = free_slots(state, placement, layer, group, layout, arena),
    };
}
