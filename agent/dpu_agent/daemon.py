"""The service: a loop that events and a timer wake, beside it the local HTTP and the report on the Node.

The loop itself never blocks, so that HTTP answers and SIGTERM works whatever the machine does: all that touches the
machine is in the worker's thread.
"""

import asyncio
import contextlib
import datetime as dt
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dpu_agent.decision import Verdict
from dpu_agent.engine import Engine
from dpu_agent.machine import Machine, Wake, Watch
from dpu_agent.reasons import Reason
from dpu_agent.snapshot import HEARTBEAT_LIMIT, STARTING, Counters, Snapshot, hanging, node_report
from dpu_agent.worker import Worker
from dpu_shared.errors import UserError
from dpu_shared.node_report import NodeReport, State

if TYPE_CHECKING:
    from dpu_agent.report import ReportStatus

_log = logging.getLogger(__name__)


class Reporter(Protocol):
    """Tells the operator."""

    def submit(self, report: NodeReport) -> None:
        """Take the newest report, after every turn; must not block."""
        ...

    async def run(self) -> None:
        """Work until cancelled."""
        ...

    @property
    def status(self) -> "ReportStatus":
        """How it goes."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between turns, and how long the end may take."""

    period: float = 30.0
    """The backstop: what no event tells, like a mode that reverted, is seen after so long."""
    unwell: float = 5.0
    """The same while something may mend by itself: that ovs-vswitchd has started again is told by no event of ours."""
    gap: float = 0.02
    """Between turns that events wake; the first event after a quiet time is followed at once."""
    burst: int = 100
    """So many turns may follow each other that fast; then events have to wait for their share of `rate`."""
    rate: float = 5.0
    """Turns a second that events may go on waking for ever."""
    slow_turn: float = 2.0
    """A turn that takes longer is reported while it goes on."""
    watch_retry: float = 5.0
    """Between attempts to watch a source of events; they are made with a turn, so at the latest with the timer's."""
    task_retry: float = 5.0
    grace: float = 3.0
    """What a running step is given to end when the agent is stopped."""
    hang: float = HEARTBEAT_LIMIT


class Daemon:
    """The agent that `dpu-agent run` starts; also what HTTP and metrics read (`snapshot.Agent`).

    Args:
        engine: a turn; its `publish` must be this daemon's `publish`.
        machine: whose events wake the loop.
        reporter: tells the operator; None: nobody is told.
        serve: serves HTTP until cancelled; None: nobody can ask.
        clock: monotonic seconds.
        pace: the times.

    """

    def __init__(
        self,
        *,
        engine: Callable[["Daemon"], Engine],
        machine: Machine,
        reporter: Reporter | None,
        serve: Callable[[], Awaitable[None]] | None,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace | None = None,
    ) -> None:
        self._clock = clock
        self._pace = pace or Pace()
        self._snapshot: Snapshot | None = None
        self._defect: Verdict | None = None
        self._engine = engine(self)
        self._machine = machine
        self._reporter = reporter
        self._serve = serve
        self._worker = Worker()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._starters: dict[str, Callable[[Wake], Watch]] = {
            "devlink": machine.devlink.watch,
            "ovsdb": machine.ovsdb.watch,
            "udev": machine.udev.watch,
        }
        self._watches: dict[str, Watch | None] = dict.fromkeys(self._starters)
        self._watch_said: dict[str, str] = {}
        self._next_watch = 0.0
        self._hang_told = False

    # What others ask.

    @property
    def snapshot(self) -> Snapshot | None:
        """See `snapshot.Agent`."""
        return self._snapshot

    @property
    def counters(self) -> Counters:
        """See `snapshot.Agent`."""
        return self._engine.counters

    @property
    def watching(self) -> dict[str, bool]:
        """See `snapshot.Agent`."""
        return {name: watch is not None and watch.alive for name, watch in self._watches.items()}

    @property
    def report_error(self) -> str:
        """See `snapshot.Agent`."""
        return self._reporter.status.error if self._reporter else ""

    def age(self) -> float:
        """See `snapshot.Agent`."""
        return max(0.0, self._clock() - self._engine.heartbeat)

    def verdict(self) -> Verdict:
        """See `snapshot.Agent`."""
        if (age := self.age()) > self._pace.hang:
            return hanging(age)
        if self._defect:
            return self._defect
        return self._snapshot.verdict if self._snapshot else STARTING

    # What drives it.

    def publish(self, snapshot: Snapshot) -> None:
        """Take a snapshot, from any thread: one assignment of something that never changes."""
        self._snapshot = snapshot

    def wake(self, source: str) -> None:
        """Have the loop make a turn, from any thread."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(self._wake, source)

    def stop(self) -> None:
        """End: no further step is begun; what the machine is configured to stays as it is."""
        self._engine.stopping.set()
        self._stopping.set()
        self._woken.set()

    async def run(self) -> bool:
        """Run until SIGTERM or SIGINT; False where a call into the machine still hangs in its thread."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop)
        tasks = [asyncio.create_task(self._turns()), asyncio.create_task(self._watchdog())]
        if self._serve:
            tasks.append(asyncio.create_task(self._forever("the local HTTP", self._serve)))
        if self._reporter:
            tasks.append(asyncio.create_task(self._forever("the report on the Node", self._reporter.run)))
        await self._stopping.wait()
        _log.info("Stops: it leaves the machine as it is.")
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks, timeout=self._pace.grace)
        idle = not self._worker.busy
        if idle:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._worker.call(self._close), 1)
        else:
            _log.warning("A call into the machine has not ended; the process ends without it.")
        tasks[0].cancel()
        return idle and not self._worker.busy

    def _wake(self, source: str) -> None:
        self.counters.events[source] += 1
        self._woken.set()

    async def _turns(self) -> None:
        allowed, ended = float(self._pace.burst), self._clock()
        while not self._stopping.is_set():
            self._woken.clear()
            await self._turn()
            before, ended = ended, self._clock()
            allowed = min(self._pace.burst, allowed + (ended - before) * self._pace.rate) - 1
            await self._rest(ended)
            # A lost port is seen to at once; a storm of events must not take the DPU's cores.
            gap = self._pace.gap if allowed > 0 else 1 / self._pace.rate
            missing = ended + gap - self._clock()
            if missing > 0 and not self._stopping.is_set():
                await asyncio.sleep(missing)

    async def _turn(self) -> None:
        turn = asyncio.ensure_future(self._worker.call(self._work))
        await asyncio.wait({turn}, timeout=self._pace.slow_turn)
        if not turn.done():
            self._report()
        try:
            await turn
            self._defect = None
        except Exception as error:  # noqa: BLE001 - see below
            # A mistake of ours must not leave the DPU unattended: the next turn may find another world.
            if self._defect is None:
                _log.exception("A turn ended by a defect of the agent.")
            self.counters.defects += 1
            self._defect = Verdict(
                state=State.DEGRADED,
                reason=Reason.DEFECT,
                message=f"The agent has a defect ({type(error).__name__}: {error}). "
                "Report it with the agent's log, and use another release of the agent meanwhile.",
            )
        self._hang_told = False
        self._report()

    async def _rest(self, ended: float) -> None:
        """Until an event, the timer, or the time when something is due again."""
        mends = self.verdict().state in (State.PROGRESSING, State.DEGRADED)
        due = [ended + (min(self._pace.unwell, self._pace.period) if mends else self._pace.period)]
        if self._engine.next_due is not None:
            due.append(self._engine.next_due)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), max(0.0, min(due) - self._clock()))

    def _work(self) -> None:
        self._start_watches()
        self._engine.turn()

    def _start_watches(self) -> None:
        """Start what is not watched: before the look, so that no change falls between the two."""
        for name, watch in self._watches.items():
            if watch is not None and not watch.alive:
                _log.warning("No events of %s come any more; they are asked for again, and the timer goes on.", name)
                watch.close()
                self._watches[name] = None
        if self._clock() < self._next_watch:
            return
        for name in [name for name, watch in self._watches.items() if watch is None]:
            try:
                self._watches[name] = self._starters[name](self.wake)
            except UserError as error:
                self._next_watch = self._clock() + self._pace.watch_retry
                if self._watch_said.get(name) != str(error):
                    self._watch_said[name] = str(error)
                    _log.warning("Events of %s don't come, only the timer looks: %s", name, error)
            else:
                if self._watch_said.pop(name, None):
                    _log.info("Events of %s come again.", name)

    def _close(self) -> None:
        for watch in self._watches.values():
            if watch is not None:
                watch.close()
        self._machine.ovsdb.close()

    async def _watchdog(self) -> None:
        """Tell the operator of a loop that hangs, once: the turn itself no longer can."""
        while True:
            await asyncio.sleep(self._pace.hang / 9)
            if self.age() > self._pace.hang and not self._hang_told:
                self._hang_told = True
                _log.error("%s", self.verdict().message)
                self._report()

    def _report(self) -> None:
        if self._reporter and self._snapshot:
            self._reporter.submit(node_report(self._snapshot, self.verdict(), dt.datetime.now(dt.UTC)))

    async def _forever(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception:  # noqa: BLE001 - a mistake of ours in a side room must not end the loop
                _log.exception("A defect of the agent ended %s; it is started again.", what)
            await asyncio.sleep(self._pace.task_retry)
