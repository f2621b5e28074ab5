#include "calibrate/fit/profile_file.h"

#include "configs/preset.h"

const moe_profile *moe_profile_load(void *owner, const char *name, moe_diag *diag)
{
    const char *path = moe_preset_find(owner, MOE_PROFILE_PRESETS, "profiles", name, diag);
    moe_config *config =
        path ? moe_config_load(owner, path, &moe_profile_table, NULL, 0, diag) : NULL;
    if (!config)
        return NULL;
    const moe_profile *profile = moe_config_root(config);
    return moe_profile_check(profile, NULL, config, diag) == MOE_OK ? profile : NULL;
}

void *moe_profile_load_root(void *owner, const char *name, const moe_table *table, moe_diag *diag)
{
    const bool profile = table == &moe_profile_table;
    const char *path = moe_preset_find(owner, profile ? MOE_PROFILE_PRESETS : MOE_CLUSTER_PRESETS,
                                       profile ? "profiles" : "clusters", name, diag);
    moe_config *config = path ? moe_config_load(owner, path, table, NULL, 0, diag) : NULL;
    return config == NULL ? NULL : moe_config_root(config);
}
