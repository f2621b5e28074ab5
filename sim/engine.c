#include "sim/engine.h"

#include <string.h>

double moe_sharing_weight(const moe_sharing *sharing, moe_collective_kind kind, double flows)
{
    switch (sharing->rule) {
    case MOE_SHARE_PER_FLOW:
        return flows;
    case MOE_SHARE_WEIGHTED:
        return sharing->weights[kind];
    default:
        return 1;
    }
}

const moe_engine *const moe_engines[] = {&moe_engine_fluid, &moe_engine_analytic,
                                         &moe_engine_message, NULL};

const moe_engine *moe_engine_find(const char *name)
{
    for (size_t i = 0; moe_engines[i]; i++)
        if (strcmp(moe_engines[i]->name, name) == 0)
            return moe_engines[i];
    return NULL;
}

static bool touches(const moe_traffic *traffic, int device, int k)
{
    const uint64_t *row = traffic->touches + (size_t)device * (size_t)traffic->words;
    return row[k / 64] >> (k % 64) & 1;
}

/* The port after `previous` in the order of descending drain, then ascending index; -1 at its end.
 */
static int next_hottest(const moe_traffic *traffic, const double *drain_s, int previous)
{
    int hottest = -1;
    for (int k = 0; k < traffic->port_count; k++) {
        const bool behind = previous < 0 || drain_s[k] < drain_s[previous] ||
                            (drain_s[k] == drain_s[previous] && k > previous);
        if (behind && (hottest < 0 || drain_s[k] > drain_s[hottest]))
            hottest = k;
    }
    return hottest;
}

static int last_in_row(const moe_traffic *traffic, const double *drain_s, int device)
{
    const uint64_t *row = traffic->touches + (size_t)device * (size_t)traffic->words;
    int last = -1;
    for (int word = 0; word < traffic->words; word++) {
        for (uint64_t bits = row[word]; bits; bits &= bits - 1) {
            const int k = 64 * word + __builtin_ctzll(bits);
            if (last < 0 || drain_s[k] > drain_s[last])
                last = k;
        }
    }
    return last;
}

/* In an all-to-all nearly every device touches one of the few hottest ports, so those are tried on
 * all devices first; only who touches none of them has its row of ports read. */
void moe_engine_last_ports(const moe_traffic *traffic, const double *drain_s, int *last)
{
    enum { HOT_PORTS = 4 };
    int open = traffic->devices;
    for (int device = 0; device < traffic->devices; device++)
        last[device] = -1;
    for (int round = 0, hot = -1; round < HOT_PORTS && open > 0; round++) {
        hot = next_hottest(traffic, drain_s, hot);
        if (hot < 0)
            return;
        for (int device = 0; device < traffic->devices; device++) {
            if (last[device] < 0 && touches(traffic, device, hot)) {
                last[device] = hot;
                open--;
            }
        }
    }
    for (int device = 0; device < traffic->devices; device++)
        if (last[device] < 0)
            last[device] = last_in_row(traffic, drain_s, device);
}
