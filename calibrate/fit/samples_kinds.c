/* What the samples of each kind hold beside the common keys: one function a kind, one table.
 *
 * Memory touched, with v bytes a value, t tokens, h hidden:
 *   permute    2 t top_k h v                         rows read and written
 *   gate       (t h + h experts + t experts) v       input, weights and scores
 *   norm       2 t h v
 *   adam       as models/step_update.c: gradient read, 12 B of state read and written, parameter written
 *   attention  (2 heads + 2 kv_heads) head_dim v a token: queries, keys, values, output; backward twice that
 * FLOPs of attention scores: t 2 c (q + o), c = sequence / 2 if causal (models/network.h), backward twice. */
#include "calibrate/fit/samples_reader.h"

#include "calibrate/fit/robust.h"
#include "configs/base/memory.h"
#include <math.h>
#include <talloc.h>

#define SIZE_MOST MOE_SAMPLE_SIZE_MOST

/* Whole numbers of 1 to 2^40, one after another; false at the first that is none. */
typedef struct sized {
    const char *key;
    double *value;
} sized;

static bool read_sizes(const moe_record_reader *reader, const json_t *record, const sized *sizes,
                       size_t count)
{
    bool fine = true;
    for (size_t i = 0; i < count; i++)
        fine &= moe_record_count(reader, (moe_member){record, sizes[i].key, sizes[i].key}, 1,
                                 SIZE_MOST, true, sizes[i].value);
    return fine;
}

#define SIZES(...)                                                                                 \
    read_sizes(reader, record, (const sized[]){__VA_ARGS__},                                       \
               sizeof((const sized[]){__VA_ARGS__}) / sizeof(sized))

/* The name as static text in the sample; bytes of a value in *bytes. */
static bool read_dtype(const moe_record_reader *reader, const json_t *record, moe_sample *sample,
                       double *bytes)
{
    int chosen =
        moe_record_choice(reader, (moe_member){record, "dtype", "dtype"}, moe_sample_dtype_names);
    if (chosen < 0)
        return false;
    sample->dtype = moe_sample_dtype_names[chosen];
    *bytes = moe_sample_dtype_bytes(sample->dtype);
    return true;
}

/* ---- computation ----------------------------------------------------------------------------- */

static bool read_gemm(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    double bytes = 0;
    bool fine = read_dtype(reader, record, sample, &bytes);
    fine &= SIZES({"m", &sample->m}, {"n", &sample->n}, {"k", &sample->k});
    return fine;
}

static bool read_head(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    double bytes = 0;
    bool fine = read_dtype(reader, record, sample, &bytes);
    fine &= SIZES({"tokens", &sample->m}, {"vocabulary", &sample->n}, {"hidden", &sample->k});
    return fine;
}

static bool read_rows(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    size_t count;
    double sum = 0;
    double *rows = moe_record_numbers(reader, (moe_member){record, "rows", "rows"},
                                      MOE_SAMPLE_EXPERTS_MOST, 0, SIZE_MOST, &count);
    if (rows == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        sum += rows[i];
    if (!(sum > 0)) {
        moe_record_refuse(reader, "rows",
                          "\"rows\" are all 0; expected at least one expert with rows");
        return false;
    }
    sample->rows = rows;
    sample->experts = (int)count;
    return true;
}

static bool read_experts(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    double bytes = 0;
    int phase = moe_record_choice(reader, (moe_member){record, "phase", "phase"}, moe_phase_names);
    sample->phase = phase < 0 ? MOE_FORWARD : (moe_phase)phase;
    bool fine = phase >= 0;
    fine &= read_dtype(reader, record, sample, &bytes);
    fine &= SIZES({"hidden", &sample->hidden}, {"ffn", &sample->ffn});
    fine &= moe_record_flag(reader, (moe_member){record, "gated", "gated"}, &sample->gated);
    fine &= read_rows(reader, record, sample);
    return fine;
}

static bool read_permute(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    double bytes = 0, tokens = 0, top_k = 0;
    bool fine = read_dtype(reader, record, sample, &bytes);
    fine &= SIZES({"tokens", &tokens}, {"hidden", &sample->hidden}, {"top_k", &top_k});
    if (!fine)
        return false;
    sample->m = tokens * top_k;
    sample->bytes = 2 * tokens * top_k * sample->hidden * bytes;
    return true;
}

static bool read_gate(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    double bytes = 0, tokens = 0, experts = 0, top_k = 0;
    bool fine = read_dtype(reader, record, sample, &bytes);
    fine &= SIZES({"tokens", &tokens}, {"hidden", &sample->hidden}, {"experts", &experts},
                  {"top_k", &top_k});
    if (!fine)
        return false;
    sample->m = tokens;
    sample->n = experts;
    sample->k = sample->hidden;
    sample->bytes = (tokens * sample->hidden + sample->hidden * experts + tokens * experts) * bytes;
    return true;
}

static bool read_norm(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    double bytes = 0, tokens = 0;
    bool fine = read_dtype(reader, record, sample, &bytes);
    fine &= SIZES({"tokens", &tokens}, {"hidden", &sample->hidden});
    if (!fine)
        return false;
    sample->m = tokens;
    sample->bytes = 2 * tokens * sample->hidden * bytes;
    return true;
}

static bool read_adam(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    double bytes = 0;
    bool fine = read_dtype(reader, record, sample, &bytes);
    fine &= SIZES({"parameters", &sample->m});
    if (!fine)
        return false;
    double value = bytes == 4 ? 4 : 2, state = 12;
    sample->bytes = sample->m * (value + 2 * state + value);
    return true;
}

static bool read_attention(const moe_record_reader *reader, const json_t *record,
                           moe_sample *sample)
{
    static const char *const phases[] = {"forward", "backward", NULL};
    double bytes = 0, sequences = 0, length = 0, heads = 0, kv_heads = 0, width = 0;
    bool causal = false;
    int phase = moe_record_choice(reader, (moe_member){record, "phase", "phase"}, phases);
    bool fine = phase >= 0;
    fine &= read_dtype(reader, record, sample, &bytes);
    fine &= SIZES({"sequences", &sequences}, {"sequence", &length}, {"heads", &heads},
                  {"kv_heads", &kv_heads}, {"head_dim", &width});
    fine &= moe_record_flag(reader, (moe_member){record, "causal", "causal"}, &causal);
    if (!fine)
        return false;
    double tokens = sequences * length, passes = phase == 1 ? 2 : 1;
    double attended = causal ? length / 2 : length;
    sample->m = tokens;
    sample->phase = phase == 1 ? MOE_INPUT_GRADIENT : MOE_FORWARD;
    sample->flop = passes * tokens * 2 * attended * (2 * heads * width);
    sample->bytes = passes * tokens * (2 * heads + 2 * kv_heads) * width * bytes;
    return true;
}

/* ---- collectives ----------------------------------------------------------------------------- */

static bool read_matrix_row(const moe_record_reader *reader, const json_t *row, size_t ranks,
                            double *values)
{
    if (!json_is_array(row) || json_array_size(row) != ranks) {
        moe_record_refuse(reader, "matrix", "\"matrix\" has a row that is no list of %zu numbers",
                          ranks);
        return false;
    }
    for (size_t i = 0; i < ranks; i++) {
        const json_t *item = json_array_get(row, i);
        values[i] = json_number_value(item);
        if (!json_is_number(item) || !(values[i] >= 0 && values[i] <= SIZE_MOST)) {
            moe_record_refuse(reader, "matrix",
                              "\"matrix\" holds %.9g; expected bytes from 0 to %.9g", values[i],
                              SIZE_MOST);
            return false;
        }
    }
    return true;
}

/* The largest sum of a row or a column, without the diagonal. */
static double most_of(const double *matrix, size_t ranks)
{
    double most = 0;
    for (size_t i = 0; i < ranks; i++) {
        double sent = 0, received = 0;
        for (size_t j = 0; j < ranks; j++) {
            sent += j == i ? 0 : matrix[i * ranks + j];
            received += j == i ? 0 : matrix[j * ranks + i];
        }
        most = fmax(most, fmax(sent, received));
    }
    return most;
}

static bool read_matrix(const moe_record_reader *reader, const json_t *object, size_t ranks,
                        moe_sample_exchange *exchange)
{
    const json_t *rows = json_object_get(object, "matrix");
    if (rows == NULL)
        return true;
    if (!json_is_array(rows) || json_array_size(rows) != ranks) {
        moe_record_refuse(reader, "matrix", "\"matrix\" is no list of %zu rows, one for each rank",
                          ranks);
        return false;
    }
    double *matrix = moe_need(talloc_array(reader->scratch, double, ranks *ranks));
    for (size_t i = 0; i < ranks; i++) {
        if (!read_matrix_row(reader, json_array_get(rows, i), ranks, matrix + i * ranks))
            return false;
    }
    exchange->matrix = matrix;
    exchange->most_bytes = most_of(matrix, ranks);
    if (exchange->most_bytes > 0)
        return true;
    moe_record_refuse(reader, "matrix", "\"matrix\" sends nothing between ranks");
    return false;
}

/* The owner, or a wanting rank; -1 where it is none of the ranks. */
static int rank_of(const json_t *value, size_t ranks)
{
    json_int_t rank = json_is_integer(value) ? json_integer_value(value) : -1;
    return rank >= 0 && (size_t)rank < ranks ? (int)rank : -1;
}

static bool read_chunk(const moe_record_reader *reader, const json_t *item, size_t ranks,
                       moe_chunk *chunk, uint64_t *bits)
{
    const json_t *want = json_object_get(item, "want");
    int wanting = 0;
    chunk->owner = rank_of(json_object_get(item, "owner"), ranks);
    chunk->want = bits;
    for (size_t i = 0; i < json_array_size(want); i++) {
        int rank = rank_of(json_array_get(want, i), ranks);
        if (rank < 0)
            chunk->owner = -1;
        else
            bits[rank / 64] |= UINT64_C(1) << (rank % 64);
        wanting += rank >= 0 && rank != chunk->owner;
    }
    if (chunk->owner >= 0 && wanting > 0)
        return true;
    moe_record_refuse(reader, "chunks",
                      "\"chunks\" holds one that is not {\"owner\": rank, \"want\": [other ranks]} "
                      "with ranks from 0 to %zu",
                      ranks - 1);
    return false;
}

static bool read_chunk_list(const moe_record_reader *reader, const json_t *list, size_t ranks,
                            moe_sample_exchange *exchange)
{
    size_t count = json_array_size(list), words = (ranks + 63) / 64;
    if (!json_is_array(list) || count < 1 || count > MOE_SAMPLE_CHUNKS_MOST) {
        moe_record_refuse(reader, "chunks", "\"chunks\" is no list of 1 to %d chunks",
                          MOE_SAMPLE_CHUNKS_MOST);
        return false;
    }
    moe_chunk *chunks = moe_need(talloc_array(reader->scratch, moe_chunk, count));
    uint64_t *bits = moe_need(talloc_zero_array(reader->scratch, uint64_t, count * words));
    for (size_t c = 0; c < count; c++) {
        if (!read_chunk(reader, json_array_get(list, c), ranks, &chunks[c], bits + c * words))
            return false;
    }
    exchange->chunk_list = chunks;
    exchange->chunks = (int)count;
    return true;
}

/* An exchange has `bytes`, or chunks with `chunk_bytes`. */
static bool read_amount(const moe_record_reader *reader, const json_t *object, size_t ranks,
                        moe_sample_exchange *exchange)
{
    const json_t *list = json_object_get(object, "chunks");
    bool rooted = exchange->collective == MOE_BROADCAST || exchange->collective == MOE_REDUCE;
    if (list == NULL || json_is_null(list) || !rooted)
        return moe_record_number(reader, (moe_member){object, "bytes", "bytes"}, 1, SIZE_MOST, true,
                                 &exchange->bytes);
    bool fine = moe_record_number(reader, (moe_member){object, "chunk_bytes", "chunk_bytes"}, 1,
                                  SIZE_MOST, true, &exchange->chunk_bytes);
    fine &= read_chunk_list(reader, list, ranks, exchange);
    if (!fine)
        return false;
    exchange->bytes = exchange->chunks * exchange->chunk_bytes;
    return true;
}

static bool read_exchange(const moe_record_reader *reader, const json_t *object, int ranks,
                          moe_sample_exchange *exchange)
{
    int kind = moe_record_choice(reader, (moe_member){object, "collective", "collective"},
                                 moe_collective_names);
    if (kind < 0)
        return false;
    exchange->collective = (moe_collective_kind)kind;
    return read_amount(reader, object, (size_t)ranks, exchange) &&
           (kind != MOE_ALL_TO_ALL || read_matrix(reader, object, (size_t)ranks, exchange));
}

static bool need_ranks(const moe_record_reader *reader, const moe_sample *sample)
{
    if (sample->ranks >= 2)
        return true;
    moe_record_refuse(reader, "ranks", "%s of %d rank; expected at least 2", reader->noun,
                      sample->ranks);
    return false;
}

static bool read_collective(const moe_record_reader *reader, const json_t *record,
                            moe_sample *sample)
{
    return need_ranks(reader, sample) &&
           read_exchange(reader, record, sample->ranks, &sample->first);
}

static bool read_median(const moe_record_reader *reader, const json_t *record, const char *key,
                        double *median)
{
    size_t count;
    double *times = moe_record_times(reader, (moe_member){record, key, key}, &count);
    if (times != NULL)
        *median = moe_fit_median(times, count);
    return times != NULL;
}

static bool read_alone(const moe_record_reader *reader, const json_t *record, const char *key,
                       double *seconds)
{
    return moe_record_number(reader, (moe_member){record, key, key}, MOE_SAMPLE_TIME_LEAST,
                             MOE_SAMPLE_TIME_MOST, true, seconds);
}

static bool read_interference(const moe_record_reader *reader, const json_t *record,
                              moe_sample *sample)
{
    double bytes = 0;
    const json_t *compute = moe_record_object(reader, (moe_member){record, "compute", "compute"});
    const json_t *collective =
        moe_record_object(reader, (moe_member){record, "collective", "collective"});
    if (compute == NULL || collective == NULL || !need_ranks(reader, sample))
        return false;
    const sized sizes[] = {{"m", &sample->m}, {"n", &sample->n}, {"k", &sample->k}};
    bool fine = read_sizes(reader, compute, sizes, 3);
    fine &= read_dtype(reader, compute, sample, &bytes);
    fine &= read_exchange(reader, collective, sample->ranks, &sample->first);
    fine &= moe_record_number(reader, (moe_member){record, "sm_share", "sm_share"}, 0, 1, false,
                              &sample->sm_share);
    fine &= read_alone(reader, record, "collective_alone_s", &sample->first_alone_s);
    fine &= read_alone(reader, record, "compute_alone_s", &sample->second_alone_s);
    fine &= read_median(reader, record, "collective_times_s", &sample->first_s);
    fine &= read_median(reader, record, "compute_times_s", &sample->second_s);
    return fine;
}

static bool read_sharing(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    const json_t *first = moe_record_object(reader, (moe_member){record, "first", "first"});
    const json_t *second = moe_record_object(reader, (moe_member){record, "second", "second"});
    if (first == NULL || second == NULL || !need_ranks(reader, sample))
        return false;
    bool fine = read_exchange(reader, first, sample->ranks, &sample->first);
    fine &= read_exchange(reader, second, sample->ranks, &sample->second);
    fine &= read_alone(reader, record, "first_alone_s", &sample->first_alone_s);
    fine &= read_alone(reader, record, "second_alone_s", &sample->second_alone_s);
    fine &= read_median(reader, record, "first_times_s", &sample->first_s);
    fine &= read_median(reader, record, "second_times_s", &sample->second_s);
    return fine;
}

/* ---- the host, and copies -------------------------------------------------------------------- */

static bool read_launch(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    static const char *const modes[] = {"stream", "graph", "sync", NULL};
    int mode = moe_record_choice(reader, (moe_member){record, "mode", "mode"}, modes);
    sample->mode = mode < 0 ? MOE_LAUNCHED_STREAM : (moe_launch_mode)mode;
    bool fine = mode >= 0;
    fine &= SIZES({"kernels", &sample->kernels});
    return fine;
}

static bool read_copy(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    static const char *const memories[] = {"pinned", "pageable", NULL};
    int direction =
        moe_record_choice(reader, (moe_member){record, "direction", "direction"}, moe_copy_names);
    int memory =
        json_object_get(record, "memory") == NULL
            ? 1
            : moe_record_choice(reader, (moe_member){record, "memory", "memory"}, memories);
    sample->copy = direction < 0 ? MOE_COPY_HOST_TO_DEVICE : (moe_copy_kind)direction;
    sample->pinned = memory == 0;
    bool fine = direction >= 0 && memory >= 0;
    fine &= SIZES({"bytes", &sample->bytes});
    return fine;
}

/* ---- the table ------------------------------------------------------------------------------- */

static const struct kind {
    const char *noun;
    bool (*read)(const moe_record_reader *reader, const json_t *record, moe_sample *sample);
} kinds[MOE_SAMPLE_KINDS] = {
    [MOE_SAMPLE_GEMM] = {"a gemm", read_gemm},
    [MOE_SAMPLE_EXPERTS] = {"a sample of experts", read_experts},
    [MOE_SAMPLE_PERMUTE] = {"a permute", read_permute},
    [MOE_SAMPLE_GATE] = {"a gate", read_gate},
    [MOE_SAMPLE_ATTENTION] = {"an attention", read_attention},
    [MOE_SAMPLE_NORM] = {"a norm", read_norm},
    [MOE_SAMPLE_ADAM] = {"an adam", read_adam},
    [MOE_SAMPLE_HEAD] = {"a head", read_head},
    [MOE_SAMPLE_COLLECTIVE] = {"a collective", read_collective},
    [MOE_SAMPLE_INTERFERENCE] = {"an interference", read_interference},
    [MOE_SAMPLE_SHARING] = {"a sharing", read_sharing},
    [MOE_SAMPLE_LAUNCH] = {"a launch", read_launch},
    [MOE_SAMPLE_COPY] = {"a copy", read_copy},
};

bool moe_sample_read_kind(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    moe_record_reader named = *reader;
    named.noun = kinds[sample->kind].noun;
    return kinds[sample->kind].read(&named, record, sample);
}
