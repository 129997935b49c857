"""When a step that failed, or that is undone again and again, may be tried again. No clock and no randomness inside."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from dpu_agent.decision import Blocks, Failure, Plan
from dpu_agent.steps import Action, AddPort, MovePort, RecreatePort, RemovePort, RestartVswitchd, SetSwitchdev, Step
from dpu_agent.world import World


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds between the attempts of one step."""

    first: float = 1.0
    longest: float = 60.0
    terminal: float = 600.0
    """After a failure that only a change of the machine can mend, and no change was seen."""
    changed: float = 5.0
    """The longest time that an attempt still waits when the machine has changed meanwhile."""

    def backoff(self, attempts: int, jitter: float) -> float:
        """The pause after so many failed attempts.

        Args:
            attempts: in a row, at least 1.
            jitter: in [0, 1); it spreads the pause over its upper half, lest DPUs that failed together return together.

        """
        whole = min(self.longest, self.first * 2.0 ** min(attempts - 1, 30))
        return whole * (1 + jitter) / 2 if attempts > 1 else whole


_COSTLY = (3, 600.0)
"""An eswitch or ovs-vswitchd is disturbed at most so often in so many seconds, whatever reverts it."""
_PORT = (120, 60.0)
"""A bridge's port is cheap to bring back, and is fought for longer."""
_OTHER = (20, 60.0)


def _limit(action: Action) -> tuple[int, float]:
    if isinstance(action, SetSwitchdev | RestartVswitchd):
        return _COSTLY
    return _PORT if isinstance(action, AddPort | MovePort | RecreatePort | RemovePort) else _OTHER


@dataclass(slots=True)
class _Waiting:
    failure: Failure
    since: float
    pause: float
    """Backoff by the number of attempts; `due` is later where the failure is terminal."""
    due: float
    world: World | None = None
    """How the machine looked after the attempt."""
    firm: bool = False
    """Whether a change of the machine brings the next attempt no nearer."""


@dataclass(slots=True)
class Retries:
    """The memory of one running agent about its steps. Times are monotonic seconds that the caller gives."""

    random: Callable[[], float]
    """A number in [0, 1)."""
    timing: Timing = field(default_factory=Timing)
    _waiting: dict[Action, _Waiting] = field(default_factory=dict)
    _done: dict[Action, deque[float]] = field(default_factory=dict)

    def failed(self, failure: Failure, now: float) -> Failure:
        """Note a failed attempt; gives the failure with the number of attempts in a row."""
        before = self._waiting.get(failure.step.action)
        attempts = before.failure.attempts + 1 if before else 1
        failure = replace(failure, attempts=attempts)
        pause = self.timing.backoff(attempts, self.random())
        due = now + (self.timing.terminal if failure.terminal else pause)
        self._waiting[failure.step.action] = _Waiting(failure, since=now, pause=pause, due=due)
        return failure

    def done(self, step: Step, now: float) -> None:
        """Note a step that was done and verified."""
        self._waiting.pop(step.action, None)
        self._done.setdefault(step.action, deque(maxlen=_limit(step.action)[0])).append(now)

    def due(self, steps: Sequence[Step], now: float, world: World) -> tuple[Step, ...]:
        """The steps that may be tried now: those before the first that must wait, as the order means something."""
        ready: list[Step] = []
        for step in steps:
            waiting = self._waiting.get(step.action)
            if waiting:
                if waiting.world is None:
                    waiting.world = world
                if now < self._due(waiting, world):
                    break
            elif self._undone_too_often(step, now):
                self._hold(step, now)
                break
            ready.append(step)
        return tuple(ready)

    def settle(self, plan: Plan, now: float) -> None:
        """Forget the failures of steps that are no longer needed.

        Where a problem keeps the plan from naming steps, their absence says nothing, and they are remembered.
        """
        blind = any(problem.blocks is not Blocks.NOTHING for problem in plan.problems)
        needed = {step.action for step in (*plan.steps, *plan.held)}
        for action, waiting in list(self._waiting.items()):
            forgotten = now > waiting.due + self.timing.terminal
            if action not in needed and (not blind or forgotten):
                del self._waiting[action]
        for action, times in list(self._done.items()):
            if now - times[-1] > _limit(action)[1]:
                del self._done[action]

    def failures(self, plan: Plan) -> tuple[Failure, ...]:
        """What failed last of the plan's steps, in their order."""
        found = (self._waiting.get(step.action) for step in plan.steps)
        return tuple(waiting.failure for waiting in found if waiting)

    def recorded(self, step: Step) -> Failure | None:
        """How the step failed last, if it did and is still needed."""
        waiting = self._waiting.get(step.action)
        return waiting.failure if waiting else None

    def next_due(self, plan: Plan) -> float | None:
        """When the first of the plan's waiting steps is due; None where none waits."""
        return min(
            (self._waiting[step.action].due for step in plan.steps if step.action in self._waiting), default=None
        )

    def _due(self, waiting: _Waiting, world: World) -> float:
        if waiting.firm or waiting.world == world:
            return waiting.due
        # A changed machine is worth an attempt, yet a flapping one must not turn attempts into a storm.
        pause = waiting.pause if waiting.failure.terminal else min(waiting.pause, self.timing.changed)
        return min(waiting.due, waiting.since + pause)

    def _undone_too_often(self, step: Step, now: float) -> bool:
        times = self._done.get(step.action)
        limit, window = _limit(step.action)
        return times is not None and len(times) == limit and now - times[0] < window

    def _hold(self, step: Step, now: float) -> None:
        limit, window = _limit(step.action)
        failure = Failure(
            step,
            f"It worked {limit} times within {window / 60:.0f} min to {step.action.what}, and each time something undid it.",
            "Find out what else manages this part of the machine and stop it.",
        )
        free = self._done[step.action][0] + window
        self._waiting[step.action] = _Waiting(failure, since=now, pause=free - now, due=free, firm=True)
