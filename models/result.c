#include "models/result.h"

#include "configs/base/memory.h"
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

/* --- figures ---------------------------------------------------------------------------------- */

static double member(const moe_step_result *step, size_t offset)
{
    return *(const double *)((const char *)step + offset);
}

static double sum_of(const moe_result *result, size_t offset)
{
    double sum = 0;
    for (int64_t i = 0; i < result->steps; i++) {
        sum += member(&result->series[i], offset);
    }
    return sum;
}

double moe_result_mean(const moe_result *result, size_t member_offset)
{
    return result->steps > 0 ? sum_of(result, member_offset) / (double)result->steps : 0;
}

static double mean_step_s(const moe_result *result)
{
    return moe_result_mean(result, offsetof(moe_step_result, step_s));
}

moe_summary moe_result_step_time(const moe_result *result)
{
    if (result->steps <= 0) {
        return (moe_summary){0};
    }
    size_t count = (size_t)result->steps;
    double *sorted = moe_need(malloc(count * sizeof *sorted));
    for (size_t i = 0; i < count; i++) {
        sorted[i] = result->series[i].step_s;
    }
    gsl_sort(sorted, 1, count);
    moe_summary summary = {
        .mean = mean_step_s(result),
        .p50 = gsl_stats_quantile_from_sorted_data(sorted, 1, count, 0.5),
        .p95 = gsl_stats_quantile_from_sorted_data(sorted, 1, count, 0.95),
        .max = sorted[count - 1],
    };
    free(sorted);
    return summary;
}

double moe_result_tokens_per_s(const moe_result *result)
{
    double seconds = sum_of(result, offsetof(moe_step_result, step_s));
    return seconds > 0 ? sum_of(result, offsetof(moe_step_result, tokens)) / seconds : 0;
}

double moe_result_saved_factor(const moe_result *result)
{
    double assignments = sum_of(result, offsetof(moe_step_result, crossing_assignments));
    double tokens = sum_of(result, offsetof(moe_step_result, crossing_tokens));
    return tokens > 0 ? assignments / tokens : 1;
}

int64_t moe_result_peak_step(const moe_result *result)
{
    int64_t peak = 0;
    for (int64_t i = 1; i < result->steps; i++) {
        if (result->series[i].memory.peak > result->series[peak].memory.peak) {
            peak = i;
        }
    }
    return peak;
}

bool moe_result_fits(const moe_result *result)
{
    for (int64_t i = 0; i < result->steps; i++) {
        if (result->series[i].memory.peak > result->series[i].memory.capacity) {
            return false;
        }
    }
    return true;
}

static void mean_parts(const moe_result *result, size_t offset, double parts[static MOE_PARTS])
{
    for (int part = 0; part < MOE_PARTS; part++) {
        parts[part] = moe_result_mean(result, offset + (size_t)part * sizeof *parts);
    }
}

void moe_result_exposed(const moe_result *result, double parts[static MOE_PARTS])
{
    mean_parts(result, offsetof(moe_step_result, exposed_s), parts);
}

void moe_result_critical(const moe_result *result, double parts[static MOE_PARTS])
{
    mean_parts(result, offsetof(moe_step_result, critical_s), parts);
}

/* --- JSON ------------------------------------------------------------------------------------- */

/* A key and the member of a struct of doubles that it shows. */
typedef struct json_key {
    const char *key;
    size_t offset;
} json_key;

#define STEP_KEY(key, member)                                                                      \
    {                                                                                              \
        key, offsetof(moe_step_result, member)                                                     \
    }
#define MEMORY_KEY(member)                                                                         \
    {                                                                                              \
#member, offsetof(moe_memory, member)                                                      \
    }

static const json_key imbalance_keys[] = {STEP_KEY("expert_max_over_mean", expert_imbalance),
                                          STEP_KEY("device_max_over_mean", device_imbalance),
                                          {NULL, 0}};
static const json_key bytes_keys[] = {
    STEP_KEY("intra_host", intra_host_bytes), STEP_KEY("inter_host", inter_host_bytes), {NULL, 0}};
static const json_key placement_keys[] = {STEP_KEY("local_share", local_share),
                                          STEP_KEY("materialized_mean", materialized),
                                          STEP_KEY("calibrations_per_step", calibrations),
                                          STEP_KEY("moved_bytes", moved_bytes),
                                          {NULL, 0}};
static const json_key memory_keys[] = {MEMORY_KEY(parameters),  MEMORY_KEY(gradients),
                                       MEMORY_KEY(optimizer),   MEMORY_KEY(materialized),
                                       MEMORY_KEY(activations), MEMORY_KEY(buffers),
                                       MEMORY_KEY(reserved),    MEMORY_KEY(peak),
                                       MEMORY_KEY(capacity),    {NULL, 0}};

/* JSON knows no infinities: what is not finite shows as null, not as a missing key. */
static void set_real(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, isfinite(value) ? json_real(value) : json_null());
}

static json_t *means_json(const moe_result *result, const json_key *keys)
{
    json_t *object = json_object();
    for (; keys->key != NULL; keys++) {
        set_real(object, keys->key, moe_result_mean(result, keys->offset));
    }
    return object;
}

static json_t *parts_json(const double parts[static MOE_PARTS], int count)
{
    json_t *object = json_object();
    for (int part = 0; part < count; part++) {
        set_real(object, moe_part_names[part], parts[part]);
    }
    return object;
}

static json_t *step_time_json(const moe_result *result)
{
    moe_summary summary = moe_result_step_time(result);
    json_t *object = json_object();
    set_real(object, "mean", summary.mean);
    set_real(object, "p50", summary.p50);
    set_real(object, "p95", summary.p95);
    set_real(object, "max", summary.max);
    json_t *series = json_array();
    for (int64_t i = 0; i < result->steps; i++) {
        json_array_append_new(series, json_real(result->series[i].step_s));
    }
    json_object_set_new(object, "series", series);
    return object;
}

/* Training has no cache, and its JSON no key for one. */
static json_t *memory_json(const moe_memory *memory)
{
    json_t *object = json_object();
    if (memory->kv_cache > 0) {
        set_real(object, "kv_cache", memory->kv_cache);
    }
    for (const json_key *key = memory_keys; key->key != NULL; key++) {
        set_real(object, key->key, *(const double *)((const char *)memory + key->offset));
    }
    return object;
}

static void set_memory(json_t *object, const moe_result *result)
{
    static const moe_step_result none;
    int64_t peak = moe_result_peak_step(result);
    const moe_step_result *step = result->steps > 0 ? &result->series[peak] : &none;
    json_object_set_new(object, "memory_bytes", memory_json(&step->memory));
    json_object_set_new(
        object, "memory_peak_at",
        json_pack("{s:I, s:i}", "step", (json_int_t)peak, "device", step->memory_device));
    json_object_set_new(object, "fits", json_boolean(moe_result_fits(result)));
    if (result->memory_advice != NULL) {
        json_object_set_new(object, "memory_advice", json_string(result->memory_advice));
    }
}

static void set_wait(json_t *object, const moe_result *result, const double parts[])
{
    if (result->steps == 0 || !result->series[0].stragglers) {
        return;
    }
    double hardware_s = moe_result_mean(result, offsetof(moe_step_result, hardware_wait_s));
    json_object_set_new(
        object, "wait_s",
        json_pack("{s:f, s:f}", "routing", parts[MOE_WAIT] - hardware_s, "hardware", hardware_s));
}

json_t *moe_result_json(const moe_result *result, const moe_result *first)
{
    double parts[MOE_PARTS];
    double mean_s = mean_step_s(result);
    json_t *object = json_object();
    json_object_set_new(object, "name", json_string(result->name));
    json_object_set_new(object, "step_time_s", step_time_json(result));
    set_real(object, "speedup", mean_s > 0 ? mean_step_s(first) / mean_s : 0);
    set_real(object, "tokens_per_s", moe_result_tokens_per_s(result));
    moe_result_exposed(result, parts);
    json_object_set_new(object, "breakdown_s", parts_json(parts, MOE_PARTS));
    set_wait(object, result, parts);
    moe_result_critical(result, parts);
    json_object_set_new(object, "critical_path_s", parts_json(parts, MOE_WAIT));
    json_object_set_new(object, "imbalance", means_json(result, imbalance_keys));
    set_memory(object, result);
    json_object_set_new(object, "bytes_moved", means_json(result, bytes_keys));
    json_object_set_new(object, "placement", means_json(result, placement_keys));
    if (result->series[0].bound_s > 0)
        json_object_set_new(object, "bound_s",
                            json_real(moe_result_mean(result, offsetof(moe_step_result, bound_s))));
    return object;
}
