/* Any bytes as a suite of points: refused with a word, or every point survives a trip through JSON. */
#include "calibrate/measure/suite.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_point(const moecal_point *point)
{
    char error[512] = "";
    json_t *object = moecal_point_json(point);
    moecal_point *again = moecal_point_parse(object, error, sizeof error);
    if (!again || strcmp(again->id, point->id) != 0) {
        fprintf(stderr, "%s does not come back: %s\n", point->id, again ? again->id : error);
        abort();
    }
    if (!(moecal_point_bytes(point) >= 0) || !(moecal_point_flop(point) >= 0))
        abort();
    moecal_point_free(again);
    json_decref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *said = NULL;
    size_t length = 0;
    FILE *errors = open_memstream(&said, &length);
    moecal_suite *suite = moecal_suite_parse("fuzz", (const char *)data, size, errors);
    fclose(errors);
    if ((suite == NULL) != (length > 0))
        abort(); /* refused without a word, or a message about nothing */
    for (size_t i = 0; suite && i < suite->count; i++)
        check_point(suite->points[i]);
    moecal_suite_free(suite);
    free(said);
    return 0;
}
