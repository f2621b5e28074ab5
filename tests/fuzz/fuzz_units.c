/* Any bytes as a quantity of any dimension: no crash, an offset within the text, and what parses
 * formats to a text that parses to the same double. */
#include "configs/base/units.h"
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *text, size_t length, moe_dimension dimension)
{
    moe_units_error error;
    double value = 2.385, back = 0;
    char exact[48], brief[48];
    if (!moe_units_parse_signed(text, length, dimension, &value, &error)) {
        if (value != 2.385 || error.offset > length ||
            strlen(error.message) >= sizeof error.message) {
            abort();
        }
        return;
    }
    moe_units_format(value, dimension, exact);
    moe_units_format_short(value, dimension, brief);
    if (!isfinite(value) ||
        !moe_units_parse_signed(exact, strlen(exact), dimension, &back, &error) || back != value) {
        fprintf(stderr, "%.17g became %s and %.17g\n", value, exact, back);
        abort();
    }
}

/* The first byte picks the dimension. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0) {
        char *text = malloc(size); /* not terminated: reading past the end is found */
        memcpy(text, data + 1, size - 1);
        check(text, size - 1, (moe_dimension)(data[0] % MOE_DIMENSION_COUNT));
        free(text);
    }
    return 0;
}
