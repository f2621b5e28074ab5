#include "reports/scenario_arguments.h"

#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* --- parsing ------------------------------------------------------------------------------------
 */

static void append(moe_scenario_arguments *arguments, moe_texts *texts, const char *text)
{
    texts->items = talloc_realloc(arguments->owner, texts->items, const char *, texts->count + 1);
    texts->items[texts->count++] = text;
}

static error_t parse_jobs(moe_scenario_arguments *arguments, const char *text,
                          struct argp_state *state)
{
    char *end;
    long jobs = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || jobs < 1 || jobs > 1024)
        argp_error(state, "--jobs %s: expected a number between 1 and 1024", text);
    arguments->jobs = (int)jobs;
    return 0;
}

error_t moe_scenario_parse(moe_scenario_arguments *arguments, int key, char *text,
                           struct argp_state *state)
{
    switch (key) {
    case MOE_KEY_POLICY:
        append(arguments, &arguments->policies, text);
        return 0;
    case MOE_KEY_ENGINE:
        arguments->engine = text;
        return 0;
    case MOE_KEY_JOBS:
        return parse_jobs(arguments, text, state);
    case MOE_KEY_SET:
        append(arguments, &arguments->overrides, text);
        return 0;
    case ARGP_KEY_ARG:
        if (arguments->scenario != NULL)
            argp_error(state, "a second scenario \"%s\", expected one", text);
        arguments->scenario = text;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no scenario, expected a YAML file");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* --- which policies -----------------------------------------------------------------------------
 */

int moe_scenario_find_policy(const moe_scenario *scenario, const char *name)
{
    const moe_policy_use *uses = scenario->policies.items;
    for (size_t i = 0; i < scenario->policies.count; i++)
        if (strcmp(uses[i].name, name) == 0)
            return (int)i;
    return -1;
}

static void report_unknown_policy(const moe_binding *binding, const char *name, moe_diag *diag)
{
    const moe_policy_use *uses = binding->scenario->policies.items;
    char *names = talloc_strdup(NULL, "");
    for (size_t i = 0; i < binding->scenario->policies.count; i++)
        names = talloc_asprintf_append(names, "%s%s", i > 0 ? ", " : "", uses[i].name);
    moe_diag_error(diag, (moe_where){0},
                   "no policy named \"%s\", expected one of the scenario's (%s) or of "
                   "`moeplan list policies`",
                   name, names);
    talloc_free(names);
}

/* A policy that the scenario does not list but that exists joins it with its defaults. Whether any
 * did. */
static bool add_known_policies(moe_scenario_arguments *arguments, const moe_binding *binding,
                               moe_diag *diag)
{
    size_t next = binding->scenario->policies.count;
    for (size_t i = 0; i < arguments->policies.count; i++) {
        const char *name = arguments->policies.items[i];
        if (moe_scenario_find_policy(binding->scenario, name) >= 0)
            continue;
        if (moe_policy_find(name) == NULL) {
            report_unknown_policy(binding, name, diag);
            return false;
        }
        append(arguments, &arguments->overrides,
               talloc_asprintf(arguments->owner, "policies.%zu={name: %s}", next++, name));
    }
    return next > binding->scenario->policies.count;
}

moe_binding *moe_scenario_bind(moe_scenario_arguments *arguments, moe_diag *diag)
{
    moe_binding *binding =
        moe_binding_create(arguments->owner, arguments->scenario, arguments->overrides.items,
                           arguments->overrides.count, arguments->engine, diag);
    if (binding == NULL || !add_known_policies(arguments, binding, diag))
        return moe_diag_error_count(diag) == 0 ? binding : NULL;
    return moe_binding_create(arguments->owner, arguments->scenario, arguments->overrides.items,
                              arguments->overrides.count, arguments->engine, diag);
}

int moe_scenario_choose(const moe_scenario_arguments *arguments, const moe_binding *binding,
                        int **chosen)
{
    bool all = arguments->policies.count == 0;
    int count = (int)(all ? binding->scenario->policies.count : arguments->policies.count);
    *chosen = talloc_array(arguments->owner, int, (unsigned)count);
    for (int i = 0; i < count; i++)
        (*chosen)[i] =
            all ? i : moe_scenario_find_policy(binding->scenario, arguments->policies.items[i]);
    return count;
}

bool moe_laws_are_always_checked(void)
{
#ifdef NDEBUG
    return false;
#else
    return true;
#endif
}
