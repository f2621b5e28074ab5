/* Dense work by its GEMMs: shapes by hand, FLOPs against models/network.h for every preset, and prices
 * with and without a grid. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "models/dense_cost.h"
#include "models/network_gemm.h"
#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <string.h>
#include <talloc.h>

static void assert_close(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-12 * fabs(expected)))
        fail_msg("%.17g is not %.17g", found, expected);
}

static void assert_gemm(const moe_gemm *gemm, double m, double n, double k)
{
    assert_true(gemm->m == m && gemm->n == n && gemm->k == k && gemm->count == 1);
}

/* --- shapes ----------------------------------------------------------------------------------- */

static const moe_network gqa = {.layers = 2,
                                .dense_layers = 1,
                                .hidden = 1024,
                                .ffn = 512,
                                .dense_ffn = 3000,
                                .gated = true,
                                .experts = 32,
                                .top_k = 2,
                                .attention = MOE_ATTENTION_GQA,
                                .heads = 16,
                                .kv_heads = 4,
                                .head_dim = 128,
                                .causal = true,
                                .sequence = 512,
                                .vocabulary = 30000,
                                .parameter_dtype = MOE_BF16,
                                .gradient_dtype = MOE_FP32};

static const moe_network mla = {.layers = 1,
                                .hidden = 2048,
                                .ffn = 512,
                                .experts = 8,
                                .top_k = 1,
                                .attention = MOE_ATTENTION_MLA,
                                .heads = 16,
                                .q_lora_rank = 768,
                                .kv_lora_rank = 512,
                                .qk_nope_head_dim = 128,
                                .qk_rope_head_dim = 64,
                                .v_head_dim = 96,
                                .causal = true,
                                .sequence = 512,
                                .parameter_dtype = MOE_BF16,
                                .gradient_dtype = MOE_FP32};

static void test_shapes(void **state)
{
    (void)state;
    moe_gemm_list list = moe_network_layer_gemms(&gqa, 1, 100);
    assert_int_equal(list.count, 3);
    assert_gemm(&list.items[0], 100, (16 + 2 * 4) * 128, 1024);
    assert_gemm(&list.items[1], 100, 1024, 16 * 128);
    assert_gemm(&list.items[2], 100, 32, 1024);
    assert_int_equal(moe_network_layer_gemms(&gqa, 0, 100).count, 2); /* dense: no gate */
    list = moe_network_ffn_gemms(&gqa, 3000, 100);
    assert_int_equal(list.count, 2);
    assert_gemm(&list.items[0], 100, 6000, 1024); /* gate and up at once */
    assert_gemm(&list.items[1], 100, 1024, 3000);
    assert_int_equal(moe_network_ffn_gemms(&gqa, 0, 100).count, 0);
    list = moe_network_layer_gemms(&mla, 0, 7);
    assert_int_equal(list.count, 6);
    assert_gemm(&list.items[0], 7, 768, 2048);
    assert_gemm(&list.items[1], 7, 16 * (128 + 64), 768);
    assert_gemm(&list.items[2], 7, 512 + 64, 2048);
    assert_gemm(&list.items[3], 7, 16 * (128 + 96), 512);
    assert_gemm(&list.items[4], 7, 2048, 16 * 96);
    assert_gemm(&list.items[5], 7, 8, 2048);
    moe_gemm head = moe_network_head_gemm(&gqa, 9), back;
    back = moe_gemm_in_phase(&head, MOE_FORWARD);
    assert_gemm(&back, 9, 30000, 1024);
    back = moe_gemm_in_phase(&head, MOE_INPUT_GRADIENT);
    assert_gemm(&back, 9, 1024, 30000);
    back = moe_gemm_in_phase(&head, MOE_WEIGHT_GRADIENT);
    assert_gemm(&back, 1024, 30000, 9);
    assert_true(moe_network_expansion_gemm(&gqa, 5).count == 0);
}

/* --- FLOPs, of every preset ------------------------------------------------------------------- */

static void check_flop(const moe_network *network)
{
    const double tokens = 1000;
    for (int64_t layer = 0; layer < network->layers; layer++) {
        const moe_gemm_list list = moe_network_layer_gemms(network, layer, tokens);
        assert_close(moe_gemm_list_flop(&list),
                     moe_network_attention_flop(network, layer, tokens, 0));
        for (int i = 0; i < list.count; i++) {
            const moe_gemm_list one = {{list.items[i]}, 1};
            for (int phase = MOE_INPUT_GRADIENT; phase <= MOE_WEIGHT_GRADIENT; phase++) {
                const moe_gemm_list other = {{moe_gemm_in_phase(&list.items[i], (moe_phase)phase)},
                                             1};
                assert_close(moe_gemm_list_flop(&other), moe_gemm_list_flop(&one));
            }
        }
    }
    const int64_t widths[] = {network->dense_ffn, moe_network_shared_width(network), network->ffn};
    for (int i = 0; i < 3; i++) {
        const moe_gemm_list list = moe_network_ffn_gemms(network, widths[i], tokens);
        assert_close(moe_gemm_list_flop(&list), moe_network_ffn_flop(network, widths[i], tokens));
    }
    const moe_gemm_list head = {{moe_network_head_gemm(network, tokens)}, 1};
    assert_close(moe_gemm_list_flop(&head), moe_network_head_flop(network, tokens));
}

static void test_flop_of_presets(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, stderr);
    DIR *folder = opendir(MOE_TEST_SOURCE_DIR "/configs/models");
    assert_non_null(folder);
    int presets = 0;
    for (const struct dirent *entry; (entry = readdir(folder));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".yaml") != 0)
            continue;
        char path[512];
        snprintf(path, sizeof path, MOE_TEST_SOURCE_DIR "/configs/models/%s", entry->d_name);
        moe_config *config = moe_config_load(owner, path, &moe_network_table, NULL, 0, diag);
        assert_non_null(config);
        check_flop(moe_config_root(config));
        presets++;
    }
    closedir(folder);
    assert_true(presets >= 11);
    talloc_free(owner);
}

/* --- prices ----------------------------------------------------------------------------------- */

typedef struct fixture {
    moe_cluster_spec spec;
    moe_cluster *cluster;
    moe_profile profile;
    moe_curve_usage usage;
    moe_costs costs;
} fixture;

static double edges[] = {1, 1e6};
static double flat[] = {0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5};

static int open_fixture(void **state)
{
    fixture *f = talloc_zero(NULL, fixture);
    f->spec = (moe_cluster_spec){
        .hosts = 1,
        .devices_per_host = 2,
        .device = {.name = "D", .peak_flop_per_s = 1e14, .memory_bytes_per_s = 1e12},
        .intra = {.bandwidth_bytes_per_s = 1e11},
        .nic = {.bandwidth_bytes_per_s = 1e10},
        .fabric = {.oversubscription = 1}};
    f->cluster = moe_cluster_create(f, &f->spec, NULL, moe_diag_create(f, stderr));
    f->profile.dense = (moe_compute_curve){
        .start_s = 5e-6, .flop_efficiency = 0.8, .memory_efficiency = 0.7, .norm = 2};
    f->profile.memory = (moe_compute_curve){.start_s = 2e-6, .memory_efficiency = 0.5};
    f->costs = (moe_costs){&f->profile, f->cluster, &f->usage};
    *state = f;
    return f->cluster ? 0 : 1;
}

static int close_fixture(void **state)
{
    talloc_free(*state);
    return 0;
}

/* The same utilisation everywhere: every GEMM takes twice what the data sheet says. */
static void give_flat_grid(fixture *f)
{
    f->profile.gemm = (moe_gemm_grid){.m = {edges, 2},
                                      .n = {edges, 2},
                                      .k = {edges, 2},
                                      .utilisation = {flat, 8},
                                      .value_bytes = 2};
}

static double twice_sol(double m, double n, double k)
{
    return 2 * fmax(2 * m * n * k / 1e14, 2 * (m * k + k * n + m * n) / 1e12);
}

/* One aggregated roofline a part, backward twice as much: what every profile did before there were
 * grids. */
static void test_without_grid(void **state)
{
    fixture *f = *state;
    assert_false(moe_dense_is_itemised(&f->costs));
    double flop = moe_network_layer_flop(&gqa, 1, 100);
    double bytes = moe_network_layer_memory_bytes(&gqa, 1, 100);
    moe_dense_seconds part = moe_dense_attention(&f->costs, &gqa, 1, 100);
    assert_true(part.forward_s == moe_cost_dense_s(&f->costs, flop, bytes, 100));
    assert_true(part.backward_s == moe_cost_dense_s(&f->costs, 2 * flop, 2 * bytes, 100));
    part = moe_dense_ffn(&f->costs, &gqa, 3000, 100, false);
    assert_true(part.backward_s == 0);
    assert_true(part.forward_s == moe_cost_dense_s(&f->costs, moe_network_ffn_flop(&gqa, 3000, 100),
                                                   moe_network_ffn_memory_bytes(&gqa, 3000, 100),
                                                   100));
    assert_true(moe_dense_ffn(&f->costs, &gqa, 0, 100, true).forward_s == 0);
}

static void test_with_grid(void **state)
{
    fixture *f = *state;
    give_flat_grid(f);
    assert_true(moe_dense_is_itemised(&f->costs));
    moe_dense_seconds part = moe_dense_ffn(&f->costs, &gqa, 3000, 100, true);
    assert_close(part.forward_s, twice_sol(100, 6000, 1024) + twice_sol(100, 1024, 3000));
    assert_close(part.backward_s, twice_sol(100, 1024, 6000) + twice_sol(100, 3000, 1024) +
                                      twice_sol(1024, 6000, 100) + twice_sol(3000, 1024, 100));
    /* scores: 2 * 256 attended * 2 * 2048 FLOPs a token; Q, K, V and the output, 2 bytes each */
    double scores = 100 * 2 * 256.0 * 2 * 2048, read = 100 * 2 * (2 * 2048 + 2 * 512.0);
    part = moe_dense_attention(&f->costs, &gqa, 0, 100);
    assert_close(part.forward_s, twice_sol(100, 3072, 1024) + twice_sol(100, 1024, 2048) +
                                     moe_cost_dense_s(&f->costs, scores, read, 100));
    assert_close(moe_dense_head_s(&f->costs, &gqa, 100),
                 twice_sol(100, 30000, 1024) + twice_sol(100, 1024, 30000) +
                     twice_sol(1024, 30000, 100) + 2e-6 + 2 * 100 * 30000 * 2 / 0.5e12);
    assert_int_equal(f->usage.outside[MOE_CURVE_DENSE], 0);
}

/* A curve for attention alone takes its scores out of the aggregate, and no work is lost. */
static void test_with_attention_curve(void **state)
{
    fixture *f = *state;
    f->profile.dense.start_s = 0;
    f->profile.dense.memory_efficiency = 1e9;
    const double together = moe_dense_attention(&f->costs, &gqa, 1, 100).forward_s;
    f->profile.attention = f->profile.dense;
    const moe_dense_seconds apart = moe_dense_attention(&f->costs, &gqa, 1, 100);
    assert_true(fabs(apart.forward_s / together - 1) < 1e-9);
    assert_true(fabs(apart.backward_s / together - 2) < 1e-9);
    f->profile.attention.flop_efficiency = 0.4;
    const double scores_s = moe_network_score_flop(&gqa, 100, 256) / (0.4 * 1e14);
    const double slower = moe_dense_attention(&f->costs, &gqa, 1, 100).forward_s;
    assert_true(fabs((slower - together) / (scores_s / 2) - 1) < 1e-9);
}

/* Half the layers have a window of 64 of the 512 tokens. */
static void test_mean_over_windows(void **state)
{
    fixture *f = *state;
    moe_network network = gqa;
    network.layers = 5;
    network.sliding_window = 64;
    network.full_attention_every = 2;
    give_flat_grid(f);
    const double full_s = moe_dense_attention(&f->costs, &network, 1, 100).backward_s;
    const double window_s = moe_dense_attention(&f->costs, &network, 2, 100).backward_s;
    assert_true(window_s < full_s);
    assert_close(moe_dense_attention_mean(&f->costs, &network, 100).backward_s,
                 (full_s + window_s) / 2);
}

static void test_serving(void **state)
{
    fixture *f = *state;
    const moe_serving_batch prompts = {2, 200, 50}, decodes = {8, 8, 300};
    moe_serving_work work = moe_prefill_work(&mla, 0, &prompts);
    assert_true(moe_dense_prefill_s(&f->costs, &mla, 0, &prompts) ==
                moe_cost_dense_s(&f->costs, work.flop, work.bytes, 200));
    give_flat_grid(f);
    const moe_gemm_list list = moe_network_layer_gemms(&mla, 0, 200);
    double expected = twice_sol(100, 16 * (128 + 96), 512); /* 2 * 50 cached tokens expanded */
    for (int i = 0; i < list.count; i++)
        expected += twice_sol(list.items[i].m, list.items[i].n, list.items[i].k);
    double scores = moe_network_score_flop(&mla, 200, 50 + 50);
    double read = 200 * 2.0 * (2 * 16 * 192 + 2 * 16 * 96) + 100 * 2.0 * 576;
    assert_close(moe_dense_prefill_s(&f->costs, &mla, 0, &prompts),
                 expected + moe_cost_dense_s(&f->costs, scores, read, 200));
    work = moe_decode_attention_work(&gqa, 1, &decodes);
    assert_close(moe_dense_decode_s(&f->costs, &gqa, 1, &decodes),
                 twice_sol(8, 3072, 1024) + twice_sol(8, 1024, 2048) + twice_sol(8, 32, 1024) +
                     moe_cost_attention_s(&f->costs, work.flop, work.bytes, 8));
    assert_close(moe_dense_serving_head_s(&f->costs, &gqa, 8),
                 twice_sol(8, 30000, 1024) + 2e-6 + 8 * 30000 * 2 / 0.5e12);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_flop_of_presets),
        TEST(test_without_grid),
        TEST(test_with_grid),
        TEST(test_with_attention_curve),
        TEST(test_mean_over_windows),
        TEST(test_serving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
