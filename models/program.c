#include "models/program.h"

#include "configs/base/memory.h"
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const moe_part_names[] = {"dense",       "expert", "dispatch",  "combine",
                                      "materialize", "reduce", "rearrange", "gradient_sync",
                                      "optimizer",   "host",   "wait",      NULL};

_Static_assert(sizeof moe_part_names / sizeof *moe_part_names == MOE_PARTS + 1, "a name per part");

/* --- building --------------------------------------------------------------------------------- */

struct moe_program_builder {
    moe_arena *arena;
    const moe_cluster *cluster;
    moe_op *ops;
    int op_count, op_capacity;
    int *waits;
    int wait_total, wait_capacity;
};

enum { FIRST_CAPACITY = 256 };

moe_program_builder *moe_program_begin(moe_arena *arena, const moe_cluster *cluster)
{
    moe_program_builder *builder = moe_arena_array(arena, moe_program_builder, 1);
    *builder = (moe_program_builder){.arena = arena, .cluster = cluster};
    return builder;
}

/* Room for `needed` items; an arena cannot free, so doubling leaves at most as much behind again.
 */
static void *grow(moe_arena *arena, void *items, int count, int needed, int *capacity, size_t size)
{
    if (needed <= *capacity) {
        return items;
    }
    int twice = *capacity < INT_MAX / 2 ? 2 * *capacity : INT_MAX;
    *capacity = needed > twice ? needed : twice;
    *capacity = *capacity > FIRST_CAPACITY ? *capacity : FIRST_CAPACITY;
    void *grown = moe_arena_alloc(arena, (size_t)*capacity, size);
    if (count > 0) {
        memcpy(grown, items, (size_t)count * size);
    }
    return grown;
}

int moe_program_add(moe_program_builder *builder, const moe_op *op, const int *waits, int count)
{
    builder->ops = grow(builder->arena, builder->ops, builder->op_count, builder->op_count + 1,
                        &builder->op_capacity, sizeof *builder->ops);
    builder->waits =
        grow(builder->arena, builder->waits, builder->wait_total, builder->wait_total + count,
             &builder->wait_capacity, sizeof *builder->waits);
    moe_op *added = &builder->ops[builder->op_count];
    *added = *op;
    added->first_wait = builder->wait_total;
    for (int w = 0; w < count; w++) {
        if (waits[w] >= 0) {
            builder->waits[builder->wait_total++] = waits[w];
        }
    }
    added->wait_count = builder->wait_total - added->first_wait;
    return builder->op_count++;
}

moe_program *moe_program_end(moe_program_builder *builder)
{
    moe_program *program = moe_arena_array(builder->arena, moe_program, 1);
    *program = (moe_program){.devices = builder->cluster->devices,
                             .op_count = builder->op_count,
                             .ops = builder->ops,
                             .waits = builder->waits,
                             .wait_total = builder->wait_total,
                             .cluster = builder->cluster};
    return program;
}

/* --- checking --------------------------------------------------------------------------------- */

static bool is_amount(double value)
{
    return isfinite(value) && value >= 0;
}

static const char *check_waits(const moe_program *program, int id)
{
    const moe_op *op = &program->ops[id];
    if (op->first_wait < 0 || op->wait_count < 0 ||
        op->wait_count > program->wait_total - op->first_wait) {
        return "an operation's waits lie outside the program's";
    }
    for (int w = 0; w < op->wait_count; w++) {
        int wait = program->waits[op->first_wait + w];
        if (wait < 0 || wait >= id) {
            return "an operation waits for one that is not before it";
        }
    }
    return NULL;
}

static const char *check_labels(const moe_op *op)
{
    if (op->name == NULL) {
        return "an operation has no name";
    }
    if ((unsigned)op->kind > MOE_OP_HOST || (unsigned)op->stream >= MOE_STREAMS) {
        return "an operation has an unknown kind or stream";
    }
    if ((unsigned)op->part >= MOE_WAIT) {
        return "an operation has an unknown part, or is a wait";
    }
    return NULL;
}

static const char *check_durations(const moe_program *program, const moe_op *op)
{
    if (op->duration_s == NULL || op->traffic != NULL) {
        return "a compute, copy or host operation needs durations and no traffic";
    }
    for (int d = 0; d < program->devices; d++) {
        if (!is_amount(op->duration_s[d])) {
            return "a duration is negative or not finite";
        }
    }
    return NULL;
}

static const char *check_loads(const moe_cluster *cluster, const moe_traffic *traffic)
{
    int last = -1;
    for (int k = 0; k < traffic->port_count; k++) {
        int port = traffic->ports[k];
        if (port <= last || port >= cluster->port_count) {
            return "a collective loads ports that do not exist or are not ascending";
        }
        if (!is_amount(traffic->work[k]) || !is_amount(traffic->bytes[k])) {
            return "a collective's load is negative or not finite";
        }
        if (!(cluster->ports[port].rate_bytes_per_s > 0)) {
            return "a collective loads a port without a rate";
        }
        last = port;
    }
    return NULL;
}

static bool is_touched(const moe_traffic *traffic, int port)
{
    for (int d = 0; d < traffic->devices; d++) {
        uint64_t word = traffic->touches[(size_t)d * (size_t)traffic->words + (size_t)port / 64];
        if (traffic->takes_part[d] && (word >> (port % 64) & 1) != 0) {
            return true;
        }
    }
    return false;
}

/* A port nobody waits for would drain after the collective has ended. */
static const char *check_touches(const moe_traffic *traffic)
{
    if (traffic->words < (traffic->port_count + 63) / 64) {
        return "a collective's rows of touches are too short";
    }
    for (int k = 0; k < traffic->port_count; k++) {
        if (!is_touched(traffic, k)) {
            return "a collective loads a port that no participant touches";
        }
    }
    int participants = 0;
    for (int d = 0; d < traffic->devices; d++) {
        participants += traffic->takes_part[d];
    }
    return participants == traffic->participants
               ? NULL
               : "a collective's number of participants is not that of its flags";
}

static const char *check_collective(const moe_program *program, const moe_op *op)
{
    const moe_traffic *traffic = op->traffic;
    if (op->duration_s != NULL) {
        return "a collective has durations";
    }
    if (!(op->slowdown >= 1) || !isfinite(op->slowdown)) {
        return "a collective's slowdown is below 1 or not finite";
    }
    if (!(op->sm_share >= 0 && op->sm_share <= 0.9)) {
        return "a collective's share of the SMs is outside [0, 0.9]";
    }
    if (traffic == NULL) {
        return NULL;
    }
    if (traffic->devices != program->devices) {
        return "a collective is for another number of devices";
    }
    if (!is_amount(traffic->alpha_s)) {
        return "a collective's alpha is negative or not finite";
    }
    const char *wrong = check_loads(program->cluster, traffic);
    return wrong != NULL ? wrong : check_touches(traffic);
}

/* The latest operation of each stream that ends, on every device, before this one starts (-1:
 * none); itself counted on its own stream. */
typedef struct horizon {
    int last[MOE_STREAMS];
} horizon;

static void horizon_join(horizon *into, const horizon *from)
{
    for (int s = 0; s < MOE_STREAMS; s++) {
        into->last[s] = into->last[s] > from->last[s] ? into->last[s] : from->last[s];
    }
}

static horizon horizon_of(const moe_program *program, const horizon *known, const int *latest,
                          int id)
{
    const moe_op *op = &program->ops[id];
    horizon own;
    for (int s = 0; s < MOE_STREAMS; s++) {
        own.last[s] = -1;
    }
    if (latest[op->stream] >= 0) {
        horizon_join(&own, &known[latest[op->stream]]);
    }
    for (int w = 0; w < op->wait_count; w++) {
        horizon_join(&own, &known[program->waits[op->first_wait + w]]);
    }
    own.last[op->stream] = id;
    return own;
}

static bool takes_sms(const moe_op *op)
{
    return op->kind == MOE_OP_COLLECTIVE && op->traffic != NULL && op->sm_share > 0;
}

/* One pass must do: computation that stands before a collective must also end before it. */
static bool passes_in_order(const moe_program *program, horizon *known)
{
    int latest[MOE_STREAMS];
    int latest_compute[MOE_STREAMS];
    for (int s = 0; s < MOE_STREAMS; s++) {
        latest[s] = latest_compute[s] = -1;
    }
    for (int id = 0; id < program->op_count; id++) {
        const moe_op *op = &program->ops[id];
        known[id] = horizon_of(program, known, latest, id);
        for (int s = 0; takes_sms(op) && s < MOE_STREAMS; s++) {
            if (latest_compute[s] > known[id].last[s]) {
                return false;
            }
        }
        latest[op->stream] = id;
        if (op->kind == MOE_OP_COMPUTE) {
            latest_compute[op->stream] = id;
        }
    }
    return true;
}

static const char *check_issue_order(const moe_program *program)
{
    horizon *known = moe_need(malloc(((size_t)program->op_count + 1) * sizeof *known));
    bool passes = passes_in_order(program, known);
    free(known);
    return passes ? NULL
                  : "a collective that takes SMs stands after computation that it can run beside";
}

const char *moe_program_check(const moe_program *program)
{
    if (program->cluster == NULL || program->devices != program->cluster->devices) {
        return "the program is not for its cluster's devices";
    }
    for (int id = 0; id < program->op_count; id++) {
        const moe_op *op = &program->ops[id];
        const char *wrong = check_labels(op);
        if (wrong == NULL) {
            wrong = check_waits(program, id);
        }
        if (wrong == NULL) {
            wrong = op->kind == MOE_OP_COLLECTIVE ? check_collective(program, op)
                                                  : check_durations(program, op);
        }
        if (wrong != NULL) {
            return wrong;
        }
    }
    return check_issue_order(program);
}
