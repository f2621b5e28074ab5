/* What must hold between the numbers of a cluster. */
#include "models/cluster_private.h"

#include "models/cluster_mesh.h"
#include <math.h>

typedef struct check_context {
    const moe_cluster_spec *spec;
    const moe_config *config;
    moe_diag *diag;
} check_context;

static moe_where where_of(const check_context *check, const void *member)
{
    return check->config ? moe_config_where(check->config, member) : (moe_where){0};
}

bool moe_spec_has_intra(const moe_cluster_spec *spec)
{
    bool crossed_by_nic_traffic = spec->intra.kind == MOE_INTRA_PCIE && moe_spec_has_network(spec);
    return spec->devices_per_host > 1 || spec->intra.domain_hosts > 1 || crossed_by_nic_traffic;
}

static bool check_size(const check_context *check)
{
    const moe_cluster_spec *spec = check->spec;
    if (spec->hosts < 1 || spec->devices_per_host < 1) {
        moe_diag_error(check->diag, where_of(check, &spec->hosts),
                       "%lld hosts of %lld devices; expected at least one of each",
                       (long long)spec->hosts, (long long)spec->devices_per_host);
        return false;
    }
    /* Divided, not multiplied: a specification that no table has checked may hold any number. */
    if (spec->devices_per_host > MOE_MAX_DEVICES ||
        spec->hosts > MOE_MAX_DEVICES / spec->devices_per_host) {
        moe_diag_error(check->diag, where_of(check, &spec->hosts),
                       "%lld hosts of %lld devices; a cluster has at most 65,536 devices",
                       (long long)spec->hosts, (long long)spec->devices_per_host);
        return false;
    }
    return true;
}

/* ---- rates ----------------------------------------------------------------------------------- */

static void check_rate(const check_context *check, const double *rate, const char *what,
                       const char *reason)
{
    if (isfinite(*rate) && *rate > 0)
        return;
    moe_diag_error(check->diag, where_of(check, rate),
                   "%s is missing or zero; expected a rate above 0 because %s", what, reason);
}

static const char *why_intra(const moe_cluster_spec *spec)
{
    if (spec->devices_per_host > 1)
        return "a host has several devices";
    return spec->intra.kind == MOE_INTRA_PCIE ? "traffic to other hosts crosses PCIe"
                                              : "an NVLink domain has several hosts";
}

static void check_rates(const check_context *check)
{
    const moe_cluster_spec *spec = check->spec;
    check_rate(check, &spec->device.peak_flop_per_s, "device.peak", "devices compute");
    check_rate(check, &spec->device.memory_bytes_per_s, "device.memory_bandwidth",
               "devices read their memory");
    if (moe_spec_has_intra(spec))
        check_rate(check, &spec->intra.bandwidth_bytes_per_s, "intra.bandwidth", why_intra(spec));
    if (moe_spec_has_network(spec))
        check_rate(check, &spec->nic.bandwidth_bytes_per_s, "nic.bandwidth",
                   spec->intra.domain_hosts > 1 ? "there are several NVLink domains"
                                                : "there are several hosts");
}

/* ---- within hosts ---------------------------------------------------------------------------- */

/* `key` was given, but the kind of intra-host link has no use for it. */
static void refuse_for_kind(const check_context *check, const void *member, const char *key,
                            const char *kinds)
{
    moe_diag_error(check->diag, where_of(check, member),
                   "%s goes with intra.kind %s, but the kind is %s", key, kinds,
                   moe_intra_kind_names[check->spec->intra.kind]);
}

static void check_pcie(const check_context *check)
{
    const moe_intra_spec *intra = &check->spec->intra;
    bool pcie = intra->kind == MOE_INTRA_PCIE;
    if (intra->bridge_bytes_per_s > 0 && !pcie)
        refuse_for_kind(check, &intra->bridge_bytes_per_s, "intra.bridge", "pcie");
    if (intra->switch_devices != 0 && !pcie)
        refuse_for_kind(check, &intra->switch_devices, "intra.switch_devices", "pcie");
    if (intra->switch_devices < 0 ||
        (intra->switch_devices > 0 && check->spec->devices_per_host % intra->switch_devices != 0))
        moe_diag_error(check->diag, where_of(check, &intra->switch_devices),
                       "intra.switch_devices is %lld; expected a divisor of the %lld devices of a "
                       "host, or 0 for no switches",
                       (long long)intra->switch_devices, (long long)check->spec->devices_per_host);
    if (intra->uplink_bytes_per_s > 0 && intra->switch_devices == 0)
        moe_diag_error(check->diag, where_of(check, &intra->uplink_bytes_per_s),
                       "intra.uplink is that of a PCIe switch, but intra.switch_devices is 0");
}

static void check_domain(const check_context *check)
{
    const moe_intra_spec *intra = &check->spec->intra;
    bool spans = intra->kind == MOE_INTRA_NVLINK || intra->kind == MOE_INTRA_NVSWITCH;
    if (intra->domain_hosts > 1 && !spans)
        refuse_for_kind(check, &intra->domain_hosts, "intra.domain_hosts above 1",
                        "nvlink or nvswitch");
    if (intra->domain_hosts < 0 || check->spec->hosts % moe_count_or_one(intra->domain_hosts) != 0)
        moe_diag_error(check->diag, where_of(check, &intra->domain_hosts),
                       "intra.domain_hosts is %lld; expected a divisor of the %lld hosts",
                       (long long)intra->domain_hosts, (long long)check->spec->hosts);
}

static void check_intra(const check_context *check)
{
    const moe_intra_spec *intra = &check->spec->intra;
    check_pcie(check);
    check_domain(check);
    if (intra->kind == MOE_INTRA_CUBE_MESH && check->spec->devices_per_host != MOE_MESH_DEVICES)
        moe_diag_error(check->diag, where_of(check, &intra->kind),
                       "a hybrid_cube_mesh joins 8 devices, but a host has %lld",
                       (long long)check->spec->devices_per_host);
    if (intra->reduction && intra->kind != MOE_INTRA_NVSWITCH)
        refuse_for_kind(check, &intra->reduction, "intra.reduction", "nvswitch");
}

/* ---- between hosts --------------------------------------------------------------------------- */

static void check_nics(const check_context *check)
{
    const moe_nic_spec *nic = &check->spec->nic;
    long long devices = (long long)check->spec->devices_per_host;
    long long count = (long long)nic->per_host_count;
    if (nic->sharing == MOE_NIC_PER_DEVICE && count > 1)
        moe_diag_error(check->diag, where_of(check, &nic->per_host_count),
                       "nic.per_host_count goes with nic.sharing per_host, but every device has a "
                       "NIC of its own");
    else if (count < 0 || devices % moe_count_or_one(count) != 0)
        moe_diag_error(check->diag, where_of(check, &nic->per_host_count),
                       "nic.per_host_count is %lld; expected a divisor of the %lld devices of a "
                       "host, so that every NIC serves as many",
                       count, devices);
}

static void check_oversubscription(const check_context *check, const double *value, const char *key)
{
    if (!(*value >= 1) || isinf(*value))
        moe_diag_error(check->diag, where_of(check, value),
                       "fabric.%s is %g; expected at least 1 (non-blocking)", key, *value);
}

static void check_leaves(const check_context *check)
{
    const moe_fabric_spec *fabric = &check->spec->fabric;
    long long hosts = (long long)check->spec->hosts;
    long long leaf = (long long)fabric->hosts_per_leaf;
    if (leaf < 0 || (leaf > 0 && hosts % leaf != 0))
        moe_diag_error(
            check->diag, where_of(check, &fabric->hosts_per_leaf),
            "fabric.hosts_per_leaf is %lld; expected a divisor of the %lld hosts, or 0 for "
            "one leaf",
            leaf, hosts);
    check_oversubscription(check, &fabric->oversubscription, "oversubscription");
}

static void check_pods(const check_context *check)
{
    const moe_fabric_spec *fabric = &check->spec->fabric;
    long long hosts = (long long)check->spec->hosts;
    long long pod = (long long)fabric->hosts_per_pod;
    long long leaf = fabric->hosts_per_leaf > 0 ? (long long)fabric->hosts_per_leaf : hosts;
    if (pod < 0 || (pod > 0 && (hosts % pod != 0 || pod % leaf != 0)))
        moe_diag_error(
            check->diag, where_of(check, &fabric->hosts_per_pod),
            "fabric.hosts_per_pod is %lld; expected a multiple of the %lld hosts below a "
            "leaf that divides the %lld hosts, or 0 for one pod",
            pod, leaf, hosts);
    if (fabric->spine_oversubscription != 0)
        check_oversubscription(check, &fabric->spine_oversubscription, "spine_oversubscription");
    if (fabric->spine_oversubscription > 1 && pod == 0)
        moe_diag_error(
            check->diag, where_of(check, &fabric->spine_oversubscription),
            "fabric.spine_oversubscription is between pods, but fabric.hosts_per_pod is 0 "
            "(one pod holds all)");
}

static void check_path_rule(const check_context *check)
{
    const moe_fabric_spec *fabric = &check->spec->fabric;
    const char *path = moe_path_rule_names[fabric->path];
    bool relays = fabric->path != MOE_PATH_DIRECT;
    if (relays && !moe_spec_has_rails(check->spec))
        moe_diag_error(check->diag, where_of(check, &fabric->path),
                       "fabric.path %s changes rails, but a leaf_spine fabric has none; expected "
                       "fabric.kind rail_optimised or rail_only",
                       path);
    else if (relays && check->spec->intra.kind == MOE_INTRA_PCIE)
        moe_diag_error(check->diag, where_of(check, &fabric->path),
                       "fabric.path %s changes rails over NVLink, but intra.kind is pcie", path);
}

static void check_rails(const check_context *check)
{
    const moe_cluster_spec *spec = check->spec;
    const char *kind = moe_fabric_kind_names[spec->fabric.kind];
    if (moe_spec_nics_per_host(spec) == 1 && spec->devices_per_host > 1)
        moe_diag_error(
            check->diag, where_of(check, &spec->fabric.kind),
            "fabric.kind %s has a rail per NIC of a host, but the %lld devices of a host "
            "share one; expected nic.sharing per_device or nic.per_host_count above 1",
            kind, (long long)spec->devices_per_host);
    else if (spec->fabric.kind == MOE_FABRIC_RAIL_ONLY && spec->intra.kind == MOE_INTRA_PCIE)
        moe_diag_error(check->diag, where_of(check, &spec->fabric.kind),
                       "fabric.kind rail_only leaves only NVLink between rails, but intra.kind is "
                       "pcie");
    else if (spec->fabric.kind == MOE_FABRIC_RAIL_ONLY && spec->devices_per_host > 1 &&
             spec->fabric.path == MOE_PATH_DIRECT)
        moe_diag_error(
            check->diag, where_of(check, &spec->fabric.path),
            "fabric.path direct has no way between the rails of a rail_only fabric, which "
            "has no spine to join them; expected pxn or rail_then_nvlink");
}

moe_status moe_cluster_check(const moe_cluster_spec *spec, const moe_config *config, moe_diag *diag)
{
    const check_context check = {spec, config, diag};
    int errors = moe_diag_error_count(diag);
    if (!check_size(&check))
        return MOE_BAD_INPUT;
    check_rates(&check);
    check_intra(&check);
    check_nics(&check);
    check_leaves(&check);
    check_pods(&check);
    check_path_rule(&check);
    if (moe_spec_has_rails(spec) && moe_spec_has_network(spec))
        check_rails(&check);
    return moe_diag_error_count(diag) > errors ? MOE_BAD_INPUT : MOE_OK;
}
