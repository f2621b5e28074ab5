#include "sim/serving.h"

#include "sim/scenario.h"

static const char *const exchange_names[] = {"by_step", "normal", "low_latency", NULL};
static const char *const launch_names[] = {"by_step", "kernels", "graph", NULL};

/* clang-format off */
static const moe_field serving_fields[] = {
    {.key = "batch", .type = MOE_FIELD_INTEGER, .dimension = MOE_COUNT, .default_text = "0",
     .offset = offsetof(moe_serving, batch), .high = 1e6,
     .sentence = "Sequences of a rank. decode: each has one token, so trace.tokens_per_source is this many or 0; prefill: they share "
                 "the tokens of a source as their prompts, equally. 0: decode: as many as a source has tokens; prefill: 1."},
    {.key = "context", .type = MOE_FIELD_INTEGER, .dimension = MOE_COUNT, .default_text = "0",
     .offset = offsetof(moe_serving, context), .high = 1e9,
     .sentence = "Tokens of every sequence in the cache of keys and values. decode: that the new token attends to, itself included "
                 "(0: the model's `sequence`); prefill: cached before its prompt."},
    {.key = "exchange", .type = MOE_FIELD_CHOICE, .default_text = "by_step", .choices = exchange_names,
     .offset = offsetof(moe_serving, exchange),
     .sentence = "How tokens travel: normal (loads may be gathered and waited for, tokens are sorted before and after), low_latency "
                 "(buffers have fixed places, nobody waits, the kernels sort), or by_step: low_latency in decode, normal in prefill."},
    {.key = "launch", .type = MOE_FIELD_CHOICE, .default_text = "by_step", .choices = launch_names,
     .offset = offsetof(moe_serving, launch),
     .sentence = "Whether the host launches every kernel, or a graph of all up to its next wait for counts; by_step: graph in decode, "
                 "kernels in prefill."},
    {.key = NULL}};

const moe_table moe_serving_table = {
    .noun = "serving", .sentence = "What a rank serves in a step of prefill or decode; without meaning in train.",
    .size = sizeof(moe_serving), .fields = serving_fields};
/* clang-format on */

/* --- checks --------------------------------------------------------------------------------- */

/* What a check passes around. */
typedef struct checking {
    moe_scenario *scenario;
    const moe_config *config;
    moe_diag *diag;
} checking;

static bool is_low_latency(const moe_scenario *scenario)
{
    if (scenario->serving.exchange == MOE_EXCHANGE_BY_STEP)
        return scenario->step == MOE_STEP_DECODE;
    return scenario->serving.exchange == MOE_EXCHANGE_LOW_LATENCY;
}

static void check_exchange(const checking *c)
{
    const moe_scenario *scenario = c->scenario;
    if (is_low_latency(scenario) && scenario->dispatch.once_per != MOE_ONCE_PER_ASSIGNMENT)
        moe_diag_error(c->diag, moe_config_where(c->config, &scenario->dispatch.once_per),
                       "kernels of low latency send every assignment; expected dispatch.once_per: "
                       "assignment, or serving.exchange: normal");
}

static void check_batch(const checking *c)
{
    const moe_batch *batch = &c->scenario->batch;
    if (batch->recompute != MOE_RECOMPUTE_NONE)
        moe_diag_error(c->diag, moe_config_where(c->config, &batch->recompute),
                       "a step of %s has no backward pass to compute anything again for; expected "
                       "batch.recompute: none",
                       moe_step_kind_names[c->scenario->step]);
    if (batch->optimizer != MOE_OPTIMIZER_REPLICATED)
        moe_diag_error(c->diag, moe_config_where(c->config, &batch->optimizer),
                       "a step of %s has no optimizer; expected batch.optimizer to be left out",
                       moe_step_kind_names[c->scenario->step]);
}

static void check_prefill(const checking *c)
{
    const int64_t *sequences = &c->scenario->serving.batch;
    const int64_t tokens = c->scenario->trace.tokens_per_source;
    if (*sequences > 0 && tokens > 0 && tokens % *sequences != 0)
        moe_diag_error(c->diag, moe_config_where(c->config, sequences),
                       "the %lld tokens of a source do not divide into %lld prompts; expected "
                       "serving.batch to divide trace.tokens_per_source",
                       (long long)tokens, (long long)*sequences);
}

static void check_decode(const checking *c)
{
    const int64_t *sequences = &c->scenario->serving.batch;
    int64_t *tokens = &c->scenario->trace.tokens_per_source;
    if (*sequences == 0)
        return;
    if (*tokens == 0)
        *tokens = *sequences;
    if (*tokens != *sequences)
        moe_diag_error(c->diag, moe_config_where(c->config, sequences),
                       "%lld sequences of a rank decode one token each, but "
                       "trace.tokens_per_source is %lld; expected the same number, or 0 for one",
                       (long long)*sequences, (long long)*tokens);
}

void moe_serving_check(moe_scenario *scenario, const moe_config *config, moe_diag *diag)
{
    const checking c = {scenario, config, diag};
    if (scenario->step == MOE_STEP_TRAIN)
        return;
    check_batch(&c);
    check_exchange(&c);
    if (scenario->step == MOE_STEP_DECODE)
        check_decode(&c);
    else
        check_prefill(&c);
}

/* --- options -------------------------------------------------------------------------------- */

static double sequences_of(const moe_scenario *scenario, double tokens)
{
    if (scenario->step == MOE_STEP_DECODE)
        return tokens;
    return scenario->serving.batch > 0 ? (double)scenario->serving.batch : 1;
}

void moe_serving_options(const moe_scenario *scenario, moe_step_options *options)
{
    const moe_serving *serving = &scenario->serving;
    const bool decodes = scenario->step == MOE_STEP_DECODE;
    options->kind = scenario->step;
    if (scenario->step == MOE_STEP_TRAIN)
        return;
    options->sequences = sequences_of(scenario, options->tokens);
    options->context = (double)serving->context;
    if (decodes && serving->context == 0)
        options->context = (double)scenario->model.sequence;
    options->low_latency = is_low_latency(scenario);
    options->graphs =
        serving->launch == MOE_LAUNCH_BY_STEP ? decodes : serving->launch == MOE_LAUNCH_GRAPH;
}
