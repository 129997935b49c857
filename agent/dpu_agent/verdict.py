"""How the DPU is, in one state, one reason and one message: of what is planned now, and of nothing that was before."""

from collections.abc import Iterator, Sequence

from dpu_agent.decision import Failure, Plan, Problem, Verdict
from dpu_agent.reasons import Reason
from dpu_agent.steps import Step
from dpu_shared.host_config import Mode
from dpu_shared.node_report import State

LIMIT = 1000
"""Characters of a message: it goes into an annotation and a condition, where a person reads it."""
_SHOWN = 4
"""Steps that are named one by one."""
_ORDER = (State.BLOCKED, State.DEGRADED, State.REBOOT_REQUIRED, State.PROGRESSING)
"""What counts for more comes first, except that a step which waits counts for less than what is broken."""


def verdict(plan: Plan, failures: Sequence[Failure] = ()) -> Verdict:
    """Judge a plan.

    Args:
        plan: what is needed now.
        failures: what did not work. A failed step that the plan no longer has is not held against anybody.

    """
    needed = {step.action for step in (*plan.steps, *plan.held)}
    failed = tuple(failure for failure in failures if failure.step.action in needed)
    findings = sorted(_findings(plan, failed), key=lambda finding: finding[0])
    if not findings:
        return Verdict(State.READY, Reason.AS_CONFIGURED, "The DPU is as configured.", plan.problems)
    _, state, reason, _ = findings[0]
    return Verdict(state, reason, _bounded([text for *_, text in findings]), plan.problems)


def _findings(plan: Plan, failed: Sequence[Failure]) -> Iterator[tuple[int, State, str, str]]:
    """Rank, state, reason and sentences of everything that is not well."""
    for problem in plan.problems:
        yield _rank(problem), problem.state, problem.reason, f"{problem.message} {problem.hint}"
    for failure in failed:
        yield _ORDER.index(State.DEGRADED), State.DEGRADED, Reason.STEP_FAILED, _failure(failure)
    if plan.held:
        state, reason, text = _held(plan)
        yield _ORDER.index(State.REBOOT_REQUIRED), state, reason, text
    waiting = {failure.step.action for failure in failed}
    going = [step for step in plan.steps if step.action not in waiting]
    if going:
        text = f"Being done: {_named(going)}."
        yield _ORDER.index(State.PROGRESSING), State.PROGRESSING, Reason.STEPS_PENDING, text


def _rank(problem: Problem) -> int:
    return _ORDER.index(problem.state) if problem.state in _ORDER else len(_ORDER)


def _failure(failure: Failure) -> str:
    again = f" ({failure.attempts} attempts)" if failure.attempts > 1 else ""
    return f"It failed to {failure.step.action.what}{again}: {failure.message} {failure.hint}"


def _held(plan: Plan) -> tuple[State, Reason, str]:
    named = _named(plan.held)
    if plan.config is not None and plan.config.mode is Mode.REPORT_ONLY:
        return (
            State.BLOCKED,
            Reason.REPORT_ONLY,
            f"Needed, and not done in the mode ReportOnly: {named}. Set spec.hostConfig.mode to Enforce to have it done.",
        )
    most = _most(plan.held)
    if all(step.at_boot for step in plan.held):
        return (
            State.REBOOT_REQUIRED,
            Reason.REBOOT_REQUIRED,
            (
                f"Waits for the next boot: {named}. {plan.held[0].why} "
                f"Reboot the DPU, or set spec.hostConfig.maxDisruption to {most}."
            ),
        )
    person = next(step for step in plan.held if not step.at_boot)
    return (
        State.BLOCKED,
        Reason.DISRUPTION_LIMIT,
        (
            f"Disturbs more than maxDisruption allows: {named}. {person.why} "
            f"Set spec.hostConfig.maxDisruption to {most}, or do it by hand when it suits."
        ),
    )


def _most(steps: Sequence[Step]) -> str:
    disruptions = [step.disruption for step in steps]
    return str(next(one for one in disruptions if not any(other.exceeds(one) for other in disruptions)))


def _named(steps: Sequence[Step]) -> str:
    names = [step.action.what for step in steps[:_SHOWN]]
    more = len(steps) - len(names)
    return "; ".join(names) + (f"; and {more} more" if more else "")


def _bounded(texts: Sequence[str]) -> str:
    """As many as there is room for; the first in any case, cut if it must be."""
    rest = "And {} more: `dpu-agent apply --dry-run` shows all."
    room = LIMIT - len(rest)
    kept: list[str] = []
    for text in texts:
        if len(" ".join([*kept, text])) > room:
            break
        kept.append(text)
    if not kept:
        kept = [texts[0][: room - 1] + "…"]
    left = len(texts) - len(kept)
    return " ".join([*kept, rest.format(left)] if left else kept)
