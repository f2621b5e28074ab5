/* The measured machine as a cluster, and what its samples say about rates that were only guessed. */
#include "calibrate/fit/fit_private.h"
#include "calibrate/fit/robust.h"
#include "configs/base/memory.h"
#include <math.h>
#include <string.h>
#include <talloc.h>

moe_cluster_spec *moe_fit_cluster(void *owner, const moe_sample_machine *machine)
{
    moe_cluster_spec *spec = moe_need(talloc_zero(owner, moe_cluster_spec));
    const char *device = machine->device ? machine->device : "device";
    *spec = (moe_cluster_spec){
        .name = moe_need(
            talloc_asprintf(spec, "%dx%d %s", machine->hosts, machine->devices_per_host, device)),
        .source = moe_need(talloc_strdup(spec, machine->description ? machine->description : "")),
        .hosts = machine->hosts,
        .devices_per_host = machine->devices_per_host,
        .device = {.name = moe_need(talloc_strdup(spec, device)),
                   .peak_flop_per_s = machine->peak_flop_per_s,
                   .memory_bytes = machine->memory_bytes,
                   .memory_bytes_per_s = machine->memory_bytes_per_s,
                   .sms = machine->sms},
        .intra = {.kind = MOE_INTRA_NVSWITCH,
                  .bandwidth_bytes_per_s = machine->link_bytes_per_s,
                  .latency_s = machine->link_latency_s},
        .nic = {.sharing = machine->nic_per_device ? MOE_NIC_PER_DEVICE : MOE_NIC_PER_HOST,
                .bandwidth_bytes_per_s = machine->nic_bytes_per_s,
                .latency_s = machine->nic_latency_s},
        .fabric = {.oversubscription = 1},
    };
    return spec;
}

/* ---- rates that samples beat ----------------------------------------------------------------- */

static double best_flop_per_s(const moe_samples *samples, const char *dtype)
{
    double best = 0;
    for (size_t i = 0; i < samples->count; i++) {
        const moe_sample *sample = &samples->items[i];
        double flop = 0;
        if (dtype != NULL && strcmp(sample->dtype, dtype) != 0)
            continue;
        if (sample->kind == MOE_SAMPLE_GEMM || sample->kind == MOE_SAMPLE_HEAD)
            flop = 2 * sample->m * sample->n * sample->k;
        else if (sample->kind == MOE_SAMPLE_EXPERTS)
            for (int e = 0; e < sample->experts; e++)
                flop +=
                    2 * (sample->gated ? 3 : 2) * sample->hidden * sample->ffn * sample->rows[e];
        best = fmax(best, flop / sample->seconds);
    }
    return best;
}

/* Efficiencies against a rate that nothing reaches. */
static double best_memory_bytes_per_s(const moe_samples *samples, const moe_cluster_spec *spec)
{
    static const double beyond = 1000;
    void *scratch = moe_need(talloc_new(NULL));
    moe_device_spec device = spec->device;
    moe_compute_curve curve = {0};
    double best = 0;
    device.memory_bytes_per_s *= beyond;
    moe_fit_memory(scratch, samples, &device, &curve);
    for (size_t i = 0; i < curve.efficiency.count; i++)
        best = fmax(best, curve.efficiency.y[i]);
    talloc_free(scratch);
    return best * device.memory_bytes_per_s;
}

/* Of collectives of one kind and number of ranks: the shortest. */
typedef struct shortest {
    int ranks, hosts;
    moe_collective_kind kind;
    double seconds, latency_s;
    bool inter;
} shortest;

typedef struct links {
    double intra, inter;                 /* how many times the nominal rate is needed */
    double intra_latency, inter_latency; /* the largest part of it that its samples allow */
} links;

typedef struct priced {
    const moe_sample *sample;
    moe_exchange_work work;
    size_t shortest; /* index */
} priced;

static size_t note_shortest(shortest *all, size_t *count, const priced *of)
{
    const moe_sample *sample = of->sample;
    size_t i = 0;
    while (i < *count && !(all[i].ranks == sample->ranks && all[i].hosts == sample->hosts &&
                           all[i].kind == sample->first.collective))
        i++;
    if (i == *count)
        all[(*count)++] = (shortest){sample->ranks, sample->hosts,      sample->first.collective,
                                     INFINITY,      of->work.latency_s, of->work.inter_s > 0};
    all[i].seconds = fmin(all[i].seconds, sample->seconds);
    return i;
}

static bool is_uniform_collective(const moe_sample *sample, const void *context)
{
    (void)context;
    return sample->kind == MOE_SAMPLE_COLLECTIVE && sample->first.matrix == NULL &&
           sample->first.chunk_list == NULL;
}

/* As find_floor in fit_collective.c: alpha may go down to half of the shortest time. */
static links look_at_links(const moe_samples *samples, const moe_cluster_spec *spec)
{
    void *scratch = moe_need(talloc_new(NULL));
    moe_selection chosen = moe_fit_select(scratch, samples, is_uniform_collective, NULL);
    moe_exchange_pricer *pricer = moe_exchange_pricer_create(scratch, spec);
    priced *all = moe_need(talloc_array(scratch, priced, chosen.count));
    shortest *floors = moe_need(talloc_array(scratch, shortest, chosen.count));
    size_t count = 0, floor_count = 0;
    links found = {0, 0, 1, 1};
    for (size_t i = 0; i < chosen.count; i++) {
        all[count].sample = chosen.items[i];
        if (!moe_exchange_price(pricer, &chosen.items[i]->first, chosen.items[i]->ranks,
                                chosen.items[i]->hosts, &all[count].work))
            continue;
        all[count].shortest = note_shortest(floors, &floor_count, &all[count]);
        count++;
    }
    for (size_t i = 0; i < count; i++) {
        double left_s = all[i].sample->seconds - 0.5 * floors[all[i].shortest].seconds;
        found.intra = fmax(found.intra, all[i].work.intra_s / left_s);
        found.inter = fmax(found.inter, all[i].work.inter_s / left_s);
    }
    for (size_t i = 0; i < floor_count; i++) {
        double *part = floors[i].inter ? &found.inter_latency : &found.intra_latency;
        if (floors[i].latency_s > 0)
            *part = fmin(*part, 0.8 * floors[i].seconds / floors[i].latency_s);
    }
    talloc_free(scratch);
    return found;
}

static void raise_to(double *rate, double seen, const char *what, moe_diag *diag)
{
    if (!(seen > *rate))
        return;
    if (*rate > 0)
        moe_diag_warning(
            diag, (moe_where){0},
            "samples reach %.4g %s a second, more than the %.4g that the machine guessed; "
            "that rate is raised, as efficiencies end at 1",
            seen, what, *rate);
    *rate = seen;
}

static void adjust_links(moe_sample_machine *machine, const moe_samples *samples, moe_diag *diag)
{
    moe_sample_machine assumed = *machine;
    void *scratch = moe_need(talloc_new(NULL));
    /* Rates that nobody told: any will do to find out which is needed. */
    if (!(assumed.link_bytes_per_s > 0))
        assumed.link_bytes_per_s = 1e9;
    if (!(assumed.nic_bytes_per_s > 0))
        assumed.nic_bytes_per_s = 1e9;
    links found = look_at_links(samples, moe_fit_cluster(scratch, &assumed));
    bool free_link = !machine->nominal || !(machine->link_bytes_per_s > 0);
    bool free_nic = !machine->nominal || !(machine->nic_bytes_per_s > 0);
    if (free_link)
        raise_to(&machine->link_bytes_per_s, found.intra * assumed.link_bytes_per_s,
                 "bytes over a link", diag);
    if (free_nic)
        raise_to(&machine->nic_bytes_per_s, found.inter * assumed.nic_bytes_per_s,
                 "bytes over a NIC", diag);
    machine->link_latency_s *= found.intra_latency;
    machine->nic_latency_s *= found.inter_latency;
    talloc_free(scratch);
}

void moe_fit_adjust_machine(moe_samples *samples, const char *dtype, moe_diag *diag)
{
    moe_sample_machine *machine = &samples->machine;
    adjust_links(machine, samples, diag);
    if (machine->nominal)
        return;
    void *scratch = moe_need(talloc_new(NULL));
    const moe_cluster_spec *spec = moe_fit_cluster(scratch, machine);
    raise_to(&machine->peak_flop_per_s, best_flop_per_s(samples, dtype), "FLOPs", diag);
    raise_to(&machine->memory_bytes_per_s, best_memory_bytes_per_s(samples, spec),
             "bytes of memory", diag);
    talloc_free(scratch);
}
