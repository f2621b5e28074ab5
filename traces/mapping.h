/* Routing: a recorded trace mapped to the shape of a scenario, by explicit rules only.
 *
 * A trace whose sources, layers, experts, tokens or micro-batches differ from the scenario's is an
 * error unless a rule says how to map it; every rule applied is repeated in the report.
 *
 *   window         [first, last): iterations of the trace that are used, in order
 *   repeat         the window is run through this many times
 *   sources        exact | fold | tile
 *                  fold: recorded sources are dealt to target sources in contiguous groups, their
 *                  counts added (needs recorded % target == 0)
 *                  tile: each recorded source stands for several, each of them with its counts
 *                  (needs target % recorded == 0); `resample` and `split` draw for each anew
 *   layers         exact | cycle
 *                  cycle: target layer l takes recorded layer l % recorded; from the second pass
 *                  on the experts of each pass are relabelled by a seeded permutation, so that the
 *                  same device is not hot in every copy (the first pass is not relabelled)
 *   micro_batches  exact | split
 *                  split: a recorded cell is dealt to the micro-batches by a seeded multivariate
 *                  hypergeometric draw (marked in the report). A cell that sums over a window of N
 *                  passes is dealt to at least N parts, of which the micro-batches are the first: a
 *                  part is never more than one pass. Needs 1 recorded micro-batch
 *   tokens_per_source  0: as recorded; else every source is scaled to this many in a micro-batch
 *   scale          plain | resample
 *                  plain: largest-remainder rounding of recorded shares * tokens * top_k
 *                  resample: multinomial draw from the shares (counts + smoothing) / sum
 *
 * Assignments of every source after scaling = tokens_per_source * top_k exactly (variable top-k:
 * tokens_per_source * recorded assignments / recorded tokens, rounded). A source without tokens in
 * a dispatch takes the shares of the dispatch when it is scaled; a dispatch without any stays
 * empty. Experts and top_k must be equal; a trace whose top_k varies goes with any.
 *
 * All draws come from random streams by (seed, iteration, micro-batch, layer, source), so the
 * counts of a dispatch do not depend on which others were asked for. */
#ifndef MOE_TRACES_MAPPING_H
#define MOE_TRACES_MAPPING_H

#include "configs/config.h"
#include "traces/trace.h"

typedef enum moe_source_rule {
    MOE_SOURCES_EXACT,
    MOE_SOURCES_FOLD,
    MOE_SOURCES_TILE
} moe_source_rule;
typedef enum moe_layer_rule { MOE_LAYERS_EXACT, MOE_LAYERS_CYCLE } moe_layer_rule;
typedef enum moe_batch_rule { MOE_BATCHES_EXACT, MOE_BATCHES_SPLIT } moe_batch_rule;
typedef enum moe_scale_rule { MOE_SCALE_PLAIN, MOE_SCALE_RESAMPLE } moe_scale_rule;

/* The `trace:` key of a scenario. */
typedef struct moe_trace_use {
    const char *file;
    moe_reals window;  /* two integers, or empty: all iterations */
    int sources;       /* moe_source_rule */
    int layers;        /* moe_layer_rule */
    int micro_batches; /* moe_batch_rule */
    int64_t tokens_per_source;
    int scale; /* moe_scale_rule */
    double smoothing;
    int64_t repeat;
} moe_trace_use;

extern const moe_table moe_trace_use_table;

/* What the scenario needs. */
typedef struct moe_routing_target {
    int layers;
    int sources;
    int experts;
    int top_k;
    int micro_batches;
} moe_routing_target;

typedef struct moe_routing moe_routing;

/* `trace` is borrowed and must outlive the routing. `config` locates errors (may be NULL in tests);
 * if it is not, `use` must be the struct bound by it. Reads the window once to check it. NULL after
 * printed errors. */
moe_routing *moe_routing_create(void *owner, const moe_trace *trace, const moe_trace_use *use,
                                const moe_routing_target *target, uint64_t seed,
                                const moe_config *config, moe_diag *diag);

int64_t moe_routing_iterations(const moe_routing *routing); /* window length * repeat */
const moe_routing_target *moe_routing_get_target(const moe_routing *routing);
/* The recorded iteration that `iteration` of the run replays. */
int64_t moe_routing_recorded_iteration(const moe_routing *routing, int64_t iteration);
/* Whether any count was changed by a draw or by scaling (not merely moved). */
bool moe_routing_is_marked(const moe_routing *routing);

/* One dispatch: counts[sources][experts] assignments and tokens[sources] distinct tokens (may be
 * NULL). A pure function of its arguments; uses the routing's scratch, so one thread at a time. */
void moe_routing_read(moe_routing *routing, int64_t iteration, int micro_batch, int layer,
                      uint32_t *counts, uint32_t *tokens);

/* One sentence for each rule applied, for report and provenance ("layers: 4 recorded, cycled to 12,
 * ..."). New reference: a JSON array of strings. */
json_t *moe_routing_rules(const moe_routing *routing);

#endif
