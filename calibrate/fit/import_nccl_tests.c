#include "calibrate/fit/import.h"

#include "calibrate/fit/import_csv.h"
#include "configs/base/decimal.h"
#include "configs/base/memory.h"
#include <ctype.h>
#include <math.h>
#include <string.h>
#include <talloc.h>

enum { WORDS = 24, HOSTS = 1024, LINE_BYTES = 65536 };

/* Bus bandwidth / algorithm bandwidth of n ranks, as nccl-tests defines it. */
typedef enum bus_rule { BUS_TWICE, BUS_ONCE, BUS_EQUAL } bus_rule;

typedef struct test_kind {
    const char *name; /* of the program, without _perf */
    moe_collective_kind kind;
    bus_rule rule;
} test_kind;

static const test_kind tests[] = {
    {"all_reduce", MOE_ALL_REDUCE, BUS_TWICE},
    {"all_gather", MOE_ALL_GATHER, BUS_ONCE},
    {"reduce_scatter", MOE_REDUCE_SCATTER, BUS_ONCE},
    {"alltoall", MOE_ALL_TO_ALL, BUS_ONCE},
    {"broadcast", MOE_BROADCAST, BUS_EQUAL},
    {"sendrecv", MOE_SEND_RECV, BUS_EQUAL},
    {"reduce", MOE_REDUCE, BUS_EQUAL},
};
enum { TESTS = sizeof tests / sizeof *tests };

/* One run: what its header says, and its largest row. */
typedef struct test_run {
    const moe_source *source;
    moe_diag *diag;
    const test_kind *test; /* NULL: not said yet */
    int ranks;             /* lines "# Rank"; 0: none */
    moe_span hosts[HOSTS];
    int host_count;
    int time_column;                     /* of a row; 0: no header of columns yet */
    double largest_bytes, largest_ratio; /* busbw / algbw of the largest row */
    int largest_line;
    size_t first_sample;
} test_run;

typedef struct text_line {
    moe_span text;
    int number;
    bool ended;
    int words;
    moe_span word[WORDS];
} text_line;

static void split_words(text_line *line)
{
    const char *at = line->text.text, *end = at + line->text.length;
    line->words = 0;
    while (line->words < WORDS) {
        while (at < end && isspace((unsigned char)*at))
            at++;
        const char *first = at;
        while (at < end && !isspace((unsigned char)*at))
            at++;
        if (at == first)
            return;
        line->word[line->words++] = (moe_span){first, (size_t)(at - first)};
    }
}

static moe_where word_where(const test_run *run, const text_line *line, int word)
{
    return (moe_where){run->source, line->number,
                       1 + (int)(line->word[word].text - line->text.text)};
}

/* --- the header --------------------------------------------------------------------------------------- */

static bool contains(moe_span text, const char *word)
{
    return memmem(text.text, text.length, word, strlen(word)) != NULL;
}

/* "all_reduce_perf"; of two that fit ("reduce_perf" too), the longest. */
static const test_kind *named_test(moe_span text)
{
    const test_kind *best = NULL;
    for (int i = 0; i < TESTS; i++) {
        char program[64];
        const size_t length = strlen(tests[i].name);
        memcpy(program, tests[i].name, length);
        memcpy(program + length, "_perf", 6);
        if (contains(text, program) && (best == NULL || length > strlen(best->name)))
            best = &tests[i];
    }
    return best;
}

static bool is_host_known(const test_run *run, moe_span host)
{
    for (int i = 0; i < run->host_count; i++) {
        if (run->hosts[i].length == host.length &&
            memcmp(run->hosts[i].text, host.text, host.length) == 0)
            return true;
    }
    return false;
}

/* "#  Rank  0 Group  0 Pid  4242 on  node1 device  0 [0x0f] NVIDIA ..." */
static void read_rank(test_run *run, const text_line *line)
{
    run->ranks++;
    for (int i = 2; i + 1 < line->words; i++) {
        if (!moe_span_is(line->word[i], "on"))
            continue;
        if (run->host_count < HOSTS && !is_host_known(run, line->word[i + 1]))
            run->hosts[run->host_count++] = line->word[i + 1];
        return;
    }
}

/* "#       size         count      type   redop    root     time   algbw   busbw #wrong     time ..." */
static void read_columns(test_run *run, const text_line *line)
{
    for (int i = 2; i < line->words; i++) {
        if (!moe_span_is(line->word[i], "time"))
            continue;
        run->time_column = i - 1;
        return;
    }
}

static void read_comment(test_run *run, const text_line *line)
{
    const test_kind *named = named_test(line->text);
    if (named != NULL)
        run->test = named;
    if (line->words > 2 && moe_span_is(line->word[1], "Rank"))
        read_rank(run, line);
    if (line->words > 4 && moe_span_is(line->word[1], "size") &&
        moe_span_is(line->word[2], "count"))
        read_columns(run, line);
    if (contains(line->text, "(ms)") && run->time_column > 0)
        moe_diag_error(run->diag, (moe_where){run->source, line->number, 1},
                       "the times are in ms; expected us");
}

/* --- rows --------------------------------------------------------------------------------------------- */

static bool read_word(const moe_span word, double *value)
{
    moe_decimal decimal;
    const size_t taken = moe_decimal_scan(word.text, word.length, &decimal);
    return taken > 0 && taken == word.length && decimal.count >= 0 &&
           moe_decimal_to_double(&decimal, 0, value);
}

static bool row_number(const test_run *run, const text_line *line, int word, const char *what,
                       double *value)
{
    if (read_word(line->word[word], value) && *value <= 1e15)
        return true;
    const moe_span found = line->word[word];
    moe_diag_error(run->diag, word_where(run, line, word), "%s is \"%.*s\"; expected a number",
                   what, (int)(found.length > 40 ? 40 : found.length), found.text);
    return false;
}

static bool type_bytes(moe_span type, const char **dtype, double *bytes)
{
    static const struct {
        const char *name, *dtype;
        double bytes;
    } types[] = {{"half", "fp16", 2},    {"bfloat16", "bf16", 2}, {"float", "fp32", 4},
                 {"int8", "int8", 1},    {"uint8", "int8", 1},    {"int32", "int32", 4},
                 {"uint32", "int32", 4}, {"double", "fp64", 8},   {"int64", "int64", 8},
                 {"uint64", "int64", 8}, {"fp8_e4m3", "fp8", 1},  {"f8e4m3", "fp8", 1},
                 {"f8e5m2", "fp8", 1}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!moe_span_is(type, types[i].name))
            continue;
        *dtype = types[i].dtype;
        *bytes = types[i].bytes;
        return true;
    }
    return false;
}

/* busbw / algbw of the largest row says how many ranks there were, and what they did. */
static void remember_ratio(test_run *run, const text_line *line, double bytes)
{
    double algorithm, bus;
    if (bytes < run->largest_bytes || line->words < run->time_column + 3 ||
        !read_word(line->word[run->time_column + 1], &algorithm) ||
        !read_word(line->word[run->time_column + 2], &bus) || algorithm <= 0)
        return;
    run->largest_bytes = bytes;
    run->largest_ratio = bus / algorithm;
    run->largest_line = line->number;
}

static void read_row(test_run *run, const text_line *line, moe_samples *samples,
                     moe_import_tally *tally)
{
    if (line->words < run->time_column + 3) {
        const moe_where at = {run->source, line->number, 1};
        if (line->ended)
            moe_diag_error(run->diag, at, "the row has %d words; expected at least %d", line->words,
                           run->time_column + 3);
        else
            moe_diag_warning(run->diag, at, "the last row has no end: left out");
        return;
    }
    double bytes, count, us, unit;
    moe_sample sample = {.kind = MOE_SAMPLE_COLLECTIVE, .line = line->number, .repetitions = 1};
    if (!row_number(run, line, 0, "the size", &bytes) ||
        !row_number(run, line, 1, "the count", &count))
        return;
    if (!type_bytes(line->word[2], &sample.dtype, &unit)) {
        moe_diag_error(run->diag, word_where(run, line, 2), "unknown type \"%.*s\"",
                       (int)(line->word[2].length > 40 ? 40 : line->word[2].length),
                       line->word[2].text);
        return;
    }
    if (moe_span_is(line->word[run->time_column], "N/A")) {
        moe_import_left_out(tally, 1, "rows without out-of-place time");
        return;
    }
    if (!row_number(run, line, run->time_column, "the time", &us))
        return;
    if (bytes == 0 || us == 0) {
        moe_import_left_out(tally, 1, bytes == 0 ? "rows of 0 bytes" : "rows with a time of 0");
        return;
    }
    remember_ratio(run, line, bytes);
    sample.seconds = us * 1e-6;
    sample.first.bytes = bytes;
    moe_samples_add(samples, &sample);
}

/* --- what a run was ----------------------------------------------------------------------------------- */

static double rule_ratio(bus_rule rule, double ranks)
{
    return rule == BUS_TWICE ? 2 * (ranks - 1) / ranks : rule == BUS_ONCE ? (ranks - 1) / ranks : 1;
}

/* The whole number of ranks whose ratio is nearest; 0: the rule does not tell. */
static int ranks_by_ratio(bus_rule rule, double ratio)
{
    const double part = rule == BUS_TWICE ? 2 - ratio : 1 - ratio;
    if (rule == BUS_EQUAL || part <= 1e-4 || ratio <= 0)
        return 0;
    return (int)lround((rule == BUS_TWICE ? 2 : 1) / part);
}

/* Without a program's name in text or file name, only the all-reduce is told by its ratio (above 1). */
static const test_kind *find_test(const test_run *run)
{
    const char *name = strrchr(run->source->name, '/');
    name = name == NULL ? run->source->name : name + 1;
    if (run->test != NULL)
        return run->test;
    const test_kind *best = NULL;
    for (int i = 0; i < TESTS; i++) {
        if (strstr(name, tests[i].name) != NULL &&
            (best == NULL || strlen(tests[i].name) > strlen(best->name)))
            best = &tests[i];
    }
    return best == NULL && run->largest_ratio > 1.01 ? &tests[0] : best;
}

static void check_ratio(const test_run *run, const test_kind *test, int ranks)
{
    const double expected = rule_ratio(test->rule, ranks);
    if (run->largest_ratio == 0 || fabs(run->largest_ratio / expected - 1) < 0.02)
        return;
    moe_diag_warning(run->diag, (moe_where){run->source, run->largest_line, 1},
                     "busbw / algbw is %.3f; %s of %d ranks has %.3f, so the run is not what its "
                     "header says",
                     run->largest_ratio, test->name, ranks, expected);
}

static bool finish_run(test_run *run, moe_samples *samples)
{
    if (samples->count == run->first_sample)
        return true;
    const test_kind *test = find_test(run);
    const moe_where at = {run->source, 0, 0};
    if (test == NULL) {
        moe_diag_error(run->diag, at,
                       "the text does not say which test it is; expected the name of the program "
                       "(alltoall_perf, ...) in it, or in the name of the file");
        return false;
    }
    const int ranks = run->ranks > 0 ? run->ranks : ranks_by_ratio(test->rule, run->largest_ratio);
    if (ranks < 2 || ranks > 65536) {
        moe_diag_error(run->diag, at,
                       "the number of ranks is not said, and busbw / algbw does not tell it; "
                       "expected the lines \"# Rank\" of the output");
        return false;
    }
    check_ratio(run, test, ranks);
    for (size_t i = run->first_sample; i < samples->count; i++) {
        samples->items[i].ranks = ranks;
        samples->items[i].hosts = run->host_count > 0 ? run->host_count : 1;
        samples->items[i].first.collective = test->kind;
    }
    return true;
}

/* --- the file ----------------------------------------------------------------------------------------- */

static bool next_line(const moe_source *source, size_t *at, text_line *line)
{
    if (*at >= source->length)
        return false;
    const char *text = source->text + *at;
    const size_t left = source->length - *at;
    const char *end = memchr(text, '\n', left);
    const size_t length = end == NULL ? left : (size_t)(end - text);
    *at += length + (end != NULL);
    line->text = (moe_span){text, length};
    line->number++;
    line->ended = end != NULL;
    return true;
}

static void read_line(test_run *run, text_line *line, moe_samples *samples, moe_import_tally *tally)
{
    if (line->text.length > LINE_BYTES) {
        moe_diag_error(run->diag, (moe_where){run->source, line->number, 1},
                       "the line has %zu bytes; expected at most %d", line->text.length,
                       LINE_BYTES);
        return;
    }
    split_words(line);
    if (line->words == 0)
        return;
    const unsigned char first = (unsigned char)*line->word[0].text;
    if (first == '#')
        read_comment(run, line);
    else if (isdigit(first) && run->time_column > 0)
        read_row(run, line, samples, tally);
    else if (named_test(line->text) != NULL && run->test == NULL)
        run->test = named_test(line->text); /* the command, pasted above its output */
}

/* Rows of other dtypes are left out; those that are no dtype of a profile stay by their bytes alone. */
static void keep_dtype(moe_samples *samples, size_t first, const moe_import_options *options,
                       moe_import_tally *tally)
{
    size_t kept = first;
    for (size_t i = first; i < samples->count; i++) {
        if (options->dtype == NULL || strcmp(options->dtype, samples->items[i].dtype) == 0 ||
            strcmp(options->dtype, "bf16") == 0)
            samples->items[kept++] = samples->items[i];
    }
    moe_import_left_out(tally, samples->count - kept, "nccl-tests rows of other dtypes");
    samples->count = kept;
}

static moe_status read_text(moe_samples *samples, const moe_source *source,
                            const moe_import_options *options, moe_import_tally *tally,
                            moe_diag *diag)
{
    test_run *run = moe_need(talloc_zero(NULL, test_run));
    *run = (test_run){.source = source, .diag = diag, .first_sample = samples->count};
    const int errors = moe_diag_error_count(diag);
    const size_t first = samples->count;
    text_line line = {.number = 0};
    for (size_t at = 0; next_line(source, &at, &line);)
        read_line(run, &line, samples, tally);
    if (samples->count == first && moe_diag_error_count(diag) == errors)
        moe_diag_error(diag, (moe_where){source, 0, 0}, "the output has no row with a time");
    const bool fine = moe_diag_error_count(diag) == errors && finish_run(run, samples);
    if (fine)
        keep_dtype(samples, first, options, tally);
    else
        samples->count = first;
    talloc_free(run);
    return fine ? MOE_OK : MOE_BAD_INPUT;
}

static bool recognise(const char *text, size_t length)
{
    static const char *const signs[] = {"# nThread", "out-of-place", "#wrong", "redop"};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        if (memmem(text, length, signs[i], strlen(signs[i])) != NULL)
            return true;
    }
    return false;
}

const moe_sample_importer moe_nccl_tests_importer = {
    .name = "nccl-tests",
    .sentence = "text output of nccl-tests (all_reduce_perf, alltoall_perf, ...), out of place",
    .source = NULL,
    .recognises = recognise,
    .read = read_text,
};
