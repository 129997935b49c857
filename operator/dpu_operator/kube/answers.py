"""From the bytes of an answer to objects, or to the error that they tell of. No answer is trusted to be well-formed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.world import Obj

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes of one line of a watch. etcd takes objects of 1.5 MiB by default, so this is far beyond any honest one."""
MESSAGE_LIMIT = 500
"""Characters of a server's message that are shown."""
EVENT_TYPES = {"ADDED", "MODIFIED", "DELETED", "BOOKMARK"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


class Lines:
    """Splits a stream into lines without copying what is already there for every new piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def unfinished(self) -> bool:
        """Whether the stream so far ends in the middle of a line."""
        return self._size > 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that this piece completes, without their line breaks, empty ones left out.

        Raises:
            Unreachable: a line is longer than LINE_LIMIT.

        """
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            if self._pieces:
                line = b"".join((*self._pieces, line))  # noqa: PLW2901 - the line's beginning came earlier
                self._pieces, self._size = [], 0
            if line:
                yield line
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
        if self._size > LINE_LIMIT:
            raise Unreachable(f"the server sent a line longer than {LINE_LIMIT >> 20} MiB", sent=True)


def to_object(answer: Answer, *, secret: str) -> Obj:
    """The object in a successful answer.

    Args:
        answer: the HTTP answer.
        secret: a credential that must not be shown, should the server repeat it.

    Raises:
        ApiError: the server refused.
        Unreachable: the answer is a redirect or not JSON, so this is no API server.

    """
    if not 200 <= answer.status < 300:
        raise failed(answer, secret=secret)
    parsed = _parsed(answer.body) if answer.content_type == "application/json" else None
    if not isinstance(parsed, dict):
        shown = one_line(answer.content_type, secret=secret) or "none"
        raise Unreachable(f"the answer is not a Kubernetes object (content type {shown})", sent=True)
    return stripped(parsed)


def failed(answer: Answer, *, secret: str) -> ClusterError:
    """The error that an answer with another status than 2xx tells of."""
    if answer.status < 400:
        return Unreachable(f"the server answered with HTTP {answer.status}, and no redirect is followed", sent=True)
    parsed = _parsed(answer.body) if answer.content_type == "application/json" else None
    if isinstance(parsed, dict):
        return _from_status(parsed, answer.status, secret=secret, retry_after=_seconds(answer))
    text = answer.body[: 4 * MESSAGE_LIMIT].decode("utf-8", "replace") if answer.content_type == "text/plain" else ""
    reason = one_line(answer.reason, secret=secret)
    message = one_line(text, secret=secret) or reason or "no message"
    return ApiError(answer.status, reason, message, retry_after=_seconds(answer))


def to_event(line: bytes, *, secret: str) -> tuple[str, Obj]:
    """One event of a watch.

    Raises:
        ApiError: it is an ERROR event.
        Unreachable: it is not an event.

    """
    parsed = _parsed(line)
    kind, value = (parsed.get("type"), parsed.get("object")) if isinstance(parsed, dict) else (None, None)
    if kind == "ERROR" and isinstance(value, dict):
        raise _from_status(value, 500, secret=secret, retry_after=None)
    if kind not in EVENT_TYPES or not isinstance(value, dict) or not isinstance(value.get("metadata"), dict):
        raise Unreachable("the server sent something that is not a watch event", sent=True)
    return str(kind), stripped(value)


def stripped(obj: Obj) -> Obj:
    """The object without `metadata.managedFields`: often the larger half of it, and never of use to us."""
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
    return obj


def one_line(text: str, *, secret: str) -> str:
    """A server's text, fit to be shown and logged: no control characters, no credential, not endless."""
    if secret:
        text = text.replace(secret, "[credential]")
    printable = "".join(character if character.isprintable() else " " for character in text[: 2 * MESSAGE_LIMIT])
    joined = " ".join(printable.split())
    return joined if len(joined) <= MESSAGE_LIMIT else joined[: MESSAGE_LIMIT - 1] + "…"


def _from_status(status: Obj, code: int, *, secret: str, retry_after: float | None) -> ApiError:
    told = status.get("code")
    details = status.get("details")
    if not isinstance(details, dict):
        details = {}
    wait = details.get("retryAfterSeconds")
    if retry_after is None and isinstance(wait, int | float) and wait > 0:
        retry_after = float(wait)
    return ApiError(
        told if isinstance(told, int) and 400 <= told < 600 else code,
        one_line(str(status.get("reason") or ""), secret=secret),
        one_line(str(status.get("message") or "no message"), secret=secret),
        retry_after=retry_after,
        details_kind=one_line(str(details.get("kind") or ""), secret=secret),
    )


def _seconds(answer: Answer) -> float | None:
    """Retry-After in seconds; the form with a date is not used by API servers."""
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
