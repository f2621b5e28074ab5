/* What the loop runs: a small MoE, the suite that measures its parts, and the steps that are predicted.
 *
 * Instances are dispatches of a recorded trace (traces/samples, a router without balancing), folded to the ranks,
 * and one with uniform counts. None of them is in the suite, whose experts have uniform and power-law rows and
 * whose exchanges are uniform but for two with one hot receiver. */
#ifndef MOE_REPORTS_VALIDATION_LOOP_CASE_H
#define MOE_REPORTS_VALIDATION_LOOP_CASE_H

#include "configs/base/diag.h"
#include "configs/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { MOE_LOOP_INSTANCES = 8, MOE_LOOP_EXPERTS = 16 };

typedef struct moe_loop_case {
    int ranks, layers;
    int hidden, ffn, top_k, heads, sequence, vocabulary;
    int tokens;      /* of a rank */
    int repetitions; /* of a step */
    double seconds;  /* of measuring a point */
    int instances;
    const char *names[MOE_LOOP_INSTANCES];
    uint32_t *counts; /* [instances][layers][ranks][experts] assignments */
} moe_loop_case;

/* Owned by `owner`; NULL after printed errors. `ranks` divides MOE_LOOP_EXPERTS. */
moe_loop_case *moe_loop_case_create(void *owner, int ranks, bool quick, moe_diag *diag);

/* The model as a preset's YAML. */
void moe_loop_write_model(const moe_loop_case *of, FILE *stream);
/* The scenario that simulates all instances: files cluster.yaml, model.yaml, profile.yaml and
 * instances.safetensors beside it. */
void moe_loop_write_scenario(const moe_loop_case *of, FILE *stream);
/* instances.safetensors: an iteration each. */
moe_status moe_loop_write_trace(const moe_loop_case *of, const char *path, moe_diag *diag);

/* For `moecal-cpu --suite` and `--step` (calibrate/SAMPLES.md). New references. */
json_t *moe_loop_suite(const moe_loop_case *of);
json_t *moe_loop_step(const moe_loop_case *of);

#endif
