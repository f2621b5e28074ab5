/* Private to cpu_step*.c: a small MoE training step that is really run, to be compared with what a
 * simulator says of it (file formats: calibrate/SAMPLES.md).
 *
 * Expert parallelism over all ranks: rank r owns the experts from r * experts / ranks on. Everything
 * else is replicated. Nothing is dropped, nothing overlaps. How many assignments each rank sends to
 * each expert is given; which of its tokens these are is drawn at random, once. The gate is computed
 * in full and does not choose, so its gradient is zero (and computed in full, too). Sums of experts'
 * results are not weighted. No norms, no biases; the loss is the mean cross entropy of a rank's
 * tokens. Kernels are those of cpu_kernels.h. */
#ifndef MOE_CALIBRATE_MEASURE_CPU_STEP_H
#define MOE_CALIBRATE_MEASURE_CPU_STEP_H

#include "calibrate/measure/cpu_job.h"
#include "calibrate/measure/cpu_kernels.h"

typedef struct moecal_step_instance {
    char *name;
    int32_t *counts; /* [layers][ranks][experts] assignments of a source to an expert */
} moecal_step_instance;

typedef struct moecal_step_plan {
    int64_t layers, hidden, ffn, experts, top_k, heads, kv_heads, sequence, vocabulary;
    bool gated, causal;
    int64_t ranks, tokens;
    int repetitions;
    int instance_count;
    moecal_step_instance *instances;
} moecal_step_plan;

/* NULL after messages on `errors`. */
moecal_step_plan *moecal_step_read(const char *path, FILE *errors);
moecal_step_plan *moecal_step_parse(const char *name, const char *text, size_t length,
                                    FILE *errors);
void moecal_step_plan_free(moecal_step_plan *plan);

/* Where a layer's tokens of one rank go, and where what it receives comes from. */
typedef struct moecal_step_route {
    int64_t slots;              /* assignments that this rank sends, in order of experts */
    int64_t rows;               /* that it computes */
    int32_t *token_of;          /* [slots] */
    int32_t *first, *slot;      /* slots of token t: slot[first[t]] to slot[first[t + 1]] */
    int *send_counts, *send_at; /* [ranks] values */
    int *receive_counts, *receive_at;
    int32_t *by_expert,
        *by_source;       /* [rows] received order -> order of experts, and back; NULL: the same */
    int64_t *expert_rows; /* [own experts] */
    int32_t *counts;      /* [experts] of this rank */
} moecal_step_route;

moecal_step_route moecal_step_route_create(const moecal_step_plan *plan, const int32_t *counts,
                                           int rank, uint64_t seed);
void moecal_step_route_free(moecal_step_route *route);

/* What time is booked on. WAIT: at a barrier before each exchange, until the last rank is there. */
typedef enum moecal_step_part {
    MOECAL_STEP_ATTENTION,
    MOECAL_STEP_GATE,
    MOECAL_STEP_PERMUTE,
    MOECAL_STEP_DISPATCH,
    MOECAL_STEP_EXPERTS,
    MOECAL_STEP_COMBINE,
    MOECAL_STEP_HEAD,
    MOECAL_STEP_GRADIENTS,
    MOECAL_STEP_OPTIMIZER,
    MOECAL_STEP_WAIT,
    MOECAL_STEP_PARTS
} moecal_step_part;

/* One layer's parameters (offsets apart, the same for gradients) and what its forward pass keeps. */
typedef struct moecal_step_layer {
    float *qkv_weights, *output_weights,
        *gate_weights; /* one stretch: the layer's dense parameters */
    float *qkv_gradient, *output_gradient, *gate_gradient;
    moecal_cpu_weights experts, expert_gradients; /* of all own experts */
    float *x, *qkv, *probabilities, *attended, *h, *scores;
    int32_t *chosen;
    float *received;
    moecal_cpu_kept kept;
} moecal_step_layer;

typedef struct moecal_step_model {
    const moecal_step_plan *plan;
    MPI_Comm comm;
    int rank;
    int64_t own;                        /* experts */
    int64_t width, stride;              /* of queries; of queries, keys and values of a token */
    int64_t layer_dense, dense, expert; /* parameters: of a layer, of all, of own experts */
    float *memory;                      /* all floats below */
    float *parameters, *gradients, *reduced,
        *state; /* dense, then experts; reduced: dense alone; state: master,
                                                      * momentum, variance of all */
    float *head_weights, *head_gradient, *table, *table_gradient;
    moecal_step_layer *layers;
    float *output; /* of the last layer */
    float *sent, *arrived, *y, *dh, *dx, *dqkv, *dattended, *dscores, *logits, *scratch, *wide;
    int32_t *words, *targets, *gathered;
    double parts_s[MOECAL_STEP_PARTS];
    double marked_s;
    int steps;
} moecal_step_model;

void moecal_step_mark(moecal_step_model *model, moecal_step_part part);
void moecal_step_wait(moecal_step_model *model);
/* Sums gradients of dense parameters over all ranks, into the same place of model->reduced. */
void moecal_step_reduce(moecal_step_model *model, const float *gradient, int64_t count);

/* One layer; `next` [tokens][hidden] is its output. */
void moecal_step_forward_layer(moecal_step_model *model, moecal_step_layer *layer,
                               const moecal_step_route *route, float *next);
/* model->dx: in, the gradient of its output, out, that of its input. */
void moecal_step_backward_layer(moecal_step_model *model, moecal_step_layer *layer,
                                const moecal_step_route *route);

#endif
