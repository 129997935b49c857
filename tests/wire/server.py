"""An HTTPS server that is told, request by request, how to misbehave.

Below HTTP libraries on purpose: only raw sockets can stop in the middle of a line. What is not told otherwise is
answered as an API server would: a list of `items`, and watches that stay open and get what `emit` is given.
"""

import asyncio
import contextlib
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PATIENCE = 8.0
"""Seconds that a test waits for what must happen."""

Obj = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One request as it came in. `connection` numbers the TCP connections."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"


class Exchange:
    """One request and the means to answer it, well or badly."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self._writer = writer
        self.chunked = False

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(
        self,
        status: int,
        body: bytes | Obj,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"Content-Type": content_type, "Content-Length": str(len(data)), **(headers or {})}
        await self.raw(_head(status, lines) + data)

    async def status(
        self, code: int, reason: str, message: str, headers: Mapping[str, str] | None = None, **details: Any
    ) -> None:
        """An error as API servers tell it."""
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                "message": message, "details": details}  # fmt: skip
        await self.answer(code, body, headers)

    async def start_stream(self) -> None:
        self.chunked = True
        await self.raw(_head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}))

    async def chunk(self, data: bytes) -> None:
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, kind: str, obj: Obj) -> None:
        await self.chunk(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    async def end(self) -> None:
        """The regular end of a stream."""
        await self.raw(b"0\r\n\r\n")

    def cut(self) -> None:
        """The connection is gone, without a word."""
        self._writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass(eq=False)
class Server:
    """The server. Set `on_list`, `on_watch`, `on_other` to what the next requests get; then it behaves again."""

    context: ssl.SSLContext
    items: list[Obj] = field(default_factory=list)
    version: int = 100
    on_list: deque[Behaviour] = field(default_factory=deque)
    on_watch: deque[Behaviour] = field(default_factory=deque)
    on_other: deque[Behaviour] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    streams: list[Exchange] = field(default_factory=list)
    port: int = 0
    accepted: int = 0
    """TCP connections taken so far, whatever became of them."""
    hang_up: bool = False
    """Close every new connection before TLS."""
    answering: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def lists(self) -> list[Request]:
        return [request for request in self.requests if request.method == "GET" and not request.is_watch]

    @property
    def watches(self) -> list[Request]:
        return [request for request in self.requests if request.is_watch]

    async def start(self) -> None:
        """Listen; the second time on the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and break those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that this server sees has come true."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(condition)

    async def emit(self, kind: str, obj: Obj) -> None:
        """An event on every open stream, which also becomes what lists say."""
        self.version = int(obj["metadata"]["resourceVersion"])
        if kind != "BOOKMARK":
            others = [item for item in self.items if item["metadata"]["name"] != obj["metadata"]["name"]]
            self.items = others if kind == "DELETED" else [*others, obj]
        for stream in list(self.streams):
            await stream.event(kind, obj)

    async def end_streams(self) -> None:
        """The regular end of all watches."""
        ending, self.streams[:] = list(self.streams), []
        for stream in ending:
            await stream.end()

    def cut_streams(self) -> None:
        cutting, self.streams[:] = list(self.streams), []
        for stream in cutting:
            stream.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a connection is a task")
        self._tasks.add(task)
        self._writers.add(writer)
        self.accepted += 1
        try:
            async with self._changed:
                self._changed.notify_all()
            if self.hang_up:
                return
            await writer.start_tls(self.context)
            await self._converse(reader, writer, self.accepted)
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while request := await _read_request(reader, number):
            exchange = Exchange(request, writer)
            self.requests.append(request)
            self.answering += 1
            self.most_at_once = max(self.most_at_once, self.answering)
            async with self._changed:
                self._changed.notify_all()
            try:
                await self._behaviour(request)(exchange)
            finally:
                self.answering -= 1
            if exchange in self.streams:
                await self._until_over(exchange, reader)

    async def _until_over(self, exchange: Exchange, reader: asyncio.StreamReader) -> None:
        """Until we end the stream (the connection goes on) or the client goes away."""
        async with self._changed:
            self._changed.notify_all()
        while exchange in self.streams:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    # a client says nothing while it watches; an end of file is its end
                    if not await reader.read(1):
                        break
        if exchange in self.streams:
            self.streams.remove(exchange)
            async with self._changed:
                self._changed.notify_all()

    def _behaviour(self, request: Request) -> Behaviour:
        if request.is_watch:
            return self.on_watch.popleft() if self.on_watch else self.stream
        if request.method == "GET":
            return self.on_list.popleft() if self.on_list else self.listing
        return self.on_other.popleft() if self.on_other else self.echo

    async def listing(self, exchange: Exchange) -> None:
        await exchange.answer(200, self.page())

    def page(self) -> Obj:
        return {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.version)},
                "items": self.items}  # fmt: skip

    async def stream(self, exchange: Exchange) -> None:
        await exchange.start_stream()
        self.streams.append(exchange)

    async def echo(self, exchange: Exchange) -> None:
        await exchange.answer(200, exchange.request.body or b"{}")


def config_map(name: str, version: int, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": name, "namespace": "tenant", "resourceVersion": str(version)}}  # fmt: skip


def bookmark(version: int) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": str(version)}}


def refusing(
    code: int, reason: str, message: str = "no", headers: Mapping[str, str] | None = None, **details: Any
) -> Behaviour:
    """A behaviour that answers with a Status."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.status(code, reason, message, headers, **details)

    return refuse


async def hang(_: Exchange) -> None:
    """Never answer."""
    await asyncio.Event().wait()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Some Reason\r\n{lines}\r\n".encode()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, target, _ = first.split(" ")
    url = urlsplit(target)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, url.path, dict(parse_qsl(url.query, keep_blank_values=True)), headers, body, connection)
