#include "calibrate/measure/samples.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct moecal_samples {
    int file;
    bool owned; /* to be closed */
    char digest[9];
    json_t *ids; /* a set */
};

typedef struct failure {
    char *text;
    size_t size;
} failure;

__attribute__((format(printf, 2, 3))) static int fail(failure *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, error->size, format, arguments);
    va_end(arguments);
    return -1;
}

/* --- the machine ------------------------------------------------------------------------------ */

/* FNV-1a, 32 bits. */
static uint32_t digest_of(const char *text)
{
    uint32_t sum = 0x811c9dc5u;
    for (; *text; text++)
        sum = (sum ^ (unsigned char)*text) * 0x01000193u;
    return sum;
}

void moecal_machine_digest(const json_t *machine, char digest[static 9])
{
    static const char *const apart[] = {"record", "format", "version", "machine", "time"};
    json_t *rest = json_copy((json_t *)machine);
    for (size_t i = 0; i < sizeof apart / sizeof *apart; i++)
        json_object_del(rest, apart[i]);
    char *text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(9));
    snprintf(digest, 9, "%08" PRIx32, digest_of(text ? text : ""));
    free(text);
    json_decref(rest);
}

json_t *moecal_machine_line(const json_t *description)
{
    char digest[9], now[32];
    time_t seconds = time(NULL);
    struct tm parts;
    json_t *machine =
        json_pack("{s:s, s:s, s:i, s:s, s:s}", "record", "machine", "format", "moecal-samples",
                  "version", 1, "machine", "", "program", "moecal " MOECAL_VERSION);
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &parts));
    json_object_set_new(machine, "time", json_string(now));
    json_object_update(machine, (json_t *)description);
    moecal_machine_digest(machine, digest);
    json_object_set_new(machine, "machine", json_string(digest));
    return machine;
}

/* The first key of which two descriptions of one machine may not differ, or NULL. */
static const char *difference(const json_t *left, const json_t *right)
{
    static const char *const keys[] = {"backend",          "hosts",      "ranks",
                                       "devices_per_host", "host_names", "software"};
    static const char *const device_keys[] = {"name", "sms"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_equal(json_object_get(left, keys[i]), json_object_get(right, keys[i])) &&
            json_object_get(left, keys[i]) != json_object_get(right, keys[i]))
            return keys[i];
    const json_t *device = json_object_get(left, "device"),
                 *other = json_object_get(right, "device");
    for (size_t i = 0; i < 2; i++)
        if (!json_equal(json_object_get(device, device_keys[i]),
                        json_object_get(other, device_keys[i])) &&
            json_object_get(device, device_keys[i]) != json_object_get(other, device_keys[i]))
            return "device";
    return NULL;
}

/* --- continuing ------------------------------------------------------------------------------- */

typedef struct resumption {
    moecal_samples *samples;
    const json_t *description;
    const char *path;
    size_t line;
    failure *error;
} resumption;

static int take_machine(resumption *in, const json_t *record)
{
    const char *format = json_string_value(json_object_get(record, "format"));
    const char *digest = json_string_value(json_object_get(record, "machine"));
    if (!format || strcmp(format, "moecal-samples") != 0 ||
        json_integer_value(json_object_get(record, "version")) != 1)
        return fail(in->error, "%s:%zu: not a moecal-samples file of version 1", in->path,
                    in->line);
    if (!digest || strlen(digest) != 8 ||
        (in->samples->digest[0] && strcmp(digest, in->samples->digest) != 0))
        return fail(in->error, "%s:%zu: \"machine\" is not the file's digest of 8 hex digits",
                    in->path, in->line);
    const char *key = difference(record, in->description);
    if (key)
        return fail(in->error, "%s:%zu: it was measured on another machine (\"%s\" differs)",
                    in->path, in->line, key);
    memcpy(in->samples->digest, digest, 9);
    return 0;
}

static int take_sample(resumption *in, const json_t *record)
{
    const char *digest = json_string_value(json_object_get(record, "machine"));
    json_t *id = json_object_get(record, "id");
    if (in->line == 1)
        return fail(in->error, "%s:1: not a machine line", in->path);
    if (!digest || strcmp(digest, in->samples->digest) != 0)
        return fail(in->error, "%s:%zu: a sample of another machine", in->path, in->line);
    if (!json_is_string(id))
        return fail(in->error, "%s:%zu: a sample without \"id\"", in->path, in->line);
    json_object_set_new(in->samples->ids, json_string_value(id), json_true());
    return 0;
}

static int take_line(resumption *in, const char *text, size_t length)
{
    json_error_t error;
    json_t *record = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    const char *type = json_string_value(json_object_get(record, "record"));
    int failed;
    if (!record)
        failed = fail(in->error, "%s:%zu:%d: %s", in->path, in->line, error.column, error.text);
    else if (type && strcmp(type, "machine") == 0)
        failed = take_machine(in, record);
    else if (type && strcmp(type, "sample") == 0)
        failed = take_sample(in, record);
    else
        failed = fail(in->error, "%s:%zu: neither a machine nor a sample", in->path, in->line);
    json_decref(record);
    return failed;
}

/* What a killed run may leave of its first line. Any other text without a newline is somebody's file. */
static bool begins_a_machine_line(const char *text, size_t length)
{
    static const char start[] = "{\"record\":\"machine\"";
    size_t compared = length < sizeof start - 1 ? length : sizeof start - 1;
    return memcmp(text, start, compared) == 0;
}

/* A line without its newline: the killed run's last one, to be cut off, or none of ours. */
static int take_rest(const resumption *in, FILE *stream, const char *text, size_t length)
{
    if (!feof(stream))
        return fail(in->error, "%s:%zu: a byte of 0, or a line of more than %d bytes", in->path,
                    in->line + 1, MOECAL_MAX_LINE);
    if (in->line == 0 && !begins_a_machine_line(text, length))
        return fail(in->error, "%s:1: neither a machine nor a sample", in->path);
    return 0;
}

/* Reads all lines; bytes of those that are whole, or -1. */
static off_t read_lines(resumption *in, FILE *stream)
{
    char *text = malloc(MOECAL_MAX_LINE + 2);
    off_t whole = 0;
    while (text && fgets(text, MOECAL_MAX_LINE + 2, stream)) {
        size_t length = strlen(text);
        if (length == 0 || text[length - 1] != '\n') {
            if (take_rest(in, stream, text, length) != 0)
                whole = -1;
            break;
        }
        in->line++;
        whole = take_line(in, text, length) ? -1 : whole + (off_t)length;
        if (whole < 0)
            break;
    }
    free(text);
    return whole;
}

/* 1: nothing in it; 0: continued; -1: refused. */
static int resume_file(resumption *in)
{
    FILE *stream = fdopen(dup(in->samples->file), "r");
    if (!stream)
        return fail(in->error, "%s: %s", in->path, strerror(errno));
    off_t whole = read_lines(in, stream);
    fclose(stream);
    if (whole < 0)
        return -1;
    if (ftruncate(in->samples->file, whole) != 0)
        return fail(in->error, "%s: %s", in->path, strerror(errno));
    return whole == 0;
}

/* --- writing ---------------------------------------------------------------------------------- */

static int write_line(int file, const json_t *record)
{
    char *text = json_dumps(record, JSON_COMPACT | JSON_REAL_PRECISION(9));
    size_t length = text ? strlen(text) : 0, written = 0;
    if (!text) {
        errno = ENOMEM;
        return -1;
    }
    text[length++] = '\n'; /* instead of the NUL: a line is one write */
    while (written < length) {
        ssize_t count = write(file, text + written, length - written);
        if (count < 0 && errno != EINTR)
            break;
        written += count > 0 ? (size_t)count : 0;
    }
    free(text);
    if (written < length)
        return -1;
    return fsync(file) == 0 || errno == EINVAL || errno == EROFS ? 0 : -1; /* pipes have no disk */
}

int moecal_samples_write(moecal_samples *samples, json_t *sample)
{
    json_object_set_new(sample, "machine", json_string(samples->digest));
    return write_line(samples->file, sample);
}

static int write_machine(moecal_samples *samples, const json_t *description)
{
    json_t *machine = moecal_machine_line(description);
    const char *digest = json_string_value(json_object_get(machine, "machine"));
    memcpy(samples->digest, digest, 9);
    int failed = write_line(samples->file, machine);
    json_decref(machine);
    return failed;
}

/* 1: to be started with a machine line; 0: continued; -1: refused. */
static int open_file(moecal_samples *samples, const char *path, bool resume,
                     const json_t *description, failure *error)
{
    struct stat status;
    samples->file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (samples->file < 0)
        return fail(error, "%s: %s", path, strerror(errno));
    samples->owned = true;
    if (flock(samples->file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return fail(error, "%s: another run is writing it", path);
    if (fstat(samples->file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0)
        return 1;
    if (!resume)
        return fail(error, "%s exists; --resume continues it", path);
    resumption in = {samples, description, path, 0, error};
    return resume_file(&in);
}

moecal_samples *moecal_samples_open(const char *path, bool resume, const json_t *description,
                                    char *text, size_t size)
{
    failure error = {text, size};
    moecal_samples *samples = calloc(1, sizeof *samples);
    if (!samples) {
        fail(&error, "out of memory");
        return NULL;
    }
    samples->file = STDOUT_FILENO;
    samples->ids = json_object();
    int fresh = path ? open_file(samples, path, resume, description, &error) : 1;
    if (fresh == 1 && write_machine(samples, description) != 0)
        fresh = fail(&error, "%s: %s", path ? path : "standard output", strerror(errno));
    if (fresh < 0) {
        moecal_samples_close(samples);
        return NULL;
    }
    return samples;
}

bool moecal_samples_has(const moecal_samples *samples, const char *id)
{
    return json_object_get(samples->ids, id) != NULL;
}

size_t moecal_samples_count(const moecal_samples *samples)
{
    return json_object_size(samples->ids);
}

void moecal_samples_close(moecal_samples *samples)
{
    if (!samples)
        return;
    if (samples->owned)
        close(samples->file);
    json_decref(samples->ids);
    free(samples);
}
