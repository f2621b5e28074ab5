/* Whether a file is a sound suite (calibrate/SAMPLES.md): its head, and of every point that its kind is
 * known and the keys of that kind are there with values of the right type above 0. `moecal` checks more:
 * what depends on the machine. */
#ifndef MOE_CALIBRATE_FIT_SUITE_CHECK_H
#define MOE_CALIBRATE_FIT_SUITE_CHECK_H

#include "configs/base/diag.h"
#include "configs/base/status.h"

#include <jansson.h>
#include <stdbool.h>

/* Whether the beginning of a JSON text says that it is one. */
bool moe_suite_recognises(const char *text, size_t length);

/* Points of each kind, {"gemm": 12, ...}; new reference. NULL after printed errors. */
json_t *moe_suite_check(const char *path, moe_diag *diag);

#endif
