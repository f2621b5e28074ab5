/* Timeline files: a step by hand, event by event; the laws of a written file against the results of the same
 * run; what `timeline summarize` makes of it; and hostile files. */
#include "tests/program.h"

#include "configs/base/memory.h"
#include "reports/timeline_events.h"
#include <math.h>
#include <talloc.h>

#define QUICKSTART MOE_TEST_SOURCE_DIR "/configs/scenarios/quickstart.yaml"
#define TWO_STEPS  "--set", "trace.window=[500, 502]"

/* --- a step by hand -------------------------------------------------------------------------------- */

/* Two hosts of one device. Times in us, from 10 on (the steps before):
 *
 *   attention    device 0: 0-1, device 1: 0-2
 *   dispatch     0 -> 1, 1000 bytes, 2-4; critical: 2
 *   experts      device 0: none, device 1: 4-7; critical: 3; imbalance 3 / 1.5
 *   combine      1 -> 0, 3000 bytes, 7-10; critical: 3
 *
 * NIC 0 sends 1000 bytes in 2 us: 0.5 GB/s; and receives 3000 in 3 us: 1 GB/s. */
enum { OPS = 4, DEVICES = 2 };

static const double start_us[OPS][DEVICES] = {{0, 0}, {2, 2}, {4, 4}, {7, 7}};
static const double end_us[OPS][DEVICES] = {{1, 2}, {4, 4}, {4, 7}, {10, 10}};

typedef struct by_hand {
    moe_cluster_spec spec;
    moe_profile profile;
    moe_curve_usage usage;
    moe_arena *arena;
    moe_program *program;
    moe_timeline *timeline;
} by_hand;

static const moe_traffic *move(by_hand *f, const moe_cluster *cluster, int from, int to,
                               double bytes)
{
    const moe_costs costs = {&f->profile, cluster, &f->usage};
    moe_transfer *transfer = moe_arena_array(f->arena, moe_transfer, 1);
    *transfer = (moe_transfer){from, to, bytes};
    return moe_traffic_moves(f->arena, &costs, transfer, 1);
}

static moe_program *program_by_hand(by_hand *f, const moe_cluster *cluster)
{
    static const double attention_s[] = {1e-6, 2e-6}, experts_s[] = {0, 3e-6};
    moe_program_builder *builder = moe_program_begin(f->arena, cluster);
    const moe_op ops[OPS] = {{.name = "attention forward",
                              .kind = MOE_OP_COMPUTE,
                              .part = MOE_DENSE,
                              .stream = MOE_STREAM_COMPUTE,
                              .duration_s = attention_s},
                             {.name = "dispatch",
                              .kind = MOE_OP_COLLECTIVE,
                              .part = MOE_DISPATCH,
                              .stream = MOE_STREAM_EXCHANGE,
                              .traffic = move(f, cluster, 0, 1, 1000),
                              .slowdown = 1},
                             {.name = "experts forward",
                              .kind = MOE_OP_COMPUTE,
                              .part = MOE_EXPERT,
                              .stream = MOE_STREAM_COMPUTE,
                              .duration_s = experts_s},
                             {.name = "combine",
                              .kind = MOE_OP_COLLECTIVE,
                              .part = MOE_COMBINE,
                              .stream = MOE_STREAM_EXCHANGE,
                              .traffic = move(f, cluster, 1, 0, 3000),
                              .slowdown = 1}};
    for (int op = 0; op < OPS; op++) {
        const int before = op - 1;
        moe_program_add(builder, &ops[op], &before, 1);
    }
    return moe_program_end(builder);
}

static by_hand *open_by_hand(void)
{
    by_hand *f = talloc_zero(NULL, by_hand);
    f->spec = (moe_cluster_spec){
        .name = "invented",
        .hosts = DEVICES,
        .devices_per_host = 1,
        .device = {.name = "invented",
                   .peak_flop_per_s = 1e12,
                   .memory_bytes = 1e9,
                   .memory_bytes_per_s = 1e11,
                   .sms = 100},
        .intra = {.kind = MOE_INTRA_NVLINK, .bandwidth_bytes_per_s = 1e10},
        .nic = {.sharing = MOE_NIC_PER_HOST, .bandwidth_bytes_per_s = 1e9},
        .fabric = {.oversubscription = 1},
    };
    const moe_cluster *cluster = moe_cluster_create(f, &f->spec, NULL, moe_diag_create(f, stderr));
    assert_non_null(cluster);
    f->arena = moe_arena_create(f);
    f->program = program_by_hand(f, cluster);
    f->timeline = moe_timeline_create(f, DEVICES);
    moe_timeline_reserve(f->timeline, OPS);
    for (int op = 0; op < OPS; op++)
        for (int d = 0; d < DEVICES; d++) {
            f->timeline->start_s[moe_timeline_at(f->timeline, op, d)] = start_us[op][d] * 1e-6;
            f->timeline->end_s[moe_timeline_at(f->timeline, op, d)] = end_us[op][d] * 1e-6;
        }
    f->timeline->step_s = 10e-6;
    return f;
}

typedef void (*put_events)(const moe_timeline_step *step);

static void expect_events(put_events put, const char *expected)
{
    by_hand *f = open_by_hand();
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    const moe_timeline_step step = {stream, f->program, f->timeline, 10e-6, 1, 500};
    put(&step);
    fclose(stream);
    assert_string_equal(text, expected);
    free(text);
    talloc_free(f);
}

#define MARKS "\"layer\":0,\"micro_batch\":0"

static void test_operations_by_hand(void **state)
{
    (void)state;
    expect_events(
        moe_timeline_put_operations,
        ",\n{\"ph\":\"X\",\"name\":\"attention forward\",\"pid\":2,\"tid\":2,\"ts\":10.000,"
        "\"dur\":1.000,\"args\":{\"part\":\"dense\"," MARKS "}}"
        ",\n{\"ph\":\"X\",\"name\":\"attention forward\",\"pid\":3,\"tid\":2,\"ts\":10.000,"
        "\"dur\":2.000,\"args\":{\"part\":\"dense\"," MARKS
        ",\"critical\":true,\"critical_us\":2.000}}"
        ",\n{\"ph\":\"X\",\"name\":\"dispatch\",\"pid\":2,\"tid\":3,\"ts\":12.000,"
        "\"dur\":2.000,\"args\":{\"part\":\"dispatch\"," MARKS
        ",\"bytes\":1000,\"bytes_received\":0}}"
        ",\n{\"ph\":\"X\",\"name\":\"dispatch\",\"pid\":3,\"tid\":3,\"ts\":12.000,"
        "\"dur\":2.000,\"args\":{\"part\":\"dispatch\"," MARKS
        ",\"bytes\":0,\"bytes_received\":1000,\"critical\":true,\"critical_us\":2.000}}"
        ",\n{\"ph\":\"X\",\"name\":\"experts forward\",\"pid\":3,\"tid\":2,\"ts\":14.000,"
        "\"dur\":3.000,\"args\":{\"part\":\"expert\"," MARKS
        ",\"critical\":true,\"critical_us\":3.000}}"
        ",\n{\"ph\":\"X\",\"name\":\"combine\",\"pid\":2,\"tid\":3,\"ts\":17.000,"
        "\"dur\":3.000,\"args\":{\"part\":\"combine\"," MARKS
        ",\"bytes\":0,\"bytes_received\":3000,\"critical\":true,\"critical_us\":3.000}}"
        ",\n{\"ph\":\"X\",\"name\":\"combine\",\"pid\":3,\"tid\":3,\"ts\":17.000,"
        "\"dur\":3.000,\"args\":{\"part\":\"combine\"," MARKS
        ",\"bytes\":3000,\"bytes_received\":0}}");
}

#define FLOW(phase, pid, tid, ts, id)                                                              \
    ",\n{\"ph\":\"" phase "\",\"name\":\"tokens\",\"pid\":" pid ",\"tid\":" tid ",\"ts\":" ts      \
    ",\"cat\":\"tokens\",\"bp\":\"e\",\"id\":" id "}"

static void test_flows_by_hand(void **state)
{
    (void)state;
    expect_events(moe_timeline_put_flows,
                  FLOW("s", "2", "3", "12.000", "500") FLOW("s", "3", "3", "12.000", "501")
                      FLOW("t", "3", "2", "14.000", "501") FLOW("f", "2", "3", "17.000", "500")
                          FLOW("f", "3", "3", "17.000", "501"));
}

#define LOAD(nic, ts, out, in)                                                                     \
    ",\n{\"ph\":\"C\",\"name\":\"NIC " nic " GB/s\",\"pid\":1,\"tid\":0,\"ts\":" ts                \
    ",\"args\":{\"out\":" out ",\"in\":" in "}}"

static void test_counters_by_hand(void **state)
{
    (void)state;
    expect_events(
        moe_timeline_put_counters,
        ",\n{\"ph\":\"C\",\"name\":\"expert imbalance\",\"pid\":1,\"tid\":0,\"ts\":14.000,"
        "\"args\":{\"max/mean\":2}}" LOAD("0", "12.000", "0.5", "0") LOAD("0", "14.000", "0", "0")
            LOAD("0", "17.000", "0", "1") LOAD("0", "20.000", "0", "0")
                LOAD("1", "12.000", "0", "0.5") LOAD("1", "14.000", "0", "0")
                    LOAD("1", "17.000", "1", "0") LOAD("1", "20.000", "0", "0"));
}

/* --- a written file against its run ---------------------------------------------------------------- */

/* An instance on one device, in whole nanoseconds. */
typedef struct span {
    int64_t pid, tid, start, end;
    const json_t *event;
} span;

typedef struct trace_file {
    char *path;
    json_t *root;
    json_t *result; /* of the run that wrote it */
    size_t policies;
    int64_t devices;
    span *spans; /* sorted */
    size_t span_count;
} trace_file;

static int64_t nanoseconds(const json_t *event, const char *key)
{
    const json_t *value = json_object_get(event, key);
    if (!json_is_number(value) || json_number_value(value) < 0)
        fail_msg("\"%s\" is no number of at least 0 in an event \"%s\"", key,
                 json_string_value(json_object_get(event, "name")));
    return llround(json_number_value(value) * 1000);
}

static int64_t whole(const json_t *object, const char *key)
{
    assert_true(json_is_integer(json_object_get(object, key)));
    return json_integer_value(json_object_get(object, key));
}

static bool is_phase(const json_t *event, const char *phase)
{
    return strcmp(json_string_value(json_object_get(event, "ph")), phase) == 0;
}

static const json_t *events_of(const trace_file *file)
{
    return json_object_get(file->root, "traceEvents");
}

static int compare_spans(const void *left, const void *right)
{
    const span *a = left, *b = right;
    const int64_t differences[] = {a->pid - b->pid, a->tid - b->tid, a->start - b->start,
                                   a->end - b->end};
    for (int i = 0; i < 4; i++)
        if (differences[i] != 0)
            return differences[i] < 0 ? -1 : 1;
    return 0;
}

static void gather_spans(trace_file *file)
{
    const json_t *events = events_of(file);
    size_t i;
    json_t *event;
    file->spans = calloc(json_array_size(events), sizeof *file->spans);
    assert_non_null(file->spans);
    json_array_foreach((json_t *)events, i, event)
    {
        if (!is_phase(event, "X"))
            continue;
        int64_t start = nanoseconds(event, "ts");
        file->spans[file->span_count++] = (span){whole(event, "pid"), whole(event, "tid"), start,
                                                 start + nanoseconds(event, "dur"), event};
    }
    qsort(file->spans, file->span_count, sizeof *file->spans, compare_spans);
}

static trace_file write_file(const char *engine)
{
    trace_file file = {.path = program_path("timeline.json")};
    program_result run = EXPECT(0, "simulate", QUICKSTART, TWO_STEPS, "--engine", engine, "--json",
                                "--timeline", file.path);
    char *text = program_read(file.path);
    file.root = program_json(text);
    file.result = program_json(run.out);
    const json_t *other = json_object_get(file.root, "otherData");
    file.policies = json_array_size(json_object_get(other, "policies"));
    file.devices = whole(other, "devices");
    assert_int_equal(file.policies, json_array_size(json_object_get(file.result, "policies")));
    gather_spans(&file);
    program_free(&run);
    free(text);
    return file;
}

static void close_file(trace_file *file)
{
    json_decref(file->root);
    json_decref(file->result);
    free(file->spans);
    free(file->path);
}

static void check_no_overlap(const trace_file *file)
{
    for (size_t i = 1; i < file->span_count; i++) {
        const span *a = &file->spans[i - 1], *b = &file->spans[i];
        if (a->pid == b->pid && a->tid == b->tid)
            assert_true(a->end <= b->start);
    }
}

/* One of each, by phase; steps of a policy follow one another. */
static void check_counts(const trace_file *file)
{
    size_t instants = 0, metadata = 0, i;
    json_t *event;
    json_array_foreach((json_t *)events_of(file), i, event)
    {
        instants += is_phase(event, "i");
        metadata += is_phase(event, "M");
        if (!is_phase(event, "M"))
            nanoseconds(event, "ts");
        assert_in_range(whole(event, "pid"), 1, file->policies * (size_t)(file->devices + 1));
    }
    assert_int_equal(instants, 2 * file->policies);
    assert_int_equal(metadata,
                     file->policies * (4 + (size_t)file->devices * (2 + 2 * MOE_STREAMS)));
}

/* Every flow: one beginning, one end, at most one point between, in this order on one device. */
static void check_flows(const trace_file *file)
{
    json_t *flows = json_object();
    size_t i;
    json_t *event;
    const char *id;
    json_array_foreach((json_t *)events_of(file), i, event)
    {
        const char *phase = json_string_value(json_object_get(event, "ph"));
        if (strlen(phase) != 1 || strchr("stf", *phase) == NULL)
            continue;
        char key[32];
        snprintf(key, sizeof key, "%lld", (long long)whole(event, "id"));
        json_t *flow = json_object_get(flows, key);
        if (flow == NULL)
            json_object_set_new(flows, key, flow = json_object());
        assert_int_equal(json_object_set(flow, phase, event), 0);
    }
    assert_true(json_object_size(flows) > 0);
    json_t *flow;
    json_object_foreach(flows, id, flow)
    {
        const json_t *begin = json_object_get(flow, "s"), *end = json_object_get(flow, "f");
        const json_t *between = json_object_get(flow, "t");
        assert_non_null(begin);
        assert_non_null(end);
        assert_int_equal(whole(begin, "pid"), whole(end, "pid"));
        assert_true(nanoseconds(begin, "ts") < nanoseconds(end, "ts"));
        assert_true(!between || (nanoseconds(begin, "ts") <= nanoseconds(between, "ts") &&
                                 nanoseconds(between, "ts") <= nanoseconds(end, "ts")));
    }
    json_decref(flows);
}

/* --- exposed time, once more, from the file ----------------------------------------------------- */

static const int precedence[] = {MOE_STREAM_COMPUTE,  MOE_STREAM_EXCHANGE, MOE_STREAM_SPARSE,
                                 MOE_STREAM_GRADIENT, MOE_STREAM_COPY,     MOE_STREAM_HOST};

static int part_of(const span *of)
{
    const json_t *part = json_object_get(json_object_get(of->event, "args"), "part");
    for (int p = 0; p < MOE_WAIT; p++)
        if (strcmp(json_string_value(part), moe_part_names[p]) == 0)
            return p;
    fail_msg("an event of no part");
    return MOE_WAIT;
}

/* The spans of one device, stream by stream. */
typedef struct finger {
    const span *at, *end;
} finger;

static finger spans_of(const trace_file *file, int64_t pid, int64_t tid)
{
    finger found = {NULL, NULL};
    for (size_t i = 0; i < file->span_count; i++) {
        const span *of = &file->spans[i];
        if (of->pid == pid && of->tid == tid) {
            found.at = found.at ? found.at : of;
            found.end = of + 1;
        }
    }
    return found;
}

static void add_exposed(const trace_file *file, int64_t pid, int64_t until, double *parts)
{
    finger fingers[MOE_STREAMS];
    for (int s = 0; s < MOE_STREAMS; s++)
        fingers[s] = spans_of(file, pid, 1 + s);
    for (int64_t now = 0; now < until;) {
        int64_t next = until;
        int part = MOE_WAIT;
        for (int p = 0; p < MOE_STREAMS && part == MOE_WAIT; p++) {
            finger *of = &fingers[precedence[p]];
            while (of->at < of->end && of->at->end <= now)
                of->at++;
            if (of->at == of->end)
                continue;
            bool under_way = of->at->start <= now;
            int64_t change = under_way ? of->at->end : of->at->start;
            next = change < next ? change : next;
            part = under_way ? part_of(of->at) : MOE_WAIT;
        }
        parts[part] += (double)(next - now) * 1e-9;
        now = next;
    }
}

static int64_t end_of_steps(const trace_file *file, int64_t pid)
{
    finger steps = spans_of(file, pid, 1);
    assert_int_equal(steps.end - steps.at, 2);
    assert_true(steps.at[0].start == 0 && steps.at[0].end == steps.at[1].start);
    return steps.at[1].end;
}

static void assert_parts(const json_t *policy, const char *key, const double *parts, int count,
                         double per)
{
    for (int p = 0; p < count; p++) {
        double expected =
            json_number_value(json_object_get(json_object_get(policy, key), moe_part_names[p]));
        if (fabs(parts[p] / per - expected) > 1e-6)
            fail_msg("%s.%s: %.9f from the file, %.9f in the result", key, moe_part_names[p],
                     parts[p] / per, expected);
    }
}

static void check_breakdown(const trace_file *file)
{
    for (size_t p = 0; p < file->policies; p++) {
        const json_t *policy = json_array_get(json_object_get(file->result, "policies"), p);
        int64_t pid = (int64_t)p * (file->devices + 1) + 1, until = end_of_steps(file, pid);
        double exposed[MOE_PARTS] = {0}, critical[MOE_PARTS] = {0};
        for (int64_t d = 0; d < file->devices; d++)
            add_exposed(file, pid + 1 + d, until, exposed);
        for (size_t i = 0; i < file->span_count; i++) {
            const span *of = &file->spans[i];
            const json_t *arguments = json_object_get(of->event, "args");
            if (of->pid > pid && of->pid <= pid + file->devices &&
                json_is_true(json_object_get(arguments, "critical")))
                critical[part_of(of)] += (double)nanoseconds(arguments, "critical_us") * 1e-9;
        }
        assert_parts(policy, "breakdown_s", exposed, MOE_PARTS, 2.0 * (double)file->devices);
        assert_parts(policy, "critical_path_s", critical, MOE_WAIT, 2);
    }
}

/* --- counters ------------------------------------------------------------------------------------- */

/* What NICs sent, their load added up over time, is what went between hosts. */
static void check_loads(const trace_file *file)
{
    double *sent = calloc(file->policies, sizeof *sent);
    const json_t *before = NULL;
    size_t i;
    json_t *event;
    json_array_foreach((json_t *)events_of(file), i, event)
    {
        const char *name = json_string_value(json_object_get(event, "name"));
        if (!is_phase(event, "C"))
            continue;
        const json_t *values = json_object_get(event, "args");
        if (strcmp(name, "expert imbalance") == 0)
            assert_true(json_number_value(json_object_get(values, "max/mean")) >= 1);
        if (strncmp(name, "NIC ", 4) != 0)
            continue;
        const json_t *rate =
            before ? json_object_get(json_object_get(before, "args"), "out") : NULL;
        bool goes_on = before &&
                       strcmp(name, json_string_value(json_object_get(before, "name"))) == 0 &&
                       whole(before, "pid") == whole(event, "pid");
        if (goes_on && nanoseconds(event, "ts") > nanoseconds(before, "ts"))
            sent[whole(event, "pid") / (file->devices + 1)] +=
                json_number_value(rate) *
                (double)(nanoseconds(event, "ts") - nanoseconds(before, "ts"));
        assert_true(json_number_value(json_object_get(values, "out")) >= 0);
        before = event;
    }
    for (size_t p = 0; p < file->policies; p++) {
        const json_t *policy = json_array_get(json_object_get(file->result, "policies"), p);
        double expected = 2 * json_number_value(json_object_get(
                                  json_object_get(policy, "bytes_moved"), "inter_host"));
        if (fabs(sent[p] / expected - 1) > 1e-4)
            fail_msg("NICs sent %.6g bytes, between hosts went %.6g", sent[p], expected);
    }
    free(sent);
}

static void check_written_file(const char *engine)
{
    trace_file file = write_file(engine);
    check_no_overlap(&file);
    check_counts(&file);
    check_flows(&file);
    check_breakdown(&file);
    check_loads(&file);
    close_file(&file);
}

static void test_written_by_analytic(void **state)
{
    (void)state;
    check_written_file("analytic");
}

static void test_written_by_fluid(void **state)
{
    (void)state;
    check_written_file("fluid");
}

/* --- the command line ------------------------------------------------------------------------------ */

static void test_results_do_not_change(void **state)
{
    (void)state;
    char *one = program_path("one.json"), *two = program_path("two.json");
    program_result plain = EXPECT(0, "simulate", QUICKSTART, TWO_STEPS);
    program_result a = EXPECT(0, "simulate", QUICKSTART, TWO_STEPS, "--timeline", one, "-j", "1");
    program_result b = EXPECT(0, "simulate", QUICKSTART, TWO_STEPS, "--timeline", two, "-j", "3",
                              "--timeline-steps", "2");
    assert_string_equal(plain.out, a.out);
    assert_string_equal(plain.out, b.out);
    char *first = program_read(one), *second = program_read(two);
    assert_true(strcmp(first, second) == 0);
    free(first);
    free(second);
    free(one);
    free(two);
    program_free(&plain);
    program_free(&a);
    program_free(&b);
}

static void test_steps_and_policies_are_chosen(void **state)
{
    (void)state;
    char *path = program_path("few.json");
    program_result run =
        EXPECT(0, "simulate", QUICKSTART, "--set", "trace.window=[500, 506]", "--timeline", path,
               "--timeline-steps", "1", "--policy", "fssdp", "--policy", "fssdp");
    char *text = program_read(path);
    json_t *root = program_json(text);
    const json_t *other = json_object_get(root, "otherData");
    assert_int_equal(whole(other, "steps"), 1);
    assert_int_equal(json_array_size(json_object_get(other, "policies")), 1);
    assert_non_null(json_object_get(other, "provenance"));
    json_decref(root);
    free(text);
    free(path);
    program_free(&run);
}

static void test_nothing_is_left_behind(void **state)
{
    (void)state;
    char *path = program_path("no/such/folder.json");
    program_result run = EXPECT(70, "simulate", QUICKSTART, TWO_STEPS, "--timeline", path);
    assert_true(run.out[0] == '\0');
    program_free(&run);
    run = EXPECT(70, "simulate", QUICKSTART, TWO_STEPS, "--timeline", "/dev/full");
    program_free(&run);
    static const char *const counts[] = {"0", "-1", "two", "", "9999999999999999999"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        run = EXPECT(64, "simulate", QUICKSTART, "--timeline-steps", counts[i]);
        program_free(&run);
    }
    free(path);
}

static void test_summary(void **state)
{
    (void)state;
    trace_file file = write_file("fluid");
    program_result run = EXPECT(0, "timeline", "summarize", file.path, "--json");
    json_t *summary = program_json(run.out);
    size_t p, i;
    json_t *policy, *largest;
    json_array_foreach(json_object_get(summary, "policies"), p, policy)
    {
        const json_t *result = json_array_get(json_object_get(file.result, "policies"), p);
        const json_t *mean = json_object_get(json_object_get(result, "step_time_s"), "mean");
        double step_s = json_number_value(json_object_get(policy, "step_time_s"));
        double parts[MOE_PARTS], before = INFINITY;
        assert_true(fabs(step_s - json_number_value(mean)) < 2e-9);
        for (int part = 0; part < MOE_WAIT; part++)
            parts[part] = json_number_value(
                json_object_get(json_object_get(policy, "critical_path_s"), moe_part_names[part]));
        assert_parts(result, "critical_path_s", parts, MOE_WAIT, 1);
        assert_int_equal(json_array_size(json_object_get(policy, "largest")), 10);
        json_array_foreach(json_object_get(policy, "largest"), i, largest)
        {
            double seconds = json_number_value(json_object_get(largest, "seconds"));
            double share = json_number_value(json_object_get(largest, "share"));
            assert_true(seconds <= before && fabs(share * step_s - seconds) < 1e-12);
            before = seconds;
        }
    }
    assert_int_equal(p, file.policies);
    program_free(&run);
    run = EXPECT(0, "timeline", "summarize", file.path);
    program_contains(run.out, "largest 10 of");
    program_contains(run.out, "exchange");
    program_free(&run);
    json_decref(summary);
    close_file(&file);
}

/* --- hostile files --------------------------------------------------------------------------------- */

#define OTHER                                                                                      \
    "\"otherData\":{\"format\":\"moeplan-timeline\",\"version\":1,\"policies\":[\"ep\"],"          \
    "\"devices\":2,\"streams\":[\"host\",\"compute\"],\"steps\":1}"
#define STEP         "{\"ph\":\"X\",\"name\":\"step 0\",\"pid\":1,\"tid\":1,\"ts\":0,\"dur\":5}"
#define FILE_OF(...) "{" OTHER ",\n\"traceEvents\":[\n" __VA_ARGS__ "]}"
#define CRITICAL(members)                                                                          \
    STEP ",\n{\"ph\":\"X\",\"name\":\"x\",\"pid\":2,\"tid\":1," members "\"args\":{"               \
         "\"part\":\"host\",\"critical\":true,\"critical_us\":5}}"

static const struct hostile {
    const char *text;
    const char *message; /* NULL: sound */
} hostiles[] = {
    {FILE_OF(CRITICAL("")), NULL},
    {FILE_OF(STEP), NULL},
    {"", ":1:1: error: JSON: expected '{'"},
    {"[]", "JSON: expected '{'"},
    {"{}", "JSON: expected '\"'"},
    {"{\"traceEvents\":[]}", "no otherData before traceEvents"},
    {"{" OTHER "}", "no traceEvents"},
    {"{\"otherData\":{\"format\":\"x\"}}", "otherData.format is not"},
    {"{\"otherData\":{\"format\":\"moeplan-timeline\",\"version\":2}}", "version is not 1"},
    {"{\"otherData\":{\"format\":\"moeplan-timeline\",\"version\":1,\"devices\":9999999}}",
     "otherData.devices"},
    {"{\"otherData\":{\"format\":\"moeplan-timeline\",\"version\":1,\"devices\":1,\"policies\":"
     "[\"\\u001b[2J\"],\"streams\":[\"a\"]}}",
     "names of policies and streams"},
    {"{" OTHER "," OTHER "}", "a second otherData"},
    {FILE_OF(STEP) "x", "something behind the end"},
    {FILE_OF(STEP ","), "JSON: '[' or '{' expected"},
    {"{" OTHER ",\"traceEvents\":[" STEP, "JSON: expected ']'"},
    {"{" OTHER ",\"x\":5,\"traceEvents\":[]}", "JSON: '[' or '{' expected"},
    {FILE_OF("[]"), "an event that is no object"},
    {FILE_OF("{\"pid\":1}"), "an event without ph or pid"},
    {FILE_OF("{\"ph\":\"X\",\"pid\":4}"), "pid is none"},
    {FILE_OF("{\"ph\":\"X\",\"pid\":-9223372036854775808}"), "pid is none"},
    {FILE_OF("{\"ph\":\"X\",\"pid\":1}"), "a step without a duration"},
    {FILE_OF(""), "no step of policy \"ep\""},
    {FILE_OF("{\"a\":1,\"a\":2}"), "duplicate object key"},
    {FILE_OF(STEP
             ",\n{\"ph\":\"X\",\"name\":\"x\",\"pid\":2,\"tid\":3,\"args\":{\"critical\":true}}"),
     ":4:1: error: an event whose tid is none"},
    {FILE_OF(STEP ",{\"ph\":\"X\",\"pid\":2,\"tid\":1,\"args\":{\"critical\":true}}"),
     "whose name is no short text"},
    {FILE_OF(STEP ",{\"ph\":\"X\",\"name\":\"x\",\"pid\":2,\"tid\":1,\"args\":{\"critical\":true,"
                  "\"part\":\"rest\"}}"),
     "args.part is none"},
    {FILE_OF(STEP ",{\"ph\":\"X\",\"name\":\"x\",\"pid\":2,\"tid\":1,\"args\":{\"critical\":true,"
                  "\"part\":\"host\",\"layer\":-9223372036854775808}}"),
     "args.layer is no layer"},
    {FILE_OF(STEP ",{\"ph\":\"X\",\"name\":\"x\",\"pid\":2,\"tid\":1,\"args\":{\"critical\":true,"
                  "\"part\":\"host\",\"critical_us\":-1}}"),
     "without args.critical_us"},
};

static void test_hostile_files(void **state)
{
    (void)state;
    char *path = program_path("hostile.json");
    for (size_t i = 0; i < sizeof hostiles / sizeof *hostiles; i++) {
        program_write(path, hostiles[i].text);
        program_result run =
            EXPECT(hostiles[i].message != NULL, "timeline", "summarize", path, "--json");
        if (hostiles[i].message != NULL) {
            program_contains(run.err, hostiles[i].message);
            assert_true(run.out[0] == '\0');
        }
        program_free(&run);
    }
    free(path);
}

/* A value without end takes no memory without end. */
static void test_large_values(void **state)
{
    (void)state;
    char *path = program_path("large.json");
    FILE *file = fopen(path, "wb");
    fputs("{" OTHER ",\"traceEvents\":[{\"name\":\"", file);
    for (int i = 0; i < 100000; i++)
        fputs("0123456789", file);
    fputs("\"}]}", file);
    fclose(file);
    program_result run = EXPECT(1, "timeline", "summarize", path);
    program_contains(run.err, "a value of more than 65536 bytes");
    program_free(&run);
    run = EXPECT(1, "timeline", "summarize", program_folder);
    program_contains(run.err, "not a regular file");
    program_free(&run);
    run = EXPECT(1, "timeline", "summarize", "/no/such/file");
    program_contains(run.err, "No such file");
    program_free(&run);
    free(path);
}

static void test_usage(void **state)
{
    (void)state;
    program_result run = EXPECT(64, "timeline");
    program_free(&run);
    run = EXPECT(64, "timeline", "draw", "x.json");
    program_contains(run.err, "expected summarize");
    program_free(&run);
    run = EXPECT(64, "timeline", "summarize");
    program_free(&run);
    run = EXPECT(0, "timeline", "--help");
    program_contains(run.out, "summarize FILE");
    program_free(&run);
    run = EXPECT(0, "simulate", "--help");
    program_contains(run.out, "--timeline=FILE");
    program_free(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations_by_hand),
        cmocka_unit_test(test_flows_by_hand),
        cmocka_unit_test(test_counters_by_hand),
        cmocka_unit_test(test_written_by_analytic),
        cmocka_unit_test(test_written_by_fluid),
        cmocka_unit_test(test_results_do_not_change),
        cmocka_unit_test(test_steps_and_policies_are_chosen),
        cmocka_unit_test(test_nothing_is_left_behind),
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_hostile_files),
        cmocka_unit_test(test_large_values),
        cmocka_unit_test(test_usage),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
