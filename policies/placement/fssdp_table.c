/* FSSDP's tunables: each settles what the paper leaves open, or varies what it fixes. */
#include "policies/placement/fssdp.h"

static const char *const bandwidth_names[] = {"line_rate_host", "line_rate_device", "profile",
                                              NULL};
static const char *const slots_count_names[] = {"beyond_shard", "with_shard", NULL};
static const char *const top_set_names[] = {"both", "first", NULL};
static const char *const replicas_names[] = {"proportional", "equal", NULL};
static const char *const initial_names[] = {"even", "planned", NULL};
static const char *const inner_load_names[] = {"layer", "total", NULL};
static const char *const leftover_names[] = {"keep", "freest", NULL};
static const char *const dispatch_names[] = {"topology", "owner", NULL};
/* In the order of the enumerations in models/step.h. */
static const char *const hide_names[] = {"attention", "layer", NULL};
static const char *const accumulate_names[] = {"reduce_each", "hold", NULL};
static const char *const gather_names[] = {"per_step", "per_micro_batch", NULL};

#define OWN(name) offsetof(moe_fssdp_tunables, name)
#define BOOL(name, text, what)                                                                     \
    {                                                                                              \
        .key = #name, .type = MOE_FIELD_BOOL, .default_text = text, .offset = OWN(name),           \
        .sentence = what                                                                           \
    }
#define CHOICE(name, text, names, what)                                                            \
    {                                                                                              \
        .key = #name, .type = MOE_FIELD_CHOICE, .default_text = text, .offset = OWN(name),         \
        .choices = names, .sentence = what                                                         \
    }
#define INTEGER(name, text, from, to, what)                                                        \
    {                                                                                              \
        .key = #name, .type = MOE_FIELD_INTEGER, .dimension = MOE_COUNT, .default_text = text,     \
        .offset = OWN(name), .low = from, .high = to, .sentence = what                             \
    }
#define SECONDS(name, text, what)                                                                  \
    {                                                                                              \
        .key = #name, .type = MOE_FIELD_REAL, .dimension = MOE_SECONDS, .default_text = text,      \
        .offset = OWN(name##_s), .low = 0, .high = 1, .sentence = what                             \
    }

static const moe_field fields[] = {
    BOOL(materialize, "true",
         "Whether hot experts are copied before the forward pass, by predicted loads (algorithm "
         "1)."),
    INTEGER(window, "5", 1, MOE_HISTORY_DEPTH,
            "Iterations whose mean load is the prediction, w; Hecate uses 5, also for re-sharding, "
            "for which it names none."),
    INTEGER(overlap_degree, "0", 0, 1e6,
            "Experts of a layer whose copying fits under attention, t; 0 computes it, as "
            "overlap_bandwidth says, from attention forward alone whatever hide_under is."),
    CHOICE(
        overlap_bandwidth, "line_rate_host", bandwidth_names,
        "Hecate's t = T_nonMoE * bw / expert bytes does not say whose bandwidth: line_rate_host "
        "takes the NIC rate of a host, which matches one broadcast per host and expert; "
        "line_rate_device a device's share of it (within one host: a device's own link); profile "
        "does without the formula and takes the largest t whose spAG to every device really ends "
        "in time by the profile, start-up and interference included, which may well be 0."),
    INTEGER(slots, "0", 0, 1e6,
            "Copies of experts that a device may hold of each layer, m; 0 takes what memory is "
            "left at the highest peak measured so far; none at all is materialize: false and "
            "calibrate: false."),
    CHOICE(slots_count, "beyond_shard", slots_count_names,
           "Whether a device's own experts of a layer occupy its slots; the paper's text on memory "
           "suggests not."),
    CHOICE(top_set, "both", top_set_names,
           "Whether only the t most loaded experts are copied when slots are scarce, too; the "
           "paper defines the set in its first branch and uses it in both; first lets every expert "
           "compete."),
    CHOICE(replicas, "proportional", replicas_names,
           "How scarce slots go to experts, which the paper leaves to assignSlotsByLoad: in "
           "proportion to load, rounded to nearest by a common divisor, or equally; always 1 to "
           "devices - 1 beyond the owner."),
    BOOL(calibrate, "true",
         "Whether algorithm 1 runs again on the true loads after the gate, and what is missing is "
         "copied at once if the layer is then predicted to end earlier."),
    INTEGER(calibrate_degree, "0", 0, 1e6,
            "Hottest experts that a calibration considers; 0 takes t, though the paper only says "
            "that algorithm 1 runs again and nothing is left to hide under: more may pay."),
    SECONDS(calibrate_planning, "20 us",
            "Host time of a calibration, per layer and micro-batch, charged whether or not it is "
            "accepted; assumed, the paper gives none."),
    SECONDS(planning, "10 us",
            "Host time of algorithm 1 on predicted loads, per layer and iteration; assumed; "
            "charged only with planning_exposed."),
    BOOL(planning_exposed, "false",
         "Whether planning delays the step; the predicted loads are known an iteration ahead, so "
         "that it can hide behind the one before."),
    BOOL(heterogeneous_sharding, "true",
         "Whether experts are given new homes by algorithm 2: equally many a device over all "
         "layers, not in each; false keeps equal contiguous blocks."),
    INTEGER(
        reshard_interval, "100", 0, 1e9,
        "Iterations from one re-plan of the homes to the next; 0: never; flat from 10 to 100 in "
        "Hecate's Fig. 15b."),
    SECONDS(reshard_planning, "1 ms",
            "Host time of algorithm 2, charged before the step of every re-plan, adopted or not; "
            "assumed, the paper gives none."),
    CHOICE(reshard_initial, "even", initial_names,
           "Homes at the start: even blocks, as the paper starts, or planned on the history before "
           "the run, if there is any, without a charge."),
    CHOICE(inner_load, "layer", inner_load_names,
           "Whether the load that algorithm 2 levels starts anew in each layer, or adds up over "
           "layers; the paper does not say, but the layers' all-to-alls end one by one."),
    CHOICE(leftover, "keep", leftover_names,
           "Where algorithm 2 puts the hot experts, in the paper's words arbitrarily: where they "
           "are while there is room, else and otherwise on the device with most free slots."),
    CHOICE(dispatch, "topology", dispatch_names,
           "To which copy tokens go: the source's own, else its host's, else any, in equal shares; "
           "or always to the owner, which uses no copy at all."),
    CHOICE(hide_under, "attention", hide_names,
           "What copying may run beside: attention alone, as in the paper, or the whole layer "
           "before it."),
    BOOL(rematerialize, "false",
         "Whether copies are dropped after the forward pass and gathered again for the backward "
         "pass; section 3.2 of the paper describes it so, section 5.1 has it off by default."),
    CHOICE(accumulate, "reduce_each", accumulate_names,
           "Whether the gradients of copies are reduced after every micro-batch, or held until the "
           "last; the paper has one micro-batch."),
    CHOICE(gather, "per_step", gather_names,
           "Whether copies are gathered once for all micro-batches of a step, or for each anew; "
           "the paper has one micro-batch."),
    CHOICE(algorithm, "chain", moe_chunk_algorithm_names,
           "How a chunk reaches the devices that want it: once per host along a chain, as a star, "
           "as a tree, or by a broadcast through the world as NCCL's would."),
    BOOL(gather_loads, "true",
         "Whether an all-gather of the expert loads precedes every dispatch; calibration and "
         "dropless dispatch need it."),
    {.key = NULL},
};

const moe_table moe_fssdp_table = {
    .noun = "policy fssdp",
    .sentence = "Fully sharded sparse data parallelism, after Hecate.",
    .size = sizeof(moe_fssdp_tunables),
    .fields = fields,
};

const char moe_fssdp_notes[] =
    "Mechanism. Every expert has one shard owner in each EP group, who keeps its parameters and "
    "optimizer state. Before an iteration, algorithm 1 takes the mean load of the last `window` "
    "iterations and copies the t hottest experts of each layer to every device of the group; if "
    "that exceeds the m slots of some device, replicas go to the hottest in proportion to load, "
    "hosts without the expert first, then hosts and devices with more free slots. A "
    "SparseAllGather (spAG) moves each expert to exactly the devices that want it, a "
    "SparseReduceScatter (spRS) its gradients back; only owners run the optimizer.\n"
    "Calibration. After the gate, algorithm 1 runs once more on the true loads, with the slots "
    "that are left. What it adds is accepted as a whole if 4 all-to-alls + 3 expert phases, plus "
    "the exposed spAG, plus what its spRS (and, re-materialized, its second spAG) exceeds "
    "attention backward by, come out below the layer as it stands. Nothing is taken back.\n"
    "Re-sharding. Every `reshard_interval` iterations algorithm 2 plans new homes: in each layer "
    "all but the t hottest experts go, heaviest first, to the least loaded host and its least "
    "loaded device (ties: fewer free slots), layers with the heaviest such expert first; the t "
    "hottest fill what is left. EP groups share one plan, made of their summed loads, so that an "
    "expert's owners keep the same number in every group. Where a plan differs from what is "
    "there, parameters and optimizer state move on the critical path.\n"
    "Dispatch. A source that holds a copy keeps its tokens; else the copies on its host share "
    "them equally, else all copies of its group; whole tokens, remainders rotate with source and "
    "expert.\n"
    "Charged: spAG and spRS with their interference (hidden only under attention unless "
    "hide_under says otherwise), the all-gather of loads and the host's wait for it, "
    "calibrate_planning after every gate, reshard_planning and the moves of a re-plan, memory of "
    "copies and of their gradients.\n"
    "Decided. The test t <= m of the paper is read as \"memory does not bind\": every device has "
    "room for those of the t that it lacks. t is computed once, by the paper's formula at line "
    "rate: real collectives are slower, so that part of a spAG may be exposed all the same "
    "(overlap_bandwidth: profile never exposes any, and on small models copies nothing). Without "
    "history nothing is copied ahead (unless t is all experts), and homes stay even. m follows "
    "the highest peak so far, each copy taking an equal part of its expert's rows: activations of "
    "the fullest device over all layers, buffers of the fullest in any one, of a micro-batch's "
    "mean; before the first step, of balanced rows. Where ep does not "
    "divide the experts of a layer, the first homes are dealt one by one over all layers. The "
    "rest are the parameters.\n"
    "Ignored: planning time that depends on size; for t, the time that attention itself loses to "
    "a collective beside it.\n";
