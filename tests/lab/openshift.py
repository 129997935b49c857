"""OpenShift's own CRDs on a plain API server, as the `openshift/api` module ships them, and its rule for custom pools."""

from dataclasses import dataclass
from pathlib import Path

from tests.lab import gobuild, places, yamlfiles
from tests.lab.client import ApiError, Client, Object, name_of
from tests.lab.waiting import eventually

MODULE = "github.com/openshift/api"
_PAYLOAD = "payload-manifests/crds"
_CONFIG = "config/v1/zz_generated.crd-manifests"

TENANT_FILES = (
    f"{_PAYLOAD}/0000_10_config-operator_01_networks.crd.yaml",
    f"{_PAYLOAD}/0000_10_config-operator_01_infrastructures-Default.crd.yaml",
    f"{_PAYLOAD}/0000_03_config-operator_01_proxies.crd.yaml",
    f"{_CONFIG}/0000_00_cluster-version-operator_01_clusterversions-Default.crd.yaml",
    f"{_CONFIG}/0000_00_cluster-version-operator_01_clusteroperators.crd.yaml",
    "operator/v1/zz_generated.crd-manifests/0000_70_network_01_networks.crd.yaml",
)
INFRA_FILES = (
    *TENANT_FILES,
    f"{_PAYLOAD}/0000_80_machine-config_01_machineconfigs.crd.yaml",
    f"{_PAYLOAD}/0000_80_machine-config_01_machineconfigpools-Default.crd.yaml",
    f"{_PAYLOAD}/0000_80_machine-config_01_machineconfignodes-SelfManagedHA-Default.crd.yaml",
    f"{_PAYLOAD}/0000_80_machine-config_01_machineconfigurations-Default.crd.yaml",
    f"{_PAYLOAD}/0000_03_config-operator_01_securitycontextconstraints.crd.yaml",
)
POOL_POLICY = places.LAB / "manifests" / "custom-pool-policy.yaml"


@dataclass(frozen=True)
class Definitions:
    """CRDs read from the module cache, ready to be created."""

    items: tuple[Object, ...]

    @classmethod
    def read(cls, files: tuple[str, ...]) -> "Definitions":
        """Read them; reading costs more than creating, so the lab does it while the API servers start."""
        folder = gobuild.module_folder("openshift", MODULE)
        return cls(tuple(item for file in files for item in yamlfiles.documents(folder / file)))

    def install(self, admin: Client) -> None:
        """Create them; do not wait."""
        for item in self.items:
            try:
                admin.create(item)
            except ApiError as error:
                if error.status != 409:
                    raise

    def wait(self, admin: Client) -> None:
        """Wait until every one is Established, so that its API answers."""
        names = {name_of(item) for item in self.items}
        wait_established(admin, names)


def wait_established(admin: Client, names: set[str], timeout: float = 30) -> None:
    """Wait for CRDs by name, until each is Established and its first list is answered (until then it is 404 or 429)."""

    def all_established() -> bool:
        items = [
            item
            for item in admin.list("apiextensions.k8s.io/v1/CustomResourceDefinition")
            for condition in item.get("status", {}).get("conditions") or []
            if name_of(item) in names and condition["type"] == "Established" and condition["status"] == "True"
        ]
        return len(items) == len(names) and all(_listed(admin, item["spec"]) for item in items)

    eventually(all_established, f"the CRDs {', '.join(sorted(names))} to be established", timeout=timeout)


def _listed(admin: Client, spec: Object) -> bool:
    version = next(each["name"] for each in spec["versions"] if each["storage"])
    try:
        admin.request("GET", f"/apis/{spec['group']}/{version}/{spec['names']['plural']}", query="limit=1")
    except ApiError as error:
        if error.status in {404, 429}:
            return False
        raise
    return True


def install_pool_policy(admin: Client, policy: Path = POOL_POLICY) -> None:
    """OpenShift's admission rule for custom pools."""
    for item in yamlfiles.documents(policy):
        admin.apply(item)
