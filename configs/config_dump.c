/* The bound structs back to YAML. What was absent without a default stays absent: a required key of
 * a map that nobody wrote must not appear as zero. */
#include "configs/base/memory.h"
#include "configs/config_private.h"
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <unistd.h>

typedef struct dumper {
    const moe_config *config;
    FILE *stream;
} dumper;

static void dump_map(const dumper *d, const moe_table *table, const char *base, int indent,
                     bool in_item);

static bool is_visible(const dumper *d, const moe_field *field, const char *member)
{
    const moe_bound *bound = moe_config_bound(d->config, member, field);
    return bound && bound->origin != MOE_ORIGIN_ABSENT;
}

static bool any_visible(const dumper *d, const moe_table *table, const char *base)
{
    for (const moe_field *field = table->fields; field->key; field++) {
        if (is_visible(d, field, base + field->offset)) {
            return true;
        }
    }
    return false;
}

/* Whether the loader reads the text back the same without quotes. */
static bool is_plain_word(const char *text)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    const moe_node node = {.kind = MOE_NODE_SCALAR, .plain = true, .text = text};
    return text[0] != '-' && text[0] != '.' && text[strspn(text, letters)] == '\0' &&
           !moe_node_is_null(&node);
}

/* Bound texts hold no control characters but line ends and tabs. */
static void dump_text(FILE *stream, const char *text)
{
    if (is_plain_word(text)) {
        fputs(text, stream);
        return;
    }
    fputc('"', stream);
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '\n' || *at == '\t') {
            fputs(*at == '\n' ? "\\n" : "\\t", stream);
        } else {
            fputs(*at == '"' || *at == '\\' ? "\\" : "", stream);
            fputc(*at, stream);
        }
    }
    fputc('"', stream);
}

/* Absolute: wherever the dump is stored, it names the same file. */
static void dump_path(FILE *stream, const char *path)
{
    char *folder = path[0] == '/' ? NULL : getcwd(NULL, 0);
    char *absolute =
        moe_need(folder ? talloc_asprintf(NULL, "%s/%s", folder, path) : talloc_strdup(NULL, path));
    dump_text(stream, absolute);
    talloc_free(absolute);
    free(folder);
}

static void dump_number(FILE *stream, double value, moe_dimension dimension)
{
    char text[48];
    moe_units_format(value, dimension, text);
    fputs(text, stream);
}

static void dump_reals(FILE *stream, const moe_field *field, const moe_reals *reals)
{
    fputc('[', stream);
    for (size_t i = 0; i < reals->count; i++) {
        fputs(i > 0 ? ", " : "", stream);
        dump_number(stream, reals->values[i], field->dimension);
    }
    fputc(']', stream);
}

static void dump_rows(FILE *stream, const moe_field *field, const moe_rows *rows)
{
    fputc('[', stream);
    for (size_t i = 0; i < rows->count; i++) {
        const moe_reals row = {rows->values + i * rows->width, rows->width};
        fputs(i > 0 ? ", " : "", stream);
        dump_reals(stream, field, &row);
    }
    fputc(']', stream);
}

static void dump_points(FILE *stream, const moe_field *field, const moe_points *points)
{
    fputc('[', stream);
    for (size_t i = 0; i < points->count; i++) {
        fputs(i > 0 ? ", [" : "[", stream);
        dump_number(stream, points->x[i], field->dimension);
        fputs(", ", stream);
        dump_number(stream, points->y[i], field->dimension_y);
        fputc(']', stream);
    }
    fputc(']', stream);
}

/* A value that fits on the line of its key. */
static void dump_inline(FILE *stream, const moe_field *field, const void *member)
{
    switch (field->type) {
    case MOE_FIELD_REAL:
        dump_number(stream, *(const double *)member, field->dimension);
        break;
    case MOE_FIELD_INTEGER:
        dump_number(stream, (double)*(const int64_t *)member, moe_field_dimension(field));
        break;
    case MOE_FIELD_BOOL:
        fputs(*(const bool *)member ? "true" : "false", stream);
        break;
    case MOE_FIELD_TEXT:
        dump_text(stream, *(const char *const *)member);
        break;
    case MOE_FIELD_PATH:
        dump_path(stream, *(const char *const *)member);
        break;
    case MOE_FIELD_CHOICE:
        dump_text(stream, field->choices[*(const int *)member]);
        break;
    case MOE_FIELD_REALS:
        dump_reals(stream, field, member);
        break;
    case MOE_FIELD_ROWS:
        dump_rows(stream, field, member);
        break;
    case MOE_FIELD_POINTS:
        dump_points(stream, field, member);
        break;
    default:
        break;
    }
}

static void dump_list(const dumper *d, const moe_field *field, const moe_list *list, int indent)
{
    fputs(list->count == 0 ? " []\n" : "\n", d->stream);
    for (size_t i = 0; i < list->count; i++) {
        fprintf(d->stream, "%*s-", indent, "");
        dump_map(d, field->table, (const char *)list->items + i * field->table->size, indent + 2,
                 true);
    }
}

static void dump_value(const dumper *d, const moe_field *field, const char *member, int indent)
{
    if (field->type == MOE_FIELD_LIST) {
        dump_list(d, field, (const moe_list *)(const void *)member, indent + 2);
    } else if (field->type == MOE_FIELD_MAP || field->type == MOE_FIELD_FILE) {
        dump_map(d, field->table, member, indent + 2, false);
    } else {
        fputc(' ', d->stream);
        dump_inline(d->stream, field, member);
        fputc('\n', d->stream);
    }
}

/* The fields of one table; *first: whether the next line continues the "-" of a list. */
static void dump_fields(const dumper *d, const moe_table *table, const char *base, int indent,
                        bool *first)
{
    for (const moe_field *field = table->fields; field->key; field++) {
        if (is_visible(d, field, base + field->offset)) {
            fprintf(d->stream, "%*s%s:", *first ? 1 : indent, "", field->key);
            *first = false;
            dump_value(d, field, base + field->offset, indent);
        }
    }
}

/* The text that selects the variant of a bound struct, or NULL. */
static const char *selector_value(const moe_table *table, const char *key, const char *base)
{
    const moe_field *field = key ? moe_table_field(table, key, strlen(key)) : NULL;
    if (field && field->type == MOE_FIELD_TEXT) {
        return *(const char *const *)(const void *)(base + field->offset);
    }
    if (field && field->type == MOE_FIELD_CHOICE) {
        return field->choices[*(const int *)(const void *)(base + field->offset)];
    }
    return NULL;
}

/* The variant's table and struct, or NULL. */
static const moe_table *bound_variant(const moe_table *table, const char *base,
                                      const char **members)
{
    const moe_variant *variant = table->variant;
    const char *const *known = NULL;
    size_t count = 0;
    if (!variant) {
        return NULL;
    }
    const char *value = selector_value(table, variant->key, base);
    value = value ? value : selector_value(table, variant->fallback_key, base);
    memcpy(members, base + variant->offset, sizeof *members);
    return value && *members ? variant->select(value, &known, &count) : NULL;
}

static void dump_map(const dumper *d, const moe_table *table, const char *base, int indent,
                     bool in_item)
{
    const char *members = NULL;
    const moe_table *further = bound_variant(table, base, &members);
    bool first = in_item;
    if (!any_visible(d, table, base) && !(further && any_visible(d, further, members))) {
        fputs(" {}\n", d->stream);
        return;
    }
    fputs(in_item || indent == 0 ? "" : "\n", d->stream);
    dump_fields(d, table, base, indent, &first);
    if (further) {
        dump_fields(d, further, members, indent, &first);
    }
}

void moe_config_dump(const moe_config *config, FILE *stream)
{
    const dumper d = {config, stream};
    dump_map(&d, config->table, config->root, 0, false);
}
