/* A curve of a profile with its points, ready to be drawn.
 *
 *   gemm, dense, attention, experts    achieved FLOP/s over rows (attention: over FLOPs), a series a shape
 *   memory, collectives, copies        seconds over bytes, a series for each number of ranks and hosts
 *   without samples                    efficiency over size, where the profile has a table of it
 *
 * Of many series, a few are drawn, spread over all; the subtitle says how many there are. */
#ifndef MOE_CALIBRATE_FIT_CURVE_PLOT_H
#define MOE_CALIBRATE_FIT_CURVE_PLOT_H

#include "calibrate/fit/curve_view.h"
#include "calibrate/fit/plot.h"

/* Owned by `owner`; NULL where the curve has neither samples nor a table. */
moe_plot *moe_curve_plot(void *owner, const moe_profile *profile, const moe_curve_view *view);

#endif
