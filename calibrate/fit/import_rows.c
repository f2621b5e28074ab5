#include "calibrate/fit/import_rows.h"

#include "configs/base/memory.h"
#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { SIGNATURES = 256 };

/* --- devices and copies ------------------------------------------------------------------------------- */

/* All rows of a device and version, as a sum of the hashes of what they say. */
typedef struct signature {
    moe_span gpu, version;
    size_t rows;
    uint64_t sum;
} signature;

typedef struct signatures {
    signature items[SIGNATURES];
    int count;
} signatures;

static bool spans_equal(moe_span a, moe_span b)
{
    return a.length == b.length && memcmp(a.text, b.text, a.length) == 0;
}

static uint64_t hash_row(const moe_import_rows *rows)
{
    const int device = moe_csv_column(&rows->csv, "device");
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (int i = 0; i < rows->csv.columns; i++) {
        if (i == rows->gpu || i == device)
            continue;
        for (size_t j = 0; j <= rows->csv.fields[i].length; j++) {
            const bool end = j == rows->csv.fields[i].length;
            hash ^= end ? ',' : (unsigned char)rows->csv.fields[i].text[j];
            hash *= 1099511628211u;
        }
    }
    return hash;
}

static void sign_row(signatures *all, const moe_import_rows *rows)
{
    const moe_span none = {"", 0};
    const moe_span gpu = rows->csv.fields[rows->gpu];
    const moe_span version = rows->version < 0 ? none : rows->csv.fields[rows->version];
    int i = 0;
    while (i < all->count &&
           !(spans_equal(all->items[i].gpu, gpu) && spans_equal(all->items[i].version, version)))
        i++;
    if (i == SIGNATURES)
        return;
    if (i == all->count)
        all->items[all->count++] = (signature){gpu, version, 0, 0};
    all->items[i].rows++;
    all->items[i].sum += hash_row(rows);
}

static void warn_of_copies(const signatures *all, const moe_import_rows *rows)
{
    for (int i = 0; i < all->count; i++) {
        const signature *own = &all->items[i];
        for (int j = 0; j < all->count && spans_equal(own->gpu, rows->device); j++) {
            const signature *other = &all->items[j];
            if (spans_equal(other->gpu, own->gpu) || !spans_equal(other->version, own->version) ||
                other->rows != own->rows || other->sum != own->sum)
                continue;
            moe_diag_warning(rows->csv.diag, (moe_where){rows->csv.source, 0, 0},
                             "all %zu rows of %.*s, version %.*s, are those of %.*s too: one "
                             "measurement published twice",
                             own->rows, (int)own->gpu.length, own->gpu.text,
                             (int)own->version.length, own->version.text, (int)other->gpu.length,
                             other->gpu.text);
        }
    }
}

/* The names of the devices, for a message. */
static char *list_devices(void *owner, const signatures *all)
{
    char *list = moe_need(talloc_strdup(owner, ""));
    for (int i = 0; i < all->count; i++) {
        bool seen = false;
        for (int j = 0; j < i; j++)
            seen = seen || spans_equal(all->items[i].gpu, all->items[j].gpu);
        if (!seen)
            list = moe_need(talloc_asprintf_append(list, "%s%.*s", i == 0 ? "" : ", ",
                                                   (int)all->items[i].gpu.length,
                                                   all->items[i].gpu.text));
    }
    return list;
}

static bool pick_device(moe_import_rows *rows, const signatures *all, moe_diag *diag)
{
    const char *wanted = rows->options->device;
    const moe_where at = {rows->csv.source, 1, 1};
    bool several = false, found = false;
    for (int i = 0; i < all->count; i++) {
        several = several || !spans_equal(all->items[i].gpu, all->items[0].gpu);
        if (wanted == NULL || moe_span_is(all->items[i].gpu, wanted)) {
            rows->device = all->items[i].gpu;
            found = true;
        }
    }
    if (found && (wanted != NULL || !several))
        return true;
    char *list = list_devices(NULL, all);
    if (wanted == NULL)
        moe_diag_error(diag, at, "the table is of %s; expected --device with one of them",
                       all->count == 0 ? "no device" : list);
    else
        moe_diag_error(diag, at, "no row is of device \"%s\"; the table has %s", wanted, list);
    talloc_free(list);
    return false;
}

/* A table without device column: its file may be called <device>__<library>.csv. */
static bool check_name(const moe_import_rows *rows, moe_diag *diag)
{
    const char *name = rows->csv.source->name;
    const char *base = strrchr(name, '/') == NULL ? name : strrchr(name, '/') + 1;
    const char *end = strstr(base, "__");
    const char *wanted = rows->options->device;
    if (end == NULL || wanted == NULL ||
        moe_span_is((moe_span){base, (size_t)(end - base)}, wanted))
        return true;
    moe_diag_error(diag, (moe_where){rows->csv.source, 0, 0},
                   "by its name, the table is of device \"%.*s\"; expected \"%s\"",
                   (int)(end - base), base, wanted);
    return false;
}

bool moe_import_rows_open(moe_import_rows *rows, const moe_source *source,
                          const moe_import_options *options, moe_import_tally *tally,
                          moe_diag *diag)
{
    *rows = (moe_import_rows){.options = options, .tally = tally};
    if (!moe_csv_open(&rows->csv, source, diag))
        return false;
    rows->gpu = moe_csv_column(&rows->csv, "gpu");
    rows->version = moe_csv_column(&rows->csv, "src_ver");
    if (rows->version < 0)
        rows->version = moe_csv_column(&rows->csv, "version");
    if (rows->gpu < 0)
        return check_name(rows, diag);

    signatures *all = moe_need(talloc_zero(NULL, signatures));
    moe_import_rows scan = *rows;
    scan.csv.diag = moe_diag_create(all, NULL); /* errors of rows are told by the reading to come */
    while (moe_csv_next(&scan.csv))
        sign_row(all, &scan);
    const bool fine = pick_device(rows, all, diag);
    if (fine)
        warn_of_copies(all, rows);
    talloc_free(all);
    return fine;
}

bool moe_import_rows_next(moe_import_rows *rows)
{
    while (moe_csv_next(&rows->csv)) {
        if (rows->gpu < 0 || spans_equal(rows->csv.fields[rows->gpu], rows->device))
            return true;
        moe_import_left_out(rows->tally, 1, "other devices");
    }
    return false;
}

/* --- dtypes ------------------------------------------------------------------------------------------- */

const char *moe_import_dtype(moe_span name)
{
    static const char *const names[][2] = {
        {"half", "fp16"}, {"float16", "fp16"}, {"fp16", "fp16"},           {"bfloat16", "bf16"},
        {"bf16", "bf16"}, {"float", "fp32"},   {"float32", "fp32"},        {"fp8", "fp8"},
        {"int8", "int8"}, {"uint8", "int8"},   {"fp8_block", "fp8_block"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (moe_span_is(name, names[i][0]))
            return names[i][1];
    }
    return NULL;
}

bool moe_import_wants(const moe_import_options *options, const char *dtype)
{
    if (dtype == NULL)
        return false;
    if (options->dtype != NULL)
        return strcmp(options->dtype, dtype) == 0;
    return strcmp(dtype, "fp16") == 0 || strcmp(dtype, "bf16") == 0;
}

/* --- versions ----------------------------------------------------------------------------------------- */

/* "2.29.2" after "2.27.3": numbers by value, the rest by character. */
static int compare_versions(moe_span a, moe_span b)
{
    size_t i = 0, j = 0;
    while (i < a.length && j < b.length) {
        uint64_t x = 0, y = 0;
        const bool digits = isdigit((unsigned char)a.text[i]) && isdigit((unsigned char)b.text[j]);
        if (!digits) {
            x = (unsigned char)a.text[i++];
            y = (unsigned char)b.text[j++];
        }
        for (; digits && i < a.length && isdigit((unsigned char)a.text[i]); i++)
            x = x * 10 + (uint64_t)(a.text[i] - '0');
        for (; digits && j < b.length && isdigit((unsigned char)b.text[j]); j++)
            y = y * 10 + (uint64_t)(b.text[j] - '0');
        if (x != y)
            return x < y ? -1 : 1;
    }
    return (i < a.length) - (j < b.length);
}

void moe_import_candidates_add(moe_import_candidates *all, moe_import_candidate item)
{
    if (talloc_array_length(all->items) == all->count)
        all->items = moe_need(
            talloc_realloc(all, all->items, moe_import_candidate, 2 * (unsigned)all->count + 64));
    all->items[all->count++] = item;
}

/* Of a stretch of candidates. */
static moe_span wanted_version(const moe_import_candidate *items, size_t count,
                               const moe_import_options *options)
{
    moe_span newest = items[0].version;
    for (size_t i = 0; i < count; i++) {
        if (options->version != NULL && moe_span_is(items[i].version, options->version))
            return items[i].version;
        if (compare_versions(items[i].version, newest) > 0)
            newest = items[i].version;
    }
    return newest;
}

static int order_groups(const void *left, const void *right)
{
    const moe_import_candidate *a = left, *b = right;
    return (a->group > b->group) - (a->group < b->group);
}

static int order_samples(const void *left, const void *right)
{
    const moe_sample *a = *(const moe_sample *const *)left, *b = *(const moe_sample *const *)right;
    const double x[] = {a->ranks, a->hosts, a->first.collective, a->first.bytes, a->seconds};
    const double y[] = {b->ranks, b->hosts, b->first.collective, b->first.bytes, b->seconds};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) {
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    }
    return 0;
}

static void note_version(moe_import_tally *tally, moe_span version)
{
    const size_t length = version.length > 40 ? 40 : version.length;
    if (length == 0)
        return;
    if (tally->versions == NULL)
        tally->versions = moe_need(talloc_strndup(tally, version.text, length));
    else if (memmem(tally->versions, strlen(tally->versions), version.text, length) == NULL)
        tally->versions =
            moe_need(talloc_asprintf_append(tally->versions, ", %.*s", (int)length, version.text));
}

/* Writes the candidates of the wanted versions to `taken`; returns their number. */
static size_t pick_versions(moe_import_candidates *all, const moe_import_options *options,
                            moe_import_tally *tally, const moe_sample **taken)
{
    size_t count = 0;
    if (all->count > 0)
        qsort(all->items, all->count, sizeof *all->items, order_groups);
    for (size_t first = 0, end; first < all->count; first = end) {
        for (end = first + 1; end < all->count && all->items[end].group == all->items[first].group;)
            end++;
        const moe_span version = wanted_version(all->items + first, end - first, options);
        note_version(tally, version);
        for (size_t i = first; i < end; i++) {
            if (spans_equal(all->items[i].version, version))
                taken[count++] = &all->items[i].sample;
        }
    }
    return count;
}

void moe_import_candidates_take(moe_import_candidates *all, moe_samples *samples,
                                const moe_import_options *options, moe_import_tally *tally)
{
    const moe_sample **taken =
        moe_need(talloc_array(NULL, const moe_sample *, (unsigned)all->count + 1));
    const size_t count = pick_versions(all, options, tally, taken);
    size_t copies = 0;
    qsort(taken, count, sizeof *taken, order_samples);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && order_samples(&taken[i - 1], &taken[i]) == 0)
            copies++;
        else
            moe_samples_add(samples, taken[i]);
    }
    moe_import_left_out(tally, all->count - count, "other versions");
    moe_import_left_out(tally, copies, "copies of a row before");
    talloc_free(taken);
}
