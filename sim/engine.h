/* Engines execute step programs under the rules R1-R5 of models/program.h.
 *
 * One file an engine, one const struct each, one table. All take the same program; they differ in
 * how two collectives that are under way together share a port (R3):
 *
 *   analytic   they do not notice each other. One pass in program order over flat arrays (max-plus); no
 *              SimGrid; allocates nothing once warm. The readable oracle, and what searches use.
 *   fluid      a port that several collectives load at once is a SimGrid resource, shared by them
 *              according to the sharing rule until each has drained; one that a collective has to
 *              itself drains by the rule, at its full rate.
 *   message    every transfer is a flow of SimGrid's network model over the ports of its path; flows
 *              share each port max-min fairly, within a collective as among several. The reference for
 *              fluid, on small clusters: its cost grows with the square of the number of transfers.
 *
 * Where no two collectives are under way on one port together, analytic and fluid agree but for
 * rounding; message also sees what the flows of one collective do to each other. */
#ifndef MOE_SIM_ENGINE_H
#define MOE_SIM_ENGINE_H

#include "models/program.h"
#include "models/timeline.h"

/* Zeroed: per collective. */
typedef struct moe_sharing {
    moe_sharing_rule rule;
    double weights[MOE_COLLECTIVE_KINDS]; /* > 0; WEIGHTED only */
} moe_sharing;

/* The part of a port that a collective of `kind` with `flows` transfers there gets, relative to others. */
double moe_sharing_weight(const moe_sharing *sharing, moe_collective_kind kind, double flows);

typedef struct moe_engine {
    const char *name;
    const char *sentence;
    const char *network_model; /* for provenance */
    /* State of one run in this process, owned by `owner`. NULL after a printed error. `sharing` NULL: per
     * collective. A SimGrid engine can be opened once in a process: run it in a forked child
     * (sim/workers.h). */
    void *(*open)(void *owner, const moe_cluster *cluster, const moe_sharing *sharing,
                  moe_diag *diag);
    /* Executes one step from time 0 and fills `timeline` (reserved by the engine). */
    moe_status (*execute)(void *state, const moe_program *program, moe_timeline *timeline,
                          moe_diag *diag);
    void (*close)(void *state);
} moe_engine;

extern const moe_engine moe_engine_analytic;
extern const moe_engine moe_engine_fluid;
extern const moe_engine moe_engine_message;
extern const moe_engine *const moe_engines[]; /* NULL-terminated; the default first: fluid */

/* NULL when unknown. */
const moe_engine *moe_engine_find(const char *name);

/* For engines (R4). last[device]: of the loaded ports that `device` touches, the index in
 * traffic->ports of the one with the latest drain_s; -1 where it touches none. Arrays of
 * traffic->port_count and traffic->devices. */
void moe_engine_last_ports(const moe_traffic *traffic, const double *drain_s, int *last);

#endif
