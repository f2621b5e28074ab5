#include "configs/base/units.h"
#include "configs/base/decimal.h"
#include "configs/base/units_table.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { QUOTED_BYTES = 24, NUMBER_BYTES = 1000 };

typedef struct parse {
    const char *text;
    size_t length;
    moe_dimension dimension;
    moe_units_error *error;
} parse;

__attribute__((format(printf, 3, 4))) static bool fail(const parse *p, size_t offset,
                                                       const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    p->error->offset = offset;
    vsnprintf(p->error->message, sizeof p->error->message, format, arguments);
    va_end(arguments);
    return false;
}

/* How many bytes of a text to quote in a message: few, and no half of a character. */
static int quoted(size_t length, const char *text)
{
    if (length <= QUOTED_BYTES) {
        return (int)length;
    }
    int bytes = QUOTED_BYTES;
    while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80) {
        bytes--;
    }
    return bytes;
}

#define QUOTED(text, length) quoted((length), (text)), (text)

static size_t skip_spaces(const parse *p, size_t at)
{
    while (at < p->length && p->text[at] == ' ') {
        at++;
    }
    return at;
}

static bool scan_number(const parse *p, size_t at, moe_decimal *decimal, size_t *end)
{
    const size_t taken = moe_decimal_scan(p->text + at, p->length - at, decimal);
    if (taken == 0) {
        const bool sign = at < p->length && (p->text[at] == '-' || p->text[at] == '+');
        return fail(p, at,
                    sign ? "a sign in \"%.*s\"; expected %s"
                         : "\"%.*s\" is not a number; expected %s",
                    QUOTED(p->text, p->length), moe_dimension_expectation(p->dimension));
    }
    if (decimal->count < 0 || taken > NUMBER_BYTES) {
        return fail(p, at, "a number of more than %d digits; expected %s", MOE_DECIMAL_DIGITS,
                    moe_dimension_expectation(p->dimension));
    }
    *end = at + taken;
    return true;
}

static bool refuse_magnitude(const parse *p, size_t at)
{
    return fail(p, at, "\"%.*s\" is too large or too small for a number; expected %s",
                QUOTED(p->text, p->length), moe_dimension_expectation(p->dimension));
}

static bool refuse_unit(const parse *p, size_t at)
{
    const char *unit = p->text + at;
    const size_t length = p->length - at;
    char choices[80];
    moe_dimension other;
    if (length == 0) {
        return fail(p, at, "no unit in \"%.*s\"; expected %s", QUOTED(p->text, p->length),
                    moe_dimension_expectation(p->dimension));
    }
    if (moe_unit_other_case(p->dimension, unit, length, choices, sizeof choices)) {
        return fail(p, at, "unknown unit \"%.*s\" in \"%.*s\"; case matters, expected %s",
                    QUOTED(unit, length), QUOTED(p->text, p->length), choices);
    }
    if (moe_unit_other_dimension(unit, length, &other)) {
        return fail(p, at, "\"%.*s\" is a unit of %s; expected %s", QUOTED(unit, length),
                    moe_dimension_name(other), moe_dimension_expectation(p->dimension));
    }
    return fail(p, at, "unknown unit \"%.*s\" in \"%.*s\"; expected %s", QUOTED(unit, length),
                QUOTED(p->text, p->length), moe_dimension_expectation(p->dimension));
}

static bool scaled(const parse *p, const moe_decimal *decimal, moe_unit unit, double *value)
{
    double result = 0;
    if (!moe_decimal_to_double(decimal, unit.exponent10, &result)) {
        return refuse_magnitude(p, 0);
    }
    const double whole = ldexp(result * unit.factor, unit.exponent2);
    if (!isfinite(whole) || (whole == 0 && decimal->count > 0)) {
        return refuse_magnitude(p, 0);
    }
    *value = whole;
    return true;
}

static bool parse_count(const parse *p, double *value)
{
    moe_decimal decimal;
    moe_unit unit;
    size_t end;
    bool fraction = false;
    if (!scan_number(p, 0, &decimal, &end)) {
        return false;
    }
    const size_t at = skip_spaces(p, end);
    if (!moe_unit_find(MOE_COUNT, p->text + at, p->length - at, &unit)) {
        return refuse_unit(p, at);
    }
    if (moe_decimal_to_integer(&decimal, unit.exponent10, value, &fraction)) {
        return true;
    }
    return fail(p, 0,
                fraction ? "\"%.*s\" is not whole; expected %s"
                         : "\"%.*s\" is above 2^53; expected %s",
                QUOTED(p->text, p->length), moe_dimension_expectation(MOE_COUNT));
}

static bool parse_ratio(const parse *p, const moe_decimal *numerator, size_t at, double *value)
{
    moe_decimal denominator;
    size_t end;
    double above = 0, below = 0;
    if (!scan_number(p, at, &denominator, &end)) {
        return false;
    }
    if (end < p->length) {
        return refuse_unit(p, end);
    }
    if (denominator.count == 0) {
        return fail(p, at, "division by zero in \"%.*s\"; expected %s", QUOTED(p->text, p->length),
                    moe_dimension_expectation(p->dimension));
    }
    if (!moe_decimal_to_double(numerator, 0, &above) ||
        !moe_decimal_to_double(&denominator, 0, &below) || !isfinite(above / below) ||
        (above > 0 && above / below == 0)) {
        return refuse_magnitude(p, 0);
    }
    *value = above / below;
    return true;
}

static bool parse_money(const parse *p, double *value)
{
    const bool dollar = p->length > 0 && p->text[0] == '$';
    moe_decimal decimal;
    size_t end;
    if (!scan_number(p, dollar ? 1 : 0, &decimal, &end)) {
        return false;
    }
    if (!dollar && decimal.count > 0) {
        return fail(p, 0, "no \"$\" in \"%.*s\"; expected %s", QUOTED(p->text, p->length),
                    moe_dimension_expectation(p->dimension));
    }
    const size_t at = skip_spaces(p, end);
    const bool per_hour = p->length - at == 2 && memcmp(p->text + at, "/h", 2) == 0;
    if (!per_hour && (dollar || at < p->length)) {
        return refuse_unit(p, at);
    }
    return scaled(p, &decimal, (moe_unit){.factor = 1}, value);
}

static bool parse_quantity(const parse *p, double *value)
{
    moe_decimal decimal;
    moe_unit unit = {.factor = 1};
    size_t end;
    if (!scan_number(p, 0, &decimal, &end)) {
        return false;
    }
    const size_t at = skip_spaces(p, end);
    if (p->dimension == MOE_FRACTION && at < p->length && p->text[at] == '/') {
        return parse_ratio(p, &decimal, skip_spaces(p, at + 1), value);
    }
    const bool bare_zero = decimal.count == 0 && at == p->length;
    if (!bare_zero && !moe_unit_find(p->dimension, p->text + at, p->length - at, &unit)) {
        return refuse_unit(p, at);
    }
    return scaled(p, &decimal, unit, value);
}

bool moe_units_parse(const char *text, size_t length, moe_dimension dimension, double *value,
                     moe_units_error *error)
{
    const parse p = {text, length, dimension, error};
    switch (dimension) {
    case MOE_COUNT:
        return parse_count(&p, value);
    case MOE_MONEY_PER_HOUR:
        return parse_money(&p, value);
    default:
        return parse_quantity(&p, value);
    }
}

bool moe_units_parse_signed(const char *text, size_t length, moe_dimension dimension, double *value,
                            moe_units_error *error)
{
    const bool sign = length > 0 && (text[0] == '-' || text[0] == '+');
    double magnitude;
    if (!moe_units_parse(text + sign, length - sign, dimension, &magnitude, error)) {
        error->offset += sign;
        return false;
    }
    *value = sign && text[0] == '-' ? -magnitude : magnitude;
    return true;
}
