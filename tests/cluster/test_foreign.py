"""An object that bears our name and is not ours: it stays as it is, somebody is told, and we go on when it is gone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from dpu_operator.world import MANAGED_BY_LABEL, OWNER_ANNOTATION
from tests.cluster import health
from tests.cluster.spaces import machine_config, operating, resource, settled, spaces
from tests.lab import audit
from tests.lab.client import Object
from tests.lab.stage import CONFIG, Stage
from tests.lab.tenant import CENTRAL, INTERCONNECT

IMAGE = "registry.example.com/ovnkube:4.13"
SYNCED, READY, APPLIED = "TenantObjectsSynced", "OvnKubeReady", "MachineConfigApplied"


@dataclass(frozen=True)
class Foreign:
    """An object that was there first."""

    space: str
    kind: str
    name: str
    condition: str
    """That must name it."""
    more: Object = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    owner: str = ""

    @property
    def item(self) -> Object:
        """To be created."""
        version, _, kind = self.kind.rpartition("/")
        metadata: Object = {"name": self.name, "labels": {"app": "theirs", **self.labels}}
        if self.owner:
            metadata["annotations"] = {OWNER_ANNOTATION: self.owner}
        if self.place:
            metadata["namespace"] = self.place
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **self.more}

    @property
    def place(self) -> str | None:
        """Its namespace."""
        return None if self.kind == health.MACHINE_CONFIG else self.space

    def __str__(self) -> str:
        return self.space.removeprefix("foreign-")


def _config_map(space: str, name: str, condition: str, **more: object) -> Foreign:
    return Foreign(f"foreign-{space}", "v1/ConfigMap", name, condition, {"data": {"theirs": "yes"}}, **more)  # type: ignore[arg-type]


OURS = {MANAGED_BY_LABEL: "dpu-network-operator"}
_POD = {"nodeSelector": {"theirs": ""}, "containers": [{"name": "theirs", "image": "registry.example.com/theirs"}]}
_THEIRS = {"matchLabels": {"app": "theirs"}}
_BINDING = "rbac.authorization.k8s.io/v1/RoleBinding"
_ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
_IGNITION = {"spec": {"config": {"ignition": {"version": "3.2.0"}}}}
CASES = (
    _config_map("copy", "ovnkube-config", SYNCED),
    _config_map("renamed-copy", "tenant-cluster-ca.crt", SYNCED),
    _config_map("label-only", "ovnkube-config", SYNCED, labels=OURS),
    _config_map("another-owner", "ovnkube-config", SYNCED, labels=OURS, owner="elsewhere/cluster"),
    _config_map("scripts", "ovnkube-node-scripts", READY),
    Foreign("foreign-account", "v1/ServiceAccount", "ovn-kubernetes-node", READY),
    Foreign("foreign-binding", _BINDING, "ovn-kubernetes-node-privileged", READY, {"roleRef": _ROLE}),
    Foreign(
        "foreign-daemonset", "apps/v1/DaemonSet", "ovnkube-node", READY,
        {"spec": {"selector": _THEIRS, "template": {"metadata": {"labels": {"app": "theirs"}}, "spec": _POD}}},
    ),
    Foreign("foreign-mc", health.MACHINE_CONFIG, machine_config("foreign-mc"), APPLIED, _IGNITION),
    Foreign(
        "foreign-mc-label", health.MACHINE_CONFIG, machine_config("foreign-mc-label"), APPLIED, _IGNITION, labels=OURS
    ),
)  # fmt: skip
SECRETS = (
    Foreign("foreign-secret", "v1/Secret", "ovn-cert", SYNCED, {"stringData": {"tls.crt": "theirs"}}),
    Foreign(
        "foreign-secret-type", "v1/Secret", "ovn-cert", SYNCED,
        {"type": "example.com/theirs", "stringData": {"theirs": "yes"}},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """The operator runs, and foreign objects are where it wants to write."""

    stage: Stage
    before: dict[str, Object]
    """The foreign objects by their space."""


@pytest.fixture(scope="module")
def scene(installed: Stage) -> Iterator[Scene]:
    """A space for each case: the foreign object first, then the resource."""
    with spaces(installed, [each.space for each in CASES + SECRETS]), operating(installed):
        yield Scene(installed, _begin(installed, CASES))


@pytest.fixture(scope="module")
def central(scene: Scene) -> Iterator[Scene]:
    """The same for a tenant that has a central OVN, which needs a Secret."""
    contents = scene.stage.lab.contents
    contents.load(CENTRAL)
    try:
        yield Scene(scene.stage, _begin(scene.stage, SECRETS, ovnKubeImage=IMAGE))
    finally:
        contents.load(INTERCONNECT)


def _begin(stage: Stage, cases: Sequence[Foreign], **spec: str) -> dict[str, Object]:
    admin = stage.lab.infra.admin
    before = {each.space: admin.create(each.item) for each in cases}
    for each in cases:
        if each.kind.endswith("/DaemonSet"):
            stage.wait(lambda each=each: "observedGeneration" in _get(stage, each)["status"], "its controller")  # type: ignore[misc]
            before[each.space] = _get(stage, each)
    for each in cases:
        admin.create(resource(each.space, **spec))
    return before


@pytest.mark.parametrize("foreign", CASES, ids=str)
def test_a_foreign_object_of_our_name_stays_as_it_is_and_is_named(scene: Scene, foreign: Foreign) -> None:
    _stays_and_is_named(scene, foreign)


@pytest.mark.parametrize("foreign", SECRETS, ids=str)
def test_a_foreign_secret_of_our_name_stays_as_it_is_and_is_named(central: Scene, foreign: Foreign) -> None:
    _stays_and_is_named(central, foreign)


def _stays_and_is_named(scene: Scene, foreign: Foreign) -> None:
    stage, before, admin = scene.stage, scene.before[foreign.space], scene.stage.lab.infra.admin
    reason = "MachineConfigForeign" if foreign.condition == APPLIED else "ForeignObject"
    condition = stage.wait_condition(foreign.condition, "False", reason=reason, namespace=foreign.space)
    assert condition["message"].startswith(f"{before['kind']} {foreign.name} exists")
    assert condition["message"].endswith("left alone. Rename or delete it.")
    stage.wait(lambda: quiet(stage), "everything to be quiet: what others do wakes all")
    assert stage.conditions(foreign.space)["Degraded"]["status"] == "True"
    # Pods that mount a foreign object must not start.
    made = {each["metadata"]["name"] for each in admin.list("apps/v1/DaemonSet", foreign.space)}
    assert made == (set() if foreign.condition != APPLIED and "daemonset" not in foreign.space else {"ovnkube-node"})
    assert _get(stage, foreign) == before
    tried = audit.writes(stage.lab.infra.audit_log, user=stage.account.user)
    assert not [each for each in tried if (each.name, each.namespace) == (foreign.name, foreign.place or "")]

    # And when it is removed, we go on.
    admin.delete(foreign.kind, foreign.name, foreign.place)
    stage.wait(lambda: settled(stage, foreign.space), f"{foreign.space} to go on")
    after = _get(stage, foreign)
    assert after["metadata"]["annotations"][OWNER_ANNOTATION] == f"{foreign.space}/cluster"
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert "theirs" not in str(after)


def quiet(stage: Stage) -> bool:
    """Whether no resource is under way."""
    items = stage.lab.infra.admin.list(CONFIG)
    conditions = [each for item in items for each in item.get("status", {}).get("conditions", [])]
    return [each["status"] for each in conditions if each["type"] == "Progressing"] == ["False"] * len(items)


def _get(stage: Stage, foreign: Foreign) -> Object:
    return stage.lab.infra.admin.get(foreign.kind, foreign.name, foreign.place)
