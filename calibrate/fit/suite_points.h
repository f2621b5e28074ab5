/* The points of a measuring suite (calibrate/SAMPLES.md) while they are gathered: each once, in the
 * order in which they were first asked for.
 *
 *   bytes of a point   what one repetition reads and writes, counted once each: what its buffers take
 *   flop of a point    one repetition's
 *
 * A point whose buffers are larger than `limit_bytes` is left out and counted. */
#ifndef MOE_CALIBRATE_FIT_SUITE_POINTS_H
#define MOE_CALIBRATE_FIT_SUITE_POINTS_H

#include "calibrate/fit/samples.h"

#include <jansson.h>

typedef struct moe_suite_tally {
    size_t points;
    double bytes; /* sum over points, of one repetition each */
    double flop;
} moe_suite_tally;

typedef struct moe_suite_points {
    json_t *points[MOE_SAMPLE_KINDS]; /* arrays */
    json_t *known;                    /* object: canonical text of a point -> true */
    moe_suite_tally tallies[MOE_SAMPLE_KINDS];
    double limit_bytes;
    double largest_bytes; /* of one point */
    size_t left_out;
} moe_suite_points;

/* Freed with `owner` (talloc). */
moe_suite_points *moe_suite_points_create(void *owner, double limit_bytes);

/* Steals `point`, an object without "kind". */
void moe_suite_points_add(moe_suite_points *suite, moe_sample_kind kind, json_t *point,
                          double bytes, double flop);

/* The suite as JSON, one point a line. */
void moe_suite_points_write(const moe_suite_points *suite, const char *name, FILE *stream);

#endif
