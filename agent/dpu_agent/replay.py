"""An observation as JSON, and back: what `dpu-agent observe -o json` writes and `dpu-agent plan --from` reads.

The document is `{"schemaVersion": 1, "world": {…}}`. Keys are the field names of `world.py`, in their order there, so
that the same world gives the same bytes. Reading is exact: what it does not know it refuses, since a plan from half of an
observation would look like one from all of it.
"""

import dataclasses
import enum
import functools
import json
import types
import typing
from typing import Any

from dpu_agent.world import World
from dpu_shared.errors import UserError

SCHEMA_VERSION = 1
_HINT = "Use a file that `dpu-agent observe -o json` of this release wrote."


def to_json(world: World) -> str:
    """The world as JSON, indented, with a final line break."""
    return json.dumps({"schemaVersion": SCHEMA_VERSION, "world": _plain(world)}, indent=2) + "\n"


def from_json(text: str) -> World:
    """What `to_json` wrote.

    Raises:
        UserError: no such document, another schema version, or a field that is missing, unknown, given twice or of
            another type.

    """
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError("The observation is no JSON.", _HINT) from error
    if not isinstance(document, dict) or set(document) != {"schemaVersion", "world"}:
        raise UserError('The observation is no JSON object of "schemaVersion" and "world".', _HINT)
    version = document["schemaVersion"]
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise UserError(
            f"The observation has schema version {version!r}, and this program reads {SCHEMA_VERSION}.",
            "Use the release of the agent that wrote it.",
        )
    world: World = _read(World, document["world"], "world")
    return world


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, enum.Enum) else value


def _read(kind: Any, data: Any, where: str) -> Any:
    """The data as that type: a dataclass, a tuple of one type, an enum, one of several types, or a plain value."""
    if isinstance(kind, types.UnionType):
        if data is None and type(None) in typing.get_args(kind):
            return None
        (kind,) = [each for each in typing.get_args(kind) if each is not type(None)]
    if dataclasses.is_dataclass(kind):
        return _object(kind, data, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(data, list):
            raise _wrong(where, "a list")
        return tuple(_read(typing.get_args(kind)[0], each, f"{where}[{i}]") for i, each in enumerate(data))
    if issubclass(kind, enum.Enum):
        if data not in list(kind):
            raise _wrong(where, "one of " + ", ".join(kind))
        return kind(data)
    if type(data) is not kind:  # and not isinstance: true is no number here
        raise _wrong(where, {str: "a string", int: "a whole number", bool: "true or false"}[kind])
    return data


def _object(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise _wrong(where, "an object")
    fields = _types(kind)
    for name, what in ((set(fields) - set(data), "lacks"), (set(data) - set(fields), "has the unknown field")):
        if name:
            raise UserError(f"The observation is wrong: {where} {what} {', '.join(sorted(name))}.", _HINT)
    return kind(**{name: _read(of, data[name], f"{where}.{name}") for name, of in fields.items()})


@functools.cache
def _types(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _wrong(where: str, wanted: str) -> UserError:
    return UserError(f"The observation is wrong: {where} is not {wanted}.", _HINT)
