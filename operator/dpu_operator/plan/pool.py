"""The pool of the DPUs: whether it may be used, whether its machines run our MachineConfig, and when they no longer do."""

from dataclasses import dataclass

from dpu_operator.plan import mcp
from dpu_operator.plan.diff import is_ours
from dpu_operator.plan.machineconfig import ROLE_LABEL, labels, machine_config_name, missing_in, ref_of
from dpu_operator.plan.mcp import members, selects
from dpu_operator.plan.objects import map_at, name_of, text_at
from dpu_operator.world import Condition, InfraWorld, Obj, Seen, Sight, Truth

__all__ = [
    "SKIP_WAIT_ANNOTATION",
    "Removal",
    "conflict",
    "conflict_problem",
    "machine_config_applied",
    "members",
    "removal",
    "selects",
    "validate_pool",
]

SKIP_WAIT_ANNOTATION = "dpu.openshift.io/skip-pool-wait"
"""On an OVNKubeConfig that is being deleted, with the value `true`: do not wait for its pool."""
BUILT_IN_POOLS = ("master", "worker", "arbiter")


def conflict(infra: InfraWorld) -> Obj | None:
    """The OVNKubeConfig that was there before this one, on the same pool or in the same namespace.

    Two would fight over one MachineConfig, or over one DaemonSet. The older one works (by creation, then uid); the
    younger does nothing at all until the older is gone: deleted, and its finalizer done.
    """
    rivals = (
        other
        for other in infra.others
        if (text_at(other, "metadata", "namespace") == infra.namespace or _pool_name(other) == _pool_name(infra.config))
        and _age(other) < _age(infra.config)
    )
    return min(rivals, key=_age, default=None)


def conflict_problem(infra: InfraWorld) -> str:
    """The sentences about a conflict; '' when there is none."""
    first = conflict(infra)
    if first is None:
        return ""
    who = f"{text_at(first, 'metadata', 'namespace')}/{name_of(first)}"
    if _pool_name(first) == _pool_name(infra.config):
        where, remedy = f"uses the pool {_pool_name(first)}", "Name another pool in a new OVNKubeConfig"
    else:
        where, remedy = "is in the same namespace", "Put each OVNKubeConfig into a namespace of its own"
    return (
        f"OVNKubeConfig {who} {where} and was there first, so that nothing is done for this one. "
        f"{remedy}, or delete one of the two."
    )


def _pool_name(config: Obj) -> str:
    return text_at(config, "spec", "poolName")


def _age(config: Obj) -> tuple[str, str]:
    return text_at(config, "metadata", "creationTimestamp"), text_at(config, "metadata", "uid")


def validate_pool(infra: InfraWorld) -> str | None:
    """What is wrong with the pool, in two sentences; None when it can be used.

    A pool that has not been seen yet is not wrong: `machine_config_applied` calls that Unknown.
    """
    problem = _pool_problem(infra)
    return problem.message if problem and problem.status is Truth.FALSE else None


def _pool_problem(infra: InfraWorld) -> Condition | None:
    name = _pool_name(infra.config)
    if name in BUILT_IN_POOLS:
        return _false(
            "PoolInvalid",
            f"The pool {name} has machines that are no DPUs. Make a MachineConfigPool for the DPUs alone.",
        )
    if infra.pool.object is None:
        return _absent(infra.pool, f"MachineConfigPool {name}", "PoolNotFound", "Create it, for the DPUs' nodes.")
    spec = map_at(infra.pool.object, "spec")
    if not mcp.selects_something(spec.get("nodeSelector")):
        return _false(
            "PoolInvalid",
            f"MachineConfigPool {name} has no nodeSelector, and so no machines. Give it one that the DPUs' nodes match.",
        )
    selector, remedy = spec.get("machineConfigSelector"), f"Let it select {ROLE_LABEL} In [worker, {name}]."
    if not selects(selector, {ROLE_LABEL: "worker"}):
        return _false(
            "PoolInvalid",
            f"MachineConfigPool {name} does not select the MachineConfigs of the role worker, and no machine can run without them. {remedy}",
        )
    if not selects(selector, labels(name)):
        return _false(
            "PoolDoesNotSelect",
            f"MachineConfigPool {name} does not select the MachineConfigs of the role {name}. {remedy}",
        )
    return None


def _absent(seen: Seen, what: str, reason: str, remedy: str) -> Condition:
    """The condition for an object that is not there, or of which that is not known."""
    match seen.sight:
        case Sight.ABSENT:
            return _false(reason, f"{what} does not exist. {remedy}")
        case Sight.UNSERVED:
            return _false(
                reason,
                f"{what} cannot exist, for this cluster does not serve its type. Install the operator on OpenShift.",
            )
        case Sight.FORBIDDEN:
            return _unknown("Forbidden", f"The operator may not read {what}. Restore its ClusterRole.")
    return _unknown("NotObservedYet", f"{what} has not been looked at yet. Wait a moment.")


def machine_config_applied(
    infra: InfraWorld, desired: Obj | None, problem: str = "", *, reason: str = "InvalidMachineConfig"
) -> Condition:
    """The condition MachineConfigApplied: our content is in the pool's rendered configuration, and every machine runs it.

    Args:
        infra: as observed.
        desired: our MachineConfig as it should be; None where it could not be made.
        problem: the sentences that say why it could not.
        reason: the reason to go with them.

    """
    rival = conflict_problem(infra)
    if rival:
        return _false("PoolConflict", rival)
    pool, pool_problem = infra.pool.object, _pool_problem(infra)
    if pool_problem or pool is None:
        return pool_problem or _unknown("NotObservedYet", "The pool has not been looked at yet. Wait a moment.")
    if desired is None:
        return _false(reason, problem or "The MachineConfig cannot be made. Report this as a defect of the operator.")
    return _written(infra, desired) or _rendered(infra, pool, desired) or _rolled_out(infra, pool)


def _written(infra: InfraWorld, desired: Obj) -> Condition | None:
    """Why our MachineConfig is not there as it should be; None when it is."""
    ref = ref_of(infra)
    live = infra.live.get(ref)
    if live is None:
        if not infra.live_complete:
            return _unknown("NotObservedYet", f"{ref} has not been looked at yet. Wait a moment.")
        return _false("WaitingForRender", f"{ref} is not there yet. It is about to be written.")
    if not is_ours(live, infra.owner):
        return _false(
            "MachineConfigForeign",
            f"{ref} exists and was not made for this OVNKubeConfig, so that it is left alone. Rename or delete it.",
        )
    role = map_at(live, "metadata", "labels").get(ROLE_LABEL)
    if missing_in(live, desired) or role != desired["metadata"]["labels"][ROLE_LABEL]:
        return _false("WaitingForRender", f"{ref} is not as it should be. It is about to be written.")
    return None


def _rendered(infra: InfraWorld, pool: Obj, desired: Obj) -> Condition | None:
    """Why the pool's rendered configuration does not hold ours; None when it does."""
    name, ours, target = name_of(pool), name_of(desired), mcp.target(pool)
    failed = mcp.condition(pool, "RenderDegraded")
    if failed:
        why = mcp.phrase(failed.get("message"))
        return _false("RenderFailed", f"Pool {name} cannot be rendered: {why}. Mend the MachineConfig that this names.")
    if ours not in mcp.sources(pool, "spec"):
        return _false("WaitingForRender", f"Pool {name} has not taken up MachineConfig {ours} yet. This takes seconds.")
    rendered = infra.rendered.object
    if rendered is None or name_of(rendered) != target:
        seen = infra.rendered if rendered is None else Seen()
        return _absent(seen, f"MachineConfig {target} of pool {name}", "RenderFailed", "Restore it: pools need it.")
    missing = missing_in(rendered, desired)
    if missing:
        return _false(
            "WaitingForRender",
            f"MachineConfig {target} of pool {name} does not have {missing} as it should be. "
            "This takes seconds; if it stays, another MachineConfig of the pool has its own and must go.",
        )
    return None


def _rolled_out(infra: InfraWorld, pool: Obj) -> Condition:
    """Whether every machine runs the pool's rendered configuration, which holds ours."""
    name, target, progress = name_of(pool), mcp.target(pool), mcp.progress(infra, pool)
    if not progress.total:
        return _false("NoMachines", f"Pool {name} has no machines. Label the DPUs' nodes as its nodeSelector wants it.")
    if progress.done == progress.total:
        return Condition(TYPE, Truth.TRUE, "Applied", f"All {progress.total} machines of pool {name} run {target}.")
    sick = mcp.sick(infra, pool)
    if sick:
        return _false("NodeDegraded", f"{sick} See what the machine-config-daemon says on it: oc describe node.")
    so_far = f"{progress.done} of {progress.total} machines of pool {name} run {target}"
    pause = mcp.paused(pool)
    if pause:
        return _false("PoolPaused", f"{so_far}, and {pause}")
    waits = f", not yet {progress.late}" if progress.late else ""
    return _false("Updating", f"{so_far}{waits}. The machine-config-operator updates them one after the other.")


TYPE = "MachineConfigApplied"


def _false(reason: str, message: str) -> Condition:
    return Condition(TYPE, Truth.FALSE, reason, message)


def _unknown(reason: str, message: str) -> Condition:
    return Condition(TYPE, Truth.UNKNOWN, reason, message)


@dataclass(frozen=True, slots=True)
class Removal:
    """Whether the finalizer may go, and the sentences to show until then."""

    done: bool
    message: str


def removal(infra: InfraWorld) -> Removal:
    """Whether our MachineConfig is gone from the pool's machines, so that the finalizer may go.

    Taking it away reboots each DPU once more, and until that is over the resource stays to tell about it. What cannot
    end by itself is said with the way out: SKIP_WAIT_ANNOTATION.
    """
    ref, pool, live = ref_of(infra), infra.pool.object, infra.live.get(ref_of(infra))
    if conflict(infra) is not None or (live is not None and not is_ours(live, infra.owner)):
        return Removal(done=True, message=f"{ref} is not of this OVNKubeConfig, and stays.")
    if live is not None:
        return _wait(f"{ref} is being deleted. The pool has to take it away then.")
    if not infra.live_complete:
        return _wait(f"{ref} has not been looked at yet. Wait a moment.")
    if map_at(infra.config, "metadata", "annotations").get(SKIP_WAIT_ANNOTATION) == "true":
        return Removal(done=True, message=f"{ref} is deleted, and the pool is not waited for, as annotated.")
    if pool is None:
        absent = _absent(
            infra.pool, f"MachineConfigPool {_pool_name(infra.config)}", "PoolNotFound", "Nothing is left to do."
        )
        return Removal(done=absent.status is Truth.FALSE, message=absent.message)
    return _taken_away(infra, pool)


def _taken_away(infra: InfraWorld, pool: Obj) -> Removal:
    name, ours = name_of(pool), machine_config_name(_pool_name(infra.config))
    annotate = f"oc annotate ovnkubeconfig {infra.name} -n {infra.namespace} {SKIP_WAIT_ANNOTATION}=true"
    way_out = f" To not wait: `{annotate}`."
    if ours in mcp.sources(pool, "spec"):
        failed = mcp.condition(pool, "RenderDegraded")
        why = f" It cannot be rendered: {mcp.phrase(failed.get('message'))}." if failed else ""
        return _wait(f"Pool {name} is still made with the deleted MachineConfig {ours}.{why}{way_out}")
    progress = mcp.cleared(infra, pool, ours)
    if progress.done == progress.total:
        return Removal(done=True, message=f"No machine of pool {name} runs the MachineConfig {ours} any more.")
    so_far = f"{progress.done} of {progress.total} machines of pool {name} are rid of the MachineConfig {ours}"
    sick, pause = mcp.sick(infra, pool), mcp.paused(pool)
    if sick:
        return _wait(f"{so_far}. {sick}{way_out}")
    if pause:
        return _wait(f"{so_far}, and {pause}{way_out}")
    return _wait(f"{so_far}, not yet {progress.late or 'the others'}.{way_out}")


def _wait(message: str) -> Removal:
    return Removal(done=False, message=message)
