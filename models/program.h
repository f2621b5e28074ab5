/* A step program: the operations of one step on the streams of every device, as engines execute it.
 *
 * One `moe_op` stands for one *instance per device*: the same operation on all devices, each with its
 * own duration. Devices meet only in collectives. Rules that every engine follows:
 *
 *   R1  An instance starts when the instance before it on its device's stream has ended and the
 *       instances, on the same device, of all operations it waits for have ended.
 *   R2  A compute, copy or host instance carries duration_s[device] of work. A compute instance works
 *       at pace 1 - (sum of sm_share of the collectives under way on its device, at most 0.9) times
 *       the device's speed (models/speed.h): it ends where the integral of that is its work. Copy and
 *       host instances work at pace 1.
 *   R3  A collective starts at S = the last participant's readiness (R1). A device that takes no part
 *       passes at its own readiness, taking no time. From S + alpha its work drains through the
 *       ports, port k at rate[k] times its speed; alone and at nominal speed it is drained at S +
 *       alpha + work[k] / rate[k]. How two collectives share a port is the engine's (analytic: they do
 *       not notice each other).
 *   R4  A participant's ports are done at T = the last drain among the ports it touches; it leaves at
 *       S + slowdown * (T - S). The collective is under way on it from S until it leaves.
 *   R5  Every step starts on an idle cluster at time 0 and ends with its last instance.
 *
 * An operation's own draws (moe_speed_work) are part of its work, on each device and port.
 *
 * `slowdown` stretches a collective that runs beside computation for its whole length; that part of it
 * which outlives the computation is not sped up again (an overestimate of an exposed tail, by at most
 * the factor).
 *
 * Program order is issue order per stream, and a topological order over all. One rule binds builders:
 * a collective with sm_share > 0 stands in the program before every compute operation that it can
 * run beside, so that one pass in program order suffices to execute a program without sharing. */
#ifndef MOE_MODELS_PROGRAM_H
#define MOE_MODELS_PROGRAM_H

#include "models/collective.h"
#include "models/speed.h"

typedef enum moe_op_kind { MOE_OP_COMPUTE, MOE_OP_COLLECTIVE, MOE_OP_COPY, MOE_OP_HOST } moe_op_kind;

/* Where time went: the keys of "breakdown_s"; MOE_WAIT is idleness, no operation has it. */
typedef enum moe_part {
    MOE_DENSE,
    MOE_EXPERT,
    MOE_DISPATCH,
    MOE_COMBINE,
    MOE_MATERIALIZE,
    MOE_REDUCE_PART,
    MOE_REARRANGE,
    MOE_GRADIENT_SYNC,
    MOE_OPTIMIZER,
    MOE_HOST,
    MOE_WAIT,
    MOE_PARTS
} moe_part;
extern const char *const moe_part_names[]; /* "dense", "expert", ..., "reduce", ..., "wait" */

typedef enum moe_stream {
    MOE_STREAM_HOST,
    MOE_STREAM_COMPUTE,
    MOE_STREAM_EXCHANGE, /* dispatch, combine, counts, re-sharding */
    MOE_STREAM_SPARSE,   /* materialization and its reduction */
    MOE_STREAM_GRADIENT, /* gradient synchronisation */
    MOE_STREAM_COPY,
    MOE_STREAMS
} moe_stream;

typedef struct moe_op {
    const char *name; /* static text: "attention forward" */
    moe_op_kind kind;
    moe_part part;
    moe_stream stream;
    int layer;       /* the network's number, dense layers counted; -1: none */
    int micro_batch; /* -1: none */
    const double *duration_s;   /* [devices]; NULL for a collective */
    const moe_traffic *traffic; /* collectives; NULL: nothing crosses, every device passes at once */
    double slowdown;            /* >= 1 */
    double sm_share;            /* [0, 0.9] */
    int first_wait;             /* waits[first_wait .. first_wait + wait_count): earlier operations */
    int wait_count;
} moe_op;

typedef struct moe_program {
    int devices;
    int op_count;
    const moe_op *ops; /* in program order */
    const int *waits;
    int wait_total;
    const moe_cluster *cluster;
    const moe_speed *speed; /* of the step; NULL: everything at its nominal speed */
} moe_program;

/* Checks what the comment above promises: waits point backwards, arrays present, durations finite and
 * >= 0, loads on existing ports that a participant touches, the rule of issue order. Returns NULL or a
 * static description of the first violation. */
const char *moe_program_check(const moe_program *program);

/* --- building --------------------------------------------------------------------------------- */

typedef struct moe_program_builder moe_program_builder;

/* Everything lives in `arena`. */
moe_program_builder *moe_program_begin(moe_arena *arena, const moe_cluster *cluster);
/* Adds `op` (its wait fields are ignored) that waits for waits[count]; an id below 0 in `waits` is
 * skipped. Returns its id. */
int moe_program_add(moe_program_builder *builder, const moe_op *op, const int *waits, int count);
moe_program *moe_program_end(moe_program_builder *builder);

#endif
