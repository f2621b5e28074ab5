/* How many different tokens a source sends to a place: an estimate from its counts per expert.
 *
 * A token whose top-k experts lie partly on one device, or on one host, need be sent there only
 * once (DeepEP; HybridEP in Megatron-Core, arXiv 2603.07685, whose dispatch over 8 hosts takes half
 * the time of NCCL's for this very reason). Counts say how many tokens chose each expert, not which
 * experts were chosen together; that is what this module supplies.
 *
 * Model. The tokens of one source and dispatch are alike: each draws k of E experts without
 * replacement, so that expert e is drawn with probability p_e = counts_e / tokens. Of all such
 * draws the one of largest entropy is conditional Poisson sampling (Chen, Dempster and Liu 1994,
 * "Weighted finite population sampling to maximize entropy", Biometrika 81:457):
 *
 *     P(A) = prod_{e in A} w_e / e_k(w)        e_k: elementary symmetric polynomial
 *
 * An assignment to e goes to the place with probability q_e (1 where all do; less where the source
 * splits an expert over copies), each independently. So the place sees the token with probability
 *
 *     1 - e_k(w_1 (1 - q_1), ..., w_E (1 - q_E)) / e_k(w_1, ..., w_E)
 *
 * Group limit. Experts lie in `groups` equal groups of consecutive ids, and a token uses experts of
 * exactly min(top_groups, k) of them: the sum over A goes over such sets only. Exactly, not at
 * most: the gate (DeepSeek-V3, arXiv 2412.19437, 2.1.2) takes the groups with the best experts, so
 * that nearly every group taken is used (8 groups of 32 independent scores, top-4 by the sum of the
 * best two, top-8: 3.97 groups on average, 3.91 if every set in at most 4 groups were alike).
 *
 * The weights are fitted to the p_e by iteration; all sums are of positive terms, O(E k) a pass. A
 * place costs O(k) for every expert between its first and its last.
 *
 * A gate whose k varies (top_k 0): experts are drawn independently, P(none) = prod (1 - p_e q_e).
 * A count above the number of tokens (drawn counts only) counts as that number; where top_k does
 * not divide what is left, tokens draw one of the two numbers next to the mean.
 *
 * What it ignores: that experts attract each other (tokens of one domain choose the same ones), and
 * that a source's tokens differ. tests/run_distinct.c measures both on recordings with ids. */
#ifndef MOE_MODELS_DISTINCT_H
#define MOE_MODELS_DISTINCT_H

#include <stdbool.h>

typedef struct moe_distinct_gate {
    int experts;
    int top_k;      /* experts of a token; 0: varies */
    int groups;     /* divides `experts` */
    int top_groups; /* `groups` or more: no limit */
} moe_distinct_gate;

/* What of an expert's assignments goes to the place in question. */
typedef struct moe_distinct_part {
    int expert;
    double count;
} moe_distinct_part;

/* The estimator with its scratch; one source at a time. */
typedef struct moe_distinct moe_distinct;
moe_distinct *moe_distinct_create(void *owner, const moe_distinct_gate *gate);

/* Takes a source: counts[experts] assignments of `tokens` tokens. */
void moe_distinct_fit(moe_distinct *distinct, const double *counts, double tokens);

/* Expected tokens of that source with an assignment among `parts` (experts ascending, each once):
 * never below the largest part, never above their sum or the tokens. */
double moe_distinct_tokens(moe_distinct *distinct, const moe_distinct_part *parts, int count);

/* How far the fitted draw is from the counts: the largest |p_e of the draw - p_e|. For tests. */
double moe_distinct_residual(const moe_distinct *distinct);

#endif
