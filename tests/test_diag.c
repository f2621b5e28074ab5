#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the headers above first. */
#include "configs/base/diag.h"
#include "configs/base/utf8.h"
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* A diag whose output is compared as text. */
typedef struct capture {
    char *text;
    size_t size;
    FILE *stream;
    moe_diag *diag;
} capture;

static void begin(capture *c)
{
    c->stream = open_memstream(&c->text, &c->size);
    c->diag = moe_diag_create(NULL, c->stream);
}

static void finish(capture *c)
{
    fclose(c->stream);
    talloc_free(c->diag);
    free(c->text);
}

static void expect(capture *c, const char *expected)
{
    fflush(c->stream);
    assert_string_equal(c->text, expected);
    finish(c);
}

static const moe_source *source_of(capture *c, const char *text)
{
    return moe_diag_source(c->diag, "x.yaml", text, strlen(text));
}

static void shows_line_and_caret(void **state)
{
    (void)state;
    capture c;
    begin(&c);
    const moe_source *source = source_of(&c, "a: 1\n  bandwidth: 400 Gbs\nc: 2");
    moe_diag_error(c.diag, (moe_where){source, 2, 18}, "unknown unit \"%s\"", "Gbs");
    moe_diag_note(c.diag, (moe_where){source, 1, 1}, "first");
    moe_diag_warning(c.diag, (moe_where){source, 3, 5}, "past the end");
    assert_int_equal(moe_diag_error_count(c.diag), 1);
    expect(&c, "x.yaml:2:18: error: unknown unit \"Gbs\"\n"
               "    bandwidth: 400 Gbs\n"
               "                   ^\n"
               "x.yaml:1:1: note: first\n"
               "  a: 1\n"
               "  ^\n"
               "x.yaml:3:5: warning: past the end\n"
               "  c: 2\n"
               "      ^\n");
}

static void counts_characters_not_bytes(void **state)
{
    (void)state;
    capture c;
    begin(&c);
    const moe_source *source = source_of(&c, "größe: x\r\n");
    moe_diag_error(c.diag, (moe_where){source, 1, 8}, "bad");
    expect(&c, "x.yaml:1:8: error: bad\n"
               "  größe: x\n"
               "         ^\n");
}

static void places_without_a_line(void **state)
{
    (void)state;
    capture c;
    begin(&c);
    const moe_source *binary = moe_diag_source(c.diag, "t.bin", NULL, 0);
    moe_diag_error(c.diag, (moe_where){NULL, 0, 0}, "none");
    moe_diag_error(c.diag, (moe_where){binary, 0, 0}, "whole");
    moe_diag_error(c.diag, (moe_where){binary, 3, 4}, "no text");
    moe_diag_error(c.diag, (moe_where){source_of(&c, "a\n"), 900, 4}, "beyond");
    moe_diag_error(c.diag, (moe_where){source_of(&c, "a\n"), 1, 0}, "no column");
    expect(&c, "moeplan: error: none\n"
               "t.bin: error: whole\n"
               "t.bin:3:4: error: no text\n"
               "x.yaml:900:4: error: beyond\n"
               "x.yaml:1: error: no column\n");
}

static void defuses_hostile_text(void **state)
{
    (void)state;
    capture c;
    begin(&c);
    const char text[] = "a\tb\x1b[2J\xff\xc2\x9b\xe2\x80\xae z";
    const moe_source *source = moe_diag_source(c.diag, "n\x1b.yaml", text, sizeof text - 1);
    moe_diag_error(c.diag, (moe_where){source, 1, 4}, "found \"%s\"", "\x1b]0;\a\n");
    expect(&c, "n?.yaml:1:4: error: found \"?]0;??\"\n"
               "  a b?[2J??? z\n"
               "     ^\n");
}

static void cuts_long_lines(void **state)
{
    (void)state;
    char text[1001];
    memset(text, 'x', 1000);
    text[700] = '!';
    text[1000] = '\0';
    capture c;
    begin(&c);
    moe_diag_error(c.diag, (moe_where){source_of(&c, text), 1, 701}, "far");
    fflush(c.stream);
    const char *line = strchr(c.text, '\n') + 1, *carets = strchr(line, '\n') + 1;
    assert_true(carets - line < 120);
    assert_int_equal(line[strchr(carets, '^') - carets], '!');
    finish(&c);
}

/* Errors come in any order; the line cache must not matter. */
static void finds_lines_in_any_order(void **state)
{
    (void)state;
    capture c;
    begin(&c);
    const moe_source *source = source_of(&c, "one\ntwo\nthree\n");
    const int lines[] = {3, 1, 2, 2};
    for (int i = 0; i < 4; i++) {
        moe_diag_error(c.diag, (moe_where){source, lines[i], 1}, "e");
    }
    expect(&c, "x.yaml:3:1: error: e\n  three\n  ^\n"
               "x.yaml:1:1: error: e\n  one\n  ^\n"
               "x.yaml:2:1: error: e\n  two\n  ^\n"
               "x.yaml:2:1: error: e\n  two\n  ^\n");
}

static void stops_showing_but_counts(void **state)
{
    (void)state;
    capture c;
    begin(&c);
    for (int i = 0; i < 1000; i++) {
        moe_diag_error(c.diag, (moe_where){NULL, 0, 0}, "e");
        moe_diag_note(c.diag, (moe_where){NULL, 0, 0}, "n");
    }
    assert_int_equal(moe_diag_error_count(c.diag), 1000);
    fflush(c.stream);
    assert_true(c.size < 20000);
    assert_non_null(strstr(c.text, "more errors follow"));
    finish(&c);
}

static void counts_silently(void **state)
{
    (void)state;
    moe_diag *diag = moe_diag_create(NULL, NULL);
    moe_diag_error(diag, (moe_where){NULL, 0, 0}, "e");
    moe_diag_note(diag, (moe_where){NULL, 0, 0}, "n");
    moe_diag_warning(diag, (moe_where){NULL, 0, 0}, "w");
    assert_int_equal(moe_diag_error_count(diag), 1);
    talloc_free(diag);
}

static void finds_the_closest_word(void **state)
{
    (void)state;
    static const char *const words[] = {"hosts", "bandwidth", "latency", "ep"};
    char long_word[300];
    memset(long_word, 'h', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = '\0';
    assert_string_equal(moe_closest("hots", words, 4), "hosts");
    assert_string_equal(moe_closest("hsots", words, 4), "hosts"); /* one transposition */
    assert_string_equal(moe_closest("bandwith", words, 4), "bandwidth");
    assert_string_equal(moe_closest("pe", words, 4), "ep");
    assert_null(moe_closest("zebra", words, 4));
    assert_null(moe_closest(long_word, words, 4));
    assert_null(moe_closest("", words, 4));
    assert_null(moe_closest("hosts", NULL, 0));
}

static void decodes_strict_utf8(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "", "\x80", "\xc0\xaf", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff"};
    uint32_t point = 0;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        assert_int_equal(moe_utf8_decode(refused[i], strlen(refused[i]), &point), 0);
    }
    assert_int_equal(moe_utf8_decode("\xf0\x9f\x98\x80", 4, &point), 4);
    assert_int_equal(point, 0x1f600);
    assert_int_equal(moe_utf8_decode("\xf0\x9f\x98\x80", 3, &point), 0);
    assert_int_equal(moe_utf8_count("ö\xff"
                                    "a",
                                    4),
                     3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_line_and_caret),     cmocka_unit_test(counts_characters_not_bytes),
        cmocka_unit_test(places_without_a_line),    cmocka_unit_test(defuses_hostile_text),
        cmocka_unit_test(cuts_long_lines),          cmocka_unit_test(finds_lines_in_any_order),
        cmocka_unit_test(stops_showing_but_counts), cmocka_unit_test(counts_silently),
        cmocka_unit_test(finds_the_closest_word),   cmocka_unit_test(decodes_strict_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
