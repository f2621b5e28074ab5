#include "calibrate/fit/import_rows.h"

#include "configs/base/memory.h"
#include <math.h>
#include <string.h>
#include <talloc.h>

enum { KERNELS = 64, EXPERTS_MAX = 4096 };

static const double largest_size = 1e15; /* elements, bytes: beyond all memories */
static const double largest_side = 1e8;  /* of a matrix */
static const double longest_s = 1e5;

typedef struct table_kind {
    const char *columns[10]; /* that it has, NULL-terminated; the first is its dtype */
    moe_status (*read)(moe_samples *samples, moe_import_rows *rows);
} table_kind;

/* --- what tables share -------------------------------------------------------------------------------- */

/* Column and unit of the time: the project's extracts say latency_us, the published tables latency, in ms. */
typedef struct time_column {
    int column;
    double unit_s;
} time_column;

static time_column find_time(const moe_csv *csv)
{
    const int us = moe_csv_column(csv, "latency_us");
    return us >= 0 ? (time_column){us, 1e-6} : (time_column){moe_csv_column(csv, "latency"), 1e-3};
}

/* False after a printed error or, time 0, a counted row. */
static bool read_time(moe_import_rows *rows, time_column time, double *seconds)
{
    if (!moe_csv_number(&rows->csv, time.column, false, 0, longest_s / time.unit_s, seconds))
        return false;
    *seconds *= time.unit_s;
    if (*seconds > 0)
        return true;
    moe_import_left_out(rows->tally, 1, "rows with a time of 0");
    return false;
}

/* How many rows each kernel has among those that are wanted: a table may mix several. */
typedef struct kernel_counts {
    moe_span names[KERNELS];
    size_t rows[KERNELS];
    int count;
} kernel_counts;

static void count_kernel(kernel_counts *counts, moe_span name)
{
    int i = 0;
    while (i < counts->count && (counts->names[i].length != name.length ||
                                 memcmp(counts->names[i].text, name.text, name.length) != 0))
        i++;
    if (i == KERNELS)
        return;
    if (i == counts->count)
        counts->names[counts->count++] = name;
    counts->rows[i]++;
}

/* The one with most rows; a row of another is left out. Empty: the table does not name kernels. */
static moe_span most_frequent(const kernel_counts *counts, moe_import_rows *rows)
{
    int best = 0;
    for (int i = 1; i < counts->count; i++)
        best = counts->rows[i] > counts->rows[best] ? i : best;
    for (int i = 0; i < counts->count; i++) {
        if (i != best)
            moe_import_left_out(rows->tally, counts->rows[i],
                                "rows of kernel %.*s (the profile has one kernel: %.*s)",
                                (int)counts->names[i].length, counts->names[i].text,
                                (int)counts->names[best].length, counts->names[best].text);
    }
    return counts->count == 0 ? (moe_span){"", 0} : counts->names[best];
}

static bool kernel_is(const moe_import_rows *rows, int column, moe_span kernel)
{
    const moe_span name = column < 0 ? kernel : rows->csv.fields[column];
    return name.length == kernel.length && memcmp(name.text, kernel.text, name.length) == 0;
}

/* Whether a row has the wanted dtype (and, column `balanced` >= 0, is of balanced routing). */
static bool row_is_wanted(const moe_import_rows *rows, int dtype, int distribution,
                          const char **name)
{
    *name = moe_import_dtype(rows->csv.fields[dtype]);
    return moe_import_wants(rows->options, *name) &&
           (distribution < 0 || moe_span_is(rows->csv.fields[distribution], "balanced"));
}

static moe_span choose_kernel(moe_import_rows *rows, int dtype, int distribution, int kernel)
{
    kernel_counts counts = {.count = 0};
    moe_import_rows scan = *rows;
    scan.csv.diag = moe_diag_create(NULL, NULL); /* the reading to come tells of errors */
    scan.tally = moe_import_tally_create(scan.csv.diag);
    const char *name;
    while (kernel >= 0 && moe_import_rows_next(&scan)) {
        if (row_is_wanted(&scan, dtype, distribution, &name))
            count_kernel(&counts, scan.csv.fields[kernel]);
    }
    talloc_free(scan.csv.diag);
    return most_frequent(&counts, rows);
}

/* Rows whose power stands at the limit: real, but the clock was not free. */
static void warn_of_power(const moe_import_rows *rows, size_t capped, size_t all)
{
    if (capped > 0)
        moe_diag_warning(rows->csv.diag, (moe_where){rows->csv.source, 0, 0},
                         "%zu of %zu points were taken at the power limit, with the clock held "
                         "down: kept, as training runs there too",
                         capped, all);
}

static bool is_capped(const moe_import_rows *rows)
{
    const int power = moe_csv_column(&rows->csv, "power");
    const int limit = moe_csv_column(&rows->csv, "power_limit");
    double watts, most;
    return power >= 0 && limit >= 0 && rows->csv.fields[power].length > 0 &&
           rows->csv.fields[limit].length > 0 &&
           moe_csv_number(&rows->csv, power, false, 0, 1e6, &watts) &&
           moe_csv_number(&rows->csv, limit, false, 0, 1e6, &most) && most > 0 &&
           watts >= 0.985 * most;
}

/* --- nccl --------------------------------------------------------------------------------------------- */

static bool find_collective(moe_span name, moe_collective_kind *kind)
{
    static const struct {
        const char *name;
        moe_collective_kind kind;
    } names[] = {
        {"all_gather", MOE_ALL_GATHER}, {"all_reduce", MOE_ALL_REDUCE},
        {"alltoall", MOE_ALL_TO_ALL},   {"reduce_scatter", MOE_REDUCE_SCATTER},
        {"broadcast", MOE_BROADCAST},   {"reduce", MOE_REDUCE},
        {"sendrecv", MOE_SEND_RECV},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *kind = names[i].kind;
        if (moe_span_is(name, names[i].name))
            return true;
    }
    return false;
}

/* NCCL knows no fp8: bytes are bytes, and the half rows serve. */
static bool wants_nccl(const moe_import_options *options, const char *dtype)
{
    const bool bytes = options->dtype != NULL && strcmp(options->dtype, "int8") == 0;
    return dtype != NULL && strcmp(dtype, bytes ? "int8" : "fp16") == 0;
}

static bool read_collective(moe_import_rows *rows, moe_sample *sample)
{
    const moe_csv *csv = &rows->csv;
    const int op = moe_csv_column(csv, "op_name");
    double ranks, elements;
    if (!find_collective(csv->fields[op], &sample->first.collective)) {
        moe_import_left_out(rows->tally, 1, "rows of operation %.*s",
                            (int)(csv->fields[op].length > 40 ? 40 : csv->fields[op].length),
                            csv->fields[op].text);
        return false;
    }
    if (!moe_csv_number(csv, moe_csv_column(csv, "num_gpus"), true, 2, 65536, &ranks) ||
        !moe_csv_number(csv, moe_csv_column(csv, "message_size"), true, 1, largest_size,
                        &elements) ||
        !read_time(rows, find_time(csv), &sample->seconds))
        return false;
    sample->ranks = (int)ranks;
    sample->first.bytes = elements * moe_sample_dtype_bytes(sample->dtype);
    return true;
}

static moe_status read_nccl(moe_samples *samples, moe_import_rows *rows)
{
    const int dtype = moe_csv_column(&rows->csv, "nccl_dtype");
    moe_import_candidates *all = moe_need(talloc_zero(NULL, moe_import_candidates));
    size_t others = 0;
    while (moe_import_rows_next(rows)) {
        const char *name = moe_import_dtype(rows->csv.fields[dtype]);
        if (!wants_nccl(rows->options, name)) {
            others++;
            continue;
        }
        moe_sample sample = {.kind = MOE_SAMPLE_COLLECTIVE,
                             .line = rows->csv.line,
                             .dtype = name,
                             .hosts = 1,
                             .repetitions = 1};
        const moe_span none = {"", 0};
        if (read_collective(rows, &sample))
            moe_import_candidates_add(
                all, (moe_import_candidate){
                         sample, rows->version < 0 ? none : rows->csv.fields[rows->version],
                         sample.ranks});
    }
    moe_import_left_out(rows->tally, others, "NCCL rows of other dtypes");
    moe_import_candidates_take(all, samples, rows->options, rows->tally);
    talloc_free(all);
    return MOE_OK;
}

/* --- gemm --------------------------------------------------------------------------------------------- */

static bool read_sides(const moe_csv *csv, moe_sample *sample)
{
    return moe_csv_number(csv, moe_csv_column(csv, "m"), true, 1, largest_side, &sample->m) &&
           moe_csv_number(csv, moe_csv_column(csv, "n"), true, 1, largest_side, &sample->n) &&
           moe_csv_number(csv, moe_csv_column(csv, "k"), true, 1, largest_side, &sample->k);
}

static moe_status read_gemm(moe_samples *samples, moe_import_rows *rows)
{
    const int dtype = moe_csv_column(&rows->csv, "gemm_dtype");
    const int kernel = moe_csv_column(&rows->csv, "kernel_source");
    const moe_span chosen = choose_kernel(rows, dtype, -1, kernel);
    size_t others = 0, capped = 0, added = 0;
    const char *name;
    while (moe_import_rows_next(rows)) {
        if (!row_is_wanted(rows, dtype, -1, &name)) {
            others++;
            continue;
        }
        moe_sample sample = {.kind = MOE_SAMPLE_GEMM,
                             .line = rows->csv.line,
                             .dtype = name,
                             .ranks = 1,
                             .hosts = 1,
                             .repetitions = 1};
        if (!kernel_is(rows, kernel, chosen) || !read_sides(&rows->csv, &sample) ||
            !read_time(rows, find_time(&rows->csv), &sample.seconds))
            continue;
        capped += is_capped(rows);
        added++;
        moe_samples_add(samples, &sample);
    }
    moe_import_left_out(rows->tally, others, "GEMM rows of other dtypes");
    warn_of_power(rows, capped, added);
    return MOE_OK;
}

/* --- moe ---------------------------------------------------------------------------------------------- */

typedef struct routing {
    double tokens, top_k, experts, tensor, expert; /* the last two: degrees of parallelism */
} routing;

/* Adds `by` to rows[first .. first + count) of a ring of `experts`, as differences. */
static void add_run(double *difference, int experts, int first, int count, double by)
{
    const int end = first + count;
    difference[first] += by;
    difference[end > experts ? experts : end] -= by;
    if (end > experts) {
        difference[0] += by;
        difference[end - experts] -= by;
    }
}

/* Rows of each expert under balanced routing (import.h); `rows[experts + 1]` is zero before. */
static void balance(const routing *given, double *rows)
{
    const int experts = (int)given->experts, slots = (int)given->top_k;
    const int64_t tokens = (int64_t)given->tokens;
    const int stride = (experts + slots - 1) / slots;
    for (int slot = 0; slot < slots; slot++) {
        const int first = slot * stride % experts;
        if (tokens >= stride) {
            add_run(rows, experts, 0, experts, (double)(tokens / experts));
            add_run(rows, experts, first, (int)(tokens % experts), 1);
            continue;
        }
        for (int64_t token = 0; token < tokens; token++)
            add_run(rows, experts, (first + (int)(token * stride / tokens)) % experts, 1, 1);
    }
    for (int i = 1; i < experts; i++)
        rows[i] += rows[i - 1];
}

static bool read_routing(const moe_csv *csv, routing *given)
{
    return moe_csv_number(csv, moe_csv_column(csv, "num_tokens"), true, 1, 1e8, &given->tokens) &&
           moe_csv_number(csv, moe_csv_column(csv, "topk"), true, 1, EXPERTS_MAX, &given->top_k) &&
           moe_csv_number(csv, moe_csv_column(csv, "num_experts"), true, 1, EXPERTS_MAX,
                          &given->experts) &&
           moe_csv_number(csv, moe_csv_column(csv, "moe_tp_size"), true, 1, EXPERTS_MAX,
                          &given->tensor) &&
           moe_csv_number(csv, moe_csv_column(csv, "moe_ep_size"), true, 1, EXPERTS_MAX,
                          &given->expert);
}

static bool check_routing(const moe_csv *csv, const routing *given, double ffn)
{
    if (given->top_k <= given->experts && fmod(given->experts, given->expert) == 0 &&
        fmod(ffn, given->tensor) == 0)
        return true;
    moe_diag_error(csv->diag, moe_csv_where(csv, moe_csv_column(csv, "num_experts")),
                   "top-%g of %g experts over %g devices, inner size %g over %g; expected no more "
                   "than all experts, and sizes that divide",
                   given->top_k, given->experts, given->expert, ffn, given->tensor);
    return false;
}

static bool read_experts(moe_import_rows *rows, moe_sample *sample, double *balanced)
{
    const moe_csv *csv = &rows->csv;
    routing given;
    double hidden, ffn;
    if (!read_routing(csv, &given) ||
        !moe_csv_number(csv, moe_csv_column(csv, "hidden_size"), true, 1, largest_side, &hidden) ||
        !moe_csv_number(csv, moe_csv_column(csv, "inter_size"), true, 1, largest_side, &ffn) ||
        !check_routing(csv, &given, ffn) || !read_time(rows, find_time(csv), &sample->seconds))
        return false;
    memset(balanced, 0, (EXPERTS_MAX + 1) * sizeof *balanced);
    balance(&given, balanced);
    sample->hidden = hidden;
    sample->ffn = ffn / given.tensor;
    sample->experts = (int)(given.experts / given.expert);
    sample->rows = balanced;
    sample->m = given.tensor; /* what cut it, for moe_import_divide */
    return true;
}

static bool is_gated(moe_span kernel)
{
    return memmem(kernel.text, kernel.length, "nongated", strlen("nongated")) == NULL;
}

static moe_status read_moe(moe_samples *samples, moe_import_rows *rows)
{
    const int dtype = moe_csv_column(&rows->csv, "moe_dtype");
    const int distribution = moe_csv_column(&rows->csv, "distribution");
    const int kernel = moe_csv_column(&rows->csv, "kernel_source");
    const moe_span chosen = choose_kernel(rows, dtype, distribution, kernel);
    double *balanced = moe_need(talloc_array(NULL, double, EXPERTS_MAX + 1));
    const int devices = moe_csv_column(&rows->csv, "moe_ep_size");
    size_t dtypes = 0, skewed = 0, spread = 0, capped = 0, added = 0;
    const char *name;
    while (moe_import_rows_next(rows)) {
        if (!row_is_wanted(rows, dtype, distribution, &name)) {
            const bool wanted = moe_import_wants(rows->options, name);
            skewed += wanted;
            dtypes += !wanted;
            continue;
        }
        moe_sample sample = {.kind = MOE_SAMPLE_EXPERTS,
                             .line = rows->csv.line,
                             .dtype = name,
                             .ranks = 1,
                             .hosts = 1,
                             .repetitions = 1,
                             .phase = MOE_SERVING,
                             .gated = is_gated(chosen)};
        if (!kernel_is(rows, kernel, chosen) || !read_experts(rows, &sample, balanced))
            continue;
        if (!moe_span_is(rows->csv.fields[devices], "1")) {
            spread++; /* read all the same: what is wrong in such a row is told */
            continue;
        }
        capped += is_capped(rows);
        added++;
        moe_samples_add(samples, &sample);
    }
    moe_import_left_out(rows->tally, dtypes, "MoE rows of other dtypes");
    moe_import_left_out(rows->tally, skewed, "MoE rows with counts that are not published");
    moe_import_left_out(
        rows->tally, spread,
        "MoE rows under expert parallelism (which tokens the device computes is not "
        "published)");
    warn_of_power(rows, capped, added);
    talloc_free(balanced);
    return MOE_OK;
}

/* --- all ---------------------------------------------------------------------------------------------- */

static const table_kind kinds[] = {
    {{"nccl_dtype", "op_name", "num_gpus", "message_size", NULL}, read_nccl},
    {{"gemm_dtype", "m", "n", "k", NULL}, read_gemm},
    {{"moe_dtype", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size",
      "moe_ep_size", "distribution", NULL},
     read_moe},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static bool recognise(const char *text, size_t length)
{
    const char *end = memchr(text, '\n', length);
    const size_t header = end == NULL ? length : (size_t)(end - text);
    for (int i = 0; i < KINDS; i++) {
        const char *dtype = kinds[i].columns[0];
        if (memmem(text, header, dtype, strlen(dtype)) != NULL)
            return true;
    }
    return false;
}

static const table_kind *find_kind(const moe_csv *csv)
{
    for (int i = 0; i < KINDS; i++) {
        if (moe_csv_column(csv, kinds[i].columns[0]) >= 0)
            return &kinds[i];
    }
    return NULL;
}

static bool check_columns(const moe_csv *csv, const table_kind *kind)
{
    const moe_where header = {csv->source, 1, 1};
    bool fine = kind != NULL;
    if (kind == NULL)
        moe_diag_error(csv->diag, header, "no column nccl_dtype, gemm_dtype or moe_dtype");
    for (size_t i = 0; kind != NULL && kind->columns[i] != NULL; i++) {
        if (moe_csv_column(csv, kind->columns[i]) >= 0)
            continue;
        moe_diag_error(csv->diag, header, "there is no column %s", kind->columns[i]);
        fine = false;
    }
    if (find_time(csv).column >= 0)
        return fine;
    moe_diag_error(csv->diag, header, "there is no column latency_us, or latency in ms");
    return false;
}

static moe_status read_table(moe_samples *samples, const moe_source *source,
                             const moe_import_options *options, moe_import_tally *tally,
                             moe_diag *diag)
{
    moe_import_rows rows;
    if (!moe_import_rows_open(&rows, source, options, tally, diag))
        return MOE_BAD_INPUT;
    const table_kind *kind = find_kind(&rows.csv);
    return check_columns(&rows.csv, kind) ? kind->read(samples, &rows) : MOE_BAD_INPUT;
}

const moe_sample_importer moe_aiconfigurator_importer = {
    .name = "aiconfigurator",
    .sentence = "tables nccl, gemm and moe of ai-dynamo/aiconfigurator, as CSV",
    .source = "ai-dynamo/aiconfigurator, Apache-2.0",
    .recognises = recognise,
    .read = read_table,
};
