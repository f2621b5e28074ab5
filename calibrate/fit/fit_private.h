/* What the fits share. Private to calibrate/fit. */
#ifndef MOE_CALIBRATE_FIT_FIT_PRIVATE_H
#define MOE_CALIBRATE_FIT_FIT_PRIVATE_H

#include "calibrate/fit/fit.h"

enum { MOE_FIT_ROWS_MOST = 400, MOE_FIT_TABLE_MOST = 128 };

/* Samples in an order of their own, so that the file's order changes nothing. */
typedef struct moe_selection {
    const moe_sample **items; /* talloc */
    size_t count;
} moe_selection;

moe_selection moe_fit_select(void *owner, const moe_samples *samples,
                             bool (*wanted)(const moe_sample *sample, const void *context),
                             const void *context);

/* A profile on a device, with nothing but the curve under fit: what cost functions are called with. */
typedef struct moe_fit_bench {
    moe_profile profile;
    moe_cluster_spec spec;
    moe_cluster cluster;
    moe_curve_usage usage;
    moe_costs costs;
} moe_fit_bench;
void moe_fit_bench_open(moe_fit_bench *bench, const moe_device_spec *device);

/* What the step builder would ask of a sample's experts (models/step.h). */
moe_expert_shape moe_fit_expert_shape(const moe_sample *sample, double value_bytes);

/* --- evidence -------------------------------------------------------------------------------------- */

/* At most this many columns before measured and predicted seconds. */
enum { MOE_FIT_COLUMNS_MOST = 6 };
typedef struct moe_evidence_builder {
    moe_evidence *evidence;
    size_t width; /* columns in all */
    size_t expected, seen;
    double sum, worst;
} moe_evidence_builder;

/* Keeps MOE_FIT_ROWS_MOST of `expected` rows, evenly spread; the errors are those of all. */
moe_evidence_builder moe_evidence_open(void *owner, moe_evidence *evidence, size_t columns,
                                       size_t expected);
void moe_evidence_add(moe_evidence_builder *builder, const double *columns, double measured_s,
                      double predicted_s);
void moe_evidence_close(moe_evidence_builder *builder);

/* Mean |predicted / measured - 1| of what is left out in turn. */
typedef struct moe_left_out {
    double sum;
    size_t count;
} moe_left_out;
void moe_left_out_add(moe_left_out *left, double measured_s, double predicted_s);
double moe_left_out_mean(const moe_left_out *left);

/* --- collectives ----------------------------------------------------------------------------------- */

/* What a collective asks of its slowest ports at their nominal rates. */
typedef struct moe_exchange_work {
    double intra_s, inter_s;  /* of the slowest port within hosts, and of NICs, leaves and spines */
    double latency_s;         /* of its longest chain of hops */
    double bytes;             /* per rank: what efficiency is looked up at */
    int ranks, chunks, flows; /* flows: on the slowest port */
} moe_exchange_work;

/* Builds the traffic of models/collective.h; clusters and uniform collectives are remembered. */
typedef struct moe_exchange_pricer moe_exchange_pricer;
moe_exchange_pricer *moe_exchange_pricer_create(void *owner, const moe_cluster_spec *cluster);
/* False where the cluster has no rate for it. */
bool moe_exchange_price(moe_exchange_pricer *pricer, const moe_sample_exchange *exchange, int ranks,
                        int hosts, moe_exchange_work *work);

/* Seconds of the work with the bench's curve of this kind: alpha and efficiency by models/profile_cost.c. */
double moe_exchange_predict_s(const moe_fit_bench *bench, moe_collective_kind kind,
                              const moe_exchange_work *work);

/* --- the rest of a profile --------------------------------------------------------------------------- */

/* slowdown, sm_share, port_sharing, launches, copies: false and untouched where there are no samples. */
bool moe_fit_interference(const moe_samples *samples, moe_profile *profile);
bool moe_fit_sharing(const moe_samples *samples, const moe_cluster_spec *cluster,
                     moe_profile *profile);
bool moe_fit_launch(const moe_samples *samples, moe_profile *profile);
bool moe_fit_copy(void *owner, const moe_samples *samples, moe_copy_kind kind,
                  moe_copy_curve *curve);

/* FLOPs and bytes of a computation, and what of it a residual is taken from. */
typedef struct moe_roofline_point {
    double flop, bytes, seconds;
    double rows;
} moe_roofline_point;
/* start, e_flop, e_mem, norm of the curve; false with no points. */
bool moe_fit_roofline_points(const moe_roofline_point *points, size_t count,
                             const moe_device_spec *device, moe_compute_curve *curve,
                             double *leave_one_out);

/* The geometric mean of repeated x, ascending; returns how many are left (at most MOE_FIT_TABLE_MOST: finer
 * ones are joined). */
size_t moe_fit_merge(double *x, double *y, size_t count);

#endif
