/* An outcome for programs. */
#include "reports/validation/validation_private.h"

#include <math.h>

/* JSON has no NaN. */
static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *group_json(const moe_validation_group *group)
{
    json_t *json = json_pack("{s:s, s:I, s:I}", "name", group->name, "count",
                             (json_int_t)group->count, "unusable", (json_int_t)group->unusable);
    const bool some = group->count > 0;
    json_object_set_new(json, "mape", some ? real(group->mape) : json_null());
    json_object_set_new(json, "median", some ? real(group->median) : json_null());
    json_object_set_new(json, "worst", some ? real(group->worst) : json_null());
    json_object_set_new(json, "worst_at", some ? json_string(group->worst_what) : json_null());
    json_object_set_new(json, "bias", some ? real(group->bias) : json_null());
    json_object_set_new(json, "pearson", real(group->pearson));
    json_object_set_new(json, "rank", real(group->rank));
    return json;
}

static json_t *verdict_json(const moe_validation_verdict *verdict)
{
    return json_pack("{s:s, s:s, s:f, s:o, s:b, s:s?}", "group", verdict->goal.group, "of",
                     verdict->goal.median ? "median" : "mape", "limit", verdict->goal.limit,
                     "value", real(verdict->value), "reached", (int)verdict->reached, "because",
                     verdict->goal.because);
}

static json_t *comparison_json(const moe_comparison *comparison)
{
    return json_pack("{s:s, s:s, s:o, s:o}", "group", comparison->group, "what", comparison->what,
                     "predicted", real(comparison->predicted), "measured",
                     real(comparison->measured));
}

static json_t *texts_json(const moe_validation_texts *texts)
{
    json_t *array = json_array();
    for (size_t i = 0; i < texts->count; i++)
        json_array_append_new(array, json_string(texts->items[i]));
    return array;
}

static json_t *figures_json(const moe_validation_outcome *outcome)
{
    json_t *object = json_object();
    for (size_t i = 0; i < outcome->figure_count; i++)
        json_object_set_new(object, outcome->figures[i].name, real(outcome->figures[i].value));
    return object;
}

json_t *moe_validation_json(const moe_validation_outcome *outcome)
{
    const moe_validation_suite *suite = outcome->suite;
    json_t *groups = json_array(), *goals = json_array(), *comparisons = json_array();
    for (size_t i = 0; i < outcome->group_count; i++)
        json_array_append_new(groups, group_json(&outcome->groups[i]));
    for (size_t i = 0; i < outcome->verdict_count; i++)
        json_array_append_new(goals, verdict_json(&outcome->verdicts[i]));
    for (size_t i = 0; i < outcome->comparison_count; i++)
        json_array_append_new(comparisons, comparison_json(&outcome->comparisons[i]));
    return json_pack("{s:s, s:s, s:s, s:s, s:s?, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
                     suite->name, "sentence", suite->sentence, "source", suite->source, "unit",
                     suite->unit, "skipped", outcome->skipped, "groups", groups, "goals", goals,
                     "fitted", texts_json(&outcome->fitted), "notes", texts_json(&outcome->notes),
                     "figures", figures_json(outcome), "comparisons", comparisons);
}
