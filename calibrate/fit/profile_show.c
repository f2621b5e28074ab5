/* moeplan profile show PROFILE: its curves, where they come from, how good they are, how they look. */
#include "calibrate/fit/curve_plot.h"
#include "calibrate/fit/profile_command.h"
#include "calibrate/fit/profile_file.h"

#include "configs/base/memory.h"
#include "configs/base/output.h"
#include "configs/base/status.h"
#include <argp.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <talloc.h>

typedef struct show_arguments {
    const char *name;  /* of the profile */
    const char *curve; /* NULL: all */
    const char *svg;   /* or NULL */
    const char *out;   /* folder, or NULL */
    bool json;
    moe_diag *diag; /* owns all */
} show_arguments;

/* --- text ----------------------------------------------------------------------------------------- */

static void format_range(const moe_curve_view *view, char text[static 128])
{
    char low[48], high[48];
    snprintf(text, 128, "-");
    if (view->measure == MOE_MEASURE_ROWS && view->high > 0)
        snprintf(text, 128, "%.0f to %.0f rows", view->low, view->high);
    if (view->measure != MOE_MEASURE_BYTES || view->high <= 0)
        return;
    if (view->low == view->high) {
        snprintf(text, 128, "a constant");
        return;
    }
    moe_units_format_short(view->low, MOE_BYTES, low);
    moe_units_format_short(view->high, MOE_BYTES, high);
    snprintf(text, 128, "%s to %s", low, high);
}

/* 0 is "not known" in all of them. */
static void format_error(double error, char text[static 16])
{
    if (error > 0)
        snprintf(text, 16, "%.1f %%", 100 * error);
    else
        snprintf(text, 16, "-");
}

static void print_row(const moe_curve_view *view)
{
    char origin[64], range[128], residual[16], left_out[16], worst[16];
    static const moe_evidence none;
    const moe_evidence *evidence = view->evidence ? view->evidence : &none;
    moe_curve_view_origin(view, origin);
    format_range(view, range);
    format_error(evidence->residual, residual);
    format_error(evidence->leave_one_out, left_out);
    format_error(evidence->worst, worst);
    printf("%-24s %7zu %7zu  %-22s %8s %8s %8s  %s\n", view->name, moe_curve_view_samples(view),
           moe_curve_view_points(view), range, residual, left_out, worst, origin);
}

static const char *machine_of(const moe_curve_view *view)
{
    return view->evidence ? view->evidence->machine : NULL;
}

static bool same_machine(const moe_curve_view *a, const moe_curve_view *b)
{
    const char *of_a = machine_of(a), *of_b = machine_of(b);
    return of_a && of_b && strcmp(of_a, of_b) == 0;
}

/* Each machine once, with the curves that were measured there. */
static void print_machines(const moe_curve_view *views, int count)
{
    for (int i = 0; i < count; i++) {
        bool said = machine_of(&views[i]) == NULL;
        for (int before = 0; before < i; before++)
            said |= same_machine(&views[before], &views[i]);
        if (said)
            continue;
        printf("\non %s:\n ", machine_of(&views[i]));
        for (int j = i; j < count; j++)
            if (same_machine(&views[i], &views[j]))
                printf(" %s", views[j].name);
        putchar('\n');
    }
}

static void print_text(const char *key, const char *text)
{
    if (text)
        printf("%-9s %s\n", key, text);
}

static void print_seconds(const char *key, double seconds)
{
    char text[48];
    if (seconds <= 0)
        return;
    moe_units_format_short(seconds, MOE_SECONDS, text);
    printf("  %-22s %s\n", key, text);
}

static void print_number(const char *key, double value)
{
    if (value != 0)
        printf("  %-22s %.4g\n", key, value);
}

static void print_compute(const moe_compute_curve *curve)
{
    print_seconds("start", curve->start_s);
    print_seconds("start per expert", curve->start_per_expert_s);
    if (curve->efficiency.count == 0)
        print_number("of peak FLOP/s", curve->flop_efficiency);
    print_number("of memory bandwidth", curve->memory_efficiency);
    print_number("norm", curve->norm);
    print_number("tile rows", (double)curve->tile_rows);
}

static void print_collective(const moe_collective_curve *curve, int kind)
{
    print_seconds("start", curve->start_s);
    print_seconds("start per log2(ranks)", curve->start_per_rank_s);
    if (kind == MOE_BROADCAST || kind == MOE_REDUCE)
        print_seconds("start per chunk", curve->start_per_chunk_s);
    print_number("ranks", (double)curve->ranks);
}

static void print_constants(const moe_profile *profile, const moe_curve_view *view)
{
    char rate[48];
    if (view->compute)
        print_compute(view->compute);
    if (view->collective)
        print_collective(view->collective, view->kind);
    if (view->copy) {
        print_seconds("start", view->copy->start_s);
        moe_units_format_short(view->copy->bytes_per_s, MOE_BANDWIDTH, rate);
        printf("  %-22s %s\n", "rate", rate);
    }
    if (strcmp(view->name, "launch") == 0) {
        print_seconds("kernel", profile->launch_s);
        print_seconds("captured graph", profile->graph_launch_s);
        print_seconds("waiting for counts", profile->host_sync_s);
    }
    if (strcmp(view->name, "interference") == 0) {
        print_number("share of the SMs", profile->sm_share);
        print_number("slowdown", profile->slowdown);
        printf("  %-22s %s\n", "sharing of a port", moe_sharing_names[profile->port_sharing]);
    }
}

static void print_head(const moe_profile *profile)
{
    print_text("profile", profile->name);
    print_text("device", profile->device);
    print_text("source", profile->source);
    print_text("licence", profile->licence);
    printf("\n%-24s %7s %7s  %-22s %8s %8s %8s  %s\n", "curve", "samples", "points", "range",
           "residual", "left out", "worst", "origin");
}

static void print_legend(void)
{
    puts("\nsamples: measured values kept; points: of its tables; residual: mean |predicted / "
         "measured "
         "- 1|; left\nout: the same, each predicted without it; worst: the largest. - is not "
         "known.");
}

/* --- one curve ------------------------------------------------------------------------------------ */

/* Sizes are whole numbers; what is not (a mean) keeps its digits. */
static void print_cell(double value)
{
    if (value == round(value) && fabs(value) < 1e13)
        printf(" %13.0f", value);
    else
        printf(" %13.6g", value);
}

static void print_samples(const moe_curve_view *view)
{
    const moe_rows *samples = &view->evidence->samples;
    size_t columns = samples->width - 2;
    putchar('\n');
    for (size_t column = 0; column < columns; column++)
        printf(" %13s", view->columns[column]);
    printf("%13s%13s%11s\n", "measured", "predicted", "error");
    for (size_t row = 0; row < samples->count; row++) {
        double measured_s = moe_curve_view_cell(view, row, columns);
        double predicted_s = moe_curve_view_cell(view, row, columns + 1);
        char measured[48], predicted[48];
        for (size_t column = 0; column < columns; column++)
            print_cell(moe_curve_view_cell(view, row, column));
        moe_units_format_short(measured_s, MOE_SECONDS, measured);
        moe_units_format_short(predicted_s, MOE_SECONDS, predicted);
        printf("%13s%13s%+9.1f %%\n", measured, predicted, 100 * (predicted_s / measured_s - 1));
    }
}

static void print_table(const char *what, const char *unit, const moe_points *table)
{
    if (table->count == 0)
        return;
    printf("\n %13s%13s%s%s\n", unit, "efficiency", *what ? "   " : "", what);
    for (size_t i = 0; i < table->count; i++) {
        print_cell(table->x[i]);
        printf("%13.4g\n", table->y[i]);
    }
}

static void print_tables(const moe_curve_view *view)
{
    if (view->compute)
        print_table("", view->measure == MOE_MEASURE_BYTES ? "bytes" : "rows",
                    &view->compute->efficiency);
    if (!view->collective)
        return;
    const moe_collective_group *groups = view->collective->groups.items;
    char what[64];
    print_table("within a host", "bytes", &view->collective->intra);
    for (size_t i = 0; i < view->collective->groups.count; i++) {
        snprintf(what, sizeof what, "within a host, %lld ranks", (long long)groups[i].ranks);
        print_table(what, "bytes", &groups[i].intra);
    }
    print_table("between hosts", "bytes", &view->collective->inter);
}

static void print_curve(void *owner, const moe_profile *profile, const moe_curve_view *view)
{
    print_head(profile);
    print_row(view);
    print_machines(view, 1);
    putchar('\n');
    print_constants(profile, view);
    print_tables(view);
    if (moe_curve_view_samples(view) > 0)
        print_samples(view);
    const moe_plot *plot = moe_curve_plot(owner, profile, view);
    if (plot) {
        putchar('\n');
        moe_plot_print(plot, stdout);
    }
}

/* --- JSON ----------------------------------------------------------------------------------------- */

static json_t *samples_json(const moe_curve_view *view)
{
    const moe_rows *samples = &view->evidence->samples;
    json_t *rows = moe_need(json_array());
    for (size_t row = 0; row < samples->count; row++) {
        json_t *numbers = moe_need(json_array());
        for (size_t column = 0; column < samples->width; column++)
            json_array_append_new(numbers, json_real(moe_curve_view_cell(view, row, column)));
        json_array_append_new(rows, numbers);
    }
    return rows;
}

static json_t *columns_json(const moe_curve_view *view)
{
    json_t *columns = moe_need(json_array());
    for (const char *const *column = view->columns; *column; column++)
        json_array_append_new(columns, json_string(*column));
    json_array_append_new(columns, json_string("measured_s"));
    json_array_append_new(columns, json_string("predicted_s"));
    return columns;
}

static json_t *optional_text(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *view_json(const moe_curve_view *view, bool with_samples)
{
    static const char *const measures[] = {"rows", "bytes", NULL};
    json_t *curve = json_pack("{s:s, s:s, s:I, s:I}", "curve", view->name, "origin",
                              moe_origin_names[view->origin], "samples",
                              (json_int_t)moe_curve_view_samples(view), "points",
                              (json_int_t)moe_curve_view_points(view));
    moe_need(curve);
    if (view->inter_origin >= 0)
        json_object_set_new(curve, "inter_origin",
                            json_string(moe_origin_names[view->inter_origin]));
    if (measures[view->measure] && view->high > 0)
        json_object_set_new(curve, "range",
                            json_pack("{s:s, s:f, s:f}", "of", measures[view->measure], "low",
                                      view->low, "high", view->high));
    if (!view->evidence)
        return curve;
    json_object_set_new(curve, "residual", json_real(view->evidence->residual));
    json_object_set_new(curve, "leave_one_out", json_real(view->evidence->leave_one_out));
    json_object_set_new(curve, "worst", json_real(view->evidence->worst));
    json_object_set_new(curve, "machine", optional_text(view->evidence->machine));
    if (with_samples) {
        json_object_set_new(curve, "columns", columns_json(view));
        json_object_set_new(curve, "values", samples_json(view));
    }
    return curve;
}

static void print_json(const moe_profile *profile, const moe_curve_view *views, int count,
                       bool with_samples)
{
    json_t *curves = moe_need(json_array());
    for (int i = 0; i < count; i++)
        json_array_append_new(curves, view_json(&views[i], with_samples));
    json_t *whole =
        json_pack("{s:o, s:o, s:o, s:o, s:o}", "profile", optional_text(profile->name), "device",
                  optional_text(profile->device), "source", optional_text(profile->source),
                  "licence", optional_text(profile->licence), "curves", curves);
    json_dumpf(moe_need(whole), stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    putchar('\n');
    json_decref(whole);
}

/* --- pictures ------------------------------------------------------------------------------------- */

static const moe_plot **plots_of(void *owner, const moe_profile *profile,
                                 const moe_curve_view *views, int count, size_t *drawn)
{
    const moe_plot **plots = moe_need(talloc_zero_array(owner, const moe_plot *, (size_t)count));
    *drawn = 0;
    for (int i = 0; i < count; i++) {
        const moe_plot *plot = moe_curve_plot(owner, profile, &views[i]);
        if (plot)
            plots[(*drawn)++] = plot;
    }
    return plots;
}

static moe_status draw_all(const show_arguments *given, const moe_profile *profile,
                           const moe_curve_view *views, int count)
{
    size_t drawn;
    const moe_plot **plots = plots_of(given->diag, profile, views, count, &drawn);
    if (drawn > 0)
        return moe_plot_draw(given->diag, plots, drawn, given->svg, given->diag);
    moe_diag_error(
        given->diag, (moe_where){0}, "there is nothing to draw: neither samples nor tables%s%s%s",
        given->curve ? " in \"" : "", given->curve ? given->curve : "", given->curve ? "\"" : "");
    return MOE_BAD_INPUT;
}

static moe_status draw_each(const show_arguments *given, const moe_profile *profile,
                            const moe_curve_view *views, int count)
{
    moe_status status = moe_folder_create(given->out, given->diag);
    for (int i = 0; i < count && status == MOE_OK; i++) {
        const moe_plot *plot = moe_curve_plot(given->diag, profile, &views[i]);
        if (plot)
            status = moe_plot_draw(
                given->diag, &plot, 1,
                moe_need(talloc_asprintf(given->diag, "%s/%s.svg", given->out, views[i].name)),
                given->diag);
    }
    return status;
}

/* --- the command ---------------------------------------------------------------------------------- */

static moe_status refuse_curve(const show_arguments *given, const moe_curve_view *views, int count)
{
    const char *names[MOE_CURVE_VIEWS_MAX];
    char *list = moe_need(talloc_strdup(given->diag, ""));
    for (int i = 0; i < count; i++) {
        names[i] = views[i].name;
        list = moe_need(talloc_asprintf_append(list, " %s", names[i]));
    }
    const char *closest = moe_closest(given->curve, names, (size_t)count);
    moe_diag_error(given->diag, (moe_where){0}, "the profile has no curve \"%s\"%s%s%s; it has:%s",
                   given->curve, closest ? "; did you mean \"" : "", closest ? closest : "",
                   closest ? "\"?" : "", list);
    return MOE_BAD_INPUT;
}

static void print_all(const moe_profile *profile, const moe_curve_view *views, int count)
{
    print_head(profile);
    for (int i = 0; i < count; i++)
        print_row(&views[i]);
    print_machines(views, count);
    print_legend();
}

static moe_status show(const show_arguments *given)
{
    moe_curve_view all[MOE_CURVE_VIEWS_MAX];
    const moe_profile *profile = moe_profile_load(given->diag, given->name, given->diag);
    if (!profile)
        return MOE_BAD_INPUT;
    int count = moe_curve_views(profile, all);
    const moe_curve_view *views = all;
    if (given->curve) {
        views = moe_curve_view_find(all, count, given->curve);
        if (!views)
            return refuse_curve(given, all, count);
        count = 1;
    }
    if (given->json)
        print_json(profile, views, count, given->curve != NULL);
    else if (given->curve)
        print_curve(given->diag, profile, views);
    else
        print_all(profile, views, count);
    if (given->svg)
        return draw_all(given, profile, views, count);
    return given->out ? draw_each(given, profile, views, count) : MOE_OK;
}

/* --- the command line ----------------------------------------------------------------------------- */

enum { KEY_SVG = 256, KEY_OUT };

static const struct argp_option options[] = {
    {"curve", 'c', "NAME", 0, "One curve alone: its constants, tables, samples and a plot", 0},
    {"svg", KEY_SVG, "FILE.svg", 0,
     "Draw into one picture, by gnuplot; FILE.gp and FILE.dat stay beside it", 0},
    {"out", KEY_OUT, "FOLDER", 0, "Draw every curve into a picture of its own", 0},
    {"json", 'j', NULL, 0, "Print one JSON value instead of text; with --curve, with its samples",
     0},
    {NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
    {0},
};

static void parse_svg(show_arguments *given, const char *text, struct argp_state *state)
{
    size_t length = strlen(text);
    if (length < 5 || strcmp(text + length - 4, ".svg") != 0 || text[length - 5] == '/')
        argp_error(state, "--svg is \"%s\"; expected a name that ends in .svg", text);
    given->svg = text;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    show_arguments *given = state->input;
    switch (key) {
    case 'c':
        given->curve = text;
        return 0;
    case 'j':
        given->json = true;
        return 0;
    case 'h':
        argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
        return 0;
    case KEY_SVG:
        parse_svg(given, text, state);
        return 0;
    case KEY_OUT:
        given->out = text;
        return 0;
    case ARGP_KEY_ARG:
        if (given->name)
            argp_error(state, "unexpected argument \"%s\"", text);
        given->name = text;
        return 0;
    case ARGP_KEY_END:
        if (given->svg && given->out)
            argp_error(state, "expected --svg or --out, not both");
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "expected a profile: a file or a preset (`moeplan list profiles`)");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "FILE|PRESET",
    .doc =
        "Shows the curves of a profile: where each comes from, how many measured points it keeps, "
        "its range and errors; with --curve every point and a plot, with --svg a picture.",
};

int moe_profile_show_command(int argc, char **argv)
{
    show_arguments given = {.diag = moe_diag_create(NULL, stderr)};
    moe_status status = MOE_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &given) == 0)
        status = show(&given);
    talloc_free(given.diag);
    return status;
}
