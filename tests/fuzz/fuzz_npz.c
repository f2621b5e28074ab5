/* Any bytes as an .npz: refused with a message, or every array's items can be read. */
#include "traces/npz.h"

#include <stdlib.h>
#include <talloc.h>

enum { LIMIT_BYTES = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void read_member(moe_npz *archive, const char *name)
{
    moe_diag *diag = moe_diag_create(archive, NULL);
    moe_npy array;
    const bool parsed = moe_npz_read(archive, name, LIMIT_BYTES, &array, diag);
    if (parsed == (moe_diag_error_count(diag) > 0))
        abort(); /* refused without a word, or a message about nothing */
    for (uint64_t i = 0; parsed && i < array.size_bytes / array.item_bytes; i++) {
        uint32_t value;
        moe_npy_read(&array, (int64_t)i, 1, &value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, NULL);
    moe_npz *archive = moe_npz_open(owner, bytes, length, (moe_where){0}, diag);
    if ((archive == NULL) != (moe_diag_error_count(diag) > 0))
        abort();
    for (size_t i = 0; archive != NULL && i < moe_npz_count(archive) && i < 16; i++)
        read_member(archive, moe_npz_name(archive, i));
    talloc_free(owner);
    return 0;
}
