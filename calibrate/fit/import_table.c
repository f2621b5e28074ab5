#include "calibrate/fit/import.h"

#include "configs/base/input.h"
#include <talloc.h>

enum { IMPORT_BYTES_MAX = 256 << 20, SNIFFED = 4096 };

const moe_sample_importer *const moe_sample_importers[] = {
    &moe_aiconfigurator_importer,
    &moe_deepep_importer,
    &moe_nccl_tests_importer,
    NULL,
};

static const moe_sample_importer *recognise(const char *text, size_t length)
{
    const size_t sniffed = length < SNIFFED ? length : SNIFFED;
    for (size_t i = 0; moe_sample_importers[i] != NULL; i++) {
        if (moe_sample_importers[i]->recognises(text, sniffed))
            return moe_sample_importers[i];
    }
    return NULL;
}

const moe_sample_importer *moe_import_text(moe_samples *samples, const char *name, const char *text,
                                           size_t length, const moe_import_options *options,
                                           moe_import_tally *tally, moe_diag *diag)
{
    const moe_source *source = moe_diag_source(diag, name, text, length);
    const moe_sample_importer *importer = recognise(text, length);
    if (importer == NULL) {
        moe_diag_error(diag, (moe_where){source, 1, 1},
                       "the file is of no known kind; expected the output of nccl-tests, a table "
                       "(nccl, gemm, moe) of AIConfigurator, or one of DeepEP, as CSV");
        return NULL;
    }
    const int errors = moe_diag_error_count(diag);
    const moe_status status = importer->read(samples, source, options, tally, diag);
    return status == MOE_OK && moe_diag_error_count(diag) == errors ? importer : NULL;
}

const moe_sample_importer *moe_import_file(moe_samples *samples, const char *path,
                                           const moe_import_options *options,
                                           moe_import_tally *tally, moe_diag *diag)
{
    size_t length;
    char *text = moe_input_read(diag, path, IMPORT_BYTES_MAX, &length, (moe_where){0}, diag);
    if (text == NULL)
        return NULL;
    const moe_sample_importer *importer =
        moe_import_text(samples, path, text, length, options, tally, diag);
    talloc_free(text); /* the diag keeps a copy */
    return importer;
}
