/* What a dying program has to undo: temporary files and child processes. Fixed tables, because a
 * signal handler may neither allocate nor lock. Private to configs/base; the public half is in
 * output.h. */
#ifndef MOE_CONFIGS_BASE_SIGNALS_H
#define MOE_CONFIGS_BASE_SIGNALS_H

/* Remembers a file to unlink when the program ends before it is forgotten; -1 when the table is
 * full or the path too long (the file then merely survives a signal). */
int moe_signals_add_file(const char *path);
void moe_signals_remove_file(int slot);

#endif
