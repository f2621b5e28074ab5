/* What both programs that measure share: order statistics and when to stop, points and suites from
 * files that may be anybody's, the file of samples, and the run, on a backend made of numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the headers above first. */
#include "calibrate/measure/run.h"
#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- statistics ------------------------------------------------------------------------------- */

static void test_quantiles(void **state)
{
    static const double values[] = {7.25, 2.5, 11, 3.75, 5};
    (void)state;
    assert_float_equal(moecal_median(values, 5), 5, 0);
    assert_float_equal(moecal_median(values, 4), (3.75 + 7.25) / 2, 1e-12);
    assert_float_equal(moecal_quantile(values, 5, 0.25), 3.75, 1e-12);
    assert_float_equal(moecal_quantile(values, 5, 0.1), 2.5 + 0.4 * 1.25, 1e-12);
    assert_float_equal(moecal_quantile(values, 5, 1), 11, 0);
    assert_float_equal(moecal_spread(values, 5), (7.25 - 3.75) / 5, 1e-12);
    assert_float_equal(moecal_spread(values, 1), 0, 0);
    assert_float_equal(moecal_median(NULL, 0), 0, 0);
    assert_float_equal(values[0], 7.25, 0); /* not sorted in place */
}

static void test_when_to_stop(void **state)
{
    const moecal_stop_rule rule = {.budget_s = 1, .spread = 0.05, .most = 40};
    double steady[40], wild[40];
    (void)state;
    for (int i = 0; i < 40; i++) {
        steady[i] = 0.010 + 1e-5 * (i % 3);
        wild[i] = 0.010 * (1 + i % 4);
    }
    assert_int_equal(moecal_next_batch(&rule, steady, 0, 0), 1);
    assert_int_equal(moecal_next_batch(&rule, steady, 1, 0.01), MOECAL_LEAST_REPETITIONS - 1);
    assert_int_equal(moecal_next_batch(&rule, steady, 1, 3), 1); /* slow: no more than it must */
    assert_int_equal(moecal_next_batch(&rule, steady, MOECAL_LEAST_REPETITIONS, 3), 0);
    assert_int_equal(moecal_next_batch(&rule, steady, 10, 0.1), 8); /* 0.09 s of 0.01001 s each */
    assert_int_equal(moecal_next_batch(&rule, steady, MOECAL_SETTLED_REPETITIONS, 0.2), 0);
    assert_true(moecal_next_batch(&rule, wild, MOECAL_SETTLED_REPETITIONS, 0.2) > 0);
    assert_int_equal(moecal_next_batch(&rule, wild, 39, 0.2), 1);
    assert_int_equal(moecal_next_batch(&rule, wild, 40, 0.2), 0);
    const moecal_stop_rule twice = {.budget_s = 1, .spread = 0.05, .most = 2};
    assert_int_equal(moecal_next_batch(&twice, wild, 1, 0.1), 1);
    assert_int_equal(moecal_next_batch(&twice, wild, 2, 0.1), 0);
}

/* --- points ----------------------------------------------------------------------------------- */

static moecal_point *parse(const char *text)
{
    char error[512] = "";
    json_t *object = json_loads(text, 0, NULL);
    assert_non_null(object);
    moecal_point *point = moecal_point_parse(object, error, sizeof error);
    json_decref(object);
    if (!point)
        fail_msg("%s: %s", text, error);
    return point;
}

static void check_work(const char *text, double flop, double bytes)
{
    moecal_point *point = parse(text);
    assert_float_equal(moecal_point_flop(point), flop, flop * 1e-12);
    assert_float_equal(moecal_point_bytes(point), bytes, bytes * 1e-12);
    moecal_point_free(point);
}

static void test_work(void **state)
{
    (void)state;
    check_work("{\"kind\": \"gemm\", \"dtype\": \"bf16\", \"m\": 3, \"n\": 5, \"k\": 7}", 210,
               2 * (21 + 35 + 15));
    check_work("{\"kind\": \"experts\", \"phase\": \"forward\", \"hidden\": 4, \"ffn\": 6, "
               "\"gated\": true, "
               "\"rows\": [3, 0, 2]}",
               3 * 2 * 5 * 24, 4 * 3 * (2 * 24 + 5 * 10));
    check_work("{\"kind\": \"permute\", \"tokens\": 10, \"hidden\": 8, \"top_k\": 2}", 0,
               4 * 2 * 160);
    check_work("{\"kind\": \"attention\", \"sequences\": 2, \"sequence\": 8, \"heads\": 4, "
               "\"kv_heads\": 2, "
               "\"head_dim\": 16, \"phase\": \"backward\"}",
               2 * 2 * 8 * 4 * 4.0 * 64, 4 * 2 * 16 * (2 * 6 * 16));
    check_work("{\"kind\": \"adam\", \"parameters\": 100}", 0, 100 * 32);
    check_work(
        "{\"kind\": \"collective\", \"collective\": \"all_to_all\", \"matrix\": [[1, 2], [8, 4]]}",
        0, 12);
    check_work("{\"kind\": \"collective\", \"collective\": \"broadcast\", \"chunk_bytes\": 64, "
               "\"chunks\": "
               "[{\"owner\": 0, \"want\": [2, 1]}, {\"owner\": 1, \"want\": [0]}]}",
               0, 128);
}

/* A suite's points survive a trip through JSON, and no two share an id or have one that was cut. */
static void check_round_trip(const moecal_suite *suite)
{
    for (size_t i = 0; i < suite->count; i++) {
        json_t *object = moecal_point_json(suite->points[i]);
        char error[512] = "";
        moecal_point *again = moecal_point_parse(object, error, sizeof error);
        if (!again)
            fail_msg("%s: %s", suite->points[i]->id, error);
        assert_string_equal(again->id, suite->points[i]->id);
        assert_true(strlen(again->id) < sizeof again->id - 1);
        assert_true(moecal_point_flop(again) == moecal_point_flop(suite->points[i]));
        assert_true(moecal_point_bytes(again) == moecal_point_bytes(suite->points[i]));
        moecal_point_free(again);
        json_decref(object);
    }
}

static void test_builtin_suites(void **state)
{
    (void)state;
    for (int cpu = 0; cpu < 2; cpu++)
        for (const moecal_builtin *entry = moecal_builtins; entry->name; entry++) {
            moecal_suite *suite = moecal_builtin_suite(entry->name, cpu, 8);
            assert_true(suite->count > 2);
            check_round_trip(suite);
            moecal_suite_free(suite);
        }
    moecal_suite *alone = moecal_builtin_suite("full", true, 1);
    for (size_t i = 0; i < alone->count; i++)
        assert_int_equal(moecal_point_least_ranks(alone->points[i]), 1);
    moecal_suite_free(alone);
    assert_null(moecal_builtin_find("fullest"));
}

/* The hottest sender and the hottest receiver are varied apart. */
static void test_skewed_matrices(void **state)
{
    moecal_suite *suite = moecal_builtin_suite("collectives", false, 8);
    int seen[5][5] = {{0}};
    (void)state;
    for (size_t i = 0; i < suite->count; i++) {
        const moecal_exchange *exchange = &suite->points[i]->first;
        double sender, receiver;
        if (!exchange->matrix)
            continue;
        moecal_exchange_hottest(exchange, &sender, &receiver);
        assert_float_equal(sender, round(sender), 1e-3);
        assert_float_equal(receiver, round(receiver), 1e-3);
        seen[(int)round(sender)][(int)round(receiver)]++;
    }
    for (int sender = 1; sender <= 4; sender *= 2)
        for (int receiver = 1; receiver <= 4; receiver *= 2)
            assert_true(seen[sender][receiver] > 0);
    moecal_suite_free(suite);
}

static void test_rows(void **state)
{
    int64_t rows[7], total = 0;
    (void)state;
    moecal_rows_uniform(rows, 7, 100);
    assert_int_equal(rows[0], 15);
    assert_int_equal(rows[6], 14);
    moecal_rows_power_law(rows, 7, 1001);
    for (int i = 0; i < 7; i++) {
        total += rows[i];
        assert_true(i == 0 || rows[i] <= rows[i - 1]);
    }
    assert_int_equal(total, 1001);
    assert_in_range(rows[0] * 100 / rows[3], 395, 405); /* 1 : 1/4 */
}

/* --- hostile points and suites ---------------------------------------------------------------- */

static const struct {
    const char *point, *message;
} bad_points[] = {
    {"[]", "an array, expected an object"},
    {"{}", "\"kind\" is missing, expected gemm, experts"},
    {"{\"kind\": \"gem\"}", "\"gem\", expected gemm"},
    {"{\"kind\": \"gemm\", \"m\": 1, \"n\": 1}", "\"k\" is missing"},
    {"{\"kind\": \"gemm\", \"m\": 0, \"n\": 1, \"k\": 1}", "\"m\" is 0, expected 1 to"},
    {"{\"kind\": \"gemm\", \"m\": -4, \"n\": 1, \"k\": 1}", "\"m\" is -4"},
    {"{\"kind\": \"gemm\", \"m\": 1.5, \"n\": 1, \"k\": 1}", "\"m\" is a real"},
    {"{\"kind\": \"gemm\", \"m\": 2147483648, \"n\": 2147483648, \"k\": 2}", "it would touch"},
    {"{\"kind\": \"gemm\", \"m\": 1, \"n\": 1, \"k\": 1, \"dtype\": \"int4\"}",
     "expected fp32, bf16"},
    {"{\"kind\": \"experts\", \"phase\": \"backward\", \"hidden\": 1, \"ffn\": 1, \"rows\": [1]}",
     "expected forward, input_gradient"},
    {"{\"kind\": \"experts\", \"phase\": \"forward\", \"hidden\": 1, \"ffn\": 1, \"rows\": []}",
     "0 elements, expected 1 to 65536"},
    {"{\"kind\": \"experts\", \"phase\": \"forward\", \"hidden\": 1, \"ffn\": 1, \"rows\": [0, 0]}",
     "nothing but zeros"},
    {"{\"kind\": \"experts\", \"phase\": \"forward\", \"hidden\": 1, \"ffn\": 1, \"rows\": "
     "[\"a\"]}",
     "\"rows\" is a string"},
    {"{\"kind\": \"experts\", \"phase\": \"forward\", \"hidden\": 1, \"ffn\": 1, \"rows\": [1], "
     "\"gated\": 1}",
     "expected true or false"},
    {"{\"kind\": \"gate\", \"tokens\": 1, \"hidden\": 1, \"experts\": 2, \"top_k\": 3}",
     "\"top_k\" is 3, expected at most"},
    {"{\"kind\": \"attention\", \"sequences\": 1, \"sequence\": 1, \"heads\": 3, \"kv_heads\": 2, "
     "\"head_dim\": 1}",
     "expected a multiple of \"kv_heads\", 2"},
    {"{\"kind\": \"attention\", \"sequences\": 1, \"sequence\": 1, \"heads\": 1, \"head_dim\": 1, "
     "\"phase\": "
     "\"weight_gradient\"}",
     "expected forward or backward"},
    {"{\"kind\": \"collective\", \"collective\": \"all_to_all\"}", "\"bytes\" is missing"},
    {"{\"kind\": \"collective\", \"collective\": \"all_to_all\", \"bytes\": 9, \"ranks\": 1}",
     "\"ranks\" is 1, expected 2"},
    {"{\"kind\": \"collective\", \"collective\": \"all_to_all\", \"matrix\": [[1, 2], [3]]}",
     "not square"},
    {"{\"kind\": \"collective\", \"collective\": \"all_to_all\", \"matrix\": [[1, 2], 3]}",
     "is an integer, expected an array"},
    {"{\"kind\": \"collective\", \"collective\": \"all_to_all\", \"matrix\": [[0, 0], [0, 0]]}",
     "nothing but zeros"},
    {"{\"kind\": \"collective\", \"collective\": \"all_to_all\", \"matrix\": [[1, 2], [3, 4]], "
     "\"ranks\": 3}",
     "a matrix of 2 ranks"},
    {"{\"kind\": \"collective\", \"collective\": \"all_gather\", \"matrix\": [[1]]}",
     "belongs to all_to_all alone"},
    {"{\"kind\": \"collective\", \"collective\": \"broadcast\", \"chunks\": [{\"owner\": 0, "
     "\"want\": [1]}]}",
     "\"chunk_bytes\" is missing"},
    {"{\"kind\": \"collective\", \"collective\": \"broadcast\", \"chunk_bytes\": 1, \"chunks\": "
     "[3]}",
     "a chunk is an integer"},
    {"{\"kind\": \"collective\", \"collective\": \"broadcast\", \"chunk_bytes\": 1, \"chunks\": "
     "[{\"owner\": 0, "
     "\"want\": [0]}]}",
     "names the owner"},
    {"{\"kind\": \"collective\", \"collective\": \"broadcast\", \"chunk_bytes\": 1, \"chunks\": "
     "[{\"owner\": 0, "
     "\"want\": [1, 1]}]}",
     "names 1 twice"},
    {"{\"kind\": \"collective\", \"collective\": \"broadcast\", \"chunk_bytes\": 1, \"ranks\": 2, "
     "\"chunks\": "
     "[{\"owner\": 0, \"want\": [5]}]}",
     "rank 5 in \"chunks\", but \"ranks\" are 2"},
    {"{\"kind\": \"collective\", \"collective\": \"reduce\", \"chunk_bytes\": 1099511627776, "
     "\"chunks\": "
     "[{\"owner\": 0, \"want\": [1]}, {\"owner\": 0, \"want\": [1]}]}",
     "2 chunks of 1099511627776 bytes"},
    {"{\"kind\": \"interference\", \"compute\": {\"m\": 1, \"n\": 1, \"k\": 0}}",
     "\"compute.k\" is 0"},
    {"{\"kind\": \"interference\", \"compute\": {\"m\": 1, \"n\": 1, \"k\": 1}}",
     "\"collective\" is missing"},
    {"{\"kind\": \"interference\", \"compute\": {\"m\": 1, \"n\": 1, \"k\": 1}, \"sm_share\": 2, "
     "\"collective\": "
     "{\"collective\": \"all_reduce\", \"bytes\": 8}}",
     "above 0 and up to 1"},
    {"{\"kind\": \"sharing\", \"first\": {\"collective\": \"all_reduce\", \"bytes\": 8}, "
     "\"second\": "
     "{\"collective\": \"all_reduce\", \"bytes\": 0}}",
     "\"second.bytes\" is 0"},
    {"{\"kind\": \"launch\", \"mode\": \"batch\", \"kernels\": 1}",
     "expected stream, graph or sync"},
    {"{\"kind\": \"copy\", \"direction\": \"up\", \"bytes\": 1}", "expected host_to_device"},
};

static void test_bad_points(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_points / sizeof *bad_points; i++) {
        char error[512] = "";
        json_t *object = json_loads(bad_points[i].point, 0, NULL);
        assert_non_null(object);
        if (moecal_point_parse(object, error, sizeof error))
            fail_msg("accepted: %s", bad_points[i].point);
        if (!strstr(error, bad_points[i].message))
            fail_msg("%s\n  says:     %s\n  expected: %s", bad_points[i].point, error,
                     bad_points[i].message);
        json_decref(object);
    }
}

/* What a suite's text is answered with; to be freed. NULL: it was read. */
static char *errors_of(const char *text)
{
    char *said = NULL;
    size_t size;
    FILE *errors = open_memstream(&said, &size);
    moecal_suite *suite = moecal_suite_parse("s.json", text, strlen(text), errors);
    fclose(errors);
    if (suite) {
        assert_int_equal(size, 0);
        free(said);
        said = NULL;
    }
    moecal_suite_free(suite);
    return said;
}

static void check_refused(const char *text, const char *first, const char *second)
{
    char *said = errors_of(text);
    if (!said || !strstr(said, first) || !strstr(said, second))
        fail_msg("%s\n  says:     %s\n  expected: %s and %s", text, said, first, second);
    free(said);
}

static void test_bad_suites(void **state)
{
    (void)state;
    check_refused("{\"format\": ", "s.json:1:", "error");
    check_refused("{\"a\": 1, \"a\": 2}", "duplicate", "s.json:1:");
    check_refused("[7]", "\"format\" is not", "\"points\" is not an array");
    check_refused("{\"format\": \"moecal-suite\", \"version\": 2, \"points\": []}",
                  "\"version\" is not 1", "0 points, expected 1");
    check_refused("{\"format\": \"moecal-suite\", \"version\": 1, \"points\": [{\"kind\": "
                  "\"norm\", \"tokens\": "
                  "1, \"hidden\": 1}, {\"kind\": \"norms\"}, 4]}",
                  "point 1: \"kind\" is \"norms\"", "point 2: a point is an integer");
}

static void test_suite_drops_duplicates(void **state)
{
    static const char text[] =
        "{\"format\": \"moecal-suite\", \"version\": 1, \"name\": \"n\", \"points\": ["
        "{\"kind\": \"norm\", \"tokens\": 5, \"hidden\": 3}, {\"kind\": \"norm\", \"tokens\": 6, "
        "\"hidden\": 3},"
        "{\"hidden\": 3, \"kind\": \"norm\", \"dtype\": \"fp32\", \"tokens\": 5, \"note\": "
        "\"ignored\"}]}";
    (void)state;
    moecal_suite *suite = moecal_suite_parse("s.json", text, strlen(text), stderr);
    assert_non_null(suite);
    assert_int_equal(suite->count, 2);
    assert_string_equal(suite->name, "n");
    moecal_suite_free(suite);
}

/* --- the file of samples ---------------------------------------------------------------------- */

static char folder[] = "/tmp/moecal-test-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/samples.jsonl", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static int remove_file(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static json_t *description(int ranks, double peak)
{
    return json_pack("{s:s, s:i, s:i, s:{s:s, s:f}}", "backend", "numbers", "hosts", 1, "ranks",
                     ranks, "device", "name", "abacus", "peak_flop_per_s", peak);
}

/* NULL with what was said in `error`. */
static moecal_samples *open_again(bool resume, int ranks, double peak, char error[static 512])
{
    json_t *machine = description(ranks, peak);
    moecal_samples *samples = moecal_samples_open(path, resume, machine, error, 512);
    json_decref(machine);
    return samples;
}

static void write_id(moecal_samples *samples, const char *id)
{
    json_t *sample = json_pack("{s:s, s:s}", "record", "sample", "id", id);
    assert_int_equal(moecal_samples_write(samples, sample), 0);
    json_decref(sample);
}

static void append(const char *text)
{
    FILE *file = fopen(path, "ab");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static long file_size(void)
{
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return (long)status.st_size;
}

static void test_digest(void **state)
{
    char one[9], other[9];
    json_t *first = description(2, 1e9), *second = description(2, 1.5e9);
    json_t *line = moecal_machine_line(first), *line2 = moecal_machine_line(second);
    (void)state;
    moecal_machine_digest(line, one);
    assert_string_equal(one, json_string_value(json_object_get(line, "machine")));
    assert_int_equal(strspn(one, "0123456789abcdef"), 8);
    json_object_set_new(line, "time", json_string("another"));
    moecal_machine_digest(line, other);
    assert_string_equal(one, other);
    moecal_machine_digest(line2, other);
    assert_string_not_equal(one, other);
    json_decref(first);
    json_decref(second);
    json_decref(line);
    json_decref(line2);
}

static void test_resume(void **state)
{
    char error[512] = "";
    (void)state;
    moecal_samples *samples = open_again(false, 2, 1e9, error);
    assert_non_null(samples);
    write_id(samples, "a");
    moecal_samples_close(samples);
    long whole = file_size();
    append("{\"record\": \"sample\", \"id\": \"cut");
    samples = open_again(true, 2, 1.1e9, error); /* a measured peak may differ */
    assert_non_null(samples);
    assert_int_equal(file_size(), whole);
    assert_true(moecal_samples_has(samples, "a"));
    assert_false(moecal_samples_has(samples, "cut"));
    assert_int_equal(moecal_samples_count(samples), 1);
    write_id(samples, "b");
    moecal_samples_close(samples);
    samples = open_again(true, 2, 1e9, error);
    assert_non_null(samples);
    assert_int_equal(moecal_samples_count(samples), 2);
    moecal_samples_close(samples);
}

static void check_not_resumed(const char *message)
{
    char error[512] = "";
    long before = file_size();
    if (open_again(true, 2, 1e9, error) || !strstr(error, message))
        fail_msg("expected \"%s\", it says \"%s\"", message, error);
    assert_int_equal(file_size(), before); /* nothing was touched */
}

static void test_not_resumed(void **state)
{
    char error[512] = "";
    (void)state;
    moecal_samples *samples = open_again(true, 3, 1e9, error); /* a new file may be "resumed" */
    assert_non_null(samples);
    write_id(samples, "a");
    moecal_samples_close(samples);
    assert_null(open_again(false, 3, 1e9, error));
    assert_non_null(strstr(error, "--resume continues it"));
    check_not_resumed("another machine (\"ranks\" differs)");
    remove_file(NULL);
    append("{\"record\": \"sample\", \"id\": \"a\"}\n");
    check_not_resumed("not a machine line");
    remove_file(NULL);
    append("one, two\n");
    check_not_resumed("samples.jsonl:1:");
    remove_file(NULL);
    append("somebody's notes, without an end of line");
    check_not_resumed("samples.jsonl:1: neither a machine nor a sample");
    remove_file(NULL);
    samples = open_again(false, 2, 1e9, error);
    moecal_samples_close(samples);
    append("{\"record\": \"sample\", \"id\": \"a\", \"machine\": \"00000000\"}\n");
    check_not_resumed("a sample of another machine");
}

/* What a kill left of the first line is ours. */
static void test_cut_in_the_first_line(void **state)
{
    char error[512] = "";
    (void)state;
    append("{\"record\":\"machi");
    moecal_samples *samples = open_again(true, 2, 1e9, error);
    assert_non_null(samples);
    assert_int_equal(moecal_samples_count(samples), 0);
    moecal_samples_close(samples);
    samples = open_again(true, 2, 1e9, error);
    assert_non_null(samples);
    moecal_samples_close(samples);
}

static void test_one_writer(void **state)
{
    char error[512] = "";
    (void)state;
    moecal_samples *first = open_again(false, 2, 1e9, error);
    assert_non_null(first);
    check_not_resumed("another run is writing it");
    write_id(first, "a");
    moecal_samples_close(first);
    moecal_samples *second = open_again(true, 2, 1e9, error);
    assert_non_null(second);
    assert_int_equal(moecal_samples_count(second), 1);
    moecal_samples_close(second);
}

/* --- a run ------------------------------------------------------------------------------------ */

/* A backend that computes nothing: what it does is written here. */
typedef struct abacus {
    double error, time_s;
    int prepared, checked, run, released;
    int fail_prepare;
    const char *refusal;
} abacus;

static const char *abacus_refuses(const void *state, const moecal_point *point)
{
    (void)point;
    return ((const abacus *)state)->refusal;
}

static int abacus_prepare(void *state, const moecal_point *point, char *error, size_t size)
{
    abacus *it = state;
    (void)point;
    it->prepared++;
    if (it->fail_prepare)
        snprintf(error, size, "no beads left");
    return it->fail_prepare;
}

static moecal_check abacus_check(void *state, const moecal_point *point)
{
    abacus *it = state;
    (void)point;
    it->checked++;
    return (moecal_check){it->error, 1e-3};
}

static void abacus_run(void *state, const moecal_point *point, int alone, int count,
                       moecal_time *times)
{
    abacus *it = state;
    bool pair = point->kind == MOECAL_SHARING && alone == 0;
    for (int i = 0; i < count; i++) {
        it->run++;
        times[i] = (moecal_time){it->time_s * (1 + (it->run % 5) * 0.3 + alone), 0, 0};
        if (pair)
            times[i] = (moecal_time){5, 4, 3};
    }
}

static moecal_conditions abacus_conditions(void *state)
{
    (void)state;
    return (moecal_conditions){.clock_hz = 7, .temperature_c = NAN};
}

static void abacus_release(void *state, const moecal_point *point)
{
    (void)point;
    ((abacus *)state)->released++;
}

static void abacus_share(void *state, double *values, int count)
{
    (void)state;
    (void)values;
    (void)count;
}

static const moecal_backend abacus_backend = {
    .name = "abacus",
    .refuses = abacus_refuses,
    .prepare = abacus_prepare,
    .check = abacus_check,
    .run = abacus_run,
    .conditions = abacus_conditions,
    .release = abacus_release,
    .share = abacus_share,
};

static const char two_points[] = "{\"format\": \"moecal-suite\", \"version\": 1, \"points\": "
                                 "[{\"kind\": \"norm\", \"tokens\": 5, \"hidden\": "
                                 "3}, {\"kind\": \"sharing\", \"ranks\": 2, \"first\": "
                                 "{\"collective\": \"all_gather\", \"bytes\": 8}, \"second\": "
                                 "{\"collective\": \"all_reduce\", \"bytes\": 8}}]}";

static volatile sig_atomic_t stop_now;

/* Progress is not what is looked at here. */
static moecal_tally run_text(abacus *it, moecal_samples *samples, int ranks, const char *text)
{
    moecal_suite *suite = moecal_suite_parse("s", text, strlen(text), stderr);
    moecal_run run = {
        .backend = &abacus_backend,
        .state = it,
        .world = {.processes = 1, .ranks = ranks, .hosts = 1, .devices_per_host = ranks},
        .samples = samples,
        .rule = {.budget_s = 10, .spread = 1e-9, .most = 20},
        .rates = moecal_rates_cpu,
        .stopped = &stop_now};
    assert_non_null(suite);
    int kept = dup(STDERR_FILENO), nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, STDERR_FILENO);
    moecal_tally tally = moecal_run_suite(&run, suite);
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(nowhere);
    moecal_suite_free(suite);
    return tally;
}

static moecal_tally run_points(abacus *it, moecal_samples *samples, int ranks)
{
    return run_text(it, samples, ranks, two_points);
}

static moecal_samples *fresh_samples(void)
{
    char error[512] = "";
    moecal_samples *samples = open_again(true, 2, 1e9, error);
    if (!samples)
        fail_msg("%s", error);
    return samples;
}

static json_t *last_sample(void)
{
    FILE *file = fopen(path, "r");
    char line[65536], last[65536] = "";
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        memcpy(last, line, sizeof last);
    fclose(file);
    json_t *sample = json_loads(last, 0, NULL);
    assert_non_null(sample);
    return sample;
}

static void test_run(void **state)
{
    abacus it = {.error = 1e-4, .time_s = 1e-6};
    moecal_samples *samples = fresh_samples();
    (void)state;
    moecal_tally tally = run_points(&it, samples, 2);
    moecal_samples_close(samples);
    assert_int_equal(tally.measured, 2);
    assert_int_equal(tally.failed, 0);
    assert_int_equal(it.checked, 2);
    assert_int_equal(it.released, 2);
    json_t *sample = last_sample();
    /* they are all the same */
    assert_int_equal(json_array_size(json_object_get(sample, "times_s")),
                     MOECAL_SETTLED_REPETITIONS);
    assert_float_equal(
        json_number_value(json_array_get(json_object_get(sample, "first_times_s"), 3)), 4, 0);
    assert_float_equal(
        json_number_value(json_array_get(json_object_get(sample, "second_times_s"), 3)), 3, 0);
    /* times of part p are (1 + p + 0, 0.3, ... 1.2) us: their median has 0.6 */
    assert_float_equal(json_number_value(json_object_get(sample, "first_alone_s")), 2.6e-6, 1e-12);
    assert_float_equal(json_number_value(json_object_get(sample, "second_alone_s")), 3.6e-6, 1e-12);
    assert_int_equal(json_integer_value(json_object_get(sample, "ranks")), 2);
    json_t *conditions = json_object_get(sample, "conditions");
    assert_float_equal(json_number_value(json_object_get(conditions, "clock_hz")), 7, 0);
    assert_null(json_object_get(conditions, "temperature_c"));
    json_decref(sample);
    samples = fresh_samples(); /* once more: nothing is left to do */
    tally = run_points(&it, samples, 2);
    moecal_samples_close(samples);
    assert_int_equal(tally.had, 2);
    assert_int_equal(it.prepared, 2);
}

static void test_failed_check_is_not_timed(void **state)
{
    static const double errors[] = {1.1e-3, NAN, INFINITY};
    (void)state;
    for (int i = 0; i < 3; i++) {
        abacus it = {.error = errors[i], .time_s = 1e-6};
        moecal_samples *samples = fresh_samples();
        moecal_tally tally = run_points(&it, samples, 2);
        assert_int_equal(tally.failed, 2);
        assert_int_equal(tally.measured, 0);
        assert_int_equal(it.run, 0);
        assert_int_equal(it.released, 2);
        moecal_samples_close(samples);
    }
    abacus broken = {.fail_prepare = 1}, timeless = {.error = 0, .time_s = 0};
    moecal_samples *samples = fresh_samples();
    assert_int_equal(run_points(&broken, samples, 2).failed, 2);
    assert_int_equal(broken.checked, 0);
    assert_int_equal(run_points(&timeless, samples, 1).failed, 1); /* no time of 0 is written */
    assert_int_equal(moecal_samples_count(samples), 0);
    moecal_samples_close(samples);
}

static void test_skipped_and_stopped(void **state)
{
    abacus it = {.error = 0, .time_s = 1e-6, .refusal = "wooden"},
           other = {.error = 0, .time_s = 1e-6};
    moecal_samples *samples = fresh_samples();
    (void)state;
    moecal_tally tally = run_points(&it, samples, 2);
    assert_int_equal(tally.refused, 2);
    assert_int_equal(it.prepared, 0);
    tally = run_points(&other, samples, 1);
    assert_int_equal(tally.refused, 1); /* a collective of one rank */
    assert_int_equal(tally.measured, 1);
    stop_now = 1;
    tally = run_points(&other, samples, 2);
    stop_now = 0;
    assert_true(tally.stopped);
    assert_int_equal(tally.measured, 0);
    moecal_samples_close(samples);
}

/* A matrix of 400 ranks is more than a line may hold: not measured, for nobody could read it. */
static void test_too_long_a_line(void **state)
{
    enum { RANKS = 400 };
    abacus it = {.error = 0, .time_s = 1e-6};
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    (void)state;
    fprintf(stream, "{\"format\": \"moecal-suite\", \"version\": 1, \"points\": [{\"kind\": "
                    "\"collective\", \"collective\": \"all_to_all\", \"matrix\": [");
    for (int i = 0; i < RANKS * RANKS; i++)
        fprintf(stream, "%s123456", i == 0 ? "[" : i % RANKS == 0 ? "], [" : ", ");
    fprintf(stream, "]]}]}");
    fclose(stream);
    moecal_samples *samples = fresh_samples();
    moecal_tally tally = run_text(&it, samples, RANKS, text);
    assert_int_equal(tally.refused, 1);
    assert_int_equal(it.prepared, 0);
    moecal_samples_close(samples);
    free(text);
}

static void test_full_disk(void **state)
{
    abacus it = {.error = 0, .time_s = 1e-6};
    char error[512] = "";
    json_t *machine = description(2, 1e9);
    (void)state;
    assert_null(moecal_samples_open("/dev/full", false, machine, error, sizeof error));
    assert_non_null(strstr(error, "No space left"));
    json_decref(machine);
    moecal_samples *samples = fresh_samples();
    int full = open("/dev/full", O_WRONLY), file = -1;
    for (int i = 3; i < 64 && file < 0; i++) { /* the samples' */
        struct stat a, b;
        if (i != full && fstat(i, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino &&
            a.st_dev == b.st_dev)
            file = i;
    }
    assert_true(full >= 0 && file >= 0);
    dup2(full, file);
    moecal_tally tally = run_points(&it, samples, 2);
    assert_true(tally.broken);
    assert_int_equal(it.prepared, 1); /* and no further */
    close(full);
    moecal_samples_close(samples);
}

/* --- estimates -------------------------------------------------------------------------------- */

static void test_estimates(void **state)
{
    const moecal_stop_rule rule = {1, 0.01, 200};
    moecal_point *small = parse("{\"kind\": \"gemm\", \"m\": 1, \"n\": 64, \"k\": 64}");
    moecal_point *large = parse("{\"kind\": \"gemm\", \"m\": 65536, \"n\": 8192, \"k\": 8192}");
    (void)state;
    assert_true(moecal_estimate_repetition_s(large, &moecal_rates_cpu) > 8.7e12 / 5e11);
    assert_true(moecal_estimate_repetition_s(large, &moecal_rates_cuda) < 0.1);
    assert_true(moecal_estimate_point_s(small, &moecal_rates_cpu, &rule) < 1);
    assert_true(moecal_estimate_point_s(large, &moecal_rates_cpu, &rule) >
                MOECAL_LEAST_REPETITIONS * moecal_estimate_repetition_s(large, &moecal_rates_cpu));
    moecal_point_free(small);
    moecal_point_free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_when_to_stop),
        cmocka_unit_test(test_work),
        cmocka_unit_test(test_builtin_suites),
        cmocka_unit_test(test_skewed_matrices),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_bad_points),
        cmocka_unit_test(test_bad_suites),
        cmocka_unit_test(test_suite_drops_duplicates),
        cmocka_unit_test(test_digest),
        cmocka_unit_test_teardown(test_resume, remove_file),
        cmocka_unit_test_teardown(test_not_resumed, remove_file),
        cmocka_unit_test_teardown(test_cut_in_the_first_line, remove_file),
        cmocka_unit_test_teardown(test_one_writer, remove_file),
        cmocka_unit_test_teardown(test_run, remove_file),
        cmocka_unit_test_teardown(test_failed_check_is_not_timed, remove_file),
        cmocka_unit_test_teardown(test_skipped_and_stopped, remove_file),
        cmocka_unit_test_teardown(test_too_long_a_line, remove_file),
        cmocka_unit_test_teardown(test_full_disk, remove_file),
        cmocka_unit_test(test_estimates),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
