"""The JSON that scripts read: of `apply --dry-run`, `plan` and `status`, and of /plan and /status. It only grows."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from dpu_agent import __version__
from dpu_agent.decision import Failure, Plan, Problem, Stage, Verdict
from dpu_agent.steps import Step
from dpu_agent.world import World
from dpu_shared.host_config import HostConfig, Mode

SCHEMA_VERSION = 1
"""Of these documents. A new key leaves it as it is; a key that goes or changes its meaning raises it."""


def plan_document(plan: Plan, world: World, *, stage: Stage) -> dict[str, Any]:
    """What would be done, and what would not, and why."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "kind": "Plan",
        "version": __version__,
        "stage": str(stage),
        "bootId": world.boot_id,
        "configHash": plan.config.config_hash() if plan.config else "",
        "configuration": _configuration(plan.config),
        "changesNeeded": bool(plan.steps or plan.held),
        **_contents(plan),
        "unseen": [{"what": item.what, "message": item.message, "hint": item.hint} for item in world.unseen],
    }


def status_document(
    plan: Plan,
    world: World,
    verdict: Verdict,
    failures: Sequence[Failure],
    *,
    age: float | None = None,
    report_error: str = "",
) -> dict[str, Any]:
    """How the DPU is.

    Args:
        plan: the last one.
        world: what it was made from.
        verdict: what it comes to.
        failures: of its steps.
        age: seconds since the running agent's loop last got on; None where no agent runs and this is a single look.
        report_error: why the Node doesn't have the agent's report.

    """
    return {
        "schemaVersion": SCHEMA_VERSION,
        "kind": "Status",
        "version": __version__,
        "source": "observation" if age is None else "agent",
        "state": str(verdict.state),
        "reason": verdict.reason,
        "message": verdict.message,
        "ready": verdict.ready,
        "heartbeatAgeSeconds": None if age is None else round(age, 3),
        "reportError": report_error,
        "bootId": world.boot_id,
        "configHash": plan.config.config_hash() if plan.config else "",
        "hostPfMacs": list(plan.host_pf_macs),
        **_contents(plan),
        "failures": [
            {
                "step": step_document(failure.step),
                "message": failure.message,
                "hint": failure.hint,
                "terminal": failure.terminal,
                "attempts": failure.attempts,
            }
            for failure in failures
        ],
        "unseen": [{"what": item.what, "message": item.message, "hint": item.hint} for item in world.unseen],
    }


def held_because(step: Step, config: HostConfig | None) -> str:
    """Why a step of `Plan.held` is not done, in one sentence."""
    if config is not None and config.mode is Mode.REPORT_ONLY:
        return "The mode is ReportOnly, so nothing is changed."
    if config is not None and step.disruption.exceeds(config.max_disruption):
        return f"It needs maxDisruption {step.disruption}, and the configuration allows {config.max_disruption}." + (
            " A reboot does it as well." if step.at_boot else ""
        )
    return "It comes after a step that waits."


def _contents(plan: Plan) -> dict[str, Any]:
    return {
        "problems": [_problem(problem) for problem in plan.problems],
        "steps": [step_document(step) for step in plan.steps],
        "held": [{**step_document(step), "heldBecause": held_because(step, plan.config)} for step in plan.held],
    }


def _configuration(config: HostConfig | None) -> dict[str, str] | None:
    if config is None:
        return None
    return {
        "bridge": config.bridge,
        "hardwareOffload": str(config.hardware_offload),
        "maxDisruption": str(config.max_disruption),
        "mode": str(config.mode),
    }


def _problem(problem: Problem) -> dict[str, str]:
    return {
        "reason": problem.reason,
        "message": problem.message,
        "hint": problem.hint,
        "state": str(problem.state),
        "blocks": str(problem.blocks),
    }


def step_document(step: Step) -> dict[str, Any]:
    """One step."""
    return {
        "name": step.name,
        "arguments": {item.name: getattr(step.action, item.name) for item in dataclasses.fields(step.action)},
        "what": step.action.what,
        "why": step.why,
        "disruption": str(step.disruption),
        "atBoot": step.at_boot,
    }
