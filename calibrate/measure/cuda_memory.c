/* Buffers of a point, and the way of results to the host. */
#include "calibrate/measure/cuda_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

size_t moecal_element_bytes(int element)
{
    static const size_t bytes[] = {
        [MOECAL_ELEMENT_FP32] = 4, [MOECAL_ELEMENT_BF16] = 2, [MOECAL_ELEMENT_FP16] = 2,
        [MOECAL_ELEMENT_FP8] = 1,  [MOECAL_ELEMENT_FP64] = 8, [MOECAL_ELEMENT_BYTE] = 1};
    return bytes[element];
}

static int out_of_memory(moecal_cuda *cuda, const moecal_device *device, size_t bytes)
{
    char text[128];
    size_t available = 0, total = 0;
    cudaMemGetInfo(&available, &total);
    snprintf(text, sizeof text,
             "%.3g GB of device memory wanted, %.3g of %.3g GB free on device %d",
             1e-9 * (double)bytes, 1e-9 * (double)available, 1e-9 * (double)total, device->ordinal);
    return moecal_cuda_say(cuda, __FILE__, __LINE__, "cudaMalloc", text);
}

static int take_into(moecal_cuda *cuda, moecal_device *device, size_t bytes, void **memory)
{
    if (device->taken_count == MOECAL_TAKEN)
        return moecal_cuda_say(cuda, __FILE__, __LINE__, "moecal_take", "too many buffers");
    MOECAL_CUDA(cudaSetDevice(device->ordinal));
    cudaError_t status = cudaMalloc(memory, bytes ? bytes : 1);
    if (status == cudaErrorMemoryAllocation)
        return out_of_memory(cuda, device, bytes);
    MOECAL_CUDA(status);
    device->taken[device->taken_count++] = *memory;
    return 0;
}

void *moecal_take(moecal_cuda *cuda, moecal_device *device, size_t bytes)
{
    void *memory = NULL;
    return take_into(cuda, device, bytes, &memory) ? NULL : memory;
}

void moecal_give_back(moecal_device *device, int down_to)
{
    cudaSetDevice(device->ordinal);
    while (device->taken_count > down_to)
        cudaFree(device->taken[--device->taken_count]);
}

/* --- operands --------------------------------------------------------------------------------- */

void moecal_operand_set(moecal_device *device, int index, int element, int64_t count, float scale)
{
    device->operand[index] = (moecal_operand){.element = element, .count = count, .scale = scale};
}

/* Copies start 4 KiB apart at least: caches and the memory's rows see different places. */
static size_t stride_of(const moecal_operand *operand)
{
    size_t bytes = (size_t)operand->count * moecal_element_bytes(operand->element);
    return (bytes + 4095) / 4096 * 4096;
}

static int64_t slots_for(const moecal_device *device, int64_t most)
{
    size_t bytes = 0;
    for (int i = 0; i < MOECAL_OPERANDS; i++)
        bytes += stride_of(&device->operand[i]);
    int64_t slots = bytes ? 1 + (int64_t)(2 * device->l2_bytes / bytes) : 1;
    return slots < most ? slots : most;
}

static int make_operand(moecal_cuda *cuda, moecal_device *device, int index)
{
    moecal_operand *operand = &device->operand[index];
    uint64_t seed =
        ((uint64_t)cuda->points << 24) + ((uint64_t)device->rank << 8) + (unsigned)index;
    operand->stride = stride_of(operand);
    size_t bytes = operand->stride * (size_t)device->slots;
    operand->base = moecal_take(cuda, device, bytes);
    if (!operand->base)
        return 1;
    if (operand->scale != 0)
        MOECAL_CUDA(moecal_kernel_fill(operand->element, operand->base,
                                       (int64_t)(bytes / moecal_element_bytes(operand->element)),
                                       seed, operand->scale, device->stream[0]));
    return 0;
}

int moecal_operands_make(moecal_cuda *cuda, moecal_device *device, int64_t most_slots)
{
    device->slots = slots_for(device, most_slots);
    for (int i = 0; i < MOECAL_OPERANDS; i++)
        if (device->operand[i].count > 0)
            MOECAL_DO(make_operand(cuda, device, i));
    MOECAL_CUDA(cudaStreamSynchronize(device->stream[0]));
    return 0;
}

void *moecal_operand_at(const moecal_device *device, int index, int64_t repetition)
{
    const moecal_operand *operand = &device->operand[index];
    return operand->base + (size_t)(repetition % device->slots) * operand->stride;
}

/* --- views and comparisons -------------------------------------------------------------------- */

moecal_view moecal_rows_of(const void *data, int element, int64_t columns)
{
    return (moecal_view){data, element, columns, 1};
}

moecal_view moecal_transposed(moecal_view view)
{
    return (moecal_view){view.data, view.dtype, view.column_stride, view.row_stride};
}

moecal_view moecal_from(moecal_view view, int64_t row, int64_t column)
{
    int64_t offset = row * view.row_stride + column * view.column_stride;
    view.data = (const char *)view.data + offset * (int64_t)moecal_element_bytes(view.dtype);
    return view;
}

int moecal_download(moecal_cuda *cuda, moecal_device *device, int element, const void *data,
                    int64_t count, double *host)
{
    int mark = device->taken_count;
    double *wide = moecal_take(cuda, device, (size_t)count * sizeof *wide);
    if (!wide)
        return 1;
    MOECAL_CUDA(moecal_kernel_to_double(element, data, wide, count, device->stream[0]));
    MOECAL_CUDA(cudaMemcpyAsync(host, wide, (size_t)count * sizeof *wide, cudaMemcpyDeviceToHost,
                                device->stream[0]));
    MOECAL_CUDA(cudaStreamSynchronize(device->stream[0]));
    moecal_give_back(device, mark);
    return 0;
}

static void raise_error(const double *got, const double *want, int64_t count, double *error)
{
    double largest = 0, off = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = fabs(got[i] - want[i]);
        off = difference <= off ? off : isnan(difference) ? INFINITY : difference;
        largest = fmax(largest, fabs(want[i]));
    }
    off = largest > 0 ? off / largest : off;
    *error = off > *error ? off : *error;
}

int moecal_compare(moecal_cuda *cuda, moecal_device *device, int element, const void *got,
                   const double *want, int64_t count, double *error)
{
    double *values = malloc(2 * (size_t)count * sizeof *values);
    int failed = !values;
    if (failed)
        return moecal_cuda_say(cuda, __FILE__, __LINE__, "malloc", "out of memory");
    failed = moecal_download(cuda, device, element, got, count, values) ||
             moecal_download(cuda, device, MOECAL_ELEMENT_FP64, want, count, values + count);
    if (!failed)
        raise_error(values, values + count, count, error);
    free(values);
    return failed;
}
