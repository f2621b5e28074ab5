/* validate smartmoe: Figs. 11 and 13 of SmartMoE (Zhai et al., USENIX ATC 2023). */
#include "reports/validation/smartmoe.h"

static void explain_machines(moe_validation_outcome *outcome)
{
    moe_validation_note(outcome, "Fig. 11 ran on eight A100-80, hidden 2048: so says the script "
                                 "that made the artifact's own "
                                 "estimates (src/performance_model), and recomputed in this way "
                                 "they come out to the last digit, "
                                 "which also settles which recorded counts each point belongs to. "
                                 "NVLink between all is assumed.");
    moe_validation_note(outcome,
                        "Fig. 13's log does not name its machine, so every candidate is shown. For "
                        "eight V100 on PCIe "
                        "speak, without looking at errors: the artifact's script (one host, hidden "
                        "1536, 112 TFLOP/s, "
                        "which is the data sheet of the V100 for PCIe), and that the greedy "
                        "mapping changes about as "
                        "often as in the log on 8 devices, but less than half as often on 16. Its "
                        "changes depend on how "
                        "an unstable sort orders equal counts, so not all of them are the log's.");
    moe_validation_note(
        outcome,
        "Fig. 13: sample i is iteration 1 + 10 i, the first (nearly even "
        "routing) included. Where the log "
        "says that the mapping changed, it is replaced by the greedy one "
        "on rank 0's counts of that "
        "iteration if those say it is better; the exchange itself is not in the measured times.");
}

static void explain_model(moe_validation_outcome *outcome)
{
    moe_validation_note(outcome, "The program is one layer without attention, executed by the "
                                 "analytic engine; no two of its "
                                 "collectives run at once, where all engines agree.");
    moe_validation_note(
        outcome,
        "FastMoE's way: experts one after another (GEMMs priced as dense ones; bias, activation "
        "and "
        "copies as memory-bound kernels), one group of sends and receives per expert of a device "
        "(the "
        "sum of their slowest ports, not the slowest sum), and a Python call for each of 16,384 "
        "assignments on the host (54 ns: PyTorch 1.13 with CPython 3.11, measured here).");
    moe_validation_note(outcome, "What is missing is mostly a constant: see what the fits put in "
                                 "the place of all that is neither "
                                 "experts nor exchange, on two machines that share nothing but the "
                                 "benchmark's code. Not modelled "
                                 "are the gate's batched products that weigh the experts' outputs, "
                                 "and eager kernels that the "
                                 "host launches too late.");
    moe_validation_note(outcome, "The factors of experts and exchange are those of a fit, not "
                                 "measurements: where the fit lowers "
                                 "exchanges and raises experts, the time of exchanges looks more "
                                 "like a constant than like that "
                                 "of the slowest ports.");
    moe_validation_note(outcome, "Values are whole milliseconds: 1 ms is 1.5 to 3.7 %% of a value "
                                 "of Fig. 11, so that rounding "
                                 "alone costs about 0.6 %% on average.");
}

static moe_status run(moe_validation_outcome *outcome, const moe_validation_options *options,
                      moe_diag *diag)
{
    const char *path = moe_validation_file(outcome, options, "traces/smartmoe/smartmoe_trace.npz");
    if (path == NULL)
        return MOE_OK;
    const moe_npy *trace = smartmoe_read_trace(outcome, path, diag);
    if (trace == NULL)
        return MOE_BAD_INPUT;
    double constant_s = 0;
    moe_status status = smartmoe_fig13(outcome, options, trace, &constant_s, diag);
    if (status == MOE_OK && moe_validation_skipped(outcome) == NULL)
        status = smartmoe_fig11(outcome, options, trace, constant_s, diag);
    explain_machines(outcome);
    explain_model(outcome);
    return status;
}

const moe_validation_suite moe_validation_smartmoe = {
    .name = "smartmoe",
    .sentence = "one FMoE layer under a recorded routing: milliseconds of forward and backward",
    .source = "artifact of SmartMoE, USENIX ATC 2023 (thu-pacman/SmartMoE-AE, GPL-3.0: logs/fig11, "
              "logs/fig13, "
              "moe_trace)",
    .unit = "ms",
    .run = run,
};
