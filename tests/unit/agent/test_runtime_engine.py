"""One turn: what is due is done, what failed waits, and what is published is what is so."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dpu_agent import config, lock
from dpu_agent.steps import Action, AddPort, SetSwitchdev, Step
from dpu_agent.world import World
from dpu_shared.host_config import PATH, HostConfig
from dpu_shared.node_report import State
from dpu_shared.steps import Disruption
from tests.unit.agent import worlds as w
from tests.unit.agent.drift import MISHAPS
from tests.unit.agent.fakes import BUSY, REFUSED, Bench, Clock, configured
from tests.unit.agent.model import after

REBOOT = HostConfig(max_disruption=Disruption.REBOOT)
PORT = AddPort("br-ex", "c1pf0hpf")


def bench(tmp_path: Path, world: World) -> Bench:
    made = Bench(tmp_path, world)
    configured(made.root, REBOOT)
    return made


def portless() -> World:
    return w.without_port(w.healthy(), "br-ex", "c1pf0hpf")


def raising(error: Exception, kind: type = object) -> Callable[[Action], None]:
    def refuse(action: Action) -> None:
        if isinstance(action, kind):
            raise error

    return refuse


@pytest.mark.parametrize("happens", MISHAPS, ids=lambda one: str(one.__name__))
def test_one_turn_brings_a_machine_home_from_any_mishap(tmp_path: Path, happens: Callable[[World], World]) -> None:
    machine = bench(tmp_path, happens(w.healthy()))
    snapshot = machine.turn()
    assert snapshot.plan.steps == ()
    assert snapshot.failures == ()
    assert len(set(machine.part.calls)) == len(machine.part.calls)


def test_a_turn_on_a_healthy_machine_looks_once_and_changes_nothing(tmp_path: Path) -> None:
    machine = bench(tmp_path, w.healthy())
    snapshot = machine.turn()
    assert snapshot.verdict.ready
    assert (machine.part.looks, machine.part.calls) == (1, [])
    assert snapshot.config_hash == REBOOT.config_hash()
    assert snapshot.boot_id == w.healthy().boot_id


def test_a_lost_port_is_back_with_two_looks(tmp_path: Path) -> None:
    """One to see it, one to verify it: a port's way back is short."""
    machine = bench(tmp_path, portless())
    assert machine.turn().verdict.ready
    assert machine.part.looks == 2


def test_what_is_being_done_is_published_before_it_is_done(tmp_path: Path) -> None:
    machine = bench(tmp_path, portless())
    machine.part.before = lambda _action: seen.append(machine.published[-1].verdict.state)
    seen: list[State] = []
    machine.turn()
    assert seen == [State.PROGRESSING]


def test_a_failed_step_makes_the_dpu_degraded_and_waits_for_its_time(tmp_path: Path) -> None:
    machine = bench(tmp_path, w.first_boot())
    machine.part.before = raising(BUSY, SetSwitchdev)
    snapshot = machine.turn()
    assert snapshot.verdict.state is State.DEGRADED
    assert BUSY.message in snapshot.verdict.message
    assert [failure.attempts for failure in snapshot.failures] == [1]
    assert machine.engine.next_due == machine.clock.now + 1
    before = len(machine.part.calls)
    machine.turn(0.5)
    assert len(machine.part.calls) == before
    snapshot = machine.turn(0.5)
    assert len(machine.part.calls) == before + 1
    assert [failure.attempts for failure in snapshot.failures] == [2]


def test_an_eswitch_that_is_busy_ten_times_and_then_works_ends_ready(tmp_path: Path) -> None:
    machine, left = bench(tmp_path, w.first_boot()), [10]

    def busy(action: Action) -> None:
        if isinstance(action, SetSwitchdev) and left[0]:
            left[0] -= 1
            raise BUSY

    machine.part.before = busy
    snapshot = machine.turn()
    for _ in range(1000):
        if snapshot.verdict.ready:
            break
        assert machine.engine.next_due is not None
        snapshot = machine.turn(machine.engine.next_due - machine.clock.now)
    assert snapshot.verdict.ready
    assert left == [0]
    assert machine.engine.counters.failed["SetSwitchdev"] == 10
    assert machine.engine.counters.done["SetSwitchdev"] == 2


def test_a_terminal_failure_is_not_tried_again_while_nothing_changes(tmp_path: Path) -> None:
    machine = bench(tmp_path, w.first_boot())
    machine.part.before = raising(REFUSED, SetSwitchdev)
    machine.turn()
    calls = len(machine.part.calls)
    for _ in range(19):
        machine.turn(30)
    assert len(machine.part.calls) == calls
    machine.turn(30)
    assert len(machine.part.calls) == calls + 1


def test_a_lying_eswitch_is_a_failure_with_backoff(tmp_path: Path) -> None:
    machine = bench(tmp_path, w.first_boot())
    machine.part.lies = {SetSwitchdev}
    snapshot = machine.turn()
    assert snapshot.verdict.state is State.DEGRADED
    assert "legacy" in snapshot.failures[0].message
    assert len([call for call in machine.part.calls if isinstance(call, SetSwitchdev)]) == 1


def test_every_interruption_of_a_turn_is_gone_on_from_by_the_next(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    total = 0
    for count in range(1, 9):
        machine = bench(tmp_path / str(count), w.first_boot())

        def killed(_action: Action, machine: Bench = machine, count: int = count) -> None:
            if len(machine.part.calls) == count:
                raise KilledError

        machine.part.before = killed
        with suppress(KilledError):
            machine.turn()
        again = bench(tmp_path / f"{count}-again", machine.part.world)
        snapshot = again.turn()
        assert snapshot.plan.steps == ()
        total = max(total, count if len(machine.part.calls) == count else 0)
        done = [*machine.part.calls[: count - 1], *again.part.calls]
        assert len(set(done)) == len(done)
    assert total >= 5


def test_the_configuration_is_kept_once_it_is_found_good(tmp_path: Path) -> None:
    machine = bench(tmp_path, w.healthy())
    machine.turn()
    assert config.read(machine.root).last_good == REBOOT


def test_an_invalid_new_configuration_changes_nothing(tmp_path: Path) -> None:
    machine = bench(tmp_path, w.healthy())
    machine.turn()
    (machine.root / PATH.lstrip("/")).write_text("{")
    machine.part.world = portless()
    snapshot = machine.turn()
    assert machine.part.calls == [PORT]
    assert snapshot.verdict.state is State.DEGRADED
    assert snapshot.config_hash == REBOOT.config_hash()


def test_on_another_machine_nothing_at_all_is_written(tmp_path: Path) -> None:
    machine = bench(tmp_path, replace(w.healthy(), platform=w.SERVER))
    before = sorted(tmp_path.rglob("*"))
    assert machine.turn().verdict.state is State.BLOCKED
    assert machine.part.calls == []
    assert sorted(tmp_path.rglob("*")) == before


def test_while_another_agent_applies_it_waits_and_looks_again_soon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine, clock = bench(tmp_path, portless()), Clock()
    with lock.held(who="dpu-agent apply", patience=0, clock=clock, wait=clock.wait, path=machine.lock):
        machine.turn()
        machine.turn()
        assert machine.part.calls == []
        assert machine.engine.next_due == machine.clock.now + 1
    assert len([line for line in caplog.messages if "dpu-agent apply, process" in line]) == 1
    assert machine.turn().verdict.ready


def test_without_a_place_for_the_lock_nothing_is_done_and_that_is_said(tmp_path: Path) -> None:
    machine = bench(tmp_path, portless())
    machine.lock.parent.write_text("a file where the folder should be")
    snapshot = machine.turn()
    assert machine.part.calls == []
    assert "cannot be opened" in snapshot.verdict.message


def test_a_repeated_failure_is_logged_ever_more_rarely(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    machine = bench(tmp_path, portless())
    machine.part.before = raising(BUSY)
    for _ in range(64):
        machine.turn(60)
    said = [record for record in caplog.records if BUSY.message in record.getMessage() and "attempt" in record.msg]
    assert len(said) == 7
    assert {getattr(record, "step", "") for record in said} == {"AddPort"}


def test_a_failure_of_another_kind_is_logged_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    machine = bench(tmp_path, portless())
    machine.part.before = raising(BUSY)
    for _ in range(2):
        machine.turn(60)
    machine.part.before = raising(REFUSED)
    caplog.clear()
    machine.turn(60)
    assert any(record.levelno == logging.ERROR and REFUSED.message in record.message for record in caplog.records)


def test_the_verdict_is_logged_when_it_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    machine = bench(tmp_path, w.healthy())
    for _ in range(5):
        machine.turn(30)
    assert len([line for line in caplog.messages if line.startswith("Ready: ")]) == 1


def test_once_stopped_it_begins_no_step(tmp_path: Path) -> None:
    machine = bench(tmp_path, portless())
    machine.engine.stopping.set()
    machine.turn()
    assert machine.part.calls == []


def test_a_machine_that_changes_as_fast_as_it_is_configured_does_not_hold_the_turn(tmp_path: Path) -> None:
    machine = bench(tmp_path, portless())

    def undone(world: World) -> World:
        # What one step mends, another thing breaks meanwhile.
        if machine.part.calls and machine.part.calls[-1] == PORT:
            machine.part.world = w.with_netdev(w.healthy(), "c1pf0hpf", up=False)
        else:
            machine.part.world = portless()
        return replace(machine.part.world, configuration=world.configuration)

    machine.part.looked = undone
    machine.turn()
    assert 10 < len(machine.part.calls) < 20


def test_the_heartbeat_goes_on_with_each_step_of_a_long_turn(tmp_path: Path) -> None:
    machine = bench(tmp_path, w.first_boot())
    beats: list[float] = []

    def slow(_action: Action) -> None:
        machine.clock.now += 20
        beats.append(machine.clock.now - machine.engine.heartbeat)

    machine.part.before = slow
    machine.turn()
    assert len(beats) > 3
    assert max(beats) < 30


def test_the_model_is_what_the_fake_does(tmp_path: Path) -> None:
    machine = bench(tmp_path, portless())
    machine.turn()
    assert machine.part.world == after(portless(), Step(PORT, ""))
