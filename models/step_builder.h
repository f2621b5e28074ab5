/* Private to models/step*.c: what the parts of the step builder share.
 *
 * The main chain. Most operations of a step follow one another in data (attention, dispatch,
 * experts,
 * ...) although they lie on two streams. The builder keeps what the next of them must wait for:
 * its predecessor, and whatever `moe_step_await` added. An operation that has nothing to do is not
 * emitted at all, and its successor then waits for its predecessor: so a policy that moves nothing
 * gives the very program of one that cannot.
 *
 * Host. A launch stands for the kernels up to the next one and is over before the first of them
 * starts (with one operation for several kernels, the device sees the last launch, not the first).
 * Launches that follow one another are one operation, but for what the device waits for after the
 * synchronisation on counts: permute and dispatch, then experts, have one each. */
#ifndef MOE_MODELS_STEP_BUILDER_H
#define MOE_MODELS_STEP_BUILDER_H

#include "models/step.h"

/* Kernels launched by each group of operations: what a transformer written with cuBLAS, fused
 * attention, fused norms and grouped GEMMs launches (assumed; they only set the host's pace). */
enum {
    MOE_KERNELS_EMBEDDING = 1,
    MOE_KERNELS_ATTENTION =
        10, /* 2 norms, QKV, attention, projection, 2 residual, gate, softmax, top-k */
    MOE_KERNELS_DENSE_LAYER =
        10, /* the same with a feed-forward network instead of gate, softmax, top-k */
    MOE_KERNELS_PERMUTE = 2, /* sort by expert, gather */
    MOE_KERNELS_EXPERTS = 3, /* grouped GEMM, activation, grouped GEMM */
    MOE_KERNELS_SHARED = 3,  /* GEMM, activation, GEMM */
    MOE_KERNELS_UNPERMUTE = 1,
    MOE_KERNELS_HEAD = 6,       /* norm, GEMM, loss, its gradient, two GEMMs */
    MOE_KERNELS_SAMPLE = 3,     /* serving: norm, GEMM, choice of the next token */
    MOE_KERNELS_COLLECTIVE = 1, /* a group call of NCCL is one kernel */
    MOE_KERNELS_OPTIMIZER = 2,  /* multi-tensor: norm of the gradient, update */
    MOE_KERNELS_BACKWARD = 2,   /* times those of the forward pass: input and weight gradient */
};

/* One layer of one micro-batch, priced. Traffic is NULL where nothing crosses. */
typedef struct moe_step_layer {
    const moe_traffic *to_holders; /* dispatch, combine backward */
    const moe_traffic *to_sources; /* combine, dispatch backward */
    const moe_traffic *materialize;
    const moe_traffic *calibrate;
    const moe_traffic *rematerialize;
    const moe_traffic *reduce;
    const double *permute_s; /* [devices]; unpermute, and both backward, move the same bytes; NULL: in place */
    const double *experts_forward_s;
    const double *experts_backward_s;
    double planning_s;
    int materialize_op; /* spAG that was not awaited yet, or -1 */
} moe_step_layer;

enum {
    MOE_STEP_AFTER = 8
}; /* predecessor, launch, materialize, calibrate, reduce: with room to spare */

/* What every device computes in the same time; NULL where there is nothing. */
typedef struct moe_step_times {
    const double *forward_s;
    const double *backward_s;
} moe_step_times;

typedef struct moe_step_builder {
    moe_arena *arena;
    const moe_costs *costs;
    const moe_network *network;
    const moe_layout *layout;
    const moe_placement *placement;
    const moe_step_options *options;
    const moe_schedule *schedule;
    const moe_step *step;
    moe_program_builder *program;
    int devices;
    int dense_layers; /* before the first with experts */
    int layers;       /* with experts: what placement and routing count */
    int experts;

    /* the same for every layer and micro-batch */
    const int *in_order;         /* [devices] 0, 1, 2, ...: all, and EP groups one after another */
    const int *in_expert_groups; /* [ep][groups] devices that hold the same shard */
    const moe_traffic *loads;    /* "gather loads" */
    const moe_traffic *gradients[2]; /* "dense gradients" of a layer: with experts, dense */
    moe_step_times attention[2][2];  /* and gate: [layer is dense][it has a window] */
    moe_step_times dense;            /* feed-forward network of a dense layer */
    moe_step_times shared;           /* shared experts of a layer */
    double *pairs_bytes;             /* [devices][devices] scratch */
    double *rows;                    /* [experts] scratch */

    /* where the builder stands */
    int micro_batch; /* -1 outside of micro-batches */
    int layer;       /* -1 outside of layers */
    int after[MOE_STEP_AFTER];
    int after_count;
    bool graph_runs;     /* what the host launched goes on to its next wait */
    int exchange_awaits; /* a reduction that the next exchange of tokens has to await, or -1 */
    int last_reduce;
    int last_gradient;
    moe_step_layer *built; /* [layers] of this micro-batch */
} moe_step_builder;

/* The network's number of a layer with experts: what its operations carry. */
static inline int moe_step_number(const moe_step_builder *builder, int layer)
{
    return builder->dense_layers + layer;
}

/* Of a layer by its number. */
static inline moe_step_times *moe_step_attention(moe_step_builder *builder, int number)
{
    bool dense = number < builder->dense_layers;
    return &builder->attention[dense][moe_network_has_window(builder->network, number)];
}

static inline bool moe_step_is_last_micro_batch(const moe_step_builder *builder)
{
    return builder->micro_batch == builder->options->micro_batches - 1;
}

/* Whether the host knows the loads before it goes on. */
static inline bool moe_step_gathers_loads(const moe_step_builder *builder)
{
    return builder->schedule->gathers_loads && !builder->options->low_latency;
}

/* Whether attention hides sparse collectives alone (the paper's rule). */
static inline bool moe_step_hides_under_attention(const moe_step_builder *builder)
{
    return builder->schedule->hide_under == MOE_HIDE_ATTENTION;
}

/* --- step.c: adding operations ---------------------------------------------------------------- */

/* The next operation of the main chain waits for `op` too; -1 is ignored. */
void moe_step_await(moe_step_builder *builder, int op);
/* Copies are awaited once: by the first that needs them, after each gathering. */
void moe_step_await_parameters(moe_step_builder *builder, moe_step_layer *built);
/* The next exchange of tokens awaits the reduction before it (hidden under attention only). */
void moe_step_await_reduction(moe_step_builder *builder);
/* The same duration on every device. */
const double *moe_step_uniform(moe_step_builder *builder, double seconds);
/* A host operation; `awaits`: after the main chain. Its id. */
int moe_step_host(moe_step_builder *builder, const char *name, double seconds, bool awaits);
/* Host time for `kernels` launches; the main chain awaits it. Nothing where there are none. */
void moe_step_launch(moe_step_builder *builder, int kernels);
/* The host waits for the main chain; what follows is launched anew. */
void moe_step_plan(moe_step_builder *builder, double seconds);
/* The next operations of the main chain. */
int moe_step_compute(moe_step_builder *builder, const char *name, moe_part part,
                     const double *duration_s);
void moe_step_exchange(moe_step_builder *builder, const char *name, moe_part part,
                       const moe_traffic *traffic);
/* Shared experts beside the exchange of tokens just added: after `wait`, with `kernels` launches of
 * their own (0: launched before). Nothing where there are none. */
void moe_step_shared(moe_step_builder *builder, const char *name, const double *duration_s,
                     int kernels, int wait);

/* A collective beside the main chain that starts when the main chain has come here and `wait` (or
 * -1) has ended. `background`: computation runs beside it. Its id, or -1 where nothing crosses. */
typedef struct moe_step_side {
    const char *name;
    moe_part part;
    moe_stream stream;
    const moe_traffic *traffic;
    bool background;
    int wait;
} moe_step_side;
int moe_step_beside(moe_step_builder *builder, const moe_step_side *side);

/* 0 where there is nothing to launch; of an exchange in parts, of all. */
static inline int moe_step_kernels(const moe_traffic *traffic)
{
    int kernels = 0;
    for (; traffic != NULL; traffic = traffic->next) {
        kernels += MOE_KERNELS_COLLECTIVE;
    }
    return kernels;
}

/* --- step_price.c: durations and traffic ------------------------------------------------------ */

/* What is the same for every layer and micro-batch. */
void moe_step_price_common(moe_step_builder *builder);
/* builder->built for builder->micro_batch. */
void moe_step_price_layers(moe_step_builder *builder);
/* "expert gradients" of a layer; NULL without expert-DP. */
const moe_traffic *moe_step_expert_gradients(moe_step_builder *builder, int layer);
/* A ring over all devices. */
const moe_traffic *moe_step_ring(moe_step_builder *builder, moe_collective_kind kind, double bytes);
/* Gradients of dense parameters, all-reduced or, under ZeRO-1, reduce-scattered. */
const moe_traffic *moe_step_dense_gradients(moe_step_builder *builder, double parameters);

/* --- step_eager.c: experts one after another --------------------------------------------------- */

/* Adds to seconds[moe_phase]; rows[count] of a device's experts that have any. */
void moe_step_eager_experts(const moe_step_builder *builder, const double *rows, int count,
                            double seconds[static 3]);

/* --- step_chunks.c: which chunks travel ------------------------------------------------------- */

typedef struct moe_chunk_list {
    const moe_chunk *items;
    int count;
} moe_chunk_list;

/* Materialized and calibrated of this micro-batch's layer: what re-materialization gathers. */
moe_chunk_list moe_step_gathered_chunks(moe_step_builder *builder, int layer);
/* Chunks whose gradients this micro-batch's backward pass reduces: its own, none, or those of all.
 */
moe_chunk_list moe_step_reduced_chunks(moe_step_builder *builder, int layer);

/* --- step_serve.c: what serving does otherwise ------------------------------------------------ */

void moe_step_serving_head(moe_step_builder *builder);

/* --- the passes ------------------------------------------------------------------------------- */

void moe_step_forward(moe_step_builder *builder);
void moe_step_head(moe_step_builder *builder);
void moe_step_backward(moe_step_builder *builder);
void moe_step_update(moe_step_builder *builder);

#endif
