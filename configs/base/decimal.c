#include "configs/base/decimal.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPONENT_LIMIT = 100000, DOUBLE_DIGITS = 17, LONGEST_PLAIN = 17, MOST_LEADING_ZEROS = 5 };

static bool digit_at(const char *text, size_t length, size_t at)
{
    return at < length && text[at] >= '0' && text[at] <= '9';
}

/* Appends a digit that is worth 10^place; leading zeros are not kept, too many digits set count -1.
 */
static void append(moe_decimal *decimal, char digit)
{
    if (decimal->count < 0 || (decimal->count == 0 && digit == '0')) {
        return;
    }
    if (decimal->count == MOE_DECIMAL_DIGITS) {
        decimal->count = -1;
        return;
    }
    decimal->digits[decimal->count++] = digit;
}

static void strip_trailing_zeros(moe_decimal *decimal)
{
    while (decimal->count > 0 && decimal->digits[decimal->count - 1] == '0') {
        decimal->count--;
        decimal->exponent++;
    }
    if (decimal->count == 0) {
        decimal->exponent = 0;
    }
    if (decimal->count >= 0) {
        decimal->digits[decimal->count] = '\0';
    }
}

/* [e [sign] digits] at `at`; returns where it ends, `at` itself when there is none. */
static size_t scan_exponent(const char *text, size_t length, size_t at, int *exponent)
{
    size_t next = at;
    if (next >= length || (text[next] != 'e' && text[next] != 'E')) {
        return at;
    }
    next++;
    const bool negative = next < length && text[next] == '-';
    if (next < length && (text[next] == '-' || text[next] == '+')) {
        next++;
    }
    if (!digit_at(text, length, next)) {
        return at;
    }
    int value = 0;
    for (; digit_at(text, length, next); next++) {
        value = value >= EXPONENT_LIMIT ? EXPONENT_LIMIT : value * 10 + (text[next] - '0');
    }
    *exponent += negative ? -value : value;
    return next;
}

size_t moe_decimal_scan(const char *text, size_t length, moe_decimal *decimal)
{
    size_t at = 0, digits = 0;
    *decimal = (moe_decimal){.count = 0};
    for (; digit_at(text, length, at); at++, digits++) {
        append(decimal, text[at]);
    }
    if (at < length && text[at] == '.') {
        for (at++; digit_at(text, length, at); at++, digits++) {
            append(decimal, text[at]);
            decimal->exponent -= decimal->exponent > -EXPONENT_LIMIT;
        }
    }
    if (digits == 0) {
        return 0;
    }
    at = scan_exponent(text, length, at, &decimal->exponent);
    strip_trailing_zeros(decimal);
    return at;
}

bool moe_decimal_to_double(const moe_decimal *decimal, int shift, double *value)
{
    if (decimal->count == 0) {
        *value = 0;
        return true;
    }
    char
        text[MOE_DECIMAL_DIGITS + 16]; /* no decimal point: strtod reads it alike in every locale */
    snprintf(text, sizeof text, "%se%d", decimal->digits, decimal->exponent + shift);
    const double parsed = strtod(text, NULL);
    if (!isfinite(parsed) || parsed == 0) {
        return false;
    }
    *value = parsed;
    return true;
}

bool moe_decimal_to_integer(const moe_decimal *decimal, int shift, double *value, bool *fraction)
{
    const uint64_t most = UINT64_C(1) << 53;
    int zeros = decimal->count > 0 ? decimal->exponent + shift : 0;
    uint64_t integer = 0;
    *fraction = zeros < 0;
    if (*fraction) {
        return false;
    }
    for (int i = 0; i < decimal->count || zeros > 0; i++) {
        const bool own = i < decimal->count;
        zeros -= !own;
        integer = integer * 10 + (own ? (uint64_t)(decimal->digits[i] - '0') : 0);
        if (integer > most) {
            return false;
        }
    }
    *value = (double)integer;
    return true;
}

void moe_decimal_rounded(double value, int significant, moe_decimal *decimal)
{
    char text[64];
    snprintf(text, sizeof text, "%.*e", significant - 1, value);
    *decimal = (moe_decimal){.exponent = 0};
    const char *at = text;
    for (; *at != 'e'; at++) { /* the locale's decimal point is passed over */
        if (isdigit((unsigned char)*at)) {
            append(decimal, *at);
        }
    }
    decimal->exponent = (int)strtol(at + 1, NULL, 10) - (significant - 1);
    strip_trailing_zeros(decimal);
}

void moe_decimal_shortest(double value, moe_decimal *decimal)
{
    for (int significant = 1; significant <= DOUBLE_DIGITS; significant++) {
        double back = 0;
        moe_decimal_rounded(value, significant, decimal);
        if (moe_decimal_to_double(decimal, 0, &back) && back == value) {
            return;
        }
    }
}

int moe_decimal_magnitude(const moe_decimal *decimal)
{
    return decimal->count > 0 ? decimal->exponent + decimal->count - 1 : 0;
}

static void print_scientific(const moe_decimal *decimal, int magnitude,
                             char text[static MOE_DECIMAL_TEXT])
{
    const char *point = decimal->count > 1 ? "." : "";
    snprintf(text, MOE_DECIMAL_TEXT, "%c%s%.17se%d", decimal->digits[0], point, decimal->digits + 1,
             magnitude);
}

void moe_decimal_print(const moe_decimal *decimal, int shift, char text[static MOE_DECIMAL_TEXT])
{
    const int magnitude = moe_decimal_magnitude(decimal) + (decimal->count > 0 ? shift : 0);
    if (decimal->count == 0) {
        strcpy(text, "0");
    } else if (magnitude >= LONGEST_PLAIN || magnitude < -MOST_LEADING_ZEROS) {
        print_scientific(decimal, magnitude, text);
    } else if (magnitude < 0) {
        snprintf(text, MOE_DECIMAL_TEXT, "0.%.*s%.17s", -magnitude - 1, "00000000",
                 decimal->digits);
    } else if (decimal->count <= magnitude + 1) {
        snprintf(text, MOE_DECIMAL_TEXT, "%.17s%.*s", decimal->digits,
                 magnitude + 1 - decimal->count, "00000000000000000");
    } else {
        snprintf(text, MOE_DECIMAL_TEXT, "%.*s.%.17s", magnitude + 1, decimal->digits,
                 decimal->digits + magnitude + 1);
    }
}
