/* What the files of a cluster share. Private to models/. */
#ifndef MOE_MODELS_CLUSTER_PRIVATE_H
#define MOE_MODELS_CLUSTER_PRIVATE_H

#include "models/cluster.h"

enum { MOE_MAX_DEVICES = 65536 };

/* Specifications that no table has filled may leave a count at 0, which means 1. */
static inline int64_t moe_count_or_one(int64_t count)
{
    return count > 0 ? count : 1;
}

static inline bool moe_spec_has_rails(const moe_cluster_spec *spec)
{
    return spec->fabric.kind != MOE_FABRIC_LEAF_SPINE;
}

/* Whether anything leaves its NVLink domain. */
static inline bool moe_spec_has_network(const moe_cluster_spec *spec)
{
    return spec->hosts > moe_count_or_one(spec->intra.domain_hosts);
}

static inline int64_t moe_spec_nics_per_host(const moe_cluster_spec *spec)
{
    return spec->nic.sharing == MOE_NIC_PER_DEVICE ? spec->devices_per_host
                                                   : moe_count_or_one(spec->nic.per_host_count);
}

/* Whether devices have INTRA ports (or LINKs in their place). */
bool moe_spec_has_intra(const moe_cluster_spec *spec);

/* Every relation that a specification must keep; prints what is wrong. */
moe_status moe_cluster_check(const moe_cluster_spec *spec, const moe_config *config,
                             moe_diag *diag);

#endif
