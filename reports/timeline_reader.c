#include "reports/timeline_reader.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { HEADER_BYTES = 1 << 20, EVENT_BYTES = 1 << 16, KEY_BYTES = 64 };
static const int64_t file_bytes = (int64_t)16 << 30;

typedef struct reader {
    FILE *file;
    int next; /* looked at but not taken; EOF - 1: none */
    int line;
    size_t room; /* bytes the value under way may still have */
    bool too_long;
    const char *wrong; /* the first error; NULL: none */
    char text[JSON_ERROR_TEXT_LENGTH + 40];
    const moe_timeline_visitor *visitor;
    bool has_header;
    bool has_events;
} reader;

enum { NOTHING = EOF - 1 };

/* --- characters ---------------------------------------------------------------------------------- */

static int take(reader *r)
{
    int character = r->next != NOTHING ? r->next : getc_unlocked(r->file);
    r->next = NOTHING;
    r->line += character == '\n';
    return character;
}

static int peek(reader *r)
{
    if (r->next == NOTHING)
        r->next = getc_unlocked(r->file);
    return r->next;
}

static int peek_past_space(reader *r)
{
    while (peek(r) == ' ' || peek(r) == '\t' || peek(r) == '\n' || peek(r) == '\r')
        take(r);
    return peek(r);
}

static bool fail(reader *r, const char *wrong)
{
    if (r->wrong == NULL)
        r->wrong = wrong;
    return false;
}

static bool expect(reader *r, char character)
{
    if (peek_past_space(r) != character) {
        snprintf(r->text, sizeof r->text, "JSON: expected '%c'", character);
        return fail(r, r->text);
    }
    take(r);
    return true;
}

/* Whether another item follows; takes the comma, or the end. */
static bool another(reader *r, char end)
{
    if (peek_past_space(r) == ',') {
        take(r);
        return true;
    }
    expect(r, end);
    return false;
}

/* --- values -------------------------------------------------------------------------------------- */

/* One byte at a time, so that jansson takes nothing that stands behind the value. */
static size_t feed(void *buffer, size_t size, void *context)
{
    reader *r = context;
    (void)size;
    if (r->room == 0) {
        r->too_long = true;
        return 0;
    }
    int character = take(r);
    r->room--;
    if (character == EOF)
        return 0;
    *(char *)buffer = (char)character;
    return 1;
}

/* An object or array of at most `most` bytes; new reference, NULL after an error. */
static json_t *take_value(reader *r, size_t most)
{
    json_error_t error;
    r->room = most;
    r->too_long = false;
    peek_past_space(r);
    json_t *value =
        json_load_callback(feed, r, JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &error);
    if (value != NULL)
        return value;
    if (r->too_long)
        snprintf(r->text, sizeof r->text, "a value of more than %zu bytes", most);
    else
        snprintf(r->text, sizeof r->text, "JSON: %s", error.text);
    fail(r, r->text);
    return NULL;
}

/* A plain text without escapes, as keys of this format are. */
static bool take_text(reader *r, char text[static KEY_BYTES])
{
    size_t length = 0;
    if (!expect(r, '"'))
        return false;
    while (peek(r) != '"') {
        int character = take(r);
        if (character < ' ' || character == '\\' || length + 1 == KEY_BYTES)
            return fail(r, "no timeline: expected a plain text of at most 63 bytes");
        text[length++] = (char)character;
    }
    take(r);
    text[length] = '\0';
    return true;
}

/* --- the document -------------------------------------------------------------------------------- */

static bool read_header(reader *r)
{
    json_t *value = take_value(r, HEADER_BYTES);
    if (value == NULL)
        return false;
    const char *wrong =
        r->has_header ? "a second otherData" : r->visitor->header(r->visitor->context, value);
    r->has_header = true;
    json_decref(value);
    return wrong == NULL || fail(r, wrong);
}

static bool read_event(reader *r)
{
    json_t *event = take_value(r, EVENT_BYTES);
    if (event == NULL)
        return false;
    const char *wrong = json_is_object(event) ? r->visitor->event(r->visitor->context, event)
                                              : "an event that is no object";
    json_decref(event);
    return wrong == NULL || fail(r, wrong);
}

static bool read_events(reader *r)
{
    if (!r->has_header)
        return fail(r, "no otherData before traceEvents; expected a file of `moeplan simulate "
                       "--timeline`");
    if (r->has_events)
        return fail(r, "a second traceEvents");
    r->has_events = true;
    if (!expect(r, '['))
        return false;
    if (peek_past_space(r) == ']') {
        take(r);
        return true;
    }
    do {
        if (!read_event(r))
            return false;
    } while (another(r, ']'));
    return r->wrong == NULL;
}

static bool skip_value(reader *r)
{
    char text[KEY_BYTES];
    if (peek_past_space(r) == '"')
        return take_text(r, text);
    json_t *value = take_value(r, HEADER_BYTES);
    json_decref(value);
    return value != NULL;
}

static bool read_member(reader *r)
{
    char key[KEY_BYTES];
    if (!take_text(r, key) || !expect(r, ':'))
        return false;
    if (strcmp(key, "otherData") == 0)
        return read_header(r);
    return strcmp(key, "traceEvents") == 0 ? read_events(r) : skip_value(r);
}

static bool read_document(reader *r)
{
    if (!expect(r, '{'))
        return false;
    do {
        if (!read_member(r))
            return false;
    } while (another(r, '}'));
    if (r->wrong == NULL && !r->has_events)
        return fail(r, "no traceEvents; expected a file of `moeplan simulate --timeline`");
    if (r->wrong == NULL && peek_past_space(r) != EOF)
        return fail(r, "something behind the end of the timeline");
    return r->wrong == NULL;
}

/* Opening a pipe that nobody writes would wait for ever, so it is looked at first. */
static FILE *open_file(const char *path, moe_diag *diag)
{
    struct stat status;
    FILE *file = NULL;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        moe_diag_error(diag, (moe_where){0}, "\"%s\" is not a regular file; expected one", path);
        return NULL;
    }
    file = fopen(path, "rbe");
    if (file == NULL || fstat(fileno(file), &status) != 0)
        moe_diag_error(diag, (moe_where){0}, "cannot read \"%s\": %s", path, strerror(errno));
    else if (status.st_size <= file_bytes)
        return file;
    else
        moe_diag_error(diag, (moe_where){0}, "\"%s\" has %lld bytes; expected at most %lld", path,
                       (long long)status.st_size, (long long)file_bytes);
    if (file != NULL)
        fclose(file);
    return NULL;
}

moe_status moe_timeline_read(const char *path, const moe_timeline_visitor *visitor, moe_diag *diag)
{
    reader r = {.next = NOTHING, .line = 1, .visitor = visitor};
    r.file = open_file(path, diag);
    if (r.file == NULL)
        return MOE_BAD_INPUT;
    bool sound = read_document(&r);
    if (!sound)
        moe_diag_error(diag, (moe_where){moe_diag_source(diag, path, NULL, 0), r.line, 1}, "%s",
                       r.wrong);
    fclose(r.file);
    return sound ? MOE_OK : MOE_BAD_INPUT;
}
