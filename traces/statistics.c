#include "traces/statistics.h"

#include "configs/base/memory.h"
#include "traces/counts.h"
#include "traces/trace_internal.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <talloc.h>

enum {
    THIRDS = 3,
    HISTORY = 5, /* iterations that the mean predicts from */
};

/* A mean in the making; without values it is NaN. */
typedef struct mean {
    double sum;
    int64_t count;
} mean;

/* What is remembered of one layer from iteration to iteration. */
typedef struct layer_state {
    mean imbalance[THIRDS];
    mean drift, error_mean5, error_last, error_uniform;
    double *shares; /* [HISTORY][experts], a ring by iteration */
    int known;      /* how many of the ring's last rows are filled without a gap */
} layer_state;

typedef struct measuring {
    const moe_trace *trace;
    moe_trace_shape shape;
    int thirds;
    layer_state *layers;
    mean source_spread, assignments, tokens;
    /* Scratch. */
    uint32_t *counts;      /* [sources][experts] of a dispatch */
    uint32_t *tokens_read; /* [sources] */
    double *dispatch;      /* [experts] sums over sources */
    double *iteration;     /* [experts] sums over sources and micro-batches */
    double *prediction;    /* [experts] */
} measuring;

static void mean_add(mean *into, double value)
{
    into->sum += value;
    into->count++;
}

static double mean_value(mean of)
{
    return of.count == 0 ? NAN : of.sum / (double)of.count;
}

/* Half the sum of |a[i] - b[i]|. */
static double total_variation(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += fabs(a[i] - b[i]);
    return sum / 2;
}

/* --- one dispatch --------------------------------------------------------------------------- */

/* Sums over sources; returns their total, and the hottest expert's in *hottest. */
static double sum_dispatch(measuring *m, double *hottest)
{
    const int64_t experts = m->shape.experts;
    double total = 0;
    memset(m->dispatch, 0, (size_t)experts * sizeof *m->dispatch);
    for (int64_t s = 0; s < m->shape.sources; s++) {
        for (int64_t e = 0; e < experts; e++)
            m->dispatch[e] += m->counts[s * experts + e];
    }
    *hottest = 0;
    for (int64_t e = 0; e < experts; e++) {
        total += m->dispatch[e];
        *hottest = fmax(*hottest, m->dispatch[e]);
    }
    return total;
}

/* How far the shares of each source are from those of all. */
static void measure_sources(measuring *m, double total)
{
    const int64_t experts = m->shape.experts;
    for (int64_t s = 0; s < m->shape.sources; s++) {
        const uint32_t *row = m->counts + s * experts;
        const double sum = (double)moe_counts_sum(row, (size_t)experts);
        double distance = 0;
        for (int64_t e = 0; e < experts && sum > 0; e++)
            distance += fabs(row[e] / sum - m->dispatch[e] / total);
        if (sum > 0)
            mean_add(&m->source_spread, distance / 2);
        mean_add(&m->tokens, m->tokens_read[s]);
    }
}

static void measure_dispatch(measuring *m, int64_t iteration, int64_t micro_batch, int64_t layer)
{
    const int64_t third = iteration * m->thirds / m->shape.iterations;
    double hottest;
    moe_trace_read(m->trace, iteration, micro_batch, layer, m->counts, m->tokens_read);
    const double total = sum_dispatch(m, &hottest);
    mean_add(&m->assignments, total);
    measure_sources(m, total);
    if (total > 0)
        mean_add(&m->layers[layer].imbalance[third], hottest * (double)m->shape.experts / total);
    for (int64_t e = 0; e < m->shape.experts; e++)
        m->iteration[e] += m->dispatch[e];
}

/* --- one iteration of a layer --------------------------------------------------------------- */

static double *ring_row(const measuring *m, const layer_state *layer, int64_t iteration)
{
    return layer->shares + (iteration % HISTORY) * m->shape.experts;
}

static void predict_mean(measuring *m, const layer_state *layer)
{
    for (int64_t e = 0; e < m->shape.experts; e++) {
        double sum = 0;
        for (int64_t h = 0; h < HISTORY; h++)
            sum += layer->shares[h * m->shape.experts + e];
        m->prediction[e] = sum / HISTORY;
    }
}

static void predict_uniform(measuring *m)
{
    for (int64_t e = 0; e < m->shape.experts; e++)
        m->prediction[e] = 1.0 / (double)m->shape.experts;
}

/* Compares m->iteration, now shares, with what came before. */
static void compare_with_history(measuring *m, layer_state *layer, int64_t iteration)
{
    const int64_t experts = m->shape.experts;
    if (layer->known == 0)
        return;
    const double last = total_variation(m->iteration, ring_row(m, layer, iteration - 1), experts);
    mean_add(&layer->drift, last);
    if (layer->known < HISTORY)
        return;
    mean_add(&layer->error_last, last);
    predict_mean(m, layer);
    mean_add(&layer->error_mean5, total_variation(m->iteration, m->prediction, experts));
    predict_uniform(m);
    mean_add(&layer->error_uniform, total_variation(m->iteration, m->prediction, experts));
}

static void measure_iteration(measuring *m, int64_t iteration, int64_t index)
{
    const size_t row_bytes = (size_t)m->shape.experts * sizeof *m->iteration;
    layer_state *layer = &m->layers[index];
    double sum = 0;
    memset(m->iteration, 0, row_bytes);
    for (int64_t b = 0; b < m->shape.micro_batches; b++)
        measure_dispatch(m, iteration, b, index);
    for (int64_t e = 0; e < m->shape.experts; e++)
        sum += m->iteration[e];
    if (sum == 0) {
        layer->known = 0;
        return;
    }
    for (int64_t e = 0; e < m->shape.experts; e++)
        m->iteration[e] /= sum;
    compare_with_history(m, layer, iteration);
    memcpy(ring_row(m, layer, iteration), m->iteration, row_bytes);
    layer->known = layer->known < HISTORY ? layer->known + 1 : HISTORY;
}

/* --- all of it ------------------------------------------------------------------------------ */

static void allocate(measuring *m, void *owner)
{
    const size_t experts = (size_t)m->shape.experts;
    const size_t layers = (size_t)m->shape.layers;
    m->counts =
        moe_need(talloc_array(owner, uint32_t, (size_t)moe_trace_dispatch_cells(&m->shape)));
    m->tokens_read = moe_need(talloc_array(owner, uint32_t, (size_t)m->shape.sources));
    m->dispatch = moe_need(talloc_array(owner, double, experts));
    m->iteration = moe_need(talloc_array(owner, double, experts));
    m->prediction = moe_need(talloc_array(owner, double, experts));
    m->layers = moe_need(talloc_zero_array(owner, layer_state, layers));
    for (size_t l = 0; l < layers; l++)
        m->layers[l].shares = moe_need(talloc_array(owner, double, HISTORY *experts));
}

static double *layer_numbers(moe_trace_statistics *statistics, int64_t per_layer)
{
    return moe_need(
        talloc_zero_array(statistics, double, (size_t)(statistics->layers * per_layer)));
}

static moe_trace_statistics *conclude(void *owner, const measuring *m)
{
    moe_trace_statistics *statistics = moe_need(talloc_zero(owner, moe_trace_statistics));
    statistics->layers = m->shape.layers;
    statistics->thirds = m->thirds;
    statistics->imbalance = layer_numbers(statistics, THIRDS);
    statistics->drift = layer_numbers(statistics, 1);
    statistics->error_mean5 = layer_numbers(statistics, 1);
    statistics->error_last = layer_numbers(statistics, 1);
    statistics->error_uniform = layer_numbers(statistics, 1);
    for (int64_t l = 0; l < m->shape.layers; l++) {
        const layer_state *layer = &m->layers[l];
        for (int64_t third = 0; third < THIRDS; third++)
            statistics->imbalance[l * THIRDS + third] = mean_value(layer->imbalance[third]);
        statistics->drift[l] = mean_value(layer->drift);
        statistics->error_mean5[l] = mean_value(layer->error_mean5);
        statistics->error_last[l] = mean_value(layer->error_last);
        statistics->error_uniform[l] = mean_value(layer->error_uniform);
    }
    statistics->source_spread = mean_value(m->source_spread);
    statistics->assignments = mean_value(m->assignments);
    statistics->tokens = mean_value(m->tokens);
    return statistics;
}

moe_trace_statistics *moe_trace_measure(void *owner, const moe_trace *trace,
                                        void (*progress)(void *state, int64_t done, int64_t total),
                                        void *state)
{
    void *scratch = moe_need(talloc_new(NULL));
    measuring m = {.trace = trace, .shape = moe_trace_get_info(trace)->shape};
    m.thirds = m.shape.iterations < THIRDS ? 1 : THIRDS;
    allocate(&m, scratch);
    for (int64_t t = 0; t < m.shape.iterations; t++) {
        for (int64_t l = 0; l < m.shape.layers; l++)
            measure_iteration(&m, t, l);
        if (progress != NULL)
            progress(state, t + 1, m.shape.iterations);
    }
    moe_trace_statistics *statistics = conclude(owner, &m);
    talloc_free(scratch);
    return statistics;
}
