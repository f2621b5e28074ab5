/* What a device computes but for experts: GEMMs, and the parts that have kernels of their own. */
#include "calibrate/fit/suite_make.h"

#include "models/network_gemm.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the grid of GEMMs ---------------------------------------------------------------------------- */

enum { WIDTHS_MAX = 512 };

typedef struct axis {
    int64_t values[WIDTHS_MAX]; /* ascending, each once */
    int count;
} axis;

static void axis_add(axis *into, int64_t value)
{
    int at = 0;
    while (at < into->count && into->values[at] < value)
        at++;
    if (value < 1 || into->count == WIDTHS_MAX || (at < into->count && into->values[at] == value))
        return;
    memmove(&into->values[at + 1], &into->values[at],
            (size_t)(into->count - at) * sizeof *into->values);
    into->values[at] = value;
    into->count++;
}

/* Every other value; the ends stay. */
static void axis_halve(axis *thinned)
{
    int count = 0;
    for (int i = 0; i < thinned->count; i++)
        if (i % 2 == 0 || i == thinned->count - 1)
            thinned->values[count++] = thinned->values[i];
    thinned->count = count;
}

/* Leaves out the inner value that is closest to one of its neighbours. */
static void axis_drop_closest(axis *thinned)
{
    int closest = 1;
    double least = INFINITY;
    for (int i = 1; i < thinned->count - 1; i++) {
        double below = (double)thinned->values[i] / (double)thinned->values[i - 1];
        double above = (double)thinned->values[i + 1] / (double)thinned->values[i];
        if (fmin(below, above) < least) {
            least = fmin(below, above);
            closest = i;
        }
    }
    memmove(&thinned->values[closest], &thinned->values[closest + 1],
            (size_t)(thinned->count - closest - 1) * sizeof *thinned->values);
    thinned->count--;
}

/* Inner dimensions: the widths, and the tokens that a weight gradient sums over. */
static axis depths_of(const axis *widths, int64_t tokens)
{
    axis depths = *widths;
    axis_add(&depths, tokens);
    return depths;
}

static int64_t grid_points(const axis *rows, const axis *widths, int64_t tokens)
{
    axis depths = depths_of(widths, tokens);
    return (int64_t)rows->count * widths->count * depths.count;
}

static void thin_grid(axis *rows, axis *widths, const moe_suite_options *options)
{
    enum { ROWS_ENOUGH = 9 };
    while (grid_points(rows, widths, options->tokens) > options->points) {
        if (rows->count > ROWS_ENOUGH || (widths->count <= 2 && rows->count > 2))
            axis_halve(rows);
        else if (widths->count > 2)
            axis_drop_closest(widths);
        else
            break;
    }
}

static double gemm_bytes(double m, double n, double k, double value_bytes)
{
    return (m * k + k * n + m * n) * value_bytes;
}

static void add_gemm(moe_suite_points *suite, int64_t m, int64_t n, int64_t k,
                     const moe_suite_options *options)
{
    double a = (double)m, b = (double)n, c = (double)k;
    moe_suite_points_add(suite, MOE_SAMPLE_GEMM,
                         json_pack("{s:s, s:I, s:I, s:I}", "dtype", options->dtype, "m",
                                   (json_int_t)m, "n", (json_int_t)n, "k", (json_int_t)k),
                         gemm_bytes(a, b, c, options->value_bytes), 2 * a * b * c);
}

static void add_widths(const moe_gemm_list *gemms, axis *widths)
{
    for (int i = 0; i < gemms->count; i++) {
        axis_add(widths, (int64_t)gemms->items[i].n);
        axis_add(widths, (int64_t)gemms->items[i].k);
    }
}

/* Matrices of a dense and of an MoE layer, outside of routed experts. The LM head's is left out: with its
 * width squared a full grid would not fit; it is a kind of point of its own. */
static void add_model_widths(const moe_network *model, axis *widths)
{
    moe_gemm_list first = moe_network_layer_gemms(model, 0, 1);
    moe_gemm_list last = moe_network_layer_gemms(model, model->layers - 1, 1);
    moe_gemm_list shared = moe_network_ffn_gemms(model, moe_network_shared_width(model), 1);
    moe_gemm_list dense =
        moe_network_ffn_gemms(model, model->dense_layers > 0 ? model->dense_ffn : 0, 1);
    add_widths(&first, widths);
    add_widths(&last, widths);
    add_widths(&shared, widths);
    add_widths(&dense, widths);
}

/* Between neighbours that are far apart (a gate's few columns, a model's width), steps of at most eight. */
static void fill_gaps(axis *widths)
{
    enum { STEP = 8 };
    for (int i = 1; i < widths->count; i++)
        if (widths->values[i] > STEP * widths->values[i - 1])
            axis_add(widths, STEP * widths->values[i - 1]);
}

void moe_suite_add_gemms(moe_suite_points *suite, const moe_suite_input *input,
                         const moe_suite_options *options)
{
    axis widths = {.count = 0}, rows = {.count = 0};
    for (int i = 0; i < input->model_count; i++)
        add_model_widths(input->models[i], &widths);
    fill_gaps(&widths);
    for (int64_t m = 1; m <= options->most_rows; m *= 2)
        axis_add(&rows, m);
    axis_add(&rows, options->most_rows);
    thin_grid(&rows, &widths, options);
    axis depths = depths_of(&widths, options->tokens);
    /* The grid stays full: rows end where its largest GEMM fits. */
    double n = (double)widths.values[widths.count - 1], k = (double)depths.values[depths.count - 1];
    while (rows.count > 1 && gemm_bytes((double)rows.values[rows.count - 1], n, k,
                                        options->value_bytes) > suite->limit_bytes)
        rows.count--;
    for (int i = 0; i < depths.count; i++)
        for (int j = 0; j < widths.count; j++)
            for (int row = 0; row < rows.count; row++)
                add_gemm(suite, rows.values[row], widths.values[j], depths.values[i], options);
}

/* --- parts with kernels of their own -------------------------------------------------------------- */

const char *moe_suite_plain_dtype(const moe_suite_options *options)
{
    return strcmp(options->dtype, "fp8") == 0 ? "bf16" : options->dtype;
}

double moe_suite_plain_bytes(const moe_suite_options *options)
{
    return fmax(options->value_bytes, 2);
}

static void add_norm(moe_suite_points *suite, const moe_network *model, int64_t tokens,
                     const moe_suite_options *options)
{
    double values = (double)tokens * (double)model->hidden;
    moe_suite_points_add(suite, MOE_SAMPLE_NORM,
                         json_pack("{s:s, s:I, s:I}", "dtype", moe_suite_plain_dtype(options),
                                   "tokens", (json_int_t)tokens, "hidden",
                                   (json_int_t)model->hidden),
                         2 * values * moe_suite_plain_bytes(options), 0);
}

static void add_permute(moe_suite_points *suite, const moe_network *model, int64_t tokens,
                        const moe_suite_options *options)
{
    double values = (double)tokens * (double)model->top_k * (double)model->hidden;
    moe_suite_points_add(suite, MOE_SAMPLE_PERMUTE,
                         json_pack("{s:s, s:I, s:I, s:I}", "dtype", moe_suite_plain_dtype(options),
                                   "tokens", (json_int_t)tokens, "hidden",
                                   (json_int_t)model->hidden, "top_k", (json_int_t)model->top_k),
                         2 * values * moe_suite_plain_bytes(options), 0);
}

static void add_gate(moe_suite_points *suite, const moe_network *model, int64_t tokens,
                     const moe_suite_options *options)
{
    double t = (double)tokens, d = (double)model->hidden, experts = (double)model->experts;
    moe_suite_points_add(
        suite, MOE_SAMPLE_GATE,
        json_pack("{s:s, s:I, s:I, s:I, s:I}", "dtype", moe_suite_plain_dtype(options), "tokens",
                  (json_int_t)tokens, "hidden", (json_int_t)model->hidden, "experts",
                  (json_int_t)model->experts, "top_k", (json_int_t)model->top_k),
        gemm_bytes(t, experts, d, moe_suite_plain_bytes(options)), 2 * t * d * experts);
}

static void add_head(moe_suite_points *suite, const moe_network *model, int64_t tokens,
                     const moe_suite_options *options)
{
    double t = (double)tokens, d = (double)model->hidden, words = (double)model->vocabulary;
    if (model->vocabulary == 0)
        return;
    moe_suite_points_add(
        suite, MOE_SAMPLE_HEAD,
        json_pack("{s:s, s:I, s:I, s:I}", "dtype", moe_suite_plain_dtype(options), "tokens",
                  (json_int_t)tokens, "hidden", (json_int_t)model->hidden, "vocabulary",
                  (json_int_t)model->vocabulary),
        gemm_bytes(t, words, d, moe_suite_plain_bytes(options)), 2 * t * d * words);
}

/* --- attention ------------------------------------------------------------------------------------ */

typedef struct heads {
    int64_t heads, kv_heads, head_dim;
} heads;

/* Where a model does not say how many heads it has, one in 64 values, as small models do. */
static heads heads_of(const moe_network *model)
{
    int64_t count = model->heads ? model->heads : model->hidden / 64;
    if (count < 1)
        count = 1;
    if (model->attention == MOE_ATTENTION_MLA)
        return (heads){count, count, model->qk_nope_head_dim + model->qk_rope_head_dim};
    return (heads){count, model->kv_heads ? model->kv_heads : count,
                   model->head_dim ? model->head_dim : model->hidden / count};
}

static void add_attention(moe_suite_points *suite, const moe_network *model, const char *phase,
                          int64_t sequences, int64_t sequence, const moe_suite_options *options)
{
    heads shape = heads_of(model);
    double tokens = (double)sequences * (double)sequence, d = (double)shape.head_dim;
    double values = tokens * d * 2 * (double)(shape.heads + shape.kv_heads);
    double attended = (double)sequence * (model->causal ? 0.5 : 1);
    if (shape.head_dim < 1)
        return;
    moe_suite_points_add(suite, MOE_SAMPLE_ATTENTION,
                         json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "dtype",
                                   moe_suite_plain_dtype(options), "phase", phase, "sequences",
                                   (json_int_t)sequences, "sequence", (json_int_t)sequence, "heads",
                                   (json_int_t)shape.heads, "kv_heads", (json_int_t)shape.kv_heads,
                                   "head_dim", (json_int_t)shape.head_dim, "causal", model->causal),
                         values * moe_suite_plain_bytes(options),
                         4 * tokens * attended * d * (double)shape.heads *
                             (strcmp(phase, "backward") == 0 ? 2 : 1));
}

/* A step's tokens, a quarter and four times as many, as sequences of the model's length and shorter
 * ones. */
static void add_attentions(moe_suite_points *suite, const moe_network *model,
                           const moe_suite_options *options)
{
    static const char *const phases[] = {"forward", "backward"};
    for (int64_t sequence = model->sequence; sequence >= 128; sequence /= 4)
        for (int64_t tokens = options->tokens / 4; tokens <= 4 * options->tokens; tokens *= 4) {
            int64_t sequences = tokens / sequence;
            for (int i = 0; i < 2 && tokens > 0 && sequences > 0; i++)
                add_attention(suite, model, phases[i], sequences, sequence, options);
            if (tokens == 0)
                break;
        }
    for (int i = 0; i < 2; i++)
        add_attention(suite, model, phases[i], 1, model->sequence, options);
}

/* --- Adam ----------------------------------------------------------------------------------------- */

static void add_adam(moe_suite_points *suite, double parameters, const moe_suite_options *options)
{
    enum { STATE_BYTES = 12 };
    double value_bytes = moe_suite_plain_bytes(options);
    moe_suite_points_add(suite, MOE_SAMPLE_ADAM,
                         json_pack("{s:s, s:I}", "dtype", moe_suite_plain_dtype(options),
                                   "parameters", (json_int_t)parameters),
                         parameters * (2 * value_bytes + STATE_BYTES), 10 * parameters);
}

/* --- all of them ---------------------------------------------------------------------------------- */

void moe_suite_add_parts(moe_suite_points *suite, const moe_network *model,
                         const moe_suite_options *options)
{
    for (int64_t tokens = 1; tokens <= options->most_rows; tokens *= 4) {
        add_permute(suite, model, tokens, options);
        add_gate(suite, model, tokens, options);
        add_norm(suite, model, tokens, options);
        if (tokens >= 16)
            add_head(suite, model, tokens, options);
    }
    add_attentions(suite, model, options);
    add_adam(suite, moe_network_expert_parameters(model), options);
    add_adam(suite, moe_network_layer_parameters(model, model->layers - 1), options);
    for (double parameters = 1e4; parameters <= 1e9; parameters *= 10)
        add_adam(suite, parameters, options);
}

/* --- the host ------------------------------------------------------------------------------------- */

static void add_copies(moe_suite_points *suite, const char *direction, const char *memory)
{
    for (int64_t bytes = 4096; bytes <= (int64_t)1 << 28; bytes *= 16)
        moe_suite_points_add(suite, MOE_SAMPLE_COPY,
                             json_pack("{s:s, s:s, s:I}", "direction", direction, "memory", memory,
                                       "bytes", (json_int_t)bytes),
                             2 * (double)bytes, 0);
}

void moe_suite_add_host(moe_suite_points *suite)
{
    static const char *const modes[] = {"stream", "graph", "sync"};
    static const char *const directions[] = {"host_to_device", "device_to_host", "storage_read",
                                             "storage_write"};
    for (int mode = 0; mode < 3; mode++)
        for (int kernels = 1; kernels <= 1000; kernels *= 10)
            moe_suite_points_add(suite, MOE_SAMPLE_LAUNCH,
                                 json_pack("{s:s, s:i}", "mode", modes[mode], "kernels", kernels),
                                 0, 0);
    for (int i = 0; i < 4; i++) {
        add_copies(suite, directions[i], "pinned");
        add_copies(suite, directions[i], "pageable");
    }
}
