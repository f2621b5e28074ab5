#include "reports/validation/loop_case.h"

#include "configs/base/memory.h"
#include "models/cluster.h"
#include "traces/mapping.h"

#include <stdlib.h>
#include <talloc.h>

enum { EXPERTS = MOE_LOOP_EXPERTS };

/* Iterations of the trace: early, in the middle, after its switch of texts, late. */
static const int recorded[] = {60, 200, 350, 480, 620, 690};
enum { RECORDED = sizeof recorded / sizeof *recorded, RECORDED_QUICK = 3 };

/* --- instances ---------------------------------------------------------------------------------- */

static const char *sample_file(void *owner)
{
    const char *folder = getenv("MOEPLAN_DATA");
    return moe_need(talloc_asprintf(owner, "%s/traces/samples/gpt-moe-16e-top2-raw.safetensors",
                                    folder && *folder ? folder : MOEPLAN_DATA_DIR));
}

static size_t cells(const moe_loop_case *of)
{
    return (size_t)of->layers * (size_t)of->ranks * EXPERTS;
}

static bool read_recorded(moe_loop_case *of, const moe_trace *trace, moe_diag *diag)
{
    const moe_trace_use use = {.file = "",
                               .sources = MOE_SOURCES_FOLD,
                               .layers = MOE_LAYERS_CYCLE,
                               .tokens_per_source = of->tokens,
                               .repeat = 1};
    const moe_routing_target target = {of->layers, of->ranks, EXPERTS, of->top_k, 1};
    moe_routing *routing = moe_routing_create(of, trace, &use, &target, 1, NULL, diag);
    if (!routing)
        return false;
    for (int i = 0; i < of->instances - 1; i++) {
        of->names[i] = moe_need(talloc_asprintf(of, "recorded %d", recorded[i]));
        for (int layer = 0; layer < of->layers; layer++)
            moe_routing_read(routing, recorded[i], 0, layer,
                             of->counts + (size_t)i * cells(of) +
                                 (size_t)layer * (size_t)of->ranks * EXPERTS,
                             NULL);
    }
    return true;
}

static void add_uniform(moe_loop_case *of)
{
    uint32_t *counts = of->counts + (size_t)(of->instances - 1) * cells(of);
    for (size_t i = 0; i < cells(of); i++)
        counts[i] = (uint32_t)(of->tokens * of->top_k / EXPERTS);
    of->names[of->instances - 1] = "uniform";
}

moe_loop_case *moe_loop_case_create(void *owner, int ranks, bool quick, moe_diag *diag)
{
    moe_loop_case *of = moe_need(talloc(owner, moe_loop_case));
    *of = (moe_loop_case){.ranks = ranks,
                          .layers = quick ? 2 : 4,
                          .hidden = 256,
                          .ffn = 512,
                          .top_k = 2,
                          .heads = 4,
                          .sequence = 256,
                          .vocabulary = 1024,
                          .tokens = quick ? 512 : 1024,
                          .repetitions = quick ? 9 : 15,
                          .seconds = quick ? 0.05 : 0.25,
                          .instances = (quick ? RECORDED_QUICK : RECORDED) + 1};
    of->counts =
        moe_need(talloc_zero_array(of, uint32_t, (unsigned)((size_t)of->instances * cells(of))));
    const moe_trace *trace = moe_trace_open(of, sample_file(of), (moe_where){0}, diag);
    if (!trace || !read_recorded(of, trace, diag)) {
        talloc_free(of);
        return NULL;
    }
    add_uniform(of);
    return of;
}

/* --- what the simulator reads ------------------------------------------------------------------- */

void moe_loop_write_model(const moe_loop_case *of, FILE *stream)
{
    fprintf(stream,
            "name: loop\nsource: moeplan validate loop\nlayers: %d\nhidden: %d\nffn: %d\n"
            "experts: %d\ntop_k: %d\nheads: %d\ncausal: true\nsequence: %d\nnorm: none\n"
            "vocabulary: %d\ntied_embeddings: false\nparameter_dtype: fp32\n"
            "gradient_dtype: fp32\noptimizer_bytes_per_parameter: 12\n",
            of->layers, of->hidden, of->ffn, EXPERTS, of->top_k, of->heads, of->sequence,
            of->vocabulary);
}

void moe_loop_write_scenario(const moe_loop_case *of, FILE *stream)
{
    fprintf(stream,
            "name: A small MoE on this machine\ncluster: cluster.yaml\nmodel: model.yaml\n"
            "profile: profile.yaml\ntrace: {file: instances.safetensors}\nstep: train\n"
            "parallel: {ep: %d}\nbatch: {micro_batches: 1}\npolicies: [{name: ep}]\n"
            "engine: fluid\nseed: 1\n",
            of->ranks);
}

moe_status moe_loop_write_trace(const moe_loop_case *of, const char *path, moe_diag *diag)
{
    json_t *provenance = json_object();
    const moe_trace_info info = {.shape = {of->instances, 1, of->layers, of->ranks, EXPERTS},
                                 .aggregation = MOE_AGGREGATION_DISPATCH,
                                 .window = 1,
                                 .top_k = of->top_k,
                                 .synthetic = true, /* the last one is */
                                 .origin = "moeplan validate loop",
                                 .provenance = provenance};
    moe_trace_writer *writer = moe_trace_writer_open(NULL, path, &info, false, 0, diag);
    moe_status status = writer ? MOE_OK : MOE_BAD_INPUT;
    for (int i = 0; status == MOE_OK && i < of->instances; i++)
        status = moe_trace_writer_append(writer, of->counts + (size_t)i * cells(of), NULL, diag);
    if (writer && status == MOE_OK)
        status = moe_trace_writer_commit(writer, diag);
    else
        talloc_free(writer);
    json_decref(provenance);
    return status;
}

/* --- the step that is run ----------------------------------------------------------------------- */

static json_t *source_counts(const uint32_t *counts)
{
    json_t *row = json_array();
    for (int expert = 0; expert < EXPERTS; expert++)
        json_array_append_new(row, json_integer(counts[expert]));
    return row;
}

static json_t *instance_json(const moe_loop_case *of, int instance)
{
    const uint32_t *counts = of->counts + (size_t)instance * cells(of);
    json_t *layers = json_array();
    for (int layer = 0; layer < of->layers; layer++) {
        json_t *sources = json_array();
        for (int rank = 0; rank < of->ranks; rank++, counts += EXPERTS)
            json_array_append_new(sources, source_counts(counts));
        json_array_append_new(layers, sources);
    }
    return json_pack("{s:s, s:o}", "name", of->names[instance], "counts", layers);
}

json_t *moe_loop_step(const moe_loop_case *of)
{
    json_t *instances = json_array();
    for (int i = 0; i < of->instances; i++)
        json_array_append_new(instances, instance_json(of, i));
    json_t *network =
        json_pack("{s:i, s:i, s:i, s:b, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "layers", of->layers,
                  "hidden", of->hidden, "ffn", of->ffn, "gated", 0, "experts", (int)EXPERTS,
                  "top_k", of->top_k, "heads", of->heads, "kv_heads", of->heads, "sequence",
                  of->sequence, "vocabulary", of->vocabulary, "causal", 1);
    return json_pack("{s:s, s:i, s:o, s:i, s:i, s:i, s:o}", "format", "moecal-step", "version", 1,
                     "network", network, "ranks", of->ranks, "tokens", of->tokens, "repetitions",
                     of->repetitions, "instances", instances);
}
