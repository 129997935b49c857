"""DaemonSet `ovnkube-node` of the DPUs and what its pods mount, for each topology.

The manifests have the shape (table 5.1 of the project's notes: the containers and mounts of the cluster-network-operator
without what serves a CNI plugin, which a DPU does not have); here they get what differs between tenants.
"""

from collections.abc import Mapping
from typing import Any

from dpu_operator.plan.image import DAEMON_SET_NAME, ImageChoice
from dpu_operator.plan.objects import dig, list_at, manifest, map_at, meta, name_of, scripts, stamp, text_at
from dpu_operator.plan.rbac import SERVICE_ACCOUNT_NAME
from dpu_operator.plan.settings import DpuSettings
from dpu_operator.plan.topology import VERSION_ANNOTATION, Topology
from dpu_operator.world import InfraWorld, Obj, TenantWorld
from dpu_shared.errors import UserError

DPU_CONF = "ovnkube-config-dpu"
"""ConfigMap with the DPUs' own ovnkube.conf."""
SCRIPTS = "ovnkube-node-scripts"
HASH_PREFIX = "dpu.openshift.io/hash-"
"""On the pod template, one annotation for each input: a change rolls the pods."""
NB_PORT, SB_PORT = 9641, 9642
"""Of the databases on the masters (CNO bindata/network/ovn-kubernetes/self-hosted/ovnkube-master.yaml)."""

_MANIFESTS = {
    Topology.INTERCONNECT: "ovnkube-node-interconnect",
    Topology.CENTRAL: "ovnkube-node-central",
    Topology.SINGLE_ZONE: "ovnkube-node-central",
}
_OPERATORS_WITH_VALUES = ("In", "NotIn")
_OPERATORS = (*_OPERATORS_WITH_VALUES, "Exists", "DoesNotExist")


def dpu_conf_map(infra: InfraWorld, settings: DpuSettings) -> Obj:
    """ConfigMap with the DPUs' own ovnkube.conf."""
    return stamp(_config_map(infra, DPU_CONF, {"ovnkube.conf": settings.conf}))


def scripts_map(infra: InfraWorld) -> Obj:
    """ConfigMap with the start scripts and probes."""
    return stamp(_config_map(infra, SCRIPTS, scripts()))


def _config_map(infra: InfraWorld, name: str, data: dict[str, str]) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(infra, name), "data": data}


def daemon_set(
    infra: InfraWorld,
    *,
    topology: Topology,
    image: ImageChoice,
    pool_selector: Obj,
    settings: DpuSettings,
    hashes: Mapping[str, str],
    db_addresses: tuple[str, ...] = (),
) -> Obj:
    """The DaemonSet.

    Args:
        infra: whose namespace and secret names are used.
        topology: the tenant's.
        image: what to run; it must be one.
        pool_selector: `spec.nodeSelector` of the pool.
        settings: the DPUs' settings.
        hashes: of each input whose change must roll the pods, by a short name.
        db_addresses: IPs of the tenant's masters (central and single-zone).

    Raises:
        UserError: the pool's nodeSelector can't be used.

    """
    result = manifest(_MANIFESTS[topology])
    result["metadata"] = meta(infra, DAEMON_SET_NAME)
    if image.version:
        result["metadata"]["annotations"][VERSION_ANNOTATION] = image.version
    template = result["spec"]["template"]
    template["metadata"]["annotations"] |= {HASH_PREFIX + name: value for name, value in sorted(hashes.items())}
    pod = template["spec"]
    pod["affinity"] = {"nodeAffinity": node_affinity(pool_selector)}
    pod["serviceAccountName"] = SERVICE_ACCOUNT_NAME
    arguments = list(_arguments(topology, settings, db_addresses))
    variables = {**settings.env, "DPU_OWNER": infra.owner, "OVN_TOPOLOGY": topology.value}
    for container in (*pod["initContainers"], *pod["containers"]):
        container["image"] = image.image
        _fill_env(container, variables)
        if container["name"] in ("ovnkube-controller", "ovnkube-node") and arguments:
            container["args"] = arguments
    secret = infra.spec.get("nodeKubeConfigFile") or infra.spec["kubeConfigFile"]
    _volume(pod, "tenant-kubeconfig")["secret"]["secretName"] = secret
    return stamp(result)


def _fill_env(container: Obj, variables: Mapping[str, str]) -> None:
    """Set those variables that the manifest names without a value."""
    for variable in container.get("env", []):
        if "value" not in variable and "valueFrom" not in variable:
            variable["value"] = variables[variable["name"]]


def _volume(pod: Obj, name: str) -> Any:
    return next(volume for volume in pod["volumes"] if volume["name"] == name)


def _arguments(topology: Topology, settings: DpuSettings, addresses: tuple[str, ...]) -> tuple[str, ...]:
    if topology is Topology.INTERCONNECT:
        return settings.flags
    return (
        *settings.flags,
        *_database_flags("nb", NB_PORT, addresses),
        *_database_flags("sb", SB_PORT, addresses),
    )


def _database_flags(database: str, port: int, addresses: tuple[str, ...]) -> tuple[str, ...]:
    return (
        f"--{database}-address=" + ",".join(f"ssl:{address}:{port}" for address in addresses),
        f"--{database}-client-privkey=/ovn-cert/tls.key",
        f"--{database}-client-cert=/ovn-cert/tls.crt",
        f"--{database}-client-cacert=/ovn-ca/ca-bundle.crt",
        # The common name that CNO gives to ovn-cert, which the servers on the masters show too.
        f"--{database}-cert-common-name=ovn",
    )


def db_addresses(tenant: TenantWorld) -> tuple[str, ...]:
    """The databases' addresses of central OVN: the masters' InternalIPs, oldest node first, as CNO lists them."""
    masters = [
        node
        for node in tenant.nodes
        if any(
            f"node-role.kubernetes.io/{role}" in map_at(node, "metadata", "labels")
            for role in ("master", "control-plane")
        )
    ]
    masters.sort(key=lambda node: (text_at(node, "metadata", "creationTimestamp"), name_of(node)))
    return tuple(address for node in masters if (address := _internal_ip(node)))


def _internal_ip(node: Obj) -> str:
    for address in list_at(node, "status", "addresses"):
        if dig(address, "type") == "InternalIP":
            return text_at(address, "address")
    return ""


def node_affinity(selector: Obj) -> Obj:
    """A required node affinity for the nodes that a LabelSelector selects.

    Raises:
        UserError: it selects every node, or has an operator that does not exist.

    """
    expressions: list[Obj] = [
        {"key": key, "operator": "In", "values": [value]}
        for key, value in sorted(map_at(selector, "matchLabels").items())
    ]
    for entry in list_at(selector, "matchExpressions"):
        key, operator = text_at(entry, "key"), text_at(entry, "operator")
        if not key or operator not in _OPERATORS:
            raise UserError(
                f"The pool's nodeSelector has an expression that can't be used ({key[:60]} {operator[:20]}).",
                f"Use one of the operators {', '.join(_OPERATORS)} in the MachineConfigPool.",
            )
        values = {"values": list_at(entry, "values")} if operator in _OPERATORS_WITH_VALUES else {}
        expressions.append({"key": key, "operator": operator, **values})
    if not expressions:
        raise UserError(
            "The pool's nodeSelector is empty, so it does not tell the DPUs from other nodes.",
            "Give the MachineConfigPool a spec.nodeSelector, such as matchLabels node-role.kubernetes.io/dpu.",
        )
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    }
