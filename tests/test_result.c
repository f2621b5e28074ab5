/* Results: means, quantiles, the fullest step, and the JSON form, key by key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "models/result.h"

enum { STEPS = 5 };

/* Step i takes 1, 5, 2, 4, 3 seconds; parts take fixed shares of it; memory peaks in step 3. */
static const double step_s[STEPS] = {1, 5, 2, 4, 3};
static const double peak_bytes[STEPS] = {10, 20, 15, 40, 40};
static const double exposed_share[MOE_PARTS] = {0.25,    0.125,  0.125,  0.0625, 0.0625, 0.03125,
                                                0.03125, 0.0625, 0.0625, 0.0625, 0.125};
static const double critical_share[MOE_PARTS] = {
    0.5, 0.125, 0.125, 0.0625, 0.03125, 0.03125, 0.03125, 0.03125, 0.03125, 0.03125, 0};

static moe_step_result step_of(int i)
{
    moe_step_result step = {.step_s = step_s[i],
                            .expert_imbalance = 2 + i,
                            .device_imbalance = 1 + i,
                            .intra_host_bytes = 100 * i,
                            .inter_host_bytes = 1000 * i,
                            .local_share = 0.125 * i,
                            .materialized = 7 * i,
                            .moved_bytes = i == 4 ? 50 : 0,
                            .calibrations = i % 2,
                            .tokens = 600 + i,
                            .memory = {1, 2, 3, 4, 5, 6, 7, peak_bytes[i], 30},
                            .memory_device = 11 + i,
                            .valid = 1};
    for (int part = 0; part < MOE_PARTS; part++) {
        step.exposed_s[part] = exposed_share[part] * step_s[i];
        step.critical_s[part] = critical_share[part] * step_s[i];
    }
    return step;
}

static moe_result result_of(moe_step_result series[static STEPS])
{
    for (int i = 0; i < STEPS; i++) {
        series[i] = step_of(i);
    }
    return (moe_result){.name = "fssdp", .steps = STEPS, .series = series};
}

static double real_at(const json_t *object, const char *group, const char *key)
{
    const json_t *value = json_object_get(json_object_get(object, group), key);
    if (!json_is_number(value)) {
        fail_msg("%s.%s is not a number", group, key);
    }
    return json_number_value(value);
}

static double sum_group(const json_t *object, const char *group, size_t keys)
{
    const char *key;
    json_t *value;
    double sum = 0;
    json_t *members = json_object_get(object, group);
    assert_int_equal(json_object_size(members), keys);
    json_object_foreach(members, key, value)
    {
        sum += json_number_value(value);
    }
    return sum;
}

static void test_step_time(void **state)
{
    (void)state;
    moe_step_result series[STEPS];
    moe_result result = result_of(series);
    moe_summary summary = moe_result_step_time(&result);
    assert_true(summary.mean == 3);
    assert_true(summary.p50 == 3);
    assert_true(fabs(summary.p95 - 4.8) < 1e-12); /* 0.95 * 4 = 3.8: 0.8 of the way from 4 to 5 */
    assert_true(summary.max == 5);
    result.steps = 1;
    summary = moe_result_step_time(&result);
    assert_true(summary.p95 == 1 && summary.max == 1);
    result.steps = 0;
    assert_true(moe_result_step_time(&result).mean == 0);
    assert_true(moe_result_tokens_per_s(&result) == 0);
}

static void test_figures(void **state)
{
    (void)state;
    double parts[MOE_PARTS];
    moe_step_result series[STEPS];
    moe_result result = result_of(series);
    assert_true(moe_result_tokens_per_s(&result) == 3010.0 / 15);
    assert_true(moe_result_mean(&result, offsetof(moe_step_result, moved_bytes)) == 10);
    moe_result_exposed(&result, parts);
    assert_true(parts[MOE_DENSE] == 0.75 && parts[MOE_WAIT] == 0.375);
    moe_result_critical(&result, parts);
    assert_true(parts[MOE_DENSE] == 1.5 && parts[MOE_WAIT] == 0);
}

/* Of two equal peaks the first. */
static void test_memory(void **state)
{
    (void)state;
    moe_step_result series[STEPS];
    moe_result result = result_of(series);
    assert_int_equal(moe_result_peak_step(&result), 3);
    assert_false(moe_result_fits(&result));
    result.steps = 3;
    assert_int_equal(moe_result_peak_step(&result), 1);
    assert_true(moe_result_fits(&result));
}

static void test_json_keys(void **state)
{
    (void)state;
    moe_step_result series[STEPS];
    moe_result result = result_of(series);
    json_t *json = moe_result_json(&result, &result);
    static const char *const groups[][12] = {
        {"step_time_s", "mean", "p50", "p95", "max"},
        {"breakdown_s", "dense", "expert", "dispatch", "combine", "materialize", "reduce",
         "rearrange", "gradient_sync", "optimizer", "host", "wait"},
        {"critical_path_s", "dense", "expert", "dispatch", "combine", "materialize", "reduce",
         "rearrange", "gradient_sync", "optimizer", "host"},
        {"imbalance", "expert_max_over_mean", "device_max_over_mean"},
        {"memory_bytes", "parameters", "gradients", "optimizer", "materialized", "activations",
         "buffers", "reserved", "peak", "capacity"},
        {"bytes_moved", "intra_host", "inter_host"},
        {"placement", "local_share", "materialized_mean", "calibrations_per_step", "moved_bytes"},
        {"memory_peak_at", "step", "device"},
    };
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        size_t keys = 0;
        while (keys < 11 && groups[g][keys + 1] != NULL) {
            (void)real_at(json, groups[g][0], groups[g][++keys]);
        }
        size_t others = g == 0 ? 1 : 0; /* the series */
        assert_int_equal(json_object_size(json_object_get(json, groups[g][0])), keys + others);
    }
    json_decref(json);
}

static void test_json_values(void **state)
{
    (void)state;
    moe_step_result series[STEPS];
    moe_step_result slow_series[STEPS];
    moe_result result = result_of(series);
    moe_result slow = result_of(slow_series);
    for (int i = 0; i < STEPS; i++) {
        slow_series[i].step_s *= 2;
    }
    json_t *json = moe_result_json(&result, &slow);
    assert_string_equal(json_string_value(json_object_get(json, "name")), "fssdp");
    assert_true(json_number_value(json_object_get(json, "speedup")) == 2);
    assert_true(json_number_value(json_object_get(json, "tokens_per_s")) == 3010.0 / 15);
    assert_true(real_at(json, "step_time_s", "mean") == 3);
    assert_true(sum_group(json, "breakdown_s", 11) == 3);
    assert_true(sum_group(json, "critical_path_s", 10) == 3);
    assert_true(real_at(json, "imbalance", "expert_max_over_mean") == 4);
    assert_true(real_at(json, "imbalance", "device_max_over_mean") == 3);
    assert_true(real_at(json, "bytes_moved", "intra_host") == 200);
    assert_true(real_at(json, "bytes_moved", "inter_host") == 2000);
    assert_true(real_at(json, "placement", "calibrations_per_step") == 0.4);
    assert_true(real_at(json, "memory_bytes", "reserved") == 7);
    assert_true(real_at(json, "memory_bytes", "peak") == 40);
    assert_true(real_at(json, "memory_peak_at", "step") == 3);
    assert_true(real_at(json, "memory_peak_at", "device") == 14);
    json_decref(json);
}

static void test_json_series_and_advice(void **state)
{
    (void)state;
    moe_step_result series[STEPS];
    moe_result result = result_of(series);
    json_t *json = moe_result_json(&result, &result);
    const json_t *shown = json_object_get(json_object_get(json, "step_time_s"), "series");
    assert_int_equal(json_array_size(shown), STEPS);
    for (size_t i = 0; i < STEPS; i++) {
        assert_true(json_number_value(json_array_get(shown, i)) == step_s[i]);
    }
    assert_true(json_is_false(json_object_get(json, "fits")));
    assert_null(json_object_get(json, "memory_advice"));
    json_decref(json);
    result.memory_advice = "fewer slots";
    result.steps = 3;
    series[0].step_s = INFINITY;
    json = moe_result_json(&result, &result);
    assert_true(json_is_true(json_object_get(json, "fits")));
    assert_string_equal(json_string_value(json_object_get(json, "memory_advice")), "fewer slots");
    assert_true(json_is_null(json_object_get(json_object_get(json, "step_time_s"), "mean")));
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_time),   cmocka_unit_test(test_figures),
        cmocka_unit_test(test_memory),      cmocka_unit_test(test_json_keys),
        cmocka_unit_test(test_json_values), cmocka_unit_test(test_json_series_and_advice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
