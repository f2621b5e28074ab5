/* A folder of bad inputs, each named after its defect, beside the first message it must give. */
#ifndef MOE_TESTS_BAD_FILES_H
#define MOE_TESTS_BAD_FILES_H

#include "tests/program.h"

#include "configs/base/diag.h"
#include <dirent.h>
#include <talloc.h>

/* Reads `path`; true where it is refused, as it must be. */
typedef bool (*bad_file_reader)(void *owner, const char *path, moe_diag *diag);

/* The first message, without the path. */
static inline char *bad_file_message(const char *path, bad_file_reader refuses)
{
    void *owner = talloc_new(NULL);
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    moe_diag *diag = moe_diag_create(owner, stream);
    assert_true(refuses(owner, path, diag));
    assert_true(moe_diag_error_count(diag) > 0);
    talloc_free(owner);
    fclose(stream);
    text[strcspn(text, "\n")] = '\0';
    assert_true(strncmp(text, path, strlen(path)) == 0);
    memmove(text, text + strlen(path), strlen(text + strlen(path)) + 1);
    return text;
}

static inline void bad_file_check(const char *folder, const char *stem, const char *suffix,
                                  bad_file_reader refuses)
{
    char path[600], expected_path[600];
    snprintf(path, sizeof path, "%s/%s%s", folder, stem, suffix);
    snprintf(expected_path, sizeof expected_path, "%s/%s.expected", folder, stem);
    char *expected = program_read(expected_path);
    char *found = bad_file_message(path, refuses);
    expected[strcspn(expected, "\n")] = '\0';
    if (strcmp(found, expected) != 0)
        fail_msg("%s\nfound:    %s\nexpected: %s", stem, found, expected);
    free(expected);
    free(found);
}

/* Every file of `folder` that ends in `suffix` (".json") but "sound"; there are `least` or more. */
static inline void bad_files_check(const char *folder, const char *suffix, bad_file_reader refuses,
                                   int least)
{
    int checked = 0;
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    for (const struct dirent *entry = readdir(listing); entry; entry = readdir(listing)) {
        char stem[256];
        snprintf(stem, sizeof stem, "%s", entry->d_name);
        char *dot = strstr(stem, suffix);
        if (dot == NULL)
            continue;
        *dot = '\0';
        if (strcmp(stem, "sound") == 0)
            continue;
        bad_file_check(folder, stem, suffix, refuses);
        checked++;
    }
    closedir(listing);
    assert_true(checked >= least);
}

#endif
