"""One operator without kopf between two simulated API servers: everything from the watches to the status is the real thing."""

import asyncio
import contextlib
import copy
import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable
from functools import cache
from typing import Any

import pytest

from dpu_operator import fleet as fleet_room
from dpu_operator import reconcile
from dpu_operator.fleet import Fleet
from dpu_operator.kube.access import Access
from dpu_operator.kube.vetting import vet
from dpu_operator.observe import folder
from dpu_operator.observe import tenant as tenant_room
from dpu_operator.reconcile import Session
from dpu_operator.world import NODE, OVN_KUBE_CONFIG, Obj, Ref, TenantWorld
from tests.unit.core.server import ApiServer
from tests.unit.core.worlds import AGENT, EXAMPLES, NAMESPACE, NOW, TREE, example_config, example_infra
from tests.unit.hostile_kubeconfigs import b64, good, written

CONFIG = Ref(OVN_KUBE_CONFIG, NAMESPACE, "cluster")
PATIENCE = 5.0
"""Seconds that a test waits for what must happen."""


@cache
def kubeconfig(server: str = "https://api.tenant.example:6443", token: str = "token-m4rk3r") -> str:
    config = good()
    config["clusters"][0]["cluster"]["server"] = server
    config["users"][0]["user"]["token"] = token
    return written(config)


def kubeconfig_secret(text: str, name: str = "tenant-kubeconfig") -> Obj:
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"config": b64(text)}}


def objects_of(tenant: TenantWorld) -> Iterable[Obj]:
    """The objects of a tenant as its API server would have them."""
    for key, seen in tenant.objects.items():
        if seen.object is not None:
            meta = {**seen.object["metadata"], "name": key.object_name}
            if key.kind.namespaced:
                meta["namespace"] = "openshift-ovn-kubernetes"
            yield {**seen.object, "apiVersion": key.kind.api_version, "kind": key.kind.kind, "metadata": meta}
    yield from tenant.nodes


@cache
def tenant_objects() -> tuple[Obj, ...]:
    """The example tenant's, nodes and all."""
    return tuple(folder.load(EXAMPLES / "tenant-4.20").values())


class Stage:
    """The operator, the two clusters, and what a test wants to know of them."""

    def __init__(self, infra: ApiServer, tenant: ApiServer) -> None:
        self.infra = infra
        self.tenants = {"https://api.tenant.example:6443": tenant}
        self.feeds: list[str] = []
        self.now = NOW
        self.fleet = Fleet(vet(kubeconfig()), images={"agent": AGENT}, tree=TREE, clock=lambda: self.now)
        self._stops: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._loops: list[asyncio.Task[None]] = []

    @property
    def tenant(self) -> ApiServer:
        return next(iter(self.tenants.values()))

    def cluster_of(self, access: Access) -> ApiServer:
        self.feeds.append(access.server)
        return self.tenants[access.server]

    # what kopf does

    async def start(self, *configs: Obj) -> None:
        """Tell of every resource, then run them; and tell of their changes from now on."""
        for config in configs or (example_config(),):
            self.fleet.saw(self.infra.put(config))
        self._tasks.append(asyncio.create_task(self._follow()))
        for uid in list(self.fleet.configs):
            self.run(uid)

    def run(self, uid: str) -> None:
        self._stops[uid] = stop = asyncio.Event()
        self._loops.append(asyncio.create_task(self.fleet.run(uid, stop.wait())))

    async def _follow(self) -> None:
        _, version = await self.infra.list(OVN_KUBE_CONFIG)
        stream = await self.infra.watch(OVN_KUBE_CONFIG, resource_version=version, timeout_seconds=1)
        async for event, obj in stream:
            if event == "DELETED":
                await self.fleet.gone(obj["metadata"]["uid"])
            else:
                self.fleet.saw(obj)

    async def stop(self) -> None:
        """End the loops as kopf does at SIGTERM."""
        for event in self._stops.values():
            event.set()
        async with asyncio.timeout(PATIENCE):
            await self.loops()

    async def loops(self) -> None:
        """Wait for the end of every resource's loop."""
        await asyncio.gather(*self._loops)

    async def close(self) -> None:
        tasks = (*self._tasks, *self._loops)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.fleet.close()

    # what a test looks at

    @property
    def session(self) -> Session:
        return next(iter(self.fleet._sessions.values()))

    def status(self, ref: Ref = CONFIG) -> Obj:
        status: Obj = self.infra.objects[ref].get("status", {})
        return status

    def condition(self, kind: str, ref: Ref = CONFIG) -> tuple[str, str]:
        """Status and reason."""
        for condition in self.status(ref).get("conditions", []):
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return "", ""

    def reports(self) -> list[Obj]:
        """Every status that was written."""
        return [body["status"] for verb, _, body in self.infra.writes if verb == "patch status"]

    def reasons(self) -> set[str]:
        """Every reason that was ever in a status."""
        return {condition["reason"] for report in self.reports() for condition in report["conditions"]}

    def writes(self) -> list[str]:
        """Every write but those of the status."""
        return [f"{verb} {ref}" for verb, ref, _ in self.infra.writes if verb != "patch status"]

    async def until(self, what: Callable[[], object]) -> None:
        """Wait until something is so."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not what():  # noqa: ASYNC110 - whatever it is, no event tells of it
                    await asyncio.sleep(0.002)
        except TimeoutError:
            said = {c["type"]: f"{c['status']} {c['reason']}" for c in self.status().get("conditions", [])}
            pytest.fail(f"It did not come about. The conditions are {said}")

    async def quiet(self, seconds: float = 0.06) -> None:
        """Give what should not happen the time to happen."""
        await asyncio.sleep(seconds)

    async def settled(self) -> None:
        """Until all objects are there and the status is written."""
        await self.until(lambda: self.condition("TenantObjectsSynced") == ("True", "Synced"))
        await self.until(lambda: self.condition("OvnKubeReady")[1] not in ("", "NotCreated"))
        await self.quiet(0.05)

    def edit(self, server: ApiServer, ref: Ref, change: Callable[[Obj], Any]) -> None:
        obj = copy.deepcopy(server.objects[ref])
        change(obj)
        server.put(obj)

    def replace_kubeconfig(self, text: str) -> None:
        self.infra.put(kubeconfig_secret(text))


@contextlib.asynccontextmanager
async def opened(
    monkeypatch: pytest.MonkeyPatch, *, tenant: Iterable[Obj] = (), **pauses: float
) -> AsyncIterator[Stage]:
    """A stage that is not started yet; the operator's pauses are short unless the test says otherwise."""
    short = {"PAUSE": 0.002, "PAUSE_AFTER_COPY": 0.01, "COPYING_LIMIT": 1.0, "PATIENCE": 5.0}
    for name, value in (short | pauses).items():
        monkeypatch.setattr(reconcile, name, value)
    infra = ApiServer([*example_infra(), kubeconfig_secret(kubeconfig())])
    monkeypatch.setattr(fleet_room, "Cluster", lambda _: infra)
    stage = Stage(infra, ApiServer(list(tenant) or tenant_objects(), host="api.tenant.example:6443"))
    monkeypatch.setattr(tenant_room, "Cluster", stage.cluster_of)
    try:
        yield stage
    finally:
        await stage.close()


def later(stage: Stage, seconds: float) -> None:
    stage.now += dt.timedelta(seconds=seconds)


__all__ = ["CONFIG", "NODE", "Stage", "kubeconfig", "kubeconfig_secret", "later", "objects_of", "opened"]
