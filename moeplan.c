/* moeplan: the table of subcommands. Each folder owns its own; this file only picks one. */
#include "calibrate/fit/profile_command.h"
#include "configs/base/diag.h"
#include "configs/base/output.h"
#include "configs/base/random.h"
#include "configs/base/status.h"
#include "policies/policy.h"
#include "reports/commands.h"
#include "reports/validation/validate_command.h"
#include "sim/engine.h"
#include "traces/trace_command.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct subcommand {
    const char *name;
    const char *full_name; /* what usage messages call it */
    int (*run)(int argc, char **argv);
    const char *arguments;
    const char *sentence;
} subcommand;

static const subcommand subcommands[] = {
    {"simulate", "moeplan simulate", moe_simulate_command, "SCENARIO.yaml",
     "what each policy of a scenario would cost"},
    {"plan", "moeplan plan", moe_plan_command, "SCENARIO.yaml ...",
     "a placement as a file, made, judged, checked and compared"},
    {"timeline", "moeplan timeline", moe_timeline_command, "summarize ...",
     "what the critical path of a written timeline consists of"},
    {"trace", "moeplan trace", moe_trace_command, "info|convert|check ...",
     "look at, import and check routing traces"},
    {"profile", "moeplan profile", moe_profile_command, "suite|fit|show|...",
     "what to measure, and from measurements to cost curves"},
    {"validate", "moeplan validate", moe_validate_command, "[SUITE]...",
     "predictions against published measurements"},
    {"cluster", "moeplan cluster", moe_cluster_command, "show|export ...",
     "draw a cluster as a tree, write it as a SimGrid platform"},
    {"list", "moeplan list", moe_list_command, "KIND",
     "the policies, engines, clusters, models, ... there are"},
    {"explain", "moeplan explain", moe_explain_command, "TOPIC",
     "what a policy, a preset or a key of a file means"},
    {"check", "moeplan check", moe_check_command, "FILE...",
     "whether a YAML file or a trace is sound, and where it is not"},
};
enum { SUBCOMMANDS = sizeof subcommands / sizeof *subcommands };

static void print_help(FILE *stream)
{
    fprintf(
        stream,
        "Usage: moeplan SUBCOMMAND ...\n\n"
        "Simulates steps of a Mixture-of-Experts model on a described cluster, for a\n"
        "recorded routing trace, under each of several ways to place its experts.\n\n");
    for (const subcommand *command = subcommands; command < subcommands + SUBCOMMANDS; command++)
        fprintf(stream, "  %-9s %-23s %s\n", command->name, command->arguments, command->sentence);
    fprintf(stream,
            "\n  moeplan SUBCOMMAND --help   its options\n"
            "  moeplan --version           version, compiler, engines, policies, SimGrid, moecal\n\n"
            "Exit codes: 0 fine, 1 bad input, 2 does not fit, 64 usage, 70 internal.\n");
}

#ifdef __clang__
static const char compiler[] = __VERSION__;
#else
static const char compiler[] = "gcc " __VERSION__;
#endif

static void print_version(void)
{
    printf("moeplan   %s\ncompiler  %s\nengines  ", MOEPLAN_VERSION, compiler);
    for (const moe_engine *const *engine = moe_engines; *engine; engine++)
        printf(" %s", (*engine)->name);
    printf("\npolicies ");
    for (const moe_policy *const *policy = moe_policies; *policy; policy++)
        printf(" %s", (*policy)->name);
    printf("\nSimGrid   %s\nCUDA      %s\nCPU       %s\n", MOEPLAN_SIMGRID_VERSION, MOEPLAN_CUDA,
           MOEPLAN_CPU);
}

static int refuse(const char *wrong)
{
    const char *names[SUBCOMMANDS];
    for (int i = 0; i < SUBCOMMANDS; i++)
        names[i] = subcommands[i].name;
    const char *closest = moe_closest(wrong, names, SUBCOMMANDS);
    fprintf(stderr, "moeplan: unknown subcommand \"%s\"", wrong);
    if (closest)
        fprintf(stderr, "; did you mean \"%s\"?", closest);
    fprintf(stderr, " (`moeplan --help` lists them)\n");
    return MOE_USAGE;
}

static int run_subcommand(int argc, char **argv)
{
    for (const subcommand *command = subcommands; command < subcommands + SUBCOMMANDS; command++) {
        if (strcmp(argv[0], command->name) == 0) {
            argv[0] = (char *)command->full_name;
            return command->run(argc, argv);
        }
    }
    return refuse(argv[0]);
}

/* A reader that has closed its end (`| head`) has seen enough: that is not an error. */
static int reader_has_gone(void)
{
    struct pollfd output = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&output, 1, 0) > 0 && (output.revents & POLLERR);
}

/* At exit, whoever called it: results that did not reach stdout are never passed over in silence.
 */
static void close_stdout(void)
{
    int failed = ferror(stdout);
    errno = 0;
    failed |= fflush(stdout) != 0;
    if (!failed || reader_has_gone())
        return;
    fprintf(stderr, "moeplan: error: cannot write to standard output%s%s\n", errno ? ": " : "",
            errno ? strerror(errno) : "");
    _exit(MOE_INTERNAL);
}

int main(int argc, char **argv)
{
    moe_random_install_gsl_handler();
    moe_signals_install();
    signal(SIGPIPE, SIG_IGN); /* so that open outputs are removed, see close_stdout */
    atexit(close_stdout);
    if (argc < 2) {
        print_help(stderr);
        return MOE_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        print_help(stdout);
    else if (strcmp(argv[1], "--version") == 0)
        print_version();
    else
        return run_subcommand(argc - 1, argv + 1);
    return MOE_OK;
}
