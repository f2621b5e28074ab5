/* What a simulation answers, for people (text) and for programs (JSON). */
#ifndef MOE_REPORTS_REPORT_H
#define MOE_REPORTS_REPORT_H

#include "sim/run.h"
#include <stdio.h>

/* A table to act on: one column a policy; then what it rests on. */
void moe_report_text(const moe_binding *binding, const moe_run *run, FILE *stream);

/* The one object of `simulate --json`: engine, seed, cluster, trace, policies[], provenance. New
 * reference. */
json_t *moe_report_json(const moe_binding *binding, const moe_run *run);

#endif
