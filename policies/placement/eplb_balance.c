#include "policies/placement/eplb_balance.h"

#include "policies/ranking.h"

/* One layer on its way: "mixed" numbers are experts in the order of the nodes that hold them. */
typedef struct balance {
    moe_arena *arena;
    moe_eplb_shape shape;
    int *expert_of_mixed; /* [experts] */
} balance;

const char *moe_eplb_refuses(const moe_eplb_shape *shape)
{
    if (shape->experts < 1 || shape->groups < 1 || shape->nodes < 1 || shape->devices < 1)
        return "there is nothing to place";
    if (shape->experts % shape->groups != 0)
        return "the groups do not divide the experts";
    if (shape->groups % shape->nodes == 0 && shape->devices % shape->nodes != 0)
        return "the nodes do not divide the devices";
    if (shape->slots % shape->devices != 0)
        return "the devices do not divide the slots";
    if (shape->slots < shape->experts)
        return "there are fewer slots than experts";
    return NULL;
}

/* A float is the same number as a double, so the order is that of floats. */
static const moe_ranked *ranked(moe_arena *arena, const float *weight, int count)
{
    double *loads = moe_arena_array(arena, double, (size_t)count);
    for (int i = 0; i < count; i++)
        loads[i] = weight[i];
    return moe_rank_by_load(arena, loads, count);
}

static int lightest_with_room(const float *sums, const int *taken, int packs, int room)
{
    int best = -1;
    for (int p = 0; p < packs; p++) {
        if (taken[p] < room && (best < 0 || sums[p] < sums[best]))
            best = p;
    }
    return best;
}

/* place[count]: pack * (count / packs) + rank within the pack. */
static void pack(moe_arena *arena, const float *weight, int count, int packs, int *place)
{
    int room = count / packs;
    if (room == 1) {
        for (int i = 0; i < count; i++)
            place[i] = i;
        return;
    }
    const moe_ranked *items = ranked(arena, weight, count);
    float *sums = moe_arena_array(arena, float, (size_t)packs);
    int *taken = moe_arena_array(arena, int, (size_t)packs);
    for (int p = 0; p < packs; p++) {
        sums[p] = 0;
        taken[p] = 0;
    }
    for (int i = 0; i < count; i++) {
        int p = lightest_with_room(sums, taken, packs, room);
        place[items[i].expert] = p * room + taken[p]++;
        sums[p] += weight[items[i].expert];
    }
}

/* The first of equals. */
static int heaviest_per_replica(const float *weight, const int *count, int experts)
{
    int best = 0;
    for (int e = 1; e < experts; e++) {
        if (weight[e] / (float)count[e] > weight[best] / (float)count[best])
            best = e;
    }
    return best;
}

static void replicate(const float *weight, int experts, int slots, int *expert_of, int *replica,
                      int *count)
{
    for (int e = 0; e < experts; e++) {
        expert_of[e] = e;
        replica[e] = 0;
        count[e] = 1;
    }
    for (int slot = experts; slot < slots; slot++) {
        int expert = heaviest_per_replica(weight, count, experts);
        expert_of[slot] = expert;
        replica[slot] = count[expert]++;
    }
}

/* Groups to nodes. */
static void order_by_node(balance *b, const float *weight)
{
    const moe_eplb_shape *shape = &b->shape;
    int size = shape->experts / shape->groups;
    float *sums = moe_arena_array(b->arena, float, (size_t)shape->groups);
    int *place = moe_arena_array(b->arena, int, (size_t)shape->groups);
    for (int g = 0; g < shape->groups; g++) {
        sums[g] = 0;
        for (int i = 0; i < size; i++)
            sums[g] += weight[g * size + i];
    }
    pack(b->arena, sums, shape->groups, shape->nodes, place);
    for (int g = 0; g < shape->groups; g++) {
        for (int i = 0; i < size; i++)
            b->expert_of_mixed[place[g] * size + i] = g * size + i;
    }
}

/* Of one node: its experts are mixed[0 .. experts), its slots go to expert_of[0 .. slots). */
static void fill_node(const balance *b, const int *mixed, const float *weight, int *expert_of,
                      int *replica, int *count)
{
    int experts = b->shape.experts / b->shape.nodes;
    int slots = b->shape.slots / b->shape.nodes;
    float *own = moe_arena_array(b->arena, float, (size_t)experts);
    float *each = moe_arena_array(b->arena, float, (size_t)slots);
    int *logical = moe_arena_array(b->arena, int, (size_t)slots);
    int *rank = moe_arena_array(b->arena, int, (size_t)slots);
    int *replicas = moe_arena_array(b->arena, int, (size_t)experts);
    int *place = moe_arena_array(b->arena, int, (size_t)slots);
    for (int e = 0; e < experts; e++)
        own[e] = weight[mixed[e]];
    replicate(own, experts, slots, logical, rank, replicas);
    for (int s = 0; s < slots; s++)
        each[s] = own[logical[s]] / (float)replicas[logical[s]];
    pack(b->arena, each, slots, b->shape.devices / b->shape.nodes, place);
    for (int s = 0; s < slots; s++) {
        expert_of[place[s]] = mixed[logical[s]];
        if (replica != NULL)
            replica[place[s]] = rank[s];
    }
    for (int e = 0; count != NULL && e < experts; e++)
        count[mixed[e]] = replicas[e];
}

void moe_eplb_balance(moe_arena *arena, const moe_eplb_shape *shape, const float *weight,
                      int *expert_of, int *replica, int *count)
{
    balance b = {.arena = arena, .shape = *shape};
    if (shape->groups % shape->nodes != 0) {
        b.shape.groups = 1;
        b.shape.nodes = 1;
    }
    b.expert_of_mixed = moe_arena_array(arena, int, (size_t)shape->experts);
    order_by_node(&b, weight);
    int experts = b.shape.experts / b.shape.nodes;
    int slots = b.shape.slots / b.shape.nodes;
    for (int node = 0; node < b.shape.nodes; node++)
        fill_node(&b, b.expert_of_mixed + node * experts, weight, expert_of + node * slots,
                  replica == NULL ? NULL : replica + node * slots, count);
}
