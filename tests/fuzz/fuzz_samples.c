/* Any bytes as samples: refused, or every sample is sound, and what they are fitted to is a sound profile. */
#include "calibrate/fit/fit.h"

#include <math.h>
#include <stdlib.h>
#include <talloc.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check(const moe_sample *sample, const moe_sample_machine *machine)
{
    if (!(sample->seconds > 0 && sample->seconds <= 1e4) || sample->ranks < 1 ||
        sample->ranks > machine->ranks || sample->hosts < 1)
        abort();
    if (sample->kind == MOE_SAMPLE_EXPERTS && (sample->rows == NULL || sample->experts < 1))
        abort();
    if (sample->kind == MOE_SAMPLE_COLLECTIVE &&
        !(sample->first.bytes > 0 && isfinite(sample->first.bytes)))
        abort();
}

/* Few samples and ranks: an all-to-all has as many transfers as pairs. */
static void fit(void *owner, moe_samples *samples)
{
    moe_diag *diag = moe_diag_create(owner, NULL);
    const moe_fit_options options = {0};
    if (samples->count > 32 || samples->machine.ranks > 64)
        return;
    moe_fit_adjust_machine(samples, moe_fit_dtype(samples), diag);
    const moe_profile *profile = moe_fit_profile(owner, samples, &options, diag);
    if ((profile == NULL) != (moe_diag_error_count(diag) > 0))
        abort();
    if (profile != NULL && moe_profile_check(profile, NULL, NULL, diag) != MOE_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, NULL);
    moe_samples *samples =
        moe_samples_parse(owner, "fuzz.jsonl", (const char *)bytes, length, diag);
    if ((samples != NULL) == (moe_diag_error_count(diag) > 0))
        abort(); /* refused without a word, or a message about nothing */
    for (size_t i = 0; samples != NULL && i < samples->count; i++)
        check(&samples->items[i], &samples->machine);
    if (samples != NULL)
        fit(owner, samples);
    talloc_free(owner);
    return 0;
}
