/* Runs the built program as a user would, for tests: exit code, standard output, standard error. */
#ifndef MOE_TESTS_PROGRAM_H
#define MOE_TESTS_PROGRAM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Where tests write: made by program_setup, removed with all it holds by program_teardown. */
static char program_folder[256];

typedef struct program_result {
    int status; /* exit code, or 128 + signal as a shell says it */
    char *out;
    char *err;
} program_result;

static inline char *program_path(const char *name)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s", program_folder, name) > 0);
    return path;
}

/* The text of a file of any size; a NUL inside would end it early. */
static inline char *program_read(const char *path)
{
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) != 0)
        fail_msg("cannot open %s: %s", path, strerror(errno));
    size_t length = (size_t)status.st_size;
    char *text = calloc(length + 1, 1);
    assert_non_null(text);
    assert_int_equal(read(file, text, length), length);
    close(file);
    return text;
}

static inline void program_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* Starts the program with its streams in files; `out` NULL: a file of the test's folder. */
static inline pid_t program_start(const char *const *arguments, const char *out, const char *err)
{
    posix_spawn_file_actions_t actions;
    char *argv[32] = {(char *)MOE_TEST_PROGRAM};
    pid_t pid = -1;
    for (int i = 0; arguments[i]; i++) {
        assert_true(i < 30);
        argv[i + 1] = (char *)arguments[i];
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out, O_WRONLY | O_CREAT | O_TRUNC,
                                     0600);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err, O_WRONLY | O_CREAT | O_TRUNC,
                                     0600);
    assert_int_equal(posix_spawn(&pid, MOE_TEST_PROGRAM, &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    return pid;
}

static inline int program_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static inline program_result program_run_to(const char *const *arguments, const char *out)
{
    char *own = program_path("stdout"), *err = program_path("stderr");
    int status = 0;
    pid_t pid = program_start(arguments, out ? out : own, err);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    program_result result = {program_status(status), out ? strdup("") : program_read(own),
                             program_read(err)};
    free(own);
    free(err);
    return result;
}

static inline void program_free(program_result *result)
{
    free(result->out);
    free(result->err);
}

#define PROGRAM(...) program_run_to((const char *const[]){__VA_ARGS__, NULL}, NULL)

/* Runs it and wants this exit code; on another one, shows what it said. */
static inline program_result program_expect(int status, const char *const *arguments)
{
    program_result result = program_run_to(arguments, NULL);
    if (result.status != status)
        fail_msg("moeplan %s %s ...: exit code %d, expected %d\n--- stdout\n%.2000s\n--- "
                 "stderr\n%.2000s",
                 arguments[0] ? arguments[0] : "", arguments[0] && arguments[1] ? arguments[1] : "",
                 result.status, status, result.out, result.err);
    return result;
}

#define EXPECT(status, ...) program_expect(status, (const char *const[]){__VA_ARGS__, NULL})

static inline void program_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected to find \"%s\" in:\n%.2000s", part, text);
}

/* Exactly one JSON value and nothing else. */
static inline json_t *program_json(const char *text)
{
    json_error_t error;
    json_t *value = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!value)
        fail_msg("no JSON (line %d: %s):\n%.500s", error.line, error.text, text);
    return value;
}

static inline int program_remove(const char *path, const struct stat *status, int type,
                                 struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

static inline int program_setup(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(program_folder, sizeof program_folder, "%s/moeplan-test-XXXXXX",
             base && *base ? base : "/tmp");
    return mkdtemp(program_folder) ? 0 : -1;
}

static inline int program_teardown(void **state)
{
    (void)state;
    return nftw(program_folder, program_remove, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
