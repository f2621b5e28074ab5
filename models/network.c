#include "models/network.h"

/* Upper ends of the keys' ranges: layers * experts * matrices * hidden * ffn stays below 2^63, so
 * that every count is finite and fits an int64_t. */
enum {
    MAX_LAYERS = 1 << 12,
    MAX_EXPERTS = 1 << 14,
    MAX_HIDDEN = 1 << 16,
    MAX_FFN = 1 << 19,
};

static const char *const dtypes[] = {"fp32", "bf16", "fp16", "fp8", NULL};

static const moe_field network_fields[] = {
    {.key = "name",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(moe_network, name),
     .sentence = "Name of the model in reports."},
    {.key = "source",
     .type = MOE_FIELD_TEXT,
     .offset = offsetof(moe_network, source),
     .sentence = "Where the shape comes from; copied into every result."},
    {.key = "layers",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(moe_network, layers),
     .low = 1,
     .high = MAX_LAYERS,
     .sentence = "Transformer blocks, each with attention and a layer of experts."},
    {.key = "hidden",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(moe_network, hidden),
     .low = 1,
     .high = MAX_HIDDEN,
     .sentence = "Width d of a token's hidden state, in elements."},
    {.key = "ffn",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(moe_network, ffn),
     .low = 1,
     .high = MAX_FFN,
     .sentence = "Inner width f of one expert, in elements."},
    {.key = "gated",
     .type = MOE_FIELD_BOOL,
     .default_text = "false",
     .offset = offsetof(moe_network, gated),
     .sentence = "Whether an expert has three matrices (gate, up, down: SwiGLU) instead of two."},
    {.key = "bias",
     .type = MOE_FIELD_BOOL,
     .default_text = "false",
     .offset = offsetof(moe_network, bias),
     .sentence = "Whether each matrix of an expert has a bias vector."},
    {.key = "experts",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(moe_network, experts),
     .low = 1,
     .high = MAX_EXPERTS,
     .sentence = "Routed experts E of one layer."},
    {.key = "top_k",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(moe_network, top_k),
     .low = 1,
     .high = MAX_EXPERTS,
     .sentence = "Experts that each token is sent to, at most `experts`."},
    {.key = "gate_groups",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "1",
     .offset = offsetof(moe_network, gate_groups),
     .low = 1,
     .high = MAX_EXPERTS,
     .sentence = "Equal groups that the gate divides the experts into; 1: none."},
    {.key = "top_groups",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "1",
     .offset = offsetof(moe_network, top_groups),
     .low = 1,
     .high = MAX_EXPERTS,
     .sentence = "Groups that the experts of one token may come from, at most `gate_groups`."},
    {.key = "heads",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "0",
     .offset = offsetof(moe_network, heads),
     .low = 0,
     .high = MAX_HIDDEN,
     .sentence = "Attention heads, a divisor of `hidden`; 0: not given (no cost depends on it)."},
    {.key = "causal",
     .type = MOE_FIELD_BOOL,
     .default_text = "true",
     .offset = offsetof(moe_network, causal),
     .sentence =
         "Whether a token attends only to those before it, half of the sequence on average."},
    {.key = "sequence",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(moe_network, sequence),
     .low = 1,
     .high = 1 << 26,
     .sentence = "Tokens of one sequence, which attention scores grow with."},
    {.key = "vocabulary",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .default_text = "0",
     .offset = offsetof(moe_network, vocabulary),
     .low = 0,
     .high = 1 << 26,
     .sentence = "Entries of the token table; 0 leaves out embedding, LM head and loss."},
    {.key = "tied_embeddings",
     .type = MOE_FIELD_BOOL,
     .default_text = "false",
     .offset = offsetof(moe_network, tied_embeddings),
     .sentence = "Whether the LM head uses the embedding's weights instead of its own."},
    {.key = "parameter_dtype",
     .type = MOE_FIELD_CHOICE,
     .default_text = "bf16",
     .offset = offsetof(moe_network, parameter_dtype),
     .choices = dtypes,
     .sentence = "Number format of weights and activations, on the wire and in memory."},
    {.key = "gradient_dtype",
     .type = MOE_FIELD_CHOICE,
     .default_text = "bf16",
     .offset = offsetof(moe_network, gradient_dtype),
     .choices = dtypes,
     .sentence = "Number format of parameter gradients, on the wire and in memory."},
    {.key = "optimizer_bytes_per_parameter",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_NUMBER,
     .default_text = "12",
     .offset = offsetof(moe_network, optimizer_bytes_per_parameter),
     .low = 0,
     .high = 64,
     .sentence =
         "Bytes of optimizer state per parameter; lower is better (Adam with an fp32 master "
         "copy: 4 + 4 + 4)."},
    {0},
};

const moe_table moe_network_table = {
    .noun = "model",
    .sentence = "A Mixture-of-Experts transformer of identical blocks.",
    .size = sizeof(moe_network),
    .fields = network_fields,
};

/* ---- checks ---------------------------------------------------------------------------------- */

static moe_where where_of(const moe_config *config, const void *member)
{
    return config ? moe_config_where(config, member) : (moe_where){0};
}

static void check_groups(const moe_network *network, const moe_config *config, moe_diag *diag)
{
    long long experts = network->experts;
    long long groups = network->gate_groups;
    if (groups < 1 || experts % groups != 0) {
        moe_diag_error(diag, where_of(config, &network->gate_groups),
                       "gate_groups is %lld; expected a divisor of the %lld experts", groups,
                       experts);
        return;
    }
    if (network->top_groups > groups)
        moe_diag_error(diag, where_of(config, &network->top_groups),
                       "top_groups is %lld; expected at most the %lld gate_groups",
                       (long long)network->top_groups, groups);
    else if (network->top_k > network->top_groups * (experts / groups))
        moe_diag_error(diag, where_of(config, &network->top_k),
                       "top_k is %lld, but %lld of %lld groups hold only %lld experts",
                       (long long)network->top_k, (long long)network->top_groups, groups,
                       network->top_groups * (experts / groups));
}

moe_status moe_network_check(const moe_network *network, const moe_config *config, moe_diag *diag)
{
    int errors = moe_diag_error_count(diag);
    if (network->top_k > network->experts)
        moe_diag_error(diag, where_of(config, &network->top_k),
                       "top_k is %lld; expected at most the %lld experts",
                       (long long)network->top_k, (long long)network->experts);
    else
        check_groups(network, config, diag);
    if (network->heads > 0 && network->hidden % network->heads != 0)
        moe_diag_error(diag, where_of(config, &network->heads),
                       "heads is %lld; expected a divisor of hidden, which is %lld",
                       (long long)network->heads, (long long)network->hidden);
    return moe_diag_error_count(diag) > errors ? MOE_BAD_INPUT : MOE_OK;
}

/* ---- counts ---------------------------------------------------------------------------------- */

double moe_dtype_bytes(int dtype)
{
    switch ((moe_dtype)dtype) {
    case MOE_FP32:
        return 4;
    case MOE_BF16:
    case MOE_FP16:
        return 2;
    case MOE_FP8:
        return 1;
    }
    return 4; /* not reached: the table knows no other */
}

double moe_network_expert_parameters(const moe_network *network)
{
    double d = (double)network->hidden;
    double f = (double)network->ffn;
    double matrices = network->gated ? 3 : 2;
    double biases = network->bias ? (matrices - 1) * f + d : 0;
    return matrices * d * f + biases;
}

double moe_network_attention_parameters(const moe_network *network)
{
    double d = (double)network->hidden;
    return 4 * d * d;
}

double moe_network_gate_parameters(const moe_network *network)
{
    return (double)network->hidden * (double)network->experts;
}

double moe_network_embedding_parameters(const moe_network *network)
{
    double tables = network->tied_embeddings ? 1 : 2;
    return tables * (double)network->vocabulary * (double)network->hidden;
}

double moe_network_parameters(const moe_network *network)
{
    double experts = (double)network->experts * moe_network_expert_parameters(network);
    return (double)network->layers * (experts + moe_network_attention_parameters(network));
}

double moe_network_dense_parameters(const moe_network *network)
{
    double layer = moe_network_attention_parameters(network) + moe_network_gate_parameters(network);
    return (double)network->layers * layer + moe_network_embedding_parameters(network);
}

double moe_network_expert_bytes(const moe_network *network)
{
    return moe_network_expert_parameters(network) * moe_dtype_bytes(network->parameter_dtype);
}

double moe_network_expert_gradient_bytes(const moe_network *network)
{
    return moe_network_expert_parameters(network) * moe_dtype_bytes(network->gradient_dtype);
}

double moe_network_token_bytes(const moe_network *network)
{
    return (double)network->hidden * moe_dtype_bytes(network->parameter_dtype);
}

double moe_network_dense_flop(const moe_network *network, double tokens)
{
    double d = (double)network->hidden;
    double attended = (double)network->sequence * (network->causal ? 0.5 : 1);
    double projections = 8 * d * d;
    double scores = 4 * attended * d;
    double gate = 2 * moe_network_gate_parameters(network);
    return tokens * (projections + scores + gate);
}

/* Activations of a token, in elements: the QKV projection reads d and writes 3 d; attention, whose
 * scores stay on chip (as FlashAttention does), reads 3 d and writes d; the output projection d and
 * d; the gate d and E. */
double moe_network_dense_memory_bytes(const moe_network *network, double tokens)
{
    double d = (double)network->hidden;
    double weights =
        moe_network_attention_parameters(network) + moe_network_gate_parameters(network);
    double activations = (4 + 4 + 2 + 1) * d + (double)network->experts;
    return (weights + tokens * activations) * moe_dtype_bytes(network->parameter_dtype);
}

double moe_network_head_flop(const moe_network *network, double tokens)
{
    return 2 * tokens * (double)network->hidden * (double)network->vocabulary;
}
