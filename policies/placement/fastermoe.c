/* FasterMoE's dynamic shadowing: hot experts are broadcast after the gate, their gradients reduced at once. */
#include "policies/policy.h"
#include "policies/ranking.h"

#include "configs/base/memory.h"
#include <math.h>
#include <talloc.h>

typedef enum fastermoe_rule { FASTERMOE_PAPER, FASTERMOE_RELEASED } fastermoe_rule;
static const char *const rule_names[] = {"paper", "released", NULL};

typedef struct fastermoe_tunables {
    int rule; /* fastermoe_rule */
    double compute_efficiency;
    double bandwidth_bytes_per_s;
    double planning_s;
} fastermoe_tunables;

/* The constants of the paper's performance model. */
typedef struct fastermoe_state {
    const fastermoe_tunables *tunables;
    double
        row_compute_s; /* of one row in all phases: 3 * FLOP / (efficiency * peak); serving: 1 phase */
    double
        row_exchange_s; /* of one row in all exchanges: 4 * token bytes / bandwidth; serving: 2 */
    double shadow_s;    /* of one shadow: broadcast, and reduction of its gradient */
    double *rows;       /* [ep] scratch */
    double *loads;      /* [experts] scratch */
} fastermoe_state;

static const moe_field fastermoe_fields[] = {
    {.key = "rule",
     .type = MOE_FIELD_CHOICE,
     .default_text = "paper",
     .choices = rule_names,
     .offset = offsetof(fastermoe_tunables, rule),
     .sentence = "What a shadow is judged by: the paper's Algorithm 1 (rows of devices once "
                 "shadowed experts are "
                 "computed where their tokens are), or the released code's (loads of experts "
                 "alone, a broadcast "
                 "and no reduction, the least loaded expert never shadowed)."},
    {.key = "compute_efficiency",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_FRACTION,
     .default_text = "0.9",
     .offset = offsetof(fastermoe_tunables, compute_efficiency),
     .low = 1e-3,
     .high = 1,
     .sentence = "Fraction of the device's peak that the policy's own model expects of GEMMs (the "
                 "paper: 90 %)."},
    {.key = "bandwidth",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BANDWIDTH,
     .default_text = "0 GB/s",
     .offset = offsetof(fastermoe_tunables, bandwidth_bytes_per_s),
     .high = 1e15,
     .sentence = "Bandwidth of a device's link in the policy's own model; 0: its part of the NICs "
                 "where a group spans "
                 "hosts, else its link within the host."},
    {.key = "planning",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "100 us",
     .offset = offsetof(fastermoe_tunables, planning_s),
     .high = 3600,
     .sentence =
         "Host time of a decision, after every gate (assumed: the paper does not state it)."},
    {.key = NULL},
};

static const moe_table fastermoe_table = {
    .noun = "policy fastermoe",
    .sentence = "Dynamic shadowing.",
    .size = sizeof(fastermoe_tunables),
    .fields = fastermoe_fields,
};

/* --- creating --------------------------------------------------------------------------------- */

static void set_constants(fastermoe_state *state, const moe_problem *problem)
{
    const moe_network *network = problem->network;
    const bool serves = moe_step_serves(&problem->options);
    double own = state->tunables->bandwidth_bytes_per_s;
    double rate = own > 0 ? own : moe_problem_line_rate(problem, false);
    double flop = moe_step_expert_shape(network, MOE_FORWARD).flop_per_row;
    double peak = problem->cluster->spec->device.peak_flop_per_s;
    double copies = state->tunables->rule == FASTERMOE_PAPER && !serves ? 2 : 1;
    state->row_compute_s = (serves ? 1 : 3) * flop / (state->tunables->compute_efficiency * peak);
    state->row_exchange_s = (serves ? 2 : 4) * moe_network_token_bytes(network) / rate;
    state->shadow_s = copies * moe_network_expert_bytes(network) / rate;
}

static void *fastermoe_create(void *owner, const moe_problem *problem, const void *tunables,
                              moe_schedule *schedule, moe_placement *initial,
                              const moe_config *config, moe_diag *diag)
{
    size_t experts = (size_t)problem->network->experts;
    if (!moe_policy_divides_experts(problem, tunables, config, diag))
        return NULL;
    fastermoe_state *state = moe_need(talloc_zero(owner, fastermoe_state));
    state->tunables = tunables;
    state->loads = moe_need(talloc_array(state, double, experts));
    state->rows = moe_need(talloc_array(state, double, (size_t)problem->layout.ep));
    set_constants(state, problem);
    *schedule = (moe_schedule){.gathers_loads = true, .waits_for_reduction = true};
    moe_placement_even(initial, &problem->layout);
    return state;
}

static void fastermoe_before_iteration(void *own, const moe_problem *problem, int64_t iteration,
                                       const moe_history *history, moe_decision *decision)
{
    (void)own;
    (void)problem;
    (void)iteration;
    (void)history;
    moe_decision_clear(decision);
}

/* --- which experts to shadow ------------------------------------------------------------------ */

/* One group of one dispatch. */
typedef struct shadowing {
    fastermoe_state *state;
    const moe_gate *gate;
    const int *owner; /* [experts] */
    int first;        /* device of the group */
    int devices;
    int experts;
    const moe_ranked *ranking; /* experts, heaviest first */
} shadowing;

static double count_of(const shadowing *s, int place, int expert)
{
    return s->gate->counts[(size_t)(s->first + place) * (size_t)s->experts + (size_t)expert];
}

static void rank_experts(shadowing *s, moe_arena *arena)
{
    fastermoe_state *state = s->state;
    for (int e = 0; e < s->experts; e++) {
        state->loads[e] = 0;
        for (int place = 0; place < s->devices; place++)
            state->loads[e] += count_of(s, place, e);
    }
    s->ranking = moe_rank_by_load(arena, state->loads, s->experts);
}

static void count_rows(shadowing *s)
{
    for (int place = 0; place < s->devices; place++)
        s->state->rows[place] = 0;
    for (int e = 0; e < s->experts; e++)
        s->state->rows[s->owner[e] - s->first] += s->state->loads[e];
}

static double most_rows(const shadowing *s)
{
    double most = 0;
    for (int place = 0; place < s->devices; place++)
        most = fmax(most, s->state->rows[place]);
    return most;
}

/* The owner keeps its own tokens; everybody else computes theirs. */
static void shadow(shadowing *s, int expert)
{
    for (int place = 0; place < s->devices; place++)
        s->state->rows[place] += count_of(s, place, expert);
    s->state->rows[s->owner[expert] - s->first] -= s->state->loads[expert];
}

/* How many of the heaviest: while each further one makes the layer faster. */
static int shadows_by_paper(shadowing *s)
{
    const fastermoe_state *state = s->state;
    count_rows(s);
    double best_s = most_rows(s) * (state->row_compute_s + state->row_exchange_s);
    int shadows = 0;
    for (; shadows < s->experts; shadows++) {
        shadow(s, s->ranking[shadows].expert);
        double next_s = most_rows(s) * state->row_compute_s + (shadows + 1) * state->shadow_s;
        if (next_s >= best_s)
            break;
        best_s = next_s;
    }
    return shadows;
}

static int shadows_by_released_code(shadowing *s)
{
    const fastermoe_state *state = s->state;
    double row_s = state->row_compute_s + state->row_exchange_s;
    double best_s = s->ranking[0].load * row_s;
    int shadows = 0;
    for (; shadows + 1 < s->experts; shadows++) {
        double next_s = s->ranking[shadows + 1].load * row_s + (shadows + 1) * state->shadow_s;
        if (next_s >= best_s)
            break;
        best_s = next_s;
    }
    return shadows;
}

static void add_copies(const shadowing *s, int shadows, int words, uint64_t *extra)
{
    for (int i = 0; i < shadows; i++) {
        int e = s->ranking[i].expert;
        for (int place = 0; place < s->devices; place++) {
            if (s->first + place != s->owner[e])
                moe_set_add(extra + (size_t)e * (size_t)words, s->first + place);
        }
    }
}

static void fastermoe_after_gate(void *own, const moe_problem *problem, const moe_gate *gate,
                                 const moe_placement *placement, moe_arena *arena, uint64_t *extra,
                                 double *planning_s)
{
    fastermoe_state *state = own;
    *planning_s += state->tunables->planning_s;
    for (int group = 0; group < placement->groups; group++) {
        shadowing s = {state,
                       gate,
                       moe_placement_owner(placement, gate->layer, group, 0),
                       group * problem->layout.ep,
                       problem->layout.ep,
                       placement->experts,
                       NULL};
        rank_experts(&s, arena);
        bool paper = state->tunables->rule == FASTERMOE_PAPER;
        add_copies(&s, paper ? shadows_by_paper(&s) : shadows_by_released_code(&s),
                   placement->words, extra);
    }
}

/* --- dispatching ------------------------------------------------------------------------------ */

/* A shadow is everywhere: its tokens stay where they are. */
static void fastermoe_dispatch(void *own, const moe_problem *problem, const moe_gate *gate,
                               const moe_placement *placement, const uint64_t *copies,
                               moe_route *route)
{
    (void)own;
    for (int source = 0; source < route->devices; source++) {
        const uint32_t *counts = gate->counts + (size_t)source * (size_t)route->experts;
        int group = moe_layout_group(&problem->layout, source);
        const int *owner = moe_placement_owner(placement, gate->layer, group, 0);
        for (int e = 0; e < route->experts; e++) {
            bool here = moe_set_has(copies + (size_t)e * (size_t)placement->words, source);
            if (counts[e] > 0)
                moe_route_add(route, source, e, here ? source : owner[e], counts[e]);
        }
    }
}

static char *fastermoe_describe(void *owner, const void *own, const moe_problem *problem)
{
    const fastermoe_state *state = own;
    (void)problem;
    return moe_need(talloc_asprintf(
        owner, "its own model: %.3g us a row computed, %.3g us a row exchanged, %.3g ms a shadow",
        state->row_compute_s * 1e6, state->row_exchange_s * 1e6, state->shadow_s * 1e3));
}

const moe_policy moe_policy_fastermoe = {
    .name = "fastermoe",
    .sentence = "FasterMoE's dynamic shadowing: after each gate the hottest experts are broadcast "
                "to all devices, "
                "where their tokens stay, as long as a model says that it pays.",
    .source =
        "FasterMoE (He et al., PPoPP 2022), section 4.1, Eq. 8 and Algorithm 1; laekov/fastmoe, "
        "fmoe/fastermoe/shadow_policy.py (Apache-2.0)",
    .notes = "Owners as under ep. After every gate, per EP group: experts by falling load are "
             "shadowed one by one while "
             "the policy's own performance model gets faster; it stops at the first that does not. "
             "Model of the paper: "
             "without shadows the fullest device's rows times (computation of three phases and "
             "four exchanges of a row); "
             "with r shadows the fullest device's rows, shadowed ones counted where their tokens "
             "are, times computation, "
             "and r times the expert's bytes broadcast and reduced. That formula has no exchange "
             "once there is a shadow, so it "
             "shadows even where nobody is hotter, which then costs more than it gains. The "
             "released rule looks at loads of experts alone.\n"
             "Charged: the decision (planning), the broadcast between gate and dispatch, the "
             "reduction of gradients before "
             "the layer's backward pass goes on; both fully exposed. Shadows are dropped after the "
             "layer's backward pass, "
             "and the optimizer stays with the owner. Smart scheduling (pipelined sub-exchanges) "
             "and the "
             "topology-aware gate, which changes the routing, are not modelled.\n",
    .tunables = &fastermoe_table,
    .create = fastermoe_create,
    .before_iteration = fastermoe_before_iteration,
    .after_gate = fastermoe_after_gate,
    .dispatch = fastermoe_dispatch,
    .describe = fastermoe_describe,
};
