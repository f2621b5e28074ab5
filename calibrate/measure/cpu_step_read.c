/* Reads STEP.json (calibrate/SAMPLES.md), which may be anybody's. */
#include "calibrate/measure/cpu_step.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 64 << 20, MOST_INSTANCES = 1000 };

typedef struct reader {
    const char *name;
    FILE *errors;
    int wrong;
} reader;

__attribute__((format(printf, 2, 3))) static void fail(reader *in, const char *format, ...)
{
    va_list arguments;
    in->wrong++;
    fprintf(in->errors, "%s: error: ", in->name);
    va_start(arguments, format);
    vfprintf(in->errors, format, arguments);
    va_end(arguments);
    fputc('\n', in->errors);
}

static int64_t get(reader *in, const json_t *object, const char *key, int64_t low, int64_t high)
{
    const json_t *value = json_object_get(object, key);
    if (json_is_integer(value) && json_integer_value(value) >= low &&
        json_integer_value(value) <= high)
        return json_integer_value(value);
    fail(in, "\"%s\" is not an integer from %" PRId64 " to %" PRId64, key, low, high);
    return low;
}

static bool get_bool(reader *in, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_boolean(value))
        fail(in, "\"%s\" is neither true nor false", key);
    return json_is_true(value);
}

static void read_network(reader *in, const json_t *root, moecal_step_plan *plan)
{
    const json_t *network = json_object_get(root, "network");
    plan->layers = get(in, network, "layers", 1, 1000);
    plan->hidden = get(in, network, "hidden", 1, 65536);
    plan->ffn = get(in, network, "ffn", 1, 65536);
    plan->gated = get_bool(in, network, "gated");
    plan->experts = get(in, network, "experts", 1, 4096);
    plan->top_k = get(in, network, "top_k", 1, plan->experts);
    plan->heads = get(in, network, "heads", 1, 4096);
    plan->kv_heads = get(in, network, "kv_heads", 1, plan->heads);
    plan->sequence = get(in, network, "sequence", 1, 65536);
    plan->vocabulary = get(in, network, "vocabulary", 0, 1 << 20);
    plan->causal = get_bool(in, network, "causal");
    plan->ranks = get(in, root, "ranks", 1, MOECAL_MAX_RANKS);
    plan->tokens = get(in, root, "tokens", 1, 1 << 20);
    plan->repetitions = (int)get(in, root, "repetitions", 1, 1000);
}

static void check_multiple(reader *in, const char *name, int64_t value, const char *unit_name,
                           int64_t unit)
{
    if (value % unit != 0)
        fail(in, "\"%s\", %" PRId64 ", is no multiple of \"%s\", %" PRId64, name, value, unit_name,
             unit);
}

/* What a call of MPI moves is counted in ints: should every token go to one rank, and dense gradients. */
static void check_sizes(reader *in, const moecal_step_plan *plan)
{
    int64_t routed = plan->ranks * plan->tokens * plan->top_k * plan->hidden;
    int64_t layer = plan->hidden * (4 * plan->hidden + plan->experts);
    int64_t table = plan->hidden * plan->vocabulary;
    if (routed > INT32_MAX)
        fail(in, "ranks * tokens * top_k * hidden is %" PRId64 ", expected at most %d", routed,
             INT32_MAX);
    if (layer > INT32_MAX || table > INT32_MAX)
        fail(in,
             "a layer, or the vocabulary, has %" PRId64 " dense parameters, expected at most %d",
             layer > table ? layer : table, INT32_MAX);
    if (plan->layers * plan->ranks * plan->experts > MOST_BYTES / 2)
        fail(in, "layers * ranks * experts is %" PRId64 ": more counts than a file holds",
             plan->layers * plan->ranks * plan->experts);
}

static void check_network(reader *in, const moecal_step_plan *plan)
{
    check_sizes(in, plan);
    check_multiple(in, "hidden", plan->hidden, "heads", plan->heads);
    check_multiple(in, "heads", plan->heads, "kv_heads", plan->kv_heads);
    check_multiple(in, "experts", plan->experts, "ranks", plan->ranks);
    check_multiple(in, "tokens", plan->tokens, "sequence", plan->sequence);
}

/* One source's assignments: as many as its tokens make. */
static void read_source(reader *in, const json_t *row, const moecal_step_plan *plan,
                        const char *name, int32_t *counts)
{
    int64_t sum = 0;
    if ((int64_t)json_array_size(row) != plan->experts) {
        fail(in, "instance \"%.80s\": a source has %zu counts, expected %" PRId64, name,
             json_array_size(row), plan->experts);
        return;
    }
    for (int64_t expert = 0; expert < plan->experts; expert++) {
        const json_t *value = json_array_get(row, (size_t)expert);
        json_int_t count = json_integer_value(value);
        if (!json_is_integer(value) || count < 0 || count > plan->tokens * plan->top_k) {
            fail(in, "instance \"%.80s\": a count is not an integer from 0 to %" PRId64, name,
                 plan->tokens * plan->top_k);
            return;
        }
        sum += counts[expert] = (int32_t)count;
    }
    if (sum != plan->tokens * plan->top_k)
        fail(in,
             "instance \"%.80s\": a source's counts add up to %" PRId64
             ", expected tokens * top_k = %" PRId64,
             name, sum, plan->tokens * plan->top_k);
}

static void read_counts(reader *in, const json_t *object, const moecal_step_plan *plan,
                        moecal_step_instance *instance)
{
    const json_t *layers = json_object_get(object, "counts");
    if ((int64_t)json_array_size(layers) != plan->layers) {
        fail(in, "instance \"%.80s\": \"counts\" has %zu layers, expected %" PRId64, instance->name,
             json_array_size(layers), plan->layers);
        return;
    }
    for (int64_t layer = 0; layer < plan->layers; layer++) {
        const json_t *sources = json_array_get(layers, (size_t)layer);
        if ((int64_t)json_array_size(sources) != plan->ranks) {
            fail(in, "instance \"%.80s\": layer %" PRId64 " has %zu sources, expected %" PRId64,
                 instance->name, layer, json_array_size(sources), plan->ranks);
            return;
        }
        for (int64_t source = 0; source < plan->ranks; source++)
            read_source(in, json_array_get(sources, (size_t)source), plan, instance->name,
                        instance->counts + (layer * plan->ranks + source) * plan->experts);
    }
}

static void read_instance(reader *in, const json_t *object, const moecal_step_plan *plan,
                          moecal_step_instance *instance)
{
    const char *name = json_string_value(json_object_get(object, "name"));
    size_t counts = (size_t)(plan->layers * plan->ranks * plan->experts);
    instance->name = strdup(name ? name : "");
    instance->counts = calloc(counts, sizeof *instance->counts);
    if (!instance->name || !instance->counts)
        abort();
    if (!name)
        fail(in, "an instance without \"name\"");
    else
        read_counts(in, object, plan, instance);
}

static void read_instances(reader *in, const json_t *root, moecal_step_plan *plan)
{
    const json_t *instances = json_object_get(root, "instances");
    size_t count = json_array_size(instances);
    if (count < 1 || count > MOST_INSTANCES) {
        fail(in, "%zu instances, expected 1 to %d", count, MOST_INSTANCES);
        return;
    }
    plan->instances = calloc(count, sizeof *plan->instances);
    if (!plan->instances)
        abort();
    for (size_t i = 0; i < count && in->wrong == 0; i++) {
        plan->instance_count = (int)i + 1;
        read_instance(in, json_array_get(instances, i), plan, &plan->instances[i]);
    }
}

static void read_head(reader *in, const json_t *root)
{
    const char *format = json_string_value(json_object_get(root, "format"));
    if (!format || strcmp(format, "moecal-step") != 0)
        fail(in, "\"format\" is not \"moecal-step\"");
    if (json_integer_value(json_object_get(root, "version")) != 1)
        fail(in, "\"version\" is not 1, which this program reads");
}

moecal_step_plan *moecal_step_parse(const char *name, const char *text, size_t length, FILE *errors)
{
    reader in = {name, errors, 0};
    json_error_t error;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        fprintf(errors, "%s:%d:%d: error: %s\n", name, error.line, error.column, error.text);
        return NULL;
    }
    moecal_step_plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        abort();
    read_head(&in, root);
    if (in.wrong == 0)
        read_network(&in, root, plan);
    if (in.wrong == 0)
        check_network(&in, plan);
    if (in.wrong == 0)
        read_instances(&in, root, plan);
    json_decref(root);
    if (in.wrong == 0)
        return plan;
    moecal_step_plan_free(plan);
    return NULL;
}

moecal_step_plan *moecal_step_read(const char *path, FILE *errors)
{
    FILE *file = fopen(path, "rb");
    char *text = file ? malloc(MOST_BYTES + 1) : NULL;
    moecal_step_plan *plan = NULL;
    if (!file || !text) {
        fprintf(errors, "%s: error: %s\n", path, strerror(errno));
    } else {
        size_t length = fread(text, 1, MOST_BYTES + 1, file);
        if (ferror(file) || length > MOST_BYTES)
            fprintf(errors, "%s: error: not readable, or more than %d bytes\n", path, MOST_BYTES);
        else
            plan = moecal_step_parse(path, text, length, errors);
    }
    if (file)
        fclose(file);
    free(text);
    return plan;
}

void moecal_step_plan_free(moecal_step_plan *plan)
{
    if (!plan)
        return;
    for (int i = 0; i < plan->instance_count; i++) {
        free(plan->instances[i].name);
        free(plan->instances[i].counts);
    }
    free(plan->instances);
    free(plan);
}
