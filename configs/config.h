/* YAML bound to C structs by field tables.
 *
 * One table describes one kind of map: every key with its dimension, default (as text with its
 * unit), range and one sentence. The same table drives the parser, `moeplan explain`,
 * `--dump-config` and the generated reference (docs are never written by hand).
 *
 * Limits on hostile files: 4 MiB a file, depth 32, 400,000 nodes a file and 600,000 in all, no aliases or anchors at all, no
 * tags, duplicate keys refused, NaN / infinities / overflow refused, at most 64 files in one tree
 * and no cycles of references. All errors of a file are printed, not only the first; an unknown key
 * names the closest known one. A text is UTF-8 without control characters, its lines end with \n.
 */
#ifndef MOE_CONFIGS_CONFIG_H
#define MOE_CONFIGS_CONFIG_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include "configs/base/units.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum moe_field_type {
    MOE_FIELD_REAL,    /* double, in base units of `dimension` */
    MOE_FIELD_INTEGER, /* int64_t; `dimension` MOE_COUNT */
    MOE_FIELD_BOOL,    /* bool: true | false */
    MOE_FIELD_TEXT,    /* const char *, owned by the config; NULL if absent and not required */
    MOE_FIELD_PATH,    /* as TEXT, resolved relative to the file that names it */
    MOE_FIELD_CHOICE,  /* int: index into `choices` */
    MOE_FIELD_MAP,     /* struct described by `table`, embedded at `offset` */
    MOE_FIELD_FILE,    /* as MAP, but the value may be an inline map or the path of a YAML file */
    MOE_FIELD_LIST,    /* moe_list of structs described by `table` (or table + variant, below) */
    MOE_FIELD_REALS,   /* moe_reals: a list of `dimension` numbers */
    MOE_FIELD_ROWS,    /* moe_rows: a list of lists of numbers in base units, all equally long */
    MOE_FIELD_POINTS, /* moe_points: a list of [x, y] pairs, x of `dimension`, y of `dimension_y` */
} moe_field_type;

/* `items` is one talloc array of structs of the element table's `size`, `count` of them. */
typedef struct moe_list {
    void *items;
    size_t count;
} moe_list;

typedef struct moe_reals {
    double *values;
    size_t count;
} moe_reals;

/* `values[count][width]`, every row as wide as the first. */
typedef struct moe_rows {
    double *values;
    size_t count;
    size_t width;
} moe_rows;

typedef struct moe_points {
    double *x;
    double *y;
    size_t count;
} moe_points;

typedef struct moe_table moe_table;

/* A MAP or FILE that is absent, neither required nor with a default, gets its fields' defaults all
 * the same; its required keys are then not asked for. `default_text` of a list or map is YAML. A
 * sign is accepted only where low < 0. */
typedef struct moe_field {
    const char *key;
    moe_field_type type;
    moe_dimension dimension;
    const char *default_text; /* as a user would write it; NULL: see `required` */
    bool required;          /* absent: an error. Not required and no default: zero / NULL / empty */
    size_t offset;          /* of the member in the struct */
    const moe_table *table; /* MAP, FILE, LIST */
    const char *const *choices; /* CHOICE: NULL-terminated */
    moe_dimension dimension_y;  /* POINTS */
    double low, high; /* inclusive range in base units (of POINTS: of y); both 0: any non-negative
                       * value; 1e300 and more: no limit */
    const char *sentence; /* one sentence: what it is, higher or lower is better, its source */
} moe_field;

/* A variant: a list element's further keys depend on the value of one of its own keys.
 * `select(value)` gives the table of the further keys (their struct is allocated with that table's
 * size; its address is stored at `offset`), or NULL with the known names in *known for the message
 * (also for value ""). The selecting keys are TEXT or CHOICE fields of the table itself. */
typedef struct moe_variant {
    const char *key;          /* the selecting key, e.g. "policy" */
    const char *fallback_key; /* used where `key` is absent, e.g. "name"; or NULL */
    size_t offset;            /* of a `void *` member */
    const moe_table *(*select)(const char *value, const char *const **known, size_t *known_count);
} moe_variant;

struct moe_table {
    const char *noun;           /* "cluster": how `explain` and messages call it */
    const char *sentence;       /* one sentence for `explain` */
    size_t size;                /* of the struct */
    const moe_field *fields;    /* ends with a row whose key is NULL */
    const moe_variant *variant; /* or NULL */
};

typedef struct moe_config moe_config;

/* Loads `path` as `root`. `overrides` are "key.path=value" texts (`--set`): list elements by index
 * ("policies.0.window=5"), maps by key, through references into the files they name; a key whose
 * value is absent in the file is set all the same. The value is YAML (a map or list is legal).
 * NULL after printed errors. Owned by `owner`; everything bound points into it. */
moe_config *moe_config_load(void *owner, const char *path, const moe_table *root,
                            const char *const *overrides, size_t override_count, moe_diag *diag);

/* The same for a text in memory; `name` stands in messages, and paths are relative to its folder.
 */
moe_config *moe_config_load_text(void *owner, const char *name, const char *text, size_t length,
                                 const moe_table *root, const char *const *overrides,
                                 size_t override_count, moe_diag *diag);

/* The struct that `root` describes. */
void *moe_config_root(const moe_config *config);

/* Where the value bound to `member` (the address of a struct member inside this config, of a list
 * element or of a number in a list) was written; the map it belongs to if it came from a default.
 * For errors about relations between files. A map and its first member share an address: the answer
 * is the member's. The source belongs to the diag of the load, which has to live as long. */
moe_where moe_config_where(const moe_config *config, const void *member);

/* Whether the user wrote the value (file or --set), as against its default. To ask about a map, ask
 * about one of its members, for the same reason. */
bool moe_config_given(const moe_config *config, const void *member);

/* The effective configuration, defaults included and references inlined, as YAML that loads again
 * to the same structs. Paths are written absolute, so that the dump may be stored anywhere. */
void moe_config_dump(const moe_config *config, FILE *stream);

/* {"path": "crc32 hex", ...} of every file read. New reference. */
json_t *moe_config_digests(const moe_config *config);

/* `explain`: describes the field at `path` ("cluster.hosts") below `root`, or all fields of a
 * table. List indices may stand in the path or not; the name of a variant ("policies.fssdp") leads
 * to its table, and a leading noun of `root` is ignored. False when there is no such field;
 * *closest then names the nearest key or is NULL. */
bool moe_table_explain(const moe_table *root, const char *path, FILE *stream, const char **closest);

/* The reference of one table and all below it, as Markdown. */
void moe_table_reference(const moe_table *root, FILE *stream);

#endif
