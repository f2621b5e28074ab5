/* What the field tables say, for people: `explain` and the reference in Markdown. */
#include "configs/base/memory.h"
#include "configs/config_private.h"
#include <string.h>
#include <talloc.h>

enum { COLUMN_KEY, COLUMN_TYPE, COLUMN_DEFAULT, COLUMN_RANGE, COLUMN_SENTENCE, COLUMN_COUNT };
enum { MOST_TABLES = 64, KEY_BYTES = 64 };

static const char *const titles[COLUMN_COUNT] = {"key", "type", "default", "range", "meaning"};

static const char *type_text(void *owner, const moe_field *field)
{
    switch (field->type) {
    case MOE_FIELD_REAL:
    case MOE_FIELD_INTEGER:
        return moe_dimension_name(moe_field_dimension(field));
    case MOE_FIELD_BOOL:
        return "true | false";
    case MOE_FIELD_TEXT:
        return "text";
    case MOE_FIELD_PATH:
        return "path";
    case MOE_FIELD_CHOICE:
        return moe_field_expectation(owner, field) + strlen("one of: ");
    case MOE_FIELD_MAP:
        return "map";
    case MOE_FIELD_FILE:
        return "map or file";
    case MOE_FIELD_LIST:
        return "list of maps";
    case MOE_FIELD_REALS:
        return moe_need(talloc_asprintf(owner, "list of %s", moe_dimension_name(field->dimension)));
    case MOE_FIELD_ROWS:
        return moe_need(
            talloc_asprintf(owner, "list of lists of %s", moe_dimension_name(field->dimension)));
    case MOE_FIELD_POINTS:
        return moe_need(talloc_asprintf(owner, "list of [%s, %s]",
                                        moe_dimension_name(field->dimension),
                                        moe_dimension_name(field->dimension_y)));
    }
    return "";
}

static const char *default_text(const moe_field *field)
{
    return field->default_text ? field->default_text : field->required ? "(required)" : "(none)";
}

static void describe(void *owner, const moe_field *field, const char *cells[static COLUMN_COUNT])
{
    const char *range = moe_field_range(owner, field);
    cells[COLUMN_KEY] = field->key;
    cells[COLUMN_TYPE] = type_text(owner, field);
    cells[COLUMN_DEFAULT] = default_text(field);
    cells[COLUMN_RANGE] = range ? range : "";
    cells[COLUMN_SENTENCE] = field->sentence ? field->sentence : "";
}

static void print_row(FILE *stream, const int *widths, const char *const *cells)
{
    fputs(" ", stream);
    for (int i = 0; i < COLUMN_SENTENCE; i++) {
        if (widths[i] > 0) {
            fprintf(stream, " %-*s ", widths[i], cells[i]);
        }
    }
    fprintf(stream, " %s\n", cells[COLUMN_SENTENCE]);
}

/* All fields in aligned columns; a column that is empty throughout is left out. */
static void print_fields(FILE *stream, const moe_table *table)
{
    void *scratch = moe_need(talloc_new(NULL));
    const char *cells[COLUMN_COUNT];
    int widths[COLUMN_COUNT] = {0};
    for (const moe_field *field = table->fields; field->key; field++) {
        describe(scratch, field, cells);
        for (int i = 0; i < COLUMN_SENTENCE; i++) {
            const int width = (int)strlen(cells[i]);
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
    for (int i = 0; i < COLUMN_SENTENCE; i++) {
        const int width = (int)strlen(titles[i]);
        widths[i] = widths[i] > 0 && widths[i] < width ? width : widths[i];
    }
    print_row(stream, widths, titles);
    for (const moe_field *field = table->fields; field->key; field++) {
        describe(scratch, field, cells);
        print_row(stream, widths, cells);
    }
    talloc_free(scratch);
}

/* The names that the variant knows, asked for by selecting one that nobody has. */
static const char *variant_names(void *owner, const moe_variant *variant)
{
    const char *const *known = NULL;
    size_t count = 0;
    variant->select("", &known, &count);
    return moe_join(owner, known, count);
}

static void print_variant(FILE *stream, const moe_table *table, const char *before,
                          const char *after)
{
    const moe_variant *variant = table->variant;
    void *scratch = moe_need(talloc_new(NULL));
    fprintf(stream, "%sFurther keys depend on \"%s\"", before, variant->key);
    if (variant->fallback_key) {
        fprintf(stream, " (where that is absent, on \"%s\")", variant->fallback_key);
    }
    fprintf(stream, ", one of: %s.%s", variant_names(scratch, variant), after);
    talloc_free(scratch);
}

static void print_table(FILE *stream, const moe_table *table)
{
    fprintf(stream, "%s: %s\n", table->noun, table->sentence ? table->sentence : "");
    if (table->fields[0].key) {
        fputc('\n', stream);
        print_fields(stream, table);
    }
    if (table->variant) {
        print_variant(stream, table, "\n  ", "\n");
    }
}

static void print_field(FILE *stream, const char *path, const moe_field *field)
{
    void *scratch = moe_need(talloc_new(NULL));
    const char *range = moe_field_range(scratch, field);
    fprintf(stream, "%s: %s\n\n", path, field->sentence ? field->sentence : "");
    fprintf(stream, "  type      %s\n", type_text(scratch, field));
    fprintf(stream, "  default   %s\n", field->default_text ? field->default_text : "none");
    if (range) {
        fprintf(stream, "  range     %s\n", range);
    }
    fprintf(stream, "  required  %s\n", field->required ? "yes" : "no");
    talloc_free(scratch);
    if (field->table) {
        fputc('\n', stream);
        print_table(stream, field->table);
    }
}

static bool is_index(const char *text, size_t length)
{
    return length > 0 && strspn(text, "0123456789") >= length;
}

static const char *closest_key(const moe_table *table, const char *text, size_t length)
{
    void *scratch = moe_need(talloc_new(NULL));
    const size_t count = moe_table_field_count(table);
    const char **keys = moe_need(talloc_array(scratch, const char *, count));
    for (size_t i = 0; i < count; i++) {
        keys[i] = table->fields[i].key;
    }
    const char *closest = moe_closest(moe_need(talloc_strndup(scratch, text, length)), keys, count);
    talloc_free(scratch);
    return closest;
}

/* A value of the selecting key stands for its table: "policies.fssdp". */
static const moe_table *variant_named(const moe_table *table, const char *text, size_t length)
{
    char value[KEY_BYTES];
    const char *const *known = NULL;
    size_t count = 0;
    if (!table->variant || length >= sizeof value) {
        return NULL;
    }
    memcpy(value, text, length);
    value[length] = '\0';
    return table->variant->select(value, &known, &count);
}

/* Where a path leads: a field, or a table alone (the root, a variant). */
typedef struct target {
    const moe_table *table;
    const moe_field *field;
} target;

/* One step down; false when there is nothing of the name. */
static bool step(target *at, const char *text, size_t length)
{
    const moe_field *list = at->field && at->field->type == MOE_FIELD_LIST ? at->field : NULL;
    if (!at->table) {
        return false;
    }
    if (list && is_index(text, length)) {
        return true;
    }
    const moe_field *field = moe_table_field(at->table, text, length);
    const moe_table *variant = field ? NULL : variant_named(at->table, text, length);
    if (!field && !variant) {
        return false;
    }
    *at = (target){field ? field->table : variant, field};
    return true;
}

bool moe_table_explain(const moe_table *root, const char *path, FILE *stream, const char **closest)
{
    target at = {root, NULL};
    const char *text = path;
    *closest = NULL;
    for (bool first = true; *text != '\0'; first = false) {
        const size_t length = strcspn(text, ".");
        const bool names_root =
            first && strlen(root->noun) == length && memcmp(root->noun, text, length) == 0;
        const moe_table *before = at.table;
        if (!step(&at, text, length) &&
            !names_root) { /* "scenario.cluster" is as good as "cluster" */
            *closest = before ? closest_key(before, text, length) : NULL;
            return false;
        }
        text += length + (text[length] == '.');
    }
    if (at.field) {
        print_field(stream, path, at.field);
    } else {
        print_table(stream, at.table);
    }
    return true;
}

/* Text in a Markdown table: a bar would end the cell. */
static void put_cell(FILE *stream, const char *text)
{
    fputs(" ", stream);
    for (; *text != '\0'; text++) {
        fputs(*text == '|' ? "\\" : "", stream);
        fputc(*text, stream);
    }
    fputs(" |", stream);
}

static void put_table(FILE *stream, const moe_table *table)
{
    void *scratch = moe_need(talloc_new(NULL));
    fprintf(stream, "## %s\n\n%s\n\n", table->noun, table->sentence ? table->sentence : "");
    if (table->fields[0].key) {
        fputs("| key | type | default | range | meaning |\n|---|---|---|---|---|\n", stream);
    }
    for (const moe_field *field = table->fields; field->key; field++) {
        const char *cells[COLUMN_COUNT];
        describe(scratch, field, cells);
        fputs("|", stream);
        for (int i = 0; i < COLUMN_COUNT; i++) {
            put_cell(stream, cells[i]);
        }
        fputc('\n', stream);
    }
    if (table->variant) {
        print_variant(stream, table, "\n", "\n");
    }
    fputc('\n', stream);
    talloc_free(scratch);
}

typedef struct visited {
    const moe_table *tables[MOST_TABLES];
    size_t count;
} visited;

/* Notes the table; false if it was there already. */
static bool visit(visited *seen, const moe_table *table)
{
    for (size_t i = 0; i < seen->count; i++) {
        if (seen->tables[i] == table) {
            return false;
        }
    }
    if (seen->count < MOST_TABLES) {
        seen->tables[seen->count++] = table;
        return true;
    }
    return false;
}

static void put_tables(FILE *stream, const moe_table *table, visited *seen);

static void put_variants(FILE *stream, const moe_variant *variant, visited *seen)
{
    const char *const *known = NULL, *const *ignored = NULL;
    size_t count = 0, ignored_count = 0;
    variant->select("", &known, &count);
    for (size_t i = 0; i < count; i++) {
        const moe_table *further = variant->select(known[i], &ignored, &ignored_count);
        if (further && further->fields[0].key) {
            put_tables(stream, further, seen);
        }
    }
}

static void put_tables(FILE *stream, const moe_table *table, visited *seen)
{
    if (!visit(seen, table)) {
        return;
    }
    put_table(stream, table);
    for (const moe_field *field = table->fields; field->key; field++) {
        if (field->table) {
            put_tables(stream, field->table, seen);
        }
    }
    if (table->variant) {
        put_variants(stream, table->variant, seen);
    }
}

void moe_table_reference(const moe_table *root, FILE *stream)
{
    visited seen = {.count = 0};
    put_tables(stream, root, &seen);
}
