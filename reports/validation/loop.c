/* The whole path on this machine: measure its parts, fit a profile, simulate a small MoE step, run that same step,
 * compare. */
#include "calibrate/fit/fit.h"
#include "calibrate/fit/profile_write.h"
#include "configs/base/memory.h"
#include "configs/base/output.h"
#include "reports/validation/loop_predict.h"
#include "reports/validation/loop_programs.h"
#include "reports/validation/suite.h"

#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <talloc.h>
#include <time.h>
#include <unistd.h>

typedef struct loop {
    moe_validation_outcome *outcome;
    moe_loop_case *of;
    moe_loop_launcher launcher;
    const char *folder;
    moe_diag *diag;
} loop;

static const char *file(const loop *in, const char *name)
{
    return moe_need(talloc_asprintf(in->diag, "%s/%s", in->folder, name));
}

static void say(const char *what, int count, const char *unit)
{
    fprintf(stderr, "loop: %s %d %s\n", what, count, unit);
}

/* --- files -------------------------------------------------------------------------------------- */

/* Each whole or not at all. */
static moe_status write_with(const loop *in, const char *name,
                             void (*write)(const loop *in, FILE *stream))
{
    moe_output *output = moe_output_open(in->diag, file(in, name), in->diag);
    if (!output)
        return MOE_INTERNAL;
    write(in, moe_output_stream(output));
    return moe_output_commit(output, in->diag);
}

static void write_model(const loop *in, FILE *stream)
{
    moe_loop_write_model(in->of, stream);
}

static void write_scenario(const loop *in, FILE *stream)
{
    moe_loop_write_scenario(in->of, stream);
}

static void write_json(json_t *value, FILE *stream)
{
    json_dumpf(value, stream, JSON_COMPACT);
    fputc('\n', stream);
    json_decref(value);
}

static void write_suite(const loop *in, FILE *stream)
{
    write_json(moe_loop_suite(in->of), stream);
}

static void write_step(const loop *in, FILE *stream)
{
    write_json(moe_loop_step(in->of), stream);
}

/* --- measure, fit, simulate, run ---------------------------------------------------------------- */

static moe_status measure(const loop *in)
{
    const char *seconds = moe_need(talloc_asprintf(in->diag, "%g", in->of->seconds));
    moe_status status = write_with(in, "suite.json", write_suite);
    if (status != MOE_OK)
        return status;
    say("measuring the parts of a step on", in->of->ranks, "ranks");
    return moe_loop_run(&in->launcher,
                        (const char *const[]){"--suite", file(in, "suite.json"), "--seconds",
                                              seconds, "-o", file(in, "samples.jsonl"), NULL},
                        in->diag);
}

typedef struct fitted {
    const moe_profile *profile;
    const moe_cluster_spec *cluster;
} fitted;

static moe_status write_fit(const loop *in, const fitted *fit)
{
    moe_output *cluster = moe_output_open(in->diag, file(in, "cluster.yaml"), in->diag);
    moe_output *profile = moe_output_open(in->diag, file(in, "profile.yaml"), in->diag);
    if (!cluster || !profile)
        return MOE_BAD_INPUT;
    moe_cluster_write(fit->cluster, "Made by moeplan validate loop.", moe_output_stream(cluster));
    moe_profile_write(fit->profile, "Made by moeplan validate loop.", moe_output_stream(profile));
    const moe_status status = moe_output_commit(cluster, in->diag);
    return status == MOE_OK ? moe_output_commit(profile, in->diag) : status;
}

static moe_status fit(const loop *in)
{
    fitted made;
    moe_samples *samples = moe_samples_read(in->diag, file(in, "samples.jsonl"), in->diag);
    if (!samples)
        return MOE_BAD_INPUT;
    say("fitting", (int)samples->count, "points");
    moe_fit_adjust_machine(samples, "fp32", moe_diag_create(in->diag, NULL));
    made.cluster = moe_fit_cluster(in->diag, &samples->machine);
    const moe_fit_options options = {.name = "loop", .dtype = "fp32"};
    made.profile = moe_fit_profile(in->diag, samples, &options, in->diag);
    moe_validation_figure(in->outcome, "points measured", (double)samples->count);
    return made.profile ? write_fit(in, &made) : MOE_BAD_INPUT;
}

static moe_status simulate(const loop *in, moe_loop_times *times)
{
    moe_status status = write_with(in, "model.yaml", write_model);
    if (status == MOE_OK)
        status = write_with(in, "scenario.yaml", write_scenario);
    if (status == MOE_OK)
        status = moe_loop_write_trace(in->of, file(in, "instances.safetensors"), in->diag);
    return status == MOE_OK ? moe_loop_predict(in->of, file(in, "scenario.yaml"), times, in->diag)
                            : status;
}

static moe_status run_steps(const loop *in, moe_loop_times *times)
{
    moe_status status = write_with(in, "step.json", write_step);
    if (status != MOE_OK)
        return status;
    say("running the step with", in->of->instances, "sets of counts");
    status = moe_loop_run(
        &in->launcher,
        (const char *const[]){"--step", file(in, "step.json"), "-o", file(in, "result.json"), NULL},
        in->diag);
    return status == MOE_OK ? moe_loop_read(in->of, file(in, "result.json"), times, in->diag)
                            : status;
}

/* --- compare ------------------------------------------------------------------------------------ */

static void compare(const loop *in, const moe_loop_times *predicted, const moe_loop_times *measured)
{
    for (int i = 0; i < in->of->instances; i++) {
        const char *what = in->of->names[i];
        moe_validation_compare(in->outcome, "step", what, 1e3 * predicted[i].step_s,
                               1e3 * measured[i].step_s);
        moe_validation_compare(in->outcome, "step, analytic", what, 1e3 * predicted[i].analytic_s,
                               1e3 * measured[i].step_s);
    }
    for (int part = 0; part < MOE_LOOP_PARTS; part++)
        for (int i = 0; i < in->of->instances; i++)
            moe_validation_compare(in->outcome, moe_loop_part_names[part], in->of->names[i],
                                   1e3 * predicted[i].parts_s[part],
                                   1e3 * measured[i].parts_s[part]);
    moe_validation_goal_add(in->outcome,
                            (moe_validation_goal){"step", 0.15, true,
                                                  "what measuring, fitting and simulating may err "
                                                  "by together on one machine"});
}

static void explain(const loop *in, double others)
{
    const moe_loop_case *of = in->of;
    moe_validation_note(
        in->outcome,
        "%d ranks, %d layers of %d experts, top %d, d %d, f %d, %d tokens a rank, fp32. Counts: %d "
        "dispatches of gpt-moe-16e-top2-raw folded to the ranks, and uniform ones; none of them "
        "was "
        "measured before: experts were, with uniform and power-law rows, and uniform exchanges.",
        of->ranks, of->layers, MOE_LOOP_EXPERTS, of->top_k, of->hidden, of->ffn, of->tokens,
        of->instances - 1);
    moe_validation_note(
        in->outcome,
        "Parts are means over ranks; waiting, until the last rank is there, is apart. The real "
        "step overlaps nothing; the simulated one reduces gradients beside the backward "
        "pass at the measured interference, so what it computes meanwhile seems longer.");
    moe_validation_note(
        in->outcome,
        "Not in the simulated step: rows that arrive are sorted by expert, residuals are "
        "added, embeddings and weights are warm in the caches that points are kept out of.");
    if (others > 0.05)
        moe_validation_note(
            in->outcome,
            "Other programs took up to %.2f of the cores meanwhile: what they do shows as "
            "errors here. Repeat on a quiet machine.",
            others);
}

typedef struct interval {
    double others_s, wall_s;
} interval;

static interval now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (interval){moe_loop_others_s(), (double)time.tv_sec + 1e-9 * (double)time.tv_nsec};
}

/* Cores that others kept busy since `start`: they explain errors that nothing else does. */
static double say_others(const loop *in, const char *phase, interval start)
{
    const interval end = now();
    const double cores = fmax(end.others_s - start.others_s, 0) / (end.wall_s - start.wall_s);
    moe_validation_figure(in->outcome, phase, cores);
    return cores;
}

static moe_status run_loop(loop *in)
{
    moe_loop_times predicted[MOE_LOOP_INSTANCES] = {0}, measured[MOE_LOOP_INSTANCES] = {0};
    double others;
    interval start = now();
    moe_status status = measure(in);
    others = say_others(in, "cores that other programs took while parts were measured", start);
    if (status == MOE_OK)
        status = fit(in);
    if (status == MOE_OK)
        status = simulate(in, predicted);
    start = now();
    if (status == MOE_OK)
        status = run_steps(in, measured);
    others =
        fmax(others, say_others(in, "cores that other programs took while the step ran", start));
    if (status == MOE_OK) {
        compare(in, predicted, measured);
        explain(in, others);
    }
    return status;
}

/* --- the suite ---------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

/* In the folder asked for, or a temporary one; NULL after a printed error. */
static const char *make_folder(const moe_validation_options *options, moe_diag *diag)
{
    if (options->folder) {
        const char *folder = moe_need(talloc_asprintf(diag, "%s/loop", options->folder));
        return moe_folder_create(options->folder, diag) == MOE_OK &&
                       moe_folder_create(folder, diag) == MOE_OK
                   ? folder
                   : NULL;
    }
    const char *base = getenv("TMPDIR");
    char *folder =
        moe_need(talloc_asprintf(diag, "%s/moeplan-loop-XXXXXX", base && *base ? base : "/tmp"));
    if (mkdtemp(folder))
        return folder;
    moe_diag_error(diag, (moe_where){0}, "cannot make a folder %s", folder);
    return NULL;
}

/* The most that the cores allow; experts are dealt evenly. */
static int default_ranks(void)
{
    int ranks = 1;
    while (2 * ranks <= moe_loop_cores() && 2 * ranks <= MOE_LOOP_EXPERTS)
        ranks *= 2;
    return ranks;
}

static moe_status run(moe_validation_outcome *outcome, const moe_validation_options *options,
                      moe_diag *diag)
{
    loop in = {.outcome = outcome, .diag = diag};
    const int ranks = options->ranks > 0 ? options->ranks : default_ranks();
    in.launcher.ranks = ranks;
    in.launcher.mpirun = moe_loop_program(diag, "mpirun");
    in.launcher.moecal = moe_loop_program(diag, "moecal-cpu");
    if (!in.launcher.mpirun || !in.launcher.moecal) {
        moe_validation_skip(outcome,
                            "there is no %s beside moeplan or in PATH (moecal-cpu is built where "
                            "libmpich-dev and libopenblas-serial-dev are)",
                            in.launcher.moecal ? "mpirun" : "moecal-cpu");
        return MOE_OK;
    }
    if (ranks < 2) {
        moe_validation_skip(outcome, "one rank exchanges nothing (physical cores: %d)",
                            moe_loop_cores());
        return MOE_OK;
    }
    if (MOE_LOOP_EXPERTS % ranks != 0) {
        moe_diag_error(diag, (moe_where){0}, "--ranks is %d; expected 2, 4, 8 or 16", ranks);
        return MOE_BAD_INPUT;
    }
    in.of = moe_loop_case_create(diag, ranks, options->quick, diag);
    in.folder = in.of ? make_folder(options, diag) : NULL;
    if (!in.folder)
        return MOE_BAD_INPUT;
    in.launcher.log = file(&in, "moecal.log");
    const moe_status status = run_loop(&in);
    if (!options->folder && status == MOE_OK)
        nftw(in.folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return status;
}

const moe_validation_suite moe_validation_loop = {
    .name = "loop",
    .sentence = "this machine: measured, fitted, simulated; and a small MoE step really run with "
                "held-out skewed counts",
    .source = "taken now, by moecal-cpu",
    .unit = "ms",
    .run = run,
};
