/* Presets: YAML files that are named instead of written out.
 *
 * They lie in a folder ("configs/clusters") below the data folder: the environment's MOEPLAN_DATA,
 * or the source folder that the program was built from. A preset's name is its file's stem. */
#ifndef MOE_CONFIGS_PRESET_H
#define MOE_CONFIGS_PRESET_H

#include "configs/base/diag.h"

#define MOE_CLUSTER_PRESETS "configs/clusters"
#define MOE_MODEL_PRESETS   "configs/models"
#define MOE_PROFILE_PRESETS "calibrate/profiles"

/* The file of a preset; owned by `owner`; NULL when there is none of that name. */
char *moe_preset_file(void *owner, const char *folder, const char *name);

/* Their names, sorted; owned by `owner`. Loads nothing. */
const char **moe_preset_names(void *owner, const char *folder, size_t *count);

/* What a user means by `name`: a file of that name, else a preset; owned by `owner`. A name with a
 * slash that leads nowhere is handed back, for its reader to say so. NULL after a printed error that
 * names the closest preset; `kind` as in `moeplan list KIND`. */
char *moe_preset_find(void *owner, const char *folder, const char *kind, const char *name,
                      moe_diag *diag);

#endif
