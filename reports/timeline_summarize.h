/* What the critical path of a written timeline consists of, policy by policy. */
#ifndef MOE_REPORTS_TIMELINE_SUMMARIZE_H
#define MOE_REPORTS_TIMELINE_SUMMARIZE_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include <jansson.h>
#include <stdio.h>

/* {"file", "devices", "policies": [{"name", "steps", "step_time_s", "critical_path_s": {part: seconds},
 * "parts": how many, "largest": [{"operation", "part", "layer" (null: none), "device", "stream",
 * "seconds", "share"}]}]}: seconds are means over steps, a part is an operation of a layer on a device and its
 * stream. New reference; NULL after a printed error. */
json_t *moe_timeline_summarize(const char *path, moe_diag *diag);

void moe_timeline_print_summary(const json_t *summary, FILE *stream);

#endif
