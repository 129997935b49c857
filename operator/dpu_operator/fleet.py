"""All resources of one operator: what they share, and who is woken by what."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dpu_operator.kube.client import Cluster
from dpu_operator.kube.vetting import Access
from dpu_operator.observe.infra import InfraFeed
from dpu_operator.plan.machineconfig import Tree
from dpu_operator.reconcile import Session, utc_now
from dpu_operator.world import Obj

_MARKS = ("uid", "generation", "deletionTimestamp", "annotations", "labels")
"""What of a resource's metadata is news. Our own status writes are none."""


class Fleet:
    """Every OVNKubeConfig of the cluster, and a session for each.

    Args:
        access: to the infra API server.
        images: RELATED_IMAGE_* by short name.
        tree: the files that the MachineConfig carries.
        clock: the time of day, UTC.

    """

    def __init__(
        self,
        access: Access,
        *,
        images: Mapping[str, str],
        tree: Tree,
        clock: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self.cluster = Cluster(access)
        self.images = images
        self.tree = tree
        self.clock = clock
        self.configs: dict[str, Obj] = {}
        self.infra = InfraFeed(self.cluster, on_change=self.wake_all)
        self._sessions: dict[str, Session] = {}

    def wake_all(self) -> None:
        """Something that all resources look at has changed."""
        for session in self._sessions.values():
            session.wake()

    def saw(self, config: Obj) -> None:
        """Take note of a resource as the API server has it; its watches start at once, its first write waits for `run`."""
        uid = config["metadata"]["uid"]
        before = self.configs.get(uid)
        self.configs[uid] = config
        if before is not None and _news(before) == _news(config):
            return
        if uid not in self._sessions:
            self._sessions[uid] = Session(self, uid)
        self.wake_all()

    async def gone(self, uid: str) -> None:
        """The API server no longer has it."""
        session = self._sessions.pop(uid, None)
        if session is not None:
            await session.close()
        self.configs.pop(uid, None)
        self.wake_all()

    async def run(self, uid: str, until: Awaitable[Any]) -> None:
        """Reconcile one resource until told to stop."""
        await self._sessions[uid].run(until)

    async def remove(self, uid: str) -> str:
        """One step of the removal of a resource. Returns '' when done, else what it waits for."""
        return await self._sessions[uid].remove()

    async def close(self) -> None:
        """End everything, in parallel."""
        await asyncio.gather(*(session.close() for session in self._sessions.values()), return_exceptions=True)
        await self.infra.close()
        await self.cluster.close()


def _news(config: Obj) -> Obj:
    meta = config["metadata"]
    return {"spec": config.get("spec"), **{key: meta.get(key) for key in _MARKS}}
