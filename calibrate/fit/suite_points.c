#include "calibrate/fit/suite_points.h"

#include "configs/base/memory.h"
#include <stdlib.h>
#include <talloc.h>

static int destroy(moe_suite_points *suite)
{
    for (int kind = 0; kind < MOE_SAMPLE_KINDS; kind++)
        json_decref(suite->points[kind]);
    json_decref(suite->known);
    return 0;
}

moe_suite_points *moe_suite_points_create(void *owner, double limit_bytes)
{
    moe_suite_points *suite = moe_need(talloc_zero(owner, moe_suite_points));
    suite->limit_bytes = limit_bytes;
    suite->known = moe_need(json_object());
    for (int kind = 0; kind < MOE_SAMPLE_KINDS; kind++)
        suite->points[kind] = moe_need(json_array());
    talloc_set_destructor(suite, destroy);
    return suite;
}

/* Whether a point with these keys was not there yet; now it is. */
static bool is_new(moe_suite_points *suite, const json_t *point)
{
    char *text = moe_need(json_dumps(point, JSON_COMPACT | JSON_SORT_KEYS));
    bool new = json_object_get(suite->known, text) == NULL;
    if (new)
        json_object_set_new(suite->known, text, json_true());
    free(text);
    return new;
}

/* Keys in the order of the table in SAMPLES.md, "kind" first. */
static json_t *with_kind(moe_sample_kind kind, json_t *point)
{
    json_t *whole = moe_need(json_pack("{s:s}", "kind", moe_sample_kind_names[kind]));
    json_object_update(whole, point);
    json_decref(point);
    return whole;
}

void moe_suite_points_add(moe_suite_points *suite, moe_sample_kind kind, json_t *point,
                          double bytes, double flop)
{
    json_t *whole = with_kind(kind, moe_need(point));
    if (!is_new(suite, whole)) {
        json_decref(whole);
        return;
    }
    if (bytes > suite->limit_bytes) {
        suite->left_out++;
        json_decref(whole);
        return;
    }
    moe_suite_tally *tally = &suite->tallies[kind];
    tally->points++;
    tally->bytes += bytes;
    tally->flop += flop;
    if (bytes > suite->largest_bytes)
        suite->largest_bytes = bytes;
    json_array_append_new(suite->points[kind], whole);
}

static void write_name(const char *name, FILE *stream)
{
    json_t *text = json_string(name);
    json_dumpf(text ? text : json_null(), stream, JSON_ENCODE_ANY);
    json_decref(text);
}

void moe_suite_points_write(const moe_suite_points *suite, const char *name, FILE *stream)
{
    const char *separator = "\n  ";
    fputs("{\"format\": \"moecal-suite\", \"version\": 1, \"name\": ", stream);
    write_name(name, stream);
    fputs(", \"points\": [", stream);
    for (int kind = 0; kind < MOE_SAMPLE_KINDS; kind++) {
        size_t index;
        json_t *point;
        json_array_foreach(suite->points[kind], index, point)
        {
            fputs(separator, stream);
            json_dumpf(point, stream, 0);
            separator = ",\n  ";
        }
    }
    fputs("]}\n", stream);
}
