"""The format of ovnkube.conf, as far as it must be understood to edit it without touching the rest.

ovnkube reads it by Go's gcfg: git-config's format, names in any case, the last value of a key wins, repeated sections
merge, and what it does not know it only warns of.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dpu_shared.errors import UserError

_SECTION = re.compile(r'\[\s*([A-Za-z][A-Za-z0-9.-]*)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]\s*(?:[;#].*)?')
_SETTING = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)\s*(?:=(.*))?", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ESCAPES = {"n": "\n", "t": "\t", "b": "\b", '"': '"', "\\": "\\"}

Key = tuple[str, str]
"""A section and a key of it, both in lower case."""


@dataclass(frozen=True, slots=True)
class Line:
    """One logical line: its text as it was, the section that it stands in, and its key and value if it is a setting."""

    text: str
    section: str
    key: str = ""
    value: str = ""


def parse(text: str) -> tuple[Line, ...]:
    """The lines of a configuration.

    Raises:
        UserError: it is not such a file, so that ovnkube would refuse it too.

    """
    lines: list[Line] = []
    section = ""
    for number, raw in _logical_lines(text):
        bare = raw.strip()
        if not bare or bare[0] in ";#":
            lines.append(Line(raw, section))
        elif head := _SECTION.fullmatch(bare):
            section = head[1].lower() + (f".{head[2]}" if head[2] is not None else "")
            lines.append(Line(raw, section))
        elif section and not _CONTROL.search(bare) and (found := _setting(bare)):
            lines.append(Line(raw, section, *found))
        else:
            raise UserError(
                f"Line {number} of the tenant's ovnkube.conf is neither a section, a setting of one, nor a comment.",
                "Look at ConfigMap ovnkube-config in the tenant, which its cluster-network-operator writes.",
            )
    return tuple(lines)


def values(lines: Iterable[Line]) -> dict[Key, str]:
    """What is set, the last value of each key."""
    return {(line.section, line.key): line.value for line in lines if line.key}


def render(lines: Iterable[Line], added: Mapping[str, Mapping[str, str]]) -> str:
    """The text of these lines, followed by what is added: it stands last, so it wins."""
    parts = [line.text for line in lines]
    while parts and not parts[-1].strip():
        parts.pop()
    for section, settings in added.items():
        if settings:
            parts += ["", f"[{section}]", *(f"{key}={_quoted(value)}" for key, value in settings.items())]
    return "\n".join(parts) + "\n"


def _logical_lines(text: str) -> Iterable[tuple[int, str]]:
    pending: list[str] = []
    first = 0
    for number, raw in enumerate(text.split("\n"), start=1):
        first = first or number
        pending.append(raw)
        comment = len(pending) == 1 and raw.lstrip()[:1] in (";", "#")
        slashes = len(raw.rstrip("\r")) - len(raw.rstrip("\r").rstrip("\\"))
        if comment or slashes % 2 == 0:
            yield first, "\n".join(pending)
            pending, first = [], 0
    if pending:
        yield first, "\n".join(pending)


def _setting(text: str) -> tuple[str, str] | None:
    found = _SETTING.fullmatch(text)
    if not found:
        return None
    value = "true" if found[2] is None else _unquoted(found[2])
    return None if value is None else (found[1].lower(), value)


def _unquoted(text: str) -> str | None:
    """The value of a setting: quotes and escapes undone, a comment cut off; None where a quote or escape is broken."""
    out: list[str] = []
    spaces = ""
    quoted = False
    chars = iter(text.replace("\r", "").replace("\\\n", ""))
    for char in chars:
        piece = char
        if char == "\\":
            piece = _ESCAPES.get(next(chars, ""), "")
            if not piece:
                return None
        elif char == "\n":
            return None
        elif char == '"':
            quoted = not quoted
            piece = ""
        elif not quoted and char in ";#":
            break
        elif not quoted and char in " \t":
            spaces += char if out else ""
            continue
        out.append(spaces + piece)
        spaces = ""
    return None if quoted else "".join(out)


def _quoted(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_./:-]+", value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
