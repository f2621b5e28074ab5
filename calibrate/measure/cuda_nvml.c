#include "calibrate/measure/cuda_nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef MOECAL_HAVE_NVML

#include <nvml.h>

/* The newer names of two functions are not in the drivers that people have. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/* Every function of the library that is used, with the type its header gives it. */
#define FUNCTIONS(ENTRY)                                                                           \
    ENTRY(nvmlInit_v2)                                                                             \
    ENTRY(nvmlShutdown)                                                                            \
    ENTRY(nvmlSystemGetDriverVersion)                                                              \
    ENTRY(nvmlDeviceGetHandleByPciBusId_v2)                                                        \
    ENTRY(nvmlDeviceGetClockInfo)                                                                  \
    ENTRY(nvmlDeviceGetPowerUsage)                                                                 \
    ENTRY(nvmlDeviceGetTemperature)                                                                \
    ENTRY(nvmlDeviceGetCurrentClocksThrottleReasons)                                               \
    ENTRY(nvmlDeviceGetNvLinkState)                                                                \
    ENTRY(nvmlDeviceGetNvLinkVersion)                                                              \
    ENTRY(nvmlDeviceGetNvLinkRemoteDeviceType)                                                     \
    ENTRY(nvmlDeviceGetMaxPcieLinkGeneration)                                                      \
    ENTRY(nvmlDeviceGetMaxPcieLinkWidth)

struct moecal_nvml {
    void *library;
    int count;
    nvmlDevice_t *device;
#define ENTRY(name) __typeof__(&(name)) name;
    FUNCTIONS(ENTRY)
#undef ENTRY
};

/* Idling, and a clock that the user asked for, are no throttling. */
static const unsigned long long harmless = 0x1 | 0x2 | 0x100;

static int load(moecal_nvml *nvml)
{
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!nvml->library)
        return -1;
#define ENTRY(name)                                                                                \
    if (!(nvml->name = (__typeof__(nvml->name))dlsym(nvml->library, #name)))                       \
        return -1;
    FUNCTIONS(ENTRY)
#undef ENTRY
    return nvml->nvmlInit_v2() == NVML_SUCCESS ? 0 : -1;
}

static void discard(moecal_nvml *nvml)
{
    if (nvml->library)
        dlclose(nvml->library);
    free(nvml->device);
    free(nvml);
}

moecal_nvml *moecal_nvml_open(const char (*bus_ids)[32], int count)
{
    moecal_nvml *nvml = calloc(1, sizeof *nvml);
    if (!nvml)
        return NULL;
    nvml->device = calloc((size_t)count + 1, sizeof(nvmlDevice_t));
    if (!nvml->device || load(nvml) != 0) {
        discard(nvml);
        return NULL;
    }
    nvml->count = count;
    for (int i = 0; i < count; i++)
        if (nvml->nvmlDeviceGetHandleByPciBusId_v2(bus_ids[i], &nvml->device[i]) != NVML_SUCCESS) {
            nvml->nvmlShutdown();
            discard(nvml);
            return NULL;
        }
    return nvml;
}

void moecal_nvml_close(moecal_nvml *nvml)
{
    if (!nvml)
        return;
    nvml->nvmlShutdown();
    discard(nvml);
}

static moecal_conditions conditions_of(moecal_nvml *nvml, nvmlDevice_t device)
{
    moecal_conditions seen = {.temperature_c = NAN};
    unsigned megahertz, milliwatts, celsius;
    unsigned long long reasons;
    if (nvml->nvmlDeviceGetClockInfo(device, NVML_CLOCK_SM, &megahertz) == NVML_SUCCESS)
        seen.clock_hz = 1e6 * megahertz;
    if (nvml->nvmlDeviceGetPowerUsage(device, &milliwatts) == NVML_SUCCESS)
        seen.power_w = 1e-3 * milliwatts;
    if (nvml->nvmlDeviceGetTemperature(device, NVML_TEMPERATURE_GPU, &celsius) == NVML_SUCCESS)
        seen.temperature_c = celsius;
    if (nvml->nvmlDeviceGetCurrentClocksThrottleReasons(device, &reasons) == NVML_SUCCESS)
        seen.throttled = (reasons & ~harmless) != 0;
    return seen;
}

moecal_conditions moecal_nvml_conditions(moecal_nvml *nvml, int count)
{
    moecal_conditions worst = {.temperature_c = NAN};
    for (int i = 0; i < count && i < nvml->count; i++) {
        moecal_conditions seen = conditions_of(nvml, nvml->device[i]);
        if (seen.clock_hz > 0 && (worst.clock_hz == 0 || seen.clock_hz < worst.clock_hz))
            worst.clock_hz = seen.clock_hz;
        worst.power_w = fmax(worst.power_w, seen.power_w);
        worst.temperature_c = fmax(worst.temperature_c, seen.temperature_c);
        worst.throttled |= seen.throttled;
    }
    return worst;
}

/* A link's one direction, by NVLink version (NVIDIA's architecture white papers): Pascal 20 GB/s, Volta to Hopper
 * 25 GB/s, Blackwell 50 GB/s. */
static double link_bytes_per_s(unsigned version)
{
    return version <= 1 ? 20e9 : version >= 5 && version < 255 ? 50e9 : 25e9;
}

double moecal_nvml_nvlink_bytes_per_s(moecal_nvml *nvml, bool *switched)
{
    double sum = 0;
    *switched = false;
    for (unsigned link = 0; nvml && link < NVML_NVLINK_MAX_LINKS; link++) {
        nvmlEnableState_t state;
        unsigned version;
        nvmlIntNvLinkDeviceType_t peer;
        if (nvml->nvmlDeviceGetNvLinkState(nvml->device[0], link, &state) != NVML_SUCCESS ||
            state != NVML_FEATURE_ENABLED ||
            nvml->nvmlDeviceGetNvLinkVersion(nvml->device[0], link, &version) != NVML_SUCCESS)
            continue;
        sum += link_bytes_per_s(version);
        if (nvml->nvmlDeviceGetNvLinkRemoteDeviceType(nvml->device[0], link, &peer) == NVML_SUCCESS)
            *switched |= peer == NVML_NVLINK_DEVICE_TYPE_SWITCH;
    }
    return sum;
}

/* Per lane, after line coding (PCI Express Base Specification): 2.5 and 5 GT/s with 8b/10b, then 8, 16, 32 GT/s with
 * 128b/130b, 64 GT/s in flits of 256 B of which 242 carry data. */
double moecal_nvml_pcie_bytes_per_s(moecal_nvml *nvml)
{
    static const double lane[] = {0,
                                  0.25e9,
                                  0.5e9,
                                  8e9 / 8 * 128 / 130,
                                  16e9 / 8 * 128 / 130,
                                  32e9 / 8 * 128 / 130,
                                  64e9 / 8 * 242 / 256};
    unsigned generation = 0, width = 0;
    if (!nvml ||
        nvml->nvmlDeviceGetMaxPcieLinkGeneration(nvml->device[0], &generation) != NVML_SUCCESS ||
        nvml->nvmlDeviceGetMaxPcieLinkWidth(nvml->device[0], &width) != NVML_SUCCESS ||
        generation >= sizeof lane / sizeof *lane)
        return 0;
    return lane[generation] * width;
}

bool moecal_nvml_driver(moecal_nvml *nvml, char *version, size_t size)
{
    return nvml && nvml->nvmlSystemGetDriverVersion(version, (unsigned)size) == NVML_SUCCESS;
}

#else

moecal_nvml *moecal_nvml_open(const char (*bus_ids)[32], int count)
{
    (void)bus_ids;
    (void)count;
    return NULL;
}

void moecal_nvml_close(moecal_nvml *nvml)
{
    (void)nvml;
}

moecal_conditions moecal_nvml_conditions(moecal_nvml *nvml, int count)
{
    (void)nvml;
    (void)count;
    return (moecal_conditions){.temperature_c = NAN};
}

double moecal_nvml_nvlink_bytes_per_s(moecal_nvml *nvml, bool *switched)
{
    (void)nvml;
    *switched = false;
    return 0;
}

double moecal_nvml_pcie_bytes_per_s(moecal_nvml *nvml)
{
    (void)nvml;
    return 0;
}

bool moecal_nvml_driver(moecal_nvml *nvml, char *version, size_t size)
{
    (void)nvml;
    (void)version;
    (void)size;
    return false;
}

#endif
