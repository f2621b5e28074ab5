/* One layer of the step, and where its tokens go. */
#include "calibrate/measure/cpu_step.h"

#include <stdlib.h>
#include <string.h>

static void *zeros(int64_t count, size_t size)
{
    void *memory = calloc(count > 0 ? (size_t)count : 1, size);
    if (!memory)
        abort();
    return memory;
}

/* --- routes ----------------------------------------------------------------------------------- */

static int ascending(const void *left, const void *right)
{
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    return (a > b) - (a < b);
}

/* Every token as often as the next, in random order; within an expert in the order of tokens, as
 * sorting by expert leaves them. */
static void draw_tokens(const moecal_step_plan *plan, moecal_step_route *route, uint64_t seed)
{
    int32_t *tokens = route->token_of;
    int64_t at = 0;
    for (int64_t i = 0; i < route->slots; i++)
        tokens[i] = (int32_t)(i % plan->tokens);
    for (int64_t i = route->slots - 1; i > 0; i--) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL; /* Knuth's MMIX */
        int64_t j = (int64_t)((seed >> 33) % (uint64_t)(i + 1));
        int32_t swapped = tokens[i];
        tokens[i] = tokens[j];
        tokens[j] = swapped;
    }
    for (int64_t expert = 0; expert < plan->experts; at += route->counts[expert++])
        qsort(tokens + at, (size_t)route->counts[expert], sizeof *tokens, ascending);
}

static void list_slots(const moecal_step_plan *plan, moecal_step_route *route)
{
    int32_t *next = zeros(plan->tokens, sizeof *next);
    for (int64_t i = 0; i < route->slots; i++)
        route->first[route->token_of[i] + 1]++;
    for (int64_t token = 0; token < plan->tokens; token++)
        route->first[token + 1] += route->first[token];
    memcpy(next, route->first, (size_t)plan->tokens * sizeof *next);
    for (int64_t i = 0; i < route->slots; i++)
        route->slot[next[route->token_of[i]]++] = (int32_t)i;
    free(next);
}

/* Rows from `source` to the experts of `owner`. */
static int64_t rows_between(const moecal_step_plan *plan, const int32_t *counts, int64_t source,
                            int64_t owner)
{
    int64_t own = plan->experts / plan->ranks, rows = 0;
    for (int64_t expert = owner * own; expert < (owner + 1) * own; expert++)
        rows += counts[source * plan->experts + expert];
    return rows;
}

static void set_exchange(const moecal_step_plan *plan, const int32_t *counts, int rank,
                         moecal_step_route *route)
{
    int64_t sent = 0, received = 0;
    int *integers = zeros(4 * plan->ranks, sizeof *integers);
    route->send_counts = integers;
    route->send_at = integers + plan->ranks;
    route->receive_counts = integers + 2 * plan->ranks;
    route->receive_at = integers + 3 * plan->ranks;
    for (int64_t peer = 0; peer < plan->ranks; peer++) {
        int64_t to = rows_between(plan, counts, rank, peer);
        int64_t from = rows_between(plan, counts, peer, rank);
        route->send_counts[peer] = (int)(to * plan->hidden);
        route->send_at[peer] = (int)(sent * plan->hidden);
        route->receive_counts[peer] = (int)(from * plan->hidden);
        route->receive_at[peer] = (int)(received * plan->hidden);
        sent += to;
        received += from;
    }
    route->slots = sent;
    route->rows = received;
}

/* What arrives is sorted by source, then expert; experts want theirs together. */
static void set_order(const moecal_step_plan *plan, const int32_t *counts, int rank,
                      moecal_step_route *route)
{
    int64_t own = plan->experts / plan->ranks, at = 0, from;
    route->expert_rows = zeros(own, sizeof *route->expert_rows);
    for (int64_t expert = 0; expert < own; expert++)
        for (int64_t source = 0; source < plan->ranks; source++)
            route->expert_rows[expert] += counts[source * plan->experts + rank * own + expert];
    if (own == 1)
        return;
    route->by_expert = zeros(route->rows, sizeof *route->by_expert);
    route->by_source = zeros(route->rows, sizeof *route->by_source);
    for (int64_t expert = 0; expert < own; expert++)
        for (int64_t source = 0; source < plan->ranks; source++) {
            const int32_t *sent = counts + source * plan->experts + rank * own;
            from = route->receive_at[source] / plan->hidden;
            for (int64_t before = 0; before < expert; before++)
                from += sent[before];
            for (int64_t i = 0; i < sent[expert]; i++, at++, from++) {
                route->by_expert[at] = (int32_t)from;
                route->by_source[from] = (int32_t)at;
            }
        }
}

moecal_step_route moecal_step_route_create(const moecal_step_plan *plan, const int32_t *counts,
                                           int rank, uint64_t seed)
{
    moecal_step_route route = {0};
    set_exchange(plan, counts, rank, &route);
    route.counts = zeros(plan->experts, sizeof *route.counts);
    memcpy(route.counts, counts + rank * plan->experts,
           (size_t)plan->experts * sizeof *route.counts);
    route.token_of = zeros(route.slots, sizeof *route.token_of);
    route.first = zeros(plan->tokens + 1, sizeof *route.first);
    route.slot = zeros(route.slots, sizeof *route.slot);
    draw_tokens(plan, &route, seed);
    list_slots(plan, &route);
    set_order(plan, counts, rank, &route);
    return route;
}

void moecal_step_route_free(moecal_step_route *route)
{
    free(route->token_of);
    free(route->first);
    free(route->slot);
    free(route->send_counts);
    free(route->by_expert);
    free(route->by_source);
    free(route->expert_rows);
    free(route->counts);
}

/* --- time ------------------------------------------------------------------------------------- */

void moecal_step_mark(moecal_step_model *model, moecal_step_part part)
{
    double now_s = moecal_cpu_now_s();
    model->parts_s[part] += now_s - model->marked_s;
    model->marked_s = now_s;
}

void moecal_step_wait(moecal_step_model *model)
{
    MPI_Barrier(model->comm);
    moecal_step_mark(model, MOECAL_STEP_WAIT);
}

void moecal_step_reduce(moecal_step_model *model, const float *gradient, int64_t count)
{
    moecal_step_wait(model);
    MPI_Allreduce(gradient, model->reduced + (gradient - model->gradients), (int)count, MPI_FLOAT,
                  MPI_SUM, model->comm);
    moecal_step_mark(model, MOECAL_STEP_GRADIENTS);
}

/* --- exchanges of tokens ---------------------------------------------------------------------- */

/* From model->sent to `arrived`. */
static void to_experts(moecal_step_model *model, const moecal_step_route *route, float *arrived,
                       moecal_step_part part)
{
    moecal_step_wait(model);
    MPI_Alltoallv(model->sent, route->send_counts, route->send_at, MPI_FLOAT, arrived,
                  route->receive_counts, route->receive_at, MPI_FLOAT, model->comm);
    moecal_step_mark(model, part);
}

/* From `results` to model->sent. */
static void to_sources(moecal_step_model *model, const moecal_step_route *route,
                       const float *results, moecal_step_part part)
{
    moecal_step_wait(model);
    MPI_Alltoallv(results, route->receive_counts, route->receive_at, MPI_FLOAT, model->sent,
                  route->send_counts, route->send_at, MPI_FLOAT, model->comm);
    moecal_step_mark(model, part);
}

/* Sends rows of `tokens` to the experts, where they end in `ordered`. */
static void dispatch(moecal_step_model *model, const moecal_step_route *route, const float *tokens,
                     float *ordered, moecal_step_part part)
{
    int64_t hidden = model->plan->hidden;
    moecal_cpu_gather(route->slots, hidden, route->token_of, tokens, model->sent);
    moecal_step_mark(model, MOECAL_STEP_PERMUTE);
    to_experts(model, route, route->by_expert ? model->arrived : ordered, part);
    if (route->by_expert) {
        moecal_cpu_gather(route->rows, hidden, route->by_expert, model->arrived, ordered);
        moecal_step_mark(model, MOECAL_STEP_PERMUTE);
    }
}

/* The way back: sums of what the experts made of each token. */
static void combine(moecal_step_model *model, const moecal_step_route *route, const float *ordered,
                    float *tokens, moecal_step_part part)
{
    int64_t hidden = model->plan->hidden;
    if (route->by_source) {
        moecal_cpu_gather(route->rows, hidden, route->by_source, ordered, model->arrived);
        moecal_step_mark(model, MOECAL_STEP_PERMUTE);
    }
    to_sources(model, route, route->by_source ? model->arrived : ordered, part);
    moecal_cpu_gather_sum(model->plan->tokens, hidden, route->first, route->slot, 1, model->sent,
                          tokens);
}

/* --- experts ---------------------------------------------------------------------------------- */

static float *shifted(float *values, int64_t by)
{
    return values ? values + by : NULL;
}

static moecal_cpu_weights expert_weights(const moecal_cpu_weights *all, int64_t by)
{
    return (moecal_cpu_weights){all->up + by, shifted(all->gate, by), all->down + by};
}

static moecal_cpu_kept expert_kept(const moecal_cpu_kept *all, int64_t by)
{
    return (moecal_cpu_kept){all->up + by, shifted(all->gate, by), all->inner + by, all->dup + by,
                             shifted(all->dgate, by)};
}

static void experts_forward(moecal_step_model *model, moecal_step_layer *layer,
                            const moecal_step_route *route)
{
    int64_t hidden = model->plan->hidden, ffn = model->plan->ffn, row = 0;
    for (int64_t expert = 0; expert < model->own; row += route->expert_rows[expert++]) {
        moecal_cpu_weights weights = expert_weights(&layer->experts, expert * hidden * ffn);
        moecal_cpu_kept kept = expert_kept(&layer->kept, row * ffn);
        moecal_cpu_expert_forward(route->expert_rows[expert], hidden, ffn,
                                  layer->received + row * hidden, &weights, &kept,
                                  model->y + row * hidden);
    }
    moecal_step_mark(model, MOECAL_STEP_EXPERTS);
}

/* model->y: in, gradients of their results; model->wide: out, of their inputs. All input gradients,
 * then all weight gradients, as the points measure them. */
static void experts_backward(moecal_step_model *model, moecal_step_layer *layer,
                             const moecal_step_route *route)
{
    int64_t hidden = model->plan->hidden, ffn = model->plan->ffn, row = 0;
    for (int64_t expert = 0; expert < model->own; row += route->expert_rows[expert++]) {
        moecal_cpu_weights weights = expert_weights(&layer->experts, expert * hidden * ffn);
        moecal_cpu_kept kept = expert_kept(&layer->kept, row * ffn);
        moecal_cpu_expert_input_gradient(route->expert_rows[expert], hidden, ffn,
                                         model->y + row * hidden, &weights, &kept,
                                         model->wide + row * hidden);
    }
    row = 0;
    for (int64_t expert = 0; expert < model->own; row += route->expert_rows[expert++]) {
        moecal_cpu_weights gradients =
            expert_weights(&layer->expert_gradients, expert * hidden * ffn);
        moecal_cpu_kept kept = expert_kept(&layer->kept, row * ffn);
        moecal_cpu_expert_weight_gradient(route->expert_rows[expert], hidden, ffn,
                                          layer->received + row * hidden, model->y + row * hidden,
                                          &kept, &gradients);
    }
    moecal_step_mark(model, MOECAL_STEP_EXPERTS);
}

/* --- the layer -------------------------------------------------------------------------------- */

static moecal_cpu_attention attention_shape(const moecal_step_model *model)
{
    const moecal_step_plan *plan = model->plan;
    return (moecal_cpu_attention){
        plan->tokens / plan->sequence, plan->sequence, plan->heads,  plan->kv_heads,
        plan->hidden / plan->heads,    plan->causal,   model->stride};
}

static void attend(moecal_step_model *model, moecal_step_layer *layer)
{
    int64_t tokens = model->plan->tokens, hidden = model->plan->hidden;
    int64_t keys = (model->stride - model->width) / 2;
    moecal_cpu_attention shape = attention_shape(model);
    const float *q = layer->qkv;
    moecal_cpu_gemm(false, false, tokens, model->stride, hidden, layer->x, layer->qkv_weights,
                    layer->qkv);
    moecal_cpu_attention_forward(&shape, q, q + model->width, q + model->width + keys,
                                 layer->probabilities, layer->attended);
    moecal_cpu_gemm(false, false, tokens, hidden, model->width, layer->attended,
                    layer->output_weights, layer->h);
    moecal_cpu_add(tokens * hidden, layer->x, layer->h);
    moecal_step_mark(model, MOECAL_STEP_ATTENTION);
}

static void gather_counts(moecal_step_model *model, const moecal_step_route *route)
{
    int experts = (int)model->plan->experts;
    moecal_step_wait(model);
    MPI_Allgather(route->counts, experts, MPI_INT32_T, model->gathered, experts, MPI_INT32_T,
                  model->comm);
    moecal_step_mark(model, MOECAL_STEP_DISPATCH);
}

void moecal_step_forward_layer(moecal_step_model *model, moecal_step_layer *layer,
                               const moecal_step_route *route, float *next)
{
    const moecal_step_plan *plan = model->plan;
    attend(model, layer);
    moecal_cpu_gate(plan->tokens, plan->hidden, plan->experts, plan->top_k, layer->h,
                    layer->gate_weights, layer->scores, layer->chosen);
    moecal_step_mark(model, MOECAL_STEP_GATE);
    gather_counts(model, route);
    dispatch(model, route, layer->h, layer->received, MOECAL_STEP_DISPATCH);
    experts_forward(model, layer, route);
    combine(model, route, model->y, next, MOECAL_STEP_COMBINE);
    moecal_cpu_add(plan->tokens * plan->hidden, layer->h, next);
    moecal_step_mark(model, MOECAL_STEP_PERMUTE);
}

/* Adds to dh what comes back from the scores: nothing, as they choose nothing here. */
static void gate_backward(moecal_step_model *model, moecal_step_layer *layer)
{
    int64_t tokens = model->plan->tokens, hidden = model->plan->hidden;
    int64_t experts = model->plan->experts;
    memset(model->dscores, 0, (size_t)(tokens * experts) * sizeof(float));
    moecal_cpu_gemm(true, false, hidden, experts, tokens, layer->h, model->dscores,
                    layer->gate_gradient);
    moecal_cpu_gemm(false, true, tokens, hidden, experts, model->dscores, layer->gate_weights,
                    model->dx);
    moecal_cpu_add(tokens * hidden, model->dx, model->dh);
    moecal_step_mark(model, MOECAL_STEP_GATE);
}

static void attend_backward(moecal_step_model *model, moecal_step_layer *layer)
{
    int64_t tokens = model->plan->tokens, hidden = model->plan->hidden;
    int64_t width = model->width, stride = model->stride, keys = (stride - width) / 2;
    moecal_cpu_attention shape = attention_shape(model);
    const float *q = layer->qkv;
    moecal_cpu_gemm(true, false, width, hidden, tokens, layer->attended, model->dh,
                    layer->output_gradient);
    moecal_cpu_gemm(false, true, tokens, width, hidden, model->dh, layer->output_weights,
                    model->dattended);
    moecal_cpu_attention_backward(&shape, q, q + width, q + width + keys, layer->probabilities,
                                  layer->attended, model->dattended, model->scratch, model->dqkv,
                                  model->dqkv + width, model->dqkv + width + keys);
    moecal_cpu_gemm(true, false, hidden, stride, tokens, layer->x, model->dqkv,
                    layer->qkv_gradient);
    moecal_cpu_gemm(false, true, tokens, hidden, stride, model->dqkv, layer->qkv_weights,
                    model->dx);
    moecal_cpu_add(tokens * hidden, model->dh, model->dx);
    moecal_step_mark(model, MOECAL_STEP_ATTENTION);
}

void moecal_step_backward_layer(moecal_step_model *model, moecal_step_layer *layer,
                                const moecal_step_route *route)
{
    int64_t values = model->plan->tokens * model->plan->hidden;
    dispatch(model, route, model->dx, model->y, MOECAL_STEP_COMBINE);
    experts_backward(model, layer, route);
    combine(model, route, model->wide, model->dh, MOECAL_STEP_DISPATCH);
    moecal_cpu_add(values, model->dx, model->dh);
    moecal_step_mark(model, MOECAL_STEP_PERMUTE);
    gate_backward(model, layer);
    attend_backward(model, layer);
    moecal_step_reduce(model, layer->qkv_gradient, model->layer_dense);
}
