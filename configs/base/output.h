/* Whole-or-nothing file writing: bytes go to a temporary file in the target's folder and appear
 * under the final name only when `moe_output_commit` has flushed, synced and renamed it. A full
 * disk, an error or SIGINT/SIGTERM/SIGHUP leaves the old file (or none) and removes the temporary
 * one. */
#ifndef MOE_CONFIGS_BASE_OUTPUT_H
#define MOE_CONFIGS_BASE_OUTPUT_H

#include "configs/base/diag.h"
#include "configs/base/status.h"
#include <stdio.h>

typedef struct moe_output moe_output;

/* NULL after a printed error. Freed by commit or abort, or aborted when `owner` is freed. */
moe_output *moe_output_open(void *owner, const char *path, moe_diag *diag);
FILE *moe_output_stream(moe_output *output); /* borrowed */
/* Every earlier write error (ferror) surfaces here, printed once: MOE_INTERNAL, nothing left
 * behind. */
moe_status moe_output_commit(moe_output *output, moe_diag *diag);
void moe_output_abort(moe_output *output);

/* Creates a folder and its parents. */
moe_status moe_folder_create(const char *path, moe_diag *diag);

/* Installs handlers for SIGINT, SIGTERM, SIGHUP that remove temporary files of open outputs, kill
 * the registered child processes and exit with 128 + signal. Call once in main. */
void moe_signals_install(void);
void moe_signals_add_child(int pid);
void moe_signals_remove_child(int pid);
/* In a forked child: default signal actions, forget the parent's temporary files and children. */
void moe_signals_reset_in_child(void);

#endif
