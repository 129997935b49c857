"""The infra cluster: what all resources share, and what belongs to one resource's namespace."""

import asyncio
from collections.abc import Callable, Mapping

from dpu_operator.kube.client import ApiError, Cluster, ClusterError
from dpu_operator.kube.link import LinkGate
from dpu_operator.kube.listwatch import ListWatch
from dpu_operator.observe.essentials import INFRA_OVN_NAMESPACE, WRITTEN_KINDS, infra_node
from dpu_operator.observe.shelf import Shelf
from dpu_operator.world import (
    DAEMON_SET,
    FIELD_MANAGER,
    MACHINE_CONFIG,
    MACHINE_CONFIG_POOL,
    MANAGED_BY_LABEL,
    NODE,
    Kind,
    Obj,
    Ref,
    Seen,
    Sight,
)


class Feeds:
    """Some shelves that run together on one link.

    Args:
        cluster: the API server; it is not closed here.
        link: whether it answers; one for all that is watched there.

    """

    def __init__(self, cluster: Cluster, link: LinkGate) -> None:
        self.cluster = cluster
        self._tasks: list[asyncio.Task[None]] = []
        self._link = link
        self._shelves: list[Shelf] = []

    def add(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        on_change: Callable[[Obj | None], None],
        name: str | None = None,
        label_selector: str | None = None,
        keep: Callable[[Obj], Obj] = lambda obj: obj,
    ) -> Shelf:
        """Start one more watch."""
        source = ListWatch(self.cluster, kind, namespace, name=name, label_selector=label_selector, link=self._link)
        shelf = Shelf(source, on_change=on_change, keep=keep)
        self._shelves.append(shelf)
        self._tasks.append(asyncio.create_task(shelf.run(), name=f"infra {namespace or ''} {kind.plural}"))
        return shelf

    @property
    def settled(self) -> bool:
        """Whether each watch has an answer."""
        return all(shelf.settled for shelf in self._shelves)

    async def close(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class InfraFeed:
    """What every resource looks at: pools, our MachineConfigs, Nodes, and infra's own ovnkube-node."""

    def __init__(self, cluster: Cluster, *, on_change: Callable[[], None]) -> None:
        self.cluster = cluster
        self._on_change = on_change
        self.link = LinkGate(server=cluster.access.host)
        self._feeds = Feeds(cluster, self.link)
        ours = f"{MANAGED_BY_LABEL}={FIELD_MANAGER}"
        self.pools = self._feeds.add(MACHINE_CONFIG_POOL, on_change=self._changed)
        self.machine_configs = self._feeds.add(MACHINE_CONFIG, label_selector=ours, on_change=self._changed)
        self.nodes = self._feeds.add(NODE, keep=infra_node, on_change=self._changed)
        self.ovnkube = self._feeds.add(DAEMON_SET, INFRA_OVN_NAMESPACE, name="ovnkube-node", on_change=self._changed)
        self._rendered: dict[str, Obj] = {}
        self._strangers = Feeds(cluster, self.link)
        self._foreign: dict[str, Shelf] = {}

    def _changed(self, _: Obj | None) -> None:
        self._on_change()

    @property
    def settled(self) -> bool:
        return self._feeds.settled

    async def machine_config(self, name: str) -> Seen:
        """Our own MachineConfig of that name, or a foreign one that took it.

        The watch sees only labelled ones. A foreign one gets a watch of its own, which tells when it makes room.
        """
        seen = self.machine_configs.get(name)
        if seen.object is not None:
            return seen
        watched = self._foreign.get(name)
        if watched is not None and watched.settled:
            return watched.get(name)
        seen = await self._read(name)
        if seen.object is not None and name not in self._foreign:
            self._foreign[name] = self._strangers.add(MACHINE_CONFIG, name=name, on_change=self._changed)
        return seen

    async def rendered(self, name: str) -> Seen:
        """The rendered MachineConfig of that name. Its content never changes (the name ends in its hash): read once."""
        if name in self._rendered:
            return Seen(Sight.PRESENT, self._rendered[name])
        seen = await self._read(name)
        if seen.object is not None:
            self._rendered = {**dict(list(self._rendered.items())[-7:]), name: seen.object}
        return seen

    async def _read(self, name: str) -> Seen:
        try:
            return Seen(Sight.PRESENT, await self.cluster.get(Ref(MACHINE_CONFIG, None, name)))
        except ApiError as error:
            return Seen({403: Sight.FORBIDDEN, 404: Sight.ABSENT}.get(error.status, Sight.UNSEEN))
        except ClusterError:
            return Seen()

    async def close(self) -> None:
        await self._feeds.close()
        await self._strangers.close()


class NamespaceFeed:
    """What one resource's namespace holds of the kinds that we write.

    Args:
        cluster: the infra API server.
        namespace: the resource's namespace.
        link: that of all watches of this API server.
        on_change: called with the kind when anything there changed that was not our own write.

    """

    def __init__(self, cluster: Cluster, namespace: str, *, link: LinkGate, on_change: Callable[[Kind], None]) -> None:
        self.namespace = namespace
        self._feeds = Feeds(cluster, link)
        self._by_kind: dict[Kind, Shelf] = {
            kind: self._feeds.add(kind, namespace, on_change=lambda _, kind=kind: on_change(kind))  # type: ignore[misc]
            for kind in WRITTEN_KINDS
        }

    @property
    def settled(self) -> bool:
        return self._feeds.settled

    @property
    def complete(self) -> bool:
        return all(shelf.complete for shelf in self._by_kind.values())

    def refused(self) -> tuple[str, ...]:
        """The plurals that we are not allowed to read here."""
        return tuple(kind.plural for kind, shelf in self._by_kind.items() if shelf.sight is Sight.FORBIDDEN)

    def get(self, kind: Kind, name: str) -> Seen:
        return self._by_kind[kind].get(name, self.namespace)

    def wrote(self, ref: Ref, obj: Obj | None) -> None:
        """Note the answer to a write of our own."""
        self._by_kind[ref.kind].wrote(ref, obj)

    def live(self) -> Mapping[Ref, Obj]:
        """Everything there, by place."""
        return {
            Ref(kind, self.namespace, obj["metadata"]["name"]): obj
            for kind, shelf in self._by_kind.items()
            for obj in shelf
        }

    async def close(self) -> None:
        await self._feeds.close()
