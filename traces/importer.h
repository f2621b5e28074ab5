/* Importers turn a foreign recording into a native trace. One file an importer, one const struct
 * each, one table (importer.c). */
#ifndef MOE_TRACES_IMPORTER_H
#define MOE_TRACES_IMPORTER_H

#include "traces/trace.h"

typedef struct moe_importer {
    const char *name;     /* "npy" */
    const char *sentence; /* what it reads */
    bool (*recognise)(const char *path);
    /* Checks `path` and writes it as a native trace; shard_iterations as in moe_trace_writer_open.
     */
    moe_status (*import)(const char *path, const char *output, int64_t shard_iterations,
                         moe_diag *diag);
} moe_importer;

/* NULL-terminated. */
extern const moe_importer *const moe_importers[];

/* counts.npy + meta.json of one folder (`path`: the folder or the .npy): uint8, uint16 or uint32
 * [iteration][layer][source][expert], NumPy format 1.0/2.0/3.0, C order, little endian. */
extern const moe_importer moe_importer_npy;
/* experts.npy (+ probs.npy) + meta.json of one folder: uint8 or uint16, float32
 * [request][position][layer][slot]; a per-token recording. */
extern const moe_importer moe_importer_npy_tokens;
/* A native trace: checks it and writes it anew (re-sharding, CRCs). */
extern const moe_importer moe_importer_native;

#endif
