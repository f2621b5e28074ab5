/* What the host sees: launches, copies to and from a device, storage. Timed by the host's clock, but for copies of
 * pinned memory, whose time the device's events tell.
 *
 * Storage: a file in $MOECAL_STORAGE (else $TMPDIR, else the current folder), unlinked as soon as it is open;
 * O_DIRECT where the size is a multiple of 4 KiB and the file system takes it, else written through with fdatasync
 * and dropped from the page cache before it is read. */
#include "calibrate/measure/cuda_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- launches --------------------------------------------------------------------------------- */

enum { STREAM, GRAPH, SYNC };

typedef struct launch_work {
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    unsigned long long *count; /* pinned */
} launch_work;

static int launch_all(moecal_cuda *cuda, const moecal_point *point)
{
    for (int64_t i = 0; i < point->kernels; i++)
        MOECAL_CUDA(moecal_kernel_empty(cuda->device[0].stream[0]));
    return 0;
}

/* As a layer that must know its counts waits for them: a kernel, 8 bytes to the host, the stream. */
static int launch_and_wait(moecal_cuda *cuda, const moecal_point *point)
{
    moecal_device *device = &cuda->device[0];
    launch_work *work = cuda->work;
    for (int64_t i = 0; i < point->kernels; i++) {
        MOECAL_CUDA(moecal_kernel_empty(device->stream[0]));
        MOECAL_CUDA(cudaMemcpyAsync(work->count, device->wrong, sizeof *work->count,
                                    cudaMemcpyDeviceToHost, device->stream[0]));
        MOECAL_CUDA(cudaStreamSynchronize(device->stream[0]));
    }
    return 0;
}

static int capture(moecal_cuda *cuda, const moecal_point *point, launch_work *work)
{
    cudaStream_t stream = cuda->device[0].stream[0];
    MOECAL_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    int failed = launch_all(cuda, point);
    cudaError_t ended = cudaStreamEndCapture(stream, &work->graph);
    MOECAL_DO(failed);
    MOECAL_CUDA(ended);
    MOECAL_CUDA(cudaGraphInstantiate(&work->ready, work->graph, 0));
    MOECAL_CUDA(cudaGraphUpload(work->ready, stream));
    return 0;
}

static int launch_prepare(moecal_cuda *cuda, const moecal_point *point)
{
    launch_work *work = calloc(1, sizeof *work);
    cuda->work = work;
    if (!work)
        return moecal_cuda_say(cuda, __FILE__, __LINE__, "calloc", "out of memory");
    if (cuda->active == 0)
        return 0;
    MOECAL_CUDA(cudaSetDevice(cuda->device[0].ordinal));
    MOECAL_CUDA(cudaHostAlloc((void **)&work->count, sizeof *work->count, cudaHostAllocDefault));
    return point->mode == GRAPH ? capture(cuda, point, work) : 0;
}

static int launch_time(moecal_cuda *cuda, const moecal_point *point, double *seconds)
{
    cudaStream_t stream = cuda->device[0].stream[0];
    const launch_work *work = cuda->work;
    MOECAL_CUDA(cudaSetDevice(cuda->device[0].ordinal));
    MOECAL_CUDA(cudaStreamSynchronize(stream));
    double start_s = moecal_now_s();
    if (point->mode == GRAPH)
        MOECAL_CUDA(cudaGraphLaunch(work->ready, stream));
    else
        MOECAL_DO((point->mode == SYNC ? launch_and_wait : launch_all)(cuda, point));
    *seconds = moecal_now_s() - start_s;
    MOECAL_CUDA(cudaStreamSynchronize(stream));
    return 0;
}

/* There is no result; that everything ran has been seen. */
static int launch_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    (void)cuda;
    (void)point;
    (void)check;
    return 0;
}

static void launch_release(moecal_cuda *cuda)
{
    launch_work *work = cuda->work;
    if (!work)
        return;
    if (work->ready)
        cudaGraphExecDestroy(work->ready);
    if (work->graph)
        cudaGraphDestroy(work->graph);
    if (work->count)
        cudaFreeHost(work->count);
    free(work);
    cuda->work = NULL;
}

const moecal_operation moecal_operation_launch = {.prepare = launch_prepare,
                                                  .check = launch_check,
                                                  .time = launch_time,
                                                  .release = launch_release};

/* --- copies ----------------------------------------------------------------------------------- */

enum { TO_DEVICE, TO_HOST, READ, WRITE };
enum { PAGE = 4096, PIECE = 16 << 20 };

typedef struct copy_work {
    unsigned char *host;
    void *there; /* on the device */
    int file;    /* or -1 */
    bool pinned, direct;
    uint64_t seed;
    size_t bytes;
} copy_work;

/* As moecal_kernel_fill_bytes has it. */
static void fill_host(copy_work *work)
{
    for (size_t i = 0; i < work->bytes; i += 8) {
        uint64_t bits = moecal_hash(work->seed, i / 8);
        memcpy(work->host + i, &bits, work->bytes - i < 8 ? work->bytes - i : 8);
    }
}

static size_t count_wrong(const copy_work *work)
{
    size_t wrong = 0;
    for (size_t i = 0; i < work->bytes; i += 8) {
        uint64_t bits = moecal_hash(work->seed, i / 8);
        wrong += memcmp(work->host + i, &bits, work->bytes - i < 8 ? work->bytes - i : 8) != 0;
    }
    return wrong;
}

static int say_errno(moecal_cuda *cuda, const char *call)
{
    return moecal_cuda_say(cuda, __FILE__, __LINE__, call, strerror(errno));
}

static int take_host(moecal_cuda *cuda, copy_work *work)
{
    void *memory = NULL;
    if (work->pinned)
        MOECAL_CUDA(cudaHostAlloc(&memory, work->bytes, cudaHostAllocDefault));
    else if (work->bytes / (size_t)sysconf(_SC_PAGESIZE) > (size_t)sysconf(_SC_AVPHYS_PAGES))
        return moecal_cuda_say(cuda, __FILE__, __LINE__, "posix_memalign",
                               "so much memory is not free");
    else if ((errno = posix_memalign(&memory, PAGE, work->bytes)) != 0)
        return say_errno(cuda, "posix_memalign");
    work->host = memory;
    fill_host(work); /* which also brings its pages into being */
    return 0;
}

/* --- storage ---------------------------------------------------------------------------------- */

static const char *storage_folder(void)
{
    const char *given = getenv("MOECAL_STORAGE"), *temporary = getenv("TMPDIR");
    return given && *given ? given : temporary && *temporary ? temporary : ".";
}

static int open_file(moecal_cuda *cuda, copy_work *work)
{
    char path[4096];
    snprintf(path, sizeof path, "%.4000s/moecal-XXXXXX", storage_folder());
    work->file = mkstemp(path);
    if (work->file < 0)
        return say_errno(cuda, "mkstemp");
    unlink(path);
    work->direct = work->bytes % PAGE == 0 &&
                   fcntl(work->file, F_SETFL, fcntl(work->file, F_GETFL) | O_DIRECT) == 0;
    return 0;
}

static ssize_t move_piece(const copy_work *work, bool write, size_t done)
{
    size_t piece = work->bytes - done < PIECE ? work->bytes - done : PIECE;
    if (write)
        return pwrite(work->file, work->host + done, piece, (off_t)done);
    return pread(work->file, work->host + done, piece, (off_t)done);
}

static int move_file(moecal_cuda *cuda, copy_work *work, bool write)
{
    size_t done = 0;
    while (done < work->bytes) {
        ssize_t moved = move_piece(work, write, done);
        if (moved > 0) {
            done += (size_t)moved;
        } else if (moved < 0 && errno == EINVAL && work->direct && done == 0) {
            work->direct = false; /* promised by fcntl, refused by the file system */
            fcntl(work->file, F_SETFL, fcntl(work->file, F_GETFL) & ~O_DIRECT);
        } else if (moved == 0 || errno != EINTR) {
            errno = moved == 0 ? ENODATA : errno;
            return say_errno(cuda, write ? "pwrite" : "pread");
        }
    }
    if (write && fdatasync(work->file) != 0)
        return say_errno(cuda, "fdatasync");
    return 0;
}

static int time_file(moecal_cuda *cuda, copy_work *work, bool write, double *seconds)
{
    if (!work->direct && !write)
        posix_fadvise(work->file, 0, 0, POSIX_FADV_DONTNEED);
    double start_s = moecal_now_s();
    MOECAL_DO(move_file(cuda, work, write));
    *seconds = moecal_now_s() - start_s;
    return 0;
}

/* --- the device ------------------------------------------------------------------------------- */

/* One copy; of pageable memory cudaMemcpyAsync goes through a staging buffer and returns late. */
static int time_device(moecal_cuda *cuda, copy_work *work, bool to_device, double *seconds)
{
    moecal_device *device = &cuda->device[0];
    cudaStream_t stream = device->stream[0];
    void *target = to_device ? work->there : work->host;
    const void *source = to_device ? (const void *)work->host : work->there;
    float milliseconds = 0;
    MOECAL_CUDA(cudaSetDevice(device->ordinal));
    double start_s = moecal_now_s();
    MOECAL_CUDA(cudaEventRecord(device->start, stream));
    MOECAL_CUDA(cudaMemcpyAsync(target, source, work->bytes,
                                to_device ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost,
                                stream));
    MOECAL_CUDA(cudaEventRecord(device->stop[0], stream));
    MOECAL_CUDA(cudaStreamSynchronize(stream));
    *seconds = moecal_now_s() - start_s;
    MOECAL_CUDA(cudaEventElapsedTime(&milliseconds, device->start, device->stop[0]));
    if (work->pinned)
        *seconds = 1e-3 * (double)milliseconds;
    return 0;
}

/* --- the kind --------------------------------------------------------------------------------- */

static int make_target(moecal_cuda *cuda, const moecal_point *point, copy_work *work)
{
    if (point->direction == READ || point->direction == WRITE) {
        MOECAL_DO(open_file(cuda, work));
        return point->direction == READ ? move_file(cuda, work, true) : 0;
    }
    work->there = moecal_take(cuda, &cuda->device[0], work->bytes);
    if (!work->there)
        return 1;
    if (point->direction == TO_HOST)
        MOECAL_CUDA(moecal_kernel_fill_bytes(work->there, work->bytes, work->seed,
                                             cuda->device[0].stream[0]));
    return 0;
}

static int copy_prepare(moecal_cuda *cuda, const moecal_point *point)
{
    copy_work *work = calloc(1, sizeof *work);
    cuda->work = work;
    if (!work)
        return moecal_cuda_say(cuda, __FILE__, __LINE__, "calloc", "out of memory");
    *work = (copy_work){.file = -1,
                        .pinned = point->pinned,
                        .bytes = (size_t)point->bytes,
                        .seed = (uint64_t)cuda->points};
    if (cuda->active == 0)
        return 0;
    MOECAL_CUDA(cudaSetDevice(cuda->device[0].ordinal));
    MOECAL_DO(take_host(cuda, work));
    MOECAL_DO(make_target(cuda, point, work));
    if (point->direction == TO_HOST || point->direction == READ)
        memset(work->host, 0, work->bytes);
    return 0;
}

static int copy_time(moecal_cuda *cuda, const moecal_point *point, double *seconds)
{
    if (point->direction == READ || point->direction == WRITE)
        return time_file(cuda, cuda->work, point->direction == WRITE, seconds);
    return time_device(cuda, cuda->work, point->direction == TO_DEVICE, seconds);
}

/* What went out is fetched again: error is the number of wrong words (on the device: bytes). */
static int copy_check(moecal_cuda *cuda, const moecal_point *point, moecal_check *check)
{
    copy_work *work = cuda->work;
    unsigned long long wrong = 0;
    moecal_device *device = &cuda->device[0];
    if (point->direction == TO_DEVICE) {
        MOECAL_CUDA(cudaMemsetAsync(device->wrong, 0, sizeof wrong, device->stream[0]));
        MOECAL_CUDA(moecal_kernel_compare_bytes(work->there, work->bytes, work->seed, 0,
                                                device->wrong, device->stream[0]));
        MOECAL_CUDA(cudaMemcpyAsync(&wrong, device->wrong, sizeof wrong, cudaMemcpyDeviceToHost,
                                    device->stream[0]));
        MOECAL_CUDA(cudaStreamSynchronize(device->stream[0]));
    }
    if (point->direction == WRITE) {
        memset(work->host, 0, work->bytes);
        MOECAL_DO(move_file(cuda, work, false));
    }
    check->error = (double)wrong + (double)count_wrong(work);
    return 0;
}

static void copy_release(moecal_cuda *cuda)
{
    copy_work *work = cuda->work;
    if (!work)
        return;
    if (work->file >= 0)
        close(work->file);
    if (work->pinned && work->host)
        cudaFreeHost(work->host);
    else
        free(work->host);
    free(work);
    cuda->work = NULL;
}

const moecal_operation moecal_operation_copy = {
    .prepare = copy_prepare, .check = copy_check, .time = copy_time, .release = copy_release};
