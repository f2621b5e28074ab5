#include "models/cluster_platform.h"

#include "models/cluster_private.h"
#include <assert.h>
#include <stdlib.h>

enum { FULL_DEVICES = 512, MAX_LATENCIES = 16 };

typedef struct platform_writer {
    const moe_cluster *cluster;
    FILE *stream;
    double latencies_s[MAX_LATENCIES]; /* a link each */
    int latency_count;
} platform_writer;

/* ---- numbers and texts ----------------------------------------------------------------------- */

/* The shortest text that reads back the same. */
static void print_number(FILE *stream, double value)
{
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fputs(text, stream);
}

static void print_escaped(FILE *stream, const char *text)
{
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c < ' ')
            fputc(' ', stream);
        else if (*c == '&' || *c == '<' || *c == '>' || *c == '"')
            fprintf(stream, "&#%d;", *c);
        else
            fputc(*c, stream);
    }
}

static void print_link(FILE *stream, const char *id, int number, double bytes_per_s,
                       double latency_s, const char *sharing)
{
    fprintf(stream, "<link id=\"%s_%d\" bandwidth=\"", id, number);
    print_number(stream, bytes_per_s);
    fputs("Bps\" latency=\"", stream);
    print_number(stream, latency_s);
    fprintf(stream, "s\" sharing_policy=\"%s\"/>\n", sharing);
}

/* ---- latencies ------------------------------------------------------------------------------- */

static int latency_number(platform_writer *writer, double latency_s)
{
    int i = 0;
    while (i < writer->latency_count && writer->latencies_s[i] != latency_s)
        i++;
    assert(i < MAX_LATENCIES);
    writer->latencies_s[i] = latency_s;
    writer->latency_count += i == writer->latency_count;
    return i;
}

/* A path's latency depends on where its ends are in their hosts and which hosts, leaves and pods
 * differ: devices of the first host to all others meet every sum there is. */
static void collect_latencies(platform_writer *writer)
{
    const moe_cluster *cluster = writer->cluster;
    for (int source = 0; source < cluster->devices_per_host; source++)
        for (int target = 0; target < cluster->devices; target++)
            latency_number(writer, moe_cluster_latency_s(cluster, source, target));
}

/* Nothing is shared in it: it only delays. */
static void print_latency_links(const platform_writer *writer)
{
    for (int i = 0; i < writer->latency_count; i++)
        print_link(writer->stream, "latency", i, 1e18, writer->latencies_s[i], "FATPIPE");
}

/* ---- links and routes ------------------------------------------------------------------------ */

static void print_port(const platform_writer *writer, int port)
{
    const moe_port *described = &writer->cluster->ports[port];
    print_link(writer->stream, moe_port_kind_names[described->kind], described->unit,
               described->rate_bytes_per_s, 0, "SHARED");
}

static void print_crossed(const platform_writer *writer, const int *ports, int count)
{
    for (int i = 0; i < count; i++) {
        const moe_port *port = &writer->cluster->ports[ports[i]];
        fprintf(writer->stream, "<link_ctn id=\"%s_%d\"/>", moe_port_kind_names[port->kind],
                port->unit);
    }
}

static void print_delay(platform_writer *writer, int source, int target)
{
    double latency_s = moe_cluster_latency_s(writer->cluster, source, target);
    fprintf(writer->stream, "<link_ctn id=\"latency_%d\"/>", latency_number(writer, latency_s));
}

static void print_route(platform_writer *writer, int source, int target)
{
    int ports[MOE_PATH_PORTS];
    int count = moe_cluster_path(writer->cluster, source, target, ports);
    fprintf(writer->stream, "<route src=\"device%d\" dst=\"device%d\" symmetrical=\"NO\">", source,
            target);
    print_crossed(writer, ports, count);
    print_delay(writer, source, target);
    fputs("</route>\n", writer->stream);
}

static void print_devices(platform_writer *writer, int first, int count)
{
    for (int device = first; device < first + count; device++) {
        fprintf(writer->stream, "<host id=\"device%d\" speed=\"", device);
        print_number(writer->stream, writer->cluster->spec->device.peak_flop_per_s);
        fputs("f\"/>\n", writer->stream);
    }
}

static void print_routes(platform_writer *writer, int first, int count)
{
    for (int source = first; source < first + count; source++)
        for (int target = first; target < first + count; target++)
            if (source != target)
                print_route(writer, source, target);
}

/* ---- one zone -------------------------------------------------------------------------------- */

static void print_flat(platform_writer *writer)
{
    print_devices(writer, 0, writer->cluster->devices);
    for (int port = 0; port < writer->cluster->port_count; port++)
        print_port(writer, port);
    print_latency_links(writer);
    print_routes(writer, 0, writer->cluster->devices);
}

/* ---- a zone per domain ----------------------------------------------------------------------- */

/* Where a path to another domain leaves its own: after NIC_OUT, before NIC_IN. */
typedef struct way_out {
    int ports[MOE_PATH_PORTS];
    int count;
    int left;    /* of the first, those up to NIC_OUT */
    int entered; /* the first one at NIC_IN or after */
} way_out;

static way_out way_between(const moe_cluster *cluster, int source, int target)
{
    way_out way = {.left = 0};
    way.count = moe_cluster_path(cluster, source, target, way.ports);
    for (int i = 0; i < way.count; i++) {
        moe_port_kind kind = cluster->ports[way.ports[i]].kind;
        if (kind == MOE_PORT_NIC_OUT)
            way.left = i + 1;
        if (kind == MOE_PORT_NIC_IN)
            way.entered = i;
    }
    return way;
}

static int devices_per_domain(const moe_cluster *cluster)
{
    return cluster->domain_hosts * cluster->devices_per_host;
}

static void print_gateway_routes(platform_writer *writer, int domain)
{
    const moe_cluster *cluster = writer->cluster;
    int size = devices_per_domain(cluster);
    int elsewhere = (domain + 1) % cluster->domains * size;
    for (int device = domain * size; device < (domain + 1) * size; device++) {
        way_out out = way_between(cluster, device, elsewhere);
        way_out in = way_between(cluster, elsewhere, device);
        fprintf(writer->stream, "<route src=\"device%d\" dst=\"gateway%d\" symmetrical=\"NO\">",
                device, domain);
        print_crossed(writer, out.ports, out.left);
        fprintf(writer->stream,
                "</route>\n<route src=\"gateway%d\" dst=\"device%d\" symmetrical=\"NO\">", domain,
                device);
        print_crossed(writer, in.ports + in.entered, in.count - in.entered);
        fputs("</route>\n", writer->stream);
    }
}

static void print_domain(platform_writer *writer, int domain)
{
    int size = devices_per_domain(writer->cluster);
    fprintf(writer->stream, "<zone id=\"domain%d\" routing=\"Full\">\n", domain);
    print_devices(writer, domain * size, size);
    fprintf(writer->stream, "<router id=\"gateway%d\"/>\n", domain);
    print_routes(writer, domain * size, size);
    print_gateway_routes(writer, domain);
    fputs("</zone>\n", writer->stream);
}

static void print_domain_route(platform_writer *writer, int from, int to)
{
    int source = from * devices_per_domain(writer->cluster);
    int target = to * devices_per_domain(writer->cluster);
    way_out way = way_between(writer->cluster, source, target);
    fprintf(writer->stream,
            "<zoneRoute src=\"domain%d\" dst=\"domain%d\" gw_src=\"gateway%d\" "
            "gw_dst=\"gateway%d\" symmetrical=\"NO\">",
            from, to, from, to);
    print_crossed(writer, way.ports + way.left, way.entered - way.left);
    print_delay(writer, source, target);
    fputs("</zoneRoute>\n", writer->stream);
}

/* Links stand in a zone of their own before all others, whose routes name them: the DTD allows no
 * zone after a link. */
static void print_zones(platform_writer *writer)
{
    const moe_cluster *cluster = writer->cluster;
    fputs("<zone id=\"links\" routing=\"None\">\n", writer->stream);
    for (int port = 0; port < cluster->port_count; port++)
        print_port(writer, port);
    print_latency_links(writer);
    fputs("</zone>\n", writer->stream);
    for (int domain = 0; domain < cluster->domains; domain++)
        print_domain(writer, domain);
    for (int from = 0; from < cluster->domains; from++)
        for (int to = 0; to < cluster->domains; to++)
            if (from != to)
                print_domain_route(writer, from, to);
}

/* ---- the file -------------------------------------------------------------------------------- */

static moe_status check_zones(const moe_cluster *cluster, moe_diag *diag)
{
    int64_t per_leaf = cluster->spec->fabric.hosts_per_leaf;
    const char *reason = NULL;
    if (cluster->domains == 1)
        reason = "one NVLink domain holds them all";
    else if (cluster->rails > 1)
        reason = "with rails, the way between two hosts depends on both devices";
    else if (per_leaf > 0 && per_leaf % cluster->domain_hosts != 0)
        reason = "its NVLink domains reach beyond a leaf";
    if (!reason)
        return MOE_OK;
    moe_diag_error(diag, (moe_where){0},
                   "%d devices are too many for a route per pair (at most %d), and no zones can "
                   "stand for them because %s; expected fewer, such as --set hosts=%d",
                   cluster->devices, FULL_DEVICES, reason,
                   FULL_DEVICES / cluster->devices_per_host);
    return MOE_BAD_INPUT;
}

static void print_head(const platform_writer *writer)
{
    const char *name = writer->cluster->spec->name;
    fputs("<?xml version='1.0'?>\n"
          "<!DOCTYPE platform SYSTEM \"https://simgrid.org/simgrid.dtd\">\n"
          "<!-- Written by moeplan cluster export. Hosts are devices, links are directions of link "
          "ends. -->\n"
          "<platform version=\"4.1\">\n"
          "<config>\n"
          "<prop id=\"network/model\" value=\"CM02\"/>\n"
          "<prop id=\"network/crosstraffic\" value=\"0\"/>\n"
          "<prop id=\"network/TCP-gamma\" value=\"0\"/>\n"
          "</config>\n"
          "<zone id=\"cluster\" routing=\"Full\">\n"
          "<prop id=\"name\" value=\"",
          writer->stream);
    print_escaped(writer->stream, name ? name : "unnamed");
    fputs("\"/>\n", writer->stream);
}

moe_status moe_cluster_write_platform(const moe_cluster *cluster, FILE *stream, moe_diag *diag)
{
    bool zones = cluster->devices > FULL_DEVICES;
    if (zones && check_zones(cluster, diag) != MOE_OK)
        return MOE_BAD_INPUT;
    platform_writer writer = {.cluster = cluster, .stream = stream};
    collect_latencies(&writer);
    print_head(&writer);
    if (zones)
        print_zones(&writer);
    else
        print_flat(&writer);
    fputs("</zone>\n</platform>\n", stream);
    return MOE_OK;
}
