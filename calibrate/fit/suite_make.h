/* Which points a suite asks for, from the shapes of models and from recorded routing.
 *
 *   gemm          a full grid: m in powers of two, n the widths of the models' projections, gates and
 *                 FFNs (and steps of 8 between), k the same and the tokens of a step, so that forward
 *                 (tokens, n, k), input gradient (tokens, k, n) and weight gradient (n, k, tokens) of
 *                 every matrix lie within it. Where the grid would have more than `points`, m is taken
 *                 in larger steps, then widths that lie closest to another (in ratio) are left out
 *   experts       all three phases, grouped (or `ungrouped`). Rows uniform (multiples of tiles and
 *                 between them); a power law, (i + 1)^-1.2; and recorded: `tokens` a device, in the
 *                 shares of sampled dispatches of the traces, experts dealt to devices in contiguous
 *                 groups, the device with the most rows, the median and the fewest, at several
 *                 expert-parallel degrees
 *   attention, norm, gate, permute, adam, head    sizes around those of a step
 *   collectives   8 B to 1 GiB; the sizes that a step has; all-to-all-v by the recorded matrices,
 *                 folded to `ranks` devices, and by matrices with one hot sender or receiver; grouped
 *                 broadcasts and reduces of expert-sized chunks
 *   interference, sharing, launch, copy
 *
 * Everything is a function of models, traces and options alone: equal input, equal suite. */
#ifndef MOE_CALIBRATE_FIT_SUITE_MAKE_H
#define MOE_CALIBRATE_FIT_SUITE_MAKE_H

#include "calibrate/fit/suite_points.h"
#include "models/network.h"
#include "traces/trace.h"

enum { MOE_SUITE_SOURCES_MAX = 32, MOE_SUITE_CHUNK_COUNTS_MAX = 16 };

typedef struct moe_suite_options {
    const char *dtype; /* of matrices and activations: "bf16", ... */
    double value_bytes;
    int ranks;                                    /* that collectives take */
    int64_t tokens;                               /* of one device in one dispatch */
    int64_t most_rows;                            /* of one kernel */
    bool ungrouped;                               /* experts by one GEMM each: all that a CPU has */
    int points;                                   /* of the grid of GEMMs, at most */
    int chunk_counts[MOE_SUITE_CHUNK_COUNTS_MAX]; /* of grouped broadcasts and reduces */
    int chunk_count_count;
} moe_suite_options;

typedef struct moe_suite_input {
    const moe_network *models[MOE_SUITE_SOURCES_MAX];
    int model_count;
    const moe_trace *traces[MOE_SUITE_SOURCES_MAX]; /* each has the experts of at least one model */
    int trace_count;
} moe_suite_input;

/* Values that several models share are measured once. */
void moe_suite_add_gemms(moe_suite_points *suite, const moe_suite_input *input,
                         const moe_suite_options *options);
/* All but GEMMs, experts and collectives. */
void moe_suite_add_parts(moe_suite_points *suite, const moe_network *model,
                         const moe_suite_options *options);
void moe_suite_add_host(moe_suite_points *suite);
void moe_suite_add_experts(moe_suite_points *suite, const moe_network *model,
                           const moe_suite_options *options);
void moe_suite_add_recorded(moe_suite_points *suite, const moe_network *model,
                            const moe_trace *trace, const moe_suite_options *options);
void moe_suite_add_collectives(moe_suite_points *suite, const moe_suite_options *options);
void moe_suite_add_exchanges(moe_suite_points *suite, const moe_network *model,
                             const moe_suite_options *options);
void moe_suite_add_recorded_exchanges(moe_suite_points *suite, const moe_network *model,
                                      const moe_trace *trace, const moe_suite_options *options);

/* --- what the files of this noun share ---------------------------------------------------------- */

/* A dispatch of a trace, scaled: counts[sources][experts] assignments. */
typedef struct moe_suite_dispatch {
    int64_t iteration, micro_batch, layer;
} moe_suite_dispatch;

enum { MOE_SUITE_DISPATCHES = 4 };

/* Dispatches spread over a trace's iterations and layers; their number. */
int moe_suite_sample(const moe_trace *trace, moe_suite_dispatch dispatches[MOE_SUITE_DISPATCHES]);

static inline bool moe_suite_matches(const moe_network *model, const moe_trace *trace)
{
    return moe_trace_get_info(trace)->shape.experts == model->experts;
}

/* Everything but GEMMs and experts is measured in a format that has a sum: fp8 is bf16 there. */
const char *moe_suite_plain_dtype(const moe_suite_options *options);
double moe_suite_plain_bytes(const moe_suite_options *options);

#endif
