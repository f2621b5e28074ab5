/* The units there are, shared by the parser and the formatter of units.h. */
#ifndef MOE_CONFIGS_BASE_UNITS_TABLE_H
#define MOE_CONFIGS_BASE_UNITS_TABLE_H

#include "configs/base/units.h"

/* One of this unit is 10^exponent10 * 2^exponent2 * factor base units. */
typedef struct moe_unit {
    int exponent10;
    int exponent2;
    double factor;
} moe_unit;

/* The unit spelled exactly so; "" is one where the dimension is a plain number. */
bool moe_unit_find(moe_dimension dimension, const char *text, size_t length, moe_unit *unit);

/* Whether the unit exists in other letter case; then `choices` lists the right spellings. */
bool moe_unit_other_case(moe_dimension dimension, const char *text, size_t length, char *choices,
                         size_t size);

/* Whether the unit belongs to some dimension at all. */
bool moe_unit_other_dimension(const char *text, size_t length, moe_dimension *dimension);

#endif
