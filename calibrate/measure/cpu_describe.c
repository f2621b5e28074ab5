/* The machine line of a CPU: what it says of itself, and the best that is seen of what no data sheet
 * tells of one core among several: FLOP/s, memory bandwidth and a copy between two ranks, all while
 * the other ranks do the same. */
#include "calibrate/measure/cpu_job.h"
#include "calibrate/measure/cpu_kernels.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRIES = 10, STRETCHES = 8, LARGEST_MESSAGE = 1 << 22 };

_Static_assert(MOECAL_CPU_POOL_BYTES / 2 > STRETCHES * LARGEST_MESSAGE,
               "messages come from the pool");

static void processor_name(char *name, size_t size)
{
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "CPU");
    while (file && fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && value) {
            value += strspn(value, ": \t");
            value[strcspn(value, "\n")] = '\0';
            snprintf(name, size, "%s", value);
            break;
        }
    }
    if (file)
        fclose(file);
}

/* The slowest rank's best, so that no rank has a smaller rate than what is said of it. */
static double slowest(const moecal_cpu *cpu, double rate)
{
    MPI_Allreduce(MPI_IN_PLACE, &rate, 1, MPI_DOUBLE, MPI_MIN, cpu->comm);
    return rate;
}

static double best_flop_per_s(moecal_cpu *cpu)
{
    double best = 0;
    for (int64_t size = 256; size <= 1024; size *= 2)
        for (int i = 0; i < TRIES; i++) {
            MPI_Barrier(cpu->comm);
            double start_s = moecal_cpu_now_s();
            moecal_cpu_gemm(false, false, size, size, size, cpu->inputs.values,
                            cpu->inputs.values + size * size, cpu->results.values);
            best = fmax(best, 2 * pow((double)size, 3) / (moecal_cpu_now_s() - start_s));
        }
    return slowest(cpu, best);
}

/* Read and written, through all of the pools. */
static double best_memory_bytes_per_s(moecal_cpu *cpu)
{
    int64_t stretch = cpu->inputs.count / TRIES;
    double best = 0;
    for (int i = 0; i < 2 * TRIES; i++) {
        int64_t from = i % TRIES * stretch;
        MPI_Barrier(cpu->comm);
        double start_s = moecal_cpu_now_s();
        memcpy(cpu->results.values + from, cpu->inputs.values + from,
               (size_t)stretch * sizeof(float));
        best = fmax(best, 2.0 * (double)stretch * sizeof(float) / (moecal_cpu_now_s() - start_s));
    }
    return slowest(cpu, best);
}

/* Seconds of a message to the next rank while one comes from the last; the slowest rank's. */
static double ring_s(moecal_cpu *cpu, int bytes, int64_t offset)
{
    int ranks = cpu->world.ranks, rank = cpu->world.rank;
    MPI_Barrier(cpu->comm);
    double start_s = moecal_cpu_now_s();
    MPI_Sendrecv(cpu->inputs.values + offset, bytes, MPI_BYTE, (rank + 1) % ranks, 0,
                 cpu->results.values + offset, bytes, MPI_BYTE, (rank + ranks - 1) % ranks, 0,
                 cpu->comm, MPI_STATUS_IGNORE);
    double taken_s = moecal_cpu_now_s() - start_s;
    MPI_Allreduce(MPI_IN_PLACE, &taken_s, 1, MPI_DOUBLE, MPI_MAX, cpu->comm);
    return taken_s;
}

static double best_ring_s(moecal_cpu *cpu, int bytes, int tries)
{
    double best = INFINITY;
    for (int i = 0; i < tries; i++)
        best = fmin(best, ring_s(cpu, bytes, (int64_t)i % STRETCHES * (bytes / 4)));
    return best;
}

static json_t *describe_link(moecal_cpu *cpu)
{
    double rate = 0;
    if (cpu->world.ranks < 2)
        return NULL;
    double latency_s = best_ring_s(cpu, 8, 200);
    for (int bytes = 1 << 16; bytes <= LARGEST_MESSAGE; bytes *= 4)
        rate = fmax(rate, bytes / best_ring_s(cpu, bytes, 2 * TRIES));
    return json_pack("{s:s, s:f, s:f, s:b}", "kind",
                     cpu->world.hosts > 1 ? "network" : "shared memory", "bytes_per_s", rate,
                     "latency_s", latency_s, "nominal", 0);
}

static json_t *describe_device(moecal_cpu *cpu)
{
    char name[256], title[300];
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    double flop_per_s = best_flop_per_s(cpu), bytes_per_s = best_memory_bytes_per_s(cpu);
    processor_name(name, sizeof name);
    snprintf(title, sizeof title, "%s, one core", name);
    return json_pack("{s:s, s:f, s:f, s:f, s:b}", "name", title, "peak_flop_per_s", flop_per_s,
                     "memory_bytes", memory / cpu->world.devices_per_host, "memory_bytes_per_s",
                     bytes_per_s, "nominal", 0);
}

static json_t *describe_software(void)
{
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING], blas[256];
    int length;
    MPI_Get_library_version(mpi, &length);
    for (char *c = mpi; *c; c++)
        *c = *c == '\t' ? ' ' : *c;
    mpi[strcspn(mpi, "\n")] = '\0';
    snprintf(blas, sizeof blas, "%s, kernels of %s", openblas_get_config(),
             openblas_get_corename());
    return json_pack("{s:s, s:s}", "mpi", mpi, "blas", blas);
}

/* Of each host once, in order of ranks. */
static json_t *host_names(moecal_cpu *cpu)
{
    size_t size = sizeof cpu->processor;
    char *all = calloc((size_t)cpu->world.ranks, size);
    json_t *names = json_array();
    if (!all)
        abort();
    MPI_Gather(cpu->processor, (int)size, MPI_CHAR, all, (int)size, MPI_CHAR, 0, cpu->comm);
    for (int i = 0; cpu->world.rank == 0 && i < cpu->world.ranks; i++)
        if (i == 0 || strcmp(all + (size_t)i * size, all + (size_t)(i - 1) * size) != 0)
            json_array_append_new(names, json_string(all + (size_t)i * size));
    free(all);
    return names;
}

/* Whoever else computes here is measured, too. */
static void warn_of_load(const moecal_cpu *cpu)
{
    double load = 0, cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
    if (cpu->world.rank == 0 && getloadavg(&load, 1) == 1 && load > cores + 1)
        fprintf(stderr,
                "moecal: warning: a load of %.1f on %.0f cores: other programs run, times will be "
                "too long\n",
                load, cores);
    if (cpu->world.rank == 0 && cpu->world.devices_per_host > cores)
        fprintf(stderr, "moecal: warning: %d ranks share %.0f cores: times will be too long\n",
                cpu->world.devices_per_host, cores);
}

json_t *moecal_cpu_describe(void *state)
{
    moecal_cpu *cpu = state;
    warn_of_load(cpu);
    json_t *device = describe_device(cpu), *link = describe_link(cpu), *names = host_names(cpu);
    json_t *machine = json_pack("{s:s, s:i, s:i, s:i, s:o, s:o, s:o}", "backend", "cpu", "hosts",
                                cpu->world.hosts, "ranks", cpu->world.ranks, "devices_per_host",
                                cpu->world.devices_per_host, "host_names", names, "device", device,
                                "software", describe_software());
    if (link)
        json_object_set_new(machine, "link", link);
    if (cpu->world.rank == 0)
        return machine;
    json_decref(machine);
    return NULL;
}
