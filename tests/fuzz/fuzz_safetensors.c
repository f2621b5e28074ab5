/* Any bytes as a trace: refused, or every dispatch can be checked and read. */
#include "traces/safetensors.h"
#include "traces/trace.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <talloc.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* Traces are opened by path: a file that exists in memory only. */
static void try_trace(void *owner, moe_diag *diag, const uint8_t *bytes, size_t length)
{
    const int fd = memfd_create("trace", MFD_CLOEXEC);
    char *path = talloc_asprintf(owner, "/proc/self/fd/%d", fd);
    if (fd < 0 || write(fd, bytes, length) != (ssize_t)length)
        abort();
    const moe_trace *trace = moe_trace_open(owner, path, (moe_where){0}, diag);
    if (trace != NULL)
        moe_trace_check(trace, diag);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    void *owner = talloc_new(NULL);
    moe_diag *diag = moe_diag_create(owner, NULL);
    const moe_safetensors *file = moe_safetensors_parse(owner, bytes, length, (moe_where){0}, diag);
    if ((file == NULL) != (moe_diag_error_count(diag) > 0))
        abort(); /* refused without a word, or a message about nothing */
    if (file != NULL)
        try_trace(owner, diag, bytes, length);
    talloc_free(owner);
    return 0;
}
