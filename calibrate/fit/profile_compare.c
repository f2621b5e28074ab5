/* moeplan profile compare A B: what the same work costs by two profiles, curve by curve.
 *
 * A profile's efficiencies refer to nominal rates, so each is bound to a cluster: the one given, or the
 * preset whose device it was made for. Curves are asked at sizes spread over what both cover:
 *
 *   gemm            m x 4096 x 4096, by the grid where there is one
 *   attention       causal scores of sequences of 4096 tokens, 32 heads of 128
 *   experts         8 of 4096 x 14336, gated, equal rows
 *   memory, copies  bytes
 *   collectives     uniform, on the ranks of one host that both have; "across": on two hosts
 *
 * ratio = seconds by B / seconds by A. */
#include "calibrate/fit/curve_view.h"
#include "calibrate/fit/profile_command.h"
#include "calibrate/fit/profile_file.h"

#include "configs/base/arena.h"
#include "configs/base/memory.h"
#include "configs/base/status.h"
#include "configs/preset.h"
#include "models/collective.h"
#include "models/step.h"
#include <argp.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { SIZES = 7, ROWS_MAX = MOE_CURVE_VIEWS_MAX + MOE_COLLECTIVE_KINDS + 4 };

static const double equal_within = 0.05; /* ratios that close are called equal */

/* --- what is compared ----------------------------------------------------------------------------- */

typedef struct side {
    const char *name;
    const char *cluster_name; /* as given, or NULL */
    const moe_profile *profile;
    const moe_cluster *cluster;
    moe_curve_usage usage;
    moe_costs costs;
    moe_curve_view views[MOE_CURVE_VIEWS_MAX];
    int view_count;
} side;

typedef struct row {
    char name[64];
    const char *size_name; /* "rows", "bytes", or NULL: a single figure */
    char origins[2][64];
    int count;
    double sizes[SIZES];
    double seconds[2][SIZES];
    double least, median, most; /* of ratios */
} row;

typedef struct comparison {
    side sides[2];
    int ranks; /* of collectives within a host; < 2: none */
    bool across;
    row rows[ROWS_MAX];
    int count;
    bool json;
    int cluster_count;
    moe_arena *arena;
    moe_diag *diag; /* owns all */
} comparison;

/* --- seconds -------------------------------------------------------------------------------------- */

static double gemm_s(side *by, double m)
{
    moe_gemm gemm = {m, 4096, 4096, 1};
    return moe_cost_gemm_s(&by->costs, &gemm);
}

static double attention_s(side *by, double tokens)
{
    const double width = 32 * 128, attended = 2048, value_bytes = 2;
    return moe_cost_attention_s(&by->costs, 4 * tokens * attended * width,
                                4 * tokens * width * value_bytes, tokens);
}

static double experts_s(side *by, moe_phase phase, double rows_of_all)
{
    enum { EXPERTS = 8 };
    const moe_network network = {.hidden = 4096,
                                 .ffn = 14336,
                                 .gated = true,
                                 .experts = EXPERTS,
                                 .parameter_dtype = MOE_BF16,
                                 .gradient_dtype = MOE_BF16};
    const moe_expert_shape shape = moe_step_expert_shape(&network, phase);
    double rows[EXPERTS];
    for (int i = 0; i < EXPERTS; i++)
        rows[i] = fmax(1, round(rows_of_all / EXPERTS));
    return moe_cost_experts_s(&by->costs, &shape, rows, EXPERTS);
}

static const moe_traffic *uniform_exchange(comparison *made, side *by, moe_collective_kind kind,
                                           const int *ranks, int count, double bytes)
{
    size_t devices = (size_t)by->cluster->devices;
    double *pairs = moe_arena_array(made->arena, double, devices *devices);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++)
            pairs[(size_t)ranks[i] * devices + (size_t)ranks[j]] = bytes / count;
    return kind == MOE_ALL_TO_ALL ? moe_traffic_all_to_all(made->arena, &by->costs, pairs, false)
                                  : moe_traffic_low_latency(made->arena, &by->costs, pairs, false);
}

/* One chunk from the first rank to all others. */
static const moe_traffic *chunk(comparison *made, side *by, moe_collective_kind kind,
                                const int *ranks, int count, double bytes)
{
    size_t words = ((size_t)by->cluster->devices + 63) / 64;
    uint64_t *want = moe_arena_array(made->arena, uint64_t, words);
    for (int i = 1; i < count; i++)
        want[ranks[i] / 64] |= (uint64_t)1 << (ranks[i] % 64);
    moe_chunk one = {.owner = ranks[0], .want = want};
    return moe_traffic_chunks(made->arena, &by->costs, kind, &one, 1, bytes, MOE_CHUNK_CHAIN);
}

static const moe_traffic *traffic_of(comparison *made, side *by, moe_collective_kind kind,
                                     const int *ranks, int count, double bytes)
{
    moe_transfer move = {ranks[0], ranks[count - 1], bytes};
    switch (kind) {
    case MOE_ALL_TO_ALL:
    case MOE_ALL_TO_ALL_LOW_LATENCY:
        return uniform_exchange(made, by, kind, ranks, count, bytes);
    case MOE_BROADCAST:
    case MOE_REDUCE:
        return chunk(made, by, kind, ranks, count, bytes);
    case MOE_SEND_RECV:
        return moe_traffic_moves(made->arena, &by->costs, &move, 1);
    default:
        return moe_traffic_group(made->arena, &by->costs, kind, ranks, 1, count, bytes);
    }
}

/* On the first `made->ranks` places of the first host of `domains` domains. */
static double collective_s(comparison *made, side *by, moe_collective_kind kind, int domains,
                           double bytes)
{
    int count = made->ranks * domains;
    int *ranks = moe_arena_array(made->arena, int, (size_t)count);
    for (int i = 0; i < count; i++)
        ranks[i] = moe_cluster_rank_at(by->cluster, i / made->ranks * by->cluster->domain_hosts,
                                       i % made->ranks);
    const moe_traffic *traffic = traffic_of(made, by, kind, ranks, count, bytes);
    double seconds = traffic ? moe_traffic_alone_s(traffic, by->cluster) : 0;
    moe_arena_reset(made->arena);
    return seconds;
}

static double copy_s(const side *by, int kind, double bytes)
{
    const moe_copy_curve *curve = &by->profile->copies[kind];
    return curve->start_s + bytes / curve->bytes_per_s;
}

static double compute_s(side *by, const moe_curve_view *view, double size)
{
    if (strcmp(view->name, "gemm") == 0 || strcmp(view->name, "dense") == 0)
        return gemm_s(by, size);
    if (strcmp(view->name, "attention") == 0)
        return attention_s(by, size);
    if (strcmp(view->name, "memory") == 0)
        return moe_cost_memory_s(&by->costs, size);
    return experts_s(by, view->phase, size);
}

static double seconds_of(comparison *made, side *by, const moe_curve_view *view, int domains,
                         double size)
{
    if (view->collective)
        return collective_s(made, by, (moe_collective_kind)view->kind, domains, size);
    return view->copy ? copy_s(by, view->kind, size) : compute_s(by, view, size);
}

/* --- rows ----------------------------------------------------------------------------------------- */

static int compare_numbers(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Keeps the row where both sides have something to say. */
static void finish_row(comparison *made, row *in)
{
    double ratios[SIZES];
    for (int i = 0; i < in->count; i++) {
        if (!(in->seconds[0][i] > 0 && in->seconds[1][i] > 0))
            return;
        ratios[i] = in->seconds[1][i] / in->seconds[0][i];
    }
    if (in->count == 0)
        return;
    qsort(ratios, (size_t)in->count, sizeof *ratios, compare_numbers);
    in->least = ratios[0];
    in->median = ratios[in->count / 2];
    in->most = ratios[in->count - 1];
    made->rows[made->count++] = *in;
}

/* Sizes spread in equal ratios over what both curves cover; none where they have nothing in common. A
 * curve that does not say its range covers all. */
static void choose_sizes(row *in, const moe_curve_view *a, const moe_curve_view *b)
{
    bool rows = a->measure == MOE_MEASURE_ROWS;
    double low = fmax(a->high > 0 ? a->low : 0, b->high > 0 ? b->low : 0);
    double high = fmin(a->high > 0 ? a->high : INFINITY, b->high > 0 ? b->high : INFINITY);
    low = low > 0 ? low : rows ? 1 : 1024;
    high = isfinite(high) ? high : rows ? 65536 : 1 << 30;
    in->size_name = rows ? "rows" : "bytes";
    if (low > high)
        return;
    in->count = low < high ? SIZES : 1;
    for (int i = 0; i < in->count; i++)
        in->sizes[i] = round(low * pow(high / low, (double)i / (SIZES - 1)));
}

/* What is known between hosts. */
static moe_curve_view across_view(const moe_curve_view *view)
{
    const moe_points *points = &view->collective->inter;
    moe_curve_view made = *view;
    made.origin = view->inter_origin;
    made.low = points->x[0];
    made.high = points->x[points->count - 1];
    return made;
}

static void add_curve(comparison *made, const moe_curve_view *a, const moe_curve_view *b,
                      int domains)
{
    const moe_curve_view *views[2] = {a, b};
    row in = {.count = 0};
    snprintf(in.name, sizeof in.name, "%s%s", a->name, domains > 1 ? " across" : "");
    choose_sizes(&in, a, b);
    for (int s = 0; s < 2; s++) {
        snprintf(in.origins[s], sizeof in.origins[s], "%s", moe_origin_names[views[s]->origin]);
        for (int i = 0; i < in.count; i++)
            in.seconds[s][i] = seconds_of(made, &made->sides[s], views[s], domains, in.sizes[i]);
    }
    finish_row(made, &in);
}

static void add_figure(comparison *made, const char *name, const char *size_name,
                       const double of[2], const int origins[2])
{
    row in = {.size_name = size_name, .count = 1, .seconds = {{of[0]}, {of[1]}}};
    snprintf(in.name, sizeof in.name, "%s", name);
    for (int s = 0; s < 2; s++)
        snprintf(in.origins[s], sizeof in.origins[s], "%s", moe_origin_names[origins[s]]);
    finish_row(made, &in);
}

static void add_figures(comparison *made)
{
    const moe_profile *a = made->sides[0].profile, *b = made->sides[1].profile;
    const int launch[2] = {a->launch_origin, b->launch_origin};
    const int beside[2] = {a->interference_origin, b->interference_origin};
    add_figure(made, "launch of a kernel", NULL, (double[]){a->launch_s, b->launch_s}, launch);
    add_figure(made, "launch of a graph", NULL,
               (double[]){a->graph_launch_s > 0 ? a->graph_launch_s : a->launch_s,
                          b->graph_launch_s > 0 ? b->graph_launch_s : b->launch_s},
               launch);
    add_figure(made, "waiting for counts", NULL, (double[]){a->host_sync_s, b->host_sync_s},
               launch);
    add_figure(made, "slowdown beside GEMMs", "factor", (double[]){a->slowdown, b->slowdown},
               beside);
}

/* The grid is what prices a GEMM, where there is one. */
static const moe_curve_view *gemm_view(const side *of)
{
    const moe_curve_view *grid = moe_curve_view_find(of->views, of->view_count, "gemm");
    return grid ? grid : moe_curve_view_find(of->views, of->view_count, "dense");
}

static bool is_priced_by_another(const char *name)
{
    return strcmp(name, "gemm") == 0 || strcmp(name, "dense") == 0 || strcmp(name, "launch") == 0 ||
           strcmp(name, "interference") == 0;
}

/* A gradient without a curve of its own is priced by the forward one. */
static moe_curve_view same_view(const side *of, const moe_curve_view *as, bool *found)
{
    const moe_curve_view *view = moe_curve_view_find(of->views, of->view_count, as->name);
    *found = true;
    if (view)
        return *view;
    moe_curve_view forward = *moe_curve_view_find(of->views, of->view_count, "experts");
    *found = as->compute && as->phase != MOE_FORWARD;
    forward.name = as->name;
    forward.phase = as->phase;
    return forward;
}

static void add_view(comparison *made, int from, const moe_curve_view *view)
{
    bool found;
    moe_curve_view other = same_view(&made->sides[1 - from], view, &found);
    const moe_curve_view *a = from == 0 ? view : &other, *b = from == 0 ? &other : view;
    if (!found)
        return;
    if (!view->collective ||
        (made->ranks > 1 && a->collective->intra.count > 0 && b->collective->intra.count > 0))
        add_curve(made, a, b, 1);
    if (view->collective && made->across && a->inter_origin >= 0 && b->inter_origin >= 0) {
        moe_curve_view far_a = across_view(a), far_b = across_view(b);
        add_curve(made, &far_a, &far_b, 2);
    }
}

static void compare_all(comparison *made)
{
    side *a = &made->sides[0], *b = &made->sides[1];
    moe_curve_view gemm = *gemm_view(a);
    gemm.name = "gemm";
    add_curve(made, &gemm, gemm_view(b), 1);
    for (int i = 0; i < a->view_count; i++)
        if (!is_priced_by_another(a->views[i].name))
            add_view(made, 0, &a->views[i]);
    for (int i = 0; i < b->view_count; i++) /* gradients that only B has */
        if (b->views[i].compute && b->views[i].phase != MOE_FORWARD &&
            !moe_curve_view_find(a->views, a->view_count, b->views[i].name))
            add_view(made, 1, &b->views[i]);
    add_figures(made);
}

/* --- what is said --------------------------------------------------------------------------------- */

static const char *faster(const row *in)
{
    if (fabs(in->median - 1) <= equal_within)
        return "equal";
    return in->median < 1 ? "B" : "A";
}

static void format_range(const row *in, char text[static 128])
{
    char low[48], high[48];
    moe_dimension dimension = MOE_BYTES;
    if (!in->size_name || in->count == 1) {
        moe_units_format_short(in->seconds[0][0], in->size_name ? MOE_NUMBER : MOE_SECONDS, low);
        moe_units_format_short(in->seconds[1][0], in->size_name ? MOE_NUMBER : MOE_SECONDS, high);
        snprintf(text, 128, "%s and %s", low, high);
        return;
    }
    if (strcmp(in->size_name, "rows") == 0) {
        snprintf(text, 128, "%.0f to %.0f rows", in->sizes[0], in->sizes[in->count - 1]);
        return;
    }
    moe_units_format_short(in->sizes[0], dimension, low);
    moe_units_format_short(in->sizes[in->count - 1], dimension, high);
    snprintf(text, 128, "%s to %s", low, high);
}

static void print_row(const row *in)
{
    char range[128];
    format_range(in, range);
    printf("%-30s %-22s %8.3g %8.3g %8.3g   %-7s %s, %s\n", in->name, range, in->least, in->median,
           in->most, faster(in), in->origins[0], in->origins[1]);
}

static const char *name_of(const side *of)
{
    return of->profile->name ? of->profile->name : of->name;
}

static void print_side(char letter, const side *of)
{
    printf("%c  %s: %s on %s\n", letter, name_of(of),
           of->profile->device ? of->profile->device : "an unnamed device", of->cluster_name);
}

/* "faster in 9 (memory most, 1.7 times)". `sign` 1: B needs more time. */
static void print_group(const comparison *made, int sign, const char *word)
{
    const row *most = NULL;
    int count = 0;
    for (int i = 0; i < made->count; i++) {
        const row *in = &made->rows[i];
        double gain = sign > 0 ? in->median : 1 / in->median;
        if (strcmp(faster(in), sign > 0 ? "A" : "B") != 0)
            continue;
        count++;
        if (!most || gain > (sign > 0 ? most->median : 1 / most->median))
            most = in;
    }
    printf("%s in %d", word, count);
    if (most)
        printf(" (most in %s: %.2g times)", most->name, sign > 0 ? most->median : 1 / most->median);
}

static void print_verdict(const comparison *made)
{
    int equal = 0;
    for (int i = 0; i < made->count; i++)
        equal += strcmp(faster(&made->rows[i]), "equal") == 0;
    printf("\nOf %d curves, B (%s) is ", made->count, name_of(&made->sides[1]));
    print_group(made, -1, "faster");
    fputs(", ", stdout);
    print_group(made, 1, "slower");
    printf(", equal within %.0f %% in %d.\n", 100 * equal_within, equal);
}

static void print_text(const comparison *made)
{
    print_side('A', &made->sides[0]);
    print_side('B', &made->sides[1]);
    if (made->ranks > 1)
        printf("collectives of %d ranks in a host%s\n", made->ranks,
               made->across ? "; across: of as many in each of two" : "");
    printf("\n%-30s %-22s %26s   %-7s %s\n", "", "common range", "seconds of B / of A", "faster",
           "origin of A, of B");
    printf("%-30s %-22s %8s %8s %8s\n", "curve", "(or both values)", "least", "median", "most");
    for (int i = 0; i < made->count; i++)
        print_row(&made->rows[i]);
    print_verdict(made);
}

static json_t *numbers(const double *values, int count)
{
    json_t *list = moe_need(json_array());
    for (int i = 0; i < count; i++)
        json_array_append_new(list, json_real(values[i]));
    return list;
}

static json_t *row_json(const row *in)
{
    json_t *made =
        json_pack("{s:s, s:[s, s], s:f, s:f, s:f, s:s, s:o, s:o}", "curve", in->name, "origins",
                  in->origins[0], in->origins[1], "ratio_least", in->least, "ratio_median",
                  in->median, "ratio_most", in->most, "faster", faster(in), "a",
                  numbers(in->seconds[0], in->count), "b", numbers(in->seconds[1], in->count));
    if (in->size_name && strcmp(in->size_name, "factor") != 0)
        json_object_set_new(moe_need(made), in->size_name, numbers(in->sizes, in->count));
    return moe_need(made);
}

static json_t *side_json(const side *of)
{
    return json_pack("{s:s, s:s, s:s}", "profile", name_of(of), "device",
                     of->profile->device ? of->profile->device : "", "cluster", of->cluster_name);
}

static void print_json(const comparison *made)
{
    json_t *rows = moe_need(json_array());
    for (int i = 0; i < made->count; i++)
        json_array_append_new(rows, row_json(&made->rows[i]));
    json_t *whole = json_pack("{s:o, s:o, s:i, s:o}", "a", side_json(&made->sides[0]), "b",
                              side_json(&made->sides[1]), "ranks", made->ranks, "curves", rows);
    json_dumpf(moe_need(whole), stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    putchar('\n');
    json_decref(whole);
}

/* --- profiles and their clusters ------------------------------------------------------------------ */

static const moe_cluster_spec *quiet_cluster(void *owner, const char *name)
{
    moe_diag *quiet = moe_diag_create(owner, NULL);
    const char *path = moe_preset_file(owner, MOE_CLUSTER_PRESETS, name);
    moe_config *config =
        path ? moe_config_load(owner, path, &moe_cluster_table, NULL, 0, quiet) : NULL;
    return config ? moe_config_root(config) : NULL;
}

/* The first preset with the profile's device; NULL: none. */
static const char *preset_with_device(void *owner, const char *device)
{
    size_t count;
    const char **names = moe_preset_names(owner, MOE_CLUSTER_PRESETS, &count);
    for (size_t i = 0; i < count; i++) {
        void *scratch = moe_need(talloc_new(NULL));
        const moe_cluster_spec *spec = quiet_cluster(scratch, names[i]);
        bool same = spec && spec->device.name && strcmp(spec->device.name, device) == 0;
        talloc_free(scratch);
        if (same)
            return names[i];
    }
    return NULL;
}

static bool choose_cluster(comparison *made, side *of)
{
    const char *device = of->profile->device;
    if (!of->cluster_name && device)
        of->cluster_name = preset_with_device(made->diag, device);
    if (of->cluster_name)
        return true;
    moe_diag_error(made->diag, (moe_where){0},
                   "%s: no cluster preset has its device%s%s%s; expected --cluster CLUSTER, whose "
                   "nominal rates the profile refers to",
                   of->name, device ? " \"" : "", device ? device : "", device ? "\"" : "");
    return false;
}

static bool load_cluster(comparison *made, side *of)
{
    enum { DEVICES_MAX = 2048 };
    const char *path =
        moe_preset_find(made->diag, MOE_CLUSTER_PRESETS, "clusters", of->cluster_name, made->diag);
    moe_config *config =
        path ? moe_config_load(made->diag, path, &moe_cluster_table, NULL, 0, made->diag) : NULL;
    of->cluster =
        config ? moe_cluster_create(made->diag, moe_config_root(config), config, made->diag) : NULL;
    if (of->cluster && of->cluster->devices > DEVICES_MAX) {
        moe_diag_error(made->diag, (moe_where){0},
                       "%s has %d devices; expected at most %d: two hosts are all that is compared",
                       of->cluster_name, of->cluster->devices, DEVICES_MAX);
        return false;
    }
    return of->cluster != NULL;
}

static bool load_side(comparison *made, side *of)
{
    of->profile = moe_profile_load(made->diag, of->name, made->diag);
    if (!of->profile || !choose_cluster(made, of) || !load_cluster(made, of))
        return false;
    const char *device = of->cluster->spec->device.name;
    if (device && of->profile->device && strcmp(device, of->profile->device) != 0)
        moe_diag_warning(made->diag, (moe_where){0},
                         "%s was made for device \"%s\"; the cluster %s has \"%s\"", of->name,
                         of->profile->device, of->cluster_name, device);
    of->costs = (moe_costs){of->profile, of->cluster, &of->usage};
    of->view_count = moe_curve_views(of->profile, of->views);
    return true;
}

static moe_status compare(comparison *made)
{
    side *a = &made->sides[0], *b = &made->sides[1];
    if (made->cluster_count == 1)
        b->cluster_name = a->cluster_name;
    bool first = load_side(made, a);
    if (!load_side(made, b) || !first)
        return MOE_BAD_INPUT;
    made->ranks = a->cluster->devices_per_host < b->cluster->devices_per_host
                      ? a->cluster->devices_per_host
                      : b->cluster->devices_per_host;
    made->across = a->cluster->domains > 1 && b->cluster->domains > 1;
    compare_all(made);
    (made->json ? print_json : print_text)(made);
    return MOE_OK;
}

/* --- the command line ----------------------------------------------------------------------------- */

static const struct argp_option options[] = {
    {"cluster", 'c', "FILE|PRESET", 0,
     "Cluster of A, given once more that of B (given once: of both; default: the first preset with "
     "the profile's device)",
     0},
    {"json", 'j', NULL, 0, "Print one JSON value instead of text, with all sizes and seconds", 0},
    {NULL, 'h', NULL, OPTION_HIDDEN, NULL, 0},
    {0},
};

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    comparison *made = state->input;
    switch (key) {
    case 'c':
        if (made->cluster_count == 2)
            argp_error(state, "--cluster is given more than twice");
        made->sides[made->cluster_count++].cluster_name = text;
        return 0;
    case 'j':
        made->json = true;
        return 0;
    case 'h':
        argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
        return 0;
    case ARGP_KEY_ARG:
        if (made->sides[1].name)
            argp_error(state, "unexpected argument \"%s\"", text);
        made->sides[made->sides[0].name ? 1 : 0].name = text;
        return 0;
    case ARGP_KEY_END:
        if (!made->sides[1].name)
            argp_error(state, "expected two profiles: files or presets (`moeplan list profiles`)");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "A B",
    .doc =
        "Compares two profiles curve by curve over the sizes that both cover, in seconds of equal "
        "work on the clusters they are made for.",
};

int moe_profile_compare_command(int argc, char **argv)
{
    moe_diag *diag = moe_diag_create(NULL, stderr);
    comparison *made = moe_need(talloc_zero(diag, comparison));
    made->diag = diag;
    made->arena = moe_arena_create(diag);
    moe_status status = MOE_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, made) == 0)
        status = compare(made);
    talloc_free(diag);
    return status;
}
