"""What a person reads, and the JSON of it."""

import io
import json
import time
from dataclasses import replace

import pytest

from dpu_agent.commands.apply import Progress
from dpu_agent.console import plan_text, status_text, world_text
from dpu_agent.decision import Failure, Stage
from dpu_agent.documents import held_because, plan_document, status_document
from dpu_agent.plan import plan
from dpu_agent.steps import RestartVswitchd, SetLink, SetSwitchdev, Step
from dpu_agent.verdict import verdict
from dpu_agent.world import EswitchMode, Unseen, World
from dpu_shared.host_config import HostConfig, Mode
from dpu_shared.steps import Disruption
from tests.unit.agent import worlds as w


def planned(world: World) -> str:
    return plan_text(plan_document(plan(world), world, stage=Stage.LATE))


def stated(world: World, *failures: Failure, age: float | None = None) -> str:
    found = plan(world)
    return status_text(status_document(found, world, verdict(found, failures), failures, age=age))


def test_a_healthy_machine_has_one_line() -> None:
    assert planned(w.healthy()) == "Nothing to do: all that was seen is as the configuration wants it.\n"


def test_steps_come_in_their_order_with_reason_and_disruption() -> None:
    world = w.first_boot()
    lines = planned(world).splitlines()
    steps = plan(world).steps
    places = [next(i for i, line in enumerate(lines) if line.startswith(f"  {n}. ")) for n in range(1, len(steps) + 1)]
    assert places == sorted(places)
    for place, step in zip(places, steps, strict=True):
        assert step.action.what in lines[place]
        assert lines[place].endswith(")")
        assert lines[place + 1].strip() == f"why: {step.why}"


def test_all_problems_come_first_each_with_what_to_do() -> None:
    world = replace(w.healthy(), platform=w.SERVER, other_managers=("/opt/dpf/dpuagent",))
    text = planned(world)
    problems = plan(world).problems
    assert len(problems) > 1
    assert text.startswith(f"{len(problems)} problems:\n")
    for problem in problems:
        assert f"- {problem.reason}: {problem.message}\n    {problem.hint}\n" in text


def test_what_could_not_be_seen_comes_last_unless_a_problem_has_said_it() -> None:
    unseen = (Unseen("udev", "udev does not run.", "Start it."),)
    world = replace(w.healthy(), unseen=unseen)
    found = plan(world)
    document = plan_document(replace(found, problems=()), world, stage=Stage.LATE)
    assert plan_text(document).splitlines()[:3] == ["Not seen:", "  - udev: udev does not run.", "    Start it."]
    assert planned(world).count("udev does not run.") == 1


@pytest.mark.parametrize(
    ("step", "config", "sentence"),
    [
        (Step(SetLink("x"), ""), HostConfig(mode=Mode.REPORT_ONLY), "The mode is ReportOnly, so nothing is changed."),
        (
            Step(RestartVswitchd(), "", Disruption.OVS_RESTART, at_boot=True),
            HostConfig(),
            "It needs maxDisruption OVSRestart, and the configuration allows None. A reboot does it as well.",
        ),
        (
            Step(SetSwitchdev("x"), "", Disruption.LINK_FLAP),
            HostConfig(max_disruption=Disruption.OVS_RESTART),
            "It needs maxDisruption LinkFlap, and the configuration allows OVSRestart.",
        ),
        (Step(SetSwitchdev("x"), ""), HostConfig(), "It comes after a step that waits."),
    ],
)
def test_a_held_step_says_why_it_waits(step: Step, config: HostConfig, sentence: str) -> None:
    assert held_because(step, config) == sentence


def test_the_status_starts_with_the_state_and_says_who_says_so() -> None:
    assert stated(w.healthy(), age=1.5).splitlines() == [
        "Ready (AsConfigured)",
        "  The DPU is as configured.",
        "",
        "The running agent says so; its loop last got on 1.5 s ago.",
        f"The host's functions: {', '.join(plan(w.healthy()).host_pf_macs)}",
    ]
    assert "No agent runs here" in stated(w.healthy())


def test_a_failed_step_is_told_once_with_its_attempts() -> None:
    world = w.without_port(w.healthy(), "br-ex", "c1pf0hpf")
    (step,) = plan(world).steps
    text = stated(world, Failure(step, "It is busy.", "Wait.", attempts=3), age=0.0)
    assert f"- to {step.action.what} (3 attempts; tried again)\n    It is busy.\n    Wait.\n" in text
    assert text.count(step.action.what) == 1


def test_a_terminal_failure_says_that_it_is_not_tried_again() -> None:
    world = w.without_port(w.healthy(), "br-ex", "c1pf0hpf")
    (step,) = plan(world).steps
    assert "(1 attempt; not tried again before the machine changes)" in stated(
        world, Failure(step, "No.", "Ask.", terminal=True)
    )


def test_words_from_elsewhere_do_not_repaint_the_terminal() -> None:
    world = replace(w.healthy(), platform=w.SERVER, other_managers=("\x1b[2Jcleared\x07",))
    for text in (planned(world), stated(world), world_text(replace(world, boot_id="\x1b[31m"))):
        assert "\x1b" not in text
        assert "\x07" not in text


def test_the_documents_are_json_and_name_their_schema() -> None:
    world = w.with_function(w.first_boot(), w.F0, mode=EswitchMode.NONE)
    found = plan(world)
    document = json.loads(json.dumps(plan_document(found, world, stage=Stage.EARLY)))
    assert (document["schemaVersion"], document["kind"], document["stage"]) == (1, "Plan", "early")
    assert [step["name"] for step in document["steps"]] == [step.name for step in found.steps]
    status = json.loads(json.dumps(status_document(found, world, verdict(found), ())))
    assert (status["schemaVersion"], status["kind"], status["source"]) == (1, "Status", "observation")


def test_an_observation_is_told_in_short() -> None:
    text = world_text(w.healthy())
    for word in (w.F0, w.F1, "switchdev", "c1pf0hpf", "br-ex", "hw-offload true"):
        assert word in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_step_shows_signs_of_life_on_a_terminal_until_it_ends() -> None:
    out, step = Terminal(), Step(SetSwitchdev(w.F0), "It is in legacy mode.")
    progress = Progress(out, every=0.01)
    progress.started(step)
    end = time.monotonic() + 20
    while out.getvalue().count("still at it") < 3:
        assert time.monotonic() < end
        time.sleep(0.005)
    progress.done(step)
    said = out.getvalue()
    assert said.startswith(f"- {step.action.what} …\n")
    assert "done after" in said
    time.sleep(0.1)
    assert out.getvalue().count("still at it") <= said.count("still at it") + 1


def test_elsewhere_a_step_is_two_lines() -> None:
    out, step = io.StringIO(), Step(SetSwitchdev(w.F0), "It is in legacy mode.")
    progress = Progress(out, every=0.0)
    assert progress.quiet
    progress.started(step)
    progress.failed(Failure(step, "It is busy.", "Wait."))
    assert out.getvalue() == f"- {step.action.what} …\n  failed: It is busy. Wait.\n"
    assert not progress.quiet
