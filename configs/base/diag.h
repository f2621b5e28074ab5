/* Diagnostics: every message about a file names file, line and column, what was found and what was
 * expected, then shows the source line with a caret under the offending character.
 *
 *     configs/scenarios/x.yaml:7:18: error: unknown unit "Gbs" in "400 Gbs"; expected a bandwidth
 * ... bandwidth: 400 Gbs
 *                        ^
 *
 * Columns count characters (UTF-8 code points), from 1. A tab counts as one. Control characters and
 * terminal escapes of a hostile file are shown as "?" and long lines are cut around the caret.
 * A `moe_diag` gathers all errors of one run; the caller asks `moe_diag_error_count` afterwards. Of
 * more than 200 errors (or warnings) the rest is counted but not shown. */
#ifndef MOE_CONFIGS_BASE_DIAG_H
#define MOE_CONFIGS_BASE_DIAG_H

#include <stddef.h>
#include <stdio.h>

typedef struct moe_diag moe_diag;

/* A text that messages can point into. `text` may be NULL (a binary file: no excerpt is shown). */
typedef struct moe_source {
    const char *name;
    const char *text;
    size_t length;
} moe_source;

/* A place in a source. line 0: the whole file; source NULL: no file at all (command line, program).
 */
typedef struct moe_where {
    const moe_source *source;
    int line;
    int column;
} moe_where;

/* Messages go to `stream` (borrowed; NULL counts silently). Freed with `owner` (talloc) or
 * talloc_free. */
moe_diag *moe_diag_create(void *owner, FILE *stream);

/* Registers a source; name and text are copied and live as long as the diag. */
const moe_source *moe_diag_source(moe_diag *diag, const char *name, const char *text,
                                  size_t length);

__attribute__((format(printf, 3, 4))) void moe_diag_error(moe_diag *diag, moe_where where,
                                                          const char *format, ...);
__attribute__((format(printf, 3, 4))) void moe_diag_warning(moe_diag *diag, moe_where where,
                                                            const char *format, ...);
/* A line that adds to the message before it ("first defined here"). */
__attribute__((format(printf, 3, 4))) void moe_diag_note(moe_diag *diag, moe_where where,
                                                         const char *format, ...);

int moe_diag_error_count(const moe_diag *diag);

/* The candidate closest to `word` by edit distance (transpositions count one), or NULL when none is
 * closer than a third of the word's length plus one. */
const char *moe_closest(const char *word, const char *const *candidates, size_t count);

#endif
