/* Collectives: an algorithm turns "who needs what" into transfers, transfers into bytes per port.
 *
 * A `moe_traffic` is one collective ready for an engine. In the fluid limit (pipelined, large
 * messages) every algorithm is a set of transfers that flow together:
 *
 *   all-to-all, pairwise    one transfer per ordered pair with bytes
 *   all-to-all, forwarded   to each other host once, to the device with the source's place there (as PXN
 *                           and DeepEP do, so that rails are kept), which forwards each token to the
 *                           devices of its host that want it; back, it adds up what they return. A
 *                           replication point: bytes out of it exceed bytes into it. Size: what sources
 *                           hold, forwarding not counted; alpha: a hop across and one inside a host
 *   ring (n ranks, S bytes) each rank to the next: all-reduce 2 (n-1)/n S, all-gather and reduce-scatter
 *                           (n-1)/n S; ranks in order of NVLink domains, so each boundary is crossed
 *                           once per channel; one channel per NIC of a domain, rotated so that each
 *                           leaves by its own NIC; with rails, every other domain is passed backwards
 *                           (collective_walk.h)
 *   tree (all-reduce)       each rank a channel of S/n; in a domain of m ranks S goes up and S down a
 *                           chain: 2 (m-1)/m S on average; between domains two binary trees with S/2
 *                           each, up and down: on two hosts S through a host's NICs each way, where
 *                           the ring puts 2 (n-1)/n S
 *   in network (all-reduce) in a domain whose switches add (NVLS) (m+1)/m S each way on every device,
 *                           otherwise 2 (m-1)/m S; between domains S through a domain's NICs each way,
 *                           once up and down per leaf, where switches add (SHARP), otherwise two trees
 *   spAG / spRS             per chunk, from (to) its owner to exactly the devices that want it:
 *     chain   through all wanting devices, host by host: each host boundary is crossed once (default)
 *     star    owner to every wanting device
 *     tree    binary tree in chain order
 *     world   chain through every device of the cluster, wanting or not (plain NCCL world broadcast)
 *   spRS reverses every transfer of the spAG.
 *
 * Sources: NVLS: Klenk et al., ISCA 2020 (in-switch multimem reads and stores); SHARP: Graham et al.,
 * COMHPC 2016; double binary trees: Sanders, Speck and Traeff, Parallel Computing 35 (2009).
 *
 * Alone, it takes alpha + max over ports of effective bytes / rate, where effective bytes = bytes /
 * efficiency(size): a port's rate stays nominal, so that collectives in parallel share it fairly.
 * A device leaves when every port that carries a transfer of its own (from it or to it: the ports of
 * the whole path, its peers' ends included) has drained. Where data is relayed, what it came through
 * counts as its own: a broadcast's receiver also touches the path from the owner down to it, a
 * reduce's sender the paths of what it adds up, and a rank of a ring everything of its group.
 *
 *   alpha           latency = the longest path of one transfer (all-to-all, moves); a chunk's deepest
 *                   chain of hops (spAG, spRS); n-1 consecutive hops of a ring, twice for all-reduce;
 *                   up and down the longest chain and the deeper tree; two hops for a level that adds
 *   bytes per rank  what efficiency is looked up at, as nccl-tests counts sizes: the mean row of those
 *                   taking part, diagonal included (all-to-all); `bytes` (rings); all chunks that travel
 *                   (spAG, spRS); the mean over sending devices (moves)
 *
 * What it ignores: store-and-forward fill of a pipeline beyond the latency in alpha, protocol switches
 * other than by the efficiency curve. */
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
    int port_count;      /* loaded ports */
    const int *ports;    /* [port_count] indices into cluster->ports, ascending */
    const double *bytes; /* [port_count] on the wire */
    const double *work;  /* [port_count] effective bytes: bytes / efficiency */
    const int *flows;    /* [port_count] transfers that load it */
    int words;           /* 64-bit words of one row of `touches` */
    const uint64_t *
        touches; /* [devices][words]: bit k: loaded port k carries a transfer of the device's own */
    const bool *takes_part; /* [devices]: has at least one transfer (rings: every rank has) */
    int participants;
    double intra_host_bytes; /* sums over transfers, each counted once */
    double inter_host_bytes;
    size_t transfer_count;
    const moe_transfer *transfers;
    const struct moe_traffic *next; /* an exchange that is done in parts: the part right after it; or NULL */
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

/* The same by kernels of low latency, at their own curve where the profile has one. */
moe_traffic *moe_traffic_low_latency(moe_arena *arena, const moe_costs *costs, const double *bytes,
                                     bool transposed);

/* The same where a token crosses to a host once ("forwarded"): bytes[devices][devices] as above, each
 * token counted once for its device; host_bytes[devices][hosts], each counted once for its host. Groups
 * of `group_size` consecutive devices exchange among themselves. */
moe_traffic *moe_traffic_forwarded(moe_arena *arena, const moe_costs *costs, const double *bytes,
                                   const double *host_bytes, int group_size, bool transposed);

/* A collective that several disjoint groups of equal size run at the same time, every rank with
 * `bytes` of buffer (all-gather: of the gathered result; reduce-scatter: of the input).
 * groups[group_count * group_size], device ids. kind: ALL_REDUCE, ALL_GATHER or REDUCE_SCATTER. */
moe_traffic *moe_traffic_ring(moe_arena *arena, const moe_costs *costs, moe_collective_kind kind,
                              const int *groups, int group_count, int group_size, double bytes);

/* The same, an all-reduce by the algorithm that the profile names. */
moe_traffic *moe_traffic_group(moe_arena *arena, const moe_costs *costs, moe_collective_kind kind,
                               const int *groups, int group_count, int group_size, double bytes);

/* An all-reduce by a given algorithm. */
moe_traffic *moe_traffic_all_reduce(moe_arena *arena, const moe_costs *costs,
                                    moe_reduce_algorithm algorithm, const int *groups,
                                    int group_count, int group_size, double bytes);

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
