/* A profile as commands take it: a file or a preset, loaded and checked. */
#ifndef MOE_CALIBRATE_FIT_PROFILE_FILE_H
#define MOE_CALIBRATE_FIT_PROFILE_FILE_H

#include "models/profile.h"

/* Owned by `owner`; NULL after printed errors. */
const moe_profile *moe_profile_load(void *owner, const char *name, moe_diag *diag);

/* What a YAML file or a preset says, as it says it: the root of `table` (moe_profile_table, moe_cluster_table), not
 * checked. Owned by `owner`; NULL after printed errors. */
void *moe_profile_load_root(void *owner, const char *name, const moe_table *table, moe_diag *diag);

#endif
