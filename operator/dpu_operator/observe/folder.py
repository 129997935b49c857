"""Worlds from folders of YAML instead of clusters, so that a state can be planned on a laptop.

Every object of every `.yaml`, `.yml` and `.json` file below the folder counts, lists are taken apart: that covers both
one file an object and the layout that `oc adm inspect` writes.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dpu_operator.observe.essentials import INFRA_OVN_NAMESPACE, WRITTEN_KINDS, infra_node, tenant_node
from dpu_operator.plan.objects import text_at
from dpu_operator.world import (
    CONFIG_MAP,
    DAEMON_SET,
    MACHINE_CONFIG,
    MACHINE_CONFIG_POOL,
    NODE,
    Credential,
    InfraWorld,
    Link,
    LinkState,
    Obj,
    Ref,
    Seen,
    Sight,
    TenantKey,
    TenantWorld,
    kind_of,
)
from dpu_shared.errors import UserError

_SUFFIXES = (".yaml", ".yml", ".json")


def load(folder: Path) -> dict[Ref, Obj]:
    """Every object below a folder, by place.

    Raises:
        UserError: where there is no such folder, no object in it, or a file that is no YAML.

    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder.", "Name the folder that holds the objects as YAML files.")
    objects: dict[Ref, Obj] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and not p.name.startswith("_")):
        for obj in load_file(path):
            meta = obj["metadata"]
            objects[Ref(kind_of(obj), meta.get("namespace"), meta["name"])] = obj
    if not objects:
        raise UserError(f"{folder} holds no Kubernetes object.", "Fill it, for example with `oc adm inspect`.")
    return objects


def load_file(path: Path) -> list[Obj]:
    """The objects of one file, lists taken apart.

    Raises:
        UserError: where the file can't be read or is no YAML; the message says in which line.

    """
    try:
        documents = yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Loader)
        return [obj for document in documents for obj in _objects(document)]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).", "Check the path and its permissions.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8.", "Save it as UTF-8, or leave it out of the folder.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a value that is not of its tag is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"{path} is not YAML{where}.", "Correct it, or leave it out of the folder.") from None


def _objects(document: Any) -> Iterator[Obj]:
    if not isinstance(document, dict):
        return
    items = document.get("items")
    if isinstance(items, list) and str(document.get("kind", "")).endswith("List"):
        kind = str(document["kind"])[: -len("List")]
        for item in items:
            if isinstance(item, dict):
                # Items of a typed list carry neither kind nor apiVersion of their own.
                typed = {"apiVersion": document.get("apiVersion"), "kind": kind} if kind else {}
                yield from _objects({**typed, **item})
        return
    meta = document.get("metadata")
    if (
        document.get("kind")
        and document.get("apiVersion")
        and isinstance(meta, dict)
        and isinstance(meta.get("name"), str)
    ):
        yield document


class _Loader(yaml.CSafeLoader):
    """Times stay strings, as the API server has them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def tenant_world(objects: Mapping[Ref, Obj], *, namespace: str) -> TenantWorld:
    """What the watches would know of a tenant with exactly these objects."""
    seen = {key: _seen(objects, key.ref(namespace)) for key in TenantKey}
    nodes = tuple(tenant_node(obj) for ref, obj in objects.items() if ref.kind == NODE)
    return TenantWorld(
        credential=Credential(seen=Sight.PRESENT, what="folder"),
        link=Link(state=LinkState.UP),
        objects=seen,
        nodes=nodes,
        nodes_sight=Sight.PRESENT,
    )


def infra_world(config: Obj, objects: Mapping[Ref, Obj], *, images: Mapping[str, str], now: dt.datetime) -> InfraWorld:
    """What the watches would know of an infra cluster with exactly these objects."""
    namespace, spec = config["metadata"]["namespace"], config["spec"]
    pool = _seen(objects, Ref(MACHINE_CONFIG_POOL, None, spec["poolName"]))
    rendered = text_at(pool.object, "spec", "configuration", "name")
    ours = (*WRITTEN_KINDS, MACHINE_CONFIG)
    return InfraWorld(
        config=config,
        pool=pool,
        node_credential=Credential(seen=Sight.PRESENT, what="folder"),
        env_overrides=_seen(objects, Ref(CONFIG_MAP, namespace, "env-overrides")),
        nodes=tuple(infra_node(obj) for ref, obj in objects.items() if ref.kind == NODE),
        nodes_sight=Sight.PRESENT,
        rendered=_seen(objects, Ref(MACHINE_CONFIG, None, rendered)),
        live={r: o for r, o in objects.items() if r.kind in ours and r.namespace in (namespace, None)},
        live_complete=True,
        infra_ovnkube=_seen(objects, Ref(DAEMON_SET, INFRA_OVN_NAMESPACE, "ovnkube-node")),
        images=images,
        now=now,
    )


def _seen(objects: Mapping[Ref, Obj], ref: Ref) -> Seen:
    obj = objects.get(ref)
    return Seen(Sight.PRESENT, obj) if obj is not None else Seen(Sight.ABSENT)


def config_of(path: Path) -> Obj:
    """The OVNKubeConfig of a file, with the defaults that the API server would fill in.

    Raises:
        UserError: where the file holds none, or one without the fields that have no default.

    """
    found = [obj for obj in load_file(path) if obj["kind"] == "OVNKubeConfig"]
    if len(found) != 1:
        raise UserError(f"{path} holds {len(found)} OVNKubeConfig resources.", "Give a file with exactly one.")
    config = found[0]
    spec = config.get("spec")
    for field in ("kubeConfigFile", "poolName"):
        if not isinstance(spec, dict) or not isinstance(spec.get(field), str):
            raise UserError(f"The OVNKubeConfig in {path} has no spec.{field}.", f"Add spec.{field}.")
    stated = {key: value for key, value in config["spec"].items() if value is not None}
    host_config = stated.get("hostConfig", {})
    if not isinstance(host_config, dict):
        raise UserError(f"In {path} spec.hostConfig is no mapping.", "See the field's description in docs/api.md.")
    host = {"bridge": "br-ex", "hardwareOffload": "Enabled", "maxDisruption": "None", "mode": "Enforce"}
    meta = {"namespace": "default", "generation": 1}  # no uid: an owner that does not exist gets what it owns deleted
    return {
        **config,
        "metadata": {**meta, **config["metadata"]},
        "spec": {
            "tenantNamespace": "openshift-ovn-kubernetes",
            **stated,
            "hostConfig": {**host, **{key: value for key, value in host_config.items() if value is not None}},
        },
    }
