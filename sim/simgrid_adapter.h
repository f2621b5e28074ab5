/* The one place that knows SimGrid's C++ interface (its C interface lacks priorities and callbacks).
 *
 * Built as a module and loaded with dlopen by runs that need it. The simulation runs in SimGrid's
 * maestro context, without actors: `run` returns when nothing is pending, and calls back for every
 * drained load and every alarm, in time order; callbacks may start loads and set alarms. Measured:
 * 1.2 million executions/s at 72 ports, six times what a long-lived actor awaiting them in order
 * reaches. All state is the process's: SimGrid allows one engine a process, so a run is a forked child. */
#ifndef MOE_SIM_SIMGRID_ADAPTER_H
#define MOE_SIM_SIMGRID_ADAPTER_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct moe_simgrid moe_simgrid;

typedef struct moe_simgrid_callbacks {
    void (*drained)(void *context, int token, double now_s);
    void (*alarm)(void *context, double now_s);
} moe_simgrid_callbacks;

typedef struct moe_simgrid_interface {
    const char *version; /* "SimGrid 3.32" */
    /* One resource per port with its rate; precision of dates as small as SimGrid takes. */
    moe_simgrid *(*open)(int port_count, const double *rates_bytes_per_s,
                         moe_simgrid_callbacks callbacks, void *context);
    /* `amount` of work on a port with a share in proportion to `weight`; `token` (>= 0) comes back in
     * `drained`. Legal from callbacks and between runs. */
    void (*load)(moe_simgrid *simgrid, int port, double amount, double weight, int token);
    /* One alarm at an absolute date not in the past; several may be pending. */
    void (*alarm_at)(moe_simgrid *simgrid, double date_s);
    double (*now)(const moe_simgrid *simgrid);
    /* Until nothing is pending. 0, or -1 if SimGrid stopped early. */
    int (*run)(moe_simgrid *simgrid);
} moe_simgrid_interface;

/* The module's only exported symbol. */
typedef const moe_simgrid_interface *(*moe_simgrid_entry)(void);
#define MOE_SIMGRID_ENTRY "moe_simgrid_get"

#ifdef __cplusplus
}
#endif
#endif
