#include "calibrate/fit/import_rows.h"

#include "configs/base/memory.h"
#include <string.h>
#include <talloc.h>

enum { RANKS_PER_HOST = 8, VALUE_BYTES = 2 };

/* Eight hosts: the receivers' wait is booked as notification (8 ms with 24 SMs, 0.5 ms with 4). */
enum { NORMAL_HOSTS_MAX = 4 };

typedef struct ep_shape {
    double hosts, hidden, tokens, top_k, experts;
} ep_shape;

static bool read_shape(const moe_csv *csv, ep_shape *shape)
{
    const moe_where at = moe_csv_where(csv, moe_csv_column(csv, "num_topk"));
    if (!moe_csv_number(csv, moe_csv_column(csv, "node_num"), true, 1, 8192, &shape->hosts) ||
        !moe_csv_number(csv, moe_csv_column(csv, "hidden_size"), true, 1, 1e7, &shape->hidden) ||
        !moe_csv_number(csv, moe_csv_column(csv, "num_token"), true, 1, 1e8, &shape->tokens) ||
        !moe_csv_number(csv, moe_csv_column(csv, "num_topk"), true, 1, 4096, &shape->top_k) ||
        !moe_csv_number(csv, moe_csv_column(csv, "num_experts"), true, 1, 65536, &shape->experts))
        return false;
    if (shape->top_k <= shape->experts)
        return true;
    moe_diag_error(csv->diag, at, "top-%g of %g experts; expected no more than all", shape->top_k,
                   shape->experts);
    return false;
}

/* 1 - C(E - E/G, k) / C(E, k): the chance that one of `groups` holds one of k experts drawn alike. */
static double visit_chance(const ep_shape *shape, double groups)
{
    double missed = 1;
    for (double i = 0; i < shape->top_k; i++)
        missed *= (shape->experts - shape->experts / groups - i) / (shape->experts - i);
    return 1 - (missed > 0 ? missed : 0);
}

static double normal_bytes(const ep_shape *shape)
{
    const double groups = shape->hosts > 1 ? shape->hosts : RANKS_PER_HOST;
    return shape->tokens * shape->hidden * VALUE_BYTES * visit_chance(shape, groups) * groups;
}

static double low_latency_bytes(const ep_shape *shape)
{
    return shape->tokens * shape->top_k * shape->hidden * VALUE_BYTES;
}

/* --- tables ------------------------------------------------------------------------------------------- */

static void add_candidate(moe_import_candidates *all, const moe_import_rows *rows,
                          const ep_shape *shape, moe_collective_kind kind, double bytes, double us)
{
    const moe_span none = {"", 0};
    if (us <= 0) {
        moe_import_left_out(rows->tally, 1, "rows with a time of 0");
        return;
    }
    moe_sample sample = {.kind = MOE_SAMPLE_COLLECTIVE,
                         .line = rows->csv.line,
                         .dtype = "bf16",
                         .hosts = (int)shape->hosts,
                         .ranks = (int)shape->hosts * RANKS_PER_HOST,
                         .seconds = us * 1e-6,
                         .repetitions = 1,
                         .hidden = shape->hidden,
                         .first = {.collective = kind, .bytes = bytes}};
    const moe_span version = rows->version < 0 ? none : rows->csv.fields[rows->version];
    moe_import_candidates_add(all, (moe_import_candidate){sample, version, sample.hosts});
}

/* The fit is of one shape, that all numbers of hosts have: latencies per token hardly depend on it. */
static bool is_deepseek(const ep_shape *shape)
{
    return shape->hidden == 7168 && shape->top_k == 8 && shape->experts == 256;
}

static void read_low_latency(moe_import_rows *rows, moe_import_candidates *all)
{
    const int time = moe_csv_column(&rows->csv, "combine_avg_t_us");
    ep_shape shape;
    double us;
    while (moe_import_rows_next(rows)) {
        if (!read_shape(&rows->csv, &shape) ||
            !moe_csv_number(&rows->csv, time, false, 0, 1e9, &us))
            continue;
        if (is_deepseek(&shape))
            add_candidate(all, rows, &shape, MOE_ALL_TO_ALL_LOW_LATENCY, low_latency_bytes(&shape),
                          us);
        else
            moe_import_left_out(rows->tally, 1,
                                "DeepEP rows of other shapes than hidden 7168, top-8 of 256");
    }
}

/* The most SMs that any row of the table uses. */
static double most_sms(const moe_import_rows *rows, int column)
{
    moe_import_rows scan = *rows;
    scan.csv.diag = moe_diag_create(NULL, NULL);
    scan.tally = moe_import_tally_create(scan.csv.diag);
    double most = 0, sms;
    while (moe_import_rows_next(&scan)) {
        if (moe_csv_number(&scan.csv, column, true, 0, 4096, &sms) && sms > most)
            most = sms;
    }
    talloc_free(scan.csv.diag);
    return most;
}

static void read_normal(moe_import_rows *rows, moe_import_candidates *all)
{
    const moe_csv *csv = &rows->csv;
    const int column = moe_csv_column(csv, "combine_sms");
    const int transmit = moe_csv_column(csv, "combine_transmit_us");
    const int notify = moe_csv_column(csv, "combine_notify_us");
    const double most = most_sms(rows, column);
    ep_shape shape;
    double sms, sent_us, notified_us;
    while (moe_import_rows_next(rows)) {
        if (!read_shape(csv, &shape) || !moe_csv_number(csv, column, true, 0, 4096, &sms) ||
            !moe_csv_number(csv, transmit, false, 0, 1e9, &sent_us) ||
            !moe_csv_number(csv, notify, false, 0, 1e9, &notified_us))
            continue;
        if (sms < most)
            moe_import_left_out(rows->tally, 1, "DeepEP rows with fewer than %g SMs", most);
        else if (shape.hosts > NORMAL_HOSTS_MAX)
            moe_import_left_out(rows->tally, 1,
                                "DeepEP rows of more than %d hosts (waiting is booked as "
                                "notification)",
                                NORMAL_HOSTS_MAX);
        else if (!is_deepseek(&shape))
            moe_import_left_out(rows->tally, 1,
                                "DeepEP rows of other shapes than hidden 7168, top-8 of 256");
        else
            add_candidate(all, rows, &shape, MOE_ALL_TO_ALL, normal_bytes(&shape),
                          sent_us + notified_us);
    }
}

static bool has_columns(const moe_csv *csv, const char *const *names)
{
    bool all = true;
    for (; *names != NULL; names++) {
        if (moe_csv_column(csv, *names) >= 0)
            continue;
        moe_diag_error(csv->diag, (moe_where){csv->source, 1, 1}, "there is no column %s", *names);
        all = false;
    }
    return all;
}

static bool recognise(const char *text, size_t length)
{
    const char *end = memchr(text, '\n', length);
    const size_t header = end == NULL ? length : (size_t)(end - text);
    static const char *const signs[] = {"combine_avg_t_us", "combine_transmit_us"};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        if (memmem(text, header, signs[i], strlen(signs[i])) != NULL)
            return true;
    }
    return false;
}

static moe_status read_table(moe_samples *samples, const moe_source *source,
                             const moe_import_options *options, moe_import_tally *tally,
                             moe_diag *diag)
{
    static const char *const shape[] = {"node_num", "hidden_size", "num_token",
                                        "num_topk", "num_experts", NULL};
    static const char *const normal[] = {"combine_sms", "combine_transmit_us", "combine_notify_us",
                                         NULL};
    moe_import_rows rows;
    if (!moe_import_rows_open(&rows, source, options, tally, diag) ||
        !has_columns(&rows.csv, shape))
        return MOE_BAD_INPUT;
    const bool low = moe_csv_column(&rows.csv, "combine_avg_t_us") >= 0;
    if (!low && !has_columns(&rows.csv, normal))
        return MOE_BAD_INPUT;
    moe_import_candidates *all = moe_need(talloc_zero(NULL, moe_import_candidates));
    (low ? read_low_latency : read_normal)(&rows, all);
    moe_import_candidates_take(all, samples, options, tally);
    talloc_free(all);
    return MOE_OK;
}

const moe_sample_importer moe_deepep_importer = {
    .name = "deepep",
    .sentence = "DeepEP's combine (bf16), low latency or normal, as AIConfigurator's CSV has it",
    .source = "deepseek-ai/DeepEP (MIT) as ai-dynamo/aiconfigurator (Apache-2.0) ran it",
    .recognises = recognise,
    .read = read_table,
};
