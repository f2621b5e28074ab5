/* libyaml's document API builds trees but resolves aliases silently and knows no limits. So a pass
 * over the events, which takes no memory for nodes, refuses what is refused before a tree is built.
 */
#include "configs/base/memory.h"
#include "configs/base/utf8.h"
#include "configs/config_node.h"
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <yaml.h>

typedef struct reader {
    void *owner;
    const moe_document *document;
    const char *text;
    size_t length;
    int columns_before;
    moe_diag *diag;
    size_t depth, nodes, documents;
    bool failed;
} reader;

static moe_where place(const reader *r, size_t line, size_t column)
{
    const int shift = line == 0 ? r->columns_before : 0;
    return (moe_where){r->document->source, (int)line + 1, (int)column + 1 + shift};
}

static moe_where place_of(const reader *r, yaml_mark_t mark)
{
    return place(r, mark.line, mark.column);
}

/* Lines end with \n or \r\n only, so that everybody counts the same lines. */
static bool is_allowed(const char *at, const char *end, uint32_t point)
{
    return point == '\n' || point == '\t' || (point == '\r' && at + 1 < end && at[1] == '\n') ||
           !moe_utf8_is_control(point);
}

static bool check_characters(reader *r)
{
    const char *end = r->text + r->length;
    size_t line = 0, column = 0;
    for (const char *at = r->text; at < end;) {
        uint32_t point = 0;
        const size_t bytes = moe_utf8_decode(at, (size_t)(end - at), &point);
        if (bytes == 0) {
            moe_diag_error(r->diag, place(r, line, column),
                           "byte 0x%02x is not UTF-8; expected UTF-8 text", (unsigned char)*at);
            return false;
        }
        if (!is_allowed(at, end, point)) {
            moe_diag_error(
                r->diag, place(r, line, column),
                "control character U+%04X; expected text with lines that end with U+000A",
                (unsigned)point);
            return false;
        }
        at += bytes;
        column = point == '\n' ? 0 : column + 1;
        line += point == '\n';
    }
    return true;
}

static void refuse(reader *r, yaml_mark_t mark, const char *what)
{
    moe_diag_error(r->diag, place_of(r, mark), "%s", what);
    r->failed = true;
}

/* The place after the last character that is no white space. */
static moe_where end_of_text(const reader *r)
{
    size_t length = r->length, line = 0, start = 0;
    while (length > 0 && strchr(" \t\r\n", r->text[length - 1])) {
        length--;
    }
    for (size_t i = 0; i < length; i++) {
        if (r->text[i] == '\n') {
            line++;
            start = i + 1;
        }
    }
    return place(r, line, moe_utf8_count(r->text + start, length - start));
}

/* libyaml finds what is not closed on a line after the last one, where there is nothing to show. */
static moe_where place_of_problem(const reader *r, yaml_mark_t mark)
{
    const moe_where where = place_of(r, mark), end = end_of_text(r);
    return where.line > end.line ? end : where;
}

/* What libyaml could not read, in one line. */
static void report_problem(reader *r, const yaml_parser_t *parser)
{
    const char *problem = parser->problem ? parser->problem : "unreadable text";
    if (parser->error == YAML_MEMORY_ERROR) {
        moe_out_of_memory();
    }
    r->failed = true;
    const yaml_mark_t mark = parser->problem_mark;
    const size_t at = mark.index;
    if (strstr(problem, "cannot start any token") && at < r->length && r->text[at] == '\t') {
        moe_diag_error(r->diag, place_of(r, mark), "a tab; expected spaces for indentation");
        return;
    }
    moe_diag_error(r->diag, place_of_problem(r, mark), "not YAML: %s; expected a YAML document",
                   problem);
    if (parser->context) {
        moe_diag_note(r->diag, place_of(r, parser->context_mark), "%s", parser->context);
    }
}

/* A scalar, map or sequence begins. False when there are too many. */
static bool check_node(reader *r, yaml_mark_t mark, const yaml_char_t *anchor,
                       const yaml_char_t *tag)
{
    if (anchor) {
        refuse(r, mark, "an anchor (&); expected a document without anchors and aliases");
    }
    if (tag) {
        refuse(r, mark, "a tag (!); expected a document without tags");
    }
    if (++r->nodes > MOE_CONFIG_NODES) {
        moe_diag_error(r->diag, place_of(r, mark), "too many values; expected at most %d in a file",
                       MOE_CONFIG_NODES);
        r->failed = true;
        return false;
    }
    if (r->document->nodes && ++*r->document->nodes > MOE_CONFIG_TREE_NODES) {
        moe_diag_error(r->diag, place_of(r, mark),
                       "too many values; expected at most %d in all files together",
                       MOE_CONFIG_TREE_NODES);
        r->failed = true;
        return false;
    }
    return true;
}

static bool check_deeper(reader *r, yaml_mark_t mark)
{
    if (++r->depth <= MOE_CONFIG_DEPTH) {
        return true;
    }
    moe_diag_error(r->diag, place_of(r, mark), "nested too deeply; expected at most %d levels",
                   MOE_CONFIG_DEPTH);
    r->failed = true;
    return false;
}

/* False when looking further is useless. */
static bool check_event(reader *r, const yaml_event_t *event)
{
    const yaml_mark_t mark = event->start_mark;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++r->documents > 1) {
            refuse(r, mark, "a second document; expected one document in a file");
            return false;
        }
        return true;
    case YAML_ALIAS_EVENT:
        refuse(r, mark, "an alias (*); expected a document without anchors and aliases");
        return true;
    case YAML_SCALAR_EVENT:
        return check_node(r, mark, event->data.scalar.anchor, event->data.scalar.tag);
    case YAML_SEQUENCE_START_EVENT:
        return check_node(r, mark, event->data.sequence_start.anchor,
                          event->data.sequence_start.tag) &&
               check_deeper(r, mark);
    case YAML_MAPPING_START_EVENT:
        return check_node(r, mark, event->data.mapping_start.anchor,
                          event->data.mapping_start.tag) &&
               check_deeper(r, mark);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        r->depth--;
        return true;
    default:
        return true;
    }
}

static void start_parser(const reader *r, yaml_parser_t *parser)
{
    if (!yaml_parser_initialize(parser)) {
        moe_out_of_memory();
    }
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(parser, (const unsigned char *)r->text, r->length);
}

static bool check_events(reader *r)
{
    yaml_parser_t parser;
    bool more = true;
    start_parser(r, &parser);
    while (more) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            report_problem(r, &parser);
            break;
        }
        more = event.type != YAML_STREAM_END_EVENT && check_event(r, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    if (!r->failed && r->documents == 0) {
        moe_diag_error(r->diag, place(r, 0, 0), "nothing here; expected a YAML document");
        r->failed = true;
    }
    return !r->failed;
}

static bool is_quoted(yaml_scalar_style_t style)
{
    return style == YAML_SINGLE_QUOTED_SCALAR_STYLE || style == YAML_DOUBLE_QUOTED_SCALAR_STYLE;
}

static void convert_scalar(reader *r, const yaml_node_t *from, moe_node *to)
{
    const char *text = (const char *)from->data.scalar.value;
    const size_t length = from->data.scalar.length;
    const bool quoted = is_quoted(from->data.scalar.style);
    char *copy = moe_need(talloc_size(r->owner, length + 1));
    memcpy(copy, text, length);
    copy[length] = '\0';
    to->text = copy;
    to->length = length;
    to->plain = from->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    const bool one_line = from->start_mark.line == from->end_mark.line;
    const size_t columns = from->end_mark.column - from->start_mark.column;
    if ((quoted || to->plain) && one_line &&
        columns == moe_utf8_count(text, length) + (quoted ? 2 : 0)) {
        to->text_column = to->where.column + quoted;
    }
}

static int compare_text(const moe_node *a, const moe_node *b)
{
    const size_t common = a->length < b->length ? a->length : b->length;
    const int order = memcmp(a->text, b->text, common);
    return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

/* By text, then by place. */
static int compare_keys(const void *a, const void *b)
{
    const moe_node *left = *(moe_node *const *)a, *right = *(moe_node *const *)b;
    const int order = compare_text(left, right);
    if (order != 0) {
        return order;
    }
    const int lines = left->where.line - right->where.line;
    return lines != 0 ? lines : left->where.column - right->where.column;
}

/* Sorted, equal keys are neighbours: no quadratic work on a map of 50,000 keys. */
static void refuse_duplicates(reader *r, const moe_node *map)
{
    if (map->count < 2) {
        return;
    }
    moe_node **keys = moe_need(talloc_array(r->owner, moe_node *, map->count));
    for (size_t i = 0; i < map->count; i++) {
        keys[i] = map->pairs[i].key;
    }
    qsort(keys, map->count, sizeof *keys, compare_keys);
    for (size_t i = 1, first = 0; i < map->count; i++) {
        if (compare_text(keys[first], keys[i]) != 0) {
            first = i;
            continue;
        }
        moe_diag_error(r->diag, keys[i]->where, "duplicate key \"%.60s\"; expected each key once",
                       keys[i]->text);
        moe_diag_note(r->diag, keys[first]->where, "first given here");
        r->failed = true;
    }
    talloc_free(keys);
}

static moe_node *convert(reader *r, yaml_document_t *tree, int index);

static void convert_map(reader *r, yaml_document_t *tree, const yaml_node_t *from, moe_node *to)
{
    for (const yaml_node_pair_t *pair = from->data.mapping.pairs.start;
         pair < from->data.mapping.pairs.top; pair++) {
        moe_node *key = convert(r, tree, pair->key);
        moe_node *value = convert(r, tree, pair->value);
        if (key->kind == MOE_NODE_SCALAR) {
            moe_node_add_pair(r->owner, to, key, value);
        } else {
            moe_diag_error(r->diag, key->where, "a key that is a map or a list; expected a word");
            r->failed = true;
        }
    }
    refuse_duplicates(r, to);
}

/* Recursion is bounded by the depth that check_events allowed. */
static moe_node *convert(reader *r, yaml_document_t *tree, int index)
{
    const yaml_node_t *from = yaml_document_get_node(tree, index);
    moe_node *to =
        moe_node_create(r->owner, MOE_NODE_SCALAR, place_of(r, from->start_mark), r->document);
    if (from->type == YAML_MAPPING_NODE) {
        to->kind = MOE_NODE_MAP;
        convert_map(r, tree, from, to);
    } else if (from->type == YAML_SEQUENCE_NODE) {
        to->kind = MOE_NODE_SEQUENCE;
        for (const int *item = from->data.sequence.items.start;
             item < from->data.sequence.items.top; item++) {
            moe_node_add_item(r->owner, to, convert(r, tree, *item));
        }
    } else {
        convert_scalar(r, from, to);
    }
    return to;
}

static moe_node *load_tree(reader *r)
{
    yaml_parser_t parser;
    yaml_document_t tree;
    moe_node *root = NULL;
    start_parser(r, &parser);
    if (!yaml_parser_load(&parser, &tree)) {
        report_problem(r, &parser);
        yaml_parser_delete(&parser);
        return NULL;
    }
    if (yaml_document_get_root_node(&tree)) {
        root = convert(r, &tree, 1); /* libyaml numbers nodes from 1, the root first */
    }
    yaml_document_delete(&tree);
    yaml_parser_delete(&parser);
    return r->failed ? NULL : root;
}

moe_node *moe_document_parse(void *owner, const moe_document *document, const char *text,
                             size_t length, int columns_before, moe_diag *diag)
{
    reader r = {.owner = owner,
                .document = document,
                .text = text,
                .length = length,
                .columns_before = columns_before,
                .diag = diag};
    if (!check_characters(&r) || !check_events(&r)) {
        return NULL;
    }
    return load_tree(&r);
}
