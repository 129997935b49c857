"""When a step is tried again: pure, with times that the test gives."""

from dataclasses import replace

import pytest

from dpu_agent.decision import Blocks, Failure, Plan, Problem
from dpu_agent.retries import Retries, Timing
from dpu_agent.steps import AddPort, SetSwitchdev, Step
from dpu_agent.world import World
from dpu_shared.node_report import State
from tests.unit.agent import worlds as w

SWITCH = Step(SetSwitchdev(w.F0), "It is in legacy mode.")
PORT = Step(AddPort("br-ex", "c1pf0hpf"), "It stands for the host's PF.")
WORLD = w.healthy()
CHANGED = replace(WORLD, boot_id="another")


def retries(jitter: float = 0.0) -> Retries:
    return Retries(lambda: jitter)


def failed(step: Step = SWITCH, *, terminal: bool = False) -> Failure:
    return Failure(step, "It is busy.", "Wait.", terminal=terminal)


def first_due(memory: Retries, start: float, world: World = WORLD, *, limit: float = 2000.0) -> float:
    """Seconds after `start` at which the step is due, to a tenth."""
    waited = 0.0
    while not memory.due([SWITCH], start + waited, world):
        waited = round(waited + 0.1, 1)
        assert waited < limit
    return waited


def test_the_pauses_double_up_to_a_minute() -> None:
    memory, now, pauses = Retries(lambda: 0.999999), 0.0, []
    for attempt in range(1, 10):
        assert memory.failed(failed(), now).attempts == attempt
        pause = first_due(memory, now)
        pauses.append(pause)
        now += pause
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60], abs=0.11)


def test_jitter_shortens_a_pause_by_half_at_most() -> None:
    timing = Timing()
    assert timing.backoff(5, 0.0) == 8
    assert timing.backoff(5, 0.5) == 12
    assert timing.backoff(10_000, 0.0) == 30
    assert timing.backoff(1, 0.0) == 1


def test_a_terminal_failure_is_tried_again_after_ten_minutes() -> None:
    memory = retries()
    memory.failed(failed(terminal=True), 0.0)
    assert first_due(memory, 0.0) == 600


def test_a_terminal_failure_is_tried_again_when_the_machine_has_changed() -> None:
    memory = retries()
    memory.failed(failed(terminal=True), 0.0)
    assert memory.due([SWITCH], 2.0, WORLD) == ()
    assert memory.due([SWITCH], 3.0, CHANGED) == (SWITCH,)


def test_a_flapping_machine_does_not_make_a_storm_of_terminal_failures() -> None:
    memory, now, attempts = retries(), 0.0, 0
    while now < 600:
        if memory.due([SWITCH], now, replace(WORLD, boot_id=f"flap {now}")):
            memory.failed(failed(terminal=True), now)
            attempts += 1
        now += 0.1
    assert attempts < 30


def test_a_change_brings_the_next_attempt_at_a_passing_failure_near() -> None:
    memory, now = retries(), 0.0
    for _ in range(10):
        memory.failed(failed(), now)
    assert memory.due([SWITCH], 1.0, WORLD) == ()
    assert memory.due([SWITCH], 4.9, CHANGED) == ()
    assert memory.due([SWITCH], 5.0, CHANGED) == (SWITCH,)


def test_what_follows_a_waiting_step_waits_with_it() -> None:
    memory = retries()
    memory.failed(failed(), 0.0)
    assert memory.due([SWITCH, PORT], 0.5, WORLD) == ()
    assert memory.due([PORT, SWITCH], 0.5, WORLD) == (PORT,)
    assert memory.due([SWITCH, PORT], 1.0, WORLD) == (SWITCH, PORT)


def test_a_step_that_is_no_longer_needed_is_forgotten() -> None:
    memory = retries()
    memory.failed(failed(), 0.0)
    memory.failed(failed(), 1.0)
    memory.settle(Plan(None), 2.0)
    assert memory.failed(failed(), 3.0).attempts == 1


def test_a_step_that_a_problem_hides_is_remembered() -> None:
    memory = retries()
    memory.failed(failed(), 0.0)
    hidden = Plan(None, problems=(Problem("OvsUnavailable", "", "", State.DEGRADED, Blocks.BRIDGE),))
    memory.settle(hidden, 2.0)
    assert memory.failures(hidden) == ()
    assert memory.failed(failed(), 3.0).attempts == 2


def test_a_step_that_worked_starts_anew() -> None:
    memory = retries()
    memory.failed(failed(), 0.0)
    memory.done(SWITCH, 5.0)
    assert memory.due([SWITCH], 5.0, WORLD) == (SWITCH,)
    assert memory.failed(failed(), 6.0).attempts == 1


def test_an_eswitch_that_is_reverted_again_and_again_is_not_flapped_for_ever() -> None:
    memory, now, attempts = retries(), 0.0, 0
    while now < 3600:
        if memory.due([SWITCH], now, replace(WORLD, boot_id=str(now))):
            memory.done(SWITCH, now)
            attempts += 1
        now += 1
    assert attempts <= 18
    (failure,) = memory.failures(Plan(None, steps=(SWITCH,)))
    assert "each time something undid it" in failure.message


def test_a_port_that_is_lost_fifty_times_is_brought_back_fifty_times_at_once() -> None:
    memory = retries()
    for number in range(50):
        assert memory.due([PORT], number * 0.2, WORLD) == (PORT,)
        memory.done(PORT, number * 0.2)


def test_the_next_time_is_that_of_the_first_step_that_waits() -> None:
    memory = retries()
    both = Plan(None, steps=(SWITCH, PORT))
    assert memory.next_due(both) is None
    memory.failed(failed(), 10.0)
    memory.failed(failed(PORT, terminal=True), 10.0)
    assert memory.next_due(both) == 11.0
    assert memory.next_due(Plan(None, steps=(PORT,))) == 610.0
