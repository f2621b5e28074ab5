/* YAML as a tree of nodes that know where they were written. Private to configs. */
#ifndef MOE_CONFIGS_CONFIG_NODE_H
#define MOE_CONFIGS_CONFIG_NODE_H

#include "configs/base/diag.h"
#include <stdbool.h>
#include <stddef.h>

enum {
    MOE_CONFIG_FILE_BYTES = 4 * 1024 * 1024,
    MOE_CONFIG_DEPTH = 32,
    /* A profile with a grid of some 25,000 measured GEMMs and its samples has 200,000 values, and all of
     * them fit into a file of its size. A value takes about half a KiB while a load lasts, so one file
     * costs a hostile user at most some 200 MB, and all files of a load together half as much again. */
    MOE_CONFIG_NODES = 400000,
    MOE_CONFIG_TREE_NODES = 600000,
    MOE_CONFIG_FILES = 64,
};

/* One YAML text: a file, a `--set` value or a default. */
typedef struct moe_document moe_document;
struct moe_document {
    const moe_source *source;
    const char *path; /* paths inside are relative to its folder; NULL: to the current one */
    const moe_document *named_by;     /* the document that refers to this one, or NULL */
    unsigned long long device, inode; /* the file's identity, to find cycles; 0: no file */
    size_t *nodes; /* counts the values of all documents of a load; NULL: they do not count */
};

typedef enum moe_node_kind {
    MOE_NODE_SCALAR,
    MOE_NODE_MAP,
    MOE_NODE_SEQUENCE,
    MOE_NODE_BROKEN, /* a reference that failed to load: its error is printed already */
} moe_node_kind;

typedef struct moe_node moe_node;

typedef struct moe_pair {
    moe_node *key; /* a scalar */
    moe_node *value;
} moe_pair;

struct moe_node {
    moe_node_kind kind;
    moe_where where;
    const moe_document *document;
    const char *text; /* scalar; NUL-terminated, but may hold further NULs */
    size_t length;
    bool plain;       /* scalar without quotes */
    int text_column;  /* of the first character of `text`, when the rest follows one by one; else 0
                       */
    moe_pair *pairs;  /* map */
    moe_node **items; /* sequence */
    size_t count;     /* of pairs or items */
    bool implied;     /* a map nobody wrote: its required keys may be missing */
};

/* Parses one document. `columns_before`: characters before `text` on the first line of the source.
 * Refuses what config.h refuses; NULL after printed errors. */
moe_node *moe_document_parse(void *owner, const moe_document *document, const char *text,
                             size_t length, int columns_before, moe_diag *diag);

/* A node of the kind without children or text. */
moe_node *moe_node_create(void *owner, moe_node_kind kind, moe_where where,
                          const moe_document *document);

/* The value of the key, NULL if there is none. */
moe_node *moe_node_get(const moe_node *map, const char *key);

/* Appends; the arrays belong to `owner`. */
void moe_node_add_pair(void *owner, moe_node *map, moe_node *key, moe_node *value);
void moe_node_add_item(void *owner, moe_node *sequence, moe_node *item);

/* A scalar that stands for no value: null, ~ or nothing, not quoted. */
bool moe_node_is_null(const moe_node *node);

#endif
