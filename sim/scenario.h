/* A scenario: one YAML file that names a cluster, a model, a profile, a trace and policies; and its
 * binding: everything loaded, every relation between the files verified, ready to simulate.
 *
 *     cluster: ../clusters/p4d_4x8_a100.yaml      # or an inline map
 *     model: ../models/gpt_moe_s.yaml
 *     profile: ../../calibrate/profiles/a100_40.yaml
 *     trace: {file: ../../traces/samples/x.safetensors, window: [500, 700], layers: cycle, tokens_per_source: 8192}
 *     step: train                 # or prefill, decode: see `serving`
 *     parallel: {ep: 32}
 *     batch: {micro_batches: 1}
 *     policies:
 *       - {name: ep}
 *       - {name: fssdp-rm, policy: fssdp, rematerialize: true}
 *     engine: fluid
 *     seed: 1
 */
#ifndef MOE_SIM_SCENARIO_H
#define MOE_SIM_SCENARIO_H

#include "models/cluster_ranks.h"
#include "models/plan.h"
#include "models/step.h"
#include "policies/policy.h"
#include "sim/engine.h"
#include "sim/serving.h"
#include "traces/mapping.h"

typedef struct moe_parallel {
    int64_t ep;        /* devices of an EP group; 0: all devices */
    int64_t expert_dp; /* EP groups; 0: as many as there are devices for */
    int64_t dp; /* source ranks; 0: as many as devices (the only number there is without TP or PP) */
    int order;  /* moe_rank_order */
    moe_reals ranks; /* the device of every rank; none: `order` says */
} moe_parallel;

typedef struct moe_batch {
    int64_t micro_batches;
    int recompute; /* moe_recompute */
    int optimizer; /* moe_optimizer_sharding */
} moe_batch;

typedef struct moe_dispatch_rule {
    int once_per; /* moe_once */
} moe_dispatch_rule;

typedef struct moe_policy_use {
    const char *name;   /* how results call it */
    const char *policy; /* NULL: the policy called `name` */
    const char *plan;   /* a file; its placement stands in every iteration. NULL: the policy decides */
    void *tunables;
} moe_policy_use;

/* Of a scenario's port_sharing, beside the rules: the profile's (default). */
enum { MOE_SHARE_AS_PROFILE = MOE_SHARE_WEIGHTED + 1 };

/* By kind of collective: its part of a port that it shares, where port_sharing is weighted. */
typedef struct moe_port_weights {
    double values[MOE_COLLECTIVE_KINDS];
} moe_port_weights;

typedef struct moe_scenario {
    const char *name;
    moe_cluster_spec cluster;
    moe_network model;
    moe_profile profile;
    moe_trace_use trace;
    int step; /* moe_step_kind */
    moe_serving serving;
    moe_parallel parallel;
    moe_batch batch;
    moe_dispatch_rule dispatch;
    moe_memory_options memory;
    bool interference;
    int port_sharing; /* moe_sharing_rule, or MOE_SHARE_AS_PROFILE */
    moe_port_weights port_weights;
    moe_list stragglers; /* of moe_straggler */
    moe_list policies; /* of moe_policy_use */
    const char *engine;
    int64_t seed;
} moe_scenario;

extern const moe_table moe_scenario_table;

/* A scenario with everything it names, checked. Owned by the talloc context it was created in. */
typedef struct moe_binding {
    const moe_config *config;
    const moe_scenario *scenario;
    const moe_engine *engine;
    moe_cluster *cluster;
    moe_layout layout;
    const moe_trace *trace;
    moe_routing *routing; /* the run */
    moe_routing *warmup;  /* the iterations just before the window, to fill histories; or NULL */
    moe_step_options options;
    const moe_plan **plans; /* [policies]: those that run with a plan as given; else NULL */
} moe_binding;

/* NULL after printed errors. `engine_name` overrides the scenario's (NULL: as written). */
moe_binding *moe_binding_create(void *owner, const char *path, const char *const *overrides,
                                size_t override_count, const char *engine_name, moe_diag *diag);

/* How collectives share a port, as the scenario says. */
moe_sharing moe_binding_sharing(const moe_binding *binding);

/* What decides which ranks share a host: a name of moe_rank_order_names, or "ranks" for a list. */
const char *moe_binding_order(const moe_binding *binding);

/* The problem as policies see it; `costs` must outlive it. */
moe_problem moe_binding_problem(const moe_binding *binding, const moe_costs *costs);

/* Whether each dispatch is one recorded token a source (a per-token recording, replayed as it is): then counts
 * say who was chosen together, and distinct tokens are exact. Else they are estimated (models/distinct.h). */
bool moe_binding_knows_tokens(const moe_binding *binding);

#endif
