/* Devices, peers, communicators. */
#include "calibrate/measure/cuda_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORKSPACE_BYTES = 64 << 20 };

/* What a process tells the others about itself. */
typedef struct card {
    char host[64];
    char boot[40];      /* tells two hosts of one name apart */
    int visible;        /* devices */
    char first_bus[32]; /* of device 0 */
} card;

static void *take_zeroed(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        abort();
    return memory;
}

/* --- who is where ----------------------------------------------------------------------------- */

static int count_devices(char *error, size_t error_size)
{
    int driver = 0, count = 0;
    cudaError_t status = cudaDriverGetVersion(&driver);
    if (status == cudaSuccess && driver == 0) {
        snprintf(error, error_size,
                 "no CUDA driver: libcuda.so.1 was not found; moecal runs where the GPUs are");
        return 0;
    }
    status = status == cudaSuccess ? cudaGetDeviceCount(&count) : status;
    if (status != cudaSuccess || count == 0) {
        snprintf(error, error_size, "%s: %s",
                 status == cudaErrorInsufficientDriver ? "no CUDA driver that will do"
                                                       : "no CUDA device",
                 status == cudaSuccess ? "there is none" : cudaGetErrorString(status));
        return 0;
    }
    return count;
}

static void fill_card(card *mine, int visible)
{
    FILE *boot = fopen("/proc/sys/kernel/random/boot_id", "r");
    memset(mine, 0, sizeof *mine);
    gethostname(mine->host, sizeof mine->host - 1);
    if (boot) {
        if (!fgets(mine->boot, sizeof mine->boot, boot))
            mine->boot[0] = '\0';
        fclose(boot);
    }
    mine->visible = visible;
    cudaDeviceGetPCIBusId(mine->first_bus, sizeof mine->first_bus, 0);
}

static bool same_host(const card *left, const card *right)
{
    return strncmp(left->host, right->host, sizeof left->host) == 0 &&
           strncmp(left->boot, right->boot, sizeof left->boot) == 0;
}

/* Devices that each process of a host drives: all where it is alone, else one. */
static int devices_of(const card *cards, int processes, int index)
{
    int beside = 0;
    for (int i = 0; i < processes; i++)
        beside += same_host(&cards[i], &cards[index]);
    return beside == 1 ? cards[index].visible : 1;
}

/* Hosts in the order of their first process; world ranks host by host, within one by process. */
typedef struct seating {
    int first_rank, local_index, beside;
} seating;

static seating seat(moecal_cuda *cuda, const card *cards)
{
    int processes = cuda->world.processes, me = cuda->world.rank, next = 0;
    bool *seated = take_zeroed((size_t)processes, sizeof *seated);
    seating mine = {0};
    cuda->host_names = take_zeroed((size_t)processes, sizeof *cuda->host_names);
    for (int host = 0; host < processes; host++) {
        int index = 0, before = next;
        if (seated[host])
            continue;
        memcpy(cuda->host_names[cuda->world.hosts++], cards[host].host, sizeof cards[host].host);
        for (int i = host; i < processes; i++) {
            if (seated[i] || !same_host(&cards[i], &cards[host]))
                continue;
            seated[i] = true;
            if (i == me)
                mine = (seating){.first_rank = next, .local_index = index};
            next += devices_of(cards, processes, i);
            index++;
        }
        if (same_host(&cards[host], &cards[me]))
            mine.beside = index;
        if (next - before > cuda->world.devices_per_host)
            cuda->world.devices_per_host = next - before;
    }
    cuda->world.ranks = next;
    free(seated);
    return mine;
}

/* The device of a process that shares its host: its own if the launcher shows it only one. */
static int first_ordinal(const card *cards, int me, const seating *mine, char *error, size_t size)
{
    if (mine->beside == 1 || cards[me].visible >= mine->beside)
        return mine->beside == 1 ? 0 : mine->local_index;
    if (cards[me].visible == 1)
        return 0;
    snprintf(error, size, "%d processes on host %.63s, but only %d devices", mine->beside,
             cards[me].host, cards[me].visible);
    return -1;
}

/* Two processes that each see one device must not see the same one. */
static int device_is_shared(const moecal_cuda *cuda, const card *cards, char *error, size_t size)
{
    for (int i = 0; i < cuda->world.processes; i++)
        for (int j = 0; j < i; j++)
            if (same_host(&cards[i], &cards[j]) && cards[i].visible == 1 && cards[j].visible == 1 &&
                strcmp(cards[i].first_bus, cards[j].first_bus) == 0) {
                snprintf(error, size,
                         "processes %d and %d on host %.63s share device %.31s; start one a device",
                         j, i, cards[i].host, cards[i].first_bus);
                return 1;
            }
    return 0;
}

/* --- devices ---------------------------------------------------------------------------------- */

static int ask_device(moecal_cuda *cuda, moecal_device *device)
{
    int major = 0, minor = 0, l2 = 0;
    size_t available = 0;
    MOECAL_CUDA(
        cudaDeviceGetAttribute(&device->sms, cudaDevAttrMultiProcessorCount, device->ordinal));
    MOECAL_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device->ordinal));
    MOECAL_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device->ordinal));
    MOECAL_CUDA(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, device->ordinal));
    MOECAL_CUDA(cudaMemGetInfo(&available, &device->memory_bytes));
    device->capability = 10 * major + minor;
    device->l2_bytes = l2 > 0 ? (size_t)l2 : (size_t)32 << 20;
    return 0;
}

static int open_device(moecal_cuda *cuda, moecal_device *device)
{
    MOECAL_CUDA(cudaSetDevice(device->ordinal));
    MOECAL_DO(ask_device(cuda, device));
    for (int i = 0; i < MOECAL_STREAMS; i++)
        MOECAL_CUDA(cudaStreamCreateWithFlags(&device->stream[i], cudaStreamNonBlocking));
    MOECAL_CUDA(cudaEventCreate(&device->start));
    for (int i = 0; i < MOECAL_LANES; i++)
        MOECAL_CUDA(cudaEventCreate(&device->stop[i]));
    MOECAL_CUDA(cudaHostAlloc((void **)&device->gate, sizeof *device->gate,
                              cudaHostAllocPortable | cudaHostAllocMapped));
    *device->gate = 0;
    MOECAL_CUDA(cudaMalloc(&device->workspace, WORKSPACE_BYTES));
    MOECAL_CUDA(cudaMalloc((void **)&device->wrong, sizeof *device->wrong));
    MOECAL_BLAS(cublasCreate(&device->blas));
    MOECAL_BLAS(cublasSetStream(device->blas, device->stream[0]));
    MOECAL_BLAS(cublasSetWorkspace(device->blas, device->workspace, WORKSPACE_BYTES));
    MOECAL_BLAS(cublasLtCreate(&device->lt));
    return 0;
}

static int open_devices(moecal_cuda *cuda, const seating *mine, int first)
{
    char(*bus)[32] = take_zeroed((size_t)cuda->device_count, sizeof *bus);
    int failed = 0;
    cuda->device = take_zeroed((size_t)cuda->device_count, sizeof *cuda->device);
    cuda->comm = take_zeroed((size_t)cuda->device_count, sizeof(ncclComm_t));
    for (int i = 0; i < cuda->device_count && !failed; i++) {
        cuda->device[i].ordinal = first + i;
        cuda->device[i].rank = mine->first_rank + i;
        failed = open_device(cuda, &cuda->device[i]);
        cudaDeviceGetPCIBusId(bus[i], sizeof bus[i], first + i);
    }
    cuda->nvml = moecal_nvml_open((const char(*)[32])bus, cuda->device_count);
    free(bus);
    return failed;
}

static void close_device(moecal_device *device)
{
    cudaSetDevice(device->ordinal);
    if (device->lt)
        cublasLtDestroy(device->lt);
    if (device->blas)
        cublasDestroy(device->blas);
    cudaFree(device->workspace);
    cudaFree(device->wrong);
    if (device->gate)
        cudaFreeHost(device->gate);
    for (int i = 0; i < MOECAL_LANES; i++)
        if (device->stop[i])
            cudaEventDestroy(device->stop[i]);
    if (device->start)
        cudaEventDestroy(device->start);
    for (int i = 0; i < MOECAL_STREAMS; i++)
        if (device->stream[i])
            cudaStreamDestroy(device->stream[i]);
}

/* --- NCCL ------------------------------------------------------------------------------------- */

const char *moecal_nccl_text(ncclResult_t status)
{
    const char *last = ncclGetLastError(NULL);
    return last && last[0] ? last : ncclGetErrorString(status);
}

static int open_comm(moecal_cuda *cuda)
{
    ncclUniqueId id = {{0}};
    ncclResult_t opened = ncclSuccess;
    if (cuda->world.ranks < 2)
        return 0;
    if (cuda->world.rank == 0)
        MOECAL_NCCL(ncclGetUniqueId(&id));
    if (cuda->peers && moecal_rendezvous_share(cuda->peers, &id, sizeof id) != 0)
        return moecal_cuda_say(cuda, __FILE__, __LINE__, "moecal_rendezvous_share",
                               moecal_rendezvous_error(cuda->peers));
    MOECAL_NCCL(ncclGroupStart());
    for (int i = 0; i < cuda->device_count && opened == ncclSuccess; i++) {
        cudaSetDevice(cuda->device[i].ordinal);
        opened = ncclCommInitRank(&cuda->comm[i], cuda->world.ranks, id, cuda->device[i].rank);
    }
    ncclResult_t ended = ncclGroupEnd();
    MOECAL_NCCL(opened);
    MOECAL_NCCL(ended);
    return 0;
}

static void free_communicator(moecal_cuda *cuda, moecal_communicator *freed)
{
    for (int i = 0; i < cuda->device_count; i++)
        if (freed->comm[i])
            ncclCommDestroy(freed->comm[i]);
    free(freed->comm);
    free(freed->members);
    free(freed);
}

static bool is_member(const moecal_communicator *of, int rank)
{
    for (int i = 0; i < of->member_count; i++)
        if (of->members[i] == rank)
            return true;
    return false;
}

/* A collective call of the whole world: who is not a member passes no colour. */
static int split(moecal_cuda *cuda, moecal_communicator *made)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclResult_t done = ncclSuccess;
    if (made->most_ctas > 0) {
        config.minCTAs = 1;
        config.maxCTAs = made->most_ctas;
    }
    MOECAL_NCCL(ncclGroupStart());
    for (int i = 0; i < cuda->device_count && done == ncclSuccess; i++) {
        int rank = cuda->device[i].rank;
        cudaSetDevice(cuda->device[i].ordinal);
        done = ncclCommSplit(cuda->comm[i], is_member(made, rank) ? 0 : NCCL_SPLIT_NOCOLOR, rank,
                             &made->comm[i], &config);
    }
    ncclResult_t ended = ncclGroupEnd();
    MOECAL_NCCL(done);
    MOECAL_NCCL(ended);
    return 0;
}

static bool matches(const moecal_communicator *made, const int *members, int count, int most_ctas,
                    int instance)
{
    return made->member_count == count && made->most_ctas == most_ctas &&
           made->instance == instance &&
           memcmp(made->members, members, (size_t)count * sizeof *members) == 0;
}

moecal_communicator *moecal_communicator_get(moecal_cuda *cuda, const int *members, int count,
                                             int most_ctas, int instance)
{
    moecal_communicator *made = cuda->communicators;
    while (made && !matches(made, members, count, most_ctas, instance))
        made = made->next;
    if (made)
        return made;
    made = take_zeroed(1, sizeof *made);
    made->members = take_zeroed((size_t)count, sizeof *members);
    memcpy(made->members, members, (size_t)count * sizeof *members);
    made->member_count = count;
    made->most_ctas = most_ctas;
    made->instance = instance;
    made->comm = take_zeroed((size_t)cuda->device_count, sizeof(ncclComm_t));
    if (moecal_cuda_agree(cuda, split(cuda, made))) {
        free_communicator(cuda, made);
        return NULL;
    }
    made->next = cuda->communicators;
    return cuda->communicators = made;
}

/* --- agreement -------------------------------------------------------------------------------- */

void moecal_cuda_max(moecal_cuda *cuda, double *values, int count)
{
    if (cuda->peers && moecal_rendezvous_max(cuda->peers, values, count) != 0)
        moecal_cuda_die(cuda, moecal_rendezvous_error(cuda->peers));
}

int moecal_cuda_agree(moecal_cuda *cuda, int failed)
{
    double any = failed != 0;
    moecal_cuda_max(cuda, &any, 1);
    if (any != 0 && !failed)
        snprintf(cuda->error, sizeof cuda->error, "another process failed");
    return any != 0;
}

/* --- opening ---------------------------------------------------------------------------------- */

static double seconds_of(const char *name, double otherwise)
{
    const char *text = getenv(name);
    double value = text ? strtod(text, NULL) : 0;
    return value > 0 && isfinite(value) ? value : otherwise;
}

static int meet(moecal_cuda *cuda, char *error, size_t size)
{
    moecal_place place;
    if (moecal_place_find(&place, error, size) != 0)
        return 1;
    cuda->world = (moecal_world){.rank = place.rank, .processes = place.processes};
    if (place.processes > 1) {
        cuda->peers = moecal_rendezvous_open(&place, seconds_of("MOECAL_JOIN_SECONDS", 120),
                                             seconds_of("MOECAL_WAIT_SECONDS", 900), error, size);
        return !cuda->peers;
    }
    return 0;
}

/* Every process learns whether any other cannot go on, before one of them waits for it in NCCL. */
static int settle(moecal_cuda *cuda, int visible, char *error, size_t size)
{
    card mine, *cards = take_zeroed((size_t)cuda->world.processes, sizeof *cards);
    fill_card(&mine, visible);
    cards[0] = mine;
    if (cuda->peers && moecal_rendezvous_gather(cuda->peers, &mine, cards, sizeof mine) != 0) {
        snprintf(error, size, "%s", moecal_rendezvous_error(cuda->peers));
        free(cards);
        return 1;
    }
    seating place = seat(cuda, cards);
    int me = cuda->world.rank, first = first_ordinal(cards, me, &place, error, size);
    int failed = first < 0 || device_is_shared(cuda, cards, error, size);
    cuda->device_count = devices_of(cards, cuda->world.processes, me);
    free(cards);
    if (!failed && open_devices(cuda, &place, first)) {
        snprintf(error, size, "%s", cuda->error);
        failed = 1;
    }
    if (moecal_cuda_agree(cuda, failed)) {
        if (!failed)
            snprintf(error, size, "another process could not open its device");
        return 1;
    }
    return 0;
}

moecal_cuda *moecal_cuda_open(char *error, size_t error_size)
{
    int visible = count_devices(error, error_size);
    if (visible == 0)
        return NULL;
    moecal_cuda *cuda = take_zeroed(1, sizeof *cuda);
    if (meet(cuda, error, error_size) || settle(cuda, visible, error, error_size)) {
        moecal_cuda_close(cuda);
        return NULL;
    }
    if (moecal_cuda_agree(cuda, open_comm(cuda))) {
        snprintf(error, error_size, "%s", cuda->error);
        moecal_cuda_close(cuda);
        return NULL;
    }
    return cuda;
}

void moecal_cuda_close(moecal_cuda *cuda)
{
    while (cuda->communicators) {
        moecal_communicator *next = cuda->communicators->next;
        free_communicator(cuda, cuda->communicators);
        cuda->communicators = next;
    }
    for (int i = 0; cuda->device && i < cuda->device_count; i++) {
        if (cuda->comm[i])
            ncclCommDestroy(cuda->comm[i]);
        close_device(&cuda->device[i]);
    }
    moecal_nvml_close(cuda->nvml);
    moecal_rendezvous_close(cuda->peers);
    free(cuda->device);
    free(cuda->comm);
    free(cuda->host_names);
    free(cuda);
}
