#include "reports/validation/laer_step.h"

#include "configs/base/arena.h"
#include "configs/base/memory.h"
#include "models/step.h"
#include "models/timeline.h"
#include "sim/engine.h"

#include <string.h>
#include <talloc.h>

enum { RANKS = MOE_LAER_RANKS, HOSTS = 4, PER_HOST = 8, EP = 4, CURVE_POINTS = 10 };

static const double hidden = 4096;
static const double value_bytes = 2;
static const double tokens = 16384; /* of a rank and micro-batch: 128 * 8192 / 32 / 2 */

/* --- the machine ------------------------------------------------------------------------------ */

static const moe_cluster_spec data_sheet = {
    .name = "laer-4x8-a100-80",
    .source = "LAER-MoE (arXiv 2602.11686) section 5.1; NVIDIA A100 data sheet",
    .hosts = HOSTS,
    .devices_per_host = PER_HOST,
    .device = {"A100-80", 312e12, 80.0 * 1024 * 1024 * 1024, 2.039e12, 108},
    .intra = {.kind = MOE_INTRA_NVSWITCH, .bandwidth_bytes_per_s = 300e9, .latency_s = 0.95e-6},
    .nic = {.sharing = MOE_NIC_PER_HOST,
            .bandwidth_bytes_per_s = 100e9, /* InfiniBand, 800 Gb/s a host */
            .per_host_count = 4,            /* scripts_ae/env.sh names four adapters */
            .latency_s = 5e-6},
    .fabric = {.oversubscription = 1},
};

static double full_size = 1, full_efficiency = 1;

static void use_measured_rates(moe_laer_machine *machine)
{
    const moe_points full = {&full_size, &full_efficiency, 1};
    machine->spec.intra.bandwidth_bytes_per_s = 216.269e9;
    machine->spec.nic.bandwidth_bytes_per_s = 88.9539e9;
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++) {
        machine->profile.collectives[kind].intra = full;
        machine->profile.collectives[kind].inter = full;
        machine->profile.collectives[kind].groups = (moe_list){0};
    }
}

moe_laer_machine *moe_laer_machine_create(void *owner, const moe_profile *profile,
                                          moe_laer_network network)
{
    moe_laer_machine *machine = moe_need(talloc(owner, moe_laer_machine));
    *machine = (moe_laer_machine){.spec = data_sheet, .profile = *profile};
    if (network == MOE_LAER_MEASURED)
        use_measured_rates(machine);
    return machine;
}

static moe_network network_of(const moe_laer_model *model)
{
    return (moe_network){.name = model->name,
                         .layers = model->layers,
                         .hidden = (int64_t)hidden,
                         .ffn = model->ffn,
                         .gated = true,
                         .experts = model->experts,
                         .top_k = model->top_k,
                         .gate_groups = 1,
                         .top_groups = 1,
                         .attention = MOE_ATTENTION_GQA,
                         .heads = 32,
                         .kv_heads = 8,
                         .head_dim = 128,
                         .causal = true,
                         .sequence = 8192,
                         .norm = MOE_NORM_RMS,
                         .vocabulary = 32000,
                         .parameter_dtype = MOE_BF16,
                         .gradient_dtype = MOE_BF16,
                         .optimizer_bytes_per_parameter = 12};
}

/* --- experts as dense GEMMs, one expert after another ------------------------------------------ */

static double gemm_s(const moe_costs *costs, double m, double n, double k)
{
    return moe_cost_gemm_s(costs, &(moe_gemm){m, n, k, 1});
}

/* One expert with `rows` rows. The activation reads both halves and writes one; its gradient reads three and
 * writes two. Forward, the outputs of all experts are concatenated, which reads and writes them. */
static double expert_s(const moe_costs *costs, double ffn, moe_phase phase, double rows)
{
    const double value = rows * value_bytes;
    switch (phase) {
    case MOE_FORWARD:
        return gemm_s(costs, rows, 2 * ffn, hidden) + gemm_s(costs, rows, hidden, ffn) +
               moe_cost_memory_s(costs, 3 * ffn * value) +
               moe_cost_memory_s(costs, 2 * hidden * value);
    case MOE_INPUT_GRADIENT:
        return gemm_s(costs, rows, hidden, 2 * ffn) + gemm_s(costs, rows, ffn, hidden) +
               moe_cost_memory_s(costs, 5 * ffn * value) +
               moe_cost_memory_s(costs, 2 * hidden * value);
    default:
        break;
    }
    return gemm_s(costs, hidden, 2 * ffn, rows) + gemm_s(costs, ffn, hidden, rows);
}

typedef struct sequential_curves {
    double rows[CURVE_POINTS];
    double efficiency[3][CURVE_POINTS];
} sequential_curves;

/* Replaces the profile's law for experts; bytes are in the points already, hence a norm that leaves the
 * arithmetic alone. */
static void use_sequential_experts(moe_profile *profile, const moe_costs *costs,
                                   const moe_network *network, sequential_curves *curves)
{
    moe_compute_curve found[3];
    for (int phase = MOE_FORWARD; phase <= MOE_WEIGHT_GRADIENT; phase++) {
        const double flop = moe_step_expert_shape(network, phase).flop_per_row;
        for (int i = 0; i < CURVE_POINTS; i++) {
            const double rows = 128 << i; /* to 65,536 */
            curves->rows[i] = rows;
            curves->efficiency[phase][i] = flop * rows /
                                           (costs->cluster->spec->device.peak_flop_per_s *
                                            expert_s(costs, (double)network->ffn, phase, rows));
        }
        found[phase] = (moe_compute_curve){
            .flop_efficiency = 1,
            .memory_efficiency = 1,
            .norm = 64,
            .tile_rows = 1,
            .low_rows = 1,
            .high_rows = 1e9,
            .origin = MOE_DERIVED,
            .efficiency = {curves->rows, curves->efficiency[phase], CURVE_POINTS}};
    }
    memcpy(profile->experts, found, sizeof found);
}

/* --- the step --------------------------------------------------------------------------------- */

typedef struct laer_run {
    moe_arena *arena;
    const moe_laer_model *model;
    moe_network network;
    moe_profile profile;
    moe_cluster *cluster;
    moe_curve_usage usage;
    moe_costs costs;
    sequential_curves curves;
} laer_run;

/* NULL after a printed error. */
static laer_run *run_open(const moe_laer_machine *machine, const moe_laer_model *model,
                          bool by_profile, moe_diag *diag)
{
    laer_run *run = moe_need(talloc_zero(NULL, laer_run));
    run->arena = moe_arena_create(run);
    run->model = model;
    run->network = network_of(model);
    run->profile = machine->profile;
    run->cluster = moe_cluster_create(run, &machine->spec, NULL, diag);
    if (!run->cluster) {
        talloc_free(run);
        return NULL;
    }
    run->costs = (moe_costs){&run->profile, run->cluster, &run->usage};
    if (!by_profile)
        use_sequential_experts(&run->profile, &run->costs, &run->network, &run->curves);
    return run;
}

/* Rows of each expert: those of a rank, in equal parts among its own. Every rank of a host sends the same. */
static moe_routed_layer route(laer_run *run, const double *recorded)
{
    const moe_laer_model *model = run->model;
    const size_t experts = (size_t)model->experts;
    double *pairs = moe_arena_array(run->arena, double, RANKS *RANKS);
    double *rows = moe_arena_array(run->arena, double, RANKS *experts);
    for (int rank = 0; rank < RANKS; rank++) {
        const int first_expert = rank % EP * model->slots, host = rank / PER_HOST;
        for (int slot = 0; slot < model->slots; slot++)
            rows[(size_t)rank * experts + (size_t)(first_expert + slot)] =
                recorded[rank] / model->slots;
        for (int source = host * PER_HOST; source < (host + 1) * PER_HOST; source++)
            pairs[source * RANKS + rank] = recorded[rank] / PER_HOST;
    }
    return (moe_routed_layer){.pairs = pairs, .rows = rows};
}

static const moe_program *build(laer_run *run, const moe_laer_case *of, int entry)
{
    const moe_laer_model *model = run->model;
    const moe_layout layout = {RANKS, EP, RANKS / EP};
    const moe_step_options options = {.micro_batches = MOE_LAER_MICRO_BATCHES,
                                      .tokens = tokens,
                                      .recompute = MOE_RECOMPUTE_FULL,
                                      .optimizer_sharding = MOE_OPTIMIZER_ZERO1,
                                      .interference = true,
                                      .kind = MOE_STEP_TRAIN};
    const moe_schedule schedule = {.gathers_loads = true};
    const size_t layers = (size_t)model->layers;
    moe_routed_layer *routed =
        moe_arena_array(run->arena, moe_routed_layer, MOE_LAER_MICRO_BATCHES * layers);
    moe_placement *placement = moe_placement_create(run, &layout, model->layers, model->experts);
    moe_placement_even(placement, &layout);
    for (int micro_batch = 0; micro_batch < MOE_LAER_MICRO_BATCHES; micro_batch++)
        for (int layer = 0; layer < model->layers; layer++)
            routed[(size_t)micro_batch * layers + (size_t)layer] =
                route(run, moe_laer_rows(of, model, entry + micro_batch, layer));
    return moe_step_build(run->arena, &run->costs, &run->network, &layout, placement, &options,
                          &schedule, &(moe_step){.routed = routed});
}

static bool begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

/* Whether their profiler knows the exchange by the name it looks for. */
static bool is_booked(const moe_op *op, int layers)
{
    return (begins(op->name, "dispatch") && op->layer < layers - 1) ||
           (begins(op->name, "combine") && op->layer > 0);
}

/* When `device` could have begun an exchange: everything that it waits for has ended there. */
static double arrival_s(const moe_program *program, const moe_timeline *timeline, int op,
                        int device)
{
    const moe_op *of = &program->ops[op];
    double latest_s = 0;
    for (int i = 0; i < of->wait_count; i++) {
        const double end_s =
            timeline->end_s[moe_timeline_at(timeline, program->waits[of->first_wait + i], device)];
        latest_s = end_s > latest_s ? end_s : latest_s;
    }
    return latest_s;
}

static void book(const moe_program *program, const moe_timeline *timeline, int layers,
                 moe_laer_prediction *prediction)
{
    for (int op = 0; op < program->op_count; op++) {
        const moe_op *of = &program->ops[op];
        const bool experts =
            strcmp(of->name, "experts forward") == 0 || strcmp(of->name, "experts recompute") == 0;
        if (of->kind == MOE_OP_COLLECTIVE && is_booked(of, layers)) {
            prediction->transfer_s +=
                of->traffic ? moe_traffic_alone_s(of->traffic, program->cluster) : 0;
            for (int rank = 0; rank < RANKS; rank++)
                prediction->all_to_all_s[rank] +=
                    timeline->end_s[moe_timeline_at(timeline, op, rank)] -
                    arrival_s(program, timeline, op, rank);
        } else if (of->kind == MOE_OP_COMPUTE && experts) {
            for (int rank = 0; rank < RANKS; rank++)
                prediction->expert_s[rank] += 2 * of->duration_s[rank];
        }
    }
    prediction->step_s = timeline->step_s;
}

moe_status moe_laer_predict(const moe_laer_machine *machine, const moe_laer_model *model,
                            const moe_laer_case *of, int entry, moe_laer_prediction *prediction,
                            moe_diag *diag)
{
    *prediction = (moe_laer_prediction){0};
    laer_run *run = run_open(machine, model, false, diag);
    if (!run)
        return MOE_BAD_INPUT;
    const moe_engine *engine = &moe_engine_analytic;
    const moe_program *program = build(run, of, entry);
    moe_timeline *timeline = moe_timeline_create(run, RANKS);
    void *state = engine->open(run, run->cluster, NULL, diag);
    moe_status status = state ? engine->execute(state, program, timeline, diag) : MOE_INTERNAL;
    if (status == MOE_OK)
        book(program, timeline, model->layers, prediction);
    if (state)
        engine->close(state);
    talloc_free(run);
    return status;
}

moe_status moe_laer_experts(const moe_laer_machine *machine, const moe_laer_model *model,
                            const moe_laer_case *of, int entry, bool by_profile,
                            double expert_s[MOE_LAER_RANKS], moe_diag *diag)
{
    laer_run *run = run_open(machine, model, by_profile, diag);
    if (!run)
        return MOE_BAD_INPUT;
    const moe_expert_shape shape = moe_step_expert_shape(&run->network, MOE_FORWARD);
    double rows[MOE_LAER_RANKS];
    for (int rank = 0; rank < RANKS; rank++)
        expert_s[rank] = 0;
    for (int micro_batch = 0; micro_batch < MOE_LAER_MICRO_BATCHES; micro_batch++)
        for (int layer = 0; layer < model->layers; layer++) {
            const double *recorded = moe_laer_rows(of, model, entry + micro_batch, layer);
            for (int rank = 0; rank < RANKS; rank++) {
                for (int slot = 0; slot < model->slots; slot++)
                    rows[slot] = recorded[rank] / model->slots;
                expert_s[rank] += 4 * moe_cost_experts_s(&run->costs, &shape, rows, model->slots);
            }
        }
    talloc_free(run);
    return MOE_OK;
}
