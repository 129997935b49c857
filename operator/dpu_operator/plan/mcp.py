"""What a MachineConfigPool and its nodes say, in the machine-config-operator's own terms.

`Updated=True` of a pool proves nothing by itself: it stays true for five seconds after a MachineConfig was created, is
true with no machine at all, and is false while any node is cordoned or not ready. Source of the fields' meaning:
openshift/machine-config-operator, pkg/controller/node/status.go.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dpu_operator.plan.objects import list_at, map_at, name_of, text_at
from dpu_operator.world import InfraWorld, Obj, Sight

_MCO = "machineconfiguration.openshift.io/"
_SRIOV_STATE = "sriovnetwork.openshift.io/state"
"""sriov-network-operator pauses a pool while it drains a node itself, and first notes that here."""


def selects_something(selector: Obj | None) -> bool:
    """Whether a LabelSelector says anything."""
    return bool((selector or {}).get("matchLabels") or (selector or {}).get("matchExpressions"))


def selects(selector: Obj | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector matches. One that is missing or empty matches nothing, as in the machine-config-operator.

    (Elsewhere in Kubernetes an empty one matches everything; here that would be every node of the cluster.)
    """
    if selector is None or not selects_something(selector):
        return False
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _expression(expression, labels) for expression in selector.get("matchExpressions") or []
    )


def _expression(expression: Obj, labels: Mapping[str, str]) -> bool:
    key, values = expression.get("key", ""), expression.get("values") or []
    match expression.get("operator"):
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False


def members(pool: Obj | None, nodes: Iterable[Obj]) -> tuple[Obj, ...]:
    """The pool's nodes, sorted by name."""
    selector = map_at(pool, "spec", "nodeSelector")
    chosen = (node for node in nodes if selects(selector, map_at(node, "metadata", "labels")))
    return tuple(sorted(chosen, key=name_of))


@dataclass(frozen=True, slots=True)
class Progress:
    """How many machines a pool has, how many are done, and whom to wait for ("node a, node b and others")."""

    total: int
    done: int
    late: str = ""


def progress(infra: InfraWorld, pool: Obj) -> Progress:
    """How many machines run the pool's rendered configuration.

    The nodes' own annotations decide, for the pool's counters leave out a machine that is cordoned or not ready,
    whatever it runs. The counters serve where the nodes cannot be seen.
    """
    if infra.nodes_sight is Sight.PRESENT:
        nodes = members(pool, infra.nodes)
        return _progress(nodes, [node for node in nodes if not _runs(node, target(pool))])
    status = map_at(pool, "status")
    total = int(status.get("machineCount") or 0)
    done = int(status.get("updatedMachineCount") or 0)
    if not _counted(pool):
        done = min(done, total - 1) if total else 0
    return Progress(total, done)


def cleared(infra: InfraWorld, pool: Obj, machine_config: str) -> Progress:
    """How many machines neither run nor are going to run a configuration that was rendered from that MachineConfig.

    The pool must have stopped naming it. Machines on `status.configuration` are clean too where that does not name it:
    a pool that is paused, or slow for other reasons, is then not waited for.
    """
    clean = {target(pool)}
    if machine_config not in sources(pool, "status"):
        clean.add(text_at(pool, "status", "configuration", "name"))
    if infra.nodes_sight is not Sight.PRESENT:
        return progress(infra, pool)
    nodes = members(pool, infra.nodes)
    return _progress(nodes, [node for node in nodes if not set(_config(node)[:2]) <= clean])


def _progress(nodes: tuple[Obj, ...], late: list[Obj]) -> Progress:
    names = ", ".join(name_of(node) for node in late[:3]) + (" and others" if len(late) > 3 else "")
    return Progress(len(nodes), len(nodes) - len(late), names)


def _counted(pool: Obj) -> bool:
    """Whether the pool's counters are about its present configuration."""
    status = map_at(pool, "status")
    return (
        int(status.get("observedGeneration") or 0) >= int(pool["metadata"].get("generation") or 0)
        and text_at(status, "configuration", "name") == target(pool)
        and not status.get("degradedMachineCount")
    )


def _config(node: Obj) -> tuple[str, str, str]:
    marks = map_at(node, "metadata", "annotations")
    current, desired, state = (str(marks.get(_MCO + key) or "") for key in ("currentConfig", "desiredConfig", "state"))
    return current, desired, state


def _runs(node: Obj, configuration: str) -> bool:
    return _config(node) == (configuration, configuration, "Done")


def sick(infra: InfraWorld, pool: Obj) -> str:
    """A sentence about the first machine that cannot be updated; '' when there is none."""
    for node in members(pool, infra.nodes):
        state = _config(node)[2]
        if state in ("Degraded", "Unreconcilable"):
            reason = phrase(map_at(node, "metadata", "annotations").get(f"{_MCO}reason"))
            return f"Node {name_of(node)} is {state}: {reason}."
    degraded = condition(pool, "NodeDegraded")
    if degraded or map_at(pool, "status").get("degradedMachineCount"):
        return f"Pool {name_of(pool)} has degraded machines: {phrase((degraded or {}).get('message'))}."
    return ""


def paused(pool: Obj) -> str:
    """That the pool is paused, by whom, and what to do: the rest of a sentence, and its full stop. '' when it is not."""
    if not map_at(pool, "spec").get("paused"):
        return ""
    state = map_at(pool, "metadata", "annotations").get(_SRIOV_STATE)
    if state and state != "Idle":
        return (
            "the pool is paused by sriov-network-operator. Wait until that has drained its node and resumes the pool."
        )
    return (
        "the pool is paused. When its DPUs and their hosts may reboot, resume it: "
        f'`oc patch machineconfigpool {name_of(pool)} --type merge -p \'{{"spec":{{"paused":false}}}}\'`.'
    )


def target(pool: Obj) -> str:
    """The name of the rendered MachineConfig that the pool's machines are to run; '' before the first."""
    return text_at(pool, "spec", "configuration", "name")


def sources(pool: Obj, part: str) -> set[str]:
    """The names of the MachineConfigs that went into `spec` or `status` of the pool."""
    source = list_at(pool, part, "configuration", "source")
    return {str(reference.get("name")) for reference in source}


def condition(pool: Obj, kind: str) -> Obj | None:
    """The pool's condition of that type where it is True."""
    found: Iterator[Obj] = (
        c for c in list_at(pool, "status", "conditions") if c.get("type") == kind and c.get("status") == "True"
    )
    return next(found, None)


def phrase(text: object) -> str:
    """Somebody else's message, made fit for the middle of a sentence of ours."""
    return " ".join(str(text or "no reason given").split()).rstrip(".")[:500]
