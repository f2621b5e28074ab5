/* A lower bound on a training step that no policy that keeps tokens and sources can beat.
 *
 * A device computes its operations one after another, and collectives can only slow them down. So the step
 * is no shorter than the mean over devices of computation alone: what every device computes of its own
 * tokens (attention forward once, backward twice, the head three times), and the mean of the experts' rows,
 *
 *     bound = FLOP of dense work / (e_flop * peak) + sum over layers of 3 * rows / devices * FLOP per row / (e_flop * peak)
 *
 * (an expert phase costs at least its FLOPs: start-up, tiles, memory and recomputation only add). It knows
 * no communication and no imbalance: the gap to it is what placement and overlap could win at most.
 *
 * With a profile that prices dense work by what it consists of (models/dense_cost.h) its bound is what the
 * step takes for it. Where the experts have a curve of efficiencies, e_flop is its largest.
 *
 * What it ignores: dense first layers, shared experts, optimizer, embedding; so it is below the best. */
#ifndef MOE_POLICIES_BOUND_H
#define MOE_POLICIES_BOUND_H

#include "policies/problem.h"

/* Seconds; `assignments` of the whole step: all micro-batches, layers and sources. */
double moe_bound_step_s(const moe_problem *problem, double assignments);

#endif
