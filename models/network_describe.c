/* What follows from a network's shape, printed for people. */
#include "models/network.h"

static void print_quantity(FILE *stream, const char *label, double value, moe_dimension dimension)
{
    char text[48];
    moe_units_format_short(value, dimension, text);
    fprintf(stream, "#   %-40s %s\n", label, text);
}

static void print_count(FILE *stream, const char *label, double value)
{
    bool billions = value >= 1e9;
    fprintf(stream, "#   %-40s %.5g %c\n", label, value / (billions ? 1e9 : 1e6),
            billions ? 'B' : 'M');
}

static void print_parameters(const moe_network *network, FILE *stream)
{
    print_count(stream, "parameters", moe_network_total_parameters(network));
    print_count(stream, "of these used by one token", moe_network_active_parameters(network));
    if (network->vocabulary > 0 && !network->tied_embeddings)
        print_count(stream, "  without the input embedding",
                    moe_network_active_parameters(network) -
                        moe_network_embedding_parameters(network) / 2);
    print_count(stream, "of these not in routed experts", moe_network_dense_parameters(network));
    print_count(stream, "in attention and routed experts", moe_network_parameters(network));
    print_count(stream, "one expert", moe_network_expert_parameters(network));
    print_count(stream, "attention of a layer", moe_network_attention_parameters(network));
}

static void print_bytes(const moe_network *network, FILE *stream)
{
    double experts = (double)moe_network_moe_layers(network) * (double)network->experts;
    double expert = moe_network_expert_bytes(network);
    print_quantity(stream, "bytes of all parameters",
                   experts * expert + moe_network_dense_bytes(network), MOE_BYTES);
    print_quantity(stream, "bytes of one expert", expert, MOE_BYTES);
    print_quantity(stream, "one token on the wire", moe_network_token_bytes(network), MOE_BYTES);
    print_quantity(stream, "keys and values of one token, all layers",
                   moe_network_kv_bytes(network, 1), MOE_BYTES);
    print_quantity(stream, "keys and values of one sequence",
                   moe_network_kv_bytes(network, (double)network->sequence), MOE_BYTES);
}

/* The first layer of a kind, where the network has it. */
static void print_attention(const moe_network *network, bool windowed, const char *label,
                            FILE *stream)
{
    for (int64_t layer = 0; layer < network->layers; layer++) {
        if (moe_network_has_window(network, layer) != windowed)
            continue;
        double attended = moe_network_attended(network, layer);
        print_quantity(stream, label,
                       moe_network_projection_flop(network, 1) +
                           moe_network_score_flop(network, 1, attended),
                       MOE_FLOP);
        return;
    }
}

static void print_flop(const moe_network *network, FILE *stream)
{
    int64_t shared = moe_network_shared_width(network);
    fprintf(stream, "#   forward, per token in a sequence of %lld\n", (long long)network->sequence);
    print_attention(network, false, "  attention of a layer", stream);
    print_attention(network, true, "  attention of a layer with a window", stream);
    if (network->dense_layers > 0)
        print_quantity(stream, "  dense layer, without attention",
                       moe_network_ffn_flop(network, network->dense_ffn, 1), MOE_FLOP);
    if (shared > 0)
        print_quantity(stream, "  shared experts of a layer",
                       moe_network_ffn_flop(network, shared, 1), MOE_FLOP);
    print_quantity(stream, "  routed experts of a layer",
                   moe_network_ffn_flop(network, network->top_k * network->ffn, 1), MOE_FLOP);
    print_quantity(stream, "  LM head", moe_network_head_flop(network, 1), MOE_FLOP);
    print_quantity(stream, "  all of it", moe_network_forward_flop(network, 1), MOE_FLOP);
}

void moe_network_print_derived(const moe_network *network, FILE *stream)
{
    print_parameters(network, stream);
    print_bytes(network, stream);
    print_flop(network, stream);
}
