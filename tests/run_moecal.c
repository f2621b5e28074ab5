/* The programs that measure, as a user calls them: what they list, what a short run writes, what a
 * killed one leaves, what they link. Times are not looked at, only that there are some. */
#undef MOE_TEST_PROGRAM
#define MOE_TEST_PROGRAM "/usr/bin/env" /* so that one harness starts moecal-cpu and mpirun */
#include "tests/program.h"

#include <dirent.h>
#include <elf.h>
#include <math.h>
#include <time.h>

#ifndef MOE_TEST_MOECAL_CPU

int main(void)
{
    fprintf(stderr, "skipped: moecal-cpu was not built (no MPI or no OpenBLAS)\n");
    return 77;
}

#else

/* Programs of MPI leave memory to the system when they end. */
#define QUIETLY "ASAN_OPTIONS=detect_leaks=0"
#define CPU     QUIETLY, MOE_TEST_MOECAL_CPU
#define TWO     QUIETLY, MOE_TEST_MPIRUN, "-n", "2", MOE_TEST_MOECAL_CPU
#define SHORT   "--seconds-per-point", "0.01", "--repetitions", "6"

static char *samples_path;

static int make_folder(void **state)
{
    int failed = program_setup(state);
    samples_path = program_path("samples.jsonl");
    return failed;
}

static int remove_folder(void **state)
{
    free(samples_path);
    return program_teardown(state);
}

static int remove_samples(void **state)
{
    (void)state;
    unlink(samples_path);
    return 0;
}

/* --- what needs no device --------------------------------------------------------------------- */

static void test_list(void **state)
{
    (void)state;
    program_result result = EXPECT(0, MOE_TEST_MOECAL_CPU, "--list");
    program_contains(result.out, "quick");
    program_contains(result.out, "interference");
    assert_string_equal(result.err, "");
    program_free(&result);
    result = EXPECT(0, MOE_TEST_MOECAL_CPU, "--list", "--only", "collective", "--ranks", "1");
    assert_null(strstr(result.out, "collective   "));
    program_free(&result);
    result = EXPECT(0, MOE_TEST_MPIRUN, "-n", "2", MOE_TEST_MOECAL_CPU, "--list");
    char *again = strstr(result.out, "Built-in");
    assert_non_null(again);
    assert_null(strstr(again + 1, "Built-in")); /* one of two speaks */
    program_free(&result);
}

static void test_dry_run(void **state)
{
    (void)state;
    program_result result = EXPECT(0, MOE_TEST_MOECAL_CPU, "--dry-run", "--suite", "full", "--only",
                                   "gemm,sharing", "--ranks", "4");
    program_contains(result.out, " s  gemm/fp32/m4096_n2048_k2048\n");
    program_contains(result.out, "sharing/fp32/r4/");
    program_contains(result.out, " points, 4 ranks, about ");
    assert_null(strstr(result.out, "experts/"));
    program_free(&result);
}

static void test_wrong_commands(void **state)
{
    static const char *const wrong[][4] = {
        {"--only", "gem", "\"gem\" is no kind of point", "gemm experts"},
        {"--seconds-per-point", "-1", "no number from", "Try"},
        {"--repetitions", "2.5", "no whole number", "Try"},
        {"--ranks", "4", "goes with --list and --dry-run", "Try"},
        {"--resume", "--list", "say which one with -o", "Try"},
        {"more", "--list", "no argument expected", "Try"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        program_result result = EXPECT(64, MOE_TEST_MOECAL_CPU, wrong[i][0], wrong[i][1]);
        program_contains(result.err, wrong[i][2]);
        program_contains(result.err, wrong[i][3]);
        program_free(&result);
    }
}

static void check_suite(const char *text, const char *message)
{
    char *suite = program_path("suite.json");
    program_write(suite, text);
    program_result result = EXPECT(1, MOE_TEST_MOECAL_CPU, "--dry-run", "--suite", suite);
    program_contains(result.err, message);
    assert_string_equal(result.out, "");
    program_free(&result);
    free(suite);
}

static void test_hostile_suites(void **state)
{
    (void)state;
    check_suite("", "suite.json:1:0: error:");
    check_suite("{\"format\": \"moecal-suite\", \"version\": 1, \"points\": 5}",
                "\"points\" is not an array");
    check_suite("{\"format\": \"moecal-suite\", \"version\": 1, \"points\": [{\"kind\": \"gemm\", "
                "\"m\": 1e9, "
                "\"n\": 1, \"k\": 1}]}",
                "point 0: \"m\" is a real");
    program_result result = EXPECT(1, MOE_TEST_MOECAL_CPU, "--dry-run", "--suite", "quickly");
    program_contains(result.err, "no built-in suite \"quickly\"");
    program_free(&result);
    result = EXPECT(1, MOE_TEST_MOECAL_CPU, "--dry-run", "--suite", "/");
    program_contains(result.err, "/: error: Is a directory");
    program_free(&result);
}

/* --- runs ------------------------------------------------------------------------------------- */

typedef struct records {
    json_t *machine, *ids; /* ids: how often */
    int samples;
} records;

static void check_times(const json_t *sample, const char *key)
{
    size_t index;
    json_t *value;
    const json_t *times = json_object_get(sample, key);
    assert_true(json_array_size(times) >= 1);
    json_array_foreach(times, index, value)
    {
        assert_true(json_is_number(value));
        assert_true(json_number_value(value) > 0 && json_number_value(value) < 100);
    }
}

static void check_sample(const json_t *sample)
{
    const json_t *check = json_object_get(sample, "check");
    double error = json_number_value(json_object_get(check, "error"));
    double limit = json_number_value(json_object_get(check, "limit"));
    check_times(sample, "times_s");
    assert_true(json_is_number(json_object_get(check, "error")));
    assert_true(error <= limit && limit <= 1e-3);
    assert_true(json_integer_value(json_object_get(sample, "warmup")) >= 2);
    assert_true(json_is_false(json_object_get(json_object_get(sample, "conditions"), "throttled")));
}

static void add_record(records *seen, const char *line)
{
    json_t *record = program_json(line);
    const char *type = json_string_value(json_object_get(record, "record"));
    if (strcmp(type, "machine") == 0) {
        assert_null(seen->machine);
        seen->machine = json_incref(record);
    } else {
        const char *id = json_string_value(json_object_get(record, "id"));
        json_int_t before = json_integer_value(json_object_get(seen->ids, id));
        assert_string_equal(type, "sample");
        assert_non_null(seen->machine);
        assert_true(json_equal(json_object_get(record, "machine"),
                               json_object_get(seen->machine, "machine")));
        check_sample(record);
        json_object_set_new(seen->ids, id, json_integer(before + 1));
        seen->samples++;
    }
    json_decref(record);
}

/* Every line is sound, and of one machine. */
static records read_records(void)
{
    records seen = {NULL, json_object(), 0};
    char *text = program_read(samples_path), *rest = text, *line;
    while ((line = strsep(&rest, "\n")) && *line)
        add_record(&seen, line);
    assert_non_null(seen.machine);
    free(text);
    return seen;
}

static void free_records(records *seen)
{
    json_decref(seen->machine);
    json_decref(seen->ids);
}

/* Each point once. */
static void check_once(const records *seen)
{
    const char *id;
    json_t *count;
    json_object_foreach(seen->ids, id, count)
    {
        if (json_integer_value(count) != 1)
            fail_msg("%s: %d times", id, (int)json_integer_value(count));
    }
}

static void test_run_of_two(void **state)
{
    (void)state;
    program_result result = EXPECT(0, TWO, "-o", samples_path, SHORT);
    program_contains(result.err, "0 skipped, 0 failed");
    records seen = read_records();
    check_once(&seen);
    assert_true(seen.samples > 80);
    assert_int_equal(json_integer_value(json_object_get(seen.machine, "ranks")), 2);
    assert_int_equal(json_integer_value(json_object_get(seen.machine, "hosts")), 1);
    const json_t *device = json_object_get(seen.machine, "device"),
                 *link = json_object_get(seen.machine, "link");
    assert_true(json_number_value(json_object_get(device, "peak_flop_per_s")) > 1e7);
    assert_true(json_number_value(json_object_get(device, "memory_bytes_per_s")) > 1e7);
    assert_true(json_number_value(json_object_get(link, "bytes_per_s")) > 1e6);
    assert_true(json_number_value(json_object_get(link, "latency_s")) > 0);
    free_records(&seen);
    program_free(&result);
}

static void test_what_it_cannot_run_is_skipped(void **state)
{
    char *suite = program_path("skipped.json");
    (void)state;
    program_write(
        suite,
        "{\"format\": \"moecal-suite\", \"version\": 1, \"points\": ["
        "{\"kind\": \"gemm\", \"m\": 8, \"n\": 8, \"k\": 8, \"dtype\": \"fp8\"},"
        "{\"kind\": \"experts\", \"phase\": \"forward\", \"hidden\": 8, \"ffn\": 8, \"rows\": [4]},"
        "{\"kind\": \"launch\", \"mode\": \"graph\", \"kernels\": 8},"
        "{\"kind\": \"copy\", \"direction\": \"host_to_device\", \"memory\": \"pinned\", "
        "\"bytes\": 8},"
        "{\"kind\": \"collective\", \"collective\": \"all_gather\", \"bytes\": 64, \"ranks\": 2},"
        "{\"kind\": \"gemm\", \"m\": 8, \"n\": 8, \"k\": 8}]}");
    program_result result = EXPECT(0, CPU, "--suite", suite, "-o", samples_path, SHORT);
    program_contains(result.err, "fp32 alone");
    program_contains(result.err, "no grouped products");
    program_contains(result.err, "no graphs");
    program_contains(result.err, "no memory is pinned");
    program_contains(result.err, "it needs 2 ranks, there is 1");
    program_contains(result.err, "1 measured, 5 skipped, 0 failed");
    program_free(&result);
    free(suite);
}

/* 2^40 bytes: neither written to the disk nor allocated to find out. */
static void test_what_has_no_room_fails(void **state)
{
    char *suite = program_path("roomless.json");
    (void)state;
    program_write(suite,
                  "{\"format\": \"moecal-suite\", \"version\": 1, \"points\": ["
                  "{\"kind\": \"copy\", \"direction\": \"storage_read\", \"bytes\": 1099511627776},"
                  "{\"kind\": \"gemm\", \"m\": 8, \"n\": 8, \"k\": 8}]}");
    program_result result = EXPECT(1, CPU, "--suite", suite, "-o", samples_path, SHORT);
    program_contains(result.err, "not free");
    program_contains(result.err, "1 measured, 0 skipped, 1 failed");
    program_free(&result);
    free(suite);
}

static int lines_of(const char *path)
{
    FILE *file = fopen(path, "r");
    int lines = 0, c;
    while (file && (c = getc(file)) != EOF)
        lines += c == '\n';
    if (file)
        fclose(file);
    return lines;
}

/* Until the run has written so many lines; it may end before. */
static void wait_for_lines(int lines)
{
    const struct timespec moment = {0, 2000000};
    for (int i = 0; i < 15000 && lines_of(samples_path) < lines; i++)
        nanosleep(&moment, NULL);
}

static int stop_with(int signal_number, int lines)
{
    static const char *const command[] = {
        CPU,     "-o", NULL, "--only", "gemm", "--seconds-per-point", "0.5", "--repetitions",
        "10000", NULL};
    const char *arguments[sizeof command / sizeof *command];
    char *out = program_path("killed.out"), *err = program_path("killed.err");
    int status = 0;
    memcpy(arguments, command, sizeof command);
    arguments[3] = samples_path;
    pid_t pid = program_start(arguments, out, err);
    wait_for_lines(lines);
    kill(pid, signal_number);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    free(out);
    free(err);
    return program_status(status);
}

static void check_continued(int at_least)
{
    int before = lines_of(samples_path);
    program_result result = EXPECT(0, CPU, "-o", samples_path, "--only", "gemm", "--resume", SHORT);
    records seen = read_records();
    assert_true(before >= at_least);
    assert_int_equal(seen.samples, 27);
    check_once(&seen);
    char *had = NULL;
    assert_true(asprintf(&had, "%d measured, 0 skipped, 0 failed, %d were there already",
                         27 - (before - 1), before - 1) > 0);
    program_contains(result.err, had);
    free(had);
    free_records(&seen);
    program_free(&result);
}

static void test_killed_and_continued(void **state)
{
    (void)state;
    assert_int_equal(stop_with(SIGKILL, 3), 128 + SIGKILL);
    program_result result = EXPECT(1, CPU, "-o", samples_path, SHORT); /* never overwritten */
    program_contains(result.err, "--resume continues it");
    program_free(&result);
    check_continued(3);
}

static void test_interrupted_and_continued(void **state)
{
    (void)state;
    assert_int_equal(stop_with(SIGINT, 2), 130);
    char *err = program_path("killed.err"), *text = program_read(err);
    program_contains(text, "the same command with --resume continues");
    free(err);
    free(text);
    check_continued(2);
}

static void test_another_machine(void **state)
{
    (void)state;
    program_result result = EXPECT(0, CPU, "-o", samples_path, "--only", "launch", SHORT);
    program_free(&result);
    result = EXPECT(1, TWO, "-o", samples_path, "--only", "launch", "--resume", SHORT);
    program_contains(result.err, "another machine (\"ranks\" differs)");
    program_free(&result);
}

/* --- the step --------------------------------------------------------------------------------- */

#define STEP_HEAD                                                                                  \
    "{\"format\": \"moecal-step\", \"version\": 1, \"network\": {\"layers\": 2, \"hidden\": 32, "  \
    "\"ffn\": 48, "                                                                                \
    "\"gated\": %s, \"experts\": 4, \"top_k\": 2, \"heads\": 4, \"kv_heads\": 2, \"sequence\": "   \
    "80, "                                                                                         \
    "\"vocabulary\": %s, \"causal\": true}, \"ranks\": 2, \"tokens\": 160, \"repetitions\": 3, "

/* Counts of an even and of a skewed layer; one expert gets nothing. */
#define EVEN   "[[80, 80, 80, 80], [80, 80, 80, 80]]"
#define SKEWED "[[200, 0, 100, 20], [10, 0, 300, 10]]"

static void write_step(const char *path, const char *gated, const char *vocabulary,
                       const char *instances)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, STEP_HEAD, gated, vocabulary);
    fprintf(file, "\"instances\": %s}", instances);
    assert_int_equal(fclose(file), 0);
}

static void check_instance(const json_t *instance, const char *name)
{
    double sum = 0, most = 0;
    const char *part;
    json_t *value;
    assert_string_equal(json_string_value(json_object_get(instance, "name")), name);
    check_times(instance, "seconds");
    assert_int_equal(json_array_size(json_object_get(instance, "seconds")), 3);
    json_object_foreach(json_object_get(instance, "parts_s"), part, value)
    {
        assert_true(json_number_value(value) >= 0);
        sum += json_number_value(value);
    }
    for (size_t i = 0; i < 3; i++)
        most =
            fmax(most, json_number_value(json_array_get(json_object_get(instance, "seconds"), i)));
    assert_true(sum > 0 && sum < 1.01 * most); /* medians of means: no more than the slowest */
}

static void check_step(const char *gated, const char *vocabulary, bool checked)
{
    char *step = program_path("step.json"), *path = program_path("result.json");
    write_step(step, gated, vocabulary,
               "[{\"name\": \"even\", \"counts\": [" EVEN ", " EVEN
               "]}, {\"name\": \"skewed\", \"counts\": "
               "[" SKEWED ", " EVEN "]}]");
    program_result run = EXPECT(0, TWO, "--step", step, "-o", path);
    char *text = program_read(path);
    json_t *result = program_json(text), *instances = json_object_get(result, "instances");
    assert_int_equal(json_array_size(instances), 2);
    check_instance(json_array_get(instances, 0), "even");
    check_instance(json_array_get(instances, 1), "skewed");
    json_t *check = json_object_get(result, "check");
    assert_int_equal(check != NULL, checked);
    if (checked) /* all gradients are those of the loss */
        assert_true(json_number_value(json_object_get(check, "error")) < 0.005);
    json_decref(result);
    program_free(&run);
    free(text);
    free(step);
    free(path);
}

static void test_step(void **state)
{
    (void)state;
    check_step("false", "50", true);
    check_step("true", "50", true);
    check_step("false", "0", false);
}

static void test_bad_steps(void **state)
{
    static const char *const wrong[][2] = {
        {"[]", "0 instances, expected 1"},
        {"[{\"counts\": []}]", "without \"name\""},
        {"[{\"name\": \"a\", \"counts\": [" EVEN "]}]", "has 1 layers, expected 2"},
        {"[{\"name\": \"a\", \"counts\": [" EVEN ", [[80, 80, 80, 80]]]}]",
         "has 1 sources, expected 2"},
        {"[{\"name\": \"a\", \"counts\": [" EVEN ", [[80, 80, 80, 80], [80, 80, 160]]]}]",
         "has 3 counts"},
        {"[{\"name\": \"a\", \"counts\": [" EVEN ", [[80, 80, 80, 80], [80, 80, 80, 81]]]}]",
         "add up to 321, expected tokens * top_k = 320"},
        {"[{\"name\": \"a\", \"counts\": [" EVEN ", [[80, 80, 80, 80], [-80, 80, 160, 160]]]}]",
         "not an integer from 0 to 320"},
    };
    char *step = program_path("bad.json");
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_step(step, "true", "50", wrong[i][0]);
        program_result result = EXPECT(1, CPU, "--step", step);
        program_contains(result.err, wrong[i][1]);
        program_free(&result);
    }
    program_write(
        step,
        "{\"format\": \"moecal-step\", \"version\": 1, \"network\": {\"layers\": 1000, "
        "\"hidden\": 65536, \"ffn\": 48, \"gated\": true, \"experts\": 4096, \"top_k\": 4096, "
        "\"heads\": 4, \"kv_heads\": 2, \"sequence\": 1, \"vocabulary\": 50, \"causal\": true}, "
        "\"ranks\": 1024, \"tokens\": 1048576, \"repetitions\": 3, \"instances\": [{}]}");
    program_result result =
        EXPECT(1, CPU, "--step", step); /* and nothing of that size is allocated */
    program_contains(result.err, "ranks * tokens * top_k * hidden");
    program_contains(result.err, "dense parameters");
    program_contains(result.err, "more counts than a file holds");
    program_free(&result);
    write_step(step, "true", "50", "[{\"name\": \"a\", \"counts\": [" EVEN ", " EVEN "]}]");
    result = EXPECT(1, CPU, "--step", step);
    program_contains(result.err, "\"ranks\" is 2, but this run has 1");
    program_free(&result);
    free(step);
}

/* --- what they link --------------------------------------------------------------------------- */

static const Elf64_Shdr *section_of(const char *image, Elf64_Word type)
{
    const Elf64_Ehdr *head = (const void *)image;
    const Elf64_Shdr *sections = (const void *)(image + head->e_shoff);
    for (int i = 0; i < head->e_shnum; i++)
        if (sections[i].sh_type == type)
            return &sections[i];
    return NULL;
}

static char *read_image(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat status;
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &status), 0);
    char *image = malloc((size_t)status.st_size);
    assert_non_null(image);
    assert_int_equal(fread(image, 1, (size_t)status.st_size, file), status.st_size);
    fclose(file);
    return image;
}

static bool is_allowed(const char *library, const char *const *allowed)
{
    for (; *allowed; allowed++)
        if (strncmp(library, *allowed, strlen(*allowed)) == 0)
            return true;
    return false;
}

/* The libraries that an ELF file names itself. */
static void check_libraries(const char *path, const char *const *allowed, const char *must)
{
    char *image = read_image(path);
    const Elf64_Shdr *dynamic = section_of(image, SHT_DYNAMIC);
    bool found = false;
    int libraries = 0;
    assert_memory_equal(image, ELFMAG, SELFMAG);
    assert_non_null(dynamic);
    const Elf64_Shdr *sections =
        (const void *)(image + ((const Elf64_Ehdr *)(const void *)image)->e_shoff);
    const char *names = image + sections[dynamic->sh_link].sh_offset;
    const Elf64_Dyn *entry = (const void *)(image + dynamic->sh_offset);
    for (; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag != DT_NEEDED)
            continue;
        const char *library = names + entry->d_un.d_val;
        libraries++;
        found |= strncmp(library, must, strlen(must)) == 0;
        if (!is_allowed(library, allowed))
            fail_msg("%s links %s", path, library);
    }
    assert_true(found && libraries > 1);
    free(image);
}

#define SYSTEM                                                                                     \
    "libc.so", "libm.so", "libpthread.so", "ld-linux", "libasan.so", "libubsan.so", "libgcc_s.so"

static void test_libraries(void **state)
{
    static const char *const cpu[] = {SYSTEM, "libjansson.so", "libmpi", "libopenblas.so", NULL};
    (void)state;
    check_libraries(MOE_TEST_MOECAL_CPU, cpu, "libjansson.so");
#ifdef MOE_TEST_MOECAL
    static const char *const cuda[] = {
        SYSTEM,       "libjansson.so", "libcudart.so", "libcublas.so", "libcublasLt.so",
        "libnccl.so", "libcuda.so",    "libdl.so",     "librt.so",     "libstdc++.so",
        NULL};
    check_libraries(MOE_TEST_MOECAL, cuda, "libjansson.so");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_dry_run),
        cmocka_unit_test(test_wrong_commands),
        cmocka_unit_test(test_hostile_suites),
        cmocka_unit_test_teardown(test_run_of_two, remove_samples),
        cmocka_unit_test_teardown(test_what_has_no_room_fails, remove_samples),
        cmocka_unit_test_teardown(test_what_it_cannot_run_is_skipped, remove_samples),
        cmocka_unit_test_teardown(test_killed_and_continued, remove_samples),
        cmocka_unit_test_teardown(test_interrupted_and_continued, remove_samples),
        cmocka_unit_test_teardown(test_another_machine, remove_samples),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_bad_steps),
        cmocka_unit_test(test_libraries),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

#endif
