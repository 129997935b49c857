"""The machine-config-operator's rules as pure functions: what a pool selects, renders and says about itself.

Written for the lab from the rules in OpenShift's documentation and observed behaviour; enough of them that a program
which watches pools and nodes sees what it would see on OpenShift.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.lab.client import Object, name_of

PREFIX = "machineconfiguration.openshift.io"
CURRENT, DESIRED, STATE, REASON = (f"{PREFIX}/{name}" for name in ("currentConfig", "desiredConfig", "state", "reason"))
ROLE = f"{PREFIX}/role"
IGNITION = "3.5.0"
ACCEPTED = ("2.2.", "3.0.", "3.1.", "3.2.", "3.3.", "3.4.", "3.5.")
UNITS = (
    ".service", ".socket", ".device", ".mount", ".automount", ".swap", ".target", ".path", ".timer", ".snapshot",
    ".slice", ".scope",
)  # fmt: skip
Failing = ("Degraded", "Unreconcilable")


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector matches; for the machine-config-operator an empty one matches nothing."""
    if not selector or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        return False
    plain = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return plain and all(_expression(each, labels) for each in selector.get("matchExpressions") or [])


def _expression(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = rule["key"], rule.get("values") or []
    match rule["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def members(pools: Mapping[str, Object], nodes: Mapping[str, Object]) -> dict[str, list[Object]]:
    """The nodes of each pool. A custom pool takes a node from `worker`; a node in two custom pools is in none."""
    found: dict[str, list[Object]] = {name: [] for name in pools}
    for _, item in sorted(nodes.items()):
        labels = item["metadata"].get("labels") or {}
        matching = [name for name, pool in pools.items() if selects(pool["spec"].get("nodeSelector"), labels)]
        custom = [name for name in matching if name not in {"master", "worker"}]
        if "master" in matching:
            found["master"].append(item)
        elif len(custom) == 1:
            found[custom[0]].append(item)
        elif not custom and "worker" in matching:
            found["worker"].append(item)
    return found


def sources(pool: Object, configs: Mapping[str, Object]) -> list[Object]:
    """The MachineConfigs that a pool merges, in order: those of `worker` by name, then all others by name."""
    wanted = [
        item
        for item in configs.values()
        if not any(each["kind"] == "MachineConfigPool" for each in item["metadata"].get("ownerReferences") or [])
        and selects(pool["spec"].get("machineConfigSelector"), item["metadata"].get("labels") or {})
    ]
    return sorted(wanted, key=lambda item: (item["metadata"]["labels"].get(ROLE) != "worker", name_of(item)))


def problem(config: Object) -> str | None:
    """Why the renderer would refuse a MachineConfig, in a sentence."""
    ignition = config["spec"].get("config") or {}
    version = str((ignition.get("ignition") or {}).get("version", ""))
    files = (ignition.get("storage") or {}).get("files") or []
    units = (ignition.get("systemd") or {}).get("units") or []
    if ignition and not version.startswith(ACCEPTED):
        return f"unknown version {version!r}. Supported spec versions: 2.2,3.0,3.1,3.2,3.3,3.4,3.5"
    for name in ("directories", "links", "disks", "filesystems", "raid"):
        if (ignition.get("storage") or {}).get(name):
            return f"ignition {name} section contains changes, which cannot be reconciled"
    for what, keys in (("path", [each["path"] for each in files]), ("unit", [each["name"] for each in units])):
        if twice := {key for key in keys if keys.count(key) > 1}:
            return f"duplicate {what} {min(twice)}"
    for each in files:
        if not str(each["path"]).startswith("/"):
            return f"path not absolute: {each['path']}"
        if int(each.get("mode") or 0) > 0o777:
            return f"mode of {each['path']} cannot exceed 0777"
        if each.get("append"):
            return f"{each['path']}: appending is not supported"
    for each in units:
        if not str(each["name"]).endswith(UNITS):
            return f"invalid systemd unit extension: {each['name']}"
    return None


def rendered(pool: Object, configs: Sequence[Object]) -> Object:
    """The rendered MachineConfig: later files and units win, and the name is a hash of the content."""
    files: dict[str, Object] = {}
    units: dict[str, Object] = {}
    arguments: list[str] = []
    spec: Object = {"extensions": [], "fips": False, "kernelType": "default", "osImageURL": ""}
    for config in configs:
        part = config["spec"]
        ignition = part.get("config") or {}
        files |= {each["path"]: each for each in (ignition.get("storage") or {}).get("files") or []}
        for each in (ignition.get("systemd") or {}).get("units") or []:
            units[each["name"]] = units.get(each["name"], {}) | each
        arguments += part.get("kernelArguments") or []
        spec |= {key: part[key] for key in ("fips", "kernelType", "osImageURL", "extensions") if part.get(key)}
    spec["kernelArguments"] = arguments
    spec["config"] = {
        "ignition": {"version": IGNITION},
        "storage": {"files": [files[path] for path in sorted(files)]},
        "systemd": {"units": [units[name] for name in sorted(units)]},
    }
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:32]
    owner = {
        "apiVersion": f"{PREFIX}/v1", "kind": "MachineConfigPool", "name": name_of(pool),
        "uid": pool["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    return {
        "apiVersion": f"{PREFIX}/v1",
        "kind": "MachineConfig",
        "metadata": {
            "name": f"rendered-{name_of(pool)}-{digest}",
            "annotations": {f"{PREFIX}/generated-by-controller-version": "dpu-lab"},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def configuration(target: Object, configs: Sequence[Object]) -> Object:
    """`spec.configuration` of a pool: the rendered config and the names it came from."""
    kind = {"apiVersion": f"{PREFIX}/v1", "kind": "MachineConfig"}
    return kind | {"name": name_of(target), "source": [kind | {"name": name_of(each)} for each in configs]}


def target_of(pool: Object) -> str | None:
    """The name of the rendered config that a pool's nodes shall run."""
    name: str | None = (pool["spec"].get("configuration") or {}).get("name")
    return name


def annotations(item: Object) -> dict[str, str]:
    """The annotations of a node."""
    return item["metadata"].get("annotations") or {}


def node_ready(item: Object) -> bool:
    """Ready and not cordoned: what the pool's count of ready machines asks."""
    conditions = {each["type"]: each["status"] for each in item.get("status", {}).get("conditions") or []}
    pressed = any(conditions.get(name) == "True" for name in ("DiskPressure", "NetworkUnavailable"))
    return conditions.get("Ready") == "True" and not pressed and not item.get("spec", {}).get("unschedulable")


def node_done(item: Object, target: str | None = None) -> bool:
    """Whether a node says that it runs what it shall (and that this is `target`)."""
    notes = annotations(item)
    same = notes.get(CURRENT) == notes.get(DESIRED) and notes.get(STATE) == "Done"
    return same and notes.get(CURRENT) is not None and target in {None, notes.get(DESIRED)}


def node_unavailable(item: Object) -> bool:
    """Whether a node counts against maxUnavailable."""
    if not node_ready(item):
        return True
    return not node_done(item) and annotations(item).get(STATE) not in Failing


def room(pool: Object, nodes: Sequence[Object]) -> int:
    """How many more nodes may be taken out of service."""
    allowed = pool["spec"].get("maxUnavailable", 1)
    if isinstance(allowed, str) and allowed.endswith("%"):
        allowed = max(1, len(nodes) * int(allowed[:-1]) // 100)
    return int(allowed) - sum(node_unavailable(item) for item in nodes)


def status(pool: Object, nodes: Sequence[Object], render_error: str | None) -> Object:
    """The status of a pool: counts, conditions, and `configuration` only once every node runs it."""
    target = target_of(pool)
    known = pool.get("status") or {}
    updated = [item for item in nodes if node_done(item, target)]
    ready = [item for item in updated if node_ready(item)]
    unavailable = [item for item in nodes if node_unavailable(item)]
    degraded = [item for item in nodes if annotations(item).get(STATE) in Failing]
    everywhere = target is not None and len(ready) == len(updated) == len(nodes) and not unavailable
    fresh: Object = {
        "observedGeneration": pool["metadata"]["generation"],
        "machineCount": len(nodes),
        "updatedMachineCount": len(updated),
        "readyMachineCount": len(ready),
        "unavailableMachineCount": len(unavailable),
        "degradedMachineCount": len(degraded),
    }
    if everywhere:
        fresh["configuration"] = pool["spec"]["configuration"]
    elif "configuration" in known:
        fresh["configuration"] = known["configuration"]
    fresh["conditions"] = _conditions(pool, degraded, render_error, everywhere=everywhere)
    return fresh


def _conditions(
    pool: Object, degraded: Sequence[Object], render_error: str | None, *, everywhere: bool
) -> list[Object]:
    target, paused = target_of(pool), bool(pool["spec"].get("paused"))
    updating = f"All nodes are updating to {target}"
    if paused:
        updating = f"Pool is paused; will not update to {target}"
    sick = ", ".join(f'Node {name_of(item)} is reporting: "{annotations(item).get(REASON, "")}"' for item in degraded)
    count = f"{len(degraded)} nodes are reporting degraded status on sync" if degraded else ""
    render = f"Failed to render configuration for pool {name_of(pool)}: {render_error}" if render_error else ""
    said = [
        ("Updated", everywhere, "", f"All nodes are updated with {target}" if everywhere else ""),
        ("Updating", not everywhere and not paused, "", "" if everywhere else updating),
        ("NodeDegraded", bool(degraded), count, sick),
        ("RenderDegraded", bool(render_error), "", render),
        ("Degraded", bool(degraded or render_error), "", ""),
    ]
    known = {each["type"]: each for each in (pool.get("status") or {}).get("conditions") or []}
    return [
        _condition(known.get(kind), kind, "True" if value else "False", why, text) for kind, value, why, text in said
    ]


def _condition(known: Object | None, kind: str, value: str, reason: str, message: str) -> Object:
    since = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if known and known["status"] == value:
        since = known["lastTransitionTime"]
    return {"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": since}
