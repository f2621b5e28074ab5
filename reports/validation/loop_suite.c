/* The suite of the loop: the parts of its step in the shapes that it has, experts and exchanges over the sizes
 * that skewed counts may give them. */
#include "reports/validation/loop_case.h"

#include "models/profile.h"
#include <math.h>

enum { EXPERTS = MOE_LOOP_EXPERTS };

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

static void push(json_t *points, json_t *point)
{
    json_object_set_new(point, "dtype", json_string("fp32"));
    json_array_append_new(points, point);
}

/* A full grid, in which every projection lies with its gradients, and the head. */
static void add_gemms(const moe_loop_case *of, json_t *points)
{
    const int rows[] = {of->hidden, of->tokens / 2, of->tokens};
    const int widths[] = {EXPERTS, of->hidden, 3 * of->hidden, of->vocabulary};
    for (int m = 0; m < LENGTH(rows); m++)
        for (int n = 0; n < LENGTH(widths); n++)
            for (int k = 0; k < LENGTH(widths); k++)
                if (m == 0 || rows[m] != rows[m - 1])
                    push(points, json_pack("{s:s, s:i, s:i, s:i}", "kind", "gemm", "m", rows[m],
                                           "n", widths[n], "k", widths[k]));
}

/* --- experts ------------------------------------------------------------------------------------ */

/* (i + 1)^-exponent of `total`, so 0: uniform. */
static json_t *rows_of(int experts, double total, double exponent)
{
    json_t *rows = json_array();
    double sum = 0;
    for (int i = 0; i < experts; i++)
        sum += pow(i + 1, -exponent);
    for (int i = 0; i < experts; i++)
        json_array_append_new(
            rows, json_integer((json_int_t)lround(total * pow(i + 1, -exponent) / sum)));
    return rows;
}

static void add_expert(const moe_loop_case *of, json_t *points, double total, double exponent)
{
    const int experts = EXPERTS / of->ranks;
    for (int phase = MOE_FORWARD; phase <= MOE_WEIGHT_GRADIENT; phase++)
        push(points,
             json_pack("{s:s, s:s, s:i, s:i, s:b, s:o, s:s, s:b}", "kind", "experts", "phase",
                       moe_phase_names[phase], "hidden", of->hidden, "ffn", of->ffn, "gated", 0,
                       "rows", rows_of(experts, total, exponent), "distribution",
                       exponent > 0 ? "power_law" : "uniform", "grouped", 0));
}

/* From a few rows of each expert to all assignments of all ranks on one device. */
static void add_experts(const moe_loop_case *of, json_t *points)
{
    const double experts = EXPERTS / of->ranks;
    const double mean = of->tokens * of->top_k, most = mean * of->ranks;
    for (double total = 4 * experts; total < most; total *= 4)
        add_expert(of, points, total, 0);
    add_expert(of, points, most, 0);
    add_expert(of, points, mean / 2, 1.2);
    add_expert(of, points, mean, 1.2);
}

/* --- the rest ----------------------------------------------------------------------------------- */

static void add_attention(const moe_loop_case *of, json_t *points)
{
    static const char *const phases[] = {"forward", "backward"};
    for (int sequences = 1; sequences <= of->tokens / of->sequence; sequences *= 2)
        for (int phase = 0; phase < LENGTH(phases); phase++)
            push(points, json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:b}", "kind", "attention",
                                   "phase", phases[phase], "sequences", sequences, "sequence",
                                   of->sequence, "heads", of->heads, "kv_heads", of->heads,
                                   "head_dim", of->hidden / of->heads, "causal", 1));
}

static void add_memory(const moe_loop_case *of, json_t *points)
{
    for (int tokens = of->tokens / 16; tokens <= 4 * of->tokens; tokens *= 4)
        push(points, json_pack("{s:s, s:i, s:i, s:i}", "kind", "permute", "tokens", tokens,
                               "hidden", of->hidden, "top_k", of->top_k));
    for (int parameters = 1 << 14; parameters <= 1 << 22; parameters *= 4)
        push(points, json_pack("{s:s, s:i}", "kind", "adam", "parameters", parameters));
    push(points, json_pack("{s:s, s:i, s:i, s:i, s:i}", "kind", "gate", "tokens", of->tokens,
                           "hidden", of->hidden, "experts", (int)EXPERTS, "top_k", of->top_k));
    push(points, json_pack("{s:s, s:i, s:i, s:i}", "kind", "head", "tokens", of->tokens, "hidden",
                           of->hidden, "vocabulary", of->vocabulary));
    push(points, json_pack("{s:s, s:s, s:i}", "kind", "launch", "mode", "stream", "kernels", 16));
    push(points, json_pack("{s:s, s:s, s:i}", "kind", "launch", "mode", "sync", "kernels", 1));
}

static void add_collective(json_t *points, const char *name, double bytes)
{
    push(points, json_pack("{s:s, s:s, s:I}", "kind", "collective", "collective", name, "bytes",
                           (json_int_t)bytes));
}

static void add_collectives(const moe_loop_case *of, json_t *points)
{
    const double largest = 8.0 * of->tokens * of->top_k * of->hidden;
    for (double bytes = 1024; bytes <= largest; bytes *= 4)
        add_collective(points, "all_to_all", bytes);
    for (double bytes = 4096; bytes <= 4 << 20; bytes *= 4)
        add_collective(points, "all_reduce", bytes);
    for (double bytes = 64; bytes <= 65536; bytes *= 8)
        add_collective(points, "all_gather", bytes);
}

/* What a product and a collective beside it do to each other. */
static void add_interference(const moe_loop_case *of, json_t *points)
{
    for (int bytes = 1 << 20; bytes <= 4 << 20; bytes *= 4)
        push(points,
             json_pack("{s:s, s:{s:i, s:i, s:i, s:s}, s:{s:s, s:i}}", "kind", "interference",
                       "compute", "m", of->tokens, "n", of->hidden, "k", of->hidden, "dtype",
                       "fp32", "collective", "collective", "all_reduce", "bytes", bytes));
}

json_t *moe_loop_suite(const moe_loop_case *of)
{
    json_t *points = json_array();
    add_gemms(of, points);
    add_experts(of, points);
    add_attention(of, points);
    add_memory(of, points);
    add_collectives(of, points);
    add_interference(of, points);
    return json_pack("{s:s, s:i, s:s, s:o}", "format", "moecal-suite", "version", 1, "name", "loop",
                     "points", points);
}
