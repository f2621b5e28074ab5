#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the headers above first. */
#include "configs/base/arena.h"
#include "configs/base/random.h"
#include "configs/base/status.h"
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <talloc.h>
#include <unistd.h>

static void memory_is_zeroed_aligned_and_disjoint(void **state)
{
    (void)state;
    enum { PIECES = 2000 };
    static unsigned char *pieces[PIECES];
    static size_t sizes[PIECES];
    gsl_rng *random = moe_random_create(11, "test arena", 0);
    moe_arena *arena = moe_arena_create(NULL);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < PIECES; i++) {
            sizes[i] = gsl_rng_uniform_int(random, 3000);
            pieces[i] = moe_arena_alloc(arena, 1, sizes[i]);
            assert_int_equal((uintptr_t)pieces[i] % 64, 0);
            for (size_t j = 0; j < sizes[i]; j++) {
                assert_int_equal(pieces[i][j], 0);
            }
            memset(pieces[i], i % 255 + 1, sizes[i]);
        }
        for (int i = 0; i < PIECES; i++) {
            assert_true(sizes[i] == 0 || pieces[i][0] == i % 255 + 1);
            assert_true(sizes[i] == 0 || pieces[i][sizes[i] - 1] == i % 255 + 1);
        }
        moe_arena_reset(arena);
    }
    assert_true(moe_arena_peak_bytes(arena) > PIECES * 1000);
    talloc_free(arena);
    gsl_rng_free(random);
}

/* After the first step the same memory serves every step. */
static void a_loop_stops_allocating(void **state)
{
    (void)state;
    moe_arena *arena = moe_arena_create(NULL);
    const double *first = NULL;
    for (int step = 0; step < 10; step++) {
        const double *values = moe_arena_array(arena, double, 100);
        moe_arena_array(arena, char, 5000000);
        first = step == 1 ? values : first;
        assert_true(step < 1 || values == first);
        moe_arena_reset(arena);
    }
    assert_int_equal(moe_arena_peak_bytes(arena), 832 + 5000000);
    talloc_free(arena);
}

static void empty_pieces_are_pieces(void **state)
{
    (void)state;
    moe_arena *arena = moe_arena_create(NULL);
    moe_arena_reset(arena);
    assert_int_equal(moe_arena_peak_bytes(arena), 0);
    const void *a = moe_arena_alloc(arena, 0, 8), *b = moe_arena_alloc(arena, 8, 0);
    assert_non_null(a);
    assert_ptr_not_equal(a, b);
    talloc_free(arena);
}

static void overflow_ends_the_program(void **state)
{
    (void)state;
    static moe_arena *volatile arena; /* reachable at exit: no leak to report */
    const pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) {
            _exit(1);
        }
        arena = moe_arena_create(NULL);
        moe_arena_alloc(arena, SIZE_MAX / 2, 4);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), MOE_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_aligned_and_disjoint),
        cmocka_unit_test(a_loop_stops_allocating),
        cmocka_unit_test(empty_pieces_are_pieces),
        cmocka_unit_test(overflow_ends_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
