/* Profiles and clusters as YAML: what is written loads again to the same, and to the same bytes. */
#include "calibrate/fit/data_sheet.h"
#include "calibrate/fit/fit.h"
#include "calibrate/fit/profile_write.h"
#include "tests/program.h"

#include <math.h>
#include <talloc.h>

static char *profile_text(const moe_profile *profile, const char *comment)
{
    char *text = NULL;
    size_t length;
    FILE *stream = open_memstream(&text, &length);
    moe_profile_write(profile, comment, stream);
    fclose(stream);
    return text;
}

static const void *load(void *owner, const char *text, const moe_table *table)
{
    moe_diag *diag = moe_diag_create(owner, stderr);
    const moe_config *config =
        moe_config_load_text(owner, "written", text, strlen(text), table, NULL, 0, diag);
    if (config == NULL)
        fail_msg("does not load:\n%.3000s", text);
    return moe_config_root(config);
}

static double numbers[] = {1, 17, 4096, 1e6};
static double shares[] = {0.125, 0.25, 0.5, 0.75};
static double rows[] = {16, 32, 64, 1.25e-5, 1.5e-5, 17, 32, 64, 2.5e-5, 2.25e-5};
static double cells[] = {0.25, 0.5, 1.25, 0.125};

static moe_profile invented(void *owner)
{
    moe_cluster_spec spec = {.device = {"D", 1e14, 1e10, 1e12, 100}};
    moe_profile profile = *moe_data_sheet_profile(owner, &spec);
    const moe_evidence evidence = {
        0.0625, 0.125, 0.5, "a machine: \"quoted\", # no comment", {rows, 2, 5}};
    static moe_collective_group groups[] = {{2, {numbers, shares, 3}}, {4, {numbers, shares, 2}}};
    profile.name = "no";
    profile.source = "two\nlines and a \\ backslash";
    profile.licence = "Apache-2.0";
    profile.gemm = (moe_gemm_grid){{numbers, 2}, {numbers + 2, 1}, {numbers, 2}, {cells, 4}, 4,
                                   MOE_MEASURED, evidence};
    profile.attention = profile.dense;
    profile.attention.origin = MOE_DERIVED;
    profile.experts[MOE_WEIGHT_GRADIENT] = profile.experts[MOE_FORWARD];
    profile.experts[MOE_WEIGHT_GRADIENT].efficiency = (moe_points){numbers, shares, 4};
    profile.experts[MOE_WEIGHT_GRADIENT].start_per_expert_s = 2.5e-7;
    profile.memory.efficiency = (moe_points){numbers, shares, 4};
    profile.graph_launch_s = 1e-5;
    profile.port_sharing = MOE_SHARE_PER_FLOW;
    profile.collectives[MOE_ALL_REDUCE].groups = (moe_list){groups, 2};
    profile.collectives[MOE_ALL_REDUCE].ranks = 8;
    profile.collectives[MOE_ALL_REDUCE].algorithm = MOE_REDUCE_TREE;
    profile.collectives[MOE_ALL_REDUCE].inter_origin = MOE_IMPORTED;
    profile.copies[MOE_COPY_STORAGE_READ] =
        (moe_copy_curve){.start_s = 1e-4, .bytes_per_s = 5e9, .origin = MOE_MEASURED};
    return profile;
}

static void assert_points(const moe_points *a, const moe_points *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        assert_true(a->x[i] == b->x[i] && fabs(a->y[i] / b->y[i] - 1) < 1e-5);
}

static void assert_compute(const moe_compute_curve *a, const moe_compute_curve *b)
{
    assert_true(a->start_s == b->start_s && a->start_per_expert_s == b->start_per_expert_s);
    assert_true(fabs(a->flop_efficiency - b->flop_efficiency) < 1e-5);
    assert_true(fabs(a->memory_efficiency - b->memory_efficiency) < 1e-5);
    assert_int_equal(a->origin, b->origin);
    assert_points(&a->efficiency, &b->efficiency);
}

static void test_written_profile_loads_equal(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    const moe_profile profile = invented(owner);
    char *text = profile_text(&profile, "one\n\ntwo");
    const moe_profile *back = load(owner, text, &moe_profile_table);
    assert_true(strncmp(text, "# one\n#\n# two\nname: \"no\"\n", 24) == 0);
    assert_string_equal(back->name, profile.name);
    assert_string_equal(back->source, profile.source);
    assert_string_equal(back->licence, profile.licence);
    assert_int_equal(back->gemm.utilisation.count, 4);
    assert_true(back->gemm.utilisation.values[2] == 1.25 && back->gemm.value_bytes == 4);
    assert_string_equal(back->gemm.evidence.machine, profile.gemm.evidence.machine);
    assert_true(back->gemm.evidence.worst == 0.5 && back->gemm.evidence.leave_one_out == 0.125);
    assert_int_equal(back->gemm.evidence.samples.count, 2);
    assert_int_equal(back->gemm.evidence.samples.width, 5);
    assert_memory_equal(back->gemm.evidence.samples.values, rows, sizeof rows);
    assert_compute(&back->dense, &profile.dense);
    assert_compute(&back->attention, &profile.attention);
    assert_compute(&back->memory, &profile.memory);
    for (int phase = MOE_FORWARD; phase <= MOE_WEIGHT_GRADIENT; phase += 2)
        assert_compute(&back->experts[phase], &profile.experts[phase]);
    assert_true(back->experts[MOE_INPUT_GRADIENT].flop_efficiency == 0);
    assert_true(back->graph_launch_s == 1e-5 && back->launch_s == 6e-6);
    assert_int_equal(back->port_sharing, MOE_SHARE_PER_FLOW);
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++) {
        const moe_collective_curve *a = &back->collectives[kind], *b = &profile.collectives[kind];
        if (kind == MOE_ALL_TO_ALL_LOW_LATENCY)
            continue;
        assert_true(fabs(a->start_s / b->start_s - 1) < 1e-5 && a->ranks == b->ranks);
        assert_int_equal(a->algorithm, b->algorithm);
        assert_int_equal(a->inter_origin, b->inter_origin);
        assert_points(&a->intra, &b->intra);
        assert_points(&a->inter, &b->inter);
        assert_int_equal(a->groups.count, b->groups.count);
    }
    const moe_collective_group *group = back->collectives[MOE_ALL_REDUCE].groups.items;
    assert_int_equal(group[1].ranks, 4);
    assert_points(&group[0].intra, &(moe_points){numbers, shares, 3});
    assert_true(back->copies[MOE_COPY_STORAGE_READ].bytes_per_s == 5e9);
    assert_true(back->copies[MOE_COPY_HOST_TO_DEVICE].bytes_per_s == 0);
    assert_false(moe_profile_has(back, MOE_ALL_TO_ALL_LOW_LATENCY));
    free(text);
    talloc_free(owner);
}

/* Six digits once are six digits ever after. */
static void test_writing_twice_changes_nothing(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    const moe_profile profile = invented(owner);
    char *once = profile_text(&profile, NULL);
    char *twice = profile_text(load(owner, once, &moe_profile_table), NULL);
    assert_string_equal(once, twice);
    free(once);
    free(twice);
    talloc_free(owner);
}

/* Sizes that six digits would throw together stay apart. */
static void test_neighbouring_sizes(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_profile profile = invented(owner);
    double x[] = {16777216, 16777217}, y[] = {0.5, 0.123456789};
    profile.collectives[MOE_ALL_GATHER].intra = (moe_points){x, y, 2};
    char *text = profile_text(&profile, NULL);
    const moe_profile *back = load(owner, text, &moe_profile_table);
    const moe_points *points = &back->collectives[MOE_ALL_GATHER].intra;
    assert_true(points->x[0] == x[0] && points->x[1] == x[1] && points->y[1] == 0.123457);
    free(text);
    talloc_free(owner);
}

static void test_lines_are_not_long(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_profile profile = invented(owner);
    double *x = talloc_array(owner, double, 300), *y = talloc_array(owner, double, 300);
    for (int i = 0; i < 300; i++) {
        x[i] = i + 1;
        y[i] = 1 / (i + 1.5);
    }
    profile.memory.efficiency = (moe_points){x, y, 300};
    char *text = profile_text(&profile, NULL);
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 110 || strncmp(line, "source:", 7) == 0);
    assert_int_equal(
        ((const moe_profile *)load(owner, text, &moe_profile_table))->memory.efficiency.count, 300);
    free(text);
    talloc_free(owner);
}

static void test_written_cluster_loads_equal(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    const moe_sample_machine machine = {.digest = "x",
                                        .description = "a, b: c",
                                        .device = "Xeon (R)",
                                        .ranks = 8,
                                        .hosts = 2,
                                        .devices_per_host = 4,
                                        .peak_flop_per_s = 1.23456e11,
                                        .memory_bytes = 1e10,
                                        .memory_bytes_per_s = 2e10,
                                        .link_bytes_per_s = 5e9,
                                        .link_latency_s = 2.5e-7,
                                        .nic_bytes_per_s = 1e9,
                                        .nic_latency_s = 1e-5,
                                        .nic_per_device = true};
    char *text = NULL;
    size_t length;
    FILE *stream = open_memstream(&text, &length);
    moe_cluster_write(moe_fit_cluster(owner, &machine), NULL, stream);
    fclose(stream);
    const moe_cluster_spec *back = load(owner, text, &moe_cluster_table);
    assert_true(back->hosts == 2 && back->devices_per_host == 4 && back->device.sms == 0);
    assert_string_equal(back->device.name, "Xeon (R)");
    assert_string_equal(back->source, "a, b: c");
    assert_true(back->device.peak_flop_per_s == 1.23456e11 && back->intra.latency_s == 2.5e-7);
    assert_int_equal(back->nic.sharing, MOE_NIC_PER_DEVICE);
    assert_non_null(moe_cluster_create(owner, back, NULL, moe_diag_create(owner, stderr)));
    free(text);
    talloc_free(owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_profile_loads_equal),
        cmocka_unit_test(test_writing_twice_changes_nothing),
        cmocka_unit_test(test_neighbouring_sizes),
        cmocka_unit_test(test_lines_are_not_long),
        cmocka_unit_test(test_written_cluster_loads_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
