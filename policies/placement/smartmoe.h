/* SmartMoE's greedy mapping of one layer's experts to devices, apart so that tests and validations reach it.
 *
 * Experts by falling load; each goes to the device with least load that still has a free slot (every device has
 * experts / devices of them); of equals, to where it is, else to the lowest number. The new mapping is taken
 * only if its fullest device has less load than today's.
 *
 * Source: SmartMoE (Zhai et al., USENIX ATC 2023), section 5; its artifact's exchange works so. */
#ifndef MOE_POLICIES_PLACEMENT_SMARTMOE_H
#define MOE_POLICIES_PLACEMENT_SMARTMOE_H

#include "configs/base/arena.h"
#include <stdbool.h>

/* device_of[experts], 0 .. devices - 1, today's mapping in and tomorrow's out; loads[experts]. devices must
 * divide experts, and today's mapping must be even. True: something changed. */
bool moe_smartmoe_map(moe_arena *arena, const double *loads, int experts, int devices,
                      int *device_of);

#endif
