#include "configs/base/memory.h"
#include "configs/config_private.h"
#include <math.h>
#include <string.h>
#include <talloc.h>

/* "At most" and "at least" beyond this magnitude are no limits. */
static const double unlimited = 1e300;

const moe_node *moe_table_selector(const moe_table *table, const moe_node *map)
{
    if (!table->variant) {
        return NULL;
    }
    const moe_node *value = moe_node_get(map, table->variant->key);
    if (!value && table->variant->fallback_key) {
        value = moe_node_get(map, table->variant->fallback_key);
    }
    return value && value->kind == MOE_NODE_SCALAR && !moe_node_is_null(value) ? value : NULL;
}

const moe_table *moe_table_further(const moe_table *table, const moe_node *map)
{
    const moe_node *selector = moe_table_selector(table, map);
    const char *const *known = NULL;
    size_t count = 0;
    return selector ? table->variant->select(selector->text, &known, &count) : NULL;
}

const moe_field *moe_table_field(const moe_table *table, const char *key, size_t length)
{
    for (const moe_field *field = table->fields; field->key; field++) {
        if (strlen(field->key) == length && memcmp(field->key, key, length) == 0) {
            return field;
        }
    }
    return NULL;
}

const moe_field *moe_table_field_in(const moe_table *table, const moe_node *map, const char *key,
                                    size_t length)
{
    const moe_field *field = moe_table_field(table, key, length);
    const moe_table *further = field ? NULL : moe_table_further(table, map);
    return further ? moe_table_field(further, key, length) : field;
}

size_t moe_table_field_count(const moe_table *table)
{
    size_t count = 0;
    while (table->fields[count].key) {
        count++;
    }
    return count;
}

const char *moe_join(void *owner, const char *const *words, size_t count)
{
    char *text = moe_need(talloc_strdup(owner, ""));
    for (size_t i = 0; i < count; i++) {
        text = moe_need(talloc_asprintf_append_buffer(text, "%s%s", i > 0 ? ", " : "", words[i]));
    }
    return text;
}

moe_dimension moe_field_dimension(const moe_field *field)
{
    const bool bare_integer = field->type == MOE_FIELD_INTEGER && field->dimension == MOE_NUMBER;
    return bare_integer                      ? MOE_COUNT
           : field->type == MOE_FIELD_POINTS ? field->dimension_y
                                             : field->dimension;
}

static const char *choices_expectation(void *owner, const moe_field *field)
{
    size_t count = 0;
    while (field->choices[count]) {
        count++;
    }
    return moe_need(talloc_asprintf(owner, "one of: %s", moe_join(owner, field->choices, count)));
}

const char *moe_field_expectation(void *owner, const moe_field *field)
{
    switch (field->type) {
    case MOE_FIELD_REAL:
    case MOE_FIELD_INTEGER:
        return moe_dimension_expectation(moe_field_dimension(field));
    case MOE_FIELD_BOOL:
        return "true or false";
    case MOE_FIELD_TEXT:
        return "a text";
    case MOE_FIELD_PATH:
        return "the path of a file";
    case MOE_FIELD_CHOICE:
        return choices_expectation(owner, field);
    case MOE_FIELD_MAP:
        return moe_need(talloc_asprintf(owner, "a map (%s)", field->table->noun));
    case MOE_FIELD_FILE:
        return moe_need(
            talloc_asprintf(owner, "a map (%s) or the path of a YAML file", field->table->noun));
    case MOE_FIELD_LIST:
        return moe_need(talloc_asprintf(owner, "a list of maps (%s)", field->table->noun));
    case MOE_FIELD_REALS:
        return moe_need(
            talloc_asprintf(owner, "a list, each %s", moe_dimension_expectation(field->dimension)));
    case MOE_FIELD_ROWS:
        return moe_need(talloc_asprintf(owner, "a list of equally long lists, each %s",
                                        moe_dimension_expectation(field->dimension)));
    case MOE_FIELD_POINTS:
        return moe_need(talloc_asprintf(owner, "a list of pairs [%s, %s]",
                                        moe_dimension_name(field->dimension),
                                        moe_dimension_name(field->dimension_y)));
    }
    return "a value";
}

static bool has_numbers(const moe_field *field)
{
    return field->type == MOE_FIELD_REAL || field->type == MOE_FIELD_INTEGER ||
           field->type == MOE_FIELD_REALS || field->type == MOE_FIELD_ROWS ||
           field->type == MOE_FIELD_POINTS;
}

const char *moe_field_range(void *owner, const moe_field *field)
{
    const moe_dimension dimension = moe_field_dimension(field);
    char low[48], high[48];
    if (!has_numbers(field) || (field->low == 0 && field->high == 0)) {
        return NULL;
    }
    moe_units_format(field->low, dimension, low);
    moe_units_format(field->high, dimension, high);
    if (field->high >= unlimited && field->low <= -unlimited) {
        return "any sign";
    }
    if (field->high >= unlimited) {
        return moe_need(talloc_asprintf(owner, "at least %s", low));
    }
    if (field->low <= -unlimited) {
        return moe_need(talloc_asprintf(owner, "at most %s", high));
    }
    return moe_need(talloc_asprintf(owner, "%s to %s", low, high));
}
