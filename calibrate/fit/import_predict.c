#include "calibrate/fit/import.h"

#include "calibrate/fit/fit_private.h"
#include "models/collective.h"
#include <talloc.h>

static double predict_experts_s(const moe_costs *costs, const moe_sample *sample)
{
    enum { VALUE_BYTES = 2 };
    const moe_expert_shape shape = moe_fit_expert_shape(sample, VALUE_BYTES);
    return moe_cost_experts_s(costs, &shape, sample->rows, sample->experts);
}

static moe_traffic *uniform_all_to_all(moe_arena *arena, const moe_costs *costs,
                                       const moe_sample *sample)
{
    const int devices = costs->cluster->devices;
    double *bytes = moe_arena_array(arena, double, (size_t)devices *(size_t)devices);
    for (int i = 0; i < sample->ranks; i++) {
        for (int j = 0; j < sample->ranks; j++)
            bytes[i * devices + j] = sample->first.bytes / sample->ranks;
    }
    return sample->first.collective == MOE_ALL_TO_ALL
               ? moe_traffic_all_to_all(arena, costs, bytes, false)
               : moe_traffic_low_latency(arena, costs, bytes, false);
}

static moe_traffic *ring(moe_arena *arena, const moe_costs *costs, const moe_sample *sample)
{
    int *group = moe_arena_array(arena, int, (size_t)sample->ranks);
    for (int i = 0; i < sample->ranks; i++)
        group[i] = i;
    return moe_traffic_group(arena, costs, sample->first.collective, group, 1, sample->ranks,
                             sample->first.bytes);
}

static double predict_collective_s(const moe_costs *costs, const moe_sample *sample)
{
    if (sample->ranks > costs->cluster->devices)
        return -1;
    moe_arena *arena = moe_arena_create(NULL);
    const moe_traffic *traffic = NULL;
    switch (sample->first.collective) {
    case MOE_ALL_TO_ALL:
    case MOE_ALL_TO_ALL_LOW_LATENCY:
        traffic = uniform_all_to_all(arena, costs, sample);
        break;
    case MOE_ALL_GATHER:
    case MOE_REDUCE_SCATTER:
    case MOE_ALL_REDUCE:
        traffic = ring(arena, costs, sample);
        break;
    default:
        break;
    }
    const double seconds = traffic == NULL ? -1 : moe_traffic_alone_s(traffic, costs->cluster);
    talloc_free(arena);
    return seconds;
}

double moe_import_predict_s(const moe_costs *costs, const moe_sample *sample)
{
    switch (sample->kind) {
    case MOE_SAMPLE_GEMM:
        return moe_cost_gemm_s(costs, &(moe_gemm){sample->m, sample->n, sample->k, 1});
    case MOE_SAMPLE_EXPERTS:
        return predict_experts_s(costs, sample);
    case MOE_SAMPLE_COLLECTIVE:
        return predict_collective_s(costs, sample);
    default:
        return -1;
    }
}
