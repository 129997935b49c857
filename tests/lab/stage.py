"""The operator on a lab, as its users install it: account, rights, a tenant's namespace, the process, the resource."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.lab import operator_run, places, yamlfiles
from tests.lab.client import Object
from tests.lab.lab import POOL, Lab
from tests.lab.waiting import eventually

CHARTS = places.REPOSITORY / "charts" / "dpu-network-operator"
AGENT_IMAGE = "registry.example.com/dpu-network-operator/dpu-agent@sha256:" + "a9" * 32
INFRA_OVNKUBE = places.REPOSITORY / "operator/dpu_operator/examples/infra/daemonset-ovnkube-node.yaml"
CONFIG = "dpu.openshift.io/v1/OVNKubeConfig"
TENANT_ROLE = "dpu-network-operator-tenant"


def manifests() -> list[Path]:
    """CRD and RBAC, from where the chart and the bundle take them."""
    return sorted([*(CHARTS / "crds").glob("*.yaml"), *(CHARTS / "rbac").glob("*.yaml")])


def argv(kubeconfig: Path, *options: str) -> list[str]:
    """The operator's command line."""
    return [sys.executable, "-m", "dpu_operator.cli", "run", "--kubeconfig", str(kubeconfig), *options]


def config(namespace: str = "tenant-1", name: str = "cluster", **spec: object) -> Object:
    """An OVNKubeConfig."""
    return {
        "apiVersion": "dpu.openshift.io/v1",
        "kind": "OVNKubeConfig",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"kubeConfigFile": "tenant-kubeconfig", "poolName": POOL, **spec},
    }


@dataclasses.dataclass
class Stage:
    """A lab with an operator that can be started, killed and looked at."""

    lab: Lab
    folder: Path
    detach: bool = False
    options: Sequence[str] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.account = operator_run.Account(self.lab.infra)
        self.kubeconfig = self.folder / "operator.kubeconfig"
        self.process = operator_run.OperatorProcess(
            argv(self.kubeconfig, *self.options),
            self.folder,
            {"RELATED_IMAGE_AGENT": AGENT_IMAGE, **operator_run.operator_environment(), **self.env},
            detach=self.detach,
        )

    def install(self) -> None:
        """CRD, RBAC, infra's own ovnkube-node (its network operator's, on a real cluster), the operator's kubeconfig."""
        admin = self.lab.infra.admin
        operator_run.namespace(admin, "openshift-ovn-kubernetes")
        admin.apply(yamlfiles.everything(INFRA_OVNKUBE)[0])
        self.account.install(manifests())
        self.account.write_kubeconfig(self.kubeconfig)

    def tenant_namespace(self, name: str = "tenant-1", kubeconfig: str | None = None) -> None:
        """The namespace of a tenant: labels, the operator's rights in it, the kubeconfig."""
        admin = self.lab.infra.admin
        operator_run.namespace(admin, name)
        admin.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": TENANT_ROLE, "namespace": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": TENANT_ROLE},
                "subjects": [
                    {"kind": "ServiceAccount", "name": self.account.name, "namespace": self.account.namespace}
                ],
            }
        )
        operator_run.kubeconfig_secret(admin, name, kubeconfig or self.lab.credentials.kubeconfig())

    def resource(self, namespace: str = "tenant-1", name: str = "cluster") -> Object:
        """The OVNKubeConfig as it is now."""
        return self.lab.infra.admin.get(CONFIG, name, namespace)

    def conditions(self, namespace: str = "tenant-1", name: str = "cluster") -> dict[str, Object]:
        """Its conditions by type."""
        status = self.resource(namespace, name).get("status") or {}
        return {each["type"]: each for each in status.get("conditions") or []}

    def wait_condition(
        self,
        kind: str,
        status: str,
        *,
        reason: str | None = None,
        namespace: str = "tenant-1",
        name: str = "cluster",
        timeout: float = 30,
    ) -> Object:
        """Wait until a condition has this status (and reason); returns it."""
        found: dict[str, Object] = {}

        def holds() -> bool:
            found.update(self.conditions(namespace, name))
            now = found.get(kind, {})
            return now.get("status") == status and (reason is None or now.get("reason") == reason)

        try:
            eventually(holds, f"{kind} to be {status} ({reason or 'for any reason'})", timeout=timeout)
        except Exception as error:
            error.add_note(json.dumps(found.get(kind), indent=1))
            error.add_note(self.process.text()[-4000:])
            raise
        return found[kind]

    def wait(self, condition: Callable[[], object], what: str, timeout: float = 30) -> None:
        """Wait for anything else; a failure shows the operator's last words."""
        try:
            eventually(condition, what, timeout=timeout)
        except Exception as error:
            error.add_note(self.process.text()[-4000:])
            raise
