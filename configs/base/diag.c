#include "configs/base/diag.h"
#include "configs/base/memory.h"
#include "configs/base/utf8.h"
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <talloc.h>

/* A hostile file may hold a hundred thousand errors; nobody reads more than these. */
enum { SHOWN_PER_SEVERITY = 200 };
enum { EXCERPT_COLUMNS = 100, COLUMNS_BEFORE_CARET = 60, MESSAGE_BYTES = 2000 };

typedef enum message_severity { SEVERITY_ERROR, SEVERITY_WARNING, SEVERITY_COUNT } message_severity;

struct moe_diag {
    FILE *stream;
    int counts[SEVERITY_COUNT];
    bool muted; /* the last message was not shown, so its notes are not either */
    /* Where the last excerpt began: errors come mostly in file order, so finding lines stays
     * linear. */
    const moe_source *source;
    int line;
    size_t line_start;
};

typedef struct span {
    const char *text;
    size_t length;
} span;

moe_diag *moe_diag_create(void *owner, FILE *stream)
{
    moe_diag *diag = moe_need(talloc_zero(owner, moe_diag));
    diag->stream = stream;
    return diag;
}

const moe_source *moe_diag_source(moe_diag *diag, const char *name, const char *text, size_t length)
{
    moe_source *source = moe_need(talloc_zero(diag, moe_source));
    source->name = moe_need(talloc_strdup(source, name));
    if (text) {
        char *copy = moe_need(talloc_size(source, length + 1));
        memcpy(copy, text, length);
        copy[length] = '\0';
        source->text = copy;
    }
    source->length = text ? length : 0;
    return source;
}

/* Prints one character of the text, defused, and returns how many bytes it took. */
static size_t put_character(FILE *stream, const char *text, size_t length)
{
    uint32_t point = 0;
    const size_t bytes = moe_utf8_decode(text, length, &point);
    if (bytes == 0) {
        fputc('?', stream);
        return 1;
    }
    if (point == '\t') {
        fputc(' ', stream);
    } else if (moe_utf8_is_control(point)) {
        fputc('?', stream);
    } else {
        fwrite(text, 1, bytes, stream);
    }
    return bytes;
}

static void put_text(FILE *stream, const char *text, size_t length)
{
    for (size_t at = 0; at < length;) {
        at += put_character(stream, text + at, length - at);
    }
}

/* The line (without its end) at which `where` points; empty when the source has fewer lines. */
static span find_line(moe_diag *diag, moe_where where)
{
    const moe_source *source = where.source;
    if (diag->source != source || where.line < diag->line) {
        diag->source = source;
        diag->line = 1;
        diag->line_start = 0;
    }
    while (diag->line < where.line) {
        const char *rest = source->text + diag->line_start;
        const char *end = memchr(rest, '\n', source->length - diag->line_start);
        if (!end) {
            return (span){source->text + source->length, 0};
        }
        diag->line_start += (size_t)(end - rest) + 1;
        diag->line++;
    }
    const char *start = source->text + diag->line_start;
    const char *end = memchr(start, '\n', source->length - diag->line_start);
    size_t length = end ? (size_t)(end - start) : source->length - diag->line_start;
    if (length > 0 && start[length - 1] == '\r') {
        length--;
    }
    return (span){start, length};
}

/* Drops the first `characters` characters; fewer are left when the text ends before. */
static span skip_characters(span line, size_t characters)
{
    size_t at = 0;
    for (size_t i = 0; i < characters && at < line.length; i++) {
        uint32_t point;
        const size_t bytes = moe_utf8_decode(line.text + at, line.length - at, &point);
        at += bytes > 0 ? bytes : 1;
    }
    return (span){line.text + at, line.length - at};
}

/* The source line, cut around the caret if it is long, and the caret below it. */
static void put_excerpt(moe_diag *diag, moe_where where)
{
    if (!where.source || !where.source->text || where.line <= 0 || where.column <= 0) {
        return;
    }
    const span line = find_line(diag, where);
    if (line.length == 0) {
        return;
    }
    const size_t column = (size_t)where.column;
    const size_t total = moe_utf8_count(line.text, line.length);
    const bool cut = total > EXCERPT_COLUMNS && column > COLUMNS_BEFORE_CARET;
    const size_t first = cut ? column - COLUMNS_BEFORE_CARET : 0; /* characters not shown */
    const span rest = skip_characters(line, first);
    const span after = skip_characters(rest, EXCERPT_COLUMNS);
    fputs(cut ? "  ..." : "  ", diag->stream);
    put_text(diag->stream, rest.text, rest.length - after.length);
    fputs(after.length > 0 ? "...\n" : "\n", diag->stream);
    const size_t caret = (column > total + 1 ? total + 1 : column) - 1;
    fprintf(diag->stream, "%*s^\n", (int)((cut ? 5 : 2) + (caret > first ? caret - first : 0)), "");
}

static void put_place(FILE *stream, moe_where where)
{
    const char *name = where.source ? where.source->name : "moeplan";
    put_text(stream, name, strlen(name));
    if (where.source && where.line > 0) {
        fprintf(stream, ":%d", where.line);
        if (where.column > 0) {
            fprintf(stream, ":%d", where.column);
        }
    }
}

static void put_message(moe_diag *diag, moe_where where, const char *label, const char *format,
                        va_list arguments)
{
    char message[MESSAGE_BYTES];
    vsnprintf(message, sizeof message, format, arguments);
    put_place(diag->stream, where);
    fprintf(diag->stream, ": %s: ", label);
    put_text(diag->stream, message, strlen(message));
    fputc('\n', diag->stream);
    put_excerpt(diag, where);
}

/* Counts a message; whether it is still to be shown. */
static bool admit(moe_diag *diag, message_severity severity, const char *plural)
{
    const int count = ++diag->counts[severity];
    diag->muted = !diag->stream || count > SHOWN_PER_SEVERITY;
    if (diag->stream && count == SHOWN_PER_SEVERITY + 1) {
        fprintf(diag->stream, "moeplan: note: more %s follow and are not shown\n", plural);
    }
    return !diag->muted;
}

void moe_diag_error(moe_diag *diag, moe_where where, const char *format, ...)
{
    if (admit(diag, SEVERITY_ERROR, "errors")) {
        va_list arguments;
        va_start(arguments, format);
        put_message(diag, where, "error", format, arguments);
        va_end(arguments);
    }
}

void moe_diag_warning(moe_diag *diag, moe_where where, const char *format, ...)
{
    if (admit(diag, SEVERITY_WARNING, "warnings")) {
        va_list arguments;
        va_start(arguments, format);
        put_message(diag, where, "warning", format, arguments);
        va_end(arguments);
    }
}

void moe_diag_note(moe_diag *diag, moe_where where, const char *format, ...)
{
    if (diag->stream && !diag->muted) {
        va_list arguments;
        va_start(arguments, format);
        put_message(diag, where, "note", format, arguments);
        va_end(arguments);
    }
}

int moe_diag_error_count(const moe_diag *diag)
{
    return diag->counts[SEVERITY_ERROR];
}
