/* One array in NumPy's .npy format (numpy.lib.format, NEP 1), versions 1.0, 2.0 and 3.0:
 *
 *     "\x93NUMPY", major, minor, header length (2 bytes, from version 2 on 4), little endian
 *     {'descr': '<u2', 'fortran_order': False, 'shape': (700, 4, 32, 16), }   a Python literal
 *     the array
 *
 * Read: little-endian unsigned integers of 1, 2 or 4 bytes, or where asked for floats of 4, in C
 * order. Ignored: everything else that NumPy can write; pickled objects in particular are refused, not executed. */
#ifndef MOE_TRACES_NPY_H
#define MOE_TRACES_NPY_H

#include "configs/base/diag.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOE_NPY_RANK_MAX 8

typedef struct moe_npy {
    size_t rank;
    int64_t shape[MOE_NPY_RANK_MAX];
    size_t item_bytes;
    const uint8_t *bytes; /* unaligned, inside what was parsed */
    uint64_t size_bytes;
} moe_npy;

bool moe_npy_is_magic(const uint8_t *bytes, size_t length);

/* Describes the array in `bytes`, which must hold it exactly. False after a printed error. */
bool moe_npy_parse(const uint8_t *bytes, size_t length, moe_npy *array, moe_where at,
                   moe_diag *diag);

/* The same for an array of 32-bit floats. */
bool moe_npy_parse_floats(const uint8_t *bytes, size_t length, moe_npy *array, moe_where at,
                          moe_diag *diag);

/* Items [first, first + count) as 32-bit integers. */
void moe_npy_read(const moe_npy *array, int64_t first, size_t count, uint32_t *values);

#endif
