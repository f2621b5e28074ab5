/* A cluster as a SimGrid platform (XML, DTD 4.1), for simulations of one's own.
 *
 * Every device is a host "device<N>" with the device's peak as its speed; every port is a link
 * "<kind>_<unit>" (nic_out_3) with the port's rate; the route between two devices is their path plus
 * one FATPIPE link that holds its latency, so that latencies add up as in moe_cluster_latency_s.
 *
 *   up to 512 devices   one zone, routing Full: a route per ordered pair
 *   more                a zone per NVLink domain, Full within and between them. Needs a fabric
 *                       without rails (with them the way depends on both devices) and domains that
 *                       lie below one leaf each; anything else is refused
 *
 * The file pins the network model (CM02, no cross-traffic, no TCP window): SimGrid's default one
 * multiplies latencies by 13. SimGrid 3.32 loads it; it holds no loopback, which SimGrid supplies. */
#ifndef MOE_MODELS_CLUSTER_PLATFORM_H
#define MOE_MODELS_CLUSTER_PLATFORM_H

#include "models/cluster.h"
#include <stdio.h>

/* MOE_BAD_INPUT after a printed error where there is no such form; write errors are the stream's. */
moe_status moe_cluster_write_platform(const moe_cluster *cluster, FILE *stream, moe_diag *diag);

#endif
