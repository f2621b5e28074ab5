#include "reports/report.h"
#include "sim/sensitivity.h"

#include <talloc.h>

static json_t *cluster_json(const moe_binding *binding)
{
    const moe_cluster_spec *spec = &binding->scenario->cluster;
    return json_pack("{s:s, s:i, s:i, s:i, s:s}", "name", spec->name, "devices",
                     binding->cluster->devices, "hosts", binding->cluster->hosts,
                     "devices_per_host", binding->cluster->devices_per_host, "device",
                     spec->device.name);
}

static json_t *trace_json(const moe_binding *binding, const moe_run *run)
{
    const moe_trace_info *info = moe_trace_get_info(binding->trace);
    return json_pack("{s:s, s:I, s:b, s:s, s:s, s:b, s:o}", "file", binding->scenario->trace.file,
                     "iterations", (json_int_t)run->iterations, "synthetic", (int)info->synthetic,
                     "origin", info->origin, "digest", info->digest, "marked",
                     (int)moe_routing_is_marked(binding->routing), "rules",
                     moe_routing_rules(binding->routing));
}

static json_t *profile_json(const moe_binding *binding, const moe_run *run)
{
    const moe_profile *profile = &binding->scenario->profile;
    json_t *curves = json_object();
    for (int p = 0; p < run->policy_count; p++)
        json_object_set_new(curves, run->policies[p].result.name,
                            moe_profile_provenance(profile, &run->policies[p].usage));
    return json_pack("{s:s?, s:s?, s:s*, s:s*, s:o}", "name", profile->name, "device",
                     profile->device, "source", profile->source, "licence", profile->licence,
                     "curves", curves);
}

/* Files and their digests: what the scenario is made of, and plans that it runs as given. */
static json_t *inputs_json(const moe_binding *binding)
{
    json_t *inputs = moe_config_digests(binding->config);
    for (size_t p = 0; p < binding->scenario->policies.count; p++)
        if (binding->plans[p] != NULL)
            json_object_set_new(inputs, binding->plans[p]->path,
                                json_string(binding->plans[p]->digest));
    return inputs;
}

static json_t *parallel_json(const moe_binding *binding)
{
    return json_pack("{s:i, s:i, s:s}", "ep", binding->layout.ep, "expert_dp",
                     binding->layout.groups, "order", moe_binding_order(binding));
}

static json_t *provenance_json(const moe_binding *binding, const moe_run *run)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:b, s:I, s:o, s:o}", "program",
                     "moeplan " MOEPLAN_VERSION, "engine", binding->engine->name, "network_model",
                     binding->engine->network_model, "port_sharing",
                     moe_sharing_names[moe_binding_sharing(binding).rule], "step",
                     moe_step_kind_names[binding->scenario->step], "parallel",
                     parallel_json(binding), "interference", (int)binding->scenario->interference,
                     "seed", (json_int_t)binding->scenario->seed, "inputs", inputs_json(binding),
                     "profile", profile_json(binding, run));
}

/* Only where a scenario asks for it. */
static json_t *dispatch_json(const moe_binding *binding, const moe_result *result)
{
    const int once_per = binding->scenario->dispatch.once_per;
    if (once_per == MOE_ONCE_PER_ASSIGNMENT)
        return NULL;
    return json_pack("{s:s, s:b, s:f}", "once_per", moe_once_names[once_per], "estimated",
                     (int)!moe_binding_knows_tokens(binding), "saved_factor",
                     moe_result_saved_factor(result));
}

static json_t *policy_json(const moe_binding *binding, const moe_run *run, int p)
{
    json_t *dispatch = dispatch_json(binding, &run->policies[p].result);
    json_t *json = moe_result_json(&run->policies[p].result, &run->policies[0].result);
    if (run->policies[p].description != NULL)
        json_object_set_new(json, "description", json_string(run->policies[p].description));
    if (dispatch != NULL)
        json_object_set_new(json, "dispatch", dispatch);
    return json;
}

/* {"steps": n, "per_flow": {"ep": relative difference of the step time, ...}}; null where nothing is shared. */
static json_t *sensitivity_json(const moe_run *run)
{
    const moe_sensitivity *sensitivity = run->sensitivity;
    if (sensitivity == NULL)
        return json_null();
    json_t *json = json_pack("{s:i}", "steps", sensitivity->steps);
    for (int r = 0; r < sensitivity->rule_count; r++) {
        json_t *rule = json_object();
        for (int p = 0; p < sensitivity->policy_count; p++)
            json_object_set_new(
                rule, run->policies[p].result.name,
                json_real(sensitivity->difference[p * sensitivity->rule_count + r]));
        json_object_set_new(json, moe_sharing_names[sensitivity->rules[r]], rule);
    }
    return json;
}

json_t *moe_report_json(const moe_binding *binding, const moe_run *run)
{
    json_t *policies = json_array();
    for (int p = 0; p < run->policy_count; p++)
        json_array_append_new(policies, policy_json(binding, run, p));
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "engine", binding->engine->name, "seed",
                     (json_int_t)binding->scenario->seed, "cluster", cluster_json(binding), "trace",
                     trace_json(binding, run), "policies", policies, "port_sharing_sensitivity",
                     sensitivity_json(run), "provenance", provenance_json(binding, run));
}
