"""The conditions that are judged from what is observed now. Pool and credential have modules of their own.

A reason is one of three: it moves by itself (MOVING), there is nothing to be done yet (IDLE), or somebody has to act.
The summary is made of that.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from dpu_operator.plan.diff import differs, is_ours
from dpu_operator.plan.objects import map_at, name_of, text_at
from dpu_operator.world import Condition, Obj, Ref, Truth
from dpu_shared import node_report
from dpu_shared.node_report import State

SYNCED, MAPPED, HOSTS, READY, ALIGNED = (
    "TenantObjectsSynced",
    "NodesMapped",
    "HostsConfigured",
    "OvnKubeReady",
    "VersionAligned",
)
MOVING = frozenset(
    {"WaitingForRender", "Updating", "NotCreated", "Outdated", "RollingOut", "Starting", "Syncing", "Progressing"}
    | {"StaleReport"}
)
IDLE = frozenset({"NoMachines", "NotReported", "WaitingForTenant"})
SLOW = frozenset({"NoPodReady", "SomePodsNotReady"})
"""Usual for a while (a pod starts, a DPU reboots), and a defect when it lasts."""
PATIENCE = dt.timedelta(minutes=10)
"""How long a SLOW reason may last: a BlueField-2 needs minutes for a reboot, and its pods for pulling an image."""
UNWELL_STATES = frozenset({State.BLOCKED, State.DEGRADED, State.REBOOT_REQUIRED})

Problem = tuple[str, str]
"""A reason, and the sentences to it."""


def tenant_objects_synced(
    copies: Sequence[Obj],
    live: Mapping[Ref, Obj],
    *,
    owner: str,
    problems: Sequence[Problem] = (),
    complete: bool = True,
    reachable: bool = True,
) -> Condition:
    """The condition TenantObjectsSynced.

    Args:
        copies: the copies that should be in the infra namespace, made from the tenant's objects as last seen.
        live: what is there.
        owner: of the OVNKubeConfig, as in its objects' annotation.
        problems: why the topology or a needed tenant object is not usable; the first is shown.
        complete: whether `live` comes from complete lists.
        reachable: whether the tenant answers, so that "as last seen" means "as it is".

    """
    if problems:
        unknown = problems[0][0] in ("TenantNotRead", "NotObservedYet")
        return Condition(SYNCED, Truth.UNKNOWN if unknown else Truth.FALSE, *problems[0])
    if not complete:
        message = "The objects of this namespace have not been listed yet. Wait a moment."
        return Condition(SYNCED, Truth.UNKNOWN, "NotObservedYet", message)
    there = {(ref.kind.kind, ref.namespace, ref.name): obj for ref, obj in live.items()}
    late: list[str] = []
    for copy in copies:
        what = f"{copy['kind']} {name_of(copy)}"
        obj = there.get((copy["kind"], text_at(copy, "metadata", "namespace"), name_of(copy)))
        if obj is not None and not is_ours(obj, owner):
            message = (
                f"{what} exists here and is not of this OVNKubeConfig, so that it is left alone. Rename or delete it."
            )
            return Condition(SYNCED, Truth.FALSE, "ForeignObject", message)
        if obj is None or differs(copy, obj):
            late.append(what)
    if late:
        message = f"{', '.join(late)} not yet as in the tenant. {'It is' if len(late) == 1 else 'They are'} about to be written."
        return Condition(SYNCED, Truth.FALSE, "Syncing", message)
    if not reachable:
        message = (
            f"All {len(copies)} copies are as the tenant's objects were when it last answered. "
            "See TenantClusterApiServerUnreachable."
        )
        return Condition(SYNCED, Truth.UNKNOWN, "TenantNotAnswering", message)
    return Condition(SYNCED, Truth.TRUE, "Synced", f"All {len(copies)} copies are equal to the tenant's objects.")


def ovnkube_ready(
    live: Obj | None,
    desired: Obj | None,
    *,
    owner: str,
    foreign: Sequence[Ref] = (),
    problem: Problem | None = None,
    complete: bool = True,
) -> Condition:
    """The condition OvnKubeReady: every pod runs the present revision and is ready; never true without any pod.

    Args:
        live: the DaemonSet of that name in the infra namespace, whoever made it.
        desired: as it should be; None where it cannot be made yet.
        owner: of the OVNKubeConfig, as in its objects' annotation.
        foreign: what bears a name of ours there and is not ours; pods that would use it are not started.
        problem: why it cannot be made.
        complete: whether a `live` of None means that it is surely not there.

    """
    if live is None and not complete:
        return _ready(
            Truth.UNKNOWN, "NotObservedYet", "DaemonSet ovnkube-node has not been looked at yet. Wait a moment."
        )
    strangers = [f"DaemonSet {name_of(live)}"] if live is not None and not is_ours(live, owner) else []
    strangers += [f"{ref.kind.kind} {ref.name}" for ref in foreign]
    if strangers:
        what = f"{strangers[0]} exists here and is not of this OVNKubeConfig"
        return _ready(Truth.FALSE, "ForeignObject", f"{what}, so that it is left alone. Rename or delete it.")
    if live is None:
        if desired is None:
            reason, why = problem or ("NotPlanned", "The other conditions say what is missing.")
            return _ready(Truth.FALSE, reason, f"DaemonSet ovnkube-node cannot be made yet. {why}")
        return _ready(Truth.FALSE, "NotCreated", "DaemonSet ovnkube-node is not there yet. It is about to be written.")
    if desired is not None and (path := differs(desired, live)):
        return _ready(Truth.FALSE, "Outdated", f"DaemonSet ovnkube-node has another {path}. It is about to be written.")
    return _pods(live)


def _pods(live: Obj) -> Condition:
    status, name = map_at(live, "status"), name_of(live)
    wanted, updated, ready = (
        int(status.get(field) or 0) for field in ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady")
    )
    if int(status.get("observedGeneration") or 0) < int(map_at(live, "metadata").get("generation") or 0):
        # Only pods that are there already go on serving while others follow.
        reason = "RollingOut" if ready else "Starting"
        return _ready(Truth.FALSE, reason, f"DaemonSet {name} has just changed. Its pods will follow.")
    if not wanted:
        return _ready(
            Truth.FALSE, "NoMachines", f"DaemonSet {name} matches no node. Label the DPUs as the pool wants it."
        )
    if not ready:
        message = f"None of {wanted} pods of {name} is ready. If this lasts, see oc describe pod and the pods' logs."
        return _ready(Truth.FALSE, "NoPodReady", message)
    if updated < wanted:
        message = f"{updated} of {wanted} pods of {name} have the present revision. The others follow in small groups."
        return _ready(Truth.FALSE, "RollingOut", message)
    if ready < wanted:
        message = f"{ready} of {wanted} pods of {name} are ready. If this lasts, see oc describe pod on the others."
        return _ready(Truth.FALSE, "SomePodsNotReady", message)
    return _ready(Truth.TRUE, "Ready", f"All {wanted} pods of {name} have the present revision and are ready.")


def _ready(status: Truth, reason: str, message: str) -> Condition:
    return Condition(READY, status, reason, message)


def nodes_mapped(
    mapped: Mapping[str, str],
    problems: Sequence[Problem],
    members: Sequence[Obj],
    *,
    complete: bool = True,
    unknown: str = "",
) -> Condition:
    """The condition NodesMapped.

    Args:
        mapped: tenant node by DPU node, only what is usable.
        problems: why others are not, worst first.
        members: the pool's nodes.
        complete: whether the pool and its nodes have been listed.
        unknown: why the tenant's nodes are not known; '' where they are.

    """
    if complete and unknown:
        return Condition(MAPPED, Truth.UNKNOWN, "TenantNodesUnknown", unknown)
    if not complete:
        return Condition(MAPPED, Truth.UNKNOWN, "NotObservedYet", "The nodes have not been listed yet. Wait a moment.")
    if not members:
        message = "The pool has no DPU to map. Label the DPUs' nodes as its nodeSelector wants it."
        return Condition(MAPPED, Truth.FALSE, "NoMachines", message)
    missing = [name_of(node) for node in members if name_of(node) not in mapped]
    count = f"{len(members) - len(missing)} of {len(members)} DPUs are mapped to a tenant node"
    if problems:
        reason, message = problems[0]
        return Condition(MAPPED, Truth.FALSE, reason, f"{count}. {message}")
    if missing:
        message = f"{count}, not so {_some(missing)}. Annotate the node: dpu.openshift.io/tenant-node=<tenant node>."
        return Condition(MAPPED, Truth.FALSE, "NotMapped", message)
    return Condition(
        MAPPED, Truth.TRUE, "Mapped", f"All {len(members)} DPUs are mapped, each to a tenant node of its own."
    )


def _host_state(node: Obj, config_hash: str) -> tuple[str, str]:
    """A reason of HostsConfigured and the agent's own words."""
    report = node_report.parse(map_at(node, "metadata", "annotations"))
    if report is None:
        return "NotReported", "its agent has not reported"
    boot_id = text_at(node, "status", "nodeInfo", "bootID")
    if not node_report.believed(report, config_hash=config_hash, boot_id=boot_id):
        return "StaleReport", "its agent's report is about another configuration or boot"
    return str(report.state), report.message.rstrip(". ") or "its agent gives no message"


def configured(node: Obj, config_hash: str) -> bool:
    """Whether the DPU's agent reports Ready, for this configuration and this boot."""
    return _host_state(node, config_hash)[0] == State.READY


def unwell(members: Sequence[Obj], mapped: Mapping[str, str], config_hash: str) -> tuple[str, ...]:
    """At most 20 names of DPUs that somebody should look at: not mapped, or their agent asks for help."""
    names = (
        name_of(node)
        for node in members
        if name_of(node) not in mapped or _host_state(node, config_hash)[0] in UNWELL_STATES
    )
    return tuple(sorted(names))[:20]


_HOST_REMEDIES = {
    State.DEGRADED: "See `dpu-agent status` on that DPU.",
    State.BLOCKED: "Raise spec.hostConfig.maxDisruption, or do the step by hand.",
    State.REBOOT_REQUIRED: "Reboot it when its host can do without network.",
    State.PROGRESSING: "Its agent is at work.",
    "StaleReport": "A new one comes when its agent runs.",
    "NotReported": "See that dpu-agent.service runs there.",
}


def hosts_configured(members: Sequence[Obj], config_hash: str, *, complete: bool = True) -> Condition:
    """The condition HostsConfigured. Without any report nothing is known, so it is Unknown, not False.

    Args:
        members: the pool's nodes.
        config_hash: of the host configuration that their agents should have.
        complete: whether the nodes have been listed.

    """
    if not complete:
        return Condition(HOSTS, Truth.UNKNOWN, "NotObservedYet", "The nodes have not been listed yet. Wait a moment.")
    if not members:
        message = "The pool has no DPU to configure. Label the DPUs' nodes as its nodeSelector wants it."
        return Condition(HOSTS, Truth.FALSE, "NoMachines", message)
    states = [(name_of(node), *_host_state(node, config_hash)) for node in members]
    done = sum(state == State.READY for _, state, _ in states)
    if done == len(members):
        return Condition(HOSTS, Truth.TRUE, "Configured", f"All {done} DPUs report that they are as configured.")
    count = f"{done} of {len(members)} DPUs report that they are as configured"
    if all(state == "NotReported" for _, state, _ in states):
        message = f"{count}, and no agent has reported at all. See that dpu-agent.service runs on the DPUs."
        return Condition(HOSTS, Truth.UNKNOWN, "NotReported", message)
    for reason, remedy in _HOST_REMEDIES.items():
        hit = [(name, words) for name, state, words in states if state == reason]
        if hit:
            return Condition(HOSTS, Truth.FALSE, str(reason), f"{count}; {hit[0][0]}: {hit[0][1]}. {remedy}")
    raise AssertionError(states)  # every state but Ready has a remedy


def version_aligned(*, tenant_version: str, image_version: str, source: str, message: str = "") -> Condition:
    """The condition VersionAligned.

    Args:
        tenant_version: the release of the tenant's ovnkube; '' where it is not known.
        image_version: the release of the DPUs' image; '' where it is not known.
        source: where the image comes from, the middle of a sentence ("infra's own ovnkube-node").
        message: the sentences of whoever chose the image, shown when it is not aligned.

    """
    if not tenant_version:
        text = message or "The release of the tenant's ovnkube is not known. It is read when the tenant answers."
        return Condition(ALIGNED, Truth.UNKNOWN, "TenantVersionUnknown", text)
    if not image_version:
        text = message or (
            f"The tenant's ovnkube has release {tenant_version}, and that of the DPUs' image ({source or 'none'}) is not known. "
            "Compare them, or remove spec.ovnKubeImage."
        )
        return Condition(ALIGNED, Truth.UNKNOWN, "ImageVersionUnknown", text)
    if tenant_version != image_version:
        text = message or (
            f"The tenant's ovnkube has release {tenant_version}, and the DPUs' image ({source}) {image_version}. "
            "Set spec.ovnKubeImage to an image of the tenant's release for the DPUs' architecture."
        )
        return Condition(ALIGNED, Truth.FALSE, "VersionDiffers", text)
    return Condition(
        ALIGNED, Truth.TRUE, "Aligned", f"Tenant and DPUs have ovnkube of release {tenant_version} ({source})."
    )


def summary(
    conditions: Sequence[Condition], before: Sequence[Obj] = (), now: dt.datetime | None = None
) -> tuple[Condition, Condition, Condition]:
    """The conditions Available, Progressing and Degraded, for people and for the console.

    Available is False when somebody has to act now; Progressing is True while something moves by itself; Degraded is
    True while something lasts that does not go away by itself. A pod that starts or a DPU that reboots is neither.

    Args:
        conditions: all the others.
        before: `status.conditions` as the resource has it, for how long a reason has lasted.
        now: without it nothing has lasted long.

    """
    bad = [c for c in conditions if c.status is (Truth.TRUE if c.type.endswith("Unreachable") else Truth.FALSE)]
    ends = {c.type: _patience_ends(c, before) for c in bad if c.reason in SLOW}
    wrong = [
        c
        for c in bad
        if c.reason not in MOVING | IDLE | SLOW or (now is not None and (end := ends.get(c.type)) and end <= now)
    ]
    moving = [c for c in bad if c.reason in MOVING]
    return (
        _available(conditions),
        _of("Progressing", moving, "Settled", "Nothing is under way."),
        _of("Degraded", wrong, "AsExpected", "Nothing needs a person."),
    )


def patience_ends(conditions: Iterable[Condition], before: Sequence[Obj], now: dt.datetime) -> dt.datetime | None:
    """When time alone will turn Degraded true; None where it will not."""
    ends = (_patience_ends(c, before) for c in conditions if c.reason in SLOW)
    return min((end for end in ends if end is not None and end > now), default=None)


def _patience_ends(condition: Condition, before: Sequence[Obj]) -> dt.datetime | None:
    for old in before:
        if old.get("type") == condition.type and old.get("status") == condition.status:
            return dt.datetime.fromisoformat(str(old["lastTransitionTime"])) + PATIENCE
    return None


def _available(conditions: Sequence[Condition]) -> Condition:
    ready = next((c for c in conditions if c.type == READY), None)
    if ready is None or ready.status is Truth.UNKNOWN:
        message = ready.message if ready else "OvnKubeReady has not been judged yet."
        return Condition("Available", Truth.UNKNOWN, ready.reason if ready else "NotObservedYet", message)
    serving = ready.status is Truth.TRUE or ready.reason in ("RollingOut", "SomePodsNotReady", "Outdated")
    reason = "AsExpected" if ready.status is Truth.TRUE else ready.reason
    return Condition("Available", Truth.TRUE if serving else Truth.FALSE, reason, ready.message)


def _of(kind: str, found: Sequence[Condition], otherwise: str, message: str) -> Condition:
    if not found:
        return Condition(kind, Truth.FALSE, otherwise, message)
    first, others = found[0], [c.type for c in found[1:]]
    also = f" See also {', '.join(others)}." if others else ""
    return Condition(kind, Truth.TRUE, first.reason, f"{first.type}: {first.message}{also}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
