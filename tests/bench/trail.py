"""An API server's audit log with the two moments of each request: when it arrived, and when it was answered.

The lab's own reader (`tests.lab.audit`) knows the first only. Both moments are the server's, of one clock: what lies
between a creation and the last write after it does not depend on when the bench looked.
"""

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
REPORTS = frozenset({"ovnkubeconfigs", "events"})
"""What a write to is a report (status, event) or bookkeeping (the finalizer), and none of the objects that are made."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One answered request, or a watch that has begun."""

    audit_id: str
    user: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    uri: str
    code: int
    received: float
    answered: float
    agent: str

    @property
    def place(self) -> str:
        return "/".join(part for part in (self.resource, self.namespace, self.name) if part)

    def __str__(self) -> str:
        return f"{self.verb} {self.place or self.uri}" + (f"/{self.subresource}" if self.subresource else "")

    @property
    def makes_an_object(self) -> bool:
        """Whether it is a successful write of one of the objects that the operator is there to make."""
        made = self.verb in {"create", "update", "patch"} and self.code < 300
        return made and not self.subresource and self.resource not in REPORTS


class Trail:
    """Reads on from where it was: a burst leaves tens of megabytes that nobody wants to parse twice."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0
        self.skip()

    def skip(self) -> None:
        """Forget what was logged up to now."""
        self._offset = self._log.stat().st_size

    def whole(self) -> list[Entry]:
        """The log from its beginning up to now, where `read` goes on."""
        self._offset = 0
        return self.read()

    def read(self) -> list[Entry]:
        """What was logged since the last call, in the order of the log."""
        with self._log.open("rb") as log:
            log.seek(self._offset)
            content = log.read()
        whole, newline, _ = content.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return [_entry(json.loads(line)) for line in whole.splitlines()]


def _entry(line: dict[str, Any]) -> Entry:
    target = line.get("objectRef") or {}
    return Entry(
        audit_id=line["auditID"],
        user=line["user"].get("username", ""),
        verb=line["verb"],
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        uri=line["requestURI"],
        code=int((line.get("responseStatus") or {}).get("code", 0)),
        received=_time(line["requestReceivedTimestamp"]),
        answered=_time(line["stageTimestamp"]),
        agent=line.get("userAgent", ""),
    )


def _time(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def first_writes(entries: Iterable[Entry], user: str) -> dict[str, Entry]:
    """For each object that a user made, the write that did it; later writes of the same object are not in it."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.user == user and entry.makes_an_object:
            found.setdefault(entry.place, entry)
    return found


def begun(entries: Iterable[Entry], user: str, since: float, until: float) -> list[Entry]:
    """The requests of a user that arrived in a window, each once.

    A watch has two lines, when it starts and when it ends; it counts where it starts. One that was open before the
    window and ends in it is no request of the window.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.user == user and since <= entry.received < until:
            found.setdefault(entry.audit_id, entry)
    return sorted(found.values(), key=lambda entry: entry.received)
