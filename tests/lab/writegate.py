"""A gate in front of an API server: exactly N writes of one client get through, every further one is held.

Held means that it never reaches the API server, while reads and watches stream on. A test that kills the operator
while the gate holds has killed it after exactly N writes. It ends TLS, so it has its own serving certificate from the
cluster's authority, and its clients use tokens (a client certificate can't be passed on).
"""

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

from tests.lab.client import tls_context
from tests.lab.controlplane import ControlPlane
from tests.lab.kubeconfig import Access
from tests.lab.ports import free_port

T = TypeVar("T")
MUTATING = ("POST", "PUT", "PATCH", "DELETE")
NOT_WRITES = ("/apis/authorization.k8s.io/", "/apis/authentication.k8s.io/")
_HOP = {"host", "connection", "transfer-encoding", "content-length", "keep-alive", "upgrade"}


class WriteGate:
    """A context manager: `with WriteGate(cluster, token) as gate: gate.allow(3) …`."""

    def __init__(self, cluster: ControlPlane, token: str, allowed: int | None = None) -> None:
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.writes: list[tuple[str, str]] = []
        """The writes that were let through and answered, in the order of their answers."""
        self.reached = threading.Event()
        """Set when the last allowed write has been answered."""
        self.holding = threading.Event()
        """Set when a write is held: the client wants more than it was allowed."""
        self._cluster = cluster
        self._token = token
        self._allowed = allowed
        self._admitted = 0
        if allowed == 0:
            self.reached.set()
        self._loop = asyncio.new_event_loop()
        self._opened = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dpu-lab-writegate", daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._runner = self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything; held writes are never forwarded."""
        self._run(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def access(self) -> Access:
        """The client's identity, at the gate's address."""
        return Access(self.url, self._cluster.authority.cert, token=self._token)

    def allow(self, count: int) -> None:
        """From now on, let exactly so many writes through. Held ones stay held."""
        self._run(self._set(count))

    def open(self) -> None:
        """Let everything through, also what is held now."""
        self._run(self._set(None))

    # -- in the loop --------------------------------------------------------------------------------------------

    async def _set(self, count: int | None) -> None:
        self._allowed, self._admitted = count, 0
        self.writes.clear()
        self.reached.clear()
        self.holding.clear()
        if count is None:
            self._opened.set()
        else:
            self._opened.clear()
            if count == 0:
                self.reached.set()

    async def _start(self) -> web.AppRunner:
        upstream = tls_context(Access("", self._cluster.trust()))
        self._session = ClientSession(
            connector=TCPConnector(ssl=upstream, limit=0),
            timeout=ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        if self._allowed is None:
            self._opened.set()
        application = web.Application(client_max_size=64 * 2**20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._serving()).start()
        return runner

    def _serving(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.TemporaryDirectory() as folder:
            context.load_cert_chain(*self._cluster.authority.server().write(Path(folder), "gate"))
        return context

    async def _finish(self) -> None:
        await self._runner.cleanup()
        await self._session.close()
        # The TLS transports of a closed session end in the next rounds of the loop.
        await asyncio.sleep(0.05)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        counted = self._counts(request)
        if counted:
            await self._admit()
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        target = URL(f"{self._cluster.direct_url}{request.raw_path}", encoded=True)
        try:
            async with self._session.request(request.method, target, headers=headers, data=body or None) as answer:
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                for name, value in answer.headers.items():
                    if name.lower() not in _HOP:
                        response.headers.add(name, value)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
        except (ClientError, ConnectionError) as error:
            raise web.HTTPBadGateway(text=f"the gate lost its API server: {error}") from error
        if counted:
            self._answered(request)
        return response

    def _counts(self, request: web.Request) -> bool:
        ours = request.headers.get("Authorization") == f"Bearer {self._token}"
        return ours and request.method in MUTATING and not request.path.startswith(NOT_WRITES)

    async def _admit(self) -> None:
        if self._allowed is None:
            return
        if self._admitted < self._allowed:
            self._admitted += 1
            return
        self.holding.set()
        await self._opened.wait()

    def _answered(self, request: web.Request) -> None:
        self.writes.append((request.method, request.path))
        if self._allowed is not None and len(self.writes) >= self._allowed:
            self.reached.set()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)
