#include "calibrate/measure/run.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Repetitions of one point: of both parts together, or of one alone. */
typedef struct series {
    moecal_time *times;
    double *total_s; /* the same, for the statistics */
    size_t count;
    int warmup;
} series;

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

__attribute__((format(printf, 2, 3))) static void say(const moecal_run *run, const char *format,
                                                      ...)
{
    va_list arguments;
    if (run->world.rank != 0)
        return;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
}

/* What rank 0 thinks, everywhere. */
static double agreed(const moecal_run *run, double value)
{
    run->backend->share(run->state, &value, 1);
    return value;
}

/* --- repetitions ------------------------------------------------------------------------------ */

static series series_create(const moecal_run *run)
{
    size_t most = (size_t)run->rule.most;
    series made = {calloc(most, sizeof *made.times), calloc(most, sizeof *made.total_s), 0, 0};
    if (!made.times || !made.total_s)
        abort();
    return made;
}

static void series_free(series *freed)
{
    free(freed->times);
    free(freed->total_s);
}

/* The first repetition is slow (code, pages, connections); short ones want some more. */
static int warm_up(const moecal_run *run, const moecal_point *point, int alone)
{
    moecal_time times[10];
    run->backend->run(run->state, point, alone, 1, times);
    run->backend->run(run->state, point, alone, 1, times);
    double once_s = agreed(run, times[0].total_s);
    int more = once_s * 10 < run->rule.budget_s / 4 ? 8 : 0;
    if (more)
        run->backend->run(run->state, point, alone, more, times);
    return 2 + more;
}

static void repeat(const moecal_run *run, const moecal_point *point, int alone,
                   const moecal_stop_rule *rule, series *taken)
{
    double start_s;
    int batch;
    taken->warmup = warm_up(run, point, alone);
    start_s = now_s();
    while ((batch = (int)agreed(run, moecal_next_batch(rule, taken->total_s, taken->count,
                                                       now_s() - start_s))) > 0) {
        run->backend->run(run->state, point, alone, batch, taken->times + taken->count);
        for (int i = 0; i < batch; i++, taken->count++)
            taken->total_s[taken->count] = taken->times[taken->count].total_s;
    }
}

/* Median of one part alone. */
static double alone_s(const moecal_run *run, const moecal_point *point, int part)
{
    moecal_stop_rule rule = run->rule;
    series taken = series_create(run);
    rule.budget_s /= 4;
    repeat(run, point, part, &rule, &taken);
    double median = moecal_median(taken.total_s, taken.count);
    series_free(&taken);
    return median;
}

/* --- the sample ------------------------------------------------------------------------------- */

static json_t *reals(const moecal_time *times, size_t count, size_t offset)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        double value;
        memcpy(&value, (const char *)&times[i] + offset, sizeof value);
        json_array_append_new(array, json_real(value));
    }
    return array;
}

static void put_pair(json_t *sample, const moecal_point *point, const series *taken,
                     const double *alone)
{
    static const char *const names[2][4] = {
        {"first_alone_s", "second_alone_s", "first_times_s", "second_times_s"},
        {"compute_alone_s", "collective_alone_s", "compute_times_s", "collective_times_s"}};
    const char *const *keys = names[point->kind == MOECAL_INTERFERENCE];
    json_object_set_new(sample, keys[0], json_real(alone[0]));
    json_object_set_new(sample, keys[1], json_real(alone[1]));
    json_object_set_new(sample, keys[2],
                        reals(taken->times, taken->count, offsetof(moecal_time, first_s)));
    json_object_set_new(sample, keys[3],
                        reals(taken->times, taken->count, offsetof(moecal_time, second_s)));
}

static json_t *conditions_json(moecal_conditions seen)
{
    json_t *object = json_object();
    if (seen.clock_hz > 0)
        json_object_set_new(object, "clock_hz", json_real(seen.clock_hz));
    if (seen.power_w > 0)
        json_object_set_new(object, "power_w", json_real(seen.power_w));
    if (isfinite(seen.temperature_c))
        json_object_set_new(object, "temperature_c", json_real(seen.temperature_c));
    json_object_set_new(object, "throttled", json_boolean(seen.throttled));
    return object;
}

static int ranks_of(const moecal_run *run, const moecal_point *point)
{
    if (!moecal_point_is_collective(point))
        return 1;
    return point->ranks > 0 ? point->ranks : run->world.ranks;
}

/* The first ranks, host by host. */
static int hosts_of(const moecal_run *run, const moecal_point *point)
{
    int per_host = run->world.devices_per_host > 0 ? run->world.devices_per_host : 1;
    int hosts = (ranks_of(run, point) + per_host - 1) / per_host;
    return hosts < run->world.hosts ? hosts : run->world.hosts;
}

static json_t *sample_json(const moecal_run *run, const moecal_point *point, const series *taken,
                           const double *alone, moecal_check check)
{
    json_t *sample = json_pack("{s:s}", "record", "sample"), *parameters = moecal_point_json(point);
    json_object_update(sample, parameters);
    json_decref(parameters);
    json_object_set_new(sample, "ranks", json_integer(ranks_of(run, point)));
    json_object_set_new(sample, "hosts", json_integer(hosts_of(run, point)));
    json_object_set_new(sample, "times_s",
                        reals(taken->times, taken->count, offsetof(moecal_time, total_s)));
    if (alone)
        put_pair(sample, point, taken, alone);
    json_object_set_new(sample, "warmup", json_integer(taken->warmup));
    json_object_set_new(sample, "check",
                        json_pack("{s:f, s:f}", "error", check.error, "limit", check.limit));
    return sample;
}

/* --- one point -------------------------------------------------------------------------------- */

typedef enum outcome { MEASURED, REFUSED, FAILED, BROKEN } outcome;

static outcome write_sample(const moecal_run *run, json_t *sample, moecal_conditions seen)
{
    int failed = 0, error = 0;
    if (run->samples) {
        json_object_set_new(sample, "conditions", conditions_json(seen));
        failed = moecal_samples_write(run->samples, sample);
        error = errno;
    }
    if (agreed(run, failed) == 0)
        return MEASURED;
    say(run, "\nmoecal: error: a sample could not be written: %s\n", strerror(error));
    return BROKEN;
}

/* A time of 0 would be read as a mistake, and is one. */
static bool times_are_sound(const series *taken)
{
    for (size_t i = 0; i < taken->count; i++)
        if (!(taken->total_s[i] > 0) || !isfinite(taken->total_s[i]))
            return false;
    return taken->count > 0;
}

static outcome time_point(const moecal_run *run, const moecal_point *point, moecal_check check)
{
    bool pair = point->kind == MOECAL_INTERFERENCE || point->kind == MOECAL_SHARING;
    double alone[2] = {0};
    series taken = series_create(run);
    for (int part = 1; pair && part <= 2; part++)
        alone[part - 1] = alone_s(run, point, part);
    repeat(run, point, 0, &run->rule, &taken);
    moecal_conditions seen = run->backend->conditions(run->state);
    outcome result = FAILED;
    if (times_are_sound(&taken)) {
        json_t *sample = sample_json(run, point, &taken, pair ? alone : NULL, check);
        result = write_sample(run, sample, seen);
        json_decref(sample);
        say(run, "%.4g s, spread %.1f %%, %zu times", moecal_median(taken.total_s, taken.count),
            100 * moecal_spread(taken.total_s, taken.count), taken.count);
    } else {
        say(run, "FAILED: the clock says it took no time");
    }
    series_free(&taken);
    return result;
}

static outcome prepare_and_time(const moecal_run *run, const moecal_point *point)
{
    char error[256] = "";
    if (run->backend->prepare(run->state, point, error, sizeof error) != 0) {
        say(run, "FAILED: %s", error);
        return FAILED;
    }
    moecal_check check = run->backend->check(run->state, point);
    outcome result = FAILED;
    if (check.error <= check.limit) /* false for NaN */
        result = time_point(run, point, check);
    else
        say(run, "FAILED: off by %.3g from double precision, limit %.3g; not timed", check.error,
            check.limit);
    run->backend->release(run->state, point);
    return result;
}

/* What nobody could read back: matrices and chunks are part of a line, and times, of 16 characters each. */
static bool line_would_be_too_long(const moecal_run *run, const moecal_point *point)
{
    json_t *parameters = moecal_point_json(point);
    size_t bytes = json_dumpb(parameters, NULL, 0, JSON_COMPACT);
    json_decref(parameters);
    return bytes + 3 * 16 * (size_t)run->rule.most + 4096 > MOECAL_MAX_LINE;
}

static outcome measure(const moecal_run *run, const moecal_point *point)
{
    const char *reason = run->backend->refuses(run->state, point);
    if (!reason && line_would_be_too_long(run, point))
        reason = "its line would be longer than 1 MiB: fewer ranks, chunks or repetitions";
    if (moecal_point_least_ranks(point) > run->world.ranks) {
        say(run, "skipped: it needs %d ranks, there %s %d", moecal_point_least_ranks(point),
            run->world.ranks == 1 ? "is" : "are", run->world.ranks);
        return REFUSED;
    }
    if (reason) {
        say(run, "skipped: %s", reason);
        return REFUSED;
    }
    return prepare_and_time(run, point);
}

/* --- the suite -------------------------------------------------------------------------------- */

/* Estimates of what is done and to do, to scale the rest by how they compared with the clock. */
typedef struct progress {
    double start_s;
    double done_s, left_s;
} progress;

static void say_left(const moecal_run *run, const progress *seen)
{
    double elapsed = now_s() - seen->start_s;
    double factor = seen->done_s > 0 ? elapsed / seen->done_s : 1;
    double left = fmax(0, seen->left_s * factor);
    if (left >= 90)
        say(run, "; %.0f min left\n", ceil(left / 60));
    else
        say(run, "; %.0f s left\n", ceil(left));
}

static void count_outcome(moecal_tally *tally, outcome result)
{
    tally->measured += result == MEASURED;
    tally->refused += result == REFUSED;
    tally->failed += result == FAILED;
    tally->broken |= result == BROKEN;
}

static bool *points_to_skip(const moecal_run *run, const moecal_suite *suite)
{
    bool *skip = calloc(suite->count + 1, sizeof *skip);
    if (!skip)
        abort();
    for (size_t i = 0; i < suite->count; i++) {
        bool has = run->samples && moecal_samples_has(run->samples, suite->points[i]->id);
        skip[i] = agreed(run, has) != 0;
    }
    return skip;
}

moecal_tally moecal_run_suite(const moecal_run *run, const moecal_suite *suite)
{
    moecal_tally tally = {0};
    progress seen = {.start_s = now_s()};
    bool *skip = points_to_skip(run, suite);
    for (size_t i = 0; i < suite->count; i++)
        if (!skip[i])
            seen.left_s += moecal_estimate_point_s(suite->points[i], &run->rates, &run->rule);
    for (size_t i = 0; i < suite->count && !tally.broken; i++) {
        const moecal_point *point = suite->points[i];
        if (skip[i]) {
            tally.had++;
            continue;
        }
        tally.stopped = agreed(run, *run->stopped) != 0;
        if (tally.stopped)
            break;
        say(run, "[%*zu/%zu] %s: ", suite->count > 999 ? 5 : 3, i + 1, suite->count, point->id);
        outcome result = measure(run, point);
        double estimate_s = moecal_estimate_point_s(point, &run->rates, &run->rule);
        seen.left_s -= estimate_s;
        seen.done_s += result == MEASURED ? estimate_s : 0;
        count_outcome(&tally, result);
        say_left(run, &seen);
    }
    free(skip);
    return tally;
}
