/* The built-in suites: sizes in tables, one function a kind of point.
 *
 * A CUDA device gets 1 to 131,072 tokens and 8 bytes to 1 GiB in the formats it trains in; one core
 * of a CPU, a thousandth of the speed, gets fp32 and a tenth to a hundredth of the sizes. */
#include "calibrate/measure/suite.h"

#include <stdlib.h>
#include <string.h>

typedef struct builder {
    moecal_suite *suite;
    bool cpu;
    bool quick;
    int ranks;
} builder;

const moecal_builtin moecal_builtins[] = {
    {"quick", "a little of everything, in less than a minute on two cores", 0.25},
    {"full", "all that follows", 1},
    {"gemm", "matrix products on a grid of shapes", 1},
    {"experts", "experts' three phases, uniform and skewed rows, single and grouped", 1},
    {"dense", "permutation, gate, attention, normalisation, Adam, LM head", 1},
    {"collectives", "8 bytes to 1 GiB; skewed all-to-all-v; grouped broadcasts and reduces", 1},
    {"interference", "a matrix product beside a collective", 1},
    {"sharing", "two collectives at once", 1},
    {"launch", "what a launch costs the host", 1},
    {"copies", "between host and device, to and from storage", 1},
    {NULL, NULL, 0},
};

const moecal_builtin *moecal_builtin_find(const char *name)
{
    for (const moecal_builtin *entry = moecal_builtins; entry->name; entry++)
        if (strcmp(entry->name, name) == 0)
            return entry;
    return NULL;
}

#define LENGTH(array) (sizeof(array) / sizeof *(array))
#define KIB           ((int64_t)1024)
#define MIB           (1024 * KIB)

static moecal_point *new_point(moecal_kind kind, moecal_dtype dtype)
{
    moecal_point *point = calloc(1, sizeof *point);
    if (!point)
        abort();
    point->kind = kind;
    point->dtype = dtype;
    return point;
}

static void push(const builder *build, moecal_point *point)
{
    moecal_point_name(point);
    moecal_suite_add(build->suite, point);
}

static moecal_dtype main_dtype(const builder *build)
{
    return build->cpu ? MOECAL_FP32 : MOECAL_BF16;
}

typedef struct sizes {
    const int64_t *items;
    size_t count;
} sizes;

#define SIZES(array) ((sizes){array, LENGTH(array)})

/* --- matrix products -------------------------------------------------------------------------- */

static void push_gemm(const builder *build, moecal_dtype dtype, int64_t m, int64_t n, int64_t k)
{
    moecal_point *point = new_point(MOECAL_GEMM, dtype);
    point->gemm = (moecal_gemm){m, n, k};
    push(build, point);
}

static void push_grid(const builder *build, moecal_dtype dtype, sizes rows, sizes widths)
{
    for (size_t k = 0; k < widths.count; k++)
        for (size_t n = 0; n < widths.count; n++)
            for (size_t m = 0; m < rows.count; m++)
                push_gemm(build, dtype, rows.items[m], widths.items[n], widths.items[k]);
}

static void add_gemm(const builder *build)
{
    static const int64_t cpu_rows[] = {1, 4, 16, 64, 256, 1024, 4096},
                         cpu_widths[] = {64, 256, 1024, 2048}, cpu_few_rows[] = {16, 128, 1024},
                         cpu_few_widths[] = {64, 256, 1024};
    static const int64_t rows[] = {1,   2,    4,    8,    16,   32,    64,    128,   256,
                                   512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072},
                         widths[] = {768, 2048, 4096, 7168, 14336}, few_rows[] = {16, 512, 16384},
                         few_widths[] = {1024, 4096};
    if (build->cpu) {
        push_grid(build, MOECAL_FP32, build->quick ? SIZES(cpu_few_rows) : SIZES(cpu_rows),
                  build->quick ? SIZES(cpu_few_widths) : SIZES(cpu_widths));
        return;
    }
    push_grid(build, MOECAL_BF16, build->quick ? SIZES(few_rows) : SIZES(rows),
              build->quick ? SIZES(few_widths) : SIZES(widths));
    push_grid(build, MOECAL_FP8, SIZES(few_rows), SIZES(few_widths));
    if (!build->quick)
        push_grid(build, MOECAL_FP16, SIZES(few_rows), SIZES(few_widths));
}

/* --- experts ---------------------------------------------------------------------------------- */

typedef struct expert_shape {
    int64_t hidden, ffn;
    bool gated;
    int experts; /* of one device */
} expert_shape;

void moecal_rows_uniform(int64_t *rows, int experts, int64_t total)
{
    for (int i = 0; i < experts; i++)
        rows[i] = total / experts + (i < total % experts);
}

void moecal_rows_power_law(int64_t *rows, int experts, int64_t total)
{
    double weights = 0;
    int64_t given = 0;
    for (int i = 0; i < experts; i++)
        weights += 1.0 / (i + 1);
    for (int i = 0; i < experts; i++)
        given += rows[i] = (int64_t)((double)total / (i + 1) / weights);
    for (int i = 0; given < total; i = (i + 1) % experts, given++)
        rows[i]++;
}

static void push_experts(const builder *build, moecal_dtype dtype, const expert_shape *shape,
                         moecal_phase phase, int64_t rows, bool skewed, bool grouped)
{
    moecal_point *point = new_point(MOECAL_EXPERTS, dtype);
    point->phase = phase;
    point->hidden = shape->hidden;
    point->ffn = shape->ffn;
    point->gated = shape->gated;
    point->grouped = grouped;
    point->experts = shape->experts;
    point->distribution = skewed ? "power_law" : "uniform";
    point->rows = calloc((size_t)shape->experts, sizeof *point->rows);
    if (!point->rows)
        abort();
    (skewed ? moecal_rows_power_law : moecal_rows_uniform)(point->rows, shape->experts, rows);
    push(build, point);
}

/* Skewed rows where every expert can have some; a CPU has no grouped products. */
static void push_phases(const builder *build, moecal_dtype dtype, const expert_shape *shape,
                        int64_t rows)
{
    for (int phase = MOECAL_FORWARD; phase <= MOECAL_WEIGHT_GRADIENT; phase++) {
        push_experts(build, dtype, shape, (moecal_phase)phase, rows, false, !build->cpu);
        if (shape->experts > 1 && rows > shape->experts)
            push_experts(build, dtype, shape, (moecal_phase)phase, rows, true, !build->cpu);
        if (!build->cpu && phase == MOECAL_FORWARD)
            push_experts(build, dtype, shape, (moecal_phase)phase, rows, false, false);
    }
}

static void push_shapes(const builder *build, moecal_dtype dtype, const expert_shape *shapes,
                        size_t count, sizes rows)
{
    for (size_t shape = 0; shape < count; shape++)
        for (size_t i = 0; i < rows.count; i++)
            push_phases(build, dtype, &shapes[shape], rows.items[i]);
}

static void add_experts(const builder *build)
{
    static const expert_shape cpu_shapes[] = {{256, 512, false, 1},
                                              {256, 512, false, 4},
                                              {256, 512, false, 16},
                                              {512, 1024, true, 4}},
                              shapes[] = {{768, 3072, false, 8},
                                          {4096, 14336, true, 1},
                                          {4096, 14336, true, 4},
                                          {2048, 768, true, 16},
                                          {7168, 2048, true, 8}};
    static const int64_t cpu_rows[] = {1, 16, 64, 256, 1024, 4096}, cpu_few[] = {64, 1024},
                         rows[] = {1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 131072},
                         few[] = {64, 16384};
    const expert_shape *chosen = build->cpu ? cpu_shapes : shapes;
    size_t count = build->cpu ? LENGTH(cpu_shapes) : LENGTH(shapes);
    if (build->quick)
        push_shapes(build, main_dtype(build), chosen + 1, 1,
                    build->cpu ? SIZES(cpu_few) : SIZES(few));
    else
        push_shapes(build, main_dtype(build), chosen, count,
                    build->cpu ? SIZES(cpu_rows) : SIZES(rows));
    if (!build->cpu && !build->quick) {
        push_shapes(build, MOECAL_FP8, shapes, LENGTH(shapes), SIZES(few));
        push_shapes(build, MOECAL_FP16, shapes, 1, SIZES(few));
    }
}

/* --- all else that a device computes ---------------------------------------------------------- */

static void push_tokens(const builder *build, moecal_kind kind, int64_t tokens, int64_t hidden,
                        int experts, int64_t extra)
{
    moecal_point *point = new_point(kind, main_dtype(build));
    point->tokens = tokens;
    point->hidden = hidden;
    point->experts = kind == MOECAL_GATE ? experts : 0;
    point->top_k = kind == MOECAL_GATE || kind == MOECAL_PERMUTE ? 2 : 0;
    point->vocabulary = kind == MOECAL_HEAD ? extra : 0;
    push(build, point);
}

static void push_attention(const builder *build, moecal_phase phase, int64_t sequences,
                           int64_t sequence, int64_t heads)
{
    moecal_point *point = new_point(MOECAL_ATTENTION, main_dtype(build));
    point->phase = phase;
    point->sequences = sequences;
    point->sequence = sequence;
    point->heads = heads;
    point->kv_heads = heads;
    point->head_dim = build->cpu ? 32 : 128;
    point->causal = true;
    push(build, point);
}

static void push_adam(const builder *build, int64_t parameters)
{
    moecal_point *point = new_point(MOECAL_ADAM, main_dtype(build));
    point->parameters = parameters;
    push(build, point);
}

static void add_dense(const builder *build)
{
    static const int64_t cpu_tokens[] = {16, 128, 1024, 8192},
                         tokens[] = {1, 16, 256, 4096, 32768, 131072};
    const int64_t *items = build->cpu ? cpu_tokens : tokens;
    size_t count = build->cpu ? LENGTH(cpu_tokens) : LENGTH(tokens);
    int64_t hidden = build->cpu ? 256 : 4096;
    for (size_t i = build->quick ? 1 : 0; i < (build->quick ? count - 1 : count); i++) {
        push_tokens(build, MOECAL_PERMUTE, items[i], hidden, 0, 0);
        push_tokens(build, MOECAL_NORM, items[i], hidden, 0, 0);
        push_tokens(build, MOECAL_GATE, items[i], hidden, build->cpu ? 16 : 64, 0);
        push_tokens(build, MOECAL_HEAD, items[i], hidden, 0, build->cpu ? 1000 : 32000);
        push_adam(build, items[i] * hidden);
    }
    for (int64_t sequence = build->cpu ? 64 : 512; sequence <= (build->cpu ? 512 : 8192);
         sequence *= build->quick ? 4 : 2) {
        push_attention(build, MOECAL_FORWARD, 2, sequence, build->cpu ? 8 : 32);
        push_attention(build, MOECAL_BACKWARD, 2, sequence, build->cpu ? 8 : 32);
    }
}

/* --- collectives ------------------------------------------------------------------------------ */

static moecal_point *new_collective(const builder *build, moecal_collective collective,
                                    int64_t bytes, int ranks)
{
    moecal_point *point = new_point(MOECAL_COLLECTIVE, main_dtype(build));
    point->ranks = ranks;
    point->first = (moecal_exchange){.collective = collective, .bytes = bytes};
    return point;
}

static void push_sizes(const builder *build, int ranks)
{
    int64_t largest = build->quick ? 4 * MIB : build->cpu ? 64 * MIB : 1024 * MIB;
    int64_t factor = build->quick ? 64 : build->cpu ? 4 : 2;
    for (int collective = 0; collective < MOECAL_COLLECTIVES; collective++)
        for (int64_t bytes = build->quick ? 64 : 8; bytes <= largest; bytes *= factor)
            push(build, new_collective(build, (moecal_collective)collective, bytes, ranks));
}

/* Of one line: how many times the mean the hot one has; the others share what is left. */
static double weight(int rank, int hot, double factor, int ranks)
{
    return rank == hot ? factor : (ranks - factor) / (ranks - 1);
}

/* Rank 0 sends most, the last one receives most. */
static void push_skewed(const builder *build, int64_t bytes, double sender, double receiver)
{
    int ranks = build->ranks;
    moecal_point *point = new_collective(build, MOECAL_ALL_TO_ALL, bytes, ranks);
    moecal_exchange *exchange = &point->first;
    exchange->matrix = calloc((size_t)ranks * (size_t)ranks, sizeof *exchange->matrix);
    if (!exchange->matrix)
        abort();
    exchange->matrix_ranks = ranks;
    for (int i = 0; i < ranks; i++)
        for (int j = 0; j < ranks; j++) {
            double part = weight(i, 0, sender, ranks) * weight(j, ranks - 1, receiver, ranks);
            exchange->matrix[i * ranks + j] = (int64_t)((double)bytes * part / ranks / 4) * 4;
        }
    push(build, point);
}

static void push_all_skewed(const builder *build)
{
    static const int64_t cpu_bytes[] = {16 * KIB, 256 * KIB, 4 * MIB},
                         bytes[] = {256 * KIB, 4 * MIB, 64 * MIB, 256 * MIB};
    static const double cpu_factors[] = {1, 1.4, 1.8}, factors[] = {1, 2, 4};
    size_t count = build->cpu ? LENGTH(cpu_bytes) : LENGTH(bytes);
    for (size_t i = build->quick ? count - 1 : 0; i < count; i++)
        for (int sender = 0; sender < 3; sender++)
            for (int receiver = 0; receiver < 3; receiver++) {
                const double *factor = build->cpu ? cpu_factors : factors;
                if (factor[sender] > build->ranks || factor[receiver] > build->ranks ||
                    (build->quick && (sender == 1 || receiver == 1)))
                    continue;
                push_skewed(build, (build->cpu ? cpu_bytes : bytes)[i], factor[sender],
                            factor[receiver]);
            }
}

/* Chunk i lies on rank i and is wanted by the next `want` ranks: what a SparseAllGather issues, or,
 * the other way round, a SparseReduceScatter. */
static moecal_exchange chunk_group(moecal_collective collective, int ranks, int chunks, int want,
                                   int64_t chunk_bytes)
{
    moecal_exchange exchange = {.collective = collective,
                                .bytes = chunk_bytes * chunks,
                                .chunks = calloc((size_t)chunks, sizeof *exchange.chunks),
                                .chunk_count = chunks,
                                .chunk_bytes = chunk_bytes};
    want = want < ranks ? want : ranks - 1;
    for (int i = 0; exchange.chunks && i < chunks; i++) {
        moecal_chunk *chunk = &exchange.chunks[i];
        chunk->owner = i % ranks;
        chunk->want = calloc((size_t)want, sizeof *chunk->want);
        for (int j = 0; chunk->want && j < want; j++)
            chunk->want[chunk->want_count++] = (i + 1 + j) % ranks;
    }
    return exchange;
}

static void push_groups(const builder *build)
{
    static const int counts[] = {1, 4, 16};
    int64_t largest = build->cpu ? 4 * MIB : 64 * MIB;
    for (size_t i = build->quick ? 1 : 0; i < (build->quick ? 2 : LENGTH(counts)); i++)
        for (int64_t bytes = build->cpu ? 64 * KIB : 256 * KIB; bytes <= largest; bytes *= 16)
            for (int want = 1; want < build->ranks && want <= 7; want = 2 * want + 1)
                for (int reduce = 0; reduce < 2; reduce++) {
                    moecal_point *point = new_collective(build, MOECAL_BROADCAST, 0, build->ranks);
                    point->first = chunk_group(reduce ? MOECAL_REDUCE : MOECAL_BROADCAST,
                                               build->ranks, counts[i], want, bytes);
                    push(build, point);
                }
}

static void add_collectives(const builder *build)
{
    if (build->ranks < 2)
        return;
    for (int ranks = 2; ranks < build->ranks && !build->quick; ranks *= 2)
        push_sizes(build, ranks);
    push_sizes(build, build->ranks);
    push_all_skewed(build);
    push_groups(build);
}

/* --- two things at once ----------------------------------------------------------------------- */

static void push_interference(const builder *build, moecal_collective collective, int64_t bytes,
                              int64_t width, double share)
{
    moecal_point *point = new_point(MOECAL_INTERFERENCE, main_dtype(build));
    point->ranks = build->ranks;
    point->gemm = (moecal_gemm){width, width, width};
    point->first = (moecal_exchange){.collective = collective, .bytes = bytes};
    point->sm_share = share;
    push(build, point);
}

static void add_interference(const builder *build)
{
    static const int64_t cpu_bytes[] = {256 * KIB, 4 * MIB}, bytes[] = {4 * MIB, 64 * MIB};
    static const double shares[] = {0, 0.03, 0.06, 0.15, 0.3};
    static const moecal_collective beside[] = {MOECAL_ALL_TO_ALL, MOECAL_ALL_GATHER,
                                               MOECAL_REDUCE_SCATTER, MOECAL_BROADCAST};
    size_t count = build->quick || build->cpu ? 1 : LENGTH(shares);
    if (build->ranks < 2)
        return;
    for (size_t i = 0; i < (build->quick ? 1 : LENGTH(beside)); i++)
        for (size_t j = build->quick ? 1 : 0; j < LENGTH(bytes); j++)
            for (size_t k = 0; k < count; k++)
                push_interference(build, beside[i], (build->cpu ? cpu_bytes : bytes)[j],
                                  build->cpu ? 512 : 4096, shares[k]);
}

static void push_sharing(const builder *build, int64_t bytes, moecal_exchange second)
{
    moecal_point *point = new_point(MOECAL_SHARING, main_dtype(build));
    point->ranks = build->ranks;
    point->first = (moecal_exchange){.collective = MOECAL_ALL_TO_ALL, .bytes = bytes};
    point->second = second;
    push(build, point);
}

static void add_sharing(const builder *build)
{
    static const int64_t cpu_bytes[] = {256 * KIB, 4 * MIB}, bytes[] = {4 * MIB, 64 * MIB};
    if (build->ranks < 2)
        return;
    for (size_t i = build->quick ? 1 : 0; i < LENGTH(bytes); i++) {
        int64_t size = (build->cpu ? cpu_bytes : bytes)[i];
        moecal_exchange whole = {.collective = MOECAL_ALL_REDUCE, .bytes = size};
        push_sharing(build, size,
                     chunk_group(MOECAL_BROADCAST, build->ranks, build->ranks, 3, size / 4));
        if (!build->quick)
            push_sharing(build, size,
                         chunk_group(MOECAL_REDUCE, build->ranks, build->ranks, 3, size / 4));
        push_sharing(build, size, whole);
    }
}

/* --- machinery -------------------------------------------------------------------------------- */

static void add_launch(const builder *build)
{
    for (int mode = 0; mode < 3; mode++)
        for (int64_t kernels = build->quick ? 100 : 1; kernels <= (build->quick ? 100 : 1000);
             kernels *= 10) {
            moecal_point *point;
            if (build->cpu && (mode == 1 || kernels < 100))
                continue; /* no graphs; a call of a function is too short to be timed alone */
            point = new_point(MOECAL_LAUNCH, MOECAL_FP32);
            point->mode = mode;
            point->kernels = kernels;
            push(build, point);
        }
}

static void add_copies(const builder *build)
{
    int64_t largest = build->quick ? 4 * MIB : build->cpu ? 64 * MIB : 1024 * MIB;
    for (int direction = 0; direction < 4; direction++)
        for (int64_t bytes = build->quick ? 64 * KIB : 4 * KIB; bytes <= largest;
             bytes *= build->quick ? 64 : 4)
            for (int pinned = 0; pinned < (build->cpu ? 1 : 2); pinned++) {
                moecal_point *point = new_point(MOECAL_COPY, MOECAL_FP32);
                point->direction = direction;
                point->pinned = pinned;
                point->bytes = bytes;
                push(build, point);
            }
}

typedef void adder(const builder *build);

moecal_suite *moecal_builtin_suite(const char *name, bool cpu, int ranks)
{
    static const struct {
        const char *name;
        adder *add;
    } parts[] = {
        {"gemm", add_gemm},     {"experts", add_experts},
        {"dense", add_dense},   {"collectives", add_collectives},
        {"launch", add_launch}, {"interference", add_interference},
        {"copies", add_copies}, {"sharing", add_sharing},
    };
    bool all = strcmp(name, "full") == 0, quick = strcmp(name, "quick") == 0;
    moecal_suite *suite = moecal_suite_create(name);
    builder build = {suite, cpu, quick, ranks};
    for (size_t i = 0; i < LENGTH(parts); i++)
        if (all || quick || strcmp(name, parts[i].name) == 0)
            parts[i].add(&build);
    return suite;
}
