#include "calibrate/fit/import.h"

/* The machine of all samples: as many hosts as the largest of them used. */
static void write_machine(const moe_samples *samples, FILE *stream)
{
    const moe_sample_machine *machine = &samples->machine;
    int hosts = machine->hosts;
    for (size_t i = 0; i < samples->count; i++)
        hosts = samples->items[i].hosts > hosts ? samples->items[i].hosts : hosts;
    json_t *json = json_pack(
        "{s:s, s:s, s:i, s:s, s:s, s:i, s:i, s:i, s:{s:s, s:f, s:f, s:f, s:i}, s:{s:f, s:f}, "
        "s:{s:s}}",
        "record", "machine", "format", "moecal-samples", "version", 1, "machine", machine->digest,
        "backend", "imported", "hosts", hosts, "ranks", hosts * machine->devices_per_host,
        "devices_per_host", machine->devices_per_host, "device", "name", machine->device,
        "peak_flop_per_s", machine->peak_flop_per_s, "memory_bytes", machine->memory_bytes,
        "memory_bytes_per_s", machine->memory_bytes_per_s, "sms", machine->sms, "link",
        "bytes_per_s", machine->link_bytes_per_s, "latency_s", machine->link_latency_s, "software",
        "imported", machine->description);
    if (machine->nic_bytes_per_s > 0)
        json_object_set_new(json, "nic",
                            json_pack("{s:f, s:f, s:b}", "bytes_per_s", machine->nic_bytes_per_s,
                                      "latency_s", machine->nic_latency_s, "per_device",
                                      machine->nic_per_device));
    json_dumpf(json, stream, JSON_COMPACT | JSON_REAL_PRECISION(17));
    fputc('\n', stream);
    json_decref(json);
}

static json_t *gemm_json(const moe_sample *sample)
{
    return json_pack("{s:f, s:f, s:f}", "m", sample->m, "n", sample->n, "k", sample->k);
}

static json_t *experts_json(const moe_sample *sample)
{
    json_t *rows = json_array();
    for (int i = 0; i < sample->experts; i++)
        json_array_append_new(rows, json_real(sample->rows[i]));
    return json_pack("{s:s, s:f, s:f, s:b, s:s, s:o}", "phase", moe_phase_names[sample->phase],
                     "hidden", sample->hidden, "ffn", sample->ffn, "gated", sample->gated,
                     "distribution", "uniform", "rows", rows);
}

static json_t *collective_json(const moe_sample *sample)
{
    return json_pack("{s:s, s:f, s:i, s:i}", "collective",
                     moe_collective_names[sample->first.collective], "bytes", sample->first.bytes,
                     "ranks", sample->ranks, "hosts", sample->hosts);
}

static void write_sample(const moe_samples *samples, size_t number, FILE *stream)
{
    const moe_sample *sample = &samples->items[number];
    json_t *json = sample->kind == MOE_SAMPLE_GEMM      ? gemm_json(sample)
                   : sample->kind == MOE_SAMPLE_EXPERTS ? experts_json(sample)
                                                        : collective_json(sample);
    char id[64];
    snprintf(id, sizeof id, "imported/%s/%zu", moe_sample_kind_names[sample->kind], number);
    json_t *common =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:[f]}", "record", "sample", "id", id, "kind",
                  moe_sample_kind_names[sample->kind], "machine", samples->machine.digest, "dtype",
                  sample->dtype, "times_s", sample->seconds);
    json_object_update(common, json);
    json_dumpf(common, stream, JSON_COMPACT | JSON_REAL_PRECISION(17));
    fputc('\n', stream);
    json_decref(json);
    json_decref(common);
}

void moe_samples_write(const moe_samples *samples, FILE *stream)
{
    write_machine(samples, stream);
    for (size_t i = 0; i < samples->count; i++)
        write_sample(samples, i, stream);
}
