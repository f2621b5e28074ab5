/* What collectives ask of a cluster's ports, by the algorithms of models/collective.h. */
#include "calibrate/fit/fit_private.h"
#include "configs/base/memory.h"
#include <math.h>
#include <talloc.h>

double moe_fit_load_factor(moe_collective_kind kind, int ranks)
{
    double n = ranks;
    switch (kind) {
    case MOE_ALL_TO_ALL:
    case MOE_ALL_TO_ALL_LOW_LATENCY:
    case MOE_ALL_GATHER:
    case MOE_REDUCE_SCATTER:
        return (n - 1) / n;
    case MOE_ALL_REDUCE:
        return 2 * (n - 1) / n;
    default:
        return 1;
    }
}

double moe_fit_hops(moe_collective_kind kind, int ranks)
{
    switch (kind) {
    case MOE_ALL_GATHER:
    case MOE_REDUCE_SCATTER:
    case MOE_BROADCAST:
    case MOE_REDUCE:
        return ranks - 1;
    case MOE_ALL_REDUCE:
        return 2 * (ranks - 1);
    default:
        return 1;
    }
}

/* One size of cluster, and the uniform collectives on it, each for one byte a rank. */
typedef struct layout {
    int ranks, hosts;
    moe_cluster_spec spec;
    moe_cluster *cluster; /* NULL: it cannot be built */
    bool known[MOE_COLLECTIVE_KINDS];
    moe_exchange_work unit[MOE_COLLECTIVE_KINDS];
} layout;

struct moe_exchange_pricer {
    const moe_cluster_spec *cluster;
    moe_profile profile; /* no start, full efficiency */
    moe_curve_usage usage;
    moe_diag *silent;
    moe_arena *arena;
    layout **layouts;
    size_t count;
};

moe_exchange_pricer *moe_exchange_pricer_create(void *owner, const moe_cluster_spec *cluster)
{
    moe_exchange_pricer *pricer = moe_need(talloc_zero(owner, moe_exchange_pricer));
    pricer->cluster = cluster;
    pricer->silent = moe_diag_create(pricer, NULL);
    pricer->arena = moe_arena_create(pricer);
    return pricer;
}

/* As many hosts as the sample used, in whole NVLink domains; room for its ranks in each. */
static layout *add_layout(moe_exchange_pricer *pricer, int ranks, int hosts)
{
    layout *added = moe_need(talloc_zero(pricer, layout));
    int64_t domain =
        pricer->cluster->intra.domain_hosts > 1 ? pricer->cluster->intra.domain_hosts : 1;
    domain = domain < hosts ? domain : hosts;
    added->ranks = ranks;
    added->hosts = hosts;
    added->spec = *pricer->cluster;
    added->spec.hosts = (hosts + domain - 1) / domain * domain;
    added->spec.intra.domain_hosts = domain;
    added->spec.fabric.hosts_per_leaf =
        0; /* below one leaf: a part of it divides into nothing else */
    added->spec.fabric.hosts_per_pod = 0;
    if (added->spec.devices_per_host < ranks / hosts)
        added->spec.devices_per_host = ranks / hosts;
    added->cluster = moe_cluster_create(added, &added->spec, NULL, pricer->silent);
    pricer->layouts =
        moe_need(talloc_realloc(pricer, pricer->layouts, layout *, pricer->count + 1));
    pricer->layouts[pricer->count++] = added;
    return added;
}

static layout *find_layout(moe_exchange_pricer *pricer, int ranks, int hosts)
{
    for (size_t i = 0; i < pricer->count; i++) {
        if (pricer->layouts[i]->ranks == ranks && pricer->layouts[i]->hosts == hosts)
            return pricer->layouts[i];
    }
    return add_layout(pricer, ranks, hosts);
}

static int device_of(const layout *of, int rank)
{
    int per_host = of->ranks / of->hosts;
    return rank / per_host * of->cluster->devices_per_host + rank % per_host;
}

/* ---- traffic --------------------------------------------------------------------------------- */

static moe_traffic *exchange_traffic(moe_exchange_pricer *pricer, const moe_costs *costs,
                                     const layout *of, const moe_sample_exchange *exchange,
                                     double bytes)
{
    size_t devices = (size_t)of->cluster->devices;
    double *pairs = moe_arena_array(pricer->arena, double, devices *devices);
    for (int i = 0; i < of->ranks; i++) {
        for (int j = 0; j < of->ranks; j++) {
            size_t pair = (size_t)device_of(of, i) * devices + (size_t)device_of(of, j);
            pairs[pair] = exchange->matrix == NULL
                              ? bytes / of->ranks
                              : exchange->matrix[(size_t)i * (size_t)of->ranks + (size_t)j];
        }
    }
    return moe_traffic_all_to_all(pricer->arena, costs, pairs, false);
}

/* Without a list: one chunk from rank 0 to all. */
static moe_traffic *chunk_traffic(moe_exchange_pricer *pricer, const moe_costs *costs,
                                  const layout *of, const moe_sample_exchange *exchange,
                                  double bytes)
{
    size_t count = exchange->chunk_list == NULL ? 1 : (size_t)exchange->chunks;
    size_t words = ((size_t)of->cluster->devices + 63) / 64;
    moe_chunk *chunks = moe_arena_array(pricer->arena, moe_chunk, count);
    uint64_t *bits = moe_arena_array(pricer->arena, uint64_t, count * words);
    for (size_t c = 0; c < count; c++) {
        const moe_chunk *from = exchange->chunk_list == NULL ? NULL : &exchange->chunk_list[c];
        chunks[c] = (moe_chunk){device_of(of, from ? from->owner : 0), bits + c * words};
        for (int rank = 0; rank < of->ranks; rank++) {
            bool wants = from == NULL || (from->want[rank / 64] >> (rank % 64) & 1) != 0;
            int device = device_of(of, rank);
            if (wants)
                bits[c * words + (size_t)device / 64] |= UINT64_C(1) << (device % 64);
        }
    }
    double each = exchange->chunk_list == NULL ? bytes : exchange->chunk_bytes;
    return moe_traffic_chunks(pricer->arena, costs, exchange->collective, chunks, (int)count, each,
                              MOE_CHUNK_CHAIN);
}

/* Every rank to the next, as nccl-tests' sendrecv. */
static moe_traffic *ring_of_moves(moe_exchange_pricer *pricer, const moe_costs *costs,
                                  const layout *of, double bytes)
{
    moe_transfer *moves = moe_arena_array(pricer->arena, moe_transfer, (size_t)of->ranks);
    for (int rank = 0; rank < of->ranks; rank++)
        moves[rank] =
            (moe_transfer){device_of(of, rank), device_of(of, (rank + 1) % of->ranks), bytes};
    return moe_traffic_moves(pricer->arena, costs, moves, (size_t)of->ranks);
}

static moe_traffic *make_traffic(moe_exchange_pricer *pricer, const layout *of,
                                 const moe_sample_exchange *exchange, double bytes)
{
    const moe_costs costs = {&pricer->profile, of->cluster, &pricer->usage};
    switch (exchange->collective) {
    case MOE_ALL_TO_ALL:
    case MOE_ALL_TO_ALL_LOW_LATENCY:
        return exchange_traffic(pricer, &costs, of, exchange, bytes);
    case MOE_BROADCAST:
    case MOE_REDUCE:
        return chunk_traffic(pricer, &costs, of, exchange, bytes);
    case MOE_SEND_RECV:
        return ring_of_moves(pricer, &costs, of, bytes);
    default:
        break;
    }
    int *group = moe_arena_array(pricer->arena, int, (size_t)of->ranks);
    for (int rank = 0; rank < of->ranks; rank++)
        group[rank] = device_of(of, rank);
    return moe_traffic_group(pricer->arena, &costs, exchange->collective, group, 1, of->ranks,
                             bytes);
}

static void sum_up(const moe_traffic *traffic, const moe_cluster *cluster, moe_exchange_work *work)
{
    double slowest = 0;
    for (int k = 0; k < traffic->port_count; k++) {
        const moe_port *port = &cluster->ports[traffic->ports[k]];
        double seconds = traffic->bytes[k] / port->rate_bytes_per_s;
        double *part = moe_port_is_intra(port->kind) ? &work->intra_s : &work->inter_s;
        *part = fmax(*part, seconds);
        if (seconds > slowest)
            work->flows = traffic->flows[k];
        slowest = fmax(slowest, seconds);
    }
    work->latency_s = traffic->alpha_s;
    work->ranks = traffic->participants;
}

/* The mean row of those that take part, as models/collective.c has it. */
static double matrix_bytes(const double *matrix, size_t ranks)
{
    double sum = 0;
    size_t taking_part = 0;
    for (size_t i = 0; i < ranks; i++) {
        bool active = false;
        double row = 0;
        for (size_t j = 0; j < ranks; j++) {
            active |= j != i && (matrix[i * ranks + j] > 0 || matrix[j * ranks + i] > 0);
            row += matrix[i * ranks + j];
        }
        taking_part += active;
        sum += active ? row : 0;
    }
    return taking_part > 0 ? sum / (double)taking_part : 0;
}

static bool build_work(moe_exchange_pricer *pricer, const layout *of,
                       const moe_sample_exchange *exchange, double bytes, moe_exchange_work *work)
{
    moe_arena_reset(pricer->arena);
    const moe_traffic *traffic = make_traffic(pricer, of, exchange, bytes);
    *work = (moe_exchange_work){.bytes = bytes};
    if (traffic == NULL)
        return false;
    sum_up(traffic, of->cluster, work);
    if (exchange->collective == MOE_BROADCAST || exchange->collective == MOE_REDUCE)
        work->chunks = exchange->chunk_list == NULL ? 1 : exchange->chunks;
    return true;
}

bool moe_exchange_price(moe_exchange_pricer *pricer, const moe_sample_exchange *exchange, int ranks,
                        int hosts, moe_exchange_work *work)
{
    layout *of = find_layout(pricer, ranks, hosts);
    moe_collective_kind kind = exchange->collective;
    if (of->cluster == NULL)
        return false;
    if (exchange->matrix != NULL)
        return build_work(pricer, of, exchange, matrix_bytes(exchange->matrix, (size_t)ranks),
                          work);
    if (exchange->chunk_list != NULL)
        return build_work(pricer, of, exchange, exchange->chunks * exchange->chunk_bytes, work);
    if (!of->known[kind] && !build_work(pricer, of, exchange, 1, &of->unit[kind]))
        return false;
    of->known[kind] = true;
    *work = of->unit[kind];
    work->bytes = exchange->bytes;
    work->intra_s *= exchange->bytes;
    work->inter_s *= exchange->bytes;
    return true;
}

double moe_exchange_predict_s(const moe_fit_bench *bench, moe_collective_kind kind,
                              const moe_exchange_work *work)
{
    const moe_costs *costs = &bench->costs;
    int within = work->inter_s > 0 ? 0 : work->ranks; /* as models/traffic.c asks */
    double seconds = 0;
    if (work->intra_s > 0)
        seconds = work->intra_s /
                  moe_cost_efficiency(costs, kind, MOE_PORT_INTRA_OUT, work->bytes, within);
    if (work->inter_s > 0)
        seconds = fmax(seconds, work->inter_s / moe_cost_efficiency(costs, kind, MOE_PORT_NIC_OUT,
                                                                    work->bytes, within));
    return moe_cost_alpha_s(costs, kind, work->ranks, work->chunks, work->latency_s) + seconds;
}
