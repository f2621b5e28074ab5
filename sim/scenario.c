#include "sim/scenario.h"

#include <limits.h>
#include <math.h>
#include <string.h>
#include <talloc.h>

static const char *const recompute_names[] = {"none", "experts", "full", NULL};
static const char *const optimizer_names[] = {"replicated", "zero1", NULL};

/* clang-format off */
static const moe_field parallel_fields[] = {
    {.key = "ep", .type = MOE_FIELD_INTEGER, .dimension = MOE_COUNT, .default_text = "0",
     .offset = offsetof(moe_parallel, ep), .high = 65536,
     .sentence = "Ranks of an EP group, consecutive ones; must divide the devices; 0: what expert_dp leaves, all devices without it."},
    {.key = "expert_dp", .type = MOE_FIELD_INTEGER, .dimension = MOE_COUNT, .default_text = "0",
     .offset = offsetof(moe_parallel, expert_dp), .high = 65536,
     .sentence = "EP groups, each with all experts: ep x expert_dp are the devices; 0: as many groups as there are devices for."},
    {.key = "dp", .type = MOE_FIELD_INTEGER, .dimension = MOE_COUNT, .default_text = "0",
     .offset = offsetof(moe_parallel, dp), .high = 65536,
     .sentence = "Data-parallel source ranks; 0: one on every device, the only number possible without tensor or pipeline parallelism."},
    {.key = "order", .type = MOE_FIELD_CHOICE, .default_text = "ep_first", .choices = moe_rank_order_names,
     .offset = offsetof(moe_parallel, order),
     .sentence = "Which ranks share a host. ep_first: EP groups fill hosts one after another; ep_last: ranks at one position of every EP "
                 "group are neighbours, so EP groups stride over hosts; hosts_round_robin: consecutive ranks on different hosts."},
    {.key = "ranks", .type = MOE_FIELD_REALS, .dimension = MOE_COUNT,
     .offset = offsetof(moe_parallel, ranks),
     .sentence = "In place of `order`: the device of rank 0, of rank 1, ..., every device once."},
    {.key = NULL}};

static const moe_table parallel_table = {
    .noun = "parallel", .sentence = "How devices are grouped.", .size = sizeof(moe_parallel),
    .fields = parallel_fields};

static const moe_field batch_fields[] = {
    {.key = "micro_batches", .type = MOE_FIELD_INTEGER, .dimension = MOE_COUNT, .default_text = "1",
     .offset = offsetof(moe_batch, micro_batches), .low = 1, .high = 1024,
     .sentence = "Forward and backward passes of one step, whose gradients accumulate; a dispatch happens in each. Serving: forward passes, one after another."},
    {.key = "recompute", .type = MOE_FIELD_CHOICE, .default_text = "none",
     .offset = offsetof(moe_batch, recompute), .choices = recompute_names,
     .sentence = "What is computed again in backward instead of kept: nothing, the experts, or the whole layer with its two all-to-alls."},
    {.key = "optimizer", .type = MOE_FIELD_CHOICE, .default_text = "replicated",
     .offset = offsetof(moe_batch, optimizer), .choices = optimizer_names,
     .sentence = "Optimizer state of what is not an expert: replicated on every device, or sharded over them (ZeRO-1)."},
    {.key = NULL}};

static const moe_table batch_table = {
    .noun = "batch", .sentence = "What one step consists of.", .size = sizeof(moe_batch),
    .fields = batch_fields};

static const moe_field dispatch_fields[] = {
    {.key = "once_per", .type = MOE_FIELD_CHOICE, .default_text = "assignment",
     .offset = offsetof(moe_dispatch_rule, once_per), .choices = moe_once_names,
     .sentence = "What dispatch sends a token for: every assignment; every device that holds any of its experts; or every such host, "
                 "where it is forwarded to the devices. The last two are estimated from the counts, which do not say who was chosen together."},
    {.key = NULL}};

static const moe_table dispatch_table = {
    .noun = "dispatch", .sentence = "How tokens travel to experts and back.",
    .size = sizeof(moe_dispatch_rule), .fields = dispatch_fields};

static const moe_field memory_fields[] = {
    {.key = "library", .type = MOE_FIELD_REAL, .dimension = MOE_BYTES, .default_text = "1 GiB",
     .offset = offsetof(moe_memory_options, library_bytes),
     .sentence = "Memory of a device taken by CUDA context, NCCL and cuBLAS (assumed default)."},
    {.key = "reserved", .type = MOE_FIELD_REAL, .dimension = MOE_FRACTION, .default_text = "5 %",
     .offset = offsetof(moe_memory_options, reserved_fraction), .high = 0.9,
     .sentence = "Fraction of a device's memory kept free for fragmentation (assumed default)."},
    {.key = NULL}};

static const moe_table memory_table = {
    .noun = "memory", .sentence = "Memory that no tensor of the model accounts for.",
    .size = sizeof(moe_memory_options), .fields = memory_fields};

#define WEIGHT(kind, name)                                                                         \
    {.key = name, .type = MOE_FIELD_REAL, .dimension = MOE_NUMBER, .default_text = "1",            \
     .offset = offsetof(moe_port_weights, values) + sizeof(double) * (kind), .low = 1e-6,          \
     .high = 1e6, .sentence = "Part of a port that this kind gets, relative to the others'."}
static const moe_field weight_fields[] = {
    WEIGHT(MOE_ALL_TO_ALL, "all_to_all"), WEIGHT(MOE_ALL_GATHER, "all_gather"),
    WEIGHT(MOE_REDUCE_SCATTER, "reduce_scatter"), WEIGHT(MOE_ALL_REDUCE, "all_reduce"),
    WEIGHT(MOE_BROADCAST, "broadcast"), WEIGHT(MOE_REDUCE, "reduce"),
    WEIGHT(MOE_SEND_RECV, "send_recv"),
    WEIGHT(MOE_ALL_TO_ALL_LOW_LATENCY, "all_to_all_low_latency"), {.key = NULL}};

static const moe_table weight_table = {
    .noun = "port_weights", .sentence = "Shares of a port by kind of collective, where `port_sharing` is weighted.",
    .size = sizeof(moe_port_weights), .fields = weight_fields};

static const moe_field policy_fields[] = {
    {.key = "name", .type = MOE_FIELD_TEXT, .required = true, .offset = offsetof(moe_policy_use, name),
     .sentence = "What results and --policy call it."},
    {.key = "policy", .type = MOE_FIELD_TEXT, .offset = offsetof(moe_policy_use, policy),
     .sentence = "Which policy it is (`moeplan list policies`); absent: the one called like `name`."},
    {.key = "plan", .type = MOE_FIELD_PATH, .offset = offsetof(moe_policy_use, plan),
     .sentence = "A file of `moeplan plan`: its owners and copies stand in every iteration, tokens go by topology and nothing is "
                 "decided anew; how steps are built stays the policy's."},
    {.key = NULL}};

static const moe_variant policy_variant = {
    .key = "policy", .fallback_key = "name", .offset = offsetof(moe_policy_use, tunables),
    .select = moe_policy_select};

static const moe_table policy_table = {
    .noun = "policy", .sentence = "A placement policy and its tunables (`moeplan explain policies/NAME`).",
    .size = sizeof(moe_policy_use), .fields = policy_fields, .variant = &policy_variant};

/* As moe_sharing_names, and MOE_SHARE_AS_PROFILE. */
static const char *const sharing_choices[] = {"per_collective", "per_flow", "weighted", "profile", NULL};

static const moe_field scenario_fields[] = {
    {.key = "name", .type = MOE_FIELD_TEXT, .offset = offsetof(moe_scenario, name),
     .sentence = "A title for reports."},
    {.key = "cluster", .type = MOE_FIELD_FILE, .required = true, .table = &moe_cluster_table,
     .offset = offsetof(moe_scenario, cluster), .sentence = "The cluster: a file or an inline map."},
    {.key = "model", .type = MOE_FIELD_FILE, .required = true, .table = &moe_network_table,
     .offset = offsetof(moe_scenario, model), .sentence = "The MoE model: a file or an inline map."},
    {.key = "profile", .type = MOE_FIELD_FILE, .required = true, .table = &moe_profile_table,
     .offset = offsetof(moe_scenario, profile), .sentence = "What operations cost: a file or an inline map."},
    {.key = "trace", .type = MOE_FIELD_MAP, .required = true, .table = &moe_trace_use_table,
     .offset = offsetof(moe_scenario, trace), .sentence = "The routing trace and how it is mapped to this scenario."},
    {.key = "step", .type = MOE_FIELD_CHOICE, .default_text = "train", .choices = moe_step_kind_names,
     .offset = offsetof(moe_scenario, step),
     .sentence = "What one iteration is: a training step, or forward passes that read prompts (prefill) or add a token to every "
                 "sequence (decode)."},
    {.key = "serving", .type = MOE_FIELD_MAP, .table = &moe_serving_table,
     .offset = offsetof(moe_scenario, serving),
     .sentence = "What a rank serves in a step of prefill or decode; without meaning in train."},
    {.key = "parallel", .type = MOE_FIELD_MAP, .table = &parallel_table,
     .offset = offsetof(moe_scenario, parallel), .sentence = "How devices are grouped."},
    {.key = "batch", .type = MOE_FIELD_MAP, .table = &batch_table,
     .offset = offsetof(moe_scenario, batch), .sentence = "What one step consists of."},
    {.key = "dispatch", .type = MOE_FIELD_MAP, .table = &dispatch_table,
     .offset = offsetof(moe_scenario, dispatch), .sentence = "How tokens travel to experts and back."},
    {.key = "memory", .type = MOE_FIELD_MAP, .table = &memory_table,
     .offset = offsetof(moe_scenario, memory), .sentence = "Memory that no tensor of the model accounts for."},
    {.key = "interference", .type = MOE_FIELD_BOOL, .default_text = "true",
     .offset = offsetof(moe_scenario, interference),
     .sentence = "Whether communication and computation beside each other slow each other down, as the profile says."},
    {.key = "port_sharing", .type = MOE_FIELD_CHOICE, .default_text = "profile",
     .choices = sharing_choices, .offset = offsetof(moe_scenario, port_sharing),
     .sentence = "How two collectives divide a port they load together: equally, by the transfers each has there, by `port_weights`, "
                 "or as the profile's interference.port_sharing says."},
    {.key = "port_weights", .type = MOE_FIELD_MAP, .table = &weight_table,
     .offset = offsetof(moe_scenario, port_weights),
     .sentence = "Shares of a port by kind of collective, where `port_sharing` is weighted."},
    {.key = "stragglers", .type = MOE_FIELD_LIST, .table = &moe_straggler_table,
     .offset = offsetof(moe_scenario, stragglers),
     .sentence = "Devices and links that are slower than nominal, for a time or at random."},
    {.key = "policies", .type = MOE_FIELD_LIST, .required = true, .table = &policy_table,
     .offset = offsetof(moe_scenario, policies),
     .sentence = "The policies to compare; speed-ups are over the first."},
    {.key = "engine", .type = MOE_FIELD_TEXT, .default_text = "fluid", .offset = offsetof(moe_scenario, engine),
     .sentence = "Which engine executes the steps (`moeplan list engines`)."},
    {.key = "seed", .type = MOE_FIELD_INTEGER, .dimension = MOE_COUNT, .default_text = "1",
     .offset = offsetof(moe_scenario, seed), .high = 9007199254740992.0,
     .sentence = "Seed of every random draw (relabelling of experts, resampling)."},
    {.key = NULL}};
/* clang-format on */

const moe_table moe_scenario_table = {
    .noun = "scenario",
    .sentence = "One question: a cluster, a model, a profile, a trace and the policies to compare.",
    .size = sizeof(moe_scenario),
    .fields = scenario_fields};

/* --- binding ------------------------------------------------------------------------------------
 */

static const moe_engine *find_engine(const moe_config *config, const moe_scenario *scenario,
                                     const char *name, moe_diag *diag)
{
    const moe_engine *engine = moe_engine_find(name != NULL ? name : scenario->engine);
    if (engine != NULL)
        return engine;
    moe_where where = name != NULL ? (moe_where){0} : moe_config_where(config, &scenario->engine);
    moe_diag_error(diag, where, "unknown engine \"%s\", expected one of `moeplan list engines`: %s",
                   name != NULL ? name : scenario->engine, "fluid, analytic, message");
    return NULL;
}

static moe_status check_policies(const moe_config *config, const moe_scenario *scenario,
                                 moe_diag *diag)
{
    const moe_policy_use *uses = scenario->policies.items;
    if (scenario->policies.count == 0)
        moe_diag_error(diag, moe_config_where(config, &scenario->policies),
                       "no policies, expected at least one such as {name: ep}");
    for (size_t i = 0; i < scenario->policies.count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(uses[i].name, uses[j].name) == 0)
                moe_diag_error(diag, moe_config_where(config, &uses[i].name),
                               "a second policy named \"%s\", expected a name of its own "
                               "(use `policy:` to say which one it is)",
                               uses[i].name);
    return moe_diag_error_count(diag) == 0 ? MOE_OK : MOE_BAD_INPUT;
}

/* The first rank whose device is none or another's; their number if there is no such rank. */
static size_t first_misplaced(const moe_reals *ranks)
{
    bool *taken = talloc_zero_array(NULL, bool, (unsigned)ranks->count);
    size_t i = 0;
    for (; i < ranks->count; i++) {
        double device = ranks->values[i];
        if (!(device >= 0 && device < (double)ranks->count) || device != floor(device) ||
            taken[(size_t)device])
            break;
        taken[(size_t)device] = true;
    }
    talloc_free(taken);
    return i;
}

static moe_status check_ranks(const moe_binding *binding, moe_diag *diag)
{
    const moe_parallel *parallel = &binding->scenario->parallel;
    const moe_reals *ranks = &parallel->ranks;
    const size_t devices = (size_t)binding->cluster->devices;
    moe_where where = moe_config_where(binding->config, ranks);
    if (parallel->order != MOE_RANKS_EP_FIRST) {
        moe_diag_error(diag, where, "ranks and order %s both say where ranks sit, expected one",
                       moe_rank_order_names[parallel->order]);
        return MOE_BAD_INPUT;
    }
    if (ranks->count != devices) {
        moe_diag_error(diag, where, "ranks has %zu devices, expected the cluster's %zu",
                       ranks->count, devices);
        return MOE_BAD_INPUT;
    }
    size_t rank = first_misplaced(ranks);
    if (rank == devices)
        return MOE_OK;
    moe_diag_error(diag, where, "ranks puts rank %zu on device %g, expected each of 0 to %zu once",
                   rank, ranks->values[rank], devices - 1);
    return MOE_BAD_INPUT;
}

static moe_status seat_ranks(moe_binding *binding, moe_diag *diag)
{
    const moe_parallel *parallel = &binding->scenario->parallel;
    if (parallel->ranks.count == 0) {
        moe_cluster_seat_in_order(binding->cluster, (moe_rank_order)parallel->order,
                                  binding->layout.ep);
        return MOE_OK;
    }
    if (check_ranks(binding, diag) != MOE_OK)
        return MOE_BAD_INPUT;
    int *devices = talloc_array(NULL, int, (unsigned)parallel->ranks.count);
    for (size_t i = 0; i < parallel->ranks.count; i++)
        devices[i] = (int)parallel->ranks.values[i];
    moe_cluster_seat(binding->cluster, devices);
    talloc_free(devices);
    return MOE_OK;
}

const char *moe_binding_order(const moe_binding *binding)
{
    const moe_parallel *parallel = &binding->scenario->parallel;
    return parallel->ranks.count > 0 ? "ranks" : moe_rank_order_names[parallel->order];
}

/* Devices of an EP group; 0 after a printed error. */
static int64_t ep_of(const moe_binding *binding, moe_diag *diag)
{
    const moe_parallel *parallel = &binding->scenario->parallel;
    const moe_cluster *cluster = binding->cluster;
    const bool by_groups = parallel->ep == 0 && parallel->expert_dp != 0;
    const int64_t divisor = by_groups ? parallel->expert_dp : parallel->ep;
    if (divisor == 0)
        return cluster->devices;
    if (cluster->devices % divisor != 0) {
        moe_diag_error(
            diag,
            moe_config_where(binding->config, by_groups ? &parallel->expert_dp : &parallel->ep),
            "%s is %lld, expected a divisor of the cluster's %d devices (%d hosts x %d)",
            by_groups ? "expert_dp" : "ep", (long long)divisor, cluster->devices, cluster->hosts,
            cluster->devices_per_host);
        return 0;
    }
    return by_groups ? cluster->devices / divisor : divisor;
}

static moe_status bind_layout(moe_binding *binding, moe_diag *diag)
{
    const moe_parallel *parallel = &binding->scenario->parallel;
    int devices = binding->cluster->devices;
    int64_t ep = ep_of(binding, diag);
    if (ep == 0)
        return MOE_BAD_INPUT;
    if (parallel->expert_dp != 0 && parallel->expert_dp != devices / ep) {
        moe_diag_error(diag, moe_config_where(binding->config, &parallel->expert_dp),
                       "expert_dp is %lld, expected %lld: the cluster's %d devices are so many EP "
                       "groups of %lld",
                       (long long)parallel->expert_dp, (long long)(devices / ep), devices,
                       (long long)ep);
        return MOE_BAD_INPUT;
    }
    if (parallel->dp != 0 && parallel->dp != devices) {
        moe_diag_error(
            diag, moe_config_where(binding->config, &parallel->dp),
            "dp is %lld, expected %d, one source rank on every device (there is no tensor "
            "or pipeline parallelism), or 0",
            (long long)parallel->dp, devices);
        return MOE_BAD_INPUT;
    }
    binding->layout = (moe_layout){.devices = devices, .ep = (int)ep, .groups = devices / (int)ep};
    return seat_ranks(binding, diag);
}

/* Iterations just before the window fill the histories that policies predict from, so that the
 * first iterations of a run are not those of a system without a past. */
enum { WARMUP_ITERATIONS = MOE_HISTORY_DEPTH };

static moe_routing *bind_warmup(moe_binding *binding, const moe_routing_target *target,
                                moe_diag *diag)
{
    const moe_trace_use *use = &binding->scenario->trace;
    if (use->window.count != 2 || use->window.values[0] < 1)
        return NULL;
    double first = use->window.values[0];
    double *window = talloc_array(binding, double, 2);
    window[0] = fmax(0, first - WARMUP_ITERATIONS);
    window[1] = first;
    moe_trace_use before = *use;
    before.window.values = window;
    before.repeat = 1;
    return moe_routing_create(binding, binding->trace, &before, target,
                              (uint64_t)binding->scenario->seed, NULL, diag);
}

static moe_status bind_routing(moe_binding *binding, moe_diag *diag)
{
    const moe_scenario *scenario = binding->scenario;
    moe_routing_target target = {
        .layers = (int)moe_network_moe_layers(&scenario->model),
        .sources = binding->cluster->devices,
        .experts = (int)scenario->model.experts,
        .top_k = (int)scenario->model.top_k,
        .micro_batches = (int)scenario->batch.micro_batches,
    };
    binding->trace = moe_trace_open(binding, scenario->trace.file,
                                    moe_config_where(binding->config, &scenario->trace.file), diag);
    if (binding->trace == NULL)
        return MOE_BAD_INPUT;
    binding->routing = moe_routing_create(binding, binding->trace, &scenario->trace, &target,
                                          (uint64_t)scenario->seed, binding->config, diag);
    if (binding->routing == NULL)
        return MOE_BAD_INPUT;
    binding->warmup = bind_warmup(binding, &target, diag);
    return moe_diag_error_count(diag) == 0 ? MOE_OK : MOE_BAD_INPUT;
}

/* The mean over sources and layers of the run's first dispatches: traces may vary from cell to
 * cell. */
static double mean_tokens(const moe_binding *binding)
{
    const moe_routing_target *target = moe_routing_get_target(binding->routing);
    size_t cells = (size_t)target->sources * (size_t)target->experts;
    uint32_t *counts = talloc_array(NULL, uint32_t, cells);
    uint32_t *tokens = talloc_array(counts, uint32_t, (size_t)target->sources);
    double sum = 0;
    moe_routing_read(binding->routing, 0, 0, 0, counts, tokens);
    for (int s = 0; s < target->sources; s++)
        sum += tokens[s];
    talloc_free(counts);
    return sum / target->sources;
}

static moe_status bind_all(moe_binding *binding, moe_diag *diag)
{
    moe_scenario *scenario = moe_config_root(binding->config);
    const moe_config *config = binding->config;
    binding->cluster = moe_cluster_create(binding, &scenario->cluster, config, diag);
    moe_network_check(&scenario->model, config, diag);
    check_policies(config, scenario, diag);
    if (binding->cluster == NULL)
        return MOE_BAD_INPUT;
    moe_profile_check(&scenario->profile, binding->cluster, config, diag);
    moe_stragglers_check(&scenario->stragglers, binding->cluster, config, diag);
    moe_serving_check(scenario, config, diag);
    if (moe_diag_error_count(diag) > 0 || bind_layout(binding, diag) != MOE_OK ||
        bind_routing(binding, diag) != MOE_OK)
        return MOE_BAD_INPUT;
    binding->options = (moe_step_options){
        .micro_batches = (int)scenario->batch.micro_batches,
        .tokens = mean_tokens(binding),
        .recompute = scenario->batch.recompute,
        .optimizer_sharding = scenario->batch.optimizer,
        .interference = scenario->interference,
    };
    moe_serving_options(scenario, &binding->options);
    return MOE_OK;
}

static bool suits(const moe_binding *binding, const moe_plan *plan, moe_where where, moe_diag *diag)
{
    const moe_routing_target *target = moe_routing_get_target(binding->routing);
    const struct {
        const char *noun;
        int64_t plan, scenario;
    } relations[] = {{"MoE layers", plan->model.layers, target->layers},
                     {"experts a layer", plan->model.experts, target->experts},
                     {"devices", plan->layout.devices, binding->layout.devices},
                     {"devices an EP group", plan->layout.ep, binding->layout.ep}};
    bool all = true;
    for (size_t i = 0; i < sizeof relations / sizeof *relations; i++) {
        if (relations[i].plan == relations[i].scenario)
            continue;
        moe_diag_error(diag, where, "plan \"%s\" is for %lld %s, expected the scenario's %lld",
                       plan->path, (long long)relations[i].plan, relations[i].noun,
                       (long long)relations[i].scenario);
        all = false;
    }
    for (int r = 0; all && r < binding->layout.devices; r++) {
        if (moe_plan_seat(plan, r) == binding->cluster->places[r].device)
            continue;
        moe_diag_error(diag, where,
                       "plan \"%s\" seats rank %d on device %d, expected the scenario's %d "
                       "(parallel.order)",
                       plan->path, r, moe_plan_seat(plan, r), binding->cluster->places[r].device);
        all = false;
    }
    return all;
}

static moe_status bind_plans(moe_binding *binding, moe_diag *diag)
{
    const moe_policy_use *uses = binding->scenario->policies.items;
    size_t count = binding->scenario->policies.count;
    moe_status status = MOE_OK;
    binding->plans = talloc_zero_array(binding, const moe_plan *, (unsigned)count);
    for (size_t i = 0; i < count; i++) {
        if (uses[i].plan == NULL)
            continue;
        moe_where where = moe_config_where(binding->config, &uses[i].plan);
        binding->plans[i] = moe_plan_read(binding, uses[i].plan, where, diag);
        if (binding->plans[i] == NULL || !suits(binding, binding->plans[i], where, diag))
            status = MOE_BAD_INPUT;
    }
    return status;
}

/* Policies check their own relations (experts against devices, ...) when they are created. */
static moe_status try_policies(const moe_binding *binding, moe_diag *diag)
{
    moe_curve_usage usage = {0};
    moe_costs costs = {&binding->scenario->profile, binding->cluster, &usage};
    moe_problem problem = moe_binding_problem(binding, &costs);
    const moe_policy_use *uses = binding->scenario->policies.items;
    void *scratch = talloc_new(NULL);
    moe_status status = MOE_OK;
    for (size_t i = 0; i < binding->scenario->policies.count; i++) {
        const moe_policy *policy =
            moe_policy_find(uses[i].policy != NULL ? uses[i].policy : uses[i].name);
        moe_schedule schedule;
        moe_placement *placement =
            moe_placement_create(scratch, &binding->layout,
                                 (int)moe_network_moe_layers(&binding->scenario->model),
                                 (int)binding->scenario->model.experts);
        if (policy->create(scratch, &problem, uses[i].tunables, &schedule, placement,
                           binding->config, diag) == NULL)
            status = MOE_BAD_INPUT;
    }
    talloc_free(scratch);
    return status;
}

moe_binding *moe_binding_create(void *owner, const char *path, const char *const *overrides,
                                size_t override_count, const char *engine_name, moe_diag *diag)
{
    moe_binding *binding = talloc_zero(owner, moe_binding);
    moe_config *config =
        moe_config_load(binding, path, &moe_scenario_table, overrides, override_count, diag);
    if (config == NULL)
        goto fail;
    binding->config = config;
    binding->scenario = moe_config_root(config);
    binding->engine = find_engine(config, binding->scenario, engine_name, diag);
    if (bind_all(binding, diag) != MOE_OK || binding->engine == NULL ||
        bind_plans(binding, diag) != MOE_OK || try_policies(binding, diag) != MOE_OK)
        goto fail;
    return binding;
fail:
    talloc_free(binding);
    return NULL;
}

moe_sharing moe_binding_sharing(const moe_binding *binding)
{
    const moe_scenario *scenario = binding->scenario;
    const int chosen = scenario->port_sharing;
    const int rule = chosen == MOE_SHARE_AS_PROFILE ? scenario->profile.port_sharing : chosen;
    moe_sharing sharing = {.rule = (moe_sharing_rule)rule};
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++)
        sharing.weights[kind] = binding->scenario->port_weights.values[kind];
    return sharing;
}

moe_problem moe_binding_problem(const moe_binding *binding, const moe_costs *costs)
{
    return (moe_problem){
        .cluster = binding->cluster,
        .network = &binding->scenario->model,
        .costs = costs,
        .layout = binding->layout,
        .options = binding->options,
        .memory = binding->scenario->memory,
        .seed = (uint64_t)binding->scenario->seed,
    };
}

bool moe_binding_knows_tokens(const moe_binding *binding)
{
    return moe_trace_get_info(binding->trace)->slots > 0 && binding->options.tokens == 1 &&
           !moe_routing_is_marked(binding->routing);
}
