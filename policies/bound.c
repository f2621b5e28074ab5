#include "policies/bound.h"

#include "models/dense_cost.h"
#include <math.h>

/* The fraction of peak that the curve never exceeds. */
static double best_efficiency(const moe_compute_curve *curve)
{
    double best = curve->efficiency.count > 0 ? 0 : curve->flop_efficiency;
    for (size_t i = 0; i < curve->efficiency.count; i++)
        best = fmax(best, curve->efficiency.y[i]);
    return best;
}

static double matrix_s(const moe_problem *problem, const moe_compute_curve *curve, double flop)
{
    double peak = problem->cluster->spec->device.peak_flop_per_s;
    return flop / (best_efficiency(curve) * peak);
}

/* Of one device: its own tokens, whatever the policy. */
static double dense_flop(const moe_problem *problem)
{
    const moe_network *network = problem->network;
    double tokens = problem->options.tokens * problem->options.micro_batches;
    double layers =
        moe_network_dense_flop(network, tokens) * (double)moe_network_moe_layers(network);
    double head = network->vocabulary > 0 ? moe_network_head_flop(network, tokens) : 0;
    return 3 * (layers + head);
}

/* What the step itself takes for the same work, which is the same for every policy. */
static double itemised_s(const moe_problem *problem, const moe_costs *costs)
{
    const moe_network *network = problem->network;
    const double tokens = problem->options.tokens;
    const moe_dense_seconds layer = moe_dense_attention_mean(costs, network, tokens);
    double seconds = (double)moe_network_moe_layers(network) * (layer.forward_s + layer.backward_s);
    if (network->vocabulary > 0)
        seconds += moe_dense_head_s(costs, network, tokens);
    return seconds * problem->options.micro_batches;
}

static double dense_s(const moe_problem *problem)
{
    moe_curve_usage usage = {0}; /* a bound is no part of the step: its lookups do not count */
    moe_costs costs = *problem->costs;
    costs.usage = &usage;
    if (moe_dense_is_itemised(&costs))
        return itemised_s(problem, &costs);
    return matrix_s(problem, &problem->costs->profile->dense, dense_flop(problem));
}

double moe_bound_step_s(const moe_problem *problem, double assignments)
{
    static const moe_phase phases[] = {MOE_FORWARD, MOE_INPUT_GRADIENT, MOE_WEIGHT_GRADIENT};
    const moe_profile *profile = problem->costs->profile;
    double rows = assignments / problem->layout.devices;
    double experts_s = 0;
    for (int p = 0; p < 3; p++)
        experts_s +=
            matrix_s(problem, moe_profile_experts(profile, phases[p]),
                     rows * moe_step_expert_shape(problem->network, phases[p]).flop_per_row);
    return dense_s(problem) + experts_s;
}
