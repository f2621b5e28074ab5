#include "models/speed.h"

#include "configs/base/memory.h"
#include "configs/base/random.h"
#include "models/cluster_mesh.h"

#include <gsl/gsl_randist.h>
#include <math.h>
#include <string.h>
#include <talloc.h>

static const char *const what_names[] = {"compute", "nic", "intra", NULL};
static const char *const jitter_names[] = {"none", "normal", "lognormal", "gamma", NULL};
static const char *const correlation_names[] = {"operation", "device", "host", NULL};

/* clang-format off */
static const moe_field straggler_fields[] = {
    {.key = "what", .type = MOE_FIELD_CHOICE, .required = true, .choices = what_names,
     .offset = offsetof(moe_straggler, what),
     .sentence = "What is slow: computation, NICs, or links inside a host or NVLink domain."},
    {.key = "devices", .type = MOE_FIELD_REALS, .dimension = MOE_COUNT, .offset = offsetof(moe_straggler, devices),
     .high = 65535, .sentence = "Where, by number in the cluster; without `hosts` and `devices`: everywhere."},
    {.key = "hosts", .type = MOE_FIELD_REALS, .dimension = MOE_COUNT, .offset = offsetof(moe_straggler, hosts),
     .high = 65535, .sentence = "Where, by host: all its devices, or NICs."},
    {.key = "factor", .type = MOE_FIELD_REAL, .dimension = MOE_NUMBER, .default_text = "1",
     .offset = offsetof(moe_straggler, factor), .low = 1e-3, .high = 1e3,
     .sentence = "Times the nominal speed; lower is slower."},
    {.key = "from", .type = MOE_FIELD_REAL, .dimension = MOE_SECONDS, .default_text = "0 s",
     .offset = offsetof(moe_straggler, from_s), .sentence = "When it begins, from the start of each step."},
    {.key = "for", .type = MOE_FIELD_REAL, .dimension = MOE_SECONDS, .default_text = "0 s",
     .offset = offsetof(moe_straggler, for_s), .sentence = "How long it lasts; 0: to the end of the step."},
    {.key = "first_step", .type = MOE_FIELD_INTEGER, .dimension = MOE_COUNT, .default_text = "0",
     .offset = offsetof(moe_straggler, first_step), .high = 1e9,
     .sentence = "The first step it concerns, counted from 0 at the start of the run."},
    {.key = "steps", .type = MOE_FIELD_INTEGER, .dimension = MOE_COUNT, .default_text = "0",
     .offset = offsetof(moe_straggler, steps), .high = 1e9, .sentence = "How many steps it concerns; 0: all from there on."},
    {.key = "probability", .type = MOE_FIELD_REAL, .dimension = MOE_FRACTION, .default_text = "1",
     .offset = offsetof(moe_straggler, probability), .high = 1,
     .sentence = "Probability that it concerns what shares a draw (`correlation`) in a step."},
    {.key = "distribution", .type = MOE_FIELD_CHOICE, .default_text = "none", .choices = jitter_names,
     .offset = offsetof(moe_straggler, distribution),
     .sentence = "Of the random factor on the time that work takes, whose mean is 1."},
    {.key = "spread", .type = MOE_FIELD_REAL, .dimension = MOE_FRACTION, .default_text = "0",
     .offset = offsetof(moe_straggler, spread), .high = 10, .sentence = "Standard deviation of that factor."},
    {.key = "correlation", .type = MOE_FIELD_CHOICE, .default_text = "device", .choices = correlation_names,
     .offset = offsetof(moe_straggler, correlation),
     .sentence = "What shares a draw: everything on a device or NIC, everything of a host, or each operation has its own."},
    {.key = NULL}};
/* clang-format on */

const moe_table moe_straggler_table = {
    .noun = "straggler",
    .sentence = "Devices or links that are slower than nominal, for a time or at random.",
    .size = sizeof(moe_straggler),
    .fields = straggler_fields};

/* --- checking --------------------------------------------------------------------------------- */

static void check_places(const moe_reals *places, int count, const char *noun,
                         const moe_config *config, moe_diag *diag)
{
    for (size_t i = 0; i < places->count; i++)
        if (places->values[i] >= count)
            moe_diag_error(diag, moe_config_where(config, &places->values[i]),
                           "there is no %s %.0f, expected 0 to %d", noun, places->values[i],
                           count - 1);
}

static void check_straggler(const moe_straggler *s, const moe_cluster *cluster,
                            const moe_config *config, moe_diag *diag)
{
    check_places(&s->devices, cluster->devices, "device", config, diag);
    check_places(&s->hosts, cluster->hosts, "host", config, diag);
    if ((s->distribution != MOE_JITTER_NONE) != (s->spread > 0))
        moe_diag_error(diag, moe_config_where(config, &s->spread),
                       "distribution is %s and spread %g, expected a spread above 0 with a "
                       "distribution, and none without",
                       jitter_names[s->distribution], s->spread);
    if (s->correlation == MOE_DRAW_PER_OPERATION && (s->from_s > 0 || s->for_s > 0))
        moe_diag_error(diag, moe_config_where(config, &s->correlation),
                       "correlation is operation, whose draws hold for all of an operation's work: "
                       "expected no `from` and `for`");
    if (s->what == MOE_SLOW_NIC && cluster->nics == 0)
        moe_diag_error(diag, moe_config_where(config, &s->what),
                       "the cluster has no NICs, expected compute or intra");
}

moe_status moe_stragglers_check(const moe_list *stragglers, const moe_cluster *cluster,
                                const moe_config *config, moe_diag *diag)
{
    const int errors = moe_diag_error_count(diag);
    const moe_straggler *items = stragglers->items;
    for (size_t i = 0; i < stragglers->count; i++)
        check_straggler(&items[i], cluster, config, diag);
    return moe_diag_error_count(diag) > errors ? MOE_BAD_INPUT : MOE_OK;
}

/* --- units ------------------------------------------------------------------------------------ */

enum { NO_STRAGGLER = -1, SHARED_BY_HOST = -1 };

/* What a straggler has to know of a unit. */
typedef struct unit_place {
    int what;  /* moe_straggler_what, or NO_STRAGGLER: of no device's or host's own */
    int owner; /* device, or NIC; SHARED_BY_HOST */
    int other; /* a link of a mesh belongs to two devices */
    int host;
} unit_place;

/* From `from_s` on, up to the next piece. */
typedef struct piece {
    double from_s;
    double factor;
} piece;

struct moe_speed {
    const moe_cluster *cluster;
    const moe_straggler *stragglers;
    int straggler_count;
    uint64_t seed;
    gsl_rng *random;
    int unit_count;
    unit_place *places; /* [unit_count] */
    bool *concerned;    /* [straggler][unit] */
    double *drawn;      /* scratch: factors by device, NIC or host */

    int most_pieces;  /* of the step, as all below */
    int *piece_count; /* [unit] */
    piece *pieces;    /* [unit][most_pieces] */
    bool draws_per_operation;
    double *of_op; /* [op][unit] */
};

static unit_place device_place(const moe_cluster *cluster, int rank)
{
    const moe_place *place = &cluster->places[rank];
    return (unit_place){MOE_SLOW_COMPUTE, place->device, place->device, place->host};
}

static unit_place link_place(const moe_cluster *cluster, int unit)
{
    const int host = unit / MOE_MESH_PORTS;
    const int first = host * cluster->devices_per_host;
    const int from = first + cluster->mesh->from[unit % MOE_MESH_PORTS];
    const int to = first + cluster->mesh->to[unit % MOE_MESH_PORTS];
    return (unit_place){MOE_SLOW_INTRA, from, to, host};
}

static int switch_host(const moe_cluster *cluster, int unit)
{
    for (int rank = 0; rank < cluster->devices; rank++)
        if (cluster->places[rank].pcie_switch == unit)
            return cluster->places[rank].host;
    return 0;
}

static unit_place port_place(const moe_cluster *cluster, const moe_port *port)
{
    const int unit = port->unit;
    switch (port->kind) {
    case MOE_PORT_INTRA_OUT:
    case MOE_PORT_INTRA_IN:
        return (unit_place){MOE_SLOW_INTRA, unit, unit, unit / cluster->devices_per_host};
    case MOE_PORT_LINK:
        return link_place(cluster, unit);
    case MOE_PORT_BRIDGE:
        return (unit_place){MOE_SLOW_INTRA, SHARED_BY_HOST, SHARED_BY_HOST, unit};
    case MOE_PORT_SWITCH_UP:
    case MOE_PORT_SWITCH_DOWN:
        return (unit_place){MOE_SLOW_INTRA, SHARED_BY_HOST, SHARED_BY_HOST,
                            switch_host(cluster, unit)};
    case MOE_PORT_NIC_OUT:
    case MOE_PORT_NIC_IN:
        return (unit_place){MOE_SLOW_NIC, unit, unit, unit / cluster->nics_per_host};
    default:
        return (unit_place){.what = NO_STRAGGLER};
    }
}

static bool listed(const moe_reals *list, int number)
{
    for (size_t i = 0; i < list->count; i++)
        if ((int)list->values[i] == number)
            return true;
    return false;
}

/* A device's NIC serves other devices, too: it is slow for all of them. */
static bool nic_of_listed(const moe_cluster *cluster, const moe_reals *devices, int nic)
{
    for (int rank = 0; rank < cluster->devices; rank++)
        if (cluster->places[rank].nic == nic && listed(devices, cluster->places[rank].device))
            return true;
    return false;
}

static bool concerns(const moe_cluster *cluster, const moe_straggler *s, const unit_place *place)
{
    if (place->what != s->what)
        return false;
    if (s->devices.count == 0 && s->hosts.count == 0)
        return true;
    if (listed(&s->hosts, place->host))
        return true;
    if (place->owner == SHARED_BY_HOST)
        return false;
    if (place->what == MOE_SLOW_NIC)
        return nic_of_listed(cluster, &s->devices, place->owner);
    return listed(&s->devices, place->owner) || listed(&s->devices, place->other);
}

static void place_units(moe_speed *speed)
{
    const moe_cluster *cluster = speed->cluster;
    for (int rank = 0; rank < cluster->devices; rank++)
        speed->places[rank] = device_place(cluster, rank);
    for (int port = 0; port < cluster->port_count; port++)
        speed->places[moe_speed_port(cluster, port)] = port_place(cluster, &cluster->ports[port]);
    for (int s = 0; s < speed->straggler_count; s++)
        for (int unit = 0; unit < speed->unit_count; unit++)
            speed->concerned[(size_t)s * (size_t)speed->unit_count + (size_t)unit] =
                concerns(cluster, &speed->stragglers[s], &speed->places[unit]);
}

static int release_random(moe_speed *speed)
{
    gsl_rng_free(speed->random);
    return 0;
}

moe_speed *moe_speed_create(void *owner, const moe_cluster *cluster, const moe_list *stragglers,
                            uint64_t seed)
{
    if (stragglers->count == 0)
        return NULL;
    moe_speed *speed = moe_need(talloc_zero(owner, moe_speed));
    speed->random = moe_random_create(seed, "straggler", 0);
    talloc_set_destructor(speed, release_random);
    speed->cluster = cluster;
    speed->stragglers = stragglers->items;
    speed->straggler_count = (int)stragglers->count;
    speed->seed = seed;
    speed->unit_count = cluster->devices + cluster->port_count;
    speed->most_pieces = 1 + 2 * speed->straggler_count;
    const size_t units = (size_t)speed->unit_count;
    const size_t groups = (size_t)(cluster->devices + cluster->nics);
    speed->places = moe_need(talloc_array(speed, unit_place, units));
    speed->concerned = moe_need(talloc_array(speed, bool, units * stragglers->count));
    speed->drawn = moe_need(talloc_array(speed, double, groups));
    speed->piece_count = moe_need(talloc_array(speed, int, units));
    speed->pieces = moe_need(talloc_array(speed, piece, units * (size_t)speed->most_pieces));
    for (int s = 0; s < speed->straggler_count; s++)
        speed->draws_per_operation |= speed->stragglers[s].correlation == MOE_DRAW_PER_OPERATION;
    place_units(speed);
    return speed;
}

/* --- drawing a step --------------------------------------------------------------------------- */

static double draw_jitter(gsl_rng *random, const moe_straggler *s)
{
    const double variance = s->spread * s->spread;
    switch (s->distribution) {
    case MOE_JITTER_NORMAL:
        return fmax(0.1, 1 + gsl_ran_gaussian(random, s->spread));
    case MOE_JITTER_LOGNORMAL:
        return gsl_ran_lognormal(random, -log1p(variance) / 2, sqrt(log1p(variance)));
    case MOE_JITTER_GAMMA:
        return gsl_ran_gamma(random, 1 / variance, variance);
    default:
        return 1;
    }
}

/* The limits keep a draw from a wide distribution from standing still, or from taking no time. */
static double draw_factor(gsl_rng *random, const moe_straggler *s)
{
    const bool happens = gsl_rng_uniform(random) < s->probability;
    const double factor = s->factor / draw_jitter(random, s);
    return happens ? fmin(fmax(factor, 1e-3), 1e3) : 1;
}

/* Draws for every place there is, so that no place's draw depends on which others are concerned. */
static void draw_places(moe_speed *speed, const moe_straggler *s)
{
    const moe_cluster *cluster = speed->cluster;
    const int count = s->correlation == MOE_DRAW_PER_HOST ? cluster->hosts
                      : s->what == MOE_SLOW_NIC           ? cluster->nics
                                                          : cluster->devices;
    for (int i = 0; i < count; i++)
        speed->drawn[i] = draw_factor(speed->random, s);
}

/* What devices of a host share has the draw of the first of them. */
static double drawn_for(const moe_speed *speed, const moe_straggler *s, const unit_place *place)
{
    if (s->correlation == MOE_DRAW_PER_HOST)
        return speed->drawn[place->host];
    if (place->owner == SHARED_BY_HOST)
        return speed->drawn[place->host * speed->cluster->devices_per_host];
    return speed->drawn[place->owner];
}

static bool is_concerned(const moe_speed *speed, int s, int unit)
{
    return speed->concerned[(size_t)s * (size_t)speed->unit_count + (size_t)unit];
}

static piece *pieces_of(const moe_speed *speed, int unit)
{
    return speed->pieces + (size_t)unit * (size_t)speed->most_pieces;
}

/* Makes a piece begin at `time_s`; its index. */
static int cut(moe_speed *speed, int unit, double time_s)
{
    piece *pieces = pieces_of(speed, unit);
    int *count = &speed->piece_count[unit];
    int at = *count;
    while (at > 0 && pieces[at - 1].from_s >= time_s)
        at--;
    if (at < *count && pieces[at].from_s == time_s)
        return at;
    memmove(&pieces[at + 1], &pieces[at], (size_t)(*count - at) * sizeof *pieces);
    pieces[at] = (piece){time_s, at > 0 ? pieces[at - 1].factor : 1};
    ++*count;
    return at;
}

static void slow_down(moe_speed *speed, const moe_straggler *s, int unit, double factor)
{
    if (factor == 1)
        return;
    const int first = cut(speed, unit, s->from_s);
    const int last =
        s->for_s > 0 ? cut(speed, unit, s->from_s + s->for_s) : speed->piece_count[unit];
    piece *pieces = pieces_of(speed, unit);
    for (int i = first; i < last; i++)
        pieces[i].factor *= factor;
}

static void draw_straggler(moe_speed *speed, int index)
{
    const moe_straggler *s = &speed->stragglers[index];
    draw_places(speed, s);
    for (int unit = 0; unit < speed->unit_count; unit++)
        if (is_concerned(speed, index, unit))
            slow_down(speed, s, unit, drawn_for(speed, s, &speed->places[unit]));
}

static void draw_operations(moe_speed *speed, int index, int op_count)
{
    const moe_straggler *s = &speed->stragglers[index];
    for (int op = 0; op < op_count; op++) {
        double *factors = speed->of_op + (size_t)op * (size_t)speed->unit_count;
        draw_places(speed, s);
        for (int unit = 0; unit < speed->unit_count; unit++)
            if (is_concerned(speed, index, unit))
                factors[unit] *= drawn_for(speed, s, &speed->places[unit]);
    }
}

static void reset(moe_speed *speed, int op_count)
{
    const size_t cells = (size_t)op_count * (size_t)speed->unit_count;
    for (int unit = 0; unit < speed->unit_count; unit++) {
        speed->piece_count[unit] = 1;
        *pieces_of(speed, unit) = (piece){0, 1};
    }
    if (!speed->draws_per_operation)
        return;
    if (talloc_get_size(speed->of_op) < cells * sizeof(double))
        speed->of_op = moe_need(talloc_realloc(speed, speed->of_op, double, cells));
    for (size_t i = 0; i < cells; i++)
        speed->of_op[i] = 1;
}

void moe_speed_draw(moe_speed *speed, int64_t step, int op_count)
{
    if (!speed)
        return;
    reset(speed, op_count);
    for (int i = 0; i < speed->straggler_count; i++) {
        const moe_straggler *s = &speed->stragglers[i];
        if (step < s->first_step || (s->steps > 0 && step >= s->first_step + s->steps))
            continue;
        const uint64_t index = (uint64_t)step * (uint64_t)speed->straggler_count + (uint64_t)i;
        moe_random_reseed(speed->random, speed->seed, "straggler", index);
        if (s->correlation == MOE_DRAW_PER_OPERATION)
            draw_operations(speed, i, op_count);
        else
            draw_straggler(speed, i);
    }
}

/* --- asking ----------------------------------------------------------------------------------- */

bool moe_speed_is_nominal(const moe_speed *speed, int unit)
{
    return !speed || (speed->piece_count[unit] == 1 && pieces_of(speed, unit)->factor == 1);
}

/* The piece at `time_s`, and where it ends. */
static const piece *piece_at(const moe_speed *speed, int unit, double time_s, double *until_s)
{
    const piece *pieces = pieces_of(speed, unit);
    const int count = speed->piece_count[unit];
    int i = 0;
    while (i + 1 < count && pieces[i + 1].from_s <= time_s)
        i++;
    *until_s = i + 1 < count ? pieces[i + 1].from_s : INFINITY;
    return &pieces[i];
}

double moe_speed_at(const moe_speed *speed, int unit, double time_s, double *until_s)
{
    *until_s = INFINITY;
    return moe_speed_is_nominal(speed, unit) ? 1 : piece_at(speed, unit, time_s, until_s)->factor;
}

double moe_speed_finish(const moe_speed *speed, int unit, double start_s, double work_s)
{
    if (moe_speed_is_nominal(speed, unit))
        return start_s + work_s;
    for (;;) {
        double until_s;
        const double factor = piece_at(speed, unit, start_s, &until_s)->factor;
        const double end_s = start_s + work_s / factor;
        if (end_s <= until_s)
            return end_s;
        work_s = fmax(0, work_s - factor * (until_s - start_s));
        start_s = until_s;
    }
}

double moe_speed_done(const moe_speed *speed, int unit, double from_s, double to_s)
{
    if (moe_speed_is_nominal(speed, unit))
        return to_s - from_s;
    double done_s = 0;
    while (from_s < to_s) {
        double until_s;
        const double factor = piece_at(speed, unit, from_s, &until_s)->factor;
        const double end_s = fmin(until_s, to_s);
        done_s += factor * (end_s - from_s);
        from_s = end_s;
    }
    return done_s;
}

double moe_speed_work(const moe_speed *speed, int op, int unit, double work_s)
{
    if (!speed || !speed->draws_per_operation)
        return work_s;
    return work_s / speed->of_op[(size_t)op * (size_t)speed->unit_count + (size_t)unit];
}
