/* Log-log plots of measured points beside what a curve predicts: as text, and by gnuplot as SVG.
 *
 * A picture x.svg comes with x.gp (the script) and x.dat (its numbers), which stay beside it and draw
 * it again: `gnuplot x.gp` in their folder. Nothing here is specific to profiles. */
#ifndef MOE_CALIBRATE_FIT_PLOT_H
#define MOE_CALIBRATE_FIT_PLOT_H

#include "configs/base/diag.h"
#include "configs/base/status.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct moe_plot_point {
    double x;
    double measured;  /* 0: there is none */
    double predicted; /* 0: there is none */
} moe_plot_point;

typedef struct moe_plot_series {
    const char *name;
    const moe_plot_point *points; /* x ascending; values above 0, others are left out */
    size_t count;
} moe_plot_series;

enum { MOE_PLOT_SUBTITLES = 2 };

typedef struct moe_plot {
    const char *title;
    const char *subtitles[MOE_PLOT_SUBTITLES]; /* or NULL */
    const char *x_label;                       /* with its unit: "bytes per rank" */
    const char *x_unit;                        /* what follows a prefix on the axis: "B", or "" */
    const char *y_label;
    const char *y_unit; /* "": a fraction, which gnuplot draws from 0 to 1 */
    const moe_plot_series *series;
    size_t count;
} moe_plot;

/* 64 by 16 characters and axes: o measured, . predicted. */
void moe_plot_print(const moe_plot *plot, FILE *stream);

/* One picture; several plots become its panels. `path` ends in ".svg". MOE_BAD_INPUT where it cannot be
 * written; MOE_INTERNAL where gnuplot is missing or fails: script and numbers are there even so. */
moe_status moe_plot_draw(void *owner, const moe_plot *const *plots, size_t count, const char *path,
                         moe_diag *diag);

#endif
