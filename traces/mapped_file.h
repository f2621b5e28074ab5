/* A recording mapped read-only, so that it may be larger than memory. A file that another process
 * truncates while it is mapped kills us by SIGBUS, which we accept: nobody truncates a recording in
 * use. */
#ifndef MOE_TRACES_MAPPED_FILE_H
#define MOE_TRACES_MAPPED_FILE_H

#include "configs/base/diag.h"
#include <stddef.h>
#include <stdint.h>

typedef struct moe_mapped_file {
    const uint8_t *bytes;
    size_t length;
    moe_where at; /* where errors about its contents belong */
} moe_mapped_file;

/* A regular, non-empty file; unmapped when freed (talloc). NULL after a printed error. `named_at`:
 * where the path was written. */
moe_mapped_file *moe_mapped_file_open(void *owner, const char *path, moe_where named_at,
                                      moe_diag *diag);

#endif
