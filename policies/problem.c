#include "policies/problem.h"

#include "models/cluster_ranks.h"

#include "models/dense_cost.h"

#include <math.h>
#include <string.h>
#include <talloc.h>

/* --- history -------------------------------------------------------------------------------- */

struct moe_history {
    int layers;
    int groups;
    int experts;
    int length;
    int next;                         /* where the coming push goes */
    double *loads[MOE_HISTORY_DEPTH]; /* a ring; each [layers][groups][experts] */
};

static size_t history_size(const moe_history *history)
{
    return (size_t)history->layers * (size_t)history->groups * (size_t)history->experts;
}

moe_history *moe_history_create(void *owner, int layers, int groups, int experts)
{
    moe_history *history = talloc_zero(owner, moe_history);
    if (history == NULL)
        return NULL;
    history->layers = layers;
    history->groups = groups;
    history->experts = experts;
    /* One allocation each: talloc refuses blocks of 256 MiB, and a push must not fail. */
    for (int i = 0; i < MOE_HISTORY_DEPTH; i++) {
        history->loads[i] = talloc_array(history, double, history_size(history));
        if (history->loads[i] == NULL) {
            talloc_free(history);
            return NULL;
        }
    }
    return history;
}

void moe_history_push(moe_history *history, const double *loads)
{
    memcpy(history->loads[history->next], loads, history_size(history) * sizeof *loads);
    history->next = (history->next + 1) % MOE_HISTORY_DEPTH;
    if (history->length < MOE_HISTORY_DEPTH)
        history->length++;
}

int moe_history_length(const moe_history *history)
{
    return history->length;
}

const double *moe_history_loads(const moe_history *history, int back, int layer, int group)
{
    int slot = (history->next - back + MOE_HISTORY_DEPTH) % MOE_HISTORY_DEPTH;
    size_t row = (size_t)layer * (size_t)history->groups + (size_t)group;
    return history->loads[slot] + row * (size_t)history->experts;
}

bool moe_history_mean(const moe_history *history, int window, int layer, int group, double *mean)
{
    int length = window < history->length ? window : history->length;
    if (length <= 0)
        return false;
    memset(mean, 0, (size_t)history->experts * sizeof *mean);
    for (int back = 1; back <= length; back++) {
        const double *loads = moe_history_loads(history, back, layer, group);
        for (int e = 0; e < history->experts; e++)
            mean[e] += loads[e];
    }
    for (int e = 0; e < history->experts; e++)
        mean[e] /= length;
    return true;
}

/* --- predictions ---------------------------------------------------------------------------- */

/* Guesses are not counted among the evaluations behind an answer, and workers that replay a policy
 * must not count them twice: they get counters of their own, which nobody reads. */
static moe_costs uncounted(const moe_problem *problem, moe_curve_usage *usage)
{
    moe_costs costs = *problem->costs;
    costs.usage = usage;
    return costs;
}

static double exchange_s(const moe_problem *problem, moe_arena *arena, const moe_costs *costs,
                         const double *bytes, bool transposed)
{
    const moe_traffic *traffic = problem->options.low_latency
                                     ? moe_traffic_low_latency(arena, costs, bytes, transposed)
                                     : moe_traffic_all_to_all(arena, costs, bytes, transposed);
    return traffic == NULL ? 0 : moe_traffic_alone_s(traffic, problem->cluster);
}

static double exchanges_s(const moe_problem *problem, moe_arena *arena, const moe_costs *costs,
                          const double *pairs)
{
    size_t count = (size_t)problem->layout.devices * (size_t)problem->layout.devices;
    double token_bytes = moe_network_token_bytes(problem->network);
    double *bytes = moe_arena_array(arena, double, count);
    for (size_t i = 0; i < count; i++)
        bytes[i] = pairs[i] * token_bytes;
    double there_s = exchange_s(problem, arena, costs, bytes, false);
    double back_s = exchange_s(problem, arena, costs, bytes, true);
    int rounds = problem->options.recompute == MOE_RECOMPUTE_FULL ? 3 : 2;
    if (moe_step_serves(&problem->options))
        rounds = 1;
    return rounds * (there_s + back_s);
}

static double slowest_s(const moe_problem *problem, const moe_costs *costs, const double *rows,
                        moe_phase phase)
{
    moe_expert_shape shape = moe_step_expert_shape(problem->network, phase);
    int experts = (int)problem->network->experts;
    double most_s = 0;
    for (int d = 0; d < problem->layout.devices; d++) {
        const double *own = rows + (size_t)d * (size_t)experts;
        most_s = fmax(most_s, moe_cost_experts_s(costs, &shape, own, experts));
    }
    return most_s;
}

/* Three phases, and forward once more where it is recomputed. */
static double experts_s(const moe_problem *problem, const moe_costs *costs, const double *rows)
{
    if (moe_step_serves(&problem->options))
        return slowest_s(problem, costs, rows, MOE_SERVING);
    double forward_s = slowest_s(problem, costs, rows, MOE_FORWARD);
    int times = problem->options.recompute == MOE_RECOMPUTE_NONE ? 1 : 2;
    return times * forward_s + slowest_s(problem, costs, rows, MOE_INPUT_GRADIENT) +
           slowest_s(problem, costs, rows, MOE_WEIGHT_GRADIENT);
}

double moe_problem_layer_s(const moe_problem *problem, moe_arena *arena,
                           const moe_routed_layer *routed)
{
    moe_curve_usage usage = {0};
    moe_costs costs = uncounted(problem, &usage);
    return exchanges_s(problem, arena, &costs, routed->pairs) +
           experts_s(problem, &costs, routed->rows);
}

double moe_problem_chunks_s(const moe_problem *problem, moe_arena *arena,
                            const moe_schedule *schedule, const moe_chunk *chunks, int count)
{
    moe_curve_usage usage = {0};
    moe_costs costs = uncounted(problem, &usage);
    double bytes = moe_network_expert_bytes(problem->network);
    const moe_traffic *traffic =
        moe_traffic_chunks(arena, &costs, MOE_BROADCAST, chunks, count, bytes, schedule->algorithm);
    return traffic == NULL ? 0 : moe_traffic_alone_s(traffic, problem->cluster);
}

double moe_problem_attention_s(const moe_problem *problem)
{
    moe_curve_usage usage = {0};
    moe_costs costs = uncounted(problem, &usage);
    double tokens = problem->options.tokens;
    if (moe_step_serves(&problem->options))
        return moe_step_serving_attention_s(&costs, problem->network, &problem->options,
                                            problem->network->layers - 1);
    if (moe_dense_is_itemised(&costs))
        return moe_dense_attention_mean(&costs, problem->network, tokens).forward_s;
    return moe_cost_dense_s(&costs, moe_network_dense_flop(problem->network, tokens),
                            moe_network_dense_memory_bytes(problem->network, tokens), tokens);
}

static bool spans_hosts(const moe_problem *problem)
{
    const moe_layout *layout = &problem->layout;
    for (int rank = 0; rank < layout->devices; rank++) {
        int first = moe_layout_group(layout, rank) * layout->ep;
        if (moe_cluster_host(problem->cluster, rank) != moe_cluster_host(problem->cluster, first))
            return true;
    }
    return false;
}

double moe_problem_line_rate(const moe_problem *problem, bool of_host)
{
    const moe_cluster_spec *spec = problem->cluster->spec;
    double devices = (double)problem->cluster->devices_per_host;
    if (!spans_hosts(problem))
        return spec->intra.bandwidth_bytes_per_s;
    bool shared = spec->nic.sharing == MOE_NIC_PER_HOST;
    double host = spec->nic.bandwidth_bytes_per_s * (shared ? 1 : devices);
    return of_host ? host : host / devices;
}
