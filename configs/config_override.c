/* `--set a.b.0.c=value`: edits the tree before it is bound. */
#include "configs/base/memory.h"
#include "configs/base/utf8.h"
#include "configs/config_private.h"
#include <string.h>
#include <talloc.h>

typedef struct override {
    moe_binder *binder;
    const moe_document *document; /* the source of messages, without a folder */
    const char *text;
    const char *value; /* after the '=' */
} override;

/* One key or index of the path. */
typedef struct component {
    const char *text;
    size_t length;
    moe_where where;
} component;

/* A node on the way, and what the tables know about it. */
typedef struct spot {
    moe_node *node;
    const moe_table *table; /* of its keys, or of its elements' keys; NULL: not known */
    const moe_field *field; /* NULL: the root, an element, or not known */
} spot;

static moe_where place_at(const override *o, const char *at)
{
    return (moe_where){o->document->source, 1,
                       (int)moe_utf8_count(o->text, (size_t)(at - o->text)) + 1};
}

/* The component that starts at `at`; it ends at a dot or at the '='. */
static component component_at(const override *o, const char *at)
{
    const char *end = at;
    while (*end != '.' && *end != '=') {
        end++;
    }
    return (component){at, (size_t)(end - at), place_at(o, at)};
}

static moe_node *scalar_of(const override *o, component c)
{
    moe_node *node = moe_node_create(o->binder->nodes, MOE_NODE_SCALAR, c.where, o->document);
    node->text = moe_need(talloc_strndup(o->binder->nodes, c.text, c.length));
    node->length = c.length;
    return node;
}

/* What to create where the path leads through nothing. */
static moe_node_kind kind_for(const moe_field *field)
{
    const bool list = field && (field->type == MOE_FIELD_LIST || field->type == MOE_FIELD_REALS ||
                                field->type == MOE_FIELD_ROWS || field->type == MOE_FIELD_POINTS);
    return list ? MOE_NODE_SEQUENCE : MOE_NODE_MAP;
}

/* The slot of the key or index below `from`, created (with `fresh`) if it was not there; NULL after
 * a printed error. */
static moe_node **slot_in_map(const override *o, moe_node *map, component c, moe_node *fresh)
{
    for (size_t i = 0; i < map->count; i++) {
        const moe_node *key = map->pairs[i].key;
        if (key->length == c.length && memcmp(key->text, c.text, c.length) == 0) {
            return &map->pairs[i].value;
        }
    }
    moe_node_add_pair(o->binder->nodes, map, scalar_of(o, c), fresh);
    return &map->pairs[map->count - 1].value;
}

static bool parse_index(component c, size_t *index)
{
    *index = 0;
    for (size_t i = 0; i < c.length; i++) {
        if (c.text[i] < '0' || c.text[i] > '9' || i >= 9) {
            return false;
        }
        *index = *index * 10 + (size_t)(c.text[i] - '0');
    }
    return true;
}

static moe_node **slot_in_list(const override *o, moe_node *list, component c, moe_node *fresh)
{
    size_t index;
    if (!parse_index(c, &index) || index > list->count) {
        moe_diag_error(o->binder->diag, c.where,
                       "\"%.*s\" is no element of this list; expected 0 to %zu",
                       (int)(c.length < 60 ? c.length : 60), c.text, list->count);
        return NULL;
    }
    if (index == list->count) {
        moe_node_add_item(o->binder->nodes, list, fresh);
    }
    return &list->items[index];
}

static moe_node **slot_in(const override *o, moe_node *from, component c, moe_node *fresh)
{
    switch (from->kind) {
    case MOE_NODE_MAP:
        return slot_in_map(o, from, c, fresh);
    case MOE_NODE_SEQUENCE:
        return slot_in_list(o, from, c, fresh);
    case MOE_NODE_SCALAR:
        moe_diag_error(o->binder->diag, c.where,
                       "\"%.*s\" below a single value; expected a map or a list there",
                       (int)(c.length < 60 ? c.length : 60), c.text);
        moe_diag_note(o->binder->diag, from->where, "the value is here");
        return NULL;
    default:
        return NULL; /* a broken reference has its error already */
    }
}

/* What the tables know about the child `c` of `from`. */
static spot describe(spot from, component c)
{
    spot child = {.node = NULL};
    if (from.node->kind == MOE_NODE_SEQUENCE) {
        child.table = from.table; /* an element: the list's table holds its keys */
    } else if (from.node->kind == MOE_NODE_MAP && from.table) {
        child.field = moe_table_field_in(from.table, from.node, c.text, c.length);
        child.table = child.field ? child.field->table : NULL;
    }
    return child;
}

/* One step down the path, through references. */
static bool descend(const override *o, spot *at, component c)
{
    spot child = describe(*at, c);
    moe_node *fresh =
        moe_node_create(o->binder->nodes, kind_for(child.field), c.where, o->document);
    moe_node **slot = slot_in(o, at->node, c, fresh);
    if (!slot) {
        return false;
    }
    child.node = *slot;
    if (child.field && child.field->type == MOE_FIELD_FILE) {
        moe_reference_expand(o->binder, child.node);
    }
    *at = child;
    return child.node->kind != MOE_NODE_BROKEN;
}

static moe_node *parse_value(const override *o)
{
    const char *value = o->value;
    const int before = (int)moe_utf8_count(o->text, (size_t)(value - o->text));
    if (value[strspn(value, " ")] == '\0') {
        moe_diag_error(o->binder->diag, place_at(o, value),
                       "nothing after \"=\"; expected a value");
        return NULL;
    }
    return moe_document_parse(o->binder->nodes, o->document, value, strlen(value), before,
                              o->binder->diag);
}

/* Whether every component of the path has a name and there are not too many. */
static bool check_path(const override *o)
{
    size_t components = 0;
    for (const char *at = o->text;; components++) {
        const component c = component_at(o, at);
        if (c.length == 0) {
            moe_diag_error(o->binder->diag, c.where, "an empty key; expected key.key=value");
            return false;
        }
        if (components == MOE_CONFIG_DEPTH) {
            moe_diag_error(o->binder->diag, c.where, "nested too deeply; expected at most %d keys",
                           MOE_CONFIG_DEPTH);
            return false;
        }
        if (c.text[c.length] == '=') {
            return true;
        }
        at = c.text + c.length + 1;
    }
}

static void set(const override *o, moe_node *root)
{
    spot at = {.node = root, .table = o->binder->config->table};
    component c = component_at(o, o->text);
    moe_node *value = parse_value(o);
    while (value && c.text[c.length] == '.') {
        if (!descend(o, &at, c)) {
            return;
        }
        c = component_at(o, c.text + c.length + 1);
    }
    moe_node **slot = value ? slot_in(o, at.node, c, value) : NULL;
    if (slot) {
        *slot = value;
    }
}

void moe_override_apply(moe_binder *binder, moe_node *root, const char *text)
{
    moe_document *document = moe_need(talloc_zero(binder->nodes, moe_document));
    char *name = moe_need(talloc_asprintf(document, "--set %s", text));
    const char *equals = strchr(text, '=');
    document->source = moe_diag_source(binder->diag, name, text, strlen(text));
    const override o = {binder, document, text, equals ? equals + 1 : NULL};
    if (!equals) {
        moe_diag_error(binder->diag, place_at(&o, text + strlen(text)),
                       "no \"=\"; expected key.key=value");
    } else if (check_path(&o)) {
        set(&o, root);
    }
}
