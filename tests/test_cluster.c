/* Clusters: what YAML gives, the ports of every kind of path, latencies, and every refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "models/cluster.h"
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* ---- a cluster from YAML text, and what was said about it --------------------------------------
 */

typedef struct fixture {
    char *said;
    size_t said_length;
    FILE *stream;
    moe_diag *diag;
    moe_config *config;
    moe_cluster *cluster;
} fixture;

static void listen(fixture *f)
{
    f->stream = open_memstream(&f->said, &f->said_length);
    f->diag = moe_diag_create(NULL, f->stream);
}

static void bind(fixture *f, moe_config *config)
{
    f->config = config;
    if (config)
        f->cluster = moe_cluster_create(f->diag, moe_config_root(config), config, f->diag);
    fflush(f->stream);
}

static void open_file(fixture *f, const char *path)
{
    listen(f);
    bind(f, moe_config_load(f->diag, path, &moe_cluster_table, NULL, 0, f->diag));
}

static void open_text(fixture *f, const char *text)
{
    listen(f);
    bind(f, moe_config_load_text(f->diag, "test.yaml", text, strlen(text), &moe_cluster_table, NULL,
                                 0, f->diag));
}

static void close_fixture(fixture *f)
{
    talloc_free(f->diag);
    fclose(f->stream);
    free(f->said);
    *f = (fixture){0};
}

static void assert_close(double actual, double expected)
{
    if (fabs(actual - expected) > 1e-12 * fabs(expected))
        fail_msg("%.17g is not %.17g", actual, expected);
}

/* ---- invented clusters with round numbers ------------------------------------------------------
 */

#define DEVICE                                                                                     \
    "device: {name: D, peak: 200 TFLOP/s, memory: 24 GiB, memory_bandwidth: 1.5 TB/s, sms: 96}\n"

/* Six hosts of three devices below three leaves; NICs per host, so a leaf has 2 * 100 / 2.5 Gb/s.
 */
static const char leaf_cluster[] =
    "hosts: 6\ndevices_per_host: 3\n" DEVICE
    "intra: {kind: nvswitch, bandwidth: 300 GB/s, latency: 2 us}\n"
    "nic: {bandwidth: 100 Gb/s, latency: 5 us}\n"
    "fabric: {hosts_per_leaf: 2, oversubscription: 2.5, latency: 1.5 us}\n";

/* As above but over PCIe with a bridge, and every device its own NIC. */
static const char pcie_cluster[] =
    "hosts: 6\ndevices_per_host: 3\n" DEVICE
    "intra: {kind: pcie, bandwidth: 25 GB/s, bridge: 40 GB/s, latency: 4 us}\n"
    "nic: {sharing: per_device, bandwidth: 200 Gb/s, latency: 5 us}\n"
    "fabric: {hosts_per_leaf: 3, oversubscription: 4, latency: 1.5 us}\n";

static const char flat_cluster[] =
    "hosts: 2\ndevices_per_host: 4\n" DEVICE "intra: {bandwidth: 300 GB/s}\n"
    "nic: {sharing: per_device, bandwidth: 50 GB/s}\n";

/* ---- reading -----------------------------------------------------------------------------------
 */

static void test_values_and_defaults(void **state)
{
    (void)state;
    fixture f = {0};
    open_text(&f, flat_cluster);
    assert_non_null(f.cluster);
    const moe_cluster_spec *spec = f.cluster->spec;
    assert_string_equal(spec->device.name, "D");
    assert_null(spec->name);
    assert_close(spec->device.peak_flop_per_s, 200e12);
    assert_close(spec->device.memory_bytes, 24.0 * (1 << 30));
    assert_close(spec->device.memory_bytes_per_s, 1.5e12);
    assert_int_equal(spec->device.sms, 96);
    assert_int_equal(spec->intra.kind, MOE_INTRA_NVLINK);
    assert_close(spec->intra.latency_s, 1e-6);
    assert_int_equal(spec->nic.sharing, MOE_NIC_PER_DEVICE);
    assert_close(spec->nic.latency_s, 2.8e-6);
    assert_int_equal(spec->fabric.hosts_per_leaf, 0);
    assert_close(spec->fabric.oversubscription, 1);
    close_fixture(&f);
}

static void test_ports(void **state)
{
    (void)state;
    fixture f = {0};
    open_text(&f, leaf_cluster);
    assert_non_null(f.cluster);
    assert_int_equal(f.cluster->devices, 18);
    assert_int_equal(f.cluster->nics, 6);
    assert_int_equal(f.cluster->leaves, 3);
    assert_int_equal(f.cluster->port_count, 2 * 18 + 2 * 6 + 2 * 3);
    assert_int_equal(f.cluster->first_port[MOE_PORT_BRIDGE], -1);
    for (int i = 0; i < f.cluster->port_count; i++) {
        const moe_port *port = &f.cluster->ports[i];
        assert_int_equal(f.cluster->first_port[port->kind] + port->unit, i);
        double rate = port->kind <= MOE_PORT_INTRA_IN ? 300e9
                      : port->kind <= MOE_PORT_NIC_IN ? 12.5e9
                                                      : 2 * 12.5e9 / 2.5;
        assert_close(port->rate_bytes_per_s, rate);
    }
    close_fixture(&f);
}

static void test_ports_over_pcie(void **state)
{
    (void)state;
    fixture f = {0};
    open_text(&f, pcie_cluster);
    assert_non_null(f.cluster);
    assert_int_equal(f.cluster->nics, 18);
    assert_int_equal(f.cluster->leaves, 2);
    assert_int_equal(f.cluster->port_count, 2 * 18 + 6 + 2 * 18 + 2 * 2);
    const moe_port *bridge = &f.cluster->ports[f.cluster->first_port[MOE_PORT_BRIDGE]];
    assert_close(bridge->rate_bytes_per_s, 40e9);
    const moe_port *leaf = &f.cluster->ports[f.cluster->first_port[MOE_PORT_LEAF_DOWN] + 1];
    assert_int_equal(leaf->unit, 1);
    assert_close(leaf->rate_bytes_per_s, 9 * 25e9 / 4); /* nine NICs below a leaf */
    close_fixture(&f);
}

/* Where nothing can flow there is no port, and no rate is asked for. */
static void test_absent_ports(void **state)
{
    (void)state;
    fixture f = {0};
    open_text(&f, "hosts: 1\ndevices_per_host: 5\n" DEVICE "intra: {bandwidth: 300 GB/s}\n");
    assert_non_null(f.cluster);
    assert_int_equal(f.cluster->port_count, 10);
    assert_int_equal(f.cluster->nics, 0);
    close_fixture(&f);
    open_text(&f, "hosts: 7\ndevices_per_host: 1\n" DEVICE "nic: {bandwidth: 100 Gb/s}\n"
                  "fabric: {hosts_per_leaf: 7, oversubscription: 3}\n");
    assert_non_null(f.cluster);
    assert_int_equal(f.cluster->port_count, 14); /* one leaf: nothing goes up */
    assert_int_equal(f.cluster->first_port[MOE_PORT_INTRA_OUT], -1);
    close_fixture(&f);
    open_text(&f, "hosts: 1\ndevices_per_host: 1\n" DEVICE);
    assert_non_null(f.cluster);
    assert_int_equal(f.cluster->port_count, 0);
    close_fixture(&f);
}

/* ---- paths -------------------------------------------------------------------------------------
 */

/* "intra_out3 leaf_up1": the ports of a path, in order. */
static const char *path_text(const moe_cluster *cluster, int source, int target)
{
    static const char *const names[] = {"out", "in", "bridge", "nic_out", "nic_in", "up", "down"};
    static char text[200];
    int ports[MOE_PATH_PORTS];
    int count = moe_cluster_path(cluster, source, target, ports);
    text[0] = '\0';
    for (int i = 0; i < count; i++) {
        const moe_port *port = &cluster->ports[ports[i]];
        size_t length = strlen(text);
        snprintf(text + length, sizeof text - length, "%s%s%d", i ? " " : "", names[port->kind],
                 port->unit);
    }
    return text;
}

typedef struct path_case {
    const char *cluster;
    int source, target;
    const char *ports;
    double latency_us;
} path_case;

static const path_case path_cases[] = {
    {leaf_cluster, 7, 7, "", 0},
    {leaf_cluster, 7, 6, "out7 in6", 2},                     /* same host */
    {leaf_cluster, 7, 10, "nic_out2 nic_in3", 5},            /* same leaf: hosts 2 and 3 */
    {leaf_cluster, 7, 2, "nic_out2 up1 down0 nic_in0", 6.5}, /* leaf 1 to leaf 0 */
    {leaf_cluster, 1, 17, "nic_out0 up0 down2 nic_in5", 6.5},
    {pcie_cluster, 4, 4, "", 0},
    {pcie_cluster, 4, 5, "out4 bridge1 in5", 4},
    {pcie_cluster, 4, 8, "out4 nic_out4 nic_in8 in8", 5}, /* hosts 1 and 2, leaf 0 */
    {pcie_cluster, 4, 13, "out4 nic_out4 up0 down1 nic_in13 in13", 6.5},
    {flat_cluster, 3, 1, "out3 in1", 1},
    {flat_cluster, 3, 4, "nic_out3 nic_in4", 2.8},
};

static void test_paths_and_latencies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof path_cases / sizeof path_cases[0]; i++) {
        const path_case *c = &path_cases[i];
        fixture f = {0};
        open_text(&f, c->cluster);
        assert_non_null(f.cluster);
        assert_string_equal(path_text(f.cluster, c->source, c->target), c->ports);
        double latency_s = moe_cluster_latency_s(f.cluster, c->source, c->target);
        assert_close(latency_s * 1e6, c->latency_us);
        close_fixture(&f);
    }
}

/* Leaves whose uplinks keep up with the NICs need no ports, but cost their latency. */
static void test_non_blocking_leaves(void **state)
{
    (void)state;
    fixture f = {0};
    open_text(&f, "hosts: 6\ndevices_per_host: 3\n" DEVICE "intra: {bandwidth: 300 GB/s}\n"
                  "nic: {bandwidth: 100 Gb/s, latency: 5 us}\n"
                  "fabric: {hosts_per_leaf: 2, latency: 1.5 us}\n");
    assert_non_null(f.cluster);
    assert_string_equal(path_text(f.cluster, 7, 2), "nic_out2 nic_in0");
    assert_close(moe_cluster_latency_s(f.cluster, 7, 2), 6.5e-6);
    close_fixture(&f);
}

typedef struct transfer {
    int source, target;
    double bytes;
} transfer;

static double bytes_on(const moe_cluster *cluster, const double *bytes, moe_port_kind kind,
                       int unit)
{
    assert_true(cluster->first_port[kind] >= 0);
    return bytes[cluster->first_port[kind] + unit];
}

/* Five transfers of different sizes; the bytes of each port added by hand. */
static void test_bytes_on_ports(void **state)
{
    (void)state;
    static const transfer transfers[] = {
        {4, 5, 700}, {3, 4, 1100}, {4, 8, 1300}, {5, 13, 1700}, {12, 4, 1900},
    };
    fixture f = {0};
    open_text(&f, pcie_cluster);
    double *bytes = talloc_zero_array(f.diag, double, f.cluster->port_count);
    for (size_t i = 0; i < sizeof transfers / sizeof transfers[0]; i++) {
        int ports[MOE_PATH_PORTS];
        int count = moe_cluster_path(f.cluster, transfers[i].source, transfers[i].target, ports);
        for (int k = 0; k < count; k++)
            bytes[ports[k]] += transfers[i].bytes;
    }
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_BRIDGE, 1), 700 + 1100);
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_BRIDGE, 0), 0);
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_INTRA_OUT, 4), 700 + 1300);
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_INTRA_IN, 4), 1100 + 1900);
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_NIC_OUT, 4), 1300);
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_NIC_OUT, 5), 1700);
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_NIC_IN, 8), 1300);
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_LEAF_UP, 0), 1700);
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_LEAF_DOWN, 1), 1700);
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_LEAF_UP, 1), 1900);
    assert_close(bytes_on(f.cluster, bytes, MOE_PORT_LEAF_DOWN, 0), 1900);
    close_fixture(&f);
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

typedef struct bad_case {
    const char *text;
    const char *message;
} bad_case;

static const bad_case bad_cases[] = {
    {"hosts: 4\ndevices_per_host: 8\n" DEVICE "nic: {bandwidth: 1 GB/s}\n",
     "intra.bandwidth is missing or zero; expected a rate above 0 because a host has several "
     "devices"},
    {"hosts: 4\ndevices_per_host: 1\n" DEVICE "intra: {kind: pcie}\nnic: {bandwidth: 1 GB/s}\n",
     "intra.bandwidth is missing or zero; expected a rate above 0 because traffic to other hosts"},
    {"hosts: 4\ndevices_per_host: 8\n" DEVICE "intra: {bandwidth: 1 GB/s}\n",
     "nic.bandwidth is missing or zero; expected a rate above 0 because there are several hosts"},
    {"hosts: 2\ndevices_per_host: 8\n" DEVICE "intra: {bandwidth: 1 GB/s, bridge: 2 GB/s}\n"
     "nic: {bandwidth: 1 GB/s}\n",
     ":4:36: error: intra.bridge goes with intra.kind pcie, but the kind is nvlink"},
    {"hosts: 6\ndevices_per_host: 8\n" DEVICE
     "intra: {bandwidth: 1 GB/s}\nnic: {bandwidth: 1 GB/s}\n"
     "fabric: {hosts_per_leaf: 4}\n",
     ":6:26: error: fabric.hosts_per_leaf is 4; expected a divisor of the 6 hosts, or 0"},
    {"hosts: 60000\ndevices_per_host: 2\n" DEVICE "intra: {bandwidth: 1 GB/s}\n"
     "nic: {bandwidth: 1 GB/s}\n",
     ":1:8: error: 60000 hosts of 2 devices; a cluster has at most 65,536 devices"},
    {"hosts: 0\ndevices_per_host: 2\n" DEVICE, "hosts"},
    {"hosts: 2\ndevices_per_host: 2\n", "device"},
    {"hosts: 2\ndevices_per_host: 2\ndevice: {peak: 1 TFLOP/s, memory: 1 GiB}\n",
     "memory_bandwidth"},
    {"hosts: 2\ndevices_per_host: 2\n" DEVICE "fabric: {oversubscription: 0.5}\n",
     "oversubscription"},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_cases / sizeof bad_cases[0]; i++) {
        fixture f = {0};
        open_text(&f, bad_cases[i].text);
        assert_null(f.cluster);
        if (!strstr(f.said, bad_cases[i].message))
            fail_msg("expected \"%s\" in:\n%s", bad_cases[i].message, f.said);
        close_fixture(&f);
    }
}

/* A specification that no file describes gets the same checks, without a place. */
static void test_specification_without_file(void **state)
{
    (void)state;
    moe_cluster_spec spec = {
        .hosts = INT64_MAX,
        .devices_per_host = 3,
        .device = {.peak_flop_per_s = 2e14, .memory_bytes_per_s = 1.5e12},
        .intra = {.bandwidth_bytes_per_s = 3e11},
        .nic = {.bandwidth_bytes_per_s = NAN},
        .fabric = {.oversubscription = 0.5},
    };
    moe_diag *diag = moe_diag_create(NULL, NULL);
    assert_null(moe_cluster_create(diag, &spec, NULL, diag));
    assert_int_equal(moe_diag_error_count(diag), 1);
    spec.hosts = 6;
    assert_null(moe_cluster_create(diag, &spec, NULL, diag));
    assert_int_equal(moe_diag_error_count(diag), 3); /* both the NIC and the fabric are named */
    spec.hosts = -6;
    assert_null(moe_cluster_create(diag, &spec, NULL, diag));
    spec = (moe_cluster_spec){.hosts = 6,
                              .devices_per_host = 3,
                              .device = spec.device,
                              .intra = spec.intra,
                              .nic = {.bandwidth_bytes_per_s = 1e9},
                              .fabric = {.oversubscription = 1}};
    assert_non_null(moe_cluster_create(diag, &spec, NULL, diag));
    talloc_free(diag);
}

/* ---- presets -----------------------------------------------------------------------------------
 */

static void test_preset_p4d(void **state)
{
    (void)state;
    fixture f = {0};
    open_file(&f, MOE_TEST_SOURCE_DIR "/configs/clusters/p4d_4x8_a100.yaml");
    assert_non_null(f.cluster);
    assert_int_equal(f.cluster->devices, 32);
    const moe_cluster_spec *spec = f.cluster->spec;
    assert_close(spec->device.peak_flop_per_s, 312e12);
    assert_close(spec->device.memory_bytes_per_s, 1.555e12);
    assert_int_equal(spec->device.sms, 108);
    assert_string_equal(path_text(f.cluster, 9, 14), "out9 in14");
    assert_string_equal(path_text(f.cluster, 9, 30), "nic_out1 nic_in3");
    assert_close(f.cluster->ports[f.cluster->first_port[MOE_PORT_INTRA_IN]].rate_bytes_per_s,
                 300e9);
    assert_close(f.cluster->ports[f.cluster->first_port[MOE_PORT_NIC_OUT]].rate_bytes_per_s, 50e9);
    assert_non_null(spec->source);
    close_fixture(&f);
}

static void test_preset_p3dn(void **state)
{
    (void)state;
    fixture f = {0};
    open_file(&f, MOE_TEST_SOURCE_DIR "/configs/clusters/p3dn_4x8_v100.yaml");
    assert_non_null(f.cluster);
    assert_int_equal(f.cluster->devices, 32);
    const moe_cluster_spec *spec = f.cluster->spec;
    assert_close(spec->device.peak_flop_per_s, 125e12);
    assert_close(spec->device.memory_bytes_per_s, 0.9e12);
    assert_int_equal(spec->device.sms, 80);
    assert_close(f.cluster->ports[f.cluster->first_port[MOE_PORT_INTRA_IN]].rate_bytes_per_s,
                 150e9);
    assert_close(f.cluster->ports[f.cluster->first_port[MOE_PORT_NIC_OUT]].rate_bytes_per_s,
                 12.5e9);
    assert_non_null(spec->source);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_and_defaults),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_ports_over_pcie),
        cmocka_unit_test(test_absent_ports),
        cmocka_unit_test(test_paths_and_latencies),
        cmocka_unit_test(test_non_blocking_leaves),
        cmocka_unit_test(test_bytes_on_ports),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_specification_without_file),
        cmocka_unit_test(test_preset_p4d),
        cmocka_unit_test(test_preset_p3dn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
