/* Fig. 13: layer 6 of iterations 1, 11, ..., 2991; experts where they began, or exchanged by SmartMoE's greedy mapping
 * every 10 or every 100 iterations. */
#include "reports/validation/smartmoe.h"

#include "configs/base/memory.h"
#include "policies/placement/smartmoe.h"
#include <string.h>
#include <talloc.h>

enum { SAMPLES = 300, LAYER = 6, QUICK_EVERY = 25, RULES = 3 };

#define HOST(...) .hosts = 1, .devices_per_host = 8, .fabric = {.oversubscription = 1}, __VA_ARGS__
#define V100_PCIE                                                                                  \
    {                                                                                              \
        "V100-32", 112e12, 32e9, 0.9e12, 80                                                        \
    }
#define V100_SXM                                                                                   \
    {                                                                                              \
        "V100-32", 125e12, 32e9, 0.9e12, 80                                                        \
    }
#define A100                                                                                       \
    {                                                                                              \
        "A100-80", 312e12, 80e9, 2.039e12, 108                                                     \
    }

/* The log does not say which machine it is from. The artifact's script for this figure has one host of eight, hidden
 * 1536 and 112 TFLOP/s, a V100 for PCIe; its other machines are V100 with NVLink (100 Gb/s between hosts) and the A100
 * of Fig. 11 (200 Gb/s), hidden 2048. */
static const smartmoe_machine machines[] = {
    {.name = "8 V100 PCIe, hidden 1536",
     .profile = "v100_32",
     .cluster = {HOST(.name = "v100-pcie", .device = V100_PCIE,
                      .intra = {.kind = MOE_INTRA_PCIE,
                                .bandwidth_bytes_per_s = 15.75e9, /* PCIe 3.0 x16 */
                                .switch_devices = 4,
                                .uplink_bytes_per_s = 15.75e9,
                                .latency_s = 2e-6},
                      .nic = {.bandwidth_bytes_per_s = 6.25e9})},
     .hidden = 1536,
     .intra_efficiency = 0.8}, /* assumed: what large copies reach of the line rate */
    {.name = "8 V100 NVLink, hidden 1536",
     .profile = "v100_32",
     .cluster = {HOST(.name = "v100-nvlink", .device = V100_SXM,
                      .intra = {.kind = MOE_INTRA_NVLINK,
                                .bandwidth_bytes_per_s = 150e9,
                                .latency_s = 1e-6},
                      .nic = {.bandwidth_bytes_per_s = 12.5e9})},
     .hidden = 1536},
    {.name = "16 V100 NVLink, hidden 1536",
     .profile = "v100_32",
     .cluster = {.name = "v100-nvlink-2",
                 .hosts = 2,
                 .devices_per_host = 8,
                 .device = V100_SXM,
                 .intra = {.kind = MOE_INTRA_NVLINK,
                           .bandwidth_bytes_per_s = 150e9,
                           .latency_s = 1e-6},
                 .nic = {.bandwidth_bytes_per_s = 12.5e9, .latency_s = 5e-6},
                 .fabric = {.oversubscription = 1}},
     .hidden = 1536},
    {.name = "8 A100, hidden 2048",
     .profile = "a100_80",
     .cluster = {HOST(.name = "a100", .device = A100,
                      .intra = {.kind = MOE_INTRA_NVSWITCH,
                                .bandwidth_bytes_per_s = 300e9,
                                .latency_s = 0.95e-6},
                      .nic = {.bandwidth_bytes_per_s = 25e9})},
     .hidden = 2048},
    {.name = "16 A100, hidden 2048",
     .profile = "a100_80",
     .cluster = {.name = "a100-2",
                 .hosts = 2,
                 .devices_per_host = 8,
                 .device = A100,
                 .intra = {.kind = MOE_INTRA_NVSWITCH,
                           .bandwidth_bytes_per_s = 300e9,
                           .latency_s = 0.95e-6},
                 .nic = {.bandwidth_bytes_per_s = 25e9, .latency_s = 5e-6},
                 .fabric = {.oversubscription = 1}},
     .hidden = 2048},
};
enum { MACHINES = sizeof machines / sizeof *machines, SCRIPTED = 0 };

/* Static, exchanged every 10, every 100. */
static const char *const rule_names[RULES] = {"static", "every 10", "every 100"};
static const char *const logs[RULES] = {"measured/smartmoe/fig13_freq10",
                                        "measured/smartmoe/fig13_freq10",
                                        "measured/smartmoe/fig13_freq100"};
static const char *const keys[RULES] = {"FastMoE", "SmartMoE", "SmartMoE"};
static const char *const changed[RULES] = {NULL, "measured/smartmoe/fig13_changed_freq10",
                                           "measured/smartmoe/fig13_changed_freq100"};

typedef struct rule {
    smartmoe_series measured_ms;
    smartmoe_series changes; /* iterations at which the log says that the mapping changed */
    int every;               /* iterations; 0: never */
} rule;

typedef struct fig13 {
    moe_validation_outcome *outcome;
    const moe_npy *trace;
    rule rules[RULES];
    int step; /* samples from one that is compared to the next */
    smartmoe_seconds seconds[RULES][SAMPLES];
} fig13;

static bool is_change(const rule *r, int iteration)
{
    for (int i = 0; i < r->changes.count; i++) {
        if ((int)r->changes.values[i] == iteration)
            return true;
    }
    return false;
}

/* Of a device's experts the most loaded comes first: they are placed in that order. */
static void number_slots(const double *counts, smartmoe_mapping *mapping)
{
    for (int e = 0; e < SMARTMOE_EXPERTS; e++) {
        mapping->slot[e] = 0;
        for (int other = 0; other < SMARTMOE_EXPERTS; other++) {
            const bool before =
                counts[other] > counts[e] || (counts[other] == counts[e] && other < e);
            mapping->slot[e] += before && mapping->device[other] == mapping->device[e];
        }
    }
}

/* SmartMoE decides by rank 0's counts of the very iteration. */
static bool decide(const fig13 *f, moe_arena *arena, int sample, int devices,
                   smartmoe_mapping *mapping)
{
    double counts[SMARTMOE_EXPERTS];
    smartmoe_counts(f->trace, sample, LAYER, 1, counts);
    if (!moe_smartmoe_map(arena, counts, SMARTMOE_EXPERTS, devices, mapping->device))
        return false;
    number_slots(counts, mapping);
    return true;
}

/* How often the mapping changes by our own decisions, and how many of these changes the log has too: what tells
 * the number of devices without looking at any time. */
static void count_changes(const fig13 *f, const rule *r, const char *name, int devices)
{
    smartmoe_mapping mapping = smartmoe_start(devices);
    int ours = 0, common = 0;
    void *owner = moe_need(talloc_new(NULL));
    moe_arena *arena = moe_arena_create(owner);
    for (int sample = 0; sample < SAMPLES; sample++) {
        const int iteration = smartmoe_iteration(sample);
        if (iteration % r->every == 1 && decide(f, arena, sample, devices, &mapping)) {
            ours++;
            common += is_change(r, iteration);
        }
    }
    moe_validation_note(f->outcome,
                        "Fig. 13, %s, %d devices: the greedy mapping on rank 0's counts changes %d "
                        "times, in the log %d "
                        "times; %d of them are the same.",
                        name, devices, ours, r->changes.count, common);
    talloc_free(owner);
}

/* Follows one rule on one machine. A change is made when the log says so. */
static moe_status follow(fig13 *f, smartmoe_model *model, int which, moe_diag *diag)
{
    const rule *r = &f->rules[which];
    const int devices = smartmoe_model_devices(model);
    smartmoe_mapping mapping = smartmoe_start(devices);
    double counts[SMARTMOE_RANKS * SMARTMOE_EXPERTS];
    void *owner = moe_need(talloc_new(NULL));
    moe_arena *arena = moe_arena_create(owner);
    moe_status status = MOE_OK;
    for (int sample = 0; sample < SAMPLES && status == MOE_OK; sample++) {
        if (r->every > 0 && is_change(r, smartmoe_iteration(sample)))
            decide(f, arena, sample, devices, &mapping);
        if (sample % f->step != 0)
            continue;
        smartmoe_counts(f->trace, sample, LAYER, devices, counts);
        status = smartmoe_predict(model, counts, &mapping, &f->seconds[which][sample], diag);
    }
    talloc_free(owner);
    return status;
}

/* ---- comparisons ----------------------------------------------------------------------------- */

static void compare(const fig13 *f, const char *machine, int which, const char *how, int sample,
                    double predicted_s)
{
    const char *group = moe_need(
        talloc_asprintf(f->outcome, "Fig. 13, %s: %s, %s", machine, rule_names[which], how));
    const char *what =
        moe_need(talloc_asprintf(f->outcome, "iteration %d", smartmoe_iteration(sample)));
    moe_validation_compare(f->outcome, group, what, 1e3 * predicted_s,
                           f->rules[which].measured_ms.values[sample]);
}

static smartmoe_factors fit_static(const fig13 *f)
{
    double measured_s[SAMPLES];
    bool used[SAMPLES];
    for (int sample = 0; sample < SAMPLES; sample++) {
        measured_s[sample] = 1e-3 * f->rules[0].measured_ms.values[sample];
        used[sample] = sample % (2 * f->step) == 0;
    }
    return smartmoe_fit(f->seconds[0], measured_s, used, SAMPLES);
}

/* Factors of every second sample of the static runs, judged on the others and on the exchanging runs. */
static void compare_rule(const fig13 *f, const char *machine, int which,
                         const smartmoe_factors *factors)
{
    for (int sample = 0; sample < SAMPLES; sample += f->step) {
        const smartmoe_seconds *seconds = &f->seconds[which][sample];
        compare(f, machine, which, "nothing fitted", sample, seconds->total);
        if (which > 0 || sample % (2 * f->step) != 0)
            compare(f, machine, which, "three factors", sample, smartmoe_apply(factors, seconds));
    }
}

static double mean_ms(const fig13 *f, int which)
{
    double sum = 0;
    int count = 0;
    for (int sample = 0; sample < SAMPLES; sample += f->step, count++)
        sum += f->rules[which].measured_ms.values[sample];
    return sum / count;
}

static double mean_predicted_ms(const fig13 *f, int which)
{
    double sum = 0;
    int count = 0;
    for (int sample = 0; sample < SAMPLES; sample += f->step, count++)
        sum += 1e3 * f->seconds[which][sample].total;
    return sum / count;
}

static void say_gains(const fig13 *f, const char *who, double (*mean)(const fig13 *, int))
{
    for (int which = 1; which < RULES; which++) {
        const char *name = moe_need(talloc_asprintf(
            f->outcome, "Fig. 13, %s: static over exchanged %s", who, rule_names[which]));
        moe_validation_figure(f->outcome, name, mean(f, 0) / mean(f, which));
    }
}

static moe_status try_machine(fig13 *f, const smartmoe_machine *machine, double *constant_s,
                              moe_diag *diag)
{
    smartmoe_model *model = smartmoe_model_open(f->outcome, machine, diag);
    moe_status status = model != NULL ? MOE_OK : MOE_BAD_INPUT;
    memset(f->seconds, 0, sizeof f->seconds);
    for (int which = 0; which < RULES && status == MOE_OK; which++)
        status = follow(f, model, which, diag);
    if (status != MOE_OK)
        return status;
    const smartmoe_factors factors = fit_static(f);
    moe_validation_fitted(f->outcome,
                          "Fig. 13, %s, \"three factors\": expert seconds x %.3f, exchange seconds "
                          "x %.3f, plus %.2f ms "
                          "instead of all else; on every second sample of the static runs.",
                          machine->name, factors.experts, factors.exchange,
                          1e3 * factors.constant_s);
    for (int which = 0; which < RULES; which++)
        compare_rule(f, machine->name, which, &factors);
    say_gains(f, machine->name, mean_predicted_ms);
    *constant_s = factors.constant_s;
    return MOE_OK;
}

/* ---- data ------------------------------------------------------------------------------------ */

static bool read_rule(fig13 *f, const moe_validation_options *options, int which, moe_diag *diag)
{
    rule *r = &f->rules[which];
    const char *log = moe_validation_file(f->outcome, options, logs[which]);
    const char *changes =
        changed[which] != NULL ? moe_validation_file(f->outcome, options, changed[which]) : NULL;
    if (log == NULL || (changed[which] != NULL && changes == NULL))
        return true; /* skipped */
    r->every = which == 0 ? 0 : which == 1 ? 10 : 100;
    r->measured_ms = smartmoe_read_series(f->outcome, log, keys[which], diag);
    if (r->measured_ms.count > 0 && r->measured_ms.count != SAMPLES)
        moe_diag_error(diag, (moe_where){0}, "%s: %d values; expected %d", log,
                       r->measured_ms.count, SAMPLES);
    if (changes != NULL)
        r->changes = smartmoe_read_column(f->outcome, changes, diag);
    return r->measured_ms.count == SAMPLES && (changes == NULL || r->changes.count > 0);
}

moe_status smartmoe_fig13(moe_validation_outcome *outcome, const moe_validation_options *options,
                          const moe_npy *trace, double *constant_s, moe_diag *diag)
{
    fig13 *f = moe_need(talloc_zero(outcome, fig13));
    f->outcome = outcome;
    f->trace = trace;
    f->step = options->quick ? QUICK_EVERY : 1;
    for (int which = 0; which < RULES; which++) {
        if (!read_rule(f, options, which, diag))
            return MOE_BAD_INPUT;
        if (moe_validation_skipped(outcome) != NULL)
            return MOE_OK;
    }
    say_gains(f, "measured", mean_ms);
    for (int which = 1; which < RULES; which++) {
        count_changes(f, &f->rules[which], rule_names[which], 8);
        count_changes(f, &f->rules[which], rule_names[which], 16);
    }
    moe_status status = MOE_OK;
    for (int m = 0; m < MACHINES && status == MOE_OK; m++) {
        double ignored;
        status = try_machine(f, &machines[m], m == SCRIPTED ? constant_s : &ignored, diag);
    }
    return status;
}
