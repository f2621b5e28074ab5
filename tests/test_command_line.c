/* The command line, but for simulations (run_command_line.c): exit codes, which stream says what,
 * and that what claims to be JSON is one JSON value. What is listed is not pinned, only that it is
 * listed. */
#include "tests/program.h"

static void assert_silent(const char *text)
{
    if (*text)
        fail_msg("expected nothing, found:\n%.1000s", text);
}

/* moeplan itself. */

static void test_help(void **state)
{
    (void)state;
    static const char *const names[] = {"simulate", "trace", "list", "explain", "check"};
    program_result result = EXPECT(0, "--help");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        program_contains(result.out, names[i]);
    assert_silent(result.err);
    program_free(&result);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        result = EXPECT(0, names[i], "--help");
        program_contains(result.out, names[i]);
        assert_silent(result.err);
        program_free(&result);
    }
}

static void test_version(void **state)
{
    (void)state;
    static const char *const parts[] = {MOEPLAN_VERSION, "compiler", "analytic", "fluid",
                                        "fssdp",         "SimGrid",  "CUDA"};
    program_result result = EXPECT(0, "--version");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        program_contains(result.out, parts[i]);
    assert_silent(result.err);
    program_free(&result);
}

static void test_unknown_subcommand(void **state)
{
    (void)state;
    program_result result = EXPECT(64, "simluate", "x.yaml");
    program_contains(result.err, "simluate");
    program_contains(result.err, "did you mean \"simulate\"");
    assert_silent(result.out);
    program_free(&result);
    result = EXPECT(64, "qqqqqqqqqqqqqqqq");
    assert_null(strstr(result.err, "did you mean"));
    program_free(&result);
}

static void test_no_subcommand(void **state)
{
    (void)state;
    program_result result = program_expect(64, (const char *const[]){NULL, NULL});
    program_contains(result.err, "Usage");
    assert_silent(result.out);
    program_free(&result);
}

static void test_unknown_option(void **state)
{
    (void)state;
    static const char *const names[] = {"simulate", "list", "explain", "check"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        program_result result = EXPECT(64, names[i], "--no-such-option");
        program_contains(result.err, "no-such-option");
        assert_silent(result.out);
        program_free(&result);
    }
}

/* Standard output that cannot take it. */

static void test_full_standard_output(void **state)
{
    (void)state;
    static const char *const commands[][4] = {
        {"--help"}, {"--version"}, {"list", "--help"}, {"list", "policies", "--json"}, {"explain"}};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        program_result result = program_run_to(commands[i], "/dev/full");
        assert_int_equal(result.status, 70);
        program_contains(result.err, "standard output");
        program_free(&result);
    }
}

/* The way a shell's `moeplan explain --reference | true` ends. */
static void test_reader_that_leaves(void **state)
{
    (void)state;
    char *fifo = program_path("fifo"), *err = program_path("fifo.err");
    int status;
    assert_int_equal(mkfifo(fifo, 0600), 0);
    int reader = open(fifo, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    /* Opened for writing here, so that the program's own open succeeds after the reader has gone.
     */
    int writer = open(fifo, O_WRONLY);
    assert_int_equal(fcntl(writer, F_SETFD, FD_CLOEXEC), 0);
    assert_int_equal(fcntl(reader, F_SETFD, FD_CLOEXEC), 0);
    static const char *const arguments[] = {"explain", "--reference", NULL};
    pid_t pid = program_start(arguments, fifo, err);
    close(reader);
    close(writer);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    char *said = program_read(err);
    assert_silent(said);
    free(said);
    free(fifo);
    free(err);
}

/* list */

static const char *const kinds[] = {"policies",  "engines",  "clusters", "models",
                                    "scenarios", "profiles", "importers", "validations"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void assert_entries(const char *kind, const json_t *entries)
{
    size_t index;
    json_t *entry;
    assert_true(json_is_array(entries));
    if (json_array_size(entries) == 0)
        fail_msg("`list %s` is empty", kind);
    json_array_foreach(entries, index, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        const char *sentence = json_string_value(json_object_get(entry, "sentence"));
        assert_true(name && *name && sentence && *sentence);
        if (strstr(sentence, "does not load"))
            fail_msg("preset %s/%s does not load", kind, name);
    }
}

static void test_list(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        program_result json = EXPECT(0, "list", kinds[i], "--json");
        program_result text = EXPECT(0, "list", kinds[i]);
        json_t *entries = program_json(json.out);
        assert_entries(kinds[i], entries);
        json_t *first = json_array_get(entries, 0);
        program_contains(text.out, json_string_value(json_object_get(first, "name")));
        assert_silent(json.err);
        assert_silent(text.err);
        json_decref(entries);
        program_free(&json);
        program_free(&text);
    }
}

static void test_list_of_what(void **state)
{
    (void)state;
    program_result result = EXPECT(64, "list");
    program_contains(result.err, "policies");
    program_free(&result);
    result = EXPECT(64, "list", "polices");
    program_contains(result.err, "did you mean \"policies\"");
    assert_silent(result.out);
    program_free(&result);
}

/* Presets are looked for in MOEPLAN_DATA; a folder without any has none. */
static void test_data_folder(void **state)
{
    (void)state;
    assert_int_equal(setenv("MOEPLAN_DATA", program_folder, 1), 0);
    program_result result = EXPECT(0, "list", "clusters", "--json");
    unsetenv("MOEPLAN_DATA");
    json_t *entries = program_json(result.out);
    assert_true(json_is_array(entries));
    assert_int_equal(json_array_size(entries), 0);
    json_decref(entries);
    program_free(&result);
}

/* explain */

static void explain_entries(const char *kind)
{
    program_result list = EXPECT(0, "list", kind, "--json");
    json_t *entries = program_json(list.out);
    size_t index;
    json_t *entry;
    json_array_foreach(entries, index, entry)
    {
        char topic[256];
        snprintf(topic, sizeof topic, "%s/%s", kind,
                 json_string_value(json_object_get(entry, "name")));
        program_result result = EXPECT(0, "explain", topic);
        assert_true(strlen(result.out) > 20);
        assert_silent(result.err);
        program_free(&result);
    }
    json_decref(entries);
    program_free(&list);
}

static void test_explain_everything_listed(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS; i++)
        explain_entries(kinds[i]);
}

static void test_explain_topics(void **state)
{
    (void)state;
    static const char *const topics[] = {"scenario",
                                         "cluster",
                                         "model",
                                         "profile",
                                         "trace",
                                         "cluster.hosts",
                                         "scenario.cluster.hosts",
                                         "parallel.ep",
                                         "policies/fssdp.window"};
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
        program_result result = EXPECT(0, "explain", topics[i]);
        assert_true(strlen(result.out) > 20);
        assert_silent(result.err);
        program_free(&result);
    }
    program_result result = EXPECT(0, "explain");
    program_contains(result.out, "policies/fssdp");
    program_contains(result.out, "scenario");
    program_free(&result);
}

static void test_explain_what_is_not_there(void **state)
{
    (void)state;
    static const struct {
        const char *topic, *closest;
    } wrong[] = {{"policies/fsdp", "fssdp"},        {"polices/ep", "policies"},
                 {"scenaro", "scenario"},           {"cluster.host", "hosts"},
                 {"engines/fluidd", "fluid"},       {"scenario.cluster.hots", "hosts"},
                 {"policies/fssdp.windw", "window"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        program_result result = EXPECT(64, "explain", wrong[i].topic);
        program_contains(result.err, "did you mean");
        program_contains(result.err, wrong[i].closest);
        assert_silent(result.out);
        program_free(&result);
    }
}

/* What `explain clusters/NAME` prints is a file to start one's own from. */
static void test_explained_preset_is_sound(void **state)
{
    (void)state;
    static const char *const topics[] = {"clusters/p4d_4x8_a100", "models/gpt_moe_s",
                                         "profiles/a100_40"};
    char *path = program_path("explained.yaml");
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
        program_result result = EXPECT(0, "explain", topics[i]);
        program_write(path, result.out);
        program_free(&result);
        result = EXPECT(0, "check", path);
        program_contains(result.out, ": sound ");
        program_free(&result);
    }
    free(path);
}

/* configs/REFERENCE.md is what `moeplan explain --reference` prints. */
static void test_reference_is_current(void **state)
{
    (void)state;
    program_result result = EXPECT(0, "explain", "--reference");
    char *committed = program_read(MOE_TEST_SOURCE_DIR "/configs/REFERENCE.md");
    if (strcmp(committed, result.out) != 0)
        fail_msg("configs/REFERENCE.md is stale: build/moeplan explain --reference > "
                 "configs/REFERENCE.md");
    free(committed);
    program_free(&result);
}

/* check */

static void test_check_presets(void **state)
{
    (void)state;
    static const char *const presets[] = {"clusters", "models", "scenarios", "profiles"};
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        program_result list = EXPECT(0, "list", presets[i], "--json");
        json_t *entries = program_json(list.out);
        size_t index;
        json_t *entry;
        json_array_foreach(entries, index, entry)
        {
            const char *file = json_string_value(json_object_get(entry, "file"));
            program_result result = EXPECT(0, "check", file);
            program_contains(result.out, ": sound ");
            program_free(&result);
        }
        json_decref(entries);
        program_free(&list);
    }
}

/* Both kinds of file in one call: each is judged, one bad one decides the exit code. */
static void test_check_good_and_bad(void **state)
{
    (void)state;
    char *bad = program_path("bad_cluster.yaml");
    program_write(bad, "hosts: 4\ndevices_per_host: eight\nnicc: {}\n");
    program_result result =
        EXPECT(1, "check", bad, MOE_TEST_SOURCE_DIR "/configs/clusters/p4d_4x8_a100.yaml");
    program_contains(result.out, "bad_cluster.yaml: not sound");
    program_contains(result.out, "p4d_4x8_a100.yaml: sound cluster");
    program_contains(result.err, "bad_cluster.yaml:2:19: error:");
    program_contains(result.err, "bad_cluster.yaml:3:1: error:");
    program_contains(result.err, "\"nic\"");
    program_free(&result);
    free(bad);
}

static void expect_unsound(const char *path, const char *message)
{
    program_result result = EXPECT(1, "check", path);
    program_contains(result.out, "not sound");
    program_contains(result.err, message);
    program_free(&result);
}

static void test_check_what_is_no_file(void **state)
{
    (void)state;
    char *missing = program_path("missing.yaml"), *lost = program_path("missing.safetensors");
    expect_unsound(missing, "No such file");
    expect_unsound(lost, "No such file");
    expect_unsound(program_folder, "is a folder");
    expect_unsound("/dev/zero", "/dev/zero");
    char *fifo = program_path("nobody_writes.npy");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    expect_unsound(fifo, "nobody_writes.npy");
    free(fifo);
    free(missing);
    free(lost);
}

static void test_check_unrecognisable(void **state)
{
    (void)state;
    char *path = program_path("odd.yaml");
    static const char *const texts[] = {"", "# nothing\n", "colour: red\n", "- hosts: 4\n",
                                        "{colour: red}\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        program_write(path, texts[i]);
        expect_unsound(path, "top-level key");
    }
    free(path);
}

/* The kind is told by top-level keys, in block and in flow style, even where the file is broken. */
static void test_check_tells_kinds(void **state)
{
    (void)state;
    char *path = program_path("kind.yaml");
    static const struct {
        const char *text, *message;
    } files[] = {{"{layers: 0, \"experts\": 4, hosts_: {hosts: 3}}\n", "layers"},
                 {"'hosts' : 0\n", "hosts"},
                 {"{collectives: {hosts: 1}}", "collectives"},
                 {"policies: []\ncluster: none.yaml\n", "none.yaml"},
                 {"hosts: 4\n\tdevices_per_host: 8\n", "error:"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        program_write(path, files[i].text);
        expect_unsound(path, files[i].message);
    }
    free(path);
}

/* Traces: a recording of two iterations, one layer, two sources, four experts, top-2, four tokens.
 */

static void write_recording(const char *counts_path, size_t bytes)
{
    static const unsigned char counts[16] = {5, 2, 1, 0, 2, 2, 3, 1, 8, 0, 0, 0, 1, 1, 2, 4};
    unsigned char npy[128 + 16];
    memset(npy, ' ', 128);
    memcpy(npy, "\x93NUMPY\x01\x00\x76\x00", 10);
    static const char header[] =
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 2, 4), }";
    memcpy(npy + 10, header, sizeof header - 1);
    npy[127] = '\n';
    memcpy(npy + 128, counts, sizeof counts);
    FILE *file = fopen(counts_path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(npy, 1, bytes, file), bytes);
    fclose(file);
}

enum { RECORDING_BYTES = 128 + 16 };

static void test_trace(void **state)
{
    (void)state;
    char *folder = program_path("recording"), *counts = program_path("recording/counts.npy");
    char *meta = program_path("recording/meta.json"), *trace = program_path("small.safetensors");
    assert_int_equal(mkdir(folder, 0700), 0);
    write_recording(counts, RECORDING_BYTES);
    program_write(meta, "{\"top_k\": 2, \"tokens_per_rank\": 4, \"model\": \"toy\"}\n");
    program_result result = EXPECT(0, "check", counts, folder);
    program_contains(result.out,
                     "2 iterations x 1 micro-batches x 1 layers x 2 sources x 4 experts");
    program_free(&result);
    result = EXPECT(0, "trace", "convert", folder, trace);
    program_free(&result);
    result = EXPECT(0, "trace", "check", trace);
    program_free(&result);
    result = EXPECT(0, "trace", "info", trace);
    program_contains(result.out, "toy");
    program_free(&result);
    result = EXPECT(0, "check", trace);
    program_contains(result.out, "small.safetensors: sound trace");
    program_free(&result);
    write_recording(counts, RECORDING_BYTES - 1);
    expect_unsound(counts, "counts.npy");
    write_recording(counts, 3);
    expect_unsound(counts, "counts.npy");
    free(folder);
    free(counts);
    free(meta);
    free(trace);
}

static void test_corrupted_trace(void **state)
{
    (void)state;
    char *trace = program_path("small.safetensors");
    struct stat status;
    assert_int_equal(stat(trace, &status), 0);
    FILE *file = fopen(trace, "r+b");
    assert_int_equal(fseek(file, -1, SEEK_END), 0);
    int last = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_END), 0);
    fputc(last ^ 1, file);
    fclose(file);
    expect_unsound(trace, "small.safetensors");
    assert_int_equal(truncate(trace, status.st_size - 1), 0);
    expect_unsound(trace, "small.safetensors");
    assert_int_equal(truncate(trace, 4), 0);
    expect_unsound(trace, "small.safetensors");
    free(trace);
}

static void test_trace_usage(void **state)
{
    (void)state;
    program_result result = EXPECT(64, "trace");
    program_free(&result);
    result = EXPECT(64, "trace", "inof", "x.safetensors");
    program_contains(result.err, "info");
    program_free(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_unknown_subcommand),
        cmocka_unit_test(test_no_subcommand),
        cmocka_unit_test(test_unknown_option),
        cmocka_unit_test(test_full_standard_output),
        cmocka_unit_test(test_reader_that_leaves),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_of_what),
        cmocka_unit_test(test_data_folder),
        cmocka_unit_test(test_explain_everything_listed),
        cmocka_unit_test(test_explain_topics),
        cmocka_unit_test(test_explain_what_is_not_there),
        cmocka_unit_test(test_explained_preset_is_sound),
        cmocka_unit_test(test_reference_is_current),
        cmocka_unit_test(test_check_presets),
        cmocka_unit_test(test_check_good_and_bad),
        cmocka_unit_test(test_check_what_is_no_file),
        cmocka_unit_test(test_check_unrecognisable),
        cmocka_unit_test(test_check_tells_kinds),
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_corrupted_trace),
        cmocka_unit_test(test_trace_usage),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
