#include "calibrate/measure/suite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

moecal_suite *moecal_suite_create(const char *name)
{
    moecal_suite *suite = calloc(1, sizeof *suite);
    if (!suite)
        abort();
    snprintf(suite->name, sizeof suite->name, "%s", name);
    suite->ids = json_object();
    return suite;
}

void moecal_suite_free(moecal_suite *suite)
{
    if (!suite)
        return;
    for (size_t i = 0; i < suite->count; i++)
        moecal_point_free(suite->points[i]);
    free(suite->points);
    json_decref(suite->ids);
    free(suite);
}

static void grow(moecal_suite *suite)
{
    suite->capacity = suite->capacity ? 2 * suite->capacity : 64;
    suite->points = realloc(suite->points, suite->capacity * sizeof *suite->points);
    if (!suite->points)
        abort();
}

void moecal_suite_add(moecal_suite *suite, moecal_point *point)
{
    if (json_object_get(suite->ids, point->id)) {
        moecal_point_free(point);
        return;
    }
    json_object_set_new(suite->ids, point->id, json_true());
    if (suite->count == suite->capacity)
        grow(suite);
    suite->points[suite->count++] = point;
}

/* --- files ------------------------------------------------------------------------------------ */

static int check_head(const char *name, const json_t *root, FILE *errors)
{
    const char *format = json_string_value(json_object_get(root, "format"));
    const json_t *version = json_object_get(root, "version"),
                 *points = json_object_get(root, "points");
    int wrong = 0;
    if (!format || strcmp(format, "moecal-suite") != 0)
        wrong += fprintf(errors, "%s: error: \"format\" is not \"moecal-suite\"\n", name) > 0;
    if (json_integer_value(version) != 1)
        wrong += fprintf(errors, "%s: error: \"version\" is not 1, which this program reads\n",
                         name) > 0;
    if (!json_is_array(points))
        wrong += fprintf(errors, "%s: error: \"points\" is not an array\n", name) > 0;
    else if (json_array_size(points) == 0 || json_array_size(points) > MOECAL_MAX_POINTS)
        wrong += fprintf(errors, "%s: error: %zu points, expected 1 to %d\n", name,
                         json_array_size(points), MOECAL_MAX_POINTS) > 0;
    return wrong;
}

static int add_points(moecal_suite *suite, const char *name, const json_t *points, FILE *errors)
{
    int wrong = 0;
    size_t index;
    json_t *value;
    json_array_foreach(points, index, value)
    {
        char error[512];
        moecal_point *point = moecal_point_parse(value, error, sizeof error);
        if (point)
            moecal_suite_add(suite, point);
        else
            wrong += fprintf(errors, "%s: error: point %zu: %s\n", name, index, error) > 0;
    }
    return wrong;
}

moecal_suite *moecal_suite_parse(const char *name, const char *text, size_t length, FILE *errors)
{
    json_error_t error;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    moecal_suite *suite = NULL;
    if (!root) {
        fprintf(errors, "%s:%d:%d: error: %s\n", name, error.line, error.column, error.text);
        return NULL;
    }
    if (check_head(name, root, errors) == 0) {
        const char *title = json_string_value(json_object_get(root, "name"));
        suite = moecal_suite_create(title ? title : "unnamed");
        if (add_points(suite, name, json_object_get(root, "points"), errors) > 0) {
            moecal_suite_free(suite);
            suite = NULL;
        }
    }
    json_decref(root);
    return suite;
}

/* The whole file, or NULL with errno. */
static char *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    struct stat status;
    char *text = NULL;
    if (!file)
        return NULL;
    if (fstat(fileno(file), &status) != 0 || S_ISDIR(status.st_mode)) {
        errno = S_ISDIR(status.st_mode) ? EISDIR : errno;
    } else if (!(text = malloc(MOECAL_MAX_SUITE_BYTES + 1))) {
        errno = ENOMEM;
    } else {
        *length = fread(text, 1, MOECAL_MAX_SUITE_BYTES + 1, file);
    }
    int error = errno;
    fclose(file);
    errno = error;
    return text;
}

moecal_suite *moecal_suite_read(const char *path, FILE *errors)
{
    size_t length = 0;
    char *text = read_file(path, &length);
    moecal_suite *suite = NULL;
    if (!text)
        fprintf(errors, "%s: error: %s\n", path, strerror(errno));
    else if (length > MOECAL_MAX_SUITE_BYTES)
        fprintf(errors, "%s: error: more than %d bytes\n", path, MOECAL_MAX_SUITE_BYTES);
    else
        suite = moecal_suite_parse(path, text, length, errors);
    free(text);
    return suite;
}
