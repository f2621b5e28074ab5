/* A plot as a gnuplot script with its numbers, and the picture that gnuplot makes of them. */
#include "calibrate/fit/plot.h"

#include "configs/base/memory.h"
#include "configs/base/output.h"
#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <talloc.h>
#include <unistd.h>

extern char **environ;

enum { PANEL_WIDTH = 680, PANEL_HEIGHT = 470, COLOURS = 6 };

/* Told apart by people who see few colours, too: Okabe and Ito, "Color universal design", 2008. */
static const char *const colours[COLOURS] = {"#0072B2", "#D55E00", "#009E73",
                                             "#CC79A7", "#E69F00", "#56B4E9"};

/* --- text ----------------------------------------------------------------------------------------- */

/* In single quotes gnuplot substitutes nothing; a quote is doubled, and what would end the line becomes a
 * space. */
static void write_quoted(const char *text, FILE *script)
{
    fputc('\'', script);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '\'')
            fputc('\'', script);
        fputc(c < ' ' || c == 127 ? ' ' : c, script);
    }
    fputc('\'', script);
}

/* --- numbers -------------------------------------------------------------------------------------- */

static bool has_values(const moe_plot_series *series, bool measured)
{
    for (size_t i = 0; i < series->count; i++)
        if ((measured ? series->points[i].measured : series->points[i].predicted) > 0)
            return true;
    return false;
}

static void write_value(double value, FILE *data)
{
    if (value > 0 && isfinite(value))
        fprintf(data, " %.9g", value);
    else
        fputs(" NaN", data);
}

/* One block a series, two empty lines between them: gnuplot's `index`. */
static void write_numbers(const moe_plot *const *plots, size_t count, FILE *data)
{
    fputs("# x measured predicted\n", data);
    for (size_t p = 0; p < count; p++)
        for (size_t s = 0; s < plots[p]->count; s++) {
            const moe_plot_series *series = &plots[p]->series[s];
            fprintf(data, "# %s: %s\n", plots[p]->title, series->name);
            for (size_t i = 0; i < series->count; i++) {
                fprintf(data, "%.9g", series->points[i].x);
                write_value(series->points[i].measured, data);
                write_value(series->points[i].predicted, data);
                fputc('\n', data);
            }
            fputs("\n\n", data);
        }
}

/* --- the script ----------------------------------------------------------------------------------- */

static int columns_of(size_t panels)
{
    return panels == 1 ? 1 : panels <= 4 ? 2 : 3;
}

static void write_file_name(const char *stem, const char *suffix, FILE *script)
{
    char *name = moe_need(talloc_asprintf(NULL, "%s%s", stem, suffix));
    write_quoted(name, script);
    talloc_free(name);
}

static void write_head(size_t count, const char *stem, FILE *script)
{
    int columns = columns_of(count), rows = ((int)count + columns - 1) / columns;
    fprintf(script,
            "set terminal svg size %d,%d dynamic background rgb 'white' noenhanced "
            "font 'Helvetica,13'\n",
            columns * PANEL_WIDTH, rows * PANEL_HEIGHT);
    fputs("set output ", script);
    write_file_name(stem, ".svg", script);
    fputs("\nset border 3 lc rgb '#555555'\n"
          "set xtics nomirror\nset ytics nomirror\n"
          "set grid xtics ytics lc rgb '#dddddd' lw 1\n"
          "set key inside left top vertical Left reverse samplen 2 font ',11'\n"
          "set datafile missing 'NaN'\n",
          script);
    if (count > 1)
        fprintf(script, "set multiplot layout %d,%d\n", rows, columns);
}

static bool is_fraction(const moe_plot *plot)
{
    return *plot->y_unit == '\0';
}

static void write_label(char axis, const char *label, const char *unit, FILE *script)
{
    fprintf(script, "set %clabel ", axis);
    write_quoted(label, script);
    fprintf(script, "\nset format %c '%%.0s%s%%c%s'\n", axis, *unit ? " " : "", unit);
}

/* gnuplot has no range for a single value. */
static void write_range(const moe_plot *plot, FILE *script)
{
    double low = INFINITY, high = 0;
    for (size_t s = 0; s < plot->count; s++)
        for (size_t i = 0; i < plot->series[s].count; i++) {
            low = fmin(low, plot->series[s].points[i].x);
            high = fmax(high, plot->series[s].points[i].x);
        }
    if (low < high)
        fputs("set xrange [*:*]\n", script);
    else
        fprintf(script, "set xrange [%.9g:%.9g]\n", low / 2, high * 2);
}

/* A height without a unit is a fraction, from 0 to 1; all else is drawn in logs. */
static void write_axes(const moe_plot *plot, FILE *script)
{
    write_label('x', plot->x_label, plot->x_unit, script);
    write_label('y', plot->y_label, plot->y_unit, script);
    write_range(plot, script);
    fputs(is_fraction(plot)
              ? "unset logscale\nset logscale x\nset yrange [0:1]\nset format y '%g'\n"
              : "set logscale xy\nset yrange [*:*]\n",
          script);
}

static void write_title(const moe_plot *plot, FILE *script)
{
    fputs("set title ", script);
    write_quoted(plot->title, script);
    for (int line = 0; line < MOE_PLOT_SUBTITLES; line++)
        if (plot->subtitles[line]) {
            fputs(".\"\\n\".", script);
            write_quoted(plot->subtitles[line], script);
        }
    fputc('\n', script);
}

/* A line of predictions that bears the name, its measured points in the same colour. */
static void write_series(const moe_plot_series *series, size_t index, size_t colour,
                         const char *stem, const char **separator, FILE *script)
{
    bool named = false;
    for (int measured = 0; measured < 2; measured++) {
        if (!has_values(series, measured))
            continue;
        fputs(*separator, script);
        *separator = ", \\\n     ";
        write_file_name(stem, ".dat", script);
        fprintf(script, " index %zu using 1:%d with %s lc rgb '%s' ", index, measured ? 2 : 3,
                measured ? "points pt 7 ps 0.5" : "lines lw 1.6", colours[colour % COLOURS]);
        fputs(named ? "notitle" : "title ", script);
        if (!named)
            write_quoted(series->name, script);
        named = true;
    }
}

/* The panel's first series has index `first` in the file of numbers. */
static void write_panel(const moe_plot *plot, size_t first, const char *stem, FILE *script)
{
    const char *separator = "plot ";
    write_title(plot, script);
    write_axes(plot, script);
    for (size_t s = 0; s < plot->count; s++)
        write_series(&plot->series[s], first + s, s, stem, &separator, script);
    fputc('\n', script);
}

static void write_script(const moe_plot *const *plots, size_t count, const char *stem, FILE *script)
{
    size_t first = 0;
    fputs("# Draws the picture of the same name: run gnuplot on this file, in its folder.\n",
          script);
    write_head(count, stem, script);
    for (size_t p = 0; p < count; p++) {
        write_panel(plots[p], first, stem, script);
        first += plots[p]->count;
    }
    if (count > 1)
        fputs("unset multiplot\n", script);
}

/* --- files and gnuplot ---------------------------------------------------------------------------- */

typedef struct picture {
    void *owner;
    const char *path;
    char *folder; /* "." where the path has none */
    char *stem;   /* without folder and ".svg" */
    char *prefix; /* folder and stem as the user wrote them */
} picture;

static picture picture_of(void *owner, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    picture of = {.owner = owner, .path = path};
    of.prefix = moe_need(talloc_strndup(owner, path, strlen(path) - strlen(".svg")));
    of.stem = moe_need(talloc_strndup(owner, name, strlen(name) - strlen(".svg")));
    of.folder = moe_need(slash ? talloc_strndup(owner, path, (size_t)(slash - path) + 1)
                               : talloc_strdup(owner, "."));
    return of;
}

static moe_status write_file(const picture *of, const char *suffix, const moe_plot *const *plots,
                             size_t count, moe_diag *diag)
{
    char *path = moe_need(talloc_asprintf(of->owner, "%s%s", of->prefix, suffix));
    moe_output *output = moe_output_open(of->owner, path, diag);
    if (!output)
        return MOE_INTERNAL;
    if (strcmp(suffix, ".gp") == 0)
        write_script(plots, count, of->stem, moe_output_stream(output));
    else
        write_numbers(plots, count, moe_output_stream(output));
    return moe_output_commit(output, diag);
}

/* Its exit code; -1 with errno where it did not start. */
static int run_gnuplot(const picture *of)
{
    char *script = moe_need(talloc_asprintf(of->owner, "./%s.gp", of->stem));
    char *argv[] = {(char *)"gnuplot", script, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status = 0;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, of->folder);
    int error = posix_spawnp(&pid, "gnuplot", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
        errno = error;
        return -1;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

moe_status moe_plot_draw(void *owner, const moe_plot *const *plots, size_t count, const char *path,
                         moe_diag *diag)
{
    picture of = picture_of(owner, path);
    moe_status status = write_file(&of, ".dat", plots, count, diag);
    if (status == MOE_OK)
        status = write_file(&of, ".gp", plots, count, diag);
    if (status != MOE_OK)
        return status;
    int code = run_gnuplot(&of);
    if (code == 0)
        return MOE_OK;
    if (code < 0) {
        moe_diag_error(diag, (moe_where){0}, "cannot run gnuplot: %s", strerror(errno));
    } else {
        unlink(path); /* what it had begun */
        moe_diag_error(diag, (moe_where){0}, "gnuplot failed on \"%s.gp\" (exit code %d)",
                       of.prefix, code);
    }
    moe_diag_note(diag, (moe_where){0},
                  "script and numbers are in \"%s.gp\" and \"%s.dat\"; with gnuplot 5 installed, "
                  "`gnuplot %s.gp` in their folder draws \"%s.svg\"",
                  of.prefix, of.prefix, of.stem, of.stem);
    return MOE_INTERNAL;
}
