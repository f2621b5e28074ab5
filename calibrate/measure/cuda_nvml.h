/* What only the driver's management library (NVML) tells: clocks, power, temperature, throttling, links.
 *
 * Loaded at run time; compiled in where nvml.h was found. Without it everything here says "not known". */
#ifndef MOE_CALIBRATE_MEASURE_CUDA_NVML_H
#define MOE_CALIBRATE_MEASURE_CUDA_NVML_H

#include "calibrate/measure/backend.h"

typedef struct moecal_nvml moecal_nvml;

/* Of devices given by PCI bus id ("0000:1b:00.0"). NULL where there is no NVML. */
moecal_nvml *moecal_nvml_open(const char (*bus_ids)[32], int count);
void moecal_nvml_close(moecal_nvml *nvml);
/* Now: lowest clock, highest power and temperature of the first `count` devices, throttled by anything but
 * idling or a clock that the user set. */
moecal_conditions moecal_nvml_conditions(moecal_nvml *nvml, int count);
/* One direction of the first device's NVLink, all links together; 0: none, or not known. *switched: they
 * lead to a switch. */
double moecal_nvml_nvlink_bytes_per_s(moecal_nvml *nvml, bool *switched);
/* One direction of the first device's PCIe slot, after line coding; 0: not known. */
double moecal_nvml_pcie_bytes_per_s(moecal_nvml *nvml);
bool moecal_nvml_driver(moecal_nvml *nvml, char *version, size_t size);

#endif
