"""Reading an API server's audit log: who asked for what, and when."""

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = ("create", "update", "patch", "delete", "deletecollection")


@dataclass(frozen=True)
class Request:
    """One request, whatever number of lines the log has about it."""

    audit_id: str
    at: dt.datetime
    user: str
    verb: str
    uri: str
    code: int
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    agent: str

    @property
    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.verb in WRITES

    def __str__(self) -> str:
        where = "/".join(part for part in (self.resource, self.namespace, self.name, self.subresource) if part)
        return f"{self.at:%H:%M:%S.%f} {self.code} {self.verb} {where or self.uri}"


def now() -> dt.datetime:
    """A mark for `requests`."""
    return dt.datetime.now(dt.UTC)


def requests(
    log: Path, *, user: str | None = None, since: dt.datetime | None = None, until: dt.datetime | None = None
) -> list[Request]:
    """The requests in the log by the time they arrived; a watch counts once, when it starts."""
    found: dict[str, Request] = {}
    for entry in _entries(log):
        if user is not None and entry["user"].get("username") != user:
            continue
        at = _time(entry["requestReceivedTimestamp"])
        if (since is not None and at < since) or (until is not None and at > until):
            continue
        found.setdefault(entry["auditID"], _request(entry, at))
    return sorted(found.values(), key=lambda each: each.at)


def writes(log: Path, *, user: str, since: dt.datetime | None = None) -> list[Request]:
    """Only what changes something; access reviews and tokens do not."""
    ignored = ("authorization.k8s.io", "authentication.k8s.io")
    return [each for each in requests(log, user=user, since=since) if each.is_write and each.group not in ignored]


def per_minute(log: Path, *, user: str, since: dt.datetime, until: dt.datetime) -> float:
    """The rate of a user's requests in a window."""
    return len(requests(log, user=user, since=since, until=until)) * 60 / (until - since).total_seconds()


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    with log.open() as lines:
        for line in lines:
            # The last line may be half written: the server goes on while we read.
            if line.endswith("\n"):
                yield json.loads(line)


def _request(entry: dict[str, Any], at: dt.datetime) -> Request:
    target = entry.get("objectRef") or {}
    return Request(
        audit_id=entry["auditID"],
        at=at,
        user=entry["user"].get("username", ""),
        verb=entry["verb"],
        uri=entry["requestURI"],
        code=int((entry.get("responseStatus") or {}).get("code", 0)),
        group=target.get("apiGroup", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        agent=entry.get("userAgent", ""),
    )


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
