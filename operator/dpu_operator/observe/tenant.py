"""The tenant cluster, by one named watch for each object that is needed."""

import asyncio
from collections.abc import Callable

from dpu_operator.kube.client import Cluster
from dpu_operator.kube.link import LinkGate
from dpu_operator.kube.listwatch import ListWatch
from dpu_operator.kube.vetting import Access
from dpu_operator.observe.essentials import ALWAYS, tenant_node
from dpu_operator.observe.shelf import Shelf
from dpu_operator.world import NODE, Credential, Link, Obj, Seen, TenantKey, TenantWorld


class TenantFeed:
    """All that is watched with one tenant credential. It lives as long as that credential.

    Args:
        access: the vetted kubeconfig.
        namespace: the tenant's namespace of OVN-Kubernetes.
        on_change: called with the key that changed (None: nodes, or the link) and the changed object, if it was one.

    """

    def __init__(
        self, access: Access, *, namespace: str, on_change: Callable[[TenantKey | None, Obj | None], None]
    ) -> None:
        self.access = access
        self.namespace = namespace
        self._on_change = on_change
        self._cluster = Cluster(access)
        self._gate = LinkGate(on_change=lambda _: on_change(None, None), server=access.host)
        self._shelves: dict[TenantKey, Shelf] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._nodes = Shelf(
            ListWatch(self._cluster, NODE, link=self._gate),
            on_change=lambda _: on_change(None, None),
            keep=tenant_node,
        )
        self._start(self._nodes, "nodes")
        self.want(ALWAYS)

    def want(self, keys: tuple[TenantKey, ...]) -> None:
        """Watch these too; what is watched already goes on."""
        for key in keys:
            if key in self._shelves:
                continue
            ref = key.ref(self.namespace)
            shelf = Shelf(
                ListWatch(self._cluster, ref.kind, ref.namespace, name=ref.name, link=self._gate),
                on_change=lambda obj, key=key: self._on_change(key, obj),  # type: ignore[misc]
            )
            self._shelves[key] = shelf
            self._start(shelf, key.object_name)

    def _start(self, shelf: Shelf, name: str) -> None:
        self._tasks.append(asyncio.create_task(shelf.run(), name=f"tenant {self.access.host} {name}"))

    @property
    def settled(self) -> bool:
        """Whether each watch has an answer."""
        return self._nodes.settled and all(shelf.settled for shelf in self._shelves.values())

    @property
    def link(self) -> Link:
        return self._gate.link

    def world(self, credential: Credential) -> TenantWorld:
        """A frozen copy of what is known now."""
        objects = {key: self._seen(key, shelf) for key, shelf in self._shelves.items()}
        return TenantWorld(
            credential=credential,
            link=self.link,
            objects=objects,
            nodes=tuple(self._nodes),
            nodes_sight=self._nodes.sight,
        )

    def _seen(self, key: TenantKey, shelf: Shelf) -> Seen:
        """What was seen before our rights were taken away says nothing of now: it is a refusal, and copies stay."""
        if shelf.settled and not shelf.complete:
            return Seen(shelf.sight)
        return shelf.get(key.object_name, self._namespace_of(key))

    def _namespace_of(self, key: TenantKey) -> str:
        return self.namespace if key.kind.namespaced else ""

    async def close(self) -> None:
        """End all watches and connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._cluster.close()
