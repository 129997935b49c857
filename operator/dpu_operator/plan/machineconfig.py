"""The MachineConfig of a pool: the tree `systemd/`, packed, plus the host configuration and the agent's image.

All of it that may change lies below /etc/dpu-network-operator, so that an administrator can name that one folder in a
NodeDisruptionPolicy and have changes applied without a reboot (systemd/README.md has one).
"""

import base64
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass

from dpu_operator.plan.ignition import ROLE_LABEL, BadContentError, decode, sections, verify
from dpu_operator.plan.objects import meta, stamp
from dpu_operator.world import FIELD_MANAGER, MACHINE_CONFIG, MANAGED_BY_LABEL, InfraWorld, Obj, Ref
from dpu_shared import host_config as host
from dpu_shared.errors import UserError

__all__ = [
    "AGENT_IMAGE_FILE",
    "ROLE_LABEL",
    "Tree",
    "TreeFile",
    "labels",
    "machine_config",
    "machine_config_name",
    "missing_in",
    "ours_in",
    "ref_of",
    "verify",
]

AGENT_IMAGE_FILE = "/etc/dpu-network-operator/agent-image.env"
IGNITION_VERSION = "3.2.0"
"""Every OpenShift since 4.7 takes it; the machine-config-operator converts it where it renders."""
_UNITS = "/etc/systemd/system/"
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]*(@sha256:[0-9a-f]{64}|:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})")


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file for the DPU."""

    mode: int
    contents: bytes


Tree = Mapping[str, TreeFile]
"""Files by their absolute path on the DPU."""


def machine_config_name(pool: str) -> str:
    """The name of a pool's MachineConfig. Its prefix only sorts it after the generated ones of the same pool."""
    return f"99-{pool}-dpu-network-operator"


def ref_of(infra: InfraWorld) -> Ref:
    """Where our MachineConfig is, or would be."""
    return Ref(MACHINE_CONFIG, None, machine_config_name(str(infra.spec["poolName"])))


def labels(pool: str) -> dict[str, str]:
    """The labels that the pool's machineConfigSelector has to match."""
    return {ROLE_LABEL: pool, MANAGED_BY_LABEL: FIELD_MANAGER}


def machine_config(infra: InfraWorld, *, tree: Tree, host_config: host.HostConfig, agent_image: str) -> Obj:
    """The MachineConfig that the pool should have. The same input gives the same bytes.

    It has no ownerReferences: a cluster-wide object cannot be owned by a namespaced one. The finalizer removes it.

    Args:
        infra: names the OVNKubeConfig that it belongs to, and the pool.
        tree: what `systemd/` holds.
        host_config: for the agent.
        agent_image: by digest (mirrors of a disconnected cluster serve nothing else), or by tag for a trial.

    Raises:
        UserError: the image is missing or is no image reference, or `verify` finds fault with the result.

    """
    if not _IMAGE.fullmatch(agent_image):
        raise UserError(
            "The agent's image is not known." if not agent_image else "The agent's image is no image reference.",
            "Set RELATED_IMAGE_AGENT on the operator's Deployment to the image's name with its digest.",
        )
    pool = str(infra.spec["poolName"])
    files = {
        **tree,
        host.PATH: TreeFile(0o644, host_config.to_json().encode()),
        AGENT_IMAGE_FILE: TreeFile(0o644, f"DPU_AGENT_IMAGE={agent_image}\n".encode()),
    }
    metadata = meta(infra, machine_config_name(pool), namespaced=False)
    metadata["labels"] = {**metadata.get("labels", {}), **labels(pool)}
    metadata.pop("ownerReferences", None)
    made = {
        "apiVersion": MACHINE_CONFIG.api_version,
        "kind": MACHINE_CONFIG.kind,
        "metadata": metadata,
        "spec": {"config": _ignition(files)},
    }
    wrong = verify(made)
    if wrong:
        # Nobody after us would refuse it: the pool, or every DPU of it, would be stuck instead.
        raise UserError(f"The MachineConfig would be wrong: {wrong[0]}.", "Mend the operator's folder systemd/.")
    return stamp(made)


def _ignition(tree: Tree) -> Obj:
    plain = {path: file for path, file in sorted(tree.items()) if not path.startswith(_UNITS)}
    return {
        "ignition": {"version": IGNITION_VERSION},
        "storage": {"files": [_file(path, file) for path, file in plain.items()]},
        "systemd": {"units": _units({path.removeprefix(_UNITS): f for path, f in tree.items() if path not in plain})},
    }


def _file(path: str, file: TreeFile) -> Obj:
    source = "data:;base64," + base64.b64encode(file.contents).decode()
    return {"path": path, "mode": file.mode, "overwrite": True, "contents": {"source": source}}


def _units(tree: Tree) -> list[Obj]:
    """Units by name; `x.service.d/y.conf` becomes a drop-in, whether the unit is ours or the machine's."""
    units: dict[str, Obj] = {}
    for path, file in sorted(tree.items()):
        unit, _, dropin = path.partition(".d/")
        text = file.contents.decode()
        entry = units.setdefault(unit, {"name": unit})
        if dropin:
            entry.setdefault("dropins", []).append({"name": dropin, "contents": text})
            continue
        entry["contents"] = text
        if "[Install]" in sections(text):
            entry["enabled"] = True
    return [units[name] for name in sorted(units)]


def ours_in(rendered: Obj, ours: Obj) -> bool:
    """Whether a rendered MachineConfig holds all our files and units as they are in ours."""
    return not missing_in(rendered, ours)


def missing_in(rendered: Obj, ours: Obj) -> str:
    """The first file or unit of ours that another MachineConfig lacks or has otherwise; '' when there is none.

    Contents are compared, not JSON text: the machine-config-operator merges, converts to a newer Ignition version and
    may encode a file otherwise. Names prove nothing, since a changed MachineConfig keeps its name
    (`configuration.source` of a pool holds only names).
    """
    wanted = _parts(ours)
    there = _parts(rendered, only=wanted.keys())
    return next((key for key, part in wanted.items() if there.get(key) != part), "")


def _parts(machine_config: Obj, only: Container[str] | None = None) -> dict[str, tuple[object, ...]]:
    """What a MachineConfig holds, decoded, under "file PATH", "unit NAME" and "drop-in UNIT.d/NAME"."""
    config = (machine_config.get("spec") or {}).get("config") or {}
    parts: dict[str, tuple[object, ...]] = {}
    for file in (config.get("storage") or {}).get("files") or []:
        key = f"file {file.get('path')}"
        if only is None or key in only:  # a rendered one has hundreds of files that are not ours
            parts[key] = (_contents(file), file.get("mode"))
    for unit in (config.get("systemd") or {}).get("units") or []:
        name = unit.get("name")
        if unit.get("contents"):
            parts[f"unit {name}"] = (unit["contents"], bool(unit.get("enabled")), bool(unit.get("mask")))
        for dropin in unit.get("dropins") or []:
            parts[f"drop-in {name}.d/{dropin.get('name')}"] = (dropin.get("contents"),)
    return parts


def _contents(file: Obj) -> bytes | None:
    try:
        return decode(file.get("contents") or {})
    except BadContentError:
        return None
