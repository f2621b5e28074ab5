/* Everything a policy may know, read-only. It never includes sim/; the cost of a guess comes from
 * `moe_problem_layer_s`, which prices a routed layer with the profile's closed forms. */
#ifndef MOE_POLICIES_PROBLEM_H
#define MOE_POLICIES_PROBLEM_H

#include "configs/base/arena.h"
#include "models/step.h"

typedef struct moe_problem {
    const moe_cluster *cluster;
    const moe_network *network;
    const moe_costs *costs;
    moe_layout layout;
    moe_step_options options;
    moe_memory_options memory;
    uint64_t seed;
} moe_problem;

/* Expert loads of past iterations, newest first: what was dispatched, summed over the micro-batches and
 * the sources of a group. */
typedef struct moe_history moe_history;

enum { MOE_HISTORY_DEPTH = 64 };

moe_history *moe_history_create(void *owner, int layers, int groups, int experts);
/* loads[layer][group][expert] of the iteration that has just ended. */
void moe_history_push(moe_history *history, const double *loads);
int moe_history_length(const moe_history *history); /* at most MOE_HISTORY_DEPTH */
/* [experts] of the iteration `back` before the coming one (1: the last). */
const double *moe_history_loads(const moe_history *history, int back, int layer, int group);
/* Mean of the last `window` (or as many as there are) into mean[experts]; false if there are none. */
bool moe_history_mean(const moe_history *history, int window, int layer, int group, double *mean);

/* Predicted seconds of one MoE layer, forward and backward, everything exposed: 2 all-to-alls each way,
 * experts forward, input gradient and weight gradient of the slowest device (T = 4 T_A2A + 3 T_comp); of a
 * step that serves, forward alone (T = 2 T_A2A + T_comp). */
double moe_problem_layer_s(const moe_problem *problem, moe_arena *arena,
                           const moe_routed_layer *routed);
/* Seconds the spAG of `chunks` takes alone. */
double moe_problem_chunks_s(const moe_problem *problem, moe_arena *arena, const moe_schedule *schedule,
                            const moe_chunk *chunks, int count);
/* Forward seconds of attention and gate of one layer (serving: the last): what can hide a materialization. */
double moe_problem_attention_s(const moe_problem *problem);
/* Data-sheet bandwidth of the link that exchanges of a group are held up by: between hosts, of a host or a device's
 * part of it, if a group spans several; else a device's within its host. */
double moe_problem_line_rate(const moe_problem *problem, bool of_host);

#endif
