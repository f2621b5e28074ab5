/* A point's id, and its JSON. */
#include "calibrate/measure/point.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- id --------------------------------------------------------------------------------------- */

/* FNV-1a (Fowler, Noll, Vo), 64 bits, over integers. */
static uint64_t digest(uint64_t sum, int64_t value)
{
    for (int byte = 0; byte < 8; byte++) {
        sum ^= (uint64_t)value >> (8 * byte) & 0xff;
        sum *= 0x100000001b3ULL;
    }
    return sum;
}
static const uint64_t digest_start = 0xcbf29ce484222325ULL;

__attribute__((format(printf, 2, 3))) static void add(moecal_point *point, const char *format, ...)
{
    size_t length = strlen(point->id);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(point->id + length, sizeof point->id - length, format, arguments);
    va_end(arguments);
}

static void add_matrix(moecal_point *point, const moecal_exchange *exchange)
{
    uint64_t sum = digest_start;
    for (int i = 0; i < exchange->matrix_ranks * exchange->matrix_ranks; i++)
        sum = digest(sum, exchange->matrix[i]);
    add(point, "_matrix%016" PRIx64, sum);
}

static void add_chunks(moecal_point *point, const moecal_exchange *exchange)
{
    uint64_t sum = digest_start;
    for (int i = 0; i < exchange->chunk_count; i++) {
        const moecal_chunk *chunk = &exchange->chunks[i];
        sum = digest(digest(sum, chunk->owner), chunk->want_count);
        for (int j = 0; j < chunk->want_count; j++)
            sum = digest(sum, chunk->want[j]);
    }
    add(point, "_chunks%dx%" PRId64 "_%016" PRIx64, exchange->chunk_count, exchange->chunk_bytes,
        sum);
}

static void add_exchange(moecal_point *point, const moecal_exchange *exchange)
{
    add(point, "%s/b%" PRId64, moecal_collective_names[exchange->collective], exchange->bytes);
    if (exchange->matrix)
        add_matrix(point, exchange);
    if (exchange->chunks)
        add_chunks(point, exchange);
}

static void add_experts(moecal_point *point)
{
    uint64_t sum = digest_start;
    for (int i = 0; i < point->experts; i++)
        sum = digest(sum, point->rows[i]);
    add(point, "%s/h%" PRId64 "_f%" PRId64 "_%s/%s_%s_e%d_%016" PRIx64,
        moecal_phase_names[point->phase], point->hidden, point->ffn,
        point->gated ? "gated" : "plain", point->distribution,
        point->grouped ? "grouped" : "single", point->experts, sum);
}

static void add_dense(moecal_point *point)
{
    switch (point->kind) {
    case MOECAL_PERMUTE:
        add(point, "t%" PRId64 "_h%" PRId64 "_k%" PRId64, point->tokens, point->hidden,
            point->top_k);
        break;
    case MOECAL_GATE:
        add(point, "t%" PRId64 "_h%" PRId64 "_e%d_k%" PRId64, point->tokens, point->hidden,
            point->experts, point->top_k);
        break;
    case MOECAL_ATTENTION:
        add(point, "%s/n%" PRId64 "_s%" PRId64 "_h%" PRId64 "_kv%" PRId64 "_d%" PRId64 "%s",
            moecal_phase_names[point->phase], point->sequences, point->sequence, point->heads,
            point->kv_heads, point->head_dim, point->causal ? "_causal" : "");
        break;
    case MOECAL_NORM:
        add(point, "t%" PRId64 "_h%" PRId64, point->tokens, point->hidden);
        break;
    case MOECAL_ADAM:
        add(point, "p%" PRId64, point->parameters);
        break;
    default:
        add(point, "t%" PRId64 "_h%" PRId64 "_v%" PRId64, point->tokens, point->hidden,
            point->vocabulary);
    }
}

static void add_gemm(moecal_point *point)
{
    add(point, "m%" PRId64 "_n%" PRId64 "_k%" PRId64, point->gemm.m, point->gemm.n, point->gemm.k);
}

static void add_collective(moecal_point *point)
{
    if (point->ranks > 0)
        add(point, "r%d/", point->ranks);
    else
        add(point, "all/");
    if (point->kind == MOECAL_INTERFERENCE) {
        add_gemm(point);
        add(point, "/");
    }
    add_exchange(point, &point->first);
    if (point->kind == MOECAL_SHARING) {
        add(point, "/");
        add_exchange(point, &point->second);
    }
    if (point->sm_share > 0)
        add(point, "/share%.6g", point->sm_share);
}

void moecal_point_name(moecal_point *point)
{
    snprintf(point->id, sizeof point->id, "%s/", moecal_kind_names[point->kind]);
    if (point->kind != MOECAL_LAUNCH && point->kind != MOECAL_COPY)
        add(point, "%s/", moecal_dtype_names[point->dtype]);
    if (moecal_point_is_collective(point))
        add_collective(point);
    else if (point->kind == MOECAL_GEMM)
        add_gemm(point);
    else if (point->kind == MOECAL_EXPERTS)
        add_experts(point);
    else if (point->kind == MOECAL_LAUNCH)
        add(point, "%s/n%" PRId64, moecal_mode_names[point->mode], point->kernels);
    else if (point->kind == MOECAL_COPY)
        add(point, "%s/%s/b%" PRId64, moecal_direction_names[point->direction],
            point->pinned ? "pinned" : "pageable", point->bytes);
    else
        add_dense(point);
}

/* --- JSON ------------------------------------------------------------------------------------- */

static void set_integer(json_t *object, const char *key, int64_t value)
{
    json_object_set_new(object, key, json_integer(value));
}

static void set_text(json_t *object, const char *key, const char *value)
{
    json_object_set_new(object, key, json_string(value));
}

void moecal_exchange_hottest(const moecal_exchange *exchange, double *sender, double *receiver)
{
    double most_sent = 0, most_received = 0, total = 0;
    int ranks = exchange->matrix_ranks;
    for (int i = 0; i < ranks; i++) {
        double sent = 0, received = 0;
        for (int j = 0; j < ranks; j++) {
            sent += (double)exchange->matrix[i * ranks + j];
            received += (double)exchange->matrix[j * ranks + i];
        }
        total += sent;
        most_sent = sent > most_sent ? sent : most_sent;
        most_received = received > most_received ? received : most_received;
    }
    *sender = total > 0 ? most_sent * ranks / total : 1;
    *receiver = total > 0 ? most_received * ranks / total : 1;
}

static void put_matrix(json_t *object, const moecal_exchange *exchange)
{
    json_t *matrix = json_array();
    double sender, receiver;
    for (int i = 0; i < exchange->matrix_ranks; i++) {
        json_t *row = json_array();
        for (int j = 0; j < exchange->matrix_ranks; j++)
            json_array_append_new(row,
                                  json_integer(exchange->matrix[i * exchange->matrix_ranks + j]));
        json_array_append_new(matrix, row);
    }
    moecal_exchange_hottest(exchange, &sender, &receiver);
    json_object_set_new(object, "matrix", matrix);
    json_object_set_new(object, "hottest_sender", json_real(sender));
    json_object_set_new(object, "hottest_receiver", json_real(receiver));
}

static void put_chunks(json_t *object, const moecal_exchange *exchange)
{
    json_t *chunks = json_array();
    for (int i = 0; i < exchange->chunk_count; i++) {
        json_t *want = json_array();
        for (int j = 0; j < exchange->chunks[i].want_count; j++)
            json_array_append_new(want, json_integer(exchange->chunks[i].want[j]));
        json_array_append_new(
            chunks, json_pack("{s:i, s:o}", "owner", exchange->chunks[i].owner, "want", want));
    }
    json_object_set_new(object, "chunks", chunks);
    set_integer(object, "chunk_bytes", exchange->chunk_bytes);
}

static void put_exchange(json_t *object, const moecal_exchange *exchange)
{
    set_text(object, "collective", moecal_collective_names[exchange->collective]);
    set_integer(object, "bytes", exchange->bytes);
    if (exchange->matrix)
        put_matrix(object, exchange);
    if (exchange->chunks)
        put_chunks(object, exchange);
}

static json_t *exchange_json(const moecal_exchange *exchange)
{
    json_t *object = json_object();
    put_exchange(object, exchange);
    return object;
}

static void put_gemm(json_t *object, const moecal_gemm *gemm)
{
    set_integer(object, "m", gemm->m);
    set_integer(object, "n", gemm->n);
    set_integer(object, "k", gemm->k);
}

static void put_experts(json_t *object, const moecal_point *point)
{
    json_t *rows = json_array();
    for (int i = 0; i < point->experts; i++)
        json_array_append_new(rows, json_integer(point->rows[i]));
    set_text(object, "phase", moecal_phase_names[point->phase]);
    set_integer(object, "hidden", point->hidden);
    set_integer(object, "ffn", point->ffn);
    json_object_set_new(object, "gated", json_boolean(point->gated));
    json_object_set_new(object, "rows", rows);
    set_text(object, "distribution", point->distribution);
    json_object_set_new(object, "grouped", json_boolean(point->grouped));
}

static void put_attention(json_t *object, const moecal_point *point)
{
    set_text(object, "phase", moecal_phase_names[point->phase]);
    set_integer(object, "sequences", point->sequences);
    set_integer(object, "sequence", point->sequence);
    set_integer(object, "heads", point->heads);
    set_integer(object, "kv_heads", point->kv_heads);
    set_integer(object, "head_dim", point->head_dim);
    json_object_set_new(object, "causal", json_boolean(point->causal));
}

static void put_interference(json_t *object, const moecal_point *point)
{
    json_t *compute = json_object();
    put_gemm(compute, &point->gemm);
    set_text(compute, "dtype", moecal_dtype_names[point->dtype]);
    json_object_set_new(object, "compute", compute);
    json_object_set_new(object, "collective", exchange_json(&point->first));
    if (point->sm_share > 0)
        json_object_set_new(object, "sm_share", json_real(point->sm_share));
}

static void put_tokens(json_t *object, const moecal_point *point)
{
    set_integer(object, "tokens", point->tokens);
    set_integer(object, "hidden", point->hidden);
    if (point->kind == MOECAL_GATE)
        set_integer(object, "experts", point->experts);
    if (point->kind == MOECAL_GATE || point->kind == MOECAL_PERMUTE)
        set_integer(object, "top_k", point->top_k);
    if (point->kind == MOECAL_HEAD)
        set_integer(object, "vocabulary", point->vocabulary);
}

static void put_machinery(json_t *object, const moecal_point *point)
{
    if (point->kind == MOECAL_LAUNCH) {
        set_text(object, "mode", moecal_mode_names[point->mode]);
        set_integer(object, "kernels", point->kernels);
        return;
    }
    set_text(object, "direction", moecal_direction_names[point->direction]);
    set_text(object, "memory", point->pinned ? "pinned" : "pageable");
    set_integer(object, "bytes", point->bytes);
}

static void put_parameters(json_t *object, const moecal_point *point)
{
    switch (point->kind) {
    case MOECAL_GEMM:
        put_gemm(object, &point->gemm);
        break;
    case MOECAL_EXPERTS:
        put_experts(object, point);
        break;
    case MOECAL_ATTENTION:
        put_attention(object, point);
        break;
    case MOECAL_ADAM:
        set_integer(object, "parameters", point->parameters);
        break;
    case MOECAL_COLLECTIVE:
        put_exchange(object, &point->first);
        break;
    case MOECAL_INTERFERENCE:
        put_interference(object, point);
        break;
    case MOECAL_SHARING:
        json_object_set_new(object, "first", exchange_json(&point->first));
        json_object_set_new(object, "second", exchange_json(&point->second));
        break;
    case MOECAL_LAUNCH:
    case MOECAL_COPY:
        put_machinery(object, point);
        break;
    default:
        put_tokens(object, point);
    }
}

json_t *moecal_point_json(const moecal_point *point)
{
    json_t *object = json_object();
    set_text(object, "id", point->id);
    set_text(object, "kind", moecal_kind_names[point->kind]);
    set_text(object, "dtype", moecal_dtype_names[point->dtype]);
    put_parameters(object, point);
    if (point->ranks > 0)
        set_integer(object, "ranks", point->ranks);
    return object;
}
