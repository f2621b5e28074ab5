/* moeplan profile derive FROM: the profile of a device that was not measured, from one that was.
 *
 * Efficiencies are fractions of the device's rates and stay; so do start-up times. What the grid of GEMMs says is
 * time t = sol / u: of it the start-up t0 of the roofline stays and the rest is scaled by the data sheets,
 *
 *   u' = sol' / (t0 + (t - t0) sol' / sol),   t0 at most 0.9 t
 *
 * Measured and imported curves become derived, without samples or errors; the rest stays what it was. */
#include "calibrate/fit/profile_command.h"

#include "calibrate/fit/profile_file.h"
#include "calibrate/fit/profile_write.h"
#include "configs/base/memory.h"
#include "configs/base/output.h"
#include <argp.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { KEY_FROM = 256, KEY_TO, KEY_NAME, KEY_SCALE, SCALES = 16 };

static const double grid_most = 1.5; /* models/profile.h */

typedef struct collective_scale {
    int kind; /* moe_collective_kind */
    double factor;
} collective_scale;

typedef struct derive_arguments {
    const char *profile, *from, *to, *name, *output;
    collective_scale scales[SCALES];
    int scale_count;
    moe_diag *diag; /* owns all */
} derive_arguments;

/* --- the command line --------------------------------------------------------------------------------- */

static const struct argp_option option_table[] = {
    {"from", KEY_FROM, "FILE|PRESET", 0, "cluster of the device that was measured", 0},
    {"to", KEY_TO, "FILE|PRESET", 0, "cluster of the device that was not", 0},
    {"name", KEY_NAME, "NAME", 0, "of the new profile (default: the device's)", 0},
    {"scale", KEY_SCALE, "KIND=FACTOR", 0,
     "multiply a collective's efficiency within a host (all_to_all=0.7)", 0},
    {"output", 'o', "FILE", 0, "the new profile, written whole or not at all", 0},
    {0},
};

static void add_scale(derive_arguments *given, const char *text, struct argp_state *state)
{
    const char *equals = strchr(text, '=');
    for (int kind = 0; equals != NULL && kind < MOE_COLLECTIVE_KINDS; kind++) {
        const char *name = moe_collective_names[kind];
        if (strlen(name) != (size_t)(equals - text) || memcmp(name, text, strlen(name)) != 0)
            continue;
        char *end;
        const double factor = strtod(equals + 1, &end);
        if (end == equals + 1 || *end != '\0' || !(factor > 0 && factor <= 1))
            break;
        if (given->scale_count == SCALES)
            argp_error(state, "more than %d times --scale", SCALES);
        given->scales[given->scale_count++] = (collective_scale){kind, factor};
        return;
    }
    argp_error(state,
               "--scale is \"%s\"; expected KIND=FACTOR, such as all_to_all=0.7, a factor "
               "above 0 and at most 1",
               text);
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    derive_arguments *given = state->input;
    switch (key) {
    case KEY_FROM:
        given->from = value;
        break;
    case KEY_TO:
        given->to = value;
        break;
    case KEY_NAME:
        given->name = value;
        break;
    case KEY_SCALE:
        add_scale(given, value, state);
        break;
    case 'o':
        given->output = value;
        break;
    case ARGP_KEY_ARG:
        if (given->profile != NULL)
            argp_error(state, "expected one profile");
        given->profile = value;
        break;
    case ARGP_KEY_END:
        if (given->profile == NULL || given->from == NULL || given->to == NULL ||
            given->output == NULL)
            argp_error(state, "expected PROFILE, --from, --to and -o");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp parser = {
    .options = option_table,
    .parser = parse_option,
    .args_doc = "FILE|PRESET",
    .doc = "Makes the profile of a device that was not measured from that of one that was, by "
           "their data sheets: efficiencies and start-up times stay, rates are the new cluster's.",
};

/* --- scaling ------------------------------------------------------------------------------------------ */

static double speed_of_light_s(const moe_device_spec *device, double m, double n, double k,
                               double value_bytes)
{
    return fmax(2 * m * n * k / device->peak_flop_per_s,
                (m * k + k * n + m * n) * value_bytes / device->memory_bytes_per_s);
}

static void scale_grid(void *owner, moe_profile *profile, const moe_device_spec *from,
                       const moe_device_spec *to)
{
    const moe_gemm_grid *grid = &profile->gemm;
    const size_t n = grid->n.count, k = grid->k.count;
    double *scaled = moe_need(talloc_array(owner, double, (unsigned)grid->utilisation.count + 1));
    for (size_t i = 0; i < grid->utilisation.count; i++) {
        const double sides[] = {grid->m.values[i / (n * k)], grid->n.values[i / k % n],
                                grid->k.values[i % k]};
        const double old_s =
            speed_of_light_s(from, sides[0], sides[1], sides[2], grid->value_bytes);
        const double new_s = speed_of_light_s(to, sides[0], sides[1], sides[2], grid->value_bytes);
        const double time_s = old_s / grid->utilisation.values[i];
        const double start_s = fmin(profile->dense.start_s, 0.9 * time_s);
        scaled[i] = fmin(new_s / (start_s + (time_s - start_s) * new_s / old_s), grid_most);
    }
    profile->gemm.utilisation.values = scaled;
}

static void become_derived(int *origin, moe_evidence *evidence)
{
    if (*origin != MOE_MEASURED && *origin != MOE_IMPORTED)
        return;
    *origin = MOE_DERIVED;
    *evidence = (moe_evidence){.residual = 0};
}

static moe_points scale_points(void *owner, const moe_points *points, double factor)
{
    moe_points scaled = *points;
    scaled.y = moe_need(talloc_array(owner, double, (unsigned)points->count + 1));
    for (size_t i = 0; i < points->count; i++)
        scaled.y[i] = factor * points->y[i];
    return scaled;
}

static void scale_collective(void *owner, moe_collective_curve *curve, double factor)
{
    curve->intra = scale_points(owner, &curve->intra, factor);
    const moe_collective_group *old = curve->groups.items;
    moe_collective_group *groups =
        moe_need(talloc_array(owner, moe_collective_group, (unsigned)curve->groups.count + 1));
    for (size_t i = 0; i < curve->groups.count; i++)
        groups[i] =
            (moe_collective_group){old[i].ranks, scale_points(owner, &old[i].intra, factor)};
    curve->groups.items = groups;
}

static void derive(const derive_arguments *given, moe_profile *profile,
                   const moe_cluster_spec *from, const moe_cluster_spec *to)
{
    void *owner = given->diag;
    if (profile->gemm.m.count > 0)
        scale_grid(owner, profile, &from->device, &to->device);
    become_derived(&profile->gemm.origin, &profile->gemm.evidence);
    become_derived(&profile->dense.origin, &profile->dense.evidence);
    become_derived(&profile->attention.origin, &profile->attention.evidence);
    become_derived(&profile->memory.origin, &profile->memory.evidence);
    for (int phase = 0; phase < MOE_PHASES; phase++)
        become_derived(&profile->experts[phase].origin, &profile->experts[phase].evidence);
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++) {
        moe_collective_curve *curve = &profile->collectives[kind];
        become_derived(&curve->origin, &curve->evidence);
        if (curve->inter_origin <= MOE_IMPORTED)
            curve->inter_origin = MOE_DERIVED;
    }
    for (int i = 0; i < given->scale_count; i++)
        scale_collective(owner, &profile->collectives[given->scales[i].kind],
                         given->scales[i].factor);
    profile->source = moe_need(talloc_asprintf(owner, "derived by data sheet from %s: %s",
                                               profile->name, profile->source));
    profile->device = to->device.name;
    profile->name = given->name == NULL ? to->device.name : given->name;
}

static char *make_comment(const derive_arguments *given, const char *from_name,
                          const moe_cluster_spec *from, const moe_cluster_spec *to)
{
    char *text = moe_need(talloc_asprintf(
        given->diag,
        "Made by `moeplan profile derive`; do not edit. Nothing in it was measured on %s.\n"
        "From %s (%s): efficiencies and start-up times are the same, rates those of cluster %s; in "
        "the grid of GEMMs the start-up stays and the rest is scaled by the data sheets.\n",
        to->device.name, from_name, from->device.name, to->name));
    for (int i = 0; i < given->scale_count; i++)
        text = moe_need(talloc_asprintf_append(text, "%s within a host: times %g.\n",
                                               moe_collective_names[given->scales[i].kind],
                                               given->scales[i].factor));
    return text;
}

/* --- the command -------------------------------------------------------------------------------------- */

static moe_status run(const derive_arguments *given)
{
    moe_profile *profile =
        moe_profile_load_root(given->diag, given->profile, &moe_profile_table, given->diag);
    const moe_cluster_spec *from =
        moe_profile_load_root(given->diag, given->from, &moe_cluster_table, given->diag);
    const moe_cluster_spec *to =
        moe_profile_load_root(given->diag, given->to, &moe_cluster_table, given->diag);
    if (profile == NULL || from == NULL || to == NULL)
        return MOE_BAD_INPUT;
    if (profile->device != NULL && strcmp(profile->device, from->device.name) != 0) {
        moe_diag_error(given->diag, (moe_where){0},
                       "the profile is of device \"%s\", the cluster of \"%s\"; expected the "
                       "cluster it was made with",
                       profile->device, from->device.name);
        return MOE_BAD_INPUT;
    }
    char *comment = make_comment(given, profile->name, from, to);
    derive(given, profile, from, to);
    moe_output *output = moe_output_open(given->diag, given->output, given->diag);
    if (output == NULL)
        return MOE_INTERNAL;
    moe_profile_write(profile, comment, moe_output_stream(output));
    return moe_output_commit(output, given->diag);
}

int moe_profile_derive_command(int argc, char **argv)
{
    derive_arguments given = {.diag = moe_diag_create(NULL, stderr)};
    int status = MOE_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &given) == 0)
        status = run(&given);
    talloc_free(given.diag);
    return status;
}
