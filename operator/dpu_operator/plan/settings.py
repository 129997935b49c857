"""The DPU's own ovnkube.conf, from the tenant's and from what the tenant keeps elsewhere.

The tenant's settings are spread over its ovnkube.conf, its Network object, and the arguments in its start scripts,
differently in each release. Here they all become keys of one file: ovnkube only warns about a key that it does not
know, while an argument that it does not know ends it. So a key may be written for releases that do not have it yet.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from dpu_operator.plan import conf
from dpu_operator.plan.objects import dig, map_at, text_at
from dpu_operator.plan.topology import Topology, minor_of
from dpu_operator.world import Obj
from dpu_shared.errors import UserError

MASQUERADE_ANNOTATION = "networkoperator.openshift.io/default-masquerade-network-cidrs"
"""On the tenant's DaemonSets from 4.17: the default of the cluster, kept there even when an override is set."""
DEFAULT_BRIDGE = "br-ex"
DEFAULT_ENCAP_PORT = "6081"
HEALTHZ = "0.0.0.0:10256"
"""Where ovnkube answers when it is ready; the probes of the DaemonSet ask this port."""

Sections = dict[str, dict[str, str]]

_OMITTED = {
    # CNO writes it into every ovnkube.conf. It listens on the management IP, which lives on the host's VF.
    ("ovnkubernetesfeature", "egressip-node-healthcheck-port"): (
        "egressip-node-healthcheck-port: it would listen on the management address, which the host has and the DPU has not"
    ),
    # v1.3.0 and later refuse the word that CNO's newest releases write for the default.
    ("default", "transport"): "transport=geneve: ovnkube knows this default only as an empty value",
}


@dataclass(frozen=True, slots=True)
class DpuSettings:
    """What the pods on the DPUs are told; none of it differs between DPUs.

    `flags` are arguments for which there is no key. `env` are variables of the start scripts. `omitted` says what of
    the tenant's settings a DPU can't take, and why.
    """

    conf: str
    flags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    omitted: tuple[str, ...] = ()


def dpu_conf(
    conf_text: str,
    *,
    topology: Topology,
    version: str,
    operator_network: Obj | None,
    daemonset_annotations: Mapping[str, str],
    bridge: str = DEFAULT_BRIDGE,
    node_env: Mapping[str, str] | None = None,
) -> DpuSettings:
    """Derive the DPUs' settings.

    Args:
        conf_text: the tenant's ovnkube.conf.
        topology: the tenant's.
        version: the release of the tenant's OVN-Kubernetes, such as 4.20.3.
        operator_network: the tenant's Network.operator.openshift.io/cluster.
        daemonset_annotations: of the tenant's ovnkube-node.
        bridge: the DPU's external bridge.
        node_env: the plain environment of ovnkube's container in the tenant's `ovnkube-node-dpu-host`.

    Raises:
        UserError: a setting of the tenant can't be read; ovnkube could not read it either.

    """
    lines = conf.parse(conf_text)
    tenant = conf.values(lines)
    minor = minor_of(version) or (0, 0)
    options = map_at(operator_network, "spec", "defaultNetwork", "ovnKubernetesConfig")
    env = node_env or {}
    kept = [line for line in lines if not _is_omitted(line)]
    dropped = {(line.section, line.key) for line in lines if _is_omitted(line)}
    omitted = [why for key, why in _OMITTED.items() if key in dropped]
    if any(line.section == "hybridoverlay" for line in lines):
        omitted.append("[hybridoverlay]: ovnkube refuses it in DPU mode")
    added: Sections = {
        "default": {"inactivity-probe": env.get("OVN_CONTROLLER_INACTIVITY_PROBE") or "180000"},
        "kubernetes": {"healthz-bind-address": HEALTHZ},
        "ovnkubernetesfeature": _features(topology, minor, operator_network, tenant),
        "gateway": _gateway(topology, minor, options, daemonset_annotations) | {"interface": bridge},
        "clustermanager": _transit(topology, options),
        "logging": {},
        "metrics": _METRICS,
        "monitoring": _exporters(env),
        "ipfix": _ipfix(env),
        "ovnkubenode": {"mode": "dpu"} | _lease(minor, env),
    }
    if topology is Topology.INTERCONNECT:
        # In the script library of CNO as constants (bindata/network/ovn-kubernetes/common/008-script-lib.yaml).
        added["kubernetes"]["ovn-empty-lb-events"] = "true"
        added["logging"]["acl-logging-rate-limit"] = _number(options, "policyAuditConfig", "rateLimit", default=20)
    return DpuSettings(
        conf=conf.render(kept, added),
        # Multicast is the one cluster-wide setting of CNO's script that ovnkube has no key for.
        flags=("--enable-multicast",) if topology is Topology.INTERCONNECT else (),
        env=_script_env(minor, options, tenant),
        omitted=tuple(omitted),
    )


_METRICS = {
    "bind-address": "127.0.0.1:29103",
    "ovn-metrics-bind-address": "127.0.0.1:29105",
    "export-ovs-metrics": "true",
    "enable-pprof": "true",
    "enable-config-duration": "true",
}


def _is_omitted(line: conf.Line) -> bool:
    if line.section == "hybridoverlay":
        return True
    if (line.section, line.key) == ("default", "transport"):
        return line.value.lower() == "geneve"
    return (line.section, line.key) in _OMITTED


def _features(
    topology: Topology, minor: tuple[int, int], network: Obj | None, tenant: dict[conf.Key, str]
) -> dict[str, str]:
    """Features that the release switches on by arguments instead of in its ovnkube.conf."""
    on: list[str] = []
    options = map_at(network, "spec", "defaultNetwork", "ovnKubernetesConfig")
    segmented = tenant.get(("ovnkubernetesfeature", "enable-network-segmentation")) == "true"
    if topology is not Topology.CENTRAL:
        on.append("enable-interconnect")
        if segmented or dig(network, "spec", "disableMultiNetwork") is not True:
            on.append("enable-multi-network")
        on.append("enable-multi-external-gateway")
    if minor in ((4, 20), (4, 21)):
        # Moved from the conf to the script by CNO's c17dba59f, and back in 4.22 by dfa126204 and 35ff34816.
        on += ["enable-admin-network-policy", "enable-egress-ip", "enable-egress-firewall"]
        on += ["enable-egress-qos", "enable-egress-service"]
    if minor == (4, 21):
        on.append("enable-preconfigured-udn-addresses")
    if text_at(options, "routeAdvertisements") == "Enabled":
        on.append("enable-route-advertisements")
    features = {key: "true" for key in on if tenant.get(("ovnkubernetesfeature", key)) is None}
    timeout = dig(options, "egressIPConfig", "reachabilityTotalTimeoutSeconds")
    if isinstance(timeout, int) and minor >= (4, 23):  # in the conf before
        features["egressip-reachability-total-timeout"] = str(timeout)
    return features


def _gateway(
    topology: Topology, minor: tuple[int, int], options: Obj, annotations: Mapping[str, str]
) -> dict[str, str]:
    gateway = {"disable-snat-multiple-gws": "true"}
    if topology is not Topology.CENTRAL and text_at(options, "gatewayConfig", "ipForwarding") != "Global":
        # CNO also writes net.ipv4.ip_forward=0 there, from 4.16 on: on a DPU that would stop the forwarding of
        # everything else, so we do not.
        gateway["disable-forwarding"] = "true"
    defaults = _masquerade_defaults(annotations) if minor >= (4, 17) else {}
    for family in (4, 6):
        # internalJoinSubnet is the newer name and wins. Up to 4.13 both stand in the conf already.
        join = _subnet(options, family, f"ipv{family}", "internalJoinSubnet") or _subnet(
            options, family, f"v{family}InternalSubnet"
        )
        masquerade = _subnet(options, family, "gatewayConfig", f"ipv{family}", "internalMasqueradeSubnet")
        masquerade = masquerade or defaults.get(family, "")
        gateway |= {f"v{family}-join-subnet": join} if join else {}
        gateway |= {f"v{family}-masquerade-subnet": masquerade} if masquerade and minor >= (4, 17) else {}
    return gateway


def _transit(topology: Topology, options: Obj) -> dict[str, str]:
    """The transit subnets under both names: the key was renamed with 4.21."""
    if topology is Topology.CENTRAL:
        return {}
    found: dict[str, str] = {}
    for family in (4, 6):
        subnet = _subnet(options, family, f"ipv{family}", "internalTransitSwitchSubnet")
        if subnet:
            found |= {f"v{family}-transit-switch-subnet": subnet, f"v{family}-transit-subnet": subnet}
    return found


def _masquerade_defaults(annotations: Mapping[str, str]) -> dict[int, str]:
    value = annotations.get(MASQUERADE_ANNOTATION)
    found: dict[int, str] = {}
    for part in value.split(",") if isinstance(value, str) else ():
        subnet = part.strip()
        if subnet:
            found[_family(subnet, MASQUERADE_ANNOTATION)] = subnet
    return found


def _family(subnet: str, where: str) -> int:
    try:
        return ipaddress.ip_network(subnet, strict=False).version
    except ValueError:
        raise UserError(
            f"The tenant's {where} is not a subnet ({subnet[:60]!r}).",
            "Correct the tenant's Network.operator.openshift.io/cluster.",
        ) from None


def _subnet(options: Obj, family: int, *path: str) -> str:
    value = dig(options, *path)
    if value is None or value == "":
        return ""
    where = ".".join(path)
    if _family(str(value), where) != family:
        raise UserError(
            f"The tenant's {where} is not an IPv{family} subnet ({value}).",
            "Correct the tenant's Network.operator.openshift.io/cluster.",
        )
    return str(value)


def _number(options: Obj, *path: str, default: int) -> str:
    value = dig(options, *path)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else str(default)


def _exporters(env: Mapping[str, str]) -> dict[str, str]:
    """Flow exporters: CNO hands them to ovnkube's container as NETFLOW_COLLECTORS and so on."""
    return {
        f"{kind}-targets": env[f"{kind.upper()}_COLLECTORS"]
        for kind in ("netflow", "sflow", "ipfix")
        if env.get(f"{kind.upper()}_COLLECTORS")
    }


def _ipfix(env: Mapping[str, str]) -> dict[str, str]:
    names = {
        "IPFIX_CACHE_MAX_FLOWS": "cache-max-flows",
        "IPFIX_CACHE_ACTIVE_TIMEOUT": "cache-active-timeout",
        "IPFIX_SAMPLING": "sampling",
    }
    return {key: env[name] for name, key in names.items() if env.get(name, "").isdigit()}


def _lease(minor: tuple[int, int], env: Mapping[str, str]) -> dict[str, str]:
    """The health lease (from 4.23 on): the host creates and watches it, so both sides need the same times, in seconds."""
    names = {
        "OVNKUBE_NODE_LEASE_RENEW_INTERVAL": "dpu-node-lease-renew-interval",
        "OVNKUBE_NODE_LEASE_DURATION": "dpu-node-lease-duration",
    }
    if minor < (4, 23):
        return {}
    return {key: env[name] for name, key in names.items() if env.get(name, "").isdigit()}


def _script_env(minor: tuple[int, int], options: Obj, tenant: dict[conf.Key, str]) -> dict[str, str]:
    port = tenant.get(("default", "encap-port"), DEFAULT_ENCAP_PORT)
    if not (port.isdigit() and 0 < int(port) < 65536):
        raise UserError(
            f"The tenant's encap-port is not a port ({port[:20]!r}).",
            "Correct genevePort in the tenant's Network.operator.openshift.io/cluster.",
        )
    audit = map_at(options, "policyAuditConfig")
    return {
        "ENCAP_PORT": port,
        # CNO keeps geneve out of connection tracking by iptables up to 4.22, by nftables from then on.
        "NOTRACK_TOOL": "nft" if minor >= (4, 23) else "iptables",
        "ACL_LOG_DESTINATION": text_at(audit, "destination") or "null",
        "ACL_LOG_FACILITY": text_at(audit, "syslogFacility") or "local0",
        "ACL_LOG_MAX_MB": _number(audit, "maxFileSize", default=50),
        "ACL_LOG_MAX_FILES": _number(audit, "maxLogFiles", default=5),
    }
