"""What holds of every plan, for whatever is observed, garbage included.

`DPU_TEST_CASES=100000 pytest tests/unit/agent/test_plan_properties.py tests/unit/agent/test_prefixes.py` is the long run.
"""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings

from dpu_agent.decision import Blocks, Plan, Stage
from dpu_agent.plan import plan, waits
from dpu_agent.reasons import REASONS, Reason
from dpu_agent.replay import from_json, to_json
from dpu_agent.steps import InstallRules, SetSwitchdev, TriggerUdev
from dpu_agent.verdict import LIMIT, verdict
from dpu_agent.world import EswitchMode, Rules, World
from dpu_shared.host_config import Mode
from dpu_shared.node_report import State
from tests.unit.agent.drift import CASES, cases, drifted, garbage, half_garbage

BRIDGE_STEPS = {"SetLink", "AddPort", "MovePort", "RecreatePort", "RemovePort"}
OVS_STEPS = BRIDGE_STEPS - {"SetLink"} | {"SetOffload", "RestartVswitchd"}


def holds(world: World) -> None:
    """All that is true of a plan, whatever the world."""
    for stage in Stage:
        found = plan(world, stage)
        assert found == plan(world, stage)
        _obeys_the_configuration(found)
        _obeys_the_problems(found)
        _fits_the_world(world, found, stage)
        _is_judged(found)


def _obeys_the_configuration(found: Plan) -> None:
    needed = (*found.steps, *found.held)
    assert len({step.action for step in needed}) == len(needed), "one thing twice"
    if found.config is None:
        assert needed == ()
        return
    assert not [step for step in found.steps if step.disruption.exceeds(found.config.max_disruption)]
    assert not [step for step in found.steps if waits(step, found.config)]
    if found.config.mode is Mode.REPORT_ONLY:
        assert found.steps == ()
    eswitches = {isinstance(step.action, SetSwitchdev) for step in found.steps}
    held = {isinstance(step.action, SetSwitchdev) for step in found.held}
    assert not (True in eswitches and True in held), "one eswitch ahead of the other"


def _obeys_the_problems(found: Plan) -> None:
    blocked = {problem.blocks for problem in found.problems}
    names = {step.name for step in (*found.steps, *found.held)}
    if Blocks.ALL in blocked:
        assert names == set()
    if Blocks.BRIDGE in blocked:
        assert not names & BRIDGE_STEPS
    assert all(problem.reason in REASONS for problem in found.problems)
    assert all(problem.state is not State.READY and problem.message for problem in found.problems)


def _fits_the_world(world: World, found: Plan, stage: Stage) -> None:
    needed = [step.action for step in (*found.steps, *found.held)]
    names = {step.name for step in (*found.steps, *found.held)}
    if world.ovs is None or stage is Stage.EARLY:
        assert not names & OVS_STEPS
    modes = {function.address: function.mode for function in world.functions}
    for action in needed:
        if isinstance(action, SetSwitchdev):
            assert modes[action.function] in (EswitchMode.LEGACY, EswitchMode.NONE)
        if isinstance(action, InstallRules):
            assert world.rules is Rules.ABSENT
        if isinstance(action, TriggerUdev):
            assert action.netdev in {one.name for one in world.netdevs}
    assert found.host_pf_macs == tuple(sorted(set(found.host_pf_macs)))


def _is_judged(found: Plan) -> None:
    judged = verdict(found)
    assert judged.ready is not bool(found.problems or found.steps or found.held)
    assert judged.reason in set(Reason)
    assert 0 < len(judged.message) <= LIMIT


@settings(max_examples=cases(0.25))
@given(garbage)
def test_garbage_is_planned_for_by_the_rules(world: World) -> None:
    holds(world)


@settings(max_examples=cases(0.15))
@given(half_garbage())
def test_a_dpu_of_which_some_parts_are_garbage_is_planned_for_by_the_rules(world: World) -> None:
    holds(world)


@settings(max_examples=cases(0.1))
@given(drifted())
def test_a_dpu_that_things_happened_to_is_planned_for_by_the_rules(world: World) -> None:
    holds(world)


@settings(max_examples=cases(0.05))
@given(drifted())
def test_the_order_in_which_things_are_seen_does_not_matter(world: World) -> None:
    shaken = random.Random(len(world.netdevs))
    functions, netdevs = list(world.functions), list(world.netdevs)
    shaken.shuffle(functions)
    shaken.shuffle(netdevs)
    assert plan(replace(world, functions=tuple(functions), netdevs=tuple(netdevs))) == plan(world)


@settings(max_examples=cases(0.05))
@given(half_garbage())
def test_an_observation_that_was_written_and_read_is_planned_for_alike(world: World) -> None:
    again = from_json(to_json(world))
    assert again == world
    assert plan(again) == plan(world)


def test_a_normal_run_has_some_cases_of_each_kind_and_a_long_one_what_was_asked_for() -> None:
    assert cases(1) == CASES
    assert sum(map(cases, (0.25, 0.15, 0.1, 0.05, 0.05, 0.25, 0.15))) == pytest.approx(CASES, rel=0.05)
    assert cases(0.00001) >= 1
