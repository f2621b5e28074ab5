/* Experts of a training step where nobody measured them: sums of measured GEMMs. */
#include "calibrate/fit/fit_private.h"

#include "calibrate/fit/fit.h"
#include "configs/base/memory.h"
#include "models/network_gemm.h"
#include "models/profile_curve.h"
#include <talloc.h>

/* Experts of published models: GPT-MoE-S and L, DeepSeek-V2-Lite, Qwen3-30B, Mixtral-8x7B, DeepSeek-V3. */
static const struct {
    double hidden, ffn;
    bool gated;
} shapes[] = {{768, 1536, false}, {1536, 3072, false}, {2048, 1408, true},
              {2048, 768, true},  {4096, 14336, true}, {7168, 2048, true}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static const int expert_counts[] = {1, 8};
enum { COUNTS = sizeof expert_counts / sizeof *expert_counts, EXPERTS_MOST = 8 };

/* Rows of an expert: 4, 16, ..., 16,384. */
enum { ROWS_LEAST = 4, ROWS_MOST = 16384, ROWS_FACTOR = 4 };

/* Up and down, gated: gate beside up. */
static double one_expert_s(const moe_costs *costs, int shape, double rows, moe_phase phase)
{
    double hidden = shapes[shape].hidden, ffn = shapes[shape].ffn;
    const moe_gemm up = {rows, ffn, hidden, shapes[shape].gated ? 2 : 1};
    const moe_gemm down = {rows, hidden, ffn, 1};
    moe_gemm up_here = moe_gemm_in_phase(&up, phase);
    moe_gemm down_here = moe_gemm_in_phase(&down, phase);
    return moe_cost_gemm_s(costs, &up_here) + moe_cost_gemm_s(costs, &down_here);
}

static void add_sample(moe_samples *samples, const moe_costs *costs, int shape, int experts,
                       double rows, moe_phase phase)
{
    double each[EXPERTS_MOST];
    for (int e = 0; e < experts; e++)
        each[e] = rows;
    const moe_sample sample = {.kind = MOE_SAMPLE_EXPERTS,
                               .dtype = "bf16",
                               .ranks = 1,
                               .hosts = 1,
                               .repetitions = 1,
                               .phase = phase,
                               .hidden = shapes[shape].hidden,
                               .ffn = shapes[shape].ffn,
                               .gated = shapes[shape].gated,
                               .rows = each,
                               .experts = experts,
                               .seconds = experts * one_expert_s(costs, shape, rows, phase)};
    moe_samples_add(samples, &sample);
}

bool moe_fit_experts_from_grid(void *owner, const moe_profile *profile,
                               const moe_device_spec *device, moe_phase phase,
                               moe_compute_curve *curve)
{
    if (!moe_gemm_grid_exists(&profile->gemm))
        return false;
    moe_fit_bench *bench = moe_need(talloc_zero(NULL, moe_fit_bench));
    moe_samples *samples = moe_samples_create(bench);
    moe_fit_bench_open(bench, device);
    bench->profile.gemm = profile->gemm;
    bench->profile.dense = profile->dense; /* beyond the grid */
    for (int shape = 0; shape < SHAPES; shape++)
        for (int count = 0; count < COUNTS; count++)
            for (double rows = ROWS_LEAST; rows <= ROWS_MOST; rows *= ROWS_FACTOR)
                add_sample(samples, &bench->costs, shape, expert_counts[count], rows, phase);
    bool fitted = moe_fit_experts(owner, samples, phase, device, profile->gemm.value_bytes, curve);
    curve->origin = MOE_DERIVED;
    curve->evidence.samples.count = 0; /* nobody measured them */
    curve->evidence.machine = "sums of the GEMM grid, one expert after another";
    talloc_free(bench);
    return fitted;
}
