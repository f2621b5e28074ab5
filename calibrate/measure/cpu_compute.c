/* Points that one rank computes: matrix products, experts, permutation, gate, attention, norm, Adam,
 * head. Each has a layout of its inputs and results, a call of cpu_kernels.h, and a check of sampled
 * elements against double precision. */
#include "calibrate/measure/cpu_job.h"
#include "calibrate/measure/cpu_kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 64, SAMPLED_ROWS = 8 };

/* A spread of indices below `count`, the last one among them. */
static int64_t sampled(int64_t sample, int64_t samples, int64_t count)
{
    return samples < 2 ? count - 1
                       : (int64_t)((double)sample / (double)(samples - 1) * (double)(count - 1));
}

static int64_t fewer(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static double dot_double(int64_t count, const float *a, int64_t a_step, const float *b,
                         int64_t b_step)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)a[i * a_step] * (double)b[i * b_step];
    return sum;
}

static void softmax_double(int64_t count, double *x)
{
    double largest = x[0], sum = 0;
    for (int64_t i = 1; i < count; i++)
        largest = fmax(largest, x[i]);
    for (int64_t i = 0; i < count; i++)
        sum += x[i] = exp(x[i] - largest);
    for (int64_t i = 0; i < count; i++)
        x[i] /= sum;
}

static double *doubles(int64_t count)
{
    double *values = calloc((size_t)(count > 0 ? count : 1), sizeof *values);
    if (!values)
        abort();
    return values;
}

/* --- matrix product --------------------------------------------------------------------------- */

static void gemm_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    const moecal_gemm *shape = &job->point->gemm;
    const float *a = moecal_cpu_inputs(job, set), *b = a + shape->m * shape->k;
    float *c = moecal_cpu_results(job, set);
    (void)alone;
    double start_s = moecal_cpu_now_s();
    moecal_cpu_gemm(false, false, shape->m, shape->n, shape->k, a, b, c);
    *time = moecal_cpu_since(start_s);
}

static double gemm_error(moecal_cpu_job *job)
{
    const moecal_gemm *shape = &job->point->gemm;
    const float *a = moecal_cpu_inputs(job, 0), *b = a + shape->m * shape->k;
    const float *c = moecal_cpu_results(job, 0);
    moecal_cpu_deviation seen = {0};
    int64_t rows = fewer(shape->m, SAMPLED_ROWS), columns = fewer(shape->n, SAMPLES);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t s = 0; s < columns; s++) {
            int64_t i = sampled(r, rows, shape->m), j = sampled(s, columns, shape->n);
            double expected = dot_double(shape->k, a + i * shape->k, 1, b + j, shape->n);
            moecal_cpu_compare(&seen, c[i * shape->n + j], expected);
        }
    return moecal_cpu_relative(&seen);
}

static void gemm_set_up(moecal_cpu_job *job)
{
    const moecal_gemm *shape = &job->point->gemm;
    job->input_values = shape->m * shape->k + shape->k * shape->n;
    job->result_values = shape->m * shape->n;
    job->once = gemm_once;
    job->error = gemm_error;
}

/* --- experts ---------------------------------------------------------------------------------- */

static int64_t total_rows(const moecal_point *point)
{
    int64_t total = 0;
    for (int i = 0; i < point->experts; i++)
        total += point->rows[i];
    return total;
}

/* Where everything of one expert lies; rows of all experts stand one after another. */
typedef struct expert_view {
    int64_t rows;
    const float *x, *dy;
    moecal_cpu_weights weights, gradients;
    moecal_cpu_kept kept;
    float *y, *dx;
} expert_view;

/* Takes stretches of a set one after another. Inputs are read only; that kernels take weights as
 * pointers to what could be written is theirs. */
static float *take(const float **at, int64_t values)
{
    const float *taken = *at;
    *at += values;
    return (float *)taken;
}

static moecal_cpu_weights take_weights(const moecal_point *point, const float **at)
{
    int64_t values = point->hidden * point->ffn * point->experts;
    moecal_cpu_weights weights = {take(at, values), NULL, NULL};
    weights.gate = point->gated ? take(at, values) : NULL;
    weights.down = take(at, values);
    return weights;
}

static void take_pair(const moecal_point *point, const float **at, int64_t values, float **plain,
                      float **gated)
{
    *plain = take(at, values);
    *gated = point->gated ? take(at, values) : NULL;
}

/* Of all experts together. */
static expert_view view_of_all(const moecal_cpu_job *job, int64_t set)
{
    const moecal_point *point = job->point;
    int64_t rows = total_rows(point), wide = rows * point->hidden, inner = rows * point->ffn;
    const float *in = moecal_cpu_inputs(job, set), *out = moecal_cpu_results(job, set);
    expert_view view = {.rows = rows};
    if (point->phase == MOECAL_FORWARD) {
        view.x = take(&in, wide);
        view.weights = take_weights(point, &in);
        take_pair(point, &out, inner, &view.kept.up, &view.kept.gate);
        view.kept.inner = take(&out, inner);
        view.y = take(&out, wide);
    } else if (point->phase == MOECAL_INPUT_GRADIENT) {
        view.dy = take(&in, wide);
        view.weights = take_weights(point, &in);
        take_pair(point, &in, inner, &view.kept.up, &view.kept.gate);
        take_pair(point, &out, inner, &view.kept.dup, &view.kept.dgate);
        view.dx = take(&out, wide);
    } else {
        view.x = take(&in, wide);
        view.dy = take(&in, wide);
        view.kept.inner = take(&in, inner);
        take_pair(point, &in, inner, &view.kept.dup, &view.kept.dgate);
        view.gradients = take_weights(point, &out);
    }
    return view;
}

static float *shifted(float *values, int64_t by)
{
    return values ? values + by : NULL;
}

static const float *shifted_input(const float *values, int64_t by)
{
    return values ? values + by : NULL;
}

static moecal_cpu_weights shifted_weights(const moecal_cpu_weights *weights, int64_t by)
{
    return (moecal_cpu_weights){shifted(weights->up, by), shifted(weights->gate, by),
                                shifted(weights->down, by)};
}

static expert_view view_of(const moecal_point *point, const expert_view *all, int expert,
                           int64_t first_row)
{
    int64_t wide = first_row * point->hidden, inner = first_row * point->ffn;
    int64_t weights = expert * point->hidden * point->ffn;
    return (expert_view){.rows = point->rows[expert],
                         .x = shifted_input(all->x, wide),
                         .dy = shifted_input(all->dy, wide),
                         .weights = shifted_weights(&all->weights, weights),
                         .gradients = shifted_weights(&all->gradients, weights),
                         .kept = {shifted(all->kept.up, inner), shifted(all->kept.gate, inner),
                                  shifted(all->kept.inner, inner), shifted(all->kept.dup, inner),
                                  shifted(all->kept.dgate, inner)},
                         .y = shifted(all->y, wide),
                         .dx = shifted(all->dx, wide)};
}

static void compute_expert(const moecal_point *point, const expert_view *view)
{
    int64_t hidden = point->hidden, ffn = point->ffn;
    if (point->phase == MOECAL_FORWARD)
        moecal_cpu_expert_forward(view->rows, hidden, ffn, view->x, &view->weights, &view->kept,
                                  view->y);
    else if (point->phase == MOECAL_INPUT_GRADIENT)
        moecal_cpu_expert_input_gradient(view->rows, hidden, ffn, view->dy, &view->weights,
                                         &view->kept, view->dx);
    else
        moecal_cpu_expert_weight_gradient(view->rows, hidden, ffn, view->x, view->dy, &view->kept,
                                          &view->gradients);
}

static void experts_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    const moecal_point *point = job->point;
    expert_view all = view_of_all(job, set);
    int64_t row = 0;
    (void)alone;
    double start_s = moecal_cpu_now_s();
    for (int expert = 0; expert < point->experts; row += point->rows[expert++]) {
        expert_view view = view_of(point, &all, expert, row);
        compute_expert(point, &view);
    }
    *time = moecal_cpu_since(start_s);
}

static double sigmoid_double(double x)
{
    return 1 / (1 + exp(-x));
}

static const double gelu_scale = 1.5957691216057308; /* 2 sqrt(2 / pi) */

static double gelu_double(double x)
{
    return x * sigmoid_double(gelu_scale * (x + 0.044715 * x * x * x));
}

static double gelu_slope_double(double x)
{
    double s = sigmoid_double(gelu_scale * (x + 0.044715 * x * x * x));
    return s + x * s * (1 - s) * gelu_scale * (1 + 3 * 0.044715 * x * x);
}

/* Y of one row. */
static void forward_row(const moecal_point *point, const expert_view *view, int64_t row,
                        moecal_cpu_deviation *seen)
{
    int64_t hidden = point->hidden, ffn = point->ffn;
    const float *x = view->x + row * hidden;
    double *inner = doubles(ffn);
    for (int64_t j = 0; j < ffn; j++) {
        double up = dot_double(hidden, x, 1, view->weights.up + j, ffn);
        double gate = point->gated ? dot_double(hidden, x, 1, view->weights.gate + j, ffn) : 0;
        inner[j] = point->gated ? gate * sigmoid_double(gate) * up : gelu_double(up);
    }
    for (int64_t i = 0; i < hidden; i++) {
        double y = 0;
        for (int64_t j = 0; j < ffn; j++)
            y += inner[j] * view->weights.down[j * hidden + i];
        moecal_cpu_compare(seen, view->y[row * hidden + i], y);
    }
    free(inner);
}

/* dX of one row. */
static void input_gradient_row(const moecal_point *point, const expert_view *view, int64_t row,
                               moecal_cpu_deviation *seen)
{
    int64_t hidden = point->hidden, ffn = point->ffn;
    double *dup = doubles(ffn), *dgate = doubles(ffn);
    for (int64_t j = 0; j < ffn; j++) {
        double d =
            dot_double(hidden, view->dy + row * hidden, 1, view->weights.down + j * hidden, 1);
        double up = view->kept.up[row * ffn + j];
        double gate = point->gated ? view->kept.gate[row * ffn + j] : 0, s = sigmoid_double(gate);
        dup[j] = point->gated ? d * gate * s : d * gelu_slope_double(up);
        dgate[j] = d * up * s * (1 + gate * (1 - s));
    }
    for (int64_t i = 0; i < hidden; i++) {
        double dx = 0;
        for (int64_t j = 0; j < ffn; j++) {
            dx += dup[j] * view->weights.up[i * ffn + j];
            dx += point->gated ? dgate[j] * view->weights.gate[i * ffn + j] : 0;
        }
        moecal_cpu_compare(seen, view->dx[row * hidden + i], dx);
    }
    free(dup);
    free(dgate);
}

/* Some elements of every matrix of one expert. */
static void weight_gradient_elements(const moecal_point *point, const expert_view *view,
                                     moecal_cpu_deviation *seen)
{
    int64_t hidden = point->hidden, ffn = point->ffn;
    for (int64_t sample = 0; sample < SAMPLES; sample++) {
        int64_t i = sampled(sample, SAMPLES, hidden),
                j = sampled(sample * 37 % SAMPLES, SAMPLES, ffn);
        moecal_cpu_compare(seen, view->gradients.down[j * hidden + i],
                           dot_double(view->rows, view->kept.inner + j, ffn, view->dy + i, hidden));
        moecal_cpu_compare(seen, view->gradients.up[i * ffn + j],
                           dot_double(view->rows, view->x + i, hidden, view->kept.dup + j, ffn));
        if (point->gated)
            moecal_cpu_compare(
                seen, view->gradients.gate[i * ffn + j],
                dot_double(view->rows, view->x + i, hidden, view->kept.dgate + j, ffn));
    }
}

static void check_expert(const moecal_point *point, const expert_view *view,
                         moecal_cpu_deviation *seen)
{
    int64_t rows = fewer(view->rows, point->hidden * point->ffn > 4000000 ? 1 : 3);
    if (point->phase == MOECAL_WEIGHT_GRADIENT) {
        weight_gradient_elements(point, view, seen);
        return;
    }
    for (int64_t sample = 0; sample < rows; sample++) {
        int64_t row = sampled(sample, rows, view->rows);
        if (point->phase == MOECAL_FORWARD)
            forward_row(point, view, row, seen);
        else
            input_gradient_row(point, view, row, seen);
    }
}

static double experts_error(moecal_cpu_job *job)
{
    const moecal_point *point = job->point;
    expert_view all = view_of_all(job, 0);
    moecal_cpu_deviation seen = {0};
    int64_t row = 0;
    int checked = 0;
    for (int expert = 0; expert < point->experts; row += point->rows[expert++]) {
        expert_view view = view_of(point, &all, expert, row);
        if (view.rows > 0 && checked++ < SAMPLED_ROWS)
            check_expert(point, &view, &seen);
    }
    return moecal_cpu_relative(&seen);
}

static void experts_set_up(moecal_cpu_job *job)
{
    const moecal_point *point = job->point;
    int64_t rows = total_rows(point), wide = rows * point->hidden, inner = rows * point->ffn;
    int64_t pair = point->gated ? 2 : 1;
    int64_t weights = (pair + 1) * point->hidden * point->ffn * point->experts;
    if (point->phase == MOECAL_FORWARD) {
        job->input_values = wide + weights;
        job->result_values = (pair + 1) * inner + wide;
    } else if (point->phase == MOECAL_INPUT_GRADIENT) {
        job->input_values = wide + weights + pair * inner;
        job->result_values = pair * inner + wide;
    } else {
        job->input_values = 2 * wide + (pair + 1) * inner;
        job->result_values = weights;
    }
    job->once = experts_once;
    job->error = experts_error;
}

/* --- permutation ------------------------------------------------------------------------------ */

/* Indices below `below`, in no order; freed with the job. */
static int32_t *random_indices(int64_t count, int64_t below)
{
    int32_t *indices = calloc((size_t)count, sizeof *indices);
    if (!indices)
        abort();
    for (int64_t i = 0; i < count; i++) {
        double place = 0.5 + 0.5 * (double)moecal_cpu_random(-1, i);
        indices[i] = (int32_t)fewer((int64_t)(place * (double)below), below - 1);
    }
    return indices;
}

static void free_details(moecal_cpu_job *job)
{
    free(job->details);
}

static void permute_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    const moecal_point *point = job->point;
    (void)alone;
    double start_s = moecal_cpu_now_s();
    moecal_cpu_gather(point->tokens * point->top_k, point->hidden, job->details,
                      moecal_cpu_inputs(job, set), moecal_cpu_results(job, set));
    *time = moecal_cpu_since(start_s);
}

static double permute_error(moecal_cpu_job *job)
{
    int64_t hidden = job->point->hidden, count = job->point->tokens * job->point->top_k;
    const int32_t *index = job->details;
    for (int64_t i = 0; i < count; i++)
        if (memcmp(moecal_cpu_results(job, 0) + i * hidden,
                   moecal_cpu_inputs(job, 0) + index[i] * hidden,
                   (size_t)hidden * sizeof(float)) != 0)
            return 1;
    return 0;
}

static void permute_set_up(moecal_cpu_job *job)
{
    const moecal_point *point = job->point;
    job->details = random_indices(point->tokens * point->top_k, point->tokens);
    job->free = free_details;
    job->input_values = point->tokens * point->hidden;
    job->result_values = point->tokens * point->top_k * point->hidden;
    job->once = permute_once;
    job->error = permute_error;
}

/* --- gate ------------------------------------------------------------------------------------- */

static void gate_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    const moecal_point *point = job->point;
    const float *x = moecal_cpu_inputs(job, set);
    float *scores = moecal_cpu_results(job, set);
    (void)alone;
    double start_s = moecal_cpu_now_s();
    moecal_cpu_gate(point->tokens, point->hidden, point->experts, point->top_k, x,
                    x + point->tokens * point->hidden, scores,
                    (int32_t *)(void *)(scores + point->tokens * point->experts));
    *time = moecal_cpu_since(start_s);
}

/* A choice is right where no expert that was left out is likelier; ties of fp32 may go either way. */
static void check_choice(const moecal_point *point, const double *expected, const int32_t *chosen,
                         moecal_cpu_deviation *seen)
{
    for (int64_t place = 0; place < point->top_k; place++) {
        double best = 0;
        for (int expert = 0; expert < point->experts; expert++) {
            bool taken = false;
            for (int64_t before = 0; before < place; before++)
                taken |= chosen[before] == expert;
            best = taken ? best : fmax(best, expected[expert]);
        }
        moecal_cpu_compare(seen, expected[chosen[place]], best);
    }
}

static double gate_error(moecal_cpu_job *job)
{
    const moecal_point *point = job->point;
    const float *x = moecal_cpu_inputs(job, 0), *weights = x + point->tokens * point->hidden;
    const float *scores = moecal_cpu_results(job, 0);
    const int32_t *chosen =
        (const int32_t *)(const void *)(scores + point->tokens * point->experts);
    moecal_cpu_deviation seen = {0};
    int64_t rows = fewer(point->tokens, SAMPLED_ROWS);
    double *expected = doubles(point->experts);
    for (int64_t sample = 0; sample < rows; sample++) {
        int64_t token = sampled(sample, rows, point->tokens);
        for (int expert = 0; expert < point->experts; expert++)
            expected[expert] = dot_double(point->hidden, x + token * point->hidden, 1,
                                          weights + expert, point->experts);
        softmax_double(point->experts, expected);
        for (int expert = 0; expert < point->experts; expert++)
            moecal_cpu_compare(&seen, scores[token * point->experts + expert], expected[expert]);
        check_choice(point, expected, chosen + token * point->top_k, &seen);
    }
    free(expected);
    return moecal_cpu_relative(&seen);
}

static void gate_set_up(moecal_cpu_job *job)
{
    const moecal_point *point = job->point;
    job->input_values = point->hidden * (point->tokens + point->experts);
    job->result_values = point->tokens * (point->experts + point->top_k);
    job->once = gate_once;
    job->error = gate_error;
}

/* --- attention -------------------------------------------------------------------------------- */

/* One row a token: its queries, keys and values, as one projection writes them. */
typedef struct attention_view {
    moecal_cpu_attention shape;
    const float *q, *k, *v, *doutput;
    float *probabilities, *output, *dq, *dk, *dv, *scratch;
} attention_view;

static attention_view attention_of(const moecal_cpu_job *job, int64_t set)
{
    const moecal_point *point = job->point;
    int64_t tokens = point->sequences * point->sequence, width = point->heads * point->head_dim;
    int64_t keys = point->kv_heads * point->head_dim, stride = width + 2 * keys;
    const float *in = moecal_cpu_inputs(job, set), *out = moecal_cpu_results(job, set);
    attention_view view = {.shape = {point->sequences, point->sequence, point->heads,
                                     point->kv_heads, point->head_dim, point->causal, stride}};
    view.q = take(&in, tokens * stride);
    view.k = view.q + width;
    view.v = view.k + keys;
    view.probabilities = take(&out, tokens * point->heads * point->sequence);
    view.output = take(&out, tokens * width);
    if (point->phase == MOECAL_FORWARD)
        return view;
    view.doutput = take(&in, tokens * width);
    view.dq = take(&out, tokens * stride);
    view.dk = view.dq + width;
    view.dv = view.dk + keys;
    view.scratch = take(&out, MOECAL_ATTENTION_BLOCK * point->sequence);
    return view;
}

static void attention_forward(const attention_view *view)
{
    moecal_cpu_attention_forward(&view->shape, view->q, view->k, view->v, view->probabilities,
                                 view->output);
}

static void attention_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    attention_view view = attention_of(job, set);
    (void)alone;
    double start_s = moecal_cpu_now_s();
    if (job->point->phase == MOECAL_FORWARD)
        attention_forward(&view);
    else
        moecal_cpu_attention_backward(&view.shape, view.q, view.k, view.v, view.probabilities,
                                      view.output, view.doutput, view.scratch, view.dq, view.dk,
                                      view.dv);
    *time = moecal_cpu_since(start_s);
}

/* One query of one sequence and head, in double precision. */
typedef struct query {
    const attention_view *view;
    int64_t sequence, head, index;
} query;

static int64_t row_of(const query *at, int64_t token)
{
    return (at->sequence * at->view->shape.sequence + token) * at->view->shape.stride;
}

static int64_t kv_head(const query *at)
{
    return at->head / (at->view->shape.heads / at->view->shape.kv_heads) * at->view->shape.head_dim;
}

static int64_t seen_keys(const query *at)
{
    return at->view->shape.causal ? at->index + 1 : at->view->shape.sequence;
}

static const float *output_row(const query *at, const float *rows)
{
    const moecal_cpu_attention *shape = &at->view->shape;
    int64_t token = at->sequence * shape->sequence + at->index;
    return rows + (token * shape->heads + at->head) * shape->head_dim;
}

/* Of all keys that it sees. */
static void query_probabilities(const query *at, double *probabilities)
{
    int64_t e = at->view->shape.head_dim;
    for (int64_t key = 0; key < seen_keys(at); key++)
        probabilities[key] = dot_double(e, at->view->q + row_of(at, at->index) + at->head * e, 1,
                                        at->view->k + row_of(at, key) + kv_head(at), 1) /
                             sqrt((double)e);
    softmax_double(seen_keys(at), probabilities);
}

/* What each key's score changes the loss by; `probabilities` of the same keys. */
static void query_gradients(const query *at, const double *probabilities, double *gradients)
{
    int64_t e = at->view->shape.head_dim;
    double mean = 0;
    for (int64_t key = 0; key < seen_keys(at); key++) {
        gradients[key] = dot_double(e, output_row(at, at->view->doutput), 1,
                                    at->view->v + row_of(at, key) + kv_head(at), 1);
        mean += probabilities[key] * gradients[key];
    }
    for (int64_t key = 0; key < seen_keys(at); key++)
        gradients[key] = probabilities[key] * (gradients[key] - mean) / sqrt((double)e);
}

static void check_forward_query(const query *at, double *probabilities, moecal_cpu_deviation *seen)
{
    int64_t e = at->view->shape.head_dim;
    query_probabilities(at, probabilities);
    for (int64_t i = 0; i < e; i++) {
        double expected = 0;
        for (int64_t key = 0; key < seen_keys(at); key++)
            expected += probabilities[key] * at->view->v[row_of(at, key) + kv_head(at) + i];
        moecal_cpu_compare(seen, output_row(at, at->view->output)[i], expected);
    }
}

static void check_dq(const query *at, double *probabilities, double *gradients,
                     moecal_cpu_deviation *seen)
{
    int64_t e = at->view->shape.head_dim;
    query_probabilities(at, probabilities);
    query_gradients(at, probabilities, gradients);
    for (int64_t i = 0; i < e; i++) {
        double expected = 0;
        for (int64_t key = 0; key < seen_keys(at); key++)
            expected += gradients[key] * at->view->k[row_of(at, key) + kv_head(at) + i];
        moecal_cpu_compare(seen, at->view->dq[row_of(at, at->index) + at->head * e + i], expected);
    }
}

/* dK and dV of one key: of all queries that see it, in all heads that share it. Causal sequences are
 * looked at near their end, where these are few. */
static void check_key(const query *first, int64_t key, double *probabilities, double *gradients,
                      moecal_cpu_deviation *seen_k, moecal_cpu_deviation *seen_v)
{
    const moecal_cpu_attention *shape = &first->view->shape;
    int64_t e = shape->head_dim, shared = shape->heads / shape->kv_heads;
    double *dk = doubles(e), *dv = doubles(e);
    query at = *first;
    for (at.head = first->head / shared * shared; at.head < (first->head / shared + 1) * shared;
         at.head++)
        for (at.index = shape->causal ? key : 0; at.index < shape->sequence; at.index++) {
            query_probabilities(&at, probabilities);
            query_gradients(&at, probabilities, gradients);
            for (int64_t i = 0; i < e; i++) {
                dv[i] += probabilities[key] * output_row(&at, at.view->doutput)[i];
                dk[i] += gradients[key] * at.view->q[row_of(&at, at.index) + at.head * e + i];
            }
        }
    for (int64_t i = 0; i < e; i++) {
        moecal_cpu_compare(seen_k, at.view->dk[row_of(first, key) + kv_head(first) + i], dk[i]);
        moecal_cpu_compare(seen_v, at.view->dv[row_of(first, key) + kv_head(first) + i], dv[i]);
    }
    free(dk);
    free(dv);
}

static double attention_error(moecal_cpu_job *job)
{
    attention_view view = attention_of(job, 0);
    int64_t s = view.shape.sequence, last = view.shape.sequences - 1;
    moecal_cpu_deviation seen = {0}, seen_k = {0}, seen_v = {0};
    double *probabilities = doubles(s), *gradients = doubles(s);
    for (int64_t sample = 0; sample < 4; sample++) {
        query at = {&view, sample % 2 ? last : 0, sampled(sample, 4, view.shape.heads),
                    sampled(sample, 4, s)};
        if (job->point->phase == MOECAL_FORWARD)
            check_forward_query(&at, probabilities, &seen);
        else
            check_dq(&at, probabilities, gradients, &seen);
        if (job->point->phase != MOECAL_FORWARD && sample == 1)
            check_key(&at, s - fewer(s, 5), probabilities, gradients, &seen_k, &seen_v);
    }
    free(probabilities);
    free(gradients);
    return fmax(moecal_cpu_relative(&seen),
                fmax(moecal_cpu_relative(&seen_k), moecal_cpu_relative(&seen_v)));
}

static void attention_set_up(moecal_cpu_job *job)
{
    const moecal_point *point = job->point;
    int64_t tokens = point->sequences * point->sequence, width = point->heads * point->head_dim;
    int64_t stride = width + 2 * point->kv_heads * point->head_dim;
    job->input_values = tokens * stride;
    job->result_values = tokens * (point->heads * point->sequence + width);
    if (point->phase != MOECAL_FORWARD) {
        job->input_values += tokens * width;
        job->result_values += tokens * stride + MOECAL_ATTENTION_BLOCK * point->sequence;
    }
    job->once = attention_once;
    job->error = attention_error;
}

/* --- norm ------------------------------------------------------------------------------------- */

static void norm_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    const moecal_point *point = job->point;
    const float *x = moecal_cpu_inputs(job, set);
    (void)alone;
    double start_s = moecal_cpu_now_s();
    moecal_cpu_norm(point->tokens, point->hidden, x, x + point->tokens * point->hidden,
                    moecal_cpu_results(job, set));
    *time = moecal_cpu_since(start_s);
}

static double norm_error(moecal_cpu_job *job)
{
    int64_t hidden = job->point->hidden, tokens = job->point->tokens;
    const float *x = moecal_cpu_inputs(job, 0), *scale = x + tokens * hidden;
    int64_t rows = fewer(tokens, SAMPLED_ROWS);
    moecal_cpu_deviation seen = {0};
    for (int64_t sample = 0; sample < rows; sample++) {
        int64_t row = sampled(sample, rows, tokens) * hidden;
        double mean = dot_double(hidden, x + row, 1, x + row, 1) / (double)hidden;
        for (int64_t i = 0; i < hidden; i++)
            moecal_cpu_compare(&seen, moecal_cpu_results(job, 0)[row + i],
                               x[row + i] / sqrt(mean + 1e-6) * scale[i]);
    }
    return moecal_cpu_relative(&seen);
}

static void norm_set_up(moecal_cpu_job *job)
{
    job->input_values = (job->point->tokens + 1) * job->point->hidden;
    job->result_values = job->point->tokens * job->point->hidden;
    job->once = norm_once;
    job->error = norm_error;
}

/* --- Adam ------------------------------------------------------------------------------------- */

static moecal_cpu_adam adam_state(const moecal_cpu_job *job, int64_t set)
{
    int64_t count = job->point->parameters;
    float *state = moecal_cpu_results(job, set);
    return (moecal_cpu_adam){state, moecal_cpu_inputs(job, set), state + count, state + 2 * count,
                             state + 3 * count};
}

static void adam_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    moecal_cpu_adam state = adam_state(job, set);
    (void)alone;
    double start_s = moecal_cpu_now_s();
    moecal_cpu_adam_update(job->point->parameters, &state, 1);
    *time = moecal_cpu_since(start_s);
}

/* Before the first step: what one with half of the gradient would leave. */
static void adam_fill(const moecal_cpu_adam *state, int64_t count)
{
    memset(state->parameter, 0, (size_t)count * sizeof(float));
    memset(state->master, 0, (size_t)count * sizeof(float));
    for (int64_t i = 0; i < count; i++) {
        state->momentum[i] = 0.5f * state->gradient[i];
        state->variance[i] = 0.25f * state->gradient[i] * state->gradient[i];
    }
}

static double adam_error(moecal_cpu_job *job)
{
    moecal_cpu_adam state = adam_state(job, 0);
    moecal_cpu_deviation seen = {0}, moments = {0};
    int64_t samples = fewer(job->point->parameters, 4096);
    double correction = sqrt(1 - 0.999);
    for (int64_t sample = 0; sample < samples; sample++) {
        int64_t i = sampled(sample, samples, job->point->parameters);
        double g = state.gradient[i];
        double m = 0.9 * 0.5 * g + 0.1 * g, v = 0.999 * 0.25 * g * g + 0.001 * g * g;
        double expected = -1e-4 * correction / 0.1 * m / (sqrt(v) + 1e-8 * correction);
        moecal_cpu_compare(&seen, state.parameter[i], expected);
        moecal_cpu_compare(&seen, state.master[i], expected);
        moecal_cpu_compare(&moments, state.momentum[i], m);
        moecal_cpu_compare(&moments, state.variance[i], v);
    }
    return fmax(moecal_cpu_relative(&seen), moecal_cpu_relative(&moments));
}

static void adam_set_up(moecal_cpu_job *job)
{
    job->input_values = job->point->parameters;
    job->result_values = 4 * job->point->parameters;
    job->once = adam_once;
    job->error = adam_error;
}

/* --- head ------------------------------------------------------------------------------------- */

static void head_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    const moecal_point *point = job->point;
    const float *x = moecal_cpu_inputs(job, set);
    (void)alone;
    double start_s = moecal_cpu_now_s();
    moecal_cpu_head(point->tokens, point->hidden, point->vocabulary, x,
                    x + point->tokens * point->hidden, job->details, moecal_cpu_results(job, set));
    *time = moecal_cpu_since(start_s);
}

static double head_error(moecal_cpu_job *job)
{
    const moecal_point *point = job->point;
    const float *x = moecal_cpu_inputs(job, 0), *weights = x + point->tokens * point->hidden;
    const int32_t *target = job->details;
    int64_t rows = fewer(point->tokens, 3), v = point->vocabulary;
    double *expected = doubles(v);
    moecal_cpu_deviation seen = {0};
    for (int64_t sample = 0; sample < rows; sample++) {
        int64_t token = sampled(sample, rows, point->tokens);
        for (int64_t i = 0; i < v; i++)
            expected[i] = dot_double(point->hidden, x + token * point->hidden, 1, weights + i, v);
        softmax_double(v, expected);
        expected[target[token]] -= 1;
        for (int64_t i = 0; i < v; i++)
            moecal_cpu_compare(&seen, moecal_cpu_results(job, 0)[token * v + i],
                               expected[i] / (double)point->tokens);
    }
    free(expected);
    return moecal_cpu_relative(&seen);
}

static void head_set_up(moecal_cpu_job *job)
{
    const moecal_point *point = job->point;
    job->details = random_indices(point->tokens, point->vocabulary);
    job->free = free_details;
    job->input_values = point->hidden * (point->tokens + point->vocabulary);
    job->result_values = point->tokens * point->vocabulary;
    job->once = head_once;
    job->error = head_error;
}

/* --- all -------------------------------------------------------------------------------------- */

int moecal_cpu_compute_set_up(moecal_cpu_job *job)
{
    static void (*const table[MOECAL_KINDS])(moecal_cpu_job *) = {
        [MOECAL_GEMM] = gemm_set_up,           [MOECAL_EXPERTS] = experts_set_up,
        [MOECAL_PERMUTE] = permute_set_up,     [MOECAL_GATE] = gate_set_up,
        [MOECAL_ATTENTION] = attention_set_up, [MOECAL_NORM] = norm_set_up,
        [MOECAL_ADAM] = adam_set_up,           [MOECAL_HEAD] = head_set_up,
    };
    table[job->point->kind](job);
    return 0;
}

/* A backward pass has a forward pass before it; Adam a step. */
void moecal_cpu_compute_fill(moecal_cpu_job *job)
{
    const moecal_point *point = job->point;
    for (int64_t set = 0; set < job->sets; set++) {
        if (point->kind == MOECAL_ADAM) {
            moecal_cpu_adam state = adam_state(job, set);
            adam_fill(&state, point->parameters);
        } else if (point->kind == MOECAL_ATTENTION && point->phase == MOECAL_BACKWARD) {
            attention_view view = attention_of(job, set);
            attention_forward(&view);
        }
    }
}
