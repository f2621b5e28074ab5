#include "models/profile_curve.h"

#include <stdio.h>
#include <string.h>

/* ---- checks ---------------------------------------------------------------------------------- */

typedef struct check_context {
    const moe_config *config;
    moe_diag *diag;
} check_context;

static moe_where where_of(const check_context *context, const void *member)
{
    return context->config ? moe_config_where(context->config, member) : (moe_where){0};
}

/* Again what the table's ranges say, for profiles that no file describes. */
static void check_fraction(const check_context *context, const char *part, const char *key,
                           const double *value)
{
    if (*value > 0 && *value <= 1)
        return;
    moe_diag_error(context->diag, where_of(context, value),
                   "%s.%s is %g; expected a fraction above 0 and at most 1", part, key, *value);
}

static void check_range(const check_context *context, const char *part,
                        const moe_compute_curve *curve)
{
    check_fraction(context, part, "memory_efficiency", &curve->memory_efficiency);
    if (curve->high_rows > 0 && curve->low_rows > curve->high_rows)
        moe_diag_error(context->diag, where_of(context, &curve->high_rows),
                       "%s.high_rows is %g; expected at least low_rows, which is %g", part,
                       curve->high_rows, curve->low_rows);
}

static void check_norm(const check_context *context, const char *part,
                       const moe_compute_curve *curve)
{
    if (!(curve->norm >= 1))
        moe_diag_error(context->diag, where_of(context, &curve->norm),
                       "%s.norm is %g; expected at least 1", part, curve->norm);
}

/* `path` names the list of points, `unit` what x counts. */
static void check_point(const check_context *context, const char *path, const char *unit,
                        const moe_points *points, size_t i)
{
    const double *x = &points->x[i];
    const double *y = &points->y[i];
    if (!(*y > 0 && *y <= 1))
        moe_diag_error(context->diag, where_of(context, y),
                       "%s: efficiency %g; expected above 0 and at most 1", path, *y);
    if (!(*x > 0))
        moe_diag_error(context->diag, where_of(context, x),
                       "%s: a point at %g %s; expected a size above 0", path, *x, unit);
    if (i > 0 && !(*x > x[-1]))
        moe_diag_error(context->diag, where_of(context, x),
                       "%s: a point at %g %s after one at %g; expected ascending sizes", path, *x,
                       unit, x[-1]);
}

static void check_points(const check_context *context, const char *path, const char *unit,
                         const moe_points *points)
{
    for (size_t i = 0; i < points->count; i++)
        check_point(context, path, unit, points, i);
}

/* --- evidence --------------------------------------------------------------------------------- */

/* `columns`: before the measured and the predicted seconds. */
static void check_evidence(const check_context *context, const char *part, int columns,
                           const moe_evidence *evidence)
{
    const moe_rows *samples = &evidence->samples;
    const size_t width = (size_t)columns + 2;
    if (samples->count == 0)
        return;
    if (samples->width != width) {
        moe_diag_error(context->diag, where_of(context, samples),
                       "%s.samples has rows of %zu numbers; expected %zu, the last two measured "
                       "and predicted seconds",
                       part, samples->width, width);
        return;
    }
    for (size_t i = 0; i < samples->count; i++) {
        const double *measured_s = &samples->values[i * width + width - 2];
        const double *predicted_s = measured_s + 1;
        if (!(*measured_s > 0))
            moe_diag_error(context->diag, where_of(context, measured_s),
                           "%s.samples: %g s measured; expected a time above 0", part, *measured_s);
        if (!(*predicted_s > 0))
            moe_diag_error(context->diag, where_of(context, predicted_s),
                           "%s.samples: %g s predicted; expected a time above 0", part,
                           *predicted_s);
    }
}

/* --- computation ------------------------------------------------------------------------------ */

static void check_dense(const check_context *context, const moe_profile *profile)
{
    check_range(context, "dense", &profile->dense);
    check_fraction(context, "dense", "flop_efficiency", &profile->dense.flop_efficiency);
    check_norm(context, "dense", &profile->dense);
    check_evidence(context, "dense", 3, &profile->dense.evidence);
    if (moe_profile_has_attention(profile)) {
        check_range(context, "attention", &profile->attention);
        check_fraction(context, "attention", "flop_efficiency",
                       &profile->attention.flop_efficiency);
        check_norm(context, "attention", &profile->attention);
    }
    check_evidence(context, "attention", 2, &profile->attention.evidence);
}

const char *const moe_phase_names[] = {"forward", "input_gradient", "weight_gradient", "serving",
                                       NULL};
const char *const moe_expert_curve_names[] = {"experts", "experts_input_gradient",
                                              "experts_weight_gradient", "experts_serving"};

static void check_experts(const check_context *context, const moe_profile *profile, int phase)
{
    const char *part = moe_expert_curve_names[phase];
    const moe_compute_curve *curve = &profile->experts[phase];
    char path[64];
    check_evidence(context, part, 6, &curve->evidence);
    if (phase != MOE_FORWARD && !moe_profile_has_phase(profile, (moe_phase)phase))
        return;
    check_range(context, part, curve);
    if (curve->efficiency.count == 0)
        check_fraction(context, part, "flop_efficiency", &curve->flop_efficiency);
    check_norm(context, part, curve);
    snprintf(path, sizeof path, "%s.efficiency", part);
    check_points(context, path, "rows", &curve->efficiency);
    if (curve->tile_rows < 1)
        moe_diag_error(context->diag, where_of(context, &curve->tile_rows),
                       "%s.tile_rows is %lld; expected at least 1", part,
                       (long long)curve->tile_rows);
}

static void check_memory(const check_context *context, const moe_compute_curve *curve)
{
    check_range(context, "memory", curve);
    check_points(context, "memory.efficiency", "bytes", &curve->efficiency);
    check_evidence(context, "memory", 1, &curve->evidence);
}

static void check_axis(const check_context *context, const char *name, const moe_reals *axis)
{
    for (size_t i = 0; i < axis->count; i++) {
        const double *value = &axis->values[i];
        if (!(*value > 0))
            moe_diag_error(context->diag, where_of(context, value),
                           "gemm.%s: %g; expected a width above 0", name, *value);
        if (i > 0 && !(*value > value[-1]))
            moe_diag_error(context->diag, where_of(context, value),
                           "gemm.%s: %g after %g; expected ascending widths", name, *value,
                           value[-1]);
    }
}

/* Whether m * n * k cells are as many as there are; the lists come from one file, so each product
 * of two of them fits. */
static bool is_full(const moe_gemm_grid *grid)
{
    const size_t plane = grid->m.count * grid->n.count;
    const size_t cells = grid->utilisation.count;
    return plane > 0 && grid->k.count > 0 && cells % plane == 0 && cells / plane == grid->k.count;
}

static void check_grid(const check_context *context, const moe_gemm_grid *grid)
{
    const moe_reals *cells = &grid->utilisation;
    check_evidence(context, "gemm", 3, &grid->evidence);
    if (cells->count + grid->m.count + grid->n.count + grid->k.count == 0)
        return;
    check_axis(context, "m", &grid->m);
    check_axis(context, "n", &grid->n);
    check_axis(context, "k", &grid->k);
    if (!is_full(grid))
        moe_diag_error(context->diag, where_of(context, cells),
                       "gemm.utilisation has %zu numbers; expected %zu * %zu * %zu, one for every "
                       "m, n and k",
                       cells->count, grid->m.count, grid->n.count, grid->k.count);
    for (size_t i = 0; i < cells->count; i++)
        if (!(cells->values[i] > 0 && cells->values[i] <= 1.5))
            moe_diag_error(context->diag, where_of(context, &cells->values[i]),
                           "gemm.utilisation: %g; expected above 0 and at most 1.5",
                           cells->values[i]);
    if (!(grid->value_bytes > 0))
        moe_diag_error(context->diag, where_of(context, &grid->value_bytes),
                       "gemm.value_bytes is %g; expected above 0", grid->value_bytes);
}

/* --- collectives ------------------------------------------------------------------------------ */

static void check_some(const check_context *context, const char *path, const moe_points *points,
                       bool needed)
{
    if (needed && points->count == 0)
        moe_diag_error(context->diag, where_of(context, points),
                       "%s has no points; expected at least one, such as [[1 MiB, 0.8]]", path);
    check_points(context, path, "bytes", points);
}

/* Whether a curve or a group before the i-th has as many ranks. */
static bool ranks_known(const moe_collective_curve *curve, size_t i)
{
    const moe_collective_group *groups = curve->groups.items;
    bool known = curve->ranks == groups[i].ranks;
    for (size_t before = 0; before < i; before++)
        known |= groups[before].ranks == groups[i].ranks;
    return known;
}

static void check_groups(const check_context *context, const char *name,
                         const moe_collective_curve *curve)
{
    const moe_collective_group *groups = curve->groups.items;
    char path[80];
    snprintf(path, sizeof path, "collectives.%s.groups", name);
    if (curve->groups.count > 0 && curve->ranks < 2)
        moe_diag_error(context->diag, where_of(context, &curve->ranks),
                       "collectives.%s.ranks is %lld beside groups; expected the number that "
                       "`intra` was made with, at least 2",
                       name, (long long)curve->ranks);
    for (size_t i = 0; i < curve->groups.count; i++) {
        if (groups[i].ranks < 2)
            moe_diag_error(context->diag, where_of(context, &groups[i].ranks),
                           "%s: %lld ranks; expected at least 2", path, (long long)groups[i].ranks);
        if (ranks_known(curve, i))
            moe_diag_error(context->diag, where_of(context, &groups[i].ranks),
                           "%s: %lld ranks once more; expected each number once", path,
                           (long long)groups[i].ranks);
        check_some(context, path, &groups[i].intra, true);
    }
}

static void check_collective(const check_context *context, const moe_profile *profile, int kind,
                             bool intra, bool inter)
{
    const moe_collective_curve *curve = &profile->collectives[kind];
    const char *name = moe_collective_names[kind];
    const bool needed =
        kind != MOE_ALL_TO_ALL_LOW_LATENCY || moe_profile_has(profile, MOE_ALL_TO_ALL_LOW_LATENCY);
    char path[80], inter_path[80], part[80];
    snprintf(path, sizeof path, "collectives.%s.intra", name);
    snprintf(inter_path, sizeof inter_path, "collectives.%s.inter", name);
    snprintf(part, sizeof part, "collectives.%s", name);
    check_some(context, path, &curve->intra, needed && intra);
    check_groups(context, name, curve);
    check_some(context, inter_path, &curve->inter, needed && inter);
    check_evidence(context, part, 3, &curve->evidence);
}

static void check_copies(const check_context *context, const moe_profile *profile)
{
    char part[64];
    for (int kind = 0; kind < MOE_COPY_KINDS; kind++) {
        snprintf(part, sizeof part, "copies.%s", moe_copy_names[kind]);
        check_evidence(context, part, 1, &profile->copies[kind].evidence);
    }
}

/* --- the rest --------------------------------------------------------------------------------- */

static void check_interference(const check_context *context, const moe_profile *profile)
{
    if (!(profile->slowdown >= 1))
        moe_diag_error(context->diag, where_of(context, &profile->slowdown),
                       "interference.slowdown is %g; expected at least 1", profile->slowdown);
    if (profile->port_sharing == MOE_SHARE_WEIGHTED)
        moe_diag_error(
            context->diag, where_of(context, &profile->port_sharing),
            "interference.port_sharing is weighted; expected per_collective or per_flow");
    if (!(profile->sm_share >= 0 && profile->sm_share <= 0.9))
        moe_diag_error(context->diag, where_of(context, &profile->sm_share),
                       "interference.sm_share is %g; expected 0 to 0.9", profile->sm_share);
}

static void check_algorithm(const check_context *context, const moe_profile *profile,
                            const moe_cluster *cluster)
{
    const int *algorithm = &profile->collectives[MOE_ALL_REDUCE].algorithm;
    const moe_cluster_spec *spec = cluster->spec;
    if (*algorithm == MOE_REDUCE_IN_NETWORK && !spec->intra.reduction && !spec->fabric.reduction)
        moe_diag_error(context->diag, where_of(context, algorithm),
                       "collectives.all_reduce.algorithm is in_network, but the cluster has no "
                       "switches that add; expected ring or tree, or the cluster's intra.reduction "
                       "or fabric.reduction");
}

static void warn_of_other_device(const check_context *context, const moe_profile *profile,
                                 const moe_cluster *cluster)
{
    const char *name = cluster->spec->device.name;
    if (name && profile->device && strcmp(name, profile->device) != 0)
        moe_diag_warning(context->diag, where_of(context, &profile->device),
                         "the profile was made for device \"%s\", but the cluster has \"%s\"",
                         profile->device, name);
}

moe_status moe_profile_check(const moe_profile *profile, const moe_cluster *cluster,
                             const moe_config *config, moe_diag *diag)
{
    const check_context context = {.config = config, .diag = diag};
    int errors = moe_diag_error_count(diag);
    check_grid(&context, &profile->gemm);
    check_dense(&context, profile);
    for (int phase = MOE_FORWARD; phase < MOE_PHASES; phase++)
        check_experts(&context, profile, phase);
    check_memory(&context, &profile->memory);
    check_interference(&context, profile);
    bool intra = !cluster || cluster->devices_per_host > 1 || cluster->domain_hosts > 1;
    bool inter = !cluster || cluster->hosts > cluster->domain_hosts;
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++)
        check_collective(&context, profile, kind, intra, inter);
    check_copies(&context, profile);
    if (cluster) {
        check_algorithm(&context, profile, cluster);
        warn_of_other_device(&context, profile, cluster);
    }
    return moe_diag_error_count(diag) > errors ? MOE_BAD_INPUT : MOE_OK;
}

/* ---- provenance ------------------------------------------------------------------------------ */

const char *moe_curve_name(int curve)
{
    static const char *const names[MOE_CURVE_COLLECTIVE] = {"dense",  "attention", "experts",
                                                            "memory", "launch",    "interference"};
    return curve < MOE_CURVE_COLLECTIVE ? names[curve]
                                        : moe_collective_names[curve - MOE_CURVE_COLLECTIVE];
}

static int curve_origin(const moe_profile *profile, int curve)
{
    switch (curve) {
    case MOE_CURVE_DENSE:
        return moe_gemm_grid_exists(&profile->gemm) ? profile->gemm.origin : profile->dense.origin;
    case MOE_CURVE_ATTENTION:
        return profile->attention.origin;
    case MOE_CURVE_EXPERTS:
        return profile->experts[MOE_FORWARD].origin;
    case MOE_CURVE_MEMORY:
        return profile->memory.origin;
    case MOE_CURVE_LAUNCH:
        return profile->launch_origin;
    case MOE_CURVE_INTERFERENCE:
        return profile->interference_origin;
    default:
        return profile->collectives[curve - MOE_CURVE_COLLECTIVE].origin;
    }
}

static const moe_evidence *curve_evidence(const moe_profile *profile, int curve)
{
    static const moe_evidence none;
    switch (curve) {
    case MOE_CURVE_DENSE:
        return moe_gemm_grid_exists(&profile->gemm) ? &profile->gemm.evidence
                                                    : &profile->dense.evidence;
    case MOE_CURVE_ATTENTION:
        return &profile->attention.evidence;
    case MOE_CURVE_EXPERTS:
        return &profile->experts[MOE_FORWARD].evidence;
    case MOE_CURVE_MEMORY:
        return &profile->memory.evidence;
    case MOE_CURVE_LAUNCH:
    case MOE_CURVE_INTERFERENCE:
        return &none;
    default:
        return &profile->collectives[curve - MOE_CURVE_COLLECTIVE].evidence;
    }
}

static bool is_absent(const moe_profile *profile, int curve)
{
    return (curve == MOE_CURVE_ATTENTION && !moe_profile_has_attention(profile)) ||
           (curve == MOE_CURVE_COLLECTIVE + MOE_ALL_TO_ALL_LOW_LATENCY &&
            !moe_profile_has(profile, MOE_ALL_TO_ALL_LOW_LATENCY));
}

static json_t *evidence_json(int origin, const moe_evidence *evidence)
{
    json_t *json = json_pack("{s:s, s:f, s:f}", "origin", moe_origin_names[origin], "residual",
                             evidence->residual, "leave_one_out", evidence->leave_one_out);
    if (evidence->machine)
        json_object_set_new(json, "machine", json_string(evidence->machine));
    return json;
}

/* The curves of experts beside the forward one. */
static json_t *phases_json(const moe_profile *profile)
{
    json_t *json = json_object();
    for (int phase = MOE_INPUT_GRADIENT; phase < MOE_PHASES; phase++) {
        const moe_compute_curve *curve = &profile->experts[phase];
        json_object_set_new(json, moe_phase_names[phase],
                            moe_profile_has_phase(profile, (moe_phase)phase)
                                ? evidence_json(curve->origin, &curve->evidence)
                                : json_string("as forward"));
    }
    return json;
}

static json_t *curve_json(const moe_profile *profile, const moe_curve_usage *usage, int curve)
{
    json_t *json = evidence_json(curve_origin(profile, curve), curve_evidence(profile, curve));
    json_object_set_new(json, "evaluated", json_integer((json_int_t)usage->evaluated[curve]));
    json_object_set_new(json, "outside_range", json_integer((json_int_t)usage->outside[curve]));
    if (curve == MOE_CURVE_EXPERTS)
        json_object_set_new(json, "phases", phases_json(profile));
    if (curve >= MOE_CURVE_COLLECTIVE) {
        int inter = profile->collectives[curve - MOE_CURVE_COLLECTIVE].inter_origin;
        json_object_set_new(json, "inter_origin", json_string(moe_origin_names[inter]));
    }
    return json;
}

json_t *moe_profile_provenance(const moe_profile *profile, const moe_curve_usage *usage)
{
    json_t *provenance = json_object();
    for (int curve = 0; curve < MOE_CURVE_COUNT; curve++)
        if (!is_absent(profile, curve))
            json_object_set_new(provenance, moe_curve_name(curve),
                                curve_json(profile, usage, curve));
    return provenance;
}
