#include "configs/base/input.h"
#include "configs/base/memory.h"
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <talloc.h>
#include <unistd.h>
#include <zlib.h>

/* talloc's own limit on one piece (256 MiB) less its header. */
enum { LARGEST_BYTES = 255 * 1024 * 1024 };

/* The size of what `file` opened, or -1 after an error. */
static int64_t checked_size(int file, const char *path, size_t limit_bytes, moe_where where,
                            moe_diag *diag)
{
    struct stat status;
    if (fstat(file, &status) != 0) {
        moe_diag_error(diag, where, "cannot read \"%s\": %s", path, strerror(errno));
    } else if (S_ISDIR(status.st_mode)) {
        moe_diag_error(diag, where, "\"%s\" is a folder; expected a file", path);
    } else if (!S_ISREG(status.st_mode)) {
        moe_diag_error(diag, where, "\"%s\" is not a regular file; expected one", path);
    } else if ((uint64_t)status.st_size > limit_bytes) {
        moe_diag_error(diag, where, "\"%s\" has %lld bytes; expected at most %zu", path,
                       (long long)status.st_size, limit_bytes);
    } else {
        return status.st_size;
    }
    return -1;
}

/* Fills up to `size` bytes; returns how many there were, or -1 with errno. */
static ssize_t read_all(int file, char *bytes, size_t size)
{
    size_t filled = 0;
    while (filled < size) {
        const ssize_t count = read(file, bytes + filled, size - filled);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return -1;
        }
        if (count == 0) { /* truncated since fstat */
            break;
        }
        filled += (size_t)count;
    }
    return (ssize_t)filled;
}

static char *read_open(void *owner, int file, const char *path, size_t limit_bytes, size_t *length,
                       moe_where where, moe_diag *diag)
{
    const size_t limit = limit_bytes < LARGEST_BYTES ? limit_bytes : LARGEST_BYTES;
    const int64_t size = checked_size(file, path, limit, where, diag);
    if (size < 0) {
        return NULL;
    }
    char *text = moe_need(talloc_size(owner, (size_t)size + 1));
    const ssize_t filled = read_all(file, text, (size_t)size);
    if (filled < 0) {
        moe_diag_error(diag, where, "cannot read \"%s\": %s", path, strerror(errno));
        talloc_free(text);
        return NULL;
    }
    text[filled] = '\0';
    *length = (size_t)filled;
    return text;
}

char *moe_input_read(void *owner, const char *path, size_t limit_bytes, size_t *length,
                     moe_where named_at, moe_diag *diag)
{
    /* Without O_NONBLOCK, opening a pipe that nobody writes to would hang before it can be refused.
     */
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) {
        moe_diag_error(diag, named_at, "cannot open \"%s\": %s", path, strerror(errno));
        return NULL;
    }
    char *text = read_open(owner, file, path, limit_bytes, length, named_at, diag);
    close(file);
    return text;
}

char *moe_input_resolve(void *owner, const char *from, const char *path)
{
    const char *slash = from ? strrchr(from, '/') : NULL;
    if (path[0] == '/' || !slash) {
        return moe_need(talloc_strdup(owner, path));
    }
    return moe_need(talloc_asprintf(owner, "%.*s/%s", (int)(slash - from), from, path));
}

void moe_digest(const void *bytes, size_t length, char hex[static 9])
{
    const uLong crc = crc32_z(crc32_z(0, NULL, 0), bytes, length);
    snprintf(hex, 9, "%08lx", crc & 0xffffffffUL);
}
