/* The files of SmartMoE's artifact. */
#include "reports/validation/smartmoe.h"

#include "configs/base/input.h"
#include "configs/base/memory.h"
#include "traces/mapped_file.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { LOG_LIMIT_BYTES = 1 << 20, SERIES_LIMIT = 100000, TRACE_LIMIT_BYTES = 1 << 28 };

/* ---- the trace ------------------------------------------------------------------------------- */

static bool has_shape(const moe_npy *array)
{
    static const int64_t shape[] = {SMARTMOE_ITERATIONS, SMARTMOE_LAYERS, SMARTMOE_MICRO_BATCHES,
                                    SMARTMOE_RANKS, SMARTMOE_EXPERTS};
    return array->rank == 5 && memcmp(array->shape, shape, sizeof shape) == 0;
}

const moe_npy *smartmoe_read_trace(void *owner, const char *path, moe_diag *diag)
{
    moe_mapped_file *file = moe_mapped_file_open(owner, path, (moe_where){0}, diag);
    moe_npz *archive =
        file != NULL ? moe_npz_open(owner, file->bytes, file->length, file->at, diag) : NULL;
    moe_npy *array = moe_need(talloc_zero(owner, moe_npy));
    if (archive == NULL || !moe_npz_read(archive, "counts", TRACE_LIMIT_BYTES, array, diag))
        return NULL;
    if (!has_shape(array)) {
        moe_diag_error(diag, file->at, "\"counts\" has another shape than [%d][%d][%d][%d][%d]",
                       SMARTMOE_ITERATIONS, SMARTMOE_LAYERS, SMARTMOE_MICRO_BATCHES, SMARTMOE_RANKS,
                       SMARTMOE_EXPERTS);
        return NULL;
    }
    return array;
}

void smartmoe_counts(const moe_npy *trace, int iteration, int layer, int ranks, double *counts)
{
    uint32_t values[SMARTMOE_RANKS * SMARTMOE_EXPERTS];
    const int64_t first = ((int64_t)iteration * SMARTMOE_LAYERS + layer) * SMARTMOE_MICRO_BATCHES *
                          SMARTMOE_RANKS * SMARTMOE_EXPERTS;
    const size_t count = (size_t)ranks * SMARTMOE_EXPERTS;
    moe_npy_read(trace, first, count, values);
    for (size_t i = 0; i < count; i++)
        counts[i] = values[i];
}

/* ---- logs ------------------------------------------------------------------------------------ */

static moe_where in_file(moe_diag *diag, const char *path)
{
    return (moe_where){.source = moe_diag_source(diag, path, NULL, 0)};
}

/* The value of a list's every item; false where one is no positive number. */
static bool take_numbers(const json_t *list, double *values)
{
    size_t index;
    const json_t *item;
    json_array_foreach(list, index, item)
    {
        values[index] = json_number_value(item);
        if (!json_is_number(item) || !(values[index] > 0) || !isfinite(values[index]))
            return false;
    }
    return true;
}

static smartmoe_series take_list(void *owner, const json_t *list, const char *path, const char *key,
                                 moe_diag *diag)
{
    const size_t count = json_array_size(list);
    double *values =
        moe_need(talloc_array(owner, double, (unsigned)(count < SERIES_LIMIT ? count : 0) + 1));
    if (count == 0 || count > SERIES_LIMIT || !take_numbers(list, values)) {
        moe_diag_error(diag, in_file(diag, path), "\"%s\" is no list of 1 to %d positive numbers",
                       key, SERIES_LIMIT);
        return (smartmoe_series){0};
    }
    return (smartmoe_series){values, (int)count};
}

smartmoe_series smartmoe_read_series(void *owner, const char *path, const char *key, moe_diag *diag)
{
    size_t length;
    const char *text = moe_input_read(owner, path, LOG_LIMIT_BYTES, &length, (moe_where){0}, diag);
    if (text == NULL)
        return (smartmoe_series){0};
    const char *object = strchr(text, '{');
    json_error_t error;
    json_t *json = object != NULL ? json_loads(object, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (json == NULL) {
        moe_diag_error(diag, in_file(diag, path), "no JSON object in this log");
        return (smartmoe_series){0};
    }
    const smartmoe_series series = take_list(owner, json_object_get(json, key), path, key, diag);
    json_decref(json);
    return series;
}

smartmoe_series smartmoe_read_column(void *owner, const char *path, moe_diag *diag)
{
    size_t length;
    const char *at = moe_input_read(owner, path, LOG_LIMIT_BYTES, &length, (moe_where){0}, diag);
    double *values = moe_need(talloc_array(owner, double, LOG_LIMIT_BYTES / 2));
    smartmoe_series series = {values, 0};
    while (at != NULL && *at != '\0' && series.count < LOG_LIMIT_BYTES / 2) {
        char *end;
        values[series.count] = strtod(at, &end);
        if (end == at || (*end != '\n' && *end != '\0') || !(values[series.count] > 0)) {
            moe_diag_error(diag, in_file(diag, path), "line %d is no positive number",
                           series.count + 1);
            return (smartmoe_series){0};
        }
        series.count++;
        at = *end == '\n' ? end + 1 : end;
    }
    return series;
}
