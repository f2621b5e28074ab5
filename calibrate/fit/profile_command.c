#include "calibrate/fit/profile_command.h"

#include "configs/base/diag.h"
#include "configs/base/memory.h"
#include "configs/base/status.h"

#include <stdio.h>
#include <string.h>
#include <talloc.h>

typedef struct subcommand {
    const char *name;
    const char *arguments;
    const char *sentence;
    int (*run)(int argc, char **argv);
} subcommand;

static const subcommand subcommands[] = {
    {"suite", "MODEL... TRACE...",
     "Writes what `moecal` shall measure: the shapes of these models, the routing of these traces.",
     moe_profile_suite_command},
    {"fit", "SAMPLES.jsonl", "Makes a profile of what `moecal` measured.", moe_profile_fit_command},
    {"import", "FILE...", "Makes a profile of published measurements.", moe_profile_import_command},
    {"derive", "PROFILE",
     "Makes the profile of a device that was not measured from that of one that was.",
     moe_profile_derive_command},
    {"show", "PROFILE",
     "Shows its curves: origin, points, range and errors; draws each with its points.",
     moe_profile_show_command},
    {"compare", "A B", "Says, curve by curve, which of two profiles is faster, and by how much.",
     moe_profile_compare_command},
};
enum { SUBCOMMANDS = sizeof subcommands / sizeof *subcommands };

static void print_usage(FILE *stream)
{
    fprintf(stream, "Usage: moeplan profile COMMAND ...\n\n");
    for (int i = 0; i < SUBCOMMANDS; i++)
        fprintf(stream, "  moeplan profile %s %s\n      %s\n", subcommands[i].name,
                subcommands[i].arguments, subcommands[i].sentence);
    fprintf(stream, "\n`moeplan profile COMMAND --help` lists the options.\n");
}

static int refuse(const char *wrong)
{
    const char *names[SUBCOMMANDS + 1] = {NULL};
    for (int i = 0; i < SUBCOMMANDS; i++)
        names[i] = subcommands[i].name;
    const char *closest = moe_closest(wrong, names, SUBCOMMANDS);
    fprintf(stderr, "moeplan: error: no command \"profile %s\"%s%s%s\n", wrong,
            closest == NULL ? "" : "; did you mean \"", closest == NULL ? "" : closest,
            closest == NULL ? "" : "\"?");
    print_usage(stderr);
    return MOE_USAGE;
}

static int run(const subcommand *chosen, int argc, char **argv)
{
    void *owner = moe_need(talloc_new(NULL));
    char **own_argv = moe_need(talloc_memdup(owner, argv, ((size_t)argc + 1) * sizeof *argv));
    own_argv[0] = moe_need(talloc_asprintf(owner, "moeplan profile %s", chosen->name));
    const int status = chosen->run(argc, own_argv);
    talloc_free(owner);
    return status;
}

int moe_profile_command(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return MOE_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return MOE_OK;
    }
    for (int i = 0; i < SUBCOMMANDS; i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0)
            return run(&subcommands[i], argc - 1, argv + 1);
    }
    return refuse(argv[1]);
}
