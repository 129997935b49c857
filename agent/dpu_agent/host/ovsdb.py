"""Open vSwitch's database, over Open vSwitch's own client, in a thread of its own.

The thread holds the connection, keeps the replica and does what other threads ask for, one request at a time. Each
request first makes sure that the replica is what the database says now, so neither an answer nor a refusal comes from
memory. No request waits for ovs-vswitchd: whether it took a change up is seen by reading (`Interface.ofport`).
"""

import functools
import logging
import os
import threading
from collections.abc import Callable

from dpu_agent.host import ovsdb_rows as rows
from dpu_agent.host.ovsdb_link import silent
from dpu_agent.host.ovsdb_worker import Change, Request, Worker, closed
from dpu_agent.machine import Wake, Watch
from dpu_agent.world import Ovs

_log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that a call waits. On an idle machine an answer takes a millisecond; the first one, with its connection and schema,
takes slow cores at boot up to two seconds."""


def remote() -> str:
    """Where Open vSwitch listens: in $OVS_RUNDIR if that is set, as for Open vSwitch's programs, else in /run."""
    return f"unix:{os.environ.get('OVS_RUNDIR') or '/run/openvswitch'}/db.sock"


class OvsDatabase:
    """`Ovsdb` of `machine.py`. It connects when it is first asked or watched.

    Args:
        at: a connection of Open vSwitch, as `unix:` and a path.
        patience: seconds that a call waits for its answer, then it raises HostError.

    """

    def __init__(self, at: str, *, patience: float = PATIENCE) -> None:
        self._at = at
        self._patience = patience
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._closed = False
        self._watchers = _Watchers()

    def read(self) -> Ovs:
        """See `machine.Ovsdb`; a server that is away or hangs is a HostError, never an old answer."""
        answer = self._ask(Request("read Open vSwitch's database"))
        if answer is None:
            raise AssertionError("a read that succeeds has an answer")
        return answer

    def set_offload(self, *, enabled: bool, under: str) -> None:
        """See `machine.Ovsdb`."""
        self._change("set hw-offload", functools.partial(rows.set_offload, enabled=enabled, under=under))

    def add_port(self, bridge: str, netdev: str) -> None:
        """Nothing is moved: a port that another bridge has is a HostError."""
        self._change(f"add {netdev} to {bridge}", functools.partial(rows.add_port, bridge=bridge, netdev=netdev))

    def move_port(self, source: str, bridge: str, netdev: str) -> None:
        """In one transaction; nothing where it is on the bridge already, a HostError where it is on neither."""
        self._change(
            f"move {netdev} from {source} to {bridge}",
            functools.partial(rows.move_port, source=source, bridge=bridge, netdev=netdev),
        )

    def recreate_port(self, bridge: str, netdev: str) -> None:
        """In one transaction, and only where Open vSwitch has refused the port; one that is not ours is a HostError."""
        self._change(
            f"add {netdev} to {bridge} anew", functools.partial(rows.recreate_port, bridge=bridge, netdev=netdev)
        )

    def remove_port(self, bridge: str, port: str) -> None:
        """One that is not ours is a HostError."""
        self._change(f"remove {port} from {bridge}", functools.partial(rows.remove_port, bridge=bridge, port=port))

    def watch(self, wake: Wake) -> Watch:
        """Wakes on each change of what `read` tells, on the loss of the server, and when it is back."""
        watcher = self._watchers.add(wake, self._alive)
        self._working()
        return watcher

    def close(self) -> None:
        """End the thread and the connection; whoever still waits for an answer gets a HostError."""
        with self._lock:
            self._closed = True
            worker = self._worker
        if worker is not None:
            worker.stop()
            worker.join(self._patience)

    def _change(self, what: str, change: Change) -> None:
        self._ask(Request(what, change))

    def _ask(self, request: Request) -> Ovs | None:
        self._working().submit(request)
        if not request.done.wait(self._patience):
            request.fail(silent(self._patience))
        return request.answer()

    def _working(self) -> Worker:
        with self._lock:
            if self._closed:
                raise closed()
            if self._worker is None or not self._worker.is_alive():
                self._worker = Worker(self._at, self._watchers.wake)
                self._worker.start()
            return self._worker

    def _alive(self) -> bool:
        worker = self._worker
        return worker is not None and worker.is_alive()


class _Watchers:
    """Those who want to be woken."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._wakes: dict[_Watcher, Wake] = {}

    def add(self, wake: Wake, alive: Callable[[], bool]) -> "_Watcher":
        watcher = _Watcher(self, alive)
        with self._lock:
            self._wakes[watcher] = wake
        return watcher

    def has(self, watcher: "_Watcher") -> bool:
        return watcher in self._wakes

    def remove(self, watcher: "_Watcher") -> None:
        with self._lock:  # waits for an event on its way
            self._wakes.pop(watcher, None)

    def wake(self) -> None:
        with self._lock:
            for wake in list(self._wakes.values()):
                try:
                    wake("ovsdb")
                except Exception:  # noqa: BLE001 - that is the watcher's fault, and the others still want to know
                    _log.exception("Somebody who watches Open vSwitch's database failed.")


class _Watcher:
    """One of them; `machine.Watch`."""

    def __init__(self, watchers: _Watchers, alive: Callable[[], bool]) -> None:
        self._watchers = watchers
        self._alive = alive

    @property
    def alive(self) -> bool:
        return self._alive() and self._watchers.has(self)

    def close(self) -> None:
        self._watchers.remove(self)
