"""ovsdb-server that is away, hangs, is replaced, converted or killed, or is something else altogether."""

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dpu_agent.host import ovsdb_link, ovsdb_worker
from dpu_agent.host.ovsdb import OvsDatabase, remote
from dpu_agent.machine import HostError
from tests.lab import processes
from tests.wire.ovs_relay import CutError, Relay, relay
from tests.wire.ovs_server import PATIENCE, OvsServer, ovs_server, until

ROOT = Path(__file__).parents[2]
IMPATIENCE = 0.3
"""Seconds that a call waits in the tests in which nobody answers."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OvsServer]:
    with ovs_server(tmp_path) as made:
        made.vsctl("add-br", "br-ex")
        yield made


@pytest.fixture
def connect() -> Iterator[Callable[..., OvsDatabase]]:
    """Makes databases, and closes them in the end."""
    made: list[OvsDatabase] = []

    def to(at: str, patience: float = PATIENCE) -> OvsDatabase:
        made.append(OvsDatabase(at, patience=patience))
        return made[-1]

    yield to
    for database in made:
        database.close()


@pytest.fixture
def between(server: OvsServer, tmp_path: Path) -> Iterator[Relay]:
    with relay(tmp_path / "relay.sock", server.socket) as made:
        yield made


class Events:
    """What a watcher heard."""

    def __init__(self) -> None:
        self.count = 0
        self.names: set[str] = set()
        self._come = threading.Event()

    def __call__(self, name: str) -> None:
        self.names.add(name)
        self.count += 1
        self._come.set()

    def forget(self) -> None:
        self._come.clear()

    def wait(self) -> bool:
        return self._come.wait(PATIENCE)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ovsdb"]


Connect = Callable[..., OvsDatabase]


def test_a_server_that_is_not_there_is_said_at_once(tmp_path: Path, connect: Connect) -> None:
    database = connect(f"unix:{tmp_path}/none.sock")
    for call in (database.read, lambda: database.add_port("br-ex", "pf0hpf")):
        with pytest.raises(HostError) as raised:
            call()
        assert raised.value.message == f"ovsdb-server is not there: {tmp_path}/none.sock: No such file or directory."
        assert raised.value.hint.startswith("Start Open vSwitch")


def test_a_server_that_may_not_be_asked_is_told_from_one_that_is_not_there() -> None:
    with pytest.raises(HostError, match="may not be asked at /x: Permission denied") as raised:
        ovsdb_link._Inquiry("unix:/x")._check(13)
    assert "label=disable" in raised.value.hint


def test_a_server_that_accepts_nobody_is_said_at_once(tmp_path: Path, connect: Connect) -> None:
    """As one that hangs for long: the kernel's queue for it is full."""
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(path)
        listener.listen(0)
        code = 0
        while code == 0:
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(0)
            code = client.connect_ex(path)
        with pytest.raises(HostError, match="ovsdb-server does not answer: it accepts no more connections"):
            connect(f"unix:{path}").read()


def test_a_read_while_the_server_is_down_does_not_answer_from_memory(server: OvsServer, connect: Connect) -> None:
    database = connect(server.remote)
    assert database.read().bridges
    server.kill()
    for _ in range(3):
        with pytest.raises(HostError, match=r"ovsdb-server is not there|connection to ovsdb-server broke"):
            database.read()


def test_a_read_right_after_a_restart_tells_the_truth(server: OvsServer, connect: Connect) -> None:
    database = connect(server.remote)
    for number in range(5):
        database.read()
        server.restart()
        server.vsctl("set", "Open_vSwitch", ".", f"other_config:hw-offload={number}")
        assert database.read().hw_offload == str(number)


def test_a_database_that_was_replaced_is_read_anew(server: OvsServer, connect: Connect) -> None:
    database = connect(server.remote)
    database.add_port("br-ex", "pf0hpf")
    server.kill()
    server.create()
    server.start()
    assert database.read().bridges == ()
    server.vsctl("init", "--", "add-br", "br-ex", "--", "add-port", "br-ex", "p7")
    assert [port.name for port in database.read().bridges[0].ports] == ["br-ex", "p7"]


def test_a_server_that_hangs_is_said_within_the_callers_patience(server: OvsServer, connect: Connect) -> None:
    warm, cold = connect(server.remote, IMPATIENCE), connect(server.remote, IMPATIENCE)
    until(lambda: reads(warm))
    with server.hung():
        for database in (warm, cold, warm, cold):
            with pytest.raises(HostError, match="ovsdb-server does not answer") as raised:
                database.read()
            assert "systemctl status ovsdb-server" in raised.value.hint
    until(lambda: reads(warm) and reads(cold))


def reads(database: OvsDatabase) -> bool:
    try:
        database.read()
    except HostError:
        return False
    return True


def test_a_change_that_its_caller_gave_up_before_it_was_sent_is_never_sent(server: OvsServer, connect: Connect) -> None:
    database = connect(server.remote, IMPATIENCE)
    until(lambda: reads(database))
    with server.hung(), pytest.raises(HostError) as raised:
        database.add_port("br-ex", "pf0hpf")
    assert "not known" not in raised.value.message
    until(lambda: reads(database))
    assert server.ports("br-ex") == []


def test_a_change_whose_answer_is_late_has_an_unknown_outcome(
    server: OvsServer, between: Relay, connect: Connect
) -> None:
    """It is done here, after all; a look tells."""
    late = threading.Event()
    between.before(b'"insert"', late.wait)
    database = connect(between.remote, IMPATIENCE)
    until(lambda: reads(database))
    with pytest.raises(HostError) as raised:
        database.add_port("br-ex", "pf0hpf")
    late.set()
    assert raised.value.message.endswith(", and whether it did add pf0hpf to br-ex is not known.")
    assert raised.value.hint.startswith("Look again")
    until(lambda: reads(database))
    assert server.ports("br-ex") == ["pf0hpf"]
    before = server.commits()
    database.add_port("br-ex", "pf0hpf")
    assert server.commits() == before


@pytest.mark.parametrize("done", [True, False])
def test_a_server_that_is_killed_between_request_and_answer_leaves_the_outcome_unknown(
    server: OvsServer, between: Relay, connect: Connect, *, done: bool
) -> None:
    def asked(data: bytes) -> bytes:
        if b'"insert"' not in data:
            return data
        if done:
            other.add_port("br-ex", "pf0hpf")
        server.kill()
        raise CutError

    other = connect(server.remote)
    database = connect(between.remote)
    database.read()
    between.asked = asked
    with pytest.raises(HostError, match="broke, and whether it did add pf0hpf to br-ex is not known"):
        database.add_port("br-ex", "pf0hpf")
    server.start()
    between.asked = bytes
    assert ("pf0hpf" in [port.name for port in database.read().bridges[0].ports]) is done
    database.add_port("br-ex", "pf0hpf")
    assert server.ports("br-ex") == ["pf0hpf"]


def test_a_connection_that_breaks_under_a_read_is_renewed_once_without_a_word(between: Relay, connect: Connect) -> None:
    database = connect(between.remote)
    database.read()
    cuts = [1]

    def answered(data: bytes) -> bytes:
        if cuts and b'"rows"' in data:
            cuts.pop()
            raise CutError
        return data

    between.answered = answered
    assert database.read().bridges
    cuts.extend([1, 2])
    with pytest.raises(HostError, match="The connection to ovsdb-server broke"):
        database.read()


def test_a_watcher_hears_of_a_change_by_somebody_else(server: OvsServer, connect: Connect) -> None:
    database, events = connect(server.remote), Events()
    database.watch(events)
    database.read()
    for words in (("add-port", "br-ex", "p0"), ("del-port", "br-ex", "p0"), ("del-br", "br-ex")):
        events.forget()
        server.vsctl(*words)
        assert events.wait()
    assert events.names == {"ovsdb"}


def test_a_watcher_hears_of_the_loss_of_the_server_and_of_its_return(server: OvsServer, connect: Connect) -> None:
    database, events = connect(server.remote), Events()
    watch = database.watch(events)
    assert events.wait()
    database.read()
    for _ in range(2):
        events.forget()
        server.kill()
        assert events.wait()
        events.forget()
        server.start()
        assert events.wait()
        assert database.read().bridges
    assert watch.alive


def test_while_the_server_is_away_nobody_is_woken_for_nothing(
    server: OvsServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovsdb_worker, "_LONGEST_DELAY", 0.01)
    monkeypatch.setattr(ovsdb_worker, "_FIRST_DELAY", 0.01)
    attempts: list[str] = []

    class Counted(ovsdb_link.Link):
        def __init__(self, at: str) -> None:
            attempts.append(at)
            super().__init__(at)

    monkeypatch.setattr(ovsdb_worker, "Link", Counted)
    database, events = connect(server.remote), Events()
    database.watch(events)
    assert events.wait()
    database.read()
    events.forget()
    server.kill()
    assert events.wait()
    heard = events.count
    attempts.clear()
    until(lambda: len(attempts) > 20)
    assert events.count == heard


def test_a_closed_watch_hears_nothing_and_the_others_go_on(server: OvsServer, connect: Connect) -> None:
    database, first, second = connect(server.remote), Events(), Events()
    watch = database.watch(first)
    database.watch(second)
    database.read()
    watch.close()
    assert not watch.alive
    first.forget()
    second.forget()
    heard = first.count
    server.vsctl("add-port", "br-ex", "p0")
    assert second.wait()
    assert first.count == heard


def test_a_watcher_that_fails_takes_nothing_with_it(
    server: OvsServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: str) -> None:
        raise OSError(name)

    database, events = connect(server.remote), Events()
    database.watch(fail)
    database.watch(events)
    assert events.wait()
    assert database.read().bridges
    assert "Somebody who watches Open vSwitch's database failed." in caplog.text


def test_columns_that_nobody_reads_here_wake_nobody(server: OvsServer, connect: Connect) -> None:
    database, events = connect(server.remote), Events()
    database.watch(events)
    database.read()
    server.vsctl("set", "Interface", "br-ex", "statistics:rx_bytes=1")  # this also counts next_cfg up, which is read
    database.read()  # the server answers in order: an event would have come before
    quiet = events.count
    for column, value in (("ofport_request", 7), ("ofport", 7)):
        transact = ["Open_vSwitch", {"op": "update", "table": "Interface", "where": [], "row": {column: value}}]
        server.run("ovsdb-client", "transact", server.remote, json.dumps(transact))
        database.read()
        assert events.count == quiet + (column == "ofport")


def test_two_hundred_changes_at_once_leave_no_memory_behind(server: OvsServer, connect: Connect) -> None:
    database, events = connect(server.remote), Events()
    database.watch(events)

    def burst(changes: int) -> None:
        for number in range(changes // 2):
            database.add_port("br-ex", f"m{number}")
            database.remove_port("br-ex", f"m{number}")

    burst(50)
    before = resident()
    heard = events.count
    burst(200)
    assert resident() - before < 2048
    assert events.count - heard >= 200
    worker = database._worker
    assert worker is not None
    assert worker._link is not None
    assert worker._link.idl._outstanding_txns == {}


def resident() -> int:
    """KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def test_close_ends_the_thread_in_every_state(server: OvsServer, tmp_path: Path) -> None:
    opened = len(list(Path("/proc/self/fd").iterdir()))
    for at in (server.remote, f"unix:{tmp_path}/none.sock"):
        database = OvsDatabase(at, patience=IMPATIENCE)
        database.watch(Events())
        reads(database)
        database.close()
        database.close()
        with pytest.raises(HostError, match="was closed"):
            database.read()
    OvsDatabase(server.remote).close()
    with server.hung():
        database = OvsDatabase(server.remote, patience=PATIENCE)
        failures: list[HostError] = []

        def ask() -> None:
            try:
                database.read()
            except HostError as error:
                failures.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: len(threads()) == 1)
        database.close()
        asking.join()
        assert "was closed" in failures[0].message
    assert threads() == []
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_a_schema_that_is_converted_meanwhile_is_read_by_the_new_one(
    server: OvsServer, connect: Connect, tmp_path: Path
) -> None:
    """As an upgrade does it, without a restart of the server: there, columns go and come."""
    database, events = connect(server.remote), Events()
    database.watch(events)
    database.read()
    schema = json.loads(server.programs.schema.read_text())
    schema["version"] = "99.0.0"
    del schema["tables"]["Interface"]["columns"]["error"]
    del schema["tables"]["Open_vSwitch"]["columns"]["ovs_version"]
    schema["tables"]["Bridge"]["columns"]["brand_new"] = {"type": "string"}
    path = tmp_path / "new.ovsschema"
    path.write_text(json.dumps(schema))
    events.forget()
    server.run("ovsdb-client", "convert", server.remote, str(path))
    assert events.wait()
    database.add_port("br-ex", "pf0hpf")
    world = database.read()
    assert (world.version, [port.name for port in world.bridges[0].ports]) == ("", ["br-ex", "pf0hpf"])


def test_a_schema_without_what_is_needed_is_named(server: OvsServer, connect: Connect, tmp_path: Path) -> None:
    schema = json.loads(server.programs.schema.read_text())
    del schema["tables"]["Port"]["columns"]["other_config"]
    path = tmp_path / "old.ovsschema"
    path.write_text(json.dumps(schema))
    server.kill()
    server.create(path)
    server.start()
    with pytest.raises(HostError, match=r"The database of Open vSwitch lacks Port\.other_config"):
        connect(server.remote).read()


def test_a_server_without_open_vswitchs_database_is_named(server: OvsServer, connect: Connect) -> None:
    database = connect(server.remote)
    database.read()
    server.control("ovsdb-server/remove-db", "Open_vSwitch")
    until(lambda: not reads(database))
    with pytest.raises(HostError, match=r"ovsdb-server gives no schema of Open_vSwitch|refuses to be read"):
        database.read()
    server.control("ovsdb-server/add-db", str(server.database))
    until(lambda: reads(database))


def test_a_server_that_refuses_a_change_is_quoted(server: OvsServer, between: Relay, connect: Connect) -> None:
    between.asked = lambda data: data.replace(b'"name":"pf0hpf"', b'"name":{"no":7}') if b'"insert"' in data else data
    with pytest.raises(HostError, match="ovsdb-server refused to add pf0hpf to br-ex: syntax error"):
        connect(between.remote).add_port("br-ex", "pf0hpf")
    assert server.ports("br-ex") == []


SCHEMA = b'"id":"schema"'

LIES: dict[str, Callable[[bytes], bytes]] = {
    "nothing of JSON": lambda data: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "no text": lambda data: b"\xff\xfe\x00" * 100,
    "an array": lambda data: b"[]",
    "a schema of nothing": lambda data: b'{"id":"schema","result":{},"error":null}',
    "a schema of another shape": lambda data: b'{"id":"schema","result":{"tables":{"Port":7}},"error":null}',
    "an error": lambda data: b'{"id":"schema","result":null,"error":{"error":"unknown database"}}',
    "depth": lambda data: b'{"id":' + b"[" * 100_000,
    "garbage after the schema": lambda data: data if SCHEMA in data else b"\x00garbage",
    "an array after the schema": lambda data: data if SCHEMA in data else b"[1,2,3]",
    "a message of another shape": lambda data: data if SCHEMA in data else b'{"id":7,"result":7,"error":7,"x":7}',
    "an update of another shape": (
        lambda data: data.replace(b'"initial"', b'"unheard-of"').replace(b'"Bridge":{', b'"Bridge":[],"x":{')
    ),
    "answers of another shape": lambda data: data.replace(b'"rows":[', b'"error":[7],"x":['),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_no_ovsdb_server_says_is_an_error_of_two_sentences_and_the_truth_later_is_believed(
    between: Relay, connect: Connect, lie: str, caplog: pytest.LogCaptureFixture
) -> None:
    between.answered = LIES[lie]
    database = connect(between.remote, 1.0)
    with pytest.raises(HostError) as raised:
        database.read()
    assert raised.value.message.endswith(".")
    assert raised.value.hint.endswith(".")
    between.answered = bytes
    until(lambda: reads(database))
    assert [bridge.name for bridge in database.read().bridges] == ["br-ex"]
    assert "Traceback" not in caplog.text
    assert len(threads()) == 1


def test_a_message_without_an_end_is_cut_off(between: Relay, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovsdb_link, "MESSAGE_LIMIT", 40_000)
    between.answered = lambda data: data if SCHEMA in data else b'{"id":"' + b"x" * 100_000
    database = connect(between.remote)
    with pytest.raises(HostError, match="The connection to ovsdb-server broke"):
        database.read()
    between.answered = lambda data: b'{"id":"' + b"x" * 100_000
    with pytest.raises(HostError, match="its schema has no end"):
        database.read()


def test_many_messages_are_not_taken_for_one_without_an_end(
    server: OvsServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovsdb_link, "MESSAGE_LIMIT", 60_000)
    database = connect(server.remote)
    for number in range(300):
        database.set_offload(enabled=bool(number % 2), under=f"{number:0100d}")
    worker = database._worker
    assert worker is not None
    assert worker._link is not None
    assert worker._link._session.rpc.get_received_bytes() > 2 * 60_000


def test_who_never_answers_is_asked_anew(between: Relay, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is stuck by itself, on a server that would answer on a new one."""
    monkeypatch.setattr(ovsdb_link, "STALL", 0.2)
    database = connect(between.remote, 0.1)
    between.answered = lambda data: b""
    assert not reads(database)
    until(lambda: between.connections > 2)
    between.answered = bytes
    until(lambda: reads(database))


def test_one_that_breaks_each_time_is_not_asked_in_a_storm(between: Relay, connect: Connect) -> None:
    def answered(data: bytes) -> bytes:
        raise CutError

    between.answered = answered
    database, events = connect(between.remote), Events()
    database.watch(events)
    until(lambda: between.connections >= 3)
    begun, before = time.monotonic(), between.connections
    until(lambda: between.connections >= before + 2)
    assert time.monotonic() - begun > 0.2
    assert events.count == 0


def test_a_thread_that_ended_is_told_and_started_anew(server: OvsServer, connect: Connect) -> None:
    database, events = connect(server.remote), Events()
    watch = database.watch(events)
    until(lambda: watch.alive)
    assert database._worker is not None
    database._worker.stop()
    until(lambda: not watch.alive)
    watch.close()
    again = database.watch(events)
    until(lambda: again.alive)
    assert database.read().bridges


def test_a_thousand_open_files_are_not_too_many(server: OvsServer, connect: Connect) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert connect(server.remote).read().bridges
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_open_vswitchs_client_writes_nothing_on_the_console(tmp_path: Path) -> None:
    code = (
        "import sys; from dpu_agent.host.ovsdb import OvsDatabase\n"
        "try: OvsDatabase(sys.argv[1]).read()\n"
        "except Exception as error: print(error.message)\n"
    )
    done = subprocess.run(
        processes.tied([sys.executable, "-c", code, f"unix:{tmp_path}/none.sock"]),
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("ovsdb-server is not there")
    assert done.stderr == ""


def test_the_socket_is_where_open_vswitchs_own_programs_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVS_RUNDIR", raising=False)
    assert remote() == "unix:/run/openvswitch/db.sock"
    monkeypatch.setenv("OVS_RUNDIR", "/elsewhere")
    assert remote() == "unix:/elsewhere/db.sock"
