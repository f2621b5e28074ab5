/* A plot in characters. */
#include "calibrate/fit/plot.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 64, HEIGHT = 16 };

typedef struct canvas {
    char cells[HEIGHT][WIDTH + 1];
    double low_x, high_x, low_y, high_y; /* logs */
} canvas;

static void widen(double value, double *low, double *high)
{
    *low = fmin(*low, log10(value));
    *high = fmax(*high, log10(value));
}

/* False where there is nothing to draw. */
static bool span(canvas *on, const moe_plot *plot)
{
    on->low_x = on->low_y = INFINITY;
    on->high_x = on->high_y = -INFINITY;
    for (size_t s = 0; s < plot->count; s++)
        for (size_t i = 0; i < plot->series[s].count; i++) {
            const moe_plot_point *point = &plot->series[s].points[i];
            if (point->x > 0)
                widen(point->x, &on->low_x, &on->high_x);
            if (point->x > 0 && point->measured > 0)
                widen(point->measured, &on->low_y, &on->high_y);
            if (point->x > 0 && point->predicted > 0)
                widen(point->predicted, &on->low_y, &on->high_y);
        }
    /* One value has no span of its own. */
    if (on->high_x - on->low_x < 1e-9)
        on->high_x = on->low_x + 1;
    if (on->high_y - on->low_y < 1e-9)
        on->high_y = on->low_y + 1;
    return isfinite(on->low_x) && isfinite(on->low_y);
}

static int column_of(const canvas *on, double x)
{
    return (int)lround((log10(x) - on->low_x) / (on->high_x - on->low_x) * (WIDTH - 1));
}

static int row_of(const canvas *on, double y)
{
    return HEIGHT - 1 -
           (int)lround((log10(y) - on->low_y) / (on->high_y - on->low_y) * (HEIGHT - 1));
}

/* The straight piece (in logs) between two predictions. */
static void draw_line(canvas *on, const moe_plot_point *from, const moe_plot_point *to)
{
    int first = column_of(on, from->x), last = column_of(on, to->x);
    for (int column = first; column <= last; column++) {
        double share = last > first ? (double)(column - first) / (last - first) : 0;
        double y = pow(from->predicted, 1 - share) * pow(to->predicted, share);
        on->cells[row_of(on, y)][column] = '.';
    }
}

static void draw_predictions(canvas *on, const moe_plot_series *series)
{
    const moe_plot_point *before = NULL;
    for (size_t i = 0; i < series->count; i++) {
        const moe_plot_point *point = &series->points[i];
        if (!(point->x > 0 && point->predicted > 0))
            continue;
        draw_line(on, before ? before : point, point);
        before = point;
    }
}

static void draw_measurements(canvas *on, const moe_plot_series *series)
{
    for (size_t i = 0; i < series->count; i++) {
        const moe_plot_point *point = &series->points[i];
        if (point->x > 0 && point->measured > 0)
            on->cells[row_of(on, point->measured)][column_of(on, point->x)] = 'o';
    }
}

/* "12.3 us": three digits with a prefix and the unit of an axis. */
static void format_tick(double value, const char *unit, char text[static 48])
{
    static const char prefixes[] = "pnum kMGTPE";
    int step = (int)floor(log10(value * 1.0005) / 3);
    if (*unit == '\0' && value < 1)
        step = 0; /* a fraction */
    step = step < -4 ? -4 : step > 6 ? 6 : step;
    char prefix = prefixes[step + 4];
    const char *after = prefix == ' ' ? "" : (char[]){prefix, '\0'};
    snprintf(text, 48, "%.3g%s%s%.30s", value / pow(1000, step), *unit || *after ? " " : "", after,
             unit);
}

static void print_axis(const canvas *on, const moe_plot *plot, FILE *stream)
{
    char low[48], high[48];
    format_tick(pow(10, on->low_x), plot->x_unit, low);
    format_tick(pow(10, on->high_x), plot->x_unit, high);
    fprintf(stream, "%12s +", "");
    for (int column = 0; column < WIDTH; column++)
        fputc('-', stream);
    int gap = WIDTH - (int)strlen(low) - (int)strlen(high) - 1;
    int around = gap - (int)strlen(plot->x_label);
    fprintf(stream, "\n%14s%s%*s%s%*s%s\n", "", low, around > 0 ? around / 2 + 1 : 1, "",
            plot->x_label, around > 0 ? around - around / 2 : 1, "", high);
}

void moe_plot_print(const moe_plot *plot, FILE *stream)
{
    canvas on;
    char text[48];
    if (!span(&on, plot))
        return;
    for (int row = 0; row < HEIGHT; row++) {
        memset(on.cells[row], ' ', WIDTH);
        on.cells[row][WIDTH] = '\0';
    }
    for (size_t s = 0; s < plot->count; s++)
        draw_predictions(&on, &plot->series[s]);
    for (size_t s = 0; s < plot->count; s++)
        draw_measurements(&on, &plot->series[s]);
    fprintf(stream, "%s (o measured, . predicted)\n", plot->y_label);
    for (int row = 0; row < HEIGHT; row++) {
        bool labelled = row % 5 == 0;
        double y = on.high_y - (on.high_y - on.low_y) * row / (HEIGHT - 1);
        format_tick(pow(10, y), plot->y_unit, text);
        int used = WIDTH;
        while (used > 0 && on.cells[row][used - 1] == ' ')
            used--;
        fprintf(stream, "%12s |%.*s\n", labelled ? text : "", used, on.cells[row]);
    }
    print_axis(&on, plot, stream);
}
