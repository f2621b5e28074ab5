/* A profile from data-sheet rates alone: efficiency constants that were fitted on measured devices, applied
 * to one that was not. Everything in it is assumed; `moeplan validate calibration` prints its error on the
 * devices that were measured. */
#ifndef MOE_CALIBRATE_FIT_DATA_SHEET_H
#define MOE_CALIBRATE_FIT_DATA_SHEET_H

#include "models/profile.h"

/* Owned by `owner`. */
moe_profile *moe_data_sheet_profile(void *owner, const moe_cluster_spec *cluster);

#endif
