/* The safetensors container (Hugging Face, github.com/huggingface/safetensors, README "Format"):
 *
 *     8 bytes    header length N, little endian
 *     N bytes    JSON {"NAME": {"dtype": "U8", "shape": [...], "data_offsets": [begin, end]}, ...,
 *                "__metadata__": {text: text, ...}}
 *     the rest   the arrays, row-major, little endian; offsets count from the end of the header
 *
 * The reader trusts nothing: the header is at most 16 MiB and inside the file, duplicate keys are
 * refused, and the arrays must tile the rest of the file exactly (no gap, no overlap, each of the
 * size that its shape and dtype demand). Arrays need not be aligned, so they are read with memcpy
 * only. The file stays mapped (mapped_file.h).
 *
 * The writer adds "crc32.NAME" (zlib's CRC-32 of the array, 8 hex digits) to the metadata. */
#ifndef MOE_TRACES_SAFETENSORS_H
#define MOE_TRACES_SAFETENSORS_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MOE_TENSOR_RANK_MAX 8

typedef struct moe_tensor {
    const char *name;
    const char *dtype; /* "U8", "U16", ... */
    size_t item_bytes;
    size_t rank;
    int64_t shape[MOE_TENSOR_RANK_MAX];
    const uint8_t *bytes; /* unaligned, inside the mapped file */
    uint64_t size_bytes;
} moe_tensor;

typedef struct moe_safetensors moe_safetensors;

/* Maps and checks a file. NULL after a printed error. `named_at`: where the path was written. */
moe_safetensors *moe_safetensors_open(void *owner, const char *path, moe_where named_at,
                                      moe_diag *diag);

/* The same for bytes in memory, which are borrowed; errors are located at `at`. */
moe_safetensors *moe_safetensors_parse(void *owner, const uint8_t *bytes, size_t length,
                                       moe_where at, moe_diag *diag);

const moe_tensor *moe_safetensors_tensor(const moe_safetensors *file, const char *name);
size_t moe_safetensors_tensor_count(const moe_safetensors *file);
/* In the order of their bytes. */
const moe_tensor *moe_safetensors_tensor_at(const moe_safetensors *file, size_t index);
/* An object of strings, possibly empty. Borrowed. */
const json_t *moe_safetensors_metadata(const moe_safetensors *file);
/* Where errors about the contents of this file belong. */
moe_where moe_safetensors_where(const moe_safetensors *file);

/* CRC-32 of any number of bytes, continuing from `crc` (0 to start). */
uint32_t moe_crc32(uint32_t crc, const void *bytes, uint64_t length);

/* An array to be written: `read` fills exactly `length` bytes (false: it could not). */
typedef struct moe_tensor_source {
    const char *name;
    const char *dtype;
    size_t item_bytes;
    size_t rank;
    int64_t shape[MOE_TENSOR_RANK_MAX];
    bool (*read)(void *state, uint8_t *bytes, size_t length);
    void *state;
    uint32_t crc; /* out: of what was written */
} moe_tensor_source;

/* Writes a whole file to a seekable stream. `metadata` is an object of strings, borrowed. False
 * when a source could not be read or memory is out; write errors stay in the stream (see output.h).
 */
bool moe_safetensors_write(FILE *stream, const json_t *metadata, moe_tensor_source *tensors,
                           size_t count);

#endif
