/* What is to be measured: a list of points, from a file (calibrate/SAMPLES.md) or built in.
 *
 * A suite owns its points; no two of them have the same id. Memory runs out only for a reason worth
 * dying of: growing a list aborts then. */
#ifndef MOE_CALIBRATE_MEASURE_SUITE_H
#define MOE_CALIBRATE_MEASURE_SUITE_H

#include "calibrate/measure/point.h"
#include <stdio.h>

enum { MOECAL_MAX_POINTS = 100000, MOECAL_MAX_SUITE_BYTES = 64 << 20 };

typedef struct moecal_suite {
    char name[64];
    moecal_point **points;
    size_t count;
    size_t capacity;
    json_t *ids; /* a set */
} moecal_suite;

moecal_suite *moecal_suite_create(const char *name);
void moecal_suite_free(moecal_suite *suite);
/* Takes `point` over; a second one of the same id is freed. */
void moecal_suite_add(moecal_suite *suite, moecal_point *point);

/* NULL after one line to `errors` for everything that is wrong with the file. */
moecal_suite *moecal_suite_read(const char *path, FILE *errors);
/* The same of a text in memory. */
moecal_suite *moecal_suite_parse(const char *name, const char *text, size_t length, FILE *errors);

/* Built-in suites, for a CPU or a CUDA device, and for so many ranks. */
typedef struct moecal_builtin {
    const char *name;
    const char *sentence;
    double seconds_per_point; /* what it was made for */
} moecal_builtin;
extern const moecal_builtin moecal_builtins[]; /* ends with a NULL name */
const moecal_builtin *moecal_builtin_find(const char *name);
moecal_suite *moecal_builtin_suite(const char *name, bool cpu, int ranks);

/* Rows of `experts` experts that sum to `total`: equal but for a remainder, or in proportion to
 * 1 / (position + 1), largest remainders first. */
void moecal_rows_uniform(int64_t *rows, int experts, int64_t total);
void moecal_rows_power_law(int64_t *rows, int experts, int64_t total);

#endif
