/* Reading files a user hands us: sizes are checked before memory is taken. */
#ifndef MOE_CONFIGS_BASE_INPUT_H
#define MOE_CONFIGS_BASE_INPUT_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include <stddef.h>

/* The whole text of a regular file of at most `limit_bytes`, NUL-terminated (the NUL not counted in
 * *length), owned by `owner`; NULL after a printed error (missing, a directory, too large, a
 * device). `named_at` is where the path was written, for messages; {0} when it came from the
 * command line. */
char *moe_input_read(void *owner, const char *path, size_t limit_bytes, size_t *length,
                     moe_where named_at, moe_diag *diag);

/* `path` itself if absolute, else relative to the folder of `from` (a file); owned by `owner`. */
char *moe_input_resolve(void *owner, const char *from, const char *path);

/* CRC-32 (IEEE 802.3, zlib's) of the bytes, as 8 hex digits: the digest that provenance quotes. */
void moe_digest(const void *bytes, size_t length, char hex[static 9]);

#endif
