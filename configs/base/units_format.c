#include "configs/base/decimal.h"
#include "configs/base/units.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct dimension_row {
    const char *name;
    const char *expectation;
    const char *unit;    /* base unit as written after the number */
    int lowest, highest; /* powers of a thousand that have a prefix */
} dimension_row;

static const dimension_row dimensions[MOE_DIMENSION_COUNT] = {
    [MOE_NUMBER] = {"number", "a number such as \"1.5\"", "", 0, 0},
    [MOE_COUNT] = {"count", "a whole number such as \"32\" or \"4k\"", "", 0, 0},
    [MOE_FRACTION] = {"fraction", "a fraction such as \"0.15\", \"15 %\" or \"20/132\"", "", 0, 0},
    [MOE_BYTES] = {"bytes", "an amount of bytes such as \"40 GiB\" or \"2 MB\"", "B", 0, 5},
    [MOE_BANDWIDTH] = {"bandwidth", "a bandwidth such as \"400 Gb/s\" or \"50 GB/s\"", "B/s", 0, 5},
    [MOE_SECONDS] = {"time", "a time such as \"5 us\" or \"1.6e-5 s\"", "s", -3, 0},
    [MOE_FLOP] = {"FLOP", "a number of operations such as \"2 TFLOP\"", "FLOP", 0, 6},
    [MOE_FLOP_PER_S] = {"FLOP rate", "a FLOP rate such as \"312 TFLOP/s\"", "FLOP/s", 0, 6},
    [MOE_MONEY_PER_HOUR] = {"price", "a price such as \"$2.50/h\"", "/h", 0, 0},
};

static const char *const thousands[] = {"n", "u", "m", "", "k", "M", "G", "T", "P", "E"};
enum { THOUSANDS_ZERO = 3 };

const char *moe_dimension_expectation(moe_dimension dimension)
{
    return dimensions[dimension].expectation;
}

const char *moe_dimension_name(moe_dimension dimension)
{
    return dimensions[dimension].name;
}

/* The power of a thousand whose prefix leaves 1 to 999 before the point; 0 if no prefix comes near.
 */
static int choose_thousand(const moe_decimal *decimal, const dimension_row *row)
{
    const int magnitude = moe_decimal_magnitude(decimal);
    const int ideal = (magnitude - (magnitude < 0 ? 2 : 0)) / 3;
    const int power = ideal < row->lowest    ? row->lowest
                      : ideal > row->highest ? row->highest
                                             : ideal;
    return power - ideal > 1 || ideal - power > 1 ? 0 : power;
}

static void print_scaled(const moe_decimal *decimal, moe_dimension dimension, char text[static 48])
{
    const dimension_row *row = &dimensions[dimension];
    const int power = choose_thousand(decimal, row);
    char number[MOE_DECIMAL_TEXT];
    moe_decimal_print(decimal, -3 * power, number);
    if (dimension == MOE_MONEY_PER_HOUR) {
        const char *point = strchr(number, '.'); /* cents have two digits */
        snprintf(text, 48, "$%s%s/h", number, point && strlen(point) == 2 ? "0" : "");
    } else {
        snprintf(text, 48, "%s%s%s%s", number, row->unit[0] ? " " : "",
                 thousands[THOUSANDS_ZERO + power], row->unit);
    }
}

static void keep_shorter(char text[static 48], const char *candidate)
{
    if (strlen(candidate) < strlen(text)) {
        strcpy(text, candidate);
    }
}

/* Offers `value / size` of a unit, if it reads back exactly and is shorter than what is there. */
static void offer(double value, double size, const char *unit, char text[static 48])
{
    moe_decimal decimal;
    char number[MOE_DECIMAL_TEXT], candidate[48];
    double back = 0;
    moe_decimal_shortest(value / size, &decimal);
    if (moe_decimal_to_double(&decimal, 0, &back) && back * size == value) {
        moe_decimal_print(&decimal, 0, number);
        snprintf(candidate, sizeof candidate, "%s %s", number, unit);
        keep_shorter(text, candidate);
    }
}

/* "40 GiB" for a whole number of binary units. */
static void offer_binary(double value, const char *unit, char text[static 48])
{
    static const char *const binary[] = {"Ki", "Mi", "Gi", "Ti", "Pi"};
    for (int i = 0; i < 5; i++) {
        const double size = ldexp(1, 10 * (i + 1));
        char name[16];
        snprintf(name, sizeof name, "%s%s", binary[i], unit);
        if (value / size >= 1 && value / size < 1e6 && floor(value / size) == value / size) {
            offer(value, size, name, text);
        }
    }
}

static void format_magnitude(double value, moe_dimension dimension, char text[static 48])
{
    moe_decimal decimal;
    moe_decimal_shortest(value, &decimal);
    print_scaled(&decimal, dimension, text);
    if (dimension == MOE_BYTES || dimension == MOE_BANDWIDTH) {
        offer_binary(value, dimensions[dimension].unit, text);
    }
    if (dimension == MOE_SECONDS && value >= 60) {
        offer(value, 60, "min", text);
        offer(value, 3600, "h", text);
    }
}

/* Puts the sign before what `magnitude` says; NaN and infinities as C names them. */
static void with_sign(double value, moe_dimension dimension, char text[static 48],
                      void (*magnitude)(double, moe_dimension, char[static 48]))
{
    if (!isfinite(value)) {
        snprintf(text, 48, "%s", isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    magnitude(fabs(value), dimension, text + (value < 0));
    if (value < 0) {
        text[0] = '-';
    }
}

/* with_sign lends 47 bytes; the longest text is "2.2250738585072014e-308 FLOP/s". */
void moe_units_format(double value, moe_dimension dimension, char text[static 48])
{
    char wide[64];
    with_sign(value, dimension, wide, format_magnitude);
    memcpy(text, wide, 48);
    text[47] = '\0';
}

static void format_short_magnitude(double value, moe_dimension dimension, char text[static 48])
{
    const bool percent = dimension == MOE_FRACTION;
    const bool minutes = dimension == MOE_SECONDS && value >= 600,
               hours = minutes && value >= 36000;
    moe_decimal decimal;
    char number[MOE_DECIMAL_TEXT];
    moe_decimal_rounded(value / (hours ? 3600 : minutes ? 60 : 1), 3, &decimal);
    if (percent || minutes) {
        moe_decimal_print(&decimal, percent ? 2 : 0, number);
        snprintf(text, 48, "%s %s", number, hours ? "h" : minutes ? "min" : "%");
    } else {
        print_scaled(&decimal, dimension, text);
    }
}

void moe_units_format_short(double value, moe_dimension dimension, char text[static 48])
{
    char wide[64];
    with_sign(value, dimension, wide, format_short_magnitude);
    memcpy(text, wide, 48);
    text[47] = '\0';
}
