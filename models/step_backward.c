/* The backward pass of one micro-batch, with recomputation and the reductions of gradients. */
#include "models/step_builder.h"

/* A tied head shares its gradient with the embedding, which is complete only at the very end. */
static double head_parameters(const moe_network *network)
{
    return network->tied_embeddings ? 0 : (double)network->vocabulary * (double)network->hidden;
}

/* A gradient collective of the last micro-batch, in the background unless it is the last of all. */
static void reduce_gradients(moe_step_builder *builder, const char *name,
                             const moe_traffic *traffic, bool background, int wait)
{
    int op = moe_step_beside(builder, &(moe_step_side){.name = name,
                                                       .part = MOE_GRADIENT_SYNC,
                                                       .stream = MOE_STREAM_GRADIENT,
                                                       .traffic = traffic,
                                                       .background = background,
                                                       .wait = wait});
    builder->last_gradient = op >= 0 ? op : builder->last_gradient;
}

/* --- sparse collectives ----------------------------------------------------------------------- */

/* Asked for the layer below one that goes backward, so never for the last: its backward pass
 * follows its forward pass, with nothing between that could use the memory. */
static const moe_traffic *gathered_again(const moe_step_builder *builder, int layer)
{
    return layer >= 0 ? builder->built[layer].rematerialize : NULL;
}

static void rematerialize(moe_step_builder *builder, int layer)
{
    const moe_traffic *traffic = gathered_again(builder, layer);
    if (traffic == NULL) {
        return;
    }
    int here = builder->layer;
    builder->layer = moe_step_number(builder, layer);
    builder->built[layer].materialize_op =
        moe_step_beside(builder, &(moe_step_side){.name = "re-materialize",
                                                  .part = MOE_MATERIALIZE,
                                                  .stream = MOE_STREAM_SPARSE,
                                                  .traffic = traffic,
                                                  .background = true,
                                                  .wait = -1});
    builder->layer = here;
}

static int reduce(moe_step_builder *builder, const moe_step_layer *built)
{
    int op = moe_step_beside(builder, &(moe_step_side){.name = "reduce",
                                                       .part = MOE_REDUCE_PART,
                                                       .stream = MOE_STREAM_SPARSE,
                                                       .traffic = built->reduce,
                                                       .background = !builder->schedule->waits_for_reduction,
                                                       .wait = -1});
    builder->last_reduce = op >= 0 ? op : builder->last_reduce;
    if (moe_step_hides_under_attention(builder)) {
        builder->exchange_awaits = op;
    }
    return op;
}

/* What the paper's rule lets nothing run beside: an exchange of tokens. */
static void before_exchange(moe_step_builder *builder, moe_step_layer *built)
{
    if (moe_step_hides_under_attention(builder)) {
        moe_step_await_reduction(builder);
        moe_step_await_parameters(builder, built);
    }
}

/* --- one layer -------------------------------------------------------------------------------- */

/* The embedding's backward pass is launched with the layer above it. */
static int embedding_kernels(const moe_step_builder *builder, int number)
{
    return number == 0 && builder->network->vocabulary > 0 ? MOE_KERNELS_EMBEDDING : 0;
}

static int backward_kernels(const moe_step_builder *builder, int layer)
{
    const moe_step_layer *built = &builder->built[layer];
    int exchanges = moe_step_kernels(built->to_holders) + moe_step_kernels(built->to_sources);
    int compute = MOE_KERNELS_EXPERTS + (builder->options->experts_alone ? 0 : MOE_KERNELS_ATTENTION);
    compute += builder->shared.forward_s != NULL ? MOE_KERNELS_SHARED : 0;
    int permutes = MOE_KERNELS_PERMUTE + MOE_KERNELS_UNPERMUTE;
    int kernels = MOE_KERNELS_BACKWARD * compute + permutes + exchanges;
    if (builder->options->recompute == MOE_RECOMPUTE_EXPERTS) {
        kernels += MOE_KERNELS_EXPERTS;
    } else if (builder->options->recompute == MOE_RECOMPUTE_FULL) {
        kernels += compute + permutes + exchanges;
    }
    kernels += moe_step_kernels(built->reduce);
    kernels += moe_step_kernels(gathered_again(builder, layer - 1));
    if (moe_step_is_last_micro_batch(builder)) {
        kernels += builder->options->experts_alone ? 0 : moe_step_kernels(builder->gradients[0]);
        kernels += builder->layout->groups > 1 ? MOE_KERNELS_COLLECTIVE : 0;
    }
    return kernels + embedding_kernels(builder, moe_step_number(builder, layer));
}

/* The whole layer forward again, with the routing it had: no counts are gathered, nothing is
 * planned. */
static void recompute(moe_step_builder *builder, moe_step_layer *built)
{
    if (!builder->options->experts_alone) {
        moe_step_compute(builder, "attention recompute", MOE_DENSE,
                         moe_step_attention(builder, builder->layer)->forward_s);
    }
    int permuted = moe_step_compute(builder, "permute recompute", MOE_DISPATCH, built->permute_s);
    before_exchange(builder, built);
    moe_step_exchange(builder, "dispatch recompute", MOE_DISPATCH, built->to_holders);
    moe_step_shared(builder, "shared experts recompute", builder->shared.forward_s, 0, permuted);
    moe_step_await_parameters(builder, built);
    moe_step_compute(builder, "experts recompute", MOE_EXPERT, built->experts_forward_s);
    moe_step_exchange(builder, "combine recompute", MOE_COMBINE, built->to_sources);
    moe_step_compute(builder, "unpermute recompute", MOE_COMBINE, built->permute_s);
}

/* From the gradient of the layer's output to that of the experts' inputs. */
static void experts_backward(moe_step_builder *builder, moe_step_layer *built)
{
    int unpermuted = moe_step_compute(builder, "unpermute backward", MOE_COMBINE, built->permute_s);
    before_exchange(builder, built);
    moe_step_exchange(builder, "combine backward", MOE_COMBINE, built->to_holders);
    moe_step_shared(builder, "shared experts backward", builder->shared.backward_s, 0, unpermuted);
    moe_step_await_parameters(builder, built);
    moe_step_compute(builder, "experts backward", MOE_EXPERT, built->experts_backward_s);
}

/* Brings the gradients back to their sources and, beside that or after, replicas' to their owners.
 */
static void return_gradients(moe_step_builder *builder, int layer)
{
    moe_step_layer *built = &builder->built[layer];
    bool after_exchange = moe_step_hides_under_attention(builder);
    int reduce_op = after_exchange ? -1 : reduce(builder, built);
    moe_step_exchange(builder, "dispatch backward", MOE_DISPATCH, built->to_sources);
    if (after_exchange) {
        reduce_op = reduce(builder, built);
        rematerialize(builder, layer - 1);
    }
    if (builder->schedule->waits_for_reduction) {
        moe_step_await(builder, reduce_op);
    }
    if (moe_step_is_last_micro_batch(builder)) {
        reduce_gradients(builder, "expert gradients", moe_step_expert_gradients(builder, layer),
                         true, reduce_op);
    }
}

/* Of the layer that the builder stands at, which is then complete. */
static void attention_backward(moe_step_builder *builder)
{
    int number = builder->layer;
    if (builder->options->experts_alone) {
        return;
    }
    moe_step_compute(builder, "attention backward", MOE_DENSE,
                     moe_step_attention(builder, number)->backward_s);
    if (moe_step_is_last_micro_batch(builder)) {
        bool computes_on = number > 0 || builder->network->vocabulary > 0;
        reduce_gradients(builder, "dense gradients",
                         builder->gradients[number < builder->dense_layers], computes_on, -1);
    }
}

static void layer_backward(moe_step_builder *builder, int layer)
{
    moe_step_layer *built = &builder->built[layer];
    moe_step_launch(builder, backward_kernels(builder, layer));
    if (!moe_step_hides_under_attention(builder)) {
        rematerialize(builder, layer - 1);
    }
    if (builder->options->recompute == MOE_RECOMPUTE_FULL) {
        recompute(builder, built);
    }
    experts_backward(builder, built);
    return_gradients(builder, layer);
    moe_step_compute(builder, "permute backward", MOE_DISPATCH, built->permute_s);
    attention_backward(builder);
}

static void dense_layer_backward(moe_step_builder *builder, int number)
{
    bool again = builder->options->recompute == MOE_RECOMPUTE_FULL;
    int kernels = MOE_KERNELS_DENSE_LAYER * (MOE_KERNELS_BACKWARD + again);
    if (moe_step_is_last_micro_batch(builder)) {
        kernels += moe_step_kernels(builder->gradients[1]);
    }
    moe_step_launch(builder, kernels + embedding_kernels(builder, number));
    if (again) {
        moe_step_compute(builder, "attention recompute", MOE_DENSE,
                         moe_step_attention(builder, number)->forward_s);
        moe_step_compute(builder, "dense recompute", MOE_DENSE, builder->dense.forward_s);
    }
    moe_step_compute(builder, "dense backward", MOE_DENSE, builder->dense.backward_s);
    attention_backward(builder);
}

/* --- the pass --------------------------------------------------------------------------------- */

/* Each token's gradient is read and added to its row of the table's gradient. */
static void embed_backward(moe_step_builder *builder)
{
    const moe_network *network = builder->network;
    double values = builder->options->tokens * (double)network->hidden;
    double bytes = values * (moe_network_activation_bytes(network) +
                             2 * moe_dtype_bytes(network->gradient_dtype));
    double seconds = moe_cost_memory_s(builder->costs, bytes);
    moe_step_compute(builder, "embedding backward", MOE_DENSE, moe_step_uniform(builder, seconds));
}

void moe_step_backward(moe_step_builder *builder)
{
    const moe_network *network = builder->network;
    bool last = moe_step_is_last_micro_batch(builder);
    if (last && network->vocabulary > 0) {
        reduce_gradients(builder, "head gradients",
                         moe_step_dense_gradients(builder, head_parameters(network)), true, -1);
    }
    for (int layer = builder->layers - 1; layer >= 0; layer--) {
        builder->layer = moe_step_number(builder, layer);
        layer_backward(builder, layer);
    }
    for (int number = builder->dense_layers - 1; number >= 0; number--) {
        builder->layer = number;
        dense_layer_backward(builder, number);
    }
    builder->layer = -1;
    if (network->vocabulary == 0) {
        return;
    }
    embed_backward(builder);
    if (last) {
        double parameters = moe_network_embedding_parameters(network) - head_parameters(network);
        reduce_gradients(builder, "embedding gradients",
                         moe_step_dense_gradients(builder, parameters), false, -1);
    }
}
