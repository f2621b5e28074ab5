/* Any bytes as a NumPy array: refused, or every item can be read. */
#include "traces/npy.h"

#include <stdlib.h>
#include <talloc.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, NULL);
    moe_npy array;
    const bool parsed = moe_npy_parse(bytes, length, &array, (moe_where){0}, diag);
    if (parsed == (moe_diag_error_count(diag) > 0))
        abort(); /* refused without a word, or a message about nothing */
    for (uint64_t i = 0; parsed && i < array.size_bytes / array.item_bytes; i++) {
        uint32_t value;
        moe_npy_read(&array, (int64_t)i, 1, &value);
    }
    talloc_free(owner);
    return 0;
}
