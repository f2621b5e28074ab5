/* Constants that measured devices taught, applied to one that nobody measured.
 *
 *   dense GEMM   fraction of peak and of memory bandwidth, start 3.5 us, p = 2.7: own fits on the bf16 GEMM tables
 *                of ai-dynamo/aiconfigurator @095f58a51c4c (Apache-2.0): A100 0.85 and 0.77, H100 0.79 and
 *                0.85, B200 0.72 and 0.77
 *   experts      start 25 us, 0.6 and 0.85, tiles of 128 rows: middle of fits on the same source's fused MoE
 *                tables (19 to 50 us, 0.5 to 0.7, 0.83 to 0.95)
 *   collectives  alpha on 8 GPUs and bus bandwidth of NCCL, in us and GB/s, own fits on the same source:
 *                  A100 (300 GB/s)  all-to-all 14.8, 172; all-gather 17.0, 169; reduce-scatter 16.2, 177;
 *                                   all-reduce 23.8, 190
 *                  H100 (450 GB/s)  9.4, 274; 11.8, 289; 11.0, 300; 17.5, 374
 *                  B200 (900 GB/s)  13.0, 483; 18.5, 541; 17.7, 538; 27.2, 584
 *                efficiency = bus bandwidth / link; start = alpha less the hops of 8 ranks, at least 1 us; broadcast
 *                and send/recv as all-gather, reduce as reduce-scatter, 5 us a chunk (a guess)
 *   between      all-to-all and point to point 0.9 of line rate (0.85 to 0.97 on six published systems), less
 *   hosts        below 128 MiB; rings: both columns "4Node-32GPU" of SimAI's ratio tables (aliyun/SimAI
 *                @cef83f9d, Apache-2.0)
 *   host         6 us a launch, 15 us a wait: orders of magnitude
 *   interference 20 SMs of 132, 1.5 times slower: DeepSeek-V3's training trace on H800
 *
 * A device of no known generation gets the means. */
#include "calibrate/fit/data_sheet.h"

#include "calibrate/fit/fit.h"
#include "configs/base/memory.h"
#include <math.h>
#include <string.h>
#include <talloc.h>

enum { ALL_TO_ALL, ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE, SEEDS, NAMES_MOST = 8 };

typedef struct generation {
    const char *names[NAMES_MOST]; /* parts of a device's name */
    double flop, memory;
    double alpha_s[SEEDS];
    double efficiency[SEEDS];
} generation;

static const generation generations[] = {
    {{"GB200", "GB300", "B200", "B300", NULL},
     0.72,
     0.77,
     {13.0e-6, 18.5e-6, 17.7e-6, 27.2e-6},
     {483 / 900.0, 541 / 900.0, 538 / 900.0, 584 / 900.0}},
    {{"GH200", "H100", "H200", "H800", "H20", NULL},
     0.79,
     0.85,
     {9.4e-6, 11.8e-6, 11.0e-6, 17.5e-6},
     {274 / 450.0, 289 / 450.0, 300 / 450.0, 374 / 450.0}},
    {{"A100", "A800", NULL},
     0.85,
     0.77,
     {14.8e-6, 17.0e-6, 16.2e-6, 23.8e-6},
     {172 / 300.0, 169 / 300.0, 177 / 300.0, 190 / 300.0}},
};
enum { GENERATIONS = sizeof generations / sizeof *generations };

static void add_scaled(generation *sum, const generation *part, double factor)
{
    sum->flop += part->flop * factor;
    sum->memory += part->memory * factor;
    for (int i = 0; i < SEEDS; i++) {
        sum->alpha_s[i] += part->alpha_s[i] * factor;
        sum->efficiency[i] += part->efficiency[i] * factor;
    }
}

static generation generation_of(const char *device)
{
    generation mean = {.names = {NULL}};
    for (int g = 0; g < GENERATIONS; g++) {
        for (const char *const *name = generations[g].names; device != NULL && *name != NULL;
             name++) {
            if (strstr(device, *name) != NULL)
                return generations[g];
        }
        add_scaled(&mean, &generations[g], 1.0 / GENERATIONS);
    }
    return mean;
}

static moe_points points_of(void *owner, const double (*pairs)[2], size_t count)
{
    moe_points points = {moe_need(talloc_array(owner, double, count)),
                         moe_need(talloc_array(owner, double, count)), count};
    for (size_t i = 0; i < count; i++) {
        points.x[i] = pairs[i][0];
        points.y[i] = pairs[i][1];
    }
    return points;
}

/* Fractions of the NIC's rate. */
static moe_points between_hosts(void *owner, bool ring)
{
    static const double pairwise[][2] = {
        {16777216, 0.67}, {33554432, 0.68}, {67108864, 0.83}, {134217728, 0.9}};
    static const double rings[][2] = {{16777216, 0.24},  {33554432, 0.38},  {67108864, 0.53},
                                      {134217728, 0.67}, {268435456, 0.77}, {536870912, 0.85},
                                      {1073741824, 0.93}};
    return ring ? points_of(owner, rings, sizeof rings / sizeof *rings)
                : points_of(owner, pairwise, sizeof pairwise / sizeof *pairwise);
}

/* Which of the seeds a kind takes. */
static int seed_of(int kind)
{
    switch (kind) {
    case MOE_ALL_TO_ALL:
        return ALL_TO_ALL;
    case MOE_REDUCE_SCATTER:
    case MOE_REDUCE:
        return REDUCE_SCATTER;
    case MOE_ALL_REDUCE:
        return ALL_REDUCE;
    default:
        return ALL_GATHER;
    }
}

static moe_collective_curve collective(void *owner, int kind, const generation *of,
                                       double latency_s)
{
    int seed = seed_of(kind);
    bool ring = kind == MOE_ALL_GATHER || kind == MOE_REDUCE_SCATTER || kind == MOE_ALL_REDUCE;
    bool chunks = kind == MOE_BROADCAST || kind == MOE_REDUCE;
    const double large[][2] = {{1 << 20, of->efficiency[seed]}};
    const double hops = seed == ALL_TO_ALL ? 1 : seed == ALL_REDUCE ? 14 : 7;
    return (moe_collective_curve){
        .start_s = fmax(of->alpha_s[seed] - hops * latency_s, 1e-6),
        .start_per_chunk_s = chunks ? 5e-6 : 0,
        .ranks = 8,
        .intra = points_of(owner, large, 1),
        .inter = between_hosts(owner, ring),
        .origin = MOE_ASSUMED,
        .inter_origin = MOE_ASSUMED,
    };
}

moe_profile *moe_data_sheet_profile(void *owner, const moe_cluster_spec *cluster)
{
    const generation of = generation_of(cluster->device.name);
    moe_profile *profile = moe_need(talloc_zero(owner, moe_profile));
    *profile = (moe_profile){
        .name = moe_need(talloc_asprintf(profile, "data-sheet-%s",
                                         cluster->device.name ? cluster->device.name : "device")),
        .source = "data sheet x efficiencies fitted on A100, H100 and B200 (AIConfigurator "
                  "@095f58a51c4c, SimAI @cef83f9d, both Apache-2.0)",
        .device =
            cluster->device.name ? moe_need(talloc_strdup(profile, cluster->device.name)) : NULL,
        .dense = {.start_s = 3.5e-6,
                  .flop_efficiency = of.flop,
                  .memory_efficiency = of.memory,
                  .norm = 2.7,
                  .origin = MOE_ASSUMED},
        .experts[MOE_FORWARD] = {.start_s = 25e-6,
                                 .flop_efficiency = 0.6,
                                 .memory_efficiency = 0.85,
                                 .norm = 2.7,
                                 .tile_rows = 128,
                                 .origin = MOE_ASSUMED},
        .memory = {.start_s = 3.5e-6, .memory_efficiency = of.memory, .origin = MOE_ASSUMED},
        .launch_s = 6e-6,
        .host_sync_s = 15e-6,
        .sm_share = cluster->device.sms > 22 ? 20.0 / (double)cluster->device.sms : 20.0 / 132,
        .slowdown = 1.5,
        .port_sharing = MOE_SHARE_PER_COLLECTIVE,
        .interference_origin = MOE_ASSUMED,
        .launch_origin = MOE_ASSUMED,
    };
    for (int phase = MOE_INPUT_GRADIENT; phase <= MOE_WEIGHT_GRADIENT; phase++)
        profile->experts[phase] = (moe_compute_curve){.start_s = 25e-6,
                                                      .memory_efficiency = 0.85,
                                                      .norm = 2.7,
                                                      .tile_rows = 128,
                                                      .origin = MOE_ASSUMED};
    profile->attention = (moe_compute_curve){
        .start_s = 3.5e-6, .memory_efficiency = of.memory, .norm = 2.7, .origin = MOE_ASSUMED};
    profile->gemm.value_bytes = 2; /* of GEMMs that the roofline prices */
    profile->gemm.origin = MOE_ASSUMED;
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++) {
        if (kind != MOE_ALL_TO_ALL_LOW_LATENCY)
            profile->collectives[kind] = collective(profile, kind, &of, cluster->intra.latency_s);
    }
    return profile;
}
