/* Collectives: alpha from the floors, efficiency point by point.
 *
 * With w = load / nominal rate of the slowest port and t the measured seconds of one number of ranks (a "set"),
 *
 *   alpha       start + start_per_rank log2(ranks) + hops, the largest that leaves t - alpha >= w and
 *               alpha <= 0.97 t for every point, but at least half of the shortest t; over several sets a line,
 *               lowered until it satisfies all
 *   efficiency  w / (t - alpha), at most 1, of each measured size
 *
 * so that the table gives back what was measured. The set with most ranks in one host (one NVLink domain) becomes
 * `intra`, the others `groups`; between hosts the set with most ranks becomes `inter`. Below 6 sizes, the
 * way from one to the next follows straight pieces of t(bytes) instead of a straight line in logarithms. Matrices
 * and grouped chunks of sizes that no uniform collective comes within a factor of two of add points of their own,
 * with the load of their busiest port. */
#include "calibrate/fit/fit_private.h"
#include "calibrate/fit/robust.h"
#include "configs/base/memory.h"
#include <gsl/gsl_fit.h>
#include <math.h>
#include <stdlib.h>
#include <talloc.h>

enum { FEW_SIZES = 6, STEPS_BETWEEN = 4 };
static const double below_floor = 0.97, least_floor = 0.5, least_efficiency = 1e-6;

typedef struct point {
    const moe_sample *sample;
    moe_exchange_work work;
    bool uniform; /* neither a matrix nor several chunks */
} point;

/* Points of one number of ranks: `work` is linear in bytes, so that seconds per byte say all. */
typedef struct set {
    int ranks;
    bool inter;
    double *bytes, *seconds;
    size_t count;
    double intra_s, inter_s; /* per byte */
    double latency_s;
    double floor_s; /* largest alpha */
} set;

typedef struct fit {
    void *scratch;
    moe_collective_kind kind;
    const point *points;
    size_t count;
    const bool *left_out; /* [count]; NULL: none */
    set *sets;
    size_t set_count;
} fit;

/* ---- sets ------------------------------------------------------------------------------------ */

static bool is_used(const fit *f, size_t i, bool uniform)
{
    return (f->left_out == NULL || !f->left_out[i]) && f->points[i].uniform == uniform;
}

static set *find_set(fit *f, const point *of)
{
    bool inter = of->work.inter_s > 0;
    for (size_t s = 0; s < f->set_count; s++) {
        if (f->sets[s].ranks == of->work.ranks && f->sets[s].inter == inter)
            return &f->sets[s];
    }
    set *added = &f->sets[f->set_count++];
    *added = (set){.ranks = of->work.ranks,
                   .inter = inter,
                   .intra_s = of->work.intra_s / of->work.bytes,
                   .inter_s = of->work.inter_s / of->work.bytes,
                   .latency_s = of->work.latency_s};
    return added;
}

static void push(const fit *f, set *of, double bytes, double seconds)
{
    size_t capacity = talloc_array_length(of->bytes);
    if (of->count == capacity) {
        capacity = capacity > 0 ? 2 * capacity : 32;
        of->bytes = moe_need(talloc_realloc(f->scratch, of->bytes, double, capacity));
        of->seconds = moe_need(talloc_realloc(f->scratch, of->seconds, double, capacity));
    }
    of->bytes[of->count] = bytes;
    of->seconds[of->count++] = seconds;
}

static double work_s(const set *of, double bytes)
{
    return fmax(of->intra_s, of->inter_s) * bytes;
}

static void find_floor(set *of)
{
    double least = INFINITY, floor_s = INFINITY;
    for (size_t i = 0; i < of->count; i++) {
        least = fmin(least, of->seconds[i]);
        floor_s = fmin(floor_s, of->seconds[i] - work_s(of, of->bytes[i]));
    }
    floor_s = fmin(floor_s, below_floor * least);
    of->floor_s = fmax(floor_s, least_floor * least) - of->latency_s;
}

/* Nothing that was measured was quicker than alpha, matrices and grouped chunks neither. */
static void lower_floors(fit *f)
{
    for (size_t i = 0; i < f->count; i++) {
        const moe_exchange_work *work = &f->points[i].work;
        double seconds = f->points[i].sample->seconds;
        double floor_s = seconds - fmax(work->intra_s, work->inter_s);
        floor_s = fmax(fmin(floor_s, below_floor * seconds), least_floor * seconds);
        for (size_t s = 0; is_used(f, i, false) && s < f->set_count; s++) {
            set *of = &f->sets[s];
            if (of->ranks == work->ranks && of->inter == (work->inter_s > 0))
                of->floor_s = fmin(of->floor_s, floor_s - of->latency_s);
        }
    }
}

/* Uniform points; where there are none, what there is. */
static void make_sets(fit *f)
{
    bool uniform = false;
    for (size_t i = 0; i < f->count; i++)
        uniform |= is_used(f, i, true);
    f->sets = moe_need(talloc_array(f->scratch, set, f->count));
    for (size_t i = 0; i < f->count; i++) {
        if (!is_used(f, i, uniform))
            continue;
        push(f, find_set(f, &f->points[i]), f->points[i].work.bytes, f->points[i].sample->seconds);
    }
    for (size_t s = 0; s < f->set_count; s++) {
        set *of = &f->sets[s];
        of->count = moe_fit_merge(of->bytes, of->seconds, of->count);
        moe_fit_tame(of->bytes, of->seconds, of->count);
        find_floor(of);
    }
    if (uniform)
        lower_floors(f);
}

/* ---- alpha ----------------------------------------------------------------------------------- */

static double doublings(const set *of)
{
    return of->ranks > 1 ? log2(of->ranks) : 0;
}

/* Slope of the floors over log2(ranks); 0 with one number of ranks. */
static double floor_slope(const fit *f)
{
    double *x = moe_need(talloc_array(f->scratch, double, 2 * f->set_count));
    double *y = x + f->set_count, start, slope, a, b, c, square;
    bool varied = false;
    for (size_t s = 0; s < f->set_count; s++) {
        x[s] = doublings(&f->sets[s]);
        y[s] = f->sets[s].floor_s;
        varied |= x[s] != x[0];
    }
    if (!varied)
        return 0;
    gsl_fit_linear(x, 1, y, 1, f->set_count, &start, &slope, &a, &b, &c, &square);
    return fmax(slope, 0);
}

static void fit_alpha(const fit *f, moe_collective_curve *curve)
{
    double slope = floor_slope(f), start = INFINITY;
    for (size_t s = 0; s < f->set_count; s++)
        slope = fmin(slope, fmax(f->sets[s].floor_s, 0) / fmax(doublings(&f->sets[s]), 1));
    for (size_t s = 0; s < f->set_count; s++)
        start = fmin(start, f->sets[s].floor_s - slope * doublings(&f->sets[s]));
    curve->start_per_rank_s = slope;
    curve->start_s = fmax(start, 0);
}

static double alpha_of(const moe_collective_curve *curve, const set *of)
{
    return curve->start_s + curve->start_per_rank_s * doublings(of) + of->latency_s;
}

/* ---- efficiency ------------------------------------------------------------------------------ */

static double efficiency_at(const set *of, double alpha_s, double bytes, double seconds, bool inter)
{
    double work = (inter ? of->inter_s : of->intra_s) * bytes;
    double left_s = seconds - alpha_s;
    double efficiency = left_s > 0 ? work / left_s : 1;
    return fmin(fmax(efficiency, least_efficiency), 1);
}

static void add_point(moe_points *points, const set *of, double alpha_s, double bytes,
                      double seconds, bool inter)
{
    points->x[points->count] = bytes;
    points->y[points->count++] = efficiency_at(of, alpha_s, bytes, seconds, inter);
}

/* Between two sizes: the pieces, times what they miss at both, in logarithms. */
static void add_between(moe_points *points, const set *of, double alpha_s, size_t i, bool inter,
                        const moe_fit_piece *pieces, int count)
{
    double low = of->bytes[i], high = of->bytes[i + 1];
    double missed_low = log(of->seconds[i] / moe_fit_pieces_at(pieces, count, low));
    double missed_high = log(of->seconds[i + 1] / moe_fit_pieces_at(pieces, count, high));
    for (int step = 1; step < STEPS_BETWEEN; step++) {
        double share = (double)step / STEPS_BETWEEN;
        double bytes = low * pow(high / low, share);
        double missed = missed_low + share * (missed_high - missed_low);
        double seconds = moe_fit_pieces_at(pieces, count, bytes) * exp(missed);
        add_point(points, of, alpha_s, bytes, seconds, inter);
    }
}

static moe_points make_points(void *owner, const moe_collective_curve *curve, const set *of,
                              bool inter)
{
    moe_fit_piece pieces[MOE_FIT_PIECES_MOST];
    size_t capacity = of->count * STEPS_BETWEEN;
    double alpha_s = alpha_of(curve, of);
    moe_points points = {.x = moe_need(talloc_array(owner, double, capacity)),
                         .y = moe_need(talloc_array(owner, double, capacity))};
    int count =
        of->count < FEW_SIZES ? moe_fit_pieces(of->bytes, of->seconds, of->count, pieces) : 0;
    for (size_t i = 0; i < of->count; i++) {
        add_point(&points, of, alpha_s, of->bytes[i], of->seconds[i], inter);
        if (count > 0 && i + 1 < of->count)
            add_between(&points, of, alpha_s, i, inter, pieces, count);
    }
    return points;
}

static const set *largest(const fit *f, bool inter)
{
    const set *best = NULL;
    for (size_t s = 0; s < f->set_count; s++) {
        if (f->sets[s].inter == inter && (best == NULL || f->sets[s].ranks > best->ranks))
            best = &f->sets[s];
    }
    return best;
}

static void make_groups(void *owner, const fit *f, const set *main, moe_collective_curve *curve)
{
    moe_collective_group *groups =
        moe_need(talloc_array(owner, moe_collective_group, f->set_count));
    for (size_t s = 0; s < f->set_count; s++) {
        const set *of = &f->sets[s];
        if (!of->inter && of != main)
            groups[curve->groups.count++] =
                (moe_collective_group){of->ranks, make_points(owner, curve, of, false)};
    }
    curve->groups.items = groups;
}

/* The part of a curve that uniform collectives tell. */
static void fit_curve(void *owner, fit *f, moe_collective_curve *curve)
{
    make_sets(f);
    fit_alpha(f, curve);
    const set *within = largest(f, false), *between = largest(f, true);
    if (within != NULL) {
        curve->ranks = within->ranks;
        curve->intra = make_points(owner, curve, within, false);
        make_groups(owner, f, within, curve);
    }
    if (between != NULL)
        curve->inter = make_points(owner, curve, between, true);
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static double predict(const fit *f, const moe_collective_curve *curve,
                      const moe_exchange_work *work)
{
    moe_fit_bench bench;
    moe_fit_bench_open(&bench, &(moe_device_spec){0});
    bench.profile.collectives[f->kind] = *curve;
    return moe_exchange_predict_s(&bench, f->kind, work);
}

/* The points of a curve that such a collective is looked up at; NULL: of a number of ranks it does not have. */
static moe_points *points_for(moe_collective_curve *curve, const moe_exchange_work *work)
{
    moe_collective_group *groups = curve->groups.items;
    if (work->inter_s > 0)
        return curve->inter.count > 0 ? &curve->inter : NULL;
    if (work->ranks == curve->ranks)
        return &curve->intra;
    for (size_t g = 0; g < curve->groups.count; g++) {
        if (groups[g].ranks == work->ranks)
            return &groups[g].intra;
    }
    return NULL;
}

/* What a chunk beyond the first adds; it is part of the start of a collective with one. */
static void fit_chunks(const fit *f, moe_collective_curve *curve)
{
    double *added = moe_need(talloc_array(f->scratch, double, f->count));
    size_t count = 0;
    for (size_t i = 0; i < f->count; i++) {
        const point *of = &f->points[i];
        const moe_points *points = points_for(curve, &of->work);
        if (!is_used(f, i, false) || of->work.chunks < 2 || points == NULL ||
            of->work.bytes > 2 * points->x[points->count - 1])
            continue; /* beyond the largest size, efficiency is not known either */
        added[count++] =
            (of->sample->seconds - predict(f, curve, &of->work)) / (of->work.chunks - 1);
    }
    if (count == 0)
        return;
    curve->start_per_chunk_s = fmin(fmax(moe_fit_median(added, count), 0), curve->start_s);
    curve->start_s -= curve->start_per_chunk_s;
}

/* ---- sizes that only matrices and grouped chunks have ---------------------------------------- */

static bool is_near_a_point(const moe_points *points, double bytes)
{
    for (size_t i = 0; i < points->count; i++) {
        double ratio = points->x[i] / bytes;
        if (ratio > 0.5 && ratio < 2)
            return true;
    }
    return false;
}

static void insert_points(void *owner, moe_points *points, double *x, double *y, size_t count)
{
    size_t total = points->count + count;
    double *all_x = moe_need(talloc_array(owner, double, total));
    double *all_y = moe_need(talloc_array(owner, double, total));
    for (size_t n = 0, i = 0, j = 0; n < total; n++) {
        bool old = j == count || (i < points->count && points->x[i] < x[j]);
        all_x[n] = old ? points->x[i] : x[j];
        all_y[n] = old ? points->y[i] : y[j];
        *(old ? &i : &j) += 1;
    }
    *points = (moe_points){all_x, all_y, total};
}

static void add_sizes(void *owner, const fit *f, moe_collective_curve *curve, moe_points *points)
{
    double *x = moe_need(talloc_array(f->scratch, double, 2 * f->count)), *y = x + f->count;
    moe_fit_bench bench;
    size_t count = 0;
    moe_fit_bench_open(&bench, &(moe_device_spec){0});
    bench.profile.collectives[f->kind] = *curve;
    for (size_t i = 0; i < f->count; i++) {
        const moe_exchange_work *work = &f->points[i].work;
        if (!is_used(f, i, false) || points_for(curve, work) != points ||
            is_near_a_point(points, work->bytes))
            continue;
        double alpha_s =
            moe_cost_alpha_s(&bench.costs, f->kind, work->ranks, work->chunks, work->latency_s);
        double left_s = f->points[i].sample->seconds - alpha_s;
        double busy_s = work->inter_s > 0 ? work->inter_s : work->intra_s;
        x[count] = work->bytes;
        y[count++] = left_s > 0 ? fmin(fmax(busy_s / left_s, least_efficiency), 1) : 1;
    }
    count = moe_fit_merge(x, y, count);
    if (count > 0)
        insert_points(owner, points, x, y, count);
}

static void add_uncovered_sizes(void *owner, const fit *f, moe_collective_curve *curve)
{
    moe_collective_group *groups = curve->groups.items;
    add_sizes(owner, f, curve, &curve->intra);
    add_sizes(owner, f, curve, &curve->inter);
    for (size_t g = 0; g < curve->groups.count; g++)
        add_sizes(owner, f, curve, &groups[g].intra);
}

/* ---- a kind ---------------------------------------------------------------------------------- */

static void build(void *owner, fit *f, moe_collective_curve *curve)
{
    bool any = false;
    for (size_t i = 0; i < f->count; i++)
        any |= is_used(f, i, true);
    fit_curve(owner, f, curve);
    if (!any)
        return;
    fit_chunks(f, curve);
    add_uncovered_sizes(owner, f, curve);
}

static bool is_same_point(const point *a, const point *b)
{
    return a->uniform == b->uniform && a->work.ranks == b->work.ranks &&
           a->sample->hosts == b->sample->hosts && a->work.bytes == b->work.bytes &&
           a->work.chunks == b->work.chunks &&
           a->sample->first.most_bytes == b->sample->first.most_bytes;
}

/* Leaves out point i with its repetitions, or a fold of points; how many there are left. */
static size_t leave_out(const fit *f, size_t i, size_t folds, bool *left_out)
{
    size_t used = 0;
    for (size_t j = 0; j < f->count; j++) {
        left_out[j] =
            folds < f->count ? j % folds == i : is_same_point(&f->points[i], &f->points[j]);
        used += !left_out[j];
    }
    return used;
}

static double leave_one_out(const fit *whole)
{
    moe_left_out left = {0};
    size_t folds = moe_fit_folds(whole->count);
    bool *left_out = moe_need(talloc_array(whole->scratch, bool, whole->count));
    for (size_t i = 0; i < folds; i++) {
        fit f = {talloc_new(whole->scratch),
                 whole->kind,
                 whole->points,
                 whole->count,
                 left_out,
                 NULL,
                 0};
        moe_collective_curve curve = {0};
        if (leave_out(whole, i, folds, left_out) > 0)
            build(f.scratch, &f, &curve);
        for (size_t j = 0; f.set_count > 0 && j < whole->count; j++) {
            if (folds < whole->count ? left_out[j] : j == i)
                moe_left_out_add(&left, whole->points[j].sample->seconds,
                                 predict(&f, &curve, &whole->points[j].work));
        }
        talloc_free(f.scratch);
    }
    return moe_left_out_mean(&left);
}

static void keep_evidence(void *owner, const fit *f, moe_collective_curve *curve)
{
    moe_evidence_builder builder = moe_evidence_open(owner, &curve->evidence, 3, f->count);
    for (size_t i = 0; i < f->count; i++) {
        const point *of = &f->points[i];
        const double columns[] = {of->sample->ranks, of->sample->hosts, of->work.bytes};
        moe_evidence_add(&builder, columns, of->sample->seconds, predict(f, curve, &of->work));
    }
    moe_evidence_close(&builder);
    curve->evidence.leave_one_out = leave_one_out(f);
}

static bool is_wanted(const moe_sample *sample, const void *context)
{
    return sample->kind == MOE_SAMPLE_COLLECTIVE &&
           sample->first.collective == *(const moe_collective_kind *)context;
}

static size_t price_points(void *scratch, moe_selection chosen, const moe_cluster_spec *cluster,
                           point *points)
{
    moe_exchange_pricer *pricer = moe_exchange_pricer_create(scratch, cluster);
    size_t count = 0;
    for (size_t i = 0; i < chosen.count; i++) {
        const moe_sample *sample = chosen.items[i];
        point *of = &points[count];
        of->sample = sample;
        of->uniform = sample->first.matrix == NULL && sample->first.chunk_list == NULL;
        count +=
            moe_exchange_price(pricer, &sample->first, sample->ranks, sample->hosts, &of->work);
    }
    return count;
}

bool moe_fit_collective(void *owner, const moe_samples *samples, moe_collective_kind kind,
                        const moe_cluster_spec *cluster, moe_collective_curve *curve)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_selection chosen = moe_fit_select(scratch, samples, is_wanted, &kind);
    point *points = moe_need(talloc_array(scratch, point, chosen.count));
    fit f = {scratch, kind, points, price_points(scratch, chosen, cluster, points), NULL, NULL, 0};
    if (f.count > 0) {
        *curve = (moe_collective_curve){.origin = samples->machine.origin,
                                        .inter_origin = samples->machine.origin};
        build(owner, &f, curve);
        keep_evidence(owner, &f, curve);
        curve->evidence.machine = samples->machine.description;
    }
    talloc_free(scratch);
    return f.count > 0;
}
