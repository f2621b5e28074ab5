#include "calibrate/fit/import.h"

#include "configs/base/memory.h"
#include <stdarg.h>
#include <string.h>
#include <talloc.h>

moe_import_tally *moe_import_tally_create(void *owner)
{
    return moe_need(talloc_zero(owner, moe_import_tally));
}

void moe_import_left_out(moe_import_tally *tally, size_t count, const char *format, ...)
{
    if (count == 0)
        return;
    va_list arguments;
    va_start(arguments, format);
    char *text = moe_need(talloc_vasprintf(tally, format, arguments));
    va_end(arguments);
    for (size_t i = 0; i < tally->count; i++) {
        if (strcmp(tally->reasons[i].text, text) == 0) {
            tally->reasons[i].count += count;
            talloc_free(text);
            return;
        }
    }
    tally->reasons = moe_need(
        talloc_realloc(tally, tally->reasons, moe_import_reason, (unsigned)tally->count + 1));
    tally->reasons[tally->count++] = (moe_import_reason){text, count};
}
