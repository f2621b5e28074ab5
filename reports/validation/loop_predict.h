/* What the simulator says of the loop's steps, part by part, and what the real ones took. */
#ifndef MOE_REPORTS_VALIDATION_LOOP_PREDICT_H
#define MOE_REPORTS_VALIDATION_LOOP_PREDICT_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include "reports/validation/loop_case.h"

/* Means over ranks. Exchanges and gradients: from the last rank's arrival on; waiting for it is apart. */
typedef enum moe_loop_part {
    MOE_LOOP_ATTENTION, /* and gate */
    MOE_LOOP_EXPERT,
    MOE_LOOP_PERMUTE,
    MOE_LOOP_EXCHANGE, /* dispatch, combine, counts */
    MOE_LOOP_HEAD,     /* embedding, LM head, loss */
    MOE_LOOP_GRADIENTS,
    MOE_LOOP_OPTIMIZER,
    MOE_LOOP_WAIT,
    MOE_LOOP_PARTS
} moe_loop_part;
extern const char *const moe_loop_part_names[]; /* NULL-terminated */

typedef struct moe_loop_times {
    double step_s;     /* predicted: by `fluid` */
    double analytic_s; /* predicted alone */
    double parts_s[MOE_LOOP_PARTS];
} moe_loop_times;

/* times[instances] from the scenario file. */
moe_status moe_loop_predict(const moe_loop_case *of, const char *scenario, moe_loop_times *times,
                            moe_diag *diag);

/* times[instances] from what `moecal-cpu --step` wrote: the median repetition. */
moe_status moe_loop_read(const moe_loop_case *of, const char *result, moe_loop_times *times,
                         moe_diag *diag);

#endif
