"""What all objects that we write have in common, and the manifests that they are made from."""

import copy
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import yaml

from dpu_operator.world import (
    FIELD_MANAGER,
    HASH_ANNOTATION,
    MANAGED_BY_LABEL,
    OVN_KUBE_CONFIG,
    OWNER_ANNOTATION,
    InfraWorld,
    Obj,
)

PART_OF_LABEL = "app.kubernetes.io/part-of"


class Problem(NamedTuple):
    """Why something is not as it should be: a CamelCase reason, and two sentences (what is wrong, what to do)."""

    reason: str
    message: str


@cache
def _parsed(name: str) -> Obj:
    text = resources.files("dpu_operator").joinpath("manifests", f"{name}.yaml").read_text(encoding="utf-8")
    tree: Obj = yaml.safe_load(text)
    return tree


def manifest(name: str) -> Obj:
    """A fresh copy of the manifest `manifests/<name>.yaml`; code fills in what differs between resources."""
    return copy.deepcopy(_parsed(name))


@cache
def _scripts() -> Mapping[str, str]:
    folder = resources.files("dpu_operator").joinpath("manifests", "scripts")
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sh")), key=lambda entry: entry.name)
    return {entry.name: entry.read_text(encoding="utf-8") for entry in files}


def scripts() -> dict[str, str]:
    """The start scripts and probes of the pods, by file name, all of `manifests/scripts`."""
    return dict(_scripts())


def owner_meta(infra: InfraWorld) -> Obj:
    """Marks that everything written for this OVNKubeConfig in its namespace bears: labels, annotations and the owner.

    `blockOwnerDeletion` stays false: true would need the right to update the owner's finalizers wherever the admission
    plugin OwnerReferencesPermissionEnforcement is on, as it is on OpenShift. A resource that was read from a file has no
    uid yet, and then there is no owner to name.
    """
    meta: Obj = {
        "labels": {MANAGED_BY_LABEL: FIELD_MANAGER, PART_OF_LABEL: FIELD_MANAGER},
        "annotations": {OWNER_ANNOTATION: infra.owner},
    }
    uid = infra.config["metadata"].get("uid")
    if uid:
        meta["ownerReferences"] = [
            {
                "apiVersion": OVN_KUBE_CONFIG.api_version,
                "kind": OVN_KUBE_CONFIG.kind,
                "name": infra.name,
                "uid": uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]
    return meta


def meta(infra: InfraWorld, name: str, *, namespaced: bool = True) -> Obj:
    """The metadata of an object of ours; a cluster-wide object cannot have a namespaced owner, only the annotation."""
    marks = owner_meta(infra)
    if not namespaced:
        marks.pop("ownerReferences", None)
        return {"name": name, **marks}
    return {"name": name, "namespace": infra.namespace, **marks}


def content_hash(content: Any) -> str:
    """A hash of JSON data that does not depend on the order of keys, 32 hex digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def stamp(obj: Obj) -> Obj:
    """The object with HASH_ANNOTATION set to the hash of everything else in it."""
    metadata = obj["metadata"]
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k != HASH_ANNOTATION}
    bare = {**obj, "metadata": {**metadata, "annotations": annotations}}
    marked = {**annotations, HASH_ANNOTATION: content_hash(bare)}
    return {**obj, "metadata": {**metadata, "annotations": marked}}


def dig(tree: Any, *path: str) -> Any:
    """The value at a path of keys, or None where the path ends early or meets something that is no mapping."""
    for key in path:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def text_at(tree: Any, *path: str) -> str:
    """The string at a path of keys, or an empty one where there is none or something else."""
    value = dig(tree, *path)
    return value if isinstance(value, str) else ""


def list_at(tree: Any, *path: str) -> list[Any]:
    """The list at a path of keys, or an empty one where there is none or something else."""
    value = dig(tree, *path)
    return value if isinstance(value, list) else []


def map_at(tree: Any, *path: str) -> Obj:
    """The mapping at a path of keys, or an empty one where there is none or something else."""
    value = dig(tree, *path)
    return value if isinstance(value, dict) else {}


def name_of(obj: Obj) -> str:
    """The object's name."""
    return text_at(obj, "metadata", "name")
