/* moeplan explain TOPIC: policies, engines, presets, and every key of every file. */
#include "reports/catalogue.h"
#include "reports/commands.h"

#include "calibrate/fit/import.h"
#include "configs/base/memory.h"
#include "configs/base/status.h"
#include "models/cluster.h"
#include "models/network.h"
#include "models/profile.h"
#include "policies/policy.h"
#include "reports/validation/suite.h"
#include "sim/engine.h"
#include "sim/scenario.h"
#include "traces/importer.h"
#include <argp.h>
#include <stdio.h>
#include <string.h>
#include <talloc.h>

typedef struct root_topic {
    const char *name;
    const moe_table *table;
} root_topic;

static const root_topic roots[] = {
    {"scenario", &moe_scenario_table}, {"cluster", &moe_cluster_table},
    {"model", &moe_network_table},     {"profile", &moe_profile_table},
    {"trace", &moe_trace_use_table},
};
enum { ROOTS = sizeof roots / sizeof *roots };

/* Unknown names. */

static int refuse(const char *what, const char *wrong, const char *closest)
{
    fprintf(stderr, "moeplan explain: there is no %s \"%s\"", what, wrong);
    if (closest)
        fprintf(stderr, "; did you mean \"%s\"?", closest);
    fprintf(stderr, " (`moeplan explain` lists the topics)\n");
    return MOE_USAGE;
}

static int refuse_topic(const char *topic)
{
    const char *candidates[32];
    size_t count = 0;
    for (int i = 0; i < ROOTS; i++)
        candidates[count++] = roots[i].name;
    for (const moe_catalogue_kind *kind = moe_catalogue_kinds; kind->name; kind++)
        candidates[count++] = kind->name;
    return refuse("topic", topic, moe_closest(topic, candidates, count));
}

static int refuse_entry(const moe_catalogue_kind *kind, const char *name)
{
    size_t count;
    const char **names = moe_catalogue_names(NULL, kind, &count);
    char *what = moe_need(talloc_asprintf(names, "entry of %s called", kind->name));
    int status = refuse(what, name, moe_closest(name, names, count));
    talloc_free(names);
    return status;
}

/* Keys. */

static int explain_key(const moe_table *table, const char *topic, const char *path)
{
    const char *closest = NULL;
    if (moe_table_explain(table, path, stdout, &closest))
        return MOE_OK;
    return refuse("key", topic, closest);
}

/* "scenario.cluster.hosts": below a root, or below the scenario where the first word is none. */
static int explain_path(const char *topic)
{
    size_t first = strcspn(topic, ".");
    for (int i = 0; i < ROOTS; i++) {
        if (strlen(roots[i].name) == first && strncmp(roots[i].name, topic, first) == 0)
            return explain_key(roots[i].table, topic, topic[first] ? topic + first + 1 : "");
    }
    const char *closest = NULL;
    if (moe_table_explain(&moe_scenario_table, topic, stdout, &closest))
        return MOE_OK;
    return topic[first] ? refuse("key", topic, closest) : refuse_topic(topic);
}

/* Built-in entries. */

static size_t length_without_newlines(const char *text)
{
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == '\n')
        length--;
    return length;
}

static void explain_policy_head(const moe_policy *policy)
{
    printf("%s: %s\n", policy->name, policy->sentence);
    if (policy->source)
        printf("\nSource: %s\n", policy->source);
    if (policy->notes)
        printf("\n%.*s\n", (int)length_without_newlines(policy->notes), policy->notes);
}

static int explain_policy(const char *name)
{
    char *stem = moe_need(talloc_strndup(NULL, name, strcspn(name, ".")));
    const moe_policy *policy = moe_policy_find(stem);
    const char *path = name[strlen(stem)] ? name + strlen(stem) + 1 : "";
    talloc_free(stem);
    if (!policy)
        return refuse_entry(moe_catalogue_kind_find("policies"), name);
    if (*path && policy->tunables)
        return explain_key(policy->tunables, name, path);
    explain_policy_head(policy);
    if (!policy->tunables || !policy->tunables->fields->key) {
        printf("\nIt has no keys of its own.\n");
        return MOE_OK;
    }
    printf("\nIts keys, beside `name` and `policy`, in a scenario's `policies:`\n\n");
    return explain_key(policy->tunables, name, "");
}

static int explain_engine(const char *name)
{
    const moe_engine *engine = moe_engine_find(name);
    if (!engine)
        return refuse_entry(moe_catalogue_kind_find("engines"), name);
    printf("%s: %s\n\nNetwork model: %s\n", engine->name, engine->sentence, engine->network_model);
    return MOE_OK;
}

static int explain_importer(const char *name)
{
    for (const moe_importer *const *importer = moe_importers; *importer; importer++) {
        if (strcmp((*importer)->name, name) == 0) {
            printf("%s: %s\n", name, (*importer)->sentence);
            return MOE_OK;
        }
    }
    for (const moe_sample_importer *const *importer = moe_sample_importers; *importer; importer++) {
        if (strcmp((*importer)->name, name) == 0) {
            printf("%s: %s\n", name, (*importer)->sentence);
            if ((*importer)->source)
                printf("\nSource: %s\n", (*importer)->source);
            return MOE_OK;
        }
    }
    return refuse_entry(moe_catalogue_kind_find("importers"), name);
}

static int explain_validation(const char *name)
{
    for (const moe_validation_suite *const *suite = moe_validation_suites; *suite; suite++) {
        if (strcmp((*suite)->name, name) == 0) {
            printf("%s: %s\n\nMeasured values: %s\n", name, (*suite)->sentence, (*suite)->source);
            return MOE_OK;
        }
    }
    return refuse_entry(moe_catalogue_kind_find("validations"), name);
}

/* Presets: everything printed is YAML that loads again, derived figures as comments. */

static void derive(const char *label, double value, moe_dimension dimension)
{
    char text[48];
    moe_units_format_short(value, dimension, text);
    printf("#   %-36s %s\n", label, text);
}

static void derive_cluster(const moe_cluster_spec *spec)
{
    double devices = (double)spec->hosts * (double)spec->devices_per_host;
    double nic = spec->nic.bandwidth_bytes_per_s;
    if (spec->nic.sharing == MOE_NIC_PER_HOST)
        nic /= (double)spec->devices_per_host;
    printf("#   %-36s %.0f\n", "devices", devices);
    derive("memory of all devices", devices * spec->device.memory_bytes, MOE_BYTES);
    derive("matrix rate of all devices", devices * spec->device.peak_flop_per_s, MOE_FLOP_PER_S);
    if (nic <= 0)
        return;
    derive("between hosts, each device's share", nic, MOE_BANDWIDTH);
    printf("#   %-36s %.3g\n", "within a host / between hosts",
           spec->intra.bandwidth_bytes_per_s / nic);
}

static int explain_preset(const moe_catalogue_kind *kind, const char *name)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_diag *diag = moe_diag_create(scratch, stderr);
    char *path = moe_catalogue_file(scratch, kind, name);
    int status = path ? MOE_BAD_INPUT : refuse_entry(kind, name);
    moe_config *config = path ? moe_config_load(scratch, path, kind->table, NULL, 0, diag) : NULL;
    if (config) {
        const void *loaded = moe_config_root(config);
        printf("# %s: %s\n", path, moe_catalogue_describe(scratch, kind->table, loaded));
        if (kind->table == &moe_cluster_table)
            derive_cluster(loaded);
        else if (kind->table == &moe_network_table)
            moe_network_print_derived(loaded, stdout);
        moe_config_dump(config, stdout);
        status = MOE_OK;
    }
    talloc_free(scratch);
    return status;
}

static int explain_entry(const char *topic)
{
    void *scratch = moe_need(talloc_new(NULL));
    const char *slash = strchr(topic, '/');
    char *plural = moe_need(talloc_strndup(scratch, topic, (size_t)(slash - topic)));
    const moe_catalogue_kind *kind = moe_catalogue_kind_find(plural);
    int status;
    if (!kind)
        status = refuse_topic(plural);
    else if (kind->folder)
        status = explain_preset(kind, slash + 1);
    else if (strcmp(kind->name, "policies") == 0)
        status = explain_policy(slash + 1);
    else if (strcmp(kind->name, "engines") == 0)
        status = explain_engine(slash + 1);
    else if (strcmp(kind->name, "validations") == 0)
        status = explain_validation(slash + 1);
    else
        status = explain_importer(slash + 1);
    talloc_free(scratch);
    return status;
}

/* Lists. */

static void list_kind(const moe_catalogue_kind *kind)
{
    size_t count;
    const char **names = moe_catalogue_names(NULL, kind, &count);
    for (size_t i = 0; i < count; i++)
        printf("  %s/%s\n", kind->name, names[i]);
    talloc_free(names);
}

static int list_topics(void)
{
    printf("Topics of `moeplan explain TOPIC`\n\nKeys of files, down to any depth "
           "(scenario.cluster.hosts):\n\n");
    for (int i = 0; i < ROOTS; i++)
        printf("  %-24s %s\n", roots[i].name, roots[i].table->sentence);
    for (const moe_catalogue_kind *kind = moe_catalogue_kinds; kind->name; kind++) {
        printf("\n%s: %s\n\n", kind->name, kind->sentence);
        list_kind(kind);
    }
    return MOE_OK;
}

static int print_reference(void)
{
    printf("# Reference\n\n"
           "Every key of every file, generated from the tables that parse them by\n"
           "`moeplan explain --reference`. Do not edit.\n\n");
    moe_table_reference(&moe_scenario_table, stdout);
    for (const moe_policy *const *policy = moe_policies; *policy; policy++) {
        printf("\n# Policy `%s`\n\n%s\n\n", (*policy)->name, (*policy)->sentence);
        if ((*policy)->tunables && (*policy)->tunables->fields->key)
            moe_table_reference((*policy)->tunables, stdout);
        else
            printf("No keys of its own.\n");
    }
    return MOE_OK;
}

/* The command line. */

typedef struct explain_arguments {
    const char *topic;
    bool reference;
} explain_arguments;

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    explain_arguments *arguments = state->input;
    if (key == 'r')
        arguments->reference = true;
    else if (key == ARGP_KEY_ARG && !arguments->topic)
        arguments->topic = value;
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp_option options[] = {
    {"reference", 'r', NULL, 0, "all keys of all files and policies, as Markdown", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};
static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "[TOPIC]",
    .doc = "Says what a policy, an engine, a preset or a key of a file means; without TOPIC, lists "
           "the topics.\vExamples: policies/fssdp, policies/fssdp.window, scenario.cluster.hosts, "
           "clusters/p4d_4x8_a100.",
};

int moe_explain_command(int argc, char **argv)
{
    explain_arguments arguments = {0};
    if (argp_parse(&parser, argc, argv, 0, NULL, &arguments) != 0)
        return MOE_USAGE;
    if (arguments.reference)
        return print_reference();
    if (!arguments.topic)
        return list_topics();
    return strchr(arguments.topic, '/') ? explain_entry(arguments.topic)
                                        : explain_path(arguments.topic);
}
