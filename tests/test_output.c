#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the headers above first. */
#include "configs/base/output.h"
#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

/* Fails when a test left anything behind. */
static int leave(void **state)
{
    folder *f = *state;
    const int failed = chdir("/tmp") | rmdir(f->path);
    fclose(f->stream);
    free(f->messages);
    talloc_free(f);
    return failed;
}

static void expect_text(const char *path, const char *expected)
{
    char text[64] = "";
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(text, expected);
}

static void expect_message(folder *f, const char *message)
{
    fflush(f->stream);
    assert_string_equal(f->messages, message);
}

static int entries(const char *path)
{
    DIR *opened = opendir(path);
    int count = 0;
    assert_non_null(opened);
    for (const struct dirent *entry; (entry = readdir(opened));) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(opened);
    return count;
}

static moe_status write_whole(folder *f, const char *path, const char *text)
{
    moe_output *output = moe_output_open(f, path, f->diag);
    if (!output) {
        return MOE_BAD_INPUT;
    }
    fputs(text, moe_output_stream(output));
    return moe_output_commit(output, f->diag);
}

static void appears_whole_on_commit(void **state)
{
    folder *f = *state;
    const mode_t old = umask(027);
    moe_output *output = moe_output_open(f, "a", f->diag);
    fputs("new", moe_output_stream(output));
    fflush(moe_output_stream(output));
    assert_int_equal(access("a", F_OK), -1);
    assert_int_equal(moe_output_commit(output, f->diag), MOE_OK);
    umask(old);
    struct stat status;
    assert_int_equal(stat("a", &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
    expect_text("a", "new");
    assert_int_equal(entries("."), 1);
    unlink("a");
}

static void keeps_the_old_file_until_then(void **state)
{
    folder *f = *state;
    assert_int_equal(write_whole(f, "a", "old"), MOE_OK);
    moe_output *output = moe_output_open(f, "a", f->diag);
    fputs("new", moe_output_stream(output));
    expect_text("a", "old");
    moe_output_abort(output);
    expect_text("a", "old");
    assert_int_equal(entries("."), 1);
    assert_int_equal(write_whole(f, "a", "newer"), MOE_OK);
    expect_text("a", "newer");
    unlink("a");
}

static void freeing_the_owner_aborts(void **state)
{
    folder *f = *state;
    void *owner = talloc_new(f);
    fputs("x", moe_output_stream(moe_output_open(owner, "a", f->diag)));
    fputs("y", moe_output_stream(moe_output_open(owner, "a", f->diag)));
    assert_int_equal(entries("."), 2);
    talloc_free(owner);
    assert_int_equal(entries("."), 0);
}

static void links_stay_links(void **state)
{
    folder *f = *state;
    struct stat status;
    assert_int_equal(write_whole(f, "target", "old"), MOE_OK);
    assert_int_equal(symlink("target", "link"), 0);
    assert_int_equal(write_whole(f, "link", "new"), MOE_OK);
    assert_int_equal(lstat("link", &status), 0);
    assert_true(S_ISLNK(status.st_mode));
    expect_text("target", "new");
    unlink("link");
    unlink("target");
}

static void devices_are_written_directly(void **state)
{
    folder *f = *state;
    struct stat status;
    assert_int_equal(write_whole(f, "/dev/null", "x"), MOE_OK);
    assert_int_equal(stat("/dev/null", &status), 0);
    assert_true(S_ISCHR(status.st_mode));
    assert_int_equal(write_whole(f, "/dev/full", "x"), MOE_INTERNAL);
    expect_message(f, "moeplan: error: cannot write \"/dev/full\": No space left on device\n");
}

static void refuses_impossible_places(void **state)
{
    folder *f = *state;
    assert_null(moe_output_open(f, "nowhere/a", f->diag));
    expect_message(f, "moeplan: error: cannot create \"nowhere/a\": No such file or directory\n");
    assert_null(moe_output_open(f, ".", f->diag));
    assert_null(moe_output_open(f, "", f->diag));
    assert_int_equal(moe_diag_error_count(f->diag), 3);
    assert_int_equal(entries("."), 0);
}

/* A file size limit fails like a full disk: in the middle of a write. */
static void a_full_disk_is_reported_once(void **state)
{
    folder *f = *state;
    const struct rlimit small = {20000, RLIM_INFINITY};
    struct rlimit before;
    assert_int_equal(write_whole(f, "a", "old"), MOE_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    moe_output *output = moe_output_open(f, "a", f->diag);
    for (int i = 0; i < 100000; i++) {
        fputc('x', moe_output_stream(output));
    }
    const moe_status early = moe_output_commit(output, f->diag);
    output = moe_output_open(f, "a", f->diag);
    setvbuf(moe_output_stream(output), NULL, _IOFBF, 1 << 16);
    for (int i = 0; i < 30000; i++) { /* stays in the buffer: only the commit finds out */
        fputc('x', moe_output_stream(output));
    }
    const moe_status late = moe_output_commit(output, f->diag);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(early, MOE_INTERNAL);
    assert_int_equal(late, MOE_INTERNAL);
    expect_message(f, "moeplan: error: cannot write \"a\": File too large\n"
                      "moeplan: error: cannot write \"a\": File too large\n");
    expect_text("a", "old");
    assert_int_equal(entries("."), 1);
    unlink("a");
}

static void creates_folders(void **state)
{
    folder *f = *state;
    assert_int_equal(moe_folder_create("a/b/c", f->diag), MOE_OK);
    assert_int_equal(moe_folder_create("a//b/", f->diag), MOE_OK);
    assert_int_equal(moe_folder_create("/", f->diag), MOE_OK);
    assert_int_equal(entries("a/b"), 1);
    assert_int_equal(write_whole(f, "a/file", "x"), MOE_OK);
    assert_int_equal(moe_folder_create("a/file/d", f->diag), MOE_BAD_INPUT);
    expect_message(f, "moeplan: error: \"a/file\" is a file; expected a folder\n");
    unlink("a/file");
    assert_int_equal(rmdir("a/b/c") | rmdir("a/b") | rmdir("a"), 0);
}

/* A program with an open output and a child of its own; says so on `ready`, then waits for a
 * signal. */
static void run_victim(int ready)
{
    moe_signals_install();
    moe_output *output = moe_output_open(NULL, "a", moe_diag_create(NULL, stderr));
    fputs("half", moe_output_stream(output));
    fflush(moe_output_stream(output));
    const pid_t grandchild = fork();
    if (grandchild == 0) {
        moe_signals_reset_in_child();
        for (;;) {
            pause();
        }
    }
    moe_signals_add_child(grandchild);
    if (write(ready, &grandchild, sizeof grandchild) != sizeof grandchild) {
        _exit(1);
    }
    for (;;) {
        pause();
    }
}

/* Whether the process ends within a few seconds. It is not our child, so it cannot be waited for.
 */
static bool ends(pid_t process)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)process);
    for (int i = 0; i < 500; i++) {
        FILE *file = fopen(path, "r");
        char name[64], letter = 0;
        const int fields = file ? fscanf(file, "%*d %63s %c", name, &letter) : 0;
        if (file) {
            fclose(file);
        }
        if (fields < 2 || letter == 'Z' || letter == 'X') {
            return true;
        }
        usleep(10000);
    }
    return false;
}

static void a_signal_leaves_nothing(void **state)
{
    (void)state;
    const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (int i = 0; i < 3; i++) {
        int ends_of_pipe[2], status = 0;
        pid_t grandchild = 0;
        assert_int_equal(pipe(ends_of_pipe), 0);
        const pid_t child = fork();
        if (child == 0) {
            run_victim(ends_of_pipe[1]);
        }
        assert_int_equal(read(ends_of_pipe[0], &grandchild, sizeof grandchild), sizeof grandchild);
        assert_int_equal(entries("."), 1);
        assert_int_equal(kill(child, signals[i]), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 128 + signals[i]);
        assert_int_equal(entries("."), 0);
        assert_true(ends(grandchild));
        close(ends_of_pipe[0]);
        close(ends_of_pipe[1]);
    }
}

static void an_exit_leaves_nothing(void **state)
{
    folder *f = *state;
    static moe_output *output; /* reachable at exit: no leak to report */
    const pid_t child = fork();
    if (child == 0) {
        output = moe_output_open(f, "a", f->diag);
        exit(output ? 7 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_int_equal(entries("."), 0);
}

/* A worker that frees what it inherited, or just exits, must not remove its parent's file. */
static void a_forked_child_owns_no_files(void **state)
{
    folder *f = *state;
    moe_output *output = moe_output_open(f, "a", f->diag);
    const pid_t child = fork();
    if (child == 0) {
        talloc_free(output);
        exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(entries("."), 1);
    fputs("x", moe_output_stream(output));
    assert_int_equal(moe_output_commit(output, f->diag), MOE_OK);
    expect_text("a", "x");
    unlink("a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(appears_whole_on_commit, enter, leave),
        cmocka_unit_test_setup_teardown(keeps_the_old_file_until_then, enter, leave),
        cmocka_unit_test_setup_teardown(freeing_the_owner_aborts, enter, leave),
        cmocka_unit_test_setup_teardown(links_stay_links, enter, leave),
        cmocka_unit_test_setup_teardown(devices_are_written_directly, enter, leave),
        cmocka_unit_test_setup_teardown(refuses_impossible_places, enter, leave),
        cmocka_unit_test_setup_teardown(a_full_disk_is_reported_once, enter, leave),
        cmocka_unit_test_setup_teardown(creates_folders, enter, leave),
        cmocka_unit_test_setup_teardown(a_signal_leaves_nothing, enter, leave),
        cmocka_unit_test_setup_teardown(an_exit_leaves_nothing, enter, leave),
        cmocka_unit_test_setup_teardown(a_forked_child_owns_no_files, enter, leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
