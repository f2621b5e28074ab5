/* The driver of both programs: moecal (CUDA) and moecal-cpu (MPI and a BLAS). */
#include "calibrate/measure/options.h"
#include "calibrate/measure/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FINE = 0, BAD_INPUT = 1, NO_DEVICE = 70, STOPPED = 130 };

static const moecal_backend *const backend = &moecal_backend_chosen;

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

/* The first one lets the point under way end; the second one kills. What nohup or a shell's `&` had
 * ignored stays so; a library that MPICH loads (UCX) takes SIGHUP before main, ignored or not, so a
 * handler that is there already is left alone too. */
static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal,
                               .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction before;
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL)
            sigaction(numbers[i], &action, NULL);
    }
}

static bool is_cpu(void)
{
    return strcmp(backend->name, "cpu") == 0;
}

/* What the description of built-in suites needs before a device was looked for. */
static int assumed_ranks(const moecal_options *options)
{
    if (options->ranks > 0)
        return options->ranks;
    int started = moecal_started_processes();
    return started > 0 ? started : is_cpu() ? 2 : 8;
}

static moecal_stop_rule rule_of(const moecal_options *options)
{
    const moecal_builtin *builtin = moecal_builtin_find(options->suite);
    double seconds = options->seconds_per_point;
    if (seconds == 0)
        seconds = builtin ? builtin->seconds_per_point : 1;
    return (moecal_stop_rule){seconds, MOECAL_STEADY, options->repetitions};
}

/* --- suites ----------------------------------------------------------------------------------- */

static moecal_suite *open_suite(const moecal_options *options, int ranks, FILE *errors)
{
    if (moecal_builtin_find(options->suite))
        return moecal_builtin_suite(options->suite, is_cpu(), ranks);
    if (!strchr(options->suite, '/') && !strchr(options->suite, '.') &&
        access(options->suite, F_OK) != 0) {
        fprintf(errors,
                "moecal: error: no built-in suite \"%s\" (--list shows them) and no such file\n",
                options->suite);
        return NULL;
    }
    return moecal_suite_read(options->suite, errors);
}

/* Leaves the kinds that --only names. */
static void select_kinds(moecal_suite *suite, const moecal_options *options)
{
    size_t kept = 0;
    for (size_t i = 0; i < suite->count; i++) {
        moecal_point *point = suite->points[i];
        if (options->all_kinds || options->only[point->kind])
            suite->points[kept++] = point;
        else
            moecal_point_free(point);
    }
    suite->count = kept;
}

/* Collectives over all ranks are, from here on, over that many: ids say so. */
static void set_ranks(moecal_suite *suite, int ranks)
{
    for (size_t i = 0; i < suite->count; i++) {
        moecal_point *point = suite->points[i];
        if (moecal_point_is_collective(point) && point->ranks == 0 && ranks >= 2) {
            point->ranks = ranks;
            moecal_point_name(point);
        }
    }
}

static moecal_suite *selected_suite(const moecal_options *options, int ranks, FILE *errors)
{
    moecal_suite *suite = open_suite(options, ranks, errors);
    if (!suite)
        return NULL;
    select_kinds(suite, options);
    set_ranks(suite, ranks);
    return suite;
}

/* --- --list and --dry-run --------------------------------------------------------------------- */

static void list_kinds(const moecal_suite *suite)
{
    size_t counts[MOECAL_KINDS] = {0};
    for (size_t i = 0; i < suite->count; i++)
        counts[suite->points[i]->kind]++;
    for (int kind = 0; kind < MOECAL_KINDS; kind++)
        if (counts[kind] > 0)
            printf("    %-12s %6zu\n", moecal_kind_names[kind], counts[kind]);
}

static int list_suites(const moecal_options *options)
{
    int ranks = assumed_ranks(options);
    printf("Built-in suites (%s, %d rank%s), and points of each kind:\n", backend->name, ranks,
           ranks == 1 ? "" : "s");
    for (const moecal_builtin *entry = moecal_builtins; entry->name; entry++) {
        moecal_suite *suite = moecal_builtin_suite(entry->name, is_cpu(), ranks);
        select_kinds(suite, options);
        printf("\n%-14s %s\n", entry->name, entry->sentence);
        list_kinds(suite);
        moecal_suite_free(suite);
    }
    return FINE;
}

static void print_duration(const char *label, double seconds)
{
    if (seconds < 120)
        printf("%s%.0f s\n", label, seconds);
    else
        printf("%s%.0f min\n", label, seconds / 60);
}

static int dry_run(const moecal_options *options)
{
    int ranks = assumed_ranks(options);
    moecal_suite *suite = selected_suite(options, ranks, stderr);
    moecal_stop_rule rule = rule_of(options);
    double total = 0;
    if (!suite)
        return BAD_INPUT;
    for (size_t i = 0; i < suite->count; i++) {
        double seconds = moecal_estimate_point_s(
            suite->points[i], is_cpu() ? &moecal_rates_cpu : &moecal_rates_cuda, &rule);
        printf("%8.2f s  %s\n", seconds, suite->points[i]->id);
        total += seconds;
    }
    printf("%zu points, %d rank%s, ", suite->count, ranks, ranks == 1 ? "" : "s");
    print_duration("about ", total);
    printf("What this machine cannot run (formats, too few ranks) would be skipped.\n");
    moecal_suite_free(suite);
    return FINE;
}

/* --- a run ------------------------------------------------------------------------------------ */

static int report(const moecal_options *options, const moecal_tally *tally)
{
    fprintf(stderr, "moecal: %d measured, %d skipped, %d failed", tally->measured, tally->refused,
            tally->failed);
    if (tally->had > 0)
        fprintf(stderr, ", %d were there already", tally->had);
    fputc('\n', stderr);
    if (!tally->stopped)
        return tally->failed > 0 || tally->broken ? BAD_INPUT : FINE;
    fprintf(stderr, "moecal: stopped; ");
    if (options->output)
        fprintf(stderr, "the same command with --resume continues %s\n", options->output);
    else
        fprintf(stderr, "with -o FILE, --resume could continue it\n");
    return STOPPED;
}

/* Rank 0 alone opens the file; all hear whether it could. */
static int open_samples(const moecal_options *options, moecal_run *run)
{
    char error[512] = "";
    double opened = 1;
    json_t *description = run->backend->describe(run->state);
    if (run->world.rank == 0) {
        run->samples = description ? moecal_samples_open(options->output, options->resume,
                                                         description, error, sizeof error)
                                   : NULL;
        opened = run->samples != NULL;
        if (!opened)
            fprintf(stderr, "moecal: error: %s\n",
                    error[0] ? error : "the machine has no description");
    }
    json_decref(description);
    run->backend->share(run->state, &opened, 1);
    return opened != 0 ? 0 : -1;
}

static int run_suite(const moecal_options *options, moecal_run *run, const moecal_suite *suite)
{
    if (open_samples(options, run) != 0)
        return BAD_INPUT;
    moecal_tally tally = moecal_run_suite(run, suite);
    moecal_samples_close(run->samples);
    return run->world.rank == 0 ? report(options, &tally) : FINE;
}

/* All processes read the suite; one says what is wrong with it. */
static int run_points(const moecal_options *options, void *state)
{
    moecal_run run = {.backend = backend,
                      .state = state,
                      .world = backend->world(state),
                      .rule = rule_of(options),
                      .rates = is_cpu() ? moecal_rates_cpu : moecal_rates_cuda,
                      .stopped = &stopped};
    FILE *nowhere = fopen("/dev/null", "w");
    moecal_suite *suite = selected_suite(options, run.world.ranks,
                                         run.world.rank == 0 || !nowhere ? stderr : nowhere);
    int status = suite ? run_suite(options, &run, suite) : BAD_INPUT;
    moecal_suite_free(suite);
    if (nowhere)
        fclose(nowhere);
    return status;
}

static int run_with_device(const moecal_options *options)
{
    char error[512] = "";
    void *state = backend->open(error, sizeof error);
    int status;
    if (!state) {
        fprintf(stderr, "moecal: error: %s\n", error);
        return NO_DEVICE;
    }
    if (options->step)
        status = backend->step(state, options->step, options->output);
    else
        status = run_points(options, state);
    backend->close(state);
    return status;
}

/* Of many processes with one and the same command, one speaks until devices are looked for. */
typedef struct silence {
    int out, err; /* what they were; -1: not silenced */
} silence;

static silence silence_others(void)
{
    silence kept = {-1, -1};
    int nowhere;
    if (moecal_started_rank() == 0 || (nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC)) < 0)
        return kept;
    kept = (silence){dup(STDOUT_FILENO), dup(STDERR_FILENO)};
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    close(nowhere);
    return kept;
}

static void end_silence(silence kept)
{
    if (kept.out >= 0) {
        dup2(kept.out, STDOUT_FILENO);
        close(kept.out);
    }
    if (kept.err >= 0) {
        dup2(kept.err, STDERR_FILENO);
        close(kept.err);
    }
}

static int close_output(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "moecal: error: cannot write to standard output\n");
    return NO_DEVICE;
}

int main(int argc, char **argv)
{
    silence kept = silence_others();
    moecal_options options = moecal_options_parse(argc, argv);
    if (options.list)
        return close_output(list_suites(&options));
    if (options.dry_run)
        return close_output(dry_run(&options));
    end_silence(kept);
    if (!options.step) /* of a step, nothing is kept before its end */
        catch_signals();
    return close_output(run_with_device(&options));
}
