/* What the operations of a step cost: durations per device, traffic per collective. */
#include "models/dense_cost.h"
#include "models/step_builder.h"

const char *const moe_once_names[] = {"assignment", "device", "host", NULL};

moe_expert_shape moe_step_expert_shape(const moe_network *network, moe_phase phase)
{
    double hidden = (double)network->hidden;
    double ffn = (double)network->ffn;
    double matrices = network->gated ? 3 : 2;
    return (moe_expert_shape){
        .phase = phase,
        .matrices = (int64_t)matrices,
        .flop_per_row = 2 * matrices * hidden * ffn,
        .weight_bytes = phase == MOE_WEIGHT_GRADIENT ? moe_network_expert_gradient_bytes(network)
                                                     : moe_network_expert_bytes(network),
        .row_bytes = matrices * (hidden + ffn) * moe_network_activation_bytes(network),
    };
}

/* --- the same for every layer ----------------------------------------------------------------- */

static const int *devices_in_order(moe_step_builder *builder)
{
    int *order = moe_arena_array(builder->arena, int, (size_t)builder->devices);
    for (int device = 0; device < builder->devices; device++) {
        order[device] = device;
    }
    return order;
}

/* Device i of every EP group, for each i. */
static const int *devices_in_expert_groups(moe_step_builder *builder)
{
    const moe_layout *layout = builder->layout;
    int *order = moe_arena_array(builder->arena, int, (size_t)builder->devices);
    for (int position = 0; position < layout->ep; position++) {
        for (int group = 0; group < layout->groups; group++) {
            order[position * layout->groups + group] = group * layout->ep + position;
        }
    }
    return order;
}

const moe_traffic *moe_step_ring(moe_step_builder *builder, moe_collective_kind kind, double bytes)
{
    return moe_traffic_group(builder->arena, builder->costs, kind, builder->in_order, 1,
                             builder->devices, bytes);
}

const moe_traffic *moe_step_dense_gradients(moe_step_builder *builder, double parameters)
{
    bool sharded = builder->options->optimizer_sharding == MOE_OPTIMIZER_ZERO1;
    double bytes = parameters * moe_dtype_bytes(builder->network->gradient_dtype);
    return moe_step_ring(builder, sharded ? MOE_REDUCE_SCATTER : MOE_ALL_REDUCE, bytes);
}

/* Each rank contributes a 32-bit count per expert. */
static const moe_traffic *gather_loads(moe_step_builder *builder)
{
    const moe_layout *layout = builder->layout;
    if (!moe_step_gathers_loads(builder)) {
        return NULL;
    }
    double bytes = 4.0 * layout->ep * builder->experts;
    return moe_traffic_group(builder->arena, builder->costs, MOE_ALL_GATHER, builder->in_order,
                             layout->groups, layout->ep, bytes);
}

static moe_step_times uniform_times(moe_step_builder *builder, moe_dense_seconds seconds)
{
    bool serves = moe_step_serves(builder->options);
    return (moe_step_times){
        .forward_s = moe_step_uniform(builder, seconds.forward_s),
        .backward_s = serves ? NULL : moe_step_uniform(builder, seconds.backward_s),
    };
}

static moe_step_times ffn_times(moe_step_builder *builder, int64_t width)
{
    const moe_step_options *options = builder->options;
    bool trains = !moe_step_serves(options);
    if (width == 0) {
        return (moe_step_times){0};
    }
    return uniform_times(
        builder, moe_dense_ffn(builder->costs, builder->network, width, options->tokens, trains));
}

static moe_step_times attention_times(moe_step_builder *builder, int number)
{
    const moe_network *network = builder->network;
    const moe_step_options *options = builder->options;
    moe_dense_seconds seconds = {0};
    if (moe_step_serves(options)) {
        seconds.forward_s =
            moe_step_serving_attention_s(builder->costs, network, options, number);
    } else {
        seconds = moe_dense_attention(builder->costs, network, number, options->tokens);
    }
    return uniform_times(builder, seconds);
}

/* Kinds that no layer is of stay without times. */
static void price_dense_parts(moe_step_builder *builder)
{
    const moe_network *network = builder->network;
    for (int number = 0; number < builder->dense_layers + builder->layers; number++) {
        moe_step_times *attention = moe_step_attention(builder, number);
        if (attention->forward_s == NULL) {
            *attention = attention_times(builder, number);
        }
    }
    builder->dense = ffn_times(builder, builder->dense_layers > 0 ? network->dense_ffn : 0);
    builder->shared = ffn_times(builder, moe_network_shared_width(network));
}

static void price_gradients(moe_step_builder *builder)
{
    const moe_network *network = builder->network;
    builder->gradients[0] = moe_step_dense_gradients(
        builder, moe_network_layer_parameters(network, builder->dense_layers));
    if (builder->dense_layers > 0) {
        builder->gradients[1] =
            moe_step_dense_gradients(builder, moe_network_layer_parameters(network, 0));
    }
}

void moe_step_price_common(moe_step_builder *builder)
{
    size_t devices = (size_t)builder->devices;
    builder->in_order = devices_in_order(builder);
    builder->in_expert_groups = devices_in_expert_groups(builder);
    builder->loads = gather_loads(builder);
    if (!moe_step_serves(builder->options)) {
        price_gradients(builder);
    }
    price_dense_parts(builder);
    builder->pairs_bytes = moe_arena_array(builder->arena, double, devices *devices);
    builder->rows = moe_arena_array(builder->arena, double, (size_t)builder->experts);
    builder->built = moe_arena_array(builder->arena, moe_step_layer, (size_t)builder->layers);
}

/* Owners stand at the same position of every group under EP; where a policy places each group's on
 * its own, the largest shard of any position is reduced by all (an overestimate). */
const moe_traffic *moe_step_expert_gradients(moe_step_builder *builder, int layer)
{
    const moe_layout *layout = builder->layout;
    if (layout->groups == 1) {
        return NULL;
    }
    int *owned = moe_arena_array(builder->arena, int, (size_t)builder->devices);
    int most = 0;
    for (int group = 0; group < layout->groups; group++) {
        for (int expert = 0; expert < builder->experts; expert++) {
            int count = ++owned[*moe_placement_owner(builder->placement, layer, group, expert)];
            most = count > most ? count : most;
        }
    }
    return moe_traffic_group(builder->arena, builder->costs, MOE_ALL_REDUCE,
                             builder->in_expert_groups, layout->ep, layout->groups,
                             most * moe_network_expert_gradient_bytes(builder->network));
}

/* --- one layer -------------------------------------------------------------------------------- */

static const double *scaled(moe_step_builder *builder, const double *values, size_t count,
                            double factor)
{
    double *products = moe_arena_array(builder->arena, double, count);
    for (size_t i = 0; i < count; i++) {
        products[i] = values[i] * factor;
    }
    return products;
}

/* Tokens that are sent once (policies/once.h). */
static const moe_traffic *price_once(moe_step_builder *builder, const moe_routed_layer *routed,
                                     double token_bytes, bool transposed)
{
    size_t devices = (size_t)builder->devices;
    size_t hosts = (size_t)builder->costs->cluster->hosts;
    const double *bytes = scaled(builder, routed->tokens, devices * devices, token_bytes);
    if (routed->host_tokens == NULL) {
        return moe_traffic_all_to_all(builder->arena, builder->costs, bytes, transposed);
    }
    return moe_traffic_forwarded(builder->arena, builder->costs, bytes,
                                 scaled(builder, routed->host_tokens, devices * hosts, token_bytes),
                                 builder->layout->ep, transposed);
}

/* Exchanges one after another, each of what is for the experts at one place of their devices. */
static const moe_traffic *price_slots(moe_step_builder *builder, const moe_routed_layer *routed,
                                      double token_bytes, bool transposed)
{
    size_t pairs = (size_t)builder->devices * (size_t)builder->devices;
    const moe_traffic *first = NULL;
    for (int slot = routed->slots; slot-- > 0;) {
        const double *bytes =
            scaled(builder, routed->slot_pairs + (size_t)slot * pairs, pairs, token_bytes);
        moe_traffic *traffic =
            moe_traffic_all_to_all(builder->arena, builder->costs, bytes, transposed);
        if (traffic != NULL) {
            traffic->next = first;
            first = traffic;
        }
    }
    return first;
}

static const moe_traffic *price_exchange(moe_step_builder *builder, const moe_routed_layer *routed,
                                         double token_bytes, bool transposed)
{
    if (routed->slot_pairs != NULL) {
        return price_slots(builder, routed, token_bytes, transposed);
    }
    if (routed->tokens != NULL) {
        return price_once(builder, routed, token_bytes, transposed);
    }
    if (builder->options->low_latency) {
        return moe_traffic_low_latency(builder->arena, builder->costs, builder->pairs_bytes,
                                       transposed);
    }
    return moe_traffic_all_to_all(builder->arena, builder->costs, builder->pairs_bytes, transposed);
}

/* A source's tokens are read and written. */
static const double *price_permutation(moe_step_builder *builder)
{
    size_t devices = (size_t)builder->devices;
    double *permute_s = moe_arena_array(builder->arena, double, devices);
    for (size_t source = 0; source < devices; source++) {
        double bytes = 0;
        for (size_t pair = source * devices; pair < (source + 1) * devices; pair++) {
            bytes += builder->pairs_bytes[pair];
        }
        permute_s[source] = moe_cost_memory_s(builder->costs, 2 * bytes);
    }
    return permute_s;
}

static void price_exchanges(moe_step_builder *builder, const moe_routed_layer *routed,
                            moe_step_layer *built)
{
    size_t pairs = (size_t)builder->devices * (size_t)builder->devices;
    double token_bytes = moe_network_token_bytes(builder->network);
    for (size_t pair = 0; pair < pairs; pair++) {
        builder->pairs_bytes[pair] = routed->pairs[pair] * token_bytes;
    }
    built->permute_s = builder->options->low_latency ? NULL : price_permutation(builder);
    built->to_holders = price_exchange(builder, routed, token_bytes, false);
    built->to_sources = price_exchange(builder, routed, token_bytes, true);
}

/* Rows of the experts that a device computes at all: most devices hold few of them. */
static int active_rows(moe_step_builder *builder, const moe_routed_layer *routed, int device)
{
    const double *rows = routed->rows + (size_t)device * (size_t)builder->experts;
    int count = 0;
    for (int expert = 0; expert < builder->experts; expert++) {
        if (rows[expert] > 0) {
            builder->rows[count++] = rows[expert];
        }
    }
    return count;
}

/* Seconds of every phase that the step has. */
static void price_phases(moe_step_builder *builder, int count, double seconds[static 3])
{
    bool serves = moe_step_serves(builder->options);
    if (builder->options->expert_by_expert) {
        moe_step_eager_experts(builder, builder->rows, count, seconds);
        return;
    }
    for (int phase = MOE_FORWARD; phase <= (serves ? MOE_FORWARD : MOE_WEIGHT_GRADIENT); phase++) {
        moe_expert_shape shape =
            moe_step_expert_shape(builder->network, serves ? MOE_SERVING : (moe_phase)phase);
        seconds[phase] = moe_cost_experts_s(builder->costs, &shape, builder->rows, count);
    }
}

static void price_experts(moe_step_builder *builder, const moe_routed_layer *routed,
                          moe_step_layer *built)
{
    double *forward_s = moe_arena_array(builder->arena, double, (size_t)builder->devices);
    double *backward_s = moe_arena_array(builder->arena, double, (size_t)builder->devices);
    bool again = builder->options->recompute == MOE_RECOMPUTE_EXPERTS;
    for (int device = 0; device < builder->devices; device++) {
        int count = active_rows(builder, routed, device);
        double seconds[3] = {0};
        price_phases(builder, count, seconds);
        forward_s[device] = seconds[MOE_FORWARD];
        backward_s[device] = seconds[MOE_INPUT_GRADIENT] + seconds[MOE_WEIGHT_GRADIENT] +
                             (again ? seconds[MOE_FORWARD] : 0);
    }
    built->experts_forward_s = forward_s;
    built->experts_backward_s = backward_s;
}

static const moe_traffic *price_chunks(moe_step_builder *builder, moe_collective_kind kind,
                                       moe_chunk_list chunks)
{
    double bytes = kind == MOE_BROADCAST ? moe_network_expert_bytes(builder->network)
                                         : moe_network_expert_gradient_bytes(builder->network);
    return moe_traffic_chunks(builder->arena, builder->costs, kind, chunks.items, chunks.count,
                              bytes, builder->schedule->algorithm);
}

/* Re-materialization frees the copies within the micro-batch, so it gathers in every one. */
static bool materializes(const moe_step_builder *builder)
{
    return builder->micro_batch == 0 || builder->schedule->gather == MOE_GATHER_PER_MICRO_BATCH ||
           builder->schedule->rematerialize;
}

static void price_sparse(moe_step_builder *builder, const moe_routed_layer *routed, int layer,
                         moe_step_layer *built)
{
    if (materializes(builder)) {
        moe_chunk_list chunks = {routed->materialized, routed->materialized_count};
        built->materialize = price_chunks(builder, MOE_BROADCAST, chunks);
    }
    built->calibrate = price_chunks(builder, MOE_BROADCAST,
                                    (moe_chunk_list){routed->calibrated, routed->calibrated_count});
    if (moe_step_serves(builder->options)) {
        return;
    }
    if (builder->schedule->rematerialize) {
        built->rematerialize =
            routed->calibrated_count == 0
                ? built->materialize
                : price_chunks(builder, MOE_BROADCAST, moe_step_gathered_chunks(builder, layer));
    }
    built->reduce = price_chunks(builder, MOE_REDUCE, moe_step_reduced_chunks(builder, layer));
}

void moe_step_price_layers(moe_step_builder *builder)
{
    size_t first = (size_t)builder->micro_batch * (size_t)builder->layers;
    for (int layer = 0; layer < builder->layers; layer++) {
        const moe_routed_layer *routed = &builder->step->routed[first + (size_t)layer];
        moe_step_layer *built = &builder->built[layer];
        *built = (moe_step_layer){.planning_s = routed->planning_s, .materialize_op = -1};
        price_exchanges(builder, routed, built);
        price_experts(builder, routed, built);
        price_sparse(builder, routed, layer, built);
    }
}
