/* A profile as YAML that loads again to the same profile: short numbers (6 digits), lists in flow style,
 * samples one a line, and a comment on top that says how it was made. */
#ifndef MOE_CALIBRATE_FIT_PROFILE_WRITE_H
#define MOE_CALIBRATE_FIT_PROFILE_WRITE_H

#include "configs/base/output.h"
#include "models/profile.h"

/* `comment`: lines without "#"; may be NULL. */
void moe_profile_write(const moe_profile *profile, const char *comment, FILE *stream);
/* The same for a cluster. */
void moe_cluster_write(const moe_cluster_spec *cluster, const char *comment, FILE *stream);

#endif
