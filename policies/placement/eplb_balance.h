/* DeepSeek's Expert Parallelism Load Balancer: which expert each slot of each device holds.
 *
 *   hierarchical   experts come in equal groups; groups are packed onto nodes, experts are replicated within
 *                  their node, replicas are packed onto the node's devices
 *   global         the same with one group and one node: taken where groups do not divide among nodes
 *
 *   packing        items by falling weight, each to the lightest pack that still has room; every pack takes
 *                  the same number; one item a pack: in order
 *   replication    one slot an expert; each further slot to the expert with most weight per replica
 *
 * Arithmetic is in 32-bit floats, accumulators included, so that decisions equal the published program's
 * (deepseek-ai/EPLB @d52c72d, MIT) wherever its sort does not meet equal weights; here equal weights
 * go by number. It knows no cost of moving: each call starts afresh, and may put two replicas of an
 * expert on one device. */
#ifndef MOE_POLICIES_PLACEMENT_EPLB_BALANCE_H
#define MOE_POLICIES_PLACEMENT_EPLB_BALANCE_H

#include "configs/base/arena.h"
#include <stdbool.h>

typedef struct moe_eplb_shape {
    int experts;
    int slots;  /* of all devices: experts and replicas */
    int groups; /* of experts */
    int nodes;
    int devices;
} moe_eplb_shape;

/* NULL, or what does not divide (static text). */
const char *moe_eplb_refuses(const moe_eplb_shape *shape);

/* Of one layer: weight[experts] -> expert_of[slots], device d having slots [d, d + 1) * slots / devices;
 * replica[slots]: 0 for the first of an expert, ...; count[experts] replicas. Any output but expert_of may be
 * NULL. The shape must not be refused. */
void moe_eplb_balance(moe_arena *arena, const moe_eplb_shape *shape, const float *weight,
                      int *expert_of, int *replica, int *count);

#endif
