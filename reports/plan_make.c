#include "reports/plan_make.h"

#include "configs/base/memory.h"

#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics.h>
#include <math.h>
#include <string.h>
#include <talloc.h>

/* --- what the plan says about itself ------------------------------------------------------------ */

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

/* A value as a scenario would write it; NULL where it has none. */
static json_t *value_json(const moe_field *field, const void *value)
{
    char text[48];
    switch (field->type) {
    case MOE_FIELD_BOOL:
        return json_boolean(*(const bool *)value);
    case MOE_FIELD_INTEGER:
        return json_integer(*(const int64_t *)value);
    case MOE_FIELD_CHOICE:
        return json_string(field->choices[*(const int *)value]);
    case MOE_FIELD_TEXT:
    case MOE_FIELD_PATH:
        return json_string(*(const char *const *)value); /* NULL for NULL */
    case MOE_FIELD_REAL:
        moe_units_format(*(const double *)value, field->dimension, text);
        return json_string(text);
    default:
        return NULL;
    }
}

static json_t *tunables_json(const moe_table *table, const void *tunables)
{
    json_t *object = json_object();
    for (const moe_field *field = table->fields; field->key != NULL; field++) {
        json_t *value = value_json(field, (const char *)tunables + field->offset);
        if (value != NULL)
            json_object_set_new(object, field->key, value);
    }
    return object;
}

static const char *policy_name(const moe_policy_use *use)
{
    return use->policy != NULL ? use->policy : use->name;
}

static json_t *inputs_json(const moe_binding *binding)
{
    const moe_routing *routing = binding->routing;
    const moe_trace_info *info = moe_trace_get_info(binding->trace);
    int64_t first = moe_routing_recorded_iteration(routing, 0);
    int64_t last = moe_routing_recorded_iteration(routing, moe_routing_iterations(routing) - 1);
    json_t *trace =
        json_pack("{s:s, s:s, s:b, s:[I, I], s:o}", "file", binding->scenario->trace.file, "digest",
                  info->digest, "synthetic", (int)info->synthetic, "window", (json_int_t)first,
                  (json_int_t)last + 1, "rules", moe_routing_rules(routing));
    return json_pack("{s:s, s:I, s:o, s:o}", "program", "moeplan " MOEPLAN_VERSION, "seed",
                     (json_int_t)binding->scenario->seed, "files",
                     moe_config_digests(binding->config), "trace", trace);
}

/* Left out where every rank sits on the device of its number. */
static void take_seats(moe_plan *plan, const moe_cluster *cluster)
{
    bool moved = false;
    int *seats = moe_need(talloc_array(plan, int, (unsigned)cluster->devices));
    for (int r = 0; r < cluster->devices; r++) {
        seats[r] = cluster->places[r].device;
        moved = moved || seats[r] != r;
    }
    if (moved)
        plan->seats = seats;
    else
        talloc_free(seats);
}

static void describe(moe_plan *plan, const moe_binding *binding, int policy)
{
    const moe_scenario *scenario = binding->scenario;
    const moe_network *network = &scenario->model;
    const moe_policy_use *use = (const moe_policy_use *)scenario->policies.items + policy;
    const moe_policy *of = moe_policy_find(policy_name(use));
    double bytes = moe_network_expert_bytes(network);
    double state = moe_network_expert_parameters(network) * network->optimizer_bytes_per_parameter;
    plan->model = (moe_plan_model){or_empty(network->name),
                                   plan->placement->layers,
                                   plan->placement->experts,
                                   network->top_k,
                                   bytes,
                                   bytes + state};
    plan->cluster = (moe_plan_cluster){or_empty(scenario->cluster.name), binding->cluster->hosts,
                                       binding->cluster->devices_per_host};
    plan->layout =
        (moe_plan_layout){binding->layout.devices, binding->layout.ep, binding->layout.groups};
    take_seats(plan, binding->cluster);
    plan->policy =
        (moe_plan_policy){use->name, policy_name(use), tunables_json(of->tunables, use->tunables)};
    plan->inputs = inputs_json(binding);
}

/* --- prediction --------------------------------------------------------------------------------- */

enum { BASELINE, POLICY, PLAN, CONTESTANTS };

/* The scenario's plain EP, or else what it measures speed-ups against. */
static int find_baseline(const moe_scenario *scenario)
{
    const moe_policy_use *uses = scenario->policies.items;
    for (size_t i = 0; i < scenario->policies.count; i++)
        if (strcmp(policy_name(&uses[i]), moe_policy_ep.name) == 0 && uses[i].plan == NULL)
            return (int)i;
    return 0;
}

/* The scenario with one more policy at its end: the one that planned, bound to its plan. */
typedef struct contest {
    moe_scenario scenario;
    moe_binding binding;
} contest;

static contest *contest_create(void *owner, const moe_binding *binding, int policy,
                               const moe_plan *plan)
{
    contest *with = moe_need(talloc_zero(owner, contest));
    size_t count = binding->scenario->policies.count;
    moe_policy_use *uses = moe_need(talloc_zero_array(with, moe_policy_use, (unsigned)count + 1));
    const moe_plan **plans =
        moe_need(talloc_zero_array(with, const moe_plan *, (unsigned)count + 1));
    memcpy(uses, binding->scenario->policies.items, count * sizeof *uses);
    memcpy(plans, binding->plans, count * sizeof *plans);
    uses[count] = uses[policy];
    uses[count].policy = policy_name(&uses[policy]); /* before it loses the name that may say so */
    uses[count].name = "plan";
    plans[count] = plan;
    with->scenario = *binding->scenario;
    with->scenario.policies = (moe_list){uses, count + 1};
    with->binding = *binding;
    with->binding.scenario = &with->scenario;
    with->binding.plans = plans;
    return with;
}

static moe_plan_spread spread_of(const moe_result *baseline, const moe_result *plan)
{
    size_t steps = (size_t)plan->steps;
    double *gains = moe_need(talloc_array(NULL, double, steps));
    moe_plan_spread spread = {0};
    for (size_t i = 0; i < steps; i++) {
        gains[i] = baseline->series[i].step_s / plan->series[i].step_s;
        spread.slower_steps += gains[i] < 1;
    }
    gsl_sort(gains, 1, steps);
    spread.p5 = gsl_stats_quantile_from_sorted_data(gains, 1, steps, 0.05);
    spread.p50 = gsl_stats_quantile_from_sorted_data(gains, 1, steps, 0.5);
    spread.p95 = gsl_stats_quantile_from_sorted_data(gains, 1, steps, 0.95);
    talloc_free(gains);
    return spread;
}

static void take_results(moe_plan *plan, const moe_run *run)
{
    double mean[CONTESTANTS];
    for (int i = 0; i < CONTESTANTS; i++)
        mean[i] = moe_result_step_time(&run->policies[i].result).mean;
    plan->prediction.step_time_s = (moe_plan_times){mean[BASELINE], mean[POLICY], mean[PLAN]};
    plan->prediction.gain = mean[BASELINE] / mean[PLAN];
    plan->prediction.spread =
        spread_of(&run->policies[BASELINE].result, &run->policies[PLAN].result);
}

static moe_status predict(moe_plan *plan, const moe_binding *binding,
                          const moe_plan_request *request, int64_t split, moe_diag *diag)
{
    const moe_scenario *scenario = binding->scenario;
    int chosen[CONTESTANTS] = {find_baseline(scenario), request->policy,
                               (int)scenario->policies.count};
    moe_status status;
    moe_run_options options = request->options;
    contest *with = contest_create(NULL, binding, request->policy, plan);
    options.first = split;
    moe_run *run =
        moe_run_scenario(with, &with->binding, chosen, CONTESTANTS, &options, &status, diag);
    if (run != NULL) {
        const moe_result *result = &run->policies[PLAN].result;
        take_results(plan, run);
        if (!moe_result_fits(result)) {
            moe_diag_warning(diag, (moe_where){0}, "the plan does not fit into memory: %s",
                             or_empty(result->memory_advice));
            status = MOE_INFEASIBLE;
        }
    }
    talloc_free(with);
    return status;
}

/* --- all together -------------------------------------------------------------------------------- */

/* Where the part that the plan is made from ends; -1 after a printed error. */
static int64_t split_window(const moe_binding *binding, double fraction, moe_diag *diag)
{
    const moe_trace_use *use = &binding->scenario->trace;
    int64_t iterations = moe_routing_iterations(binding->routing);
    if (use->repeat > 1) {
        moe_diag_error(diag, moe_config_where(binding->config, &use->repeat),
                       "trace.repeat is %lld, expected 1: a plan is judged on iterations that it "
                       "was not made from",
                       (long long)use->repeat);
        return -1;
    }
    if (iterations < 2) {
        moe_diag_error(diag, moe_config_where(binding->config, &use->window),
                       "a window of one iteration, expected two or more: some to make the plan "
                       "from, and others to judge it");
        return -1;
    }
    int64_t split = (int64_t)floor((double)iterations * fraction);
    return split < 1 ? 1 : split < iterations ? split : iterations - 1;
}

static moe_plan_range recorded(const moe_binding *binding, int64_t first, int64_t last)
{
    return (moe_plan_range){moe_routing_recorded_iteration(binding->routing, first),
                            moe_routing_recorded_iteration(binding->routing, last - 1) + 1};
}

static bool decides_itself(const moe_binding *binding, int policy, moe_diag *diag)
{
    const moe_policy_use *use = (const moe_policy_use *)binding->scenario->policies.items + policy;
    if (use->plan == NULL)
        return true;
    moe_diag_error(diag, moe_config_where(binding->config, &use->plan),
                   "policy \"%s\" runs with a plan already, expected one that decides itself",
                   use->name);
    return false;
}

moe_plan *moe_plan_make(void *owner, const moe_binding *binding, const moe_plan_request *request,
                        moe_status *status, moe_diag *diag)
{
    const moe_policy_use *uses = binding->scenario->policies.items;
    int64_t iterations = moe_routing_iterations(binding->routing);
    int64_t split = split_window(binding, request->train_fraction, diag);
    *status = MOE_BAD_INPUT;
    if (split < 0 || !decides_itself(binding, request->policy, diag))
        return NULL;
    moe_plan *plan = moe_plan_create(owner);
    plan->placement = moe_run_decide(plan, binding, request->policy, split, diag);
    if (plan->placement == NULL) {
        talloc_free(plan);
        return NULL;
    }
    describe(plan, binding, request->policy);
    plan->prediction =
        (moe_plan_prediction){.made_from = recorded(binding, 0, split),
                              .evaluated_on = recorded(binding, split, iterations),
                              .engine = binding->engine->name,
                              .baseline = uses[find_baseline(binding->scenario)].name};
    *status = predict(plan, binding, request, split, diag);
    if (*status == MOE_OK || *status == MOE_INFEASIBLE)
        return plan;
    talloc_free(plan);
    return NULL;
}
