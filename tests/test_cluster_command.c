/* `moeplan cluster show|export`, run as a user would. */
#include "tests/program.h"

static void assert_silent(const char *text)
{
    assert_string_equal(text, "");
}

static void test_show(void **state)
{
    (void)state;
    program_result result = EXPECT(0, "cluster", "show", "gb200_nvl72");
    program_contains(result.out, "gb200-nvl72: 36 hosts x 4 devices");
    program_contains(result.out, "NVLink domain");
    program_contains(result.out, "bisection bandwidth");
    assert_silent(result.err);
    program_free(&result);
    result = EXPECT(0, "cluster", "show", MOE_TEST_SOURCE_DIR "/configs/clusters/gb200_nvl72.yaml",
                    "--set", "hosts=18", "--set", "name=one");
    program_contains(result.out, "one: 18 hosts x 4 devices");
    assert_null(strstr(result.out, "NICs")); /* nothing leaves the one domain */
    program_free(&result);
}

static void test_export(void **state)
{
    (void)state;
    char *path = program_path("out.xml");
    program_result printed = EXPECT(0, "cluster", "export", "l40s_pcie");
    program_result written = EXPECT(0, "cluster", "export", "l40s_pcie", "-o", path);
    char *text = program_read(path);
    program_contains(printed.out, "<platform version=\"4.1\">");
    assert_string_equal(text, printed.out);
    assert_silent(written.out);
    assert_silent(written.err);
    program_free(&printed);
    program_free(&written);
    free(text);
    /* refused: what was there stays */
    program_result refused =
        EXPECT(1, "cluster", "export", "dgx_h100_superpod", "--set", "hosts=128", "-o", path);
    program_contains(refused.err, "1024 devices are too many");
    text = program_read(path);
    program_contains(text, "</platform>");
    program_free(&refused);
    free(text);
    free(path);
}

static void test_refusals(void **state)
{
    (void)state;
    program_result result = EXPECT(1, "cluster", "show", "gb200_nvl27");
    program_contains(result.err, "did you mean \"gb200_nvl72\"?");
    assert_silent(result.out);
    program_free(&result);
    result = EXPECT(1, "cluster", "show", "no/such.yaml");
    program_contains(result.err, "no/such.yaml");
    program_free(&result);
    result = EXPECT(1, "cluster", "show", "gb200_nvl72", "--set", "intra.domain_hosts=5");
    program_contains(result.err, "intra.domain_hosts is 5; expected a divisor of the 36 hosts");
    program_free(&result);
    result = EXPECT(64, "cluster");
    program_contains(result.err, "Usage: moeplan cluster show");
    program_free(&result);
    result = EXPECT(64, "cluster", "draw", "gb200_nvl72");
    program_free(&result);
    result = EXPECT(64, "cluster", "show");
    program_contains(result.err, "expected a cluster");
    program_free(&result);
    result = EXPECT(64, "cluster", "show", "a", "b");
    program_free(&result);
    result = EXPECT(0, "cluster", "--help");
    program_contains(result.out, "export");
    program_free(&result);
    result = EXPECT(0, "cluster", "export", "--help");
    program_contains(result.out, "SimGrid");
    program_free(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_show),
        cmocka_unit_test(test_export),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
