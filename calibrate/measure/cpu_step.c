/* Runs a training step and times it. */
#include "calibrate/measure/cpu_step.h"

#include "calibrate/measure/samples.h"
#include "calibrate/measure/statistics.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *zeros(int64_t count, size_t size)
{
    void *memory = calloc(count > 0 ? (size_t)count : 1, size);
    if (!memory)
        abort();
    return memory;
}

/* --- the model -------------------------------------------------------------------------------- */

/* Floats one after another; a first round without memory counts them. */
typedef struct stretch {
    float *memory;
    int64_t used;
} stretch;

static float *take(stretch *from, int64_t count)
{
    float *taken = from->memory ? from->memory + from->used : NULL;
    from->used += (count + 15) / 16 * 16;
    return taken;
}

static float *at(float *values, int64_t offset)
{
    return values ? values + offset : NULL;
}

/* The most that any instance brings this rank. */
typedef struct limits {
    int64_t rows, slots;
} limits;

static limits limits_of(const moecal_step_plan *plan, moecal_step_route *const *routes)
{
    limits most = {1, 1};
    for (int i = 0; i < plan->instance_count; i++)
        for (int64_t layer = 0; layer < plan->layers; layer++) {
            const moecal_step_route *route = &routes[i][layer];
            most.rows = route->rows > most.rows ? route->rows : most.rows;
            most.slots = route->slots > most.slots ? route->slots : most.slots;
        }
    return most;
}

static moecal_cpu_weights weights_at(const moecal_step_model *model, float *values, int64_t layer)
{
    int64_t one = model->own * model->plan->hidden * model->plan->ffn;
    int64_t matrices = model->plan->gated ? 3 : 2, from = model->dense + layer * matrices * one;
    return (moecal_cpu_weights){at(values, from),
                                model->plan->gated ? at(values, from + 2 * one) : NULL,
                                at(values, from + one)};
}

static void place_weights(moecal_step_model *model, int64_t number)
{
    moecal_step_layer *layer = &model->layers[number];
    int64_t from = number * model->layer_dense, hidden = model->plan->hidden;
    int64_t output = from + hidden * model->stride, gate = output + model->width * hidden;
    layer->qkv_weights = at(model->parameters, from);
    layer->output_weights = at(model->parameters, output);
    layer->gate_weights = at(model->parameters, gate);
    layer->qkv_gradient = at(model->gradients, from);
    layer->output_gradient = at(model->gradients, output);
    layer->gate_gradient = at(model->gradients, gate);
    layer->experts = weights_at(model, model->parameters, number);
    layer->expert_gradients = weights_at(model, model->gradients, number);
}

static void place_activations(moecal_step_model *model, stretch *from, moecal_step_layer *layer,
                              int64_t rows)
{
    const moecal_step_plan *plan = model->plan;
    int64_t inner = rows * plan->ffn;
    layer->x = take(from, plan->tokens * plan->hidden);
    layer->qkv = take(from, plan->tokens * model->stride);
    layer->probabilities = take(from, plan->tokens * plan->heads * plan->sequence);
    layer->attended = take(from, plan->tokens * model->width);
    layer->h = take(from, plan->tokens * plan->hidden);
    layer->scores = take(from, plan->tokens * plan->experts);
    layer->chosen = (int32_t *)(void *)take(from, plan->tokens * plan->top_k);
    layer->received = take(from, rows * plan->hidden);
    layer->kept = (moecal_cpu_kept){
        .up = take(from, inner), .inner = take(from, inner), .dup = take(from, inner)};
    if (plan->gated) {
        layer->kept.gate = take(from, inner);
        layer->kept.dgate = take(from, inner);
    }
}

static void place_shared(moecal_step_model *model, stretch *from, const limits *most)
{
    const moecal_step_plan *plan = model->plan;
    int64_t values = plan->tokens * plan->hidden;
    model->output = take(from, values);
    model->sent = take(from, most->slots * plan->hidden);
    model->arrived = take(from, most->rows * plan->hidden);
    model->y = take(from, most->rows * plan->hidden);
    model->wide = take(from, most->rows * plan->hidden);
    model->dh = take(from, values);
    model->dx = take(from, values);
    model->dqkv = take(from, plan->tokens * model->stride);
    model->dattended = take(from, plan->tokens * model->width);
    model->dscores = take(from, plan->tokens * plan->experts);
    model->logits = take(from, plan->tokens * plan->vocabulary);
    model->scratch = take(from, MOECAL_ATTENTION_BLOCK * plan->sequence);
}

static void place_all(moecal_step_model *model, stretch *from, const limits *most)
{
    const moecal_step_plan *plan = model->plan;
    int64_t table = plan->hidden * plan->vocabulary, head = plan->layers * model->layer_dense;
    int64_t all = model->dense + model->expert;
    model->parameters = take(from, all);
    model->gradients = take(from, all);
    model->reduced = take(from, model->dense);
    model->state = take(from, 3 * all);
    model->head_weights = at(model->parameters, head);
    model->head_gradient = at(model->gradients, head);
    model->table = at(model->parameters, head + table);
    model->table_gradient = at(model->gradients, head + table);
    for (int64_t layer = 0; layer < plan->layers; layer++) {
        place_weights(model, layer);
        place_activations(model, from, &model->layers[layer], most->rows);
    }
    place_shared(model, from, most);
}

static void set_sizes(moecal_step_model *model)
{
    const moecal_step_plan *plan = model->plan;
    int64_t head_dim = plan->hidden / plan->heads;
    model->own = plan->experts / plan->ranks;
    model->width = plan->heads * head_dim;
    model->stride = model->width + 2 * plan->kv_heads * head_dim;
    model->layer_dense = plan->hidden * (model->stride + model->width + plan->experts);
    model->dense = plan->layers * model->layer_dense + 2 * plan->hidden * plan->vocabulary;
    model->expert = plan->layers * model->own * (plan->gated ? 3 : 2) * plan->hidden * plan->ffn;
}

/* Everybody's dense parameters are the same. */
static void fill_parameters(moecal_step_model *model)
{
    const moecal_step_plan *plan = model->plan;
    float narrow = 0.5f / sqrtf((float)plan->hidden), wide = 0.5f / sqrtf((float)plan->ffn);
    for (int64_t i = 0; i < model->dense; i++)
        model->parameters[i] = narrow * moecal_cpu_random(0, i);
    for (int64_t i = 0; i < model->expert; i++)
        model->parameters[model->dense + i] = wide * moecal_cpu_random(model->rank + 1, i);
    memcpy(model->state, model->parameters, (size_t)(model->dense + model->expert) * sizeof(float));
    for (int64_t token = 0; plan->vocabulary > 0 && token < plan->tokens; token++) {
        double word = 0.5 + 0.5 * (double)moecal_cpu_random(model->rank, 2 * token);
        double target = 0.5 + 0.5 * (double)moecal_cpu_random(model->rank, 2 * token + 1);
        model->words[token] = (int32_t)(word * (double)(plan->vocabulary - 1));
        model->targets[token] = (int32_t)(target * (double)(plan->vocabulary - 1));
    }
}

static void model_free(moecal_step_model *model)
{
    free(model->memory);
    free(model->layers);
    free(model->words);
    free(model->targets);
    free(model->gathered);
}

/* Whether there is memory on all ranks. */
static bool model_create(moecal_step_model *model, const limits *most, const moecal_world *world)
{
    const moecal_step_plan *plan = model->plan;
    stretch counted = {0};
    set_sizes(model);
    model->layers = zeros(plan->layers, sizeof *model->layers);
    model->words = zeros(plan->tokens, sizeof *model->words);
    model->targets = zeros(plan->tokens, sizeof *model->targets);
    model->gathered = zeros(plan->ranks * plan->experts, sizeof *model->gathered);
    place_all(model, &counted, most);
    int had = counted.used <= moecal_cpu_free_values(world) &&
              (model->memory = aligned_alloc(64, (size_t)counted.used * sizeof(float))) != NULL;
    MPI_Allreduce(MPI_IN_PLACE, &had, 1, MPI_INT, MPI_MIN, model->comm);
    if (!had)
        return false;
    memset(model->memory, 0, (size_t)counted.used * sizeof(float));
    stretch real = {model->memory, 0};
    place_all(model, &real, most);
    fill_parameters(model);
    return true;
}

/* --- the step --------------------------------------------------------------------------------- */

static void embed(moecal_step_model *model)
{
    const moecal_step_plan *plan = model->plan;
    int64_t values = plan->tokens * plan->hidden;
    if (plan->vocabulary > 0)
        moecal_cpu_gather(plan->tokens, plan->hidden, model->words, model->table,
                          model->layers[0].x);
    else if (model->steps == 0)
        for (int64_t i = 0; i < values; i++)
            model->layers[0].x[i] = moecal_cpu_random(model->rank, i);
    moecal_step_mark(model, MOECAL_STEP_HEAD);
}

/* The loss, and the logits' gradient; 0 without a vocabulary. */
static double forward(moecal_step_model *model, const moecal_step_route *routes)
{
    const moecal_step_plan *plan = model->plan;
    embed(model);
    for (int64_t layer = 0; layer < plan->layers; layer++) {
        bool last = layer + 1 == plan->layers;
        moecal_step_forward_layer(model, &model->layers[layer], &routes[layer],
                                  last ? model->output : model->layers[layer + 1].x);
    }
    if (plan->vocabulary == 0)
        return 0;
    double loss = moecal_cpu_head(plan->tokens, plan->hidden, plan->vocabulary, model->output,
                                  model->head_weights, model->targets, model->logits);
    moecal_step_mark(model, MOECAL_STEP_HEAD);
    return loss;
}

/* Sets model->dx. Without a head, any gradient will do. */
static void head_backward(moecal_step_model *model)
{
    const moecal_step_plan *plan = model->plan;
    if (plan->vocabulary == 0) {
        memcpy(model->dx, model->output, (size_t)(plan->tokens * plan->hidden) * sizeof(float));
        moecal_step_mark(model, MOECAL_STEP_HEAD);
        return;
    }
    moecal_cpu_gemm(true, false, plan->hidden, plan->vocabulary, plan->tokens, model->output,
                    model->logits, model->head_gradient);
    moecal_cpu_gemm(false, true, plan->tokens, plan->hidden, plan->vocabulary, model->logits,
                    model->head_weights, model->dx);
    moecal_step_mark(model, MOECAL_STEP_HEAD);
    moecal_step_reduce(model, model->head_gradient, plan->hidden * plan->vocabulary);
}

static void embed_backward(moecal_step_model *model)
{
    const moecal_step_plan *plan = model->plan;
    int64_t table = plan->hidden * plan->vocabulary;
    if (plan->vocabulary == 0)
        return;
    memset(model->table_gradient, 0, (size_t)table * sizeof(float));
    for (int64_t token = 0; token < plan->tokens; token++)
        moecal_cpu_add(plan->hidden, model->dx + token * plan->hidden,
                       model->table_gradient + model->words[token] * plan->hidden);
    moecal_step_mark(model, MOECAL_STEP_HEAD);
    moecal_step_reduce(model, model->table_gradient, table);
}

static void update(moecal_step_model *model)
{
    int64_t dense = model->dense, all = dense + model->expert;
    float *master = model->state, *momentum = master + all, *variance = momentum + all;
    const moecal_cpu_adam replicated = {model->parameters, model->reduced, master, momentum,
                                        variance};
    const moecal_cpu_adam own = {model->parameters + dense, model->gradients + dense,
                                 master + dense, momentum + dense, variance + dense};
    moecal_cpu_adam_update(dense, &replicated, model->steps);
    moecal_cpu_adam_update(model->expert, &own, model->steps);
    moecal_step_mark(model, MOECAL_STEP_OPTIMIZER);
}

static void backward(moecal_step_model *model, const moecal_step_route *routes)
{
    head_backward(model);
    for (int64_t layer = model->plan->layers - 1; layer >= 0; layer--)
        moecal_step_backward_layer(model, &model->layers[layer], &routes[layer]);
    embed_backward(model);
}

/* Seconds of the slowest rank. */
static double step_s(moecal_step_model *model, const moecal_step_route *routes)
{
    memset(model->parts_s, 0, sizeof model->parts_s);
    MPI_Barrier(model->comm);
    double start_s = model->marked_s = moecal_cpu_now_s();
    forward(model, routes);
    backward(model, routes);
    model->steps++;
    update(model);
    double taken_s = model->marked_s - start_s;
    MPI_Allreduce(MPI_IN_PLACE, &taken_s, 1, MPI_DOUBLE, MPI_MAX, model->comm);
    MPI_Allreduce(MPI_IN_PLACE, model->parts_s, MOECAL_STEP_PARTS, MPI_DOUBLE, MPI_SUM,
                  model->comm);
    for (int part = 0; part < MOECAL_STEP_PARTS; part++)
        model->parts_s[part] /= (double)model->plan->ranks;
    return taken_s;
}

/* --- a check of all gradients ----------------------------------------------------------------- */

/* Loss of all ranks with parameters moved by `by` along their gradient. */
static double moved_loss(moecal_step_model *model, const moecal_step_route *routes, double by)
{
    int64_t all = model->dense + model->expert;
    for (int64_t i = 0; i < all; i++) {
        const float *gradient = i < model->dense ? model->reduced : model->gradients;
        model->parameters[i] = (float)((double)model->state[i] + by * (double)gradient[i]);
    }
    double loss = forward(model, routes);
    MPI_Allreduce(MPI_IN_PLACE, &loss, 1, MPI_DOUBLE, MPI_SUM, model->comm);
    return loss;
}

/* Along the gradient the loss grows by the gradient's square: the slope that two more forward passes
 * see, over that, less 1. Before the first update, whose master copy the parameters are put back
 * from. -1 where there is no loss. */
static double gradient_error(moecal_step_model *model, const moecal_step_route *routes)
{
    double own = 0, square = 0, loss;
    if (model->plan->vocabulary == 0)
        return -1;
    loss = forward(model, routes);
    backward(model, routes);
    MPI_Allreduce(MPI_IN_PLACE, &loss, 1, MPI_DOUBLE, MPI_SUM, model->comm);
    for (int64_t i = 0; i < model->expert; i++)
        own += pow((double)model->gradients[model->dense + i], 2);
    MPI_Allreduce(&own, &square, 1, MPI_DOUBLE, MPI_SUM, model->comm);
    for (int64_t i = 0; i < model->dense; i++)
        square += pow((double)model->reduced[i], 2);
    double by = 0.003 * loss / square;
    double slope = (moved_loss(model, routes, by) - moved_loss(model, routes, -by)) / (2 * by);
    moved_loss(model, routes, 0);
    return fabs(slope / square - 1);
}

/* --- results ---------------------------------------------------------------------------------- */

typedef struct measured {
    double *seconds;
    double *parts_s; /* [MOECAL_STEP_PARTS][repetitions] */
} measured;

static json_t *result_json(const moecal_step_instance *instance, const measured *taken, int count)
{
    static const char *const names[MOECAL_STEP_PARTS] = {
        "attention", "gate", "permute",   "dispatch",  "experts",
        "combine",   "head", "gradients", "optimizer", "wait"};
    json_t *seconds = json_array(), *parts = json_object();
    for (int i = 0; i < count; i++)
        json_array_append_new(seconds, json_real(taken->seconds[i]));
    for (int part = 0; part < MOECAL_STEP_PARTS; part++)
        json_object_set_new(
            parts, names[part],
            json_real(moecal_median(taken->parts_s + (size_t)part * (size_t)count, (size_t)count)));
    return json_pack("{s:s, s:o, s:o}", "name", instance->name, "seconds", seconds, "parts_s",
                     parts);
}

/* One instance after another, again and again: what else the machine does meanwhile hits all alike. */
static void measure(moecal_step_model *model, moecal_step_route *const *routes, measured *taken)
{
    int count = model->plan->repetitions;
    for (int repetition = -1; repetition < count; repetition++)
        for (int i = 0; i < model->plan->instance_count; i++) {
            double seconds = step_s(model, routes[i]);
            if (repetition < 0)
                continue; /* warm-up */
            taken[i].seconds[repetition] = seconds;
            for (int part = 0; part < MOECAL_STEP_PARTS; part++)
                taken[i].parts_s[part * count + repetition] = model->parts_s[part];
        }
}

static json_t *measure_all(moecal_step_model *model, moecal_step_route *const *routes)
{
    const moecal_step_plan *plan = model->plan;
    measured *taken = zeros(plan->instance_count, sizeof *taken);
    json_t *instances = json_array();
    for (int i = 0; i < plan->instance_count; i++) {
        taken[i].seconds = zeros(plan->repetitions, sizeof(double));
        taken[i].parts_s = zeros((int64_t)plan->repetitions * MOECAL_STEP_PARTS, sizeof(double));
    }
    measure(model, routes, taken);
    for (int i = 0; i < plan->instance_count; i++) {
        json_array_append_new(instances,
                              result_json(&plan->instances[i], &taken[i], plan->repetitions));
        free(taken[i].seconds);
        free(taken[i].parts_s);
    }
    free(taken);
    return instances;
}

/* A file is whole or not there. */
static int write_result(const json_t *result, const char *path)
{
    const size_t flags = JSON_INDENT(1) | JSON_REAL_PRECISION(9);
    char *temporary = NULL;
    int failed;
    if (!path) {
        failed = json_dumpf(result, stdout, flags) != 0 || putchar('\n') == EOF;
    } else if (asprintf(&temporary, "%s.tmp", path) < 0) {
        return -1;
    } else {
        failed = json_dump_file(result, temporary, flags) != 0 || rename(temporary, path) != 0;
    }
    if (failed)
        fprintf(stderr, "moecal: error: %s: %s\n", path ? path : "standard output",
                strerror(errno));
    if (failed && temporary)
        remove(temporary);
    free(temporary);
    return failed ? -1 : 0;
}

static const double gradient_limit = 0.02;

static int run_model(moecal_step_model *model, moecal_step_route *const *routes,
                     const char *machine, const char *output)
{
    double error = gradient_error(model, routes[0]);
    if (!(error <= gradient_limit)) {
        if (model->rank == 0)
            fprintf(stderr, "moecal: error: gradients are off by %.3g, limit %g; not timed\n",
                    error, gradient_limit);
        return 1;
    }
    json_t *instances = measure_all(model, routes);
    if (model->rank != 0) {
        json_decref(instances);
        return 0;
    }
    json_t *result = json_pack("{s:s, s:i, s:s, s:o}", "format", "moecal-step-result", "version", 1,
                               "machine", machine, "instances", instances);
    if (error >= 0)
        json_object_set_new(result, "check",
                            json_pack("{s:f, s:f}", "error", error, "limit", gradient_limit));
    int failed = write_result(result, output);
    json_decref(result);
    return failed ? 1 : 0;
}

/* --- the command ------------------------------------------------------------------------------ */

static moecal_step_route **create_routes(const moecal_step_plan *plan, int rank)
{
    moecal_step_route **routes = zeros(plan->instance_count, sizeof *routes);
    for (int i = 0; i < plan->instance_count; i++) {
        routes[i] = zeros(plan->layers, sizeof **routes);
        for (int64_t layer = 0; layer < plan->layers; layer++)
            routes[i][layer] = moecal_step_route_create(
                plan, plan->instances[i].counts + layer * plan->ranks * plan->experts, rank,
                (uint64_t)(layer * 1000 + rank + 1));
    }
    return routes;
}

static void free_routes(const moecal_step_plan *plan, moecal_step_route **routes)
{
    for (int i = 0; i < plan->instance_count; i++) {
        for (int64_t layer = 0; layer < plan->layers; layer++)
            moecal_step_route_free(&routes[i][layer]);
        free(routes[i]);
    }
    free(routes);
}

static void machine_digest(moecal_cpu *cpu, char digest[static 9])
{
    json_t *description = moecal_cpu_describe(cpu);
    digest[0] = '\0';
    if (description) {
        json_t *machine = moecal_machine_line(description);
        memcpy(digest, json_string_value(json_object_get(machine, "machine")), 9);
        json_decref(machine);
        json_decref(description);
    }
}

static int run_plan(moecal_cpu *cpu, const moecal_step_plan *plan, const char *output)
{
    char digest[9];
    machine_digest(cpu, digest);
    moecal_step_route **routes = create_routes(plan, cpu->world.rank);
    moecal_step_model model = {.plan = plan, .comm = cpu->comm, .rank = cpu->world.rank};
    limits most = limits_of(plan, routes);
    int status = 1;
    if (model_create(&model, &most, &cpu->world))
        status = run_model(&model, routes, digest, output);
    else if (model.rank == 0)
        fprintf(stderr, "moecal: error: not enough memory for this step\n");
    model_free(&model);
    free_routes(plan, routes);
    return status;
}

/* All ranks read the file, one says what is wrong with it. */
int moecal_cpu_step(void *state, const char *input, const char *output)
{
    moecal_cpu *cpu = state;
    bool speaks = cpu->world.rank == 0;
    FILE *nowhere = fopen("/dev/null", "w");
    int status = 1;
    moecal_step_plan *plan = moecal_step_read(input, speaks || !nowhere ? stderr : nowhere);
    if (plan && plan->ranks != cpu->world.ranks) {
        if (speaks)
            fprintf(stderr, "%s: error: \"ranks\" is %d, but this run has %d\n", input,
                    (int)plan->ranks, cpu->world.ranks);
    } else if (plan) {
        status = run_plan(cpu, plan, output);
    }
    moecal_step_plan_free(plan);
    if (nowhere)
        fclose(nowhere);
    return status;
}
