/* Any bytes as a published table: refused with a message, or samples that could have been measured. */
#include "calibrate/fit/import.h"

#include <math.h>
#include <stdlib.h>
#include <talloc.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, NULL);
    moe_samples *samples = moe_samples_create(owner);
    moe_import_tally *tally = moe_import_tally_create(owner);
    const moe_import_options options = {0};
    const bool read = moe_import_text(samples, "table", (const char *)bytes, length, &options,
                                      tally, diag) != NULL;
    if (read == (moe_diag_error_count(diag) > 0))
        abort(); /* refused without a word, or a message about nothing */
    for (size_t i = 0; read && i < samples->count; i++) {
        const moe_sample *sample = &samples->items[i];
        if (!isfinite(sample->seconds) || sample->seconds <= 0 || sample->ranks < 1)
            abort();
    }
    if (read)
        moe_import_divide(owner, samples);
    talloc_free(owner);
    return 0;
}
