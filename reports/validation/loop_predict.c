#include "reports/validation/loop_predict.h"

#include "sim/run.h"

#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <string.h>
#include <talloc.h>

const char *const moe_loop_part_names[] = {
    "attention and gate", "experts",   "permutation", "exchange", "embedding and head",
    "gradients",          "optimizer", "waiting",     NULL};

/* --- predicted ---------------------------------------------------------------------------------- */

static bool begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

static moe_loop_part part_of(const moe_op *op)
{
    const bool exchanged = op->kind == MOE_OP_COLLECTIVE;
    switch (op->part) {
    case MOE_EXPERT:
        return MOE_LOOP_EXPERT;
    case MOE_DISPATCH:
    case MOE_COMBINE:
        return exchanged ? MOE_LOOP_EXCHANGE : MOE_LOOP_PERMUTE;
    case MOE_GRADIENT_SYNC:
        return MOE_LOOP_GRADIENTS;
    case MOE_OPTIMIZER:
        return MOE_LOOP_OPTIMIZER;
    case MOE_DENSE:
        return begins(op->name, "attention") ? MOE_LOOP_ATTENTION : MOE_LOOP_HEAD;
    default:
        return MOE_LOOP_WAIT; /* the host: nobody computes */
    }
}

/* When everything that a collective waits for has ended on `device`. */
static double arrival_s(const moe_program *program, const moe_timeline *timeline, int op,
                        int device)
{
    const moe_op *of = &program->ops[op];
    double latest_s = 0;
    for (int i = 0; i < of->wait_count; i++) {
        const size_t at = moe_timeline_at(timeline, program->waits[of->first_wait + i], device);
        latest_s = timeline->end_s[at] > latest_s ? timeline->end_s[at] : latest_s;
    }
    return latest_s;
}

static void book(const moe_program *program, const moe_timeline *timeline, int op, double *parts_s)
{
    const moe_op *of = &program->ops[op];
    const moe_loop_part part = part_of(of);
    for (int device = 0; device < program->devices; device++) {
        const size_t at = moe_timeline_at(timeline, op, device);
        parts_s[part] += (timeline->end_s[at] - timeline->start_s[at]) / program->devices;
        if (part == MOE_LOOP_EXCHANGE)
            parts_s[MOE_LOOP_WAIT] +=
                (timeline->start_s[at] - arrival_s(program, timeline, op, device)) /
                program->devices;
    }
}

static void observe(void *context, int policy, int64_t iteration, const moe_program *program,
                    const moe_timeline *timeline)
{
    moe_loop_times *times = context;
    (void)policy;
    times[iteration].analytic_s = timeline->step_s;
    for (int op = 0; op < program->op_count; op++)
        book(program, timeline, op, times[iteration].parts_s);
}

static moe_status predict_parts(const moe_loop_case *of, const char *scenario,
                                moe_loop_times *times, void *scratch, moe_diag *diag)
{
    moe_binding *binding = moe_binding_create(scratch, scenario, NULL, 0, "analytic", diag);
    if (!binding)
        return MOE_BAD_INPUT;
    moe_step_result *results = talloc_zero_array(scratch, moe_step_result, (unsigned)of->instances);
    moe_curve_usage *usage = talloc_zero(scratch, moe_curve_usage);
    const moe_run_options options = {.jobs = 1, .observe = observe, .observe_context = times};
    return moe_run_chunk(binding, 0, 0, of->instances, &options, results, usage, diag);
}

moe_status moe_loop_predict(const moe_loop_case *of, const char *scenario, moe_loop_times *times,
                            moe_diag *diag)
{
    void *scratch = talloc_new(NULL);
    moe_status status = predict_parts(of, scenario, times, scratch, diag);
    moe_binding *binding =
        status == MOE_OK ? moe_binding_create(scratch, scenario, NULL, 0, "fluid", diag) : NULL;
    const moe_run_options options = {.jobs = 1};
    const moe_run *run =
        binding ? moe_run_scenario(scratch, binding, &(int){0}, 1, &options, &status, diag) : NULL;
    for (int i = 0; run && i < of->instances; i++)
        times[i].step_s = run->policies[0].result.series[i].step_s;
    if (status == MOE_OK && !run)
        status = MOE_BAD_INPUT;
    talloc_free(scratch);
    return status;
}

/* --- measured ----------------------------------------------------------------------------------- */

/* moecal's parts, by ours. */
static const struct {
    const char *name;
    moe_loop_part part;
} measured_parts[] = {
    {"attention", MOE_LOOP_ATTENTION}, {"gate", MOE_LOOP_ATTENTION},
    {"experts", MOE_LOOP_EXPERT},      {"permute", MOE_LOOP_PERMUTE},
    {"dispatch", MOE_LOOP_EXCHANGE},   {"combine", MOE_LOOP_EXCHANGE},
    {"head", MOE_LOOP_HEAD},           {"gradients", MOE_LOOP_GRADIENTS},
    {"optimizer", MOE_LOOP_OPTIMIZER}, {"wait", MOE_LOOP_WAIT},
};

static bool read_seconds(const json_t *list, int repetitions, double *median_s)
{
    double seconds[64];
    const size_t count = json_array_size(list);
    if (count != (size_t)repetitions || count > sizeof seconds / sizeof *seconds)
        return false;
    for (size_t i = 0; i < count; i++) {
        seconds[i] = json_number_value(json_array_get(list, i));
        if (!(seconds[i] > 0))
            return false;
    }
    gsl_sort(seconds, 1, count);
    *median_s = gsl_stats_median_from_sorted_data(seconds, 1, count);
    return true;
}

static bool read_instance(const moe_loop_case *of, int i, const json_t *instance,
                          moe_loop_times *times)
{
    const char *name = json_string_value(json_object_get(instance, "name"));
    const json_t *parts = json_object_get(instance, "parts_s");
    if (!name || strcmp(name, of->names[i]) != 0 ||
        !read_seconds(json_object_get(instance, "seconds"), of->repetitions, &times->step_s))
        return false;
    for (size_t p = 0; p < sizeof measured_parts / sizeof *measured_parts; p++) {
        const json_t *seconds = json_object_get(parts, measured_parts[p].name);
        if (!json_is_number(seconds))
            return false;
        times->parts_s[measured_parts[p].part] += json_number_value(seconds);
    }
    return true;
}

moe_status moe_loop_read(const moe_loop_case *of, const char *result, moe_loop_times *times,
                         moe_diag *diag)
{
    json_error_t error;
    json_t *root = json_load_file(result, JSON_REJECT_DUPLICATES, &error);
    const json_t *instances = json_object_get(root, "instances");
    bool sound = json_array_size(instances) == (size_t)of->instances;
    for (int i = 0; sound && i < of->instances; i++)
        sound = read_instance(of, i, json_array_get(instances, (size_t)i), &times[i]);
    json_decref(root);
    if (!sound)
        moe_diag_error(diag, (moe_where){0},
                       "%s is not what moecal-cpu --step writes of these instances%s%s", result,
                       root ? "" : ": ", root ? "" : error.text);
    return sound ? MOE_OK : MOE_BAD_INPUT;
}
