/* What the importers of published CSV tables share: rows of one device, the newest version, copies. */
#ifndef MOE_CALIBRATE_FIT_IMPORT_ROWS_H
#define MOE_CALIBRATE_FIT_IMPORT_ROWS_H

#include "calibrate/fit/import.h"
#include "calibrate/fit/import_csv.h"

typedef struct moe_import_rows {
    moe_csv csv;
    const moe_import_options *options;
    moe_import_tally *tally;
    int gpu, version; /* columns, or -1 */
    moe_span device;  /* in column `gpu`; empty: there is no such column */
} moe_import_rows;

/* Reads the header and picks the device: column `gpu`, else what stands before "__" in the file's name,
 * else taken on trust. A warning where its rows are, number by number, those of another device too.
 * False after a printed error (unknown device, or several and none asked for). */
bool moe_import_rows_open(moe_import_rows *rows, const moe_source *source,
                          const moe_import_options *options, moe_import_tally *tally,
                          moe_diag *diag);

/* The next row of that device. Others are counted in the tally. */
bool moe_import_rows_next(moe_import_rows *rows);

/* "fp16" for half and float16, "bf16" for bfloat16, "fp32" for float, "fp8", "fp8_block", "int8"; NULL: another. */
const char *moe_import_dtype(moe_span name);
/* Whether rows of that dtype are asked for. */
bool moe_import_wants(const moe_import_options *options, const char *dtype);

/* Samples whose version is still to be chosen. */
typedef struct moe_import_candidate {
    moe_sample sample; /* without rows of experts */
    moe_span version;
    int group; /* the newest version is taken in each: ranks or hosts */
} moe_import_candidate;

typedef struct moe_import_candidates {
    moe_import_candidate *items;
    size_t count;
} moe_import_candidates; /* talloc */

void moe_import_candidates_add(moe_import_candidates *all, moe_import_candidate item);

/* Adds those of the wanted version (import.h) to `samples`; the others are counted. A sample that equals
 * one before it in point and time is a copy, and counted too. Sorts `all`. */
void moe_import_candidates_take(moe_import_candidates *all, moe_samples *samples,
                                const moe_import_options *options, moe_import_tally *tally);

#endif
