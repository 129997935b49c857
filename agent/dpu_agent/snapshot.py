"""What the running agent knows of itself and its DPU, for those who ask: HTTP, metrics, the report on the Node."""

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from dpu_agent import __version__
from dpu_agent.decision import Failure, Plan, Verdict
from dpu_agent.reasons import Reason
from dpu_agent.world import World
from dpu_shared.node_report import NodeReport, State

HEARTBEAT_LIMIT = 90.0
"""Seconds: three times the timer's period. No step and no look of a healthy machine takes as long."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One turn of the loop, as it ended."""

    world: World
    plan: Plan
    verdict: Verdict
    failures: tuple[Failure, ...]
    heartbeat: float
    """When it was taken, in monotonic seconds."""

    @property
    def config_hash(self) -> str:
        """Of the configuration that the plan is for; empty where there is none."""
        return self.plan.config.config_hash() if self.plan.config else ""

    @property
    def boot_id(self) -> str:
        return self.world.boot_id


@dataclass(slots=True)
class Counters:
    """What has happened since the agent started."""

    done: Counter[str] = field(default_factory=Counter)
    """Steps done and verified, by name."""
    failed: Counter[str] = field(default_factory=Counter)
    """Attempts that failed, by the step's name."""
    events: Counter[str] = field(default_factory=Counter)
    """Wake-ups, by source."""
    turns: int = 0
    seconds: float = 0.0
    """Time that the turns took, together."""
    defects: int = 0
    """Turns that ended by an error in the agent itself."""


class Agent(Protocol):
    """The running agent, as HTTP and metrics see it. All of it is in memory: asking costs no look at the machine."""

    @property
    def snapshot(self) -> Snapshot | None:
        """None before the first turn."""
        ...

    @property
    def counters(self) -> Counters: ...

    @property
    def watching(self) -> dict[str, bool]:
        """Whether each source of events is watched."""
        ...

    @property
    def report_error(self) -> str:
        """Why the report isn't on the Node; empty where it is, or none is made."""
        ...

    def age(self) -> float:
        """Seconds since the loop last got on: a turn, or a step in one."""
        ...

    def verdict(self) -> Verdict:
        """How the DPU is now; a loop that hangs makes it Degraded whatever was seen last."""
        ...


def hanging(age: float) -> Verdict:
    """The verdict on a DPU whose agent has been hanging for so many seconds: nothing is known of it any more."""
    return Verdict(
        state=State.DEGRADED,
        reason=Reason.LOOP_HANGS,
        message=f"The agent's loop has made no turn for {age:.0f} s. "
        "Run `systemctl restart dpu-agent.service`, and keep its log for the report.",
    )


STARTING = Verdict(
    state=State.PROGRESSING,
    reason=Reason.STARTING,
    message="The agent has just started and has not looked at this machine yet. Ask again in a few seconds.",
)


def node_report(snapshot: Snapshot, verdict: Verdict, time: dt.datetime) -> NodeReport:
    """What is told to the operator; `time` is the wall clock's, for people."""
    return NodeReport(
        state=verdict.state,
        message=verdict.message,
        config_hash=snapshot.config_hash,
        boot_id=snapshot.boot_id,
        time=time,
        version=__version__,
        host_pf_macs=snapshot.plan.host_pf_macs,
    )
