/* Tokens sent once: from a dispatch to the tokens that cross to each device or host.
 *
 *     dispatch: {once_per: assignment | device | host}
 *
 *   assignment  a copy of the token for each of its experts (NCCL all-to-all, Megatron, Tutel)
 *   device      one copy to each device that holds any of them; it is expanded where it arrives, and
 *               what its experts return is added up there and sent back once
 *   host        one copy to each host, forwarded inside it to the devices (models/collective.h)
 *
 * The number of distinct tokens is estimated (models/distinct.h) from the counts and from how the
 * policy split them: where an expert's assignments go to several devices, each of its tokens goes
 * to one of them with the probability of its share. Rows computed stay as they are, and so do
 * permute, memory and what policies predict: they count assignments. */
#ifndef MOE_POLICIES_ONCE_H
#define MOE_POLICIES_ONCE_H

#include "models/distinct.h"
#include "policies/policy.h"

/* Of one dispatch, in the arena. */
typedef struct moe_once_tokens {
    const double *devices; /* [devices][devices] */
    const double *hosts;   /* [devices][hosts]; NULL unless once per host */
} moe_once_tokens;

/* The estimator for a network's gate. `top_k_varies`: the trace's tokens differ in their number of experts. */
moe_distinct *moe_once_estimator(void *owner, const moe_network *network, bool top_k_varies);

/* `route` has its parts kept; tokens[devices] of the gate's sources; once_per is not ASSIGNMENT. */
moe_once_tokens moe_once_count(moe_arena *arena, const moe_problem *problem, moe_distinct *distinct,
                               const moe_gate *gate, const uint32_t *tokens, const moe_route *route,
                               moe_once once_per);

/* What is wrong with them, or NULL: every count lies between the largest single part and the sum of parts. */
const char *moe_once_check(const moe_problem *problem, const double *pairs, const double *devices,
                           const double *hosts);

#endif
