/* The MoE model: counts, FLOPs and bytes by hand, Hecate's Table 1, and every refused relation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "models/network.h"
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <unistd.h>

typedef struct fixture {
    char *said;
    size_t said_length;
    FILE *stream;
    moe_diag *diag;
    const moe_network *network; /* NULL if it could not be read */
    moe_status status;          /* of its check */
} fixture;

static void open_file(fixture *f, const char *path)
{
    f->stream = open_memstream(&f->said, &f->said_length);
    f->diag = moe_diag_create(NULL, f->stream);
    f->status = MOE_BAD_INPUT;
    moe_config *config = moe_config_load(f->diag, path, &moe_network_table, NULL, 0, f->diag);
    if (config) {
        f->network = moe_config_root(config);
        f->status = moe_network_check(f->network, config, f->diag);
    }
    fflush(f->stream);
}

static void open_text(fixture *f, const char *text)
{
    char path[] = "/tmp/moeplan_network_XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, text, strlen(text)), strlen(text));
    close(descriptor);
    open_file(f, path);
    unlink(path);
}

static void close_fixture(fixture *f)
{
    talloc_free(f->diag);
    fclose(f->stream);
    free(f->said);
    *f = (fixture){0};
}

static void assert_close(double actual, double expected)
{
    if (fabs(actual - expected) > 1e-12 * fabs(expected))
        fail_msg("%.17g is not %.17g", actual, expected);
}

/* ---- counts by hand ----------------------------------------------------------------------------
 */

static const moe_network small = {
    .layers = 5,
    .hidden = 6,
    .ffn = 10,
    .gated = true,
    .bias = true,
    .experts = 8,
    .top_k = 3,
    .gate_groups = 4,
    .top_groups = 2,
    .heads = 3,
    .causal = true,
    .sequence = 20,
    .vocabulary = 11,
    .parameter_dtype = MOE_BF16,
    .gradient_dtype = MOE_FP32,
    .optimizer_bytes_per_parameter = 12,
};

static void test_parameters(void **state)
{
    (void)state;
    assert_close(moe_network_expert_parameters(&small), 3 * 60 + 10 + 10 + 6);
    assert_close(moe_network_attention_parameters(&small), 4 * 36);
    assert_close(moe_network_gate_parameters(&small), 48);
    assert_close(moe_network_embedding_parameters(&small), 2 * 66);
    assert_close(moe_network_parameters(&small), 5 * (8 * 206 + 144));
    assert_close(moe_network_dense_parameters(&small), 5 * (144 + 48) + 132);
}

static void test_expert_variants(void **state)
{
    (void)state;
    moe_network network = small;
    network.gated = false;
    assert_close(moe_network_expert_parameters(&network), 2 * 60 + 10 + 6);
    network.bias = false;
    assert_close(moe_network_expert_parameters(&network), 2 * 60);
    network.gated = true;
    assert_close(moe_network_expert_parameters(&network), 3 * 60);
    network.tied_embeddings = true;
    assert_close(moe_network_embedding_parameters(&network), 66);
    network.vocabulary = 0;
    assert_close(moe_network_dense_parameters(&network), 5 * (144 + 48));
}

static void test_bytes(void **state)
{
    (void)state;
    assert_close(moe_dtype_bytes(MOE_FP32), 4);
    assert_close(moe_dtype_bytes(MOE_BF16), 2);
    assert_close(moe_dtype_bytes(MOE_FP16), 2);
    assert_close(moe_dtype_bytes(MOE_FP8), 1);
    assert_close(moe_network_expert_bytes(&small), 206 * 2);
    assert_close(moe_network_expert_gradient_bytes(&small), 206 * 4);
    assert_close(moe_network_token_bytes(&small), 12);
    /* 192 weights; a token: 24 + 24 + 12 of attention, 6 + 8 of the gate, at 2 bytes. */
    assert_close(moe_network_dense_memory_bytes(&small, 7), (192 + 7 * (60 + 14)) * 2);
}

static void test_flop(void **state)
{
    (void)state;
    /* A token: projections 8 * 36, scores 4 * 10 * 6 over half of the sequence, gate 2 * 48. */
    assert_close(moe_network_dense_flop(&small, 7), 7 * (288 + 240 + 96));
    assert_close(moe_network_head_flop(&small, 7), 2 * 7 * 66);
    moe_network network = small;
    network.causal = false;
    assert_close(moe_network_dense_flop(&network, 2.5), 2.5 * (288 + 480 + 96));
    network.vocabulary = 0;
    assert_close(moe_network_head_flop(&network, 7), 0);
}

/* The largest values the table admits: finite, and counts below 2^63. */
static void test_largest(void **state)
{
    (void)state;
    fixture f = {0};
    open_text(&f,
              "layers: 4096\nhidden: 65536\nffn: 524288\ngated: true\nbias: true\nexperts: 16384\n"
              "top_k: 16384\nsequence: 67108864\nvocabulary: 67108864\n");
    assert_int_equal(f.status, MOE_OK);
    assert_true(moe_network_parameters(f.network) < 0x1p63);
    assert_true(isfinite(moe_network_dense_flop(f.network, 1e15)));
    close_fixture(&f);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

#define SHAPE "layers: 5\nhidden: 6\nffn: 10\nexperts: 8\nsequence: 20\n"

static void test_defaults(void **state)
{
    (void)state;
    fixture f = {0};
    open_text(&f, SHAPE "top_k: 3\n");
    assert_int_equal(f.status, MOE_OK);
    const moe_network *network = f.network;
    assert_false(network->gated || network->bias || network->tied_embeddings);
    assert_true(network->causal);
    assert_int_equal(network->gate_groups, 1);
    assert_int_equal(network->top_groups, 1);
    assert_int_equal(network->heads, 0);
    assert_int_equal(network->vocabulary, 0);
    assert_int_equal(network->parameter_dtype, MOE_BF16);
    assert_int_equal(network->gradient_dtype, MOE_BF16);
    assert_close(network->optimizer_bytes_per_parameter, 12);
    close_fixture(&f);
}

static void test_group_limited_gate(void **state)
{
    (void)state;
    fixture f = {0};
    open_text(&f, SHAPE "top_k: 4\ngate_groups: 4\ntop_groups: 2\nheads: 3\n");
    assert_int_equal(f.status, MOE_OK);
    assert_string_equal(f.said, "");
    close_fixture(&f);
}

typedef struct bad_case {
    const char *text;
    const char *message;
} bad_case;

static const bad_case bad_cases[] = {
    {SHAPE "top_k: 9\n", ":6:8: error: top_k is 9; expected at most the 8 experts"},
    {SHAPE "top_k: 2\ngate_groups: 3\n",
     ":7:14: error: gate_groups is 3; expected a divisor of the 8 experts"},
    {SHAPE "top_k: 2\ngate_groups: 16\n", "gate_groups is 16; expected a divisor of the 8 experts"},
    {SHAPE "top_k: 2\ngate_groups: 4\ntop_groups: 5\n",
     ":8:13: error: top_groups is 5; expected at most the 4 gate_groups"},
    {SHAPE "top_k: 5\ngate_groups: 4\ntop_groups: 2\n",
     ":6:8: error: top_k is 5, but 2 of 4 groups hold only 4 experts"},
    {SHAPE "top_k: 2\nheads: 4\n",
     ":7:8: error: heads is 4; expected a divisor of hidden, which is 6"},
    {SHAPE, "top_k"},
    {SHAPE "top_k: 2\nparameter_dtype: bf61\n", "bf16"},
    {SHAPE "top_k: 2\nexpert: 3\n", "experts"},
    {"layers: 99999\nhidden: 6\nffn: 10\nexperts: 8\nsequence: 20\ntop_k: 2\n", "layers"},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_cases / sizeof bad_cases[0]; i++) {
        fixture f = {0};
        open_text(&f, bad_cases[i].text);
        assert_int_equal(f.status, MOE_BAD_INPUT);
        if (!strstr(f.said, bad_cases[i].message))
            fail_msg("expected \"%s\" in:\n%s", bad_cases[i].message, f.said);
        close_fixture(&f);
    }
}

/* Two relations broken at once are both printed; no configuration, no place. */
static void test_every_error_is_counted(void **state)
{
    (void)state;
    moe_network network = small;
    network.gate_groups = 3;
    network.heads = 4;
    moe_diag *diag = moe_diag_create(NULL, NULL);
    assert_int_equal(moe_network_check(&network, NULL, diag), MOE_BAD_INPUT);
    assert_int_equal(moe_diag_error_count(diag), 2);
    assert_int_equal(moe_network_check(&small, NULL, diag), MOE_OK);
    network.gate_groups = 0; /* not divided by */
    assert_int_equal(moe_network_check(&network, NULL, diag), MOE_BAD_INPUT);
    talloc_free(diag);
}

/* ---- Hecate's Table 1 ---------------------------------------------------------------------------
 */

typedef struct preset {
    const char *file;
    double billions;     /* L (64 (4 d^2 + 3 d) + 4 d^2), three decimals */
    double printed;      /* Table 1: rounded or, twice, truncated */
    double expert_bytes; /* 2 (4 d^2 + 3 d) */
    bool causal;
} preset;

static const preset presets[] = {
    {"gpt_moe_s", 1.842, 1.84, 2.0 * (4 * 768 * 768 + 3 * 768), true},
    {"gpt_moe_l", 7.365, 7.36, 2.0 * (4 * 1536 * 1536 + 3 * 1536), true},
    {"bert_moe", 3.274, 3.27, 2.0 * (4 * 1024 * 1024 + 3 * 1024), false},
    {"bert_moe_deep", 6.548, 6.54, 2.0 * (4 * 1024 * 1024 + 3 * 1024), false},
};

static void test_presets(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        fixture f = {0};
        char path[256];
        snprintf(path, sizeof path, MOE_TEST_SOURCE_DIR "/configs/models/%s.yaml", presets[i].file);
        open_file(&f, path);
        assert_int_equal(f.status, MOE_OK);
        double billions = moe_network_parameters(f.network) / 1e9;
        assert_close(round(billions * 1e3), round(presets[i].billions * 1e3));
        assert_close(floor(billions * 100), round(presets[i].printed * 100));
        assert_close(moe_network_expert_bytes(f.network), presets[i].expert_bytes);
        assert_int_equal(f.network->causal, presets[i].causal);
        assert_int_equal(f.network->experts, 64);
        assert_int_equal(f.network->ffn, 2 * f.network->hidden);
        assert_non_null(f.network->source);
        close_fixture(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_expert_variants),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_flop),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_group_limited_gate),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_every_error_is_counted),
        cmocka_unit_test(test_presets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
