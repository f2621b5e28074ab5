#include "configs/base/output.h"
#include "configs/base/memory.h"
#include "configs/base/signals.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <talloc.h>
#include <unistd.h>

struct moe_output {
    char *path;      /* as the user named it: for messages */
    char *target;    /* where the bytes end up: `path` with symbolic links followed */
    char *temporary; /* NULL: a device or pipe, written directly */
    FILE *stream;
    int slot;      /* in the table of files that a signal removes */
    pid_t process; /* a forked child frees its copy without touching the parent's file */
};

static moe_where nowhere(void)
{
    return (moe_where){.source = NULL};
}

static void report(moe_diag *diag, const char *verb, const char *path, int reason)
{
    moe_diag_error(diag, nowhere(), "cannot %s \"%s\": %s", verb, path, strerror(reason));
}

/* Closes and removes what is left of an output that was not committed. */
static void discard(moe_output *output)
{
    if (output->stream) {
        fclose(output->stream);
        output->stream = NULL;
    }
    if (output->temporary && output->process == getpid()) {
        unlink(output->temporary);
        moe_signals_remove_file(output->slot);
        output->temporary = NULL;
    }
}

static int destroy(moe_output *output)
{
    discard(output);
    return 0;
}

/* Sets the target; true when it is something other than a file (a device, a pipe). */
static bool resolve_target(moe_output *output, const char *path)
{
    struct stat status;
    char real[PATH_MAX];
    const bool exists = stat(path, &status) == 0;
    if (exists && S_ISREG(status.st_mode) && realpath(path, real)) {
        output->target = moe_need(talloc_strdup(output, real));
        return false;
    }
    output->target = moe_need(talloc_strdup(output, path));
    return exists && !S_ISREG(status.st_mode);
}

/* A new file in the target's folder, so that the rename stays on one file system. */
static int open_temporary(moe_output *output)
{
    if (output->target[0] == '\0') {
        errno = ENOENT;
        return -1;
    }
    const char *slash = strrchr(output->target, '/');
    const int folder = slash ? (int)(slash - output->target) + 1 : 0;
    for (unsigned attempt = 0; attempt < 10000; attempt++) {
        char *name = moe_need(talloc_asprintf(output, "%.*s.moeplan-%ld-%u.tmp", folder,
                                              output->target, (long)getpid(), attempt));
        /* Remembered before it exists: a signal in between unlinks nothing, or ours. */
        output->slot = moe_signals_add_file(name);
        const int file = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file >= 0) {
            output->temporary = name;
            return file;
        }
        moe_signals_remove_file(output->slot);
        talloc_free(name);
        if (errno != EEXIST) {
            break;
        }
    }
    return -1;
}

moe_output *moe_output_open(void *owner, const char *path, moe_diag *diag)
{
    moe_output *output = moe_need(talloc_zero(owner, moe_output));
    output->path = moe_need(talloc_strdup(output, path));
    output->slot = -1;
    output->process = getpid();
    talloc_set_destructor(output, destroy);
    const bool direct = resolve_target(output, path);
    /* O_WRONLY on a folder fails with "Is a directory", which is the message it needs. */
    const int file = direct ? open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY) : open_temporary(output);
    if (file < 0) {
        report(diag, "create", path, errno);
        talloc_free(output);
        return NULL;
    }
    output->stream = fdopen(file, "w");
    if (!output->stream) {
        close(file);
        moe_out_of_memory();
    }
    return output;
}

FILE *moe_output_stream(moe_output *output)
{
    return output->stream;
}

/* The stream remembers that a write failed but not why; one more byte to the doomed file asks
 * again. */
static int forgotten_reason(const moe_output *output)
{
    if (output->temporary && write(fileno(output->stream), "\n", 1) < 0) {
        return errno;
    }
    return EIO;
}

/* Everything on the medium and the stream closed: 0, or the errno of the first failure. */
static int finish_stream(moe_output *output)
{
    const int file = fileno(output->stream);
    const bool failed_before = ferror(output->stream);
    int reason = failed_before ? forgotten_reason(output) : fflush(output->stream) != 0 ? errno : 0;
    if (reason == 0 && output->temporary && fsync(file) != 0) {
        reason = errno;
    }
    if (fclose(output->stream) != 0 && reason == 0) {
        reason = errno;
    }
    output->stream = NULL;
    return reason;
}

/* The new name survives a power cut only when the folder is synced too; no harm where that fails.
 */
static void sync_folder(const moe_output *output)
{
    const char *slash = strrchr(output->target, '/');
    char *folder =
        slash ? moe_need(talloc_strndup(NULL, output->target, (size_t)(slash - output->target + 1)))
              : moe_need(talloc_strdup(NULL, "."));
    const int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file >= 0) {
        fsync(file);
        close(file);
    }
    talloc_free(folder);
}

moe_status moe_output_commit(moe_output *output, moe_diag *diag)
{
    int reason = finish_stream(output);
    if (reason == 0 && output->temporary) {
        if (rename(output->temporary, output->target) != 0) {
            reason = errno;
        } else {
            moe_signals_remove_file(output->slot);
            output->temporary = NULL;
            sync_folder(output);
        }
    }
    if (reason != 0) {
        report(diag, "write", output->path, reason);
    }
    talloc_free(output);
    return reason == 0 ? MOE_OK : MOE_INTERNAL;
}

void moe_output_abort(moe_output *output)
{
    talloc_free(output);
}

/* One folder; fine if it is there already. */
static moe_status create_one(const char *path, moe_diag *diag)
{
    struct stat status;
    if (mkdir(path, 0777) == 0) {
        return MOE_OK;
    }
    const int reason = errno;
    if (stat(path, &status) == 0) {
        if (S_ISDIR(status.st_mode)) {
            return MOE_OK;
        }
        moe_diag_error(diag, nowhere(), "\"%s\" is a file; expected a folder", path);
        return MOE_BAD_INPUT;
    }
    report(diag, "create folder", path, reason);
    return MOE_BAD_INPUT;
}

moe_status moe_folder_create(const char *path, moe_diag *diag)
{
    char *partial = moe_need(talloc_strdup(NULL, path));
    moe_status status = MOE_OK;
    for (char *slash = strchr(partial + (partial[0] == '/'), '/'); slash && status == MOE_OK;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        status = create_one(partial, diag);
        *slash = '/';
    }
    if (status == MOE_OK) {
        status = create_one(partial, diag);
    }
    talloc_free(partial);
    return status;
}
