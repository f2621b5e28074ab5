/* What kind of YAML file it is, told by its top-level keys. A scanner, not a parser: it must answer
 * for files that are broken further down, whose errors the right table then explains. It knows
 * block maps (a key in the first column) and one flow map ({key: value, ...}). */
#ifndef MOE_REPORTS_YAML_KIND_H
#define MOE_REPORTS_YAML_KIND_H

#include <stddef.h>

/* "scenarios", "clusters", "models" or "profiles" (moe_catalogue_kind names); NULL when no key
 * tells. */
const char *moe_yaml_kind(const char *text, size_t length);

#endif
