/* Lines of a samples file to samples: the machine, the common keys, duplicates. */
#include "calibrate/fit/robust.h"
#include "calibrate/fit/samples_reader.h"
#include "configs/base/input.h"
#include "configs/base/memory.h"
#include "configs/base/utf8.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { LINE_BYTES = 1 << 20, SAMPLES_MOST = 4000000, NAME_BYTES = 200, ID_BYTES = 4096 };

typedef struct file_reader {
    moe_record_reader record;
    bool has_machine;
    bool stopped;     /* nothing further on would make sense */
    const char **ids; /* talloc array, by sample */
    int errors_before;
    size_t wrong; /* samples whose result was wrong */
} file_reader;

static bool failed(const file_reader *file)
{
    return moe_diag_error_count(file->record.diag) > file->errors_before;
}

/* ---- the machine ----------------------------------------------------------------------------- */

static void read_device(const moe_record_reader *reader, const json_t *machine,
                        moe_sample_machine *of)
{
    const json_t *device = moe_record_object(reader, (moe_member){machine, "device", "device"});
    const char *name = NULL;
    double sms = 0;
    if (device == NULL)
        return;
    moe_record_text(reader, (moe_member){device, "name", "device.name"}, NAME_BYTES, true, &name);
    moe_record_number(reader, (moe_member){device, "peak_flop_per_s", "device.peak_flop_per_s"},
                      1e6, 1e20, true, &of->peak_flop_per_s);
    moe_record_number(reader, (moe_member){device, "memory_bytes", "device.memory_bytes"}, 1e3,
                      1e18, true, &of->memory_bytes);
    moe_record_number(reader,
                      (moe_member){device, "memory_bytes_per_s", "device.memory_bytes_per_s"}, 1e3,
                      1e18, true, &of->memory_bytes_per_s);
    moe_record_count(reader, (moe_member){device, "sms", "device.sms"}, 0, 1e5, false, &sms);
    of->sms = (int)sms;
    if (name != NULL)
        of->device = moe_need(talloc_strdup(reader->samples, name));
}

/* `link` or `nic`, both optional. */
static void read_link(const moe_record_reader *reader, const json_t *machine, const char *key,
                      double *rate, double *latency_s, bool *per_device)
{
    char paths[3][40];
    const json_t *link = json_object_get(machine, key);
    if (link == NULL || json_is_null(link))
        return;
    link = moe_record_object(reader, (moe_member){machine, key, key});
    if (link == NULL)
        return;
    snprintf(paths[0], sizeof paths[0], "%s.bytes_per_s", key);
    snprintf(paths[1], sizeof paths[1], "%s.latency_s", key);
    snprintf(paths[2], sizeof paths[2], "%s.per_device", key);
    moe_record_number(reader, (moe_member){link, "bytes_per_s", paths[0]}, 1e3, 1e18, false, rate);
    moe_record_number(reader, (moe_member){link, "latency_s", paths[1]}, 0, 10, false, latency_s);
    if (per_device != NULL)
        moe_record_flag(reader, (moe_member){link, "per_device", paths[2]}, per_device);
}

/* Said of the machine, its device or its link. */
static bool is_nominal(const json_t *machine)
{
    static const char *const parts[] = {"device", "link", "nic"};
    bool nominal = !json_is_false(json_object_get(machine, "nominal"));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        nominal &= !json_is_false(json_object_get(json_object_get(machine, parts[i]), "nominal"));
    return nominal;
}

static void read_counts(const moe_record_reader *reader, const json_t *machine,
                        moe_sample_machine *of)
{
    double hosts = 1, ranks = 1, per_host = 1;
    moe_record_count(reader, (moe_member){machine, "hosts", "hosts"}, 1, 65536, true, &hosts);
    moe_record_count(reader, (moe_member){machine, "ranks", "ranks"}, 1, 65536, true, &ranks);
    moe_record_count(reader, (moe_member){machine, "devices_per_host", "devices_per_host"}, 1,
                     65536, true, &per_host);
    of->hosts = (int)hosts;
    of->ranks = (int)ranks;
    of->devices_per_host = (int)per_host;
    if (hosts * per_host > 65536)
        moe_record_refuse(reader, "hosts",
                          "%.0f hosts of %.0f devices; expected at most 65536 devices", hosts,
                          per_host);
}

static void describe_machine(const moe_record_reader *reader, const json_t *machine,
                             moe_sample_machine *of)
{
    const char *time = NULL, *program = NULL;
    char *text = moe_need(talloc_asprintf(reader->samples, "%s, %d host%s of %d",
                                          of->device ? of->device : "", of->hosts,
                                          of->hosts == 1 ? "" : "s", of->devices_per_host));
    moe_record_text(reader, (moe_member){machine, "program", "program"}, NAME_BYTES, false,
                    &program);
    moe_record_text(reader, (moe_member){machine, "time", "time"}, NAME_BYTES, false, &time);
    const json_t *software = json_object_get(machine, "software");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)software, key, value)
    {
        const char *version = json_string_value(value);
        if (version != NULL && moe_utf8_is_printable(version, NAME_BYTES) &&
            moe_utf8_is_printable(key, NAME_BYTES) && talloc_get_size(text) < 600)
            text = moe_need(talloc_asprintf_append(text, ", %s %s", key, version));
    }
    if (program != NULL)
        text = moe_need(talloc_asprintf_append(text, ", %s", program));
    of->description = time == NULL ? text : moe_need(talloc_asprintf_append(text, ", %s", time));
}

static void read_format(const moe_record_reader *reader, const json_t *machine)
{
    static const char *const formats[] = {"moecal-samples", NULL};
    double version;
    moe_record_choice(reader, (moe_member){machine, "format", "format"}, formats);
    moe_record_count(reader, (moe_member){machine, "version", "version"}, 1, 1, true, &version);
}

static const char *read_digest(const moe_record_reader *reader, const json_t *record)
{
    const char *digest = NULL;
    moe_record_text(reader, (moe_member){record, "machine", "machine"}, 64, true, &digest);
    return digest;
}

static void refuse_mixture(const moe_record_reader *reader, const char *digest)
{
    moe_record_refuse(reader, "machine",
                      "measured on machine %s, the file's first line says %s; "
                      "expected samples of one machine",
                      digest, reader->samples->machine.digest);
}

/* What an importer wrote stays imported. */
static int read_origin(const json_t *machine)
{
    const char *backend = json_string_value(json_object_get(machine, "backend"));
    return backend != NULL && strcmp(backend, "imported") == 0 ? MOE_IMPORTED : MOE_MEASURED;
}

static void read_machine(file_reader *file, const json_t *record)
{
    moe_record_reader *reader = &file->record;
    moe_sample_machine *machine = &reader->samples->machine;
    reader->noun = "a machine";
    const char *digest = read_digest(reader, record);
    if (file->has_machine) {
        if (digest != NULL && machine->digest != NULL && strcmp(digest, machine->digest) != 0)
            refuse_mixture(reader, digest);
        return;
    }
    file->has_machine = true;
    read_format(reader, record);
    read_counts(reader, record, machine);
    read_device(reader, record, machine);
    read_link(reader, record, "link", &machine->link_bytes_per_s, &machine->link_latency_s, NULL);
    read_link(reader, record, "nic", &machine->nic_bytes_per_s, &machine->nic_latency_s,
              &machine->nic_per_device);
    machine->nominal = is_nominal(record);
    machine->origin = read_origin(record);
    describe_machine(reader, record, machine);
    if (digest != NULL)
        machine->digest = moe_need(talloc_strdup(reader->samples, digest));
}

/* ---- samples --------------------------------------------------------------------------------- */

static bool read_places(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    const moe_sample_machine *machine = &reader->samples->machine;
    bool joint = sample->kind == MOE_SAMPLE_COLLECTIVE || sample->kind == MOE_SAMPLE_INTERFERENCE ||
                 sample->kind == MOE_SAMPLE_SHARING;
    double ranks = joint ? machine->ranks : 1, hosts = 1;
    bool fine = moe_record_count(reader, (moe_member){record, "ranks", "ranks"}, 1,
                                 MOE_SAMPLE_RANKS_MOST, false, &ranks);
    if (json_object_get(record, "hosts") == NULL && machine->devices_per_host > 0)
        hosts = ceil(ranks / machine->devices_per_host);
    fine &= moe_record_count(reader, (moe_member){record, "hosts", "hosts"}, 1,
                             MOE_SAMPLE_RANKS_MOST, false, &hosts);
    sample->ranks = (int)ranks;
    sample->hosts = (int)hosts;
    if (fine && sample->ranks > MOE_SAMPLE_RANKS_MOST) {
        moe_record_refuse(reader, NULL, "%d ranks; expected at most %d", sample->ranks,
                          MOE_SAMPLE_RANKS_MOST);
        return false;
    }
    if (fine && (sample->ranks % sample->hosts != 0 || sample->ranks > machine->ranks)) {
        moe_record_refuse(
            reader, "ranks",
            "%d ranks on %d hosts; expected as many on each, and at most the machine's %d",
            sample->ranks, sample->hosts, machine->ranks);
        return false;
    }
    return fine;
}

static bool read_times(const moe_record_reader *reader, const json_t *record, moe_sample *sample)
{
    size_t count;
    double *times = moe_record_times(reader, (moe_member){record, "times_s", "times_s"}, &count);
    if (times == NULL)
        return false;
    sample->seconds = moe_fit_median(times, count);
    sample->spread = moe_fit_quartile_spread(times, count);
    sample->repetitions = (int)count;
    return true;
}

/* Whether the measured operation computed what it should. */
static bool was_right(file_reader *file, const json_t *record)
{
    const json_t *check = json_object_get(record, "check");
    const json_t *error = json_object_get(check, "error"), *limit = json_object_get(check, "limit");
    if (!json_is_number(error) || !json_is_number(limit) ||
        json_number_value(error) <= json_number_value(limit))
        return true;
    if (file->wrong++ == 0)
        moe_diag_warning(file->record.diag, (moe_where){file->record.source, file->record.line, 1},
                         "its result was wrong by %.3g, more than %.3g; the sample is left out",
                         json_number_value(error), json_number_value(limit));
    return false;
}

static void keep_id(file_reader *file, const char *id)
{
    size_t count = file->record.samples->count, capacity = talloc_array_length(file->ids);
    if (count > capacity)
        file->ids =
            moe_need(talloc_realloc(NULL, file->ids, const char *, capacity ? 2 * capacity : 64));
    file->ids[count - 1] = moe_need(talloc_strdup(file->record.samples, id));
}

static bool belongs(const moe_record_reader *reader, const json_t *record)
{
    const char *digest = read_digest(reader, record);
    const char *machine = reader->samples->machine.digest;
    if (digest == NULL || machine == NULL)
        return false;
    if (strcmp(digest, machine) != 0)
        refuse_mixture(reader, digest);
    return strcmp(digest, machine) == 0;
}

static void read_sample(file_reader *file, const json_t *record)
{
    moe_record_reader *reader = &file->record;
    const char *id = NULL;
    reader->noun = "a sample";
    moe_sample sample = {.line = reader->line, .dtype = ""};
    int kind =
        moe_record_choice(reader, (moe_member){record, "kind", "kind"}, moe_sample_kind_names);
    bool fine = belongs(reader, record) && kind >= 0;
    fine &= moe_record_text(reader, (moe_member){record, "id", "id"}, ID_BYTES, true, &id);
    fine &= read_times(reader, record, &sample);
    sample.kind = kind < 0 ? MOE_SAMPLE_GEMM : (moe_sample_kind)kind;
    fine = fine && read_places(reader, record, &sample);
    sample.throttled =
        json_is_true(json_object_get(json_object_get(record, "conditions"), "throttled"));
    if (!fine || !moe_sample_read_kind(reader, record, &sample) || !was_right(file, record))
        return;
    moe_samples_add(reader->samples, &sample);
    keep_id(file, id);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void read_record(file_reader *file, const json_t *record)
{
    static const char *const records[] = {"machine", "sample", NULL};
    moe_record_reader *reader = &file->record;
    reader->noun = "a line";
    if (!json_is_object(record)) {
        moe_record_refuse(reader, NULL,
                          "a line that is no JSON object; expected a machine or a sample");
        return;
    }
    int kind = moe_record_choice(reader, (moe_member){record, "record", "record"}, records);
    if (kind == 0)
        read_machine(file, record);
    else if (kind == 1 && file->has_machine)
        read_sample(file, record);
    if (kind == 0 || file->has_machine)
        return;
    if (kind == 1)
        moe_record_refuse(reader, NULL,
                          "a sample before the machine that it was measured on; "
                          "expected the machine in the first line");
    file->stopped = true;
}

/* A line that a killed run left unfinished. */
static void warn_of_truncation(file_reader *file)
{
    moe_diag_warning(file->record.diag, (moe_where){file->record.source, file->record.line, 1},
                     "the last line is not complete (a run that was killed?); it is left out");
    file->record.samples->warnings++;
}

static void refuse_json(const file_reader *file, const json_error_t *error)
{
    int column = error->column > 0 ? error->column : 1;
    moe_diag_error(file->record.diag, (moe_where){file->record.source, file->record.line, column},
                   "no JSON: %.120s; expected one object a line", error->text);
}

static void read_line(file_reader *file, const char *text, size_t length, bool complete)
{
    json_error_t error;
    if (length > LINE_BYTES) {
        moe_diag_error(file->record.diag, (moe_where){file->record.source, file->record.line, 0},
                       "a line of %zu bytes; expected at most %d", length, LINE_BYTES);
        return;
    }
    json_t *record = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    file->record.text = text;
    file->record.length = length;
    if (record == NULL && !complete && file->has_machine)
        warn_of_truncation(file);
    else if (record == NULL)
        refuse_json(file, &error);
    else
        read_record(file, record);
    json_decref(record);
    talloc_free_children(file->record.scratch);
}

static bool is_blank(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    }
    return true;
}

static void read_lines(file_reader *file, const char *text, size_t length)
{
    const char *end = text + length;
    while (text < end && !file->stopped) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *line_end = newline != NULL ? newline : end;
        file->record.line++;
        if (!is_blank(text, (size_t)(line_end - text)))
            read_line(file, text, (size_t)(line_end - text), newline != NULL);
        text = newline != NULL ? newline + 1 : end;
        if (file->record.samples->count > SAMPLES_MOST) {
            moe_diag_error(file->record.diag,
                           (moe_where){file->record.source, file->record.line, 0},
                           "more than %d samples", SAMPLES_MOST);
            file->stopped = true;
        }
    }
}

/* ---- the same point twice -------------------------------------------------------------------- */

typedef struct named_sample {
    const char *id;
    const moe_sample *sample;
} named_sample;

static int by_id(const void *left, const void *right)
{
    const named_sample *a = left, *b = right;
    int order = strcmp(a->id, b->id);
    return order != 0 ? order : (a->sample > b->sample) - (a->sample < b->sample);
}

static void check_pair(const file_reader *file, const named_sample *first,
                       const named_sample *again)
{
    double ratio = again->sample->seconds / first->sample->seconds;
    if (strcmp(first->id, again->id) != 0 || (ratio <= 2 && ratio >= 0.5))
        return;
    moe_diag_error(
        file->record.diag, (moe_where){file->record.source, again->sample->line, 1},
        "\"%.120s\" took %.4g s here and %.4g s before; expected less than a factor of 2 "
        "between two measurements of one point",
        again->id, again->sample->seconds, first->sample->seconds);
    moe_diag_note(file->record.diag, (moe_where){file->record.source, first->sample->line, 1},
                  "first measured here");
}

static void check_duplicates(const file_reader *file)
{
    const moe_samples *samples = file->record.samples;
    named_sample *named =
        moe_need(talloc_array(file->record.scratch, named_sample, samples->count));
    for (size_t i = 0; i < samples->count; i++)
        named[i] = (named_sample){file->ids[i], &samples->items[i]};
    qsort(named, samples->count, sizeof *named, by_id);
    for (size_t i = 1; i < samples->count; i++)
        check_pair(file, &named[i - 1], &named[i]);
}

/* ---- whole files ----------------------------------------------------------------------------- */

static void check_whole(file_reader *file)
{
    const moe_record_reader *reader = &file->record;
    const moe_where whole = {reader->source, 0, 0};
    if (failed(file))
        return;
    if (!file->has_machine)
        moe_diag_error(reader->diag, whole,
                       "is empty; expected the machine in the first line, then samples");
    else if (reader->samples->count == 0)
        moe_diag_error(reader->diag, whole, "holds a machine, but no samples");
    else
        check_duplicates(file);
    if (file->wrong > 1)
        moe_diag_warning(reader->diag, whole, "%zu samples with wrong results were left out in all",
                         file->wrong);
    reader->samples->warnings += file->wrong;
}

moe_samples *moe_samples_parse(void *owner, const char *name, const char *text, size_t length,
                               moe_diag *diag)
{
    moe_samples *samples = moe_samples_create(owner);
    file_reader file = {
        .record = {.samples = samples,
                   .scratch = moe_need(talloc_new(NULL)),
                   .source = moe_diag_source(diag, name, text, length),
                   .diag = diag},
        .errors_before = moe_diag_error_count(diag),
    };
    read_lines(&file, text, length);
    check_whole(&file);
    talloc_free(file.record.scratch);
    talloc_free(file.ids);
    if (!failed(&file))
        return samples;
    talloc_free(samples);
    return NULL;
}

moe_samples *moe_samples_read(void *owner, const char *path, moe_diag *diag)
{
    size_t length;
    char *text = moe_input_read(NULL, path, SIZE_MAX, &length, (moe_where){0}, diag);
    if (text == NULL)
        return NULL;
    moe_samples *samples = moe_samples_parse(owner, path, text, length, diag);
    talloc_free(text);
    return samples;
}
