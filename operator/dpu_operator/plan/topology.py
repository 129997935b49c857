"""What kind of OVN-Kubernetes the tenant runs, and whether a DPU can join it.

The rules are those by which the cluster-network-operator itself tells the kinds apart (its
pkg/network/ovn_kubernetes.go of release 4.14). They look at DaemonSet `ovnkube-node`, never at
`ovnkube-node-dpu-host`: from 4.20 that one has no databases and would look like a single zone.
"""

import enum
import ipaddress
import re
from dataclasses import dataclass

from dpu_operator.plan import conf
from dpu_operator.plan.objects import Problem, dig, list_at, map_at, text_at
from dpu_operator.world import Obj, Sight, TenantKey, TenantWorld
from dpu_shared.errors import UserError

VERSION_ANNOTATION = "release.openshift.io/version"
HYBRID_OVERLAY_ANNOTATION = "networkoperator.openshift.io/hybrid-overlay-status"

Minor = tuple[int, int]


class Topology(enum.Enum):
    """Where the OVN databases of the tenant live."""

    CENTRAL = "central"
    """On the masters, for all nodes (OCP 4.10 to 4.13)."""
    SINGLE_ZONE = "single-zone"
    """Interconnect with one zone: databases on the masters still (the first phase of the upgrade to 4.14)."""
    INTERCONNECT = "interconnect"
    """A zone and its databases on each node (OCP 4.14 on)."""


@dataclass(frozen=True, slots=True)
class Supported:
    """One row of the support matrix: the first and the last minor release that can work (None: no end known)."""

    topology: Topology
    first: Minor
    last: Minor | None


SUPPORT = (
    Supported(Topology.CENTRAL, (4, 10), (4, 13)),
    Supported(Topology.SINGLE_ZONE, (4, 14), (4, 14)),
    # 4.14 to 4.19: remote nodes send to the tenant node's IP instead of the DPU's encap IP, and the tenant's own
    # dpu-host DaemonSet is invalid (fixed in 4.20: MGMT-20706, MGMT-21314, ovn-kubernetes v1.1.0).
    Supported(Topology.INTERCONNECT, (4, 20), None),
)
"""The one table of what can work at all."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found. `settled` is false while the answer is not known; then `topology` is the last known one."""

    topology: Topology | None
    version: str
    supported: bool
    reason: str
    message: str
    settled: bool = True

    @property
    def minor(self) -> Minor | None:
        return minor_of(self.version)


def minor_of(version: str) -> Minor | None:
    """(4, 20) of `4.20.3`, `4.20.0-rc.1` or `4.20.0-0.nightly-…`; None where it can't be read."""
    found = re.match(r"(\d{1,3})\.(\d{1,3})(?:\.|-|\+|$)", version)
    return (int(found[1]), int(found[2])) if found else None


def detect(tenant: TenantWorld, *, last_known: str = "") -> Detection:
    """The tenant's topology and release, and whether a DPU can join.

    Args:
        tenant: the tenant as last seen.
        last_known: the value of the Topology that was found before (of the status), kept while nothing can be read.

    """
    kept = next((t for t in Topology if t.value == last_known), None)
    unread = _unread(tenant)
    if unread is not None:
        return Detection(kept, "", supported=False, reason=unread.reason, message=unread.message, settled=False)
    network = tenant.object(TenantKey.OPERATOR_NETWORK) or {}
    plugin = text_at(network, "spec", "defaultNetwork", "type")
    if plugin and plugin != "OVNKubernetes":
        return _refused(
            None,
            "",
            "UnsupportedNetworkPlugin",
            f"The tenant's network plugin is {plugin}, and a DPU can only join OVNKubernetes. "
            "Move the tenant to OVNKubernetes, or delete this OVNKubeConfig.",
        )
    topology, missing = _topology(tenant)
    if topology is None:
        return Detection(kept, "", supported=False, reason=missing.reason, message=missing.message, settled=False)
    version = _version(tenant)
    refusal = _release_refusal(topology, version) or _network_refusal(network) or _overlay_refusal(tenant, network)
    if refusal is not None:
        return _refused(topology, version, refusal.reason, refusal.message)
    return Detection(
        topology,
        version,
        supported=True,
        reason="Supported",
        message=f"The tenant runs OVN-Kubernetes of release {version} with topology {topology.value}.",
    )


def _refused(topology: Topology | None, version: str, reason: str, message: str) -> Detection:
    return Detection(topology, version, supported=False, reason=reason, message=message)


def sight_problem(key: TenantKey, sight: Sight) -> Problem | None:
    """Why nothing can be said about this tenant object, or None where it is known to be there or not to be there."""
    what = f"{key.kind.kind} {key.object_name}"
    match sight:
        case Sight.PRESENT | Sight.ABSENT:
            return None
        case Sight.FORBIDDEN:
            return Problem(
                "TenantAccessDenied",
                f"The tenant's API server does not allow us to read {what}. "
                f"Grant get, list and watch on {key.kind.plural} named {key.object_name} to the account of the kubeconfig.",
            )
        case Sight.UNSERVED:
            return Problem(
                "TenantResourceUnserved",
                f"The tenant's API server does not serve {key.kind.plural} of {key.kind.api_version}. "
                "Check that the kubeconfig points to an OpenShift cluster.",
            )
        case Sight.UNSEEN:
            return Problem(
                "TenantNotRead",
                f"{what} of the tenant has not been read yet. Wait for the tenant's API server to answer.",
            )


def _unread(tenant: TenantWorld) -> Problem | None:
    for key in (TenantKey.OPERATOR_NETWORK, TenantKey.NODE_DAEMON_SET):
        problem = sight_problem(key, tenant.seen(key).sight)
        if problem is not None:
            return problem
    # It is only preferred over ovnkube-node for the version, so a refusal to show it is no obstacle; not having looked
    # yet is one: the version would change under our hands a moment later.
    if tenant.seen(TenantKey.DPU_HOST_DAEMON_SET).sight is Sight.UNSEEN:
        return sight_problem(TenantKey.DPU_HOST_DAEMON_SET, Sight.UNSEEN)
    return None


_NOT_FOUND = Problem(
    "OVNKubernetesNotFound",
    "The tenant has no OVN-Kubernetes that we know: there is no DaemonSet ovnkube-node with databases, and no "
    "DaemonSet ovnkube-master with Service ovnkube-db. Wait for its network operator, or check spec.tenantNamespace.",
)


def _topology(tenant: TenantWorld) -> tuple[Topology | None, Problem]:
    node = tenant.object(TenantKey.NODE_DAEMON_SET)
    if node is None:
        return None, _NOT_FOUND
    containers = [c for c in list_at(node, "spec", "template", "spec", "containers") if isinstance(c, dict)]
    # During 4.13 -> 4.14 ovnkube-master is still there beside this: the databases on the node win.
    if any(c.get("name") == "nbdb" for c in containers):
        return Topology.INTERCONNECT, _NOT_FOUND
    if any(_is_interconnect(c) for c in containers if c.get("name") in ("ovnkube-node", "ovnkube-controller")):
        return Topology.SINGLE_ZONE, _NOT_FOUND
    for key in (TenantKey.MASTER_DAEMON_SET, TenantKey.DB_SERVICE):
        seen = tenant.seen(key)
        problem = sight_problem(key, seen.sight)
        if problem is not None:
            return None, problem
        if seen.sight is Sight.ABSENT:
            return None, _NOT_FOUND
    return Topology.CENTRAL, _NOT_FOUND


def _is_interconnect(container: Obj) -> bool:
    words = [w for w in (*list_at(container, "command"), *list_at(container, "args")) if isinstance(w, str)]
    return any("--enable-interconnect" in w or "ovnkube-lib.sh" in w for w in words)


def _version(tenant: TenantWorld) -> str:
    """The release of the DaemonSet that runs on our peers: the hosts of the DPUs first, then any node, then the goal."""
    for key in (TenantKey.DPU_HOST_DAEMON_SET, TenantKey.NODE_DAEMON_SET):
        version = text_at(tenant.object(key), "metadata", "annotations", VERSION_ANNOTATION)
        if version:
            return version
    return text_at(tenant.object(TenantKey.CLUSTER_VERSION), "status", "desired", "version")


def _release_refusal(topology: Topology, version: str) -> Problem | None:
    minor = minor_of(version)
    if minor is None:
        return Problem(
            "VersionUnreadable",
            f"The release of the tenant's OVN-Kubernetes can't be read ({version[:60]!r}). "
            f"Check the annotation {VERSION_ANNOTATION} of its DaemonSet ovnkube-node.",
        )
    rows = [row for row in SUPPORT if row.topology is topology]
    if any(row.first <= minor and (row.last is None or minor <= row.last) for row in rows):
        return None
    return Problem(
        "UnsupportedRelease",
        f"A DPU can't join OVN-Kubernetes of release {version} with topology {topology.value}. "
        f"Supported are {support_sentence()}: upgrade the tenant.",
    )


def support_sentence() -> str:
    """The support matrix in words."""
    return ", ".join(f"{row.topology.value} {_range(row)}" for row in SUPPORT)


def _range(row: Supported) -> str:
    first = f"{row.first[0]}.{row.first[1]}"
    if row.last is None:
        return f"{first} and later"
    return first if row.first == row.last else f"{first} to {row.last[0]}.{row.last[1]}"


def _network_refusal(network: Obj) -> Problem | None:
    spec = map_at(network, "spec")
    cidrs = [dig(entry, "cidr") for entry in list_at(spec, "clusterNetwork")] + list_at(spec, "serviceNetwork")
    for cidr in cidrs:
        try:
            family = ipaddress.ip_network(cidr, strict=False).version if isinstance(cidr, str) else 0
        except ValueError:
            family = 0
        if family == 0:
            return Problem(
                "NetworkUnreadable",
                f"The tenant's Network.operator.openshift.io names a network that can't be read ({str(cidr)[:60]!r}). "
                "Check its spec.clusterNetwork and spec.serviceNetwork.",
            )
        if family == 6:
            return Problem(
                "UnsupportedIPFamily",
                f"The tenant uses IPv6 ({cidr}), which ovnkube does not support on a DPU. "
                "Use a tenant with IPv4 cluster and service networks only.",
            )
    return None


def _overlay_refusal(tenant: TenantWorld, network: Obj) -> Problem | None:
    node = tenant.object(TenantKey.NODE_DAEMON_SET)
    status = text_at(node, "metadata", "annotations", HYBRID_OVERLAY_ANNOTATION)
    config = dig(network, "spec", "defaultNetwork", "ovnKubernetesConfig", "hybridOverlayConfig")
    text = text_at(tenant.object(TenantKey.OVNKUBE_CONFIG), "data", "ovnkube.conf")
    if status == "enabled" or config is not None or _overlay_in(text):
        return Problem(
            "UnsupportedHybridOverlay",
            "The tenant has hybrid overlay networking on, which ovnkube refuses on a DPU. "
            "Remove hybridOverlayConfig from the tenant's Network.operator.openshift.io, or use another tenant.",
        )
    return None


def _overlay_in(text: str) -> bool:
    try:
        return conf.values(conf.parse(text)).get(("hybridoverlay", "enabled"), "").lower() in ("true", "yes", "on", "1")
    except UserError:  # settings.dpu_conf says what is wrong with it
        return False
