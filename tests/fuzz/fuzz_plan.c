/* Any bytes as a plan: refused, or written and read again the same, and not different from itself. */
#include "models/plan.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <talloc.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* A file in memory that has a path; closed by the caller. */
static int file_of(const void *bytes, size_t length, char path[static 40])
{
    int file = memfd_create("plan", MFD_CLOEXEC);
    if (file < 0 || write(file, bytes, length) != (ssize_t)length)
        abort();
    snprintf(path, 40, "/proc/self/fd/%d", file);
    return file;
}

static moe_plan *read_bytes(void *owner, const void *bytes, size_t length)
{
    char path[40];
    int file = file_of(bytes, length, path);
    moe_diag *diag = moe_diag_create(owner, NULL);
    moe_plan *plan = moe_plan_read(owner, path, (moe_where){0}, diag);
    if ((plan != NULL) == (moe_diag_error_count(diag) > 0))
        abort(); /* refused without a word, or a message about nothing */
    close(file);
    return plan;
}

static void check_round_trip(void *owner, const moe_plan *plan)
{
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    moe_plan_write(plan, stream);
    fclose(stream);
    const moe_plan *again = read_bytes(owner, text, length);
    if (again == NULL || !moe_placement_equal(plan->placement, again->placement))
        abort();
    json_decref(moe_plan_difference(plan, again));
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    void *owner = talloc_new(NULL);
    const moe_plan *plan = read_bytes(owner, bytes, length);
    if (plan != NULL)
        check_round_trip(owner, plan);
    talloc_free(owner);
    return 0;
}
