"""`dpu-agent apply`: once, with patience for what may pass, and never for ever."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dpu_agent import config, lock
from dpu_agent.commands.apply import code
from dpu_agent.decision import Failure
from dpu_agent.settle import Result, settle
from dpu_agent.steps import Action, AddPort, SetSwitchdev, Step
from dpu_agent.verdict import verdict
from dpu_agent.world import EswitchMode, Unseen, World
from dpu_shared.host_config import HostConfig, Mode
from dpu_shared.steps import Disruption
from tests.unit.agent import worlds as w
from tests.unit.agent.fakes import BUSY, REFUSED, Clock, Part, Rooms, configured

REBOOT = HostConfig(max_disruption=Disruption.REBOOT)


class Told:
    def __init__(self) -> None:
        self.waited: list[tuple[str, float]] = []
        self.failures: list[Failure] = []

    def started(self, step: Step) -> None:
        pass

    def done(self, step: Step) -> None:
        pass

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def waits(self, why: str, seconds: float) -> None:
        self.waited.append((why, seconds))


class Console:
    """One `apply` on a fake machine."""

    def __init__(self, tmp_path: Path, world: World, wanted: HostConfig = REBOOT) -> None:
        self.root = configured(tmp_path / "root", wanted)
        self.lock = tmp_path / "lock"
        self.clock, self.part, self.told = Clock(), Part(world), Told()
        self.started = self.clock.now

    def apply(self, retry_for: float = 60.0) -> tuple[int, Result]:
        result = settle(
            root=self.root,
            machine=self.part.machine(),
            rooms=Rooms(self.part),
            retry_for=retry_for,
            observer=self.told,
            clock=self.clock,
            wait=self.clock.wait,
            lock_path=self.lock,
        )
        return code(result, verdict(result.plan, result.failures)), result

    @property
    def took(self) -> float:
        return self.clock.now - self.started


def busy(times: int) -> Callable[[Action], None]:
    left = [times]

    def refuse(action: Action) -> None:
        if isinstance(action, SetSwitchdev) and left[0]:
            left[0] -= 1
            raise BUSY

    return refuse


def test_a_first_boot_is_configured_in_one_go(tmp_path: Path) -> None:
    console = Console(tmp_path, w.first_boot())
    exit_code, result = console.apply()
    assert exit_code == 0
    assert [step.action for step in result.done] == console.part.calls
    assert config.read(console.root).last_good == REBOOT


def test_a_healthy_machine_is_left_alone(tmp_path: Path) -> None:
    console = Console(tmp_path, w.healthy())
    assert console.apply()[0] == 0
    assert console.part.calls == []


def test_an_eswitch_that_is_busy_ten_times_is_set_within_the_minute(tmp_path: Path) -> None:
    console = Console(tmp_path, w.first_boot())
    console.part.before = busy(10)
    assert console.apply()[0] == 0
    assert console.took < 60
    assert len(console.told.failures) == 10


def test_an_eswitch_that_stays_busy_is_given_up_after_the_time_that_was_given(tmp_path: Path) -> None:
    console = Console(tmp_path, w.first_boot())
    console.part.before = busy(10_000)
    exit_code, result = console.apply(retry_for=30)
    assert exit_code == 1
    assert 30 <= console.took < 40
    assert [failure.message for failure in result.failures] == [BUSY.message]
    assert result.failures[0].attempts > 3


def test_without_patience_it_is_tried_once(tmp_path: Path) -> None:
    console = Console(tmp_path, w.first_boot())
    console.part.before = busy(10_000)
    assert console.apply(retry_for=0)[0] == 1
    assert len(console.told.failures) == 1


def test_a_terminal_failure_ends_it_at_once(tmp_path: Path) -> None:
    console = Console(tmp_path, w.first_boot())

    def refuse(action: Action) -> None:
        if isinstance(action, SetSwitchdev):
            raise REFUSED

    console.part.before = refuse
    exit_code, result = console.apply()
    assert exit_code == 1
    assert result.failures[0].terminal
    assert console.took == 0


def test_what_waiting_mends_is_waited_for_and_said_once(tmp_path: Path) -> None:
    whole = w.healthy()
    console = Console(tmp_path, whole)
    assert whole.ovs is not None
    late = replace(whole.ovs, bridges=())
    console.part.looked = lambda world: replace(world, ovs=late) if console.took < 12 else world
    exit_code, _ = console.apply()
    assert exit_code == 0
    assert 12 <= console.took < 20
    assert len(console.told.waited) == 1
    assert "br-ex" in console.told.waited[0][0]


def test_an_eswitch_that_answers_nobody_for_a_while_is_waited_for(tmp_path: Path) -> None:
    """Its driver starts, or sets the mode for another process."""
    console = Console(tmp_path, w.first_boot())
    dark = Unseen(w.F0, "The kernel did not answer.", "Wait.")

    def looked(world: World) -> World:
        if console.took >= 9:
            return world
        return replace(w.with_function(world, w.F0, mode=EswitchMode.UNKNOWN), unseen=(dark,))

    console.part.looked = looked
    assert console.apply()[0] == 0
    assert console.took >= 9


def test_steps_that_are_held_back_are_told_apart_from_failures(tmp_path: Path) -> None:
    console = Console(tmp_path, w.without_port(w.healthy(), "br-ex", "c1pf0hpf"), HostConfig(mode=Mode.REPORT_ONLY))
    exit_code, result = console.apply()
    assert exit_code == 2
    assert result.plan.held
    assert console.part.calls == []


def test_another_machine_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    console = Console(tmp_path, replace(w.healthy(), platform=w.SERVER))
    before = sorted(tmp_path.rglob("*"))
    assert console.apply()[0] == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_it_waits_for_another_agent_as_long_as_it_was_told(tmp_path: Path) -> None:
    console, other = Console(tmp_path, w.first_boot()), Clock()
    with (
        lock.held(who="dpu-agent run", patience=0, clock=other, wait=other.wait, path=console.lock),
        pytest.raises(lock.HeldError, match="dpu-agent run, process"),
    ):
        console.apply(retry_for=20)
    assert 20 <= console.took < 21
    assert console.part.calls == []


def test_a_machine_that_undoes_everything_does_not_keep_it_for_ever(tmp_path: Path) -> None:
    portless = w.without_port(w.healthy(), "br-ex", "c1pf0hpf")
    console = Console(tmp_path, portless)

    def undone(world: World) -> World:
        # What one step mends, another thing breaks meanwhile.
        down = bool(console.part.calls) and isinstance(console.part.calls[-1], AddPort)
        console.part.world = w.with_netdev(w.healthy(), "c1pf0hpf", up=False) if down else portless
        return replace(console.part.world, configuration=world.configuration)

    console.part.looked = undone
    exit_code, result = console.apply(retry_for=5)
    assert exit_code == 1
    assert result.plan.steps
    assert 50 < len(console.part.calls) < 200
