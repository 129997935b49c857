"""From the creation of a resource to the last of its objects, against the bare writes of the same objects."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.bench.figures import ms, percentile, ratio
from tests.bench.process import Floor
from tests.bench.project import applied
from tests.bench.scene import RESOURCE, TENANT, WRITER, Scene, say
from tests.bench.trail import Entry, Trail, begun, first_writes
from tests.lab.client import Object, kind_of, name_of
from tests.lab.stage import CONFIG
from tests.lab.waiting import eventually

QUIET = 2.0
"""Seconds without one more object, after which the last one is taken for the last."""
LAST = ("machineconfigs", "daemonsets")
"""What has to be among the objects before the quiet counts: both use the others."""
MANAGER = "dpu-network-operator"
ROLE = "machineconfiguration.openshift.io/role"
_KINDS = {
    "configmaps": "v1/ConfigMap",
    "secrets": "v1/Secret",
    "serviceaccounts": "v1/ServiceAccount",
    "roles": "rbac.authorization.k8s.io/v1/Role",
    "rolebindings": "rbac.authorization.k8s.io/v1/RoleBinding",
    "daemonsets": "apps/v1/DaemonSet",
    "machineconfigs": "machineconfiguration.openshift.io/v1/MachineConfig",
}

Raw = dict[str, Any]


def first_apply(scene: Scene, writer: Floor, *, samples: int) -> tuple[Raw, Raw]:
    """The figure of a first reconcile, and what it is made of.

    The operator is warm and idle, its kubeconfig Secret is there. Its time is the audit log's: from the arrival of the
    creation to the answer of the last object's first write. The floor's is the sum of its own requests, from sending to
    answer, of the fields that the operator applied and in its order, one at a time on a warm connection.
    """
    trails = scene.trails()
    operator: list[float] = []
    bare: list[float] = []
    looks: list[Raw] = []
    for turn in range(samples + 1):
        _clear(scene)
        took, made, look = _create(scene, trails)
        writes = _same_writes(scene, made)
        _clear(scene)
        sequence = writer.apply(writes)
        _sweep(scene, writes)
        if turn == 0:
            continue  # the first one warms both up
        operator.append(took)
        bare.append(sum(sequence))
        looks.append({**look, "floor_ms": [ms(each) for each in sequence]})
        say(f"first: {turn} of {samples}: {ms(took)} ms, {len(writes)} bare writes {ms(bare[-1])} ms")
    median, floor = percentile(operator, 50), percentile(bare, 50)
    middle = looks[operator.index(median)]
    raw = {
        "samples": len(operator),
        "operator_ms": [ms(each) for each in operator],
        "floor_ms": [ms(each) for each in bare],
        "operator_median_ms": ms(median),
        "floor_median_ms": ms(floor),
        "the_median_one": middle,
    }
    return {"first_apply_ratio": ratio(median, floor)}, raw


def _create(scene: Scene, trails: Mapping[str, tuple[Trail, str]]) -> tuple[float, list[Entry], Raw]:
    """Create the resource and wait until its last object is there."""
    for each, _ in trails.values():
        each.skip()
    trail, user = trails["infra"]
    entries: list[Entry] = []
    scene.create()

    def complete() -> bool:
        _ = scene.pid
        entries.extend(trail.read())
        made = first_writes(entries, user).values()
        if not set(LAST) <= {entry.resource for entry in made}:
            return False
        return time.time() - max(entry.answered for entry in made) > QUIET

    eventually(complete, "the last object of a first reconcile", timeout=60, on_timeout=scene.last_words)
    created = next(entry for entry in entries if entry.resource == "ovnkubeconfigs" and entry.verb == "create")
    made = sorted(first_writes(entries, user).values(), key=lambda entry: entry.received)
    end = max(entry.answered for entry in made)
    again = sum(entry.user == user and entry.makes_an_object for entry in entries) - len(made)
    tenant, tenant_user = trails["tenant"]
    seen = {"infra": begun(entries, user, created.received, end)}
    seen["tenant"] = begun(tenant.read(), tenant_user, created.received, end)
    look = {"objects": len(made), "written_again": again, "requests": _timeline(seen, created.received)}
    return end - created.received, made, look


def _timeline(seen: Mapping[str, list[Entry]], began: float) -> list[str]:
    """The operator's requests between the creation and the last object: where the time goes.

    Each with the milliseconds since the creation and, after the +, what the API server took.
    """
    lines = [
        (entry.received, f"{ms(entry.received - began)} +{ms(entry.answered - entry.received)} {name} {entry}")
        for name, entries in seen.items()
        for entry in entries
    ]
    return [line for _, line in sorted(lines)]


def _same_writes(scene: Scene, made: list[Entry]) -> list[tuple[str, Object]]:
    """What the operator applied, renamed into the writer's namespace, in the order in which it was sent."""
    admin = scene.admin
    account = admin.get("v1/ServiceAccount", "default", WRITER)
    # An owner that does not exist would have the garbage collector at the objects while they are written.
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "default", "uid": account["metadata"]["uid"]}
    writes: list[tuple[str, Object]] = []
    for entry in made:
        item = applied(admin.get(_KINDS[entry.resource], entry.name, entry.namespace or None), MANAGER)
        metadata = item["metadata"]
        if "namespace" in metadata:
            metadata["namespace"] = WRITER
        else:
            metadata["name"] = f"{name_of(item)}-bench"
            # No pool selects it: the machines' rollout is no part of a write.
            metadata["labels"] = {**metadata.get("labels", {}), ROLE: WRITER}
        if "ownerReferences" in metadata:
            metadata["ownerReferences"] = [{**metadata["ownerReferences"][0], **owner}]
        path = admin.resource(kind_of(item)).path(metadata.get("namespace"), metadata["name"])
        writes.append((f"{path}?fieldManager={MANAGER}&force=true", item))
    return writes


def _clear(scene: Scene) -> None:
    """No resource, and nothing left of it, so that the next creation is a first one."""
    admin = scene.admin
    if scene.resource() is not None:
        admin.delete(CONFIG, RESOURCE, TENANT)
        _until(lambda: scene.resource() is None, "the resource to be gone", scene)
    _until(lambda: not scene.owned(TENANT), "what the resource owned to be gone", scene)
    _until(lambda: not admin.list("v1/Pod", TENANT), "its pods to be gone", scene)
    scene.lab.wait_pool()


def _sweep(scene: Scene, writes: list[tuple[str, Object]]) -> None:
    """Delete what the floor wrote."""
    admin = scene.admin
    for _, item in writes:
        admin.delete(kind_of(item), name_of(item), item["metadata"].get("namespace"))
    _until(lambda: not admin.list("v1/Pod", WRITER), "the floor's pods to be gone", scene)
    _until(lambda: not scene.owned(WRITER), "the floor's objects to be gone", scene)


def _until(probe: Callable[[], bool], what: str, scene: Scene) -> None:
    eventually(probe, what, timeout=90, on_timeout=scene.last_words)
