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
 *
 * Where no two collectives are under way on one port together, the engines agree but for rounding. */
#ifndef MOE_SIM_ENGINE_H
#define MOE_SIM_ENGINE_H

#include "models/program.h"
#include "models/timeline.h"

/* How collectives that load a port at the same time divide its rate. */
typedef enum moe_sharing {
    MOE_SHARE_PER_COLLECTIVE, /* equal parts (default) */
    MOE_SHARE_PER_FLOW,       /* in proportion to the transfers each has on the port */
} moe_sharing;
extern const char *const moe_sharing_names[]; /* "per_collective", "per_flow"; NULL-terminated */

typedef struct moe_engine {
    const char *name;
    const char *sentence;
    const char *network_model; /* for provenance */
    /* State of one run in this process, owned by `owner`. NULL after a printed error. A SimGrid engine
     * can be opened once in a process: run it in a forked child (sim/workers.h). */
    void *(*open)(void *owner, const moe_cluster *cluster, moe_sharing sharing, moe_diag *diag);
    /* Executes one step from time 0 and fills `timeline` (reserved by the engine). */
    moe_status (*execute)(void *state, const moe_program *program, moe_timeline *timeline,
                          moe_diag *diag);
    void (*close)(void *state);
} moe_engine;

extern const moe_engine moe_engine_analytic;
extern const moe_engine moe_engine_fluid;
extern const moe_engine *const moe_engines[]; /* NULL-terminated; the default first: fluid */

/* NULL when unknown. */
const moe_engine *moe_engine_find(const char *name);

/* For engines (R4). last[device]: of the loaded ports that `device` touches, the index in
 * traffic->ports of the one with the latest drain_s; -1 where it touches none. Arrays of
 * traffic->port_count and traffic->devices. */
void moe_engine_last_ports(const moe_traffic *traffic, const double *drain_s, int *last);

#endif
