/* One layer, built and run. */
#include "reports/validation/smartmoe.h"

#include "configs/base/memory.h"
#include "configs/preset.h"
#include "policies/policy.h"
#include "sim/engine.h"
#include <math.h>
#include <talloc.h>

/* The artifact's benchmark maps every assignment by a Python function on the host. One call takes 54 ns in PyTorch
 * 1.13 with CPython 3.11 on an Intel Xeon of 2023 (16,384 of them 0.88 ms, the least of 60). */
static const double host_s_per_assignment = 54e-9;

struct smartmoe_model { /* owns all of it */
    moe_arena *arena;
    moe_profile profile;
    moe_cluster *cluster;
    moe_curve_usage usage;
    moe_costs costs;
    moe_network network;
    moe_layout layout;
    moe_placement *placement;
    moe_step_options options;
    moe_timeline *timeline;
    void *engine;
    moe_points one_efficiency;
    double point[2];
};

static moe_network make_network(int64_t hidden)
{
    return (moe_network){.name = "FMoE layer",
                         .layers = 1,
                         .hidden = hidden,
                         .ffn = 2 * hidden,
                         .bias = true,
                         .experts = SMARTMOE_EXPERTS,
                         .top_k = 2,
                         .gate_groups = 1,
                         .top_groups = 1,
                         .sequence = 1024,
                         .parameter_dtype = MOE_FP16,
                         .gradient_dtype = MOE_FP16};
}

static bool load_profile(smartmoe_model *model, const smartmoe_machine *machine, moe_diag *diag)
{
    const char *path =
        moe_preset_find(model, MOE_PROFILE_PRESETS, "profiles", machine->profile, diag);
    moe_config *config =
        path != NULL ? moe_config_load(model, path, &moe_profile_table, NULL, 0, diag) : NULL;
    if (config == NULL)
        return false;
    model->profile = *(const moe_profile *)moe_config_root(config);
    if (machine->intra_efficiency > 0) {
        moe_collective_curve *curve = &model->profile.collectives[MOE_ALL_TO_ALL];
        model->point[0] = 1;
        model->point[1] = machine->intra_efficiency;
        curve->intra = (moe_points){&model->point[0], &model->point[1], 1};
        curve->groups = (moe_list){0};
    }
    return true;
}

static int close_model(smartmoe_model *model)
{
    if (model->engine != NULL)
        moe_engine_analytic.close(model->engine);
    return 0;
}

smartmoe_model *smartmoe_model_open(void *owner, const smartmoe_machine *machine, moe_diag *diag)
{
    smartmoe_model *model = moe_need(talloc_zero(owner, smartmoe_model));
    const int devices = (int)(machine->cluster.hosts * machine->cluster.devices_per_host);
    model->arena = moe_arena_create(model);
    model->cluster = moe_cluster_create(model, &machine->cluster, NULL, diag);
    if (model->cluster == NULL || !load_profile(model, machine, diag))
        return NULL;
    model->costs = (moe_costs){&model->profile, model->cluster, &model->usage};
    model->network = make_network(machine->hidden);
    model->layout = (moe_layout){.devices = devices, .ep = devices, .groups = 1};
    model->placement = moe_placement_create(model, &model->layout, 1, SMARTMOE_EXPERTS);
    model->options = (moe_step_options){.micro_batches = 1,
                                        .tokens = SMARTMOE_TOKENS,
                                        .kind = MOE_STEP_TRAIN,
                                        .experts_alone = true,
                                        .expert_by_expert = true};
    model->timeline = moe_timeline_create(model, devices);
    model->engine = moe_engine_analytic.open(NULL, model->cluster, NULL, diag);
    talloc_set_destructor(model, close_model);
    return model->engine != NULL ? model : NULL;
}

int smartmoe_model_devices(const smartmoe_model *model)
{
    return model->layout.devices;
}

/* ---- routing --------------------------------------------------------------------------------- */

smartmoe_mapping smartmoe_start(int devices)
{
    smartmoe_mapping mapping;
    const int per_device = SMARTMOE_EXPERTS / devices;
    for (int e = 0; e < SMARTMOE_EXPERTS; e++) {
        mapping.device[e] = e / per_device;
        mapping.slot[e] = e % per_device;
    }
    return mapping;
}

static void place(smartmoe_model *model, const smartmoe_mapping *mapping)
{
    for (int e = 0; e < SMARTMOE_EXPERTS; e++)
        *moe_placement_owner(model->placement, 0, 0, e) = mapping->device[e];
    moe_placement_reset_copies(model->placement);
}

static moe_routed_layer *route(smartmoe_model *model, const double *counts,
                               const smartmoe_mapping *mapping)
{
    const size_t devices = (size_t)model->layout.devices;
    const int slots = SMARTMOE_EXPERTS / model->layout.devices;
    moe_route whole = {.devices = model->layout.devices,
                       .experts = SMARTMOE_EXPERTS,
                       .pairs = moe_arena_array(model->arena, double, devices *devices),
                       .rows = moe_arena_array(model->arena, double, devices *SMARTMOE_EXPERTS)};
    double *parts = moe_arena_array(model->arena, double, (size_t)slots *devices *devices);
    for (size_t source = 0; source < devices; source++) {
        for (int e = 0; e < SMARTMOE_EXPERTS; e++) {
            const double count = SMARTMOE_SCALE * counts[source * SMARTMOE_EXPERTS + (size_t)e];
            moe_route_add(&whole, (int)source, e, mapping->device[e], count);
            parts[((size_t)mapping->slot[e] * devices + source) * devices +
                  (size_t)mapping->device[e]] += count;
        }
    }
    moe_routed_layer *routed = moe_arena_array(model->arena, moe_routed_layer, 1);
    *routed = (moe_routed_layer){.pairs = whole.pairs,
                                 .rows = whole.rows,
                                 .slot_pairs = parts,
                                 .slots = slots,
                                 .planning_s = 2 * SMARTMOE_TOKENS * host_s_per_assignment};
    return routed;
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct path_sums {
    const moe_program *program;
    smartmoe_seconds *seconds;
} path_sums;

static void add_part(void *context, int op, int device, double from_s, double until_s)
{
    (void)device;
    path_sums *sums = context;
    const moe_op *at = &sums->program->ops[op];
    if (at->kind == MOE_OP_COLLECTIVE)
        sums->seconds->exchange += until_s - from_s;
    else if (at->part == MOE_EXPERT)
        sums->seconds->experts += until_s - from_s;
}

moe_status smartmoe_predict(smartmoe_model *model, const double *counts,
                            const smartmoe_mapping *mapping, smartmoe_seconds *seconds,
                            moe_diag *diag)
{
    static const moe_schedule schedule = {.gathers_loads = true};
    moe_arena_reset(model->arena);
    place(model, mapping);
    const moe_step step = {.routed = route(model, counts, mapping)};
    const moe_program *program =
        moe_step_build(model->arena, &model->costs, &model->network, &model->layout,
                       model->placement, &model->options, &schedule, &step);
    const moe_status status =
        moe_engine_analytic.execute(model->engine, program, model->timeline, diag);
    if (status != MOE_OK)
        return status;
    *seconds = (smartmoe_seconds){0};
    for (int op = 0; op < program->op_count; op++)
        seconds->total =
            fmax(seconds->total, model->timeline->end_s[moe_timeline_at(model->timeline, op, 0)]);
    moe_timeline_critical_walk(program, model->timeline, add_part, &(path_sums){program, seconds});
    return MOE_OK;
}
