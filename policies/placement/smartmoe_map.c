#include "policies/placement/smartmoe.h"

#include "policies/ranking.h"

#include <math.h>
#include <string.h>

static double fullest(moe_arena *arena, const double *loads, int experts, int devices,
                      const int *device_of)
{
    double *sums = moe_arena_array(arena, double, (size_t)devices);
    double most = 0;
    for (int e = 0; e < experts; e++)
        sums[device_of[e]] += loads[e];
    for (int d = 0; d < devices; d++)
        most = fmax(most, sums[d]);
    return most;
}

/* `home`: where the expert is; it wins among equals. */
static int least_loaded(const double *sums, const int *taken, int devices, int room, int home)
{
    int best = taken[home] < room ? home : -1;
    for (int d = 0; d < devices; d++) {
        if (taken[d] < room && (best < 0 || sums[d] < sums[best]))
            best = d;
    }
    return best;
}

static void spread(moe_arena *arena, const double *loads, int experts, int devices,
                   const int *today, int *tomorrow)
{
    double *sums = moe_arena_array(arena, double, (size_t)devices);
    int *taken = moe_arena_array(arena, int, (size_t)devices);
    const moe_ranked *ranking = moe_rank_by_load(arena, loads, experts);
    for (int i = 0; i < experts; i++) {
        int e = ranking[i].expert;
        int d = least_loaded(sums, taken, devices, experts / devices, today[e]);
        tomorrow[e] = d;
        sums[d] += loads[e];
        taken[d]++;
    }
}

bool moe_smartmoe_map(moe_arena *arena, const double *loads, int experts, int devices,
                      int *device_of)
{
    int *tomorrow = moe_arena_array(arena, int, (size_t)experts);
    spread(arena, loads, experts, devices, device_of, tomorrow);
    if (!(fullest(arena, loads, experts, devices, tomorrow) <
          fullest(arena, loads, experts, devices, device_of)))
        return false;
    memcpy(device_of, tomorrow, (size_t)experts * sizeof *device_of);
    return true;
}
