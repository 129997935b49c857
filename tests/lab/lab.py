"""The lab as a whole: both clusters, what lives in them, and everything that can be broken."""

import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.lab import binaries, kwok, mco, openshift, places, processes
from tests.lab.controlplane import ControlPlane
from tests.lab.credentials import TenantCredentials
from tests.lab.errors import LabError
from tests.lab.tenant import INTERCONNECT, Tenant
from tests.lab.waiting import eventually

DPUS = ("dpu-0", "dpu-1", "dpu-2")
POOL = "dpu"


@dataclass
class Timings:
    """How long the steps of a start took, in seconds since its beginning."""

    began: float = field(default_factory=time.monotonic)
    steps: dict[str, float] = field(default_factory=dict)
    aloud: bool = False

    def mark(self, what: str) -> None:
        """A step is done."""
        self.steps[what] = round(time.monotonic() - self.began, 2)
        if self.aloud:
            print(f"dpu-lab: {self.steps[what]:5.1f} s  {what}", file=sys.stderr, flush=True)


class Lab:
    """Two clusters in a folder; `with Lab(folder) as lab` starts and ends them."""

    def __init__(
        self, folder: Path, *, with_tenant: bool = True, detach: bool = False, tenant_folder: Path = INTERCONNECT
    ) -> None:
        self.folder = folder
        self.detach = detach
        self.tenant_folder = tenant_folder
        self.infra = ControlPlane("infra", folder / "infra", controllers=True, detach=detach)
        self._tenant = (
            ControlPlane("tenant", folder / "tenant", controllers=False, detach=detach) if with_tenant else None
        )
        self.mco = mco.Control(self.infra.admin)
        self._mco: mco.MachineConfigOperator | None = None
        self._contents: Tenant | None = None
        self.timings = Timings()

    # -- parts --------------------------------------------------------------------------------------------------

    @property
    def clusters(self) -> tuple[ControlPlane, ...]:
        """Infra, and the tenant where there is one."""
        return (self.infra, self._tenant) if self._tenant else (self.infra,)

    @property
    def tenant(self) -> ControlPlane:
        """The tenant cluster."""
        if self._tenant is None:
            raise LabError("This lab has no tenant cluster.", "Run `dpu-lab down`, then `dpu-lab up`.")
        return self._tenant

    @property
    def contents(self) -> Tenant:
        """What is in the tenant."""
        if self._contents is None:
            self._contents = Tenant(self.tenant.admin, self.tenant.authority.cert)
        return self._contents

    @property
    def credentials(self) -> TenantCredentials:
        """The operator's account in the tenant."""
        return TenantCredentials(self.tenant)

    # -- life ---------------------------------------------------------------------------------------------------

    def up(self, *, wait: bool = True, aloud: bool = False) -> Timings:
        """Start everything. What can wait for nothing is started first, so that the two clusters start together."""
        took = self.timings = Timings(aloud=aloud)
        binaries.find()
        took.mark("binaries found")
        for cluster in self.clusters:
            cluster.start_etcd()
        for cluster in self.clusters:
            cluster.wait_etcd()
            cluster.start_api()
            cluster.start_proxy()
        took.mark("etcd healthy")
        definitions = openshift.Definitions.read(openshift.INFRA_FILES)
        self._start_infra(definitions)
        took.mark("infra API ready, controllers and kwok started")
        if self._tenant is not None:
            self._start_tenant(self._tenant)
            took.mark("tenant API ready and filled")
        definitions.wait(self.infra.admin)
        openshift.install_pool_policy(self.infra.admin)
        mco.furnish(self.infra.admin)
        self._start_mco()
        took.mark("OpenShift's CRDs, pools and their operator")
        if wait:
            self.wait()
            took.mark("nodes Ready and pools Updated")
        (self.folder / "lab.json").write_text(json.dumps({"tenant": self._tenant is not None, "took": took.steps}))
        return took

    def _start_infra(self, definitions: openshift.Definitions) -> None:
        self.infra.wait_api()
        self.infra.start_controllers()
        definitions.install(self.infra.admin)
        kwok.start_kwok(self.infra)
        nodes = [kwok.dpu_node(name, f"198.51.100.{31 + index}") for index, name in enumerate(DPUS)]
        kwok.add_nodes(self.infra.admin, nodes)

    def _start_tenant(self, tenant: ControlPlane) -> None:
        definitions = openshift.Definitions.read(openshift.TENANT_FILES)
        tenant.wait_api()
        definitions.install(tenant.admin)
        definitions.wait(tenant.admin)
        self.contents.load(self.tenant_folder)
        self.credentials.install()

    def _start_mco(self) -> None:
        if self.detach:
            config = str(self.infra.folder / "mco.kubeconfig")
            processes.start(
                "machine-config-operator", [sys.executable, "-m", "tests.lab.mco", "--kubeconfig", config],
                self.infra.folder, detach=True, cwd=places.REPOSITORY,
            )  # fmt: skip
            return
        access = self.infra.access("dpu-lab-mco", ("system:masters",), direct=True)
        self._mco = mco.MachineConfigOperator(access)
        self._mco.start()

    def wait(self, timeout: float = 60) -> None:
        """Wait until the nodes are Ready and both pools Updated, the DPUs' with all of its machines."""
        kwok.wait_nodes_ready(self.infra.admin, DPUS, timeout)
        self.wait_pool(POOL, machines=len(DPUS), timeout=timeout)
        self.wait_pool("worker", machines=0, timeout=timeout)

    def wait_pool(self, name: str = POOL, *, machines: int = len(DPUS), timeout: float = 30) -> None:
        """Wait until a pool's machines all run what its spec names."""

        def updated() -> bool:
            pool = self.infra.admin.get(mco.POOL, name)
            status = pool.get("status") or {}
            conditions = {each["type"]: each["status"] for each in status.get("conditions") or []}
            target = (pool["spec"].get("configuration") or {}).get("name")
            same = target is not None and (status.get("configuration") or {}).get("name") == target
            return same and conditions.get("Updated") == "True" and status["machineCount"] == machines

        eventually(updated, f"the pool {name} to be Updated with {machines} machines", timeout=timeout)

    def mend(self) -> None:
        """Undo whatever is broken; cheap where nothing is. What a test has made in infra is its own to delete."""
        for cluster in self.clusters:
            cluster.network().set("pass")
        self.mco.resume()
        for name in (POOL, "worker"):
            self.mco.pause(name, paused=False)
        for namespace, owner in kwok.held(self.infra.admin):
            kwok.release(self.infra.admin, namespace, owner)
        if self._tenant is None:
            return
        if self.tenant.serving != "server":
            self.credentials.swap_ca_back()
        self.contents.restore()
        self.credentials.install()

    def down(self) -> None:
        """End everything that was started, and nothing else."""
        if self._mco is not None:
            self._mco.stop()
        for cluster in reversed(self.clusters):
            cluster.stop()
        for process in processes.remembered(self.folder):
            process.stop()

    def remove(self) -> None:
        """Forget the data too."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start it; what a failed start leaves is ended."""
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.down()

    @classmethod
    def attach(cls, folder: Path) -> "Lab":
        """The lab that an earlier `dpu-lab up` left running."""
        noted = folder / "lab.json"
        if not noted.exists():
            raise LabError(f"No lab is running in {folder}.", "Start one with `dpu-lab up`.")
        lab = cls(folder, with_tenant=json.loads(noted.read_text())["tenant"], detach=True)
        for cluster in lab.clusters:
            cluster.attach()
        return lab

    def running(self) -> list[processes.Process]:
        """The programs of the lab that run now."""
        folders = [self.folder, *(cluster.folder for cluster in self.clusters)]
        return [each for folder in folders for each in processes.remembered(folder) if each.alive()]
