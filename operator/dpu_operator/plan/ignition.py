"""Ignition configurations: reading their data URLs, and a lint of everything that the machine-config-operator lets by.

The API server accepts any MachineConfig, and the machine-config-operator checks only a part: five kinds of mistakes
pass all its checks and then degrade the node, or do nothing at all. One bad MachineConfig also blocks every update of
its pool. So we look before we write. Source of the rules: openshift/machine-config-operator, ValidateMachineConfig in
pkg/controller/common and reconcilable in pkg/daemon, both run on the samples of the tests.
"""

import base64
import binascii
import gzip
import hashlib
import json
import re
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from dpu_operator.world import Obj

ROLE_LABEL = "machineconfiguration.openshift.io/role"
VERSIONS = ("3.0.0", "3.1.0", "3.2.0", "3.3.0", "3.4.0", "3.5.0")
MAX_BYTES = 1_572_864
"""The largest rendered MachineConfig that the machine-config-operator takes, as JSON."""
FORCE_FILE = "/run/machine-config-daemon-force"
_UNIT = re.compile(
    r"[A-Za-z0-9:_.\\@-]+\.(service|socket|device|mount|automount|swap|target|path|timer|snapshot|slice|scope)"
)
_SPEC = {
    "config",
    "kernelArguments",
    "extensions",
    "fips",
    "kernelType",
    "osImageURL",
    "baseOSExtensionsContainerImage",
}
_FILE = {"path", "mode", "overwrite", "contents", "user", "group", "append"}
_CONTENTS = {"source", "compression", "verification"}


class BadContentError(ValueError):
    """A file's contents that no machine could write; the text is a phrase such as "is not a data URL"."""


def decode(contents: Obj) -> bytes:
    """The bytes of a file's `contents`, unpacked.

    Raises:
        BadContentError: another scheme than `data:`, an unknown compression, broken base64 or gzip, a wrong hash.

    """
    source = contents.get("source") or ""
    if not isinstance(source, str) or not source.startswith("data:") or "," not in source:
        raise BadContentError("has a source that is no data URL: the machine-config-daemon fetches nothing")
    head, _, body = source[len("data:") :].partition(",")
    raw = urllib.parse.unquote_to_bytes(body)
    if head.endswith(";base64"):
        try:
            raw = base64.b64decode(raw, validate=True)
        except binascii.Error as error:
            raise BadContentError("has a source with broken base64") from error
    compression = contents.get("compression") or ""
    if compression not in ("", "gzip"):
        raise BadContentError("has a compression other than gzip")
    if compression:
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise BadContentError("has a source that is not gzip") from error
    _check_hash(raw, (contents.get("verification") or {}).get("hash"))
    return raw


def _check_hash(raw: bytes, wanted: Any) -> None:
    if wanted is None:
        return
    kind, _, digest = str(wanted).partition("-")
    if kind not in ("sha512", "sha256") or hashlib.new(kind, raw).hexdigest() != digest:
        raise BadContentError("has a verification.hash that is not that of its contents")


def verify(machine_config: Obj) -> tuple[str, ...]:
    """What is wrong with a MachineConfig, one phrase each ("file /etc/x: has …"); empty when nothing is."""
    return tuple(_problems(machine_config))


def _problems(machine_config: Obj) -> Iterator[str]:
    labels = machine_config.get("metadata", {}).get("labels") or {}
    if not labels.get(ROLE_LABEL):
        yield f"metadata: has no label {ROLE_LABEL}, so that no pool selects it"
    spec = machine_config.get("spec") or {}
    yield from _unknown("spec", spec, _SPEC)
    config = spec.get("config") or {}
    yield from _unknown("config", config, {"ignition", "storage", "systemd", "passwd", "kernelArguments"})
    ignition = config.get("ignition") or {}
    yield from _unknown("ignition", ignition, {"version"})
    if ignition.get("version") not in VERSIONS:
        yield f"ignition: has a version that is none of {', '.join(VERSIONS)}"
    for section, instead in (
        ("passwd", "leave it out: only the user core can be changed, and not by us"),
        ("kernelArguments", "use spec.kernelArguments of the MachineConfig"),
    ):
        if config.get(section):
            yield f"config: has {section}, which cannot be applied to a running machine; {instead}"
    storage = config.get("storage") or {}
    known = {"files", "directories", "links", "disks", "filesystems", "raid", "luks"}
    yield from _unknown("storage", storage, known)
    for section in sorted(known - {"files"}):
        if storage.get(section):
            yield f"storage: has {section}, which cannot be applied to a running machine; use files only"
    yield from _files(storage.get("files") or [])
    systemd = config.get("systemd") or {}
    yield from _unknown("systemd", systemd, {"units"})
    yield from _units(systemd.get("units") or [])
    if len(json.dumps(machine_config)) > MAX_BYTES:
        yield f"metadata: the whole is larger than {MAX_BYTES} bytes"


def _unknown(where: str, obj: Obj, known: set[str]) -> Iterator[str]:
    for key in sorted(set(obj) - known):
        yield f"{where}: has the unknown key {key}, which would be ignored silently"


def _twice(names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)


def _files(files: list[Obj]) -> Iterator[str]:
    for path in _twice(str(file.get("path")) for file in files):
        yield f"file {path}: stands there twice"
    for file in files:
        path = str(file.get("path") or "")
        yield from (f"file {path}: {problem}" for problem in _file(file, path))


def _file(file: Obj, path: str) -> Iterator[str]:
    for key in sorted(set(file) - _FILE):
        yield f"has the unknown key {key}, which would be ignored silently"
    if not path.startswith("/") or path.endswith("/") or any(p in ("", ".", "..") for p in path.split("/")[1:]):
        yield "has a path that is not absolute and plain"
    if path == FORCE_FILE:
        yield "is the machine-config-daemon's own switch for forcing an update"
    mode = file.get("mode")
    if mode is not None and (isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777):
        yield "has a mode that is no number from 0 to 511, which is octal 0777; JSON wants it decimal (0644 is 420)"
    if file.get("append"):
        yield "has append, which the machine-config-daemon refuses; write a whole file"
    contents = file.get("contents") or {}
    if contents.get("source") is None:
        if file.get("overwrite"):
            yield "has overwrite without a source"
        return
    for key in sorted(set(contents) - _CONTENTS):
        yield f"has the unknown key contents.{key}, which would be ignored silently"
    try:
        decode(contents)
    except BadContentError as error:
        yield str(error)


def _units(units: list[Obj]) -> Iterator[str]:
    for name in _twice(str(unit.get("name")) for unit in units):
        yield f"unit {name}: stands there twice"
    for unit in units:
        name = str(unit.get("name") or "")
        yield from (f"unit {name}: {problem}" for problem in _unit(unit, name))


def _unit(unit: Obj, name: str) -> Iterator[str]:
    for key in sorted(set(unit) - {"name", "enabled", "mask", "contents", "dropins"}):
        yield f"has the unknown key {key}, which would be ignored silently"
    if not _UNIT.fullmatch(name):
        yield "has a name whose ending is no unit type (a quadlet is a file below /etc/containers/systemd)"
    contents = unit.get("contents") or ""
    if contents:
        yield from unit_problems(contents)
        if unit.get("enabled") and "[Install]" not in sections(contents):
            yield "is enabled without a section [Install], so that nothing would start it"
    for dropin in unit.get("dropins") or []:
        for key in sorted(set(dropin) - {"name", "contents"}):
            yield f"has a drop-in with the unknown key {key}, which would be ignored silently"
        if not str(dropin.get("name")).endswith(".conf"):
            yield f"has the drop-in {dropin.get('name')}, whose name does not end in .conf"
        yield from unit_problems(dropin.get("contents") or "")


def sections(text: str) -> set[str]:
    """The section headers of a unit file, brackets included."""
    return {line.strip() for line in text.splitlines() if line.startswith("[")}


def unit_problems(text: str) -> Iterator[str]:
    """What systemd would not understand: a line outside of a section, or one that is no assignment."""
    section = continued = False
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith(("#", ";")):
            continue  # also between continued lines
        if continued or not bare:
            pass
        elif bare.startswith("["):
            section = True
            if not bare.endswith("]"):
                yield f"has an unfinished section header in line {number}"
        elif not section:
            yield f"has no section before line {number}"
        elif "=" not in bare:
            yield f"has no assignment in line {number}"
        continued = bool(bare) and bare.endswith("\\")
    if not section:
        yield "has no section at all"
