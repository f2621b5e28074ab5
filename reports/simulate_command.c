/* moeplan simulate SCENARIO.yaml ...: the main job. */
#include "configs/base/output.h"
#include "reports/commands.h"
#include "reports/progress.h"
#include "reports/report.h"
#include "reports/scenario_arguments.h"
#include "reports/timeline_file.h"
#include "sim/sensitivity.h"

#include <stdlib.h>
#include <talloc.h>

enum { KEY_OUT = MOE_KEY_OWN, KEY_JSON, KEY_DUMP, KEY_LAWS, KEY_TIMELINE, KEY_STEPS };

typedef struct simulate_arguments {
    moe_scenario_arguments common;
    const char *out;
    bool json;
    bool dump_config;
    bool check_laws;
    const char *timeline;
    int64_t timeline_steps;
    moe_output *timeline_output;
} simulate_arguments;

static const struct argp_option options[] = {
    {"policy", MOE_KEY_POLICY, "NAME", 0,
     "Simulate this policy of the scenario (or any known one); repeatable", 0},
    {"engine", MOE_KEY_ENGINE, "NAME", 0, "fluid, analytic or message, instead of the scenario's", 0},
    {"set", MOE_KEY_SET, "KEY.PATH=VALUE", 0,
     "Override a key of the scenario or of a file it names; repeatable", 0},
    {"out", KEY_OUT, "DIR", 0, "Write result.json, report.txt and scenario.yaml there", 0},
    {"json", KEY_JSON, 0, 0, "One JSON object on standard output instead of the table", 0},
    {"jobs", MOE_KEY_JOBS, "N", 0,
     "Worker processes (default: one a processor); never changes a result", 0},
    {"dump-config", KEY_DUMP, 0, 0, "Print the effective scenario, defaults included, and stop", 0},
    {"check-laws", KEY_LAWS, 0, 0,
     "Check conservation laws after every step (debug builds always do)", 0},
    {"timeline", KEY_TIMELINE, "FILE", 0,
     "Write what every device did, as Chrome-trace JSON for ui.perfetto.dev", 0},
    {"timeline-steps", KEY_STEPS, "N", 0, "Steps in the timeline (default: 3)", 0},
    {0}};

static error_t parse_steps(simulate_arguments *arguments, const char *text,
                           struct argp_state *state)
{
    char *end;
    long long steps = strtoll(text, &end, 10);
    if (*text == '\0' || *end != '\0' || steps < 1 || steps > 1000000)
        argp_error(state, "--timeline-steps %s: expected a number between 1 and 1000000", text);
    arguments->timeline_steps = steps;
    return 0;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    simulate_arguments *arguments = state->input;
    switch (key) {
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
    case KEY_TIMELINE:
        arguments->timeline = text;
        return 0;
    case KEY_STEPS:
        return parse_steps(arguments, text, state);
    default:
        return moe_scenario_parse(&arguments->common, key, text, state);
    }
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
    char *path = talloc_asprintf(arguments->common.owner, "%s/%s", arguments->out, name);
    moe_output *output = moe_output_open(arguments->common.owner, path, diag);
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

static moe_status write_timeline(const simulate_arguments *arguments, const moe_binding *binding,
                                 const moe_run *run, const int *chosen, moe_diag *diag)
{
    moe_status status = moe_timeline_write(binding, run, chosen, arguments->timeline_steps,
                                           moe_output_stream(arguments->timeline_output), diag);
    if (status != MOE_OK) {
        moe_output_abort(arguments->timeline_output);
        return status;
    }
    return moe_output_commit(arguments->timeline_output, diag);
}

static moe_status publish(const simulate_arguments *arguments, const moe_binding *binding,
                          const moe_run *run, const int *chosen, moe_diag *diag)
{
    moe_status status = MOE_OK;
    if (arguments->json)
        write_json(binding, run, stdout);
    else
        moe_report_text(binding, run, stdout);
    if (arguments->out != NULL)
        status = write_folder(arguments, binding, run, diag);
    if (arguments->timeline_output != NULL && status == MOE_OK)
        status = write_timeline(arguments, binding, run, chosen, diag);
    for (int p = 0; p < run->policy_count && status == MOE_OK; p++)
        if (!moe_result_fits(&run->policies[p].result))
            status = MOE_INFEASIBLE;
    return status;
}

/* --- the command --------------------------------------------------------------------------------
 */

/* Before the work, not after it: an unwritable file or folder should not cost a run. */
static moe_status open_outputs(simulate_arguments *arguments, moe_diag *diag)
{
    if (arguments->out != NULL && moe_folder_create(arguments->out, diag) != MOE_OK)
        return MOE_INTERNAL;
    if (arguments->timeline == NULL)
        return MOE_OK;
    arguments->timeline_output =
        moe_output_open(arguments->common.owner, arguments->timeline, diag);
    return arguments->timeline_output != NULL ? MOE_OK : MOE_INTERNAL;
}

static moe_status simulate(simulate_arguments *arguments, moe_diag *diag)
{
    moe_status status;
    moe_progress progress;
    moe_binding *binding = moe_scenario_bind(&arguments->common, diag);
    if (binding == NULL)
        return MOE_BAD_INPUT;
    if (arguments->dump_config) {
        moe_config_dump(binding->config, stdout);
        return MOE_OK;
    }
    if (open_outputs(arguments, diag) != MOE_OK)
        return MOE_INTERNAL;
    moe_run_options run_options = {
        .jobs = arguments->common.jobs,
        .check_laws = arguments->check_laws || moe_laws_are_always_checked(),
        .progress = moe_progress_show,
        .progress_context = &progress,
    };
    int *chosen;
    int count = moe_scenario_choose(&arguments->common, binding, &chosen);
    moe_progress_start(&progress);
    moe_run *run = moe_run_scenario(arguments->common.owner, binding, chosen, count, &run_options,
                                    &status, diag);
    if (run != NULL)
        run->sensitivity = moe_sharing_sensitivity(arguments->common.owner, binding, run, chosen,
                                                   count, &run_options, &status, diag);
    moe_progress_end(&progress);
    if (status != MOE_OK)
        return status;
    return publish(arguments, binding, run, chosen, diag);
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
        .common = {.owner = talloc_size(NULL, 1)},
        .timeline_steps = MOE_TIMELINE_STEPS};
    argp_err_exit_status = MOE_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
    moe_diag *diag = moe_diag_create(arguments.common.owner, stderr);
    moe_status status = simulate(&arguments, diag);
    talloc_free(arguments.common.owner);
    return status;
}
