#include "traces/mapping.h"

#include "configs/base/memory.h"
#include "configs/base/random.h"
#include "traces/counts.h"
#include "traces/trace_internal.h"
#include <assert.h>
#include <gsl/gsl_randist.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <talloc.h>

/* --- the `trace:` key ----------------------------------------------------------------------- */

static const char *const source_rules[] = {"exact", "fold", "tile", NULL};
static const char *const layer_rules[] = {"exact", "cycle", NULL};
static const char *const batch_rules[] = {"exact", "split", NULL};
static const char *const scale_rules[] = {"plain", "resample", NULL};

static const moe_field trace_use_fields[] = {
    {.key = "file",
     .type = MOE_FIELD_PATH,
     .required = true,
     .offset = offsetof(moe_trace_use, file),
     .sentence =
         "The recorded routing: NAME.safetensors, or NAME.safetensors.index.json for shards."},
    {.key = "window",
     .type = MOE_FIELD_REALS,
     .dimension = MOE_COUNT,
     .offset = offsetof(moe_trace_use, window),
     .sentence =
         "[first, last): the iterations of the trace that are used, in order; all if absent."},
    {.key = "sources",
     .type = MOE_FIELD_CHOICE,
     .default_text = "exact",
     .offset = offsetof(moe_trace_use, sources),
     .choices = source_rules,
     .sentence = "How recorded source ranks become those of the scenario: exact (as many), fold "
                 "(contiguous groups are added), tile (each stands for several)."},
    {.key = "layers",
     .type = MOE_FIELD_CHOICE,
     .default_text = "exact",
     .offset = offsetof(moe_trace_use, layers),
     .choices = layer_rules,
     .sentence =
         "How recorded layers become those of the model: exact (as many), cycle (in turns, the "
         "experts of later passes relabelled by a seeded permutation)."},
    {.key = "micro_batches",
     .type = MOE_FIELD_CHOICE,
     .default_text = "exact",
     .offset = offsetof(moe_trace_use, micro_batches),
     .choices = batch_rules,
     .sentence =
         "exact: one recorded dispatch for each micro-batch; split: a recorded cell is dealt to "
         "micro-batches by a seeded draw, which the report marks."},
    {.key = "tokens_per_source",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "0",
     .offset = offsetof(moe_trace_use, tokens_per_source),
     .low = 0,
     .high = INT32_MAX,
     .sentence = "Tokens of every source in a micro-batch, to which its counts are scaled; 0: as "
                 "recorded."},
    {.key = "scale",
     .type = MOE_FIELD_CHOICE,
     .default_text = "plain",
     .offset = offsetof(moe_trace_use, scale),
     .choices = scale_rules,
     .sentence =
         "plain: recorded shares rounded by largest remainders; resample: a seeded multinomial "
         "draw from the smoothed shares."},
    {.key = "smoothing",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_NUMBER,
     .default_text = "0.5",
     .offset = offsetof(moe_trace_use, smoothing),
     .low = 0,
     .high = 1e6,
     .sentence =
         "Assignments added to every expert's recorded count before shares are taken; only for "
         "scale: resample (0.5: Jeffreys' prior)."},
    {.key = "repeat",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "1",
     .offset = offsetof(moe_trace_use, repeat),
     .low = 1,
     .high = 1e9,
     .sentence = "How often the window is run through."},
    {0},
};

const moe_table moe_trace_use_table = {
    .noun = "trace",
    .sentence = "Recorded routing and the rules that map it to the scenario; without a rule every "
                "difference in shape is an error.",
    .size = sizeof(moe_trace_use),
    .fields = trace_use_fields,
};

/* --- the noun ------------------------------------------------------------------------------- */

struct moe_routing {
    const moe_trace *trace; /* borrowed */
    const moe_trace_info *info;
    moe_trace_use use;
    moe_routing_target target;
    uint64_t seed;
    int64_t first;  /* of the window */
    int64_t length; /* of the window */
    int fold;       /* recorded sources added to one; 1: none */
    int tile;       /* copies of a recorded source; 1: none */
    int parts;      /* into which a recorded cell is dealt; 0: it is not */
    bool marked;
    json_t *rules;
    gsl_rng *random;
    uint32_t *relabel; /* [passes - 1][experts]: where a recorded expert goes from pass 2 on */
    /* Scratch of one read. */
    uint32_t *recorded;        /* [recorded sources][experts] */
    uint32_t *recorded_tokens; /* [recorded sources] */
    uint32_t *tokens;          /* [target sources] */
    uint32_t *row, *pool;      /* [experts] */
    int32_t *remainders;       /* [experts] */
};

static int routing_destroy(moe_routing *routing)
{
    json_decref(routing->rules);
    gsl_rng_free(routing->random);
    return 0;
}

int64_t moe_routing_iterations(const moe_routing *routing)
{
    return routing->length * routing->use.repeat;
}

const moe_routing_target *moe_routing_get_target(const moe_routing *routing)
{
    return &routing->target;
}

int64_t moe_routing_recorded_iteration(const moe_routing *routing, int64_t iteration)
{
    return routing->first + iteration % routing->length;
}

bool moe_routing_is_marked(const moe_routing *routing)
{
    return routing->marked;
}

json_t *moe_routing_rules(const moe_routing *routing)
{
    return json_deep_copy(routing->rules);
}

/* --- checks of the rules against trace and scenario ----------------------------------------- */

/* What creation passes around. */
typedef struct binding {
    moe_routing *routing;
    const moe_trace_use *written; /* the caller's struct: its members have places in the config */
    const moe_config *config;
    moe_diag *diag;
} binding;

static moe_where place(const binding *b, const void *member)
{
    return b->config == NULL ? (moe_where){0} : moe_config_where(b->config, member);
}

static __attribute__((format(printf, 2, 3))) void add_rule(const binding *b, const char *format,
                                                           ...)
{
    va_list arguments;
    va_start(arguments, format);
    json_array_append_new(b->routing->rules, json_vsprintf(format, arguments));
    va_end(arguments);
}

static bool is_index(double value, int64_t limit)
{
    return value >= 0 && value <= (double)limit && value == floor(value);
}

static void bind_window(const binding *b)
{
    moe_routing *r = b->routing;
    const moe_reals *window = &b->written->window;
    const int64_t recorded = r->info->shape.iterations;
    r->length = recorded;
    if (window->count == 0)
        return;
    if (window->count != 2 || !is_index(window->values[0], recorded) ||
        !is_index(window->values[1], recorded) || window->values[0] >= window->values[1]) {
        moe_diag_error(b->diag, place(b, window),
                       "the trace has iterations 0 to %" PRId64
                       "; expected window: [first, last] with 0 <= first < last <= %" PRId64,
                       recorded - 1, recorded);
        return;
    }
    r->first = (int64_t)window->values[0];
    r->length = (int64_t)window->values[1] - r->first;
    if (r->length < recorded)
        add_rule(b, "window: iterations %" PRId64 " to %" PRId64 " of the %" PRId64 " recorded",
                 r->first, r->first + r->length - 1, recorded);
}

/* Every dispatch of the run needs its own number for the random streams. */
static void bind_repeat(const binding *b)
{
    const moe_routing_target *target = &b->routing->target;
    int64_t streams = b->routing->length;
    if (b->written->repeat < 1 || __builtin_mul_overflow(streams, b->written->repeat, &streams) ||
        __builtin_mul_overflow(streams, (int64_t)target->micro_batches * target->layers,
                               &streams) ||
        __builtin_mul_overflow(streams, target->sources, &streams))
        moe_diag_error(b->diag, place(b, &b->written->repeat),
                       "a window of %" PRId64 " iterations cannot be repeated %" PRId64 " times",
                       b->routing->length, b->written->repeat);
    else if (b->written->repeat > 1)
        add_rule(b, "repeat: the window is run through %" PRId64 " times", b->written->repeat);
}

static void bind_gate(const binding *b)
{
    const moe_trace_info *info = b->routing->info;
    const moe_routing_target *target = &b->routing->target;
    if (info->shape.experts != target->experts)
        moe_diag_error(
            b->diag, place(b, &b->written->file),
            "the trace routes to %" PRId64
            " experts, the model has %d; no rule maps experts: use a trace of such a model",
            info->shape.experts, target->experts);
    if (info->top_k == 0 && target->top_k != 0)
        add_rule(b, "top_k: varies from token to token in the trace; the model's %d is not used",
                 target->top_k);
    else if (info->top_k != target->top_k)
        moe_diag_error(b->diag, place(b, &b->written->file),
                       "the trace has top_k %" PRId64 ", the model %d; no rule maps it: use a "
                       "trace of such a model",
                       info->top_k, target->top_k);
}

/* What a user may do about `recorded` sources where `wanted` are needed. */
static const char *source_advice(int64_t recorded, int64_t wanted)
{
    if (recorded % wanted == 0)
        return "`sources: fold` adds the recorded ones in equal groups";
    if (wanted % recorded == 0)
        return "`sources: tile` lets each recorded one stand for several";
    return "no rule maps them: fold and tile need one number to be a multiple of the other";
}

static void bind_sources(const binding *b)
{
    moe_routing *r = b->routing;
    const int64_t recorded = r->info->shape.sources;
    const int64_t wanted = r->target.sources;
    const int rule = b->written->sources;
    if (rule == MOE_SOURCES_FOLD && recorded % wanted == 0) {
        r->fold = (int)(recorded / wanted);
    } else if (rule == MOE_SOURCES_TILE && wanted % recorded == 0) {
        r->tile = (int)(wanted / recorded);
    } else if (recorded != wanted) {
        moe_diag_error(b->diag, place(b, &b->written->sources),
                       "the trace has %" PRId64 " source ranks, the scenario %" PRId64
                       ", and the rule is %s; %s",
                       recorded, wanted, source_rules[rule], source_advice(recorded, wanted));
        return;
    }
    if (r->fold > 1)
        add_rule(b, "sources: %" PRId64 " recorded, every %d added to one of %" PRId64, recorded,
                 r->fold, wanted);
    if (r->tile > 1)
        add_rule(b, "sources: %" PRId64 " recorded, each stands for %d of %" PRId64 ", %s",
                 recorded, r->tile, wanted,
                 b->written->scale == MOE_SCALE_RESAMPLE ? "each with a draw of its own"
                                                         : "all with its counts");
}

static void bind_layers(const binding *b)
{
    const int64_t recorded = b->routing->info->shape.layers;
    const int wanted = b->routing->target.layers;
    if (recorded == wanted)
        return;
    if (b->written->layers == MOE_LAYERS_EXACT) {
        moe_diag_error(b->diag, place(b, &b->written->layers),
                       "the trace has %" PRId64 " MoE layers, the model %d, and the rule is exact; "
                       "`layers: cycle` takes the recorded ones in turns",
                       recorded, wanted);
        return;
    }
    if (wanted > recorded)
        add_rule(b,
                 "layers: %" PRId64 " recorded, cycled to %d; from layer %" PRId64
                 " on the experts of each pass are relabelled by a seeded permutation",
                 recorded, wanted, recorded);
    else
        add_rule(b, "layers: the first %d of %" PRId64 " recorded", wanted, recorded);
}

/* Into how many parts a cell is dealt. A cell that sums over N passes is dealt to N even where
 * fewer micro-batches are run: each is then one pass, and the rest goes unused. */
static int64_t count_parts(const moe_routing *r)
{
    const int64_t wanted = r->target.micro_batches;
    if (r->info->aggregation == MOE_AGGREGATION_WINDOW && r->info->window > wanted)
        return r->info->window;
    return wanted;
}

static void bind_split(const binding *b)
{
    moe_routing *r = b->routing;
    if (r->info->shape.micro_batches != 1) {
        moe_diag_error(b->diag, place(b, &b->written->micro_batches),
                       "the trace has %" PRId64
                       " micro-batches, the scenario %d; split needs a trace "
                       "with 1",
                       r->info->shape.micro_batches, r->target.micro_batches);
        return;
    }
    r->parts = (int)count_parts(r);
    r->marked = r->marked || r->parts > 1;
    add_rule(b,
             "micro_batches: a recorded cell (summed over each %s) is dealt to %d parts by a "
             "seeded draw "
             "without replacement; %d of them are the micro-batches",
             moe_aggregation_names[r->info->aggregation], r->parts, r->target.micro_batches);
}

static void bind_micro_batches(const binding *b)
{
    const moe_trace_info *info = b->routing->info;
    const int wanted = b->routing->target.micro_batches;
    const bool is_exact =
        info->aggregation == MOE_AGGREGATION_DISPATCH && info->shape.micro_batches == wanted;
    if (is_exact)
        return;
    if (b->written->micro_batches == MOE_BATCHES_SPLIT)
        bind_split(b);
    else if (info->aggregation != MOE_AGGREGATION_DISPATCH)
        moe_diag_error(b->diag, place(b, &b->written->micro_batches),
                       "each count of the trace sums over a whole %s, not over one dispatch; "
                       "`micro_batches: split` deals it to micro-batches by a seeded draw",
                       moe_aggregation_names[info->aggregation]);
    else
        moe_diag_error(b->diag, place(b, &b->written->micro_batches),
                       "the trace has %" PRId64 " micro-batches, the scenario %d, and the rule is "
                       "exact; %s",
                       info->shape.micro_batches, wanted,
                       info->shape.micro_batches == 1
                           ? "`micro_batches: split` cuts a recorded one by a seeded draw"
                           : "no rule maps them");
}

static void bind_scale(const binding *b)
{
    const moe_routing *r = b->routing;
    const int64_t tokens = b->written->tokens_per_source;
    const int64_t most = r->info->top_k > 0 ? r->info->top_k : r->info->shape.experts;
    if (tokens < 0 || tokens > INT32_MAX / most)
        moe_diag_error(b->diag, place(b, &b->written->tokens_per_source),
                       "%" PRId64 " tokens with up to %" PRId64 " assignments each; expected less "
                       "than 2^31 assignments",
                       tokens, most);
    else if (tokens > 0)
        add_rule(b, "tokens_per_source: every source has %" PRId64 " tokens in a micro-batch",
                 tokens);
    if (b->written->scale == MOE_SCALE_RESAMPLE)
        add_rule(b, "scale: counts are drawn anew from the recorded shares, smoothed by %g",
                 b->written->smoothing);
    else if (tokens > 0)
        add_rule(b, "scale: recorded shares are rounded by largest remainders");
}

/* --- one look at all that will be replayed -------------------------------------------------- */

/* Sums of one target source over the recorded sources that are folded into it. */
static void sum_group(const moe_routing *r, int64_t group, uint64_t *assignments, uint64_t *tokens)
{
    const size_t experts = (size_t)r->info->shape.experts;
    *assignments = *tokens = 0;
    for (int64_t s = group * r->fold; s < (group + 1) * r->fold; s++) {
        *assignments += moe_counts_sum(r->recorded + (size_t)s * experts, experts);
        *tokens += r->recorded_tokens[s];
    }
}

/* False (after a printed error) when a dispatch cannot be used. Finds out on the way whether
 * scaling changes anything. */
static bool survey_dispatch(const binding *b, int64_t iteration, int64_t micro_batch, int64_t layer)
{
    moe_routing *r = b->routing;
    const int64_t groups = r->info->shape.sources / r->fold;
    moe_trace_read(r->trace, iteration, micro_batch, layer, r->recorded, r->recorded_tokens);
    for (int64_t g = 0; g < groups; g++) {
        uint64_t assignments;
        uint64_t tokens;
        sum_group(r, g, &assignments, &tokens);
        r->marked = r->marked ||
                    (r->use.tokens_per_source > 0 && tokens != (uint64_t)r->use.tokens_per_source);
        if (moe_trace_is_sound(r->info, assignments, tokens) && assignments <= INT32_MAX &&
            tokens <= INT32_MAX)
            continue;
        moe_diag_error(b->diag, place(b, &b->written->file),
                       "iteration %" PRId64 ", layer %" PRId64 ", source %" PRId64
                       " of the trace: %" PRIu64 " assignments of %" PRIu64
                       " tokens cannot be with top_k %" PRId64 "; `moeplan trace check` tells more",
                       iteration, layer, g * r->fold, assignments, tokens, r->info->top_k);
        return false;
    }
    return true;
}

/* A trace is a foreign file: every number that arithmetic relies on later is checked here, once. */
static void survey(const binding *b)
{
    const moe_routing *r = b->routing;
    const moe_trace_shape *shape = &r->info->shape;
    const int64_t layers = shape->layers < r->target.layers ? shape->layers : r->target.layers;
    for (int64_t t = r->first; t < r->first + r->length; t++) {
        for (int64_t m = 0; m < shape->micro_batches; m++) {
            for (int64_t l = 0; l < layers; l++) {
                if (!survey_dispatch(b, t, m, l))
                    return;
            }
        }
    }
}

/* --- creation ------------------------------------------------------------------------------- */

static void allocate(moe_routing *r)
{
    const moe_trace_shape *shape = &r->info->shape;
    r->recorded = moe_need(talloc_array(r, uint32_t, (size_t)moe_trace_dispatch_cells(shape)));
    r->recorded_tokens = moe_need(talloc_array(r, uint32_t, (size_t)shape->sources));
    r->tokens = moe_need(talloc_array(r, uint32_t, (size_t)r->target.sources));
    r->row = moe_need(talloc_array(r, uint32_t, (size_t)shape->experts));
    r->pool = moe_need(talloc_array(r, uint32_t, (size_t)shape->experts));
    r->remainders = moe_need(talloc_array(r, int32_t, (size_t)shape->experts));
}

/* A permutation for every pass over the recorded layers but the first. */
static void create_relabelling(moe_routing *r)
{
    const size_t experts = (size_t)r->info->shape.experts;
    const size_t passes = (size_t)((r->target.layers - 1) / r->info->shape.layers);
    r->relabel = moe_need(talloc_array(r, uint32_t, passes * experts));
    for (size_t p = 0; p < passes; p++) {
        uint32_t *permutation = r->relabel + p * experts;
        for (size_t e = 0; e < experts; e++)
            permutation[e] = (uint32_t)e;
        moe_random_reseed(r->random, r->seed, "routing relabel", p);
        gsl_ran_shuffle(r->random, permutation, experts, sizeof *permutation);
    }
}

static moe_routing *routing_alloc(void *owner, const moe_trace *trace, const moe_trace_use *use,
                                  const moe_routing_target *target, uint64_t seed)
{
    moe_routing *r = moe_need(talloc_zero(owner, moe_routing));
    r->trace = trace;
    r->info = moe_trace_get_info(trace);
    r->use = *use;
    r->target = *target;
    r->seed = seed;
    r->fold = r->tile = 1;
    r->marked = use->scale == MOE_SCALE_RESAMPLE;
    r->rules = json_array();
    r->random = moe_random_create(seed, "routing", 0);
    talloc_set_destructor(r, routing_destroy);
    return r;
}

moe_routing *moe_routing_create(void *owner, const moe_trace *trace, const moe_trace_use *use,
                                const moe_routing_target *target, uint64_t seed,
                                const moe_config *config, moe_diag *diag)
{
    assert(target->layers > 0 && target->sources > 0 && target->experts > 0 &&
           target->micro_batches > 0);
    const int errors = moe_diag_error_count(diag);
    moe_routing *r = routing_alloc(owner, trace, use, target, seed);
    const binding b = {r, use, config, diag};
    bind_window(&b);
    bind_repeat(&b);
    bind_gate(&b);
    bind_sources(&b);
    bind_layers(&b);
    bind_micro_batches(&b);
    bind_scale(&b);
    if (moe_diag_error_count(diag) == errors) {
        allocate(r);
        create_relabelling(r);
        survey(&b);
    }
    if (moe_diag_error_count(diag) == errors)
        return r;
    talloc_free(r);
    return NULL;
}

/* --- reading -------------------------------------------------------------------------------- */

/* The dispatch being read; counts and tokens are the caller's (tokens maybe the scratch). */
typedef struct reading {
    moe_routing *routing;
    int64_t iteration;
    int micro_batch;
    int layer;
    uint32_t *counts;
    uint32_t *tokens;
} reading;

static uint32_t *source_counts(const reading *d, int source)
{
    return d->counts + (size_t)source * (size_t)d->routing->target.experts;
}

static void fold_sources(const reading *d)
{
    const moe_routing *r = d->routing;
    const size_t experts = (size_t)r->target.experts;
    memset(d->counts, 0, (size_t)r->target.sources * experts * sizeof *d->counts);
    memset(d->tokens, 0, (size_t)r->target.sources * sizeof *d->tokens);
    for (int s = 0; s < r->target.sources * r->fold; s++) {
        const uint32_t *from = r->recorded + (size_t)s * experts;
        uint32_t *to = source_counts(d, s / r->fold);
        for (size_t e = 0; e < experts; e++)
            to[e] += from[e];
        d->tokens[s / r->fold] += r->recorded_tokens[s];
    }
}

static void tile_sources(const reading *d)
{
    const moe_routing *r = d->routing;
    const size_t experts = (size_t)r->target.experts;
    for (int s = 0; s < r->target.sources; s++) {
        const int from = s / r->tile;
        memcpy(source_counts(d, s), r->recorded + (size_t)from * experts,
               experts * sizeof *d->counts);
        d->tokens[s] = r->recorded_tokens[from];
    }
}

static void read_sources(const reading *d)
{
    const moe_routing *r = d->routing;
    const int64_t iteration = moe_routing_recorded_iteration(r, d->iteration);
    const int64_t micro_batch = r->parts > 0 ? 0 : d->micro_batch;
    const int64_t layer = d->layer % r->info->shape.layers;
    if (r->fold == 1 && r->tile == 1) {
        moe_trace_read(r->trace, iteration, micro_batch, layer, d->counts, d->tokens);
        return;
    }
    moe_trace_read(r->trace, iteration, micro_batch, layer, r->recorded, r->recorded_tokens);
    if (r->fold > 1)
        fold_sources(d);
    else
        tile_sources(d);
}

static void relabel_experts(const reading *d)
{
    const moe_routing *r = d->routing;
    const size_t experts = (size_t)r->target.experts;
    const size_t pass = (size_t)(d->layer / r->info->shape.layers);
    if (pass == 0)
        return;
    const uint32_t *permutation = r->relabel + (pass - 1) * experts;
    for (int s = 0; s < r->target.sources; s++) {
        uint32_t *counts = source_counts(d, s);
        memcpy(r->row, counts, experts * sizeof *counts);
        for (size_t e = 0; e < experts; e++)
            counts[permutation[e]] = r->row[e];
    }
}

/* Restarts the generator for one source of this dispatch, or of all micro-batches of it. */
static gsl_rng *stream(const reading *d, const char *purpose, int micro_batches, int micro_batch,
                       int source)
{
    const moe_routing *r = d->routing;
    uint64_t index = (uint64_t)d->iteration * (uint64_t)micro_batches + (uint64_t)micro_batch;
    index = index * (uint64_t)r->target.layers + (uint64_t)d->layer;
    index = index * (uint64_t)r->target.sources + (uint64_t)source;
    moe_random_reseed(r->random, r->seed, purpose, index);
    return r->random;
}

/* Deals one source's cell: parts have equal tokens up to one, and assignments in proportion. The
 * draws of the earlier parts are repeated, so that a part does not depend on what was read before.
 */
static void split_source(const reading *d, int source)
{
    const moe_routing *r = d->routing;
    const size_t experts = (size_t)r->target.experts;
    const uint64_t parts = (uint64_t)r->parts;
    const uint64_t tokens = d->tokens[source];
    uint32_t *counts = source_counts(d, source);
    const uint64_t sum = moe_counts_sum(counts, experts);
    uint64_t tokens_before = 0;
    uint64_t before = 0;
    if (tokens == 0)
        return;
    const gsl_rng *random = stream(d, "routing split", 1, 0, source);
    memcpy(r->pool, counts, experts * sizeof *counts);
    for (uint64_t part = 0; part <= (uint64_t)d->micro_batch; part++) {
        const uint64_t tokens_after = tokens * (part + 1) / parts;
        const uint64_t after = sum * tokens_after / tokens;
        moe_counts_take(r->pool, experts, (uint32_t)(sum - before), (uint32_t)(after - before),
                        counts, random);
        d->tokens[source] = (uint32_t)(tokens_after - tokens_before);
        tokens_before = tokens_after;
        before = after;
    }
}

/* A source that recorded no tokens takes the shares of the whole dispatch. Puts them into the pool,
 * halved until scaling can take their sum, and returns the assignments of a token. */
static double pool_dispatch(const reading *d)
{
    const moe_routing *r = d->routing;
    const size_t experts = (size_t)r->target.experts;
    const size_t sources = (size_t)r->target.sources;
    const uint64_t sum = moe_counts_sum(d->counts, sources * experts);
    const uint64_t tokens = moe_counts_sum(d->tokens, sources);
    int halvings = 0;
    while (sum >> halvings > INT32_MAX)
        halvings++;
    for (size_t e = 0; e < experts; e++) {
        uint64_t total = 0;
        for (size_t s = 0; s < sources; s++)
            total += d->counts[s * experts + e];
        r->pool[e] = (uint32_t)(total >> halvings);
    }
    return tokens == 0 ? 0.0 : (double)sum / (double)tokens;
}

/* How many assignments a busy source is to have with `tokens` tokens. */
static uint32_t wanted_assignments(const moe_routing *r, uint64_t tokens, uint64_t recorded_sum,
                                   uint64_t recorded_tokens)
{
    if (r->info->top_k > 0)
        return (uint32_t)(tokens * (uint64_t)r->info->top_k);
    return (uint32_t)((2 * tokens * recorded_sum + recorded_tokens) / (2 * recorded_tokens));
}

/* `pool_per_token`: assignments of a token in the dispatch, of which the pool has the shares. */
static void scale_source(const reading *d, int source, double pool_per_token)
{
    const moe_routing *r = d->routing;
    const size_t experts = (size_t)r->target.experts;
    const uint64_t recorded = d->tokens[source];
    const uint64_t tokens =
        r->use.tokens_per_source > 0 ? (uint64_t)r->use.tokens_per_source : recorded;
    uint32_t *counts = source_counts(d, source);
    const bool is_idle = recorded == 0;
    if (is_idle && (tokens == 0 || pool_per_token == 0.0))
        return;
    if (is_idle)
        memcpy(counts, r->pool, experts * sizeof *counts);
    const uint64_t sum = moe_counts_sum(counts, experts);
    const uint32_t wanted = is_idle ? (uint32_t)llround((double)tokens * pool_per_token)
                                    : wanted_assignments(r, tokens, sum, recorded);
    d->tokens[source] = (uint32_t)tokens;
    if (sum == 0) /* null experts took all */
        return;
    if (r->use.scale == MOE_SCALE_RESAMPLE)
        moe_counts_resample(
            counts, experts, r->use.smoothing, wanted,
            stream(d, "routing resample", r->target.micro_batches, d->micro_batch, source));
    else
        moe_counts_scale(counts, experts, (uint32_t)sum, wanted, r->remainders);
}

static void scale_sources(const reading *d)
{
    const moe_routing *r = d->routing;
    bool has_idle = false;
    if (r->use.tokens_per_source == 0 && r->use.scale == MOE_SCALE_PLAIN)
        return;
    for (int s = 0; s < r->target.sources; s++)
        has_idle = has_idle || d->tokens[s] == 0;
    const double pool_per_token = has_idle ? pool_dispatch(d) : 0.0;
    for (int s = 0; s < r->target.sources; s++)
        scale_source(d, s, pool_per_token);
}

void moe_routing_read(moe_routing *routing, int64_t iteration, int micro_batch, int layer,
                      uint32_t *counts, uint32_t *tokens)
{
    const moe_routing_target *target = &routing->target;
    assert(iteration >= 0 && iteration < moe_routing_iterations(routing));
    assert(micro_batch >= 0 && micro_batch < target->micro_batches);
    assert(layer >= 0 && layer < target->layers);
    const reading d = {routing, iteration, micro_batch,
                       layer,   counts,    tokens == NULL ? routing->tokens : tokens};
    read_sources(&d);
    relabel_experts(&d);
    for (int s = 0; s < target->sources && routing->parts > 1; s++)
        split_source(&d, s);
    scale_sources(&d);
}
