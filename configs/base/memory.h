/* Running out of memory ends the program (exit code 70): no caller has an error path for it. */
#ifndef MOE_CONFIGS_BASE_MEMORY_H
#define MOE_CONFIGS_BASE_MEMORY_H

/* Prints one line to stderr and exits with MOE_INTERNAL. */
_Noreturn void moe_out_of_memory(void);

/* `pointer` itself; never NULL. Wrap it around talloc calls. */
void *moe_need(void *pointer);

#endif
