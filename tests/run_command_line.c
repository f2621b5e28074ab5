/* `moeplan simulate` as a user calls it, on four iterations of the quickstart: the JSON contract,
 * law 10 on the command line, --set, --out, and every way it can go wrong. The numbers themselves
 * are not pinned here; that parts add up to wholes is. */
#include "tests/program.h"

#include <dirent.h>
#include <math.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#define QUICKSTART MOE_TEST_SOURCE_DIR "/configs/scenarios/quickstart.yaml"
#define SHORT      "simulate", QUICKSTART, "--set", "trace.window=[500, 504]"

enum { ITERATIONS = 4 };

static const char *const engines[] = {"analytic", "fluid"};

/* The JSON contract. */

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        fail_msg("\"%s\" is missing or no number", key);
    double result = json_number_value(value);
    assert_true(isfinite(result));
    return result;
}

/* All `keys` are there as non-negative numbers; their sum. */
static double sum_of(const json_t *object, const char *const *keys)
{
    double sum = 0;
    assert_true(json_is_object(object));
    for (; *keys; keys++) {
        assert_true(number(object, *keys) >= 0);
        sum += number(object, *keys);
    }
    return sum;
}

static void assert_close(double a, double b, double relative)
{
    if (fabs(a - b) > relative * fmax(fabs(a), fabs(b)))
        fail_msg("%.17g and %.17g differ by more than %g", a, b, relative);
}

static void check_step_time(const json_t *time)
{
    static const char *const keys[] = {"mean", "p50", "p95", "max", NULL};
    const json_t *series = json_object_get(time, "series");
    double sum = 0, largest = 0;
    size_t index;
    json_t *value;
    sum_of(time, keys);
    assert_int_equal(json_array_size(series), ITERATIONS);
    json_array_foreach(series, index, value)
    {
        sum += json_number_value(value);
        largest = fmax(largest, json_number_value(value));
    }
    assert_close(number(time, "mean"), sum / ITERATIONS, 1e-9);
    assert_close(number(time, "max"), largest, 1e-12);
    assert_true(number(time, "p50") <= number(time, "p95"));
    assert_true(number(time, "p95") <= number(time, "max"));
}

static void check_breakdown(const json_t *policy, double mean)
{
    static const char *const parts[] = {"wait",          "dense",       "expert", "dispatch",
                                        "combine",       "materialize", "reduce", "rearrange",
                                        "gradient_sync", "optimizer",   "host",   NULL};
    assert_close(sum_of(json_object_get(policy, "breakdown_s"), parts), mean, 1e-9);
    assert_close(sum_of(json_object_get(policy, "critical_path_s"), parts + 1), mean, 1e-9);
}

static void check_memory(const json_t *policy)
{
    static const char *const parts[] = {"parameters",  "gradients", "optimizer", "materialized",
                                        "activations", "buffers",   "reserved",  NULL};
    const json_t *memory = json_object_get(policy, "memory_bytes");
    assert_close(sum_of(memory, parts), number(memory, "peak"), 1e-9);
    assert_true(number(memory, "capacity") > 0);
    int fits = json_is_true(json_object_get(policy, "fits"));
    assert_int_equal(fits, number(memory, "peak") <= number(memory, "capacity"));
}

static void check_policy(const json_t *policy, const char *name, double first_mean)
{
    static const char *const imbalance[] = {"expert_max_over_mean", "device_max_over_mean", NULL};
    static const char *const bytes[] = {"intra_host", "inter_host", NULL};
    const json_t *time = json_object_get(policy, "step_time_s");
    assert_string_equal(json_string_value(json_object_get(policy, "name")), name);
    check_step_time(time);
    check_breakdown(policy, number(time, "mean"));
    check_memory(policy);
    sum_of(json_object_get(policy, "imbalance"), imbalance);
    sum_of(json_object_get(policy, "bytes_moved"), bytes);
    assert_true(number(policy, "tokens_per_s") > 0);
    assert_close(number(policy, "speedup"), first_mean / number(time, "mean"), 1e-9);
}

static void check_result(const json_t *result, const char *engine, int devices,
                         const char *const *names)
{
    const json_t *policies = json_object_get(result, "policies");
    const json_t *trace = json_object_get(result, "trace");
    const json_t *first = json_object_get(json_array_get(policies, 0), "step_time_s");
    assert_string_equal(json_string_value(json_object_get(result, "engine")), engine);
    assert_int_equal(number(result, "seed"), 1);
    assert_int_equal(number(json_object_get(result, "cluster"), "devices"), devices);
    assert_int_equal(number(trace, "iterations"), ITERATIONS);
    assert_true(json_is_false(json_object_get(trace, "synthetic")));
    assert_true(json_is_object(json_object_get(result, "provenance")));
    size_t count = 0;
    for (; names[count]; count++)
        check_policy(json_array_get(policies, count), names[count], number(first, "mean"));
    assert_int_equal(json_array_size(policies), count);
}

static void test_contract(void **state)
{
    (void)state;
    static const char *const names[] = {"ep", "fssdp", "fssdp-rm", NULL};
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        program_result result = EXPECT(0, SHORT, "--engine", engines[i], "--json");
        json_t *json = program_json(result.out);
        check_result(json, engines[i], 32, names);
        json_decref(json);
        program_free(&result);
    }
}

/* --set reaches into the files a scenario names; --policy picks and orders. */
static void test_overrides(void **state)
{
    (void)state;
    static const char *const names[] = {"fssdp", "ep", NULL};
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        program_result result =
            EXPECT(0, SHORT, "--engine", engines[i], "--policy", "fssdp", "--policy", "ep", "--set",
                   "cluster.hosts=2", "--set", "parallel.ep=16", "--json");
        json_t *json = program_json(result.out);
        check_result(json, engines[i], 16, names);
        json_decref(json);
        program_free(&result);
    }
}

/* Same inputs, any number of workers, json and text: the same bytes. */
static void test_same_bytes_for_any_jobs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        program_result one = EXPECT(0, SHORT, "--engine", engines[i], "--json", "-j", "1");
        program_result three = EXPECT(0, SHORT, "--engine", engines[i], "--json", "-j", "3");
        assert_string_equal(one.out, three.out);
        program_free(&one);
        program_free(&three);
    }
}

static void test_text_report(void **state)
{
    (void)state;
    static const char *const parts[] = {"ep", "fssdp-rm", "p95", "tokens", "fits"};
    program_result result = EXPECT(0, SHORT, "--engine", "analytic");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        program_contains(result.out, parts[i]);
    assert_null(strchr(result.out, '\033'));
    program_free(&result);
}

/* What a shell prints for a command of the README, with the program under test as build/moeplan. */
static char *output_of(const char *command)
{
    static const char name[] = "build/moeplan ";
    char *line = NULL, *text = NULL;
    size_t size = 0;
    assert_int_equal(strncmp(command, name, strlen(name)), 0);
    assert_true(asprintf(&line, MOE_TEST_PROGRAM " %s", command + strlen(name)) > 0);
    FILE *pipe = popen(line, "r");
    assert_non_null(pipe);
    assert_true(getdelim(&text, &size, '\0', pipe) > 0);
    assert_int_equal(pclose(pipe), 0);
    free(line);
    return text;
}

/* README.md shows what its commands print, and nothing else. */
static void test_readme_is_current(void **state)
{
    (void)state;
    static const char opening[] = "<!-- output of: ", middle[] = " -->\n```\n",
                      closing[] = "```\n<!-- end of output -->";
#ifdef MOEPLAN_SANITIZED
    skip(); /* 600 steps are for optimized builds */
#endif
    char *readme = program_read(MOE_TEST_SOURCE_DIR "/README.md");
    int blocks = 0;
    for (char *next = strstr(readme, opening); next != NULL; next = strstr(next, opening)) {
        char *command = next + strlen(opening);
        char *shown = strstr(command, middle);
        assert_non_null(shown);
        *shown = '\0';
        shown += strlen(middle);
        next = strstr(shown, closing);
        assert_non_null(next);
        *next++ = '\0';
        char *now = output_of(command);
        if (strcmp(shown, now) != 0)
            fail_msg("README.md is stale: ./dev docs\n--- %s now prints\n%.4000s", command, now);
        free(now);
        blocks++;
    }
    assert_true(blocks >= 3);
    free(readme);
}

/* The effective configuration is a scenario: it loads, and simulates to the same numbers. */
static void test_dumped_config_loads_again(void **state)
{
    (void)state;
    char *path = program_path("dumped.yaml");
    program_result dump = EXPECT(0, SHORT, "--dump-config");
    program_write(path, dump.out);
    program_result check = EXPECT(0, "check", path);
    program_contains(check.out, "sound scenario");
    program_free(&check);
    program_free(&dump);
    free(path);
}

/* --out */

static int count_files(const char *folder, const char *part)
{
    DIR *directory = opendir(folder);
    int count = 0;
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        count += strstr(entry->d_name, part) != NULL;
    closedir(directory);
    return count;
}

static void test_out(void **state)
{
    (void)state;
    char *folder = program_path("deep/results"), *file = program_path("deep/results/result.json");
    program_result result = EXPECT(0, SHORT, "--engine", "analytic", "--json", "--out", folder);
    char *written = program_read(file);
    assert_string_equal(written, result.out);
    assert_int_equal(count_files(folder, ".tmp"), 0);
    free(written);
    program_free(&result);
    free(folder);
    free(file);
}

static void test_out_onto_what_is_no_folder(void **state)
{
    (void)state;
    char *file = program_path("a_file"), *below = program_path("a_file/results");
    program_write(file, "not a folder\n");
    const char *const wrong[] = {file, below, "/proc/no_such_folder"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        program_result result = PROGRAM(SHORT, "--engine", "analytic", "--out", wrong[i]);
        assert_true(result.status == 70 || result.status == 1);
        program_contains(result.err, i < 2 ? file : wrong[i]);
        program_free(&result);
    }
    char *kept = program_read(file);
    assert_string_equal(kept, "not a folder\n");
    free(kept);
    free(file);
    free(below);
}

/* A full disk, as a limit on the size of files: whatever is written beyond it fails. */
static void test_out_without_room(void **state)
{
    (void)state;
    char *folder = program_path("no_room");
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 600;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    program_result result = program_run_to(
        (const char *const[]){SHORT, "--engine", "analytic", "--out", folder, NULL}, "/dev/null");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(result.status, 70);
    program_contains(result.err, "File too large");
    assert_int_equal(count_files(folder, "result.json"), 0);
    assert_int_equal(count_files(folder, ".tmp"), 0);
    program_free(&result);
    free(folder);
}

static void test_full_standard_output(void **state)
{
    (void)state;
    program_result result = program_run_to(
        (const char *const[]){SHORT, "--engine", "analytic", "--json", NULL}, "/dev/full");
    assert_int_equal(result.status, 70);
    program_contains(result.err, "standard output");
    program_free(&result);
}

/* Bad input. */

typedef struct bad_call {
    int status;
    const char *message;
    const char *arguments[8];
} bad_call;

static const bad_call bad_calls[] = {
    {1, "No such file", {"simulate", "no_such_scenario.yaml"}},
    {1, "folder", {"simulate", MOE_TEST_SOURCE_DIR}},
    {1, "clusterr", {SHORT, "--set", "clusterr.hosts=2"}},
    {1, "\"hosts\"", {SHORT, "--set", "cluster.hostss=2"}},
    {1, "cluster.hosts", {SHORT, "--set", "cluster.hosts=many"}},
    {1, "ep", {SHORT, "--set", "parallel.ep=7"}},
    {1, "trace", {SHORT, "--set", "trace.file=no_such_trace.safetensors"}},
    {1, "trace", {SHORT, "--set", "trace.file=.."}},
    {1, "window", {SHORT, "--set", "trace.window=[690, 800]"}},
    {1, "fsdp", {SHORT, "--policy", "fsdp"}},
    {1, "fluidd", {SHORT, "--engine", "fluidd"}},
    {64, "scenario", {"simulate"}},
    {64, "jobs", {"simulate", QUICKSTART, "--jobs", "none"}},
};

static void test_bad_calls(void **state)
{
    (void)state;
    for (const bad_call *bad = bad_calls; bad < bad_calls + sizeof bad_calls / sizeof *bad_calls;
         bad++) {
        program_result result = program_expect(bad->status, bad->arguments);
        program_contains(result.err, bad->message);
        if (*result.out)
            fail_msg("nothing belongs on standard output, found: %.200s", result.out);
        program_free(&result);
    }
}

/* What does not fit is said, with the answer, and the exit code says it, too. */
static void test_what_does_not_fit(void **state)
{
    (void)state;
    program_result result = EXPECT(2, SHORT, "--engine", "analytic", "--policy", "ep", "--set",
                                   "cluster.device.memory=4 GiB", "--json");
    json_t *json = program_json(result.out);
    const json_t *policy = json_array_get(json_object_get(json, "policies"), 0);
    assert_true(json_is_false(json_object_get(policy, "fits")));
    json_decref(json);
    program_free(&result);
}

/* Ctrl-C. The test adopts orphans, so that none can hide: when the program has gone, whatever
 * children of it there are must be dead or dying. */

static void sleep_s(double seconds)
{
    struct timespec time = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    nanosleep(&time, NULL);
}

/* Reaps adopted children; true when within two seconds none lives any more. */
static bool all_orphans_die(void)
{
    for (int attempt = 0; attempt < 200; attempt++) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid < 0)
            return true;
        if (pid == 0)
            sleep_s(0.01);
    }
    return false;
}

static void interrupt(const char *engine, int with)
{
    char *folder = program_path("interrupted"), *out = program_path("interrupted.out");
    char *err = program_path("interrupted.err");
    const char *const arguments[] = {
        "simulate", QUICKSTART,         "--engine", engine, "--set", "trace.window=[0, 700]",
        "--set",    "trace.repeat=100", "--out",    folder, NULL};
    int status = 0;
    pid_t pid = program_start(arguments, out, err);
    sleep_s(1);
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
    assert_int_equal(kill(pid, with), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(program_status(status), 128 + with);
    assert_true(all_orphans_die());
    assert_int_equal(count_files(folder, ".tmp"), 0);
    assert_int_equal(count_files(folder, "result"), 0);
    free(folder);
    free(out);
    free(err);
}

static void test_interrupt(void **state)
{
    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    interrupt("analytic", SIGINT);
    interrupt("fluid", SIGINT);
    interrupt("fluid", SIGTERM);
}

/* Not even SIGKILL, which no handler sees, leaves workers behind. */
static void test_kill(void **state)
{
    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    interrupt("fluid", SIGKILL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contract),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_same_bytes_for_any_jobs),
        cmocka_unit_test(test_text_report),
        cmocka_unit_test(test_readme_is_current),
        cmocka_unit_test(test_dumped_config_loads_again),
        cmocka_unit_test(test_out),
        cmocka_unit_test(test_out_onto_what_is_no_folder),
        cmocka_unit_test(test_out_without_room),
        cmocka_unit_test(test_full_standard_output),
        cmocka_unit_test(test_bad_calls),
        cmocka_unit_test(test_what_does_not_fit),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_kill),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
