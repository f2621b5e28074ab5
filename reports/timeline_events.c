/* Operations and flows of one step. */
#include "reports/timeline_events.h"

#include "configs/base/memory.h"
#include <math.h>
#include <string.h>
#include <talloc.h>

const char *const moe_timeline_stream_names[] = {"host",     "compute", "exchange", "sparse",
                                                 "gradient", "copy",    NULL};
_Static_assert(sizeof moe_timeline_stream_names / sizeof *moe_timeline_stream_names ==
                   MOE_STREAMS + 1,
               "a name per stream");

int64_t moe_timeline_tick(const moe_timeline_step *step, double seconds)
{
    return llround((step->offset_s + seconds) * 1e9);
}

void moe_timeline_put_time(FILE *stream, const char *key, int64_t ticks)
{
    fprintf(stream, ",\"%s\":%lld.%03lld", key, (long long)(ticks / 1000),
            (long long)(ticks % 1000));
}

void moe_timeline_put_event(FILE *stream, const char *phase, const char *name, int64_t pid, int tid,
                            int64_t ticks)
{
    fprintf(stream, ",\n{\"ph\":\"%s\",\"name\":\"%s\",\"pid\":%lld,\"tid\":%d", phase, name,
            (long long)pid, tid);
    moe_timeline_put_time(stream, "ts", ticks);
}

/* --- the critical path ---------------------------------------------------------------------------
 */

/* The path visits an operation once at most: it goes from later to earlier ones. */
typedef struct critical_path {
    const moe_timeline_step *step;
    int *device;    /* [op_count]; -1: not on the path */
    int64_t *ticks; /* [op_count] */
} critical_path;

static void mark(void *context, int op, int device, double from_s, double until_s)
{
    const critical_path *path = context;
    path->device[op] = device;
    path->ticks[op] =
        moe_timeline_tick(path->step, until_s) - moe_timeline_tick(path->step, from_s);
}

static critical_path find_path(void *owner, const moe_timeline_step *step)
{
    unsigned count = (unsigned)step->program->op_count;
    critical_path path = {.step = step,
                          .device = moe_need(talloc_array(owner, int, count)),
                          .ticks = moe_need(talloc_zero_array(owner, int64_t, count))};
    for (unsigned op = 0; op < count; op++)
        path.device[op] = -1;
    moe_timeline_critical_walk(step->program, step->timeline, mark, &path);
    return path;
}

/* --- operations ----------------------------------------------------------------------------------
 */

typedef struct span {
    int64_t start;
    int64_t end;
} span;

static span span_of(const moe_timeline_step *step, int op, int device)
{
    size_t at = moe_timeline_at(step->timeline, op, device);
    return (span){moe_timeline_tick(step, step->timeline->start_s[at]),
                  moe_timeline_tick(step, step->timeline->end_s[at])};
}

/* Whether the instance is in the file; one on the critical path always is. */
static bool is_shown(const moe_timeline_step *step, int op, int device, span when)
{
    const moe_op *of = &step->program->ops[op];
    bool takes_part =
        of->kind != MOE_OP_COLLECTIVE || (of->traffic != NULL && of->traffic->takes_part[device]);
    return takes_part && when.end > when.start;
}

typedef struct device_bytes {
    double *sent; /* [devices] */
    double *received;
} device_bytes;

static void count_bytes(const moe_traffic *traffic, int devices, const device_bytes *bytes)
{
    memset(bytes->sent, 0, (size_t)devices * sizeof *bytes->sent);
    memset(bytes->received, 0, (size_t)devices * sizeof *bytes->received);
    for (size_t i = 0; traffic != NULL && i < traffic->transfer_count; i++) {
        const moe_transfer *transfer = &traffic->transfers[i];
        bytes->sent[transfer->source] += transfer->bytes;
        bytes->received[transfer->target] += transfer->bytes;
    }
}

static void put_arguments(const moe_timeline_step *step, const moe_op *op, int device,
                          const device_bytes *bytes, const int64_t *critical)
{
    FILE *stream = step->stream;
    fprintf(stream, ",\"args\":{\"part\":\"%s\"", moe_part_names[op->part]);
    if (op->layer >= 0)
        fprintf(stream, ",\"layer\":%d", op->layer);
    if (op->micro_batch >= 0)
        fprintf(stream, ",\"micro_batch\":%d", op->micro_batch);
    if (op->kind == MOE_OP_COLLECTIVE)
        fprintf(stream, ",\"bytes\":%.0f,\"bytes_received\":%.0f", bytes->sent[device],
                bytes->received[device]);
    if (critical != NULL) {
        fputs(",\"critical\":true", stream);
        moe_timeline_put_time(stream, "critical_us", *critical);
    }
    fputc('}', stream);
}

static void put_operation(const moe_timeline_step *step, const critical_path *path, int op,
                          const device_bytes *bytes)
{
    const moe_op *of = &step->program->ops[op];
    for (int d = 0; d < step->program->devices; d++) {
        span when = span_of(step, op, d);
        const int64_t *critical =
            path->device[op] == d && path->ticks[op] > 0 ? &path->ticks[op] : NULL;
        if (critical == NULL && !is_shown(step, op, d, when))
            continue;
        moe_timeline_put_event(step->stream, "X", of->name, step->pid + 1 + d, 1 + (int)of->stream,
                               when.start);
        moe_timeline_put_time(step->stream, "dur", when.end - when.start);
        put_arguments(step, of, d, bytes, critical);
        fputc('}', step->stream);
    }
}

void moe_timeline_put_operations(const moe_timeline_step *step)
{
    void *scratch = moe_need(talloc_new(NULL));
    unsigned devices = (unsigned)step->program->devices;
    device_bytes bytes = {moe_need(talloc_array(scratch, double, devices)),
                          moe_need(talloc_array(scratch, double, devices))};
    critical_path path = find_path(scratch, step);
    for (int op = 0; op < step->program->op_count; op++) {
        if (step->program->ops[op].kind == MOE_OP_COLLECTIVE)
            count_bytes(step->program->ops[op].traffic, (int)devices, &bytes);
        put_operation(step, &path, op, &bytes);
    }
    talloc_free(scratch);
}

/* --- flows ---------------------------------------------------------------------------------------
 */

/* What a layer of a micro-batch waits for: the other half of an exchange. */
typedef struct half {
    int first; /* operation; -1: none */
    int experts;
} half;

typedef struct halves {
    int layers;
    half *open; /* [micro_batch][layer] */
} halves;

static halves halves_create(void *owner, const moe_program *program)
{
    int layers = 1, micro_batches = 1;
    for (int op = 0; op < program->op_count; op++) {
        const moe_op *of = &program->ops[op];
        layers = of->layer >= layers ? of->layer + 1 : layers;
        micro_batches = of->micro_batch >= micro_batches ? of->micro_batch + 1 : micro_batches;
    }
    unsigned count = (unsigned)(layers * micro_batches);
    halves all = {layers, moe_need(talloc_array(owner, half, count))};
    for (unsigned i = 0; i < count; i++)
        all.open[i] = (half){-1, -1};
    return all;
}

static bool is_half(const moe_op *op)
{
    return op->kind == MOE_OP_COLLECTIVE && op->stream == MOE_STREAM_EXCHANGE &&
           (op->part == MOE_DISPATCH || op->part == MOE_COMBINE);
}

/* One point of the flows of an exchange, on every device that shows all that the flow joins. */
static void put_flow_points(const moe_timeline_step *step, int op, const int joined[static 3],
                            const char *phase, int64_t flow)
{
    for (int d = 0; d < step->program->devices; d++) {
        if (!is_shown(step, joined[0], d, span_of(step, joined[0], d)) ||
            !is_shown(step, joined[2], d, span_of(step, joined[2], d)) ||
            !is_shown(step, op, d, span_of(step, op, d)))
            continue;
        moe_timeline_put_event(step->stream, phase, "tokens", step->pid + 1 + d,
                               1 + (int)step->program->ops[op].stream, span_of(step, op, d).start);
        fprintf(step->stream, ",\"cat\":\"tokens\",\"bp\":\"e\",\"id\":%lld}",
                (long long)(flow + d));
    }
}

static void put_flow(const moe_timeline_step *step, half of, int last, int64_t flow)
{
    const int joined[3] = {of.first, of.experts, last};
    put_flow_points(step, of.first, joined, "s", flow);
    if (of.experts >= 0)
        put_flow_points(step, of.experts, joined, "t", flow);
    put_flow_points(step, last, joined, "f", flow);
}

void moe_timeline_put_flows(const moe_timeline_step *step)
{
    const moe_program *program = step->program;
    void *scratch = moe_need(talloc_new(NULL));
    halves all = halves_create(scratch, program);
    int64_t flow = step->flow;
    for (int op = 0; op < program->op_count; op++) {
        const moe_op *of = &program->ops[op];
        if (of->layer < 0 || of->micro_batch < 0)
            continue;
        half *open = &all.open[of->micro_batch * all.layers + of->layer];
        if (of->part == MOE_EXPERT && of->kind == MOE_OP_COMPUTE && open->first >= 0)
            open->experts = op;
        if (!is_half(of))
            continue;
        /* The same half again: what came before was no exchange of tokens ("gather loads"). */
        if (open->first >= 0 && program->ops[open->first].part != of->part) {
            put_flow(step, *open, op, flow);
            flow += program->devices;
            *open = (half){-1, -1};
        } else {
            *open = (half){op, -1};
        }
    }
    talloc_free(scratch);
}
