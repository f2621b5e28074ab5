/* Memory of one device during a step: Hecate's accounting (research: Fig. 13) of parameters,
 * gradients, optimizer state and copies, and what activations and buffers take on top. */
#include "models/step.h"

#include <math.h>

/* What every figure here depends on. */
typedef struct memory_case {
    const moe_cluster *cluster;
    const moe_network *network;
    const moe_layout *layout;
    const moe_step_options *options;
    const moe_memory_options *memory;
} memory_case;

/* --- state: parameters, gradients, optimizer -------------------------------------------------- */

static void add_state(const memory_case *of, double owned, moe_memory *memory)
{
    const moe_network *network = of->network;
    double dense = moe_network_dense_parameters(network);
    double experts = owned * moe_network_expert_parameters(network);
    bool sharded = of->options->optimizer_sharding == MOE_OPTIMIZER_ZERO1;
    double own_dense = sharded ? dense / of->layout->devices : dense;
    memory->parameters =
        moe_network_dense_bytes(network) + owned * moe_network_expert_bytes(network);
    if (moe_step_serves(of->options)) {
        return;
    }
    memory->gradients = (dense + experts) * moe_dtype_bytes(network->gradient_dtype);
    memory->optimizer = (own_dense + experts) * network->optimizer_bytes_per_parameter;
}

static double count_owned(const moe_placement *placement, const moe_layout *layout, int device)
{
    int group = moe_layout_group(layout, device);
    int owned = 0;
    for (int layer = 0; layer < placement->layers; layer++) {
        const int *owner = moe_placement_owner(placement, layer, group, 0);
        for (int expert = 0; expert < placement->experts; expert++) {
            owned += owner[expert] == device;
        }
    }
    return owned;
}

/* Owned, and copies that stay. */
static double count_held(const moe_placement *placement, int device)
{
    int held = 0;
    for (int layer = 0; layer < placement->layers; layer++) {
        for (int expert = 0; expert < placement->experts; expert++) {
            held += moe_set_has(moe_placement_copies(placement, layer, expert), device);
        }
    }
    return held;
}

/* --- copies ----------------------------------------------------------------------------------- */

/* How many layers' copies are in memory at once where each is freed after use: hidden under a whole
 * layer, the next layer's are under way while this one's are in use. */
static int layers_at_once(const moe_schedule *schedule)
{
    return schedule->hide_under == MOE_HIDE_LAYER ? 2 : 1;
}

/* Copies of one device, in experts. */
typedef struct copy_counts {
    double parameters; /* in memory at once */
    double gradients;
} copy_counts;

static int count_wanted(const moe_chunk *chunks, int count, int device)
{
    int wanted = 0;
    for (int i = 0; i < count; i++) {
        wanted += chunks[i].owner != device && moe_set_has(chunks[i].want, device);
    }
    return wanted;
}

/* A micro-batch's copies: over all layers, and the most that `window` layers in a row have. */
typedef struct layer_sums {
    double all;
    double window;
    double calibrated; /* part of `all` */
} layer_sums;

static layer_sums sum_layers(const moe_routed_layer *routed, int layers, int window, int device)
{
    layer_sums sums = {0};
    double before = 0;
    for (int layer = 0; layer < layers; layer++) {
        const moe_routed_layer *of = &routed[layer];
        double calibrated = count_wanted(of->calibrated, of->calibrated_count, device);
        double here = calibrated + count_wanted(of->materialized, of->materialized_count, device);
        sums.all += here;
        sums.calibrated += calibrated;
        sums.window = fmax(sums.window, window > 1 ? before + here : here);
        before = here;
    }
    return sums;
}

/* Gradients held over micro-batches: those of what was materialized (the same in every one), and of
 * what each calibrated. */
static copy_counts count_copies(const memory_case *of, const moe_placement *placement,
                                const moe_schedule *schedule, const moe_step *step, int device)
{
    int micro_batches = of->options->micro_batches;
    bool holds = schedule->accumulate == MOE_REDUCE_HOLD && micro_batches > 1;
    copy_counts most = {0};
    double materialized = 0;
    double calibrated = 0;
    for (int m = 0; m < micro_batches; m++) {
        layer_sums sums = sum_layers(&step->routed[(size_t)m * (size_t)placement->layers],
                                     placement->layers, layers_at_once(schedule), device);
        double parameters = schedule->rematerialize ? sums.window : sums.all;
        most.parameters = fmax(most.parameters, parameters);
        most.gradients = fmax(most.gradients, sums.window);
        materialized = fmax(materialized, sums.all - sums.calibrated);
        calibrated += sums.calibrated;
    }
    if (holds) {
        most.gradients = materialized + calibrated;
    }
    if (moe_step_serves(of->options)) {
        most.gradients = 0;
    }
    return most;
}

static double copies_bytes(const moe_network *network, copy_counts counts)
{
    return counts.parameters * moe_network_expert_bytes(network) +
           counts.gradients * moe_network_expert_gradient_bytes(network);
}

static copy_counts slot_copies(const moe_network *network, const moe_schedule *schedule)
{
    double layers = (double)moe_network_moe_layers(network);
    double window = fmin(layers, layers_at_once(schedule));
    bool holds = schedule->accumulate == MOE_REDUCE_HOLD;
    return (copy_counts){.parameters = schedule->rematerialize ? window : layers,
                         .gradients = holds ? layers : window};
}

double moe_memory_slot_bytes(const moe_network *network, const moe_schedule *schedule)
{
    return copies_bytes(network, slot_copies(network, schedule));
}

double moe_memory_serving_slot_bytes(const moe_network *network, const moe_schedule *schedule)
{
    return copies_bytes(network,
                        (copy_counts){.parameters = slot_copies(network, schedule).parameters});
}

/* --- activations and buffers ------------------------------------------------------------------ */

/* Rows that a device receives: over all layers, and in the fullest. */
typedef struct row_counts {
    double all;
    double most;
} row_counts;

/* Values that one layer saves per row of an expert. */
static double row_values(const moe_network *network, bool inside)
{
    double hidden = 2 * (double)network->hidden; /* input and output */
    return inside ? hidden + moe_network_ffn_values(network, network->ffn) : hidden;
}

/* Values of a token that a layer saves: attention, whose last ones are the input of what follows;
 * inside its shared experts; inside a dense layer's feed-forward network. */
typedef struct token_values {
    double attention;
    double shared;
    double dense;
} token_values;

static token_values count_token_values(const moe_network *network)
{
    int64_t dense_width = network->dense_layers > 0 ? network->dense_ffn : 0;
    return (token_values){
        .attention = moe_network_attention_values(network),
        .shared = moe_network_ffn_values(network, moe_network_shared_width(network)),
        .dense = moe_network_ffn_values(network, dense_width),
    };
}

/* Over all layers. */
static double sum_token_values(const moe_network *network, token_values values)
{
    return (double)network->layers * values.attention +
           (double)moe_network_moe_layers(network) * values.shared +
           (double)network->dense_layers * values.dense;
}

/* Logits at the training dtype and as fp32 for the loss; serving: for the choice of a token. */
static double logits_bytes(const memory_case *of)
{
    double value_bytes = moe_network_activation_bytes(of->network);
    double tokens =
        moe_step_serves(of->options) ? of->options->sequences : of->options->tokens;
    return tokens * (double)of->network->vocabulary *
           (value_bytes + moe_dtype_bytes(MOE_FP32));
}

/* What is saved by all layers, plus the larger of what is in use at the two tops of the hill: the
 * logits at the end of the forward pass, or the layer that is being recomputed. */
static double activation_bytes(const memory_case *of, row_counts rows)
{
    const moe_network *network = of->network;
    double value_bytes = moe_network_activation_bytes(network);
    double tokens = of->options->tokens;
    token_values values = count_token_values(network);
    double inside = row_values(network, true);
    double around = row_values(network, false);
    double layer = tokens * values.attention +
                   fmax(tokens * values.shared + inside * rows.most, tokens * values.dense);
    double saved = 0;
    double working = 0;
    if (moe_step_serves(of->options)) {
        return fmax(layer * value_bytes, logits_bytes(of));
    }
    switch (of->options->recompute) {
    case MOE_RECOMPUTE_FULL:
        saved = (double)network->layers * tokens * (double)network->hidden;
        working = layer;
        break;
    case MOE_RECOMPUTE_EXPERTS:
        saved = tokens * sum_token_values(network, values) + around * rows.all;
        working = (inside - around) * rows.most;
        break;
    default:
        saved = tokens * sum_token_values(network, values) + inside * rows.all;
    }
    return saved * value_bytes + fmax(working * value_bytes, logits_bytes(of));
}

/* A prefill adds its prompts to what was cached; a decode's context has its new token already. */
static double cache_bytes(const memory_case *of)
{
    const moe_step_options *options = of->options;
    if (!moe_step_serves(options)) {
        return 0;
    }
    double prompt =
        options->kind == MOE_STEP_PREFILL ? options->tokens / options->sequences : 0;
    return options->sequences * moe_network_kv_bytes(of->network, options->context + prompt);
}

static void add_rest(const memory_case *of, row_counts rows, double exchanged, moe_memory *memory)
{
    memory->kv_cache = cache_bytes(of);
    memory->activations = activation_bytes(of, rows);
    memory->buffers = exchanged * moe_network_token_bytes(of->network) + of->memory->library_bytes;
    memory->capacity = of->cluster->spec->device.memory_bytes;
    memory->reserved = of->memory->reserved_fraction * memory->capacity;
    memory->peak = memory->parameters + memory->gradients + memory->optimizer +
                   memory->materialized + memory->kv_cache + memory->activations +
                   memory->buffers + memory->reserved;
}

/* --- of a step -------------------------------------------------------------------------------- */

static double sum_row(const double *row, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++) {
        sum += row[i];
    }
    return sum;
}

/* Activations of one micro-batch are in memory at a time; the one with most rows counts. */
static row_counts count_rows(const moe_placement *placement, const moe_step *step, int device,
                             int micro_batches, double *exchanged)
{
    row_counts most = {0};
    const moe_routed_layer *routed = step->routed;
    size_t row = (size_t)device;
    for (int m = 0; m < micro_batches; m++) {
        double all = 0;
        for (int layer = 0; layer < placement->layers; layer++, routed++) {
            double received =
                sum_row(routed->rows + row * (size_t)placement->experts, placement->experts);
            double sent =
                sum_row(routed->pairs + row * (size_t)placement->devices, placement->devices);
            all += received;
            most.most = fmax(most.most, received);
            *exchanged = fmax(*exchanged, sent + received);
        }
        most.all = fmax(most.all, all);
    }
    return most;
}

moe_memory moe_step_memory(const moe_cluster *cluster, const moe_network *network,
                           const moe_layout *layout, const moe_placement *placement,
                           const moe_step_options *options, const moe_schedule *schedule,
                           const moe_memory_options *memory, const moe_step *step, int device)
{
    const memory_case of = {cluster, network, layout, options, memory};
    moe_memory used = {0};
    double exchanged = 0;
    add_state(&of,
              schedule->persistent_copies ? count_held(placement, device)
                                          : count_owned(placement, layout, device),
              &used);
    used.materialized = copies_bytes(network, count_copies(&of, placement, schedule, step, device));
    row_counts rows = count_rows(placement, step, device, options->micro_batches, &exchanged);
    add_rest(&of, rows, exchanged, &used);
    return used;
}

moe_memory moe_memory_estimate(const moe_cluster *cluster, const moe_network *network,
                               const moe_layout *layout, const moe_step_options *options,
                               const moe_memory_options *memory, double owned, double rows)
{
    const memory_case of = {cluster, network, layout, options, memory};
    moe_memory used = {0};
    double sent = options->tokens * (double)network->top_k;
    add_state(&of, owned, &used);
    add_rest(&of, (row_counts){(double)moe_network_moe_layers(network) * rows, rows}, sent + rows,
             &used);
    return used;
}
