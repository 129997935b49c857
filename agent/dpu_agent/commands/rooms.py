"""The real rooms behind the commands. Their imports are late and few: on a DPU's cores each costs a person's time."""

import argparse
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dpu_agent import config
from dpu_agent.decision import Failure, Plan, Stage, Verdict
from dpu_agent.host.paths import default_root
from dpu_agent.machine import Machine
from dpu_agent.observe import observe
from dpu_agent.plan import plan
from dpu_agent.verdict import verdict
from dpu_agent.world import Configuration, World
from dpu_shared.errors import UserError


@dataclass(frozen=True, slots=True)
class Rooms:
    """`engine.Rooms`, as they are."""

    stage: Stage = Stage.LATE

    def observe(self, machine: Machine, configuration: Configuration) -> World:
        """See `observe.observe`."""
        return observe(machine, configuration)

    def plan(self, world: World) -> Plan:
        """See `plan.plan`."""
        return plan(world, self.stage)

    def verdict(self, plan: Plan, failures: tuple[Failure, ...] = ()) -> Verdict:
        """See `verdict.verdict`."""
        return verdict(plan, failures)


def root_of(arguments: argparse.Namespace) -> Path:
    """Where the machine's root is.

    Raises:
        UserError: the command line names a folder that is not there.

    """
    if arguments.host_root is None:
        return default_root()
    root = Path(arguments.host_root)
    if not root.is_dir():
        raise UserError(f"{root} is no folder.", "Name the folder at which the machine's root is mounted.")
    return root


@contextmanager
def this_machine(root: Path) -> Iterator[tuple[Machine, Callable[[], World]]]:
    """The machine whose file system is at `root`, and how to look at it."""
    from dpu_agent.host import real  # noqa: PLC0415 - `plan --from` needs no machine

    machine = real.machine(root)
    try:
        yield machine, functools.partial(_look, machine, root)
    finally:
        machine.ovsdb.close()


def _look(machine: Machine, root: Path) -> World:
    return observe(machine, config.read(root))
