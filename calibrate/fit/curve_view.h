/* The curves of a profile, all alike: what `profile show` and `profile compare` walk over. */
#ifndef MOE_CALIBRATE_FIT_CURVE_VIEW_H
#define MOE_CALIBRATE_FIT_CURVE_VIEW_H

#include "models/profile.h"

/* What a curve is a function of. */
typedef enum moe_curve_measure {
    MOE_MEASURE_ROWS,  /* of a kernel */
    MOE_MEASURE_BYTES, /* touched, moved, or of one rank */
    MOE_MEASURE_NONE,  /* a few constants */
} moe_curve_measure;

typedef struct moe_curve_view {
    const char *name; /* "gemm", "experts_input_gradient", "all_to_all", "host_to_device" */
    int origin;       /* moe_origin */
    int inter_origin; /* of a collective between hosts; -1: there is no such part */
    moe_curve_measure measure;
    double low, high;                       /* valid range in that measure; high 0: not said */
    const moe_evidence *evidence;           /* NULL: none is kept */
    const char *const *columns;             /* of its samples before the seconds; NULL-terminated */
    const moe_compute_curve *compute;       /* the one it is, or NULL */
    const moe_collective_curve *collective; /* likewise */
    const moe_gemm_grid *grid;
    const moe_copy_curve *copy;
    moe_phase phase; /* of experts */
    int kind;        /* moe_collective_kind or moe_copy_kind */
} moe_curve_view;

enum { MOE_CURVE_VIEWS_MAX = 10 + MOE_COLLECTIVE_KINDS + MOE_COPY_KINDS };

/* Those the profile has, in a fixed order; their number. They point into the profile. */
int moe_curve_views(const moe_profile *profile, moe_curve_view views[MOE_CURVE_VIEWS_MAX]);

/* NULL: there is none of that name. */
const moe_curve_view *moe_curve_view_find(const moe_curve_view *views, int count, const char *name);

/* Samples of its evidence; 0 where there are none. */
size_t moe_curve_view_samples(const moe_curve_view *view);

/* One number of a sample's row. */
static inline double moe_curve_view_cell(const moe_curve_view *view, size_t row, size_t column)
{
    return view->evidence->samples.values[row * view->evidence->samples.width + column];
}

/* Points of its tables of efficiency or utilisation. */
size_t moe_curve_view_points(const moe_curve_view *view);

/* "imported", or "imported, assumed between hosts". */
void moe_curve_view_origin(const moe_curve_view *view, char text[static 64]);

#endif
