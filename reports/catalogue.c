#include "reports/catalogue.h"

#include "calibrate/fit/import.h"
#include "configs/base/memory.h"
#include "configs/preset.h"
#include "models/cluster.h"
#include "models/network.h"
#include "models/profile.h"
#include "policies/policy.h"
#include "reports/validation/suite.h"
#include "sim/engine.h"
#include "sim/scenario.h"
#include "traces/importer.h"
#include <string.h>
#include <talloc.h>

const moe_catalogue_kind moe_catalogue_kinds[] = {
    {"policies", "ways to place, replicate and materialize experts", NULL, NULL},
    {"engines", "what executes a step program", NULL, NULL},
    {"clusters", "clusters described in YAML", MOE_CLUSTER_PRESETS, &moe_cluster_table},
    {"models", "Mixture-of-Experts models described in YAML", MOE_MODEL_PRESETS, &moe_network_table},
    {"scenarios", "comparisons ready to simulate", "configs/scenarios", &moe_scenario_table},
    {"profiles", "cost curves of one kind of device and fabric", MOE_PROFILE_PRESETS,
     &moe_profile_table},
    {"importers", "readers of foreign routing recordings and measurements", NULL, NULL},
    {"validations", "comparisons with published measurements", NULL, NULL},
    {NULL, NULL, NULL, NULL},
};

const moe_catalogue_kind *moe_catalogue_kind_find(const char *name)
{
    for (const moe_catalogue_kind *kind = moe_catalogue_kinds; kind->name; kind++)
        if (strcmp(kind->name, name) == 0)
            return kind;
    return NULL;
}

/* Built-in entries. */

static void add_entry(json_t *entries, const char *name, const char *sentence, const char *file)
{
    json_t *entry = json_pack("{s:s, s:s}", "name", name, "sentence", sentence);
    if (file)
        json_object_set_new(entry, "file", json_string(file));
    json_array_append_new(entries, entry);
}

/* Of recordings, which `trace convert` reads, and of measurements, which `profile import` does. */
static void add_importers(json_t *entries)
{
    for (const moe_importer *const *importer = moe_importers; *importer; importer++)
        add_entry(entries, (*importer)->name, (*importer)->sentence, NULL);
    for (const moe_sample_importer *const *importer = moe_sample_importers; *importer; importer++)
        add_entry(entries, (*importer)->name, (*importer)->sentence, NULL);
}

static json_t *list_built_in(const char *kind)
{
    json_t *entries = json_array();
    if (strcmp(kind, "policies") == 0)
        for (const moe_policy *const *policy = moe_policies; *policy; policy++)
            add_entry(entries, (*policy)->name, (*policy)->sentence, NULL);
    else if (strcmp(kind, "engines") == 0)
        for (const moe_engine *const *engine = moe_engines; *engine; engine++)
            add_entry(entries, (*engine)->name, (*engine)->sentence, NULL);
    else if (strcmp(kind, "validations") == 0)
        for (const moe_validation_suite *const *suite = moe_validation_suites; *suite; suite++)
            add_entry(entries, (*suite)->name, (*suite)->sentence, NULL);
    else
        add_importers(entries);
    return entries;
}

/* Presets. */

char *moe_catalogue_file(void *owner, const moe_catalogue_kind *kind, const char *name)
{
    return kind->folder ? moe_preset_file(owner, kind->folder, name) : NULL;
}

/* One line about a loaded preset. */

static char *describe_cluster(void *owner, const moe_cluster_spec *cluster)
{
    char intra[48], nic[48];
    moe_units_format_short(cluster->intra.bandwidth_bytes_per_s, MOE_BANDWIDTH, intra);
    moe_units_format_short(cluster->nic.bandwidth_bytes_per_s, MOE_BANDWIDTH, nic);
    return talloc_asprintf(
        owner,
        "%lld hosts x %lld devices (%s), %s per device within a host, %s per %s between hosts",
        (long long)cluster->hosts, (long long)cluster->devices_per_host,
        cluster->device.name ? cluster->device.name : "unnamed", intra, nic,
        cluster->nic.sharing == MOE_NIC_PER_HOST ? "host" : "device");
}

static char *describe_network(void *owner, const moe_network *network)
{
    return talloc_asprintf(
        owner,
        "%lld layers x %lld experts, top-%lld, hidden %lld, %.3g B parameters, %.3g B active",
        (long long)moe_network_moe_layers(network), (long long)network->experts,
        (long long)network->top_k, (long long)network->hidden,
        moe_network_total_parameters(network) / 1e9, moe_network_active_parameters(network) / 1e9);
}

static char *describe_scenario(void *owner, const moe_scenario *scenario)
{
    const moe_policy_use *uses = scenario->policies.items;
    char *text = talloc_asprintf(
        owner,
        "%s on %lld x %lld devices:", scenario->model.name ? scenario->model.name : "a model",
        (long long)scenario->cluster.hosts, (long long)scenario->cluster.devices_per_host);
    for (size_t i = 0; i < scenario->policies.count; i++)
        text = talloc_asprintf_append(moe_need(text), "%s %s", i ? "," : "", uses[i].name);
    return text;
}

/* Says where the parts of a profile come from: the first thing to know of a cost. */
static char *describe_profile(void *owner, const moe_profile *profile)
{
    char *text = talloc_asprintf(owner, "costs of %s: dense %s, experts %s; collectives",
                                 profile->device ? profile->device : "an unnamed device",
                                 moe_origin_names[profile->dense.origin],
                                 moe_origin_names[profile->experts[MOE_FORWARD].origin]);
    bool said[MOE_ASSUMED + 1] = {false};
    const char *separator = " ";
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++) {
        int origin = profile->collectives[kind].origin;
        if (!moe_profile_has(profile, (moe_collective_kind)kind))
            continue;
        if (!said[origin])
            text =
                talloc_asprintf_append(moe_need(text), "%s%s", separator, moe_origin_names[origin]);
        said[origin] = true;
        separator = ", ";
    }
    return text;
}

char *moe_catalogue_describe(void *owner, const moe_table *table, const void *loaded)
{
    char *text;
    if (table == &moe_cluster_table)
        text = describe_cluster(owner, loaded);
    else if (table == &moe_network_table)
        text = describe_network(owner, loaded);
    else if (table == &moe_scenario_table)
        text = describe_scenario(owner, loaded);
    else
        text = describe_profile(owner, loaded);
    return moe_need(text);
}

static void add_preset(json_t *entries, const moe_catalogue_kind *kind, const char *name)
{
    void *scratch = moe_need(talloc_new(NULL));
    char *path = moe_catalogue_file(scratch, kind, name);
    moe_diag *quiet = moe_diag_create(scratch, NULL);
    const moe_config *config =
        path ? moe_config_load(scratch, path, kind->table, NULL, 0, quiet) : NULL;
    const char *sentence = "does not load: `moeplan check` says why";
    if (config)
        sentence = moe_catalogue_describe(scratch, kind->table, moe_config_root(config));
    add_entry(entries, name, sentence, path ? path : "");
    talloc_free(scratch);
}

json_t *moe_catalogue_list(const moe_catalogue_kind *kind)
{
    if (!kind->folder)
        return list_built_in(kind->name);
    size_t count;
    json_t *entries = json_array();
    const char **names = moe_preset_names(NULL, kind->folder, &count);
    for (size_t i = 0; i < count; i++)
        add_preset(entries, kind, names[i]);
    talloc_free(names);
    return entries;
}

const char **moe_catalogue_names(void *owner, const moe_catalogue_kind *kind, size_t *count)
{
    if (kind->folder)
        return moe_preset_names(owner, kind->folder, count);
    json_t *entries = list_built_in(kind->name);
    *count = json_array_size(entries);
    const char **names = moe_need(talloc_zero_array(owner, const char *, *count + 1));
    for (size_t i = 0; i < *count; i++) {
        const json_t *name = json_object_get(json_array_get(entries, i), "name");
        names[i] = moe_need(talloc_strdup(names, json_string_value(name)));
    }
    json_decref(entries);
    return names;
}
