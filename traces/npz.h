/* NumPy's .npz: a ZIP archive of .npy arrays (numpy.lib.format; ZIP: PKWARE APPNOTE 6.3, sections 4.3 and 4.4).
 *
 *     [local header, data] ...    one a member: its data stored as they are, or deflated (RFC 1951)
 *     [central header] ...        name, method, CRC-32, both sizes, offset of the local header
 *     end record                  where the central headers are, and how many
 *
 * Sizes are taken from the central headers and checked against the file, against each other (deflate makes at
 * most 1,032 bytes of one) and against the caller's limit before memory is taken, so that an archive that
 * unpacks to more than it says, or says more than is wanted, costs nothing. Refused: encryption, other methods,
 * more than one disk, ZIP64 (sizes of 4 GiB on), a wrong CRC. Ignored: comments, dates, extra fields. */
#ifndef MOE_TRACES_NPZ_H
#define MOE_TRACES_NPZ_H

#include "traces/npy.h"

typedef struct moe_npz moe_npz;

/* `bytes` are borrowed for as long as the archive and what is read from it live. NULL after a printed error. */
moe_npz *moe_npz_open(void *owner, const uint8_t *bytes, size_t length, moe_where at,
                      moe_diag *diag);

size_t moe_npz_count(const moe_npz *archive);
/* Of member i, without ".npy". */
const char *moe_npz_name(const moe_npz *archive, size_t i);

/* The array of that name, of at most `limit_bytes` unpacked; its bytes are owned by the archive. False after a
 * printed error. */
bool moe_npz_read(moe_npz *archive, const char *name, uint64_t limit_bytes, moe_npy *array,
                  moe_diag *diag);

#endif
