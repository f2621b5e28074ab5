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

/* What shares. */
typedef enum moe_simgrid_model {
    /* Ports are CPUs (model Cas01), a load is an execution on one of them. */
    MOE_SIMGRID_PORTS,
    /* Ports are links of no latency (model CM02, whose correction factors are all off, without
     * cross-traffic), a load is a communication over a path of them. */
    MOE_SIMGRID_PATHS,
} moe_simgrid_model;

typedef struct moe_simgrid_platform {
    moe_simgrid_model model;
    int port_count;
    const double *rates_bytes_per_s; /* [port_count] */
    int path_count;                  /* PATHS only, as below */
    const int *first; /* [path_count + 1]: path p has ports[first[p] .. first[p + 1]) */
    const int *ports;
} moe_simgrid_platform;

typedef struct moe_simgrid_callbacks {
    void (*drained)(void *context, int token, double now_s);
    void (*alarm)(void *context, double now_s);
} moe_simgrid_callbacks;

typedef struct moe_simgrid_interface {
    const char *version; /* "SimGrid 3.32" */
    /* One resource per port with its rate; precision of dates as small as SimGrid takes. NULL when
     * opened before in this process. */
    moe_simgrid *(*open)(const moe_simgrid_platform *platform, moe_simgrid_callbacks callbacks,
                         void *context);
    /* `amount` of work on a port (PATHS: through every port of a path) with a share in proportion to
     * `weight`, max-min fair; `token` (>= 0) comes back in `drained`. Legal from callbacks and between
     * runs. */
    void (*load)(moe_simgrid *simgrid, int place, double amount, double weight, int token);
    /* From now on the port works at `factor` (> 0) times its rate. Legal wherever `load` is. */
    void (*set_speed)(moe_simgrid *simgrid, int port, double factor);
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
