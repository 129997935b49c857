"""The thread that talks to ovsdb-server: one request after the other, and word of each change.

No request waits for another thread, and none is served from memory; whoever asks may give up any time.
"""

import contextlib
import logging
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from ovs.db.idl import Transaction

from dpu_agent.host import ovsdb_rows as rows
from dpu_agent.host.ovsdb_link import STATUS, Link, words
from dpu_agent.machine import HostError
from dpu_agent.world import Ovs

_log = logging.getLogger(__name__)

Change = Callable[[Any, Any], None]
"""Composes a change: of the replica and a transaction."""
_TRIES = 10
"""How often a change is composed anew because somebody else changed the same rows meanwhile."""
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 1.0
"""Seconds between attempts to connect while nobody asks. A request in the meantime tries at once."""
_SETTLED = 1.0
"""Seconds that a connection must last to count as good: one that breaks at once is not renewed at once."""


def closed() -> HostError:
    """It was closed by this program itself."""
    return HostError("The connection to Open vSwitch's database was closed.", "Make a new one.")


class Request:
    """What one call asks for. Its caller may give up any time; then a change that is not yet sent is never sent."""

    def __init__(self, what: str, change: Change | None = None) -> None:
        self.what = what
        self.change = change
        self.done = threading.Event()
        self.losses = 0
        self._lock = threading.Lock()
        self._sent = False
        self._error: HostError | None = None
        self._answer: Ovs | None = None

    def may_send(self) -> bool:
        """Note that the change is sent from now on; False if nobody wants it any more."""
        with self._lock:
            self._sent = not self.done.is_set()
            return self._sent

    def refused(self) -> None:
        """The server has answered that it did not do it."""
        with self._lock:
            self._sent = False

    def succeed(self, answer: Ovs | None) -> None:
        with self._lock:
            if not self.done.is_set():
                self._answer = answer
                self.done.set()

    def fail(self, error: HostError) -> None:
        with self._lock:
            if self.done.is_set():
                return
            if self._sent:
                message = f"{error.message.removesuffix('.')}, and whether it did {self.what} is not known."
                error = HostError(message, "Look again, which tells what became of it.")
            self._error = error
            self.done.set()

    def lost(self, error: HostError, *, again: bool) -> None:
        """The connection was lost; a change that was sent, or a second loss, ends the request."""
        self.losses += 1
        if self._sent or self.losses > 1 or not again:
            self.fail(error)

    def answer(self) -> Ovs | None:
        """What it gave; raises what went wrong."""
        if self._error is not None:
            raise self._error
        return self._answer


class Worker(threading.Thread):
    """Connects, serves requests one by one, tells of changes, connects again.

    Args:
        at: a connection of Open vSwitch, as `unix:` and a path.
        wake: called on each change of the replica, on the loss of the server and when it is back.

    """

    def __init__(self, at: str, wake: Callable[[], None]) -> None:
        super().__init__(name="ovsdb", daemon=True)
        self._at = at
        self._wake = wake
        self._lock = threading.Lock()
        self._queue: deque[Request] = deque()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopped = False
        self._link: Link | None = None
        self._since = 0.0
        self._current: Request | None = None
        self._steps: Generator[None, None, None] | None = None
        self._delay = _FIRST_DELAY
        self._retry_at = 0.0

    def submit(self, request: Request) -> None:
        """Queue a request; after `stop`, it fails at once."""
        with self._lock:
            if not self._stopped:
                self._queue.append(request)
                os.eventfd_write(self._event, 1)
                return
        request.fail(closed())

    def stop(self) -> None:
        """Have the thread end soon; requests that are not yet answered fail."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                os.eventfd_write(self._event, 1)

    def run(self) -> None:
        try:
            while not self._stopped:
                self._turn()
                self._wait()
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._stopped = True
            os.close(self._event)
        if self._link is not None:
            self._link.close()
        while self._current is not None or self._next():
            if self._current is not None:
                self._current.fail(closed())
                self._current = None

    def _turn(self) -> None:
        """All that can be done without waiting."""
        asked = self._next()
        if self._link is None and (asked or time.monotonic() >= self._retry_at):
            self._link = Link(self._at)
        if self._link is None:
            return
        try:
            self._advance(self._link)
        except HostError as error:
            self._lose(self._link, error)
        except Exception as error:  # noqa: BLE001 - the one thread that hears of changes must not end; the connection does
            _log.exception("The connection to Open vSwitch's database failed.")
            self._lose(self._link, HostError(f"Talking to ovsdb-server failed: {error!r}.", STATUS))

    def _advance(self, link: Link) -> None:
        was_ready = link.ready
        changed = link.run()
        if link.ready and not was_ready:
            self._since = time.monotonic()
        if changed:  # so it is, too, when the replica has become whole
            self._wake()
        while link.ready and self._next():
            if not self._serve(link):
                return

    def _wait(self) -> None:
        poller = _Poller()
        poller.fd_wait(self._event, select.POLLIN)
        if self._link is not None:
            self._link.wait(poller)
        elif self._current is not None:
            poller.immediate_wake()
        else:
            poller.timer_wait(int((self._retry_at - time.monotonic()) * 1000) + 1)
        poller.block()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)

    def _next(self) -> bool:
        """Have a request at hand that somebody waits for, or that is with the server; False if there is none."""
        while self._current is None or (self._steps is None and self._current.done.is_set()):
            with self._lock:
                self._current = self._queue.popleft() if self._queue else None
            if self._current is None:
                return False
        return True

    def _serve(self, link: Link) -> bool:
        """Go on with the request at hand; False while the server has yet to answer."""
        if self._current is None:
            return True
        if self._steps is None:
            self._steps = _serving(link, self._current)
        try:
            next(self._steps)
            return False
        except StopIteration:
            pass
        except HostError as error:
            self._current.fail(error)
        self._current = self._steps = None
        return True

    def _lose(self, link: Link, error: HostError) -> None:
        """The connection is over. Requests try once more where it had been a good one, else they fail with the reason."""
        link.close()
        self._link = self._steps = None
        while self._next() and self._current is not None:
            self._current.lost(error, again=link.ready)
            if not self._current.done.is_set():
                break
        now = time.monotonic()
        if link.ready and now - self._since > _SETTLED:
            self._delay = _FIRST_DELAY
        self._retry_at = now + self._delay
        self._delay = min(2 * self._delay, _LONGEST_DELAY)
        if link.ready:
            self._wake()


def _serving(link: Link, request: Request) -> Generator[None, None, None]:
    """Serve one request on a connection; yields while the server has yet to answer."""
    for _ in range(_TRIES):
        yield from link.look()
        if request.change is None:
            request.succeed(rows.ovs(link.idl))
            return
        transaction = Transaction(link.idl)
        try:
            request.change(link.idl, transaction)
            wanted = request.may_send()
        except BaseException:
            transaction.abort()
            raise
        if not wanted:
            transaction.abort()
            return
        status = yield from link.commit(transaction)
        if status in (Transaction.SUCCESS, Transaction.UNCHANGED):
            request.succeed(None)
            return
        request.refused()
        # Two rows of one name: somebody else has just added the same port. Looking again tells.
        if status == Transaction.ERROR and "constraint violation" not in words(transaction):
            raise HostError(f"ovsdb-server refused to {request.what}: {words(transaction)}.", STATUS)
    raise HostError(
        f"Others changed the database each time this agent was about to {request.what}.",
        "See who does with `ovsdb-client monitor`, and look again.",
    )


class _Poller:
    """What Open vSwitch's client tells what it waits for. Its own uses select(), which knows no descriptor above 1023."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}
        self._deadline: float | None = None

    def fd_wait(self, descriptor: Any, events: int) -> None:
        """Wait for events of poll(2) on a descriptor, or something that has one."""
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        self._events[number] = self._events.get(number, 0) | events

    def timer_wait(self, milliseconds: float) -> None:
        """Wait no longer than so many milliseconds."""
        self.timer_wait_until(time.monotonic() * 1000 + milliseconds)

    def timer_wait_until(self, milliseconds: float) -> None:
        """Wait no longer than until a time of the monotonic clock, in milliseconds."""
        self._deadline = milliseconds if self._deadline is None else min(self._deadline, milliseconds)

    def immediate_wake(self) -> None:
        """Do not wait at all."""
        self.timer_wait(0)

    def block(self) -> None:
        """Wait for the first of all that."""
        poll = select.poll()
        for number, events in self._events.items():
            poll.register(number, events)
        left = None if self._deadline is None else max(0, math.ceil(self._deadline - time.monotonic() * 1000))
        poll.poll(left)
