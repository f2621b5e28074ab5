/* Stragglers: how fast devices and ports are at a time of a step, relative to their nominal speed.
 *
 * What it models. A *unit* is a device's computation or a port. Its speed is 1 times the factor of every
 * straggler under way there, piecewise constant in time; engines integrate it exactly (R2, R3 of
 * models/program.h). A straggler concerns
 *
 *   what          compute   computation of its devices
 *                 nic       NICs of its devices or hosts, in both directions
 *                 intra     links of its devices inside the host or NVLink domain, in both directions; of a
 *                           whole host also what its devices share (PCIe switches, their bridge)
 *   where         `devices` and `hosts`, by their number in the cluster; neither: everywhere
 *   when          steps [first_step, first_step + steps) of the run; within a step from `from` on, for
 *                 `for` (0: to its end)
 *   how much      `factor`, with `probability`, divided by a random J, mean 1 and standard deviation `spread`:
 *                     normal      1 + spread * N(0, 1), at least 0.1
 *                     lognormal   exp(s * N(0, 1) - s^2 / 2), s^2 = ln(1 + spread^2)
 *                     gamma       shape 1 / spread^2, scale spread^2
 *                 so J multiplies the time that work takes, and is its coefficient of variation
 *   correlation   who shares a draw of a step: everything on a device (or NIC), everything of a host, or
 *                 nobody: each operation draws anew on each device (or NIC), for all of its work
 *
 * Draws depend on (seed, step, straggler) and the place they are for: not on what else is selected,
 * nor on the policy, engine or worker. Operations of different policies are different ones, so
 * draws per operation are as many but not the same.
 *
 * What it ignores: alpha of collectives, copies and the host always take their nominal time. */
#ifndef MOE_MODELS_SPEED_H
#define MOE_MODELS_SPEED_H

#include "models/cluster.h"

typedef enum moe_straggler_what {
    MOE_SLOW_COMPUTE,
    MOE_SLOW_NIC,
    MOE_SLOW_INTRA
} moe_straggler_what;
typedef enum moe_jitter {
    MOE_JITTER_NONE,
    MOE_JITTER_NORMAL,
    MOE_JITTER_LOGNORMAL,
    MOE_JITTER_GAMMA
} moe_jitter;
typedef enum moe_correlation {
    MOE_DRAW_PER_OPERATION,
    MOE_DRAW_PER_DEVICE,
    MOE_DRAW_PER_HOST
} moe_correlation;

typedef struct moe_straggler {
    int what; /* moe_straggler_what */
    moe_reals devices;
    moe_reals hosts;
    double factor; /* times the nominal speed */
    double from_s, for_s;
    int64_t first_step, steps;
    double probability;
    int distribution; /* moe_jitter */
    double spread;
    int correlation; /* moe_correlation */
} moe_straggler;

extern const moe_table moe_straggler_table;

/* Relations between keys, and places that the cluster lacks. MOE_BAD_INPUT after printed errors. */
moe_status moe_stragglers_check(const moe_list *stragglers, const moe_cluster *cluster,
                                const moe_config *config, moe_diag *diag);

typedef struct moe_speed moe_speed;

/* Owned by `owner`, borrows the other two; the cluster's ranks must have their seats. NULL where
 * `stragglers` is empty: nominal speed, which is what every function below takes NULL for. */
moe_speed *moe_speed_create(void *owner, const moe_cluster *cluster, const moe_list *stragglers,
                            uint64_t seed);
/* Makes it the speed of step `step` of the run, a program of `op_count` operations. */
void moe_speed_draw(moe_speed *speed, int64_t step, int op_count);

/* Units: a device's computation is the rank's own number; a port: */
static inline int moe_speed_port(const moe_cluster *cluster, int port)
{
    return cluster->devices + port;
}

/* At `time_s`; *until_s: up to when it holds (INFINITY: to the end of the step). */
double moe_speed_at(const moe_speed *speed, int unit, double time_s, double *until_s);
/* When work that would take `work_s` at nominal speed is done; begun at `start_s`. */
double moe_speed_finish(const moe_speed *speed, int unit, double start_s, double work_s);
/* The work, in seconds at nominal speed, that is done from one time to another. */
double moe_speed_done(const moe_speed *speed, int unit, double from_s, double to_s);
/* What of an operation's own draws makes of its work on the unit. */
double moe_speed_work(const moe_speed *speed, int op, int unit, double work_s);
/* Whether its speed changes during the step, or is not nominal. */
bool moe_speed_is_nominal(const moe_speed *speed, int unit);

#endif
