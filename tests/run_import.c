/* `moeplan profile import` and `derive` as a user calls them, on tables written here from a closed form; and the
 * committed report on the shipped profiles, where the public tables are at hand. */
#include "tests/program.h"

#include "calibrate/fit/import.h"
#include <math.h>
#include <talloc.h>

#define CLUSTERS MOE_TEST_SOURCE_DIR "/configs/clusters/"
#define H100     CLUSTERS "p5_8xh100.yaml"
#define H200     CLUSTERS "hgx_h200.yaml"

/* Closed forms: what the tables say, so that predictions can be judged. */
static double gemm_us(double m, double n, double k)
{
    const double flop_s = 2 * m * n * k / (0.8 * 989e12);
    const double bytes_s = 2 * (m * k + k * n + m * n) / (0.85 * 3.35e12);
    return 1e6 * (3.5e-6 + fmax(flop_s, bytes_s));
}

static double all_gather_ms(double ranks, double bytes)
{
    return 1e3 * (10e-6 + (ranks - 1) * 0.8e-6 + (ranks - 1) / ranks * bytes / (0.7 * 450e9));
}

static void assert_us(double found, double wanted)
{
    if (!(fabs(found / wanted - 1) < 0.01))
        fail_msg("found %g us; expected %g us", found, wanted);
}

static void write_tables(const char *gemm, const char *nccl)
{
    FILE *file = fopen(gemm, "w");
    assert_non_null(file);
    fputs("gemm_dtype,kernel_source,m,n,k,latency_us\n", file);
    for (int m = 1; m <= 4096; m *= 2) {
        for (int n = 256; n <= 4096; n *= 4) {
            for (int k = 256; k <= 4096; k *= 4)
                fprintf(file, "bfloat16,torch,%d,%d,%d,%.6g\n", m, n, k, gemm_us(m, n, k));
        }
    }
    assert_int_equal(fclose(file), 0);
    file = fopen(nccl, "w");
    assert_non_null(file);
    fputs("gpu,src_lib,src_ver,device,op_name,kernel_source,nccl_dtype,num_gpus,message_size,"
          "latency\n",
          file);
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        for (double elements = 256; elements <= 268435456; elements *= 4)
            fprintf(file, "h100_sxm,nccl,2.29.2,H,all_gather,NCCL,half,%d,%.0f,%.6g\n", ranks,
                    elements, all_gather_ms(ranks, 2 * elements));
    }
    assert_int_equal(fclose(file), 0);
}

static char *make_profile(void)
{
    char *gemm = program_path("gemm.csv"), *nccl = program_path("nccl.csv");
    char *profile = program_path("h100.yaml"), *samples = program_path("samples.jsonl");
    write_tables(gemm, nccl);
    program_result made =
        EXPECT(0, "profile", "import", gemm, nccl, "--device", "h100_sxm", "--cluster", H100,
               "--name", "mine", "--samples", samples, "-o", profile);
    program_contains(made.out, "gemm grid                13 x 3 x 3 points");
    program_contains(made.out, "all_gather");
    program_free(&made);
    char *written = program_read(samples);
    program_contains(written, "\"collective\":\"all_gather\"");
    free(written);
    free(gemm);
    free(nccl);
    free(samples);
    return profile;
}

static void check_profile(const char *path)
{
    moe_diag *diag = moe_diag_create(NULL, stderr);
    const moe_config *machine = moe_config_load(diag, H100, &moe_cluster_table, NULL, 0, diag);
    const moe_config *curves = moe_config_load(diag, path, &moe_profile_table, NULL, 0, diag);
    assert_non_null(curves);
    const moe_cluster *cluster = moe_cluster_create(diag, moe_config_root(machine), machine, diag);
    const moe_profile *profile = moe_config_root(curves);
    moe_curve_usage usage = {{0}, {0}};
    const moe_costs costs = {profile, cluster, &usage};
    assert_string_equal(profile->name, "mine");
    assert_int_equal(profile->gemm.origin, MOE_IMPORTED);
    assert_int_equal(profile->collectives[MOE_ALL_GATHER].origin, MOE_IMPORTED);
    assert_int_equal(profile->collectives[MOE_BROADCAST].origin, MOE_DERIVED);
    assert_non_null(strstr(profile->licence, "Apache-2.0"));
    assert_non_null(strstr(profile->collectives[MOE_ALL_GATHER].evidence.machine, "2.29.2"));
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        for (double bytes = 2048; bytes < 3e8; bytes *= 16) {
            const moe_sample sample = {.kind = MOE_SAMPLE_COLLECTIVE,
                                       .ranks = ranks,
                                       .hosts = 1,
                                       .first = {.collective = MOE_ALL_GATHER, .bytes = bytes}};
            const double wanted_s = all_gather_ms(ranks, bytes) / 1e3;
            const double found_s = moe_import_predict_s(&costs, &sample);
            if (!(fabs(found_s / wanted_s - 1) < 0.01))
                fail_msg("all-gather of %d, %g B: %g s, expected %g s", ranks, bytes, found_s,
                         wanted_s);
        }
    }
    const moe_sample sample = {.kind = MOE_SAMPLE_GEMM, .m = 512, .n = 1024, .k = 4096};
    assert_us(1e6 * moe_import_predict_s(&costs, &sample), gemm_us(512, 1024, 4096));
    talloc_free(diag);
}

static void test_import(void **state)
{
    (void)state;
    char *profile = make_profile();
    check_profile(profile);
    program_result checked = EXPECT(0, "check", profile);
    program_contains(checked.out, "sound profile");
    program_free(&checked);
    free(profile);
}

static void test_wrong_use(void **state)
{
    (void)state;
    char *table = program_path("bad.csv"), *output = program_path("none.yaml");
    program_write(table, "gemm_dtype,m,n,k,latency_us\nbfloat16,1,2,3,-4\nbfloat16,1,2,3,nan\n");
    program_result refused = EXPECT(64, "profile", "import", table, "-o", output);
    program_contains(refused.err, "--cluster");
    program_free(&refused);
    refused = EXPECT(1, "profile", "import", table, "--cluster", H100, "-o", output);
    program_contains(refused.err, "bad.csv:2:16: error: latency_us is \"-4\"");
    program_contains(refused.err, "bad.csv:3:16: error: latency_us is \"nan\"");
    program_free(&refused);
    assert_int_equal(access(output, F_OK), -1);
    refused = EXPECT(1, "profile", "import", "/nowhere.csv", "--cluster", H100, "-o", output);
    program_contains(refused.err, "/nowhere.csv");
    program_free(&refused);
    free(table);
    free(output);
}

/* Memory bandwidth 4.8 instead of 3.35 TB/s: what waits for memory takes 0.7 of the time beyond its start, what
 * computes the same. */
static void test_derive(void **state)
{
    (void)state;
    char *profile = make_profile(), *derived = program_path("h200.yaml");
    program_result made = EXPECT(0, "profile", "derive", profile, "--from", H100, "--to", H200,
                                 "--name", "other", "--scale", "all_gather=0.5", "-o", derived);
    program_free(&made);
    moe_diag *diag = moe_diag_create(NULL, stderr);
    const moe_config *machine = moe_config_load(diag, H200, &moe_cluster_table, NULL, 0, diag);
    const moe_config *curves = moe_config_load(diag, derived, &moe_profile_table, NULL, 0, diag);
    const moe_config *before = moe_config_load(diag, profile, &moe_profile_table, NULL, 0, diag);
    assert_true(machine != NULL && curves != NULL && before != NULL);
    const moe_profile *of = moe_config_root(curves), *from = moe_config_root(before);
    const moe_cluster *cluster = moe_cluster_create(diag, moe_config_root(machine), machine, diag);
    moe_curve_usage usage = {{0}, {0}};
    const moe_costs costs = {of, cluster, &usage};
    assert_int_equal(of->gemm.origin, MOE_DERIVED);
    assert_int_equal(of->collectives[MOE_ALL_GATHER].origin, MOE_DERIVED);
    assert_int_equal(of->gemm.evidence.samples.count, 0);
    assert_true(fabs(of->collectives[MOE_ALL_GATHER].intra.y[0] /
                         from->collectives[MOE_ALL_GATHER].intra.y[0] -
                     0.5) < 1e-4);
    const double start_us = 1e6 * from->dense.start_s;
    const moe_gemm thin = {1, 4096, 4096, 1}, thick = {4096, 4096, 4096, 1};
    const double thin_us = start_us + (gemm_us(1, 4096, 4096) - start_us) * 3.35 / 4.8;
    assert_us(1e6 * moe_cost_gemm_s(&costs, &thin), thin_us);
    assert_us(1e6 * moe_cost_gemm_s(&costs, &thick), gemm_us(4096, 4096, 4096));
    talloc_free(diag);

    made = EXPECT(1, "profile", "derive", profile, "--from", H200, "--to", H100, "-o", derived);
    program_contains(made.err, "expected the cluster it was made with");
    program_free(&made);
    made = EXPECT(0, "profile", "derive", "h100", "--from", "dgx_h100_superpod", "--to", "hgx_h200",
                  "-o", derived); /* presets by name */
    program_free(&made);
    made = EXPECT(70, "profile", "derive", "h100", "--from", "dgx_h100_superpod", "--to",
                  "hgx_h200", "-o", program_folder);
    program_free(&made);
    made = EXPECT(64, "profile", "derive", profile, "--from", H100, "--to", H200, "--scale",
                  "all_gather=2", "-o", derived);
    program_free(&made);
    free(profile);
    free(derived);
}

/* --- the committed report ----------------------------------------------------------------------------- */

/* The next line that is neither empty nor a picture; NULL at the end. */
static char *next_line(char **text)
{
    for (char *line = strsep(text, "\n"); line != NULL; line = strsep(text, "\n")) {
        if (*line != '\0' && strncmp(line, "![", 2) != 0)
            return line;
    }
    return NULL;
}

static void test_report_is_fresh(void **state)
{
    (void)state;
    char *folder = program_path("report"), *path = program_path("report/calibration.md");
    program_result result = EXPECT(0, "validate", "calibration", "--out", folder);
    if (strstr(result.out, "skipped: ") != NULL) {
        print_message("%s", result.out);
        skip();
    }
    char *fresh = program_read(path),
         *committed = program_read(MOE_TEST_SOURCE_DIR "/reports/validation/calibration.md");
    char *a = fresh, *b = committed;
    for (;;) {
        const char *new_line = next_line(&a), *old_line = next_line(&b);
        if (new_line == NULL && old_line == NULL)
            break;
        if (new_line == NULL || old_line == NULL || strcmp(new_line, old_line) != 0)
            fail_msg("reports/validation/calibration.md says\n  %s\nand now it is\n  %s\n"
                     "(calibrate/profiles/make.sh writes it)",
                     old_line == NULL ? "(nothing)" : old_line,
                     new_line == NULL ? "(nothing)" : new_line);
    }
    free(fresh);
    free(committed);
    free(path);
    free(folder);
    program_free(&result);
}

static void test_report_without_data(void **state)
{
    (void)state;
    program_result result = EXPECT(0, "validate", "calibration", "--data", "/nowhere");
    program_contains(result.out, "skipped: its data is not there: /nowhere/calib/");
    program_free(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_derive),
        cmocka_unit_test(test_report_is_fresh),
        cmocka_unit_test(test_report_without_data),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
