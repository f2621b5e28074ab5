/* What the engines on SimGrid share: R1, R2, R4 and R5 of models/program.h as events in time order. An
 * engine adds how collectives drain (R3), as four hooks. Private to sim/.
 *
 * Two clocks. Times here are those of the step. SimGrid's clock only moves while it has loads;
 * `origin_s` maps one to the other, and is set anew when the first load begins. While SimGrid has
 * none, events come from a heap without waking it; while it has some, an alarm stands for the
 * earliest event and SimGrid calls back.
 *
 * Ports of SimGrid's change their speed at the very dates that models/speed.h says; computations,
 * which SimGrid never sees, integrate it.
 *
 * An instance counts what it still waits for, the instance before it on its stream included, and is
 * started by whoever ends last. */
#ifndef MOE_SIM_EXECUTION_H
#define MOE_SIM_EXECUTION_H

#include "sim/engine.h"
#include "sim/simgrid_adapter.h"

typedef enum moe_event_kind {
    MOE_EVENT_END,   /* unit: device; an instance ends */
    MOE_EVENT_FLOW,  /* alpha is over: the collective loads its ports */
    MOE_EVENT_DRAIN, /* the engine's own: for its hook `event` */
    MOE_EVENT_SPEED, /* unit: port; its speed changes */
} moe_event_kind;

typedef struct moe_event {
    double time_s;
    unsigned order; /* equal times: as they were made */
    moe_event_kind kind;
    int op;
    int unit;
} moe_event;

typedef struct moe_execution moe_execution;

typedef struct moe_execution_hooks {
    const char *engine;                             /* its name */
    void (*prepare)(moe_execution *execution);      /* a step begins: `program` is set */
    void (*flow)(moe_execution *execution, int op); /* S + alpha */
    void (*event)(moe_execution *execution, const moe_event *event);
    void (*drained)(moe_execution *execution, int token); /* a load of SimGrid's */
} moe_execution_hooks;

/* An engine's state begins with this one, in the same talloc block. */
struct moe_execution {
    const moe_execution_hooks *hooks;
    const moe_cluster *cluster;
    moe_sharing sharing;
    const moe_simgrid_interface *interface;
    moe_simgrid *simgrid;

    const moe_program *program; /* of the step at hand, as all below */
    moe_timeline *timeline;
    double now_s;
    double origin_s; /* SimGrid's date of time 0; holds while `loads` > 0 */
    double armed_s;  /* SimGrid's date of the earliest pending alarm */
    int loads;       /* in SimGrid */
    size_t ended;    /* instances */

    struct op_state *ops; /* [op_count + 1] */
    int *successors;
    int *missing; /* [op][device]: what the instance still waits for */
    size_t op_capacity, successor_capacity, missing_capacity;

    bool ports_changed; /* some port of SimGrid's is not at its nominal speed */

    struct slot *slots;    /* [device][stream] */
    struct takers *takers; /* [device] */

    moe_event *heap;
    size_t heap_count, heap_capacity;
    unsigned next_order;
    struct instance *finished; /* ended now; successors not yet told */
    size_t finished_count, finished_capacity;
};

/* `platform`: what SimGrid shares; its ports are filled in from the cluster. False after a printed
 * error. */
bool moe_execution_open(moe_execution *execution, const moe_cluster *cluster,
                        const moe_sharing *sharing, const moe_execution_hooks *hooks,
                        moe_simgrid_platform platform, moe_diag *diag);
moe_status moe_execution_run(moe_execution *execution, const moe_program *program,
                             moe_timeline *timeline, moe_diag *diag);

/* --- for hooks -------------------------------------------------------------------------------- */

void moe_execution_push(moe_execution *execution, double time_s, moe_event_kind kind, int op,
                        int unit);
/* R4: all that the participant waits for has drained now. */
void moe_execution_leave(moe_execution *execution, int op, int device);
/* Gives SimGrid a load (see its adapter). */
void moe_execution_load(moe_execution *execution, int place, double amount, double weight,
                        int token);
/* `array`, or a longer one in its place, owned by the execution. */
void *moe_execution_grown(moe_execution *execution, void *array, size_t *capacity, size_t count,
                          size_t size);

#endif
