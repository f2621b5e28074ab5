/* From transfers to a traffic: what the algorithms of collective.h share. Private to models/.
 *
 * An algorithm lists its transfers, says how large the collective is in nccl-tests' terms, and has
 * the ports summed up here. What it relays it then adds to the touches of those that wait for it.
 */
#ifndef MOE_MODELS_TRAFFIC_H
#define MOE_MODELS_TRAFFIC_H

#include "models/collective.h"

typedef struct moe_traffic_terms {
    moe_collective_kind kind;
    double bytes_per_rank; /* what the efficiency curves are looked up at */
    int ranks;             /* for alpha; 0: the participants */
    int chunks;            /* for alpha; 0 but for spAG and spRS */
    double latency_s;      /* of the longest chain of dependent hops */
} moe_traffic_terms;

/* A traffic whose touches are still open. */
typedef struct moe_traffic_draft {
    const moe_cluster *cluster;
    moe_traffic *traffic; /* NULL: nothing crosses */
    uint64_t *touches;    /* of `traffic`, writable */
    const int *loaded;    /* [cluster->port_count] index among the loaded ports, or -1 */
} moe_traffic_draft;

/* Transfers have bytes > 0 and source != target; they are borrowed from the arena. Touches hold
 * what a device sends and receives itself. */
moe_traffic_draft moe_traffic_assemble(moe_arena *arena, const moe_costs *costs,
                                       const moe_traffic_terms *terms,
                                       const moe_transfer *transfers, size_t count);

/* Adds the ports of the transfer's path to a row of touches. */
void moe_traffic_mark(const moe_traffic_draft *draft, const moe_transfer *transfer, uint64_t *row);

static inline uint64_t *moe_traffic_row(const moe_traffic_draft *draft, int device)
{
    return draft->touches + (size_t)device * (size_t)draft->traffic->words;
}

static inline void moe_traffic_merge(uint64_t *into, const uint64_t *from, int words)
{
    for (int w = 0; w < words; w++) {
        into[w] |= from[w];
    }
}

#endif
