"""What of a live object somebody applied: the floor has to write the same, not what the server's defaults made of it."""

import json
from typing import Any

Object = dict[str, Any]


def applied(item: Object, manager: str) -> Object:
    """The fields of an object that a field manager applied, with what names it."""
    owned: Object = {}
    for entry in item["metadata"].get("managedFields") or []:
        if entry["manager"] == manager and entry["operation"] == "Apply" and not entry.get("subresource"):
            owned = entry["fieldsV1"]
    picked = _pick(item, owned)
    found: Object = picked if isinstance(picked, dict) else {}
    named = {key: item["metadata"][key] for key in ("name", "namespace") if key in item["metadata"]}
    return {
        **found,
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {**found.get("metadata", {}), **named},
    }


def _pick(value: Any, owned: Object) -> Any:
    """The part of a value that a fieldsV1 tree names. A leaf is owned whole, as is whatever has no entry below it."""
    inner = {key: below for key, below in owned.items() if key != "."}
    if not inner:
        return value
    if isinstance(value, dict):
        return {key[2:]: _pick(value[key[2:]], below) for key, below in inner.items() if key[2:] in value}
    if isinstance(value, list):
        return [part for part in (_item(value, key, below) for key, below in inner.items()) if part is not None]
    return value


def _item(value: list[Any], key: str, below: Object) -> Any:
    """The element that `k:{…}` (by its keys) or `v:…` (by its value) means; its keys always belong to it."""
    kind, _, told = key.partition(":")
    wanted = json.loads(told)
    if kind == "v":
        return wanted
    for element in value:
        if isinstance(element, dict) and all(element.get(name) == each for name, each in wanted.items()):
            return {**wanted, **_pick(element, below)}
    return None
