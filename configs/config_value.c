/* Scalars, and lists of numbers: text to C values. */
#include "configs/base/memory.h"
#include "configs/base/utf8.h"
#include "configs/config_private.h"
#include <math.h>
#include <string.h>
#include <talloc.h>

enum { QUOTED_BYTES = 60 };

static const double largest_integer = 9007199254740992.0; /* 2^53: a double counts no further */

/* Where the byte at `offset` of a scalar stands, as closely as the scalar's style allows. */
static moe_where place_in(const moe_node *node, size_t offset)
{
    moe_where where = node->where;
    if (node->text_column > 0) {
        where.column = node->text_column + (int)moe_utf8_count(node->text, offset);
    }
    return where;
}

static const char *kind_name(const moe_node *node)
{
    if (node->kind == MOE_NODE_MAP) {
        return "a map";
    }
    if (node->kind == MOE_NODE_SEQUENCE) {
        return "a list";
    }
    return moe_node_is_null(node) ? "no value"
           : node->length == 0    ? "an empty text"
                                  : "a single value";
}

void moe_value_mismatch(moe_binder *binder, const moe_node *node, const char *key,
                        const char *expected)
{
    if (node->kind == MOE_NODE_BROKEN) {
        return;
    }
    if (key) {
        moe_diag_error(binder->diag, node->where, "%s for \"%s\"; expected %s", kind_name(node),
                       key, expected);
    } else {
        moe_diag_error(binder->diag, node->where, "%s; expected %s", kind_name(node), expected);
    }
}

/* Whether the node is a scalar with a value; prints what was expected instead. */
static bool check_scalar(moe_binder *binder, const moe_field *field, const char *expected,
                         const moe_node *node)
{
    if (node->kind == MOE_NODE_SCALAR && !moe_node_is_null(node)) {
        return true;
    }
    moe_value_mismatch(binder, node, field->key, expected);
    return false;
}

/* low == high == 0 stands for any non-negative number. */
static bool in_range(double value, double low, double high)
{
    return low == 0 && high == 0 ? value >= 0 : value >= low && value <= high;
}

/* A number of `dimension` within [low, high] (of which `field` knows the text). */
static bool parse_number(moe_binder *binder, const moe_field *field, const moe_node *node,
                         moe_dimension dimension, bool ranged, double *value)
{
    moe_units_error error;
    const double low = ranged ? field->low : 0, high = ranged ? field->high : 0;
    double parsed;
    if (!check_scalar(binder, field, moe_dimension_expectation(dimension), node)) {
        return false;
    }
    const bool sound =
        low < 0 ? moe_units_parse_signed(node->text, node->length, dimension, &parsed, &error)
                : moe_units_parse(node->text, node->length, dimension, &parsed, &error);
    if (!sound) {
        moe_diag_error(binder->diag, place_in(node, error.offset), "%s", error.message);
        return false;
    }
    if (!in_range(parsed, low, high)) {
        moe_diag_error(binder->diag, node->where,
                       "\"%.*s\" for \"%s\" is out of range; expected %s", QUOTED_BYTES, node->text,
                       field->key, moe_field_range(binder->nodes, field));
        return false;
    }
    *value = parsed;
    return true;
}

static bool bind_integer(moe_binder *binder, const moe_field *field, const moe_node *node,
                         int64_t *member)
{
    double value;
    if (!parse_number(binder, field, node, moe_field_dimension(field), true, &value)) {
        return false;
    }
    if (value != floor(value) || fabs(value) > largest_integer) {
        moe_diag_error(binder->diag, node->where,
                       "\"%.*s\" for \"%s\" is not whole or above 2^53; expected a whole number",
                       QUOTED_BYTES, node->text, field->key);
        return false;
    }
    *member = (int64_t)value;
    return true;
}

static bool bind_bool(moe_binder *binder, const moe_field *field, const moe_node *node,
                      bool *member)
{
    if (!check_scalar(binder, field, "true or false", node)) {
        return false;
    }
    const bool yes = strcmp(node->text, "true") == 0;
    if (!yes && strcmp(node->text, "false") != 0) {
        moe_diag_error(binder->diag, node->where, "\"%.*s\" for \"%s\"; expected true or false",
                       QUOTED_BYTES, node->text, field->key);
        return false;
    }
    *member = yes;
    return true;
}

/* Texts reach terminals, reports and file names: no control characters but line ends and tabs. */
static bool check_text(moe_binder *binder, const moe_field *field, const moe_node *node, bool path)
{
    const char *expected = moe_field_expectation(binder->nodes, field);
    if (!check_scalar(binder, field, expected, node)) {
        return false;
    }
    for (size_t at = 0; at < node->length;) {
        uint32_t point = 0;
        const size_t bytes = moe_utf8_decode(node->text + at, node->length - at, &point);
        const bool layout = !path && (point == '\n' || point == '\t');
        if (bytes == 0 || (moe_utf8_is_control(point) && !layout)) {
            moe_diag_error(binder->diag, node->where,
                           "control character U+%04X in \"%s\"; expected %s", (unsigned)point,
                           field->key, expected);
            return false;
        }
        at += bytes;
    }
    if (path && node->length == 0) {
        moe_diag_error(binder->diag, node->where, "an empty text for \"%s\"; expected %s",
                       field->key, expected);
        return false;
    }
    return true;
}

static bool bind_choice(moe_binder *binder, const moe_field *field, const moe_node *node,
                        int *member)
{
    const char *expected = moe_field_expectation(binder->nodes, field);
    size_t count = 0;
    if (!check_scalar(binder, field, expected, node)) {
        return false;
    }
    for (; field->choices[count]; count++) {
        if (strcmp(field->choices[count], node->text) == 0) {
            *member = (int)count;
            return true;
        }
    }
    const char *closest = moe_closest(node->text, field->choices, count);
    if (closest) {
        moe_diag_error(binder->diag, node->where,
                       "unknown %s \"%.*s\"; did you mean \"%s\"? (expected %s)", field->key,
                       QUOTED_BYTES, node->text, closest, expected);
    } else {
        moe_diag_error(binder->diag, node->where, "unknown %s \"%.*s\"; expected %s", field->key,
                       QUOTED_BYTES, node->text, expected);
    }
    return false;
}

static bool check_sequence(moe_binder *binder, const moe_field *field, const moe_node *node)
{
    if (node->kind == MOE_NODE_SEQUENCE) {
        return true;
    }
    moe_value_mismatch(binder, node, field->key, moe_field_expectation(binder->nodes, field));
    return false;
}

static bool bind_reals(moe_binder *binder, const moe_field *field, const moe_node *node,
                       moe_reals *member)
{
    bool sound = check_sequence(binder, field, node);
    if (!sound) {
        return false;
    }
    double *values = moe_need(talloc_zero_array(binder->config, double, node->count));
    for (size_t i = 0; i < node->count; i++) {
        sound &= parse_number(binder, field, node->items[i], field->dimension, true, &values[i]);
        moe_bind_record(binder, &values[i], field, node->items[i]->where, MOE_ORIGIN_GIVEN);
    }
    *member = (moe_reals){values, node->count};
    return sound;
}

static bool bind_point(moe_binder *binder, const moe_field *field, const moe_node *pair, double *x,
                       double *y)
{
    if (pair->kind != MOE_NODE_SEQUENCE || pair->count != 2) {
        moe_diag_error(binder->diag, pair->where, "not a pair in \"%s\"; expected %s", field->key,
                       moe_field_expectation(binder->nodes, field));
        return false;
    }
    moe_bind_record(binder, x, field, pair->items[0]->where, MOE_ORIGIN_GIVEN);
    moe_bind_record(binder, y, field, pair->items[1]->where, MOE_ORIGIN_GIVEN);
    const bool x_sound = parse_number(binder, field, pair->items[0], field->dimension, false, x);
    return parse_number(binder, field, pair->items[1], field->dimension_y, true, y) && x_sound;
}

static bool bind_points(moe_binder *binder, const moe_field *field, const moe_node *node,
                        moe_points *member)
{
    bool sound = check_sequence(binder, field, node);
    if (!sound) {
        return false;
    }
    double *x = moe_need(talloc_zero_array(binder->config, double, node->count));
    double *y = moe_need(talloc_zero_array(binder->config, double, node->count));
    for (size_t i = 0; i < node->count; i++) {
        sound &= bind_point(binder, field, node->items[i], &x[i], &y[i]);
    }
    *member = (moe_points){x, y, node->count};
    return sound;
}

static bool bind_row(moe_binder *binder, const moe_field *field, const moe_node *row, size_t width,
                     double *values)
{
    if (row->kind != MOE_NODE_SEQUENCE) {
        moe_value_mismatch(binder, row, field->key, moe_field_expectation(binder->nodes, field));
        return false;
    }
    if (row->count != width) {
        moe_diag_error(binder->diag, row->where,
                       "a row of %zu numbers in \"%s\"; expected %zu, as in the first row",
                       row->count, field->key, width);
        return false;
    }
    bool sound = true;
    for (size_t i = 0; i < width; i++) {
        sound &= parse_number(binder, field, row->items[i], field->dimension, true, &values[i]);
        moe_bind_record(binder, &values[i], field, row->items[i]->where, MOE_ORIGIN_GIVEN);
    }
    return sound;
}

/* Whether all rows are lists as wide as the first (0: it is none), asked before memory is taken for
 * count * width numbers: so many there are then. */
static bool rows_match(moe_binder *binder, const moe_field *field, const moe_node *node,
                       size_t width)
{
    bool sound = true;
    for (size_t i = 0; i < node->count; i++) {
        const moe_node *row = node->items[i];
        if (row->kind != MOE_NODE_SEQUENCE || (width > 0 && row->count != width)) {
            sound = bind_row(binder, field, row, width, NULL);
        }
    }
    return sound;
}

static bool bind_rows(moe_binder *binder, const moe_field *field, const moe_node *node,
                      moe_rows *member)
{
    if (!check_sequence(binder, field, node)) {
        return false;
    }
    const moe_node *first = node->count > 0 ? node->items[0] : NULL;
    const size_t width = first && first->kind == MOE_NODE_SEQUENCE ? first->count : 0;
    if (first && first->kind == MOE_NODE_SEQUENCE && width == 0) {
        moe_diag_error(binder->diag, first->where, "an empty row in \"%s\"; expected %s", field->key,
                       moe_field_expectation(binder->nodes, field));
        return false;
    }
    if (!rows_match(binder, field, node, width)) {
        return false;
    }
    bool sound = true;
    double *values = moe_need(talloc_zero_array(binder->config, double, node->count * width));
    for (size_t i = 0; i < node->count; i++) {
        sound &= bind_row(binder, field, node->items[i], width, values + i * width);
    }
    *member = (moe_rows){values, node->count, width};
    return sound;
}

static bool bind_text(moe_binder *binder, const moe_field *field, const moe_node *node,
                      const char **member)
{
    const bool path = field->type == MOE_FIELD_PATH;
    if (!check_text(binder, field, node, path)) {
        return false;
    }
    *member = path ? moe_node_resolve(binder->config, node)
                   : moe_need(talloc_strdup(binder->config, node->text));
    return true;
}

bool moe_value_bind(moe_binder *binder, const moe_field *field, const moe_node *node, void *member)
{
    switch (field->type) {
    case MOE_FIELD_REAL:
        return parse_number(binder, field, node, field->dimension, true, member);
    case MOE_FIELD_INTEGER:
        return bind_integer(binder, field, node, member);
    case MOE_FIELD_BOOL:
        return bind_bool(binder, field, node, member);
    case MOE_FIELD_TEXT:
    case MOE_FIELD_PATH:
        return bind_text(binder, field, node, member);
    case MOE_FIELD_CHOICE:
        return bind_choice(binder, field, node, member);
    case MOE_FIELD_REALS:
        return bind_reals(binder, field, node, member);
    case MOE_FIELD_ROWS:
        return bind_rows(binder, field, node, member);
    case MOE_FIELD_POINTS:
        return bind_points(binder, field, node, member);
    default:
        return false; /* maps and lists of maps: config_bind.c */
    }
}
