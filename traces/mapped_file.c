#include "traces/mapped_file.h"

#include "configs/base/memory.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <talloc.h>
#include <unistd.h>

static int file_unmap(moe_mapped_file *file)
{
    return munmap((void *)file->bytes, file->length);
}

/* NULL for a regular file with something in it. */
static const char *why_not(const struct stat *status)
{
    if (S_ISDIR(status->st_mode))
        return "a folder";
    if (!S_ISREG(status->st_mode))
        return "no regular file";
    return status->st_size == 0 ? "empty" : NULL;
}

static moe_mapped_file *map(void *owner, int fd, const char *path, moe_where named_at,
                            moe_diag *diag)
{
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        moe_diag_error(diag, named_at, "cannot open \"%s\": %s", path, strerror(errno));
        return NULL;
    }
    if (why_not(&status) != NULL) {
        moe_diag_error(diag, named_at, "\"%s\" is %s; expected a recording", path,
                       why_not(&status));
        return NULL;
    }
    const size_t length = (size_t)status.st_size;
    void *bytes = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) {
        moe_diag_error(diag, named_at, "cannot map \"%s\": %s", path, strerror(errno));
        return NULL;
    }
    madvise(bytes, length, MADV_SEQUENTIAL);
    moe_mapped_file *file = moe_need(talloc_zero(owner, moe_mapped_file));
    *file = (moe_mapped_file){bytes, length, {.source = moe_diag_source(diag, path, NULL, 0)}};
    talloc_set_destructor(file, file_unmap);
    return file;
}

moe_mapped_file *moe_mapped_file_open(void *owner, const char *path, moe_where named_at,
                                      moe_diag *diag)
{
    /* O_NONBLOCK: opening a pipe must not wait for its writer; on regular files it does nothing. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    moe_mapped_file *file = map(owner, fd, path, named_at, diag);
    if (fd >= 0)
        close(fd);
    return file;
}
