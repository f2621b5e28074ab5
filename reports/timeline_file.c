/* The file as a whole: what stands before and after the events, and the run that yields them. */
#include "reports/timeline_file.h"

#include "configs/base/memory.h"
#include "reports/report.h"
#include "reports/timeline_events.h"
#include "sim/workers.h"

#include <string.h>
#include <talloc.h>

typedef struct timeline_writer {
    const moe_binding *binding;
    FILE *stream;
    const int *chosen; /* [count], each once */
    int count;
    int64_t steps;
    double *begins_s; /* [count][steps] */
    int *failed;      /* shared with the process that writes events */
} timeline_writer;

/* Numbers of flows: a step has fewer than that. */
static const int64_t flows_a_step = (int64_t)1 << 34;

static int64_t first_pid(const timeline_writer *writer, int policy)
{
    return (int64_t)policy * (writer->binding->cluster->devices + 1) + 1;
}

static const char *name_of(const timeline_writer *writer, int policy)
{
    const moe_policy_use *uses = writer->binding->scenario->policies.items;
    return uses[writer->chosen[policy]].name;
}

/* --- before the events --------------------------------------------------------------------------- */

static json_t *texts_json(const char *const *texts)
{
    json_t *array = json_array();
    for (; *texts != NULL; texts++)
        json_array_append_new(array, json_string(*texts));
    return array;
}

static void put_header(const timeline_writer *writer, const moe_run *run)
{
    json_t *report = moe_report_json(writer->binding, run);
    json_t *names = json_array();
    for (int p = 0; p < writer->count; p++)
        json_array_append_new(names, json_string(name_of(writer, p)));
    json_t *other = json_pack(
        "{s:s, s:i, s:o, s:i, s:o, s:I, s:O, s:O, s:O}", "format", "moeplan-timeline", "version",
        MOE_TIMELINE_VERSION, "policies", names, "devices", writer->binding->cluster->devices,
        "streams", texts_json(moe_timeline_stream_names), "steps", (json_int_t)writer->steps,
        "cluster", json_object_get(report, "cluster"), "trace", json_object_get(report, "trace"),
        "provenance", json_object_get(report, "provenance"));
    fputs("{\"displayTimeUnit\":\"ns\",\"otherData\":", writer->stream);
    json_dumpf(other, writer->stream, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(other);
    json_decref(report);
}

/* Names and order of a process or thread. */
static void put_name(const timeline_writer *writer, const char *of, int64_t pid, int tid,
                     const char *name)
{
    json_t *text = json_string(name);
    fprintf(writer->stream,
            "%s\n{\"ph\":\"M\",\"name\":\"%s_name\",\"pid\":%lld,\"tid\":%d,"
            "\"args\":{\"name\":",
            pid == 1 && tid == 0 ? "" : ",", of, (long long)pid, tid);
    json_dumpf(text, writer->stream, JSON_ENCODE_ANY);
    fprintf(writer->stream,
            "}},\n{\"ph\":\"M\",\"name\":\"%s_sort_index\",\"pid\":%lld,\"tid\":%d,"
            "\"args\":{\"sort_index\":%lld}}",
            of, (long long)pid, tid, (long long)(tid > 0 ? tid : pid));
    json_decref(text);
}

static void put_names(const timeline_writer *writer, int policy)
{
    int64_t pid = first_pid(writer, policy);
    put_name(writer, "process", pid, 0, name_of(writer, policy));
    put_name(writer, "thread", pid, 1, "steps");
    for (int d = 0; d < writer->binding->cluster->devices; d++) {
        char *name = moe_need(talloc_asprintf(NULL, "%s: device %d", name_of(writer, policy), d));
        put_name(writer, "process", pid + 1 + d, 0, name);
        for (int s = 0; s < MOE_STREAMS; s++)
            put_name(writer, "thread", pid + 1 + d, 1 + s, moe_timeline_stream_names[s]);
        talloc_free(name);
    }
}

/* --- events -------------------------------------------------------------------------------------- */

static void put_step(const timeline_writer *writer, const moe_timeline_step *step,
                     int64_t iteration)
{
    char name[48];
    int64_t begin = moe_timeline_tick(step, 0);
    snprintf(name, sizeof name, "step %lld", (long long)iteration);
    moe_timeline_put_event(step->stream, "i", name, step->pid, 1, begin);
    fputs(",\"s\":\"p\"}", step->stream);
    moe_timeline_put_event(step->stream, "X", name, step->pid, 1, begin);
    moe_timeline_put_time(step->stream, "dur",
                          moe_timeline_tick(step, step->timeline->step_s) - begin);
    fprintf(step->stream, ",\"args\":{\"iteration\":%lld}}",
            (long long)moe_routing_recorded_iteration(writer->binding->routing, iteration));
}

/* In the process that simulates; it leaves without flushing, so this does. */
static void write_step(void *context, int policy, int64_t iteration, const moe_program *program,
                       const moe_timeline *timeline)
{
    const timeline_writer *writer = context;
    int at = 0;
    while (writer->chosen[at] != policy)
        at++;
    int64_t index = at * writer->steps + iteration;
    const moe_timeline_step step = {.stream = writer->stream,
                                    .program = program,
                                    .timeline = timeline,
                                    .offset_s = writer->begins_s[index],
                                    .pid = first_pid(writer, at),
                                    .flow = index * flows_a_step};
    put_step(writer, &step, iteration);
    moe_timeline_put_operations(&step);
    moe_timeline_put_flows(&step);
    moe_timeline_put_counters(&step);
    if (fflush(writer->stream) != 0 || ferror(writer->stream))
        *writer->failed = 1;
}

/* --- all together -------------------------------------------------------------------------------- */

/* A policy that was asked for twice is shown once. */
static int each_once(const int *chosen, int count, int *unique)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        bool known = false;
        for (int k = 0; k < kept; k++)
            known = known || unique[k] == chosen[i];
        if (!known)
            unique[kept++] = chosen[i];
    }
    return kept;
}

static const moe_result *result_of(const moe_run *run, const int *chosen, int policy)
{
    int p = 0;
    while (chosen[p] != policy)
        p++;
    return &run->policies[p].result;
}

static void find_beginnings(timeline_writer *writer, const moe_run *run, const int *chosen)
{
    for (int p = 0; p < writer->count; p++) {
        const moe_result *result = result_of(run, chosen, writer->chosen[p]);
        double begins_s = 0;
        for (int64_t i = 0; i < writer->steps; i++) {
            writer->begins_s[p * writer->steps + i] = begins_s;
            begins_s += result->series[i].step_s;
        }
    }
}

static moe_status write_events(timeline_writer *writer, moe_diag *diag)
{
    moe_status status;
    moe_run_options options = {.jobs = 1, /* one after the other into one stream */
                               .last = writer->steps,
                               .observe = write_step,
                               .observe_context = writer};
    moe_run *again = moe_run_scenario(NULL, writer->binding, writer->chosen, writer->count,
                                      &options, &status, diag);
    talloc_free(again);
    if (status == MOE_OK && *writer->failed) {
        moe_diag_error(diag, (moe_where){0}, "cannot write the timeline: is the disk full?");
        return MOE_INTERNAL;
    }
    return status;
}

moe_status moe_timeline_write(const moe_binding *binding, const moe_run *run, const int *chosen,
                              int64_t steps, FILE *stream, moe_diag *diag)
{
    void *scratch = moe_need(talloc_new(NULL));
    int *unique = moe_need(talloc_array(scratch, int, (unsigned)run->policy_count));
    timeline_writer writer = {.binding = binding,
                              .stream = stream,
                              .chosen = unique,
                              .count = each_once(chosen, run->policy_count, unique),
                              .steps = steps < run->iterations ? steps : run->iterations};
    writer.failed = moe_need(moe_workers_shared(scratch, sizeof *writer.failed));
    writer.begins_s =
        moe_need(talloc_array(scratch, double, (size_t)writer.count *(size_t)writer.steps));
    find_beginnings(&writer, run, chosen);
    put_header(&writer, run);
    fputs(",\"traceEvents\":[", stream);
    for (int p = 0; p < writer.count; p++)
        put_names(&writer, p);
    moe_status status = write_events(&writer, diag);
    fputs("\n]}\n", stream);
    talloc_free(scratch);
    return status;
}
