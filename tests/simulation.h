/* What the whole-run tests share: overrides on the quickstart, and one call that simulates them. */
#ifndef MOE_TESTS_SIMULATION_H
#define MOE_TESTS_SIMULATION_H

#include "sim/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <talloc.h>

#include <cmocka.h>

#define QUICKSTART MOE_TEST_SOURCE_DIR "/configs/scenarios/quickstart.yaml"
#define SAMPLES    MOE_TEST_SOURCE_DIR "/traces/samples"

enum { MAX_OVERRIDES = 32 };

typedef struct overrides {
    const char *items[MAX_OVERRIDES];
    size_t count;
} overrides;

__attribute__((format(printf, 3, 4))) static inline void set(void *owner, overrides *all,
                                                             const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    assert_true(all->count < MAX_OVERRIDES);
    all->items[all->count++] = talloc_vasprintf(owner, format, arguments);
    va_end(arguments);
}

/* The quickstart with `all` applied, every policy, laws checked after every step. */
static inline moe_run *simulate(void *owner, const overrides *all, const char *engine, int jobs,
                                moe_binding **binding)
{
    moe_diag *diag = moe_diag_create(owner, stderr);
    *binding = moe_binding_create(owner, QUICKSTART, all->items, all->count, engine, diag);
    assert_non_null(*binding);
    int count = (int)(*binding)->scenario->policies.count;
    int *chosen = talloc_array(owner, int, (unsigned)count);
    for (int i = 0; i < count; i++)
        chosen[i] = i;
    moe_run_options options = {.jobs = jobs, .check_laws = true};
    moe_status status;
    moe_run *run = moe_run_scenario(owner, *binding, chosen, count, &options, &status, diag);
    assert_int_equal(status, MOE_OK);
    return run;
}

static inline double mean_step_s(const moe_run *run, int policy)
{
    return moe_result_step_time(&run->policies[policy].result).mean;
}

#endif
