/* Any bytes as a timeline: refused, or summarized and printed. */
#include "reports/timeline_summarize.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <talloc.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char path[40];
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, NULL);
    int file = memfd_create("timeline", MFD_CLOEXEC);
    FILE *nowhere = fopen("/dev/null", "w");
    if (file < 0 || nowhere == NULL || write(file, bytes, length) != (ssize_t)length)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    json_t *summary = moe_timeline_summarize(path, diag);
    if ((summary != NULL) == (moe_diag_error_count(diag) > 0))
        abort(); /* refused without a word, or a message about nothing */
    if (summary != NULL)
        moe_timeline_print_summary(summary, nowhere);
    json_decref(summary);
    fclose(nowhere);
    close(file);
    talloc_free(owner);
    return 0;
}
