/* A cluster in text: its levels as a tree, the ways between devices, totals and derived figures. */
#ifndef MOE_REPORTS_CLUSTER_SHOW_H
#define MOE_REPORTS_CLUSTER_SHOW_H

#include "models/cluster.h"
#include <stdio.h>

void moe_cluster_show(const moe_cluster *cluster, FILE *stream);

#endif
