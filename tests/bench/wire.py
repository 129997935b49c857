"""HTTP/1.1 over one blocking TLS socket, and nothing else: what the floor and the bench's own clocks are made of.

No event loop, no pool and no retries: each of them costs microseconds that would raise the floor, or blur a moment.
"""

import contextlib
import socket
import time
import urllib.parse
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Self, cast

from tests.lab.client import APPLY, MERGE, tls_context
from tests.lab.kubeconfig import Access

__all__ = ["APPLY", "MERGE", "Connection", "WireError"]

_BUFFER = 256 * 1024


class WireError(Exception):
    """An answer that the bench cannot go on with."""


class Connection:
    """One kept-alive connection as one user; one request at a time, or one watch for good."""

    def __init__(self, access: Access, *, agent: str = "dpu-bench") -> None:
        url = urllib.parse.urlsplit(access.server)
        host, port = url.hostname or "127.0.0.1", url.port or 443
        plain = socket.create_connection((host, port), timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = tls_context(access).wrap_socket(plain, server_hostname=host)
        self._reader = cast("BinaryIO", self._socket.makefile("rb", buffering=_BUFFER))
        authorization = f"Authorization: Bearer {access.token}\r\n" if access.token else ""
        self._common = (
            f" HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: {agent}\r\nAccept: application/json\r\n{authorization}"
        ).encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, also under a thread that reads from it: closing alone would leave that thread asleep."""
        with contextlib.suppress(OSError):  # the peer may be faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def request(self, method: str, target: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        """One request; the body of its answer. WireError for any status above 299."""
        length = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() if body else b"\r\n"
        self._socket.sendall(f"{method} {target}".encode() + self._common + length + body)
        status, chunked, size = self._head()
        content = b"".join(self._chunks()) if chunked else self._reader.read(size)
        if status > 299:
            raise WireError(f"{method} {target}: HTTP {status} {content[:300].decode(errors='replace')}")
        return content

    def watch(self, target: str) -> Iterator[tuple[float, bytes]]:
        """The lines of a watch, each with the monotonic moment at which its last byte was read. Silence is allowed."""
        self._socket.sendall(f"GET {target}".encode() + self._common + b"\r\n")
        status, chunked, size = self._head()
        if status != 200 or not chunked:
            content = self._reader.read(size) if not chunked else b"".join(self._chunks())
            raise WireError(f"watch {target}: HTTP {status} {content[:300].decode(errors='replace')}")
        self._socket.settimeout(None)
        held = b""
        for chunk in self._chunks():
            now = time.monotonic()
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                yield now, line

    def _head(self) -> tuple[int, bool, int]:
        """The status, whether the body comes in chunks, and its size if not."""
        first = self._reader.readline()
        if not first:
            raise WireError("the API server closed the connection")
        status, chunked, size = int(first.split(b" ", 2)[1]), False, 0
        while (line := self._reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            match name.lower():
                case b"content-length":
                    size = int(value)
                case b"transfer-encoding":
                    chunked = b"chunked" in value.lower()
                case _:
                    pass
        return status, chunked, size

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._reader.readline().strip() or b"0", 16):
            yield self._reader.read(size + 2)[:-2]
        self._reader.readline()
