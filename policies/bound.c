#include "policies/bound.h"

static double matrix_s(const moe_problem *problem, const moe_compute_curve *curve, double flop)
{
    double peak = problem->cluster->spec->device.peak_flop_per_s;
    return flop / (curve->flop_efficiency * peak);
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

double moe_bound_step_s(const moe_problem *problem, double assignments)
{
    static const moe_phase phases[] = {MOE_FORWARD, MOE_INPUT_GRADIENT, MOE_WEIGHT_GRADIENT};
    const moe_profile *profile = problem->costs->profile;
    double rows = assignments / problem->layout.devices;
    double experts_s = 0;
    for (int p = 0; p < 3; p++)
        experts_s +=
            matrix_s(problem, &profile->experts,
                     rows * moe_step_expert_shape(problem->network, phases[p]).flop_per_row);
    return matrix_s(problem, &profile->dense, dense_flop(problem)) + experts_s;
}
