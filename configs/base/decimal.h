/* Decimal numbers as texts: digits and an exponent, so that "16 us" is read as 16e-6 with one
 * correct rounding instead of 16 times a rounded 1e-6, and so that no locale's decimal point
 * matters. */
#ifndef MOE_CONFIGS_BASE_DECIMAL_H
#define MOE_CONFIGS_BASE_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOE_DECIMAL_DIGITS = 120, MOE_DECIMAL_TEXT = 40 };

/* digits (no leading or trailing zeros; "" is zero) times ten to the exponent. */
typedef struct moe_decimal {
    char digits[MOE_DECIMAL_DIGITS + 1];
    int count;
    int exponent;
} moe_decimal;

/* Reads [digits] [. digits] [e [sign] digits] at the start of the text; returns the bytes it took,
 * 0 when there is no number. More than MOE_DECIMAL_DIGITS significant digits: count is -1. */
size_t moe_decimal_scan(const char *text, size_t length, moe_decimal *decimal);

/* The nearest double of decimal * 10^shift; false when it overflows, or underflows to zero. */
bool moe_decimal_to_double(const moe_decimal *decimal, int shift, double *value);

/* Exactly decimal * 10^shift, when that is an integer of at most 2^53. *fraction says why not. */
bool moe_decimal_to_integer(const moe_decimal *decimal, int shift, double *value, bool *fraction);

/* The fewest digits that read back as the same double; `value` finite and not negative. */
void moe_decimal_shortest(double value, moe_decimal *decimal);

/* `value` to so many significant digits; finite and not negative. */
void moe_decimal_rounded(double value, int significant, moe_decimal *decimal);

/* Power of ten of the first digit: 2 for 123. */
int moe_decimal_magnitude(const moe_decimal *decimal);

/* Writes decimal * 10^shift, plain or, where that is long, with an exponent. Of at most 17 digits.
 */
void moe_decimal_print(const moe_decimal *decimal, int shift, char text[static MOE_DECIMAL_TEXT]);

#endif
