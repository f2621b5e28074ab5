#include "models/profile.h"

const char *const moe_collective_names[] = {
    "all_to_all", "all_gather", "reduce_scatter",         "all_reduce", "broadcast",
    "reduce",     "send_recv",  "all_to_all_low_latency", NULL};

const char *const moe_reduce_algorithm_names[] = {"ring", "tree", "in_network", NULL};

const char *const moe_copy_names[] = {"host_to_device", "device_to_host", "storage_read",
                                      "storage_write", NULL};

const char *const moe_sharing_names[] = {"per_collective", "per_flow", "weighted", NULL};

const char *const moe_origin_names[] = {"measured", "imported", "derived", "assumed", NULL};

#define ORIGIN(structure, member, what)                                                            \
    {                                                                                              \
        .key = #member, .type = MOE_FIELD_CHOICE, .default_text = "assumed",                       \
        .offset = offsetof(structure, member), .choices = moe_origin_names,                        \
        .sentence = "Where " what " from: measured by us, imported from a published measurement, " \
                    "derived from one, or assumed."                                                \
    }

/* What a curve was made from: moe_evidence at `at` of the structure. `columns` of a sample. */
#define EVIDENCE(structure, columns)                                                               \
    {.key = "residual",                                                                            \
     .type = MOE_FIELD_REAL,                                                                       \
     .dimension = MOE_FRACTION,                                                                    \
     .default_text = "0",                                                                          \
     .offset = offsetof(structure, evidence.residual),                                             \
     .low = 0,                                                                                     \
     .high = 10,                                                                                   \
     .sentence = "Mean absolute relative error of the curve against its measurements; 0 where "    \
                 "there are none; lower is better."},                                              \
        {.key = "leave_one_out",                                                                   \
         .type = MOE_FIELD_REAL,                                                                   \
         .dimension = MOE_FRACTION,                                                                \
         .default_text = "0",                                                                      \
         .offset = offsetof(structure, evidence.leave_one_out),                                    \
         .low = 0,                                                                                 \
         .high = 10,                                                                               \
         .sentence = "The same, each measurement predicted by a curve made without it; 0: not "    \
                     "known; lower is better."},                                                   \
        {.key = "worst",                                                                           \
         .type = MOE_FIELD_REAL,                                                                   \
         .dimension = MOE_FRACTION,                                                                \
         .default_text = "0",                                                                      \
         .offset = offsetof(structure, evidence.worst),                                            \
         .low = 0,                                                                                 \
         .high = 1e6,                                                                              \
         .sentence = "Largest relative error of the curve against one of its measurements; lower " \
                     "is better."},                                                                \
        {.key = "machine",                                                                         \
         .type = MOE_FIELD_TEXT,                                                                   \
         .offset = offsetof(structure, evidence.machine),                                          \
         .sentence = "What this curve was measured on; absent: see the profile's source."},        \
    {                                                                                              \
        .key = "samples", .type = MOE_FIELD_ROWS, .dimension = MOE_NUMBER,                         \
        .offset = offsetof(structure, evidence.samples),                                           \
        .sentence = "What the curve was made from, a row each: " columns                           \
                    ", measured and predicted seconds."                                            \
    }

#define START(text, advice)                                                                        \
    {                                                                                              \
        .key = "start", .type = MOE_FIELD_REAL, .dimension = MOE_SECONDS, .default_text = text,    \
        .offset = offsetof(moe_compute_curve, start_s), .low = 0, .high = 1,                       \
        .sentence =                                                                                \
            "Seconds that a group of kernels takes beside its work; lower is better" advice        \
    }

#define FLOP_EFFICIENCY(text, lowest, advice)                                                      \
    {                                                                                              \
        .key = "flop_efficiency", .type = MOE_FIELD_REAL, .dimension = MOE_FRACTION,               \
        .default_text = text, .offset = offsetof(moe_compute_curve, flop_efficiency),              \
        .low = lowest, .high = 1,                                                                  \
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
    FLOP_EFFICIENCY("0.8", 1e-6, " (A100 0.85, H100 0.79, B200 0.72)."),
    MEMORY_EFFICIENCY("0.8", " (A100 0.77, H100 0.85, B200 0.77)."),
    NORM,
    ROWS("Fewest rows (tokens) of one GEMM that the curve is known for.",
         "Most rows (tokens) of one GEMM that the curve is known for; 0: no limit."),
    EVIDENCE(moe_compute_curve, "m, n, k"),
    ORIGIN(moe_compute_curve, origin, "this curve comes"),
    {0},
};

static const moe_table dense_table = {
    .noun = "dense cost",
    .sentence = "Cost of GEMM-like work outside the experts.",
    .size = sizeof(moe_compute_curve),
    .fields = dense_fields,
};

static const moe_field attention_fields[] = {
    START("3.5 us", "."),
    FLOP_EFFICIENCY("0", 0, "; 0: there is no such curve, attention costs as dense."),
    MEMORY_EFFICIENCY("0.8", "."),
    NORM,
    ROWS("Fewest rows (tokens) of attention that the curve is known for.",
         "Most rows (tokens) of attention that the curve is known for; 0: no limit."),
    EVIDENCE(moe_compute_curve, "FLOP, bytes"),
    ORIGIN(moe_compute_curve, origin, "this curve comes"),
    {0},
};

static const moe_table attention_table = {
    .noun = "attention cost",
    .sentence = "Cost of attention scores, softmax(QK)V. Optional.",
    .size = sizeof(moe_compute_curve),
    .fields = attention_fields,
};

static const moe_field gemm_fields[] = {
    {.key = "m",
     .type = MOE_FIELD_REALS,
     .dimension = MOE_NUMBER,
     .offset = offsetof(moe_gemm_grid, m),
     .low = 1,
     .high = 1e12,
     .sentence = "Rows of the measured matrices, ascending; without lists there is no grid."},
    {.key = "n",
     .type = MOE_FIELD_REALS,
     .dimension = MOE_NUMBER,
     .offset = offsetof(moe_gemm_grid, n),
     .low = 1,
     .high = 1e12,
     .sentence = "Columns of the measured matrices, ascending."},
    {.key = "k",
     .type = MOE_FIELD_REALS,
     .dimension = MOE_NUMBER,
     .offset = offsetof(moe_gemm_grid, k),
     .low = 1,
     .high = 1e12,
     .sentence = "Inner widths of the measured products, ascending."},
    {.key = "utilisation",
     .type = MOE_FIELD_REALS,
     .dimension = MOE_NUMBER,
     .offset = offsetof(moe_gemm_grid, utilisation),
     .low = 1e-9,
     .high = 1.5,
     .sentence = "For every m, n and k, k fastest: shortest time that peak FLOP/s and memory "
                 "bandwidth allow, divided by the measured one; higher is better, above 1 where "
                 "caches beat memory."},
    {.key = "value_bytes",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_NUMBER,
     .default_text = "2",
     .offset = offsetof(moe_gemm_grid, value_bytes),
     .low = 0.25,
     .high = 16,
     .sentence = "Bytes of one element of the measured matrices."},
    EVIDENCE(moe_gemm_grid, "m, n, k"),
    ORIGIN(moe_gemm_grid, origin, "this grid comes"),
    {0},
};

static const moe_table gemm_table = {
    .noun = "GEMM grid",
    .sentence = "Measured GEMMs C[m][n] = A[m][k] B[k][n] on a full grid. Optional: without it "
                "every GEMM costs what `dense` says.",
    .size = sizeof(moe_gemm_grid),
    .fields = gemm_fields,
};

#define EXPERT_FIELDS(start_text, efficiency_text, lowest, advice)                                 \
    START(start_text, " (grouped GEMM and permutation: 19 to 50 us)."),                            \
        {.key = "start_per_expert",                                                                \
         .type = MOE_FIELD_REAL,                                                                   \
         .dimension = MOE_SECONDS,                                                                 \
         .default_text = "0",                                                                      \
         .offset = offsetof(moe_compute_curve, start_per_expert_s),                                \
         .low = 0,                                                                                 \
         .high = 1,                                                                                \
         .sentence = "Seconds added for every expert that has rows; lower is better."},            \
        FLOP_EFFICIENCY(efficiency_text, lowest, advice),                                          \
        {.key = "efficiency",                                                                      \
         .type = MOE_FIELD_POINTS,                                                                 \
         .dimension = MOE_NUMBER,                                                                  \
         .dimension_y = MOE_FRACTION,                                                              \
         .offset = offsetof(moe_compute_curve, efficiency),                                        \
         .low = 1e-6,                                                                              \
         .high = 1,                                                                                \
         .sentence = "Rows of an expert and the fraction of the device's peak FLOP/s that is "     \
                     "reached on it, in place of flop_efficiency; higher is better."},             \
        MEMORY_EFFICIENCY("0.85", " (grouped GEMM: 0.83 to 0.95)."), NORM,                         \
        {.key = "tile_rows",                                                                       \
         .type = MOE_FIELD_INTEGER,                                                                \
         .dimension = MOE_COUNT,                                                                   \
         .default_text = "128",                                                                    \
         .offset = offsetof(moe_compute_curve, tile_rows),                                         \
         .low = 1,                                                                                 \
         .high = 65536,                                                                            \
         .sentence = "Rows of one expert are rounded up to a multiple of this before they are "    \
                     "computed; lower is better."},                                                \
        ROWS("Fewest rows, of all experts of a device together, that the curve is known for.",     \
             "Most rows, of all experts of a device together, that the curve is known for; 0: no " \
             "limit."),                                                                            \
        EVIDENCE(moe_compute_curve,                                                                \
                 "hidden, ffn, matrices, active experts, rows, largest rows of an expert"),        \
        ORIGIN(moe_compute_curve, origin, "this curve comes")

static const moe_field expert_fields[] = {
    EXPERT_FIELDS("25 us", "0.6", 1e-6, " (grouped GEMM: 0.5 to 0.7)."),
    {0},
};

static const moe_table expert_table = {
    .noun = "expert cost",
    .sentence = "Cost of the experts of one device, as a function of the rows of each.",
    .size = sizeof(moe_compute_curve),
    .fields = expert_fields,
};

static const moe_field gradient_fields[] = {
    EXPERT_FIELDS("25 us", "0", 0,
                  "; 0 and no `efficiency`: there is no such curve, the forward one stands in."),
    {0},
};

static const moe_table gradient_table = {
    .noun = "expert gradient cost",
    .sentence = "Cost of one gradient of the experts of one device. Optional.",
    .size = sizeof(moe_compute_curve),
    .fields = gradient_fields,
};

static const moe_field memory_fields[] = {
    START("3.5 us", "."),
    MEMORY_EFFICIENCY("0.8", "."),
    {.key = "efficiency",
     .type = MOE_FIELD_POINTS,
     .dimension = MOE_BYTES,
     .dimension_y = MOE_FRACTION,
     .offset = offsetof(moe_compute_curve, efficiency),
     .low = 1e-6,
     .high = 1,
     .sentence = "Bytes read and written, and the fraction of the device's memory bandwidth that "
                 "is reached beyond the start, in place of memory_efficiency; higher is better."},
    EVIDENCE(moe_compute_curve, "bytes"),
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
    {.key = "graph",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "0",
     .offset = IN_LAUNCH(graph_launch_s),
     .low = 0,
     .high = 1,
     .sentence = "Host seconds of one launch of a captured graph; 0: as one kernel; lower is "
                 "better."},
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
     .sentence = "Where these numbers come from: measured by us, imported from a published "
                 "measurement, derived from one, or assumed."},
    {0},
};

static const moe_table launch_table = {
    .noun = "launch cost",
    .sentence = "What the host pays.",
    .size = sizeof(moe_profile) - offsetof(moe_profile, launch_s),
    .fields = launch_fields,
};

/* Weights belong to a scenario. */
static const char *const measured_sharing_names[] = {"per_collective", "per_flow", NULL};

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
    {.key = "port_sharing",
     .type = MOE_FIELD_CHOICE,
     .default_text = "per_collective",
     .offset = IN_INTERFERENCE(port_sharing),
     .choices = measured_sharing_names,
     .sentence = "How two collectives divide a port they load together, where a scenario leaves it "
                 "to the profile: equally, or by the transfers each has there."},
    {.key = "origin",
     .type = MOE_FIELD_CHOICE,
     .default_text = "assumed",
     .offset = IN_INTERFERENCE(interference_origin),
     .choices = moe_origin_names,
     .sentence = "Where these numbers come from: measured by us, imported from a published "
                 "measurement, derived from one, or assumed."},
    {0},
};

static const moe_table interference_table = {
    .noun = "interference",
    .sentence = "What collectives and computation cost each other when they run side by side.",
    .size = sizeof(moe_profile) - offsetof(moe_profile, sm_share),
    .fields = interference_fields,
};

static const moe_field group_fields[] = {
    {.key = "ranks",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(moe_collective_group, ranks),
     .low = 2,
     .high = 1 << 20,
     .sentence = "Ranks of the collective that this curve belongs to."},
    {.key = "intra",
     .type = MOE_FIELD_POINTS,
     .dimension = MOE_BYTES,
     .dimension_y = MOE_FRACTION,
     .required = true,
     .offset = offsetof(moe_collective_group, intra),
     .low = 1e-6,
     .high = 1,
     .sentence = "Bytes per rank and the fraction of the link's rate that is reached within a "
                 "host beyond the start; higher is better."},
    {0},
};

static const moe_table group_table = {
    .noun = "collective group",
    .sentence = "Efficiency within a host of a collective of so many ranks.",
    .size = sizeof(moe_collective_group),
    .fields = group_fields,
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
        {.key = "ranks",                                                                           \
         .type = MOE_FIELD_INTEGER,                                                                \
         .dimension = MOE_COUNT,                                                                   \
         .default_text = "0",                                                                      \
         .offset = offsetof(moe_collective_curve, ranks),                                          \
         .low = 0,                                                                                 \
         .high = 1 << 20,                                                                          \
         .sentence = "Ranks that `intra` was made with; 0: not said."},                            \
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
        {.key = "groups",                                                                          \
         .type = MOE_FIELD_LIST,                                                                   \
         .offset = offsetof(moe_collective_curve, groups),                                         \
         .table = &group_table,                                                                    \
         .sentence = "Curves like `intra` for other numbers of ranks; a collective within a host " \
                     "takes the one whose number is nearest in ratio."},                           \
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
        EVIDENCE(moe_collective_curve, "ranks, hosts, bytes"),                                     \
        ORIGIN(moe_collective_curve, origin, "start, intra and groups come"),                      \
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
    COLLECTIVE(
        "all_to_all_low_latency", MOE_ALL_TO_ALL_LOW_LATENCY, collective_table,
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

static const moe_field copy_fields[] = {
    {.key = "start",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "0",
     .offset = offsetof(moe_copy_curve, start_s),
     .low = 0,
     .high = 1,
     .sentence = "Seconds of a copy beside its bytes; lower is better."},
    {.key = "rate",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BANDWIDTH,
     .default_text = "0",
     .offset = offsetof(moe_copy_curve, bytes_per_s),
     .sentence = "Bytes per second of large copies; 0: not known; higher is better."},
    EVIDENCE(moe_copy_curve, "bytes"),
    ORIGIN(moe_copy_curve, origin, "this curve comes"),
    {0},
};

static const moe_table copy_table = {
    .noun = "copy cost",
    .sentence = "Seconds of a copy: start + bytes / rate.",
    .size = sizeof(moe_copy_curve),
    .fields = copy_fields,
};

#define COPY(kind, name, what)                                                                     \
    {                                                                                              \
        .key = name, .type = MOE_FIELD_MAP, .offset = (kind) * sizeof(moe_copy_curve),             \
        .table = &copy_table, .sentence = what                                                     \
    }

static const moe_field copies_fields[] = {
    COPY(MOE_COPY_HOST_TO_DEVICE, "host_to_device", "From pinned memory of the host."),
    COPY(MOE_COPY_DEVICE_TO_HOST, "device_to_host", "To pinned memory of the host."),
    COPY(MOE_COPY_STORAGE_READ, "storage_read", "From local storage."),
    COPY(MOE_COPY_STORAGE_WRITE, "storage_write", "To local storage."),
    {0},
};

static const moe_table copies_table = {
    .noun = "copy costs",
    .sentence = "Copies between memories; nothing in a training step uses them. Optional.",
    .size = MOE_COPY_KINDS * sizeof(moe_copy_curve),
    .fields = copies_fields,
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
    {.key = "licence",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(moe_profile, licence),
     .sentence = "Licence of what the numbers were derived from; absent: moeplan's own."},
    {.key = "device",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(moe_profile, device),
     .sentence = "Name of the device model that the profile was made for, as clusters name it."},
    PART("gemm", offsetof(moe_profile, gemm), gemm_table, "Measured GEMMs. Optional."),
    PART("dense", offsetof(moe_profile, dense), dense_table, "GEMM-like work outside the experts."),
    PART("attention", offsetof(moe_profile, attention), attention_table,
         "Attention scores. Optional."),
    PART("experts", offsetof(moe_profile, experts[MOE_FORWARD]), expert_table,
         "The experts of one device, forward."),
    PART("experts_input_gradient", offsetof(moe_profile, experts[MOE_INPUT_GRADIENT]),
         gradient_table, "The gradient of their inputs. Optional: as forward."),
    PART("experts_weight_gradient", offsetof(moe_profile, experts[MOE_WEIGHT_GRADIENT]),
         gradient_table, "The gradient of their weights. Optional: as forward."),
    PART("experts_serving", offsetof(moe_profile, experts[MOE_SERVING]), gradient_table,
         "The experts of one device in a step that serves: forward, by fused kernels. Optional: as forward."),
    PART("memory", offsetof(moe_profile, memory), memory_table, "Memory-bound work."),
    PART("launch", offsetof(moe_profile, launch_s), launch_table, "What the host pays."),
    PART("interference", offsetof(moe_profile, sm_share), interference_table,
         "Collectives and computation side by side."),
    PART("collectives", offsetof(moe_profile, collectives), collectives_table,
         "Collectives, by kind."),
    PART("copies", offsetof(moe_profile, copies), copies_table,
         "Copies between memories. Optional."),
    {0},
};

const moe_table moe_profile_table = {
    .noun = "profile",
    .sentence = "What operations cost on one kind of device and fabric.",
    .size = sizeof(moe_profile),
    .fields = profile_fields,
};
