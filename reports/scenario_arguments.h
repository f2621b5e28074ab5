/* What the commands that run a scenario share: its path, --set, --engine, --jobs, and policies by
 * name. */
#ifndef MOE_REPORTS_SCENARIO_ARGUMENTS_H
#define MOE_REPORTS_SCENARIO_ARGUMENTS_H

#include "sim/scenario.h"
#include <argp.h>

typedef struct moe_texts {
    const char **items;
    size_t count;
} moe_texts;

typedef struct moe_scenario_arguments {
    void *owner;
    const char *scenario;
    moe_texts policies; /* --policy; none: all of the scenario's */
    moe_texts overrides;
    const char *engine;
    int jobs;
} moe_scenario_arguments;

/* Keys of the options that the function below parses; a command's own begin at MOE_KEY_OWN. */
enum {
    MOE_KEY_POLICY = 'p',
    MOE_KEY_ENGINE = 'e',
    MOE_KEY_JOBS = 'j',
    MOE_KEY_SET = 256,
    MOE_KEY_OWN
};

/* For an argp parser: these options and the scenario itself; ARGP_ERR_UNKNOWN for all else. */
error_t moe_scenario_parse(moe_scenario_arguments *arguments, int key, char *text,
                           struct argp_state *state);

/* The scenario with its overrides; a policy that --policy names and it does not list joins it with its
 * defaults. NULL after printed errors. */
moe_binding *moe_scenario_bind(moe_scenario_arguments *arguments, moe_diag *diag);

/* Index of the scenario's policy of that name; -1: none. */
int moe_scenario_find_policy(const moe_scenario *scenario, const char *name);

/* The policies to run: those named, or all. Their number. */
int moe_scenario_choose(const moe_scenario_arguments *arguments, const moe_binding *binding,
                        int **chosen);

/* Whether laws are checked without being asked for: in debug builds. */
bool moe_laws_are_always_checked(void);

#endif
