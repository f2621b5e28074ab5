/* Collectives: alone, two at once, and beside a computation. */
#include "calibrate/fit/suite_make.h"

#include "configs/base/memory.h"
#include <math.h>
#include <string.h>
#include <talloc.h>

static const int64_t smallest_bytes = 8, largest_bytes = (int64_t)1 << 30;

/* Every rank's part is a whole number of values. */
static int64_t whole(double bytes, int ranks, const moe_suite_options *options)
{
    int64_t unit = (int64_t)(ranks * moe_suite_plain_bytes(options));
    int64_t units = (int64_t)ceil(bytes / (double)unit);
    return (units > 0 ? units : 1) * unit;
}

static json_t *exchange(const char *collective, int64_t bytes)
{
    return json_pack("{s:s, s:I}", "collective", collective, "bytes", (json_int_t)bytes);
}

/* Steals `point`; adds who takes part, and in which format sums are made. */
static void add_exchange(moe_suite_points *suite, json_t *point, int ranks, double bytes,
                         const moe_suite_options *options)
{
    json_object_set_new(point, "dtype", json_string(moe_suite_plain_dtype(options)));
    json_object_set_new(point, "ranks", json_integer(ranks));
    moe_suite_points_add(suite, MOE_SAMPLE_COLLECTIVE, point, 2 * bytes, 0);
}

static void add_plain(moe_suite_points *suite, const char *collective, int ranks, double wanted,
                      const moe_suite_options *options)
{
    int64_t bytes = whole(wanted, ranks, options);
    add_exchange(suite, exchange(collective, bytes), ranks, (double)bytes, options);
}

/* --- sizes ---------------------------------------------------------------------------------------- */

static void add_sizes(moe_suite_points *suite, const char *collective, int ranks, int64_t first,
                      int64_t factor, const moe_suite_options *options)
{
    for (int64_t bytes = first; bytes <= largest_bytes; bytes *= bytes < 1024 ? 8 : factor)
        add_plain(suite, collective, ranks, (double)bytes, options);
}

static const char *const everywhere[] = {"all_to_all", "all_gather", "reduce_scatter", "all_reduce",
                                         NULL};
static const char *const others[] = {"broadcast", "reduce", "send_recv", NULL};

/* All sizes on all ranks; every fourth power of two on fewer of them. */
void moe_suite_add_collectives(moe_suite_points *suite, const moe_suite_options *options)
{
    for (const char *const *name = everywhere; *name; name++) {
        add_sizes(suite, *name, options->ranks, smallest_bytes, 2, options);
        for (int ranks = 2; ranks < options->ranks; ranks *= 2)
            add_sizes(suite, *name, ranks, 1024, 4, options);
    }
    for (const char *const *name = others; *name; name++)
        add_sizes(suite, *name, options->ranks, smallest_bytes, 4, options);
}

/* --- all-to-all-v --------------------------------------------------------------------------------- */

/* Steals `matrix`. Bytes are the mean row, as for a uniform one. */
static void add_matrix(moe_suite_points *suite, json_t *matrix, double total_bytes,
                       const moe_suite_options *options)
{
    int64_t bytes = (int64_t)ceil(total_bytes / options->ranks);
    json_t *point = exchange("all_to_all", bytes);
    json_object_set_new(point, "matrix", matrix);
    add_exchange(suite, point, options->ranks, (double)bytes, options);
}

/* One rank sends (or receives) `hot` times what it would if all were alike; the others share the rest. */
static void add_skewed(moe_suite_points *suite, double bytes, double hot, bool sender,
                       const moe_suite_options *options)
{
    int ranks = options->ranks;
    double unit = moe_suite_plain_bytes(options), total = 0;
    double share = bytes / ranks, rest = share * (ranks - hot) / (ranks - 1);
    json_t *matrix = moe_need(json_array());
    for (int source = 0; source < ranks; source++) {
        json_t *row = moe_need(json_array());
        for (int target = 0; target < ranks; target++) {
            bool is_hot = (sender ? source : target) == 0;
            double pair = unit * round((is_hot ? share * hot : rest) / unit);
            json_array_append_new(row, json_integer((json_int_t)pair));
            total += pair;
        }
        json_array_append_new(matrix, row);
    }
    if (total > 0)
        add_matrix(suite, matrix, total, options);
    else
        json_decref(matrix);
}

static void add_skews(moe_suite_points *suite, double step_bytes, const moe_suite_options *options)
{
    static const double skews[] = {1.5, 2, 4};
    for (int i = 0; i < 3; i++)
        for (double bytes = step_bytes / 16; bytes <= step_bytes * 1.01; bytes *= 4) {
            if (skews[i] >= options->ranks)
                break;
            add_skewed(suite, bytes, skews[i], true, options);
            add_skewed(suite, bytes, skews[i], false, options);
        }
}

/* Assignments from group to device: sources are dealt to ranks in contiguous groups (a rank stands in for
 * several where there are fewer sources), experts likewise. */
static void fold_counts(const moe_trace_shape *shape, const uint32_t *counts, int ranks,
                        double *folded)
{
    for (int64_t source = 0; source < shape->sources; source++)
        for (int64_t expert = 0; expert < shape->experts; expert++) {
            int64_t from = source * ranks / shape->sources;
            int64_t to = expert * ranks / shape->experts;
            folded[from * ranks + to] += counts[source * shape->experts + expert];
        }
}

/* Rows that no source fell on repeat the one before them. */
static void fill_rows(double *folded, int ranks)
{
    for (int rank = 1; rank < ranks; rank++) {
        double sum = 0;
        for (int target = 0; target < ranks; target++)
            sum += folded[rank * ranks + target];
        if (sum == 0)
            memcpy(&folded[rank * ranks], &folded[(rank - 1) * ranks],
                   (size_t)ranks * sizeof *folded);
    }
}

/* The mean rank sends `mean_bytes`; NULL where nothing was recorded. */
static json_t *scaled_matrix(const double *folded, int ranks, double mean_bytes, double unit,
                             double *total_bytes)
{
    double sum = 0;
    for (int i = 0; i < ranks * ranks; i++)
        sum += folded[i];
    *total_bytes = 0;
    if (sum == 0)
        return NULL;
    json_t *matrix = moe_need(json_array());
    for (int source = 0; source < ranks; source++) {
        json_t *row = moe_need(json_array());
        for (int target = 0; target < ranks; target++) {
            double bytes = folded[source * ranks + target] / sum * mean_bytes * ranks;
            bytes = unit * round(bytes / unit);
            *total_bytes += bytes;
            json_array_append_new(row, json_integer((json_int_t)bytes));
        }
        json_array_append_new(matrix, row);
    }
    return matrix;
}

static double token_bytes(const moe_network *model, const moe_suite_options *options)
{
    return (double)model->hidden * moe_suite_plain_bytes(options);
}

static double step_bytes(const moe_network *model, const moe_suite_options *options)
{
    return (double)options->tokens * (double)model->top_k * token_bytes(model, options);
}

static void add_recorded_matrix(moe_suite_points *suite, const moe_network *model,
                                const moe_trace *trace, const moe_suite_dispatch *at,
                                const moe_suite_options *options)
{
    const moe_trace_shape *shape = &moe_trace_get_info(trace)->shape;
    size_t ranks = (size_t)options->ranks;
    uint32_t *counts =
        moe_need(talloc_array(NULL, uint32_t, (size_t)shape->sources * (size_t)shape->experts));
    double *folded = moe_need(talloc_zero_array(counts, double, ranks *ranks));
    moe_trace_read(trace, at->iteration, at->micro_batch, at->layer, counts, NULL);
    fold_counts(shape, counts, options->ranks, folded);
    fill_rows(folded, options->ranks);
    for (double part = 1; part >= 1.0 / 64; part /= 8) {
        double total;
        json_t *matrix = scaled_matrix(folded, options->ranks, part * step_bytes(model, options),
                                       token_bytes(model, options), &total);
        if (matrix && total > 0)
            add_matrix(suite, matrix, total, options);
        else
            json_decref(matrix);
    }
    talloc_free(counts);
}

void moe_suite_add_recorded_exchanges(moe_suite_points *suite, const moe_network *model,
                                      const moe_trace *trace, const moe_suite_options *options)
{
    moe_suite_dispatch dispatches[MOE_SUITE_DISPATCHES];
    int count = moe_suite_sample(trace, dispatches);
    for (int i = 0; i < count; i++)
        add_recorded_matrix(suite, model, trace, &dispatches[i], options);
}

/* --- grouped broadcasts and reduces ------------------------------------------------------------- */

/* Owners take turns; every `stride`-th of the other ranks, counted from the owner, wants the chunk. */
static json_t *grouped(const char *collective, int chunks, int stride, double chunk_bytes,
                       int ranks)
{
    json_t *list = moe_need(json_array());
    for (int chunk = 0; chunk < chunks; chunk++) {
        int owner = chunk % ranks;
        json_t *want = moe_need(json_array());
        for (int step = 1; step < ranks; step += stride)
            json_array_append_new(want, json_integer((owner + step) % ranks));
        json_array_append_new(list, json_pack("{s:i, s:o}", "owner", owner, "want", want));
    }
    json_t *point = exchange(collective, (int64_t)chunk_bytes * chunks);
    json_object_set_new(point, "chunks", moe_need(list));
    json_object_set_new(point, "chunk_bytes", json_integer((json_int_t)chunk_bytes));
    return point;
}

static void add_grouped(moe_suite_points *suite, double chunk_bytes,
                        const moe_suite_options *options)
{
    static const char *const names[] = {"broadcast", "reduce"};
    int ranks = options->ranks;
    for (int name = 0; name < 2; name++)
        for (int i = 0; i < options->chunk_count_count; i++)
            for (int stride = 1; stride < ranks; stride = stride == 1 ? 2 : ranks) {
                int chunks = options->chunk_counts[i];
                add_exchange(suite, grouped(names[name], chunks, stride, chunk_bytes, ranks), ranks,
                             chunk_bytes * chunks, options);
            }
}

/* --- two at once, and beside a computation -------------------------------------------------------- */

static void add_interference(moe_suite_points *suite, const moe_network *model,
                             const char *collective, double wanted,
                             const moe_suite_options *options)
{
    static const double shares[] = {0, 0.08, 0.15, 0.3};
    const char *dtype = moe_suite_plain_dtype(options);
    int64_t bytes = whole(wanted, options->ranks, options), m = options->tokens;
    double value_bytes = moe_suite_plain_bytes(options);
    double a = (double)m, n = (double)model->ffn, k = (double)model->hidden;
    for (int i = 0; i < 4; i++) {
        json_t *point = json_pack("{s:s, s:{s:I, s:I, s:I, s:s}, s:o, s:i}", "dtype", dtype,
                                  "compute", "m", (json_int_t)m, "n", (json_int_t)model->ffn, "k",
                                  (json_int_t)model->hidden, "dtype", dtype, "collective",
                                  exchange(collective, bytes), "ranks", options->ranks);
        if (shares[i] > 0)
            json_object_set_new(moe_need(point), "sm_share", json_real(shares[i]));
        moe_suite_points_add(suite, MOE_SAMPLE_INTERFERENCE, point,
                             2 * (double)bytes + (a * k + k * n + a * n) * value_bytes,
                             2 * a * n * k);
    }
}

/* Steals both. */
static void add_sharing(moe_suite_points *suite, json_t *first, json_t *second, double bytes,
                        const moe_suite_options *options)
{
    moe_suite_points_add(suite, MOE_SAMPLE_SHARING,
                         json_pack("{s:s, s:o, s:o, s:i}", "dtype", moe_suite_plain_dtype(options),
                                   "first", moe_need(first), "second", moe_need(second), "ranks",
                                   options->ranks),
                         bytes, 0);
}

static void add_sharings(moe_suite_points *suite, double exchanged, double gradients, double chunk,
                         const moe_suite_options *options)
{
    int64_t bytes = whole(exchanged, options->ranks, options);
    int64_t summed = whole(gradients, options->ranks, options);
    int chunks = options->chunk_counts[options->chunk_count_count - 1];
    add_sharing(suite, exchange("all_to_all", bytes), exchange("all_to_all", bytes),
                4 * (double)bytes, options);
    add_sharing(suite, exchange("all_to_all", bytes), exchange("all_reduce", summed),
                2 * (double)(bytes + summed), options);
    add_sharing(suite, exchange("all_to_all", bytes), exchange("all_gather", summed),
                2 * (double)(bytes + summed), options);
    add_sharing(suite, exchange("all_to_all", bytes),
                grouped("broadcast", chunks, 1, chunk, options->ranks),
                2 * ((double)bytes + chunk * chunks), options);
    add_sharing(suite, exchange("all_to_all", bytes),
                grouped("reduce", chunks, 1, chunk, options->ranks),
                2 * ((double)bytes + chunk * chunks), options);
}

/* --- what a model's step has ---------------------------------------------------------------------- */

void moe_suite_add_exchanges(moe_suite_points *suite, const moe_network *model,
                             const moe_suite_options *options)
{
    static const char *const sums[] = {"all_gather", "reduce_scatter", "all_reduce"};
    double unit = moe_suite_plain_bytes(options);
    double layer = unit * moe_network_layer_parameters(model, model->layers - 1);
    double expert = unit * moe_network_expert_parameters(model);
    double exchanged = step_bytes(model, options);
    if (options->ranks < 2)
        return;
    add_plain(suite, "all_to_all", options->ranks, exchanged, options);
    for (int i = 0; i < 3; i++) {
        add_plain(suite, sums[i], options->ranks, layer, options);
        add_plain(suite, sums[i], options->ranks, expert, options);
    }
    add_skews(suite, exchanged, options);
    add_grouped(suite, expert, options);
    add_interference(suite, model, "all_to_all", exchanged, options);
    add_interference(suite, model, "all_reduce", layer, options);
    add_sharings(suite, exchanged, layer, expert, options);
}
