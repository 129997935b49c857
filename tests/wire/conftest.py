"""A server that misbehaves on demand, a client of it, and someone who notes what a list-watch says."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from dpu_operator.kube.access import Access
from dpu_operator.kube.client import Cluster
from dpu_operator.kube.link import LinkGate
from dpu_operator.kube.listwatch import Broken, Changed, Event, Listed, ListWatch
from dpu_operator.world import CONFIG_MAP, Kind, Link, LinkState
from tests.lab.pki import Authority, Pair
from tests.wire.server import PATIENCE, Server

TOKEN = "t0ken-that-nobody-may-see"


@dataclasses.dataclass(frozen=True)
class Certificates:
    """One authority with a server of it, another authority, and a client."""

    authority: Authority
    server: Pair
    other: Authority
    client: Pair


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    authority = Authority.make("tenant")
    client = authority.client("somebody", lifetime=dt.timedelta(days=1))
    return Certificates(authority, authority.server(), Authority.make("other"), client)


@pytest.fixture(scope="session")
def server_context(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    cert, key = certificates.server.write(tmp_path_factory.mktemp("pki"), "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


@pytest_asyncio.fixture
async def server(server_context: ssl.SSLContext) -> AsyncIterator[Server]:
    made = Server(server_context)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def access(server: Server, certificates: Certificates) -> Access:
    return Access(server=f"https://127.0.0.1:{server.port}", ca_pem=certificates.authority.cert, token=TOKEN)


@pytest.fixture
def request_timeout() -> float:
    """Long enough for a busy machine; `IMPATIENT` is for the tests in which a request must time out."""
    return 3.0


IMPATIENT = pytest.mark.parametrize("request_timeout", [0.4])


@pytest_asyncio.fixture
async def cluster(access: Access, request_timeout: float) -> AsyncIterator[Cluster]:
    async with Cluster(access, request_timeout=request_timeout, connect_timeout=3.0) as made:
        yield made


class Witness:
    """Runs list-watches and notes what they say, and what the link became."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.links: list[Link] = []
        self.gate = LinkGate(server="api", on_change=self._link, first_delay=0.02, down_delay=0.1, refused_delay=0.2)
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def watch(
        self, kind: Kind = CONFIG_MAP, *, name: str | None = None, silence: float = 60.0, settled: float = 0.0,
        first_delay: float = 0.02, timeout_seconds: int = 100,
    ) -> asyncio.Task[None]:  # fmt: skip
        """Start a list-watch with small delays."""
        made = ListWatch(
            self.cluster, kind, "tenant", link=self.gate, name=name, timeout_seconds=timeout_seconds,
            silence=silence, settled=settled, first_delay=first_delay,
        )  # fmt: skip
        task: asyncio.Task[None] = asyncio.create_task(made.run(self._event))
        self._tasks.append(task)
        return task

    @property
    def listed(self) -> list[Listed]:
        return [event for event in self.events if isinstance(event, Listed)]

    @property
    def changed(self) -> list[Changed]:
        return [event for event in self.events if isinstance(event, Changed)]

    @property
    def broken(self) -> list[Broken]:
        return [event for event in self.events if isinstance(event, Broken)]

    @property
    def states(self) -> list[LinkState]:
        return [link.state for link in self.links]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that is noted here has come true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _event(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def _link(self, link: Link) -> None:
        self.links.append(link)
        self._changed.set()


@pytest_asyncio.fixture
async def witness(cluster: Cluster) -> AsyncIterator[Witness]:
    made = Witness(cluster)
    yield made
    await made.close()


@pytest.fixture
def no_memory_files() -> Iterator[None]:
    """Nothing of a client certificate may stay open."""

    def open_ones() -> list[str]:
        targets = []
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                targets.append(str(entry.readlink()))
        return [target for target in targets if "memfd" in target]

    assert open_ones() == []
    yield
    assert open_ones() == []
