"""Bring the machine to its configuration once, with patience for what mends itself, and then end."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dpu_agent import config, lock
from dpu_agent.apply import Observer, execute
from dpu_agent.decision import Blocks, Failure, Plan, Problem
from dpu_agent.engine import Rooms
from dpu_agent.machine import HostError, Machine
from dpu_agent.reasons import Reason
from dpu_agent.steps import Step
from dpu_agent.world import World
from dpu_shared.node_report import State

_MOST_PLANS = 64
"""Plans in a row that succeed, each followed by another; then something undoes them."""
_LOOK_AGAIN = 1.0
_LONGEST_PAUSE = 5.0
"""Seconds; a busy eswitch is asked about as often as NVIDIA's own tool does within a minute."""


class Waiting(Observer, Protocol):
    """Is told how it goes."""

    def waits(self, why: str, seconds: float) -> None:
        """It waits before the next attempt, and goes on for so many seconds at most."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """How it ended."""

    world: World
    plan: Plan
    done: tuple[Step, ...] = ()
    failures: tuple[Failure, ...] = ()


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def settle(
    *,
    root: Path,
    machine: Machine,
    rooms: Rooms,
    retry_for: float,
    observer: Waiting,
    clock: Callable[[], float],
    wait: Callable[[float], bool] = _pause,
    lock_path: Path = lock.PATH,
) -> Result:
    """Look, plan and execute until nothing is left to do, or what is left does not work.

    Args:
        root: where the machine's file system is.
        machine: its parts.
        rooms: how to observe and plan.
        retry_for: seconds that failures which may pass, and problems which waiting mends, are given.
        observer: is told how it goes.
        clock: monotonic seconds.
        wait: pauses for so many seconds; True ends it.
        lock_path: of the lock that the agents of one machine share.

    Raises:
        HostError: another agent holds the lock all that time, or there can be no lock.

    """
    end = clock() + retry_for
    done: list[Step] = []
    attempts, successes, said = 0, 0, ""

    def look() -> World:
        return rooms.observe(machine, config.read(root))

    while True:
        world = look()
        plan = rooms.plan(world)
        failure: Failure | None = None
        if plan.steps:
            _keep(root, plan, world)
            patience = max(0.0, end - clock())
            with lock.held(who="dpu-agent apply", patience=patience, clock=clock, wait=wait, path=lock_path):
                outcome = execute(plan, machine, look, replan=rooms.plan, clock=clock, wait=wait, observer=observer)
            done.extend(outcome.done)
            failure = outcome.failure
            if failure is None and successes < _MOST_PLANS:
                attempts, successes = 0, successes + 1
                continue
            world = look()
            plan = rooms.plan(world)
        else:
            _keep(root, plan, world)
        attempts += 1
        failures = (replace(failure, attempts=attempts),) if failure else ()
        result = Result(world=world, plan=plan, done=tuple(done), failures=failures)
        why = _why_wait(plan, failure)
        left = end - clock()
        if not why or left <= 0:
            return result
        if why != said:
            observer.waits(why, left)
            said = why
        pause = min(_LONGEST_PAUSE, 2.0 ** (attempts - 1)) if failure else _LOOK_AGAIN
        if wait(min(pause, left)):
            return result


def _why_wait(plan: Plan, failure: Failure | None) -> str:
    """What waiting may mend, in a sentence; empty: nothing."""
    if failure:
        return "" if failure.terminal else f"{failure.message} It is tried again."
    return next((problem.message for problem in plan.problems if _passes(problem)), "")


def _passes(problem: Problem) -> bool:
    # A device whose driver starts, or whose mode another process (killed by now) is changing, answers nobody meanwhile.
    return problem.state is State.PROGRESSING or problem.reason == Reason.ESWITCH_UNSEEN


def _keep(root: Path, plan: Plan, world: World) -> None:
    """As the running agent does; that it can't be kept is no reason to leave the machine as it is."""
    current = world.configuration.current
    if current is not None and not any(problem.blocks is Blocks.ALL for problem in plan.problems):
        with suppress(HostError):
            config.keep(root, current)
