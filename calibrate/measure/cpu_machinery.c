/* Launches (a CPU's are calls of a function) and copies. */
#include "calibrate/measure/cpu_job.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* --- launches --------------------------------------------------------------------------------- */

typedef void kernel(float *value);

static void smallest_kernel(float *value)
{
    *value += 1;
}

/* Whom to call is not known when this is compiled. */
static kernel *volatile launched = smallest_kernel;

static void launch_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    volatile float seen = 0;
    float *counter = moecal_cpu_results(job, set);
    (void)alone;
    *counter = 0;
    double start_s = moecal_cpu_now_s();
    for (int64_t i = 0; i < job->point->kernels; i++) {
        launched(counter);
        if (job->point->mode == 2) /* waited for: its result is looked at */
            seen = *counter;
    }
    *time = moecal_cpu_since(start_s);
    (void)seen;
}

static double launch_error(moecal_cpu_job *job)
{
    return fabs(*moecal_cpu_results(job, 0) / (double)job->point->kernels - 1);
}

/* --- copies ----------------------------------------------------------------------------------- */

static size_t copied_bytes(const moecal_cpu_job *job)
{
    return (size_t)job->point->bytes;
}

static void memory_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    const float *from = moecal_cpu_inputs(job, set);
    float *to = moecal_cpu_results(job, set);
    (void)alone;
    double start_s = moecal_cpu_now_s();
    memcpy(to, from, copied_bytes(job));
    *time = moecal_cpu_since(start_s);
}

static double memory_error(moecal_cpu_job *job)
{
    return memcmp(moecal_cpu_inputs(job, 0), moecal_cpu_results(job, 0), copied_bytes(job)) != 0;
}

static int write_all(int file, const char *bytes, size_t count)
{
    for (size_t at = 0; at < count;) {
        ssize_t written = pwrite(file, bytes + at, count - at, (off_t)at);
        if (written <= 0 && errno != EINTR)
            return -1;
        at += written > 0 ? (size_t)written : 0;
    }
    return fdatasync(file);
}

static int read_all(int file, char *bytes, size_t count)
{
    for (size_t at = 0; at < count;) {
        ssize_t got = pread(file, bytes + at, count - at, (off_t)at);
        if (got == 0 || (got < 0 && errno != EINTR))
            return -1;
        at += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

/* A read finds nothing in memory, a write is on disk when it is over. One that fails took no time,
 * which is an error to the driver. */
static void storage_once(moecal_cpu_job *job, int64_t set, int alone, moecal_time *time)
{
    int file = *(const int *)job->details, failed;
    bool reads = job->point->direction == 2;
    const char *from = (const char *)moecal_cpu_inputs(job, set);
    char *to = (char *)moecal_cpu_results(job, set);
    (void)alone;
    if (reads)
        posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    double start_s = moecal_cpu_now_s();
    failed =
        reads ? read_all(file, to, copied_bytes(job)) : write_all(file, from, copied_bytes(job));
    *time = moecal_cpu_since(start_s);
    if (failed)
        time->total_s = -INFINITY;
}

/* The file holds what was written last: set 0, or what prepare wrote. */
static double storage_error(moecal_cpu_job *job)
{
    int file = *(const int *)job->details;
    char *bytes = malloc(copied_bytes(job));
    if (!bytes || read_all(file, bytes, copied_bytes(job)) != 0) {
        free(bytes);
        return INFINITY;
    }
    const void *other = job->point->direction == 2 ? (const void *)moecal_cpu_results(job, 0)
                                                   : (const void *)moecal_cpu_inputs(job, 0);
    int differs = memcmp(bytes, other, copied_bytes(job)) != 0;
    free(bytes);
    return differs;
}

static void storage_free(moecal_cpu_job *job)
{
    if (*(int *)job->details >= 0)
        close(*(int *)job->details);
    free(job->details);
}

static const char *temporary_folder(void)
{
    const char *folder = getenv("TMPDIR");
    return folder && *folder ? folder : "/tmp";
}

/* It has no name, so nothing is left behind. */
static int temporary_file(char *error, size_t error_size)
{
    char path[4096];
    snprintf(path, sizeof path, "%.4000s/moecal-XXXXXX", temporary_folder());
    int file = mkostemp(path, O_CLOEXEC);
    if (file < 0)
        snprintf(error, error_size, "no file in %.200s: %s", temporary_folder(), strerror(errno));
    else
        unlink(path);
    return file;
}

/* Values that no index of the pool has to be known for. */
static int fill_file(int file, size_t bytes, char *error, size_t error_size)
{
    char *random = malloc(bytes);
    for (size_t i = 0; random && i < bytes; i++)
        random[i] = (char)(127 * moecal_cpu_random(0, (int64_t)i));
    int failed = !random || write_all(file, random, bytes) != 0;
    if (failed)
        snprintf(error, error_size, "a file of %zu bytes could not be written: %s", bytes,
                 strerror(errno));
    free(random);
    return failed ? -1 : 0;
}

/* Before anything is written: the file, in the folder; four buffers of its size, two of which the check takes. */
static int storage_has_room(const moecal_cpu_job *job, char *error, size_t error_size)
{
    struct statvfs seen;
    double bytes = (double)copied_bytes(job) * job->cpu->world.devices_per_host;
    if (copied_bytes(job) / sizeof(float) > (size_t)moecal_cpu_free_values(&job->cpu->world) / 4)
        snprintf(error, error_size, "it needs 4 times %.3g bytes of memory, which are not free",
                 (double)copied_bytes(job));
    else if (statvfs(temporary_folder(), &seen) == 0 &&
             (double)seen.f_bavail * (double)seen.f_frsize < bytes)
        snprintf(error, error_size, "less than %.3g bytes are free in %.200s", bytes,
                 temporary_folder());
    else
        return 1;
    return 0;
}

static int storage_set_up(moecal_cpu_job *job, char *error, size_t error_size)
{
    if (!storage_has_room(job, error, error_size))
        return -1;
    int *file = malloc(sizeof *file);
    if (!file)
        abort();
    *file = temporary_file(error, error_size);
    job->details = file;
    job->free = storage_free;
    job->once = storage_once;
    job->error = storage_error;
    if (*file < 0)
        return -1;
    return job->point->direction == 2 ? fill_file(*file, copied_bytes(job), error, error_size) : 0;
}

int moecal_cpu_machinery_set_up(moecal_cpu_job *job, char *error, size_t error_size)
{
    if (job->point->kind == MOECAL_LAUNCH) {
        job->result_values = 1;
        job->once = launch_once;
        job->error = launch_error;
        return 0;
    }
    job->input_values = job->result_values = (job->point->bytes + 3) / 4;
    if (job->point->direction >= 2)
        return storage_set_up(job, error, error_size);
    job->once = memory_once;
    job->error = memory_error;
    return 0;
}
