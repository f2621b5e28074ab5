/* What a function that can fail returns, and what the program exits with: the same numbers.
 *
 * The first function that knows the cause of an error prints it (configs/base/diag.h) and returns
 * one of these; its callers clean up and pass the status on without printing again. */
#ifndef MOE_CONFIGS_BASE_STATUS_H
#define MOE_CONFIGS_BASE_STATUS_H

typedef enum moe_status {
    MOE_OK = 0,         /* fine */
    MOE_BAD_INPUT = 1,  /* a file, key or value a user gave is wrong */
    MOE_INFEASIBLE = 2, /* the input is sound, but it does not fit (memory, divisibility of work) */
    MOE_USAGE = 64,     /* the command line itself is wrong */
    MOE_INTERNAL = 70,  /* our fault, or the machine's: out of memory, a full disk, a lost child */
} moe_status;

#endif
