#include "reports/validation/validation_private.h"

#include "configs/base/memory.h"
#include "reports/validation/validation_errors.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <talloc.h>
#include <unistd.h>

/* ---- what suites call ------------------------------------------------------------------------ */

/* Room for one more item behind `count`: the array grows by doubling. */
#define MAKE_ROOM(outcome, array, count)                                                           \
    do {                                                                                           \
        if (((count) & ((count)-1)) == 0)                                                          \
            (array) = moe_need(talloc_realloc_size(                                                \
                (outcome), (array), sizeof *(array)*2 * ((count) > 0 ? (count) : 1)));             \
    } while (0)

static const char *copy(moe_validation_outcome *outcome, const char *text)
{
    return moe_need(talloc_strdup(outcome, text));
}

/* The group of that name, made where it is new; comparisons mostly come group by group. */
static moe_validation_group *find_group(moe_validation_outcome *outcome, const char *name)
{
    for (size_t i = outcome->group_count; i-- > 0;) {
        if (strcmp(outcome->groups[i].name, name) == 0)
            return &outcome->groups[i];
    }
    MAKE_ROOM(outcome, outcome->groups, outcome->group_count);
    moe_validation_group *group = &outcome->groups[outcome->group_count++];
    *group = (moe_validation_group){.name = copy(outcome, name)};
    return group;
}

void moe_validation_compare(moe_validation_outcome *outcome, const char *group, const char *what,
                            double predicted, double measured)
{
    MAKE_ROOM(outcome, outcome->comparisons, outcome->comparison_count);
    outcome->comparisons[outcome->comparison_count++] = (moe_comparison){
        .group = find_group(outcome, group)->name,
        .what = copy(outcome, what),
        .predicted = predicted,
        .measured = measured,
    };
}

void moe_validation_goal_add(moe_validation_outcome *outcome, moe_validation_goal goal)
{
    MAKE_ROOM(outcome, outcome->verdicts, outcome->verdict_count);
    goal.group = copy(outcome, goal.group);
    goal.because = goal.because != NULL ? copy(outcome, goal.because) : NULL;
    outcome->verdicts[outcome->verdict_count++] =
        (moe_validation_verdict){.goal = goal, .value = NAN};
}

__attribute__((format(printf, 3, 0))) static void add_text(moe_validation_outcome *outcome,
                                                           moe_validation_texts *texts,
                                                           const char *format, va_list arguments)
{
    MAKE_ROOM(outcome, texts->items, texts->count);
    texts->items[texts->count++] = moe_need(talloc_vasprintf(outcome, format, arguments));
}

void moe_validation_fitted(moe_validation_outcome *outcome, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    add_text(outcome, &outcome->fitted, format, arguments);
    va_end(arguments);
}

void moe_validation_note(moe_validation_outcome *outcome, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    add_text(outcome, &outcome->notes, format, arguments);
    va_end(arguments);
}

void moe_validation_figure(moe_validation_outcome *outcome, const char *name, double value)
{
    MAKE_ROOM(outcome, outcome->figures, outcome->figure_count);
    outcome->figures[outcome->figure_count++] =
        (moe_validation_number){.name = copy(outcome, name), .value = value};
}

void moe_validation_skip(moe_validation_outcome *outcome, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    outcome->skipped = moe_need(talloc_vasprintf(outcome, format, arguments));
    va_end(arguments);
}

const char *moe_validation_file(moe_validation_outcome *outcome,
                                const moe_validation_options *options, const char *name)
{
    const char *path = moe_need(talloc_asprintf(outcome, "%s/%s", options->data, name));
    if (access(path, R_OK) == 0)
        return path;
    moe_validation_skip(outcome, "its data is not there: %s: %s", path, strerror(errno));
    return NULL;
}

/* ---- running one ----------------------------------------------------------------------------- */

/* Comparisons group by group, each group in the order given: errors are taken of neighbours. */
static const moe_comparison **gather(void *owner, const moe_validation_outcome *outcome,
                                     const moe_validation_group *group, size_t *count)
{
    const moe_comparison **members =
        moe_need(talloc_array(owner, const moe_comparison *, outcome->comparison_count + 1));
    *count = 0;
    for (size_t i = 0; i < outcome->comparison_count; i++) {
        if (outcome->comparisons[i].group == group->name)
            members[(*count)++] = &outcome->comparisons[i];
    }
    return members;
}

static void sum_up_groups(moe_validation_outcome *outcome)
{
    for (size_t g = 0; g < outcome->group_count; g++) {
        size_t count;
        const moe_comparison **members = gather(NULL, outcome, &outcome->groups[g], &count);
        moe_validation_sum_up(&outcome->groups[g], members, count);
        talloc_free(members);
    }
}

static void judge(moe_validation_outcome *outcome)
{
    for (size_t v = 0; v < outcome->verdict_count; v++) {
        moe_validation_verdict *verdict = &outcome->verdicts[v];
        for (size_t g = 0; g < outcome->group_count; g++) {
            const moe_validation_group *group = &outcome->groups[g];
            if (group->count > 0 && strcmp(group->name, verdict->goal.group) == 0)
                verdict->value = verdict->goal.median ? group->median : group->mape;
        }
        verdict->reached = verdict->value <= verdict->goal.limit; /* false for NaN */
    }
}

moe_validation_outcome *moe_validation_run(void *owner, const moe_validation_suite *suite,
                                           const moe_validation_options *options,
                                           moe_status *status, moe_diag *diag)
{
    moe_validation_outcome *outcome = moe_need(talloc_zero(owner, moe_validation_outcome));
    outcome->suite = suite;
    *status = suite->run(outcome, options, diag);
    if (*status != MOE_OK) {
        talloc_free(outcome);
        return NULL;
    }
    sum_up_groups(outcome);
    judge(outcome);
    return outcome;
}

const char *moe_validation_skipped(const moe_validation_outcome *outcome)
{
    return outcome->skipped;
}

const moe_validation_group *moe_validation_groups(const moe_validation_outcome *outcome,
                                                  size_t *count)
{
    *count = outcome->group_count;
    return outcome->groups;
}

const moe_validation_verdict *moe_validation_verdicts(const moe_validation_outcome *outcome,
                                                      size_t *count)
{
    *count = outcome->verdict_count;
    return outcome->verdicts;
}
