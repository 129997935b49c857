"""A TCP proxy that the lab puts in front of each API server, so that the network can fail on command.

Modes: `pass` forwards; `cut` closes every connection and the listener, so that new ones are refused; `freeze` accepts
and keeps connections and forwards nothing, as a dead router does; `slow` holds each chunk for some milliseconds.
It sees bytes only: TLS stays between the client and the API server.

In the tests it is a thread (`ProxyThread`); for `dpu-lab` a process of its own that obeys a Unix socket
(`python -m tests.lab.proxy`, `ProxyRemote`).
"""

import argparse
import asyncio
import contextlib
import json
import socket
import sys
import threading
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.lab.errors import LabError

T = TypeVar("T")
MODES = ("pass", "cut", "freeze", "slow")


@dataclass(frozen=True)
class ProxyState:
    """What a proxy does now, and how many connections it has and has had."""

    mode: str
    delay_ms: int
    open: int
    accepted: int


class Proxy(Protocol):
    """What the lab does with a proxy, wherever it runs."""

    port: int

    def set(self, mode: str, delay_ms: int = 0) -> None:
        """Change the mode."""

    def state(self) -> ProxyState:
        """Look at it."""

    def close(self) -> None:
        """End it."""


class ProxyServer:
    """The proxy itself; everything in it runs in one event loop."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self.mode = "pass"
        self.delay_ms = 0
        self.accepted = 0
        self._server: asyncio.Server | None = None
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def set(self, mode: str, delay_ms: int = 0) -> None:
        """Change the mode; existing connections follow at once."""
        if mode not in MODES:
            raise ValueError(f"{mode} is not one of {', '.join(MODES)}")
        self.mode, self.delay_ms = mode, delay_ms if mode == "slow" else 0
        if mode == "cut":
            await self.shut()
            return
        if mode == "freeze":
            self._thawed.clear()
        else:
            self._thawed.set()
        await self.open()

    async def shut(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._thawed.set()

    def state(self) -> ProxyState:
        """Mode and counters."""
        return ProxyState(self.mode, self.delay_ms, len(self._tasks), self.accepted)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - asyncio always runs it in one
            return
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            # Ours, from `shut`: asyncio's own callback would report it as an unhandled error.
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._thawed.wait()
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return
        try:
            pumps = [
                asyncio.create_task(self._pump(reader, upstream_writer)),
                asyncio.create_task(self._pump(upstream_reader, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            upstream_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                if self.delay_ms:
                    await asyncio.sleep(self.delay_ms / 1000)
                await self._thawed.wait()
                writer.write(chunk)
                await writer.drain()


class ProxyThread:
    """A proxy in a thread of this process."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"dpu-lab-proxy-{port}", daemon=True)
        self._thread.start()
        self._server = self._run(self._make(target))

    async def _make(self, target: int) -> ProxyServer:
        server = ProxyServer(self.port, target)
        await server.open()
        return server

    def set(self, mode: str, delay_ms: int = 0) -> None:
        """Change the mode; done when this returns."""
        self._run(self._server.set(mode, delay_ms))

    def state(self) -> ProxyState:
        """Mode and counters."""
        return self._server.state()

    def close(self) -> None:
        """Close everything and end the thread."""
        if not self._thread.is_alive():
            return
        self._run(self._server.shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


class ProxyRemote:
    """A proxy in a process of its own, told what to do through its Unix socket."""

    def __init__(self, port: int, control: Path) -> None:
        self.port = port
        self._control = control

    def set(self, mode: str, delay_ms: int = 0) -> None:
        """Change the mode; done when this returns."""
        self._tell({"mode": mode, "delay_ms": delay_ms})

    def state(self) -> ProxyState:
        """Mode and counters."""
        return ProxyState(**self._tell({}))

    def close(self) -> None:
        """Nothing: the process is ended by its note, like every other."""

    def _tell(self, order: dict[str, Any]) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                line.settimeout(10)
                line.connect(str(self._control))
                line.sendall(json.dumps(order).encode() + b"\n")
                answer: dict[str, Any] = json.loads(line.makefile("rb").readline())
        except OSError as error:
            raise LabError(
                f"The proxy on port {self.port} does not answer: {error}.", "Run `dpu-lab down`, then `dpu-lab up`."
            ) from error
        return answer


async def serve(port: int, target: int, control: Path) -> None:
    """The proxy as a process: obey the Unix socket for ever."""
    server = ProxyServer(port, target)
    await server.open()

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = json.loads(await reader.readline() or b"{}")
        if "mode" in order:
            await server.set(order["mode"], order.get("delay_ms", 0))
        writer.write(json.dumps(asdict(server.state())).encode() + b"\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(obey, str(control)) as unix:
        await unix.serve_forever()


def main(argv: list[str]) -> None:
    """`python -m tests.lab.proxy --listen PORT --target PORT --control SOCKET`."""
    parser = argparse.ArgumentParser(prog="tests.lab.proxy")
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--target", type=int, required=True)
    parser.add_argument("--control", type=Path, required=True)
    wanted = parser.parse_args(argv)
    wanted.control.unlink(missing_ok=True)
    asyncio.run(serve(wanted.listen, wanted.target, wanted.control))


if __name__ == "__main__":
    main(sys.argv[1:])
