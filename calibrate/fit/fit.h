/* From samples to a profile.
 *
 *   GEMM        on a full grid of (m, n, k): utilisation tables (models/profile.h). Always: the
 *               roofline `dense`, t = start + norm_p(F / (e1 peak), B / (e2 BW)), by robust non-linear
 *               least squares on log t (GSL, Levenberg-Marquardt, Huber weights); p is 2.7 unless
 *               another of a few lowers the mean error by a tenth
 *   experts     the law of models/profile.h per phase: start, start per expert, e_flop as a function of
 *               the rows of an expert (monotone: more rows are never less efficient), e_mem, tile rows
 *               among 1, 16, 32, 64, 128, 256
 *   memory      start + bytes / (e(bytes) BW)
 *   collective  alpha = start + start_per_rank log2(ranks) + hops * latency, and efficiency points
 *               [bytes per rank, load / (rate (t - alpha))], one a measured size; not monotone, because
 *               protocols switch; where sizes are few (< 6), two or more straight pieces of t(bytes)
 *               whose breaks are found (least squares, number of pieces by BIC). Matrices and grouped
 *               chunks add points only at sizes that no uniform collective comes near
 *   interference, launch, copies    medians of ratios; straight lines
 *
 * Robust: a point whose residual exceeds 4 median absolute deviations of its neighbours (and 20 %) is
 * weighed down, not dropped. Every curve gets its samples with predictions (at most 400, evenly spread), mean,
 * worst and leave-one-out errors of all; each left-out point is predicted by a curve fitted without it, above 256
 * points (experts: 64) every 64th together. Experts and roofline fits go on from where the whole one ended.
 * The order of samples changes nothing. */
#ifndef MOE_CALIBRATE_FIT_FIT_H
#define MOE_CALIBRATE_FIT_FIT_H

#include "calibrate/fit/samples.h"

typedef struct moe_fit_options {
    const char *name; /* of the profile */
    const char *source;
    const char *dtype; /* whose samples to use; NULL: the most frequent of GEMM samples */
    const moe_cluster
        *cluster; /* rates and latencies that efficiencies refer to; NULL: the machine's */
    const moe_profile
        *fill; /* curves without samples are taken from here, marked as there (its arrays
                                      * are borrowed); NULL: from the data-sheet builder
                                      * (calibrate/fit/data_sheet.h), assumed */
} moe_fit_options;

/* A complete profile, owned by `owner` (talloc); NULL after printed errors (nothing to fit). */
moe_profile *moe_fit_profile(void *owner, const moe_samples *samples,
                             const moe_fit_options *options, moe_diag *diag);

/* The dtype most GEMM samples are of; NULL: no sample has one. */
const char *moe_fit_dtype(const moe_samples *samples);

/* Makes the machine's rates ones that its samples do not beat, each change with a warning: peak and memory
 * bandwidth only where the machine says that they are not nominal, links and NICs also where it does not know them;
 * latencies so low that hops fit into the shortest collectives. For fits without a cluster of the user's, before
 * moe_fit_profile and moe_fit_cluster. Where nominal rates are beaten, efficiencies are capped at 1, with a warning. */
void moe_fit_adjust_machine(moe_samples *samples, const char *dtype, moe_diag *diag);

/* The cluster that the machine is: one host (or `hosts`) of its devices, rates and latencies as described.
 * Owned by `owner`. */
moe_cluster_spec *moe_fit_cluster(void *owner, const moe_sample_machine *machine);

/* --- one curve at a time: what importers, the report on calibration and tests call -------------------- */

/* Load of the busiest intra-host port over `bytes`, and hops on the longest chain, of a uniform collective of
 * `ranks` ranks in one host by this program's algorithms (models/collective.h). */
double moe_fit_load_factor(moe_collective_kind kind, int ranks);
double moe_fit_hops(moe_collective_kind kind, int ranks);

/* Each fills its curve from the samples of its kind; false where there are none. Arrays are owned by `owner`.
 * Of `cluster` the rates, latencies and devices per host are taken, not the number of hosts: samples say how many
 * they used. A curve for NICs alone has no `intra`, and the other way round. */
bool moe_fit_collective(void *owner, const moe_samples *samples, moe_collective_kind kind,
                        const moe_cluster_spec *cluster, moe_collective_curve *curve);
bool moe_fit_experts(void *owner, const moe_samples *samples, moe_phase phase,
                     const moe_device_spec *device, double value_bytes, moe_compute_curve *curve);
/* Where nobody measured the experts of a training step: fits the law to sums of the profile's measured GEMMs, one
 * expert after another, for the experts of six published models with 4 to 16,384 rows each. The curve is derived; its
 * residual is the law's error against those sums. False where the profile has no grid. */
bool moe_fit_experts_from_grid(void *owner, const moe_profile *profile,
                               const moe_device_spec *device, moe_phase phase,
                               moe_compute_curve *curve);
bool moe_fit_roofline(void *owner, const moe_samples *samples, const moe_device_spec *device,
                      double value_bytes, moe_compute_curve *curve);
bool moe_fit_grid(void *owner, const moe_samples *samples, const moe_device_spec *device,
                  double value_bytes, moe_gemm_grid *grid);
bool moe_fit_memory(void *owner, const moe_samples *samples, const moe_device_spec *device,
                    moe_compute_curve *curve);
bool moe_fit_attention(void *owner, const moe_samples *samples, const moe_device_spec *device,
                       moe_compute_curve *curve);

#endif
