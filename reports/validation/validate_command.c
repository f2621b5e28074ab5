#include "reports/validation/validate_command.h"

#include "configs/base/memory.h"
#include "configs/base/output.h"
#include "reports/validation/validation.h"
#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

typedef struct validate_arguments {
    const char **names; /* as given; none: all */
    size_t count;
    moe_validation_options options;
    bool json;
    bool list;
    moe_diag *diag; /* owns all */
} validate_arguments;

enum {
    KEY_DATA = 'd',
    KEY_OUT = 'o',
    KEY_JSON = 'j',
    KEY_QUICK = 'q',
    KEY_RANKS = 'n',
    KEY_LIST = 'l'
};

static const struct argp_option option_table[] = {
    {"data", KEY_DATA, "DIR", 0,
     "folder with the published measurements; else the environment's MOEPLAN_VALIDATION_DATA, else "
     "../shared/data beside the source folder",
     0},
    {"out", KEY_OUT, "DIR", 0, "write each suite's SUITE.md, SUITE.json and SUITE.svg there", 0},
    {"json", KEY_JSON, NULL, 0, "one JSON value with every comparison", 0},
    {"quick", KEY_QUICK, NULL, 0, "fewer points, for tests", 0},
    {"ranks", KEY_RANKS, "N", 0, "loop: ranks of the measured step (default: the cores)", 0},
    {"list", KEY_LIST, NULL, 0, "the suites there are", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void add_name(validate_arguments *given, const char *name)
{
    given->names = moe_need(
        talloc_realloc(given->diag, given->names, const char *, (unsigned)given->count + 1));
    given->names[given->count++] = name;
}

static int parse_ranks(const char *text, struct argp_state *state)
{
    char *end;
    const long ranks = strtol(text, &end, 10);
    if (end == text || *end != '\0' || ranks < 1 || ranks > 4096)
        argp_error(state, "--ranks is \"%s\"; expected a number from 1 to 4096", text);
    return (int)ranks;
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    validate_arguments *given = state->input;
    switch (key) {
    case KEY_DATA:
        given->options.data = value;
        return 0;
    case KEY_OUT:
        given->options.folder = value;
        return 0;
    case KEY_JSON:
        given->json = true;
        return 0;
    case KEY_QUICK:
        given->options.quick = true;
        return 0;
    case KEY_RANKS:
        given->options.ranks = parse_ranks(value, state);
        return 0;
    case KEY_LIST:
        given->list = true;
        return 0;
    case ARGP_KEY_ARG:
        add_name(given, value);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = option_table,
    .parser = parse_option,
    .args_doc = "[SUITE...]",
    .doc = "Predicts what others (or this machine, just now) have measured, and prints the errors "
           "as they "
           "are. Without a SUITE, all of them. A suite whose data is not there is skipped, which "
           "is no failure.",
};

/* ---- the suites asked for -------------------------------------------------------------------- */

static const moe_validation_suite *find_suite(const char *name)
{
    for (const moe_validation_suite *const *suite = moe_validation_suites; *suite != NULL;
         suite++) {
        if (strcmp((*suite)->name, name) == 0)
            return *suite;
    }
    return NULL;
}

static void refuse(const char *wrong)
{
    const char *names[64];
    size_t count = 0;
    for (const moe_validation_suite *const *suite = moe_validation_suites;
         *suite != NULL && count < 64; suite++)
        names[count++] = (*suite)->name;
    const char *closest = moe_closest(wrong, names, count);
    fprintf(stderr, "moeplan validate: error: no suite \"%s\"%s%s%s; there are:", wrong,
            closest != NULL ? "; did you mean \"" : "", closest != NULL ? closest : "",
            closest != NULL ? "\"?" : "");
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, " %s", names[i]);
    fputc('\n', stderr);
}

static bool check_names(const validate_arguments *given)
{
    bool sound = true;
    for (size_t i = 0; i < given->count; i++) {
        if (find_suite(given->names[i]) == NULL) {
            refuse(given->names[i]);
            sound = false;
        }
    }
    return sound;
}

static bool is_wanted(const validate_arguments *given, const char *name)
{
    for (size_t i = 0; i < given->count; i++) {
        if (strcmp(given->names[i], name) == 0)
            return true;
    }
    return given->count == 0;
}

/* ---- running them ---------------------------------------------------------------------------- */

/* Shows and writes one suite as soon as it is done: a later one that fails, or Ctrl-C, loses nothing. */
static moe_status run_suite(const validate_arguments *given, const moe_validation_suite *suite,
                            json_t *all, bool first)
{
    moe_status status;
    moe_validation_outcome *outcome =
        moe_validation_run(given->diag, suite, &given->options, &status, given->diag);
    if (outcome == NULL)
        return status;
    if (given->json) {
        json_array_append_new(all, moe_validation_json(outcome));
    } else {
        if (!first)
            putchar('\n');
        moe_validation_text(outcome, stdout);
        fflush(stdout);
    }
    if (given->options.folder != NULL)
        status = moe_validation_write(outcome, given->options.folder, given->diag);
    talloc_free(outcome);
    return status;
}

/* Every suite runs, whatever happened to the one before; the first failure is the answer. */
static moe_status run_suites(const validate_arguments *given)
{
    /* Known now, not after minutes of measuring. */
    if (given->options.folder && moe_folder_create(given->options.folder, given->diag) != MOE_OK)
        return MOE_INTERNAL;
    json_t *all = json_array();
    moe_status status = MOE_OK;
    bool first = true;
    for (const moe_validation_suite *const *suite = moe_validation_suites; *suite != NULL;
         suite++) {
        if (!is_wanted(given, (*suite)->name))
            continue;
        const moe_status one = run_suite(given, *suite, all, first);
        status = status == MOE_OK ? one : status;
        first = false;
    }
    json_t *json = json_pack("{s:s, s:b, s:o}", "program", "moeplan " MOEPLAN_VERSION, "quick",
                             (int)given->options.quick, "suites", all);
    if (given->json && status == MOE_OK) {
        json_dumpf(json, stdout, JSON_INDENT(1));
        putchar('\n');
    }
    json_decref(json);
    return status;
}

static void list_suites(bool as_json)
{
    json_t *entries = json_array();
    for (const moe_validation_suite *const *suite = moe_validation_suites; *suite != NULL;
         suite++) {
        if (!as_json)
            printf("%-12s %s\n", (*suite)->name, (*suite)->sentence);
        json_array_append_new(entries,
                              json_pack("{s:s, s:s, s:s}", "name", (*suite)->name, "sentence",
                                        (*suite)->sentence, "source", (*suite)->source));
    }
    if (as_json) {
        json_dumpf(entries, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(entries);
}

/* An empty variable of the environment is as good as none. */
static const char *default_data(void)
{
    const char *data = getenv("MOEPLAN_VALIDATION_DATA");
    return data != NULL && *data != '\0' ? data : MOEPLAN_DATA_DIR "/../shared/data";
}

int moe_validate_command(int argc, char **argv)
{
    validate_arguments given = {.diag = moe_diag_create(NULL, stderr)};
    given.options.data = default_data();
    int status = MOE_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &given) == 0 && check_names(&given)) {
        status = MOE_OK;
        if (given.list)
            list_suites(given.json);
        else
            status = run_suites(&given);
    }
    talloc_free(given.diag);
    return status;
}
