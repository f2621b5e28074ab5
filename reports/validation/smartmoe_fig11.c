/* Fig. 11: 24 layers of iterations 101, 201, ..., 4901 on one host of eight devices. */
#include "reports/validation/smartmoe.h"

#include "configs/base/memory.h"
#include <gsl/gsl_statistics.h>
#include <math.h>
#include <talloc.h>

enum { SAMPLES = 49, POINTS = SAMPLES * SMARTMOE_LAYERS, DEVICES = 8, QUICK_EVERY = 7 };

static const char nothing_fitted[] = "Fig. 11: nothing fitted";
static const char constant_of_13[] = "Fig. 11: constant of Fig. 13";
static const char factors_odd[] = "Fig. 11: three factors, odd iterations";
static const char their_estimate[] = "Fig. 11: SmartMoE's own estimate";

/* Which machine, by the artifact's own estimate of these points: src/performance_model/run_bench.sh calls it with
 * the logs "sh-lab-smart_exchange/1nodes_mbs8_H2048"; perf_bench.py sets hidden 2048 and the device A100. The device
 * of that file has 80 GB. NVLink between all is assumed (it grants them 100 GB/s all-reduced within a host). */
static const smartmoe_machine machine = {
    .name = "8 A100-80, hidden 2048",
    .profile = "a100_80",
    .cluster = {.name = "sh-lab",
                .source = "SmartMoE's artifact; NVIDIA A100 data sheet",
                .hosts = 1,
                .devices_per_host = DEVICES,
                .device = {"A100-80", 312e12, 80e9, 2.039e12, 108},
                .intra = {.kind = MOE_INTRA_NVSWITCH,
                          .bandwidth_bytes_per_s = 300e9,
                          .latency_s = 0.95e-6},
                .nic = {.bandwidth_bytes_per_s = 25e9},
                .fabric = {.oversubscription = 1}},
    .hidden = 2048,
};

typedef struct fig11 {
    moe_validation_outcome *outcome;
    const moe_npy *trace;
    smartmoe_model *model;
    const double *real_ms;
    const double *estimate_ms;
    int points[POINTS]; /* those that are compared: sample * layers + layer */
    int count;
    smartmoe_seconds *seconds; /* [count] */
} fig11;

static int sample_of(int point)
{
    return point / SMARTMOE_LAYERS;
}

static int layer_of(int point)
{
    return point % SMARTMOE_LAYERS;
}

/* Index in the recording: 10, 20, ..., 490. */
static int recorded(int point)
{
    return 10 * (sample_of(point) + 1);
}

static const char *say_point(void *owner, int point)
{
    return moe_need(talloc_asprintf(owner, "iteration %d, layer %d",
                                    smartmoe_iteration(recorded(point)), layer_of(point)));
}

static void compare(const fig11 *f, const char *group, int i, double predicted_ms)
{
    const char *what = say_point(f->outcome, f->points[i]);
    moe_validation_compare(f->outcome, group, what, predicted_ms, f->real_ms[f->points[i]]);
}

/* ---- the artifact's own estimate, recomputed -------------------------------------------------- */

/* What the artifact's predictor takes for a device with experts of `mine` assignments each (of all ranks), in
 * seconds: 280 TFLOP/s, 0.7 ms an expert, and below 4,096 rows as if there were 4,096 but at most five times as
 * many; every other rank sends at 50 GB/s, one after another. */
static double estimate_device_s(const double *mine, int experts)
{
    const double hidden = 2048, row_s = 3 * 8 * hidden * hidden / 280e12;
    double seconds = 0, rows = 0;
    for (int e = 0; e < experts; e++) {
        if (mine[e] <= 0)
            continue;
        const double padded = mine[e] < 4096 ? fmin(4096, 5 * mine[e]) : mine[e];
        seconds += padded * row_s + 0.7e-3;
        rows += mine[e];
    }
    return seconds + 4 * rows * (DEVICES - 1) / DEVICES * 2 * hidden / 50e9;
}

/* It takes rank 0's counts for those of every rank. */
static double estimate_ms(const fig11 *f, int point)
{
    enum { PER_DEVICE = SMARTMOE_EXPERTS / DEVICES };
    double counts[SMARTMOE_EXPERTS], slowest = 0;
    smartmoe_counts(f->trace, recorded(point), layer_of(point), 1, counts);
    for (int e = 0; e < SMARTMOE_EXPERTS; e++)
        counts[e] *= SMARTMOE_SCALE * DEVICES;
    for (int device = 0; device < DEVICES; device++)
        slowest =
            fmax(slowest, estimate_device_s(counts + (size_t)device * PER_DEVICE, PER_DEVICE));
    return 1e3 * slowest;
}

static void check_estimate(const fig11 *f)
{
    double worst = 0;
    for (int i = 0; i < f->count; i++)
        worst = fmax(worst, fabs(estimate_ms(f, f->points[i]) / f->estimate_ms[f->points[i]] - 1));
    moe_validation_figure(
        f->outcome,
        "Fig. 11: SmartMoE's estimate recomputed for hidden 2048, A100, 8 ranks: largest "
        "relative difference",
        worst);
}

/* ---- comparisons ----------------------------------------------------------------------------- */

static moe_status predict(fig11 *f, moe_diag *diag)
{
    const smartmoe_mapping mapping = smartmoe_start(DEVICES);
    double counts[DEVICES * SMARTMOE_EXPERTS];
    moe_status status = MOE_OK;
    for (int i = 0; i < f->count && status == MOE_OK; i++) {
        smartmoe_counts(f->trace, recorded(f->points[i]), layer_of(f->points[i]), DEVICES, counts);
        status = smartmoe_predict(f->model, counts, &mapping, &f->seconds[i], diag);
        if (status == MOE_OK)
            compare(f, nothing_fitted, i, 1e3 * f->seconds[i].total);
    }
    return status;
}

/* Samples 0, 2, ...: the fit's; 1, 3, ...: judged. */
static bool is_judged(const fig11 *f, int i)
{
    return sample_of(f->points[i]) % 2 != 0;
}

static void note_layers(const fig11 *f, const smartmoe_factors *factors)
{
    char *line = moe_need(talloc_strdup(f->outcome, ""));
    for (int layer = 0; layer < SMARTMOE_LAYERS; layer++) {
        double sum = 0;
        int count = 0;
        for (int i = 0; i < f->count; i++) {
            if (layer_of(f->points[i]) != layer || !is_judged(f, i))
                continue;
            sum +=
                fabs(1e3 * smartmoe_apply(factors, &f->seconds[i]) / f->real_ms[f->points[i]] - 1);
            count++;
        }
        line = moe_need(talloc_asprintf_append(line, "%s%d: %.1f %%", layer > 0 ? ", " : "", layer,
                                               count > 0 ? 100 * sum / count : 0));
    }
    moe_validation_note(
        f->outcome,
        "Fig. 11, mean error of the judged iterations with three factors, by layer: %s.", line);
}

static void fit_factors(const fig11 *f)
{
    double *measured_s = moe_need(talloc_array(f->outcome, double, (unsigned)f->count));
    bool *used = moe_need(talloc_array(f->outcome, bool, (unsigned)f->count));
    for (int i = 0; i < f->count; i++) {
        measured_s[i] = 1e-3 * f->real_ms[f->points[i]];
        used[i] = !is_judged(f, i);
    }
    const smartmoe_factors factors = smartmoe_fit(f->seconds, measured_s, used, f->count);
    moe_validation_fitted(
        f->outcome,
        "\"%s\": expert seconds x %.3f, exchange seconds x %.3f, plus %.2f ms instead of all else; "
        "on "
        "every second iteration (101, 301, ...), least squares of relative errors.",
        factors_odd, factors.experts, factors.exchange, 1e3 * factors.constant_s);
    for (int i = 0; i < f->count; i++) {
        if (is_judged(f, i))
            compare(f, factors_odd, i, 1e3 * smartmoe_apply(&factors, &f->seconds[i]));
    }
    note_layers(f, &factors);
}

/* The same predictions, but what is neither experts nor exchange as in the other figure's log. */
static void borrow_constant(const fig11 *f, double constant_s)
{
    const smartmoe_factors factors = {1, 1, constant_s};
    moe_validation_fitted(f->outcome,
                          "\"%s\": %.2f ms instead of all that is neither experts nor exchange, "
                          "fitted on Fig. 13's static runs "
                          "(another machine, another log); nothing on Fig. 11.",
                          constant_of_13, 1e3 * constant_s);
    for (int i = 0; i < f->count; i++)
        compare(f, constant_of_13, i, 1e3 * smartmoe_apply(&factors, &f->seconds[i]));
}

static void say_shares(const fig11 *f)
{
    double experts = 0, exchange = 0, total = 0, real = 0;
    for (int i = 0; i < f->count; i++) {
        experts += 1e3 * f->seconds[i].experts / f->count;
        exchange += 1e3 * f->seconds[i].exchange / f->count;
        total += 1e3 * f->seconds[i].total / f->count;
        real += f->real_ms[f->points[i]] / f->count;
    }
    moe_validation_figure(f->outcome, "Fig. 11: mean measured ms", real);
    moe_validation_figure(f->outcome, "Fig. 11: mean predicted ms, nothing fitted", total);
    moe_validation_figure(f->outcome, "Fig. 11: of it experts, ms", experts);
    moe_validation_figure(f->outcome, "Fig. 11: of it exchanges, ms", exchange);
    const size_t stride = sizeof *f->seconds / sizeof(double);
    moe_validation_figure(f->outcome,
                          "Fig. 11: correlation of predicted expert and exchange seconds",
                          gsl_stats_correlation(&f->seconds->experts, stride, &f->seconds->exchange,
                                                stride, (size_t)f->count));
}

static bool read_logs(fig11 *f, const char *path, moe_diag *diag)
{
    const smartmoe_series real = smartmoe_read_series(f->outcome, path, "real", diag);
    const smartmoe_series estimate = smartmoe_read_series(f->outcome, path, "est", diag);
    if (real.count == 0 || estimate.count == 0)
        return false;
    if (real.count != POINTS || estimate.count != POINTS) {
        moe_diag_error(diag, (moe_where){0}, "%s: %d and %d values; expected %d each", path,
                       real.count, estimate.count, POINTS);
        return false;
    }
    f->real_ms = real.values;
    f->estimate_ms = estimate.values;
    return true;
}

static void choose_points(fig11 *f, bool quick)
{
    for (int point = 0; point < POINTS; point++) {
        if (!quick || sample_of(point) % QUICK_EVERY == 0)
            f->points[f->count++] = point;
    }
    f->seconds = moe_need(talloc_zero_array(f->outcome, smartmoe_seconds, (unsigned)f->count));
}

moe_status smartmoe_fig11(moe_validation_outcome *outcome, const moe_validation_options *options,
                          const moe_npy *trace, double constant_s, moe_diag *diag)
{
    const char *path =
        moe_validation_file(outcome, options, "measured/smartmoe/fig11_1nodes_mbs8.log");
    if (path == NULL)
        return MOE_OK;
    fig11 *f = moe_need(talloc_zero(outcome, fig11));
    f->outcome = outcome;
    f->trace = trace;
    f->model = smartmoe_model_open(outcome, &machine, diag);
    if (f->model == NULL || !read_logs(f, path, diag))
        return MOE_BAD_INPUT;
    choose_points(f, options->quick);
    const moe_status status = predict(f, diag);
    if (status != MOE_OK)
        return status;
    borrow_constant(f, constant_s);
    fit_factors(f);
    for (int i = 0; i < f->count; i++)
        compare(f, their_estimate, i, f->estimate_ms[f->points[i]]);
    check_estimate(f);
    say_shares(f);
    moe_validation_goal_add(outcome, (moe_validation_goal){nothing_fitted, 0.09, false,
                                                           "the error of SmartMoE's own estimate"});
    moe_validation_goal_add(outcome,
                            (moe_validation_goal){constant_of_13, 0.09, false, "the same"});
    moe_validation_goal_add(outcome, (moe_validation_goal){factors_odd, 0.03, false,
                                                           "what is left to routing and noise"});
    return MOE_OK;
}
