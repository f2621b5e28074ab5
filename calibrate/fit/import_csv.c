#include "calibrate/fit/import_csv.h"

#include "configs/base/decimal.h"
#include <math.h>
#include <string.h>

static int characters_before(const char *text, const char *end)
{
    int count = 0;
    for (; text < end; text++)
        count += ((unsigned char)*text & 0xC0) != 0x80;
    return count;
}

static moe_where where_at(const moe_csv *csv, const char *at)
{
    const int column = 1 + characters_before(csv->source->text + csv->start, at);
    return (moe_where){csv->source, csv->line, column};
}

moe_where moe_csv_where(const moe_csv *csv, int column)
{
    return where_at(csv, csv->fields[column].text);
}

/* The next line that is not empty, without its end; *ended: it has one. */
static bool next_line(moe_csv *csv, moe_span *line, bool *ended)
{
    while (csv->at < csv->source->length) {
        const char *text = csv->source->text + csv->at;
        const size_t left = csv->source->length - csv->at;
        const char *end = memchr(text, '\n', left);
        *ended = end != NULL;
        size_t length = end == NULL ? left : (size_t)(end - text);
        csv->start = csv->at;
        csv->at += length + (end != NULL);
        csv->line++;
        if (length > 0 && text[length - 1] == '\r')
            length--;
        *line = (moe_span){text, length};
        if (length > 0)
            return true;
    }
    return false;
}

/* The number of fields; -1 after a printed error. */
static int split(moe_csv *csv, moe_span line, moe_span *fields)
{
    int count = 0;
    const char *end = line.text + line.length;
    for (const char *text = line.text;; text++) {
        if (count == MOE_CSV_COLUMNS) {
            moe_diag_error(csv->diag, where_at(csv, text), "more than %d columns", MOE_CSV_COLUMNS);
            return -1;
        }
        const char *comma = memchr(text, ',', (size_t)(end - text));
        const char *stop = comma == NULL ? end : comma;
        fields[count++] = (moe_span){text, (size_t)(stop - text)};
        if (text < stop && *text == '"') {
            moe_diag_error(csv->diag, where_at(csv, text), "found a quote; expected a plain field");
            return -1;
        }
        if (comma == NULL)
            return count;
        text = comma;
    }
}

static bool check_line(const moe_csv *csv, moe_span line)
{
    if (line.length > MOE_CSV_LINE) {
        moe_diag_error(csv->diag, where_at(csv, line.text),
                       "the line has %zu bytes; expected at most %d", line.length, MOE_CSV_LINE);
        return false;
    }
    const char *zero = memchr(line.text, '\0', line.length);
    if (zero == NULL)
        return true;
    moe_diag_error(csv->diag, where_at(csv, zero), "found a zero byte; expected text");
    return false;
}

bool moe_span_is(moe_span span, const char *text)
{
    return strlen(text) == span.length && memcmp(span.text, text, span.length) == 0;
}

int moe_csv_column(const moe_csv *csv, const char *name)
{
    for (int i = 0; i < csv->columns; i++) {
        if (moe_span_is(csv->names[i], name))
            return i;
    }
    return -1;
}

static bool check_header(const moe_csv *csv)
{
    for (int i = 0; i < csv->columns; i++) {
        for (int j = 0; j < i; j++) {
            if (csv->names[i].length != csv->names[j].length ||
                memcmp(csv->names[i].text, csv->names[j].text, csv->names[i].length) != 0)
                continue;
            moe_diag_error(csv->diag, where_at(csv, csv->names[i].text),
                           "column \"%.*s\" stands twice", (int)csv->names[i].length,
                           csv->names[i].text);
            return false;
        }
    }
    return true;
}

bool moe_csv_open(moe_csv *csv, const moe_source *source, moe_diag *diag)
{
    *csv = (moe_csv){.source = source, .diag = diag};
    moe_span line;
    bool ended;
    if (!next_line(csv, &line, &ended)) {
        moe_diag_error(diag, (moe_where){source, 1, 1}, "the table is empty; expected a header");
        return false;
    }
    if (!check_line(csv, line))
        return false;
    csv->columns = split(csv, line, csv->names);
    return csv->columns > 0 && check_header(csv);
}

bool moe_csv_next(moe_csv *csv)
{
    moe_span line;
    bool ended;
    while (next_line(csv, &line, &ended)) {
        if (!check_line(csv, line))
            return false;
        const int count = split(csv, line, csv->fields);
        if (count == csv->columns)
            return true;
        if (count < 0)
            continue;
        if (!ended) {
            moe_diag_warning(csv->diag, where_at(csv, line.text),
                             "the last line has %d of %d fields and no end: the file was cut; "
                             "left out",
                             count, csv->columns);
            return false;
        }
        moe_diag_error(csv->diag, where_at(csv, line.text), "found %d fields; expected %d", count,
                       csv->columns);
    }
    return false;
}

static void refuse_number(const moe_csv *csv, int column, const char *kind, double low, double high)
{
    const moe_span field = csv->fields[column], name = csv->names[column];
    moe_diag_error(csv->diag, moe_csv_where(csv, column),
                   "%.*s is \"%.*s\"; expected a%s number from %g to %g", (int)name.length,
                   name.text, (int)(field.length > 40 ? 40 : field.length), field.text, kind, low,
                   high);
}

bool moe_csv_number(const moe_csv *csv, int column, bool whole, double low, double high,
                    double *value)
{
    const moe_span field = csv->fields[column];
    moe_decimal decimal;
    const size_t taken = moe_decimal_scan(field.text, field.length, &decimal);
    if (taken > 0 && taken == field.length && decimal.count >= 0 &&
        moe_decimal_to_double(&decimal, 0, value) && *value >= low && *value <= high &&
        (!whole || floor(*value) == *value))
        return true;
    refuse_number(csv, column, whole ? " whole" : "", low, high);
    return false;
}
