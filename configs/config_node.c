#include "configs/config_node.h"
#include "configs/base/memory.h"
#include <string.h>
#include <talloc.h>

moe_node *moe_node_create(void *owner, moe_node_kind kind, moe_where where,
                          const moe_document *document)
{
    moe_node *node = moe_need(talloc_zero(owner, moe_node));
    node->kind = kind;
    node->where = where;
    node->document = document;
    return node;
}

moe_node *moe_node_get(const moe_node *map, const char *key)
{
    const size_t length = strlen(key);
    for (size_t i = 0; i < map->count; i++) {
        const moe_node *found = map->pairs[i].key;
        if (found->length == length && memcmp(found->text, key, length) == 0) {
            return map->pairs[i].value;
        }
    }
    return NULL;
}

/* Doubling at powers of two keeps appending linear. */
static bool is_full(size_t count)
{
    return (count & (count - 1)) == 0;
}

void moe_node_add_pair(void *owner, moe_node *map, moe_node *key, moe_node *value)
{
    if (is_full(map->count)) {
        map->pairs = moe_need(talloc_realloc(owner, map->pairs, moe_pair, map->count * 2 + 1));
    }
    map->pairs[map->count++] = (moe_pair){key, value};
}

void moe_node_add_item(void *owner, moe_node *sequence, moe_node *item)
{
    if (is_full(sequence->count)) {
        sequence->items =
            moe_need(talloc_realloc(owner, sequence->items, moe_node *, sequence->count * 2 + 1));
    }
    sequence->items[sequence->count++] = item;
}

bool moe_node_is_null(const moe_node *node)
{
    static const char *const spellings[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
        if (node->kind == MOE_NODE_SCALAR && node->plain && strcmp(node->text, spellings[i]) == 0) {
            return true;
        }
    }
    return false;
}
