/* Predicted against measured, by gnuplot. Its script and its data are written first and stay; what gnuplot
 * prints is read from a pipe, so that the picture too is whole or not there. */
#include "reports/validation/validation_private.h"

#include "configs/base/memory.h"
#include "configs/base/output.h"
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <talloc.h>
#include <unistd.h>

enum {
    POINTS = 500,          /* of a whole picture: more are thinned, evenly */
    SVG_LIMIT = 16 << 20,  /* gnuplot that writes more has gone astray */
    LINEAR_UP_TO = 30,     /* largest over smallest value: above, axes are logarithmic */
    GNUPLOT_MISSING = 127, /* what a shell says, too */
};

/* ---- panels ---------------------------------------------------------------------------------- */

/* Bytes of a group's name that name its panel. */
static size_t panel_length(const char *group)
{
    const char *colon = strstr(group, ": ");
    return colon != NULL ? (size_t)(colon - group) : 0;
}

static bool same_panel(const char *a, const char *b)
{
    const size_t length = panel_length(a);
    return length == panel_length(b) && memcmp(a, b, length) == 0;
}

/* Whether group `g` is the first of its panel. */
static bool opens_panel(const moe_validation_outcome *outcome, size_t g)
{
    for (size_t before = 0; before < g; before++) {
        if (same_panel(outcome->groups[before].name, outcome->groups[g].name))
            return false;
    }
    return true;
}

static int count_panels(const moe_validation_outcome *outcome)
{
    int panels = 0;
    for (size_t g = 0; g < outcome->group_count; g++)
        panels += opens_panel(outcome, g);
    return panels;
}

/* ---- data: one block a group, two empty lines between ---------------------------------------- */

static bool is_drawn(const moe_comparison *comparison)
{
    return moe_comparison_has_error(comparison) &&
           comparison->predicted > 0; /* axes may be logarithmic */
}

/* One of `every` points, spread without a period that could fall in step with the suite's own order. */
static bool is_kept(size_t index, size_t every)
{
    return ((uint32_t)index * UINT32_C(2654435761) >> 8) % every ==
           0; /* Knuth's multiplicative hash */
}

static void write_group(const moe_validation_outcome *outcome, size_t g, FILE *stream)
{
    const moe_validation_group *group = &outcome->groups[g];
    const size_t every = outcome->comparison_count / POINTS + 1;
    bool some = false;
    fprintf(stream, "# %s\n# measured\tpredicted\n", group->name);
    for (size_t i = 0; i < outcome->comparison_count; i++) {
        const moe_comparison *comparison = &outcome->comparisons[i];
        if (comparison->group != group->name || !is_drawn(comparison) ||
            (some && !is_kept(i, every)))
            continue;
        fprintf(stream, "%.5g\t%.5g\n", comparison->measured, comparison->predicted);
        some = true;
    }
    if (!some)
        fputs("NaN\tNaN\n", stream); /* an empty block would shift those behind it */
    fputs("\n\n", stream);
}

/* ---- script ---------------------------------------------------------------------------------- */

/* Between double quotes; without "@" and "_" at work as markup. */
static void print_quoted(const char *text, size_t length, FILE *stream)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '"' || text[i] == '\\')
            fputc('\\', stream);
        fputc(text[i] == '\n' ? ' ' : text[i], stream);
    }
}

/* The same range for both axes, with a little room: the diagonal goes from corner to corner. */
static void print_range(const moe_validation_outcome *outcome, const char *panel, FILE *stream)
{
    double low = INFINITY, high = 0;
    for (size_t i = 0; i < outcome->comparison_count; i++) {
        const moe_comparison *comparison = &outcome->comparisons[i];
        if (!is_drawn(comparison) || !same_panel(comparison->group, panel))
            continue;
        low = fmin(low, fmin(comparison->measured, comparison->predicted));
        high = fmax(high, fmax(comparison->measured, comparison->predicted));
    }
    if (high == 0)
        return;
    fprintf(stream, "%s logscale xy\n", high / low > LINEAR_UP_TO ? "set" : "unset");
    fprintf(stream, "set xrange [%.4g:%.4g]\nset yrange [%.4g:%.4g]\n", low / 1.1, high * 1.1,
            low / 1.1, high * 1.1);
}

static void print_panel(const moe_validation_outcome *outcome, size_t first, FILE *stream)
{
    const char *name = outcome->groups[first].name;
    const size_t length = panel_length(name);
    print_range(outcome, name, stream);
    fputs("set title \"", stream);
    print_quoted(length > 0 ? name : outcome->suite->name,
                 length > 0 ? length : strlen(outcome->suite->name), stream);
    fputs("\"\nplot x with lines lt -1 notitle", stream);
    for (size_t g = first; g < outcome->group_count; g++) {
        const char *group = outcome->groups[g].name;
        if (!same_panel(group, name))
            continue;
        fprintf(stream, ", \\\n  data index %zu with points pt 7 ps 0.3 title \"", g);
        const size_t skip = length > 0 ? length + 2 : 0;
        print_quoted(group + skip, strlen(group) - skip, stream);
        fputc('"', stream);
    }
    fputc('\n', stream);
}

static void write_script(const moe_validation_outcome *outcome, FILE *stream)
{
    const char *name = outcome->suite->name;
    const int panels = count_panels(outcome);
    const int columns = panels < 3 ? panels : 3;
    const int rows = (panels + columns - 1) / columns;
    fprintf(stream,
            "# gnuplot %s.gnuplot > %s.svg\n"
            "data = \"%s.tsv\"\n"
            "set terminal svg size %d,%d font \"sans,11\" noenhanced background \"white\"\n"
            "set key bmargin center horizontal font \",9\" samplen 1\n"
            "set grid\n"
            "set xlabel \"measured [%s]\"\n"
            "set ylabel \"predicted [%s]\"\n",
            name, name, name, 480 * columns, 500 * rows, outcome->suite->unit,
            outcome->suite->unit);
    fprintf(stream, "set multiplot layout %d,%d\n", rows, columns);
    for (size_t g = 0; g < outcome->group_count; g++) {
        if (opens_panel(outcome, g))
            print_panel(outcome, g, stream);
    }
    fputs("unset multiplot\n", stream);
}

/* ---- gnuplot --------------------------------------------------------------------------------- */

static moe_output *open_file(void *owner, const moe_validation_outcome *outcome, const char *folder,
                             const char *ending, moe_diag *diag)
{
    return moe_output_open(
        owner, moe_need(talloc_asprintf(owner, "%s/%s.%s", folder, outcome->suite->name, ending)),
        diag);
}

static moe_status write_inputs(void *owner, const moe_validation_outcome *outcome,
                               const char *folder, moe_diag *diag)
{
    moe_output *data = open_file(owner, outcome, folder, "tsv", diag);
    moe_output *script = data != NULL ? open_file(owner, outcome, folder, "gnuplot", diag) : NULL;
    if (script == NULL)
        return MOE_BAD_INPUT;
    for (size_t g = 0; g < outcome->group_count; g++)
        write_group(outcome, g, moe_output_stream(data));
    write_script(outcome, moe_output_stream(script));
    const moe_status status = moe_output_commit(data, diag);
    if (status == MOE_OK)
        return moe_output_commit(script, diag);
    moe_output_abort(script);
    return status;
}

_Noreturn static void become_gnuplot(const char *folder, const char *script, int out)
{
    moe_signals_reset_in_child();
    signal(SIGPIPE, SIG_DFL);
    if (chdir(folder) == 0 && dup2(out, STDOUT_FILENO) >= 0)
        execlp("gnuplot", "gnuplot", script, (char *)NULL);
    _exit(GNUPLOT_MISSING);
}

/* Copies until the end; false where it is too long. */
static bool copy_all(int from, FILE *to)
{
    char buffer[1 << 14];
    size_t copied = 0;
    for (;;) {
        const ssize_t count = read(from, buffer, sizeof buffer);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count == 0;
        copied += (size_t)count;
        if (copied > SVG_LIMIT)
            return false;
        fwrite(buffer, 1, (size_t)count, to);
    }
}

/* The picture to `stream`; gnuplot's exit code, or GNUPLOT_MISSING. */
static int run_gnuplot(const char *folder, const char *script, FILE *stream)
{
    int ends[2], status = 0;
    if (pipe(ends) != 0)
        return GNUPLOT_MISSING;
    fflush(NULL); /* or the child's copy of a buffer would be written twice */
    const pid_t child = fork();
    if (child == 0)
        become_gnuplot(folder, script, ends[1]);
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return GNUPLOT_MISSING;
    }
    moe_signals_add_child(child);
    const bool whole = copy_all(ends[0], stream);
    close(ends[0]);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    moe_signals_remove_child(child);
    return !whole || !WIFEXITED(status) ? GNUPLOT_MISSING : WEXITSTATUS(status);
}

moe_status moe_validation_plot(const moe_validation_outcome *outcome, const char *folder,
                               bool *drawn, moe_diag *diag)
{
    *drawn = false;
    if (outcome->group_count == 0)
        return MOE_OK;
    void *owner = moe_need(talloc_new(NULL));
    moe_status status = write_inputs(owner, outcome, folder, diag);
    moe_output *svg = status == MOE_OK ? open_file(owner, outcome, folder, "svg", diag) : NULL;
    if (svg != NULL) {
        const char *script = moe_need(talloc_asprintf(owner, "%s.gnuplot", outcome->suite->name));
        *drawn = run_gnuplot(folder, script, moe_output_stream(svg)) == 0;
        if (*drawn)
            status = moe_output_commit(svg, diag);
        else
            moe_diag_warning(diag, (moe_where){0},
                             "no plot: gnuplot is missing or failed on \"%s/%s\"", folder, script);
    } else if (status == MOE_OK) {
        status = MOE_BAD_INPUT;
    }
    talloc_free(owner);
    return status;
}
