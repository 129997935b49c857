"""Every condition of one OVNKubeConfig, from what was observed and what should be."""

from collections.abc import Mapping, Sequence

from dpu_operator.plan import conditions, credentials, pool
from dpu_operator.plan.desired import Desired
from dpu_operator.plan.image import DAEMON_SET_NAME, ImageChoice
from dpu_operator.plan.mapping import NodeMapping
from dpu_operator.plan.objects import Problem
from dpu_operator.plan.topology import Detection
from dpu_operator.world import (
    DAEMON_SET,
    Condition,
    InfraWorld,
    LinkState,
    Obj,
    Ref,
    Sight,
    TenantWorld,
)
from dpu_shared.host_config import HostConfig


def judge(
    infra: InfraWorld,
    tenant: TenantWorld,
    *,
    wanted: Desired,
    desired: Mapping[Ref, Obj],
    copies: Sequence[Ref],
    foreign: Sequence[Ref],
    machine_config: Obj | None,
    machine_config_problem: Problem | None,
    mapping: NodeMapping,
    members: tuple[Obj, ...],
    image: ImageChoice,
    detection: Detection,
    host: HostConfig,
) -> tuple[Condition, ...]:
    """All of them, in the order in which they are shown."""
    operand = Ref(DAEMON_SET, infra.namespace, DAEMON_SET_NAME)
    complete = infra.nodes_sight is Sight.PRESENT and infra.pool.settled
    mapped = {name: entry.tenant_node for name, entry in mapping.entries.items()}
    before = infra.config.get("status", {}).get("conditions", [])
    judged = (
        pool.machine_config_applied(
            infra,
            machine_config,
            machine_config_problem.message if machine_config_problem else "",
            reason=machine_config_problem.reason if machine_config_problem else "InvalidMachineConfig",
        ),
        conditions.ovnkube_ready(
            infra.live.get(operand),
            desired.get(operand),
            owner=infra.owner,
            foreign=[ref for ref in foreign if ref.namespace],
            problem=_last(wanted, _OPERAND_REASONS),
            complete=infra.live_complete,
        ),
        credentials.api_server_unreachable(tenant),
        conditions.tenant_objects_synced(
            [desired[ref] for ref in copies],
            infra.live,
            owner=infra.owner,
            problems=_sync_problems(infra, wanted, detection),
            complete=infra.live_complete,
            reachable=tenant.link.state is LinkState.UP,
        ),
        credentials.credentials_valid(infra, tenant),
        conditions.nodes_mapped(
            mapped,
            _mapping_problems(mapping, wanted),
            members,
            complete=complete,
            unknown=mapping.unknown,
        ),
        conditions.hosts_configured(members, host.config_hash(), complete=complete),
        _version_aligned(detection, image),
    )
    return (*judged, *conditions.summary(judged, before, infra.now))


_OPERAND_REASONS = (
    "TenantSettingsMalformed",
    "TenantObjectsIncomplete",
    "NodeKubeconfigUnusable",
    "NoImage",
    "PoolNotUsable",
    "NoDatabaseAddresses",
)
_NODE_REASONS = ("DpuLabelMissing", "NodeVariableUnknown", "NodeVariableRefused")


def _sync_problems(infra: InfraWorld, wanted: Desired, detection: Detection) -> list[tuple[str, str]]:
    """Why the tenant's objects are not all here: what of the tenant is in the way, not what of the pool or the image."""
    if infra.unreadable:
        what = ", ".join(infra.unreadable)
        role = "Bind ClusterRole dpu-network-operator-tenant to its ServiceAccount there."
        return [("NamespaceForbidden", f"The operator may not read {what} in namespace {infra.namespace}. {role}")]
    if detection.topology is None or not detection.supported:
        return [(detection.reason, detection.message)]
    others = (*_OPERAND_REASONS, *_NODE_REASONS)
    found: list[tuple[str, str]] = [(p.reason, p.message) for p in wanted.problems if p.reason not in others]
    return found


def _mapping_problems(mapping: NodeMapping, wanted: Desired) -> list[tuple[str, str]]:
    found = [("NotMapped", sentence) for sentence in mapping.problems.values()]
    return found + [(p.reason, p.message) for p in wanted.problems if p.reason in _NODE_REASONS]


def _last(wanted: Desired, reasons: tuple[str, ...]) -> tuple[str, str] | None:
    return next(((p.reason, p.message) for p in reversed(wanted.problems) if p.reason in reasons), None) or next(
        ((p.reason, p.message) for p in wanted.problems), None
    )


def _version_aligned(detection: Detection, image: ImageChoice) -> Condition:
    tenant_version = detection.version if detection.settled else ""
    return conditions.version_aligned(
        tenant_version=tenant_version,
        image_version=image.version if image.image else "",
        source=image.source,
        message="" if image.matched else image.message,
    )
