"""What is decided about a DPU: the plan, what failed of it, and the verdict that every report repeats. Data only."""

import enum
from dataclasses import dataclass, field

from dpu_agent.steps import Step
from dpu_shared.host_config import HostConfig
from dpu_shared.node_report import State


class Stage(enum.StrEnum):
    """How much of the machine is up."""

    EARLY = "early"
    """At boot, before NetworkManager and Open vSwitch: eswitches and udev rules only."""
    LATE = "late"
    """All the rest of the time: everything."""


class Blocks(enum.StrEnum):
    """Which steps a problem forbids."""

    ALL = "all"
    BRIDGE = "bridge"
    """Those on the bridge and its ports: the eswitch and Open vSwitch's settings don't wait for a bridge."""
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the machine that no step of ours mends, found before the first effect."""

    reason: str
    """One CamelCase word of a list that stays as it is (docs/agent.md)."""
    message: str
    hint: str
    state: State
    """What it makes of the DPU: Progressing where waiting helps, Blocked where a person must act, else Degraded."""
    blocks: Blocks = Blocks.ALL


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now, and what is not done, and why not."""

    config: HostConfig | None
    """The configuration that the plan is for; None where there is none."""
    problems: tuple[Problem, ...] = ()
    steps: tuple[Step, ...] = ()
    """In the order in which they are done. Empty where `problems` forbid it."""
    held: tuple[Step, ...] = ()
    """Needed, but above `maxDisruption`, or in ReportOnly mode, or after such a step."""
    host_pf_macs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that did not work."""

    step: Step
    message: str
    hint: str
    terminal: bool = False
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one execution of a plan: the steps that were done and verified, and the one that ended it."""

    done: tuple[Step, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the DPU is. The same sentence goes to the Node, to /readyz, to the log and to the console."""

    state: State
    reason: str
    message: str
    """What is, and if all is not well, what to do."""
    problems: tuple[Problem, ...] = field(default=())

    @property
    def ready(self) -> bool:
        return self.state is State.READY
