"""Server-side apply and deletion of a plan's steps, inputs before what uses them."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable

from dpu_operator.kube.client import ApiError, Cluster, ClusterError
from dpu_operator.world import DAEMON_SET, MACHINE_CONFIG, SECRET, Apply, Obj, Ref, Step

logger = logging.getLogger(__name__)

WRITES_AT_ONCE = 3
"""More of them only wait for each other in the API server, and need a new connection each."""
_USERS = (DAEMON_SET, MACHINE_CONFIG)
"""What uses the other objects: written last, and not at all when one of its inputs could not be written."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A step whose outcome is an error, or unknown (a timeout); the next observation tells which."""

    step: Step
    error: ClusterError

    @property
    def sentence(self) -> str:
        """What could not be written and why. An API server's message may quote the object: for a Secret it is left out."""
        if isinstance(self.error, ApiError):
            quiet = self.step.ref.kind == SECRET
            why = f"HTTP {self.error.status} {self.error.reason}" + ("" if quiet else f": {self.error.message}")
        else:
            why = str(self.error)
        done = "written" if isinstance(self.step, Apply) else "deleted"
        return f"{self.step.ref} could not be {done} ({why.rstrip('.')})."


async def execute(
    steps: tuple[Step, ...],
    *,
    cluster: Cluster,
    wrote: Callable[[Ref, Obj | None], None],
    outdated: Callable[[Step], bool],
) -> tuple[Failure, ...]:
    """Do the steps; those that do not depend on each other at once.

    Args:
        steps: of one plan.
        cluster: the infra API server.
        wrote: told of each answer, before anybody else can know of it.
        outdated: whether the world behind a step has changed since it was planned; such a step is left to the next plan.

    """
    first = [step for step in steps if step.ref.kind not in _USERS]
    then = [step for step in steps if step.ref.kind in _USERS]
    failures: list[Failure] = []
    places = asyncio.Semaphore(WRITES_AT_ONCE)

    async def in_turn(step: Step) -> Failure | None:
        async with places:
            return await _do(step, cluster, wrote, outdated)

    for wave in (first, then):
        if failures:
            break
        results = await asyncio.gather(*(in_turn(step) for step in wave))
        failures += [failure for failure in results if failure is not None]
    return tuple(failures)


async def _do(
    step: Step, cluster: Cluster, wrote: Callable[[Ref, Obj | None], None], outdated: Callable[[Step], bool]
) -> Failure | None:
    if outdated(step):
        return None
    try:
        if isinstance(step, Apply):
            wrote(step.ref, await apply(step, cluster))
        else:
            await _delete(step.ref, step.uid, cluster)
            wrote(step.ref, None)
    except ClusterError as error:
        logger.warning("%s", Failure(step, error).sentence)
        return Failure(step, error)
    logger.info("%s: %s", step.ref, step.why)
    return None


async def apply(step: Apply, cluster: Cluster) -> Obj:
    """One server-side apply.

    Force is for fields of our own objects that somebody else took over. An object that we believe absent is applied
    without it: had somebody made it meanwhile, the API server answers 409 and it stays as it is.
    """
    if step.recreate:
        # Killed in between, the next plan finds it absent and makes it.
        await _delete(step.ref, step.uid, cluster)
        return await cluster.apply(step.ref, step.object, force=False)
    if step.drop_keys:
        fields = ("data",) if step.ref.kind == SECRET else ("data", "binaryData")
        nulls: Obj = {field: dict.fromkeys(step.drop_keys) for field in fields}
        await cluster.merge_patch(step.ref, {**nulls, "metadata": {"uid": step.uid}} if step.uid else nulls)
    obj = step.object
    if step.uid:
        obj = {**obj, "metadata": {**obj["metadata"], "uid": step.uid}}
    return await cluster.apply(step.ref, obj, force=step.replaces)


async def _delete(ref: Ref, uid: str, cluster: Cluster) -> None:
    try:
        await cluster.delete(ref, uid=uid)
    except ApiError as error:
        if error.status != 404:
            raise
