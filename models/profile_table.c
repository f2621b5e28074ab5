#include "models/profile.h"

const char *const moe_collective_names[] = {"all_to_all", "all_gather", "reduce_scatter",
                                            "all_reduce", "broadcast",  "reduce",
                                            "send_recv",  "all_to_all_low_latency",
                                            NULL};

const char *const moe_reduce_algorithm_names[] = {"ring", "tree", "in_network", NULL};

const char *const moe_origin_names[] = {"measured", "imported", "derived", "assumed", NULL};

#define ORIGIN(structure, member, what)                                                            \
    {                                                                                              \
        .key = #member, .type = MOE_FIELD_CHOICE, .default_text = "assumed",                       \
        .offset = offsetof(structure, member), .choices = moe_origin_names,                        \
        .sentence = "Where " what " from: measured by us, imported from a published measurement, " \
                    "derived from one, or assumed."                                                \
    }

#define RESIDUAL(structure)                                                                        \
    {                                                                                              \
        .key = "residual", .type = MOE_FIELD_REAL, .dimension = MOE_FRACTION, .default_text = "0", \
        .offset = offsetof(structure, residual), .low = 0, .high = 10,                             \
        .sentence = "Mean absolute relative error of the curve against its measurements; 0 where " \
                    "there are none; lower is better."                                             \
    }

#define START(text, advice)                                                                        \
    {                                                                                              \
        .key = "start", .type = MOE_FIELD_REAL, .dimension = MOE_SECONDS, .default_text = text,    \
        .offset = offsetof(moe_compute_curve, start_s), .low = 0, .high = 1,                       \
        .sentence =                                                                                \
            "Seconds that a group of kernels takes beside its work; lower is better" advice        \
    }

#define FLOP_EFFICIENCY(text, advice)                                                              \
    {                                                                                              \
        .key = "flop_efficiency", .type = MOE_FIELD_REAL, .dimension = MOE_FRACTION,               \
        .default_text = text, .offset = offsetof(moe_compute_curve, flop_efficiency), .low = 1e-6, \
        .high = 1,                                                                                 \
        .sentence = "Fraction of the device's peak FLOP/s that large work reaches; higher is "     \
                    "better" advice                                                                \
    }

#define MEMORY_EFFICIENCY(text, advice)                                                            \
    {                                                                                              \
        .key = "memory_efficiency", .type = MOE_FIELD_REAL, .dimension = MOE_FRACTION,             \
        .default_text = text, .offset = offsetof(moe_compute_curve, memory_efficiency),            \
        .low = 1e-6, .high = 1,                                                                    \
        .sentence =                                                                                \
            "Fraction of the device's memory bandwidth that large work reaches; higher is "        \
            "better" advice                                                                        \
    }

#define NORM                                                                                       \
    {                                                                                              \
        .key = "norm", .type = MOE_FIELD_REAL, .dimension = MOE_NUMBER, .default_text = "2.7",     \
        .offset = offsetof(moe_compute_curve, norm), .low = 1, .high = 1000,                       \
        .sentence =                                                                                \
            "The p in (a^p + b^p)^(1/p) of arithmetic time a and memory time b: 1 adds them, "     \
            "a large p takes the longer one (2.7 fits H100 GEMMs best)."                           \
    }

#define ROWS(low_sentence, high_sentence)                                                          \
    {.key = "low_rows",                                                                            \
     .type = MOE_FIELD_REAL,                                                                       \
     .dimension = MOE_NUMBER,                                                                      \
     .default_text = "0",                                                                          \
     .offset = offsetof(moe_compute_curve, low_rows),                                              \
     .low = 0,                                                                                     \
     .high = 1e12,                                                                                 \
     .sentence = low_sentence},                                                                    \
    {                                                                                              \
        .key = "high_rows", .type = MOE_FIELD_REAL, .dimension = MOE_NUMBER, .default_text = "0",  \
        .offset = offsetof(moe_compute_curve, high_rows), .low = 0, .high = 1e12,                  \
        .sentence = high_sentence                                                                  \
    }

static const moe_field dense_fields[] = {
    START("3.5 us", " (3.5 us fits A100 to B200 GEMMs)."),
    FLOP_EFFICIENCY("0.8", " (A100 0.85, H100 0.79, B200 0.72)."),
    MEMORY_EFFICIENCY("0.8", " (A100 0.77, H100 0.85, B200 0.77)."),
    NORM,
    ROWS("Fewest rows (tokens) of one GEMM that the curve is known for.",
         "Most rows (tokens) of one GEMM that the curve is known for; 0: no limit."),
    RESIDUAL(moe_compute_curve),
    ORIGIN(moe_compute_curve, origin, "this curve comes"),
    {0},
};

static const moe_table dense_table = {
    .noun = "dense cost",
    .sentence = "Cost of GEMM-like work outside the experts.",
    .size = sizeof(moe_compute_curve),
    .fields = dense_fields,
};

static const moe_field expert_fields[] = {
    START("25 us", " (grouped GEMM and permutation: 19 to 50 us)."),
    FLOP_EFFICIENCY("0.6", " (grouped GEMM: 0.5 to 0.7)."),
    MEMORY_EFFICIENCY("0.85", " (grouped GEMM: 0.83 to 0.95)."),
    NORM,
    {.key = "tile_rows",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "128",
     .offset = offsetof(moe_compute_curve, tile_rows),
     .low = 1,
     .high = 65536,
     .sentence =
         "Rows of one expert are rounded up to a multiple of this before they are computed; "
         "lower is better."},
    ROWS("Fewest rows, of all experts of a device together, that the curve is known for.",
         "Most rows, of all experts of a device together, that the curve is known for; 0: no "
         "limit."),
    RESIDUAL(moe_compute_curve),
    ORIGIN(moe_compute_curve, origin, "this curve comes"),
    {0},
};

static const moe_table expert_table = {
    .noun = "expert cost",
    .sentence = "Cost of the experts of one device, as a function of the rows of each.",
    .size = sizeof(moe_compute_curve),
    .fields = expert_fields,
};

static const moe_field memory_fields[] = {
    START("3.5 us", "."),
    MEMORY_EFFICIENCY("0.8", "."),
    RESIDUAL(moe_compute_curve),
    ORIGIN(moe_compute_curve, origin, "this curve comes"),
    {0},
};

static const moe_table memory_table = {
    .noun = "memory cost",
    .sentence = "Cost of memory-bound work: permutation, norms, optimizer.",
    .size = sizeof(moe_compute_curve),
    .fields = memory_fields,
};

/* The maps `launch` and `interference` have no struct of their own: they start at their first
 * member. */
#define IN_LAUNCH(member)       (offsetof(moe_profile, member) - offsetof(moe_profile, launch_s))
#define IN_INTERFERENCE(member) (offsetof(moe_profile, member) - offsetof(moe_profile, sm_share))

static const moe_field launch_fields[] = {
    {.key = "kernel",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "6 us",
     .offset = IN_LAUNCH(launch_s),
     .low = 0,
     .high = 1,
     .sentence = "Host seconds of one kernel launch; lower is better."},
    {.key = "sync",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "15 us",
     .offset = IN_LAUNCH(host_sync_s),
     .low = 0,
     .high = 1,
     .sentence = "Seconds that the host waits for a copy of token counts from its device; lower is "
                 "better."},
    {.key = "origin",
     .type = MOE_FIELD_CHOICE,
     .default_text = "assumed",
     .offset = IN_LAUNCH(launch_origin),
     .choices = moe_origin_names,
     .sentence = "Where both numbers come from: measured by us, imported from a published "
                 "measurement, derived from one, or assumed."},
    {0},
};

static const moe_table launch_table = {
    .noun = "launch cost",
    .sentence = "What the host pays.",
    .size = sizeof(moe_profile) - offsetof(moe_profile, launch_s),
    .fields = launch_fields,
};

static const moe_field interference_fields[] = {
    {.key = "sm_share",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_FRACTION,
     .default_text = "20/132",
     .offset = IN_INTERFERENCE(sm_share),
     .low = 0,
     .high = 0.9,
     .sentence = "Fraction of a device's SMs that a collective takes from computation beside it; "
                 "lower is better (20 of 132: DeepSeek-V3's trace, H800)."},
    {.key = "slowdown",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_NUMBER,
     .default_text = "1.5",
     .offset = IN_INTERFERENCE(slowdown),
     .low = 1,
     .high = 100,
     .sentence =
         "How many times longer a collective takes beside computation; lower is better (1.3 "
         "to 1.8 in the same trace)."},
    {.key = "origin",
     .type = MOE_FIELD_CHOICE,
     .default_text = "assumed",
     .offset = IN_INTERFERENCE(interference_origin),
     .choices = moe_origin_names,
     .sentence = "Where both numbers come from: measured by us, imported from a published "
                 "measurement, derived from one, or assumed."},
    {0},
};

static const moe_table interference_table = {
    .noun = "interference",
    .sentence = "What collectives and computation cost each other when they run side by side.",
    .size = sizeof(moe_profile) - offsetof(moe_profile, sm_share),
    .fields = interference_fields,
};

#define CURVE                                                                                      \
    {.key = "start",                                                                               \
     .type = MOE_FIELD_REAL,                                                                       \
     .dimension = MOE_SECONDS,                                                                     \
     .default_text = "8 us",                                                                       \
     .offset = offsetof(moe_collective_curve, start_s),                                            \
     .low = 0,                                                                                     \
     .high = 1,                                                                                    \
     .sentence =                                                                                   \
         "Seconds of a collective beside its bytes and hops; lower is better (8 us fits NCCL "     \
         "on A100)."},                                                                             \
        {.key = "start_per_rank",                                                                  \
         .type = MOE_FIELD_REAL,                                                                   \
         .dimension = MOE_SECONDS,                                                                 \
         .default_text = "0",                                                                      \
         .offset = offsetof(moe_collective_curve, start_per_rank_s),                               \
         .low = 0,                                                                                 \
         .high = 1,                                                                                \
         .sentence =                                                                               \
             "Seconds added for every doubling of the ranks (times log2 of their number); lower "  \
             "is better."},                                                                        \
        {.key = "start_per_chunk",                                                                 \
         .type = MOE_FIELD_REAL,                                                                   \
         .dimension = MOE_SECONDS,                                                                 \
         .default_text = "5 us",                                                                   \
         .offset = offsetof(moe_collective_curve, start_per_chunk_s),                              \
         .low = 0,                                                                                 \
         .high = 1,                                                                                \
         .sentence = "Seconds added for every chunk of a grouped collective; lower is better."},   \
        {.key = "intra",                                                                           \
         .type = MOE_FIELD_POINTS,                                                                 \
         .dimension = MOE_BYTES,                                                                   \
         .dimension_y = MOE_FRACTION,                                                              \
         .offset = offsetof(moe_collective_curve, intra),                                          \
         .low = 1e-6,                                                                              \
         .high = 1,                                                                                \
         .sentence = "Bytes per rank, as nccl-tests counts them, and the fraction of the link's "  \
                     "rate that "                                                                  \
                     "is reached within a host beyond the start; higher is better."},              \
        {.key = "inter",                                                                           \
         .type = MOE_FIELD_POINTS,                                                                 \
         .dimension = MOE_BYTES,                                                                   \
         .dimension_y = MOE_FRACTION,                                                              \
         .offset = offsetof(moe_collective_curve, inter),                                          \
         .low = 1e-6,                                                                              \
         .high = 1,                                                                                \
         .sentence =                                                                               \
             "Bytes per rank, as nccl-tests counts them, and the fraction of the rate of NIC and " \
             "leaf that is reached between hosts beyond the start; higher is better."},            \
        RESIDUAL(moe_collective_curve),                                                            \
        ORIGIN(moe_collective_curve, origin, "start and intra come"),                              \
        ORIGIN(moe_collective_curve, inter_origin, "inter comes")

static const moe_field collective_fields[] = {CURVE, {0}};

static const moe_field all_reduce_fields[] = {
    CURVE,
    {.key = "algorithm",
     .type = MOE_FIELD_CHOICE,
     .default_text = "ring",
     .offset = offsetof(moe_collective_curve, algorithm),
     .choices = moe_reduce_algorithm_names,
     .sentence =
         "What an all-reduce runs, and start and efficiency belong to: a ring; NCCL's two "
         "binary trees between hosts, which on two hosts move about half of a ring's bytes; "
         "or reduction in_network, by the switches of which the cluster says `reduction`."},
    {0},
};

static const moe_table collective_table = {
    .noun = "collective cost",
    .sentence = "Cost of one kind of collective alone.",
    .size = sizeof(moe_collective_curve),
    .fields = collective_fields,
};

static const moe_table all_reduce_table = {
    .noun = "all-reduce cost",
    .sentence = "Cost of an all-reduce alone.",
    .size = sizeof(moe_collective_curve),
    .fields = all_reduce_fields,
};

#define COLLECTIVE(name, kind, its_table, what)                                                    \
    {                                                                                              \
        .key = name, .type = MOE_FIELD_MAP, .offset = (kind) * sizeof(moe_collective_curve),       \
        .table = &its_table, .sentence = what                                                      \
    }

static const moe_field collectives_fields[] = {
    COLLECTIVE("all_to_all", MOE_ALL_TO_ALL, collective_table,
               "Dispatch and combine; size: one rank's buffer."),
    COLLECTIVE("all_gather", MOE_ALL_GATHER, collective_table, "Ring; size: the gathered result."),
    COLLECTIVE("reduce_scatter", MOE_REDUCE_SCATTER, collective_table,
               "Ring; size: one rank's input."),
    COLLECTIVE("all_reduce", MOE_ALL_REDUCE, all_reduce_table,
               "Ring unless `algorithm` says otherwise; size: one rank's buffer."),
    COLLECTIVE("broadcast", MOE_BROADCAST, collective_table,
               "Broadcasts and SparseAllGather; size: all chunks that travel."),
    COLLECTIVE("reduce", MOE_REDUCE, collective_table,
               "Reduces and SparseReduceScatter; size: all chunks that travel."),
    COLLECTIVE("send_recv", MOE_SEND_RECV, collective_table,
               "Point to point; size: what a sender sends, on average."),
    COLLECTIVE("all_to_all_low_latency", MOE_ALL_TO_ALL_LOW_LATENCY, collective_table,
               "Dispatch and combine by kernels made for few tokens, which pack and sort them, too; "
               "size: one rank's buffer. Optional: without points all_to_all stands in."),
    {0},
};

static const moe_table collectives_table = {
    .noun = "collective costs",
    .sentence = "Cost of collectives, by kind.",
    .size = MOE_COLLECTIVE_KINDS * sizeof(moe_collective_curve),
    .fields = collectives_fields,
};

#define PART(name, member, its_table, what)                                                        \
    {                                                                                              \
        .key = name, .type = MOE_FIELD_MAP, .offset = member, .table = &its_table,                 \
        .sentence = what                                                                           \
    }

static const moe_field profile_fields[] = {
    {.key = "name",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(moe_profile, name),
     .sentence = "Name of the profile in reports."},
    {.key = "source",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(moe_profile, source),
     .sentence = "Where the numbers come from; copied into every result."},
    {.key = "device",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(moe_profile, device),
     .sentence = "Name of the device model that the profile was made for, as clusters name it."},
    PART("dense", offsetof(moe_profile, dense), dense_table, "GEMM-like work outside the experts."),
    PART("experts", offsetof(moe_profile, experts), expert_table, "The experts of one device."),
    PART("memory", offsetof(moe_profile, memory), memory_table, "Memory-bound work."),
    PART("launch", offsetof(moe_profile, launch_s), launch_table, "What the host pays."),
    PART("interference", offsetof(moe_profile, sm_share), interference_table,
         "Collectives and computation side by side."),
    PART("collectives", offsetof(moe_profile, collectives), collectives_table,
         "Collectives, by kind."),
    {0},
};

const moe_table moe_profile_table = {
    .noun = "profile",
    .sentence = "What operations cost on one kind of device and fabric.",
    .size = sizeof(moe_profile),
    .fields = profile_fields,
};
