/* The machine line: what the devices are, nominally where a data sheet says so. */
#include "calibrate/measure/cuda_internal.h"

#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- peak ------------------------------------------------------------------------------------- */

/* Dense bf16 FLOP/s as NVIDIA's data sheets give them (they reckon with a clock below the highest). */
static const struct {
    const char *name; /* found in the device's; the first match counts */
    double peak_flop_per_s;
} sheets[] = {{"A100", 312e12},   {"A800", 312e12},   {"H100 PCIe", 756e12}, {"H100 NVL", 835e12},
              {"H100", 989.4e12}, {"H200", 989.4e12}, {"GH200", 989.4e12},   {"H800", 989.4e12},
              {"GB200", 2500e12}, {"GB300", 2500e12}, {"B200", 2250e12},     {"B300", 2250e12},
              {"H20", 148e12},    {"L40S", 362e12},   {"L40", 181e12},       {"A40", 149.7e12},
              {"A10", 125e12},    {"A10G", 70e12},    {"V100", 125e12},      {"L4", 121e12}};

/* Dense bf16 (Turing: fp16) FLOP a clock and SM, NVIDIA's architecture white papers; GeForce cards of 8.6, 8.9 and
 * 12.0 sum fp32 at half of it. */
static const struct {
    int capability;
    double flop_per_clock;
    bool half_on_geforce;
} cores[] = {{70, 1024, false},  {75, 1024, false},  {80, 2048, false},
             {86, 1024, true},   {89, 1024, true},   {90, 4096, false},
             {100, 8192, false}, {103, 8192, false}, {120, 1024, true}};

/* As a word of its own: an RTX A4000 is no A40. */
static bool is_named(const char *name, const char *word)
{
    const char *at = strstr(name, word);
    return at && (at == name || !isalnum((unsigned char)at[-1])) &&
           !isalnum((unsigned char)at[strlen(word)]);
}

static double peak_of(const char *name, int capability, int sms, double clock_hz)
{
    for (size_t i = 0; i < sizeof sheets / sizeof *sheets; i++)
        if (is_named(name, sheets[i].name) && !is_named(name, "MIG"))
            return sheets[i].peak_flop_per_s;
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++)
        if (cores[i].capability == capability)
            return cores[i].flop_per_clock * sms * clock_hz *
                   (cores[i].half_on_geforce && strstr(name, "GeForce") ? 0.5 : 1);
    return 0;
}

/* --- pieces ----------------------------------------------------------------------------------- */

static void put_real(json_t *object, const char *key, double value)
{
    if (value > 0)
        json_object_set_new(object, key, json_real(value));
}

/* Kilohertz to hertz; 0 where it is not told. */
static double clock_of(const moecal_device *device, enum cudaDeviceAttr attribute)
{
    int kilohertz = 0;
    cudaError_t status = cudaDeviceGetAttribute(&kilohertz, attribute, device->ordinal);
    return status == cudaSuccess && kilohertz > 0 ? 1e3 * kilohertz : 0;
}

/* Double data rate times the bus. */
static double memory_rate(const moecal_device *device)
{
    int bits = 0;
    if (cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, device->ordinal) !=
        cudaSuccess)
        return 0;
    return 2 * clock_of(device, cudaDevAttrMemoryClockRate) * bits / 8;
}

static json_t *device_json(const moecal_device *device)
{
    struct cudaDeviceProp properties;
    double clock_hz = clock_of(device, cudaDevAttrClockRate);
    json_t *object = json_object();
    if (cudaGetDeviceProperties(&properties, device->ordinal) == cudaSuccess) {
        json_object_set_new(object, "name", json_string(properties.name));
        put_real(object, "peak_flop_per_s",
                 peak_of(properties.name, device->capability, device->sms, clock_hz));
    }
    put_real(object, "memory_bytes", (double)device->memory_bytes);
    put_real(object, "memory_bytes_per_s", memory_rate(device));
    put_real(object, "clock_hz", clock_hz);
    put_real(object, "l2_bytes", (double)device->l2_bytes);
    json_object_set_new(object, "sms", json_integer(device->sms));
    json_object_set_new(object, "capability", json_real(device->capability / 10.0));
    return object;
}

/* Between the first two devices, by a large send and receive; 0: not to be had. All processes. */
static double measured_link(moecal_cuda *cuda)
{
    moecal_point point = {.kind = MOECAL_COLLECTIVE, .dtype = MOECAL_FP32, .ranks = 2};
    const moecal_backend *backend = &moecal_backend_chosen;
    moecal_time times[5];
    char error[256];
    double best_s = INFINITY;
    point.first = (moecal_exchange){.collective = MOECAL_SEND_RECV, .bytes = 256 << 20};
    if (cuda->world.ranks < 2 || cuda->world.devices_per_host < 2 ||
        backend->prepare(cuda, &point, error, sizeof error) != 0)
        return 0;
    moecal_check check = backend->check(cuda, &point);
    backend->run(cuda, &point, 0, 5, times);
    backend->release(cuda, &point);
    for (int i = 1; i < 5; i++)
        best_s = fmin(best_s, times[i].total_s);
    return check.error == 0 && best_s > 0 && isfinite(best_s) ? (double)point.first.bytes / best_s
                                                              : 0;
}

/* NVLink's nominal rate, else what a send and receive reached, else the PCIe slot's. */
static json_t *link_json(moecal_cuda *cuda)
{
    bool switched = false;
    double nominal = moecal_nvml_nvlink_bytes_per_s(cuda->nvml, &switched), unknown = nominal == 0;
    double slot = moecal_nvml_pcie_bytes_per_s(cuda->nvml);
    moecal_cuda_max(cuda, &unknown, 1); /* all measure, or none */
    double measured = unknown > 0 ? measured_link(cuda) : 0;
    json_t *object = json_object();
    if (nominal > 0) {
        json_object_set_new(object, "kind", json_string(switched ? "nvswitch" : "nvlink"));
        put_real(object, "bytes_per_s", nominal);
        return object;
    }
    if (slot > 0)
        json_object_set_new(object, "kind", json_string("pcie"));
    put_real(object, "bytes_per_s", measured > 0 ? measured : slot);
    if (measured > 0)
        json_object_set_new(object, "nominal", json_false());
    return object;
}

/* --- network ---------------------------------------------------------------------------------- */

/* First number of a file of one line, or 0. */
static double number_in(const char *folder, const char *name, const char *rest)
{
    char path[512], text[64] = "";
    snprintf(path, sizeof path, "%.200s/%.200s/%s", folder, name, rest);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    if (!fgets(text, sizeof text, file))
        text[0] = '\0';
    fclose(file);
    return strtod(text, NULL);
}

typedef struct adapters {
    int count;
    double fastest, sum; /* bytes/s */
} adapters;

/* Adapters of the fastest kind: a slow one beside them is for management. */
static void add_adapter(adapters *found, double bytes_per_s)
{
    if (bytes_per_s <= 0 || bytes_per_s < found->fastest)
        return;
    if (bytes_per_s > found->fastest)
        *found = (adapters){.fastest = bytes_per_s};
    found->count++;
    found->sum += bytes_per_s;
}

/* InfiniBand and RoCE ports that are up ("4: ACTIVE"), in Gbit/s; else Ethernet's, in Mbit/s. */
static adapters find_adapters(void)
{
    static const char *const folders[] = {"/sys/class/infiniband", "/sys/class/net"};
    adapters found = {0};
    for (int ethernet = 0; ethernet < 2 && found.count == 0; ethernet++) {
        DIR *folder = opendir(folders[ethernet]);
        const struct dirent *entry;
        while (folder && (entry = readdir(folder))) {
            const char *name = entry->d_name;
            if (name[0] == '.')
                continue;
            if (ethernet)
                add_adapter(&found, number_in(folders[1], name, "speed") * 1e6 / 8);
            else if (number_in(folders[0], name, "ports/1/state") == 4)
                add_adapter(&found, number_in(folders[0], name, "ports/1/rate") * 1e9 / 8);
        }
        if (folder)
            closedir(folder);
    }
    return found;
}

/* A device's share where there are enough adapters for all, else the host's whole. */
static json_t *nic_json(const moecal_cuda *cuda)
{
    adapters found = find_adapters();
    int devices = cuda->world.devices_per_host;
    bool per_device = found.count >= devices;
    if (found.count == 0)
        return NULL;
    return json_pack("{s:f, s:b}", "bytes_per_s", per_device ? found.sum / devices : found.sum,
                     "per_device", per_device);
}

/* --- software --------------------------------------------------------------------------------- */

static void put_version(json_t *object, const char *key, const char *prefix, int version, int major,
                        int minor)
{
    char text[64];
    snprintf(text, sizeof text, "%s%d.%d.%d", prefix, version / major, version % major / minor,
             version % minor);
    json_object_set_new(object, key, json_string(text));
}

static json_t *software_json(moecal_cuda *cuda)
{
    json_t *object = json_object();
    char driver[96];
    int version = 0;
    if (moecal_nvml_driver(cuda->nvml, driver, sizeof driver))
        json_object_set_new(object, "driver", json_string(driver));
    if (cudaRuntimeGetVersion(&version) == cudaSuccess)
        put_version(object, "cuda", "", version, 1000, 10);
    if (ncclGetVersion(&version) == ncclSuccess)
        put_version(object, "nccl", "", version, 10000, 100);
    if (cublasGetVersion(cuda->device[0].blas, &version) == CUBLAS_STATUS_SUCCESS)
        put_version(object, "blas", "cuBLAS ", version, 10000, 100);
    json_object_set_new(object, "attention",
                        json_string("cuBLAS GEMMs and a softmax kernel, scores in memory; not "
                                    "FlashAttention"));
    return object;
}

/* --- all -------------------------------------------------------------------------------------- */

json_t *moecal_cuda_describe(moecal_cuda *cuda)
{
    json_t *link = link_json(cuda);
    if (cuda->world.rank != 0) {
        json_decref(link);
        return NULL;
    }
    const moecal_world *world = &cuda->world;
    json_t *machine = json_pack("{s:s, s:i, s:i, s:i}", "backend", "cuda", "hosts", world->hosts,
                                "ranks", world->ranks, "devices_per_host", world->devices_per_host);
    json_t *names = json_array(), *nic = nic_json(cuda);
    for (int i = 0; i < world->hosts; i++)
        json_array_append_new(names,
                              json_stringn(cuda->host_names[i],
                                           strnlen(cuda->host_names[i], sizeof *cuda->host_names)));
    json_object_set_new(machine, "host_names", names);
    json_object_set_new(machine, "device", device_json(&cuda->device[0]));
    json_object_set_new(machine, "link", link);
    if (nic)
        json_object_set_new(machine, "nic", nic);
    json_object_set_new(machine, "software", software_json(cuda));
    return machine;
}
