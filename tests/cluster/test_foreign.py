"""An object that bears our name and is not ours: it stays as it is, somebody is told, and we go on when it is gone."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from dpu_operator.world import MANAGED_BY_LABEL, OWNER_ANNOTATION
from tests.cluster import health
from tests.cluster.spaces import machine_config, operating, resource, settled, spaces
from tests.lab import audit
from tests.lab.client import Object
from tests.lab.stage import Stage
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


@pytest.fixture(scope="module")
def running(installed: Stage) -> Iterator[Stage]:
    """The operator runs, and there is a space for each case."""
    with spaces(installed, [each.space for each in CASES + SECRETS]), operating(installed):
        yield installed


@pytest.fixture(scope="module")
def central(running: Stage) -> Iterator[Stage]:
    """The tenant has a central OVN, which needs a Secret."""
    running.lab.contents.load(CENTRAL)
    yield running
    running.lab.contents.load(INTERCONNECT)


@pytest.mark.parametrize("foreign", CASES, ids=str)
def test_a_foreign_object_of_our_name_stays_is_named_and_makes_room_when_removed(
    running: Stage, foreign: Foreign
) -> None:
    _stays_and_makes_room(running, foreign, resource(foreign.space))


@pytest.mark.parametrize("foreign", SECRETS, ids=str)
def test_a_foreign_secret_of_our_name_stays_is_named_and_makes_room_when_removed(
    central: Stage, foreign: Foreign
) -> None:
    _stays_and_makes_room(central, foreign, resource(foreign.space, ovnKubeImage=IMAGE))


def _stays_and_makes_room(stage: Stage, foreign: Foreign, wanted: Object) -> None:
    admin, began = stage.lab.infra.admin, audit.now()
    before = admin.create(foreign.item)
    if foreign.kind.endswith("/DaemonSet"):
        stage.wait(lambda: "observedGeneration" in _get(stage, foreign)["status"], "the DaemonSet's controller")
        before = _get(stage, foreign)
    admin.create(wanted)

    reason = "MachineConfigForeign" if foreign.condition == APPLIED else "ForeignObject"
    condition = stage.wait_condition(foreign.condition, "False", reason=reason, namespace=foreign.space, timeout=10)
    where = f"{before['kind']} {foreign.name}"
    assert condition["message"].startswith(where)
    assert condition["message"].endswith("left alone. Rename or delete it.")
    assert stage.conditions(foreign.space)["Degraded"]["status"] == "True"
    assert (admin.find("apps/v1/DaemonSet", "ovnkube-node", foreign.space) is None) == (
        foreign.condition != APPLIED and "daemonset" not in foreign.space
    ), "pods that mount a foreign object must not start, and others must"
    stage.wait_condition("Progressing", "False", namespace=foreign.space)
    assert _get(stage, foreign) == before
    tried = audit.writes(stage.lab.infra.audit_log, user=stage.account.user, since=began)
    assert not [each for each in tried if (each.name, each.namespace) == (foreign.name, foreign.place or "")]

    admin.delete(foreign.kind, foreign.name, foreign.place)
    stage.wait(lambda: settled(stage, foreign.space), f"{foreign.space} to go on")
    after = _get(stage, foreign)
    assert after["metadata"]["annotations"][OWNER_ANNOTATION] == f"{foreign.space}/cluster"
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert "theirs" not in str(after)


def _get(stage: Stage, foreign: Foreign) -> Object:
    return stage.lab.infra.admin.get(foreign.kind, foreign.name, foreign.place)
