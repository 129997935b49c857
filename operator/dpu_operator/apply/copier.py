"""The short way for a changed tenant object: one apply, without a full plan.

A plan reads and renders everything; a copy needs only the object that the watch has just brought. The full reconcile
follows and finds nothing left to do, or mends what this could not.
"""

import asyncio
import logging
from collections.abc import Callable

from dpu_operator.apply.executor import Failure, apply
from dpu_operator.kube.client import Cluster, ClusterError
from dpu_operator.world import Apply, Obj, Ref

logger = logging.getLogger(__name__)


class Copier:
    """Applies the newest version of each copy, one write at a time for each; versions that came meanwhile are skipped.

    Args:
        cluster: the infra API server.
        wrote: told of each answer.

    """

    def __init__(self, cluster: Cluster, *, wrote: Callable[[Ref, Obj | None], None]) -> None:
        self._cluster = cluster
        self._wrote = wrote
        self._waiting: dict[Ref, Callable[[], Apply]] = {}
        self._tasks: dict[Ref, asyncio.Task[None]] = {}
        self._closed = False

    def offer(self, ref: Ref, step: Callable[[], Apply]) -> None:
        """Write this as soon as the write under way for the same place is done; the newest offer wins."""
        if self._closed:  # a watch that is being closed may bring one more event
            return
        self._waiting[ref] = step
        if ref not in self._tasks:
            self._tasks[ref] = asyncio.create_task(self._work(ref), name=f"copy {ref}")

    async def _work(self, ref: Ref) -> None:
        try:
            while (make := self._waiting.pop(ref, None)) is not None:
                step = make()
                try:
                    self._wrote(ref, await apply(step, self._cluster))
                except ClusterError as error:
                    # The reconcile that follows sees the difference, tries again and reports.
                    logger.debug("%s", Failure(step, error).sentence)
        finally:
            del self._tasks[ref]

    async def close(self) -> None:
        """Give up what waits; a write under way is awaited no longer."""
        self._closed = True
        self._waiting.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
