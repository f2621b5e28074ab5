/* Structs back to YAML by the tables that read them. moe_config_dump needs a loaded config; here nothing was. */
#include "calibrate/fit/profile_write.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_WIDTH = 100 };

/* A map that is not written: what is optional and not there. Two maps may share an address, hence the key. */
typedef struct absent_map {
    const char *key;
    const void *member;
} absent_map;

typedef struct writer {
    FILE *stream;
    const absent_map *absent; /* ends with a NULL key */
    int column;
} writer;

/* ---- values ---------------------------------------------------------------------------------- */

static void put(writer *w, const char *text)
{
    const char *line = strrchr(text, '\n');
    fputs(text, w->stream);
    w->column = line != NULL ? (int)strlen(line + 1) : w->column + (int)strlen(text);
}

static void put_indent(writer *w, int indent)
{
    fprintf(w->stream, "%*s", indent, "");
    w->column = indent;
}

/* Whole numbers as they are (neighbouring sizes must not fall together), others to six digits. */
static double shortened(double value)
{
    char text[32];
    if (value == floor(value) && fabs(value) < 1e15)
        return value;
    snprintf(text, sizeof text, "%.6g", value);
    return strtod(text, NULL);
}

static void format_number(double value, moe_dimension dimension, char text[static 48])
{
    moe_units_format(shortened(value), dimension, text);
}

/* Whether the loader reads the text back the same without quotes. */
static bool is_plain(const char *text)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    static const char *const words[] = {"null", "true", "false", "yes", "no",
                                        "on",   "off",  "y",     "n"};
    char first = text[0];
    bool letter = (first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z');
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        letter &= strcasecmp(text, words[i]) != 0;
    return letter && text[strspn(text, letters)] == '\0';
}

static void put_text(writer *w, const char *text)
{
    if (is_plain(text)) {
        put(w, text);
        return;
    }
    put(w, "\"");
    for (; *text != '\0'; text++) {
        char piece[3] = {*text, '\0', '\0'};
        if (*text == '"' || *text == '\\')
            memcpy(piece, (char[]){'\\', *text, '\0'}, 3);
        put(w, *text == '\n' ? "\\n" : *text == '\t' ? "\\t" : piece);
    }
    put(w, "\"");
}

/* An item of a list in flow style, on a new line where it would be too long. */
static void put_item(writer *w, int indent, bool first, const char *text)
{
    if (!first && w->column + (int)strlen(text) + 3 > LINE_WIDTH) {
        put(w, ",\n");
        put_indent(w, indent);
    } else if (!first) {
        put(w, ", ");
    }
    put(w, text);
}

static void put_reals(writer *w, const moe_field *field, const moe_reals *reals, int indent)
{
    char text[48];
    put(w, "[");
    for (size_t i = 0; i < reals->count; i++) {
        format_number(reals->values[i], field->dimension, text);
        put_item(w, indent, i == 0, text);
    }
    put(w, "]");
}

static void put_points(writer *w, const moe_field *field, const moe_points *points, int indent)
{
    char x[48], y[48], pair[100];
    put(w, "[");
    for (size_t i = 0; i < points->count; i++) {
        format_number(points->x[i], field->dimension, x);
        format_number(points->y[i], field->dimension_y, y);
        snprintf(pair, sizeof pair, "[%s, %s]", x, y);
        put_item(w, indent, i == 0, pair);
    }
    put(w, "]");
}

/* One row a line. */
static void put_rows(writer *w, const moe_field *field, const moe_rows *rows, int indent)
{
    char text[48];
    put(w, "\n");
    for (size_t r = 0; r < rows->count; r++) {
        put_indent(w, indent);
        put(w, "- [");
        for (size_t c = 0; c < rows->width; c++) {
            format_number(rows->values[r * rows->width + c], field->dimension, text);
            put_item(w, indent + 4, c == 0, text);
        }
        put(w, r + 1 < rows->count ? "]\n" : "]");
    }
}

/* ---- which values ---------------------------------------------------------------------------- */

/* Zero where the table has no default but zero, or where zero is no value at all (0: "not given"). */
static bool is_zero_by_default(const moe_field *field, double value)
{
    double fallback = 0;
    moe_units_error error;
    if (value != 0)
        return false;
    if (field->default_text == NULL)
        return !field->required;
    if (field->low > 0)
        return true;
    return moe_units_parse(field->default_text, strlen(field->default_text),
                           field->type == MOE_FIELD_INTEGER ? MOE_COUNT : field->dimension,
                           &fallback, &error) &&
           fallback == 0;
}

static bool is_named_absent(const writer *w, const moe_field *field, const void *member)
{
    for (const absent_map *map = w->absent; map->key != NULL; map++) {
        if (map->member == member && strcmp(map->key, field->key) == 0)
            return true;
    }
    return false;
}

static bool has_fields(const writer *w, const moe_table *table, const char *base);

static bool is_written(const writer *w, const moe_field *field, const void *member)
{
    switch (field->type) {
    case MOE_FIELD_REAL:
        return !is_zero_by_default(field, *(const double *)member);
    case MOE_FIELD_INTEGER:
        return !is_zero_by_default(field, (double)*(const int64_t *)member);
    case MOE_FIELD_BOOL:
        return *(const bool *)member;
    case MOE_FIELD_TEXT:
        return *(const char *const *)member != NULL;
    case MOE_FIELD_CHOICE:
        return true;
    case MOE_FIELD_MAP:
        return !is_named_absent(w, field, member) && has_fields(w, field->table, member);
    case MOE_FIELD_LIST:
        return ((const moe_list *)member)->count > 0;
    case MOE_FIELD_REALS:
        return ((const moe_reals *)member)->count > 0;
    case MOE_FIELD_ROWS:
        return ((const moe_rows *)member)->count > 0;
    case MOE_FIELD_POINTS:
        return ((const moe_points *)member)->count > 0;
    default:
        return false; /* neither table has others */
    }
}

static bool has_fields(const writer *w, const moe_table *table, const char *base)
{
    for (const moe_field *field = table->fields; field->key != NULL; field++) {
        if (is_written(w, field, base + field->offset))
            return true;
    }
    return false;
}

/* ---- maps ------------------------------------------------------------------------------------ */

static void put_map(writer *w, const moe_table *table, const char *base, int indent, bool in_item);

static void put_list(writer *w, const moe_field *field, const moe_list *list, int indent)
{
    for (size_t i = 0; i < list->count; i++) {
        put(w, "\n");
        put_indent(w, indent);
        put(w, "- ");
        put_map(w, field->table, (const char *)list->items + i * field->table->size, indent + 2,
                true);
    }
}

static void put_value(writer *w, const moe_field *field, const void *member, int indent)
{
    char text[48];
    switch (field->type) {
    case MOE_FIELD_REAL:
        format_number(*(const double *)member, field->dimension, text);
        put(w, text);
        break;
    case MOE_FIELD_INTEGER:
        format_number((double)*(const int64_t *)member, MOE_COUNT, text);
        put(w, text);
        break;
    case MOE_FIELD_BOOL:
        put(w, *(const bool *)member ? "true" : "false");
        break;
    case MOE_FIELD_TEXT:
        put_text(w, *(const char *const *)member);
        break;
    case MOE_FIELD_CHOICE:
        put_text(w, field->choices[*(const int *)member]);
        break;
    case MOE_FIELD_REALS:
        put_reals(w, field, member, indent + 2);
        break;
    case MOE_FIELD_POINTS:
        put_points(w, field, member, indent + 2);
        break;
    default:
        break;
    }
}

static void put_field(writer *w, const moe_field *field, const void *member, int indent)
{
    put(w, field->key);
    put(w, ":");
    switch (field->type) {
    case MOE_FIELD_MAP:
        put(w, "\n");
        put_map(w, field->table, member, indent + 2, false);
        break;
    case MOE_FIELD_LIST:
        put_list(w, field, member, indent + 2);
        break;
    case MOE_FIELD_ROWS:
        put_rows(w, field, member, indent + 2);
        break;
    default:
        put(w, " ");
        put_value(w, field, member, indent);
        break;
    }
}

/* A map ends without a line end, as its last value does. */
static void put_map(writer *w, const moe_table *table, const char *base, int indent, bool in_item)
{
    bool first = true;
    for (const moe_field *field = table->fields; field->key != NULL; field++) {
        const void *member = base + field->offset;
        if (!is_written(w, field, member))
            continue;
        if (!first)
            put(w, "\n");
        if (!first || !in_item)
            put_indent(w, indent);
        put_field(w, field, member, indent);
        first = false;
    }
}

static void put_comment(writer *w, const char *comment)
{
    while (comment != NULL && *comment != '\0') {
        const char *end = strchrnul(comment, '\n');
        fprintf(w->stream, "#%s%.*s\n", end > comment ? " " : "", (int)(end - comment), comment);
        comment = *end == '\n' ? end + 1 : end;
    }
}

static void put_document(const moe_table *table, const void *root, const absent_map *absent,
                         const char *comment, FILE *stream)
{
    writer w = {.stream = stream, .absent = absent};
    put_comment(&w, comment);
    put_map(&w, table, root, 0, false);
    put(&w, "\n");
}

/* ---- profiles and clusters ------------------------------------------------------------------- */

void moe_profile_write(const moe_profile *profile, const char *comment, FILE *stream)
{
    absent_map absent[2 + MOE_PHASES + MOE_COLLECTIVE_KINDS + MOE_COPY_KINDS + 1] = {{NULL, NULL}};
    size_t count = 0;
    bool any_copy = false;
    if (profile->gemm.utilisation.count == 0)
        absent[count++] = (absent_map){"gemm", &profile->gemm};
    if (!moe_profile_has_attention(profile))
        absent[count++] = (absent_map){"attention", &profile->attention};
    for (int phase = MOE_FORWARD + 1; phase < MOE_PHASES; phase++) {
        if (!moe_profile_has_phase(profile, (moe_phase)phase))
            absent[count++] = (absent_map){moe_expert_curve_names[phase], &profile->experts[phase]};
    }
    for (int kind = 0; kind < MOE_COLLECTIVE_KINDS; kind++) {
        if (!moe_profile_has(profile, (moe_collective_kind)kind))
            absent[count++] = (absent_map){moe_collective_names[kind], &profile->collectives[kind]};
    }
    for (int kind = 0; kind < MOE_COPY_KINDS; kind++) {
        if (profile->copies[kind].bytes_per_s > 0)
            any_copy = true;
        else
            absent[count++] = (absent_map){moe_copy_names[kind], &profile->copies[kind]};
    }
    if (!any_copy)
        absent[count++] = (absent_map){"copies", profile->copies};
    put_document(&moe_profile_table, profile, absent, comment, stream);
}

void moe_cluster_write(const moe_cluster_spec *cluster, const char *comment, FILE *stream)
{
    put_document(&moe_cluster_table, cluster, (const absent_map[]){{NULL, NULL}}, comment, stream);
}
