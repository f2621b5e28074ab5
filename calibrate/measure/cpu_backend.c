/* The CPU backend: a rank is a core, MPI's shared memory the fabric. All ranks compute at the same
 * time, as they do in a step, and share memory bandwidth. */
#include "calibrate/measure/cpu_job.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* --- time and numbers ------------------------------------------------------------------------- */

double moecal_cpu_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

moecal_time moecal_cpu_since(double start_s)
{
    return (moecal_time){.total_s = moecal_cpu_now_s() - start_s};
}

/* splitmix64 (Steele, Lea, Flood 2014) of the index: any value without those before it. */
float moecal_cpu_random(int rank, int64_t index)
{
    uint64_t z =
        (uint64_t)index * 0x9e3779b97f4a7c15ULL + (uint64_t)(rank + 1) * 0xd1342543de82ef95ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    int32_t odd = (int32_t)((z >> 40) | 1); /* 24 bits, not 0 */
    return (float)(odd - (1 << 23)) * (1.0f / (1 << 23));
}

void moecal_cpu_compare(moecal_cpu_deviation *seen, double got, double expected)
{
    double off = fabs(got - expected);
    seen->worst = off > seen->worst || isnan(off) ? off : seen->worst;
    seen->largest = fmax(seen->largest, fabs(expected));
}

double moecal_cpu_relative(const moecal_cpu_deviation *seen)
{
    return seen->largest > 0 ? seen->worst / seen->largest : seen->worst;
}

/* --- memory ----------------------------------------------------------------------------------- */

static size_t pool_bytes(int64_t count)
{
    return (size_t)count * sizeof(float);
}

static void pool_free(moecal_cpu_pool *pool)
{
    if (pool->values)
        munmap(pool->values, pool_bytes(pool->count));
    *pool = (moecal_cpu_pool){0};
}

/* What can be had without swapping, caches of files included. */
static double available_bytes(void)
{
    char line[256];
    double kib = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && kib == 0 && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lf kB", &kib) != 1)
            kib = 0;
    if (file)
        fclose(file);
    return kib > 0 ? kib * 1024 : (double)sysconf(_SC_AVPHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
}

/* All ranks of a host ask at the same time. */
int64_t moecal_cpu_free_values(const moecal_world *world)
{
    return (int64_t)(0.8 * available_bytes() / world->devices_per_host / sizeof(float));
}

/* Pages are touched now: not in the first repetition. */
static void pool_fill(const moecal_cpu_pool *pool, int random_rank)
{
    for (int64_t i = 0; i < pool->count; i++)
        pool->values[i] = random_rank < 0 ? 0 : moecal_cpu_random(random_rank, i);
}

int moecal_cpu_pool_reserve(moecal_cpu_pool *pool, int64_t count, int random_rank)
{
    if (count <= pool->count)
        return 1;
    pool_free(pool);
    void *memory =
        mmap(NULL, pool_bytes(count), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 0;
    *pool = (moecal_cpu_pool){memory, count};
    pool_fill(pool, random_rank);
    return 1;
}

const float *moecal_cpu_inputs(const moecal_cpu_job *job, int64_t set)
{
    return job->cpu->inputs.values + set * job->input_values;
}

float *moecal_cpu_results(const moecal_cpu_job *job, int64_t set)
{
    return job->cpu->results.values + set * job->result_values;
}

/* Whole cache lines. */
static int64_t rounded(int64_t values)
{
    return (values + 15) / 16 * 16;
}

static int64_t sets_that_fit(const moecal_cpu_job *job)
{
    int64_t sets = MOECAL_CPU_MOST_SETS, pool = MOECAL_CPU_POOL_BYTES / 2 / (int64_t)sizeof(float);
    if (job->input_values > 0 && pool / job->input_values < sets)
        sets = pool / job->input_values;
    if (job->result_values > 0 && pool / job->result_values < sets)
        sets = pool / job->result_values;
    return sets > 1 ? sets : 1;
}

static int take_memory(moecal_cpu_job *job, char *error, size_t error_size)
{
    moecal_cpu *cpu = job->cpu;
    job->input_values = rounded(job->input_values);
    job->result_values = rounded(job->result_values);
    job->sets = sets_that_fit(job);
    int64_t inputs = job->sets * job->input_values, results = job->sets * job->result_values;
    int64_t more =
        (inputs > cpu->inputs.count ? inputs : 0) + (results > cpu->results.count ? results : 0);
    if (more <= moecal_cpu_free_values(&cpu->world) &&
        moecal_cpu_pool_reserve(&cpu->inputs, inputs, cpu->world.rank) &&
        moecal_cpu_pool_reserve(&cpu->results, results, -1))
        return 0;
    snprintf(error, error_size, "it needs %.3g bytes on a rank, which are not free",
             (double)pool_bytes(inputs + results));
    return -1;
}

/* --- opening ---------------------------------------------------------------------------------- */

static void find_hosts(moecal_cpu *cpu)
{
    MPI_Comm host;
    int on_host, first, firsts;
    MPI_Comm_split_type(cpu->comm, MPI_COMM_TYPE_SHARED, cpu->world.rank, MPI_INFO_NULL, &host);
    MPI_Comm_size(host, &on_host);
    MPI_Comm_rank(host, &first);
    first = first == 0;
    MPI_Allreduce(&first, &firsts, 1, MPI_INT, MPI_SUM, cpu->comm);
    MPI_Allreduce(MPI_IN_PLACE, &on_host, 1, MPI_INT, MPI_MAX, cpu->comm);
    MPI_Comm_free(&host);
    cpu->world.hosts = firsts;
    cpu->world.devices_per_host = on_host;
}

static int reserve_pools(moecal_cpu *cpu)
{
    int64_t half = MOECAL_CPU_POOL_BYTES / 2 / (int64_t)sizeof(float);
    int had = 2 * half <= moecal_cpu_free_values(&cpu->world) &&
              moecal_cpu_pool_reserve(&cpu->inputs, half, cpu->world.rank) &&
              moecal_cpu_pool_reserve(&cpu->results, half, -1);
    MPI_Allreduce(MPI_IN_PLACE, &had, 1, MPI_INT, MPI_MIN, cpu->comm);
    return had;
}

static void cpu_close(void *state)
{
    moecal_cpu *cpu = state;
    pool_free(&cpu->inputs);
    pool_free(&cpu->results);
    free(cpu);
    MPI_Finalize();
}

static void *cpu_open(char *error, size_t error_size)
{
    int level, length;
    moecal_cpu *cpu = calloc(1, sizeof *cpu);
    if (!cpu || MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS) {
        snprintf(error, error_size, "MPI could not be started");
        free(cpu);
        return NULL;
    }
    openblas_set_num_threads(1);
    cpu->comm = MPI_COMM_WORLD;
    cpu->serialized = level >= MPI_THREAD_SERIALIZED;
    MPI_Comm_rank(cpu->comm, &cpu->world.rank);
    MPI_Comm_size(cpu->comm, &cpu->world.ranks);
    MPI_Get_processor_name(cpu->processor, &length);
    cpu->world.processes = cpu->world.ranks;
    find_hosts(cpu);
    if (!reserve_pools(cpu)) {
        snprintf(error, error_size, "a rank needs %d MiB of free memory at least",
                 MOECAL_CPU_POOL_BYTES >> 20);
        cpu_close(cpu);
        return NULL;
    }
    return cpu;
}

static moecal_world cpu_world(const void *state)
{
    return ((const moecal_cpu *)state)->world;
}

/* --- points ----------------------------------------------------------------------------------- */

static bool adds(const moecal_exchange *exchange)
{
    return exchange->collective == MOECAL_REDUCE_SCATTER ||
           exchange->collective == MOECAL_ALL_REDUCE || exchange->collective == MOECAL_REDUCE;
}

static const char *refuses_exchange(const moecal_exchange *exchange, int ranks)
{
    bool divided = exchange->collective == MOECAL_ALL_TO_ALL ||
                   exchange->collective == MOECAL_ALL_GATHER ||
                   exchange->collective == MOECAL_REDUCE_SCATTER;
    int64_t each = divided ? exchange->bytes / ranks : exchange->bytes;
    if (exchange->bytes > (int64_t)1 << 30)
        return "more than 1 GiB on a rank";
    if (!exchange->matrix && !exchange->chunks && each < (adds(exchange) ? 4 : 1))
        return "fewer bytes than ranks have to get";
    if (exchange->chunks && adds(exchange) && exchange->chunk_bytes % 4 != 0)
        return "chunks to be added that are no whole number of values";
    return NULL;
}

static const char *refuses_collective(const moecal_cpu *cpu, const moecal_point *point)
{
    int ranks = point->ranks > 0 ? point->ranks : cpu->world.ranks;
    const char *reason = refuses_exchange(&point->first, ranks);
    bool added = adds(&point->first);
    if (point->kind == MOECAL_SHARING && !reason) {
        reason = refuses_exchange(&point->second, ranks);
        added |= adds(&point->second);
    }
    if (added && point->dtype != MOECAL_FP32)
        return "a CPU core adds in fp32 alone";
    if (point->kind == MOECAL_INTERFERENCE && point->sm_share > 0)
        return "a CPU core has no SMs to give a share of";
    if (point->kind == MOECAL_INTERFERENCE && !cpu->serialized)
        return "this MPI may not be called by a second thread";
    return reason;
}

static const char *cpu_refuses(const void *state, const moecal_point *point)
{
    const moecal_cpu *cpu = state;
    if (point->kind == MOECAL_COPY)
        return point->pinned ? "without a device no memory is pinned" : NULL;
    if (point->kind == MOECAL_LAUNCH)
        return point->mode == 1 ? "a CPU has no graphs of kernels" : NULL;
    if (point->kind == MOECAL_COLLECTIVE || point->kind == MOECAL_SHARING)
        return refuses_collective(cpu, point);
    if (point->dtype != MOECAL_FP32)
        return "a CPU core computes in fp32 alone";
    if (point->kind == MOECAL_INTERFERENCE)
        return refuses_collective(cpu, point);
    if (point->kind == MOECAL_EXPERTS && point->grouped)
        return "a CPU core has no grouped products (\"grouped\": false is one an expert)";
    return NULL;
}

static int set_up(moecal_cpu_job *job, char *error, size_t error_size)
{
    moecal_kind kind = job->point->kind;
    if (moecal_point_is_collective(job->point))
        return moecal_cpu_exchange_set_up(job, error, error_size);
    if (kind == MOECAL_LAUNCH || kind == MOECAL_COPY)
        return moecal_cpu_machinery_set_up(job, error, error_size);
    return moecal_cpu_compute_set_up(job);
}

static void job_free(moecal_cpu *cpu)
{
    if (cpu->job && cpu->job->free)
        cpu->job->free(cpu->job);
    free(cpu->job);
    cpu->job = NULL;
}

static int cpu_prepare(void *state, const moecal_point *point, char *error, size_t error_size)
{
    moecal_cpu *cpu = state;
    int failed = 1;
    error[0] = '\0';
    cpu->job = calloc(1, sizeof *cpu->job);
    if (cpu->job) {
        *cpu->job = (moecal_cpu_job){.cpu = cpu, .point = point, .limit = 1e-5};
        failed = set_up(cpu->job, error, error_size) != 0 ||
                 take_memory(cpu->job, error, error_size) != 0;
    }
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, cpu->comm);
    if (failed) {
        if (!error[0])
            snprintf(error, error_size, "another rank could not prepare it");
        job_free(cpu);
        return -1;
    }
    moecal_cpu_compute_fill(cpu->job);
    return 0;
}

static moecal_check cpu_check(void *state, const moecal_point *point)
{
    moecal_cpu *cpu = state;
    moecal_time time;
    (void)point;
    cpu->job->once(cpu->job, 0, 0, &time);
    double error = cpu->job->error(cpu->job);
    if (isnan(error))
        error = INFINITY;
    MPI_Allreduce(MPI_IN_PLACE, &error, 1, MPI_DOUBLE, MPI_MAX, cpu->comm);
    return (moecal_check){error, cpu->job->limit};
}

static void cpu_run(void *state, const moecal_point *point, int alone, int count,
                    moecal_time *times)
{
    moecal_cpu *cpu = state;
    moecal_cpu_job *job = cpu->job;
    (void)point;
    for (int i = 0; i < count; i++) {
        MPI_Barrier(cpu->comm);
        job->once(job, job->next, alone, &times[i]);
        job->next = (job->next + 1) % job->sets;
    }
    MPI_Allreduce(MPI_IN_PLACE, times, 3 * count, MPI_DOUBLE, MPI_MAX, cpu->comm);
}

static moecal_conditions cpu_conditions(void *state)
{
    moecal_conditions seen = {.temperature_c = NAN};
    char line[256];
    double mhz;
    FILE *file = fopen("/proc/cpuinfo", "r");
    (void)state;
    while (file && seen.clock_hz == 0 && fgets(line, sizeof line, file))
        if (sscanf(line, "cpu MHz : %lf", &mhz) == 1)
            seen.clock_hz = mhz * 1e6;
    if (file)
        fclose(file);
    return seen;
}

static void cpu_release(void *state, const moecal_point *point)
{
    (void)point;
    job_free(state);
}

static void cpu_share(void *state, double *values, int count)
{
    moecal_cpu *cpu = state;
    MPI_Bcast(values, count, MPI_DOUBLE, 0, cpu->comm);
}

const moecal_backend moecal_backend_chosen = {
    .name = "cpu",
    .open = cpu_open,
    .world = cpu_world,
    .describe = moecal_cpu_describe,
    .refuses = cpu_refuses,
    .prepare = cpu_prepare,
    .check = cpu_check,
    .run = cpu_run,
    .conditions = cpu_conditions,
    .release = cpu_release,
    .share = cpu_share,
    .close = cpu_close,
    .step = moecal_cpu_step,
};
