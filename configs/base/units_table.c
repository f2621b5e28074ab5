#include "configs/base/units_table.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Which prefixes a unit takes. */
enum { TAKES_KILO_TO_GIGA = 1, TAKES_TERA_PETA = 2, TAKES_EXA = 4, TAKES_BINARY = 8 };
enum {
    NONE = 0,
    COUNTS = TAKES_KILO_TO_GIGA,
    DATA = TAKES_KILO_TO_GIGA | TAKES_TERA_PETA | TAKES_BINARY,
    OPERATIONS = TAKES_KILO_TO_GIGA | TAKES_TERA_PETA | TAKES_EXA,
};

typedef struct prefix_row {
    const char *text;
    int kind;
    int exponent10;
    int exponent2;
} prefix_row;

static const prefix_row prefixes[] = {
    {"k", TAKES_KILO_TO_GIGA, 3, 0}, {"M", TAKES_KILO_TO_GIGA, 6, 0},
    {"G", TAKES_KILO_TO_GIGA, 9, 0}, {"T", TAKES_TERA_PETA, 12, 0},
    {"P", TAKES_TERA_PETA, 15, 0},   {"E", TAKES_EXA, 18, 0},
    {"Ki", TAKES_BINARY, 0, 10},     {"Mi", TAKES_BINARY, 0, 20},
    {"Gi", TAKES_BINARY, 0, 30},     {"Ti", TAKES_BINARY, 0, 40},
    {"Pi", TAKES_BINARY, 0, 50},
};

typedef struct unit_row {
    moe_dimension dimension;
    const char *text;
    int prefixes;
    moe_unit unit;
    const char *remark; /* shown where two units differ by case only */
} unit_row;

static const unit_row units[] = {
    {MOE_NUMBER, "", NONE, {0, 0, 1}, ""},
    {MOE_COUNT, "", COUNTS, {0, 0, 1}, ""},
    {MOE_FRACTION, "", NONE, {0, 0, 1}, ""},
    {MOE_FRACTION, "%", NONE, {-2, 0, 1}, ""},
    {MOE_BYTES, "B", DATA, {0, 0, 1}, " (bytes)"},
    {MOE_BYTES, "b", DATA, {0, -3, 1}, " (bits)"},
    {MOE_BANDWIDTH, "B/s", DATA, {0, 0, 1}, " (bytes)"},
    {MOE_BANDWIDTH, "b/s", DATA, {0, -3, 1}, " (bits)"},
    {MOE_SECONDS, "s", NONE, {0, 0, 1}, ""},
    {MOE_SECONDS, "ms", NONE, {-3, 0, 1}, ""},
    {MOE_SECONDS, "us", NONE, {-6, 0, 1}, ""},
    {MOE_SECONDS, "ns", NONE, {-9, 0, 1}, ""},
    {MOE_SECONDS, "min", NONE, {0, 0, 60}, ""},
    {MOE_SECONDS, "h", NONE, {0, 0, 3600}, ""},
    {MOE_FLOP, "FLOP", OPERATIONS, {0, 0, 1}, ""},
    {MOE_FLOP_PER_S, "FLOP/s", OPERATIONS, {0, 0, 1}, ""},
    {MOE_MONEY_PER_HOUR, "/h", NONE, {0, 0, 1}, ""},
};

enum {
    PREFIX_COUNT = sizeof prefixes / sizeof prefixes[0],
    UNIT_COUNT = sizeof units / sizeof units[0]
};

typedef int compare_function(const char *, const char *, size_t);

static bool same(const char *expected, const char *text, size_t length, compare_function *compare)
{
    return strlen(expected) == length && compare(expected, text, length) == 0;
}

/* Whether `text` is the row's unit after a prefix the unit takes (*prefix, NULL if none). */
static bool matches(const unit_row *row, const char *text, size_t length, compare_function *compare,
                    const prefix_row **prefix)
{
    const size_t tail = strlen(row->text);
    if (length < tail || !same(row->text, text + length - tail, tail, compare)) {
        return false;
    }
    *prefix = NULL;
    if (length == tail) {
        return true;
    }
    for (size_t i = 0; i < PREFIX_COUNT; i++) {
        if ((row->prefixes & prefixes[i].kind) &&
            same(prefixes[i].text, text, length - tail, compare)) {
            *prefix = &prefixes[i];
            return true;
        }
    }
    return false;
}

bool moe_unit_find(moe_dimension dimension, const char *text, size_t length, moe_unit *unit)
{
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        const prefix_row *prefix;
        if (units[i].dimension == dimension && matches(&units[i], text, length, strncmp, &prefix)) {
            *unit = units[i].unit;
            unit->exponent10 += prefix ? prefix->exponent10 : 0;
            unit->exponent2 += prefix ? prefix->exponent2 : 0;
            return true;
        }
    }
    return false;
}

bool moe_unit_other_case(moe_dimension dimension, const char *text, size_t length, char *choices,
                         size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < UNIT_COUNT && used < size; i++) {
        const prefix_row *prefix;
        if (units[i].dimension == dimension &&
            matches(&units[i], text, length, strncasecmp, &prefix)) {
            used += (size_t)snprintf(choices + used, size - used, "%s\"%s%s\"%s",
                                     used > 0 ? " or " : "", prefix ? prefix->text : "",
                                     units[i].text, units[i].remark);
        }
    }
    return used > 0;
}

bool moe_unit_other_dimension(const char *text, size_t length, moe_dimension *dimension)
{
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        const prefix_row *prefix;
        if (units[i].text[0] != '\0' && matches(&units[i], text, length, strncmp, &prefix)) {
            *dimension = units[i].dimension;
            return true;
        }
    }
    return false;
}
