/* A small schema with every kind of field, for the tests of configs and for the fuzzer. */
#ifndef MOE_TESTS_TOY_CONFIG_H
#define MOE_TESTS_TOY_CONFIG_H

#include "configs/config.h"
#include <string.h>

typedef struct toy_cluster {
    int64_t hosts;
    double bandwidth_bytes_per_s;
    double latency_s;
    double memory_bytes;
    double skew;
    int topology;
    bool shared;
    const char *image;
    moe_reals loads;
    moe_points curve;
    moe_rows grid;
} toy_cluster;

typedef struct toy_trace {
    const char *file;
    double repeat;
} toy_trace;

typedef struct toy_policy {
    const char *name;
    const char *policy;
    void *options;
} toy_policy;

typedef struct toy_greedy {
    int64_t window;
    double slack;
} toy_greedy;

typedef struct toy_scenario {
    toy_cluster cluster;
    const char *title;
    toy_trace trace;
    moe_list policies;
    int64_t seed;
    double price;
} toy_scenario;

static const char *const toy_topologies[] = {"ring", "tree", "full", NULL};

static const moe_field toy_cluster_fields[] = {
    {.key = "hosts",
     .type = MOE_FIELD_INTEGER,
     .dimension = MOE_COUNT,
     .required = true,
     .offset = offsetof(toy_cluster, hosts),
     .low = 1,
     .high = 1024,
     .sentence = "Number of hosts."},
    {.key = "bandwidth",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BANDWIDTH,
     .default_text = "400 Gb/s",
     .offset = offsetof(toy_cluster, bandwidth_bytes_per_s),
     .low = 1,
     .high = 1e15,
     .sentence = "Per host and direction; higher is better."},
    {.key = "latency",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_SECONDS,
     .default_text = "5 us",
     .offset = offsetof(toy_cluster, latency_s),
     .low = 1e-9,
     .high = 10,
     .sentence = "One way."},
    {.key = "memory",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_BYTES,
     .default_text = "40 GiB",
     .offset = offsetof(toy_cluster, memory_bytes),
     .sentence = "Of one device."},
    {.key = "skew",
     .type = MOE_FIELD_REAL,
     .dimension = MOE_NUMBER,
     .default_text = "-0.1",
     .offset = offsetof(toy_cluster, skew),
     .low = -1,
     .high = 1,
     .sentence = "May be negative."},
    {.key = "topology",
     .type = MOE_FIELD_CHOICE,
     .default_text = "tree",
     .choices = toy_topologies,
     .offset = offsetof(toy_cluster, topology),
     .sentence = "How hosts are wired."},
    {.key = "shared",
     .type = MOE_FIELD_BOOL,
     .default_text = "false",
     .offset = offsetof(toy_cluster, shared),
     .sentence = "Whether others use it too."},
    {.key = "image",
     .type = MOE_FIELD_PATH,
     .offset = offsetof(toy_cluster, image),
     .sentence = "A picture."},
    {.key = "loads",
     .type = MOE_FIELD_REALS,
     .dimension = MOE_FRACTION,
     .default_text = "[0.25, 20/132]",
     .offset = offsetof(toy_cluster, loads),
     .high = 1,
     .sentence = "Of each host."},
    {.key = "curve",
     .type = MOE_FIELD_POINTS,
     .dimension = MOE_BYTES,
     .dimension_y = MOE_SECONDS,
     .offset = offsetof(toy_cluster, curve),
     .sentence = "Time by size."},
    {.key = "grid",
     .type = MOE_FIELD_ROWS,
     .dimension = MOE_NUMBER,
     .offset = offsetof(toy_cluster, grid),
     .high = 1e6,
     .sentence = "Measurements."},
    {.key = NULL}};

static const moe_table toy_cluster_table = {"cluster", "A set of hosts.", sizeof(toy_cluster),
                                            toy_cluster_fields, NULL};

static const moe_field toy_trace_fields[] = {{.key = "file",
                                              .type = MOE_FIELD_PATH,
                                              .required = true,
                                              .offset = offsetof(toy_trace, file),
                                              .sentence = "Where the routing is."},
                                             {.key = "repeat",
                                              .type = MOE_FIELD_REAL,
                                              .default_text = "1",
                                              .offset = offsetof(toy_trace, repeat),
                                              .low = 1,
                                              .high = 100,
                                              .sentence = "How often."},
                                             {.key = NULL}};

static const moe_table toy_trace_table = {"trace", "Recorded routing.", sizeof(toy_trace),
                                          toy_trace_fields, NULL};

static const moe_field toy_greedy_fields[] = {{.key = "window",
                                               .type = MOE_FIELD_INTEGER,
                                               .default_text = "10",
                                               .offset = offsetof(toy_greedy, window),
                                               .low = 1,
                                               .high = 1e300,
                                               .sentence = "Steps."},
                                              {.key = "slack",
                                               .type = MOE_FIELD_REAL,
                                               .dimension = MOE_FRACTION,
                                               .default_text = "5 %",
                                               .offset = offsetof(toy_greedy, slack),
                                               .sentence = "Accepted imbalance."},
                                              {.key = NULL}};

static const moe_field toy_no_fields[] = {{.key = NULL}};

static const moe_table toy_greedy_table = {"policy greedy", "Heaviest first.", sizeof(toy_greedy),
                                           toy_greedy_fields, NULL};
static const moe_table toy_fixed_table = {"policy fixed", "Never moves.", 0, toy_no_fields, NULL};

static const moe_table *toy_select(const char *value, const char *const **known,
                                   size_t *known_count)
{
    static const char *const names[] = {"greedy", "fixed"};
    *known = names;
    *known_count = 2;
    return strcmp(value, "greedy") == 0  ? &toy_greedy_table
           : strcmp(value, "fixed") == 0 ? &toy_fixed_table
                                         : NULL;
}

static const moe_variant toy_variant = {"policy", "name", offsetof(toy_policy, options),
                                        toy_select};

static const moe_field toy_policy_fields[] = {{.key = "name",
                                               .type = MOE_FIELD_TEXT,
                                               .required = true,
                                               .offset = offsetof(toy_policy, name),
                                               .sentence = "How results call it."},
                                              {.key = "policy",
                                               .type = MOE_FIELD_TEXT,
                                               .offset = offsetof(toy_policy, policy),
                                               .sentence = "Which policy; its name if absent."},
                                              {.key = NULL}};

static const moe_table toy_policy_table = {"policy", "A placement policy.", sizeof(toy_policy),
                                           toy_policy_fields, &toy_variant};

static const moe_field toy_scenario_fields[] = {{.key = "cluster",
                                                 .type = MOE_FIELD_FILE,
                                                 .required = true,
                                                 .table = &toy_cluster_table,
                                                 .offset = offsetof(toy_scenario, cluster),
                                                 .sentence = "The machine."},
                                                {.key = "title",
                                                 .type = MOE_FIELD_TEXT,
                                                 .offset = offsetof(toy_scenario, title),
                                                 .sentence = "For people."},
                                                {.key = "trace",
                                                 .type = MOE_FIELD_MAP,
                                                 .table = &toy_trace_table,
                                                 .offset = offsetof(toy_scenario, trace),
                                                 .sentence = "Who goes where."},
                                                {.key = "policies",
                                                 .type = MOE_FIELD_LIST,
                                                 .table = &toy_policy_table,
                                                 .default_text = "[{name: greedy, window: 7}]",
                                                 .offset = offsetof(toy_scenario, policies),
                                                 .sentence = "What to compare."},
                                                {.key = "seed",
                                                 .type = MOE_FIELD_INTEGER,
                                                 .default_text = "1",
                                                 .offset = offsetof(toy_scenario, seed),
                                                 .sentence = "Of all randomness."},
                                                {.key = "price",
                                                 .type = MOE_FIELD_REAL,
                                                 .dimension = MOE_MONEY_PER_HOUR,
                                                 .offset = offsetof(toy_scenario, price),
                                                 .sentence = "Lower is better."},
                                                {.key = NULL}};

static const moe_table toy_scenario_table = {"scenario", "One experiment.", sizeof(toy_scenario),
                                             toy_scenario_fields, NULL};

#endif
