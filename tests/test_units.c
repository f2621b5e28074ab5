#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the headers above first. */
#include "configs/base/random.h"
#include "configs/base/units.h"
#include <cmocka.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct parse_case {
    moe_dimension dimension;
    const char *text;
    double value;
} parse_case;

/* Values are C literals: the parser has to round as the compiler does. */
static const parse_case good[] = {
    {MOE_BANDWIDTH, "400 Gb/s", 5e10},
    {MOE_BANDWIDTH, "50 GB/s", 5e10},
    {MOE_BANDWIDTH, "50GB/s", 5e10},
    {MOE_BANDWIDTH, "1 KiB/s", 1024},
    {MOE_BANDWIDTH, "1 b/s", 0.125},
    {MOE_BANDWIDTH, "0", 0},
    {MOE_BYTES, "40 GiB", 42949672960.0},
    {MOE_BYTES, "2.5 MB", 2.5e6},
    {MOE_BYTES, "1 kb", 125},
    {MOE_BYTES, "1 PiB", 1125899906842624.0},
    {MOE_SECONDS, "1.6e-5 s", 1.6e-5},
    {MOE_SECONDS, "16 us", 1.6e-5},
    {MOE_SECONDS, "1.3 us", 1.3e-6},
    {MOE_SECONDS, "0.7 ns", 0.7e-9},
    {MOE_SECONDS, "333 ms", 0.333},
    {MOE_SECONDS, "1.5 h", 5400},
    {MOE_SECONDS, "2 min", 120},
    {MOE_SECONDS, "1E3s", 1000},
    {MOE_FLOP, "2 TFLOP", 2e12},
    {MOE_FLOP_PER_S, "312 TFLOP/s", 3.12e14},
    {MOE_FLOP_PER_S, "1 EFLOP/s", 1e18},
    {MOE_FRACTION, "20/132", 20.0 / 132.0},
    {MOE_FRACTION, "20 / 132", 20.0 / 132.0},
    {MOE_FRACTION, "15 %", 0.15},
    {MOE_FRACTION, "15%", 0.15},
    {MOE_FRACTION, "0.7 %", 0.007},
    {MOE_FRACTION, "0.15", 0.15},
    {MOE_NUMBER, "1.1", 1.1},
    {MOE_NUMBER, ".5", 0.5},
    {MOE_NUMBER, "5.", 5},
    {MOE_NUMBER, "1.7976931348623157e308", 1.7976931348623157e308},
    {MOE_NUMBER, "5e-324", 5e-324},
    {MOE_NUMBER, "0.000000000000000000000000000000000000000000000000000001e54", 1},
    {MOE_COUNT, "32", 32},
    {MOE_COUNT, "4k", 4000},
    {MOE_COUNT, "1.5k", 1500},
    {MOE_COUNT, "2 M", 2e6},
    {MOE_COUNT, "1e6", 1e6},
    {MOE_COUNT, "9007199254740992", 9007199254740992.0},
    {MOE_MONEY_PER_HOUR, "$2.50/h", 2.5},
    {MOE_MONEY_PER_HOUR, "$0/h", 0},
    {MOE_MONEY_PER_HOUR, "0", 0},
};

typedef struct error_case {
    moe_dimension dimension;
    const char *text;
    const char *caret;   /* "^" under the offending character */
    const char *message; /* a part of it */
} error_case;

static const error_case bad[] = {
    {MOE_BANDWIDTH, "400 Gbs", "    ^",
     "unknown unit \"Gbs\" in \"400 Gbs\"; expected a bandwidth such as \"400 Gb/s\""},
    {MOE_BANDWIDTH, "400", "   ^", "no unit in \"400\"; expected a bandwidth"},
    {MOE_BANDWIDTH, "400 Gb", "    ^", "\"Gb\" is a unit of bytes; expected a bandwidth"},
    {MOE_BYTES, "40 gb", "   ^", "case matters, expected \"GB\" (bytes) or \"Gb\" (bits)"},
    {MOE_BYTES, "40 KB", "   ^", "case matters, expected \"kB\" (bytes) or \"kb\" (bits)"},
    {MOE_BYTES, "40 GB x", "   ^", "unknown unit \"GB x\""},
    {MOE_BYTES, "", "^", "\"\" is not a number; expected an amount of bytes"},
    {MOE_BYTES, " 1 B", "^", "is not a number"},
    {MOE_BYTES, "1 B ", "  ^", "unknown unit \"B \""},
    {MOE_SECONDS, "5 parsec", "  ^", "unknown unit \"parsec\""},
    {MOE_SECONDS, "-5 s", "^", "a sign in \"-5 s\""},
    {MOE_SECONDS, "+5 s", "^", "a sign in"},
    {MOE_SECONDS, "nan", "^", "\"nan\" is not a number"},
    {MOE_SECONDS, "inf", "^", "\"inf\" is not a number"},
    {MOE_SECONDS, "1e400 s", "^", "too large or too small"},
    {MOE_SECONDS, "1e-400 s", "^", "too large or too small"},
    {MOE_SECONDS, "1e306 h", "^", "too large or too small"},
    {MOE_SECONDS, "1e", " ^", "unknown unit \"e\""},
    {MOE_SECONDS, "1,5 s", " ^", "unknown unit \",5 s\""},
    {MOE_SECONDS, ".", "^", "is not a number"},
    {MOE_FLOP_PER_S, "312 TFLOPS", "    ^", "unknown unit \"TFLOPS\""},
    {MOE_FRACTION, "1/0", "  ^", "division by zero"},
    {MOE_FRACTION, "1/", "  ^", "is not a number"},
    {MOE_FRACTION, "1/2/3", "   ^", "unknown unit \"/3\""},
    {MOE_FRACTION, "1e308/1e-308", "^", "too large or too small"},
    {MOE_COUNT, "1.5", "^", "\"1.5\" is not whole"},
    {MOE_COUNT, "9007199254740993", "^", "above 2^53"},
    {MOE_COUNT, "1.00000000000000000001", "^", "is not whole"},
    {MOE_COUNT, "1e20", "^", "above 2^53"},
    {MOE_COUNT, "0x10", " ^", "unknown unit \"x10\""},
    {MOE_COUNT, "4 T", "  ^", "unknown unit \"T\""},
    {MOE_COUNT, "4 K", "  ^", "case matters, expected \"k\""},
    {MOE_NUMBER, "1 s", "  ^", "\"s\" is a unit of time; expected a number"},
    {MOE_MONEY_PER_HOUR, "2.50/h", "^", "no \"$\" in \"2.50/h\""},
    {MOE_MONEY_PER_HOUR, "$2.50", "     ^", "no unit in \"$2.50\""},
    {MOE_MONEY_PER_HOUR, "$2.50/min", "     ^", "unknown unit \"/min\""},
};

static void parses_exactly(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        moe_units_error error = {0};
        double value = -1;
        if (!moe_units_parse(good[i].text, strlen(good[i].text), good[i].dimension, &value,
                             &error)) {
            fail_msg("%s: %s", good[i].text, error.message);
        }
        if (value != good[i].value) {
            fail_msg("%s: %.17g instead of %.17g", good[i].text, value, good[i].value);
        }
    }
}

static void refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        moe_units_error error = {0};
        double value = 2.385;
        if (moe_units_parse(bad[i].text, strlen(bad[i].text), bad[i].dimension, &value, &error)) {
            fail_msg("\"%s\" was accepted as %g", bad[i].text, value);
        }
        assert_true(value == 2.385);
        if (error.offset != strlen(bad[i].caret) - 1 || !strstr(error.message, bad[i].message)) {
            fail_msg("\"%s\": at %zu: %s", bad[i].text, error.offset, error.message);
        }
        assert_non_null(strstr(error.message, "xpected "));
    }
}

static void quotes_hostile_texts_shortly(void **state)
{
    (void)state;
    char text[5000];
    moe_units_error error;
    double value;
    memset(text, 'z', sizeof text);
    assert_false(moe_units_parse(text, sizeof text, MOE_SECONDS, &value, &error));
    memset(text, '1', sizeof text);
    assert_false(moe_units_parse(text, sizeof text, MOE_SECONDS, &value, &error));
    assert_non_null(strstr(error.message, "digits"));
    memset(text, '0', sizeof text); /* not significant, but nobody writes them */
    assert_false(moe_units_parse(text, sizeof text, MOE_SECONDS, &value, &error));
}

static void signs_only_where_asked(void **state)
{
    (void)state;
    moe_units_error error;
    double value = 0;
    assert_true(moe_units_parse_signed("-1.5 us", 7, MOE_SECONDS, &value, &error));
    assert_true(value == -1.5e-6);
    assert_true(moe_units_parse_signed("+3", 2, MOE_COUNT, &value, &error));
    assert_true(value == 3);
    assert_false(moe_units_parse_signed("--3", 3, MOE_COUNT, &value, &error));
    assert_int_equal(error.offset, 1);
}

typedef struct format_case {
    moe_dimension dimension;
    double value;
    const char *exact;
    const char *brief;
} format_case;

static const format_case formats[] = {
    {MOE_BANDWIDTH, 5e10, "50 GB/s", "50 GB/s"},
    {MOE_BANDWIDTH, 12.3456e9, "12.3456 GB/s", "12.3 GB/s"},
    {MOE_BYTES, 42949672960.0, "40 GiB", "42.9 GB"},
    {MOE_BYTES, 1e9, "1 GB", "1 GB"},
    {MOE_BYTES, 1024000, "1.024 MB", "1.02 MB"},
    {MOE_BYTES, 1024, "1 KiB", "1.02 kB"},
    {MOE_BYTES, 0.125, "0.125 B", "0.125 B"},
    {MOE_BYTES, 0, "0 B", "0 B"},
    {MOE_SECONDS, 6e-6, "6 us", "6 us"},
    {MOE_SECONDS, 1.3e-6, "1.3 us", "1.3 us"},
    {MOE_SECONDS, 0.0123456, "12.3456 ms", "12.3 ms"},
    {MOE_SECONDS, 0.9999e-3, "999.9 us", "1 ms"},
    {MOE_SECONDS, 1e-12, "0.001 ns", "0.001 ns"},
    {MOE_SECONDS, 1e-20, "1e-20 s", "1e-20 s"},
    {MOE_SECONDS, 90, "90 s", "90 s"},
    {MOE_SECONDS, 5400, "1.5 h", "90 min"},
    {MOE_SECONDS, 86400, "24 h", "24 h"},
    {MOE_FLOP_PER_S, 3.12e14, "312 TFLOP/s", "312 TFLOP/s"},
    {MOE_FRACTION, 20.0 / 132.0, "0.15151515151515152", "15.2 %"},
    {MOE_FRACTION, 1, "1", "100 %"},
    {MOE_FRACTION, 0.79e308, "7.9e307", "7.9e309 %"}, /* a hundred times it is no double */
    {MOE_NUMBER, 1.0 / 3.0, "0.3333333333333333", "0.333"},
    {MOE_NUMBER, -0.1, "-0.1", "-0.1"},
    {MOE_NUMBER, 1e300, "1e300", "1e300"},
    {MOE_NUMBER, 1.25e-9, "1.25e-9", "1.25e-9"},
    {MOE_COUNT, 4096, "4096", "4100"},
    {MOE_MONEY_PER_HOUR, 2.5, "$2.50/h", "$2.50/h"},
    {MOE_MONEY_PER_HOUR, 3, "$3/h", "$3/h"},
};

static void formats_as_a_reader_would(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        char text[48];
        moe_units_format(formats[i].value, formats[i].dimension, text);
        assert_string_equal(text, formats[i].exact);
        moe_units_format_short(formats[i].value, formats[i].dimension, text);
        assert_string_equal(text, formats[i].brief);
    }
}

static void round_trip(double value, moe_dimension dimension)
{
    char text[48], brief[48];
    moe_units_error error;
    double back = -1;
    moe_units_format(value, dimension, text);
    moe_units_format_short(value, dimension, brief);
    if (!moe_units_parse_signed(text, strlen(text), dimension, &back, &error) || back != value) {
        fail_msg("%.17g of %s became \"%s\" and %.17g", value, moe_dimension_name(dimension), text,
                 back);
    }
    assert_true(moe_units_parse_signed(brief, strlen(brief), dimension, &back, &error) ||
                dimension == MOE_COUNT);
}

/* Any double survives: of every magnitude, and of those that people write. */
static void formats_round_trip(void **state)
{
    (void)state;
    gsl_rng *random = moe_random_create(20240607, "test units", 0);
    for (int i = 0; i < 200000; i++) {
        const moe_dimension dimension =
            (moe_dimension)gsl_rng_uniform_int(random, MOE_DIMENSION_COUNT);
        double value =
            ldexp(gsl_rng_uniform_pos(random), (int)gsl_rng_uniform_int(random, 2000) - 1000);
        if (i % 2 == 0) {
            const double mantissa = (double)gsl_rng_uniform_int(random, 10000);
            value = mantissa * pow(10, (double)gsl_rng_uniform_int(random, 30) - 15);
        }
        if (dimension == MOE_COUNT) {
            value = floor(fmod(value, 9007199254740992.0));
        }
        round_trip(i % 3 == 0 ? -value : value, dimension);
    }
    gsl_rng_free(random);
}

static void ignores_the_locale(void **state)
{
    (void)state;
    char text[48];
    moe_units_error error;
    double value = 0;
    if (!setlocale(LC_ALL, "de_DE.UTF-8") && !setlocale(LC_ALL, "fr_FR.UTF-8")) {
        skip();
    }
    const bool parsed = moe_units_parse("1.5 us", 6, MOE_SECONDS, &value, &error);
    moe_units_format(1.5e-6, MOE_SECONDS, text);
    setlocale(LC_ALL, "C");
    assert_true(parsed && value == 1.5e-6);
    assert_string_equal(text, "1.5 us");
}

static void every_expectation_parses(void **state)
{
    (void)state;
    for (int dimension = 0; dimension < MOE_DIMENSION_COUNT; dimension++) {
        int examples = 0;
        for (const char *at = moe_dimension_expectation(dimension); (at = strchr(at, '"'));
             examples++) {
            const char *end = strchr(at + 1, '"');
            moe_units_error error;
            double value;
            assert_true(moe_units_parse(at + 1, (size_t)(end - at - 1), dimension, &value, &error));
            at = end + 1;
        }
        assert_true(examples > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_exactly),
        cmocka_unit_test(refuses),
        cmocka_unit_test(quotes_hostile_texts_shortly),
        cmocka_unit_test(signs_only_where_asked),
        cmocka_unit_test(formats_as_a_reader_would),
        cmocka_unit_test(formats_round_trip),
        cmocka_unit_test(ignores_the_locale),
        cmocka_unit_test(every_expectation_parses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
