/* What the program knows by name: policies, engines, importers, and the presets found as files.
 *
 * Presets are YAML files in the data folder: the environment's MOEPLAN_DATA, or the source folder
 * the program was built from. A preset's name is its file's stem. */
#ifndef MOE_REPORTS_CATALOGUE_H
#define MOE_REPORTS_CATALOGUE_H

#include "configs/base/diag.h"
#include "configs/config.h"
#include <jansson.h>

typedef struct moe_catalogue_kind {
    const char *name;       /* "clusters": as in `list clusters` and `explain clusters/NAME` */
    const char *sentence;   /* what the entries are */
    const char *folder;     /* of presets, below the data folder; NULL: entries are built in */
    const moe_table *table; /* that describes a preset of this kind, or NULL */
} moe_catalogue_kind;

/* Ends with a row whose name is NULL. */
extern const moe_catalogue_kind moe_catalogue_kinds[];

/* NULL when unknown. */
const moe_catalogue_kind *moe_catalogue_kind_find(const char *name);

/* An array of {"name", "sentence", and for a preset "file"}, sorted by name where they are files.
 * A preset that does not load says so in its sentence. New reference. */
json_t *moe_catalogue_list(const moe_catalogue_kind *kind);

/* The names alone, in the order of the list; owned by `owner`. Loads nothing. */
const char **moe_catalogue_names(void *owner, const moe_catalogue_kind *kind, size_t *count);

/* The file of a preset; owned by `owner`; NULL when there is none of that name. */
char *moe_catalogue_file(void *owner, const moe_catalogue_kind *kind, const char *name);

/* A loaded cluster, model, profile or scenario (by its table) in one line; owned by `owner`. */
char *moe_catalogue_describe(void *owner, const moe_table *table, const void *loaded);

#endif
