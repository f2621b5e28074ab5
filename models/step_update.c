/* The optimizer: memory-bound, on what each device owns. */
#include "models/step_builder.h"

static const int *count_owned(moe_step_builder *builder)
{
    const moe_placement *placement = builder->placement;
    int *owned = moe_arena_array(builder->arena, int, (size_t)builder->devices);
    size_t owners =
        (size_t)placement->layers * (size_t)placement->groups * (size_t)placement->experts;
    for (size_t i = 0; i < owners; i++) {
        owned[placement->owner[i]]++;
    }
    return owned;
}

/* Gradient read, optimizer state read and written; the parameter's own bytes are written beside. */
static double state_bytes_per_parameter(const moe_network *network)
{
    return moe_dtype_bytes(network->gradient_dtype) + 2 * network->optimizer_bytes_per_parameter;
}

static const double *update_seconds(moe_step_builder *builder)
{
    const moe_network *network = builder->network;
    const int *owned = count_owned(builder);
    double *durations = moe_arena_array(builder->arena, double, (size_t)builder->devices);
    bool sharded = builder->options->optimizer_sharding == MOE_OPTIMIZER_ZERO1;
    double shards = sharded ? builder->devices : 1;
    double state = state_bytes_per_parameter(network);
    double dense = moe_network_dense_parameters(network) * state + moe_network_dense_bytes(network);
    double expert =
        moe_network_expert_parameters(network) * state + moe_network_expert_bytes(network);
    for (int device = 0; device < builder->devices; device++) {
        durations[device] =
            moe_cost_memory_s(builder->costs, dense / shards + owned[device] * expert);
    }
    return durations;
}

static const moe_traffic *gather_parameters(moe_step_builder *builder)
{
    if (builder->options->optimizer_sharding != MOE_OPTIMIZER_ZERO1) {
        return NULL;
    }
    return moe_step_ring(builder, MOE_ALL_GATHER, moe_network_dense_bytes(builder->network));
}

void moe_step_update(moe_step_builder *builder)
{
    const moe_traffic *parameters = gather_parameters(builder);
    moe_step_launch(builder, MOE_KERNELS_OPTIMIZER + moe_step_kernels(parameters));
    moe_step_await(builder, builder->last_reduce);
    moe_step_await(builder, builder->last_gradient);
    moe_step_compute(builder, "optimizer", MOE_OPTIMIZER, update_seconds(builder));
    moe_step_beside(builder, &(moe_step_side){.name = "gather parameters",
                                              .part = MOE_GRADIENT_SYNC,
                                              .stream = MOE_STREAM_GRADIENT,
                                              .traffic = parameters,
                                              .wait = -1});
}
