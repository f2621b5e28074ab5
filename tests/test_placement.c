/* Placements: the even one, copies of one, and a checker that finds each kind of damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <talloc.h>

#include "models/placement.h"

static const moe_layout two_groups = {.devices = 6, .ep = 3, .groups = 2};

static moe_placement *even(int experts)
{
    moe_placement *placement = moe_placement_create(NULL, &two_groups, 2, experts);
    moe_placement_even(placement, &two_groups);
    return placement;
}

static void assert_violation(const moe_placement *placement, int slots, const char *part)
{
    const char *wrong = moe_placement_check(placement, &two_groups, slots);
    if (wrong == NULL || strstr(wrong, part) == NULL) {
        fail_msg("expected \"%s\", got \"%s\"", part, wrong == NULL ? "nothing" : wrong);
    }
}

static void test_new_placement_has_no_owners(void **state)
{
    (void)state;
    moe_placement *placement = moe_placement_create(NULL, &two_groups, 2, 4);
    assert_int_equal(*moe_placement_owner(placement, 1, 1, 3), -1);
    assert_int_equal(moe_set_count(placement->copies, 2 * 4), 0);
    assert_violation(placement, 0, "layer 0, expert 0 has no owner in group 0");
    talloc_free(placement);
}

/* Seven experts on three devices: floor(e * 3 / 7). */
static void test_even_blocks(void **state)
{
    (void)state;
    static const int position[] = {0, 0, 0, 1, 1, 2, 2};
    moe_placement *placement = even(7);
    for (int layer = 0; layer < 2; layer++) {
        for (int expert = 0; expert < 7; expert++) {
            const uint64_t *copies = moe_placement_copies(placement, layer, expert);
            for (int group = 0; group < 2; group++) {
                int owner = *moe_placement_owner(placement, layer, group, expert);
                assert_int_equal(owner, 3 * group + position[expert]);
                assert_true(moe_set_has(copies, owner));
            }
            assert_int_equal(moe_set_count(copies, placement->words), 2);
        }
    }
    assert_null(moe_placement_check(placement, &two_groups, 0));
    talloc_free(placement);
}

static void test_copies_are_forgotten(void **state)
{
    (void)state;
    moe_placement *placement = even(4);
    moe_placement *other = even(4);
    moe_set_add(moe_placement_copies(placement, 1, 2), 5);
    assert_false(moe_placement_equal(placement, other));
    *moe_placement_owner(placement, 0, 1, 0) = 5;
    moe_placement_copy(other, placement);
    assert_true(moe_placement_equal(placement, other));
    assert_int_equal(*moe_placement_owner(other, 0, 1, 0), 5);
    moe_placement_reset_copies(placement);
    assert_false(moe_placement_equal(placement, other));
    assert_false(moe_set_has(moe_placement_copies(placement, 1, 2), 5));
    assert_true(moe_set_has(moe_placement_copies(other, 1, 2), 5));
    *moe_placement_owner(other, 1, 1, 2) = 3;
    moe_placement_reset_copies(other);
    assert_false(moe_placement_equal(placement, other));
    talloc_free(other);
    talloc_free(placement);
}

static void test_check_finds_owners_out_of_place(void **state)
{
    (void)state;
    moe_placement *placement = even(4);
    int *owner = moe_placement_owner(placement, 1, 0, 2);
    int was = *owner;
    *owner = 6;
    assert_violation(placement, 0, "layer 1, expert 2 has no owner in group 0 (6)");
    *owner = 4;
    assert_violation(placement, 0, "the owner of group 0 is device 4 of group 1");
    *owner = was;
    *moe_placement_copies(placement, 1, 2) &= ~((uint64_t)1 << was);
    assert_violation(placement, 0, "is not among the copies");
    talloc_free(placement);
}

static void test_check_finds_devices_outside(void **state)
{
    (void)state;
    moe_placement *placement = even(4);
    moe_set_add(moe_placement_copies(placement, 0, 3), 6);
    assert_violation(placement, 0, "layer 0, expert 3 has a copy on device 6 of 6");
    moe_placement_reset_copies(placement);
    placement->devices = 7;
    assert_violation(placement, 0, "the layout has 6 in 2");
    talloc_free(placement);
}

/* Two layers of four experts on three devices: device 0 of each group owns 2 + 2. */
static void test_check_counts_slots(void **state)
{
    (void)state;
    moe_placement *placement = even(4);
    assert_null(moe_placement_check(placement, &two_groups, 4));
    assert_violation(placement, 3, "device 0 owns 4 experts, its slots are 3");
    talloc_free(placement);
}

static void test_check_wants_whole_groups(void **state)
{
    (void)state;
    const moe_layout torn = {.devices = 6, .ep = 4, .groups = 2};
    moe_placement *placement = even(4);
    assert_non_null(strstr(moe_placement_check(placement, &torn, 0), "is not 2 groups of 4"));
    talloc_free(placement);
}

static void test_sets_span_words(void **state)
{
    (void)state;
    const moe_layout wide = {.devices = 130, .ep = 130, .groups = 1};
    moe_placement *placement = moe_placement_create(NULL, &wide, 1, 260);
    moe_placement_even(placement, &wide);
    assert_int_equal(placement->words, 3);
    assert_int_equal(*moe_placement_owner(placement, 0, 0, 259), 129);
    uint64_t *copies = moe_placement_copies(placement, 0, 259);
    assert_int_equal(copies[2], 2);
    moe_set_add(copies, 63);
    moe_set_add(copies, 64);
    assert_int_equal(moe_set_count(copies, 3), 3);
    assert_null(moe_placement_check(placement, &wide, 2));
    moe_set_add(copies, 130);
    assert_non_null(moe_placement_check(placement, &wide, 0));
    talloc_free(placement);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_placement_has_no_owners),
        cmocka_unit_test(test_even_blocks),
        cmocka_unit_test(test_copies_are_forgotten),
        cmocka_unit_test(test_check_finds_owners_out_of_place),
        cmocka_unit_test(test_check_finds_devices_outside),
        cmocka_unit_test(test_check_counts_slots),
        cmocka_unit_test(test_check_wants_whole_groups),
        cmocka_unit_test(test_sets_span_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
