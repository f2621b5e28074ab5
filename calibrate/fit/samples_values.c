/* Numbers, texts and lists of a record, each with its range and its message. */
#include "calibrate/fit/samples_reader.h"

#include "configs/base/memory.h"
#include "configs/base/utf8.h"
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <talloc.h>

enum { REPETITIONS_MOST = 1000000 };

/* Where `"key"` stands in the line, in characters from 1. */
static int column_of(const moe_record_reader *reader, const char *key)
{
    char quoted[80];
    if (key == NULL)
        return 1;
    int length = snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *at = memmem(reader->text, reader->length, quoted, (size_t)length);
    return at == NULL ? 1 : (int)moe_utf8_count(reader->text, (size_t)(at - reader->text)) + 1;
}

void moe_record_refuse(const moe_record_reader *reader, const char *key, const char *format, ...)
{
    char message[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    moe_diag_error(reader->diag, (moe_where){reader->source, reader->line, column_of(reader, key)},
                   "%s", message);
}

/* "0", "a text": what was found. */
static const char *describe(const json_t *value, char text[static 32])
{
    switch (json_typeof(value)) {
    case JSON_INTEGER:
    case JSON_REAL:
        snprintf(text, 32, "%.9g", json_number_value(value));
        return text;
    case JSON_STRING:
        return "a text";
    case JSON_ARRAY:
        return "a list";
    case JSON_OBJECT:
        return "an object";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

/* The value, or NULL; *fine: whether that is no error. */
static const json_t *find(const moe_record_reader *reader, moe_member member, bool required,
                          bool *fine)
{
    const json_t *value = json_object_get(member.object, member.key);
    *fine = value != NULL || !required;
    if (!*fine)
        moe_record_refuse(reader, NULL, "%s without \"%s\"", reader->noun, member.path);
    return value;
}

static bool check_number(const moe_record_reader *reader, moe_member member, const json_t *value,
                         const char *expected, double low, double high)
{
    char found[32];
    double number = json_number_value(value);
    if (json_is_number(value) && number >= low && number <= high)
        return true;
    moe_record_refuse(reader, member.key, "\"%s\" is %s; expected %s from %.9g to %.9g",
                      member.path, describe(value, found), expected, low, high);
    return false;
}

static bool read_number(const moe_record_reader *reader, moe_member member, bool whole, double low,
                        double high, bool required, double *value)
{
    bool fine;
    const json_t *found = find(reader, member, required, &fine);
    if (found == NULL)
        return fine;
    if (!check_number(reader, member, found, whole ? "a whole number" : "a number", low, high))
        return false;
    *value = json_number_value(found);
    if (!whole || *value == floor(*value))
        return true;
    moe_record_refuse(reader, member.key, "\"%s\" is %.9g; expected a whole number", member.path,
                      *value);
    return false;
}

bool moe_record_number(const moe_record_reader *reader, moe_member member, double low, double high,
                       bool required, double *value)
{
    return read_number(reader, member, false, low, high, required, value);
}

bool moe_record_count(const moe_record_reader *reader, moe_member member, double low, double high,
                      bool required, double *value)
{
    return read_number(reader, member, true, low, high, required, value);
}

bool moe_record_flag(const moe_record_reader *reader, moe_member member, bool *value)
{
    char text[32];
    const json_t *found = json_object_get(member.object, member.key);
    if (found == NULL)
        return true;
    if (!json_is_boolean(found)) {
        moe_record_refuse(reader, member.key, "\"%s\" is %s; expected true or false", member.path,
                          describe(found, text));
        return false;
    }
    *value = json_is_true(found);
    return true;
}

bool moe_record_text(const moe_record_reader *reader, moe_member member, size_t most, bool required,
                     const char **value)
{
    bool fine;
    const json_t *found = find(reader, member, required, &fine);
    if (found == NULL)
        return fine;
    const char *text = json_string_value(found);
    if (text == NULL || text[0] == '\0' || !moe_utf8_is_printable(text, most)) {
        moe_record_refuse(reader, member.key, "\"%s\" is no printable text of at most %zu bytes",
                          member.path, most);
        return false;
    }
    *value = text;
    return true;
}

static void refuse_choice(const moe_record_reader *reader, moe_member member,
                          const char *const *names, const char *text)
{
    char known[300] = "";
    size_t count = 0, length = 0;
    for (; names[count] != NULL && length < sizeof known; count++)
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s",
                                   count > 0 ? ", " : "", names[count]);
    const char *closest = moe_closest(text, names, count);
    moe_record_refuse(reader, member.key, "unknown %s \"%.60s\"; expected %s%s%s", member.path,
                      text, known, closest == NULL ? "" : "; did you mean ",
                      closest == NULL ? "" : closest);
}

int moe_record_choice(const moe_record_reader *reader, moe_member member, const char *const *names)
{
    const char *text = NULL;
    if (!moe_record_text(reader, member, 200, true, &text))
        return -1;
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], text) == 0)
            return i;
    }
    refuse_choice(reader, member, names, text);
    return -1;
}

const json_t *moe_record_object(const moe_record_reader *reader, moe_member member)
{
    char text[32];
    bool fine;
    const json_t *found = find(reader, member, true, &fine);
    if (found == NULL || json_is_object(found))
        return found;
    moe_record_refuse(reader, member.key, "\"%s\" is %s; expected an object", member.path,
                      describe(found, text));
    return NULL;
}

static const json_t *find_list(const moe_record_reader *reader, moe_member member, size_t most)
{
    char text[32];
    bool fine;
    const json_t *found = find(reader, member, true, &fine);
    if (found == NULL)
        return NULL;
    if (!json_is_array(found)) {
        moe_record_refuse(reader, member.key, "\"%s\" is %s; expected a list of numbers",
                          member.path, describe(found, text));
        return NULL;
    }
    size_t size = json_array_size(found);
    if (size >= 1 && size <= most)
        return found;
    moe_record_refuse(reader, member.key, "\"%s\" has %zu values; expected 1 to %zu", member.path,
                      size, most);
    return NULL;
}

double *moe_record_numbers(const moe_record_reader *reader, moe_member member, size_t most,
                           double low, double high, size_t *count)
{
    const json_t *list = find_list(reader, member, most);
    if (list == NULL)
        return NULL;
    *count = json_array_size(list);
    double *values = moe_need(talloc_array(reader->scratch, double, *count));
    for (size_t i = 0; i < *count; i++) {
        char text[32];
        const json_t *item = json_array_get(list, i);
        values[i] = json_number_value(item);
        if (!json_is_number(item) || !(values[i] >= low && values[i] <= high)) {
            moe_record_refuse(reader, member.key,
                              "\"%s\" holds %s at place %zu; expected numbers from %.9g to %.9g",
                              member.path, describe(item, text), i, low, high);
            return NULL;
        }
    }
    return values;
}

double *moe_record_times(const moe_record_reader *reader, moe_member member, size_t *count)
{
    return moe_record_numbers(reader, member, REPETITIONS_MOST, MOE_SAMPLE_TIME_LEAST,
                              MOE_SAMPLE_TIME_MOST, count);
}
