/* Private to models/network*.c: widths of attention. */
#ifndef MOE_MODELS_NETWORK_SHAPE_H
#define MOE_MODELS_NETWORK_SHAPE_H

#include "models/network.h"

/* Elements of one token over all heads, as attention itself reads and writes them, and of what MLA
 * projects them from. */
typedef struct moe_attention_widths {
    double query;
    double key;
    double value;
    double output;
    double query_latent; /* s; 0: none */
    double kv_latent;    /* r + p; 0: none */
} moe_attention_widths;

moe_attention_widths moe_network_attention_widths(const moe_network *network);

/* Weights of the projections, without biases. */
double moe_network_projection_weights(const moe_network *network);
/* Of an FFN, without biases. */
double moe_network_ffn_weights(const moe_network *network, int64_t width);

static inline double moe_network_ffn_matrices(const moe_network *network)
{
    return network->gated ? 3 : 2;
}

#endif
