"""Worlds to plan in: the tenant and the infra cluster of the shipped example, and a tenant with central OVN."""

import copy
import dataclasses
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import yaml

from dpu_operator.plan.desired import Desired, desired_objects
from dpu_operator.plan.image import ImageChoice, choose
from dpu_operator.plan.mapping import NodeMapping, map_nodes
from dpu_operator.plan.topology import Detection, detect
from dpu_operator.world import InfraWorld, Obj, Seen, Sight, TenantKey, TenantWorld

ABSENT = Seen(Sight.ABSENT)
FORBIDDEN = Seen(Sight.FORBIDDEN)
EXAMPLES = Path(str(resources.files("dpu_operator") / "examples"))
TENANT_IMAGE = "quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:" + "4201" * 16
INFRA_IMAGE = "quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:" + "a420" * 16


def seen(obj: Obj) -> Seen:
    return Seen(Sight.PRESENT, obj)


def objects_in(folder: Path) -> Iterator[Obj]:
    for path in sorted(folder.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def tenant_from(folder: Path) -> TenantWorld:
    """A tenant whose every watch has answered."""
    found = list(objects_in(folder))
    objects: dict[TenantKey, Seen] = {}
    for key in TenantKey:
        same = [
            obj
            for obj in found
            if (obj["apiVersion"], obj["kind"], obj["metadata"]["name"])
            == (key.kind.api_version, key.kind.kind, key.object_name)
        ]
        objects[key] = seen(same[0]) if same else ABSENT
    nodes = tuple(obj for obj in found if obj["kind"] == "Node")
    return TenantWorld(objects=objects, nodes=nodes, nodes_sight=Sight.PRESENT)


def example_tenant() -> TenantWorld:
    return tenant_from(EXAMPLES / "tenant-4.20")


def with_object(tenant: TenantWorld, key: TenantKey, value: Seen | Obj) -> TenantWorld:
    return dataclasses.replace(
        tenant, objects={**tenant.objects, key: value if isinstance(value, Seen) else seen(value)}
    )


def changed(tenant: TenantWorld, key: TenantKey) -> tuple[TenantWorld, Obj]:
    """The tenant with a copy of that object, and the copy, to be changed by the test."""
    obj = copy.deepcopy(tenant.object(key))
    assert obj is not None
    return with_object(tenant, key, obj), obj


def of_release(tenant: TenantWorld, version: str) -> TenantWorld:
    for key in (TenantKey.NODE_DAEMON_SET, TenantKey.DPU_HOST_DAEMON_SET):
        tenant, obj = changed(tenant, key)
        obj["metadata"]["annotations"]["release.openshift.io/version"] = version
    return tenant


def central_tenant(version: str = "4.13.42") -> TenantWorld:
    """The example's tenant as central OVN would have it."""
    tenant = of_release(example_tenant(), version)
    tenant, node = changed(tenant, TenantKey.NODE_DAEMON_SET)
    node["spec"]["template"]["spec"]["containers"] = [
        {"name": "ovn-controller", "image": TENANT_IMAGE, "command": ["/bin/bash", "-c", "exec ovn-controller"]},
        {"name": "ovnkube-node", "image": TENANT_IMAGE, "command": ["/bin/bash", "-c", "exec /usr/bin/ovnkube"]},
    ]
    tenant, host = changed(tenant, TenantKey.DPU_HOST_DAEMON_SET)
    host["spec"]["template"]["spec"]["containers"][0]["name"] = "ovnkube-node"
    tenant = with_object(tenant, TenantKey.MASTER_DAEMON_SET, {"metadata": {"name": "ovnkube-master"}})
    tenant = with_object(tenant, TenantKey.DB_SERVICE, {"metadata": {"name": "ovnkube-db"}})
    tenant, config = changed(tenant, TenantKey.OVNKUBE_CONFIG)
    text = config["data"]["ovnkube.conf"].replace("enable-network-segmentation", "enable-egress-ip")
    config["data"]["ovnkube.conf"] = text
    return with_object(
        tenant,
        TenantKey.OVN_CERT,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "ovn-cert", "namespace": "openshift-ovn-kubernetes"},
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": "bm8gY2VydGlmaWNhdGU=", "tls.key": "bm8ga2V5"},
        },
    )


def single_zone_tenant() -> TenantWorld:
    tenant = of_release(central_tenant(), "4.14.9")
    tenant, node = changed(tenant, TenantKey.NODE_DAEMON_SET)
    node["spec"]["template"]["spec"]["containers"][1]["command"][2] = "exec /usr/bin/ovnkube --enable-interconnect"
    return tenant


def example_infra(**spec: object) -> InfraWorld:
    config = yaml.safe_load((EXAMPLES / "ovnkubeconfig.yaml").read_text(encoding="utf-8"))
    config["metadata"] |= {"uid": "0b8f2c3a-0000-4000-8000-000000000001", "generation": 1}
    config["spec"] |= spec
    found = list(objects_in(EXAMPLES / "infra"))
    one = {obj["kind"]: obj for obj in found if obj["kind"] != "Node"}
    return InfraWorld(
        config=config,
        pool=seen(one["MachineConfigPool"]),
        infra_ovnkube=seen(one["DaemonSet"]),
        env_overrides=ABSENT,
        nodes=tuple(obj for obj in found if obj["kind"] == "Node"),
        nodes_sight=Sight.PRESENT,
        live_complete=True,
    )


@dataclasses.dataclass(frozen=True)
class Planned:
    detection: Detection
    mapping: NodeMapping
    image: ImageChoice
    desired: Desired

    def one(self, kind: str, name: str) -> Obj:
        found = [obj for obj in self.desired.objects if (obj["kind"], obj["metadata"]["name"]) == (kind, name)]
        assert len(found) == 1, f"{kind} {name} is there {len(found)} times"
        return found[0]

    @property
    def daemon_set(self) -> Obj:
        return self.one("DaemonSet", "ovnkube-node")

    @property
    def pod(self) -> Obj:
        pod: Obj = self.daemon_set["spec"]["template"]["spec"]
        return pod

    def container(self, name: str) -> Obj:
        found: Obj = next(c for c in self.pod["containers"] + self.pod["initContainers"] if c["name"] == name)
        return found

    @property
    def names(self) -> list[str]:
        return [f"{obj['kind']}/{obj['metadata']['name']}" for obj in self.desired.objects]

    @property
    def reasons(self) -> list[str]:
        return [problem.reason for problem in self.desired.problems]


def planned(tenant: TenantWorld | None = None, infra: InfraWorld | None = None, *, last_known: str = "") -> Planned:
    tenant = tenant or example_tenant()
    infra = infra or example_infra()
    detection = detect(tenant, last_known=last_known)
    mapping = map_nodes(infra.nodes, tenant=tenant, env_overrides=infra.env_overrides)
    image = choose(infra, tenant, detection, infra.nodes)
    desired = desired_objects(infra, tenant, detection, mapping, infra.nodes, image)
    return Planned(detection, mapping, image, desired)


def two_sentences(message: str) -> bool:
    """Whether a message says what is wrong and what to do about it."""
    return (
        message.endswith(".")
        and message[0].isupper() | message[0].isdigit() | message.startswith("dpu-")
        and ". " in message
    )


def fixture_folders() -> list[Path]:
    """Tenants outside of this repository, if somebody has some."""
    root = os.environ.get("DPU_TENANT_FIXTURES")
    return sorted(path for path in Path(root).iterdir() if path.is_dir()) if root else []
