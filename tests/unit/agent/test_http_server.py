"""The server: many clients, bad clients, and everything that schemathesis thinks of, over a real socket."""

import asyncio
import contextlib
import resource
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from dpu_agent import serving
from dpu_agent.address import Address
from dpu_agent.address import parse as parse_address
from dpu_agent.commands.client import NobodyError, get
from dpu_agent.health import application
from dpu_agent.serving import Serving
from dpu_agent.world import World
from dpu_shared.errors import UserError
from tests.unit.agent import worlds as w
from tests.unit.agent.test_http import Agent, Client, portless

PATIENCE = 20.0


class Server:
    """The agent's HTTP in a thread with a loop of its own."""

    def __init__(self, agent: Agent, address: Address) -> None:
        self.address = address
        self._serving = Serving(application(agent), address)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: answers(self.address))
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        async def main() -> None:
            self._task = asyncio.create_task(self._serving.run())
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await asyncio.sleep(0.05)  # what was hung up on is closed by the loop's next rounds

        with contextlib.closing(self._loop):
            self._loop.run_until_complete(main())


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def answers(address: Address) -> bool:
    try:
        get(address, "/livez", patience=PATIENCE, limit=1 << 20)
    except (NobodyError, UserError):
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def agent() -> Agent:
    made = Agent()
    made.saw(w.healthy())
    return made


@pytest.fixture(scope="module")
def server(agent: Agent) -> Iterator[Server]:
    with Server(agent, Address(port=free_port())) as running:
        yield running


def connect(address: Address) -> socket.socket:
    return socket.create_connection((address.host, address.port), timeout=PATIENCE)


def ended(client: socket.socket) -> bool:
    """Whether the server has hung up; waits for it."""
    client.settimeout(PATIENCE)
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_an_answer_ends_the_connection_as_the_shell_script_of_the_pod_needs_it(server: Server) -> None:
    with connect(server.address) as client:
        client.sendall(b"GET /readyz HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        text = b""
        while part := client.recv(65536):
            text += part
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"200"
    assert body == b"The DPU is as configured.\n"


def test_a_connection_is_for_one_request(server: Server) -> None:
    with connect(server.address) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n" * 3)
        text = b""
        while part := client.recv(65536):
            text += part
    assert text.count(b"HTTP/1.1 ") == 1
    assert b"connection: close\r\n" in text


def test_two_hundred_clients_at_once_are_all_answered(server: Server) -> None:
    together = threading.Barrier(200)

    def ask(number: int) -> int:
        with connect(server.address) as client:
            together.wait(PATIENCE)
            client.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            text = b""
            while part := client.recv(65536):
                text += part
        return int(text.split(b" ")[1])

    with ThreadPoolExecutor(200) as pool:
        assert list(pool.map(ask, range(200))) == [200] * 200


@pytest.mark.parametrize(
    "opening",
    [
        pytest.param(b"", id="sends nothing"),
        pytest.param(b"GET /status HTTP/1.1\r\nHost:", id="never ends its request"),
        pytest.param(b"POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", id="never ends its body"),
    ],
)
def test_a_client_that_leaves_its_request_undone_is_hung_up_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, opening: bytes
) -> None:
    monkeypatch.setattr(serving, "_SECONDS", 0.3)
    with connect(server.address) as client:
        client.sendall(opening)
        assert ended(client)


def test_clients_that_never_read_cost_neither_answers_nor_memory(
    server: Server, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_SECONDS", 1.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.settimeout(PATIENCE)
            client.connect((server.address.host, server.address.port))
            with contextlib.suppress(OSError):
                client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
        for _ in range(20):
            assert get(server.address, "/livez", patience=PATIENCE, limit=1 << 20)[0] == 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_more_connections_than_there_may_be_are_hung_up_on_and_the_rest_live(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_MOST", 20)
    monkeypatch.setattr(serving, "_SECONDS", 600.0)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server.address)) for _ in range(40)]
        assert ended(clients[-1])
    until(lambda: answers(server.address))


def test_garbage_is_refused_and_the_next_client_is_answered(server: Server) -> None:
    with connect(server.address) as client:
        client.sendall(b"\x16\x03\x01\x02\x00" * 100)
        assert ended(client)
    assert answers(server.address)


def test_a_second_agent_waits_for_the_port_and_takes_it_when_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    address = Address(port=free_port())
    agent = Agent()
    agent.saw(w.healthy())
    with socket.socket() as other:
        other.bind((address.host, address.port))
        other.listen()
        with pytest.raises(UserError, match=f"cannot listen on http://127.0.0.1:{address.port}"):
            serving.listen(address)
    with Server(agent, address):
        assert answers(address)


def test_a_unix_socket_is_for_root_alone_and_goes_with_the_agent(agent: Agent, tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "run" / "http.sock"))
    with Server(agent, address):
        assert get(address, "/readyz", patience=PATIENCE, limit=1 << 20)[0] == 200
        assert stat.S_IMODE(Path(address.path).stat().st_mode) == 0o600
        with pytest.raises(UserError, match="cannot listen"):
            serving.listen(address)
        assert answers(address)
    assert not Path(address.path).exists()
    with pytest.raises(NobodyError):
        get(address, "/readyz", patience=1, limit=1)


def test_a_socket_that_a_killed_agent_left_behind_is_taken_over(agent: Agent, tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "http.sock"))
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(address.path)
    with Server(agent, address):
        assert answers(address)


def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    path.write_text("somebody's")
    with pytest.raises(UserError, match="cannot listen"):
        serving.listen(Address(path=str(path)))
    assert path.read_text() == "somebody's"


@pytest.mark.parametrize("listen", ["0.0.0.0:9917", "192.0.2.7:80", "[::]:9917", "[2001:db8::1]:9917"])
def test_an_address_that_others_could_reach_is_refused(listen: str) -> None:
    with pytest.raises(UserError, match="reachable from other machines"):
        parse_address(listen)


@pytest.mark.parametrize(
    "listen", ["", "x", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "localhost:80", ":-1", "1:²"]
)
def test_what_is_no_address_is_refused_in_two_sentences(listen: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_address(listen)
    assert caught.value.message.endswith(".")
    assert caught.value.hint.endswith(".")


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("9917", Address()),
        ("127.0.0.2:80", Address("127.0.0.2", 80)),
        ("[::1]:80", Address("::1", 80)),
    ],
)
def test_loopback_has_many_spellings(listen: str, address: Address) -> None:
    assert parse_address(listen) == address


def test_a_sockets_path_has_a_length() -> None:
    with pytest.raises(UserError, match="too long"):
        parse_address("9917", "/run/" + "x" * 103)
    assert parse_address("9917", "/run/x").path == "/run/x"


# schemathesis: every endpoint, from the description that the agent itself gives.

WORLDS = (w.healthy(), w.first_boot(), portless(), replace(w.healthy(), platform=w.SERVER), World(), None)
"""None: the agent has just started."""


SCHEMA = schemathesis.openapi.from_dict(Client(application(Agent())).get("/openapi.json").json())


@SCHEMA.parametrize()
@settings(max_examples=15, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
def test_every_endpoint_answers_as_it_is_described(case: Any, server: Server, agent: Agent) -> None:
    for world in WORLDS:
        if world is None:
            agent.snapshot = None
        else:
            agent.saw(world)
        # 503 is an answer like another here, and described; what is not described fails on its own.
        answer = case.call_and_validate(
            base_url=str(server.address), excluded_checks=[schemathesis.checks.not_a_server_error]
        )
        assert answer.status_code != 500
