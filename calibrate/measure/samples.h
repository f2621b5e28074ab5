/* The file of samples (calibrate/SAMPLES.md): a machine line, then a line a point, each on disk
 * before the next point starts, so that a killed run loses the point under way and no more.
 *
 * A file that exists is never overwritten: it is continued (`resume`) or refused. Continuing wants
 * the same machine: same backend, ranks, hosts, devices and software; what was measured while it was
 * described may differ, and the file's own description stands. A last line without its newline (a
 * killed run) is cut off; anything else that is not sound refuses the file, and so does another run
 * that has it open (by flock, where the file system knows it). */
#ifndef MOE_CALIBRATE_MEASURE_SAMPLES_H
#define MOE_CALIBRATE_MEASURE_SAMPLES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum { MOECAL_MAX_LINE = 1 << 20 };

typedef struct moecal_samples moecal_samples;

/* `path` NULL: standard output. `description`: the machine line's keys that the backend tells,
 * borrowed. NULL with a message of one line in `error`. */
moecal_samples *moecal_samples_open(const char *path, bool resume, const json_t *description,
                                    char *error, size_t error_size);
/* Whether the continued file holds this point, and how many it holds. */
bool moecal_samples_has(const moecal_samples *samples, const char *id);
size_t moecal_samples_count(const moecal_samples *samples);
/* Adds the machine's digest to `sample` and appends it. Non-zero with errno where it could not be
 * written or brought to disk. */
int moecal_samples_write(moecal_samples *samples, json_t *sample);
void moecal_samples_close(moecal_samples *samples);

/* The first file line for a description: 8 hex digits of all but the time. New reference. */
json_t *moecal_machine_line(const json_t *description);
/* The digest of a machine line, as it should be. */
void moecal_machine_digest(const json_t *machine, char digest[static 9]);

#endif
