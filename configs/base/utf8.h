/* Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef MOE_CONFIGS_BASE_UTF8_H
#define MOE_CONFIGS_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes the first character; returns its bytes (1 to 4), or 0 if they are not UTF-8 or none are
 * left. */
size_t moe_utf8_decode(const char *text, size_t length, uint32_t *point);

/* Characters in the text; a byte that is not UTF-8 counts as one. */
size_t moe_utf8_count(const char *text, size_t length);

/* Whether the character moves a terminal's cursor or reorders what it shows: C0 and C1 controls,
 * line and paragraph separators, bidirectional overrides, the byte order mark, non-characters. */
bool moe_utf8_is_control(uint32_t point);

/* Whether a NUL-terminated text has at most `most` bytes, is UTF-8 and holds no such character: safe to
 * print. */
bool moe_utf8_is_printable(const char *text, size_t most);

#endif
