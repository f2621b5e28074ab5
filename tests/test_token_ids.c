/* Per-token recordings: the container, the counts it reads as, exact distinct tokens, the importer. */
#include "tests/trace_fixture.h"

#include "traces/importer.h"
#include "traces/safetensors.h"
#include "traces/token_ids.h"

/* 3 requests, 2 positions, 2 layers, 3 slots of 4 experts and 2 null experts (4 and 5). */
enum { REQUESTS = 3, POSITIONS = 2, LAYERS = 2, SLOTS = 3, EXPERTS = 4, NULLS = 2 };
enum { TOKENS = REQUESTS * POSITIONS * LAYERS, IDS = TOKENS * SLOTS };

/* clang-format off */
static const uint8_t toy_ids[IDS] = {
    0, 1, 2,  3, 4, 5,   1, 0, 4,  2, 3, 1,
    5, 4, 0,  0, 3, 1,   2, 3, 0,  3, 2, 5,
    1, 3, 0,  4, 5, 2,   3, 1, 4,  0, 1, 2,
};
/* clang-format on */

static moe_trace_info toy_info(int64_t null_experts)
{
    return (moe_trace_info){
        .shape = {POSITIONS, 1, LAYERS, REQUESTS, EXPERTS + NULLS - null_experts},
        .window = 1,
        .slots = SLOTS,
        .null_experts = null_experts,
        .top_k = null_experts > 0 ? 0 : SLOTS,
        .origin = "a test"};
}

static moe_trace *write_toy(trace_fixture *fixture, int64_t null_experts, const float *probs)
{
    const moe_trace_info info = toy_info(null_experts);
    const moe_token_arrays arrays = {toy_ids, 1, (const uint8_t *)probs};
    char *path = program_path("toy.safetensors");
    assert_int_equal(moe_trace_write_tokens(path, &info, &arrays, fixture_diag(fixture)), MOE_OK);
    free(path);
    moe_trace *trace = fixture_reopen(fixture, "toy.safetensors");
    assert_non_null(trace);
    assert_int_equal(moe_trace_check(trace, fixture->diag), MOE_OK);
    return trace;
}

static const uint8_t *ids_at(int request, int position, int layer)
{
    return toy_ids + ((request * POSITIONS + position) * LAYERS + layer) * SLOTS;
}

static void test_round_trip(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    float probs[IDS];
    for (int i = 0; i < IDS; i++)
        probs[i] = (float)i / 64;
    const moe_trace *trace = write_toy(&fixture, NULLS, probs);
    const moe_trace_info *info = moe_trace_get_info(trace);
    assert_int_equal(info->slots, SLOTS);
    assert_int_equal(info->null_experts, NULLS);
    assert_int_equal(info->top_k, 0);
    assert_true(info->probabilities && info->tokens_recorded);
    for (int i = 0; i < TOKENS; i++) {
        const int request = i / (POSITIONS * LAYERS), position = i / LAYERS % POSITIONS;
        uint32_t ids[SLOTS];
        float found[SLOTS];
        moe_trace_read_token(trace, request, position, i % LAYERS, ids, found);
        for (int k = 0; k < SLOTS; k++)
            assert_int_equal(ids[k], toy_ids[i * SLOTS + k]);
        assert_memory_equal(found, probs + i * SLOTS, sizeof found);
    }
    fixture_close(&fixture);
}

/* An iteration is a position, a source a request; null experts are not counted. */
static void test_counts(void **state)
{
    (void)state;
    for (int nulls = 0; nulls <= NULLS; nulls += NULLS) {
        trace_fixture fixture = fixture_open();
        const moe_trace *trace = write_toy(&fixture, nulls, NULL);
        const uint32_t experts = (uint32_t)(EXPERTS + NULLS - nulls);
        assert_false(moe_trace_get_info(trace)->probabilities);
        for (int i = 0; i < POSITIONS * LAYERS; i++) {
            uint32_t counts[REQUESTS * (EXPERTS + NULLS)];
            uint32_t expected[REQUESTS * (EXPERTS + NULLS)] = {0};
            uint32_t tokens[REQUESTS];
            moe_trace_read(trace, i / LAYERS, 0, i % LAYERS, counts, tokens);
            for (uint32_t r = 0; r < REQUESTS; r++) {
                for (int k = 0; k < SLOTS; k++) {
                    const uint32_t id = ids_at((int)r, i / LAYERS, i % LAYERS)[k];
                    if (id < experts)
                        expected[r * experts + id]++;
                }
                assert_int_equal(tokens[r], 1);
            }
            assert_memory_equal(counts, expected, REQUESTS * experts * sizeof *counts);
        }
        fixture_close(&fixture);
    }
}

/* Layer 0 by hand. Tokens, null experts dropped: {0,1,2}, {1,0}; {0}, {2,3,0}; {1,3,0}, {3,1}. */
static void test_distinct(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    const moe_trace *trace = write_toy(&fixture, NULLS, NULL);
    const int halves[EXPERTS] = {0, 0, 1, 1};
    const int some[EXPERTS] = {1, -1, 1, 0};
    const moe_token_range all = {0, REQUESTS, 0, POSITIONS};
    const moe_token_range late = {1, REQUESTS, 1, POSITIONS};
    double counts[EXPERTS] = {0};
    double tokens[2];
    moe_trace_count_distinct(trace, 0, &all, halves, 2, tokens);
    assert_true(tokens[0] == 6 && tokens[1] == 4);
    moe_trace_count_distinct(trace, 0, &all, some, 2, tokens);
    assert_true(tokens[0] == 3 && tokens[1] == 5);
    moe_trace_count_distinct(trace, 0, &late, halves, 2, tokens);
    assert_true(tokens[0] == 2 && tokens[1] == 2);
    moe_trace_count_range(trace, 0, &all, counts);
    assert_true(counts[0] == 5 && counts[1] == 4 && counts[2] == 2 && counts[3] == 3);
    fixture_close(&fixture);
}

static void test_written_anew(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    const float probs[IDS] = {0.5F};
    write_toy(&fixture, NULLS, probs);
    char *path = program_path("toy.safetensors");
    char *copy = program_path("copy.safetensors");
    assert_int_equal(moe_importer_native.import(path, copy, 0, fixture.diag), MOE_OK);
    const moe_trace *trace = fixture_reopen(&fixture, "copy.safetensors");
    assert_int_equal(moe_trace_get_info(trace)->slots, SLOTS);
    assert_true(moe_trace_get_info(trace)->probabilities);
    assert_int_equal(moe_importer_native.import(path, copy, 2, fixture.diag), MOE_BAD_INPUT);
    program_contains(fixture_messages(&fixture), "cannot be sharded");
    free(path);
    free(copy);
    fixture_close(&fixture);
}

/* --- bad files ------------------------------------------------------------------------------ */

static bool copy_ids(void *state, uint8_t *bytes, size_t length)
{
    memcpy(bytes, state, length);
    return true;
}

typedef struct bad_row {
    const char *name; /* of the array */
    const char *dtype;
    size_t rank;
    const char *experts;
    const char *null_experts;
    const char *top_k;
    const char *message;
} bad_row;

static const bad_row bad_rows[] = {
    {"token_experts", "U8", 3, "4", "2", "0", "U8 with 3 dimensions"},
    {"token_experts", "I8", 4, "4", "2", "0", "expected U8 or U16"},
    {"token_experts", "U8", 4, NULL, "2", "0", "experts is \"(none)\""},
    {"token_experts", "U8", 4, "0", "2", "0", "experts is \"0\""},
    {"token_experts", "U8", 4, "4x", "2", "0", "experts is \"4x\""},
    {"token_experts", "U8", 4, "4", "-2", "0", "null_experts is \"-2\""},
    {"token_experts", "U8", 4, "4", "2", "3", "top_k is 3 with 3 slots of 4"},
    {"token_experts", "U8", 4, "2", "0", "3", "of 2 experts and 0 null"},
    {"token_experts", "U8", 4, "3", "2", "0", "an id beyond all experts"},
    {"tokens_experts", "U8", 4, "4", "2", "0", "no text \"crc32.counts\""},
};

static void set_text(json_t *object, const char *key, const char *text)
{
    if (text != NULL)
        json_object_set_new(object, key, json_string(text));
}

static void write_bad(const bad_row *row)
{
    uint8_t ids[IDS];
    moe_tensor_source tensor = {.name = row->name,
                                .dtype = row->dtype,
                                .item_bytes = 1,
                                .rank = row->rank,
                                .shape = {REQUESTS, POSITIONS,
                                          LAYERS * (row->rank == 3 ? SLOTS : 1),
                                          row->rank == 3 ? 0 : SLOTS},
                                .read = copy_ids,
                                .state = ids};
    json_t *metadata =
        json_pack("{s:s, s:s, s:s, s:s, s:s}", "format", "moeplan-trace-1", "aggregation",
                  "dispatch", "synthetic", "false", "origin", "-", "provenance", "{}");
    char *path = program_path("bad.safetensors");
    FILE *stream = fopen(path, "wb+");
    memcpy(ids, toy_ids, sizeof ids);
    set_text(metadata, "experts", row->experts);
    set_text(metadata, "null_experts", row->null_experts);
    set_text(metadata, "top_k", row->top_k);
    assert_true(moe_safetensors_write(stream, metadata, &tensor, 1));
    fclose(stream);
    json_decref(metadata);
    free(path);
}

static void test_bad_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_rows / sizeof *bad_rows; i++) {
        trace_fixture fixture = fixture_open();
        write_bad(&bad_rows[i]);
        const moe_trace *trace = fixture_reopen(&fixture, "bad.safetensors");
        if (trace != NULL)
            assert_int_equal(moe_trace_check(trace, fixture.diag), MOE_BAD_INPUT);
        program_contains(fixture_messages(&fixture), bad_rows[i].message);
        fixture_close(&fixture);
    }
}

/* --- importing ------------------------------------------------------------------------------ */

static void write_npy(const char *name, const char *dictionary, const void *data, size_t bytes)
{
    char *path = program_path(name);
    FILE *file = fopen(path, "wb");
    const uint16_t length = (uint16_t)(strlen(dictionary) + 1);
    assert_non_null(file);
    fwrite("\x93NUMPY\x01\x00", 1, 8, file);
    fwrite(&length, 1, sizeof length, file);
    fprintf(file, "%s\n", dictionary);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    free(path);
}

#define SHAPE(descr) "{'descr': '" descr "', 'fortran_order': False, 'shape': (3, 2, 2, 3)}"

static void write_recording(const uint8_t *ids, const float *probs, const char *meta)
{
    char *path = program_path("meta.json");
    char *probs_path = program_path("probs.npy");
    char *counts_path = program_path("counts.npy");
    remove(probs_path);
    remove(counts_path);
    write_npy("experts.npy", SHAPE("|u1"), ids, IDS);
    if (probs != NULL)
        write_npy("probs.npy", SHAPE("<f4"), probs, IDS * sizeof *probs);
    program_write(path, meta);
    free(path);
    free(probs_path);
    free(counts_path);
}

static moe_status import(trace_fixture *fixture)
{
    char *output = program_path("imported.safetensors");
    remove(output);
    assert_true(moe_importer_npy_tokens.recognise(program_folder));
    const moe_status status =
        moe_importer_npy_tokens.import(program_folder, output, 0, fixture_diag(fixture));
    assert_int_equal(status == MOE_OK, access(output, F_OK) == 0); /* whole or nothing */
    free(output);
    return status;
}

static void test_import(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    float probs[IDS] = {0.25F, 0.5F};
    write_recording(toy_ids, probs,
                    "{\"model\": \"toy\", \"experts\": 4, \"null_experts\": 2, \"files\": 1}");
    assert_int_equal(import(&fixture), MOE_OK);
    const moe_trace *trace = fixture_reopen(&fixture, "imported.safetensors");
    const moe_trace_info *info = moe_trace_get_info(trace);
    uint32_t ids[SLOTS];
    float found[SLOTS];
    moe_trace_read_token(trace, 2, 1, 0, ids, found);
    assert_int_equal(ids[0], 3);
    assert_int_equal(ids[2], 4);
    assert_string_equal(info->origin, "toy");
    assert_null(json_object_get(info->provenance, "files"));
    assert_int_equal(moe_trace_check(trace, fixture.diag), MOE_OK);
    fixture_close(&fixture);
}

static void test_bad_recordings(void **state)
{
    (void)state;
    uint8_t twice[IDS];
    memcpy(twice, toy_ids, sizeof twice);
    twice[4] = 3; /* beside the 3 before it */
    const struct {
        const uint8_t *ids;
        const char *meta;
        const char *message;
    } rows[] = {
        {twice, "{\"experts\": 4, \"null_experts\": 2}",
         "request 0, position 0, layer 1: the same expert twice"},
        {toy_ids, "{\"experts\": 4}", "an id beyond all experts"},
        {toy_ids, "{\"experts\": 2}", "3 slots of a token"},
        {toy_ids, "{\"null_experts\": 2}", "\"experts\" is missing"},
        {toy_ids, "{\"experts\": 4.5}", "\"experts\" is missing or no integer"},
        {toy_ids, "[4]", "no JSON object"},
        {toy_ids, "{", "no JSON object: "},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trace_fixture fixture = fixture_open();
        write_recording(rows[i].ids, NULL, rows[i].meta);
        assert_int_equal(import(&fixture), MOE_BAD_INPUT);
        program_contains(fixture_messages(&fixture), rows[i].message);
        fixture_close(&fixture);
    }
}

static void test_bad_arrays(void **state)
{
    (void)state;
    trace_fixture fixture = fixture_open();
    const float probs[IDS] = {0};
    write_recording(toy_ids, NULL, "{\"experts\": 6}");
    write_npy("probs.npy", SHAPE("|u1"), toy_ids, IDS);
    assert_int_equal(import(&fixture), MOE_BAD_INPUT);
    program_contains(fixture_messages(&fixture), "expected {'descr': '<f4'");
    write_npy("probs.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (36,)}", probs,
              sizeof probs);
    assert_int_equal(import(&fixture), MOE_BAD_INPUT);
    program_contains(fixture_messages(&fixture), "another shape than experts.npy");
    write_npy("experts.npy", SHAPE("<f4"), probs, sizeof probs);
    assert_int_equal(import(&fixture), MOE_BAD_INPUT);
    program_contains(fixture_messages(&fixture), "(or |u1, <u4)");
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_counts),
        cmocka_unit_test(test_distinct),       cmocka_unit_test(test_written_anew),
        cmocka_unit_test(test_bad_files),      cmocka_unit_test(test_import),
        cmocka_unit_test(test_bad_recordings), cmocka_unit_test(test_bad_arrays),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
