/* Reading one record of a samples file: values with their ranges, and messages that point at them.
 * Private to calibrate/fit. */
#ifndef MOE_CALIBRATE_FIT_SAMPLES_READER_H
#define MOE_CALIBRATE_FIT_SAMPLES_READER_H

#include "calibrate/fit/samples.h"

enum {
    MOE_SAMPLE_EXPERTS_MOST = 65536,
    MOE_SAMPLE_RANKS_MOST = 1024,
    MOE_SAMPLE_CHUNKS_MOST = 65536
};
#define MOE_SAMPLE_SIZE_MOST  0x1p40 /* bytes, and any count of rows or columns */
#define MOE_SAMPLE_TIME_LEAST 1e-9   /* seconds; 0 is no measurement */
#define MOE_SAMPLE_TIME_MOST  1e4

typedef struct moe_record_reader {
    moe_samples *samples;
    void *scratch; /* of one record */
    const moe_source *source;
    moe_diag *diag;
    int line;
    const char *text; /* of the line */
    size_t length;
    const char *noun; /* "a gemm": what a message says a key is missing from */
} moe_record_reader;

/* A member of a record: `object` and the key in it; `path` names it in messages. */
typedef struct moe_member {
    const json_t *object;
    const char *key;
    const char *path;
} moe_member;

/* The caret goes under the first `"key"` of the line; NULL: under its first character. */
__attribute__((format(printf, 3, 4))) void
moe_record_refuse(const moe_record_reader *reader, const char *key, const char *format, ...);

/* Each returns false after a message; where `required` is false, an absent key leaves *value as it is. */
bool moe_record_number(const moe_record_reader *reader, moe_member member, double low, double high,
                       bool required, double *value);
bool moe_record_count(const moe_record_reader *reader, moe_member member, double low, double high,
                      bool required, double *value);
bool moe_record_flag(const moe_record_reader *reader, moe_member member, bool *value);
/* Printable text of at most `most` bytes; borrowed from the record. */
bool moe_record_text(const moe_record_reader *reader, moe_member member, size_t most, bool required,
                     const char **value);
/* One of `names`, or -1 after a message. */
int moe_record_choice(const moe_record_reader *reader, moe_member member, const char *const *names);
/* An object, or NULL after a message. */
const json_t *moe_record_object(const moe_record_reader *reader, moe_member member);

/* The array's numbers, each low to high; NULL after a message. Owned by the scratch. */
double *moe_record_numbers(const moe_record_reader *reader, moe_member member, size_t most,
                           double low, double high, size_t *count);

/* The same for seconds. */
double *moe_record_times(const moe_record_reader *reader, moe_member member, size_t *count);

/* The samples of one kind: keys beside the common ones, into `sample`. samples_kinds.c */
bool moe_sample_read_kind(const moe_record_reader *reader, const json_t *record,
                          moe_sample *sample);

#endif
