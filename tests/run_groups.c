/* The same 32 devices as four EP groups of 8: groups that fill hosts against groups that stride over
 * them. Laws are checked after every step. */
#include "tests/simulation.h"

#include <math.h>

static const moe_run *run_in_order(void *owner, const char *order, moe_binding **binding)
{
    overrides all = {0};
    set(owner, &all, "trace.window=[500, 504]");
    set(owner, &all, "parallel={ep: 8, expert_dp: 4, order: %s}", order);
    set(owner, &all, "policies=[{name: ep}, {name: fssdp}]");
    return simulate(owner, &all, "fluid", 2, binding);
}

/* Every order computes the same rows of the same experts; only where bytes travel differs, so under EP
 * the imbalance is equal, and exchanges between hosts cost more than within them. (Whole steps need not: groups
 * within hosts reduce the gradients of their experts between hosts.) */
static void test_orders_move_bytes_alone(void **state)
{
    (void)state;
    void *owner = talloc_new(NULL);
    moe_binding *binding;
    const moe_run *first = run_in_order(owner, "ep_first", &binding);
    const moe_run *last = run_in_order(owner, "ep_last", &binding);
    for (int p = 0; p < first->policy_count; p++)
        print_message(
            "%-6s step %.3f ms with groups within hosts, %.3f ms with groups over hosts\n",
            first->policies[p].result.name, 1e3 * mean_step_s(first, p),
            1e3 * mean_step_s(last, p));
    for (int64_t i = 0; i < first->iterations; i++) {
        const moe_step_result *a = &first->policies[0].result.series[i];
        const moe_step_result *b = &last->policies[0].result.series[i];
        assert_true(fabs(a->device_imbalance - b->device_imbalance) <= 1e-12);
        assert_true(a->exposed_s[MOE_DISPATCH] + a->exposed_s[MOE_COMBINE] <
                    b->exposed_s[MOE_DISPATCH] + b->exposed_s[MOE_COMBINE]);
    }
    talloc_free(owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_orders_move_bytes_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
