/* One collective on NCCL: who sends what from where, and whether it arrived.
 *
 * All-to-all: sends and receives in one group, the rank's own part too, as nccl-tests has it; parts begin at
 * multiples of 128 B. Send/recv: a ring, everyone to the next rank. Broadcasts and reduces of chunks (spAG and
 * spRS): one NCCL group of ncclBroadcast or ncclReduce calls, each on a communicator of the chunk's owner and the
 * ranks that want it; NCCL runs what is on different communicators one after the other on a stream. Moved bytes
 * are random and compared one by one; reduced elements are small whole numbers whose sum is exact. */
#include "calibrate/measure/cuda_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_COMMUNICATORS = 64, ALIGNMENT = 128, MOST_COMPARED = 1 << 24 };

int moecal_ranks_of(const moecal_cuda *cuda, const moecal_point *point)
{
    return point->ranks > 0 ? point->ranks : cuda->world.ranks;
}

static bool reduces(const moecal_exchange *exchange)
{
    return exchange->collective == MOECAL_REDUCE_SCATTER ||
           exchange->collective == MOECAL_ALL_REDUCE || exchange->collective == MOECAL_REDUCE;
}

/* --- chunks ----------------------------------------------------------------------------------- */

/* No chunks given: one, of rank 0, for all. */
static int chunk_count(const moecal_exchange *exchange)
{
    return exchange->chunks ? exchange->chunk_count : 1;
}

static int64_t chunk_bytes(const moecal_exchange *exchange)
{
    return exchange->chunks ? exchange->chunk_bytes : exchange->bytes;
}

static int owner_of(const moecal_exchange *exchange, int chunk)
{
    return exchange->chunks ? exchange->chunks[chunk].owner : 0;
}

static int ascending(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

/* Owner and wanting ranks, ascending, each once. `members` has room for as many as ranks. */
static int members_of(const moecal_exchange *exchange, int chunk, int ranks, int *members)
{
    const moecal_chunk *of = exchange->chunks ? &exchange->chunks[chunk] : NULL;
    bool *in = calloc((size_t)ranks, sizeof *in);
    int count = 0;
    if (!in)
        abort();
    in[owner_of(exchange, chunk)] = true;
    for (int i = 0; of && i < of->want_count; i++)
        in[of->want[i]] = true;
    for (int rank = 0; rank < ranks; rank++)
        if (in[rank] || !of)
            members[count++] = rank;
    free(in);
    return count;
}

static bool takes_part(const moecal_communicator *of, int rank)
{
    return of && bsearch(&rank, of->members, (size_t)of->member_count, sizeof rank, ascending);
}

/* --- what cannot be run ----------------------------------------------------------------------- */

/* Different sets of ranks, counted up to one more than allowed. */
static int count_sets(const moecal_exchange *exchange, int ranks)
{
    size_t width = (size_t)ranks, bytes = width * sizeof(int);
    int *sets = malloc((MOST_COMMUNICATORS + 2) * bytes), count = 0;
    if (!sets)
        abort();
    for (int chunk = 0; chunk < chunk_count(exchange) && count <= MOST_COMMUNICATORS; chunk++) {
        int *set = sets + width * (size_t)count, same = 0;
        memset(set, -1, bytes);
        members_of(exchange, chunk, ranks, set);
        while (same < count && memcmp(sets + width * (size_t)same, set, bytes) != 0)
            same++;
        count += same == count;
    }
    free(sets);
    return count;
}

static bool names_rank_beyond(const moecal_exchange *exchange, int ranks)
{
    for (int i = 0; exchange->chunks && i < exchange->chunk_count; i++) {
        if (exchange->chunks[i].owner >= ranks)
            return true;
        for (int j = 0; j < exchange->chunks[i].want_count; j++)
            if (exchange->chunks[i].want[j] >= ranks)
                return true;
    }
    return false;
}

const char *moecal_exchange_refuses(const moecal_exchange *exchange, moecal_dtype dtype, int ranks)
{
    bool cut = exchange->collective == MOECAL_ALL_GATHER ||
               exchange->collective == MOECAL_REDUCE_SCATTER ||
               (exchange->collective == MOECAL_ALL_TO_ALL && !exchange->matrix);
    int64_t element = reduces(exchange) ? (int64_t)moecal_element_bytes((int)dtype) : 1;
    int64_t part = exchange->chunks ? exchange->chunk_bytes : exchange->bytes;
    if (ranks < 2)
        return "a collective needs two devices";
    if (reduces(exchange) && dtype == MOECAL_FP8)
        return "sums are taken in fp32, bf16 or fp16";
    if ((cut ? part / ranks : part) < element)
        return "less than one element a rank";
    if (exchange->matrix && exchange->matrix_ranks != ranks)
        return "a matrix of another number of ranks";
    if (names_rank_beyond(exchange, ranks))
        return "chunks name ranks that take no part";
    if (exchange->chunks && count_sets(exchange, ranks) > MOST_COMMUNICATORS)
        return "chunks of more than 64 different sets of ranks: each would need a communicator";
    return NULL;
}

/* --- layout ----------------------------------------------------------------------------------- */

static int64_t rounded(int64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int lane_ranks(const moecal_lane *lane)
{
    return lane->all->member_count;
}

/* Bytes of an all-to-all from one rank to another. */
static int64_t pair_bytes(const moecal_lane *lane, int from, int to)
{
    const moecal_exchange *exchange = lane->exchange;
    int ranks = lane_ranks(lane);
    return exchange->matrix ? exchange->matrix[(size_t)from * (size_t)ranks + (size_t)to]
                            : exchange->bytes / ranks;
}

static int64_t element_bytes(const moecal_lane *lane)
{
    return reduces(lane->exchange) ? (int64_t)moecal_element_bytes(lane->element) : 1;
}

/* Elements of a chunk, of a gathered or scattered part, or of all. */
static int64_t part_count(const moecal_lane *lane)
{
    const moecal_exchange *exchange = lane->exchange;
    bool cut =
        exchange->collective == MOECAL_ALL_GATHER || exchange->collective == MOECAL_REDUCE_SCATTER;
    int64_t bytes =
        exchange->collective == MOECAL_BROADCAST || exchange->collective == MOECAL_REDUCE
            ? chunk_bytes(exchange)
            : exchange->bytes;
    return bytes / (cut ? lane_ranks(lane) : 1) / element_bytes(lane);
}

/* Where a rank's chunks lie, one behind the other: the place of `chunk` among those it takes part in; of one
 * behind the last, how many they are. */
static int64_t chunk_place(const moecal_lane *lane, int rank, int chunk)
{
    int64_t place = 0;
    for (int i = 0; i < chunk; i++)
        place += takes_part(lane->of_chunk[i], rank);
    return place;
}

static int64_t chunk_stride(const moecal_lane *lane)
{
    return rounded(part_count(lane) * element_bytes(lane));
}

static void size_buffers(const moecal_lane *lane, int rank, int64_t *in, int64_t *out)
{
    int ranks = lane_ranks(lane);
    int64_t part = part_count(lane) * element_bytes(lane);
    *in = *out = part;
    switch (lane->exchange->collective) {
    case MOECAL_ALL_TO_ALL:
        *in = *out = 0;
        for (int peer = 0; peer < ranks; peer++) {
            *in += rounded(pair_bytes(lane, rank, peer));
            *out += rounded(pair_bytes(lane, peer, rank));
        }
        break;
    case MOECAL_ALL_GATHER:
        *out = part * ranks;
        break;
    case MOECAL_REDUCE_SCATTER:
        *in = part * ranks;
        break;
    case MOECAL_BROADCAST:
    case MOECAL_REDUCE:
        *in = *out = chunk_stride(lane) * chunk_place(lane, rank, chunk_count(lane->exchange));
        break;
    default:
        break;
    }
}

/* --- preparing -------------------------------------------------------------------------------- */

static int choose_communicators(moecal_cuda *cuda, moecal_lane *lane, int ranks, int most_ctas,
                                int instance)
{
    const moecal_exchange *exchange = lane->exchange;
    bool chunked =
        exchange->collective == MOECAL_BROADCAST || exchange->collective == MOECAL_REDUCE;
    int *members = calloc((size_t)ranks, sizeof *members), failed = 0;
    lane->of_chunk = calloc((size_t)chunk_count(exchange), sizeof(moecal_communicator *));
    if (!members || !lane->of_chunk)
        abort();
    for (int rank = 0; rank < ranks; rank++)
        members[rank] = rank;
    lane->all = moecal_communicator_get(cuda, members, ranks, most_ctas, instance);
    failed = !lane->all;
    for (int chunk = 0; chunked && !failed && chunk < chunk_count(exchange); chunk++) {
        int count = members_of(exchange, chunk, ranks, members);
        if (count > 1)
            lane->of_chunk[chunk] =
                moecal_communicator_get(cuda, members, count, most_ctas, instance);
        failed = count > 1 && !lane->of_chunk[chunk];
    }
    free(members);
    return failed;
}

/* Communicators first: making one is agreed among all processes, memory is not. */
int moecal_lane_prepare(moecal_cuda *cuda, const moecal_point *point, int index,
                        const moecal_exchange *exchange, int most_ctas)
{
    moecal_lane *lane = &cuda->lane[index];
    *lane = (moecal_lane){.exchange = exchange,
                          .element = (int)point->dtype,
                          .in = 4 + 2 * index,
                          .out = 5 + 2 * index};
    MOECAL_DO(choose_communicators(cuda, lane, moecal_ranks_of(cuda, point), most_ctas, index));
    for (int i = 0; i < cuda->active; i++) {
        int64_t in = 0, out = 0;
        size_buffers(lane, cuda->device[i].rank, &in, &out);
        moecal_operand_set(&cuda->device[i], lane->in, MOECAL_ELEMENT_BYTE, in, 0);
        moecal_operand_set(&cuda->device[i], lane->out, MOECAL_ELEMENT_BYTE, out, 0);
    }
    return 0;
}

static uint64_t seed_of(const moecal_cuda *cuda, const moecal_lane *lane, int rank)
{
    return ((uint64_t)cuda->points << 24) + ((uint64_t)rank << 4) + (unsigned)lane->in;
}

/* Addends: of a chunk those that follow the earlier chunks', whoever holds it. */
static int fill_addends(moecal_cuda *cuda, moecal_device *device, const moecal_lane *lane)
{
    const moecal_exchange *exchange = lane->exchange;
    char *in = moecal_operand_at(device, lane->in, 0);
    int64_t part = part_count(lane), whole = device->operand[lane->in].count / element_bytes(lane);
    int ranks = lane_ranks(lane);
    if (exchange->collective != MOECAL_REDUCE) {
        MOECAL_CUDA(moecal_kernel_fill_addends(lane->element, in, whole, 0, device->rank, ranks,
                                               device->stream[0]));
        return 0;
    }
    int64_t place = 0;
    for (int chunk = 0; chunk < chunk_count(exchange); chunk++)
        if (takes_part(lane->of_chunk[chunk], device->rank))
            MOECAL_CUDA(moecal_kernel_fill_addends(lane->element, in + chunk_stride(lane) * place++,
                                                   part, chunk * part, device->rank, ranks,
                                                   device->stream[0]));
    return 0;
}

/* All copies with random bytes (of sums: random small values), the one that is checked as the check knows it. */
int moecal_lane_fill(moecal_cuda *cuda, int index)
{
    const moecal_lane *lane = &cuda->lane[index];
    for (int i = 0; i < cuda->active; i++) {
        moecal_device *device = &cuda->device[i];
        moecal_operand *in = &device->operand[lane->in];
        size_t bytes = in->stride * (size_t)device->slots;
        MOECAL_CUDA(cudaSetDevice(device->ordinal));
        if (in->count == 0)
            continue;
        if (!reduces(lane->exchange)) {
            MOECAL_CUDA(moecal_kernel_fill_bytes(in->base, bytes, seed_of(cuda, lane, device->rank),
                                                 device->stream[0]));
        } else {
            MOECAL_CUDA(
                moecal_kernel_fill(lane->element, in->base, (int64_t)bytes / element_bytes(lane),
                                   seed_of(cuda, lane, device->rank), 1, device->stream[0]));
            MOECAL_DO(fill_addends(cuda, device, lane));
        }
        MOECAL_CUDA(cudaStreamSynchronize(device->stream[0]));
    }
    return 0;
}

void moecal_lanes_release(moecal_cuda *cuda)
{
    for (int i = 0; i < MOECAL_LANES; i++)
        free(cuda->lane[i].of_chunk);
    memset(cuda->lane, 0, sizeof cuda->lane);
}

/* --- running ---------------------------------------------------------------------------------- */

typedef struct call {
    const moecal_lane *lane;
    ncclComm_t comm;
    cudaStream_t stream;
    char *in, *out;
    int rank,
        local; /* of the world and of the communicator of all: the same; index of the device */
} call;

static ncclDataType_t nccl_type(int element)
{
    static const ncclDataType_t types[] = {[MOECAL_ELEMENT_FP32] = ncclFloat32,
                                           [MOECAL_ELEMENT_BF16] = ncclBfloat16,
                                           [MOECAL_ELEMENT_FP16] = ncclFloat16};
    return types[element];
}

static ncclResult_t all_to_all(const call *at)
{
    const moecal_lane *lane = at->lane;
    int64_t sent = 0, received = 0;
    for (int peer = 0; peer < lane_ranks(lane); peer++) {
        int64_t to = pair_bytes(lane, at->rank, peer), from = pair_bytes(lane, peer, at->rank);
        ncclResult_t status = ncclSuccess;
        if (to > 0)
            status = ncclSend(at->in + sent, (size_t)to, ncclUint8, peer, at->comm, at->stream);
        if (from > 0 && status == ncclSuccess)
            status =
                ncclRecv(at->out + received, (size_t)from, ncclUint8, peer, at->comm, at->stream);
        if (status != ncclSuccess)
            return status;
        sent += rounded(to);
        received += rounded(from);
    }
    return ncclSuccess;
}

static ncclResult_t to_next(const call *at)
{
    size_t bytes = (size_t)part_count(at->lane);
    int ranks = lane_ranks(at->lane);
    ncclResult_t status =
        ncclSend(at->in, bytes, ncclUint8, (at->rank + 1) % ranks, at->comm, at->stream);
    if (status != ncclSuccess)
        return status;
    return ncclRecv(at->out, bytes, ncclUint8, (at->rank + ranks - 1) % ranks, at->comm,
                    at->stream);
}

static int place_in(const moecal_communicator *of, int rank)
{
    int place = 0;
    while (of->members[place] != rank)
        place++;
    return place;
}

/* The owner's chunk goes out of `in`, everybody's comes into `out`. */
static ncclResult_t chunks(const call *at)
{
    const moecal_lane *lane = at->lane;
    bool sums = lane->exchange->collective == MOECAL_REDUCE;
    size_t count = (size_t)part_count(lane);
    int64_t offset = 0;
    for (int chunk = 0; chunk < chunk_count(lane->exchange); chunk++) {
        const moecal_communicator *of = lane->of_chunk[chunk];
        ncclResult_t status;
        if (!takes_part(of, at->rank))
            continue;
        int root = place_in(of, owner_of(lane->exchange, chunk));
        if (sums)
            status = ncclReduce(at->in + offset, at->out + offset, count, nccl_type(lane->element),
                                ncclSum, root, of->comm[at->local], at->stream);
        else
            status = ncclBroadcast(at->in + offset, at->out + offset, count, ncclUint8, root,
                                   of->comm[at->local], at->stream);
        if (status != ncclSuccess)
            return status;
        offset += chunk_stride(lane);
    }
    return ncclSuccess;
}

static ncclResult_t start(const call *at)
{
    const moecal_lane *lane = at->lane;
    size_t count = (size_t)part_count(lane);
    ncclDataType_t type = reduces(lane->exchange) ? nccl_type(lane->element) : ncclUint8;
    switch (lane->exchange->collective) {
    case MOECAL_ALL_TO_ALL:
        return all_to_all(at);
    case MOECAL_ALL_GATHER:
        return ncclAllGather(at->in, at->out, count, type, at->comm, at->stream);
    case MOECAL_REDUCE_SCATTER:
        return ncclReduceScatter(at->in, at->out, count, type, ncclSum, at->comm, at->stream);
    case MOECAL_ALL_REDUCE:
        return ncclAllReduce(at->in, at->out, count, type, ncclSum, at->comm, at->stream);
    case MOECAL_SEND_RECV:
        return to_next(at);
    default:
        return chunks(at);
    }
}

int moecal_lane_issue(moecal_cuda *cuda, int index, int64_t repetition)
{
    const moecal_lane *lane = &cuda->lane[index];
    ncclResult_t status = ncclSuccess;
    MOECAL_NCCL(ncclGroupStart());
    for (int i = 0; i < cuda->active && status == ncclSuccess; i++) {
        moecal_device *device = &cuda->device[i];
        call at = {lane,
                   lane->all->comm[i],
                   device->stream[index],
                   moecal_operand_at(device, lane->in, repetition),
                   moecal_operand_at(device, lane->out, repetition),
                   device->rank,
                   i};
        cudaSetDevice(device->ordinal);
        status = start(&at);
    }
    ncclResult_t ended = ncclGroupEnd();
    MOECAL_NCCL(status);
    MOECAL_NCCL(ended);
    return 0;
}

int moecal_lane_align(moecal_cuda *cuda, int index, int stream)
{
    const moecal_lane *lane = &cuda->lane[index];
    ncclResult_t status = ncclSuccess;
    MOECAL_NCCL(ncclGroupStart());
    for (int i = 0; i < cuda->active && status == ncclSuccess; i++) {
        moecal_device *device = &cuda->device[i];
        cudaSetDevice(device->ordinal);
        status = ncclAllReduce(device->workspace, device->workspace, 1, ncclInt32, ncclMax,
                               lane->all->comm[i], device->stream[stream]);
    }
    ncclResult_t ended = ncclGroupEnd();
    MOECAL_NCCL(status);
    MOECAL_NCCL(ended);
    return 0;
}

/* --- checking --------------------------------------------------------------------------------- */

static int compare_moved(moecal_cuda *cuda, moecal_device *device, const moecal_lane *lane,
                         int64_t at, int64_t bytes, int from, int64_t offset)
{
    const char *out = moecal_operand_at(device, lane->out, 0);
    MOECAL_CUDA(moecal_kernel_compare_bytes(out + at, (size_t)bytes, seed_of(cuda, lane, from),
                                            (size_t)offset, device->wrong, device->stream[0]));
    return 0;
}

/* Where in the sender's buffer what it has for `to` begins. */
static int64_t offset_at_sender(const moecal_lane *lane, int from, int to)
{
    int64_t offset = 0;
    for (int peer = 0; peer < to; peer++)
        offset += rounded(pair_bytes(lane, from, peer));
    return offset;
}

static int compare_all_to_all(moecal_cuda *cuda, moecal_device *device, const moecal_lane *lane)
{
    int64_t at = 0;
    for (int from = 0; from < lane_ranks(lane); from++) {
        int64_t bytes = pair_bytes(lane, from, device->rank);
        MOECAL_DO(compare_moved(cuda, device, lane, at, bytes, from,
                                offset_at_sender(lane, from, device->rank)));
        at += rounded(bytes);
    }
    return 0;
}

static int compare_broadcasts(moecal_cuda *cuda, moecal_device *device, const moecal_lane *lane)
{
    int64_t at = 0, part = part_count(lane);
    for (int chunk = 0; chunk < chunk_count(lane->exchange); chunk++) {
        int owner = owner_of(lane->exchange, chunk);
        if (!takes_part(lane->of_chunk[chunk], device->rank))
            continue;
        MOECAL_DO(compare_moved(cuda, device, lane, at, part, owner,
                                chunk_stride(lane) * chunk_place(lane, owner, chunk)));
        at += chunk_stride(lane);
    }
    return 0;
}

/* `members`: on the device; NULL: all. At most MOST_COMPARED elements, evenly spread. */
static int compare_sums(moecal_cuda *cuda, moecal_device *device, const moecal_lane *lane,
                        int64_t at_byte, int64_t first, const int *members, int member_count)
{
    int64_t count = part_count(lane), ranks = lane_ranks(lane);
    int64_t step = 1 + count / (MOST_COMPARED / ranks);
    const char *out = moecal_operand_at(device, lane->out, 0);
    MOECAL_CUDA(moecal_kernel_compare_sums(lane->element, out + at_byte, count, step, first,
                                           members, member_count, (int)ranks, device->wrong,
                                           device->stream[0]));
    return 0;
}

/* The owner alone has the sum. */
static int compare_reduces(moecal_cuda *cuda, moecal_device *device, const moecal_lane *lane)
{
    int64_t place = 0;
    int mark = device->taken_count;
    for (int chunk = 0; chunk < chunk_count(lane->exchange); chunk++) {
        const moecal_communicator *of = lane->of_chunk[chunk];
        if (!takes_part(of, device->rank))
            continue;
        int64_t at = chunk_stride(lane) * place++;
        if (owner_of(lane->exchange, chunk) != device->rank)
            continue;
        size_t bytes = (size_t)of->member_count * sizeof(int);
        int *members = moecal_take(cuda, device, bytes);
        if (!members)
            return 1;
        MOECAL_CUDA(cudaMemcpy(members, of->members, bytes, cudaMemcpyHostToDevice));
        MOECAL_DO(compare_sums(cuda, device, lane, at, chunk * part_count(lane), members,
                               of->member_count));
        MOECAL_CUDA(cudaStreamSynchronize(device->stream[0]));
        moecal_give_back(device, mark);
    }
    return 0;
}

static int compare(moecal_cuda *cuda, moecal_device *device, const moecal_lane *lane)
{
    int ranks = lane_ranks(lane), rank = device->rank;
    int64_t part = part_count(lane);
    switch (lane->exchange->collective) {
    case MOECAL_ALL_TO_ALL:
        return compare_all_to_all(cuda, device, lane);
    case MOECAL_ALL_GATHER:
        for (int from = 0; from < ranks; from++)
            MOECAL_DO(compare_moved(cuda, device, lane, from * part, part, from, 0));
        return 0;
    case MOECAL_REDUCE_SCATTER:
        return compare_sums(cuda, device, lane, 0, rank * part, NULL, ranks);
    case MOECAL_ALL_REDUCE:
        return compare_sums(cuda, device, lane, 0, 0, NULL, ranks);
    case MOECAL_SEND_RECV:
        return compare_moved(cuda, device, lane, 0, part, (rank + ranks - 1) % ranks, 0);
    case MOECAL_BROADCAST:
        return compare_broadcasts(cuda, device, lane);
    default:
        return compare_reduces(cuda, device, lane);
    }
}

/* error: the number of wrong bytes or sums. */
int moecal_lane_check(moecal_cuda *cuda, int index, moecal_check *check)
{
    for (int i = 0; i < cuda->active; i++) {
        moecal_device *device = &cuda->device[i];
        unsigned long long wrong = 0;
        MOECAL_CUDA(cudaSetDevice(device->ordinal));
        MOECAL_CUDA(cudaMemsetAsync(device->wrong, 0, sizeof wrong, device->stream[0]));
        MOECAL_DO(compare(cuda, device, &cuda->lane[index]));
        MOECAL_CUDA(cudaMemcpyAsync(&wrong, device->wrong, sizeof wrong, cudaMemcpyDeviceToHost,
                                    device->stream[0]));
        MOECAL_CUDA(cudaStreamSynchronize(device->stream[0]));
        check->error = (double)wrong > check->error ? (double)wrong : check->error;
    }
    return 0;
}
