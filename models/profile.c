#include "models/profile.h"

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

static void check_compute(const check_context *context, const char *part,
                          const moe_compute_curve *curve)
{
    check_fraction(context, part, "memory_efficiency", &curve->memory_efficiency);
    if (curve->high_rows > 0 && curve->low_rows > curve->high_rows)
        moe_diag_error(context->diag, where_of(context, &curve->high_rows),
                       "%s.high_rows is %g; expected at least low_rows, which is %g", part,
                       curve->high_rows, curve->low_rows);
}

static void check_gemm(const check_context *context, const char *part,
                       const moe_compute_curve *curve)
{
    check_compute(context, part, curve);
    check_fraction(context, part, "flop_efficiency", &curve->flop_efficiency);
    if (!(curve->norm >= 1))
        moe_diag_error(context->diag, where_of(context, &curve->norm),
                       "%s.norm is %g; expected at least 1", part, curve->norm);
}

static void check_point(const check_context *context, const char *part, const char *level,
                        const moe_points *points, size_t i)
{
    const double *x = &points->x[i];
    const double *y = &points->y[i];
    if (!(*y > 0 && *y <= 1))
        moe_diag_error(context->diag, where_of(context, y),
                       "collectives.%s.%s: efficiency %g; expected above 0 and at most 1", part,
                       level, *y);
    if (!(*x > 0))
        moe_diag_error(context->diag, where_of(context, x),
                       "collectives.%s.%s: a point at %g bytes; expected a size above 0", part,
                       level, *x);
    if (i > 0 && !(*x > x[-1]))
        moe_diag_error(
            context->diag, where_of(context, x),
            "collectives.%s.%s: a point at %g bytes after one at %g; expected ascending sizes",
            part, level, *x, x[-1]);
}

static void check_points(const check_context *context, const char *part, const char *level,
                         const moe_points *points, bool needed)
{
    if (needed && points->count == 0)
        moe_diag_error(
            context->diag, where_of(context, points),
            "collectives.%s.%s has no points; expected at least one, such as [[1 MiB, 0.8]]", part,
            level);
    for (size_t i = 0; i < points->count; i++)
        check_point(context, part, level, points, i);
}

static void check_interference(const check_context *context, const moe_profile *profile)
{
    if (!(profile->slowdown >= 1))
        moe_diag_error(context->diag, where_of(context, &profile->slowdown),
                       "interference.slowdown is %g; expected at least 1", profile->slowdown);
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
    check_gemm(&context, "dense", &profile->dense);
    check_gemm(&context, "experts", &profile->experts);
    check_compute(&context, "memory", &profile->memory);
    if (profile->experts.tile_rows < 1)
        moe_diag_error(diag, where_of(&context, &profile->experts.tile_rows),
                       "experts.tile_rows is %lld; expected at least 1",
                       (long long)profile->experts.tile_rows);
    check_interference(&context, profile);
    bool intra = !cluster || cluster->devices_per_host > 1 || cluster->domain_hosts > 1;
    bool inter = !cluster || cluster->hosts > cluster->domain_hosts;
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++) {
        const moe_collective_curve *curve = &profile->collectives[kind];
        const bool needed = kind != MOE_ALL_TO_ALL_LOW_LATENCY ||
                            moe_profile_has(profile, MOE_ALL_TO_ALL_LOW_LATENCY);
        check_points(&context, moe_collective_names[kind], "intra", &curve->intra, needed && intra);
        check_points(&context, moe_collective_names[kind], "inter", &curve->inter, needed && inter);
    }
    if (cluster) {
        check_algorithm(&context, profile, cluster);
        warn_of_other_device(&context, profile, cluster);
    }
    return moe_diag_error_count(diag) > errors ? MOE_BAD_INPUT : MOE_OK;
}

/* ---- provenance ------------------------------------------------------------------------------ */

const char *moe_curve_name(int curve)
{
    static const char *const names[MOE_CURVE_COLLECTIVE] = {"dense", "experts", "memory", "launch",
                                                            "interference"};
    return curve < MOE_CURVE_COLLECTIVE ? names[curve]
                                        : moe_collective_names[curve - MOE_CURVE_COLLECTIVE];
}

static int curve_origin(const moe_profile *profile, int curve)
{
    switch (curve) {
    case MOE_CURVE_DENSE:
        return profile->dense.origin;
    case MOE_CURVE_EXPERTS:
        return profile->experts.origin;
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

static double curve_residual(const moe_profile *profile, int curve)
{
    switch (curve) {
    case MOE_CURVE_DENSE:
        return profile->dense.residual;
    case MOE_CURVE_EXPERTS:
        return profile->experts.residual;
    case MOE_CURVE_MEMORY:
        return profile->memory.residual;
    case MOE_CURVE_LAUNCH:
    case MOE_CURVE_INTERFERENCE:
        return 0;
    default:
        return profile->collectives[curve - MOE_CURVE_COLLECTIVE].residual;
    }
}

static bool is_absent(const moe_profile *profile, int curve)
{
    return curve == MOE_CURVE_COLLECTIVE + MOE_ALL_TO_ALL_LOW_LATENCY &&
           !moe_profile_has(profile, MOE_ALL_TO_ALL_LOW_LATENCY);
}

json_t *moe_profile_provenance(const moe_profile *profile, const moe_curve_usage *usage)
{
    json_t *provenance = json_object();
    for (int curve = 0; curve < MOE_CURVE_COUNT; curve++) {
        if (is_absent(profile, curve))
            continue;
        json_t *entry = json_pack("{s:s, s:f, s:I, s:I}", "origin",
                                  moe_origin_names[curve_origin(profile, curve)], "residual",
                                  curve_residual(profile, curve), "evaluated",
                                  (json_int_t)usage->evaluated[curve], "outside_range",
                                  (json_int_t)usage->outside[curve]);
        if (curve >= MOE_CURVE_COLLECTIVE) {
            int inter = profile->collectives[curve - MOE_CURVE_COLLECTIVE].inter_origin;
            json_object_set_new(entry, "inter_origin", json_string(moe_origin_names[inter]));
        }
        json_object_set_new(provenance, moe_curve_name(curve), entry);
    }
    return provenance;
}
