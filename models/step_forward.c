/* The forward pass of one micro-batch, and the head. */
#include "models/dense_cost.h"
#include "models/step_builder.h"

/* Kernels of a layer's attention and gate, the gathering of loads, and the spAG issued with them.
 */
static int attention_kernels(const moe_step_builder *builder, int layer)
{
    int attention = builder->options->experts_alone ? 0 : MOE_KERNELS_ATTENTION;
    int kernels = attention + moe_step_kernels(builder->loads);
    if (moe_step_hides_under_attention(builder)) {
        return kernels + moe_step_kernels(builder->built[layer].materialize);
    }
    if (layer == 0 && builder->dense_layers == 0) {
        kernels += moe_step_kernels(builder->built[0].materialize);
    }
    return layer + 1 < builder->layers
               ? kernels + moe_step_kernels(builder->built[layer + 1].materialize)
               : kernels;
}

static void materialize(moe_step_builder *builder, int layer)
{
    if (layer >= builder->layers) {
        return;
    }
    moe_step_layer *built = &builder->built[layer];
    int here = builder->layer;
    builder->layer = moe_step_number(builder, layer); /* that layer's, wherever it is issued */
    built->materialize_op = moe_step_beside(builder, &(moe_step_side){.name = "materialize",
                                                                      .part = MOE_MATERIALIZE,
                                                                      .stream = MOE_STREAM_SPARSE,
                                                                      .traffic = built->materialize,
                                                                      .background = true,
                                                                      .wait = -1});
    builder->layer = here;
}

/* Issued when the layer before has ended: this layer's, or, a layer ahead, the next one's. Before
 * the first stands nothing, or the last dense layer. */
static void issue_materializations(moe_step_builder *builder, int layer)
{
    bool ahead = !moe_step_hides_under_attention(builder);
    if (!ahead || (layer == 0 && builder->dense_layers == 0)) {
        materialize(builder, layer);
    }
    if (ahead) {
        materialize(builder, layer + 1);
    }
}

/* Waits for the counts on the host, then launches what the device waits for. */
static void synchronise(moe_step_builder *builder, int layer)
{
    const moe_step_layer *built = &builder->built[layer];
    moe_step_exchange(builder, "gather loads", MOE_DISPATCH, builder->loads);
    bool waits = moe_step_gathers_loads(builder);
    if (waits || built->planning_s > 0) {
        double sync_s = waits ? moe_cost_host_sync_s(builder->costs) : 0;
        moe_step_plan(builder, sync_s + built->planning_s);
    }
    int permute = built->permute_s != NULL ? MOE_KERNELS_PERMUTE : 0;
    moe_step_launch(builder, permute + moe_step_kernels(built->calibrate) +
                                 moe_step_kernels(built->to_holders));
}

static int calibrate(moe_step_builder *builder, const moe_step_layer *built)
{
    return moe_step_beside(builder, &(moe_step_side){.name = "calibrate",
                                                     .part = MOE_MATERIALIZE,
                                                     .stream = MOE_STREAM_SPARSE,
                                                     .traffic = built->calibrate,
                                                     .wait = -1});
}

/* The end of the layer, and all up to the next synchronisation: launched while the experts compute.
 */
static void launch_rest(moe_step_builder *builder, int layer)
{
    const moe_step_layer *built = &builder->built[layer];
    int unpermute = built->permute_s != NULL ? MOE_KERNELS_UNPERMUTE : 0;
    int kernels = unpermute + moe_step_kernels(built->to_sources);
    if (layer + 1 < builder->layers) {
        kernels += attention_kernels(builder, layer + 1);
    } else if (builder->network->vocabulary > 0) {
        kernels += moe_step_serves(builder->options) ? MOE_KERNELS_SAMPLE : MOE_KERNELS_HEAD;
    }
    moe_step_launch(builder, kernels);
}

/* Nothing where the exchange reads and writes tokens in place. Its id, or the operation before. */
static int permute(moe_step_builder *builder, const char *name, moe_part part,
                   const moe_step_layer *built)
{
    return built->permute_s != NULL ? moe_step_compute(builder, name, part, built->permute_s)
                                    : builder->after[0];
}

static void dispatch_and_compute(moe_step_builder *builder, int layer)
{
    moe_step_layer *built = &builder->built[layer];
    int calibrate_op = calibrate(builder, built);
    bool before_dispatch = moe_step_hides_under_attention(builder);
    int before = permute(builder, "permute", MOE_DISPATCH, built);
    if (before_dispatch) {
        moe_step_await_parameters(builder, built);
        moe_step_await(builder, calibrate_op);
        moe_step_await_reduction(builder);
    }
    moe_step_exchange(builder, "dispatch", MOE_DISPATCH, built->to_holders);
    moe_step_shared(builder, "shared experts forward", builder->shared.forward_s,
                    MOE_KERNELS_SHARED, before);
    moe_step_launch(builder, MOE_KERNELS_EXPERTS);
    if (!before_dispatch) {
        moe_step_await_parameters(builder, built);
        moe_step_await(builder, calibrate_op);
    }
    moe_step_compute(builder, "experts forward", MOE_EXPERT, built->experts_forward_s);
    launch_rest(builder, layer);
    moe_step_exchange(builder, "combine", MOE_COMBINE, built->to_sources);
    permute(builder, "unpermute", MOE_COMBINE, built);
}

/* Rows of the table read and written out. */
static void embed(moe_step_builder *builder)
{
    if (builder->network->vocabulary > 0) {
        double bytes = 2 * builder->options->tokens * moe_network_token_bytes(builder->network);
        double seconds = moe_cost_memory_s(builder->costs, bytes);
        moe_step_compute(builder, "embedding forward", MOE_DENSE,
                         moe_step_uniform(builder, seconds));
    }
}

/* Whether the first materialization is issued before this dense layer. */
static bool issues_ahead(const moe_step_builder *builder, int number)
{
    return number == builder->dense_layers - 1 && !moe_step_hides_under_attention(builder);
}

/* Kernels of a layer by its number, up to its synchronisation if it has one. */
static int layer_kernels(const moe_step_builder *builder, int number)
{
    if (number >= builder->dense_layers) {
        return attention_kernels(builder, number - builder->dense_layers);
    }
    return MOE_KERNELS_DENSE_LAYER +
           (issues_ahead(builder, number) ? moe_step_kernels(builder->built[0].materialize) : 0);
}

static void attend(moe_step_builder *builder, int number)
{
    builder->layer = number;
    if (!builder->options->experts_alone) {
        moe_step_compute(builder, "attention forward", MOE_DENSE,
                         moe_step_attention(builder, number)->forward_s);
    }
}

static void dense_layers_forward(moe_step_builder *builder)
{
    for (int number = 0; number < builder->dense_layers; number++) {
        if (issues_ahead(builder, number)) {
            materialize(builder, 0);
        }
        attend(builder, number);
        moe_step_compute(builder, "dense forward", MOE_DENSE, builder->dense.forward_s);
        builder->layer = -1;
        moe_step_launch(builder, layer_kernels(builder, number + 1));
    }
}

void moe_step_forward(moe_step_builder *builder)
{
    int embedding = builder->network->vocabulary > 0 ? MOE_KERNELS_EMBEDDING : 0;
    moe_step_launch(builder, embedding + layer_kernels(builder, 0));
    if (builder->dense_layers > 0) {
        embed(builder);
        dense_layers_forward(builder);
    }
    for (int layer = 0; layer < builder->layers; layer++) {
        issue_materializations(builder, layer);
        if (moe_step_number(builder, layer) == 0) {
            embed(builder);
        }
        attend(builder, moe_step_number(builder, layer));
        synchronise(builder, layer);
        dispatch_and_compute(builder, layer);
        builder->layer = -1;
    }
}

/* Forward, loss, input gradient and weight gradient in one. */
void moe_step_head(moe_step_builder *builder)
{
    const moe_network *network = builder->network;
    if (network->vocabulary == 0) {
        return;
    }
    if (moe_step_serves(builder->options)) {
        moe_step_serving_head(builder);
        return;
    }
    double seconds = moe_dense_head_s(builder->costs, network, builder->options->tokens);
    moe_step_compute(builder, "head", MOE_DENSE, moe_step_uniform(builder, seconds));
}
