#include "calibrate/fit/fit_private.h"
#include "calibrate/fit/robust.h"
#include "configs/base/memory.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* ---- order ----------------------------------------------------------------------------------- */

static int compare(double a, double b)
{
    return (a > b) - (a < b);
}

static int compare_rows(const moe_sample *a, const moe_sample *b)
{
    int order = compare(a->experts, b->experts);
    for (int i = 0; order == 0 && i < a->experts; i++)
        order = compare(a->rows[i], b->rows[i]);
    return order;
}

static int compare_exchanges(const moe_sample_exchange *a, const moe_sample_exchange *b)
{
    const double pairs[][2] = {{a->collective, b->collective},
                               {a->chunks, b->chunks},
                               {a->bytes, b->bytes},
                               {a->chunk_bytes, b->chunk_bytes},
                               {a->most_bytes, b->most_bytes}};
    int order = 0;
    for (size_t i = 0; order == 0 && i < sizeof pairs / sizeof *pairs; i++)
        order = compare(pairs[i][0], pairs[i][1]);
    return order;
}

/* By everything that a fit looks at; equal samples are interchangeable. */
static int by_parameters(const void *left, const void *right)
{
    const moe_sample *a = *(const moe_sample *const *)left;
    const moe_sample *b = *(const moe_sample *const *)right;
    const double pairs[][2] = {
        {a->kind, b->kind}, {a->phase, b->phase}, {a->ranks, b->ranks},   {a->hosts, b->hosts},
        {a->mode, b->mode}, {a->copy, b->copy},   {a->pinned, b->pinned}, {a->hidden, b->hidden},
        {a->ffn, b->ffn},   {a->gated, b->gated}, {a->m, b->m},           {a->n, b->n},
        {a->k, b->k},       {a->flop, b->flop},   {a->bytes, b->bytes},   {a->kernels, b->kernels}};
    const double times[][2] = {{a->sm_share, b->sm_share},
                               {a->seconds, b->seconds},
                               {a->first_s, b->first_s},
                               {a->second_s, b->second_s},
                               {a->first_alone_s, b->first_alone_s},
                               {a->second_alone_s, b->second_alone_s}};
    int order = strcmp(a->dtype, b->dtype);
    for (size_t i = 0; order == 0 && i < sizeof pairs / sizeof *pairs; i++)
        order = compare(pairs[i][0], pairs[i][1]);
    order = order != 0 ? order : compare_exchanges(&a->first, &b->first);
    order = order != 0 ? order : compare_exchanges(&a->second, &b->second);
    order = order != 0 ? order : compare_rows(a, b);
    for (size_t i = 0; order == 0 && i < sizeof times / sizeof *times; i++)
        order = compare(times[i][0], times[i][1]);
    return order;
}

moe_selection moe_fit_select(void *owner, const moe_samples *samples,
                             bool (*wanted)(const moe_sample *sample, const void *context),
                             const void *context)
{
    moe_selection selection = {
        .items = moe_need(talloc_array(owner, const moe_sample *, samples->count))};
    for (size_t i = 0; i < samples->count; i++) {
        if (wanted(&samples->items[i], context))
            selection.items[selection.count++] = &samples->items[i];
    }
    qsort(selection.items, selection.count, sizeof *selection.items, by_parameters);
    return selection;
}

/* ---- costs ----------------------------------------------------------------------------------- */

void moe_fit_bench_open(moe_fit_bench *bench, const moe_device_spec *device)
{
    memset(bench, 0, sizeof *bench);
    bench->spec.device = *device;
    bench->cluster.spec = &bench->spec;
    bench->costs = (moe_costs){&bench->profile, &bench->cluster, &bench->usage};
}

/* ---- evidence -------------------------------------------------------------------------------- */

moe_evidence_builder moe_evidence_open(void *owner, moe_evidence *evidence, size_t columns,
                                       size_t expected)
{
    size_t width = columns + 2, rows = expected < MOE_FIT_ROWS_MOST ? expected : MOE_FIT_ROWS_MOST;
    evidence->samples =
        (moe_rows){.values = moe_need(talloc_array(owner, double, rows *width)), .width = width};
    return (moe_evidence_builder){.evidence = evidence, .width = width, .expected = expected};
}

void moe_evidence_add(moe_evidence_builder *builder, const double *columns, double measured_s,
                      double predicted_s)
{
    moe_rows *samples = &builder->evidence->samples;
    double error = fabs(predicted_s / measured_s - 1);
    size_t rows = builder->expected < MOE_FIT_ROWS_MOST ? builder->expected : MOE_FIT_ROWS_MOST;
    builder->sum += error;
    builder->worst = fmax(builder->worst, error);
    /* Row r of those kept is number r * expected / rows of all. */
    if (samples->count < rows && builder->seen == samples->count * builder->expected / rows) {
        double *row = samples->values + samples->count++ * builder->width;
        memcpy(row, columns, (builder->width - 2) * sizeof *row);
        row[builder->width - 2] = measured_s;
        row[builder->width - 1] = predicted_s;
    }
    builder->seen++;
}

void moe_evidence_close(moe_evidence_builder *builder)
{
    double mean = builder->seen > 0 ? builder->sum / (double)builder->seen : 0;
    builder->evidence->residual = fmin(mean, 10);
    builder->evidence->worst = fmin(builder->worst, 1e6);
}

void moe_left_out_add(moe_left_out *left, double measured_s, double predicted_s)
{
    left->sum += fabs(predicted_s / measured_s - 1);
    left->count++;
}

double moe_left_out_mean(const moe_left_out *left)
{
    return left->count > 0 ? fmin(left->sum / (double)left->count, 10) : 0;
}

/* ---- tables ---------------------------------------------------------------------------------- */

typedef struct pair {
    double x, y;
} pair;

static int by_x(const void *left, const void *right)
{
    const pair *a = left, *b = right;
    int order = compare(a->x, b->x);
    return order != 0 ? order : compare(a->y, b->y);
}

/* The median in logarithms of y, the mean of x, of count >= 1 sorted pairs. */
static pair joined(const pair *pairs, size_t count, double *scratch)
{
    double x = 0;
    for (size_t i = 0; i < count; i++) {
        x += log(pairs[i].x);
        scratch[i] = log(pairs[i].y);
    }
    bool same = pairs[0].x == pairs[count - 1].x;
    return (pair){same ? pairs[0].x : exp(x / (double)count), exp(moe_fit_median(scratch, count))};
}

size_t moe_fit_merge(double *x, double *y, size_t count)
{
    size_t kept = 0;
    if (count == 0)
        return 0;
    pair *pairs = moe_need(talloc_array(NULL, pair, count));
    double *scratch = moe_need(talloc_array(pairs, double, count));
    for (size_t i = 0; i < count; i++)
        pairs[i] = (pair){x[i], y[i]};
    qsort(pairs, count, sizeof *pairs, by_x);
    size_t distinct = 1;
    for (size_t i = 1; i < count; i++)
        distinct += pairs[i].x > pairs[i - 1].x;
    double width = distinct > MOE_FIT_TABLE_MOST
                       ? log(pairs[count - 1].x / pairs[0].x) / MOE_FIT_TABLE_MOST
                       : 0;
    for (size_t first = 0, i = 1; i <= count; i++) {
        if (i < count && (pairs[i].x == pairs[first].x || log(pairs[i].x / pairs[first].x) < width))
            continue;
        pair one = joined(pairs + first, i - first, scratch);
        x[kept] = one.x;
        y[kept++] = one.y;
        first = i;
    }
    talloc_free(pairs);
    return kept;
}
