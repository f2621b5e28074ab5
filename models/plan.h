/* A plan: a placement that somebody decided on, and what is known about it, as a file.
 *
 * The file is one JSON object, format "moeplan-plan", version 1. It is this program's own; files that
 * a runtime reads are written from it. Keys marked (optional) may be absent in a plan that another program
 * wrote; any other key is an error, so that a misspelt one does not pass for absent.
 *
 *   format, version    "moeplan-plan", 1
 *   model              {name, layers, experts, top_k, expert_bytes, shard_bytes}: MoE layers, experts of
 *                      a layer; one expert's parameters, and those with their optimizer state (what moves
 *                      when an expert changes its owner)
 *   cluster            {name, hosts, devices_per_host}; device d sits in host d / devices_per_host
 *   layout             {devices, ep, groups}: `ep` consecutive ranks form an EP group
 *   seats (optional)   [rank]: the device that the rank sits on; absent: rank r sits on device r. All
 *                      numbers below are ranks
 *   policy (optional)  {name, policy, tunables}: who decided; tunables as a scenario would set them
 *   layers             [{owners, copies}], one object for each layer
 *     owners             [group][expert]: the rank that keeps the expert's parameters and optimizer
 *                        state in that group; a rank of that group
 *     copies             [expert]: ascending ranks that hold a usable copy beside the owners: the
 *                        materialization set. A copy serves the sources of its own group
 *   inputs (optional)  an object: digests of files, trace, window, seed, program: provenance, not read
 *   prediction (optional)
 *     made_from          [first, last): recorded iterations that the plan was made from
 *     evaluated_on       [first, last): recorded iterations that it was NOT made from, and on which all
 *                        that follows was simulated
 *     engine, baseline   names; the baseline is the plan's rival, plain EP where the scenario has it
 *     step_time_s        {baseline, policy, plan}: means; `policy` decides anew in every iteration, `plan`
 *                        is this placement, fixed
 *     gain               step_time_s.baseline / step_time_s.plan
 *     spread             {p5, p50, p95} of the gain over single iterations, and in how many of them the
 *                        plan is slower than the baseline (slower_steps)
 *
 * What reading checks (law 9; by code that makes no plans): types, ranges, shapes, no key twice, exactly one
 * owner for every expert and group and that inside the group, copies on ranks that there are, ascending,
 * none on an owner, every device a seat once. Whether it suits a scenario is sim/scenario.c's to say, whether it fits into memory a
 * simulation's. */
#ifndef MOE_MODELS_PLAN_H
#define MOE_MODELS_PLAN_H

#include "models/placement.h"

#include <jansson.h>

typedef struct moe_plan_model {
    const char *name;
    int64_t layers;
    int64_t experts;
    int64_t top_k;
    double expert_bytes;
    double shard_bytes;
} moe_plan_model;

typedef struct moe_plan_cluster {
    const char *name;
    int64_t hosts;
    int64_t devices_per_host;
} moe_plan_cluster;

typedef struct moe_plan_layout {
    int64_t devices;
    int64_t ep;
    int64_t groups;
} moe_plan_layout;

typedef struct moe_plan_policy {
    const char *name; /* NULL: not known */
    const char *policy;
    json_t *tunables;
} moe_plan_policy;

typedef struct moe_plan_range {
    int64_t first;
    int64_t last; /* exclusive */
} moe_plan_range;

typedef struct moe_plan_times {
    double baseline;
    double policy;
    double plan;
} moe_plan_times;

typedef struct moe_plan_spread {
    double p5, p50, p95;
    int64_t slower_steps;
} moe_plan_spread;

typedef struct moe_plan_prediction {
    moe_plan_range made_from;
    moe_plan_range evaluated_on;
    const char *engine; /* NULL: there is no prediction */
    const char *baseline;
    moe_plan_times step_time_s;
    double gain;
    moe_plan_spread spread;
} moe_plan_prediction;

typedef struct moe_plan {
    char *path;     /* it was read from; NULL: made here */
    char digest[9]; /* CRC-32 of that file */
    moe_plan_model model;
    moe_plan_cluster cluster;
    moe_plan_layout layout;
    int *seats; /* [layout.devices]; NULL: rank r on device r */
    moe_plan_policy policy;
    moe_plan_prediction prediction;
    json_t *inputs; /* NULL: none */
    moe_placement *placement;
    json_t *root; /* what was read: owns texts and objects above */
} moe_plan;

/* A plan without anything; `owner` frees it, with a reference of its `policy.tunables` and `inputs`
 * where it was not read. */
moe_plan *moe_plan_create(void *owner);

/* NULL after printed errors. `named_at` is where the path was written, {0} for the command line. */
moe_plan *moe_plan_read(void *owner, const char *path, moe_where named_at, moe_diag *diag);

/* One line a layer, so that text tools compare plans, too. Write errors stay in the stream. */
void moe_plan_write(const moe_plan *plan, FILE *stream);

/* The device of a rank. */
static inline int moe_plan_seat(const moe_plan *plan, int rank)
{
    return plan->seats != NULL ? plan->seats[rank] : rank;
}

/* The part "prediction"; new reference, NULL where there is none. */
json_t *moe_plan_prediction_json(const moe_plan *plan);

/* Whether the two place the same experts on the same devices; if not, prints what differs. */
bool moe_plan_comparable(const moe_plan *a, const moe_plan *b, moe_diag *diag);

/* What changes from `a` to `b`, which are comparable; a new reference:
 *
 *   experts_moved, bytes_to_move    owners that change, each moving b's model.shard_bytes
 *   copies_added, copies_removed, copies_before, copies_after    copies beside owners
 *   moves                           [{layer, group, expert, from, to}], ranks
 *   copies                          [{layer, expert, added: [ranks], removed: [ranks]}] */
json_t *moe_plan_difference(const moe_plan *a, const moe_plan *b);

/* Copies beside the owners, over all layers. */
int64_t moe_plan_copies(const moe_plan *plan);

#endif
