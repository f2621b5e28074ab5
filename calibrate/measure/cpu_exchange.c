/* Collectives over MPI: what they are called with, alone, beside a matrix product, two at once. */
#include "calibrate/measure/cpu_exchange.h"

#include "calibrate/measure/cpu_job.h"
#include "calibrate/measure/cpu_kernels.h"
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_GROUPS = 500 };

/* --- groups of ranks -------------------------------------------------------------------------- */

static void *zeros(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        abort();
    return memory;
}

static int ascending(const void *left, const void *right)
{
    int a = *(const int *)left, b = *(const int *)right;
    return (a > b) - (a < b);
}

/* The owner and who wants it. */
static int *members_of(const moecal_chunk *chunk)
{
    int *members = zeros((size_t)chunk->want_count + 1, sizeof *members);
    members[0] = chunk->owner;
    memcpy(members + 1, chunk->want, (size_t)chunk->want_count * sizeof *members);
    qsort(members, (size_t)chunk->want_count + 1, sizeof *members, ascending);
    return members;
}

static MPI_Comm comm_of(MPI_Comm comm, int rank, const int *members, int count, int tag)
{
    MPI_Comm made = MPI_COMM_NULL;
    MPI_Group all, some;
    if (!bsearch(&rank, members, (size_t)count, sizeof *members, ascending))
        return made;
    MPI_Comm_group(comm, &all);
    MPI_Group_incl(all, count, members, &some);
    MPI_Comm_create_group(comm, some, tag, &made);
    MPI_Group_free(&all);
    MPI_Group_free(&some);
    return made;
}

/* The one with these members, made if it is new; takes `members` over. -1: too many. */
static int group_with(moecal_cpu_exchange *made, int *members, int count)
{
    for (int i = 0; i < made->group_count; i++) {
        const moecal_cpu_group *group = &made->groups[i];
        if (group->count == count &&
            memcmp(group->members, members, (size_t)count * sizeof *members) == 0) {
            free(members);
            return i;
        }
    }
    if (made->group_count == MOST_GROUPS) {
        free(members);
        return -1;
    }
    made->groups[made->group_count] = (moecal_cpu_group){
        comm_of(made->comm, made->rank, members, count, made->group_count), count, members};
    return made->group_count++;
}

static int create_groups(moecal_cpu_exchange *made, char *error, size_t error_size)
{
    size_t chunks = (size_t)made->exchange->chunk_count;
    made->groups = zeros(MOST_GROUPS, sizeof *made->groups);
    made->group_of = zeros(chunks, sizeof *made->group_of);
    made->root = zeros(chunks, sizeof *made->root);
    for (int i = 0; i < made->exchange->chunk_count; i++) {
        const moecal_chunk *chunk = &made->exchange->chunks[i];
        int *members = members_of(chunk), count = chunk->want_count + 1;
        const int *owner =
            bsearch(&chunk->owner, members, (size_t)count, sizeof *members, ascending);
        made->root[i] = (int)(owner - members);
        made->group_of[i] = group_with(made, members, count);
        if (made->group_of[i] < 0) {
            snprintf(error, error_size, "its chunks go around more than %d groups of ranks",
                     MOST_GROUPS);
            return -1;
        }
    }
    return 0;
}

/* --- sizes ------------------------------------------------------------------------------------ */

/* Bytes from `sender` to `receiver`. */
static int64_t pair_bytes(const moecal_cpu_exchange *made, int sender, int receiver)
{
    const moecal_exchange *exchange = made->exchange;
    return exchange->matrix ? exchange->matrix[sender * made->ranks + receiver]
                            : exchange->bytes / made->ranks;
}

static int create_counts(moecal_cpu_exchange *made, char *error, size_t error_size)
{
    size_t ranks = (size_t)made->ranks;
    int *counts = zeros(4 * ranks, sizeof *counts);
    made->send_counts = counts;
    made->send_at = counts + ranks;
    made->receive_counts = counts + 2 * ranks;
    made->receive_at = counts + 3 * ranks;
    for (int peer = 0; peer < made->ranks; peer++) {
        int64_t sent = pair_bytes(made, made->rank, peer);
        int64_t received = pair_bytes(made, peer, made->rank);
        if (made->send_bytes + sent > INT_MAX || made->receive_bytes + received > INT_MAX) {
            snprintf(error, error_size, "a rank sends or receives more than %d bytes", INT_MAX);
            return -1;
        }
        made->send_counts[peer] = (int)sent;
        made->send_at[peer] = (int)made->send_bytes;
        made->receive_counts[peer] = (int)received;
        made->receive_at[peer] = (int)made->receive_bytes;
        made->send_bytes += sent;
        made->receive_bytes += received;
    }
    return 0;
}

/* What one call of MPI takes; refuses() has seen to the limits of `bytes`. */
static int share_of(const moecal_cpu_exchange *made)
{
    return (int)(made->exchange->bytes / made->ranks);
}

static int values_of(int64_t bytes)
{
    return (int)(bytes / (int64_t)sizeof(float));
}

static int create_plain(moecal_cpu_exchange *made)
{
    int64_t bytes = made->exchange->bytes;
    made->send_bytes = made->exchange->collective == MOECAL_ALL_GATHER ? share_of(made) : bytes;
    made->receive_bytes =
        made->exchange->collective == MOECAL_REDUCE_SCATTER ? share_of(made) : bytes;
    return 0;
}

int moecal_cpu_exchange_create(moecal_cpu_exchange *made, const moecal_exchange *exchange,
                               MPI_Comm comm, char *error, size_t error_size)
{
    *made = (moecal_cpu_exchange){.exchange = exchange, .comm = comm};
    MPI_Comm_rank(comm, &made->rank);
    MPI_Comm_size(comm, &made->ranks);
    made->request_count = exchange->chunks ? exchange->chunk_count : 2;
    made->requests = zeros((size_t)made->request_count, sizeof *made->requests);
    if (exchange->collective == MOECAL_ALL_TO_ALL)
        return create_counts(made, error, error_size);
    if (!exchange->chunks)
        return create_plain(made);
    made->send_bytes = made->receive_bytes = exchange->chunk_count * exchange->chunk_bytes;
    if (exchange->chunk_bytes > INT_MAX) {
        snprintf(error, error_size, "a chunk has more than %d bytes", INT_MAX);
        return -1;
    }
    return create_groups(made, error, error_size);
}

void moecal_cpu_exchange_free(moecal_cpu_exchange *freed)
{
    for (int i = 0; i < freed->group_count; i++) {
        if (freed->groups[i].comm != MPI_COMM_NULL)
            MPI_Comm_free(&freed->groups[i].comm);
        free(freed->groups[i].members);
    }
    free(freed->groups);
    free(freed->group_of);
    free(freed->root);
    free(freed->send_counts);
    free(freed->requests);
    *freed = (moecal_cpu_exchange){0};
}

/* --- calls ------------------------------------------------------------------------------------ */

static int start_chunk(moecal_cpu_exchange *made, int chunk, const float *send, float *receive,
                       MPI_Request *request)
{
    const moecal_cpu_group *group = &made->groups[made->group_of[chunk]];
    int64_t bytes = made->exchange->chunk_bytes;
    const char *from = (const char *)send + chunk * bytes;
    char *to = (char *)receive + chunk * bytes;
    int rank;
    if (group->comm == MPI_COMM_NULL)
        return 0;
    MPI_Comm_rank(group->comm, &rank);
    if (made->exchange->collective == MOECAL_BROADCAST)
        MPI_Ibcast(rank == made->root[chunk] ? (void *)from : to, (int)bytes, MPI_BYTE,
                   made->root[chunk], group->comm, request);
    else
        MPI_Ireduce(from, to, values_of(bytes), MPI_FLOAT, MPI_SUM, made->root[chunk], group->comm,
                    request);
    return 1;
}

static int start_chunks(moecal_cpu_exchange *made, const float *send, float *receive)
{
    int started = 0;
    for (int chunk = 0; chunk < made->exchange->chunk_count; chunk++)
        started += start_chunk(made, chunk, send, receive, made->requests + started);
    return started;
}

static int start_ring(moecal_cpu_exchange *made, const float *send, float *receive)
{
    int next = (made->rank + 1) % made->ranks, last = (made->rank + made->ranks - 1) % made->ranks;
    int bytes = (int)made->exchange->bytes;
    MPI_Irecv(receive, bytes, MPI_BYTE, last, 0, made->comm, made->requests);
    MPI_Isend(send, bytes, MPI_BYTE, next, 0, made->comm, made->requests + 1);
    return 2;
}

int moecal_cpu_exchange_start(moecal_cpu_exchange *made, const float *send, float *receive)
{
    MPI_Request *request = made->requests;
    int bytes = (int)made->exchange->bytes, share = share_of(made);
    if (made->exchange->chunks)
        return start_chunks(made, send, receive);
    switch (made->exchange->collective) {
    case MOECAL_ALL_TO_ALL:
        MPI_Ialltoallv(send, made->send_counts, made->send_at, MPI_BYTE, receive,
                       made->receive_counts, made->receive_at, MPI_BYTE, made->comm, request);
        return 1;
    case MOECAL_ALL_GATHER:
        MPI_Iallgather(send, share, MPI_BYTE, receive, share, MPI_BYTE, made->comm, request);
        return 1;
    case MOECAL_REDUCE_SCATTER:
        MPI_Ireduce_scatter_block(send, receive, values_of(share), MPI_FLOAT, MPI_SUM, made->comm,
                                  request);
        return 1;
    case MOECAL_ALL_REDUCE:
        MPI_Iallreduce(send, receive, values_of(bytes), MPI_FLOAT, MPI_SUM, made->comm, request);
        return 1;
    case MOECAL_BROADCAST:
        MPI_Ibcast(made->rank == 0 ? (void *)send : receive, bytes, MPI_BYTE, 0, made->comm,
                   request);
        return 1;
    case MOECAL_REDUCE:
        MPI_Ireduce(send, receive, values_of(bytes), MPI_FLOAT, MPI_SUM, 0, made->comm, request);
        return 1;
    default:
        return start_ring(made, send, receive);
    }
}

void moecal_cpu_exchange_run(moecal_cpu_exchange *made, const float *send, float *receive)
{
    int bytes = (int)made->exchange->bytes, share = share_of(made), started = 0;
    moecal_collective collective = made->exchange->collective;
    if (made->exchange->chunks)
        started = start_chunks(made, send, receive);
    else if (collective == MOECAL_ALL_TO_ALL)
        MPI_Alltoallv(send, made->send_counts, made->send_at, MPI_BYTE, receive,
                      made->receive_counts, made->receive_at, MPI_BYTE, made->comm);
    else if (collective == MOECAL_ALL_GATHER)
        MPI_Allgather(send, share, MPI_BYTE, receive, share, MPI_BYTE, made->comm);
    else if (collective == MOECAL_REDUCE_SCATTER)
        MPI_Reduce_scatter_block(send, receive, values_of(share), MPI_FLOAT, MPI_SUM, made->comm);
    else if (collective == MOECAL_ALL_REDUCE)
        MPI_Allreduce(send, receive, values_of(bytes), MPI_FLOAT, MPI_SUM, made->comm);
    else if (collective == MOECAL_BROADCAST)
        MPI_Bcast(made->rank == 0 ? (void *)send : receive, bytes, MPI_BYTE, 0, made->comm);
    else if (collective == MOECAL_REDUCE)
        MPI_Reduce(send, receive, values_of(bytes), MPI_FLOAT, MPI_SUM, 0, made->comm);
    else
        started = start_ring(made, send, receive);
    if (started > 0)
        MPI_Waitall(started, made->requests, MPI_STATUSES_IGNORE);
}

/* --- points ----------------------------------------------------------------------------------- */

typedef struct exchange_job {
    MPI_Comm comm[2]; /* of the ranks that take part; MPI_COMM_NULL: not this one */
    moecal_cpu_exchange first, second;
    int64_t send_values[2], receive_values[2]; /* on any rank, so that all sets lie alike */
    int64_t gemm_inputs;
    pthread_t thread; /* the collective beside the matrix product */
    pthread_barrier_t barrier;
    bool started, ending;
    const float *send;
    float *receive;
    double start_s, collective_s;
} exchange_job;

static const float *send_of(const moecal_cpu_job *job, int64_t set, int which)
{
    const exchange_job *details = job->details;
    return moecal_cpu_inputs(job, set) + details->gemm_inputs + which * details->send_values[0];
}

static float *receive_of(const moecal_cpu_job *job, int64_t set, int which)
{
    const exchange_job *details = job->details;
    return moecal_cpu_results(job, set) + which * details->receive_values[0];
}

static void collective_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    exchange_job *details = job->details;
    (void)alone;
    *time = (moecal_time){0};
    if (details->comm[0] == MPI_COMM_NULL)
        return;
    const float *send = send_of(job, set, 0);
    float *receive = receive_of(job, set, 0);
    double start_s = moecal_cpu_now_s();
    moecal_cpu_exchange_run(&details->first, send, receive);
    *time = moecal_cpu_since(start_s);
}

/* --- checks: everybody's inputs are known to everybody ---------------------------------------- */

/* Rank `rank`'s value of its first set's send buffer. */
static float sent_value(const moecal_cpu_job *job, int rank, int which, int64_t index)
{
    const exchange_job *details = job->details;
    return moecal_cpu_random(rank, details->gemm_inputs + which * details->send_values[0] + index);
}

static bool same_bytes(const moecal_cpu_job *job, int which, int rank, int64_t from,
                       const char *got, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        float value = sent_value(job, rank, which, (from + i) / 4);
        char bytes[sizeof value];
        memcpy(bytes, &value, sizeof value);
        if (got[i] != bytes[(from + i) % 4])
            return false;
    }
    return true;
}

static bool all_to_all_is_right(const moecal_cpu_job *job, int which,
                                const moecal_cpu_exchange *made, const char *got)
{
    for (int peer = 0; peer < made->ranks; peer++) {
        int64_t from = 0;
        for (int before = 0; before < made->rank; before++)
            from += pair_bytes(made, peer, before);
        if (!same_bytes(job, which, peer, from, got + made->receive_at[peer],
                        made->receive_counts[peer]))
            return false;
    }
    return true;
}

static bool gathered_is_right(const moecal_cpu_job *job, int which, const moecal_cpu_exchange *made,
                              const char *got)
{
    for (int peer = 0; peer < made->ranks; peer++)
        if (!same_bytes(job, which, peer, 0, got + (int64_t)peer * share_of(made), share_of(made)))
            return false;
    return true;
}

/* `members` NULL: all ranks. */
static double sum_error(const moecal_cpu_job *job, int which, int count, const int *members,
                        int64_t from, const float *got, int64_t values)
{
    moecal_cpu_deviation seen = {0};
    for (int64_t i = 0; i < values; i++) {
        double expected = 0;
        for (int member = 0; member < count; member++)
            expected += sent_value(job, members ? members[member] : member, which, from + i);
        moecal_cpu_compare(&seen, got[i], expected);
    }
    return moecal_cpu_relative(&seen);
}

static double chunk_error(const moecal_cpu_job *job, int which, const moecal_cpu_exchange *made,
                          int chunk, const float *got)
{
    const moecal_cpu_group *group = &made->groups[made->group_of[chunk]];
    int64_t bytes = made->exchange->chunk_bytes, from = chunk * bytes;
    int owner = made->exchange->chunks[chunk].owner;
    bool owns = owner == made->rank;
    if (group->comm == MPI_COMM_NULL)
        return 0;
    if (made->exchange->collective == MOECAL_BROADCAST)
        return owns || same_bytes(job, which, owner, from, (const char *)got + from, bytes) ? 0 : 1;
    return owns ? sum_error(job, which, group->count, group->members, from / 4, got + from / 4,
                            bytes / 4)
                : 0;
}

static double chunks_error(const moecal_cpu_job *job, int which, const moecal_cpu_exchange *made,
                           const float *got)
{
    double worst = 0;
    for (int chunk = 0; chunk < made->exchange->chunk_count; chunk++)
        worst = fmax(worst, chunk_error(job, which, made, chunk, got));
    return worst;
}

static double reduced_error(const moecal_cpu_job *job, int which, const moecal_cpu_exchange *made,
                            const float *got)
{
    int64_t values = values_of(made->exchange->bytes);
    if (made->exchange->collective == MOECAL_REDUCE_SCATTER) {
        values = values_of(share_of(made));
        return sum_error(job, which, made->ranks, NULL, made->rank * values, got, values);
    }
    if (made->exchange->collective == MOECAL_REDUCE && made->rank != 0)
        return 0;
    return sum_error(job, which, made->ranks, NULL, 0, got, values);
}

static double exchange_error(const moecal_cpu_job *job, int which, const moecal_cpu_exchange *made)
{
    const float *got = receive_of(job, 0, which);
    const char *bytes = (const char *)got;
    int before = (made->rank + made->ranks - 1) % (made->ranks ? made->ranks : 1);
    if (made->exchange->chunks)
        return chunks_error(job, which, made, got);
    switch (made->exchange->collective) {
    case MOECAL_ALL_TO_ALL:
        return all_to_all_is_right(job, which, made, bytes) ? 0 : 1;
    case MOECAL_ALL_GATHER:
        return gathered_is_right(job, which, made, bytes) ? 0 : 1;
    case MOECAL_BROADCAST:
        return made->rank == 0 || same_bytes(job, which, 0, 0, bytes, made->exchange->bytes) ? 0
                                                                                             : 1;
    case MOECAL_SEND_RECV:
        return same_bytes(job, which, before, 0, bytes, made->exchange->bytes) ? 0 : 1;
    default:
        return reduced_error(job, which, made, got);
    }
}

static double exchanges_error(moecal_cpu_job *job)
{
    exchange_job *details = job->details;
    double error;
    if (details->comm[0] == MPI_COMM_NULL)
        return 0;
    error = exchange_error(job, 0, &details->first);
    return job->point->kind == MOECAL_SHARING
               ? fmax(error, exchange_error(job, 1, &details->second))
               : error;
}

/* --- two at once ------------------------------------------------------------------------------ */

static double wait_for(moecal_cpu_exchange *made, int started, double start_s)
{
    MPI_Waitall(started, made->requests, MPI_STATUSES_IGNORE);
    return moecal_cpu_now_s() - start_s;
}

/* Progress of both until each is done. */
static void wait_for_both(moecal_cpu_exchange *made[2], const int started[2], double start_s,
                          moecal_time *time)
{
    double done_s[2] = {0};
    int done[2] = {0};
    while (!done[0] || !done[1])
        for (int i = 0; i < 2; i++)
            if (!done[i]) {
                MPI_Testall(started[i], made[i]->requests, &done[i], MPI_STATUSES_IGNORE);
                done_s[i] = moecal_cpu_now_s() - start_s;
            }
    *time = (moecal_time){fmax(done_s[0], done_s[1]), done_s[0], done_s[1]};
}

static void sharing_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    exchange_job *details = job->details;
    moecal_cpu_exchange *made[2] = {&details->first, &details->second};
    int started[2] = {0};
    *time = (moecal_time){0};
    if (details->comm[0] == MPI_COMM_NULL)
        return;
    double start_s = moecal_cpu_now_s();
    for (int i = 0; i < 2; i++)
        if (alone == 0 || alone == i + 1)
            started[i] =
                moecal_cpu_exchange_start(made[i], send_of(job, set, i), receive_of(job, set, i));
    if (alone == 0)
        wait_for_both(made, started, start_s, time);
    else
        time->total_s = wait_for(made[alone - 1], started[alone - 1], start_s);
}

/* The second thread: waits, runs the collective, reports. */
static void *collective_thread(void *argument)
{
    exchange_job *details = argument;
    for (;;) {
        pthread_barrier_wait(&details->barrier);
        if (details->ending)
            return NULL;
        moecal_cpu_exchange_run(&details->first, details->send, details->receive);
        details->collective_s = moecal_cpu_now_s() - details->start_s;
        pthread_barrier_wait(&details->barrier);
    }
}

static void multiply(const moecal_cpu_job *job, int64_t set)
{
    const moecal_gemm *shape = &job->point->gemm;
    const exchange_job *details = job->details;
    const float *a = moecal_cpu_inputs(job, set), *b = a + shape->m * shape->k;
    moecal_cpu_gemm(false, false, shape->m, shape->n, shape->k, a, b,
                    moecal_cpu_results(job, set) + details->receive_values[0]);
}

/* Both threads on one core, which the system shares out: so is computation beside communication where
 * nothing but cores moves the bytes. */
static void interference_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    exchange_job *details = job->details;
    bool communicates = alone != 1 && details->comm[0] != MPI_COMM_NULL;
    *time = (moecal_time){0};
    details->send = send_of(job, set, 0);
    details->receive = receive_of(job, set, 0);
    double start_s = details->start_s = moecal_cpu_now_s();
    if (alone == 2) {
        if (communicates)
            moecal_cpu_exchange_run(&details->first, details->send, details->receive);
        *time = moecal_cpu_since(start_s);
        return;
    }
    if (communicates)
        pthread_barrier_wait(&details->barrier);
    multiply(job, set);
    time->first_s = moecal_cpu_now_s() - start_s;
    if (communicates) {
        pthread_barrier_wait(&details->barrier);
        time->second_s = details->collective_s;
    }
    time->total_s = fmax(time->first_s, time->second_s);
}

static double interference_error(moecal_cpu_job *job)
{
    const moecal_gemm *shape = &job->point->gemm;
    const exchange_job *details = job->details;
    const float *a = moecal_cpu_inputs(job, 0), *b = a + shape->m * shape->k;
    const float *c = moecal_cpu_results(job, 0) + details->receive_values[0];
    moecal_cpu_deviation seen = {0};
    for (int sample = 0; sample < 64; sample++) {
        int64_t i = sample * (shape->m - 1) / 63, j = (63 - sample) * (shape->n - 1) / 63;
        double expected = 0;
        for (int64_t k = 0; k < shape->k; k++)
            expected += (double)a[i * shape->k + k] * (double)b[k * shape->n + j];
        moecal_cpu_compare(&seen, c[i * shape->n + j], expected);
    }
    return fmax(moecal_cpu_relative(&seen), exchanges_error(job));
}

/* --- set-up ----------------------------------------------------------------------------------- */

static void exchange_job_free(moecal_cpu_job *job)
{
    exchange_job *details = job->details;
    if (details->started) {
        details->ending = true;
        pthread_barrier_wait(&details->barrier);
        pthread_join(details->thread, NULL);
        pthread_barrier_destroy(&details->barrier);
    }
    moecal_cpu_exchange_free(&details->first);
    moecal_cpu_exchange_free(&details->second);
    for (int i = 0; i < 2; i++)
        if (details->comm[i] != MPI_COMM_NULL)
            MPI_Comm_free(&details->comm[i]);
    free(details);
}

/* The same on all ranks: what a value of another rank's set is follows from it. */
static int64_t most_values(const moecal_cpu *cpu, int64_t bytes)
{
    int64_t values = (bytes + 63) / 64 * 16;
    MPI_Allreduce(MPI_IN_PLACE, &values, 1, MPI_INT64_T, MPI_MAX, cpu->comm);
    return values;
}

static int create_exchanges(moecal_cpu_job *job, char *error, size_t error_size)
{
    const moecal_point *point = job->point;
    exchange_job *details = job->details;
    moecal_cpu_exchange *made[2] = {&details->first, &details->second};
    const moecal_exchange *asked[2] = {&point->first, &point->second};
    int count = point->kind == MOECAL_SHARING ? 2 : 1, failed = 0;
    int ranks = point->ranks > 0 ? point->ranks : job->cpu->world.ranks;
    int member = job->cpu->world.rank < ranks ? 0 : MPI_UNDEFINED;
    for (int i = 0; i < count; i++) {
        MPI_Comm_split(job->cpu->comm, member, 0, &details->comm[i]);
        if (details->comm[i] != MPI_COMM_NULL)
            failed |=
                moecal_cpu_exchange_create(made[i], asked[i], details->comm[i], error, error_size);
        details->send_values[i] = most_values(job->cpu, made[i]->send_bytes);
        details->receive_values[i] = most_values(job->cpu, made[i]->receive_bytes);
    }
    return failed;
}

static int set_up_interference(moecal_cpu_job *job, char *error, size_t error_size)
{
    const moecal_gemm *shape = &job->point->gemm;
    exchange_job *details = job->details;
    job->once = interference_once;
    job->error = interference_error;
    job->result_values += shape->m * shape->n;
    if (pthread_barrier_init(&details->barrier, NULL, 2) != 0 ||
        pthread_create(&details->thread, NULL, collective_thread, details) != 0) {
        snprintf(error, error_size, "a second thread could not be started");
        return -1;
    }
    details->started = true;
    return 0;
}

int moecal_cpu_exchange_set_up(moecal_cpu_job *job, char *error, size_t error_size)
{
    const moecal_point *point = job->point;
    exchange_job *details = zeros(1, sizeof *details);
    details->comm[0] = details->comm[1] = MPI_COMM_NULL;
    job->details = details;
    job->free = exchange_job_free;
    job->once = point->kind == MOECAL_SHARING ? sharing_once : collective_once;
    job->error = exchanges_error;
    job->limit = 1e-5;
    if (point->kind == MOECAL_INTERFERENCE)
        details->gemm_inputs = (point->gemm.m + point->gemm.n) * point->gemm.k;
    if (create_exchanges(job, error, error_size) != 0)
        return -1;
    job->input_values = details->gemm_inputs + details->send_values[0] + details->send_values[1];
    job->result_values = details->receive_values[0] + details->receive_values[1];
    return point->kind == MOECAL_INTERFERENCE ? set_up_interference(job, error, error_size) : 0;
}
