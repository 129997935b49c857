"""One turn of the running agent: look, plan, do what is due, and say how the DPU is. It blocks; one thread calls it."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from dpu_agent import config, lock, logs
from dpu_agent.apply import Silent, execute
from dpu_agent.decision import Blocks, Failure, Plan, Verdict
from dpu_agent.machine import HostError, Machine
from dpu_agent.retries import Retries
from dpu_agent.snapshot import Counters, Snapshot
from dpu_agent.steps import Step
from dpu_agent.world import Configuration, World

_log = logging.getLogger(__name__)
_MOST_PLANS = 16
"""Plans executed in one turn; after so many, whatever keeps changing may go on in the next."""
_LOCK_PATIENCE = 2.0
_LOCK_RETRY = 1.0


class Rooms(Protocol):
    """The rooms that a turn goes through; each is a function of the module of its name."""

    def observe(self, machine: Machine, configuration: Configuration) -> World: ...
    def plan(self, world: World) -> Plan: ...
    def verdict(self, plan: Plan, failures: tuple[Failure, ...]) -> Verdict: ...


class Engine(Silent):
    """What the loop turns.

    Args:
        root: where the machine's file system is.
        machine: its parts.
        rooms: how to observe, plan and judge.
        retries: the memory of what failed.
        clock: monotonic seconds.
        publish: is given each snapshot, in this thread.
        wait: pauses for so many seconds and tells whether the agent is being stopped; default: until `stopping` is set.
        lock_path: of the lock that the agents of one machine share.

    """

    def __init__(
        self,
        *,
        root: Path,
        machine: Machine,
        rooms: Rooms,
        retries: Retries,
        clock: Callable[[], float],
        publish: Callable[[Snapshot], None],
        wait: Callable[[float], bool] | None = None,
        lock_path: Path = lock.PATH,
    ) -> None:
        self.counters = Counters()
        self.heartbeat = clock()
        """When a turn, or a step in one, last ended."""
        self.next_due: float | None = None
        """When a step that failed may be tried again."""
        self.stopping = threading.Event()
        """Once set, no further step is begun."""
        self._root = root
        self._machine = machine
        self._rooms = rooms
        self._retries = retries
        self._clock = clock
        self._publish = publish
        self._wait = wait or self.stopping.wait
        self._lock = lock_path
        self._said = ""
        self._not_kept = ""
        self._seen: World | None = None
        self._lock_held_since: float | None = None

    def turn(self) -> None:
        """Bring the machine as near to its configuration as it can be now, and publish how it is."""
        started = self._clock()
        world = self._look()
        for _ in range(_MOST_PLANS):
            plan = self._rooms.plan(world)
            now = self._clock()
            self._retries.settle(plan, now)
            due = self._retries.due(plan.steps, now, world)
            snapshot = self._snapshot(world, plan)
            if not due or self.stopping.is_set():
                break
            # A step may take seconds: who asks meanwhile hears what is being done.
            self._publish(snapshot)
            self._keep(plan, world)
            if not self._execute(replace(plan, steps=due)):
                self.next_due = self._beat() + _LOCK_RETRY
                return
            world = self._seen or self._look()
        else:
            _log.warning("The machine changes as fast as it is configured; it goes on in the next turn.")
        self._keep(plan, world)
        self.next_due = self._retries.next_due(plan)
        self._say(snapshot.verdict)
        self._beat()
        self.counters.turns += 1
        self.counters.seconds += self.heartbeat - started
        self._publish(snapshot)

    def started(self, step: Step) -> None:
        """The execution begins a step."""
        _log.info("Begins to %s: %s", step.action.what, step.why, extra=logs.about(step.name))

    def done(self, step: Step) -> None:
        """The execution has done and verified a step."""
        self._retries.done(step, self._beat())
        self.counters.done[step.name] += 1
        _log.info("Done: %s.", step.action.what, extra=logs.about(step.name))

    def failed(self, failure: Failure) -> None:
        """A step has failed; it is logged the first time and then ever more rarely."""
        earlier = self._retries.recorded(failure.step)
        noted = self._retries.failed(failure, self._beat())
        self.counters.failed[noted.step.name] += 1
        # At the attempts 1, 2, 4, 8, …, and whenever it fails in another way.
        if earlier is None or earlier.message != noted.message or noted.attempts & (noted.attempts - 1) == 0:
            level = logging.ERROR if noted.terminal else logging.WARNING
            text = "%s %s (attempt %d)"
            _log.log(level, text, noted.message, noted.hint, noted.attempts, extra=logs.about(noted.step.name))

    def _execute(self, plan: Plan) -> bool:
        """Execute what is due; False where another process holds the lock."""
        self._seen = None
        try:
            with lock.held(
                who="dpu-agent run",
                patience=_LOCK_PATIENCE,
                clock=self._clock,
                wait=self._wait,
                path=self._lock,
            ):
                execute(
                    plan,
                    self._machine,
                    self._look_again,
                    replan=self._rooms.plan,
                    clock=self._clock,
                    wait=self._wait,
                    observer=self,
                )
        except lock.HeldError as error:
            if self._lock_held_since is None:
                self._lock_held_since = self._clock()
                _log.warning("%s", error)
            return False
        except HostError as error:
            # Without its lock the agent does nothing, and says so as a failure of the step that it was about to do.
            self.failed(Failure(plan.steps[0], error.message, error.hint))
        self._lock_held_since = None
        return True

    def _look(self) -> World:
        return self._rooms.observe(self._machine, config.read(self._root))

    def _look_again(self) -> World:
        self._seen = self._look()
        return self._seen

    def _keep(self, plan: Plan, world: World) -> None:
        """Keep a good configuration; on a machine that isn't a DPU of ours, nothing at all is written."""
        current = world.configuration.current
        if current is None or current == world.configuration.last_good:
            return
        if any(problem.blocks is Blocks.ALL for problem in plan.problems):
            return
        try:
            config.keep(self._root, current)
        except HostError as error:
            if str(error) != self._not_kept:
                self._not_kept = str(error)
                _log.warning("%s", error)
        else:
            self._not_kept = ""

    def _snapshot(self, world: World, plan: Plan) -> Snapshot:
        failures = self._retries.failures(plan)
        return Snapshot(
            world=world,
            plan=plan,
            verdict=self._rooms.verdict(plan, failures),
            failures=failures,
            heartbeat=self._clock(),
        )

    def _say(self, verdict: Verdict) -> None:
        sentence = f"{verdict.state}: {verdict.message}"
        if sentence != self._said:
            self._said = sentence
            _log.info("%s", sentence)

    def _beat(self) -> float:
        self.heartbeat = self._clock()
        return self.heartbeat
