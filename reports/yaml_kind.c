#include "reports/yaml_kind.h"

#include <stdbool.h>
#include <string.h>

/* Keys that only one kind of file has at its top; the first row that matches decides, because a
 * scenario's `model` and `profile` are maps of the others. */
typedef struct kind_keys {
    const char *kind;
    const char *keys[8];
} kind_keys;

static const kind_keys kinds[] = {
    {"scenarios", {"policies", "trace", "cluster", "profile", "engine", "parallel"}},
    {"clusters", {"hosts", "devices_per_host", "nic", "intra", "fabric"}},
    {"profiles", {"collectives", "launch", "interference", "dense"}},
    {"models", {"layers", "experts", "top_k", "hidden", "ffn", "gate_groups"}},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

typedef struct key_scan {
    const char *at;
    const char *end;
    int found; /* the lowest row of `kinds` so far */
} key_scan;

static bool is_key_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static void note_key(key_scan *scan, const char *key, size_t length)
{
    for (int row = 0; row < scan->found; row++) {
        for (const char *const *known = kinds[row].keys; *known; known++) {
            if (strlen(*known) == length && memcmp(*known, key, length) == 0) {
                scan->found = row;
                return;
            }
        }
    }
}

/* A word, perhaps in quotes, followed by a colon. */
static void read_key(key_scan *scan)
{
    const char *at = scan->at;
    char quote = at < scan->end && (*at == '"' || *at == '\'') ? *at++ : 0;
    const char *key = at;
    while (at < scan->end && is_key_character(*at))
        at++;
    size_t length = (size_t)(at - key);
    if (quote && at < scan->end && *at == quote)
        at++;
    while (at < scan->end && *at == ' ')
        at++;
    if (length > 0 && at < scan->end && *at == ':')
        note_key(scan, key, length);
}

static void scan_block(key_scan *scan)
{
    while (scan->at < scan->end) {
        read_key(scan);
        const char *line_end = memchr(scan->at, '\n', (size_t)(scan->end - scan->at));
        scan->at = line_end ? line_end + 1 : scan->end;
    }
}

static void scan_flow(key_scan *scan)
{
    int depth = 0;
    for (; scan->at < scan->end; scan->at++) {
        char c = *scan->at;
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        if (depth != 1 || (c != '{' && c != ','))
            continue;
        scan->at++;
        while (scan->at < scan->end && strchr(" \t\r\n", *scan->at))
            scan->at++;
        read_key(scan);
        scan->at--;
    }
}

/* The first character that is neither blank nor part of a comment. */
static const char *skip_comments(const char *at, const char *end)
{
    while (at < end && strchr(" \t\r\n#", *at)) {
        const char *line_end = *at == '#' ? memchr(at, '\n', (size_t)(end - at)) : at;
        at = line_end ? line_end + 1 : end;
    }
    return at;
}

const char *moe_yaml_kind(const char *text, size_t length)
{
    key_scan scan = {.at = text, .end = text + length, .found = KINDS};
    const char *first = skip_comments(text, scan.end);
    if (first < scan.end && *first == '{') {
        scan.at = first;
        scan_flow(&scan);
    } else {
        scan_block(&scan);
    }
    return scan.found < KINDS ? kinds[scan.found].kind : NULL;
}
