/* What the parts of the YAML binder share. Private to configs. */
#ifndef MOE_CONFIGS_CONFIG_PRIVATE_H
#define MOE_CONFIGS_CONFIG_PRIVATE_H

#include "configs/config.h"
#include "configs/config_node.h"

typedef enum moe_origin {
    MOE_ORIGIN_ABSENT,  /* no value and no default: zero */
    MOE_ORIGIN_DEFAULT, /* from the field table */
    MOE_ORIGIN_GIVEN,   /* from a file or --set */
} moe_origin;

/* What is known about one bound member. A map and its first member share an address: the map comes
 * first, `field` tells them apart. */
typedef struct moe_bound {
    const void *address;
    const moe_field *field; /* NULL: the root */
    moe_where where;
    moe_origin origin;
    size_t order; /* of binding: maps before what they contain */
} moe_bound;

typedef struct moe_digest_entry {
    const char *path;
    char hex[9];
} moe_digest_entry;

struct moe_config {
    const moe_table *table;
    void *root;
    moe_bound *bound; /* sorted by (address, order) once loaded */
    size_t bound_count, bound_capacity;
    moe_digest_entry *digests;
    size_t digest_count;
};

/* The state of one load. */
typedef struct moe_binder {
    moe_config *config;
    void *nodes; /* owns all nodes and documents; freed when the load ends */
    moe_diag *diag;
    size_t files_loaded;
    size_t values_loaded; /* of all files */
    const moe_where
        *default_at; /* while a default is bound: the place of the map that lacks the key */
} moe_binder;

/* config_file.c */

/* Loads a file as a document; NULL after printed errors. */
moe_node *moe_file_load(moe_binder *binder, const char *path, moe_where named_at,
                        const moe_document *named_by);
/* The same for a text in memory. */
moe_node *moe_file_load_text(moe_binder *binder, const char *name, const char *text, size_t length);
/* Turns a path into the map of the file it names (or into a broken node, after a printed error);
 * leaves a map alone. */
void moe_reference_expand(moe_binder *binder, moe_node *node);
/* The path that a scalar node names, relative to its own document's folder; owned by `owner`. */
char *moe_node_resolve(void *owner, const moe_node *node);

/* config_table.c */

/* The keys that `map` takes beyond the table's own, or NULL: no variant, or none that is known. */
const moe_table *moe_table_further(const moe_table *table, const moe_node *map);
/* The scalar that selects the variant, or NULL. */
const moe_node *moe_table_selector(const moe_table *table, const moe_node *map);
const moe_field *moe_table_field(const moe_table *table, const char *key, size_t length);
/* The field of a key in this map, in the table or in its variant. */
const moe_field *moe_table_field_in(const moe_table *table, const moe_node *map, const char *key,
                                    size_t length);
size_t moe_table_field_count(const moe_table *table);
/* "a time such as ...", "a list of policies": what a message says it expected. Owned by `owner`. */
const char *moe_field_expectation(void *owner, const moe_field *field);
/* "1 s to 10 s", "at least 1"; NULL when any non-negative value does. */
const char *moe_field_range(void *owner, const moe_field *field);
/* The dimension in which an element of the field is written. */
moe_dimension moe_field_dimension(const moe_field *field);
/* "a, b, c". */
const char *moe_join(void *owner, const char *const *words, size_t count);

/* config_value.c */

/* Says that the node is of the wrong kind (or no value) for the key, or NULL for an element. */
void moe_value_mismatch(moe_binder *binder, const moe_node *node, const char *key,
                        const char *expected);

/* Parses a scalar, REALS or POINTS field into `member`; errors are printed, false then. */
bool moe_value_bind(moe_binder *binder, const moe_field *field, const moe_node *node, void *member);

/* config_bind.c */

void moe_bind_root(moe_binder *binder, moe_node *root);
void moe_bind_record(moe_binder *binder, const void *address, const moe_field *field,
                     moe_where where, moe_origin origin);

/* config_override.c */

/* Applies one "key.path=value" to the tree. */
void moe_override_apply(moe_binder *binder, moe_node *root, const char *text);

/* config.c */

/* What is known about the member that `field` bound at `address`, or NULL. */
const moe_bound *moe_config_bound(const moe_config *config, const void *address,
                                  const moe_field *field);

#endif
