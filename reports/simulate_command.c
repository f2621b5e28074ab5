/* moeplan simulate SCENARIO.yaml ...: the main job. */
#include "configs/base/output.h"
#include "reports/commands.h"
#include "reports/progress.h"
#include "reports/report.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { KEY_SET = 256, KEY_OUT, KEY_JSON, KEY_DUMP, KEY_LAWS };

typedef struct text_list {
    const char **items;
    size_t count;
} text_list;

typedef struct simulate_arguments {
    void *owner;
    const char *scenario;
    text_list policies;
    text_list overrides;
    const char *engine;
    const char *out;
    int jobs;
    bool json;
    bool dump_config;
    bool check_laws;
} simulate_arguments;

static const struct argp_option options[] = {
    {"policy", 'p', "NAME", 0,
     "Simulate this policy of the scenario (or any known one); repeatable", 0},
    {"engine", 'e', "NAME", 0, "fluid or analytic, instead of the scenario's", 0},
    {"set", KEY_SET, "KEY.PATH=VALUE", 0,
     "Override a key of the scenario or of a file it names; repeatable", 0},
    {"out", KEY_OUT, "DIR", 0, "Write result.json, report.txt and scenario.yaml there", 0},
    {"json", KEY_JSON, 0, 0, "One JSON object on standard output instead of the table", 0},
    {"jobs", 'j', "N", 0, "Worker processes (default: one a processor); never changes a result", 0},
    {"dump-config", KEY_DUMP, 0, 0, "Print the effective scenario, defaults included, and stop", 0},
    {"check-laws", KEY_LAWS, 0, 0,
     "Check conservation laws after every step (debug builds always do)", 0},
    {0}};

static void append_text(simulate_arguments *arguments, text_list *texts, const char *text)
{
    texts->items = talloc_realloc(arguments->owner, texts->items, const char *, texts->count + 1);
    texts->items[texts->count++] = text;
}

static error_t parse_jobs(simulate_arguments *arguments, const char *text, struct argp_state *state)
{
    char *end;
    long jobs = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || jobs < 1 || jobs > 1024)
        argp_error(state, "--jobs %s: expected a number between 1 and 1024", text);
    arguments->jobs = (int)jobs;
    return 0;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    simulate_arguments *arguments = state->input;
    switch (key) {
    case 'p':
        append_text(arguments, &arguments->policies, text);
        return 0;
    case 'e':
        arguments->engine = text;
        return 0;
    case 'j':
        return parse_jobs(arguments, text, state);
    case KEY_SET:
        append_text(arguments, &arguments->overrides, text);
        return 0;
    case KEY_OUT:
        arguments->out = text;
        return 0;
    case KEY_JSON:
        arguments->json = true;
        return 0;
    case KEY_DUMP:
        arguments->dump_config = true;
        return 0;
    case KEY_LAWS:
        arguments->check_laws = true;
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

static int find_use(const moe_scenario *scenario, const char *name)
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
static bool add_known_policies(simulate_arguments *arguments, const moe_binding *binding,
                               moe_diag *diag)
{
    size_t next = binding->scenario->policies.count;
    for (size_t i = 0; i < arguments->policies.count; i++) {
        const char *name = arguments->policies.items[i];
        if (find_use(binding->scenario, name) >= 0)
            continue;
        if (moe_policy_find(name) == NULL) {
            report_unknown_policy(binding, name, diag);
            return false;
        }
        append_text(arguments, &arguments->overrides,
                    talloc_asprintf(arguments->owner, "policies.%zu={name: %s}", next++, name));
    }
    return next > binding->scenario->policies.count;
}

static moe_binding *bind(simulate_arguments *arguments, moe_diag *diag)
{
    moe_binding *binding =
        moe_binding_create(arguments->owner, arguments->scenario, arguments->overrides.items,
                           arguments->overrides.count, arguments->engine, diag);
    if (binding == NULL || !add_known_policies(arguments, binding, diag))
        return moe_diag_error_count(diag) == 0 ? binding : NULL;
    return moe_binding_create(arguments->owner, arguments->scenario, arguments->overrides.items,
                              arguments->overrides.count, arguments->engine, diag);
}

static int *choose_policies(const simulate_arguments *arguments, const moe_binding *binding,
                            int *count)
{
    bool all = arguments->policies.count == 0;
    *count = (int)(all ? binding->scenario->policies.count : arguments->policies.count);
    int *chosen = talloc_array(arguments->owner, int, (unsigned)*count);
    for (int i = 0; i < *count; i++)
        chosen[i] = all ? i : find_use(binding->scenario, arguments->policies.items[i]);
    return chosen;
}

/* --- writing ------------------------------------------------------------------------------------
 */

static void write_json(const moe_binding *binding, const moe_run *run, FILE *stream)
{
    json_t *json = moe_report_json(binding, run);
    json_dumpf(json, stream, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    fputc('\n', stream);
    json_decref(json);
}

static void write_config(const moe_binding *binding, const moe_run *run, FILE *stream)
{
    (void)run;
    moe_config_dump(binding->config, stream);
}

typedef void (*file_writer)(const moe_binding *binding, const moe_run *run, FILE *stream);

static moe_status write_file(const simulate_arguments *arguments, const char *name,
                             file_writer write, const moe_binding *binding, const moe_run *run,
                             moe_diag *diag)
{
    char *path = talloc_asprintf(arguments->owner, "%s/%s", arguments->out, name);
    moe_output *output = moe_output_open(arguments->owner, path, diag);
    if (output == NULL)
        return MOE_INTERNAL;
    write(binding, run, moe_output_stream(output));
    return moe_output_commit(output, diag);
}

static moe_status write_folder(const simulate_arguments *arguments, const moe_binding *binding,
                               const moe_run *run, moe_diag *diag)
{
    static const struct {
        const char *name;
        file_writer write;
    } files[] = {{"scenario.yaml", write_config},
                 {"report.txt", moe_report_text},
                 {"result.json", write_json}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        moe_status status =
            write_file(arguments, files[i].name, files[i].write, binding, run, diag);
        if (status != MOE_OK)
            return status;
    }
    return MOE_OK;
}

static moe_status publish(const simulate_arguments *arguments, const moe_binding *binding,
                          const moe_run *run, moe_diag *diag)
{
    moe_status status = MOE_OK;
    if (arguments->json)
        write_json(binding, run, stdout);
    else
        moe_report_text(binding, run, stdout);
    if (arguments->out != NULL)
        status = write_folder(arguments, binding, run, diag);
    for (int p = 0; p < run->policy_count && status == MOE_OK; p++)
        if (!moe_result_fits(&run->policies[p].result))
            status = MOE_INFEASIBLE;
    return status;
}

/* --- the command --------------------------------------------------------------------------------
 */

static bool laws_are_always_checked(void)
{
#ifdef NDEBUG
    return false;
#else
    return true;
#endif
}

static moe_status simulate(simulate_arguments *arguments, moe_diag *diag)
{
    moe_status status;
    moe_progress progress;
    moe_binding *binding = bind(arguments, diag);
    if (binding == NULL)
        return MOE_BAD_INPUT;
    if (arguments->dump_config) {
        moe_config_dump(binding->config, stdout);
        return MOE_OK;
    }
    /* Before the work, not after it: an unwritable folder should not cost a run. */
    if (arguments->out != NULL && moe_folder_create(arguments->out, diag) != MOE_OK)
        return MOE_INTERNAL;
    moe_run_options run_options = {
        .jobs = arguments->jobs,
        .check_laws = arguments->check_laws || laws_are_always_checked(),
        .progress = moe_progress_show,
        .progress_context = &progress,
    };
    int count;
    int *chosen = choose_policies(arguments, binding, &count);
    moe_progress_start(&progress);
    const moe_run *run =
        moe_run_scenario(arguments->owner, binding, chosen, count, &run_options, &status, diag);
    moe_progress_end(&progress);
    return run != NULL ? publish(arguments, binding, run, diag) : status;
}

int moe_simulate_command(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse_option,
        "SCENARIO.yaml",
        "Simulate the policies of a scenario over its trace and compare them.\v"
        "Exit status: 0 fine, 1 bad input, 2 a policy does not fit into memory, 64 usage, 70 "
        "internal.",
        NULL,
        NULL,
        NULL};
    simulate_arguments arguments = {
        /* One byte: argp may exit, and a leak checker does not see a pointer past an empty block. */
        .owner = talloc_size(NULL, 1)};
    argp_err_exit_status = MOE_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
    moe_diag *diag = moe_diag_create(arguments.owner, stderr);
    moe_status status = simulate(&arguments, diag);
    talloc_free(arguments.owner);
    return status;
}
