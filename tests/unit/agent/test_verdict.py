"""One state, one reason, one message: what counts for most comes first, and nothing is left out."""

from dataclasses import replace

import pytest

from dpu_agent.decision import Blocks, Failure, Plan, Problem, Stage
from dpu_agent.plan import plan
from dpu_agent.steps import AddPort, RestartVswitchd, SetLink, SetSwitchdev, Step
from dpu_agent.verdict import LIMIT, verdict
from dpu_agent.world import Rules
from dpu_shared.host_config import HostConfig, Mode
from dpu_shared.node_report import State
from dpu_shared.steps import Disruption
from tests.unit.agent.worlds import (
    F0,
    configured,
    early_boot,
    first_boot,
    healthy,
    our_port,
    renamed,
    server_with_card,
    somebodys_port,
    with_ovs,
    with_port,
    without_port,
)

BROKEN = Problem("A", "A is broken.", "Mend A.", State.DEGRADED, Blocks.NOTHING)
STUCK = Problem("B", "B is in the way.", "Move B.", State.BLOCKED, Blocks.ALL)
LATE = Problem("C", "C is late.", "Wait for C.", State.PROGRESSING, Blocks.BRIDGE)
ADD = Step(AddPort("br-ex", "c1pf0hpf"), "It is lost.")
UP = Step(SetLink("c1pf0hpf"), "It is down.")
AT_BOOT = Step(SetSwitchdev(F0), "It is in legacy mode.", Disruption.LINK_FLAP, at_boot=True)
BY_HAND = Step(AddPort("br-ex", "x"), "Somebody has it.", Disruption.LINK_FLAP)
FAILED = Failure(ADD, "Open vSwitch said no.", "Ask it why.")


def made(*problems: Problem, steps: tuple[Step, ...] = (), held: tuple[Step, ...] = ()) -> Plan:
    return Plan(HostConfig(), problems, steps, held)


def test_a_healthy_dpu_is_ready() -> None:
    found = verdict(plan(healthy()))
    assert (found.state, found.reason, found.ready) == (State.READY, "AsConfigured", True)
    assert found.message == "The DPU is as configured."


@pytest.mark.parametrize(
    ("given", "failures", "state", "reason"),
    [
        (made(LATE), (), State.PROGRESSING, "C"),
        (made(steps=(ADD,)), (), State.PROGRESSING, "StepsPending"),
        (made(LATE, steps=(ADD,)), (), State.PROGRESSING, "C"),
        (made(steps=(ADD,), held=(AT_BOOT,)), (), State.REBOOT_REQUIRED, "RebootRequired"),
        (made(LATE, held=(AT_BOOT,)), (), State.REBOOT_REQUIRED, "RebootRequired"),
        (made(LATE, held=(BY_HAND,)), (), State.BLOCKED, "DisruptionLimit"),
        (made(held=(AT_BOOT, BY_HAND)), (), State.BLOCKED, "DisruptionLimit"),
        (made(LATE, BROKEN, held=(AT_BOOT,)), (), State.DEGRADED, "A"),
        (made(LATE, BROKEN, held=(BY_HAND,)), (), State.DEGRADED, "A"),
        (made(LATE, steps=(ADD,)), (FAILED,), State.DEGRADED, "StepFailed"),
        (made(steps=(ADD,), held=(AT_BOOT,)), (FAILED,), State.DEGRADED, "StepFailed"),
        (made(BROKEN, steps=(ADD,)), (FAILED,), State.DEGRADED, "A"),
        (made(LATE, BROKEN, STUCK, held=(AT_BOOT,)), (), State.BLOCKED, "B"),
        (made(STUCK, steps=(ADD,)), (FAILED,), State.BLOCKED, "B"),
    ],
)
def test_what_counts_for_most_is_the_state(
    given: Plan, failures: tuple[Failure, ...], state: State, reason: str
) -> None:
    found = verdict(given, failures)
    assert (found.state, found.reason, found.ready) == (state, reason, False)
    assert found.problems == given.problems


def test_everything_that_is_not_well_is_in_the_message_and_the_worst_comes_first() -> None:
    found = verdict(made(LATE, BROKEN, STUCK, steps=(ADD, UP), held=(AT_BOOT,)), (FAILED,))
    assert found.message == (
        "B is in the way. Move B. A is broken. Mend A. "
        "It failed to add c1pf0hpf to br-ex: Open vSwitch said no. Ask it why. "
        f"Waits for the next boot: put the eswitch of {F0} into switchdev mode. It is in legacy mode. "
        "Reboot the DPU, or set spec.hostConfig.maxDisruption to LinkFlap. "
        "C is late. Wait for C. Being done: set c1pf0hpf up."
    )


def test_a_failure_tells_how_often_it_was_tried() -> None:
    assert "(7 attempts): Open vSwitch" in verdict(made(steps=(ADD,)), (replace(FAILED, attempts=7),)).message
    assert "attempt" not in verdict(made(steps=(ADD,)), (FAILED,)).message


def test_a_step_that_is_no_longer_needed_has_not_failed() -> None:
    assert verdict(made(), (FAILED,)).ready
    assert verdict(made(steps=(UP,)), (FAILED,)).state is State.PROGRESSING


def test_a_failure_is_known_again_though_its_reason_reads_differently_now() -> None:
    again = replace(FAILED, step=replace(ADD, why="It went away."))
    assert verdict(made(steps=(ADD,)), (again,)).reason == "StepFailed"
    assert verdict(made(held=(ADD,)), (again,)).reason == "StepFailed"


def test_a_held_step_says_how_it_can_be_had() -> None:
    found = verdict(made(held=(Step(RestartVswitchd(), "It needs it.", Disruption.OVS_RESTART, at_boot=True),)))
    assert found.message == (
        "Waits for the next boot: restart ovs-vswitchd. It needs it. "
        "Reboot the DPU, or set spec.hostConfig.maxDisruption to OVSRestart."
    )
    both = verdict(made(held=(replace(ADD, disruption=Disruption.OVS_RESTART), BY_HAND)))
    assert "maxDisruption to LinkFlap, or do it by hand" in both.message
    assert "It is lost." in both.message


def test_the_person_is_told_of_the_step_that_no_boot_does() -> None:
    assert "Somebody has it." in verdict(made(held=(AT_BOOT, BY_HAND))).message


def test_report_only_mode_reports_the_drift_as_blocked() -> None:
    world = configured(without_port(healthy(), "br-ex", "c1pf0hpf"), mode=Mode.REPORT_ONLY)
    found = verdict(plan(world))
    assert (found.state, found.reason) == (State.BLOCKED, "ReportOnly")
    assert "add c1pf0hpf to br-ex" in found.message
    assert "Enforce" in found.message
    assert verdict(plan(configured(healthy(), mode=Mode.REPORT_ONLY))).ready


def test_a_message_has_its_limit_and_tells_how_much_it_leaves_out() -> None:
    many = tuple(replace(BROKEN, message=f"Part {number} is broken {'!' * 90}.") for number in range(20))
    found = verdict(made(*many))
    assert len(found.message) <= LIMIT
    assert found.message.startswith("Part 0 is broken")
    shown = found.message.count("Mend A.")
    assert 5 < shown < 20
    assert found.message.endswith(f"And {20 - shown} more: `dpu-agent apply --dry-run` shows all.")


def test_one_endless_sentence_is_cut() -> None:
    found = verdict(made(replace(STUCK, message="x" * 5000 + ".")))
    assert len(found.message) <= LIMIT
    assert found.message.endswith("…")


def test_of_many_steps_the_first_are_named_and_the_rest_counted() -> None:
    steps = tuple(Step(SetLink(f"c1pf0vf{number}"), "It is down.") for number in range(9))
    message = verdict(made(steps=steps)).message
    assert "set c1pf0vf3 up; and 5 more." in message
    assert "c1pf0vf4" not in message
    assert "more" not in verdict(made(steps=steps[:4])).message


def test_a_problem_that_calls_the_dpu_ready_comes_last() -> None:
    odd = replace(LATE, reason="D", state=State.READY)
    assert verdict(made(odd, LATE)).reason == "C"


def test_a_fresh_dpu_in_service_asks_for_a_reboot() -> None:
    found = verdict(plan(first_boot()))
    assert (found.state, found.reason) == (State.REBOOT_REQUIRED, "RebootRequired")
    assert "enp3s0f0np0 is on the bridge br-ex" in found.message


def test_at_boot_the_same_dpu_progresses() -> None:
    assert verdict(plan(early_boot(), Stage.EARLY)).state is State.PROGRESSING


def test_somebody_elses_port_elsewhere_is_a_matter_for_a_person() -> None:
    world = with_port(without_port(healthy(), "br-ex", "c1pf0hpf"), "br-int", somebodys_port())
    found = verdict(plan(world))
    assert (found.state, found.reason) == (State.BLOCKED, "DisruptionLimit")
    assert "Somebody else added it to br-int" in found.message


def test_a_name_that_only_a_boot_can_change_asks_for_it() -> None:
    assert verdict(plan(renamed(healthy(), "c1pf0hpf", "eth3"))).state is State.REBOOT_REQUIRED


@pytest.mark.parametrize(
    ("world", "state", "reason"),
    [
        (server_with_card(), State.BLOCKED, "HostWithCard"),
        (replace(healthy(), rules=Rules.EDITED), State.DEGRADED, "UdevRulesEdited"),
        (with_ovs(healthy(), vswitchd=""), State.DEGRADED, "VswitchdDown"),
        (with_ovs(healthy(), bridges=()), State.PROGRESSING, "BridgeAbsent"),
        (with_port(healthy(), "br-ex", our_port(ofport=None)), State.PROGRESSING, "PortPending"),
        (without_port(healthy(), "br-ex", "c1pf0hpf"), State.PROGRESSING, "StepsPending"),
    ],
)
def test_a_dpu_that_is_not_well_is_not_ready(world: object, state: State, reason: str) -> None:
    found = verdict(plan(world))  # type: ignore[arg-type]
    assert (found.state, found.reason) == (state, reason)
