"""execute(): the given steps, in their order, each believed only when seen."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from dpu_agent.apply import execute
from dpu_agent.decision import Failure, Outcome
from dpu_agent.plan import plan
from dpu_agent.steps import Action, AddPort, SetLink, SetOffload, SetSwitchdev, Step
from dpu_agent.verdict import verdict
from dpu_agent.world import EswitchMode, Ovs, Unseen, World
from dpu_shared.host_config import Mode
from dpu_shared.steps import Disruption
from tests.unit.agent import worlds as w
from tests.unit.agent.drift import MISHAPS
from tests.unit.agent.fakes import BUSY, REFUSED, Clock, Part
from tests.unit.agent.test_prefixes import converged, unlimited


class PowerFailureError(Exception):
    """The process ends here."""


class Told:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Action]] = []

    def started(self, step: Step) -> None:
        self.events.append(("started", step.action))

    def done(self, step: Step) -> None:
        self.events.append(("done", step.action))

    def failed(self, failure: Failure) -> None:
        self.events.append(("failed", failure.step.action))


def run(part: Part, clock: Clock | None = None, wait: Callable[[float], bool] | None = None) -> tuple[Outcome, Told]:
    clock, told = clock or Clock(), Told()
    found = plan(part.world)
    outcome = execute(
        found, part.machine(), lambda: part.looked(part.world), clock=clock, wait=wait or clock.wait, observer=told
    )
    return outcome, told


def without_the_port(world: World) -> World:
    return w.without_port(world, "br-ex", "c1pf0hpf")


def down_and_gone() -> World:
    return w.with_netdev(without_the_port(w.healthy()), "c1pf0hpf", up=False)


def test_the_steps_are_done_in_their_order_and_each_is_told() -> None:
    part = Part(down_and_gone())
    outcome, told = run(part)
    wanted: list[Action] = [SetLink("c1pf0hpf"), AddPort("br-ex", "c1pf0hpf")]
    assert part.calls == wanted
    assert [step.action for step in outcome.done] == wanted
    assert outcome.failure is None
    assert told.events == [(what, action) for action in wanted for what in ("started", "done")]
    assert verdict(plan(part.world)).ready


def test_an_empty_plan_touches_nothing() -> None:
    part = Part(w.healthy())
    outcome, _ = run(part)
    assert outcome == Outcome()
    assert part.calls == []


def test_it_ends_at_the_first_failure_with_the_machines_own_words() -> None:
    part = Part(down_and_gone())

    def refuse(_action: Action) -> None:
        raise REFUSED

    part.before = refuse
    outcome, told = run(part)
    assert part.calls == [SetLink("c1pf0hpf")]
    assert outcome.done == ()
    assert outcome.failure is not None
    assert (outcome.failure.message, outcome.failure.hint) == (REFUSED.message, REFUSED.hint)
    assert outcome.failure.terminal
    assert told.events == [("started", SetLink("c1pf0hpf")), ("failed", SetLink("c1pf0hpf"))]


def test_a_step_that_was_accepted_without_effect_is_a_failure_that_says_what_is_still_so() -> None:
    part = Part(unlimited(w.first_boot()), lies={SetSwitchdev})
    clock = Clock()
    started = clock.now
    outcome, _ = run(part, clock)
    assert outcome.failure is not None
    assert isinstance(outcome.failure.step.action, SetSwitchdev)
    assert "still needed" in outcome.failure.message
    assert "legacy" in outcome.failure.message
    assert not outcome.failure.terminal
    assert 5 <= clock.now - started < 20


def test_an_effect_that_comes_late_is_waited_for() -> None:
    part, clock = Part(without_the_port(w.healthy())), Clock()
    before, asked = part.world, clock.now
    part.looked = lambda world: before if clock.now < asked + 3 else world
    outcome, _ = run(part, clock)
    assert [step.action for step in outcome.done] == [AddPort("br-ex", "c1pf0hpf")]
    assert clock.now >= asked + 3


def test_a_plan_that_another_problem_empties_proves_nothing() -> None:
    part = Part(without_the_port(w.healthy()))

    def unbridged(world: World) -> World:
        assert world.ovs is not None
        return replace(world, ovs=replace(world.ovs, bridges=())) if part.calls else world

    part.looked = unbridged
    outcome, _ = run(part)
    assert outcome.done == ()
    assert outcome.failure is not None
    assert "br-ex" in outcome.failure.message


def test_an_answer_that_was_lost_is_no_failure_where_the_effect_is_there() -> None:
    part = Part(without_the_port(w.healthy()), lost={AddPort})
    outcome, _ = run(part)
    assert outcome.failure is None
    assert [step.action for step in outcome.done] == [AddPort("br-ex", "c1pf0hpf")]


def test_a_refusal_stays_a_failure() -> None:
    part = Part(unlimited(w.first_boot()))

    def busy(action: Action) -> None:
        if isinstance(action, SetSwitchdev):
            raise BUSY

    part.before = busy
    outcome, _ = run(part)
    assert outcome.failure is not None
    assert outcome.failure.message == BUSY.message
    assert not outcome.failure.terminal


def test_what_can_no_longer_be_seen_is_not_believed() -> None:
    part = Part(without_the_port(w.healthy()))

    def blind(world: World) -> World:
        return replace(world, ovs=None, unseen=(Unseen("ovsdb", "ovsdb-server is silent.", "Restart it."),))

    part.looked = blind
    outcome, _ = run(part)
    assert outcome.done == ()
    assert outcome.failure is not None
    assert "ovsdb-server is silent" in outcome.failure.message


@pytest.mark.parametrize(
    ("world", "action", "blinded"),
    [
        (w.first_boot(), SetSwitchdev, lambda world: w.with_function(world, w.F0, mode=EswitchMode.UNKNOWN)),
        (w.with_ovs(w.healthy(), hw_offload=""), SetOffload, lambda world: replace(world, ovs=None)),
    ],
)
def test_a_part_that_is_dark_proves_nothing(world: World, action: type, blinded: Callable[[World], World]) -> None:
    part = Part(unlimited(world))
    found = plan(part.world)
    (step,) = [one for one in found.steps if isinstance(one.action, action)][:1]
    clock = Clock()
    outcome = execute(
        replace(found, steps=(step,)), part.machine(), lambda: blinded(part.world), clock=clock, wait=clock.wait
    )
    assert outcome.done == ()
    assert outcome.failure is not None


def test_it_ends_without_a_failure_where_the_world_goes_another_way() -> None:
    part = Part(down_and_gone())
    config = part.world.configuration.current
    assert config is not None
    report_only = replace(config, mode=Mode.REPORT_ONLY)
    part.looked = lambda world: replace(world, configuration=replace(world.configuration, current=report_only))
    outcome, _ = run(part)
    assert part.calls == [SetLink("c1pf0hpf")]
    assert [step.action for step in outcome.done] == [SetLink("c1pf0hpf")]
    assert outcome.failure is None


def test_a_step_that_has_become_more_disturbing_is_left_for_another_plan() -> None:
    world = unlimited(w.first_boot())
    part = Part(world)
    found = plan(world)
    first, *rest = found.steps
    assert rest
    harmless = replace(found, steps=(first, *(replace(step, disruption=Disruption.REBOOT) for step in rest)))
    clock = Clock()
    outcome = execute(harmless, part.machine(), lambda: part.world, clock=clock, wait=clock.wait)
    assert outcome.done == (first,)
    assert len(part.calls) == 1


def test_no_further_step_is_begun_once_it_is_stopped() -> None:
    part = Part(down_and_gone())
    outcome, _ = run(part, wait=lambda _seconds: True)
    assert len(part.calls) == 1
    assert len(outcome.done) == 1
    assert outcome.failure is None


def test_a_stop_while_an_effect_is_awaited_is_neither_done_nor_failed() -> None:
    part = Part(without_the_port(w.healthy()), lies={AddPort})
    outcome, told = run(part, wait=lambda _seconds: True)
    assert outcome == Outcome()
    assert told.events == [("started", AddPort("br-ex", "c1pf0hpf"))]


def test_a_mistake_of_ours_is_not_taken_for_a_failure_of_the_machine() -> None:
    part = Part(down_and_gone())

    def mistake(_action: Action) -> None:
        raise KeyError("ours")

    part.before = mistake
    with pytest.raises(KeyError):
        run(part)


@pytest.mark.parametrize("happens", MISHAPS, ids=lambda one: str(one.__name__))
@pytest.mark.parametrize("effect", ["before", "after"])
def test_a_power_failure_at_any_step_is_gone_on_from(happens: Callable[[World], World], effect: str) -> None:
    start = unlimited(happens(w.first_boot()))
    for count in range(len(plan(start).steps)):
        part = Part(start)

        def fails(_action: Action, part: Part = part, count: int = count) -> None:
            if len(part.calls) > count:
                raise PowerFailureError

        if effect == "before":
            part.before = fails
        else:
            part.looked = lambda world, part=part, count=count: (  # type: ignore[misc]
                world if len(part.calls) <= count else (_ for _ in ()).throw(PowerFailureError())
            )
        done: list[Action] = []
        try:
            outcome, _ = run(part)
            done = [step.action for step in outcome.done]
        except PowerFailureError:
            done = part.calls[:count] if effect == "before" else list(part.calls)
        _, afterwards = converged(part.world)
        assert len({*done, *afterwards}) == len(done) + len(afterwards), "a step was done twice with effect"


def test_each_action_goes_to_the_part_that_does_it() -> None:
    """The fake's parts turn each call back into the action that it serves; `model.py` refuses a wrong one."""
    part = Part(w.without_port(w.healthy(), "br-ex", "c1pf0hpf"))
    part.world = replace(part.world, ovs=Ovs(part.world.ovs.bridges, vswitchd=w.VSWITCHD) if part.world.ovs else None)
    part.world = unlimited(part.world)
    seen: set[str] = set()
    for _ in range(4):
        outcome, _ = run(part)
        seen |= {step.name for step in outcome.done}
    assert {"SetOffload", "RestartVswitchd", "AddPort"} <= seen
    assert verdict(plan(part.world)).ready
