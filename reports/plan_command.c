/* moeplan plan SCENARIO ..., plan check FILE [SCENARIO], plan diff A B. */
#include "configs/base/memory.h"
#include "configs/base/output.h"
#include "reports/commands.h"
#include "reports/plan_check.h"
#include "reports/plan_make.h"
#include "reports/progress.h"
#include "reports/scenario_arguments.h"

#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { KEY_FRACTION = MOE_KEY_OWN, KEY_JSON, PATHS_MAX = 2, SHOWN_MOVES = 20 };

typedef struct plan_arguments {
    moe_scenario_arguments common;
    const char *output;
    double train_fraction;
    bool json;
    const char *paths[PATHS_MAX]; /* of check and diff */
    int path_count;
    int path_least;
} plan_arguments;

static void print_json(json_t *json, FILE *stream)
{
    json_dumpf(json, stream, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    fputc('\n', stream);
    json_decref(json);
}

static const char *format_bytes(double bytes, char text[static 48])
{
    moe_units_format_short(bytes, MOE_BYTES, text);
    return text;
}

static const char *format_seconds(double seconds, char text[static 48])
{
    moe_units_format_short(seconds, MOE_SECONDS, text);
    return text;
}

/* --- plan SCENARIO: what it says ------------------------------------------------------------------
 */

static void print_prediction(const moe_plan *plan, FILE *stream)
{
    const moe_plan_prediction *of = &plan->prediction;
    char baseline[48], policy[48], fixed[48];
    fprintf(stream,
            "  made from iterations %lld to %lld; judged on %lld to %lld, which it has not seen\n",
            (long long)of->made_from.first, (long long)of->made_from.last - 1,
            (long long)of->evaluated_on.first, (long long)of->evaluated_on.last - 1);
    fprintf(stream, "  mean step there (%s): %s %s; %s, deciding anew each step, %s; the plan %s\n",
            of->engine, of->baseline, format_seconds(of->step_time_s.baseline, baseline),
            plan->policy.name ? plan->policy.name : "its policy",
            format_seconds(of->step_time_s.policy, policy),
            format_seconds(of->step_time_s.plan, fixed));
    fprintf(stream,
            "  gain %.2fx %s; single steps: p5 %.2fx, median %.2fx, p95 %.2fx, slower in %lld of "
            "%lld\n",
            of->gain, of->baseline, of->spread.p5, of->spread.p50, of->spread.p95,
            (long long)of->spread.slower_steps,
            (long long)(of->evaluated_on.last - of->evaluated_on.first));
}

static void print_shape(const moe_plan *plan, FILE *stream)
{
    fprintf(stream, "%lld layers x %lld experts on %lld devices in groups of %lld, %lld copies",
            (long long)plan->model.layers, (long long)plan->model.experts,
            (long long)plan->layout.devices, (long long)plan->layout.ep,
            (long long)moe_plan_copies(plan));
    if (plan->policy.name != NULL)
        fprintf(stream, ", by %s", plan->policy.name);
}

static moe_status publish(const plan_arguments *arguments, const moe_plan *plan, moe_output *output,
                          moe_diag *diag)
{
    moe_plan_write(plan, output != NULL ? moe_output_stream(output) : stdout);
    if (output == NULL)
        return MOE_OK;
    moe_status status = moe_output_commit(output, diag);
    if (status == MOE_OK && arguments->json) {
        print_json(moe_plan_prediction_json(plan), stdout);
    } else if (status == MOE_OK) {
        printf("%s: ", arguments->output);
        print_shape(plan, stdout);
        putchar('\n');
        print_prediction(plan, stdout);
    }
    return status;
}

/* --- plan SCENARIO: the command ------------------------------------------------------------------
 */

/* The policy that plans; -1 after a printed error. */
static int choose_policy(const plan_arguments *arguments, const moe_binding *binding,
                         moe_diag *diag)
{
    const moe_policy_use *uses = binding->scenario->policies.items;
    size_t count = binding->scenario->policies.count;
    if (arguments->common.policies.count == 1)
        return moe_scenario_find_policy(binding->scenario, arguments->common.policies.items[0]);
    if (arguments->common.policies.count == 0 && count == 1)
        return 0;
    char *names = moe_need(talloc_strdup(NULL, ""));
    for (size_t i = 0; i < count; i++)
        names = moe_need(talloc_asprintf_append(names, "%s%s", i > 0 ? ", " : "", uses[i].name));
    moe_diag_error(diag, (moe_where){0}, "which policy plans? expected one --policy NAME of: %s",
                   names);
    talloc_free(names);
    return -1;
}

static moe_plan *make(plan_arguments *arguments, const moe_binding *binding, int policy,
                      moe_status *status, moe_diag *diag)
{
    moe_progress progress;
    const moe_plan_request request = {
        .policy = policy,
        .train_fraction = arguments->train_fraction,
        .options = {.jobs = arguments->common.jobs,
                    .check_laws = moe_laws_are_always_checked(),
                    .progress = moe_progress_show,
                    .progress_context = &progress},
    };
    moe_progress_start(&progress);
    moe_plan *plan = moe_plan_make(arguments->common.owner, binding, &request, status, diag);
    moe_progress_end(&progress);
    return plan;
}

static moe_status run_make(plan_arguments *arguments, moe_diag *diag)
{
    moe_output *output = NULL;
    moe_binding *binding = moe_scenario_bind(&arguments->common, diag);
    if (binding == NULL)
        return MOE_BAD_INPUT;
    int policy = choose_policy(arguments, binding, diag);
    if (policy < 0)
        return MOE_USAGE;
    if (arguments->output != NULL) {
        output = moe_output_open(arguments->common.owner, arguments->output, diag);
        if (output == NULL)
            return MOE_INTERNAL;
    }
    moe_status status;
    const moe_plan *plan = make(arguments, binding, policy, &status, diag);
    if (plan == NULL)
        return status;
    moe_status written = publish(arguments, plan, output, diag);
    return written != MOE_OK ? written : status;
}

static error_t parse_fraction(plan_arguments *arguments, const char *text, struct argp_state *state)
{
    moe_units_error error;
    double fraction;
    if (!moe_units_parse(text, strlen(text), MOE_FRACTION, &fraction, &error))
        argp_error(state, "--train-fraction %s: %s", text, error.message);
    else if (fraction <= 0 || fraction >= 1)
        argp_error(state, "--train-fraction %s: expected a fraction between 0 and 1", text);
    else
        arguments->train_fraction = fraction;
    return 0;
}

static error_t parse_make(int key, char *text, struct argp_state *state)
{
    plan_arguments *arguments = state->input;
    switch (key) {
    case 'o':
        arguments->output = text;
        return 0;
    case KEY_FRACTION:
        return parse_fraction(arguments, text, state);
    case KEY_JSON:
        arguments->json = true;
        return 0;
    default:
        return moe_scenario_parse(&arguments->common, key, text, state);
    }
}

static const struct argp_option make_options[] = {
    {"policy", MOE_KEY_POLICY, "NAME", 0, "Who plans: a policy of the scenario or any known one",
     0},
    {"output", 'o', "FILE", 0,
     "Write the plan there and say on standard output what it gains; without, the plan itself goes "
     "to standard output",
     0},
    {"train-fraction", KEY_FRACTION, "FRACTION", 0,
     "Part of the trace window, from its beginning, that the plan is made from (default: 50 %); "
     "the rest judges it",
     0},
    {"plan-from", 0, 0, OPTION_ALIAS, 0, 0},
    {"engine", MOE_KEY_ENGINE, "NAME", 0, "The engine that judges, instead of the scenario's", 0},
    {"set", MOE_KEY_SET, "KEY.PATH=VALUE", 0,
     "Override a key of the scenario or of a file it names; repeatable", 0},
    {"json", KEY_JSON, 0, 0, "With -o: the prediction as one JSON object instead of text", 0},
    {"jobs", MOE_KEY_JOBS, "N", 0,
     "Worker processes (default: one a processor); never changes a result", 0},
    {0}};

/* --- plan check ------------------------------------------------------------------------------------
 */

static void print_checked(const plan_arguments *arguments, const moe_plan *plan,
                          const moe_plan_fit *fit, int errors)
{
    bool sound = plan != NULL && errors == 0;
    char peak[48], capacity[48];
    if (arguments->json) {
        json_t *json = json_pack("{s:s, s:b, s:i}", "file", arguments->paths[0], "sound",
                                 (int)sound, "errors", errors);
        if (fit != NULL)
            json_object_set_new(json, "memory",
                                json_pack("{s:b, s:f, s:f, s:i, s:I}", "fits", (int)fit->fits,
                                          "peak", fit->peak_bytes, "capacity", fit->capacity_bytes,
                                          "device", fit->device, "step", (json_int_t)fit->step));
        print_json(json, stdout);
        return;
    }
    printf("%s: %s", arguments->paths[0], sound ? "sound plan: " : "not sound");
    if (sound)
        print_shape(plan, stdout);
    putchar('\n');
    if (sound && plan->prediction.engine != NULL)
        print_prediction(plan, stdout);
    if (fit == NULL)
        return;
    printf("  %s %s: %s of %s on device %d in step %lld%s%s\n", fit->fits ? "fits" : "does NOT fit",
           arguments->paths[1], format_bytes(fit->peak_bytes, peak),
           format_bytes(fit->capacity_bytes, capacity), fit->device, (long long)fit->step,
           fit->advice ? "; " : "", fit->advice ? fit->advice : "");
}

static moe_status run_check(plan_arguments *arguments, moe_diag *diag)
{
    const moe_scenario_arguments *common = &arguments->common;
    moe_plan_fit fit;
    moe_status status = MOE_BAD_INPUT;
    bool tried = false;
    const moe_plan *plan = moe_plan_read(common->owner, arguments->paths[0], (moe_where){0}, diag);
    if (plan != NULL && arguments->path_count > 1) {
        status = moe_plan_try(common->owner, plan, arguments->paths[1], common->overrides.items,
                              common->overrides.count, &fit, diag);
        tried = status == MOE_OK;
        if (tried && !fit.fits)
            status = MOE_INFEASIBLE;
    } else if (plan != NULL) {
        status = MOE_OK;
    }
    fflush(stderr);
    print_checked(arguments, plan, tried ? &fit : NULL, moe_diag_error_count(diag));
    return status;
}

/* --- plan diff -------------------------------------------------------------------------------------
 */

static long long integer(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void print_difference(const plan_arguments *arguments, const moe_plan *to,
                             const json_t *difference)
{
    const json_t *moves = json_object_get(difference, "moves");
    char bytes[48];
    size_t i;
    json_t *move;
    printf("%s -> %s\n", arguments->paths[0], arguments->paths[1]);
    printf("  owners: %lld of %lld experts move, %s in all\n", integer(difference, "experts_moved"),
           (long long)(to->model.layers * to->model.experts * to->layout.groups),
           format_bytes(json_number_value(json_object_get(difference, "bytes_to_move")), bytes));
    printf("  copies beside owners: %lld before, %lld after (%lld added, %lld removed)\n",
           integer(difference, "copies_before"), integer(difference, "copies_after"),
           integer(difference, "copies_added"), integer(difference, "copies_removed"));
    json_array_foreach((json_t *)moves, i, move)
    {
        if (i == SHOWN_MOVES) {
            printf("  ... and %zu more (--json lists all)\n", json_array_size(moves) - i);
            return;
        }
        printf("  layer %lld, expert %lld: rank %lld -> %lld\n", integer(move, "layer"),
               integer(move, "expert"), integer(move, "from"), integer(move, "to"));
    }
}

static moe_status run_diff(plan_arguments *arguments, moe_diag *diag)
{
    void *owner = arguments->common.owner;
    const moe_plan *a = moe_plan_read(owner, arguments->paths[0], (moe_where){0}, diag);
    const moe_plan *b = moe_plan_read(owner, arguments->paths[1], (moe_where){0}, diag);
    if (a == NULL || b == NULL || !moe_plan_comparable(a, b, diag))
        return MOE_BAD_INPUT;
    json_t *difference = moe_plan_difference(a, b);
    if (arguments->json) {
        json_object_set_new(difference, "a", json_string(a->path));
        json_object_set_new(difference, "b", json_string(b->path));
        print_json(difference, stdout);
        return MOE_OK;
    }
    print_difference(arguments, b, difference);
    json_decref(difference);
    return MOE_OK;
}

/* --- command lines ---------------------------------------------------------------------------------
 */

static const struct argp_option check_options[] = {
    {"set", MOE_KEY_SET, "KEY.PATH=VALUE", 0, "Override a key of the scenario; repeatable", 0},
    {"json", KEY_JSON, 0, 0, "One JSON object instead of text", 0},
    {0}};
static const struct argp_option diff_options[] = {
    {"json", KEY_JSON, 0, 0, "One JSON object instead of text, with every move", 0}, {0}};

static error_t parse_paths(int key, char *text, struct argp_state *state)
{
    plan_arguments *arguments = state->input;
    switch (key) {
    case KEY_JSON:
        arguments->json = true;
        return 0;
    case MOE_KEY_SET:
        return moe_scenario_parse(&arguments->common, key, text, state);
    case ARGP_KEY_ARG:
        if (arguments->path_count == PATHS_MAX)
            argp_error(state, "unexpected argument \"%s\"", text);
        arguments->paths[arguments->path_count++] = text;
        return 0;
    case ARGP_KEY_END:
        if (arguments->path_count < arguments->path_least)
            argp_error(state, "too few files");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

typedef struct plan_command {
    const char *name; /* NULL: `moeplan plan SCENARIO` itself */
    const char *full_name;
    int path_least; /* of check and diff */
    struct argp parser;
    moe_status (*run)(plan_arguments *arguments, moe_diag *diag);
} plan_command;

static const plan_command commands[] = {
    {"check",
     "moeplan plan check",
     1,
     {check_options, parse_paths, "PLAN.json [SCENARIO.yaml]",
      "Says whether a plan is sound: one owner for every expert and group, inside the group, and "
      "valid copies. With a scenario, also whether it suits that and fits into its devices' "
      "memory, by running it there (analytic engine, all laws checked).\v"
      "Exit status: 0 sound, 1 not sound, 2 does not fit into memory, 64 usage, 70 internal.",
      NULL, NULL, NULL},
     run_check},
    {"diff",
     "moeplan plan diff",
     2,
     {diff_options, parse_paths, "A.json B.json",
      "Says which experts change their owner from plan A to plan B, how many bytes that moves "
      "(parameters and optimizer state), and which copies come and go.",
      NULL, NULL, NULL},
     run_diff},
    {NULL,
     "moeplan plan",
     0,
     {make_options, parse_make,
      "SCENARIO.yaml\ncheck PLAN.json [SCENARIO.yaml]\ndiff A.json B.json",
      "Make a plan: the placement that a policy decides on after the first part of the trace "
      "window, with the gain it has on the rest, which it was not made from.\v"
      "The plan's format is described in models/plan.h. A scenario runs with one as given: "
      "`moeplan simulate SCENARIO.yaml --set policies.0.plan=plan.json`.\n\n"
      "`moeplan plan check --help` and `moeplan plan diff --help` list their options.\n\n"
      "Exit status: 0 fine, 1 bad input, 2 the plan does not fit into memory, 64 usage, 70 "
      "internal.",
      NULL, NULL, NULL},
     run_make},
};

static const plan_command *find_command(const char *name)
{
    const plan_command *command = commands;
    while (command->name != NULL && (name == NULL || strcmp(command->name, name) != 0))
        command++;
    return command;
}

int moe_plan_command(int argc, char **argv)
{
    const plan_command *command = find_command(argc > 1 ? argv[1] : NULL);
    int skipped = command->name != NULL;
    /* One byte: argp may exit, and a leak checker does not see a pointer past an empty block. */
    plan_arguments arguments = {.common = {.owner = talloc_size(NULL, 1)},
                                .train_fraction = 0.5,
                                .path_least = command->path_least};
    argv[skipped] = (char *)command->full_name;
    argp_err_exit_status = MOE_USAGE;
    argp_parse(&command->parser, argc - skipped, argv + skipped, 0, NULL, &arguments);
    moe_diag *diag = moe_diag_create(arguments.common.owner, stderr);
    moe_status status = command->run(&arguments, diag);
    talloc_free(arguments.common.owner);
    return status;
}
