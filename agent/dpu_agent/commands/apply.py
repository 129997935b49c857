"""`dpu-agent apply`: bring this machine to its configuration once, or only say what that would take."""

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dpu_agent.commands.output import exit_code, show
from dpu_agent.commands.rooms import Rooms, root_of, this_machine
from dpu_agent.console import plan_text, status_text
from dpu_agent.decision import Blocks, Failure, Plan, Stage, Verdict
from dpu_agent.documents import plan_document, status_document, step_document
from dpu_agent.machine import Machine
from dpu_agent.steps import Step

if TYPE_CHECKING:
    from dpu_agent.settle import Result


def main(arguments: argparse.Namespace) -> int:
    """Do it, or with `--dry-run` print the plan; see `--help` for the exit code."""
    stage, root = Stage(arguments.stage), root_of(arguments)
    with this_machine(root) as (machine, look):
        if not arguments.dry_run:
            return _apply(arguments, machine, root, Rooms(stage))
        world = look()
    document = plan_document(Rooms(stage).plan(world), world, stage=stage)
    show(document, output=arguments.output, text=plan_text)
    return exit_code(document)


def _apply(arguments: argparse.Namespace, machine: Machine, root: Path, rooms: Rooms) -> int:
    from dpu_agent.settle import settle  # noqa: PLC0415 - a dry run, which should be quick, needs none of it

    as_json = arguments.output == "json"
    progress = Progress(sys.stderr if as_json else sys.stdout)
    result = settle(
        root=root, machine=machine, rooms=rooms, retry_for=arguments.retry_for, observer=progress, clock=time.monotonic
    )
    verdict = rooms.verdict(result.plan, result.failures)
    status = status_document(result.plan, result.world, verdict, result.failures)
    if as_json:
        done = [step_document(step) for step in result.done]
        sys.stdout.write(json.dumps({**status, "kind": "Result", "done": done}, indent=2) + "\n")
    else:
        sys.stdout.write("" if progress.quiet else "\n")
        sys.stdout.write(status_text({**status, "source": "apply"}))
    return code(result, verdict)


def code(result: "Result", verdict: Verdict) -> int:
    """0: all is as wanted; 2: steps wait that the configuration holds back, and nothing else is wrong; else 1."""
    if verdict.ready:
        return 0
    return 2 if _only_held(result.plan, result.failures) else 1


def _only_held(plan: Plan, failures: tuple[Failure, ...]) -> bool:
    # A problem on the bridge that a held step would mend is a part of the waiting; what blocks all is not.
    blocked = any(problem.blocks is Blocks.ALL for problem in plan.problems)
    return bool(plan.held) and not plan.steps and not failures and not blocked


class Progress:
    """Tells a person how it goes: a line for each step, and on a terminal a sign of life in a long one.

    Args:
        out: standard output, or standard error where that is a script's.
        every: seconds between the signs of life.

    """

    def __init__(self, out: TextIO, *, every: float = 2.0) -> None:
        self.quiet = True
        """Whether nothing was said."""
        self._out = out
        self._every = every
        self._begun = 0.0
        self._ended: threading.Event | None = None

    def started(self, step: Step) -> None:
        """See `apply.Observer`."""
        self._say(f"- {step.action.what} …")
        self._begun = time.monotonic()
        if self._out.isatty():
            self._ended = threading.Event()
            threading.Thread(target=self._live, args=(self._ended,), daemon=True).start()

    def done(self, step: Step) -> None:  # noqa: ARG002 - it is the one that was started
        """See `apply.Observer`."""
        self._say(f"  done after {self._end():.1f} s")

    def failed(self, failure: Failure) -> None:
        """See `apply.Observer`."""
        self._end()
        self._say(f"  failed: {failure.message} {failure.hint}")

    def waits(self, why: str, seconds: float) -> None:
        """It waits before the next attempt, and goes on for so many seconds at most."""
        self._say(f"- waits, for {seconds:.0f} s at most: {why}")

    def _live(self, ended: threading.Event) -> None:
        while not ended.wait(self._every):
            self._say(f"  still at it after {time.monotonic() - self._begun:.0f} s")

    def _end(self) -> float:
        if self._ended:
            self._ended.set()
        return time.monotonic() - self._begun

    def _say(self, line: str) -> None:
        self.quiet = False
        print(line, file=self._out, flush=True)
