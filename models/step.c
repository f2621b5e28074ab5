/* The step program: the order of its parts, and how operations are added. */
#include "models/step_builder.h"

#include <assert.h>

/* --- adding operations ------------------------------------------------------------------------ */

void moe_step_await(moe_step_builder *builder, int op)
{
    if (op >= 0) {
        assert(builder->after_count < MOE_STEP_AFTER);
        builder->after[builder->after_count++] = op;
    }
}

void moe_step_await_parameters(moe_step_builder *builder, moe_step_layer *built)
{
    moe_step_await(builder, built->materialize_op);
    built->materialize_op = -1;
}

void moe_step_await_reduction(moe_step_builder *builder)
{
    moe_step_await(builder, builder->exchange_awaits);
    builder->exchange_awaits = -1;
}

static void follow(moe_step_builder *builder, int op)
{
    builder->after[0] = op;
    builder->after_count = 1;
}

const double *moe_step_uniform(moe_step_builder *builder, double seconds)
{
    double *durations = moe_arena_array(builder->arena, double, (size_t)builder->devices);
    for (int device = 0; device < builder->devices; device++) {
        durations[device] = seconds;
    }
    return durations;
}

static moe_op op_here(const moe_step_builder *builder, const char *name, moe_op_kind kind,
                      moe_part part, moe_stream stream)
{
    return (moe_op){.name = name,
                    .kind = kind,
                    .part = part,
                    .stream = stream,
                    .layer = builder->layer,
                    .micro_batch = builder->micro_batch,
                    .slowdown = 1};
}

int moe_step_host(moe_step_builder *builder, const char *name, double seconds, bool awaits)
{
    moe_op op = op_here(builder, name, MOE_OP_HOST, MOE_HOST, MOE_STREAM_HOST);
    op.duration_s = moe_step_uniform(builder, seconds);
    return moe_program_add(builder->program, &op, builder->after,
                           awaits ? builder->after_count : 0);
}

/* A graph is launched as one; what runs already needs no more. */
static bool starts_kernels(const moe_step_builder *builder, int kernels)
{
    return kernels > 0 && !(builder->options->graphs && builder->graph_runs);
}

static double launch_s(moe_step_builder *builder, int kernels)
{
    if (!builder->options->graphs) {
        return moe_cost_launch_s(builder->costs, kernels);
    }
    builder->graph_runs = true;
    return moe_cost_graph_launch_s(builder->costs);
}

void moe_step_launch(moe_step_builder *builder, int kernels)
{
    if (starts_kernels(builder, kernels)) {
        double seconds = launch_s(builder, kernels);
        moe_step_await(builder, moe_step_host(builder, "launch", seconds, false));
    }
}

void moe_step_plan(moe_step_builder *builder, double seconds)
{
    moe_step_host(builder, "plan", seconds, true);
    builder->graph_runs = false;
}

int moe_step_compute(moe_step_builder *builder, const char *name, moe_part part,
                     const double *duration_s)
{
    moe_op op = op_here(builder, name, MOE_OP_COMPUTE, part, MOE_STREAM_COMPUTE);
    op.duration_s = duration_s;
    int id = moe_program_add(builder->program, &op, builder->after, builder->after_count);
    follow(builder, id);
    return id;
}

void moe_step_exchange(moe_step_builder *builder, const char *name, moe_part part,
                       const moe_traffic *traffic)
{
    for (; traffic != NULL; traffic = traffic->next) {
        moe_op op = op_here(builder, name, MOE_OP_COLLECTIVE, part, MOE_STREAM_EXCHANGE);
        op.traffic = traffic;
        follow(builder,
               moe_program_add(builder->program, &op, builder->after, builder->after_count));
    }
}

void moe_step_shared(moe_step_builder *builder, const char *name, const double *duration_s,
                     int kernels, int wait)
{
    if (duration_s == NULL) {
        return;
    }
    int waits[] = {wait, -1};
    if (starts_kernels(builder, kernels)) {
        waits[1] = moe_step_host(builder, "launch", launch_s(builder, kernels), false);
    }
    moe_op op = op_here(builder, name, MOE_OP_COMPUTE, MOE_DENSE, MOE_STREAM_COMPUTE);
    op.duration_s = duration_s;
    moe_program_add(builder->program, &op, waits, 2);
}

int moe_step_beside(moe_step_builder *builder, const moe_step_side *side)
{
    if (side->traffic == NULL) {
        return -1;
    }
    moe_op op = op_here(builder, side->name, MOE_OP_COLLECTIVE, side->part, side->stream);
    op.traffic = side->traffic;
    if (side->background && builder->options->interference) {
        op.slowdown = moe_cost_slowdown(builder->costs);
        op.sm_share = builder->costs->profile->sm_share;
    }
    int waits[MOE_STEP_AFTER + 1];
    int count = 0;
    while (count < builder->after_count) {
        waits[count] = builder->after[count];
        count++;
    }
    waits[count++] = side->wait;
    return moe_program_add(builder->program, &op, waits, count);
}

/* --- the step --------------------------------------------------------------------------------- */

static void rearrange(moe_step_builder *builder)
{
    const moe_step *step = builder->step;
    if (step->planning_s > 0) {
        moe_step_await(builder, moe_step_host(builder, "plan", step->planning_s, false));
    }
    moe_step_exchange(
        builder, "rearrange", MOE_REARRANGE,
        moe_traffic_moves(builder->arena, builder->costs, step->moves, step->move_count));
}

static void run_micro_batch(moe_step_builder *builder, int micro_batch)
{
    builder->micro_batch = micro_batch;
    builder->graph_runs = false;
    moe_step_price_layers(builder);
    moe_step_forward(builder);
    moe_step_head(builder);
    if (!moe_step_serves(builder->options)) {
        moe_step_backward(builder);
    }
    builder->micro_batch = -1;
}

moe_program *moe_step_build(moe_arena *arena, const moe_costs *costs, const moe_network *network,
                            const moe_layout *layout, const moe_placement *placement,
                            const moe_step_options *options, const moe_schedule *schedule,
                            const moe_step *step)
{
    moe_step_builder builder = {.arena = arena,
                                .costs = costs,
                                .network = network,
                                .layout = layout,
                                .placement = placement,
                                .options = options,
                                .schedule = schedule,
                                .step = step,
                                .program = moe_program_begin(arena, costs->cluster),
                                .devices = layout->devices,
                                .dense_layers = (int)network->dense_layers,
                                .layers = placement->layers,
                                .experts = placement->experts,
                                .micro_batch = -1,
                                .layer = -1,
                                .exchange_awaits = -1,
                                .last_reduce = -1,
                                .last_gradient = -1};
    moe_step_price_common(&builder);
    rearrange(&builder);
    for (int micro_batch = 0; micro_batch < options->micro_batches; micro_batch++) {
        run_micro_batch(&builder, micro_batch);
    }
    if (!moe_step_serves(options) && !options->experts_alone) {
        moe_step_update(&builder);
    }
    return moe_program_end(builder.program);
}
