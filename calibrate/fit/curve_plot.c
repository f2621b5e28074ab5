#include "calibrate/fit/curve_plot.h"

#include "configs/base/memory.h"
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { SERIES_MAX = 6, KEYS_MAX = 4, SUBTITLE_MAX = 72 };

/* One sample on its way into a series. */
typedef struct mark {
    double keys[KEYS_MAX]; /* what tells series apart */
    moe_plot_point point;
} mark;

static int compare_keys(const mark *a, const mark *b)
{
    for (int i = 0; i < KEYS_MAX; i++)
        if (a->keys[i] != b->keys[i])
            return a->keys[i] < b->keys[i] ? -1 : 1;
    return 0;
}

static int compare_marks(const void *left, const void *right)
{
    const mark *a = left, *b = right;
    int keys = compare_keys(a, b);
    if (keys != 0)
        return keys;
    if (a->point.x != b->point.x)
        return a->point.x < b->point.x ? -1 : 1;
    return a->point.measured < b->point.measured ? -1 : a->point.measured > b->point.measured;
}

/* --- what each kind of curve draws ---------------------------------------------------------------- */

/* Work of a sample as a rate, where the curve is one of computation. */
static void as_rate(mark *made, double flop)
{
    made->point.measured = flop / made->point.measured;
    made->point.predicted = flop / made->point.predicted;
}

/* cells: the columns of the kind; see models/profile.h. */
static void mark_gemm(mark *made, const double *cells)
{
    made->point.x = cells[0];
    made->keys[0] = cells[1];
    made->keys[1] = cells[2];
    as_rate(made, 2 * cells[0] * cells[1] * cells[2]);
}

static void mark_attention(mark *made, const double *cells)
{
    made->point.x = cells[0];
    as_rate(made, cells[0]);
}

static void mark_experts(mark *made, const double *cells)
{
    made->point.x = cells[4];
    memcpy(made->keys, cells, 4 * sizeof *cells);
    as_rate(made, 2 * cells[0] * cells[1] * cells[2] * cells[4]);
}

static void mark_bytes(mark *made, const double *cells)
{
    made->point.x = cells[0];
}

static void mark_collective(mark *made, const double *cells)
{
    made->point.x = cells[2];
    made->keys[0] = cells[1];
    made->keys[1] = cells[0];
}

static char *name_gemm(void *owner, const double *keys)
{
    return talloc_asprintf(owner, "n %g, k %g", keys[0], keys[1]);
}

static char *name_experts(void *owner, const double *keys)
{
    return talloc_asprintf(owner, "%g x (%g x %g x %g)", keys[3], keys[2], keys[0], keys[1]);
}

static char *name_all(void *owner, const double *keys)
{
    (void)keys;
    return talloc_strdup(owner, "all");
}

static char *name_collective(void *owner, const double *keys)
{
    if (keys[0] <= 1)
        return talloc_asprintf(owner, "%g ranks", keys[1]);
    return talloc_asprintf(owner, "%g ranks, %g hosts", keys[1], keys[0]);
}

typedef struct drawing {
    void (*mark)(mark *made, const double *cells);
    char *(*name)(void *owner, const double *keys);
    const char *x_label, *x_unit, *y_label, *y_unit;
} drawing;

static drawing drawing_of(const moe_curve_view *view)
{
    if (view->collective)
        return (drawing){mark_collective, name_collective, "bytes per rank", "B", "time", "s"};
    if (strcmp(view->name, "memory") == 0)
        return (drawing){mark_bytes, name_all, "bytes read and written", "B", "time", "s"};
    if (view->copy)
        return (drawing){mark_bytes, name_all, "bytes", "B", "time", "s"};
    if (strcmp(view->name, "attention") == 0)
        return (drawing){mark_attention, name_all,        "floating-point operations",
                         "FLOP",         "achieved rate", "FLOP/s"};
    if (view->compute && strncmp(view->name, "experts", 7) == 0)
        return (drawing){mark_experts, name_experts,    "rows of all experts of a device",
                         "",           "achieved rate", "FLOP/s"};
    return (drawing){mark_gemm, name_gemm, "rows m", "", "achieved rate", "FLOP/s"};
}

/* --- series of samples ---------------------------------------------------------------------------- */

static mark *marks_of(void *owner, const moe_curve_view *view, const drawing *how)
{
    const moe_rows *samples = &view->evidence->samples;
    mark *marks = moe_need(talloc_zero_array(owner, mark, samples->count));
    for (size_t i = 0; i < samples->count; i++) {
        const double *cells = samples->values + i * samples->width;
        marks[i].point.measured = cells[samples->width - 2];
        marks[i].point.predicted = cells[samples->width - 1];
        how->mark(&marks[i], cells);
    }
    qsort(marks, samples->count, sizeof *marks, compare_marks);
    return marks;
}

static size_t count_series(const mark *marks, size_t count)
{
    size_t series = count > 0;
    for (size_t i = 1; i < count; i++)
        series += compare_keys(&marks[i - 1], &marks[i]) != 0;
    return series;
}

static moe_plot_series series_of(void *owner, const drawing *how, const mark *marks, size_t count)
{
    moe_plot_point *points = moe_need(talloc_array(owner, moe_plot_point, count));
    for (size_t i = 0; i < count; i++)
        points[i] = marks[i].point;
    return (moe_plot_series){moe_need(how->name(owner, marks[0].keys)), points, count};
}

static size_t end_of_series(const mark *marks, size_t count, size_t first)
{
    size_t end = first + 1;
    while (end < count && compare_keys(&marks[first], &marks[end]) == 0)
        end++;
    return end;
}

/* The longest series are drawn: as many marks as the last of them has. */
static size_t least_drawn(const mark *marks, size_t count)
{
    size_t lengths[SERIES_MAX + 1] = {0}; /* descending */
    for (size_t first = 0, end; first < count; first = end) {
        end = end_of_series(marks, count, first);
        size_t length = end - first;
        for (int i = 0; i < SERIES_MAX; i++)
            if (length > lengths[i]) {
                size_t shorter = lengths[i];
                lengths[i] = length;
                length = shorter;
            }
    }
    return lengths[SERIES_MAX - 1];
}

static size_t count_candidates(const mark *marks, size_t count, size_t least)
{
    size_t candidates = 0;
    for (size_t first = 0, end; first < count; first = end) {
        end = end_of_series(marks, count, first);
        candidates += end - first >= least;
    }
    return candidates;
}

/* Whether the i-th of `all` candidates is one of those drawn, which are spread evenly, ends included. */
static bool is_drawn(size_t i, size_t all)
{
    if (all <= SERIES_MAX)
        return true;
    for (size_t pick = 0; pick < SERIES_MAX; pick++)
        if (i == pick * (all - 1) / (SERIES_MAX - 1))
            return true;
    return false;
}

static void add_samples(moe_plot *plot, const moe_curve_view *view, const drawing *how)
{
    size_t count = view->evidence->samples.count, index = 0;
    const mark *marks = marks_of(plot, view, how);
    size_t all = count_series(marks, count), least = least_drawn(marks, count);
    size_t candidates = count_candidates(marks, count, least);
    moe_plot_series *series = moe_need(talloc_zero_array(plot, moe_plot_series, SERIES_MAX));
    for (size_t first = 0, end; first < count; first = end) {
        end = end_of_series(marks, count, first);
        if (end - first >= least && is_drawn(index++, candidates))
            series[plot->count++] = series_of(plot, how, marks + first, end - first);
    }
    plot->series = series;
    plot->subtitles[1] =
        moe_need(talloc_asprintf(plot, "points: measured, lines: predicted; mean error %.1f %%",
                                 100 * view->evidence->residual));
    if (all > SERIES_MAX)
        plot->subtitles[1] = moe_need(talloc_asprintf_append(
            (char *)plot->subtitles[1], "; %zu of %zu shapes drawn", plot->count, all));
}

/* --- tables of efficiency -------------------------------------------------------------------------- */

/* A single point is a constant: nothing to draw. */
static void add_table(moe_plot *plot, moe_plot_series *series, char *name, const moe_points *table)
{
    if (table->count < 2 || plot->count == SERIES_MAX)
        return;
    moe_plot_point *points = moe_need(talloc_zero_array(plot, moe_plot_point, table->count));
    for (size_t i = 0; i < table->count; i++)
        points[i] = (moe_plot_point){.x = table->x[i], .predicted = table->y[i]};
    series[plot->count++] = (moe_plot_series){moe_need(name), points, table->count};
}

static void add_tables(moe_plot *plot, const moe_curve_view *view)
{
    moe_plot_series *series = moe_need(talloc_zero_array(plot, moe_plot_series, SERIES_MAX));
    const moe_collective_curve *curve = view->collective;
    if (curve) {
        const moe_collective_group *groups = curve->groups.items;
        add_table(plot, series,
                  curve->ranks > 0
                      ? talloc_asprintf(plot, "in a host, %lld ranks", (long long)curve->ranks)
                      : talloc_strdup(plot, "in a host"),
                  &curve->intra);
        add_table(plot, series, talloc_strdup(plot, "between hosts"), &curve->inter);
        for (size_t i = 0; i < curve->groups.count; i++)
            add_table(plot, series,
                      talloc_asprintf(plot, "in a host, %lld ranks", (long long)groups[i].ranks),
                      &groups[i].intra);
    } else if (view->compute) {
        add_table(plot, series, talloc_strdup(plot, "efficiency"), &view->compute->efficiency);
    }
    plot->series = series;
    plot->x_label = curve                                ? "bytes per rank"
                    : view->measure == MOE_MEASURE_BYTES ? "bytes"
                                                         : "rows of an expert";
    plot->x_unit = view->measure == MOE_MEASURE_BYTES ? "B" : "";
    plot->y_label = "efficiency";
    plot->y_unit = "";
}

/* --- the plot ------------------------------------------------------------------------------------- */

static char *origin_of(void *owner, const moe_curve_view *view)
{
    char origin[64];
    const char *machine = view->evidence->machine;
    moe_curve_view_origin(view, origin);
    int room = SUBTITLE_MAX - (int)strlen(origin);
    bool cut = machine && (int)strlen(machine) > room;
    return moe_need(talloc_asprintf(owner, "%s%s%.*s%s", origin, machine ? "; " : "", room,
                                    machine ? machine : "", cut ? "..." : ""));
}

moe_plot *moe_curve_plot(void *owner, const moe_profile *profile, const moe_curve_view *view)
{
    if (!view->evidence)
        return NULL;
    moe_plot *plot = moe_need(talloc_zero(owner, moe_plot));
    plot->title = moe_need(
        talloc_asprintf(plot, "%s of %s", view->name, profile->name ? profile->name : "a profile"));
    plot->subtitles[0] = origin_of(plot, view);
    if (moe_curve_view_samples(view) > 0) {
        drawing how = drawing_of(view);
        plot->x_label = how.x_label;
        plot->x_unit = how.x_unit;
        plot->y_label = how.y_label;
        plot->y_unit = how.y_unit;
        add_samples(plot, view, &how);
    } else {
        add_tables(plot, view);
    }
    if (plot->count > 0)
        return plot;
    talloc_free(plot);
    return NULL;
}
