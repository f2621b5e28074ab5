/* Stragglers in a run: a step's program with its speeds (models/speed.h), and which part of the waiting
 * is theirs.
 *
 * A device waits where it is idle: for counts, for the last participant of a collective, for
 * parameters. Routing makes it wait, since loads differ, and hardware does, since speeds differ:
 *
 *   hardware   what the same program waits more with its stragglers than without, both in `analytic`
 *              (mean over devices); below 0 where stragglers happen to make loads meet
 *   routing    all other waiting of the step */
#ifndef MOE_SIM_HARDWARE_H
#define MOE_SIM_HARDWARE_H

#include "sim/scenario.h"

typedef struct moe_hardware moe_hardware;

/* NULL where the scenario has no stragglers. */
moe_hardware *moe_hardware_create(void *owner, const moe_binding *binding, moe_diag *diag);

/* `program` as step `step` of the run executes it; valid until the next call. `hardware` may be NULL. */
const moe_program *moe_hardware_program(moe_hardware *hardware, const moe_program *program,
                                        int64_t step);
/* Of that program; 0 where `hardware` is NULL. */
double moe_hardware_wait_s(moe_hardware *hardware);

#endif
