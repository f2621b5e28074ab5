#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the headers above first. */
#include "configs/base/input.h"
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <talloc.h>
#include <unistd.h>

typedef struct folder {
    char path[64];
    moe_diag *diag;
    char *messages;
    size_t size;
    FILE *stream;
} folder;

static int enter(void **state)
{
    folder *f = talloc_zero(NULL, folder);
    strcpy(f->path, "/tmp/moeplan-test-XXXXXX");
    f->stream = open_memstream(&f->messages, &f->size);
    f->diag = moe_diag_create(f, f->stream);
    *state = f;
    return mkdtemp(f->path) && chdir(f->path) == 0 ? 0 : -1;
}

static int leave(void **state)
{
    folder *f = *state;
    const int failed = chdir("/tmp") | rmdir(f->path);
    fclose(f->stream);
    free(f->messages);
    talloc_free(f);
    return failed;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void refuse(folder *f, const char *path, size_t limit, const char *message)
{
    const int before = moe_diag_error_count(f->diag);
    size_t length = 7;
    assert_null(moe_input_read(f, path, limit, &length, (moe_where){.source = NULL}, f->diag));
    assert_int_equal(moe_diag_error_count(f->diag), before + 1);
    fflush(f->stream);
    if (!strstr(f->messages, message)) {
        fail_msg("\"%s\" instead of \"%s\"", f->messages, message);
    }
}

static void reads_whole_files(void **state)
{
    folder *f = *state;
    size_t length = 0;
    write_file("a", "text\n");
    char *text = moe_input_read(f, "a", 5, &length, (moe_where){.source = NULL}, f->diag);
    assert_string_equal(text, "text\n");
    assert_int_equal(length, 5);
    write_file("a", "");
    text = moe_input_read(f, "a", 5, &length, (moe_where){.source = NULL}, f->diag);
    assert_string_equal(text, "");
    assert_int_equal(length, 0);
    unlink("a");
}

static void refuses_what_is_no_file(void **state)
{
    folder *f = *state;
    refuse(f, "nowhere", 10, "cannot open \"nowhere\": No such file or directory");
    refuse(f, ".", 10, "\".\" is a folder; expected a file");
    refuse(f, "/dev/zero", 10, "\"/dev/zero\" is not a regular file");
    assert_int_equal(mkfifo("pipe", 0600), 0);
    refuse(f, "pipe", 10, "\"pipe\" is not a regular file");
    unlink("pipe");
    write_file("big", "0123456789");
    refuse(f, "big", 9, "\"big\" has 10 bytes; expected at most 9");
    /* A sparse file larger than memory costs nothing to refuse. */
    assert_int_equal(truncate("big", (off_t)1 << 40), 0);
    refuse(f, "big", SIZE_MAX, "expected at most");
    unlink("big");
}

static void names_the_place(void **state)
{
    folder *f = *state;
    size_t length;
    const moe_source *source = moe_diag_source(f->diag, "s.yaml", "a: nowhere\n", 11);
    assert_null(moe_input_read(f, "nowhere", 10, &length, (moe_where){source, 1, 4}, f->diag));
    fflush(f->stream);
    assert_non_null(strstr(f->messages, "s.yaml:1:4: error: cannot open \"nowhere\""));
}

static void resolves_relative_to_the_file(void **state)
{
    folder *f = *state;
    assert_string_equal(moe_input_resolve(f, "a/b.yaml", "../c"), "a/../c");
    assert_string_equal(moe_input_resolve(f, "/a/b.yaml", "c"), "/a/c");
    assert_string_equal(moe_input_resolve(f, "/b.yaml", "c"), "/c");
    assert_string_equal(moe_input_resolve(f, "b.yaml", "c"), "c");
    assert_string_equal(moe_input_resolve(f, "a/b.yaml", "/c"), "/c");
    assert_string_equal(moe_input_resolve(f, NULL, "c"), "c");
}

static void digests_as_zlib_does(void **state)
{
    (void)state;
    char hex[9];
    moe_digest("123456789", 9, hex); /* the check value of CRC-32/ISO-HDLC */
    assert_string_equal(hex, "cbf43926");
    moe_digest("", 0, hex);
    assert_string_equal(hex, "00000000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_whole_files, enter, leave),
        cmocka_unit_test_setup_teardown(refuses_what_is_no_file, enter, leave),
        cmocka_unit_test_setup_teardown(names_the_place, enter, leave),
        cmocka_unit_test_setup_teardown(resolves_relative_to_the_file, enter, leave),
        cmocka_unit_test(digests_as_zlib_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
