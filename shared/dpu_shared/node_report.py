"""The agent's report: annotations of the DPU's own Node, written by the agent and read by the operator.

The agent uses the kubelet's identity, to which NodeRestriction leaves the annotations of its own Node (and nothing
else that would do).
"""

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "dpu.openshift.io/agent-"
STATE = PREFIX + "state"
MESSAGE = PREFIX + "message"
CONFIG_HASH = PREFIX + "config-hash"
BOOT_ID = PREFIX + "boot-id"
TIME = PREFIX + "time"
VERSION = PREFIX + "version"
HOST_PF_MACS = "dpu.openshift.io/host-pf-macs"
"""MAC addresses of the host's physical functions, in lower case, comma-separated: they find the tenant node."""


class State(enum.StrEnum):
    """How far the agent got."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    REBOOT_REQUIRED = "RebootRequired"
    BLOCKED = "Blocked"
    DEGRADED = "Degraded"


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one agent says of its DPU."""

    state: State
    message: str = ""
    config_hash: str = ""
    boot_id: str = ""
    time: dt.datetime | None = None
    version: str = ""
    host_pf_macs: tuple[str, ...] = ()

    def to_annotations(self) -> dict[str, str]:
        """All of the report's annotations: one merge patch of these replaces the report before."""
        return {
            STATE: str(self.state),
            MESSAGE: self.message,
            CONFIG_HASH: self.config_hash,
            BOOT_ID: self.boot_id,
            TIME: self.time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if self.time else "",
            VERSION: self.version,
            HOST_PF_MACS: ",".join(self.host_pf_macs),
        }


def parse(annotations: Mapping[str, str]) -> NodeReport | None:
    """The report in a Node's annotations; None where no agent has reported.

    A state that this release does not know counts as Degraded, with a message that says so: a report must not be taken
    for good because it is not understood.
    """
    said = annotations.get(STATE)
    if not said:
        return None
    message = annotations.get(MESSAGE, "")
    try:
        state = State(said)
    except ValueError:
        state = State.DEGRADED
        message = "The agent reports a state that this operator does not know. Use operator and agent of one release."
    macs = annotations.get(HOST_PF_MACS, "")
    return NodeReport(
        state=state,
        message=message,
        config_hash=annotations.get(CONFIG_HASH, ""),
        boot_id=annotations.get(BOOT_ID, ""),
        time=_time(annotations.get(TIME, "")),
        version=annotations.get(VERSION, ""),
        host_pf_macs=tuple(mac.strip().lower() for mac in macs.split(",") if mac.strip()),
    )


def believed(report: NodeReport, *, config_hash: str, boot_id: str) -> bool:
    """Whether the report is about this configuration and this boot; one from before the reboot says nothing of now."""
    return bool(report.config_hash and report.boot_id) and (report.config_hash, report.boot_id) == (
        config_hash,
        boot_id,
    )


def _time(text: str) -> dt.datetime | None:
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)
