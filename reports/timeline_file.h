/* Timelines as files: Chrome's trace-event JSON, which ui.perfetto.dev opens.
 *
 *   {"displayTimeUnit": "ns", "otherData": {...}, "traceEvents": [
 *   one event a line ...
 *   ]}
 *
 * otherData: format "moeplan-timeline", version 1, policies [names], devices, streams [names], steps, and
 * cluster, trace and provenance as `simulate --json` has them. It stands before the events, which may be
 * many: a reader needs to keep none.
 *
 * Policy p (from 0, in otherData's order) has devices + 1 processes: pid p (devices + 1) + 1 is the policy as a
 * whole, the next ones its devices (ranks); there, thread 1 + s is stream s. All policies begin at time 0, and a
 * step follows the one before it. Times are microseconds in whole nanoseconds, the resolution of Perfetto:
 * beginnings and ends are rounded, not durations, so that neighbours never overlap. What is shorter
 * than that is left out, as is a collective on a device that takes no part in it.
 *
 *   X            a step, on the policy, with the recorded iteration; an operation on its device and
 *                stream, with part, layer, micro_batch, and for collectives bytes (sent by the device) and
 *                bytes_received. On the critical path: critical true, and critical_us, the time from the end
 *                of the one before it on the path; they sum to the step
 *   i            where a step begins
 *   s t f        from a dispatch over its experts to its combine: same layer, micro-batch and device; backward
 *                from the combine's backward to the dispatch's
 *   C, imbalance largest over mean duration of each layer's experts over devices
 *   C, load      GB/s in and out of every NIC, of a host's device links in all, and of its NICs in all
 *                where it has several: bytes of each collective over the time it is under way
 *
 * Nothing is approximated beyond the rounding: the first steps of the run are simulated once more, to the same
 * results, with a writer looking on. */
#ifndef MOE_REPORTS_TIMELINE_FILE_H
#define MOE_REPORTS_TIMELINE_FILE_H

#include "sim/run.h"
#include <stdio.h>

enum { MOE_TIMELINE_VERSION = 1, MOE_TIMELINE_STEPS = 3 };

/* The first `steps` steps (or all, if there are fewer) of the policies that `run` has results of, at
 * indices chosen[run->policy_count]. A write error is left in `stream`. */
moe_status moe_timeline_write(const moe_binding *binding, const moe_run *run, const int *chosen,
                              int64_t steps, FILE *stream, moe_diag *diag);

#endif
