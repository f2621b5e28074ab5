/* Fabrics: the ports of same-rail, cross-rail and cross-rack traffic under every path rule, NVLink
 * domains over hosts, hybrid cube meshes, PCIe trees, pods; every path checked hop by hop; every
 * refusal; and what `cluster show` says of each preset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "models/cluster_mesh.h"
#include "models/collective.h"
#include "reports/cluster_show.h"
#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* ---- a cluster from YAML text ------------------------------------------------------------------
 */

typedef struct fixture {
    char *said;
    moe_diag *diag;
    moe_cluster *cluster;
} fixture;

static fixture open_config(const char *text, const char *path)
{
    fixture f = {0};
    size_t length;
    FILE *stream = open_memstream(&f.said, &length);
    f.diag = moe_diag_create(NULL, stream);
    moe_config *config = text ? moe_config_load_text(f.diag, "test.yaml", text, strlen(text),
                                                     &moe_cluster_table, NULL, 0, f.diag)
                              : moe_config_load(f.diag, path, &moe_cluster_table, NULL, 0, f.diag);
    if (config)
        f.cluster = moe_cluster_create(f.diag, moe_config_root(config), config, f.diag);
    fclose(stream); /* nothing is said later */
    return f;
}

static fixture open_text(const char *text)
{
    fixture f = open_config(text, NULL);
    if (!f.cluster)
        fail_msg("refused:\n%s", f.said);
    return f;
}

static void close_fixture(fixture *f)
{
    talloc_free(f->diag);
    free(f->said);
}

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-12 * fmax(fabs(expected), 1e-30)))
        fail_msg("found %.17g, expected %.17g", found, expected);
}

/* ---- invented clusters: NVLink 300 GB/s and 1 us, NICs 50 GB/s and 5 us, leaves 2 us ------------
 */

#define DEVICE   "device: {name: D, peak: 200 TFLOP/s, memory: 24 GiB, memory_bandwidth: 1.5 TB/s}\n"
#define NVLINK   "intra: {kind: nvswitch, bandwidth: 300 GB/s, latency: 1 us}\n"
#define OWN_NICS "nic: {sharing: per_device, bandwidth: 50 GB/s, latency: 5 us}\n"
#define RAILS(rule)                                                                                \
    "hosts: 8\ndevices_per_host: 4\n" DEVICE NVLINK OWN_NICS                                       \
    "fabric: {kind: rail_optimised, hosts_per_leaf: 4, oversubscription: 2, latency: 2 us, "       \
    "path: " rule "}\n"
#define RAIL_ONLY(rule)                                                                            \
    "hosts: 8\ndevices_per_host: 4\n" DEVICE NVLINK OWN_NICS                                       \
    "fabric: {kind: rail_only, hosts_per_leaf: 4, oversubscription: 2, latency: 2 us, path: " rule \
    "}\n"

/* Two racks of three hosts. */
#define RACKS                                                                                      \
    "hosts: 6\ndevices_per_host: 4\n" DEVICE                                                       \
    "intra: {kind: nvswitch, bandwidth: 300 GB/s, latency: 1 us, domain_hosts: 3}\n" OWN_NICS      \
    "fabric: {kind: rail_optimised, hosts_per_leaf: 3, oversubscription: 2, latency: 2 us, "       \
    "path: pxn}\n"

/* Two NICs for eight devices, as four rails would be with four. */
#define FEW_NICS                                                                                   \
    "hosts: 4\ndevices_per_host: 8\n" DEVICE NVLINK                                                \
    "nic: {per_host_count: 4, bandwidth: 100 GB/s, latency: 5 us}\n"                               \
    "fabric: {kind: rail_optimised, latency: 2 us, oversubscription: 2, path: pxn}\n"

#define MESH                                                                                       \
    "hosts: 2\ndevices_per_host: 8\n" DEVICE                                                       \
    "intra: {kind: hybrid_cube_mesh, bandwidth: 150 GB/s, latency: 1 us}\n"                        \
    "nic: {bandwidth: 12.5 GB/s, latency: 5 us}\n"

#define MESH_RAILS                                                                                 \
    "hosts: 2\ndevices_per_host: 8\n" DEVICE                                                       \
    "intra: {kind: hybrid_cube_mesh, bandwidth: 150 GB/s, latency: 1 us}\n" OWN_NICS               \
    "fabric: {kind: rail_only, path: rail_then_nvlink, latency: 2 us}\n"

/* Two PCIe switches of four below a bridge; `nics` of them for eight devices. */
#define PCIE(nics)                                                                                 \
    "hosts: 2\ndevices_per_host: 8\n" DEVICE                                                       \
    "intra: {kind: pcie, bandwidth: 25 GB/s, bridge: 40 GB/s, switch_devices: 4, uplink: 20 GB/s," \
    " latency: 1 us}\nnic: {per_host_count: " nics ", bandwidth: 100 GB/s, latency: 5 us}\n"

/* Four pods of two leaves of two hosts. */
#define PODS                                                                                       \
    "hosts: 16\ndevices_per_host: 2\n" DEVICE NVLINK "nic: {bandwidth: 50 GB/s, latency: 5 us}\n"  \
    "fabric: {hosts_per_leaf: 2, oversubscription: 2, hosts_per_pod: 4, "                          \
    "spine_oversubscription: 2.5, latency: 2 us}\n"

#define POD_RAILS                                                                                  \
    "hosts: 8\ndevices_per_host: 2\n" DEVICE NVLINK OWN_NICS                                       \
    "fabric: {kind: rail_only, hosts_per_leaf: 2, oversubscription: 2, hosts_per_pod: 4, "         \
    "spine_oversubscription: 2, latency: 2 us, path: pxn}\n"

static const char *const clusters[] = {
    RAILS("direct"),
    RAILS("pxn"),
    RAILS("rail_then_nvlink"),
    RAIL_ONLY("pxn"),
    RACKS,
    FEW_NICS,
    RAIL_ONLY("rail_then_nvlink"),
    MESH,
    MESH_RAILS,
    PCIE("4"),
    PCIE("1"),
    PCIE("2"),
    PODS,
    POD_RAILS,
};
enum { CLUSTERS = sizeof clusters / sizeof *clusters };

/* ---- paths by hand -----------------------------------------------------------------------------
 */

static const char *path_text(const moe_cluster *cluster, int source, int target)
{
    static char text[400];
    int ports[MOE_PATH_PORTS];
    int count = moe_cluster_path(cluster, source, target, ports);
    text[0] = '\0';
    for (int i = 0; i < count; i++) {
        const moe_port *port = &cluster->ports[ports[i]];
        size_t length = strlen(text);
        snprintf(text + length, sizeof text - length, "%s%s%d", i ? " " : "",
                 moe_port_kind_names[port->kind], port->unit);
    }
    return text;
}

typedef struct path_case {
    const char *cluster;
    int source, target;
    const char *ports;
    double latency_us;
} path_case;

/* RAILS: device 4h + k has NIC 4h + k; leaf 4g + k is rail k of hosts 4g to 4g + 3. */
static const path_case path_cases[] = {
    /* the same rail, in one and in two groups */
    {RAILS("direct"), 5, 9, "nic_out5 nic_in9", 5},
    {RAILS("direct"), 5, 29, "nic_out5 leaf_up1 leaf_down5 nic_in29", 7},
    {RAILS("pxn"), 5, 9, "nic_out5 nic_in9", 5},
    {RAILS("rail_then_nvlink"), 5, 29, "nic_out5 leaf_up1 leaf_down5 nic_in29", 7},
    /* another rail of the same group */
    {RAILS("direct"), 5, 11, "nic_out5 leaf_up1 leaf_down3 nic_in11", 7},
    {RAILS("pxn"), 5, 11, "intra_out5 intra_in7 nic_out7 nic_in11", 6},
    {RAILS("rail_then_nvlink"), 5, 11, "nic_out5 nic_in9 intra_out9 intra_in11", 6},
    {RAIL_ONLY("pxn"), 5, 11, "intra_out5 intra_in7 nic_out7 nic_in11", 6},
    /* another rail of another group */
    {RAILS("direct"), 5, 30, "nic_out5 leaf_up1 leaf_down6 nic_in30", 7},
    {RAILS("pxn"), 5, 30, "intra_out5 intra_in6 nic_out6 leaf_up2 leaf_down6 nic_in30", 8},
    {RAIL_ONLY("rail_then_nvlink"), 5, 30,
     "nic_out5 leaf_up1 leaf_down5 nic_in29 intra_out29 intra_in30", 8},
    /* the same host never leaves it */
    {RAILS("direct"), 5, 6, "intra_out5 intra_in6", 1},
    {RAIL_ONLY("pxn"), 5, 6, "intra_out5 intra_in6", 1},
    /* a rack: other hosts over NVLink; another rack, same rail and other rail */
    {RACKS, 1, 11, "intra_out1 intra_in11", 1},
    {RACKS, 1, 13, "nic_out1 leaf_up1 leaf_down5 nic_in13", 7},
    {RACKS, 9, 15, "intra_out9 intra_in11 nic_out11 leaf_up3 leaf_down7 nic_in15", 8},
    /* four NICs for eight devices: pairs share one; a relay keeps the target's place */
    {FEW_NICS, 2, 11, "nic_out1 nic_in5", 5},
    {FEW_NICS, 2, 13, "intra_out2 intra_in5 nic_out2 nic_in6", 6},
    /* the mesh: LINKs of host 0 are numbered by pairs (0,1) (0,2) (0,3) (0,4) (1,0) (1,2) ... */
    {MESH, 0, 3, "link2", 1},
    {MESH, 0, 5, "link0 link7", 2},    /* 0-1, 1-5: one link, two links */
    {MESH, 8, 15, "link35 link51", 2}, /* 0-4, 4-7 of host 1: two links each */
    {MESH, 3, 12, "nic_out0 nic_in1", 5},
    {MESH_RAILS, 3, 12, "nic_out3 nic_in11 link44 link35", 7}, /* to 3 of host 1, 3-0, 0-4 */
    /* PCIe: same switch, other switch, and NICs below a switch or at the root */
    {PCIE("4"), 0, 3, "intra_out0 intra_in3", 1},
    {PCIE("4"), 0, 5, "intra_out0 switch_up0 bridge0 switch_down1 intra_in5", 1},
    {PCIE("4"), 3, 13, "intra_out3 nic_out1 nic_in6 intra_in13", 5},
    {PCIE("2"), 3, 13, "intra_out3 nic_out0 nic_in3 intra_in13", 5},
    {PCIE("1"), 3, 13, "intra_out3 switch_up0 nic_out0 nic_in1 switch_down3 intra_in13", 5},
    /* pods: same leaf, same pod, other pod */
    {PODS, 0, 2, "nic_out0 nic_in1", 5},
    {PODS, 0, 5, "nic_out0 leaf_up0 leaf_down1 nic_in2", 7},
    {PODS, 0, 31, "nic_out0 leaf_up0 spine_up0 spine_down3 leaf_down7 nic_in15", 9},
    {POD_RAILS, 0, 15,
     "intra_out0 intra_in1 nic_out1 leaf_up1 spine_up1 spine_down3 leaf_down7 nic_in15", 10},
};

static void test_paths(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof path_cases / sizeof *path_cases; i++) {
        const path_case *c = &path_cases[i];
        fixture f = open_text(c->cluster);
        const char *found = path_text(f.cluster, c->source, c->target);
        if (strcmp(found, c->ports) != 0)
            fail_msg("%s\n%d to %d: %s; expected %s", c->cluster, c->source, c->target, found,
                     c->ports);
        assert_near(moe_cluster_latency_s(f.cluster, c->source, c->target) * 1e6, c->latency_us);
        close_fixture(&f);
    }
}

/* ---- rates by hand -----------------------------------------------------------------------------
 */

static double rate(const fixture *f, moe_port_kind kind, int unit)
{
    assert_true(f->cluster->first_port[kind] >= 0);
    return f->cluster->ports[f->cluster->first_port[kind] + unit].rate_bytes_per_s;
}

static void test_rates(void **state)
{
    (void)state;
    fixture f = open_text(RAILS("direct"));
    assert_int_equal(f.cluster->leaves, 8);
    assert_near(rate(&f, MOE_PORT_LEAF_UP, 7), 4 * 50e9 / 2); /* four NICs below a rail leaf */
    close_fixture(&f);
    f = open_text(FEW_NICS);
    assert_int_equal(f.cluster->nics, 16);
    assert_near(rate(&f, MOE_PORT_NIC_OUT, 3), 100e9 / 4); /* a host's rate over its NICs */
    close_fixture(&f);
    f = open_text(MESH);
    assert_int_equal(f.cluster->port_count, 2 * MOE_MESH_PORTS + 4);
    assert_near(rate(&f, MOE_PORT_LINK, 0), 25e9); /* 0 to 1 */
    assert_near(rate(&f, MOE_PORT_LINK, 2), 50e9); /* 0 to 3 */
    close_fixture(&f);
    f = open_text(PODS);
    assert_int_equal(f.cluster->spines, 4);
    assert_near(rate(&f, MOE_PORT_SPINE_UP, 3), 4 * 50e9 / 2 / 2.5);
    close_fixture(&f);
    f = open_text(POD_RAILS);
    assert_int_equal(f.cluster->spines, 4); /* two pods, two rails */
    assert_near(rate(&f, MOE_PORT_SPINE_DOWN, 0), 4 * 50e9 / 2 / 2);
    close_fixture(&f);
    f = open_text(PCIE("4"));
    assert_near(rate(&f, MOE_PORT_SWITCH_UP, 3), 20e9);
    close_fixture(&f);
}

/* Where one domain holds all hosts there is no network, and no NIC is asked for. */
static void test_one_domain_needs_no_network(void **state)
{
    (void)state;
    fixture f = open_text("hosts: 6\ndevices_per_host: 4\n" DEVICE
                          "intra: {bandwidth: 300 GB/s, domain_hosts: 6}\n"
                          "fabric: {hosts_per_leaf: 2, oversubscription: 3}\n");
    assert_int_equal(f.cluster->port_count, 48);
    assert_string_equal(path_text(f.cluster, 0, 23), "intra_out0 intra_in23");
    close_fixture(&f);
}

/* ---- every path is a way -----------------------------------------------------------------------
 */

typedef enum spot_kind {
    AT_DEVICE,
    AT_NVSWITCH,
    AT_PCIE_SWITCH,
    AT_ROOT,
    AT_NIC,
    AT_LEAF,
    AT_SPINE,
    AT_CORE
} spot_kind;

/* Somewhere on a path. */
typedef struct spot {
    spot_kind kind;
    int unit;
} spot;

static spot below_nic(const moe_cluster *cluster, const moe_place *place)
{
    if (cluster->spec->intra.kind != MOE_INTRA_PCIE)
        return (spot){AT_NIC, place->nic};
    return cluster->nic_at_root ? (spot){AT_ROOT, place->host}
                                : (spot){AT_PCIE_SWITCH, place->pcie_switch};
}

static spot beside_device(const moe_cluster *cluster, const moe_place *place)
{
    return cluster->spec->intra.kind == MOE_INTRA_PCIE ? (spot){AT_PCIE_SWITCH, place->pcie_switch}
                                                       : (spot){AT_NVSWITCH, place->domain};
}

/* A device with that NIC, leaf or spine. */
static const moe_place *some_place(const moe_cluster *cluster, moe_port_kind kind, int unit)
{
    for (int d = 0; d < cluster->devices; d++) {
        const moe_place *place = &cluster->places[d];
        bool nic = kind == MOE_PORT_NIC_OUT || kind == MOE_PORT_NIC_IN;
        bool leaf = kind == MOE_PORT_LEAF_UP || kind == MOE_PORT_LEAF_DOWN;
        if ((nic ? place->nic : leaf ? place->leaf : place->spine) == unit)
            return place;
    }
    fail();
    return NULL;
}

/* Each port leads from one spot to another; networks of rails apart have cores apart. */
static void ends_of(const moe_cluster *cluster, const moe_port *port, spot *from, spot *to)
{
    int u = port->unit;
    int below = (int)cluster->spec->intra.switch_devices;
    int core = cluster->spec->fabric.kind == MOE_FABRIC_RAIL_ONLY ? u % cluster->rails : 0;
    int host = u / MOE_MESH_PORTS * MOE_MESH_DEVICES;
    spot swap;
    switch (port->kind) {
    case MOE_PORT_INTRA_OUT:
    case MOE_PORT_INTRA_IN:
        *from = (spot){AT_DEVICE, u};
        *to = beside_device(cluster, &cluster->places[u]);
        break;
    case MOE_PORT_LINK:
        *from = (spot){AT_DEVICE, host + cluster->mesh->from[u % MOE_MESH_PORTS]};
        *to = (spot){AT_DEVICE, host + cluster->mesh->to[u % MOE_MESH_PORTS]};
        return;
    case MOE_PORT_SWITCH_UP:
    case MOE_PORT_SWITCH_DOWN:
        *from = (spot){AT_PCIE_SWITCH, u};
        *to = (spot){AT_ROOT, u * below / cluster->devices_per_host};
        break;
    case MOE_PORT_BRIDGE:
        *from = *to = (spot){AT_ROOT, u};
        return;
    case MOE_PORT_NIC_OUT:
    case MOE_PORT_NIC_IN:
        *from = below_nic(cluster, some_place(cluster, port->kind, u));
        *to = (spot){AT_LEAF, some_place(cluster, port->kind, u)->leaf};
        break;
    case MOE_PORT_LEAF_UP:
    case MOE_PORT_LEAF_DOWN:
        *from = (spot){AT_LEAF, u};
        *to = (spot){AT_SPINE, some_place(cluster, port->kind, u)->spine};
        break;
    case MOE_PORT_SPINE_UP:
    case MOE_PORT_SPINE_DOWN:
        *from = (spot){AT_SPINE, u};
        *to = (spot){AT_CORE, core};
        break;
    case MOE_PORT_KINDS:
        fail();
    }
    bool down = port->kind == MOE_PORT_INTRA_IN || port->kind == MOE_PORT_NIC_IN ||
                port->kind == MOE_PORT_LEAF_DOWN || port->kind == MOE_PORT_SWITCH_DOWN ||
                port->kind == MOE_PORT_SPINE_DOWN;
    swap = *from;
    *from = down ? *to : swap;
    *to = down ? swap : *to;
}

/* A device reaches its own NIC at no cost, and a NIC all devices that it serves (a PCIe NIC below a
 * shared switch serves whom the switch reaches). Levels that do not block have no ports. */
static bool same_spot(const moe_cluster *cluster, spot at, spot next)
{
    if (at.kind == next.kind && at.unit == next.unit)
        return true;
    if (at.kind == AT_DEVICE && next.kind == AT_NIC)
        return cluster->places[at.unit].nic == next.unit;
    if (at.kind == AT_NIC && next.kind == AT_DEVICE)
        return cluster->places[next.unit].nic == at.unit;
    bool switches = at.kind >= AT_LEAF && next.kind >= AT_LEAF;
    return switches && cluster->first_port[MOE_PORT_LEAF_UP] < 0;
}

static void check_way(const moe_cluster *cluster, int source, int target)
{
    int ports[MOE_PATH_PORTS + 1];
    int count = moe_cluster_path(cluster, source, target, ports);
    assert_true(count >= 1 && count <= MOE_PATH_PORTS);
    spot at = {AT_DEVICE, source};
    for (int i = 0; i < count; i++) {
        spot from = {0}, to = {0};
        ends_of(cluster, &cluster->ports[ports[i]], &from, &to);
        bool joined = same_spot(cluster, at, from);
        for (int j = 0; j < i; j++)
            assert_int_not_equal(ports[i], ports[j]); /* a byte loads a port once */
        if (!joined)
            fail_msg("%d to %d: %s: hop %d does not start where the last one ended", source, target,
                     path_text(cluster, source, target), i);
        at = to;
    }
    if (!same_spot(cluster, at, (spot){AT_DEVICE, target}))
        fail_msg("%d to %d: %s does not arrive", source, target,
                 path_text(cluster, source, target));
}

static void test_every_path_is_a_way(void **state)
{
    (void)state;
    for (int c = 0; c < CLUSTERS; c++) {
        fixture f = open_text(clusters[c]);
        for (int i = 0; i < f.cluster->devices; i++)
            for (int j = 0; j < f.cluster->devices; j++)
                if (i != j)
                    check_way(f.cluster, i, j);
        close_fixture(&f);
    }
}

/* ---- bytes per link ----------------------------------------------------------------------------
 */

typedef struct transfer {
    int source, target;
    double bytes;
} transfer;

typedef struct expectation {
    moe_port_kind kind;
    int unit;
    double bytes;
} expectation;

enum { EXPECTED = 24 };

typedef struct byte_case {
    const char *cluster;
    expectation expected[EXPECTED]; /* all other ports carry nothing */
} byte_case;

/* From device 5 (host 1, rail 1): to its rail, to rail 3 in its group, to its rail and to rail 2 in
 * the other group; to 5 from rail 0 in the other group; and within the host. */
static const transfer rail_transfers[] = {
    {5, 9, 100}, {5, 11, 1000}, {5, 29, 10000}, {5, 30, 20000}, {16, 5, 400000}, {5, 6, 7},
};

static const byte_case byte_cases[] = {
    {RAILS("direct"),
     {{MOE_PORT_INTRA_OUT, 5, 7},
      {MOE_PORT_INTRA_IN, 6, 7},
      {MOE_PORT_NIC_OUT, 5, 31100},
      {MOE_PORT_NIC_IN, 9, 100},
      {MOE_PORT_NIC_IN, 11, 1000},
      {MOE_PORT_NIC_IN, 29, 10000},
      {MOE_PORT_NIC_IN, 30, 20000},
      {MOE_PORT_LEAF_UP, 1, 31000},
      {MOE_PORT_LEAF_DOWN, 3, 1000},
      {MOE_PORT_LEAF_DOWN, 5, 10000},
      {MOE_PORT_LEAF_DOWN, 6, 20000},
      {MOE_PORT_NIC_OUT, 16, 400000},
      {MOE_PORT_LEAF_UP, 4, 400000},
      {MOE_PORT_LEAF_DOWN, 1, 400000},
      {MOE_PORT_NIC_IN, 5, 400000}}},
    {RAILS("pxn"), {{MOE_PORT_INTRA_OUT, 5, 21007},   {MOE_PORT_INTRA_IN, 7, 1000},
                    {MOE_PORT_INTRA_IN, 6, 20007},    {MOE_PORT_NIC_OUT, 5, 10100},
                    {MOE_PORT_NIC_OUT, 6, 20000},     {MOE_PORT_NIC_OUT, 7, 1000},
                    {MOE_PORT_NIC_IN, 9, 100},        {MOE_PORT_NIC_IN, 11, 1000},
                    {MOE_PORT_NIC_IN, 29, 10000},     {MOE_PORT_NIC_IN, 30, 20000},
                    {MOE_PORT_LEAF_UP, 1, 10000},     {MOE_PORT_LEAF_DOWN, 5, 10000},
                    {MOE_PORT_LEAF_UP, 2, 20000},     {MOE_PORT_LEAF_DOWN, 6, 20000},
                    {MOE_PORT_INTRA_OUT, 16, 400000}, {MOE_PORT_INTRA_IN, 17, 400000},
                    {MOE_PORT_NIC_OUT, 17, 400000},   {MOE_PORT_LEAF_UP, 5, 400000},
                    {MOE_PORT_LEAF_DOWN, 1, 400000},  {MOE_PORT_NIC_IN, 5, 400000}}},
    {RAILS("rail_then_nvlink"),
     {{MOE_PORT_INTRA_OUT, 5, 7},
      {MOE_PORT_INTRA_IN, 6, 7},
      {MOE_PORT_NIC_OUT, 5, 31100},
      {MOE_PORT_NIC_IN, 9, 1100},
      {MOE_PORT_INTRA_OUT, 9, 1000},
      {MOE_PORT_INTRA_IN, 11, 1000},
      {MOE_PORT_LEAF_UP, 1, 30000},
      {MOE_PORT_LEAF_DOWN, 5, 30000},
      {MOE_PORT_NIC_IN, 29, 30000},
      {MOE_PORT_INTRA_OUT, 29, 20000},
      {MOE_PORT_INTRA_IN, 30, 20000},
      {MOE_PORT_NIC_OUT, 16, 400000},
      {MOE_PORT_LEAF_UP, 4, 400000},
      {MOE_PORT_LEAF_DOWN, 0, 400000},
      {MOE_PORT_NIC_IN, 4, 400000},
      {MOE_PORT_INTRA_OUT, 4, 400000},
      {MOE_PORT_INTRA_IN, 5, 400000}}},

    {NULL, {{0}}},
};

/* From device 1 (rack 0): within the host, within the rack, to its rail of the other rack, and from
 * host 2 to another rail there. */
static const transfer rack_transfers[] = {{1, 2, 3}, {1, 11, 50}, {1, 13, 600}, {9, 15, 7000}};
static const byte_case rack_case = {RACKS,
                                    {{MOE_PORT_INTRA_OUT, 1, 53},
                                     {MOE_PORT_INTRA_IN, 2, 3},
                                     {MOE_PORT_INTRA_IN, 11, 7050},
                                     {MOE_PORT_NIC_OUT, 1, 600},
                                     {MOE_PORT_LEAF_UP, 1, 600},
                                     {MOE_PORT_LEAF_DOWN, 5, 600},
                                     {MOE_PORT_NIC_IN, 13, 600},
                                     {MOE_PORT_INTRA_OUT, 9, 7000},
                                     {MOE_PORT_NIC_OUT, 11, 7000},
                                     {MOE_PORT_LEAF_UP, 3, 7000},
                                     {MOE_PORT_LEAF_DOWN, 7, 7000},
                                     {MOE_PORT_NIC_IN, 15, 7000}}};

/* 0 to 5 by way of 1, 0 to 1 itself, 7 to 0 by way of 4 (two links each). */
static const transfer mesh_transfers[] = {{0, 5, 10}, {0, 1, 200}, {7, 0, 3000}};
static const byte_case mesh_case = {MESH,
                                    {{MOE_PORT_LINK, 0, 210},     /* 0-1 */
                                     {MOE_PORT_LINK, 7, 10},      /* 1-5 */
                                     {MOE_PORT_LINK, 29, 3000},   /* 7-4 */
                                     {MOE_PORT_LINK, 16, 3000}}}; /* 4-0 */

/* Same switch, other switch, other host with the NICs at the root. */
static const transfer pcie_transfers[] = {{0, 3, 10}, {0, 5, 200}, {3, 13, 3000}};
static const byte_case pcie_case = {PCIE("1"),
                                    {{MOE_PORT_INTRA_OUT, 0, 210},
                                     {MOE_PORT_INTRA_IN, 3, 10},
                                     {MOE_PORT_SWITCH_UP, 0, 3200},
                                     {MOE_PORT_BRIDGE, 0, 200},
                                     {MOE_PORT_SWITCH_DOWN, 1, 200},
                                     {MOE_PORT_INTRA_IN, 5, 200},
                                     {MOE_PORT_INTRA_OUT, 3, 3000},
                                     {MOE_PORT_NIC_OUT, 0, 3000},
                                     {MOE_PORT_NIC_IN, 1, 3000},
                                     {MOE_PORT_SWITCH_DOWN, 3, 3000},
                                     {MOE_PORT_INTRA_IN, 13, 3000}}};

static double *load_ports(const fixture *f, const transfer *transfers, size_t count)
{
    double *bytes = talloc_zero_array(f->diag, double, f->cluster->port_count);
    for (size_t t = 0; t < count; t++) {
        int ports[MOE_PATH_PORTS];
        int hops = moe_cluster_path(f->cluster, transfers[t].source, transfers[t].target, ports);
        for (int h = 0; h < hops; h++)
            bytes[ports[h]] += transfers[t].bytes;
    }
    return bytes;
}

static void check_bytes(const byte_case *c, const transfer *transfers, size_t count)
{
    fixture f = open_text(c->cluster);
    double *bytes = load_ports(&f, transfers, count);
    for (const expectation *e = c->expected; e < c->expected + EXPECTED && e->bytes > 0; e++) {
        double *found = &bytes[f.cluster->first_port[e->kind] + e->unit];
        if (*found != e->bytes)
            fail_msg("%s%s%d carries %g, expected %g", c->cluster, moe_port_kind_names[e->kind],
                     e->unit, *found, e->bytes);
        *found = 0;
    }
    for (int p = 0; p < f.cluster->port_count; p++)
        if (bytes[p] != 0)
            fail_msg("%s%s%d carries %g, expected nothing", c->cluster,
                     moe_port_kind_names[f.cluster->ports[p].kind], f.cluster->ports[p].unit,
                     bytes[p]);
    close_fixture(&f);
}

#define CHECK_BYTES(c, transfers) check_bytes(c, transfers, sizeof transfers / sizeof *transfers)

static void test_bytes_per_link(void **state)
{
    (void)state;
    for (const byte_case *c = byte_cases; c->cluster; c++)
        CHECK_BYTES(c, rail_transfers);
    CHECK_BYTES(&rack_case, rack_transfers);
    CHECK_BYTES(&mesh_case, mesh_transfers);
    CHECK_BYTES(&pcie_case, pcie_transfers);
}

/* ---- bytes are conserved -----------------------------------------------------------------------
 */

static double sum_kind(const fixture *f, const double *bytes, moe_port_kind kind)
{
    double sum = 0;
    for (int p = 0; p < f->cluster->port_count; p++)
        sum += f->cluster->ports[p].kind == kind ? bytes[p] : 0;
    return sum;
}

/* Sizes that tell pairs apart. */
static double pair_bytes(int source, int target)
{
    return 1 + source * 37 % 101 + target * 53 % 89;
}

static void assert_conserved(const char *text)
{
    static const moe_port_kind opposite[][2] = {{MOE_PORT_INTRA_OUT, MOE_PORT_INTRA_IN},
                                                {MOE_PORT_NIC_OUT, MOE_PORT_NIC_IN},
                                                {MOE_PORT_LEAF_UP, MOE_PORT_LEAF_DOWN},
                                                {MOE_PORT_SPINE_UP, MOE_PORT_SPINE_DOWN}};
    fixture f = open_text(text);
    int devices = f.cluster->devices;
    double *bytes = talloc_zero_array(f.diag, double, f.cluster->port_count);
    double network = 0, hops = 0, ports_loaded = 0;
    for (int i = 0; i < devices; i++) {
        for (int j = 0; j < devices; j++) {
            int ports[MOE_PATH_PORTS];
            int count = moe_cluster_path(f.cluster, i, j, ports);
            for (int h = 0; h < count; h++)
                bytes[ports[h]] += pair_bytes(i, j);
            bool leaves = f.cluster->places[i].domain != f.cluster->places[j].domain;
            network += leaves ? pair_bytes(i, j) : 0;
            hops += count * pair_bytes(i, j);
        }
    }
    for (int p = 0; p < f.cluster->port_count; p++)
        ports_loaded += bytes[p];
    assert_near(ports_loaded, hops); /* every byte on every hop once */
    assert_near(sum_kind(&f, bytes, MOE_PORT_NIC_OUT), network);
    for (size_t k = 0; k < sizeof opposite / sizeof *opposite; k++)
        assert_near(sum_kind(&f, bytes, opposite[k][0]), sum_kind(&f, bytes, opposite[k][1]));
    close_fixture(&f);
}

static void test_bytes_are_conserved(void **state)
{
    (void)state;
    for (int c = 0; c < CLUSTERS; c++)
        assert_conserved(clusters[c]);
}

/* Nothing crosses the spine of rails if NVLink changes rails, and only rail_only forbids it. */
static void test_who_crosses_rails(void **state)
{
    (void)state;
    static const char one_group[] =
        "hosts: 4\ndevices_per_host: 4\n" DEVICE NVLINK OWN_NICS
        "fabric: {kind: rail_optimised, oversubscription: 2, path: pxn}\n";
    fixture f = open_text(one_group);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            assert_null(strstr(path_text(f.cluster, i, j), "leaf"));
    close_fixture(&f);
    f = open_text(RAILS("direct"));
    assert_int_equal(moe_cluster_relay(f.cluster, 5, 30), -1);
    close_fixture(&f);
    f = open_text(RAILS("pxn"));
    assert_int_equal(moe_cluster_relay(f.cluster, 5, 30), 6);
    assert_int_equal(moe_cluster_relay(f.cluster, 5, 29), -1);
    assert_int_equal(moe_cluster_relay(f.cluster, 5, 7), -1);
    close_fixture(&f);
    f = open_text(RAILS("rail_then_nvlink"));
    assert_int_equal(moe_cluster_relay(f.cluster, 5, 30), 29);
    close_fixture(&f);
}

/* ---- the mesh ----------------------------------------------------------------------------------
 */

/* Six links per device, symmetric, and six rings that use every link once in each direction. */
static void test_mesh(void **state)
{
    (void)state;
    struct moe_mesh *mesh = moe_mesh_create(NULL);
    int used[MOE_MESH_PORTS] = {0};
    for (int ring = 0; ring < MOE_MESH_RINGS; ring++) {
        int at = 0;
        for (int step = 0; step < MOE_MESH_DEVICES; step++) {
            int next = moe_mesh_next(ring, at);
            assert_true(mesh->port[at][next] >= 0);
            used[mesh->port[at][next]]++;
            at = next;
        }
        assert_int_equal(at, 0);
    }
    int links[MOE_MESH_DEVICES] = {0};
    for (int p = 0; p < MOE_MESH_PORTS; p++) {
        assert_int_equal(used[p], mesh->links[p]);
        assert_int_equal(mesh->links[p], mesh->links[mesh->port[mesh->to[p]][mesh->from[p]]]);
        links[mesh->from[p]] += mesh->links[p];
    }
    for (int d = 0; d < MOE_MESH_DEVICES; d++)
        assert_int_equal(links[d], MOE_MESH_LINKS_PER_DEVICE);
    talloc_free(mesh);
}

/* ---- the rack cliff ----------------------------------------------------------------------------
 */

static double uniform_all_to_all_s(const moe_cluster *cluster, const moe_profile *profile,
                                   int ranks, double bytes_per_rank)
{
    moe_curve_usage usage = {0};
    const moe_costs costs = {profile, cluster, &usage};
    moe_arena *arena = moe_arena_create(NULL);
    size_t devices = (size_t)cluster->devices;
    double *matrix = moe_arena_array(arena, double, devices *devices);
    for (int i = 0; i < ranks; i++)
        for (int j = 0; j < ranks; j++)
            matrix[(size_t)i * devices + (size_t)j] = bytes_per_rank / ranks;
    const moe_traffic *traffic = moe_traffic_all_to_all(arena, &costs, matrix, false);
    double seconds = moe_traffic_alone_s(traffic, cluster);
    talloc_free(arena);
    return seconds;
}

/* GB200, NCCL 2.27.3, 8 GiB a rank: busbw 622.9 GB/s of 64 ranks in one rack, 89.7 of 128 in two
 * (oracle-quickstart/oci-gpu-quickstarts @6a0abdc78b57); GB300 667 and 47.7 with twice the NICs. At
 * full rates the model must fall by 900 / (2 x 50 x 71.5 / 72), whatever the efficiencies. */
static void test_rack_cliff(void **state)
{
    (void)state;
    fixture f = open_config(NULL, MOE_TEST_SOURCE_DIR "/configs/clusters/gb200_nvl72.yaml");
    assert_non_null(f.cluster);
    double size = 1, full = 1, nvlink = 622.9 / 900, network = 0.9;
    moe_profile profile = {0};
    moe_collective_curve *curve = &profile.collectives[MOE_ALL_TO_ALL];
    const double bytes = 8589934592.0;
    curve->intra = (moe_points){&size, &full, 1};
    curve->inter = (moe_points){&size, &full, 1};
    double one_s = uniform_all_to_all_s(f.cluster, &profile, 72, bytes);
    double two_s = uniform_all_to_all_s(f.cluster, &profile, 144, bytes);
    assert_true(fabs(bytes * 71 / 72 / one_s - 900e9) < 1e-3 * 900e9); /* but for latency */
    assert_true(fabs(bytes * 72 / 144 / two_s - 50e9) < 1e-3 * 50e9);
    double ratio = (71.0 / 72 / one_s) / (143.0 / 144 / two_s);
    print_message("busbw in one rack over two racks: %.2f at full rates", ratio);
    assert_true(fabs(ratio - 900 / (143.0 / 144 * 2 * 50)) < 0.01);
    curve->intra = (moe_points){&size, &nvlink, 1};
    curve->inter = (moe_points){&size, &network, 1};
    one_s = uniform_all_to_all_s(f.cluster, &profile, 72, bytes);
    two_s = uniform_all_to_all_s(f.cluster, &profile, 144, bytes);
    ratio = (71.0 / 72 / one_s) / (143.0 / 144 / two_s);
    print_message(", %.2f at measured efficiencies (measured: 6.94 on GB200, 14.0 on GB300)\n",
                  ratio);
    assert_true(fabs(ratio - 622.9 / 89.7) < 0.05 * 622.9 / 89.7);
    close_fixture(&f);
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

typedef struct bad_case {
    const char *text;
    const char *message;
} bad_case;

#define SIZE "hosts: 8\ndevices_per_host: 4\n" DEVICE

static const bad_case bad_cases[] = {
    {SIZE "intra: {bandwidth: 1 GB/s, domain_hosts: 3}\n" OWN_NICS,
     ":4:42: error: intra.domain_hosts is 3; expected a divisor of the 8 hosts"},
    {SIZE "intra: {kind: pcie, bandwidth: 1 GB/s, domain_hosts: 2}\n" OWN_NICS,
     ":4:54: error: intra.domain_hosts above 1 goes with intra.kind nvlink or nvswitch, but the "
     "kind is pcie"},
    {SIZE "intra: {kind: hybrid_cube_mesh, bandwidth: 1 GB/s}\n" OWN_NICS,
     ":4:15: error: a hybrid_cube_mesh joins 8 devices, but a host has 4"},
    {SIZE "intra: {kind: nvlink, bandwidth: 1 GB/s, switch_devices: 2}\n" OWN_NICS,
     ":4:58: error: intra.switch_devices goes with intra.kind pcie, but the kind is nvlink"},
    {SIZE "intra: {kind: pcie, bandwidth: 1 GB/s, switch_devices: 3}\n" OWN_NICS,
     ":4:56: error: intra.switch_devices is 3; expected a divisor of the 4 devices of a host"},
    {SIZE "intra: {kind: pcie, bandwidth: 1 GB/s, uplink: 3 GB/s}\n" OWN_NICS,
     ":4:48: error: intra.uplink is that of a PCIe switch, but intra.switch_devices is 0"},
    {SIZE "intra: {bandwidth: 1 GB/s, reduction: true}\n" OWN_NICS,
     ":4:39: error: intra.reduction goes with intra.kind nvswitch, but the kind is nvlink"},
    {SIZE NVLINK "nic: {sharing: per_device, per_host_count: 2, bandwidth: 1 GB/s}\n",
     ":5:44: error: nic.per_host_count goes with nic.sharing per_host"},
    {SIZE NVLINK "nic: {per_host_count: 3, bandwidth: 1 GB/s}\n",
     ":5:23: error: nic.per_host_count is 3; expected a divisor of the 4 devices of a host"},
    {SIZE NVLINK "nic: {bandwidth: 1 GB/s}\nfabric: {kind: rail_optimised}\n",
     ":6:16: error: fabric.kind rail_optimised has a rail per NIC of a host, but the 4 devices"},
    {SIZE NVLINK OWN_NICS "fabric: {kind: rail_only}\n",
     "error: fabric.path direct has no way between the rails of a rail_only fabric, which has no "
     "spine"},
    {SIZE "intra: {kind: pcie, bandwidth: 1 GB/s}\n" OWN_NICS "fabric: {kind: rail_only}\n",
     ":6:16: error: fabric.kind rail_only leaves only NVLink between rails, but intra.kind is "
     "pcie"},
    {SIZE "intra: {kind: pcie, bandwidth: 1 GB/s}\n" OWN_NICS
          "fabric: {kind: rail_optimised, path: pxn}\n",
     ":6:38: error: fabric.path pxn changes rails over NVLink, but intra.kind is pcie"},
    {SIZE NVLINK OWN_NICS "fabric: {path: rail_then_nvlink}\n",
     ":6:16: error: fabric.path rail_then_nvlink changes rails, but a leaf_spine fabric has none"},
    {SIZE NVLINK OWN_NICS "fabric: {hosts_per_leaf: 2, hosts_per_pod: 3}\n",
     ":6:44: error: fabric.hosts_per_pod is 3; expected a multiple of the 2 hosts below a leaf "
     "that divides the 8 hosts"},
    {SIZE NVLINK OWN_NICS "fabric: {hosts_per_leaf: 2, spine_oversubscription: 3}\n",
     ":6:53: error: fabric.spine_oversubscription is between pods, but fabric.hosts_per_pod is 0"},
    {SIZE "intra: {domain_hosts: 2}\n" OWN_NICS, "intra.bandwidth is missing or zero"},
    {"hosts: 8\ndevices_per_host: 1\n" DEVICE "intra: {domain_hosts: 2}\n" OWN_NICS,
     "expected a rate above 0 because an NVLink domain has several hosts"},
    {SIZE "intra: {bandwidth: 1 GB/s, domain_hosts: 2}\n",
     "expected a rate above 0 because there are several NVLink domains"},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_cases / sizeof *bad_cases; i++) {
        fixture f = open_config(bad_cases[i].text, NULL);
        assert_null(f.cluster);
        if (!strstr(f.said, bad_cases[i].message))
            fail_msg("expected \"%s\" in:\n%s", bad_cases[i].message, f.said);
        close_fixture(&f);
    }
}

/* ---- presets -----------------------------------------------------------------------------------
 */

static char *read_all(void *owner, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return NULL;
    char *text = talloc_zero_size(owner, 1 << 16);
    size_t length = fread(text, 1, (1 << 16) - 1, file);
    text[length] = '\0';
    fclose(file);
    return text;
}

static void check_preset(const char *file)
{
    char *path = talloc_asprintf(NULL, MOE_TEST_SOURCE_DIR "/configs/clusters/%s", file);
    fixture f = open_config(NULL, path);
    if (!f.cluster)
        fail_msg("%s: %s", file, f.said);
    char *shown = NULL;
    size_t length;
    FILE *stream = open_memstream(&shown, &length);
    moe_cluster_show(f.cluster, stream);
    fclose(stream);
    int stem = (int)(strlen(file) - strlen(".yaml"));
    char *golden = talloc_asprintf(path, "tests/golden/clusters/%.*s.txt", stem, file);
    const char *expected = read_all(path, talloc_asprintf(path, MOE_TEST_SOURCE_DIR "/%s", golden));
    if (!expected || strcmp(shown, expected) != 0)
        fail_msg("%s is not what `moeplan cluster show %.*s > %s` writes:\n%s", golden, stem, file,
                 golden, shown);
    free(shown);
    close_fixture(&f);
    talloc_free(path);
}

static int is_yaml(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".yaml") == 0;
}

static void test_presets_are_shown_as_recorded(void **state)
{
    (void)state;
    struct dirent **files;
    int count = scandir(MOE_TEST_SOURCE_DIR "/configs/clusters", &files, is_yaml, alphasort);
    assert_true(count >= 9);
    for (int i = 0; i < count; i++) {
        check_preset(files[i]->d_name);
        free(files[i]);
    }
    free(files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_one_domain_needs_no_network),
        cmocka_unit_test(test_every_path_is_a_way),
        cmocka_unit_test(test_bytes_per_link),
        cmocka_unit_test(test_bytes_are_conserved),
        cmocka_unit_test(test_who_crosses_rails),
        cmocka_unit_test(test_mesh),
        cmocka_unit_test(test_rack_cliff),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_presets_are_shown_as_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
