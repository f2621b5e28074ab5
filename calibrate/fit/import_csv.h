/* Comma-separated tables with a header line, row by row, without copying.
 *
 * Plain fields only (a quote is an error); at most 64 columns and 64 KiB a line; empty lines are skipped.
 * A last line that is short and has no line end is a file that was cut: a warning, and the line is left out. */
#ifndef MOE_CALIBRATE_FIT_IMPORT_CSV_H
#define MOE_CALIBRATE_FIT_IMPORT_CSV_H

#include "configs/base/diag.h"
#include <stdbool.h>

enum { MOE_CSV_COLUMNS = 64, MOE_CSV_LINE = 65536 };

typedef struct moe_span {
    const char *text;
    size_t length;
} moe_span;

typedef struct moe_csv {
    const moe_source *source;
    moe_diag *diag;
    size_t at;    /* of the next line */
    int line;     /* number of the current one */
    size_t start; /* of the current one */
    int columns;
    moe_span names[MOE_CSV_COLUMNS];
    moe_span fields[MOE_CSV_COLUMNS];
} moe_csv;

/* Reads the header. False after a printed error. */
bool moe_csv_open(moe_csv *csv, const moe_source *source, moe_diag *diag);

/* The next row; false at the end, or after a printed error that ends the reading. Rows with errors are
 * skipped after they were printed. */
bool moe_csv_next(moe_csv *csv);

/* -1: there is no such column. */
int moe_csv_column(const moe_csv *csv, const char *name);

bool moe_span_is(moe_span span, const char *text);

/* A number of at least `low` and at most `high` (`whole`: without fraction); false after a printed error. */
bool moe_csv_number(const moe_csv *csv, int column, bool whole, double low, double high,
                    double *value);

/* Where a field of the current row stands. */
moe_where moe_csv_where(const moe_csv *csv, int column);

#endif
