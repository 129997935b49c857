"""Which tenant node's host each DPU sits in."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from dpu_operator.plan.objects import dig, list_at, map_at, name_of, text_at
from dpu_operator.world import TENANT_NODE_ANNOTATION, Obj, Seen, Sight, TenantKey, TenantWorld

ENV_OVERRIDES = "env-overrides"
TENANT_NODE_VARIABLE = "TENANT_K8S_NODE"
DPU_HOST_LABEL = "network.operator.openshift.io/dpu-host"

_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_VARIABLE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*?)\s*")


@dataclass(frozen=True, slots=True)
class MappedNode:
    """The tenant node of one DPU, and where that was said: `annotation` or `env-overrides`."""

    tenant_node: str
    source: str


@dataclass(frozen=True, slots=True)
class NodeMapping:
    """The DPUs by node name: those that have a tenant node, and why others have none (or share theirs: two sentences).

    `unknown` is a sentence while the tenant's nodes can't be read; then `entries` hold what is said, unchecked.
    """

    entries: Mapping[str, MappedNode] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    unknown: str = ""


def map_nodes(
    dpus: tuple[Obj, ...],
    *,
    tenant: TenantWorld,
    env_overrides: Seen,
    current: Mapping[str, str] | None = None,
) -> NodeMapping:
    """Map every DPU of the pool.

    Args:
        dpus: the pool's Nodes.
        tenant: the tenant as last seen.
        env_overrides: ConfigMap env-overrides of the resource's namespace: key = DPU node name.
        current: what the DPUs were last told (`nodevars.tenant_nodes`): where two claim one tenant node, the one that
            has it keeps it, and the newcomer waits.

    """
    claims: dict[str, MappedNode] = {}
    problems: dict[str, str] = {}
    for dpu in sorted(dpus, key=name_of):
        claim = _claim(dpu, env_overrides)
        if isinstance(claim, str):
            problems[name_of(dpu)] = claim
        else:
            claims[name_of(dpu)] = claim
    unknown = _unknown(tenant.nodes_sight)
    if not unknown:
        nodes = {name_of(node): node for node in tenant.nodes}
        host_label = dpu_host_label(tenant)
        for name, claim in claims.items():
            wrong = _wrong_node(claim.tenant_node, nodes, host_label)
            if wrong:
                problems[name] = wrong
    valid = {name: claim for name, claim in claims.items() if name not in problems}
    shared = _shared(valid, current or {})
    problems |= shared
    entries = {name: claim for name, claim in valid.items() if name not in shared}
    return NodeMapping(entries, dict(sorted(problems.items())), unknown)


def override_variables(overrides: Obj | None, dpu: str) -> dict[str, str]:
    """What env-overrides sets for a DPU: lines NAME=VALUE, with or without quotes and `export`."""
    text = map_at(overrides, "data").get(dpu)
    found: dict[str, str] = {}
    for line in text.split("\n") if isinstance(text, str) else ():
        match = _VARIABLE.fullmatch(line)
        if match:
            value = match[2]
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[match[1]] = value[1:-1] if quoted else value
    return found


def dpu_host_label(tenant: TenantWorld) -> Obj:
    """The affinity expression by which the tenant picks the hosts of DPUs.

    The label can be another one (ConfigMap openshift-network-operator/hardware-offload-config), so it is taken from
    DaemonSet ovnkube-node-dpu-host where that can be read: its first expression that asks for a label.
    """
    terms = list_at(
        dig(tenant.object(TenantKey.DPU_HOST_DAEMON_SET), "spec", "template", "spec", "affinity", "nodeAffinity"),
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    )
    for term in terms:
        for expression in list_at(term, "matchExpressions"):
            if text_at(expression, "operator") in ("Exists", "In") and text_at(expression, "key"):
                found: Obj = expression
                return found
    return {"key": DPU_HOST_LABEL, "operator": "Exists"}


def _claim(dpu: Obj, env_overrides: Seen) -> MappedNode | str:
    name = name_of(dpu)
    wanted = text_at(dpu, "metadata", "annotations", TENANT_NODE_ANNOTATION).strip()
    source = "annotation"
    if not wanted:
        wanted = override_variables(env_overrides.object, name).get(TENANT_NODE_VARIABLE, "")
        source = ENV_OVERRIDES
    if not wanted:
        return (
            f"{name} has no tenant node. Annotate the Node with {TENANT_NODE_ANNOTATION}=<name of the host's node>, "
            f"or set {TENANT_NODE_VARIABLE} under the key {name} of ConfigMap {ENV_OVERRIDES}."
        )
    if not _NODE_NAME.fullmatch(wanted):
        return (
            f"The tenant node that {source} gives for {name} can't be a node's name ({wanted[:60]!r}). "
            "Write the name as `kubectl get nodes` in the tenant shows it."
        )
    return MappedNode(wanted, source)


def _unknown(sight: Sight) -> str:
    match sight:
        case Sight.PRESENT | Sight.ABSENT:
            return ""
        case Sight.FORBIDDEN:
            return (
                "The tenant's API server does not allow us to list its nodes. "
                "Grant get, list and watch on nodes to the account of the kubeconfig."
            )
        case _:
            return "The tenant's nodes have not been read yet. Wait for the tenant's API server to answer."


def _wrong_node(wanted: str, nodes: Mapping[str, Obj], host_label: Obj) -> str:
    node = nodes.get(wanted)
    if node is None:
        return f"The tenant has no node {wanted}. Correct the name, or let the host join the tenant."
    key = text_at(host_label, "key")
    labels = map_at(node, "metadata", "labels")
    if key not in labels:
        return (
            f"The tenant's node {wanted} is not labelled {key}, so the tenant runs a whole ovnkube-node there. "
            f"Label it in the tenant: kubectl label node {wanted} {key}=."
        )
    allowed = list_at(host_label, "values") if text_at(host_label, "operator") == "In" else []
    if allowed and labels[key] not in allowed:
        return (
            f"The tenant's node {wanted} has label {key} with a value that the tenant's ovnkube-node-dpu-host does not "
            f"select. Use one of: {', '.join(map(str, allowed))}."
        )
    if not allowed and labels[key] != "":
        # CNO selects the hosts by `key=` (empty value) from 4.20 on, while the DaemonSet's affinity says Exists: such a
        # node loses its ovnkube-node and gets none in its place.
        return (
            f"The tenant's node {wanted} has label {key} with a value, and its network operator looks for an empty one. "
            f"Label it anew: kubectl label --overwrite node {wanted} {key}=."
        )
    return ""


def _shared(claims: Mapping[str, MappedNode], current: Mapping[str, str]) -> dict[str, str]:
    """Why a DPU can't have a tenant node that another one claims too."""
    claimants: defaultdict[str, list[str]] = defaultdict(list)
    for name, claim in claims.items():
        claimants[claim.tenant_node].append(name)
    problems: dict[str, str] = {}
    for tenant_node, names in claimants.items():
        if len(names) == 1:
            continue
        holders = [name for name in names if current.get(name) == tenant_node]
        keeper = holders[0] if len(holders) == 1 else ""
        others = ", ".join(names[:5])
        sentence = f"More than one DPU is said to sit in the tenant's node {tenant_node}: {others}. "
        remedy = f"Correct all but one of them{f' ({keeper} keeps it meanwhile)' if keeper else ''}."
        problems |= {name: sentence + remedy for name in names if name != keeper}
    return problems
