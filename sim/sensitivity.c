#include "sim/sensitivity.h"

#include "configs/base/memory.h"
#include "sim/workers.h"

#include <math.h>
#include <stdio.h>
#include <talloc.h>
#include <unistd.h>

typedef struct sampling {
    const moe_binding *binding;
    const moe_run_options *options;
    const int *chosen;
    moe_sensitivity *result;
    int64_t first;                        /* iteration of the run's first step */
    int64_t steps[MOE_SENSITIVITY_STEPS]; /* iterations */
    moe_step_result *results;             /* [policies][rules][steps], shared with workers */
    moe_diag *diag;
    char text[160];
} sampling;

/* In the middle of equal parts of the run. */
static int choose_steps(int64_t first, int64_t iterations, int64_t steps[])
{
    const int count = iterations < MOE_SENSITIVITY_STEPS ? (int)iterations : MOE_SENSITIVITY_STEPS;
    for (int i = 0; i < count; i++)
        steps[i] = first + (2 * i + 1) * iterations / (2 * count);
    return count;
}

static void choose_rules(moe_sharing_rule own, moe_sensitivity *result)
{
    if (own != MOE_SHARE_PER_COLLECTIVE)
        result->rules[result->rule_count++] = MOE_SHARE_PER_COLLECTIVE;
    if (own != MOE_SHARE_PER_FLOW)
        result->rules[result->rule_count++] = MOE_SHARE_PER_FLOW;
}

static moe_status sample_job(void *context, int job)
{
    sampling *all = context;
    const moe_sensitivity *result = all->result;
    moe_sharing sharing = moe_binding_sharing(all->binding);
    sharing.rule = result->rules[job % result->rule_count];
    return moe_run_sample(all->binding, all->chosen[job / result->rule_count], all->steps,
                          result->steps, &sharing, all->options,
                          all->results + (ptrdiff_t)job * result->steps, all->diag);
}

static const char *describe_job(void *context, int job)
{
    sampling *all = context;
    const moe_policy_use *uses = all->binding->scenario->policies.items;
    snprintf(all->text, sizeof all->text, "policy %s, sampled steps with port_sharing %s",
             uses[all->chosen[job / all->result->rule_count]].name,
             moe_sharing_names[all->result->rules[job % all->result->rule_count]]);
    return all->text;
}

static void compare(const sampling *all, const moe_run *run)
{
    moe_sensitivity *result = all->result;
    for (int job = 0; job < result->policy_count * result->rule_count; job++) {
        const moe_step_result *series = run->policies[job / result->rule_count].result.series;
        double own_s = 0, other_s = 0;
        for (int i = 0; i < result->steps; i++) {
            own_s += series[all->steps[i] - all->first].step_s;
            other_s += all->results[job * result->steps + i].step_s;
        }
        result->difference[job] = own_s > 0 ? other_s / own_s - 1 : 0;
    }
}

static int parallel_jobs(const moe_run_options *options, int jobs)
{
    const long processors = options->jobs > 0 ? options->jobs : sysconf(_SC_NPROCESSORS_ONLN);
    return processors < 1 ? 1 : processors < jobs ? (int)processors : jobs;
}

static moe_status run_jobs(sampling *all, int jobs)
{
    all->results = moe_workers_shared(all->result, (size_t)jobs * (size_t)all->result->steps *
                                                       sizeof *all->results);
    if (all->results == NULL) {
        moe_diag_error(all->diag, (moe_where){0}, "no memory for the results of %d steps",
                       jobs * all->result->steps);
        return MOE_INTERNAL;
    }
    const moe_workers_plan plan = {.job_count = jobs,
                                   .parallel = parallel_jobs(all->options, jobs),
                                   .job = sample_job,
                                   .describe = describe_job,
                                   .context = all};
    return moe_workers_run(&plan, all->diag);
}

moe_sensitivity *moe_sharing_sensitivity(void *owner, const moe_binding *binding,
                                         const moe_run *run, const int *chosen, int count,
                                         const moe_run_options *options, moe_status *status,
                                         moe_diag *diag)
{
    moe_run_options quiet = *options;
    quiet.observe = NULL;
    *status = MOE_OK;
    if (binding->engine == &moe_engine_analytic || run->iterations == 0)
        return NULL;
    moe_sensitivity *result = moe_need(talloc_zero(owner, moe_sensitivity));
    sampling all = {binding, &quiet, chosen, result, options->first, {0}, NULL, diag, ""};
    result->policy_count = count;
    result->steps = choose_steps(options->first, run->iterations, all.steps);
    choose_rules(moe_binding_sharing(binding).rule, result);
    const int jobs = count * result->rule_count;
    result->difference = moe_need(talloc_zero_array(result, double, (unsigned)jobs));
    *status = run_jobs(&all, jobs);
    if (*status != MOE_OK) {
        talloc_free(result);
        return NULL;
    }
    compare(&all, run);
    return result;
}

double moe_sensitivity_most(const moe_sensitivity *sensitivity)
{
    double most = 0;
    for (int i = 0; i < sensitivity->policy_count * sensitivity->rule_count; i++)
        if (fabs(sensitivity->difference[i]) > fabs(most))
            most = sensitivity->difference[i];
    return most;
}
