/* Times the engines on a synthetic MoE training step.
 *
 * The step: 12 layers, expert parallel over all devices, forward and backward; dispatch and combine
 * from skewed matrices, a SparseAllGather per layer that runs ahead beside computation, gradient
 * rings beside the backward pass. Collectives share ports at every size (no latencies, which would
 * move them apart as rings grow), so `fluid` has to simulate. Durations are those of a mid-sized
 * model, to the order of magnitude.
 *
 *   bench_engines [--json] [--steps N] [DEVICES...]        default: 8 16 32 64 128 256
 * (message: two steps at most, and on 32 devices at most: on 64 a step takes it a minute)
 *
 * Each (engine, size) is a forked child: CPU time of N steps after one to warm up, and its peak
 * memory. */
#include "configs/base/random.h"
#include "sim/engine.h"

#include <errno.h>
#include <gsl/gsl_randist.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <talloc.h>
#include <time.h>
#include <unistd.h>

enum { LAYERS = 12, PER_HOST = 8, MAX_SIZES = 16, DEFAULT_STEPS = 200 };

enum { MOST_MESSAGE_DEVICES = 32, MOST_MESSAGE_STEPS = 2 };

static const double MS = 1e-3;

/* --- the step --------------------------------------------------------------------------------- */

typedef struct bench {
    moe_cluster_spec spec;
    moe_profile profile;
    moe_curve_usage usage;
    moe_costs costs;
    moe_cluster *cluster;
    moe_arena *arena;
    moe_program_builder *builder;
    gsl_rng *random;
    int *everyone;          /* device ids */
    int compute;            /* the last operation of the compute stream */
    double *matrix[LAYERS]; /* dispatched bytes, [sender][receiver] */
} bench;

static int add_compute(bench *b, const char *name, moe_part part, int layer, double mean_ms,
                       int wait)
{
    double *duration_s = moe_arena_array(b->arena, double, (size_t)b->cluster->devices);
    for (int device = 0; device < b->cluster->devices; device++)
        duration_s[device] = mean_ms * MS * (0.9 + 0.2 * gsl_rng_uniform(b->random));
    const moe_op op = {.name = name,
                       .kind = MOE_OP_COMPUTE,
                       .part = part,
                       .stream = MOE_STREAM_COMPUTE,
                       .layer = layer,
                       .duration_s = duration_s,
                       .slowdown = 1};
    return b->compute = moe_program_add(b->builder, &op, &wait, 1);
}

static int add_host(bench *b, const char *name, int layer, int wait)
{
    double *duration_s = moe_arena_array(b->arena, double, (size_t)b->cluster->devices);
    for (int device = 0; device < b->cluster->devices; device++)
        duration_s[device] = 0.01 * MS;
    const moe_op op = {.name = name,
                       .kind = MOE_OP_HOST,
                       .part = MOE_HOST,
                       .stream = MOE_STREAM_HOST,
                       .layer = layer,
                       .duration_s = duration_s,
                       .slowdown = 1};
    return moe_program_add(b->builder, &op, &wait, 1);
}

/* Beside computation: it takes SMs and is slowed. */
static int add_collective(bench *b, const char *name, moe_part part, moe_stream stream, int layer,
                          const moe_traffic *traffic, int wait)
{
    const bool beside = stream != MOE_STREAM_EXCHANGE;
    const int waits[] = {wait, b->compute};
    const moe_op op = {.name = name,
                       .kind = MOE_OP_COLLECTIVE,
                       .part = part,
                       .stream = stream,
                       .layer = layer,
                       .traffic = traffic,
                       .slowdown = beside ? 1.3 : 1,
                       .sm_share = beside ? 0.15 : 0};
    return moe_program_add(b->builder, &op, waits, 2);
}

/* 8192 tokens of 1 KiB a device and layer, twice each; receivers differ by a lognormal factor. */
static void make_matrix(bench *b, int layer)
{
    const size_t devices = (size_t)b->cluster->devices;
    double *heat = moe_arena_array(b->arena, double, devices);
    double sum = 0;
    const size_t pairs = devices * devices;
    b->matrix[layer] = moe_arena_array(b->arena, double, pairs);
    for (size_t j = 0; j < devices; j++)
        sum += heat[j] = gsl_ran_lognormal(b->random, 0, 0.7);
    for (size_t i = 0; i < devices; i++)
        for (size_t j = 0; j < devices; j++)
            b->matrix[layer][i * devices + j] =
                2 * 8192 * 1024 * heat[j] / sum * (0.8 + 0.4 * gsl_rng_uniform(b->random));
}

static const moe_traffic *exchange(bench *b, int layer, bool back)
{
    return moe_traffic_all_to_all(b->arena, &b->costs, b->matrix[layer], back);
}

/* Two experts of 4 MB of the layer to a random half of the devices. */
static const moe_traffic *materialization(bench *b, moe_collective_kind kind)
{
    enum { CHUNKS = 2 };
    const int devices = b->cluster->devices;
    const size_t words = (size_t)(devices + 63) / 64;
    moe_chunk chunks[CHUNKS];
    for (int c = 0; c < CHUNKS; c++) {
        uint64_t *want = moe_arena_array(b->arena, uint64_t, words);
        for (int device = 0; device < devices; device++)
            want[device / 64] |= (uint64_t)gsl_rng_uniform_int(b->random, 2) << (device % 64);
        const int owner = (int)gsl_rng_uniform_int(b->random, (unsigned long)devices);
        chunks[c] = (moe_chunk){owner, want};
    }
    return moe_traffic_chunks(b->arena, &b->costs, kind, chunks, CHUNKS, 4e6, MOE_CHUNK_CHAIN);
}

static int add_forward(bench *b, int layer, int materialized)
{
    add_compute(b, "attention forward", MOE_DENSE, layer, 0.6, -1);
    const int gate = add_compute(b, "gate", MOE_DENSE, layer, 0.05, -1);
    add_host(b, "read counts", layer, gate);
    add_compute(b, "permute", MOE_DENSE, layer, 0.05, -1);
    const int next = layer + 1 < LAYERS
                         ? add_collective(b, "materialize", MOE_MATERIALIZE, MOE_STREAM_SPARSE,
                                          layer + 1, materialization(b, MOE_BROADCAST), -1)
                         : -1;
    const int dispatch = add_collective(b, "dispatch", MOE_DISPATCH, MOE_STREAM_EXCHANGE, layer,
                                        exchange(b, layer, false), gate);
    add_compute(b, "shared expert", MOE_DENSE, layer, 0.3, -1);
    add_compute(b, "wait for parameters", MOE_DENSE, layer, 0.01, materialized);
    add_compute(b, "experts forward", MOE_EXPERT, layer, 0.8, dispatch);
    const int combine = add_collective(b, "combine", MOE_COMBINE, MOE_STREAM_EXCHANGE, layer,
                                       exchange(b, layer, true), -1);
    add_compute(b, "unpermute", MOE_DENSE, layer, 0.05, combine);
    return next;
}

static void add_backward(bench *b, int layer)
{
    add_compute(b, "unpermute backward", MOE_DENSE, layer, 0.05, -1);
    const int combine = add_collective(b, "combine backward", MOE_COMBINE, MOE_STREAM_EXCHANGE,
                                       layer, exchange(b, layer, false), -1);
    add_compute(b, "shared expert backward", MOE_DENSE, layer, 0.6, -1);
    add_compute(b, "experts input gradient", MOE_EXPERT, layer, 0.8, combine);
    const int dispatch = add_collective(b, "dispatch backward", MOE_DISPATCH, MOE_STREAM_EXCHANGE,
                                        layer, exchange(b, layer, true), -1);
    add_compute(b, "experts weight gradient", MOE_EXPERT, layer, 0.8, -1);
    add_collective(b, "reduce", MOE_REDUCE_PART, MOE_STREAM_SPARSE, layer,
                   materialization(b, MOE_REDUCE), -1);
    add_compute(b, "permute backward", MOE_DENSE, layer, 0.05, dispatch);
    add_compute(b, "gate backward", MOE_DENSE, layer, 0.05, -1);
    add_compute(b, "attention backward", MOE_DENSE, layer, 1.2, -1);
    add_host(b, "launch ring", layer, -1);
    add_collective(b, "gradient ring", MOE_GRADIENT_SYNC, MOE_STREAM_GRADIENT, layer,
                   moe_traffic_ring(b->arena, &b->costs, MOE_ALL_REDUCE, b->everyone, 1,
                                    b->cluster->devices, 8e6),
                   -1);
}

static const moe_program *make_step(bench *b)
{
    int materialized = -1;
    b->builder = moe_program_begin(b->arena, b->cluster);
    b->compute = -1;
    for (int layer = 0; layer < LAYERS; layer++) {
        make_matrix(b, layer);
        materialized = add_forward(b, layer, materialized);
    }
    add_compute(b, "loss", MOE_DENSE, -1, 0.5, -1);
    for (int layer = LAYERS - 1; layer >= 0; layer--)
        add_backward(b, layer);
    add_compute(b, "optimizer", MOE_OPTIMIZER, -1, 1, -1);
    return moe_program_end(b->builder);
}

static bench *bench_create(int devices)
{
    bench *b = talloc_zero(NULL, bench);
    const int per_host = devices < PER_HOST ? devices : PER_HOST;
    b->spec = (moe_cluster_spec){
        .hosts = devices / per_host,
        .devices_per_host = per_host,
        .device = {.peak_flop_per_s = 3e14, .memory_bytes = 4e10, .memory_bytes_per_s = 1.5e12},
        .intra = {.kind = MOE_INTRA_NVSWITCH, .bandwidth_bytes_per_s = 300e9},
        .nic = {.sharing = MOE_NIC_PER_DEVICE, .bandwidth_bytes_per_s = 25e9},
        .fabric = {.oversubscription = 1},
    };
    b->cluster = moe_cluster_create(b, &b->spec, NULL, moe_diag_create(b, stderr));
    if (!b->cluster)
        exit(MOE_BAD_INPUT);
    b->costs = (moe_costs){&b->profile, b->cluster, &b->usage};
    b->arena = moe_arena_create(b);
    b->random = moe_random_create(1, "bench", (uint64_t)devices);
    b->everyone = moe_arena_array(b->arena, int, (size_t)b->cluster->devices);
    for (int device = 0; device < b->cluster->devices; device++)
        b->everyone[device] = device;
    return b;
}

/* --- timing ----------------------------------------------------------------------------------- */

typedef struct timing {
    bool done;
    double cpu_s;  /* of all steps */
    double step_s; /* simulated */
    double peak_bytes;
} timing;

static double cpu_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void time_steps(const moe_engine *engine, const moe_program *program, int steps, timing *t)
{
    moe_diag *diag = moe_diag_create(NULL, stderr);
    moe_timeline *timeline = moe_timeline_create(NULL, program->devices);
    void *state = engine->open(NULL, program->cluster, NULL, diag);
    if (!state || engine->execute(state, program, timeline, diag) != MOE_OK)
        _exit(MOE_INTERNAL);
    const double begin = cpu_now();
    for (int step = 0; step < steps; step++)
        if (engine->execute(state, program, timeline, diag) != MOE_OK)
            _exit(MOE_INTERNAL);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    *t = (timing){true, cpu_now() - begin, timeline->step_s, 1024.0 * (double)usage.ru_maxrss};
    _exit(0);
}

static timing time_in_child(const moe_engine *engine, const moe_program *program, int steps)
{
    timing *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return (timing){0};
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0)
        time_steps(engine, program, steps, shared);
    if (child > 0)
        waitpid(child, NULL, 0);
    const timing result = *shared;
    munmap(shared, sizeof *shared);
    return result;
}

/* --- the table -------------------------------------------------------------------------------- */

static void print_row(const moe_engine *engine, const moe_program *program, int steps,
                      const timing *t)
{
    const double instances = (double)program->op_count * program->devices * steps;
    printf("%7d  %-8s  %5d  %9.1f  %8.3f  %12.0f  %8.1f  %9.3f\n", program->devices, engine->name,
           program->op_count, steps / t->cpu_s, t->cpu_s / steps / MS, instances / t->cpu_s,
           t->peak_bytes / 1048576, t->step_s / MS);
}

static json_t *row_json(const moe_engine *engine, const moe_program *program, int steps,
                        const timing *t)
{
    const double instances = (double)program->op_count * program->devices * steps;
    return json_pack("{s:i, s:s, s:i, s:i, s:f, s:f, s:f, s:f}", "devices", program->devices,
                     "engine", engine->name, "ops_per_step", program->op_count, "steps", steps,
                     "steps_per_s", steps / t->cpu_s, "instances_per_s", instances / t->cpu_s,
                     "peak_rss_bytes", t->peak_bytes, "simulated_step_s", t->step_s);
}

/* Adds its rows to `rows`, or prints them where that is NULL. False when an engine failed. */
static bool bench_size(int devices, int steps, json_t *rows)
{
    bench *b = bench_create(devices);
    const moe_program *program = make_step(b);
    const char *wrong = moe_program_check(program);
    if (wrong)
        fprintf(stderr, "bench_engines: %s\n", wrong);
    bool fine = !wrong;
    for (int i = 0; fine && moe_engines[i]; i++) {
        const bool message = moe_engines[i] == &moe_engine_message;
        if (message && devices > MOST_MESSAGE_DEVICES)
            continue;
        const int few = message && steps > MOST_MESSAGE_STEPS ? MOST_MESSAGE_STEPS : steps;
        const timing t = time_in_child(moe_engines[i], program, few);
        fine = t.done;
        if (fine && rows)
            json_array_append_new(rows, row_json(moe_engines[i], program, few, &t));
        else if (fine)
            print_row(moe_engines[i], program, few, &t);
    }
    gsl_rng_free(b->random);
    talloc_free(b);
    return fine;
}

typedef struct options {
    bool json;
    int steps;
    int sizes[MAX_SIZES];
    int size_count;
} options;

static bool parse_count(const char *text, int most, int *value)
{
    char *end;
    errno = 0;
    const long number = strtol(text, &end, 10);
    *value = (int)number;
    return errno == 0 && end != text && *end == '\0' && number >= 1 && number <= most;
}

static bool parse(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            o->json = true;
        } else if (strcmp(argv[i], "--steps") == 0) {
            if (++i == argc || !parse_count(argv[i], 1000000, &o->steps))
                return false;
        } else {
            if (o->size_count == MAX_SIZES ||
                !parse_count(argv[i], 65536, &o->sizes[o->size_count]))
                return false;
            o->size_count++;
        }
    }
    return true;
}

static void take_default_sizes(options *o)
{
    static const int sizes[] = {8, 16, 32, 64, 128, 256};
    memcpy(o->sizes, sizes, sizeof sizes);
    o->size_count = sizeof sizes / sizeof *sizes;
}

int main(int argc, char **argv)
{
    options o = {.steps = DEFAULT_STEPS};
    if (!parse(argc, argv, &o)) {
        fprintf(stderr, "usage: bench_engines [--json] [--steps N] [DEVICES...]\n");
        return MOE_USAGE;
    }
    if (o.size_count == 0)
        take_default_sizes(&o);
    json_t *rows = o.json ? json_array() : NULL;
    if (!rows)
        printf("devices  engine      ops    steps/s   ms/step   instances/s  peak MiB  simulated "
               "ms\n");
    bool fine = true;
    for (int i = 0; fine && i < o.size_count; i++)
        fine = bench_size(o.sizes[i], o.steps, rows);
    if (rows) {
        json_dumpf(rows, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(rows);
    }
    return fine ? 0 : MOE_INTERNAL;
}
