/* Prefill and decode over whole simulations: every policy and engine, laws checked after every
 * step; the presets; window counts; what is refused. */
#include "tests/simulation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const engines[] = {"analytic", "fluid"};

static const char all_policies[] =
    "policies=[{name: ep}, {name: red, policy: ep, redundant_experts: 32}, {name: fssdp}, "
    "{name: idle, policy: fssdp, materialize: false, calibrate: false, "
    "heterogeneous_sharding: false, planning: 0 s}, "
    "{name: eplb, redundant_experts: 32}]";

static void set_serving(void *owner, overrides *all, const char *step, const char *serving)
{
    set(owner, all, "trace.window=[500, 503]");
    set(owner, all, "trace.tokens_per_source=64");
    set(owner, all, "step=%s", step);
    set(owner, all, "serving=%s", serving);
}

static void assert_served(const moe_run *run, double tokens)
{
    for (int p = 0; p < run->policy_count; p++) {
        const moe_result *result = &run->policies[p].result;
        double parts[MOE_PARTS];
        moe_result_exposed(result, parts);
        assert_true(parts[MOE_GRADIENT_SYNC] == 0 && parts[MOE_OPTIMIZER] == 0 &&
                    parts[MOE_REDUCE_PART] == 0);
        double step_s = moe_result_step_time(result).mean;
        assert_true(fabs(moe_result_tokens_per_s(result) * step_s / tokens - 1) < 1e-9);
        assert_true(result->series[0].memory.kv_cache > 0);
        assert_true(result->series[0].memory.optimizer == 0);
    }
}

static void test_every_policy_serves(void **state)
{
    (void)state;
    static const char *const steps[] = {"prefill", "decode"};
    for (size_t e = 0; e < 2; e++)
        for (size_t s = 0; s < 2; s++) {
            void *owner = talloc_new(NULL);
            moe_binding *binding;
            overrides all = {0};
            set_serving(owner, &all, steps[s], s == 0 ? "{batch: 4}" : "{context: 2048}");
            set(owner, &all, all_policies);
            const moe_run *run = simulate(owner, &all, engines[e], 2, &binding);
            assert_served(run, 32 * 64);
            /* Law 4 holds for serving, too. */
            for (int64_t i = 0; i < run->iterations; i++)
                assert_memory_equal(&run->policies[0].result.series[i],
                                    &run->policies[3].result.series[i],
                                    offsetof(moe_step_result, memory));
            /* Copies that stay even out what devices compute; nothing travels for them. */
            const moe_step_result *plain = &run->policies[0].result.series[0];
            const moe_step_result *copied = &run->policies[1].result.series[0];
            assert_true(copied->device_imbalance < plain->device_imbalance);
            assert_true(copied->exposed_s[MOE_MATERIALIZE] == 0 && copied->moved_bytes == 0);
            assert_true(copied->memory.parameters > plain->memory.parameters);
            const moe_step_result *packed = &run->policies[4].result.series[0];
            assert_true(packed->device_imbalance < plain->device_imbalance);
            assert_true(packed->memory.parameters > plain->memory.parameters);
            talloc_free(owner);
        }
}

/* Without a past, copies are placed after the first step, and their parameters travel then. */
static void test_copies_travel_once(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_binding *binding;
    overrides all = {0};
    set_serving(owner, &all, "decode", "{context: 2048}");
    set(owner, &all, "trace.window=[0, 3]");
    set(owner, &all, "policies=[{name: red, policy: ep, redundant_experts: 8}]");
    const moe_run *run = simulate(owner, &all, "analytic", 1, &binding);
    const moe_step_result *series = run->policies[0].result.series;
    assert_true(series[0].materialized == 0 && series[0].moved_bytes == 0);
    assert_true(series[1].materialized > 0 && series[1].moved_bytes > 0);
    assert_true(series[2].materialized == series[1].materialized && series[2].moved_bytes == 0);
    talloc_free(owner);
}

static void test_presets(void **state)
{
    (void)state;
    static const char *const names[] = {"decode", "prefill"};
    for (size_t n = 0; n < 2; n++) {
        void *owner = talloc_new(NULL);
        moe_diag *diag = moe_diag_create(owner, stderr);
        const char *path =
            talloc_asprintf(owner, MOE_TEST_SOURCE_DIR "/configs/scenarios/%s.yaml", names[n]);
        const moe_binding *binding = moe_binding_create(owner, path, NULL, 0, NULL, diag);
        assert_non_null(binding);
        const int chosen[] = {0, 1};
        moe_status status;
        moe_run_options options = {.jobs = 2, .last = 2, .check_laws = true};
        const moe_run *run = moe_run_scenario(owner, binding, chosen, 2, &options, &status, diag);
        assert_non_null(run);
        assert_true(moe_result_fits(&run->policies[0].result));
        talloc_free(owner);
    }
}

/* --- counts that sum over a window of passes ---------------------------------------------------- */

static char *write_window_trace(void *owner, int window)
{
    char *path = talloc_asprintf(owner, "/tmp/moeplan-window-%d.safetensors", (int)getpid());
    moe_diag *diag = moe_diag_create(owner, stderr);
    json_t *provenance = json_object();
    moe_trace_info info = {.shape = {4, 1, 12, 32, 64},
                           .aggregation = MOE_AGGREGATION_WINDOW,
                           .window = window,
                           .top_k = 2,
                           .synthetic = true,
                           .origin = "made by a test",
                           .provenance = provenance};
    moe_trace_writer *writer = moe_trace_writer_open(owner, path, &info, false, 0, diag);
    assert_non_null(writer);
    size_t cells = 12 * 32 * 64;
    uint32_t *counts = talloc_array(owner, uint32_t, cells);
    for (size_t i = 0; i < cells; i++)
        counts[i] = (uint32_t)(16 + 32 * (i % 2));
    for (int i = 0; i < 4; i++)
        assert_int_equal(moe_trace_writer_append(writer, counts, NULL, diag), MOE_OK);
    assert_int_equal(moe_trace_writer_commit(writer, diag), MOE_OK);
    json_decref(provenance);
    return path;
}

/* A window of 16 passes is 16 decode passes of a step: 1,024 tokens of a source are 64 a pass. */
static void test_windows_are_split(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_binding *binding;
    overrides all = {0};
    char *trace = write_window_trace(owner, 16);
    set(owner, &all, "trace={file: %s, micro_batches: split}", trace);
    set(owner, &all, "step=decode");
    set(owner, &all, "serving={context: 2048}");
    set(owner, &all, "batch.micro_batches=16");
    set(owner, &all, "policies=[{name: ep}]");
    const moe_run *run = simulate(owner, &all, "analytic", 1, &binding);
    assert_true(moe_routing_is_marked(binding->routing));
    assert_true(binding->options.sequences == 64);
    assert_served(run, 16 * 32 * 64);
    unlink(trace);
    talloc_free(owner);
}

/* --- what is refused ---------------------------------------------------------------------------- */

static void assert_refused(const char *step, const char *serving, const char *more)
{
    void *owner = talloc_new(NULL);
    overrides all = {0};
    set_serving(owner, &all, step, serving);
    set(owner, &all, "%s", more);
    moe_diag *diag = moe_diag_create(owner, NULL);
    assert_null(moe_binding_create(owner, QUICKSTART, all.items, all.count, "analytic", diag));
    assert_true(moe_diag_error_count(diag) > 0);
    talloc_free(owner);
}

static void test_refusals(void **state)
{
    (void)state;
    assert_refused("decode", "{batch: 63}", "seed=1");
    assert_refused("prefill", "{batch: 3}", "seed=1");
    assert_refused("decode", "{batch: 64}", "batch.recompute=full");
    assert_refused("decode", "{batch: 64}", "batch.optimizer=zero1");
    assert_refused("decode", "{batch: 64}", "dispatch.once_per=device");
    assert_refused("train", "{}", "policies=[{name: ep, redundant_experts: 1}]");
    assert_refused("decode", "{}", "policies=[{name: ep, redundant_experts: 5000}]");
}

/* The batch stands in for tokens that the trace leaves open. */
static void test_batch_sets_tokens(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    overrides all = {0};
    set_serving(owner, &all, "decode", "{batch: 48}");
    set(owner, &all, "trace.tokens_per_source=0");
    moe_diag *diag = moe_diag_create(owner, stderr);
    const moe_binding *binding =
        moe_binding_create(owner, QUICKSTART, all.items, all.count, "analytic", diag);
    assert_non_null(binding);
    assert_true(binding->options.tokens == 48 && binding->options.sequences == 48);
    assert_true(binding->options.context == (double)binding->scenario->model.sequence);
    talloc_free(owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_policy_serves),
        cmocka_unit_test(test_copies_travel_once),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_windows_are_split),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_batch_sets_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
