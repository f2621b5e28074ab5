/* Maps and lists of maps: keys to struct members. */
#include "configs/base/memory.h"
#include "configs/config_private.h"
#include <string.h>
#include <talloc.h>

static void bind_map(moe_binder *binder, const moe_table *table, moe_node *map, char *base);
static void bind_element(moe_binder *binder, const moe_table *table, moe_node *node, char *base);

void moe_bind_record(moe_binder *binder, const void *address, const moe_field *field,
                     moe_where where, moe_origin origin)
{
    moe_config *config = binder->config;
    if (config->bound_count == config->bound_capacity) {
        config->bound_capacity = config->bound_capacity * 2 + 64;
        config->bound =
            moe_need(talloc_realloc(config, config->bound, moe_bound, config->bound_capacity));
    }
    if (binder->default_at) {
        where = *binder->default_at;
        origin = origin == MOE_ORIGIN_GIVEN ? MOE_ORIGIN_DEFAULT : origin;
    }
    config->bound[config->bound_count] =
        (moe_bound){address, field, where, origin, config->bound_count};
    config->bound_count++;
}

/* All keys a map may have, of both tables. */
static const char **known_keys(void *owner, const moe_table *table, const moe_table *further,
                               size_t *count)
{
    const size_t own = moe_table_field_count(table);
    const size_t more = further ? moe_table_field_count(further) : 0;
    const char **keys = moe_need(talloc_array(owner, const char *, own + more));
    for (size_t i = 0; i < own + more; i++) {
        keys[i] = i < own ? table->fields[i].key : further->fields[i - own].key;
    }
    *count = own + more;
    return keys;
}

static void refuse_key(moe_binder *binder, const moe_table *table, const moe_table *further,
                       const moe_node *key)
{
    size_t count;
    const char **keys = known_keys(binder->nodes, table, further, &count);
    const char *closest = moe_closest(key->text, keys, count);
    if (closest) {
        moe_diag_error(binder->diag, key->where,
                       "unknown key \"%.60s\" in %s; did you mean \"%s\"?", key->text, table->noun,
                       closest);
    } else if (count == 0) {
        moe_diag_error(binder->diag, key->where, "unknown key \"%.60s\" in %s; expected none",
                       key->text, table->noun);
    } else {
        moe_diag_error(binder->diag, key->where, "unknown key \"%.60s\" in %s; expected one of: %s",
                       key->text, table->noun, moe_join(keys, keys, count));
    }
    talloc_free(keys);
}

static void refuse_unknown_keys(moe_binder *binder, const moe_table *table,
                                const moe_table *further, const moe_node *map)
{
    for (size_t i = 0; i < map->count; i++) {
        const moe_node *key = map->pairs[i].key;
        if (!moe_table_field(table, key->text, key->length) &&
            !(further && moe_table_field(further, key->text, key->length))) {
            refuse_key(binder, table, further, key);
        }
    }
}

static void bind_list(moe_binder *binder, const moe_field *field, const moe_node *node,
                      moe_list *list)
{
    if (node->kind != MOE_NODE_SEQUENCE) {
        moe_value_mismatch(binder, node, field->key, moe_field_expectation(binder->nodes, field));
        return;
    }
    const size_t size = field->table->size;
    char *items = moe_need(talloc_zero_size(binder->config, size * node->count));
    *list = (moe_list){items, node->count};
    for (size_t i = 0; i < node->count; i++) {
        char *item = items + i * size;
        moe_bind_record(binder, item, field, node->items[i]->where, MOE_ORIGIN_GIVEN);
        bind_element(binder, field->table, node->items[i], item);
    }
}

/* The map of a MAP or FILE field. */
static void bind_inner(moe_binder *binder, const moe_field *field, moe_node *node, char *member)
{
    if (field->type == MOE_FIELD_FILE) {
        moe_reference_expand(binder, node);
    }
    if (node->kind == MOE_NODE_MAP) {
        bind_map(binder, field->table, node, member);
    } else {
        moe_value_mismatch(binder, node, field->key, moe_field_expectation(binder->nodes, field));
    }
}

static void bind_value(moe_binder *binder, const moe_field *field, moe_node *node, char *member)
{
    switch (field->type) {
    case MOE_FIELD_FILE:
    case MOE_FIELD_MAP:
        bind_inner(binder, field, node, member);
        break;
    case MOE_FIELD_LIST:
        bind_list(binder, field, node, (moe_list *)(void *)member);
        break;
    default:
        moe_value_bind(binder, field, node, member);
    }
}

static bool is_compound(const moe_field *field)
{
    return field->type == MOE_FIELD_MAP || field->type == MOE_FIELD_FILE ||
           field->type == MOE_FIELD_LIST || field->type == MOE_FIELD_REALS ||
           field->type == MOE_FIELD_ROWS || field->type == MOE_FIELD_POINTS;
}

/* The default as if it stood in the map: scalars at the map's own place, YAML in a source of its
 * own. */
static moe_node *default_node(moe_binder *binder, const moe_field *field, const moe_node *map)
{
    const size_t length = strlen(field->default_text);
    if (!is_compound(field)) {
        moe_node *node = moe_node_create(binder->nodes, MOE_NODE_SCALAR, map->where, map->document);
        node->text = field->default_text;
        node->length = length;
        return node;
    }
    moe_document *document = moe_need(talloc(binder->nodes, moe_document));
    *document = *map->document;
    document->source =
        moe_diag_source(binder->diag, "built-in default", field->default_text, length);
    return moe_document_parse(binder->nodes, document, field->default_text, length, 0,
                              binder->diag);
}

static void bind_default(moe_binder *binder, const moe_field *field, const moe_node *map,
                         char *member)
{
    moe_node *node = default_node(binder, field, map);
    const moe_where *outer = binder->default_at;
    moe_bind_record(binder, member, field, map->where, MOE_ORIGIN_DEFAULT);
    if (node) {
        binder->default_at = outer ? outer : &map->where;
        bind_value(binder, field, node, member);
        binder->default_at = outer;
    }
}

static void bind_absent(moe_binder *binder, const moe_field *field, const moe_node *map,
                        const char *noun, char *member)
{
    if (field->default_text) {
        bind_default(binder, field, map, member);
        return;
    }
    moe_bind_record(binder, member, field, map->where, MOE_ORIGIN_ABSENT);
    if (field->required && !map->implied) {
        moe_diag_error(binder->diag, map->where, "no key \"%s\" in %s; expected %s", field->key,
                       noun, moe_field_expectation(binder->nodes, field));
    } else if (field->type == MOE_FIELD_MAP || field->type == MOE_FIELD_FILE) {
        moe_node *implied = moe_node_create(binder->nodes, MOE_NODE_MAP, map->where, map->document);
        implied->implied = true;
        bind_map(binder, field->table, implied, member);
    }
}

static void bind_fields(moe_binder *binder, const moe_table *table, const moe_node *map, char *base)
{
    for (const moe_field *field = table->fields; field->key; field++) {
        moe_node *value = moe_node_get(map, field->key);
        char *member = base + field->offset;
        if (value) {
            moe_bind_record(binder, member, field, value->where, MOE_ORIGIN_GIVEN);
            bind_value(binder, field, value, member);
        } else {
            bind_absent(binder, field, map, table->noun, member);
        }
    }
}

static void refuse_variant(moe_binder *binder, const moe_table *table, const moe_node *selector)
{
    const char *const *known = NULL;
    size_t count = 0;
    table->variant->select(selector->text, &known, &count);
    const char *closest = moe_closest(selector->text, known, count);
    const char *all = moe_join(binder->nodes, known, count);
    if (closest) {
        moe_diag_error(binder->diag, selector->where,
                       "unknown %s \"%.60s\"; did you mean \"%s\"? (expected one of: %s)",
                       table->variant->key, selector->text, closest, all);
    } else {
        moe_diag_error(binder->diag, selector->where, "unknown %s \"%.60s\"; expected one of: %s",
                       table->variant->key, selector->text, all);
    }
}

/* The struct of the further keys, at the pointer that the variant keeps for it. */
static void bind_further(moe_binder *binder, const moe_table *table, const moe_table *further,
                         const moe_node *map, char *base)
{
    void *members =
        moe_need(talloc_zero_size(binder->config, further->size > 0 ? further->size : 1));
    memcpy(base + table->variant->offset, &members, sizeof members);
    bind_fields(binder, further, map, members);
}

static void bind_map(moe_binder *binder, const moe_table *table, moe_node *map, char *base)
{
    const moe_node *selector = moe_table_selector(table, map);
    const moe_table *further = moe_table_further(table, map);
    if (!table->variant || further) {
        refuse_unknown_keys(binder, table, further, map);
    } else if (selector) { /* which keys are unknown, nobody can say then */
        refuse_variant(binder, table, selector);
    }
    bind_fields(binder, table, map, base);
    if (further) {
        bind_further(binder, table, further, map, base);
    }
}

/* An element of a list, or the root: a map without a key of its own. */
static void bind_element(moe_binder *binder, const moe_table *table, moe_node *node, char *base)
{
    if (node->kind == MOE_NODE_MAP) {
        bind_map(binder, table, node, base);
    } else {
        moe_value_mismatch(binder, node, NULL,
                           moe_need(talloc_asprintf(binder->nodes, "a map (%s)", table->noun)));
    }
}

void moe_bind_root(moe_binder *binder, moe_node *root)
{
    moe_config *config = binder->config;
    moe_bind_record(binder, config->root, NULL, root->where, MOE_ORIGIN_GIVEN);
    bind_element(binder, config->table, root, config->root);
}
