/* One step, decided but not yet priced: what the builder turns into a step program.
 *
 * Flow of one micro-batch (names of operations in quotes; X: exchange stream, S: sparse, G: gradient):
 *
 *   forward               S "materialize"          spAG of a layer's chunks, beside attention
 *                         "embedding forward"
 *            layer l      "attention forward"      attention and gate
 *                         X "gather loads"         all-gather of the counts, then the host waits for them
 *                         host "plan"              synchronisation, and planning charged by the policy
 *                         S "calibrate"            spAG of what was added after the gate: exposed
 *                         "permute" X "dispatch" "experts forward" X "combine" "unpermute"
 *                         "shared experts forward" beside "dispatch", after "permute"
 *   head                  "head"                   LM head and loss, forward and backward
 *                         G "head gradients"       where the head is not tied to the embedding
 *   backward, layer l     under full recomputation: "attention recompute" "permute recompute" X "dispatch
 *                         recompute" "experts recompute" X "combine recompute" "unpermute recompute"
 *                         "unpermute backward" X "combine backward" "experts backward" (input and weight
 *                         gradients; forward again if experts alone are recomputed) X "dispatch backward"
 *                         S "reduce" (spRS)  S "re-materialize" of layer l - 1
 *                         G "expert gradients"     expert-DP all-reduce, after "dispatch backward" and "reduce"
 *                         "permute backward" "attention backward"
 *                         G "dense gradients"      all-reduce, or reduce-scatter under ZeRO-1
 *                         "embedding backward"
 *   step                  G "embedding gradients"  "optimizer"  [ZeRO-1: G "gather parameters"]
 *
 * Dense layers stand before layer 0: "attention forward" and "dense forward"; backward "dense backward" and
 * "attention backward", with "attention recompute" and "dense recompute" before them under full recomputation,
 * and their own "dense gradients". Operations carry the network's number of their layer, dense ones counted;
 * routing and placement have the layers with experts alone. Shared experts are computed like a dense layer's
 * feed-forward network: "shared experts backward" beside "combine backward", after "unpermute backward";
 * "shared experts recompute" beside "dispatch recompute", under full recomputation alone. The exchange beside
 * them has no slowdown and takes no SMs: it is waited for.
 *
 * A step that serves (prefill, decode) is the forward pass alone, of `micro_batches` passes one after another,
 * with the attention of models/serving.h and a "head" for the last token of every sequence. Nothing is kept for
 * a backward pass, reduced or updated; copies that a policy keeps (`persistent_copies`) are parameters that
 * nothing has to materialize. Low latency (DeepEP's kernels for decoding): buffers have fixed places, so loads
 * are neither gathered nor waited for, and "dispatch" and "combine" read and write tokens in place, without
 * "permute" and "unpermute", at the profile's all_to_all_low_latency. Graphs: the host launches once for all
 * kernels up to the next wait of the host ("plan"), or to the end of the pass.
 *
 * Re-sharding ("rearrange") and the planning before it ("plan") come first, on the critical path. The host
 * launches each group of kernels ("launch") before it starts. A collective in which nothing crosses is not
 * emitted: a policy that materializes nothing yields EP's program, operation for operation. Without a
 * vocabulary there are no embedding, head and loss.
 *
 * An exchange of tokens in parts (slot_pairs) is as many operations of the same name, one after another.
 *
 * Recomputation keeps the routing: counts are neither gathered nor waited for a second time.
 *
 * hide_under: ATTENTION: a layer's materialization may start when the layer before (dense or not) has ended and is
 * awaited by the layer's dispatch; its reduction starts when "dispatch backward" has ended and is awaited
 * by the next exchange of tokens, mostly "combine backward" (the paper's rule: hidden under attention
 * only). LAYER: the materialization may start a whole layer earlier and is awaited by the experts; the
 * reduction starts right after "experts backward" and is awaited by the optimizer. The sparse stream is
 * one queue: under LAYER a calibration waits for the materialization of the next layer, issued before it.
 *
 * Background collectives (materialize, re-materialize, reduce, gradients while computation remains) have
 * the profile's slowdown and sm_share; what is waited for (dispatch, combine, gather loads, calibrate,
 * rearrange) and what comes after the last computation (embedding gradients, gather parameters) have not.
 *
 * Micro-batches. gather: PER_STEP materializes in the first alone; calibrations are each micro-batch's
 * own. accumulate: EACH reduces replica gradients in every backward pass; HOLD once, in the last, for all
 * chunks that any micro-batch had. Dense and expert-DP gradients travel in the last alone.
 *
 * rematerialize: copies are freed after the layer's forward pass, so every micro-batch gathers them (`gather`
 * does not matter), and again before the layer's backward pass, calibrated ones included; the last
 * layer's are still there and are not gathered again.
 *
 * FLOPs: forward 1, input gradient 1, weight gradient 1 times the matrix FLOPs; attention scores backward
 * 2 times forward. Bytes on the wire: dispatch and combine move top-level token vectors of
 * `moe_network_token_bytes` per assignment, or per distinct token and device or host (`tokens`,
 * `host_tokens`: then each way alike, partial sums going back); a chunk is one expert. */
#ifndef MOE_MODELS_STEP_H
#define MOE_MODELS_STEP_H

#include "models/network.h"
#include "models/placement.h"
#include "models/program.h"

typedef enum moe_hide { MOE_HIDE_ATTENTION, MOE_HIDE_LAYER } moe_hide;
typedef enum moe_accumulate { MOE_REDUCE_EACH, MOE_REDUCE_HOLD } moe_accumulate;
typedef enum moe_gather { MOE_GATHER_PER_STEP, MOE_GATHER_PER_MICRO_BATCH } moe_gather;
typedef enum moe_recompute { MOE_RECOMPUTE_NONE, MOE_RECOMPUTE_EXPERTS, MOE_RECOMPUTE_FULL } moe_recompute;
/* What of a token is sent once (policies/once.h). */
extern const char *const moe_once_names[]; /* NULL-terminated */
typedef enum moe_once { MOE_ONCE_PER_ASSIGNMENT, MOE_ONCE_PER_DEVICE, MOE_ONCE_PER_HOST } moe_once;
typedef enum moe_optimizer_sharding { MOE_OPTIMIZER_REPLICATED, MOE_OPTIMIZER_ZERO1 } moe_optimizer_sharding;

typedef enum moe_step_kind { MOE_STEP_TRAIN, MOE_STEP_PREFILL, MOE_STEP_DECODE } moe_step_kind;
extern const char *const moe_step_kind_names[]; /* "train", "prefill", "decode"; NULL-terminated */

/* Set by the policy; the same for every step of a run. */
typedef struct moe_schedule {
    moe_hide hide_under;
    bool rematerialize;
    moe_accumulate accumulate;
    moe_gather gather;
    moe_chunk_algorithm algorithm;
    bool waits_for_reduction; /* replicas' gradients reach their owners before the backward pass goes on */
    bool gathers_loads; /* the all-gather of counts (dropless EP needs it, too) */
    bool persistent_copies; /* serving: the placement's copies stay from step to step; nothing is materialized */
} moe_schedule;

/* Set by the scenario. */
typedef struct moe_step_options {
    int micro_batches;
    double tokens;    /* of one device and micro-batch */
    int recompute;          /* moe_recompute */
    int optimizer_sharding; /* moe_optimizer_sharding */
    bool interference;      /* false: slowdown 1 and sm_share 0 everywhere */
    int kind;               /* moe_step_kind; what follows is for steps that serve */
    double sequences;       /* of one device: prompts, or sequences that decode one token each */
    double context;         /* of a sequence: cached before a prefill; attended to by a decode */
    bool low_latency;
    bool graphs;
    bool experts_alone; /* of each layer with experts only what stands between gate and combine, forward and
                         * backward: no attention, no dense gradients, no optimizer (a benchmark of the layer) */
    /* Experts are computed one after another, as FastMoE does and eager PyTorch over cuBLAS would, not in grouped
     * GEMMs: an expert costs what a dense FFN of its rows does (moe_dense_ffn), and what kernels of their own move.
     * With v bytes a value, u = f (gated 2 f), bytes a row:
     *   forward           (2 (u + d) v: biases written for the GEMM to add to, and read) + (u + f) v: activation
     *                     + 2 d v: copied into the layer's output
     *   input gradient    (2 u + f) v: activation + 2 d v: copied
     *   weight gradient   ((u + d) v: summed to the biases' gradients); once an expert three times its gradients'
     *                     bytes: added to those that are there
     * Biases only where the network has them. Not modelled: launches that the host cannot keep up with. */
    bool expert_by_expert;
} moe_step_options;

/* One MoE layer of one micro-batch, routed. Arrays live in the step's arena. */
typedef struct moe_routed_layer {
    const double *pairs;    /* [devices][devices] assignments sent from a source device to a copy's device */
    const double *rows;     /* [devices][experts] rows that each device computes of each expert */
    const double *tokens;   /* [devices][devices] distinct tokens among the assignments of `pairs`; NULL: each of
                             * those is sent */
    const double *host_tokens; /* [devices][hosts] the same for hosts, where a token crosses to a host once; or NULL */
    const double *slot_pairs; /* [slots][devices][devices] `pairs` by the place of the expert on its device: one
                               * exchange each, one after another (FastMoE); NULL: all at once */
    int slots;
    const moe_chunk *materialized; /* before the forward pass; one per (group, expert) with copies beyond its owner */
    int materialized_count;
    const moe_chunk *calibrated; /* added after the gate */
    int calibrated_count;
    double planning_s; /* host time after the gate, beyond the synchronisation */
} moe_routed_layer;

typedef struct moe_step {
    const moe_routed_layer *routed; /* [micro_batches][layers] */
    const moe_transfer *moves;      /* re-sharding: parameters and optimizer state */
    size_t move_count;
    double planning_s; /* host time before the step */
} moe_step;

static inline bool moe_step_serves(const moe_step_options *options)
{
    return options->kind != MOE_STEP_TRAIN;
}

/* The step program, in `arena`. */
moe_program *moe_step_build(moe_arena *arena, const moe_costs *costs, const moe_network *network,
                            const moe_layout *layout, const moe_placement *placement,
                            const moe_step_options *options, const moe_schedule *schedule,
                            const moe_step *step);

/* Memory of a device during the step; every member in bytes, peak = the sum of the others but capacity.
 *
 *   kv_cache       serving: keys and values of every sequence, new tokens included
 *   materialized   Hecate's accounting (research: Fig. 13): replica parameters are kept for all layers,
 *                  or one layer when re-materialized; replica gradients for one layer (all, when held over
 *                  micro-batches); replicas carry no optimizer state. Hidden under a whole layer, "one" is
 *                  two layers in a row: the next one's are under way.
 *   activations    what each layer saves for backward (attention: moe_network_attention_values, 8 token
 *                  vectors with MHA; experts: 2 d + 2 f values a row, gated 2 d + 3 f, from the rows each
 *                  device really receives; experts recomputed: 2 d; shared experts and dense layers 2 f or
 *                  3 f a token; all recomputed: one token vector a layer and no more), plus the larger of the
 *                  logits (training dtype, and fp32) and the layer being recomputed; of the micro-batch
 *                  with most rows
 *   buffers        staging of the largest exchange, sent and received, and `library_bytes`
 *
 * ZeRO-1 shards the optimizer state of dense parameters alone. Serving: no gradients and no optimizer;
 * activations are those of one layer at work, or the logits of one token a sequence; persistent copies are
 * parameters. */
typedef struct moe_memory {
    double parameters;
    double gradients;
    double optimizer;
    double materialized;
    double activations;
    double buffers;
    double reserved;
    double peak;
    double capacity;
    double kv_cache;
} moe_memory;

typedef struct moe_memory_options {
    double library_bytes;     /* NCCL, cuBLAS, context: per device */
    double reserved_fraction; /* of capacity: fragmentation, the framework's own */
} moe_memory_options;

/* Memory of one device. */
moe_memory moe_step_memory(const moe_cluster *cluster, const moe_network *network,
                           const moe_layout *layout, const moe_placement *placement,
                           const moe_step_options *options, const moe_schedule *schedule,
                           const moe_memory_options *memory, const moe_step *step, int device);

/* Serving: forward seconds of attention and gate of the network's layer `number`. */
double moe_step_serving_attention_s(const moe_costs *costs, const moe_network *network,
                                    const moe_step_options *options, int64_t number);

/* What one phase of one expert costs per row, as the cost law wants it: every matrix reads its input and
 * writes its output; the weight gradient writes gradients instead of reading weights. Biases are bytes, but
 * no FLOPs. */
moe_expert_shape moe_step_expert_shape(const moe_network *network, moe_phase phase);

/* Bytes one more materialized expert in every layer costs a device (slots: what a policy divides by). With
 * accumulate HOLD its gradients are counted for all layers, as with several micro-batches. */
double moe_memory_slot_bytes(const moe_network *network, const moe_schedule *schedule);
/* The same without gradients: what it costs a step that serves. */
double moe_memory_serving_slot_bytes(const moe_network *network, const moe_schedule *schedule);

/* Memory of a device that holds `owned` experts over all layers and receives at most `rows` rows in each
 * layer, with nothing materialized: what a policy may assume of a step it has not seen. */
moe_memory moe_memory_estimate(const moe_cluster *cluster, const moe_network *network,
                               const moe_layout *layout, const moe_step_options *options,
                               const moe_memory_options *memory, double owned, double rows);

#endif
