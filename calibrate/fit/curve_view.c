#include "calibrate/fit/curve_view.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const gemm_columns[] = {"m", "n", "k", NULL};
static const char *const attention_columns[] = {"flop", "bytes", NULL};
static const char *const expert_columns[] = {"hidden", "ffn",          "matrices", "active",
                                             "rows",   "largest_rows", NULL};
static const char *const bytes_columns[] = {"bytes", NULL};
static const char *const collective_columns[] = {"ranks", "hosts", "bytes", NULL};

/* --- ranges --------------------------------------------------------------------------------------- */

static void widen(moe_curve_view *view, double value)
{
    view->low = view->high > 0 ? fmin(view->low, value) : value;
    view->high = fmax(view->high, value);
}

static void widen_points(moe_curve_view *view, const moe_points *points)
{
    for (size_t i = 0; i < points->count; i++)
        widen(view, points->x[i]);
}

static moe_curve_view compute_view(const char *name, const moe_compute_curve *curve,
                                   const char *const *columns)
{
    moe_curve_view view = {.name = name,
                           .origin = curve->origin,
                           .inter_origin = -1,
                           .measure = MOE_MEASURE_ROWS,
                           .low = curve->low_rows,
                           .high = curve->high_rows,
                           .evidence = &curve->evidence,
                           .columns = columns,
                           .compute = curve};
    return view;
}

static moe_curve_view memory_view(const moe_compute_curve *curve)
{
    moe_curve_view view = compute_view("memory", curve, bytes_columns);
    view.measure = MOE_MEASURE_BYTES;
    if (view.high <= 0)
        widen_points(&view, &curve->efficiency);
    return view;
}

static moe_curve_view grid_view(const moe_gemm_grid *grid)
{
    moe_curve_view view = {.name = "gemm",
                           .origin = grid->origin,
                           .inter_origin = -1,
                           .measure = MOE_MEASURE_ROWS,
                           .evidence = &grid->evidence,
                           .columns = gemm_columns,
                           .grid = grid};
    for (size_t i = 0; i < grid->m.count; i++)
        widen(&view, grid->m.values[i]);
    return view;
}

static moe_curve_view collective_view(const moe_profile *profile, int kind)
{
    const moe_collective_curve *curve = &profile->collectives[kind];
    const moe_collective_group *groups = curve->groups.items;
    moe_curve_view view = {.name = moe_collective_names[kind],
                           .origin = curve->intra.count > 0 ? curve->origin : curve->inter_origin,
                           .inter_origin = curve->inter.count > 0 ? curve->inter_origin : -1,
                           .measure = MOE_MEASURE_BYTES,
                           .evidence = &curve->evidence,
                           .columns = collective_columns,
                           .collective = curve,
                           .kind = kind};
    widen_points(&view, &curve->intra);
    for (size_t i = 0; i < curve->groups.count; i++)
        widen_points(&view, &groups[i].intra);
    if (curve->intra.count == 0)
        widen_points(&view, &curve->inter);
    return view;
}

static moe_curve_view copy_view(const moe_profile *profile, int kind)
{
    const moe_copy_curve *curve = &profile->copies[kind];
    moe_curve_view view = {.name = moe_copy_names[kind],
                           .origin = curve->origin,
                           .inter_origin = -1,
                           .measure = MOE_MEASURE_BYTES,
                           .evidence = &curve->evidence,
                           .columns = bytes_columns,
                           .copy = curve,
                           .kind = kind};
    for (size_t i = 0; i < curve->evidence.samples.count; i++)
        widen(&view, curve->evidence.samples.values[i * curve->evidence.samples.width]);
    return view;
}

static moe_curve_view constant_view(const char *name, int origin)
{
    return (moe_curve_view){
        .name = name, .origin = origin, .inter_origin = -1, .measure = MOE_MEASURE_NONE};
}

/* --- all of them ---------------------------------------------------------------------------------- */

int moe_curve_views(const moe_profile *profile, moe_curve_view views[MOE_CURVE_VIEWS_MAX])
{
    int count = 0;
    if (profile->gemm.utilisation.count > 0)
        views[count++] = grid_view(&profile->gemm);
    views[count++] = compute_view("dense", &profile->dense, gemm_columns);
    if (moe_profile_has_attention(profile))
        views[count++] = compute_view("attention", &profile->attention, attention_columns);
    for (int phase = MOE_FORWARD; phase < MOE_PHASES; phase++)
        if (phase == MOE_FORWARD || moe_profile_has_phase(profile, (moe_phase)phase)) {
            views[count] = compute_view(moe_expert_curve_names[phase], &profile->experts[phase],
                                        expert_columns);
            views[count++].phase = (moe_phase)phase;
        }
    views[count++] = memory_view(&profile->memory);
    views[count++] = constant_view("launch", profile->launch_origin);
    views[count++] = constant_view("interference", profile->interference_origin);
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++)
        if (moe_profile_has(profile, (moe_collective_kind)kind))
            views[count++] = collective_view(profile, kind);
    for (int kind = 0; kind < MOE_COPY_KINDS; kind++)
        if (profile->copies[kind].bytes_per_s > 0)
            views[count++] = copy_view(profile, kind);
    return count;
}

const moe_curve_view *moe_curve_view_find(const moe_curve_view *views, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(views[i].name, name) == 0)
            return &views[i];
    return NULL;
}

size_t moe_curve_view_samples(const moe_curve_view *view)
{
    return view->evidence ? view->evidence->samples.count : 0;
}

size_t moe_curve_view_points(const moe_curve_view *view)
{
    size_t count = 0;
    if (view->grid)
        count = view->grid->utilisation.count;
    if (view->compute)
        count = view->compute->efficiency.count;
    if (view->collective) {
        const moe_collective_group *groups = view->collective->groups.items;
        count = view->collective->intra.count + view->collective->inter.count;
        for (size_t i = 0; i < view->collective->groups.count; i++)
            count += groups[i].intra.count;
    }
    return count;
}

void moe_curve_view_origin(const moe_curve_view *view, char text[static 64])
{
    if (view->inter_origin >= 0 && view->inter_origin != view->origin)
        snprintf(text, 64, "%s, %s between hosts", moe_origin_names[view->origin],
                 moe_origin_names[view->inter_origin]);
    else
        snprintf(text, 64, "%s", moe_origin_names[view->origin]);
}
