"""The operator under test: its account in the infra cluster, a tenant's namespace, and the process itself.

Not called `operator.py`: a module of that name beside others hides the standard library's.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import credentials, processes, yamlfiles
from tests.lab.client import Client, Object, name_of
from tests.lab.controlplane import ControlPlane
from tests.lab.errors import LabError
from tests.lab.kubeconfig import Access
from tests.lab.openshift import wait_established

PRIVILEGED = {f"pod-security.kubernetes.io/{mode}": "privileged" for mode in ("enforce", "audit", "warn")}


@dataclass(frozen=True)
class Account:
    """The operator's ServiceAccount in the infra cluster."""

    infra: ControlPlane
    namespace: str = "dpu-network-operator"
    name: str = "dpu-network-operator"

    @property
    def user(self) -> str:
        """Its user name, as the audit log has it."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    def install(self, manifests: Sequence[Path]) -> None:
        """The namespace, then every object of the given files (CRD, RBAC); the CRDs are established afterwards."""
        admin = self.infra.admin
        namespace(admin, self.namespace, {})
        items = [item for path in manifests for item in yamlfiles.everything(path)]
        rank = {"CustomResourceDefinition": 0, "Namespace": 0, "ServiceAccount": 1}
        for item in sorted(items, key=lambda each: rank.get(each["kind"], 2)):
            admin.apply(item)
        if admin.find("v1/ServiceAccount", self.name, self.namespace) is None:
            account = {"name": self.name, "namespace": self.namespace}
            admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        wait_established(admin, {name_of(each) for each in items if each["kind"] == "CustomResourceDefinition"})

    def token(self, seconds: int = credentials.DAY) -> str:
        """A token, by TokenRequest."""
        return credentials.mint(self.infra.admin, self.namespace, self.name, seconds)

    def access(self, server: str | None = None) -> Access:
        """The account through the infra cluster's proxy, or at another address."""
        return Access(server or self.infra.url, self.infra.authority.cert, token=self.token())

    def write_kubeconfig(self, path: Path, access: Access | None = None) -> Path:
        """A kubeconfig file for the operator's process."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text((access or self.access()).kubeconfig(self.name, "infra", self.namespace))
        return path


def namespace(admin: Client, name: str, labels: Mapping[str, str] = PRIVILEGED) -> Object:
    """A namespace; by default one that may hold ovnkube-node, which is privileged."""
    metadata = {"name": name, "labels": dict(labels)}
    return admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def kubeconfig_secret(
    admin: Client, space: str, text: str, name: str = "tenant-kubeconfig", key: str = "config"
) -> Object:
    """The Secret that an OVNKubeConfig names; applying it again replaces the kubeconfig."""
    return admin.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": space},
            "type": "Opaque",
            "stringData": {key: text},
        }
    )


@dataclass
class OperatorProcess:
    """The operator as a process: start, end, end hard, start again; each start appends to the same log."""

    argv: Sequence[str]
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    name: str = "operator"
    detach: bool = False
    process: processes.Process | None = None

    @property
    def log(self) -> Path:
        """Everything it said."""
        return self.folder / f"{self.name}.log"

    def start(self) -> processes.Process:
        """Start it."""
        if self.process is not None and self.process.alive():
            raise LabError(f"{self.name} already runs as {self.process.pid}.", "Terminate it first.")
        environment = {"PYTHONUNBUFFERED": "1", **self.env}
        self.process = processes.start(
            self.name, self.argv, self.folder, env=environment, detach=self.detach, cwd=Path.cwd()
        )
        return self.process

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.alive()

    def terminate(self, grace: float = 10) -> int | None:
        """SIGTERM, wait, return the exit code; SIGKILL after the grace time."""
        running = self._running()
        running.signal(signal.SIGTERM)
        if not running.wait(grace):
            running.kill()
        return running.exit_code()

    def kill(self) -> None:
        """SIGKILL: what was written so far is all there is."""
        self._running().kill()

    def restart(self) -> processes.Process:
        """Terminate, then start."""
        if self.alive():
            self.terminate()
        return self.start()

    def text(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def resident_mib(self) -> float:
        """Resident memory."""
        return self._running().resident_mib()

    def cpu_seconds(self) -> float:
        """CPU time so far."""
        return self._running().cpu_seconds()

    def _running(self) -> processes.Process:
        if self.process is None:
            raise LabError(f"{self.name} was not started.", "Call start() first.")
        return self.process


def operator_environment() -> dict[str, str]:
    """The environment without what would lead an operator to another cluster."""
    return {key: "" for key in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG") if key in os.environ}
