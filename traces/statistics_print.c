/* The statistics of a trace as a text for people and as JSON. */
#include "traces/statistics.h"

#include "traces/trace_internal.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { THIRDS = 3 };

static const char *const third_names[THIRDS] = {"early", "middle", "late"};

/* A column of a table with one row a layer. */
typedef struct column {
    const char *title;
    const double *values; /* of layer 0 */
    int64_t stride;
    const char *format; /* of one number */
} column;

enum { COLUMN_WIDTH = 12 };

static void put_number(FILE *stream, const char *format, double value)
{
    char text[32];
    if (isnan(value))
        snprintf(text, sizeof text, "-");
    else
        snprintf(text, sizeof text, format, value); /* one of ours: "%.1f" or "%.3f" */
    fprintf(stream, "%*s", COLUMN_WIDTH, text);
}

static double column_mean(const column *of, int64_t layers)
{
    double sum = 0;
    for (int64_t l = 0; l < layers; l++)
        sum += of->values[l * of->stride];
    return sum / (double)layers;
}

static void put_table(FILE *stream, const column *columns, size_t count, int64_t layers)
{
    fprintf(stream, "  %8s", "layer");
    for (size_t c = 0; c < count; c++)
        fprintf(stream, "%*s", COLUMN_WIDTH, columns[c].title);
    for (int64_t l = 0; l < layers; l++) {
        fprintf(stream, "\n  %8" PRId64, l);
        for (size_t c = 0; c < count; c++)
            put_number(stream, columns[c].format, columns[c].values[l * columns[c].stride]);
    }
    fprintf(stream, "\n  %8s", "mean");
    for (size_t c = 0; c < count; c++)
        put_number(stream, columns[c].format, column_mean(&columns[c], layers));
    fprintf(stream, "\n\n");
}

static const char *plural(int64_t count)
{
    return count == 1 ? "" : "s";
}

static void put_shape(FILE *stream, const moe_trace_info *info)
{
    const moe_trace_shape *shape = &info->shape;
    fprintf(stream,
            "  shape        %" PRId64 " iteration%s, %" PRId64 " micro-batch%s, %" PRId64
            " layer%s, %" PRId64 " source%s, %" PRId64 " expert%s\n",
            shape->iterations, plural(shape->iterations), shape->micro_batches,
            shape->micro_batches == 1 ? "" : "es", shape->layers, plural(shape->layers),
            shape->sources, plural(shape->sources), shape->experts, plural(shape->experts));
    if (info->aggregation == MOE_AGGREGATION_WINDOW)
        fprintf(stream, "  aggregation  window: a count sums over %" PRId64 " passes\n",
                info->window);
    else
        fprintf(stream, "  aggregation  %s: a count sums over one %s\n",
                moe_aggregation_names[info->aggregation], moe_aggregation_names[info->aggregation]);
}

/* Per-token recordings only. */
static void put_ids(FILE *stream, const moe_trace_info *info)
{
    if (info->slots == 0)
        return;
    fprintf(stream,
            "  per token    %" PRId64 " expert id%s of each token%s; an iteration is a position, a "
            "source a request\n",
            info->slots, plural(info->slots),
            info->probabilities ? " and their probabilities" : "");
    if (info->null_experts > 0)
        fprintf(stream, "  null experts %" PRId64 ": ids from %" PRId64 " on, not counted\n",
                info->null_experts, info->shape.experts);
}

static void put_origin(FILE *stream, const moe_trace_info *info)
{
    fprintf(stream, "  origin       ");
    for (const char *c = info->origin; *c != '\0'; c++) /* a foreign text: no terminal escapes */
        fputc((unsigned char)*c < ' ' || *c == 0x7f ? '?' : *c, stream);
    fprintf(stream, "\n  synthetic    %s\n",
            info->synthetic ? "yes: not recorded from a trained model"
                            : "no: recorded from a trained model");
}

static void put_head(FILE *stream, const moe_trace *trace, const moe_trace_statistics *statistics)
{
    const moe_trace_info *info = moe_trace_get_info(trace);
    fprintf(stream, "%s\n", trace->at.source->name);
    put_shape(stream, info);
    put_ids(stream, info);
    if (info->top_k > 0)
        fprintf(stream, "  top_k        %" PRId64 "\n", info->top_k);
    else
        fprintf(stream, "  top_k        varies, %.2f on average\n",
                statistics->assignments / (statistics->tokens * (double)info->shape.sources));
    fprintf(stream, "  tokens       %.1f of a source in a dispatch, on average (%s)\n",
            statistics->tokens,
            info->tokens_recorded ? "recorded" : "derived: assignments / top_k");
    fprintf(stream, "  assignments  %.1f in a dispatch, on average\n", statistics->assignments);
    put_origin(stream, info);
    fprintf(stream, "  digest       %s (CRC-32 of the %s)\n\n", info->digest,
            info->slots > 0 ? "expert ids" : "counts");
}

static void put_imbalance(FILE *stream, const moe_trace_statistics *statistics)
{
    column columns[THIRDS];
    for (int64_t third = 0; third < THIRDS; third++)
        columns[third] =
            (column){third_names[third], statistics->imbalance + third, THIRDS, "%.2f"};
    fprintf(stream,
            "Hottest expert: its assignments in a dispatch over the mean of all experts, averaged "
            "over\n"
            "%s (1 is balanced; higher is worse).\n",
            statistics->thirds == THIRDS ? "the early, middle and late third of the iterations"
                                         : "all iterations (too few for thirds)");
    if (statistics->thirds == 1)
        columns[0].title = "all";
    put_table(stream, columns, (size_t)statistics->thirds, statistics->layers);
}

static void put_prediction(FILE *stream, const moe_trace_statistics *statistics)
{
    const column columns[] = {
        {"drift", statistics->drift, 1, "%.3f"},
        {"mean of 5", statistics->error_mean5, 1, "%.3f"},
        {"last value", statistics->error_last, 1, "%.3f"},
        {"uniform", statistics->error_uniform, 1, "%.3f"},
    };
    fprintf(
        stream,
        "Drift: share of the assignments that goes to other experts in the next iteration (total\n"
        "variation; 0 is a standstill). Beside it how far three predictions of an iteration's "
        "shares\n"
        "are off: the mean of the five iterations before it, the last one, and equal shares "
        "(lower\n"
        "is better; a policy that looks back gains only where it is far below uniform).\n");
    put_table(stream, columns, sizeof columns / sizeof *columns, statistics->layers);
}

void moe_trace_print_info(const moe_trace *trace, const moe_trace_statistics *statistics,
                          FILE *stream)
{
    put_head(stream, trace, statistics);
    put_imbalance(stream, statistics);
    put_prediction(stream, statistics);
    fprintf(
        stream,
        "Source spread %.3f: share of a source's assignments that goes to other experts than those "
        "of\n"
        "all sources together (total variation, mean; few tokens per source raise it by chance).\n",
        statistics->source_spread);
}

/* --- JSON ----------------------------------------------------------------------------------- */

static json_t *number_json(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *numbers_json(const double *values, int64_t count)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < count; i++)
        json_array_append_new(array, number_json(values[i]));
    return array;
}

static json_t *imbalance_json(const moe_trace_statistics *statistics)
{
    json_t *layers = json_array();
    for (int64_t l = 0; l < statistics->layers; l++)
        json_array_append_new(layers,
                              numbers_json(statistics->imbalance + l * THIRDS, statistics->thirds));
    return layers;
}

static json_t *shape_json(const moe_trace_shape *shape)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "iterations", (json_int_t)shape->iterations,
                     "micro_batches", (json_int_t)shape->micro_batches, "layers",
                     (json_int_t)shape->layers, "sources", (json_int_t)shape->sources, "experts",
                     (json_int_t)shape->experts);
}

static json_t *statistics_json(const moe_trace_statistics *statistics)
{
    const int64_t layers = statistics->layers;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "assignments_per_dispatch",
                     number_json(statistics->assignments), "tokens_per_source",
                     number_json(statistics->tokens), "hottest_over_mean",
                     imbalance_json(statistics), "drift", numbers_json(statistics->drift, layers),
                     "error_mean5", numbers_json(statistics->error_mean5, layers), "error_last",
                     numbers_json(statistics->error_last, layers), "error_uniform",
                     numbers_json(statistics->error_uniform, layers), "source_spread",
                     number_json(statistics->source_spread));
}

static json_t *ids_json(const moe_trace_info *info)
{
    return json_pack("{s:I, s:I, s:b}", "slots", (json_int_t)info->slots, "null_experts",
                     (json_int_t)info->null_experts, "probabilities", (int)info->probabilities);
}

json_t *moe_trace_info_json(const moe_trace *trace, const moe_trace_statistics *statistics)
{
    const moe_trace_info *info = moe_trace_get_info(trace);
    json_t *json = json_pack("{s:s, s:o, s:s, s:I, s:I, s:b, s:b, s:s, s:s, s:O, s:o}", "file",
                             trace->at.source->name, "shape", shape_json(&info->shape),
                             "aggregation", moe_aggregation_names[info->aggregation], "window",
                             (json_int_t)info->window, "top_k", (json_int_t)info->top_k,
                             "synthetic", info->synthetic, "tokens_recorded", info->tokens_recorded,
                             "origin", info->origin, "crc32", info->digest, "provenance",
                             (json_t *)info->provenance, "statistics", statistics_json(statistics));
    if (info->slots > 0)
        json_object_set_new(json, "per_token", ids_json(info));
    return json;
}
