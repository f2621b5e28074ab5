#include "calibrate/measure/point.h"

#include <stdio.h>
#include <stdlib.h>

const char *const moecal_kind_names[] = {
    "gemm", "experts",    "permute",      "gate",    "attention", "norm", "adam",
    "head", "collective", "interference", "sharing", "launch",    "copy", NULL};
const char *const moecal_dtype_names[] = {"fp32", "bf16", "fp16", "fp8", NULL};
const char *const moecal_phase_names[] = {"forward", "input_gradient", "weight_gradient",
                                          "backward", NULL};
const char *const moecal_collective_names[] = {"all_to_all", "all_gather", "reduce_scatter",
                                               "all_reduce", "broadcast",  "reduce",
                                               "send_recv",  NULL};
const char *const moecal_mode_names[] = {"stream", "graph", "sync", NULL};
const char *const moecal_direction_names[] = {"host_to_device", "device_to_host", "storage_read",
                                              "storage_write", NULL};

double moecal_dtype_bytes(moecal_dtype dtype)
{
    static const double bytes[] = {4, 2, 2, 1};
    return bytes[dtype];
}

static void free_exchange(moecal_exchange *exchange)
{
    free(exchange->matrix);
    for (int i = 0; exchange->chunks && i < exchange->chunk_count; i++)
        free(exchange->chunks[i].want);
    free(exchange->chunks);
}

void moecal_point_free(moecal_point *point)
{
    if (!point)
        return;
    free_exchange(&point->first);
    free_exchange(&point->second);
    free(point->rows);
    free(point);
}

bool moecal_point_is_collective(const moecal_point *point)
{
    return point->kind == MOECAL_COLLECTIVE || point->kind == MOECAL_INTERFERENCE ||
           point->kind == MOECAL_SHARING;
}

/* --- work ------------------------------------------------------------------------------------- */

static double sum_of_rows(const moecal_point *point)
{
    double sum = 0;
    for (int i = 0; i < point->experts; i++)
        sum += (double)point->rows[i];
    return sum;
}

static double gemm_flop(double m, double n, double k)
{
    return 2 * m * n * k;
}

/* Causal tokens attend to half of the sequence on average; a backward pass is twice a forward one. */
static double attention_flop(const moecal_point *point)
{
    double sequence = (double)point->sequence;
    double attended = point->causal ? sequence / 2 : sequence;
    double forward = (double)point->sequences * sequence * 4 * attended * (double)point->heads *
                     (double)point->head_dim;
    return point->phase == MOECAL_BACKWARD ? 2 * forward : forward;
}

double moecal_point_flop(const moecal_point *point)
{
    double hidden = (double)point->hidden, tokens = (double)point->tokens;
    switch (point->kind) {
    case MOECAL_GEMM:
    case MOECAL_INTERFERENCE:
        return gemm_flop((double)point->gemm.m, (double)point->gemm.n, (double)point->gemm.k);
    case MOECAL_EXPERTS:
        return (point->gated ? 3 : 2) * gemm_flop(sum_of_rows(point), hidden, (double)point->ffn);
    case MOECAL_GATE:
        return gemm_flop(tokens, point->experts, hidden);
    case MOECAL_ATTENTION:
        return attention_flop(point);
    case MOECAL_HEAD:
        return gemm_flop(tokens, (double)point->vocabulary, hidden);
    default:
        return 0;
    }
}

static double largest_line(const moecal_exchange *exchange)
{
    double largest = 0;
    int ranks = exchange->matrix_ranks;
    for (int i = 0; i < ranks; i++) {
        double sent = 0, received = 0;
        for (int j = 0; j < ranks; j++) {
            sent += (double)exchange->matrix[i * ranks + j];
            received += (double)exchange->matrix[j * ranks + i];
        }
        largest = sent > largest ? sent : largest;
        largest = received > largest ? received : largest;
    }
    return largest;
}

/* What a rank sends or receives, whichever is more, about. */
static double exchange_bytes(const moecal_exchange *exchange)
{
    if (exchange->matrix)
        return largest_line(exchange);
    if (exchange->chunks)
        return (double)exchange->chunk_bytes * exchange->chunk_count;
    return (double)exchange->bytes;
}

static double experts_bytes(const moecal_point *point)
{
    double matrices = point->gated ? 3 : 2, hidden = (double)point->hidden,
           ffn = (double)point->ffn;
    double active = 0;
    for (int i = 0; i < point->experts; i++)
        active += point->rows[i] > 0;
    return matrices * (active * hidden * ffn + sum_of_rows(point) * (hidden + ffn));
}

static double attention_bytes(const moecal_point *point)
{
    double tokens = (double)point->sequences * (double)point->sequence;
    double values = 2.0 * (double)(point->heads + point->kv_heads) * (double)point->head_dim;
    return tokens * values * (point->phase == MOECAL_BACKWARD ? 2 : 1);
}

/* Of values: to be multiplied by the bytes of one. */
static double values_touched(const moecal_point *point)
{
    double hidden = (double)point->hidden, tokens = (double)point->tokens;
    double m = (double)point->gemm.m, n = (double)point->gemm.n, k = (double)point->gemm.k;
    switch (point->kind) {
    case MOECAL_GEMM:
    case MOECAL_INTERFERENCE:
        return m * k + k * n + m * n;
    case MOECAL_EXPERTS:
        return experts_bytes(point);
    case MOECAL_PERMUTE:
        return 2 * tokens * (double)point->top_k * hidden;
    case MOECAL_GATE:
        return tokens * hidden + hidden * point->experts + tokens * point->experts;
    case MOECAL_ATTENTION:
        return attention_bytes(point);
    case MOECAL_NORM:
        return 2 * tokens * hidden;
    case MOECAL_HEAD:
        return tokens * hidden + hidden * (double)point->vocabulary +
               tokens * (double)point->vocabulary;
    default:
        return 0;
    }
}

double moecal_point_bytes(const moecal_point *point)
{
    double value = moecal_dtype_bytes(point->dtype);
    switch (point->kind) {
    case MOECAL_ADAM: /* the gradient read, the parameter written, 12 B of state read and written */
        return (double)point->parameters * (2 * value + 24);
    case MOECAL_COPY:
        return (double)point->bytes;
    case MOECAL_COLLECTIVE:
    case MOECAL_SHARING:
        return exchange_bytes(&point->first) + exchange_bytes(&point->second);
    case MOECAL_INTERFERENCE:
        return values_touched(point) * value + exchange_bytes(&point->first);
    default:
        return values_touched(point) * value;
    }
}
