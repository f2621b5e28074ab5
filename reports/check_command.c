/* moeplan check FILE...: whether each is sound, and where it is not. */
#include "reports/catalogue.h"
#include "reports/commands.h"
#include "reports/yaml_kind.h"

#include "calibrate/fit/samples.h"
#include "calibrate/fit/suite_check.h"
#include "configs/base/input.h"
#include "configs/base/memory.h"
#include "configs/base/status.h"
#include "models/cluster.h"
#include "models/network.h"
#include "models/plan.h"
#include "models/profile.h"
#include "sim/scenario.h"
#include "traces/importer.h"
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <talloc.h>
#include <unistd.h>

enum { YAML_LIMIT_BYTES = 4 << 20 };

/* One file under check. `sound` is set, after "FILE: sound ", when nothing is wrong with it. */
typedef struct checked_file {
    void *scratch;
    const char *path;
    moe_diag *diag;
    char *sound;
} checked_file;

/* Traces. */

static void describe_trace(checked_file *file, const char *noun, const moe_trace *trace)
{
    const moe_trace_info *info = moe_trace_get_info(trace);
    file->sound = moe_need(talloc_asprintf(
        file->scratch,
        "%s: %lld iterations x %lld micro-batches x %lld layers x %lld sources x %lld experts%s",
        noun, (long long)info->shape.iterations, (long long)info->shape.micro_batches,
        (long long)info->shape.layers, (long long)info->shape.sources,
        (long long)info->shape.experts, info->synthetic ? ", synthetic" : ""));
}

static void check_trace(checked_file *file)
{
    const moe_trace *trace = moe_trace_open(file->scratch, file->path, (moe_where){0}, file->diag);
    if (trace && moe_trace_check(trace, file->diag) == MOE_OK)
        describe_trace(file, "trace", trace);
}

/* Importing is the check: what it accepts becomes a native trace, which is looked at and removed.
 */
static void check_recording(checked_file *file, const moe_importer *importer)
{
    const char *folder = getenv("TMPDIR");
    char *imported = moe_need(talloc_asprintf(file->scratch, "%s/moeplan-check-%ld.safetensors",
                                              folder && *folder ? folder : "/tmp", (long)getpid()));
    if (importer->import(file->path, imported, 0, file->diag) != MOE_OK)
        return;
    const moe_trace *trace = moe_trace_open(file->scratch, imported, (moe_where){0}, file->diag);
    if (trace) {
        char *noun = moe_need(talloc_asprintf(file->scratch, "%s recording", importer->name));
        describe_trace(file, noun, trace);
    }
    unlink(imported);
}

static bool ends_with(const char *path, const char *suffix)
{
    size_t length = strlen(path), tail = strlen(suffix);
    return length >= tail && strcmp(path + length - tail, suffix) == 0;
}

/* Importers open what they look at, which would wait for ever on a pipe that nobody writes. */
static bool may_be_opened(const char *path)
{
    struct stat status;
    return stat(path, &status) != 0 || S_ISREG(status.st_mode) || S_ISDIR(status.st_mode);
}

/* By content, so that a truncated .npy that is no longer recognised still meets the right importer.
 */
static const moe_importer *find_importer(const char *path)
{
    if (!may_be_opened(path))
        return NULL;
    for (const moe_importer *const *importer = moe_importers; *importer; importer++)
        if ((*importer)->recognise(path))
            return *importer;
    return ends_with(path, ".npy") ? &moe_importer_npy : NULL;
}

/* Plans. */

static void check_plan(checked_file *file)
{
    const moe_plan *plan = moe_plan_read(file->scratch, file->path, (moe_where){0}, file->diag);
    if (plan)
        file->sound = moe_need(talloc_asprintf(
            file->scratch, "plan: %lld layers x %lld experts on %lld devices in groups of %lld",
            (long long)plan->model.layers, (long long)plan->model.experts,
            (long long)plan->layout.devices, (long long)plan->layout.ep));
}

/* What is to be measured, and what was. */

static bool is_suite(checked_file *file)
{
    char head[256];
    FILE *stream = may_be_opened(file->path) ? fopen(file->path, "rb") : NULL;
    size_t length = stream ? fread(head, 1, sizeof head, stream) : 0;
    if (stream)
        fclose(stream);
    return moe_suite_recognises(head, length);
}

static void check_suite(checked_file *file)
{
    json_t *counts = moe_suite_check(file->path, file->diag);
    const char *kind;
    json_t *count;
    if (!counts)
        return;
    char *text = moe_need(talloc_strdup(file->scratch, "suite:"));
    json_object_foreach(counts, kind, count)
        text = moe_need(talloc_asprintf_append(
            text, "%s %lld %s", strcmp(text, "suite:") == 0 ? "" : ",",
            (long long)json_integer_value(count), kind));
    file->sound = text;
    json_decref(counts);
}

static void check_samples(checked_file *file)
{
    const moe_samples *samples = moe_samples_read(file->scratch, file->path, file->diag);
    if (samples)
        file->sound = moe_need(
            talloc_asprintf(file->scratch, "samples: %zu points of %s", samples->count,
                            samples->machine.description ? samples->machine.description
                            : samples->machine.device    ? samples->machine.device
                                                         : "an unnamed machine"));
}

/* YAML. */

static moe_status check_relations(checked_file *file, const moe_table *table,
                                  const moe_config *config)
{
    const void *loaded = moe_config_root(config);
    if (table == &moe_cluster_table)
        return moe_cluster_create(file->scratch, loaded, config, file->diag) ? MOE_OK
                                                                             : MOE_BAD_INPUT;
    if (table == &moe_network_table)
        return moe_network_check(loaded, config, file->diag);
    return moe_profile_check(loaded, NULL, config, file->diag);
}

static void set_sound(checked_file *file, const char *noun, const moe_table *table,
                      const void *loaded)
{
    char *line = moe_catalogue_describe(file->scratch, table, loaded);
    file->sound = moe_need(talloc_asprintf(file->scratch, "%s: %s", noun, line));
}

static void check_scenario(checked_file *file)
{
    moe_binding *binding = moe_binding_create(file->scratch, file->path, NULL, 0, NULL, file->diag);
    if (binding)
        set_sound(file, "scenario", &moe_scenario_table, binding->scenario);
}

static void check_yaml(checked_file *file)
{
    size_t length;
    const char *text = moe_input_read(file->scratch, file->path, YAML_LIMIT_BYTES, &length,
                                      (moe_where){0}, file->diag);
    const char *name = text ? moe_yaml_kind(text, length) : NULL;
    if (text && !name)
        moe_diag_error(
            file->diag, (moe_where){moe_diag_source(file->diag, file->path, NULL, 0), 0, 0},
            "no top-level key tells what it is; expected a scenario (policies, trace), a "
            "cluster (hosts), a model (layers, experts), a profile (collectives) or a trace");
    if (!name)
        return;
    const moe_table *table = moe_catalogue_kind_find(name)->table;
    if (table == &moe_scenario_table) {
        check_scenario(file);
        return;
    }
    const moe_config *config =
        moe_config_load(file->scratch, file->path, table, NULL, 0, file->diag);
    if (config && check_relations(file, table, config) == MOE_OK)
        set_sound(file, table->noun, table, moe_config_root(config));
}

static int check_file(const char *path)
{
    checked_file file = {.scratch = moe_need(talloc_new(NULL)), .path = path};
    file.diag = moe_diag_create(file.scratch, stderr);
    const moe_importer *importer = find_importer(path);
    if (importer == &moe_importer_native)
        check_trace(&file);
    else if (importer)
        check_recording(&file, importer);
    else if (ends_with(path, ".jsonl"))
        check_samples(&file);
    else if (ends_with(path, ".json") && is_suite(&file))
        check_suite(&file);
    else if (ends_with(path, ".json"))
        check_plan(&file);
    else
        check_yaml(&file);
    int errors = moe_diag_error_count(file.diag);
    int status = file.sound && errors == 0 ? MOE_OK : MOE_BAD_INPUT;
    fflush(stderr);
    if (status == MOE_OK)
        printf("%s: sound %s\n", path, file.sound);
    else
        printf("%s: not sound: %d error%s\n", path, errors, errors == 1 ? "" : "s");
    talloc_free(file.scratch);
    return status;
}

/* The command line. */

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    int *status = state->input;
    if (key == ARGP_KEY_NO_ARGS)
        argp_error(state, "expected at least one file");
    else if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    else if (check_file(value) != MOE_OK)
        *status = MOE_BAD_INPUT;
    return 0;
}

static const struct argp parser = {
    .parser = parse_option,
    .args_doc = "FILE...",
    .doc =
        "Says of every file whether it is sound: a scenario with everything it names, a cluster, a "
        "model, a profile, a routing trace (.safetensors, .safetensors.index.json, .npy), a "
        "plan or a suite to measure (.json), or measured samples (.jsonl). "
        "Errors go to standard error; the exit code is 1 if any file is not sound.",
};

int moe_check_command(int argc, char **argv)
{
    int status = MOE_OK;
    error_t error = argp_parse(&parser, argc, argv, 0, NULL, &status);
    return error != 0 ? MOE_USAGE : status;
}
