/* The unit grammar: text such as "400 Gb/s" to a number in base units, and back. Pure functions.
 *
 *   quantity   := number [space] unit           number := a C decimal float, no sign unless allowed
 *   bytes      := [k M G T P | Ki Mi Gi Ti Pi] (B | b)          b is a bit: 1/8 byte; case matters
 *   bandwidth  := bytes "/s"                                    always per direction
 *   time       := s ms us ns min h
 *   flop       := [k M G T P E] (FLOP)   flop rate := flop "/s"
 *   fraction   := number | number "%" | number "/" number        0.15, 15 %, 20/132
 *   number     := a plain number, integers may carry k M G suffixes only where dimension is COUNT
 *
 * Decimal prefixes are powers of 1000, binary ones (Ki ...) powers of 1024. A number without its
 * unit where one is due is an error, except 0. NaN, infinities, overflow and (where not allowed)
 * negative values are refused. */
#ifndef MOE_CONFIGS_BASE_UNITS_H
#define MOE_CONFIGS_BASE_UNITS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum moe_dimension {
    MOE_NUMBER,         /* plain real number */
    MOE_COUNT,          /* integer */
    MOE_FRACTION,       /* plain real number, percent or ratio */
    MOE_BYTES,          /* bytes */
    MOE_BANDWIDTH,      /* bytes per second and direction */
    MOE_SECONDS,        /* seconds */
    MOE_FLOP,           /* floating-point operations */
    MOE_FLOP_PER_S,     /* floating-point operations per second */
    MOE_MONEY_PER_HOUR, /* US dollars per hour: "$2.50/h" */
    MOE_DIMENSION_COUNT
} moe_dimension;

typedef struct moe_units_error {
    size_t offset;     /* byte offset of the offending character in the text */
    char message[160]; /* what was found and what was expected */
} moe_units_error;

/* "a bandwidth such as \"400 Gb/s\" or \"50 GB/s\"": what a message says it expected. */
const char *moe_dimension_expectation(moe_dimension dimension);
const char *moe_dimension_name(moe_dimension dimension);

/* Parses all of `text`. On failure *value is untouched and *error says why. */
bool moe_units_parse(const char *text, size_t length, moe_dimension dimension, double *value,
                     moe_units_error *error);

/* As above, with one leading "-" or "+" allowed. */
bool moe_units_parse_signed(const char *text, size_t length, moe_dimension dimension, double *value,
                            moe_units_error *error);

/* Writes the shortest text that parses back (signed, if it is negative) to the same double into
 * `text` (at least 48 bytes); picks the prefix a reader would ("50 GB/s", "6 us", "40 GiB" if
 * exactly binary). */
void moe_units_format(double value, moe_dimension dimension, char text[static 48]);

/* For people: three significant digits ("12.3 ms", "1.84 GB"), never parsed back. */
void moe_units_format_short(double value, moe_dimension dimension, char text[static 48]);

#endif
