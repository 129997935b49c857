"""Executes a plan's steps in their order, and believes none before another look has shown its effect."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

from dpu_agent import plan as planning
from dpu_agent.decision import Blocks, Failure, Outcome, Plan
from dpu_agent.machine import HostError, Machine
from dpu_agent.steps import (
    Action,
    AddPort,
    InstallRules,
    MovePort,
    RecreatePort,
    RemovePort,
    RestartVswitchd,
    SetLink,
    SetOffload,
    SetSwitchdev,
    Step,
    TriggerUdev,
)
from dpu_agent.world import EswitchMode, Rules, World

_PATIENCE = 5.0
"""Seconds until a step's effect must be seen: udev and ovs-vswitchd do their part a little later."""
_RESTART_PATIENCE = 15.0
"""The same for ovs-vswitchd's restart: it opens all ports anew."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_BRIDGE_STEPS = (SetLink, AddPort, MovePort, RecreatePort, RemovePort)
_OVS_STEPS = (SetOffload, RestartVswitchd, AddPort, MovePort, RecreatePort, RemovePort)


class Observer(Protocol):
    """Is told how an execution goes."""

    def started(self, step: Step) -> None: ...
    def done(self, step: Step) -> None: ...
    def failed(self, failure: Failure) -> None: ...


class Silent:
    """Tells nobody."""

    def started(self, step: Step) -> None:
        pass

    def done(self, step: Step) -> None:
        pass

    def failed(self, failure: Failure) -> None:
        pass


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@dataclass(frozen=True, slots=True)
class _Check:
    """What another look says of a step: done, or else why that cannot be said."""

    done: bool
    message: str = ""
    hint: str = ""


def execute(
    plan: Plan,
    machine: Machine,
    look: Callable[[], World],
    *,
    replan: Callable[[World], Plan] = planning.plan,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], bool] = _pause,
    observer: Observer | None = None,
) -> Outcome:
    """Do the plan's steps and nothing else, each verified by planning again from a fresh look.

    It ends at the first step that fails. It also ends, without a failure, where the fresh plan no longer goes on as this
    one does: a new representor, a configuration that changed. The caller then plans again.

    Args:
        plan: what to do.
        machine: where.
        look: observes again.
        replan: the planner, for the stage that `plan` is for.
        clock: monotonic seconds.
        wait: pauses for so many seconds; True means that the agent is being stopped, and no other step is begun.
        observer: is told how it goes.

    """
    observer = observer or Silent()
    done: list[Step] = []
    for number, step in enumerate(plan.steps):
        if number and wait(0):
            break
        observer.started(step)
        failure, fresh = _do(step, plan, machine, look, replan=replan, clock=clock, wait=wait)
        if failure:
            observer.failed(failure)
            return Outcome(done=tuple(done), failure=failure)
        if fresh is None:
            break
        observer.done(step)
        done.append(step)
        if not _goes_on(fresh, plan.steps[number + 1 :]):
            break
    return Outcome(done=tuple(done))


def _do(
    step: Step,
    before: Plan,
    machine: Machine,
    look: Callable[[], World],
    *,
    replan: Callable[[World], Plan],
    clock: Callable[[], float],
    wait: Callable[[float], bool],
) -> tuple[Failure | None, Plan | None]:
    """Do one step; gives what failed of it, or the plan after it, or neither where it was stopped before it was seen."""
    try:
        perform(step.action, machine)
    except HostError as error:
        # An answer that was lost is no failure: what counts is what is there now.
        world = look()
        after = replan(world)
        if not error.terminal and _check(step, before, world, after).done:
            return None, after
        return Failure(step, error.message, error.hint, terminal=error.terminal), None
    end = clock() + (_RESTART_PATIENCE if isinstance(step.action, RestartVswitchd) else _PATIENCE)
    pause = _FIRST_PAUSE
    while True:
        world = look()
        after = replan(world)
        check = _check(step, before, world, after)
        if check.done:
            return None, after
        if clock() >= end:
            return Failure(step, check.message, check.hint), None
        if wait(pause):
            return None, None
        pause = min(pause * 2, _LONGEST_PAUSE)


def perform(action: Action, machine: Machine) -> None:
    """Make one change, once.

    Raises:
        HostError: the machine refused, or did not answer; it may yet have done it.

    """
    match action:
        case SetSwitchdev():
            machine.devlink.set_switchdev(action.function)
        case InstallRules():
            machine.udev.install_rules()
        case TriggerUdev():
            machine.udev.trigger(action.netdev)
        case SetOffload():
            machine.ovsdb.set_offload(enabled=action.enabled, under=machine.sysfs.vswitchd())
        case RestartVswitchd():
            machine.services.restart_vswitchd()
        case SetLink():
            machine.links.set_link(action.netdev, up=action.up, mtu=action.mtu)
        case AddPort():
            machine.ovsdb.add_port(action.bridge, action.netdev)
        case MovePort():
            machine.ovsdb.move_port(action.source, action.bridge, action.netdev)
        case RecreatePort():
            machine.ovsdb.recreate_port(action.bridge, action.netdev)
        case RemovePort():
            machine.ovsdb.remove_port(action.bridge, action.port)
        case _:
            assert_never(action)


def _check(step: Step, before: Plan, world: World, after: Plan) -> _Check:
    for again in (*after.steps, *after.held):
        if again.action == step.action:
            return _Check(
                done=False,
                message=f"Nothing refused to {step.action.what}, yet it is still needed: {again.why}",
                hint="See the kernel's log (`journalctl -k`) and that of Open vSwitch for what undid it.",
            )
    known = {problem.reason for problem in before.problems}
    for problem in after.problems:
        # A plan without the step proves nothing where a new problem forbids to plan it.
        forbids = problem.blocks is Blocks.ALL or (
            problem.blocks is Blocks.BRIDGE and isinstance(step.action, _BRIDGE_STEPS)
        )
        if forbids and problem.reason not in known:
            return _Check(done=False, message=problem.message, hint=problem.hint)
    if not _seen(step.action, world):
        unseen = world.unseen[0] if world.unseen else None
        return _Check(
            done=False,
            message=f"Whether it worked to {step.action.what} could not be seen"
            + (f": {unseen.message}" if unseen else "."),
            hint=unseen.hint if unseen else "Run `dpu-agent observe` for what this machine shows.",
        )
    return _Check(done=True)


def _seen(action: Action, world: World) -> bool:
    """Whether the part of the machine that the action changes was seen at all."""
    if isinstance(action, SetSwitchdev):
        modes = [function.mode for function in world.functions if function.address == action.function]
        return bool(modes) and modes[0] is not EswitchMode.UNKNOWN
    if isinstance(action, InstallRules):
        return world.rules is not Rules.UNKNOWN
    if isinstance(action, _OVS_STEPS):
        return world.ovs is not None
    return True


def _goes_on(fresh: Plan, rest: tuple[Step, ...]) -> bool:
    """Whether the fresh plan is the rest of the old one; the sentences of its steps may differ."""
    return [(step.action, step.disruption) for step in fresh.steps] == [(step.action, step.disruption) for step in rest]
