#include "configs/base/memory.h"
#include "configs/base/status.h"
#include <stdio.h>
#include <stdlib.h>

void moe_out_of_memory(void)
{
    fputs("moeplan: error: out of memory\n", stderr);
    exit(MOE_INTERNAL);
}

void *moe_need(void *pointer)
{
    if (!pointer) {
        moe_out_of_memory();
    }
    return pointer;
}
