"""What no step mends: each found where it is, and only there."""

from dataclasses import replace

import pytest

from dpu_agent.decision import Blocks, Stage
from dpu_agent.plan import plan
from dpu_agent.preconditions import problems
from dpu_agent.reasons import REASONS, Reason
from dpu_agent.world import Configuration, EswitchMode, Platform, Rules, Unseen, World
from dpu_shared.host_config import HostConfig
from dpu_shared.node_report import State
from tests.unit.agent.worlds import (
    BLUEFIELD,
    F0,
    F1,
    actions,
    early_boot,
    first_boot,
    healthy,
    one_port,
    problem_of,
    reasons,
    server_with_card,
    two_sentences,
    unseen,
    with_function,
    with_ovs,
)


def without(world: World, *addresses: str) -> World:
    return replace(world, functions=tuple(one for one in world.functions if one.address not in addresses))


def test_a_healthy_dpu_has_no_problem() -> None:
    assert plan(healthy()).problems == ()
    assert plan(early_boot(), Stage.EARLY).problems == ()


def test_each_reason_has_its_line() -> None:
    assert set(REASONS) == set(Reason)
    assert all(line.endswith(".") for line in REASONS.values())
    assert len(set(REASONS.values())) == len(REASONS)


# The machine.


def test_a_machine_without_any_sign_is_no_dpu() -> None:
    world = replace(server_with_card(), functions=())
    found = plan(world)
    problem = problem_of(found, "NotADpu")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.ALL)
    assert "PowerEdge R750" in problem.message
    assert (found.steps, found.held, found.host_pf_macs) == ((), (), ())


def test_the_host_that_holds_the_card_is_told_so() -> None:
    found = plan(server_with_card())
    problem = problem_of(found, "HostWithCard")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.ALL)
    assert "x86_64 host" in problem.message
    assert "0000:5e:00.0" in problem.message
    assert reasons(found) == ["HostWithCard"]


def test_nothing_is_planned_on_a_host_though_its_card_is_in_legacy_mode() -> None:
    assert plan(server_with_card()).steps == ()
    assert plan(server_with_card()).held == ()


def test_nothing_is_said_of_a_dpus_parts_where_there_is_no_dpu() -> None:
    world = replace(server_with_card(), functions=(), ovs=None, rules=Rules.ABSENT)
    assert reasons(plan(world)) == ["NotADpu"]


def test_a_machine_that_could_not_be_looked_at_is_not_called_no_dpu() -> None:
    world = unseen(replace(healthy(), platform=Platform("aarch64"), functions=()), "sysfs")
    problem = problem_of(plan(world), "PlatformUnseen")
    assert (problem.state, problem.blocks) == (State.DEGRADED, Blocks.ALL)
    assert problem.message == "Whether this machine is a DPU could not be found out: the part sysfs did not answer."
    assert "NotADpu" not in reasons(plan(world))
    named = replace(world, unseen=(Unseen("sysfs", "DMI can't be read.", "See why."),))
    assert problem_of(plan(named), "PlatformUnseen").message.endswith(": DMI can't be read.")


def test_a_machine_without_a_product_name_is_told_without_one() -> None:
    bare = replace(server_with_card(), functions=(), platform=Platform("x86_64"))
    assert problem_of(plan(bare), "NotADpu").message.endswith("says so.")


def test_another_manager_of_the_dpu_keeps_us_from_everything() -> None:
    world = replace(first_boot(), other_managers=("NVIDIA DPF's agent (/opt/dpf/dpuagent)",))
    problem = problem_of(plan(world), "OtherManager")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.ALL)
    assert "/opt/dpf/dpuagent" in problem.message
    assert actions(plan(world)) == []
    assert reasons(plan(world, Stage.EARLY)) == ["OtherManager"]


# The configuration.


def test_without_a_configuration_nothing_is_done() -> None:
    world = replace(first_boot(), configuration=Configuration())
    found = plan(world)
    problem = problem_of(found, "ConfigMissing")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.ALL)
    assert (found.config, found.steps, found.held) == (None, (), ())


def test_a_configuration_that_is_wrong_is_told_in_its_own_words() -> None:
    broken = Configuration(problem="The host configuration is no JSON.", hint="Restore it.")
    problem = problem_of(plan(replace(healthy(), configuration=broken)), "ConfigInvalid")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.ALL)
    assert (problem.message, problem.hint) == ("The host configuration is no JSON.", "Restore it.")


@pytest.mark.parametrize(("said", "reason"), [("", "ConfigMissing"), ("It is no JSON.", "ConfigInvalid")])
def test_the_last_good_configuration_stays_in_force(said: str, reason: str) -> None:
    good = HostConfig(bridge="br-ex")
    world = replace(first_boot(), configuration=Configuration(problem=said, last_good=good))
    found = plan(world)
    problem = problem_of(found, reason)
    assert (problem.state, problem.blocks) == (State.DEGRADED, Blocks.NOTHING)
    assert "last good" in problem.message
    assert found.config == good
    assert found.steps == plan(first_boot()).steps


def test_a_good_configuration_counts_more_than_the_last_one() -> None:
    world = replace(healthy(), configuration=Configuration(current=HostConfig(), last_good=HostConfig(bridge="br-old")))
    assert plan(world).config == HostConfig()
    assert plan(world).problems == ()


# The card's functions.


@pytest.mark.parametrize("world", [healthy(), first_boot()])
def test_the_second_function_without_the_first_is_half_a_card(world: World) -> None:
    found = plan(without(world, F0))
    problem = problem_of(found, "FunctionMissing")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.ALL)
    assert F0 in problem.message
    assert found.steps == ()


def test_one_function_of_a_card_that_calls_itself_a_two_port_one_is_half_a_card() -> None:
    found = plan(without(first_boot(), F1))
    assert "2-port" in problem_of(found, "FunctionMissing").message
    assert found.steps == ()


def test_one_function_is_a_whole_card_with_one_port() -> None:
    assert reasons(plan(one_port())) == []
    unnamed = replace(one_port(), platform=replace(BLUEFIELD, product_name="BlueField-2 SmartNIC Main Card"))
    assert reasons(plan(unnamed)) == []


def test_functions_with_a_gap_name_the_one_that_is_missing() -> None:
    third = replace(healthy().functions[1], address="0000:03:00.2", ports=())
    world = replace(healthy(), functions=(healthy().functions[0], third))
    assert F1 in problem_of(plan(world), "FunctionMissing").message


def test_two_whole_cards_of_one_port_each_lack_nothing() -> None:
    other = replace(healthy().functions[0], address="0000:05:00.0", ports=())
    world = replace(healthy(), functions=(*without(healthy(), F1).functions, other))
    assert "FunctionMissing" not in reasons(plan(world))


def test_a_dpu_without_any_function_says_so_unless_the_bus_was_not_seen() -> None:
    bare = replace(healthy(), functions=())
    assert "none at all" in problem_of(plan(bare), "FunctionMissing").message
    assert "FunctionMissing" not in reasons(plan(unseen(bare, "sysfs")))


@pytest.mark.parametrize(("driver", "said"), [("", "is not driven"), ("vfio-pci", "driven by vfio-pci")])
def test_a_function_without_its_driver_keeps_the_other_as_it_is(driver: str, said: str) -> None:
    found = plan(with_function(first_boot(), F1, driver=driver, mode=EswitchMode.UNKNOWN))
    problem = problem_of(found, "FunctionWithoutDriver")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.ALL)
    assert F1 in problem.message
    assert said in problem.message
    assert reasons(found).count("EswitchUnseen") == 0
    assert found.steps == ()


@pytest.mark.parametrize("stage", list(Stage))
def test_a_function_that_manages_no_eswitch_means_the_wrong_mode_of_the_card(stage: Stage) -> None:
    world = with_function(first_boot(), F0, mode=EswitchMode.UNSUPPORTED)
    found = plan(world, stage)
    problem = problem_of(found, "NotEswitchManager")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.ALL)
    assert "INTERNAL_CPU_MODEL" in problem.hint
    assert F0 in problem.hint
    assert (found.steps, found.held) == ((), ())


def test_an_eswitch_that_could_not_be_asked_is_reported_and_the_port_still_looked_after() -> None:
    found = plan(with_function(healthy(), F1, mode=EswitchMode.UNKNOWN))
    problem = problem_of(found, "EswitchUnseen")
    assert (problem.state, problem.blocks) == (State.DEGRADED, Blocks.NOTHING)
    assert F1 in problem.message


@pytest.mark.parametrize("what", ["devlink", F1])
def test_why_an_eswitch_could_not_be_asked_is_said_once(what: str) -> None:
    world = unseen(with_function(healthy(), F1, mode=EswitchMode.UNKNOWN), what)
    problem = problem_of(plan(world), "EswitchUnseen")
    assert problem.message == f"The part {what} did not answer."
    assert (problem.state, problem.blocks) == (State.DEGRADED, Blocks.NOTHING)


# udev and all the rest that was not seen.


def test_rules_that_somebody_edited_are_reported_and_left_alone() -> None:
    found = plan(replace(healthy(), rules=Rules.EDITED))
    problem = problem_of(found, "UdevRulesEdited")
    assert (problem.state, problem.blocks) == (State.DEGRADED, Blocks.NOTHING)
    assert found.steps == ()


def test_rules_that_could_not_be_looked_at_are_no_reason_to_write_any() -> None:
    found = plan(replace(healthy(), rules=Rules.UNKNOWN))
    problem = problem_of(found, "Unseen")
    assert (problem.state, problem.blocks) == (State.DEGRADED, Blocks.NOTHING)
    assert found.steps == ()
    assert problem_of(plan(unseen(replace(healthy(), rules=Rules.UNKNOWN), "udev")), "Unseen")


@pytest.mark.parametrize("what", ["udev", "sysfs", "links", "anything"])
def test_what_was_not_seen_is_said_and_does_not_count_as_well(what: str) -> None:
    problem = problem_of(plan(unseen(healthy(), what)), "Unseen")
    assert (problem.message, problem.hint) == (f"The part {what} did not answer.", f"Look after {what}.")
    assert (problem.state, problem.blocks) == (State.DEGRADED, Blocks.NOTHING)


def test_what_was_not_seen_is_said_on_other_machines_too() -> None:
    world = unseen(unseen(replace(server_with_card(), ovs=None), "ovsdb"), "devlink")
    assert reasons(plan(world)) == ["HostWithCard", "OvsUnavailable", "EswitchUnseen"]


def test_all_problems_are_found_together() -> None:
    world = replace(
        unseen(replace(healthy(), ovs=None, rules=Rules.EDITED), "ovsdb"),
        configuration=Configuration(problem="It is no JSON."),
        other_managers=("NVIDIA DPF's agent",),
        functions=(replace(healthy().functions[1], mode=EswitchMode.UNSUPPORTED),),
    )
    found = plan(world)
    assert reasons(found) == [
        "ConfigInvalid",
        "OtherManager",
        "FunctionMissing",
        "NotEswitchManager",
        "UdevRulesEdited",
        "OvsUnavailable",
    ]
    assert all(two_sentences(problem.message, problem.hint) for problem in found.problems)
    assert (found.steps, found.held) == ((), ())


def test_the_early_stage_asks_nothing_of_open_vswitch() -> None:
    world = unseen(early_boot(), "ovsdb")
    assert reasons(plan(world, Stage.EARLY)) == []
    assert reasons(plan(world)) == ["OvsUnavailable"]
    bridgeless = with_ovs(healthy(), bridges=(), vswitchd="")
    assert reasons(plan(bridgeless, Stage.EARLY)) == []


def test_problems_can_be_asked_for_alone() -> None:
    world = first_boot()
    assert problems(world, world.configuration.current, Stage.LATE) == plan(world).problems
