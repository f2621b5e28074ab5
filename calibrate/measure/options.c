#include "calibrate/measure/options.h"

#include "calibrate/measure/backend.h"
#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *argp_program_version = "moecal " MOECAL_VERSION;

static const char documentation[] =
    "Measures what a training step of a Mixture-of-Experts model is made of, on this machine: "
    "matrix products, expert kernels, collectives, launches, copies. Writes raw samples as JSON "
    "lines (calibrate/SAMPLES.md), from which `moeplan profile fit` makes a profile.\v"
    "Run it under mpirun or srun, one process a device, or alone. A result is checked against "
    "double precision before it is timed. A run that is stopped or killed is continued by the same "
    "command with --resume.\n\n"
    "Exit codes: 0 fine, 1 bad input or a point failed (the others are in the file), 64 usage, 70 "
    "no device or peer, 130 stopped by Ctrl-C.";

enum {
    KEY_LIST = 256,
    KEY_SUITE,
    KEY_ONLY,
    KEY_DRY_RUN,
    KEY_RESUME,
    KEY_SECONDS,
    KEY_REPETITIONS,
    KEY_RANKS,
    KEY_STEP
};

static const struct argp_option table[] = {
    {"list", KEY_LIST, NULL, 0, "The built-in suites and how many points of each kind they have",
     0},
    {"suite", KEY_SUITE, "NAME|FILE", 0,
     "What to measure: a built-in suite (default: quick), or a file that `moeplan profile suite` "
     "wrote",
     0},
    {"only", KEY_ONLY, "KIND[,KIND...]", 0, "Points of these kinds alone: gemm, collective, ...",
     0},
    {"dry-run", KEY_DRY_RUN, NULL, 0,
     "Say what would run and how long it would take; needs no device", 0},
    {"output", 'o', "FILE", 0, "Where samples go (default: standard output)", 0},
    {"resume", KEY_RESUME, NULL, 0, "Continue FILE: points that it holds are not measured again",
     0},
    {"seconds-per-point", KEY_SECONDS, "S", 0,
     "Time budget of a point (default: 1; the suite quick: 0.25)", 0},
    {"repetitions", KEY_REPETITIONS, "N", 0,
     "Most repetitions of a point (default: 200); fewer where times are steady", 0},
    {"ranks", KEY_RANKS, "N", 0, "Ranks that --list and --dry-run assume", 0},
    {"step", KEY_STEP, "STEP.json", 0,
     "Run a small training step and time it instead (moecal-cpu alone)", 0},
    {0},
};

/* Name by name, "a,b". */
static void parse_only(moecal_options *options, const char *text, struct argp_state *state)
{
    char *copy = strdup(text), *rest = copy, *name;
    options->all_kinds = false;
    while (copy && (name = strsep(&rest, ","))) {
        int kind = 0;
        while (kind < MOECAL_KINDS && strcmp(name, moecal_kind_names[kind]) != 0)
            kind++;
        if (kind == MOECAL_KINDS) {
            fprintf(stderr, "moecal: kinds are:");
            for (int i = 0; i < MOECAL_KINDS; i++)
                fprintf(stderr, " %s", moecal_kind_names[i]);
            fputc('\n', stderr);
            argp_error(state, "--only: \"%s\" is no kind of point", name);
        } else {
            options->only[kind] = true;
        }
    }
    free(copy);
}

static double number(const char *option, const char *text, double low, double high,
                     struct argp_state *state)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        argp_error(state, "%s: \"%s\" is no number from %g to %g", option, text, low, high);
    return value;
}

static int whole(const char *option, const char *text, double high, struct argp_state *state)
{
    double value = number(option, text, 1, high, state);
    if (value != floor(value))
        argp_error(state, "%s: \"%s\" is no whole number", option, text);
    return (int)value;
}

static void check(const moecal_options *options, struct argp_state *state)
{
    if (options->resume && !options->output)
        argp_error(state, "--resume continues a file: say which one with -o");
    if (options->step && (options->list || options->dry_run || options->resume))
        argp_error(state, "--step goes with -o alone");
    if (options->step && !moecal_backend_chosen.step)
        argp_error(state, "--step is the CPU program's, moecal-cpu");
    if (options->ranks && !options->list && !options->dry_run)
        argp_error(
            state,
            "--ranks goes with --list and --dry-run; a run has the ranks that it is started with");
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    moecal_options *options = state->input;
    switch (key) {
    case KEY_LIST:
        options->list = true;
        return 0;
    case KEY_SUITE:
        options->suite = argument;
        return 0;
    case KEY_ONLY:
        parse_only(options, argument, state);
        return 0;
    case KEY_DRY_RUN:
        options->dry_run = true;
        return 0;
    case KEY_RESUME:
        options->resume = true;
        return 0;
    case 'o':
        options->output = argument;
        return 0;
    case KEY_SECONDS:
        options->seconds_per_point = number("--seconds-per-point", argument, 1e-3, 1e5, state);
        return 0;
    case KEY_REPETITIONS:
        options->repetitions = whole("--repetitions", argument, 10000, state);
        return 0;
    case KEY_RANKS:
        options->ranks = whole("--ranks", argument, MOECAL_MAX_RANKS, state);
        return 0;
    case KEY_STEP:
        options->step = argument;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "\"%s\": no argument expected", argument);
        return 0;
    case ARGP_KEY_END:
        check(options, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

moecal_options moecal_options_parse(int argc, char **argv)
{
    moecal_options options = {.suite = "quick", .all_kinds = true, .repetitions = 200};
    const struct argp parser = {table, parse_option, NULL, documentation, NULL, NULL, NULL};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    return options;
}

/* Hydra (MPICH), Open MPI, Slurm. */
static int from_environment(const char *const *names, int otherwise)
{
    for (; *names; names++) {
        const char *text = getenv(*names);
        char *end;
        long value = text && *text ? strtol(text, &end, 10) : -1;
        if (value >= 0 && value < 1000000 && *end == '\0')
            return (int)value;
    }
    return otherwise;
}

int moecal_started_rank(void)
{
    static const char *const names[] = {"PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", NULL};
    return from_environment(names, 0);
}

int moecal_started_processes(void)
{
    static const char *const names[] = {"PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS", NULL};
    return from_environment(names, 0);
}
