/* `moeplan profile fit` as a user calls it: samples in, a profile and a cluster out that `check` accepts and
 * `simulate` runs with, the table, the JSON, and how it goes wrong. */
#include "tests/program.h"

#include <math.h>

#define QUICKSTART MOE_TEST_SOURCE_DIR "/configs/scenarios/quickstart.yaml"
#define SHORT      "--set", "trace.window=[500, 502]", "--set", "parallel.ep=8"

enum { SAMPLES = 4 * 3 + 4 + 7 * 12 + 2 };

static char *samples, *profile, *cluster;

static const char head[] =
    "{\"record\": \"sample\", \"machine\": \"abcd0123\", \"dtype\": \"bf16\"";

static void write_computation(FILE *file)
{
    for (double m = 64; m <= 4096; m *= 4) {
        for (double n = 512; n <= 2048; n *= 2) {
            double seconds = 4e-6 + 2 * m * n * 1024 / 1e14;
            fprintf(
                file,
                "%s, \"id\": \"g%g_%g\", \"kind\": \"gemm\", \"m\": %g, \"n\": %g, \"k\": 1024, "
                "\"times_s\": [%g, %g]}\n",
                head, m, n, m, n, seconds, seconds);
        }
        fprintf(
            file,
            "%s, \"id\": \"e%g\", \"kind\": \"experts\", \"phase\": \"forward\", \"hidden\": 1024, "
            "\"ffn\": 4096, \"gated\": false, \"rows\": [%g, %g], \"times_s\": [%g]}\n",
            head, m, m, m / 2, 2e-5 + 4 * 1024 * 4096 * 1.5 * m / 8e13);
    }
    fprintf(file,
            "%s, \"id\": \"l\", \"kind\": \"launch\", \"mode\": \"stream\", \"kernels\": 10, "
            "\"times_s\": [5e-5]}\n",
            head);
    fprintf(file,
            "%s, \"id\": \"n\", \"kind\": \"norm\", \"tokens\": 8192, \"hidden\": 1024, "
            "\"times_s\": [3e-5]}\n",
            head);
}

static void write_collectives(FILE *file)
{
    static const char *const kinds[] = {"all_to_all", "all_gather", "reduce_scatter", "all_reduce",
                                        "broadcast",  "reduce",     "send_recv"};
    for (int kind = 0; kind < 7; kind++) {
        for (double bytes = 1024; bytes < 1e10; bytes *= 4)
            fprintf(file,
                    "%s, \"id\": \"%s%.0f\", \"kind\": \"collective\", \"collective\": \"%s\", "
                    "\"ranks\": 8, "
                    "\"hosts\": 1, \"bytes\": %.0f, \"times_s\": [%g]}\n",
                    head, kinds[kind], bytes, kinds[kind], bytes, 3e-5 + bytes / 1e11);
    }
}

static int setup(void **state)
{
    if (program_setup(state) != 0)
        return -1;
    samples = program_path("samples.jsonl");
    profile = program_path("machine.profile.yaml");
    cluster = program_path("machine.cluster.yaml");
    FILE *file = fopen(samples, "wb");
    fputs(
        "{\"record\": \"machine\", \"format\": \"moecal-samples\", \"version\": 1, \"machine\": "
        "\"abcd0123\", \"hosts\": 1, \"ranks\": 8, \"devices_per_host\": 8, \"device\": {\"name\": "
        "\"Invented\", \"peak_flop_per_s\": 2e14, \"memory_bytes\": 8e10, \"memory_bytes_per_s\": "
        "2e12}, "
        "\"link\": {\"bytes_per_s\": 3e11, \"latency_s\": 1e-6}}\n",
        file);
    write_computation(file);
    write_collectives(file);
    return fclose(file);
}

static int teardown(void **state)
{
    free(samples);
    free(profile);
    free(cluster);
    return program_teardown(state);
}

static void fit(void)
{
    program_result result =
        EXPECT(0, "profile", "fit", samples, "-o", profile, "--cluster-out", cluster);
    program_contains(result.out, "all_to_all");
    program_contains(result.out, "measured, assumed between hosts");
    program_contains(result.out, "64 to 4096 rows");
    program_free(&result);
}

static void test_written_files_are_sound(void **state)
{
    (void)state;
    fit();
    program_result result = EXPECT(0, "check", profile, cluster);
    program_contains(result.out, "sound profile");
    program_contains(result.out, "sound cluster");
    program_free(&result);
}

static double step_s(const char *engine, const char *const *more)
{
    char *with_profile = NULL, *with_cluster = NULL;
    assert_true(asprintf(&with_profile, "profile=%s", profile) > 0);
    assert_true(asprintf(&with_cluster, "cluster=%s", cluster) > 0);
    program_result result =
        EXPECT(0, "simulate", QUICKSTART, SHORT, "--engine", engine, "--policy", "ep", "--json",
               "--set", with_profile, "--set", with_cluster, more[0], more[1]);
    json_t *json = program_json(result.out);
    const json_t *policy = json_array_get(json_object_get(json, "policies"), 0);
    double seconds =
        json_number_value(json_object_get(json_object_get(policy, "step_time_s"), "mean"));
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(json, "cluster"), "device")), "Invented");
    json_decref(json);
    program_free(&result);
    free(with_profile);
    free(with_cluster);
    return seconds;
}

static void test_simulates_with_both(void **state)
{
    (void)state;
    fit();
    double analytic = step_s("analytic", (const char *const[]){"--set", "seed=1"});
    double fluid = step_s("fluid", (const char *const[]){"--set", "seed=1"});
    assert_true(analytic > 1e-4 && analytic < 10);
    assert_true(fluid > 0.5 * analytic && fluid < 2 * analytic);
}

static void test_json(void **state)
{
    (void)state;
    program_result result = EXPECT(0, "profile", "fit", samples, "--json", "--name", "mine");
    json_t *json = program_json(result.out);
    bool found = false;
    size_t i;
    json_t *curve;
    assert_string_equal(json_string_value(json_object_get(json, "profile")), "mine");
    assert_int_equal(json_integer_value(json_object_get(json, "samples")), SAMPLES);
    json_array_foreach(json_object_get(json, "curves"), i, curve)
    {
        if (strcmp(json_string_value(json_object_get(curve, "curve")), "all_reduce") != 0)
            continue;
        found = true;
        assert_int_equal(json_integer_value(json_object_get(curve, "samples")), 12);
        assert_true(json_number_value(json_object_get(curve, "residual")) < 1e-4);
        assert_true(json_number_value(json_object_get(curve, "leave_one_out")) > 0);
    }
    assert_true(found);
    json_decref(json);
    program_free(&result);
}

/* Twice the same, to the byte. */
static void test_is_deterministic(void **state)
{
    (void)state;
    char *again = program_path("again.yaml");
    fit();
    program_result result = EXPECT(0, "profile", "fit", samples, "-o", again);
    char *one = program_read(profile), *two = program_read(again);
    assert_string_equal(one, two);
    free(one);
    free(two);
    free(again);
    program_free(&result);
}

/* A cluster of the user's gives rates and name; a profile of the user's what was not measured. */
static void test_cluster_and_fill(void **state)
{
    (void)state;
    char *other = program_path("other.yaml");
    program_result result =
        EXPECT(0, "profile", "fit", samples, "-o", other, "--cluster",
               MOE_TEST_SOURCE_DIR "/configs/clusters/p4d_4x8_a100.yaml", "--fill",
               MOE_TEST_SOURCE_DIR "/calibrate/profiles/a100_40.yaml");
    program_contains(result.err, "measured on \"Invented\"");
    char *text = program_read(other);
    program_contains(text, "device: A100-40");
    free(text);
    free(other);
    program_free(&result);
}

static void test_goes_wrong(void **state)
{
    (void)state;
    char *bad = program_path("bad.jsonl"), *kept = program_path("kept.yaml");
    program_write(bad, "{\"record\": \"sample\"}\n");
    program_write(kept, "as it was\n");
    program_result results[] = {
        EXPECT(64, "profile", "fit"),
        EXPECT(64, "profile", "fit", samples, "--dtype", "int4"),
        EXPECT(1, "profile", "fit", "/nowhere/samples.jsonl"),
        EXPECT(1, "profile", "fit", bad, "-o", kept),
        EXPECT(1, "profile", "fit", samples, "--cluster", "/nowhere/cluster.yaml", "-o", kept),
    };
    program_contains(results[0].err, "expected a file of samples");
    program_contains(results[1].err, "expected fp32, bf16, fp16 or fp8");
    program_contains(results[2].err, "cannot open");
    program_contains(results[3].err, "bad.jsonl:1:1: error: a sample before the machine");
    char *text = program_read(kept);
    assert_string_equal(text, "as it was\n");
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        program_free(&results[i]);
    free(text);
    free(bad);
    free(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_files_are_sound),
        cmocka_unit_test(test_simulates_with_both),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_is_deterministic),
        cmocka_unit_test(test_cluster_and_fill),
        cmocka_unit_test(test_goes_wrong),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
