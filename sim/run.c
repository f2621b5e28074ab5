#include "sim/run.h"

#include "configs/base/arena.h"
#include "policies/bound.h"
#include "policies/once.h"
#include "policies/placement/planned.h"
#include "sim/advice.h"
#include "sim/hardware.h"
#include "sim/workers.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <unistd.h>

/* --- one policy in one process ------------------------------------------------------------------
 */

typedef struct runner {
    const moe_binding *binding;
    const moe_policy *policy;
    void *state;
    void *engine_state;
    moe_hardware *hardware; /* NULL: no stragglers */
    moe_schedule schedule;
    moe_placement *placement;
    moe_history *history;
    moe_arena *arena; /* of one iteration */
    moe_timeline *timeline;
    moe_costs costs;
    moe_problem problem;
    moe_diag *diag;
    const moe_run_options *options;
    int policy_index;
    uint32_t *counts;       /* [micro_batches][layers][sources][experts] of the iteration */
    uint32_t *tokens;       /* [micro_batches][layers][sources] */
    double *loads;          /* [layers][groups][experts] */
    moe_distinct *distinct; /* NULL: every assignment is sent */
} runner;

static const moe_routing_target *target_of(const runner *run)
{
    return moe_routing_get_target(run->binding->routing);
}

static size_t dispatch_index(const runner *run, int micro_batch, int layer)
{
    return (size_t)micro_batch * (size_t)target_of(run)->layers + (size_t)layer;
}

static uint32_t *counts_of(const runner *run, int micro_batch, int layer)
{
    const moe_routing_target *target = target_of(run);
    return run->counts + dispatch_index(run, micro_batch, layer) * (size_t)target->sources *
                             (size_t)target->experts;
}

static uint32_t *tokens_of(const runner *run, int micro_batch, int layer)
{
    return run->tokens + dispatch_index(run, micro_batch, layer) * (size_t)target_of(run)->sources;
}

static const moe_policy *policy_of(const moe_policy_use *use)
{
    return moe_policy_find(use->policy != NULL ? use->policy : use->name);
}

static moe_distinct *create_estimator(runner *run)
{
    const moe_scenario *scenario = run->binding->scenario;
    if (scenario->dispatch.once_per == MOE_ONCE_PER_ASSIGNMENT)
        return NULL;
    const bool varies = moe_trace_get_info(run->binding->trace)->top_k == 0;
    return moe_once_estimator(run, &scenario->model, varies);
}

static runner *runner_create(void *owner, const moe_binding *binding, int policy,
                             const moe_run_options *options, moe_curve_usage *usage, moe_diag *diag)
{
    const moe_policy_use *use = (const moe_policy_use *)binding->scenario->policies.items + policy;
    const moe_routing_target *target = moe_routing_get_target(binding->routing);
    runner *run = talloc_zero(owner, runner);
    size_t dispatches = (size_t)target->micro_batches * (size_t)target->layers;

    run->binding = binding;
    run->policy = policy_of(use);
    run->diag = diag;
    run->options = options;
    run->policy_index = policy;
    run->costs = (moe_costs){&binding->scenario->profile, binding->cluster, usage};
    run->problem = moe_binding_problem(binding, &run->costs);
    run->placement = moe_placement_create(run, &binding->layout, target->layers, target->experts);
    run->history = moe_history_create(run, target->layers, binding->layout.groups, target->experts);
    run->arena = moe_arena_create(run);
    run->timeline = moe_timeline_create(run, binding->cluster->devices);
    run->hardware = moe_hardware_create(run, binding, diag);
    run->counts =
        talloc_array(run, uint32_t, dispatches * (size_t)target->sources * (size_t)target->experts);
    run->tokens = talloc_array(run, uint32_t, dispatches * (size_t)target->sources);
    run->loads = talloc_array(
        run, double,
        (size_t)target->layers *(size_t)binding->layout.groups *(size_t)target->experts);
    run->distinct = create_estimator(run);
    run->state = run->policy->create(run, &run->problem, use->tunables, &run->schedule,
                                     run->placement, binding->config, diag);
    if (run->state != NULL && binding->plans[policy] != NULL) {
        run->policy = &moe_policy_planned;
        run->state = moe_planned_create(run, binding->plans[policy]);
    }
    return run;
}

/* --- counts and history -------------------------------------------------------------------------
 */

static void read_counts(runner *run, moe_routing *routing, int64_t iteration)
{
    const moe_routing_target *target = target_of(run);
    for (int m = 0; m < target->micro_batches; m++)
        for (int l = 0; l < target->layers; l++)
            moe_routing_read(routing, iteration, m, l, counts_of(run, m, l), tokens_of(run, m, l));
}

static void add_loads(const runner *run, int micro_batch, int layer)
{
    const moe_routing_target *target = target_of(run);
    const moe_layout *layout = &run->binding->layout;
    const uint32_t *counts = counts_of(run, micro_batch, layer);
    for (int s = 0; s < target->sources; s++) {
        double *loads = run->loads + ((size_t)layer * (size_t)layout->groups +
                                      (size_t)moe_layout_group(layout, s)) *
                                         (size_t)target->experts;
        for (int e = 0; e < target->experts; e++)
            loads[e] += counts[(size_t)s * (size_t)target->experts + (size_t)e];
    }
}

/* What has just been dispatched becomes the past. */
static void push_history(runner *run)
{
    const moe_routing_target *target = target_of(run);
    memset(run->loads, 0, talloc_get_size(run->loads));
    for (int m = 0; m < target->micro_batches; m++)
        for (int l = 0; l < target->layers; l++)
            add_loads(run, m, l);
    moe_history_push(run->history, run->loads);
}

static void warm_up(runner *run)
{
    moe_routing *warmup = run->binding->warmup;
    if (warmup == NULL)
        return;
    for (int64_t i = 0; i < moe_routing_iterations(warmup); i++) {
        read_counts(run, warmup, i);
        push_history(run);
    }
}

/* --- routing one step ---------------------------------------------------------------------------
 */

static moe_decision decide(runner *run, int64_t iteration)
{
    moe_decision decision = {.placement = run->placement, .arena = run->arena};
    run->policy->before_iteration(run->state, &run->problem, iteration, run->history, &decision);
    return decision;
}

/* The layer's usable copies: what the policy materialized, and what it added after the gate. */
static uint64_t *copies_after_gate(runner *run, const moe_gate *gate, moe_routed_layer *routed)
{
    const moe_placement *placement = run->placement;
    const uint64_t *before = moe_placement_copies(placement, gate->layer, 0);
    size_t words = (size_t)placement->experts * (size_t)placement->words;
    uint64_t *copies = moe_arena_array(run->arena, uint64_t, words);

    if (run->policy->after_gate != NULL)
        run->policy->after_gate(run->state, &run->problem, gate, placement, run->arena, copies,
                                &routed->planning_s);
    for (size_t w = 0; w < words; w++)
        copies[w] |= before[w];
    if (!run->schedule.persistent_copies)
        routed->materialized_count =
            moe_layer_chunks(run->arena, &run->binding->layout, placement, gate->layer, before,
                             NULL, &routed->materialized);
    routed->calibrated_count = moe_layer_chunks(run->arena, &run->binding->layout, placement,
                                                gate->layer, copies, before, &routed->calibrated);
    return copies;
}

static void count_once(runner *run, const moe_gate *gate, const moe_route *route,
                       moe_routed_layer *routed)
{
    const moe_once once_per = (moe_once)run->binding->scenario->dispatch.once_per;
    const moe_once_tokens once =
        moe_once_count(run->arena, &run->problem, run->distinct, gate,
                       tokens_of(run, gate->micro_batch, gate->layer), route, once_per);
    routed->tokens = once.devices;
    routed->host_tokens = once.hosts;
}

static moe_routed_layer route_layer(runner *run, int64_t iteration, int micro_batch, int layer)
{
    const moe_routing_target *target = target_of(run);
    size_t devices = (size_t)run->binding->cluster->devices;
    moe_gate gate = {iteration, micro_batch, layer, counts_of(run, micro_batch, layer)};
    moe_routed_layer routed = {0};
    moe_route route = {
        .devices = (int)devices,
        .experts = target->experts,
        .pairs = moe_arena_array(run->arena, double, devices *devices),
        .rows = moe_arena_array(run->arena, double, devices *(size_t)target->experts),
    };
    const uint64_t *copies = copies_after_gate(run, &gate, &routed);
    moe_route_parts parts = {.arena = run->arena};
    route.parts = run->distinct != NULL ? &parts : NULL;
    run->policy->dispatch(run->state, &run->problem, &gate, run->placement, copies, &route);
    routed.pairs = route.pairs;
    routed.rows = route.rows;
    if (run->distinct != NULL)
        count_once(run, &gate, &route, &routed);
    return routed;
}

static moe_step route_step(runner *run, int64_t iteration)
{
    const moe_routing_target *target = target_of(run);
    moe_decision decision = decide(run, iteration);
    moe_routed_layer *routed = moe_arena_array(
        run->arena, moe_routed_layer, (size_t)target->micro_batches * (size_t)target->layers);
    for (int m = 0; m < target->micro_batches; m++)
        for (int l = 0; l < target->layers; l++)
            routed[dispatch_index(run, m, l)] = route_layer(run, iteration, m, l);
    return (moe_step){.routed = routed,
                      .moves = decision.moves,
                      .move_count = decision.move_count,
                      .planning_s = decision.planning_s};
}

/* --- laws ---------------------------------------------------------------------------------------
 */

/* Law 1: what a source dispatches of an expert is what devices compute of it, and pairs add up to
 * it. */
static const char *check_dispatch(const runner *run, const moe_routed_layer *routed,
                                  const uint32_t *counts)
{
    const moe_routing_target *target = target_of(run);
    int devices = run->binding->cluster->devices;
    for (int e = 0; e < target->experts; e++) {
        double dispatched = 0, processed = 0;
        for (int d = 0; d < devices; d++) {
            dispatched += counts[(size_t)d * (size_t)target->experts + (size_t)e];
            processed += routed->rows[(size_t)d * (size_t)target->experts + (size_t)e];
        }
        if (dispatched != processed)
            return "law 1: rows computed differ from assignments dispatched";
    }
    for (int s = 0; s < devices; s++) {
        double sent = 0, expected = 0;
        for (int d = 0; d < devices; d++)
            sent += routed->pairs[(size_t)s * (size_t)devices + (size_t)d];
        for (int e = 0; e < target->experts; e++)
            expected += counts[(size_t)s * (size_t)target->experts + (size_t)e];
        if (sent != expected)
            return "law 1: assignments sent differ from the trace's counts";
    }
    if (routed->tokens != NULL)
        return moe_once_check(&run->problem, routed->pairs, routed->tokens, routed->host_tokens);
    return NULL;
}

static const char *check_step(const runner *run, const moe_step *step, const moe_program *program)
{
    const moe_routing_target *target = target_of(run);
    const char *broken = moe_program_check(program);
    if (broken == NULL)
        broken = moe_placement_check(run->placement, &run->binding->layout, 0);
    for (int m = 0; m < target->micro_batches && broken == NULL; m++)
        for (int l = 0; l < target->layers && broken == NULL; l++)
            broken =
                check_dispatch(run, &step->routed[dispatch_index(run, m, l)], counts_of(run, m, l));
    if (broken == NULL)
        broken = moe_timeline_check(program, run->timeline, 1e-9);
    return broken;
}

/* --- what a step amounts to ---------------------------------------------------------------------
 */

static double max_over_mean(const double *values, int count)
{
    double sum = 0, most = 0;
    for (int i = 0; i < count; i++) {
        sum += values[i];
        most = fmax(most, values[i]);
    }
    return sum > 0 ? most * count / sum : 1;
}

static double expert_imbalance(const runner *run, int micro_batch, int layer)
{
    const moe_routing_target *target = target_of(run);
    const uint32_t *counts = counts_of(run, micro_batch, layer);
    double *sums = moe_arena_array(run->arena, double, (size_t)target->experts);
    for (int s = 0; s < target->sources; s++)
        for (int e = 0; e < target->experts; e++)
            sums[e] += counts[(size_t)s * (size_t)target->experts + (size_t)e];
    return max_over_mean(sums, target->experts);
}

static double device_imbalance(const runner *run, const moe_routed_layer *routed)
{
    int devices = run->binding->cluster->devices, experts = target_of(run)->experts;
    double *sums = moe_arena_array(run->arena, double, (size_t)devices);
    for (int d = 0; d < devices; d++)
        for (int e = 0; e < experts; e++)
            sums[d] += routed->rows[(size_t)d * (size_t)experts + (size_t)e];
    return max_over_mean(sums, devices);
}

/* What crosses between devices, or, once per host, between hosts: assignments, and tokens sent for
 * them. */
static void sum_once(const runner *run, const moe_routed_layer *routed, moe_step_result *result)
{
    const moe_cluster *cluster = run->binding->cluster;
    const bool by_host = routed->host_tokens != NULL;
    const int places = by_host ? cluster->hosts : cluster->devices;
    const double *tokens = by_host ? routed->host_tokens : routed->tokens;
    for (int s = 0; s < cluster->devices; s++) {
        const double *pairs = routed->pairs + (size_t)s * (size_t)cluster->devices;
        const int own = by_host ? moe_cluster_host(cluster, s) : s;
        for (int d = 0; d < cluster->devices; d++)
            if ((by_host ? moe_cluster_host(cluster, d) : d) != own)
                result->crossing_assignments += pairs[d];
        const double *sent = tokens + (size_t)s * (size_t)places;
        for (int p = 0; p < places; p++)
            result->crossing_tokens += p != own ? sent[p] : 0;
    }
}

static void sum_routing(const runner *run, const moe_step *step, moe_step_result *result)
{
    const moe_routing_target *target = target_of(run);
    int dispatches = target->micro_batches * target->layers;
    size_t devices = (size_t)run->binding->cluster->devices;
    double all = 0, local = 0;
    for (int i = 0; i < dispatches; i++) {
        const moe_routed_layer *routed = &step->routed[i];
        result->expert_imbalance +=
            expert_imbalance(run, i / target->layers, i % target->layers) / dispatches;
        result->device_imbalance += device_imbalance(run, routed) / dispatches;
        result->calibrations += routed->calibrated_count > 0;
        for (size_t p = 0; p < devices * devices; p++)
            all += routed->pairs[p];
        for (size_t d = 0; d < devices; d++)
            local += routed->pairs[d * devices + d];
        if (routed->tokens != NULL)
            sum_once(run, routed, result);
    }
    result->local_share = all > 0 ? local / all : 0;
    if (run->binding->options.kind == MOE_STEP_TRAIN)
        result->bound_s = moe_bound_step_s(&run->problem, all);
    for (int m = 0; m < target->micro_batches; m++)
        for (int s = 0; s < target->sources; s++)
            result->tokens += tokens_of(run, m, 0)[s];
}

static void sum_placement(const runner *run, const moe_step *step, moe_step_result *result)
{
    const moe_placement *placement = run->placement;
    double copies = 0;
    for (int l = 0; l < placement->layers; l++)
        copies += moe_set_count(moe_placement_copies(placement, l, 0),
                                placement->experts * placement->words);
    double owners = (double)placement->layers * placement->groups * placement->experts;
    result->materialized = (copies - owners) / ((double)placement->layers * placement->devices);
    for (size_t i = 0; i < step->move_count; i++)
        result->moved_bytes += step->moves[i].bytes;
}

static void find_memory_peak(const runner *run, const moe_step *step, moe_step_result *result)
{
    const moe_binding *binding = run->binding;
    for (int d = 0; d < binding->cluster->devices; d++) {
        moe_memory memory = moe_step_memory(binding->cluster, &binding->scenario->model,
                                            &binding->layout, run->placement, &binding->options,
                                            &run->schedule, &binding->scenario->memory, step, d);
        if (memory.peak > result->memory.peak) {
            result->memory = memory;
            result->memory_device = d;
        }
    }
}

static void summarize(const runner *run, const moe_step *step, const moe_program *program,
                      moe_step_result *result)
{
    *result = (moe_step_result){.step_s = run->timeline->step_s};
    moe_timeline_exposed(program, run->timeline, result->exposed_s);
    moe_timeline_critical_path(program, run->timeline, result->critical_s);
    result->stragglers = run->hardware != NULL;
    result->hardware_wait_s = moe_hardware_wait_s(run->hardware);
    for (int o = 0; o < program->op_count; o++) {
        const moe_traffic *traffic = program->ops[o].traffic;
        if (traffic != NULL) {
            result->intra_host_bytes += traffic->intra_host_bytes;
            result->inter_host_bytes += traffic->inter_host_bytes;
        }
    }
    sum_routing(run, step, result);
    sum_placement(run, step, result);
    find_memory_peak(run, step, result);
    result->valid = 1;
}

/* --- the loop -----------------------------------------------------------------------------------
 */

static moe_status run_iteration(runner *run, int64_t iteration, moe_step_result *result)
{
    const moe_binding *binding = run->binding;
    read_counts(run, binding->routing, iteration);
    moe_step step = route_step(run, iteration);
    const moe_program *nominal =
        moe_step_build(run->arena, &run->costs, &binding->scenario->model, &binding->layout,
                       run->placement, &binding->options, &run->schedule, &step);
    const moe_program *program = moe_hardware_program(run->hardware, nominal, iteration);
    moe_status status =
        binding->engine->execute(run->engine_state, program, run->timeline, run->diag);
    if (status != MOE_OK)
        return status;
    const char *broken = run->options->check_laws ? check_step(run, &step, program) : NULL;
    if (broken != NULL) {
        moe_diag_error(run->diag, (moe_where){0}, "policy %s, step %lld, engine %s: %s",
                       run->policy->name, (long long)iteration, binding->engine->name, broken);
        return MOE_INTERNAL;
    }
    summarize(run, &step, program, result);
    if (run->options->observe != NULL)
        run->options->observe(run->options->observe_context, run->policy_index, iteration, program,
                              run->timeline);
    return MOE_OK;
}

/* What the policy would have done before this chunk: its decisions, not their cost. */
static void replay_iteration(runner *run, int64_t iteration)
{
    read_counts(run, run->binding->routing, iteration);
    decide(run, iteration);
}

static moe_status run_iterations(runner *run, int64_t first, int64_t last, moe_step_result *results)
{
    moe_status status = MOE_OK;
    warm_up(run);
    for (int64_t i = 0; i < last && status == MOE_OK; i++) {
        moe_arena_reset(run->arena);
        if (i < first)
            replay_iteration(run, i);
        else
            status = run_iteration(run, i, &results[i - first]);
        push_history(run);
    }
    return status;
}

moe_status moe_run_chunk(const moe_binding *binding, int policy, int64_t first, int64_t last,
                         const moe_run_options *options, moe_step_result *results,
                         moe_curve_usage *usage, moe_diag *diag)
{
    moe_status status = MOE_INTERNAL;
    runner *run = runner_create(NULL, binding, policy, options, usage, diag);
    const moe_sharing sharing = moe_binding_sharing(binding);
    if (run->state != NULL)
        run->engine_state = binding->engine->open(run, binding->cluster, &sharing, diag);
    if (run->engine_state != NULL) {
        status = run_iterations(run, first, last, results);
        binding->engine->close(run->engine_state);
    }
    talloc_free(run);
    return status;
}

static moe_status run_listed(runner *run, const int64_t *iterations, int count,
                             moe_step_result *results)
{
    moe_status status = MOE_OK;
    int done = 0;
    warm_up(run);
    for (int64_t i = 0; done < count && status == MOE_OK; i++) {
        moe_arena_reset(run->arena);
        if (i < iterations[done])
            replay_iteration(run, i);
        else
            status = run_iteration(run, i, &results[done++]);
        push_history(run);
    }
    return status;
}

moe_status moe_run_sample(const moe_binding *binding, int policy, const int64_t *iterations,
                          int count, const moe_sharing *sharing, const moe_run_options *options,
                          moe_step_result *results, moe_diag *diag)
{
    moe_status status = MOE_INTERNAL;
    moe_curve_usage usage = {0};
    runner *run = runner_create(NULL, binding, policy, options, &usage, diag);
    if (run->state != NULL)
        run->engine_state = binding->engine->open(run, binding->cluster, sharing, diag);
    if (run->engine_state != NULL) {
        status = run_listed(run, iterations, count, results);
        binding->engine->close(run->engine_state);
    }
    talloc_free(run);
    return status;
}

moe_placement *moe_run_decide(void *owner, const moe_binding *binding, int policy,
                              int64_t iteration, moe_diag *diag)
{
    const moe_run_options none = {0};
    moe_curve_usage usage = {0};
    moe_placement *placement = NULL;
    runner *run = runner_create(NULL, binding, policy, &none, &usage, diag);
    if (run->state != NULL) {
        run_iterations(run, iteration, iteration, NULL);
        moe_arena_reset(run->arena);
        decide(run, iteration);
        placement = talloc_steal(owner, run->placement);
    }
    talloc_free(run);
    return placement;
}

/* --- all policies, in workers -------------------------------------------------------------------
 */

typedef struct campaign {
    const moe_binding *binding;
    const moe_run_options *options;
    const int *chosen;
    int64_t first_iteration;
    int64_t iterations;
    int chunks;               /* of one policy */
    moe_step_result *results; /* [policies][iterations], shared with workers */
    moe_curve_usage *usages;  /* [policies][chunks], shared */
    moe_diag *diag;
    char text[160];
} campaign;

static void job_range(const campaign *all, int job, int64_t *first, int64_t *last)
{
    int64_t end = all->first_iteration + all->iterations;
    *first = all->first_iteration + (int64_t)(job % all->chunks) * MOE_CHUNK_ITERATIONS;
    *last = *first + MOE_CHUNK_ITERATIONS;
    if (*last > end)
        *last = end;
}

static moe_status campaign_job(void *context, int job)
{
    campaign *all = context;
    int64_t first, last;
    job_range(all, job, &first, &last);
    return moe_run_chunk(all->binding, all->chosen[job / all->chunks], first, last, all->options,
                         all->results + (job / all->chunks) * all->iterations + first -
                             all->first_iteration,
                         &all->usages[job], all->diag);
}

static const char *campaign_describe(void *context, int job)
{
    campaign *all = context;
    const moe_policy_use *uses = all->binding->scenario->policies.items;
    int64_t first, last;
    job_range(all, job, &first, &last);
    snprintf(all->text, sizeof all->text, "policy %s, steps %lld to %lld",
             uses[all->chosen[job / all->chunks]].name, (long long)first, (long long)last - 1);
    return all->text;
}

static void campaign_poll(void *context)
{
    const campaign *all = context;
    int64_t total = all->chunks > 0 ? all->iterations : 0, done = 0;
    int64_t policies = (int64_t)(talloc_get_size(all->chosen) / sizeof *all->chosen);
    for (int64_t i = 0; i < policies * total; i++)
        done += all->results[i].valid;
    all->options->progress(all->options->progress_context, done, policies * total);
}

/* The policy's own words, from a state made for them. */
static char *describe(void *owner, const moe_binding *binding, int policy, moe_diag *diag)
{
    moe_curve_usage usage = {0};
    moe_run_options none = {0};
    runner *run = runner_create(NULL, binding, policy, &none, &usage, diag);
    char *text = run->state != NULL && run->policy->describe != NULL
                     ? run->policy->describe(owner, run->state, &run->problem)
                     : NULL;
    talloc_free(run);
    return text;
}

static moe_run *campaign_gather(void *owner, const campaign *all, int count)
{
    const moe_policy_use *uses = all->binding->scenario->policies.items;
    moe_run *run = talloc_zero(owner, moe_run);
    run->policy_count = count;
    run->iterations = all->iterations;
    run->policies = talloc_zero_array(run, moe_run_policy, (unsigned)count);
    for (int p = 0; p < count; p++) {
        moe_run_policy *policy = &run->policies[p];
        policy->result.name = uses[all->chosen[p]].name;
        policy->result.steps = all->iterations;
        policy->result.series = talloc_memdup(run, all->results + p * all->iterations,
                                              (size_t)all->iterations * sizeof *all->results);
        policy->description = describe(run, all->binding, all->chosen[p], all->diag);
        policy->result.memory_advice = moe_memory_advice(run, all->binding, &policy->result);
        for (int c = 0; c < all->chunks; c++)
            for (int curve = 0; curve < MOE_CURVE_COUNT; curve++) {
                const moe_curve_usage *usage = &all->usages[p * all->chunks + c];
                policy->usage.evaluated[curve] += usage->evaluated[curve];
                policy->usage.outside[curve] += usage->outside[curve];
            }
    }
    return run;
}

static int worker_count(const moe_run_options *options, int jobs)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int parallel = options->jobs > 0 ? options->jobs : (processors > 0 ? (int)processors : 1);
    return parallel < jobs ? parallel : jobs;
}

moe_run *moe_run_scenario(void *owner, const moe_binding *binding, const int *chosen, int count,
                          const moe_run_options *options, moe_status *status, moe_diag *diag)
{
    void *scratch = talloc_new(NULL);
    int64_t end = options->last > 0 ? options->last : moe_routing_iterations(binding->routing);
    int64_t iterations = end - options->first;
    int chunks = (int)((iterations + MOE_CHUNK_ITERATIONS - 1) / MOE_CHUNK_ITERATIONS);
    campaign all = {
        .binding = binding,
        .options = options,
        .chosen = talloc_memdup(scratch, chosen, (size_t)count * sizeof *chosen),
        .first_iteration = options->first,
        .iterations = iterations,
        .chunks = chunks,
        .results = moe_workers_shared(scratch, (size_t)(count * iterations) * sizeof *all.results),
        .usages = moe_workers_shared(scratch, (size_t)count * (size_t)chunks * sizeof *all.usages),
        .diag = diag,
    };
    moe_run *run = NULL;
    *status = MOE_INTERNAL;
    if (all.results == NULL || all.usages == NULL) {
        moe_diag_error(diag, (moe_where){0}, "no memory for the results of %lld steps",
                       (long long)(count * iterations));
    } else {
        moe_workers_plan plan = {
            .job_count = count * chunks,
            .parallel = worker_count(options, count * chunks),
            .job = campaign_job,
            .describe = campaign_describe,
            .poll = options->progress != NULL ? campaign_poll : NULL,
            .context = &all,
        };
        *status = moe_workers_run(&plan, diag);
        if (*status == MOE_OK)
            run = campaign_gather(owner, &all, count);
    }
    talloc_free(scratch);
    return run;
}
