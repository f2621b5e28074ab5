#include "configs/base/units.h"
#include "reports/report.h"
#include "sim/sensitivity.h"

#include <stdarg.h>
#include <string.h>
#include <talloc.h>

enum { LABEL_WIDTH = 34, COLUMN_WIDTH = 13 };

typedef struct report_table {
    const moe_run *run;
    FILE *stream;
    const moe_step_options *options;
} report_table;

/* One cell of a row: writes the text of policy `p`. */
typedef void (*cell_writer)(const report_table *table, int p, const void *argument,
                            char text[static 48]);

static const moe_result *result_of(const report_table *table, int p)
{
    return &table->run->policies[p].result;
}

static void print_row(const report_table *table, const char *label, cell_writer write,
                      const void *argument)
{
    char text[48];
    fprintf(table->stream, "%-*s", LABEL_WIDTH, label);
    for (int p = 0; p < table->run->policy_count; p++) {
        write(table, p, argument, text);
        fprintf(table->stream, " %*s", COLUMN_WIDTH, text);
    }
    fputc('\n', table->stream);
}

static void print_heading(const report_table *table, const char *text)
{
    fprintf(table->stream, "\n%s\n", text);
}

static void write_name(const report_table *table, int p, const void *argument, char text[static 48])
{
    (void)argument;
    snprintf(text, 48, "%.*s", COLUMN_WIDTH, result_of(table, p)->name);
}

static double summary_member(moe_summary summary, size_t offset)
{
    double value;
    memcpy(&value, (const char *)&summary + offset, sizeof value);
    return value;
}

static void write_step_time(const report_table *table, int p, const void *argument,
                            char text[static 48])
{
    double seconds =
        summary_member(moe_result_step_time(result_of(table, p)), *(const size_t *)argument);
    moe_units_format_short(seconds, MOE_SECONDS, text);
}

static void write_speedup(const report_table *table, int p, const void *argument,
                          char text[static 48])
{
    (void)argument;
    double first = moe_result_step_time(result_of(table, 0)).mean;
    snprintf(text, 48, "%.2fx", first / moe_result_step_time(result_of(table, p)).mean);
}

static void write_tokens(const report_table *table, int p, const void *argument,
                         char text[static 48])
{
    (void)argument;
    snprintf(text, 48, "%.0f", moe_result_tokens_per_s(result_of(table, p)));
}

/* A sequence gets one token in every pass. */
static void write_token_time(const report_table *table, int p, const void *argument,
                             char text[static 48])
{
    (void)argument;
    double seconds = moe_result_step_time(result_of(table, p)).mean;
    moe_units_format_short(seconds / table->options->micro_batches, MOE_SECONDS, text);
}

static void write_part(const report_table *table, int p, const void *argument, char text[static 48])
{
    double parts[MOE_PARTS], sum = 0;
    moe_result_exposed(result_of(table, p), parts);
    for (int i = 0; i < MOE_PARTS; i++)
        sum += parts[i];
    double seconds = parts[*(const int *)argument];
    char time[48];
    moe_units_format_short(seconds, MOE_SECONDS, time);
    snprintf(text, 48, "%.24s %3.0f%%", seconds > 0 ? time : "-", 100 * seconds / sum);
}

static void write_ratio(const report_table *table, int p, const void *argument,
                        char text[static 48])
{
    snprintf(text, 48, "%.2f", moe_result_mean(result_of(table, p), *(const size_t *)argument));
}

static void write_percent(const report_table *table, int p, const void *argument,
                          char text[static 48])
{
    snprintf(text, 48, "%.1f %%",
             100 * moe_result_mean(result_of(table, p), *(const size_t *)argument));
}

static void write_mean_time(const report_table *table, int p, const void *argument,
                            char text[static 48])
{
    double seconds = moe_result_mean(result_of(table, p), *(const size_t *)argument);
    moe_units_format_short(seconds, MOE_SECONDS, text);
}

static void write_mean_bytes(const report_table *table, int p, const void *argument,
                             char text[static 48])
{
    double bytes = moe_result_mean(result_of(table, p), *(const size_t *)argument);
    moe_units_format_short(bytes, MOE_BYTES, text);
}

static const moe_memory *peak_memory(const report_table *table, int p)
{
    const moe_result *result = result_of(table, p);
    return &result->series[moe_result_peak_step(result)].memory;
}

/* Device memory is sold and reported in binary units. */
static void format_memory(double bytes, char text[static 48])
{
    snprintf(text, 48, "%.2f GiB", bytes / (1024.0 * 1024 * 1024));
}

static void write_memory(const report_table *table, int p, const void *argument,
                         char text[static 48])
{
    double bytes;
    memcpy(&bytes, (const char *)peak_memory(table, p) + *(const size_t *)argument, sizeof bytes);
    format_memory(bytes, text);
}

static void write_fits(const report_table *table, int p, const void *argument, char text[static 48])
{
    (void)argument;
    const moe_memory *memory = peak_memory(table, p);
    snprintf(text, 48, "%s %.0f%%", moe_result_fits(result_of(table, p)) ? "yes" : "NO",
             100 * memory->peak / memory->capacity);
}

/* --- the sections -------------------------------------------------------------------------------
 */

static const char *const step_words[] = {"training", "prefill", "decode"};

/* A line of its own: what a step that serves depends on beside its tokens. */
static void print_serving(const moe_step_options *options, FILE *stream)
{
    if (!moe_step_serves(options))
        return;
    fprintf(stream, "%.0f sequences a device, %.0f tokens of each %s; %s exchange, %s\n",
            options->sequences, options->context,
            options->kind == MOE_STEP_DECODE ? "attended to" : "cached before",
            options->low_latency ? "low-latency" : "normal",
            options->graphs ? "graphs" : "kernels launched one by one");
}

/* Nothing for the usual order. */
static const char *order_words(const moe_binding *binding)
{
    if (binding->scenario->parallel.ranks.count > 0)
        return " (ranks as listed)";
    switch ((moe_rank_order)binding->scenario->parallel.order) {
    case MOE_RANKS_EP_FIRST:
        break;
    case MOE_RANKS_EP_LAST:
        return " (ep_last: striding over hosts)";
    case MOE_RANKS_HOSTS_ROUND_ROBIN:
        return " (hosts_round_robin: dealt to hosts)";
    }
    return "";
}

static void print_title(const moe_binding *binding, const moe_run *run, FILE *stream)
{
    const moe_scenario *scenario = binding->scenario;
    const moe_routing_target *target = moe_routing_get_target(binding->routing);
    double tokens = run->policies[0].result.series[0].tokens;
    if (scenario->name != NULL)
        fprintf(stream, "%s\n", scenario->name);
    fprintf(stream, "%s (%d MoE layers, %d experts, top-%d) on %s: %d hosts x %d %s\n",
            scenario->model.name, target->layers, target->experts, target->top_k,
            scenario->cluster.name, binding->cluster->hosts, binding->cluster->devices_per_host,
            scenario->cluster.device.name);
    fprintf(stream, "%lld %s steps of %.0f tokens, EP groups of %d%s, engine %s\n",
            (long long)run->iterations, step_words[scenario->step], tokens, binding->layout.ep,
            order_words(binding), binding->engine->name);
    print_serving(&binding->options, stream);
    fputc('\n', stream);
}

static void write_gap(const report_table *table, int p, const void *argument, char text[static 48])
{
    (void)argument;
    double bound = moe_result_mean(result_of(table, p), offsetof(moe_step_result, bound_s));
    snprintf(text, 48, "%.2fx", moe_result_step_time(result_of(table, p)).mean / bound);
}

static void print_step_times(const report_table *table)
{
    static const struct {
        const char *label;
        size_t offset;
    } rows[] = {{"step time, mean", offsetof(moe_summary, mean)},
                {"  p50", offsetof(moe_summary, p50)},
                {"  p95", offsetof(moe_summary, p95)},
                {"  max", offsetof(moe_summary, max)}};
    print_row(table, "", write_name, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        print_row(table, rows[i].label, write_step_time, &rows[i].offset);
    char label[64];
    snprintf(label, sizeof label, "speed-up over %.18s", result_of(table, 0)->name);
    print_row(table, label, write_speedup, NULL);
    print_row(table, "tokens per second", write_tokens, NULL);
    if (table->options->kind == MOE_STEP_DECODE)
        print_row(table, "time per output token", write_token_time, NULL);
    if (result_of(table, 0)->series[0].bound_s > 0)
        print_row(table, "over the bound of balanced work", write_gap, NULL);
}

static bool part_is_used(const report_table *table, int part)
{
    double parts[MOE_PARTS];
    for (int p = 0; p < table->run->policy_count; p++) {
        moe_result_exposed(result_of(table, p), parts);
        if (parts[part] > 0)
            return true;
    }
    return false;
}

static void print_parts(const report_table *table, bool has_stragglers)
{
    static const size_t hardware = offsetof(moe_step_result, hardware_wait_s);
    print_heading(table, "where the step went (exposed time, mean over devices)");
    for (int part = 0; part < MOE_PARTS; part++) {
        char label[64];
        snprintf(label, sizeof label, "  %s", moe_part_names[part]);
        if (part_is_used(table, part))
            print_row(table, label, write_part, &part);
    }
    if (has_stragglers)
        print_row(table, "    of it, by slow hardware", write_mean_time, &hardware);
}

static void print_imbalance(const report_table *table)
{
    static const size_t expert = offsetof(moe_step_result, expert_imbalance);
    static const size_t device = offsetof(moe_step_result, device_imbalance);
    static const size_t local = offsetof(moe_step_result, local_share);
    static const size_t copies = offsetof(moe_step_result, materialized);
    print_heading(table, "imbalance (mean over dispatches)");
    print_row(table, "  hottest expert / mean, routed", write_ratio, &expert);
    print_row(table, "  fullest device / mean, computed", write_ratio, &device);
    print_row(table, "  assignments staying on device", write_percent, &local);
    print_row(table, "  copies per layer and device", write_ratio, &copies);
}

static void print_memory(const report_table *table)
{
    enum { ANY, TRAINS, SERVES };
    static const struct {
        const char *label;
        size_t offset;
        int only;
    } rows[] = {{"  parameters", offsetof(moe_memory, parameters), ANY},
                {"  gradients", offsetof(moe_memory, gradients), TRAINS},
                {"  optimizer", offsetof(moe_memory, optimizer), TRAINS},
                {"  materialized", offsetof(moe_memory, materialized), ANY},
                {"  cached keys and values", offsetof(moe_memory, kv_cache), SERVES},
                {"  activations", offsetof(moe_memory, activations), ANY},
                {"  buffers", offsetof(moe_memory, buffers), ANY},
                {"  reserved", offsetof(moe_memory, reserved), ANY},
                {"  peak", offsetof(moe_memory, peak), ANY}};
    const int other = moe_step_serves(table->options) ? TRAINS : SERVES;
    char capacity[48], heading[128];
    format_memory(peak_memory(table, 0)->capacity, capacity);
    snprintf(heading, sizeof heading, "memory of the fullest device at its peak, of %s", capacity);
    print_heading(table, heading);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].only != other)
            print_row(table, rows[i].label, write_memory, &rows[i].offset);
    print_row(table, "  fits", write_fits, NULL);
}

static void print_traffic(const report_table *table)
{
    static const size_t intra = offsetof(moe_step_result, intra_host_bytes);
    static const size_t inter = offsetof(moe_step_result, inter_host_bytes);
    static const size_t moved = offsetof(moe_step_result, moved_bytes);
    print_heading(table, "bytes sent per step, all devices");
    print_row(table, "  within hosts", write_mean_bytes, &intra);
    print_row(table, "  between hosts", write_mean_bytes, &inter);
    print_row(table, "  of these, re-sharding", write_mean_bytes, &moved);
}

/* --- what it rests on ---------------------------------------------------------------------------
 */

enum { WIDTH = 96 };

/* Items separated by commas, wrapped under where the first began. */
typedef struct wrapped {
    FILE *stream;
    int indent;
    int column; /* 0: nothing yet */
} wrapped;

static void wrap_item(wrapped *line, const char *item)
{
    int length = (int)strlen(item);
    if (line->column == 0) {
        line->column = line->indent;
    } else if (line->column + length + 2 > WIDTH) {
        line->column = line->indent;
        fprintf(line->stream, ",\n%*s", line->indent, "");
    } else {
        fputs(", ", line->stream);
        line->column += 2;
    }
    fputs(item, line->stream);
    line->column += length;
}

static moe_curve_usage usage_of_all(const moe_run *run)
{
    moe_curve_usage usage = {0};
    for (int p = 0; p < run->policy_count; p++)
        for (int c = 0; c < MOE_CURVE_COUNT; c++) {
            usage.evaluated[c] += run->policies[p].usage.evaluated[c];
            usage.outside[c] += run->policies[p].usage.outside[c];
        }
    return usage;
}

/* The curves of one origin that the run used, and how often outside the range they are good for. */
static void print_curves(json_t *curves, const char *origin, FILE *stream)
{
    wrapped line = {.stream = stream, .indent = 14};
    const char *name;
    json_t *curve;
    json_object_foreach(curves, name, curve)
    {
        double evaluated = json_number_value(json_object_get(curve, "evaluated"));
        double outside = json_number_value(json_object_get(curve, "outside_range"));
        if (evaluated == 0 ||
            strcmp(json_string_value(json_object_get(curve, "origin")), origin) != 0)
            continue;
        char item[96];
        int length = snprintf(item, sizeof item, "%s", name);
        if (outside > 0)
            snprintf(item + length, sizeof item - (size_t)length, " (%.0f %% outside its range)",
                     100 * outside / evaluated);
        if (line.column == 0)
            fprintf(stream, "    %-10s", origin);
        wrap_item(&line, item);
    }
    if (line.column > 0)
        fputc('\n', stream);
}

static void print_profile(const moe_binding *binding, const moe_run *run, FILE *stream)
{
    moe_curve_usage usage = usage_of_all(run);
    json_t *curves = moe_profile_provenance(&binding->scenario->profile, &usage);
    fprintf(stream, "  profile %s, by origin of its curves\n", binding->scenario->profile.name);
    for (const char *const *origin = moe_origin_names; *origin != NULL; origin++)
        print_curves(curves, *origin, stream);
    json_decref(curves);
}

static void print_rules(const moe_binding *binding, FILE *stream)
{
    json_t *rules = moe_routing_rules(binding->routing);
    size_t i;
    json_t *rule;
    json_array_foreach(rules, i, rule) fprintf(stream, "  trace: %s\n", json_string_value(rule));
    json_decref(rules);
    if (moe_trace_get_info(binding->trace)->synthetic)
        fputs("  trace: SYNTHETIC, not recorded from a trained model\n", stream);
}

/* ESTIMATED: counts do not say which experts a token chose together. */
static void print_dispatch(const moe_binding *binding, const moe_run *run, FILE *stream)
{
    const int once_per = binding->scenario->dispatch.once_per;
    if (once_per == MOE_ONCE_PER_ASSIGNMENT)
        return;
    wrapped line = {.stream = stream, .indent = 4};
    fprintf(stream,
            "  dispatch: a token is sent once per %s; how many tokens that are is %s\n"
            "    assignments crossing for each token sent:\n    ",
            moe_once_names[once_per],
            moe_binding_knows_tokens(binding)
                ? "known from the recording, token by token;"
                : "ESTIMATED from the trace's counts (models/distinct.h);");
    for (int p = 0; p < run->policy_count; p++) {
        const moe_result *result = &run->policies[p].result;
        char item[96];
        snprintf(item, sizeof item, "%.60s %.2f", result->name, moe_result_saved_factor(result));
        wrap_item(&line, item);
    }
    fputc('\n', stream);
}

/* Nobody knows how collectives share a port before it is measured: how much hangs on the rule. */
static void print_sensitivity(const moe_run *run, FILE *stream)
{
    const moe_sensitivity *sensitivity = run->sensitivity;
    if (sensitivity == NULL)
        return;
    for (int r = 0; r < sensitivity->rule_count; r++) {
        fprintf(stream, "  were ports shared %s:", moe_sharing_names[sensitivity->rules[r]]);
        for (int p = 0; p < sensitivity->policy_count; p++)
            fprintf(stream, "%s %s %+.2f %%", p > 0 ? "," : "", run->policies[p].result.name,
                    100 * sensitivity->difference[p * sensitivity->rule_count + r]);
        fprintf(stream, " step time (%d steps of each)\n", sensitivity->steps);
    }
}

static void print_basis(const moe_binding *binding, const moe_run *run, FILE *stream)
{
    fputs("\nwhat this rests on\n", stream);
    print_profile(binding, run, stream);
    for (int p = 0; p < run->policy_count; p++)
        if (run->policies[p].description != NULL)
            fprintf(stream, "  %s: %s\n", run->policies[p].result.name,
                    run->policies[p].description);
    print_rules(binding, stream);
    print_dispatch(binding, run, stream);
    fprintf(stream, "  network: %s; ports shared %s; %s\n", binding->engine->network_model,
            moe_sharing_names[moe_binding_sharing(binding).rule],
            binding->scenario->interference ? "with interference of computation and communication"
                                            : "without interference");
    print_sensitivity(run, stream);
}

static const moe_result *fastest_that_fits(const moe_run *run)
{
    const moe_result *best = NULL;
    for (int p = 0; p < run->policy_count; p++) {
        const moe_result *result = &run->policies[p].result;
        if (moe_result_fits(result) &&
            (best == NULL || moe_result_step_time(result).mean < moe_result_step_time(best).mean))
            best = result;
    }
    return best;
}

static void print_answer(const moe_run *run, FILE *stream)
{
    const moe_result *best = fastest_that_fits(run), *first = &run->policies[0].result;
    fputc('\n', stream);
    for (int p = 0; p < run->policy_count; p++)
        if (run->policies[p].result.memory_advice != NULL)
            fprintf(stream, "%s.\n", run->policies[p].result.memory_advice);
    if (best == NULL) {
        fputs("No policy fits.\n", stream);
        return;
    }
    double ratio = moe_result_step_time(first).mean / moe_result_step_time(best).mean;
    if (best == first)
        fprintf(stream, "Of what fits, %s is the fastest.\n", best->name);
    else
        fprintf(stream, "Of what fits, %s is the fastest: %.2fx %s.\n", best->name, ratio,
                first->name);
}

void moe_report_text(const moe_binding *binding, const moe_run *run, FILE *stream)
{
    report_table table = {run, stream, &binding->options};
    print_title(binding, run, stream);
    print_step_times(&table);
    print_parts(&table, binding->scenario->stragglers.count > 0);
    print_imbalance(&table);
    print_memory(&table);
    print_traffic(&table);
    print_basis(binding, run, stream);
    print_answer(run, stream);
}
