/* Rows of experts: uniform, by a power law, and as traces recorded them. */
#include "calibrate/fit/suite_make.h"

#include "configs/base/memory.h"
#include "traces/counts.h"
#include <math.h>
#include <stdlib.h>
#include <talloc.h>

static const char *const phases[] = {"forward", "input_gradient", "weight_gradient", NULL};

/* --- one point ---------------------------------------------------------------------------------- */

static json_t *rows_json(const uint32_t *rows, int count)
{
    json_t *list = moe_need(json_array());
    for (int i = 0; i < count; i++)
        json_array_append_new(list, json_integer(rows[i]));
    return list;
}

/* All three phases of one vector of rows. A vector of zeros has nothing to measure. */
static void add_rows(moe_suite_points *suite, const moe_network *model, const uint32_t *rows,
                     int count, const char *distribution, const moe_suite_options *options)
{
    double width = (double)model->hidden + (double)model->ffn;
    double matrices = model->gated ? 3 : 2;
    double weights = matrices * (double)model->hidden * (double)model->ffn;
    double total = (double)moe_counts_sum(rows, (size_t)count);
    double active = 0;
    for (int i = 0; i < count; i++)
        active += rows[i] > 0;
    if (active == 0)
        return;
    if (total > (double)options->most_rows) {
        suite->left_out++;
        return;
    }
    for (const char *const *phase = phases; *phase; phase++)
        moe_suite_points_add(
            suite, MOE_SAMPLE_EXPERTS,
            json_pack("{s:s, s:s, s:I, s:I, s:b, s:o, s:s, s:b}", "dtype", options->dtype, "phase",
                      *phase, "hidden", (json_int_t)model->hidden, "ffn", (json_int_t)model->ffn,
                      "gated", model->gated, "rows", rows_json(rows, count), "distribution",
                      distribution, "grouped", !options->ungrouped),
            (active * weights + total * matrices * width) * options->value_bytes,
            2 * weights * total);
}

/* --- uniform and power law ---------------------------------------------------------------------- */

/* Rows of one expert: powers of four, and some that are no multiple of any tile. */
static const uint32_t uniform_rows[] = {1,   4,    16,   24,   64,    100,   256,
                                        400, 1024, 1600, 4096, 16384, 65536, 131072};
enum { UNIFORM_ROWS = sizeof uniform_rows / sizeof *uniform_rows };

static void add_uniform(moe_suite_points *suite, const moe_network *model, int residents,
                        const moe_suite_options *options)
{
    uint32_t *rows = moe_need(talloc_array(NULL, uint32_t, (size_t)residents));
    for (int i = 0; i < UNIFORM_ROWS; i++) {
        if ((int64_t)uniform_rows[i] * residents > options->most_rows)
            break;
        for (int expert = 0; expert < residents; expert++)
            rows[expert] = uniform_rows[i];
        add_rows(suite, model, rows, residents, "uniform", options);
    }
    talloc_free(rows);
}

static void scale_rows(uint32_t *rows, int count, uint32_t total)
{
    int32_t *remainders = moe_need(talloc_array(NULL, int32_t, (size_t)count));
    moe_counts_scale(rows, (size_t)count, (uint32_t)moe_counts_sum(rows, (size_t)count), total,
                     remainders);
    talloc_free(remainders);
}

static void add_power_law(moe_suite_points *suite, const moe_network *model, int residents,
                          const moe_suite_options *options)
{
    static const uint32_t totals[] = {64, 1024, 16384, 131072};
    uint32_t *rows = moe_need(talloc_array(NULL, uint32_t, (size_t)residents));
    for (size_t i = 0; i < sizeof totals / sizeof *totals; i++) {
        if ((int64_t)totals[i] > options->most_rows)
            break;
        for (int expert = 0; expert < residents; expert++)
            rows[expert] = (uint32_t)lround(10000 * pow(expert + 1, -1.2));
        scale_rows(rows, residents, totals[i]);
        add_rows(suite, model, rows, residents, "power_law", options);
    }
    talloc_free(rows);
}

/* A device of `ranks` under expert parallelism holds so many. */
static int resident_experts(const moe_network *model, int ranks)
{
    return model->experts > ranks ? (int)(model->experts / ranks) : 1;
}

void moe_suite_add_experts(moe_suite_points *suite, const moe_network *model,
                           const moe_suite_options *options)
{
    int own = resident_experts(model, options->ranks);
    for (int residents = 1; residents <= 64 && residents <= model->experts; residents *= 4)
        add_uniform(suite, model, residents, options);
    add_uniform(suite, model, own, options);
    if (own > 1)
        add_power_law(suite, model, own, options);
    add_power_law(suite, model, model->experts < 16 ? (int)model->experts : 16, options);
}

/* --- recorded ----------------------------------------------------------------------------------- */

/* Assignments to each expert, all sources together, scaled to `total`; false: the dispatch is empty. */
static bool read_loads(const moe_trace *trace, const moe_suite_dispatch *at, uint32_t total,
                       uint32_t *loads)
{
    const moe_trace_shape *shape = &moe_trace_get_info(trace)->shape;
    size_t sources = (size_t)shape->sources, experts = (size_t)shape->experts;
    uint32_t *counts = moe_need(talloc_array(NULL, uint32_t, sources * experts));
    uint64_t *sums = moe_need(talloc_zero_array(counts, uint64_t, experts));
    uint64_t all = 0;
    moe_trace_read(trace, at->iteration, at->micro_batch, at->layer, counts, NULL);
    for (size_t i = 0; i < sources * experts; i++)
        sums[i % experts] += counts[i];
    for (size_t i = 0; i < experts; i++)
        all += sums[i];
    /* moe_counts_scale takes sums below 2^31. */
    int shift = 0;
    while (all >> shift >= (uint64_t)1 << 30)
        shift++;
    for (size_t i = 0; i < experts; i++)
        loads[i] = (uint32_t)(sums[i] >> shift);
    bool any = moe_counts_sum(loads, experts) > 0;
    if (any)
        scale_rows(loads, (int)experts, total);
    talloc_free(counts);
    return any;
}

typedef struct device_load {
    uint64_t rows;
    int device;
} device_load;

static int compare_loads(const void *left, const void *right)
{
    const device_load *a = left, *b = right;
    if (a->rows != b->rows)
        return a->rows > b->rows ? -1 : 1;
    return a->device - b->device;
}

/* The device with the most rows, the median one and the one with the fewest. */
static void add_devices(moe_suite_points *suite, const moe_network *model, const uint32_t *loads,
                        int degree, const moe_suite_options *options)
{
    int residents = (int)(model->experts / degree);
    device_load *devices = moe_need(talloc_array(NULL, device_load, (size_t)degree));
    for (int device = 0; device < degree; device++)
        devices[device] = (device_load){
            moe_counts_sum(loads + (size_t)device * (size_t)residents, (size_t)residents), device};
    qsort(devices, (size_t)degree, sizeof *devices, compare_loads);
    int chosen[] = {0, degree / 2, degree - 1};
    for (size_t i = 0; i < sizeof chosen / sizeof *chosen; i++)
        add_rows(suite, model, loads + (size_t)devices[chosen[i]].device * (size_t)residents,
                 residents, "recorded", options);
    talloc_free(devices);
}

/* `tokens` on each of `degree` devices; counts are scaled to sums below 2^31 (traces/counts.h). */
static uint32_t total_rows(const moe_network *model, int degree, const moe_suite_options *options)
{
    double total = (double)options->tokens * (double)model->top_k * degree;
    return (uint32_t)fmin(total, (double)(1 << 30));
}

static void add_degree(moe_suite_points *suite, const moe_network *model, const moe_trace *trace,
                       int degree, const moe_suite_options *options)
{
    moe_suite_dispatch dispatches[MOE_SUITE_DISPATCHES];
    uint32_t *loads = moe_need(talloc_array(NULL, uint32_t, (size_t)model->experts));
    int count = moe_suite_sample(trace, dispatches);
    for (int i = 0; i < count; i++)
        if (read_loads(trace, &dispatches[i], total_rows(model, degree, options), loads))
            add_devices(suite, model, loads, degree, options);
    talloc_free(loads);
}

void moe_suite_add_recorded(moe_suite_points *suite, const moe_network *model,
                            const moe_trace *trace, const moe_suite_options *options)
{
    int degree = options->ranks < model->experts ? options->ranks : (int)model->experts;
    while (model->experts % degree != 0)
        degree--;
    add_degree(suite, model, trace, degree, options);
    /* Wider and narrower groups: fewer and more experts a device. */
    if (model->experts % (degree * 4) == 0)
        add_degree(suite, model, trace, degree * 4, options);
    if (degree % 4 == 0)
        add_degree(suite, model, trace, degree / 4, options);
}

int moe_suite_sample(const moe_trace *trace, moe_suite_dispatch dispatches[MOE_SUITE_DISPATCHES])
{
    const moe_trace_shape *shape = &moe_trace_get_info(trace)->shape;
    int count =
        shape->iterations < MOE_SUITE_DISPATCHES ? (int)shape->iterations : MOE_SUITE_DISPATCHES;
    for (int i = 0; i < count; i++)
        dispatches[i] = (moe_suite_dispatch){
            .iteration = (2 * i + 1) * shape->iterations / (2 * count),
            .micro_batch = i % shape->micro_batches,
            .layer = i * (shape->layers - 1) / (count > 1 ? count - 1 : 1),
        };
    return count;
}
