/* Collectives: an algorithm turns "who needs what" into transfers, transfers into bytes per port.
 *
 * A `moe_traffic` is one collective ready for an engine. In the fluid limit (pipelined, large
 * messages) every algorithm is a set of transfers that flow together:
 *
 *   all-to-all, pairwise    one transfer per ordered pair with bytes
 *   ring (n ranks, S bytes) each rank to the next: all-reduce 2 (n-1)/n S, all-gather and reduce-scatter
 *                           (n-1)/n S; ranks in order of hosts, so each host boundary is crossed once per
 *                           channel; one channel per NIC of a host, rotated so that each leaves by its own NIC
 *   spAG / spRS             per chunk, from (to) its owner to exactly the devices that want it:
 *     chain   through all wanting devices, host by host: each host boundary is crossed once (default)
 *     star    owner to every wanting device
 *     tree    binary tree in chain order
 *     world   chain through every device of the cluster, wanting or not (plain NCCL world broadcast)
 *   spRS reverses every transfer of the spAG.
 *
 * Alone, it takes alpha + max over ports of effective bytes / rate, where effective bytes = bytes /
 * efficiency(size): a port's rate stays nominal, so that collectives in parallel share it fairly.
 * A device leaves when every port that carries a transfer of its own (from it or to it: the ports of
 * the whole path, its peers' ends included) has drained. Where data is relayed, what it came through
 * counts as its own: a broadcast's receiver also touches the path from the owner down to it, a
 * reduce's sender the paths of what it adds up, and a rank of a ring everything of its group.
 *
 *   alpha           latency = the longest path of one transfer (all-to-all, moves); a chunk's deepest
 *                   chain of hops (spAG, spRS); n-1 consecutive hops of a ring, twice for all-reduce
 *   bytes per rank  what efficiency is looked up at, as nccl-tests counts sizes: the mean row of those
 *                   taking part, diagonal included (all-to-all); `bytes` (rings); all chunks that travel
 *                   (spAG, spRS); the mean over sending devices (moves)
 *
 * What it ignores: store-and-forward fill of a pipeline beyond the latency in alpha, protocol switches
 * other than by the efficiency curve, in-network reduction. */
#ifndef MOE_MODELS_COLLECTIVE_H
#define MOE_MODELS_COLLECTIVE_H

#include "configs/base/arena.h"
#include "models/profile.h"

typedef struct moe_transfer {
    int source;
    int target;
    double bytes;
} moe_transfer;

typedef struct moe_traffic {
    moe_collective_kind kind;
    double alpha_s;
    int devices;
    int port_count;          /* loaded ports */
    const int *ports;        /* [port_count] indices into cluster->ports, ascending */
    const double *bytes;     /* [port_count] on the wire */
    const double *work;      /* [port_count] effective bytes: bytes / efficiency */
    const int *flows;        /* [port_count] transfers that load it */
    int words;               /* 64-bit words of one row of `touches` */
    const uint64_t *touches; /* [devices][words]: bit k: loaded port k carries a transfer of the device's own */
    const bool *takes_part;  /* [devices]: has at least one transfer (rings: every rank has) */
    int participants;
    double intra_host_bytes; /* sums over transfers, each counted once */
    double inter_host_bytes;
    size_t transfer_count;
    const moe_transfer *transfers;
} moe_traffic;

typedef enum moe_chunk_algorithm {
    MOE_CHUNK_CHAIN,
    MOE_CHUNK_STAR,
    MOE_CHUNK_TREE,
    MOE_CHUNK_WORLD,
} moe_chunk_algorithm;
extern const char *const moe_chunk_algorithm_names[]; /* NULL-terminated */

/* One chunk of a SparseAllGather: an expert's parameters (or gradients). */
typedef struct moe_chunk {
    int owner;
    const uint64_t *want; /* bit set of devices; the owner's own bit is ignored */
} moe_chunk;

/* All results live in `arena`; NULL where nothing crosses between devices (nothing to do). */

/* bytes[devices][devices], row = sender (column = sender when `transposed`); the diagonal loads no port. */
moe_traffic *moe_traffic_all_to_all(moe_arena *arena, const moe_costs *costs, const double *bytes,
                                    bool transposed);

/* A collective that several disjoint groups of equal size run at the same time, every rank with
 * `bytes` of buffer (all-gather: of the gathered result; reduce-scatter: of the input).
 * groups[group_count * group_size], device ids. kind: ALL_REDUCE, ALL_GATHER or REDUCE_SCATTER. */
moe_traffic *moe_traffic_ring(moe_arena *arena, const moe_costs *costs, moe_collective_kind kind,
                              const int *groups, int group_count, int group_size, double bytes);

/* kind BROADCAST: spAG; REDUCE: spRS (the same transfers reversed). */
moe_traffic *moe_traffic_chunks(moe_arena *arena, const moe_costs *costs, moe_collective_kind kind,
                                const moe_chunk *chunks, int chunk_count, double chunk_bytes,
                                moe_chunk_algorithm algorithm);

/* Point-to-point moves (re-sharding). */
moe_traffic *moe_traffic_moves(moe_arena *arena, const moe_costs *costs, const moe_transfer *moves,
                               size_t count);

/* Seconds the collective takes alone: alpha + its slowest port. */
double moe_traffic_alone_s(const moe_traffic *traffic, const moe_cluster *cluster);

#endif
