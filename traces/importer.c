#include "traces/importer.h"

#include <stddef.h>

const moe_importer *const moe_importers[] = {
    &moe_importer_npy,
    &moe_importer_npy_tokens,
    &moe_importer_native,
    NULL,
};
