"""Namespaces with a pool of their own that has no machines: room for many resources at once, and quick to settle.

Such a resource is in full health but for its machines: OvnKubeReady and MachineConfigApplied are False for NoMachines.
"""

import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

from tests.cluster import health
from tests.lab import audit, mco
from tests.lab.client import Object, name_of
from tests.lab.stage import CONFIG, Stage, config

SETTLED = {
    "MachineConfigApplied": ("False", "NoMachines"),
    "OvnKubeReady": ("False", "NoMachines"),
    "TenantObjectsSynced": ("True", "Synced"),
    "TenantCredentialsValid": ("True", "Valid"),
    "Progressing": ("False", "Settled"),
}
"""What the conditions say once there is nothing left to do."""


def machine_config(space: str) -> str:
    """The name of the MachineConfig for the pool of a space."""
    return f"99-{space}-dpu-network-operator"


@contextlib.contextmanager
def spaces(stage: Stage, names: Sequence[str], kubeconfig: str | None = None) -> Iterator[None]:
    """A namespace and an empty pool of each name; resources, MachineConfigs and pools are gone afterwards."""
    admin = stage.lab.infra.admin
    text = kubeconfig or health.good_kubeconfig(stage)
    for name in names:
        stage.tenant_namespace(name, text)
        admin.apply(mco.pool(name, {"matchLabels": {f"dpu-test.invalid/{name}": ""}}, ["worker", name]))
    for name in names:
        stage.lab.wait_pool(name, machines=0)
    try:
        yield
    finally:
        close(stage, names)


def close(stage: Stage, names: Iterable[str]) -> None:
    """Forget them, whether an operator runs or not. The empty namespaces stay: ending one costs a server much."""
    admin = stage.lab.infra.admin
    names = set(names)
    for item in admin.list(CONFIG):
        space = item["metadata"]["namespace"]
        if space in names:
            admin.delete(CONFIG, name_of(item), space)
            if admin.find(CONFIG, name_of(item), space):
                admin.patch(CONFIG, name_of(item), {"metadata": {"finalizers": None}}, space)
    stage.wait(lambda: not _resources(stage, names), "the resources to be gone")
    for name in names:
        admin.delete(mco.POOL, name)
        admin.delete(health.MACHINE_CONFIG, machine_config(name))


def _resources(stage: Stage, names: set[str]) -> list[Object]:
    return [item for item in stage.lab.infra.admin.list(CONFIG) if item["metadata"]["namespace"] in names]


def resource(space: str, name: str = "cluster", **spec: object) -> Object:
    """An OVNKubeConfig there, on the pool of the same name."""
    item = config(space, name)
    item["spec"] |= {"poolName": space, **spec}
    return item


def settled(stage: Stage, space: str, name: str = "cluster") -> bool:
    """Whether a resource's conditions are those of SETTLED."""
    now = {kind: (each["status"], each["reason"]) for kind, each in stage.conditions(space, name).items()}
    return now.items() >= SETTLED.items()


def told(stage: Stage, space: str, name: str = "cluster") -> bool:
    """Whether each condition, as it is, has its Event: after a settled status they are the last that is written."""
    item = stage.resource(space, name)
    about = f"involvedObject.uid={item['metadata']['uid']}"
    events = stage.lab.infra.admin.list("v1/Event", space, fields=about)
    said = {(each["reason"], each["message"].partition(":")[0]) for each in events}
    conditions = item.get("status", {}).get("conditions", [])
    return all((each["reason"], f"{each['type']}={each['status']}") in said for each in conditions)


@contextlib.contextmanager
def operating(stage: Stage) -> Iterator[Stage]:
    """The operator's process runs, and has ended afterwards."""
    stage.process.start()
    try:
        yield stage
    finally:
        stage.process.terminate()


def statuses(stage: Stage) -> dict[str, Object]:
    """The status of each resource by its namespace, without the generation that it is about."""
    found = {}
    for item in stage.lab.infra.admin.list(CONFIG):
        status = dict(item["status"], observedGeneration=0)
        status["conditions"] = [each | {"observedGeneration": 0} for each in status["conditions"]]
        found[str(item["metadata"]["namespace"])] = status
    return found


def writes_since(stage: Stage, mark: dt.datetime, before: dict[str, Object]) -> list[audit.Request]:
    """What the operator has written since then, once it has surely looked at everything.

    Each resource is given a new generation that changes nothing, and the one status that answers it is not counted:
    but for that number it must be as it was.
    """
    admin, user = stage.lab.infra.admin, stage.account.user
    for item in admin.list(CONFIG):
        same = None if "nodeKubeConfigFile" in item["spec"] else item["spec"]["kubeConfigFile"]
        patch = {"spec": {"nodeKubeConfigFile": same}}
        admin.patch(CONFIG, name_of(item), patch, item["metadata"]["namespace"])
    stage.wait(lambda: all(_answered(item) for item in admin.list(CONFIG)), "each resource to be looked at")
    assert statuses(stage) == before
    writes = audit.writes(stage.lab.infra.audit_log, user=user, since=mark)
    answers = {each.namespace: each for each in writes if each.subresource == "status"}
    assert answers.keys() == before.keys()
    return [each for each in writes if each not in answers.values()]


def _answered(item: Object) -> bool:
    return bool(item["status"].get("observedGeneration") == item["metadata"]["generation"])
