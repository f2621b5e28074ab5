/* Plans as a noun: what reading accepts and refuses, that writing and reading are inverse, differences,
 * and the policy that runs one. Whole runs with plans are in run_plan.c. */
#include "tests/bad_files.h"

#include "models/plan.h"
#include "policies/placement/planned.h"
#include "tests/policy_fixture.h"

#define BAD_FOLDER MOE_TEST_SOURCE_DIR "/tests/bad/plans"

/* Two layers of four experts on four devices in groups of two: what sound.json holds. */
enum { LAYERS = 2, EXPERTS = 4, DEVICES = 4, EP = 2 };

static moe_plan *read_plan(void *owner, const char *path)
{
    moe_plan *plan = moe_plan_read(owner, path, (moe_where){0}, moe_diag_create(owner, stderr));
    assert_non_null(plan);
    return plan;
}

static moe_plan *sound(void *owner)
{
    return read_plan(owner, BAD_FOLDER "/sound.json");
}

/* --- reading ------------------------------------------------------------------------------------ */

static void test_reads_all(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    const moe_plan *plan = sound(owner);
    assert_string_equal(plan->model.name, "toy");
    assert_int_equal(plan->model.experts, EXPERTS);
    assert_true(plan->model.shard_bytes == 56e6);
    assert_int_equal(plan->layout.groups, 2);
    assert_string_equal(plan->policy.name, "mine");
    assert_int_equal(json_integer_value(json_object_get(plan->policy.tunables, "window")), 5);
    assert_true(plan->prediction.gain == 1.25);
    assert_int_equal(plan->prediction.evaluated_on.first, 5);
    assert_int_equal(*moe_placement_owner(plan->placement, 1, 1, 0), 3);
    assert_int_equal(*moe_placement_copies(plan->placement, 0, 0), 1 << 0 | 1 << 2 | 1 << 1);
    assert_int_equal(moe_plan_copies(plan), 5);
    talloc_free(owner);
}

static bool is_refused(void *owner, const char *path, moe_diag *diag)
{
    return moe_plan_read(owner, path, (moe_where){0}, diag) == NULL;
}

static void test_bad_files(void **state)
{
    (void)state;
    bad_files_check(BAD_FOLDER, ".json", is_refused, 45);
}

/* A file in which everything is wrong is not told so without end. */
static void test_errors_are_limited(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, NULL);
    char *text = program_read(BAD_FOLDER "/sound.json"), *path = program_path("many.json");
    char *layers = strstr(text, "\"layers\": [");
    FILE *file = fopen(path, "wb");
    fprintf(file, "%.*s", (int)(layers - text), text);
    fputs("\"layers\": [", file);
    for (int l = 0; l < LAYERS; l++)
        fprintf(file, "%s{\"owners\": [[9, 9, 9, 9], [9, 9, 9, 9]], \"copies\": [7, 7, 7, 7]}",
                l > 0 ? ", " : "");
    fputs("]}", file);
    fclose(file);
    assert_null(moe_plan_read(owner, path, (moe_where){0}, diag));
    assert_in_range(moe_diag_error_count(diag), 15, 20);
    free(path);
    free(text);
    talloc_free(owner);
}

/* --- writing ------------------------------------------------------------------------------------ */

static char *written(const moe_plan *plan)
{
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    moe_plan_write(plan, stream);
    fclose(stream);
    return text;
}

static void test_writing_and_reading_are_inverse(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    const moe_plan *plan = sound(owner);
    char *first = written(plan), *path = program_path("plan.json");
    program_write(path, first);
    const moe_plan *again = read_plan(owner, path);
    char *second = written(again);
    assert_string_equal(first, second);
    assert_true(moe_placement_equal(plan->placement, again->placement));
    json_t *prediction = moe_plan_prediction_json(again);
    assert_true(json_real_value(json_object_get(prediction, "gain")) == 1.25);
    json_decref(prediction);
    free(first);
    free(second);
    free(path);
    talloc_free(owner);
}

/* What is optional may be absent, and stays so. */
static void test_bare_plan(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_plan *plan = sound(owner);
    moe_plan bare = *plan;
    bare.policy = (moe_plan_policy){NULL, NULL, NULL};
    bare.prediction = (moe_plan_prediction){.engine = NULL};
    bare.inputs = NULL;
    char *text = written(&bare), *path = program_path("bare.json");
    program_write(path, text);
    assert_null(strstr(text, "prediction"));
    const moe_plan *again = read_plan(owner, path);
    assert_null(again->policy.name);
    assert_null(again->prediction.engine);
    assert_null(moe_plan_prediction_json(again));
    free(text);
    free(path);
    talloc_free(owner);
}

/* Ranks that sit elsewhere stay there, and compare only with their like. */
static void test_seats(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, NULL);
    int seats[DEVICES] = {2, 0, 3, 1};
    moe_plan *plan = sound(owner);
    const moe_plan *unmoved = sound(owner);
    assert_int_equal(moe_plan_seat(plan, 1), 1);
    plan->seats = seats;
    char *text = written(plan), *path = program_path("seats.json");
    program_write(path, text);
    const moe_plan *again = read_plan(owner, path);
    for (int r = 0; r < DEVICES; r++)
        assert_int_equal(moe_plan_seat(again, r), seats[r]);
    assert_true(moe_plan_comparable(plan, again, diag));
    assert_false(moe_plan_comparable(unmoved, again, diag));
    free(text);
    free(path);
    talloc_free(owner);
}

/* --- differences -------------------------------------------------------------------------------- */

static json_int_t count(const json_t *object, const char *key)
{
    assert_true(json_is_integer(json_object_get(object, key)));
    return json_integer_value(json_object_get(object, key));
}

static void test_no_difference(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    const moe_plan *plan = sound(owner);
    json_t *difference = moe_plan_difference(plan, plan);
    assert_int_equal(count(difference, "experts_moved"), 0);
    assert_int_equal(json_array_size(json_object_get(difference, "moves")), 0);
    assert_int_equal(json_array_size(json_object_get(difference, "copies")), 0);
    assert_int_equal(count(difference, "copies_before"), 5);
    assert_int_equal(count(difference, "copies_after"), 5);
    json_decref(difference);
    talloc_free(owner);
}

/* Layer 0, expert 0 moves to device 1, where its copy was; expert 1 gets a copy on device 3. */
static void test_differences(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    const moe_plan *a = sound(owner);
    moe_plan *b = sound(owner);
    *moe_placement_owner(b->placement, 0, 0, 0) = 1;
    moe_set_add(moe_placement_copies(b->placement, 0, 1), 3);
    json_t *difference = moe_plan_difference(a, b);
    const json_t *move = json_array_get(json_object_get(difference, "moves"), 0);
    assert_int_equal(count(difference, "experts_moved"), 1);
    assert_true(json_real_value(json_object_get(difference, "bytes_to_move")) == 56e6);
    assert_int_equal(count(move, "from"), 0);
    assert_int_equal(count(move, "to"), 1);
    /* Of expert 0 what was the owner's is a copy now, and the other way round. */
    assert_int_equal(count(difference, "copies_added"), 2);
    assert_int_equal(count(difference, "copies_removed"), 1);
    json_decref(difference);
    talloc_free(owner);
}

static void test_other_shapes_do_not_compare(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, NULL);
    const moe_plan *a = sound(owner);
    moe_plan *b = sound(owner);
    assert_true(moe_plan_comparable(a, b, diag));
    b->layout.ep = 4;
    b->model.layers = 7;
    assert_false(moe_plan_comparable(a, b, diag));
    assert_int_equal(moe_diag_error_count(diag), 2);
    talloc_free(owner);
}

/* --- the policy ---------------------------------------------------------------------------------- */

/* Whatever the history says, the placement is the plan's; a source with a copy computes itself, the
 * others go to the nearest. */
static void test_planned_policy(void **state)
{
    (void)state;
    fixture *f = fixture_open(2, 2, EP, LAYERS, EXPERTS);
    const moe_plan *plan = sound(f);
    f->policy = &moe_policy_planned;
    f->state = moe_planned_create(f, plan);
    for (int iteration = 0; iteration < 3; iteration++) {
        fixture_random_counts(f, 1, (uint64_t)iteration);
        fixture_push_counts(f);
        moe_decision decision = fixture_before(f, iteration);
        assert_true(moe_placement_equal(f->placement, plan->placement));
        assert_int_equal(decision.move_count, 0);
        assert_true(decision.planning_s == 0);
    }
    moe_gate gate = fixture_gate(f, 3, 0);
    moe_route route = fixture_dispatch(f, &gate, moe_placement_copies(f->placement, 0, 0));
    /* Expert 0 is on devices 0, 1 (a copy) and 2: sources 0 and 1 keep theirs, 3 sends to 2. */
    assert_true(route.rows[0 * EXPERTS + 0] == *fixture_count(f, 0, 0));
    assert_true(route.rows[1 * EXPERTS + 0] == *fixture_count(f, 1, 0));
    assert_true(route.rows[2 * EXPERTS + 0] == *fixture_count(f, 2, 0) + *fixture_count(f, 3, 0));
    char *text = moe_policy_planned.describe(f, f->state, &f->problem);
    program_contains(text, "made from iterations 0 to 4");
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_all),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_errors_are_limited),
        cmocka_unit_test(test_writing_and_reading_are_inverse),
        cmocka_unit_test(test_bare_plan),
        cmocka_unit_test(test_seats),
        cmocka_unit_test(test_no_difference),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_other_shapes_do_not_compare),
        cmocka_unit_test(test_planned_policy),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
