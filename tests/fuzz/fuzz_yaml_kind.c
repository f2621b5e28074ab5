/* moe_yaml_kind on any bytes: it stays inside them and answers NULL or a name it knows. */
#include "reports/yaml_kind.h"

#include "reports/catalogue.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char *text = malloc(length); /* no NUL behind it: reading on is an error ASan sees */
    if (!text && length > 0)
        return 0;
    if (length > 0)
        memcpy(text, bytes, length);
    const char *kind = moe_yaml_kind(text, length);
    if (kind && !moe_catalogue_kind_find(kind))
        abort();
    free(text);
    return 0;
}
