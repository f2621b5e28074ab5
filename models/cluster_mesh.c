#include "models/cluster_mesh.h"

#include "configs/base/memory.h"
#include <talloc.h>

/* NVLinks between two devices. */
static const int links[MOE_MESH_DEVICES][MOE_MESH_DEVICES] = {
    {0, 1, 1, 2, 2, 0, 0, 0}, {1, 0, 2, 1, 0, 2, 0, 0}, {1, 2, 0, 2, 0, 0, 1, 0},
    {2, 1, 2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 1, 1, 2}, {0, 2, 0, 0, 1, 0, 2, 1},
    {0, 0, 1, 0, 1, 2, 0, 2}, {0, 0, 0, 1, 2, 1, 2, 0},
};

/* Together they use every link once. */
static const int rings[MOE_MESH_RINGS / 2][MOE_MESH_DEVICES] = {
    {0, 1, 2, 3, 7, 5, 6, 4},
    {0, 2, 6, 7, 4, 5, 1, 3},
    {0, 3, 2, 1, 5, 6, 7, 4},
};

/* The widest way over one neighbour of both; the lowest of equally wide ones. In a uniform exchange
 * every link then carries at most three times its share, whichever of the equals is taken. */
static int widest_relay(int a, int b)
{
    int best = -1;
    int width = 0;
    for (int c = 0; c < MOE_MESH_DEVICES; c++) {
        int narrow = links[a][c] < links[c][b] ? links[a][c] : links[c][b];
        if (narrow > width) {
            best = c;
            width = narrow;
        }
    }
    return best;
}

struct moe_mesh *moe_mesh_create(void *owner)
{
    struct moe_mesh *mesh = moe_need(talloc(owner, struct moe_mesh));
    int count = 0;
    for (int a = 0; a < MOE_MESH_DEVICES; a++) {
        for (int b = 0; b < MOE_MESH_DEVICES; b++) {
            mesh->port[a][b] = links[a][b] > 0 ? count : -1;
            mesh->via[a][b] = links[a][b] > 0 || a == b ? -1 : widest_relay(a, b);
            if (links[a][b] == 0)
                continue;
            mesh->links[count] = links[a][b];
            mesh->from[count] = a;
            mesh->to[count++] = b;
        }
    }
    return mesh;
}

int moe_mesh_next(int ring, int device)
{
    const int *order = rings[ring / 2];
    int step = ring % 2 == 0 ? 1 : MOE_MESH_DEVICES - 1;
    int at = 0;
    while (order[at] != device)
        at++;
    return order[(at + step) % MOE_MESH_DEVICES];
}
