/* `dispatch: {once_per: ...}` over whole simulations, laws checked in every step. */
#include "reports/report.h"
#include "tests/simulation.h"
#include "traces/token_ids.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const engines[] = {"analytic", "fluid", "message"};
enum { ENGINES = 3 };

static const char *const small_window = "trace.window=[598, 601]";

static double mean_of(const moe_run *run, int policy, size_t offset)
{
    return moe_result_mean(&run->policies[policy].result, offset);
}

#define MEAN(run, policy, member) mean_of(run, policy, offsetof(moe_step_result, member))

static const moe_run *run_once_per(void *owner, overrides all, const char *once_per,
                                   const char *engine, moe_binding **binding)
{
    set(owner, &all, "dispatch.once_per=%s", once_per);
    return simulate(owner, &all, engine, 2, binding);
}

/* To each device once takes fewer bytes than each assignment; to each host once, fewer between
 * hosts, for what is forwarded inside. Rows, and so their time, stay. */
static void test_bytes_fall(void **state)
{
    (void)state;
    for (size_t e = 0; e < ENGINES; e++) {
        void *owner = talloc_new(NULL);
        moe_binding *binding;
        overrides all = {0};
        set(owner, &all, "%s", small_window);
        const moe_run *assignment = run_once_per(owner, all, "assignment", engines[e], &binding);
        const moe_run *device = run_once_per(owner, all, "device", engines[e], &binding);
        const moe_run *host = run_once_per(owner, all, "host", engines[e], &binding);
        for (int p = 0; p < assignment->policy_count; p++) {
            double across = MEAN(assignment, p, inter_host_bytes);
            double inside = MEAN(assignment, p, intra_host_bytes);
            assert_true(MEAN(device, p, inter_host_bytes) < across);
            assert_true(MEAN(device, p, intra_host_bytes) < inside);
            assert_true(MEAN(host, p, inter_host_bytes) < MEAN(device, p, inter_host_bytes));
            assert_true(MEAN(host, p, intra_host_bytes) > inside);
            assert_true(mean_step_s(device, p) < mean_step_s(assignment, p));
            assert_true(MEAN(device, p, device_imbalance) == MEAN(assignment, p, device_imbalance));
            assert_true(moe_result_saved_factor(&assignment->policies[p].result) == 1);
            assert_true(moe_result_saved_factor(&device->policies[p].result) > 1);
            assert_true(moe_result_saved_factor(&host->policies[p].result) >
                        moe_result_saved_factor(&device->policies[p].result));
        }
        talloc_free(owner);
    }
}

/* EP's dispatches and combines are all that crosses hosts beside gradients and gathered loads: four
 * a layer, each saved by the factor that the report prints. */
static void test_saved_factor_is_that_of_bytes(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_binding *binding;
    overrides all = {0};
    set(owner, &all, "%s", small_window);
    set(owner, &all, "policies=[{name: ep}]");
    const moe_run *assignment = run_once_per(owner, all, "assignment", "analytic", &binding);
    const moe_run *host = run_once_per(owner, all, "host", "analytic", &binding);
    double saved = moe_result_saved_factor(&host->policies[0].result);
    double crossing = MEAN(host, 0, crossing_assignments);
    double token_bytes = moe_network_token_bytes(&binding->scenario->model);
    double fewer = MEAN(assignment, 0, inter_host_bytes) - MEAN(host, 0, inter_host_bytes);
    double expected = 4 * crossing * token_bytes * (1 - 1 / saved);
    assert_true(fabs(fewer / expected - 1) < 1e-9);
    talloc_free(owner);
}

/* --- per-token recordings --------------------------------------------------------------------- */

enum { REQUESTS = 64, EXPERTS = 16, HOST = 8, POSITIONS = 6 };

/* Tokens of the first positions that cross to the other host of their EP group of 16, from the ids. */
static double crossing_by_ids(const moe_trace *trace, int layers)
{
    int host_of
        [EXPERTS]; /* expert e lives on the e-th device of the group: on its first or second host */
    double crossing = 0, tokens[2];
    for (int e = 0; e < EXPERTS; e++)
        host_of[e] = e / HOST;
    for (int position = 0; position < POSITIONS; position++)
        for (int layer = 0; layer < layers; layer++)
            for (int request = 0; request < REQUESTS; request++) {
                const moe_token_range one = {request, request + 1, position, position + 1};
                moe_trace_count_distinct(trace, layer, &one, host_of, 2, tokens);
                crossing += tokens[1 - request % EXPERTS / HOST];
            }
    return crossing;
}

/* Replayed as recorded, a request a device, what is sent once is what the ids say, not an estimate. */
static void test_recorded_tokens_are_counted_exactly(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_binding *binding;
    overrides all = {0};
    set(owner, &all, "trace={file: %s/gpt-moe-16e-top2-aux-tokens.safetensors, window: [0, %d]}",
        SAMPLES, POSITIONS);
    set(owner, &all, "model.layers=4");
    set(owner, &all, "model.experts=16");
    set(owner, &all, "cluster.hosts=8");
    set(owner, &all, "parallel.ep=16");
    set(owner, &all, "policies=[{name: ep}]");
    const moe_run *run = run_once_per(owner, all, "host", "analytic", &binding);
    assert_true(moe_binding_knows_tokens(binding));
    double sent = MEAN(run, 0, crossing_tokens);
    double by_ids = crossing_by_ids(binding->trace, 4) / POSITIONS;
    assert_true(fabs(sent / by_ids - 1) < 1e-9);
    assert_true(MEAN(run, 0, crossing_assignments) > 1.1 * by_ids);
    talloc_free(owner);
}

/* Gates with a limit, k that varies, several micro-batches and groups: laws hold, something is saved.
 */
static void test_other_routing(void **state)
{
    (void)state;
    static const char *const cases[][6] = {
        {"trace.file=" SAMPLES "/deepseek-moe-64e-top6-auxfree.safetensors", "model.top_k=6",
         "model.gate_groups=8", "model.top_groups=4", "batch.micro_batches=2",
         "trace.micro_batches=split"},
        {"trace.file=" SAMPLES "/gpt-moe-16e-topp04.safetensors", "model.experts=16",
         "parallel.ep=16", "trace.window=[100, 102]", NULL, NULL},
        {"trace.file=" SAMPLES "/adamoe-16e-16null-top4.safetensors", "model.experts=16",
         "parallel.ep=16", "trace.window=[100, 102]", "trace.scale=resample", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int once = 0; once < 2; once++) {
            void *owner = talloc_new(NULL);
            moe_binding *binding;
            overrides all = {0};
            set(owner, &all, "%s", small_window);
            for (size_t j = 0; j < 6 && cases[i][j] != NULL; j++)
                set(owner, &all, "%s", cases[i][j]);
            const moe_run *run =
                run_once_per(owner, all, once == 0 ? "device" : "host", "analytic", &binding);
            for (int p = 0; p < run->policy_count; p++) {
                double saved = moe_result_saved_factor(&run->policies[p].result);
                /* 16 experts on 16 devices: nothing to save where each has one. */
                assert_true(once == 1 ? saved > 1 : saved >= 1);
            }
            talloc_free(owner);
        }
    }
}

static json_t *first_dispatch(json_t *report)
{
    return json_object_get(json_array_get(json_object_get(report, "policies"), 0), "dispatch");
}

/* Reports say so where tokens are estimated, and nothing where assignments are sent. */
static void test_reports_flag_the_estimate(void **state)
{
    (void)state;
    for (int once = 0; once < 2; once++) {
        void *owner = talloc_new(NULL);
        moe_binding *binding;
        overrides all = {0};
        char *text = NULL;
        size_t length = 0;
        set(owner, &all, "%s", small_window);
        const moe_run *run =
            run_once_per(owner, all, once == 0 ? "assignment" : "host", "analytic", &binding);
        FILE *stream = open_memstream(&text, &length);
        moe_report_text(binding, run, stream);
        fclose(stream);
        json_t *report = moe_report_json(binding, run);
        assert_int_equal(strstr(text, "once per host") != NULL, once == 1);
        assert_int_equal(strstr(text, "ESTIMATED") != NULL, once == 1);
        assert_int_equal(first_dispatch(report) != NULL, once == 1);
        if (once == 1) {
            assert_true(json_is_true(json_object_get(first_dispatch(report), "estimated")));
            assert_true(json_number_value(json_object_get(first_dispatch(report), "saved_factor")) >
                        1);
        }
        json_decref(report);
        free(text);
        talloc_free(owner);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_fall),
        cmocka_unit_test(test_saved_factor_is_that_of_bytes),
        cmocka_unit_test(test_recorded_tokens_are_counted_exactly),
        cmocka_unit_test(test_other_routing),
        cmocka_unit_test(test_reports_flag_the_estimate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
