/* `cluster export`: SimGrid loads what is written, and finds on every route the ports, the rates and
 * the latency of the cluster's own path. One platform per process, so each is loaded in a child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "models/cluster_platform.h"
#include <cmocka.h>
#include <math.h>
#include <simgrid/engine.h>
#include <simgrid/host.h>
#include <simgrid/link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <talloc.h>
#include <unistd.h>
#include <xbt/dynar.h>

/* ---- in the child: SimGrid's view --------------------------------------------------------------
 */

static bool close_to(double found, double expected)
{
    return fabs(found - expected) <= 1e-12 * fabs(expected);
}

/* The route has the path's ports in order, then one link that only delays. */
static bool same_route(const moe_cluster *cluster, int source, int target, xbt_dynar_t links)
{
    int ports[MOE_PATH_PORTS];
    int count = moe_cluster_path(cluster, source, target, ports);
    int matched = 0;
    double latency_s = 0;
    for (unsigned i = 0; i < xbt_dynar_length(links); i++) {
        sg_link_t link = xbt_dynar_get_as(links, i, sg_link_t);
        latency_s += sg_link_get_latency(link);
        if (strncmp(sg_link_get_name(link), "latency_", 8) == 0)
            continue;
        char name[64] = "";
        if (matched < count) {
            const moe_port *port = &cluster->ports[ports[matched]];
            snprintf(name, sizeof name, "%s_%d", moe_port_kind_names[port->kind], port->unit);
            if (!close_to(sg_link_get_bandwidth(link), port->rate_bytes_per_s))
                return false;
        }
        if (strcmp(sg_link_get_name(link), name) != 0)
            return false;
        matched++;
    }
    return matched == count && close_to(latency_s, moe_cluster_latency_s(cluster, source, target));
}

static sg_host_t device_host(int device)
{
    char name[32];
    snprintf(name, sizeof name, "device%d", device);
    return sg_host_by_name(name);
}

static int compare_routes(const moe_cluster *cluster, int stride)
{
    for (int i = 0; i < cluster->devices; i += stride) {
        for (int j = 0; j < cluster->devices; j++) {
            if (i == j)
                continue;
            xbt_dynar_t links = xbt_dynar_new(sizeof(sg_link_t), NULL);
            sg_host_get_route(device_host(i), device_host(j), links);
            if (!same_route(cluster, i, j, links)) {
                fprintf(stderr, "route %d to %d differs\n", i, j);
                return 1;
            }
            xbt_dynar_free(&links);
        }
    }
    return 0;
}

static int load_and_compare(const moe_cluster *cluster, const char *path, int stride)
{
    char *arguments[] = {"run_platform", "--log=root.thres:warning", NULL};
    int count = 2;
    simgrid_init(&count, arguments);
    simgrid_load_platform(path);
    if ((int)sg_host_count() != cluster->devices)
        return 2;
    if (!close_to(sg_host_get_speed(device_host(0)), cluster->spec->device.peak_flop_per_s))
        return 3;
    return compare_routes(cluster, stride);
}

/* ---- in the parent -----------------------------------------------------------------------------
 */

static moe_cluster *load(moe_diag *diag, const char *preset, const char *const *overrides,
                         size_t count)
{
    char *path = talloc_asprintf(diag, MOE_TEST_SOURCE_DIR "/configs/clusters/%s.yaml", preset);
    moe_config *config = moe_config_load(diag, path, &moe_cluster_table, overrides, count, diag);
    assert_non_null(config);
    moe_cluster *cluster = moe_cluster_create(diag, moe_config_root(config), config, diag);
    assert_non_null(cluster);
    return cluster;
}

static void check_platform(const char *preset, const char *const *overrides, size_t count,
                           int stride)
{
    char path[] = "/tmp/moeplan_platform_XXXXXX.xml";
    moe_diag *diag = moe_diag_create(NULL, stderr);
    const moe_cluster *cluster = load(diag, preset, overrides, count);
    FILE *file = fdopen(mkstemps(path, 4), "w");
    assert_non_null(file);
    assert_int_equal(moe_cluster_write_platform(cluster, file, diag), MOE_OK);
    assert_int_equal(fclose(file), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(load_and_compare(cluster, path, stride));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    unlink(path);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("%s: the child ended with status %x", preset, (unsigned)status);
    talloc_free(diag);
}

#define CHECK(preset, stride, ...)                                                                 \
    do {                                                                                           \
        static const char *const changes[] = {__VA_ARGS__};                                        \
        check_platform(preset, changes, sizeof changes / sizeof *changes, stride);                 \
    } while (0)

static void test_route_per_pair(void **state)
{
    (void)state;
    CHECK("p4d_4x8_a100", 1, "hosts=2");
    CHECK("p3dn_4x8_v100_mesh", 1, "hosts=4");
    CHECK("l40s_pcie", 1, "hosts=4");
    CHECK("l40s_pcie", 1, "nic.per_host_count=1");
    CHECK("gb200_nvl72", 5, "hosts=36");
    CHECK("dgx_a100_superpod", 3, "hosts=4", "fabric.hosts_per_leaf=2", "fabric.oversubscription=2",
          "name='a <b> & \"c\" -- d'");
    CHECK("dgx_h100_superpod", 1, "hosts=8", "fabric.hosts_per_leaf=2", "fabric.hosts_per_pod=4",
          "fabric.oversubscription=2", "fabric.spine_oversubscription=2",
          "fabric.path=rail_then_nvlink");
}

/* Above 512 devices: a zone per domain. */
static void test_zones(void **state)
{
    (void)state;
    CHECK("p5_8xh100", 71, "hosts=80", "fabric.hosts_per_leaf=20", "fabric.oversubscription=2");
    CHECK("l40s_pcie", 71, "hosts=72", "nic.per_host_count=1");
    CHECK("p3dn_4x8_v100_mesh", 71, "hosts=72");
    CHECK("gb200_nvl72", 83, "hosts=144", "fabric.kind=leaf_spine", "fabric.path=direct",
          "fabric.hosts_per_leaf=36", "fabric.hosts_per_pod=72", "fabric.oversubscription=2",
          "fabric.spine_oversubscription=2");
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const large[] = {"hosts=128"};
    char *said;
    size_t length;
    FILE *stream = open_memstream(&said, &length);
    moe_diag *diag = moe_diag_create(NULL, stream);
    const moe_cluster *cluster = load(diag, "dgx_h100_superpod", large, 1);
    assert_int_equal(moe_cluster_write_platform(cluster, stderr, diag), MOE_BAD_INPUT);
    fflush(stream);
    assert_non_null(strstr(said, "1024 devices are too many for a route per pair (at most 512)"));
    assert_non_null(strstr(said, "with rails, the way between two hosts depends on both devices"));
    talloc_free(diag);
    fclose(stream);
    free(said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_per_pair),
        cmocka_unit_test(test_zones),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
