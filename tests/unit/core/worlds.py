"""The shipped example as a world that a test can change: a tenant, and an infra cluster behind a simulated API server."""

import asyncio
import copy
import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources
from pathlib import Path

from dpu_operator import plan as planning
from dpu_operator.apply import executor
from dpu_operator.observe import folder
from dpu_operator.observe.tree import load_tree
from dpu_operator.plan.machineconfig import ref_of
from dpu_operator.report.status import status_of
from dpu_operator.world import (
    CONFIG_MAP,
    DAEMON_SET,
    MACHINE_CONFIG_POOL,
    NODE,
    SECRET,
    Apply,
    Condition,
    Credential,
    InfraWorld,
    Link,
    LinkState,
    Obj,
    Plan,
    Ref,
    Seen,
    Sight,
    Step,
    TenantKey,
    TenantWorld,
)
from dpu_shared.host_config import HostConfig
from dpu_shared.node_report import NodeReport, State
from tests.lab import mco_rules
from tests.unit.core.server import ApiServer
from tests.unit.core.server import ref_of as place_of
from tests.unit.plan.worlds import central_tenant

EXAMPLES = Path(str(resources.files("dpu_operator") / "examples"))
NOW = dt.datetime(2026, 5, 20, 12, 0, tzinfo=dt.UTC)
NAMESPACE = "tenant-1"
TENANT_NAMESPACE = "openshift-ovn-kubernetes"
TREE = load_tree({})
AGENT = "registry.example/dpu-agent@sha256:" + 64 * "1"
IMAGE = "registry.example/ovnkube@sha256:" + 64 * "2"
OPERAND = Ref(DAEMON_SET, NAMESPACE, "ovnkube-node")
POOL = Ref(MACHINE_CONFIG_POOL, None, "dpu")
GOOD = {
    "MachineConfigApplied": "True",
    "OvnKubeReady": "True",
    "TenantClusterApiServerUnreachable": "False",
    "TenantObjectsSynced": "True",
    "TenantCredentialsValid": "True",
    "NodesMapped": "True",
    "HostsConfigured": "True",
    "VersionAligned": "True",
    "Available": "True",
    "Progressing": "False",
    "Degraded": "False",
}


def config_map(name: str) -> Ref:
    return Ref(CONFIG_MAP, NAMESPACE, name)


def secret(name: str) -> Ref:
    return Ref(SECRET, NAMESPACE, name)


@cache
def _example_config() -> Obj:
    return folder.config_of(EXAMPLES / "ovnkubeconfig.yaml")


def example_config() -> Obj:
    config = copy.deepcopy(_example_config())
    config["metadata"] |= {"uid": "uid-of-the-resource", "creationTimestamp": "2026-05-19T09:00:00Z"}
    return config


@cache
def example_infra() -> tuple[Obj, ...]:
    return tuple(folder.load(EXAMPLES / "infra").values())


@cache
def example_tenant() -> TenantWorld:
    return folder.tenant_world(folder.load(EXAMPLES / "tenant-4.20"), namespace=TENANT_NAMESPACE)


@cache
def central() -> TenantWorld:
    """The tenant as OCP 4.13 leaves it."""
    return dataclasses.replace(
        central_tenant(), credential=Credential(seen=Sight.PRESENT, what="token"), link=Link(state=LinkState.UP)
    )


@dataclasses.dataclass
class World:
    """What one OVNKubeConfig looks at. Everything may be changed between two plans."""

    server: ApiServer = dataclasses.field(default_factory=lambda: ApiServer(example_infra()))
    config: Obj = dataclasses.field(default_factory=example_config)
    tenant: TenantWorld = dataclasses.field(default_factory=example_tenant)
    infra_changes: dict[str, object] = dataclasses.field(default_factory=dict)
    """Fields of the InfraWorld that are not as the server's objects make them."""

    def clone(self) -> "World":
        return World(self.server.clone(), copy.deepcopy(self.config), self.tenant, dict(self.infra_changes))

    def infra(self) -> InfraWorld:
        made = folder.infra_world(self.config, self.server.objects, images={"agent": AGENT}, now=NOW)
        return dataclasses.replace(made, **self.infra_changes)  # type: ignore[arg-type]

    def plan(self) -> Plan:
        return planning.plan(self.infra(), self.tenant, tree=TREE)

    def do(self, steps: Iterable[Step]) -> None:
        """Carry out steps one after the other, as the executor does."""

        async def each() -> None:
            for step in steps:
                if isinstance(step, Apply):
                    await executor.apply(step, self.server)  # type: ignore[arg-type]
                else:
                    await self.server.delete(step.ref, uid=step.uid)

        asyncio.run(each())

    def converge(self) -> Plan:
        """Plan and do, once; what is planned after that is returned."""
        self.do(self.plan().steps)
        return self.plan()

    def report(self) -> dict[str, str]:
        """Write the status, and return each condition's."""
        plan = self.plan()
        before = self.config.get("status", {})
        self.config["status"] = status_of(plan, before=before, generation=1, now=NOW)
        return {c.type: str(c.status) for c in plan.conditions}

    def condition(self, kind: str) -> Condition:
        return next(c for c in self.plan().conditions if c.type == kind)

    def live(self, ref: Ref) -> Obj:
        return self.server.objects[ref]

    def edit(self, ref: Ref, change: Callable[[Obj], object]) -> None:
        """Somebody else changes an object of the infra cluster."""
        obj = copy.deepcopy(self.server.objects[ref])
        change(obj)
        self.server.put(obj)

    def tenant_object(self, key: TenantKey, value: Seen | Obj) -> None:
        seen = value if isinstance(value, Seen) else Seen(Sight.PRESENT, value)
        self.tenant = dataclasses.replace(self.tenant, objects={**self.tenant.objects, key: seen})

    def edit_tenant(self, key: TenantKey, change: Callable[[Obj], object]) -> None:
        obj = copy.deepcopy(self.tenant.object(key))
        assert obj is not None
        change(obj)
        self.tenant_object(key, obj)

    def link(self, state: LinkState, message: str = "") -> None:
        self.tenant = dataclasses.replace(
            self.tenant, link=Link(state=state, message=message, server="api.tenant:6443")
        )

    # what the other programs of the cluster do

    def nodes(self) -> list[Ref]:
        return [ref for ref in self.server.objects if ref.kind == NODE]

    def machine_config_operator(self) -> None:
        """Render the pool, and let every machine run it."""
        configs = [o for r, o in self.server.objects.items() if r == ref_of(self.infra())]
        pool = copy.deepcopy(self.live(POOL))
        target = mco_rules.rendered(pool, configs)
        pool["spec"]["configuration"] = mco_rules.configuration(target, configs)
        pool["metadata"]["generation"] = 1
        name = target["metadata"]["name"]
        for ref in self.nodes():
            marks = {mco_rules.CURRENT: name, mco_rules.DESIRED: name, mco_rules.STATE: "Done"}
            self.edit(ref, lambda node, marks=marks: node["metadata"]["annotations"].update(marks))  # type: ignore[misc]
        pool["status"] = mco_rules.status(pool, [self.live(ref) for ref in self.nodes()], None)
        self.server.put(target)
        self.server.put(pool)

    def daemon_set_controller(self, *, wanted: int = 3, updated: int = 3, ready: int = 3) -> None:
        def change(obj: Obj) -> None:
            obj["status"] = {
                "observedGeneration": obj["metadata"]["generation"],
                "desiredNumberScheduled": wanted,
                "updatedNumberScheduled": updated,
                "numberReady": ready,
                "numberAvailable": ready,
            }

        self.edit(OPERAND, change)

    def agents(self, state: State = State.READY, message: str = "All is as configured.") -> None:
        digest = HostConfig.from_spec(self.config["spec"]["hostConfig"]).config_hash()
        for ref in self.nodes():
            boot = self.live(ref)["status"]["nodeInfo"]["bootID"]
            report = NodeReport(state, message=message, config_hash=digest, boot_id=boot).to_annotations()
            self.edit(ref, lambda node, report=report: node["metadata"]["annotations"].update(report))  # type: ignore[misc]


def healthy(tenant: TenantWorld | None = None) -> World:
    """A world in which everything is done and every condition is good."""
    return _healthy(interconnect=tenant is None or tenant is example_tenant()).clone()


@cache
def _healthy(*, interconnect: bool) -> World:
    tenant = None if interconnect else central()
    world = World() if tenant is None else World(tenant=tenant)
    if tenant is not None:
        world.config["spec"]["ovnKubeImage"] = IMAGE  # infra's own is of another release
    world.converge()
    world.machine_config_operator()
    world.daemon_set_controller()
    world.agents()
    return world


def foreign(kind: str, name: str, **content: object) -> Obj:
    """Somebody else's object."""
    group = "apps/v1" if kind == "DaemonSet" else "v1"
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **content}


__all__ = [
    "AGENT",
    "EXAMPLES",
    "GOOD",
    "IMAGE",
    "NAMESPACE",
    "NOW",
    "OPERAND",
    "POOL",
    "TENANT_NAMESPACE",
    "TREE",
    "World",
    "central",
    "config_map",
    "example_config",
    "example_infra",
    "example_tenant",
    "foreign",
    "healthy",
    "place_of",
    "secret",
]
