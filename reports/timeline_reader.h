/* Reads a timeline file (timeline_file.h) event by event: hostile until parsed, however large.
 *
 * Memory is bounded by the largest single value, which may have 1 MiB (otherData) or 64 KiB (an event).
 * otherData has to stand before traceEvents. */
#ifndef MOE_REPORTS_TIMELINE_READER_H
#define MOE_REPORTS_TIMELINE_READER_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include <jansson.h>
#include <stdbool.h>

/* What the reader calls; each returns NULL, or what is wrong (which ends the reading, with a printed
 * error). */
typedef struct moe_timeline_visitor {
    const char *(*header)(void *context, const json_t *other_data);
    const char *(*event)(void *context, const json_t *event);
    void *context;
} moe_timeline_visitor;

/* MOE_BAD_INPUT after one printed error. */
moe_status moe_timeline_read(const char *path, const moe_timeline_visitor *visitor, moe_diag *diag);

#endif
