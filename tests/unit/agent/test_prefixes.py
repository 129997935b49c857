"""Wherever the power fails in a plan, planning again from what is there leads to a healthy DPU, and does nothing twice."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from dpu_agent.decision import Plan, Stage
from dpu_agent.plan import plan
from dpu_agent.reasons import Reason
from dpu_agent.steps import Action, AddPort, SetLink
from dpu_agent.verdict import verdict
from dpu_agent.world import Bridge, Ovs, World
from dpu_shared.steps import Disruption
from tests.unit.agent import worlds as w
from tests.unit.agent.drift import MISHAPS, cases, drifted
from tests.unit.agent.model import after, check

ROUNDS = 6
"""Plans that may be needed: what comes with switchdev mode or with a name is planned once it is there."""


def unlimited(world: World) -> World:
    config = world.configuration.current
    assert config is not None
    return replace(
        world,
        configuration=replace(world.configuration, current=replace(config, max_disruption=Disruption.REBOOT)),
    )


def executed(world: World, found: Plan, count: int) -> tuple[World, list[Action]]:
    """The first so many steps, as `apply` does them: as long as a fresh plan goes on as this one does."""
    done: list[Action] = []
    for number, step in enumerate(found.steps[:count]):
        world = after(world, step)
        done.append(step.action)
        if [one.action for one in plan(world).steps] != [one.action for one in found.steps[number + 1 :]]:
            break
    return world, done


def converged(world: World) -> tuple[World, list[Action]]:
    done: list[Action] = []
    for _ in range(ROUNDS):
        found = plan(world)
        assert found.held == ()
        if not found.steps:
            return world, done
        world, steps = executed(world, found, len(found.steps))
        done += steps
    pytest.fail(f"It goes round in circles: {done}")


def leads_home(world: World) -> None:
    check(world)
    found = plan(world)
    for count in range(len(found.steps) + 1):
        midway, before = executed(world, found, count)
        end, afterwards = converged(midway)
        done = [*before, *afterwards]
        assert len(set(done)) == len(done), "a step was done twice"
        reached = verdict(plan(end))
        broken = {problem.reason for problem in plan(end).problems}
        assert reached.ready or broken == {Reason.FOREIGN_PORT_BROKEN}, reached.message


@pytest.mark.parametrize("happens", MISHAPS, ids=lambda one: str(one.__name__))
@pytest.mark.parametrize("world", [w.healthy(), w.first_boot()], ids=["healthy", "first_boot"])
def test_every_prefix_of_a_plan_leads_home(happens: object, world: World) -> None:
    leads_home(unlimited(happens(world)))  # type: ignore[operator]


@settings(max_examples=cases(0.25))
@given(drifted())
def test_every_prefix_of_every_plan_leads_home(world: World) -> None:
    leads_home(unlimited(world))


@settings(max_examples=cases(0.15))
@given(drifted())
def test_a_boot_does_what_waited_for_it(world: World) -> None:
    """What is held with `at_boot` is done by the early stage of the next boot, or by its mere start of Open vSwitch."""
    found = plan(world)
    if found.problems or not found.held or not all(step.at_boot for step in found.held):
        return
    booted = early_after_reboot(world)
    early = plan(booted, Stage.EARLY)
    assert early.held == ()
    for step in early.steps:
        booted = after(booted, step)
    assert plan(booted, Stage.EARLY).steps == ()


def early_after_reboot(world: World) -> World:
    """Before NetworkManager and Open vSwitch: nothing is up, nothing carries anything, the database is not there."""
    netdevs = tuple(replace(one, up=False, carries_host=False) for one in world.netdevs if one.function)
    return replace(world, boot_id="another", netdevs=netdevs, ovs=None)


def test_a_fresh_dpu_is_ready_after_the_two_stages_of_one_boot() -> None:
    world = w.early_boot()
    for step in plan(world, Stage.EARLY).steps:
        world = after(world, step)
    assert verdict(plan(world, Stage.EARLY)).ready
    br_ex = Bridge("br-ex", ports=(w.internal("br-ex"), w.uplink_on("enp3s0f0np0")))
    world = replace(world, ovs=Ovs((br_ex,), hw_offload="true", vswitchd=w.VSWITCHD))
    end, done = converged(world)
    assert verdict(plan(end)).ready
    assert done == [SetLink("c1pf0hpf"), AddPort("br-ex", "c1pf0hpf")]
