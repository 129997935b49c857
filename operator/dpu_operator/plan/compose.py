"""The whole plan of one OVNKubeConfig: two worlds in, steps and conditions out."""

import dataclasses
import datetime as dt
from collections.abc import Mapping

from dpu_operator.plan import conditions, credentials, machineconfig, mcp, pool
from dpu_operator.plan.desired import desired_objects
from dpu_operator.plan.diff import differs, extra_keys, is_ours, retyped
from dpu_operator.plan.image import choose
from dpu_operator.plan.judge import judge
from dpu_operator.plan.mapping import NodeMapping, map_nodes
from dpu_operator.plan.mirrors import mirror_one, mirror_ref, required
from dpu_operator.plan.nodevars import node_env_ref, tenant_nodes
from dpu_operator.plan.objects import Problem, owner_meta, text_at
from dpu_operator.plan.topology import Detection, Topology, detect
from dpu_operator.world import (
    DAEMON_SET,
    MACHINE_CONFIG,
    Apply,
    Condition,
    Counts,
    Delete,
    InfraWorld,
    Obj,
    Plan,
    Ref,
    Step,
    TenantKey,
    TenantWorld,
    Truth,
    kind_of,
)
from dpu_shared.errors import UserError
from dpu_shared.host_config import HostConfig
from dpu_shared.steps import Disruption


def plan(infra: InfraWorld, tenant: TenantWorld, *, tree: machineconfig.Tree) -> Plan:
    """What to do for one resource, and what to say about it.

    Args:
        infra: the infra cluster, as far as this resource is concerned.
        tenant: its tenant cluster, as last seen.
        tree: the files that the MachineConfig carries.

    """
    if pool.conflict(infra) is not None:
        return _idle(infra, tenant)
    members = mcp.members(infra.pool.object, infra.nodes)
    detection = detect(tenant, last_known=text_at(infra.config, "status", "topology"))
    mapping = map_nodes(
        members, tenant=tenant, env_overrides=infra.env_overrides, current=tenant_nodes(_live_env(infra))
    )
    image = choose(infra, tenant, detection, members)
    wanted = desired_objects(infra, tenant, detection=detection, mapping=mapping, members=members, image=image)
    host = HostConfig.from_spec(infra.spec.get("hostConfig") or {})
    machine_config, machine_config_problem = _machine_config(infra, tree=tree, host=host, detection=detection)
    desired = {_ref(obj): obj for obj in wanted.objects}
    if machine_config is not None:
        desired[_ref(machine_config)] = machine_config
    copies = _copies(infra, detection, desired)
    steps, foreign = _steps(infra, desired, keep=wanted.keep, sources=_sources(tenant, copies))
    judged = judge(
        infra, tenant,
        wanted=wanted, desired=desired, copies=tuple(copies.values()), foreign=foreign,
        machine_config=machine_config, machine_config_problem=machine_config_problem,
        mapping=mapping, members=members, image=image, detection=detection, host=host,
    )  # fmt: skip
    return Plan(
        steps=steps,
        conditions=judged,
        desired=tuple(desired.values()),
        facts={
            "topology": detection.topology.value if detection.topology else "",
            "tenantVersion": detection.version,
            "image": image.image or "",
        },
        counts=_counts(members, mapping, host),
        tenant_keys=_tenant_keys(tenant, detection),
        copies={key: ref for key, ref in copies.items() if ref not in foreign},
        wake_at=_wake_at(infra, tenant, judged),
    )


def removal(infra: InfraWorld) -> tuple[Plan, str]:
    """The steps of a resource that is being deleted, and what the finalizer still waits for ('' when it may go).

    What is in the namespace goes by garbage collection; only what is cluster-wide is ours to delete.
    """
    state = pool.removal(infra)
    ref = machineconfig.ref_of(infra)
    live = infra.live.get(ref)
    steps: tuple[Step, ...] = ()
    if live is not None and not state.done and not live["metadata"].get("deletionTimestamp"):
        steps = (Delete(ref, live["metadata"]["uid"], "The OVNKubeConfig is being deleted."),)
    before = {c["type"]: c for c in infra.config.get("status", {}).get("conditions", [])}
    kept = [_as_before(c) for kind, c in before.items() if kind not in ("MachineConfigApplied", "Progressing")]
    now = [
        Condition("MachineConfigApplied", Truth.FALSE, "Removing", state.message),
        Condition("Progressing", Truth.TRUE, "Removing", state.message),
    ]
    return Plan(steps=steps, conditions=(*kept, *now)), "" if state.done else state.message


def with_failures(plan_: Plan, failures: tuple[str, ...]) -> Plan:
    """The plan's report, with writes that failed: they are on Degraded, whatever else is well."""
    if not failures:
        return plan_
    others = {1: "", 2: " So is 1 other."}.get(len(failures), f" So are {len(failures) - 1} others.")
    message = f"{failures[0]} It is tried again.{others}"
    degraded = Condition("Degraded", Truth.TRUE, "WriteFailed", message)
    return dataclasses.replace(
        plan_, conditions=tuple(degraded if c.type == "Degraded" else c for c in plan_.conditions)
    )


def copy_step(key: TenantKey, obj: Obj, ref: Ref, config: Obj, *, uid: str = "") -> Apply:
    """The step for one changed tenant object whose copy is ours already: all that the short way needs."""
    marks = owner_meta(InfraWorld(config=config))
    copy = mirror_one(key, obj, config["metadata"]["namespace"], marks)
    return Apply(ref, copy, "The tenant's object has changed.", replaces=True, uid=uid)


def _ref(obj: Obj) -> Ref:
    meta = obj["metadata"]
    return Ref(kind_of(obj), meta.get("namespace"), meta["name"])


def _live_env(infra: InfraWorld) -> Obj | None:
    return infra.live.get(node_env_ref(infra.namespace))


def _machine_config(
    infra: InfraWorld, *, tree: machineconfig.Tree, host: HostConfig, detection: Detection
) -> tuple[Obj | None, Problem | None]:
    """Our MachineConfig, or why there is none.

    It reboots every DPU of the pool, so a new one waits until the tenant is known to be one that can work; one that is
    there already follows its inputs whatever the tenant does.
    """
    problem = pool.validate_pool(infra)
    if problem:
        return None, Problem("InvalidMachineConfig", problem)
    if machineconfig.ref_of(infra) not in infra.live and not (detection.topology and detection.supported):
        waits = f"The MachineConfig waits until the tenant can be used. {detection.message}"
        return None, Problem("WaitingForTenant", waits)
    try:
        made = machineconfig.machine_config(
            infra, tree=tree, host_config=host, agent_image=infra.images.get("agent", "")
        )
    except UserError as error:
        return None, Problem("InvalidMachineConfig", str(error))
    return made, None


def _tenant_keys(tenant: TenantWorld, detection: Detection) -> tuple[TenantKey, ...]:
    """What to watch besides that which tells the topology: its copies, and where it may be central what proves that."""
    needed = required(detection.topology) if detection.topology else ()
    if detection.settled and detection.topology is not Topology.CENTRAL:
        return needed
    if tenant.object(TenantKey.NODE_DAEMON_SET) is None:
        return needed
    return (*needed, TenantKey.MASTER_DAEMON_SET, TenantKey.DB_SERVICE)


def _copies(infra: InfraWorld, detection: Detection, desired: Mapping[Ref, Obj]) -> dict[TenantKey, Ref]:
    if detection.topology is None:
        return {}
    refs = {key: mirror_ref(key, infra.namespace) for key in required(detection.topology)}
    return {key: ref for key, ref in refs.items() if ref in desired}


def _sources(tenant: TenantWorld, copies: Mapping[TenantKey, Ref]) -> dict[Ref, str]:
    return {ref: text_at(tenant.object(key), "metadata", "resourceVersion") for key, ref in copies.items()}


def _steps(
    infra: InfraWorld, desired: Mapping[Ref, Obj], *, keep: frozenset[Ref], sources: Mapping[Ref, str]
) -> tuple[tuple[Step, ...], tuple[Ref, ...]]:
    """Applies for what is not as it should be, deletions for what is no longer needed, and the foreign objects."""
    if not infra.live_complete:
        return (), ()
    foreign = tuple(ref for ref in desired if ref in infra.live and not is_ours(infra.live[ref], infra.owner))
    blocked = any(ref.kind != MACHINE_CONFIG for ref in foreign)
    steps: list[Step] = []
    for ref, obj in desired.items():
        if ref in foreign or (blocked and ref.kind == DAEMON_SET):
            # Pods that would mount somebody else's object of our name must not start.
            continue
        live = infra.live.get(ref)
        why = differs(obj, live) if live is not None else "It does not exist."
        if why:
            reason = why if live is None else f"{why} is not as it should be."
            extra = extra_keys(obj, live) if live is not None else ()
            steps.append(
                Apply(
                    ref, obj, reason, replaces=live is not None,
                    uid=text_at(live, "metadata", "uid"), source_version=sources.get(ref, ""), drop_keys=extra,
                    recreate=live is not None and retyped(obj, live),
                    disruption=Disruption.REBOOT if ref.kind == MACHINE_CONFIG else Disruption.NONE,
                )
            )  # fmt: skip
    steps += [
        Delete(ref, live["metadata"]["uid"], "It is no longer needed.")
        for ref, live in infra.live.items()
        if ref not in desired
        and ref not in keep
        and ref.kind != MACHINE_CONFIG
        and is_ours(live, infra.owner)
        and not live["metadata"].get("deletionTimestamp")
    ]
    return tuple(steps), foreign


def _counts(members: tuple[Obj, ...], mapping: NodeMapping, host: HostConfig) -> Counts:
    digest = host.config_hash()
    mapped = {name: entry.tenant_node for name, entry in mapping.entries.items()}
    return Counts(
        total=len(members),
        mapped=len(mapped),
        configured=sum(conditions.configured(node, digest) for node in members),
        unwell=conditions.unwell(members, mapped, digest),
    )


def _wake_at(infra: InfraWorld, tenant: TenantWorld, judged: tuple[Condition, ...]) -> dt.datetime | None:
    """When time alone changes a condition."""
    before = infra.config.get("status", {}).get("conditions", [])
    moments = (
        credentials.wake_at(tenant.credential, infra.now),
        credentials.wake_at(infra.node_credential, infra.now),
        conditions.patience_ends(judged, before, infra.now),
    )
    return min((moment for moment in moments if moment is not None), default=None)


def _idle(infra: InfraWorld, tenant: TenantWorld) -> Plan:
    """A second resource on a pool or in a namespace does nothing, and says why on every condition."""
    message = pool.conflict_problem(infra)
    kinds = ("OvnKubeReady", "TenantObjectsSynced", "NodesMapped", "HostsConfigured", "VersionAligned")
    rest = tuple(Condition(kind, Truth.UNKNOWN, "PoolConflict", message) for kind in kinds)
    return Plan(
        steps=(),
        conditions=(
            Condition("MachineConfigApplied", Truth.FALSE, "PoolConflict", message),
            credentials.api_server_unreachable(tenant),
            credentials.credentials_valid(infra, tenant),
            *rest,
            Condition("Available", Truth.FALSE, "PoolConflict", message),
            Condition("Progressing", Truth.FALSE, "PoolConflict", message),
            Condition("Degraded", Truth.TRUE, "PoolConflict", message),
        ),
    )


def _as_before(condition: Obj) -> Condition:
    return Condition(condition["type"], Truth(condition["status"]), condition["reason"], condition["message"])
