#include "reports/timeline_summarize.h"

#include "configs/base/memory.h"
#include "configs/base/units.h"
#include "configs/base/utf8.h"
#include "models/program.h"
#include "reports/timeline_file.h"
#include "reports/timeline_reader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { NAME_BYTES = 48, LARGEST = 10, MAX_POLICIES = 1000, MAX_ENTRIES = 1 << 22 };

/* Time on the critical path, of one event and later of all of its kind. */
typedef struct entry {
    int policy;
    int part; /* moe_part */
    int layer;
    int device;
    int stream;
    double us;
    char name[NAME_BYTES];
} entry;

typedef struct policy_sum {
    const char *name;
    int64_t steps;
    double us;
} policy_sum;

typedef struct summary {
    json_t *header; /* owns names */
    int64_t devices;
    int64_t policy_count;
    int64_t stream_count;
    policy_sum *policies;
    entry *entries;
    size_t count;
    size_t capacity;
} summary;

static int release(summary *s)
{
    json_decref(s->header);
    free(s->entries);
    return 0;
}

/* --- reading ------------------------------------------------------------------------------------- */

static bool are_names(const json_t *array, size_t most)
{
    size_t i;
    json_t *name;
    if (!json_is_array(array) || json_array_size(array) == 0 || json_array_size(array) > most)
        return false;
    json_array_foreach((json_t *)array, i, name)
    {
        const char *text = json_string_value(name);
        if (text == NULL || !moe_utf8_is_printable(text, 200))
            return false;
    }
    return true;
}

static const char *take_header(void *context, const json_t *other)
{
    summary *s = context;
    const char *format = json_string_value(json_object_get(other, "format"));
    const json_t *policies = json_object_get(other, "policies");
    const json_t *streams = json_object_get(other, "streams");
    if (format == NULL || strcmp(format, "moeplan-timeline") != 0)
        return "otherData.format is not \"moeplan-timeline\"; expected a file of `moeplan simulate "
               "--timeline`";
    if (json_integer_value(json_object_get(other, "version")) != MOE_TIMELINE_VERSION)
        return "otherData.version is not 1, the one that this program reads";
    s->devices = json_integer_value(json_object_get(other, "devices"));
    if (s->devices < 1 || s->devices > 1 << 16)
        return "otherData.devices: expected an integer from 1 to 65536";
    if (!are_names(policies, MAX_POLICIES) || !are_names(streams, 64))
        return "otherData: expected the names of policies and streams";
    s->header = json_incref((json_t *)other);
    s->policy_count = (int64_t)json_array_size(policies);
    s->stream_count = (int64_t)json_array_size(streams);
    s->policies = moe_need(talloc_zero_array(s, policy_sum, (unsigned)s->policy_count));
    for (int64_t p = 0; p < s->policy_count; p++)
        s->policies[p].name = json_string_value(json_array_get(policies, (size_t)p));
    return NULL;
}

static int find_part(const char *name)
{
    for (int part = 0; name != NULL && part < MOE_WAIT; part++)
        if (strcmp(name, moe_part_names[part]) == 0)
            return part;
    return -1;
}

static bool is_duration(const json_t *value)
{
    double us = json_number_value(value);
    return json_is_number(value) && us >= 0 && us < 1e15;
}

static const char *add_entry(summary *s, const entry *added)
{
    if (s->count == MAX_ENTRIES)
        return "more events on critical paths than this program keeps";
    if (s->count == s->capacity) {
        s->capacity = s->capacity > 0 ? 2 * s->capacity : 1024;
        s->entries = moe_need(realloc(s->entries, s->capacity * sizeof *s->entries));
    }
    s->entries[s->count++] = *added;
    return NULL;
}

static const char *take_step(summary *s, int64_t policy, const json_t *event)
{
    const json_t *duration = json_object_get(event, "dur");
    if (!is_duration(duration))
        return "a step without a duration";
    s->policies[policy].steps++;
    s->policies[policy].us += json_number_value(duration);
    return NULL;
}

static const char *take_critical(summary *s, int64_t policy, int64_t device, const json_t *event)
{
    const json_t *arguments = json_object_get(event, "args");
    const json_t *layer = json_object_get(arguments, "layer");
    const json_t *us = json_object_get(arguments, "critical_us");
    const char *name = json_string_value(json_object_get(event, "name"));
    int64_t thread = json_integer_value(json_object_get(event, "tid")); /* 0: none or no number */
    int64_t layer_number = layer != NULL ? json_integer_value(layer) : -1;
    entry added = {.policy = (int)policy,
                   .part = find_part(json_string_value(json_object_get(arguments, "part"))),
                   .layer = (int)layer_number,
                   .device = (int)device,
                   .stream = (int)thread - 1,
                   .us = json_number_value(us)};
    if (name == NULL || !moe_utf8_is_printable(name, NAME_BYTES - 1))
        return "an event whose name is no short text";
    if (thread < 1 || thread > s->stream_count)
        return "an event whose tid is none of the streams";
    if (layer != NULL && (!json_is_integer(layer) || layer_number < 0 || layer_number > 1 << 20))
        return "an event whose args.layer is no layer";
    if (added.part < 0)
        return "an event whose args.part is none of a breakdown";
    if (!is_duration(us))
        return "an event on the critical path without args.critical_us";
    memcpy(added.name, name, strlen(name) + 1);
    return add_entry(s, &added);
}

static const char *take_event(void *context, const json_t *event)
{
    summary *s = context;
    const char *phase = json_string_value(json_object_get(event, "ph"));
    const json_t *pid = json_object_get(event, "pid");
    if (phase == NULL || !json_is_integer(pid))
        return "an event without ph or pid";
    int64_t process = json_integer_value(pid);
    if (process < 1 || process > s->policy_count * (s->devices + 1))
        return "an event whose pid is none of the policies' devices";
    process--;
    if (strcmp(phase, "X") != 0)
        return NULL;
    int64_t policy = process / (s->devices + 1), device = process % (s->devices + 1) - 1;
    if (device < 0)
        return take_step(s, policy, event);
    if (!json_is_true(json_object_get(json_object_get(event, "args"), "critical")))
        return NULL;
    return take_critical(s, policy, device, event);
}

/* --- adding up ----------------------------------------------------------------------------------- */

static int compare_kinds(const void *left, const void *right)
{
    const entry *a = left, *b = right;
    const int differences[] = {a->policy - b->policy, strcmp(a->name, b->name), a->layer - b->layer,
                               a->device - b->device, a->stream - b->stream,    a->part - b->part};
    for (size_t i = 0; i < sizeof differences / sizeof *differences; i++)
        if (differences[i] != 0)
            return differences[i];
    return 0;
}

static int compare_sizes(const void *left, const void *right)
{
    const entry *a = left, *b = right;
    if (a->policy != b->policy)
        return a->policy - b->policy;
    if (a->us != b->us)
        return a->us < b->us ? 1 : -1;
    return compare_kinds(a, b);
}

/* One entry a kind, the largest first. */
static void add_up(summary *s)
{
    size_t kept = 0;
    if (s->count == 0)
        return;
    qsort(s->entries, s->count, sizeof *s->entries, compare_kinds);
    for (size_t i = 1; i < s->count; i++) {
        if (compare_kinds(&s->entries[kept], &s->entries[i]) == 0)
            s->entries[kept].us += s->entries[i].us;
        else
            s->entries[++kept] = s->entries[i];
    }
    s->count = kept + 1;
    qsort(s->entries, s->count, sizeof *s->entries, compare_sizes);
}

static json_t *entry_json(const summary *s, const entry *of)
{
    const policy_sum *policy = &s->policies[of->policy];
    const json_t *streams = json_object_get(s->header, "streams");
    return json_pack(
        "{s:s, s:s, s:o, s:i, s:O, s:f, s:f}", "operation", of->name, "part",
        moe_part_names[of->part], "layer", of->layer < 0 ? json_null() : json_integer(of->layer),
        "device", of->device, "stream", json_array_get(streams, (size_t)of->stream), "seconds",
        of->us / 1e6 / (double)policy->steps, "share", policy->us > 0 ? of->us / policy->us : 0);
}

/* The entries from `first` on that belong to the policy. */
static json_t *policy_json(const summary *s, int policy, size_t first, size_t *end)
{
    const policy_sum *of = &s->policies[policy];
    double parts[MOE_PARTS] = {0};
    json_t *largest = json_array(), *by_part = json_object();
    size_t i = first;
    for (; i < s->count && s->entries[i].policy == policy; i++) {
        parts[s->entries[i].part] += s->entries[i].us / 1e6 / (double)of->steps;
        if (i - first < LARGEST)
            json_array_append_new(largest, entry_json(s, &s->entries[i]));
    }
    for (int part = 0; part < MOE_WAIT; part++)
        json_object_set_new(by_part, moe_part_names[part], json_real(parts[part]));
    *end = i;
    return json_pack("{s:s, s:I, s:f, s:o, s:I, s:o}", "name", of->name, "steps",
                     (json_int_t)of->steps, "step_time_s", of->us / 1e6 / (double)of->steps,
                     "critical_path_s", by_part, "parts", (json_int_t)(i - first), "largest",
                     largest);
}

static json_t *summary_json(const summary *s, const char *path)
{
    json_t *policies = json_array();
    size_t at = 0;
    for (int p = 0; p < s->policy_count; p++)
        json_array_append_new(policies, policy_json(s, p, at, &at));
    return json_pack("{s:s, s:I, s:o}", "file", path, "devices", (json_int_t)s->devices, "policies",
                     policies);
}

json_t *moe_timeline_summarize(const char *path, moe_diag *diag)
{
    json_t *json = NULL;
    summary *s = moe_need(talloc_zero(NULL, summary));
    talloc_set_destructor(s, release);
    const moe_timeline_visitor visitor = {take_header, take_event, s};
    if (moe_timeline_read(path, &visitor, diag) == MOE_OK) {
        const char *empty = NULL;
        for (int64_t p = 0; p < s->policy_count; p++)
            if (s->policies[p].steps == 0)
                empty = s->policies[p].name;
        add_up(s);
        if (empty != NULL)
            moe_diag_error(diag, (moe_where){moe_diag_source(diag, path, NULL, 0), 0, 0},
                           "no step of policy \"%s\"; expected at least one", empty);
        else
            json = summary_json(s, path);
    }
    talloc_free(s);
    return json;
}

/* --- printing ------------------------------------------------------------------------------------ */

static double real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void print_entry(const json_t *entry_object, FILE *stream)
{
    const json_t *layer = json_object_get(entry_object, "layer");
    char layer_text[24] = "-", time[48];
    if (json_is_integer(layer))
        snprintf(layer_text, sizeof layer_text, "%lld", (long long)json_integer_value(layer));
    moe_units_format_short(real(entry_object, "seconds"), MOE_SECONDS, time);
    fprintf(stream, "  %-28s %5s %7.0f  %-10s %10s %6.1f %%\n", text(entry_object, "operation"),
            layer_text, real(entry_object, "device"), text(entry_object, "stream"), time,
            100 * real(entry_object, "share"));
}

static void print_parts(const json_t *policy, FILE *stream)
{
    const char *part, *comma = "";
    json_t *seconds;
    fputs("  by kind: ", stream);
    json_object_foreach(json_object_get(policy, "critical_path_s"), part, seconds)
    {
        double share = json_number_value(seconds) / real(policy, "step_time_s");
        if (share < 0.0005 || !isfinite(share))
            continue;
        fprintf(stream, "%s%s %.1f %%", comma, part, 100 * share);
        comma = ", ";
    }
    fputc('\n', stream);
}

static void print_policy(const json_t *policy, FILE *stream)
{
    const json_t *largest = json_object_get(policy, "largest");
    char time[48];
    size_t i;
    json_t *item;
    moe_units_format_short(real(policy, "step_time_s"), MOE_SECONDS, time);
    fprintf(stream,
            "\n%s: %s a step (mean of %.0f); largest %zu of %.0f parts of the critical path\n",
            text(policy, "name"), time, real(policy, "steps"), json_array_size(largest),
            real(policy, "parts"));
    fprintf(stream, "  %-28s %5s %7s  %-10s %10s %8s\n", "operation", "layer", "device", "stream",
            "a step", "share");
    json_array_foreach((json_t *)largest, i, item) print_entry(item, stream);
    print_parts(policy, stream);
}

void moe_timeline_print_summary(const json_t *summary_object, FILE *stream)
{
    size_t i;
    json_t *policy;
    fprintf(stream, "timeline %s: %.0f devices\n", text(summary_object, "file"),
            real(summary_object, "devices"));
    json_array_foreach(json_object_get(summary_object, "policies"), i, policy)
        print_policy(policy, stream);
}
