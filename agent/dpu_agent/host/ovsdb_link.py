"""One connection to ovsdb-server, from its first byte to its end: the replica of what the agent reads of the database.

Open vSwitch's own client keeps the replica, but it does not reconnect on its own here. It would wait up to 8 seconds
between attempts, go on with the old schema after an upgrade, and never say that it is cut off. So a connection that
ends is over, and its owner makes a new one.
"""

import errno
import json
import os
import time
from collections.abc import Generator, Mapping
from typing import Any

import ovs.db.idl
import ovs.jsonrpc
import ovs.stream
from ovs.db.error import Error as OvsdbFault

from dpu_agent.machine import HostError

DATABASE = "Open_vSwitch"
NEEDED: Mapping[str, frozenset[str]] = {
    "Open_vSwitch": frozenset({"bridges", "other_config", "external_ids"}),
    "Bridge": frozenset({"name", "ports"}),
    "Port": frozenset({"name", "interfaces", "external_ids", "other_config"}),
    "Interface": frozenset({"name", "type", "ofport"}),
}
"""Columns without which there is nothing to do here; Open vSwitch has had them since 1.4."""
WANTED: Mapping[str, frozenset[str]] = {
    "Open_vSwitch": frozenset({"next_cfg", "cur_cfg", "ovs_version"}),
    "Bridge": frozenset({"datapath_type"}),
    "Interface": frozenset({"error"}),
}
"""Columns that are read where the server's schema has them. No counters: each of their changes would be an event."""
STALL = 10.0
"""Seconds without an answer after which a connection is given up for a new one."""
MESSAGE_LIMIT = 8 << 20
"""Bytes of one message. A thousand ports are under one MiB; whoever sends more is no Open vSwitch."""

STATUS = "See how it is with `systemctl status ovsdb-server`."
_NO_OVSDB = "See which program listens there; Open vSwitch's own is ovsdb-server."


def silent(seconds: float) -> HostError:
    """There is a server, and it says nothing: stopped, or too busy."""
    return HostError(f"ovsdb-server does not answer (waited {seconds:g} s).", STATUS)


def broken() -> HostError:
    """The server has ended, or has ended this connection."""
    return HostError("The connection to ovsdb-server broke.", STATUS)


def incomprehensible(why: object) -> HostError:
    """Something answers that does not speak as ovsdb-server does."""
    return HostError(f"What answers as ovsdb-server cannot be understood: {why}.", _NO_OVSDB)


class Link:
    """One connection. `run` and `wait` are called in turn, by one thread; whatever ends it is a HostError of `run`."""

    def __init__(self, remote: str) -> None:
        self.remote = remote
        self.ready = False
        """Whether the replica is whole. It stays so until `run` raises."""
        self.idl: Any = None
        self._inquiry: _Inquiry | None = _Inquiry(remote)
        self._asked: float | None = time.monotonic()

    def run(self) -> bool:
        """Do what can be done without waiting; says whether the replica changed.

        Raises:
            HostError: the connection is over, and why.

        """
        try:
            if self._inquiry is not None:
                self._inquire(self._inquiry)
            changed = self._replicate() if self.idl is not None else False
        except HostError:
            raise
        except (ArithmeticError, AssertionError, AttributeError, LookupError, OvsdbFault, RuntimeError, TypeError, ValueError) as error:  # fmt: skip
            # Open vSwitch's client trusts its server: an answer of another shape ends in any of these.
            raise incomprehensible(f"{type(error).__name__}: {error}"[:200]) from error
        if self._asked is not None and time.monotonic() - self._asked > STALL:
            raise silent(STALL)
        return changed

    def wait(self, poller: Any) -> None:
        """Have the poller wake when `run` has something to do."""
        if self._inquiry is not None:
            self._inquiry.wait(poller)
        elif self.idl is not None:
            self.idl.wait(poller)
        if self._asked is not None:
            poller.timer_wait(int((self._asked + STALL - time.monotonic()) * 1000) + 1)

    def close(self) -> None:
        """End it."""
        if self._inquiry is not None:
            self._inquiry.close()
        if self.idl is not None:
            self.idl.close()

    def look(self) -> Generator[None, None, None]:
        """Make sure that the replica is what the database says now; yields while the server has yet to answer.

        The server answers in order, and sends all changes that came before: its answer to a question that changes
        nothing says that the replica holds whatever was committed before the question.

        Raises:
            HostError: the server refuses to be read.

        """
        question = ovs.db.idl.Transaction(self.idl)
        question.add_op({"op": "select", "table": DATABASE, "where": [], "columns": ["_uuid"]})
        if (yield from self.commit(question)) != ovs.db.idl.Transaction.SUCCESS:
            raise HostError(f"ovsdb-server refuses to be read: {words(question)}.", STATUS)

    def commit(self, transaction: Any) -> Generator[None, None, str]:
        """Commit a transaction; yields while the server has yet to answer, and returns the status."""
        self._asked = time.monotonic()
        while (status := transaction.commit()) == ovs.db.idl.Transaction.INCOMPLETE:
            yield
        self._asked = None
        return str(status)

    def _inquire(self, inquiry: "_Inquiry") -> None:
        schema = inquiry.run()
        if schema is not None:
            inquiry.close()
            self._inquiry = None
            helper = ovs.db.idl.SchemaHelper(schema_json=schema)
            helper.register_all()
            self.idl = ovs.db.idl.Idl(self.remote, helper, leader_only=False)
            self._session.reconnect.set_max_tries(1)

    def _replicate(self) -> bool:
        changed: bool = self.idl.run()
        session = self._session
        if not session.is_alive():
            raise broken()
        if session.rpc is not None and not isinstance(session.rpc.stream, _Metered):
            session.rpc.stream = _Metered(session.rpc)
        whole = self.idl.state == ovs.db.idl.Idl.IDL_S_MONITORING
        if self.ready and not whole:  # the server was told to convert its database to another schema
            raise HostError("ovsdb-server changed the database's schema.", "Look again, which reads the new one.")
        if whole and not self.ready:
            self.ready = True
            self._asked = None
        return changed

    @property
    def _session(self) -> Any:
        return self.idl._session  # noqa: SLF001 - the one way to see that a connection is lost


def words(transaction: Any) -> str:
    """The server's own words about a transaction that it refused."""
    said = transaction.get_error()
    try:
        told = json.loads(said)
        return f"{told['error']}: {told['details']}" if "details" in told else str(told["error"])
    except (ValueError, TypeError, LookupError):
        return str(said)


class _Inquiry:
    """Asks a server for its schema, which the replica needs before it can be made.

    On a connection of its own, and parsed by the standard library: Open vSwitch's parser in Python takes 40 times as
    long, and `apply --dry-run` waits for it.
    """

    _REQUEST = json.dumps({"method": "get_schema", "params": [DATABASE], "id": "schema"}).encode()

    def __init__(self, remote: str) -> None:
        self._remote = remote
        self._stream: Any = None
        self._unsent = self._REQUEST
        self._received = b""
        self._decoder = json.JSONDecoder()

    def run(self) -> dict[str, Any] | None:
        """The schema, cut down to what is read here; None where it is not yet there."""
        if self._stream is None:
            code, self._stream = ovs.stream.Stream.open(self._remote)
            self._check(code)
        code = self._stream.connect()
        if code == errno.EAGAIN:
            return None
        self._check(code)
        self._send()
        return self._receive()

    def wait(self, poller: Any) -> None:
        if self._stream is None:
            poller.immediate_wake()
        elif self._unsent:
            self._stream.send_wait(poller)
        else:
            self._stream.recv_wait(poller)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _check(self, code: int) -> None:
        if code == 0:
            return
        place = self._remote.removeprefix("unix:")
        if code == errno.EAGAIN:  # its queue of connections is full: nobody accepts them
            raise HostError("ovsdb-server does not answer: it accepts no more connections.", STATUS)
        if code in (errno.EACCES, errno.EPERM):
            raise HostError(
                f"ovsdb-server may not be asked at {place}: {os.strerror(code)}.",
                "Run this as root; in a container, with `--security-opt label=disable`.",
            )
        raise HostError(
            f"ovsdb-server is not there: {place}: {os.strerror(code)}.",
            "Start Open vSwitch with `systemctl start openvswitch`, or wait until it is up.",
        )

    def _send(self) -> None:
        while self._unsent:
            sent = self._stream.send(self._unsent)
            if sent == -errno.EAGAIN:
                return
            if sent < 0:
                raise broken()
            self._unsent = self._unsent[sent:]

    def _receive(self) -> dict[str, Any] | None:
        while True:
            code, data = self._stream.recv(1 << 16)
            if code == errno.EAGAIN:
                return None
            if code or not data:
                raise broken()
            self._received += data
            if not self._received.lstrip().startswith(b"{"):
                raise incomprehensible("it sends no JSON object")
            if len(self._received) > MESSAGE_LIMIT:
                raise incomprehensible("its schema has no end")
            answer = self._answer()
            if answer is not None:
                return _cut(answer)

    def _answer(self) -> dict[str, Any] | None:
        """The answer to our question, once it is whole; other messages (the server may ask whether we live) are skipped."""
        try:
            message, end = self._decoder.raw_decode(self._received.decode().lstrip())
        except ValueError:  # also of UTF-8: not yet whole
            return None
        if message.get("id") != "schema":
            self._received = self._received.decode().lstrip()[end:].encode()
            return self._answer() if self._received else None
        if message.get("error") is not None or not isinstance(message.get("result"), dict):
            raise HostError(f"ovsdb-server gives no schema of {DATABASE}: {message.get('error')}.", _NO_OVSDB)
        answer: dict[str, Any] = message["result"]
        return answer


def _cut(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with only the tables and columns that are read here, as far as the server has them."""
    tables = {}
    for name, needed in NEEDED.items():
        table = schema.get("tables", {}).get(name, {})
        columns = table.get("columns", {})
        missing = sorted(needed - set(columns))
        if missing:
            raise HostError(
                f"The database of Open vSwitch lacks {', '.join(f'{name}.{column}' for column in missing)}.",
                "Use Open vSwitch 2.17 or newer.",
            )
        kept = needed | WANTED.get(name, frozenset())
        tables[name] = table | {"columns": {column: columns[column] for column in columns if column in kept}}
    return {"name": schema.get("name", DATABASE), "version": schema.get("version", "0.0.0"), "tables": tables}


class _Metered:
    """A connection's stream that ends it where one message grows beyond all measure.

    The client reads and parses a message to its end before it looks at anything else, so only its stream can stop it.
    """

    def __init__(self, rpc: Any) -> None:
        self._rpc = rpc
        self._stream = rpc.stream
        self._parser: Any = None
        self._bytes = 0

    def recv(self, size: int) -> tuple[int, Any]:
        parser = self._rpc.parser
        if parser is None or parser is not self._parser:  # each message has a parser of its own, none is between two
            self._parser = parser
            self._bytes = 0
        code, data = self._stream.recv(size)
        self._bytes += len(data)
        return (errno.EMSGSIZE, "") if self._bytes > MESSAGE_LIMIT else (code, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
